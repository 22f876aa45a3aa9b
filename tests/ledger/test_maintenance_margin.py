"""`maintenance_margin`: positions liquidated where equity is too small a part of their value (money rules 2 and 8).

With a `max_leverage` of 2 the margin is 0.25. DEBT reaches it where -1 + 0.02 p = 0.25 x 0.02 p: p = 66.666667.
"""

from __future__ import annotations

from ledger.worked_bars import DAY, DEBT, NAN, SHORT, bar, worked

CASES = [
    {
        "name": "a stop nearer than the liquidation",
        "start": DEBT,
        "settings": {"fee": 0.01, "max_leverage": 2.0},
        "bars": [bar(NAN, 95.0, 70.0, high=96.0, low=60.0, stop_loss=0.2)],
        # -1 + 1.6 - 0.016
        "fills": [(0, 0, -0.02, 80.0, "stop")],
        "cash": 0.584,
        "units": [0.0],
        "equity": 0.584,
        "stopped": [1],
    },
    {
        "name": "a liquidation nearer than the stop; it cancels the order at the close and blocks nothing",
        "start": DEBT,
        "settings": {"fee": 0.01, "max_leverage": 2.0, "fill": "next_close"},
        "bars": [
            bar(1.0, 95.0, 70.0, high=96.0, low=40.0, stop_loss=0.5),  # -1 + 1.33333333 - 0.01333333
            bar(1.0, 70.0, 80.0, prev_close=70.0),  # 0.32 / 80 = 0.004 units, fee 0.0032 on credit
        ],
        "fills": [(0, 0, -0.02, 66.66666666666667, "liquidation"), (1, 0, 0.004, 80.0, "order")],
        "cash": -0.0032,
        "units": [0.004],
        "equity": 0.3168,
        "stopped": [0],
    },
    {
        "name": "below margin at the open: sold there, the order cancelled",
        "start": DEBT,
        "settings": {"fee": 0.01, "max_leverage": 2.0},
        "bars": [bar(0.5, 60.0, 80.0)],
        # E = 0.2 < 0.25 x 1.2, cash -1 + 1.2 - 0.012
        "fills": [(0, 0, -0.02, 60.0, "liquidation")],
        "cash": 0.188,
        "units": [0.0],
        "equity": 0.188,
        "ruined": False,
    },
    {
        "name": "at the open margin goes before a stop that was jumped too",
        "start": DEBT,
        "settings": {"max_leverage": 2.0},
        "bars": [bar(NAN, 60.0, 80.0, stop_loss=0.1)],
        "fills": [(0, 0, -0.02, 60.0, "liquidation")],
        "cash": 0.2,
        "units": [0.0],
        "equity": 0.2,
        "stopped": [0],
    },
    {
        "name": "interest is booked before the margin is looked at",
        "start": DEBT,
        "settings": {"max_leverage": 2.0, "borrow_rate": 0.365},
        "bars": [bar(NAN, 66.7, 80.0, dt=DAY)],
        # Without interest E = 0.334 > 0.25 x 1.334 = 0.3335, a day costs 0.001: 0.333 < 0.3335
        "fills": [(0, 0, -0.02, 66.7, "liquidation")],
        "financing": [-0.001],
        "cash": 0.333,
        "units": [0.0],
        "equity": 0.333,
    },
    {
        "name": "a short's liquidation inside the bar, where 2 - 0.01 p = 0.25 x 0.01 p",
        "start": SHORT,
        "settings": {"maintenance_margin": 0.25},
        "bars": [bar(NAN, 110.0, 120.0, high=170.0, low=105.0, stop_loss=0.7)],
        # p = 2 / 0.0125 = 160, nearer than the stop at 170
        "fills": [(0, 0, 0.01, 160.0, "liquidation")],
        "cash": 0.4,
        "units": [0.0],
        "equity": 0.4,
        "stopped": [0],
    },
    {
        "name": "without leverage there is no margin to keep",
        "start": SHORT,
        "bars": [bar(NAN, 110.0, 120.0, high=190.0, low=105.0)],
        "fills": [],
        "cash": 2.0,
        "units": [-0.01],
        "equity": 0.8,
    },
    {
        "name": "several assets: not inside the bar, but at the close",
        "start": {"cash": -1.0, "units": [0.01, 0.01], "entry": [100.0, 100.0]},
        "settings": {"max_leverage": 2.0, "fee": 0.01},
        "bars": [
            bar([NAN, NAN], [100.0, 100.0], [90.0, 90.0], low=[30.0, 30.0]),
            # E = -1 + 1.3 = 0.3 < 0.25 x 1.3 = 0.325, all sold: 1.3 - 0.013
            bar([NAN, NAN], [90.0, 90.0], [70.0, 60.0], prev_close=[90.0, 90.0]),
        ],
        "fills": [(1, 0, -0.01, 70.0, "liquidation"), (1, 1, -0.01, 60.0, "liquidation")],
        "cash": 0.287,
        "units": [0.0, 0.0],
        "equity": 0.287,
    },
]


test_maintenance_margin_as_worked_by_hand = worked(CASES)
