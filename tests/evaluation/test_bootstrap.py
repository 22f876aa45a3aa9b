"""Bootstrap intervals: block lengths and indices against `arch`, errors against formulas, coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from jaxtrader.evaluation import bootstrap


def noise(bars: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).normal(size=bars)  # a stream that NumPy never changes


def autoregressive(bars: int, coefficient: float, seed: int = 0) -> np.ndarray:
    series = noise(bars, seed)
    for t in range(1, bars):
        series[t] += coefficient * series[t - 1]
    return series


# b_sb of `arch.bootstrap.optimal_block_length`, arch 8.0.0.
@pytest.mark.parametrize(
    ("series", "length"),
    [
        (noise(500), 0.6368747389813596),
        (autoregressive(500, 0.2), 5.475572364369027),
        (autoregressive(2000, 0.8), 42.21352855870983),
        (np.convolve(noise(2000), np.ones(5), "valid"), 18.409673340493086),
        (np.cumsum(noise(400)), 31.806590862613206),
    ],
    ids=["noise", "AR(0.2)", "AR(0.8)", "sums of 5", "random walk"],
)
def test_block_length_is_that_of_arch(series: np.ndarray, length: float) -> None:
    assert bootstrap.block_length(series) == pytest.approx(max(length, 1.0), rel=1e-9)


def test_an_account_that_equals_its_baseline_has_no_interval() -> None:
    """Its excess is 0 in every bar, so it has no ratio."""
    for found in (bootstrap.sharpe_interval(np.zeros(100)), bootstrap.mean_interval(np.zeros(100))):
        assert np.isnan([found.low, found.high]).all()


def test_a_constant_series_has_blocks_of_one_bar() -> None:
    assert bootstrap.block_length(np.ones(50)) == 1


def test_blocks_run_on_circularly_and_have_the_mean_length() -> None:
    indices = bootstrap.stationary_indices(200, 10.0, 500, np.random.default_rng(0))
    runs_on = (np.diff(indices, axis=1) % 200) == 1
    # A block ends at a bar with probability 1 / 10, and a new one follows by chance 1 time in 200.
    assert runs_on.mean() == pytest.approx(0.9 + 0.1 / 200, abs=0.005)
    assert np.bincount(indices.ravel(), minlength=200) == pytest.approx(np.full(200, 500), rel=0.5)


def test_the_error_of_a_mean_of_independent_returns_is_the_textbook_one() -> None:
    returns = noise(400)
    found = bootstrap.mean_interval(returns)
    assert found.block < 2
    # The deviation of 400 returns has an error of 3.5%, and the block length adds to it.
    assert found.error == pytest.approx(returns.std() / 20, rel=0.1)


def test_the_error_of_a_sharpe_ratio_is_that_of_lo() -> None:
    """Lo (2002), equation 9, for independent normal returns: sqrt((1 + S^2 / 2) / N)."""
    ratios = [bootstrap.sharpe_interval(noise(1000, seed) + 1.0, draws=1) for seed in range(20)]
    # 20 errors of 2 to 3% each, and the formula is one of large samples.
    assert np.mean([one.error for one in ratios]) == pytest.approx(np.sqrt(1.5 / 1000), rel=0.05)


def test_the_error_of_a_difference_is_that_of_jobson_and_korkie() -> None:
    """For independent normal returns of correlation c: 2 (1 - c) + (S1^2 + S2^2 - 2 S1 S2 c^2) / 2, over N.

    Source: Memmel (2003), who corrects Jobson and Korkie (1981).
    """
    errors = []
    for seed in range(20):
        first, second = noise(1000, seed), noise(1000, 100 + seed)
        paired = 0.8 * first + 0.6 * second
        errors.append(bootstrap.sharpe_difference_interval(first + 0.3, paired + 0.1, draws=1).error)
    expected = np.sqrt((2 * 0.2 + (0.09 + 0.01 - 2 * 0.03 * 0.64) / 2) / 1000)
    # 20 errors of 2 to 3% each, and the formula is one of large samples.
    assert np.mean(errors) == pytest.approx(expected, rel=0.05)


def test_a_series_beside_itself_differs_by_nothing() -> None:
    found = bootstrap.sharpe_difference_interval(noise(100), noise(100))
    assert found.estimate == 0
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", [0.0, 0.2])
def test_an_interval_covers_the_truth_as_often_as_it_says(coefficient: float) -> None:
    """200 samples of 500 bars. The band is three binomial errors of 200 runs, and what 500 bars cost."""
    truth = 0.05
    deviation = 1 / np.sqrt(1 - coefficient**2)
    hits = 0
    for seed in range(200):
        returns = autoregressive(600, coefficient, seed)[100:] + truth * deviation
        found = bootstrap.sharpe_interval(returns, draws=200, seed=seed)
        hits += found.low <= truth <= found.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    ("returns", "offence"),
    [(np.ones(29), "29"), (np.full(40, np.nan), "finite")],
)
def test_what_has_no_interval_is_refused(returns: np.ndarray, offence: str) -> None:
    with pytest.raises(ValueError, match=offence):
        bootstrap.mean_interval(returns)


def test_series_of_different_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="same bars"):
        bootstrap.sharpe_difference_interval(np.ones(40), np.ones(41))


@pytest.mark.parametrize("bars", [1, 3, 20])
def test_a_difference_that_few_bars_carry_has_a_finite_interval_around_it(bars: int) -> None:
    own = noise(500)
    other = own.copy()
    other[::25][:bars] = 0.0
    found = bootstrap.sharpe_difference_interval(own, other)
    assert found.low < found.estimate < found.high
    assert found.high - found.low < 20 * found.error


@pytest.mark.parametrize("bars", [1, 3, 20])
def test_a_ratio_that_few_bars_carry_has_an_interval_of_no_less_than_its_error(bars: int) -> None:
    """Draws without these bars have no error to divide by, so the interval is symmetric."""
    found = bootstrap.sharpe_interval(np.where(np.arange(500) < bars, noise(500), 0.0))
    half = found.high - found.estimate
    assert found.estimate - found.low == pytest.approx(half, rel=1e-9)
    assert 1.9599 * found.error <= half < 2.5 * found.error
