"""What the commands of `config.py` do: build the objects of the public API from the flags, run them, print the result.

While they are built, what is wrong is the user's input; a ValueError while training or testing would be a bug of ours
and is left to show itself. No flag is defined here.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

from jaxtrader.agents.policy import Policy, load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.cli import inputs
from jaxtrader.cli.check import check
from jaxtrader.cli.config import (
    INTERRUPTED,
    OK,
    BacktestConfig,
    BadInput,
    CheckConfig,
    Config,
    DataConfig,
    Failed,
    Source,
    TrainConfig,
)
from jaxtrader.envs import rewards
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.positions import Positions
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import report
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import beside
from jaxtrader.evaluation.book import Book
from jaxtrader.files import FileError
from jaxtrader.market import features
from jaxtrader.market.bars import Bars
from jaxtrader.market.checks import DataError, spacing
from jaxtrader.market.market import Market
from jaxtrader.training.checkpoint import make_run_dir
from jaxtrader.training.trainer import Trainer, TrainingDiverged, TrainResult

PARTS = {"train": "train", "valid": "validation", "test": "test"}
FILLS = {
    "next_open": "at the next bar's open",
    "next_close": "at the next bar's close",
    "close": "at the close that was decided on (optimistic)",
}
TIMED_UPDATES = 2  # a chunk of the dry run's measurement


def run(config: Config) -> int:
    """Run the command that the configuration is of; its exit code.

    Raises:
        BadInput: what the user gave cannot be used. Nothing has been written.
        Failed: training or saving failed; what could be saved has been.
    """
    commands = {TrainConfig: train, BacktestConfig: backtest_policy, DataConfig: describe_file, CheckConfig: check}
    command: Any = commands[type(config)]
    try:
        return command(config, report.console())
    except TrainingDiverged as error:
        raise Failed(str(error)) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        way_out = "use fewer --num-envs, or a shorter --window or --rollout-length"
        raise Failed(f"the device has too little memory; {way_out}") from error
    except BrokenPipeError:
        raise
    except (FileError, OSError) as error:
        raise Failed(f"a result could not be written: {error}") from error


# --- train ---


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a training needs, built and checked: the market, its parts by name, and the trainer over them."""

    market: Market
    parts: Mapping[str, Market]
    trainer: Trainer


def train(config: TrainConfig, console: Console) -> int:
    """`jaxtrader train`."""
    plan = _plan(config)
    if not config.quiet:
        report.print_facts(console, _plan_facts(config, plan))
    if config.dry_run:
        return _dry_run(config, plan, console)
    with inputs.checked():
        plan.trainer.run_dir = make_run_dir(config.run_dir, inputs.stem(config.data))
    result = plan.trainer.train()
    if not config.quiet:
        console.print(_speed(result))
        console.print()
    policy = load_policy(result.policy_path)
    judged = {name: _judge(policy, part) for name, part in plan.parts.items()}
    if not config.quiet:
        console.print(report.table(judged))
        console.print()
    stopped = "Interrupted, and saved what was learnt so far. " if result.interrupted else ""
    written = f"{result.run_dir}: policy.pkl, last.pkl, checkpoint.pkl, config.json, metrics.jsonl"
    facts = [("result", stopped + report.sentence(judged)), ("files", written)]
    report.print_facts(console, [*facts, ("next", shlex.join(["jaxtrader", "backtest", str(result.run_dir)]))])
    return INTERRUPTED if result.interrupted else OK


