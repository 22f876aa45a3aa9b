"""What a policy saw at each decision of a result, and how a decision is found by its time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrader.market.clock import wall_clock
from jaxtrader.market.errors import DataError
from jaxtrader.market.splits import nanoseconds


@dataclass(frozen=True, eq=False)
class Observed:
    """What the decisions of one account saw.

    Attributes:
        features: raw features of the market, which are shared and not copied.
        first: the row of the market at bar 0 of the result.
        window: bars that a decision sees.
        every: bars between two decisions.
        account: what each decision saw of its account, see `TradingEnv.account_features`.
    """

    features: Float[np.ndarray, "T A F"]
    first: int
    window: int
    every: int
    account: Float[np.ndarray, "decision A K"]

    def at(self, bar: int) -> tuple[int, Float[np.ndarray, "bar A F"], Float[np.ndarray, "A K"]]:
        """Return the bar of the last decision up to a bar, the window that it saw, and the account."""
        number = bar // self.every
        row = self.first + number * self.every
        window = np.asarray(self.features[row - self.window + 1 : row + 1], np.float32)
        return number * self.every, window, self.account[number]


def bar_at(times: np.ndarray, at: Any, tz: str | None) -> int:
    """Return the bar with this number, or the last bar up to a time. A day is that of the wall clock of `tz`.

    Args:
        times: the bars' times, UTC, increasing.
        at: a number (below 0 it counts from the end), a day as text or as a date, or a time. Times without an offset
            are of the wall clock, and a datetime64 is UTC.
        tz: None is UTC.

    Raises:
        ValueError: there is no such bar.
    """
    if isinstance(at, Integral) and not isinstance(at, bool):
        bar = int(at)
        if not -len(times) <= bar < len(times):
            raise ValueError(f"bar {bar} is none of the {len(times)} bars of the result; give 0 to {len(times) - 1}")
        return bar % len(times)
    days = wall_clock(times, tz).astype("datetime64[D]")
    is_day = isinstance(at, date) and not isinstance(at, datetime)
    if isinstance(at, str):
        is_day = len(at.strip()) <= len("2012-03-05")
    try:
        moment = nanoseconds(at.strip() if isinstance(at, str) else at, tz)
    except DataError as error:
        raise ValueError(f"{at!r} is no bar; give its number, or a time such as '2012-03-05 15:30'") from error
    if is_day:
        day = wall_clock(np.array([moment], "datetime64[ns]"), tz).astype("datetime64[D]")
        found = np.flatnonzero(days == day)
    else:
        found = np.flatnonzero((times <= np.datetime64(moment, "ns")) & (np.datetime64(moment, "ns") <= times[-1]))
    if not len(found):
        raise ValueError(f"the result has no bar at {at}; it runs from {days[0]} to {days[-1]}")
    return int(found[-1])
