"""Takes tables apart into the histories of their symbols: times in UTC and numbers, in the order of time.

Files of one symbol are put one after the other. What a bar must satisfy is checked later, in `bars.py`.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxtrader.market.clock import wall_clock
from jaxtrader.market.columns import INDEX, ColumnRoles, recognize_columns
from jaxtrader.market.errors import DataError, listed, shown
from jaxtrader.market.numerals import read_numbers
from jaxtrader.market.symbols import is_key, likely_histories, refuse_spliced, symbol_column
from jaxtrader.market.table import NumericTable, Table
from jaxtrader.market.times import join_date_and_time, parse_times
from jaxtrader.market.zones import zone_of_offsets
from jaxtrader.nearest import hint
from jaxtrader.printable import printable
from jaxtrader.setting_checks import setting

# Files of one symbol are named by it and by the time that they hold: BTCUSDT-1h-2024-01.csv.
PERIOD = r"[-_. ]+(?:19|20)\d\d(?:[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?\d\d)?)?$"

MOST_LISTED = 20  # symbols
DASHES = "[-\u2013\u2014]+"


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """The rows of one symbol.

    Attributes:
        rows: T rows with their numbers.
        roles: the column that plays each role.
        times: [T] datetime64[ns], UTC, as they are in the source.
        tz: zone of the exchange's wall clock: the one that was given, or else that of the times. None is UTC.
    """

    rows: NumericTable
    roles: ColumnRoles
    times: np.ndarray
    tz: str | None


def read_histories(
    tables: Sequence[Table],
    *,
    tz: str | None,
    decimal: str | None,
    name: str | None = None,
    only: Sequence[str] | None = None,
    rename: bool = False,
) -> dict[str, History]:
    """Return the histories of tables by their symbols, in the order of `only`, or else of the tables.

    Args:
        tables: one for each file.
        tz: zone of the exchange's wall clock, see `load_bars`, or None.
        decimal: the decimal mark of text, or None.
        name: the one symbol to return. It names the only history of a table without a symbol column.
        only: the symbols to return.
        rename: whether `name` also names the only history of a table that has a symbol column.

    Raises:
        DataError: a table cannot be read, or a symbol is not there or comes twice.
    """
    parts: dict[str, list[History]] = {}
    wanted = only if only is not None else None if name is None or rename else [name]
    shared = _without_period([table.stem for table in tables]) if len(tables) > 1 else [tables[0].stem]
    for table, stem in zip(tables, shared, strict=True):
        for symbol, history in _histories_of(table, tz, decimal, wanted):
            named = symbol or (name if len(tables) == 1 else None) or history.roles.prefix or stem or "asset"
            parts.setdefault(named, []).append(history)
    source = tables[0].source if len(tables) == 1 else f"{tables[0].source} and {len(tables) - 1} more files"
    if rename and len(parts) == 1:
        return {str(name): _joined(next(iter(parts.values())))}
    chosen = select(list(parts), name, only, source)
    return {symbol: _oldest_first(_joined(parts[symbol])) for symbol in chosen}


def symbol_names(symbols: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of one symbol or of several. Raise DataError where they are none."""
    one = isinstance(symbols, str) or not isinstance(symbols, Iterable)
    names = (symbols,) if one else tuple(symbols)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{setting('symbols', symbols)} must be names of symbols, such as ('AAPL', 'IBM')")
    return names


def select(available: list[str], symbol: str | None, symbols: Sequence[str] | None, source: str) -> list[str]:
    """Return the symbols to load. Raise DataError if one is not available or comes twice."""
    wanted = list(symbols) if symbols is not None else available if symbol is None else [symbol]
    if not wanted:
        raise DataError(f"`symbols=()` selects nothing; {source} holds {listed(available, MOST_LISTED)}")
    known = set(available)
    for name in wanted:
        if name not in known:
            raise DataError(
                f"{source} holds no symbol '{shown(name)}'; it holds {listed(available, MOST_LISTED)}"
                f"{hint(name, available)}"
            )
    if len(set(wanted)) < len(wanted):
        raise DataError(f"{setting('symbols', wanted)} names a symbol twice; give each symbol once")
    return wanted


def _without_period(stems: Sequence[str | None]) -> list[str | None]:
    """File names without the month or the year at their end, where files differ by that alone."""
    short = [None if stem is None else re.sub(PERIOD, "", stem) or stem for stem in stems]
    return [one if short.count(one) > 1 else stem for one, stem in zip(short, stems, strict=True)]


