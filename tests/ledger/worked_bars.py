"""How bars worked out by hand are written down, and how the ledger and the reference are held against them.

A case holds `start`, `settings`, `bars` and what must come out. `start` has fields of the account, with a cash of 1.0
and no position unless said. `settings` has rules and costs, without costs and a band unless said. `bars` are made by
`bar`. What must come out is `fills` as (bar, asset, units, price, reason), and the last `cash`, `units` and `equity`.
Where a case is about them, it is also `financing` of each bar, `fees` and `slippage` in sum, the `worth` of the account
at each fill, `stopped`, `ruined`, and the bars `clipped`, `dropped` and `beyond_cap`. The comments of a case hold its
arithmetic, done without a program. The tables stand in the test of the field that they are about, `test_<field>.py`.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger.against_reference import bar_of, costs_of
from ledger.reference import Bar, Ledger, Settings

from jaxtrader.ledger import ledger
from jaxtrader.ledger.account import REASONS, Account, Brackets
from jaxtrader.ledger.bar import Bar as LedgerBar
from jaxtrader.ledger.bar import late_bars
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import BRACKETS, Rules

NAN, INF = math.nan, math.inf
DAY = 1 / 365
# A position at an entry of 100 without cash, one financed half by debt, and a short of the same size.
LONG: dict[str, Any] = {"cash": 0.0, "units": [0.01], "entry": [100.0]}
DEBT: dict[str, Any] = {"cash": -1.0, "units": [0.02], "entry": [100.0]}
SHORT: dict[str, Any] = {"cash": 2.0, "units": [-0.01], "entry": [100.0]}
TWO = [100.0, 100.0]  # the prices of two assets
PRICES = (100.0, 110.0, 121.0)  # close[t], open[t+1] and close[t+1] for `one_bar`
NO_COSTS = Costs(fee=0.0, slippage=0.0)
# Fee 1% and slippage 2%: a buy pays 1.02 * 1.01 = 1.0302, a sale brings 0.98 * 0.99 = 0.9702.
PRICEY = Costs(fee=0.01, slippage=0.02)


def bar(target: Any, open: Any = 100.0, close: Any = None, **more: Any) -> dict[str, Any]:
    """One bar of a case: the `target` decided before it and fields of `reference.Bar`.

    Numbers stand for one asset. The bar comes from a close of 100, or `prev_close`. `open` alone gives a bar that
    stands still there.
    """
    listed = lambda x: list(x) if isinstance(x, (list, tuple)) else [x]  # noqa: E731
    target, open = listed(target), listed(open)
    close = open if close is None else listed(close)
    of_all = ("dt", "bar_dt", "session_end", "was_session_end")
    fields = {name: x if name in of_all else listed(x) for name, x in more.items()}
    return {"prev_close": [100.0] * len(open), "target": target, "open": open, "close": close, **fields}


# A long that a stop closes at 95, inside the bar. Cash, equity and costs are for the case to say.
STOPPED_AT_95: dict[str, Any] = {
    "start": LONG,
    "bars": [bar(NAN, 98.0, 97.0, high=99.0, low=94.0, stop_loss=0.05)],
    "fills": [(0, 0, -0.01, 95.0, "stop")],
    "units": [0.0],
}
# A buy that the cash of 0.005 cannot pay for. It is given up, free, and counted.
GIVEN_UP: dict[str, Any] = {
    "start": {"cash": 0.005, "units": [0.00995], "entry": [100.0]},
    "bars": [bar(1.0)],
    "fills": [],
    "fees": 0.0,
    "cash": 0.005,
    "units": [0.00995],
    "equity": 1.0,
    "dropped": [0],
}


def worked(cases: list[dict[str, Any]]) -> Any:
    """A test that all that each case says comes out, of the ledger and of the reference."""

    @pytest.mark.parametrize("come_out", [by_ledger, by_reference], ids=["ledger", "reference"])
    @pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])
    def test(case: dict[str, Any], come_out: Any) -> None:
        found = come_out(case)
        fills = [(t, a, near(units), near(price), reason) for t, a, units, price, reason in case["fills"]]
        assert found["fills"] == fills
        for name in ("cash", "units", "equity", *case.keys() & found.keys() - {"fills"}):
            assert found[name] == near(case[name]), name

    return test


def near(x: Any) -> Any:
    """Equal but for the rounding of a few operations in float64."""
    return pytest.approx(x, rel=1e-12, abs=1e-14)


def by_reference(case: dict[str, Any]) -> dict[str, Any]:
    """What the reference makes of a case."""
    settings = Settings(**case.get("settings", {}))
    account = Ledger(len(case["units"]), settings, **copy.deepcopy(case.get("start", {})))
    moves = [account.step(**copy.deepcopy(row)) for row in case["bars"]]
    done = [(t, each) for t, move in enumerate(moves) for each in move.executions]
    return {
        "fills": [(t, each.asset, each.units, each.price, each.reason) for t, each in done],
        "financing": [move.financing for move in moves],
        "worth": [each.equity for _, each in done],
        "fees": sum(each.fee for _, each in done),
        "slippage": sum(each.slippage for _, each in done),
        "clipped": [t for t, move in enumerate(moves) if move.clipped],
        "dropped": [t for t, move in enumerate(moves) if move.dropped],
        "beyond_cap": [t for t, move in enumerate(moves) if move.beyond_cap],
        "unmet": [t for t, move in enumerate(moves) if move.unmet],
        **{name: getattr(account, name) for name in ("cash", "units", "equity", "stopped", "ruined")},
    }


_compiled = jax.jit(ledger.step, static_argnames="rules")


def _step(account: Account, *given: Any) -> Any:
    """`ledger.step` as it is: one or two assets share the programs of its operations, whatever the rules and columns.

    More of them are rare, and one program for each is cheaper. Random paths run compiled beside the reference.
    """
    return (ledger.step if account.units.shape[-1] <= 2 else _compiled)(account, *given)


def by_ledger(case: dict[str, Any]) -> dict[str, Any]:
    """What `ledger.step` makes of a case."""
    settings, rows, start = Settings(**case.get("settings", {})), case["bars"], case.get("start", {})
    rules, assets = settings.rules, len(case["units"])
    full = [Bar(**{name: x for name, x in row.items() if name != "target"}) for row in rows]
    late = late_bars(*(np.array([np.atleast_1d(getattr(row, name)) for row in full]) for name in FLAGS))
    has_brackets = any(math.isfinite(x) for row in rows for name in BRACKETS for x in row.get(name, ()))
    with jax.enable_x64(True):
        costs = costs_of(settings).cast("float64")
        trailing = any("trailing_stop" in row for row in rows)
        held = {"brackets": has_brackets, "trailing": trailing}
        account = ledger.open_account(jnp.zeros(assets), jnp.ones(assets), rules, **held)
        start = {**start, "best": start.get("best", start.get("entry", [0.0] * assets))} if trailing else start
        account = account.replace(**{name: jnp.asarray(x, "float64") for name, x in start.items()})
        fills, financing, clipped, dropped, beyond, unmet = [], [], [], [], [], []
        for t, row in enumerate(rows):
            columns = _columns(row, rows)
            if any("present" in row for row in rows):
                columns["late"] = jnp.asarray(late[t])
            brackets = Brackets(*(columns.get(name) for name in BRACKETS)) if has_brackets else None
            target = jnp.asarray(row["target"], "float64")
            account, events = _step(account, target, bar_of(columns, rules), costs, rules, brackets)
            fills += [(t, *fill) for fill in _in_time(events, rules)]
            financing.append(0.0 if events.financing is None else float(events.financing))
            clipped += [t] * bool(events.order.clipped)
            dropped += [t] * bool(events.order.dropped)
            unmet += [t] * bool(events.order.unmet)
            beyond += [t] * any(fill.beyond_cap is not None and bool(fill.beyond_cap) for fill in events.fills)
    return {
        "fills": [fill[:5] for fill in fills],
        "financing": financing,
        "worth": [fill[7] for fill in fills],
        "fees": sum(fill[5] for fill in fills),
        "slippage": sum(fill[6] for fill in fills),
        "clipped": clipped,
        "dropped": dropped,
        "beyond_cap": beyond,
        "unmet": unmet,
        "stopped": [0] * assets if account.stopped is None else np.asarray(account.stopped).tolist(),
        "units": np.asarray(account.units).tolist(),
        **{name: getattr(account, name).item() for name in ("cash", "equity", "ruined")},
    }


FLAGS = ("present", "session_end")
ALWAYS = {"prev_close", "open", "close", "high", "low", "dt", "volatility", "adv", "session_end", "was_session_end"}


def _columns(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, jax.Array]:
    """The columns that some bar of the case has, with the reference's defaults where this one has no number."""
    full = vars(Bar(**{name: x for name, x in row.items() if name != "target"}))
    full |= {name: full[name] or [1.0] * len(full["close"]) for name in ("volatility", "adv")}
    some = ALWAYS.union(*rows) - {"target"}
    as_array = lambda x: jnp.asarray(x) if np.asarray(x).dtype == bool else jnp.asarray(x, "float64")  # noqa: E731
    return {name: as_array(np.atleast_1d(full[name])) for name in some}


