"""`jaxtrader export`: a policy as a file that needs no jaxtrader."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import finished, inputs
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, BadInput
from jaxtrader.evaluation import tables
from jaxtrader.setting_checks import setting


def export_policy(values: Values, console: Console) -> int:
    """`jaxtrader export`. Print what the file takes and gives."""
    run, kind = Path(values["run"]), values["to"]
    path = Path(values["save"] or (run if run.is_dir() else run.parent) / f"policy.{kind}")
    with inputs.checked():
        if path.is_dir():
            raise BadInput(
                f"{setting('save', str(path))} is a folder; give the file to write, as in {path / f'policy.{kind}'}"
            )
        try:
            described = jt.load_policy(finished.policy_of(run)).export(path, kind)
        except ImportError as error:
            raise BadInput(str(error)) from error
    axes = {**described.inputs, **described.outputs}
    facts = [(name, f"[{', '.join(map(str, sizes))}]") for name, sizes in axes.items()]
    facts[0] = ("window", f"{facts[0][1]} of {', '.join(described.features)}")
    facts[1] = ("account", f"{facts[1][1]} of {', '.join(described.account)}")
    if described.positions is not None:
        facts[-1] = ("probabilities", f"{facts[-1][1]} of {', '.join(f'{x:g}' for x in described.positions)}")
    tables.print_facts(console, [*facts, ("saved", f"{path}, described in {path}.json")])
    return OK
