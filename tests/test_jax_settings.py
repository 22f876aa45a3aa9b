"""A caller's settings of JAX, such as 64 bits or checks for NaN, change no training and no result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import BY_BOTH, Tabular

from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.jax_settings import without_64_bits
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market
from jaxtrader.training.trainer import Trainer

AGENT = PPOAgent(hidden=(8,), num_epochs=1, num_minibatches=1)
LENGTHS = {"num_envs": 4, "rollout_length": 8, "total_steps": 64, "progress": False}


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """All that a caller may turn on."""
    with (
        jax.enable_x64(True),
        jax.debug_nans(True),
        jax.debug_infs(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        yield


@pytest.fixture(scope="module")
def delayed(make_market: Callable[..., Market]) -> TradingEnv:
    """An environment whose accounts hold NaN: the targets that are still to come."""
    return TradingEnv(make_market(), window=4, episode_length=16, rules=Rules(delay=1))


def weights(policy: Path) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(load_policy(policy).state.params)]


@pytest.mark.slow
def test_a_callers_settings_change_no_training_and_no_backtest(delayed: TradingEnv, tmp_path: Path) -> None:
    market = delayed.market
    plain = Trainer(delayed, AGENT, valid=market, run_dir=tmp_path / "plain", **LENGTHS).train()
    expected = backtest(plain.policy_path, market)
    with strict():
        strictly = Trainer(delayed, AGENT, valid=market, run_dir=tmp_path / "strict", **LENGTHS).train()
        policy = load_policy(strictly.policy_path)
        result = backtest(policy, market)
        policy.act(market.features[-4:, 0])
        simulated = simulate(market, 1.0, symbol="S0", rules=delayed.rules)
    for before, after in zip(weights(plain.policy_path), weights(strictly.policy_path), strict=True):
        assert after.dtype == np.float32
        np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(result.equity, expected.equity)
    assert policy.agent == AGENT
    assert len(repr(strictly).splitlines()) == 1
    assert str(tmp_path / "strict") in repr(strictly)
    np.testing.assert_array_equal(simulated.equity, simulate(market, 1.0, symbol="S0", rules=delayed.rules).equity)


@pytest.mark.slow
def test_an_ordinary_environment_whose_parameters_have_64_bits_trains_the_same(tmp_path: Path) -> None:
    plain = Trainer(Tabular(), AGENT, env_params=BY_BOTH, run_dir=tmp_path / "plain", **LENGTHS).train()
    with strict():
        wide = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, BY_BOTH)
        strictly = Trainer(Tabular(), AGENT, env_params=wide, run_dir=tmp_path / "strict", **LENGTHS).train()
        action = load_policy(strictly.policy_path).act([1.0])
    for before, after in zip(weights(plain.policy_path), weights(strictly.policy_path), strict=True):
        np.testing.assert_array_equal(after, before)
    assert action == load_policy(plain.policy_path).act([1.0])


def test_an_environment_keeps_its_types_with_64_bits(delayed: TradingEnv) -> None:
    """What a step returns can be the carry of a loop, as `lax.scan` wants it."""

    def types(tree: Any) -> list[tuple[Any, Any]]:
        return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]

    with jax.enable_x64(True):
        params, key = delayed.default_params, jax.random.key(0)
        obs, state = jax.eval_shape(delayed.reset, key, params)
        action = jax.ShapeDtypeStruct((), jnp.int32)
        stepped = jax.eval_shape(delayed.step, key, state, action, params)
    assert types(stepped[:2]) == types((obs, state))
    assert stepped[2].dtype == jnp.float32


def test_only_arrays_of_64_bits_change() -> None:
    with jax.enable_x64(True):
        tree = {
            "wide": jnp.ones(2, jnp.float64),
            "whole": np.ones(2, np.int64),
            "number": 0.5,
            "flag": np.ones(2, bool),
        }
        narrow = without_64_bits(tree)
    assert narrow["wide"].dtype == jnp.float32
    assert narrow["whole"].dtype == jnp.int32
    assert narrow["number"] == 0.5
    assert narrow["flag"] is tree["flag"]
