"""Turns the columns of a market into the `Bar` that the ledger reads, with the columns that rules and costs need.

It also checks that a market has what the rules and costs need.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from jaxtrader.ledger.costs import CASH_RATES, CostRange, Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.trailing import VALUE_FLOOR, volume_fault
from jaxtrader.setting_checks import setting

Columns = dict[str, Any]
RATE = "rate of "  # the beginning of the names of columns that hold a rate


class Bar(struct.PyTreeNode):
    """The prices from close[t] to close[t+1], `[*b, asset]`. A field is None where no rule or cost reads it.

    Attributes:
        prev_close: close[t].
        open: open[t+1].
        close: close[t+1].
        high: high[t+1], which brackets and margin read.
        low: low[t+1], which brackets and margin read.
        years: time from close[t] to open[t+1] in years, ACT/365, `[*b, 1]`. Interest reads it. For bars of a day or
            longer it is the time from close[t] to close[t+1].
        years_inside: time from open[t+1] to close[t+1], `[*b, 1]`. None for bars of a day or longer.
        funding: share of a position's value that longs pay and shorts get at close[t+1].
        dividend: cash of a unit that longs get and shorts pay at open[t+1].
        factor: adjusted / raw price, which lots, ticks and fees of a share read.
        volatility: standard deviation of one-bar log returns up to t, which impact reads.
        adv: average traded value of a bar up to t in currency, which impact and the volume cap read.
        fillable: whether an order can fill. None: always.
        present: whether the asset has a bar t+1. None: always.
        delisted: whether the asset counts as delisted from bar t+1 on. None: never.
        session_end: whether bar t+1 is the last of a trading session, `[*b, 1]`.
        late: whether bar t+1 is the asset's first since a session's end at which it had none. None: never.
        rates: rates of bar t+1 that the costs have in columns, by name, `[*b, A]` or `[*b, 1]`. None: all are numbers.
        order_rates: those of bar t, where orders fill at its close. None: as `rates`.
        order_factor: the factor of bar t, where orders are sized at its close. None: as `factor`.
    """

    prev_close: Float[Array, "*b A"]
    open: Float[Array, "*b A"]
    close: Float[Array, "*b A"]
    high: Float[Array, "*b A"] | None = None
    low: Float[Array, "*b A"] | None = None
    years: Float[Array, "*b 1"] | None = None
    years_inside: Float[Array, "*b 1"] | None = None
    funding: Float[Array, "*b A"] | None = None
    dividend: Float[Array, "*b A"] | None = None
    factor: Float[Array, "*b A"] | None = None
    volatility: Float[Array, "*b A"] | None = None
    adv: Float[Array, "*b A"] | None = None
    fillable: Bool[Array, "*b A"] | None = None
    present: Bool[Array, "*b A"] | None = None
    delisted: Bool[Array, "*b A"] | None = None
    session_end: Bool[Array, "*b 1"] | None = None
    late: Bool[Array, "*b A"] | None = None
    rates: dict[str, Array] | None = None
    order_rates: dict[str, Array] | None = None
    order_factor: Float[Array, "*b A"] | None = None


def ledger_columns(market: Any, costs: Costs | CostRange, rules: Rules, *, brackets: bool = False) -> Columns:
    """Return the columns that the rules and costs read, `[T, A]`, or `[T, 1]` where all assets share a column.

    The market is a `Market` or a `MarketArrays`. With `brackets`, positions have some. Raises
    ValueError where impact or a volume cap needs an average traded value, and the market has none.
    """
    names = ["open", "close"]
    names += ["high", "low"] if brackets or rules.margin or rules.fill == "limit" else []
    names += ["volatility"] if costs.has("impact") else []
    names += ["adv"] if costs.has("impact") or rules.volume_cap is not None else []
    is_raw = rules.lot is not None or rules.tick is not None or costs.has("share_fee")
    names += ["price_factor"] if is_raw else []
    columns = {name: getattr(market, name) for name in [*names, "funding", "present", "delisted"]}
    if "adv" in columns and columns["adv"] is None:  # a caller may put costs into EnvParams after `check_market`
        raise ValueError("`impact` and `volume_cap` need an average traded value (adv), and this market has none")
    if rules.dividends is not None:
        paid = market.columns[rules.dividends]
        columns["dividend"] = paid if market.present is None else paid * market.present  # a column repeats at a hole
    if costs.has_financing:
        columns["dt"] = market.dt[:, None]
        columns["bar_dt"] = None if market.bar_dt is None else market.bar_dt[:, None]
    if rules.flat_at_session_end:
        columns["session_end"] = market.session_end[:, None]
        if market.present is not None:
            columns["late"] = late_bars(market.present, columns["session_end"])
    for name, column in costs.columns.items():
        rates = market.columns[column]
        columns[RATE + name] = _of_cash(rates, market.present) if name in CASH_RATES else rates
    return {name: column for name, column in columns.items() if column is not None}


def _of_cash(rates: Any, present: Any) -> Any:
    """Return the rate on the cash account, `[T, 1]`, from an asset with a bar. The others repeat an older one."""
    if present is None:
        return rates[:, :1]
    xp: Any = np if isinstance(rates, np.ndarray) else jnp
    return xp.take_along_axis(rates, xp.argmax(present, 1)[:, None], 1)


def late_bars(present: Any, session_end: Any) -> Any:
    """Return which bars are an asset's first since a session's end at which it had none, `[T, *b, A]`.

    The arguments are the columns of a market, of NumPy or of JAX.
    """
    xp = np if isinstance(present, np.ndarray) else jnp
    rows = xp.arange(len(present)).reshape(-1, *(1,) * (present.ndim - 1))

    def latest_before(mask: Any) -> Any:
        """The last row before each at which the mask is true, -1 where there is none."""
        latest: Any = xp.where(mask, rows, -1)
        latest = np.maximum.accumulate(latest, 0) if xp is np else jax.lax.cummax(latest, 0)
        return xp.concatenate([xp.full_like(latest[:1], -1), latest[:-1]])

    return present & (latest_before(session_end) > latest_before(present))


def take_rows(columns: Columns, rows: ArrayLike) -> Columns:
    """Return the given rows of each column."""
    return {name: column[rows] for name, column in columns.items()}


def bar_between(now: Columns, then: Columns, rules: Rules) -> Bar:
    """Return the bar that leads from rows `now` to rows `then`.

    Volatility and traded value are of `now`, since a fill must not know its own bar's.
    """
    present = then.get("present")
    fillable = _fillable_at_close(now, rules) if rules.fill == "close" else present
    if rules.fill == "limit":  # who places an order does not know whether the next bar will be there
        fillable = None
    if "volatility" in now:  # impact needs a known average of the traded value
        traded = now["adv"] > VALUE_FLOOR
        fillable = traded if fillable is None else fillable & traded
    years, within_bar = then.get("dt"), then.get("bar_dt")
    return Bar(
        prev_close=now["close"],
        open=then["open"],
        close=then["close"],
        high=then.get("high"),
        low=then.get("low"),
        years=years if within_bar is None else years - within_bar,
        years_inside=within_bar,
        funding=then.get("funding"),
        dividend=then.get("dividend"),
        factor=then.get("price_factor"),
        volatility=now.get("volatility"),
        adv=now.get("adv"),
        fillable=fillable,
        present=present,
        delisted=then.get("delisted"),
        session_end=then.get("session_end"),
        late=then.get("late"),
        rates=_rate_columns(then),
        order_rates=_rate_columns(now) if rules.fill == "close" else None,
        order_factor=now.get("price_factor") if rules.fill in ("close", "limit") else None,
    )


def _rate_columns(row: Columns) -> dict[str, Any] | None:
    """Return the rates among the columns, by name. None: there are none."""
    return {name.removeprefix(RATE): column for name, column in row.items() if name.startswith(RATE)} or None


def costs_at(costs: Costs, bar: Bar, *, order: bool = False) -> Costs:
    """Return the costs in force in bar t+1, or those of the bar's `order`. A fee of a share becomes one of a unit."""
    rates = bar.order_rates if order and bar.order_rates is not None else bar.rates
    costs = costs if rates is None else costs.replace(**rates)
    factor = (at_order(bar) if order else bar).factor
    if costs.share_fee is None or factor is None:
        return costs
    # A unit is capital x factor shares, and an amount of currency is the amount / capital in the account's own.
    return costs.replace(share_fee=costs.share_fee * factor)


