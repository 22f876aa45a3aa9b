"""Training on two devices against the same on one, and against NumPy over all lanes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from lanes import Replay
from trainers import CountEnv, FakeAgent, lane_trainer

from jaxtrader import devices
from jaxtrader.agents.normalization import RunningNormalizer, ValueScale
from jaxtrader.agents.policy import load_policy
from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.agents.protocol import Rollout
from jaxtrader.devices import AXIS, SHARED, SPLIT
from jaxtrader.envs.state import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.market import Market
from jaxtrader.training.rollout import EnvRollouts, LaneRollouts
from jaxtrader.training.trainer import Trainer

LENGTH, LANES, AGENTS = 8, 4, 2
MESH = devices.mesh(2)
BY_LANE = PartitionSpec(None, AXIS)  # time-major
COLLECTED = Rollout(SPLIT, None, *[BY_LANE] * 8)


def both(function: Any, given: Any, results: Any) -> Any:
    return jax.jit(devices.on_all(function, MESH, given, results))


@pytest.fixture(scope="module")
def rollout(env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams) -> Rollout:
    rollouts = LaneRollouts(env, LENGTH, LANES, AGENTS)
    collect = jax.jit(lambda lanes, key: rollouts.collect(lanes, agent, state, params, key)[1])
    return collect(rollouts.begin(jax.random.key(1), params), jax.random.key(2))


def test_means_totals_and_moments_are_of_all_devices() -> None:
    x = np.random.default_rng(0).normal(3, 2, (6, 5)).astype(np.float32)

    def seen(x: jax.Array) -> Any:
        return devices.mean(x.mean()), devices.total(x.sum()), devices.moments(x), devices.count()

    for found, count in ((both(seen, SPLIT, SHARED)(x), 2), (seen(jnp.asarray(x)), 1)):
        mean, total, moments, counted = found
        np.testing.assert_allclose([mean, total, *moments], [x.mean(), x.sum(), x.mean(), x.var()], rtol=1e-6)
        assert counted == count


def test_each_device_has_a_key_of_its_own() -> None:
    draw = lambda key: jax.random.uniform(devices.own(key), (1,))  # noqa: E731
    key = jax.random.key(0)
    one, two = both(draw, SHARED, SPLIT)(key)
    assert one != two
    assert draw(key) == jax.random.uniform(key, (1,)), "one device: the key itself"


def test_scales_merge_what_all_devices_saw() -> None:
    data = np.random.default_rng(1).normal([1e3, -2, 0], [5, 1, 0.1], (3, 8, 3)).astype(np.float32)
    merge = both(RunningNormalizer.update, (SHARED, SPLIT), SHARED)
    normalizer = RunningNormalizer.fresh((3,))
    scale = ValueScale(*jnp.zeros((3,)))
    for i, batch in enumerate(data, 1):
        normalizer = merge(normalizer, batch)
        seen = np.float64(data[:i]).reshape(-1, 3)
        np.testing.assert_allclose(normalizer.mean, seen.mean(0), rtol=1e-6)
        np.testing.assert_allclose(normalizer.variance, seen.var(0), rtol=1e-4)
        assert float(normalizer.count) == len(seen)
    scale = both(ValueScale.update, (SHARED, SPLIT), SHARED)(scale, data[0])
    mean, std = scale.moments()
    np.testing.assert_allclose([mean, std], [data[0].mean(), data[0].std()], rtol=1e-5)


@pytest.mark.parametrize("blocks", ["one block", "blocks of lanes"])
def test_a_gradient_is_that_of_all_lanes_on_one_device(
    agent: PPOAgent,
    state: PPOState,
    rollout: Rollout,
    params: EnvParams,
    blocks: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The raw one, before the clip and Adam, which would hide a factor; and an update by it, metrics included."""
    if blocks != "one block":
        monkeypatch.setattr("jaxtrader.agents.encoders.blocks", lambda lanes, *_: lanes)
    batch = {name: jnp.moveaxis(getattr(rollout, name), 1, 0) for name in ("action", "log_prob", "account")}
    wild = np.random.default_rng(2).normal(0, 1, batch["log_prob"].shape).astype(np.float32)
    batch |= {"advantage": wild, "target": wild[::-1], "cursor": rollout.cursor, "observations": None}

    def gradient(batch: Any) -> Any:
        return devices.mean(agent._gradient(state.params, state, batch, params))

    one, two = jax.jit(gradient)(batch), both(gradient, SPLIT, SHARED)(batch)
    assert float(jnp.abs(jax.tree.leaves(one[0])[0]).max()) > 1e-4
    chex.assert_trees_all_close(one, two, rtol=1e-5, atol=1e-7)

    whole = agent.replace(num_minibatches=1, num_epochs=2, max_grad_norm=1e9)  # no permutation matters
    learn = lambda rollout: whole.learn(state, rollout, params, devices.own(jax.random.key(3)))  # noqa: E731
    (after, metrics), (after_two, metrics_two) = jax.jit(learn)(rollout), both(learn, (COLLECTED,), SHARED)(rollout)
    chex.assert_trees_all_close(metrics, metrics_two, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(after, after_two, rtol=1e-4, atol=1e-5)


def test_a_rollout_on_two_devices_is_that_of_its_lanes(env: TradingEnv, params: EnvParams) -> None:
    """With given actions, so that no draw matters: accounts, experience and the sums of the log."""
    rollouts = LaneRollouts(env, LENGTH, LANES, AGENTS)
    lanes = rollouts.begin(jax.random.key(5), params)
    lanes = lanes.replace(age=jnp.zeros_like(lanes.age))  # no episode ends, so that none begins by a draw

    def collect(part: LaneRollouts, lanes: Any) -> Any:
        actions = jnp.zeros((LENGTH, part.lanes, AGENTS), jnp.int32).at[3:].set(2)
        return part.collect(lanes, Replay(actions), None, params, jax.random.key(6))

    one = jax.jit(partial(collect, rollouts))(lanes)
    two = both(partial(collect, rollouts.part(2)), SPLIT, (SPLIT, COLLECTED, SHARED))(lanes)
    assert float(one[2]["turnover_per_bar"]) > 0
    chex.assert_trees_all_close(one, two, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: Any, env: TradingEnv, market: Market) -> Any:
    """`twice(name, seed)`: a training on two devices, with validation."""
    agent = PPOAgent(hidden=(8,), num_minibatches=2, num_epochs=2)
    folder = tmp_path_factory.mktemp("devices")

    def train(name: str, seed: int = 3) -> Any:
        steps = 8 * env.episode_length // 2 * 4
        settings = {"valid": market, "total_steps": steps, "eval_every": 2, "devices": 2, "seed": seed}
        return lane_trainer(env, agent, folder / name, **settings).train()

    return train


def test_training_on_two_devices(twice: Any, env: TradingEnv) -> None:
    """The same seed gives the same bits and another seed others; all that follows is on one device again."""
    one, again, other = twice("one"), twice("again"), twice("other", seed=4)
    chex.assert_trees_all_equal(one.state, again.state)
    first = lambda result: np.asarray(jax.tree.leaves(result.state.params)[0])  # noqa: E731
    assert not np.array_equal(first(one), first(other))
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(one.state)} == {1}
    assert all(np.isfinite(record["valid_reward_per_bar"]) for record in one.history)
    assert json.loads((one.run_dir / "config.json").read_text())["training"]["devices"] == 2
    policy = load_policy(one.run_dir)
    assert policy.act(np.zeros((env.window, 3))) in env.positions


