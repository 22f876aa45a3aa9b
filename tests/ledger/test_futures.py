"""`multiplier` and `tick`: whole contracts, a fee for each, and prices on the tick (money rule 4b)."""

from __future__ import annotations

import numpy as np
import pytest
from ledger.worked_bars import STOPPED_AT_95, TWO, bar, worked

import jaxtrader as jt

# Contracts of 50 a point, in steps of 0.25, for 2 each, on a capital of 100,000.
FUTURE = {"multiplier": 50.0, "tick": 0.25, "lot": 1.0, "share_fee": 2.0, "capital": 100_000.0}

CASES = [
    {
        "name": "whole contracts are bought at the next tick above",
        "settings": {**FUTURE, "max_leverage": 10.0, "slippage": 0.0001},
        "bars": [bar(6.0, 5001.0)],
        # A contract is worth 250,050, so 600,000 are 2: 100 points, 0.001 units. 5001.5001 becomes 5001.75: slippage is
        # 0.75 x 0.001, and two fees are 4 / 100,000.
        "fills": [(0, 0, 0.001, 5001.0, "order")],
        "fees": 0.00004,
        "slippage": 0.00075,
        "cash": 1 - 5.001 - 0.00075 - 0.00004,
        "units": [0.001],
        "equity": 0.99921,
    },
    {
        "name": "a stop sells at the tick below its level, and at none more where the level is on one",
        **STOPPED_AT_95,
        "settings": {"tick": 0.4},
        # 95 is 237.5 ticks: 94.8
        "slippage": 0.002,
        "cash": 0.948,
        "equity": 0.948,
    },
    {
        "name": "a price on the tick costs nothing, and no rounding error makes it a tick",
        "settings": {"tick": 0.1},
        "bars": [bar(0.5, 100.3, 100.3)],  # 100.3 / 0.1 is 1002.9999999999999
        "fills": [(0, 0, 0.5 / 100.3, 100.3, "order")],
        "slippage": 0.0,
        "cash": 0.5,
        "units": [0.5 / 100.3],
        "equity": 1.0,
    },
    {
        "name": "the tick is of the raw price, and may be one an asset",
        "settings": {"tick": (0.25, 1.0), "fee": 0.01},
        "bars": [bar([0.2, 0.3], [100.1, 100.1], prev_close=TWO, price_factor=[0.5, 0.5])],
        # Raw prices are 200.2: up to 200.25 and 201, which are 100.125 and 100.5. The fee is of what is paid.
        "fills": [(0, 0, 0.2 / 100.1, 100.1, "order"), (0, 1, 0.3 / 100.1, 100.1, "order")],
        "slippage": (0.2 * 0.025 + 0.3 * 0.4) / 100.1,
        "fees": 0.01 * (0.2 * 100.125 + 0.3 * 100.5) / 100.1,
        "cash": 1 - 1.01 * (0.2 * 100.125 + 0.3 * 100.5) / 100.1,
        "units": [0.2 / 100.1, 0.3 / 100.1],
        "equity": 1 - (0.2 * 100.125 + 0.3 * 100.5) / 100.1 * 1.01 + 0.5,
    },
]


test_futures_as_worked_by_hand = worked(CASES)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"multiplier": 50.0}, "nothing counts contracts; give `lot=1`"),
        ({"multiplier": 0.0}, "multiplier=0.0` must be a number above 0"),
        ({"tick": "fine"}, "tick=.* must be a number above 0, or one for each asset"),
        ({"tick": True}, "tick=True` must be"),
        ({"tick": (0.25, 1.0)}, "`tick` holds 2 numbers; give one, or one for each of the 1 assets"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(make_market, rules, words):
    with pytest.raises(ValueError, match=words):
        jt.simulate(make_market(), 1.0, rules=jt.Rules(**rules))


def test_numbers_of_a_file_are_those_of_the_rules():
    rules = jt.Rules(capital=1e5, lot=1.0, multiplier=[50, 20], tick=np.array([0.25, 0.5]))
    assert rules == jt.Rules(**rules.to_dict())
    assert hash(rules) == hash(rules.replace())


def test_a_capital_that_buys_no_contract_is_refused(make_market):
    env = jt.TradingEnv(make_market(), rules=jt.Rules(capital=1000.0, lot=1.0, multiplier=50.0))
    with pytest.raises(ValueError, match="a lot of 1 contracts costs"):
        env.check_room(1)
