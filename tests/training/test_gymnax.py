"""Every environment that gymnax registers goes through the Trainer's own chunk, and rollouts of each kind are run.

The chunk is traced only, nothing of it is compiled. Whether they are learnt is shown for CartPole in test_trainer.py,
and for three more in benchmarks/gymnax_control.py.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.rollout import EnvRollouts
from jaxtrader.training.trainer import Trainer
from jaxtrader.training.update import TrainState, begin_rollouts, init_agent, run_chunk

ENVS, LENGTH, REGISTERED = 2, 3, 26
# A rollout is compiled of one for each kind of observation and action: vectors and pictures, choices and boxes.
RUN = ("CartPole-v1", "MountainCarContinuous-v0", "Catch-bsuite", "Breakout-MinAtar", "Reacher-misc", "FourRooms-misc")
REFUSED: dict[str, str] = {}  # name: what the ValueError says. None has to be: all are discrete or a bounded Box


@pytest.fixture(scope="module")
def gymnax() -> Any:
    """The library. Its MNIST bandit would download its images, so two blank ones stand in for them."""
    import gymnax.wrappers  # 4 s: only here
    from gymnax.utils import load_mnist

    data = (np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_mnist, "load_mnist", lambda: (data, data))
        yield gymnax


def traced(env: Any, params: Any) -> tuple[Any, Any, Any]:
    """By what the Trainer calls, shapes: before and after a chunk of training, its report, and what the agent does."""
    agent = PPOAgent(hidden=(8,), num_minibatches=2)
    rollouts = Trainer(env, agent, env_params=params, num_envs=ENVS, rollout_length=LENGTH, total_steps=1).rollouts
    one, key = jnp.ones((), jnp.int32), jax.random.key(0)

    def train(key: Any) -> tuple[Any, Any, Any]:
        state, ready = agent.prepare(init_agent(agent, key, params, env=env), params)
        envs = begin_rollouts(key, ready, rollouts=rollouts)
        train_state = TrainState(state, envs, key, one, one, jnp.ones((), bool))
        limits = {"updates": one, "episodes": one}
        after, report = run_chunk(train_state, agent, ready, limits, one, rollouts=rollouts)
        return (train_state, after), report, agent.select_action(state, envs.obs, key)

    return jax.eval_shape(train, key)


@pytest.mark.slow
def test_all_that_gymnax_registers_trains_or_is_refused_by_name(gymnax: Any) -> None:
    refused = {}
    for name in gymnax.registered_envs:
        env, params = gymnax.make(name)
        try:
            (before, after), report, (action, extras) = traced(env, params)
        except ValueError as error:
            refused[name] = str(error)
            continue
        shapes = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]  # noqa: E731
        assert shapes(after) == shapes(before), name
        space = env.action_space(params)
        assert action.shape == (ENVS, *space.shape), name
        assert jnp.issubdtype(action.dtype, jnp.integer if hasattr(space, "n") else jnp.floating), name
        assert extras["value"].shape == extras["log_prob"].shape == (ENVS,), name
        assert {"policy_loss", "value_loss", "entropy"} < set(report["sums"].names), name
    assert len(gymnax.registered_envs) == REGISTERED
    assert refused.keys() == REFUSED.keys()
    for name, reason in REFUSED.items():
        assert reason in refused[name]


class Drawing:
    """An agent without a network: it draws from the action space."""

    needs_next = False

    def __init__(self, space: Any) -> None:
        self.space = space

    def select_action(self, state: Any, obs: Any, key: Any, deterministic: bool = False) -> tuple[Any, dict]:
        return jax.vmap(self.space.sample)(jax.random.split(key, ENVS)), {}


def test_gymnax_flattens_what_a_trading_environment_shows(gymnax: Any, env: TradingEnv) -> None:
    params, key = env.default_params, jax.random.key(0)
    flat = gymnax.wrappers.FlattenObservationWrapper(env)

    @jax.jit
    def both(params: Any) -> tuple[Any, Any]:
        (seen, state), (obs, flat_state) = env.reset(key, params), flat.reset(key, params)
        return (seen, env.step(key, state, 2, params)), (obs, flat.step(key, flat_state, 2, params))

    (seen, (*_, plain)), (obs, (after, *_, info)) = both(params)
    np.testing.assert_array_equal(obs, np.concatenate([seen.window.ravel(), seen.account.ravel()]))
    assert bool(flat.observation_space(params).contains(obs))
    np.testing.assert_allclose(info["final_observation"], np.asarray(plain["final_observation"]), rtol=1e-6)
    assert after.shape == obs.shape == flat.observation_space(params).shape


@pytest.mark.parametrize("wrapper", ["LogWrapper", "StickyActionWrapper"])
def test_gymnaxs_wrappers_take_a_trading_environment(gymnax: Any, wrapper: str, env: TradingEnv) -> None:
    params, key = env.default_params, jax.random.key(0)
    wrapped = getattr(gymnax.wrappers, wrapper)(env)
    before = jax.eval_shape(wrapped.reset, key, params)
    after = jax.eval_shape(wrapped.step, key, before[1], 2, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after[:2])


def test_a_flattened_trading_environment_trains_as_an_ordinary_one(gymnax: Any, env: TradingEnv) -> None:
    flat = gymnax.wrappers.FlattenObservationWrapper(env)
    before_and_after, _, (action, _) = traced(flat, env.default_params)
    chex.assert_trees_all_equal_shapes_and_dtypes(*before_and_after)
    assert action.shape == (ENVS,)


@pytest.mark.slow
def test_rollouts_of_each_kind_are_what_the_environment_says(gymnax: Any) -> None:
    key = jax.random.key(0)
    for name in RUN:
        env, params = gymnax.make(name)
        rollouts, agent = EnvRollouts(env, LENGTH, ENVS), Drawing(env.action_space(params))

        def run(params: Any, rollouts: EnvRollouts = rollouts, agent: Drawing = agent) -> tuple[Any, Any]:
            envs, rollout, _ = rollouts.collect(rollouts.begin(key, params), agent, None, params, key)
            return envs.obs, rollout

        # Compiled as little as can be: it runs three steps.
        obs, rollout = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(params)
        seen = jnp.concatenate([rollout.observations, obs[None]])
        assert seen.shape == (LENGTH + 1, ENVS, *env.observation_space(params).shape), name
        assert rollout.reward.shape == rollout.terminated.shape == (LENGTH, ENVS, 1), name
        assert np.isfinite(seen).all(), name
        assert np.isfinite(rollout.reward).all(), name
        ended = np.asarray(rollout.terminated | rollout.truncated)[..., 0]
        moved = (np.asarray(seen[1:]) != np.asarray(seen[:-1])).reshape(LENGTH, ENVS, -1).any(-1)
        assert (moved | ended).any(), name
