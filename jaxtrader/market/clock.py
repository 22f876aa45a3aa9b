"""Converts UTC times to the wall clock of a time zone, and reads the time of day and the weekday from it."""

import numpy as np

from jaxtrader.market.errors import DataError

DAY = np.timedelta64(1, "D")


def check_time_zone(tz: str | None) -> None:
    """Raise DataError if `tz` is not the name of a time zone. None is UTC."""
    if tz is None or tz == "UTC":
        return
    import pandas as pd

    try:
        pd.DatetimeIndex([], tz="UTC").tz_convert(tz)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(
            f"tz='{tz}' is not a known time zone; use a name such as 'America/New_York' or 'UTC'."
        ) from error


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

    check_time_zone(tz)
    local = pd.DatetimeIndex(times, tz="UTC").tz_convert(tz)
    return local.tz_localize(None).to_numpy().astype("datetime64[ns]")


def time_of_day(local: np.ndarray) -> np.ndarray:
    """Return the time since midnight of local times [T], as timedelta64[ns] [T]."""
    return local - local.astype("datetime64[D]")


def day_of_week(local: np.ndarray) -> np.ndarray:
    """Return the weekday of local times [T], from 0 for Monday to 6 for Sunday."""
    return (local.astype("datetime64[D]").astype(np.int64) + 3) % 7