def at_order(bar: Bar) -> Bar:
    """Return the bar as an order of close[t] reads it: with the price factor of that row."""
    return bar if bar.order_factor is None else bar.replace(factor=bar.order_factor, order_factor=None)


def _fillable_at_close(now: Columns, rules: Rules) -> Any:
    """Return where orders can fill at a close that has not just ended the asset or the session. None: everywhere."""
    masks = [now["present"]] if "present" in now else []
    if "delisted" in now:
        masks.append(~now["delisted"])
    if rules.flat_at_session_end:
        masks.append(~now["session_end"])
    return functools.reduce(operator.and_, masks) if masks else None


def check_market(market: Any, costs: Costs | CostRange, rules: Rules) -> None:
    """Raise ValueError where the rules or costs need volume, sessions, a capital or assets that are not there."""
    rules.check_costs(costs)
    rules.check_assets(market.close.shape[1])
    costs.check_assets(market.close.shape[1])
    costs.check_columns(market)
    _check_dividends(market, rules)
    for name, is_on in (("impact", costs.has("impact")), ("volume_cap", rules.volume_cap is not None)):
        if is_on and market.adv is None:
            raise ValueError(
                f"{setting(name)} needs a volume that can be trusted, and {_distrusted_volume(market)}; leave it out, "
                "or give bars with volume"
            )
    if rules.flat_at_session_end and (without := _without_sessions(market)):
        raise ValueError(
            "`flat_at_session_end` needs bars shorter than a day in sessions with gaps between them; "
            f"{without} no such sessions"
        )


