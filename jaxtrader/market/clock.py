"""The wall clock of an exchange: UTC stamps as local days and times of day."""

import numpy as np

from jaxtrader.market.checks import DataError

DAY = np.timedelta64(1, "D")


def wall_clock(times: np.ndarray, tz: str | None) -> np.ndarray:
    """Stamps [T] (datetime64[ns], UTC) as the clock shows them in a zone (None: UTC); DataError for an unknown zone.

    Where clocks are put back an hour comes twice, in some years of some zones over midnight.
    """
    if tz is None or tz == "UTC":
        return times
    import pandas as pd

    try:
        local = pd.DatetimeIndex(times, tz="UTC").tz_convert(tz)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(
            f"tz='{tz}' is not a known time zone; use a name such as 'America/New_York' or 'UTC'."
        ) from error
    return local.tz_localize(None).to_numpy().astype("datetime64[ns]")


def time_of_day(clock: np.ndarray) -> np.ndarray:
    """[T] timedelta64[ns] since midnight of wall-clock times [T]."""
    return clock - clock.astype("datetime64[D]")


def day_of_week(clock: np.ndarray) -> np.ndarray:
    """[T] days since Monday, 0 to 6, of the dates of wall-clock times [T]."""
    return (clock.astype("datetime64[D]").astype(np.int64) + 3) % 7
