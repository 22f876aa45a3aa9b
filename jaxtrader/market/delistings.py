"""Finds when an asset counts as delisted: it has had no bar for long, while others had (money rule 9).

A row is judged by the rows up to it alone, so later bars never change it.
"""

import dataclasses
import math
from datetime import timedelta
from typing import Literal

import numpy as np

from jaxtrader.market.clock import DAY
from jaxtrader.market.errors import DataError
from jaxtrader.setting_checks import is_number, setting

# Days: an asset without a bar for longer is delisted. The longest holidays of an exchange are shorter.
DELISTED_AFTER = 14.0
MAX_SILENCE_RATIO = 3  # and so is, for a thin asset or longer bars, this multiple of its longest wait so far
# A longer step between rows, which is also far longer than any before, is a hole in the data.
HOLE = int(14 * DAY / np.timedelta64(1, "ns"))
LONGEST = np.iinfo(np.int64).max


def days_without_bar(delisted_after: float | timedelta | Literal["never"]) -> float:
    """Return `delisted_after` of `Market.from_bars` in days, infinite for "never". Raise DataError where it is none."""
    if isinstance(delisted_after, str) and delisted_after == "never":
        return math.inf
    days = delisted_after / timedelta(days=1) if isinstance(delisted_after, timedelta) else delisted_after
    if not is_number(days) or not days > 0:
        raise DataError(f"{setting('delisted_after', delisted_after)} must be a number of days above 0, or 'never'")
    return float(days)


def limit_of(days: float) -> int:
    """Return days in ns, at most what int64 can hold."""
    return int(min(days * 86_400 * 10**9, LONGEST))


def silent_for_long(present: np.ndarray, times: np.ndarray, limit: int) -> np.ndarray:
    """Mark the rows [T] at which an asset counts as delisted: it has had no bar for long, while others had.

    A row is judged by the rows up to it alone, so that later bars never change it. An exchange that is shut at night
    or for holidays is silent for less than `limit`. A thin asset, or one of monthly bars, may be silent for
    MAX_SILENCE_RATIO times the longest wait for a bar so far. A hole in all histories counts for none of them.

    Args:
        present: [T] the asset has a bar.
        times: [T] of all assets.
        limit: ns.
    """
    steps = _steps_without_holes(times)
    elapsed = np.cumsum(steps)
    latest = np.maximum.accumulate(np.where(present, np.arange(len(times)), -1))
    own = np.flatnonzero(present)
    waits = np.diff(elapsed[own], prepend=elapsed[own[:1]])
    longest = np.maximum.accumulate(waits)[np.searchsorted(own, latest)]
    longest = np.maximum(longest, np.maximum.accumulate(steps))
    return (latest >= 0) & (elapsed - elapsed[latest] > np.maximum(limit, MAX_SILENCE_RATIO * longest))


def _steps_without_holes(times: np.ndarray) -> np.ndarray:
    """Return the steps [T] in ns up to each of `times` [T], 0 for those far longer than any before: nothing traded."""
    steps = np.diff(times, prepend=times[:1]).astype("timedelta64[ns]").astype(np.int64)
    for i in np.flatnonzero(steps > HOLE):
        if i > 1 and steps[i] > MAX_SILENCE_RATIO * steps[:i].max():
            steps[i] = 0
    return steps


@dataclasses.dataclass(frozen=True)
class Silence:
    """What `silent_for_long` remembers of the rows so far, so that it can go on row by row.

    Attributes:
        time: the time of the last row, ns.
        elapsed: ns of all steps without holes.
        longest_step: ns, the longest step without holes.
        steps: how many steps there were.
        latest: [A] `elapsed` at each asset's last bar. -1 before its first.
        longest_wait: [A] ns between two bars of each asset, at most.
        limit: ns without a bar after which an asset counts as delisted.
    """

    time: int
    elapsed: int
    longest_step: int
    steps: int
    latest: np.ndarray
    longest_wait: np.ndarray
    limit: int = limit_of(DELISTED_AFTER)

    @classmethod
    def after(cls, times: np.ndarray, present: np.ndarray, limit: int) -> "Silence":
        """Return what is remembered after rows at `times` [T], at which assets were `present` [T, A]."""
        steps = _steps_without_holes(times)
        elapsed = np.cumsum(steps)
        latest, waits = [], []
        for own in map(np.flatnonzero, present.T):
            latest.append(elapsed[own[-1]] if own.size else -1)
            waits.append(np.diff(elapsed[own]).max(initial=0))
        last = int(times[-1].astype("datetime64[ns]").astype(np.int64))
        return cls(last, int(elapsed[-1]), int(steps.max()), len(steps) - 1, np.array(latest), np.array(waits), limit)

    def add(self, time: int, present: np.ndarray) -> "Silence":
        """Return what is remembered after one more row, at which assets were `present` [A]."""
        step = time - self.time
        if self.steps and step > max(HOLE, MAX_SILENCE_RATIO * self.longest_step):
            step = 0  # see `_steps_without_holes`
        elapsed = self.elapsed + step
        waited = np.where((self.latest >= 0) & present, elapsed - self.latest, 0)
        return dataclasses.replace(
            self,
            time=time,
            elapsed=elapsed,
            longest_step=max(self.longest_step, step),
            steps=self.steps + 1,
            latest=np.where(present, elapsed, self.latest),
            longest_wait=np.maximum(self.longest_wait, waited),
        )

    @property
    def gone(self) -> np.ndarray:
        """[A] which assets count as delisted at the last row."""
        longest = np.maximum(self.longest_wait, self.longest_step)
        silent = self.elapsed - self.latest
        return (self.latest >= 0) & (silent > np.maximum(self.limit, MAX_SILENCE_RATIO * longest))
