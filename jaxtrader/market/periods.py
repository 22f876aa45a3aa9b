"""The number of bars in a year of each history, by which figures are annualised: given by the user, or found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtrader.market.calendar import TradingCalendar, total_periods_per_year
from jaxtrader.market.errors import DataError
from jaxtrader.setting_checks import is_number, setting


def annualize(
    names: Sequence[str],
    left_out: Sequence[str],
    calendars: Sequence[TradingCalendar | None],
    times: Sequence[np.ndarray],
    given: float | Mapping[str, float] | None,
    tz: str | None,
) -> tuple[dict[str, float], float, list[str]]:
    """Return the bars in a year of each history and of all together, and what is in doubt where they are found.

    Args:
        names: the names of the histories.
        left_out: names of histories that are too short. They may be named in `given`.
        calendars: the calendars of the histories. None for a single bar.
        times: closes of each history.
        given: bars in a year, one for all or by history. What is not given is found by the calendar.
        tz: zone of the exchange's clock.

    Raises:
        DataError: `given` names no history or is no number above 0, or a history is too short for a calendar.
    """
    known = _given_periods((*names, *left_out), given)
    periods, doubts = dict(known), []
    for name, calendar in zip(names, calendars, strict=True):
        if name not in known:
            periods[name] = _found_periods(name, calendar)
            if calendar is not None and calendar.doubt is not None:
                doubts.append(f"{name}: {calendar.doubt}")
    periods = {name: periods[name] for name in names}
    total = next(iter(periods.values()))
    if len(names) > 1 and (given is None or isinstance(given, Mapping)):
        total = total_periods_per_year(times, list(periods.values()), tz)
    return periods, total, doubts


def check_periods(given: float) -> float:
    """Return a given number of bars in a year. Raise DataError if it cannot be one."""
    if not is_number(given) or not 0 < given < math.inf:
        raise DataError(f"{setting('periods_per_year', given)} must be a finite number above 0")
    return float(given)


def _given_periods(names: Sequence[str], given: float | Mapping[str, float] | None) -> dict[str, float]:
    """Return the numbers of bars in a year that are given, by history."""
    if given is None:
        return {}
    by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name in by_name:
        if name not in names:
            raise DataError(
                f"`periods_per_year` names {name!r}, which is no history here; there are {', '.join(names)}"
            )
    return {name: check_periods(periods) for name, periods in by_name.items()}


def _found_periods(name: str, calendar: TradingCalendar | None) -> float:
    if calendar is None:
        raise DataError(
            f"{name} has one bar, so its bars in a year cannot be counted; give more bars, or `periods_per_year`"
        )
    return calendar.periods_per_year
