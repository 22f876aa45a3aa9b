"""The account: what an order does to cash and units, bar by bar. The one ledger of jaxtrader.

Training, validation, backtest and `simulate` all call `step`, which holds the order of events; `orders.py` sizes,
`costs.py` charges, `fills.py` books, `exits.py` closes what brackets, margin and last bars close. Everything is a pure
function of arrays whose last axis is the asset and whose leading axes (`*b`: lanes, agents, or none) broadcast, in
float32 or float64. There is no observation, reward or episode here: see `trading.py`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxtrader.envs.account import (
    HELD_CAP,
    REASONS,
    RUIN,
    Account,
    Bar,
    Brackets,
    Events,
    Fill,
    exposure,
    last_decided,
    open_account,
    value,
)
from jaxtrader.envs.costs import Costs, carry, charges
from jaxtrader.envs.exits import at_close, at_open, within
from jaxtrader.envs.fills import settle
from jaxtrader.envs.orders import limited, size, wanted
from jaxtrader.envs.rules import Fills, Rebalance, Rules

__all__ = [
    "HELD_CAP",
    "REASONS",
    "Account",
    "Bar",
    "Brackets",
    "Events",
    "Fill",
    "Fills",
    "Rebalance",
    "Rules",
    "charges",
    "due",
    "execute",
    "exposure",
    "last_decided",
    "move",
    "open_account",
    "step",
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
    """Carry an account from close[t] to close[t+1] (money rule 2).

    Args:
        account: the state at close[t].
        target: the exposure asked for at close[t], signed, per asset. NaN holds the units.
        bar: the prices of the move, and what else the rules and costs read.
        costs: what trading and holding cost.
        rules: where and when orders fill. With `stops`, `brackets` is given.
        brackets: stop-losses and take-profits in force within the bar, decided at close[t] too.

    Returns:
        The state at close[t+1], and what happened on the way.
    """
    account, target = due(account, target, rules)
    if rules.fill != "close":
        return move(account, target, bar, costs, rules, brackets)
    account, order = execute(account, target, bar.prev_close, bar, costs, rules)
    account, events = move(account, None, bar, costs, rules, brackets)
    return account, events.replace(order=order)


def due(account: Account, target: Array, rules: Rules) -> tuple[Account, Float[Array, "*b A"]]:
    """A bar passes: the target whose time has come, which without a delay is the one just given."""
    account = account.replace(held=jnp.minimum(account.held + 1, HELD_CAP))
    if not rules.delay:
        return account, target
    assert account.pending is not None
    target = jnp.broadcast_to(target, account.units.shape)
    queue = jnp.concatenate([account.pending, target[..., None]], -1)
    return account.replace(pending=queue[..., 1:]), queue[..., 0]


def move(
    account: Account, target: Array | None, bar: Bar, costs: Costs, rules: Rules, brackets: Brackets | None = None
) -> tuple[Account, Events]:
    """Carry an account over the bar t+1 with the target that is due, None where there is none (money rule 2b-2g)."""
    booked = carry(account, bar, costs)
    if booked is not None:
        account = _booked(account, booked)
    jumped = inside = order = None
    asked = target
    if rules.margin or rules.stops:
        ordered = _trades_at_open(account, target, bar, rules)
        account, jumped, liquidated = at_open(account, ordered, bar, costs, rules, brackets)
        target = _cancelled(target, liquidated)
    if target is not None and rules.fill == "next_open":
        account, order = execute(account, target, bar.open, bar, costs, rules, asked)
    if rules.stops or (rules.margin and account.units.shape[-1] == 1):
        account, inside, liquidated = within(account, bar, costs, rules, brackets)
        target = _cancelled(target, liquidated)
    if target is not None and rules.fill == "next_close":
        account, order = execute(account, target, bar.close, bar, costs, rules, asked)
    account, closing = at_close(account, bar, costs, rules)
    account = account.replace(equity=value(account, bar.close))
    return account, Events(order, closing, booked, jumped, inside)


def _booked(account: Account, amount: Array) -> Account:
    """Interest and funding into cash (money rule 6).

    Two percent a year are 4e-8 a minute, less than float32 can add to 1: what rounding takes is owed, and comes with a
    later bar (Kahan 1965).
    """
    if account.owed is None:
        return account.replace(cash=account.cash + amount)
    amount = jnp.where(account.ruined, 0, account.owed + amount)  # a ruined account is frozen
    cash = account.cash + amount
    owed = jnp.where(account.ruined, account.owed, amount - (cash - account.cash))
    return account.replace(cash=cash, owed=owed)


def execute(
    account: Account,
    target: Float[Array, "*b A"],
    price: Float[Array, "*b A"],
    bar: Bar,
    costs: Costs,
    rules: Rules,
    asked: Float[Array, "*b A"] | None = None,
) -> tuple[Account, Fill]:
    """Fill an order for `target` at `price`: sizing, caps, costs, ruin at the fill (money rules 3-5, 7).

    `asked` is the target before liquidation cancelled the order: it still counts as said.
    """
    asked = target if asked is None else asked
    if account.stopped is not None:  # a bracket's block ends where the target leaves that sign
        left = ~jnp.isnan(asked) & (jnp.sign(asked) != account.stopped)
        account = account.replace(stopped=jnp.where(left, 0, account.stopped).astype(jnp.int8))
    equity = value(account, price)
    ruin = ~account.ruined & (equity <= rules.ruin_level)
    sized = size(account, target, price, equity, bar, costs, rules)
    frozen = account.ruined | ruin
    order = jnp.where(frozen[..., None], 0, sized.units)
    order = jnp.where(ruin[..., None], -account.units, order)
    account, fill = settle(account, order, price, equity, bar, costs, rules, jnp.where(ruin[..., None], RUIN, 0))
    cash = account.cash
    if rules.max_leverage <= 1 and rules.lot is None and costs.impact is None:
        # Exactly zero: what is left over after a division and a multiplication must not be traded at the next bar.
        cash = jnp.where(sized.spent & ~frozen, 0, cash)
    account = account.replace(
        cash=cash,
        target=jnp.where(jnp.isnan(asked) | account.ruined[..., None], account.target, asked),
        ruined=account.ruined | ruin,
    )
    if account.unfilled is not None:
        account = account.replace(unfilled=jnp.where(jnp.isnan(asked), account.unfilled, sized.unfilled))
    alive = ~account.ruined
    return account, fill.replace(clipped=sized.clipped & alive, dropped=sized.dropped & alive)


def _trades_at_open(account: Account, target: Array | None, bar: Bar, rules: Rules) -> Array:
    """Assets that this bar's order trades at the open."""
    if target is None or rules.fill != "next_open" or not rules.stops:
        return jnp.zeros(account.units.shape, bool)
    equity = value(account, bar.open)
    units = limited(account, target, bar.open, equity, bar, rules).units
    # Ruined at this open, nothing is sized: what was asked for is closed there all the same.
    asked, *_ = wanted(account, target, bar.open, equity, bar, rules)
    return jnp.where((equity > rules.ruin_level)[..., None], units, asked) != 0


def _cancelled(target: Array | None, liquidated: Array) -> Array | None:
    """Liquidation cancels the order of its bar."""
    return None if target is None else jnp.where(liquidated[..., None], jnp.nan, target)
