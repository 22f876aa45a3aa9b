"""Bars of a coarser time frame from finer ones, and at each fine bar the last coarse one that is complete.

A frame covers (start, end] of closes. It is complete at a fine bar that closes at its end or later, never before, even
if no further bar comes in it: so nothing is known of a bar that is still being made.
"""

import dataclasses
import re

import numpy as np

from jaxtrader.market.bars import Bars
from jaxtrader.market.checks import DataError, show_span, spacing
from jaxtrader.market.clock import DAY, wall_clock

UNITS = {"min": np.timedelta64(60 * 10**9, "ns"), "h": np.timedelta64(3600 * 10**9, "ns"), "d": DAY, "w": 7 * DAY}
TEXT = r"(\d+)(min|h|d|w)(?:@([^:]+))?"
TICK = np.timedelta64(1, "ns")
MONDAY = np.datetime64("1970-01-05", "ns")


@dataclasses.dataclass(frozen=True)
class Frame:
    """A length of bars: minutes or hours that divide a day, counted in UTC, or days or weeks on a zone's clock.

    Attributes:
        text: as it is written, such as "15min", "4h", "1d", "1w" or "1d@America/New_York".
        length: of a coarse bar (a day may have 23 or 25 hours).
        tz: the zone of the days and weeks; None is that of the bars.
    """

    text: str
    length: np.timedelta64
    tz: str | None

    @classmethod
    def parse(cls, text: str) -> "Frame":
        """A frame from its text; DataError for a length that is not offered and for an unknown zone."""
        match = re.fullmatch(TEXT, text)
        length = int(match[1]) * UNITS[match[2]] if match else UNITS["min"] * 0
        divides = TICK <= length < DAY and DAY % length == 0 * TICK
        if match is None or not (divides or length in (DAY, 7 * DAY)):
            raise DataError(
                f"The frame '{text}' is not possible; give a number of minutes or hours that divides a day, such as "
                "'15min' or '4h', or '1d' or '1w'."
            )
        wall_clock(np.empty(0, "datetime64[ns]"), match[3])
        return cls(text, length, match[3])

    def check_coarser(self, bars: Bars) -> None:
        """Raise DataError where the frame is not longer than these bars."""
        if len(bars) > 1 and (own := spacing(bars.times)) >= self.length:
            raise DataError(
                f"{self.text} is not longer than the bars of {','.join(bars.symbols)}, one every {show_span(own)}; "
                "give a longer frame, or the feature without one."
            )

    def numbers(self, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
        """[T] the number of the frame in which each bar lies, and [T] of the last one complete at its close.

        Bars of a day or longer that are stamped at midnight bear their date, as files have it: the day begins there.
        """
        clock = bars.times if self.length < DAY else wall_clock(bars.times, self.tz or bars.tz)
        since = clock - MONDAY
        within = since - TICK
        if len(bars) > 1 and spacing(bars.times) >= DAY:
            within = np.where(since % DAY == 0 * TICK, since, within)
        numbers, complete = within // self.length, np.maximum.accumulate(since // self.length - 1)
        # Clocks that are put back over midnight must not put a bar back into a day that is complete.
        numbers[1:] = np.maximum(numbers[1:], complete[:-1] + 1)
        return numbers, complete


def most_bars(numbers: np.ndarray) -> int:
    """The largest count of bars in one frame."""
    return int(np.unique(numbers, return_counts=True)[1].max())


def coarsen(bars: Bars, frame: Frame) -> tuple[Bars, np.ndarray]:
    """The coarse bars, those without a bar in them left out, and [T] which of them is the last complete at each bar.

    The first is left out as well: these bars may begin in the middle of it. -1 where none is complete.
    """
    numbers, complete = frame.numbers(bars)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))[1:]
    lasts = np.append(starts[1:], len(bars)) - 1 if starts.size else starts
    latest = np.searchsorted(numbers[starts], complete, side="right") - 1

    def combine(values: np.ndarray, how: np.ufunc) -> np.ndarray:
        return how.reduceat(values, starts, axis=0) if starts.size else values[:0]

    coarse = dataclasses.replace(
        bars,
        times=bars.times[lasts],
        open=bars.open[starts],
        high=combine(bars.high, np.maximum),
        low=combine(bars.low, np.minimum),
        close=bars.close[lasts],
        volume=combine(bars.volume, np.add),
        columns={name: values[lasts] for name, values in bars.columns.items()},
        funding=None if bars.funding is None else combine(bars.funding, np.add),
        price_factor=None if bars.price_factor is None else bars.price_factor[lasts],
    )
    return coarse, latest
