"""Training on two devices against the same on one, and against NumPy over all paths."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.sharding import PartitionSpec
from market_paths import Replay
from trainers import CountEnv, FakeAgent, path_trainer

from jaxtrader import devices, files
from jaxtrader.agents.advantages import market_control_variate, regress_out
from jaxtrader.agents.normalization import RunningNormalizer, ValueScale
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent, PPOState, shuffled
from jaxtrader.agents.protocol import Rollout
from jaxtrader.devices import AXIS, REPLICATED, SHARDED
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.market import Market
from jaxtrader.training import dispatch, update
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts
from jaxtrader.training.train_result import TrainingDiverged
from jaxtrader.training.trainer import Trainer

LENGTH, PATHS, ACCOUNTS = 8, 4, 2
MESH = devices.make_mesh(2)
BY_PATH = PartitionSpec(None, AXIS)  # time-major
COLLECTED = Rollout(SHARDED, None, *[BY_PATH] * 8)


def both(function: Any, given: Any, results: Any) -> Any:
    return jax.jit(devices.run_on_all(function, MESH, given, results))


@pytest.fixture(scope="module")
def rollout(env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams) -> Rollout:
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS, shards=2)
    collect = jax.jit(lambda paths, key: rollouts.collect(paths, agent, state, params, key)[1])
    return collect(rollouts.begin(jax.random.key(1), params), jax.random.key(2))


def test_means_totals_and_moments_are_of_all_devices() -> None:
    x = np.random.default_rng(0).normal(3, 2, (6, 5)).astype(np.float32)

    def seen(x: jax.Array) -> Any:
        return devices.mean(x.mean()), devices.total(x.sum()), devices.moments(x), devices.count()

    for found, count in ((both(seen, SHARDED, REPLICATED)(x), 2), (seen(jnp.asarray(x)), 1)):
        mean, total, moments, counted = found
        np.testing.assert_allclose([mean, total, *moments], [x.mean(), x.sum(), x.mean(), x.var()], rtol=1e-6)
        assert counted == count


def test_each_shard_of_paths_has_a_key_of_its_own_on_any_number_of_devices() -> None:
    """Also minibatches: together those of two devices are those of one, and each takes one path of every shard."""
    draw = lambda shards, key: jax.vmap(jax.random.uniform)(devices.shard_keys(key, shards))  # noqa: E731
    key = jax.random.key(0)
    shuffle = jax.jit(shuffled, static_argnums=(1, 2))
    whole = jax.jit(draw, static_argnums=0)(6, key)
    assert len(set(whole.tolist())) == 6
    np.testing.assert_array_equal(both(partial(draw, 3), REPLICATED, SHARDED)(key), whole)

    rows = np.asarray(shuffle(key, 12, 2))
    np.testing.assert_array_equal(np.sort(rows, 0), np.arange(12).reshape(6, 2).T)
    halves = both(lambda key: shuffled(key, 6, 2), REPLICATED, PartitionSpec(None, AXIS))(key)
    np.testing.assert_array_equal(np.asarray(halves) + np.repeat([0, 6], 3), rows)
    assert len({np.asarray(shuffle(jax.random.key(i), 12, 2)).tobytes() for i in range(4)}) == 4


def test_scales_merge_what_all_devices_saw() -> None:
    data = np.random.default_rng(1).normal([1e3, -2, 0], [5, 1, 0.1], (3, 8, 3)).astype(np.float32)
    merge = both(RunningNormalizer.update, (REPLICATED, SHARDED), REPLICATED)
    normalizer = RunningNormalizer.fresh((3,))
    scale = ValueScale(*jnp.zeros((3,)))
    for i, batch in enumerate(data, 1):
        normalizer = merge(normalizer, batch)
        seen = np.float64(data[:i]).reshape(-1, 3)
        np.testing.assert_allclose(normalizer.mean, seen.mean(0), rtol=1e-6)
        np.testing.assert_allclose(normalizer.variance, seen.var(0), rtol=1e-4)
        assert float(normalizer.count) == len(seen)
    scale = both(ValueScale.update, (REPLICATED, SHARDED), REPLICATED)(scale, data[0])
    mean, std = scale.moments()
    np.testing.assert_allclose([mean, std], [data[0].mean(), data[0].std()], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", ["one block", "blocks of paths"])
def test_a_gradient_is_that_of_all_paths_on_one_device(
    agent: PPOAgent,
    state: PPOState,
    rollout: Rollout,
    params: EnvParams,
    blocks: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The raw one, before the clip and Adam, which would hide a factor. Then an update by it, metrics included."""
    if blocks != "one block":
        monkeypatch.setattr("jaxtrader.agents.blocks.block_count", lambda paths, *_: paths)
    batch = {name: jnp.moveaxis(getattr(rollout, name), 1, 0) for name in ("action", "log_prob", "account")}
    wild = np.random.default_rng(2).normal(0, 1, batch["log_prob"].shape).astype(np.float32)
    batch |= {"advantage": wild, "target": wild[::-1], "cursor": rollout.cursor, "observations": None}

    def gradient(batch: Any) -> Any:
        return devices.mean(agent._gradient(state.params, state, batch, params))

    one, two = jax.jit(gradient)(batch), both(gradient, SHARDED, REPLICATED)(batch)
    assert float(jnp.abs(jax.tree.leaves(one[0])[0]).max()) > 1e-4
    chex.assert_trees_all_close(one, two, rtol=1e-5, atol=1e-7)

    whole = agent.replace(num_minibatches=1, num_epochs=2, max_grad_norm=1e9)  # no permutation matters
    learn = lambda rollout: whole.learn(state, rollout, params, jax.random.key(3))  # noqa: E731
    (after, metrics), (after_two, metrics_two) = jax.jit(learn)(rollout), both(learn, (COLLECTED,), REPLICATED)(rollout)
    chex.assert_trees_all_close(metrics, metrics_two, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(after, after_two, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_the_market_explains_is_the_same_on_two_devices(
    env: TradingEnv, agent: PPOAgent, raw_params: EnvParams
) -> None:
    """The mean account and the fit are of all paths: what a continuous policy learns from."""
    env = dataclasses.replace(env, positions="continuous")
    state, params = agent.prepare(agent.init(jax.random.key(0), env, raw_params), raw_params)
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS, shards=2)

    @jax.jit
    def collect(state: PPOState, params: EnvParams) -> Rollout:
        paths = rollouts.begin(jax.random.key(1), params)
        return rollouts.collect(paths, agent, state, params, jax.random.key(2))[1]

    def left(rollout: Rollout) -> jax.Array:
        return regress_out(rollout.reward, market_control_variate(agent, state, rollout, params))

    rollout = collect(state, params)
    one, two = jax.jit(left)(rollout), both(left, (COLLECTED,), BY_PATH)(rollout)
    assert float(jnp.abs(one - rollout.reward).max()) > 1e-4
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_a_rollout_on_two_devices_is_that_of_its_paths(env: TradingEnv, params: EnvParams) -> None:
    """With given actions, so that no draw matters: accounts, experience and the sums of the log.

    One of them is no action, prices fall so far that who is long is ruined, and on two paths episodes end.
    """
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS, shards=2)
    arrays = params.arrays
    fall = jnp.where(jnp.arange(len(arrays.close)) % 50 >= 40, 1e-3, 1.0)[:, None]
    params = params.replace(arrays=arrays.replace(open=arrays.open * fall, close=arrays.close * fall))
    paths = rollouts.begin(jax.random.key(5), params)
    paths = paths.replace(
        cursor=jnp.asarray([33, 36, 80, 10], jnp.int32),
        end=jnp.full(PATHS, 150, jnp.int32),
        age=jnp.asarray([0, 8, 0, 8], jnp.int32),  # of 16 bars, of which 8 are walked
        partial=jnp.zeros(PATHS, bool),
    )

    actions = jnp.zeros((LENGTH, PATHS, ACCOUNTS), jnp.int32).at[3:].set(2).at[6, -1, 0].set(7)

    def collect(part: MarketRollouts, paths: Any, actions: jax.Array) -> Any:
        return part.collect(paths, Replay(actions), None, params, jax.random.key(6))

    paths_one, *one = jax.jit(partial(collect, rollouts))(paths, actions)
    split = both(partial(collect, rollouts.part(2)), (SHARDED, BY_PATH), (SHARDED, COLLECTED, REPLICATED))
    paths_two, *two = split(paths, actions)
    stats = one[1]
    assert float(stats["turnover_per_bar"]) > 0
    assert int(stats["ruins"]) > 0
    assert int(stats["invalid_actions"]) == 1
    assert int(stats["episodes"]) == 2 * ACCOUNTS + int(stats["ruins"])
    assert float(stats["episode_returns"]) != 0
    chex.assert_trees_all_close(one, two, rtol=1e-6, atol=1e-7)
    going_on = jax.tree.map(lambda x: x[jnp.asarray([0, 2])], (paths_one, paths_two))
    chex.assert_trees_all_close(*going_on, rtol=1e-6, atol=1e-7)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: Any, env: TradingEnv, agent: PPOAgent, market: Market) -> Any:
    """`twice(name, seed)`: a training on two devices, with validation."""
    folder = tmp_path_factory.mktemp("devices")

    def train(name: str, seed: int = 3) -> Any:
        steps = 8 * env.episode_length // 2 * 4
        settings = {"valid": market, "total_steps": steps, "eval_every": 2, "devices": 2, "seed": seed}
        return path_trainer(env, agent, folder / name, **settings).train()

    return train


