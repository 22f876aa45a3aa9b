"""Reads a path or a DataFrame into tables, one for each file: which reader a file needs, and what its header says."""

import dataclasses
import datetime
import importlib.util
import io
import re
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader.market.columns import INDEX, SYMBOL, TIMES, canonical
from jaxtrader.market.delimited import head_of, read_delimited
from jaxtrader.market.dialect import leading_rows_of_names, merged_header, names_from_tickers
from jaxtrader.market.errors import DataError, no_bars, shown
from jaxtrader.market.formats import YFINANCE, Format, format_of, headerless_format_of
from jaxtrader.market.sources import PARQUET, File, files_of
from jaxtrader.market.symbols import STACKED, is_field_level, stack, unique_names
from jaxtrader.market.table import Table

if TYPE_CHECKING:
    import pandas as pd


def read_tables(source: Any, decimal: str | None = None) -> tuple[Table, ...]:
    """Read a DataFrame, or the path of a CSV or Parquet file, of a folder or of a zip archive with such files.

    Args:
        source: the frame or the path. CSV may be packed by gzip, bzip2 or xz.
        decimal: the decimal mark of text, "." or ",". None concludes it.

    Raises:
        DataError: the source is of another type, cannot be read, is damaged, or holds no rows.
    """
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        if not len(source):
            raise DataError("The DataFrame is empty; it must hold at least one bar")
        return (_of_frame(source, "DataFrame", None),)
    if not isinstance(source, (str, PathLike)):
        raise DataError(
            f"Bars are loaded from a path, a DataFrame or a dict of them, not from a {type(source).__name__}; convert "
            "it to one of these"
        )
    if not str(source).strip():
        raise DataError("The path is empty; give the path of a CSV or Parquet file, or of a folder of them")
    files, note = files_of(Path(source))
    tables = []
    for file in files:
        head = head_of(file)
        if head.startswith(PARQUET):
            tables.append(_read_parquet(file))
        elif file.name.lower().endswith((".parquet", ".pq")):
            raise _not_parquet(file)
        else:
            tables.append(read_delimited(file, head, decimal))
    if note:
        tables[0] = dataclasses.replace(tables[0], notes=(*tables[0].notes, note))
    return tuple(tables)


def _not_parquet(file: File) -> DataError:
    return DataError(f"{file.name} is not a whole Parquet file; write or download it again")


def _read_parquet(file: File) -> Table:
    import pandas as pd

    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(f"Reading {file.name} needs pyarrow; install it with: pip install pyarrow")
    from pyarrow import parquet

    try:
        with file.open() as stream:
            whole = stream if stream.seekable() else io.BytesIO(stream.read())
            unique_names(parquet.read_schema(whole).names, file.name)
            _check_unpacked(file, whole)
            frame = pd.read_parquet(whole)
    except DataError:
        raise
    except Exception as error:
        raise _not_parquet(file) from error
    if not len(frame):
        raise DataError(f"{file.name} holds no rows; it must hold at least one bar")
    return _of_frame(frame, file.name, file.stem)


def _check_unpacked(file: File, whole: Any) -> None:
    """Raise DataError where a Parquet file is far larger in memory than it is.

    Equal values take next to no room in the file, and 8 bytes each in memory, or all of their text.
    """
    from pyarrow import compute, parquet

    contents = parquet.ParquetFile(whole)
    meta, schema = contents.metadata, contents.schema_arrow
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    values = sum(group.column(j).num_values for group in groups for j in range(group.num_columns))
    size = max(8 * values, sum(group.total_byte_size for group in groups))
    file.check_unpacked(size)
    for name in (field.name for field in schema if _is_text(field.type)):
        # Its different texts, and which of them is in each row.
        column = parquet.ParquetFile(whole, read_dictionary=[name]).read(columns=[name])
        for piece in (piece for one in column.columns for piece in one.chunks):
            lengths = compute.call_function("binary_length", [piece.dictionary]).to_numpy(zero_copy_only=False)
            size += int(lengths[piece.indices.drop_null().to_numpy()].sum())
        file.check_unpacked(size)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _of_frame(frame: "pd.DataFrame", source: str, stem: str | None) -> Table:
    """Name the columns, and move times from the index into the column `INDEX`."""
    body = frame.set_axis(range(frame.shape[1]), axis=1)
    names, tickers, format, further = _header_of(frame.columns, body, source)
    if further == len(body):
        raise no_bars(source)
    body, rows = body.iloc[further:], np.arange(further, len(body))
    body, names, tickers = _with_index(body, names, tickers, source)
    if any(tickers):
        body, rows = stack(body, names, tickers, rows, source)
    else:
        body.columns = unique_names(names, source)
    body.columns = [str(name) for name in body.columns]
    return Table(rows, source, False, body, stem, format or format_of(list(body.columns)))


