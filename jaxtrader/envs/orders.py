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
    """An order before it is filled.

    Attributes:
        units: signed.
        clipped: it asked for more than leverage, volume or cash allow.
        dropped: a part of it was given up: no cash, too small, or no bar.
        spent: its buys take all cash there is.
        unfilled: no bar, or cut by the volume cap.
    """

    units: Float[Array, "*b A"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]
    spent: Bool[Array, "*b"]
    unfilled: Bool[Array, "*b A"]


def size(account: Account, target: Array, price: Array, equity: Array, bar: Bar, costs: Costs, rules: Rules) -> Sized:
    """The order that a target comes to at these prices."""
    sized = limited(account, target, price, equity, bar, rules)
    if rules.max_leverage > 1:
        return sized
    order, spent, given_up, cut = _cut_to_cash(account, sized.units, price, equity, bar, costs, rules)
    return Sized(order, sized.clipped | cut, sized.dropped | given_up, spent, sized.unfilled)


def limited(account: Account, target: Array, price: Array, equity: Array, bar: Bar, rules: Rules) -> Sized:
    """The order before it is cut to what cash can pay."""
    order, clipped, unfilled = wanted(account, target, price, equity, bar, rules)
    dropped = unfilled.any(-1)
    if rules.volume_cap is not None:
        assert bar.adv is not None
        most = rules.volume_cap * bar.adv / (rules.currency * price)
        over = jnp.abs(order) > most
        clipped, unfilled = clipped | over.any(-1), unfilled | over
        order = _not_dust(jnp.where(over, jnp.sign(order) * most, order), price, equity)
    order = _whole_lots(account, order, bar, rules)
    if rules.min_trade is not None:
        small = _too_small(order, price, rules)
        dropped |= small.any(-1)
        order = jnp.where(small, 0, order)
    cuts = rules.volume_cap is not None or rules.lot is not None or rules.min_trade is not None
    if account.units.shape[-1] > 1 and (cuts or rules.rebalance_band > 0 or rules.rebalance == "on_change"):
        order, over, given_up = _within_leverage(account, order, price, equity, bar, rules)
        clipped, dropped = clipped | over, dropped | given_up
    return Sized(order, clipped, dropped, jnp.zeros_like(account.ruined), unfilled)