def test_parameters_stay_the_same_on_all_devices_and_lanes_differ(
    env: TradingEnv, agent: PPOAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaxtrader.training import trainer as trainer_module

    carries = []

    def kept(*args: Any, **kwargs: Any) -> Any:
        carry, report = chunk(*args, **kwargs)
        carries.append(jax.tree.map(jnp.copy, carry))
        return carry, report

    chunk = trainer_module.run_chunk
    monkeypatch.setattr(trainer_module, "run_chunk", kept)
    lane_trainer(env, agent, tmp_path / "run", total_steps=8 * env.episode_length // 2 * 2, devices=2).train()
    carry = carries[-1]
    for leaf in jax.tree.leaves(carry.agent):
        here, there = (shard.data for shard in leaf.addressable_shards)
        np.testing.assert_array_equal(here, there)
    here, there = (np.asarray(shard.data) for shard in carry.envs.account.cash.addressable_shards)
    assert here.shape == there.shape == (2, 2)
    assert not np.array_equal(here, there)


def test_ordinary_environments_on_two_devices() -> None:
    rollouts = EnvRollouts(CountEnv(), length=10, num_envs=4)
    envs = rollouts.begin(jax.random.key(0), None)
    places = Rollout(None, BY_LANE, None, *[BY_LANE] * 7)
    collect = lambda part, envs: part.collect(envs, FakeAgent(), None, None, jax.random.key(1))  # noqa: E731
    one = jax.jit(partial(collect, rollouts))(envs)
    two = both(partial(collect, rollouts.part(2)), SPLIT, (SPLIT, places, SHARED))(envs)
    assert int(one[2]["episodes"]) == 8
    chex.assert_trees_all_equal(one, two)


def test_what_cannot_be_divided_is_refused(env: TradingEnv, agent: PPOAgent, tmp_path: Path) -> None:
    make = partial(lane_trainer, env, agent, tmp_path / "run", total_steps=1000)
    with pytest.raises(ValueError, match=r"devices 0 must be at least 1"):
        make(devices=0)
    with pytest.raises(ValueError, match=r"devices 3 does not divide the 4 lanes"):
        make(devices=3)
    with pytest.raises(ValueError, match=r"num_minibatches 4 does not divide the 2 lanes .* of each of 2 devices"):
        lane_trainer(env, dataclasses.replace(agent, num_minibatches=4), tmp_path, total_steps=1000, devices=2)
    with pytest.raises(ValueError, match=r"devices 4 is more than JAX has here \(2 of kind cpu\).*jax_num_cpu_devices"):
        make(devices=4, agents_per_lane=1, num_envs=16)
    with pytest.raises(ValueError, match="FakeAgent learns on one device"):
        Trainer(CountEnv(), FakeAgent(), num_envs=4, rollout_length=10, total_steps=1000, devices=2)
    assert not (tmp_path / "run").exists()


def test_a_cpu_is_split_before_jax_is_used_and_never_after() -> None:
    code = "from jaxtrader import devices; import jax; devices.split_cpu(3); n = len(jax.devices()); "
    code += "devices.split_cpu(5); print(n, len(jax.devices()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3"]
