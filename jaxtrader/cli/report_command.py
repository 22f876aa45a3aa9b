"""`jaxtrader report`: the report of a run, written anew."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import inputs, reporting
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, PARTS, BadInput, MarketSettings, ReportSettings, Source, of
from jaxtrader.cli.synthetic_command import made_by
from jaxtrader.evaluation import tables


def rewrite_report(values: Values, console: Console) -> int:
    """`jaxtrader report`. The run's own data are read again."""
    wanted = ReportSettings(**of(ReportSettings, values))
    folder = Path(wanted.run)
    with inputs.checked():
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder of a run; give the folder that `jaxtrader train` wrote")
        path = folder / "policy.pkl"
        policy = jt.load_policy(path)
        command = policy.about.get("command")
        if command is None:
            raise BadInput(f"{folder} was not trained by `jaxtrader train` and does not say its data")
        if command["synthetic"] is not None:
            raise BadInput(made_by(command, folder))
        source = Source(**of(Source, command))
        given = {name: value for name, value in of(MarketSettings, values).items() if value is not None}
        given = {**of(MarketSettings, command), **given}
        market = inputs.read_market(command["data"], source, policy.features, policy.portfolio, **given)
        parts = zip(PARTS.values(), market.split(*reporting.cuts_of(policy)), strict=True)
        markets = {name: inputs.tradable(policy.environment(part), name) for name, part in parts}
    evidence = reporting.evaluate(path, markets, values)
    names = reporting.write_all(folder, evidence, folder.name, command, report=True)
    tables.print_facts(console, [*reporting.facts(evidence), ("files", f"{folder}: {', '.join(names)}")])
    if wanted.open:
        webbrowser.open((folder / names[0]).resolve().as_uri())
    return OK
