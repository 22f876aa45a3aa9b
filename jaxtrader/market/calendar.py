"""Finds from the timestamps of a history when it trades: its weekdays, its sessions, and its bars in a year.

Bars a year are bars a session times sessions a year. Both are typical values, so that a hole in the file, a half day
or a bar cut off at either end does not change them. A session is what is traded between two nights. It may begin
before midnight. A market without a night, such as currencies, has one session a day.

Sessions a year follow from the weekdays on which bars lie: 365 for all seven, else what a year of data shows. That is
252 for a stock exchange, and 260 for five days a week without holidays. Less than a year of data shows too few
holidays, so 252 is taken there, or 260 for a market that trades day and night. What the file is too short to tell is
said in `TradingCalendar.doubt`.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from jaxtrader.market.bar_checks import format_duration, format_time, spacing
from jaxtrader.market.clock import DAY, HOUR, day_of_week, time_of_day, union, wall_clock

FEW_BARS = 2000
MIN_CLOSURE = 3 * HOUR  # longer than a lunch break, shorter than a night
SHORTEST_DAY = 20 * HOUR  # a day is 23 hours long where clocks are set forward
SLOT = np.timedelta64(30, "m")
SLOTS = 48  # a day
# A day of a market that never closes is full within this share of 24 hours. In autumn it has 25, and a week of
# currencies that ends within a UTC day takes some bars off.
FULL_DAY = (0.97, 1.06)
MAX_SINGLE_SESSION = 16 * HOUR  # stocks trade so long at most, with the hours before and after the exchange's own
SHORTEST_SESSION = np.timedelta64(225, "m")  # whole sessions of stocks last 4 hours and more
SHORT_SPAN = 28  # days in which each weekday comes too rarely to be counted
MIN_YEAR = 0.95  # of data that show how many holidays there are
EXCHANGE, CURRENCIES, EVERY_DAY = 252, 260, 365  # sessions a year
WEEKS = 365.25 / 7
MAX_HOLIDAYS = 8  # open days in a row: the longest holidays of an exchange. What is longer is a hole in the file.
USUAL = ((247, 257, EXCHANGE), (257, 263, CURRENCIES), (358, 366, EVERY_DAY))
# (shortest, longest median step in days, periods a year)
LONG_BARS = ((6.5, 7.5, 52), (27.5, 31.5, 12), (89, 92.5, 4), (364, 367, 1))
WEEK_IS_UNSEEN = "The bars do not show a whole week, too little to tell on which days there is trading"
SETTLE = "`periods_per_year` settles it"


@dataclasses.dataclass(frozen=True, eq=False)
class TradingCalendar:
    """When a history trades.

    Attributes:
        bar: the usual step between two bars.
        bars_per_session: the usual number of bars a session, 1 for daily and longer bars.
        sessions_per_year: number of sessions a year. For bars longer than a day it is the number of bars.
        weekdays: [7] bool, days with sessions, from Monday. A session that begins in the evening is of the next day.
        open_slots: [48] bool, half-hours of the wall clock in which bars close. None for daily and longer bars.
        closures: [K] timedelta64, time of day of the middle of each daily closure of 3 hours or more.
        doubt: what the file is too short to tell, one sentence, or None.
    """

    bar: np.timedelta64
    bars_per_session: float
    sessions_per_year: float
    weekdays: np.ndarray
    open_slots: np.ndarray | None
    closures: np.ndarray
    doubt: str | None

    @property
    def periods_per_year(self) -> float:
        """Number of bars in a year."""
        return float(self.bars_per_session * self.sessions_per_year)

    @property
    def closes(self) -> bool:
        """Whether the market shuts at night or on some weekdays."""
        return bool(self.closures.size) or not self.weekdays.all()

    def describe(self) -> str:
        """Describe the number of bars in a year: "98,280 periods a year (252 sessions of 390 bars)"."""
        text = f"{self.periods_per_year:,.6g} periods a year"
        if self.bars_per_session == 1:
            return text
        return f"{text} ({self.sessions_per_year:,.6g} sessions of {self.bars_per_session:,.6g} bars)"


def find_calendar(times: np.ndarray, tz: str | None, *, daily: bool = False) -> TradingCalendar:
    """Find the calendar of a history.

    Args:
        times: [T] datetime64[ns], UTC, the close of each bar, increasing. T is at least 2.
        tz: zone of the wall clock of sessions and weekdays. None is UTC.
        daily: these are the times of several assets with bars of a day or longer, which may close at various times of
            the day. So they are not the bars of a session.
    """
    if len(times) > FEW_BARS:
        return _found(times, tz, daily=daily)
    return _found_once(times.astype("datetime64[ns]").tobytes(), tz, daily)  # of thousands of symbols, many share it


@functools.lru_cache(maxsize=128)
def _found_once(times: bytes, tz: str | None, daily: bool) -> TradingCalendar:
    return _found(np.frombuffer(times, "datetime64[ns]"), tz, daily=daily)


def _found(times: np.ndarray, tz: str | None, *, daily: bool) -> TradingCalendar:
    bar = spacing(times)
    if daily:
        bar = max(bar, DAY)
    if bar < SHORTEST_DAY:
        return _of_intraday_bars(times, bar, tz)
    dates = np.unique(wall_clock(times, tz).astype("datetime64[D]"))
    steps = np.diff(dates).astype(np.int64)
    if not _is_daily(dates):
        weekdays = np.zeros(7, bool)
        weekdays[day_of_week(dates)] = True
        return TradingCalendar(bar, 1, _long_bars_per_year(steps), weekdays, None, np.array([], bar.dtype), None)
    weekdays, week_is_seen = _open_weekdays(dates, (dates[0], dates[-1]), daily=True, day_and_night=False)
    sessions, holidays_are_seen = _sessions_per_year(dates, weekdays, day_and_night=False)
    doubt = None
    if not week_is_seen:
        doubt = _weekdays_doubt(sessions, 1)
    elif weekdays.sum() == 5 and not holidays_are_seen:
        doubt = (
            f"No working day is missing in less than a year, so this may be an exchange ({EXCHANGE} sessions a year) "
            f"or currencies ({CURRENCIES}): {sessions:,.6g} is taken; {SETTLE}."
        )
    # Several assets may close at various times of a day. Where clocks change at midnight, two closes may share a date.
    bars = 1 if len(dates) == len(times) else len(times) / len(dates)
    return TradingCalendar(bar, bars, sessions, weekdays, None, np.array([], bar.dtype), doubt)


def total_periods_per_year(calendars: Sequence[np.ndarray], periods: Sequence[float], tz: str | None) -> float:
    """Return the bars in a year of the union of several histories.

    Histories that share their number of bars a year, and nearly all times where they overlap, keep that number.

    Args:
        calendars: times of each history, datetime64[ns], increasing.
        periods: bars in a year of each history.
        tz: zone of their wall clock. None is UTC.
    """
    together = union(calendars)
    if len(set(periods)) == 1:
        first = np.searchsorted(together, [times[0] for times in calendars])
        last = np.searchsorted(together, [times[-1] for times in calendars])
        if all(len(times) >= 0.98 * (b - a + 1) for times, a, b in zip(calendars, first, last, strict=True)):
            return float(periods[0])
    return find_calendar(together, tz).periods_per_year if len(together) > 1 else float(max(periods))


def gap_note(times: np.ndarray, tz: str | None, calendar: TradingCalendar | None = None) -> str | None:
    """Describe the gaps in `times` [T], which show the wall clock of `tz`, or return None without any.

    `calendar` is theirs, if it is known already.

    A gap is a step of more than 1.5 times the usual one. In a market that closes, lunch breaks and steps of 6 hours to
    4.5 days, which are nights, weekends and holidays, are no gaps.
    """
    if len(times) < 3:
        return None
    calendar = calendar or find_calendar(times, tz)
    steps, regular = np.diff(times), calendar.bar
    long = steps > regular * 3 // 2
    closes = calendar.closes and regular <= DAY
    if closes:
        long &= (steps < 6 * HOUR) | (steps > 108 * HOUR)
        at = np.flatnonzero(long & (steps < 6 * HOUR))
        if calendar.open_slots is not None and at.size:
            middle = wall_clock(times[at] + (steps[at] - regular) // 2, tz)
            long[at] = calendar.open_slots[time_of_day(middle) // SLOT]
    if not long.any():
        return None
    at = int(np.argmax(np.where(long, steps, np.timedelta64(0, "ns"))))
    count = int(long.sum())
    kind = "beyond nights, weekends and holidays " if closes else ""
    return (
        f"{count:,} gap{'s' * (count > 1)} {kind}(the usual spacing is {format_duration(regular)}); the largest is "
        f"{format_duration(steps[at])}, after {format_time(wall_clock(times[at : at + 1], tz)[0])}; nothing was filled."
    )


# --- bars of a day and longer ---


def _is_daily(dates: np.ndarray) -> bool:
    """Whether bars on these dates [N] are daily: most steps are a day, or a working day without any weekend."""
    steps = np.diff(dates).astype(np.int64)
    if not steps.size or np.bincount(steps).argmax() == 1:
        return True
    working_days = np.busday_count(dates[:-1], dates[1:])
    return bool((day_of_week(dates) < 5).all() and np.bincount(working_days).argmax() == 1)


def _long_bars_per_year(steps: np.ndarray) -> float:
    """Return the number of bars in a year for steps [N] in days, without the holes in the file."""
    median = float(np.median(steps))
    every_four_weeks = len(steps) > 2 and (steps == 28).all()  # no three months in a row have 28 days
    for shortest, longest, periods in LONG_BARS:
        if shortest <= median <= longest and not every_four_weeks:
            return periods
    return float(365.25 / steps[steps <= 10 * median].mean())


# --- bars within a day ---


def _of_intraday_bars(times: np.ndarray, bar: np.timedelta64, tz: str | None) -> TradingCalendar:
    numbers = (times - np.timedelta64(1, "ns")).astype(np.int64) // SLOT.astype("timedelta64[ns]").astype(np.int64)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    bars = np.diff(starts, append=len(times))
    local = wall_clock(numbers[starts] * SLOT + np.datetime64(0, "ns"), tz)
    slots = local.astype(np.int64) // SLOT.astype("timedelta64[ns]").astype(np.int64)
    open_slots, closures, open_time = _daily_closures(slots, bar)
    boundary = _day_boundary(slots, closures)
    days = (slots - boundary) // SLOTS
    counts = np.bincount(days - days.min(), bars).astype(np.int64)
    first_date = (days.min() + (boundary >= SLOTS // 2)).astype("datetime64[D]")  # the day of its middle
    span = first_date, first_date + len(counts) - 1
    numbers_of_days = np.flatnonzero(counts >= max(1, _upper_median(counts[counts > 0]) / 4))
    dates, counts = first_date + numbers_of_days, counts[numbers_of_days]
    # One long day is of a market that never closes, unless it rests within, as between a night session and the day.
    is_long = len(dates) == 1 and (np.ptp(slots) + 1) * SLOT > MAX_SINGLE_SESSION
    if is_long and np.diff(times).max() < bar + MIN_CLOSURE:
        closures = closures[:0]
    day_and_night = not closures.size
    weekdays, week_is_seen = _open_weekdays(dates, span, daily=False, day_and_night=day_and_night)
    sessions, _ = _sessions_per_year(dates, weekdays, day_and_night=day_and_night)
    if day_and_night and len(dates) < 3:
        per_session = _density(times) * (DAY / bar)
    else:
        per_session = _bars_per_session(dates, counts, weekdays)
    # A short file with holes may have few full days of one weekday, and many in all.
    if day_and_night and any(
        FULL_DAY[0] <= one * bar / DAY <= FULL_DAY[1] for one in (per_session, _upper_median(counts))
    ):
        per_session = DAY / bar
    doubt = None if week_is_seen else _weekdays_doubt(sessions, per_session)
    if closures.size and open_time < SHORTEST_SESSION:
        firsts = starts[np.unique(days, return_index=True)[1]]
        lasts = np.append(firsts[1:], len(times)) - 1
        covered = min(open_time, np.sort(times[lasts] - times[firsts])[len(firsts) // 2] + bar)
        doubt = _session_doubt(covered, sessions, per_session) + (f" {WEEK_IS_UNSEEN}." if doubt else "")
    return TradingCalendar(bar, per_session, sessions, weekdays, open_slots, closures, doubt)


def _daily_closures(slots: np.ndarray, bar: np.timedelta64) -> tuple[np.ndarray, np.ndarray, np.timedelta64]:
    """Find when the market is shut each day.

    Returns:
        The half-hours of the day in which bars close [48], the time of day of each closure's middle, and how long the
        market is open in a day.
    """
    on_days = np.bincount(slots % SLOTS, minlength=SLOTS)
    open_slots = on_days >= max(1, 0.05 * on_days.max())  # some prints at odd hours open no market
    start = int(np.argmax(open_slots))
    covered = max(bar / SLOT, 1)  # half-hours of a bar, of which its close is in the last
    middles, open_time = [], DAY
    for first, last in _runs(~np.roll(open_slots, -start)):
        length = np.timedelta64(round((last - first + 1 - covered) * 30), "m")
        if length >= MIN_CLOSURE:
            middles.append(((start + first) * SLOT + length // 2) % DAY)
            open_time = open_time - length
    return open_slots, np.array(middles, "timedelta64[ns]"), open_time


def _day_boundary(slots: np.ndarray, closures: np.ndarray) -> int:
    """Return the half-hour of the day at which the days begin that cut the fewest sessions in two.

    It lies in a daily closure. Without one it is the hour of the weekly close of currencies.
    """
    candidates = np.unique(closures // SLOT).astype(np.int64) if closures.size else np.arange(SLOTS)
    days = np.array([np.count_nonzero(np.diff((slots - first) // SLOTS)) for first in candidates])
    return int(candidates[np.argmin(days)])


def _density(times: np.ndarray) -> float:
    """Return the share of possible bars that exist, for a market that never closes, without the holes in the file."""
    steps = np.diff(times)
    kept = steps[steps <= 10 * np.sort(steps)[len(steps) // 2]]
    return float(len(kept) * spacing(times) / kept.sum())


def _bars_per_session(dates: np.ndarray, counts: np.ndarray, weekdays: np.ndarray) -> float:
    """Return the usual number of bars in the sessions of some dates, with `counts` bars each.

    The first session and the last may be cut off. They count where they are not shorter than others.
    """
    if len(counts) < 3:
        return float(counts.max())
    usual = _upper_median(counts[1:-1])
    kept = np.ones(len(counts), bool)
    kept[[0, -1]] = counts[[0, -1]] >= usual
    dates, counts = dates[kept], counts[kept]
    by_weekday = [counts[day_of_week(dates) == day] for day in np.flatnonzero(weekdays)]
    if min(map(len, by_weekday)) < 3:
        return _typical(counts)
    return float(np.mean([_typical(own) for own in by_weekday]))


def _typical(counts: np.ndarray) -> float:
    """Return the usual one of some counts, or their mean where none is usual: a thin stock has no full session."""
    median = _upper_median(counts)
    return float(median) if np.mean(counts == median) >= 0.5 else float(counts.mean())


# --- sessions a year ---


def _open_weekdays(
    dates: np.ndarray, span: tuple[np.datetime64, np.datetime64], *, daily: bool, day_and_night: bool
) -> tuple[np.ndarray, bool]:
    """Return the weekdays with sessions [7], and whether the dates show them.

    Args:
        dates: [N] dates of the sessions, increasing.
        span: the first date and the last, which may have too few bars for a session.
        daily: whether the bars are daily, so that the hours of trading are not known.
        day_and_night: whether the market has no night.
    """
    counts = np.bincount(day_of_week(dates), minlength=7)
    if span[1] - span[0] >= np.timedelta64(SHORT_SPAN, "D"):
        return counts >= 0.4 * counts.max(), True
    times = np.bincount(day_of_week(np.arange(span[0], span[1] + 1)), minlength=7)
    spanned = times > 0
    weekdays = counts > 0
    if not weekdays[5:].any():
        week_is_seen = bool(spanned[5:].all())
        if day_and_night and not week_is_seen and not weekdays[:5].all():
            weekdays[5:] = True
        weekdays[:5] = True  # a missing Thursday is a holiday
        return weekdays, week_is_seen
    closed = spanned & ~weekdays
    if closed.sum() >= 2:
        weekdays |= ~spanned
    elif (daily or day_and_night) and not (times[closed] > 1).any():  # else it is shut each week: no hole
        weekdays[:] = True
    elif not spanned.all():
        # An exchange that opens on Saturdays rests on the two days before. One that opens on Sundays does so, too.
        weekdays[:] = True
        weekdays[[3, 4] if counts[5] else [4, 5]] = False
    return weekdays, bool(spanned.all())


def _sessions_per_year(dates: np.ndarray, weekdays: np.ndarray, *, day_and_night: bool) -> tuple[float, bool]:
    """Return the number of sessions in a year, and whether the dates show how many holidays there are.

    Args:
        dates: [N] dates of the sessions, increasing.
        weekdays: [7] days with sessions.
        day_and_night: whether the market has no night.
    """
    num_open = int(weekdays.sum())
    if dates[-1] - dates[0] < np.timedelta64(SHORT_SPAN, "D"):
        num_open = max(num_open, 5)  # a holiday hides its weekday
    missing = np.busday_count(dates[:-1] + 1, dates[1:], weekmask=weekdays) if len(dates) > 1 else np.zeros(1, np.int64)
    holidays = missing[missing <= max(MAX_HOLIDAYS, 20 * np.median(missing))].sum()
    gaps = int((missing > 0).sum())
    unbroken = 1 - gaps / len(missing)  # share of sessions that are followed by one on the next open day
    thin = gaps >= 5 and unbroken < 0.9  # bars are missing at random, not in a few holes
    years = (len(dates) + holidays) / (num_open * WEEKS)
    if num_open == 7:
        sessions = EVERY_DAY * (unbroken if thin else 1.0)
    elif years >= MIN_YEAR or thin:
        sessions = num_open * WEEKS * len(dates) / (len(dates) + holidays)
    else:
        sessions = num_open / 5 * (CURRENCIES if day_and_night or num_open > 5 else EXCHANGE)
    usual = next((usual for low, high, usual in USUAL if low <= sessions <= high), sessions)
    return float(usual), years >= MIN_YEAR or gaps > 0


def _weekdays_doubt(sessions: float, bars: float) -> str:
    of_bars = "" if bars == 1 else f" of {bars:,.6g} bars"
    return f"{WEEK_IS_UNSEEN}: {sessions:,.6g} sessions{of_bars} a year are taken; {SETTLE}."


def _session_doubt(open_time: np.timedelta64, sessions: float, bars: float) -> str:
    return (
        f"The bars of a day cover {format_duration(open_time)}, which may be a part of a session and is taken for a "
        f"whole one: {sessions:,.6g} sessions of {bars:,.6g} bars a year; {SETTLE}."
    )


def _upper_median(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.5, method="higher"))


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return the (start, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
