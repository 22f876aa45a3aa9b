"""Sharpe ratios and their standard errors: published formulas, a bootstrap, and the spread of simulated samples."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxtrader.evaluation import statistics


def fat_tailed(seed=0, bars=2_000, correlation=0.8):
    """Two accounts that move together, with fat tails and a skew."""
    rng = np.random.default_rng(seed)
    shocks = rng.standard_t(5, (2, bars))
    shocks[1] = correlation * shocks[0] + math.sqrt(1 - correlation**2) * shocks[1]
    shocks = shocks + 0.1 * shocks**2
    return 0.001 + 0.01 * shocks[0], 0.0004 + 0.008 * shocks[1]


def is_sure(estimate):
    return abs(estimate.value) > statistics.SURE * estimate.error


def test_the_ratio_is_the_mean_over_the_sample_deviation():
    assert statistics.sharpe_ratio(np.array([0.01, 0.03])) == pytest.approx(0.02 / math.sqrt(0.0002), rel=1e-13)


def test_the_error_is_that_of_mertens_and_with_normal_moments_that_of_lo():
    returns, _ = fat_tailed()
    ratio, n = returns.mean() / returns.std(ddof=1), len(returns)
    variance = 1 + ratio**2 / 2 - stats.skew(returns) * ratio + stats.kurtosis(returns) / 4 * ratio**2
    # Moments with ddof=1 here and there.
    assert statistics.sharpe(returns).error == pytest.approx(math.sqrt(variance / n), rel=1e-3)
    # Quantiles of the normal have its moments: Lo's sqrt((1 + S^2 / 2) / N).
    normal = 0.5 + stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert statistics.sharpe(normal).error == pytest.approx(math.sqrt((1 + 0.5**2 / 2) / 20_000), rel=2e-3)


def test_the_error_of_a_difference_of_normal_returns_is_that_of_memmel():
    """Memmel 2003: (2 - 2 r + (S1^2 + S2^2 - 2 S1 S2 r^2) / 2) / N for the variance."""
    rng, bars, r = np.random.default_rng(1), 400_000, 0.7
    one = rng.normal(size=bars)
    other = r * one + math.sqrt(1 - r**2) * rng.normal(size=bars)
    s1, s2 = 0.6, 0.3
    variance = (2 - 2 * r + (s1**2 + s2**2 - 2 * s1 * s2 * r**2) / 2) / bars
    # Sample moments of 400,000 draws.
    assert statistics.sharpe_difference(one + s1, other + s2).error == pytest.approx(math.sqrt(variance), rel=0.01)


def test_the_error_of_a_difference_is_that_of_a_paired_bootstrap():
    one, other = fat_tailed()
    found = statistics.sharpe_difference(one, other)
    rows = np.random.default_rng(2).integers(0, len(one), (4_000, len(one)))
    drawn = [each[rows].mean(1) / each[rows].std(1, ddof=1) for each in (one, other)]
    assert found.value == pytest.approx(statistics.sharpe_ratio(one) - statistics.sharpe_ratio(other), rel=1e-13)
    # The deviation of 4,000 draws has an error of 1.1%.
    assert found.error == pytest.approx((drawn[0] - drawn[1]).std(), rel=0.05)
    alone = math.hypot(statistics.sharpe(one).error, statistics.sharpe(other).error)
    assert found.error < 0.6 * alone, "what moves both accounts cancels"


def test_equal_accounts_are_called_different_once_in_twenty():
    """2,000 histories of 250 bars in which both have the same ratio: |difference| > 2 errors in 4.6% of them."""
    rng = np.random.default_rng(3)
    common, own = rng.normal(0.1, 1, (2_000, 1, 250)), rng.normal(0, 1, (2_000, 2, 250))
    surely = [is_sure(statistics.sharpe_difference(*(c + o))) for c, o in zip(common, own, strict=True)]
    # Three binomial errors: sqrt(0.046 x 0.954 / 2,000) is 0.0047.
    assert np.mean(surely) == pytest.approx(0.046, abs=0.015)


def test_what_is_undefined_is_nan_and_never_sure():
    flat, moving = np.zeros(50), fat_tailed(bars=50)[0]
    for estimate in (
        statistics.sharpe(flat),
        statistics.sharpe(np.array([0.1])),
        statistics.sharpe_difference(flat, moving),
        statistics.sharpe(np.append(moving, np.nan)),
    ):
        assert math.isnan(estimate.value)
        assert math.isnan(estimate.error)
        assert not is_sure(estimate)
    same = statistics.sharpe_difference(moving, moving)
    assert (same.value, same.error, is_sure(same)) == (0, 0, False)


def test_an_estimate_is_scaled_with_its_error():
    assert statistics.Estimate(0.1, 0.02).scaled(10) == statistics.Estimate(1.0, 0.2)
    assert is_sure(statistics.Estimate(-0.1, 0.02))


def test_returns_of_different_bars_are_refused():
    with pytest.raises(ValueError, match="3 and of 2 bars"):
        statistics.sharpe_difference(np.zeros(3), np.zeros(2))
