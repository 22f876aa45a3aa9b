"""Text from files, as people may be shown it. It has no other imports, so every module of the package can use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def printable(text: str) -> str:
    """Return a text with a space for each character that a terminal, a browser or an editor would act on.

    These are control characters and line ends, and the invisible characters that turn the direction of writing. At the
    ends of the text they are left out.
    """
    if text.isprintable():
        return text
    seen = [place for place, letter in enumerate(text) if letter.isprintable()]
    inner = text[seen[0] : seen[-1] + 1] if seen else ""
    return "".join(letter if letter.isprintable() else " " for letter in inner)


def shown(value: object, most: int = 40) -> str:
    """Return a value from a file as a message shows it: in one line, printable, and cut where it is long."""
    text = str(value)
    return printable(text[:most]) + "..." * (len(text) > most)


def listed(values: Sequence[object], most: int) -> str:
    """Return the first of some values from a file, each as `shown`, and how many more there are."""
    text = ", ".join(map(shown, values[:most]))
    return f"{text} and {len(values) - most:,} more" if len(values) > most else text


def printable_data(data: Any) -> Any:
    """Return plain data with all its texts printable, keys too."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, dict):
        return {printable_data(name): printable_data(value) for name, value in data.items()}
    return type(data)(map(printable_data, data)) if isinstance(data, list | tuple) else data


def plain_cell(cell: Any) -> Any:
    """Return a cell of a CSV file that no spreadsheet takes for a formula: such a text gets an apostrophe before it.

    A formula begins with =, +, - or @. Cells that are no text stay as they are.
    """
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def as_csv(frame: pd.DataFrame, *, index: bool) -> str:
    """Return a frame as CSV in which no text is a formula to a spreadsheet, see `plain_cell`."""
    texts = {column: frame[column].map(plain_cell) for column in frame.columns if frame[column].dtype.kind == "O"}
    return frame.assign(**texts).rename(columns=plain_cell).to_csv(index=index, lineterminator="\n")
