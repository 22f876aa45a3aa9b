"""Other costs: what is multiplied, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.priced_markets import daily, market_of

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.report.evidence import multiplied

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
