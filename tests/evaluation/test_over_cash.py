"""Returns over cash: what the ledger pays on cash, in a Sharpe ratio, in a total and in the matched baseline."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import busy, daily, market_of, random_table

from jaxtrader.evaluation.baselines import baselines
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

RATE = 0.05
RULES, GEARED = Rules(rebalance_band=0.0), Rules(rebalance_band=0.0, max_leverage=2.0)
HOLD = np.nan


def costs(**given):
    """Free trades, and these rates. All rates are numbers in all tests, which are then compiled once."""
    return Costs(**{"fee": 0.0, "slippage": 0.0, "cash_rate": 0.0, "borrow_rate": 0.0, "short_rate": 0.0} | given)


INTEREST = costs(cash_rate=RATE)


def flat(times, begin=100.0):
    """A market of constant prices at these times."""
    prices = pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), begin), index=times)
    return market_of(prices.assign(volume=1.0), symbol="X")


@pytest.mark.parametrize(
    "times",
    [
        pd.bdate_range("2020-01-01", periods=60),  # weekends
        pd.date_range("2020-01-01", periods=60, freq="h"),
        pd.DatetimeIndex(
            np.concatenate([pd.date_range(f"2024-01-0{d} 14:31", periods=30, freq="min") for d in (2, 3)])
        ),
    ],
)
def test_an_account_in_cash_earns_nothing_over_cash(times):
    result = simulate(flat(times), 0.0, costs=INTEREST, rules=RULES)
    assert result.equity[-1] > 1
    np.testing.assert_allclose(result.excess_returns, 0, atol=1e-15)
    assert math.isnan(result.metrics["sharpe"])
    assert math.isnan(result.metrics["sortino"])
    assert result.metrics["cash_return"] == pytest.approx(result.metrics["total_return"], rel=1e-10)


def test_the_sharpe_ratio_is_of_returns_less_the_rate_for_each_bars_calendar_time():
    times = pd.bdate_range("2020-01-01", periods=60)
    market = market_of(random_table(1, 60).set_axis(times), symbol="X")
    result = simulate(market, busy(1, 60), costs=INTEREST, rules=RULES)
    days = np.diff(times, prepend=times[:1]) / np.timedelta64(1, "D")
    assert set(days) == {0, 1, 3}
    over = np.diff(result.equity, prepend=1.0) / np.append(1.0, result.equity[:-1]) - RATE * days / 365
    expected = over.mean() / over.std(ddof=1) * math.sqrt(market.periods_per_year)
    assert result.metrics["sharpe"] == pytest.approx(expected, rel=1e-10)
    assert result.metrics["period_sharpe"] == pytest.approx(over.mean() / over.std(ddof=1) * math.sqrt(60), rel=1e-10)


def test_in_a_total_capital_that_waits_is_owed_no_interest():
    """One account is there from the start, the other for the last month: the total earns what cash does."""
    long, short = (pd.date_range(begin, "2022-02-28", freq="D") for begin in ("2022-01-01", "2022-02-01"))
    members = {
        name: simulate(flat(times), 0.0, costs=INTEREST, rules=RULES) for name, times in (("A", long), ("B", short))
    }
    total = combine(members)
    np.testing.assert_allclose(total.excess_returns, 0, atol=1e-15)
    assert math.isnan(total.metrics["sharpe"])
    grown = [member.equity[-1] for member in members.values()]
    assert total.equity[-1] == pytest.approx(np.mean(grown), rel=1e-13)


def test_the_baseline_at_the_same_exposure_earns_interest_on_its_cash_as_the_policy_does():
    """Constant prices: half is held by both, so that they earn the same interest, and no ratio over cash."""
    times = pd.bdate_range("2020-01-01", periods=60)
    market = flat(times)
    result = simulate(market, 0.5, costs=INTEREST, rules=RULES)
    found = baselines(market, result)
    matched = found["buy and hold at mean exposure"]
    days = np.diff(times) / np.timedelta64(1, "D")
    for one in (result, matched):
        cash = one.equity - one.units[:, 0] * 100
        np.testing.assert_allclose(one.financing[1:], RATE * days / 365 * cash[:-1], rtol=1e-10)
    # The mean exposure counts bar 0, at which nothing is held yet: 59 / 60 of a half.
    assert matched.financing.sum() == pytest.approx(result.financing.sum(), rel=0.02)
    assert matched.costs == result.costs
    held = found["buy and hold"]
    assert held.financing.sum() < 1e-3, "all of its cash was spent"
    assert held.metrics["cash_return"] == matched.metrics["cash_return"] == result.metrics["cash_return"]


def test_returns_and_metrics_agree_where_no_capital_is_left():
    """Short 1.0 at 100 is ruined at 250 with a debt of 0.5: no return exists on it."""
    result = simulate(market_of(daily([100, 100, 250, 250, 250]), symbol="X"), -1.0, costs=costs(), rules=RULES)
    assert result.equity[-1] == pytest.approx(-0.5)
    np.testing.assert_array_equal(np.isnan(result.returns), [False, False, False, True, True])
    assert np.isnan(result.to_frame()["return"]).sum() == 2
    for name in ("sharpe", "sortino", "volatility", "best_bar", "positive_bars"):
        assert math.isnan(result.metrics[name]), name


# --- what holding costs ---


def test_a_win_before_position_financing_may_be_a_loss_after_it():
    """Half long at 100, sold at 101: a profit of 0.005. Funding takes 2% of 0.5. The cash earns interest besides.

    Then half of what there is buys at 101 and sells at 121.2, a fifth higher, free of funding.
    """
    market = market_of(daily([100, 100, 100, 101, 101, 121.2]), symbol="X", periods_per_year=365)
    market = dataclasses.replace(market, funding=np.array([0, 0, 0.02, 0, 0, 0])[:, None])
    result = simulate(market, [0.5, HOLD, 0, 0.5, 0, 0], costs=INTEREST, rules=RULES)
    assert result.fills["bar"].tolist() == [1, 3, 4, 5]
    paid = 0.02 * result.units[1, 0] * 100
    assert paid == pytest.approx(0.01, rel=2e-4)  # a day's interest was there before the fill
    np.testing.assert_allclose(result.trades["financing"], [-paid, 0], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(result.position_financing[:, 0], [0, 0, -paid, 0, 0, 0], rtol=1e-12, atol=1e-16)
    lost, gained = result.trades["pnl"] + result.trades["financing"]
    assert result.trades["pnl"][0] == pytest.approx(paid / 2)
    assert gained == pytest.approx(0.2 * 0.5 * result.equity[3], rel=1e-3)  # and a day's interest
    assert result.metrics["win_rate"] == 0.5
    assert result.metrics["profit_factor"] == pytest.approx(-gained / lost, rel=1e-9)
    assert result.metrics["mean_trade_bars"] == result.metrics["mean_trade_days"] == 1.5


@pytest.mark.parametrize(
    ("target", "rates", "paid"),
    [
        (-0.5, {"short_rate": 0.365}, [0.5e-3, 0.5e-3]),
        (1.5, {"borrow_rate": 0.365}, [0.5e-3, 0.5e-3 + 0.5e-6]),  # of the debt and its interest
    ],
)
def test_shorts_pay_their_fee_and_longs_on_credit_the_interest_on_debt(target, rates, paid):
    market = market_of(daily([100.0] * 5), symbol="X", periods_per_year=365)
    result = simulate(market, [target, HOLD, 0, 0, 0], costs=costs(**rates), rules=GEARED)
    np.testing.assert_allclose(result.position_financing[:, 0], [0, 0, *np.negative(paid), 0], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(result.trades["financing"], [-sum(paid)], rtol=1e-12)
    assert result.metrics["win_rate"] == result.metrics["profit_factor"] == 0


def test_the_position_financing_of_a_portfolio_is_what_its_assets_were_charged():
    """Long A pays funding and short B gets it and pays its fee. Cash earns besides, and belongs to no asset."""
    frames = {name: daily([100.0] * 30) for name in "AB"}
    market = market_of(frames, align=True)
    market = dataclasses.replace(market, funding=np.full((30, 2), 0.001))
    rates = costs(cash_rate=RATE, short_rate=0.365)
    targets = np.vstack([[[0.4, -0.2]], np.full((29, 2), HOLD)])
    result = simulate(market, targets, costs=rates, rules=RULES)
    held, stamped = (result.units[rows] * 100 for rows in (slice(None, -1), slice(1, None)))
    np.testing.assert_allclose(result.position_financing[1:, 0], -0.001 * stamped[:, 0], rtol=1e-10)
    np.testing.assert_allclose(result.position_financing[1:, 1], 0.001 * (held - stamped)[:, 1], atol=1e-12)
    cash = result.equity - (result.units * 100).sum(1)
    idle = RATE / 365 * (cash - 100 * np.maximum(-result.units, 0).sum(1))[:-1]
    np.testing.assert_allclose(result.financing[1:], result.position_financing[1:].sum(1) + idle, rtol=1e-10)
    np.testing.assert_allclose(
        sorted(result.trades["financing"]), sorted(result.position_financing.sum(0)), rtol=1e-10, atol=1e-12
    )


def test_all_trades_and_the_interest_on_cash_are_what_the_account_gained():
    market = dataclasses.replace(market_of(random_table(4, 60), symbol="X"), funding=np.full((60, 1), 2e-4))
    rates = costs(fee=0.002, slippage=0.001, cash_rate=0.1, borrow_rate=0.2, short_rate=0.2)
    result = simulate(market, 2 * busy(4, 60), costs=rates, rules=GEARED)
    total = combine({"A": result, "B": simulate(market, -busy(5, 60), costs=rates, rules=GEARED)})
    for one in (result, total):
        parts = one.by_symbol.values() or [one]
        idle = sum((part.financing - part.position_financing.sum(1)).sum() for part in parts) / len(parts)
        gained = one.trades["pnl"].sum() + one.trades["financing"].sum() + idle
        assert gained == pytest.approx(one.equity[-1] - 1, rel=1e-10)
        assert one.trades["financing"].sum() == pytest.approx(one.position_financing.sum(), rel=1e-10)
