"""The `jaxtrader` command: train a policy, backtest it, or look at a data file; a thin layer over the public API.

The flags are frozen dataclasses; what the commands do is in `commands.py`, which loads JAX and pandas only when one
runs, so that help is instant.
Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (and saved, where there was something to save).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from jaxtrader import __version__

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

Fill = Literal["next_open", "next_close", "close"]


class BadInput(Exception):
    """What the user gave cannot be used; the message is one sentence."""


class Failed(Exception):
    """The command could not finish; the message is one sentence."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """How a price file is read."""

    symbols: tuple[str, ...] | None = None
    """symbols to use, e.g. AAPL,MSFT; all of the file without it"""
    tz: str | None = None
    """zone of the file's clock, e.g. America/New_York; without it stamped offsets count, else UTC"""
    label: Literal["close", "open"] = "close"
    """which end of its bar a time stamp marks"""
    repair: Literal["clip"] | None = None
    """clip: widen high and low to the bar's open and close, and set a missing volume to 0"""
    no_adjust: bool = False
    """keep raw prices where the file has an adjusted close"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Source):
    """Train a policy on price bars, select it on validation, test it, and save it."""

    data: str | None = None
    """CSV or Parquet file with bars; without it the bundled daily stocks AAPL, IBM, MSFT, GOOG"""
    features: tuple[str, ...] | None = None
    """what a decision sees of the market, e.g. momentum_20,gap or columns of the file; without it the default seven"""
    train_end: str | None = None
    """last day of training, YYYY-MM-DD; bundled stocks 2007-12-31, a file is cut 70/15/15 without dates"""
    valid_end: str | None = None
    """last day of validation; bundled stocks 2010-12-31; what follows is the test"""
    fee_bps: float = 1.0
    """fee, basis points of the traded value"""
    slippage_bps: float = 5.0
    """slippage with half the spread, basis points of the price, against you"""
    fill: Fill = "next_open"
    """where a decision made at a bar's close fills; close is optimistic"""
    rebalance_band: float = 0.05
    """no trade smaller than this share of equity"""
    positions: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """exposures to choose from, in [-1, 1], e.g. -1,0,1"""
    risk_aversion: float = 5.0
    """lambda of the reward: log return - lambda / 2 * return^2 a bar; 0 is the log return"""
    window: int = 1
    """bars of features that a decision sees"""
    episode_length: int = 256
    """bars"""
    num_envs: int = 256
    """parallel accounts"""
    agents_per_lane: int = 1
    """accounts that share one path of bars"""
    rollout_length: int = 64
    """bars between two updates; divides the episode length"""
    total_steps: int | None = None
    """bars to train, summed over all accounts; 2,000,000 unless the number of episodes is given"""
    num_episodes: int | None = None
    """episodes to train instead, summed over all accounts"""
    learning_rate: float = 1e-3
    """step size of Adam at the start; decays to 0"""
    gamma: float = 0.99
    """discount a bar"""
    gae_lambda: float = 0.95
    """decay of the advantage trace a bar"""
    entropy_coef: float = 0.01
    """weight of the entropy bonus"""
    num_epochs: int = 4
    """passes over a rollout"""
    num_minibatches: int = 4
    """parts of a pass; divides the paths (accounts / accounts a path)"""
    hidden: tuple[int, ...] = (32, 32)
    """widths of the network's layers, e.g. 64,64"""
    eval_every: int = 10
    """updates between two validations"""
    seed: int = 0
    """of all that is random"""
    run_dir: str | None = None
    """folder for the results, new or empty; without it the next free runs/NAME-0001"""
    dry_run: bool = False
    """check everything, print the plan and a time estimate, write nothing"""
    quiet: bool = False
    """print only the result"""

    # What stands for None above, where it depends on other flags.
    BUNDLED: ClassVar[tuple[str, ...]] = ("AAPL", "IBM", "MSFT", "GOOG")
    BUNDLED_TRAIN_END: ClassVar[str] = "2007-12-31"
    BUNDLED_VALID_END: ClassVar[str] = "2010-12-31"
    SHARES: ClassVar[tuple[float, ...]] = (0.7, 0.15, 0.15)  # of a file's calendar: train, validation, test
    STEPS: ClassVar[int] = 2_000_000


