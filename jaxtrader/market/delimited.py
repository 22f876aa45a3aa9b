"""Reads a text file of separated values into a table: encoding, separator, header, rows."""

import contextlib
import dataclasses
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from jaxtrader.market.columns import MAYBE_SYMBOL, SYMBOL, TIMES, canonical
from jaxtrader.market.date_text import DAYS, MONTH_NUMBERS
from jaxtrader.market.dialect import NUMBER_LIKE, Dialect, Header, dialect_of
from jaxtrader.market.encodings import ASIAN, encoding_of
from jaxtrader.market.errors import DataError, no_bars, shown
from jaxtrader.market.formats import YFINANCE, Format, format_of, headerless_format_of
from jaxtrader.market.numerals import PROVES_NO_GROUPS, may_be_groups, needs_text
from jaxtrader.market.sources import DAMAGED, File, refuse_foreign
from jaxtrader.market.symbols import stack, unique_names
from jaxtrader.market.table import Table

if TYPE_CHECKING:
    import pandas as pd

# What pandas takes for a missing value.
MISSING = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
]
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # bytes that no text has
MOST_PROSE = 5  # lines behind the last bar
# The layout is found from the beginning of a file, which is read up to its header and some rows.
HEAD_BYTES, MOST_HEAD_BYTES, HEAD_LINES = 1 << 16, 1 << 24, 30
LINES_BEYOND_ASCII = 1000
SPELT = {
    **{"gb18030": "GBK", "cp932": "Shift-JIS", "cp949": "CP949", "cp950": "Big5"},
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be"), "UTF-16"),
}


def head_of(file: File) -> bytes:
    """Read the beginning of a file, with its header and some rows.

    Raises:
        DataError: the file is damaged, or unpacks to far more than prices do.
    """
    head = b""
    try:
        with file.open() as stream:
            while len(head) < MOST_HEAD_BYTES and head.count(b"\n") + head.count(b"\r") < HEAD_LINES:
                chunk = stream.read(HEAD_BYTES if not head else 2 * len(head))
                head += chunk
                if not chunk:
                    return head
    except (OSError, *DAMAGED) as error:
        raise _damaged(file) from error
    end = max(head.rfind(b"\n"), head.rfind(b"\r"))
    return head[: end + 1] if end > 0 else head


def read_delimited(file: File, head: bytes, decimal: str | None) -> Table:
    """Read a text file.

    Args:
        file: the file.
        head: the beginning of the file, from `head_of`.
        decimal: the decimal mark, or None to conclude it.

    Raises:
        DataError: the file is no text, is of another kind, or is no table.
    """
    if not head.strip():
        raise DataError(f"{file.name} is empty; it must hold a header line and one line for each bar")
    encoding = encoding_of(head)
    # The end of a line of UTF-16 may be cut in two.
    text = None if encoding is None else head.decode(encoding, errors="replace").rstrip("\ufffd")
    refuse_foreign(file, head, text)
    if text is None or "\0" in text:
        raise _no_text(file, head)
    dialect = dialect_of(text)
    if dialect is None:
        raise DataError(
            f"{file.name} is not a table: its first lines hold no columns; the header must name time, open, high, low, "
            "close and volume, separated by commas"
        )
    dialect, format = _known_format(file, dialect)
    likely = dialect.separator == "," and '"' not in text  # where points group thousands, commas are decimals
    points = "decimal" if format and format.points_are_decimal else "likely" if likely else "unknown"
    for encoding in _encodings(file, head):
        with contextlib.suppress(UnicodeDecodeError):
            frame, rows, note = _read(file, encoding, dialect, decimal, points)
            break
    else:
        raise _no_text(file, head)
    names, tickers = list(dialect.header.names or ()), dialect.header.tickers
    while names and not names[-1] and frame.iloc[:, len(names) - 1].isna().all():  # a separator ends each line
        names.pop()
    frame = frame.iloc[:, : len(names)]
    if tickers:
        frame, rows = stack(frame, names, tickers[: len(names)], rows, file.name)
    else:
        frame.columns = unique_names(names, file.name)
    encoding_note = None if encoding.startswith("utf-8") else f"The text was read as {SPELT.get(encoding, encoding)}."
    notes = tuple(each for each in (encoding_note, note) if each)
    return Table(rows, file.name, True, frame, file.stem, format, notes, points)


