"""The scalar reference itself. The tests of each field hold it against bars worked out by hand."""

from __future__ import annotations

import pytest
from ledger.reference import STOP, Ledger, Settings, result


def test_a_flat_target_and_a_cut_buy_leave_exact_zeros():
    """An odd lot that is sold, and a sale that pays for a buy, which is cut."""
    ledger = Ledger(1, Settings(lot=10.0, capital=10_000.0), cash=0.33, units=[0.0067], entry=[100.0])
    ledger.step([0.0], [100.0], [100.0], [100.0])
    assert (ledger.units, ledger.entry) == ([0.0], [0.0])
    ledger = Ledger(2, Settings(fee=0.01), cash=0.0, units=[0.01, 0.0], entry=[100.0, 0.0])
    ledger.step([0.0, 1.0], [100.0, 100.0], [100.0, 100.0], [100.0, 100.0])
    assert (ledger.units[0], ledger.entry[0]) == (0.0, 0.0)
    assert ledger.cash == 0.0


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_a_result_is_the_same_moves_one_after_another(fill):
    opens = [[100.0], [98.0], [103.0], [104.0], [97.0]]
    closes = [[101.0], [102.0], [104.0], [96.0], [99.0]]
    highs, lows = [[101.0], [102.0], [104.0], [104.0], [99.0]], [[96.0], [97.0], [99.0], [92.0], [95.0]]
    targets, stops = [[1.0], [-0.5], [0.3], [0.3], [1.0]], [[0.02]] * 5
    settings = Settings(fee=0.001, fill=fill, cash_rate=0.05, short_rate=0.02)
    years = [0.0, 0.003, 0.009, 0.003, 0.003]
    got = result(opens, closes, targets, settings, high=highs, low=lows, stop_loss=stops, dt=years)
    ledger, equity, fills = Ledger(1, settings), [1.0], []
    for t in range(1, 5):
        more = {"high": highs[t], "low": lows[t], "stop_loss": stops[t - 1], "dt": years[t]}
        move = ledger.step(targets[t - 1], closes[t - 1], opens[t], closes[t], **more)
        equity.append(ledger.equity)
        fills += [(t, each.asset, each.units) for each in move.executions]
    assert got["equity"] == equity
    assert [row[:3] for row in got["fills"]] == fills
    assert STOP in got["reasons"]
