"""What stood in a bar counts as exposure and time in market, also where nothing of it was left at the close."""

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import market_of, random_table

from jaxtrader.evaluation.baselines import exposure_matched
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

NO_COSTS, HOLD = Costs(fee=0.0, slippage=0.0), np.nan


def table(opens, lows=None, closes=None, freq="D", begin="2024-01-01"):
    opens = np.asarray(opens, float)
    closes = opens if closes is None else np.asarray(closes, float)
    lows = np.minimum(opens, closes) if lows is None else np.asarray(lows, float)
    prices = {"open": opens, "high": np.maximum(opens, closes), "low": lows, "close": closes, "volume": 1.0}
    return pd.DataFrame(prices, index=pd.date_range(begin, periods=len(opens), freq=freq))


def run(bars, targets, stop_loss=np.inf, **rules):
    market = market_of(bars, symbol="X", periods_per_year=365)
    levels = {"stop_loss": stop_loss, "take_profit": np.inf}  # of one kind in all tests, which are compiled once
    return simulate(market, targets, costs=NO_COSTS, **levels, rules=Rules(**{"rebalance_band": 0.0} | rules))


def test_a_position_that_was_stopped_in_the_bar_of_its_entry_was_held():
    """Half is bought at 100 at bar 1's open. The low of 90 stops it at 95: 0.475 of an equity of 0.975."""
    result = run(table([100] * 4, lows=[100, 90, 100, 100]), [0.5, 0, 0, 0], stop_loss=0.05)
    assert result.fills["bar"].tolist() == [1, 1]
    assert (result.exposure == 0).all()
    np.testing.assert_allclose(result.intrabar_exposure[:, 0], [0, 0.475 / 0.975, 0, 0], rtol=1e-13)
    assert result.metrics["time_in_market"] == 0.25
    assert result.metrics["mean_exposure"] == pytest.approx(0.475 / 0.975 / 4, rel=1e-13)


def test_a_position_counts_from_the_bar_of_its_entry_to_the_bar_in_which_it_was_stopped():
    result = run(table([100] * 6, lows=[100, 100, 100, 94, 100, 100]), [1, HOLD, HOLD, 0, 0, 0], stop_loss=0.05)
    assert result.fills["bar"].tolist() == [1, 3]
    np.testing.assert_allclose(result.intrabar_exposure[:, 0], [0, 1, 1, 1, 0, 0], rtol=1e-13)


@pytest.mark.parametrize("stop_loss", [np.inf, 0.05])
def test_what_is_sold_at_an_open_was_not_held_in_that_bar(stop_loss):
    """By an order at the open of bar 3, or by a stop that the open of bar 3 has passed."""
    gap, last = (100, 0) if stop_loss == np.inf else (90, HOLD)
    result = run(table([100, 100, 100, gap, gap]), [1, HOLD, last, 0, 0], stop_loss)
    assert result.fills["bar"].tolist() == [1, 3]
    assert (result.intrabar_exposure[:, 0] > 0).tolist() == [False, True, True, False, False]
    np.testing.assert_array_equal(result.intrabar_exposure, result.exposure)


@pytest.mark.parametrize("fill", ["close", "next_close"])
def test_what_fills_at_closes_is_told_by_the_exposure_at_closes(fill):
    """Bought at a close and stopped in the next bar, it stood from one close into the next: one bar."""
    result = run(table([100] * 5, lows=[100, 94, 94, 94, 94]), [1, 0, 1, 0, 0], stop_loss=0.05, fill=fill)
    assert "stop" in result.fills["reason"]
    np.testing.assert_array_equal(result.intrabar_exposure, result.exposure)
    assert result.metrics["time_in_market"] == result.metrics["num_trades"] / 5


def test_what_a_session_end_closes_was_held_up_to_the_close():
    """Sessions of two bars. Each first bar decides to buy, the second buys at its open and is closed at its close."""
    days = pd.bdate_range("2024-01-01", periods=10)
    times = pd.DatetimeIndex(np.concatenate([pd.date_range(f"{d.date()} 14:00", periods=2, freq="h") for d in days]))
    result = run(table([100] * 20).set_axis(times), np.tile([0.5, 0.0], 10), flat_at_session_end=True)
    assert (result.exposure == 0).all()
    np.testing.assert_allclose(result.intrabar_exposure[:, 0], np.tile([0, 0.5], 10), rtol=1e-13)


def test_ruin_in_the_bar_of_the_entry_is_no_exposure_of_a_million():
    """Short 1.0 at 100, closed at 200 with nothing left: measured by the equity before, 2.0 of 1.0."""
    result = run(table([100, 100, 100], closes=[100, 200, 200]), [-1, 0, 0])
    assert result.ruined_at == 1
    np.testing.assert_allclose(result.intrabar_exposure[:, 0], [0, -2, 0], rtol=1e-13)


def test_the_baseline_holds_the_mean_of_what_stood_in_the_bars():
    market = market_of(random_table(3, 60), symbol="X")
    targets, rules = np.arange(60) % 2, Rules(rebalance_band=0.0)
    result = simulate(market, targets, costs=NO_COSTS, stop_loss=0.005, take_profit=0.005, rules=rules)
    bought = result.fills["bar"][(result.fills["reason"] == "order") & (result.fills["units"] > 0)]
    stood = set(bought) | set(np.flatnonzero(result.units[:, 0]))
    assert result.metrics["time_in_market"] == len(stood) / 60
    assert np.mean(np.abs(result.exposure) > 0) < 0.4 * result.metrics["time_in_market"], "most lived inside a bar"
    matched = exposure_matched(market, result)
    assert matched.targets[0, 0] == result.intrabar_exposure.mean()
    # The holder buys once and then drifts.
    assert matched.exposure[1:].mean() == pytest.approx(result.metrics["mean_exposure"], rel=0.02)


def test_a_total_holds_what_its_members_held():
    bars = table([100] * 4, lows=[100, 90, 100, 100])
    one, idle = run(bars, [0.5, 0, 0, 0], stop_loss=0.05), run(bars, 0.0)
    total = combine({"A": one, "B": idle})
    share = one.equity[1] / (one.equity[1] + 1)
    np.testing.assert_allclose(total.intrabar_exposure[1], [0.475 / 0.975 * share, 0], rtol=1e-13)
    assert total.metrics["time_in_market"] == 0.25
