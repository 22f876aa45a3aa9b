"""Check 2: rank correlations against SciPy, clusters by hand, a precomputed leak, and what is no leak."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from market.price_tables import random_bars
from scipy.stats import spearmanr

from jaxtrader.checks import plausible
from jaxtrader.checks.correlation import rank_correlations
from jaxtrader.checks.returns import fill_to_fill
from jaxtrader.market.market import Market


def walk(bars=600, seed=0, name="W", **columns):
    loaded, rng = random_bars(pd.date_range("2020-01-01", periods=bars), name, seed), np.random.default_rng(seed)
    return dataclasses.replace(loaded, columns={k: make(loaded, rng) for k, make in columns.items()})


def noise(bars, rng):
    return rng.normal(size=bars.close.shape)


def leak(share):
    """The next fill-to-fill return, computed beforehand, with noise: `share` is its part of the variance."""

    def make(bars, rng):
        moves = np.zeros(bars.close.shape)
        moves[:-2] = np.log(bars.open[2:] / bars.open[1:-1])
        return np.sqrt(share) * moves / moves.std() + np.sqrt(1 - share) * rng.normal(size=moves.shape)

    return make


def test_returns_run_from_fill_to_fill():
    bars = walk(5)
    market = Market.from_bars((bars, walk(4, seed=1, name="B")), features=["log_return_1"])
    opens, closes = np.log(market.open[:5, 0]), np.log(market.close[:5, 0])
    unknown = [np.nan, np.nan]
    np.testing.assert_array_equal(fill_to_fill(market, "next_open")[:5, 0], [*np.diff(opens)[1:], *unknown])
    np.testing.assert_array_equal(fill_to_fill(market, "next_close")[:5, 0], [*np.diff(closes)[1:], *unknown])
    np.testing.assert_array_equal(fill_to_fill(market, "close")[:5, 0], [*np.diff(closes), np.nan])
    # the second history begins anew
    np.testing.assert_array_equal(fill_to_fill(market, "close")[5:, 0], [*np.diff(np.log(market.close[5:, 0])), np.nan])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_precomputed_leak_fails_and_is_named(share):
    check = plausible(walk(peek=leak(share), noise=noise), ["log_return_5", "noise", "peek"])
    assert not check.passed
    assert check.figure > check.limit
    assert check.measure == "certain R2 of peek with the next return"
    # the sign does not matter
    flipped = walk(peek=lambda bars, rng: -leak(share)(bars, rng))
    assert not plausible(flipped, ["peek"]).passed


def test_a_small_leak_fails_on_many_bars_and_is_not_certain_on_few():
    """1% of the variance: rho is 0.1 times 3 / pi for ranks, its standard error 1 / sqrt(bars), times 3."""
    check = plausible(walk(20_000, peek=leak(0.01), noise=noise), ["noise", "peek"])
    assert not check.passed
    certain = 0.1 * 3 / np.pi - 3 / np.sqrt(20_000)
    # The coefficient of 20,000 draws has an error of 0.007, which is 0.15 of the square.
    assert (check.figure, check.limit) == (pytest.approx(certain**2, rel=0.3), 0.005)
    assert plausible(walk(2_000, peek=leak(0.01), noise=noise), ["noise", "peek"]).passed
    assert not plausible(walk(60, peek=leak(0.5)), ["peek"]).passed, "a large leak shows on few bars"


def test_a_small_effect_passes_however_many_bars_there_are():
    """An honest signal of 0.24% of the variance: its t is 8 on 26,280 bars, and grows with the root of the bars."""
    for bars, t in ((26_280, 8), (80_000, 13)):
        signal = walk(bars, peek=leak(0.0024))
        assert plausible(signal, ["peek"]).passed
        (found,) = rank_correlations(Market.from_bars(signal, features=["peek"]), "next_open")
        # t is drawn with an error of 1.
        assert found.t == pytest.approx(t, abs=2.5)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_column_that_knows_a_later_return_fails(ahead):
    """It knows nothing of the next one. A policy with a memory, or that waits, gets rich all the same."""

    def later(bars, rng):
        return np.roll(leak(0.5)(bars, rng), -ahead, axis=0)

    check = plausible(walk(peek=later, noise=noise), ["log_return_5", "noise", "peek"])
    assert not check.passed
    assert check.measure == f"certain R2 of peek with the return {ahead} bar{'s' * (ahead > 1)} after the next"
    assert check.figure > 0.2  # rho is about 0.69, for ranks of normals with rho^2 = 1/2, and its error 0.05
    market = Market.from_bars(walk(peek=later), features=["peek"])
    assert abs(rank_correlations(market, "next_open")[0].t) < 4


def test_the_same_column_two_bars_late_passes():
    late = walk(peek=lambda bars, rng: np.roll(leak(1.0)(bars, rng), 2, axis=0))
    assert plausible(late, ["peek"]).passed


def test_honest_features_pass():
    for seed in range(5):
        check = plausible(walk(seed=seed, noise=noise), ["noise", "log_return_20", "volatility_20", "gap"])
        assert check.passed
        assert check.figure < 0.6 * check.limit


def test_the_coefficient_is_scipys():
    market = Market.from_bars(walk(noise=noise), features=["noise", "log_return_5"])
    moves, ready = fill_to_fill(market, "next_open"), int(market.ready[0])
    for i, found in enumerate(rank_correlations(market, "next_open")):
        expected = spearmanr(market.features[ready:-2, 0, i], moves[ready:-2, 0]).statistic
        assert found.rho == pytest.approx(expected, abs=1e-12)
        # t has the error of sums by time, and the other that of independent bars.
        assert found.t == pytest.approx(expected * np.sqrt(len(moves) - ready - 2), rel=0.15, abs=0.3)


def test_copies_of_a_symbol_are_no_more_evidence():
    one = walk(peek=leak(0.04))
    many = [dataclasses.replace(one, symbols=(f"S{i}",)) for i in range(9)]
    alone, together = (
        rank_correlations(Market.from_bars(bars, features=["peek"]), "next_open")[0] for bars in (one, many)
    )
    assert together.rho == pytest.approx(alone.rho)
    assert together.t == pytest.approx(alone.t)


def test_a_constant_column_says_nothing():
    found = rank_correlations(
        Market.from_bars(walk(flat=lambda bars, rng: np.ones(bars.close.shape)), ["flat"]), "close"
    )
    assert (found[0].rho, found[0].t) == (0, 0)


def test_a_portfolio_counts_as_its_members_do():
    """Each asset by itself, over the bars it has: what was filled in for a missing bar says nothing."""
    late = walk(400, seed=2, name="C", peek=leak(0.3))
    members = [walk(600, seed=0, name="A", peek=leak(0.3)), walk(600, seed=1, name="B", peek=leak(0.3)), late]
    # The short one ends with the others, so that it is the only one to be listed late.
    shift = members[0].times[-1] - late.times[-1]
    members[2] = dataclasses.replace(late, times=late.times + shift)
    features = ["log_return_1", "peek"]
    apart = rank_correlations(Market.from_bars(members, features=features), "next_open")
    together = rank_correlations(Market.from_bars(members, features=features, align=True), "next_open")
    for one, other in zip(apart, together, strict=True):
        assert (other.rho, other.t) == pytest.approx((one.rho, one.t), rel=1e-12)
    alike = [Market.from_bars(members[:2], features=features, align=align) for align in (False, True)]
    one, other = (rank_correlations(market, "next_open")[1] for market in alike)
    assert (other.rho, other.t) == pytest.approx((one.rho, one.t), rel=1e-12)
