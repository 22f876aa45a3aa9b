"""`present`: what becomes of orders and positions on bars that an asset does not have (money rule 9)."""

from __future__ import annotations

from ledger.worked_bars import NAN, TWO, bar, worked

CASES = [
    {
        "name": "an order on a missing bar is cancelled and counted, its weight stays in cash",
        "bars": [bar([0.5, 0.5], TWO, present=[True, False])],
        "fills": [(0, 0, 0.005, 100.0, "order")],
        "cash": 0.5,
        "units": [0.005, 0.0],
        "equity": 1.0,
        "dropped": [0],
        "clipped": [],
    },
    {
        "name": "what two ask for together beyond the leverage is not given to one because the other's bar is missing",
        "bars": [bar([1.0, 1.0], TWO, present=[True, False])],
        # a half each: the second's stays in cash
        "fills": [(0, 0, 0.005, 100.0, "order")],
        "cash": 0.5,
        "units": [0.005, 0.0],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [0],
    },
    {
        "name": "a weight that NaN holds leaves room for less, and a missing weight is not given away",
        "start": {"cash": 0.4, "units": [0.0, 0.0, 0.006], "entry": [0.0, 0.0, 100.0]},
        "bars": [bar([1.0, 1.0, NAN], [100.0] * 3, present=[True, False, True])],
        # a half each of what is asked for, and 0.4 is left of the 0.5
        "fills": [(0, 0, 0.004, 100.0, "order")],
        "cash": 0.0,
        "units": [0.004, 0.0, 0.006],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [0],
    },
    {
        "name": "a position on a missing bar uses up the leverage first",
        "start": {"cash": 0.2, "units": [0.0, 0.008], "entry": [0.0, 100.0]},
        "bars": [bar([0.5, 0.1], TWO, present=[True, False])],
        # 0.8 is held: 0.2 is left of the 0.5
        "fills": [(0, 0, 0.002, 100.0, "order")],
        "cash": 0.0,
        "units": [0.002, 0.008],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [0],
    },
    {
        "name": "what is held already is no order on a missing bar, however little leverage is left for others",
        "start": {"cash": 0.2, "units": [0.005, 0.003], "entry": TWO},
        "bars": [bar([NAN, 0.3], TWO, present=[True, False])],
        # 0.2 is left, and nothing asks for it: 0.3 is not scaled
        "fills": [],
        "cash": 0.2,
        "units": [0.005, 0.003],
        "equity": 1.0,
        "clipped": [],
        "dropped": [],
    },
    {
        "name": "no stop and no liquidation of an asset inside a bar it does not have",
        "start": {"cash": -1.0, "units": [0.02], "entry": [200.0]},
        "settings": {"max_leverage": 2.0},
        "bars": [
            # At a last close of 60 (E = 0.2, below 0.25 x 1.2, the stop stands at 190) nothing can be done.
            bar(NAN, 60.0, prev_close=60.0, present=False, stop_loss=0.05),
            bar(NAN, 65.0, prev_close=60.0, stop_loss=0.05),  # -1 + 1.3
        ],
        "fills": [(1, 0, -0.02, 65.0, "liquidation")],
        "cash": 0.3,
        "units": [0.0],
        "equity": 0.3,
    },
]


test_present_as_worked_by_hand = worked(CASES)
