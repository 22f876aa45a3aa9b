"""The costs of trading and holding: their rates and ranges, and the formulas by which the ledger charges them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.ledger.account import whole
from jaxtrader.ledger.cost_rates import A_BP, CostRates
from jaxtrader.market.bar_checks import format_time
from jaxtrader.market.clock import wall_clock
from jaxtrader.market.trailing import VALUE_FLOOR
from jaxtrader.setting_checks import check_unlabelled, setting

if TYPE_CHECKING:
    from jaxtrader.ledger.account import Account
    from jaxtrader.ledger.bar import Bar
    from jaxtrader.ledger.rules import Rules

NOT_A_RATE = "must be a number, one number an asset, or the name of a column"
LIMITS = {  # lowest value, upper bound (exclusive), meaning of the number
    "fee": (0.0, 0.5, "a share of the traded value, `fee=0.0001` is one basis point"),
    "slippage": (0.0, 0.5, "a share of the traded value, `slippage=0.0001` is one basis point"),
    "fixed_fee": (0.0, np.inf, "an amount of currency for each fill"),
    "cash_rate": (-0.5, 5.0, "a rate a year, 0.02 is two percent"),
    "borrow_rate": (0.0, 5.0, "a rate a year, 0.02 is two percent"),
    "short_rate": (0.0, 5.0, "a rate a year, 0.02 is two percent"),
    "impact": (0.0, 10.0, "the factor Y of the square-root law, about 1"),
    "share_fee": (0.0, np.inf, "an amount of currency for each share"),
    "min_fee": (0.0, np.inf, "an amount of currency for each order"),
    "max_fee": (0.0, 0.5, "a fraction of the traded value, 0.01 is one percent"),
    "maker_fee": (0.0, 0.5, "a share of the traded value, `maker_fee=0.0001` is one basis point"),
}


CASH_RATES = ("cash_rate", "borrow_rate")  # of the one cash account that all assets share
REBATES = ("fee", "borrow_rate", "short_rate", "maker_fee")  # rates that `Costs.rebates` may name


@jax.tree_util.register_static
class Column(str):
    """The name of a column of the bars that holds a rate for each bar. JAX takes it for a part of the program."""

    __slots__ = ()


def _from_bps(name: str, rate: ArrayLike | None) -> ArrayLike | None:
    if isinstance(rate, str):
        raise ValueError(
            f"`{name}={rate!r}` names a column of the bars, whose rates are fractions and no basis points; give it to "
            f"`Costs({name}={rate!r})`"
        )
    check_unlabelled(name, rate)
    rates = np.asarray(rate)
    if rates.dtype.kind not in "iuf":
        return rate  # `validate` refuses what is neither a number nor None
    return rates * A_BP if rates.ndim else float(rates) * A_BP


class Costs(CostRates, struct.PyTreeNode, frozen=True):
    """The costs of trading and holding. `CostRates` documents each rate. The default is not free.

    Rates out of range are refused by whoever takes costs: `TradingEnv`, `simulate` and `Costs.between` call `validate`.
    Costs are a pytree, of which JAX makes others that hold tracers, shapes or differences of rates.

    Attributes:
        rebates: names of the rates that may be below 0, of `fee`, `maker_fee`, `borrow_rate` and `short_rate`. The
            account is then paid for what costs otherwise.

    Example:
        >>> costs = jt.Costs.from_bps(fee=1, slippage=4)
        >>> costs.fee, costs.slippage
        (0.0001, 0.0004)
        >>> costs.replace(borrow_rate=0.05).borrow_rate
        0.05
    """

    rebates: tuple[str, ...] = struct.field(pytree_node=False, default=())

    def __post_init__(self) -> None:
        if not isinstance(self.rebates, tuple | list):
            raise ValueError(f"{setting('rebates', self.rebates)} must be a tuple of names, as in `rebates=('fee',)`")
        object.__setattr__(self, "rebates", tuple(self.rebates))
        for name in self.rebates:
            if name not in REBATES:
                raise ValueError(
                    f"`rebates` names {name!r}, which may not be below 0; name some of {', '.join(REBATES)}"
                )
        for name in LIMITS:
            given = getattr(self, name)
            if isinstance(given, str):
                object.__setattr__(self, name, Column(given))
            if isinstance(given, list | tuple):  # JAX takes a list for a tree and not for an array
                try:
                    object.__setattr__(self, name, np.asarray(given))
                except ValueError as error:
                    raise ValueError(f"{setting(name, given)} {NOT_A_RATE}") from error

    @classmethod
    def from_bps(
        cls,
        fee: ArrayLike | None = 1.0,
        slippage: ArrayLike | None = 5.0,
        maker_fee: ArrayLike | None = None,
        **others: Any,
    ) -> Costs:
        """Make costs of a fee, a slippage and a maker's fee in basis points. All other rates stay fractions.

        Raises ValueError where one of the three names a column of the bars, since a column holds fractions.
        """
        return cls(
            fee=_from_bps("fee", fee),
            slippage=_from_bps("slippage", slippage),
            maker_fee=_from_bps("maker_fee", maker_fee),
            **others,
        )

    @staticmethod
    def between(low: Costs, high: Costs) -> CostRange:
        """Make a range from which each episode draws its own costs, each rate uniformly between its two values.

        Raises ValueError where only one of the two has a rate, or a low rate is above the high one.
        """
        return CostRange(low, high).validate()

    def has(self, name: str) -> bool:
        """Whether a cost of this name is charged."""
        return getattr(self, name) is not None

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the bars that hold a rate, by the name of the rate."""
        rates = {name: getattr(self, name) for name in LIMITS}
        return {name: str(rate) for name, rate in rates.items() if isinstance(rate, Column)}

    @property
    def has_financing(self) -> bool:
        """Whether cash or shorts bear interest."""
        return any(self.has(name) for name in ("cash_rate", "borrow_rate", "short_rate"))

    @property
    def middle(self) -> Costs:
        """These costs, as the middle of a `CostRange` is one set of costs."""
        return self

    def validate(self) -> Costs:
        """Return self. Raise ValueError where a rate is not a number within its limits."""
        for name in LIMITS:
            if not self.has(name) or name in self.columns:
                continue
            check_unlabelled(name, getattr(self, name))
            rates = np.asarray(getattr(self, name))
            if rates.dtype.kind not in "iuf":
                raise ValueError(f"{setting(name, getattr(self, name))} {NOT_A_RATE}")
            if rates.ndim > 1 or not rates.size:
                raise ValueError(f"{setting(name)} has shape {rates.shape}; give a number, or one an asset")
            self._check_range(name, rates)
        if self.has("max_fee") and not (self.has("share_fee") or self.has("min_fee")):
            raise ValueError("`max_fee` bounds a `share_fee` or a `min_fee`; give one of them, or leave it out")
        return self

    def _check_range(self, name: str, rates: np.ndarray, where: str = "") -> None:
        """Raise ValueError where a number is outside the limits of its rate."""
        low, high, what = LIMITS[name]
        low = -high if name in self.rebates else low
        bad = ~((rates >= low) & (rates < high))
        if not bad.any():
            return
        wrong, hint = float(rates[bad].flat[0]), ""
        if name in REBATES and wrong < 0:
            hint = "; less than 0 is a rebate, which `jaxtrader.Costs(rebates=...)` allows"
        limits = f"at least {setting(name, low)} and " + (f"below {setting(name, high)}" if high < np.inf else "finite")
        raise ValueError(f"{setting(name, wrong)}{where} must be {limits}: it is {what}{hint}")

    def check_columns(self, market: Any) -> None:
        """Raise ValueError where a named column is not among the market's, or holds what is no rate."""
        for name, column in self.columns.items():
            if column not in market.columns:
                known = ", ".join(market.columns) or "none"
                raise ValueError(f"{setting(name, column)} must be a further column of the bars, which are {known}")
            rates = market.columns[column]
            if np.isnan(rates).any():
                row, asset = (int(found[0]) for found in np.nonzero(np.isnan(rates)))
                where = _bar_name(market, row, asset)
                raise ValueError(f"{setting(name, column)}: the column has no number at {where}; fill it in")
            if name in CASH_RATES and market.present is not None:  # a row without a bar repeats an older rate
                rates = np.where(market.present, rates, rates[np.arange(len(rates)), market.present.argmax(1)][:, None])
            if name in CASH_RATES and (differ := (rates != rates[:, :1]).any(1)).any():
                where = _bar_name(market, int(np.argmax(differ)))
                raise ValueError(
                    f"{setting(name, column)}: the column differs between assets at {where}, and they share one cash "
                    "account"
                )
            self._check_range(name, rates, f" in the column {column!r}")

    def check_assets(self, assets: int) -> None:
        """Raise ValueError where a rate holds numbers for another number of assets."""
        for name in LIMITS:
            count = np.size(getattr(self, name)) if self.has(name) and name not in self.columns else 1
            if name in CASH_RATES:
                if count != 1:
                    raise ValueError(
                        f"{setting(name)} holds {count} numbers; give one, as all assets share one cash account"
                    )
            elif count not in (1, assets):
                each = f", or one for each of the {assets} assets" if assets > 1 else ", as the market has one asset"
                raise ValueError(f"{setting(name)} holds {count} numbers; give one{each}")

    def cast(self, dtype: DTypeLike) -> Costs:
        """Return the rates as arrays of `dtype`, since a Python float and a float32 would compile twice."""
        return jax.tree.map(lambda rate: jnp.asarray(rate, dtype), self)

    def to_dict(self) -> dict[str, Any]:
        """Return the rates as plain data."""
        rates = {name: _to_plain(getattr(self, name)) for name in LIMITS}
        return rates | ({"rebates": list(self.rebates)} if self.rebates else {})


