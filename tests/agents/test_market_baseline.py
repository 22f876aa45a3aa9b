"""`market_baseline`: the control variate against NumPy, bar by bar, and that subtracting it moves no gradient."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import init, initial, with_noise
from random_walks import masked

from jaxtrader.agents import ppo
from jaxtrader.agents.advantages import gae, market_control_variate, regress_out
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.agents.protocol import Rollout
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.rollout import MarketRollouts

LENGTH, PATHS, ACCOUNTS = 8, 4, 2
KEY = jax.random.key(0)


def test_regress_out_is_the_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(2, 3, (7, 5, 2))
    advantage = 1.5 * known + rng.normal(4, 1, known.shape)
    slope = np.polyfit(known.ravel(), advantage.ravel(), 1)[0]
    with jax.enable_x64(True):
        left = np.asarray(regress_out(jnp.asarray(advantage), jnp.asarray(known)))
    np.testing.assert_allclose(left, advantage - slope * (known - known.mean()), rtol=1e-10)
    np.testing.assert_allclose(left.mean(), advantage.mean())
    assert left.std() < 0.4 * advantage.std()
    np.testing.assert_array_equal(regress_out(jnp.ones((3, 2)), jnp.full((3, 2), 5.0)), 1)


def loud(state: PPOState) -> PPOState:
    """A policy whose actions differ from bar to bar."""
    return with_noise(state, 1, 0.3)


def lived(
    env: TradingEnv, agent: PPOAgent, raw: EnvParams, part: bool = True
) -> tuple[PPOState, EnvParams, Rollout, jax.Array | None]:
    """A loud policy, prepared parameters, what it lived through, and the market's part of it, if asked for."""
    state, params = agent.prepare(loud(initial(agent, env, raw)), raw)
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)

    @jax.jit
    def collect(state: PPOState, params: EnvParams) -> tuple[Rollout, jax.Array | None]:
        paths = rollouts.begin(jax.random.key(1), params)
        rollout = rollouts.collect(paths, agent, state, params, jax.random.key(2))[1]
        ended = jnp.asarray(np.random.default_rng(2).random(rollout.reward.shape) < 0.2)  # by ruin: the bars go on
        rollout = rollout.replace(terminated=ended, truncated=ended)
        return rollout, market_control_variate(agent, state, rollout, params) if part else None

    return state, params, *(collect if part else partial(jax.eval_shape, collect))(state, params)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("fixture", "positions", "every", "with_mask"),
    [
        ("env", "continuous", 2, False),
        pytest.param("portfolio", "weights", 1, True, marks=pytest.mark.slow),
        ("portfolio", "continuous", 1, False),
    ],
)
def test_market_control_variate_is_the_trace_of_log_returns_of_the_mode(
    request: pytest.FixtureRequest, agent: PPOAgent, fixture: str, positions: str, every: int, with_mask: bool
) -> None:
    env = dataclasses.replace(request.getfixturevalue(fixture), positions=positions, decision_every=every)
    raw = masked(env.default_params) if with_mask else env.default_params
    state, params, rollout, found = lived(env, agent, raw)
    account, cursor = np.asarray(rollout.account), np.asarray(rollout.cursor)
    seen = np.broadcast_to(account.mean((0, 1, 2)), account[:, :, :1].shape).copy()
    own = len(env.account_names)
    seen[..., own:] = account[:, :, :1, :, own:]  # which assets are there is the market's doing

    rows = cursor + every * np.arange(LENGTH)[:, None]
    windows = np.asarray(params.arrays.features)[rows[..., None] + np.arange(1 - env.window, 1)]

    @jax.jit
    def decide(window: jax.Array, account: jax.Array) -> jax.Array:
        return agent.act(state, agent.encode(state, window)[..., :1, :], account, KEY, deterministic=True)[0]

    position = np.float64(decide(windows, seen))[:, :, 0]
    gross = np.abs(position).sum(-1, keepdims=True)
    if positions == "continuous":
        position /= np.maximum(gross / env.rules.max_leverage, 1)
        assert (gross > env.rules.max_leverage).any() == (fixture == "portfolio")
    close = np.float64(params.arrays.close)
    earned = np.log1p((position * (close[rows + every] / close[rows] - 1)).sum(-1))
    expected, trace = np.zeros(found.shape), np.zeros(found.shape[1:])
    for t in reversed(range(LENGTH)):
        trace = earned[t][:, None] + agent.gamma * agent.gae_lambda * trace
        expected[t] = trace
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6)


