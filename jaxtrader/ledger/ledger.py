"""The order of events in a bar (money rule 2). Training, validation, backtest and `simulate` all use this ledger.

All functions are pure, in float32 or float64. The last axis of each array is the asset. Leading axes `*b` (paths,
accounts, or none) broadcast.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxtrader.ledger import limits
from jaxtrader.ledger.account import (
    MAX_BARS_SINCE_FILL,
    RUIN,
    Account,
    Brackets,
    Events,
    Fill,
    exposure,
    is_ruined,
    latest_target,
    open_account,
    value,
)
from jaxtrader.ledger.bar import Bar, at_order, costs_at
from jaxtrader.ledger.costs import Costs, charges, dividends, funding, interest
from jaxtrader.ledger.exits import exit_at_close, exit_at_open, exit_intrabar
from jaxtrader.ledger.orders import cash_after, cut_to_volume, last_target, lift_blocks, order_before_cash, size_order
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import merge_fills, settle

__all__ = [
    "charges",
    "events_between",
    "execute",
    "exposure",
    "latest_target",
    "move",
    "open_account",
    "order_at_close",
    "step",
    "step_from_close",
    "value",
]


def step(
    account: Account,
    target: Float[Array, "*b A"],
    bar: Bar,
    costs: Costs,
    rules: Rules,
    brackets: Brackets | None = None,
) -> tuple[Account, Events]:
    """Carry accounts from close[t] to close[t+1] (money rule 2).

    Args:
        account: the accounts at close[t].
        target: the signed exposure asked for at close[t], see `account.without_dust`. NaN holds the units.
        bar: the prices from close[t] to close[t+1], and other columns that the rules and costs read.
        costs: what trading and holding cost.
        rules: how orders fill.
        brackets: those decided at close[t]. None: no brackets.

    Returns:
        The accounts at close[t+1], and the events of the bar.
    """
    _, account, events = step_from_close(account, target, bar, costs, rules, brackets)
    return account, events


def step_from_close(
    account: Account,
    target: Float[Array, "*b A"],
    bar: Bar,
    costs: Costs,
    rules: Rules,
    brackets: Brackets | None = None,
) -> tuple[Account, Account, Events]:
    """Do what `step` does, and return first the accounts at close[t] after all fills of that close."""
    at_close, next_target, order = order_at_close(account, target, bar, costs, rules)
    after, events = move(at_close, next_target, bar, costs, rules, brackets)
    return at_close, after, events if order is None else events.replace(order=order)


def events_between(
    held: Any, target: Float[Array, "bar A"], last: Float[Array, "bar A"], bars: Bar, costs: Costs, rules: Rules
) -> Events:
    """Return the events that `step` gives after each close, of one account that is known at each close.

    All bars are stepped at once, each from what was held. That tells the events where they follow from the holdings:
    without brackets, margin, resting orders, orders that are tried again, and financing inside bars.

    Args:
        held: cash, units and whether it is ruined, at each close after all fills up to it.
        target: the target whose delay is over at each close, see `orders.delayed_targets`.
        last: the last target before it.
        bars: the bar after each close.
        costs: what trading and holding cost.
        rules: how orders fill, without a delay.
    """
    rates = costs_at(costs, bars, order=True)
    flat = open_account(jnp.zeros_like(target), bars.prev_close, rules)
    account = flat.replace(cash=held.cash, units=held.units, ruined=held.ruined, target=last)
    if rules.fill == "close":
        moved, events = move(account, None, bars, costs, rules)
        before = jax.tree.map(lambda first, x: jnp.concatenate([first[:1], x[:-1]]), flat, moved)
        _, _, order = order_at_close(before.replace(target=last), target, bars, costs, rules)
        units, bars = held.units - before.units, at_order(bars)
    else:
        _, events = step(account, target, bars, costs, rules)
        order = events.order
        units = jnp.concatenate([held.units[1:], held.units[-1:]]) - held.units - events.closing.units
        if events.gap_exits is not None:
            units -= events.gap_exits.units
    assert order is not None
    # The units are what changed. Sized again, an order could be another on the edge of the band, by one rounding.
    fee, slippage = charges(units, order.price, rates, bars, rules)
    return events.replace(order=order.replace(units=units, fee=fee, slippage=slippage))


def order_at_close(
    account: Account, target: Float[Array, "*b A"], bar: Bar, costs: Costs, rules: Rules
) -> tuple[Account, Float[Array, "*b A"] | None, Fill | None]:
    """Take the decision of close[t], and fill its order where orders fill at that close (money rule 2a).

    Returns the accounts, the target for `move` to fill, and the fill of the order. With `fill="close"` the target is
    None, otherwise the fill is None.
    """
    account, target = pop_delayed_target(account, target, rules)
    if rules.fill != "close":
        return account, target, None
    at_close = costs_at(costs, bar, order=True)
    account, order = execute(account, target, bar.prev_close, at_order(bar), at_close, rules)
    return account, None, order


def pop_delayed_target(account: Account, target: Array, rules: Rules) -> tuple[Account, Float[Array, "*b A"]]:
    """Queue a target, and return the one whose delay is over. Without a delay that is the same target.

    The bars since the last fill are counted here too.
    """
    account = account.replace(bars_since_fill=jnp.minimum(account.bars_since_fill + 1, MAX_BARS_SINCE_FILL))
    if not rules.delay:
        return account, target
    assert account.pending is not None
    target = jnp.broadcast_to(target, account.units.shape)
    queue = jnp.concatenate([account.pending, target[..., None]], -1)
    return account.replace(pending=queue[..., 1:]), queue[..., 0]


def move(
    account: Account, target: Array | None, bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None = None
) -> tuple[Account, Events]:
    """Carry accounts from just after close[t] to close[t+1] (money rules 2b to 2g).

    The order for `target` `[*b, A]` fills in this bar. None is no order. All else is as in `step`.
    """
    costs = costs_at(costs, bar)
    gap_exits = intrabar_exits = order = resting = None
    financing, requested = [], target
    if target is not None and rules.fill == "limit":
        account, resting = limits.place(lift_blocks(account, target), target, bar, rules)
    if costs.has_financing:
        assert bar.years is not None
        financing.append(interest(account, bar.prev_close, bar.years, costs))
        account = _book_financing(account, financing[-1])
    if bar.dividend is not None:
        financing.append(dividends(account, bar.dividend))
        account = _book_financing(account, financing[-1])
    if rules.margin or brackets is not None or bar.present is not None:
        ordered = _trades_at_open(account, target, bar, rules)
        account, gap_exits, liquidated = exit_at_open(account, ordered, bar, costs, rules, brackets)
        target = _cancel_order(target, liquidated)
        if resting is not None:
            account, resting = _cancel_resting(account, resting, gap_exits, liquidated)
    if target is not None and rules.fill == "next_open":
        account, order = execute(account, target, bar.open, bar, costs, rules, requested)
    if costs.has_financing and bar.years_inside is not None:
        financing.append(interest(account, bar.open, bar.years_inside, costs))
        account = _book_financing(account, financing[-1])
    if resting is not None:
        account, order, intrabar_exits = _rest(account, resting, bar, costs, rules, brackets)
    elif brackets is not None or (rules.margin and account.units.shape[-1] == 1):
        account, intrabar_exits, liquidated = exit_intrabar(account, bar, costs, rules, brackets)
        target = _cancel_order(target, liquidated)
    if bar.funding is not None:
        financing.append(funding(account, bar.close, bar.funding))
        account = _book_financing(account, financing[-1])
    if target is not None and rules.fill == "next_close":
        account, order = execute(account, target, bar.close, bar, costs, rules, requested)
    account, closing = exit_at_close(account, bar, costs, rules)
    account = account.replace(equity=value(account, bar.close))
    amount = functools.reduce(jnp.add, financing) if financing else None
    return account, Events(order, closing, amount, gap_exits, intrabar_exits)


def _rest(
    account: Account, resting: limits.Resting, bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None
) -> tuple[Account, Fill, Fill | None]:
    """Carry resting orders through a bar (money rule 12). Returns the accounts, the orders' fill and the exits."""
    watched, exits = brackets is not None or (rules.margin and account.units.shape[-1] == 1), None
    account, at_open, resting = limits.fill_at_open(account, resting, bar, costs, rules)
    if watched:
        fills_first = limits.fills_before_exit(account, resting, bar, rules, brackets)
        account, exits, liquidated = exit_intrabar(account, bar, costs, rules, brackets, fills_first)
        account, resting = _cancel_resting(account, resting, exits, liquidated)
    account, intrabar, resting, met = limits.fill_inside(account, resting, bar, costs, rules)
    if watched:
        from_limit = bar.replace(open=jnp.where(met, resting.price, bar.open))  # prices came to the limit from the open
        account, later, _ = exit_intrabar(account, from_limit, costs, rules, brackets, ~met)
        exits = later if exits is None else merge_fills(exits, later)
    order = merge_fills(at_open, intrabar)
    clipped, dropped = order.clipped | resting.clipped, order.dropped | resting.dropped
    return account, order.replace(clipped=clipped, dropped=dropped, unmet=(resting.units != 0).any(-1)), exits