class CostRange(struct.PyTreeNode):
    """The lower and the upper bound of each rate, see `Costs.between`."""

    low: Costs
    high: Costs

    def has(self, name: str) -> bool:
        """Whether a cost of this name is charged."""
        return self.low.has(name)

    @property
    def has_financing(self) -> bool:
        """Whether cash or shorts bear interest."""
        return self.low.has_financing

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the bars that hold a rate, by the name of the rate."""
        return self.low.columns

    def check_columns(self, market: Any) -> None:
        """Raise ValueError where a named column is not among the market's, or holds what is no rate."""
        self.low.check_columns(market)

    @property
    def middle(self) -> Costs:
        """The mean of both bounds, which validation and backtests charge by default."""
        return jax.tree.map(lambda low, high: (low + high) / 2, self.low, self.high)

    def validate(self) -> CostRange:
        """Return self. Raise ValueError where the two bounds do not make a range."""
        for costs in (self.low, self.high):
            if not isinstance(costs, Costs):
                raise ValueError(f"Costs.between needs two Costs, not {costs!r}")
            costs.validate()
        if self.low.rebates != self.high.rebates:
            raise ValueError(
                f"`rebates` are {self.low.rebates} in the low costs and {self.high.rebates} in the high ones"
            )
        for name in LIMITS:
            low, high = getattr(self.low, name), getattr(self.high, name)
            if isinstance(low, Column) or isinstance(high, Column):
                if low != high:
                    raise ValueError(
                        f"{setting(name)} is {low!r} in the low costs and {high!r} in the high ones; a column is no "
                        "range"
                    )
                continue
            if (low is None) != (high is None):
                raise ValueError(f"only one of the two costs has {setting(name)}; give both a number, or None")
            if low is not None and len({np.size(low), np.size(high)} - {1}) > 1:
                raise ValueError(
                    f"{setting(name)} holds {np.size(low)} numbers in the low costs and {np.size(high)} in the high "
                    "ones; give one, or one for each asset"
                )
            if low is not None and (np.asarray(low) > np.asarray(high)).any():
                raise ValueError(
                    f"{setting(name)} is {_to_plain(low)} in the low costs and {_to_plain(high)} in the high ones"
                )
        return self

    def check_assets(self, assets: int) -> None:
        """Raise ValueError where a rate holds numbers for another number of assets."""
        self.low.check_assets(assets)
        self.high.check_assets(assets)

    def cast(self, dtype: DTypeLike) -> CostRange:
        """Return both bounds as arrays of `dtype`."""
        return CostRange(self.low.cast(dtype), self.high.cast(dtype))

    def draw(self, key: PRNGKeyArray, batch: tuple[int, ...]) -> Costs:
        """Draw costs for a batch of episodes, `[*batch, 1]` or `[*batch, A]` a rate."""
        lows, structure = jax.tree.flatten(self.low)
        highs = jax.tree.leaves(self.high)
        drawn = []
        for k, low, high in zip(jax.random.split(key, max(len(lows), 1)), lows, highs, strict=False):
            share = jax.random.uniform(k, (*batch, max(np.size(low), np.size(high))), low.dtype)
            drawn.append(low + share * (high - low))
        return jax.tree.unflatten(structure, drawn)

    def to_dict(self) -> dict[str, Any]:
        """Return both bounds as plain data."""
        return {"low": self.low.to_dict(), "high": self.high.to_dict()}


