"""Commands that test a policy end here, with the evidence, the verdict and the files of the report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from rich.console import Console

import jaxtrader as jt
from jaxtrader import run_files
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import inputs, waiting
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.runs import write_record
from jaxtrader.cli.settings import spelt
from jaxtrader.evaluation import tables
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.succession import Succession
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.report.content import TextTable
from jaxtrader.report.evidence import Evidence, fold_table, gather, results_table
from jaxtrader.report.writing import write_report
from jaxtrader.run_files import SCORE
from jaxtrader.training.metrics_log import read_records
from jaxtrader.training.run_folder import fold_folders, folder_of_runs, member_folders


def evaluate(run: Path, markets: Mapping[str, jt.Market], values: Values, **changes: Any) -> Evidence:
    """Gather the evidence of a run's policy, and note the look at the last part beside the runs.

    Unless it is quiet, standard error says what is being evaluated.

    Args:
        run: The folder of the run.
        markets: The bars of each part, by its name, in the order of time.
        values: The settings of the command.
        changes: The settings that `backtest` has instead of those of training.
    """
    path = run / run_files.POLICY
    return evaluate_policy(jt.load_policy(path), path.read_bytes(), run, markets, values, **changes)


def evaluate_policy(
    policy: Policy | Succession,
    identity: bytes,
    folder: Path,
    markets: Mapping[str, jt.Market],
    values: Values,
    **changes: Any,
) -> Evidence:
    """Gather the evidence of a loaded policy, as `evaluate` does.

    `identity` identifies it among the tries, and `folder` is the folder of its run.
    """
    return gather(
        policy,
        markets,
        changes=changes,
        folder=folder_of_runs(folder),
        identity=identity,
        run=str(folder),
        trials_elsewhere=values.get("trials") or 0,
        report_step=lambda step: None if values.get("quiet") else waiting.say(f"evaluating the {step}"),
    )


def write_all(
    folder: Path,
    evidence: Evidence,
    title: str,
    settings: Values,
    *,
    report: bool,
    further: Sequence[TextTable] = (),
    trained: Path | None = None,
    costs: Mapping[str, tables.Part] | None = None,
) -> list[str]:
    """Write result.json, and the files of the report where it is wanted. Return the names of the latter.

    Args:
        folder: The folder to write to.
        evidence: The results to write.
        title: The title of the report.
        settings: The settings of the run.
        report: Whether the report is written.
        further: More tables for the report.
        trained: The run folder whose training is shown. The default is `folder`.
        costs: The results under several costs, by the label of each.
    """
    with inputs.checked():  # before anything is written
        training = _training(trained or folder) if report else {}
    record = tables.record(evidence.parts) | {"verdict": list(evidence.sentences)}
    if evidence.timing is not None:
        record["timing_p"] = evidence.timing.p
    if evidence.trials is not None:
        record["trials"] = vars(evidence.trials)
    if evidence.importance is not None:
        record["importance"] = evidence.importance.to_frame().to_dict("index")
    if evidence.folds:
        record["folds"] = {name: tables.part_record(part) for name, part in evidence.folds.items()}
    if evidence.overfitting is not None:
        record["overfitting"] = vars(evidence.overfitting)
    if costs:
        record["costs"] = {name: tables.part_record(part) for name, part in costs.items()}
        note = "The same policy on the same bars. All other tables and figures are of the last row."
        rows = {name: part[tables.POLICY] for name, part in costs.items()}
        further = [results_table("Several costs", rows, note), *further]
    write_record(record, folder)
    if not report:
        return []
    shown = {name: spelt(value) for name, value in settings.items() if value is not None}
    return write_report(folder, evidence, title=title, further=further, training=training, settings=shown)


def identity_of(paths: Iterable[Path]) -> bytes:
    """Return the bytes that identify the policies of a walk-forward among the tries."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.digest()


def title_of_walk_forward(folder: Path) -> str:
    """Return the title of the report of a walk-forward."""
    return f"walk-forward of {folder.name}"


def print_results(evidence: Evidence, console: Console) -> None:
    """Print the policy beside holding, and each fold of a walk-forward. The report has the other strategies too."""
    shown = (POLICY, BUY_AND_HOLD, EXPOSURE_MATCHED)
    parts = {name: {label: part[label] for label in shown} for name, part in evidence.parts.items()}
    console.print(tables.ResultTable(parts))
    console.print()
    if evidence.folds:
        console.print(text_table(fold_table(evidence.folds)))
        console.print()


def text_table(table: TextTable) -> rich.table.Table:
    """Return a table of a report for the terminal."""
    found = rich.table.Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for i, heading in enumerate(table.columns):
        found.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for i, row in enumerate(table.rows):
        found.add_row(*row, style="bold" if i in table.strong else "")
    return found


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the verdict, and the orders that were not filled as asked, as lines for the terminal."""
    first, second, *luck = evidence.judgment
    found = [("verdict", first), ("result", second)]
    found += [("luck", " ".join(luck))] if luck else []
    if evidence.holds_because is not None:
        found.append(("policy", f"{evidence.holds_because}; --no-must-beat-holding of a training trades that"))
    orders = tables.orders_line(list(evidence.parts.values())[-1][POLICY])
    return found if orders is None else [*found, ("orders", orders)]


def _training(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of the training, by the name of its seed. Of each fold of a walk-forward they are its seeds' mean."""
    if folds := fold_folders(folder):
        return {run.name.replace("-", " "): _mean(list(_training(run).values())) for run in folds}
    runs = {path.name.replace("-", " "): path for path in member_folders(folder)} or {"validation": folder}
    logs = {name: run / run_files.METRICS for name, run in runs.items()}
    return {name: read_records(log) for name, log in logs.items() if log.exists()}


def _mean(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The mean of the runs' scores on validation, at the steps that all have."""
    scores = [{one["steps"]: one[SCORE] for one in records if SCORE in one} for records in runs]
    common = sorted(set.intersection(*map(set, scores))) if scores else []
    return [{"steps": steps, SCORE: float(np.mean([each[steps] for each in scores]))} for steps in common]
