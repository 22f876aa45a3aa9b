"""Loads a price history into `Bars`: checked NumPy arrays in float64, with times in UTC.

No row is sorted, dropped or filled, unless that is asked for. What is repaired is counted in `Bars.notes`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader.market.bar_checks import (
    MOST_DROPPED,
    NO_PRICE,
    RowName,
    broken_rows,
    check_bars,
    check_float32,
    check_positive,
    check_times,
    clip,
    format_time,
    spacing,
    widen_dust,
)
from jaxtrader.market.calendar import TradingCalendar, find_calendar, gap_note
from jaxtrader.market.clock import wall_clock
from jaxtrader.market.columns import ADJUSTED_VOLUME, ColumnRoles, canonical
from jaxtrader.market.corporate_actions import adjustment, read_actions, volume_note
from jaxtrader.market.errors import DataError as DataError
from jaxtrader.market.errors import shown
from jaxtrader.market.histories import History, read_histories, select, symbol_names
from jaxtrader.market.mixed_adjustment import check_one_adjustment, unify
from jaxtrader.market.reader import read_tables
from jaxtrader.market.share_splits import split_note
from jaxtrader.market.table import NumericTable
from jaxtrader.setting_checks import check_flag, setting, with_article

if TYPE_CHECKING:
    import pandas as pd

    Source = str | PathLike | pd.DataFrame | Mapping[str, pd.DataFrame | str | PathLike]


@dataclasses.dataclass(frozen=True, eq=False)
class Bars:
    """Checked bars of one symbol. The arrays are read-only, T is the number of bars, and A is 1.

    Attributes:
        symbols: one name.
        times: [T] datetime64[ns], UTC, the close of each bar. Strictly increasing.
        open: [T, A] float64, like high, low and close in the currency of the file.
        high: [T, A] float64.
        low: [T, A] float64.
        close: [T, A] float64.
        volume: [T, A] float64. It is 0 if the file has no volume.
        columns: further numeric columns by their names, [T, A] each. A missing value is NaN.
        source: the file name or "DataFrame", for messages.
        notes: what loading found and repaired, one sentence each.
        funding: [T, A] funding rate: the fraction of a position's value that longs pay to shorts at the close of this
            row. It is 0 where none is paid. None if the file has no column "funding" or "funding rate". Funding is due
            at the time of its row in the file. Where that marks the open of a bar, it is in the row before.
        price_factor: [T, A] adjusted / raw price, by which the raw prices were multiplied. None if they are as in the
            file.
        tz: zone of the exchange's wall clock: the one given to `load_bars`, or else that of the times. None is UTC.
        format: the known format of the file, if it has one, and the columns of time, prices and volume.
        label: which end of a bar the times of the file mark, "close" or "open". `times` are the closes in both cases.
            None: `load_bars` was not told, and took them as the close.

    Example:
        >>> bars = jt.load_bundled("IBM")
        >>> bars
        Bars(IBM: 3,270 bars, 2000-03-01T00:00 to 2013-03-01T00:00 UTC, from stocks.csv.gz)
        >>> bars.close.shape
        (3270, 1)
    """

    symbols: tuple[str, ...]
    times: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    columns: Mapping[str, np.ndarray]
    source: str
    notes: tuple[str, ...]
    funding: np.ndarray | None = None
    price_factor: np.ndarray | None = None
    tz: str | None = None
    format: str = ""
    label: str | None = None

    @cached_property
    def calendar(self) -> TradingCalendar | None:
        """When the history trades, as its times show it. None for a single bar."""
        return find_calendar(self.times, self.tz) if len(self) > 1 else None

    def cut(self, start: int | None, end: int | None) -> "Bars":
        """Return the bars of rows start to end - 1, as if no others had been loaded. None is no bound."""
        rows = slice(start, end)
        arrays: dict[str, Any] = {name: x[rows] for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        return dataclasses.replace(self, **arrays, columns={name: x[rows] for name, x in self.columns.items()})

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        first, last = (str(time)[:16] for time in wall_clock(self.times[[0, -1]], self.tz))
        span = f"{first} to {last} {self.tz or 'UTC'}"
        return f"Bars({', '.join(self.symbols)}: {len(self):,} bars, {span}, from {self.source})"


def histories_of(bars: Any) -> tuple[Bars, ...]:
    """Return the histories of one or several Bars as a tuple. Raises DataError where they are none."""
    histories = tuple(bars) if isinstance(bars, list | tuple) else (bars,)
    wrong = [with_article(type(each)) for each in histories if not isinstance(each, Bars)]
    if wrong or not histories:
        given = f"{wrong[0]} is given" if wrong else "the list is empty"
        raise DataError(f"Bars are needed, and {given}; give what `load_bars` returns, or a list of it")
    return histories


def load_bars(
    source: "Source",
    *,
    symbol: str | None = None,
    symbols: Sequence[str] | None = None,
    tz: str | None = None,
    label: str | Mapping[str, str] = "close",
    repair: str | None = None,
    adjust: bool = True,
    decimal: str | None = None,
) -> Bars | tuple[Bars, ...]:
    """Load and check bars.

    Args:
        source: a DataFrame, the path of a CSV (also packed) or Parquet file, of a folder or zip archive of them, or a
            dict of symbol to one of these. A table has one row for each bar, or one for each symbol and bar with a
            symbol column. Files of one symbol, such as those of its months, are one history.
        symbol: the symbol to load. In a table without a symbol column it names the only one (default: the file name
            without its suffix).
        symbols: several symbols to load, in this order.
        tz: zone of the exchange's wall clock, e.g. "America/New_York". Times without an offset are read in it. Times
            with an offset, and counts since 1970, keep their moment. None takes the zone of the times, and times
            without an offset as UTC.
        label: whether a time marks the "close" or the "open" of its bar, also by symbol: {"BTC": "open"}. "open" adds
            the regular spacing to all times. What is not named is taken as the close.
        repair: "clip" sets high and low to the highest and lowest price of the bar, and a missing volume to 0.
            "adjust" scales open, high and low where close alone is adjusted, see `mixed_adjustment`. "drop" leaves out
            the rows that break a rule of bars, such as those without prices. These may be 5% of a symbol's rows, or
            one row. Where more are broken, the file is misread more likely, and is refused. So is a row in which a
            dividend, a split or a funding rate would be lost.
        adjust: multiply open, high, low and close by adjusted close / close if the file has an adjusted close. Where it
            has none, adjust them by its dividends and splits, if the prices show these, see `corporate_actions`.
        decimal: the decimal mark of numbers in text, "." or ",". None concludes it from values that have one reading,
            and rejects a table whose marks may be decimals or stand between thousands.

    Returns:
        One `Bars` for a table of one symbol and with `symbol`. A tuple for a table of several symbols, for a dict and
        with `symbols`.

    Raises:
        DataError: the source cannot be read, or a row breaks a rule of bars. The message names file, row and value.

    Example:
        >>> import pandas as pd
        >>> prices = [10.0, 10.5, 10.2]
        >>> table = pd.DataFrame({"open": prices, "high": prices, "low": prices, "close": prices})
        >>> table.index = pd.date_range("2024-01-01", periods=3)
        >>> jt.load_bars(table, symbol="X")
        Bars(X: 3 bars, 2024-01-01T00:00 to 2024-01-03T00:00 UTC, from DataFrame)
    """
    if symbol is not None and symbols is not None:
        raise DataError(
            f"{setting('symbol', symbol)} and {setting('symbols', list(symbols))} exclude each other; give one of the "
            "two"
        )
    for each in label.values() if isinstance(label, Mapping) else (label,):
        if each not in ("open", "close"):
            raise DataError(
                f"{setting('label', each)} is unknown; use open or close, the end of the bar that its time marks"
            )
    if repair not in (None, "clip", "adjust", "drop"):
        raise DataError(f"{setting('repair', repair)} is unknown; use clip, adjust or drop, or leave it out")
    if decimal not in (None, ".", ","):
        raise DataError(f"{setting('decimal', decimal)} is unknown; use `decimal='.'` or `decimal=','`")
    check_flag("adjust", adjust)
    if symbol is not None and not isinstance(symbol, str):
        raise DataError(f"{setting('symbol', symbol)} must be the name of a symbol")
    symbols = None if symbols is None else symbol_names(symbols)
    options = {"label": label, "repair": repair, "adjust": adjust}
    if isinstance(source, Mapping):
        if not source:
            raise DataError("The dict of symbols is empty; give at least one symbol with its frame or path")
        source = {str(name): entry for name, entry in source.items()}
        wanted = select(list(source), symbol, symbols, "The dict")
        loaded = tuple(_load_entry(source[name], name, tz, decimal, options) for name in wanted)
        _check_labeled(label, loaded)
        return loaded[0] if symbol is not None else loaded
    # The text of the tables is not kept beside their numbers.
    histories = read_histories(read_tables(source, decimal), tz=tz, decimal=decimal, name=symbol, only=symbols)
    loaded = tuple(_to_bars(name, history, options) for name, history in histories.items())
    _check_labeled(label, loaded)
    return loaded[0] if symbols is None and len(loaded) == 1 else loaded


def _check_labeled(label: str | Mapping[str, str], loaded: Sequence[Bars]) -> None:
    names = [bars.symbols[0] for bars in loaded]
    for name in label if isinstance(label, Mapping) else ():
        if name not in names:
            raise DataError(f"`label` names '{shown(name)}', which is not loaded; there are {', '.join(names[:8])}")


def _load_entry(
    source: "pd.DataFrame | str | PathLike", name: str, tz: str | None, decimal: str | None, options: dict[str, Any]
) -> Bars:
    """Load one entry of a dict. The key names a single history, or selects one of several in the table."""
    tables = read_tables(source, decimal)
    if tables[0].stem is None:
        tables = tuple(dataclasses.replace(table, source=f"DataFrame '{name}'") for table in tables)
    histories = read_histories(tables, tz=tz, decimal=decimal, name=str(name), rename=True)
    (each,) = histories.values()
    return _to_bars(str(name), each, options)


def _to_bars(name: str, history: History, options: dict[str, Any]) -> Bars:
    """Check, repair and adjust the rows of one symbol, and collect the notes."""
    label, repair, adjust = options["label"], options["repair"], options["adjust"]
    # "close" is the default, which says nothing.
    said = label.get(name) if isinstance(label, Mapping) else "open" if label == "open" else None
    label = said or "close"
    history, broken_note = _without_broken_rows(history, adjust) if repair == "drop" else (history, None)
    table, roles, times, tz = history.rows, history.roles, history.times, history.tz
    notes: list[str | None] = [*table.notes, broken_note]
    check_times(times, table.row_name)
    times, label_note = _to_close_times(table, roles, times, label)
    prices = _prices(table, roles)
    if roles.volume is not None and not prices["volume"].any():
        notes.append("Volume is 0 in every bar, so there is no average traded value (adv) for impact and volume caps.")
    prices, repaired_by, repair_note = _repair(prices, repair, table.row_name)
    check_bars(prices, table.row_name)
    columns, dropped_note = _other_columns(table, roles)
    prices, adjusted_by, adjusted_notes = _adjust(table, roles, columns, prices, adjust)
    factor = repaired_by if adjusted_by is None else adjusted_by if repaired_by is None else repaired_by * adjusted_by
    funding, funding_note = _funding(table, roles, label)
    notes += [repair_note, *adjusted_notes, split_note(times, prices), label_note]
    calendar = find_calendar(times, tz) if len(times) > 1 else None
    notes += [
        gap_note(times, tz, calendar),
        dropped_note,
        funding_note,
        _volume_note(columns, prices["volume"], factor, times),
    ]
    arrays = {role: _read_only_column(values) for role, values in prices.items()}
    times.flags.writeable = False
    bars = Bars(
        symbols=(name,),
        times=times,
        columns={column: _read_only_column(values) for column, values in columns.items()},
        source=table.source,
        notes=tuple(note for note in notes if note),
        funding=None if funding is None else _read_only_column(funding),
        price_factor=None if factor is None else _read_only_column(factor),
        tz=tz,
        format=table.description,
        label=said,
        **arrays,
    )
    vars(bars)["calendar"] = calendar  # the cached property, which would find the same
    return bars


def _prices(table: NumericTable, roles: ColumnRoles) -> dict[str, np.ndarray]:
    """Open, high, low, close and volume, [T] each."""
    prices = {role: table.numbers[column] for role, column in roles.prices.items()}
    prices["volume"] = np.zeros(len(table.rows)) if roles.volume is None else table.numbers[roles.volume]
    return widen_dust(prices)


def _without_broken_rows(history: History, adjust: bool) -> tuple[History, str | None]:
    """Leave out the rows that break a rule of bars, and return a note that counts them.

    Raises DataError where they are more than MOST_DROPPED of all, or where something is due in one of them.
    """
    table, roles = history.rows, history.roles
    prices = _prices(table, roles)
    adjusted = {} if roles.adjusted is None else {"adjusted": table.numbers[roles.adjusted]}
    marked = broken_rows(prices | adjusted)
    priced = np.flatnonzero(~marked[NO_PRICE])
    check_one_adjustment(
        {role: values[priced] for role, values in prices.items()}, lambda row: table.row_name(int(priced[row]))
    )
    broken, total = np.any(list(marked.values()), axis=0), len(table.rows)
    rows = np.flatnonzero(broken)
    if not rows.size:
        return history, None
    reason = next(why for why, mask in marked.items() if mask[rows[0]])
    if rows.size > max(1, MOST_DROPPED * total) or rows.size == total:
        raise DataError(
            f"{table.row_name(rows[0])}: the row has {reason}, and {rows.size:,} of {total:,} rows break a rule of "
            f"bars, but `repair='drop'` leaves out at most {MOST_DROPPED:.0%}, because a file with more is misread "
            "more likely; correct the file"
        )
    for name, values in _funding_and_actions(table, roles, adjust).items():
        lost = rows[values[rows] != 0]
        if lost.size:
            raise DataError(
                f"{table.row_name(lost[0])}: `repair='drop'` cannot leave out the row, because "
                f"'{shown(name)}' is {table.numbers[name][lost[0]]:g} there, which would be lost; correct the row"
            )
    kept, moments = np.flatnonzero(~broken), wall_clock(history.times, history.tz)
    parts = [_counted(why, moments[mask]) for why, mask in marked.items() if mask.any()]
    note = f"`repair='drop'` left out {rows.size:,} of {total:,} rows: {' and '.join(parts)}."
    return dataclasses.replace(history, rows=table.take(kept), times=history.times[kept]), note


def _counted(reason: str, times: np.ndarray) -> str:
    """How many rows have a fault, and the times of the first few: "5 with a missing price (2024-01-02, ...)"."""
    listed = ", ".join(map(format_time, times[:3])) + (f" and {len(times) - 3:,} more" if len(times) > 3 else "")
    return f"{len(times):,} with {reason} ({listed})"


def _funding_and_actions(table: NumericTable, roles: ColumnRoles, adjust: bool) -> dict[str, np.ndarray]:
    """The funding, dividends and splits of each row by the name of their column, [T] each, and 0 where none is."""
    found = {} if roles.funding is None else {roles.funding: np.nan_to_num(table.numbers[roles.funding])}
    actions = read_actions(_numeric(table, roles), table.row_name) if adjust and roles.adjusted is None else None
    if actions is not None:
        events = {actions.dividend_name: actions.dividends, actions.split_name: actions.splits - 1}
        found |= {name: values for name, values in events.items() if name is not None}
    return found


def _to_close_times(
    table: NumericTable, roles: ColumnRoles, times: np.ndarray, label: str
) -> tuple[np.ndarray, str | None]:
    """Return the close time of each bar, and a note if the column's name says that it is the open."""
    if label == "close":
        if table.stamps == "open":
            return times, (
                f"'{shown(roles.time[0])}' was read as the close of each bar; use `label='open'` if it is the open."
            )
        return times, None
    if len(times) < 2:
        raise DataError(
            f"{table.source} has one bar, so `label='open'` cannot measure the length of a bar; use `label='close'`"
        )
    return times + spacing(times), None


