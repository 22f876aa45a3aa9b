"""Loads a user's price history into checked `Bars`: host arrays in float64, times in UTC, errors that name the row.

It never sorts, drops or fills in silence, and it knows nothing of features, splits or JAX.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader.market.checks import DataError as DataError
from jaxtrader.market.checks import check_bars, check_positive, check_times, clip, gap_note, spacing, split_note
from jaxtrader.market.columns import Roles, recognise
from jaxtrader.market.stamps import join_date_and_time, parse_times
from jaxtrader.market.tables import Table, read_table

if TYPE_CHECKING:
    import pandas as pd

    Source = str | PathLike | pd.DataFrame | Mapping[str, pd.DataFrame | str | PathLike]


@dataclasses.dataclass(frozen=True, eq=False)
class Bars:
    """Checked bars of one symbol, as `load_bars` returns them; arrays are read-only, and A is 1.

    `Market.from_bars(..., align=True)` puts several beside each other.

    Attributes:
        symbols: its name.
        times: [T] datetime64[ns], UTC, the close of each bar, strictly increasing.
        open: [T, A] float64, in the units of the file, as are high, low and close.
        high: [T, A] float64.
        low: [T, A] float64.
        close: [T, A] float64.
        volume: [T, A] float64, 0 where the file has none.
        columns: the file's further numeric columns, [T, A] each, by their own names; NaN where a value is missing.
        source: file name or "DataFrame", for messages.
        notes: what loading found and did, one sentence each.
        funding: [T, A] share of a position's value that longs pay to shorts over the bar that ends here, 0 where none
            is due; None where the file has no column "funding" or "funding rate".
        price_factor: [T, A] adjusted / raw price where the prices here are adjusted by the file's adjusted close.
        tz: the zone of the exchange's wall clock, where it was given; None is UTC.
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
    """Load and check bars from CSV (also gzipped), Parquet, a DataFrame, or a dict of symbol to frame or path.

    Args:
        source: the table or its path; one row a bar, or one row a symbol and bar with a symbol column.
        symbol: picks one symbol of several, or names the only one (default: the file's stem).
        symbols: picks several, in this order.
        tz: the zone of the wall clock in the file, e.g. "America/New_York"; a stamped offset is then ignored. Default:
            the stamped offset counts, and stamps without one are UTC. Kept as `Bars.tz`.
        label: whether a stamp marks the "close" or the "open" of its bar; "open" adds the regular spacing.
        repair: "clip" sets high and low to the envelope of the bar and a missing volume to 0, and notes the counts.
        adjust: multiply open, high, low and close by adjusted close / close where the file has an adjusted close.

    Returns:
        One `Bars` for a table of one symbol or with `symbol=`; a tuple for several, for a dict and with `symbols=`.

    Raises:
        DataError: one sentence that names file, row, value, rule and the way out.
    """
    if symbol is not None and symbols is not None:
        raise DataError(f"symbol='{symbol}' and symbols={list(symbols)} exclude each other; give one of them.")
    if label not in ("open", "close"):
        raise DataError(f"label='{label}' is unknown; it says which end of the bar a stamp marks: 'open' or 'close'.")
    if repair not in (None, "clip"):
        raise DataError(f"repair='{repair}' is unknown; the only repair is 'clip'.")
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
    roles = recognise(list(table.frame.columns), table.source)
    if roles.symbol is None:
        name = symbol or roles.prefix or table.stem or "asset"
        if symbols is not None:
            _select([name], None, symbols, f"{table.source} without a symbol column")
        bars = _to_bars(table, roles, name, _times(table, roles, options["tz"]), **options)
        return bars if symbols is None else (bars,)
    return _load_long(table, roles, symbol, symbols, options)


def _load_entry(source: "pd.DataFrame | str | PathLike", name: str, options: dict[str, Any]) -> Bars:
    """One entry of a dict: the key names a single history, or picks one where the table holds several."""
    table = read_table(source)
    roles = recognise(list(table.frame.columns), table.source)
    if roles.symbol is not None and table.frame[roles.symbol].nunique() > 1:
        return _load_long(table, roles, str(name), None, options)  # type: ignore[return-value]
    if table.stem is None:
        table = dataclasses.replace(table, source=f"DataFrame '{name}'")
    return _to_bars(table, roles, str(name), _times(table, roles, options["tz"]), **options)


