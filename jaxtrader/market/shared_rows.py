"""On which row of one account each bar of several histories stands, so that no order fills at an open that has passed.

A decision at a row knows the bars that have closed by then, and its orders fill at the opens of the next row.
"""

from collections.abc import Sequence

import numpy as np

from jaxtrader.market.bar_checks import format_duration, format_time
from jaxtrader.market.bars import Bars
from jaxtrader.market.calendar import SHORTEST_DAY
from jaxtrader.market.clock import DAY, common_zone, day_of_week, union, wall_clock
from jaxtrader.market.errors import DataError

HALF_A_DAY = np.timedelta64(12, "h")
SHORT_STEPS = 0.02  # share of its steps that is as long as a bar, for the thinnest asset
MAX_SPACING_RATIO = 3  # bars with a spacing that differs by this factor or more are of different lengths
# Bars that begin so much earlier than the row before, as a share of their length, overlap it. Clocks are set forward by
# 4% of a day.
MAX_OVERLAP = 0.05
FEW_OVERLAPS = 0.05  # share of an asset's bars, for those that end early before a holiday
ONE_CLOSE = np.timedelta64(10, "m")  # days that end within it of each other end together
WEEKENDS = 0.05  # share of the bars on a Saturday, and on a Sunday, of what trades every day. An exchange has fewer.
# Daily bars do not tell when a session began. No session of stocks is shorter than the first, and few are longer than
# the second.
SESSIONS = np.timedelta64(330, "m"), np.timedelta64(8, "h")
# Share of the median move inside a bar. Where the median gap before a bar is smaller, the bar begins at the close
# before: 0.02 for an index whose opens are those closes, 0.24 to 0.55 for 83 stocks and the Nasdaq index.
SMALL_GAP = 0.1


def check_alignable(histories: Sequence[Bars]) -> None:
    """Raise DataError unless histories are of one symbol each, share bar times, and have bars of one length."""
    for history in histories:
        names = ",".join(history.symbols)
        if history.close.shape[1] != 1:
            raise DataError(
                f"{names} holds {history.close.shape[1]} symbols already; `align=True` takes Bars of one symbol each"
            )
        if "," in names:
            raise DataError(
                f"The symbol '{names}' has a comma, which separates the symbols of an aligned history; rename it for "
                "`align=True`"
            )
        if (np.diff(history.times) <= np.timedelta64(0)).any():
            raise DataError(f"The times of {names} do not increase; sort its bars by time and remove duplicates")
    if len(histories) > 1:
        _check_shared_times(histories)
        _check_equal_spacing(histories)


def _check_shared_times(histories: Sequence[Bars]) -> None:
    for history in histories:
        first, last = history.times[[0, -1]]
        if not any(other.times[0] <= last and first <= other.times[-1] for other in histories if other is not history):
            raise DataError(
                f"{history.symbols[0]} has no time in common with another symbol (it runs from {format_time(first)} to "
                f"{format_time(last)}); leave it out, or load separate histories without `align`"
            )


def _check_equal_spacing(histories: Sequence[Bars]) -> None:
    steps = {history.symbols[0]: _short_step(history.times) for history in histories if len(history) > 1}
    if not steps:
        return
    longest, shortest = max(steps, key=steps.__getitem__), min(steps, key=steps.__getitem__)
    if steps[longest] >= MAX_SPACING_RATIO * steps[shortest]:
        raise DataError(
            f"{shortest} has a bar every {format_duration(steps[shortest])} and {longest} every "
            f"{format_duration(steps[longest])}; `align=True` needs bars of one length, so resample one of the two"
        )


def are_daily(histories: Sequence[Bars]) -> bool:
    """Return whether the bars of all histories are of a day or longer."""
    return all(history.calendar.bar >= SHORTEST_DAY for history in histories if history.calendar is not None)


