"""Features of the market alone: causal, scale-free, each with a finite look-back, in NumPy float64 on the host.

Everything is a sum or maximum over shifted slices, in one fixed order: a running sum (cumsum, pandas rolling) drifts
with what came before, and then live, which has only the last bars, would see other numbers than training saw.
Normalisation is not done here; the Trainer owns it.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxtrader.market import clock
from jaxtrader.market.bars import Bars, DataError
from jaxtrader.market.columns import ADJUSTED, PRICES, VOLUME, canonical
from jaxtrader.market.frames import Frame, coarsen, most_bars


@dataclasses.dataclass(frozen=True)
class Feature:
    """A named function of the bars: row t of `compute(bars)` [T, A] uses bars t-lookback+1..t only; NaN warming up."""

    name: str
    lookback: int
    compute: Callable[[Bars], np.ndarray]

    def on(self, bars: Bars) -> "Feature":
        """The feature with the look-back that it has on such bars: the same, unless its own bars are coarser ones."""
        return self


@dataclasses.dataclass(frozen=True)
class Resampled(Feature):
    """A feature of the bars of a coarser frame, see `resampled`; `lookback` counts those, `on(bars)` the given ones."""

    frame: Frame

    def on(self, bars: Bars) -> Feature:
        """The same with its look-back counted in bars like these; DataError where the frame is not longer than them."""
        self.frame.check_coarser(bars)
        # As many whole frames, one cut off at the beginning, one not complete at the end, and then one bar.
        lookback = (self.lookback + 1) * most_bars(self.frame.numbers(bars)[0]) + 1
        return Feature(self.name, lookback, self.compute)


def log_return(bars: int = 1) -> Feature:
    """log(close[t] / close[t-n]), n = `bars`; look-back n + 1."""
    n = _count("log_return", bars, 1)
    return Feature(f"log_return_{n}", n + 1, lambda b: _log_change(b.close, n))


def momentum(bars: int) -> Feature:
    """log(close[t] / close[t-n]), n = `bars`; look-back n + 1. The same number as `log_return`, by its usual name."""
    n = _count("momentum", bars, 1)
    return Feature(f"momentum_{n}", n + 1, lambda b: _log_change(b.close, n))


def volatility(bars: int) -> Feature:
    """Standard deviation (ddof=1) of the last n one-bar log returns, per bar, not annualised; look-back n + 1."""
    n = _count("volatility", bars, 2)
    return Feature(f"volatility_{n}", n + 1, lambda b: _deviation(_log_change(b.close, 1), n))


def price_range(bars: int) -> Feature:
    """Mean of log(high / low) over the last n bars; look-back n."""
    n = _count("price_range", bars, 1)
    return Feature(f"price_range_{n}", n, lambda b: _mean(_log(b.high / b.low), n))


def drawdown(bars: int) -> Feature:
    """log(close[t] / highest high of the last n bars), at most 0; look-back n."""
    n = _count("drawdown", bars, 1)
    return Feature(f"drawdown_{n}", n, lambda b: _log(b.close / _rolling(b.high, n, np.maximum)))


def distance_to_mean(bars: int) -> Feature:
    """log(close[t] / mean close of the last n bars); look-back n."""
    n = _count("distance_to_mean", bars, 2)
    return Feature(f"distance_to_mean_{n}", n, lambda b: _log(b.close / _mean(b.close, n)))


def volume_ratio(bars: int) -> Feature:
    """volume[t] / mean volume of the last n bars, between 0 and n; 1 where none of them traded; look-back n."""
    n = _count("volume_ratio", bars, 2)

    def compute(b: Bars) -> np.ndarray:
        mean = _mean(b.volume, n)
        return np.where(mean == 0, 1.0, b.volume / np.where(mean == 0, 1.0, mean))

    return Feature(f"volume_ratio_{n}", n, compute)


def gap() -> Feature:
    """log(open[t] / close[t-1]), the move while the market was closed; look-back 2."""

    def compute(b: Bars) -> np.ndarray:
        out = np.full(b.close.shape, np.nan)
        out[1:] = _log(b.open[1:] / b.close[:-1])
        return out

    return Feature("gap", 2, compute)


def time_of_day(wave: str, tz: str | None = None) -> Feature:
    """sin or cos (`wave`) of 2 pi times the share of the day that has passed at close[t], by the clock; look-back 1.

    The clock is that of zone `tz`, else of the bars (`Bars.tz`), else UTC.
    """

    def compute(b: Bars) -> np.ndarray:
        return clock.time_of_day(clock.wall_clock(b.times, tz or b.tz)) / clock.DAY

    return _wave("time_of_day", wave, tz, compute)


def day_of_week(wave: str, tz: str | None = None) -> Feature:
    """sin or cos (`wave`) of 2 pi / 7 times the days since Monday of the date of close[t]; zone and look-back as above.

    A bar that closes at midnight so has the day that begins.
    """

    def compute(b: Bars) -> np.ndarray:
        return clock.day_of_week(clock.wall_clock(b.times, tz or b.tz)) / 7

    return _wave("day_of_week", wave, tz, compute)


def resampled(frame: str, feature: str | Feature) -> Feature:
    """A feature of coarser bars: row t is that of the last coarse bar which is complete at close[t].

    A coarse bar is complete at its end, such as the full hour, not with the last bar that happens to lie in it; one
    without bars does not count. Minutes and hours are those of UTC; a day or a week (from Monday) ends at midnight by
    the clock of the frame's zone, else of `Bars.tz`, else of UTC. Bars of a day or longer that are stamped at midnight
    are taken to bear their date, so "1w" of daily bars runs from Monday's to Sunday's. A user's column stands as it
    does at the last bar of the coarse one.

    Args:
        frame: "5min", "15min", "1h", "4h" and what else divides a day; "1d", "1w"; "1d@America/New_York".
        feature: a name or a Feature, whose n counts coarse bars.

    Returns:
        The feature "frame:name", such as "1h:volatility_20", which is also how to ask for it by name.

    Raises:
        DataError: a frame that is not offered, or a feature that is resampled already.
    """
    chosen, inner = Frame.parse(frame), resolve(feature)
    if isinstance(inner, Resampled):
        raise DataError(f"{frame}:{inner.name} is not possible, for frames do not nest; give the longer one alone.")
    return Resampled(
        name=f"{frame}:{inner.name}",
        lookback=inner.lookback,
        compute=lambda b: _on_frames(inner, b, chosen),
        frame=chosen,
    )


def column(name: str) -> Feature:
    """The user's own column, as it stands; look-back 1, so it must be causal and scale-free by its making.

    It may start with NaN (its warm-up). Raises DataError for price and volume levels, and for a name that stands for
    a built-in feature.
    """
    key = canonical(name)
    if key in (*PRICES, *ADJUSTED):
        raise DataError(
            f"The column '{name}' is a price level and no feature (ratios only: adjusted prices encode future "
            "splits); use momentum_20, distance_to_mean_200 or a ratio of your own."
        )
    if key in VOLUME:
        raise DataError(f"The column '{name}' is a volume level and depends on the symbol's size; use volume_ratio_20.")
    if _built_in(name) is not None:
        raise DataError(f"The column '{name}' has the name of a built-in feature; rename the column.")

    def compute(b: Bars) -> np.ndarray:
        if name not in b.columns:
            raise DataError(
                f"'{name}' is neither a built-in feature ({_spellings()}) nor a numeric column of {b.source}, which "
                f"has {', '.join(b.columns) or 'no further columns'}; correct the name or add the column."
            )
        return b.columns[name]

    return Feature(name, 1, compute)


def resolve(spec: str | Feature) -> Feature:
    """A feature from its name: "volatility_20" is volatility(20), "gap" is gap(), any other string the user's column.

    "time_of_day_sin" and "day_of_week_cos" may carry a zone ("time_of_day_sin@Asia/Tokyo"); "4h:volatility_20" is
    resampled("4h", "volatility_20").
    `resolve(feature.name)` gives back every feature made here, which is how a policy file names them.
    """
    if isinstance(spec, Feature):
        return spec
    if not isinstance(spec, str):
        raise DataError(f"{spec!r} is not a feature; give a Feature, or a name such as 'volatility_20'.")
    return _built_in(spec) or column(spec)


def compute_features(bars: Bars, features: Sequence[Feature]) -> np.ndarray:
    """All features as [T, A, F] float64, NaN only where a feature warms up.

    Raises DataError where a feature has another shape than [T, A], is NaN or infinite after its warm-up, or is a level
    that float32 cannot tell apart.
    """
    out = np.empty((*bars.close.shape, len(features)))
    for i, feature in enumerate(features):
        values = np.asarray(feature.compute(bars), np.float64)
        if values.shape != bars.close.shape:
            raise DataError(
                f"The feature {feature.name} gave shape {values.shape} for {bars.source}; it must be "
                f"{bars.close.shape}, one row a bar and one column a symbol."
            )
        _refuse_holes(feature, feature.on(bars).lookback, values, bars)
        _refuse_levels(feature, values, bars)
        out[..., i] = values
    return out


def _refuse_holes(feature: Feature, lookback: int, values: np.ndarray, bars: Bars) -> None:
    known = ~np.isnan(values).any(axis=1)
    first = int(np.argmax(known)) if known.any() else len(values)
    # A column may warm up for as long as it likes; a computed feature has its look-back for that.
    allowed = first if feature.lookback == 1 else min(first, lookback - 1)
    bad = ~np.isfinite(values).all(axis=1) & (np.isinf(values).any(axis=1) | (np.arange(len(values)) >= allowed))
    if not bad.any():
        return
    row = int(np.argmax(bad))
    fault = "infinite" if np.isinf(values[row]).any() else "missing (NaN)"
    raise DataError(
        f"The feature {feature.name} of {', '.join(bars.symbols)} ({bars.source}) is {fault} at bar {row} "
        f"({str(bars.times[row])[:19].replace('T', ' ')}); after its warm-up every value must be a finite number, so "
        "correct it there or leave the feature out."
    )


def _refuse_levels(feature: Feature, values: np.ndarray, bars: Bars) -> None:
    """A network sees float32: what varies by less than a ten-thousandth of its level is mostly rounding there."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return
    level, deviation = abs(float(known.mean())), float(known.std())
    if 1e-12 * level < deviation < 1e-4 * level:
        raise DataError(
            f"The feature {feature.name} of {', '.join(bars.symbols)} ({bars.source}) varies by {deviation:.3g} around "
            f"a level of {level:.3g}, too little for the float32 that a network sees; give its changes, or subtract "
            "the level."
        )


