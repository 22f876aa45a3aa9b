"""When the next bar is due, and whether the time of a bar is one that the history leads to expect.

What is usual is measured in the history: its spacing, the half-hours of the week in which its bars close, and the gaps
that it has itself. Nights, weekends and holidays are no gaps.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np

from jaxtrader.market.bar_checks import format_duration, format_time
from jaxtrader.market.calendar import SHORT_SPAN, SHORTEST_DAY, SLOT, SLOTS, TradingCalendar, find_calendar
from jaxtrader.market.clock import DAY, TICK, time_of_day, wall_clock
from jaxtrader.schema import Array, Natural, Range

WEEK_SLOTS = 7 * SLOTS
MOST_MISSING = 50_000  # bars that are looked at between two times
MOST_GAPS = 2_000  # long steps of a history that are looked at, the last ones
LONGEST_CLOSURE = np.timedelta64(108, "h")  # as `calendar.gap_note` has it
SHORT, LONG = 0.75, 1.5  # of the usual step
CLOCK_CHANGE = np.timedelta64(1, "h")
HOLIDAYS = 2  # working days without a bar, in a row, in a market that closes
WAY_OUT = "give the bars between first, or say after_gap=True if there were none"


Nanoseconds = Annotated[int, Range(-(2**63), 2**63 - 1)]
Duration = Annotated[int, Range(1, 2**63 - 1)]  # ns
Flags = Annotated[np.ndarray, Array("bool", 1)]


@dataclasses.dataclass
class Schedule:
    """What the steps of a history show. The file of a live account holds these fields.

    Attributes:
        bar: the usual step, ns.
        shortest: the shortest step, ns.
        longest: the longest step, ns.
        open_slots: [336] half-hours of the week from Monday on the wall clock in which bars are made. For bars of a day
            or longer, all half-hours of the days that have bars.
        closes: whether the market shuts at night or on some weekdays.
        missing: the most bars that were missing before a bar, within its session.
        short_run, long_run: the most short steps in a row, and the most bars in a row with bars missing before them.
        run: the short steps (below 0) or bars after missing ones (above 0) that the last times made in a row.
        tz: zone of the wall clock. None is UTC.
    """

    bar: Duration
    shortest: Duration
    longest: Duration
    open_slots: Flags
    closes: bool
    missing: Natural
    short_run: Natural
    long_run: Natural
    run: Nanoseconds
    tz: str | None

    @classmethod
    def of(cls, times: np.ndarray, tz: str | None) -> Schedule:
        """Return what is usual at `times` [T], datetime64[ns] in UTC, T >= 2."""
        calendar = find_calendar(times, tz)
        bar, steps = calendar.bar, np.diff(times)
        kinds = _kinds(steps, bar)
        schedule = cls(
            bar=int(bar.astype(np.int64)),
            shortest=int(steps.min().astype(np.int64)),
            longest=int(steps.max().astype(np.int64)),
            open_slots=_open_slots(times, calendar, tz),
            closes=calendar.closes and bool(bar <= DAY),
            missing=0,
            short_run=_longest_run(kinds < 0),
            long_run=0,
            run=0,
            tz=tz,
        )
        after_missing = np.zeros(len(steps), bool)
        for i in np.flatnonzero(kinds > 0)[-MOST_GAPS:]:
            missing, _ = schedule._missing_before(times[i], times[i + 1])
            schedule.missing = max(schedule.missing, missing)
            after_missing[i] = missing > 0
        schedule.long_run = _longest_run(after_missing)
        return schedule

    def check(self, last: np.datetime64, time: np.datetime64, symbol: str, after_gap: bool = False) -> int:
        """Return the `run` after a bar at `time`.

        Raises:
            ValueError: the bar cannot follow the one at `last`.
        """
        step = int((time - last).astype("timedelta64[ns]").astype(np.int64))
        if SHORT * self.bar <= step <= LONG * self.bar or (after_gap and step > 0):
            return 0
        shown, before = self.shown(time), self.shown(last)
        if step <= 0:
            fault = "came already" if step == 0 else f"is older than the last one, of {before}"
            raise ValueError(f"the bar of {symbol} at {shown} {fault}; give each bar once, from old to new")
        usual = f"the history has one every {format_duration(np.timedelta64(self.bar, 'ns'))}"
        after = f"the bar of {symbol} at {shown} is {format_duration(np.timedelta64(step, 'ns'))} after the last one"
        if step < SHORT * self.bar:
            run = min(self.run, 0) - 1
            if step < 0.9 * self.shortest or -run > self.short_run:
                raise ValueError(f"{after}, and {usual}; give bars of that spacing")
            return run
        missing, is_late_open = self._missing_before(last, time)
        allowed = max(self.missing, HOLIDAYS if self.closes and self.bar >= nanoseconds_of(SHORTEST_DAY) else 0)
        if is_late_open and self.tz is None:  # in UTC a session begins later where clocks are set back
            allowed = max(allowed, self.missing + int(np.ceil(CLOCK_CHANGE / np.timedelta64(self.bar, "ns"))))
        if missing > allowed:
            few = "1 bar is" if missing == 1 else f"{missing:,} bars are"
            # Only those of its own session are counted.
            few = f"at least {few}" if is_late_open and missing * self.bar < step // 2 else few
            raise ValueError(f"{after}, and {usual}: {few} missing; {WAY_OUT}")
        if self.closes and step > max(nanoseconds_of(LONGEST_CLOSURE), self.longest):
            longest = format_duration(np.timedelta64(self.longest, "ns"))
            raise ValueError(f"{after}, and the longest pause of the history is {longest}; {WAY_OUT}")
        run = max(self.run, 0) + 1 if missing else 0
        if run > max(self.long_run, 1):
            raise ValueError(f"{after}, and {usual}: bars are missing {run} times in a row; give bars of that spacing")
        return run

    def next_bar_time(self, last: np.datetime64) -> np.datetime64:
        """Return when the bar after the one at `last` should close, by the half-hours of the week."""
        bar = np.timedelta64(self.bar, "ns")
        count = int(min(LONGEST_CLOSURE // bar + 2, MOST_MISSING))
        candidates = last + bar * np.arange(1, count + 1)
        is_open = self._is_open(candidates)
        return candidates[int(np.argmax(is_open))] if is_open.any() else candidates[0]

    def shown(self, time: np.datetime64) -> str:
        """Return a time as the wall clock shows it."""
        return format_time(wall_clock(np.array([time]), self.tz)[0])

    def _missing_before(self, last: np.datetime64, time: np.datetime64) -> tuple[int, bool]:
        """Return how many bars are missing before `time`, within its session, and whether the session began after
        `last`."""
        bar = np.timedelta64(self.bar, "ns")
        count = int(min((time - last) / bar - 0.5, MOST_MISSING))
        candidates = time - bar * np.arange(1, count + 1)
        is_open = self._is_open(candidates)
        if is_open.all():
            return count, False
        return int(np.argmin(is_open)), True

    def _is_open(self, times: np.ndarray) -> np.ndarray:
        """Whether bars are made at these times."""
        tick = TICK if self.bar < nanoseconds_of(SHORTEST_DAY) else 0 * TICK
        return self.open_slots[_slots(wall_clock(times, self.tz), tick)]


def _open_slots(times: np.ndarray, calendar: TradingCalendar, tz: str | None) -> np.ndarray:
    """The half-hours of the week [336] in which bars are made."""
    if not calendar.closes or calendar.bar > DAY + CLOCK_CHANGE:
        return np.ones(WEEK_SLOTS, bool)
    if calendar.bar >= SHORTEST_DAY:
        return np.repeat(calendar.weekdays, SLOTS)
    counts = np.bincount(_slots(wall_clock(times, tz), TICK), minlength=WEEK_SLOTS)
    if times[-1] - times[0] >= np.timedelta64(SHORT_SPAN, "D"):
        seen = counts >= max(1, 0.05 * counts.max())
    else:  # a half-hour of the week comes too rarely to be counted
        seen = (calendar.weekdays[:, None] & (counts.reshape(7, SLOTS).sum(0) > 0)).ravel()
    # A bar of an hour is made in the half-hour before that of its close, too.
    return np.any([np.roll(seen, -k) for k in range(max(1, int(calendar.bar // SLOT)))], axis=0)


def usual_close(times: np.ndarray, ends: np.ndarray, tz: str | None) -> int:
    """Return the time of day, in ns, at which most sessions end. `ends` [T] marks their last bars."""
    at, counts = np.unique(time_of_day(wall_clock(times[ends], tz)), return_counts=True)
    return nanoseconds_of(at[np.argmax(counts)])


def nanoseconds_of(time: np.datetime64 | np.timedelta64) -> int:
    """Return a time as ns since 1970, or a duration in ns."""
    unit = "datetime64[ns]" if isinstance(time, np.datetime64) else "timedelta64[ns]"
    return int(time.astype(unit).astype(np.int64))


def moment(ns: int) -> np.datetime64:
    """Return the time of some ns since 1970."""
    return np.datetime64(int(ns), "ns")


def _slots(local: np.ndarray, tick: np.timedelta64) -> np.ndarray:
    """The half-hour of the week, from Monday, of these local times less a tick: a bar at a full hour ends there."""
    moments = local - tick
    slots = moments.astype("datetime64[ns]").astype(np.int64) // SLOT.astype("timedelta64[ns]").astype(np.int64)
    return (slots + 3 * SLOTS) % WEEK_SLOTS  # 1970 began on a Thursday


def _kinds(steps: np.ndarray, bar: np.timedelta64) -> np.ndarray:
    """-1 for short steps, 1 for long ones, 0 for others."""
    return np.where(steps < SHORT * bar, -1, np.where(steps > LONG * bar, 1, 0))


def _longest_run(mask: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
