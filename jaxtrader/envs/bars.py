"""From the columns of a market to the `Bar` that the ledger moves by: only what the rules and costs read."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxtrader.envs.account import Bar
from jaxtrader.envs.costs import CostRange, Costs
from jaxtrader.envs.rules import Rules
from jaxtrader.market.trailing import VALUE_FLOOR

Columns = dict[str, Any]


def columns(market: Any, costs: Costs | CostRange, rules: Rules) -> Columns:
    """The columns `[T, A]` (`[T, 1]` where they are of all assets) that a ledger reads; of a Tape or of a Market."""
    names = ["open", "close"]
    names += ["high", "low"] if rules.stops or rules.margin else []
    names += ["volatility"] if costs.has("impact") else []
    names += ["adv"] if costs.has("impact") or rules.volume_cap is not None else []
    names += ["price_factor"] if rules.lot is not None else []
    found = {name: getattr(market, name) for name in [*names, "funding", "present", "delisted"]}
    if "adv" in found and found["adv"] is None:  # as of costs that were put into EnvParams later
        raise ValueError("impact and volume_cap need an average traded value (adv), and this market has none")
    if costs.carries:
        found["dt"] = market.dt[:, None]
    if rules.flat_at_session_end:
        found["session_end"] = market.session_end[:, None]
    return {name: column for name, column in found.items() if column is not None}


def take(found: Columns, rows: ArrayLike) -> Columns:
    """Some rows of each column."""
    return {name: column[rows] for name, column in found.items()}


def between(now: Columns, then: Columns, rules: Rules) -> Bar:
    """The bar that leads from rows `now` to rows `then`. What sizes an order is known at `now`."""
    inside = then.get("present")
    present = _open_at_the_close(now, rules) if rules.fill == "close" else inside
    if "volatility" in now:  # impact is charged: a share of an average that is not known would be any number
        traded = now["adv"] > VALUE_FLOOR
        present = traded if present is None else present & traded
    return Bar(
        prev_close=now["close"],
        open=then["open"],
        close=then["close"],
        high=then.get("high"),
        low=then.get("low"),
        years=then.get("dt"),
        funding=then.get("funding"),
        factor=(now if rules.fill == "close" else then).get("price_factor"),
        volatility=now.get("volatility"),
        adv=now.get("adv"),
        present=present,
        inside=inside,
        delisted=then.get("delisted"),
        session_end=then.get("session_end"),
    )


def _open_at_the_close(now: Columns, rules: Rules) -> Any:
    """Where orders at close[t] can fill: not where the same close has ended the session or the asset; None: all can."""
    masks = [now["present"]] if "present" in now else []
    if "delisted" in now:
        masks.append(~now["delisted"])
    if rules.flat_at_session_end:
        masks.append(~now["session_end"])  # of all assets: it broadcasts
    return functools.reduce(operator.and_, masks) if masks else None


def check(market: Any, costs: Costs | CostRange, rules: Rules) -> None:
    """Raise ValueError where the rules or costs need what the market does not have."""
    rules.check_costs(costs)
    costs.check_assets(market.close.shape[1])
    for what, asked in (("impact", costs.has("impact")), ("volume_cap", rules.volume_cap is not None)):
        if asked and market.adv is None:
            raise ValueError(
                f"{what} needs a trustworthy volume, and the market has none; leave it out, or give bars with volume"
            )
    if rules.flat_at_session_end and (without := _without_sessions(market)):
        raise ValueError(
            f"flat_at_session_end needs bars shorter than a day in sessions with gaps between them; {without} no such "
            "sessions"
        )


def check_size(market: Any, rules: Rules, exposure: float, first: np.ndarray) -> None:
    """Raise ValueError where the capital is too small for any order, so that an agent could only learn to do nothing.

    One asset of one history within reach is enough; what a book could not buy, its report tells (`Book.dropped`).

    Args:
        market: whose bars are looked at, from the rows `first` [S] of its segments.
        rules: with the capital, the lot and the minimum trade.
        exposure: the most that a decision asks for.
        first: rows.
    """
    most = rules.currency * exposure
    reach = f"all that positions up to {exposure:g} of a capital of {rules.currency:,.6g} can buy"
    if rules.min_trade is not None and rules.min_trade > most:
        raise ValueError(
            f"min_trade {rules.min_trade:,.6g} is more than {reach}: nothing would ever be traded; lower it, or give "
            "more capital"
        )
    if rules.lot is None:
        return
    raw = market.low if market.price_factor is None else market.low / market.price_factor
    ends = market.segments[:, 2]
    cheapest = rules.lot * min(
        float(raw[start:end].min()) for start, end in zip(first, ends, strict=True) if start < end
    )
    if cheapest > most:
        raise ValueError(
            f"a lot of {rules.lot:g} shares costs {cheapest:,.6g} at the least, more than {reach}: nothing would ever "
            "be traded; lower lot, or give more capital"
        )


def _without_sessions(market: Any) -> str:
    """Who has no sessions, and the verb; empty where all have."""
    if market.session_end is None:
        return "these have"
    ends = zip(market.symbols, market.segments, strict=True)
    names = [symbol for symbol, (start, _, end) in ends if not market.session_end[start:end].any()]
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'}" if names else ""
