"""Policies made by hand, whose targets are known without them: on a synthetic market, and with rare decisions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from flax import struct
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import BARS, full_market
from policies import about
from rule_settings import env_settings, run_settings

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.protocol import MarketActor
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import most_decisions, rollout_policy
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.rules import Rules

WINDOW = 4


class NoState(struct.PyTreeNode):
    """Nothing is learned."""

    network: Any = struct.field(pytree_node=False, default=None)


class HalfTheSignal(struct.PyTreeNode, MarketActor):
    """An exposure of half the last bar's first feature, within [-1, 1], per asset where there are several."""

    def prepare(self, state, params):
        return state, params

    def encode(self, state, chunk):
        return chunk[..., WINDOW - 1 :, :, 0]

    def act(self, state, context, account, key, deterministic=False):
        return (context / 2).clip(-1, 1) + 0 * account[..., 0], {}


def wanted(signal):
    """The same targets without the policy: what it sees is float32, of which half is exact."""
    return np.clip(signal.astype(np.float32) / 2, -1, 1).astype(np.float64)


def test_a_policy_that_follows_the_signal_of_a_synthetic_market_has_the_result_of_its_targets():
    """Two histories of AR(1): each one's result is `simulate`'s of half the signal, and the scalar reference's."""
    market = jt.datasets.AR1(volatility=0.05, r2=0.2).market(4100, seed=3)
    costs = jt.Costs(fee=1e-3, slippage=5e-4)
    env = TradingEnv(market, positions="continuous", window=WINDOW, costs=costs, rules=Rules(rebalance_band=0.02))
    result = jt.backtest(Policy(HalfTheSignal(), NoState(), about(env)), market)
    assert list(result.by_symbol) == list(market.symbols) == ["ar1-0", "ar1-1"]
    for (start, _, end), (symbol, one) in zip(market.segments, result.by_symbol.items(), strict=True):
        first = start + WINDOW - 1
        targets = wanted(market.features[first:end, 0])
        np.testing.assert_array_equal(one.targets, targets)
        np.testing.assert_array_equal(one.times, market.times[first:end])
        alone = simulate(market, targets, costs=costs, symbol=symbol, start=first, rules=Rules(rebalance_band=0.02))
        # A backtest and `simulate` are two programs, which may round the last bit differently.
        np.testing.assert_allclose(one.equity, alone.equity, rtol=1e-13)
        for column in one.fills.dtype.names:
            if one.fills.dtype[column].kind == "f":
                np.testing.assert_allclose(one.fills[column], alone.fills[column], rtol=1e-9, atol=1e-13)
            else:
                np.testing.assert_array_equal(one.fills[column], alone.fills[column])
        rows = slice(first, end)
        assert_same_result(one, reference_of(market, targets, costs, rows=rows, rebalance_band=0.02), 1e-11)
        assert one.equity[-1] > 2, "the signal says enough to pay for following it"
    np.testing.assert_allclose(
        result.equity[-1], np.mean([x.equity[-1] for x in result.by_symbol.values()]), rtol=1e-14
    )


@pytest.mark.slow
def test_decision_every_third_bar_asks_for_the_same_between():
    """Three assets with missing and last bars, flat at session ends: targets, rewards, and the result of both."""
    rng = np.random.default_rng(0)
    market = dataclasses.replace(full_market(1, 3), features=rng.normal(size=(BARS, 3, 1)))
    costs = jt.Costs(fee=1e-3, slippage=5e-4)
    rules = {"flat_at_session_end": True, "rebalance_band": 0.05}
    env = TradingEnv(
        market,
        positions="continuous",
        window=WINDOW,
        episode_length=3,
        decision_every=3,
        costs=costs,
        **env_settings(rules),
    )
    trajectory = rollout_policy(HalfTheSignal(), None, env.default_params, env=env, decisions=most_decisions(env))
    first, every = WINDOW - 1, np.arange(BARS - WINDOW + 1) // 3 * 3 + WINDOW - 1  # the bar decided at, for each
    targets = np.where(market.present[every], wanted(market.features[every, :, 0]), np.nan)
    np.testing.assert_array_equal(trajectory.target[: len(targets), 0], targets)
    late = dataclasses.replace(market, segments=np.array([[0, first, BARS]]))
    result = simulate(late, targets, costs=costs, **run_settings(rules))
    assert_same_result(result, reference_of(market, targets, costs, rows=slice(first, BARS), **rules))
    np.testing.assert_allclose(
        trajectory.reward[: len(targets) - 1, 0], np.diff(np.log(result.equity)), atol=2e-6
    )  # float32
    assert not trajectory.reward[len(targets) - 1 :, 0].any()
    assert (result.fills["reason"] == "session end").sum() > 5
