"""Turns a target into an order of signed units, and applies all caps to it (money rules 3, 5, 8 and 9)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.ledger.account import Account, dust, is_dust, whole, without_rest
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs, affordable, charges
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.trailing import VALUE_FLOOR


class OrderSize(struct.PyTreeNode):
    """An order before it is filled.

    Attributes:
        units: signed units to trade.
        clipped: whether it asked for more than leverage, volume or cash allow.
        dropped: whether an asset's order was given up, because it had no cash or no bar, or was too small.
        spent: whether its buys take all cash.
        unfilled: whether an asset has no bar, or was cut by the volume cap.
    """

    units: Float[Array, "*b A"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]
    spent: Bool[Array, "*b"]
    unfilled: Bool[Array, "*b A"]


def size_order(
    account: Account, target: Array, price: Array, equity: Array, bar: Bar, costs: Costs, rules: Rules
) -> OrderSize:
    """Size the order for a target, with all caps of money rule 5.

    The order fills at `price` `[*b, A]`, where the accounts are worth `equity` `[*b]`. The target `[*b, A]` is an
    exposure, or NaN to hold the units.
    """
    sized = order_before_cash(account, target, price, equity, bar, rules)
    if rules.max_leverage <= 1:
        order, spent, dropped, clipped = cut_to_cash(account, sized.units, price, equity, bar, costs, rules)
        clipped, dropped = sized.clipped | clipped, sized.dropped | dropped
        sized = OrderSize(order, clipped, dropped, spent, sized.unfilled)
    if account.units.shape[-1] > 1 or rules.lot is not None or rules.volume_cap is not None:
        return sized.replace(units=without_rest(account, sized.units, price, equity))
    return sized  # One asset is cut to the cash alone, which leaves no rest of a position.


def order_before_cash(
    account: Account, target: Array, price: Array, equity: Array, bar: Bar, rules: Rules
) -> OrderSize:
    """Size the order with all caps but cash. The arguments are those of `size_order`."""
    order, clipped, unfilled = _desired_order(account, target, price, equity, bar, rules)
    dropped = unfilled.any(-1)
    if rules.volume_cap is not None:
        capped, over = cut_to_volume(order, price, bar, rules)
        clipped, unfilled = clipped | over.any(-1), unfilled | over
        order = _drop_dust(capped, price, equity)
    order = _round_to_lots(account, order, bar, rules)
    if rules.min_trade is not None:
        small = _below_min_trade(order, price, rules)
        dropped |= small.any(-1)
        order = jnp.where(small, 0, order)
    keeps_units = any(rule is not None for rule in (rules.volume_cap, rules.lot, rules.min_trade))
    keeps_units |= bool(rules.rebalance_band) or rules.rebalance == "on_change"
    if account.units.shape[-1] > 1 and keeps_units:
        order, cut, lost = _cut_to_leverage(account, order, price, equity, bar, rules)
        clipped, dropped = clipped | cut, dropped | lost
    return OrderSize(order, clipped, dropped, jnp.zeros_like(account.ruined), unfilled)


def cut_to_volume(
    order: Array, price: Array, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b A"]]:
    """Cut orders to the volume cap, which is 0 where no traded value is known yet (money rules 4 and 5).

    Returns the orders, and which of them were larger.
    """
    assert rules.volume_cap is not None
    assert bar.adv is not None
    traded = jnp.where(bar.adv > VALUE_FLOOR, bar.adv, 0)
    cap = rules.volume_cap * traded / (rules.currency_per_unit * price)
    over = jnp.abs(order) > cap * (1 + dust(order.dtype))
    return jnp.where(over, jnp.sign(order) * cap, order), over


def _desired_order(
    account: Account, target: Array, price: Array, equity: Array, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b A"]]:
    """Size the order by leverage, dust and band alone. The arguments are those of `size_order`.

    Returns signed units, whether targets exceeded the leverage limit, and which orders miss their bar.
    """
    requested, target = target, unblocked(account, target, rules)
    possible = target if bar.fillable is None else jnp.where(bar.fillable, target, jnp.nan)
    blocked = None if possible is requested else requested
    scale, over = _leverage_scale(account, possible, price, equity, rules, blocked)
    order = _order_units(account, target, scale, price, equity, rules)
    if bar.fillable is None:
        return order, over, jnp.zeros(order.shape, bool)
    return jnp.where(bar.fillable, order, 0), over, (order != 0) & ~bar.fillable


def lift_blocks(account: Any, target: Any) -> Any:
    """End the block of a bracket where the target leaves its sign (money rule 8). See `unblocked` for the arguments."""
    if account.stopped is None:
        return account
    xp: Any = np if isinstance(account.stopped, np.ndarray) else jnp
    lifted = ~xp.isnan(target) & (xp.sign(target) != account.stopped)
    return account.replace(stopped=xp.where(lifted, 0, account.stopped).astype(xp.int8))


def unblocked(account: Any, target: Any, rules: Rules) -> Any:
    """Return what brackets leave of a target (money rule 8), NaN where the target has the sign that one closed.

    It is 0 where the volume cap has left some of what a bracket closes, which the next orders sell.

    Args:
        account: an `Account`, or a part of one with its `units` and `stopped`, whose blocks `lift_blocks` has ended.
        target: exposures. The arrays of both are JAX's, or NumPy's on the host.
        rules: how orders fill.
    """
    if account.stopped is None:
        return target
    xp: Any = np if isinstance(account.stopped, np.ndarray) else jnp
    target = xp.where((account.stopped != 0) & (xp.sign(target) == account.stopped), xp.nan, target)
    if rules.volume_cap is not None:
        left = (account.stopped != 0) & (xp.sign(account.units) == account.stopped)
        target = xp.where(left, 0, target)
    return target


def last_target(account: Account, requested: Array) -> Float[Array, "*b A"]:
    """Return the last targets, where these have come to their fill (money rule 3). A ruined account keeps its own."""
    return jnp.where(jnp.isnan(requested) | account.ruined[..., None], account.target, requested)


def in_force(targets: Float[np.ndarray, "bar *b A"]) -> Float[np.ndarray, "bar *b A"]:
    """Return `last_target` after each of many bars, on the host: NaN becomes the target before it, or 0."""
    rows = np.where(np.isnan(targets), -1, np.arange(len(targets)).reshape(-1, *[1] * (targets.ndim - 1)))
    rows = np.maximum.accumulate(rows, axis=0)
    return np.where(rows < 0, 0, np.take_along_axis(targets, np.maximum(rows, 0), axis=0))


def delayed_targets(targets: Float[np.ndarray, "bar *b A"], rules: Rules) -> Float[np.ndarray, "bar *b A"]:
    """Return the target whose delay is over at each of many bars from the first, on the host. See `step`."""
    waiting = np.full_like(targets[: rules.delay], np.nan)
    return np.concatenate([waiting, targets])[: len(targets)]


def _leverage_scale(
    account: Account, target: Array, price: Array, equity: Array, rules: Rules, requested: Array | None
) -> tuple[Float[Array, "*b"], Bool[Array, "*b"]]:
    """Return the factor that keeps gross exposure within the limit, and whether targets exceeded it.

    Assets that cannot be ordered are NaN in `target` and not in `requested`. Their share of the limit stays in cash.
    """
    kept = jnp.where(jnp.isnan(target), jnp.abs(account.units * price), 0).sum(-1) / equity
    room = jnp.maximum(rules.max_leverage - kept, 0)
    gross = jnp.nansum(jnp.abs(target), -1)
    slack, tiny = 1 + dust(equity.dtype), jnp.finfo(equity.dtype).tiny
    first, over = 1.0, jnp.zeros(gross.shape, bool)
    if requested is not None:
        whole = jnp.nansum(jnp.abs(requested), -1)
        first = jnp.where(whole > rules.max_leverage, rules.max_leverage / jnp.maximum(whole, tiny), 1)
        over, gross = whole > rules.max_leverage * slack, gross * first
    # The factor is 1 where nothing can be ordered: the missed order of an asset without a bar is sized by it too.
    scale = first * jnp.where(gross > room, room / jnp.maximum(gross, tiny), 1)
    return scale, over | (gross > room * slack)


def _order_units(
    account: Account, target: Array, scale: Array, price: Array, equity: Array, rules: Rules
) -> Float[Array, "*b A"]:
    """Return the units to trade, which are 0 for NaN, dust, within the band and "on_change" (money rule 3)."""
    order = target * scale[..., None] * equity[..., None] / price - account.units
    value = jnp.abs(order) * price
    none = jnp.isnan(target) | (value <= dust(equity.dtype) * equity[..., None])
    if rules.rebalance_band:
        none |= (value < rules.rebalance_band * equity[..., None]) & (target != 0)
    if rules.rebalance == "on_change":
        none |= (target == account.target) & (target != 0) & (True if account.unfilled is None else ~account.unfilled)
    return jnp.where(none, 0, order)


def _round_to_lots(account: Account, order: Array, bar: Bar, rules: Rules) -> Float[Array, "*b A"]:
    """Round an order towards zero to whole lots of raw shares, unless it goes flat."""
    if rules.lot is None:
        return order
    unit = rules.lot / rules.currency_per_unit
    unit = unit if rules.multiplier is None else unit * jnp.asarray(rules.multiplier, order.dtype)
    unit = unit if bar.factor is None else unit / bar.factor
    lots = order / unit
    return jnp.where(order == -account.units, order, whole(lots, jnp.trunc(lots)) * unit)


def _drop_dust(order: Array, price: Array, equity: Array) -> Float[Array, "*b A"]:
    """Set orders that are no larger than rounding error to 0."""
    return jnp.where(is_dust(order, price, equity), 0, order)


def _below_min_trade(order: Array, price: Array, rules: Rules) -> Bool[Array, "*b A"]:
    """Return which orders are below the minimum trade."""
    assert rules.min_trade is not None
    return (order != 0) & (jnp.abs(order) * price * rules.currency_per_unit < rules.min_trade)


def _cut_to_leverage(
    account: Account, order: Array, price: Array, equity: Array, bar: Bar, rules: Rules
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Cut orders that raise positions by one factor, to the leverage that all other units leave.

    See money rule 5, step 6, the second cut. Returns the orders, whether they were cut, and whether one was given up.
    """
    units, after = account.units, account.units + order
    reverses = units * after < 0  # the whole position after a reversal is new
    kept = jnp.where(reverses, 0, jnp.minimum(jnp.abs(units), jnp.abs(after)))
    added = jnp.abs(after) - kept
    room = jnp.maximum(rules.max_leverage * equity - (kept * price).sum(-1), 0)
    added_value = (added * price).sum(-1)
    over = added_value > room + dust(equity.dtype) * equity
    share = (room / jnp.where(added_value > 0, added_value, 1))[..., None]
    after_cut = _round_to_lots(account, jnp.where(reverses, after * share - units, order * share), bar, rules)
    stops_short = reverses & (jnp.abs(after_cut) < jnp.abs(units))  # lots must not keep a reversal from going flat
    after_cut = _drop_dust(jnp.where(stops_short, -units, after_cut), price, equity)
    cut = over[..., None] & (added > 0)
    dropped = (cut & ~reverses).any(-1) & (room <= dust(equity.dtype) * equity)
    if rules.min_trade is not None:
        small = (
            cut & ~reverses & _below_min_trade(after_cut, price, rules)
        )  # a dropped reversal would keep its position
        dropped |= small.any(-1)
        after_cut = jnp.where(small, 0, after_cut)
    return jnp.where(cut, after_cut, order), over, dropped


