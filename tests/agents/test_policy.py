"""A policy read back from its file: the same decisions, and sentences for what does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import about, fresh, initial, with_noise
from probes import BY_BOTH, Tabular

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.envs.episode import EnvParams, EnvState
from jaxtrader.envs.rewards import risk_penalized
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market
from jaxtrader.training.run_config import describe
from jaxtrader.training.trainer import Trainer


@pytest.fixture(scope="module")
def decided(state: PPOState) -> PPOState:
    """A policy whose actions differ from bar to bar."""
    return with_noise(state)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, agent: PPOAgent, decided: PPOState, env: TradingEnv) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.pkl"
    agent.save_model(path, decided, about(env))
    return path


@pytest.fixture(scope="module")
def policy(path: Path) -> Policy:
    return load_policy(path)


def decisions(
    env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The accounts that some decisions from bar 20 on see, at random exposures, and what is decided."""

    @jax.jit
    def decide(params: EnvParams) -> tuple[jax.Array, jax.Array]:
        cursor = jnp.arange(20, 20 + count)
        accounts = env.open_accounts(jax.random.key(4), params.arrays.close[cursor], params, (count,))
        states = EnvState(accounts, cursor, jnp.full(count, 150), jnp.zeros(count, jnp.int32))
        seen = jax.vmap(env.observe, (None, 0, None, None))(None, states, None, params)
        return seen.account[:, 0], agent.select_action(state, seen, jax.random.key(0), deterministic=True)[0]

    accounts, decided = decide(params)
    return np.asarray(accounts), np.asarray(decided)


def test_act_on_raw_bars_equals_select_action_on_the_prepared_arrays(
    policy: Policy, agent: PPOAgent, decided: PPOState, env: TradingEnv, params: EnvParams, market: Market
) -> None:
    accounts, expected = decisions(env, agent, decided, params, 40)
    taken = [policy.act(market.features[t - 3 : t + 1, 0], account) for t, account in enumerate(accounts, 20)]
    assert taken == [env.positions[index] for index in expected]
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
        reward=risk_penalized(3),
        rules=Rules(fill="next_close", rebalance="on_change"),
        random_start=False,
    )
    agent.save_model(tmp_path / "p", decided, about(env))
    policy = load_policy(tmp_path / "p")
    back = policy.environment(market)
    assert back == env
    assert back.costs == env.costs
    assert policy.environment(market, rules=policy.rules.replace(fill="next_close")).rules.fill == "next_close"
    for name, value in (("window", 16), ("positions", (0, 0.5)), ("random_start", True)):
        with pytest.raises(
            ValueError, match=f"`{name}` belongs to the policy and cannot be changed; change one of rules, "
        ):
            policy.environment(market, **{name: value})


@pytest.fixture(scope="module", params=["continuous", "weights"])
def continuous(request: pytest.FixtureRequest, agent: PPOAgent, env: TradingEnv) -> tuple[TradingEnv, PPOState]:
    """An environment with a box of actions and a policy whose exposures differ from bar to bar."""
    env = dataclasses.replace(env, positions=request.param)
    return env, with_noise(fresh(agent, env))


def test_a_continuous_policy_acts_by_an_exposure(
    continuous: tuple[TradingEnv, PPOState], agent: PPOAgent, params: EnvParams, market: Market, tmp_path: Path
) -> None:
    env, state = continuous
    agent.save_model(tmp_path / "p", state, about(env))
    policy = load_policy(tmp_path / "p")
    assert policy.positions == env.positions
    assert policy.environment(market) == env
    accounts, expected = decisions(env, agent, state, params, 10)
    taken = [policy.act(market.features[t - 3 : t + 1, 0], account) for t, account in enumerate(accounts, 20)]
    assert all(isinstance(chosen, float) for chosen in taken)
    np.testing.assert_allclose(taken, expected[:, 0], rtol=1e-4, atol=1e-6)
    assert np.std(taken) > 0.05
    assert (min(taken) > 0) == (env.positions == "weights")


@pytest.mark.parametrize("positions", [[0.0, 1.0], "weights", "continuous"])
def test_a_policy_whose_network_is_for_other_positions_is_refused(
    positions: object, agent: PPOAgent, decided: PPOState, env: TradingEnv, tmp_path: Path
) -> None:
    features = {"names": list(env.market.feature_names), "lookback": 1}
    agent.save_model(tmp_path / "p", decided, {"env": env.to_dict() | {"positions": positions}, "features": features})
    with pytest.raises(
        files.FileError, match=r"is damaged \(its network has 3 actions of kind discrete, its environment"
    ):
        load_policy(tmp_path / "p")


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


def test_a_policy_of_an_ordinary_environment_acts_on_its_observations(tmp_path: Path) -> None:
    agent = PPOAgent(hidden=(4,), normalize_observations=True)
    state = initial(agent, Tabular(), BY_BOTH)
    observations = np.linspace(-3, 3, 9, dtype=np.float32)[:, None]
    weights = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.7), state.params)  # so that both actions occur
    weights["policy"]["kernel"] = weights["policy"]["kernel"] * np.float32([1.0, -1.0])
    seen = jax.jit(type(state.normalizer).update)(state.normalizer, observations)
    state = state.replace(params=weights, normalizer=seen)
    agent.save_model(tmp_path / "p", state, {"name": "Tabular"})
    policy = load_policy(tmp_path / "p")
    select = jax.jit(lambda seen: agent.select_action(state, seen, jax.random.key(0), deterministic=True)[0])
    expected = select(observations)
    assert [policy.act(seen) for seen in observations] == expected.tolist()
    assert len(set(expected.tolist())) == 2
    with pytest.raises(ValueError, match=r"shape \(2,\), the policy needs 1 finite"):
        policy.act([0.0, 1.0])
    with pytest.raises(ValueError, match="not trained in a TradingEnv"):
        _ = policy.positions
    assert len(repr(policy).splitlines()) == 1


def test_the_agent_of_a_policy_is_the_one_that_was_trained(env: TradingEnv, decided: PPOState, tmp_path: Path) -> None:
    trained = PPOAgent(learning_rate=3e-4, num_epochs=2, hidden=(16, 8), entropy_coef=0.0, matmul_precision="high")
    about = describe(Trainer(env, trained, num_envs=8, rollout_length=env.episode_length, total_steps=1), {})
    trained.save_model(tmp_path / "p", decided, about)
    policy = load_policy(tmp_path / "p")
    assert policy.agent == trained
    assert policy.acting_agent == PPOAgent(matmul_precision="high")
    assert len(repr(policy).splitlines()) == 1
    trained.save_model(tmp_path / "bad", decided, about | {"agent": about["agent"] | {"num_epochs": "many"}})
    with pytest.raises(files.FileError, match="many"):
        load_policy(tmp_path / "bad")


@pytest.mark.parametrize("path", [None, 5, b"policy.pkl", ["policy.pkl"]])
def test_a_policy_is_read_from_a_path(path: Any) -> None:
    with pytest.raises(ValueError, match=r"`path=.*must be the path of a policy file or a run folder"):
        load_policy(path)
