"""PPO finds what is there: the best policy of a market where it is known, and nothing where there is nothing.

The long proofs, on more markets and over five seeds, are in benchmarks/known_optimum.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rule_settings import env_settings

from jaxtrader import PPOAgent, TradingEnv, Trainer
from jaxtrader.evaluation.optimum import solve
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.synthetic import AR1, Process, RandomWalk

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimized")]


SIGNAL = AR1(volatility=0.02, r2=0.05, persistence=0.8)


def records(process: Process, folder: Path, **rules: Any) -> list[dict[str, Any]]:
    """What the Trainer's optimum says of the policy after each 10 updates of 0.5M steps."""
    env = TradingEnv(process.market(200_000, seed=0), window=1, rules=Rules(rebalance_band=0.0), **env_settings(rules))
    trainer = Trainer(
        env,
        PPOAgent(gamma=0.95, gae_lambda=0.7, num_epochs=2),
        valid=solve(process, env, bars=100_000),
        num_envs=512,
        rollout_length=16,
        total_steps=500_000,
        eval_every=10,
        updates_per_chunk=10,
        progress=False,
        run_dir=folder / "run",
    )
    return trainer.train().history


@pytest.mark.parametrize("positions", [(-1.0, 0.0, 1.0), "continuous"], ids=["levels", "continuous"])
def test_98_percent_of_the_optimum_of_an_ar1_signal(positions: Any, tmp_path: Path) -> None:
    share = records(SIGNAL, tmp_path, positions=positions)[-1]["optimum_share"]
    assert 0.98 < share < 1.001  # above 1 by more than the grid's error would be a bug of the optimum


def test_on_a_random_walk_it_learns_to_hold_nothing(tmp_path: Path) -> None:
    first, *_, last = (record["valid_time_in_market"] for record in records(RandomWalk(volatility=0.05), tmp_path))
    assert last < 0.02 < 0.2 < first  # learnt, not what it began with
