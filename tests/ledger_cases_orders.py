"""More bars worked out by hand (see `ledger_cases`): what leverage, lots and minimum trades make of an order."""

from __future__ import annotations

from ledger_cases import LONG, NAN, bar

TWO = [100.0, 100.0]  # the prices of two assets

LIMITS = [
    {
        "name": "leverage 2 buys on credit, costs included, without a bound on cash",
        "terms": {"leverage": 2.0, "fee": 0.01},
        "bars": [bar(2.0)],
        # 1 - 2 - 0.02
        "fills": [(0, 0, 0.02, 100.0, "ORDER")],
        "cash": -1.02,
        "units": [0.02],
        "equity": 0.98,
        "clipped": [],
    },
    {
        "name": "targets beyond the leverage are scaled by one factor, before costs",
        "terms": {"leverage": 2.0},
        "bars": [bar([3.0, -1.0], TWO)],
        # x 2 / 4
        "fills": [(0, 0, 0.015, 100.0, "ORDER"), (0, 1, -0.005, 100.0, "ORDER")],
        "cash": 0.0,
        "units": [0.015, -0.005],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "lots round raw shares towards zero: raw = units x capital x adjusted / raw price",
        "terms": {"lot": 10.0, "capital": 10_000.0},
        "bars": [bar(0.333, 50.0, prev_close=50.0, factor=0.5)],
        # 0.00666 units are 33.3 raw shares at 100; 30 of them are 0.006 units at 50
        "fills": [(0, 0, 0.006, 50.0, "ORDER")],
        "cash": 0.7,
        "units": [0.006],
        "equity": 1.0,
    },
    {
        "name": "a sale is rounded towards zero too",
        "start": LONG,
        "terms": {"lot": 10.0, "capital": 10_000.0},
        "bars": [bar(0.43)],
        # -57 shares: -50
        "fills": [(0, 0, -0.005, 100.0, "ORDER")],
        "cash": 0.5,
        "units": [0.005],
        "equity": 1.0,
    },
    {
        "name": "a target of 0 closes an odd lot exactly",
        "start": {"cash": 0.33, "units": [0.0067], "entry": [100.0]},
        "terms": {"lot": 10.0, "capital": 10_000.0},
        "bars": [bar(0.0)],
        "fills": [(0, 0, -0.0067, 100.0, "ORDER")],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
    },
    {
        "name": "a buy cut for cash is rounded to lots once more, and the rest stays in cash",
        "terms": {"lot": 10.0, "capital": 10_000.0, "fee": 0.03},
        "bars": [bar(0.995)],
        # 99.5 shares: 90. 0.9 + 0.027 < 1: not cut. From 0.073 of cash and 0.9 of shares, E = 0.973:
        "fills": [(0, 0, 0.009, 100.0, "ORDER")],
        "cash": 0.073,
        "units": [0.009],
        "equity": 0.973,
        "clipped": [],
    },
    {
        "name": "the cut itself, in lots",
        "terms": {"lot": 10.0, "capital": 1005.0, "fee": 0.03},
        "bars": [bar(1.0, 1.0, prev_close=1.0)],
        # 1005 shares of 1: 1000, which cost 1030 of 1005: 975.7 shares: 970, for 999.1. 5.9 are left.
        "fills": [(0, 0, 970 / 1005, 1.0, "ORDER")],
        "cash": 5.9 / 1005,
        "units": [970 / 1005],
        "equity": 975.9 / 1005,
        "clipped": [],
    },
    {
        "name": "a minimum trade drops smaller orders, counted",
        "terms": {"min_trade": 500.0, "capital": 10_000.0},
        "bars": [bar(0.04), bar(0.06)],
        "fills": [(1, 0, 0.0006, 100.0, "ORDER")],
        "cash": 0.94,
        "units": [0.0006],
        "equity": 1.0,
        "dropped": [0],
    },
    {
        "name": "a minimum trade also drops a target of 0, but no stop",
        "start": {"cash": 0.96, "units": [0.0004], "entry": [100.0]},
        "terms": {"min_trade": 500.0, "capital": 10_000.0},
        "bars": [bar(0.0), bar(NAN, 100.0, 90.0, stop=0.05)],
        # 0.96 + 0.0004 x 95
        "fills": [(1, 0, -0.0004, 95.0, "STOP")],
        "cash": 0.998,
        "units": [0.0],
        "equity": 0.998,
        "dropped": [0],
    },
]
