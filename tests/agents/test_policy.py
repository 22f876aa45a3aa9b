"""A policy read back from its file: the same decisions, and sentences for what does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader import files
from jaxtrader.agents.policy import Policy, load_policy
from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rewards import risk_penalised
from jaxtrader.envs.trading import EnvParams, EnvState, TradingEnv
from jaxtrader.market.market import Market


@pytest.fixture(scope="module")
def decided(state: PPOState) -> PPOState:
    """A policy whose actions differ from bar to bar."""
    rng = np.random.default_rng(1)
    return state.replace(
        params=jax.tree.map(lambda x: x + rng.normal(0, 0.5, x.shape).astype(np.float32), state.params)
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, agent: PPOAgent, decided: PPOState, env: TradingEnv) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.pkl"
    features = {"names": list(env.market.feature_names), "lookback": env.market.lookback}
    agent.save_model(path, decided, {"env": env.to_dict(), "features": features})
    return path


@pytest.fixture(scope="module")
def policy(path: Path) -> Policy:
    return load_policy(path)


def test_act_on_raw_bars_equals_select_action_on_the_prepared_tape(
    policy: Policy, agent: PPOAgent, decided: PPOState, env: TradingEnv, params: EnvParams, market: Market
) -> None:
    select = jax.jit(lambda obs: agent.select_action(decided, obs, jax.random.key(0), deterministic=True)[0])
    accounts = env.open_accounts(jax.random.key(4), params.tape.close[20:60], (40,))
    taken = []
    for i, t in enumerate(range(20, 60)):
        account = jax.tree.map(lambda x, i=i: x[i], accounts)
        state = EnvState(account, jnp.int32(t), jnp.int32(150), jnp.int32(0))
        obs = env.observe(None, state, None, params)
        chosen = policy.act(market.features[t - 3 : t + 1, 0], np.asarray(obs.account[0]))
        assert chosen == env.positions[int(select(obs))]
        taken.append(chosen)
    assert len(set(taken)) > 1, "a constant policy would prove nothing"


def test_it_says_what_it_needs(policy: Policy, market: Market) -> None:
    assert policy.window == 4
    assert policy.positions == (-1.0, 0.0, 1.0)
    assert policy.features == market.feature_names
    assert policy.bars_needed == 3 + 2, "three bars before the last, whose log return needs one more"
    assert isinstance(policy.act(market.features[20:24, 0]), float)


@pytest.mark.parametrize(
    ("window", "account", "message"),
    [
        (np.zeros((3, 3)), (0, 0, 0, 1), r"the window has shape \(3, 3\), the policy needs \(4, 3\).*at least 5 bars"),
        (np.zeros((4, 1, 3)), (0, 0, 0, 1), r"the window has shape \(4, 1, 3\)"),
        (np.zeros((4, 3)), (0, 0, 0), r"the account has shape \(3,\), the policy needs exposure, last target"),
        (np.full((4, 3), np.nan), (0, 0, 0, 1), "not finite"),
        (np.zeros((4, 3)), (0, 0, np.inf, 1), "not finite"),
        ([[1.0], [1.0, 2.0]], (0, 0, 0, 1), "the window is no table of numbers"),
        ("bars", (0, 0, 0, 1), "the window is no table of numbers"),
        (np.zeros((4, 3)), "flat", "the account is no row of numbers"),
    ],
)
def test_what_does_not_fit_is_refused(policy: Policy, window: object, account: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy.act(window, account)


def test_the_environment_it_was_trained_in_comes_back(
    agent: PPOAgent, decided: PPOState, make_market: Callable[..., Market], tmp_path: Path
) -> None:
    market = make_market((60,), seed=8)
    env = TradingEnv(
        market,
        positions=(0, 0.5, 1),
        window=4,
        episode_length=16,
        costs=Costs(0.002, None),
        reward=risk_penalised(3),
        fill="next_close",
        rebalance="on_change",
        random_start=False,
    )
    features = {"names": list(market.feature_names), "lookback": market.lookback}
    agent.save_model(tmp_path / "p", decided, {"env": env.to_dict(), "features": features})
    policy = load_policy(tmp_path / "p")
    back = policy.environment(market)
    assert back == env
    assert back.costs == env.costs
    assert policy.environment(market, fill="next_close").fill == "next_close"
    for name, value in (("window", 16), ("positions", (0, 0.5)), ("random_start", True)):
        with pytest.raises(
            ValueError, match=f"{name} belongs to the policy and cannot be changed; change one of costs, fill"
        ):
            policy.environment(market, **{name: value})


def test_other_features_are_refused(policy: Policy, market: Market) -> None:
    other = dataclasses.replace(market, feature_names=("signal", "log_return_1", "noise"))
    with pytest.raises(ValueError, match=r"trained on the features log_return_1, signal, noise, the market has signal"):
        policy.environment(other)


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.pkl"
    path.write_bytes(b"not a policy")
    with pytest.raises(files.FileError, match=r"policy\.pkl"):
        load_policy(path)
    with pytest.raises(files.FileError, match="nowhere"):
        load_policy(tmp_path / "nowhere")


def test_a_policy_of_an_ordinary_environment_is_refused(agent: PPOAgent, decided: PPOState, tmp_path: Path) -> None:
    agent.save_model(tmp_path / "p", decided.replace(normalizer=None), {"name": "CartPole-v1"})
    with pytest.raises(files.FileError, match="does not say its env and features: it was not trained on a TradingEnv"):
        load_policy(tmp_path / "p")
