"""Finds the separator and the header of a text table, with a CSV parser, from the table's beginning.

A header may have several lines: yfinance writes one of fields, one of tickers and one that names the index.
"""

import csv
import dataclasses
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence

from jaxtrader.market.columns import NAMES, TIMES, canonical

SEPARATORS = (",", ";", "\t", "|")
HEAD_RECORDS = 60
MOST_CELLS = 200  # of a record are looked at
INDEX_NAMES = (*TIMES, "index")
# Cells of a header's further lines: what they begin with.
LABELS = ("", "ticker", "tickers", "symbol", "symbols", "price", "field", "attributes", *INDEX_NAMES)
NUMBER_LIKE = re.compile(r"[\s\"'(<$€£¥₹]*[-+]?[.,]?\d")
Record = tuple[list[str], int]
"""Cells, and the number of lines up to the end of them."""
PRICE_WORD = re.compile(r"open|high|low|close", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Header:
    """The names of the columns.

    Attributes:
        names: one for each column. None if the table has no names.
        tickers: the ticker of each column, "" where it has none.
        lines: how many lines hold the names.
    """

    names: tuple[str, ...] | None
    tickers: tuple[str, ...] = ()
    lines: int = 1


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a text table is laid out.

    Attributes:
        separator: between the cells.
        lines: the number of lines before the first row of data.
        header: the names.
        width: the number of cells that most rows have.
        sample: the first rows of data.
    """

    separator: str
    lines: int
    header: Header
    width: int
    sample: tuple[tuple[str, ...], ...]


def dialect_of(text: str) -> Dialect | None:
    """Return the layout of a table that begins with `text`, or None if that is no table."""
    best: tuple[tuple[int, float, int], str, list[Record]] | None = None
    for separator in SEPARATORS:
        records = _records(text, separator)
        width, share = _usual_width(records)
        known = max((_known_names(cells) for cells, _ in records), default=0)
        score = (min(known, 4), round(share, 1), width)
        if width > 1 and (best is None or score > best[0]):
            best = score, separator, records
    if best is None:
        return None
    _, separator, records = best
    first, last = _header_at(records)
    header = _header([cells for cells, _ in records[first:last]])
    rows = tuple(tuple(cells) for cells, _ in records[last:] if any(cells))
    width = _usual_width(records[last:])[0] or len(header.names or ())
    return Dialect(separator, records[last - 1][1] if last else 0, header, width, rows)


def leading_rows_of_names(rows: Sequence[Sequence[str]]) -> int:
    """Return how many of the first rows of a table belong to its header, as in a file of yfinance: 3 at most."""
    return len(list(itertools.takewhile(_continues_header, rows[:3])))


def merged_header(names: Sequence[str], further: Sequence[Sequence[str]]) -> Header:
    """The header of a table whose first rows are a part of it."""
    return _header([list(names), *map(list, further)])


def _records(text: str, separator: str) -> list[Record]:
    limit = csv.field_size_limit(1 << 30)  # a cell may be as long as the text
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        first = itertools.islice(reader, HEAD_RECORDS)
        return [([cell.strip() for cell in cells], reader.line_num) for cells in first]
    except csv.Error:
        return []
    finally:
        csv.field_size_limit(limit)


def _usual_width(records: Sequence[Record]) -> tuple[int, float]:
    """The width that most records have, and the share of those that have it. Blank records do not count."""
    widths = Counter(len(cells) for cells, _ in records if any(cells))
    width = max(widths, key=lambda width: (widths[width], width), default=0)
    return width, widths[width] / max(widths.total(), 1)


def _known_names(cells: Sequence[str]) -> int:
    """How many different names of columns that mean something are in a record."""
    short = {cell for cell in cells[:MOST_CELLS] if len(cell) < 80}
    return max(len({canonical(cell) for cell in short} & NAMES), sum(bool(PRICE_WORD.search(cell)) for cell in short))


def _has_number(cells: Sequence[str]) -> bool:
    return any(NUMBER_LIKE.match(cell) for cell in cells[:MOST_CELLS])


def _header_at(records: list[Record]) -> tuple[int, int]:
    """The first record of the header, and the record after it. Both are equal if the table has no names."""
    at = next((i for i, (cells, _) in enumerate(records) if _known_names(cells) >= 2 and not _is_data(cells)), None)
    if at is None:
        fewest = max(2, _usual_width(records)[0] - 1)
        at = next((i for i, (cells, _) in enumerate(records) if len(cells) >= fewest), 0)
        cells = records[at][0]
        if _is_numbered(cells):
            return at, at + 1
        if _has_number(cells):
            return at, at
    first, last = at, at + 1
    above, names = records[at - 1][0] if at else [], records[at][0]
    under_times = bool(above) and not names[0] and canonical(above[0]) in INDEX_NAMES and not _has_number(above)
    if len(above) == len(names) and (under_times or _continues_header(above)):
        first = at - 1
    return first, last + leading_rows_of_names([cells for cells, _ in records[last : at + 3]])


def _is_data(cells: Sequence[str]) -> bool:
    """Whether most cells of a record begin as a number does. Names such as "1. open" do as well, and are none."""
    named = sum(bool(re.match(r"\d+[a-z]?\.\s+[A-Za-z]", cell)) for cell in cells[:MOST_CELLS])
    return sum(bool(NUMBER_LIKE.match(cell)) for cell in cells[:MOST_CELLS]) - named > len(cells[:MOST_CELLS]) / 2


def _is_numbered(cells: Sequence[str]) -> bool:
    """Whether the names are 0, 1, 2, ..., which pandas writes for a table without names."""
    numbered = [str(i) for i in range(len(cells))]
    return list(cells) == numbered or list(cells) == ["", *numbered[:-1]]


def _continues_header(cells: Sequence[str]) -> bool:
    """Whether a record beside the header is a part of it: tickers, or the name of the index."""
    label = canonical(cells[0]) if cells and len(cells[0]) < 80 else "no label"
    if len(cells) < 2 or label not in LABELS:
        return False
    if label in ("ticker", "tickers", "symbol", "symbols"):
        return True
    if label in TIMES:
        return not any(cells[1:])
    return not _has_number(cells) and any(cells)


def _header(lines: list[list[str]]) -> Header:
    """The names, and the tickers, of the lines of a header."""
    if not lines or _is_numbered(lines[0]):
        return Header(None)
    fields = max(range(len(lines)), key=lambda i: (_known_names(lines[i][1:]), -i))
    width = len(lines[fields])
    names = list(lines[fields])
    tickers = [""] * width
    for number, cells in enumerate(lines):
        rest = [*cells[1:], *[""] * width][: width - 1]
        if number != fields and any(rest):
            tickers[1:] = rest
    if len(lines) > 1 and canonical(names[0]) not in TIMES:
        names[0] = next((cells[0] for cells in lines if canonical(cells[0]) in INDEX_NAMES), "")
    names, tickers = names_from_tickers(names, tickers)
    return Header(tuple(names), tuple(tickers) if any(tickers) else (), len(lines))


def names_from_tickers(names: Sequence[str], tickers: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names and tickers of columns. What `reset_index` made of an index has its name in the line of tickers."""
    return (
        [name or ticker for name, ticker in zip(names, tickers, strict=True)],
        [ticker if name else "" for name, ticker in zip(names, tickers, strict=True)],
    )
