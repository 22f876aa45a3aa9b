"""How far does the float32 account of training drift from a float64 backtest of the same actions?

Bars are hours of a random walk. Exposures change every 50 bars on average and are asked for at each bar. In the last
rows bars are missing, funding is paid, each day ends flat, and the last bar is a delisting (`full`). The float32 side
is the environment's own account on float32 prices. The float64 side is `simulate`. Drift is |equity / equity - 1|, the
largest over the bars up to a length and over all paths. Where rules have edges (a band, lots, a stop), rounding can
decide an order one way here and the other there. That makes most of the drift. Nothing here is timed.

    python benchmarks/drift.py [--quick] [--paths N]
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from machine import arguments, parsed, report

import jaxtrader as jt
from jaxtrader.envs.episode import rows_ahead

LOW = {"fee": 1e-5, "slippage": 2e-5}  # so that 100,000 bars leave something
RATES = {"cash_rate": 0.02, "borrow_rate": 0.05, "short_rate": 0.03}
CREDIT: dict[str, Any] = {"rules": jt.Rules(max_leverage=2.0, delay=1), "costs": jt.Costs(**LOW, **RATES)}
BRACKETS: dict[str, Any] = {"stop_loss": 0.03, "take_profit": 0.05}
ALL: dict[str, Any] = {
    **BRACKETS,
    "rules": CREDIT["rules"].replace(capital=1e6, lot=1.0, min_trade=100.0, volume_cap=0.5),
    "costs": jt.Costs(**LOW, **RATES, fixed_fee=0.1, impact=0.1),
}
# For markets that are `full`.
EVERYTHING = {**ALL, "rules": ALL["rules"].replace(flat_at_session_end=True, delist_return=-0.3)}
FULL = "everything, holes in the data"
# Label, assets, settings of the environment.
CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("fee and slippage, no band", 1, {"costs": jt.Costs(**LOW), "rules": jt.Rules(rebalance_band=0.0)}),
    ("fee and slippage", 1, {"costs": jt.Costs(**LOW)}),
    ("fee and slippage", 4, {"costs": jt.Costs(**LOW)}),
    ("leverage, interest, delay", 1, CREDIT),
    ("leverage, interest, delay, brackets", 1, {**CREDIT, **BRACKETS}),
    ("everything on", 1, ALL),
    ("everything on", 4, ALL),
    (FULL, 1, EVERYTHING),
    (FULL, 4, EVERYTHING),
]


def random_market(bars: int, assets: int, seed: int) -> jt.Market:
    """One history of random walks with gaps and volume."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2000-01-01", periods=bars, freq="h", tz="UTC")
    histories = []
    for a in range(assets):
        gap, move, up, down = rng.normal(0, 0.002, (4, bars))
        close = 50 * np.exp(np.cumsum(gap * 0.2 + move))
        open_ = np.concatenate([[50.0], close[:-1]]) * np.exp(gap * 0.2)
        prices = {
            "open": open_,
            "high": np.maximum(open_, close) * np.exp(np.abs(up)),
            "low": np.minimum(open_, close) * np.exp(-np.abs(down)),
            "close": close,
            "volume": rng.lognormal(12, 0.5, bars),
        }
        histories.append(jt.load_bars(pd.DataFrame(prices, index), symbol=f"S{a}"))
    return jt.Market.from_bars(histories, features=["log_return_1"], align=True)


def full(market: jt.Market, seed: int = 0) -> jt.Market:
    """The same bars with every column that a market can have: a hundredth of the bars missing, the end a delisting."""
    rng = np.random.default_rng(seed)
    bars, shape = len(market.close), market.close.shape
    row = np.arange(bars)[:, None]
    delisted = np.broadcast_to(row == bars - 1, shape)
    present = (rng.random(shape) > 0.01) | delisted | (row == 0)
    last = np.take_along_axis(market.close, np.maximum.accumulate(np.where(present, row, 0)), 0)
    prices = {name: np.where(present, getattr(market, name), last) for name in ("open", "high", "low", "close")}
    return dataclasses.replace(
        market,
        **prices,
        present=present,
        delisted=delisted,
        listed=np.ones(shape, bool),
        funding=rng.normal(0, 1e-5, shape),
        price_factor=rng.uniform(0.5, 1, shape),
        adv=np.exp(rng.normal(17, 0.5, shape)),
        session_end=np.arange(bars) % 24 == 23,
    )


