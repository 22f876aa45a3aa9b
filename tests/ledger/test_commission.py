"""`share_fee`, `min_fee` and `max_fee`: a commission a share with a least and a most an order (money rule 4)."""

from __future__ import annotations

import pytest
from ledger.worked_bars import GIVEN_UP, STOPPED_AT_95, bar, worked

import jaxtrader as jt

# 0.005 a share, at least 1.00 and at most 1% of the value, on a capital of 10,000.
BROKER = {"share_fee": 0.005, "min_fee": 1.0, "max_fee": 0.01, "capital": 10_000.0}

CASES = [
    {
        "name": "a fee of a share is of raw shares, and needs no capital",
        "settings": {"share_fee": 0.5},
        "bars": [bar(0.5, price_factor=0.5)],
        # 0.005 units are 0.0025 raw shares of 200 for each unit of capital: 0.00125
        "fills": [(0, 0, 0.005, 100.0, "order")],
        "fees": 0.00125,
        "cash": 0.49875,
        "units": [0.005],
        "equity": 0.99875,
    },
    {
        "name": "above the least fee, shares and value are charged together",
        "settings": {**BROKER, "fee": 0.001},
        "bars": [bar(0.5, 5.0)],
        # 1,000 shares: 5.00 and 0.1% of 5,000 = 5.00. 10 / 10,000 = 0.001
        "fills": [(0, 0, 0.1, 5.0, "order")],
        "fees": 0.001,
        "cash": 0.499,
        "units": [0.1],
        "equity": 0.999,
    },
    {
        "name": "50 shares pay the least fee, of an order and not of a share",
        "settings": BROKER,
        "bars": [bar(0.5)],
        # 50 shares: 0.25, so 1.00
        "fills": [(0, 0, 0.005, 100.0, "order")],
        "fees": 0.0001,
        "cash": 0.4999,
        "units": [0.005],
        "equity": 0.9999,
    },
    {
        "name": "the most is of the value, and wins over the least",
        "settings": BROKER,
        "bars": [bar(0.005)],
        # 50 worth of shares: 1% is 0.50
        "fills": [(0, 0, 0.00005, 100.0, "order")],
        "fees": 0.00005,
        "cash": 0.99495,
        "units": [0.00005],
        "equity": 0.99995,
    },
    {
        "name": "a buy of everything leaves room for the least fee, and exactly no cash",
        "settings": BROKER,
        "bars": [bar(1.0)],
        # 9,999 buys 99.99 shares, whose 0.50 is less than 1.00
        "fills": [(0, 0, 0.009999, 100.0, "order")],
        "fees": 0.0001,
        "cash": 0.0,
        "units": [0.009999],
        "equity": 0.9999,
        "clipped": [],
        "dropped": [],
    },
    {
        "name": "each buy gets its part of the cash, and one whose part is less than the least fee is given up",
        "settings": {"min_fee": 1.0, "capital": 100.0},
        "start": {"cash": 0.505, "units": [0.00495, 0.0], "entry": [100.0, 0.0]},
        "bars": [bar([0.99, 0.01], [100.0, 100.0], prev_close=[100.0, 100.0])],
        # Equity 1: they ask for 0.495 and 0.01, and cost 0.505 and 0.02. k = 0.505 / 0.525: the parts are 0.48576 and
        # 0.01924, of which 0.01 is the fee. They buy 0.47576 and 0.00924.
        "fills": [
            (0, 0, (0.505 * 0.505 / 0.525 - 0.01) / 100, 100.0, "order"),
            (0, 1, (0.02 * 0.505 / 0.525 - 0.01) / 100, 100.0, "order"),
        ],
        "fees": 0.02,
        "cash": 0.0,
        "units": [0.00495 + (0.505 * 0.505 / 0.525 - 0.01) / 100, (0.02 * 0.505 / 0.525 - 0.01) / 100],
        "equity": 0.98,
        "dropped": [],
    },
    {
        "name": "a buy whose part of the cash is less than the least fee is given up, and counted",
        **GIVEN_UP,
        "settings": {"min_fee": 1.0, "capital": 100.0},
    },
    {
        "name": "a stop pays the commission too",
        **STOPPED_AT_95,
        "settings": BROKER,
        "fees": 0.0001,
        "cash": 0.9499,
        "equity": 0.9499,
    },
]


test_commission_as_worked_by_hand = worked(CASES)


@pytest.mark.parametrize(
    ("costs", "rules", "words"),
    [
        (jt.Costs(min_fee=1.0), jt.Rules(), "`min_fee` needs `capital`"),
        (jt.Costs(max_fee=0.01), jt.Rules(), "`max_fee` bounds a `share_fee` or a `min_fee`"),
        (jt.Costs(share_fee=-0.01), jt.Rules(), "share_fee=-0.01` must be at least `share_fee=0.0`"),
        (jt.Costs(share_fee=0.01, max_fee=0.5), jt.Rules(), "max_fee=0.5` must be .* below `max_fee=0.5`"),
    ],
)
def test_a_commission_that_cannot_be_charged_is_refused(make_market, costs, rules, words):
    with pytest.raises(ValueError, match=words):
        jt.simulate(make_market(), 1.0, costs=costs, rules=rules)
