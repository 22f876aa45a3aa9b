"""Probabilistic and deflated Sharpe ratio and the probability of overfitting, against purgedcv 0.1.11."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxtrader.evaluation import overfitting

# Streams of RandomState never change. Each row is a configuration.
RETURNS = np.random.RandomState(0).standard_t(4, size=(10, 247)) * 0.01 + 0.0005 * np.arange(10)[:, None]
NOISE = np.random.RandomState(1).normal(size=(12, 200))


def test_probabilistic_sharpe_is_that_of_purgedcv() -> None:
    assert overfitting.probabilistic_sharpe(RETURNS[3], 0.01) == pytest.approx(0.9811432235046689, abs=1e-12)


@pytest.mark.parametrize(("row", "trials", "probability"), [(3, 50, 0.86293515455684), (9, 5, 0.9999999734792777)])
def test_deflated_sharpe_is_that_of_purgedcv(row: int, trials: int, probability: float) -> None:
    assert overfitting.deflated_sharpe(RETURNS[row], trials, 1e-3) == pytest.approx(probability, abs=1e-12)
    assert overfitting.expected_best_sharpe(50, 1e-3) == pytest.approx(0.07198302420095343, abs=1e-12)


def test_one_trial_is_not_deflated_and_more_trials_deflate_more() -> None:
    plain = overfitting.probabilistic_sharpe(RETURNS[3])
    found = [overfitting.deflated_sharpe(RETURNS[3], trials, 1e-3) for trials in (1, 2, 10, 100)]
    assert found[0] == plain
    assert found == sorted(found, reverse=True)


def test_the_expected_best_of_trials_without_skill_is_found_by_simulation() -> None:
    best = np.random.RandomState(2).normal(size=(20_000, 30)).max(1)
    # The formula is asymptotic: its authors give an error of some percent at this number.
    assert overfitting.expected_best_sharpe(30, 1.0) == pytest.approx(best.mean(), rel=0.03)


@pytest.mark.parametrize(
    ("returns", "blocks", "probability"), [(RETURNS, 8, 0.0), (RETURNS, 16, 0.02501942501942502), (NOISE, 10, 79 / 252)]
)
def test_overfitting_is_that_of_purgedcv(returns: np.ndarray, blocks: int, probability: float) -> None:
    assert overfitting.backtest_overfitting(returns.T, blocks) == pytest.approx(probability, abs=1e-12)


def test_configurations_that_are_the_same_rank_in_the_middle() -> None:
    same = np.repeat(NOISE[:1], 9, axis=0)
    assert overfitting.backtest_overfitting(same.T, 6) == 0  # a median is not below the median


def test_returns_that_do_not_vary_have_no_probability() -> None:
    assert math.isnan(overfitting.probabilistic_sharpe(np.zeros(10)))


@pytest.mark.parametrize(
    ("shape", "blocks", "offence"), [((100, 7), 16, "7 config"), ((100, 8), 5, "5 blocks"), ((20, 8), 16, "20 bars")]
)
def test_too_little_for_ranks_is_refused(shape: tuple[int, int], blocks: int, offence: str) -> None:
    with pytest.raises(ValueError, match=offence):
        overfitting.backtest_overfitting(np.zeros(shape), blocks)


@pytest.mark.parametrize(("trials", "variance"), [(0, 1.0), (3, -1.0), (3, math.nan)])
def test_trials_that_cannot_be_are_refused(trials: int, variance: float) -> None:
    with pytest.raises(ValueError, match=f"{trials} trials"):
        overfitting.expected_best_sharpe(trials, variance)
