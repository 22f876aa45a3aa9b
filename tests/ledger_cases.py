"""Bars worked out by hand, one for each order of events in the money rules: plain data for any ledger.

A case holds `start` (fields of the account; a cash of 1.0 and nothing held unless said), `terms` (what differs from
`Terms`: no costs, next_open), `bars` (fields of `ledger_orders.Bar` with the `target` of the decision before; `open`
alone gives a bar that stands still there) and what must come out: `fills` as (bar, asset, units, price, reason), the
last `cash`, `units` and `equity`, and, where a case is about them, `carry` per bar, `fees` and `slippage` in sum,
`stopped`, `ruined`, and the bars `clipped` and `dropped`. The comments hold the arithmetic, done without a program.
"""

from __future__ import annotations

import math
from typing import Any

NAN, INF = math.nan, math.inf
DAY = 1 / 365
# A position at an entry of 100 with no cash beside it, one financed half by debt, and a short of the same size.
LONG: dict[str, Any] = {"cash": 0.0, "units": [0.01], "entry": [100.0]}
DEBT: dict[str, Any] = {"cash": -1.0, "units": [0.02], "entry": [100.0]}
SHORT: dict[str, Any] = {"cash": 2.0, "units": [-0.01], "entry": [100.0]}


def bar(target: Any, open: Any = 100.0, close: Any = None, **more: Any) -> dict[str, Any]:
    """One move; numbers stand for one asset. It comes from a close of 100, or `prev_close`."""
    listed = lambda x: list(x) if isinstance(x, (list, tuple)) else [x]  # noqa: E731
    target, open = listed(target), listed(open)
    close = open if close is None else listed(close)
    of_all = ("years", "session_end", "was_session_end")
    fields = {name: x if name in of_all else listed(x) for name, x in more.items()}
    prices = zip(open, close, strict=True)
    spread = {"high": [max(pair) for pair in prices], "low": [min(pair) for pair in zip(open, close, strict=True)]}
    return {"prev_close": [100.0] * len(open), **spread, "target": target, "open": open, "close": close, **fields}


GAP = {"open": 90.0, "close": 91.0, "high": 92.0, "low": 88.0}  # through a stop of 5%, which stands at 95

