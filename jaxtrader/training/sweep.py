"""Sweep: one agent is trained at each choice of some settings, and the best is chosen on validation.

A score is the Sharpe ratio over cash on validation, of a backtest in float64. It does not depend on the reward, so
that rewards can be swept too. The test chooses nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_policy, load_trained
from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import statistics
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.overfitting import Overfitting, deflated_sharpe, overfitting, variance_of_trials
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.verdict import sharpe
from jaxtrader.files import FileError
from jaxtrader.market.market import Market
from jaxtrader.printable import as_csv
from jaxtrader.run_files import POLICY, SWEEP, SWEEP_TABLE
from jaxtrader.setting_checks import setting
from jaxtrader.training.configurations import Configuration, SweepPlan, label, plain, plan_sweep
from jaxtrader.training.hold_if_unproven import trained_path
from jaxtrader.training.interrupt import stop_on_signals
from jaxtrader.training.run_folder import holds_nothing, is_run, make_run_dir, only_writer
from jaxtrader.training.train_result import TrainingDiverged
from jaxtrader.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("mean_exposure", "turnover", "max_drawdown", "total_return", "costs")  # of the table, beside the ratios


@dataclass(frozen=True, eq=False)
class ConfigurationResult:
    """One configuration after its training.

    Attributes:
        name: the name of the run folder within the sweep's folder.
        settings: the swept settings, by name.
        folder: the run folder.
        seeds: the result of each seed's policy on validation.
        valid: the result on validation of the trained policy, which trades the mean of all seeds' targets.
        test: the result of the policy on the test. None where there is no test, or the sweep was interrupted.
        failed: the reason, where the training diverged. `seeds` are then empty, and `valid` and `test` None.
        trainer: the trainer of the configuration.
    """

    name: str
    settings: Mapping[str, Any]
    folder: Path
    seeds: tuple[BacktestResult, ...] = ()
    valid: BacktestResult | None = None
    test: BacktestResult | None = None
    failed: str | None = None
    trainer: Trainer | None = None

    @property
    def policy_path(self) -> Path:
        """The file of the policy."""
        return self.folder / POLICY

    @property
    def policy(self) -> Policy:
        """The policy of the configuration."""
        if self.trainer is None:
            return load_policy(self.policy_path)
        return load_trained(self.policy_path, self.trainer.agent, self.trainer.env)

    @property
    def score(self) -> float:
        """Mean over the seeds of the Sharpe ratio on validation. NaN where the training failed."""
        return float(np.mean([_ratio(one) for one in self.seeds])) if self.seeds else math.nan

    @property
    def spread(self) -> float:
        """Sample deviation over the seeds of the same ratio. NaN for one seed."""
        return float(np.std([_ratio(one) for one in self.seeds], ddof=1)) if len(self.seeds) > 1 else math.nan


@dataclass(frozen=True, eq=False)
class Sweep:
    """What `sweep` returns.

    Attributes:
        configurations: the finished configurations, in the order of the given values.
        run_dir: the folder with sweep.json, sweep.csv and a run folder for each configuration.
        interrupted: True where a signal ended a training. The configurations before it are here.
    """

    configurations: tuple[ConfigurationResult, ...]
    run_dir: Path
    interrupted: bool = False

    @property
    def trained(self) -> tuple[ConfigurationResult, ...]:
        """The configurations that did not fail."""
        return tuple(one for one in self.configurations if one.failed is None)

    @property
    def best(self) -> ConfigurationResult:
        """The configuration with the highest mean score on validation. Of equal ones it is the first.

        Raises ValueError where none was trained.
        """
        if not self.trained:
            raise ValueError("no configuration was trained to its end, so there is no best one")
        return max(self.trained, key=lambda one: one.score)

    @cached_property
    def returns(self) -> Float[np.ndarray, "bar configuration"]:
        """Returns over cash on the bars of validation that all trained configurations have, a column for each."""
        results = [one.valid for one in self.trained if one.valid is not None]
        if not results:
            return np.zeros((0, 0))
        common = functools.reduce(np.intersect1d, [result.times for result in results])
        return np.stack([result.excess_returns[np.isin(result.times, common)] for result in results], axis=1)

    @cached_property
    def overfitting(self) -> Overfitting:
        """How far the choice of the best can be trusted."""
        return overfitting(self.returns)

    @cached_property
    def deflated_sharpe(self) -> float:
        """The probability that the best's true Sharpe ratio on validation is above 0, after so many tries.

        Every trained configuration counts as one. NaN where the best does not vary. See `overfitting.deflated_sharpe`.
        """
        ratios = [statistics.sharpe_ratio(column) for column in self.returns.T]
        variance = variance_of_trials(ratios, len(self.returns))
        return deflated_sharpe(self.returns[:, self.trained.index(self.best)], len(ratios), variance)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each configuration: settings, score, spread, and figures of the policy."""
        import pandas as pd

        names = [one.name for one in self.configurations]
        return pd.DataFrame([_row(one) for one in self.configurations], index=pd.Index(names, name="configuration"))

    def __repr__(self) -> str:
        if not self.trained:
            return f"Sweep({len(self.configurations)} configurations, none was trained, {self.run_dir})"
        shown = [*self.best.settings, "valid_sharpe", "valid_spread", "test_policy_sharpe"]
        table = self.to_frame().filter(shown).to_string(float_format="{:.4g}".format)
        tries = f"deflated for {len(self.trained)} tries"
        lines = [
            f"Best on validation: {self.best.name} ({label(self.best.settings)}).",
            f"Probability of a true Sharpe ratio above 0, {tries}: {self.deflated_sharpe:.2f}.",
            f"Probability of backtest overfitting: {self.overfitting}.",
            f"Runs: {self.run_dir}{' (interrupted)' * self.interrupted}",
        ]
        return "\n".join([table, *lines])

    def _repr_html_(self) -> str:
        """The table, as notebooks show it."""
        return self.to_frame().to_html()