def check_costs(costs: object) -> None:
    """Raise ValueError where these are neither Costs nor a CostRange."""
    if not isinstance(costs, Costs | CostRange):
        raise ValueError(f"{setting('costs', costs)} must be `Costs(fee=..., slippage=...)`")


def _bar_name(market: Any, row: int, asset: int | None = None) -> str:
    """Return the time of a row of a market, and the symbol of an asset there."""
    time = format_time(wall_clock(market.times[row : row + 1], market.tz)[0])
    if asset is None:
        return time
    history = int(np.flatnonzero((market.segments[:, 0] <= row) & (row < market.segments[:, 2]))[:1].sum())
    name = market.symbols[history]
    return f"{time}, a bar of {name.split(',')[asset] if market.close.shape[1] > 1 else name}"


def from_dict(stored: dict[str, Any]) -> Costs | CostRange:
    """Return the costs that `to_dict` described."""
    if "low" in stored:
        return CostRange(Costs(**stored["low"]), Costs(**stored["high"]))
    return Costs(**stored)


def charges(
    order: Float[Array, "*b A"],
    price: Float[Array, "*b A"],
    costs: Costs,
    bar: Bar,
    rules: Rules,
    worst: Float[Array, "*b A"] | None = None,
) -> tuple[Float[Array, "*b A"], Float[Array, "*b A"]]:
    """Compute fee and slippage, in units of the initial capital, of an order of d signed units (money rule 4).

    A fill at the market price p takes d p' + fee |d| p' + fixed fee from cash, with p' = p (1 + slippage sign(d)). A
    limit order's p' is never beyond `worst`, its limit.
    """
    notional = jnp.abs(order) * price
    rate = costs.slippage
    if costs.impact is not None:
        assert bar.volatility is not None
        assert bar.adv is not None
        # No order fills where no traded value is known, but a forced exit does. Its impact is 0.
        known = bar.adv > VALUE_FLOOR
        share = jnp.where(known, notional * rules.currency_per_unit / jnp.where(known, bar.adv, 1), 0)
        impact = costs.impact * bar.volatility * jnp.sqrt(share)
        rate = jnp.minimum(impact if rate is None else rate + impact, 1)  # the proceeds of a sale stay at or above 0
    slip = jnp.zeros_like(notional) if rate is None else notional * rate
    if rules.tick is not None:
        slip = _to_tick(order, price, slip, bar, rules)
    if worst is not None:
        slip = jnp.minimum(slip, jnp.abs(order) * jnp.abs(worst - price))
    if costs.fee is None:
        fee = jnp.zeros_like(notional)
    else:
        plain = rate is None and rules.tick is None
        fee = (notional if plain else notional + jnp.sign(order) * slip) * costs.fee
    if costs.share_fee is not None:
        fee += jnp.abs(order) * _unit_fee(costs, rules)
    if costs.min_fee is not None:
        fee = jnp.where(order != 0, jnp.maximum(fee, costs.min_fee / rules.currency_per_unit), fee)
    if costs.max_fee is not None:
        fee = jnp.minimum(fee, costs.max_fee * (notional + jnp.sign(order) * slip))
    if costs.fixed_fee is not None:
        fee += jnp.where(order != 0, costs.fixed_fee / rules.currency_per_unit, 0)
    return fee, slip


