"""More bars worked out by hand (see `ledger_cases`): carry, costs, delays, assets that are missing or end."""

from __future__ import annotations

from ledger_cases import DAY, DEBT, LONG, NAN, SHORT, bar

TWO = [100.0, 100.0]  # the prices of two assets

CARRY = [
    {
        "name": "a weekend is three nights, and interest accumulates",
        "terms": {"cash_rate": 0.0365},
        "bars": [bar(NAN, years=3 * DAY), bar(NAN, years=DAY)],
        # 0.0365 x 3 / 365 = 0.0003; then 0.0001 on 1.0003
        "fills": [],
        "carry": [0.0003, 0.00010003],
        "cash": 1.00040003,
        "units": [0.0],
        "equity": 1.00040003,
    },
    {
        "name": "debt pays, and the position is sized after that",
        "start": DEBT,
        "terms": {"cash_rate": 0.365, "borrow_rate": 0.0365, "leverage": 2.0},
        "bars": [bar(1.0, 100.0, years=DAY)],
        # 0.0001 x 1 on the debt, nothing on the cash there is not. E = 0.9999: d = 0.009999 - 0.02
        "fills": [(0, 0, -0.010001, 100.0, "ORDER")],
        "carry": [-0.0001],
        "cash": 0.0,
        "units": [0.009999],
        "equity": 0.9999,
    },
    {
        "name": "a short: interest on the cash beyond its value, a rate on its value, both at the close before",
        "start": SHORT,
        "terms": {"cash_rate": 0.0365, "short_rate": 0.073},
        "bars": [bar(NAN, 160.0, 140.0, prev_close=150.0, years=DAY)],
        # Short value 1.5: 0.0001 x (2 - 1.5) - 0.0002 x 1.5 = 0.00005 - 0.0003
        "fills": [],
        "carry": [-0.00025],
        "cash": 1.99975,
        "units": [-0.01],
        "equity": 0.59975,
    },
    {
        "name": "no interest where the short is worth more than the cash",
        "start": {"cash": 1.0, "units": [-0.01, 0.01], "entry": TWO},
        "terms": {"cash_rate": 0.0365},
        "bars": [bar([NAN, NAN], TWO, prev_close=[120.0, 100.0], years=DAY)],
        "fills": [],
        "carry": [0.0],
        "cash": 1.0,
        "units": [-0.01, 0.01],
        "equity": 1.0,
    },
    {
        "name": "funding above 0: longs pay, shorts receive, on the value at the close before",
        "start": {"cash": 1.0, "units": [0.01, -0.005], "entry": TWO},
        "bars": [bar([NAN, NAN], TWO, prev_close=[110.0, 80.0], funding=[0.001, 0.002])],
        # -0.001 x 1.1 + 0.002 x 0.4
        "fills": [],
        "carry": [-0.0003],
        "cash": 0.9997,
        "units": [0.01, -0.005],
        "equity": 1.4997,
    },
    {
        "name": "fill at the close: the order comes first, and carry is on the new position",
        "terms": {"fill": "close", "short_rate": 0.0365},
        "bars": [bar(-1.0, 95.0, 90.0, years=DAY)],
        # Sold at 100: cash 2; then 0.0001 x 1; at 90: 1.9999 - 0.9
        "fills": [(0, 0, -0.01, 100.0, "ORDER")],
        "carry": [-0.0001],
        "cash": 1.9999,
        "units": [-0.01],
        "equity": 1.0999,
    },
    {
        "name": "fill at the open: carry is on what was held before",
        "terms": {"cash_rate": 0.0365, "short_rate": 0.0365},
        "bars": [bar(-1.0, 100.0, 90.0, years=DAY)],
        # 0.0001 on cash; E = 1.0001: -0.010001 units, cash 2.0002; 2.0002 - 0.90009
        "fills": [(0, 0, -0.010001, 100.0, "ORDER")],
        "carry": [0.0001],
        "cash": 2.0002,
        "units": [-0.010001],
        "equity": 1.10011,
    },
]