def _load_long(
    table: Table,
    roles: Roles,
    symbol: str | None,
    symbols: Sequence[str] | None,
    options: dict[str, Any],
) -> Bars | tuple[Bars, ...]:
    """Split a table with a symbol column into its histories, in the order in which they appear or are asked for."""
    column = table.frame[roles.symbol]
    missing = np.flatnonzero(column.isna())
    if missing.size:
        raise DataError(f"{table.where(missing[0])}: the symbol is missing; every row of a long table needs one.")
    codes, names = column.astype(str).factorize()
    available = [str(name) for name in names]
    wanted = _select(available, symbol, symbols, table.source)
    chosen = np.flatnonzero(np.isin(codes, [available.index(name) for name in wanted]))
    table, codes = table.take(chosen), codes[chosen]
    times = _times(table, roles, options["tz"])  # at once: a day-first date may be clear only over all symbols
    loaded = []
    for name in wanted:
        rows = np.flatnonzero(codes == available.index(name))
        loaded.append(_to_bars(table.take(rows), roles, name, times[rows], **options))
    loaded = tuple(loaded)
    return loaded[0] if symbols is None and len(loaded) == 1 else loaded


def _select(available: list[str], symbol: str | None, symbols: Sequence[str] | None, source: str) -> list[str]:
    wanted = list(symbols) if symbols is not None else available if symbol is None else [symbol]
    if not wanted:
        raise DataError(f"symbols=() selects nothing; {source} holds {', '.join(map(str, available))}.")
    for name in wanted:
        if name not in available:
            listed = ", ".join(map(str, available[:20])) + (f" and {len(available) - 20} more" * (len(available) > 20))
            raise DataError(f"{source} holds no symbol '{name}'; it holds {listed}.")
    if len(set(wanted)) < len(wanted):
        raise DataError(f"symbols={wanted} names a symbol twice; give each once.")
    return wanted


def _to_bars(
    table: Table,
    roles: Roles,
    name: str,
    times: np.ndarray,
    *,
    tz: str | None,
    label: str,
    repair: str | None,
    adjust: bool,
) -> Bars:
    """One symbol's rows, checked: times, then prices (clipped if asked), then adjusted; notes say what was done."""
    notes: list[str | None] = []
    check_times(times, table.where, table.source)
    times, label_note = _close_times(table, roles, times, label)
    prices = {role: _numbers(table, column) for role, column in roles.prices.items()}
    prices["volume"] = np.zeros(len(times)) if roles.volume is None else _numbers(table, roles.volume)
    if roles.volume is None:
        notes.append("There is no volume column; volume is 0.")
    elif not prices["volume"].any():
        notes.append("Volume is 0 in every bar, so there is no average traded value (adv) for impact and volume caps.")
    if repair == "clip":
        prices, clipped = clip(prices)
        notes.append(clipped)
    check_bars(prices, table.where)
    prices, factor, adjusted = _adjust(table, roles, prices, adjust)
    columns, left_out = _further(table, roles)
    funding, unfunded = _funding(table, roles)
    if roles.adjusted is None or not adjust:
        notes.append(split_note(times, prices["open"], prices["close"]))
    notes += [adjusted, label_note, gap_note(times), left_out, unfunded]
    arrays = {role: _frozen(values) for role, values in prices.items()}
    times.flags.writeable = False
    return Bars(
        symbols=(name,),
        times=times,
        columns={column: _frozen(values) for column, values in columns.items()},
        source=table.source,
        notes=tuple(note for note in notes if note),
        funding=None if funding is None else _frozen(funding),
        price_factor=None if factor is None else _frozen(factor),
        tz=tz,
        **arrays,
    )


