"""Limit orders, which are placed at close[t] and rest for the bar t+1 (money rule 12)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.ledger.account import Account, Brackets, Fill, value, without_rest
from jaxtrader.ledger.bar import Bar, at_order
from jaxtrader.ledger.costs import Costs, on_tick
from jaxtrader.ledger.exits import adverse_level
from jaxtrader.ledger.orders import cash_after, cut_to_cash, order_before_cash
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import settle


class Resting(struct.PyTreeNode):
    """Limit orders that have not filled yet.

    Attributes:
        units: signed units to trade, 0 where nothing rests.
        price: their limits, which are the closes where nothing was placed.
        capped: whether the volume cap has cut an order, so that it is tried again.
        clipped: whether a target or an order was cut when it was placed.
        dropped: whether an order was given up when it was placed.
    """

    units: Float[Array, "*b A"]
    price: Float[Array, "*b A"]
    capped: Bool[Array, "*b A"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]

    def without(self, cancelled: Bool[Array, "*b A"]) -> Resting:
        """Return what rests but for the cancelled orders."""
        return self.replace(units=jnp.where(cancelled, 0, self.units))


def place(account: Account, target: Float[Array, "*b A"], bar: Bar, rules: Rules) -> tuple[Account, Resting]:
    """Size the orders for a target at close[t], with all caps but cash, and give each its limit.

    The account remembers the target, and that its orders have not filled.
    """
    bar = at_order(bar)
    price, equity = bar.prev_close, value(account, bar.prev_close)
    sized = order_before_cash(account, target, price, equity, bar, rules)
    units = jnp.where(account.ruined[..., None], 0, sized.units)
    alive, known = ~account.ruined, ~jnp.isnan(target)
    resting = Resting(
        units, _limits(units, price, bar, rules), sized.unfilled, sized.clipped & alive, sized.dropped & alive
    )
    account = account.replace(target=jnp.where(known & alive[..., None], target, account.target))
    if account.unfilled is not None:
        account = account.replace(unfilled=jnp.where(known, sized.unfilled | (units != 0), account.unfilled))
    return account, resting


def fill_at_open(
    account: Account, resting: Resting, bar: Bar, costs: Costs, rules: Rules
) -> tuple[Account, Fill, Resting]:
    """Fill the orders whose limit the open is at or beyond, at the open.

    They pay the costs of any order, but no price beyond their limit. Returns the accounts, the fill, and what rests on.
    """
    buys = resting.units > 0
    met = jnp.where(buys, bar.open <= resting.price, bar.open >= resting.price) & _has_order(resting, bar)
    account, fill = _fill(account, resting, met, bar.open, bar, costs, rules, worst=resting.price)
    return account, fill, resting.without(met)


def fill_inside(
    account: Account, resting: Resting, bar: Bar, costs: Costs, rules: Rules
) -> tuple[Account, Fill, Resting, Bool[Array, "*b A"]]:
    """Fill the orders whose limit lies within the bar, at the limit. They pay the maker's fee and no slippage.

    Returns the accounts, the fill, what has not filled, and which orders met their limit.
    """
    assert bar.low is not None
    assert bar.high is not None
    fee = costs.fee if costs.maker_fee is None else costs.maker_fee
    costs, at_limit = costs.replace(fee=fee, slippage=None, impact=None), rules.replace(tick=None)
    buys = resting.units > 0
    met = jnp.where(buys, bar.low <= resting.price, bar.high >= resting.price) & _has_order(resting, bar)
    account, fill = _fill(account, resting, met, jnp.where(met, resting.price, bar.open), bar, costs, at_limit)
    return account, fill, resting.without(met), met


def fills_before_exit(
    account: Account, resting: Resting, bar: Bar, rules: Rules, brackets: Brackets | None
) -> Bool[Array, "*b A"]:
    """Return which orders add to a position at a limit that prices meet before the stop or margin of the position."""
    level, long = adverse_level(account, bar, rules, brackets), account.units > 0
    return (account.units * resting.units > 0) & jnp.where(long, resting.price > level, resting.price < level)


def _limits(units: Array, price: Array, bar: Bar, rules: Rules) -> Float[Array, "*b A"]:
    """Return the limits of orders placed at these prices, on the tick that prices reach last."""
    limit = price * (1 - jnp.sign(units) * (rules.limit_offset or 0.0))
    return limit if rules.tick is None else on_tick(limit, units <= 0, bar, rules)


def _has_order(resting: Resting, bar: Bar) -> Bool[Array, "*b A"]:
    return resting.units != 0 if bar.present is None else (resting.units != 0) & bar.present


def _fill(
    account: Account,
    resting: Resting,
    met: Array,
    price: Array,
    bar: Bar,
    costs: Costs,
    rules: Rules,
    worst: Array | None = None,
) -> tuple[Account, Fill]:
    """Fill the orders that have met their limit. Buys may come before sales, so what sales bring pays for no buy."""
    equity = value(account, price)
    order, none = jnp.where(met, resting.units, 0), jnp.zeros_like(account.ruined)
    spent = dropped = clipped = none
    if rules.max_leverage <= 1:
        order, spent, dropped, clipped = cut_to_cash(
            account, order, price, equity, bar, costs, rules, worst=worst, proceeds=False
        )
    account, fill = settle(
        account, without_rest(account, order, price, equity), price, equity, bar, costs, rules, worst=worst
    )
    account = account.replace(cash=cash_after(account, spent & ~(fill.units < 0).any(-1), costs, rules))
    if account.unfilled is not None:
        account = account.replace(unfilled=jnp.where(met, resting.capped, account.unfilled))
    return account, fill.replace(clipped=clipped, dropped=dropped)
