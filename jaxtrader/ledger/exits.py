"""Closes positions without an order: by stops, take-profits and margin, at delistings and session ends, and at ruin.

Where a bar meets several levels, an adverse one comes before the take-profit. Of two adverse levels, the one nearer the
open comes first (money rule 2e).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from jaxtrader.ledger.account import (
    DELISTED,
    LIQUIDATION,
    MAY_WAIT,
    RUIN,
    SESSION,
    STOP,
    TAKE,
    TRAIL,
    Account,
    Brackets,
    Fill,
    is_dust,
    is_ruined,
    value,
    without_rest,
)
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.orders import cut_to_volume
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import merge_fills, settle


def exit_at_open(
    account: Account, ordered: Bool[Array, "*b A"], bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None
) -> tuple[Account, Fill, Bool[Array, "*b"]]:
    """Close positions at the open for margin, or for a bracket that the open has passed (money rule 2c).

    What had no bar when a session's end or ruin closed the rest is closed at the open of its next bar. Brackets and
    session ends leave `ordered` assets to the order of this open. Returns the accounts, the exits, and who was
    liquidated.
    """
    liquidated = below_margin(account, bar.open, rules)
    reason = jnp.zeros(account.units.shape, jnp.int8)
    if brackets is not None:
        long = account.units > 0
        stop, take = _bracket_prices(account, brackets)
        stop, loss = _with_trail(account, long, stop, account.best, brackets)
        stopped = jnp.where(long, bar.open <= stop, bar.open >= stop)
        taken = jnp.where(long, bar.open >= take, bar.open <= take)
        reason = jnp.where(stopped, loss, jnp.where(taken, TAKE, reason))
    if bar.late is not None:
        reason = jnp.where(bar.late, SESSION, reason)
    reason = jnp.where(liquidated[..., None], LIQUIDATION, jnp.where(ordered, 0, reason))
    if bar.present is not None:  # without missing bars, ruin leaves nothing
        reason = jnp.where(account.ruined[..., None], RUIN, reason)
    account, fill = _close_positions(account, reason, bar.open, value(account, bar.open), bar, costs, rules)
    return account, fill, liquidated


def exit_intrabar(
    account: Account,
    bar: Bar,
    costs: Costs,
    rules: Rules,
    brackets: Brackets | None,
    skip: Bool[Array, "*b A"] | None = None,
) -> tuple[Account, Fill, Bool[Array, "*b"]]:
    """Close positions whose level lies between the bar's low and high, at that level (money rule 2e).

    Margin is watched here for one asset only. With several assets, the order in which their prices moved is unknown.
    Nothing is closed of the assets to `skip`. Returns the accounts, the exits, and who was liquidated.
    """
    assert bar.high is not None
    assert bar.low is not None
    long = account.units > 0
    adverse, stop_first, take, loss = _exit_levels(account, long, bar, rules, brackets)
    favourable = jnp.where(long, jnp.maximum(take, bar.open), jnp.minimum(take, bar.open))
    lost = jnp.where(long, bar.low <= adverse, bar.high >= adverse)
    won = jnp.where(long, bar.high >= take, bar.low <= take)
    reason = jnp.where(lost, jnp.where(stop_first, loss, LIQUIDATION), jnp.where(won, TAKE, 0))
    raised = best = caught = None
    if brackets is not None and brackets.trailing_stop is not None:
        assert account.best is not None
        # The bar may have been at its best before its worst. A position lives to its take-profit and no further.
        best = best_price(account, bar)
        reached = jnp.where(long, jnp.minimum(best, favourable), jnp.maximum(best, favourable))
        raised = _trail(account, _better(long, _better(long, account.best, bar.open), reached), brackets)
        caught = ~lost & jnp.where(long, bar.low <= raised, bar.high >= raised)
        reason = jnp.where(caught, TRAIL, reason)
    reason = _closable(jnp.where(account.units == 0, 0, reason), bar)
    if skip is not None:
        reason = jnp.where(skip, 0, reason)
    price = jnp.where(lost, adverse, jnp.where(won, favourable, bar.open))
    if caught is not None and raised is not None:
        price = jnp.where(caught, raised, price)
    price = jnp.where(reason == 0, bar.open, price)
    account, fill = _close_positions(account, reason, price, value(account, price), bar, costs, rules)
    if best is not None:
        account = account.replace(best=jnp.where(account.units == 0, 0, best))
    return account, fill, (reason == LIQUIDATION).any(-1)


def best_price(account: Account, bar: Bar) -> Float[Array, "*b A"]:
    """Return the best price of each position since it was entered, that of the bar included."""
    assert account.best is not None
    assert bar.high is not None
    assert bar.low is not None
    long = account.units > 0
    return _better(long, account.best, jnp.where(long, bar.high, bar.low))


def adverse_level(account: Account, bar: Bar, rules: Rules, brackets: Brackets | None) -> Float[Array, "*b A"]:
    """Return the nearer of stop and liquidation price, infinitely far away where there is none."""
    return _exit_levels(account, account.units > 0, bar, rules, brackets)[0]


def _exit_levels(
    account: Account, long: Array, bar: Bar, rules: Rules, brackets: Brackets | None
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b A"], Float[Array, "*b A"], ArrayLike]:
    """Return the nearer of stop and liquidation price, whether it is the stop, and the price of the take-profit.

    The last is the reason of a stop.
    """
    never, loss = jnp.where(long, -jnp.inf, jnp.inf).astype(account.units.dtype), STOP
    stop, take = (never, -never) if brackets is None else _bracket_prices(account, brackets)
    if brackets is not None and account.best is not None:
        stop, loss = _with_trail(account, long, stop, _better(long, account.best, bar.open), brackets)
    margin = _liquidation_price(account, rules) if rules.margin and account.units.shape[-1] == 1 else never
    # An order at this open may have moved a level beyond the open. Then the open is the price.
    stop, margin = (jnp.where(long, jnp.minimum(x, bar.open), jnp.maximum(x, bar.open)) for x in (stop, margin))
    stop_first = jnp.where(long, stop > margin, stop < margin)
    return jnp.where(stop_first, stop, margin), stop_first, take, loss


def _better(long: Array, first: Array, second: Array) -> Float[Array, "*b A"]:
    """Return the better of two prices for the side of a position."""
    return jnp.where(long, jnp.maximum(first, second), jnp.minimum(first, second))


def _trail(account: Account, best: Array, brackets: Brackets) -> Float[Array, "*b A"]:
    """Return the price of the trailing stop for the best price so far, infinitely far away where there is none."""
    side, fraction = jnp.sign(account.units), brackets.trailing_stop
    assert fraction is not None
    far = jnp.where(side > 0, -jnp.inf, jnp.inf).astype(account.units.dtype)
    return jnp.where(jnp.isfinite(fraction), best * (1 - side * jnp.where(jnp.isfinite(fraction), fraction, 0)), far)


def _with_trail(
    account: Account, long: Array, stop: Array, best: Array | None, brackets: Brackets
) -> tuple[Float[Array, "*b A"], ArrayLike]:
    """Return the nearer of stop-loss and trailing stop, and its reason."""
    if brackets.trailing_stop is None:
        return stop, STOP
    assert best is not None
    trail = _trail(account, best, brackets)
    nearer = jnp.where(long, trail > stop, trail < stop)
    return jnp.where(nearer, trail, stop), jnp.where(nearer, TRAIL, STOP)


def exit_at_close(account: Account, bar: Bar, costs: Costs, rules: Rules) -> tuple[Account, Fill]:
    """Close delistings and session ends, then check the margin, then ruin (money rule 2g). All exits are one fill."""
    fills = []
    if bar.delisted is not None or rules.flat_at_session_end:
        reason, price = jnp.zeros(account.units.shape, jnp.int8), bar.close
        if rules.flat_at_session_end:
            assert bar.session_end is not None
            reason = jnp.where(bar.session_end & ~account.ruined[..., None], SESSION, reason)
        if bar.delisted is not None:  # a ruined account may still hold what had no bar since
            reason = jnp.where(bar.delisted, DELISTED, reason)
            price = jnp.where(bar.delisted, price * (1 + rules.delist_return), price)
        account, fill = _close_positions(account, reason, price, value(account, price), bar, costs, rules)
        fills.append(fill)
    if rules.margin:
        liquidated = below_margin(account, bar.close, rules)
        reason = jnp.broadcast_to(jnp.where(liquidated, LIQUIDATION, 0)[..., None], account.units.shape)
        account, fill = _close_positions(account, reason, bar.close, value(account, bar.close), bar, costs, rules)
        fills.append(fill)
    equity = value(account, bar.close)
    ruin = ~account.ruined & is_ruined(equity, rules)
    reason = jnp.broadcast_to(jnp.where(ruin, RUIN, 0)[..., None], account.units.shape)
    account, fill = _close_positions(account, reason, bar.close, equity, bar, costs, rules, with_dust=True)
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


def _closable(reason: Array, bar: Bar) -> Array:
    """Return the reasons to close, 0 for an asset without a bar. Nothing but a delisting closes one."""
    return reason if bar.present is None else jnp.where(bar.present | (reason == DELISTED), reason, 0)


def _close_positions(
    account: Account,
    reason: Array,
    price: Array,
    equity: Array,
    bar: Bar,
    costs: Costs,
    rules: Rules,
    *,
    with_dust: bool = False,
) -> tuple[Account, Fill]:
    """Close all assets that have a bar and a reason other than 0, and delisted ones without a bar.

    The volume cap binds the reasons of MAY_WAIT. Dust is exchanged for its value, free of costs and without a fill,
    unless `with_dust` closes it like any position.
    """
    reason, beyond, over = _closable(reason, bar), None, None
    order = jnp.where(reason == 0, 0, -account.units)
    if not with_dust:
        dust = is_dust(order, price, equity)
        worth = jnp.where(dust, order * price, 0).sum(-1)
        units = jnp.where(dust, account.units + order, account.units)
        entry = jnp.where(units == 0, 0, account.entry)
        account = account.replace(cash=account.cash - worth, units=units, entry=entry)
        order = jnp.where(dust, 0, order)
    if rules.volume_cap is not None:
        capped, over = cut_to_volume(order, price, bar, rules)
        waits = jnp.isin(reason, jnp.asarray(MAY_WAIT))
        beyond = (over & ~waits).any(-1)
        order = without_rest(account, jnp.where(waits, capped, order), price, equity)
    account, fill = settle(account, order, price, equity, bar, costs, rules, reason)
    fill = fill.replace(beyond_cap=beyond)
    if account.unfilled is not None:  # a closed position waits for another target, even if its order was cut before
        account = account.replace(unfilled=account.unfilled & (fill.reason == 0))
    if account.stopped is not None:
        by_bracket = (fill.reason == STOP) | (fill.reason == TAKE)
        if account.best is not None:
            by_bracket |= fill.reason == TRAIL
        side = jnp.sign(-order).astype(jnp.int8)
        account = account.replace(stopped=jnp.where(by_bracket, side, account.stopped))
        if account.unfilled is not None and over is not None:  # what the cap has left is still to be sold
            account = account.replace(unfilled=account.unfilled | (by_bracket & over))
    return account, fill