def _times(table: Table, roles: Roles, tz: str | None) -> np.ndarray:
    stamps = table.frame[roles.time[0]]
    if len(roles.time) == 2:
        stamps = join_date_and_time(stamps, table.frame[roles.time[1]])
    return parse_times(stamps, tz, table.where)


def _close_times(table: Table, roles: Roles, times: np.ndarray, label: str) -> tuple[np.ndarray, str | None]:
    if label == "close":
        if roles.time[0].lower().startswith("open"):
            return times, (
                f"'{roles.time[0]}' was read as the close of each bar; label='open' (--label open) shifts the times "
                "by one bar."
            )
        return times, None
    if len(times) < 2:
        raise DataError(
            f"{table.source} has one bar, from which label='open' cannot tell its length; use label='close'."
        )
    return times + spacing(times), None


def _numbers(table: Table, column: str) -> np.ndarray:
    """A column as float64 [T]; DataError at the first value that is no number."""
    import pandas as pd

    values = table.frame[column]
    if getattr(values.dtype, "kind", "O") in "mMcb":  # NumPy would turn these into numbers
        raise DataError(f"{table.source}: the column {column} holds {values.dtype}, not numbers; correct or rename it.")
    if not pd.api.types.is_numeric_dtype(values):
        read = pd.to_numeric(values, errors="coerce")
        bad = np.flatnonzero(read.isna() & values.notna())
        if bad.size:
            raise DataError(
                f"{table.where(bad[0])}: {column} is '{values.iloc[bad[0]]}', which is not a number; remove currency "
                "signs, thousands separators and text from the column."
            )
        values = read
    return values.to_numpy(np.float64, na_value=np.nan)


def _adjust(
    table: Table, roles: Roles, prices: dict[str, np.ndarray], adjust: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None, str | None]:
    """The prices as they are to be, adjusted / raw where they are adjusted, and a sentence on it."""
    if roles.adjusted is None:
        return prices, None, None
    if not adjust:
        return prices, None, f"Prices are raw: '{roles.adjusted}' was not applied (adjust=False, --no-adjust)."
    adjusted = _numbers(table, roles.adjusted)
    check_positive(roles.adjusted, adjusted, table.where)
    # One factor for all four keeps low <= close <= high true to the last bit, which adjusted close itself might not.
    factor = adjusted / prices["close"]
    out = {role: values if role == "volume" else values * factor for role, values in prices.items()}
    note = (
        f"Open, high, low and close were multiplied by '{roles.adjusted}' / close; adjust=False (--no-adjust) keeps "
        "them raw."
    )
    return out, factor, note


def _funding(table: Table, roles: Roles) -> tuple[np.ndarray | None, str | None]:
    """The rate of each bar, 0 where it is missing, and a sentence with the count of those."""
    if roles.funding is None:
        return None, None
    rate = _numbers(table, roles.funding)
    bad = np.flatnonzero(np.abs(rate) >= 1)
    if bad.size:
        raise DataError(
            f"{table.where(bad[0])}: {roles.funding} is {rate[bad[0]]:g}, but it must be a fraction of the position's "
            "value between -1 and 1, which longs pay over the bar; divide percent by 100, or rename the column."
        )
    missing = np.isnan(rate)
    note = f"'{roles.funding}' is missing in {missing.sum():,} bars, taken as 0 there." if missing.any() else None
    return np.where(missing, 0.0, rate), note


def _further(table: Table, roles: Roles) -> tuple[dict[str, np.ndarray], str | None]:
    import pandas as pd

    frame = table.frame
    kept = [
        name for name in roles.others if pd.api.types.is_numeric_dtype(frame[name]) and frame[name].dtype.kind != "c"
    ]
    dropped = [name for name in roles.others if name not in kept]
    note = f"Columns that are not numbers were left out: {', '.join(dropped)}." if dropped else None
    return {name: frame[name].to_numpy(np.float64, na_value=np.nan) for name in kept}, note


def _frozen(values: np.ndarray) -> np.ndarray:
    """A read-only copy as [T, 1]: Market shares columns between its splits, so nobody may write into them."""
    out = np.array(values, np.float64).reshape(-1, 1)
    out.flags.writeable = False
    return out
