"""Where the columns of several histories go: end to end along time, or side by side on the union of their calendars.

Each history's columns are computed from its own bars before they are laid anywhere, so no filled row enters a feature.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxtrader.market.bars import Bars, DataError
from jaxtrader.market.checks import show_span, show_time
from jaxtrader.market.features import Feature, compute_features
from jaxtrader.market.sessions import session_ends
from jaxtrader.market.trailing import VALUE_FLOOR, distrust, traded_value, volatility

PRICES = ("open", "high", "low", "close")
ABSENT = {"funding": 0.0, "price_factor": 1.0, "session_end": False}  # of a history that has none beside one that has
YEAR = np.timedelta64(365, "D")
SILENT = 5  # rows without a bar at the end that are no delisting: a thinly traded asset has none there by chance
COARSER = 3  # times the spacing of the others: then these bars are of another length

Columns = dict[str, Any]


def columns_of(bars: Bars, features: Sequence[Feature]) -> Columns:
    """A history's own columns by the names of `Market`'s fields, [n, A] each."""
    return {
        **{name: getattr(bars, name) for name in ("times", *PRICES, "volume")},
        "features": compute_features(bars, features),
        "volatility": volatility(bars.close),
        "dt": years_between(bars.times),
        "funding": bars.funding,
        "price_factor": bars.price_factor,
        "adv": _traded_value(bars),
        "session_end": session_ends(bars.times, bars.tz),
    }


def _traded_value(bars: Bars) -> np.ndarray | None:
    if distrust(bars.volume):
        return None
    raw = bars.close if bars.price_factor is None else bars.close / bars.price_factor
    return traded_value(raw, bars.volume)


def volume_notes(names: Sequence[str], histories: Sequence[Bars]) -> list[str]:
    """A sentence for each history whose volume is not trusted; loading has spoken of those without any."""
    return [
        f"{name}: {why} and not trusted, so there is no average traded value (adv) for impact and volume caps."
        for name, history in zip(names, histories, strict=True)
        if history.volume.any() and (why := distrust(history.volume))
    ]


def years_between(times: np.ndarray) -> np.ndarray:
    """[n] years (ACT/365) since the close before, 0 at the first."""
    return np.diff(times, prepend=times[:1]) / YEAR


def end_to_end(parts: Sequence[Columns]) -> Columns:
    """Histories of any lengths one after another on one time axis, and their segments; nothing is padded."""
    parts = _alike(parts)
    ends = np.cumsum([len(part["times"]) for part in parts])
    starts = np.concatenate([[0], ends[:-1]])
    out = {name: _joined([part[name] for part in parts], 0) for name in parts[0]}
    return {**out, "segments": np.stack([starts, starts, ends], axis=1).astype(np.int64)}


def _alike(parts: Sequence[Columns]) -> Sequence[Columns]:
    """Parts of which all have an optional column or none has: it is filled in where it is ABSENT, or goes (adv)."""
    parts = [dict(part) for part in parts]
    for name, value in ABSENT.items():
        if any(part[name] is not None for part in parts):
            for part in parts:
                shape = part["times"].shape if name == "session_end" else part["close"].shape
                part[name] = np.full(shape, value) if part[name] is None else part[name]
    for part in parts:
        part["adv"] = None if any(other["adv"] is None for other in parts) else part["adv"]
    return parts


def _joined(columns: Sequence[np.ndarray | None], axis: int) -> np.ndarray | None:
    there = [column for column in columns if column is not None]
    return np.concatenate(there, axis=axis) if there else None


def side_by_side(parts: Sequence[Columns], tz: str | None) -> Columns:
    """One history of all assets, [T, A] each, on the union of the calendars of single-asset parts.

    A row without a bar of an asset holds its last close as open, high, low and close, no volume or funding, and all
    else of its last bar. Before its first bar the prices are its first open, features NaN, volatility and traded value
    their floors. `present`, `delisted` and `listed` are as `Market` says, None where they would say nothing. `tz` is
    the zone of the exchange.
    """
    times = np.unique(np.concatenate([part["times"] for part in parts]))
    placed = [_placed(part, times) for part in _alike(parts)]
    out: Columns = {name: _joined([one[name] for one in placed], 1) for name in placed[0]}
    out["session_end"] = session_ends(times, tz)
    end = len(times)
    out["present"] = None if out["present"].all() else out["present"]
    out["delisted"] = out["delisted"] if out["delisted"].any() else None
    ready = int(np.argmax(out["listed"].any(axis=1)))
    out["listed"] = None if out["listed"][ready:].all() else out["listed"]
    return {**out, "times": times, "dt": years_between(times), "segments": np.array([[0, 0, end]], np.int64)}


def _placed(part: Columns, times: np.ndarray) -> Columns:
    """One asset's columns on a calendar that holds all its times, [T, 1] each."""
    latest = np.searchsorted(part["times"], times, side="right") - 1  # its last bar at or before each row, -1: none yet
    at = np.maximum(latest, 0)
    begun, present = (latest >= 0)[:, None], (part["times"][at] == times)[:, None]
    out: Columns = {"present": present}
    price = np.where(begun, part["close"][at], part["open"][0])
    out |= {name: np.where(present, part[name][at], price) for name in PRICES}
    out["volume"] = np.where(present, part["volume"][at], 0.0)
    out["features"] = np.where(begun[..., None], part["features"][at], np.nan)
    out["volatility"] = part["volatility"][at]  # at the first bar, too, it is the floor
    out["funding"] = None if part["funding"] is None else np.where(present, part["funding"][at], 0.0)
    out["price_factor"] = None if part["price_factor"] is None else part["price_factor"][at]
    out["adv"] = None if part["adv"] is None else np.where(begun, part["adv"][at], VALUE_FLOOR)
    last = (latest == len(part["times"]) - 1)[:, None]
    gone = last & (last.sum() - 1 > SILENT)
    out["delisted"] = present & gone
    out["listed"] = np.isfinite(out["features"]).all(axis=2) & (present | ~gone)
    return out


