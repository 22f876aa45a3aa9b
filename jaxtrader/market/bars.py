"""Loads a price history into `Bars`: checked NumPy arrays in float64, with times in UTC.

No row is sorted, dropped or filled. What is repaired on request is counted in `Bars.notes`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader.market.bar_checks import check_bars, check_positive, check_times, clip, gap_note, spacing, split_note
from jaxtrader.market.columns import ColumnRoles, recognise_columns
from jaxtrader.market.errors import DataError as DataError
from jaxtrader.market.formats import Table, read_table
from jaxtrader.market.times import join_date_and_time, parse_times

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
        funding: [T, A] funding rate: the fraction of a position's value that longs pay to shorts over the bar that
            ends at this row. It is 0 where none is paid. None if the file has no column "funding" or "funding rate".
        price_factor: [T, A] adjusted close / close, by which the four prices were multiplied. None if they are as in
            the file.
        tz: zone of the exchange's wall clock, as given to `load_bars`. None is UTC.
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

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        span = f"{str(self.times[0])[:16]} to {str(self.times[-1])[:16]}"
        return f"Bars({', '.join(self.symbols)}: {len(self):,} bars, {span} UTC, from {self.source})"


def load_bars(
    source: "Source",
    *,
    symbol: str | None = None,
    symbols: Sequence[str] | None = None,
    tz: str | None = None,
    label: str = "close",
    repair: str | None = None,
    adjust: bool = True,
) -> Bars | tuple[Bars, ...]:
    """Load and check bars.

    Args:
        source: a DataFrame, the path of a CSV (also gzipped) or Parquet file, or a dict of symbol to one of these. A
            table has one row for each bar, or one for each symbol and bar with a symbol column.
        symbol: the symbol to load. In a table without a symbol column it names the only one (default: the file name
            without its suffix).
        symbols: several symbols to load, in this order.
        tz: zone of the wall clock in the file, e.g. "America/New_York". Offsets in the file are then ignored. None
            reads the offsets, and takes times without one as UTC.
        label: whether a time marks the "close" or the "open" of its bar. "open" adds the regular spacing to all times.
        repair: "clip" sets high and low to the highest and lowest price of the bar, and a missing volume to 0.
        adjust: multiply open, high, low and close by adjusted close / close if the file has an adjusted close.

    Returns:
        One `Bars` for a table of one symbol and with `symbol`. A tuple for a table of several symbols, for a dict and
        with `symbols`.

    Raises:
        DataError: the source cannot be read, or a row breaks a rule of bars. The message names file, row and value.
    """
    if symbol is not None and symbols is not None:
        raise DataError(f"symbol='{symbol}' and symbols={list(symbols)} exclude each other; give one of the two.")
    if label not in ("open", "close"):
        raise DataError(f"label='{label}' is unknown; use 'open' or 'close', the end of the bar that its time marks.")
    if repair not in (None, "clip"):
        raise DataError(f"repair='{repair}' is unknown; use 'clip' or None.")
    if isinstance(symbols, str):
        symbols = (symbols,)
    options = {"tz": tz, "label": label, "repair": repair, "adjust": adjust}
    if isinstance(source, Mapping):
        if not source:
            raise DataError("The dict of symbols is empty; give at least one symbol with its frame or path.")
        wanted = _select(list(source), symbol, symbols, "The dict")
        loaded = tuple(_load_entry(source[name], name, options) for name in wanted)
        return loaded[0] if symbol is not None else loaded
    table = read_table(source)
    roles = recognise_columns(list(table.frame.columns), table.source)
    if roles.symbol is None:
        name = symbol or roles.prefix or table.stem or "asset"
        if symbols is not None:
            _select([name], None, symbols, f"{table.source} without a symbol column")
        bars = _to_bars(table, roles, name, _times(table, roles, options["tz"]), **options)
        return bars if symbols is None else (bars,)
    return _load_long(table, roles, symbol, symbols, options)


def _load_entry(source: "pd.DataFrame | str | PathLike", name: str, options: dict[str, Any]) -> Bars:
    """Load one entry of a dict. The key names a single history, or selects one of several in the table."""
    table = read_table(source)
    roles = recognise_columns(list(table.frame.columns), table.source)
    if roles.symbol is not None and table.frame[roles.symbol].nunique() > 1:
        return _load_long(table, roles, str(name), None, options)  # type: ignore[return-value]
    if table.stem is None:
        table = dataclasses.replace(table, source=f"DataFrame '{name}'")
    return _to_bars(table, roles, str(name), _times(table, roles, options["tz"]), **options)


def _load_long(
    table: Table,
    roles: ColumnRoles,
    symbol: str | None,
    symbols: Sequence[str] | None,
    options: dict[str, Any],
) -> Bars | tuple[Bars, ...]:
    """Load the histories of a table with a symbol column, in the order of `symbols`, or else of the table."""
    column = table.frame[roles.symbol]
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise DataError(f"{table.row_name(missing[0])}: the symbol is missing; correct or remove the row.")
    codes, names = column.astype(str).factorize()
    available = [str(name) for name in names]
    wanted = _select(available, symbol, symbols, table.source)
    chosen = np.flatnonzero(np.isin(codes, [available.index(name) for name in wanted]))
    table, codes = table.take(chosen), codes[chosen]
    # All symbols are parsed together, because a date may be ambiguous in the rows of one symbol alone.
    times = _times(table, roles, options["tz"])
    rows_of = {name: np.flatnonzero(codes == available.index(name)) for name in wanted}
    loaded = tuple(_to_bars(table.take(rows), roles, name, times[rows], **options) for name, rows in rows_of.items())
    return loaded[0] if symbols is None and len(loaded) == 1 else loaded


def _select(available: list[str], symbol: str | None, symbols: Sequence[str] | None, source: str) -> list[str]:
    """Return the symbols to load. Raise DataError if one is not available or comes twice."""
    wanted = list(symbols) if symbols is not None else available if symbol is None else [symbol]
    if not wanted:
        raise DataError(f"symbols=() selects nothing; {source} holds {', '.join(map(str, available))}.")
    for name in wanted:
        if name not in available:
            listed = ", ".join(map(str, available[:20])) + (f" and {len(available) - 20} more" * (len(available) > 20))
            raise DataError(f"{source} holds no symbol '{name}'; it holds {listed}.")
    if len(set(wanted)) < len(wanted):
        raise DataError(f"symbols={wanted} names a symbol twice; give each symbol once.")
    return wanted


def _to_bars(
    table: Table,
    roles: ColumnRoles,
    name: str,
    times: np.ndarray,
    *,
    tz: str | None,
    label: str,
    repair: str | None,
    adjust: bool,
) -> Bars:
    """Check, repair and adjust the rows of one symbol, and collect the notes."""
    notes: list[str | None] = []
    check_times(times, table.row_name, table.source)
    times, label_note = _to_close_times(table, roles, times, label)
    prices = {role: _numbers(table, column) for role, column in roles.prices.items()}
    prices["volume"] = np.zeros(len(times)) if roles.volume is None else _numbers(table, roles.volume)
    if roles.volume is None:
        notes.append("There is no volume column; volume is 0.")
    elif not prices["volume"].any():
        notes.append("Volume is 0 in every bar, so there is no average traded value (adv) for impact and volume caps.")
    if repair == "clip":
        prices, clip_note = clip(prices)
        notes.append(clip_note)
    check_bars(prices, table.row_name)
    prices, factor, adjusted_note = _adjust(table, roles, prices, adjust)
    columns, dropped_note = _other_columns(table, roles)
    funding, funding_note = _funding(table, roles)
    if roles.adjusted is None or not adjust:
        notes.append(split_note(times, prices["open"], prices["close"]))
    notes += [adjusted_note, label_note, gap_note(times), dropped_note, funding_note]
    arrays = {role: _read_only(values) for role, values in prices.items()}
    times.flags.writeable = False
    return Bars(
        symbols=(name,),
        times=times,
        columns={column: _read_only(values) for column, values in columns.items()},
        source=table.source,
        notes=tuple(note for note in notes if note),
        funding=None if funding is None else _read_only(funding),
        price_factor=None if factor is None else _read_only(factor),
        tz=tz,
        **arrays,
    )


def _times(table: Table, roles: ColumnRoles, tz: str | None) -> np.ndarray:
    stamps = table.frame[roles.time[0]]
    if len(roles.time) == 2:
        stamps = join_date_and_time(stamps, table.frame[roles.time[1]])
    return parse_times(stamps, tz, table.row_name)


def _to_close_times(table: Table, roles: ColumnRoles, times: np.ndarray, label: str) -> tuple[np.ndarray, str | None]:
    """Return the close time of each bar, and a note if the column's name says that it is the open."""
    if label == "close":
        if roles.time[0].lower().startswith("open"):
            return times, (
                f"'{roles.time[0]}' was read as the close of each bar; use label='open' (--label open) "
                "if it is the open."
            )
        return times, None
    if len(times) < 2:
        raise DataError(
            f"{table.source} has one bar, so label='open' cannot measure the length of a bar; use label='close'."
        )
    return times + spacing(times), None


