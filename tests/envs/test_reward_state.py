"""A reward's state in the environment, in training and in policy files, and nothing where there is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import about, fresh, with_noise
from rule_settings import env_account

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs import rewards
from jaxtrader.envs.episode import EnvAccount, EnvParams, EnvState
from jaxtrader.envs.observation import ACCOUNT_FEATURES
from jaxtrader.envs.rewards import Move, MoveReward
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest, mean_reward
from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market
from jaxtrader.training.trainer import Trainer

FLAT, LONG = 1, 2
KEY = jax.random.key(5)
STATEFUL = (rewards.drawdown_penalized(2.0), rewards.differential_sharpe(0.05), rewards.differential_downside(0.05))


@partial(jax.jit, static_argnums=0)
def reset(env: TradingEnv, key: jax.Array, params: EnvParams) -> tuple:
    return env.reset(key, params)


@partial(jax.jit, static_argnums=0)
def step(env: TradingEnv, key: jax.Array, state, action: jax.Array, params: EnvParams) -> tuple:
    return env.step(key, state, action, params)


@dataclasses.dataclass(frozen=True)
class Calm(MoveReward):
    """It charges exposure and keeps nothing."""

    price: float = 0.01

    def __call__(self, move: Move, state: None) -> tuple:
        return move.log_return - self.price * jnp.abs(move.exposure).sum(-1), state


@dataclasses.dataclass(frozen=True)
class Streak(MoveReward):
    """Pays the log return, and shows the share of the last bars that were won."""

    observed: ClassVar[tuple[str, ...]] = ("won lately",)

    def begin(self, shape: tuple[int, ...], dtype) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def __call__(self, move: Move, state: jax.Array) -> tuple:
        return move.log_return, state + 0.1 * ((move.log_return > 0) - state)

    def observe(self, state: jax.Array) -> jax.Array:
        return state[..., None]


def equations(jaxpr) -> int:
    """Equations of a program, those of its inner programs counted."""
    inner = [v for e in jaxpr.eqns for v in e.params.values() if hasattr(v, "jaxpr")]
    return sum(e.primitive.name != "jit" for e in jaxpr.eqns) + sum(equations(v.jaxpr) for v in inner)


def program(env: TradingEnv, params: EnvParams):
    account = env.open_account(jnp.zeros((3, 1)), jnp.ones((3, 1)))
    still = jnp.ones((3, 1))
    bar = Bar(still, still, still, still, still)
    return jax.make_jaxpr(env.advance)(account, jnp.zeros(3, jnp.int32), bar, params)


def test_a_reward_without_a_state_adds_nothing_to_the_program(env: TradingEnv, raw_params: EnvParams) -> None:
    """The step is the ledger's, the target's and the formula. A wrapper leaves no trace, nor does what is not read."""

    def own(before: jax.Array, after: jax.Array) -> jax.Array:
        return rewards.LogReturn()(before, after)

    @dataclasses.dataclass(frozen=True)
    class Whole(MoveReward):
        def __call__(self, move: Move, state: None) -> tuple:
            return move.log_return, state

    plain, mine, whole, over = (
        program(dataclasses.replace(env, reward=reward), raw_params)
        for reward in (rewards.log_return(), own, Whole(), rewards.over_benchmark())
    )
    assert str(mine) == str(plain)
    assert str(whole) == str(plain)
    ones = jnp.ones((3, 1))
    formula = jax.make_jaxpr(lambda r, p, c: r - jnp.log((c / p).mean(-1)))(jnp.ones(3), ones, ones)
    assert equations(over.jaxpr) == equations(plain.jaxpr) + equations(formula.jaxpr)
    for reward in (rewards.log_return(), rewards.over_benchmark(), Calm()):
        other = dataclasses.replace(env, reward=reward)
        assert jax.eval_shape(other.reset, KEY, raw_params)[1].account.reward_state is None
        assert other.account_names == ACCOUNT_FEATURES


@pytest.mark.parametrize(
    "reward", [*(pytest.param(each, marks=pytest.mark.slow) for each in STATEFUL[:2]), STATEFUL[2]]
)
def test_the_agent_sees_the_state_which_begins_with_each_account(
    reward: MoveReward, env: TradingEnv, raw_params: EnvParams
) -> None:
    """Through ruin at one bar, and then from its bar on to the time limit after a loss of a tenth."""
    env = dataclasses.replace(env, reward=reward, random_start=False)
    obs, state = reset(env, KEY, raw_params)
    first = reward.begin((), jnp.float32)
    assert isinstance(state.account, EnvAccount)
    chex.assert_trees_all_equal(state.account.reward_state, first)
    count = len(ACCOUNT_FEATURES) + len(reward.observed)
    chex.assert_shape(obs.account, (1, count))
    assert env.observation_space(raw_params).spaces["account"].shape == (1, count)
    assert env.account_names == ACCOUNT_FEATURES + reward.observed

    cursor = 30
    row = np.arange(len(raw_params.arrays.close))[:, None]
    scale = np.float32(np.where(row >= cursor + 6, 0.005, 1.0) * np.where(row >= cursor + env.episode_length, 0.9, 1.0))
    fallen = {name: scale * np.asarray(getattr(raw_params.arrays, name)) for name in ("open", "close")}
    params = raw_params.replace(arrays=raw_params.arrays.replace(**fallen))
    state = state.replace(cursor=jnp.int32(cursor), end=jnp.int32(150))
    ruins, memories = [], []
    for t in range(env.episode_length):
        obs, state, earned, terminated, truncated, info = step(env, KEY, state, jnp.int32(LONG), params)
        assert math.isfinite(float(earned))
        chex.assert_trees_all_close(
            obs.account[0, len(ACCOUNT_FEATURES) :], reward.observe(state.account.reward_state), atol=1e-6
        )
        final = info["final_observation"].account[0, len(ACCOUNT_FEATURES) :]
        if terminated or truncated:
            chex.assert_trees_all_equal(state.account.reward_state, first)
            assert not np.allclose(final, reward.observe(first)), "before the restart the old state is seen"
        else:
            # Computed twice in one program: XLA may round one of them otherwise.
            np.testing.assert_allclose(final, obs.account[0, len(ACCOUNT_FEATURES) :], rtol=3e-7)
        if terminated:
            state = state.replace(cursor=jnp.int32(cursor + t + 1), end=jnp.int32(150), time=jnp.int32(t + 1))
        ruins.append(bool(terminated))
        memories.append(np.asarray(jax.tree.leaves(state.account.reward_state)[0]))
        assert bool(truncated) == (t == env.episode_length - 1)
    assert np.flatnonzero(ruins).tolist() == [5]
    assert len(set(np.asarray(memories).tolist())) >= 5


@dataclasses.dataclass(frozen=True)
class Several(MoveReward):
    """Pays the log return, and keeps what two other rewards would have paid."""

    def begin(self, shape: tuple[int, ...], dtype) -> tuple:
        return STATEFUL[0].begin(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    def __call__(self, move: Move, state: tuple) -> tuple:
        down, depth = STATEFUL[0](move, state[0])
        return move.log_return, (depth, down, rewards.over_benchmark()(move, None)[0])


def test_the_environment_pays_by_its_marks_and_its_closes(env: TradingEnv, raw_params: EnvParams) -> None:
    """Drawdown and benchmark from the equities that the log return leaves behind, in float64 loops."""
    mine = dataclasses.replace(env, reward=Several())
    _, state = reset(mine, KEY, raw_params)
    start = int(state.cursor)
    earned: dict[str, list[float]] = {"log": [], "down": [], "over": []}
    for action in np.random.default_rng(0).integers(0, 3, 15):
        _, state, paid, *_ = step(mine, KEY, state, np.int32(action), raw_params)
        for name, each in zip(earned, (paid, *state.account.reward_state[1:]), strict=True):
            earned[name].append(float(each))
    close = np.float64(raw_params.arrays.close[:, 0])
    equity, peak, depth = 1.0, 1.0, 0.0
    for t, gain in enumerate(earned["log"]):
        equity *= math.exp(gain)
        peak = max(peak, equity)
        now = math.log(peak / equity)
        assert math.isclose(earned["down"][t], gain - 2 * (now - depth), abs_tol=2e-6)
        held = math.log(close[start + t + 1] / close[start + t])
        assert math.isclose(earned["over"][t], gain - held, abs_tol=2e-6)
        depth = now
    assert np.abs(np.subtract(earned["down"], earned["log"])).max() > 0.01


def test_a_reward_of_ones_own_may_read_the_whole_move(env: TradingEnv, raw_params: EnvParams) -> None:
    mine = dataclasses.replace(env, reward=Calm())
    account = env_account(np.zeros(1, np.float32), np.asarray(raw_params.arrays.close)[30])
    state = EnvState(account, *(np.int32(x) for x in (30, 150, 0)))
    _, moved, paid, *_ = jax.jit(mine.step_env)(KEY, state, np.int32(LONG), raw_params)
    log = rewards.log_return()(account.equity, moved.account.equity)
    held = ledger.exposure(moved.account, raw_params.arrays.close[moved.cursor])
    np.testing.assert_allclose(paid, log - 0.01 * held[0], atol=1e-7)
    assert held[0] > 0.9


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_state_travels_beside_all_that_the_rules_keep_in_the_account(env: TradingEnv, dtype: str) -> None:
    """Delayed targets, blocked assets and the reward's state: one structure through reset, step and restart."""
    full = dataclasses.replace(
        env, reward=STATEFUL[1], stop_loss=0.1, rules=env.rules.replace(delay=2, max_leverage=2.0)
    )
    with jax.enable_x64(dtype == "float64"):
        params = full.params(dtype)
        obs, state = jax.eval_shape(full.reset, KEY, params)
        new = jax.eval_shape(full.step, KEY, state, jax.ShapeDtypeStruct((), jnp.int32), params)
        again = jax.eval_shape(full.restart, state.account, jax.ShapeDtypeStruct((), bool))
    assert {x.dtype for x in state.account.reward_state} == {jnp.dtype(dtype)}
    assert state.account.pending.shape == (1, 2)
    assert state.account.stopped is not None
    chex.assert_trees_all_equal_shapes_and_dtypes((obs, state), new[:2])
    chex.assert_trees_all_equal_shapes_and_dtypes(state.account, again)
    assert not any(x.weak_type for x in jax.tree.leaves(state))