def exposures(bars: int, assets: int, most: float, seed: int) -> np.ndarray:
    """Exposures `[bar, asset]` in float32, held for 50 bars on average, and flat a tenth of the time."""
    rng = np.random.default_rng(seed + 1)
    drawn = rng.uniform(-most, most, (bars, assets)) / assets
    drawn = np.where(rng.random((bars, assets)) < 0.1, 0, drawn)
    rows = np.where(rng.random(bars) < 1 / 50, np.arange(bars), 0)
    return drawn[np.maximum.accumulate(rows)].astype(np.float32)


@partial(jax.jit, static_argnums=0)
def advanced(env: jt.TradingEnv, params: Any, actions: jax.Array) -> jax.Array:
    """Equity after each bar of the arrays but the first, from flat, by the environment's own `advance`."""
    price = params.arrays.close[0]

    def move(account: Any, row: Any) -> Any:
        account, *_ = env.advance(account, row[0], row[1], params)
        return account, account.equity

    flat = env.open_account(jnp.zeros_like(price), price, financing=params.has_financing)
    bars = rows_ahead(env, params, jnp.asarray(0), len(actions) - 1).bars
    return jax.lax.scan(move, flat, (actions[:-1], bars))[1]


def drift(case: tuple[str, int, dict[str, Any]], bars: int, seed: int) -> tuple[np.ndarray, jt.BacktestResult]:
    """|float32 / float64 - 1| at each bar, and the float64 result."""
    label, assets, settings = case
    market = random_market(bars, assets, seed)
    if label == FULL:
        market = full(market, seed)
    env = jt.TradingEnv(market, positions="continuous", random_start=False, window=1, **settings)
    actions = exposures(bars, assets, env.rules.max_leverage, seed)
    rough = np.asarray(advanced(env, env.default_params, jnp.asarray(actions)), np.float64)
    brackets = {name: settings[name] for name in BRACKETS if name in settings}
    result = jt.simulate(market, actions, rules=env.rules, costs=env.costs, **brackets)
    if result.ruined_at is not None:
        raise SystemExit(f"{case[0]}, path {seed} was ruined: what is left to compare is cash; draw another path")
    return np.concatenate([[0.0], np.abs(rough / result.equity[1:] - 1)]), result


def main() -> None:
    parser = arguments(__doc__, "short paths: only shows that the script runs")
    parser.add_argument("--paths", type=int, default=10)
    given = parsed(parser)
    lengths = (100, 300, 1_000) if given.quick else (1_000, 10_000, 100_000)
    paths = 1 if given.quick else given.paths
    rows: list[list[Any]] = []
    for case in [CASES[0], CASES[-1]] if given.quick else CASES:
        found = [drift(case, lengths[-1], seed) for seed in range(paths)]
        fills = int(np.median([len(result.fills) for _, result in found]))
        largest = [max(float(apart[:length].max()) for apart, _ in found) for length in lengths]
        typical = float(np.median([apart[-1] for apart, _ in found]))
        rows.append([case[0], case[1], fills, *(f"{x:.1e}" for x in (*largest, typical))])
        print(*rows[-1], sep=" | ", flush=True)
    columns = ["rules", "assets", "fills", *(f"up to {length:,} bars" for length in lengths), "median at the end"]
    facts = {
        "work": f"largest |float32 / float64 - 1| of equity over {paths} paths of {lengths[-1]:,} bars; median: of the "
        "paths, at the last bar"
    }
    report("drift", columns, rows, facts, given.quick)


if __name__ == "__main__":
    main()
