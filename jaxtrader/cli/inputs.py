"""From settings to the objects of the API: what the user gave that cannot be used becomes `BadInput` here.

Nothing is trained, printed or written.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

import jaxtrader as jt
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli.settings import (
    BUNDLED,
    BUNDLED_ENDS,
    SHARES,
    BadInput,
    RewardSettings,
    Source,
    TrainData,
    of,
)
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.market.datasets import STOCKS
from jaxtrader.training.train_settings import TrainSettings

Values = Mapping[str, Any]


@contextlib.contextmanager
def checked() -> Generator[None]:
    """Turn a ValueError or OSError of the block into BadInput."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


# --- bars and their parts ---


def read_bars(data: str | None, source: Source) -> tuple[jt.Bars, ...]:
    """The histories of a file, or of the bundled stocks."""
    reading = vars(source) | {"symbols": source.symbols or (BUNDLED if data is None else None)}
    loaded = jt.load_bars(STOCKS if data is None else data, **reading)
    return (loaded,) if isinstance(loaded, jt.Bars) else loaded


def read_market(data: str | None, source: Source, names: tuple[str, ...] | None, portfolio: bool = False) -> jt.Market:
    """The histories with the named features (None: the default ones). A portfolio is one history of all symbols."""
    histories = read_bars(data, source)
    if portfolio and len(histories) < 2:
        raise BadInput("a portfolio needs two symbols at least, and the file has one; leave out --portfolio")
    return jt.Market.from_bars(histories, features=names, align=portfolio)


def cuts(data: TrainData, source: Source) -> tuple[Any, ...]:
    """What `Market.split` cuts at: the ends of training and validation, or shares of the calendar."""
    train_end, valid_end = data.train_end, data.valid_end
    if data.data is None:
        train_end, valid_end = train_end or BUNDLED_ENDS[0], valid_end or BUNDLED_ENDS[1]
    elif train_end is None and valid_end is None:
        return SHARES
    if train_end is None or valid_end is None:
        missing = "--train-end" if train_end is None else "--valid-end"
        shares = "/".join(f"{100 * share:g}" for share in SHARES)
        raise BadInput(f"{missing} is missing: give both ends, or neither and the calendar is cut {shares}")
    ends = (
        moment_of("--train-end", train_end, source, after=True),
        moment_of("--valid-end", valid_end, source, after=True),
    )
    if ends[0] >= ends[1]:
        raise BadInput(f"--valid-end {valid_end} is not after --train-end {train_end}; validation lies between the two")
    return ends


def narrowed(market: jt.Market, start: str | None, end: str | None, source: Source) -> jt.Market:
    """The market from a first day to a last one, both included."""
    if start is not None:
        cut = moment_of("--start", start, source, after=False)
        if np.datetime64(cut.astimezone(UTC).replace(tzinfo=None)) > first_time(market):
            market = market.split(cut)[1]
    if end is not None:
        cut = moment_of("--end", end, source, after=True)
        if np.datetime64(cut.astimezone(UTC).replace(tzinfo=None)) <= last_time(market):
            market = market.split(cut)[0]
    return market


def moment_of(flag: str, text: str, source: Source, *, after: bool) -> datetime:
    """When a day begins by the file's clock, or ends (`after`). Of a moment it is that moment, or just after it.

    A bar is stamped by its close, so a bar at midnight is of the day that begins. A file that labels bars by their
    open had its stamps moved to the close, so there a bar at midnight is of the day that ends.
    """
    is_day = not {"T", " "} & set(text)
    try:
        moment = datetime.fromisoformat(text) + timedelta(days=is_day and after)
    except (ValueError, OverflowError):
        raise BadInput(f"{flag} {text} is not a date; write it as 2007-12-31") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(source.tz) if source.tz else UTC)
    return moment + timedelta(microseconds=source.label == "open" if is_day else after)


