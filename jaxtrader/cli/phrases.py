"""Markets, rules, positions, rewards and times in the words of the commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.text import Text

import jaxtrader as jt
from jaxtrader.agents import encoders
from jaxtrader.cli import inputs
from jaxtrader.cli.command_settings import MarketSettings, RewardSettings, Source
from jaxtrader.cli.settings import BPS, RISK_AVERSION, flag, spelt
from jaxtrader.cli.wording import translated
from jaxtrader.envs.actions import may_be_short
from jaxtrader.evaluation import tables
from jaxtrader.ledger.costs import LIMITS
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.run_files import CONFIG_JSON, CONFIG_TOML, LAST, METRICS, NEWEST, POLICY, RESULT, TRAINED

FILLS = {
    "next_open": "at the next bar's open",
    "next_close": "at the next bar's close",
    "limit": "at a limit that rests for the next bar",
    "close": "at the close that was decided on (optimistic)",
}


def data(market: jt.Market) -> str:
    """Where the bars are from, what they are, and how many there are in a year."""
    return f"{market.source}: {content(market)}, {market.describe_periods()}"


def notes(found: Sequence[str]) -> list[tuple[str, str]]:
    """Notes of the API as lines of the terminal."""
    return [("note", translated(note)) for note in tables.grouped(found)]


def content(market: jt.Market, symbols: bool = True) -> str:
    """Symbols, dates and bars of a market."""
    bars = int(np.sum(market.segments[:, 2] - market.segments[:, 1]))
    first, last = inputs.days(market)
    names = [name for joined in market.symbols for name in joined.split(",")]  # a portfolio joins its symbols
    return (f"{tables.listed(names)}, " if symbols else "") + f"{first} to {last}, {bars:,} bars"


def rules(env: jt.TradingEnv) -> str:
    """Costs, fills and band."""
    costs = env.costs.middle
    fee, slippage = (_rate(0.0 if rate is None else rate, 1e4, " bp") for rate in (costs.fee, costs.slippage))
    if costs.maker_fee is not None:
        fee += f" ({_rate(costs.maker_fee, 1e4, ' bp')} at a limit)"
    rules, band = env.rules, "rebalanced at every bar"
    if rules.rebalance_band:
        band = f"no trade below {rules.rebalance_band:.3g} of equity"
    more = []
    for name in LIMITS:
        if name not in BPS and getattr(costs, name) is not None:
            more.append(f"{name.replace('_', ' ')} {_rate(getattr(costs, name))}")
    for field in dataclasses.fields(jt.Rules):
        value = getattr(rules, field.name)
        if field.name not in ("fill", "rebalance_band") and value != field.default:
            more.append(field.name.replace("_", " ") + ("" if value is True else f" {spelt(value)}"))
    if rules.margin and rules.maintenance_margin is None:
        more.append(f"maintenance margin {rules.margin:.4g}")
    if rules.max_leverage > 1 and costs.borrow_rate is None:
        more.append("no interest on debt")
    if may_be_short(env.positions) and costs.short_rate is None:
        more.append("no fee on shorts")
    for name in costs.rebates:
        more.append(f"WARNING: {name.replace('_', ' ')} may be below 0, so that the account is paid for it")
    for name in BRACKETS:
        if getattr(env, name) is not None:
            more.append(f"{name.replace('_', '-')} {getattr(env, name)}")
    return "; ".join([f"fee {fee}, slippage {slippage}", f"fills {FILLS[rules.fill]}", band, *more])


def _rate(rate: Any, factor: float = 1.0, unit: str = "") -> str:
    """A rate in words: a number, one an asset, or the column that holds it."""
    if isinstance(rate, str):
        return f"of the column {str(rate)!r}"
    return "/".join(f"{factor * x:.6g}" for x in np.ravel(rate)) + unit


def goal(trainer: jt.Trainer) -> str:
    """How long training will be, and in what portions."""
    length = f"{trainer.num_episodes:,} episodes" if trainer.total_steps is None else f"{trainer.total_steps:,} steps"
    pace = f"{trainer.steps_per_update:,} steps an update, validation every {trainer.eval_every} updates"
    place = f" on {trainer.devices} devices" if trainer.devices > 1 else ""
    return f"{length} in {trainer.num_envs:,} environments{place}, {pace}, seed {trainer.seed}"


def network(agent: jt.PPOAgent, window: int) -> str:
    """Describe the encoder, and the layers after it."""
    layers = f"MLP {' x '.join(map(str, agent.hidden))}, tanh"
    reader = f"the window of {window} bar{'s' * (window > 1)} as it is"
    if not isinstance(agent.encoder, str):
        reader = f"{type(agent.encoder).__name__} over {window} bars"
    elif agent.encoder != "mlp":
        depth = encoders.KINDS[agent.encoder](window, agent.encoder_width, agent.encoder_depth).layers
        sizes = f"{agent.encoder_width} wide, {depth} layer{'s' * (depth > 1)}"
        reader = f"{agent.encoder} over {window} bars, {sizes}"
    dtype = "" if agent.compute_dtype == "float32" else f"; computed in {agent.compute_dtype}"
    return f"{reader}, then {layers}, one each for actor and critic{dtype}"


def files(result: jt.TrainResult, more: Sequence[str] = ()) -> str:
    """Name the files that a training has written, and `more` files in its folder."""
    trained = [TRAINED] if result.proof is not None and not result.proof.is_better else []
    more = [*trained, *more]
    own = f"{LAST}, {NEWEST}, the previous and the best checkpoint, {CONFIG_JSON}, {METRICS}"
    if result.members:
        seeds = [member.run_dir.name for member in result.members]
        done = [member.run_dir.name for member in result.members if not member.interrupted] or seeds
        first = f"{result.run_dir}: {POLICY} (the mean of {', '.join(done)})"
        return ", ".join([first, CONFIG_TOML, RESULT, *more, *(f"{seed}/" for seed in seeds)])
    return ", ".join([f"{result.run_dir}: {POLICY}, {own}, {CONFIG_TOML}, {RESULT}", *more])


def interrupted(result: jt.TrainResult) -> str:
    """Return a sentence where Ctrl-C ended the training, else nothing."""
    return "The training was interrupted, and what was learnt so far is saved." if result.interrupted else ""


def speed(result: jt.TrainResult) -> Text:
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


def choice(env: jt.TradingEnv) -> str:
    """Describe the positions that a decision chooses from."""
    most, positions = f"{env.rules.max_leverage:g}", env.positions
    words = {
        "continuous": f"any exposure from -{most} to {most}",
        "weights": f"any weight from 0 to {env.rules.exposure_without_credit:g}, the rest is cash",
    }
    chosen = words[positions] if isinstance(positions, str) else ", ".join(f"{p:g}" for p in positions)
    chosen += f", of each of {env.num_actions} assets" if isinstance(positions, str) and env.num_actions > 1 else ""
    return chosen + (f", every {env.decision_every} bars" if env.decision_every > 1 else "")


def reward(wanted: RewardSettings) -> str:
    """Describe the reward of a bar."""
    words = {
        "log_return": "log return",
        "risk_penalized": "log return",
        "over_benchmark": "log return less that of equal shares of all assets",
        "drawdown_penalized": "log return less the increase of drawdown",
        "differential_sharpe": "differential Sharpe ratio",
        "differential_downside": "differential downside deviation ratio",
    }
    return words[wanted.reward] + (
        f", risk aversion {wanted.risk_aversion:g}" if wanted.reward in RISK_AVERSION else ""
    )


def changed(source: Source | MarketSettings) -> Iterator[tuple[str, Any]]:
    """The settings with which a file was read, and their values, where they are not the default ones."""
    for field in dataclasses.fields(source):
        value = getattr(source, field.name)
        if value != field.default:
            yield field.name, value


def reading(source: Source | MarketSettings) -> Iterator[str]:
    """The flags with which a file was read."""
    for name, value in changed(source):
        yield f"--no-{flag(name)[2:]}" if value is False else f"{flag(name)} {spelt(value)}"
