"""Other costs: what is multiplied, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.accounts import account, returns
from evaluation.priced_markets import daily, market_of

from jaxtrader.evaluation import bootstrap, verdict
from jaxtrader.evaluation.baselines import BUY_AND_HOLD
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.strategies import CASH
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.report.evidence import Evidence, multiplied, rotations_of

SPREAD = [0.0, 0.01, 0.02, -0.01]


@pytest.fixture(scope="module")
def market():
    return market_of(daily([100.0] * 4).assign(spread=SPREAD, rate=0.1), symbol="X")


def test_a_rate_in_a_column_is_multiplied_for_each_bar(market):
    """Bought in bar 1 at 1%, half sold in bar 2 at 2%: the account pays three times as much for both."""
    costs, rules = Costs(fee="spread", slippage=0.0, rebates=("fee",)), Rules(rebalance_band=0.0)
    other, dearer = multiplied(costs, market, 3)
    result = simulate(dearer, [0.5, 0.25, np.nan, np.nan], costs=other, rules=rules)
    traded = np.abs(result.fills["units"]) * 100
    np.testing.assert_allclose(result.fills["fee"], [0.03, 0.06] * traded, rtol=1e-12)
    free, same = multiplied(costs, market, 0)
    assert simulate(same, [0.5, 0.25, 0.5, 0], costs=free, rules=rules).costs_paid.sum() == 0


def test_rebates_interest_and_what_else_reads_a_column_stay_as_they_are(market):
    costs = Costs(fee="spread", slippage=np.array([-0.0, 0.2]), cash_rate="rate", short_rate=0.1, impact=None)
    other, dearer = multiplied(costs, market, 5)
    np.testing.assert_allclose(dearer.columns[other.columns["fee"]][:, 0], [0.0, 0.05, 0.1, -0.01])
    np.testing.assert_array_equal(dearer.columns["spread"], market.columns["spread"])
    assert (other.cash_rate, other.short_rate, other.impact) == ("rate", 0.1, None)
    assert other.slippage[0] == 0
    assert 0.49 < other.slippage[1] < 0.5, "1.0 is beyond the limit"
    other.validate()


def intervals(part):
    (table,) = Evidence({"test": part}, {}, {}, {}, None, None).tables
    assert table.title == "What the bars can tell"
    return {row[0]: row[1:] for row in table.rows}


def test_a_long_part_is_rotated_less_often():
    assert [rotations_of(bars) for bars in (1, 100_000, 200_000, 500_000, 10_000_000)] == [1000, 1000, 500, 200, 200]


def test_the_intervals_are_those_of_the_bootstrap_and_of_the_verdict():
    policy, holder, nothing = account(returns(1.0)), account(returns(0.5)), account(np.zeros(504), held=0.0)
    rows = intervals({POLICY: policy, BUY_AND_HOLD: holder, CASH: nothing})
    mean, lead = bootstrap.mean_interval(policy.excess_returns), verdict.lead(policy, holder)
    assert rows["mean return over cash a year"][1:3] == [f"{252 * mean.low:.1%}", f"{252 * mean.high:.1%}"]
    assert rows["Sharpe ratio"][0] == "1.00"
    assert rows["Sharpe over buy and hold"] == [f"{x:.2f}" for x in (lead.value, lead.low, lead.high, lead.detectable)]
    assert len(rows) == 3, "cash has no ratio of its own"
    short = {POLICY: account(returns(1.0, 60)), BUY_AND_HOLD: account(returns(0.5, 60))}
    assert "mean return over cash" in intervals(short), "below a year it is of the period"


@pytest.mark.parametrize("earned", [np.zeros(504), np.full(20, 0.01)], ids=["no variance", "few bars"])
def test_what_has_no_interval_has_no_table(earned):
    part = {POLICY: account(earned), BUY_AND_HOLD: account(earned)}
    assert Evidence({"test": part}, {}, {}, {}, None, None).tables == []
