"""`jaxtrader walk-forward`: one training for each fold, and one result of all tests."""

from __future__ import annotations

import dataclasses

from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import config_file, inputs, own_code, phrases, reporting
from jaxtrader.cli.command_settings import FoldSettings, MarketSettings, Source, TrainData
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.reporting import identity_of
from jaxtrader.cli.runs import saved_in
from jaxtrader.cli.settings import INTERRUPTED, OK, build, of
from jaxtrader.evaluation import tables
from jaxtrader.market.folds import walk_forward_folds
from jaxtrader.run_files import RESULT
from jaxtrader.training import interrupt
from jaxtrader.training.run_folder import find_run, make_run_dir, only_writer, resume_command
from jaxtrader.training.train_settings import TrainSettings
from jaxtrader.training.walk_forward import FoldPlan, WalkForward, check_resume, plan_folds, run_folds

PART = "all tests"


@dataclasses.dataclass(frozen=True, eq=False)
class WalkForwardPlan:
    """All that a walk-forward needs, built and checked.

    Attributes:
        env: The environment over all bars.
        plans: The plan of each fold.
    """

    env: jt.TradingEnv
    plans: list[FoldPlan]


def plan_walk_forward(values: Values) -> WalkForwardPlan:
    """Build and check everything before anything is compiled or written. Raises ValueError, OSError or BadInput."""
    inputs.check_settings(values)
    wanted = build(FoldSettings, values)
    data, source = build(TrainData, values), build(Source, values)
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
    settings = of(TrainSettings, values) | {"run_dir": None}  # that of each fold
    settings |= {"progress": not values["quiet"], "callbacks": inputs.callbacks(values)}
    plans = plan_folds(env, own_code.agent(values), folds, **settings)
    return WalkForwardPlan(env, plans)


def walk_forward(values: Values, console: Console) -> int:
    """`jaxtrader walk-forward`."""
    resumed = values["resume"]
    with inputs.checked():
        plan = plan_walk_forward(values)
        folder = find_run(resumed) if resumed else make_run_dir(values["run_dir"], "walk-forward")
        if resumed:
            check_resume(plan.plans, folder, values["refit"])
        settings = {**values, **inputs.absolute(values, "data", "network")}
        with only_writer(folder):
            config_file.write(folder, "walk-forward", settings)
    if not values["quiet"]:
        tables.print_facts(console, _facts(plan))
    with interrupt.ending_the_process():
        found = run_folds(plan.env, plan.plans, folder, refit=values["refit"], resume=bool(resumed))
    with saved_in(folder):
        return _tell(found, settings, values, console)


def _tell(found: WalkForward, settings: Values, values: Values, console: Console) -> int:
    """Test all folds together, print and write the result, and return the exit code."""
    folder = found.run_dir
    policies, identity = found.policies, identity_of(fold.training.policy_path for fold in found.folds)
    evidence = reporting.evaluate_policy(policies, identity, folder, {PART: policies.market}, values)
    title = reporting.title_of_walk_forward(folder)
    names = reporting.write_all(folder, evidence, title, settings, report=values["report"])
    if not values["quiet"]:
        reporting.print_results(evidence, console)
    lines = reporting.facts(evidence)
    lines.append(("files", f"{folder}: {', '.join([*names, RESULT])}"))
    following = resume_command(folder) if found.interrupted else own_code.backtest_command(folder, values)
    tables.print_facts(console, [*lines, ("next", following)])
    return INTERRUPTED if found.interrupted else OK


def _facts(plan: WalkForwardPlan) -> list[tuple[str, str]]:
    """The first lines: data, rules and folds."""
    env, market = plan.env, plan.env.market
    facts = [("data", phrases.data(market)), ("costs", phrases.rules(env)), ("positions", phrases.choice(env))]
    for i, each in enumerate(plan.plans, 1):
        trained, tested = inputs.days(each.fold.train), inputs.days(each.fold.test)
        facts.append((f"fold {i}", f"trained to {trained[1]}, tested {' to '.join(tested)}"))
    return [*facts, *phrases.notes(market.notes)]


def _length(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text