@dataclass(frozen=True, kw_only=True)
class BacktestConfig(Source):
    """Backtest a trained policy: on the test part of its own data, or on all bars of another file."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """run folder, or policy file"""
    data: str | None = None
    """another file with bars (all of them are used)"""
    part: Literal["train", "valid", "test", "all"] | None = None
    """part of the data it was trained with; test without it"""
    start: str | None = None
    """first day, YYYY-MM-DD"""
    end: str | None = None
    """last day, YYYY-MM-DD"""
    fee_bps: float | None = None
    """fee, basis points; without it as in training, so for the next three"""
    slippage_bps: float | None = None
    """slippage, basis points"""
    fill: Fill | None = None
    """where decisions fill"""
    rebalance_band: float | None = None
    """no trade smaller than this share of equity"""
    save: str | None = None
    """folder for equity.csv and trades.csv"""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Source):
    """Say what is in a data file, and what is wrong with it."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """CSV or Parquet file with bars"""


Config = TrainConfig | BacktestConfig | DataConfig
COMMANDS: dict[str, type[Config]] = {"train": TrainConfig, "backtest": BacktestConfig, "data": DataConfig}
DESCRIPTION = (
    "Train reinforcement-learning trading agents on price data, with costs, and look at them honestly. "
    "`jaxtrader train` alone needs nothing: it trains on stocks that come with it. `--version` prints the version."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `argv` is without the program's name."""
    try:
        config = parse(list(sys.argv[1:] if argv is None else argv))
        if config is None:
            return OK
        from jaxtrader import commands  # JAX and pandas, from here on

        return commands.run(config)
    except (BadInput, Failed) as error:
        print(f"jaxtrader: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, BadInput) else FAILED
    except KeyboardInterrupt:
        print("jaxtrader: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `jaxtrader ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parse(argv: list[str]) -> Config | None:
    """The configuration that the arguments ask for; None where help or the version was asked for, and printed.

    Raises:
        BadInput: an unknown command or flag, or a value that is none.
    """
    if argv in (["--version"], ["-V"]):
        print(f"jaxtrader {__version__}")
        return None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                dict[str, Callable[..., Config]](COMMANDS),
                prog="jaxtrader",
                description=DESCRIPTION,
                args=_joined(argv or ["--help"]),
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_registry(),
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise BadInput(_one_line(said.getvalue())) from None


def _joined(argv: list[str]) -> list[str]:
    """`--positions -1,0,1` as `--positions=-1,0,1`: a list that begins with a minus is no flag."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-[.\d]", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _one_line(box: str) -> str:
    """tyro's complaint, framed in lines (or in hyphens where the output is no UTF-8), as one sentence."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        inside = line.strip("│ ")
        if re.fullmatch(r"[─-]{4,}", inside):
            sections.append([])
        elif inside and line[0] not in "╭╰":
            sections[-1].append(inside)
    if "╭" not in text:  # the title has a section of its own, not a place in the frame
        sections = sections[1:] or sections
    fault, further = (" ".join(line for part in parts for line in part) for parts in (sections[:1], sections[1:]))
    fault = fault.rstrip(".")
    # The flag that tyro thinks was meant, or the commands there are.
    meant = re.search(r"[Pp]erhaps you meant:? (--[a-z-]+)", further)
    choices = re.search(r"Available subcommands: ([a-z, ]+?)(?: For|$)", further)
    if meant:
        fault += f"; did you mean {meant[1]}?"
    elif choices:
        fault += f"; the commands are {choices[1]}"
    return f"{fault} (see jaxtrader --help)"


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How words become values: lists with commas, whole numbers such as 2e6, and no None to type."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        kind, optional = info.type, False
        if typing.get_origin(kind) in (typing.Union, types.UnionType):
            kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
            kind, optional = (kinds[0], True) if len(kinds) == 1 else (None, False)
        many = typing.get_origin(kind) is tuple
        one = typing.get_args(kind)[0] if many else kind
        choices = typing.get_args(one) if typing.get_origin(one) is Literal else None
        if choices is None and one not in _READERS:
            return None
        read, name = (str, "") if choices else _READERS[one]

        def value(words: list[str]) -> Any:
            if not many:
                return read(words[0])
            return tuple(read(word) for word in words[0].split(",") if word)

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(choices) + "}" if choices else f"{name},..." if many else name,
            instance_from_str=value,
            is_instance=lambda _: True,
            str_from_instance=lambda x: ["none" if x is None and optional else _spelt(x)],
            choices=choices,
        )

    return registry


def _spelt(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_spelt, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whole(word: str) -> int:
    with contextlib.suppress(ValueError):
        return int(word)
    number = _real(word)
    if not number.is_integer():
        raise ValueError(f"{word!r} is not a whole number")
    return int(number)


def _real(word: str) -> float:
    with contextlib.suppress(ValueError):
        return float(word)
    raise ValueError(f"{word!r} is not a number")


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {str: (str, "TEXT"), int: (_whole, "N"), float: (_real, "X")}