def _histories_of(
    table: Table, tz: str | None, decimal: str | None, wanted: Sequence[str] | None
) -> Iterator[tuple[str | None, History]]:
    """The histories of one table. One without a symbol column has no name."""
    roles = recognize_columns(list(table.frame.columns), table.source, table.format)
    if roles.symbol is not None and wanted is not None:
        table = _only(table, roles.symbol, wanted)
    # All symbols are parsed together, because a date may be ambiguous in the rows of one symbol alone.
    numbered = None if roles.symbol is None else _symbols(table, roles.symbol)
    own = likely_histories(table, roles) if numbered is None else numbered[0]
    times, zone, roles, time_note = _times(table, roles, tz, own)
    column, symbol_note = symbol_column(table, roles, times)
    if column is not None and column != roles.symbol:
        roles = dataclasses.replace(
            roles, symbol=column, others=tuple(other for other in roles.others if other != column)
        )
    numbers, mark_note = _numeric_columns(table, roles, decimal)
    not_numbers = tuple(other for other in roles.others if other not in numbers)
    if roles.symbol is None:
        prices = {role: numbers[name] for role, name in roles.prices.items()}
        keys = filter(is_key, roles.others)
        refuse_spliced(table.frame, tuple(dict.fromkeys((*not_numbers, *roles.maybe_symbol, *keys))), prices, table)
    roles, volume_note = _volume(table, roles, numbers)
    unit_note = _to_unit(table, roles, numbers)
    format_note = f"Read as {table.format.name}." if table.format else None
    stamps = table.format.stamps if table.format else None
    notes = (*table.notes, format_note, time_note, symbol_note, mark_note, volume_note, unit_note)
    rows = NumericTable(
        table.rows,
        table.source,
        table.is_text,
        numbers,
        not_numbers,
        _described(table, roles),
        tuple(note for note in notes if note),
        stamps="open" if re.match("open|start", roles.time[0].lower()) else stamps,
    )
    if roles.symbol is None:
        yield None, History(rows, roles, times, zone)
        return
    codes, distinct = numbered or _symbols(table, roles.symbol)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(distinct) + 1))
    rows, times = rows.take(order), times[order]
    for number, symbol in enumerate(distinct):
        part = slice(int(ends[number]), int(ends[number + 1]))
        yield symbol, History(rows.take(part), roles, times[part], zone)


def _symbols(table: Table, column: str) -> tuple[np.ndarray, list[str]]:
    values = table.frame[column]
    missing = np.flatnonzero(values.isna())
    if missing.size:
        raise DataError(f"{table.row_name(missing[0])}: the symbol is missing; correct or remove the row")
    # An apostrophe keeps the zeros of a code in a spreadsheet.
    codes, distinct = values.astype(str).str.strip().str.lstrip("'").factorize()
    names = [printable(str(name)) for name in distinct]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{table.source}: two symbols are written '{shown(twice)}' and differ in what cannot be seen; rename one"
        )
    return codes, names


def _only(table: Table, column: str, wanted: Sequence[str]) -> Table:
    """The rows of some symbols. The table stays as it is where one of them is not there, which `select` says."""
    codes, distinct = _symbols(table, column)
    if not wanted or not set(wanted) <= set(distinct):
        return table
    kept = np.flatnonzero(np.isin(codes, [i for i, name in enumerate(distinct) if name in set(wanted)]))
    return dataclasses.replace(table, frame=table.frame.iloc[kept].reset_index(drop=True), rows=table.rows[kept])


def _times(
    table: Table, roles: ColumnRoles, tz: str | None, own: np.ndarray | None
) -> tuple[np.ndarray, str | None, ColumnRoles, str | None]:
    """The times and their zone, of the first column whose times can be read, and a note if that is not the first one.

    `own` [T] numbers the history of each row.
    """
    fault = None
    for columns in (roles.time, *roles.other_times):
        try:
            times, zone = _parsed_times(table, columns, tz, own)
        except DataError as error:
            fault = fault or error
            if _reads(table, columns, tz):  # a single row is wrong, and another column would hide it
                break
            continue
        if columns == roles.time:
            return times, zone, roles, None
        note = f"The times are those of '{shown(columns[0])}', as '{shown(roles.time[0])}' could not be read."
        return times, zone, dataclasses.replace(roles, time=columns), note
    assert fault is not None
    raise fault


def _parsed_times(
    table: Table, columns: Sequence[str], tz: str | None, own: np.ndarray | None
) -> tuple[np.ndarray, str | None]:
    stamps = table.frame[columns[0]]
    if len(columns) == 2:
        stamps = join_date_and_time(stamps, table.frame[columns[1]])
    day_first = table.format.day_first if table.format else None
    return parse_times(stamps, tz, table.row_name, histories=own, day_first=day_first)


def _reads(table: Table, columns: Sequence[str], tz: str | None) -> bool:
    """Whether the first row's time can be read."""
    first = dataclasses.replace(table, frame=table.frame.iloc[:1], rows=table.rows[:1])
    try:
        _parsed_times(first, columns, tz, None)
    except DataError:
        return False
    return True


def _numeric_columns(table: Table, roles: ColumnRoles, decimal: str | None) -> tuple[dict[str, np.ndarray], str | None]:
    prices = [*roles.prices.values(), *([roles.adjusted] if roles.adjusted else [])]
    single = [[name] for name in (roles.volume, roles.funding) if name is not None]
    wanted = [name for name in roles.others if name != roles.funding]
    if decimal is None and table.format:
        decimal = table.format.decimal
    return read_numbers(table.frame, [prices, *single], wanted, decimal, table.row_name, table.points)


