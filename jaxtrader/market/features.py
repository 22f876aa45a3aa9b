"""Features of the market: causal, scale-free functions of bars with a finite look-back, in NumPy float64.

To add a feature, write a function such as `volatility` and enter it in FACTORIES.

A value is a sum or maximum over shifted slices in a fixed order. A running sum (cumsum, pandas rolling) carries
rounding errors from old bars. A live policy, which has only the last bars, would see other values than in training.
Features are normalised by the Trainer, not here.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxtrader.market import clock
from jaxtrader.market.bar_checks import LARGEST
from jaxtrader.market.bars import Bars
from jaxtrader.market.columns import ADJUSTED, PRICE_SPELLINGS, VOLUME, canonical
from jaxtrader.market.errors import DataError
from jaxtrader.market.resample import TimeFrame, max_bars_per_frame, resample
from jaxtrader.nearest import hint
from jaxtrader.setting_checks import check_whole, is_whole

BLOCK = 1 << 14  # numbers of a column that are worked on at a time


@dataclasses.dataclass(frozen=True)
class Feature:
    """A named function of the bars.

    Attributes:
        name: names the feature in a market and in a policy file.
        lookback: number of bars that a value needs. Row t uses bars t - lookback + 1 to t only.
        compute: maps `Bars` to values [T, A], which are NaN in the first lookback - 1 rows.

    Example:
        >>> body = jt.features.Feature("body", 1, lambda bars: np.log(bars.close / bars.open))
        >>> jt.Market.from_bars(jt.load_bundled("IBM"), features=[body, "gap"]).feature_names
        ('body', 'gap')
    """

    name: str
    lookback: int
    compute: Callable[[Bars], np.ndarray]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a Feature has the name {self.name!r:.60}; give a word")
        object.__setattr__(self, "lookback", check_whole("lookback", self.lookback, unit="bars"))
        if not callable(self.compute):
            raise ValueError(f"the Feature {self.name} computes {self.compute!r:.60}; give a function of the bars")

    def for_bars(self, bars: Bars) -> "Feature":
        """Return the feature with its look-back counted in bars such as `bars`."""
        return self


@dataclasses.dataclass(frozen=True)
class ResampledFeature(Feature):
    """A feature of the bars of a longer time frame, see `resampled`. Its `lookback` counts coarse bars."""

    frame: TimeFrame

    def for_bars(self, bars: Bars) -> Feature:
        """Return the feature with its look-back counted in `bars`. Raise DataError if the frame is not longer."""
        self.frame.check_longer_than(bars)
        # The look-back spans that many complete frames, a first one that is cut off, and the incomplete one of the row.
        lookback = (self.lookback + 1) * max_bars_per_frame(self.frame, bars) + 1
        return Feature(self.name, lookback, self.compute)


def log_return(bars: int = 1) -> Feature:
    """log(close[t] / close[t-n]) with n = `bars`. Look-back n + 1.

    Example:
        >>> jt.features.log_return(5).name
        'log_return_5'
    """
    n = _bar_count("log_return", bars, 1)
    return Feature(f"log_return_{n}", n + 1, lambda b: _log_change(b.close, b.close, n))


def volatility(bars: int) -> Feature:
    """Standard deviation (ddof=1) of the last n one-bar log returns, not annualised. Look-back n + 1.

    Example:
        >>> feature = jt.features.volatility(20)
        >>> feature.name, feature.lookback
        ('volatility_20', 21)
    """
    n = _bar_count("volatility", bars, 2)
    return Feature(f"volatility_{n}", n + 1, lambda b: _rolling_deviation(_log_change(b.close, b.close, 1), n))


def price_range(bars: int) -> Feature:
    """Mean of log(high / low) over the last n bars. Look-back n.

    Example:
        >>> feature = jt.features.price_range(5)
        >>> feature.name, feature.lookback
        ('price_range_5', 5)
    """
    n = _bar_count("price_range", bars, 1)
    return Feature(f"price_range_{n}", n, lambda b: _rolling_mean(_log(b.high / b.low), n))


def drawdown(bars: int) -> Feature:
    """log(close[t] / highest high of the last n bars), at most 0. Look-back n.

    Example:
        >>> feature = jt.features.drawdown(60)
        >>> feature.name, feature.lookback
        ('drawdown_60', 60)
    """
    n = _bar_count("drawdown", bars, 1)
    return Feature(f"drawdown_{n}", n, lambda b: _log(b.close / _rolling_max(b.high, n)))


def distance_to_mean(bars: int) -> Feature:
    """log(close[t] / mean close of the last n bars). Look-back n.

    Example:
        >>> feature = jt.features.distance_to_mean(20)
        >>> feature.name, feature.lookback
        ('distance_to_mean_20', 20)
    """
    n = _bar_count("distance_to_mean", bars, 2)
    return Feature(f"distance_to_mean_{n}", n, lambda b: _log(b.close / _rolling_mean(b.close, n)))


def volume_ratio(bars: int) -> Feature:
    """volume[t] / mean volume of the last n bars, between 0 and n, and 1 if that mean is 0. Look-back n.

    Example:
        >>> feature = jt.features.volume_ratio(20)
        >>> feature.name, feature.lookback
        ('volume_ratio_20', 20)
    """
    n = _bar_count("volume_ratio", bars, 2)

    def compute(b: Bars) -> np.ndarray:
        mean = _rolling_mean(b.volume, n)
        return np.where(mean == 0, 1.0, b.volume / np.where(mean == 0, 1.0, mean))

    return Feature(f"volume_ratio_{n}", n, compute)


def gap() -> Feature:
    """log(open[t] / close[t-1]), the move while the market was closed. Look-back 2.

    Example:
        >>> feature = jt.features.gap()
        >>> feature.name, feature.lookback
        ('gap', 2)
    """
    return Feature("gap", 2, lambda b: _log_change(b.open, b.close, 1))


def time_of_day(wave: str, tz: str | None = None) -> Feature:
    """sin or cos (`wave`) of 2 pi times the share of the day that has passed at close[t]. Look-back 1.

    The wall clock is that of zone `tz`, or of `Bars.tz` if `tz` is None, or else UTC.

    Example:
        >>> feature = jt.features.time_of_day("sin", "Asia/Tokyo")
        >>> feature.name, feature.lookback
        ('time_of_day_sin@Asia/Tokyo', 1)
    """
    return _cyclic("time_of_day", wave, tz, lambda local: clock.time_of_day(local) / clock.DAY)


def day_of_week(wave: str, tz: str | None = None) -> Feature:
    """sin or cos (`wave`) of 2 pi / 7 times the days from Monday to the date of close[t]. Look-back 1.

    A bar that closes at midnight belongs to the day that begins. The zone is chosen as in `time_of_day`.

    Example:
        >>> feature = jt.features.day_of_week("cos")
        >>> feature.name, feature.lookback
        ('day_of_week_cos', 1)
    """
    return _cyclic("day_of_week", wave, tz, lambda local: clock.day_of_week(local) / 7)


def resampled(frame: str, feature: str | Feature) -> Feature:
    """A feature of coarser bars. Row t is its value at the last coarse bar that is complete at close[t].

    A coarse bar is complete at its end, such as the full hour, and not earlier with its last fine bar. A frame without
    bars is skipped. Minutes and hours are UTC. A day or a week (from Monday) ends at midnight in the zone of the frame,
    or of `Bars.tz`, or else in UTC. The time of a daily or longer bar at midnight is its date, so that "1w" of daily
    bars covers Monday to Sunday. A column of the user has the value of the last fine bar.

    Args:
        frame: minutes or hours that divide a day ("5min", "4h"), "1d", "1w", or with a zone "1d@America/New_York".
        feature: a name or a `Feature`. Its n counts coarse bars.

    Returns:
        The feature "frame:name", such as "1h:volatility_20". `resolve` accepts this name.

    Raises:
        DataError: the frame is not supported, or the feature is already resampled.

    Example:
        >>> jt.features.resampled("1w", "log_return_4").name
        '1w:log_return_4'
    """
    time_frame, inner = TimeFrame.parse(frame), resolve(feature)
    if isinstance(inner, ResampledFeature):
        raise DataError(f"{frame}:{inner.name} nests two frames; use the longer frame alone")

    def compute(b: Bars) -> np.ndarray:
        coarse, latest = resample(b, time_frame)
        # Row 0 stands for "no coarse bar is complete", which is index -1.
        values = np.concatenate([np.full((1, b.close.shape[1]), np.nan), inner.compute(coarse)])
        return values[latest + 1]

    return ResampledFeature(f"{frame}:{inner.name}", inner.lookback, compute, time_frame)


def column(name: str) -> Feature:
    """A numeric column of the user, unchanged. Look-back 1.

    The user must make it causal and scale-free. It may begin with NaN, its warm-up.

    Raises:
        DataError: the name is that of a price, the volume or a built-in feature.

    Example:
        >>> jt.features.column("sentiment").lookback
        1
    """
    if not isinstance(name, str):
        raise DataError(f"{name!r:.60} is not the name of a column; give text")
    key = canonical(name)
    if key in (*PRICE_SPELLINGS, *ADJUSTED):
        raise DataError(
            f"The column '{name}' is a price level and cannot be a feature, because adjusted prices encode future "
            "splits; use a ratio such as log_return_20 or distance_to_mean_200"
        )
    if key in VOLUME:
        raise DataError(f"The column '{name}' is a volume level and depends on the symbol's size; use volume_ratio_20")
    if _built_in(name) is not None:
        raise DataError(f"The column '{name}' has the name of a built-in feature; rename the column")

    def compute(b: Bars) -> np.ndarray:
        if name not in b.columns:
            if re.fullmatch(r"momentum_\d+", name):
                raise DataError(f"'{name}' is no feature any more; use log_return_{name[9:]}, the same number")
            raise DataError(
                f"'{name}' is neither a built-in feature ({', '.join(_examples())}) nor a numeric column of "
                f"{b.source}, which has {', '.join(b.columns) or 'no further columns'}; correct the name or add the "
                f"column{hint(name, [*b.columns, *_examples(name)])}"
            )
        return b.columns[name]

    return Feature(name, 1, compute)


def resolve(spec: str | Feature) -> Feature:
    """Return the feature of a name.

    "volatility_20" is volatility(20), "gap" is gap(), "time_of_day_sin@Asia/Tokyo" is time_of_day("sin", "Asia/Tokyo"),
    and "4h:volatility_20" is resampled("4h", "volatility_20"). Any other name is a column of the user. For all of these
    `resolve(feature.name)` returns the same feature again, so a policy file stores only names.

    Raises:
        DataError: `spec` is neither a name nor a `Feature`, or the name has an argument that is not valid.

    Example:
        >>> jt.features.resolve("volatility_20").lookback
        21
    """
    if isinstance(spec, Feature):
        return spec
    if not isinstance(spec, str):
        raise DataError(f"{spec!r} is not a feature; give a Feature, or a name such as 'volatility_20'")
    return _built_in(spec) or column(spec)


def _built_in(name: str) -> Feature | None:
    if name == "gap":
        return gap()
    if match := re.fullmatch(r"(time_of_day|day_of_week)_(sin|cos)(?:@(.+))?", name):
        return CYCLIC_FACTORIES[match[1]](match[2], match[3])
    if match := re.fullmatch(r"(\d+[a-z]+(?:@[^:]+)?):(.+)", name):
        return resampled(match[1], match[2])
    match = re.fullmatch(r"([a-z_]+)_(\d+)", name)
    if match is None or match[1] not in FACTORIES:
        return None
    return FACTORIES[match[1]](int(match[2]))


def _examples(like: str = "") -> list[str]:
    """Return a name of each built-in feature, with the number of bars of another name."""
    numbers = re.findall(r"\d+", like)
    bars = int(numbers[-1]) if numbers else 20
    cyclic = (f"{name}_{wave}" for name in CYCLIC_FACTORIES for wave in ("sin", "cos"))
    return [*(f"{name}_{bars}" for name in FACTORIES), "gap", *cyclic, f"1h:volatility_{bars}"]


def compute_features(bars: Bars, features: Sequence[Feature]) -> np.ndarray:
    """Compute features of one history.

    Returns:
        [T, A, F] float64, NaN only in the warm-up of a feature.

    Raises:
        DataError: a feature has another shape than [T, A], is NaN after its warm-up, or has values or variations that
            float32 cannot represent.
    """
    out = np.empty((*bars.close.shape, len(features)))
    for i, feature in enumerate(features):
        values = np.asarray(feature.compute(bars), np.float64)
        if values.shape != bars.close.shape:
            raise DataError(
                f"The feature {feature.name} has shape {values.shape} for {bars.source}; it must be "
                f"{bars.close.shape}, one row for each bar and one column for each symbol"
            )
        _check_finite(feature, feature.for_bars(bars).lookback, values, bars)
        _check_float32(feature, values, bars)
        out[..., i] = values
    return out


def _check_finite(feature: Feature, lookback: int, values: np.ndarray, bars: Bars) -> None:
    warm_up, rest = values[: lookback - 1], values[lookback - 1 :]
    if len(rest) and rest.min() >= -LARGEST and rest.max() <= LARGEST and np.isnan(warm_up).all():
        return
    known = ~np.isnan(values).any(axis=1)
    first = int(np.argmax(known)) if known.any() else len(values)
    # The warm-up of a column may have any length. That of a computed feature is its look-back.
    warm_up = first if feature.lookback == 1 else min(first, lookback - 1)
    beyond = np.any(np.abs(values) > LARGEST, axis=1)
    bad = np.flatnonzero(beyond | (~known & (np.arange(len(values)) >= warm_up)))
    if not bad.size:
        return
    row = int(bad[0])
    fault = "missing (NaN)"
    if beyond[row]:
        largest = values[row][np.nanargmax(np.abs(values[row]))]
        number = f"{largest:.4g}, beyond the largest number of float32, {LARGEST:.2g},"
        fault = "infinite" if np.isinf(largest) else number
    raise DataError(
        f"The feature {feature.name} of {', '.join(bars.symbols)} ({bars.source}) is {fault} at bar {row} "
        f"({str(bars.times[row])[:19].replace('T', ' ')}), but every value after the warm-up must be a finite number; "
        "correct the value or leave the feature out"
    )


def _check_float32(feature: Feature, values: np.ndarray, bars: Bars) -> None:
    """Raise DataError for a deviation below 1e-4 of the level, most of which a network in float32 would not see."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return
    level, deviation = abs(float(known.mean())), float(known.std())
    if 1e-12 * level < deviation < 1e-4 * level:
        raise DataError(
            f"The feature {feature.name} of {', '.join(bars.symbols)} ({bars.source}) varies by {deviation:.3g} around "
            f"a level of {level:.3g}, too little for the float32 of a network; use its changes, or subtract the level"
        )


