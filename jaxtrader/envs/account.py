"""The account and what it moves by: the pytrees of the ledger. Equity is in units of the initial capital."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from jaxtrader.envs.rules import Rules

HELD_CAP = 20  # bars since the last fill are counted up to here: the observation must not become a clock

REASONS = ("order", "stop", "take profit", "liquidation", "ruin", "delisted", "session end")
ORDER, STOP, TAKE, LIQUIDATION, RUIN, DELISTED, SESSION = range(len(REASONS))
FORCED = (LIQUIDATION, RUIN)


class Bar(struct.PyTreeNode):
    """What carries an account from close[t] to close[t+1], each `[*b, asset]`; None where no rule or cost reads it.

    Attributes:
        prev_close: close[t].
        open: open[t+1], as are high, low and close.
        close: close[t+1].
        high: for brackets and margin.
        low: likewise.
        years: between the two closes, ACT/365, `[*b, 1]`; for rates.
        funding: the part of a position's value that longs pay and shorts get over the bar.
        factor: adjusted / raw price; for lots.
        volatility: deviation of one-bar log returns up to t; for impact.
        adv: average traded value of a bar up to t, in currency; for impact and its cap.
        present: whether orders can fill: their bar is real, and no close at which all has just been closed.
        inside: whether the bar t+1 is; the same but where orders fill at close[t].
        delisted: the bar t+1 is the asset's last.
        session_end: the bar t+1 is the last of a trading session, `[*b, 1]`.
    """

    prev_close: Float[Array, "*b A"]
    open: Float[Array, "*b A"]
    close: Float[Array, "*b A"]
    high: Float[Array, "*b A"] | None = None
    low: Float[Array, "*b A"] | None = None
    years: Float[Array, "*b 1"] | None = None
    funding: Float[Array, "*b A"] | None = None
    factor: Float[Array, "*b A"] | None = None
    volatility: Float[Array, "*b A"] | None = None
    adv: Float[Array, "*b A"] | None = None
    present: Bool[Array, "*b A"] | None = None
    inside: Bool[Array, "*b A"] | None = None
    delisted: Bool[Array, "*b A"] | None = None
    session_end: Bool[Array, "*b 1"] | None = None


class Brackets(struct.PyTreeNode):
    """Stop-loss and take-profit as fractions of the entry price, broadcastable to `[*b, asset]`; inf: none.

    None: there is none at all, and it is not traced.
    """

    stop_loss: Float[Array, "*b A"] | None = None
    take_profit: Float[Array, "*b A"] | None = None


class Account(struct.PyTreeNode):
    """The state of the ledger.

    Attributes:
        cash: in units of the initial capital; below 0 it is borrowed.
        units: signed holdings; their value is `units * price`.
        entry: average price at which the position was built, without costs; 0 when flat.
        target: the last target exposure that came to its fill, filled or not.
        held: bars since the last fill, counted up to HELD_CAP.
        equity: the last mark; the true value, also below 0.
        ruined: True from the bar of ruin on; a ruined account is frozen.
        stopped: the sign of a position that a bracket closed, until the target has left that sign; None without stops.
        pending: targets decided and not yet due, oldest first; NaN holds. None without a delay.
        unfilled: its order had no bar or too little volume, and is to be tried again; None unless `rebalance` is
            `"on_change"`.
        owed: interest and funding too small to show in cash, kept until they are not; None where nothing carries.
    """

    cash: Float[Array, "*b"]
    units: Float[Array, "*b A"]
    entry: Float[Array, "*b A"]
    target: Float[Array, "*b A"]
    held: Int[Array, "*b A"]
    equity: Float[Array, "*b"]
    ruined: Bool[Array, "*b"]
    stopped: Int[Array, "*b A"] | None = None
    pending: Float[Array, "*b A delay"] | None = None
    unfilled: Bool[Array, "*b A"] | None = None
    owed: Float[Array, "*b"] | None = None


class Fill(struct.PyTreeNode):
    """One execution per asset, all zero where there was none.

    Attributes:
        units: signed units traded.
        price: the market price of the fill, before slippage.
        fee: fees paid, in units of the initial capital.
        slippage: what slippage and impact took, likewise.
        equity: value of the account at the fill price, before costs.
        reason: an index into REASONS.
        clipped: a target beyond the leverage limit, or an order cut by that, the volume cap or more than its own costs.
        dropped: orders given up: no cash was left, too small, or no bar to fill in.
    """

    units: Float[Array, "*b A"]
    price: Float[Array, "*b A"]
    fee: Float[Array, "*b A"]
    slippage: Float[Array, "*b A"]
    equity: Float[Array, "*b"]
    reason: Int[Array, "*b A"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]


class Events(struct.PyTreeNode):
    """What happened to an account over a bar; None where the rules and costs know no such thing.

    Attributes:
        order: the order's fill; None only from `move` where orders fill at close[t], before it.
        closing: what was closed at the close: last bars, margin, ruin.
        carry: interest and funding booked to cash, below 0 where they were paid.
        jumped: what the open itself closed: margin, and brackets that it jumped.
        inside: what brackets and margin closed within the bar.
    """

    order: Fill | None
    closing: Fill
    carry: Float[Array, "*b"] | None = None
    jumped: Fill | None = None
    inside: Fill | None = None

    @property
    def fills(self) -> tuple[Fill, ...]:
        """All that can be, the order first."""
        return tuple(fill for fill in (self.order, self.jumped, self.inside, self.closing) if fill is not None)


def open_account(
    exposure: Float[Array, "*b A"], price: Float[Array, "*b A"], rules: Rules | None = None, *, carries: bool = False
) -> Account:
    """An account worth 1.0 that holds `exposure` at `price`, as if it had been bought there long ago, free of cost.

    One that `carries` interest or funding adds them up without loss, however small they are in a bar.
    """
    exposure, price = jnp.broadcast_arrays(exposure, price)
    batch = exposure.shape[:-1]
    rules = rules or Rules()
    return Account(
        cash=1 - exposure.sum(-1),
        units=exposure / price,
        entry=jnp.where(exposure == 0, 0, price),
        target=exposure,
        held=jnp.full(exposure.shape, HELD_CAP, jnp.int32),
        equity=jnp.ones(batch, exposure.dtype),
        ruined=jnp.zeros(batch, bool),
        stopped=jnp.zeros(exposure.shape, jnp.int8) if rules.stops else None,
        pending=jnp.full((*exposure.shape, rules.delay), jnp.nan, exposure.dtype) if rules.delay else None,
        unfilled=jnp.zeros(exposure.shape, bool) if rules.rebalance == "on_change" else None,
        owed=jnp.zeros(batch, exposure.dtype) if carries else None,
    )


def value(account: Account, price: Float[Array, "*b A"]) -> Float[Array, "*b"]:
    """Equity at these prices, before any cost of closing."""
    return account.cash + (account.units * price).sum(-1)


def exposure(account: Account, price: Float[Array, "*b A"]) -> Float[Array, "*b A"]:
    """Signed position value / equity; 0 where the account is worth exactly nothing, as it is closed then."""
    equity = value(account, price)[..., None]
    return jnp.where(equity == 0, 0, account.units * price / jnp.where(equity == 0, 1, equity))


def last_decided(account: Account) -> Float[Array, "*b A"]:
    """The last target asked for, due or not."""
    if account.pending is None:
        return account.target
    target = account.target
    for k in range(account.pending.shape[-1]):
        target = jnp.where(jnp.isnan(account.pending[..., k]), target, account.pending[..., k])
    return target


def dust(dtype: DTypeLike) -> float:
    """The share of equity below which an order is rounding, not a trade: 1e-6 in float32, 1e-12 in float64."""
    return 1e-12 if jnp.dtype(dtype) == jnp.float64 else 1e-6