@pytest.mark.slow
def test_training_on_two_devices(twice: Any, env: TradingEnv) -> None:
    """The same seed gives the same bits and another seed others. All that follows is on one device again."""
    one, again, other = twice("one"), twice("again"), twice("other", seed=4)
    chex.assert_trees_all_equal(one.state, again.state)
    first = lambda result: np.asarray(jax.tree.leaves(result.state.params)[0])  # noqa: E731
    assert not np.array_equal(first(one), first(other))
    assert {len(leaf.devices()) for leaf in jax.tree.leaves(one.state)} == {1}
    assert all(np.isfinite(record["valid_reward_per_bar"]) for record in one.history)
    assert json.loads((one.run_dir / "config.json").read_text())["training"]["devices"] == 2
    policy = load_policy(one.run_dir)
    assert policy.act(np.zeros((env.window, 3))) in env.positions


@pytest.mark.slow
def test_parameters_stay_the_same_on_all_devices_and_draws_differ(
    env: TradingEnv, agent: PPOAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All paths begin with the same account at the same bar: what tells the devices' paths apart is their draws."""
    train_states = []

    def kept(train_state: update.TrainState, *args: Any, **kwargs: Any) -> Any:
        alike = jax.tree.map(lambda x: jnp.copy(jnp.broadcast_to(x[:1], x.shape)), train_state.env_states)
        train_state = update.place_train_state(train_state.replace(env_states=alike), MESH)
        train_state, report = update.run_chunk(train_state, *args, **kwargs)
        train_states.append(jax.tree.map(jnp.copy, train_state))
        return train_state, report

    monkeypatch.setattr(dispatch, "run_chunk", kept)
    path_trainer(env, agent, tmp_path / "run", total_steps=8 * env.episode_length // 2, devices=2).train()
    train_state = train_states[-1]
    for leaf in jax.tree.leaves(train_state.agent_state):
        here, there = (shard.data for shard in leaf.addressable_shards)
        np.testing.assert_array_equal(here, there)
    here, there = (np.asarray(shard.data) for shard in train_state.env_states.account.cash.addressable_shards)
    assert here.shape == there.shape == (2, 2)
    assert not np.array_equal(here, there)


class Uneven(CountEnv):
    """Half of the environments pay more, by their parameter: those that begin on the second device."""

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: jax.Array) -> Any:
        obs, after, reward, *rest = super().step(key, state, action, params)
        second = devices.count() > 1 and jax.lax.axis_index(AXIS) == 1
        return obs, after, reward + jnp.where(second, params, 0), *rest


@struct.dataclass
class Shared(FakeAgent):
    """Learns on two devices: by the mean over both, or by what each saw (`own` is 1)."""

    several_devices: ClassVar[bool] = True
    own: float = 0.0

    def learn(self, state: Any, rollout: Rollout, params: Any, key: jax.Array) -> Any:
        here = rollout.reward.mean()
        seen = jnp.where(self.own > 0, here, devices.mean(here))
        return {"updates": state["updates"] + 1, "weight": state["weight"] + seen}, {}


def test_what_one_device_finds_wrong_ends_training_on_both(tmp_path: Path) -> None:
    settings = {"num_envs": 4, "rollout_length": 10, "progress": False}

    def make(name: str, steps: int = 120, devices: int = 2, more: float = 0.0, own: float = 0.0) -> Trainer:
        where = {"run_dir": tmp_path / name, "devices": devices}
        return Trainer(Uneven(), Shared(own=own), env_params=np.float32(more), total_steps=steps, **where, **settings)

    result = make("good").train()
    np.testing.assert_array_equal(result.state["weight"], [4, 4])  # 1, and the mean reward of 1 three times
    assert result.episodes == 120 // 5
    stored = files.load(result.run_dir / "checkpoint.pkl", "checkpoint")
    assert stored["devices"] == 2
    longer = make("good", 240).train(resume=True)
    np.testing.assert_array_equal(longer.state["weight"], [7, 7])
    with pytest.warns(UserWarning, match="`devices` was 2 and is 1"):
        alone = make("good", 360, devices=1).train(resume=True)
    np.testing.assert_array_equal(alone.state["weight"], [10, 10])
    assert alone.episodes == 360 // 5
    with pytest.raises(TrainingDiverged, match=r"update 1 .* parameters, which differ .*jaxtrader\.devices\.mean"):
        make("apart", more=1.0, own=1.0).train()
    with pytest.raises(TrainingDiverged, match=r"update 1 .* not valid in reward, parameters"):
        make("broken", more=np.nan).train()
    assert {path.name for path in (tmp_path / "broken").iterdir()} >= {"last.pkl", "checkpoint.pkl"}


def test_ordinary_environments_on_two_devices() -> None:
    rollouts = EnvRollouts(CountEnv(), length=10, num_envs=4, shards=2)
    envs = rollouts.begin(jax.random.key(0), None)
    places = Rollout(None, BY_PATH, None, *[BY_PATH] * 7)
    collect = lambda part, envs: part.collect(envs, FakeAgent(), None, None, jax.random.key(1))  # noqa: E731
    one = jax.jit(partial(collect, rollouts))(envs)
    two = both(partial(collect, rollouts.part(2)), SHARDED, (SHARDED, places, REPLICATED))(envs)
    assert int(one[2]["episodes"]) == 8
    chex.assert_trees_all_equal(one, two)


def test_what_cannot_be_divided_is_refused(env: TradingEnv, agent: PPOAgent, tmp_path: Path) -> None:
    make = partial(path_trainer, env, agent, tmp_path / "run", total_steps=1000)
    with pytest.raises(ValueError, match=r"devices=0` must be a whole number, at least 1"):
        make(devices=0)
    with pytest.raises(ValueError, match=r"devices=3` does not divide the 4 paths"):
        make(devices=3)
    with pytest.raises(ValueError, match=r"num_minibatches=4` does not divide the 2 paths .* of each of 2 devices"):
        path_trainer(env, dataclasses.replace(agent, num_minibatches=4), tmp_path, total_steps=1000, devices=2)
    with pytest.raises(
        ValueError, match=r"devices=4` is more than JAX has here \(2 of kind cpu\).*jax_num_cpu_devices"
    ):
        make(devices=4, accounts_per_path=1, num_envs=16)
    with pytest.raises(ValueError, match="FakeAgent learns on one device"):
        Trainer(CountEnv(), FakeAgent(), num_envs=4, rollout_length=10, total_steps=1000, devices=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_command_splits_the_cpu_before_jax_is_used() -> None:
    """In a process of its own, which has not used JAX until the command runs. A later split changes nothing."""
    code = """
import jax
from jaxtrader import devices
from jaxtrader.cli import commands
commands.RUNS["train"] = lambda *_: print(len(jax.devices())) or 0
commands.run("train", {"devices": 3})
devices.split_cpu(5)
print(len(jax.devices()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3"]


@pytest.mark.slow
def test_eight_devices_learn_what_one_learns() -> None:
    """The raw gradients of one update, and parameters after 20, in a process whose CPU is split into eight.

    On market paths alone: how ordinary environments are divided does not depend on the number of devices.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    script = Path(__file__).with_name("many_devices.py")
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, "XLA_FLAGS": flags}, stdout=subprocess.PIPE, text=True, check=True
    )
    apart = json.loads(done.stdout)
    assert apart["gradient"] <= 1e-5
    assert apart["parameters"] <= 1e-5
    assert apart["episodes"] == 0
