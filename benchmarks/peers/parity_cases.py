"""The same targets with others: what they are given, what they answered, and what `simulate` makes of it.

`benchmarks/parity.py` asks the others, each in its own environment, and stores their answers as .npz. The tests in
`tests/parity` replay them. Prices that the package brings are not stored again, walks are in whole cents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

import jaxtrader as jt
from jaxtrader.market.features import log_return
from jaxtrader.market.market import Market

PRICES = ("open", "high", "low", "close")
COSTS, RULES = ({field.name for field in dataclasses.fields(kind)} for kind in (jt.Costs, jt.Rules))
BRACKETS = ("stop_loss", "take_profit", "trailing_stop")
STOCKS = ("AAPL", "IBM", "MSFT", "GOOG")
CAPITAL = 1e6  # as in `results.py`, where a cost is in currency


@dataclass(frozen=True)
class Case:
    """Targets on prices, and the terms of trade.

    Attributes:
        name: one line, also the key in a file.
        symbols: stocks that the package brings, or () where `walk` holds prices.
        targets: [T, A] exposures in hundredths, where NaN holds.
        settings: fill, fee, slippage and what else a peer's rules need.
        walk: [4, T, A] open, high, low, close in cents.
    """

    name: str
    symbols: tuple[str, ...]
    targets: np.ndarray
    settings: Mapping[str, Any]
    walk: np.ndarray | None = None

    def market(self) -> Market:
        """The history that the targets are for."""
        if self.walk is None:
            return Market.from_bars(jt.load_bundled(self.symbols), features=[log_return()], align=len(self.symbols) > 1)
        index = pd.date_range("2000-01-03", periods=self.walk.shape[1], freq="D", tz="UTC")
        frames = [
            pd.DataFrame(dict(zip(PRICES, prices / 100, strict=True)), index) for prices in self.walk.transpose(2, 0, 1)
        ]
        loaded = [jt.load_bars(frame.assign(volume=1.0), symbol=f"S{i}") for i, frame in enumerate(frames)]
        return Market.from_bars(loaded, features=[log_return()], align=len(loaded) > 1)

    def columns(self) -> dict[str, np.ndarray]:
        """Prices and targets, [T, A], as a peer gets them."""
        market = self.market()
        rows = slice(start_of(market), None)
        return {**{name: getattr(market, name)[rows] for name in PRICES}, "targets": self.targets}

    def result(self, dtype: Literal["float64", "float32"] = "float64") -> jt.BacktestResult:
        """Our result of it."""
        market = self.market()
        costs, rules, brackets = (
            {name: x for name, x in self.settings.items() if name in names} for names in (COSTS, RULES, BRACKETS)
        )
        given = {"rules": jt.Rules(rebalance_band=0.0, **rules), "costs": jt.Costs(**costs), **brackets}
        return jt.simulate(market, self.targets, dtype=dtype, start=start_of(market), **given)

    def marks(self, dtype: Literal["float64", "float32"] = "float64") -> np.ndarray:
        """Our equity at each close. backtesting.py marks before it trades there, so what that cost is added again."""
        result = self.result(dtype)
        return result.equity + (result.costs_paid if self.settings.get("marked") == "before" else 0.0)


def start_of(market: Market) -> int:
    """The first row at which every asset has begun."""
    return 0 if market.present is None else int(np.argmax(market.present.all(1)))


def vectorbt_cases() -> list[Case]:
    """Long, short and flat on a real stock, random exposures on a walk, and weights over four stocks and four walks."""
    dear, free, low = {"fee": 1e-3, "slippage": 5e-4}, {"fee": 0.0, "slippage": 0.0}, {"fee": 1e-5, "slippage": 2e-5}
    apple = _held(np.random.default_rng(1).choice([-1.0, 0.0, 1.0, np.nan], (3270, 1), p=[0.3, 0.3, 0.3, 0.1]), 0.15)
    busy = np.random.default_rng(2).integers(-100, 101, (5000, 1)) / 100
    weights = _held(_weights(3, bars=2148, assets=4, short=False), 0.3)
    both = _weights(4, bars=1000, assets=4, short=True)
    cases = []
    for fill in ("close", "next_open"):
        cases += [
            Case(f"AAPL, long, short, flat or held, {fill}", ("AAPL",), apple, {"fill": fill, **dear}),
            Case(f"AAPL without costs, {fill}", ("AAPL",), apple, {"fill": fill, **free}),
            Case(f"a walk, a new exposure each bar, {fill}", (), busy, {"fill": fill, **low}, _walk(5, 5000, 1)),
            Case(f"four stocks, long weights, {fill}", STOCKS, weights, {"fill": fill, **dear}),
            Case(f"four walks, long and short, {fill}", (), both, {"fill": fill, **dear}, _walk(6, 1000, 4)),
        ]
    cases.append(Case("four stocks without costs, next_open", STOCKS, weights, {"fill": "next_open", **free}))
    trailed = {"fill": "close", **dear}
    contracts = {"fill": "next_open", "fee": 1e-4, "slippage": 2e-4, "fixed_fee": 3.0}
    exposures = np.random.default_rng(10).integers(-90, 91, (2000, 1)) / 100
    return [
        *cases,
        _trailed("AAPL, entries with a trailing stop, close", ("AAPL",), 0.06, trailed),
        _trailed("a walk, entries with a trailing stop, close", (), 0.025, trailed, _walk(12, 3000, 1)),
        Case(
            "a walk, whole futures contracts, next_open",
            (),
            exposures,
            {**contracts, "capital": CAPITAL, "multiplier": 50.0, "lot": 1.0},
            _walk(11, 2000, 1),
        ),
    ]


def _trailed(
    name: str, symbols: tuple[str, ...], stop: float, terms: Mapping[str, Any], walk: np.ndarray | None = None
) -> Case:
    """Entries at the close that are held for twelve bars, or until a trailing stop closes them.

    vectorbt tests a bar before it moves the stop by its high or low. So there is no position in a bar that is wider
    than the stop, which may meet the level of its own best price here (money rule 8a).
    """
    case = Case(name, symbols, np.zeros((0, 1)), {**terms, "trailing_stop": stop}, walk)
    high, low = (case.columns()[side] for side in ("high", "low"))
    targets = np.full(high.shape, np.nan)
    targets[:-1:12] = np.random.default_rng(len(targets)).choice([-0.9, 0.9], targets[:-1:12].shape)
    targets[11:-1:12] = 0.0
    wide = (low <= high * (1 - stop)) | (high >= low * (1 + stop))
    targets[:-1][wide[1:]] = 0.0
    return dataclasses.replace(case, targets=targets)


def backtesting_cases() -> list[Case]:
    """Exposures changed now and then at the close itself, and entries at the open that end by bracket or after ten
    bars."""
    rng = np.random.default_rng(7)
    apple, walk = np.full((3270, 1), np.nan), np.full((2000, 1), np.nan)
    for targets in (apple, walk):  # it has no call at the first bar, and nothing fills after the last
        rows = np.flatnonzero(rng.random(len(targets) - 2) < 0.2) + 1
        targets[rows, 0] = rng.integers(-90, 91, len(rows)) / 100
    bracketed = np.full((3270, 1), np.nan)
    bracketed[1:-1:12, 0] = rng.choice([-0.9, 0.9], len(bracketed[1:-1:12]))
    bracketed[11:-1:12, 0] = 0.0
    # It takes no entry whose brackets do not lie around the last close: where the open leaps, none is asked for.
    bars = jt.load_bundled("AAPL")
    bracketed[:-1][np.abs(bars.open[1:] / bars.close[:-1] - 1) > 0.02] = 0.0
    costs = {"fee": 1e-3, "slippage": 0.0}
    sized, often = np.full((2000, 1), np.nan), np.full((3270, 1), np.nan)
    sized[1:-1:6, 0] = rng.choice([-0.9, -0.3, -0.1, -0.01, 0.01, 0.1, 0.3, 0.9], len(sized[1:-1:6]))
    sized[4:-1:6, 0] = 0.0  # each trade pays its least, so each order has to be one trade
    rows = np.flatnonzero(rng.random(len(often) - 2) < 0.3) + 1
    often[rows, 0] = rng.integers(-90, 91, len(rows)) / 100
    currency = {"fill": "next_open", "slippage": 0.0, "fee": 0.0, "capital": CAPITAL}
    return [
        Case("AAPL, long and short, close", ("AAPL",), apple, {"fill": "close", **costs, "marked": "before"}),
        Case(
            "a walk, long and short, close", (), walk, {"fill": "close", **costs, "marked": "before"}, _walk(8, 2000, 1)
        ),
        Case(
            "AAPL, entries with a stop and a take-profit, next_open",
            ("AAPL",),
            bracketed,
            {"fill": "next_open", **costs, "stop_loss": 0.03, "take_profit": 0.05},
        ),
        Case(
            "a walk, a commission a share with a least and a most, next_open",
            (),
            sized,
            {**currency, "share_fee": 0.1, "min_fee": 100.0, "max_fee": 0.005},
            _walk(15, 2000, 1),
        ),
        Case(
            "a walk, whole futures contracts with a cost for each, next_open",
            (),
            walk,
            {**currency, "share_fee": 2.1, "multiplier": 50.0, "lot": 1.0},
            _walk(8, 2000, 1),
        ),
        Case(
            "AAPL, limit orders with a maker's and a taker's fee, limit",
            ("AAPL",),
            often,
            {"fill": "limit", **costs, "maker_fee": 2e-4, "limit_offset": 4e-3},
        ),
    ]


def gym_cases() -> list[Case]:
    """Positions that gym-trading-env trades at the close where they change, with and without its fee and interest.

    The interest is 8% a year, 0.08 / 252 of each bar to it, and by the calendar to us.
    """
    shares = np.random.default_rng(9).choice([-1.0, -0.5, 0.0, 0.5, 1.0], (3270, 1))
    mixed = _held(np.where(shares < 0, shares / 2, shares), 0.1)
    short, debt = np.full((3270, 1), 0.0), np.full((3270, 1), 2.0)
    short[250:1000] = -0.5
    debt[:1000] = 0.0
    debt[2500:] = 0.0
    on = {"fill": "close", "rebalance": "on_change", "slippage": 0.0, "max_leverage": 2.0, "maintenance_margin": 0.0}
    free = {**on, "fee": 0.0, "rate": 0.0}
    interest = {"rate": 0.08 / 252, "borrow_rate": 0.08, "short_rate": 0.08}
    return [
        Case("positions in [-0.5, 1], no costs", ("AAPL",), mixed, free),
        Case("positions in [-0.5, 1], fee", ("AAPL",), mixed, {**free, "fee": 1e-3}),
        Case("positions in [-0.5, 1], interest", ("AAPL",), mixed, {**free, **interest}),
        Case("positions in [-0.5, 1], fee and interest", ("AAPL",), mixed, {**free, **interest, "fee": 1e-3}),
        Case("short a half for 750 bars, no costs", ("AAPL",), short, free),
        Case("short a half for 750 bars, interest", ("AAPL",), short, {**free, **interest}),
        Case("twice long for 1500 bars, no costs", ("AAPL",), debt, free),
        Case("twice long for 1500 bars, interest", ("AAPL",), debt, {**free, **interest}),
    ]


def _walk(seed: int, bars: int, assets: int) -> np.ndarray:
    """Open, high, low and close in cents."""
    rng = np.random.default_rng(seed)
    close = 300 * np.exp(np.cumsum(rng.normal(0, 0.01, (bars, assets)), 0))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, 0.002, (bars, assets)))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, 0.003, (bars, assets))))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, 0.003, (bars, assets))))
    return np.rint(100 * np.stack([open_, high, low, close])).astype(np.int32)


def _weights(seed: int, bars: int, assets: int, short: bool) -> np.ndarray:
    """Hundredths whose absolute values add up to at most 0.95."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(assets + 1), bars)[:, :assets] * 95
    return np.trunc(shares * (rng.choice([-1, 1], shares.shape) if short else 1)) / 100