def _plan(config: TrainConfig) -> Plan:
    """Build and check everything before anything is compiled or written."""
    with inputs.checked():
        if config.run_dir is not None:
            inputs.refuse_full(Path(config.run_dir))
        if not 0 <= config.seed < 2**32:
            raise BadInput(f"--seed {config.seed} is outside 0 to {2**32 - 1}")
        market = inputs.read_market(config.data, config, config.features)
        train_part, valid, test = market.split(*inputs.cuts(config))
        env = TradingEnv(
            train_part,
            positions=config.positions,
            window=config.window,
            episode_length=config.episode_length,
            costs=Costs.from_bps(config.fee_bps, config.slippage_bps),
            reward=rewards.risk_penalised(config.risk_aversion) if config.risk_aversion else rewards.log_return(),
            fill=config.fill,
            rebalance_band=config.rebalance_band,
        )
        # The dates, not the shares: a file that has grown since must not move the test.
        cuts = [str(inputs.first_time(part)) for part in (valid, test)]
        source = None if config.data is None else str(Path(config.data).resolve())
        steps = config.STEPS if config.total_steps is None and config.num_episodes is None else config.total_steps
        trainer = Trainer(
            env,
            PPOAgent(**_shared(PPOAgent, config)),
            valid=valid,
            **_shared(Trainer, config) | {"total_steps": steps, "run_dir": None},
            about={"command": {**dataclasses.asdict(config), "data": source, "cuts": cuts}},
            progress=not config.quiet,
        )
        # Before training, not after it: it must not be lost to a part that cannot be tested.
        parts = zip(PARTS.values(), (train_part, valid, test), strict=True)
        return Plan(market, {name: inputs.tradable(part, config.window, name) for name, part in parts}, trainer)


def _shared(cls: type, config: TrainConfig) -> dict[str, Any]:
    """The flags that have the name of a setting of the API."""
    names = {f.name for f in dataclasses.fields(config)}
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(cls) if f.name in names}


def _plan_facts(config: TrainConfig, plan: Plan) -> Iterator[tuple[str, str]]:
    """The first lines: data, dates, costs, fill, periods per year."""
    market, trainer = plan.market, plan.trainer
    yield "data", f"{market.source}: {_content(market)}, {market.periods_per_year:,.6g} periods a year"
    for name, part in plan.parts.items():
        absent = [symbol for symbol in market.symbols if symbol not in part.symbols]
        yield name, _content(part, symbols=False) + (f" (too few bars of {report.listed(absent)})" if absent else "")
    yield "costs", _rules(trainer.env)
    window = f"window {config.window} bar{'s' * (config.window > 1)}, look-back {market.lookback} bars"
    yield "features", f"{', '.join(market.feature_names)}; {window}"
    yield "positions", f"{_choice(config.positions)}; risk aversion {config.risk_aversion:g}"
    goal = f"{trainer.num_episodes:,} episodes" if trainer.total_steps is None else f"{trainer.total_steps:,} steps"
    pace = f"{trainer.steps_per_update:,} steps an update, validation every {config.eval_every} updates"
    yield "training", f"{goal} in {config.num_envs:,} environments, {pace}, seed {config.seed}"
    for note in report.grouped(market.notes):
        yield "note", note


def _choice(positions: Positions) -> str:
    """What a decision chooses from, in words."""
    words = {"continuous": "any exposure from -1 to 1", "weights": "any weight from 0 to 1, the rest is cash"}
    return words[positions] if isinstance(positions, str) else ", ".join(f"{p:g}" for p in positions)


def _dry_run(config: TrainConfig, plan: Plan, console: Console) -> int:
    """Print the resolved configuration, and an estimate from a few timed updates in a folder that is deleted."""
    trainer = plan.trainer
    market, ends = plan.market, {f"{part}_end": _ends(plan.parts[PARTS[part]])[1] for part in ("train", "valid")}
    chosen = {"symbols": market.symbols, "features": market.feature_names, "total_steps": trainer.total_steps}
    resolved = dataclasses.asdict(config) | chosen | ends
    shown = (f"{k}={','.join(map(str, x)) if isinstance(x, tuple | list) else x}" for k, x in resolved.items())
    report.print_facts(console, [("config", ", ".join(shown))])
    every = min(TIMED_UPDATES, config.eval_every)
    with tempfile.TemporaryDirectory() as folder:
        short = dataclasses.replace(
            trainer,
            num_episodes=None,
            total_steps=3 * every * trainer.steps_per_update,
            updates_per_chunk=every,
            eval_every=every,
            run_dir=folder,
            progress=False,
        )
        result = short.train()
    if result.interrupted:
        return INTERRUPTED
    seconds = [record["seconds"] for record in result.history]
    an_update = (seconds[-1] - seconds[0]) / (result.updates - every)
    steps = trainer.total_steps or (trainer.num_episodes or 0) * config.episode_length
    updates = math.ceil(steps / trainer.steps_per_update)
    total = _span(seconds[0] + max(updates - every, 0) * an_update)
    estimate = (
        f"Training would take about {total}: {seconds[0]:.0f} s to compile and do the first {every} updates, "
        f"{updates:,} in all at {1000 * an_update:,.0f} ms. This is an estimate: {result.updates} updates were timed "
        f"now, with a validation every {every}; other load changes it. Nothing was written."
    )
    report.print_facts(console, [("estimate", estimate)])
    return OK


