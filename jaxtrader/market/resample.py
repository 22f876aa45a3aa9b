"""Builds bars of a longer time frame from shorter ones, without looking ahead.

A coarse bar covers the closes in (start, end]. It is complete at the first bar that closes at `end` or later, even if
that bar lies in a later frame. Only complete coarse bars are used.
"""

import dataclasses
import re

import numpy as np

from jaxtrader.market.bar_checks import format_duration, spacing
from jaxtrader.market.bars import Bars
from jaxtrader.market.clock import DAY, TICK, time_zone, wall_clock
from jaxtrader.market.errors import DataError

UNITS = {"min": np.timedelta64(60 * 10**9, "ns"), "h": np.timedelta64(3600 * 10**9, "ns"), "d": DAY, "w": 7 * DAY}
PATTERN = r"(\d+)(min|h|d|w)(?:@([^:]+))?"
MONDAY = np.datetime64("1970-01-05", "ns")


@dataclasses.dataclass(frozen=True)
class TimeFrame:
    """A bar length: minutes or hours that divide a UTC day, or a day or week on the wall clock of a zone.

    Attributes:
        text: the frame as the user wrote it: "15min", "4h", "1d", "1w" or "1d@America/New_York".
        length: length of a coarse bar. A local day may last 23 or 25 hours.
        tz: zone of the days and weeks. None is the zone of the bars.
    """

    text: str
    length: np.timedelta64
    tz: str | None

    @classmethod
    def parse(cls, text: str) -> "TimeFrame":
        """Parse a frame. Raise DataError if its length is not supported or its zone is unknown."""
        match = re.fullmatch(PATTERN, text) if isinstance(text, str) else None
        length = int(match[1]) * UNITS[match[2]] if match else UNITS["min"] * 0
        divides_day = TICK <= length < DAY and DAY % length == 0 * TICK
        if match is None or not (divides_day or length in (DAY, 7 * DAY)):
            raise DataError(
                f"The frame '{text}' is not supported; use a number of minutes or hours that divides a day, such as "
                "'15min' or '4h', or '1d' or '1w'"
            )
        time_zone(match[3])
        return cls(text, length, match[3])

    def check_longer_than(self, bars: Bars) -> None:
        """Raise DataError unless the frame is longer than the spacing of `bars`."""
        if len(bars) > 1 and (step := spacing(bars.times)) >= self.length:
            raise DataError(
                f"{self.text} is not longer than the bars of {','.join(bars.symbols)}, one every "
                f"{format_duration(step)}; use a longer frame, or the feature without a frame"
            )

    def frame_numbers(self, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
        """Number the frames.

        A daily or longer bar whose time is midnight belongs to the day that begins then, because such a time is the
        date of the bar.

        Returns:
            The number of the frame that contains each bar [T], and of the last frame that is complete at its close [T].
        """
        local = bars.times if self.length < DAY else wall_clock(bars.times, self.tz or bars.tz)
        elapsed = local - MONDAY
        inside = elapsed - TICK
        if len(bars) > 1 and spacing(bars.times) >= DAY:
            inside = np.where(elapsed % DAY == 0 * TICK, elapsed, inside)
        numbers, complete = inside // self.length, np.maximum.accumulate(elapsed // self.length - 1)
        # Where clocks are set back over midnight, a bar must not return to a day that is complete.
        numbers[1:] = np.maximum(numbers[1:], complete[:-1] + 1)
        return numbers, complete


def max_bars_per_frame(frame: TimeFrame, bars: Bars) -> int:
    """Return the largest number of bars in one frame."""
    numbers, _ = frame.frame_numbers(bars)
    return int(np.unique(numbers, return_counts=True)[1].max())


def resample(bars: Bars, frame: TimeFrame) -> tuple[Bars, np.ndarray]:
    """Aggregate bars to a longer frame.

    The first coarse bar is left out, because `bars` may begin in the middle of it. A frame without bars gives no coarse
    bar.

    Returns:
        The coarse bars, and the index of the last coarse bar that is complete at each bar [T], -1 before the first.
    """
    numbers, complete = frame.frame_numbers(bars)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))[1:]
    lasts = np.append(starts[1:], len(bars)) - 1 if starts.size else starts
    latest = np.searchsorted(numbers[starts], complete, side="right") - 1

    def aggregate(values: np.ndarray, function: np.ufunc) -> np.ndarray:
        return function.reduceat(values, starts, axis=0) if starts.size else values[:0]

    coarse = dataclasses.replace(
        bars,
        times=bars.times[lasts],
        open=bars.open[starts],
        high=aggregate(bars.high, np.maximum),
        low=aggregate(bars.low, np.minimum),
        close=bars.close[lasts],
        volume=aggregate(bars.volume, np.add),
        columns={name: values[lasts] for name, values in bars.columns.items()},
        funding=None if bars.funding is None else aggregate(bars.funding, np.add),
        price_factor=None if bars.price_factor is None else bars.price_factor[lasts],
    )
    return coarse, latest
