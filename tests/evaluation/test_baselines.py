"""Baselines: closed forms, the same bars and terms as the book beside which they stand, and symbol by symbol."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from jaxtrader.envs.costs import Costs
from jaxtrader.evaluation.baselines import beside, buy_and_hold, exposure_matched
from jaxtrader.evaluation.book import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.bars import load_bars
from jaxtrader.market.features import log_return
from jaxtrader.market.market import Market

COSTS = Costs(fee=0.001, slippage=0.002)
NAMES = ["buy and hold", "buy and hold at mean exposure"]


def frame(seed, bars):
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.03, bars)))
    open_ = close * np.exp(rng.normal(0, 0.02, bars))
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    times = pd.date_range("2020-01-01", periods=bars, freq="D")
    return pd.DataFrame({"open": open_, "high": high, "low": low, "close": close, "volume": 1.0}, index=times)


@pytest.fixture(scope="module")
def market():
    return Market.from_bars(load_bars({"A": frame(1, 100), "B": frame(2, 90)}), [log_return()])


def targets(seed, bars):
    return np.random.default_rng(seed).choice([-0.5, 0.0, 1.0], bars)


def test_one_symbol_over_the_bars_of_its_book(market):
    start = 120  # row 20 of B, which lies on rows 100..189
    book = simulate(market, targets(3, 70), symbol="B", start=start, costs=COSTS, rebalance_band=0.05)
    found = beside(market, book)
    assert list(found) == NAMES
    for baseline in found.values():
        np.testing.assert_array_equal(baseline.times, book.times)
        assert baseline.rules == book.rules
        assert baseline.costs == book.costs
        assert baseline.symbols == ("B",)
    expected = market.close[-1, 0] / market.open[start + 1, 0] / 1.002 / 1.001
    assert found["buy and hold"].equity[-1] == pytest.approx(expected, rel=1e-13)
    mean = book.exposure.mean()
    matched = found["buy and hold at mean exposure"]
    np.testing.assert_array_equal(matched.targets, np.full((70, 1), mean))
    np.testing.assert_array_equal(
        matched.equity,
        simulate(market, mean, symbol="B", start=start, costs=COSTS, rebalance_band=0.05).equity,
    )
    # The band keeps it near its target, so what it held is about what the book held on average.
    assert matched.exposure[1:].mean() == pytest.approx(mean, abs=0.05)
    assert len(matched.fills) < 20


@pytest.mark.parametrize("fill", ["close", "next_close"])
def test_the_same_fill(market, fill):
    book = simulate(market, targets(3, 90), symbol="B", fill=fill, costs=Costs(fee=0.0, slippage=0.0))
    bought = market.close[100 if fill == "close" else 101, 0]
    assert buy_and_hold(market, book).equity[-1] == pytest.approx(market.close[-1, 0] / bought, rel=1e-13)


def test_a_flat_book_is_matched_by_cash(market):
    flat = simulate(market, 0.0, symbol="A", costs=COSTS)
    assert (exposure_matched(market, flat).equity == 1.0).all()
    assert not (buy_and_hold(market, flat).equity == 1.0).all()


def test_a_combined_book_is_matched_symbol_by_symbol(market):
    books = {
        "A": simulate(market, targets(4, 100), symbol="A", costs=COSTS),
        "B": simulate(market, -targets(5, 90), symbol="B", costs=COSTS),
    }
    total = combine(books)
    found = beside(market, total)
    assert list(found) == NAMES
    for baseline in found.values():
        np.testing.assert_array_equal(baseline.times, total.times)
        assert set(baseline.by_symbol) == {"A", "B"}
    for symbol, book in books.items():
        one = found["buy and hold at mean exposure"].by_symbol[symbol]
        assert one.targets[0, 0] == book.exposure.mean()
    # Half of each at its own first open; B ends ten days before A and stays there.
    a, b = (market.close[end, 0] / market.open[start, 0] / 1.002 / 1.001 for start, end in ((1, 99), (101, 189)))
    assert found["buy and hold"].equity[-1] == pytest.approx((a + b) / 2, rel=1e-13)


def test_a_book_of_another_market_is_refused(market):
    book = simulate(market, 0.0, symbol="A")
    other = Market.from_bars(load_bars(frame(1, 100), symbol="Z"), [log_return()])
    with pytest.raises(ValueError, match="the book is of A, and the market has Z"):
        beside(other, book)
    train, _ = market.split(0.5, 0.5)
    with pytest.raises(ValueError, match="not the market's up to its end"):
        beside(train, book)


def test_an_asset_listed_late_is_bought_when_it_is_listed_and_held():
    """Half in A at once; half in B, which begins 30 bars later, at the open after its first bar. No costs."""
    a, b = frame(1, 100), frame(2, 100).iloc[30:]
    market = Market.from_bars(load_bars({"A": a, "B": b}), [log_return()], align=True)
    book = simulate(market, np.zeros((100, 2)), costs=Costs(fee=None, slippage=None))
    held = buy_and_hold(market, book)
    in_a, in_b = 0.5 / a["open"].iloc[1], None
    equity = np.ones(100)
    for t in range(1, 100):
        if t == 31:
            in_b = 0.5 * (0.5 + in_a * a["open"].iloc[t]) / b["open"].iloc[1]
            cash = 0.5 - in_b * b["open"].iloc[1]
        equity[t] = in_a * a["close"].iloc[t] + (0.5 if in_b is None else cash + in_b * b["close"].iloc[t - 30])
    np.testing.assert_allclose(held.equity[:31], equity[:31], rtol=1e-12)
    # B asks for half of all equity, and gets what cash there is.
    if cash >= 0:
        np.testing.assert_allclose(held.equity, equity, rtol=1e-12)
    assert len(held.fills) == 2
    assert held.fills["bar"].tolist() == [1, 31]
