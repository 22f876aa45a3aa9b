"""The record of one run of the ledger: what it was worth, what it held, every fill and every trade, and the figures.

`simulate` (and through it `backtest`) writes books, of many histories `Books`; `combine` adds several into one. Nothing
is decided or priced here: the numbers come from the ledger, and this module only arranges them, in NumPy on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from jaxtrader.envs.account import FORCED, REASONS, Events
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rewards import FLOOR
from jaxtrader.envs.rules import Rules
from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.trades import trades_of

if TYPE_CHECKING:
    import pandas as pd


class Run(struct.PyTreeNode):
    """What a pass of the ledger over N bars leaves behind, as NumPy arrays.

    Attributes:
        equity: marked at each close, after every fill up to it.
        close: the price of that mark.
        units: held after it.
        ruined: from the bar of ruin on.
        events: what happened in each row, every field with a leading bar axis.
        stopped: after the last bar, the sign of a position that a bracket keeps closed; None without brackets.
    """

    equity: Float[np.ndarray, " bar"]
    close: Float[np.ndarray, "bar A"]
    units: Float[np.ndarray, "bar A"]
    ruined: Bool[np.ndarray, " bar"]
    events: Events
    stopped: Int[np.ndarray, " A"] | None = None


@dataclass(frozen=True, eq=False)
class Book:
    """One account over N bars and A assets (a combined book has one column a member's asset).

    Attributes:
        symbols: of the columns.
        times: close of each bar, UTC.
        equity: at each close, after every fill up to it; `initial` stands before bar 0.
        exposure: signed position value / equity, likewise.
        units: signed holdings, likewise.
        targets: as they were given, NaN where none was.
        turnover: traded value / equity of each bar's fills, both sides.
        costs_paid: fees and slippage of each bar, in units of the initial capital.
        carry: interest and funding booked in each bar, below 0 where they were paid, likewise.
        fills: one record an execution: `bar, time, symbol, units` (signed), `price` (before slippage), `fee, slippage`
            (in units of the initial capital), `equity` (at that price, before costs), `position` (units after it),
            `reason` (one of the ledger's REASONS) and `forced` (ruin or liquidation closed it).
        last_price: of each asset, at which open trades are valued.
        next_target: the exposures that come to their fill in the next bar, after any delay; NaN holds, as where a
            bracket keeps a position closed. Band, leverage and `rebalance` still say whether and how far they are
            traded. In units of each member's own equity where books are combined.
        ruined_at: the bar of ruin, or None. The total of a combined book is ruined only when every member is.
        ignored_targets: bars whose target came at or after ruin.
        clipped: bars on which a target beyond the leverage limit, an order beyond the volume cap, or a buy that cash
            could not pay for, was cut.
        dropped: bars on which orders were given up: no cash, too small, or no bar of the asset to fill in.
        periods_per_year: bars in a year.
        costs, rules: what it traded under.
        by_symbol: the members of a combined book.
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
    carry: Float[np.ndarray, " bar"]
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
    by_symbol: Mapping[str, Book] = field(default_factory=dict)
    initial: float = 1.0

    @classmethod
    def from_run(
        cls,
        run: Run,
        targets: Float[np.ndarray, "bar A"],
        *,
        symbols: tuple[str, ...],
        times: np.ndarray,
        periods_per_year: float,
        costs: Costs,
        rules: Rules,
    ) -> Book:
        """The book of one run of the ledger over one segment, from flat."""
        fills = _fill_table(run, symbols, times, rules)
        order, carry = run.events.order, run.events.carry
        assert order is not None
        # A forced closing may find equity near or below 0: it counts by what was there at the mark before.
        marks = np.concatenate([[1.0], run.equity[:-1]])[fills["bar"]]
        value = np.maximum(np.where(fills["forced"], marks, fills["equity"]), FLOOR)
        traded = np.abs(fills["units"]) * fills["price"] / value
        ruined_at = int(np.argmax(run.ruined)) if run.ruined.any() else None
        late = np.isfinite(targets[ruined_at:]).any(-1) if ruined_at is not None else np.zeros(0)
        bars = len(times)
        return cls(
            symbols=symbols,
            times=times,
            equity=run.equity,
            exposure=_ratio(run.units * run.close, run.equity[:, None]),
            units=run.units,
            targets=targets,
            turnover=np.bincount(fills["bar"], traded, bars),
            costs_paid=np.bincount(fills["bar"], fills["fee"] + fills["slippage"], bars),
            carry=np.zeros(bars) if carry is None else np.asarray(carry),
            fills=fills,
            last_price=run.close[-1],
            next_target=_next_target(run, targets, rules),
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
        """Simple return of each bar; bar 0 is measured from the initial capital."""
        before = np.concatenate([[self.initial], self.equity[:-1]])
        return _ratio(self.equity - before, before)

    @cached_property
    def trades(self) -> np.ndarray:
        """One record a trade, see `trades_of`; those not yet closed are marked `open`."""
        if self.by_symbol:
            return _joined([book.trades for book in self.by_symbol.values()], 1 / len(self.by_symbol))
        return trades_of(self.fills, self.symbols, self.times, self.last_price)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The figures of `metrics.compute`, `num_fills`, `num_trades` (with open ones) and `win_rate` (of closed)."""
        closed = self.trades[~self.trades["open"]]
        return metrics.compute(
            self.equity, self.exposure, self.turnover, self.costs_paid, self.periods_per_year, self.initial
        ) | {
            "num_fills": float(len(self.fills)),
            "num_trades": float(len(self.trades)),
            "win_rate": float(np.mean(closed["pnl"] > 0)) if len(closed) else float("nan"),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row a bar, by time: equity, return, turnover, costs, carry; each asset's exposure, units and target."""
        import pandas as pd

        columns = {"equity": self.equity, "return": self.returns, "turnover": self.turnover}
        columns |= {"costs": self.costs_paid, "carry": self.carry}
        for a, symbol in enumerate(self.symbols):
            of = "" if len(self.symbols) == 1 else f" {symbol}"
            columns |= {
                f"exposure{of}": self.exposure[:, a],
                f"units{of}": self.units[:, a],
                f"target{of}": self.targets[:, a],
            }
        return pd.DataFrame(columns, index=pd.DatetimeIndex(self.times, tz="UTC", name="time"))

    def __len__(self) -> int:
        return len(self.equity)

    def __repr__(self) -> str:
        first, last = (np.datetime_as_string(time, unit="D") for time in (self.times[0], self.times[-1]))
        ruin = "" if self.ruined_at is None else f", ruined at bar {self.ruined_at}"
        return (
            f"Book({', '.join(self.symbols)}: {len(self)} bars {first}..{last}, {self.initial:g} became "
            f"{self.equity[-1]:.4g} in {len(self.trades)} trades{ruin})"
        )


class Books(Mapping[str, Book]):
    """The books of many accounts, by symbol: each is made when it is first asked for, and kept.

    What all fills and figures of a book take is many times what its account takes, and of many paths only some are
    looked at.

    Attributes:
        equity: of each account, as its book has it.
    """

    def __init__(
        self,
        symbols: tuple[str, ...],
        make: Callable[[str], Book],
        equity: dict[str, Float[np.ndarray, " bar"]] | None = None,
    ) -> None:
        self._symbols, self._make, self._equity = symbols, make, equity
        self._made: dict[str, Book] = {}

    @property
    def equity(self) -> Mapping[str, Float[np.ndarray, " bar"]]:
        """By symbol. Where the rules are such that only a book tells (`simulate`), all are made."""
        if self._equity is None:
            self._equity = {symbol: book.equity for symbol, book in self.items()}
        return MappingProxyType(self._equity)

    def __getitem__(self, symbol: str) -> Book:
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
        return f"Books({', '.join(self._symbols)})"


def combine(books: Mapping[str, Book], periods_per_year: float | None = None) -> Book:
    """Equal capital in each book, never rebalanced, on the union calendar (money rule 10).

    A book that has not begun counts as its capital in cash, one that has ended stays at its last equity, out of the
    market. Exposure is a column a member, position value / total equity, so that the columns add up to the total's.
    Turnover weighs a member by its share of the total at the bar before. Amounts are in units of all the capital, of
    which each member had a part: under rules with a `capital` in currency, each had that much and all together so many
    times as much.

    Args:
        books: by symbol, under the same rules and costs.
        periods_per_year: of the union calendar. None: the members', or measured where they differ.

    Raises:
        ValueError: no book, or books under different rules or costs.
    """
    members = list(books.values())
    if not members:
        raise ValueError("combine needs at least one book, and got none")
    first = members[0]
    for symbol, book in books.items():
        if (book.rules, book.costs.to_dict()) != (first.rules, first.costs.to_dict()):
            raise ValueError(
                f"the book of {symbol} was run under {book.rules} and {book.costs}, the first under {first.rules} and "
                f"{first.costs}; combine books of the same rules and costs"
            )
    times = np.unique(np.concatenate([book.times for book in members]))
    share = 1 / len(members)
    equity = np.stack([share * _on(times, book, book.equity, book.initial) for book in members])
    total = equity.sum(0)
    weights = _ratio(equity, total)
    before = np.concatenate([np.full((len(members), 1), share), weights[:, :-1]], 1)
    places = [np.searchsorted(times, book.times) for book in members]
    ruins = [book.times[book.ruined_at] for book in members if book.ruined_at is not None]
    return Book(
        symbols=tuple(symbol for book in members for symbol in book.symbols),
        times=times,
        equity=total,
        exposure=np.hstack(
            [_in_market(times, book, book.exposure) * w[:, None] for book, w in zip(members, weights, strict=True)]
        ),
        units=np.hstack([share * _in_market(times, book, book.units) for book in members]),
        targets=np.hstack([_at(places[i], len(times), book.targets) for i, book in enumerate(members)]),
        turnover=np.sum(
            [np.bincount(at, b.turnover * w[at], len(times)) for at, b, w in zip(places, members, before, strict=True)],
            0,
        ),
        costs_paid=np.sum(
            [np.bincount(at, share * b.costs_paid, len(times)) for at, b in zip(places, members, strict=True)], 0
        ),
        carry=np.sum([np.bincount(at, share * b.carry, len(times)) for at, b in zip(places, members, strict=True)], 0),
        fills=_joined([book.fills for book in members], share, places),
        last_price=np.concatenate([book.last_price for book in members]),
        next_target=np.concatenate([book.next_target for book in members]),
        ruined_at=int(np.searchsorted(times, max(ruins))) if len(ruins) == len(members) else None,
        ignored_targets=sum(book.ignored_targets for book in members),
        clipped=sum(book.clipped for book in members),
        dropped=sum(book.dropped for book in members),
        periods_per_year=periods_per_year or _periods([book.periods_per_year for book in members], times),
        costs=first.costs,
        rules=first.rules,
        by_symbol=dict(books),
    )


def _next_target(run: Run, targets: Float[np.ndarray, "bar A"], rules: Rules) -> Float[np.ndarray, " A"]:
    """The targets that are due in the bar after the last one, NaN where nothing is asked for."""
    wait = rules.delay + (rules.fill != "close")
    if run.ruined[-1] or not 0 < wait <= len(targets):
        return np.full(targets.shape[1], np.nan)
    due = targets[len(targets) - wait]
    return due if run.stopped is None else np.where((run.stopped != 0) & (np.sign(due) == run.stopped), np.nan, due)


def _fill_table(run: Run, symbols: tuple[str, ...], times: np.ndarray, rules: Rules) -> np.ndarray:
    """Every execution as they happened, within a bar in the order of money rule 2."""
    reasons = np.array(REASONS)
    numbers = [(column, "f8") for column in ("units", "price", "fee", "slippage", "equity", "position")]
    names = [("bar", "i8"), ("time", "M8[ns]"), ("symbol", f"U{max(map(len, symbols))}")]
    record = np.dtype([*names, *numbers, ("reason", reasons.dtype.str), ("forced", "?")])
    events = run.events
    order = {
        "next_open": (events.jumped, events.order, events.inside, events.closing),
        "next_close": (events.jumped, events.inside, events.order, events.closing),
        "close": (events.jumped, events.inside, events.closing, events.order),  # at the mark itself
    }[rules.fill]
    tables, after = [], run.units
    for fill in reversed(order):
        if fill is None:
            continue
        at = np.flatnonzero(fill.units)  # rows and assets as one axis: taken from that, columns are three times as fast
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
        after = after - fill.units  # exact where it closed all: 0 - units
    if len(tables) == 1:  # in order as it is, and a copy of all that text is half of the time of a book
        return tables[0]
    fills = np.concatenate([np.empty(0, record), *tables[::-1]])
    return fills[np.argsort(fills["bar"], kind="stable")]


def _joined(tables: list[np.ndarray], share: float, places: list[np.ndarray] | None = None) -> np.ndarray:
    """Tables of fills or trades end to end in order of time, amounts scaled to the total's capital."""
    scaled = [table.copy() for table in tables]
    for i, table in enumerate(scaled):
        for column in ("units", "fee", "slippage", "equity", "position", "costs", "pnl"):
            if column in (table.dtype.names or ()):
                table[column] *= share
        if places is not None:
            table["bar"] = places[i][table["bar"]]
    joined = np.concatenate(scaled)
    return joined[np.argsort(joined["time" if places is not None else "entry_time"], kind="stable")]


def _on(times: np.ndarray, book: Book, column: np.ndarray, before: float) -> np.ndarray:
    """A book's column on other times: its last known row, `before` where it has not begun."""
    row = np.searchsorted(book.times, times, side="right") - 1
    known = (row >= 0).reshape(-1, *[1] * (column.ndim - 1))
    return np.where(known, column[np.maximum(row, 0)], before)


def _in_market(times: np.ndarray, book: Book, column: np.ndarray) -> np.ndarray:
    """A book's `[bar, A]` column on other times, 0 before it begins and after it ends."""
    return np.where((times <= book.times[-1])[:, None], _on(times, book, column, 0.0), 0.0)


def _at(places: np.ndarray, bars: int, column: np.ndarray) -> np.ndarray:
    """A `[bar, A]` column spread over more bars, NaN between."""
    spread = np.full((bars, column.shape[1]), np.nan)
    spread[places] = column
    return spread


def _periods(members: list[float], times: np.ndarray) -> float:
    """Bars a year that all members share, else (n - 1) / years of the union calendar."""
    if len(set(members)) == 1:
        return members[0]
    years = (times[-1] - times[0]) / np.timedelta64(1, "D") / 365.25
    return float((len(times) - 1) / years)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where nothing is there to be divided: an account that is exactly worth 0 is closed."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)