def sweep(
    env: TradingEnv,
    agent: Agent,
    valid: Market | None,
    *,
    test: Market | None = None,
    run_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    **settings: Any,
) -> Sweep:
    """Train an agent at each choice of some settings, and choose the best on validation.

    `sweep(env, agent, valid, total_steps=1_000_000, seeds=3, learning_rate=[1e-3, 3e-4], fee=[0.0, 0.001])` trains
    four configurations with three seeds each. A list is swept, and a setting with any other value has it in all
    configurations. Values that do not change the program, such as rates, share what is compiled.

    All are scored at the costs of `env`, and by its `fill`, `delay`, `capital` and other facts, whatever they were
    trained at. `max_leverage`, `rebalance_band`, `rebalance` and `flat_at_session_end` are a trader's choice, so each
    is scored at its own.

    Args:
        env: the environment, over the bars of training.
        agent: a PPOAgent, or another agent whose policy files can be backtested.
        valid: the bars on which the best is chosen.
        test: later bars. Each policy is tested on them, and none is chosen by that.
        run_dir: the folder for all runs. By default it is the next free runs/sweep-0001.
        resume: continue in `run_dir` where an earlier call with the same arguments stopped. What is finished is not
            trained again.
        settings: settings of the agent, `EnvSettings`, `Rules`, `Costs` and `Trainer`, and the objects `costs`, `rules`
            and `reward`. A one-dimensional array and a range count as lists. A tuple is one value.

    Raises:
        ValueError: a setting is unknown, cannot be swept or is not valid, or the sweep to resume had others. Nothing is
            trained then.
        FileExistsError: run_dir is not empty.
        FileNotFoundError: there is no sweep to resume.
        FileError: the record of the sweep to resume is damaged.

    Example:
        >>> train, valid, test = jt.Market.from_bars(jt.load_bundled("IBM")).split("2008-01-01", "2011-01-01")
        >>> env = jt.TradingEnv(train, positions=(0, 1), window=2)
        >>> agent = jt.PPOAgent(hidden=(8,), num_minibatches=2)
        >>> size = {"num_envs": 8, "rollout_length": 16, "total_steps": 256, "progress": False}
        >>> swept = jt.sweep(env, agent, valid, run_dir="runs/sweep", learning_rate=[1e-3, 3e-3], **size)
        >>> list(swept.to_frame().index)
        ['config-1', 'config-2']
    """
    plan = plan_sweep(env, agent, valid, test, settings)
    if resume:
        if run_dir is None or not (Path(run_dir) / SWEEP).is_file():
            raise FileNotFoundError(f"there is no sweep in {run_dir} to resume; check the path, or leave `resume` out")
        return run_sweep(plan, Path(run_dir))
    return run_sweep(plan, make_run_dir(run_dir, "sweep"))


def run_sweep(plan: SweepPlan, folder: Path, report_step: Callable[[str], None] = lambda step: None) -> Sweep:
    """Train, score and test each configuration in a folder of its own. See `sweep`.

    Args:
        plan: The configurations.
        folder: A new folder, or that of the same sweep.
        report_step: A function that gets a sentence about each step before it is done.
    """
    earlier, names = check_resume(plan, folder), _names(plan)
    with only_writer(folder), stop_on_signals(plan.configurations[0].trainer.make_progress().print):
        done: list[ConfigurationResult] = []
        _write(plan, folder, done, earlier)
        for name, each in zip(names, plan.configurations, strict=True):
            report_step(f"{name} of {len(names)}: {label(each.settings)}")
            result = _train(each, folder / name, earlier.get(name, {}))
            if result is None:
                return Sweep(tuple(done), folder, interrupted=True)
            done.append(result)
            _write(plan, folder, done, earlier)
        for i, each in enumerate(plan.configurations):
            if each.test is not None and done[i].failed is None:
                tested = backtest(done[i].policy, each.test, **each.changes)
                done[i] = replace(done[i], test=tested)
        found = Sweep(tuple(done), folder)
        _write(plan, folder, done, earlier, found)
        files.write_text(folder / SWEEP_TABLE, as_csv(found.to_frame(), index=True))
        return found


