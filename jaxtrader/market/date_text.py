"""Reads dates and clocks that are written in other ways than ISO: 30 Apr 2019, Feb 01, 2022, 31/12/24, 07-AM.

The order of day, month and year is concluded from the whole column, and never from one value. Distinct dates and clocks
are few, so each of them is read once.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jaxtrader.market.bar_checks import RowName
from jaxtrader.market.clock import MONTHS
from jaxtrader.market.errors import DataError, shown

if TYPE_CHECKING:
    import pandas as pd

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTH_NUMBERS = {name.lower(): number for number, name in enumerate(MONTHS, start=1)}
CLOCK = r"\d{1,2}(?::\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?:\s*[AaPp]\.?[Mm]\.?)?|[- ]?[AaPp][Mm])"
STAMP = rf"^(\S.*?)(?:[T,\s]+({CLOCK}|(?<=^\d{{8}}[T ])(?:\d{{4}}|\d{{6}})))?$"
YEAR_FIRST = re.compile(r"(\d{4})\s*[-./年]\s*(\d{1,2})\s*[-./月]\s*(\d{1,2})日?")
COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
YEAR_LAST = re.compile(r"(\d{1,2})([-./])(\d{1,2})\2(\d{4}|\d{2})")
SHORT_YEAR = re.compile(r"(\d{2})([-./])(\d{1,2})\2(\d{2})")  # the year may be at either end
WEEKDAY = rf"(?:(?:{'|'.join(DAYS)})[a-z]*\.?,?\s+)?"
DAY_NAME_YEAR = re.compile(WEEKDAY + r"(\d{1,2})(?:st|nd|rd|th)?[-\s./]*([a-z]{3,9})\.?[-\s./,]*(\d{4}|\d{2})", re.I)
NAME_DAY_YEAR = re.compile(WEEKDAY + r"([a-z]{3,9})\.?[-\s]*(\d{1,2})(?:st|nd|rd|th)?[,\s-]+(\d{4})", re.I)
CLOCK_PARTS = re.compile(r"(\d{1,2}):?(\d{2})?:?(\d{2})?(?:[.,](\d{1,9}))?(?:[- ]?\s*([ap])\.?m\.?)?", re.IGNORECASE)


def read_dates(text: "pd.Series", day_first: bool | None, row_name: RowName) -> np.ndarray:
    """Read dates with or without a clock.

    Args:
        text: T texts without an offset.
        day_first: the order of day and month in numbers. None concludes it.
        row_name: names a row in a message.

    Returns:
        [T] datetime64[ns], the wall clock. What cannot be read is NaT.

    Raises:
        DataError: numeric dates have more than one order, or none.
    """
    parts = text.str.extract(STAMP)
    codes, distinct = parts[0].factorize()
    written = [str(one).strip() for one in distinct]
    written = _with_year_last(written, codes, text, row_name)
    order = _order(written, day_first, text, row_name)
    days = _each(codes, written, lambda one: _day(one, order), "datetime64[D]").astype("datetime64[ns]")
    clock_codes, clocks = parts[1].factorize()
    if not len(clocks):
        return days
    spans = _each(clock_codes, [str(one) for one in clocks], _clock, "timedelta64[ns]")
    return days + np.where(clock_codes < 0, np.timedelta64(0, "ns"), spans)


def _each(codes: np.ndarray, distinct: list[str], read: Callable, dtype: str) -> np.ndarray:
    """Read each distinct text once, and put it where it stands. What is missing is NaT."""
    values = np.array([*(read(one) for one in distinct), None], dtype)
    return values[codes]  # -1, a missing one, is the last


def _with_year_last(written: list[str], codes: np.ndarray, text: "pd.Series", row_name: RowName) -> list[str]:
    """Put a year of two digits last: 24-01-31 becomes 31-01-24. It is at the end that changes less from row to row.

    Args:
        written: the distinct dates.
        codes: [T] which of them each row has.
        text: what a message shows, see `read_dates`.
        row_name: names a row in a message.
    """
    found = [SHORT_YEAR.fullmatch(one) for one in written]
    if not found or not all(found):
        return written
    first, middle, last = (np.array([int(match[part]) for match in found if match]) for part in (1, 3, 4))
    if not ((middle <= 12) & (last >= 1) & (last <= 31)).all():
        return written
    if ((first < 1) | (first > 31)).any():
        year_first = True
    else:
        steps_of_first, steps_of_last = (np.count_nonzero(np.diff(part[codes])) for part in (first, last))
        if steps_of_first == steps_of_last:
            raise DataError(
                f"{row_name(0)}: the date '{shown(text.iloc[0])}' may begin or end with its year; write dates as "
                "YYYY-MM-DD"
            )
        year_first = steps_of_first < steps_of_last
    if not year_first:
        return written
    return [f"{match[4]}{match[2]}{match[3]}{match[2]}{match[1]}" for match in found if match]


def _order(written: list[str], day_first: bool | None, text: "pd.Series", row_name: RowName) -> bool:
    """Whether numeric dates are day-first."""
    found = [match for match in map(YEAR_LAST.fullmatch, written) if match]
    if not found:
        return False
    first, second = (max(int(match[part]) for match in found) for part in (1, 3))
    if (first > 12) != (second > 12):
        return first > 12
    if first <= 12 and day_first is not None:
        return day_first
    why = "either order fits every row" if first <= 12 else "neither order fits every row"
    raise DataError(
        f"{row_name(0)}: the date '{shown(text.iloc[0])}' could be day-first or month-first ({why}); write dates as "
        "YYYY-MM-DD"
    )


def _day(text: str, day_first: bool) -> np.datetime64 | None:
    if match := YEAR_FIRST.fullmatch(text) or COMPACT.fullmatch(text):
        return _date(match[1], int(match[2]), match[3])
    if match := YEAR_LAST.fullmatch(text):
        day, month = (match[1], match[3]) if day_first else (match[3], match[1])
        return _date(match[4], int(month), day)
    if match := DAY_NAME_YEAR.fullmatch(text):
        return _date(match[3], MONTH_NUMBERS.get(match[2][:3].lower(), 0), match[1])
    if match := NAME_DAY_YEAR.fullmatch(text):
        return _date(match[3], MONTH_NUMBERS.get(match[1][:3].lower(), 0), match[2])
    return None


def _date(year: str, month: int, day: str) -> np.datetime64 | None:
    full = int(year) if len(year) == 4 else int(year) + (2000 if int(year) < 70 else 1900)
    if not 1678 <= full <= 2261:
        return None
    try:
        return np.datetime64(f"{full:04d}-{month:02d}-{int(day):02d}", "D")
    except ValueError:
        return None


def _clock(text: str) -> np.timedelta64 | None:
    match = CLOCK_PARTS.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    if match[5]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (match[5].lower() == "p")
    if hour > 23 or minute > 59 or second > 59:
        return None
    nanoseconds = int((match[4] or "0").ljust(9, "0"))
    return np.timedelta64((hour * 3600 + minute * 60 + second) * 10**9 + nanoseconds, "ns")
