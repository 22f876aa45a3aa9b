"""Text from files, as people may be shown it. It has no other imports, so every module of the package can use it."""

from typing import Any


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
