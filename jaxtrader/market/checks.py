"""What a bar must satisfy, and what is worth telling of a history: order of times, sane prices, gaps, split-like jumps.

Works on NumPy arrays of one symbol; it reads no files and changes nothing but what `clip` is asked to.
"""

from collections.abc import Callable, Mapping

import numpy as np

Where = Callable[[int], str]
"""Names a row as the user counts it, e.g. `prices.csv, row 17`."""

DAY = np.timedelta64(1, "D")
SPLIT_RATIOS = ((2, 1), (3, 1), (3, 2), (4, 1), (5, 1), (7, 1), (10, 1), (20, 1))
SPLIT_TOLERANCE = 0.015
CLIP_HINT = "correct it or load with repair='clip' (--repair clip)"


class DataError(ValueError):
    """Bad market data; the message is one sentence for the user."""


def check_times(times: np.ndarray, where: Where, source: str) -> None:
    """Raise DataError unless `times` [T] (datetime64[ns]) increase strictly."""
    steps = np.diff(times).astype(np.int64)
    bad = np.flatnonzero(steps <= 0)
    if not bad.size:
        return
    if (steps < 0).all() and len(times) > 2:
        raise DataError(
            f"{source} is in descending order (newest bar first, {show_time(times[0])} down to {show_time(times[-1])})"
            "; bars must run from old to new: reverse it, e.g. df.sort_values(<time column>), and load it again."
        )
    row = int(bad[0]) + 1
    if steps[row - 1] == 0:
        raise DataError(
            f"{where(row)}: the time {show_time(times[row])} stands in the row before it too{_more(bad)}, but times "
            "must be unique; remove one of the two rows, or name the symbol column 'symbol' if the file holds several "
            "symbols."
        )
    raise DataError(
        f"{where(row)}: the time {show_time(times[row])} is earlier than {show_time(times[row - 1])} in the row "
        f"before it{_more(bad)}, but bars must run from old to new; sort the data by time, e.g. df.sort_values(<time "
        "column>)."
    )


def check_bars(prices: Mapping[str, np.ndarray], where: Where) -> None:
    """Raise DataError at the first row of open, high, low, close, volume [T] that breaks a rule of a bar."""
    for name in ("open", "high", "low", "close"):
        check_positive(name, prices[name], where)
    top, bottom = np.maximum(prices["open"], prices["close"]), np.minimum(prices["open"], prices["close"])
    _check_envelope("high", prices["high"], prices["high"] < top, "at least", top, where)
    _check_envelope("low", prices["low"], prices["low"] > bottom, "at most", bottom, where)
    volume = prices["volume"]
    missing = np.flatnonzero(np.isnan(volume))
    if missing.size:
        raise DataError(
            f"{where(missing[0])}: volume is missing{_more(missing)}, but it must be a number of 0 or more; "
            f"{CLIP_HINT}, which sets a missing volume to 0."
        )
    bad = np.flatnonzero(~(np.isfinite(volume) & (volume >= 0)))
    if bad.size:
        raise DataError(
            f"{where(bad[0])}: volume is {volume[bad[0]]:.10g}{_more(bad)}, but it must be a number of 0 or more; "
            "correct the row."
        )


def check_positive(name: str, values: np.ndarray, where: Where) -> None:
    """Raise DataError at the first of `values` [T] that is not a finite number above 0."""
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if not bad.size:
        return
    row = int(bad[0])
    state = "missing (NaN)" if np.isnan(values[row]) else f"{values[row]:.10g}"
    cut = " (is the file cut off?)" if row == len(values) - 1 and np.isnan(values[row]) else ""
    raise DataError(
        f"{where(row)}: {name} is {state}{_more(bad)}, but a price must be a finite number above 0; correct or remove "
        f"the row{cut}."
    )


