"""Combines the columns of several histories: one after another, or aligned on the union of their calendars.

Each history's features are computed from its own bars before it is combined, so no filled row enters a feature.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import numpy as np

from jaxtrader.market.bar_checks import format_duration, format_time, spacing
from jaxtrader.market.bars import Bars
from jaxtrader.market.calendar import SHORTEST_DAY, find_calendar
from jaxtrader.market.clock import DAY, union, wall_clock
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, compute_features
from jaxtrader.market.sessions import session_ends
from jaxtrader.market.trailing import VALUE_FLOOR, traded_value, volatility, volume_fault

PRICES = ("open", "high", "low", "close")
DEFAULTS = {
    "bar_dt": 0.0,
    "funding": 0.0,
    "price_factor": 1.0,
    "session_end": False,
}  # for a history that lacks an optional column
YEAR = np.timedelta64(365, "D")
# Days: an asset without a bar for longer is delisted. The longest holidays of an exchange are shorter.
DELISTED_AFTER = 14.0
MAX_SILENCE_RATIO = 3  # and so is, for a thin asset or longer bars, this multiple of its longest wait so far
# A longer step between rows, which is also far longer than any before, is a hole in the data.
HOLE = int(14 * DAY / np.timedelta64(1, "ns"))
LONGEST = np.iinfo(np.int64).max
SHORT_STEPS = 0.02  # share of its steps that is as long as a bar, for the thinnest asset
MAX_SPACING_RATIO = 3  # bars with a spacing that differs by this factor or more are of different lengths
# Bars that begin so much earlier than the row before, as a share of their length, overlap it. Clocks are set forward by
# 4% of a day.
MAX_OVERLAP = 0.05
SATURDAY = 5  # counted from Monday
EVERY_DAY = 0.2  # the share of bars on weekends, of 2 in 7, from which an asset trades every day
HALF_A_DAY = np.timedelta64(12, "h")  # before its close a daily bar is on its own day, even if it closes at midnight
FEW_OVERLAPS = 0.05  # share of an asset's bars, for those that end early before a holiday

Columns = dict[str, Any]
"""Arrays by the names of `Market`'s fields."""


def compute_columns(bars: Bars, features: Sequence[Feature]) -> Columns:
    """Compute the columns of one history from its own bars, [n, A] each. Optional columns may be None."""
    return {
        **{name: getattr(bars, name) for name in ("times", *PRICES, "volume")},
        "features": compute_features(bars, features),
        "volatility": volatility(bars.close),
        "dt": years_between(bars.times),
        "bar_dt": years_inside(bars.times),
        "funding": bars.funding,
        "price_factor": bars.price_factor,
        "adv": _traded_value(bars),
        "session_end": session_ends(bars.times, bars.calendar, bars.tz),
        "columns": dict(bars.columns),
    }


def _traded_value(bars: Bars) -> np.ndarray | None:
    if volume_fault(bars.volume):
        return None
    unadjusted = bars.close if bars.price_factor is None else bars.close / bars.price_factor
    return traded_value(unadjusted, bars.volume)


def volume_notes(names: Sequence[str], histories: Sequence[Bars]) -> list[str]:
    """Describe each history whose volume is unreliable. Loading has already described a volume that is always 0."""
    return [
        f"{name}: {fault}, so it is not used: there is no average traded value (adv) for impact and volume caps."
        for name, history in zip(names, histories, strict=True)
        if history.volume.any() and (fault := volume_fault(history.volume))
    ]


def years_between(times: np.ndarray) -> np.ndarray:
    """Return the years (ACT/365) since the previous of `times` [n], 0 for the first."""
    return np.diff(times, prepend=times[:1]) / YEAR


def years_inside(times: np.ndarray) -> np.ndarray | None:
    """Return the years from open to close of bars that close at `times` [n], see `Market.bar_dt`."""
    if len(times) < 2 or (length := spacing(times)) >= DAY:
        return None
    return np.minimum(years_between(times), length / YEAR)