BRACKETS = [
    {
        "name": "the open jumps a stop: closed at the open",
        "start": LONG,
        "terms": {"fee": 0.01},
        "bars": [bar(NAN, **GAP, stop=0.05)],
        # 0.01 x 90 = 0.9, fee 0.009
        "fills": [(0, 0, -0.01, 90.0, "STOP")],
        "fees": 0.009,
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [1],
    },
    {
        "name": "an order that trades the asset at that open stands instead of the stop",
        "start": LONG,
        "terms": {"fee": 0.01},
        "bars": [bar(0.0, **GAP, stop=0.05)],
        "fills": [(0, 0, -0.01, 90.0, "ORDER")],
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [0],
    },
    {
        "name": "an order that is dust does not: the stop closes at the open, and the order may not buy back",
        "start": LONG,
        "terms": {"fee": 0.01},
        "bars": [bar(1.0, **GAP, stop=0.05)],
        # Exposure is 1 = the target: no order. After the stop the target has not left the sign.
        "fills": [(0, 0, -0.01, 90.0, "STOP")],
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [1],
    },
    {
        "name": "an order inside the band does not either",
        "start": LONG,
        "terms": {"band": 0.2},
        "bars": [bar(0.9, **GAP, stop=0.05)],
        # |0.9 - 1| = 0.1 < 0.2
        "fills": [(0, 0, -0.01, 90.0, "STOP")],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
        "stopped": [1],
    },
    {
        "name": "an order that sells a part at the jumped open leaves the rest to the stop, at the open",
        "start": LONG,
        "terms": {"fee": 0.01},
        "bars": [bar(0.5, **GAP, stop=0.05)],
        # E = 0.9, d = 0.5 x 0.9 / 90 - 0.01 = -0.005; the rest meets a level (95) that is behind the open: again 90.
        # Cash: 2 x (0.45 - 0.0045).
        "fills": [(0, 0, -0.005, 90.0, "ORDER"), (0, 0, -0.005, 90.0, "STOP")],
        "fees": 0.009,
        "cash": 0.891,
        "units": [0.0],
        "equity": 0.891,
        "stopped": [1],
    },
    {
        "name": "under next_close an order cannot save it: the stop closes at the open",
        "start": LONG,
        "terms": {"fill": "next_close"},
        "bars": [bar(0.5, **GAP, stop=0.05)],
        "fills": [(0, 0, -0.01, 90.0, "STOP")],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
        "stopped": [1],
    },
    {
        "name": "a stop inside the bar fills at its level, and costs slippage and fee",
        "start": LONG,
        "terms": {"fee": 0.01, "slippage": 0.1},
        "bars": [bar(NAN, 98.0, 97.0, high=99.0, low=94.0, stop=0.05)],
        # p' = 95 x 0.9 = 85.5; 0.855 comes in, fee 0.00855; slippage 0.095
        "fills": [(0, 0, -0.01, 95.0, "STOP")],
        "fees": 0.00855,
        "slippage": 0.095,
        "cash": 0.84645,
        "units": [0.0],
        "equity": 0.84645,
        "stopped": [1],
    },
    {
        "name": "touching is enough",
        "start": LONG,
        "bars": [bar(NAN, 98.0, 97.0, high=99.0, low=75.0, stop=0.25)],
        "fills": [(0, 0, -0.01, 75.0, "STOP")],
        "cash": 0.75,
        "units": [0.0],
        "equity": 0.75,
        "stopped": [1],
    },
    {
        "name": "stop and take-profit in one bar: the adverse side first",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 105.5, high=106.0, low=94.0, stop=0.05, take=0.05)],
        "fills": [(0, 0, -0.01, 95.0, "STOP")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "stopped": [1],
    },
    {
        "name": "a short takes its profit inside the bar, below",
        "start": SHORT,
        "terms": {"fee": 0.01},
        "bars": [bar(NAN, 95.0, 92.0, high=96.0, low=88.0, stop=0.05, take=0.1)],
        # 2 - 0.9 - 0.009
        "fills": [(0, 0, 0.01, 90.0, "TAKE")],
        "cash": 1.091,
        "units": [0.0],
        "equity": 1.091,
        "stopped": [-1],
    },
    {
        "name": "an open beyond the take-profit takes it where the order is less than a lot",
        "start": LONG,
        "terms": {"lot": 100.0, "capital": 10_000.0},
        "bars": [bar(0.9, 112.0, 112.0, high=113.0, low=94.0, stop=0.05, take=0.1)],
        # 10 shares too many of 100 held: no lot. Sold at 112; the stop at 95 comes too late, and 0.9 is a side it left
        "fills": [(0, 0, -0.01, 112.0, "TAKE")],
        "cash": 1.12,
        "units": [0.0],
        "equity": 1.12,
    },
    {
        "name": "an open beyond the take-profit is left to the order that trades there",
        "start": LONG,
        "bars": [bar(0.5, 112.0, 112.0, high=113.0, low=110.0, stop=0.05, take=0.1)],
        # 0.005 sold at the open, by the order; the rest stands beyond its take-profit, and goes at the open too
        "fills": [(0, 0, -0.005, 112.0, "ORDER"), (0, 0, -0.005, 112.0, "TAKE")],
        "cash": 1.12,
        "units": [0.0],
        "equity": 1.12,
    },
    {
        "name": "an open beyond the take-profit gives the open, better than the level",
        "start": LONG,
        "bars": [bar(NAN, 115.0, 100.0, take=0.1)],
        "fills": [(0, 0, -0.01, 115.0, "TAKE")],
        "cash": 1.15,
        "units": [0.0],
        "equity": 1.15,
        "stopped": [1],
    },
    {
        "name": "a short's stop that the open jumps",
        "start": SHORT,
        "bars": [bar(NAN, 108.0, 100.0, stop=0.05)],
        # 2 - 1.08
        "fills": [(0, 0, 0.01, 108.0, "STOP")],
        "cash": 0.92,
        "units": [0.0],
        "equity": 0.92,
        "stopped": [-1],
    },
    {
        "name": "a stop counts in the bar of the entry, from the entry's price without its costs",
        "terms": {"fee": 0.01},
        "bars": [bar(1.0, 100.0, 97.0, high=101.0, low=94.0, stop=0.05)],
        # The buy is cut to 1 / 1.01 of 0.01 units and leaves no cash; 0.0099009901 x 95 x 0.99
        "fills": [(0, 0, 0.01 / 1.01, 100.0, "ORDER"), (0, 0, -0.01 / 1.01, 95.0, "STOP")],
        "cash": 0.931188118811881,
        "units": [0.0],
        "equity": 0.931188118811881,
        "stopped": [1],
    },
    {
        "name": "an add moves the entry price, a partial exit does not",
        "start": {"cash": 0.5, "units": [0.005], "entry": [100.0]},
        "bars": [
            # E = 0.5 + 0.6 = 1.1, target 0.8: d = 0.88 / 120 - 0.005 = 0.00233333; cash 0.22
            # entry (0.005 x 100 + 0.00233333 x 120) / 0.00733333 = 0.78 / 0.00733333 = 106.363636
            bar(0.8, 120.0, stop=0.05),
            # E = 1.1, target 0.4: d = -0.00366667; cash 0.66, units 0.00366667, entry as it was
            bar(0.4, 120.0, prev_close=120.0, stop=0.05),
            # stop level 0.95 x 106.363636 = 101.0454545; 0.66 + 0.00366667 x 101.0454545 = 0.66 + 0.3705
            bar(NAN, 120.0, 110.0, prev_close=120.0, low=101.0, high=121.0, stop=0.05),
        ],
        "fills": [
            (0, 0, 0.28 / 120, 120.0, "ORDER"),
            (1, 0, -0.44 / 120, 120.0, "ORDER"),
            (2, 0, -0.44 / 120, 101.0454545454545, "STOP"),
        ],
        "cash": 1.0305,
        "units": [0.0],
        "equity": 1.0305,
        "stopped": [1],
    },
    {
        "name": "a stopped asset is entered again only after its target has left the sign",
        "start": LONG,
        "bars": [
            bar(1.0, 99.0, 96.0, low=94.0, stop=0.05),  # stopped at 95
            bar(0.5, 100.0),  # the same sign: not traded
            bar(NAN, 100.0),  # says nothing
            bar(1.0, 100.0),  # still not
            bar(0.0, 100.0),  # left
            bar(1.0, 100.0),  # 0.95 / 100
        ],
        "fills": [(0, 0, -0.01, 95.0, "STOP"), (5, 0, 0.0095, 100.0, "ORDER")],
        "cash": 0.0,
        "units": [0.0095],
        "equity": 0.95,
        "stopped": [0],
    },
    {
        "name": "the opposite sign lifts the block and trades at once; the stopped side is then free",
        "start": LONG,
        "bars": [
            bar(1.0, 99.0, 96.0, low=94.0, stop=0.05),
            bar(-1.0, 100.0),  # -0.0095 units, cash 1.9
            bar(1.0, 100.0),  # back: +0.019
        ],
        "fills": [(0, 0, -0.01, 95.0, "STOP"), (1, 0, -0.0095, 100.0, "ORDER"), (2, 0, 0.019, 100.0, "ORDER")],
        "cash": 0.0,
        "units": [0.0095],
        "equity": 0.95,
        "stopped": [0],
    },
    {
        "name": "under next_close the stop comes before the order, which it blocks",
        "start": LONG,
        "terms": {"fill": "next_close"},
        "bars": [bar(0.5, 99.0, 98.0, high=99.0, low=94.0, stop=0.05)],
        "fills": [(0, 0, -0.01, 95.0, "STOP")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "stopped": [1],
    },
    {
        "name": "brackets are those of the latest decision, also where a delay fills an older order",
        "terms": {"delay": 1},
        "bars": [
            bar(1.0, 100.0),  # held back
            bar(0.0, 100.0, 97.0, high=101.0, low=94.0, stop=0.05),  # fills the 1.0, under the stop of this decision
        ],
        "fills": [(1, 0, 0.01, 100.0, "ORDER"), (1, 0, -0.01, 95.0, "STOP")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "stopped": [1],
    },
    {
        "name": "each asset has its own brackets",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": [100.0, 100.0]},
        "bars": [bar([NAN, NAN], [100.0, 100.0], [97.0, 97.0], low=[94.0, 94.0], stop=[0.05, 0.1], take=[INF, INF])],
        # 0.005 x 95, and 0.005 x 97 still held
        "fills": [(0, 0, -0.005, 95.0, "STOP")],
        "cash": 0.475,
        "units": [0.0, 0.005],
        "equity": 0.96,
        "stopped": [1, 0],
    },
]

# With max_leverage 2 the maintenance margin is 0.25. DEBT reaches it where -1 + 0.02 p = 0.25 x 0.02 p: p = 66.666667.
MARGIN = [
    {
        "name": "a stop nearer than the liquidation",
        "start": DEBT,
        "terms": {"fee": 0.01, "leverage": 2.0},
        "bars": [bar(NAN, 95.0, 70.0, high=96.0, low=60.0, stop=0.2)],
        # -1 + 1.6 - 0.016
        "fills": [(0, 0, -0.02, 80.0, "STOP")],
        "cash": 0.584,
        "units": [0.0],
        "equity": 0.584,
        "stopped": [1],
    },
    {
        "name": "a liquidation nearer than the stop; it cancels the order at the close and blocks nothing",
        "start": DEBT,
        "terms": {"fee": 0.01, "leverage": 2.0, "fill": "next_close"},
        "bars": [
            bar(1.0, 95.0, 70.0, high=96.0, low=40.0, stop=0.5),  # -1 + 1.33333333 - 0.01333333
            bar(1.0, 70.0, 80.0, prev_close=70.0),  # 0.32 / 80 = 0.004 units; fee 0.0032 on credit
        ],
        "fills": [(0, 0, -0.02, 66.66666666666667, "LIQUIDATION"), (1, 0, 0.004, 80.0, "ORDER")],
        "cash": -0.0032,
        "units": [0.004],
        "equity": 0.3168,
        "stopped": [0],
    },
    {
        "name": "below margin at the open: sold there, the order cancelled",
        "start": DEBT,
        "terms": {"fee": 0.01, "leverage": 2.0},
        "bars": [bar(0.5, 60.0, 80.0)],
        # E = 0.2 < 0.25 x 1.2; -1 + 1.2 - 0.012
        "fills": [(0, 0, -0.02, 60.0, "LIQUIDATION")],
        "cash": 0.188,
        "units": [0.0],
        "equity": 0.188,
        "ruined": False,
    },
    {
        "name": "at the open margin goes before a stop that was jumped too",
        "start": DEBT,
        "terms": {"leverage": 2.0},
        "bars": [bar(NAN, 60.0, 80.0, stop=0.1)],
        "fills": [(0, 0, -0.02, 60.0, "LIQUIDATION")],
        "cash": 0.2,
        "units": [0.0],
        "equity": 0.2,
        "stopped": [0],
    },
    {
        "name": "interest is booked before the margin is looked at",
        "start": DEBT,
        "terms": {"leverage": 2.0, "borrow_rate": 0.365},
        "bars": [bar(NAN, 66.7, 80.0, years=DAY)],
        # Without interest E = 0.334 > 0.25 x 1.334 = 0.3335; a day costs 0.001: 0.333 < 0.3335
        "fills": [(0, 0, -0.02, 66.7, "LIQUIDATION")],
        "carry": [-0.001],
        "cash": 0.333,
        "units": [0.0],
        "equity": 0.333,
    },
    {
        "name": "a short's liquidation inside the bar, where 2 - 0.01 p = 0.25 x 0.01 p",
        "start": SHORT,
        "terms": {"maintenance": 0.25},
        "bars": [bar(NAN, 110.0, 120.0, high=170.0, low=105.0, stop=0.7)],
        # p = 2 / 0.0125 = 160, nearer than the stop at 170
        "fills": [(0, 0, 0.01, 160.0, "LIQUIDATION")],
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
        "terms": {"leverage": 2.0, "fee": 0.01},
        "bars": [
            bar([NAN, NAN], [100.0, 100.0], [90.0, 90.0], low=[30.0, 30.0]),
            # E = -1 + 1.3 = 0.3 < 0.25 x 1.3 = 0.325; all sold: 1.3 - 0.013
            bar([NAN, NAN], [90.0, 90.0], [70.0, 60.0], prev_close=[90.0, 90.0]),
        ],
        "fills": [(1, 0, -0.01, 70.0, "LIQUIDATION"), (1, 1, -0.01, 60.0, "LIQUIDATION")],
        "cash": 0.287,
        "units": [0.0, 0.0],
        "equity": 0.287,
    },
    {
        "name": "ruin at the fill: everything closed there, the order cancelled, the true value shown",
        "start": SHORT,
        "terms": {"fee": 0.01, "cash_rate": 0.1},
        "bars": [
            bar(1.0, 199.5, 150.0),  # E = 2 - 1.995 = 0.005 <= 0.01; fee 0.01995
            bar(1.0, 150.0, prev_close=150.0, years=1.0),  # frozen: no order, no interest
        ],
        "fills": [(0, 0, 0.01, 199.5, "RUIN")],
        "carry": [0.0, 0.0],
        "cash": -0.01495,
        "units": [0.0],
        "equity": -0.01495,
        "ruined": True,
    },
    {
        "name": "ruin at the close",
        "start": SHORT,
        "bars": [bar(NAN, 150.0, 199.5)],
        "fills": [(0, 0, 0.01, 199.5, "RUIN")],
        "cash": 0.005,
        "units": [0.0],
        "equity": 0.005,
        "ruined": True,
    },
]
