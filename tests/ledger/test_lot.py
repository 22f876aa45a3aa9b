"""`lot`: orders rounded towards zero to whole lots of raw shares of the `capital` (money rule 8)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, bar, worked

CASES = [
    {
        "name": "a sale that leaves 9e-19 units sells them too, and a session's end then finds nothing to charge for",
        "start": {"cash": 0.24, "units": [0.0032 + 0.0044], "entry": [100.0]},
        "settings": {"lot": 1.0, "capital": 10_000.0, "fixed_fee": 1.0, "flat_at_session_end": True},
        "bars": [bar(-0.004), bar(NAN, session_end=True)],  # 76.4 shares: 76 are sold, for a fee of 0.0001
        "fills": [(0, 0, -0.0076, 100.0, "order")],
        "fees": 0.0001,
        "cash": 0.9999,
        "units": [0.0],
        "equity": 0.9999,
    },
    {
        "name": "a stop on dust fills nothing, costs nothing and blocks nothing",
        "start": {"cash": 1.0, "units": [9e-15], "entry": [100.0]},
        "settings": {"lot": 1.0, "capital": 10_000.0, "fixed_fee": 1.0},
        "bars": [bar(NAN, 100.0, 90.0, low=80.0, stop_loss=0.1)],
        "fills": [],
        "fees": 0.0,
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
        "stopped": [0],
    },
    {
        "name": "lots round raw shares towards zero: raw = units x capital x adjusted / raw price",
        "settings": {"lot": 10.0, "capital": 10_000.0},
        "bars": [bar(0.333, 50.0, prev_close=50.0, price_factor=0.5)],
        # 0.00666 units are 33.3 raw shares at 100, 30 of them are 0.006 units at 50
        "fills": [(0, 0, 0.006, 50.0, "order")],
        "cash": 0.7,
        "units": [0.006],
        "equity": 1.0,
    },
    {
        "name": "a sale is rounded towards zero too",
        "start": LONG,
        "settings": {"lot": 10.0, "capital": 10_000.0},
        "bars": [bar(0.43)],
        # -57 shares: -50
        "fills": [(0, 0, -0.005, 100.0, "order")],
        "cash": 0.5,
        "units": [0.005],
        "equity": 1.0,
    },
    {
        "name": "a target of 0 closes an odd lot exactly",
        "start": {"cash": 0.33, "units": [0.0067], "entry": [100.0]},
        "settings": {"lot": 10.0, "capital": 10_000.0},
        "bars": [bar(0.0)],
        "fills": [(0, 0, -0.0067, 100.0, "order")],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
    },
    {
        "name": "a buy cut for cash is rounded to lots once more, and the rest stays in cash",
        "settings": {"lot": 10.0, "capital": 10_000.0, "fee": 0.03},
        "bars": [bar(0.995)],
        # 99.5 shares: 90. 0.9 + 0.027 < 1: not cut. From 0.073 of cash and 0.9 of shares, E = 0.973:
        "fills": [(0, 0, 0.009, 100.0, "order")],
        "cash": 0.073,
        "units": [0.009],
        "equity": 0.973,
        "clipped": [],
    },
    {
        "name": "a buy of everything is cut to the cash in lots",
        "settings": {"lot": 10.0, "capital": 1005.0, "fee": 0.03},
        "bars": [bar(1.0, 1.0, prev_close=1.0)],
        # 1005 shares of 1: 1000, which cost 1030 of 1005: 975.7 shares: 970, for 999.1. 5.9 are left.
        "fills": [(0, 0, 970 / 1005, 1.0, "order")],
        "cash": 5.9 / 1005,
        "units": [970 / 1005],
        "equity": 975.9 / 1005,
        "clipped": [],
    },
    {
        "name": "what is cut for leverage is cut to whole lots once more",
        "start": {"cash": -0.37, "units": [0.013, 0.0007, 0.0], "entry": [100.0] * 3},
        "settings": {
            "max_leverage": 1.5,
            "maintenance_margin": 0.0,
            "volume_cap": 0.1,
            "capital": 10_000.0,
            "lot": 10.0,
        },
        "bars": [bar([0.0, -0.2, 0.6], [100.0] * 3, adv=[1000.0, 1e9, 1e9])],
        # E = 1. The first: 100 of currency, a share, no lot of it: 1.3 stay. The second: 27 shares, so 20, to -13. The
        # third: 60. 0.2 are left for 0.13 + 0.6: k = 20 / 73. -7 - 3.6 shares are 10, to -3, and 16.4 shares are 10.
        "fills": [(0, 1, -0.001, 100.0, "order"), (0, 2, 0.001, 100.0, "order")],
        "cash": -0.37,
        "units": [0.013, -0.0003, 0.001],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "a turn that whole lots would end before it is flat ends flat",
        "start": {"cash": -0.37, "units": [0.013, 0.0007, 0.0], "entry": [100.0] * 3},
        "settings": {
            "max_leverage": 1.33,
            "maintenance_margin": 0.0,
            "volume_cap": 0.1,
            "capital": 10_000.0,
            "lot": 10.0,
        },
        "bars": [bar([0.0, -0.2, 0.6], [100.0] * 3, adv=[1000.0, 1e9, 1e9])],
        # As before, with 0.03 left: k = 3 / 73. -7 - 0.5 shares are no lot, and would leave 7, and 2.5 shares are none.
        "fills": [(0, 1, -0.0007, 100.0, "order")],
        "cash": -0.3,
        "units": [0.013, 0.0, 0.0],
        "equity": 1.0,
        "clipped": [0],
    },
]


test_lot_as_worked_by_hand = worked(CASES)
