"""The record of one run of the ledger: equity, holdings, every fill and every trade, and the figures.

`simulate` and `backtest` make a `BacktestResult` of a trajectory, and combined.py adds several into one. The numbers
come from the ledger. This module arranges them, in NumPy on the host, and decides and prices nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
import numpy as np
from jaxtyping import Float

from jaxtrader.agents.explanation import Seen
from jaxtrader.envs.episode import Holdings, Trajectory
from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.observed import Observed, bar_at
from jaxtrader.evaluation.position_financing import PositionFinancing, bars_to, cash_returns, position_financing
from jaxtrader.evaluation.trades import figures, trades_of
from jaxtrader.ledger.account import FORCED, ORDER, REASONS, Events, Fill
from jaxtrader.ledger.bar import Columns
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.orders import lift_blocks, unblocked
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import equity_of_fill
from jaxtrader.market import clock
from jaxtrader.market.clock import time_zone, wall_clock

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


# The metrics that a notebook shows.
SHOWN = ("total_return", "cagr", "sharpe", "sharpe_error", "max_drawdown", "mean_exposure", "turnover", "costs")
ORDERS = ("clipped", "dropped", "ignored_targets", "beyond_cap", "unmet")  # counts of bars


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """One account over N bars and A assets. A combined result has a column for each asset of each member.

    Attributes:
        symbols: the symbol of each column.
        times: close of each bar, UTC, as all times in `fills` and `trades` are. `to_frame` shows them in `tz`.
        equity: the equity at each close, after every fill up to it. Before bar 0 it is 1.
        exposure: signed position value / equity, at the same moment.
        intrabar_exposure: signed position value / equity of what was held within each bar. A bracket, the margin or a
            session's end may close a position before `exposure` is taken. Here it counts for the whole bar, at its
            value when it was closed. A bar does not tell how long it was held.
        units: signed units, at the same moment.
        targets: the target exposures as they were given, NaN where none was.
        turnover: traded value / equity of each bar's fills, both sides.
        costs_paid: fees and slippage of each bar, in units of the initial capital.
        financing: interest, funding and dividends booked in each bar, in units of the initial capital, below 0 where
            they were paid.
        position_financing: of the financing, what holding each asset cost or brought, below 0 where it was paid. It
            is funding, dividends, the fee on shorts, and interest on debt, shared by the value of the longs. It is no
            interest on idle cash.
        position_financing_after_open: the part that belongs to what stood after the orders at each bar's open, see
            `PositionFinancing`.
        cash_returns: what cash alone earned in each bar at the `cash_rate` of the costs, a fraction (money rule 6). A
            combined result weighs that of its members, and capital out of the market is owed nothing.
        fills: one record an execution. `bar`, `time` and `symbol` say where it was. `units` are signed, and `price` is
            that before slippage. `fee` and `slippage` are in units of the initial capital. `equity` is at that price,
            before costs, and `position` is the units after the fill. `reason` is one of the ledger's REASONS. `forced`
            says whether ruin or a liquidation closed the position.
        last_price: the last close of each asset, at which open trades are valued.
        next_target: the target of each asset whose order fills in the next bar, after any delay. NaN holds, also where
            a bracket keeps a position closed. Band, leverage and `rebalance` decide whether and how far the next bar
            trades to it. In units of each member's own equity where results are combined.
        ruined_at: the bar of ruin, or None. A combined result is ruined only when every member is.
        ignored_targets: bars whose target came at or after ruin.
        clipped: bars on which a target or an order was cut: beyond the leverage limit, the volume cap or the cash.
        dropped: bars on which orders were given up: no cash, too small, or no bar of the asset to fill in.
        beyond_cap: bars on which a last bar, a session's end or ruin closed more than the volume cap.
        unmet: bars on which a limit order rested and did not fill.
        periods_per_year: bars in a year.
        costs, rules: what it traded under.
        by_symbol: the members of a combined result.
        initial: the capital, 1.
        tz: zone of the exchange's wall clock. None is UTC, also where the members of a combined result differ.
        observed: what the decisions of a policy saw. None where targets were given, and of a combined result.

    Example:
        >>> _, test = jt.Market.from_bars(jt.load_bundled("IBM")).split("2011-01-01")
        >>> result = jt.simulate(test, 1.0)
        >>> round(result.metrics["mean_exposure"], 2), len(result.trades)
        (1.0, 1)
    """

    symbols: tuple[str, ...]
    times: np.ndarray
    equity: Float[np.ndarray, " bar"]
    exposure: Float[np.ndarray, "bar A"]
    intrabar_exposure: Float[np.ndarray, "bar A"]
    units: Float[np.ndarray, "bar A"]
    targets: Float[np.ndarray, "bar A"]
    turnover: Float[np.ndarray, " bar"]
    costs_paid: Float[np.ndarray, " bar"]
    financing: Float[np.ndarray, " bar"]
    position_financing: Float[np.ndarray, "bar A"]
    position_financing_after_open: Float[np.ndarray, "bar A"]
    cash_returns: Float[np.ndarray, " bar"]
    fills: np.ndarray
    last_price: Float[np.ndarray, " A"]
    next_target: Float[np.ndarray, " A"]
    ruined_at: int | None
    ignored_targets: int
    clipped: int
    dropped: int
    beyond_cap: int
    periods_per_year: float
    costs: Costs
    rules: Rules
    by_symbol: Mapping[str, BacktestResult] = field(default_factory=dict)
    initial: ClassVar[float] = 1.0
    tz: str | None = None
    observed: Observed | None = None
    unmet: int = 0

    @classmethod
    def from_trajectory(
        cls,
        trajectory: Trajectory,
        columns: Columns,
        targets: Float[np.ndarray, "bar A"],
        *,
        symbols: tuple[str, ...],
        times: np.ndarray,
        periods_per_year: float,
        costs: Costs,
        rules: Rules,
        tz: str | None = None,
        observed: Observed | None = None,
    ) -> BacktestResult:
        """The result of one account over one segment, from flat.

        Args:
            trajectory: `Holdings` and events, one decision a bar, on the host. The events after the last bar are
                ignored.
            columns: the columns of the bars, see `ledger.bar.ledger_columns`. The account is marked at their close.
            targets: the target exposures as they were given.
            symbols, times, periods_per_year, costs, rules, tz, observed: see the attributes.
        """
        holdings = trajectory.account
        assert isinstance(holdings, Holdings)
        columns = {name: _number(column) for name, column in columns.items()}
        close, bars = columns["close"], bars_to(columns, rules)
        units, ruined, equity = _number(holdings.units), np.asarray(holdings.ruined), holdings.value(close)
        order, events = _by_bar(trajectory, rules)
        fills = _fill_table(units, order, events, symbols, times, rules)
        equity_before = np.concatenate([[1.0], equity[:-1]])
        ruined_at = int(np.argmax(ruined)) if ruined.any() else None
        late = np.isfinite(targets[ruined_at:]).any(-1) if ruined_at is not None else np.zeros(0)
        exposure = ratio(units * close, equity[:, None])
        financing, of_positions = np.zeros(len(times)), PositionFinancing(np.zeros_like(units), np.zeros_like(units))
        if events.financing is not None:
            financing = np.asarray(events.financing)
            of_positions = position_financing(bars, costs, rules, _number(holdings.cash), units, ruined, order, events)
        return cls(
            symbols=symbols,
            times=times,
            equity=equity,
            exposure=exposure,
            intrabar_exposure=_intrabar_exposure(exposure, order, events, equity_before, rules),
            units=units,
            targets=targets,
            turnover=np.bincount(fills["bar"], _traded(fills, equity_before), len(times)),
            costs_paid=np.bincount(fills["bar"], fills["fee"] + fills["slippage"], len(times)),
            financing=financing,
            position_financing=of_positions.total,
            position_financing_after_open=of_positions.after_open,
            cash_returns=cash_returns(costs, bars),
            fills=fills,
            last_price=close[-1],
            next_target=_next_target(holdings, targets, rules),
            ruined_at=ruined_at,
            ignored_targets=int(late.sum()),
            clipped=int(np.sum(order.clipped)),
            dropped=int(np.sum(order.dropped)),
            beyond_cap=_beyond_cap((order, events.gap_exits, events.closing)),
            unmet=0 if order.unmet is None else int(np.sum(order.unmet)),
            periods_per_year=float(periods_per_year),
            costs=costs,
            rules=rules,
            tz=tz,
            observed=observed,
        )

    @property
    def name(self) -> str:
        """The name of its history in the market: the symbols, joined by commas."""
        return ",".join(self.symbols)

    @property
    def accounts(self) -> Mapping[str, BacktestResult]:
        """The accounts of a combined result, or this one, by their names."""
        return self.by_symbol or {self.name: self}

    @cached_property
    def returns(self) -> Float[np.ndarray, " bar"]:
        """Simple return of each bar, that of bar 0 from the initial capital. NaN where no capital was left before."""
        return metrics.bar_returns(self.equity)

    @cached_property
    def excess_returns(self) -> Float[np.ndarray, " bar"]:
        """Return of each bar over cash. Sharpe and Sortino ratios and the verdict are of these."""
        return self.returns - self.cash_returns

    @property
    def years(self) -> float:
        """Calendar time from the first bar to the last, in years of 365.25 days."""
        return float((self.times[-1] - self.times[0]) / np.timedelta64(1, "s")) / (365.25 * 86_400)

    @property
    def spans_a_year(self) -> bool:
        """Whether the bars span 365 days or more. A shorter result has no growth rate a year."""
        return clock.spans_a_year(self.times)

    @property
    def sharpe_scale(self) -> float:
        """What turns a bar's Sharpe ratio and its error into those that are printed.

        That is sqrt(bars a year) for a result of a year or more, and sqrt(bars) for a shorter one: its Sharpe ratio is
        of the whole period.
        """
        return float(np.sqrt(self.periods_per_year if self.spans_a_year else len(self)))

    @cached_property
    def trades(self) -> np.ndarray:
        """One record a trade, see `trades_of`. Trades that are not yet closed are marked `open`."""
        if self.by_symbol:
            return joined([result.trades for result in self.by_symbol.values()], 1 / len(self.by_symbol))
        return trades_of(
            self.fills,
            self.symbols,
            self.times,
            self.last_price,
            self.position_financing,
            self.position_financing_after_open,
        )

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The figures of `metrics.compute`, `years`, `num_fills`, and those of `trades.figures`."""
        columns = self.equity, self.intrabar_exposure, self.turnover, self.costs_paid
        own = metrics.compute(*columns, self.periods_per_year, cash=self.cash_returns, spans_a_year=self.spans_a_year)
        return own | {"years": self.years, "num_fills": float(len(self.fills))} | figures(self.trades)

    @property
    def reported_metrics(self) -> dict[str, float]:
        """`metrics` as tables show them: a ratio and the turnover are of the whole period where it is under a year."""
        return metrics.reported(self.metrics, self.spans_a_year)

    def seen(self, at: Any, symbol: str | None = None) -> Seen:
        """What one decision of a policy saw, for `Policy.explain`, whose arguments and errors these are."""
        if symbol is not None or self.by_symbol:
            if symbol not in self.accounts:
                raise ValueError(f"symbol {symbol!r} is none of the result; name one of {', '.join(self.accounts)}")
            if self.by_symbol:
                return self.accounts[symbol].seen(at)
        if self.observed is None:
            raise ValueError("the targets of this result were given, so no policy decided; give that of a backtest")
        bar, window, account = self.observed.at(bar_at(self.times, at, self.tz))
        filled = bar + self.rules.bars_to_fill
        orders = np.full((len(self.symbols), 2), np.nan)
        for fill in self.fills[(self.fills["bar"] == filled) & (self.fills["reason"] == REASONS[ORDER])]:
            orders[self.symbols.index(fill["symbol"])] = fill["units"], fill["price"]
        full = self.rules.full_exposure
        return Seen(self.symbols, bar, self.times[bar], self.tz, window, account, self.targets[bar], orders, full)

    def to_frame(self, table: Literal["bars", "fills", "trades"] = "bars") -> pd.DataFrame:
        """A table, with times in the zone `tz`.

        Args:
            table: "bars" has one row a bar: equity, return, turnover, costs and financing, and each asset's exposure,
                units and target. "fills" and "trades" are the records of those names.

        Raises:
            ValueError: there is no such table.
        """
        import pandas as pd

        zone = time_zone(self.tz)
        if table != "bars":
            if table not in ("fills", "trades"):
                raise ValueError(f"there is no table {table!r}; take bars, fills or trades")
            frame = pd.DataFrame(getattr(self, table))
            for name in frame.columns[frame.dtypes == "datetime64[ns]"]:
                frame[name] = frame[name].dt.tz_localize("UTC").dt.tz_convert(zone)
            return frame
        columns = {"equity": self.equity, "return": self.returns, "turnover": self.turnover}
        columns |= {"costs": self.costs_paid, "financing": self.financing}
        for a, symbol in enumerate(self.symbols):
            of = "" if len(self.symbols) == 1 else f" {symbol}"
            for name, column in (("exposure", self.exposure), ("units", self.units), ("target", self.targets)):
                columns[name + of] = column[:, a]
        return pd.DataFrame(columns, index=pd.DatetimeIndex(self.times, tz="UTC", name="time").tz_convert(zone))

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last day, by the wall clock of `tz`."""
        first, last = wall_clock(self.times[[0, -1]], self.tz).astype("datetime64[D]")
        return str(first), str(last)

    def __len__(self) -> int:
        return len(self.equity)

    def plot(self) -> Figure:
        """Return a matplotlib figure of equity, drawdown and exposure."""
        from jaxtrader.evaluation.figure import figure  # matplotlib takes a second, so only where it is used

        return figure({"": {", ".join(self.symbols): self}}, repr(self))

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the figure, and the figures that `SHOWN` names."""
        picture = io.BytesIO()
        self.plot().savefig(picture, dpi=80, format="png")
        encoded = base64.b64encode(picture.getvalue()).decode()
        cells = "".join(
            f"<tr><th>{name.replace('_', ' ')}</th><td>{self.metrics[name]:.4g}</td></tr>" for name in SHOWN
        )
        return f'<img alt="" src="data:image/png;base64,{encoded}"><table>{cells}</table>'

    def __repr__(self) -> str:
        first, last = self.days
        ruin = "" if self.ruined_at is None else f", ruined at bar {self.ruined_at}"
        return (
            f"BacktestResult({', '.join(self.symbols)}: {len(self)} bars {first}..{last}, 1 became "
            f"{self.equity[-1]:.4g} in {len(self.trades)} trades{ruin})"
        )


