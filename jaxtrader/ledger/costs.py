"""The costs of trading and holding: their rates and ranges, and the formulas by which the ledger charges them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.market.trailing import VALUE_FLOOR

if TYPE_CHECKING:
    from jaxtrader.ledger.account import Account
    from jaxtrader.ledger.bar import Bar
    from jaxtrader.ledger.rules import Rules

NOT_A_RATE = "must be a number, one number an asset, or None"
LIMITS = {  # lowest value, upper bound (exclusive), meaning of the number
    "fee": (0.0, 0.5, "a fraction of the traded value, 1e-4 is one basis point"),
    "slippage": (0.0, 0.5, "a fraction of the traded value, 1e-4 is one basis point"),
    "fixed_fee": (0.0, np.inf, "an amount of currency for each fill"),
    "cash_rate": (-0.5, 5.0, "a rate a year, 0.02 is two percent"),
    "borrow_rate": (0.0, 5.0, "a rate a year, 0.02 is two percent"),
    "short_rate": (0.0, 5.0, "a rate a year, 0.02 is two percent"),
    "impact": (0.0, 10.0, "the factor Y of the square-root law, about 1"),
}


def _from_bps(rate: ArrayLike | None) -> ArrayLike | None:
    rates = np.asarray(rate)
    if rates.dtype.kind not in "iuf":
        return rate  # `validate` refuses what is neither a number nor None
    return rates * 1e-4 if rates.ndim else float(rates) * 1e-4


class Costs(CostRates, struct.PyTreeNode, frozen=True):
    """The costs of trading and holding. `CostRates` documents each rate. The default is not free."""

    def __post_init__(self) -> None:
        for name in LIMITS:
            given = getattr(self, name)
            if isinstance(given, list | tuple):  # JAX takes a list for a tree and not for an array
                try:
                    object.__setattr__(self, name, np.asarray(given))
                except ValueError as error:
                    raise ValueError(f"{name} {given!r} {NOT_A_RATE}") from error

    @classmethod
    def from_bps(
        cls, fee: ArrayLike | None = 1.0, slippage: ArrayLike | None = 5.0, **others: ArrayLike | None
    ) -> Costs:
        """Make costs of a fee and a slippage in basis points. All other rates stay fractions."""
        return cls(fee=_from_bps(fee), slippage=_from_bps(slippage), **others)

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
    def has_financing(self) -> bool:
        """Whether cash or shorts bear interest."""
        return any(self.has(name) for name in ("cash_rate", "borrow_rate", "short_rate"))

    def validate(self) -> Costs:
        """Return self. Raise ValueError where a rate is not a number within its limits."""
        for name, (low, high, what) in LIMITS.items():
            if not self.has(name):
                continue
            rates = np.asarray(getattr(self, name))
            if rates.dtype.kind not in "iuf":
                raise ValueError(f"{name} {getattr(self, name)!r} {NOT_A_RATE}")
            if rates.ndim > 1:
                raise ValueError(f"{name} has shape {rates.shape}; give a number, or one an asset")
            bad = ~((rates >= low) & (rates < high))
            if bad.any():
                raise ValueError(f"{name} {rates[bad].flat[0]:g} is outside [{low:g}, {high:g}): it is {what}")
        return self

    def check_assets(self, assets: int) -> None:
        """Raise ValueError where a rate holds numbers for another number of assets."""
        for name in LIMITS:
            count = np.size(getattr(self, name)) if self.has(name) else 1
            if name in ("cash_rate", "borrow_rate"):
                if count != 1:
                    raise ValueError(f"{name} holds {count} numbers; give one, as all assets share one cash account")
            elif count not in (1, assets):
                each = f", or one for each of the {assets} assets" if assets > 1 else ", as the market has one asset"
                raise ValueError(f"{name} holds {count} numbers; give one{each}")

    def cast(self, dtype: DTypeLike) -> Costs:
        """Return the rates as arrays of `dtype`, since a Python float and a float32 would compile twice."""
        return jax.tree.map(lambda rate: jnp.asarray(rate, dtype), self)

    def to_dict(self) -> dict[str, Any]:
        """Return the rates as plain data."""
        return {name: _to_plain(getattr(self, name)) for name in LIMITS}


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
    def middle(self) -> Costs:
        """The mean of both bounds, which validation and backtests charge by default."""
        return jax.tree.map(lambda low, high: (low + high) / 2, self.low, self.high)

    def validate(self) -> CostRange:
        """Return self. Raise ValueError where the two bounds do not make a range."""
        for costs in (self.low, self.high):
            if not isinstance(costs, Costs):
                raise ValueError(f"Costs.between needs two Costs, not {costs!r}")
            costs.validate()
        for name in LIMITS:
            low, high = getattr(self.low, name), getattr(self.high, name)
            if (low is None) != (high is None):
                raise ValueError(f"only one of the two costs has {name}; give both a number, or None")
            if low is not None and len({np.size(low), np.size(high)} - {1}) > 1:
                raise ValueError(
                    f"{name} holds {np.size(low)} numbers in the low costs and {np.size(high)} in the high ones; give "
                    "one, or one for each asset"
                )
            if low is not None and (np.asarray(low) > np.asarray(high)).any():
                raise ValueError(f"{name} is {_to_plain(low)} in the low costs and {_to_plain(high)} in the high ones")
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


def from_dict(stored: dict[str, Any]) -> Costs | CostRange:
    """Return the costs that `to_dict` described."""
    if "low" in stored:
        return CostRange(Costs(**stored["low"]), Costs(**stored["high"]))
    return Costs(**stored)


def charges(
    order: Float[Array, "*b A"], price: Float[Array, "*b A"], costs: Costs, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Float[Array, "*b A"]]:
    """Compute fee and slippage, in units of the initial capital, of an order of d signed units (money rule 4).

    With p' = p (1 + slippage sign(d)), a fill at the market price p takes d p' + fee |d| p' + fixed fee from cash.
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
    if costs.fee is None:
        fee = jnp.zeros_like(notional)
    else:
        fee = (notional if rate is None else notional + jnp.sign(order) * slip) * costs.fee
    if costs.fixed_fee is not None:
        fee += jnp.where(order != 0, costs.fixed_fee / rules.currency_per_unit, 0)
    return fee, slip


def financing(account: Account, bar: Bar, costs: Costs) -> Float[Array, "*b"] | None:
    """Compute interest and funding on the holdings at close[t], below 0 where the account pays (money rule 6).

    The amount is in units of the initial capital, or None where nothing is financed.
    """
    if not costs.has_financing and bar.funding is None:
        return None
    position = account.units * bar.prev_close
    # Interest on cash belongs to the account: its axis of one does not broadcast with a rate for each asset.
    cash, total = account.cash[..., None], jnp.zeros_like(account.cash)
    if costs.has_financing:
        assert bar.years is not None
        short = jnp.maximum(-position, 0)
        if costs.cash_rate is not None:
            idle = jnp.maximum(0, cash - short.sum(-1, keepdims=True))
            total += (jnp.asarray(costs.cash_rate) * idle * bar.years)[..., 0]
        if costs.borrow_rate is not None:
            total -= (jnp.asarray(costs.borrow_rate) * jnp.maximum(0, -cash) * bar.years)[..., 0]
        if costs.short_rate is not None:
            total -= (jnp.asarray(costs.short_rate) * short * bar.years).sum(-1)
    if bar.funding is not None:
        total -= (bar.funding * position).sum(-1)
    return jnp.where(account.ruined, 0, total)


def _to_plain(rate: ArrayLike | None) -> Any:
    return None if rate is None else np.asarray(rate, np.float64).tolist()