def _known_format(file: File, dialect: Dialect) -> tuple[Dialect, Format | None]:
    """The dialect with the names of its columns, which one without a header gets from its format, and the format."""
    header = dialect.header
    if header.names is not None:
        return dialect, YFINANCE if header.lines > 1 else format_of(header.names)
    for index in ((), ("",)):  # pandas may have written row numbers
        if format := headerless_format_of([row[len(index) :] for row in dialect.sample]):
            header = Header((*index, *(name for name, _ in format.cells)))
            return dataclasses.replace(dialect, header=header), format
    row = ", ".join(shown(cell, 20) for cell in dialect.sample[0][:6]) if dialect.sample else "no rows"
    raise DataError(
        f"{file.name} has no header, and its {dialect.width} columns ({row}, ...) fit no known format: the first line "
        "of a file must be the names, such as time, open, high, low, close and volume"
    )


def _encodings(file: File, head: bytes) -> Iterator[str]:
    """The encoding of the beginning, and where that is ASCII, the one that the lines beyond ASCII have."""
    encoding = encoding_of(head)
    assert encoding is not None
    yield encoding
    with file.open() as stream:
        lines = (line for line in stream if not line.isascii())
        beyond = encoding_of(b"".join(itertools.islice(lines, LINES_BEYOND_ASCII)))
    if beyond is not None and beyond in (*ASIAN, "cp1252"):
        yield beyond


def _no_text(file: File, head: bytes) -> DataError:
    if CONTROL.search(head):
        return DataError(f"{file.name} is a binary file, neither text nor Parquet; export its table as CSV")
    return DataError(
        f"{file.name} is text in an unknown encoding, not UTF-8, UTF-16, GBK, Big5, Shift-JIS, CP949 or cp1252; save "
        "it as CSV in UTF-8"
    )


def _damaged(file: File) -> DataError:
    return DataError(f"{file.name} is a damaged or cut-off file; write or download it again")


def _read(
    file: File, encoding: str, dialect: Dialect, decimal: str | None, points: str
) -> tuple["pd.DataFrame", np.ndarray, str | None]:
    """Read the rows, number them by their lines, and say what text behind them was left out."""
    names = dialect.header.names or ()
    named, width = len(names), max(len(names), dialect.width)
    if any(any(row[named:]) for row in dialect.sample if len(row) == dialect.width):
        raise _too_many(file, dialect, names)
    symbols = [i for i, name in enumerate(names) if canonical(name) in (*SYMBOL, *MAYBE_SYMBOL)]
    frame = _parsed(file, encoding, dialect, width, symbols, as_text=range(width) if decimal == "," else ())
    no_numbers = {i for i, name in enumerate(names) if canonical(name) in TIMES} | set(symbols)
    known = decimal is not None or points == "decimal"
    if decimal != "," and (unclear := _unclear(frame, dialect, no_numbers, known)):
        frame = _parsed(file, encoding, dialect, width, symbols, as_text=unclear)
    rows = np.arange(len(frame)) + dialect.lines + 1
    blank = frame.isna().to_numpy(bool).all(axis=1)
    if blank.any():
        frame, rows = frame.take(np.flatnonzero(~blank)).reset_index(drop=True), rows[~blank]
    bars = _without_prose(frame)
    note = None
    if bars < len(frame):
        note = f"The text behind the last bar was left out: '{shown(frame.iloc[bars, 0])}'."
        frame, rows = frame.iloc[:bars], rows[:bars]
    if not len(frame):
        raise no_bars(file.name)
    for i in range(named, width):
        if frame[i].notna().any():
            row = int(np.argmax(frame[i].notna().to_numpy()))
            raise DataError(
                f"{file.name}, row {rows[row]}: {i + 1} values, but the header has {named} names; correct the file and "
                "load it again"
            )
    return frame.iloc[:, :named], rows, note


def _too_many(file: File, dialect: Dialect, names: tuple[str, ...]) -> DataError:
    way_out = "give each column a name, or quote numbers that have a comma in them"
    if format := headerless_format_of(dialect.sample):
        way_out = f"name all of them, or leave the header out, as the rows are those of {format.name}"
    return DataError(
        f"{file.name}: the header has {len(names)} names ({', '.join(shown(name, 20) for name in names[:8])}), but "
        f"{dialect.width} values stand in a row; {way_out}"
    )


