"""`jaxtrader train` on bars: the plan, the training, and a table of all parts beside buy-and-hold."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.backtest_command import judge
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.runs import dry_run, train_in_folder
from jaxtrader.cli.settings import INTERRUPTED, OK, PARTS, RewardSettings, Source, TrainData, of
from jaxtrader.cli.synthetic_command import train_synthetic
from jaxtrader.evaluation import tables


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
    plan = _plan(values)
    if not values["quiet"]:
        tables.print_facts(console, _plan_facts(plan))
    if values["dry_run"]:
        chosen = {"symbols": plan.market.symbols, "features": plan.market.feature_names}
        return dry_run({**plan.values, **chosen}, plan.trainer, console)
    name = "stocks" if values["data"] is None else Path(values["data"]).name.split(".")[0] or "data"
    result = train_in_folder(plan.trainer, plan.values, name, console)
    policy = jt.load_policy(result.policy_path)
    judged = {name: judge(policy, part) for name, part in plan.parts.items()}
    if not values["quiet"]:
        console.print(tables.table(judged))
        console.print()
    facts = [("result", phrases.interrupted(result) + tables.sentence(judged)), ("files", phrases.files(result))]
    tables.print_facts(console, [*facts, ("next", shlex.join(["jaxtrader", "backtest", str(result.run_dir)]))])
    return INTERRUPTED if result.interrupted else OK


def _plan(values: Values) -> Plan:
    """Build and check everything before anything is compiled or written."""
    with inputs.checked():
        data, source = TrainData(**of(TrainData, values)), Source(**of(Source, values))
        market = inputs.read_market(data.data, source, data.features, data.portfolio)
        train_part, valid, test = market.split(*inputs.cuts(data, source))
        env = inputs.environment(values, train_part)
        # The dates, not the shares: a file that has grown since must not move the test.
        ends = {
            "data": None if data.data is None else str(Path(data.data).resolve()),
            "train_end": data.train_end or inputs.last_moment(train_part, source),
            "valid_end": data.valid_end or inputs.last_moment(valid, source),
        }
        cuts = [str(inputs.first_time(part)) for part in (valid, test)]
        trainer = inputs.trainer(values, env, valid, about={**ends, "cuts": cuts})
        # Before training, not after it: a training must not be lost to a part that cannot be tested.
        parts = zip(PARTS.values(), (train_part, valid, test), strict=True)
        kept = {name: inputs.tradable(env.with_market(part), name) for name, part in parts}
        return Plan(market, kept, trainer, {**values, **ends})


def _plan_facts(plan: Plan) -> Iterator[tuple[str, str]]:
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
    yield "reward", phrases.reward(RewardSettings(**of(RewardSettings, plan.values)))
    yield "network", phrases.network(agent, window)
    yield "training", phrases.goal(trainer)
    for note in tables.grouped(market.notes):
        yield "note", note
