"""Our environments under Gymnasium: its own checker, its names, both kinds of environments, and the known optimum.

Stable-Baselines3's checker and its PPO are in test_sb3.py.
"""

from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import NormalizeObservation, TimeLimit

import jaxtrader as jt
from jaxtrader.agents.gymnasium_form import GymnasiumForm
from jaxtrader.bridges.gymnasium import SYNTHETIC, TRADING, synthetic
from jaxtrader.bridges.gymnasium_envs import to_gymnasium
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate


@pytest.mark.quick(2)
@pytest.mark.parametrize("form", ["flat", "dict", "continuous", "portfolio"])
def test_gymnasiums_checker_finds_nothing(form: str, env: TradingEnv, portfolio: TradingEnv) -> None:
    own = {"continuous": dataclasses.replace(env, positions="continuous"), "portfolio": portfolio}.get(form, env)
    made = to_gymnasium(own, observation="dict" if form == "dict" else "flat")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*Not able to test alternative render modes")
        check_env(made)


def test_an_ordinary_environment_is_stepped_too() -> None:
    from probes import BY_BOTH, Tabular

    class Shown(Tabular):
        def observation_space(self, params: Any) -> Any:
            return SimpleNamespace(low=-1.0, high=np.inf, shape=(1,), dtype=np.float32)

    made = to_gymnasium(Shown(), params=BY_BOTH)
    check_env(made)
    seen, _ = made.reset(seed=3)
    right = int(seen[0] == 1)
    assert made.step(right)[1:4] == (1.0, True, False)
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        made.step(0)


def test_rewards_are_those_of_simulate(env: TradingEnv) -> None:
    made = to_gymnasium(env, normalize=False)
    market, rng = env.market, np.random.default_rng(0)
    actions = rng.integers(0, 3, 15)
    made.reset(seed=5)
    made.step(1)  # sells what the episode began with
    cursor = int(made._state[1].cursor)
    steps = [made.step(action) for action in actions]
    assert [step[2:4] for step in steps] == [(False, False)] * 14 + [(False, True)]
    segment = int(cursor >= market.segments[0, 2])
    end = market.segments[segment, 2]
    targets = np.zeros(end - cursor)
    targets[:15] = np.array(env.positions)[actions]
    symbol = market.symbols[segment]
    result = simulate(market, targets, start=cursor, symbol=symbol, rules=env.rules, costs=env.costs)
    np.testing.assert_allclose([step[1] for step in steps], np.diff(np.log(result.equity))[:15], atol=1e-5)
    window = market.features[cursor + 15 - env.window + 1 : cursor + 16]
    np.testing.assert_allclose(steps[-1][0][: window.size], window.ravel(), rtol=1e-6)


def test_a_vector_resets_in_the_same_step(env: TradingEnv) -> None:
    made = to_gymnasium(env, 4)
    assert made.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert made.action_space.shape == (4,)
    first, _ = made.reset(seed=1)
    again, _ = made.reset(seed=1)
    np.testing.assert_array_equal(first, again)
    assert first in made.observation_space
    for _ in range(15):
        *_, terminated, truncated, info = made.step(np.full(4, 2))
        assert not (terminated | truncated).any()
        assert "final_obs" not in info
    seen, reward, terminated, truncated, info = made.step(np.full(4, 2))
    assert truncated.all()
    assert reward.shape == (4,)
    assert all(x.flags.writeable for x in (seen, reward, terminated, truncated))  # some libraries write to them
    assert info["_final_obs"].all()
    assert all(last in made.single_observation_space for last in info["final_obs"])
    exposure = env.window * len(env.market.feature_names)
    assert all(last[exposure] > 0.9 for last in info["final_obs"])  # it held a long position
    assert set(np.round(seen[:, exposure], 3)) != {1.0}  # new episodes, at random exposures
    np.testing.assert_array_equal(info["final_info"]["cost"], info["cost"])


def test_after_ruin_both_kinds_begin_a_new_episode_at_a_random_bar(env: TradingEnv) -> None:
    """At every second close prices are 99.5% lower, so a long position is ruined within two bars."""
    raw = env.default_params
    low = np.where(np.arange(len(raw.arrays.close)) % 2, np.float32(0.005), 1)[:, None]
    prices = {name: low * np.asarray(getattr(raw.arrays, name)) for name in ("open", "high", "low", "close")}
    params = raw.replace(arrays=raw.arrays.replace(**prices))
    many = to_gymnasium(env, 16, params=params, normalize=False)
    many.reset(seed=0)
    jumps, ruins = [], 0
    for _ in range(4):
        before = np.asarray(many._state[1].cursor)
        _, _, terminated, truncated, info = many.step(np.full(16, 2))
        state = many._state[1]
        np.testing.assert_array_equal(np.asarray(state.time)[terminated], 0)
        np.testing.assert_array_equal(info.get("_final_obs", np.zeros(16, bool)), terminated | truncated)
        jumps += (np.asarray(state.cursor) - before)[terminated].tolist()
        assert (np.asarray(state.cursor) == before + 1)[~(terminated | truncated)].all()
        ruins += int(terminated.sum())
    assert ruins > 8
    assert len(set(jumps)) > 5, "the bars of new episodes are drawn"

    one = to_gymnasium(env, params=params, normalize=False)
    one.reset(seed=0)
    while not one.step(2)[2]:
        pass
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        one.step(2)
    one.reset()
    assert int(one._state[1].time) == 0


