"""What every command that tests a policy does at its end: the evidence, the verdict, and the files of the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.table

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import waiting
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.runs import write_record
from jaxtrader.cli.settings import spelt
from jaxtrader.evaluation import tables
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.report.content import Table
from jaxtrader.report.evidence import Evidence, gather
from jaxtrader.report.writing import write_report
from jaxtrader.training.run_folder import METRICS, folder_of_runs, member_folders


def evaluate(path: Path, markets: Mapping[str, jt.Market], values: Values, **changes: Any) -> Evidence:
    """Gather the evidence of the policy in a file, and note the look at the last part beside the runs.

    Unless it is quiet, standard error says what is being evaluated. `changes` are settings of `backtest`.
    """
    policy = jt.load_policy(path)
    return gather(
        policy,
        markets,
        changes=changes,
        folder=folder_of_runs(path.parent),
        identity=path.read_bytes(),
        run=str(path.parent),
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
    further: Sequence[Table] = (),
    trained: Path | None = None,
) -> list[str]:
    """Write result.json, and the files of the report where it is wanted. Return the names of the latter.

    Args:
        folder: where they are written.
        evidence: what is shown.
        title: of the report.
        settings: of the run.
        report: whether it is wanted.
        further: more tables of the report.
        trained: the run folder whose training is shown, where it is another one.
    """
    record = tables.record(evidence.parts) | {"verdict": list(evidence.sentences)}
    if evidence.timing is not None:
        record["timing_p"] = evidence.timing.p
    if evidence.trials is not None:
        record["trials"] = vars(evidence.trials)
    if evidence.importance is not None:
        record["importance"] = evidence.importance.to_frame().to_dict("index")
    if evidence.overfitting is not None:
        record["overfitting"] = vars(evidence.overfitting)
    write_record(record, folder)
    if not report:
        return []
    shown = {name: spelt(value) for name, value in settings.items() if value is not None}
    training = _training(trained or folder)
    return write_report(folder, evidence, title=title, further=further, training=training, settings=shown)


def result_table(evidence: Evidence) -> tables.ResultTable:
    """The table of the terminal: the policy beside holding. The report has the other strategies too."""
    shown = (POLICY, BUY_AND_HOLD, EXPOSURE_MATCHED)
    return tables.ResultTable({name: {label: part[label] for label in shown} for name, part in evidence.parts.items()})


def text_table(table: Table) -> rich.table.Table:
    """A table of a report as the terminal shows it."""
    found = rich.table.Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for i, heading in enumerate(table.columns):
        found.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for i, row in enumerate(table.rows):
        found.add_row(*row, style="bold" if i in table.strong else "")
    return found


def facts(evidence: Evidence) -> list[tuple[str, str]]:
    """The verdict, and orders that were not filled as asked, as lines of the terminal."""
    first, second, *luck = evidence.sentences
    found = [("verdict", first), ("result", second)]
    found += [("luck", " ".join(luck))] if luck else []
    orders = tables.orders_line(list(evidence.parts.values())[-1][POLICY])
    return found if orders is None else [*found, ("orders", orders)]


def _training(folder: Path) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The records of the training, by the name of its seed."""
    runs = {path.name.replace("-", " "): path for path in member_folders(folder)} or {"validation": folder}
    found: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name, run in runs.items():
        log = run / METRICS
        if log.is_file():
            found[name] = [json.loads(line) for line in log.read_text().splitlines()]
    return found


def cuts_of(policy: Policy) -> list[np.datetime64]:
    """Where validation and test begin, as the run says."""
    return [np.datetime64(cut) for cut in policy.about["command"]["cuts"]]
