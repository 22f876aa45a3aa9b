"""Cuts a market into the folds of a walk-forward test: each trains on the past and is tested on what follows.

All symbols are cut at the same times. The parts of a fold share the arrays of the market, so all folds have arrays of
one shape.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxtrader.market.bar_checks import format_time
from jaxtrader.market.clock import wall_clock
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market, check_market_type
from jaxtrader.market.splits import nanoseconds, segments_between
from jaxtrader.setting_checks import check_flag, check_number, check_whole, is_whole, setting

LENGTH = re.compile(r"\s*(\d+)\s*(y|mo|w|d|h|min)\s*")
UNITS = {"y": "years", "mo": "months", "w": "weeks", "d": "days", "h": "hours", "min": "minutes"}
CALENDAR_UNITS = ("y", "mo", "w", "d")  # whose length in hours depends on the clock changes of a zone
HOW_TO_WRITE = "a number of bars, or a duration such as '2y', '6mo', '8w', '90d', '12h'"

Length = int | str


@dataclasses.dataclass(frozen=True)
class Fold:
    """One step of a walk-forward test.

    Attributes:
        train: the bars to learn from.
        valid: the bars after them, on which the best policy is chosen. None where there are none.
        test: the bars after those, which nothing has seen.
    """

    train: Market
    valid: Market | None
    test: Market


def walk_forward_folds(
    market: Market,
    folds: int | None = None,
    *,
    train: Length | None = None,
    test: Length | Sequence[Any] | None = None,
    valid: float = 0.2,
    anchored: bool = False,
    embargo: int = 0,
) -> tuple[Fold, ...]:
    """Cut a market into folds. The tests follow one another without a gap, up to the last bar.

    Args:
        market: all bars. Bars are counted on the union of the symbols' calendars.
        folds: how many, instead of a length of `test`. The default is 5 where neither is given.
        train: length of the first training, its validation included, as a number of bars or a duration. The default is
            half of the bars.
        test: length of each test. The last one may be shorter. Or the dates at which the tests begin.
        valid: share of the training bars, at its end, that the best policy is chosen on. 0 trains on all.
        anchored: each training begins at the first bar. Otherwise it has the length of the first one, and rolls.
        embargo: bars of each symbol to drop from the end of the training, and from the end of the validation. No return
            there then reaches into what follows.

    Raises:
        ValueError: an argument has the wrong type, or is out of range.
        DataError: a length is not valid, or a part of a fold holds no bars.

    Example:
        >>> market = jt.Market.from_bars(jt.load_bundled("IBM"))
        >>> for fold in jt.walk_forward_folds(market, 2, train=2000, valid=0.2):
        ...     print(fold.test)
        Market(IBM: 635 bars, 2008-02-14 to 2010-08-20, ...)
        Market(IBM: 635 bars, 2010-08-23 to 2013-03-01, ...)
    """
    check_market_type(market, "walk_forward_folds")
    check_number("valid", valid)
    check_flag("anchored", anchored)
    folds = None if folds is None else check_whole("folds", folds)
    train = None if train is None else _checked_length("train", train)
    if test is not None and (isinstance(test, str) or not isinstance(test, Iterable)):
        test = _checked_length("test", test)
    if folds is not None and test is not None:
        raise DataError(
            f"{setting('folds', folds)} and {setting('test', test)} both say how long a test is; leave one out"
        )
    if not 0 <= valid < 1:
        raise DataError(
            f"{setting('valid', valid)} must be a share of the training from 0 to below 1, such as 0.2; 0 is none"
        )
    spans = [market.times[start:end] for _, start, end in market.segments]
    calendar = np.unique(np.concatenate(spans)).astype("datetime64[ns]").astype(np.int64)
    begins = _test_begins(calendar, folds, train, test, market.tz)
    bounds = [*begins, np.iinfo(np.int64).max]
    found = []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds), 1):
        first = int(calendar[0]) if anchored else _training_begin(calendar, begins, begin, train, market.tz)
        learnt = calendar[(calendar >= first) & (calendar < begin)]
        count = round(len(learnt) * (1 - valid))
        middle = int(learnt[count]) if count < len(learnt) else begin
        found.append(
            Fold(
                train=_part(market, first, middle, embargo, f"the training of fold {number}"),
                valid=_part(market, middle, begin, embargo, f"the validation of fold {number}") if valid else None,
                test=_part(market, begin, end, 0, f"the test of fold {number}"),
            )
        )
    return tuple(found)


def _checked_length(name: str, given: Any) -> Length:
    """Return a length. Raises DataError where it is neither a number of bars nor a duration."""
    match = LENGTH.fullmatch(given) if isinstance(given, str) else None
    if is_whole(given) and given >= 1:
        return int(given)
    if match is not None and int(match[1]):
        return match[0]
    dates = ", or the dates at which the tests begin" * (name == "test")
    raise DataError(f"{setting(name, given)} must be a length; give {HOW_TO_WRITE}{dates}")


def _test_begins(
    calendar: np.ndarray,
    folds: int | None,
    train: Length | None,
    test: Length | Sequence[Any] | None,
    tz: str | None,
) -> list[int]:
    """The times at which the tests begin, in ns since 1970. Dates are of the wall clock of `tz`."""
    if test is not None and not isinstance(test, (int, str)):
        begins = [nanoseconds(day, tz) for day in test]
        if not begins or any(after <= before for before, after in itertools.pairwise(begins)):
            given = setting("test", [str(day) for day in test])
            raise DataError(f"{given} must be dates in order; give one for each fold")
        return begins
    begin = _after(calendar, int(calendar[0]), len(calendar) // 2 if train is None else train, "train", tz)
    if begin > calendar[-1]:
        raise DataError(f"{setting('train', train)} leaves no bar to test on; give a shorter one")
    if test is None:
        count = 5 if folds is None else folds
        rows = np.arange(np.searchsorted(calendar, begin), len(calendar))
        if len(rows) < count:
            raise DataError(
                f"the first training leaves {len(rows)} bars to test on, and {count} folds need one each; give fewer "
                "`folds`, or a shorter `train`"
            )
        return [int(calendar[part[0]]) for part in np.array_split(rows, count)]
    begins = []
    while begin <= calendar[-1]:
        begins.append(begin)
        # From the first test on, so that months of different length add up.
        begin = _after(calendar, begins[0], test, "test", tz, times=len(begins))
    return begins


def _training_begin(calendar: np.ndarray, begins: list[int], begin: int, train: Length | None, tz: str | None) -> int:
    """Where a rolling training begins: its length before the test, but not before the first bar."""
    if isinstance(train, str):
        return max(_shifted(begin, train, "train", -1, tz), int(calendar[0]))
    length = train if train is not None else int(np.searchsorted(calendar, begins[0]))
    return int(calendar[max(int(np.searchsorted(calendar, begin)) - length, 0)])


def _after(calendar: np.ndarray, moment: int, length: Length, name: str, tz: str | None, times: int = 1) -> int:
    """The moment after so many bars, or after a duration. Beyond the last bar: the end of time."""
    if isinstance(length, str):
        return _shifted(moment, length, name, times, tz)
    row = int(np.searchsorted(calendar, moment)) + length * times
    return int(calendar[row]) if row < len(calendar) else np.iinfo(np.int64).max


def _shifted(moment: int, length: str, name: str, times: int, tz: str | None) -> int:
    """The moment so many times a duration later. Days and longer are of the wall clock of `tz`, as its dates are."""
    import pandas as pd

    match = LENGTH.fullmatch(length)
    assert match is not None  # see `_checked_length`
    offset: Any = {UNITS[match[2]]: int(match[1]) * times}
    own = tz if match[2] in CALENDAR_UNITS else None
    try:
        local = pd.Timestamp(wall_clock(np.array([moment], "datetime64[ns]"), own)[0]) + pd.DateOffset(**offset)
        return local.value if own is None else nanoseconds(local.to_pydatetime(warn=False), own)
    except (OverflowError, pd.errors.OutOfBoundsDatetime) as error:
        raise DataError(f"{setting(name, length)} reaches beyond the year 2261; give {HOW_TO_WRITE}") from error


def _part(market: Market, low: int, high: int, embargo: int, name: str) -> Market:
    segments, kept = segments_between(market.times, market.segments, low, high, embargo)
    if not kept:
        dropped = f" after an embargo of {embargo} bars" if embargo else ""
        raise DataError(
            f"{name} holds no bar{dropped}: it begins at {format_time(np.datetime64(low, 'ns'))}; give fewer `folds`, "
            "or other lengths"
        )
    return market.keep(kept, segments)
