"""Closes positions without an order: by brackets and margin, at last bars and session ends, and at ruin.

Where a bar meets several levels, an adverse one comes before the take-profit. Of two adverse levels, the one nearer the
open comes first (money rule 2e).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.ledger.account import DELISTED, LIQUIDATION, RUIN, SESSION, STOP, TAKE, Account, Brackets, Fill, value
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import merge_fills, settle


def exit_at_open(
    account: Account, ordered: Bool[Array, "*b A"], bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None
) -> tuple[Account, Fill, Bool[Array, "*b"]]:
    """Close positions at the open for margin, or for a bracket that the open has passed (money rule 2c).

    Brackets leave `ordered` assets to the order of this open. Returns the accounts, the exits, and who was liquidated.
    """
    liquidated = below_margin(account, bar.open, rules)
    reason = jnp.where(liquidated[..., None], LIQUIDATION, 0)
    if brackets is not None:
        long = account.units > 0
        stop, take = _bracket_prices(account, brackets)
        stopped = jnp.where(long, bar.open <= stop, bar.open >= stop)
        taken = jnp.where(long, bar.open >= take, bar.open <= take)
        hit = jnp.where(stopped, STOP, jnp.where(taken, TAKE, 0))
        reason = jnp.where(liquidated[..., None], reason, jnp.where(ordered, 0, hit))
    account, fill = _close_positions(account, reason, bar.open, value(account, bar.open), bar, costs, rules)
    return account, fill, liquidated


def exit_intrabar(
    account: Account, bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None
) -> tuple[Account, Fill, Bool[Array, "*b"]]:
    """Close positions whose level lies between the bar's low and high, at that level (money rule 2e).

    Margin is watched here for one asset only. With several assets, the order in which their prices moved is unknown.
    Returns the accounts, the exits, and who was liquidated.
    """
    assert bar.high is not None
    assert bar.low is not None
    long = account.units > 0
    never = jnp.where(long, -jnp.inf, jnp.inf).astype(account.units.dtype)
    stop, take = (never, -never) if brackets is None else _bracket_prices(account, brackets)
    margin = _liquidation_price(account, rules) if rules.margin and account.units.shape[-1] == 1 else never
    # An order at this open may have moved a level beyond the open. Then the open is the price.
    stop, margin = (jnp.where(long, jnp.minimum(x, bar.open), jnp.maximum(x, bar.open)) for x in (stop, margin))
    stop_first = jnp.where(long, stop > margin, stop < margin)
    adverse = jnp.where(stop_first, stop, margin)
    favourable = jnp.where(long, jnp.maximum(take, bar.open), jnp.minimum(take, bar.open))
    lost = jnp.where(long, bar.low <= adverse, bar.high >= adverse)
    won = jnp.where(long, bar.high >= take, bar.low <= take)
    reason = jnp.where(lost, jnp.where(stop_first, STOP, LIQUIDATION), jnp.where(won, TAKE, 0))
    reason = jnp.where(account.units == 0, 0, reason)
    price = jnp.where(lost, adverse, jnp.where(won, favourable, bar.open))
    price = jnp.where(reason == 0, bar.open, price)
    account, fill = _close_positions(account, reason, price, value(account, price), bar, costs, rules)
    return account, fill, (fill.reason == LIQUIDATION).any(-1)


def exit_at_close(account: Account, bar: Bar, costs: Costs, rules: Rules) -> tuple[Account, Fill]:
    """Close last bars and session ends, then check the margin, then ruin (money rule 2g).

    Session ends and ruin also close an asset without a bar, at its last known close. All exits are one fill.
    """
    fills = []
    if bar.delisted is not None or rules.flat_at_session_end:
        reason, price = jnp.zeros(account.units.shape, jnp.int8), bar.close
        if rules.flat_at_session_end:
            assert bar.session_end is not None
            reason = jnp.where(bar.session_end, SESSION, reason)
        if bar.delisted is not None:
            reason = jnp.where(bar.delisted, DELISTED, reason)
            price = jnp.where(bar.delisted, price * (1 + rules.delist_return), price)
        reason = jnp.where(account.ruined[..., None], 0, reason)
        account, fill = _close_positions(account, reason, price, value(account, price), bar, costs, rules, force=True)
        fills.append(fill)
    if rules.margin:
        liquidated = below_margin(account, bar.close, rules)
        reason = jnp.broadcast_to(jnp.where(liquidated, LIQUIDATION, 0)[..., None], account.units.shape)
        account, fill = _close_positions(account, reason, bar.close, value(account, bar.close), bar, costs, rules)
        fills.append(fill)
    equity = value(account, bar.close)
    ruin = ~account.ruined & (equity <= rules.ruin_level)
    reason = jnp.broadcast_to(jnp.where(ruin, RUIN, 0)[..., None], account.units.shape)
    account, fill = _close_positions(account, reason, bar.close, equity, bar, costs, rules, force=True)
    return account.replace(ruined=account.ruined | ruin), functools.reduce(merge_fills, [*fills, fill])


def below_margin(account: Account, price: Float[Array, "*b A"], rules: Rules) -> Bool[Array, "*b"]:
    """Return whether equity is below the maintenance margin x gross position value (money rule 8)."""
    if not rules.margin:
        return jnp.zeros_like(account.ruined)
    gross = jnp.abs(account.units * price).sum(-1)
    return ~account.ruined & (gross > 0) & (value(account, price) < rules.margin * gross)


def _bracket_prices(account: Account, brackets: Brackets) -> tuple[Float[Array, "*b A"], Float[Array, "*b A"]]:
    """Return the prices of stop-loss and take-profit, infinitely far away where there is none."""
    side = jnp.sign(account.units)
    far = jnp.asarray(jnp.inf, account.units.dtype)
    stop = far if brackets.stop_loss is None else brackets.stop_loss
    take = far if brackets.take_profit is None else brackets.take_profit
    never = jnp.where(side > 0, -far, far)
    return (
        jnp.where(jnp.isfinite(stop), account.entry * (1 - side * jnp.where(jnp.isfinite(stop), stop, 0)), never),
        jnp.where(jnp.isfinite(take), account.entry * (1 + side * jnp.where(jnp.isfinite(take), take, 0)), -never),
    )


def _liquidation_price(account: Account, rules: Rules) -> Float[Array, "*b 1"]:
    """Return the price p of one asset at which cash + u p = m |u| p, for the maintenance margin m."""
    units, cash = account.units, account.cash[..., None]
    long = units > 0
    weight = jnp.where(units == 0, 1, jnp.where(long, (1 - rules.margin) * units, (1 + rules.margin) * -units))
    level = jnp.where(long, -cash, cash) / weight
    return jnp.where(long & (level <= 0), -jnp.inf, level)


def _close_positions(
    account: Account,
    reason: Array,
    price: Array,
    equity: Array,
    bar: Bar,
    costs: Costs,
    rules: Rules,
    *,
    force: bool = False,
) -> tuple[Account, Fill]:
    """Close all assets with a reason other than 0. Without `force`, skip ruined accounts and missing bars."""
    if not force:
        reason = jnp.where(account.ruined[..., None], 0, reason)
        reason = reason if bar.present is None else jnp.where(bar.present, reason, 0)
    order = jnp.where(reason == 0, 0, -account.units)
    account, fill = settle(account, order, price, equity, bar, costs, rules, reason)
    if account.stopped is not None:
        by_bracket = (fill.reason == STOP) | (fill.reason == TAKE)
        side = jnp.sign(-order).astype(jnp.int8)
        account = account.replace(stopped=jnp.where(by_bracket, side, account.stopped))
    if account.unfilled is not None:  # a closed position waits for another target, even if its order was cut before
        account = account.replace(unfilled=account.unfilled & (fill.reason == 0))
    return account, fill
