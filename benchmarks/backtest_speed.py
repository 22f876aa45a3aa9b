"""How many bars a second does a backtest of given targets take, beside vectorbt and backtesting.py?

64 paths of a random walk have a new random target at each bar. Ours runs three ways: `simulate` of all for the
equities, the same with every result read (fills, costs, exposures), and `simulate` of one path after the other. Then
one longer path runs alone. The final equities of ours and a peer's must agree, so that it is the same work. With
vectorbt they agree to 1e-9: target shares of equity, filled at the next open, fee and slippage. With backtesting.py
they agree to 1e-6: one path, flat or half invested, filled at the close, without costs.

    python benchmarks/backtest_speed.py [--quick] [--peers backtests] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import arguments, parsed, report, spread
from peers.install import add_options, interpreters
from peers.turns import Peer, in_turn, ratio
from workload import candles, opens_of

import jaxtrader as jt

FEE, SLIPPAGE = 1e-5, 2e-5  # low: no account may come to ruin, which the peers do not know
COSTS, NO_COSTS = jt.Costs(FEE, SLIPPAGE), jt.Costs(0.0, 0.0)
AT_CLOSE = jt.Rules(fill="close", rebalance="on_change", rebalance_band=0.0)
TOLERANCE = {"vectorbt": 1e-9, "backtesting.py": 1e-6}
LONG = 5  # times as many bars where it is one path
PASS, RESULTS = "jaxtrader, simulate, all equities", "jaxtrader, simulate, all results"
PASS_32 = "jaxtrader, simulate, all equities, float32"
ALONE, ONE = "jaxtrader, simulate, one after the other", "jaxtrader, simulate, one path"
HALF = "jaxtrader, simulate, one path, half or flat"


@dataclass(frozen=True)
class Peers:
    """Who runs on the same columns, and which of ours must end where it does."""

    kind: str
    against: str
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]
    compared_with: tuple[str, ...]


class Ours:
    """A way to run it: its first call compiles, each further one is a repetition.

    Attributes:
        final: final equities of the first call. compile_seconds: what it took beyond a later one.
    """

    def __init__(self, bars: int, run: Callable[[], np.ndarray]) -> None:
        self.bars, self.run = bars, run
        began = time.perf_counter()
        self.final = run()
        first = time.perf_counter() - began
        self.compile_seconds = max(0.0, first - bars / self())

    def __call__(self) -> float:
        """Bars a second."""
        began = time.perf_counter()
        self.run()
        return self.bars / (time.perf_counter() - began)


def random_paths(bars: int, paths: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Opens, closes and targets, each `[bar, path]`."""
    rng = np.random.default_rng(0)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, (bars, paths)), 0))
    open_ = opens_of(close) * np.exp(rng.normal(0, 0.002, (bars, paths)))
    return open_, close, rng.uniform(-0.9, 0.9, (bars, paths))


def market_of(open_: np.ndarray, close: np.ndarray) -> jt.Market:
    """The paths as histories S0, S1, ... of a market."""
    tables = {f"S{i}": candles(*pair, f=0.0) for i, pair in enumerate(zip(open_.T, close.T, strict=True))}
    return jt.Market.from_bars(jt.load_bars(tables), features=["f"])