def _unclear(frame: "pd.DataFrame", dialect: Dialect, no_numbers: set[int], known: bool) -> Sequence[int]:
    """The columns of which only the text shows what their numbers mean.

    These are all columns where a comma is found, and those of numbers where points may stand between thousands.
    `known` says that points are decimals.
    """
    kinds = {i: kind.kind for i, kind in enumerate(frame.dtypes) if i not in no_numbers}
    if any(needs_text(frame[i]) for i, kind in kinds.items() if kind not in "iufb"):
        return range(len(frame.columns))
    points = [] if known else [i for i, kind in kinds.items() if kind == "f"]
    cells = {i: [row[i] for row in dialect.sample if i < len(row)] for i in points}
    return points if any(_may_be_in_groups(frame[i].to_numpy(), cells[i]) for i in points) else ()


def _may_be_in_groups(values: np.ndarray, first: list[str]) -> bool:
    """Whether numbers [T] have points that may stand between thousands, as far as they and their first texts tell."""
    if any(map(PROVES_NO_GROUPS.fullmatch, first)) or not may_be_groups(values):
        return False
    return any("." in cell for cell in first) or bool((values[np.isfinite(values)] % 1 > 0).any())


def _without_prose(frame: "pd.DataFrame") -> int:
    """Return the number of rows before lines of prose at the end, such as "Downloaded from ..."."""
    fewest = max(0, len(frame) - MOST_PROSE)
    for bars in range(len(frame), fewest, -1):
        first, *others = frame.iloc[bars - 1]
        text = str(first).strip().lower()
        is_time = NUMBER_LIKE.match(text) or text[:3] in (*MONTH_NUMBERS, *DAYS)
        if not isinstance(first, str) or not others or is_time or frame.iloc[bars - 1, 1:].notna().any():
            return bars
    return fewest


def _parsed(
    file: File, encoding: str, dialect: Dialect, width: int, symbols: list[int], as_text: Sequence[int]
) -> "pd.DataFrame":
    """The rows as numbers. Symbols and the columns `as_text` stay text. The columns are numbered from 0."""
    import pandas as pd

    options: dict[str, Any] = {
        "sep": dialect.separator,
        "header": None,
        "names": list(range(width)),
        "index_col": False,
        "skip_blank_lines": False,
        "skipinitialspace": True,
        "dtype": dict.fromkeys([*symbols, *as_text], str),
    }
    if symbols:  # a ticker may be NA or NAN
        missing = {i: [""] if i in symbols else MISSING for i in range(width)}
        options |= {"keep_default_na": False, "na_values": missing}
    if tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1):  # from 3.1 on pandas always reads exactly
        options["float_precision"] = "round_trip"
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        warnings.simplefilter("error", pd.errors.DtypeWarning)
        # In pieces it needs half of the memory. A column that is text in one piece alone must be text in all of them.
        with contextlib.suppress(pd.errors.DtypeWarning), _lines_below_header(file, encoding, dialect) as lines:
            return pd.read_csv(lines, low_memory=True, **options)
        with _lines_below_header(file, encoding, dialect) as lines:
            return pd.read_csv(lines, low_memory=False, **options)


@contextlib.contextmanager
def _lines_below_header(file: File, encoding: str, dialect: Dialect) -> Iterator[TextIO]:
    """Open the file behind its header. What is wrong with its rows becomes a DataError, which names the line."""
    import pandas as pd

    try:
        with file.open() as stream:
            lines = io.TextIOWrapper(stream, encoding, newline="")
            for _ in range(dialect.lines):
                lines.readline()
            yield lines
    except (DataError, UnicodeDecodeError):
        raise
    except pd.errors.EmptyDataError as error:
        raise no_bars(file.name) from error
    except (ValueError, IndexError, OverflowError, pd.errors.ParserWarning) as error:
        line = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if line:
            row = int(line[2]) + dialect.lines
            fault = f", row {row}: {line[3]} values, but the header has {line[1]} names"
        else:
            fault = " is not a regular table (a row has more values than the header has names, or a quote is open)"
        raise DataError(f"{file.name}{fault}; correct the file and load it again") from error
    except (OSError, *DAMAGED) as error:
        raise _damaged(file) from error
