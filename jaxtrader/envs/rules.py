"""The rules under which orders fill: one frozen, hashable object, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypedDict, cast, get_args

from jaxtrader.envs.costs import CostRange, Costs

Fills = Literal["close", "next_open", "next_close"]
Rebalance = Literal["always", "on_change"]


class RuleArgs(TypedDict, total=False):
    """The fields of `Rules` as keyword arguments; `stops` follows from the brackets given."""

    fill: Fills
    rebalance_band: float
    rebalance: Rebalance
    ruin_level: float
    max_leverage: float
    maintenance_margin: float | None
    delay: int
    capital: float | None
    lot: float | None
    min_trade: float | None
    volume_cap: float | None
    delist_return: float
    flat_at_session_end: bool


RULE_NAMES = tuple(RuleArgs.__annotations__)
NUMBERS = ("rebalance_band", "ruin_level", "max_leverage", "delist_return")
NUMBERS_OR_NONE = ("maintenance_margin", "capital", "lot", "min_trade", "volume_cap")


@dataclass(frozen=True)
class Rules:
    """How orders become fills. Static: a change compiles anew, and a rule that is off is not compiled.

    Attributes:
        fill: where a decision taken at close[t] fills: `"next_open"` (open[t+1]), `"next_close"` (close[t+1]; where the
            same close ends a session or the asset, what is bought is sold at once), or `"close"` (close[t] itself:
            optimistic, for comparison).
        rebalance_band: no trade smaller than this share of equity, except to go flat.
        rebalance: `"always"` re-applies the target at every bar, `"on_change"` trades only when the target changes:
            what a bracket, the margin or a session's end has closed stays closed until then.
        ruin_level: equity, in units of the initial capital, at or below which everything is closed for good.
        max_leverage: gross exposure that orders may ask for; more is cut by one factor, and the share of what has no
            bar or was stopped stays in cash. Above 1, cash may go below 0.
        maintenance_margin: equity / gross position value below which everything is liquidated. None: half of the
            initial margin, 0.5 / max_leverage, where max_leverage is above 1, and none where it is not. 0: none.
        delay: bars that an order waits longer than `fill` says.
        capital: the initial capital in the market's currency, which fixed fees, lots, minimum trades and impact need.
        lot: raw shares in a lot; orders are rounded towards zero to whole lots, except to go flat.
        min_trade: orders of less value, in currency, are dropped.
        volume_cap: the most that one order may be of the traded value of an average bar.
        delist_return: what a delisted asset's last close loses before it is closed there, as in -0.3.
        stops: orders carry stop-losses or take-profits (`Brackets`).
        flat_at_session_end: everything is closed at the close of each trading session, also what has no bar there.
    """

    fill: Fills = "next_open"
    rebalance_band: float = 0.05
    rebalance: Rebalance = "always"
    ruin_level: float = 0.01
    max_leverage: float = 1.0
    maintenance_margin: float | None = None
    delay: int = 0
    capital: float | None = None
    lot: float | None = None
    min_trade: float | None = None
    volume_cap: float | None = None
    delist_return: float = 0.0
    stops: bool = False
    flat_at_session_end: bool = False

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fills):
            raise ValueError(f"fill {self.fill!r} is unknown; use one of {', '.join(get_args(Fills))}")
        if self.rebalance not in get_args(Rebalance):
            raise ValueError(f"rebalance {self.rebalance!r} is unknown; use one of {', '.join(get_args(Rebalance))}")
        for name in NUMBERS + NUMBERS_OR_NONE:
            value = getattr(self, name)
            if not _is_number(value) and not (value is None and name in NUMBERS_OR_NONE):
                raise ValueError(f"{name} {value!r} must be a number" + " or None" * (name in NUMBERS_OR_NONE))
        for name in ("flat_at_session_end", "stops"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} {getattr(self, name)!r} must be True or False")
        if not _is_number(self.delay, Integral) or not 0 <= self.delay <= 100:
            raise ValueError(f"delay {self.delay!r} must be a whole number of bars, 0 to 100")
        self._check_leverage()
        self._check_amounts()

    def _check_leverage(self) -> None:
        if not 0 <= self.rebalance_band < 1:
            raise ValueError(f"rebalance_band {self.rebalance_band} is outside [0, 1): it is a share of equity")
        if not 0 <= self.ruin_level < 1:
            raise ValueError(f"ruin_level {self.ruin_level} is outside [0, 1): it is a share of the initial capital")
        if not 0 < self.max_leverage <= 100:
            raise ValueError(f"max_leverage {self.max_leverage} is outside (0, 100]: it is gross exposure / equity")
        limit = 1 / max(self.max_leverage, 1)
        if self.maintenance_margin is not None and not 0 <= self.maintenance_margin < limit:
            raise ValueError(
                f"maintenance_margin {self.maintenance_margin} is outside [0, {limit:.4g}): it is equity / gross "
                f"position value, of which a full position at max_leverage {self.max_leverage:g} has {limit:.4g}"
            )
        if not -1 <= self.delist_return <= 0:
            raise ValueError(f"delist_return {self.delist_return} is outside [-1, 0]: it is a loss, as in -0.3")

    def _check_amounts(self) -> None:
        for name, what in (("capital", "currency"), ("lot", "raw shares"), ("min_trade", "currency")):
            amount = getattr(self, name)
            if amount is not None and not 0 < amount < math.inf:
                raise ValueError(f"{name} {amount} must be above 0, in {what}; None where there is none")
        if self.volume_cap is not None and not 0 < self.volume_cap <= 1:
            raise ValueError(
                f"volume_cap {self.volume_cap} is outside (0, 1]: it is a share of an average bar's volume"
            )
        for name in ("lot", "min_trade", "volume_cap"):
            if getattr(self, name) is not None and self.capital is None:
                raise ValueError(f"{name} needs capital, the initial capital in the market's currency")

    @property
    def args(self) -> RuleArgs:
        """All but `stops`, as keyword arguments."""
        return cast(RuleArgs, {name: getattr(self, name) for name in RULE_NAMES})

    @property
    def currency(self) -> float:
        """Currency in a unit of equity; 1 where nothing is in currency."""
        return 1.0 if self.capital is None else self.capital

    @property
    def margin(self) -> float:
        """The maintenance margin in force; 0 where there is none."""
        if self.maintenance_margin is not None:
            return self.maintenance_margin
        return 0.5 / self.max_leverage if self.max_leverage > 1 else 0.0

    def check_costs(self, costs: Costs | CostRange) -> None:
        """Raise ValueError where costs in currency have no capital to relate to."""
        for name in ("fixed_fee", "impact"):
            if costs.has(name) and self.capital is None:
                raise ValueError(f"{name} needs capital, the initial capital in the market's currency")


def _is_number(value: object, kind: type = Real) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
