"""What holding each asset cost: bars worked out by hand, and the sum beside what the ledger booked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import daily, market_of
from evaluation.test_backtest_by_hand import HalfTheSignal, NoState
from ledger.markets import BARS, BY_FILL, RATES, all_costs, full_market, orders_of
from policies import about
from rule_settings import run_settings

from jaxtrader.agents.policy import Policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, baselines
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.strategies import CASH, strategies
from jaxtrader.evaluation.tables import legend
from jaxtrader.evaluation.timing import timing_test
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bars import load_bars
from jaxtrader.market.market import Market

HOLD = np.nan
DAY = 0.0365  # a year's rate that is 0.0001 a day
CREDIT = Rules(rebalance_band=0.0, max_leverage=2.0, maintenance_margin=0.0)


def free(**rates):
    """Free trades, at these rates."""
    return Costs(fee=0.0, slippage=0.0, **rates)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", BY_FILL)
def test_without_interest_on_cash_the_position_financing_of_all_assets_is_the_financing(name):
    """Under all rules: brackets, margin, ruin, missing and last bars, and bars with a night before them."""
    assets, rules = BY_FILL[name]
    without, ruined = all_costs(assets, cash_rate=0.0), 0
    for seed in range(9):
        targets, brackets = orders_of(seed, assets)
        market = full_market(seed, assets, (0.03, 0.2, 0.6)[seed % 3])
        result = simulate(market, targets, costs=without, **brackets, **run_settings(rules))
        scale = 1 + np.abs(result.equity).max()
        np.testing.assert_allclose(result.position_financing.sum(1), result.financing, rtol=1e-9, atol=1e-13 * scale)
        np.testing.assert_allclose(
            result.trades["financing"].sum(), result.financing.sum(), rtol=1e-9, atol=1e-12 * scale
        )
        ruined += result.ruined_at is not None
    assert ruined > 0


def test_funding_at_a_stamp_belongs_to_the_position_that_a_flip_opened_just_before():
    """Long from bar 1. The open of bar 2 turns it short, and the close of bar 2 is the stamp: the short gets 1%."""
    frame = daily([100.0] * 4, [100.0, 100.0, 110.0, 110.0]).assign(funding=[0, 0.002, 0.01, 0])
    result = simulate(market_of(frame, symbol="X"), [1.0, -1.0, HOLD, HOLD], costs=free(), rules=CREDIT)
    # 0.01 units at 100 pay 0.002, equity 0.998 is short at 100, so worth 1.0978 at 110
    np.testing.assert_allclose(result.position_financing[:, 0], [0, -0.002, 0.01 * 0.998 * 1.1, 0], rtol=1e-12)
    np.testing.assert_allclose(result.trades["financing"], [-0.002, 0.01 * 0.998 * 1.1], rtol=1e-12)
    np.testing.assert_allclose(result.position_financing.sum(1), result.financing, rtol=1e-12)
    at_close = simulate(
        market_of(frame, symbol="X"), [1.0, -1.0, HOLD, HOLD], costs=free(), rules=CREDIT.replace(fill="next_close")
    )
    # bought at the close of bar 1 after its stamp, sold at that of bar 2 after the long has paid for 1.1
    np.testing.assert_allclose(at_close.trades["financing"], [-0.011, 0], rtol=1e-12)


def test_of_an_hour_after_a_night_each_trade_pays_its_own_part():
    """1.0 is owed at 0.00001 an hour. The night of 8 hours is the long's. The hour after the open is the new short's.

    The short of 1.0 pays a fee of 0.00002 for its hour.
    """
    times = pd.date_range("2024-01-01", periods=13, freq="h").delete(range(2, 10))
    prices = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), 100.0), index=times).assign(volume=1.0)
    hour = 365 * 24
    result = simulate(
        market_of(prices, symbol="X"),
        [2.0, -1.0, HOLD, HOLD, HOLD],
        costs=free(borrow_rate=1e-5 * hour, short_rate=2e-5 * hour),
        rules=CREDIT,
    )
    equity = 1 - 1e-5
    night = 8e-5 * (2 - equity)  # the debt has grown by the interest of the first hour
    short = 2e-5 * (equity - night)
    np.testing.assert_allclose(result.position_financing[:3, 0], [0, -1e-5, -night - short], rtol=1e-9)
    np.testing.assert_allclose(result.position_financing_after_open[:3, 0], [0, -1e-5, -short], rtol=1e-9)
    np.testing.assert_allclose(
        result.trades["financing"], [-1e-5 - night, result.position_financing[3:].sum() - short], rtol=1e-9
    )
    np.testing.assert_allclose(result.position_financing.sum(1), result.financing, rtol=1e-9)


def test_interest_on_debt_is_the_longs_whose_value_is_beyond_equity():
    """Longs of 1.5 and 0.5 and a short of 1.0 at an equity of 1.0: cash is 0, the debt 1.0, and 0.0001 a day."""
    market = market_of({name: daily([100.0] * 3) for name in "ABC"}, align=True)
    rules = CREDIT.replace(max_leverage=3.0)
    targets = [[1.5, 0.5, -1.0], [HOLD] * 3, [HOLD] * 3]
    result = simulate(market, targets, costs=free(borrow_rate=DAY), rules=rules)
    np.testing.assert_allclose(result.position_financing[2], [-0.000075, -0.000025, 0], rtol=1e-9, atol=1e-18)
    np.testing.assert_allclose(result.financing, [0, 0, -0.0001], rtol=1e-9)


# --- rates in columns of the bars ---

YEARLY = {"cash": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "debt": [0.0, 6.0, 7.0, 8.0, 9.0, 10.0], "borrow": [0.0] + [3.0] * 5}
BY_BAR = {"cash_rate": "cash", "borrow_rate": "debt", "short_rate": "borrow"}


@pytest.fixture(scope="module")
def rated():
    """Six days at one price, with rates in multiples of 0.0001 a day: the row's own is for the day up to it."""
    frame = daily([100.0] * 6).assign(**{name: DAY * np.array(column) for name, column in YEARLY.items()})
    return market_of(frame, symbol="X", periods_per_year=365)


