"""`fixed_fee`: an amount of currency for each fill (money rule 4)."""

from __future__ import annotations

from ledger.worked_bars import GIVEN_UP, NAN, STOPPED_AT_95, bar, worked

CASES = [
    {
        "name": "a sale worth less than its fixed fee is made, and cash pays the rest of the fee",
        "start": {"cash": 0.99, "units": [0.0001], "entry": [100.0]},
        "settings": {"fixed_fee": 200.0, "capital": 10_000.0},
        "bars": [bar(0.0)],
        # 0.01 less 0.02
        "fills": [(0, 0, -0.0001, 100.0, "order")],
        "cash": 0.98,
        "units": [0.0],
        "equity": 0.98,
    },
    {
        "name": "a fixed fee is in currency, per fill, and not charged where nothing is traded",
        "settings": {"fixed_fee": 10.0, "capital": 100_000.0},
        "bars": [bar(0.5), bar(NAN)],
        # 10 / 100,000 = 0.0001
        "fills": [(0, 0, 0.005, 100.0, "order")],
        "fees": 0.0001,
        "cash": 0.4999,
        "units": [0.005],
        "equity": 0.9999,
    },
    {
        "name": "a buy of everything leaves room for the fixed fee, and exactly no cash; that is not clipping",
        "settings": {"fixed_fee": 10.0, "capital": 1000.0},
        "bars": [bar(1.0)],
        # k = (1 - 0.01) / 1
        "fills": [(0, 0, 0.0099, 100.0, "order")],
        "fees": 0.01,
        "cash": 0.0,
        "units": [0.0099],
        "equity": 0.99,
        "clipped": [],
        "dropped": [],
    },
    {
        "name": "a buy whose fixed fee is more than the cash is given up, free, and counted",
        **GIVEN_UP,
        "settings": {"fixed_fee": 10.0, "capital": 1000.0},
    },
    {
        "name": "forced closes pay the fixed fee too",
        **STOPPED_AT_95,
        "settings": {"fixed_fee": 10.0, "capital": 1000.0},
        "fees": 0.01,
        "cash": 0.94,
        "equity": 0.94,
    },
]


test_fixed_fee_as_worked_by_hand = worked(CASES)
