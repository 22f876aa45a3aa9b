"""Checks the times, prices and volume of one symbol, and describes gaps and jumps that look like share splits.

All functions take NumPy arrays. Only `clip` changes values.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxtrader.market.clock import DAY, day_of_week
from jaxtrader.market.errors import DataError

RowName = Callable[[int], str]
"""Names the row at a position, as a user counts it: `row_name(15)` is "prices.csv, row 17"."""

SPLIT_RATIOS = ((2, 1), (3, 1), (3, 2), (4, 1), (5, 1), (7, 1), (10, 1), (20, 1))
SPLIT_TOLERANCE = 0.015
CLIP_HINT = "correct it or load with repair='clip' (--repair clip)"


def check_times(times: np.ndarray, row_name: RowName, source: str) -> None:
    """Raise DataError unless `times` [T] (datetime64[ns]) are strictly increasing."""
    steps = np.diff(times).astype(np.int64)
    bad = np.flatnonzero(steps <= 0)
    if not bad.size:
        return
    if (steps < 0).all() and len(times) > 2:
        raise DataError(
            f"{source} is in descending order (newest bar first, from {format_time(times[0])} down to "
            f"{format_time(times[-1])}); sort it by time, e.g. df.sort_values(<time column>)."
        )
    row = int(bad[0]) + 1
    if steps[row - 1] == 0:
        raise DataError(
            f"{row_name(row)}: the time {format_time(times[row])} repeats the time of the row before{_more(bad)}, but "
            "times must be unique; remove one of the two rows, or name the symbol column 'symbol' if the file holds "
            "several symbols."
        )
    raise DataError(
        f"{row_name(row)}: the time {format_time(times[row])} is earlier than {format_time(times[row - 1])} in the row "
        f"before{_more(bad)}, but bars must run from old to new; sort the data by time, e.g. df.sort_values(<time "
        "column>)."
    )


def check_bars(prices: Mapping[str, np.ndarray], row_name: RowName) -> None:
    """Check that prices are above 0, that high and low enclose open and close, and that volume is at least 0.

    Args:
        prices: open, high, low, close and volume, [T] each.
        row_name: names a row in the message.

    Raises:
        DataError: names the first row that breaks one of these rules.
    """
    for name in ("open", "high", "low", "close"):
        check_positive(name, prices[name], row_name)
    top, bottom = np.maximum(prices["open"], prices["close"]), np.minimum(prices["open"], prices["close"])
    _check_envelope("high", prices["high"], prices["high"] < top, "at least max", top, row_name)
    _check_envelope("low", prices["low"], prices["low"] > bottom, "at most min", bottom, row_name)
    volume = prices["volume"]
    missing = np.flatnonzero(np.isnan(volume))
    if missing.size:
        raise DataError(
            f"{row_name(missing[0])}: volume is missing{_more(missing)}, but it must be a number of 0 or more; "
            f"{CLIP_HINT}, which sets a missing volume to 0."
        )
    bad = np.flatnonzero(~(np.isfinite(volume) & (volume >= 0)))
    if bad.size:
        raise DataError(
            f"{row_name(bad[0])}: volume is {volume[bad[0]]:.10g}{_more(bad)}, but it must be a number of 0 or more; "
            "correct the row."
        )


def check_positive(name: str, values: np.ndarray, row_name: RowName) -> None:
    """Raise DataError at the first of `values` [T] that is not a finite number above 0."""
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if not bad.size:
        return
    row = int(bad[0])
    shown = "missing (NaN)" if np.isnan(values[row]) else f"{values[row]:.10g}"
    truncated = " (is the file cut off?)" if row == len(values) - 1 and np.isnan(values[row]) else ""
    raise DataError(
        f"{row_name(row)}: {name} is {shown}{_more(bad)}, but a price must be a finite number above 0; correct or "
        f"remove the row{truncated}."
    )


def _check_envelope(
    name: str, values: np.ndarray, wrong: np.ndarray, rule: str, limit: np.ndarray, row_name: RowName
) -> None:
    bad = np.flatnonzero(wrong)
    if bad.size:
        row = bad[0]
        raise DataError(
            f"{row_name(row)}: {name} is {values[row]:.10g}, but it must be {rule}(open, close) = "
            f"{limit[row]:.10g}{_more(bad)}; {CLIP_HINT}, which sets high and low to the envelope of the bar."
        )


def clip(prices: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str | None]:
    """Set high and low to the highest and lowest price of the bar, and a missing volume to 0.

    A bar with a missing price keeps its high and low, because nothing is known to set them to. `check_bars` rejects
    such a bar.

    Args:
        prices: open, high, low, close and volume, [T] each.

    Returns:
        The repaired columns, and a sentence that counts the repairs, or None without any.
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
    """Return the most frequent step of `times` [T], T >= 2. Among equally frequent steps it is the shortest."""
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[np.argmax(counts)]


def gap_note(times: np.ndarray) -> str | None:
    """Describe the gaps in `times` [T], or return None without any.

    A gap is a step of more than 1.5 times the regular spacing. A market whose bars are daily or shorter, and lie on a
    weekend in less than 15% of the cases, is taken to close. There, steps of 6 hours to 4.5 days are nights, weekends
    and holidays, and no gaps.
    """
    if len(times) < 3:
        return None
    steps, regular = np.diff(times), spacing(times)
    long = steps > regular * 3 // 2
    closes = np.mean(day_of_week(times) >= 5) < 0.15 and regular <= DAY
    if closes:
        long &= (steps < np.timedelta64(6, "h")) | (steps > np.timedelta64(108, "h"))
    if not long.any():
        return None
    at = int(np.argmax(np.where(long, steps, np.timedelta64(0, "ns"))))
    kind = "beyond nights, weekends and holidays " if closes else ""
    return (
        f"{long.sum():,} gaps {kind}(the usual spacing is {format_duration(regular)}); the largest is "
        f"{format_duration(steps[at])}, after {format_time(times[at])}; nothing was filled."
    )


def split_note(times: np.ndarray, open_: np.ndarray, close: np.ndarray) -> str | None:
    """Name the bars [T] whose open[t] / close[t-1] is near the ratio of a share split, or return None."""
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
        f"{format_time(times[row])} (open/last close {ratio[row - 1]:.3f}, a {text})" for row, text in found[:3]
    )
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"These jumps look like unadjusted splits: {listed}{more}; use adjusted prices, or add an adjusted close."


def format_time(time: np.datetime64) -> str:
    """Format a time without a clock that is midnight: "2024-01-31" or "2024-01-31 15:30:00"."""
    text = str(time.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


def format_duration(duration: np.timedelta64) -> str:
    """Format a duration in days, hours, minutes and seconds: "2 days 1:30:00", "1 day" or "0:05:00"."""
    seconds = int(duration // np.timedelta64(1, "s"))
    days, rest = divmod(seconds, 86400)
    hours = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    if not days:
        return hours
    return f"{days} day{'s' * (days > 1)}" + (f" {hours}" if rest else "")


def _more(bad: np.ndarray) -> str:
    return f" (and in {len(bad) - 1:,} more rows)" if len(bad) > 1 else ""
