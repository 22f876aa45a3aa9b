"""Booking an execution: the one place where cash and units change hands (money rule 4)."""

from __future__ import annotations

import functools
import operator

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxtrader.envs.account import FORCED, Account, Bar, Fill
from jaxtrader.envs.costs import Costs, charges
from jaxtrader.envs.rewards import FLOOR
from jaxtrader.envs.rules import Rules


def settle(
    account: Account,
    order: Array,
    price: Array,
    equity: Array,
    bar: Bar,
    costs: Costs,
    rules: Rules,
    reason: ArrayLike = 0,
) -> tuple[Account, Fill]:
    """Book a fill: p' = p (1 + slippage sign(d)); cash -= d p' + fee |d| p' + fixed fee; units += d."""
    fee, slippage = charges(order, price, costs, bar, rules)
    units = account.units + order
    added = account.units * order >= 0
    average = (account.units * account.entry + order * price) / jnp.where(units == 0, 1, units)
    entry = jnp.where(added, average, jnp.where(account.units * units > 0, account.entry, price))
    traded = order != 0
    none = jnp.zeros_like(account.ruined)
    account = account.replace(
        cash=account.cash - (order * price + fee + slippage).sum(-1),
        units=units,
        entry=jnp.where(traded, jnp.where(units == 0, 0, entry), account.entry),
        held=jnp.where(traded, 0, account.held),
    )
    why = jnp.where(traded, jnp.asarray(reason, jnp.int8), jnp.int8(0))
    return account, Fill(order, jnp.broadcast_to(price, order.shape), fee, slippage, equity, why, none, none)


def both(first: Fill, second: Fill) -> Fill:
    """Two fills of different assets at one time as one; equity is that of the first that was one."""
    later = second.units != 0
    some = (first.units != 0).any(-1)
    return Fill(
        units=first.units + second.units,
        price=jnp.where(later, second.price, first.price),
        fee=first.fee + second.fee,
        slippage=first.slippage + second.slippage,
        equity=jnp.where(some, first.equity, second.equity),
        reason=jnp.where(later, second.reason, first.reason),
        clipped=first.clipped | second.clipped,
        dropped=first.dropped | second.dropped,
    )


def turnover(fill: Fill, mark: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Traded value / equity at the fill, both sides.

    A forced closing may find equity near or below 0: it counts by the `mark` before, as in a `Book`.
    """
    forced = functools.reduce(operator.or_, (fill.reason == reason for reason in FORCED))
    equity = jnp.where(forced, mark[..., None], fill.equity[..., None])
    return (jnp.abs(fill.units) * fill.price / jnp.maximum(equity, FLOOR)).sum(-1)
