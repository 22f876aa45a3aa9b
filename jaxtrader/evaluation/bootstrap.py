"""Confidence intervals by the stationary block bootstrap, in NumPy and float64 on the host.

Returns of neighbouring bars depend on each other, so blocks of bars are drawn, not bars (Politis and Romano, 1994). The
mean block length follows from the returns (Politis and White, 2004, with the correction of Patton et al., 2009).
Intervals are studentised: each draw is divided by its own standard error. Their coverage is closer to nominal on short
samples than that of plain percentiles (Hall, 1988, and for Sharpe ratios Ledoit and Wolf, 2008). Where few bars carry
the estimate, as of two accounts that differ in a handful of bars, many draws have no error. The interval is then
symmetric.

`returns [N]` are simple returns a bar over cash. All figures are of one bar. Times the root of the bars a year, a
Sharpe ratio is annual, and so are its error and its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95  # nominal coverage of an interval
MIN_BARS = 30  # below, an interval of a Sharpe ratio says nothing
# A draw whose standard error is below this share of the sample's lacks the bars that carry the estimate. Where more
# than this share of the draws do, the interval is symmetric and not studentised.
SMALL_ERROR, SMALL_SHARE = 0.3, 0.002
# Numbers held at once while draws are made: 16 MB of float64, which stays near the processor's cache.
DRAWS_AT_ONCE = 1 << 21

Series = Float[np.ndarray, "series bar"]
Draws = Float[np.ndarray, "series draw bar"]
Estimator = Callable[[Draws], tuple[Float[np.ndarray, " draw"], Float[np.ndarray, "draw bar"]]]


class Interval(NamedTuple):
    """An estimate with its standard error and a confidence interval.

    Attributes:
        estimate: the estimate from the sample.
        error: standard error, robust to autocorrelation up to the block length.
        low, high: bounds of the interval.
        block: the mean length of a block, in bars.
    """

    estimate: float
    error: float
    low: float
    high: float
    block: float


def mean_interval(returns: np.ndarray, *, draws: int = 1000, seed: int = 0) -> Interval:
    """The mean return of a bar.

    Args:
        returns: [N] simple returns, finite.
        draws: how many resamples.
        seed: the seed of the draws. The same seed gives the same interval.

    Raises:
        ValueError: fewer than MIN_BARS returns, or a return that is not finite.
    """
    return _interval(_mean, [returns], draws, seed)


def sharpe_interval(returns: np.ndarray, *, draws: int = 1000, seed: int = 0) -> Interval:
    """The Sharpe ratio of a bar, mean / deviation. Arguments and errors are those of `mean_interval`."""
    return _interval(_sharpe, [returns], draws, seed)


def sharpe_difference_interval(
    returns: np.ndarray, baseline: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """The Sharpe ratio of a bar less that of a baseline over the same bars.

    Both series are drawn by the same blocks, so what they share cancels (Ledoit and Wolf, 2008). The other arguments
    and errors are those of `mean_interval`.

    Raises:
        ValueError: also where the two differ in length.
    """
    if np.shape(returns) != np.shape(baseline):
        raise ValueError(f"{np.shape(returns)} returns and {np.shape(baseline)} of the baseline; give the same bars")
    return _interval(_sharpe_difference, [returns, baseline], draws, seed)


def block_length(series: np.ndarray) -> float:
    """The mean block length, in bars, that is best for the mean of a series `[N]`.

    Source: Politis and White (2004), corrected by Patton, Politis and White (2009). 1 where the series does not vary.
    """
    centred = np.asarray(series, np.float64) - np.mean(series)
    n = centred.size
    if n < 2 or not np.any(centred):
        return 1.0
    in_a_row = max(5, int(np.log10(n)))  # so many small autocorrelations end the search
    lags = min(int(np.ceil(np.sqrt(n))) + in_a_row, n - 2)
    covariance = np.array([centred[k:] @ centred[: n - k] for k in range(lags + 1)])
    energy = np.concatenate([[0.0], np.cumsum(centred**2)])
    # The autocorrelation at lag k is scaled by the parts of the series that remain after k + 1 bars.
    k = np.arange(lags + 1)
    scale = np.sqrt((energy[n] - energy[k + 1]) * energy[n - k - 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        small = np.abs(covariance) / scale < 2 * np.sqrt(np.log10(n) / n)
    runs = [first for first in range(lags - in_a_row + 1) if small[first : first + in_a_row].all()]
    bandwidth = min(2 * max(runs[0], 1), lags) if runs else lags
    k = np.arange(1, bandwidth + 1)
    weight = np.minimum(1.0, 2 * (1 - k / bandwidth)) * covariance[1 : bandwidth + 1] / n
    long_run = covariance[0] / n + 2 * weight.sum()
    length = (n * (2 * (k * weight).sum()) ** 2 / long_run**2) ** (1 / 3) if long_run else 1.0
    return float(np.clip(length, 1.0, np.ceil(min(3 * np.sqrt(n), n / 3))))


def stationary_indices(bars: int, length: float, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draw bar"]:
    """Indices of `draws` resamples of the stationary bootstrap.

    Each block begins anywhere and runs on circularly. Its length is geometric with this mean, so the resamples are
    stationary.

    Args:
        bars: the number of bars in the sample, and in each resample.
        length: mean length of a block, at least 1.
        draws: how many resamples.
        rng: the generator that draws them.
    """
    begins = rng.random((draws, bars)) < 1 / length
    begins[:, 0] = True
    position = np.arange(bars)
    last = np.maximum.accumulate(np.where(begins, position, 0), axis=1)
    first = rng.integers(bars, size=(draws, bars))
    return (np.take_along_axis(first, last, axis=1) + position - last) % bars


def _interval(estimator: Estimator, series: list[np.ndarray], draws: int, seed: int) -> Interval:
    """A studentised interval: the estimate less quantiles of (draw - estimate) / error of the draw, times the error."""
    sample = np.stack([np.asarray(one, np.float64) for one in series])
    if sample.ndim != 2 or sample.shape[1] < MIN_BARS:
        raise ValueError(f"{sample.shape[-1]} returns are too few for an interval; give at least {MIN_BARS} bars")
    if not np.isfinite(sample).all():
        raise ValueError("a return is not finite, so no interval exists; end the series before the bar of ruin")
    estimates, influence = estimator(sample[:, None])
    if not np.isfinite(influence).all():  # a ratio of returns that do not vary
        return Interval(float(estimates[0]), np.nan, np.nan, np.nan, 1.0)
    estimate, block = float(estimates[0]), block_length(influence[0])
    lags = int(np.ceil(block)) - 1
    error = float(_error(influence, lags)[0])
    if not error > 0:  # returns that do not vary
        return Interval(estimate, error, np.nan, np.nan, block)
    away, errors = [], []
    for resample in _resamples(sample, block, draws, seed):
        drawn, influence = estimator(resample)
        away.append(drawn - estimate)
        errors.append(_error(influence, lags))
    distance, own_error = np.concatenate(away), np.concatenate(errors)
    if not np.isfinite(distance).all() or np.mean(own_error < SMALL_ERROR * error) > SMALL_SHARE:
        # Few bars carry the estimate, and draws without them have no error to divide by.
        distance = np.abs(distance[np.isfinite(distance)])
        half = max(float(np.quantile(distance, LEVEL)), NormalDist().inv_cdf((1 + LEVEL) / 2) * error)
        return Interval(estimate, error, estimate - half, estimate + half, block)
    upper, lower = np.quantile(
        distance / np.maximum(own_error, SMALL_ERROR * error), [(1 + LEVEL) / 2, (1 - LEVEL) / 2]
    )
    return Interval(estimate, error, float(estimate - upper * error), float(estimate - lower * error), block)


def _resamples(sample: Series, block: float, draws: int, seed: int) -> Iterator[Draws]:
    rng, bars = np.random.default_rng(seed), sample.shape[1]
    at_once = max(1, DRAWS_AT_ONCE // bars)
    for begin in range(0, draws, at_once):
        yield sample[:, stationary_indices(bars, block, min(at_once, draws - begin), rng)]


def _error(influence: Float[np.ndarray, "draw bar"], lags: int) -> Float[np.ndarray, " draw"]:
    """Standard error of an estimate from its influence on each bar, with Bartlett's weights (Newey and West, 1987)."""
    n = influence.shape[-1]
    variance = np.einsum("dn,dn->d", influence, influence)
    for k in range(1, lags + 1):
        weight = 2 * (1 - k / (lags + 1))
        variance = variance + weight * np.einsum("dn,dn->d", influence[:, k:], influence[:, :-k])
    return np.sqrt(np.maximum(variance, 0)) / n


# Estimators: `[series, draw, bar]` to an estimate a draw, and its influence function on each bar, of mean 0.


def _mean(returns: Draws) -> tuple[np.ndarray, np.ndarray]:
    mean = returns[0].mean(-1)
    return mean, returns[0] - mean[:, None]


def _sharpe(returns: Draws) -> tuple[np.ndarray, np.ndarray]:
    """The influence of x is z - S (z^2 - 1) / 2, with z = (x - mean) / deviation (Lo, 2002)."""
    mean = returns[0].mean(-1, keepdims=True)
    centred = returns[0] - mean
    deviation = np.sqrt(np.einsum("dn,dn->d", centred, centred) / centred.shape[-1])[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        # A draw that does not vary has no ratio.
        ratio, z = np.where(deviation > 0, mean / deviation, np.nan), centred / deviation
    return ratio[:, 0], z - ratio / 2 * (z**2 - 1)


def _sharpe_difference(returns: Draws) -> tuple[np.ndarray, np.ndarray]:
    own, own_influence = _sharpe(returns[:1])
    other, other_influence = _sharpe(returns[1:])
    return own - other, own_influence - other_influence
