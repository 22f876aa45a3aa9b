"""The state of the ledger and the record of what changed it.

All classes are pytrees of arrays `[*b, asset]` or `[*b]`. Amounts are in units of the initial capital.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from jaxtrader.ledger.rules import Rules

EQUITY_FLOOR = 1e-4  # the least equity by which a return or a turnover is measured, so that both stay finite
MAX_BARS_SINCE_FILL = 20  # the count stops here, since the observation must not become a clock

REASONS = ("order", "stop", "take profit", "liquidation", "ruin", "delisted", "session end", "trailing stop")
ORDER, STOP, TAKE, LIQUIDATION, RUIN, DELISTED, SESSION, TRAIL = range(len(REASONS))
FORCED = (LIQUIDATION, RUIN)
BY_BRACKET = (STOP, TAKE, TRAIL)
MAY_WAIT = (*BY_BRACKET, LIQUIDATION)  # closings that the volume cap binds, since what it leaves can be closed later


class Brackets(struct.PyTreeNode):
    """Exit levels as fractions of the entry or best price, broadcastable to `[*b, asset]`. Infinity is no level.

    Attributes:
        stop_loss: the loss at which a position is closed. None compiles no stop-loss.
        take_profit: the gain at which a position is closed. None compiles no take-profit.
        trailing_stop: the loss from the best price since the entry at which a position is closed. None compiles none.
    """

    stop_loss: Float[Array, "*b A"] | None = None
    take_profit: Float[Array, "*b A"] | None = None
    trailing_stop: Float[Array, "*b A"] | None = None


class Account(struct.PyTreeNode):
    """The state of the ledger.

    Attributes:
        cash: in units of the initial capital. Cash below 0 is borrowed.
        units: signed holdings, whose value is `units * price`.
        entry: average price at which the position was built, without costs. It is 0 when flat.
        target: the last target exposure that reached its fill time, filled or not.
        bars_since_fill: bars since the last fill, counted up to MAX_BARS_SINCE_FILL.
        equity: the true value at the last mark, which may be below 0.
        ruined: whether the account is ruined and therefore frozen.
        stopped: the sign of a position that a bracket closed, until the target leaves that sign. None without brackets.
        pending: targets that wait for their bar, oldest first. NaN holds the units. None without a delay.
        unfilled: whether the order had no bar or too little volume, and is tried again. None unless `rebalance` is
            `"on_change"`.
        interest_residual: interest and funding too small to show in cash, booked later. None where nothing is financed.
        best: the best price since the position was entered, the highest of a long and the lowest of a short. None
            without a trailing stop.
    """

    cash: Float[Array, "*b"]
    units: Float[Array, "*b A"]
    entry: Float[Array, "*b A"]
    target: Float[Array, "*b A"]
    bars_since_fill: Int[Array, "*b A"]
    equity: Float[Array, "*b"]
    ruined: Bool[Array, "*b"]
    stopped: Int[Array, "*b A"] | None = None
    pending: Float[Array, "*b A delay"] | None = None
    unfilled: Bool[Array, "*b A"] | None = None
    interest_residual: Float[Array, "*b"] | None = None
    best: Float[Array, "*b A"] | None = None


class Fill(struct.PyTreeNode):
    """One execution per asset. Its numbers are 0 where nothing was traded, apart from price and equity.

    Attributes:
        units: signed units traded.
        price: the market price of the fill, before slippage.
        fee: fees paid, in units of the initial capital.
        slippage: the cost of slippage and impact, in units of the initial capital.
        equity: value of the account at the fill price, before costs.
        reason: an index into REASONS.
        clipped: whether a target exceeded the leverage limit, or an order was cut by leverage, by the volume cap or by
            more than its own costs.
        dropped: whether an order was given up, because it had no cash or no bar, or was too small.
        beyond_cap: whether a closing that could not wait was larger than the volume cap. None without a cap.
        unmet: whether a limit order of the bar did not fill. None where orders have no limit.
    """

    units: Float[Array, "*b A"]
    price: Float[Array, "*b A"]
    fee: Float[Array, "*b A"]
    slippage: Float[Array, "*b A"]
    equity: Float[Array, "*b"]
    reason: Int[Array, "*b A"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]
    beyond_cap: Bool[Array, "*b"] | None = None
    unmet: Bool[Array, "*b"] | None = None


class Events(struct.PyTreeNode):
    """What happened to an account over a bar. An event is None where the rules and costs exclude it.

    Attributes:
        order: fill of the order. `ledger.move` returns None where the order has filled at close[t] before it.
        closing: exits at the close, from last bars, session ends, margin and ruin.
        financing: interest, funding and dividends booked to cash `[*b]`, below 0 where the account paid.
        gap_exits: exits at the open, from margin and from brackets that the open has passed. Also exits of what had no
            bar when a session's end or ruin closed the rest.
        intrabar_exits: exits inside the bar, from brackets and margin.
    """

    order: Fill | None
    closing: Fill
    financing: Float[Array, "*b"] | None = None
    gap_exits: Fill | None = None
    intrabar_exits: Fill | None = None

    @property
    def fills(self) -> tuple[Fill, ...]:
        """All fills that the rules allow, the order's first."""
        fills = (self.order, self.gap_exits, self.intrabar_exits, self.closing)
        return tuple(fill for fill in fills if fill is not None)