def clip(prices: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str | None]:
    """High and low become the envelope of the bar and a missing volume 0; also a sentence with the counts, if any.

    A NaN or non-positive price is left as it is, for `check_bars` to refuse: there is nothing to clip it to.
    """
    out = dict(prices)
    four = np.stack([prices[name] for name in ("open", "high", "low", "close")])
    broken = np.isnan(four).any(axis=0)
    out["high"] = np.where(broken, prices["high"], four.max(axis=0))
    out["low"] = np.where(broken, prices["low"], four.min(axis=0))
    missing = np.isnan(prices["volume"])
    out["volume"] = np.where(missing, 0.0, prices["volume"])
    high = int(np.sum(~broken & (out["high"] != prices["high"])))
    low = int(np.sum(~broken & (out["low"] != prices["low"])))
    if not (high or low or missing.any()):
        return out, None
    return (
        out,
        f"repair='clip' raised high in {high} bars, lowered low in {low} and set volume to 0 in {missing.sum()}.",
    )


def spacing(times: np.ndarray) -> np.timedelta64:
    """The most frequent distance between neighbours of `times` [T], T >= 2 (the smallest of equals)."""
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[np.argmax(counts)]


def gap_note(times: np.ndarray) -> str | None:
    """One sentence with the count of gaps in `times` [T] and the largest, or None; nothing is ever filled.

    A gap is longer than 1.5 times the regular spacing. In markets that close (under 15% of the bars lie on a weekend)
    nights, weekends and holidays, 6 hours to 4.5 days, are no gaps.
    """
    if len(times) < 3:
        return None
    steps, regular = np.diff(times), spacing(times)
    long = steps > regular * 3 // 2
    weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7
    closes = np.mean(weekday >= 5) < 0.15 and regular <= DAY
    if closes:
        long &= (steps < np.timedelta64(6, "h")) | (steps > np.timedelta64(108, "h"))
    if not long.any():
        return None
    at = int(np.argmax(np.where(long, steps, np.timedelta64(0, "ns"))))
    kind = "beyond nights, weekends and holidays " if closes else ""
    return (
        f"{long.sum():,} gaps {kind}(the usual spacing is {show_span(regular)}); the largest is {show_span(steps[at])},"
        f" after {show_time(times[at])}; nothing was filled."
    )


def split_note(times: np.ndarray, open_: np.ndarray, close: np.ndarray) -> str | None:
    """One sentence that names jumps open[t] / close[t-1] near the ratio of a share split, or None. All [T]."""
    ratio = open_[1:] / close[:-1]
    found = []
    for new, old in SPLIT_RATIOS:
        for wanted, text in ((old / new, f"{new}-for-{old} split"), (new / old, f"{old}-for-{new} reverse split")):
            rows = np.flatnonzero(np.abs(ratio / wanted - 1) <= SPLIT_TOLERANCE)
            found += [(int(row) + 1, text) for row in rows]
    if not found:
        return None
    found.sort()
    listed = ", ".join(
        f"{show_time(times[row])} (open/last close {ratio[row - 1]:.3f}, a {text})" for row, text in found[:3]
    )
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"Looks like unadjusted splits: {listed}{more}; use adjusted prices, or a file with an adjusted close."


def _check_envelope(
    name: str, values: np.ndarray, wrong: np.ndarray, rule: str, limit: np.ndarray, where: Where
) -> None:
    bad = np.flatnonzero(wrong)
    if bad.size:
        row = bad[0]
        edge = "max" if rule == "at least" else "min"
        raise DataError(
            f"{where(row)}: {name} is {values[row]:.10g}, but it must be {rule} {edge}(open, close) = "
            f"{limit[row]:.10g}{_more(bad)}; {CLIP_HINT}, which sets high and low to the envelope of the bar."
        )


def _more(bad: np.ndarray) -> str:
    return f" (and in {len(bad) - 1:,} more rows)" if len(bad) > 1 else ""


def show_time(time: np.datetime64) -> str:
    """A time without what is 0 of it."""
    text = str(time.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


def show_span(step: np.timedelta64) -> str:
    """A distance in time in days and a clock."""
    seconds = int(step // np.timedelta64(1, "s"))
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    if not days:
        return clock
    return f"{days} day{'s' * (days > 1)}" + (f" {clock}" if rest else "")
