"""From settings to the objects of the API: what the user gave that cannot be used becomes `BadInput` here.

Nothing is trained, printed or written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import jaxtrader as jt
from jaxtrader.agents.policy import Policy
from jaxtrader.cli import own_code
from jaxtrader.cli.command_settings import MarketSettings, RewardSettings, Source, TrainData
from jaxtrader.cli.config_file import NOT_REPEATED
from jaxtrader.cli.settings import BUNDLED, BUNDLED_ENDS, PARTS, RISK_AVERSION, SHARES, BadInput, build, of
from jaxtrader.envs import actions
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.evaluation.backtest import with_room
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.ledger.rules import BRACKETS, check_bracket
from jaxtrader.market.clock import common_zone, time_zone, union, wall_clock
from jaxtrader.market.datasets import STOCKS
from jaxtrader.market.features import resolve
from jaxtrader.market.splits import ALWAYS, FOREVER, nanoseconds, segments_between
from jaxtrader.run_files import START
from jaxtrader.schema import parse
from jaxtrader.setting_checks import setting
from jaxtrader.training import run_folder
from jaxtrader.training.hold_if_unproven import trained_path
from jaxtrader.training.train_settings import TrainSettings

Values = Mapping[str, Any]


@contextlib.contextmanager
def checked() -> Generator[None]:
    """Turn a ValueError or OSError of the block into BadInput."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


# --- what an earlier training was asked for ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The part of a policy file's command that is checked here, apart from `Source` and `MarketSettings`.

    Attributes:
        cuts: The first times of validation and test. A synthetic market has none.
    """

    FURTHER: ClassVar[bool] = True

    data: str | None = None
    synthetic: str | None = None
    cuts: tuple[str, str] | None = None


def asked_of(policy: Policy, path: Any) -> Values | None:
    """Return what `jaxtrader train` was asked for when it trained a policy. None: another program trained it.

    Raises BadInput where the file says what that command never asks for. `path` names the file.
    """
    command = policy.about.get("command")
    if command is None:
        return None
    try:
        asked: Asked = parse(command, Asked, "command")
        for settings in (Source, MarketSettings):
            parse(of(settings, command), settings, "command")
        moments = [np.datetime64(cut) for cut in asked.cuts or ()]
        if asked.synthetic is None and (not moments or np.isnat(moments).any()):
            raise ValueError(f"command.cuts is {asked.cuts}")
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}); train it again") from error
    return {"data": None, "synthetic": None, **command}


# --- bars and their parts ---


def read_bars(data: str | None, source: Source) -> tuple[jt.Bars, ...]:
    """Read the histories of a file, or of the bundled stocks."""
    reading = vars(source) | {"symbols": source.symbols or (BUNDLED if data is None else None)}
    del reading["min_bars"]  # of the market
    reading["label"] = _label(source)
    loaded = jt.load_bars(STOCKS if data is None else data, **reading)
    return (loaded,) if isinstance(loaded, jt.Bars) else loaded


def _label(source: Source) -> str | dict[str, str]:
    """Return the end of the bar that a stamp marks, or one for each symbol. Unused symbols may be missing."""
    if "=" not in source.label:
        return source.label
    pairs = [part.strip().rpartition("=") for part in source.label.split(",")]
    if not all(name and end for name, _, end in pairs):
        raise BadInput(
            f"{setting('label', source.label)} must be close, open, or these by symbol, such as BTC=open,ETH=open"
        )
    return {name: end for name, _, end in pairs if source.symbols is None or name in source.symbols}


def read_market(
    data: str | None,
    source: Source,
    names: tuple[str, ...] | None,
    portfolio: bool = False,
    **settings: Any,
) -> jt.Market:
    """Read the histories of a file with the named features, see `market_of`."""
    return market_of(read_bars(data, source), source, names, portfolio, **settings)


def market_of(
    histories: Sequence[jt.Bars],
    source: Source,
    names: tuple[str, ...] | None,
    portfolio: bool = False,
    **settings: Any,
) -> jt.Market:
    """The histories with the named features (None: the default ones). A portfolio is one history of all symbols.

    `settings` are of `MarketSettings`.
    """
    if portfolio and len(histories) < 2:
        raise BadInput("a portfolio needs two symbols at least, and the file has one; leave out `portfolio`")
    return jt.Market.from_bars(histories, names, align=portfolio, min_bars=source.min_bars, **settings)


def clock_of(source: Source, *dated: jt.Bars | jt.Market) -> Source:
    """The source with the zone in which the dates of bars are: that of the file, where none was given."""
    return dataclasses.replace(source, tz=common_zone(one.tz for one in dated))


def cuts(data: TrainData, source: Source) -> tuple[Any, ...]:
    """Return the arguments of `Market.split`: the ends of training and validation, or shares of the calendar."""
    names, given = ("train_end", "valid_end"), (data.train_end, data.valid_end)
    if data.data is not None and given == (None, None):
        return SHARES
    if data.data is not None and None in given:
        shares = "/".join(f"{100 * share:g}" for share in SHARES)
        raise BadInput(
            f"{setting(names[given.index(None)])} is missing: give both ends, or neither and the calendar is cut "
            f"{shares}"
        )
    days = [day or usual for day, usual in zip(given, BUNDLED_ENDS, strict=True)]
    ends = tuple(moment_of(name, day, source, after=True) for name, day in zip(names, days, strict=True))
    if ends[0] >= ends[1]:
        train, valid = (
            setting(name, day) + " (the default)" * (each is None)
            for name, day, each in zip(names, days, given, strict=True)
        )
        raise BadInput(f"{valid} is not after {train}; validation lies between the two")
    return ends


def parts(market: jt.Market, data: TrainData, ends: tuple[Any, ...]) -> tuple[jt.Market, ...]:
    """The bars of training, validation and test. `ends` is what `cuts` returned."""
    try:
        return market.split(*ends)
    except jt.DataError as error:
        given = _given(train_end=data.train_end, valid_end=data.valid_end)
        raise BadInput(f"{given}: {error}" if given else str(error)) from error


def _given(**values: Any) -> str:
    """The settings among some that were given."""
    return " and ".join(setting(name, value) for name, value in values.items() if value is not None)


def absolute(values: Values, *names: str) -> dict[str, str | None]:
    """The settings that are paths, as paths that mean the same from any folder."""
    return {name: None if values[name] is None else str(Path(values[name]).resolve()) for name in names}


def narrowed(market: jt.Market, start: str | None, end: str | None, source: Source) -> jt.Market:
    """Return the market from a first day to a last one, both included."""
    source, low, high = clock_of(source, market), ALWAYS, FOREVER
    if start is not None:
        low = nanoseconds(moment_of("start", start, source, after=False), None)
    if end is not None:
        high = nanoseconds(moment_of("end", end, source, after=True), None)
    segments, kept = segments_between(market.times, market.segments, low, high, embargo=0)
    if not kept:
        runs = " to ".join(days(market))
        raise BadInput(f"no bar is left by {_given(start=start, end=end)}: the data runs from {runs}; give another day")
    return market.keep(kept, segments)


def moment_of(name: str, text: str, source: Source, *, after: bool) -> datetime:
    """When a day begins by the file's clock, or ends (`after`). Of a moment it is that moment, or just after it.

    A bar is stamped by its close, so a bar at midnight is of the day that begins. Where a label was given, stamps were
    moved to the close, or are known to be it. There a bar at midnight is of the day that ends.
    """
    is_day = not {"T", " "} & set(text)
    try:
        moment = datetime.fromisoformat(text) + timedelta(days=is_day and after)
    except (ValueError, OverflowError):
        written = re.fullmatch(r"(\d{4})[/.](\d{1,2})[/.](\d{1,2})", text)
        way = "{}-{:0>2}-{:0>2}".format(*written.groups()) if written else "2007-12-31"
        raise BadInput(f"{setting(name, text)} is not a date; write it as {way}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=time_zone(source.tz))
    return moment + timedelta(microseconds=source.label != "close" if is_day else after)


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


def days(market: jt.Market) -> tuple[str, str]:
    """The first day and the last that may be traded, by the exchange's clock."""
    first, last = wall_clock(np.array([first_time(market), last_time(market)]), market.tz).astype("datetime64[D]")
    return str(first), str(last)