def check_resume(plan: SweepPlan, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the finished configurations by name, as the record of a folder has them.

    Raises:
        ValueError: the folder is of a sweep with other settings or data. The message names the first that differs.
        FileError: the record or a checkpoint is damaged.
    """
    if not (folder / SWEEP).is_file():
        return {}
    finished = _finished(plan, folder)
    for name, each in zip(_names(plan), plan.configurations, strict=True):
        if _has_begun(folder / name):
            try:
                replace(each.trainer, run_dir=folder / name).check_resume()
            except ValueError as error:
                raise ValueError(f"{folder / name} cannot go on: {error}") from error
    return finished


def _names(plan: SweepPlan) -> list[str]:
    return [f"config-{i}" for i in range(1, len(plan.configurations) + 1)]


def _finished(plan: SweepPlan, folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / SWEEP
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        before, finished = {**record["fixed"], **record["swept"]}, record["finished"]
        assert all(isinstance(one, dict) for one in (record["swept"], finished, *finished.values()))
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise FileError(f"{path} is damaged, or of another program; give another folder, or move it away") from error
    now = {**plan.fixed, **plan.swept}
    for name in dict.fromkeys((*now, *before)):
        if now.get(name) != before.get(name):
            raise ValueError(
                f"{setting(name)} was {_spelt(before.get(name))} in the sweep of {folder} and is "
                f"{_spelt(now.get(name))}; give another `run_dir`, or the earlier values"
            )
    if list(record["swept"]) != list(plan.swept):
        raise ValueError(
            f"{', '.join(map(setting, plan.swept))} stood in the order {', '.join(map(setting, record['swept']))} in "
            f"the sweep of {folder}, which numbers its configurations; give another `run_dir`, or the earlier order"
        )
    return finished


def _train(configuration: Configuration, folder: Path, earlier: Mapping[str, Any]) -> ConfigurationResult | None:
    """Train one configuration unless it is trained, and score it. None where a signal ended the training."""
    done = ConfigurationResult(folder.name, configuration.settings, folder, trainer=configuration.trainer)
    if earlier.get("failed") is not None:
        return replace(done, failed=earlier["failed"])
    if _digest(done.policy_path) is None or _digest(done.policy_path) != earlier.get("policy"):
        begun = _has_begun(folder)
        if not begun:
            folder.mkdir(exist_ok=True)
            with only_writer(folder):
                for name, text in configuration.files.items():
                    files.write_text(folder / name, text)
        try:
            if replace(configuration.trainer, run_dir=folder).train(resume=begun).interrupted:
                return None
        except TrainingDiverged as error:
            return replace(done, failed=str(error))
    # What was trained is scored: a policy that holds instead says nothing of these settings.
    trained = load_trained(trained_path(folder), configuration.trainer.agent, configuration.trainer.env)
    valid = configuration.trainer.valid
    assert isinstance(valid, Market)
    score = functools.partial(backtest, market=valid, **configuration.changes)
    result = score(trained)
    seeds = tuple(score(member) for member in trained.members) if len(trained.members) > 1 else (result,)
    return replace(done, seeds=seeds, valid=result)


def _has_begun(folder: Path) -> bool:
    return folder.is_dir() and is_run(folder) and not holds_nothing(folder)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24] if path.is_file() else None


def _write(
    plan: SweepPlan,
    folder: Path,
    done: Sequence[ConfigurationResult],
    earlier: Mapping[str, Mapping[str, Any]],
    found: Sweep | None = None,
) -> None:
    """Write the record: the swept settings, the finished configurations, and at the end the best one."""
    finished = dict(earlier) | {one.name: {"failed": one.failed, "policy": _digest(one.policy_path)} for one in done}
    record = {"swept": plan.swept, "fixed": plan.fixed, "finished": finished, "rows": list(map(_plain_row, done))}
    if found is not None and found.trained:
        record |= {"best": found.best.name, "overfitting": vars(found.overfitting) | {"told": str(found.overfitting)}}
    files.write_text(folder / SWEEP, json.dumps(record, indent=2, allow_nan=False) + "\n")


def _plain_row(one: ConfigurationResult) -> dict[str, Any]:
    """Return the row of a configuration as JSON holds it. An undefined number is null."""
    row = _row(one)
    row |= plain({name: row[name] for name in one.settings})
    undefined = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return {"configuration": one.name, **row, **dict.fromkeys(undefined)}


def _row(one: ConfigurationResult) -> dict[str, Any]:
    row = {**one.settings, "valid_sharpe": one.score, "valid_spread": one.spread}
    for part, result in (("valid", one.valid), ("test", one.test)):
        if result is not None:
            row |= {f"{part}_policy_sharpe": sharpe(result).value}
            row |= {f"{part}_{name}": result.metrics[name] for name in FIGURES}
    return row | {"failed": one.failed}


def _ratio(result: BacktestResult) -> float:
    """Return the Sharpe ratio. An account that does not vary is cash, whose ratio counts as 0."""
    ratio = sharpe(result).value
    return 0.0 if math.isnan(ratio) else ratio


def _spelt(value: Any) -> str:
    return "not there" if value is None else json.dumps(value)