COSTS = [
    {
        "name": "a fixed fee is in currency, per fill, and not charged where nothing is traded",
        "terms": {"fixed_fee": 10.0, "capital": 100_000.0},
        "bars": [bar(0.5), bar(NAN)],
        # 10 / 100,000 = 0.0001
        "fills": [(0, 0, 0.005, 100.0, "ORDER")],
        "fees": 0.0001,
        "cash": 0.4999,
        "units": [0.005],
        "equity": 0.9999,
    },
    {
        "name": "a buy of everything leaves room for the fixed fee, and exactly no cash; that is not clipping",
        "terms": {"fixed_fee": 10.0, "capital": 1000.0},
        "bars": [bar(1.0)],
        # k = (1 - 0.01) / 1
        "fills": [(0, 0, 0.0099, 100.0, "ORDER")],
        "fees": 0.01,
        "cash": 0.0,
        "units": [0.0099],
        "equity": 0.99,
        "clipped": [],
        "dropped": [],
    },
    {
        "name": "a buy whose fixed fee is more than the cash is given up, free, and counted",
        "start": {"cash": 0.005, "units": [0.00995], "entry": [100.0]},
        "terms": {"fixed_fee": 10.0, "capital": 1000.0},
        "bars": [bar(1.0)],
        "fills": [],
        "fees": 0.0,
        "cash": 0.005,
        "units": [0.00995],
        "equity": 1.0,
        "dropped": [0],
    },
    {
        "name": "forced closes pay the fixed fee too",
        "start": LONG,
        "terms": {"fixed_fee": 10.0, "capital": 1000.0},
        "bars": [bar(NAN, 98.0, 97.0, high=99.0, low=94.0, stop=0.05)],
        "fills": [(0, 0, -0.01, 95.0, "STOP")],
        "fees": 0.01,
        "cash": 0.94,
        "units": [0.0],
        "equity": 0.94,
    },
    {
        "name": "fees and slippage by asset",
        "terms": {"fee": [0.01, 0.02], "slippage": [0.0, 0.1]},
        "bars": [bar([0.4, -0.5], TWO)],
        # Sale: 0.005 x 90 = 0.45 comes in, fee 0.009; buy: 0.4 + 0.004. 1 + 0.45 - 0.009 - 0.404
        "fills": [(0, 0, 0.004, 100.0, "ORDER"), (0, 1, -0.005, 100.0, "ORDER")],
        "fees": 0.013,
        "slippage": 0.05,
        "cash": 1.037,
        "units": [0.004, -0.005],
        "equity": 0.937,
    },
    {
        "name": "sales pay for buys, which are cut by the costs of both",
        "start": {"cash": 0.0, "units": [0.01, 0.0], "entry": [100.0, 0.0]},
        "terms": {"fee": 0.01},
        "bars": [bar([0.0, 1.0], TWO)],
        # 0.99 from the sale, 1.01 wanted: k = 0.980198
        "fills": [(0, 0, -0.01, 100.0, "ORDER"), (0, 1, 0.0098019801980198, 100.0, "ORDER")],
        "cash": 0.0,
        "units": [0.0, 0.0098019801980198],
        "equity": 0.98019801980198,
        "clipped": [],
    },
    {
        "name": "impact is slippage that grows with the root of the order's share of the volume",
        "terms": {"impact": 1.0, "slippage": 0.002, "capital": 1_000_000.0},
        "bars": [bar(0.25, volatility=0.02, adv=100_000_000.0)],
        # sqrt(250,000 / 100,000,000) = 0.05, x 0.02 = 0.001; with 0.002: 0.25 x 0.003
        "fills": [(0, 0, 0.0025, 100.0, "ORDER")],
        "slippage": 0.00075,
        "cash": 0.74925,
        "units": [0.0025],
        "equity": 0.99925,
    },
    {
        "name": "the volume cap cuts the order, and counts it as clipped",
        "terms": {"volume_cap": 0.01, "capital": 1_000_000.0},
        "bars": [bar(0.5, adv=10_000_000.0)],
        # 100,000 of 1,000,000
        "fills": [(0, 0, 0.001, 100.0, "ORDER")],
        "cash": 0.9,
        "units": [0.001],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "it cuts a sale of everything as well, but not a forced one, which pays its impact",
        "start": LONG,
        "terms": {"volume_cap": 0.01, "capital": 1_000_000.0, "impact": 1.0},
        "bars": [
            # 160,000 sold: sqrt(0.01) x 0.05 = 0.005: 0.16 x 0.995 = 0.1592
            bar(0.0, adv=16_000_000.0, volatility=0.05),
            # 0.0084 x 80 = 0.672 of 4.2: sqrt(0.16) x 0.05 = 0.02: 0.672 x 0.98 = 0.65856
            bar(NAN, 100.0, 90.0, low=79.0, stop=0.2, adv=4_200_000.0, volatility=0.05),
        ],
        "fills": [(0, 0, -0.0016, 100.0, "ORDER"), (1, 0, -0.0084, 80.0, "STOP")],
        "cash": 0.81776,
        "units": [0.0],
        "equity": 0.81776,
        "clipped": [0],
    },
    {
        "name": "where no traded value is known, a forced sale pays slippage alone",
        "start": LONG,
        "terms": {"impact": 1.0, "capital": 1_000_000.0, "slippage": 0.002},
        "bars": [bar(NAN, 100.0, 90.0, low=79.0, stop=0.2, adv=1e-6, volatility=0.05)],
        # 0.8 less 0.2%
        "fills": [(0, 0, -0.01, 80.0, "STOP")],
        "slippage": 0.0016,
        "cash": 0.7984,
        "units": [0.0],
        "equity": 0.7984,
    },
    {
        "name": "impact and slippage take all of a sale at most",
        "start": LONG,
        "terms": {"impact": 1.0, "capital": 1_000_000.0, "slippage": 0.002},
        "bars": [bar(0.5, adv=5_000.0, volatility=0.2)],
        # sqrt(500,000 / 5,000) = 10, x 0.2 = 2, with the slippage 2.002: cut to 1
        "fills": [(0, 0, -0.005, 100.0, "ORDER")],
        "slippage": 0.5,
        "cash": 0.0,
        "units": [0.005],
        "equity": 0.5,
    },
]

