"""Simple strategies beside a result: what they hold, that they pay, and that they see no later bar."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.priced_markets import busy, daily, market_of, random_table

from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.strategies import CASH, EQUAL_WEIGHT, MOMENTUM, VOLATILITY_TARGET, strategies
from jaxtrader.ledger.costs import Costs

PRICEY = Costs(fee=0.001, slippage=0.002)
BARS = 500


@pytest.fixture(scope="module")
def market():
    """A year of bars before the part that is judged."""
    return market_of(random_table(5, bars=BARS), symbol="X").split("2021-01-10")[1]


@pytest.fixture(scope="module")
def found(market):
    bars = int(market.segments[0, 2] - market.segments[0, 1])
    return strategies(market, simulate(market, busy(bars=bars), costs=PRICEY))


def test_momentum_holds_while_the_return_of_a_year_is_above_zero(market, found):
    first, end = market.segments[0, 1:]
    rises = market.close[first:end, 0] > market.close[first - 365 : end - 365, 0]  # daily bars of every day
    np.testing.assert_array_equal(found[MOMENTUM].targets[:, 0], rises)
    assert 0 < rises.mean() < 1, "a constant target would prove nothing"


def test_volatility_target_holds_less_where_prices_move_more(market, found):
    first, end = market.segments[0, 1:]
    typical = np.median(market.volatility[:first][market.volatility[:first] > 0])
    expected = np.minimum(typical / market.volatility[first:end, 0], 1)
    np.testing.assert_allclose(found[VOLATILITY_TARGET].targets[:, 0], expected)


def test_cash_holds_nothing(found):
    assert not found[CASH].intrabar_exposure.any()
    assert EQUAL_WEIGHT not in found


def test_all_that_trade_pay_costs(found):
    assert found[MOMENTUM].costs_paid.sum() > 0
    assert found[VOLATILITY_TARGET].costs_paid.sum() > 0


def test_equal_weight_divides_the_capital_between_what_can_be_traded():
    late = random_table(2).iloc[40:]
    market = market_of({"A": random_table(1), "B": late}, align=True)
    result = simulate(market, np.full((len(market.times), 2), 0.5))
    held = strategies(market, result)[EQUAL_WEIGHT].exposure
    np.testing.assert_allclose(held[5:35].sum(axis=1), 1.0, atol=1e-9)
    assert np.all(held[5:35, 1] == 0)
    # Both drift after they are bought.
    np.testing.assert_allclose(held[60:].mean(axis=0), [0.5, 0.5], atol=0.05)


def test_each_symbol_has_its_own():
    market = market_of({"A": random_table(1), "B": random_table(2)})
    total = combine({name: simulate(market, 1.0, symbol=name) for name in "AB"})
    assert list(strategies(market, total)[MOMENTUM].by_symbol) == ["A", "B"]


def test_no_strategy_sees_a_later_bar():
    """look_ahead: other prices from bar 90 on change no target before."""
    table = random_table()
    changed = table.copy()
    changed.iloc[90:, :4] *= np.linspace(1, 3, len(table) - 90)[:, None]
    targets = []
    for each in (table, changed):
        market = market_of(each, symbol="X")
        targets.append({name: one.targets for name, one in strategies(market, simulate(market, busy())).items()})
    for name, one in targets[0].items():
        np.testing.assert_array_equal(one[:90], targets[1][name][:90])


def test_prices_that_never_move_have_no_volatility_to_aim_at():
    market = market_of(daily([5.0] * 60), symbol="X")
    assert np.isfinite(strategies(market, simulate(market, 1.0))[VOLATILITY_TARGET].equity).all()
