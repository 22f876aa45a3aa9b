"""Rollouts along market paths give what single steps of the environment give, and see nothing of later bars."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax import Array
from jax.extend.core import jaxprs_in_params
from market_paths import ACCOUNTS, LENGTH, PATHS, Replay, collect, observe, step
from rule_settings import env_account

from jaxtrader.agents.ppo import PPOAgent, PPOState, ValueScale
from jaxtrader.envs import rewards
from jaxtrader.envs.episode import EnvParams, EnvState
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.market import Market
from jaxtrader.training.rollout import EnvRollouts, MarketPaths, MarketRollouts, bytes_per_transition


@jax.jit
def select(agent: PPOAgent, state: PPOState, obs: Observation) -> tuple:
    return agent.select_action(state, obs, jax.random.key(0))


def recount(rollout: Any, before: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ends of episodes step by step, `[path, account]`: how many, what they earned, what the next earned so far."""
    going_on, count, returns = np.float64(before), np.zeros(before.shape, int), np.zeros(before.shape)
    for t in range(len(rollout.reward)):
        going_on = going_on + np.asarray(rollout.reward[t])
        over = np.asarray(rollout.terminated[t] | rollout.truncated[t])
        count, returns = count + over, returns + np.where(over, going_on, 0)
        going_on = np.where(over, 0, going_on)
    return count, returns, going_on


@pytest.fixture(scope="module")
def paths(rollouts: MarketRollouts, raw_params: EnvParams) -> MarketPaths:
    return jax.jit(rollouts.begin)(jax.random.key(11), raw_params)


def test_market_paths_begin_on_their_own_bars_with_staggered_ages(
    env: TradingEnv, paths: MarketPaths, raw_params: EnvParams
) -> None:
    np.testing.assert_array_equal(paths.age, [0, 8, 0, 8, 0, 8])
    np.testing.assert_array_equal(paths.partial, paths.age > 0)
    assert paths.account.cash.shape == (PATHS, ACCOUNTS)
    price = np.asarray(raw_params.arrays.close)[np.asarray(paths.cursor)][:, None]
    np.testing.assert_allclose(paths.account.units * price, paths.account.target, rtol=1e-6)
    assert len(set(np.asarray(paths.cursor).tolist())) > 3
    assert (np.asarray(paths.cursor) + LENGTH < np.asarray(paths.end)).all()


