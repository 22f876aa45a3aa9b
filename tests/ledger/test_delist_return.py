"""`delist_return`: what a delisted asset's last close loses before the position is closed there (money rule 9)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, TWO, bar, worked

CASES = [
    {
        "name": "delisted at a loss of 30% of the last close, with costs, before the ruin check",
        "start": LONG,
        "settings": {"fee": 0.01, "delist_return": -0.3, "ruin_level": 0.7},
        "bars": [bar(NAN, 100.0, 100.0, delisted=True)],
        # 0.7 - 0.007 <= 0.7
        "fills": [(0, 0, -0.01, 70.0, "delisted")],
        "worth": [0.7],
        "cash": 0.693,
        "units": [0.0],
        "equity": 0.693,
        "ruined": True,
    },
    {
        # Two weeks of silence are over. Nobody trades it, and yet 0.7 - 0.007 is what is left.
        "name": "delisted on a bar that it does not have",
        "start": LONG,
        "settings": {"fee": 0.01, "delist_return": -0.3, "flat_at_session_end": True},
        "bars": [
            bar(NAN, present=[False], session_end=True),
            bar(NAN, present=[False], was_present=[False], delisted=[True]),
            bar(1.0, was_present=[False], was_delisted=[True], was_session_end=False),
        ],
        "fills": [(1, 0, -0.01, 70.0, "delisted"), (2, 0, 0.00693 / 1.01, 100.0, "order")],
        "cash": 0.0,
        "units": [0.00693 / 1.01],
        "equity": 0.693 / 1.01,
        "dropped": [],
    },
    {
        # Ruined at 0.3 + 0.5 - 0.745 = 0.055 < 0.1 while B has no bar. Nothing of B is left at -100%.
        "name": "delisted of a ruined account",
        "start": {"cash": 0.3, "units": [-0.005, 0.005], "entry": TWO},
        "settings": {"delist_return": -1.0, "ruin_level": 0.1},
        "bars": [
            bar([NAN, NAN], [149.0, 100.0], present=[True, False]),
            bar([NAN, NAN], [149.0, 100.0], prev_close=[149.0, 100.0], present=[True, False], delisted=[False, True]),
        ],
        "fills": [(0, 0, 0.005, 149.0, "ruin"), (1, 1, -0.005, 0.0, "delisted")],
        "cash": -0.445,
        "units": [0.0, 0.0],
        "equity": -0.445,
        "ruined": True,
    },
    {
        "name": "delisted at the last close unless a return is said; the other asset stays",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": TWO},
        "bars": [bar([NAN, NAN], TWO, [90.0, 110.0], delisted=[True, False])],
        "fills": [(0, 0, -0.005, 90.0, "delisted")],
        "cash": 0.45,
        "units": [0.0, 0.005],
        "equity": 1.0,
    },
]


test_delist_return_as_worked_by_hand = worked(CASES)
