"""Which settings each command takes, in which group of its help they stand, and where a default differs from the API's.

The type, the default and the help of a setting stand in its dataclass. Most are dataclasses of the API. Those in
command_settings.py are of the command line alone. Where a setting there is an argument of a function of the API, a test
compares the two defaults. This module imports neither JAX nor pandas, so that help is instant.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli.command_settings import (
    BacktestData,
    CompareSettings,
    DataFile,
    DecideSettings,
    ExportSettings,
    FoldSettings,
    HostSettings,
    MarketSettings,
    OwnCode,
    ReportSettings,
    RewardSettings,
    RunSettings,
    Source,
    SweepSettings,
    TrainData,
    WatchSettings,
)
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.ledger.cost_rates import A_BP, BPS, CostRates
from jaxtrader.ledger.rules import BRACKETS, Rules
from jaxtrader.setting_checks import setting
from jaxtrader.training.train_settings import TrainSettings

T = TypeVar("T")

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

PARTS = {"train": "train", "valid": "validation", "test": "test"}
BUNDLED = ("AAPL", "IBM", "MSFT", "GOOG")
BUNDLED_ENDS = ("2007-12-31", "2010-12-31")  # of training and validation
SHARES = (0.7, 0.15, 0.15)  # of a file's calendar: training, validation, test

SHORT_FLAGS = {"max_leverage": "--leverage", "init_from": "--from"}  # beside the field's own name


class BadInput(Exception):
    """What the user gave cannot be used. The message is one sentence."""


class BadSetting(BadInput):
    """A setting of a file cannot be used. The message names the file and its keys, and is shown as it is."""


class Failed(Exception):
    """The command could not finish. The message is one sentence."""


@dataclass(frozen=True)
class Flags:
    """Settings of one dataclass that are flags of a command, in one group of its help.

    Attributes:
        settings: The dataclass.
        group: The title of the group.
        only: The fields that are flags. By default all are.
        omit: The fields that are no flags here.
        several: Whether each flag takes several numbers, with commas, for a result of each.
    """

    settings: type
    group: str
    only: tuple[str, ...] | None = None
    omit: tuple[str, ...] = ()
    several: bool = False

    @functools.cached_property
    def fields(self) -> list[dataclasses.Field[Any]]:
        """The fields that are flags."""
        return [
            field
            for field in dataclasses.fields(self.settings)
            if (self.only is None or field.name in self.only) and field.name not in self.omit
        ]


@dataclass(frozen=True)
class Command:
    """A command: one sentence on it, its flags, and the few of them that `--help` shows (by default all)."""

    summary: str
    flags: tuple[Flags, ...]
    first: tuple[str, ...] | None = None
    has_defaults: bool = True  # else what is not given stays as it was in training

    @functools.cached_property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """The fields that are flags, by their keys."""
        return {key(field.name): field for flags in self.flags for field in flags.fields}

    @property
    def names(self) -> set[str]:
        """The flags, as messages and help name them."""
        return {flag(field.name) for field in self.fields.values()}


ALONE = ("periods_per_year",)  # settings of a market where no portfolio is made, or as its training made it
TRAINING = ("train", "walk-forward")  # commands whose defaults are those of TRAIN
SWEPT = ("money", "environment", "learning")  # groups of `jaxtrader train` whose settings can be swept, and features
LENGTH = ("num_envs", "accounts_per_path", "rollout_length", "num_episodes", "total_steps")

TRAINED = (  # what a training is asked for, whatever follows it
    Flags(CostRates, "money"),
    Flags(Rules, "money"),
    Flags(EnvSettings, "money", only=BRACKETS),
    Flags(EnvSettings, "environment", omit=BRACKETS),
    Flags(RewardSettings, "environment"),
    Flags(TrainSettings, "learning", only=LENGTH),
    Flags(PPOSettings, "learning", omit=("normalize_observations",)),  # a market's always are
)

COMMANDS = {
    "train": Command(
        "Train a policy on price bars, select it on validation, test it, and save it.",
        (
            Flags(TrainData, "data", only=("data", "synthetic")),
            Flags(Source, "data"),
            Flags(TrainData, "market", omit=("data", "synthetic")),
            Flags(MarketSettings, "market"),
            *TRAINED,
            Flags(RunSettings, "run", omit=("only",)),
            Flags(HostSettings, "run"),
            Flags(TrainSettings, "run", omit=LENGTH),
        ),
        first=(
            *("data", "synthetic", "features", "train_end", "valid_end", "fee", "slippage", "max_leverage"),
            *("positions", "window", "total_steps", "config", "resume", "dry_run", "seed", "seeds"),
            *("must_beat_holding", "run_dir"),
        ),
    ),
    "walk-forward": Command(
        "Train anew in each of several folds, test each on the bars that follow, and join the tests to one result.",
        (
            Flags(TrainData, "data", only=("data",)),
            Flags(Source, "data"),
            Flags(TrainData, "market", only=("features", "portfolio")),
            Flags(MarketSettings, "market"),
            Flags(FoldSettings, "folds"),
            *TRAINED,
            Flags(RunSettings, "run", only=("config", "resume", "patience", "log_to", "quiet", "trials", "report")),
            Flags(TrainSettings, "run", omit=(*LENGTH, "refit_normalizer")),
        ),
        first=(
            *("data", "features", "folds", "train", "test", "valid", "anchored", "embargo", "refit", "fee", "slippage"),
            *("positions", "window", "total_steps", "config", "resume", "seed", "seeds"),
            *("must_beat_holding", "run_dir"),
        ),
    ),
    "sweep": Command(
        "Train at each choice of some settings, and choose the best on validation.",
        (
            Flags(SweepSettings, "data", only=("file",)),
            Flags(SweepSettings, "run", only=("run_dir",)),
            Flags(RunSettings, "run", only=("quiet", "trials", "report")),
        ),
    ),
    "report": Command(
        "Write the report of a run anew, with what was tried since.",
        (
            Flags(ReportSettings, "data"),
            Flags(MarketSettings, "data", only=ALONE),
            Flags(OwnCode, "data"),
            Flags(RunSettings, "run", only=("trials",)),
        ),
    ),
    "compare": Command(
        "Compare the tests of several runs, as a table and as a page.",
        (Flags(CompareSettings, "data"),),
    ),
    "export": Command(
        "Write a policy for programs without jaxtrader, normalisation and decision inside.",
        (Flags(ExportSettings, "run"), Flags(OwnCode, "run")),
    ),
    "watch": Command("Follow the progress of a run that another process trains.", (Flags(WatchSettings, "data"),)),
    "backtest": Command(
        "Backtest a trained policy, on the test part of its own data or on another file.",
        (
            Flags(BacktestData, "data"),
            Flags(OwnCode, "data"),
            Flags(Source, "data"),
            Flags(MarketSettings, "data", only=ALONE),
            Flags(CostRates, "money", several=True),
            Flags(Rules, "money", omit=("max_leverage",)),  # the policy acts in units of it
            Flags(EnvSettings, "money", only=BRACKETS),
            Flags(RunSettings, "run", only=("config", "trials", "report")),
        ),
        first=("run", "data", "part", "start", "end", "save", "symbols", "fee", "slippage", "fill", "config"),
        has_defaults=False,
    ),
    "decide": Command(
        "Say what a trained policy wants at the last bar of a file, and keep its account.",
        (Flags(DecideSettings, "data"), Flags(OwnCode, "data"), Flags(Source, "data", omit=("min_bars",))),
        first=("run", "data", "position", "json", "symbols", "tz", "label"),
        has_defaults=False,
    ),
    "data": Command(
        "Say what is in a data file, and what is wrong with it.",
        (Flags(DataFile, "data"), Flags(Source, "data"), Flags(MarketSettings, "data", only=ALONE)),
    ),
    "check": Command(
        "Check a market and its features for leaks, and that an agent learns on it.",
        (
            Flags(TrainData, "data", only=("data", "features")),
            Flags(Source, "data"),
            Flags(MarketSettings, "data", only=ALONE),
            Flags(CostRates, "money", only=("fee", "slippage")),
            Flags(Rules, "money", only=("fill", "rebalance_band")),
            Flags(EnvSettings, "environment", only=("positions",)),
            Flags(RunSettings, "run", only=("only", "config")),
            Flags(TrainSettings, "run", only=("seed",)),
        ),
    ),
}

# Where the defaults of `jaxtrader train` differ from the API's.
TRAIN: dict[str, Any] = {
    # The default features look back up to a year, so that one bar of them says enough, and a small network learns it.
    "window": 1,
    "hidden": (32, 32),
    # The run is short, and the best policy is chosen among its validations.
    "eval_every": 10,
    # Stocks rise in the long run, so that shorts mostly lose.
    "positions": (0.0, 0.25, 0.5, 0.75, 1.0),
    # A price on variance makes a policy of few and noisy bars sell before it is certain.
    "reward": "risk_penalized",
    # Enough to see a result.
    "total_steps": 2_000_000,
    # One seed says nothing of luck.
    "seeds": 3,
    # Nothing that was tried beat holding on years that it had not seen, see benchmarks/tables/defaults.md.
    "must_beat_holding": True,
}
RISK_AVERSION = {"risk_penalized": 5.0, "drawdown_penalized": 1.0}  # the defaults of rewards that take one
# On a synthetic market: the best policy is known for these positions, this reward and no band alone.
# More steps come closer to it. Those of `jaxtrader check` stand in `CheckSettings`.
SYNTHETIC: dict[str, Any] = {
    "positions": (-1.0, 0.0, 1.0),
    "reward": "log_return",
    "rebalance_band": 0.0,
    "total_steps": 4_000_000,
    "seeds": 1,  # a share of the optimum is of one policy
    "must_beat_holding": False,  # the optimum says what it is worth
}


def of(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one dataclass's fields among all values of a command, by field."""
    found = {field.name: values[field.name] for field in dataclasses.fields(settings) if field.name in values}
    if settings is CostRates:
        given = {name: values[f"{name}_bps"] for name in BPS if f"{name}_bps" in values}
        found |= {name: None if bps is None else bps * A_BP for name, bps in given.items()}
    return found