def _in_time(events: Any, rules: Rules) -> list[tuple]:
    """(asset, units, price, reason, fee, slippage, equity before both) of each fill, by time and then by asset."""
    order = {
        "close": (events.order, events.gap_exits, events.intrabar_exits, events.closing),
        "next_open": (events.gap_exits, events.order, events.intrabar_exits, events.closing),
        "limit": (events.gap_exits, events.order, events.intrabar_exits, events.closing),
        "next_close": (events.gap_exits, events.intrabar_exits, events.order, events.closing),
    }[rules.fill]
    found = []
    for fill in order:
        for a in np.flatnonzero(np.asarray(fill.units)) if fill is not None else ():
            numbers = (float(fill.units[a]), float(fill.price[a]))
            charged = (float(fill.fee[a]), float(fill.slippage[a]), float(fill.equity))
            found.append((int(a), *numbers, REASONS[int(fill.reason[a])], *charged))
    return found


def one_bar(target, prices, units=0.0, cash=1.0, costs=PRICEY, entry=100.0, last=0.0, **rules):
    """The account after one step over prices (close[t], open[t+1], close[t+1]), the order's fill and the closing.

    Each number is of one asset, or one list of several.
    """
    with jax.enable_x64(True):
        number = partial(jnp.asarray, dtype="float64")
        units = jnp.atleast_1d(number(units))
        account = Account(
            cash=number(cash),
            units=units,
            entry=jnp.where(units == 0, 0, entry),
            target=jnp.broadcast_to(number(last), units.shape),
            bars_since_fill=jnp.full(units.shape, 3, jnp.int32),
            equity=number(1.0),
            ruined=jnp.asarray(False),
        )
        at = [jnp.broadcast_to(number(price), units.shape) for price in prices]
        order, rules = jnp.broadcast_to(number(target), units.shape), Rules(**{"rebalance_band": 0.0, **rules})
        account, events = jax.tree.map(np.asarray, _step(account, order, LedgerBar(*at), costs.cast("float64"), rules))
        return account, events.order, events.closing