def _cancel_resting(
    account: Account, resting: limits.Resting, exits: Fill, liquidated: Array
) -> tuple[Account, limits.Resting]:
    """Cancel the limit orders of what was closed, and all those of an account that was liquidated."""
    resting = resting.without((exits.units != 0) | liquidated[..., None])
    if account.unfilled is not None:
        account = account.replace(unfilled=account.unfilled & ~liquidated[..., None])
    return account, resting


def _book_financing(account: Account, amount: Array) -> Account:
    """Book an amount of interest or funding to cash, and keep what rounding takes for a later bar (money rule 6)."""
    if account.interest_residual is None:
        return account.replace(cash=account.cash + amount)
    amount = jnp.where(account.ruined, 0, account.interest_residual + amount)  # a ruined account is frozen
    cash = account.cash + amount
    residual = jnp.where(account.ruined, account.interest_residual, amount - (cash - account.cash))
    return account.replace(cash=cash, interest_residual=residual)


def execute(
    account: Account,
    target: Float[Array, "*b A"],
    price: Float[Array, "*b A"],
    bar: Bar,
    costs: Costs,
    rules: Rules,
    requested: Float[Array, "*b A"] | None = None,
) -> tuple[Account, Fill]:
    """Fill the order for a target at a price, with caps, costs, and ruin at the fill (money rules 3, 4, 5 and 7).

    The account remembers `requested`, the target before a liquidation cancelled the order. None stands for `target`.
    """
    requested = target if requested is None else requested
    account = lift_blocks(account, requested)
    equity = value(account, price)
    ruin = ~account.ruined & is_ruined(equity, rules)
    sized = size_order(account, target, price, equity, bar, costs, rules)
    frozen = account.ruined | ruin
    order = jnp.where(frozen[..., None], 0, sized.units)
    closable = account.units if bar.present is None else jnp.where(bar.present, account.units, 0)
    order = jnp.where(ruin[..., None], -closable, order)
    account, fill = settle(account, order, price, equity, bar, costs, rules, jnp.where(ruin[..., None], RUIN, 0))
    if rules.volume_cap is not None:
        beyond = cut_to_volume(order, price, bar, rules)[1].any(-1)
        fill = fill.replace(beyond_cap=ruin & beyond)
    account = account.replace(
        cash=cash_after(account, sized.spent & ~frozen, costs, rules),
        target=last_target(account, requested),
        ruined=account.ruined | ruin,
    )
    if account.unfilled is not None:
        account = account.replace(unfilled=jnp.where(jnp.isnan(requested), account.unfilled, sized.unfilled))
    alive = ~account.ruined
    return account, fill.replace(clipped=sized.clipped & alive, dropped=sized.dropped & alive)


def _trades_at_open(account: Account, target: Array | None, bar: Bar, rules: Rules) -> Array:
    """Return the assets that the order of this bar trades at the open."""
    if target is None or rules.fill != "next_open" or (account.stopped is None and bar.late is None):
        return jnp.zeros(account.units.shape, bool)
    equity = value(account, bar.open)
    units = order_before_cash(lift_blocks(account, target), target, bar.open, equity, bar, rules).units
    return (units != 0) | is_ruined(equity, rules)[..., None]  # ruin closes everything at the time of the order


def _cancel_order(target: Array | None, liquidated: Array) -> Array | None:
    """Cancel the order of a bar in which the account was liquidated."""
    return None if target is None else jnp.where(liquidated[..., None], jnp.nan, target)