def measure(bars: int, paths: int, repeats: int, python: str | None) -> tuple[list[list[Any]], dict[str, str]]:
    """The rows, and what to say below."""
    many, one = random_paths(bars, paths), random_paths(LONG * bars, 1)
    half = (one[0], one[1], np.where(one[2] > 0, 0.5, 0.0))  # what backtesting.py can do in the same way
    market, long = market_of(*many[:2]), market_of(*one[:2])
    targets = {name: many[2][:, i].copy() for i, name in enumerate(market.symbols)}

    def all_at_once(**settings: Any) -> np.ndarray:
        results = jt.simulate(market, targets, costs=COSTS, **settings)
        return np.array([equity[-1] for equity in results.equity.values()])

    def results() -> np.ndarray:
        return np.array([result.equity[-1] for result in jt.simulate(market, targets, costs=COSTS).values()])

    def alone() -> np.ndarray:
        runs = (jt.simulate(market, own, costs=COSTS, symbol=name) for name, own in targets.items())
        return np.array([result.equity[-1] for result in runs])

    def path(targets: np.ndarray, **settings: Any) -> np.ndarray:
        return jt.simulate(long, targets[:, 0], **settings).equity[-1:]

    ours = {
        PASS: Ours(many[1].size, all_at_once),
        PASS_32: Ours(many[1].size, lambda: all_at_once(dtype="float32")),
        RESULTS: Ours(many[1].size, results),
        ALONE: Ours(many[1].size, alone),
        ONE: Ours(one[1].size, lambda: path(one[2], costs=COSTS)),
        HALF: Ours(one[1].size, lambda: path(half[2], costs=NO_COSTS, rules=AT_CLOSE)),
    }
    np.testing.assert_allclose(ours[PASS].final, ours[ALONE].final, rtol=1e-12)
    np.testing.assert_allclose(ours[PASS_32].final, ours[ALONE].final, rtol=1e-3)
    peers = {
        "vectorbt": Peers("vectorbt", PASS, many, (PASS, RESULTS)),
        "vectorbt, one path": Peers("vectorbt", ONE, one, (ONE,)),
        "backtesting.py": Peers("backtesting.py", HALF, half, (HALF,)),
    }
    running: dict[str, Peer] = {}
    facts: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name, peer in peers.items() if python else ():
            file = Path(folder) / f"{name}.npz"
            np.savez(file, **dict(zip(("open", "close", "targets"), peer.columns, strict=True)))
            rates = {"fee": FEE, "slippage": SLIPPAGE} if peer.kind == "vectorbt" else {}
            running[name] = stack.enter_context(
                Peer(str(python), "backtest_bars.py", kind=peer.kind, market=str(file), **rates)
            )
            difference = np.max(np.abs(np.array(running[name].about["final"]) / ours[peer.against].final - 1))
            if not difference <= TOLERANCE[peer.kind]:
                raise SystemExit(f"{name} ends {difference:.1e} away from ours: it is not the same work")
            facts[f"{name}: largest difference of a final equity"] = f"{difference:.1e}"
        found = in_turn({**ours, **{name: peer.turn for name, peer in running.items()}}, repeats)
    rows: list[list[Any]] = []
    for name, rates in found.items():
        compiled = ours[name].compile_seconds if name in ours else "-"
        over = [f"{ratio(found[our], rates):.1f}" for our in peers[name].compared_with] if name in peers else []
        wide = (many if name in (PASS, PASS_32, RESULTS, ALONE, "vectorbt") else one)[1].shape[1]
        rows.append([name, wide, statistics.median(rates), spread(rates), compiled, " and ".join(over) or "-"])
    if running:
        facts["peers"] = next(iter(running.values())).versions
    return rows, facts


def main() -> None:
    parser = arguments(__doc__, "tiny sizes, no peer: only shows that the script runs")
    add_options(parser, "backtests")
    given = parsed(parser)
    bars, paths, repeats = (512, 4, 2) if given.quick else (20_000, 64, 7)
    rows, facts = measure(bars, paths, repeats, None if given.quick else interpreters(given).get("backtests"))
    columns = ["backtest", "paths", "bars/s", "min - max", "compile s", "ours / it"]
    work = (
        f"{paths} paths of {bars:,} bars, one of {LONG * bars:,}; float64, the next open, fee {FEE:g}, slippage "
        f"{SLIPPAGE:g}, but for backtesting.py: see the script; beside vectorbt all equities and all results in float64"
    )
    report("backtest_speed", columns, rows, {"work": work, **facts}, given.quick)


if __name__ == "__main__":
    main()
