"""`jaxtrader check`: the checks of `jaxtrader.checks` on a file, a line each, and what a failure means.

Here a feature may come from a Python file, which is run. `train` does not take one. Its policy file would have to name
code that a backtest then executes, and nothing that is read from disk is ever executed.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

import jaxtrader as jt
from jaxtrader.checks import Check
from jaxtrader.cli import inputs, own_code, phrases
from jaxtrader.cli.command_settings import MarketSettings, Source
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import FAILED, OK, BadInput, build, of
from jaxtrader.evaluation import tables
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.setting_checks import setting


def check(values: Values, console: Console) -> int:
    """Run the checks and print them. Returns OK where all pass, else FAILED."""
    began = time.perf_counter()
    with inputs.checked():
        source = build(Source, values)
        bars = inputs.read_bars(values["data"], source)
        features = None if values["features"] is None else named(values["features"])
        wanted = jt.checks.CheckSettings(
            positions=values["positions"],
            costs=jt.Costs(**of(CostRates, values)),
            rules=build(jt.Rules, values),
            seed=values["seed"],
        )
        market = jt.Market.from_bars(bars, features, min_bars=source.min_bars, **of(MarketSettings, values))
        bars = [one for one in bars if one.symbols[0] in market.symbols]
        only = jt.checks.NAMES if values["only"] is None else values["only"]
        jt.checks.prepare(market, wanted, only)
    tables.print_facts(console, [("data", f"{market.source}: {market.describe()}"), *phrases.notes(market.notes)])
    try:
        done = jt.checks.run(
            bars, features, wanted, only=only, notify=lambda line: console.print(Text(f"check {line}", style="dim"))
        )
    except jt.DataError as error:
        # A feature can be computed from all bars, but not from some or from shuffled ones.
        raise BadInput(str(error)) from error
    console.print()
    console.print(table(done))
    console.print()
    tables.print_facts(console, [*_findings(done), ("result", sentence(done, time.perf_counter() - began))])
    return OK if all(one.passed for one in done) else FAILED


def named(specs: Sequence[str]) -> list[str | jt.features.Feature]:
    """Features by name as they stand, and the `Feature` that each FILE.py:NAME names. A file is run once for all.

    Raises BadInput where the file or the name is none.
    """
    matches = [re.fullmatch(r"(.*\.py):(\w+)", spec) for spec in specs]
    return [
        _feature(spec, own_code.run_file(match[1], setting("features", spec)), match[2]) if match else spec
        for spec, match in zip(specs, matches, strict=True)
    ]


def _feature(spec: str, module: ModuleType, name: str) -> jt.features.Feature:
    """Return the Feature with that name in a module. Raises BadInput where there is none."""
    found = getattr(module, name, None)
    if not isinstance(found, jt.features.Feature):
        what = f"has no {name}" if found is None else f"has {name} of the type {type(found).__name__}"
        file = Path(spec.rpartition(":")[0]).name
        raise BadInput(
            f"{setting('features', spec)}: {file} {what}; write "
            f"`{name} = jaxtrader.features.Feature('{name}', lookback, function of bars)`"
        )
    return dataclasses.replace(found, compute=_named(found))


def _named(feature: jt.features.Feature) -> Callable[[jt.Bars], np.ndarray]:
    """The function of a feature, whose faults name it."""

    def compute(bars: jt.Bars) -> np.ndarray:
        try:
            return feature.compute(bars)
        except jt.DataError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise jt.DataError(
                f"The feature {feature.name} fails on {len(bars)} bars of {','.join(bars.symbols)}: "
                f"{type(error).__name__}: {error}; correct its function"
            ) from error

    return compute


def table(done: Sequence[Check]) -> Table:
    """Return a table with a row for each check: its verdict, its figure and limit, and what the figure is."""
    columns = ("check", "", Column("figure", justify="right"), "limit", "of")
    found = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for one in done:
        verdict = Text("pass", "green") if one.passed else Text("FAIL", "bold red")
        limit = f"{'at least' if one.is_minimum else 'at most'} {one.limit:.3g}"
        found.add_row(
            Text(one.name, "bold"), verdict, f"{one.figure:.3g}", Text(limit, "dim"), Text(one.measure, "dim")
        )
    return found


def _findings(done: Sequence[Check]) -> list[tuple[str, str]]:
    """Return what each check found, and what a failure means."""
    return [(one.name, one.text + ("" if one.passed else f": {one.meaning}") + ".") for one in done]


def sentence(done: Sequence[Check], seconds: float) -> str:
    """Return the result of all checks in one sentence that does not oversell."""
    failed = [one.name for one in done if not one.passed]
    took = f"{seconds:.0f} s"
    if not failed:
        ran, left_out = [one.name for one in done], len(jt.checks.NAMES) - len(done)
        passed = (
            f"{', '.join(ran)} passed in {took}, {left_out} more were not run"
            if left_out
            else (f"All {len(done)} checks passed in {took}")
        )
        learns = " and the agent learns what is there to be learnt" if "oracle" in ran else ""
        return f"{passed}: no leak of their kinds was found{learns}; that is no evidence of an edge."
    return (
        f"{len(failed)} of {len(done)} checks failed ({', '.join(failed)}) in {took}: until they pass, a good result "
        "on these bars and features means nothing."
    )
