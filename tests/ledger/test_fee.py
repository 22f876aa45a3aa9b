"""`fee` and `slippage`: fractions of the traded value, and the cut of buys to the cash (money rules 4 and 5)."""

from __future__ import annotations

import numpy as np
import pytest
from ledger.paths import busy, by_reference, columns, path, walk
from ledger.reference import Settings
from ledger.worked_bars import NO_COSTS, PRICES, TWO, bar, near, one_bar, worked

from jaxtrader.ledger.costs import Costs

CASES = [
    {
        "name": "fees and slippage by asset",
        "settings": {"fee": [0.01, 0.02], "slippage": [0.0, 0.1]},
        "bars": [bar([0.4, -0.5], TWO)],
        # Sale: 0.005 x 90 = 0.45 comes in, fee 0.009. Buy: 0.4 + 0.004. 1 + 0.45 - 0.009 - 0.404
        "fills": [(0, 0, 0.004, 100.0, "order"), (0, 1, -0.005, 100.0, "order")],
        "fees": 0.013,
        "slippage": 0.05,
        "cash": 1.037,
        "units": [0.004, -0.005],
        "equity": 0.937,
    },
    {
        "name": "sales pay for buys, which are cut by the costs of both",
        "start": {"cash": 0.0, "units": [0.01, 0.0], "entry": [100.0, 0.0]},
        "settings": {"fee": 0.01},
        "bars": [bar([0.0, 1.0], TWO)],
        # 0.99 from the sale, 1.01 wanted: k = 0.980198
        "fills": [(0, 0, -0.01, 100.0, "order"), (0, 1, 0.0098019801980198, 100.0, "order")],
        "cash": 0.0,
        "units": [0.0, 0.0098019801980198],
        "equity": 0.98019801980198,
        "clipped": [],
    },
]


test_fee_as_worked_by_hand = worked(CASES)


def test_all_buys_are_cut_by_one_factor():
    # 20% + 40% + 40% at a fee of 10% would cost 1.1: each is cut by 1 / 1.1.
    account, fill, _ = one_bar([0.2, 0.4, 0.4], (100, 100, 100), units=[0.0] * 3, costs=Costs(fee=0.1, slippage=0.0))
    # 1e-14: the rounding of a few operations.
    np.testing.assert_allclose(account.units, np.array([0.002, 0.004, 0.004]) / 1.1, rtol=1e-14)
    assert account.cash == 0.0
    assert not fill.dropped


def test_sales_pay_for_buys_at_the_same_bar():
    # 1.0 in the first is sold free of cost and 0.7 bought in the second: no cut, 0.3 in cash.
    account, fill, _ = one_bar([0.0, 0.7], (100, 100, 100), units=[0.01, 0.0], cash=0.0, costs=NO_COSTS)
    np.testing.assert_allclose(account.units, [0.0, 0.007], rtol=1e-14)
    assert account.cash == near(0.3)
    assert not fill.clipped


def test_buys_without_cash_are_dropped_free_of_fee_and_counted():
    # No cash. Two are 4% over their weight, inside the band, so nothing is sold. The third, 8% under, cannot be bought.
    units = [0.0034, 0.0034, 0.0032]
    account, fill, _ = one_bar([0.3, 0.3, 0.4], (100, 100, 100), units=units, cash=0.0, rebalance_band=0.05)
    assert fill.dropped
    assert account.cash == 0.0
    np.testing.assert_array_equal(account.units, units)
    assert not fill.fee.any()


def test_a_buy_is_cut_to_the_cash_and_leaves_exactly_none():
    # 1.0302 u = 1 of cash: u = 0.970685..., and that grows by 10% to the close.
    account, fill, _ = one_bar(1.0, PRICES)
    assert account.cash == 0.0
    assert account.units[0] == near(1 / 1.0302 / 110)
    assert account.equity == near(1.1 / 1.0302)
    assert not fill.clipped  # the cut is no larger than the costs of the trade
    # Fully invested, the same target again is no trade.
    account, fill, _ = one_bar(1.0, (121, 130, 140), units=account.units, cash=account.cash)
    assert fill.units[0] == 0.0
    assert account.bars_since_fill[0] == 4


def test_cash_a_hair_below_zero_drops_nothing():
    # Fully invested and 1e-17 short of cash by rounding: the target is met, so there is no buy that could be dropped.
    account, fill, _ = one_bar(1.0, PRICES, units=0.01, cash=-1e-17, costs=NO_COSTS)
    assert not fill.units.any()
    assert not fill.dropped
    assert account.cash == -1e-17


@pytest.mark.parametrize(("fee", "slippage"), [(None, None), (None, 0.003), (0.002, None)])
def test_an_absent_cost_is_no_cost(fee, slippage):
    closes, opens = walk(5, 100, 2, 1)
    targets = busy(5, 100, 2, 1)
    account, _, _ = path(closes, opens, targets, Costs(fee=fee, slippage=slippage))
    free, _ = by_reference(columns(closes, opens, targets), Settings(fee=fee, slippage=slippage))
    # 1e-12: the rounding of 100 bars.
    np.testing.assert_allclose(account.equity, free["equity"], rtol=1e-12)
