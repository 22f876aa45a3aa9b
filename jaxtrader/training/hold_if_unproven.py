"""What a training leaves behind where its policy did not beat holding: a policy that holds.

A policy that was trained on a few thousand noisy bars finds patterns in them, most of which were luck. It then pays for
trades that earn nothing. So it must do better than its own mean exposure held on validation, or it holds its mean
exposure of all bars so far. That of validation alone would change from fold to fold, and be a bet on its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrader.agents.holding import holding
from jaxtrader.agents.policy_loading import save_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.proof import Proof, prove
from jaxtrader.market.market import Market
from jaxtrader.run_files import POLICY, TRAINED

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer, TrainResult


def check_must_beat_holding(trainer: Trainer) -> None:
    """Raise ValueError where a policy could not be compared with holding, or could not be made to hold."""
    agent = trainer.agent
    if not (isinstance(trainer.env, TradingEnv) and isinstance(agent, PPOAgent) and agent.network is None):
        raise ValueError(
            "`must_beat_holding` needs a TradingEnv and a PPOAgent with a network of its own kind, whose last layer is "
            "known; use `must_beat_holding=False`"
        )
    if not isinstance(trainer.valid, Market):
        raise ValueError("`must_beat_holding` needs a Market as validation; give one, or use `must_beat_holding=False`")


def hold_if_unproven(trainer: Trainer, result: TrainResult) -> Proof:
    """Compare the policy of a run with holding on validation, and let it hold where it did no better.

    In that case `trained.pkl` keeps what was trained.
    """
    assert isinstance(trainer.env, TradingEnv)
    assert isinstance(trainer.valid, Market)
    policy, trained = result.policy, result.run_dir / TRAINED
    found = prove(policy, trainer.valid, trainer.env.market)
    trained.unlink(missing_ok=True)  # an older one, where the run was resumed
    if not found.is_better:
        save_policy(trained, policy)
        constant, exposure = holding(policy, found.exposure)
        found = replace(found, constant_exposure=exposure)
        save_policy(result.policy_path, replace(constant, about={**constant.about, "holds_because": str(found)}))
    return found


def trained_path(run_dir: Path) -> Path:
    """Return the file of the policy that a run has trained, also where POLICY holds instead."""
    trained = run_dir / TRAINED
    return trained if trained.is_file() else run_dir / POLICY
