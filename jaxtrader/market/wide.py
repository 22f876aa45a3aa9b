"""Reads rows of thousands of cells, for which a reader that handles column by column takes minutes."""

import csv
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MANY_COLUMNS = 1000
MOST_TEXTS = 50


def read_wide(lines: Iterable[str], separator: str, width: int) -> "pd.DataFrame | None":
    """Read rows of numbers with a few columns of text among them.

    Args:
        lines: the rows, without a header.
        separator: between the cells.
        width: the number of columns.

    Returns:
        The frame, whose columns are numbered. None if the rows are not of this kind.
    """
    import pandas as pd

    limit = csv.field_size_limit(1 << 30)
    numbers, texts, is_text = [], [], None
    try:
        for cells in csv.reader(lines, delimiter=separator):
            if len(cells) > width:
                return None
            row = [cell.strip() for cell in cells] + [""] * (width - len(cells))
            if is_text is None:
                is_text = [i for i, cell in enumerate(row) if cell and _number(cell) is None]
                if len(is_text) > MOST_TEXTS:
                    return None
            texts.append([row[i] or None for i in is_text])
            for i in is_text:
                row[i] = "nan"
            numbers.append(_numbers(row))
    except (csv.Error, ValueError):
        return None
    finally:
        csv.field_size_limit(limit)
    if is_text is None:
        return None
    frame = pd.DataFrame(np.stack(numbers))
    for place, i in enumerate(is_text):
        frame[i] = pd.Series([row[place] for row in texts], dtype="str")
    return frame


def _numbers(row: list[str]) -> np.ndarray:
    try:
        return np.array(row, np.float64)
    except ValueError:
        return np.array([cell or "nan" for cell in row], np.float64)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