def build(settings: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass of settings from all values of a command."""
    return settings(**of(settings, values))


def choices(settings: type, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values with each combination of the numbers that were given for one dataclass's fields, by a label.

    There is one combination, with the label "", where each field has one number.
    """
    names = [field.name for field in dataclasses.fields(settings)]
    several = [name for name in names if isinstance(values.get(key(name)), tuple)]
    found = {}
    for numbers in itertools.product(*(values[key(name)] for name in several)):
        chosen = dict(zip(several, numbers, strict=True))
        words = [f"{name.replace('_', ' ')} {spelt(x)}{' bp' * (name in BPS)}" for name, x in chosen.items()]
        found[", ".join(words)] = {**values, **{key(name): x for name, x in chosen.items()}}
    return found


def key(field: str) -> str:
    """The name of a field's flag, with underscores."""
    return f"{field}_bps" if field in BPS else field


def key_of(word: str) -> str:
    """The key of a setting that a file names as one of its flags, with hyphens or underscores."""
    word = word.replace("-", "_")
    return next((field for field, short in SHORT_FLAGS.items() if short == f"--{word}"), word)


def flag(field: str) -> str:
    """Return the flag of a field, as messages and help name it."""
    return SHORT_FLAGS.get(field) or "--" + key(field).replace("_", "-")


def default(name: str, field: dataclasses.Field[Any]) -> tuple[Any, str]:
    """The default of a command's flag, in the flag's units, and how help shows it."""
    value = None if field.default is dataclasses.MISSING or not COMMANDS[name].has_defaults else field.default
    if field.name in BPS and value is not None:
        value /= A_BP
    if name not in TRAINING:
        return value, "" if value is None else spelt(value)
    value = TRAIN.get(field.name, value)
    shown = [] if value is None else [spelt(value)]
    if name == "train" and field.name in SYNTHETIC:
        shown.append(f"with --synthetic {spelt(SYNTHETIC[field.name])}")
    return value, ", ".join(shown)


def spelt(value: Any) -> str:
    """Return a value as it is typed."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={spelt(each)}" for name, each in value.items())
    if isinstance(value, tuple | list):
        return ",".join(map(spelt, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def resolved(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were given to a command, and the defaults of all others."""
    command = COMMANDS[name]
    if not command.has_defaults:
        return dict(values)
    defaults = {key: default(name, field)[0] for key, field in command.fields.items()}
    return {**defaults, **(_dependent(values) if name in TRAINING else {}), **values}


def sweepable() -> set[str]:
    """The keys of the settings of `jaxtrader train` that can be swept."""
    return {"features"} | {
        key(field.name) for flags in COMMANDS["train"].flags if flags.group in SWEPT for field in flags.fields
    }


def check_trials(values: Mapping[str, Any]) -> None:
    """Raise BadInput where the number of tries made elsewhere is none, before anything is computed."""
    if (values.get("trials") or 0) < 0:
        raise BadInput(f"{setting('trials', values['trials'])} must be a number of policies, at least 0")


def _dependent(values: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of `jaxtrader train` that depend on the settings that were given."""
    synthetic = values.get("synthetic") is not None
    defaults: dict[str, Any] = dict(SYNTHETIC) if synthetic else {}
    defaults["risk_aversion"] = RISK_AVERSION.get(values.get("reward", defaults.get("reward", TRAIN["reward"])))
    if values.get("synthetic") == "hidden_regime":
        defaults["window"] = 32  # only many bars together tell of the regime
    leverage = values.get("max_leverage", 1.0)
    if values.get("portfolio"):
        defaults["positions"] = "weights"
    elif 0 < leverage < 1 and not synthetic:  # else positions that nobody asked for would be refused
        defaults["positions"] = tuple(round(leverage * position, 9) for position in TRAIN["positions"])
    if values.get("num_episodes") is not None:
        defaults["total_steps"] = None
    # Without validation nothing can be shown, and a network of one's own cannot be made to hold.
    if values.get("valid") == 0 or values.get("network") is not None:
        defaults["must_beat_holding"] = False
    return defaults | _fitting_lengths(values)


def _fitting_lengths(values: Mapping[str, Any]) -> dict[str, int]:
    """Lengths of rollouts and episodes that fit each other and `decision_every`, near the defaults.

    An episode is whole rollouts, and a rollout is whole decisions. What was given stays as it is.
    """
    every, rollout, episode = (values.get(name) for name in ("decision_every", "rollout_length", "episode_length"))
    if any(length is not None and length < 1 for length in (every, rollout, episode)):
        return {}  # is refused
    every = every or 1
    if episode is not None:
        decisions = max(episode // every, 1)
        return {"rollout_length": max(n for n in range(1, TrainSettings.rollout_length + 1) if decisions % n == 0)}
    decisions = max(EnvSettings.episode_length // every, 1)
    length = rollout or min(TrainSettings.rollout_length, decisions)
    return {"rollout_length": length, "episode_length": max(decisions // length, 1) * length * every}