def _volume(table: Table, roles: ColumnRoles, numbers: dict[str, np.ndarray]) -> tuple[ColumnRoles, str | None]:
    """Return the roles with the volume that counts, and a note. Changes `numbers`.

    A dash says that no volume was reported. Interactive Brokers writes -1 in all bars of what has no volume.
    Another volume is taken where the first is 0 throughout: MetaTrader counts ticks where it knows no volume.
    """
    if roles.volume is None:
        return roles, "There is no volume column; volume is 0."
    volume = numbers[roles.volume]
    missing = np.isnan(volume)
    if (missing | (volume == -1)).all():
        return dataclasses.replace(roles, volume=None), f"'{shown(roles.volume)}' is missing in every bar; volume is 0."
    if missing.any():
        rows = np.flatnonzero(missing)
        written = table.frame[roles.volume].iloc[rows].astype("str").str.strip()
        rows = rows[written.str.fullmatch(DASHES).fillna(False).to_numpy(bool)]
        if rows.size:
            numbers[roles.volume] = volume = volume.copy()
            volume[rows] = 0.0
            note = (
                f"'{shown(roles.volume)}' is a dash in {len(rows):,} bars, which reports no volume, so it is 0 there."
            )
            return roles, note
    if volume.any():
        return roles, None
    for name in roles.other_volumes:
        if name in numbers and numbers[name].any():
            others = tuple(other for other in roles.others if other != name)
            note = f"'{shown(roles.volume)}' is 0 in every bar, so '{shown(name)}' is the volume."
            return dataclasses.replace(roles, volume=name, others=others), note
    return roles, None


def _to_unit(table: Table, roles: ColumnRoles, numbers: dict[str, np.ndarray]) -> str | None:
    """Scale prices that are written as whole numbers of a small unit. Changes `numbers`, and returns a note."""
    unit = table.format.price_unit if table.format else None
    if unit is None:
        return None
    names = tuple(roles.prices.values())
    prices = np.stack([numbers[name] for name in names])
    if not (prices >= 1e-3 / unit).all() or (prices != np.floor(prices)).any():
        return None
    for name in names:
        numbers[name] = numbers[name] * unit
    return f"Prices were multiplied by {unit:g}, as they are whole numbers of that unit."


def _described(table: Table, roles: ColumnRoles) -> str:
    """The format, and the columns that play a role, as they are written."""
    time = " and ".join("the index" if name == INDEX else f"'{shown(name)}'" for name in roles.time)
    parts = [f"time {time}", *(f"{role} '{shown(name)}'" for role, name in roles.prices.items())]
    further = {"volume": roles.volume, "adjusted close": roles.adjusted, "symbol": roles.symbol}
    parts += [f"{role} '{shown(name)}'" for role, name in further.items() if name is not None]
    return f"{table.format.name if table.format else 'columns by their names'}: {', '.join(parts)}"


def _oldest_first(history: History) -> History:
    """Reverse rows whose times run from new to old. Other disorder is left for the check of times."""
    steps = np.diff(history.times).astype(np.int64)
    if not steps.size or not ((steps < 0).all() or (len(steps) > 2 and np.mean(steps <= 0) > 0.9)):
        return history
    rows = history.rows.take(slice(None, None, -1))
    note = "The newest bar came first, so the order of the rows was reversed."
    rows = dataclasses.replace(rows, notes=(*rows.notes, note))
    return dataclasses.replace(history, rows=rows, times=history.times[::-1])


def _joined(parts: Sequence[History]) -> History:
    """One history of several files, by their first times."""
    if len(parts) == 1:
        return parts[0]
    parts = sorted(map(_oldest_first, parts), key=lambda part: part.times[0])
    first = parts[0]
    for part in parts:
        if part.rows.numbers.keys() != first.rows.numbers.keys():
            raise DataError(
                f"{part.rows.source} and {first.rows.source} are of one symbol, but their columns differ; give each "
                "symbol one file, or files with the same columns"
            )
    rows = dataclasses.replace(
        first.rows,
        rows=np.concatenate([part.rows.rows for part in parts]),
        numbers={name: np.concatenate([part.rows.numbers[name] for part in parts]) for name in first.rows.numbers},
        files=tuple(part.rows.source for part in parts),
        file_of=np.repeat(np.arange(len(parts)), [len(part.rows.rows) for part in parts]),
        source=f"{first.rows.source} and {len(parts) - 1} more files",
        notes=(
            *dict.fromkeys(note for part in parts for note in part.rows.notes),
            f"It is of {len(parts)} files.",
        ),
    )
    times = np.concatenate([part.times for part in parts])
    zones = {part.tz for part in parts}
    return History(rows, first.roles, times, first.tz if len(zones) == 1 else _shared_zone(parts))


def _shared_zone(parts: Sequence[History]) -> str | None:
    """A zone in which the clocks of all files are, such as one of winter with -05:00 and one of summer with -04:00."""
    times = np.concatenate([part.times for part in parts])
    local = np.concatenate([wall_clock(part.times, part.tz) for part in parts])
    return zone_of_offsets(times, (local - times).astype("timedelta64[m]").astype(np.int64))