def _header_of(
    columns: "pd.Index", body: "pd.DataFrame", source: str
) -> tuple[list[str], list[str], Format | None, int]:
    """The fields and the tickers of the columns, the format that they tell, and how many first rows are names, too."""
    import pandas as pd

    first = body.head(3).astype(object).where(body.head(3).notna(), "").astype(str).to_numpy().tolist()
    if isinstance(columns, pd.MultiIndex):
        names, tickers = _fields_and_tickers(columns, source)
        has_third = canonical(first[0][0]) in TIMES and not any(first[0][1:])  # of which pandas was not told
        if has_third:
            names[0], tickers[0] = first[0][0], ""
        return names, tickers, YFINANCE, int(has_third)
    names = ["" if name is None else str(name) for name in columns]
    if names == [str(i) for i in range(len(names))] and (
        format := headerless_format_of(body.head(30).astype(str).to_numpy().tolist())
    ):
        return [name for name, _ in format.cells], [], format, 0
    further = leading_rows_of_names(first) if any(kind.kind == "O" for kind in body.dtypes) else 0
    if not further:
        return names, [], None, 0
    header = merged_header([re.sub(r"\.\d+$", "", name) for name in names], first[:further])
    return list(header.names or names), list(header.tickers), YFINANCE, further


def _fields_and_tickers(columns: "pd.MultiIndex", source: str) -> tuple[list[str], list[str]]:
    """The fields and the tickers of a header of two levels."""
    levels = [columns.get_level_values(i) for i in range(columns.nlevels)]
    fields = [i for i, level in enumerate(levels) if is_field_level(list(level))]
    if len(levels) != 2 or len(fields) != 1:
        raise DataError(
            f"The columns of {source} have {len(levels)} levels, which are not (field, ticker); flatten them to open, "
            "high, low, close and volume"
        )
    tickers = ["" if canonical(ticker) in ("", "nan") else str(ticker) for ticker in levels[1 - fields[0]]]
    names = [str(field) for field in levels[fields[0]]]
    return names_from_tickers(names, tickers)


def _with_index(
    frame: "pd.DataFrame", names: list[str], tickers: list[str], source: str
) -> tuple["pd.DataFrame", list[str], list[str]]:
    """Move an index that holds times or symbols in front of the columns."""
    import pandas as pd

    index, added = frame.index, []
    if isinstance(index, pd.MultiIndex):
        unnamed = sum(
            name is None and level.dtype.kind != "M" for name, level in zip(index.names, index.levels, strict=True)
        )
        if unnamed > 1:  # one may hold the symbols
            raise DataError(
                f"The index of {source} has {unnamed} levels without names, as pandas makes where a header has fewer "
                "names than its rows have values; give the path of the file instead, or name the levels"
            )
        added = [
            str(name) if name is not None else INDEX if index.levels[i].dtype.kind == "M" else STACKED
            for i, name in enumerate(index.names)
        ]
        values = [index.get_level_values(i) for i in range(index.nlevels)]
    else:
        key = canonical(index.name)
        values = [index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index]
        dates = index.dtype.kind == "O" and all(isinstance(value, datetime.date) for value in index)
        if dates or isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) or (index.name is not None and key in TIMES):
            added = [INDEX]
        elif index.name is not None and key in SYMBOL:
            added = [str(index.name)]
        elif not any(canonical(name) in TIMES for name in names) and index.dtype.kind in "OU":
            raise DataError(
                f"The index of {source} is text such as '{shown(index[0])}', and no column holds times; make it times "
                "with df.index = pd.to_datetime(df.index)"
            )
    frame = frame.reset_index(drop=True)
    if not added:
        return frame, names, tickers
    front = pd.DataFrame({i: pd.Series(each).reset_index(drop=True) for i, each in enumerate(values)})
    joined = pd.concat([front, frame], axis=1)
    return joined, [*added, *names], [""] * len(added) + list(tickers) if tickers else []
