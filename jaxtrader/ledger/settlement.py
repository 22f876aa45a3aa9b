"""Books executions. It is the only place where cash is exchanged for units (money rule 4)."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from jaxtrader.ledger.account import EQUITY_FLOOR, FORCED, Account, Fill
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs, charges
from jaxtrader.ledger.rules import Rules


def settle(
    account: Account,
    order: Float[Array, "*b A"],
    price: Float[Array, "*b A"],
    equity: Float[Array, "*b"],
    bar: Bar,
    costs: Costs,
    rules: Rules,
    reason: ArrayLike = 0,
    *,
    worst: Float[Array, "*b A"] | None = None,
) -> tuple[Account, Fill]:
    """Book an order of d signed units at the market price p, see `charges` for its costs.

    cash -= d p' + fee |d| p' + fixed fee, and units += d, with p' = p (1 + slippage sign(d)). The fill records the
    `equity` of the accounts at p, and the `reason`, an index into REASONS. `worst` is that of `charges`.
    """
    fee, slippage = charges(order, price, costs, bar, rules, worst)
    units = account.units + order
    extends = account.units * order > 0
    # In this form an entry at one price is that price to the last digit, and a low that touches a level meets it.
    average = account.entry + (price - account.entry) * (order / jnp.where(units == 0, 1, units))
    entry = jnp.where(extends, average, jnp.where(account.units * units > 0, account.entry, price))
    traded = order != 0
    no = jnp.zeros_like(account.ruined)
    account = account.replace(
        cash=account.cash - (order * price + fee + slippage).sum(-1),
        units=units,
        entry=jnp.where(traded, jnp.where(units == 0, 0, entry), account.entry),
        bars_since_fill=jnp.where(traded, 0, account.bars_since_fill),
        best=None if account.best is None else jnp.where(account.units * units > 0, account.best, price),
    )
    reason = jnp.where(traded, jnp.asarray(reason, jnp.int8), jnp.int8(0))
    return account, Fill(order, jnp.broadcast_to(price, order.shape), fee, slippage, equity, reason, no, no)


def merge_fills(first: Fill, second: Fill) -> Fill:
    """Merge two fills of different assets at one time. The equity is the first fill's where it traded anything."""
    later = second.units != 0
    traded = (first.units != 0).any(-1)
    beyond = [flag for flag in (first.beyond_cap, second.beyond_cap) if flag is not None]
    return Fill(
        units=first.units + second.units,
        price=jnp.where(later, second.price, first.price),
        fee=first.fee + second.fee,
        slippage=first.slippage + second.slippage,
        equity=jnp.where(traded, first.equity, second.equity),
        reason=jnp.where(later, second.reason, first.reason),
        clipped=first.clipped | second.clipped,
        dropped=first.dropped | second.dropped,
        beyond_cap=functools.reduce(operator.or_, beyond) if beyond else None,
    )


def turnover(fill: Fill, equity_before: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Return the value traded / equity (money rule 1). `equity_before` is that of the close before the bar."""
    forced = jnp.isin(fill.reason, jnp.asarray(FORCED))
    equity = equity_of_fill(forced, equity_before[..., None], fill.equity[..., None])
    return (jnp.abs(fill.units) * fill.price / equity).sum(-1)


def equity_of_fill(forced: Any, equity_before: Any, equity: Any) -> Any:
    """Return the equity by which a fill is measured (money rule 1), at least EQUITY_FLOOR.

    That is the `equity` at the fill. Where the closing was `forced`, little of it may be left. So it is then that of
    the close before. The arguments are arrays of NumPy or of JAX.
    """
    xp = np if isinstance(equity, np.ndarray) else jnp
    return xp.maximum(xp.where(forced, equity_before, equity), EQUITY_FLOOR)