def _built_in(name: str) -> Feature | None:
    if name == "gap":
        return gap()
    if match := re.fullmatch(r"(time_of_day|day_of_week)_(sin|cos)(?:@(.+))?", name):
        return CLOCKS[match[1]](match[2], match[3])
    if match := re.fullmatch(r"(\d+[a-z]+(?:@[^:]+)?):(.+)", name):
        return resampled(match[1], match[2])
    match = re.fullmatch(r"([a-z_]+)_(\d+)", name)
    if match is None or match[1] not in FACTORIES:
        return None
    return FACTORIES[match[1]](int(match[2]))


def _spellings() -> str:
    clocks = (f"{name}_{wave}" for name in CLOCKS for wave in ("sin", "cos"))
    return ", ".join([*(f"{name}_20" for name in FACTORIES), "gap", *clocks, "1h:volatility_20"])


def _count(name: str, bars: int, least: int) -> int:
    if isinstance(bars, bool) or not isinstance(bars, (int, np.integer)) or bars < least:
        raise DataError(f"{name}({bars!r}) is not possible; the number of bars must be an integer of at least {least}.")
    return int(bars)


def _wave(name: str, wave: str, tz: str | None, turns: Callable[[Bars], np.ndarray]) -> Feature:
    if wave not in ("sin", "cos"):
        raise DataError(f"{name}({wave!r}) is not possible; a clock has no beginning, so it is seen as 'sin' or 'cos'.")
    clock.wall_clock(np.empty(0, "datetime64[ns]"), tz)
    draw = {"sin": np.sin, "cos": np.cos}[wave]

    def compute(b: Bars) -> np.ndarray:
        return np.repeat(draw(2 * np.pi * turns(b))[:, None], b.close.shape[1], axis=1)

    return Feature(f"{name}_{wave}" + (f"@{tz}" if tz else ""), 1, compute)


