"""`impact`: slippage that grows with the root of an order's share of the traded value (money rule 4)."""

from __future__ import annotations

from ledger.worked_bars import LONG, NAN, bar, worked

CASES = [
    {
        "name": "impact is slippage that grows with the root of the order's share of the volume",
        "settings": {"impact": 1.0, "slippage": 0.002, "capital": 1_000_000.0},
        "bars": [bar(0.25, volatility=0.02, adv=100_000_000.0)],
        # sqrt(250,000 / 100,000,000) = 0.05, x 0.02 = 0.001, with 0.002: 0.25 x 0.003
        "fills": [(0, 0, 0.0025, 100.0, "order")],
        "slippage": 0.00075,
        "cash": 0.74925,
        "units": [0.0025],
        "equity": 0.99925,
    },
    {
        "name": "where no traded value is known, a forced sale pays slippage alone",
        "start": LONG,
        "settings": {"impact": 1.0, "capital": 1_000_000.0, "slippage": 0.002},
        "bars": [bar(NAN, 100.0, 90.0, low=79.0, stop_loss=0.2, adv=1e-6, volatility=0.05)],
        # 0.8 less 0.2%
        "fills": [(0, 0, -0.01, 80.0, "stop")],
        "slippage": 0.0016,
        "cash": 0.7984,
        "units": [0.0],
        "equity": 0.7984,
    },
    {
        "name": "where no traded value is known, an order is given up with impact",
        "settings": {"impact": 1.0, "capital": 1_000_000.0},
        "bars": [bar(0.5, adv=1e-6, volatility=0.05)],
        "fills": [],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
        "dropped": [0],
    },
    {
        "name": "impact and slippage take all of a sale at most",
        "start": LONG,
        "settings": {"impact": 1.0, "capital": 1_000_000.0, "slippage": 0.002},
        "bars": [bar(0.5, adv=5_000.0, volatility=0.2)],
        # sqrt(500,000 / 5,000) = 10, x 0.2 = 2, with the slippage 2.002: cut to 1
        "fills": [(0, 0, -0.005, 100.0, "order")],
        "slippage": 0.5,
        "cash": 0.0,
        "units": [0.005],
        "equity": 0.5,
    },
]


test_impact_as_worked_by_hand = worked(CASES)
