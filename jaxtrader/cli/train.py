"""`jaxtrader train` on bars: plan, train, and the table of training, validation and test beside buy-and-hold."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from jaxtrader.agents.policy import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.cli import inputs, phrases
from jaxtrader.cli.backtest import judge
from jaxtrader.cli.config import INTERRUPTED, OK, PARTS, TrainConfig
from jaxtrader.cli.synthetic import train_synthetic
from jaxtrader.evaluation import report
from jaxtrader.market.market import Market
from jaxtrader.training.checkpoint import make_run_dir
from jaxtrader.training.trainer import Trainer

TIMED_UPDATES = 2  # a chunk of the dry run's measurement


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a training needs, built and checked: the market, its parts by name, and the trainer over them."""

    market: Market
    parts: Mapping[str, Market]
    trainer: Trainer


def train(config: TrainConfig, console: Console) -> int:
    """`jaxtrader train`."""
    config = config.resolved()
    if config.synthetic is not None:
        return train_synthetic(config, console)
    plan = _plan(config)
    if not config.quiet:
        report.print_facts(console, _plan_facts(config, plan))
    if config.dry_run:
        ends = {f"{part}_end": phrases.ends(plan.parts[PARTS[part]])[1] for part in ("train", "valid")}
        chosen = {"symbols": plan.market.symbols, "features": plan.market.feature_names, **ends}
        return phrases.dry_run(config, plan.trainer, chosen, console)
    with inputs.checked():
        plan.trainer.run_dir = make_run_dir(config.run_dir, inputs.stem(config.data))
    result = plan.trainer.train()
    if not config.quiet:
        console.print(phrases.speed(result))
        console.print()
    policy = load_policy(result.policy_path)
    judged = {name: judge(policy, part) for name, part in plan.parts.items()}
    if not config.quiet:
        console.print(report.table(judged))
        console.print()
    stopped = "Interrupted, and saved what was learnt so far. " if result.interrupted else ""
    facts = [("result", stopped + report.sentence(judged)), ("files", phrases.files(result))]
    report.print_facts(console, [*facts, ("next", shlex.join(["jaxtrader", "backtest", str(result.run_dir)]))])
    return INTERRUPTED if result.interrupted else OK


def _plan(config: TrainConfig) -> Plan:
    """Build and check everything before anything is compiled or written."""
    with inputs.checked():
        inputs.check_run(config)
        market = inputs.read_market(config.data, config, config.features, config.portfolio)
        train_part, valid, test = market.split(*inputs.cuts(config))
        env = inputs.environment(config, train_part)
        # The dates, not the shares: a file that has grown since must not move the test.
        cuts = [str(inputs.first_time(part)) for part in (valid, test)]
        source = None if config.data is None else str(Path(config.data).resolve())
        trainer = Trainer(
            env,
            PPOAgent(**inputs.shared(PPOAgent, config)),
            valid=valid,
            **inputs.shared(Trainer, config) | {"run_dir": None},
            about={"command": {**dataclasses.asdict(config), "data": source, "cuts": cuts}},
            progress=not config.quiet,
        )
        # Before training, not after it: it must not be lost to a part that cannot be tested.
        parts = zip(PARTS.values(), (train_part, valid, test), strict=True)
        kept = {name: inputs.tradable(env.with_market(part), name) for name, part in parts}
        return Plan(market, kept, trainer)


def _plan_facts(config: TrainConfig, plan: Plan) -> Iterator[tuple[str, str]]:
    """The first lines: data, dates, costs, fill, periods per year."""
    market, trainer = plan.market, plan.trainer
    yield "data", f"{market.source}: {phrases.content(market)}, {market.periods_per_year:,.6g} periods a year"
    for name, part in plan.parts.items():
        absent = [symbol for symbol in market.symbols if symbol not in part.symbols]
        yield (
            name,
            phrases.content(part, symbols=False) + (f" (too few bars of {report.listed(absent)})" if absent else ""),
        )
    yield "costs", phrases.rules(trainer.env)
    window = f"window {config.window} bar{'s' * (config.window > 1)}, look-back {market.lookback} bars"
    yield "features", f"{', '.join(market.feature_names)}; {window}"
    yield "positions", phrases.choice(trainer.env)
    yield "reward", phrases.reward(config)
    yield "network", phrases.network(trainer.agent, config.window)
    yield "training", phrases.goal(config, trainer)
    for note in report.grouped(market.notes):
        yield "note", note
