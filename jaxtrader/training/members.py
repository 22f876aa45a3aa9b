"""Several seeds as one training: each trains a member, and the members together are the policy.

Members follow one another, or a block of them is one program (`block.py`).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrader.agents.policy_loading import ensemble, save_policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.run_files import POLICY, START
from jaxtrader.setting_checks import setting
from jaxtrader.training.block import Block
from jaxtrader.training.hold_if_unproven import hold_if_unproven
from jaxtrader.training.interrupt import stop_on_signals
from jaxtrader.training.progress import member_progress
from jaxtrader.training.run_config import describe, write_config
from jaxtrader.training.run_folder import (
    find_run,
    has_checkpoint,
    is_run,
    member_folder,
    member_folders,
    only_writer,
)
from jaxtrader.training.seeds_at_once import seeds_at_once, why_not_at_once
from jaxtrader.training.warm_start import keep_start, with_start

if TYPE_CHECKING:
    from jaxtrader.training.train_result import TrainResult
    from jaxtrader.training.trainer import Trainer


def check_members(trainer: Trainer) -> None:
    """Raise ValueError where the mean of several policies cannot be traded."""
    if not isinstance(trainer.env, TradingEnv):
        raise ValueError(
            f"{setting('seeds', trainer.seeds)} needs a TradingEnv, whose targets have a mean; use `seeds=1`"
        )
    for name in BRACKETS:
        value = getattr(trainer.env, name)
        if isinstance(value, tuple):
            raise ValueError(
                f"{setting(name, value)} is one for each position, and an ensemble needs one number; use `seeds=1`"
            )
    if (trainer.seeds_at_once or 1) > 1 and (why := why_not_at_once(trainer)):
        raise ValueError(f"{setting('seeds_at_once', trainer.seeds_at_once)} needs {why}; leave it out")


def check_seeds(trainer: Trainer, run_dir: Path) -> None:
    """Raise ValueError where a training would leave out a seed of the run that it continues. It may add some."""
    begun = [int(path.name.removeprefix("seed-")) for path in member_folders(run_dir) if is_run(path)]
    is_single = has_checkpoint(run_dir)
    now = range(trainer.seed, trainer.seed + trainer.seeds)
    if (trainer.seeds == 1 and not begun) or (trainer.seeds > 1 and not is_single and set(begun) <= set(now)):
        return
    had = f"has the seeds {', '.join(map(str, begun))}" if begun else "is a training of one seed"
    raise ValueError(
        f"the run {run_dir} cannot be continued: it {had}, and this training is of seed {', '.join(map(str, now))}; "
        "give the `seed` and the `seeds` of the run, to which more may be added where it has several"
    )


def check_members_to_resume(trainer: Trainer) -> None:
    """Raise what resuming would raise for a member that has begun."""
    run_dir = find_run(trainer.run_dir)
    check_seeds(trainer, run_dir)
    for seed in range(trainer.seed, trainer.seed + trainer.seeds):
        if is_run(folder := member_folder(run_dir, seed)):
            start = {"init_from": None, "refit_normalizer": False, "must_beat_holding": False}
            dataclasses.replace(trainer, seed=seed, seeds=1, run_dir=folder, **start).check_resume()
    with_start(trainer, run_dir)


def train_members(trainer: Trainer, resume: bool) -> TrainResult:
    """Train the members, each in a folder of its own, and save the ensemble.

    All members share the compiled programs. Each is the same as a training with its seed alone, in a block up to the
    order of sums. Where training starts from an ensemble, each member starts from its own member of that. Where a
    signal ends a member, the ensemble has the members before it. Where there are none, it has the interrupted ones.
    """
    run_dir = trainer.open_folder(resume)
    check_seeds(trainer, run_dir)
    with only_writer(run_dir), stop_on_signals(trainer.make_progress().print):
        started = with_start(trainer, run_dir) if resume else trainer
        if not (resume and (run_dir / START).is_file()):
            keep_start(started, run_dir)
        return _train_members(started, run_dir, resume)


def _train_members(trainer: Trainer, run_dir: Path, resume: bool) -> TrainResult:
    write_config(run_dir, trainer, describe(trainer, trainer.about))
    members, slots = _members(trainer, run_dir), seeds_at_once(trainer)
    results: list[TrainResult] = []
    seconds = 0.0
    for i in range(0, len(members), slots):
        block = _train_block(members[i : i + slots], slots, resume)
        results += block
        seconds += max(result.seconds for result in block)
        if any(result.interrupted for result in block):
            break
    result = dataclasses.replace(_as_ensemble(results, run_dir), seconds=seconds)
    if trainer.must_beat_holding and not result.interrupted:
        result = dataclasses.replace(result, proof=hold_if_unproven(trainer, result))
    return result


def _members(trainer: Trainer, run_dir: Path) -> list[Trainer]:
    """Return a trainer for each seed."""
    earlier = trainer.earlier.members if trainer.earlier is not None else (None,)
    return [
        dataclasses.replace(
            trainer,
            seed=trainer.seed + i,
            seeds=1,
            seeds_at_once=None,
            must_beat_holding=False,  # the ensemble must
            run_dir=member_folder(run_dir, trainer.seed + i),
            init_from=earlier[i % len(earlier)],
        )
        for i in range(trainer.seeds)
    ]


def _train_block(members: Sequence[Trainer], slots: int, resume: bool) -> list[TrainResult]:
    """Train members side by side in a program with `slots` slots. With one slot they follow one another."""
    resumes = [resume and is_run(Path(str(member.run_dir))) for member in members]
    if slots == 1:
        return [member.train_here(resume=goes_on) for member, goes_on in zip(members, resumes, strict=True)]
    with contextlib.ExitStack() as opened:
        progress = opened.enter_context(members[0].make_progress(len(members)))
        stop = opened.enter_context(stop_on_signals(progress.print, progress.close))
        displays = member_progress(progress, [member.seed for member in members])
        trainings = []
        for member, goes_on, display in zip(members, resumes, displays, strict=True):
            member = dataclasses.replace(member, callbacks=[copy.copy(each) for each in member.callbacks])
            trainings.append(opened.enter_context(member.begin(goes_on, display, stop, slots)))
        return Block(trainings, slots, stop).run()


def _as_ensemble(results: Sequence[TrainResult], run_dir: Path) -> TrainResult:
    """Save the ensemble of the members that are finished, or of all where none is, and join their results."""
    finished = [result for result in results if not result.interrupted] or results
    policy = ensemble([result.policy for result in finished])
    about = {**policy.about, "seeds": [_seed(result) for result in finished]}
    save_policy(run_dir / POLICY, dataclasses.replace(policy, about=about))
    return dataclasses.replace(
        results[-1],
        state=tuple(result.state for result in finished),
        history=[{"seed": _seed(result), **record} for result in results for record in result.history],
        updates=sum(result.updates for result in results),
        steps=sum(result.steps for result in results),
        episodes=sum(result.episodes for result in results),
        best=None,
        run_dir=run_dir,
        members=tuple(results),
    )


def _seed(result: TrainResult) -> int:
    return int(Path(result.run_dir).name.removeprefix("seed-"))
