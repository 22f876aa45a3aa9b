"""A price file or frame on its way to `Bars`: `Table` as it was read, and `NumericTable` once its values are numbers.

Both know the number of each row in the source, so that a message can name it.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from jaxtrader.market.formats import Format


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """Where rows come from.

    Attributes:
        rows: [T] number of each row. A text file counts its lines from 1, any other source its rows from 0.
        source: the file name or "DataFrame", for messages.
        is_text: whether the rows are lines of a text file.
    """

    rows: np.ndarray
    source: str
    is_text: bool

    def row_name(self, row: int) -> str:
        """Name the row at a position (from 0) as the user counts it: "prices.csv, row 17"."""
        return f"{self.source_of(row)}, row {self.rows[row]}{'' if self.is_text else ' (counted from 0)'}"

    def source_of(self, row: int) -> str:
        """The source of the row at a position."""
        return self.source


@dataclasses.dataclass(frozen=True, eq=False)
class Table(Origin):
    """A frame whose times are in a column.

    Attributes:
        frame: T rows. The column names are unique strings.
        stem: the file name without its suffixes. None for a DataFrame.
        format: the known format, or None if the columns are known by their names alone.
        notes: what reading found, one sentence each.
        points: whether points in its numbers are "decimal", or "likely" so, as its layout tells, or "unknown".
    """

    frame: "pd.DataFrame"
    stem: str | None
    format: "Format | None" = None
    notes: tuple[str, ...] = ()
    points: str = "unknown"


@dataclasses.dataclass(frozen=True, eq=False)
class NumericTable(Origin):
    """The numbers of a table, or of some of its rows.

    Attributes:
        numbers: [T] float64 by the name of the column. A missing value is NaN.
        not_numbers: further columns, which are no numbers.
        description: the format, and the columns that play a role, for `Bars.format`.
        notes: what reading found, one sentence each.
        files: the files of one history, if there are several.
        file_of: [T] which of them each row is of. None if there are not several.
        stamps: the end of its bar that a time seems to mark, by the format or by the name of its column.
    """

    numbers: dict[str, np.ndarray]
    not_numbers: tuple[str, ...] = ()
    description: str = ""
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    file_of: np.ndarray | None = None
    stamps: str | None = None

    def source_of(self, row: int) -> str:
        """The file of the row at a position."""
        return self.source if self.file_of is None else self.files[self.file_of[row]]

    def take(self, rows: np.ndarray | slice) -> "NumericTable":
        """Return the rows at these positions (from 0). They keep their numbers."""
        numbers = {name: values[rows] for name, values in self.numbers.items()}
        file_of = None if self.file_of is None else self.file_of[rows]
        return dataclasses.replace(self, rows=self.rows[rows], numbers=numbers, file_of=file_of)
