"""A book beside that of the scalar reference, fill by fill: what tests of `simulate` share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ledger_adapter import NAMES, RATES, RULES
from ledger_reference import LIQUIDATION, ORDER, RUIN, Ledger, Move, Terms
from ledger_reference import book as reference_book

from jaxtrader.envs.costs import Costs
from jaxtrader.evaluation.book import Book
from jaxtrader.market.market import Market

# The reference's name of a column: the market's.
COLUMNS = {
    "high": "high",
    "low": "low",
    "years": "dt",
    "funding": "funding",
    "factor": "price_factor",
    "volatility": "volatility",
    "adv": "adv",
    "present": "present",
    "last": "delisted",
    "session_end": "session_end",
}
EVERY_ROW = slice(None)
CODES = ("ORDER", "STOP", "TAKE", "LIQUIDATION", "RUIN", "LAST", "SESSION")  # as the reference numbers them


def terms_of(costs: Costs, **rules: Any) -> Terms:
    """The same costs and rules in the reference's words; no band unless given, as in `simulate`."""
    theirs = {ours: name for name, ours in RULES.items()}
    rates = {name: np.asarray(getattr(costs, name)).tolist() for name in RATES if costs.has(name)}
    kept = {theirs[name]: value for name, value in rules.items() if name != "rebalance"}
    return Terms(**{"fee": 0.0, "slippage": 0.0, **rates, **kept}, on_change=rules.get("rebalance") == "on_change")


def columns_of(market: Market, rows: slice = EVERY_ROW) -> dict[str, list]:
    """What the reference reads of a market, of those rows."""
    found = {theirs: getattr(market, ours) for theirs, ours in COLUMNS.items()}
    return {name: column[rows].tolist() for name, column in found.items() if column is not None}


def reference_of(
    market: Market,
    targets: np.ndarray,
    costs: Costs,
    stops: dict[str, np.ndarray] | None = None,
    rows: slice = EVERY_ROW,
    **rules: Any,
) -> dict[str, list]:
    """The reference's book of those rows of a market, with every column that it has."""
    columns = columns_of(market, rows)
    for theirs, ours in (("stop", "stop_loss"), ("take", "take_profit")):
        if ours in (stops or {}):
            columns[theirs] = np.nan_to_num(stops[ours], nan=math.inf, posinf=math.inf).tolist()
    prices = market.open[rows].tolist(), market.close[rows].tolist(), targets.tolist()
    return reference_book(*prices, terms_of(costs, **rules), **columns)


def assert_same_book(book: Book, expected: dict[str, list], rtol: float = 1e-9) -> None:
    """Every fill in its order with all that is said of it, the marks, and what was counted."""
    fills, scale = book.fills, max(1.0, np.abs(expected["equity"]).max())
    names = [NAMES.get(reason, str(reason).upper()) for reason in fills["reason"]]
    assert names == [CODES[code] for code in expected["reasons"]]
    columns = [np.array(column) for column in zip(*expected["fills"], strict=True)] or [np.empty(0)] * 6
    bar, asset, *numbers = columns
    np.testing.assert_array_equal(fills["bar"], bar)
    np.testing.assert_array_equal(fills["symbol"], np.array(book.symbols)[asset.astype(int)])
    np.testing.assert_array_equal(fills["time"], book.times[bar.astype(int)])
    for name, want in zip(("units", "price", "fee", "slippage"), numbers, strict=True):
        np.testing.assert_allclose(fills[name], want, rtol=rtol, atol=rtol * 1e-4 * scale, err_msg=name)
    codes = np.array(expected["reasons"], int)
    np.testing.assert_array_equal(fills["forced"], np.isin(codes, (LIQUIDATION, RUIN)))
    # Brackets of several assets within one bar: nobody knows what the others were worth just then.
    closing = np.bincount(bar.astype(int), codes != ORDER, len(book))[bar.astype(int)]
    known = ~fills["forced"] & ((codes == ORDER) | (closing == 1))
    np.testing.assert_allclose(fills["equity"][known], np.array(expected["worth"])[known], rtol=rtol, err_msg="equity")
    held = np.zeros(len(book.symbols))
    for fill, a in zip(fills, asset.astype(int), strict=True):
        held[a] = 0 if fill["reason"] != "order" else held[a] + fill["units"]
        np.testing.assert_allclose(fill["position"], held[a], rtol=rtol, atol=rtol * 1e-4)
    np.testing.assert_allclose(book.equity, expected["equity"], rtol=rtol, atol=rtol * 1e-2 * scale)
    np.testing.assert_allclose(book.units, expected["units"], rtol=rtol, atol=rtol * 1e-4 * scale)
    np.testing.assert_allclose(book.carry, expected["carry"], rtol=rtol, atol=rtol * 1e-2 * scale)
    assert ([] if book.ruined_at is None else [book.ruined_at]) == expected["ruined_at"]
    assert (book.clipped, book.dropped) == (len(expected["clipped"]), len(expected["dropped"]))


def moves_of(
    market: Market, targets: np.ndarray, costs: Costs, **rules: Any
) -> Iterator[tuple[int, float, Ledger, Move]]:
    """The reference's account bar by bar, each order decided at the close before, as an environment steps.

    Yields the bar, the mark before it, the account after it, and what happened.
    """
    terms, account = terms_of(costs, **rules), Ledger(market.close.shape[1])
    found = columns_of(market)
    known = {"volatility", "adv"} | ({"factor"} if terms.fill == "close" else set())
    for t in range(1, len(targets)):
        more = {name: column[t - (name in known)] for name, column in found.items()}
        more |= {f"was_{name}": found[name][t - 1] for name in ("present", "last", "session_end") if name in found}
        before, prices = account.equity, (market.close[t - 1], market.open[t], market.close[t])
        move = account.step(targets[t - 1], *prices, terms, **more)
        yield t, before, account, move
