"""Where the trading sessions of intraday bars end, from their times alone.

A bar ends its session where the exchange is shut after it. That is known before: the exchange's calendar is public. So
looking at the time of the next bar for it is no look into the future; prices and volume are not read.
"""

import numpy as np

from jaxtrader.market.checks import spacing
from jaxtrader.market.clock import DAY, time_of_day, wall_clock

SHUT = np.timedelta64(3, "h")  # longer than a lunch break, shorter than a night
OPEN_SHARE = 0.9  # of the calendar at most: what trades around the clock fills all of it but for outages
WEEK = 7 * DAY


def session_ends(times: np.ndarray, tz: str | None) -> np.ndarray | None:
    """[T] bool, the last bar of a session, of closes [T] in UTC; None for bars of a day or longer and 24-hour markets.

    A session ends where no bar covers the next 3 hours: at the end of a stock exchange's day (lunch breaks end none),
    at the weekend in currencies. A halt or missing bars of 3 hours within a day look the same, and end one too, though
    nobody knew of them before: only a calendar could tell them from a half day. A market has sessions if it is shut at
    least about once a week and its bars cover at most 90% of the calendar. After the last bar nothing is known: it
    ends a session if it closes at the time of day, on the clock of zone `tz`, at which most sessions end.
    """
    if len(times) < 3:
        return None
    bar = spacing(times)
    if bar >= DAY:
        return None
    shut = np.diff(times) - bar >= SHUT
    span = times[-1] - times[0] + bar
    weekly = shut.sum() >= max(1, 0.8 * (span // WEEK))
    if not weekly or len(times) * bar > OPEN_SHARE * span:
        return None
    clock = time_of_day(wall_clock(times, tz))
    usual, counts = np.unique(clock[:-1][shut], return_counts=True)
    return np.append(shut, clock[-1] == usual[np.argmax(counts)])
