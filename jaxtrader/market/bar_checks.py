"""Checks the times, prices and volume of one symbol.

All functions take NumPy arrays. Only `widen_dust` and `clip` change values.
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxtrader.market.errors import DataError, shown

RowName = Callable[[int], str]
"""Names the row at a position, as a user counts it: `row_name(15)` is "prices.csv, row 17"."""

PRICES = ("open", "high", "low", "close")
PRICE_LIMITS = (1e-15, 1e15)  # float32 keeps its precision, and products of prices stay finite
LARGEST = float(np.finfo(np.float32).max)
# Vendors that adjust prices in floating point leave high below the close by an error in the last digits.
DUST = 1e-9
NO_PRICE = "a missing or impossible price"
CLIP_HINT = "correct it or load with `repair='clip'`"
DROP_HINT = "`repair='drop'`, which leaves such rows out"
MOST_DROPPED = 0.05  # share of the rows


def check_times(times: np.ndarray, row_name: RowName) -> None:
    """Raise DataError unless `times` [T] (datetime64[ns]) are strictly increasing."""
    steps = np.diff(times).astype(np.int64)
    bad = np.flatnonzero(steps <= 0)
    if not bad.size:
        return
    row = int(bad[0]) + 1
    if steps[row - 1] == 0:
        raise DataError(
            f"{row_name(row)}: the time {format_time(times[row])} repeats the time of the row before{_more(bad)}, but "
            "times must be unique; remove one of the two rows, or name the symbol column 'symbol' if the file holds "
            "several symbols"
        )
    raise DataError(
        f"{row_name(row)}: the time {format_time(times[row])} is earlier than {format_time(times[row - 1])} in the row "
        f"before{_more(bad)}, but bars must run from old to new; sort the rows by their times"
    )


def check_bars(prices: Mapping[str, np.ndarray], row_name: RowName, way_out: str | None = None) -> None:
    """Check that prices are above 0, that high and low enclose open and close, and that volume is at least 0.

    Args:
        prices: open, high, low, close and volume, [T] each.
        row_name: names a row in the message.
        way_out: the end of the message. None: what can be done about a row of a file.

    Raises:
        DataError: names the first row that breaks one of these rules.
    """
    for name in PRICES:
        check_positive(name, prices[name], row_name, way_out)
    top, bottom = np.maximum(prices["open"], prices["close"]), np.minimum(prices["open"], prices["close"])
    _check_envelope("high", prices["high"], prices["high"] < top, "at least max", top, row_name, way_out)
    _check_envelope("low", prices["low"], prices["low"] > bottom, "at most min", bottom, row_name, way_out)
    volume = prices["volume"]
    missing = np.flatnonzero(np.isnan(volume))
    if missing.size:
        raise DataError(
            f"{row_name(missing[0])}: volume is missing{_more(missing)}, but it must be a number of 0 or more; "
            + (way_out or f"{CLIP_HINT}, which sets a missing volume to 0, or with {DROP_HINT}")
        )
    bad = np.flatnonzero(~_is_volume(prices))
    if bad.size:
        raise DataError(
            f"{row_name(bad[0])}: volume is {volume[bad[0]]:.10g}{_more(bad)}, but it must be a number of 0 or more, "
            f"whose value in currency is at most {LARGEST:.2g}; "
            + (way_out or f"correct the row, or load with {DROP_HINT}")
        )


def check_positive(name: str, values: np.ndarray, row_name: RowName, way_out: str | None = None) -> None:
    """Raise DataError at the first of `values` [T] that is not above 0 and finite, or is outside PRICE_LIMITS.

    For `row_name` and `way_out` see `check_bars`.
    """
    bad = np.flatnonzero(~_is_price(values))
    if not bad.size:
        return
    row, (lowest, highest) = int(bad[0]), PRICE_LIMITS
    if 0 < values[row] < np.inf:
        raise DataError(
            f"{row_name(row)}: {name} is {values[row]:.10g}{_more(bad)}, outside {lowest:g} to {highest:g}, the range "
            "for float32; " + (way_out or "correct the row, or give prices in another unit")
        )
    written = "missing (NaN)" if np.isnan(values[row]) else f"{values[row]:.10g}"
    truncated = " (is the file cut off?)" if row == len(values) - 1 and np.isnan(values[row]) else ""
    raise DataError(
        f"{row_name(row)}: {name} is {written}{_more(bad)}, but a price must be a finite number above 0; "
        + (way_out or f"correct or remove the row{truncated}, or load with {DROP_HINT}")
    )


def _is_price(values: np.ndarray) -> np.ndarray:
    lowest, highest = PRICE_LIMITS
    return (values >= lowest) & (values <= highest)


def _is_volume(prices: Mapping[str, np.ndarray]) -> np.ndarray:
    return (prices["volume"] >= 0) & (prices["volume"] <= LARGEST / np.maximum(prices["close"], 1.0))


def check_float32(name: str, values: np.ndarray, row_name: RowName) -> None:
    """Raise DataError at the first of `values` [T] that float32 cannot hold. NaN, a missing value, is no fault."""
    bad = np.flatnonzero(np.abs(values) > LARGEST)
    if bad.size:
        value = values[bad[0]]
        fault = "infinite" if np.isinf(value) else f"beyond the largest number of float32, {LARGEST:.2g}"
        raise DataError(
            f"{row_name(bad[0])}: '{shown(name)}' is {value:.4g}{_more(bad)}, {fault}; correct the value, leave it "
            "empty, or drop the column"
        )


def _check_envelope(
    name: str,
    values: np.ndarray,
    wrong: np.ndarray,
    rule: str,
    limit: np.ndarray,
    row_name: RowName,
    way_out: str | None,
) -> None:
    bad = np.flatnonzero(wrong)
    if bad.size:
        row = bad[0]
        written, wanted = shown_apart(values[row], limit[row])
        raise DataError(
            f"{row_name(row)}: {name} is {written}, but it must be {rule}(open, close) = {wanted}{_more(bad)}; "
            + (way_out or f"{CLIP_HINT}, which sets high and low to the envelope of the bar, or with {DROP_HINT}")
        )


def broken_rows(prices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mark the rows [T] that `check_bars` refuses, by the first rule that each of them breaks.

    Args:
        prices: open, high, low, close and volume, and the adjusted close if there is one, [T] each.
    """
    impossible = ~np.all([_is_price(values) for name, values in prices.items() if name != "volume"], axis=0)
    top, bottom = np.maximum(prices["open"], prices["close"]), np.minimum(prices["open"], prices["close"])
    outside = ~impossible & ((prices["high"] < top) | (prices["low"] > bottom))
    return {
        NO_PRICE: impossible,
        "an open or close outside of low to high": outside,
        "a missing or impossible volume": ~impossible & ~outside & ~_is_volume(prices),
    }


