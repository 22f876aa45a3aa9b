"""`volume_cap`: the most that an order may be of the traded value of an average bar (money rule 4)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, assert_as_worked, bar, worked

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
        "name": "a sale of everything is cut as well, but not a forced one, which pays its impact",
        "start": LONG,
        "settings": {"volume_cap": 0.01, "capital": 1_000_000.0, "impact": 1.0},
        "bars": [
            # 160,000 sold: sqrt(0.01) x 0.05 = 0.005: 0.16 x 0.995 = 0.1592
            bar(0.0, adv=16_000_000.0, volatility=0.05),
            # 0.0084 x 80 = 0.672 of 4.2: sqrt(0.16) x 0.05 = 0.02: 0.672 x 0.98 = 0.65856
            bar(NAN, 100.0, 90.0, low=79.0, stop_loss=0.2, adv=4_200_000.0, volatility=0.05),
        ],
        "fills": [(0, 0, -0.0016, 100.0, "order"), (1, 0, -0.0084, 80.0, "stop")],
        "cash": 0.81776,
        "units": [0.0],
        "equity": 0.81776,
        "clipped": [0],
    },
]


@worked(CASES)
def test_volume_cap_as_worked_by_hand(case, come_out):
    assert_as_worked(case, come_out(case))