def concatenate_histories(parts: Sequence[Columns]) -> Columns:
    """Put histories one after another on one time axis without padding, and return them with their segments."""
    parts = _complete(parts)
    ends = np.cumsum([len(part["times"]) for part in parts])
    starts = np.concatenate([[0], ends[:-1]])
    out = {name: _join([part[name] for part in parts], 0) for name in parts[0] if name != "columns"}
    return {
        **out,
        "columns": _join_further(parts, 0),
        "segments": np.stack([starts, starts, ends], axis=1).astype(np.int64),
    }


def _complete(parts: Sequence[Columns]) -> Sequence[Columns]:
    """Fill in DEFAULTS where only some parts have a column. Drop `adv`, which has no default, if one part lacks it."""
    parts = [dict(part) for part in parts]
    for name, value in DEFAULTS.items():
        if any(part[name] is not None for part in parts):
            for part in parts:
                shape = part["times"].shape if name in ("bar_dt", "session_end") else part["close"].shape
                part[name] = np.full(shape, value) if part[name] is None else part[name]
    if any(part["adv"] is None for part in parts):
        parts = [{**part, "adv": None} for part in parts]
    return parts


def _join(columns: Sequence[np.ndarray | None], axis: int) -> np.ndarray | None:
    known = [column for column in columns if column is not None]
    if len(known) == 1:  # which is read-only, so that it need not be copied
        return known[0]
    return np.concatenate(known, axis=axis) if known else None


def _join_further(parts: Sequence[Columns], axis: int) -> dict[str, np.ndarray]:
    """Join the further columns of the bars, NaN where a part lacks one."""
    names = dict.fromkeys(name for part in parts for name in part["columns"])
    lacking = [np.full(part["close"].shape, np.nan) for part in parts]
    each = {
        name: [part["columns"].get(name, none) for part, none in zip(parts, lacking, strict=True)] for name in names
    }
    return {name: np.concatenate(columns, axis=axis) for name, columns in each.items()}


def days_without_bar(delisted_after: float | timedelta | Literal["never"]) -> float:
    """Return `delisted_after` of `Market.from_bars` in days, infinite for "never". Raise DataError where it is none."""
    if isinstance(delisted_after, str) and delisted_after == "never":
        return math.inf
    days = delisted_after / timedelta(days=1) if isinstance(delisted_after, timedelta) else delisted_after
    if isinstance(days, bool) or not isinstance(days, numbers.Real) or not days > 0:
        raise DataError(
            f"delisted_after={delisted_after!r} is not valid; it must be a number of days above 0, or 'never'."
        )
    return float(days)


def nanoseconds(days: float) -> int:
    """Return days in ns, at most what int64 can hold."""
    return int(min(days * 86_400 * 10**9, LONGEST))


def align_histories(
    parts: Sequence[Columns], tz: str | None, *, daily: bool = False, delisted_after: float = DELISTED_AFTER
) -> Columns:
    """Align single-asset histories on the union of their calendars, [T, A] each, as one segment.

    At a row without a bar an asset keeps its last close as open, high, low and close, and the other columns of its last
    bar. Volume and funding are 0 there. Before its first bar its prices are its first open, its features NaN, and its
    volatility and traded value the floors.

    Args:
        parts: the columns of one asset each.
        tz: zone of the exchange, for `session_end`.
        daily: the bars of all assets are of a day or longer.
        delisted_after: days without a bar, see `Market.delisted_after`.

    Returns:
        The columns with `present`, `delisted` and `listed`. These are None in the cases that `Market` names.
    """
    times = union([part["times"] for part in parts])
    calendar = find_calendar(times, tz, daily=daily) if len(times) > 1 else None
    aligned = [_reindex(part, times, nanoseconds(delisted_after)) for part in _complete(parts)]
    out: Columns = {name: _join([part[name] for part in aligned], 1) for name in aligned[0] if name != "columns"}
    out["columns"] = _join_further(aligned, 1)
    out["session_end"] = session_ends(times, calendar, tz)
    out["present"] = None if out["present"].all() else out["present"]
    out["delisted"] = out["delisted"] if out["delisted"].any() else None
    ready = int(np.argmax(out["listed"].any(axis=1)))
    out["listed"] = None if out["listed"][ready:].all() else out["listed"]
    segments = np.array([[0, 0, len(times)]], np.int64)
    steps = {"dt": years_between(times), "bar_dt": None if daily else years_inside(times)}
    return {**out, **steps, "times": times, "segments": segments}


