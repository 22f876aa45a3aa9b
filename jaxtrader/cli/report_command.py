"""`jaxtrader report`: the report of a run, written anew."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from rich.console import Console

from jaxtrader.cli import finished, reporting
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK
from jaxtrader.evaluation import tables


def rewrite_report(values: Values, console: Console) -> int:
    """`jaxtrader report`. The run's own data are read again."""
    folder = Path(values["run"])
    run = finished.read(folder, values)
    evidence = reporting.evaluate_policy(run.policy, run.identity, folder, run.parts, values)
    names = reporting.write_all(folder, evidence, run.title, run.settings, report=True)
    tables.print_facts(console, [*reporting.facts(evidence), ("files", f"{folder}: {', '.join(names)}")])
    if values["open"]:
        webbrowser.open((folder / names[0]).resolve().as_uri())
    return OK