def _bar_count(name: str, bars: int, minimum: int) -> int:
    if not is_whole(bars) or bars < minimum:
        raise DataError(f"{name}({bars!r}) is not valid; the number of bars must be an integer of at least {minimum}")
    return int(bars)


def _cyclic(name: str, wave: str, tz: str | None, phase: Callable[[np.ndarray], np.ndarray]) -> Feature:
    """Make a feature of the phase of a cycle, from 0 to 1, at local times [T]."""
    if wave not in ("sin", "cos"):
        raise DataError(f"{name}({wave!r}) is not valid; use 'sin' or 'cos'")
    clock.time_zone(tz)
    function = {"sin": np.sin, "cos": np.cos}[wave]

    def compute(b: Bars) -> np.ndarray:
        angle = 2 * np.pi * phase(clock.wall_clock(b.times, tz or b.tz))
        return np.repeat(function(angle)[:, None], b.close.shape[1], axis=1)

    return Feature(f"{name}_{wave}" + (f"@{tz}" if tz else ""), 1, compute)


def _log(values: np.ndarray) -> np.ndarray:
    # NumPy's vector and scalar logarithms may differ in the last bit. A contiguous array always takes the vector one.
    return np.log(np.ascontiguousarray(values))


def _log_change(now: np.ndarray, before: np.ndarray, n: int) -> np.ndarray:
    """Return log(now[t] / before[t-n]), NaN in the first n rows."""
    out = np.full(now.shape, np.nan)
    out[n:] = _log(now[n:] / before[: max(len(now) - n, 0)])
    return out


