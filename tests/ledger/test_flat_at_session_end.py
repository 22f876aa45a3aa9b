"""`flat_at_session_end`: no position is held over the close of a session, whatever bars are missing (money rule 2)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import BARS, full_market, orders_of
from ledger.paths import few, seeds
from ledger.worked_bars import LONG, NAN, TWO, bar, worked

from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

CASES = [
    {
        "name": "flat at the session's end, at the close; the next session enters again",
        "start": LONG,
        "settings": {"fee": 0.1, "flat_at_session_end": True},
        "bars": [
            bar(NAN, 100.0, 110.0, session_end=True),  # 1.1 - 0.11
            bar(0.5, 99.0, prev_close=110.0),  # 0.495 / 99 = 0.005, fee 0.0495
        ],
        "fills": [(0, 0, -0.01, 110.0, "session end"), (1, 0, 0.005, 99.0, "order")],
        "cash": 0.4455,
        "units": [0.005],
        "equity": 0.9405,
        "stopped": [0],
    },
    {
        "name": "fill at the close: what a session's end or a last bar has just closed is not bought back, but counted",
        "settings": {"fill": "close", "flat_at_session_end": True},
        "bars": [
            bar([0.5, 0.5], TWO, was_present=[True, True], was_delisted=[False, True]),
            bar([0.0, 0.5], TWO, was_present=[True, False], session_end=True),
            bar([0.5, 0.5], TWO, was_present=[True, False], was_session_end=True),
        ],
        # The first is sold by the second bar's order, and at its end nothing is held.
        "fills": [(0, 0, 0.005, 100.0, "order"), (1, 0, -0.005, 100.0, "order")],
        "cash": 1.0,
        "units": [0.0, 0.0],
        "equity": 1.0,
        "dropped": [0, 1, 2],
    },
    {
        "name": "an asset without a bar at the session's end is closed at the open of its next bar",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": TWO},
        "settings": {"flat_at_session_end": True},
        "bars": [
            bar([NAN, NAN], [110.0, 90.0], prev_close=[110.0, 90.0], present=[True, False], session_end=True),
            bar([NAN, NAN], [110.0, 90.0], prev_close=[110.0, 90.0], present=[True, False]),
            bar([NAN, NAN], [110.0, 80.0], [110.0, 85.0], prev_close=[110.0, 90.0], present=[True, True]),
        ],
        "fills": [(0, 0, -0.005, 110.0, "session end"), (2, 1, -0.005, 80.0, "session end")],
        "cash": 0.95,
        "units": [0.0, 0.0],
        "equity": 0.95,
    },
    {
        "name": "an order that trades it at that open stands instead: one price, one fill, one fee",
        "start": {"cash": 0.5, "units": [0.0, 0.005], "entry": [0.0, 100.0]},
        "settings": {"flat_at_session_end": True, "fixed_fee": 0.01},
        "bars": [
            bar([NAN, NAN], TWO, present=[True, False], session_end=True),
            bar([NAN, 0.2], TWO, present=[True, True]),
        ],
        "fills": [(1, 1, -0.003, 100.0, "order")],
        "cash": 0.79,
        "units": [0.0, 0.002],
        "equity": 0.99,
    },
    {
        "name": "the session's end matters only where it is asked for",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 110.0, session_end=True)],
        "fills": [],
        "cash": 0.0,
        "units": [0.01],
        "equity": 1.1,
    },
]


test_flat_at_session_end_as_worked_by_hand = worked(CASES)


COSTS = Costs(fee=0.001, slippage=0.002)


every_fill = pytest.mark.parametrize(("fill", "assets"), [("next_open", 3), ("next_close", 1), ("close", 3)])


def flat_result(seed: int, assets: int, fill: str) -> tuple[BacktestResult, Market, np.ndarray]:
    """A result that is flat at each session's end, its market and its targets."""
    market, targets = dataclasses.replace(full_market(seed, assets), funding=None), orders_of(seed, assets)[0]
    rules = Rules(rebalance_band=0.0, fill=fill, flat_at_session_end=True)
    return simulate(market, targets, costs=COSTS, rules=rules), market, targets


@pytest.mark.quick(1)
@every_fill
def test_a_result_with_sessions_missing_and_last_bars_matches_the_scalar_reference(fill: str, assets: int) -> None:
    dropped = 0
    for seed in range(8):
        result, market, targets = flat_result(seed, assets, fill)
        expected = reference_of(market, targets, COSTS, fill=fill, flat_at_session_end=True)
        # 1e-12: no leverage, no impact: plain roundings of 64 bars.
        assert_same_result(result, expected, 1e-12)
        dropped += result.dropped
    assert dropped > 10


@every_fill
@few
@given(seeds)
def test_flat_at_session_end_holds_whatever_bars_are_missing(fill: str, assets: int, seed: int) -> None:
    result, market, _ = flat_result(seed, assets, fill)
    ends = market.session_end
    assert (result.units[ends[:, None] & market.present] == 0).all()
    assert market.present[result.fills["bar"], [result.symbols.index(name) for name in result.fills["symbol"]]].all()
    # What had no bar there is held until it has one, and no longer: its first order or the rule closes it.
    for a in range(assets):
        missed = False
        for t in range(1, BARS):
            if market.present[t, a] and missed:
                traded = (result.fills["bar"] == t) & (result.fills["symbol"] == result.symbols[a])
                assert traded.any() or result.units[t - 1, a] == 0
                missed = False
            missed |= ends[t] and not market.present[t, a] and result.units[t, a] != 0
    assert ends.any()
    assert (result.units[~ends] != 0).any()


def test_an_order_at_the_close_that_ends_a_session_or_an_asset_is_given_up_and_counted() -> None:
    """One asset that always wants to be held, at a close of 50: sessions end at bars 10 and 20, the asset at 30."""
    rows = np.arange(BARS)[:, None]
    still = {name: np.full((BARS, 1), 50.0) for name in ("open", "high", "low", "close")}
    flags = {"session_end": np.isin(rows[:, 0], [10, 20]), "delisted": rows == 30, "present": rows <= 30}
    market = dataclasses.replace(full_market(0, 1), funding=None, **still, **flags)
    result = simulate(
        market,
        1.0,
        costs=Costs(fee=0.0, slippage=0.0),
        rules=Rules(rebalance_band=0.0, fill="close", flat_at_session_end=True),
    )
    held = ~np.isin(rows, [10, 20]) & (rows < 30)
    np.testing.assert_array_equal(result.units, held / 50)
    assert result.fills["bar"].tolist() == [0, 10, 11, 20, 21, 30]
    # Bars 10, 20, 30, and each after the last: there is nothing to fill in.
    assert result.dropped == 2 + BARS - 30
