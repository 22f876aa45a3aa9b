"""How the commands put things: markets, rules, actions and times in words."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from jaxtrader.agents import encoders
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.cli import inputs
from jaxtrader.cli.config import INTERRUPTED, OK, Source, TrainConfig
from jaxtrader.envs.costs import LIMITS, CostRange
from jaxtrader.envs.rules import RULE_NAMES, Rules
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import report
from jaxtrader.market.market import Market
from jaxtrader.training.trainer import Trainer, TrainResult

TIMED_UPDATES = 2  # a chunk of the dry run's measurement
FILLS = {
    "next_open": "at the next bar's open",
    "next_close": "at the next bar's close",
    "close": "at the close that was decided on (optimistic)",
}


def content(market: Market, symbols: bool = True) -> str:
    """Symbols, dates and bars of a market."""
    bars = int(np.sum(market.segments[:, 2] - market.segments[:, 1]))
    first, last = ends(market)
    return (f"{report.listed(market.symbols)}, " if symbols else "") + f"{first} to {last}, {bars:,} bars"


def ends(market: Market) -> tuple[str, str]:
    """The first day and the last that may be traded."""
    ends = inputs.first_time(market), market.times[market.segments[:, 2] - 1].max()
    return str(ends[0].astype("datetime64[D]")), str(ends[1].astype("datetime64[D]"))


def rules(env: TradingEnv) -> str:
    """Costs, fills and band."""
    costs = env.costs.middle if isinstance(env.costs, CostRange) else env.costs
    fee, slippage = (
        "/".join(f"{1e4 * x:.6g}" for x in np.ravel(0.0 if rate is None else rate))
        for rate in (costs.fee, costs.slippage)
    )
    band = f"no trade below {env.rebalance_band:.3g} of equity" if env.rebalance_band else "rebalanced at every bar"
    more = [
        f"{name.replace('_', ' ')} {'/'.join(f'{x:.6g}' for x in np.ravel(given))}"
        for name, given in [(name, getattr(costs, name)) for name in LIMITS if name not in ("fee", "slippage")]
        if given is not None
    ]
    plain = Rules(env.fill, env.rebalance_band, env.rebalance, env.ruin_level)
    for name in RULE_NAMES:
        if getattr(env, name) != getattr(plain, name):
            more.append(name.replace("_", " ") + ("" if getattr(env, name) is True else f" {getattr(env, name):g}"))
    if env.rules.margin and env.maintenance_margin is None:
        more.append(f"maintenance margin {env.rules.margin:.4g}")
    if env.max_leverage > 1 and costs.borrow_rate is None:
        more.append("no interest on debt")
    short = env.positions == "continuous" or (isinstance(env.positions, tuple) and min(env.positions) < 0)
    if short and costs.short_rate is None:
        more.append("no fee on shorts")
    for name in ("stop_loss", "take_profit"):
        if getattr(env, name) is not None:
            more.append(f"{name.replace('_', '-')} {getattr(env, name)}")
    return "; ".join([f"fee {fee} bp, slippage {slippage} bp", f"fills {FILLS[env.fill]}", band, *more])


def goal(config: TrainConfig, trainer: Trainer) -> str:
    """How long training will be, and in what portions."""
    length = f"{trainer.num_episodes:,} episodes" if trainer.total_steps is None else f"{trainer.total_steps:,} steps"
    pace = f"{trainer.steps_per_update:,} steps an update, validation every {config.eval_every} updates"
    place = f" on {trainer.devices} devices" if trainer.devices > 1 else ""
    return f"{length} in {config.num_envs:,} environments{place}, {pace}, seed {config.seed}"


def network(agent: PPOAgent, window: int) -> str:
    """What reads the window, and the layers after it."""
    layers = f"MLP {' x '.join(map(str, agent.hidden))}, {agent.activation}"
    torsos = "one for actor and critic" if agent.shared else "one each for actor and critic"
    reader = f"the window of {window} bar{'s' * (window > 1)} as it is"
    if agent.encoder != "mlp":
        depth = len(encoders.layers(agent.encoder, window, agent.encoder_depth))
        reader = f"{agent.encoder} over {window} bars, {agent.encoder_width} wide, {depth} layer{'s' * (depth > 1)}"
    dtype = "" if agent.compute_dtype == "float32" else f"; computed in {agent.compute_dtype}"
    return f"{reader}, then {layers}, {torsos}{dtype}"


def files(result: TrainResult) -> str:
    """What a training has written."""
    return f"{result.run_dir}: policy.pkl, last.pkl, checkpoint.pkl, config.json, metrics.jsonl"


def speed(result: TrainResult) -> Text:
    """How long training took."""
    pace = f"{result.steps / result.seconds:,.0f} steps/s with compilation and validation"
    return Text(f"Trained {result.steps:,} steps in {span(result.seconds)}: {pace}.")


def span(seconds: float) -> str:
    """A time in its largest unit: 60 is 1 minute, 5400 is 1.5 hours."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size or size == 1:
            count = f"{seconds / size:.2g}" if seconds < 10 * size else f"{seconds / size:.0f}"
            return f"{count} {name}{'' if count == '1' else 's'}"
    raise AssertionError("unreachable")


def choice(env: TradingEnv) -> str:
    """What a decision chooses from, in words."""
    most, positions = f"{env.max_leverage:g}", env.positions
    words = {
        "continuous": f"any exposure from -{most} to {most}",
        "weights": f"any weight from 0 to {min(env.max_leverage, 1):g}, the rest is cash",
    }
    chosen = words[positions] if isinstance(positions, str) else ", ".join(f"{p:g}" for p in positions)
    chosen += f", of each of {env.num_actions} assets" if isinstance(positions, str) and env.num_actions > 1 else ""
    return chosen + (f", every {env.decision_every} bars" if env.decision_every > 1 else "")


def reward(config: TrainConfig) -> str:
    """What a bar pays, in words; the flags are resolved."""
    words = {
        "log": "log return",
        "over-benchmark": "log return less that of equal shares of all assets",
        "drawdown": "log return less the increase of drawdown",
        "sharpe": "differential Sharpe ratio",
        "downside": "differential downside deviation ratio",
    }
    return words[config.reward] + (f", risk aversion {config.risk_aversion:g}" if config.risk_aversion else "")


def reading(config: Source) -> Iterator[str]:
    """The flags with which a file was read."""
    for field in dataclasses.fields(Source):
        value = getattr(config, field.name)
        if value != field.default:
            flag = f"--{field.name.replace('_', '-')}"
            yield flag if value is True else f"{flag} {','.join(value) if isinstance(value, tuple) else value}"


def dry_run(config: TrainConfig, trainer: Trainer, chosen: dict[str, Any], console: Console) -> int:
    """Print the configuration with what was `chosen` for it, and an estimate from a few timed updates.

    These are made in a folder that is deleted.
    """
    resolved = dataclasses.asdict(config) | {"total_steps": trainer.total_steps} | chosen
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
    total = span(seconds[0] + max(updates - every, 0) * an_update)
    estimate = (
        f"Training would take about {total}: {seconds[0]:.0f} s to compile and do the first {every} updates, "
        f"{updates:,} in all at {1000 * an_update:,.0f} ms. This is an estimate: {result.updates} updates were timed "
        f"now, with a validation every {every}; other load changes it. Nothing was written."
    )
    report.print_facts(console, [("estimate", estimate)])
    return OK
