"""The schema of a live account's file: what each of its parts may be. `Live.save` writes it, `Live.resume` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Annotated, Any, Literal

import numpy as np

from jaxtrader import files
from jaxtrader.agents.policy_schema import EnvPart
from jaxtrader.live.decision import Numbers
from jaxtrader.live.schedule import WEEK_SLOTS, Duration, Flags, Nanoseconds, Schedule
from jaxtrader.live.step import NEWEST
from jaxtrader.market.bar_checks import PRICES
from jaxtrader.market.delistings import Silence
from jaxtrader.printable import shown
from jaxtrader.schema import Array, Count, Length, Natural, SchemaError, parse

KIND = "live"
VERSION = 1
MAX_ASSETS = 10_000

Column = Annotated[np.ndarray, Array("float64", 2)]
Times = Annotated[np.ndarray, Array("int64", 1)]


@dataclass(frozen=True, kw_only=True)
class BarsPart:
    """The last bars of an asset: the arrays of `Bars`, with times in ns since 1970, and `RecentBars.bars_per_frame`."""

    times: Times
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column
    funding: Column | None
    price_factor: Column | None
    columns: dict[str, Column]
    tz: str | None
    bars_per_frame: dict[str, Count]

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that has a row for each bar."""
        given = [self.open, self.high, self.low, self.close, self.volume, self.funding, self.price_factor]
        return [x for x in (*given, *self.columns.values()) if x is not None]


@dataclass(frozen=True, kw_only=True)
class SilencePart:
    """The fields of `Silence`. Older files lack `limit`."""

    time: Nanoseconds
    elapsed: Nanoseconds
    longest_step: Nanoseconds
    steps: Natural
    latest: Times
    longest_wait: Times
    limit: Nanoseconds = Silence.limit


@dataclass(frozen=True, kw_only=True)
class RowsPart:
    """The fields of `MarketRows`, but for `own`, which follows from the recent bars."""

    symbols: Annotated[tuple[str, ...], Length(MAX_ASSETS)]
    tz: str | None
    names: tuple[str, ...]
    recent: Annotated[tuple[BarsPart, ...], Length(MAX_ASSETS)]
    columns: Annotated[np.ndarray, Array("float64", 3)]
    window: Annotated[np.ndarray, Array("float32", 3)]
    missed: Flags
    silence: SilencePart | None
    time: Nanoseconds
    length: Duration | None
    usual_close: Nanoseconds | None

    def check(self, features: int) -> None:
        """Raise SchemaError where its parts are not of the same assets, columns and bars."""
        assets = len(self.symbols)
        silent = () if self.silence is None else (self.silence.latest, self.silence.longest_wait)
        wanted = {
            "columns": (self.columns, (NEWEST + 1, len(self.names), assets)),
            "window": (self.window, (len(self.window), assets, features)),
            "missed": (self.missed, (assets,)),
            **{f"silence[{i}]": (x, (assets,)) for i, x in enumerate(silent)},
        }
        for i, bars in enumerate(self.recent):
            rows = len(bars.times)
            wanted |= {f"recent[{i}], {j}": (x, (rows, 1)) for j, x in enumerate(bars.arrays)}
            if not rows or (np.diff(bars.times) <= 0).any():
                raise SchemaError(f"rows.recent[{i}].times do not increase")
        missing = {*PRICES, "volatility", "dt"} - set(self.names)
        if missing or len(set(self.names)) < len(self.names):
            raise SchemaError(f"rows.names has no {', '.join(sorted(missing))}, or a name twice")
        if len(self.recent) != assets or not assets:
            raise SchemaError(f"rows has {len(self.recent)} parts of recent bars for {assets} symbols")
        for name, (array, shape) in wanted.items():
            if array.shape != shape:
                raise SchemaError(f"rows.{name} has the shape {array.shape}, and must have {shape}")


@dataclass(frozen=True, kw_only=True)
class DecisionPart:
    """The fields of `Decision`, with its time in ns since 1970, and probabilities as pairs."""

    target: Numbers
    probabilities: list[tuple[float, float]] | None
    value: float
    exposure: Numbers
    time: Nanoseconds


@dataclass(frozen=True, kw_only=True)
class LiveFile:
    """What the file of a live account holds.

    Attributes:
        version: VERSION of this schema.
        env: the environment, as `TradingEnv.to_dict` describes it.
        features: the names of the features.
        fills: see `Policy.live`.
        rows, schedule, decision: see their classes.
        age: bars since the decision in force.
        account: the arrays of the account, in the order of its leaves.
        action, tradable: see `StepState`.
    """

    version: Literal[1]
    env: EnvPart
    features: list[str]
    fills: Literal["assumed", "reported"]
    rows: RowsPart
    schedule: Schedule
    age: Natural
    account: list[Any]
    action: Any
    tradable: Flags | None
    decision: DecisionPart


def read(path: str | PathLike[str]) -> tuple[LiveFile, dict[str, Any]]:
    """Return the content of a live account's file after its checks, and its environment as it is described there.

    Raises files.FileError where there is no such file, or it does not fit its schema.
    """
    stored = files.load(path, KIND)
    version = stored.get("version") if isinstance(stored, dict) else None
    if type(version) is int and version > VERSION:
        raise files.FileError(f"{path} is the state of a newer jaxtrader; install that, or begin anew with policy.live")
    try:
        content: LiveFile = parse(stored, LiveFile)
        content.rows.check(len(content.features))
        if (slots := content.schedule.open_slots).shape != (WEEK_SLOTS,):
            raise SchemaError(f"schedule.open_slots has {len(slots)} parts, and must have {WEEK_SLOTS}")
    except (ValueError, TypeError) as error:  # settings are checked by their classes
        raise damaged(path, error) from error
    return content, stored["env"]


def damaged(path: str | PathLike[str], error: Exception) -> files.FileError:
    """Return the error that says that a file does not fit its schema."""
    reason = str(error) if isinstance(error, ValueError) else repr(error)
    return files.FileError(f"{path} is damaged ({shown(reason, 300)}); begin anew with policy.live(history)")