# --- backtest ---


def backtest_policy(config: BacktestConfig, console: Console) -> int:
    """`jaxtrader backtest`."""
    with inputs.checked():
        path = Path(config.run)
        policy = load_policy(path / "policy.pkl" if path.is_dir() else path)
        name, market = _asked(config, policy)
        rates = dict(policy.about["env"]["costs"])
        for rate, given in (("fee", config.fee_bps), ("slippage", config.slippage_bps)):
            rates[rate] = rates[rate] if given is None else given * 1e-4
        changes: dict[str, Any] = {"costs": Costs(**rates)}
        for rule in ("fill", "rebalance_band"):
            changes |= {} if getattr(config, rule) is None else {rule: getattr(config, rule)}
        env = policy.environment(market, **changes)
        market = inputs.tradable(market, policy.window, name)
        if config.save is not None:
            inputs.refuse_full(Path(config.save))
    judged = {name: _judge(policy, market, **changes)}
    facts = [
        ("policy", str(path)),
        ("data", f"{market.source}: {_content(market)}, {market.periods_per_year:,.6g} periods a year"),
        ("costs", _rules(env)),
        *(("note", note) for note in [*report.grouped(market.notes), *_overlap(policy, market)]),
    ]
    report.print_facts(console, facts)
    console.print()
    console.print(report.table(judged))
    console.print()
    book = judged[name][report.POLICY]
    saved = [] if config.save is None else [("saved", _save(book, Path(config.save)))]
    result = ("result", report.sentence(judged))
    report.print_facts(console, [("trades", report.trades_line(book)), *saved, result])
    return OK


def _asked(config: BacktestConfig, policy: Policy) -> tuple[str, Market]:
    """The bars to test on, and what to call them."""
    command = policy.about.get("command")
    if config.data is not None:
        if config.part is not None:
            raise BadInput(f"--part {config.part} is of the data of training; with --data use --start and --end")
        market = inputs.read_market(config.data, config, policy.features)
        return Path(config.data).name, inputs.narrowed(market, config, config)
    if command is None:
        raise BadInput(f"{config.run} was not trained by this command and does not say its data; give --data FILE")
    reading = [flag for flag in _reading(config) if not flag.startswith("--symbols")]
    if reading:
        raise BadInput(f"{reading[0]} says how to read a file: give --data FILE with it")
    source = Source(**{f.name: command[f.name] for f in dataclasses.fields(Source)})
    if config.symbols is not None:
        source = dataclasses.replace(source, symbols=config.symbols)
    market = inputs.read_market(command["data"], source, policy.features)
    part = config.part or "test"
    if part != "all":
        market = market.split(*(np.datetime64(cut) for cut in command["cuts"]))[list(PARTS).index(part)]
    return PARTS.get(part, "all bars"), inputs.narrowed(market, config, source)


def _overlap(policy: Policy, market: Market) -> Iterator[str]:
    """A warning where the bars are not new to the policy."""
    command = policy.about.get("command")
    if command is None:
        yield "This policy does not say on which dates it was trained: only later ones are a test."
    elif inputs.first_time(market) < np.datetime64(command["cuts"][1]):
        until = np.datetime64(command["cuts"][1], "D")
        yield f"Training and selection used dates before {until}: what lies before it is no test."


