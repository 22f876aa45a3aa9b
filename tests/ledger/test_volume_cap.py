"""`volume_cap`: the most that an order may be of the traded value of an average bar (money rule 4)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, bar, worked

CASES = [
    {
        "name": "the volume cap cuts the order, and counts it as clipped",
        "settings": {"volume_cap": 0.01, "capital": 1_000_000.0},
        "bars": [bar(0.5, adv=10_000_000.0)],
        # 100,000 of 1,000,000
        "fills": [(0, 0, 0.001, 100.0, "order")],
        "cash": 0.9,
        "units": [0.001],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "a stop sells what the cap allows, and what it leaves is sold by the next orders, whatever they ask",
        "start": LONG,
        "settings": {"volume_cap": 0.5, "capital": 1_000_000.0},
        "bars": [
            bar(1.0, 100.0, 90.0, low=79.0, stop_loss=0.2, adv=640_000.0),  # 320,000 at 80: 0.004
            bar(1.0, 100.0, prev_close=90.0, stop_loss=0.2, adv=800_000.0),  # 400,000 at 100: 0.004
            bar(NAN, 100.0, stop_loss=0.2, adv=800_000.0),  # the last 0.002
            bar(1.0, 100.0, stop_loss=0.2, adv=800_000.0),
        ],
        "fills": [(0, 0, -0.004, 80.0, "stop"), (1, 0, -0.004, 100.0, "order"), (2, 0, -0.002, 100.0, "order")],
        "cash": 0.92,
        "units": [0.0],
        "equity": 0.92,
        "stopped": [1],
        "clipped": [1],
    },
    {
        "name": "what a stop has left is sold on change too, though the last target is 0 from the start",
        "start": LONG,
        "settings": {"volume_cap": 0.5, "capital": 1_000_000.0, "rebalance": "on_change"},
        "bars": [
            bar(NAN, 100.0, 90.0, low=79.0, stop_loss=0.2, adv=640_000.0),  # 320,000 at 80: 0.004
            bar(NAN, 100.0, prev_close=90.0, stop_loss=0.2, adv=800_000.0),  # 400,000 at 100: 0.004
            bar(NAN, 100.0, stop_loss=0.2, adv=800_000.0),  # the last 0.002
        ],
        "fills": [(0, 0, -0.004, 80.0, "stop"), (1, 0, -0.004, 100.0, "order"), (2, 0, -0.002, 100.0, "order")],
        "cash": 0.92,
        "units": [0.0],
        "equity": 0.92,
        "stopped": [1],
    },
    {
        "name": "on change, what a stop has left of a position that a target of the other sign sells is still sold",
        "start": LONG,
        "settings": {"volume_cap": 0.5, "capital": 1_000_000.0, "rebalance": "on_change"},
        "bars": [
            bar(-0.1, 100.0, 90.0, low=79.0, stop_loss=0.2, adv=640_000.0),  # 0.0032 at 100, then 0.004 at 80
            # E = 0.64 + 0.0028 x 80 = 0.864: to -0.00108 at 80
            bar(-0.1, 80.0, prev_close=90.0, stop_loss=0.2, adv=8_000_000.0),
        ],
        "fills": [(0, 0, -0.0032, 100.0, "order"), (0, 0, -0.004, 80.0, "stop"), (1, 0, -0.00388, 80.0, "order")],
        "cash": 0.9504,
        "units": [-0.00108],
        "equity": 0.864,
        "stopped": [0],
    },
    {
        "name": "what a stop has left is no longer sold where the target leaves its sign: the new order sells it",
        "start": LONG,
        "settings": {"volume_cap": 0.5, "capital": 1_000_000.0},
        "bars": [
            bar(1.0, 100.0, 90.0, low=79.0, stop_loss=0.2, adv=640_000.0),
            bar(-0.1, 100.0, prev_close=90.0, stop_loss=0.2, adv=8_000_000.0),  # E = 0.92: to -0.00092
        ],
        "fills": [(0, 0, -0.004, 80.0, "stop"), (1, 0, -0.00692, 100.0, "order")],
        "cash": 1.012,
        "units": [-0.00092],
        "equity": 0.92,
        "stopped": [0],
    },
    {
        "name": "a liquidation sells what the cap allows, and again while the account is below its margin",
        "start": {"cash": -1.0, "units": [0.02], "entry": [100.0]},
        "settings": {"volume_cap": 0.5, "capital": 1_000_000.0, "max_leverage": 2.0},
        "bars": [
            # E = 0.2 < 0.25 x 1.2: 480,000 at 60 is 0.008. Left are -0.52 and 0.012: 0.2 > 0.25 x 0.72
            bar(2.0, 60.0, adv=960_000.0),
            bar(NAN, 50.0, prev_close=60.0, adv=960_000.0),  # E = 0.08 < 0.25 x 0.6: 0.0096 of 0.012
        ],
        "fills": [(0, 0, -0.008, 60.0, "liquidation"), (1, 0, -0.0096, 50.0, "liquidation")],
        "cash": -0.04,
        "units": [0.0024],
        "equity": 0.08,
        "stopped": [0],
    },
    {
        "name": "what cannot wait is closed whole and counted: a session's end",
        "start": LONG,
        "settings": {"volume_cap": 0.1, "capital": 1_000_000.0, "flat_at_session_end": True},
        "bars": [bar(NAN, 100.0, session_end=True, adv=1_000_000.0)],
        "fills": [(0, 0, -0.01, 100.0, "session end")],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
        "beyond_cap": [0],
    },
    {
        "name": "what cannot wait is closed whole and counted: ruin",
        "start": {"cash": 2.0, "units": [-0.01], "entry": [100.0]},
        "settings": {"volume_cap": 0.1, "capital": 1_000_000.0},
        "bars": [bar(NAN, 199.5, adv=1_000_000.0), bar(NAN, 199.5, prev_close=199.5, adv=1_000_000.0)],
        "fills": [(0, 0, 0.01, 199.5, "ruin")],
        "cash": 0.005,
        "units": [0.0],
        "equity": 0.005,
        "beyond_cap": [0],
    },
    {
        "name": "a sale of everything is cut as well",
        "start": LONG,
        "settings": {"volume_cap": 0.01, "capital": 1_000_000.0, "impact": 1.0},
        "bars": [
            # 160,000 sold: sqrt(0.01) x 0.05 = 0.005: 0.16 x 0.995 = 0.1592
            bar(0.0, adv=16_000_000.0, volatility=0.05),
            # A hundredth again: 420,000, in a bar of 42,000,000. sqrt(0.01) x 0.05: 0.42 x 0.995 = 0.4179
            bar(0.0, adv=42_000_000.0, volatility=0.05),
        ],
        "fills": [(0, 0, -0.0016, 100.0, "order"), (1, 0, -0.0042, 100.0, "order")],
        "cash": 0.5771,
        "units": [0.0042],
        "equity": 0.9971,
        "clipped": [0, 1],
    },
]


test_volume_cap_as_worked_by_hand = worked(CASES)
