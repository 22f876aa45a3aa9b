"""Synthetic processes: the drawn paths and the stated distributions, against closed forms and integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market
from jaxtrader.market.synthetic import AR1, PROCESSES, OrnsteinUhlenbeck, RandomWalk

BARS = 200_000
ALL = (AR1(0.02, 0.05, 0.8), RandomWalk(0.02, persistence=0.8), OrnsteinUhlenbeck(0.02, 0.9))


def path(market: Market) -> tuple[np.ndarray, np.ndarray]:
    """Signal at each bar but a history's last, and the simple return of the bar after it."""
    pairs = [
        (
            market.features[start : end - 1, 0, 0],
            market.close[start + 1 : end, 0] / market.close[start : end - 1, 0] - 1,
        )
        for start, _, end in market.segments
    ]
    signal, returns = zip(*pairs, strict=True)
    return np.concatenate(signal), np.concatenate(returns)


@pytest.mark.parametrize("process", ALL, ids=lambda p: p.name)
def test_bars_open_at_the_previous_close(process: AR1) -> None:
    market = process.market(BARS, seed=1)
    assert len(market.times) == BARS
    assert len(market.segments) == BARS // 25_000  # summed variance 10 at 2% a bar
    for start, _, end in market.segments:
        np.testing.assert_array_equal(market.open[start + 1 : end], market.close[start : end - 1])
    assert market.feature_names == ("signal",)
    np.testing.assert_array_equal(market.close, process.market(BARS, seed=1).close)
    assert not np.array_equal(market.close, process.market(BARS, seed=2).close)


@pytest.mark.parametrize("process", ALL, ids=lambda p: p.name)
def test_signal_variance_and_autocorrelation(process: AR1) -> None:
    market = process.market(BARS, seed=3)
    signal = market.features[:, 0, 0]
    # Of an AR(1) path's mean square: standard error sqrt(2 (1 + a^2) / (1 - a^2) / n) = 0.01 at a = 0.9.
    assert abs(signal.var() - 1) < 0.05
    assert abs(np.corrcoef(signal[:-1], signal[1:])[0, 1] - process.persistence) < 0.01


def test_signal_explains_r2_of_the_variance() -> None:
    signal, returns = path(AR1(0.02, 0.05, 0.8).market(BARS, seed=4))
    fit = scipy.stats.linregress(signal, returns)
    assert abs(fit.slope - 0.02 * math.sqrt(0.05)) < 4 * fit.stderr
    assert abs(fit.intercept) < 4 * fit.intercept_stderr
    assert abs(fit.rvalue**2 - 0.05) < 0.005
    assert abs(returns.std() - 0.02) < 0.0002


def test_random_walk_has_no_drift_and_no_predictive_signal() -> None:
    signal, returns = path(RandomWalk(0.02, persistence=0.8).market(BARS, seed=5))
    assert abs(returns.mean()) < 4 * 0.02 / math.sqrt(BARS)
    assert abs(np.corrcoef(signal, returns)[0, 1]) < 4 / math.sqrt(BARS)


def test_ornstein_uhlenbeck_reverts_to_its_mean() -> None:
    market = OrnsteinUhlenbeck(0.02, 0.9).market(BARS, seed=6)
    log_price = np.log(market.close[:, 0] / 100)
    np.testing.assert_allclose(log_price, market.features[:, 0, 0] * 0.02 / math.sqrt(1 - 0.81), rtol=1e-9, atol=1e-12)
    residual = log_price[1:25_000] - 0.9 * log_price[:24_999]
    assert abs(residual.std() - 0.02) < 0.0002
    assert abs(residual.mean()) < 4 * 0.02 / math.sqrt(25_000)


@pytest.mark.parametrize("process", ALL, ids=lambda p: p.name)
def test_outcomes_match_the_distribution_of_the_next_bar(process: AR1) -> None:
    """Against numerical integration over the noise that the docstring names."""
    signal = np.array([-2.0, 0.0, 1.5])
    weights, returns, following = process.outcomes(signal)
    assert returns.shape == following.shape == (3, len(weights))
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    a, sigma = process.persistence, process.volatility

    def simple_return(s: float, e: float) -> float:
        if isinstance(process, OrnsteinUhlenbeck):
            deviation = sigma / math.sqrt(1 - a**2)
            return math.exp((a - 1) * deviation * s + sigma * e) - 1
        return sigma * (math.sqrt(process.r2) * s + math.sqrt(1 - process.r2) * e)

    for i, s in enumerate(signal):
        for held in (-1.0, 0.7):
            exact, _ = scipy.integrate.quad(
                lambda e, s=s, held=held: math.log1p(held * simple_return(s, e)) * scipy.stats.norm.pdf(e), -9, 9
            )
            assert weights @ np.log1p(held * returns[i]) == pytest.approx(exact, rel=1e-7, abs=1e-13)
            few, some = process.returns(signal)
            assert few @ np.log1p(held * some[i]) == pytest.approx(exact, rel=1e-7, abs=1e-13)
        assert weights @ following[i] == pytest.approx(a * s, abs=1e-12)
        assert weights @ following[i] ** 2 - (a * s) ** 2 == pytest.approx(1 - a**2, abs=1e-12)
    together = weights @ (returns[0] * (following[0] - a * signal[0])) - 0
    expected = sigma * math.sqrt(1 - a**2) if isinstance(process, OrnsteinUhlenbeck) else 0
    assert together == pytest.approx(expected, rel=0.06, abs=1e-12)  # one noise for both, or two of their own


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AR1(r2=0.9), r"AR1\(r2=0.9\) .*0 to 0.5"),
        (lambda: AR1(volatility=float("nan")), "volatility=nan.*1e-05 to 0.05"),
        (lambda: OrnsteinUhlenbeck(persistence=1.0), "persistence=1.*0 to 0.999"),
        (lambda: AR1().market(1), "1 bars.* at least 2"),
    ],
)
def test_bad_parameters_are_rejected_with_their_range(make: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()  # type: ignore[operator]


def test_processes_by_name() -> None:
    assert set(PROCESSES) == {"ar1", "mean-reversion", "random-walk"}
    assert all(process().name == name for name, process in PROCESSES.items())