def shown_apart(one: float, other: float) -> tuple[str, str]:
    """Format two different numbers with as many digits as it takes to tell them apart, 6 at least."""
    digits = 6
    while digits < 17 and f"{one:.{digits}g}" == f"{other:.{digits}g}":
        digits += 1
    return f"{one:.{digits}g}", f"{other:.{digits}g}"


def widen_dust(prices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Raise high and lower low to open and close where they miss them by a share of at most DUST."""
    out = dict(prices)
    top, bottom = np.maximum(prices["open"], prices["close"]), np.minimum(prices["open"], prices["close"])
    for name, limit, missed in (
        ("high", top, (prices["high"] < top) & (prices["high"] >= top * (1 - DUST))),
        ("low", bottom, (prices["low"] > bottom) & (prices["low"] <= bottom * (1 + DUST))),
    ):
        if missed.any():
            out[name] = np.where(missed, limit, prices[name])
    return out


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
    four = np.stack([prices[name] for name in PRICES])
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
        f"`repair='clip'` raised high in {high} bars, lowered low in {low} and set volume to 0 in {missing.sum()}.",
    )


def spacing(times: np.ndarray) -> np.timedelta64:
    """Return the most frequent step of `times` [T], T >= 2. Among equally frequent steps it is the shortest."""
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[np.argmax(counts)]


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