def last_moment(market: jt.Market, source: Source) -> str:
    """The last bar's time as `moment_of` reads it: a day where a day means the same, else a moment."""
    last = last_time(market)
    if last == last.astype("datetime64[D]") and source.tz is None and source.label == "close":
        return str(last.astype("datetime64[D]"))
    return f"{last.astype('datetime64[us]')}+00:00"


def first_time(market: jt.Market) -> np.datetime64:
    """The earliest bar that may be traded."""
    return market.times[market.segments[:, 1]].min()


def last_time(market: jt.Market) -> np.datetime64:
    """The latest bar."""
    return market.times[market.segments[:, 2] - 1].max()


def tradable(env: jt.TradingEnv, name: str) -> jt.Market:
    """The environment's market without the symbols that have no room for a decision.

    Raises BadInput where none is left.
    """
    market, short = env.market, env.symbols_without_room(1)
    kept = [i for i, symbol in enumerate(market.symbols) if symbol not in short]
    if not kept:
        raise BadInput(
            f"no symbol has bars enough in {name} for a decision and its fill ({env.bars_needed}); give more bars, a "
            "shorter window or delay, or features with a shorter look-back"
        )
    if not short:
        return market
    return dataclasses.replace(market, segments=market.segments[kept], symbols=tuple(market.symbols[i] for i in kept))


# --- what trains on them ---


def environment(values: Values, market: jt.Market) -> jt.TradingEnv:
    """The environment that the settings describe, over a market."""
    if values["positions"] == "weights" and values["max_leverage"] > 1:
        raise BadInput(
            f"--leverage {values['max_leverage']:g} does nothing to weights, which sum to at most 1; leave it out, or "
            "use --positions continuous"
        )
    return jt.TradingEnv(
        market,
        **of(EnvSettings, values),
        rules=jt.Rules(**of(jt.Rules, values)),
        costs=jt.Costs(**of(CostRates, values)),
        reward=reward(RewardSettings(**of(RewardSettings, values))),
    )


def reward(wanted: RewardSettings) -> jt.rewards.Reward | jt.rewards.MoveReward:
    """What a bar pays."""
    aversion = wanted.risk_aversion or 0.0
    if wanted.reward == "log":
        return jt.rewards.risk_penalised(aversion) if aversion else jt.rewards.log_return()
    if wanted.reward == "drawdown":
        return jt.rewards.drawdown_penalised(aversion)
    if aversion:
        raise BadInput(f"--risk-aversion {aversion:g} is of the rewards log and drawdown; leave it out, or give 0")
    if wanted.reward == "over-benchmark":
        return jt.rewards.over_benchmark()
    return jt.rewards.differential_sharpe() if wanted.reward == "sharpe" else jt.rewards.differential_downside()


def trained(trainer: jt.Trainer) -> tuple[jt.TradingEnv, jt.PPOAgent]:
    """The environment and the agent of a trainer that this command line has built."""
    assert isinstance(trainer.env, jt.TradingEnv)
    assert isinstance(trainer.agent, jt.PPOAgent)
    return trainer.env, trainer.agent


def trainer(values: Values, env: jt.TradingEnv, valid: jt.Market | Optimum, about: Values) -> jt.Trainer:
    """The trainer that the settings describe. It is told its folder later, when nothing can go wrong any more.

    Raises BadInput where a run could not begin with this folder and this seed.
    """
    if values["run_dir"] is not None:
        refuse_full(Path(values["run_dir"]))
    if not 0 <= values["seed"] < 2**30:
        raise BadInput(f"--seed {values['seed']} is outside 0 to {2**30 - 1}")
    return jt.Trainer(
        env,
        jt.PPOAgent(**of(PPOSettings, values)),
        valid=valid,
        **of(TrainSettings, values) | {"run_dir": None},
        about={"command": {**values, **about}},
        progress=not values["quiet"],
    )


def refuse_full(path: Path) -> None:
    """Raise BadInput unless this is a new or an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput(f"{path} is not empty: give another folder, or move this one away")
