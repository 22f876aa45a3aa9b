"""From flags to checked bars, dates and parts: whatever the user gave that cannot be used becomes `BadInput` here.

Nothing is trained, printed or written; `commands.py` does that.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from jaxtrader.cli.config import BacktestConfig, BadInput, Money, Source, TrainConfig
from jaxtrader.envs import rewards
from jaxtrader.envs.costs import LIMITS, Costs
from jaxtrader.envs.rules import RULE_NAMES
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.datasets import STOCKS
from jaxtrader.market.market import Market

MONEY_RULES = (*RULE_NAMES, "stop_loss", "take_profit")


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """What goes wrong in here is the user's to put right."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


def read_bars(data: str | None, source: Source) -> tuple[Bars, ...]:
    """The histories of a file, or of the bundled stocks, as the flags say."""
    symbols = source.symbols or (TrainConfig.BUNDLED if data is None else None)
    loaded = load_bars(
        STOCKS if data is None else data,
        symbols=symbols,
        tz=source.tz,
        label=source.label,
        repair=source.repair,
        adjust=not source.no_adjust,
    )
    return (loaded,) if isinstance(loaded, Bars) else loaded


def read_market(data: str | None, source: Source, names: tuple[str, ...] | None, portfolio: bool = False) -> Market:
    """The same histories with the named features, None for the default ones; as one history for a portfolio."""
    histories = read_bars(data, source)
    if portfolio and len(histories) < 2:
        raise BadInput("a portfolio needs two symbols at least, and the file has one; leave out --portfolio")
    return Market.from_bars(histories, features=names, align=portfolio)


def tradable(env: TradingEnv, name: str) -> Market:
    """The environment's market without the symbols that have no room for a decision; an error where none is left."""
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


def midnight_of(flag: str, text: str, source: Source, *, after: bool) -> datetime:
    """The midnight before or after a day, by the file's clock; a bar labelled by its open ends after it."""
    try:
        day = date.fromisoformat(text) + timedelta(days=after)
    except (ValueError, OverflowError):
        raise BadInput(f"{flag} {text} is not a date; write it as 2007-12-31") from None
    midnight = datetime.combine(day, time(), ZoneInfo(source.tz) if source.tz else UTC)
    return midnight + timedelta(microseconds=source.label == "open")


def check_run(config: TrainConfig) -> None:
    """BadInput where a run could not be begun with this folder and this seed."""
    if config.run_dir is not None:
        refuse_full(Path(config.run_dir))
    if not 0 <= config.seed < 2**30:
        raise BadInput(f"--seed {config.seed} is outside 0 to {2**30 - 1}")


def environment(config: TrainConfig, market: Market) -> TradingEnv:
    """The environment that the flags describe, over a market; the flags are resolved."""
    assert config.positions is not None
    assert config.rebalance_band is not None
    if config.positions == "weights" and config.leverage > 1:
        raise BadInput(
            f"--leverage {config.leverage:g} does nothing to weights, which sum to at most 1; leave it out, or use "
            "--positions continuous"
        )
    return TradingEnv(
        market,
        positions=config.positions,
        window=config.window,
        episode_length=config.episode_length,
        costs=Costs.from_bps(config.fee_bps, config.slippage_bps, **given(config, LIMITS)),
        reward=reward(config),
        decision_every=config.decision_every,
        fill=config.fill,
        rebalance_band=config.rebalance_band,
        max_leverage=config.leverage,
        flat_at_session_end=config.flat_at_session_end,
        **given(config, MONEY_RULES),
    )


def reward(config: TrainConfig) -> rewards.Reward | rewards.MoveReward:
    """What a bar pays, as the flags describe it."""
    aversion = config.risk_aversion or 0.0
    if config.reward == "log":
        return rewards.risk_penalised(aversion) if aversion else rewards.log_return()
    if config.reward == "drawdown":
        return rewards.drawdown_penalised(aversion)
    if aversion:
        raise BadInput(f"--risk-aversion {aversion:g} is of the rewards log and drawdown; leave it out")
    if config.reward == "over-benchmark":
        return rewards.over_benchmark()
    return rewards.differential_sharpe() if config.reward == "sharpe" else rewards.differential_downside()


def given(config: Money, names: Iterable[str]) -> dict[str, Any]:
    """The flags of `Money` among these names that were given."""
    flags = {f.name for f in dataclasses.fields(Money)}
    return {name: getattr(config, name) for name in names if name in flags and getattr(config, name) is not None}


def shared(cls: type, config: TrainConfig) -> dict[str, Any]:
    """The flags that have the name of a setting of the API."""
    names = {f.name for f in dataclasses.fields(config)}
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(cls) if f.name in names}


def refuse_full(path: Path) -> None:
    """BadInput unless this is a new or an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput(f"{path} is not empty: give another folder, or move this one away")


def first_time(market: Market) -> np.datetime64:
    """The earliest bar that may be traded."""
    return market.times[market.segments[:, 1]].min()


def stem(data: str | None) -> str:
    """What a run on this file is named after."""
    return "stocks" if data is None else Path(data).name.split(".")[0] or "data"


def cuts(config: TrainConfig) -> tuple[Any, ...]:
    """What `Market.split` cuts at: the midnights after the last days, or fractions."""
    if config.data is None:
        ends = (config.train_end or config.BUNDLED_TRAIN_END, config.valid_end or config.BUNDLED_VALID_END)
    elif config.train_end is None and config.valid_end is None:
        return config.SHARES
    elif config.train_end is None or config.valid_end is None:
        missing = "--train-end" if config.train_end is None else "--valid-end"
        shares = "/".join(f"{100 * share:g}" for share in config.SHARES)
        raise BadInput(f"{missing} is missing: give both dates, or neither and the calendar is cut {shares}")
    else:
        ends = (config.train_end, config.valid_end)
    train_end = midnight_of("--train-end", ends[0], config, after=True)
    valid_end = midnight_of("--valid-end", ends[1], config, after=True)
    if train_end >= valid_end:
        raise BadInput(f"--valid-end {ends[1]} is not after --train-end {ends[0]}; validation lies between the two")
    return train_end, valid_end


def narrowed(market: Market, config: BacktestConfig, source: Source) -> Market:
    """The market between --start and --end, both included."""
    if config.start is not None:
        cut = midnight_of("--start", config.start, source, after=False)
        if np.datetime64(cut.astimezone(UTC).replace(tzinfo=None)) > first_time(market):
            market = market.split(cut)[1]
    if config.end is not None:
        cut = midnight_of("--end", config.end, source, after=True)
        if np.datetime64(cut.astimezone(UTC).replace(tzinfo=None)) <= market.times[market.segments[:, 2] - 1].max():
            market = market.split(cut)[0]
    return market
