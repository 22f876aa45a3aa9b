"""`take_profit`: positions closed at a fraction of their entry price in their favour (money rules 2 and 8)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, SHORT, bar, worked

CASES = [
    {
        "name": "a short takes its profit inside the bar, below",
        "start": SHORT,
        "settings": {"fee": 0.01},
        "bars": [bar(NAN, 95.0, 92.0, high=96.0, low=88.0, stop_loss=0.05, take_profit=0.1)],
        # 2 - 0.9 - 0.009
        "fills": [(0, 0, 0.01, 90.0, "take profit")],
        "cash": 1.091,
        "units": [0.0],
        "equity": 1.091,
        "stopped": [-1],
    },
    {
        "name": "an open beyond the take-profit takes it where the order is less than a lot",
        "start": LONG,
        "settings": {"lot": 100.0, "capital": 10_000.0},
        "bars": [bar(0.9, 112.0, 112.0, high=113.0, low=94.0, stop_loss=0.05, take_profit=0.1)],
        # 10 shares too many of 100 held: no lot. Sold at 112. The stop at 95 comes too late, and 0.9 is a side it left
        "fills": [(0, 0, -0.01, 112.0, "take profit")],
        "cash": 1.12,
        "units": [0.0],
        "equity": 1.12,
    },
    {
        "name": "an open beyond the take-profit is left to the order that trades there",
        "start": LONG,
        "bars": [bar(0.5, 112.0, 112.0, high=113.0, low=110.0, stop_loss=0.05, take_profit=0.1)],
        # 0.005 sold at the open, by the order. The rest stands beyond its take-profit, and goes at the open too
        "fills": [(0, 0, -0.005, 112.0, "order"), (0, 0, -0.005, 112.0, "take profit")],
        "cash": 1.12,
        "units": [0.0],
        "equity": 1.12,
    },
    {
        "name": "an open beyond the take-profit gives the open, better than the level",
        "start": LONG,
        "bars": [bar(NAN, 115.0, 100.0, take_profit=0.1)],
        "fills": [(0, 0, -0.01, 115.0, "take profit")],
        "cash": 1.15,
        "units": [0.0],
        "equity": 1.15,
        "stopped": [1],
    },
]


test_take_profit_as_worked_by_hand = worked(CASES)