def cut_to_cash(
    account: Account,
    order: Array,
    price: Array,
    equity: Array,
    bar: Bar,
    costs: Costs,
    rules: Rules,
    *,
    worst: Array | None = None,
    proceeds: bool = True,
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Cut all buys by one factor, so that cash after the sales pays for them (money rule 5, step 7, cash).

    Without `proceeds`, what the sales bring is no cash of the buys. `worst` is that of `charges`.

    Returns the orders, and whether they spend all cash, a buy was dropped, and the cut exceeds the trade's own costs.
    """
    fee, slippage = charges(order, price, costs, bar, rules, worst)
    pay = order * price + fee + slippage  # below 0 for a sale
    buy = order > 0
    cash = account.cash - jnp.where(buy, 0, pay if proceeds else jnp.maximum(pay, 0)).sum(-1)
    if costs.fixed_fee is not None:
        fixed = jnp.where(buy, costs.fixed_fee / rules.currency_per_unit, 0)
        cash, pay = cash - fixed.sum(-1), pay - fixed
    buys = jnp.where(buy, pay, 0).sum(-1)
    cut = (buys > 0) & (buys > cash)  # without buys, cash may be below 0 by a rounding error
    share = jnp.where(cut, jnp.maximum(cash, 0) / jnp.where(buys > 0, buys, 1), 1)
    dropped = cut & (cash <= 0)
    clipped = cut & (buys - jnp.maximum(cash, 0) > (fee + slippage).sum(-1) + dust(equity.dtype) * equity)
    cut_buy = buy & cut[..., None]
    after_cut = order * share[..., None]
    if costs.min_fee is not None or costs.max_fee is not None:  # a smaller order does not cost as much less
        paid = price + jnp.where(cut_buy, slippage / jnp.where(buy, order, 1), 0)
        after_cut = affordable(order, pay * share[..., None], paid, costs, rules)
        dropped |= (cut_buy & (after_cut <= 0)).any(-1)
    after_cut = _round_to_lots(account, after_cut, bar, rules)
    order = _drop_dust(jnp.where(cut_buy, after_cut, order), price, equity)
    if rules.min_trade is not None:
        small = cut_buy & _below_min_trade(order, price, rules)
        dropped |= small.any(-1)
        order = jnp.where(small, 0, order)
    spent = cut & ~dropped & ~(buy & (order == 0)).any(-1)
    return order, spent, dropped, clipped


def cash_after(account: Account, spent: Bool[Array, "*b"], costs: Costs, rules: Rules) -> Float[Array, "*b"]:
    """Return the cash after a fill, which is exactly 0 where buys that were cut to it have spent it (money rule 3).

    Otherwise the rounding error of the cut would be traded at the next bar. Lots and impact may leave a rest.
    """
    if rules.max_leverage > 1 or rules.lot is not None or costs.impact is not None:
        return account.cash
    return jnp.where(spent, 0, account.cash)
