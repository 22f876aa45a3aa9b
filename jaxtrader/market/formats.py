"""Reads a CSV file, a Parquet file or a DataFrame into a `Table`, which knows the number of each row in the source.

`columns.py` decides what a column means, and `bar_checks.py` what a bar must satisfy.
"""

import csv
import dataclasses
import gzip
import importlib.util
import re
import warnings
import zlib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader.market.columns import INDEX, SYMBOL, TIMES, canonical
from jaxtrader.market.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = ("\t", ";", "|", ",")
# The separator and the header line are recognised from the beginning of the file.
HEAD_BYTES = 1 << 16
HEAD_LINES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """A frame whose times are in a column, with the place of each row in its source.

    Attributes:
        frame: T rows. The column names are unique strings.
        rows: [T] number of each row. A text file counts its lines from 1, any other source its rows from 0.
        source: the file name or "DataFrame", for messages.
        stem: the file name without its suffixes. None for a DataFrame.
    """

    frame: "pd.DataFrame"
    rows: np.ndarray
    source: str
    stem: str | None

    def row_name(self, row: int) -> str:
        """Name the row at a position (from 0) as the user counts it: "prices.csv, row 17"."""
        counted = "" if self.stem and not self.source.endswith((".parquet", ".pq")) else " (counted from 0)"
        return f"{self.source}, row {self.rows[row]}{counted}"

    def take(self, rows: np.ndarray) -> "Table":
        """Return the rows at these positions (from 0). They keep their numbers."""
        return dataclasses.replace(self, frame=self.frame.iloc[rows].reset_index(drop=True), rows=self.rows[rows])