def row_times(histories: Sequence[Bars]) -> tuple[list[np.ndarray], list[str]]:
    """Return the time of the row of each bar [n] of each history, and notes on opens that may have passed.

    A row is at the latest close of its bars. Bars of less than a day stand at their own close. Daily bars that close at
    different times of a day share a row. Where an asset trades every day, and so at all hours, a row ends with its day,
    as its next bar opens there. Otherwise bars of one date, each on its own wall clock, share a row. Stamps at midnight
    are such dates where all histories have them and mark the same end of a bar.

    Raises:
        DataError: bars begin before the row before them, or it is not known to which day midnight belongs.
    """
    own = [history.times for history in histories]
    marks_one_end = len({history.label for history in histories}) == 1
    one_a_day = (np.diff(union(own)) >= SHORTEST_DAY).all()
    if not are_daily(histories) or (one_a_day and marks_one_end):
        return own, _check_opens(histories, own, own)
    midnight = [_at_midnight(history) for history in histories]
    dates = all(midnight) and marks_one_end
    unsaid = [at and history.label is None for at, history in zip(midnight, histories, strict=True)]
    if any(unsaid) and not dates:
        raise DataError(_midnight_message(histories, unsaid))
    if one_a_day:
        return own, _check_opens(histories, own, own)
    rows = _shared_rows(histories, dates=dates)
    return rows, _check_opens(histories, rows if dates else own, rows)


def bars_of_rows_that_are_over(histories: Sequence[Bars], now: np.datetime64) -> list[int]:
    """Return how many bars of each history stand on rows that are over at `now`.

    The last row of daily bars is not over while the day of an asset that trades every day goes on.
    """
    rows = row_times(histories)[0]
    last = max(own[-1] for own in rows)
    goes_on = are_daily(histories) and any(
        own[-1] < last and history.times[-1] + DAY > now and _trades_every_day(history)
        for own, history in zip(rows, histories, strict=True)
    )
    return [len(own) - int(goes_on and own[-1] == last) for own in rows]


