"""How many bars a second does a backtest of given targets take, beside vectorbt and backtesting.py?

64 paths of a random walk, a new random target at each bar. Ours twice: `equity_paths`, all paths in one pass, equity
only, and `simulate`, a path after the other with its whole book (fills, costs, exposures). The final equities of ours
and a peer's must agree, so that it is the same work: with vectorbt to 1e-9 (target shares of equity, filled at the next
open, fee and slippage both), with backtesting.py to 1e-6 (one path, flat or half invested, at the close itself, traded
where the target changes, without costs: it sizes orders before costs, in whole billionths of a unit).

    python benchmarks/backtest.py [--quick] [--peers backtests] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import report
from peers.install import add_options, interpreters
from peers.turns import Peer, in_turn, ratio

import jaxtrader as jt
from jaxtrader.evaluation.simulate import equity_paths

FEE, SLIPPAGE = 1e-5, 2e-5  # low: no account may come to ruin, which the peers do not know
COSTS, FREE = jt.Costs(FEE, SLIPPAGE), jt.Costs(0.0, 0.0)
TOLERANCE = {"vectorbt": 1e-9, "backtesting.py": 1e-6}
PASS, BOOKS, ONE = "jaxtrader, equity_paths", "jaxtrader, simulate", "jaxtrader, simulate, one path"


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
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.002, (bars, paths)))
    return open_, close, rng.uniform(-0.9, 0.9, (bars, paths))


def market_of(open_: np.ndarray, close: np.ndarray) -> jt.Market:
    """The paths as histories S0, S1, ... of a market."""
    index = pd.date_range("2000-01-01", periods=len(close), freq="h", tz="UTC")
    loaded = []
    for i in range(close.shape[1]):
        prices = {"open": open_[:, i], "close": close[:, i], "volume": 1.0, "f": 0.0}
        prices |= {"high": np.maximum(open_, close)[:, i], "low": np.minimum(open_, close)[:, i]}
        loaded.append(jt.load_bars(pd.DataFrame(prices, index), symbol=f"S{i}"))
    return jt.Market.from_bars(loaded, features=["f"])


def measure(bars: int, paths: int, repeats: int, python: str | None) -> tuple[list[list[Any]], dict[str, str]]:
    """The rows, and what to say below."""
    open_, close, targets = random_paths(bars, paths)
    half = np.where(targets > 0, 0.5, 0.0)  # what backtesting.py can do in the same way
    market = market_of(open_, close)

    def books() -> np.ndarray:
        names = enumerate(market.symbols)
        return np.array([jt.simulate(market, targets[:, i], costs=COSTS, symbol=name).equity[-1] for i, name in names])

    def one() -> np.ndarray:
        settings: dict[str, Any] = {"costs": FREE, "fill": "close", "rebalance": "on_change", "symbol": "S0"}
        return jt.simulate(market, half[:, 0], **settings).equity[-1:]

    ours = {
        PASS: Ours(close.size, lambda: equity_paths(open_, close, targets, costs=COSTS)[-1]),
        BOOKS: Ours(close.size, books),
        ONE: Ours(bars, one),
    }
    np.testing.assert_allclose(ours[PASS].final, ours[BOOKS].final, rtol=1e-12)
    peers: dict[str, Peer] = {}
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for kind, wanted, against in (("vectorbt", targets, PASS), ("backtesting.py", half, ONE)):
            if python is None:
                continue
            path = Path(folder) / f"{kind}.npz"
            np.savez(path, open=open_, close=close, targets=wanted)
            rates = {"fee": FEE, "slippage": SLIPPAGE} if kind == "vectorbt" else {}
            peers[kind] = peer = stack.enter_context(
                Peer(python, "backtest_bars.py", kind=kind, market=str(path), **rates)
            )
            difference = np.max(np.abs(np.array(peer.about["final"]) / ours[against].final - 1))
            if not difference <= TOLERANCE[kind]:
                raise SystemExit(f"{kind} ends {difference:.1e} away from ours: it is not the same work")
            differences[kind] = float(difference)
        found = in_turn({**ours, **{name: peer.turn for name, peer in peers.items()}}, repeats)
    rows: list[list[Any]] = []
    for name, rates in found.items():
        compiled = ours[name].compile_seconds if name in ours else "-"
        over = "-" if name in ours else f"{ratio(found[ONE if name == 'backtesting.py' else PASS], rates):.1f}"
        books_over = f"{ratio(found[BOOKS], rates):.1f}" if name == "vectorbt" else "-"
        wide = 1 if name in (ONE, "backtesting.py") else paths
        spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
        rows.append([name, wide, statistics.median(rates), spread, compiled, over, books_over])
    facts = {f"{name}: largest difference of a final equity": f"{x:.1e}" for name, x in differences.items()}
    versions = next(iter(peers.values())).about["versions"] if peers else {}
    return rows, {**facts, **({"peers": ", ".join(f"{k} {v}" for k, v in versions.items())} if peers else {})}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no peer: only shows that the script runs")
    add_options(parser, "backtests")
    given = parser.parse_args()
    bars, paths, repeats = (512, 4, 2) if given.quick else (20_000, 64, 7)
    rows, facts = measure(bars, paths, repeats, None if given.quick else interpreters(given).get("backtests"))
    columns = ["backtest", "paths", "bars/s", "min - max", "compile s", "ours / it", "simulate / it"]
    work = f"{bars:,} bars a path, float64, the next open, fee {FEE:g}, slippage {SLIPPAGE:g}; one path: see the script"
    report("backtest" + ("_quick" if given.quick else ""), columns, rows, {"work": work, **facts})


if __name__ == "__main__":
    main()