def open_account(
    exposure: Float[Array, "*b A"],
    price: Float[Array, "*b A"],
    rules: Rules | None = None,
    *,
    brackets: bool = False,
    financing: bool = False,
    trailing: bool = False,
) -> Account:
    """Open an account with an equity of 1.0 that holds `exposure`, bought at `price` free of costs.

    With `brackets` it remembers what a bracket closed, with `trailing` the best price of each position. With
    `financing` it accumulates interest and funding without loss, however small the amounts are.
    """
    exposure, price = jnp.broadcast_arrays(exposure, price)
    batch = exposure.shape[:-1]
    rules = rules or Rules()
    return Account(
        cash=1 - exposure.sum(-1),
        units=exposure / price,
        entry=jnp.where(exposure == 0, 0, price),
        target=exposure,
        bars_since_fill=jnp.full(exposure.shape, MAX_BARS_SINCE_FILL, jnp.int32),
        equity=jnp.ones(batch, exposure.dtype),
        ruined=jnp.zeros(batch, bool),
        stopped=jnp.zeros(exposure.shape, jnp.int8) if brackets else None,
        pending=jnp.full((*exposure.shape, rules.delay), jnp.nan, exposure.dtype) if rules.delay else None,
        unfilled=jnp.zeros(exposure.shape, bool) if rules.rebalance == "on_change" else None,
        interest_residual=jnp.zeros(batch, exposure.dtype) if financing else None,
        best=jnp.where(exposure == 0, 0, price) if trailing else None,
    )


def value(account: Any, price: Float[Array, "*b A"]) -> Float[Array, "*b"]:
    """Return the equity of an account, or of a part with its cash and units, before any cost of closing.

    The arrays are JAX's, or NumPy's on the host.
    """
    return account.cash + (account.units * price).sum(-1)


def is_ruined(equity: Float[Array, "*b"], rules: Rules) -> Bool[Array, "*b"]:
    """Return where an equity is at or below the ruin level (money rule 7)."""
    return equity <= rules.ruin_level


def exposure(account: Account, price: Float[Array, "*b A"]) -> Float[Array, "*b A"]:
    """Return signed position value / equity, or 0 where equity is exactly 0."""
    equity = value(account, price)[..., None]
    return jnp.where(equity == 0, 0, account.units * price / jnp.where(equity == 0, 1, equity))


def latest_target(account: Account) -> Float[Array, "*b A"]:
    """Return the last target exposure that was decided, whether or not its delay has passed."""
    target = account.target
    if account.pending is None:
        return target
    for k in range(account.pending.shape[-1]):
        target = jnp.where(jnp.isnan(account.pending[..., k]), target, account.pending[..., k])
    return target


def dust(dtype: DTypeLike) -> float:
    """Return the share of equity up to which an order or a position is rounding error (money rule 3)."""
    return 1e-12 if jnp.dtype(dtype) == jnp.float64 else 1e-6


def without_dust(target: Float[Array, "*b A"]) -> Float[Array, "*b A"]:
    """Return target exposures, 0 for those of no more than rounding error (money rule 3).

    Callers of `ledger.step_from_close` apply it to all targets at once, because one more step a bar makes a pass 20%
    slower.
    """
    return jnp.where(jnp.abs(target) <= dust(target.dtype), 0, target)


def is_dust(
    units: Float[Array, "*b A"], price: Float[Array, "*b A"], equity: Float[Array, "*b"]
) -> Bool[Array, "*b A"]:
    """Return which signed units are worth no more than rounding error (money rule 3)."""
    return jnp.abs(units) * price <= dust(equity.dtype) * equity[..., None]


def whole(count: Float[Array, "*b A"], rounded: Float[Array, "*b A"]) -> Float[Array, "*b A"]:
    """Return the `rounded` counts of lots or ticks. A count that is whole but for rounding error is that number."""
    near = jnp.round(count)
    is_whole = jnp.abs(count - near) <= dust(count.dtype) * jnp.maximum(1, jnp.abs(near))
    return jnp.where(is_whole, near, rounded)


def without_rest(
    account: Account, order: Float[Array, "*b A"], price: Float[Array, "*b A"], equity: Float[Array, "*b"]
) -> Float[Array, "*b A"]:
    """Return the orders, and exactly `-units` where one would leave no more than dust (money rule 3)."""
    rest = (order != 0) & is_dust(account.units + order, price, equity)
    return jnp.where(rest, -account.units, order)
