"""`jaxtrader train` on bars: the plan, the training, and a table of all parts beside buy-and-hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import inputs, own_code, phrases, reporting
from jaxtrader.cli.command_settings import MarketSettings, RewardSettings, Source, TrainData
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.runs import dry_run, next_step, train_in_folder
from jaxtrader.cli.settings import PARTS, BadInput, build, of
from jaxtrader.cli.synthetic_command import train_synthetic
from jaxtrader.evaluation import tables
from jaxtrader.setting_checks import setting


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a training needs, built and checked.

    Attributes:
        market: All bars.
        parts: The bars of training, validation and test, by name.
        trainer: The trainer over them.
        values: The settings with which the run can be repeated.
    """

    market: jt.Market
    parts: Mapping[str, jt.Market]
    trainer: jt.Trainer
    values: Values


def train(values: Values, console: Console) -> int:
    """`jaxtrader train`."""
    if values["synthetic"] is not None:
        return train_synthetic(values, console)
    plan = make_plan(values)
    if not values["quiet"]:
        tables.print_facts(console, plan_facts(plan))
    if values["dry_run"]:
        chosen = {"symbols": plan.market.symbols, "features": plan.market.feature_names}
        return dry_run({**plan.values, **chosen}, plan.trainer, console)
    name = name_of(values["data"])
    return train_in_folder(
        plan.trainer, plan.values, name, console, lambda result: _tell(plan, result, values, console)
    )


def _tell(plan: Plan, result: jt.TrainResult, values: Values, console: Console) -> None:
    """Test what was trained, print and write it."""
    evidence = reporting.evaluate(result.run_dir, plan.parts, values)
    if not values["quiet"]:
        reporting.print_results(evidence, console)
    title = result.run_dir.name
    written = reporting.write_all(result.run_dir, evidence, title, plan.values, report=values["report"])
    facts = [] if not result.interrupted else [("interrupted", phrases.interrupted(result))]
    facts += reporting.facts(evidence)
    if result.proof is not None and result.proof.is_better:  # where it holds, the evidence says so
        facts.append(("policy", str(result.proof)))
    following = next_step(result, own_code.backtest_command(result.run_dir, plan.values))
    tables.print_facts(console, [*facts, ("files", phrases.files(result, written)), ("next", following)])


def name_of(data: str | None) -> str:
    """Return the name of the runs on a file."""
    return "stocks" if data is None else Path(data).name.split(".")[0] or "data"


def make_plan(
    values: Values,
    read_bars: Callable[..., tuple[jt.Bars, ...]] = inputs.read_bars,
    market_of: Callable[..., jt.Market] = inputs.market_of,
) -> Plan:
    """Build and check everything before anything is compiled or written.

    Args:
        values: All settings of `jaxtrader train`.
        read_bars, market_of: The functions of `inputs`, or cached versions of them for several plans.
    """
    with inputs.checked():
        inputs.check_settings(values)
        data, source = build(TrainData, values), build(Source, values)
        histories = read_bars(data.data, source)
        source = inputs.clock_of(source, *histories)
        split_at = inputs.cuts(data, source)
        inputs.check_bars_to_train(histories, data.features, values, split_at)
        market = market_of(histories, source, data.features, data.portfolio, **of(MarketSettings, values))
        del histories  # the market has copies
        parts = inputs.parts(market, data, split_at)
        env, kept = inputs.environment_over(parts, values)
        train_part, valid, test = parts
        # The dates, not the shares: a file that has grown since must not move the test.
        ends = {
            **inputs.absolute(values, "data", "init_from", "network"),
            "train_end": data.train_end or inputs.last_moment(train_part, source),
            "valid_end": data.valid_end or inputs.last_moment(valid, source),
        }
        cuts = [str(inputs.first_time(part)) for part in (valid, test)]
        trainer = inputs.trainer(values, env, kept[PARTS["valid"]], about={**ends, "cuts": cuts})
        _check_unseen(trainer, test, values)
        return Plan(market, kept, trainer, {**values, **ends})


def _check_unseen(trainer: jt.Trainer, test: jt.Market, values: Values) -> None:
    """Raise BadInput where training starts from a policy that was trained or selected on bars of the test."""
    command = None if trainer.earlier is None else inputs.asked_of(trainer.earlier, values["init_from"])
    if command is None or command["synthetic"] is not None:
        return
    begins, seen_until = inputs.first_time(test), np.datetime64(command["cuts"][1])
    if begins < seen_until:
        until, begin = (moment.astype("datetime64[D]") for moment in (seen_until, begins))
        raise BadInput(
            f"{setting('init_from', values['init_from'])} was trained and selected on bars before {until}, and the "
            f"test begins at {begin}, so it would have seen the test; give a `valid_end` that is not before"
        )


def plan_facts(plan: Plan) -> Iterator[tuple[str, str]]:
    """The first lines: data, dates, costs, fill, periods per year."""
    market, trainer = plan.market, plan.trainer
    env, agent = inputs.trained(trainer)
    yield "data", phrases.data(market)
    for name, part in plan.parts.items():
        absent = [symbol for symbol in market.symbols if symbol not in part.symbols]
        too_few = f" (too few bars of {tables.listed(absent)})" if absent else ""
        yield name, phrases.content(part, symbols=False) + too_few
    yield "costs", phrases.rules(env)
    window = env.window
    seen = f"window {window} bar{'s' * (window > 1)}, look-back {market.lookback} bars"
    yield "features", f"{', '.join(market.feature_names)}; {seen}"
    yield "positions", phrases.choice(env)
    yield "reward", phrases.reward(build(RewardSettings, plan.values))
    yield "network", phrases.network(agent, window)
    yield "training", phrases.goal(trainer)
    yield from phrases.notes(market.notes)