def wanted(
    account: Account, target: Array, price: Array, equity: Array, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b A"]]:
    """Units to trade by leverage, size, dust and band alone; whether leverage was exceeded, and which bars miss."""
    asked = target
    if account.stopped is not None:  # a bracket has closed a position of that sign
        target = jnp.where((account.stopped != 0) & (jnp.sign(target) == account.stopped), jnp.nan, target)
    free = target if bar.present is None else jnp.where(bar.present, target, jnp.nan)
    scale, over = _cap(account, free, price, equity, rules, None if free is asked else asked)
    order = _order(account, target, target * scale[..., None], price, equity, rules)
    if bar.present is None:
        return order, over, jnp.zeros(order.shape, bool)
    return jnp.where(bar.present, order, 0), over, (order != 0) & ~bar.present


def _cap(
    account: Account, target: Array, price: Array, equity: Array, rules: Rules, asked: Array | None
) -> tuple[Float[Array, "*b"], Bool[Array, "*b"]]:
    """The factor that keeps gross exposure within the limit, and whether it was exceeded.

    Units held on NaN use it up first. Where more was `asked` for than can be ordered, its share stays in cash: the
    others get no more for it.
    """
    held = jnp.where(jnp.isnan(target), jnp.abs(account.units * price), 0).sum(-1) / equity
    room = jnp.maximum(rules.max_leverage - held, 0)
    gross = jnp.nansum(jnp.abs(target), -1)
    slack, tiny = 1 + dust(equity.dtype), jnp.finfo(equity.dtype).tiny
    first, over = 1.0, jnp.zeros(gross.shape, bool)
    if asked is not None:
        whole = jnp.nansum(jnp.abs(asked), -1)
        first = jnp.where(whole > rules.max_leverage, rules.max_leverage / jnp.maximum(whole, tiny), 1)
        over, gross = whole > rules.max_leverage * slack, gross * first
    # 1 where nothing is asked for: the target of an asset that has no bar is measured by the same factor.
    scale = first * jnp.where(gross > room, room / jnp.maximum(gross, tiny), 1)
    return scale, over | (gross > room * slack)


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
        none |= (target == account.target) & (True if account.unfilled is None else ~account.unfilled)
    return jnp.where(none, 0, order)


def _whole_lots(account: Account, order: Array, bar: Bar, rules: Rules) -> Float[Array, "*b A"]:
    """The order rounded towards zero to whole lots of raw shares; one that goes flat is left as it is."""
    if rules.lot is None:
        return order
    unit = rules.lot / rules.currency
    unit = unit if bar.factor is None else unit / bar.factor
    lots = order / unit
    near = jnp.round(lots)  # a whole number of lots must not lose one to rounding
    lots = jnp.where(jnp.abs(lots - near) <= dust(order.dtype) * jnp.maximum(1, jnp.abs(near)), near, jnp.trunc(lots))
    return jnp.where(order == -account.units, order, lots * unit)


def _not_dust(order: Array, price: Array, equity: Array) -> Float[Array, "*b A"]:
    """The order without what is too small to be a trade."""
    return jnp.where(jnp.abs(order) * price <= dust(equity.dtype) * equity[..., None], 0, order)


def _too_small(order: Array, price: Array, rules: Rules) -> Bool[Array, "*b A"]:
    """What is traded below the minimum trade."""
    assert rules.min_trade is not None
    return (order != 0) & (jnp.abs(order) * price * rules.currency < rules.min_trade)


def _within_leverage(
    account: Account, order: Array, price: Array, equity: Array, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Cut what raises positions by one factor to the leverage that the others leave (money rule 5).

    A sale that was cut or dropped, or units that drifted and are not traded, take up more than their target did: what
    another asset was to get for it is not there. One asset alone cannot get there.

    Returns the orders, whether they were cut, and whether one was given up: nothing was left for it, or too little.
    """
    units, after = account.units, account.units + order
    turns = units * after < 0  # through flat: all of the other side is new
    kept = jnp.where(turns, 0, jnp.minimum(jnp.abs(units), jnp.abs(after)))
    added = jnp.abs(after) - kept
    room = jnp.maximum(rules.max_leverage * equity - (kept * price).sum(-1), 0)
    more = (added * price).sum(-1)
    over = more > room + dust(equity.dtype) * equity
    share = (room / jnp.where(more > 0, more, 1))[..., None]
    less = _whole_lots(account, jnp.where(turns, after * share - units, order * share), bar, rules)
    less = jnp.where(turns & (jnp.abs(less) < jnp.abs(units)), -units, less)  # lots must not stop it short of flat
    less = _not_dust(less, price, equity)
    cut = over[..., None] & (added > 0)
    given_up = (cut & ~turns).any(-1) & (room <= dust(equity.dtype) * equity)
    if rules.min_trade is not None:
        small = cut & ~turns & _too_small(less, price, rules)  # to drop a turn would raise the position again
        given_up |= small.any(-1)
        less = jnp.where(small, 0, less)
    return jnp.where(cut, less, order), over, given_up


def _cut_to_cash(
    account: Account, order: Array, price: Array, equity: Array, bar: Bar, costs: Costs, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Cut all buys by one factor so that cash, after the sales, pays for them (money rule 5).

    Returns the orders, whether they spend all cash, whether a buy was dropped (no cash, or too little for the minimum
    trade), and whether the cut exceeds the trade's own costs.
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
    less = _whole_lots(account, order * share[..., None], bar, rules)
    order = _not_dust(jnp.where(buy & cut[..., None], less, order), price, equity)  # a cut may leave dust
    if rules.min_trade is not None:
        small = buy & cut[..., None] & _too_small(order, price, rules)
        dropped |= small.any(-1)
        order = jnp.where(small, 0, order)
    spent = cut & ~dropped & ~(buy & (order == 0)).any(-1)
    return order, spent, dropped, clipped