def _held(targets: np.ndarray, change: float) -> np.ndarray:
    """The same targets, each kept for a while: a new one comes with this probability."""
    new = np.random.default_rng(len(targets)).random(len(targets)) < change
    new[0] = True
    return targets[np.maximum.accumulate(np.where(new, np.arange(len(targets)), 0))]


def ask(python: str, peer: str, cases: Sequence[Case]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The peer's answers by case, and its versions."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "cases.npz", Path(folder) / "answers.npz"
        arrays = {f"{case.name}/{name}": column for case in cases for name, column in case.columns().items()}
        settings = json.dumps({case.name: dict(case.settings) for case in cases})
        np.savez(source, cases=np.array(settings), **arrays)
        subprocess.run([python, Path(__file__).with_name("results.py"), peer, source, result], check=True)
        with np.load(result) as stored:
            versions = json.loads(str(stored["versions"]))
            return {case.name: stored[case.name] for case in cases}, versions


def save(path: Path, cases: Iterable[Case], answers: Mapping[str, np.ndarray], versions: Mapping[str, str]) -> None:
    """Cases with what a peer answered, and the peer's versions."""
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"versions": dict(versions), "cases": {}}
    for case in cases:
        about["cases"][case.name] = {"symbols": case.symbols, "settings": dict(case.settings)}
        # -128 stands for NaN, the targets are hundredths.
        arrays[f"{case.name}/targets"] = np.where(np.isnan(case.targets), -128, np.rint(100 * case.targets)).astype(
            np.int16
        )
        arrays[f"{case.name}/answer"] = answers[case.name]
        if case.walk is not None:  # once, where several cases are on the same walk
            key = hashlib.sha256(case.walk.tobytes()).hexdigest()[:12]
            about["cases"][case.name]["walk"] = key
            arrays[key] = case.walk
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)


def load(path: Path) -> tuple[list[tuple[Case, np.ndarray]], dict[str, str]]:
    """What `save` wrote: each case with the peer's answer, and the versions."""
    with np.load(path) as stored:
        about = json.loads(str(stored["about"]))
        found = []
        for name, fields in about["cases"].items():
            targets = stored[f"{name}/targets"]
            walk = stored[fields["walk"]] if "walk" in fields else None
            wanted = np.where(targets == -128, np.nan, targets / 100)
            case = Case(name, tuple(fields["symbols"]), wanted, fields["settings"], walk)
            found.append((case, stored[f"{name}/answer"]))
    return found, about["versions"]


def answered(
    path: Path, peer: str, make: Callable[[], list[Case]], python: str | None, write: bool
) -> tuple[list[tuple[Case, np.ndarray]], dict[str, str]]:
    """Each case with the peer's answer, asked anew by an interpreter and stored if so wished, or else as stored."""
    if python is None:
        return load(path)
    cases = make()
    answers, versions = ask(python, peer, cases)
    if write:
        save(path, cases, answers, versions)
    return [(case, answers[case.name]) for case in cases], versions
