"""`rebalance`: with `"on_change"` an order is sent only where the target changes (money rule 3)."""

from __future__ import annotations

import numpy as np
from ledger.paths import path
from ledger.worked_bars import NAN, TWO, bar, worked

CASES = [
    {
        "name": "on change: an order without a bar is tried again at the next, through a pause, and then no more",
        "settings": {"rebalance": "on_change"},
        "bars": [
            bar([0.5, 0.25], TWO, present=[False, True]),
            bar([0.5, 0.25], TWO, present=[False, True]),
            bar([NAN, NAN], TWO, present=[True, True]),
            bar([0.5, 0.25], [50.0, 100.0], present=[True, True]),
            bar([0.5, 0.25], [25.0, 100.0], present=[True, True]),
        ],
        "fills": [(0, 1, 0.0025, 100.0, "order"), (3, 0, 0.01, 50.0, "order")],
        "cash": 0.25,
        "units": [0.01, 0.0025],
        "equity": 0.75,
        "dropped": [0, 1],
    },
    {
        "name": "on change: an order that the volume cut goes on until it is filled, and then the target is unchanged",
        "settings": {"rebalance": "on_change", "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar(0.5, adv=2000.0), bar(0.5, adv=2000.0), bar(0.5, adv=2000.0), bar(0.5, 50.0, adv=2000.0)],
        "fills": [(0, 0, 0.002, 100.0, "order"), (1, 0, 0.002, 100.0, "order"), (2, 0, 0.001, 100.0, "order")],
        "cash": 0.5,
        "units": [0.005],
        "equity": 0.75,
        "clipped": [0, 1],
    },
    {
        "name": "on change: back to the target before, from half way",
        "settings": {"rebalance": "on_change", "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar(0.5, adv=2000.0), bar(0.0, adv=2000.0)],
        "fills": [(0, 0, 0.002, 100.0, "order"), (1, 0, -0.002, 100.0, "order")],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
    },
    {
        "name": "on change: a target of 0 is asked for until all is sold, also where a sale was too small",
        "settings": {"rebalance": "on_change", "min_trade": 400.0, "capital": 1000.0},
        "bars": [bar(0.5), bar(0.0, 70.0), bar(0.0, 90.0)],  # 350 is too small, 450 is not
        "fills": [(0, 0, 0.005, 100.0, "order"), (2, 0, -0.005, 90.0, "order")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "dropped": [1],
    },
    {
        "name": "on change: a session's end closes for good, though the volume had cut the order before it",
        "settings": {"rebalance": "on_change", "volume_cap": 0.1, "capital": 1000.0, "flat_at_session_end": True},
        "bars": [
            bar(0.5, adv=2000.0),
            bar(0.5, adv=2000.0, session_end=True),  # 0.2 of the 0.3 that are missing, and then all is sold
            bar(0.5, adv=2000.0, was_session_end=True),
            bar(0.4, adv=2000.0),
        ],
        "fills": [
            (0, 0, 0.002, 100.0, "order"),
            (1, 0, 0.002, 100.0, "order"),
            (1, 0, -0.004, 100.0, "session end"),
            (3, 0, 0.002, 100.0, "order"),
        ],
        "cash": 0.8,
        "units": [0.002],
        "equity": 1.0,
        "clipped": [0, 1, 3],
    },
    {
        "name": "on change: liquidation closes for good, though the volume had cut the order before it",
        # 2 of 3 bought at 100 for a debt of 1. Where 0.02 p - 1 = 0.25 * 0.02 p all is sold, and not bought again.
        "settings": {
            "rebalance": "on_change",
            "volume_cap": 1.0,
            "capital": 1000.0,
            "max_leverage": 3.0,
            "maintenance_margin": 0.25,
        },
        "bars": [bar(3.0, adv=2000.0), bar(NAN, 100.0, 60.0, adv=2000.0), bar(3.0, 60.0, adv=2000.0)],
        "fills": [(0, 0, 0.02, 100.0, "order"), (1, 0, -0.02, 200 / 3, "liquidation")],
        "cash": 1 / 3,
        "units": [0.0],
        "equity": 1 / 3,
        "clipped": [0],
    },
]


test_rebalance_as_worked_by_hand = worked(CASES)


def test_on_change_trades_only_when_the_target_changes():
    # 0.5 / 100 at 100. At 200 the unchanged 0.5 holds 0.005 units, 0.6 of 1.5 is 0.9 / 200. NaN does not forget 0.6.
    closes = np.array([100.0, 100, 200, 200, 300, 300])[:, None]
    targets = np.array([0.5, 0.5, 0.6, NAN, 0.6])[:, None]
    account, _, _ = path(closes, closes[1:], targets, rebalance="on_change")
    # 1e-14: the rounding of a few operations.
    np.testing.assert_allclose(account.units[:, 0], [0.005, 0.005, 0.0045, 0.0045, 0.0045], rtol=1e-14)
