"""A policy that holds wants one exposure whatever it sees, and `simulate` makes the same account of that target."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from policies import fresh, policy_of, with_noise

from jaxtrader.agents.holding import holding
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble, load_policy, save_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.simulate import simulate


def trained(agent: PPOAgent, env: TradingEnv, seed: int = 0) -> Policy:
    """A policy whose actions differ from bar to bar."""
    return policy_of(agent, with_noise(fresh(agent, env), seed), env)


# Three members choose from -1, 0, 1, so their mean is a multiple of a third.
@pytest.mark.parametrize(("members", "wanted", "held"), [(1, 0.6, 1), (1, -0.2, 0), (3, 0.4, 1 / 3), (3, -1, -1)])
def test_positions_are_the_nearest_that_the_members_have_together(
    members: int, wanted: float, held: float, agent: PPOAgent, env: TradingEnv
) -> None:
    policy = ensemble([trained(agent, env, seed) for seed in range(members)]) if members > 1 else trained(agent, env)
    assert np.ptp(backtest(policy, env.market).by_symbol["S0"].targets) > 0, "else it would hold without our doing"
    policy, reached = holding(policy, wanted)
    assert reached == pytest.approx(held, abs=1e-12)
    found = backtest(policy, env.market)
    for symbol, one in found.by_symbol.items():
        np.testing.assert_allclose(one.targets, held, atol=1e-6)
        start = int(env.market.first_decisions(env.window)[env.market.symbols.index(symbol)])
        rules = policy.environment(env.market).rules
        own = simulate(env.market, one.targets, costs=env.costs, rules=rules, symbol=symbol, start=start)
        np.testing.assert_allclose(one.equity, own.equity, rtol=1e-9)


@pytest.mark.parametrize("wanted", [-0.7, 0.0, 0.45])
def test_a_continuous_exposure_is_exact(wanted: float, agent: PPOAgent, env: TradingEnv) -> None:
    policy = trained(agent, dataclasses.replace(env, positions="continuous"))
    held, reached = holding(policy, wanted)
    assert reached == pytest.approx(wanted, abs=1e-12)
    windows = [env.market.features[t : t + 4, 0] for t in range(20, 40)]
    assert np.ptp([policy.act(window) for window in windows]) > 0.1, "else it would hold without our doing"
    np.testing.assert_allclose([held.act(window) for window in windows], wanted, atol=1e-6)


@pytest.mark.parametrize("wanted", [0.0, 0.45, 1.0])
def test_a_portfolio_holds_equal_parts(wanted: float, agent: PPOAgent, portfolio: TradingEnv) -> None:
    held, reached = holding(trained(agent, portfolio), wanted)
    found = backtest(held, portfolio.market)
    np.testing.assert_allclose(found.targets, wanted / 3, atol=1e-4)
    np.testing.assert_allclose(found.targets, reached / 3, atol=1e-6)


def test_a_portfolio_with_one_hidden_layer_holds_equal_parts_too(agent: PPOAgent, portfolio: TradingEnv) -> None:
    """There the mean over assets goes into the last layer."""
    policy = trained(agent.replace(hidden=(8,)), portfolio)
    held, reached = holding(policy, 0.45)
    assert reached == pytest.approx(0.45)
    windows = [portfolio.market.features[t : t + 4] for t in range(20, 40)]
    assert np.ptp([policy.act(window) for window in windows], 0).min() > 0.1
    np.testing.assert_allclose([held.act(window) for window in windows], reached / 3, atol=1e-6)


def test_only_the_last_layer_is_another_and_a_file_keeps_it(agent: PPOAgent, env: TradingEnv, tmp_path: Path) -> None:
    policy = trained(agent, env)
    held, _ = holding(policy, 1.0)
    changed = [name for name, weights in policy.state.params.items() if weights is not held.state.params[name]]
    assert changed == ["policy"]
    save_policy(tmp_path / "policy.pkl", held)
    loaded = load_policy(tmp_path / "policy.pkl")
    assert {loaded.act(env.market.features[t : t + 4, 0]) for t in range(20, 40)} == {1.0}
