"""Reads a text file of separated values into a frame: encoding, separator, header, rows."""

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import numpy as np

from jaxtrader.market.columns import MAYBE_SYMBOL, SYMBOL, TIMES, canonical
from jaxtrader.market.date_text import DAYS, MONTHS
from jaxtrader.market.dialect import NUMBER_LIKE, Dialect, Header, dialect_of
from jaxtrader.market.encodings import ASIAN, encoding_of
from jaxtrader.market.errors import DataError, shown
from jaxtrader.market.formats import YFINANCE, Format, format_of, headerless_format_of
from jaxtrader.market.numerals import PROVES_NO_GROUPS, may_be_groups, needs_text
from jaxtrader.market.sources import DAMAGED, File, refuse_foreign
from jaxtrader.market.wide import MANY_COLUMNS, read_wide

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
ROWS_AT_ONCE = 1 << 18  # so that the text of few rows is in memory at once
HEAD_BYTES, MOST_HEAD_BYTES, HEAD_LINES = 1 << 16, 1 << 24, 30
LONG_HEAD_BYTES, LONG_HEAD_LINES = 1 << 22, 6


@dataclasses.dataclass(frozen=True, eq=False)
class Delimited:
    """A text table as it was read.

    Attributes:
        frame: T rows. The columns are numbered.
        rows: [T] the line of each row.
        header: its names.
        format: the known format, or None.
        points: see `Table.points`.
        notes: one sentence each.
    """

    frame: "pd.DataFrame"
    rows: np.ndarray
    header: Header
    format: Format | None
    points: str
    notes: tuple[str, ...]


def read_delimited(file: File, head: bytes, decimal: str | None) -> Delimited:
    """Read a text file.

    Args:
        file: the file.
        head: its beginning, from `head_of`.
        decimal: the decimal mark, or None to conclude it.

    Raises:
        DataError: the file is no text, is of another kind, or is no table.
    """
    if not head.strip():
        raise DataError(f"{file.name} is empty; it must hold a header line and one line for each bar.")
    encoding = encoding_of(head)
    # The end of a line of UTF-16 may be cut in two.
    text = None if encoding is None else head.decode(encoding, errors="replace").rstrip("\ufffd")
    refuse_foreign(file, head, text)
    if text is None or encoding is None or "\0" in text:
        raise _no_text(file, head)
    dialect = dialect_of(text)
    if dialect is None:
        raise DataError(
            f"{file.name} is not a table: its first lines hold no columns; the header must name time, open, high, low, "
            "close and volume, separated by commas."
        )
    header, format = _known_format(file, dialect)
    likely = dialect.separator == "," and '"' not in text  # where points group thousands, commas are decimals
    points = "decimal" if format and format.points_are_decimal else "likely" if likely else "unknown"
    unsure = decimal is None and points != "decimal"
    try:
        frame, rows, note = _read(file, encoding, dialect, header, decimal, unsure)
    except UnicodeDecodeError as error:  # the beginning was ASCII
        encoding = encoding_of(_beyond_ascii(file))
        if encoding is None or encoding not in (*ASIAN, "cp1252"):
            raise _no_text(file, head) from error
        try:
            frame, rows, note = _read(file, encoding, dialect, header, decimal, unsure)
        except UnicodeDecodeError:
            raise _no_text(file, head) from error
    encoding_note = None if encoding.startswith("utf-8") else f"The text was read as {_spelt(encoding)}."
    notes = tuple(each for each in (encoding_note, note) if each)
    return Delimited(frame, rows, header, format, points, notes)


def _known_format(file: File, dialect: Dialect) -> tuple[Header, Format | None]:
    """The names of the columns, which a table without a header gets from its format, and the format or None."""
    header = dialect.header
    if header.names is not None:
        return header, YFINANCE if header.lines > 1 else format_of(header.names)
    for index in ((), ("",)):  # pandas may have written row numbers
        if format := headerless_format_of([row[len(index) :] for row in dialect.sample]):
            return Header((*index, *(name for name, _ in format.cells))), format
    raise _no_header(file, dialect)


def head_of(file: File) -> bytes:
    """Read the beginning of a file, with its header and some rows.

    Raises:
        DataError: the file is damaged, or unpacks to far more than prices do.
    """
    head = b""
    try:
        with file.open() as stream:
            while len(head) < MOST_HEAD_BYTES:
                lines = head.count(b"\n") + head.count(b"\r")
                if lines >= (HEAD_LINES if len(head) < LONG_HEAD_BYTES else LONG_HEAD_LINES):
                    break
                chunk = stream.read(HEAD_BYTES if not head else 2 * len(head))
                head += chunk
                if not chunk:
                    return head
            end = max(head.rfind(b"\n"), head.rfind(b"\r"))
            return head[: end + 1] if end > 0 else head
    except (OSError, *DAMAGED) as error:
        raise _damaged(file) from error


