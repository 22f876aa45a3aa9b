"""gym-trading-env's valuations, stored by `benchmarks/parity.py`: its rules rebuilt, and where ours agree or do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from parity.gym_trading_env_ledger import valuations
from parity_cases import Case, load

FOUND, VERSIONS = load(Path(__file__).with_name("gym-trading-env.npz"))
BY_NAME = {case.name: (case, theirs / 1000) for case, theirs in FOUND}
FREE = [name for name, (case, _) in BY_NAME.items() if not case.settings["rate"] and not case.settings["fee"]]


@pytest.mark.parametrize(("case", "theirs"), FOUND, ids=[case.name for case, _ in FOUND])
def test_its_rules_rebuilt_give_its_figures_to_the_last_bit(case: Case, theirs: np.ndarray) -> None:
    closes, positions = case.columns()["close"][:, 0].tolist(), case.targets[:, 0].tolist()
    assert valuations(closes, positions, case.settings["fee"], case.settings["rate"]) == theirs.tolist()


@pytest.mark.parametrize("name", FREE)
def test_without_costs_ours_agrees_at_every_bar(name: str) -> None:
    case, theirs = BY_NAME[name]
    # 1e-12: both are float64, and without costs round alike.
    np.testing.assert_allclose(case.result().equity, theirs, rtol=1e-12)


def test_with_a_fee_they_differ_by_a_hundredth_of_what_was_paid() -> None:
    """It meets the position after the fee, we size before it: what is bought differs by the fee's share of it."""
    case, theirs = BY_NAME["positions in [-0.5, 1], fee"]
    result = case.result()
    change = np.abs(result.equity / theirs - 1).max()
    assert result.costs_paid.sum() > 0.1
    assert 0 < change < 0.02 * result.costs_paid.sum()


def test_a_short_of_three_years_pays_one_bar_of_interest_there_and_all_of_it_here() -> None:
    case, theirs = BY_NAME["short a half for 750 bars, interest"]
    _, free = BY_NAME["short a half for 750 bars, no costs"]
    first, last = 250, 1000
    market = case.market()
    price, years = market.close[:, 0], np.diff(market.times) / np.timedelta64(365 * 24, "h")
    units = 0.5 / price[first]
    interest_due = (0.08 * years[first:last] * units * price[first:last]).sum()
    # 1e-12: a sum over the 750 bars.
    np.testing.assert_allclose(case.result().equity[-1], 1.5 - units * price[last] - interest_due, rtol=1e-12)
    assert interest_due > 0.1  # 12% of the capital
    assert 0 < free[-1] - theirs[-1] < 0.08 / 252 * units * price[last] * 1.1


def test_a_debt_of_six_years_pays_nothing_there_and_interest_on_interest_here() -> None:
    case, theirs = BY_NAME["twice long for 1500 bars, interest"]
    _, free = BY_NAME["twice long for 1500 bars, no costs"]
    first, last = 1000, 2500
    market = case.market()
    price, years = market.close[:, 0], np.diff(market.times) / np.timedelta64(365 * 24, "h")
    debt = np.prod(1 + 0.08 * years[first:last])
    # 1e-12: a product over the 1,500 bars.
    np.testing.assert_allclose(case.result().equity[-1], 2 * price[last] / price[first] - debt, rtol=1e-12)
    assert debt > 1.6
    # Its interest is settled by the very trade that repays the debt, and forgotten there.
    assert theirs[-1] == pytest.approx(free[-1], rel=1e-12)
    assert theirs[last] == pytest.approx(free[last] - 0.08 / 252, rel=1e-9)


def test_it_is_the_release_that_is_pinned() -> None:
    assert VERSIONS["gym-trading-env"] == "0.3.5"
    assert len(FOUND) == 8
    assert len(FREE) == 3