def _on_frames(inner: Feature, bars: Bars, frame: Frame) -> np.ndarray:
    coarse, latest = coarsen(bars, frame)
    values = np.concatenate([np.full((1, bars.close.shape[1]), np.nan), inner.compute(coarse)])
    return values[latest + 1]


def _log(values: np.ndarray) -> np.ndarray:
    # Always a contiguous array: NumPy's vector and scalar logarithms may differ in the last bit.
    return np.log(np.ascontiguousarray(values))


def _log_change(close: np.ndarray, n: int) -> np.ndarray:
    out = np.full(close.shape, np.nan)
    out[n:] = _log(close[n:] / close[: max(len(close) - n, 0)])
    return out


def _rolling(values: np.ndarray, n: int, combine: np.ufunc) -> np.ndarray:
    """`combine` over values[t-n+1..t], oldest first, for t >= n - 1; NaN before."""
    out = np.full(values.shape, np.nan)
    rows = len(values) - n + 1
    if rows > 0:
        total = values[:rows].copy()
        for k in range(1, n):
            combine(total, values[k : k + rows], out=total)
        out[n - 1 :] = total
    return out


def _mean(values: np.ndarray, n: int) -> np.ndarray:
    return _rolling(values, n, np.add) / n


def _deviation(values: np.ndarray, n: int) -> np.ndarray:
    """Standard deviation (ddof=1) of values[t-n+1..t], around their own mean: the one-pass formula cancels."""
    out = np.full(values.shape, np.nan)
    rows = len(values) - n + 1
    if rows > 0:
        mean = _mean(values, n)[n - 1 :]
        squares = np.zeros_like(mean)
        for k in range(n):
            squares += (values[k : k + rows] - mean) ** 2
        out[n - 1 :] = np.sqrt(squares / (n - 1))
    return out


# Last, for they call the functions above.
FACTORIES: dict[str, Callable[[int], Feature]] = {
    "log_return": log_return,
    "momentum": momentum,
    "volatility": volatility,
    "price_range": price_range,
    "drawdown": drawdown,
    "distance_to_mean": distance_to_mean,
    "volume_ratio": volume_ratio,
}

CLOCKS: dict[str, Callable[[str, str | None], Feature]] = {"time_of_day": time_of_day, "day_of_week": day_of_week}

DEFAULT: tuple[Feature, ...] = (
    volatility(20),
    volatility(60),
    price_range(20),
    momentum(20),
    momentum(252),
    drawdown(252),
    distance_to_mean(200),
)