def _reindex(part: Columns, times: np.ndarray, limit: int) -> Columns:
    """Put the columns of one asset on a calendar that contains all its times, [T, 1] each. `limit` is of Silence."""
    latest = (
        np.searchsorted(part["times"], times, side="right") - 1
    )  # last bar at or before each row, -1 before the first
    at = np.maximum(latest, 0)
    begun, present = (latest >= 0)[:, None], (part["times"][at] == times)[:, None]
    out: Columns = {"present": present}
    price = np.where(begun, part["close"][at], part["open"][0])
    out |= {name: np.where(present, part[name][at], price) for name in PRICES}
    out["volume"] = np.where(present, part["volume"][at], 0.0)
    out["features"] = np.where(begun[..., None], part["features"][at], np.nan)
    out["volatility"] = part["volatility"][at]  # the first bar's is the floor, and so it is before that bar
    out["funding"] = None if part["funding"] is None else np.where(present, part["funding"][at], 0.0)
    out["price_factor"] = None if part["price_factor"] is None else part["price_factor"][at]
    out["columns"] = {name: column[at] for name, column in part["columns"].items()}
    out["adv"] = None if part["adv"] is None else np.where(begun, part["adv"][at], VALUE_FLOOR)
    gone = _silent_for_long(present[:, 0], times, limit)[:, None]
    out["delisted"] = gone & ~np.concatenate([gone[:1], gone[:-1]])
    out["listed"] = np.isfinite(out["features"]).all(axis=2) & ~gone
    return out


