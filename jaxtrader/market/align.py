"""Combines the columns of several histories: one after another, or aligned on the union of their calendars.

Each history's features are computed from its own bars before it is combined, so no filled row enters a feature.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtrader.market.bar_checks import PRICES, format_duration, format_time, spacing
from jaxtrader.market.bars import Bars
from jaxtrader.market.calendar import TradingCalendar, find_calendar
from jaxtrader.market.clock import DAY, union, wall_clock
from jaxtrader.market.delistings import limit_of, silent_for_long
from jaxtrader.market.features import Feature, compute_features
from jaxtrader.market.sessions import session_ends
from jaxtrader.market.shared_rows import are_daily, row_times
from jaxtrader.market.trailing import VALUE_FLOOR, traded_value, volatility, volume_fault

# For a history that lacks an optional column.
DEFAULTS = {"bar_dt": 0.0, "funding": 0.0, "price_factor": 1.0, "session_end": False}
YEAR = np.timedelta64(365, "D")

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
        "adv": None if volume_fault(bars.volume) else traded_value(bars.close, bars.volume, bars.price_factor),
        "session_end": session_ends(bars.times, bars.calendar, bars.tz),
        "columns": dict(bars.columns),
    }


def volume_notes(names: Sequence[str], histories: Sequence[Bars]) -> list[str]:
    """Describe each history whose volume is unreliable. Loading has already described a volume that is always 0."""
    return [
        f"{name}: Volume {fault}, so it is not used: there is no average traded value (adv) for impact and volume caps."
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


def align_histories(
    histories: Sequence[Bars], parts: Sequence[Columns], tz: str | None, delisted_after: float
) -> tuple[Columns, TradingCalendar | None, list[str]]:
    """Align single-asset histories on the union of their rows, [T, A] each, as one segment.

    At a row without a bar an asset keeps its last close as open, high, low and close, and the other columns of its last
    bar. Volume and funding are 0 there. Before its first bar its prices are its first open, its features NaN, and its
    volatility and traded value the floors.

    Args:
        histories: the histories, of one asset each.
        parts: their columns.
        tz: zone of the exchange, for `session_end` and the times in notes.
        delisted_after: days without a bar, see `Market.delisted_after`.

    Returns:
        The columns with `present`, `delisted` and `listed`, which are None in the cases that `Market` names. The
        calendar of their times, None of a single one. And notes on where bars are missing.

    Raises:
        DataError: see `row_times`.
    """
    rows, notes = row_times(histories)
    parts = [{**part, "times": own} for part, own in zip(parts, rows, strict=True)]
    times, daily = union(rows), are_daily(histories)
    calendar = find_calendar(times, tz, daily=daily) if len(times) > 1 else None
    aligned = [_reindex(part, times, limit_of(delisted_after)) for part in _complete(parts)]
    out: Columns = {name: _join([part[name] for part in aligned], 1) for name in aligned[0] if name != "columns"}
    out["columns"] = _join_further(aligned, 1)
    out["session_end"] = session_ends(times, calendar, tz)
    out["present"] = None if out["present"].all() else out["present"]
    out["delisted"] = out["delisted"] if out["delisted"].any() else None
    ready = int(np.argmax(out["listed"].any(axis=1)))
    out["listed"] = None if out["listed"][ready:].all() else out["listed"]
    segments = np.array([[0, 0, len(times)]], np.int64)
    steps = {"dt": years_between(times), "bar_dt": None if daily else years_inside(times)}
    columns = {**out, **steps, "times": times, "segments": segments}
    names = [history.symbols[0] for history in histories]
    return columns, calendar, notes + _alignment_notes(names, rows, columns, tz, delisted_after)


def _reindex(part: Columns, times: np.ndarray, limit: int) -> Columns:
    """Put the columns of one asset on a calendar that contains all its times, [T, 1] each. `limit` is of Silence."""
    latest = np.searchsorted(part["times"], times, side="right") - 1  # bar at or before each row, -1 before the first
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
    gone = silent_for_long(present[:, 0], times, limit)[:, None]
    out["delisted"] = gone & ~np.concatenate([gone[:1], gone[:-1]])
    out["listed"] = np.isfinite(out["features"]).all(axis=2) & ~gone
    return out


def _alignment_notes(
    names: Sequence[str], rows: Sequence[np.ndarray], columns: Columns, tz: str | None, delisted_after: float
) -> list[str]:
    """Describe where an asset has no bar on the union calendar: before its first, between, or after its last.

    `rows` are the times of each asset's bars, and `columns` those of all together.
    """
    times, notes = columns["times"], []
    limit = f"more than {format_duration(np.timedelta64(limit_of(delisted_after), 'ns'))}"
    rule = "never" if delisted_after == math.inf else f"after {limit}"

    def shown(row: int) -> str:
        return format_time(wall_clock(times[row : row + 1], tz)[0])

    for a, (name, own) in enumerate(zip(names, rows, strict=True)):
        first, last = (int(row) for row in np.searchsorted(times, own[[0, -1]]))
        span, after = last - first + 1, len(times) - 1 - last
        if first:
            notes.append(
                f"{name}: The first bar is at {shown(first)}, {first:,} bar{'s' * (first > 1)} after the first of all."
            )
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
                notes[-1] += (
                    f" It has bars again from {again}, so its exchange may have been shut: see `delisted_after`."
                )
        if after and not (ends.size and ends[-1] > last):
            notes.append(
                f"{name}: The last bar is at {shown(last)}, {after:,} bar{'s' * (after > 1)} before the last of all; a "
                f"position is kept at that close (an asset is delisted {rule})."
            )
    return notes
