"""The ledger against bars worked out by hand: each order of events in the money rules, in the order of time."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_adapter import RULES, bar_of, brackets_of, costs_of, events_in_time, rules_of
from ledger_cases import BRACKETS, MARGIN
from ledger_cases_costs import CARRY, COSTS, TIME
from ledger_cases_orders import CASH, CHANGE, LEVERAGE, LIMITS
from ledger_orders import Terms

from jaxtrader.envs import ledger

CASES = [*BRACKETS, *MARGIN, *CARRY, *COSTS, *LIMITS, *CASH, *LEVERAGE, *CHANGE, *TIME]
step = jax.jit(ledger.step, static_argnames="rules")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_bar_worked_out_by_hand(case):
    terms, rows, start = Terms(**case.get("terms", {})), case["bars"], case.get("start", {})
    assets = len(case["units"])
    rules, costs = rules_of(terms, rows), costs_of(terms, rows)
    with jax.enable_x64(True):
        number = partial(jnp.asarray, dtype="float64")
        account = ledger.open_account(jnp.zeros(assets), jnp.ones(assets), rules)
        account = account.replace(
            **{name: number(start[name]) for name in ("cash", "units", "entry", "target", "equity") if name in start}
        )
        if "stopped" in start:
            account = account.replace(stopped=jnp.asarray(start["stopped"], "int8"))
        if start.get("ruined"):
            account = account.replace(ruined=jnp.asarray(True))
        fills, carried, clipped, dropped = [], [], [], []
        for t, row in enumerate(rows):
            bar = jax.tree.map(number_or_flag, bar_of(row, terms, rows))
            target = number(row["target"])
            brackets = jax.tree.map(number, brackets_of(row, rows, assets)) if rules.stops else None
            account, events = step(account, target, bar, costs.cast("float64"), rules, brackets)
            fills += [(t, *fill) for fill in events_in_time(events, rules)]
            carried.append(0.0 if events.carry is None else float(events.carry))
            clipped += [t] * bool(events.order.clipped)
            dropped += [t] * bool(events.order.dropped)
    got = [fill[:5] for fill in fills]
    assert got == [(t, a, near(units), near(price), reason) for t, a, units, price, reason in case["fills"]]
    assert float(account.cash) == near(case["cash"])
    assert np.asarray(account.units).tolist() == near(case["units"])
    assert float(account.equity) == near(case["equity"])
    found = {
        "carry": carried,
        "worth": [fill[7] for fill in fills],
        "fees": sum(fill[5] for fill in fills),
        "slippage": sum(fill[6] for fill in fills),
        "ruined": bool(account.ruined),
        "clipped": clipped,
        "dropped": dropped,
    }
    if rules.stops:
        found["stopped"] = np.asarray(account.stopped).tolist()
    for name, value in found.items():
        if name in case:
            assert value == near(case[name]), name


def test_the_cases_cover_every_rule_that_can_be_switched_on():
    on = {name for case in CASES for name in case.get("terms", {})}
    assert set(RULES) <= on


def number_or_flag(x):
    x = np.asarray(x)
    return jnp.asarray(x) if x.dtype == bool else jnp.asarray(x, "float64")


def near(x):
    return pytest.approx(x, rel=1e-12, abs=1e-14)
