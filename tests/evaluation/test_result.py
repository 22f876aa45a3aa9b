"""BacktestResult: trades and ruin against hand-made cases, the accounts it must add up to, and combining results."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import BARS, busy, daily, market_of

from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bars import load_bars
from jaxtrader.market.market import Market

NAN = math.nan
NO_COSTS = Costs(fee=0.0, slippage=0.0)


def flat_bars(prices, begin="2020-01-01", symbol="X"):
    """A market whose bars open and close at these prices, one a day."""
    return market_of(daily(prices, begin=begin), symbol=symbol, periods_per_year=365)


def random_market(seed=0, volatility=0.05):
    rng = np.random.default_rng(seed)
    return flat_bars(50 * np.exp(np.cumsum(rng.normal(0, volatility, BARS))))


# One price a bar. "close" fills the target of a bar at its own price. Fee 1%, no slippage:   bar 0, 100: buy 0.5: 0.005
# units, fee 0.005, cash 0.495.   bar 1, 120: hold (0.6).   bar 2, 140: E = 0.495 + 0.7 = 1.195, target -0.5 is -0.5975:
# sell 0.7 + 0.5975 = 1.2975, fee 0.012975:       cash 0.495 + 1.2975 - 0.012975 = 1.779525, units -0.5975 / 140.   bar
# 3, 70: short value 0.29875. Buy it back, fee 0.0029875: cash 1.779525 - 0.29875 - 0.0029875 = 1.4777875.   bar 4, 100:
# buy 0.2 E = 0.2955575: fee 0.002955575. bar 5, 110: that is worth 0.32511325. Open at the end.
PRICES = [100, 120, 140, 70, 100, 110]
TARGETS = [0.5, NAN, -0.5, 0.0, 0.2, NAN]


@pytest.fixture(scope="module")
def small():
    return simulate(
        flat_bars(PRICES), TARGETS, costs=Costs(fee=0.01, slippage=0.0), rules=Rules(rebalance_band=0.0, fill="close")
    )


def test_equity_and_fills_by_hand(small):
    open_at_end = 1.4777875 - 0.2955575 - 0.002955575
    expected = [0.995, 1.095, 1.182025, 1.4777875, open_at_end + 0.2955575, open_at_end + 0.32511325]
    np.testing.assert_allclose(small.equity, expected, rtol=1e-14)
    np.testing.assert_array_equal(small.fills["bar"], [0, 2, 3, 4])
    np.testing.assert_allclose(small.fills["units"], [0.005, -1.2975 / 140, 0.29875 / 70, 0.002955575], rtol=1e-14)
    np.testing.assert_allclose(small.fills["fee"], [0.005, 0.012975, 0.0029875, 0.002955575], rtol=1e-14)
    np.testing.assert_allclose(small.fills["position"], [0.005, -0.5975 / 140, 0.0, 0.002955575], rtol=1e-14)
    np.testing.assert_allclose(small.turnover, [0.5, 0, 1.2975 / 1.195, 0.29875 / 1.480775, 0.2, 0], rtol=1e-14)
    np.testing.assert_allclose(small.costs_paid, [0.005, 0, 0.012975, 0.0029875, 0.002955575, 0], rtol=1e-14)
    np.testing.assert_allclose(small.returns[:2], [-0.005, 0.1 / 0.995], rtol=1e-13)
    np.testing.assert_allclose(small.exposure[:2, 0], [0.5 / 0.995, 0.6 / 1.095], rtol=1e-14)


def test_trades_by_hand(small):
    trades = small.trades
    np.testing.assert_array_equal(trades["side"], [1, -1, 1])
    np.testing.assert_array_equal(trades["open"], [False, False, True])
    np.testing.assert_array_equal(trades["entry_time"], small.times[[0, 2, 4]])
    np.testing.assert_array_equal(trades["exit_time"][:2], small.times[[2, 3]])
    assert np.isnat(trades["exit_time"][2])
    np.testing.assert_allclose(trades["entry_price"], [100, 140, 100], rtol=1e-14)
    np.testing.assert_allclose(trades["exit_price"], [140, 70, NAN], rtol=1e-14)
    np.testing.assert_allclose(trades["units"], [0.005, 0.5975 / 140, 0.002955575], rtol=1e-14)
    # The fee of the flip is shared as 0.7 to 0.5975: 0.007 closes the long, 0.005975 opens the short.
    np.testing.assert_allclose(trades["costs"], [0.012, 0.005975 + 0.0029875, 0.002955575], rtol=1e-13)
    pnl = [0.2 - 0.012, 0.29875 - 0.0089625, 0.02955575 - 0.002955575]
    np.testing.assert_allclose(trades["pnl"], pnl, rtol=1e-12)
    np.testing.assert_allclose(trades["return"], np.array(pnl) / [0.5, 0.5975, 0.2955575], rtol=1e-12)
    np.testing.assert_array_equal(trades["bars"], [2, 1, 1])
    assert small.metrics["num_trades"] == 3
    assert small.metrics["win_rate"] == 1.0
    assert small.metrics["num_fills"] == 4
    assert small.metrics["total_return"] == pytest.approx(small.equity[-1] - 1, rel=1e-14)


def test_entry_and_exit_prices_are_averages_over_the_trade():
    # 0.2 E at 100: 0.002 units. At 200, E = 1.2: 0.5 E = 0.6 is 0.003 units (+0.001). At 100, E = 0.9: 0.2 E is 0.0018
    # (-0.0012). At 150 flat (-0.0018). Entries (0.2 + 0.2) / 0.003. Exits (0.12 + 0.27) / 0.003.
    result = simulate(
        flat_bars([100, 200, 100, 150, 1, 1]),
        [0.2, 0.5, 0.2, 0, 0, 0],
        costs=NO_COSTS,
        rules=Rules(rebalance_band=0.0, fill="close"),
    )
    (trade,) = result.trades
    assert trade["units"] == pytest.approx(0.003, rel=1e-13)
    assert trade["entry_price"] == pytest.approx(0.4 / 0.003, rel=1e-13)
    assert trade["exit_price"] == pytest.approx(0.39 / 0.003, rel=1e-13)
    assert trade["pnl"] == pytest.approx(-0.01, rel=1e-12)
    assert result.metrics["win_rate"] == 0.0


def test_no_fill_is_no_trade_and_no_win_rate():
    result = simulate(flat_bars(PRICES), 0.0)
    assert len(result.trades) == len(result.fills) == 0
    assert math.isnan(result.metrics["win_rate"])
    assert result.metrics["total_return"] == 0.0


@pytest.mark.parametrize("volatility", [0.05, 0.6])
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_the_result_adds_up(fill, volatility):
    """Equity from the fills alone. What all trades gained is what the account gained. Costs add up three ways."""
    market = random_market(4, volatility=volatility)
    result = simulate(
        market, busy(4), costs=Costs(fee=0.002, slippage=0.001), rules=Rules(rebalance_band=0.0, fill=fill)
    )
    fills, bars = result.fills, len(result)
    paid = np.bincount(fills["bar"], fills["units"] * fills["price"] + fills["fee"] + fills["slippage"], bars)
    units = np.cumsum(np.bincount(fills["bar"], fills["units"], bars))
    np.testing.assert_allclose(1 - np.cumsum(paid) + units * market.close[:, 0], result.equity, rtol=1e-11, atol=1e-12)
    assert result.trades["pnl"].sum() == pytest.approx(result.equity[-1] - 1, rel=1e-11)
    assert result.trades["costs"].sum() == pytest.approx(result.costs_paid.sum(), rel=1e-12)
    alive = int(np.argmin(result.equity > 0)) or bars  # no return follows on an equity of 0 or less
    np.testing.assert_allclose(np.cumprod(1 + result.returns[:alive]), result.equity[:alive], rtol=1e-9)
    # Signs change only from one trade to the next.
    side = np.sign(result.units[:, 0])
    changes = np.flatnonzero((side != np.concatenate([[0], side[:-1]])) & (side != 0))
    np.testing.assert_array_equal(result.trades["entry_time"][: len(changes)], result.times[changes])
    assert len(result.trades) >= 10


def test_an_account_gains_what_its_trades_and_the_financing_say():
    """Half long at 100, sold at 120. The cash of 0.5 earns 10% a year: 0.5 * 0.1 / 365 a day, and that its interest."""
    rates = Costs(fee=None, slippage=None, cash_rate=0.1, borrow_rate=0.2, short_rate=0.2)
    result = simulate(
        flat_bars([100, 110, 120]), [0.5, NAN, 0.0], costs=rates, rules=Rules(rebalance_band=0.0, fill="close")
    )
    first = 0.5 * 0.1 / 365
    second = (0.5 + first) * 0.1 / 365
    np.testing.assert_allclose(result.financing, [0, first, second], rtol=1e-13)
    np.testing.assert_allclose(result.trades["pnl"], [0.1], rtol=1e-13)
    assert result.equity[-1] - 1 == pytest.approx(0.1 + first + second, rel=1e-13)

    funding = np.random.default_rng(6).normal(0, 1e-3, (120, 1))
    market = dataclasses.replace(random_market(4), funding=funding)
    dear = dataclasses.replace(rates, fee=0.002, slippage=0.001)
    levered = simulate(market, busy(4), costs=dear, rules=Rules(rebalance_band=0.0, max_leverage=2.0))
    total = combine(
        {"A": levered, "B": simulate(market, -busy(5), costs=dear, rules=Rules(rebalance_band=0.0, max_leverage=2.0))}
    )
    for result in (levered, total):
        assert abs(result.financing.sum()) > 1e-3
        assert result.trades["pnl"].sum() + result.financing.sum() == pytest.approx(result.equity[-1] - 1, rel=1e-11)


def test_ruined_at_a_mark_is_a_forced_fill_and_ignored_targets_count_later_ones():
    # Short 1.0 at 100: 0.01 units, cash 1.99. At 200 that is -0.01. Bought back there at a fee of 1% of 2: -0.03.
    fee = Costs(fee=0.01, slippage=0.0)
    result = simulate(
        flat_bars([100, 200, 50, 50, 50, 50]),
        [-1, NAN, 1, 1, NAN, NAN],
        costs=fee,
        rules=Rules(rebalance_band=0.0, fill="close"),
    )
    assert result.ruined_at == 1
    np.testing.assert_allclose(result.equity, [0.99] + [-0.03] * 5, rtol=1e-10)
    np.testing.assert_array_equal(result.fills["forced"], [False, True])
    np.testing.assert_array_equal(result.fills["bar"], [0, 1])
    assert result.ignored_targets == 2
    assert (result.units[1:] == 0).all()
    assert (result.exposure[1:] == 0).all()
    assert np.isfinite(result.turnover).all()
    assert "ruined at bar 1" in repr(result)
    assert result.metrics["total_return"] == pytest.approx(-1.03, rel=1e-10)


def test_ruined_at_a_fill_and_at_the_mark_just_after_an_order():
    ruined_at_open = simulate(flat_bars([100, 100, 200]), [-1.0, 1.0, 1.0], costs=NO_COSTS)
    assert ruined_at_open.ruined_at == 2
    np.testing.assert_array_equal(ruined_at_open.fills["forced"], [False, True])
    assert ruined_at_open.ignored_targets == 1
    # The order of bar 0 fills at the open of bar 1 and ruins at its close: two fills in one bar, the second forced.
    market = market_of(daily([100, 100, 50], [100, 200, 50]), periods_per_year=365)
    result = simulate(market, [-1.0, 1.0, 1.0], costs=NO_COSTS)
    np.testing.assert_array_equal(result.fills["bar"], [1, 1])
    np.testing.assert_array_equal(result.fills["price"], [100, 200])
    np.testing.assert_array_equal(result.fills["forced"], [False, True])
    np.testing.assert_allclose(result.fills["position"], [-0.01, 0])
    np.testing.assert_allclose(result.trades["pnl"], [-1.0])
    assert result.equity[-1] == pytest.approx(0.0, abs=1e-15)


def test_to_frame_has_a_row_a_bar(small):
    frame = small.to_frame()
    assert list(frame) == ["equity", "return", "turnover", "costs", "financing", "exposure", "units", "target"]
    assert str(frame.index.tz) == "UTC"
    np.testing.assert_array_equal(frame["equity"], small.equity)
    np.testing.assert_array_equal(frame["target"], TARGETS)
    assert repr(small) == "BacktestResult(X: 6 bars 2020-01-01..2020-01-06, 1 became 1.504 in 3 trades)"


def test_all_tables_show_the_zone_of_the_market_and_their_days_are_of_it():
    days = pd.date_range("2020-01-06", periods=4, tz="Asia/Tokyo")
    prices = {name: [100.0, 100, 110, 120] for name in ("open", "high", "low", "close")}
    market = Market.from_bars(load_bars(pd.DataFrame(prices, index=days), symbol="X"), features=["gap"])
    assert "2020-01-06 to 2020-01-09" in market.describe()
    assert market.split("2020-01-08")[0].segments[0, 2] == 2
    total = combine({"X": simulate(market, [1, 0, 0, 0], costs=NO_COSTS)})
    for result in (total, total.by_symbol["X"]):
        bars, fills, trades = (result.to_frame(table) for table in ("bars", "fills", "trades"))
        assert bars.index.equals(days.rename("time").as_unit("ns"))
        assert (bars.index.tz, fills["time"].dt.tz) == (trades["entry_time"].dt.tz, trades["exit_time"].dt.tz)
        assert bars.loc[trades["entry_time"], "units"].tolist() == [0.01]
        assert result.days == ("2020-01-06", "2020-01-09")
        np.testing.assert_array_equal(fills["units"], result.fills["units"])
    coin = load_bars(pd.DataFrame(prices, index=pd.date_range("2020-01-06", periods=4)), symbol="COIN")
    both = Market.from_bars([coin, load_bars(pd.DataFrame(prices, index=days), symbol="X")], features=["gap"])
    results = simulate(both, {"X": [1, 0, 0, 0], "COIN": 0.0}, costs=NO_COSTS)
    assert [str(results[symbol].to_frame().index.tz) for symbol in ("X", "COIN")] == ["Asia/Tokyo", "UTC"]
    assert combine(dict(results)).tz is None
    with pytest.raises(ValueError, match="'orders'; take bars, fills or trades"):
        total.to_frame("orders")


# --- combine ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    """A: days 1-4, long all of it at 100 free of cost. B: days 2-6, half long. B begins later, A ends earlier."""
    a = simulate(flat_bars([100, 110, 120, 150]), 1.0, costs=NO_COSTS, rules=Rules(rebalance_band=0.0, fill="close"))
    b = simulate(
        flat_bars([10, 20, 20, 10, 10], begin="2020-01-02", symbol="Y"),
        [0.5, NAN, NAN, 0, NAN],
        costs=NO_COSTS,
        rules=Rules(rebalance_band=0.0, fill="close"),
    )
    return combine({"A": a, "B": b})


def test_combine_by_hand(pair):
    # A: 1, 1.1, 1.2, 1.5, then stays. B: cash on day 1, then 1, 1.5, 1.5, 1, 1.
    np.testing.assert_allclose(pair.equity, [1, 1.05, 1.35, 1.5, 1.25, 1.25], rtol=1e-14)
    assert len(pair.times) == 6
    assert (np.diff(pair.times) > 0).all()
    # Position values: A 0.5, 0.55, 0.6, 0.75, out of the market. B 0, 0.25, 0.5, 0.5, sold, 0.
    values = np.array([[0.5, 0.55, 0.6, 0.75, 0, 0], [0, 0.25, 0.5, 0.5, 0, 0]]).T
    np.testing.assert_allclose(pair.exposure, values / pair.equity[:, None], rtol=1e-14)
    # Traded: A 1.0 of its half on day 1. B half of its half on day 2. On day 5 0.5 of B's 1.0, which was half of the
    # total the day before.
    np.testing.assert_allclose(pair.turnover, [0.5, 0.25, 0, 0, 0.25, 0], rtol=1e-14)
    np.testing.assert_allclose(pair.fills["units"], [0.005, 0.025, -0.025], rtol=1e-14)
    np.testing.assert_array_equal(pair.fills["bar"], [0, 1, 4])
    np.testing.assert_array_equal(pair.fills["symbol"], ["X", "Y", "Y"])
    assert set(pair.by_symbol) == {"A", "B"}
    assert pair.trades["pnl"].sum() == pytest.approx(pair.equity[-1] - 1, rel=1e-13)
    np.testing.assert_array_equal(pair.trades["open"], [True, False])
    assert pair.metrics["num_trades"] == 2
    assert pair.periods_per_year == 365
    assert pair.ruined_at is None
    assert list(pair.to_frame())[-3:] == ["exposure Y", "units Y", "target Y"]
    np.testing.assert_array_equal(np.isnan(pair.targets[:, 1]), [True, False, True, True, False, True])


def test_a_gap_in_one_calendar_keeps_the_position():
    a = simulate(flat_bars([100, 100, 100]), 1.0, costs=NO_COSTS, rules=Rules(rebalance_band=0.0, fill="close"))
    market = flat_bars([10, 20, 30], symbol="Y")
    times = market.times[[0, 2, 2]].copy()
    times[2] += np.timedelta64(1, "D")
    object.__setattr__(market, "times", times)  # days 1, 3, 4: day 2 is missing
    total = combine({"A": a, "B": simulate(market, 1.0, costs=NO_COSTS, rules=Rules(rebalance_band=0.0, fill="close"))})
    np.testing.assert_allclose(total.equity, [1, 1, 1.5, 2], rtol=1e-14)
    np.testing.assert_allclose(total.exposure[:, 1], [0.5, 0.5, 2 / 3, 0.75], rtol=1e-14)


def test_combine_of_one_is_that_one(small):
    total = combine({"X": small})
    for name in ("equity", "exposure", "units", "turnover", "costs_paid", "returns"):
        np.testing.assert_allclose(getattr(total, name), getattr(small, name), rtol=1e-14, err_msg=name)
    assert total.metrics == pytest.approx(small.metrics, rel=1e-12, nan_ok=True)


def test_a_combined_result_has_ruined_at_only_when_every_member_has():
    ruined = simulate(
        flat_bars([100, 200, 50, 50, 50, 50]), -1.0, costs=NO_COSTS, rules=Rules(rebalance_band=0.0, fill="close")
    )
    sound = simulate(
        flat_bars([100, 200, 50, 50, 50, 50], symbol="Y"),
        0.0,
        costs=NO_COSTS,
        rules=Rules(rebalance_band=0.0, fill="close"),
    )
    assert combine({"A": ruined, "B": sound}).ruined_at is None
    assert combine({"A": ruined, "B": ruined}).ruined_at == 1
    assert combine({"A": ruined, "B": sound}).ignored_targets == ruined.ignored_targets == 5


def test_what_cannot_be_combined_is_refused(small):
    with pytest.raises(ValueError, match="at least one result"):
        combine({})
    other = simulate(flat_bars(PRICES), TARGETS, costs=NO_COSTS, rules=Rules(rebalance_band=0.0, fill="close"))
    with pytest.raises(ValueError, match="same rules and costs"):
        combine({"A": small, "B": other})