def test_a_reward_that_does_not_fit_is_refused(env: TradingEnv) -> None:
    @dataclasses.dataclass
    class Changing(MoveReward):
        pass

    class Two(Streak):
        observed = ("won lately", "lost lately")

    with pytest.raises(ValueError, match="has no hash; make its class a frozen dataclass"):
        dataclasses.replace(env, reward=Changing())
    with pytest.raises(ValueError, match=r"shape \(2, 1\) for 2 accounts; with the names won lately, lost lately"):
        dataclasses.replace(env, reward=Two())

    class Silent(MoveReward):
        pass

    with pytest.raises(ValueError, match=r"does not say what it pays; override `__call__\(move, state\)`"):
        dataclasses.replace(env, reward=Silent())
    with pytest.raises(NotImplementedError, match="must say what it pays"):
        MoveReward()(None, None)


def policy_of(env: TradingEnv, path: Path) -> Policy:
    """A policy whose actions differ from bar to bar, through its file."""
    agent = PPOAgent(hidden=(8, 8))
    agent.save_model(path, with_noise(fresh(agent, env, seed=1), deviation=0.2), about(env))
    return load_policy(path)


@pytest.mark.slow
def test_two_updates_are_finite_and_leave_a_policy_that_acts(
    make_market: Callable[..., Market], tmp_path: Path
) -> None:
    market, reward = make_market((150,)), STATEFUL[1]
    env = TradingEnv(market, window=4, episode_length=8, reward=reward)
    agent = PPOAgent(hidden=(8, 8), num_epochs=1, num_minibatches=1)
    size = {"num_envs": 4, "rollout_length": 8, "total_steps": 64}
    result = Trainer(env, agent, **size, run_dir=tmp_path / "run", progress=False).train()
    assert result.updates == 2
    (record,) = result.history
    learnt = ("episode_return", "reward_per_bar", "loss", "value_loss", "policy_loss", "grad_norm", "approx_kl")
    assert np.isfinite([record[name] for name in learnt]).all()
    assert record["reward_per_bar"] != 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.state.params))

    policy = load_policy(result.policy_path)
    assert policy.environment(market) == env
    assert policy.account_names == env.account_names
    window = market.features[20:24, 0]
    untraded = [0.0, 0.0, 0.0, 1.0, *np.zeros(len(reward.observed))]
    untraded[-1] = 0.5 * math.log(1.01)  # the floor is in the deviation that the agent sees
    assert policy.act(window) == policy.act(window, untraded)
    with pytest.raises(ValueError, match=rf"has shape \(4,\).*{reward.observed[-1]}"):
        policy.act(window, (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize("reward", [pytest.param(rewards.over_benchmark(), marks=pytest.mark.slow), STATEFUL[0]])
def test_a_validation_walk_is_paid_by_the_marks_of_the_backtest(
    reward: MoveReward, make_market: Callable[..., Market], tmp_path: Path
) -> None:
    market = make_market((150,))
    env = TradingEnv(market, window=4, reward=reward, rules=Rules(rebalance_band=0.0), positions="continuous")
    policy = policy_of(env, tmp_path / "p")
    result = backtest(policy, market)
    equity = np.concatenate([[1.0], result.equity])
    assert np.abs(np.diff(equity)).max() > 0, "a result that never trades would prove nothing"
    _, params = policy.agent.prepare(policy.state, env.default_params)
    score = mean_reward(policy.agent, policy.state, params, env=env)
    growth = math.log(equity[-1])
    if reward == STATEFUL[0]:
        expected = growth - 2 * math.log(equity.max() / equity[-1])
    else:
        close = market.close[-len(result.equity) :, 0]
        expected = growth - math.log(close[-1] / close[0])
    assert math.isclose(float(score) * (len(result.equity) - 1), expected, abs_tol=2e-5)
    assert abs(expected - growth) > 1e-3


def test_a_policy_that_sees_the_state_of_ones_own_reward_asks_for_it(env: TradingEnv, tmp_path: Path) -> None:
    env = dataclasses.replace(env, reward=Streak())
    policy, market = policy_of(env, tmp_path / "p"), env.market
    window = market.features[20:24, 0]
    assert policy.account_names == (*ACCOUNT_FEATURES, "won lately")
    assert policy.act(window, (0.0, 0.0, 0.0, 1.0, 0.4)) in env.positions
    with pytest.raises(ValueError, match="sees the won lately of its reward Streak, which the file does not hold"):
        policy.act(window)
    with pytest.raises(ValueError, match=r"see the won lately of the reward Streak.*give it again as `reward`"):
        policy.environment(market)
    with pytest.raises(ValueError, match=r"see won lately of the state of the reward Streak, and of LogReturn"):
        policy.environment(market, reward=rewards.log_return())
    assert policy.environment(market, reward=Streak()) == env