# --- what trains on them ---


def check_settings(values: Values) -> None:
    """Raise BadInput or ValueError where the settings of a training are wrong by themselves, whatever the bars are."""
    rules, costs = build(jt.Rules, values), jt.Costs(**of(CostRates, values))
    costs.validate()
    rules.check_costs(costs)
    settings = EnvSettings(**of(EnvSettings, values))
    positions = actions.validate_positions(settings.positions, 1, rules.max_leverage)
    check_take_profit(values)
    for name in BRACKETS:
        actions.validate_bracket(name, getattr(settings, name), positions)
    reward(build(RewardSettings, values))
    build(TrainSettings, values).validate_settings()
    own_code.agent(values).validate()


def check_bars_to_train(
    histories: Sequence[jt.Bars], features: Sequence[str] | None, values: Values, split_at: tuple[Any, ...]
) -> None:
    """Raise BadInput, with the bars that are needed, where no history has enough for one rollout of training.

    It is said before anything is computed. Parts and single symbols are counted afterwards.

    Args:
        histories: The bars of one symbol each.
        features: The names of the features. None: the default ones.
        values: The settings of `jaxtrader train`.
        split_at: The arguments of `Market.split`, as `cuts` returns them.
    """
    longest = max(histories, key=len)
    specs = map(resolve, features or jt.features.DEFAULT)
    seen = max(feature.for_bars(longest).lookback for feature in specs) + values["window"] - 1
    traded = build(EnvSettings, values).bars_to_trade(values["rollout_length"], values["delay"])
    needed = seen + traded
    share = SHARES[0] if split_at == SHARES else 1.0
    if len(longest) < needed or len(union([bars.times for bars in histories])) < needed / share:
        in_file = f" (about {math.ceil(needed / share):,} in the file)" if share < 1 else ""
        raise BadInput(
            f"too few bars: training needs {needed:,}{in_file}, and the longest history has {len(longest):,}. "
            f"{seen:,} are for the features' look-back and the window, and {traded:,} for a rollout; give more bars, "
            "features with a shorter look-back (as `features=('log_return_1', 'volatility_20')`)"
            f"{', a shorter `window`' * (values['window'] > 1)}"
            f"{', a smaller `decision_every`' * (values['decision_every'] > 1)}, or a shorter `rollout_length`."
        )


