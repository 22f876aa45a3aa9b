"""From a target to an order: leverage, size, dust, band, volume cap, lots, what cash allows (money rules 3, 5, 8)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.envs.account import Account, Bar, dust
from jaxtrader.envs.costs import Costs, charges
from jaxtrader.envs.rules import Rules


class Sized(struct.PyTreeNode):
    """An order before it is filled: signed units, and what became of what was asked for."""

    units: Float[Array, "*b A"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]
    cut: Bool[Array, "*b"]


def size(account: Account, target: Array, price: Array, equity: Array, bar: Bar, costs: Costs, rules: Rules) -> Sized:
    """The order that a target comes to at these prices."""
    held = hold_where(account, target, bar)
    wanted, over_limit = _cap(account, held, price, equity, rules)
    order = _order(account, held, wanted, price, equity, rules)
    dropped = jnp.zeros_like(account.ruined)
    if bar.present is not None:
        meant = _order(account, target, jnp.where(jnp.isnan(target), 0, target), price, equity, rules)
        dropped |= ((meant != 0) & ~bar.present).any(-1)
    if rules.volume_cap is not None:
        assert bar.adv is not None
        most = rules.volume_cap * bar.adv / (rules.currency * price)
        over_limit |= (jnp.abs(order) > most * (1 + dust(order.dtype))).any(-1)
        order = jnp.clip(order, -most, most)
    order = _whole_lots(order, held == 0, bar, rules)
    if rules.min_trade is not None:
        small = (order != 0) & (jnp.abs(order) * price * rules.currency < rules.min_trade)
        dropped |= small.any(-1)
        order = jnp.where(small, 0, order)
    none = jnp.zeros_like(account.ruined)
    if rules.max_leverage > 1:
        return Sized(order, over_limit, dropped, none)
    order, cut, given_up, clipped = _cut_to_cash(account, order, price, equity, bar, costs, rules)
    order = _whole_lots(order, held == 0, bar, rules)
    return Sized(order, over_limit | clipped, dropped | given_up, cut)


def hold_where(account: Account, target: Array, bar: Bar) -> Float[Array, "*b A"]:
    """The target with NaN where nothing can be traded: no bar, or a bracket has closed a position of that sign."""
    if account.stopped is not None:
        target = jnp.where((account.stopped != 0) & (jnp.sign(target) == account.stopped), jnp.nan, target)
    return target if bar.present is None else jnp.where(bar.present, target, jnp.nan)


def _cap(
    account: Account, target: Array, price: Array, equity: Array, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"]]:
    """Scale the targets so that gross exposure stays within the limit; units held on NaN use it up first."""
    held = jnp.where(jnp.isnan(target), jnp.abs(account.units * price), 0).sum(-1) / equity
    room = jnp.maximum(rules.max_leverage - held, 0)
    gross = jnp.nansum(jnp.abs(target), -1)
    scale = jnp.minimum(1, room / jnp.where(gross > 0, gross, 1))
    return target * scale[..., None], gross > room * (1 + dust(equity.dtype))


def _order(
    account: Account, target: Array, wanted: Array, price: Array, equity: Array, rules: Rules
) -> Float[Array, "*b A"]:
    """Units to trade before costs: none on NaN, in dust, in the band (a target of 0 ignores it), or unchanged."""
    order = wanted * equity[..., None] / price - account.units
    value = jnp.abs(order) * price
    none = jnp.isnan(target) | (value <= dust(equity.dtype) * equity[..., None])
    if rules.rebalance_band > 0:
        none |= (value < rules.rebalance_band * equity[..., None]) & (target != 0)
    if rules.rebalance == "on_change":
        none |= target == account.target
    return jnp.where(none, 0, order)


def _whole_lots(order: Array, flat: Array, bar: Bar, rules: Rules) -> Float[Array, "*b A"]:
    """The order rounded towards zero to whole lots of raw shares; one that goes flat is left as it is."""
    if rules.lot is None:
        return order
    lot = rules.lot / rules.currency
    unit = lot if bar.factor is None else lot / bar.factor
    lots = order / unit
    near = jnp.round(lots)  # a whole number of lots must not lose one to rounding
    lots = jnp.where(jnp.abs(lots - near) <= dust(order.dtype) * jnp.maximum(1, jnp.abs(near)), near, jnp.trunc(lots))
    return jnp.where(flat, order, lots * unit)


def _cut_to_cash(
    account: Account, order: Array, price: Array, equity: Array, bar: Bar, costs: Costs, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Cut all buys by one factor so that cash, after the sales, pays for them (money rule 5).

    Returns the orders, whether they were cut, whether the buys were dropped, and whether the cut exceeds the trade's
    own costs.
    """
    fee, slippage = charges(order, price, costs, bar, rules)
    pay = order * price + fee + slippage  # negative where a sale brings cash
    buy = order > 0
    cash = account.cash - jnp.where(buy, 0, pay).sum(-1)
    if costs.fixed_fee is not None:
        fixed = jnp.where(buy, costs.fixed_fee / rules.currency, 0)
        cash, pay = cash - fixed.sum(-1), pay - fixed
    buys = jnp.where(buy, pay, 0).sum(-1)
    cut = (buys > 0) & (buys > cash)  # rounding may leave cash a hair below 0 with nothing to buy
    share = jnp.where(cut, jnp.maximum(cash, 0) / jnp.where(buys > 0, buys, 1), 1)
    dropped = cut & (cash <= 0)
    clipped = cut & (buys - jnp.maximum(cash, 0) > (fee + slippage).sum(-1) + dust(equity.dtype) * equity)
    order = jnp.where(buy, order * share[..., None], order)
    # A cut may leave less than dust: that is no trade either.
    small = jnp.abs(order) * price <= dust(equity.dtype) * equity[..., None]
    return jnp.where(small, 0, order), cut, dropped, clipped
