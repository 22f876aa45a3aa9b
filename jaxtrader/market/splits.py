"""Where to cut a market's segments in time: one date for all symbols, from fractions of their calendar or from dates.

Works on times and segments only; `Market.split` is its public face.
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from jaxtrader.market.checks import DataError

FOREVER = np.iinfo(np.int64).max
ALWAYS = np.iinfo(np.int64).min + 1  # the minimum itself is NaT


def cut_segments(
    times: np.ndarray, segments: np.ndarray, parts: Sequence[Any], embargo: int
) -> list[tuple[np.ndarray, list[int]]]:
    """For each part its segments [S', 3] and which of the old segments they were.

    Args:
        times: [T] datetime64[ns] of the tape.
        segments: [S, 3] (history_start, first_decision, end exclusive).
        parts: fractions, or dates to cut at.
        embargo: bars taken off the end of each segment of the first part.
    """
    if embargo < 0 or int(embargo) != embargo:
        raise DataError(f"embargo={embargo} is not possible; it is a number of bars, 0 or more.")
    calendar = np.unique(np.concatenate([times[first:end] for _, first, end in segments])).astype(np.int64)
    borders = _borders(calendar, parts)
    out = []
    for i, (start, stop) in enumerate(itertools.pairwise(borders)):
        part = _between(times, segments, start, stop, embargo if i == 0 else 0)
        if not part[1]:
            bounds = [f"from {_text(start)}" * (start != ALWAYS), f"before {_text(stop)}" * (stop != FOREVER)]
            taken = f" after an embargo of {embargo} bars" if embargo and i == 0 else ""
            raise DataError(
                f"Part {i + 1} of the split ({' and '.join(filter(None, bounds))}) holds no bar{taken}; the data runs "
                f"from {_text(calendar[0])} to {_text(calendar[-1])}, so move the cut."
            )
        out.append(part)
    return out


def _between(
    times: np.ndarray, segments: np.ndarray, start: int, stop: int, embargo: int
) -> tuple[np.ndarray, list[int]]:
    """The segments' bars with start <= time < stop; windows still look back to history_start."""
    rows, kept = [], []
    for i, (history, first, end) in enumerate(segments):
        own = times[first:end].astype(np.int64)
        low, high = np.searchsorted(own, [start, stop], side="left")
        if stop == FOREVER:
            high = len(own)
        high -= embargo
        if high > low:
            rows.append((history, first + low, first + high))
            kept.append(i)
    segments = np.array(rows, np.int64).reshape(-1, 3)
    segments.flags.writeable = False
    return segments, kept


def _borders(calendar: np.ndarray, parts: Sequence[Any]) -> list[int]:
    """k + 1 times in ns since 1970 around k parts."""
    if not parts:
        raise DataError("split() needs fractions, such as 0.8, 0.2, or dates, such as '2011-01-01'.")
    numbers = [isinstance(part, (int, float, np.number)) and not isinstance(part, bool) for part in parts]
    if all(numbers):
        return _fraction_borders(calendar, [float(part) for part in parts])
    if any(numbers):
        raise DataError(f"split{tuple(map(str, parts))} mixes fractions and dates; give one kind.")
    cuts = [_nanoseconds(part) for part in parts]
    for before, after, text in zip(cuts, cuts[1:], parts[1:], strict=False):
        if after <= before:
            raise DataError(f"The split date {text} does not come after the one before it; give the dates in order.")
    return [ALWAYS, *cuts, FOREVER]


def _fraction_borders(calendar: np.ndarray, fractions: list[float]) -> list[int]:
    total = sum(fractions)
    if not all(fraction > 0 for fraction in fractions) or not total <= 1 + 1e-9:
        raise DataError(
            f"The fractions {', '.join(f'{fraction:g}' for fraction in fractions)} are not possible; each must be "
            f"above 0 and their sum ({total:g}) at most 1. A year is given as a date: '2011-01-01'."
        )
    rows = np.round(np.cumsum(fractions) * len(calendar)).astype(int)
    return [ALWAYS, *(int(calendar[row]) if row < len(calendar) else FOREVER for row in rows)]


def _nanoseconds(value: Any) -> int:
    """A date as ns since 1970 UTC; ISO text, so that 03/04/2011 is never guessed."""
    try:
        if isinstance(value, str) and len(value) > 7:
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime) and value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        if isinstance(value, (str, date, np.datetime64)):
            moment = np.array(value, "datetime64[ns]")[()]
            if not np.isnat(moment):
                return int(moment.astype(np.int64))
    except ValueError:
        pass
    raise DataError(f"{value!r} is no date to split at; write it as '2011-01-01' or '2011-01-01 15:30'.")


def _text(moment: int) -> str:
    return str(np.datetime64(int(moment), "ns").astype("datetime64[s]")).replace("T", " ").removesuffix(" 00:00:00")
