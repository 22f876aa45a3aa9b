"""What do all the rules of the ledger cost? Everything on runs against the plain rules, each pair in turn.

Everything is leverage 2 and a maintenance margin, three rates and funding, brackets, a delay of one bar, lots, a
minimum trade and a volume cap. It has a fixed fee, impact, and a fee an asset where there are several. Bars are
missing, an asset is delisted, and accounts are flat at the end of each day. In PPO costs are drawn anew for each
episode. Plain is fee, slippage and the band on the same bars. Positions are -1, 0 and 1. Continuous ones use the
leverage, and are from -1 to 1 without it. PPO is the Trainer's own chunk, end to end. The bare ledger is `ledger.step`
alone, along many paths with given targets. A single path is `simulate` with its whole result.

    python benchmarks/rules_cost.py [--quick] [--repeats N]
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from drift import ALL, BRACKETS, EVERYTHING, LOW, full, random_market
from machine import arguments, parsed, report
from peers.turns import in_turn, ratio
from workload import QUICK, Training

import jaxtrader as jt
from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import bar_between, ledger_columns, take_rows
from jaxtrader.training.rollout import MarketRollouts

PLAIN: dict[str, Any] = {"costs": jt.Costs(**LOW)}
ASSETS = 4
Runner = Callable[[], float]


def costs(assets: int, scale: float = 1.0) -> jt.Costs:
    """All costs. The fee is one an asset, where there are several."""
    fee = scale * LOW["fee"] * np.arange(1, assets + 1) if assets > 1 else scale * LOW["fee"]
    return dataclasses.replace(ALL["costs"], fee=fee)


def cases(bars: int, assets: int, drawn: bool = False) -> dict[str, tuple[jt.Market, dict[str, Any]]]:
    """Market and settings of the two. With `drawn`, costs are anew for each episode."""
    market = random_market(bars, assets, 0)
    charged = jt.Costs.between(costs(assets, 0.5), costs(assets)) if drawn else costs(assets)
    return {"plain": (market, PLAIN), "everything": (full(market), {**EVERYTHING, "costs": charged})}


def training(
    market: jt.Market,
    settings: dict[str, Any],
    paths: int,
    length: int,
    agents: int = 1,
    positions: Any = (-1.0, 0.0, 1.0),
) -> Runner:
    """PPO steps a second, of one chunk of updates. Several assets are traded as weights."""
    positions = "weights" if market.close.shape[1] > 1 else positions
    env = jt.TradingEnv(market, positions=positions, **settings)
    chunk = Training(env, env.default_params, jt.PPOAgent(), MarketRollouts(env, length, paths, agents))
    chunk()
    return chunk


@partial(jax.jit, static_argnames="rules")
def stepped(account: Any, targets: jax.Array, moves: Any, costs: jt.Costs, brackets: Any, rules: Any) -> Any:
    """Accounts `[path, 1]` along bars `[bar, path, 1]`: what is left, and the equity at each bar."""

    def move(account: Any, row: Any) -> Any:
        account, _ = ledger.step(account, row[0], row[1], costs, rules, brackets)
        return account, account.equity

    return jax.lax.scan(move, account, (targets, moves))


def bare(market: jt.Market, settings: dict[str, Any], paths: int, length: int) -> Runner:
    """Steps a second of the ledger alone in float32, paths side by side."""
    env = jt.TradingEnv(market, **settings)
    params, rules = env.default_params, env.rules
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(market.close) - length - 1, paths) + np.arange(length)[:, None]
    found = ledger_columns(params.arrays, params.costs, rules)
    moves = bar_between(take_rows(found, rows), take_rows(found, rows + 1), rules)
    targets = jnp.asarray(rng.choice([-1.0, 0.0, 1.0], (length, paths, 1)), jnp.float32)
    start = ledger.open_account(jnp.zeros((paths, 1)), moves.prev_close[0], rules, financing=params.has_financing)
    brackets = env.brackets(jnp.zeros(paths, jnp.int32), (paths, 1), jnp.dtype("float32"))
    return timed(lambda: stepped(start, targets, moves, params.costs, brackets, rules), paths * length)


def single(market: jt.Market, settings: dict[str, Any]) -> Runner:
    """Bars a second of `simulate` along one path, result and all."""
    env = jt.TradingEnv(market, **settings)
    count = len(market.close)
    rng = np.random.default_rng(0)
    rows = np.maximum.accumulate(np.where(rng.random(count) < 0.1, np.arange(count), 0))  # held for 10 bars on average
    drawn = rng.choice([-1.0, 0.0, 1.0], count)[rows]
    brackets = {name: settings[name] for name in BRACKETS if name in settings}
    return timed(lambda: jt.simulate(market, drawn, rules=env.rules, costs=env.costs, **brackets).equity, count)


def timed(run: Callable[[], Any], units: int) -> Runner:
    """Units a second of each call, after one that compiles."""
    jax.block_until_ready(run())

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(run())
        return units / (time.perf_counter() - began)

    return once


def main() -> None:
    parser = arguments(__doc__, "tiny sizes, no PPO: only shows that the script runs")
    parser.add_argument("--repeats", type=int, default=9)
    given = parsed(parser)
    quick, repeats = given.quick, 2 if given.quick else given.repeats
    bars = QUICK["bars"] if quick else 100_000
    paths, length, wide = (QUICK["envs"], QUICK["length"], 64) if quick else (1024, 64, 4096)
    one = cases(bars, 1)
    pairs: dict[str, tuple[dict[str, tuple[jt.Market, dict[str, Any]]], Callable[..., Runner]]] = {
        "bare ledger, steps": (one, lambda *case: bare(*case, wide, length)),
        "simulate, one path, bars": (one, single),
    }
    if not quick:
        drawn, several = cases(bars, 1, drawn=True), cases(bars, ASSETS, drawn=True)
        pairs |= {
            "PPO, one account a path, steps": (drawn, lambda *case: training(*case, paths, length)),
            "PPO, continuous, steps": (drawn, lambda *case: training(*case, paths, length, positions="continuous")),
            "PPO, 16 accounts a path, steps": (drawn, lambda *case: training(*case, paths // 16, length, 16)),
            f"PPO, weights over {ASSETS} assets, steps": (several, lambda *case: training(*case, paths // 4, length)),
        }
    rows: list[list[Any]] = []
    for name, (kinds, make) in pairs.items():
        found = in_turn({kind: make(*case) for kind, case in kinds.items()}, repeats)
        plain, everything = found["plain"], found["everything"]
        share = ratio(everything, plain)
        rows.append([name, statistics.median(plain), statistics.median(everything), share])
        print(*rows[-1], sep=" | ", flush=True)
    columns = ["what, a second", "plain", "everything", "everything / plain"]
    work = (
        f"{paths} x {length} steps an update, window 32, MLP 2x64, 4 epochs x 4 minibatches; bare: {wide} paths x "
        f"{length}; simulate: {bars:,} bars; a quarter of the paths for several assets; median of {repeats} turns"
    )
    report("rules_cost", columns, rows, {"work": work}, quick)


if __name__ == "__main__":
    main()