def _numbers(table: Table, column: str) -> np.ndarray:
    """Return a column as float64 [T]. Raise DataError at the first value that is not a number."""
    import pandas as pd

    values = table.frame[column]
    if (
        getattr(values.dtype, "kind", "O") in "mMcb"
    ):  # NumPy would convert dates, durations, complex numbers and booleans
        raise DataError(f"{table.source}: the column {column} holds {values.dtype}, not numbers; correct or rename it.")
    if not pd.api.types.is_numeric_dtype(values):
        read = pd.to_numeric(values, errors="coerce")
        bad = np.flatnonzero(read.isna() & values.notna())
        if bad.size:
            raise DataError(
                f"{table.row_name(bad[0])}: {column} is '{values.iloc[bad[0]]}', which is not a number; remove "
                "currency signs, thousands separators and text from the column."
            )
        values = read
    return values.to_numpy(np.float64, na_value=np.nan)


def _adjust(
    table: Table, roles: ColumnRoles, prices: dict[str, np.ndarray], adjust: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None, str | None]:
    """Return the prices to use, the factor by which they were multiplied or None, and a note."""
    if roles.adjusted is None:
        return prices, None, None
    if not adjust:
        return prices, None, f"Prices are raw: '{roles.adjusted}' was not applied (adjust=False, --no-adjust)."
    adjusted = _numbers(table, roles.adjusted)
    check_positive(roles.adjusted, adjusted, table.row_name)
    # Scaling close too, instead of taking adjusted close, keeps low <= close <= high true to the last bit.
    factor = adjusted / prices["close"]
    out = {role: values if role == "volume" else values * factor for role, values in prices.items()}
    note = (
        f"Open, high, low and close were multiplied by '{roles.adjusted}' / close; adjust=False (--no-adjust) keeps "
        "them raw."
    )
    return out, factor, note