def _save(book: Book, folder: Path) -> str:
    """Write the equity and the trades as CSV; what was written, in words."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    book.to_frame().to_csv(folder / "equity.csv")
    pd.DataFrame(book.trades).to_csv(folder / "trades.csv", index=False)
    return f"{folder / 'equity.csv'} ({len(book):,} bars), {folder / 'trades.csv'} ({len(book.trades):,} trades)"


# --- data ---


def describe_file(config: DataConfig, console: Console) -> int:
    """`jaxtrader data`."""
    with inputs.checked():
        histories = inputs.read_bars(config.file, config)
    for bars in histories:
        further = ", ".join(bars.columns) or "none"
        columns = f"open, high, low, close, volume; further numbers: {further}"
        notes = [("  note", note) for note in bars.notes]
        report.print_facts(console, [(bars.symbols[0], _history(bars)), ("  columns", columns), *notes])
    longest = max(features.DEFAULT, key=lambda feature: feature.lookback)
    names = ", ".join(feature.name for feature in features.DEFAULT)
    warm_up = f"the default ones are {names}; they warm up over {longest.lookback - 1} bars ({longest.name})"
    try:
        Market.from_bars(histories)
    except DataError as error:
        last = ("problem", f"the default features cannot be had: {error}")
    else:
        last = ("next", " ".join(["jaxtrader train --data", shlex.quote(config.file), *_reading(config)]))
    report.print_facts(console, [("features", warm_up), last])
    return OK


def _reading(config: Source) -> Iterator[str]:
    """The flags with which a file was read."""
    for field in dataclasses.fields(Source):
        value = getattr(config, field.name)
        if value != field.default:
            flag = f"--{field.name.replace('_', '-')}"
            yield flag if value is True else f"{flag} {','.join(value) if isinstance(value, tuple) else value}"


def _history(bars: Bars) -> str:
    """One line on one history."""
    first, last = (str(moment)[:16].replace("T", " ") for moment in (bars.times[0], bars.times[-1]))
    text = f"{len(bars):,} bars, {first} to {last} UTC"
    if len(bars) < 2:
        return text
    # The shortest look-back there is: a history may be too short for the default features.
    periods = Market.from_bars(bars, features=("log_return_1",)).periods_per_year
    return f"{text}, every {_span(spacing(bars.times) / np.timedelta64(1, 's'))}, {periods:,.6g} periods a year"


# --- of all commands ---


def _judge(policy: Policy, market: Market, **changes: Any) -> dict[str, Book]:
    """The policy's book, and what is held against it."""
    book = backtest(policy, market, **changes)
    return {report.POLICY: book, **beside(market, book)}


def _content(market: Market, symbols: bool = True) -> str:
    bars = int(np.sum(market.segments[:, 2] - market.segments[:, 1]))
    first, last = _ends(market)
    return (f"{report.listed(market.symbols)}, " if symbols else "") + f"{first} to {last}, {bars:,} bars"


def _ends(market: Market) -> tuple[str, str]:
    """The first day and the last that may be traded."""
    ends = inputs.first_time(market), market.times[market.segments[:, 2] - 1].max()
    return str(ends[0].astype("datetime64[D]")), str(ends[1].astype("datetime64[D]"))


def _rules(env: TradingEnv) -> str:
    fee, slippage = (1e4 * float(np.asarray(rate or 0.0)) for rate in (env.costs.fee, env.costs.slippage))
    band = f"no trade below {env.rebalance_band:.3g} of equity"
    return f"fee {fee:g} bp, slippage {slippage:g} bp; fills {FILLS[env.fill]}; {band}"


def _speed(result: TrainResult) -> Text:
    pace = f"{result.steps / result.seconds:,.0f} steps/s with compilation and validation"
    return Text(f"Trained {result.steps:,} steps in {_span(result.seconds)}: {pace}.")


def _span(seconds: float) -> str:
    """A time in its largest unit: 60 is 1 minute, 5400 is 1.5 hours."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or size == 1:
            count = f"{seconds / size:.2g}" if seconds < 10 * size else f"{seconds / size:.0f}"
            return f"{count} {name}{'' if count == '1' else 's'}"
    raise AssertionError("unreachable")