def _no_text(file: File, head: bytes) -> DataError:
    if CONTROL.search(head):
        return DataError(f"{file.name} is a binary file, neither text nor Parquet; export its table as CSV.")
    return DataError(
        f"{file.name} is text in an unknown encoding, not UTF-8, UTF-16, GBK, Big5, Shift-JIS, CP949 or cp1252; save "
        "it as CSV in UTF-8."
    )


def _damaged(file: File) -> DataError:
    return DataError(f"{file.name} is a damaged or cut-off file; write or download it again.")


def _spelt(encoding: str) -> str:
    asian = {"gb18030": "GBK", "cp932": "Shift-JIS", "cp949": "CP949", "cp950": "Big5"}
    return (asian | {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}).get(encoding, encoding)


def _beyond_ascii(file: File) -> bytes:
    """The first lines of a file that are not ASCII."""
    found = b""
    with file.open() as stream:
        for chunk in _chunks(stream):
            if not chunk.isascii():
                found += b"".join(line for line in chunk.splitlines(keepends=True) if not line.isascii())
            if len(found) > HEAD_BYTES:
                break
    return found


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """The stream in pieces that end with a line."""
    rest = b""
    while chunk := stream.read(1 << 20):
        chunk = rest + chunk
        end = chunk.rfind(b"\n") + 1
        rest = chunk[end:]
        yield chunk[:end]
    yield rest


def _no_header(file: File, dialect: Dialect) -> DataError:
    row = ", ".join(shown(cell, 20) for cell in dialect.sample[0][:6]) if dialect.sample else "no rows"
    return DataError(
        f"{file.name} has no header, and its {dialect.width} columns ({row}, ...) fit no known format: the first line "
        "of a file must be the names, such as time, open, high, low, close and volume."
    )


def _read(
    file: File, encoding: str, dialect: Dialect, header: Header, decimal: str | None, unsure: bool
) -> tuple["pd.DataFrame", np.ndarray, str | None]:
    """Read the rows, and say what text behind them was left out. The columns are numbered from 0.

    `unsure` keeps text whose points may stand between thousands.
    """
    assert header.names is not None
    named, width = len(header.names), max(len(header.names), dialect.width)
    if width - named > 0 and any(any(row[named:]) for row in dialect.sample if len(row) == dialect.width):
        raise _too_many(file, dialect, header)
    symbols = [i for i, name in enumerate(header.names) if canonical(name) in (*SYMBOL, *MAYBE_SYMBOL)]
    frame = _parsed(file, encoding, dialect, width, symbols, range(width) if decimal == "," else ())
    no_numbers = {i for i, name in enumerate(header.names) if canonical(name) in TIMES} | set(symbols)
    texts = [i for i, kind in enumerate(frame.dtypes) if kind.kind not in "iufb" and i not in no_numbers]
    if decimal != "," and any(needs_text(frame[i]) for i in texts):
        # Where a comma is found, points may stand between thousands, which only their text shows.
        frame = _parsed(file, encoding, dialect, width, symbols, range(width))
    elif unsure and (columns := _maybe_in_groups(frame, dialect, no_numbers)):
        frame = _parsed(file, encoding, dialect, width, symbols, columns)
    rows = np.arange(len(frame)) + dialect.lines + 1
    blank = frame.isna().to_numpy(bool).all(axis=1)
    if blank.any():
        frame, rows = frame.take(np.flatnonzero(~blank)).reset_index(drop=True), rows[~blank]
    bars = _without_prose(frame)
    note = None
    if bars < len(frame):
        text = shown(frame.iloc[bars, 0])
        note = f"The text behind the last bar was left out: '{text}'."
        frame, rows = frame.iloc[:bars], rows[:bars]
    if not len(frame):
        raise DataError(f"{file.name} has a header but no bars; add one line for each bar.")
    for i in range(named, width):
        if frame[i].notna().any():
            row = int(np.argmax(frame[i].notna().to_numpy()))
            raise DataError(
                f"{file.name}, row {rows[row]}: {i + 1} values, but the header has {named} names; correct the file and "
                "load it again."
            )
    return frame.iloc[:, :named], rows, note


def _without_prose(frame: "pd.DataFrame") -> int:
    """Return the number of rows before lines of prose at the end, such as "Downloaded from ..."."""
    for bars in range(len(frame), max(0, len(frame) - MOST_PROSE), -1):
        first, *others = frame.iloc[bars - 1]
        text = str(first).strip().lower()
        is_time = NUMBER_LIKE.match(text) or text[:3] in (*MONTHS, *DAYS)
        if not isinstance(first, str) or not others or is_time or not all(map(_is_missing, others)):
            return bars
    return max(0, len(frame) - MOST_PROSE)