def _repair(
    prices: dict[str, np.ndarray], repair: str | None, row_name: RowName
) -> tuple[dict[str, np.ndarray], np.ndarray | None, str | None]:
    """Return the prices as `repair` wants them, the factor of the raw ones or None, and a note.

    Raises DataError where only some of the prices are adjusted and `repair` is not "adjust".
    """
    if repair == "adjust":
        return unify(prices, row_name)
    check_one_adjustment(prices, row_name)
    if repair == "clip":
        prices, note = clip(prices)
        return prices, None, note
    return prices, None, None


def _adjust(
    table: NumericTable,
    roles: ColumnRoles,
    columns: Mapping[str, np.ndarray],
    prices: dict[str, np.ndarray],
    adjust: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray | None, list[str]]:
    """Return the prices to use, the factor by which they were multiplied or None, and notes."""
    if roles.adjusted is not None:
        used = f"'{roles.adjusted}'"
        adjusted = table.numbers[roles.adjusted]
        check_positive(roles.adjusted, adjusted, table.row_name)
        # Scaling close too, instead of taking adjusted close, keeps low <= close <= high true to the last bit.
        factor = adjusted / prices["close"]
        notes = [f"Open, high, low and close were multiplied by {used} / close; `adjust=False` keeps them raw."]
    else:
        actions = read_actions(columns, table.row_name)
        if actions is None:
            return prices, None, []
        used = " and ".join(f"'{name}'" for name in (actions.dividend_name, actions.split_name) if name)
        factor, notes = adjustment(actions, prices, table.row_name)
        if factor is None:
            return prices, None, notes
    if not adjust:
        return prices, None, [f"Prices are raw: {used} was not applied, by `adjust=False`."]
    out = {role: values if role == "volume" else values * factor for role, values in prices.items()}
    for role in ("low", "high"):
        check_positive(f"adjusted {role}", out[role], table.row_name)
    return out, factor, notes


