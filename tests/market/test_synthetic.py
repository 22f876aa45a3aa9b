"""Synthetic processes: the drawn paths and the stated distributions, against closed forms and integration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market
from jaxtrader.market.synthetic import AR1, PROCESSES, HiddenRegime, OrnsteinUhlenbeck, RandomWalk

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
    ],
)
def test_bad_parameters_are_rejected_with_their_range(make: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()  # type: ignore[operator]


def test_bars_seeds_and_settings_are_numbers() -> None:
    for bars in (10.5, "x", None, True, 1, -3):
        with pytest.raises(ValueError, match=r"`bars=.*must be a whole number, at least 2"):
            AR1().market(bars)
    for seed in (1.5, "x", None, True, -1):
        with pytest.raises(ValueError, match=r"`seed=.*must be a whole number, at least 0"):
            AR1().market(100, seed)
    for r2 in ("x", None, [0.1], True):
        with pytest.raises(ValueError, match=r"`r2=.*must be a number"):
            AR1(r2=r2)
    assert len(AR1(r2=np.float32(0.1)).market(np.int64(2), np.int64(3)).times) == 2


def test_processes_by_name() -> None:
    assert set(PROCESSES) == {"ar1", "mean_reversion", "random_walk", "hidden_regime"}
    assert all(process().name == name for name, process in PROCESSES.items())


# --- a regime that nobody sees ---

HIDDEN = HiddenRegime(0.02, 0.3, 0.05)


def test_the_belief_is_that_of_all_paths_of_the_regime() -> None:
    """P(up next | returns) by adding up every path of the regime, of which a history of n bars has 2^(n + 1)."""
    market, bars = HIDDEN.market(12, seed=1), 12
    moved = market.features[1:, 0, 0] * math.sqrt(1 + 0.3**2)  # the first bar has no return
    paths = np.array(list(itertools.product((-1, 1), repeat=bars)))  # of the regimes of bars 1 to 12, the last unseen
    changes = (paths[:, 1:] != paths[:, :-1]).sum(1)
    chance = 0.5 * 0.05**changes * 0.95 ** (bars - 1 - changes)
    chance = chance * scipy.stats.norm.pdf(moved - 0.3 * paths[:, :-1]).prod(1)
    up = chance[paths[:, -1] == 1].sum() / chance.sum()
    assert HIDDEN.states(market)[-1] == pytest.approx(math.log(up / (1 - up)) / math.log(0.95 / 0.05) * 4.5, rel=1e-9)


def test_the_hidden_regime_draws_what_it_says() -> None:
    market = HIDDEN.market(BARS, seed=2)
    signal, returns = path(market)
    assert abs(signal.var() - 1) < 0.02
    # Returns k bars apart share the regime: covariance drift^2 (1 - 2 switching)^k.
    for lag in (1, 5):
        covariance = (returns[:-lag] * returns[lag:]).mean() / 0.02**2
        # Several errors of a mean over 200,000 bars, which is 0.0022 and more where bars share a regime.
        assert covariance == pytest.approx(0.09 * 0.9**lag, abs=0.015)
    states = HIDDEN.states(market)
    np.testing.assert_allclose(market.close[1:100, 0] / market.close[:99, 0] - 1, returns[:99], atol=1e-12)
    # What the belief says comes true: of bars with like beliefs, the share with a return above 0, and the mean return.
    believed = np.concatenate([states[start : end - 1] for start, _, end in market.segments])
    up = 1 / (1 + np.exp(-believed * math.log(19) / 4.5))
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
        like = (up >= low) & (up < high)
        expected = 0.02 * 0.3 * (2 * up[like] - 1).mean()
        assert abs(returns[like].mean() - expected) < 4 * 0.021 / math.sqrt(like.sum())


def test_the_next_belief_and_return_are_integrals_over_both_regimes() -> None:
    states = np.array([-4.0, 0.0, 1.5])
    weights, returns, following = HIDDEN.outcomes(states)
    few, some = HIDDEN.returns(states)
    for i, state in enumerate(states):
        up = 1 / (1 + math.exp(-state * math.log(19) / 4.5))
        x = np.linspace(-9, 9, 20_001)
        density = up * scipy.stats.norm.pdf(x - 0.3) + (1 - up) * scipy.stats.norm.pdf(x + 0.3)
        posterior = up * scipy.stats.norm.pdf(x - 0.3) / density
        after = posterior * 0.95 + (1 - posterior) * 0.05
        for power in (1, 2):
            exact = np.trapezoid(density * (np.log(after / (1 - after)) / math.log(19) * 4.5) ** power, x)
            assert weights[i] @ following[i] ** power == pytest.approx(exact, rel=1e-4, abs=1e-6)
        grown = np.trapezoid(density * np.log1p(0.7 * 0.02 * x), x)
        assert weights[i] @ np.log1p(0.7 * returns[i]) == pytest.approx(grown, rel=1e-6)
        assert few[i] @ np.log1p(0.7 * some[i]) == pytest.approx(grown, rel=1e-5)