def _is_missing(cell: object) -> bool:
    return cell is None or cell != cell or cell == ""


def _maybe_in_groups(frame: "pd.DataFrame", dialect: Dialect, no_numbers: set[int]) -> list[int]:
    """The columns of numbers whose points may stand between thousands. None where the first rows show otherwise."""
    floats = [i for i, kind in enumerate(frame.dtypes) if kind.kind == "f" and i not in no_numbers]
    if not floats:
        return []
    first = may_be_groups(frame[floats].head(1000).to_numpy())  # which shows it for most columns, without a copy of all
    likely = [column for column, maybe in zip(floats, first, strict=True) if maybe]
    columns = [column for column in likely if may_be_groups(frame[column].to_numpy()[:, None])[0]]
    for column in columns:
        cells = [row[column] for row in dialect.sample if column < len(row)]
        with np.errstate(invalid="ignore"):
            points = any("." in cell for cell in cells) or bool((frame[column].to_numpy() % 1 > 0).any())
        if points and not any(map(PROVES_NO_GROUPS.fullmatch, cells)):
            return columns
    return []


def _too_many(file: File, dialect: Dialect, header: Header) -> DataError:
    names = header.names or ()
    way_out = "give each column a name, or quote numbers that have a comma in them"
    if format := headerless_format_of(dialect.sample):
        way_out = f"name all of them, or leave the header out, as the rows are those of {format.name}"
    return DataError(
        f"{file.name}: the header has {len(names)} names ({', '.join(shown(name, 20) for name in names[:8])}), but "
        f"{dialect.width} values stand in a row; {way_out}."
    )


def _parsed(
    file: File, encoding: str, dialect: Dialect, width: int, symbols: list[int], as_text: Sequence[int]
) -> "pd.DataFrame":
    """The rows, by numbers. Those of symbols and `as_text` stay text. The columns are numbered."""
    import pandas as pd

    if width > MANY_COLUMNS and not as_text:
        with _rows(file, encoding, dialect) as lines:
            frame = read_wide(lines, dialect.separator, width)
        if frame is not None:
            return frame
    layout: dict[str, Any] = {"dtype": dict.fromkeys([*symbols, *as_text], str)}
    if symbols:  # a ticker may be NA or NAN
        missing = {i: [""] if i in symbols else MISSING for i in range(width)}
        layout |= {"keep_default_na": False, "na_values": missing}
    if tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1):  # from 3.1 on pandas always reads exactly
        layout["float_precision"] = "round_trip"
    options = {
        "sep": dialect.separator,
        "header": None,
        "names": list(range(width)),
        "index_col": False,
        "skip_blank_lines": False,
        "skipinitialspace": True,
        "low_memory": False,
        **layout,
    }
    # What the pieces say of a fault is not used, because a column gets its type from all of its values.
    with contextlib.suppress(_Disagreement, DataError):
        return _frame(file, encoding, dialect, options, ROWS_AT_ONCE)
    return _frame(file, encoding, dialect, options, None)


def _frame(
    file: File, encoding: str, dialect: Dialect, options: dict[str, Any], rows_at_once: int | None
) -> "pd.DataFrame":
    import pandas as pd

    with _rows(file, encoding, dialect) as lines, warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        warnings.simplefilter("error", pd.errors.ParserWarning)
        if rows_at_once is None:
            return pd.read_csv(lines, **options)
        return _concatenated(pd.read_csv(lines, chunksize=rows_at_once, **options))


class _Disagreement(Exception):
    """A column has numbers in one piece and text in another."""


def _concatenated(pieces: Iterable["pd.DataFrame"]) -> "pd.DataFrame":
    import pandas as pd

    read: list[pd.DataFrame] = []
    for frame in pieces:
        kinds = [{old.kind, new.kind} for old, new in zip((read or [frame])[0].dtypes, frame.dtypes, strict=True)]
        if any(len(kind) > 1 and kind != {"i", "f"} for kind in kinds):
            raise _Disagreement
        read.append(frame)
    return read[0] if len(read) == 1 else pd.concat(read, ignore_index=True)


@contextlib.contextmanager
def _rows(file: File, encoding: str, dialect: Dialect) -> Iterator[TextIO]:
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
        raise DataError(f"{file.name} has a header but no bars; add one line for each bar.") from error
    except (ValueError, IndexError, OverflowError, pd.errors.ParserWarning) as error:
        line = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if line:
            row = int(line[2]) + dialect.lines
            fault = f", row {row}: {line[3]} values, but the header has {line[1]} names"
        else:
            fault = " is not a regular table (a row has more values than the header has names, or a quote is open)"
        raise DataError(f"{file.name}{fault}; correct the file and load it again.") from error
    except (OSError, *DAMAGED) as error:
        raise _damaged(file) from error
