"""Several seeds as one training: each trains a member, and the members together are the policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrader.agents.policy import ensemble, save_policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.training.run_config import describe, write_config
from jaxtrader.training.run_folder import find_run, is_run, make_run_dir, member_folder, only_writer

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer, TrainResult


def check_members(trainer: Trainer) -> None:
    """Raise ValueError where the mean of several policies cannot be traded."""
    if not isinstance(trainer.env, TradingEnv):
        raise ValueError(f"seeds {trainer.seeds} needs a TradingEnv, whose targets have a mean; use seeds=1")
    for name in BRACKETS:
        value = getattr(trainer.env, name)
        if isinstance(value, tuple):
            raise ValueError(f"{name} {value} is one for each position, and an ensemble needs one number; use seeds=1")


def check_members_to_resume(trainer: Trainer) -> None:
    """Raise what resuming would raise for a member that has begun."""
    run_dir = find_run(trainer.run_dir)
    for seed in range(trainer.seed, trainer.seed + trainer.seeds):
        if is_run(folder := member_folder(run_dir, seed)):
            dataclasses.replace(trainer, seed=seed, seeds=1, run_dir=folder, init_from=None).check_resume()


def train_members(trainer: Trainer, resume: bool) -> TrainResult:
    """Train one member after another, each in a folder of its own, and save the ensemble.

    All members share the compiled programs, and each is the same as a training with its seed alone. From an ensemble of
    an earlier training each starts from its own member. Where a signal ends a member, the ensemble is that of the
    members before it, or of this one where there is none.
    """
    run_dir = find_run(trainer.run_dir) if resume else make_run_dir(trainer.run_dir, trainer.env.name.lower())
    with only_writer(run_dir):
        return _train_members(trainer, run_dir, resume)


def _train_members(trainer: Trainer, run_dir: Path, resume: bool) -> TrainResult:
    about = describe(trainer, trainer.env, trainer.agent, trainer.valid, trainer.about)
    write_config(run_dir, trainer, trainer.agent, about)
    results: list[TrainResult] = []
    earlier = trainer.earlier.members if trainer.earlier is not None else (None,)
    for i, seed in enumerate(range(trainer.seed, trainer.seed + trainer.seeds)):
        folder = member_folder(run_dir, seed)
        member = dataclasses.replace(trainer, seed=seed, seeds=1, run_dir=folder, init_from=earlier[i % len(earlier)])
        results.append(member.train_here(resume=resume and is_run(folder)))
        if results[-1].interrupted:
            break
    finished = [result for result in results if not result.interrupted] or results
    policy = ensemble([result.policy for result in finished])
    about = {**policy.about, "seeds": [_seed(result) for result in finished]}
    path = run_dir / "policy.pkl"
    save_policy(path, dataclasses.replace(policy, about=about))
    return dataclasses.replace(
        results[-1],
        state=tuple(result.state for result in finished),
        history=[{"seed": _seed(result), **record} for result in results for record in result.history],
        updates=sum(result.updates for result in results),
        steps=sum(result.steps for result in results),
        episodes=sum(result.episodes for result in results),
        seconds=sum(result.seconds for result in results),
        best=None,
        run_dir=run_dir,
        members=tuple(results),
    )


def _seed(result: TrainResult) -> int:
    return int(Path(result.run_dir).name.removeprefix("seed-"))
