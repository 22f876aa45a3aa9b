"""`delist_return`: what a delisted asset's last close loses before the position is closed there (money rule 9)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, TWO, assert_as_worked, bar, worked

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
        "name": "delisted at the last close unless a return is said; the other asset stays",
        "start": {"cash": 0.0, "units": [0.005, 0.005], "entry": TWO},
        "bars": [bar([NAN, NAN], TWO, [90.0, 110.0], delisted=[True, False])],
        "fills": [(0, 0, -0.005, 90.0, "delisted")],
        "cash": 0.45,
        "units": [0.0, 0.005],
        "equity": 1.0,
    },
]


@worked(CASES)
def test_delist_return_as_worked_by_hand(case, come_out):
    assert_as_worked(case, come_out(case))
