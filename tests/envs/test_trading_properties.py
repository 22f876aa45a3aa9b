"""TradingEnv under all rules with any action on any valid bars: nothing that is seen, paid or kept is ever NaN."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger.markets import BARS, FULL, RATES, all_costs, full_market
from rule_settings import bars_after, env_settings, run_settings

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import most_decisions, rollout_policy
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs

ENVS = {
    "portfolio": {
        **FULL,
        "positions": "continuous",
        "decision_every": 2,
        "flat_at_session_end": True,
        "costs": Costs(fixed_fee=2.0, impact=2.0, **RATES),
        "stop_loss": 0.05,
        "take_profit": 0.1,
    },
    "one": {
        **FULL,
        "positions": (-3.0, -0.5, 0.0, 3.0),
        "fill": "next_close",
        "flat_at_session_end": True,
        "costs": Costs.between(Costs(fixed_fee=0.0, impact=0.0), Costs(fee=0.4, fixed_fee=9e4, impact=9.0)),
        "stop_loss": (0.01, None, None, 0.9),
    },
    "at the close": {
        **FULL,
        "positions": (-3.0, -0.5, 0.0, 3.0),
        "fill": "close",
        "rebalance": "on_change",
        "flat_at_session_end": True,
        "costs": Costs(fixed_fee=2.0, impact=2.0, **RATES),
        "take_profit": 0.05,
    },
}


@partial(jax.jit, static_argnums=0)
def live(env, params, actions):
    """What `step` gives, `[bar, env]`, for actions `[bar, env, ...]`."""

    def move(state, row):
        key, action = row
        keys = jax.random.split(key, action.shape[0])
        obs, state, *rest = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)
        return state, (obs.account, state.account, *rest)

    _, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), actions.shape[1]), params)
    return jax.lax.scan(move, state, (jax.random.split(jax.random.key(1), len(actions)), actions))[1]


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["portfolio", "at the close", "one"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0.01, 1.5))
def test_no_action_on_any_valid_bars_makes_a_number_that_is_none(name, seed, wild):
    """Training's float32, prices that leap, actions that are none: all that an agent and the log see stays finite."""
    assets, rng = (3 if name == "portfolio" else 1), np.random.default_rng(seed)
    market = full_market(seed, assets, min(wild, 1.0))
    market = dataclasses.replace(market, features=np.zeros((BARS, assets, 1)), listed=market.present)
    env = TradingEnv(market, window=2, episode_length=16, **env_settings(ENVS[name]))
    if assets == 1:
        actions = rng.integers(-1, 5, (40, 16))
    else:
        actions = rng.uniform(-3.2, 3.2, (40, 16, 3)) * 10.0 ** rng.integers(-30, 1, (40, 16, 3))
        actions = np.where(rng.random(actions.shape) < 0.03, rng.choice([np.nan, np.inf, -np.inf, 1e38]), actions)
    actions = jnp.asarray(actions, jnp.int32 if assets == 1 else jnp.float32)
    seen, account, reward, _, truncated, info = live(env, env.default_params, actions)
    assert info["invalid_action"].any()
    assert np.isfinite(seen).all()
    assert np.isfinite(reward).all()
    for tree in (account, {k: v for k, v in info.items() if k not in ("target", "final_observation")}):
        for path_, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if "pending" not in str(path_):  # what is not yet decided holds
                assert np.isfinite(leaf).all(), path_
    assert np.isfinite(info["final_observation"].account).all()
    assert truncated.any()


@partial(jax.jit, static_argnums=0)
def lived(env, params, actions):
    """Turnover and costs of each bar of one account, from flat."""

    def move(account, row):
        t, action = row
        account, *_, info = env.advance(account, action, bars_after(env, t, params), params)
        return account, (info["turnover"], info["cost"])

    flat = env.open_account(
        jnp.zeros_like(params.arrays.close[0]), params.arrays.close[0], financing=params.has_financing
    )
    return jax.lax.scan(move, flat, (jnp.arange(len(actions)), actions))[1]


@pytest.mark.slow
def test_turnover_and_costs_of_the_log_are_those_of_a_result():
    """Session ends, last bars, liquidation and ruin among them: what closes a position is traded value too."""
    reasons = set()
    for seed, volatility in ((0, 0.03), (1, 0.03), (2, 0.6), (3, 0.6), (4, 0.6)):
        market = dataclasses.replace(full_market(seed, 3, volatility), features=np.zeros((BARS, 3, 1)))
        rules = {**FULL, "fill": "next_close", "flat_at_session_end": True}
        env = TradingEnv(market, window=1, positions="continuous", costs=all_costs(3), **env_settings(rules))
        actions = np.random.default_rng(seed).uniform(-1, 1, (BARS, 3))
        with jax.enable_x64(True):
            turnover, cost = lived(env, env.params("float64"), jnp.asarray(actions[:-1]))
        result = simulate(market, actions, costs=all_costs(3), **run_settings(rules))
        np.testing.assert_allclose(turnover, result.turnover[1:], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(cost, result.costs_paid[1:], rtol=1e-9, atol=1e-12)
        reasons |= set(result.fills["reason"])
    assert {"session end", "delisted", "liquidation"} <= reasons


@struct.dataclass
class AllInTheFirst:
    """Everything in the first asset, as long as what it sees of the account is a number."""

    def encode(self, state, chunk):
        return chunk[..., 3:, 0, :1]

    def act(self, state, context, account, key, deterministic=False):
        return jnp.asarray([1.0, 0.0, 0.0]) + 0 * account[..., 0], {}


@pytest.mark.slow
def test_an_account_that_is_worth_exactly_nothing_is_seen_as_flat(portfolio):
    """All is in the asset that loses everything at its last bar, 60: cash 0 and units 0, and 0 / 0 is no exposure."""
    rows = np.arange(len(portfolio.market.times))[:, None]
    there = (rows <= 60) | (np.arange(3) > 0)
    market = dataclasses.replace(
        portfolio.market, delisted=(rows == 60) & (np.arange(3) == 0), present=there, listed=there
    )
    env = dataclasses.replace(portfolio, market=market, rules=portfolio.rules.replace(delist_return=-1.0))
    params = env.default_params
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    state = state.replace(cursor=jnp.int32(59), time=jnp.int32(0))
    weights = jnp.asarray([1.0, 0.0, 0.0])
    _, _, reward, terminated, _, info = jax.jit(env.step)(jax.random.key(0), state, weights, params)
    assert terminated
    np.testing.assert_allclose(reward, np.log(1e-4), rtol=1e-5)
    np.testing.assert_array_equal(info["final_observation"].account[:, 0], 0)
    assert np.isfinite(info["final_observation"].account).all()
    path = rollout_policy(AllInTheFirst(), None, params, env=env, decisions=most_decisions(env))
    assert not path.invalid.any()
    assert np.isfinite(path.reward).all()
    assert float(path.reward.min()) < np.log(2e-4)
