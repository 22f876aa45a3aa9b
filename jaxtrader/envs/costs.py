"""What trading and holding cost: the rates, their ranges, and the formulas by which the ledger charges them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.market.trailing import VALUE_FLOOR

if TYPE_CHECKING:
    from jaxtrader.envs.account import Account, Bar
    from jaxtrader.envs.rules import Rules

LIMITS = {  # low, high (exclusive), what the number is
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
        return rate  # None, or what `validate` names
    return rates * 1e-4 if rates.ndim else float(rates) * 1e-4


class Costs(struct.PyTreeNode):
    """Costs of trading and holding; rates are fractions (1e-4 is one basis point). The default is not free.

    Each is a number, or (but for the rates on cash) one number an asset; None: absent, not traced.

    Attributes:
        fee: of the traded value, both sides.
        slippage: half the spread and more; a buy pays `price * (1 + slippage)`, a sale gets `price * (1 - slippage)`.
        fixed_fee: of each fill of an asset, in the market's currency.
        cash_rate: interest a year on cash beyond the value of what is held short.
        borrow_rate: interest a year on cash below 0.
        short_rate: fee a year on the value of what is held short.
        impact: Y of the square-root law (Almgren et al. 2005, Toth et al. 2011): slippage grows by
            Y * volatility * sqrt(traded value / average traded value of a bar), up to 1 in all: all of a sale. What has
            no traded value yet has nothing to size by, and is not ordered; before two returns are known, the volatility
            is as good as 0, and so is the impact.
    """

    fee: ArrayLike | None = 1e-4
    slippage: ArrayLike | None = 5e-4
    fixed_fee: ArrayLike | None = None
    cash_rate: ArrayLike | None = None
    borrow_rate: ArrayLike | None = None
    short_rate: ArrayLike | None = None
    impact: ArrayLike | None = None

    def __post_init__(self) -> None:
        for name in LIMITS:
            given = getattr(self, name)
            if isinstance(given, list | tuple):  # to JAX a container of numbers, not an array
                try:
                    object.__setattr__(self, name, np.asarray(given))
                except ValueError as error:
                    raise ValueError(f"{name} {given!r} must be a number, one number an asset, or None") from error

    @classmethod
    def from_bps(
        cls, fee: ArrayLike | None = 1.0, slippage: ArrayLike | None = 5.0, **others: ArrayLike | None
    ) -> Costs:
        """Fee and slippage in basis points, numbers, one an asset, or None; others as they are."""
        return cls(fee=_from_bps(fee), slippage=_from_bps(slippage), **others)

    @staticmethod
    def between(low: Costs, high: Costs) -> CostRange:
        """Costs drawn anew for each episode, each rate uniformly between its two values.

        Raises ValueError where only one of the two has a rate, or the low one is above the high one.
        """
        return CostRange(low, high).validate()

    def has(self, name: str) -> bool:
        """Whether that cost is charged at all."""
        return getattr(self, name) is not None

    @property
    def carries(self) -> bool:
        """Whether holding has a rate."""
        return any(self.has(name) for name in ("cash_rate", "borrow_rate", "short_rate"))

    def validate(self) -> Costs:
        """Return self, or raise ValueError where a rate is no number in its range."""
        for name, (low, high, what) in LIMITS.items():
            if not self.has(name):
                continue
            rates = np.asarray(getattr(self, name))
            if rates.dtype.kind not in "iuf":
                raise ValueError(f"{name} {getattr(self, name)!r} must be a number, one number an asset, or None")
            if rates.ndim > 1:
                raise ValueError(f"{name} has shape {rates.shape}; give a number, or one an asset")
            bad = ~((rates >= low) & (rates < high))
            if bad.any():
                raise ValueError(f"{name} {rates[bad].flat[0]:g} is outside [{low:g}, {high:g}): it is {what}")
        return self

    def check_assets(self, assets: int) -> None:
        """Raise ValueError where a cost is given for another number of assets."""
        for name in LIMITS:
            count = np.size(getattr(self, name)) if self.has(name) else 1
            if name in ("cash_rate", "borrow_rate"):
                if count != 1:
                    raise ValueError(f"{name} holds {count} numbers; give one, as all assets share one cash account")
            elif count not in (1, assets):
                each = f", or one for each of the {assets} assets" if assets > 1 else ", as the market has one asset"
                raise ValueError(f"{name} holds {count} numbers; give one{each}")

    def cast(self, dtype: DTypeLike) -> Costs:
        """The rates as strongly typed arrays: a Python float and a float32 would be two compilations."""
        return jax.tree.map(lambda rate: jnp.asarray(rate, dtype), self)

    def to_dict(self) -> dict[str, Any]:
        """The rates as plain data."""
        return {name: _plain(getattr(self, name)) for name in LIMITS}


class CostRange(struct.PyTreeNode):
    """Costs between two others; see `Costs.between`."""

    low: Costs
    high: Costs

    def has(self, name: str) -> bool:
        """Whether that cost is charged at all."""
        return self.low.has(name)

    @property
    def carries(self) -> bool:
        """Whether holding has a rate."""
        return self.low.carries

    @property
    def middle(self) -> Costs:
        """Half way: what validation and backtests charge unless told otherwise."""
        return jax.tree.map(lambda low, high: (low + high) / 2, self.low, self.high)

    def validate(self) -> CostRange:
        """Return self, or raise ValueError where it is no range."""
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
                raise ValueError(f"{name} is {_plain(low)} in the low costs and {_plain(high)} in the high ones")
        return self

    def check_assets(self, assets: int) -> None:
        """Raise ValueError where a cost is given for another number of assets."""
        self.low.check_assets(assets)
        self.high.check_assets(assets)

    def cast(self, dtype: DTypeLike) -> CostRange:
        """The rates as strongly typed arrays."""
        return CostRange(self.low.cast(dtype), self.high.cast(dtype))

    def draw(self, key: PRNGKeyArray, batch: tuple[int, ...]) -> Costs:
        """Costs of one episode each, `[*batch, 1]` or `[*batch, A]`."""
        lows, structure = jax.tree.flatten(self.low)
        highs = jax.tree.leaves(self.high)
        drawn = []
        for k, low, high in zip(jax.random.split(key, max(len(lows), 1)), lows, highs, strict=False):
            share = jax.random.uniform(k, (*batch, max(np.size(low), np.size(high))), low.dtype)
            drawn.append(low + share * (high - low))
        return jax.tree.unflatten(structure, drawn)

    def to_dict(self) -> dict[str, Any]:
        """Both ends as plain data."""
        return {"low": self.low.to_dict(), "high": self.high.to_dict()}


def from_dict(stored: dict[str, Any]) -> Costs | CostRange:
    """The costs that `to_dict` described."""
    if "low" in stored:
        return CostRange(Costs(**stored["low"]), Costs(**stored["high"]))
    return Costs(**stored)


def charges(
    order: Array, price: Array, costs: Costs, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Float[Array, "*b A"]]:
    """Fee and slippage of an order of signed units, in units of the initial capital (money rule 4).

    With p' = p (1 + slippage sign(d)), a fill takes d p' + fee |d| p' + fixed fee from cash.
    """
    notional = jnp.abs(order) * price
    rate = None if costs.slippage is None else costs.slippage
    if costs.impact is not None:
        assert bar.volatility is not None
        assert bar.adv is not None
        # Nothing is ordered where no traded value is known, but what must be closed is: of nothing it is no share.
        known = bar.adv > VALUE_FLOOR
        share = jnp.where(known, notional * rules.currency / jnp.where(known, bar.adv, 1), 0)
        impact = costs.impact * bar.volatility * jnp.sqrt(share)
        rate = jnp.minimum(impact if rate is None else rate + impact, 1)  # a sale brings nothing at worst
    slip = jnp.zeros_like(notional) if rate is None else notional * rate
    if costs.fee is None:
        fee = jnp.zeros_like(notional)
    else:
        fee = (notional if rate is None else notional + jnp.sign(order) * slip) * costs.fee
    if costs.fixed_fee is not None:
        fee += jnp.where(order != 0, costs.fixed_fee / rules.currency, 0)
    return fee, slip


def carry(account: Account, bar: Bar, costs: Costs) -> Float[Array, "*b"] | None:
    """Interest and funding on what is held from close[t] on (money rule 6); below 0 where they are paid."""
    if not costs.carries and bar.funding is None:
        return None
    held = account.units * bar.prev_close
    # Interest is of the account and not of an asset: an axis of one, which a rate an asset would not fit.
    cash, total = account.cash[..., None], jnp.zeros_like(account.cash)
    if costs.carries:
        assert bar.years is not None
        short = jnp.maximum(-held, 0)
        if costs.cash_rate is not None:
            idle = jnp.maximum(0, cash - short.sum(-1, keepdims=True))
            total += (jnp.asarray(costs.cash_rate) * idle * bar.years)[..., 0]
        if costs.borrow_rate is not None:
            total -= (jnp.asarray(costs.borrow_rate) * jnp.maximum(0, -cash) * bar.years)[..., 0]
        if costs.short_rate is not None:
            total -= (jnp.asarray(costs.short_rate) * short * bar.years).sum(-1)
    if bar.funding is not None:
        total -= (bar.funding * held).sum(-1)
    return jnp.where(account.ruined, 0, total)


def _plain(rate: ArrayLike | None) -> Any:
    return None if rate is None else np.asarray(rate, np.float64).tolist()