TIME = [
    {
        "name": "a delay of 1 fills one open later; the first bar holds",
        "terms": {"delay": 1},
        "bars": [bar(1.0, 101.0, 100.0), bar(0.0, 50.0), bar(NAN, 60.0, prev_close=50.0)],
        # 1 / 50 = 0.02; sold at 60
        "fills": [(1, 0, 0.02, 50.0, "ORDER"), (2, 0, -0.02, 60.0, "ORDER")],
        "cash": 1.2,
        "units": [0.0],
        "equity": 1.2,
    },
    {
        "name": "a delay of 2 at the close",
        "terms": {"delay": 2, "fill": "next_close"},
        "bars": [
            bar(1.0, 100.0, 90.0),
            bar(-1.0, 90.0, 80.0, prev_close=90.0),
            bar(0.0, 80.0, 50.0, prev_close=80.0),
            bar(0.0, 50.0, 75.0, prev_close=50.0),
        ],
        # 0.02 bought at 50; at 75 E = 1.5: to -0.02, by -0.04; cash 3
        "fills": [(2, 0, 0.02, 50.0, "ORDER"), (3, 0, -0.04, 75.0, "ORDER")],
        "cash": 3.0,
        "units": [-0.02],
        "equity": 1.5,
    },
    {
        "name": "a delay of 1 under fill at the close",
        "terms": {"delay": 1, "fill": "close"},
        "bars": [bar(1.0, 100.0, 80.0), bar(1.0, 80.0, 120.0, prev_close=80.0)],
        # 1 / 80 at the second close
        "fills": [(1, 0, 0.0125, 80.0, "ORDER")],
        "cash": 0.0,
        "units": [0.0125],
        "equity": 1.5,
    },
    {
        "name": "an order on a missing bar is cancelled and counted, its weight stays in cash",
        "bars": [bar([0.5, 0.5], TWO, present=[True, False])],
        "fills": [(0, 0, 0.005, 100.0, "ORDER")],
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
        "fills": [(0, 0, 0.005, 100.0, "ORDER")],
        "cash": 0.5,
        "units": [0.005, 0.0],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [0],
    },
    {
        "name": "nor is a weight that NaN holds, or that has left room for less",
        "start": {"cash": 0.4, "units": [0.0, 0.0, 0.006], "entry": [0.0, 0.0, 100.0]},
        "bars": [bar([1.0, 1.0, NAN], [100.0] * 3, present=[True, False, True])],
        # a half each of what is asked for, and 0.4 is left of the 0.5
        "fills": [(0, 0, 0.004, 100.0, "ORDER")],
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
        "fills": [(0, 0, 0.002, 100.0, "ORDER")],
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
        "terms": {"leverage": 2.0},
        "bars": [
            # At a last close of 60 (E = 0.2, below 0.25 x 1.2; the stop stands at 190) nothing can be done.
            bar(NAN, 60.0, prev_close=60.0, present=False, stop=0.05),
            bar(NAN, 65.0, prev_close=60.0, stop=0.05),  # -1 + 1.3
        ],
        "fills": [(1, 0, -0.02, 65.0, "LIQUIDATION")],
        "cash": 0.3,
        "units": [0.0],
        "equity": 0.3,
    },
    {
        "name": "delisted at a loss of 30% of the last close, with costs, before the ruin check",
        "start": LONG,
        "terms": {"fee": 0.01, "delist_return": -0.3, "ruin_level": 0.7},
        "bars": [bar(NAN, 100.0, 100.0, last=True)],
        # 0.7 - 0.007 <= 0.7
        "fills": [(0, 0, -0.01, 70.0, "LAST")],
        "worth": [0.7],
        "cash": 0.693,
        "units": [0.0],
        "equity": 0.693,
        "ruined": True,
    },
    {
        "name": "delisted at the last close unless a return is said; the other asset stays",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": TWO},
        "bars": [bar([NAN, NAN], TWO, [90.0, 110.0], last=[True, False])],
        "fills": [(0, 0, -0.005, 90.0, "LAST")],
        "cash": 0.45,
        "units": [0.0, 0.005],
        "equity": 1.0,
    },
    {
        "name": "flat at the session's end, at the close; the next session enters again",
        "start": LONG,
        "terms": {"fee": 0.1, "flat_at_session_end": True},
        "bars": [
            bar(NAN, 100.0, 110.0, session_end=True),  # 1.1 - 0.11
            bar(0.5, 99.0, prev_close=110.0),  # 0.495 / 99 = 0.005; fee 0.0495
        ],
        "fills": [(0, 0, -0.01, 110.0, "SESSION"), (1, 0, 0.005, 99.0, "ORDER")],
        "cash": 0.4455,
        "units": [0.005],
        "equity": 0.9405,
        "stopped": [0],
    },
    {
        "name": "fill at the close: what a session's end or a last bar has just closed is not bought back, but counted",
        "terms": {"fill": "close", "flat_at_session_end": True},
        "bars": [
            bar([0.5, 0.5], TWO, was_present=[True, True], was_last=[False, True]),
            bar([0.0, 0.5], TWO, was_present=[True, False], session_end=True),
            bar([0.5, 0.5], TWO, was_present=[True, False], was_session_end=True),
        ],
        # The first is sold by the second bar's order, and at its end nothing is held.
        "fills": [(0, 0, 0.005, 100.0, "ORDER"), (1, 0, -0.005, 100.0, "ORDER")],
        "cash": 1.0,
        "units": [0.0, 0.0],
        "equity": 1.0,
        "dropped": [0, 1, 2],
    },
    {
        "name": "flat means flat: at the session's end an asset without a bar is closed at its last close",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": TWO},
        "terms": {"flat_at_session_end": True},
        "bars": [bar([NAN, NAN], [110.0, 90.0], prev_close=[110.0, 90.0], present=[True, False], session_end=True)],
        "fills": [(0, 0, -0.005, 110.0, "SESSION"), (0, 1, -0.005, 90.0, "SESSION")],
        "cash": 1.0,
        "units": [0.0, 0.0],
        "equity": 1.0,
    },
    {
        "name": "the session's end matters only where it is asked for",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 110.0, session_end=True)],
        "fills": [],
        "cash": 0.0,
        "units": [0.01],
        "equity": 1.1,
    },
]