def _silent_for_long(present: np.ndarray, times: np.ndarray, limit: int) -> np.ndarray:
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
    """What `_silent_for_long` remembers of the rows so far, so that it can go on row by row.

    Attributes:
        time: of the last row, ns.
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
    limit: int = nanoseconds(DELISTED_AFTER)

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


def check_alignable(histories: Sequence[Bars]) -> None:
    """Raise DataError unless histories are of one symbol each, share bar times, and have bars of one length."""
    for history in histories:
        names = ",".join(history.symbols)
        if history.close.shape[1] != 1:
            raise DataError(
                f"{names} holds {history.close.shape[1]} symbols already; align=True takes Bars of one symbol each."
            )
        if "," in names:
            raise DataError(
                f"The symbol '{names}' has a comma, which separates the symbols of an aligned history; rename it for "
                "align=True."
            )
        if (np.diff(history.times) <= np.timedelta64(0)).any():
            raise DataError(f"The times of {names} do not increase; sort its bars by time and remove duplicates.")
    if len(histories) > 1:
        _check_shared_times(histories)
        _check_equal_spacing(histories)


def _check_shared_times(histories: Sequence[Bars]) -> None:
    for history in histories:
        first, last = history.times[[0, -1]]
        if not any(other.times[0] <= last and first <= other.times[-1] for other in histories if other is not history):
            raise DataError(
                f"{history.symbols[0]} has no time in common with another symbol (it runs from {format_time(first)} to "
                f"{format_time(last)}); leave it out, or load separate histories without align."
            )


def share_days(
    parts: Sequence[Columns], zones: Sequence[str | None], labels: Sequence[str] | None = None
) -> Sequence[Columns]:
    """Put bars of a day or longer that close at different times of one day on one row, at the latest of these closes.

    A decision between two closes of a day would fill at an open of that day, which is past. A stamp at midnight may be
    of the day that ends or of the day that begins. It is known to be of the day that ends where the file labels bars by
    their open. Otherwise bars at midnight stay as they are beside others, because a wrong guess looks ahead by a day.

    Args:
        parts: the columns of one asset each.
        zones: of their wall clocks. None is UTC.
        labels: what the stamps of each file mark, "close" or "open", see `load_bars`. Default: all the close.
    """
    if (np.diff(union([part["times"] for part in parts])) >= SHORTEST_DAY).all():
        return parts
    labels = ["close"] * len(parts) if labels is None else labels
    dated = [_at_midnight(part["times"], tz) for part, tz in zip(parts, zones, strict=True)]
    opened = [label == "open" and not all(dated) for label in labels]
    if not all(dated) and any(midnight and not known for midnight, known in zip(dated, opened, strict=True)):
        return parts
    inside = [part["times"] - HALF_A_DAY if known else part["times"] for part, known in zip(parts, opened, strict=True)]
    days = [wall_clock(own, tz).astype("datetime64[D]") for own, tz in zip(inside, zones, strict=True)]
    if any(len(np.unique(each)) < len(each) for each in days):
        return parts
    rows = np.unique(np.concatenate(days))
    latest = np.full(len(rows), np.iinfo(np.int64).min)
    at = [np.searchsorted(rows, each) for each in days]
    for part, own in zip(parts, at, strict=True):
        latest[own] = np.maximum(latest[own], part["times"].astype("datetime64[ns]").astype(np.int64))
    closes = latest.astype("datetime64[ns]")
    return [{**part, "times": closes[own]} for part, own in zip(parts, at, strict=True)]


def early_close_notes(names: Sequence[str], stamped: Sequence[Columns], shared: Sequence[Columns]) -> list[str]:
    """Return a note on each asset that trades every day and closes before its row.

    Its next bar opens at its own close, which has passed when the row is decided.

    Args:
        names: of the assets.
        stamped: the columns of one asset each, at their own closes.
        shared: the same at the closes of their rows, see `share_days`.
    """
    notes = []
    for name, own, row in zip(names, stamped, shared, strict=True):
        early = float(np.max(row["times"] - own["times"]) / np.timedelta64(1, "h"))
        weekday = (own["times"].astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
        if early > 0 and np.mean(weekday >= SATURDAY) > EVERY_DAY:
            notes.append(
                f"{name} trades every day and closes up to {early:.3g} hours before its row, so orders fill at an open "
                "that had passed by then. Results look ahead by that much: stamp its bars at the end of the day, or "
                "load it by itself."
            )
    return notes


def _at_midnight(times: np.ndarray, tz: str | None) -> bool:
    """Return whether `times` [T] are midnight by the clock of `tz`."""
    clock = wall_clock(times, tz)
    # A date on which clocks are set forward at midnight begins later.
    return bool(np.mean(clock == clock.astype("datetime64[D]")) > 0.9)


def overlap_notes(
    names: Sequence[str], parts: Sequence[Columns], times: np.ndarray, tz: str | None, *, zones: Sequence[str | None]
) -> list[str]:
    """Raise DataError where bars begin before the row before them: an order of that row would fill at a past price.

    Args:
        names: of the assets.
        parts: the columns of one asset each.
        times: [T] of all together.
        tz: zone in which times are shown.
        zones: of each asset's wall clock. None is UTC.

    Returns:
        A note on each asset with a few of such bars.
    """
    notes, lengths = [], _bar_lengths([part["times"] for part in parts])
    steps = np.diff(times, prepend=times[:1])
    if (steps[1:] >= (1 - MAX_OVERLAP) * max(lengths)).all():
        return notes
    for name, part, length in zip(names, parts, lengths, strict=True):
        own = part["times"]
        rows = np.searchsorted(times, own)
        begun = np.maximum(own[1:] - length, own[:-1])  # a session may end with a shorter bar
        late = (own - steps[rows])[1:] - begun > MAX_OVERLAP * length
        count = int(late.sum())
        if count > FEW_OVERLAPS * len(own):
            at = int(rows[int(np.argmax(late)) + 1])
            close, before = (format_time(time) for time in wall_clock(times[[at, at - 1]], tz))
            way = _way_out(names, parts, zones, max(lengths))
            raise DataError(
                f"{count:,} of the {len(own):,} bars of {name} begin before the row before them: the one that closes "
                f"at {close} begins before {before}, where another symbol closes. An order of that row would fill at "
                f"a price of the past. {way}, or load separate histories without align."
            )
        if count:
            notes.append(
                f"{name}: {count:,} of its bars begin before the row before them, as another symbol closes late. An "
                "order of that row fills at an open of the past."
            )
    return notes


def _way_out(
    names: Sequence[str], parts: Sequence[Columns], zones: Sequence[str | None], length: np.timedelta64
) -> str:
    """Say how to stamp bars that overlap. Days that are stamped at midnight beside closes have a way of their own."""
    dated = [_at_midnight(part["times"], tz) for part, tz in zip(parts, zones, strict=True)]
    if length < SHORTEST_DAY or all(dated) or not any(dated):
        return "Give bars that close together, with one stamp a period (tz=, label=)"
    name = names[dated.index(True)]
    return (
        f"The stamps of {name} are at midnight, which may be of the day that begins or of the day that ends. Stamp its "
        "bars at their close, or at 23:59 of their day, so that the bars of a day share a row. In Python, load it with "
        "label='open' if its bars begin at midnight"
    )


def _bar_lengths(calendars: Sequence[np.ndarray]) -> list[np.timedelta64]:
    """Return the length of the bars of each history, also where a thin one has few that follow each other."""
    shortest = [np.quantile(np.diff(own), SHORT_STEPS, method="lower") for own in calendars if len(own) > 1]
    least = min(shortest, default=np.timedelta64(0, "ns"))
    lengths = []
    for own in calendars:
        step = np.quantile(np.diff(own), SHORT_STEPS, method="lower") if len(own) > 1 else least
        on_grid = step > least and np.mean(np.diff(own) % step == np.timedelta64(0)) > 0.9
        lengths.append(step if step < 2 * least or on_grid else least)
    return lengths


def _check_equal_spacing(histories: Sequence[Bars]) -> None:
    # A low quantile measures the bar length, because a thinly traded asset has few bars without a gap between them.
    steps = {h.symbols[0]: np.quantile(np.diff(h.times), SHORT_STEPS, method="lower") for h in histories if len(h) > 1}
    if not steps:
        return
    longest, shortest = max(steps, key=steps.__getitem__), min(steps, key=steps.__getitem__)
    if steps[longest] >= MAX_SPACING_RATIO * steps[shortest]:
        raise DataError(
            f"{shortest} has a bar every {format_duration(steps[shortest])} and {longest} every "
            f"{format_duration(steps[longest])}; align=True needs bars of one length, so resample one of the two."
        )


def alignment_notes(
    names: Sequence[str], parts: Sequence[Columns], columns: Columns, tz: str | None, delisted_after: float
) -> list[str]:
    """Describe where an asset has no bar on the union calendar: before its first, between, or after its last.

    Args:
        names: of the assets.
        parts: the columns of one asset each.
        columns: of all together, see `align_histories`.
        tz: zone in which times are shown.
        delisted_after: days without a bar, see `Market.delisted_after`.
    """
    times, notes = columns["times"], []
    limit = f"more than {format_duration(np.timedelta64(nanoseconds(delisted_after), 'ns'))}"
    rule = "never" if delisted_after == math.inf else f"after {limit}"

    def shown(row: int) -> str:
        return format_time(wall_clock(times[row : row + 1], tz)[0])

    for a, (name, part) in enumerate(zip(names, parts, strict=True)):
        own = part["times"]
        first, last = (int(row) for row in np.searchsorted(times, own[[0, -1]]))
        span, after = last - first + 1, len(times) - 1 - last
        if first:
            notes.append(f"{name}: The first bar is at {shown(first)}, {first:,} bars after the first of all.")
        if span > len(own):
            notes.append(
                f"{name}: There is no bar at {span - len(own):,} of the {span:,} times from its first to its last; "
                "orders are cancelled there, and a position is held at its last close."
            )
        ends = np.flatnonzero(columns["delisted"][:, a]) if columns["delisted"] is not None else np.array([], int)
        for row in ends:
            following = int(np.searchsorted(own, times[row]))
            before = int(np.searchsorted(times, own[following - 1]))
            notes.append(
                f"{name}: There is no bar for {limit} after {shown(before)}; a position is closed at that close, as "
                f"delisted, at {shown(int(row))}."
            )
            if following < len(own):
                again = shown(int(np.searchsorted(times, own[following])))
                notes[-1] += f" It has bars again from {again}, so its exchange may have been shut: see delisted_after."
        if after and not (ends.size and ends[-1] > last):
            notes.append(
                f"{name}: The last bar is at {shown(last)}, {after:,} bar{'s' * (after > 1)} before the last of all; a "
                f"position is kept at that close (an asset is delisted {rule})."
            )
    return notes
