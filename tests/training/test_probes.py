"""PPO under the Trainer on tasks whose answer is known: values within 0.1, the right actions, in 131,072 steps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest

from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import mean_reward, most_decisions
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.training.trainer import Trainer

AGENT = PPOAgent(hidden=(16, 16), gamma=0.9)
TABULAR, FAST = probes.Tabular(), probes.Fast()
BOTH = jnp.asarray([[-1.0], [1.0]])  # the observations of the two states


def train(tmp_path: Path, env: Any, agent: PPOAgent = AGENT, steps: int = 131_072, **settings: Any) -> PPOState:
    trainer = Trainer(
        env,
        agent,
        num_envs=64,
        rollout_length=16,
        total_steps=steps,
        updates_per_chunk=64,
        eval_every=1000,
        progress=False,
        run_dir=tmp_path / "run",
        **settings,
    )
    return trainer.train().state


@jax.jit
def decide(state: PPOState, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mode and the value."""
    action, extras = AGENT.select_action(state, obs, jax.random.key(0), deterministic=True)
    return action, extras["value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tables", "values", "actions"),
    [
        pytest.param(probes.CONSTANT, [1, None], None, id="constant value"),
        pytest.param(probes.BY_OBSERVATION, [-1, 1], None, id="value by observation"),
        pytest.param(probes.TWO_STEPS, [0.9, 1], None, id="discounted value"),
        pytest.param(probes.BY_ACTION, [1, None], [1, None], id="choice"),
        pytest.param(probes.BY_BOTH, [1, 1], [0, 1], id="choice by observation"),
        pytest.param(probes.TRUNCATED, [-0.2 / (1 - 0.9), 0.2 / (1 - 0.9)], None, id="time limits only"),
    ],
)
def test_values_and_choices_of_tabular_probes(tmp_path, tables, values, actions) -> None:
    state = train(tmp_path, TABULAR, env_params=tables)
    action, value = decide(state, BOTH)
    for i in range(2):
        if values[i] is not None:
            # The critic is a network after few updates, and the values are about 1 apart.
            assert float(value[i]) == pytest.approx(values[i], abs=0.1)
        if actions is not None and actions[i] is not None:
            assert int(action[i]) == actions[i]


@pytest.mark.parametrize("press", [0, 1])  # a policy that learns nothing and always does the same would pass one
@pytest.mark.slow
def test_fast_is_learned_within_32768_steps(tmp_path, press: int) -> None:
    params = jnp.asarray(press, jnp.int32)
    state = train(tmp_path, FAST, AGENT.replace(gamma=0.95), steps=32_768, env_params=params)

    def step(carry: tuple, key: jax.Array) -> tuple:
        obs, motion = carry
        obs, motion, reward, *_ = FAST.step(key, motion, decide(state, obs[None])[0][0], params)
        return (obs, motion), reward

    _, rewards = jax.lax.scan(step, FAST.reset(jax.random.key(0), params), jax.random.split(jax.random.key(1), 128))
    assert float(rewards.sum()) > 135


@pytest.mark.parametrize(("gamma", "share"), [(0.9, 1.0), (0.0, 0.0)], ids=["patient", "myopic"])
@pytest.mark.slow
def test_a_position_is_held_through_a_loss_by_the_patient_only(tmp_path, gamma: float, share: float) -> None:
    market, best = probes.patience(cycles=60, cost=0.001)
    costs = Costs(fee=None, slippage=0.001)
    env = TradingEnv(market, positions=(0, 1), window=2, episode_length=16, costs=costs)
    agent = AGENT.replace(gamma=gamma)
    state = train(tmp_path, env, agent)
    _, params = agent.prepare(state, env.default_params)
    walk = jax.jit(partial(mean_reward, env=env))
    earned = float(walk(agent, state, params)) * (most_decisions(env) - 1)  # the last bar is not decided on
    np.testing.assert_allclose(earned, share * best, atol=0.01 * best)


@pytest.mark.parametrize(("encoder", "depth", "dtype"), [("tcn", None, "bfloat16"), ("attention", 1, "float32")])
@pytest.mark.slow
def test_an_encoder_finds_the_one_bar_of_its_window_that_tells(tmp_path, encoder: str, depth: int, dtype: str) -> None:
    """On bars that it was not trained on, the right side of a move of 1% at nearly every one."""
    free = Costs(fee=None, slippage=None)
    env = TradingEnv(probes.echo(3000, lag=5), window=8, episode_length=64, costs=free, rules=Rules(rebalance_band=0.0))
    agent = PPOAgent(learning_rate=5e-3, gamma=0.5, hidden=(16,), compute_dtype=dtype)
    agent = agent.replace(encoder=encoder, encoder_width=16, encoder_depth=depth)
    state = train(tmp_path, env, agent, steps=65_536, accounts_per_path=4)
    fresh = env.with_market(probes.echo(1000, lag=5, seed=1))
    _, params = agent.prepare(state, fresh.default_params)
    walk = jax.jit(partial(mean_reward, env=fresh))
    assert float(walk(agent, state, params)) > 0.0095