class BacktestResults(Mapping[str, BacktestResult]):
    """The results of many accounts, by symbol. Each result is made when it is first read, and kept.

    The fills and figures of a result take many times as long as its account, and of many paths only some are read.

    Attributes:
        equity: the equity of each account, as in its result.

    Example:
        >>> market = jt.Market.from_bars(jt.load_bundled(("IBM", "MSFT")))
        >>> results = jt.simulate(market, {"IBM": 1.0, "MSFT": 0.5})
        >>> list(results), results["MSFT"].symbols
        (['IBM', 'MSFT'], ('MSFT',))
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


def _by_bar(trajectory: Trajectory, rules: Rules) -> tuple[Fill, Events]:
    """Orders and events by the bar in which they happened: t+1 for what followed close[t].

    With `fill="close"` the order of close[t] happened in the bar t.
    """
    events = jax.tree.map(_number, trajectory.events)
    later = jax.tree.map(lambda x: np.concatenate([np.zeros_like(x[:1]), x[:-1]]), events)
    return (events if rules.fill == "close" else later).order, later


def _intrabar_exposure(
    exposure: Float[np.ndarray, "bar A"],
    order: Fill,
    events: Events,
    equity_before: Float[np.ndarray, " bar"],
    rules: Rules,
) -> Float[np.ndarray, "bar A"]:
    """Position value / equity of what was held within each bar: at its close, or when it was closed after the open.

    Orders that fill at a close need no such care: what they bought is held at that close. Nor does what was closed at
    the open itself, at which price an order may have been filled before.
    """
    if rules.fill not in ("next_open", "limit"):
        return exposure
    for fill in (events.intrabar_exits, events.closing):
        if fill is None or not fill.units.any():
            continue
        lived = np.ones(exposure.shape, bool) if fill is events.closing else fill.price != order.price
        forced = np.isin(fill.reason, FORCED)
        equity = equity_of_fill(forced, equity_before[:, None], np.asarray(fill.equity)[:, None])
        exposure = exposure - np.where(lived, fill.units * fill.price, 0) / equity
    return exposure


def _traded(fills: np.ndarray, equity_before: Float[np.ndarray, " bar"]) -> Float[np.ndarray, " fill"]:
    """Traded value / equity of each fill."""
    equity = equity_of_fill(fills["forced"], equity_before[fills["bar"]], fills["equity"])
    return np.abs(fills["units"]) * fills["price"] / equity


def _number(leaf: Any) -> np.ndarray:
    """The leaf as an array of float64. Booleans stay as they are."""
    array = np.asarray(leaf)
    return array if array.dtype == bool else array.astype(np.float64, copy=False)


def _beyond_cap(fills: tuple[Fill | None, ...]) -> int:
    """The number of bars on which a closing that could not wait was larger than the volume cap."""
    known = [fill.beyond_cap for fill in fills if fill is not None and fill.beyond_cap is not None]
    return int(np.any(known, 0).sum()) if known else 0


def _next_target(holdings: Holdings, targets: Float[np.ndarray, "bar A"], rules: Rules) -> Float[np.ndarray, " A"]:
    """The targets whose orders fill in the bar after the last one, NaN where there are none."""
    wait = rules.bars_to_fill
    if holdings.ruined[-1] or not 0 < wait <= len(targets):
        return np.full(targets.shape[1], np.nan)
    target, last = targets[len(targets) - wait], jax.tree.map(lambda x: np.asarray(x)[-1], holdings)
    return unblocked(lift_blocks(last, target), target, rules)


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
        "limit": (events.gap_exits, order, events.intrabar_exits, events.closing),
        "next_close": (events.gap_exits, events.intrabar_exits, order, events.closing),
        "close": (events.gap_exits, events.intrabar_exits, events.closing, order),  # at the mark itself
    }[rules.fill]
    tables, after = [], units
    for fill in reversed(in_time):
        if fill is None:
            continue
        at = np.flatnonzero(fill.units)  # one axis of bars and assets, which is read three times as fast
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


def joined(tables: list[np.ndarray], share: float, rows: list[np.ndarray] | None = None) -> np.ndarray:
    """Tables of trades or, with the members' `rows`, of fills, in order of time, in units of the total's capital."""
    scaled = [table.copy() for table in tables]
    amounts = {"units", "fee", "slippage", "equity", "position", "costs", "pnl", "financing"}
    for i, table in enumerate(scaled):
        for column in amounts & {*(table.dtype.names or ())}:
            table[column] *= share
        if rows is not None:
            table["bar"] = rows[i][table["bar"]]
    joined = np.concatenate(scaled)
    return joined[np.argsort(joined["entry_time" if rows is None else "time"], kind="stable")]


def ratio(part: np.ndarray | float, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 0 where the whole is 0: an account that is worth exactly 0 is closed."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole != 0)