def _funding(table: Table, roles: ColumnRoles) -> tuple[np.ndarray | None, str | None]:
    """Return the funding rate of each bar, and a note that counts the missing rates, which become 0."""
    if roles.funding is None:
        return None, None
    rate = _numbers(table, roles.funding)
    bad = np.flatnonzero(np.abs(rate) >= 1)
    if bad.size:
        raise DataError(
            f"{table.row_name(bad[0])}: {roles.funding} is {rate[bad[0]]:g}, but it must be a fraction of the "
            "position's value between -1 and 1, which longs pay over the bar; divide percents by 100, or rename "
            "the column."
        )
    missing = np.isnan(rate)
    note = f"'{roles.funding}' is missing in {missing.sum():,} bars and was set to 0 there." if missing.any() else None
    return np.where(missing, 0.0, rate), note


def _other_columns(table: Table, roles: ColumnRoles) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the further numeric columns, and a note that names the columns that are not numbers."""
    import pandas as pd

    frame = table.frame
    kept = [
        name for name in roles.others if pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype.kind != "c"
    ]
    dropped = [name for name in roles.others if name not in kept]
    note = f"Columns that are not numbers were left out: {', '.join(dropped)}." if dropped else None
    return {name: frame[name].to_numpy(np.float64, na_value=np.nan) for name in kept}, note


def _read_only(values: np.ndarray) -> np.ndarray:
    """Return a read-only copy as [T, 1]. The parts of a split market share their arrays."""
    out = np.array(values, np.float64).reshape(-1, 1)
    out.flags.writeable = False
    return out
