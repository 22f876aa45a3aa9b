"""The record of one run of the ledger: equity, holdings, every fill and every trade, and the figures.

`simulate` and `backtest` make a `BacktestResult` of a trajectory. `combine` adds several results into one. The numbers
come from the ledger. This module arranges them, in NumPy on the host, and decides and prices nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float

from jaxtrader.envs.episode import Holdings, Trajectory
from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.trades import trades_of
from jaxtrader.ledger.account import EQUITY_FLOOR, FORCED, REASONS, Events, Fill
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """One account over N bars and A assets. A combined result has a column for each asset of each member.

    Attributes:
        symbols: of the columns.
        times: close of each bar, UTC.
        equity: at each close, after every fill up to it. `initial` stands before bar 0.
        exposure: signed position value / equity, at the same moment.
        units: signed units, at the same moment.
        targets: as they were given, NaN where none was.
        turnover: traded value / equity of each bar's fills, both sides.
        costs_paid: fees and slippage of each bar, in units of the initial capital.
        financing: interest and funding booked in each bar, in units of the initial capital, below 0 where they were
            paid.
        fills: one record an execution: `bar, time, symbol, units` (signed), `price` (before slippage), `fee, slippage`
            (in units of the initial capital), `equity` (at that price, before costs), `position` (units after it),
            `reason` (one of the ledger's REASONS) and `forced` (ruin or liquidation closed it).
        last_price: of each asset, at which open trades are valued.
        next_target: the target of each asset whose order fills in the next bar, after any delay. NaN holds, also where
            a bracket keeps a position closed. Band, leverage and `rebalance` decide whether and how far the next bar
            trades to it. In units of each member's own equity where results are combined.
        ruined_at: the bar of ruin, or None. A combined result is ruined only when every member is.
        ignored_targets: bars whose target came at or after ruin.
        clipped: bars on which a target or an order was cut: beyond the leverage limit, the volume cap or the cash.
        dropped: bars on which orders were given up: no cash, too small, or no bar of the asset to fill in.
        periods_per_year: bars in a year.
        costs, rules: what it traded under.
        by_symbol: the members of a combined result.
        initial: the capital.
    """

    symbols: tuple[str, ...]
    times: np.ndarray
    equity: Float[np.ndarray, " bar"]
    exposure: Float[np.ndarray, "bar A"]
    units: Float[np.ndarray, "bar A"]
    targets: Float[np.ndarray, "bar A"]
    turnover: Float[np.ndarray, " bar"]
    costs_paid: Float[np.ndarray, " bar"]
    financing: Float[np.ndarray, " bar"]
    fills: np.ndarray
    last_price: Float[np.ndarray, " A"]
    next_target: Float[np.ndarray, " A"]
    ruined_at: int | None
    ignored_targets: int
    clipped: int
    dropped: int
    periods_per_year: float
    costs: Costs
    rules: Rules
    by_symbol: Mapping[str, BacktestResult] = field(default_factory=dict)
    initial: float = 1.0

    @classmethod
    def from_trajectory(
        cls,
        trajectory: Trajectory,
        close: Float[np.ndarray, "bar A"],
        targets: Float[np.ndarray, "bar A"],
        *,
        symbols: tuple[str, ...],
        times: np.ndarray,
        periods_per_year: float,
        costs: Costs,
        rules: Rules,
    ) -> BacktestResult:
        """The result of one account over one segment, from flat.

        Args:
            trajectory: `Holdings` and events, one decision a bar, on the host. The events after the last bar are
                ignored.
            close: of the bars, at which the account is marked.
            targets: as they were given.
            symbols, times, periods_per_year, costs, rules: see the attributes.
        """
        holdings = trajectory.account
        assert isinstance(holdings, Holdings)
        units, ruined, equity = _number(holdings.units), np.asarray(holdings.ruined), holdings.value(close)
        order, events = _by_bar(trajectory, rules)
        fills = _fill_table(units, order, events, symbols, times, rules)
        financing = events.financing
        # A forced closing may find equity near or below 0, so its turnover is measured by the mark before.
        marks = np.concatenate([[1.0], equity[:-1]])[fills["bar"]]
        value = np.maximum(np.where(fills["forced"], marks, fills["equity"]), EQUITY_FLOOR)
        traded = np.abs(fills["units"]) * fills["price"] / value
        ruined_at = int(np.argmax(ruined)) if ruined.any() else None
        late = np.isfinite(targets[ruined_at:]).any(-1) if ruined_at is not None else np.zeros(0)
        bars = len(times)
        return cls(
            symbols=symbols,
            times=times,
            equity=equity,
            exposure=_ratio(units * close, equity[:, None]),
            units=units,
            targets=targets,
            turnover=np.bincount(fills["bar"], traded, bars),
            costs_paid=np.bincount(fills["bar"], fills["fee"] + fills["slippage"], bars),
            financing=np.zeros(bars) if financing is None else np.asarray(financing),
            fills=fills,
            last_price=close[-1],
            next_target=_next_target(holdings, targets, rules),
            ruined_at=ruined_at,
            ignored_targets=int(late.sum()),
            clipped=int(np.sum(order.clipped)),
            dropped=int(np.sum(order.dropped)),
            periods_per_year=float(periods_per_year),
            costs=costs,
            rules=rules,
        )

    @cached_property
    def returns(self) -> Float[np.ndarray, " bar"]:
        """Simple return of each bar. That of bar 0 is measured from the initial capital."""
        before = np.concatenate([[self.initial], self.equity[:-1]])
        return _ratio(self.equity - before, before)

    @cached_property
    def trades(self) -> np.ndarray:
        """One record a trade, see `trades_of`. Trades that are not yet closed are marked `open`."""
        if self.by_symbol:
            return _joined([result.trades for result in self.by_symbol.values()], 1 / len(self.by_symbol))
        return trades_of(self.fills, self.symbols, self.times, self.last_price)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The figures of `metrics.compute`, `num_fills`, `num_trades` (with open ones) and `win_rate` (of closed)."""
        columns = self.equity, self.exposure, self.turnover, self.costs_paid
        closed = self.trades[~self.trades["open"]]
        return metrics.compute(*columns, self.periods_per_year, self.initial) | {
            "num_fills": float(len(self.fills)),
            "num_trades": float(len(self.trades)),
            "win_rate": float(np.mean(closed["pnl"] > 0)) if len(closed) else float("nan"),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row a bar: equity, return, turnover, costs and financing, and each asset's exposure, units and target."""
        import pandas as pd

        columns = {"equity": self.equity, "return": self.returns, "turnover": self.turnover}
        columns |= {"costs": self.costs_paid, "financing": self.financing}
        for a, symbol in enumerate(self.symbols):
            of = "" if len(self.symbols) == 1 else f" {symbol}"
            for name, column in (("exposure", self.exposure), ("units", self.units), ("target", self.targets)):
                columns[name + of] = column[:, a]
        return pd.DataFrame(columns, index=pd.DatetimeIndex(self.times, tz="UTC", name="time"))

    def __len__(self) -> int:
        return len(self.equity)

    def __repr__(self) -> str:
        first, last = (np.datetime_as_string(time, unit="D") for time in (self.times[0], self.times[-1]))
        ruin = "" if self.ruined_at is None else f", ruined at bar {self.ruined_at}"
        return (
            f"BacktestResult({', '.join(self.symbols)}: {len(self)} bars {first}..{last}, {self.initial:g} became "
            f"{self.equity[-1]:.4g} in {len(self.trades)} trades{ruin})"
        )


class BacktestResults(Mapping[str, BacktestResult]):
    """The results of many accounts, by symbol. Each result is made when it is first read, and kept.

    The fills and figures of a result take many times as long as its account, and of many paths only some are read.

    Attributes:
        equity: of each account, as in its result.
    """

    def __init__(
        self,
        symbols: tuple[str, ...],
        make: Callable[[str], BacktestResult],
        equity: dict[str, Float[np.ndarray, " bar"]] | None = None,
    ) -> None:
        self._symbols, self._make, self._equity = symbols, make, equity
        self._made: dict[str, BacktestResult] = {}

    @property
    def equity(self) -> Mapping[str, Float[np.ndarray, " bar"]]:
        """By symbol. Where an account is carried only for its result (see `simulate`), this makes all results."""
        if self._equity is None:
            self._equity = {symbol: result.equity for symbol, result in self.items()}
        return MappingProxyType(self._equity)

    def __getitem__(self, symbol: str) -> BacktestResult:
        if symbol not in self._symbols:
            raise KeyError(f"{symbol!r}; there are {', '.join(self._symbols)}")
        if symbol not in self._made:
            self._made[symbol] = self._make(symbol)
        return self._made[symbol]

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._symbols

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)

    def __repr__(self) -> str:
        return f"BacktestResults({', '.join(self._symbols)})"


def combine(results: Mapping[str, BacktestResult], periods_per_year: float | None = None) -> BacktestResult:
    """Equal capital in each result, never rebalanced, on the union calendar (money rule 10).

    A result that has not begun counts as its capital in cash. One that has ended stays at its last equity, out of the
    market. Exposure has a column a member's asset, position value / total equity, so that the columns add up to the
    total's. Turnover weighs a member by its share of the total at the bar before. Amounts are in units of all the
    capital, of which each member had an equal part. With a `capital` in currency, each member had that much.

    Args:
        results: by symbol, under the same rules and costs.
        periods_per_year: of the union calendar. None takes the members', or measures it where they differ.

    Raises:
        ValueError: no result, or results under different rules or costs.
    """
    members = list(results.values())
    if not members:
        raise ValueError("combine needs at least one result, and got none")
    first = members[0]
    for symbol, member in results.items():
        if (member.rules, member.costs.to_dict()) != (first.rules, first.costs.to_dict()):
            raise ValueError(
                f"the result of {symbol} was run under {member.rules} and {member.costs}, the first under "
                f"{first.rules} and {first.costs}; combine results of the same rules and costs"
            )
    times = np.unique(np.concatenate([member.times for member in members]))
    rows = [np.searchsorted(times, member.times) for member in members]
    share = 1 / len(members)
    equity = np.stack([share * _forward_filled(times, member, member.equity, member.initial) for member in members])
    weights = _ratio(equity, equity.sum(0))
    equal = np.full_like(weights, share)
    before = np.hstack([equal[:, :1], weights[:, :-1]])

    def summed(name: str, weights: np.ndarray) -> np.ndarray:
        """A column of amounts over all members, each weighted at its bars."""
        parts = zip(rows, members, weights, strict=True)
        return np.sum([np.bincount(at, getattr(member, name) * w[at], len(times)) for at, member, w in parts], 0)

    def side_by_side(name: str, weights: np.ndarray) -> np.ndarray:
        """A column of each member's assets, weighted at each bar, and 0 out of the market."""
        parts = zip(members, weights, strict=True)
        return np.hstack([_in_market(times, member, getattr(member, name)) * w[:, None] for member, w in parts])

    targets = [np.full((len(times), len(member.symbols)), np.nan) for member in members]
    for at, member, columns in zip(rows, members, targets, strict=True):
        columns[at] = member.targets
    ruins = [member.times[member.ruined_at] for member in members if member.ruined_at is not None]
    return BacktestResult(
        symbols=tuple(symbol for member in members for symbol in member.symbols),
        times=times,
        equity=equity.sum(0),
        exposure=side_by_side("exposure", weights),
        units=side_by_side("units", equal),
        targets=np.hstack(targets),
        turnover=summed("turnover", before),
        costs_paid=summed("costs_paid", equal),
        financing=summed("financing", equal),
        fills=_joined([member.fills for member in members], share, rows),
        last_price=np.concatenate([member.last_price for member in members]),
        next_target=np.concatenate([member.next_target for member in members]),
        ruined_at=int(np.searchsorted(times, max(ruins))) if len(ruins) == len(members) else None,
        ignored_targets=sum(member.ignored_targets for member in members),
        clipped=sum(member.clipped for member in members),
        dropped=sum(member.dropped for member in members),
        periods_per_year=periods_per_year or _periods([member.periods_per_year for member in members], times),
        costs=first.costs,
        rules=first.rules,
        by_symbol=dict(results),
    )


def _by_bar(trajectory: Trajectory, rules: Rules) -> tuple[Fill, Events]:
    """Orders and events by the bar in which they happened: t+1 for what followed close[t].

    With `fill="close"` the order of close[t] happened in the bar t.
    """
    events = jax.tree.map(_number, trajectory.events)
    later = jax.tree.map(lambda x: np.concatenate([np.zeros_like(x[:1]), x[:-1]]), events)
    return (events if rules.fill == "close" else later).order, later


def _number(leaf: Any) -> np.ndarray:
    """As NumPy's float64. Booleans stay as they are."""
    array = np.asarray(leaf)
    return array if array.dtype == bool else array.astype(np.float64, copy=False)


def _next_target(holdings: Holdings, targets: Float[np.ndarray, "bar A"], rules: Rules) -> Float[np.ndarray, " A"]:
    """The targets whose orders fill in the bar after the last one, NaN where there are none."""
    wait = rules.delay + (rules.fill != "close")
    if holdings.ruined[-1] or not 0 < wait <= len(targets):
        return np.full(targets.shape[1], np.nan)
    due = targets[len(targets) - wait]
    if holdings.stopped is None:
        return due
    stopped = np.asarray(holdings.stopped)[-1]
    return np.where((stopped != 0) & (np.sign(due) == stopped), np.nan, due)


def _fill_table(
    units: np.ndarray, order: Fill, events: Events, symbols: tuple[str, ...], times: np.ndarray, rules: Rules
) -> np.ndarray:
    """Every execution, in the order of money rule 2 within a bar."""
    reasons = np.array(REASONS)
    numbers = [(column, "f8") for column in ("units", "price", "fee", "slippage", "equity", "position")]
    names = [("bar", "i8"), ("time", "M8[ns]"), ("symbol", f"U{max(map(len, symbols))}")]
    record = np.dtype([*names, *numbers, ("reason", reasons.dtype.str), ("forced", "?")])
    in_time = {
        "next_open": (events.gap_exits, order, events.intrabar_exits, events.closing),
        "next_close": (events.gap_exits, events.intrabar_exits, order, events.closing),
        "close": (events.gap_exits, events.intrabar_exits, events.closing, order),  # at the mark itself
    }[rules.fill]
    tables, after = [], units
    for fill in reversed(in_time):
        if fill is None:
            continue
        at = np.flatnonzero(fill.units)  # of bars and assets as one axis: reading columns by it is three times as fast
        if not len(at):
            continue
        bar, asset = np.divmod(at, len(symbols)) if len(symbols) > 1 else (at, 0)
        table = np.empty(len(at), record)
        table["bar"], table["time"] = bar, times[bar]
        table["symbol"] = np.array(symbols)[asset] if len(symbols) > 1 else symbols[0]
        for column in ("units", "price", "fee", "slippage"):
            table[column] = np.ravel(getattr(fill, column))[at]
        table["equity"], table["position"] = fill.equity[bar], np.ravel(after)[at]
        codes = np.ravel(fill.reason)[at].astype(int)
        table["reason"] = reasons[codes] if codes.any() else reasons[0]
        table["forced"] = np.isin(codes, FORCED)
        tables.append(table)
        after = after - fill.units  # exact where the fill closed all: 0 - units
    if len(tables) == 1:  # in order already, and copying its texts takes half of the time of a result
        return tables[0]
    fills = np.concatenate([np.empty(0, record), *tables[::-1]])
    return fills[np.argsort(fills["bar"], kind="stable")]


def _joined(tables: list[np.ndarray], share: float, rows: list[np.ndarray] | None = None) -> np.ndarray:
    """Tables of trades or, with the members' `rows`, of fills, in order of time, in units of the total's capital."""
    scaled = [table.copy() for table in tables]
    for i, table in enumerate(scaled):
        for column in {"units", "fee", "slippage", "equity", "position", "costs", "pnl"} & {*(table.dtype.names or ())}:
            table[column] *= share
        if rows is not None:
            table["bar"] = rows[i][table["bar"]]
    joined = np.concatenate(scaled)
    return joined[np.argsort(joined["entry_time" if rows is None else "time"], kind="stable")]


def _forward_filled(times: np.ndarray, result: BacktestResult, column: np.ndarray, before: float) -> np.ndarray:
    """A result's column on other times: its last known row, `before` where it has not begun."""
    row = np.searchsorted(result.times, times, side="right") - 1
    known = (row >= 0).reshape(-1, *[1] * (column.ndim - 1))
    return np.where(known, column[np.maximum(row, 0)], before)


def _in_market(times: np.ndarray, result: BacktestResult, column: np.ndarray) -> np.ndarray:
    """A result's `[bar, A]` column on other times, 0 before it begins and after it ends."""
    return np.where((times <= result.times[-1])[:, None], _forward_filled(times, result, column, 0.0), 0.0)


def _periods(members: list[float], times: np.ndarray) -> float:
    """The bars in a year that all members share, else (n - 1) / years of the union calendar."""
    if len(set(members)) == 1:
        return members[0]
    years = (times[-1] - times[0]) / np.timedelta64(1, "D") / 365.25
    return float((len(times) - 1) / years)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0: an account that is worth exactly 0 is closed."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)
