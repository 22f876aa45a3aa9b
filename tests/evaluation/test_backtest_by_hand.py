"""Policies made by hand, whose targets are known without them: on a synthetic market, and with rare decisions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from flax import struct
from ledger_books import BARS, market_of
from ledger_fills import assert_same_book, reference_of

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import follow, longest_walk
from jaxtrader.evaluation.simulate import simulate

WINDOW = 4


class NoState(struct.PyTreeNode):
    """Nothing is learned."""

    network: Any = struct.field(pytree_node=False, default=None)


class HalfTheSignal(struct.PyTreeNode):
    """An exposure of half the last bar's first feature, within [-1, 1]; per asset where there are several."""

    def prepare(self, state, params):
        return state, params

    def encode(self, state, chunk):
        return chunk[..., WINDOW - 1 :, :, 0]

    def act(self, state, context, account, key, deterministic=False):
        return (context / 2).clip(-1, 1) + 0 * account[..., 0], {}


def wanted(signal):
    """The same targets without the policy: what it sees is float32, of which half is exact."""
    return np.clip(signal.astype(np.float32) / 2, -1, 1).astype(np.float64)


def test_a_policy_that_follows_the_signal_of_a_synthetic_market_has_the_book_of_its_targets():
    """Two histories of AR(1): each one's book is `simulate`'s of half the signal, and the scalar reference's."""
    market = jt.datasets.AR1(volatility=0.05, r2=0.2).market(4100, seed=3)
    costs = jt.Costs(fee=1e-3, slippage=5e-4)
    env = TradingEnv(market, positions="continuous", window=WINDOW, costs=costs, rebalance_band=0.02)
    about = {"env": env.to_dict(), "features": {"names": list(market.feature_names), "lookback": market.lookback}}
    book = jt.backtest(Policy(HalfTheSignal(), NoState(), about), market)
    assert list(book.by_symbol) == list(market.symbols) == ["ar1-0", "ar1-1"]
    for (start, _, end), (symbol, one) in zip(market.segments, book.by_symbol.items(), strict=True):
        first = start + WINDOW - 1
        targets = wanted(market.features[first:end, 0])
        np.testing.assert_array_equal(one.targets, targets)
        np.testing.assert_array_equal(one.times, market.times[first:end])
        alone = simulate(market, targets, costs=costs, symbol=symbol, start=first, rebalance_band=0.02)
        np.testing.assert_array_equal(one.equity, alone.equity)
        np.testing.assert_array_equal(one.fills, alone.fills)
        rows = slice(first, end)
        assert_same_book(one, reference_of(market, targets, costs, rows=rows, rebalance_band=0.02), 1e-11)
        assert one.equity[-1] > 2, "the signal says enough to pay for following it"
    np.testing.assert_allclose(book.equity[-1], np.mean([x.equity[-1] for x in book.by_symbol.values()]), rtol=1e-14)


def test_a_walk_that_decides_every_third_bar_asks_for_the_same_between():
    """Three assets with missing and last bars, flat at session ends: targets, rewards, and the book of both."""
    rng = np.random.default_rng(0)
    market = dataclasses.replace(market_of(1, 3), features=rng.normal(size=(BARS, 3, 1)))
    costs = jt.Costs(fee=1e-3, slippage=5e-4)
    rules = {"flat_at_session_end": True, "rebalance_band": 0.05}
    env = TradingEnv(
        market, positions="continuous", window=WINDOW, episode_length=3, decision_every=3, costs=costs, **rules
    )
    walk = follow(HalfTheSignal(), None, env.default_params, env=env, length=longest_walk(env))
    first, every = WINDOW - 1, np.arange(BARS - WINDOW + 1) // 3 * 3 + WINDOW - 1  # the bar decided at, for each
    targets = np.where(market.present[every], wanted(market.features[every, :, 0]), np.nan)
    np.testing.assert_array_equal(walk.target[:, 0], targets)
    late = dataclasses.replace(market, segments=np.array([[0, first, BARS]]))
    book = simulate(late, targets, costs=costs, **rules)
    assert_same_book(book, reference_of(market, targets, costs, rows=slice(first, BARS), **rules))
    np.testing.assert_allclose(walk.reward[:-1, 0], np.diff(np.log(book.equity)), atol=2e-6)  # walked in float32
    assert walk.reward[-1, 0] == 0
    assert (book.fills["reason"] == "session end").sum() > 5
