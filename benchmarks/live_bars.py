"""How long does a live decision take, does anything compile anew, and does the memory grow?

Random walks are given to `policy.live` bar by bar. There are three policies: that of `jaxtrader train` (three seeds,
seven features, daily bars), one of minutes and one of 30 assets. That of minutes has a window of 32, and features of
the clock and of 5-minute bars. The time is that of `on_bar`, the first bars left out. `compiled` counts programs,
`grown` is what the process holds more at the end than after the first tenth.

    python benchmarks/live_bars.py [--bars 20000] [--cases CASE ...] [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pandas as pd
from machine import arguments, parsed, report, resident

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble
from jaxtrader.live.step import advance
from jaxtrader.training.update import init_agent

MINUTES = [
    "log_return_1",
    "volatility_20",
    "volume_ratio_20",
    "time_of_day_sin",
    "time_of_day_cos",
    "5min:volatility_20",
]
ASSETS = 30
Bar = tuple[float, float, float, float, float]


def walk(symbol: str, count: int, frequency: str) -> pd.DataFrame:
    """The bars of a random walk that ends at 50, where the live bars begin."""
    rng = np.random.default_rng(len(symbol))
    moves = np.cumsum(rng.normal(0, 0.01, count))
    close = 50 * np.exp(moves - moves[-1])
    prices = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close}
    table = pd.DataFrame(prices | {"volume": rng.uniform(1e5, 1e6, count)})
    table.index = pd.date_range("2000-01-01", periods=count, freq=frequency)
    return table


def bars_of(symbol: str, count: int, frequency: str) -> jt.Bars:
    """The same as bars."""
    bars = jt.load_bars(walk(symbol, count, frequency), symbol=symbol)
    assert isinstance(bars, jt.Bars)
    return bars


def policy_of(env: jt.TradingEnv, hidden: tuple[int, ...], seeds: int = 1) -> Policy:
    """An untrained policy, which takes the time of a trained one."""
    agent, params, found = jt.PPOAgent(hidden=hidden), env.default_params, []
    for seed in range(seeds):
        state, _ = agent.prepare(init_agent(agent, jax.random.key(seed), params, env=env), params)
        about = {"names": list(env.market.feature_names), "lookback": env.market.lookback}
        found.append(Policy(agent, state, {"env": env.to_dict(), "features": about}))
    return found[0] if seeds == 1 else ensemble(found)


Given = tuple[str, Callable[[Any, Bar], Any], np.timedelta64, np.datetime64]
"""Name of a case, how a bar is given to its account, the spacing of the bars, and the last time."""


def daily() -> Given:
    """The policy of the command."""
    bars = bars_of("A", 600, "D")
    env = jt.TradingEnv(jt.Market.from_bars(bars), positions=(0, 0.25, 0.5, 0.75, 1), window=1)
    live = policy_of(env, (32, 32), seeds=3).live(bars)
    return "the command's policy, 3 seeds", one(live), np.timedelta64(1, "D"), bars.times[-1]


def minutes() -> Given:
    """A policy of minutes with features of coarser bars and of the clock."""
    bars = bars_of("B", 5_000, "min")
    env = jt.TradingEnv(jt.Market.from_bars(bars, MINUTES), positions=(-1, 0, 1), window=32, stop_loss=0.02)
    live = policy_of(env, (64, 64)).live(bars)
    return "minutes, window 32", one(live), np.timedelta64(1, "m"), bars.times[-1]


def portfolio() -> Given:
    """Weights of several assets."""
    assets = [bars_of("C" * (i + 1), 600, "D") for i in range(ASSETS)]
    env = jt.TradingEnv(jt.Market.from_bars(assets, align=True), positions="weights", window=1)
    live = policy_of(env, (64, 64)).live(assets)
    names = live.symbols
    several = lambda time, bar: live.on_bars(time, dict.fromkeys(names, bar))  # noqa: E731
    return f"portfolio of {ASSETS}", several, np.timedelta64(1, "D"), assets[0].times[-1]


def one(live: Any) -> Callable[[Any, Bar], Any]:
    """How a bar is given to the account of one asset."""
    return lambda time, bar: live.on_bar(time, *bar)


CASES = {"daily": daily, "minutes": minutes, "portfolio": portfolio}


def main() -> None:
    parser = arguments(__doc__, "100 bars: only shows that the script runs")
    parser.add_argument("--bars", type=int, default=20_000, help="bars of each case")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="default all")
    given = parsed(parser)
    bars, rows = 100 if given.quick else given.bars, []
    for case in given.cases:
        name, give, step, last = CASES[case]()
        # All pages of `seconds` are touched now, so that its own memory does not count as growth.
        rng, seconds, close, before = np.random.default_rng(0), np.full(bars, np.nan), 50.0, resident()
        compiled = advance._cache_size()
        for i in range(bars):
            close *= float(np.exp(rng.normal(0, 0.01) - 0.001 * np.log(close / 50)))
            bar, time_of_bar = (close, close * 1.01, close * 0.99, close, 1e5), last + (i + 1) * step
            began = time.perf_counter()
            give(time_of_bar, bar)
            seconds[i] = time.perf_counter() - began
            before = resident() if i == bars // 10 else before
        ms = 1000 * np.quantile(seconds[10:], [0.5, 0.99])
        rows.append([name, bars, *map(float, ms), advance._cache_size() - compiled, resident() - before])
    columns = ["policy", "bars", "median ms", "99% ms", "compiled", "grown, MiB"]
    report("live_bars", columns, rows, {"work": "on_bar and on_bars, one process"}, given.quick)


if __name__ == "__main__":
    main()