def environment_over(parts: Sequence[jt.Market], values: Values) -> tuple[jt.TradingEnv, dict[str, jt.Market]]:
    """The environment over the bars of training, and each part's symbols that can be traded, by the part's name.

    Raises BadInput or ValueError where a part has too few bars: a training must not be lost to what cannot be tested.
    """
    env = environment(values, parts[0])
    env.check_room(values["rollout_length"])
    named = zip(PARTS.values(), parts, strict=True)
    return env, {name: with_room(env.with_market(part), name) for name, part in named}


def environment(values: Values, market: jt.Market) -> jt.TradingEnv:
    """The environment that the settings describe, over a market."""
    check_take_profit(values)
    if values["positions"] == "weights" and values["max_leverage"] > 1:
        raise BadInput(
            f"{setting('max_leverage', values['max_leverage'])} does nothing to weights, which sum to at most 1; leave "
            "it out, or use `positions='continuous'`"
        )
    return jt.TradingEnv(
        market,
        **of(EnvSettings, values),
        rules=build(jt.Rules, values),
        costs=jt.Costs(**of(CostRates, values)),
        reward=reward(build(RewardSettings, values)),
    )


def check_take_profit(values: Values) -> None:
    """Raise ValueError where a take-profit of 100% or more is asked for, since 3 was meant as 3%.

    A gain that large is possible, and a TradingEnv of Python takes it.
    """
    given = values.get("take_profit")
    for share in given if isinstance(given, tuple) else (given,):
        if share is not None:
            check_bracket("take_profit", share, below_1=True)


def reward(wanted: RewardSettings) -> jt.rewards.Reward | jt.rewards.MoveReward:
    """Make the reward. Raises BadInput or ValueError where the risk aversion is wrong."""
    make, aversion = getattr(jt.rewards, wanted.reward), wanted.risk_aversion
    if wanted.reward in RISK_AVERSION:
        return make(RISK_AVERSION[wanted.reward] if aversion is None else aversion)
    if aversion is not None:
        takers = " or ".join(setting("reward", name) for name in RISK_AVERSION)
        raise BadInput(
            f"{setting('risk_aversion', aversion)} needs {takers}, and the reward is {wanted.reward}; leave it out"
        )
    return make()


def trained(trainer: jt.Trainer) -> tuple[jt.TradingEnv, jt.PPOAgent]:
    """The environment and the agent of a trainer that this command line has built."""
    assert isinstance(trainer.env, jt.TradingEnv)
    assert isinstance(trainer.agent, jt.PPOAgent)
    return trainer.env, trainer.agent


def trainer(values: Values, env: jt.TradingEnv, valid: jt.Market | Optimum, about: Values) -> jt.Trainer:
    """The trainer that the settings describe. A new run is told its folder later, when nothing can go wrong any more.

    Raises BadInput where a run could not begin or go on with this folder and these settings.
    """
    if values["run_dir"] is not None:
        run_folder.refuse_full(Path(values["run_dir"]))
    resumes, asked = values["resume"] is not None, {**values, **about}
    other: dict[str, Any] = {"run_dir": values["resume"], "init_from": values["init_from"]}
    if resumes and not _asks_for_start(Path(values["resume"]), values):
        other |= {"init_from": None, "refit_normalizer": False}
    start = other["init_from"]
    if start is not None and not (Path(start).is_file() or trained_path(Path(start)).is_file()):
        raise BadInput(
            f"{setting('init_from', start)} must be the folder of a run with a policy, or a policy file; check the path"
        )
    return jt.Trainer(
        env,
        own_code.agent(values),
        valid=valid,
        **of(TrainSettings, values) | other,
        about={"command": {name: value for name, value in asked.items() if name not in NOT_REPEATED}},
        progress=not values["quiet"],
        callbacks=callbacks(values),
    )


def _asks_for_start(run: Path, values: Values) -> bool:
    """Whether a resumed run needs the earlier one: a seed has no checkpoint, and its folder no copy to begin from."""
    seeds = range(values["seed"], values["seed"] + values["seeds"])
    return not (run / START).is_file() and run_folder.needs_start(run, seeds)


def callbacks(values: Values) -> list[jt.Callback]:
    """The callbacks that the settings ask for. Raises BadInput where a logger's package is not installed."""
    found: list[jt.Callback] = []
    if values["patience"] is not None:
        found.append(jt.EarlyStopping(values["patience"]))
    made = {"tensorboard": jt.loggers.TensorBoard, "wandb": jt.loggers.WandB, "mlflow": jt.loggers.MLflow}
    try:
        return found + [made[name]() for name in values["log_to"] or ()]
    except ImportError as error:
        raise BadInput(f"`log_to`: {error}") from error