def test_each_day_is_financed_at_the_rate_of_its_row(rated):
    result = simulate(rated, [2.0, HOLD, -0.5, HOLD, 0.0, HOLD], costs=free(**BY_BAR), rules=CREDIT)
    equity = [1, 1 + 1e-4]  # bar 1: in cash, at the rate of row 1
    owed = 2 * equity[1] - equity[1]
    equity.append(equity[1] - 7e-4 * owed)  # bar 2: a debt of 1.0, at that of row 2
    equity.append(equity[2] - 8e-4 * (2 * equity[1] - equity[2]))  # bar 3 began on credit, and turned short at its open
    value = 0.5 * equity[3]
    paid = [0, 0, -7e-4 * owed, equity[3] - equity[2], -3e-4 * value, -3e-4 * value]
    np.testing.assert_allclose(result.position_financing[:, 0], paid, rtol=1e-8)
    idle = [0, 1e-4, 0, 0, 4e-4 * equity[3], 5e-4 * result.equity[4]]
    np.testing.assert_allclose(result.financing - result.position_financing[:, 0], idle, rtol=1e-8, atol=1e-16)
    np.testing.assert_allclose(result.cash_returns, 1e-4 * np.arange(6), rtol=1e-12)
    text = legend({"test": {"policy": result}})
    assert "'cash'" in text
    assert "10.9%" in text, "the mean of five days at 1 to 5 times 3.65%"


def test_the_cash_of_several_assets_earns_the_rate_of_one_that_has_a_bar():
    """B is listed late and misses a day: there it would repeat a rate of another day."""
    whole = daily([100.0] * 6).assign(cash=DAY * np.arange(6.0))
    table = {"B": whole.iloc[[1, 2, 4, 5]], "A": whole}
    market = Market.from_bars(load_bars(table), features=["gap"], align=True)
    result = simulate(market, np.zeros((6, 2)), costs=free(cash_rate="cash"))
    np.testing.assert_allclose(result.cash_returns, 1e-4 * np.arange(6), rtol=1e-12)
    np.testing.assert_allclose(result.equity, np.cumprod(1 + 1e-4 * np.arange(6)), rtol=1e-12)
    table["B"] = table["B"] * [1, 1, 1, 1, 1, 2]
    other = Market.from_bars(load_bars(table), features=["gap"], align=True)
    with pytest.raises(ValueError, match=r"cash_rate='cash'`: the column differs between assets at"):
        simulate(other, np.zeros((6, 2)), costs=free(cash_rate="cash"))


@pytest.mark.slow
def test_a_backtest_and_all_that_stands_beside_it_are_financed_by_the_same_columns(rated):
    """A policy that asks for a short, which an environment gives a margin: what it trades under goes along."""
    market = dataclasses.replace(rated, features=np.full((6, 1, 1), -1.0))
    env = TradingEnv(market, positions="continuous", window=4, costs=free(**BY_BAR), rules=Rules(rebalance_band=0.0))
    assert env.rules.maintenance_margin == 0.25
    result = backtest(Policy(HalfTheSignal(), NoState(), about(env)), market)
    np.testing.assert_allclose(result.exposure[:, 0], [0, -0.5, -0.5])
    alone = simulate(market, result.targets, costs=env.costs, rules=env.rules, start=3)
    for name in ("position_financing", "position_financing_after_open", "financing", "cash_returns"):
        np.testing.assert_allclose(getattr(result, name), getattr(alone, name), rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(result.cash_returns, [0, 4e-4, 5e-4], rtol=1e-12)
    np.testing.assert_allclose(result.position_financing[2, 0], -3e-4 * 0.5 * result.equity[1], rtol=1e-9)
    beside = baselines(market, result) | strategies(market, result)
    np.testing.assert_allclose(beside[CASH].excess_returns, 0, atol=1e-15)
    # The return is compounded: 4e-4 and 5e-4 make 9.002e-4.
    assert beside[CASH].metrics["cash_return"] == pytest.approx(9e-4, rel=1e-3)
    assert np.abs(beside[BUY_AND_HOLD].position_financing).max() < 1e-15, "nothing is bought on credit"
    assert combine({"X": result}).position_financing_after_open.shape == (3, 1)


def test_the_timing_test_is_of_returns_over_cash():
    """Members of unequal length, and rates of cash that are larger than what the prices do."""
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.01, BARS)))
    whole = daily(prices).assign(cash=np.linspace(0.5, 1.5, BARS) * RATES["cash_rate"])
    market = market_of({"A": whole, "B": whole.iloc[20:]})
    costs = Costs(cash_rate="cash")
    own = {
        symbol: simulate(market, np.resize([0.5, 0.0, 1.0], end - first), costs=costs, symbol=symbol)
        for symbol, (_, first, end) in zip(market.symbols, market.segments, strict=True)
    }
    total = combine(own)
    found, over = timing_test(market, total, rotations=2), total.excess_returns
    assert found.sharpe == pytest.approx(over.mean() / over.std(ddof=1), rel=1e-9)
