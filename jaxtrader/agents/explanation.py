"""Why did it buy here? One decision of a policy, with all that it saw and what each member of an ensemble wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader.envs.actions import Positions
from jaxtrader.envs.observation import ACCOUNT_FEATURES, BEST_PRICE
from jaxtrader.ledger.account import MAX_BARS_SINCE_FILL
from jaxtrader.market.clock import wall_clock

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 40  # of features, that are printed
AGREES = 1e-3  # the largest difference between a target and the policy's own, which float32 explains


@dataclass(frozen=True, eq=False)
class Seen:
    """What one decision of a result saw, and what it chose.

    Attributes:
        symbols: the A assets of the account.
        bar: the bar of the result at whose close it was decided.
        time: that close, UTC.
        tz: the zone in which the time is shown. None is UTC.
        window: raw features, oldest bar first.
        account: see `TradingEnv.account_features`. A portfolio may have one more number an asset, for tradable.
        target: the exposure that was asked for. NaN holds.
        orders: units and price of each asset's order that was filled, NaN where none was.
        full: the unit of exposure and last target in `account`: `max_leverage`, and at least 1.
    """

    symbols: tuple[str, ...]
    bar: int
    time: np.datetime64
    tz: str | None
    window: Float[np.ndarray, "bar A F"]
    account: Float[np.ndarray, "A K"]
    target: Float[np.ndarray, " A"]
    orders: Float[np.ndarray, "A 2"]
    full: float = 1.0


@dataclass(frozen=True, eq=False)
class MemberDecision:
    """What one network made of what it saw. An agent of the user's own tells no more than its `select_action` does.

    Attributes:
        target: the exposure of each asset that it chose.
        probabilities: the probability of each position, where it chooses from positions. None: its actions are
            continuous, or it has no probabilities.
        deviation: the standard deviation of each asset's action before it is mapped into its bounds, with which it
            explored at the end of training. None where it chooses from positions.
        value: what it expected: the discounted sum of the rewards that follow. NaN where it has none, as in a policy
            file of version 1 or 2, which does not hold the scale.
    """

    target: Float[np.ndarray, " A"]
    probabilities: dict[float, float] | None
    deviation: Float[np.ndarray, " A"] | None
    value: float

    @classmethod
    def of(cls, action: Array, about: dict[str, Array], positions: Positions) -> MemberDecision:
        """Return what an agent chose, from the first row of what its `act` returned."""
        target, shares, deviation = np.asarray(action[0]), None, None
        if isinstance(positions, tuple):
            target = np.array([positions[int(target)]])
            if "probabilities" in about:
                shares = dict(zip(positions, np.asarray(about["probabilities"][0]).tolist(), strict=True))
        elif "deviation" in about:
            deviation = np.asarray(about["deviation"][0])
        return cls(target, shares, deviation, float(about["value"][0]) if "value" in about else math.nan)


@dataclass(frozen=True, eq=False)
class Explanation:
    """One decision of a policy. It prints as a small table.

    Attributes:
        seen: what it saw and chose.
        members: what each member of an ensemble made of that, by its seed. Another policy has one.
        features: names of the window's features.
        normalized: the window as the network saw it.
        account_names: the names of the account's numbers.
    """

    seen: Seen
    members: dict[str, MemberDecision]
    features: tuple[str, ...]
    normalized: Float[np.ndarray, "bar A F"]
    account_names: tuple[str, ...]

    @property
    def target(self) -> Float[np.ndarray, " A"]:
        """The exposure of each asset that was asked for."""
        return self.seen.target

    @property
    def probabilities(self) -> dict[float, float] | None:
        """The probability of each position, of an ensemble the mean over its members. None: not of positions."""
        each = [member.probabilities for member in self.members.values()]
        if each[0] is None:
            return None
        return {position: float(np.mean([one[position] for one in each if one])) for position in each[0]}

    @property
    def value(self) -> float:
        """The discounted sum of rewards that was expected, of an ensemble the mean over its members."""
        return float(np.mean([member.value for member in self.members.values()]))

    @property
    def account(self) -> dict[str, Float[np.ndarray, " A"]]:
        """What it saw of its account, by name, in the units of `TradingEnv.account_features`."""
        return dict(zip(self.account_names, self.seen.account.T, strict=False))

    def to_frame(self) -> pd.DataFrame:
        """The features of the window's last bar: raw, and as the network saw them. One row an asset and feature."""
        import pandas as pd

        last = {"raw": self.seen.window[-1].ravel(), "normalized": self.normalized[-1].ravel()}
        rows = pd.MultiIndex.from_product([self.seen.symbols, self.features], names=["symbol", "feature"])
        frame = pd.DataFrame(last, index=rows)
        return frame.droplevel("symbol") if len(self.seen.symbols) == 1 else frame

    def __str__(self) -> str:
        seen = self.seen
        time = np.datetime_as_string(wall_clock(np.array([seen.time]), seen.tz)[0], unit="m").replace("T", " ")
        rows = [
            ("decided", f"{', '.join(seen.symbols)}, at the close of bar {seen.bar}, {time} {seen.tz or 'UTC'}"),
            ("target", _listed(seen.symbols, seen.target)),
            ("order", _orders(seen)),
            ("value", _number(self.value)),
        ]
        if self.probabilities is not None:
            rows.append(("probabilities", _shares(self.probabilities)))
        if len(self.members) > 1:
            for name, one in self.members.items():
                shares = "" if one.probabilities is None else f", {_shares(one.probabilities)}"
                rows.append((name, f"{_listed(seen.symbols, one.target)}, value {_number(one.value)}{shares}"))
        for name, numbers in self.account.items():
            rows.append((name, _listed(seen.symbols, numbers, lambda x, name=name: _of_account(name, x, seen.full))))
        width = 2 + max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}{text}" for name, text in rows]
        table = self.to_frame()
        of = f" of the last of {len(seen.window)} bars" if len(seen.window) > 1 else ""
        lines += ["", f"features{of}", table.head(MAX_ROWS).to_string(float_format=_number, index_names=False)]
        if len(table) > MAX_ROWS:
            lines.append(f"{len(table) - MAX_ROWS} more are in to_frame()")
        return "\n".join(lines)