def affordable(
    order: Float[Array, "*b A"], budget: Float[Array, "*b A"], price: Float[Array, "*b A"], costs: Costs, rules: Rules
) -> Float[Array, "*b A"]:
    """Return the part of each buy that a budget pays for, with its fee but without any fixed fee (money rule 5).

    `price` is the price paid, slippage included. The fee is min(max(a d, minimum), cap), and each of the three makes
    what d units cost a straight line. So the units are the least or the greatest of three quotients.
    """
    a = (0 if costs.fee is None else costs.fee * price) + (0 if costs.share_fee is None else _unit_fee(costs, rules))
    units = budget / (price + a)
    if costs.min_fee is not None:
        units = jnp.minimum(units, jnp.maximum(budget - costs.min_fee / rules.currency_per_unit, 0) / price)
    if costs.max_fee is not None:
        units = jnp.maximum(units, budget / (price * (1 + costs.max_fee)))
    return jnp.minimum(units, order)


def _unit_fee(costs: Costs, rules: Rules) -> Array:
    """Return the `share_fee` of a unit, which `bar.costs_at` has made of that of a raw share or point."""
    fee = jnp.asarray(costs.share_fee)
    return fee if rules.multiplier is None else fee / jnp.asarray(rules.multiplier, fee.dtype)


