"""Lines on standard error that say what takes long while it is done. They are no part of a command's output.

This module imports neither JAX nor pandas, because the first line comes before they are loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jaxtrader.printable import printable

LARGE = 1 << 23  # bytes, which are read within a second


def say(text: str) -> None:
    """Print a line at once."""
    print(f"{printable(text)} ...", file=sys.stderr, flush=True)


def say_reading(path: str | None) -> None:
    """Say that a file or a folder is read, if it is large."""
    if path is None:
        return
    place = Path(path)
    try:
        files = [place] if place.is_file() else [file for file in place.iterdir() if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    except (OSError, ValueError):  # which reading will describe
        return
    if size > LARGE:
        say(f"reading {path} ({size / 1e6:,.0f} MB)")
