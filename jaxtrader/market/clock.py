"""Converts UTC times to the wall clock of a time zone, and reads the time of day and the weekday from it."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from jaxtrader.market.errors import DataError, shown
from jaxtrader.nearest import hint
from jaxtrader.setting_checks import setting

TICK = np.timedelta64(1, "ns")  # the unit of all times
HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def time_zone(tz: str | None) -> tzinfo:
    """Return a zone by its name, such as "America/New_York" or "UTC-05:00". None is UTC.

    Raises:
        DataError: `tz` is not the name of a zone.
    """
    if tz is None:
        return UTC
    try:
        if fixed := re.fullmatch(r"UTC([+-]\d{2}):(\d{2})", tz):
            return timezone(timedelta(hours=int(fixed[1]), minutes=int(f"{fixed[1][0]}{fixed[2]}")))
        return ZoneInfo(tz)
    except (LookupError, ValueError, TypeError, OSError) as error:
        raise DataError(
            f"{setting('tz', shown(tz))} is not a known time zone; use a name such as America/New_York or UTC"
            f"{hint(str(tz), sorted(available_timezones()))}"
        ) from error


def common_zone(zones: Iterable[str | None]) -> str | None:
    """Return the zone that all of these are, or None, which is UTC, where they differ."""
    distinct = {zone or "UTC" for zone in zones}
    return distinct.pop() if len(distinct) == 1 and distinct != {"UTC"} else None


def wall_clock(times: np.ndarray, tz: str | None) -> np.ndarray:
    """Convert UTC times to local times.

    Local times are not always increasing: an hour repeats where the clocks are set back. In some years of some zones
    the repeated hour crosses midnight.

    Args:
        times: [T] datetime64[ns], UTC.
        tz: name of the zone. None is UTC.

    Returns:
        [T] datetime64[ns] without a zone, as a clock in `tz` shows them.

    Raises:
        DataError: `tz` is unknown.
    """
    if tz is None or tz == "UTC":
        return times
    import pandas as pd

    local = pd.DatetimeIndex(times, tz="UTC").tz_convert(time_zone(tz))
    return local.tz_localize(None).to_numpy().astype("datetime64[ns]")


def union(calendars: Sequence[np.ndarray]) -> np.ndarray:
    """Return the distinct times of calendars, each in increasing order, from the first to the last."""
    if len(calendars) == 1:
        return calendars[0]
    # The stable sort takes what is in order already in one pass. np.unique would hash every time.
    times = np.sort(np.concatenate(calendars), kind="stable")
    return times[np.append(True, times[1:] != times[:-1])] if len(times) else times


def time_of_day(local: np.ndarray) -> np.ndarray:
    """Return the time since midnight of local times [T], as timedelta64[ns] [T]."""
    return local - local.astype("datetime64[D]")


def day_of_week(local: np.ndarray) -> np.ndarray:
    """Return the weekday of local times [T], from 0 for Monday to 6 for Sunday."""
    return (local.astype("datetime64[D]").astype(np.int64) + 3) % 7


def spans_a_year(times: np.ndarray) -> bool:
    """Return whether times [T] span 365 days or more."""
    return bool(times[-1] - times[0] >= np.timedelta64(365, "D"))