def _funding(table: NumericTable, roles: ColumnRoles, label: str) -> tuple[np.ndarray | None, str | None]:
    """Return the funding rate due at the close of each bar, and a note that counts the missing rates, which become 0.

    A rate is due at the time of its row. Where that is the open of a bar, it belongs to who holds at the close before.
    That of the first row is due before anything can be held.
    """
    if roles.funding is None:
        return None, None
    rate = table.numbers[roles.funding]
    bad = np.flatnonzero(np.abs(rate) >= 1)
    if bad.size:
        raise DataError(
            f"{table.row_name(bad[0])}: {roles.funding} is {rate[bad[0]]:g}, but it must be a fraction of the "
            "position's value between -1 and 1, which longs pay at its time; divide percents by 100, or rename "
            "the column"
        )
    missing = np.isnan(rate)
    note = f"'{roles.funding}' is missing in {missing.sum():,} bars and was set to 0 there." if missing.any() else None
    rate = np.where(missing, 0.0, rate)
    if label == "close":
        return rate, note
    moved = (
        f"'{roles.funding}' is due at the open of its row, so it is paid by who holds at the close of the row before."
    )
    return np.append(rate[1:], 0.0), f"{note} {moved}" if note else moved


def _volume_note(
    columns: Mapping[str, np.ndarray], volume: np.ndarray, factor: np.ndarray | None, times: np.ndarray
) -> str | None:
    """Describe an adjusted volume beside the volume, which shows how many shares were traded then, or its jumps."""
    name = next((name for name in columns if canonical(name) in ADJUSTED_VOLUME), None)
    if name is None or np.array_equal(columns[name], volume):
        return None if factor is None or not volume.any() else volume_note(factor, times)
    return (
        f"'{shown(name)}' is a column and not the volume, as the traded value needs the shares of its day. So "
        "volume_ratio jumps at a split."
    )


def _other_columns(table: NumericTable, roles: ColumnRoles) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the further numeric columns, and a note that names the columns that are not numbers."""
    dropped = ", ".join(map(shown, table.not_numbers))
    note = f"Columns that are not numbers were left out: {dropped}." if dropped else None
    columns = _numeric(table, roles)
    for name, values in columns.items():
        check_float32(name, values, table.row_name)
    return columns, note


def _numeric(table: NumericTable, roles: ColumnRoles) -> dict[str, np.ndarray]:
    return {name: table.numbers[name] for name in roles.others if name in table.numbers}


def _read_only_column(values: np.ndarray) -> np.ndarray:
    """Return a read-only copy as [T, 1]. The parts of a split market share their arrays."""
    out = np.array(values, np.float64).reshape(-1, 1)
    out.flags.writeable = False
    return out
