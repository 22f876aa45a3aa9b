"""From the reference's words to the ledger's: what tests of the one against the other share."""

from __future__ import annotations

import math

import numpy as np
from ledger_orders import Bar as Row
from ledger_orders import Terms

from jaxtrader.envs import bars
from jaxtrader.envs.account import REASONS, Bar, Brackets
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rules import Rules

# The reference's name of a rule: ours.
RULES = {
    "fill": "fill",
    "band": "rebalance_band",
    "ruin_level": "ruin_level",
    "leverage": "max_leverage",
    "maintenance": "maintenance_margin",
    "delay": "delay",
    "lot": "lot",
    "volume_cap": "volume_cap",
    "delist_return": "delist_return",
    "flat_at_session_end": "flat_at_session_end",
    "min_trade": "min_trade",
    "capital": "capital",
}
RATES = ("fee", "slippage", "fixed_fee", "cash_rate", "borrow_rate", "short_rate", "impact")
NAMES = {"delisted": "LAST", "session end": "SESSION", "take profit": "TAKE"}


def rules_of(terms: Terms, rows=()) -> Rules:
    """The same rules; stops where some bar has one."""
    found = {ours: getattr(terms, theirs) for theirs, ours in RULES.items()}
    found["min_trade"] = found["min_trade"] or None
    stops = any(math.isfinite(x) for row in rows for name in ("stop", "take") for x in row.get(name, ()))
    return Rules(**found, rebalance="on_change" if terms.on_change else "always", stops=stops)


def costs_of(terms: Terms, rows=()) -> Costs:
    """The same costs; what is 0 for all is absent, but for fee and slippage."""
    found = {name: getattr(terms, name) for name in RATES}
    absent = {name: None for name, rate in found.items() if name not in ("fee", "slippage") and not np.any(rate or 0)}
    return Costs(**{name: None if name in absent else np.asarray(rate) for name, rate in found.items()})


def bar_of(row: dict, terms: Terms, rows) -> Bar:
    """One bar of the reference, with what some bar of the case has; 1 where this one has no number."""
    full = Row(**{name: x for name, x in row.items() if name != "target"})
    assets = len(full.close)
    some = {name for each in rows for name in each}
    default = lambda name, other: (getattr(full, name) or [other] * assets) if name in some else None  # noqa: E731
    there = dict(
        prev_close=full.prev_close,
        open=full.open,
        close=full.close,
        high=full.high,
        low=full.low,
        years=[full.years],
        funding=default("funding", 0.0),
        factor=default("factor", 1.0),
        volatility=full.volatility or [0.01] * assets,
        adv=full.adv or [1.0] * assets,
        present=default("present", True),
        was_present=default("was_present", True),
        last=default("last", False),
        was_last=default("was_last", False),
        session_end=[full.session_end],
        was_session_end=[full.was_session_end],
    )
    return move_of({name: np.asarray(x) for name, x in there.items() if x is not None}, rules_of(terms, rows))


def move_of(there: dict, rules: Rules) -> Bar:
    """The bar that `bars.between` makes of the reference's columns, with any leading axes."""
    now = {"close": "prev_close", "present": "was_present", "delisted": "was_last", "session_end": "was_session_end"}
    now |= {"volatility": "volatility", "adv": "adv", "price_factor": "factor"}
    then = {"dt": "years", "price_factor": "factor", "delisted": "last"}
    then |= {name: name for name in ("open", "close", "high", "low", "funding", "present", "session_end")}
    rows = ({ours: there[theirs] for ours, theirs in names.items() if theirs in there} for names in (now, then))
    return bars.between(*rows, rules)


def brackets_of(row: dict, rows, assets: int) -> Brackets:
    """Stops and take-profits of a bar; None where no bar of the case has one."""
    some = {name for each in rows for name in each}
    none = [math.inf] * assets
    stop, take = (np.asarray(row.get(name, none)) if name in some else None for name in ("stop", "take"))
    return Brackets(stop, take)


def events_in_time(events, rules: Rules) -> list[tuple]:
    """(asset, units, price, reason, fee, slippage, equity before both) of each fill, by time and then by asset."""
    order = {
        "close": (events.order, events.jumped, events.inside, events.closing),
        "next_open": (events.jumped, events.order, events.inside, events.closing),
        "next_close": (events.jumped, events.inside, events.order, events.closing),
    }[rules.fill]
    found = []
    for fill in order:
        for a in np.flatnonzero(np.asarray(fill.units)) if fill is not None else ():
            reason = REASONS[int(fill.reason[a])]
            numbers = (float(fill.units[a]), float(fill.price[a]))
            charged = (float(fill.fee[a]), float(fill.slippage[a]), float(fill.equity))
            found.append((int(a), *numbers, NAMES.get(reason, reason.upper()), *charged))
    return found
