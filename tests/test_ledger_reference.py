"""The scalar reference against bars worked out by hand: an oracle must have been checked by something else."""

from __future__ import annotations

import ledger_reference
import pytest
from ledger_cases import BRACKETS, MARGIN
from ledger_cases_costs import CARRY, COSTS, TIME
from ledger_cases_orders import CASH, CHANGE, LEVERAGE, LIMITS
from ledger_reference import Ledger, Terms, book

CASES = [*BRACKETS, *MARGIN, *CARRY, *COSTS, *LIMITS, *CASH, *LEVERAGE, *CHANGE, *TIME]
WORDS = ("ORDER", "STOP", "TAKE", "LIQUIDATION", "RUIN", "LAST", "SESSION")
REASONS = {getattr(ledger_reference, name): name for name in WORDS}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_bar_worked_out_by_hand(case) -> None:
    terms = Terms(**case.get("terms", {}))
    ledger = Ledger(len(case["units"]), **{name: _copy(x) for name, x in case.get("start", {}).items()})
    moves = [ledger.step(terms=terms, **_step_names(row)) for row in case["bars"]]
    done = [(t, each) for t, move in enumerate(moves) for each in move.executions]
    got = [(t, each.asset, each.units, each.price, REASONS[each.reason]) for t, each in done]
    assert got == [(t, a, near(units), near(price), reason) for t, a, units, price, reason in case["fills"]]
    assert ledger.cash == near(case["cash"])
    assert ledger.units == near(case["units"])
    assert ledger.equity == near(case["equity"])
    found = {
        "carry": [move.carry for move in moves],
        "worth": [each.equity for _, each in done],
        "fees": sum(each.fee for _, each in done),
        "slippage": sum(each.slippage for _, each in done),
        "stopped": ledger.stopped,
        "ruined": ledger.ruined,
        "clipped": [t for t, move in enumerate(moves) if move.clipped],
        "dropped": [t for t, move in enumerate(moves) if move.dropped],
    }
    for name, value in found.items():
        if name in case:
            assert value == near(case[name]), name


def near(x):
    return pytest.approx(x, rel=1e-12, abs=1e-14)


def test_a_flat_target_and_a_cut_buy_leave_exact_zeros() -> None:
    by_name = {case["name"]: case for case in CASES}
    for name in ("a target of 0 closes an odd lot exactly", "sales pay for buys, which are cut by the costs of both"):
        case = by_name[name]
        ledger = Ledger(len(case["units"]), **{field: _copy(x) for field, x in case["start"].items()})
        ledger.step(terms=Terms(**case["terms"]), **_step_names(case["bars"][0]))
        assert ledger.units[0] == 0.0
        assert ledger.entry[0] == 0.0
    assert ledger.cash == 0.0


@pytest.mark.parametrize("fill", ["next_open", "next_close"])
def test_a_book_is_the_same_moves_one_after_another(fill: str) -> None:
    opens = [[100.0], [98.0], [103.0], [104.0], [97.0]]
    closes = [[101.0], [102.0], [104.0], [96.0], [99.0]]
    highs, lows = [[101.0], [102.0], [104.0], [104.0], [99.0]], [[96.0], [97.0], [99.0], [92.0], [95.0]]
    targets, stops = [[1.0], [-0.5], [0.3], [0.3], [1.0]], [[0.02]] * 5
    terms = Terms(fee=0.001, fill=fill, cash_rate=0.05, short_rate=0.02)
    years = [0.0, 0.003, 0.009, 0.003, 0.003]
    got = book(opens, closes, targets, terms, high=highs, low=lows, stop=stops, years=years)
    ledger, equity, fills = Ledger(1), [1.0], []
    for t in range(1, 5):
        more = {"high": highs[t], "low": lows[t], "stop": stops[t - 1], "years": years[t]}
        move = ledger.step(targets[t - 1], closes[t - 1], opens[t], closes[t], terms, **more)
        equity.append(ledger.equity)
        fills += [(t, each.asset, each.units) for each in move.executions]
    assert got["equity"] == equity
    assert [row[:3] for row in got["fills"]] == fills
    assert ledger_reference.STOP in got["reasons"]


def _step_names(row: dict) -> dict:
    return {{"open": "open_"}.get(name, name): _copy(x) for name, x in row.items()}


def _copy(x):
    """The reference changes its lists in place."""
    return list(x) if isinstance(x, list) else x
