"""What closes a position without an order: brackets and margin at the open or within a bar, last bars at the close.

Money rules 2c, 2e, 2g, 7 and 8. Every level is a price; the adverse side comes before the take-profit, and the level
nearest the open before one further away.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.envs.account import (
    DELISTED,
    LIQUIDATION,
    RUIN,
    SESSION,
    STOP,
    TAKE,
    Account,
    Bar,
    Brackets,
    Fill,
    value,
)
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.fills import both, settle
from jaxtrader.envs.rules import Rules


def at_open(
    account: Account, ordered: Array, bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None
) -> tuple[Account, Fill, Bool[Array, "*b"]]:
    """Liquidate below the maintenance margin, and close what jumped its bracket; whether it was liquidated too.

    Args:
        account: the account before the open.
        ordered: assets `[*b, A]` that an order trades at this open anyway: brackets leave them to it.
        bar, costs, rules, brackets: as in `ledger.step`.
    """
    liquidated = short_of_margin(account, bar.open, rules)
    reason = jnp.where(liquidated[..., None], LIQUIDATION, 0)
    if brackets is not None:
        long = account.units > 0
        stop, take = _levels(account, brackets)
        stopped = jnp.where(long, bar.open <= stop, bar.open >= stop)
        taken = jnp.where(long, bar.open >= take, bar.open <= take)
        hit = jnp.where(stopped, STOP, jnp.where(taken, TAKE, 0))
        reason = jnp.where(liquidated[..., None], reason, jnp.where(ordered, 0, hit))
    account, fill = _close(account, reason, bar.open, value(account, bar.open), bar, costs, rules)
    return account, fill, liquidated


def within(
    account: Account, bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None
) -> tuple[Account, Fill, Bool[Array, "*b"]]:
    """Close what meets a level between the bar's low and high, at the level; whether it was liquidated too.

    The margin is watched here with one asset only: with several, no one knows in which order their prices moved.
    """
    assert bar.high is not None
    assert bar.low is not None
    long = account.units > 0
    never = jnp.where(long, -jnp.inf, jnp.inf).astype(account.units.dtype)
    stop, take = (never, -never) if brackets is None else _levels(account, brackets)
    margin = _margin_level(account, rules) if rules.margin and account.units.shape[-1] == 1 else never
    # An order at this very open may have moved a level beyond it: then the open is the price.
    stop, margin = (jnp.where(long, jnp.minimum(x, bar.open), jnp.maximum(x, bar.open)) for x in (stop, margin))
    stop_first = jnp.where(long, stop > margin, stop < margin)
    worse = jnp.where(stop_first, stop, margin)
    lost = jnp.where(long, bar.low <= worse, bar.high >= worse)
    won = jnp.where(long, bar.high >= take, bar.low <= take)
    better = jnp.where(long, jnp.maximum(take, bar.open), jnp.minimum(take, bar.open))
    reason = jnp.where(lost, jnp.where(stop_first, STOP, LIQUIDATION), jnp.where(won, TAKE, 0))
    reason = jnp.where(account.units == 0, 0, reason)
    price = jnp.where(lost, worse, jnp.where(won, better, bar.open))
    price = jnp.where(reason == 0, bar.open, price)
    account, fill = _close(account, reason, price, value(account, price), bar, costs, rules)
    return account, fill, (fill.reason == LIQUIDATION).any(-1)


def at_close(account: Account, bar: Bar, costs: Costs, rules: Rules) -> tuple[Account, Fill]:
    """Close last bars and session ends, then all where the margin or the ruin level is not kept, at the close.

    Flat means flat: a session's end, like ruin, closes an asset that has no bar there too, at its last known close.
    """
    last = None
    if bar.delisted is not None or rules.flat_at_session_end:
        reason, price = jnp.zeros(account.units.shape, jnp.int8), bar.close
        if rules.flat_at_session_end:
            assert bar.session_end is not None
            reason = jnp.where(bar.session_end, SESSION, reason)
        if bar.delisted is not None:
            reason = jnp.where(bar.delisted, DELISTED, reason)
            price = jnp.where(bar.delisted, price * (1 + rules.delist_return), price)
        reason = jnp.where(account.ruined[..., None], 0, reason)
        account, last = _close(account, reason, price, value(account, price), bar, costs, rules, force=True)
    fills = [] if last is None else [last]
    if rules.margin:
        short = short_of_margin(account, bar.close, rules)
        reason = jnp.broadcast_to(jnp.where(short, LIQUIDATION, 0)[..., None], account.units.shape)
        account, fill = _close(account, reason, bar.close, value(account, bar.close), bar, costs, rules)
        fills.append(fill)
    equity = value(account, bar.close)
    ruin = ~account.ruined & (equity <= rules.ruin_level)
    reason = jnp.broadcast_to(jnp.where(ruin, RUIN, 0)[..., None], account.units.shape)
    account, fill = _close(account, reason, bar.close, equity, bar, costs, rules, force=True)
    return account.replace(ruined=account.ruined | ruin), functools.reduce(both, [*fills, fill])


def short_of_margin(account: Account, price: Array, rules: Rules) -> Bool[Array, "*b"]:
    """Whether equity is below the maintenance margin of what is held."""
    if not rules.margin:
        return jnp.zeros_like(account.ruined)
    held = jnp.abs(account.units * price).sum(-1)
    return ~account.ruined & (held > 0) & (value(account, price) < rules.margin * held)


def _levels(account: Account, brackets: Brackets) -> tuple[Float[Array, "*b A"], Float[Array, "*b A"]]:
    """Prices of the stop and of the take-profit; out of reach where there is none."""
    side = jnp.sign(account.units)
    far = jnp.asarray(jnp.inf, account.units.dtype)
    stop = far if brackets.stop_loss is None else brackets.stop_loss
    take = far if brackets.take_profit is None else brackets.take_profit
    never = jnp.where(side > 0, -far, far)
    return (
        jnp.where(jnp.isfinite(stop), account.entry * (1 - side * jnp.where(jnp.isfinite(stop), stop, 0)), never),
        jnp.where(jnp.isfinite(take), account.entry * (1 + side * jnp.where(jnp.isfinite(take), take, 0)), -never),
    )


def _margin_level(account: Account, rules: Rules) -> Float[Array, "*b 1"]:
    """The price at which equity is the maintenance margin of one asset: cash + u p = m |u| p."""
    units, cash = account.units, account.cash[..., None]
    long = units > 0
    weight = jnp.where(units == 0, 1, jnp.where(long, (1 - rules.margin) * units, (1 + rules.margin) * -units))
    level = jnp.where(long, -cash, cash) / weight
    return jnp.where(long & (level <= 0), -jnp.inf, level)


def _close(
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
    """Close the assets with a reason, in full; without `force` only on real bars, and never in a ruined account."""
    if not force:
        reason = jnp.where(account.ruined[..., None], 0, reason)
        reason = reason if bar.inside is None else jnp.where(bar.inside, reason, 0)
    order = jnp.where(reason == 0, 0, -account.units)
    account, fill = settle(account, order, price, equity, bar, costs, rules, reason)
    if account.stopped is not None:
        by_bracket = (fill.reason == STOP) | (fill.reason == TAKE)
        side = jnp.sign(-order).astype(jnp.int8)
        account = account.replace(stopped=jnp.where(by_bracket, side, account.stopped))
    if account.unfilled is not None:  # what was closed waits for another target, though its order was cut before
        account = account.replace(unfilled=account.unfilled & (fill.reason == 0))
    return account, fill