def test_features_of_a_test_are_scaled_as_those_of_the_training(env: TradingEnv) -> None:
    train, test = env.market.split(0.5, 0.5)
    trained = to_gymnasium(env.with_market(train))
    tested = to_gymnasium(env.with_market(test), normalize=trained.form.normalizer)
    seen, _ = tested.reset(seed=0)
    cursor = int(tested._state[1].cursor)
    raw = jnp.asarray(test.features[cursor - 3 : cursor + 1], jnp.float32)
    np.testing.assert_allclose(seen[: raw.size], trained.form.normalizer(raw).ravel(), rtol=1e-6)
    result = jt.backtest(Still(), test, env=trained)
    assert (result.by_symbol["S0"].targets == -1).all()


@pytest.fixture(scope="module")
def scored() -> Any:
    """Eight AR(1) markets with raw features, episodes of 64 bars that begin flat."""
    settings = {"bars": 2_000, "episode_length": 64, "random_start": False, "positions": (-1, 0, 1), "normalize": False}
    return synthetic("ar1", num_envs=8, r2=0.1, **settings)


@pytest.mark.slow
def test_the_best_policy_has_all_of_the_optimum_and_doing_nothing_has_none(scored: Any) -> None:
    best = scored._adapted.params.policy
    for act, wanted in [
        (jax.jit(lambda seen: best.act(None, seen[:, :1], seen[:, None, 1:], None)[0]), 1.0),
        (lambda seen: np.ones(8, int), 0.0),
    ]:
        seen, _ = scored.reset(seed=0)
        shares = []
        for _ in range(64):
            seen, *_, truncated, info = scored.step(np.asarray(act(seen)))
            shares += info["optimum_share"][truncated].tolist()
        assert len(shares) >= 8
        np.testing.assert_allclose(shares, wanted, rtol=1e-5)
    assert info["best_expected_reward"].shape == (8,)


@pytest.mark.slow
def test_expected_rewards_are_those_of_the_process(scored: Any) -> None:
    """Of a position that is held without an order, E[log(1 + x r)] is x m - x^2 v / 2 up to a third order."""
    scored.reset(seed=0)
    for _ in range(3):
        seen, *_ = scored.step(np.full(8, 2))
    signal, exposure = seen[:, 0], seen[:, 1]
    *_, info = scored.step(np.full(8, 2))
    held = ~info["fills"]
    assert held.sum() > 4
    mean, variance = 0.01 * np.sqrt(0.1) * signal, 0.01**2 * 0.9
    wanted = exposure * mean - exposure**2 * (variance + mean**2) / 2
    np.testing.assert_allclose(info["expected_reward"][held], wanted[held], atol=2e-6)


def test_gymnasium_makes_them_by_name(env: TradingEnv) -> None:
    made = gymnasium.make(TRADING, data=env.market, window=4, episode_length=16, normalize=False)
    assert made.unwrapped.trading_env == env
    assert made.reset(seed=0)[0].shape == (16,)
    several = gymnasium.make_vec(TRADING, num_envs=4, data=env.market, window=4, episode_length=16)
    assert several.reset()[0].shape == (4, 16)
    assert set(SYNTHETIC) | {TRADING} <= set(gymnasium.registry)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTHETIC)
def test_each_synthetic_market_is_made_and_passes_the_checker(name: str) -> None:
    made = gymnasium.make(name, bars=2_000)
    check_env(made.unwrapped)
    made.reset(seed=0)
    *_, info = made.step(1)
    assert {"expected_reward", "best_expected_reward", "flat_expected_reward"} <= info.keys()


WRONG: dict[str, tuple[Any, str]] = {
    "form": (lambda env: to_gymnasium(env, observation="pixels"), "use flat or dict"),
    "count": (lambda env: to_gymnasium(env, 0), "num_envs=0` must be a whole number, at least 1"),
    "options": (lambda env: to_gymnasium(env).reset(options={"bar": 3}), "reset has no option 'bar'"),
    "actions": (lambda env: begun(env).step(np.zeros(3, int)), "3 actions for 4 environments"),
    "action": (lambda env: begun(env).step(np.array([0, 3, 0, 0])), "none of 0 to 2"),
    "one action": (lambda env: begun(env).step(1), "1 actions for 4 environments"),
    "market": (
        lambda env: to_gymnasium(env.market),
        r"a Market is no environment: it has no name; give a jt.TradingEnv\(market\)",
    ),
    "normalize": (lambda env: to_gymnasium(env, normalize="yes"), "normalize='yes'` must be True, False"),
    "wrapper": (
        lambda env: jt.backtest(Still(), env.market, env=NormalizeObservation(to_gymnasium(env))),
        "NormalizeObservation shows other observations .*train without it",
    ),
    "features": (lambda env: gymnasium.make(TRADING, data=env.market, features=["x"]), "a Market has its features"),
}


class Still:
    """A model that always takes action 0."""

    def predict(self, observations: Any) -> Any:
        return np.zeros(len(observations), int)


def begun(env: TradingEnv) -> Any:
    made = to_gymnasium(env, 4)
    made.reset(seed=0)
    return made


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_says_the_way_out(case: str, env: TradingEnv) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call(env)


def test_a_wrapper_that_leaves_observations_is_seen_through(env: TradingEnv) -> None:
    _, test = env.market.split(0.5, 0.5)
    result = jt.backtest(Still(), test, env=TimeLimit(to_gymnasium(env), 5))
    assert (result.by_symbol["S0"].targets == -1).all()


def test_a_float_is_no_choice_of_a_position(env: TradingEnv) -> None:
    with pytest.raises(ValueError, match="none of 0 to 2"):
        GymnasiumForm.of(env).action(env, np.array([0.5]))
