"""PPO finds what is there: the best policy of a market where it is known, and nothing where there is nothing.

The long proofs, on more markets and over five seeds, are in benchmarks/known_optimum.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rule_settings import env_settings

from jaxtrader import PPOAgent, TradingEnv, Trainer, TrainResult
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.synthetic import AR1, Process, RandomWalk

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimized")]


SIGNAL = AR1(volatility=0.02, r2=0.05, persistence=0.8)


def trained(process: Process, folder: Path, **rules: Any) -> tuple[TrainResult, Optimum]:
    """A training of 0.5M steps, and the optimum that scores its policy after each 10 updates."""
    env = TradingEnv(process.market(200_000, seed=0), window=1, rules=Rules(rebalance_band=0.0), **env_settings(rules))
    best = solve(process, env, bars=100_000)
    trainer = Trainer(
        env,
        PPOAgent(gamma=0.95, gae_lambda=0.7, num_epochs=2),
        valid=best,
        num_envs=512,
        rollout_length=16,
        total_steps=500_000,
        eval_every=10,
        updates_per_chunk=10,
        progress=False,
        run_dir=folder / "run",
    )
    return trainer.train(), best


@pytest.mark.parametrize("positions", [(-1.0, 0.0, 1.0), "continuous"], ids=["levels", "continuous"])
def test_98_percent_of_the_optimum_of_an_ar1_signal(positions: Any, tmp_path: Path) -> None:
    result, best = trained(SIGNAL, tmp_path, positions=positions)
    # Above 1 by more than the grid's error would be a bug of the optimum.
    assert 0.98 < result.history[-1]["optimum_share"] < 1.001
    validated = [record for record in result.history if "optimum_share" in record]
    assert len(validated) > 2
    assert [record["optimum_share"] for record in validated] == [
        pytest.approx(best.share(record["valid_reward_per_bar"])) for record in validated
    ]
    assert result.best["optimum_share"] == max(record["optimum_share"] for record in validated)
    # The policy file holds the best one: walked again, it scores the same.
    policy = load_policy(result.policy_path)
    _, params = policy.agent.prepare(policy.state, best.env.default_params)
    reward, held = best.score(policy.agent, policy.state, params)
    assert best.share(float(reward)) == pytest.approx(result.best["optimum_share"], abs=1e-6)
    assert float(held) == pytest.approx(result.best["valid_time_in_market"])
    assert "the optimum of AR1(" in policy.about["data"]["valid"]
    with pytest.raises(ValueError, match="another environment; solve it again"):
        Trainer(dataclasses.replace(result.env, positions=(0, 1)), PPOAgent(), valid=best, total_steps=1)


def test_on_a_random_walk_it_learns_to_hold_nothing(tmp_path: Path) -> None:
    result, _ = trained(RandomWalk(volatility=0.05), tmp_path)
    first, *_, last = (record["valid_time_in_market"] for record in result.history)
    assert last < 0.02 < 0.2 < first  # learnt, not what it began with
