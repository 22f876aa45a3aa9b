"""Finds the last bar of each trading session of intraday bars, from the times alone.

This is no look-ahead, although it reads the time of the next bar: the calendar of an exchange is public.
"""

import numpy as np

from jaxtrader.market.bar_checks import spacing
from jaxtrader.market.clock import DAY, time_of_day, wall_clock

MIN_CLOSURE = np.timedelta64(3, "h")  # longer than a lunch break, shorter than a night
MAX_OPEN_SHARE = 0.9  # a market that trades around the clock fills all of the calendar except for outages
WEEK = 7 * DAY


def session_ends(times: np.ndarray, tz: str | None) -> np.ndarray | None:
    """Mark the last bar of each trading session.

    A session ends where no bar covers the next 3 hours. That is the end of the day on a stock exchange, and the end of
    the week in currencies. A lunch break ends no session. A halt or missing bars of 3 hours end one too, because only a
    calendar could tell them from a half day.

    A market has sessions if it closes at least about once a week and its bars cover at most 90% of the calendar.
    Nothing follows the last bar. It ends a session if its time of day is the one at which most sessions end.

    Args:
        times: [T] closes, datetime64[ns], UTC.
        tz: zone of the time of day. None is UTC.

    Returns:
        [T] bool. None for bars of a day or longer, and for markets without sessions.
    """
    if len(times) < 3:
        return None
    bar = spacing(times)
    if bar >= DAY:
        return None
    closed = np.diff(times) - bar >= MIN_CLOSURE
    span = times[-1] - times[0] + bar
    closes_weekly = closed.sum() >= max(1, 0.8 * (span // WEEK))
    if not closes_weekly or len(times) * bar > MAX_OPEN_SHARE * span:
        return None
    closing_times = time_of_day(wall_clock(times, tz))
    usual, counts = np.unique(closing_times[:-1][closed], return_counts=True)
    return np.append(closed, closing_times[-1] == usual[np.argmax(counts)])
