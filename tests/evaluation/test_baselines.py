"""Baselines: closed forms, the same bars and terms as the book beside which they stand, and symbol by symbol."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jaxtrader.envs.costs import Costs
from jaxtrader.evaluation.baselines import beside, break_even, buy_and_hold, exposure_matched
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
        assert baseline.costs == book.costs
        assert baseline.symbols == ("B",)
    expected = market.close[-1, 0] / market.open[start + 1, 0] / 1.002 / 1.001
    assert found["buy and hold"].equity[-1] == pytest.approx(expected, rel=1e-13)
    mean = book.exposure.mean()
    matched = found["buy and hold at mean exposure"]
    assert matched.rules == book.rules
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


@pytest.mark.parametrize("leverage", [1.0, 2.0])
@pytest.mark.parametrize("seed", [1, 5])
def test_assets_listed_late_are_bought_when_they_are_listed_for_what_was_kept_for_them(seed, leverage):
    """A third in A at once, B and C after 30 and 60 bars, at the opens after their first. No costs, nothing on credit.

    An order is a share of equity, decided at a close: at the next open it buys for that share of equity there.
    """
    a, b, c = frame(seed, 100), frame(2, 100).iloc[30:], frame(3, 100).iloc[60:]
    market = Market.from_bars(load_bars({"A": a, "B": b, "C": c}), [log_return()], align=True)
    book = simulate(market, np.zeros((100, 3)), costs=Costs(fee=None, slippage=None), max_leverage=leverage)
    held = buy_and_hold(market, book)
    frames, cash, units, equity = (a, b, c), 1.0, [0.0, 0.0, 0.0], np.ones(100)
    worth = lambda column, t: sum(u * f[column].iloc[t - 100 + len(f)] for u, f in zip(units, frames, strict=True) if u)  # noqa: E731
    for t in range(1, 100):
        for i, listed in enumerate((0, 30, 60)):
            if t == listed + 1:
                share = cash / (cash + worth("close", t - 1)) / (3 - i)
                spent = min(share * (cash + worth("open", t)), cash)
                units[i], cash = spent / frames[i]["open"].iloc[t - listed], cash - spent
        equity[t] = cash + worth("close", t)
    np.testing.assert_allclose(held.equity, equity, rtol=1e-12)
    assert held.fills["bar"].tolist() == [1, 31, 61]
    assert (held.exposure.sum(1) < 1 + 1e-12).all()


def test_an_order_that_still_waits_has_its_part_already():
    """A is ordered at bar 0 and filled at bar 4, B ordered at bar 2: half each, as if A had been bought."""
    a, b = frame(1, 20), frame(2, 20).iloc[2:]
    market = Market.from_bars(load_bars({"A": a, "B": b}), [log_return()], align=True)
    book = simulate(market, np.zeros((20, 2)), costs=Costs(fee=None, slippage=None), delay=3)
    held = buy_and_hold(market, book)
    assert (held.targets[0, 0], held.targets[2, 1]) == (0.5, 0.5)
    assert held.fills["bar"].tolist() == [4, 6]


def test_under_impact_it_is_ordered_as_soon_as_there_is_a_volume_to_size_by():
    """No volume on two days of 300: an order decided on the first would be dropped, and the holder stay in cash."""
    bars = frame(1, 300)
    bars.iloc[:2, bars.columns.get_loc("volume")] = 0.0
    market = Market.from_bars(load_bars(bars, symbol="A"), [log_return()])
    costs = Costs(fee=0.0, slippage=0.0, impact=0.1)
    book = simulate(market, 0.0, costs=costs, capital=1.0)
    held = buy_and_hold(market, book)
    assert held.fills["bar"].tolist() == [3]
    assert held.dropped == 0


def daily(opens, closes):
    times = pd.date_range("2020-01-01", periods=len(opens), freq="D")
    opens, closes = np.asarray(opens, float), np.asarray(closes, float)
    prices = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes), "close": closes}
    return pd.DataFrame(prices | {"volume": np.arange(len(opens)) + 1.0}, index=times)


def test_a_holder_sleeps_over_the_end_of_a_session():
    """Ten days of four hours, 100 to 139 and a book that is flat every night: bought at the second bar, at 101."""
    days = pd.bdate_range("2024-01-01", periods=10)
    times = pd.DatetimeIndex(np.concatenate([pd.date_range(f"{d.date()} 14:00", periods=4, freq="h") for d in days]))
    prices = np.arange(100.0, 140)
    columns = dict.fromkeys(("open", "high", "low", "close"), prices) | {"volume": 1.0}
    market = Market.from_bars(load_bars(pd.DataFrame(columns, index=times), symbol="X"), [log_return()])
    book = simulate(market, 0.5, costs=COSTS, flat_at_session_end=True, rebalance_band=0.05)
    assert (book.units[market.session_end] == 0).all()
    held = buy_and_hold(market, book)
    assert held.equity[-1] == pytest.approx(139 / 101 / 1.002 / 1.001, rel=1e-13)
    assert len(held.fills) == 1
    assert held.rules == dataclasses.replace(book.rules, flat_at_session_end=False, rebalance_band=0.0)
    matched = exposure_matched(market, book)
    mean = book.exposure.mean()  # three bars of four
    assert (matched.units[1:] > 0).all()
    assert matched.exposure[1:].mean() == pytest.approx(mean, abs=0.05)


def test_a_holder_s_order_is_not_cut_to_the_volume_nor_dropped_for_its_size_or_the_band():
    """1,000 of capital where a bar trades some 100: bought at 11, whole, as at any size. Then 15 / 11."""
    market = Market.from_bars(load_bars(daily(range(10, 16), range(10, 16)), symbol="X"), [log_return()])
    rules = {"capital": 1_000.0, "volume_cap": 0.5, "min_trade": 2_000.0, "rebalance_band": 0.9}
    book = simulate(market, 0.5, costs=Costs(fee=None, slippage=None), **rules)
    held = buy_and_hold(market, book)
    assert held.equity[-1] == pytest.approx(15 / 11, rel=1e-13)
    parts = [load_bars(daily(range(10, 16), range(10, 16)), symbol=name) for name in "AB"]
    market = Market.from_bars(parts, [log_return()], align=True)
    book = simulate(market, 0.0, costs=Costs(fee=None, slippage=None), rebalance_band=0.6)
    held = buy_and_hold(market, book)
    assert held.equity[-1] == pytest.approx(15 / 11, rel=1e-13), "half is within the band, and still bought"


@pytest.mark.parametrize("rebalance", ["always", "on_change"])
def test_an_order_that_would_meet_a_missing_bar_is_given_until_it_is_filled(rebalance):
    """B is listed on day 2, and has no bar on days 4 and 5 (an order with a delay of a bar would fill on day 4).

    A: half at day 2's open, 12: 0.5 / 12 units. B: all that is left, 0.5, at day 6's open, which is 8.
    """
    a, b = daily(range(10, 20), [10, *[12] * 9]), daily([1, 1, 4, 5, 0, 0, 8, 9, 9, 9], [1, 1, 4, 5, 0, 0, 8, 8, 8, 16])
    market = Market.from_bars(
        [load_bars(a, symbol="A"), load_bars(b.iloc[[2, 3, 6, 7, 8, 9]], symbol="B")], [log_return()], align=True
    )
    rules = {"delay": 1, "rebalance": rebalance}
    book = simulate(market, np.zeros((10, 2)), costs=Costs(fee=None, slippage=None), **rules)
    held = buy_and_hold(market, book)
    assert held.fills["bar"].tolist() == [2, 6]
    assert held.fills["symbol"].tolist() == ["A", "B"]
    np.testing.assert_allclose(held.units[-1], [0.5 / 12, 0.5 / 8], rtol=1e-13)
    assert held.equity[-1] == pytest.approx(0.5 + 1.0, rel=1e-13)
    matched = exposure_matched(market, simulate(market, 0.5, costs=Costs(fee=None, slippage=None), **rules))
    assert set(matched.fills["symbol"]) == {"A", "B"}
    assert matched.dropped == 0


def test_the_matched_holder_rebalances_though_the_book_trades_on_change_only(market):
    changes = simulate(market, np.where(np.arange(90) < 50, 0.5, 0.3), symbol="B", rebalance="on_change", costs=COSTS)
    mean = changes.exposure.mean()
    again = simulate(market, mean, symbol="B", costs=COSTS)
    np.testing.assert_array_equal(exposure_matched(market, changes).equity, again.equity)
    assert len(again.fills) > 1


def account(last, turnover):
    return SimpleNamespace(equity=np.array([1.0, last]), turnover=np.array(turnover), initial=1.0)


def test_break_even_by_hand():
    """A lead of log(1.21 / 1.1) over 4 - 0.5 of turnover more; behind, it is below 0; and where there is none, NaN."""
    one, other = account(1.21, [1.0, 3.0]), account(1.1, [0.5, 0.0])
    assert break_even(one, other) == pytest.approx(1e4 * math.log(1.1) / 3.5, rel=1e-13)
    assert break_even(account(1.0, [1.0, 3.0]), other) == pytest.approx(-1e4 * math.log(1.1) / 3.5, rel=1e-13)
    assert break_even(account(1.21, [0.5, 0.01]), other) == pytest.approx(1e4 * math.log(1.1) / 0.01, rel=1e-13)
    for undefined in (
        account(1.21, [0.5, 0.0]),
        account(1.21, [0.5, 0.004]),
        account(1.21, [0.1, 0.1]),
        account(-0.1, [1.0, 3.0]),
    ):
        assert math.isnan(break_even(undefined, other))


def test_at_the_break_even_cost_the_lead_over_the_matched_is_gone(market):
    """What the ledger says where every fill costs so much more: nothing is left of a lead, and half at half of it."""

    def lead(book, extra):
        dear = {"costs": Costs(fee=0.001, slippage=0.002 + extra), **book.rules.args}
        parts = book.by_symbol or {book.symbols[0]: book}
        books = {name: simulate(market, one.targets, symbol=name, **dear) for name, one in parts.items()}
        matched = {name: simulate(market, one.exposure.mean(), symbol=name, **dear) for name, one in parts.items()}
        ends = [np.mean([one.equity[-1] for one in each.values()]) for each in (books, matched)]
        return math.log(ends[0] / ends[1])

    def led(symbol, bars, seed):
        """A few days that are known beforehand, else noise."""
        rows = slice(0, 100) if symbol == "A" else slice(100, 190)
        rise = np.append(np.diff(np.log(market.open[rows, 0])), 0)
        known = np.sign(np.append(rise[1:], 0)) * 0.5
        wanted = np.where(np.random.default_rng(seed).random(bars) < 0.5, known, targets(seed, bars) / 2)
        return simulate(market, wanted, symbol=symbol, costs=COSTS, rebalance_band=0.05)

    one = led("A", 100, 7)
    total = combine({"A": one, "B": led("B", 90, 8)})
    for book in (one, total):
        matched = beside(market, book)["buy and hold at mean exposure"]
        extra = break_even(book, matched) / 1e4
        now = math.log(book.equity[-1] / matched.equity[-1])
        assert now == pytest.approx(lead(book, 0.0), rel=1e-12)
        assert now > 0.1
        assert abs(lead(book, extra)) < 0.01 * now
        assert lead(book, extra / 2) == pytest.approx(now / 2, rel=0.01)
