"""Finds the last bar of each trading session of intraday bars, from the times alone.

This is no look-ahead, although it reads the time of the next bar: the calendar of an exchange is public.
"""

import numpy as np

from jaxtrader.market.calendar import MIN_CLOSURE, SHORTEST_DAY, TradingCalendar
from jaxtrader.market.clock import DAY, time_of_day, wall_clock


def session_ends(times: np.ndarray, calendar: TradingCalendar | None, tz: str | None) -> np.ndarray | None:
    """Mark the last bar of each trading session.

    A session ends where the market shuts for its night, also where it does so early. A lunch break, a halt or missing
    bars end no session. A market without a night, such as currencies, has one session a week. It ends where no bar
    covers the next day.

    Nothing follows the last bar. It ends a session if its time of day is the one at which most sessions end.

    Args:
        times: [T] closes, datetime64[ns], UTC.
        calendar: the calendar of these times. None where there are too few for one.
        tz: zone of the time of day. None is UTC.

    Returns:
        [T] bool. None for bars of a day or longer, for markets without sessions, and where no second session is seen.
    """
    if calendar is None or calendar.bar >= SHORTEST_DAY or not calendar.closes:
        return None
    local = wall_clock(times, tz)
    idle = np.diff(times) - calendar.bar
    if calendar.closures.size:
        # The middle of a closure lies between the two bars. That of a half day does too.
        days = [(local - middle).astype("datetime64[D]") for middle in calendar.closures]
        ends = (idle >= MIN_CLOSURE) & np.any([np.diff(each) > np.timedelta64(0, "D") for each in days], axis=0)
    else:
        ends = idle >= DAY
    if not ends.any():
        return None
    closing_times = time_of_day(local)
    usual, counts = np.unique(closing_times[:-1][ends], return_counts=True)
    return np.append(ends, closing_times[-1] == usual[np.argmax(counts)])