def _to_tick(order: Array, price: Array, slip: Array, bar: Bar, rules: Rules) -> Float[Array, "*b A"]:
    """Return the slippage of orders whose raw price is rounded to the tick, against the account (money rule 4b)."""
    size, side = jnp.abs(order), jnp.sign(order)
    paid = on_tick(price + side * slip / jnp.where(order == 0, 1, size), order > 0, bar, rules)
    return jnp.where(order == 0, 0, jnp.maximum(side * (paid - price), 0) * size)


def on_tick(price: Float[Array, "*b A"], up: Bool[Array, "*b A"], bar: Bar, rules: Rules) -> Float[Array, "*b A"]:
    """Return prices rounded to ticks of the raw price, up or down (money rules 4b and 12)."""
    tick = jnp.asarray(rules.tick, price.dtype)
    tick = tick if bar.factor is None else tick * bar.factor
    ticks = price / tick
    return whole(ticks, jnp.where(up, jnp.ceil(ticks), jnp.floor(ticks))) * tick


def interest(
    account: Account, price: Float[Array, "*b A"], years: Float[Array, "*b 1"], costs: Costs
) -> Float[Array, "*b"]:
    """Compute the interest of some time on the holdings at these prices, below 0 where the account pays.

    Free cash is cash less the value of shorts. It earns where it is above 0, and is borrowed where it is below
    (money rule 6). The amount is in units of the initial capital, and 0 for a ruined account.
    """
    short = jnp.maximum(-account.units * price, 0)
    # Interest on cash belongs to the account: its axis of one does not broadcast with a rate for each asset.
    free, total = account.cash[..., None] - short.sum(-1, keepdims=True), jnp.zeros_like(account.cash)
    if costs.cash_rate is not None:
        total += (jnp.asarray(costs.cash_rate) * jnp.maximum(0, free) * years)[..., 0]
    if costs.borrow_rate is not None:
        total -= (jnp.asarray(costs.borrow_rate) * jnp.maximum(0, -free) * years)[..., 0]
    if costs.short_rate is not None:
        total -= (jnp.asarray(costs.short_rate) * short * years).sum(-1)
    return jnp.where(account.ruined, 0, total)


def funding(account: Account, price: Float[Array, "*b A"], rate: Float[Array, "*b A"]) -> Float[Array, "*b"]:
    """Compute the funding of the holdings at these prices. Above 0, longs pay it and shorts get it (money rule 6)."""
    paid = (rate * account.units * price).sum(-1)
    return jnp.where(account.ruined, 0, jnp.zeros_like(paid) - paid)  # 0 and not -0 where nothing is due


def dividends(account: Account, paid: Float[Array, "*b A"]) -> Float[Array, "*b"]:
    """Compute the dividends of the holdings, below 0 where shorts pay more than longs get (money rule 6a)."""
    received = (account.units * paid).sum(-1)
    return jnp.where(account.ruined, 0, received)


def _to_plain(rate: ArrayLike | None) -> Any:
    if rate is None or isinstance(rate, str):
        return rate if rate is None else str(rate)
    return np.asarray(rate, np.float64).tolist()
