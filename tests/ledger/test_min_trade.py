"""`min_trade`: orders of less value, in currency, are dropped (money rule 8)."""

from __future__ import annotations

from ledger.worked_bars import NAN, bar, worked

CASES = [
    {
        "name": "a minimum trade drops smaller orders, counted",
        "settings": {"min_trade": 500.0, "capital": 10_000.0},
        "bars": [bar(0.04), bar(0.06)],
        "fills": [(1, 0, 0.0006, 100.0, "order")],
        "cash": 0.94,
        "units": [0.0006],
        "equity": 1.0,
        "dropped": [0],
    },
    {
        "name": "a minimum trade also drops a target of 0, but no stop",
        "start": {"cash": 0.96, "units": [0.0004], "entry": [100.0]},
        "settings": {"min_trade": 500.0, "capital": 10_000.0},
        "bars": [bar(0.0), bar(NAN, 100.0, 90.0, stop_loss=0.05)],
        # 0.96 + 0.0004 x 95
        "fills": [(1, 0, -0.0004, 95.0, "stop")],
        "cash": 0.998,
        "units": [0.0],
        "equity": 0.998,
        "dropped": [0],
    },
    {
        "name": "a buy that cash cuts below the minimum trade is dropped, counted, and its cash stays",
        "start": {"cash": 0.06, "units": [0.0094], "entry": [100.0]},
        "settings": {"min_trade": 595.0, "capital": 10_000.0, "fee": 0.01},
        "bars": [bar(1.0)],
        # 0.06 wanted, 600 of currency, with the fee 0.0606: k = 0.990099, 594 of currency
        "fills": [],
        "cash": 0.06,
        "units": [0.0094],
        "equity": 1.0,
        "clipped": [],
        "dropped": [0],
    },
    {
        "name": "of two buys that cash cuts, the one that is large enough is filled as it was cut",
        "start": {"cash": 0.3, "units": [0.007, 0.0, 0.0], "entry": [100.0, 0.0, 0.0]},
        "settings": {"min_trade": 995.0, "capital": 10_000.0, "fee": 0.01},
        "bars": [bar([0.7, 0.1, 0.2], [100.0] * 3)],
        # 0.303 of 0.3: k = 1 / 1.01: 0.0990099 = 990.1 and 0.1980198, which costs 0.2
        "fills": [(0, 2, 0.2 / 101, 100.0, "order")],
        "cash": 0.1,
        "units": [0.007, 0.0, 0.2 / 101],
        "equity": 0.8 + 0.2 / 1.01,
        "dropped": [0],
    },
    {
        "name": "what is cut below the minimum trade is dropped, but no turn",
        "start": {"cash": -0.37, "units": [0.013, 0.0007, 0.0, 0.0], "entry": [100.0] * 4},
        "settings": {
            "max_leverage": 1.5,
            "maintenance_margin": 0.0,
            "volume_cap": 0.1,
            "capital": 10_000.0,
            "min_trade": 1150.0,
        },
        "bars": [bar([0.0, -0.2, 0.6, 0.2], [100.0] * 4, adv=[1000.0, 1e9, 1e9, 1e9])],
        # The sale of 100 is dropped: 1.3 stay. 0.2 for 0.2 + 0.6 + 0.2: k = 0.2. To -0.04, by 0.11 = 1100, 0.12 = 1200,
        # 0.04 = 400.
        "fills": [(0, 1, -0.0011, 100.0, "order"), (0, 2, 0.0012, 100.0, "order")],
        "cash": -0.38,
        "units": [0.013, -0.0004, 0.0012, 0.0],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [0],
    },
    {
        "name": "on change: what is below the minimum trade is given up for good",
        "settings": {"rebalance": "on_change", "min_trade": 500.0, "capital": 1000.0},
        "bars": [bar(0.4), bar(0.4), bar(0.6)],
        "fills": [(2, 0, 0.006, 100.0, "order")],
        "cash": 0.4,
        "units": [0.006],
        "equity": 1.0,
        "dropped": [0],
    },
]


test_min_trade_as_worked_by_hand = worked(CASES)
