"""Several seeds as one training: each trains a member, and the members together are the policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrader.agents.policy import ensemble, load_policy, save_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.training.interrupt import stop_on_signals
from jaxtrader.training.progress import Progress
from jaxtrader.training.run_config import describe, write_config
from jaxtrader.training.run_folder import (
    CHECKPOINTS,
    find_run,
    is_run,
    make_run_dir,
    member_folder,
    member_folders,
    only_writer,
)

if TYPE_CHECKING:
    from jaxtrader.training.train_result import TrainResult
    from jaxtrader.training.trainer import Trainer


def check_members(trainer: Trainer) -> None:
    """Raise ValueError where the mean of several policies cannot be traded."""
    if not (trainer.on_market_paths and isinstance(trainer.agent, PPOAgent)):
        raise ValueError(
            f"seeds {trainer.seeds} needs a TradingEnv and a PPOAgent, whose policies have a mean; use seeds=1"
        )
    for name in BRACKETS:
        value = getattr(trainer.env, name)
        if isinstance(value, tuple):
            raise ValueError(f"{name} {value} is one for each position, and an ensemble needs one number; use seeds=1")


def check_seeds(trainer: Trainer, run_dir: Path) -> None:
    """Raise ValueError where a training would leave out a seed of the run that it continues. It may add some."""
    begun = [int(path.name.removeprefix("seed-")) for path in member_folders(run_dir) if is_run(path)]
    is_single = any((run_dir / name).is_file() for name in CHECKPOINTS)
    now = range(trainer.seed, trainer.seed + trainer.seeds)
    if (trainer.seeds == 1 and not begun) or (trainer.seeds > 1 and not is_single and set(begun) <= set(now)):
        return
    had = f"has the seeds {', '.join(map(str, begun))}" if begun else "is a training of one seed"
    raise ValueError(
        f"the run {run_dir} cannot be continued: it {had}, and this training is of seed {', '.join(map(str, now))}; "
        "give the seed and the seeds of the run, to which more may be added where it has several"
    )


def check_members_to_resume(trainer: Trainer) -> None:
    """Raise what resuming would raise for a member that has begun."""
    run_dir = find_run(trainer.run_dir)
    check_seeds(trainer, run_dir)
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
    check_seeds(trainer, run_dir)
    with only_writer(run_dir), stop_on_signals(Progress(1, enabled=trainer.progress).print):
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
    policy = ensemble([load_policy(result.policy_path) for result in finished])
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