def _distrusted_volume(market: Any) -> str:
    """Return whose volume is not trusted, and why."""
    for (first, _, end), history in zip(market.segments, market.symbols, strict=True):
        for asset, name in enumerate(history.split(",")):
            volume = market.volume[first:end, asset : asset + 1]
            if market.present is not None:
                volume = volume[market.present[first:end, asset]]
            if len(volume) and (fault := volume_fault(volume)):
                return f"that of {name} {fault}"
    return "the history that the market is a part of has none"


def _check_dividends(market: Any, rules: Rules) -> None:
    """Raise ValueError where dividends have no column, or one that is no cash, or prices are adjusted for them."""
    name = rules.dividends
    if name is None:
        return
    if name not in market.columns:
        known = ", ".join(market.columns) or "none"
        raise ValueError(f"{setting('dividends', name)} must be a further column of the bars, which are {known}")
    if market.price_factor is not None and (market.price_factor != 1).any():
        raise ValueError(
            "dividends are cash where prices are raw, and these prices are adjusted; load them with `adjust=False`, "
            "or leave `dividends` out"
        )
    paid = market.columns[name]
    bad = ~((paid >= 0) & (paid < np.inf))
    if bad.any():
        row, asset = (int(x) for x in np.argwhere(bad)[0])
        raise ValueError(
            f"{setting('dividends', name)}: the column is {paid[row, asset]:g} at {market.times[row]}; a dividend is 0 "
            "or more"
        )


def check_capital(market: Any, rules: Rules, exposure: float, first: np.ndarray) -> None:
    """Check that the capital buys at least one lot of one asset. Otherwise an agent could only learn to do nothing.

    A decision asks for at most `exposure`, from the row `first` `[S]` of each segment on. Raises ValueError where no
    lot, or no minimum trade, is within reach.
    """
    most = rules.currency_per_unit * exposure
    reach = f"all that positions up to {exposure:g} of a capital of {rules.currency_per_unit:,.6g} can buy"
    if rules.min_trade is not None and rules.min_trade > most:
        raise ValueError(
            f"{setting('min_trade', rules.min_trade)} is more than {reach}: nothing would ever be traded; lower it, or "
            "give more `capital`"
        )
    if rules.lot is None:
        return
    raw = market.low if market.price_factor is None else market.low / market.price_factor
    raw = raw if rules.multiplier is None else raw * np.asarray(rules.multiplier)
    spans = zip(first, market.segments[:, 2], strict=True)
    cheapest = rules.lot * min(float(raw[start:end].min()) for start, end in spans if start < end)
    if cheapest > most:
        units = "shares" if rules.multiplier is None else "contracts"
        raise ValueError(
            f"a lot of {rules.lot:g} {units} costs {cheapest:,.6g} at the least, more than {reach}: nothing would ever "
            "be traded; lower `lot`, or give more `capital`"
        )


def _without_sessions(market: Any) -> str:
    """Return the symbols without sessions, with their verb, or an empty text."""
    if market.session_end is None:
        return "these have"
    ends = zip(market.symbols, market.segments, strict=True)
    names = [symbol for symbol, (start, _, end) in ends if not market.session_end[start:end].any()]
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'}" if names else ""
