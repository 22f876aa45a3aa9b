"""The rules by which orders fill, without JAX: the command line derives its flags and their help from this class."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtrader.setting_checks import check_flag, check_number, check_unlabelled, check_whole, is_number, setting

if TYPE_CHECKING:
    from jaxtrader.ledger.costs import CostRange, Costs

PerAsset = float | tuple[float, ...] | None

FillTime = Literal["close", "next_open", "next_close", "limit"]
Rebalance = Literal["always", "on_change"]

BRACKETS = ("stop_loss", "take_profit", "trailing_stop")  # levels at which a position is closed
REQUIRED_NUMBERS = ("ruin_level", "max_leverage", "delist_return")
SHORT_MARGIN = 0.25  # the maintenance margin of an environment with shorts: a quarter of the position's value
OPTIONAL_NUMBERS = ("rebalance_band", "maintenance_margin", "capital", "lot", "min_trade", "volume_cap", "limit_offset")


def default_band(assets: int) -> float:
    """Return the rebalance band of an environment that was given none (money rule 3)."""
    return min(0.05, 0.5 / assets)


def meaning_of_bracket(name: str) -> str:
    """Return what the number of a bracket means, as messages say it."""
    price = "best" if name == "trailing_stop" else "entry"
    return f"it is a fraction of the {price} price, 0.03 is 3%"


def check_bracket(name: str, fraction: Any, below_1: bool = False) -> None:
    """Raise ValueError where the number of a bracket is out of range. An infinite one is never met, so it is none.

    Args:
        name: one of BRACKETS.
        fraction: its number.
        below_1: whether a take-profit must be below 1 too. The others always must be: no price falls by more than 1, so
            that 3 was meant as 3%.
    """
    if not is_number(fraction):
        raise ValueError(f"{setting(name, fraction)} must be a number: {meaning_of_bracket(name)}")
    if not fraction > 0:
        raise ValueError(f"{setting(name, fraction)} must be above 0: {meaning_of_bracket(name)}")
    if 1 <= fraction < math.inf and (below_1 or name != "take_profit"):
        raise ValueError(f"{setting(name, fraction)} must be below 1: {meaning_of_bracket(name)}")


@dataclass(frozen=True)
class Rules:
    """How orders become fills. The rules are static: a change compiles anew, and a rule that is off is not compiled.

    Attributes:
        fill: When a decision taken at a bar's close fills. "next_open": at the next bar's open. "next_close": at the
            next bar's close. What is bought at the close that ends a session or a listing is sold there at once.
            "close": at the close that the decision saw, which is optimistic and meant for comparison. "limit": at a
            limit that rests for the next bar, or at its open where that is better, or not at all.
        rebalance_band: The smallest trade, as a share of equity. Smaller trades are not made, except to go flat. By
            default it is 0.05 where an agent decides, or half of an equal weight where an account has more than 10
            assets. Where targets are given, as in `simulate`, it is 0 by default.
        rebalance: When a target is traded. "always": at every bar. "on_change": only when the target changes or is 0.
            What a stop, the margin or a session's end has closed then stays closed until the target changes.
        ruin_level: The share of the initial capital at or below which everything is closed for good.
        max_leverage: The largest gross exposure that orders may ask for, in units of equity. Larger orders are all
            cut by one factor. The share of an asset that has no bar or was stopped stays in cash. Above 1 the account
            trades on credit, with a maintenance margin.
        maintenance_margin: The share of equity in the gross position value below which everything is liquidated. By
            default it is half of the initial margin (0.5 / max_leverage) where max_leverage is above 1. At most 1, it
            is 0.25 for an environment whose agent may be short, else 0. With 0 nothing is liquidated.
        delay: The number of bars that an order waits beyond its fill.
        capital: The initial capital of each account, in the market's currency. Fixed fees, lots, minimum trades,
            volume caps and impact need it.
        lot: The number of raw shares, or of contracts, in a lot. Orders are rounded towards zero to whole lots, except
            to go flat.
        min_trade: The smallest value of an order, in currency. Smaller orders are dropped.
        volume_cap: The largest order, as a share of the traded value of an average bar. Stops, take-profits and
            liquidations keep it too, and close the rest later. Delistings, session ends and ruin do not.
        delist_return: The return at which an asset is closed that counts as delisted, such as -0.3.
        flat_at_session_end: Whether everything is closed at the close of each trading session. An asset without a bar
            there is closed at the open of its next bar.
        multiplier: The currency in a point of a futures contract, such as 50, or one number for each asset. The lot and
            the share_fee are then of contracts.
        tick: The smallest step of the raw price, such as 0.25, or one number for each asset. After slippage a fill is
            rounded to it, against the account.
        limit_offset: How far from the close that the decision saw a limit is, below it for buys and above it for sales,
            such as 0.001. By default it is 0.
        dividends: The column of the bars with the cash dividend of a share, in the row of its ex-date. Longs receive
            and shorts pay it at that bar's open. It needs prices that are not adjusted for dividends.

    Example:
        >>> jt.Rules(fill="next_close").replace(rebalance_band=0.1).rebalance_band
        0.1
    """

    fill: FillTime = "next_open"
    rebalance_band: float | None = None
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
    flat_at_session_end: bool = False
    multiplier: PerAsset = None
    tick: PerAsset = None
    limit_offset: float | None = None
    dividends: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("fill", get_args(FillTime)), ("rebalance", get_args(Rebalance))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{setting(name, getattr(self, name))} is unknown; use one of {', '.join(choices)}")
        for name in REQUIRED_NUMBERS + OPTIONAL_NUMBERS:
            value = getattr(self, name)
            if value is not None or name in REQUIRED_NUMBERS:
                check_number(name, value)
        check_flag("flat_at_session_end", self.flat_at_session_end)
        if self.dividends is not None and (not isinstance(self.dividends, str) or not self.dividends):
            raise ValueError(
                f"{setting('dividends', self.dividends)} must name a column of the bars, such as 'Dividends', or be "
                "None"
            )
        object.__setattr__(self, "delay", check_whole("delay", self.delay, 0, 100, "bars"))
        if self.limit_offset is not None and self.fill != "limit":
            raise ValueError(
                f"`limit_offset` needs `fill='limit'`, not {setting('fill', self.fill)}; give that, or leave it out"
            )
        self._check_shares()
        self._check_amounts()
        self._check_per_asset()

    def _check_shares(self) -> None:
        limit = 1 / self.full_exposure
        full = f"of which a full position at {setting('max_leverage', self.max_leverage)} has {limit:.4g}"
        for name, is_inside, meaning in (
            ("rebalance_band", lambda x: 0 <= x < 1, "[0, 1): it is a share of equity"),
            ("ruin_level", lambda x: 0 <= x < 1, "[0, 1): it is a share of the initial capital"),
            ("max_leverage", lambda x: 0 < x <= 100, "(0, 100]: it is gross exposure / equity"),
            (
                "maintenance_margin",
                lambda x: 0 <= x < limit,
                f"[0, {limit:.4g}): it is equity / gross position value, {full}",
            ),
            ("delist_return", lambda x: -1 <= x <= 0, "[-1, 0]: it is a loss, as in -0.3"),
            ("volume_cap", lambda x: 0 < x <= 1, "(0, 1]: it is a share of an average bar's volume"),
            ("limit_offset", lambda x: 0 <= x < 0.5, "[0, 0.5): it is a share of the price"),
        ):
            value = getattr(self, name)
            if value is not None and not is_inside(value):
                raise ValueError(f"{setting(name, value)} is outside {meaning}")

    def _check_amounts(self) -> None:
        for name, unit in (("capital", "currency"), ("lot", "raw shares"), ("min_trade", "currency")):
            amount = getattr(self, name)
            if amount is not None and not 0 < amount < math.inf:
                raise ValueError(
                    f"{setting(name, amount)} must be above 0, in {unit}; leave it out where there is none"
                )
        for name in ("lot", "min_trade", "volume_cap"):
            if getattr(self, name) is not None:
                self._require_capital(name)

    def _check_per_asset(self) -> None:
        for name, unit in (("multiplier", "currency in a point, 1 for shares"), ("tick", "steps of the raw price")):
            value = given = getattr(self, name)
            if given is None:
                continue
            check_unlabelled(name, given)
            if not is_number(given):
                try:
                    given = tuple(given)
                except TypeError:
                    given = ()
                object.__setattr__(self, name, given)
            each = given if isinstance(given, tuple) else (given,)
            if not each or not all(is_number(x) and 0 < x < math.inf for x in each):
                raise ValueError(
                    f"{setting(name, value)} must be a number above 0, or one for each asset, in {unit}; "
                    "leave it out where there is none"
                )

    def check_assets(self, assets: int) -> None:
        """Raise ValueError where a rule holds numbers for another number of assets."""
        for name in ("multiplier", "tick"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != assets:
                raise ValueError(
                    f"{setting(name)} holds {len(given)} numbers; give one, or one for each of the {assets} assets of "
                    "a history"
                )

    def _require_capital(self, name: str) -> None:
        if self.capital is None:
            raise ValueError(f"{setting(name)} needs `capital`, the initial capital in the market's currency")

    def replace(self, **changes: Any) -> Rules:
        """Return the same rules with the given fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as plain data."""
        return dataclasses.asdict(self)

    @property
    def currency_per_unit(self) -> float:
        """Currency in one unit of equity, which is the capital. It is 1 where no rule or cost needs a currency."""
        return 1.0 if self.capital is None else self.capital

    @property
    def full_exposure(self) -> float:
        """The exposure of a full position, the unit of the exposures that a decision sees: max_leverage, at least 1."""
        return max(self.max_leverage, 1.0)

    @property
    def exposure_without_credit(self) -> float:
        """The largest exposure that the account's own capital pays for: max_leverage, at most 1."""
        return min(self.max_leverage, 1.0)

    @property
    def bars_to_fill(self) -> int:
        """Bars from the close that a decision sees to the bar of its fill: the delay, and 1 unless that close fills."""
        return self.delay + (self.fill != "close")

    @property
    def margin(self) -> float:
        """The maintenance margin in force, or 0 where there is none."""
        if self.maintenance_margin is not None:
            return self.maintenance_margin
        return 0.5 / self.max_leverage if self.max_leverage > 1 else 0.0

    def with_band(self, band: float) -> Rules:
        """Return the rules with this rebalance band where none was chosen."""
        return self if self.rebalance_band is not None else self.replace(rebalance_band=band)

    def with_short_margin(self) -> Rules:
        """Return the rules of an agent that may be short: with a maintenance margin where none was chosen."""
        chosen = self.maintenance_margin is not None or self.max_leverage > 1
        return self if chosen else self.replace(maintenance_margin=SHORT_MARGIN)

    def check_brackets(self, brackets: Mapping[str, Any]) -> None:
        """Raise ValueError where a bar with a limit order and a bracket would not tell which of them came first."""
        for name in ("take_profit", "trailing_stop"):
            if self.fill == "limit" and brackets.get(name) is not None:
                raise ValueError(
                    f"a bar does not tell whether a limit order or {setting(name)} came first; leave {setting(name)} "
                    "out, or give another `fill`"
                )

    def check_costs(self, costs: Costs | CostRange) -> None:
        """Raise ValueError where a cost needs a capital or limit orders, or a multiplier has no contracts to count."""
        for name in ("fixed_fee", "impact", "min_fee"):
            if costs.has(name):
                self._require_capital(name)
        if costs.has("maker_fee") and self.fill != "limit":
            raise ValueError(
                f"`maker_fee` is of limit orders, not of {setting('fill', self.fill)}; give `fill='limit'`, or leave "
                "it out"
            )
        if self.multiplier is not None and self.lot is None and not costs.has("share_fee"):
            raise ValueError(
                f"{setting('multiplier', self.multiplier)} is the worth of a contract, and nothing counts contracts; "
                "give `lot=1` for whole ones, or a `share_fee` for each"
            )


def check_rules(rules: object) -> None:
    """Raise ValueError where these are no Rules."""
    if not isinstance(rules, Rules):
        raise ValueError(f"{setting('rules', rules)} must be `Rules(fill=..., max_leverage=...)`")