def rising(params: EnvParams) -> EnvParams:
    """The same bars with 3% more at each than at the one before, so that the gradient is far from none."""
    arrays = params.arrays
    growth = np.exp(0.03 * np.arange(len(arrays.close)))[:, None].astype(np.float32)
    grown = {name: growth * np.asarray(getattr(arrays, name)) for name in ("open", "close")}
    return params.replace(arrays=arrays.replace(**grown))


@pytest.mark.slow
def test_market_baseline_leaves_the_gradient_where_it_was_and_takes_noise_from_it(
    env: TradingEnv, agent: PPOAgent, raw_params: EnvParams
) -> None:
    """The same bars lived through with 800 draws of actions: the means agree, the deviations do not.

    And they would not agree if what is taken off were what the actions themselves earn.
    """
    env = dataclasses.replace(env, positions="continuous")
    agent = agent.replace(log_std_init=-2.0)
    state, params = agent.prepare(init(agent, KEY, env, raw_params), rising(raw_params))
    state = state.replace(params={**state.params, "policy": {**state.params["policy"], "bias": jnp.full(1, 0.5)}})
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
    paths = jax.jit(rollouts.begin)(jax.random.key(1), params)

    def trace(rollout: Rollout, earned: jax.Array) -> jax.Array:
        zero, done = jnp.zeros_like(rollout.value), rollout.terminated | rollout.truncated
        return gae(earned, zero, zero, done, done, agent.gamma, agent.gae_lambda)[0]

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, None))
    def slopes(key: jax.Array, state: PPOState, paths: object, params: EnvParams) -> tuple[jax.Array, ...]:
        rollout = rollouts.collect(paths, agent, state, params, key)[1]
        advantage = trace(rollout, rollout.reward)
        close = params.arrays.close[rollout.cursor[:, None] + jnp.arange(LENGTH + 1)][..., 0]
        moved = (close[:, 1:] / close[:, :-1] - 1).T[..., None]
        biased = regress_out(advantage, trace(rollout, jnp.log1p(rollout.action[..., 0] * moved)))
        left = regress_out(advantage, market_control_variate(agent, state, rollout, params))
        # d log_prob / d mean of a normal between its bounds, which a deviation of exp(-2) about 0.5 hardly ever leaves
        score = (rollout.action[..., 0] - 0.5) / jnp.exp(-2.0) ** 2
        return tuple((score * (x - x.mean())).mean() for x in (advantage, left, biased))  # centred, as `learn` does

    plain, left, biased = (np.float64(x) for x in slopes(jax.random.split(KEY, 800), state, paths, params))
    error = lambda x: abs(x.mean()) * np.sqrt(len(x)) / x.std()  # noqa: E731
    assert error(plain) > 10
    assert error(plain - left) < 4
    assert error(plain - biased) > 10
    assert left.std() < 0.65 * plain.std()  # the market's part goes from close to close, and orders fill at the open


def test_learn_applies_market_baseline_where_positions_are_continuous(
    env: TradingEnv, agent: PPOAgent, raw_params: EnvParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(ppo, "regress_out", lambda advantage, known: taken.append(known) or -advantage)
    for positions, cases in (("continuous", ((True, 1), (False, 0))), ((-1.0, 0.0, 1.0), ((True, 0),))):
        state, params, rollout, _ = lived(dataclasses.replace(env, positions=positions), agent, raw_params, part=False)
        for on, expected in cases:
            taken.clear()
            given = agent.replace(market_baseline=on, num_epochs=1)
            jax.eval_shape(given.learn, state, rollout, params, KEY)
            assert len(taken) == expected