def _orders(seen: Seen) -> str:
    """What was traded."""
    filled = [
        f"{'bought' if units > 0 else 'sold'} {abs(units):.4g} {symbol} at {price:.6g}"
        for symbol, (units, price) in zip(seen.symbols, seen.orders, strict=True)
        if np.isfinite(units)
    ]
    return " and ".join(filled) if filled else "none was filled"


def _number(value: float) -> str:
    """Four digits. A dash where it is unknown."""
    return f"{value:.4g}" if np.isfinite(value) else "-"


def _of_account(name: str, number: float, full: float) -> str:
    """A number that a network sees of its account, in the unit that its name says."""
    exposure, last_target, gain, bars = ACCOUNT_FEATURES
    if name in (exposure, last_target):
        return _number(full * number)
    if name in (gain, BEST_PRICE):
        return f"{_number(number)} x a usual move of 20 bars"
    if name == bars:
        counted = round(MAX_BARS_SINCE_FILL * number)
        return f"{counted} or more" if counted == MAX_BARS_SINCE_FILL else str(counted)
    return _number(number)


def _listed(symbols: tuple[str, ...], numbers: np.ndarray, text: Callable[[float], str] = _number) -> str:
    if len(symbols) == 1:
        return text(numbers[0])
    return ", ".join(f"{symbol} {text(number)}" for symbol, number in zip(symbols, numbers, strict=True))


def _shares(probabilities: dict[float, float]) -> str:
    return ", ".join(f"{position:g}: {share:.1%}" for position, share in probabilities.items())
