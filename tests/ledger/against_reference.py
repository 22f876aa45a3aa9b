"""The ledger and whole results beside the scalar reference: settings and columns of the one for the other.

The reference keeps the package's names of rules, costs, columns and reasons, so nothing is translated here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ledger.reference import LIQUIDATION, ORDER, RATES, RUIN, Ledger, Move, Settings
from ledger.reference import result as reference_result

from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.ledger.bar import Bar, bar_between
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

# Columns of a market that the reference reads beside open and close, and those that an order is sized by.
COLUMNS = ("high", "low", "dt", "bar_dt", "funding", "price_factor", "volatility", "adv", "present", "delisted")
COLUMNS += ("session_end",)
KNOWN = ("volatility", "adv")
EVERY_ROW = slice(None)


def settings_of(costs: Costs, **rules: Any) -> Settings:
    """The same costs and rules, without a band unless one is given, as in `simulate`."""
    return Settings(**{name: getattr(costs, name) for name in RATES}, **rules)


def costs_of(settings: Settings) -> Costs:
    """The same costs as the ledger takes them. Fee and slippage are traced also where there are none."""
    return Costs(**{"fee": 0.0, "slippage": 0.0} | {n: x for n, x in vars(settings.costs).items() if x is not None})


def bar_of(columns: dict[str, np.ndarray], rules: Rules) -> Bar:
    """The bar that `bar_between` makes of the reference's columns, with any leading axes."""
    now = {name: columns[f"was_{name}"] for name in ("present", "delisted", "session_end") if f"was_{name}" in columns}
    now |= {name: columns[name] for name in (*KNOWN, "price_factor") if name in columns}
    return bar_between({**now, "close": columns["prev_close"]}, columns, rules)


def columns_of(market: Market, rows: slice = EVERY_ROW) -> dict[str, list]:
    """What the reference reads of a market, of those rows."""
    found = {name: getattr(market, name) for name in COLUMNS}
    return {name: column[rows].tolist() for name, column in found.items() if column is not None}


def reference_of(
    market: Market,
    targets: np.ndarray,
    costs: Costs,
    brackets: dict[str, np.ndarray] | None = None,
    rows: slice = EVERY_ROW,
    **rules: Any,
) -> dict[str, list]:
    """The reference's result of those rows of a market, with every column that it has."""
    columns = columns_of(market, rows)
    for name, given in (brackets or {}).items():
        columns[name] = np.nan_to_num(given, nan=math.inf, posinf=math.inf).tolist()
    if costs.columns:
        rates = {name: market.columns[column][rows].tolist() for name, column in costs.columns.items()}
        columns["rates"] = [dict(zip(rates, row, strict=True)) for row in zip(*rates.values(), strict=True)]
    if (name := rules.get("dividends")) is not None:
        paid = np.where(True if market.present is None else market.present, market.columns[name], 0)
        columns["dividend"] = paid[rows].tolist()
    prices = market.open[rows].tolist(), market.close[rows].tolist(), targets.tolist()
    return reference_result(*prices, settings_of(costs, **rules), **columns)


def assert_same_result(result: BacktestResult, expected: dict[str, list], rtol: float = 1e-9) -> None:
    """Every fill in its order with all that is said of it, the marks, and what was counted.

    Sums of many fills round by the largest, so what may be near 0 has an absolute tolerance, a part of rtol.
    """
    fills, scale = result.fills, max(1.0, np.abs(expected["equity"]).max())
    reasons = np.array(expected["reasons"], fills["reason"].dtype)
    np.testing.assert_array_equal(fills["reason"], reasons)
    columns = [np.array(column) for column in zip(*expected["fills"], strict=True)] or [np.empty(0)] * 6
    bar, asset, *numbers = columns
    np.testing.assert_array_equal(fills["bar"], bar)
    np.testing.assert_array_equal(fills["symbol"], np.array(result.symbols)[asset.astype(int)])
    np.testing.assert_array_equal(fills["time"], result.times[bar.astype(int)])
    for name, want in zip(("units", "price", "fee", "slippage"), numbers, strict=True):
        np.testing.assert_allclose(fills[name], want, rtol=rtol, atol=rtol * 1e-4 * scale, err_msg=name)
    np.testing.assert_array_equal(fills["forced"], np.isin(reasons, (LIQUIDATION, RUIN)))
    # Brackets of several assets within one bar: nobody knows what the others were worth just then.
    closing = np.bincount(bar.astype(int), reasons != ORDER, len(result))[bar.astype(int)]
    known = ~fills["forced"] & ((reasons == ORDER) | (closing == 1))
    np.testing.assert_allclose(fills["equity"][known], np.array(expected["worth"])[known], rtol=rtol, err_msg="equity")
    held = np.zeros(len(result.symbols))
    for fill, a in zip(fills, asset.astype(int), strict=True):
        held[a] += fill["units"]
        np.testing.assert_allclose(fill["position"], held[a], rtol=rtol, atol=rtol * 1e-4)
    np.testing.assert_allclose(result.equity, expected["equity"], rtol=rtol, atol=rtol * 1e-2 * scale)
    np.testing.assert_allclose(result.units, expected["units"], rtol=rtol, atol=rtol * 1e-4 * scale)
    np.testing.assert_allclose(result.financing, expected["financing"], rtol=rtol, atol=rtol * 1e-2 * scale)
    assert ([] if result.ruined_at is None else [result.ruined_at]) == expected["ruined_at"]
    for name in ("clipped", "dropped", "beyond_cap", "unmet"):
        assert getattr(result, name) == len(expected[name]), name


def moves_of(
    market: Market, targets: np.ndarray, costs: Costs, **rules: Any
) -> Iterator[tuple[int, float, Ledger, Move]]:
    """The reference's account bar by bar, each order decided at the close before, as an environment steps.

    Yields the bar, the mark before it, the account after it, and what happened.
    """
    settings = settings_of(costs, **rules)
    account, found = Ledger(market.close.shape[1], settings), columns_of(market)
    known = {*KNOWN} | ({"price_factor"} if settings.rules.fill == "close" else set())
    for t in range(1, len(targets)):
        more = {name: column[t - (name in known)] for name, column in found.items()}
        more |= {f"was_{name}": found[name][t - 1] for name in ("present", "delisted", "session_end") if name in found}
        before, prices = account.equity, (market.close[t - 1], market.open[t], market.close[t])
        move = account.step(targets[t - 1], *prices, **more)
        yield t, before, account, move
