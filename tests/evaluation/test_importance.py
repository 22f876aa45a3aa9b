"""Permutation importance: a feature that no decision reads is worth exactly 0, and one that is read is worth more."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from policies import policy_of, with_noise, with_random_weights

from jaxtrader.agents.policy_loading import ensemble
from jaxtrader.evaluation import importance
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.importance import permutation_importance
from jaxtrader.market.market import Market

SIGNAL = 1  # of the features log_return_1, signal, noise


def reading_one_feature(state: Any, window: int, seed: int = 0) -> Any:
    """Weights drawn at random, of which those of all features but the signal are 0, at all bars of the window."""
    weights = with_noise(state, seed).params
    kernel = np.array(weights["first_kernel"])
    of_window = kernel[: 3 * window].reshape(window, 3, -1)
    of_window[:, [0, 2]] = 0
    return state.replace(params={**weights, "first_kernel": kernel})


def following_the_signal(state: Any) -> Any:
    """Long where the signal of the last bar is above 0, else short. It sees nothing of the account."""
    weights = jax.tree.map(np.zeros_like, state.params)
    weights["first_kernel"][3 * 3 + SIGNAL, 0] = 5.0
    weights["torsos_0_0"]["kernel"][0, 0] = 5.0
    weights["policy"]["kernel"][0] = (-1.0, 0.0, 1.0)
    return state.replace(params=weights)


@pytest.fixture(scope="module")
def foreseen(market: Market) -> Market:
    """The market, where the signal is whether the bar of the next fill rises."""
    features = market.features.copy()
    features[:-2, 0, SIGNAL] = np.sign(market.open[2:, 0] / market.open[1:-1, 0] - 1)
    return dataclasses.replace(market, features=features)


def test_only_the_feature_that_is_read_is_worth_something(agent, state, env, foreseen):
    own = env.with_market(foreseen)
    policy = policy_of(agent, following_the_signal(state), own)
    found = permutation_importance(policy, foreseen, repeats=2)
    assert found.features == ("log_return_1", "signal", "noise")
    assert not found.lost[[0, 2]].any()
    assert (found.lost[SIGNAL] > 0).all()
    result = backtest(policy, foreseen)
    assert found.sharpe == pytest.approx(result.metrics["period_sharpe"], rel=1e-9)
    table = found.to_frame()
    assert table.index[0] == "signal"
    assert table["spread"]["signal"] == pytest.approx(np.std(found.lost[SIGNAL], ddof=1))


def test_a_rotation_is_the_backtest_of_a_market_with_the_rotated_feature(agent, state, env, market, monkeypatch):
    # Few variants at once: the last block is filled with variants of the one before.
    monkeypatch.setattr(importance, "NUMBERS_AT_ONCE", 1 << 17)  # 4 of 6
    policy = policy_of(agent, reading_one_feature(state, 4), env)
    found = permutation_importance(policy, market, repeats=2, seed=3)
    assert not found.lost[[0, 2]].any()
    shares = (np.array([1, 2]) + np.random.default_rng(3).uniform(-0.5, 0.5, 2)) / 3
    for share, lost in zip(shares, found.lost[SIGNAL], strict=True):
        features = market.features.copy()
        for first, (_, _, end) in zip(market.first_decisions(4) - 3, market.segments, strict=True):
            seen = features[first:end, 0, SIGNAL]
            features[first:end, 0, SIGNAL] = np.roll(seen, round(share * len(seen)))
        rotated = backtest(policy, dataclasses.replace(market, features=features)).metrics["period_sharpe"]
        assert found.sharpe - lost == pytest.approx(rotated, abs=1e-9)


@pytest.mark.slow
def test_portfolios_windows_and_ensembles_use_what_they_read_alone(agent, portfolio):
    market = portfolio.market
    # The third asset is listed late: its features are unknown before, and no rotation may bring them back.
    listed = np.ones(market.close.shape, bool)
    listed[:60, 2] = False
    market = dataclasses.replace(market, listed=listed, features=np.where(listed[..., None], market.features, np.nan))
    env = portfolio.with_market(market)
    state = with_random_weights(agent, env)
    policies = [policy_of(agent, reading_one_feature(state, 4, seed), env) for seed in (1, 2)]
    found = permutation_importance(ensemble(policies), market, repeats=2)
    assert not found.lost[[0, 2]].any()
    assert found.lost[SIGNAL].all()


def test_only_the_last_bars_are_traded_where_that_is_asked_for(agent, state, env, market):
    policy = policy_of(agent, reading_one_feature(state, 4), env)
    short = importance.market_end(market, 40)
    found = permutation_importance(policy, market, repeats=2, most_bars=40)
    assert found.sharpe == pytest.approx(backtest(policy, short).metrics["period_sharpe"], rel=1e-9)
    assert [len(one) for one in backtest(policy, short).by_symbol.values()] == [40, 40]


def test_one_repeat_has_no_spread_and_is_refused(agent, state, env, market):
    with pytest.raises(ValueError, match="repeats=1`"):
        permutation_importance(policy_of(agent, state, env), market, repeats=1)


def test_an_account_that_never_trades_uses_nothing(agent, state, env, market):
    weights = jax.tree.map(np.zeros_like, state.params)
    weights["policy"]["bias"][1] = 1.0  # flat
    found = permutation_importance(policy_of(agent, state.replace(params=weights), env), market, repeats=2)
    assert isinstance(found.to_frame(), pd.DataFrame)
    assert not found.lost.any()
