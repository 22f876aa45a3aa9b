"""`jaxtrader walk-forward`: one training for each fold, and one result of all tests."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex

import numpy as np
from rich.console import Console

import jaxtrader as jt
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli import config_file, inputs, phrases, reporting
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import INTERRUPTED, OK, FoldSettings, MarketSettings, Source, TrainData, of
from jaxtrader.evaluation import looks, tables
from jaxtrader.evaluation.baselines import baselines
from jaxtrader.evaluation.strategies import strategies
from jaxtrader.evaluation.timing import timing_test
from jaxtrader.evaluation.verdict import POLICY, sharpe
from jaxtrader.market.folds import walk_forward_folds
from jaxtrader.report.content import Table, number, percent, turnover
from jaxtrader.report.evidence import Evidence
from jaxtrader.training import interrupt
from jaxtrader.training.run_folder import find_run, make_run_dir, only_writer
from jaxtrader.training.train_settings import TrainSettings
from jaxtrader.training.walk_forward import WalkForward, plan_folds, run_folds

PART = "all tests"


def walk(values: Values, console: Console) -> int:
    """`jaxtrader walk-forward`."""
    wanted = FoldSettings(**of(FoldSettings, values))
    resumed = values["resume"]
    with inputs.checked():
        data, source = TrainData(**of(TrainData, values)), Source(**of(Source, values))
        market = inputs.read_market(data.data, source, data.features, data.portfolio, **of(MarketSettings, values))
        env = inputs.environment(values, market)
        folds = walk_forward_folds(
            market,
            wanted.folds,
            train=_length(wanted.train),
            test=_length(wanted.test),
            valid=wanted.valid,
            anchored=wanted.anchored,
            embargo=wanted.embargo,
        )
        plans = plan_folds(
            env, jt.PPOAgent(**of(PPOSettings, values)), folds, progress=not values["quiet"], **_training(values)
        )
        folder = find_run(resumed) if resumed else make_run_dir(values["run_dir"], "walk-forward")
        settings = {**values, **inputs.absolute(values, "data")}
        with only_writer(folder):
            config_file.write(folder, "walk-forward", settings)
    if not values["quiet"]:
        facts = [("data", phrases.data(market)), ("costs", phrases.rules(env)), ("positions", phrases.choice(env))]
        for i, fold in enumerate(folds, 1):
            facts.append((f"fold {i}", f"trained to {phrases.ends(fold.train)[1]}, tested {_dates(fold.test)}"))
        tables.print_facts(console, [*facts, *(("note", note) for note in tables.grouped(market.notes))])
    with interrupt.ending_the_process(), only_writer(folder):
        found = run_folds(env, plans, folder, refit=wanted.refit, resume=bool(resumed))
    evidence = _evidence(market, found, values)
    title = f"walk-forward of {folder.name}"
    fold_table = _fold_table(found)
    names = reporting.write_all(folder, evidence, title, settings, report=values["report"], further=[fold_table])
    if not values["quiet"]:
        console.print(reporting.result_table(evidence))
        console.print()
        for row in fold_table.rows:
            console.print(f"{row[0]}: {row[1]} in total, Sharpe ratio {row[2]}, exposure {row[4]}", highlight=False)
        console.print()
    resume = shlex.join(["jaxtrader", "walk-forward", "--resume", str(folder)])
    lines = [*reporting.facts(evidence), ("files", f"{folder}: {', '.join([*names, 'result.json'])}")]
    tables.print_facts(console, [*lines, *([("next", resume)] if found.interrupted else [])])
    return INTERRUPTED if found.interrupted else OK


def _training(values: Values) -> dict[str, object]:
    """The settings of each training. Its folder is that of its fold."""
    settings = of(TrainSettings, values)
    del settings["run_dir"]
    return settings


def _length(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _dates(market: jt.Market) -> str:
    return " to ".join(phrases.ends(market))


def _evidence(market: jt.Market, found: WalkForward, values: Values) -> Evidence:
    """The stitched result beside its baselines. A try is the whole walk."""
    result = found.result
    tested = dataclasses.replace(market, segments=_ends(market, result))
    part = {POLICY: result, **baselines(tested, result), **strategies(tested, result)}
    digest = hashlib.sha256()
    for fold in found.folds:
        digest.update(fold.training.policy_path.read_bytes())
    look = looks.look_at(tested, result, digest.digest(), str(found.run_dir))
    seen = looks.record(found.run_dir.resolve().parent, look)
    trials = looks.trials(seen, len(result), values["trials"])
    return Evidence({PART: part}, {PART: tested}, {}, {}, timing_test(tested, result), trials)


def _ends(market: jt.Market, result: jt.BacktestResult) -> np.ndarray:
    """The market's segments, ended where the tests of each symbol end."""
    segments = market.segments.copy()
    for member in list(result.by_symbol.values()) or [result]:
        row = market.symbols.index(",".join(member.symbols))
        history, _, end = segments[row]
        segments[row, 2] = history + int(np.searchsorted(market.times[history:end], member.times[-1])) + 1
    return segments


def _fold_table(found: WalkForward) -> Table:
    rows = []
    for i, fold in enumerate(found.folds, 1):
        figures = fold.result.metrics
        rows.append(
            [
                f"fold {i}, {fold.result.days[0]}",
                percent(figures["total_return"]),
                number(sharpe(fold.result).value),
                percent(figures["max_drawdown"]),
                number(figures["mean_exposure"]),
                number(turnover(fold.result)),
                percent(figures["costs"], 2),
            ]
        )
    columns = ["", "total return", "Sharpe", "max drawdown", "exposure", "turnover", "costs"]
    note = (
        "Each fold by itself, from flat. The first day of its test is named. Sharpe ratios and turnover of less than a "
        "year are of the period."
    )
    return Table("Folds", columns, rows, note)
