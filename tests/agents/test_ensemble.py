"""An ensemble trades the mean of its members' targets, in a file, in a backtest and bar by bar."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import policy_of, with_noise

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble, load_policy, save_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.ledger.rules import Rules


def member(agent: PPOAgent, state: PPOState, env: TradingEnv, seed: int, **changes: Any) -> Policy:
    """A policy whose actions differ from bar to bar, and from those of other seeds."""
    policy = policy_of(agent, with_noise(state, seed), env)
    policy.about["env"] |= changes
    return policy


@pytest.fixture(scope="module")
def members(agent: PPOAgent, state: PPOState, env: TradingEnv) -> list[Policy]:
    return [member(agent, state, env, seed) for seed in (1, 2, 3)]


def test_a_decision_is_the_mean_of_the_members_decisions(members: list[Policy], env: TradingEnv) -> None:
    together = ensemble(members)
    windows = [env.market.features[t : t + 4, 0] for t in range(20, 40)]
    taken = [together.act(window) for window in windows]
    np.testing.assert_allclose(taken, [np.mean([each.act(window) for each in members]) for window in windows])
    assert len(set(taken)) > 3, "a constant policy would prove nothing"
    assert together.positions == "continuous"


def test_the_first_target_of_a_backtest_is_the_mean_of_the_members(members: list[Policy], env: TradingEnv) -> None:
    """Later targets depend on the account, and the ensemble's is another than each member's alone."""
    together = backtest(ensemble(members), env.market)
    alone = [backtest(each, env.market).targets[0, 0] for each in members]
    assert together.targets[0, 0] == pytest.approx(np.mean(alone))
    assert np.isfinite(together.equity).all()


def test_an_ensemble_of_one_policy_thrice_trades_as_that_policy(members: list[Policy], env: TradingEnv) -> None:
    same = backtest(ensemble([members[0]] * 3), env.market)
    np.testing.assert_allclose(same.equity, backtest(members[0], env.market).equity, rtol=1e-12)


def test_a_file_gives_back_the_ensemble_and_its_members(members: list[Policy], env: TradingEnv, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.pkl", ensemble(members))
    loaded = load_policy(tmp_path / "policy.pkl")
    window = env.market.features[20:24, 0]
    assert loaded.act(window) == ensemble(members).act(window)
    assert [each.act(window) for each in loaded.members] == [each.act(window) for each in members]


def test_a_mean_of_long_positions_has_no_margin_for_shorts(
    members: list[Policy], agent: PPOAgent, state: PPOState, env: TradingEnv
) -> None:
    assert ensemble(members).environment(env.market).rules == env.rules, "these members are short at times"
    long = [member(agent, state, env, seed, positions=[0.0, 0.5, 1.0], rules=vars(Rules())) for seed in (1, 2)]
    assert ensemble(long).environment(env.market).rules.margin == 0


def test_an_ensemble_of_ensembles_is_one_of_all_members(members: list[Policy]) -> None:
    assert len(ensemble([ensemble(members), members[0]]).members) == 4


@pytest.mark.parametrize(
    ("changed", "offence"),
    [
        (lambda p: dataclasses.replace(p, about={**p.about, "env": p.about["env"] | {"window": 5}}), "environment"),
        (lambda p: dataclasses.replace(p, state=p.state.replace(obs_ndim=2)), "networks"),
    ],
)
def test_policies_that_decide_on_something_else_are_refused(
    members: list[Policy], changed: Callable[[Policy], Policy], offence: str
) -> None:
    with pytest.raises(ValueError, match=offence):
        ensemble([members[0], changed(members[1])])


def test_a_stop_for_each_position_has_no_mean(agent: PPOAgent, state: PPOState, env: TradingEnv) -> None:
    stops = [member(agent, state, env, seed, stop_loss=[0.1, 0.2, 0.1]) for seed in (1, 2)]
    with pytest.raises(ValueError, match="stop_loss"):
        ensemble(stops)


def test_a_file_whose_members_differ_is_refused(members: list[Policy], tmp_path: Path) -> None:
    save_policy(tmp_path / "whole.pkl", ensemble(members))
    stored = files.load(tmp_path / "whole.pkl", "policy")
    stored["members"][1]["obs_ndim"] = 2
    files.save(tmp_path / "policy.pkl", "policy", stored)
    with pytest.raises(files.FileError, match="damaged"):
        load_policy(tmp_path / "policy.pkl")
    files.save(tmp_path / "policy.pkl", "policy", stored | {"members": []})
    with pytest.raises(files.FileError, match="damaged"):
        load_policy(tmp_path / "policy.pkl")