def _rolling_by_blocks(values: np.ndarray, n: int, combine: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `combine`, which maps [r + n - 1, A] to [r, A], in blocks of rows that fit into the cache.

    Row t of the result is of values[t-n+1..t]. The first n - 1 rows are NaN.
    """
    out = np.full(values.shape, np.nan)
    rows = len(values) - n + 1
    block = max(BLOCK // values.shape[1], n)
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        out[start + n - 1 : stop + n - 1] = combine(values[start : stop + n - 1])
    return out


def _sum(values: np.ndarray, n: int) -> np.ndarray:
    """Add values[t-n+1..t], oldest first: [r + n - 1, A] to [r, A]."""
    rows = len(values) - n + 1
    if rows == 1:  # a live bar: NumPy accumulates in the same order
        return np.add.accumulate(values)[-1:]
    total = values[:rows].copy()
    for k in range(1, n):
        total += values[k : k + rows]
    return total


def _rolling_max(values: np.ndarray, n: int) -> np.ndarray:
    def largest(block: np.ndarray) -> np.ndarray:
        # A maximum is exact in any order, so that of 2^k rows gives that of 2^(k+1).
        span = 1
        while span < n:
            step = min(span, n - span)
            block = np.maximum(block[: len(block) - step], block[step:])
            span += step
        return block

    return _rolling_by_blocks(values, n, largest)


def _rolling_mean(values: np.ndarray, n: int) -> np.ndarray:
    return _rolling_by_blocks(values, n, lambda block: _sum(block, n)) / n


def _rolling_deviation(values: np.ndarray, n: int) -> np.ndarray:
    """Return the standard deviation (ddof=1) of values[t-n+1..t]. Two passes avoid the cancellation of one."""

    def deviation(block: np.ndarray) -> np.ndarray:
        mean = _sum(block, n) / n
        if len(mean) == 1:
            return np.sqrt(np.add.accumulate((block - mean) ** 2)[-1:] / (n - 1))
        squares = np.zeros_like(mean)
        for k in range(n):
            squares += (block[k : k + len(mean)] - mean) ** 2
        return np.sqrt(squares / (n - 1))

    return _rolling_by_blocks(values, n, deviation)


# These refer to functions above, so they come last.
FACTORIES: dict[str, Callable[[int], Feature]] = {
    "log_return": log_return,
    "volatility": volatility,
    "price_range": price_range,
    "drawdown": drawdown,
    "distance_to_mean": distance_to_mean,
    "volume_ratio": volume_ratio,
}

CYCLIC_FACTORIES: dict[str, Callable[[str, str | None], Feature]] = {
    "time_of_day": time_of_day,
    "day_of_week": day_of_week,
}

DEFAULT: tuple[Feature, ...] = (
    volatility(20),
    volatility(60),
    price_range(20),
    log_return(20),
    log_return(252),
    drawdown(252),
    distance_to_mean(200),
)
