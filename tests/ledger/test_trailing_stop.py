"""`trailing_stop`: a loss from the best price since the entry closes a position (money rule 8a)."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from ledger.against_reference import reference_of
from ledger.markets import BASE
from ledger.worked_bars import LONG, NAN, SHORT, bar, worked
from policies import policy_of, with_noise

import jaxtrader as jt
from jaxtrader.agents.normalization import ValueScale
from jaxtrader.agents.policy_loading import save_policy
from jaxtrader.envs.observation import ACCOUNT_FEATURES, BEST_PRICE

FIVE = {"trailing_stop": 0.05}

CASES = [
    {
        "name": "the level follows the high of the bars before, and fills where the low touches it",
        "start": LONG,
        "bars": [bar(NAN, 106.0, 108.0, high=110.0, low=106.0, **FIVE), bar(NAN, 108.0, 106.0, low=104.5, **FIVE)],
        # 110 x 0.95
        "fills": [(1, 0, -0.01, 104.5, "trailing stop")],
        "cash": 1.045,
        "units": [0.0],
        "equity": 1.045,
        "stopped": [1],
    },
    {
        "name": "a bar that may have been at its best before its worst is closed at the level of its best",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 109.0, high=110.0, low=99.0, **FIVE)],
        # The level of the start, 95, is not met. That of 110 is 104.5, below the close.
        "fills": [(0, 0, -0.01, 104.5, "trailing stop")],
        "cash": 1.045,
        "units": [0.0],
        "equity": 1.045,
    },
    {
        "name": "a low at the level of the start comes first",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 109.0, high=110.0, low=94.0, **FIVE)],
        "fills": [(0, 0, -0.01, 95.0, "trailing stop")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
    },
    {
        "name": "an open beyond the level is the price",
        "start": LONG,
        "bars": [bar(NAN, 90.0, **FIVE)],
        "fills": [(0, 0, -0.01, 90.0, "trailing stop")],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
    },
    {
        "name": "a position is at no better price than its take-profit",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 100.0, high=120.0, low=99.0, take_profit=0.02, **FIVE)],
        # Up to 102 the level is 96.9. The low of 99 does not meet it.
        "fills": [(0, 0, -0.01, 102.0, "take profit")],
        "cash": 1.02,
        "units": [0.0],
        "equity": 1.02,
    },
    {
        "name": "of a stop and a trailing stop the nearer comes first",
        "start": LONG,
        "bars": [bar(NAN, 100.0, low=90.0, stop_loss=0.03, **FIVE)],
        "fills": [(0, 0, -0.01, 97.0, "stop")],
        "cash": 0.97,
        "units": [0.0],
        "equity": 0.97,
    },
    {
        "name": "at one level the stop is the reason",
        "start": LONG,
        "bars": [bar(NAN, 100.0, low=94.0, stop_loss=0.05, **FIVE)],
        "fills": [(0, 0, -0.01, 95.0, "stop")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
    },
    {
        "name": "where an order leaves a rest at an open beyond both, the nearer level is the reason",
        "start": {**LONG, "best": [110.0]},
        "bars": [bar(0.5, 90.0, stop_loss=0.05, **FIVE)],
        # 104.5 is nearer than 95.
        "fills": [(0, 0, -0.005, 90.0, "order"), (0, 0, -0.005, 90.0, "trailing stop")],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
    },
    {
        "name": "a short trails its low",
        "start": SHORT,
        "bars": [bar(NAN, 90.0, 91.0, high=91.5, low=88.0, **FIVE), bar(NAN, 91.0, high=93.0, **FIVE)],
        # 88 x 1.05
        "fills": [(1, 0, 0.01, 92.4, "trailing stop")],
        "cash": 2 - 0.924,
        "units": [0.0],
        "equity": 1.076,
        "stopped": [-1],
    },
    {
        "name": "what is entered anew forgets the best price of before, and adds do not",
        "start": {"cash": 0.5, "units": [0.005], "entry": [100.0], "best": [120.0]},
        "bars": [bar(-0.5, 118.0, **FIVE), bar(NAN, 123.0, high=123.5, **FIVE)],
        # 0.5 + 0.59 = 1.09, of which -0.545 is held at 118. Its level is 123.9.
        "fills": [(0, 0, -0.005 - 0.545 / 118, 118.0, "order")],
        "cash": 1.635,
        "units": [-0.545 / 118],
        "equity": 1.635 - 0.545 / 118 * 123,
    },
    {
        "name": "a position bought at this open begins at it, and 5% below is its first level",
        "bars": [bar(0.5, 100.0, 99.0, high=100.0, low=94.0, **FIVE)],
        "fills": [(0, 0, 0.005, 100.0, "order"), (0, 0, -0.005, 95.0, "trailing stop")],
        "cash": 0.975,
        "units": [0.0],
        "equity": 0.975,
    },
]


test_trailing_stops_as_worked_by_hand = worked(CASES)


def test_an_environment_trails_as_the_reference_does_and_forgets_with_the_account():
    env = jt.TradingEnv(
        BASE,
        window=2,
        episode_length=16,
        random_start=False,
        trailing_stop=(None, None, 0.05),
        rules=jt.Rules(rebalance_band=0.0),
    )
    params = env.default_params
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    step, first, actions = jax.jit(env.step_env), int(state.cursor), np.full(12, 2)
    equity, seen = [], []
    for action in actions:
        obs, state, *_ = step(jax.random.key(1), state, action, params)
        equity.append(float(state.account.equity))
        seen.append(float(obs.account[0, -1]))
    targets = np.full((len(BASE.close) - first, 1), np.nan)
    targets[: len(actions)] = 1.0
    stops = {"trailing_stop": np.full(targets.shape, 0.05)}
    expected = reference_of(BASE, targets, jt.Costs(), stops, slice(first, None))
    np.testing.assert_allclose(equity, expected["equity"][1 : len(equity) + 1], rtol=1e-5)
    assert "trailing stop" in expected["reasons"][: len(equity)]
    # What a decision sees: the return from the highest price since the entry, of what is held.
    held, best, returns = np.array(expected["units"])[1 : len(equity) + 1, 0] > 0, 0.0, []
    for row, long in enumerate(held, first + 1):
        best = max(best or BASE.open[row, 0], BASE.high[row, 0])
        fall = BASE.close[row, 0] / best - 1
        returns.append(fall / (BASE.volatility[row, 0] * math.sqrt(20)) if long else 0.0)
    np.testing.assert_allclose(seen, returns, rtol=1e-4, atol=1e-6)
    assert min(seen) < -0.1


def untrained(env):
    """A policy with random weights. Its state is made of the shapes of a fresh one, which compiles nothing."""
    agent, params = jt.PPOAgent(hidden=(8, 8)), env.default_params
    shapes = jax.eval_shape(lambda key: agent.init(key, env, params), jax.random.key(0))

    def zeros(x):
        return jax.random.key(0) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.zeros(x.shape, x.dtype)

    state = agent.prepare(with_noise(jax.tree.map(zeros, shapes), seed=0), params)[0]
    return policy_of(agent, state.replace(value_scale=ValueScale(*np.float32([0.02, 0.05, 0.1]))), env)


def test_a_policy_sees_what_it_saw_in_training_whatever_stop_it_trades_with(tmp_path):
    market = BASE
    for trained, traded in ((None, 0.05), (0.05, None)):
        policy = untrained(jt.TradingEnv(market, window=2, positions=(-1, 0, 1), trailing_stop=trained))
        save_policy(tmp_path / "policy.pkl", policy)
        policy = jt.load_policy(tmp_path / "policy.pkl")
        names = (*ACCOUNT_FEATURES, *((BEST_PRICE,) if trained else ()))
        assert policy.account_names == names
        assert len(policy.untraded()) == len(names)
        result = jt.backtest(policy, market, trailing_stop=traded)
        assert ("trailing stop" in result.fills["reason"]) == (traded == 0.05)
        accounts = np.array([result.seen(bar).account[0] for bar in range(60)])
        assert accounts.shape == (60, len(names))
        if trained:
            assert accounts[:, -1].min() < -0.1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (1.0, "trailing_stop=1.* must be below 1: it is a fraction of the best price"),
        (0.0, "trailing_stop=0.* must be above 0: it is a fraction of the best price"),
        ("5%", "trailing_stop.*: it is a fraction of the best price"),
    ],
)
def test_a_trailing_stop_that_cannot_be_is_refused(given, words):
    for refused in (jt.simulate, jt.TradingEnv):
        arguments = (BASE, 1.0) if refused is jt.simulate else (BASE,)
        with pytest.raises(ValueError, match=words):
            refused(*arguments, trailing_stop=given)
