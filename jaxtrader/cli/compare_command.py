"""`jaxtrader compare`: the tests of several runs side by side."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from rich.console import Console

from jaxtrader import files
from jaxtrader.cli import finished, inputs, reporting, waiting
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, BadInput, spelt
from jaxtrader.evaluation import tables
from jaxtrader.evaluation.comparison import compare
from jaxtrader.report.comparison_page import comparison_report, comparison_table, settings_table
from jaxtrader.report.evidence import traded
from jaxtrader.report.page import page
from jaxtrader.training.run_folder import folder_of_runs

PAGE = "comparison.html"
# Settings that make no other policy.
OF_NO_MATTER = ("data", "cuts", "quiet", "trials", "report", "log_to", "refit_normalizer")


def compare_runs(values: Values, console: Console) -> int:
    """`jaxtrader compare`. Each run's policy trades its own test again, by its own rules and costs."""
    folders = [Path(run) for run in values["runs"] or ()]
    if len(folders) < 2:
        given = "none was" if not folders else f"{folders[0]} alone was"
        raise BadInput(f"jaxtrader compare needs the folders of two runs or more, and {given} given")
    names = _names(folders)
    runs = {name: finished.read(folder, {}) for name, folder in zip(names, folders, strict=True)}
    results = {}
    for name, run in runs.items():
        waiting.say(f"testing {name}")
        results[name] = traded(run.policy, run.judged)
    with inputs.checked():
        found = compare(results)
    settings = {name: _settings(run.settings) for name, run in runs.items()}
    console.print(reporting.text_table(comparison_table(found)))
    console.print()
    if (differing := settings_table(settings)) is not None:
        console.print(reporting.text_table(differing))
        console.print()
    first, last = found.times[[0, -1]].astype("datetime64[D]")
    facts = [("bars", f"{len(found.times):,}, {first} to {last}"), ("verdict", " ".join(found.sentences))]
    symbols = {name: ",".join(result.symbols) for name, result in results.items()}
    if len(set(symbols.values())) > 1:
        facts.append(("note", "they trade other symbols: " + "; ".join(f"{k} {v}" for k, v in symbols.items())))
    if values["page"]:
        path = folder_of_runs(folders[0]) / PAGE
        market = runs[names[0]].judged
        files.write_text(path, page(comparison_report(found, settings, f"{market.source}: {market.describe()}")))
        facts.append(("file", str(path)))
        if values["open"]:
            webbrowser.open(path.as_uri())
    tables.print_facts(console, facts)
    return OK


def _settings(values: Values) -> dict[str, str]:
    """The settings that make a policy, as they are typed."""
    return {key: spelt(value) for key, value in values.items() if key not in OF_NO_MATTER and value is not None}


def _names(folders: list[Path]) -> list[str]:
    """The names of folders, with as much of their paths as tells them apart. Raises BadInput where one comes twice."""
    paths = [folder.resolve() for folder in folders]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise BadInput(f"{folders[i]} is given twice; give different runs")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]
