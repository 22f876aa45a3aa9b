"""`delay`: orders that wait for more bars than `fill` says (money rule 2)."""

from __future__ import annotations

from ledger.worked_bars import NAN, bar, worked

CASES = [
    {
        "name": "a delay of 1 fills one open later; the first bar holds",
        "settings": {"delay": 1},
        "bars": [bar(1.0, 101.0, 100.0), bar(0.0, 50.0), bar(NAN, 60.0, prev_close=50.0)],
        # 1 / 50 = 0.02, sold at 60
        "fills": [(1, 0, 0.02, 50.0, "order"), (2, 0, -0.02, 60.0, "order")],
        "cash": 1.2,
        "units": [0.0],
        "equity": 1.2,
    },
    {
        "name": "a delay of 2 at the close",
        "settings": {"delay": 2, "fill": "next_close"},
        "bars": [
            bar(1.0, 100.0, 90.0),
            bar(-1.0, 90.0, 80.0, prev_close=90.0),
            bar(0.0, 80.0, 50.0, prev_close=80.0),
            bar(0.0, 50.0, 75.0, prev_close=50.0),
        ],
        # 0.02 bought at 50. At 75 E = 1.5: to -0.02, by -0.04, cash 3
        "fills": [(2, 0, 0.02, 50.0, "order"), (3, 0, -0.04, 75.0, "order")],
        "cash": 3.0,
        "units": [-0.02],
        "equity": 1.5,
    },
    {
        "name": "a delay of 1 under fill at the close",
        "settings": {"delay": 1, "fill": "close"},
        "bars": [bar(1.0, 100.0, 80.0), bar(1.0, 80.0, 120.0, prev_close=80.0)],
        # 1 / 80 at the second close
        "fills": [(1, 0, 0.0125, 80.0, "order")],
        "cash": 0.0,
        "units": [0.0125],
        "equity": 1.5,
    },
]


test_delay_as_worked_by_hand = worked(CASES)