def check_alignable(histories: Sequence[Bars]) -> None:
    """Raise DataError where histories cannot be one: not of one symbol each, or without bar times in common."""
    for history in histories:
        names = ",".join(history.symbols)
        if history.close.shape[1] != 1:
            raise DataError(
                f"{names} holds {history.close.shape[1]} symbols already; align=True takes Bars of one symbol each."
            )
        if "," in names:
            raise DataError(
                f"the symbol '{names}' has a comma, which parts the symbols of one history; rename it for align=True."
            )
        if (np.diff(history.times) <= np.timedelta64(0)).any():
            raise DataError(f"The times of {names} do not increase; sort its bars by time and remove what comes twice.")
    if len(histories) > 1:
        _refuse_strangers(histories)
        _refuse_other_lengths(histories)


def _refuse_strangers(histories: Sequence[Bars]) -> None:
    times, counts = np.unique(np.concatenate([history.times for history in histories]), return_counts=True)
    shared = times[counts > 1]
    for history in histories:
        if not np.isin(history.times, shared, assume_unique=True).any():
            raise DataError(
                f"{history.symbols[0]} has no bar time in common with another symbol (it runs from "
                f"{show_time(history.times[0])} to {show_time(history.times[-1])}); bring the times to one zone "
                "and one label (tz=, label=), leave it out, or load separate histories without align."
            )


def _refuse_other_lengths(histories: Sequence[Bars]) -> None:
    """Bars of other lengths, by nearly the shortest spacing: a thinly traded asset has some neighbours too."""
    spans = {h.symbols[0]: np.quantile(np.diff(h.times), 0.1, method="lower") for h in histories if len(h) > 1}
    if not spans:
        return
    longest, shortest = max(spans, key=spans.__getitem__), min(spans, key=spans.__getitem__)
    if spans[longest] >= COARSER * spans[shortest]:
        raise DataError(
            f"{shortest} has a bar every {show_span(spans[shortest])} and {longest} every "
            f"{show_span(spans[longest])}; align=True needs bars of one length, so resample one of the two."
        )


def alignment_notes(names: Sequence[str], parts: Sequence[Columns]) -> list[str]:
    """A sentence for each asset that has no bar at some of the union's times: at the beginning, between, at the end."""
    times = np.unique(np.concatenate([part["times"] for part in parts]))
    notes = []
    for name, part in zip(names, parts, strict=True):
        own = part["times"]
        first, last = np.searchsorted(times, own[[0, -1]])
        span, after = last - first + 1, len(times) - 1 - last
        if first:
            notes.append(f"{name}: The first bar is of {show_time(own[0])}, {first:,} bars after the first of all.")
        if span > len(own):
            notes.append(
                f"{name}: No bar at {span - len(own):,} of the {span:,} times from its first to its last; what is "
                "ordered there is cancelled."
            )
        if after:
            before = "1 bar" if after == 1 else f"{after:,} bars"
            held = f"held at that close (delisted: after more than {SILENT})"
            notes.append(
                f"{name}: The last bar is of {show_time(own[-1])}, {before} before the last of all; a position is "
                f"{'closed there as delisted' if after > SILENT else held}."
            )
    return notes
