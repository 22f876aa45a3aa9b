"""Cuts the segments of a market at points in time, the same for all symbols. `Market.split` is the public interface."""

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from jaxtrader.market.bar_checks import format_time
from jaxtrader.market.clock import time_zone, union
from jaxtrader.market.errors import DataError
from jaxtrader.setting_checks import check_whole, is_number

# Beginning and end of time, in ns since 1970. The lowest int64 itself is NaT.
ALWAYS = np.iinfo(np.int64).min + 1
FOREVER = np.iinfo(np.int64).max


def cut_segments(
    times: np.ndarray, segments: np.ndarray, parts: Sequence[Any], embargo: int, tz: str | None = None
) -> list[tuple[np.ndarray, list[int]]]:
    """Cut segments into parts.

    Args:
        times: [T] datetime64[ns] of the rows.
        segments: [S, 3] (history_start, start, end), see `Market`.
        parts: fractions, or dates at which to cut.
        embargo: number of bars to drop from the end of each segment of the first part.
        tz: zone of dates without an offset. None is UTC.

    Returns:
        For each part its segments [S', 3], and the indices of the segments that they come from. A segment without bars
        in a part is left out there, and `history_start` never moves, so that windows reach back before the cut.

    Raises:
        ValueError: the embargo is not a whole number of bars, or is below 0.
        DataError: the fractions or dates are not valid, or a part has no bars.
    """
    calendar = union([times[start:end] for _, start, end in segments]).astype(np.int64)
    out = []
    for i, (low, high) in enumerate(itertools.pairwise(_cut_times(calendar, parts, tz))):
        part = segments_between(times, segments, low, high, embargo if i == 0 else 0)
        if not part[1]:
            bounds = [f"from {_format(low)}" * (low != ALWAYS), f"before {_format(high)}" * (high != FOREVER)]
            dropped = f" after an embargo of {embargo} bars" if embargo and i == 0 else ""
            raise DataError(
                f"Part {i + 1} of the split ({' and '.join(filter(None, bounds))}) holds no bar{dropped}; the data "
                f"runs from {_format(calendar[0])} to {_format(calendar[-1])}, so move the cut"
            )
        out.append(part)
    return out


def _cut_times(calendar: np.ndarray, parts: Sequence[Any], tz: str | None) -> list[int]:
    """Return the bounds of k parts, k + 1 times in ns since 1970."""
    if not parts:
        raise DataError("split() needs fractions, such as 0.8, 0.2, or dates, such as '2011-01-01'")
    numbers = [is_number(part) for part in parts]
    if all(numbers):
        return _cut_by_fractions(calendar, [float(part) for part in parts])
    if any(numbers):
        raise DataError(f"split{tuple(map(str, parts))} mixes fractions and dates; use only one of the two")
    dates = [nanoseconds(part, tz) for part in parts]
    for before, after, text in zip(dates, dates[1:], parts[1:], strict=False):
        if after <= before:
            raise DataError(f"The split date {text} does not come after the one before it; give the dates in order")
    return [ALWAYS, *dates, FOREVER]


def _cut_by_fractions(calendar: np.ndarray, fractions: list[float]) -> list[int]:
    total = sum(fractions)
    if not all(fraction > 0 for fraction in fractions) or not total <= 1 + 1e-9:
        raise DataError(
            f"The fractions {', '.join(f'{fraction:g}' for fraction in fractions)} are not valid; each must be above 0 "
            f"and their sum ({total:g}) at most 1. To cut at a year, give a date such as '2011-01-01'."
        )
    rows = np.round(np.cumsum(fractions) * len(calendar)).astype(int)
    if (np.diff(rows, prepend=0) == 0).any():
        raise DataError(
            f"{len(calendar):,} bars are too few for parts of {', '.join(f'{fraction:g}' for fraction in fractions)}, "
            "each of which needs a bar; give more bars, or larger fractions"
        )
    return [ALWAYS, *(int(calendar[row]) if row < len(calendar) else FOREVER for row in rows)]


def nanoseconds(value: Any, tz: str | None) -> int:
    """Convert a date to ns since 1970 UTC. Text must be in ISO format, because 03/04/2011 is ambiguous.

    Text, dates and datetimes without an offset are of the wall clock of `tz`. A datetime64 is UTC.
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value if len(value) > 7 else f"{np.datetime64(value, 'D')}")
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            value = value if value.tzinfo is not None else value.replace(tzinfo=time_zone(tz))
            value = np.datetime64(value.astimezone(UTC).replace(tzinfo=None))
        if isinstance(value, np.datetime64) and not np.isnat(value):
            return int(value.astype("datetime64[ns]").astype(np.int64))
    except ValueError:
        pass
    raise DataError(f"{value!r} is not a date to split at; write it as '2011-01-01' or '2011-01-01 15:30'")


def segments_between(
    times: np.ndarray, segments: np.ndarray, low: int, high: int, embargo: int
) -> tuple[np.ndarray, list[int]]:
    """Return the segments' bars with low <= time < high, without the last `embargo` bars of each, and their numbers.

    Raises ValueError where `embargo` is no number of bars.
    """
    embargo = check_whole("embargo", embargo, 0, unit="bars")
    rows, kept = [], []
    for i, (history_start, start, end) in enumerate(segments):
        own = times[start:end].astype(np.int64)
        first, last = np.searchsorted(own, [low, high], side="left")
        if high == FOREVER:
            last = len(own)
        last -= embargo
        if last > first:
            rows.append((history_start, start + first, start + last))
            kept.append(i)
    segments = np.array(rows, np.int64).reshape(-1, 3)
    segments.flags.writeable = False
    return segments, kept


def _format(moment: int) -> str:
    return format_time(np.datetime64(int(moment), "ns"))
