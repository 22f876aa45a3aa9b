"""Round lengths of histories, so that many lengths share a few compiled programs.

XLA compiles for each shape of its arguments, which takes seconds and memory that is never released. A history that
grows by a bar a day must not pay for that every day.
"""

from __future__ import annotations

import numpy as np


def round_length(rows: int) -> int:
    """Return a round number of rows: at least `rows`, and at most an eighth more, or the next multiple of 512.

    The parts of a short history, such as those of validation and test, then share their programs.
    """
    step = max(512, 2 ** (rows.bit_length() - 4))
    return rows + -rows % step


def pad_rows(column: np.ndarray, rows: int) -> np.ndarray:
    """Return a column of the given number of rows, where those beyond its own repeat its last."""
    return np.concatenate([column, np.repeat(column[-1:], rows - len(column), axis=0)])