def _shared_rows(histories: Sequence[Bars], *, dates: bool) -> list[np.ndarray]:
    """Return the row of each bar of a day. Where days cannot be told apart, they are the bars' own closes."""
    own = [history.times for history in histories]
    every_day = [] if dates else [history.times for history in histories if _trades_every_day(history)]
    if every_day:
        closes = np.concatenate(every_day)
        later = (closes - closes[0] + HALF_A_DAY) % DAY - HALF_A_DAY
        end = closes[0] + later.max() + ONE_CLOSE
        days = [-((end - times) // DAY) for times in own]
    else:
        # A stamp at midnight that is no date is of the day that ends.
        inside = [h.times if dates or not _at_midnight(h) else h.times - HALF_A_DAY for h in histories]
        days = [wall_clock(times, h.tz).astype("datetime64[D]") for times, h in zip(inside, histories, strict=True)]
        days = [each.astype(np.int64) for each in days]
    if any(len(np.unique(each)) < len(each) for each in days):
        return own
    numbers = np.unique(np.concatenate(days))
    latest = np.full(len(numbers), np.iinfo(np.int64).min)
    at = [np.searchsorted(numbers, each) for each in days]
    for times, rows in zip(own, at, strict=True):
        latest[rows] = np.maximum(latest[rows], times.astype("datetime64[ns]").astype(np.int64))
    closes = latest.astype("datetime64[ns]")
    return [closes[rows] for rows in at]


def _trades_every_day(history: Bars) -> bool:
    """Return whether a history has bars on Saturdays and on Sundays. Its bars then begin at the close before."""
    days = day_of_week(history.times)
    return bool(min(np.mean(days == 5), np.mean(days == 6)) > WEEKENDS)


def _at_midnight(history: Bars) -> bool:
    """Return whether the bars of a history close at midnight by its own clock."""
    clock = wall_clock(history.times, history.tz)
    # A date on which clocks are set forward at midnight begins later.
    return bool(np.mean(clock == clock.astype("datetime64[D]")) > 0.9)


def _midnight_message(histories: Sequence[Bars], unsaid: Sequence[bool]) -> str:
    names = [history.symbols[0] for history, is_unsaid in zip(histories, unsaid, strict=True) if is_unsaid]
    other = histories[list(unsaid).index(False)].symbols[0]
    return (
        f"The stamps of {', '.join(names)} are at midnight, which may be of the day that begins or of the day that "
        f"ends, so it is not known which bar of {other} is of the same day; say which end of its bar such a stamp "
        f"marks, open or close, as in `label={dict.fromkeys(names, 'open')}`"
    )


def _check_opens(
    histories: Sequence[Bars],
    own: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
) -> list[str]:
    """Raise DataError where bars begin before the row before them: an order of that row would fill at a past price.

    Args:
        histories: the histories, of one asset each.
        own: the times at which the bars of each close.
        rows: the times of their rows.

    Returns:
        A note on each asset with a few of such bars.
    """
    times, notes, lengths = union(rows), [], _bar_lengths(own)
    if rows is own and (np.diff(times) >= (1 - MAX_OVERLAP) * max(lengths)).all():
        return notes
    tz = common_zone(history.tz for history in histories)
    for history, closes, row, length in zip(histories, own, rows, lengths, strict=True):
        name, before = history.symbols[0], times[np.maximum(np.searchsorted(times, row[1:]) - 1, 0)]
        most = MAX_OVERLAP * length if rows is own else ONE_CLOSE
        begin_is_known = rows is own or length >= 2 * DAY or history.label == "open" or _trades_every_day(history)
        late = _early(closes, before, length if begin_is_known else SESSIONS[0]) > most
        if late.sum() > FEW_OVERLAPS * len(closes):
            at = int(np.argmax(late))
            close, row_before = (format_time(time) for time in wall_clock(np.array([closes[at + 1], before[at]]), tz))
            way = "Give bars that close together, with one stamp a period (see `tz` and `label`)"
            if rows is not own:
                way = "Give days that end together, or while the other exchange is shut"
            raise DataError(
                f"{late.sum():,} of the {len(closes):,} bars of {name} begin before the row before them: the one that "
                f"closes at {close} begins before {row_before}, where another symbol closes. An order of that row "
                f"would fill at a price of the past. {way}, or load separate histories without `align`."
            )
        if late.any():
            notes.append(
                f"{name}: {late.sum():,} of its bars begin before the row before them, as another symbol closes late. "
                "An order of that row fills at an open of the past."
            )
        if begin_is_known:
            continue
        early = _early(closes, before, length)
        if _opens_at_the_close_before(history) and np.mean(early > most) > FEW_OVERLAPS:
            notes.append(
                f"{name}: Its opens are the closes before them, as of what trades at all hours. The row before a bar "
                f"is {format_duration(np.median(early[early > most]))} later, so orders fill at a price of the past. "
                "Give days that end together."
            )
        elif np.mean(_early(closes, before, SESSIONS[1]) > most) > FEW_OVERLAPS:
            shortest = format_duration(np.median(closes[1:] - before))
            notes.append(
                f"{name}: Its bars close {shortest} after the row before them. Its session must not last longer, or "
                "orders fill at an open of the past."
            )
    return notes


def _opens_at_the_close_before(history: Bars) -> bool:
    """Return whether the bars of a history begin at the price of the close before, as those of currencies do."""
    opens, closes = history.open[:, 0], history.close[:, 0]
    gap, move = np.median(np.abs(opens[1:] - closes[:-1])), np.median(np.abs(closes - opens))
    return bool(gap < SMALL_GAP * move)


def _early(closes: np.ndarray, before: np.ndarray, length: np.timedelta64) -> np.ndarray:
    """Return how long before the row before it each bar but the first begins, [n - 1]."""
    return before - np.maximum(closes[1:] - length, closes[:-1])  # a session may end with a shorter bar


def _bar_lengths(calendars: Sequence[np.ndarray]) -> list[np.timedelta64]:
    """Return the length of the bars of each history, also where a thin one has few that follow each other."""
    least = min((_short_step(own) for own in calendars if len(own) > 1), default=np.timedelta64(0, "ns"))
    lengths = []
    for own in calendars:
        step = _short_step(own) if len(own) > 1 else least
        on_grid = step > least and np.mean(np.diff(own) % step == np.timedelta64(0)) > 0.9
        lengths.append(step if step < 2 * least or on_grid else least)
    return lengths


def _short_step(times: np.ndarray) -> np.timedelta64:
    # A low quantile measures the length of a bar, as a thinly traded asset has few bars without a gap between them.
    return np.quantile(np.diff(times), SHORT_STEPS, method="lower")