@pytest.mark.parametrize(
    ("reward", "close"),
    [
        (rewards.log_return(), 1e-6),
        # over a deviation of some 0.01
        pytest.param(rewards.differential_sharpe(0.05), 2e-5, marks=pytest.mark.slow),
    ],
)
def test_a_rollout_equals_stepping_the_environment_one_by_one_ruin_included(
    rollouts: MarketRollouts, env: TradingEnv, raw_params: EnvParams, reward: Any, close: float
) -> None:
    """The same actions from the same state. Prices fall by 99.5% at bar 33, while some accounts on path 0 are long."""
    scale = np.where((np.arange(240) >= 33) & (np.arange(240) < 150), np.float32(0.005), 1)[:, None]
    arrays = raw_params.arrays
    params = raw_params.replace(
        arrays=arrays.replace(open=scale * np.asarray(arrays.open), close=scale * np.asarray(arrays.close))
    )
    cursor = np.array([30, 10, 60, 160, 200, 110], np.int32)
    end = np.array([150, 150, 150, 240, 240, 150], np.int32)
    exposure = np.random.default_rng(0).choice(np.float32([-1, 0, 1]), (PATHS, ACCOUNTS, 1))
    env = dataclasses.replace(env, reward=reward)
    account = jax.jit(env.open_account)(exposure, params.arrays.close[cursor][:, None])
    age = np.zeros(PATHS, np.int32)
    start = MarketPaths(cursor, end, age, age > 0, account, np.zeros((PATHS, ACCOUNTS), np.float32))
    actions = np.random.default_rng(1).integers(0, 3, (LENGTH, PATHS, ACCOUNTS))
    actions[:4, 0] = [[2, 0]] * 4  # one long into the crash, one short
    actions = actions.astype(np.int32)

    after, rollout, stats = collect(
        dataclasses.replace(rollouts, env=env), start, Replay(actions), None, params, jax.random.key(0)
    )

    wide = lambda x: np.broadcast_to(np.asarray(x)[:, None], (PATHS, ACCOUNTS))  # noqa: E731
    state, rollout = EnvState(account, wide(cursor), wide(end), wide(age)), jax.tree.map(np.asarray, rollout)
    for t in range(LENGTH):
        seen = observe(env, state, params)
        np.testing.assert_allclose(rollout.account[t], seen.account, atol=1e-6)
        state, paid, terminated, truncated, _ = step(env, jax.random.key(t), state, actions[t], params)
        np.testing.assert_allclose(rollout.reward[t], paid, rtol=close, atol=close)
        np.testing.assert_array_equal(rollout.terminated[t], terminated)
        assert not truncated.any()
    assert rollout.terminated.sum() == 1, "exactly the long account of path 0 is ruined"
    assert rollout.terminated[2, 0, 0]
    assert float(stats["ruins"]) == 1
    assert not rollout.truncated.any()
    np.testing.assert_array_equal(wide(after.cursor), state.cursor)
    np.testing.assert_array_equal(wide(after.age), state.time)
    np.testing.assert_array_equal(wide(after.end), state.end)
    chex.assert_trees_all_close(after.account, state.account, atol=1e-6)
    ended, returns, going_on = recount(rollout, np.zeros((PATHS, ACCOUNTS)))
    assert int(stats["episodes"]) == ended.sum() == 1, "ruin ends an episode"
    np.testing.assert_allclose(stats["episode_returns"], returns.sum(), rtol=1e-6)
    np.testing.assert_allclose(after.episode_return, going_on, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(rollout.action, actions)
    np.testing.assert_array_equal(rollout.cursor, cursor)


@pytest.mark.parametrize("positions", ["continuous", pytest.param("weights", marks=pytest.mark.slow)])
def test_a_rollout_of_exposures_equals_that_of_the_same_discrete_choices(
    rollouts: MarketRollouts, paths: MarketPaths, env: TradingEnv, raw_params: EnvParams, positions: str
) -> None:
    choices = np.random.default_rng(2).integers(1, 3, (LENGTH, PATHS, ACCOUNTS)).astype(np.int32)
    exposures = (choices - 1).astype(np.float32)[..., None]
    mine = dataclasses.replace(rollouts, env=dataclasses.replace(env, positions=positions))
    _, expected, _ = collect(rollouts, paths, Replay(choices), None, raw_params, jax.random.key(0))
    _, rollout, stats = collect(mine, paths, Replay(exposures), None, raw_params, jax.random.key(0))
    np.testing.assert_array_equal(rollout.action, exposures)
    np.testing.assert_array_equal(rollout.reward, expected.reward)
    np.testing.assert_array_equal(rollout.account, expected.account)
    assert int(stats["invalid_actions"]) == 0
    assert bytes_per_transition(rollout) == bytes_per_transition(expected) == 46


def test_next_value_is_the_value_after_the_step_and_before_any_reset(
    rollouts: MarketRollouts, env: TradingEnv, raw_params: EnvParams
) -> None:
    """Replay's value is the exposure. Every path reaches its time limit here, and is drawn anew."""
    price = raw_params.arrays.close[jnp.full((PATHS, 1), 20)]
    account = env_account(jnp.full((PATHS, ACCOUNTS, 1), 1.0, jnp.float32), price)
    full = lambda x: jnp.full(PATHS, x, jnp.int32)  # noqa: E731
    start = MarketPaths(full(20), full(150), full(8), full(0) > 0, account, jnp.zeros((PATHS, ACCOUNTS)))
    short = Replay(jnp.zeros((LENGTH, PATHS, ACCOUNTS), jnp.int32))
    after, rollout, stats = collect(rollouts, start, short, None, raw_params, jax.random.key(0))
    np.testing.assert_array_equal(rollout.next_value[:-1], rollout.value[1:])
    assert not rollout.truncated[:-1].any()
    assert rollout.truncated[-1].all(), "the time limit is at the last step"
    np.testing.assert_array_equal(after.age, 0)
    assert float(stats["episodes"]) == PATHS * ACCOUNTS
    # The same by the environment, which has all 16 bars of an episode ahead.
    wide = lambda x: jnp.full((PATHS, ACCOUNTS), x, jnp.int32)  # noqa: E731
    state = EnvState(account, wide(20), wide(150), wide(0))
    for t in range(LENGTH):
        state, *_ = step(env, jax.random.key(t), state, short.actions[t], raw_params)
    np.testing.assert_allclose(rollout.next_value[-1], observe(env, state, raw_params).account[..., 0, 0], atol=1e-6)
    assert -1.2 < float(rollout.next_value[-1, 0, 0]) < -0.8


def test_turn_over_against_a_recount_in_numpy(
    rollouts: MarketRollouts, paths: MarketPaths, env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    """At every tenth close prices are 99.8% lower, so that accounts are ruined too."""
    low = np.where(np.arange(len(params.arrays.close)) % 10, 1, np.float32(0.002))[:, None]
    fallen = {name: low * np.asarray(getattr(params.arrays, name)) for name in ("open", "high", "low", "close")}
    params = params.replace(arrays=params.arrays.replace(**fallen))
    ages, partial, returns = (np.asarray(x) for x in (paths.age, paths.partial, paths.episode_return))
    counted = ended_early = ruins = 0
    for i in range(12):
        cursor, end = np.asarray(paths.cursor), np.asarray(paths.end)
        assert (cursor + LENGTH < end).all(), "a rollout must fit"
        paths, rollout, stats = collect(rollouts, paths, agent, state, params, jax.random.key(100 + i))
        np.testing.assert_array_equal(rollout.cursor, cursor)
        ages = ages + LENGTH
        no_room = cursor + LENGTH + LENGTH >= end
        over = (ages >= env.episode_length) | no_room
        ended_early += int((no_room & (ages < env.episode_length)).sum())
        np.testing.assert_array_equal(rollout.truncated[-1], np.broadcast_to(over[:, None], (PATHS, ACCOUNTS)))
        assert not rollout.truncated[:-1].any()
        ended, earned, returns = recount(rollout, returns)
        assert int(stats["episodes"]) == ended[~partial].sum()
        np.testing.assert_allclose(stats["episode_returns"], earned[~partial].sum(), rtol=1e-5, atol=1e-5)
        counted += int(stats["episodes"])
        ruins += int((np.asarray(rollout.terminated)[:, ~partial]).sum())
        ages, partial = np.where(over, 0, ages), partial & ~over
        np.testing.assert_array_equal(paths.age, ages)
        np.testing.assert_array_equal(paths.partial, partial)
        np.testing.assert_allclose(paths.episode_return, returns, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(paths.cursor)[~over], cursor[~over] + LENGTH)
    assert counted > ruins > 0
    assert ended_early > 0, "the case of a segment's end must occur"
    assert not partial.any()


def test_ruin_ends_an_episode_for_an_agent_without_market_paths_too(env: TradingEnv, raw_params: EnvParams) -> None:
    """At every second close prices are 99.5% lower. The counts are those of the flags, by the same recount."""
    low = np.where(np.arange(len(raw_params.arrays.close)) % 2, np.float32(0.005), 1)[:, None]
    prices = {name: low * np.asarray(getattr(raw_params.arrays, name)) for name in ("open", "high", "low", "close")}
    params = raw_params.replace(arrays=raw_params.arrays.replace(**prices))
    mine = EnvRollouts(env, length=20, num_envs=4)
    envs = jax.jit(mine.begin)(jax.random.key(0), params)
    after, rollout, stats = jax.jit(lambda *a: mine.collect(*a))(envs, Long(), None, params, jax.random.key(1))
    ended, earned, going_on = recount(rollout, np.zeros((4, 1)))
    assert int(rollout.terminated.sum()) > 8
    assert int(stats["episodes"]) == ended.sum()
    np.testing.assert_allclose(stats["episode_returns"], earned.sum(), rtol=1e-5)
    np.testing.assert_allclose(after.episode_return, going_on[:, 0], rtol=1e-5, atol=1e-6)


def test_market_paths_see_nothing_of_later_bars(
    rollouts: MarketRollouts, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    state = state.replace(value_scale=ValueScale(*jnp.asarray([0.1, 1.0, 1.0])))  # before the first update V is 0
    last = 33
    later = np.arange(len(params.arrays.close)) > last
    changed = {
        name: np.where(later.reshape(-1, *[1] * (x.ndim - 1)), x * np.float32(1.7) + np.float32(0.3), x)
        for name in ("open", "high", "low", "close", "features", "volatility")
        for x in [np.asarray(getattr(params.arrays, name))]
    }
    cursor = jnp.full(PATHS, 30, jnp.int32)
    account = env_account(jnp.zeros((PATHS, ACCOUNTS, 1)), params.arrays.close[cursor][:, None])
    age = jnp.zeros(PATHS, jnp.int32)
    start = MarketPaths(cursor, age + 150, age, age > 0, account, jnp.zeros((PATHS, ACCOUNTS)))
    _, a, _ = collect(rollouts, start, agent, state, params, jax.random.key(1))
    _, b, _ = collect(
        rollouts, start, agent, state, params.replace(arrays=params.arrays.replace(**changed)), jax.random.key(1)
    )
    rows, a, b = last - 30 + 1, *jax.tree.map(np.asarray, (a, b))
    for name in ("account", "action", "log_prob", "value"):
        np.testing.assert_array_equal(getattr(a, name)[:rows], getattr(b, name)[:rows], err_msg=name)
    np.testing.assert_array_equal(a.reward[: rows - 1], b.reward[: rows - 1])
    assert not np.array_equal(a.value[rows], b.value[rows])
    assert not np.array_equal(a.reward[rows - 1], b.reward[rows - 1])


def test_market_paths_act_like_select_action_on_the_same_bars(
    rollouts: MarketRollouts, paths: MarketPaths, env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    """log_prob and value of a path's first decisions are those of `select_action` on the observation of that bar."""
    state = state.replace(value_scale=ValueScale(*jnp.asarray([0.1, 1.0, 1.0])))
    _, rollout, _ = collect(rollouts, paths, agent, state, params, jax.random.key(2))
    for path in range(3):
        one = jax.tree.map(lambda x, path=path: x[path, 1], paths.account)
        obs = env.observe(None, EnvState(one, paths.cursor[path], paths.end[path], paths.age[path]), None, params)
        _, extras = select(agent, state, obs)
        np.testing.assert_allclose(rollout.value[0, path, 1], extras["value"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rollout.account[0, path, 1], obs.account, atol=1e-6)


@pytest.mark.parametrize("window", [4, 40])
def test_bytes_a_transition_do_not_grow_with_the_window(
    make_market: Callable[..., Market], agent: PPOAgent, window: int
) -> None:
    env = TradingEnv(make_market((150,)), window=window, episode_length=16)
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
    key, params = jax.random.key(0), env.default_params
    state = jax.eval_shape(lambda p: agent.init(key, env, p), params)
    paths = jax.eval_shape(rollouts.begin, key, params)
    shapes = jax.eval_shape(lambda *a: rollouts.collect(*a)[1], paths, agent, state, params, key)
    # action 4, log_prob 4, value 4, next_value 4, reward 4, two flags 2, account 4 x 4, advantage and target 8
    assert bytes_per_transition(shapes) == 46


@pytest.mark.slow
def test_an_unrolled_loop_gives_the_same_rollout(
    rollouts: MarketRollouts, paths: MarketPaths, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    key = jax.random.key(2)
    one = collect(rollouts, paths, agent, state, params, key)
    unrolled = collect(dataclasses.replace(rollouts, unroll=2), paths, agent, state, params, key)
    chex.assert_trees_all_close(unrolled, one, rtol=1e-5, atol=1e-6)


def test_nothing_is_gathered_within_the_scan_over_bars(
    rollouts: MarketRollouts, paths: MarketPaths, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    """The bars, their contexts and a few draws are the scan's inputs. What is looked up stands before it."""
    key = jax.random.key(0)
    program = jax.make_jaxpr(lambda *a: rollouts.collect(*a))(paths, agent, state, params, key).jaxpr

    def equations(jaxpr: Any) -> Iterator[Any]:
        for equation in jaxpr.eqns:
            yield equation
            for inner in jaxprs_in_params(equation.params):
                yield from equations(inner)

    scans = [equation for equation in equations(program) if equation.primitive.name == "scan"]
    over_bars = [scan for scan in scans if scan.params["length"] == LENGTH]
    assert over_bars, "the scan over the rollout's bars must be found"
    inside = [e.primitive.name for scan in over_bars for e in equations(scan.params["jaxpr"].jaxpr)]
    assert "log" in inside, "the ledger must be in it"
    assert not {"gather", "random_split"} & set(inside)
    assert any(equation.primitive.name == "gather" for equation in equations(program))


# --- ordinary environments ---


@struct.dataclass
class Counter:
    """Counts to `limit` (truncated there) and pays 1 a step plus 10 x the action. It ends for good on reaching
    `cliff`."""

    count: Array
    limit: Array
    cliff: Array


class Count:
    """A toy environment in gymnax 1.0's shape. A reset observation is 0, so a final one cannot be mistaken for it."""

    name = "Count"

    def reset(self, key: Array, params: SimpleNamespace | None) -> tuple[Array, Counter]:
        zero = jnp.zeros((), jnp.int32)
        return jnp.zeros(2), Counter(zero, zero + 5, zero + 100)

    def step(self, key: Array, state: Counter, action: Array, params: None) -> tuple:
        after = state.replace(count=state.count + 1)
        seen = jnp.stack([after.count, after.limit]).astype(jnp.float32)
        terminated, truncated = after.count >= after.cliff, after.count >= after.limit
        obs, fresh = self.reset(key, params)
        over = terminated | truncated
        obs = jnp.where(over, obs, seen)
        state = jax.tree.map(lambda a, b: jnp.where(over, a, b), fresh, after)
        return obs, state, 1.0 + 10.0 * action, terminated, truncated, {"final_observation": seen}


@struct.dataclass
class Watcher:
    """It acts 0 always. Its value is 100 + what it sees first."""

    needs_next = False

    def select_action(self, state: None, obs: Array, key: Array, deterministic: bool = False) -> tuple:
        return jnp.zeros(obs.shape[0], jnp.int32), {"value": 100 + obs[:, 0]}


def test_env_rollouts_bootstrap_a_time_limit_with_the_final_observation() -> None:
    rollouts = EnvRollouts(Count(), length=12, num_envs=3)
    envs = rollouts.begin(jax.random.key(0), None)
    # Three clocks: one from the start, one that is truncated soon, one that falls off its cliff at its time limit.
    state = Counter(jnp.asarray([0, 3, 2]), jnp.asarray([5, 5, 4]), jnp.asarray([100, 100, 4]))
    envs = envs.replace(state=state, obs=jnp.stack([state.count, state.limit], -1).astype(jnp.float32))
    collect = jax.jit(rollouts.collect)
    after, rollout, stats = collect(envs, Watcher(), None, None, jax.random.key(1))

    chex.assert_shape(rollout.reward, (12, 3, 1))
    chex.assert_shape(rollout.observations, (12, 3, 2))
    assert rollout.cursor is None
    assert rollout.account is None
    truncated = np.zeros((12, 3), bool)
    truncated[[4, 9], 0] = truncated[[1, 6, 11], 1] = truncated[[1, 6, 11], 2] = True
    terminated = np.zeros((12, 3), bool)
    terminated[1, 2] = True
    np.testing.assert_array_equal(rollout.truncated[..., 0], truncated)
    np.testing.assert_array_equal(rollout.terminated[..., 0], terminated)
    before = np.asarray(rollout.observations)[..., 0]
    np.testing.assert_array_equal(before[:, 0], [0, 1, 2, 3, 4] * 2 + [0, 1])
    np.testing.assert_array_equal(rollout.value[..., 0], 100 + before)
    # One more than before, also at a time limit. Where it terminated nothing is asked.
    np.testing.assert_array_equal(rollout.next_value[..., 0][~terminated], (101 + before)[~terminated])
    np.testing.assert_array_equal(rollout.reward, 1)
    assert int(stats["episodes"]) == 8
    # Episodes begun before the rollout count what it saw of them: 5+5, 2+5+5, 2+5+5.
    assert float(stats["episode_returns"]) == 34
    np.testing.assert_array_equal(after.episode_return, [2, 0, 0])
    np.testing.assert_array_equal(after.state.count, [2, 0, 0])


@struct.dataclass
class Long:
    """Holds the last position."""

    needs_next = False

    def select_action(self, state: None, obs: Any, key: Array, deterministic: bool = False) -> tuple:
        return jnp.full(obs.account.shape[:1], 2, jnp.int32), {}


def test_env_rollouts_go_on_where_they_stopped() -> None:
    rollouts = EnvRollouts(Count(), length=3, num_envs=2)
    envs = rollouts.begin(jax.random.key(0), None)
    collect = jax.jit(rollouts.collect)
    episodes = 0
    for i in range(5):
        envs, rollout, stats = collect(envs, Watcher(), None, None, jax.random.key(i))
        np.testing.assert_array_equal(rollout.observations[:, 0, 0], (3 * i + np.arange(3)) % 5)
        episodes += int(stats["episodes"])
        assert float(stats["episode_returns"]) == 5.0 * int(stats["episodes"])
    assert episodes == 6


def test_the_rollouts_are_static_configuration(rollouts: MarketRollouts) -> None:
    assert dataclasses.replace(rollouts, length=4) != rollouts
    assert hash(dataclasses.replace(rollouts)) == hash(rollouts)
