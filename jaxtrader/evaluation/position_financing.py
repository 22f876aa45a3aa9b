"""What holding cost: the financing of an account by asset, without the interest on its idle cash. NumPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from jaxtrader.ledger.account import Events, Fill, is_ruined
from jaxtrader.ledger.bar import Bar, Columns, bar_between, costs_at
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

AssetColumns = Float[np.ndarray, "bar A"]


class PositionFinancing(NamedTuple):
    """What holding each asset cost or brought, below 0 where it was paid, in units of the initial capital.

    Attributes:
        total: `[N, A]`. Together with the interest on idle cash it is the financing that the ledger booked.
        after_open: `[N, A]`, the part of it that belongs to what stood after the orders at each bar's open. That is
            interest of the bar's own time, and funding. It is 0 where orders fill at a close. Of limits it is funding.
    """

    total: AssetColumns
    after_open: AssetColumns


def bars_to(columns: Columns, rules: Rules) -> Bar:
    """The bar that leads to each row of the ledger's columns. Nothing is carried to the first row."""
    before = {name: np.concatenate([column[:1], column[:-1]]) for name, column in columns.items()}
    return bar_between(before, columns, rules)


def cash_returns(costs: Costs, bars: Bar) -> Float[np.ndarray, " bar"]:
    """What cash alone earns in each bar, a fraction, `[N]`: its `cash_rate`, as the ledger books it (money rule 6).

    0 at the first bar, which nothing is carried to, and everywhere without a `cash_rate`.
    """
    rate = costs_at(costs, bars).cash_rate
    if rate is None:
        return np.zeros(len(bars.close))
    before = _of_rows(rate) * np.asarray(bars.years)
    within_bar = 0.0 if bars.years_inside is None else _of_rows(rate) * np.asarray(bars.years_inside)
    # The interest of the bar's own time is on the interest before.
    earned = (before + within_bar + before * within_bar)[:, 0]
    earned[0] = 0
    return earned


def position_financing(
    bars: Bar,
    costs: Costs,
    rules: Rules,
    cash: Float[np.ndarray, " bar"],
    units: AssetColumns,
    ruined: Bool[np.ndarray, " bar"],
    order: Fill,
    events: Events,
) -> PositionFinancing:
    """Share what the ledger booked in each bar among the assets (money rule 6).

    Funding, dividends and the fee on shorts belong to their asset. A debt is what longs are worth beyond equity, so the
    longs share its interest by their value. Where there are none, the shorts do.

    Args:
        bars: the bar to each row, see `bars_to`.
        costs, rules: what the account traded under.
        cash: the cash at each close, after all fills.
        units: the units at each close, after all fills.
        ruined: whether the account is ruined, at each close.
        order: the order's fill in each bar.
        events: what else happened in each bar.
    """
    costs = costs_at(costs, bars)
    money, position, frozen = _before(cash)[:, None], _before(units), _before(ruined)[:, None]
    value = position * np.asarray(bars.prev_close)
    total, after_open = np.zeros_like(units), np.zeros_like(units)
    if bars.years is not None:
        idle, charged = _interest(money, value, np.abs(value), np.asarray(bars.years), costs)
        total += np.where(frozen, 0, charged)
        money += np.where(frozen, 0, idle + charged.sum(1, keepdims=True))
    if bars.dividend is not None:
        charged = np.where(frozen, 0, position * np.asarray(bars.dividend))
        total += charged
        money += charged.sum(1, keepdims=True)
    for fill in (events.gap_exits, order if rules.fill == "next_open" else None):
        if fill is not None:
            position = position + fill.units
            money = money - (fill.units * fill.price + fill.fee + fill.slippage).sum(1, keepdims=True)
    if rules.fill == "next_open":  # ruin is checked where the order fills
        frozen = frozen | np.asarray(is_ruined(order.equity, rules))[:, None]
    if bars.years_inside is not None:
        opened, years = position * np.asarray(bars.open), np.asarray(bars.years_inside)
        charged = _interest(money, opened, np.abs(value), years, costs)[1]
        if rules.fill == "limit":  # which is on what was held before the order
            total += np.where(frozen, 0, charged)
        else:
            after_open += np.where(frozen, 0, charged)
    if bars.funding is not None:
        left = position if events.intrabar_exits is None else position + events.intrabar_exits.units
        left = left + order.units if rules.fill == "limit" else left
        after_open -= np.where(frozen, 0, bars.funding * left * bars.close)
    total += after_open
    return PositionFinancing(total, after_open if rules.fill in ("next_open", "limit") else np.zeros_like(after_open))


def _interest(
    cash: Float[np.ndarray, "bar 1"], value: AssetColumns, otherwise: AssetColumns, years: np.ndarray, costs: Costs
) -> tuple[Float[np.ndarray, "bar 1"], AssetColumns]:
    """What idle cash earns in some time, and what it costs to hold positions of this value.

    The interest on a debt without any position is shared by `otherwise`.
    """
    long, short = np.maximum(value, 0), np.maximum(-value, 0)
    free = cash - short.sum(1, keepdims=True)
    idle = np.zeros_like(free) if costs.cash_rate is None else _of_rows(costs.cash_rate) * np.maximum(free, 0) * years
    charged = np.zeros_like(value)
    if costs.borrow_rate is not None:
        size = np.where(value.any(1, keepdims=True), np.where(long.any(1, keepdims=True), long, short), otherwise)
        total = size.sum(1, keepdims=True)
        share = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
        charged -= share * _of_rows(costs.borrow_rate) * np.maximum(-free, 0) * years
    if costs.short_rate is not None:
        charged -= _of_rows(costs.short_rate) * short * years
    return idle, charged


def _of_rows(rate: ArrayLike) -> Float[np.ndarray, "bar A"]:
    """A rate that broadcasts over bars and assets: one number, one an asset, or one a bar."""
    return np.atleast_2d(np.asarray(rate, np.float64))


def _before(column: np.ndarray) -> np.ndarray:
    """A column of the rows before. There is nothing before the first."""
    return np.concatenate([np.zeros_like(column[:1]), column[:-1]])
