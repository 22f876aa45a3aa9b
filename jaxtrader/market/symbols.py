"""Tables of several symbols: side by side under a header of tickers, or one below the other with a symbol column."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxtrader.market.columns import MAYBE_SYMBOL, PRICE_SPELLINGS, ROW_NUMBERS, ColumnRoles, canonical
from jaxtrader.market.errors import DataError, no_bars, shown
from jaxtrader.market.table import Table
from jaxtrader.printable import printable

if TYPE_CHECKING:
    import pandas as pd

# Where a text column changes, a move of the price by more than this, and by more than this many usual moves, is a jump.
JUMP, USUAL_MOVES = 0.2, 8.0
# The same for a column whose name says that it may name symbols, or that is named like a key, such as `id`, where half
# of its changes or more are jumps.
JUMP_AT_KEYS, USUAL_MOVES_AT_KEYS = 0.05, 6.0
KEYS = frozenset(("id", "ids", "uid", "key", "code"))  # the last word of such a name
FEW_VALUES = 100
STACKED = "symbol"  # the column of the tickers that stood in the header


def stack(
    frame: "pd.DataFrame", fields: Sequence[str], tickers: Sequence[str], rows: np.ndarray, source: str
) -> tuple["pd.DataFrame", np.ndarray]:
    """Turn a frame with a header of fields and tickers into a long one with a symbol column.

    Rows in which all values of a ticker are missing are left out, because they only fill up the common calendar.

    Args:
        frame: [T, N], by the position of its columns.
        fields: the field of each column.
        tickers: the ticker of each column. One without a ticker, such as the time, is of all of them.
        rows: [T] number of each row.
        source: names the table in the message.
    """
    import pandas as pd

    fields = [printable(field) for field in fields]
    places: dict[str, dict[str, int]] = {}
    shared: dict[str, int] = {}
    for place, (field, ticker) in enumerate(zip(fields, tickers, strict=True)):
        of_field = places.setdefault(field, {}) if ticker else shared
        key = ticker or field
        if key in of_field:
            raise _twice(source, f"{field} {ticker}".strip())
        of_field[key] = place
    order = list(dict.fromkeys(ticker for ticker in tickers if ticker))
    length, count = len(frame), len(order)
    present = np.zeros(length * count, bool)
    columns: dict[str, np.ndarray] = {}
    for field, of_field in places.items():
        wanted = [of_field.get(ticker, -1) for ticker in order]
        values = frame.iloc[:, [place for place in wanted if place >= 0]].to_numpy()
        if -1 in wanted:
            whole = np.full((length, count), np.nan, values.dtype if values.dtype.kind in "fO" else object)
            whole[:, [place >= 0 for place in wanted]] = values
            values = whole
        flat = values.ravel(order="F")
        columns[field] = flat
        present |= ~pd.isna(flat)
    kept = np.flatnonzero(present)
    if not kept.size:
        raise no_bars(source)
    common = {field: frame.iloc[:, place].take(kept % length).array for field, place in shared.items()}
    long = pd.DataFrame(common | {field: values[kept] for field, values in columns.items()})
    long[STACKED] = np.array(order, object)[kept // length]
    return long, rows[kept % length]


def unique_names(names: Sequence[str], source: str) -> list[str]:
    """Return the names, printable, in which those that are blank become "Unnamed: 3".

    Raises DataError where one comes twice.
    """
    names = [printable(name) for name in names]
    out = [name if name.strip() or not place else f"Unnamed: {place}" for place, name in enumerate(names)]
    if len(set(out)) < len(out):
        seen: set[str] = set()
        raise _twice(source, next(name for name in out if name in seen or seen.add(name)))
    return out


def _twice(source: str, name: str) -> DataError:
    return DataError(f"{source} has two columns named '{shown(name)}'; rename or drop one")


def symbol_column(table: Table, roles: ColumnRoles, times: np.ndarray) -> tuple[str | None, str | None]:
    """Return the column that holds the symbols, and a note where its name alone does not say so.

    A column such as `Name` is taken if it has one value, or if the times restart where it changes. Text that is one
    value after the other is taken as well. Raises DataError where a column of another name does so.
    """
    if roles.symbol is not None:
        return roles.symbol, None
    steps = np.diff(times).astype(np.int64)
    one_history = bool((steps > 0).all() or (steps < 0).all())
    for name in roles.maybe_symbol:
        values = table.frame[name]
        if values.isna().any() or _are_row_numbers(name, values):
            continue
        codes, distinct = values.astype(str).factorize()
        numbers = all(map(_is_digits, distinct[:FEW_VALUES]))
        if ROW_NUMBERS.fullmatch(canonical(name)) and (numbers or (one_history and len(distinct) > 1)):
            continue
        if len(distinct) == 1 and not numbers:
            return name, None
        if not 1 < len(distinct) <= max(1, len(codes) // 2):
            continue
        blocks = np.count_nonzero(np.diff(codes)) == len(distinct) - 1
        if not _is_one_history_each(codes, times):
            continue
        if not one_history or (blocks and not numbers):
            return name, f"'{shown(name)}' holds the symbols ({len(distinct):,} of them)."
    if not one_history:
        _refuse_unnamed(table, roles, times)
    return None, None


def likely_histories(table: Table, roles: ColumnRoles) -> np.ndarray | None:
    """Number the history that each row [T] seems to belong to, before any time is read. None is one history."""
    for name in roles.maybe_symbol:
        values = table.frame[name]
        if _are_row_numbers(name, values):
            continue
        codes, distinct = values.astype(str).factorize()
        if not values.isna().any() and 1 < len(distinct) <= len(codes) // 2:
            return codes
    return None


def _refuse_unnamed(table: Table, roles: ColumnRoles, times: np.ndarray) -> None:
    """Raise DataError where a text column tells apart histories whose times run in order each."""
    for name in roles.others:
        values = table.frame[name]
        if getattr(values.dtype, "kind", "O") != "O" or values.isna().any():
            continue
        codes, distinct = values.astype(str).factorize()
        if not 1 < len(distinct) <= len(codes) // 2:
            continue
        order = np.argsort(codes, kind="stable")
        steps = np.diff(times[order]).astype(np.int64)[np.diff(codes[order]) == 0]
        if (steps > 0).all() or (steps < 0).all():
            row = int(np.argmax(codes != codes[0]))
            raise DataError(
                f"{table.row_name(row)}: '{shown(name)}' holds {len(distinct):,} values, such as "
                f"'{shown(distinct[0])}' and '{shown(distinct[1])}', and each of them has times of its own; name the "
                "column 'symbol' if it holds symbols"
            )


def _are_row_numbers(name: str, values: "pd.Series") -> bool:
    """Whether a column that is named like row numbers holds them. There may be millions."""
    return bool(ROW_NUMBERS.fullmatch(canonical(name))) and getattr(values.dtype, "kind", "O") in "iuf"


def _is_digits(value: object) -> bool:
    return str(value).replace(".", "", 1).isdigit()


def _is_one_history_each(codes: np.ndarray, times: np.ndarray) -> bool:
    """Whether the times of each value never repeat."""
    order = np.lexsort((times, codes))
    return not ((np.diff(codes[order]) == 0) & (np.diff(times[order]).astype(np.int64) == 0)).any()


def refuse_spliced(frame: "pd.DataFrame", names: Sequence[str], prices: dict[str, np.ndarray], table: Table) -> None:
    """Raise DataError where a column of few values changes at a jump of the price, as if two symbols were joined.

    A smaller jump is enough where the column is named like a key, such as `id`, and its values are no counter.

    Args:
        frame: the table as it was read.
        names: its columns of text, those whose name says that they may hold symbols, and those named like a key.
        prices: open and close, [T] each.
        table: names the rows.
    """
    if len(frame) < 4:
        return
    with np.errstate(all="ignore"):
        moves = np.abs(np.log(prices["open"][1:] / prices["close"][:-1]))
        steps = np.abs(np.diff(np.log(prices["close"])))
    usual = np.median(steps[np.isfinite(steps)]) if np.isfinite(steps).any() else 0.0
    jumps = moves > max(JUMP, USUAL_MOVES * usual)
    at_keys = moves > max(JUMP_AT_KEYS, USUAL_MOVES_AT_KEYS * usual)
    if not (jumps | at_keys).any():
        return
    for name in names:
        values = frame[name]
        codes, distinct = values.astype(str).factorize()
        changes = np.diff(codes) != 0
        if not 1 < len(distinct) <= FEW_VALUES or np.count_nonzero(changes) != len(distinct) - 1:
            continue
        joined = changes & jumps
        may_name = canonical(name) in MAYBE_SYMBOL
        if is_key(name) or may_name:
            numbers = not may_name and all(map(_is_digits, distinct))
            if 2 * np.count_nonzero(changes & at_keys) >= len(distinct) - 1 and not _is_counter(
                list(map(str, distinct))
            ):
                joined = changes & at_keys
            elif numbers:
                continue
        if joined.any():
            row = int(np.argmax(joined)) + 1
            raise DataError(
                f"{table.row_name(row)}: '{shown(name)}' changes from '{shown(values.iloc[row - 1])}' to "
                f"'{shown(values.iloc[row])}', and the price from {prices['close'][row - 1]:.6g} to "
                f"{prices['open'][row]:.6g}, as if two histories were joined; name the column 'symbol' if it names "
                "them, or drop it"
            )


def is_key(name: str) -> bool:
    """Whether the last word of a name is that of a key: `id`, `sym_id` and `symId`, but not `bid`."""
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).strip("_ "))
    return words[-1].lower() in KEYS


def _is_counter(distinct: Sequence[str]) -> bool:
    """Whether three or more values go up or down by 1, as the numbers of sessions do."""
    if len(distinct) < 3 or not all(map(_is_digits, distinct)):
        return False
    return bool((np.abs(np.diff([float(value) for value in distinct])) == 1).all())


def is_field_level(values: Sequence[object]) -> bool:
    """Whether a level of a header names open and close, and so holds the fields and not the tickers."""
    keys = {canonical(value) for value in values}
    return all(any(spelling in keys for spelling in PRICE_SPELLINGS[role]) for role in ("open", "close"))
