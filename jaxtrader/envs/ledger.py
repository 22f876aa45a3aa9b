"""The account: what an order does to cash and units, bar by bar. The one ledger of jaxtrader.

Training, validation, backtest and `simulate` all call `step`. Everything is a pure function of arrays whose last axis
is the asset and whose leading axes (`*b`: lanes, agents, or none) broadcast, in float32 or float64. Equity is in units
of the initial capital. There is no observation, reward or episode here: see `trading.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from jaxtrader.envs.costs import Costs

Fills = Literal["close", "next_open", "next_close"]
Rebalance = Literal["always", "on_change"]

MAX_LEVERAGE = 1.0
HELD_CAP = 20  # bars since the last fill are counted up to here: the observation must not become a clock


@dataclass(frozen=True)
class Rules:
    """How orders become fills. Static: a change compiles anew.

    Attributes:
        fill: where a decision taken at close[t] fills: `"next_open"` (open[t+1]), `"next_close"` (close[t+1]), or
            `"close"` (close[t] itself: optimistic, for comparison).
        rebalance_band: no trade smaller than this share of equity, except to go flat.
        rebalance: `"always"` re-applies the target at every bar, `"on_change"` trades only when the target changes.
        ruin_level: equity, in units of the initial capital, at or below which everything is closed for good.
    """

    fill: Fills = "next_open"
    rebalance_band: float = 0.05
    rebalance: Rebalance = "always"
    ruin_level: float = 0.01

    def __post_init__(self) -> None:
        if self.fill not in get_args(Fills):
            raise ValueError(f"fill {self.fill!r} is unknown; use one of {', '.join(get_args(Fills))}")
        if self.rebalance not in get_args(Rebalance):
            raise ValueError(f"rebalance {self.rebalance!r} is unknown; use one of {', '.join(get_args(Rebalance))}")
        if not 0 <= self.rebalance_band < 1:
            raise ValueError(f"rebalance_band {self.rebalance_band} is outside [0, 1): it is a share of equity")
        if not 0 <= self.ruin_level < 1:
            raise ValueError(f"ruin_level {self.ruin_level} is outside [0, 1): it is a share of the initial capital")


class Bar(struct.PyTreeNode):
    """The prices that carry an account from close[t] to close[t+1]. Each `[*b, asset]`."""

    prev_close: Float[Array, "*b A"]
    open: Float[Array, "*b A"]
    close: Float[Array, "*b A"]


class Account(struct.PyTreeNode):
    """The state of the ledger.

    Attributes:
        cash: in units of the initial capital.
        units: signed holdings; their value is `units * price`.
        entry: average price at which the position was built, without costs; 0 when flat.
        target: the last target exposure that was ordered.
        held: bars since the last fill, counted up to HELD_CAP.
        equity: the last mark; the true value, also below 0.
        ruined: True from the bar of ruin on; a ruined account is frozen.
    """

    cash: Float[Array, "*b"]
    units: Float[Array, "*b A"]
    entry: Float[Array, "*b A"]
    target: Float[Array, "*b A"]
    held: Int[Array, "*b A"]
    equity: Float[Array, "*b"]
    ruined: Bool[Array, "*b"]


class Fill(struct.PyTreeNode):
    """One execution per asset, all zero where there was none.

    Attributes:
        units: signed units traded.
        price: the market price of the fill, before slippage.
        fee: fees paid, in units of the initial capital.
        slippage: what slippage took, likewise.
        equity: value of the account at the fill price, before costs.
        clipped: a target beyond the leverage limit, or a buy cut by more than its own costs.
        dropped: buys given up because no cash was left.
    """

    units: Float[Array, "*b A"]
    price: Float[Array, "*b A"]
    fee: Float[Array, "*b A"]
    slippage: Float[Array, "*b A"]
    equity: Float[Array, "*b"]
    clipped: Bool[Array, "*b"]
    dropped: Bool[Array, "*b"]


def open_account(exposure: Float[Array, "*b A"], price: Float[Array, "*b A"]) -> Account:
    """An account worth 1.0 that holds `exposure` at `price`, as if it had been bought there long ago, free of cost."""
    exposure, price = jnp.broadcast_arrays(exposure, price)
    batch = exposure.shape[:-1]
    return Account(
        cash=1 - exposure.sum(-1),
        units=exposure / price,
        entry=jnp.where(exposure == 0, 0, price),
        target=exposure,
        held=jnp.full(exposure.shape, HELD_CAP, jnp.int32),
        equity=jnp.ones(batch, exposure.dtype),
        ruined=jnp.zeros(batch, bool),
    )


def value(account: Account, price: Float[Array, "*b A"]) -> Float[Array, "*b"]:
    """Equity at these prices, before any cost of closing."""
    return account.cash + (account.units * price).sum(-1)


def exposure(account: Account, price: Float[Array, "*b A"]) -> Float[Array, "*b A"]:
    """Signed position value / equity."""
    return account.units * price / value(account, price)[..., None]


def step(
    account: Account, target: Float[Array, "*b A"], bar: Bar, costs: Costs, rules: Rules
) -> tuple[Account, Fill, Fill]:
    """Carry an account from close[t] to close[t+1] (money rule 2).

    Args:
        account: the state at close[t].
        target: the exposure asked for at close[t], signed, per asset. NaN holds the units.
        bar: the prices of the move.
        costs: what a fill costs.
        rules: where and when orders fill.

    Returns:
        The state at close[t+1], the fill of the order, and the fill that closed everything if the mark was ruin.
    """
    price = {"close": bar.prev_close, "next_open": bar.open, "next_close": bar.close}[rules.fill]
    account = account.replace(held=jnp.minimum(account.held + 1, HELD_CAP))
    account, fill = execute(account, target, price, costs, rules)
    account, closing = mark(account, bar.close, costs, rules)
    return account, fill, closing


def execute(
    account: Account, target: Float[Array, "*b A"], price: Float[Array, "*b A"], costs: Costs, rules: Rules
) -> tuple[Account, Fill]:
    """Fill an order for `target` at `price`: sizing, band, dust, caps, costs, ruin at the fill (money rules 3-5, 7)."""
    equity = value(account, price)
    ruin = ~account.ruined & (equity <= rules.ruin_level)
    wanted, over_limit = _cap(account, target, price, equity)
    order = _order(account, target, wanted, price, equity, rules)
    order = jnp.where(account.ruined[..., None], 0, order)
    order = jnp.where(ruin[..., None], -account.units, order)
    order, cut, dropped, clipped = _cut_to_cash(account, order, price, equity, ruin, costs)

    account, fill = _settle(account, order, price, equity, costs)
    # Exact zeros: what is left over after a division and a multiplication must not be traded again at the next bar.
    buy = order > 0
    flat = ((target == 0) & (order != 0) & ~(buy & cut[..., None])) | ruin[..., None]
    bought = jnp.any(buy, -1)
    account = account.replace(
        units=jnp.where(flat, 0, account.units),
        entry=jnp.where(flat, 0, account.entry),
        cash=jnp.where(cut & bought & ~dropped, 0, account.cash),
        target=jnp.where(jnp.isnan(target) | account.ruined[..., None], account.target, target),
        ruined=account.ruined | ruin,
    )
    alive = ~account.ruined
    return account, fill.replace(clipped=(over_limit | clipped) & alive, dropped=dropped & alive)


def mark(account: Account, close: Float[Array, "*b A"], costs: Costs, rules: Rules) -> tuple[Account, Fill]:
    """Value the account at `close`; at or below the ruin level close it there, with costs (money rules 2g, 7)."""
    equity = value(account, close)
    ruin = ~account.ruined & (equity <= rules.ruin_level)
    account, fill = _settle(account, jnp.where(ruin[..., None], -account.units, 0), close, equity, costs)
    account = account.replace(
        units=jnp.where(ruin[..., None], 0, account.units),
        entry=jnp.where(ruin[..., None], 0, account.entry),
        ruined=account.ruined | ruin,
    )
    return account.replace(equity=value(account, close)), fill


def dust(dtype: DTypeLike) -> float:
    """The share of equity below which an order is rounding, not a trade: 1e-6 in float32, 1e-12 in float64."""
    return 1e-12 if jnp.dtype(dtype) == jnp.float64 else 1e-6


def _cap(
    account: Account, target: Array, price: Array, equity: Array
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"]]:
    """Scale the targets so that gross exposure stays within MAX_LEVERAGE; units held on NaN use it up first."""
    held = jnp.where(jnp.isnan(target), jnp.abs(account.units * price), 0).sum(-1) / equity
    room = jnp.maximum(MAX_LEVERAGE - held, 0)
    gross = jnp.nansum(jnp.abs(target), -1)
    scale = jnp.minimum(1, room / jnp.where(gross > 0, gross, 1))
    return target * scale[..., None], gross > room * (1 + dust(equity.dtype))


def _order(
    account: Account, target: Array, wanted: Array, price: Array, equity: Array, rules: Rules
) -> Float[Array, "*b A"]:
    """Units to trade before costs: none on NaN, in dust, in the band (a target of 0 ignores it), or unchanged."""
    order = wanted * equity[..., None] / price - account.units
    size = jnp.abs(order) * price
    none = jnp.isnan(target) | (size <= dust(equity.dtype) * equity[..., None])
    if rules.rebalance_band > 0:
        none |= (size < rules.rebalance_band * equity[..., None]) & (target != 0)
    if rules.rebalance == "on_change":
        none |= target == account.target
    return jnp.where(none, 0, order)


def _cut_to_cash(
    account: Account, order: Array, price: Array, equity: Array, ruin: Array, costs: Costs
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"], Bool[Array, "*b"], Bool[Array, "*b"]]:
    """Cut all buys by one factor so that cash, after the sales, pays for them (money rule 5).

    Returns the orders, whether they were cut, whether the buys were dropped, and whether the cut exceeds the trade's
    own costs.
    """
    fee, slippage = charges(order, price, costs)
    pay = order * price + fee + slippage  # negative where a sale brings cash
    buys = jnp.where(order > 0, pay, 0).sum(-1)
    cash = account.cash - jnp.where(order > 0, 0, pay).sum(-1)
    cut = (buys > 0) & (buys > cash) & ~ruin  # rounding may leave cash a hair below 0 with nothing to buy
    share = jnp.where(cut, jnp.maximum(cash, 0) / jnp.where(buys > 0, buys, 1), 1)
    dropped = cut & (cash <= 0)
    clipped = cut & (buys - jnp.maximum(cash, 0) > (fee + slippage).sum(-1) + dust(equity.dtype) * equity)
    order = jnp.where(order > 0, order * share[..., None], order)
    # A cut may leave less than dust: that is no trade either (closing out in ruin is exempt).
    small = (jnp.abs(order) * price <= dust(equity.dtype) * equity[..., None]) & ~ruin[..., None]
    return jnp.where(small, 0, order), cut, dropped, clipped


def _settle(account: Account, order: Array, price: Array, equity: Array, costs: Costs) -> tuple[Account, Fill]:
    """Book a fill: p' = p (1 + slippage sign(d)); cash -= d p' + fee |d| p'; units += d (money rule 4)."""
    fee, slippage = charges(order, price, costs)
    units = account.units + order
    added = account.units * order >= 0
    average = (account.units * account.entry + order * price) / jnp.where(units == 0, 1, units)
    entry = jnp.where(added, average, jnp.where(account.units * units > 0, account.entry, price))
    traded = order != 0
    none = jnp.zeros_like(account.ruined)
    account = account.replace(
        cash=account.cash - (order * price + fee + slippage).sum(-1),
        units=units,
        entry=jnp.where(traded, jnp.where(units == 0, 0, entry), account.entry),
        held=jnp.where(traded, 0, account.held),
    )
    return account, Fill(order, jnp.broadcast_to(price, order.shape), fee, slippage, equity, none, none)


def charges(order: Array, price: Array, costs: Costs) -> tuple[Float[Array, "*b A"], Float[Array, "*b A"]]:
    """Fee and slippage of an order of signed units, in units of the initial capital (money rule 4)."""
    notional = jnp.abs(order) * price
    slip = jnp.zeros_like(notional) if costs.slippage is None else notional * costs.slippage
    if costs.fee is None:
        return jnp.zeros_like(notional), slip
    return (notional + jnp.sign(order) * slip) * costs.fee, slip