def read_table(source: Any) -> Table:
    """Read a DataFrame, or the path of a CSV, gzipped CSV or Parquet file.

    Raises:
        DataError: the source is of another type, cannot be read, is damaged, or holds no rows.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        if not len(source):
            raise DataError("The DataFrame is empty; it must hold at least one bar.")
        return _to_table(source, np.arange(len(source)), "DataFrame", None)
    if not isinstance(source, (str, PathLike)):
        raise DataError(
            f"Bars are loaded from a path, a DataFrame or a dict of them, not from a {type(source).__name__}; convert "
            "it to one of these."
        )
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the path of one CSV or Parquet file, or a dict of symbol to path.")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); check the path and your permission to read it."
        ) from error
    if magic == b"PAR1" or path.suffix in (".parquet", ".pq"):
        return _read_parquet(path)
    return _read_csv(path, gzipped=magic[:2] == b"\x1f\x8b")


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(f"Reading {path.name} needs pyarrow; install it with: pip install pyarrow.")
    try:
        frame = pd.read_parquet(path)
    except Exception as error:
        raise DataError(f"{path.name} is not a whole Parquet file; write or download it again.") from error
    if not len(frame):
        raise DataError(f"{path.name} holds no rows; it must hold at least one bar.")
    return _to_table(frame, np.arange(len(frame)), path.name, path.stem)


def _read_csv(path: Path, gzipped: bool) -> Table:
    import pandas as pd

    lines = _head(path, gzipped)
    separator, header = _separator_and_header(path, lines)
    names = next(csv.reader([lines[header]], delimiter=separator))
    side_by_side = names[0] == "Price" and lines[header + 1 : header + 2] and lines[header + 1].startswith("Ticker")
    layout: dict[str, Any] = {"index_col": False, "dtype": {n: str for n in names if canonical(n) in SYMBOL}}
    if side_by_side:  # yfinance writes three header lines: Price, Ticker, Date
        layout = {"header": [0, 1], "index_col": 0}
    if tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1):  # from 3.1 on pandas always reads exactly
        layout["float_precision"] = "round_trip"
    body = "\n".join(lines[header + 1 :])
    decimal = "," if separator != "," and re.search(r"\d,\d", body) else "."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                skiprows=header,
                skip_blank_lines=False,
                encoding="utf-8-sig",
                low_memory=False,
                compression="gzip" if gzipped else None,
                **layout,
            )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path.name} is a damaged or cut-off gzip file; write or download it again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text; save it as CSV in UTF-8.") from error
    except (ValueError, IndexError, pd.errors.ParserWarning) as error:
        line = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if line:
            fault = f", row {int(line[2])}: {line[3]} values, but the header has {line[1]} names"
        else:
            fault = " is not a regular table (a row has more values than the header has names, or a quote is open)"
        raise DataError(f"{path.name}{fault}; correct the file and load it again.") from error
    rows = np.arange(len(frame)) + header + (4 if side_by_side else 2)
    blank = frame.isna().to_numpy(bool).all(axis=1)
    if blank.any() and not side_by_side:
        frame, rows = frame[~blank].reset_index(drop=True), rows[~blank]
    if not len(frame):
        raise DataError(f"{path.name} has a header but no bars; add one line for each bar.")
    return _to_table(frame, rows, path.name, path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.stem)


def _head(path: Path, gzipped: bool) -> list[str]:
    try:
        with gzip.open(path, "rb") if gzipped else path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            whole = not file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is a damaged or cut-off file; write or download it again.") from error
    if not head.strip():
        raise DataError(f"{path.name} is empty; it must hold a header line and one line for each bar.")
    try:
        text = (head if whole else head[: head.rfind(b"\n") + 1]).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DataError(f"{path.name} is a binary file, neither CSV text in UTF-8 nor Parquet; export it as CSV.")
    return text.splitlines()


def _separator_and_header(path: Path, lines: list[str]) -> tuple[str, int]:
    """Return the separator, and the first line that holds about as many of them as the lines usually do."""
    sample = [line for line in lines[:HEAD_LINES] if line.strip()]
    usual = {mark: float(np.median([line.count(mark) for line in sample])) for mark in SEPARATORS}
    separator = max(SEPARATORS, key=lambda mark: usual[mark])
    for row, line in enumerate(lines[:HEAD_LINES]):
        if line.count(separator) >= max(1.0, usual[separator] - 1):
            return separator, row
    raise DataError(
        f"{path.name} is not a table: its first lines hold no columns; the header must name time, open, high, low, "
        "close and volume, separated by commas."
    )


def _to_table(frame: "pd.DataFrame", rows: np.ndarray, source: str, stem: str | None) -> Table:
    """Move tickers from a column header into a symbol column, and times from the index into the column `INDEX`."""
    import pandas as pd

    if isinstance(frame.columns, pd.MultiIndex):
        frame, rows = _stack_tickers(frame, rows, source)
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        frame = frame.reset_index()
    elif isinstance(index, pd.PeriodIndex):
        frame = frame.set_axis(index.to_timestamp(), axis=0).reset_index(names=INDEX)
    elif isinstance(index, pd.DatetimeIndex) or canonical(index.name) in TIMES:
        frame = frame.reset_index(names=INDEX)
    frame = frame.reset_index(drop=True)
    frame.columns = [str(name) for name in frame.columns]
    if not frame.columns.is_unique:
        duplicate = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{source} has two columns named '{duplicate}'; rename or drop one.")
    return Table(frame, rows, source, stem)


def _stack_tickers(frame: "pd.DataFrame", rows: np.ndarray, source: str) -> tuple["pd.DataFrame", np.ndarray]:
    """Turn a frame with a (field, ticker) header into a long one with a symbol column.

    Rows in which all values of a ticker are missing are left out, because they only fill up the common calendar.
    """
    import pandas as pd

    levels = [{canonical(value) for value in frame.columns.get_level_values(i)} for i in range(frame.columns.nlevels)]
    fields = [i for i, level in enumerate(levels) if {"open", "close"} <= level]
    if len(levels) != 2 or len(fields) != 1:
        raise DataError(
            f"The columns of {source} have {len(levels)} levels, which are not (field, ticker); flatten them to open, "
            "high, low, close and volume."
        )
    tickers = frame.columns.get_level_values(1 - fields[0])
    parts, numbers = [], []
    for ticker in dict.fromkeys(tickers):
        part = frame.loc[:, tickers == ticker].droplevel(1 - fields[0], axis=1)
        kept = part.notna().to_numpy(bool).any(axis=1)
        parts.append(part[kept].rename_axis(columns=None).assign(symbol=str(ticker)))
        numbers.append(rows[kept])
    index_name = frame.index.name if isinstance(frame.index.name, str) else INDEX
    return pd.concat(parts).rename_axis(index_name), np.concatenate(numbers)
