"""More bars worked out by hand (see `ledger_cases`): what lots, minimum trades, leverage and cash leave of an order."""

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

CASH = [
    {
        "name": "a buy that cash cuts below the minimum trade is dropped, counted, and its cash stays",
        "start": {"cash": 0.06, "units": [0.0094], "entry": [100.0]},
        "terms": {"min_trade": 595.0, "capital": 10_000.0, "fee": 0.01},
        "bars": [bar(1.0)],
        # 0.06 wanted, 600 of currency; with the fee 0.0606: k = 0.990099, 594 of currency
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
        "terms": {"min_trade": 995.0, "capital": 10_000.0, "fee": 0.01},
        "bars": [bar([0.7, 0.1, 0.2], [100.0] * 3)],
        # 0.303 of 0.3: k = 1 / 1.01: 0.0990099 = 990.1 and 0.1980198, which costs 0.2
        "fills": [(0, 2, 0.2 / 101, 100.0, "ORDER")],
        "cash": 0.1,
        "units": [0.007, 0.0, 0.2 / 101],
        "equity": 0.8 + 0.2 / 1.01,
        "dropped": [0],
    },
]

LEVERAGE = [
    {
        "name": "a sale cut by volume keeps its place in the leverage: what raises another is cut to what is left",
        "start": {"cash": -1.0, "units": [0.02, 0.0], "entry": [100.0, 0.0]},
        "terms": {"leverage": 2.0, "maintenance": 0.0, "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar([0.0, 2.0], TWO, adv=[2000.0, 1e9])],
        # Of 2.0 only 0.2 are sold: 1.8 stay, 0.2 are left of L = 2
        "fills": [(0, 0, -0.002, 100.0, "ORDER"), (0, 1, 0.002, 100.0, "ORDER")],
        "cash": -1.0,
        "units": [0.018, 0.002],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [],
    },
    {
        "name": "what raises positions is cut by one factor: an add, and a turn beyond flat; what lowers them is not",
        "start": {"cash": 0.0, "units": [0.012, 0.002, 0.002, -0.006], "entry": [100.0] * 4},
        "terms": {"leverage": 2.0, "maintenance": 0.0, "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar([0.0, 0.8, -0.4, -0.4], [100.0] * 4, adv=[2000.0, 1e9, 1e9, 1e9])],
        # E = 1. 0.2 of 1.2 are sold: 1.0 stay; 0.2 of the second, none of the third, 0.4 of the fourth. 2 - 1.6 = 0.4
        # for 0.6 + 0.4: k = 0.4
        "fills": [
            (0, 0, -0.002, 100.0, "ORDER"),
            (0, 1, 0.0024, 100.0, "ORDER"),
            (0, 2, -0.0036, 100.0, "ORDER"),
            (0, 3, 0.002, 100.0, "ORDER"),
        ],
        "cash": 0.12,
        "units": [0.01, 0.0044, -0.0016, -0.004],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "what has drifted and stays in the band uses up the leverage too",
        "start": {"cash": -1.0, "units": [0.0208, 0.0], "entry": [100.0, 0.0]},
        "terms": {"leverage": 2.0, "maintenance": 0.0, "band": 0.05},
        "bars": [bar([1.9, 0.1], TWO)],
        # E = 1.08, 2.16 at most; 1.9 x 1.08 = 2.052 is 0.028 away, less than 0.054. 0.08 are left of 0.108
        "fills": [(0, 1, 0.0008, 100.0, "ORDER")],
        "cash": -1.08,
        "units": [0.0208, 0.0008],
        "equity": 1.08,
        "clipped": [0],
    },
    {
        "name": "an unchanged target that has drifted uses it up, and what would raise another is given up",
        "start": {"cash": -1.0, "units": [0.03, 0.0], "entry": [80.0, 0.0], "target": [1.0, 0.0]},
        "terms": {"leverage": 1.5, "maintenance": 0.0, "on_change": True},
        "bars": [bar([1.0, 0.4], TWO)],
        # E = 2, gross 3: all of 1.5 x 2
        "fills": [],
        "cash": -1.0,
        "units": [0.03, 0.0],
        "equity": 2.0,
        "clipped": [0],
        "dropped": [0],
    },
    {
        "name": "what is cut for leverage is cut to whole lots once more",
        "start": {"cash": -0.37, "units": [0.013, 0.0007, 0.0], "entry": [100.0] * 3},
        "terms": {"leverage": 1.5, "maintenance": 0.0, "volume_cap": 0.1, "capital": 10_000.0, "lot": 10.0},
        "bars": [bar([0.0, -0.2, 0.6], [100.0] * 3, adv=[1000.0, 1e9, 1e9])],
        # E = 1. The first: 100 of currency, a share, no lot of it: 1.3 stay. The second: 27 shares, so 20, to -13; the
        # third 60. 0.2 are left for 0.13 + 0.6: k = 20 / 73. -7 - 3.6 shares are 10, to -3; 16.4 shares are 10.
        "fills": [(0, 1, -0.001, 100.0, "ORDER"), (0, 2, 0.001, 100.0, "ORDER")],
        "cash": -0.37,
        "units": [0.013, -0.0003, 0.001],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "a turn that whole lots would end before it is flat ends flat",
        "start": {"cash": -0.37, "units": [0.013, 0.0007, 0.0], "entry": [100.0] * 3},
        "terms": {"leverage": 1.33, "maintenance": 0.0, "volume_cap": 0.1, "capital": 10_000.0, "lot": 10.0},
        "bars": [bar([0.0, -0.2, 0.6], [100.0] * 3, adv=[1000.0, 1e9, 1e9])],
        # As before, with 0.03 left: k = 3 / 73. -7 - 0.5 shares are no lot, and would leave 7; 2.5 shares are none.
        "fills": [(0, 1, -0.0007, 100.0, "ORDER")],
        "cash": -0.3,
        "units": [0.013, 0.0, 0.0],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "what is cut below the minimum trade is dropped, but no turn",
        "start": {"cash": -0.37, "units": [0.013, 0.0007, 0.0, 0.0], "entry": [100.0] * 4},
        "terms": {"leverage": 1.5, "maintenance": 0.0, "volume_cap": 0.1, "capital": 10_000.0, "min_trade": 1150.0},
        "bars": [bar([0.0, -0.2, 0.6, 0.2], [100.0] * 4, adv=[1000.0, 1e9, 1e9, 1e9])],
        # The sale of 100 is dropped: 1.3 stay. 0.2 for 0.2 + 0.6 + 0.2: k = 0.2. To -0.04, by 0.11 = 1100; 0.12 = 1200;
        # 0.04 = 400.
        "fills": [(0, 1, -0.0011, 100.0, "ORDER"), (0, 2, 0.0012, 100.0, "ORDER")],
        "cash": -0.38,
        "units": [0.013, -0.0004, 0.0012, 0.0],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [0],
    },
]

CHANGE = [
    {
        "name": "on change: an order without a bar is tried again at the next, through a pause, and then no more",
        "terms": {"on_change": True},
        "bars": [
            bar([0.5, 0.25], TWO, present=[False, True]),
            bar([0.5, 0.25], TWO, present=[False, True]),
            bar([NAN, NAN], TWO, present=[True, True]),
            bar([0.5, 0.25], [50.0, 100.0], present=[True, True]),
            bar([0.5, 0.25], [25.0, 100.0], present=[True, True]),
        ],
        "fills": [(0, 1, 0.0025, 100.0, "ORDER"), (3, 0, 0.01, 50.0, "ORDER")],
        "cash": 0.25,
        "units": [0.01, 0.0025],
        "equity": 0.75,
        "dropped": [0, 1],
    },
    {
        "name": "on change: an order that the volume cut goes on until it is filled, and then the target is unchanged",
        "terms": {"on_change": True, "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar(0.5, adv=2000.0), bar(0.5, adv=2000.0), bar(0.5, adv=2000.0), bar(0.5, 50.0, adv=2000.0)],
        "fills": [(0, 0, 0.002, 100.0, "ORDER"), (1, 0, 0.002, 100.0, "ORDER"), (2, 0, 0.001, 100.0, "ORDER")],
        "cash": 0.5,
        "units": [0.005],
        "equity": 0.75,
        "clipped": [0, 1],
    },
    {
        "name": "on change: back to the target before, from half way",
        "terms": {"on_change": True, "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar(0.5, adv=2000.0), bar(0.0, adv=2000.0)],
        "fills": [(0, 0, 0.002, 100.0, "ORDER"), (1, 0, -0.002, 100.0, "ORDER")],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
    },
    {
        "name": "on change: a session's end closes for good, though the volume had cut the order before it",
        "terms": {"on_change": True, "volume_cap": 0.1, "capital": 1000.0, "flat_at_session_end": True},
        "bars": [
            bar(0.5, adv=2000.0),
            bar(0.5, adv=2000.0, session_end=True),  # 0.2 of the 0.3 that are missing, and then all is sold
            bar(0.5, adv=2000.0, was_session_end=True),
            bar(0.4, adv=2000.0),
        ],
        "fills": [
            (0, 0, 0.002, 100.0, "ORDER"),
            (1, 0, 0.002, 100.0, "ORDER"),
            (1, 0, -0.004, 100.0, "SESSION"),
            (3, 0, 0.002, 100.0, "ORDER"),
        ],
        "cash": 0.8,
        "units": [0.002],
        "equity": 1.0,
        "clipped": [0, 1, 3],
    },
    {
        "name": "on change: liquidation closes for good, though the volume had cut the order before it",
        # 2 of 3 bought at 100 for a debt of 1; where 0.02 p - 1 = 0.25 * 0.02 p all is sold, and not bought again.
        "terms": {"on_change": True, "volume_cap": 1.0, "capital": 1000.0, "leverage": 3.0, "maintenance": 0.25},
        "bars": [bar(3.0, adv=2000.0), bar(NAN, 100.0, 60.0, adv=2000.0), bar(3.0, 60.0, adv=2000.0)],
        "fills": [(0, 0, 0.02, 100.0, "ORDER"), (1, 0, -0.02, 200 / 3, "LIQUIDATION")],
        "cash": 1 / 3,
        "units": [0.0],
        "equity": 1 / 3,
        "clipped": [0],
    },
    {
        "name": "on change: what is below the minimum trade is given up for good",
        "terms": {"on_change": True, "min_trade": 500.0, "capital": 1000.0},
        "bars": [bar(0.4), bar(0.4), bar(0.6)],
        "fills": [(2, 0, 0.006, 100.0, "ORDER")],
        "cash": 0.4,
        "units": [0.006],
        "equity": 1.0,
        "dropped": [0],
    },
]
