"""Walk-forward: an agent is trained anew in each fold, and tested on the bars that follow.

Every bar of the tests is decided by a policy that was trained and chosen on earlier bars alone. The tests together are
one out-of-sample result.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_trained
from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest, with_room
from jaxtrader.evaluation.result import SHOWN, BacktestResult
from jaxtrader.evaluation.succession import Succession, joined
from jaxtrader.files import FileError
from jaxtrader.market.folds import Fold, walk_forward_folds
from jaxtrader.printable import shown
from jaxtrader.run_files import WALK_FORWARD
from jaxtrader.setting_checks import check_flag, check_type, setting
from jaxtrader.training.hold_if_unproven import trained_path
from jaxtrader.training.interrupt import stop_on_signals
from jaxtrader.training.run_folder import find_run, is_run, make_run_dir, only_writer
from jaxtrader.training.train_result import TrainResult
from jaxtrader.training.train_settings import Refit
from jaxtrader.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FoldResult:
    """One fold after its training.

    Attributes:
        fold: the bars of training, validation and test.
        training: the result of the training.
        result: the result of its policy on the test, from a flat account.
    """

    fold: Fold
    training: TrainResult
    result: BacktestResult

    @property
    def policy(self) -> Policy:
        """The policy that traded the test."""
        return self.training.policy


@dataclass(frozen=True, eq=False)
class WalkForward:
    """What `walk_forward` returns.

    Attributes:
        result: one account that trades the targets of all tests, one after the other.
        folds: each fold by itself.
        run_dir: the folder with a run folder for each fold.
        interrupted: True where a signal ended a training. The folds before it are here.
    """

    result: BacktestResult
    folds: tuple[FoldResult, ...]
    run_dir: Path
    interrupted: bool

    @property
    def policies(self) -> Succession:
        """The policies of all folds, each with the test that it trades and the validation that chose it."""
        folds = [fold.fold for fold in self.folds]
        policies = tuple(fold.policy for fold in self.folds)
        return Succession(policies, tuple(fold.test for fold in folds), tuple(fold.valid for fold in folds))

    def plot(self) -> Figure:
        """Return a matplotlib figure of equity, drawdown and exposure."""
        return self.result.plot()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the result of all tests, and the figures of each fold."""
        return f"{self.result._repr_html_()}{self.to_frame()[['first', 'last', *SHOWN]].to_html()}"

    def __repr__(self) -> str:
        return f"WalkForward({len(self.folds)} folds, {self.result!r}, {self.run_dir})"

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each fold, and one for all: the dates of the test, and the metrics."""
        import pandas as pd

        rows = {f"fold {i}": fold.result for i, fold in enumerate(self.folds, 1)} | {"all": self.result}
        return pd.DataFrame(
            {
                name: dict(zip(("first", "last"), one.to_frame().index[[0, -1]], strict=True)) | one.metrics
                for name, one in rows.items()
            }
        ).T


def walk_forward(
    env: TradingEnv,
    agent: Agent,
    folds: Sequence[Fold] | int | None = None,
    *,
    refit: Refit = "fresh",
    run_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    **settings: Any,
) -> WalkForward:
    """Train an agent in each fold of an environment's market, and test it on the bars that follow.

    The folds share the market's arrays, so they share the compiled programs. In each fold the features are normalised
    by its own training bars. The positions stay open from one test to the next, as one account would keep them.

    Args:
        env: the environment, over the whole market.
        agent: a PPOAgent, or another agent whose policy files can be backtested.
        folds: the folds, such as those of `walk_forward_folds`, or their number. None: those that it makes by default.
        refit: "fresh" trains each fold from new weights. "warm" starts from the policy of the fold before.
        run_dir: the folder for all runs. By default it is the next free runs/walk-forward-0001.
        resume: continue in `run_dir` where an earlier call with the same arguments stopped.
        settings: settings of `Trainer`: `total_steps`, `seeds` and so on.

    Raises:
        ValueError: a fold has too few bars to train or to test on, a setting is not valid, or the run to resume
            had others. Nothing is trained then.
        FileExistsError: run_dir is not empty.
        FileNotFoundError: there is no walk-forward to resume.
        FileError: another process writes to run_dir.

    Example:
        >>> env = jt.TradingEnv(jt.Market.from_bars(jt.load_bundled("IBM")), positions=(0, 1), window=2)
        >>> size = {"num_envs": 8, "rollout_length": 16, "total_steps": 256, "progress": False}
        >>> agent = jt.PPOAgent(hidden=(8,), num_minibatches=2)
        >>> jt.walk_forward(env, agent, folds=2, run_dir="runs/walk", **size)
        WalkForward(2 folds, BacktestResult(IBM: ... runs/walk)
    """
    check_type("walk_forward", env, TradingEnv, "make one with `TradingEnv(market)`")
    check_flag("resume", resume)
    if refit not in get_args(Refit):
        raise ValueError(f"{setting('refit', refit)} is unknown; use fresh or warm")
    if isinstance(folds, str) or not isinstance(folds, Sequence):
        folds = walk_forward_folds(env.market, folds)
    plans = plan_folds(env, agent, folds, **settings)
    folder = find_run(run_dir) if resume else make_run_dir(run_dir, "walk-forward")
    return run_folds(env, plans, folder, refit=refit, resume=resume)


@dataclass(frozen=True, eq=False)
class FoldPlan:
    """One fold before its training.

    Attributes:
        fold: the bars. Validation and test have only the symbols that can be traded.
        trainer: the trainer of the fold. It has no folder yet.
    """

    fold: Fold
    trainer: Trainer


def plan_folds(env: TradingEnv, agent: Agent, folds: Sequence[Fold], **settings: Any) -> list[FoldPlan]:
    """Check everything before anything is trained. The arguments and errors are those of `walk_forward`."""
    if not folds:
        raise ValueError("there are no folds; give one at least")
    for fold in folds:
        check_type("walk_forward", fold, Fold, "make folds with `walk_forward_folds(market)`")
    if settings.get("init_from") is not None:
        raise ValueError("`init_from` may have seen the tests; use `refit='warm'`, which starts from the fold before")
    plans = []
    for i, fold in enumerate(folds, 1):
        test = with_room(env.with_market(fold.test), f"the test of fold {i}")
        valid = fold.valid and with_room(env.with_market(fold.valid), f"the validation of fold {i}")
        try:
            trainer = Trainer(env.with_market(fold.train), agent, valid=valid, **settings)
        except ValueError as error:
            raise ValueError(f"fold {i}: {error}") from error
        plans.append(FoldPlan(dataclasses.replace(fold, valid=valid, test=test), trainer))
    return plans


def run_folds(
    env: TradingEnv, plans: Sequence[FoldPlan], folder: Path, *, refit: Refit = "fresh", resume: bool = False
) -> WalkForward:
    """Train and test each fold in a folder of its own, and join the tests. See `walk_forward`."""
    if resume:
        check_resume(plans, folder, refit)
    done: list[FoldResult] = []
    interrupted = False
    with only_writer(folder), stop_on_signals(plans[0].trainer.make_progress().print):
        files.write_text(folder / WALK_FORWARD, json.dumps({"refit": refit}) + "\n")
        for i, plan in enumerate(plans, 1):
            # Where the fold before holds instead, the next one still starts from what was trained.
            earlier = plan.trainer.init_from
            if refit == "warm" and done:
                path = trained_path(done[-1].training.run_dir)
                earlier = load_trained(path, plan.trainer.agent, plan.trainer.env)
            trainer = dataclasses.replace(plan.trainer, run_dir=folder / f"fold-{i}", init_from=earlier)
            training = trainer.train(resume=resume and is_run(folder / f"fold-{i}"))
            interrupted = training.interrupted
            if not interrupted or not done:
                done.append(FoldResult(plan.fold, training, backtest(training.policy, plan.fold.test)))
            if interrupted:
                break
        return WalkForward(joined(env, [one.result for one in done]), tuple(done), folder, interrupted)


def check_resume(plans: Sequence[FoldPlan], folder: Path, refit: Refit) -> None:
    """Raise what resuming a walk would raise for it, or for a fold that has begun. Nothing is written.

    Raises:
        ValueError: the walk had another refit, or the fold had other settings or bars.
        FileError: the fold's checkpoints are damaged, or another process writes to it.
    """
    _check_refit(folder, refit)
    for i, plan in enumerate(plans, 1):
        run_dir = folder / f"fold-{i}"
        if not is_run(run_dir):
            continue
        try:
            dataclasses.replace(plan.trainer, run_dir=run_dir).check_resume()
        except ValueError as error:
            raise ValueError(f"fold {i}: {error}") from error


def _check_refit(folder: Path, refit: Refit) -> None:
    """Raise ValueError where a walk began with another refit. The files of earlier versions do not hold it."""
    path = folder / WALK_FORWARD
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["refit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged; remove it, and give the `refit` that the walk began with") from error
    if before != refit:
        raise ValueError(
            f"the walk {folder} cannot be continued: it began with {setting('refit', shown(before))}, not "
            f"{setting('refit', refit)}; give what the walk had, or begin another"
        )
