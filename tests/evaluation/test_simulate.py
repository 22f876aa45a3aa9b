"""simulate: closed forms, the scalar reference of the money rules, what it refuses, and no look ahead."""

from __future__ import annotations

import dataclasses
import pickle
from functools import partial

import jax
import numpy as np
import pandas as pd
import pytest
from ledger_books import market_of as market_with_all_columns
from ledger_books import orders_of
from ledger_fills import assert_same_book, reference_of

from jaxtrader.envs.costs import Costs
from jaxtrader.evaluation import walk
from jaxtrader.evaluation.book import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.bars import load_bars
from jaxtrader.market.features import log_return
from jaxtrader.market.market import Market

FREE = Costs(fee=0.0, slippage=0.0)
PRICEY = Costs(fee=0.001, slippage=0.002)
BARS = 120


def frame(seed=0, bars=BARS, volatility=0.03):
    """Bars whose opens are not the closes before them."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, volatility, bars)))
    open_ = close * np.exp(rng.normal(0, volatility, bars))
    times = pd.date_range("2020-01-01", periods=bars, freq="D")
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    return pd.DataFrame({"open": open_, "high": high, "low": low, "close": close, "volume": 1.0}, index=times)


def market_of(source, **options):
    return Market.from_bars(load_bars(source, **options), [log_return()])


@pytest.fixture(scope="module")
def market():
    return market_of(frame(), symbol="X")


def busy(seed=0, bars=BARS):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1.2, 1.2, bars)
    return np.where(rng.random(bars) < 0.2, np.nan, np.where(rng.random(bars) < 0.2, 0.0, targets))


def test_buy_and_hold_has_its_closed_form(market):
    fee, slippage = 0.001, 0.002
    book = simulate(market, 1.0, costs=Costs(fee=fee, slippage=slippage))
    expected = market.close[-1, 0] / market.open[1, 0] / (1 + slippage) / (1 + fee)
    assert book.equity[-1] == pytest.approx(expected, rel=1e-13)
    assert book.equity[0] == 1.0
    assert len(book.fills) == 1
    assert book.exposure[0, 0] == 0.0
    np.testing.assert_allclose(book.exposure[1:, 0], 1.0, rtol=1e-14)
    np.testing.assert_allclose(book.equity[1:], expected / market.close[-1, 0] * market.close[1:, 0], rtol=1e-13)


def test_a_round_trip_has_its_closed_form(market):
    # Long at open[11], flat at open[31]: each side loses fee and slippage.
    targets = np.where((np.arange(BARS) >= 10) & (np.arange(BARS) < 30), 1.0, 0.0)
    book = simulate(market, targets, costs=Costs(fee=0.001, slippage=0.002))
    gain = market.open[31, 0] / market.open[11, 0]
    assert book.equity[-1] == pytest.approx(gain * 0.998 * 0.999 / (1.002 * 1.001), rel=1e-13)
    assert (book.equity[:11] == 1.0).all()
    assert len(set(book.equity[31:])) == 1
    assert (book.units[31:] == 0).all()


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
def test_no_order_leaves_exactly_the_capital(market, fill):
    for targets in (0.0, np.nan):
        book = simulate(market, targets, fill=fill)
        assert (book.equity == 1.0).all()
        assert not len(book.fills)


def test_each_fill_is_where_it_says(market):
    targets = np.full(BARS, np.nan)
    targets[4] = 0.5
    for fill, bar, price in (
        ("next_open", 5, market.open[5, 0]),
        ("next_close", 5, market.close[5, 0]),
        ("close", 4, market.close[4, 0]),
    ):
        book = simulate(market, targets, fill=fill, costs=FREE)
        assert list(book.fills["bar"]) == [bar]
        assert book.fills["price"][0] == price
        assert book.equity[-1] == pytest.approx(0.5 + 0.5 * market.close[-1, 0] / price, rel=1e-13)


def test_bar_0_trades_only_at_its_own_close_and_the_last_target_never_fills_next(market):
    targets = np.full(BARS, np.nan)
    targets[0] = targets[-1] = -1.0
    costs = Costs(fee=0.01, slippage=0.0)
    assert simulate(market, targets, fill="close", costs=costs).equity[0] == pytest.approx(0.99, rel=1e-14)
    assert simulate(market, targets, fill="next_open", costs=costs).equity[0] == 1.0
    last = np.full(BARS, np.nan)
    last[-1] = 1.0
    assert not len(simulate(market, last, fill="next_close").fills)
    assert len(simulate(market, last, fill="close").fills) == 1


@pytest.mark.parametrize("volatility", [0.02, 0.6])
@pytest.mark.parametrize(
    "rules",
    [
        {"fill": "next_open"},
        {"fill": "next_close"},
        {"fill": "close"},
        {"rebalance_band": 0.05},
        {"rebalance": "on_change"},
    ],
)
def test_books_match_the_scalar_reference(rules, volatility):
    market = market_of(frame(5, volatility=volatility), symbol="X")
    book = simulate(market, busy(5), costs=PRICEY, **rules)
    assert_same_book(book, reference_of(market, busy(5)[:, None], PRICEY, **rules), 1e-12)
    assert (book.ruined_at is not None) == (volatility > 0.1)


def test_a_band_met_to_the_last_digit_is_booked_as_it_was_traded():
    """Targets on the very edge of the band: whichever side rounding takes, the fills must explain the equity."""
    market = market_of(frame(9, volatility=0.01), symbol="X")
    targets = np.where(np.arange(BARS) % 2, 0.05, 0.0)
    book = simulate(market, targets, costs=FREE, rebalance_band=0.05)
    np.testing.assert_allclose(np.cumsum(np.bincount(book.fills["bar"], book.fills["units"], BARS)), book.units[:, 0])
    paid = np.bincount(book.fills["bar"], book.fills["units"] * book.fills["price"], BARS)
    np.testing.assert_allclose(1 - np.cumsum(paid) + book.units[:, 0] * market.close[:, 0], book.equity, rtol=1e-12)
    assert len(book.fills) > 50


def test_what_comes_later_changes_nothing_before(market):
    targets, t = busy(1), 60
    data, other = frame(), frame(77)
    data.iloc[t + 1 :] = other.iloc[t + 1 :]
    changed = market_of(data, symbol="X")
    assert (changed.close[t + 1 :] != market.close[t + 1 :]).all()
    later = np.where(np.arange(BARS) > t, -targets, targets)
    for fill in ("next_open", "next_close", "close"):
        before, after = simulate(market, targets, fill=fill), simulate(changed, later, fill=fill)
        np.testing.assert_array_equal(after.equity[: t + 1], before.equity[: t + 1])
        np.testing.assert_array_equal(after.units[: t + 1], before.units[: t + 1])
        assert after.equity[-1] != before.equity[-1]


def test_float32_is_close_and_float64_is_exact_without_a_global_switch(market):
    exact, rough = simulate(market, busy(2)), simulate(market, busy(2), dtype="float32")
    np.testing.assert_allclose(rough.equity, exact.equity, rtol=1e-4)
    assert exact.equity.dtype == rough.equity.dtype == np.float64
    assert not np.array_equal(exact.equity, rough.equity)


def test_one_of_several_histories_and_a_later_start():
    market = market_of({"A": frame(1, 80), "B": frame(2)})
    with pytest.raises(ValueError, match=r"2 histories \(A, B\).*symbol='A'"):
        simulate(market, 1.0)
    with pytest.raises(ValueError, match="0 histories of 'C'; it has A, B"):
        simulate(market, 1.0, symbol="C")
    alone = market_of(frame(2), symbol="B")
    targets = busy(3)
    both = simulate(market, targets, symbol="B")
    np.testing.assert_array_equal(both.equity, simulate(alone, targets).equity)
    assert both.symbols == ("B",)
    late = simulate(market, 1.0, symbol="B", start=80 + 60, costs=FREE)
    assert len(late) == 60
    assert late.equity[-1] == pytest.approx(alone.close[-1, 0] / alone.open[61, 0], rel=1e-13)
    with pytest.raises(ValueError, match="start 79 is outside the rows that may be traded, 80 to 199"):
        simulate(market, 1.0, symbol="B", start=79)


def test_a_split_starts_at_its_first_bar(market):
    test = market.split(0.5, 0.5)[1]
    book = simulate(test, 1.0, costs=FREE)
    assert len(book) == 60
    assert book.times[0] == market.times[60]
    assert book.equity[-1] == pytest.approx(market.close[-1, 0] / market.open[61, 0], rel=1e-13)


def test_user_mistakes_are_one_clear_sentence(market):
    for targets, words in (
        (np.zeros(7), rf"shape \(7,\).*{BARS} bars.*give \({BARS},\)"),
        (np.zeros((BARS, 2)), rf"shape \({BARS}, 2\)"),
        (np.where(np.arange(BARS) == 9, np.inf, 0), r"targets\[9\] is \[inf\]"),
        ("long", "must be numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            simulate(market, targets)
    with pytest.raises(ValueError, match="float16"):
        simulate(market, 1.0, dtype="float16")
    with pytest.raises(ValueError, match="fill 'open' is unknown"):
        simulate(market, 1.0, fill="open")
    with pytest.raises(ValueError, match="fee 5 is outside"):
        simulate(market, 1.0, costs=Costs(fee=5))


def test_several_assets_match_the_scalar_reference():
    frames = [frame(seed) for seed in (21, 22, 23)]
    singles = [load_bars(data, symbol=name) for data, name in zip(frames, "XYZ", strict=True)]
    one = Market.from_bars(singles[0], [log_return()])
    columns = {name: np.hstack([getattr(bars, name) for bars in singles]) for name in ("open", "high", "low", "close")}
    market = dataclasses.replace(one, symbols=("X,Y,Z",), **columns)
    targets = np.stack([busy(seed) for seed in (31, 32, 33)], 1)
    book = simulate(market, targets, costs=PRICEY)
    assert_same_book(book, reference_of(market, targets, PRICEY), 1e-12)
    assert book.symbols == ("X", "Y", "Z")
    assert book.trades["pnl"].sum() == pytest.approx(book.equity[-1] - 1, abs=1e-12)


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_orders_on_change_that_could_not_fill_are_tried_again_in_a_book_too(fill):
    market = dataclasses.replace(market_with_all_columns(4, 3), funding=None)
    targets = np.repeat(orders_of(4, 3)[0][::8], 8, 0)  # each is said eight times
    rules = {"fill": fill, "rebalance": "on_change", "volume_cap": 0.2, "capital": 1e5}
    book = simulate(market, targets, costs=PRICEY, **rules)
    assert_same_book(book, reference_of(market, targets, PRICEY, **rules), 1e-12)
    again = (book.fills["bar"] % 8 != (fill == "next_open")) & (book.fills["reason"] == "order")
    assert again.sum() >= 3


LENGTHS = {"A": 120, "B": 70, "C": 119, "D": 20}


@pytest.fixture(scope="module")
def several():
    loaded = [load_bars(frame(seed, bars), symbol=name) for seed, (name, bars) in enumerate(LENGTHS.items())]
    return Market.from_bars(loaded, [log_return()])


def targets_of(market, names):
    bars = {name: int(end - first) for name, (_, first, end) in zip(market.symbols, market.segments, strict=True)}
    return {name: busy(seed, bars[name]) for seed, name in enumerate(names)}


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"fill": "next_close", "delay": 2, "max_leverage": 2.0},
        {"fill": "close", "rebalance": "on_change", "min_trade": 500.0, "capital": 1e4},
        {"costs": Costs(0.001, 0.002, borrow_rate=0.1, short_rate=0.2, fixed_fee=3.0), "capital": 1e4},
        {"stop_loss": 0.04, "take_profit": 0.06},
        {"dtype": "float32"},
    ],
)
@pytest.mark.parametrize("few", [1, 16])
def test_many_histories_side_by_side_are_each_one_s_own_book(several, rules, few, monkeypatch):
    monkeypatch.setattr(walk, "FEW", few)
    rules = {"costs": PRICEY, **rules}
    targets = targets_of(several, "CADB")
    books = simulate(several, targets, **rules)
    assert list(books) == list("CADB")
    exact = rules.get("dtype") != "float32"
    for name, book in books.items():
        alone = simulate(several, targets[name], symbol=name, **rules)
        np.testing.assert_array_equal(books.equity[name], book.equity)
        np.testing.assert_allclose(book.equity, alone.equity, rtol=1e-13 if exact else 1e-5)
        assert len(book.fills) == len(alone.fills) > 3
        for column in ("bar", "reason", "symbol", "time"):
            np.testing.assert_array_equal(book.fills[column], alone.fills[column])
        for column in ("units", "price", "fee", "slippage", "equity", "position"):
            np.testing.assert_allclose(
                book.fills[column], alone.fills[column], rtol=1e-11 if exact else 1e-3, atol=1e-13 if exact else 1e-6
            )
        assert book.metrics["sharpe"] == pytest.approx(alone.metrics["sharpe"], rel=1e-9 if exact else 1e-3)
    total = combine(books)
    assert total.equity[-1] == pytest.approx(np.mean([equity[-1] for equity in books.equity.values()]), rel=1e-12)


def joined(markets):
    """One market of the histories of several, each under a name of its own."""
    ends = np.cumsum([0, *(len(market.close) for market in markets)])
    columns = {}
    for field in dataclasses.fields(Market):
        parts = [getattr(market, field.name) for market in markets]
        if isinstance(parts[0], np.ndarray) and field.name != "segments":
            columns[field.name] = np.concatenate(parts)
    segments = np.concatenate([market.segments + end for market, end in zip(markets, ends, strict=False)])
    names = [",".join(f"{symbol}{i}" for symbol in m.symbols[0].split(",")) for i, m in enumerate(markets)]
    return dataclasses.replace(markets[0], symbols=tuple(names), segments=segments, **columns)


@pytest.mark.parametrize("assets", [1, 3])
@pytest.mark.parametrize(
    "rules",
    [
        {"volume_cap": 0.2, "lot": 1.0, "capital": 1e5, "max_leverage": 2.0},
        {"volume_cap": 0.2, "capital": 1e5, "rebalance": "on_change"},  # orders wait: each takes a pass of its own
    ],
)
def test_many_histories_with_all_columns_agree_with_the_scalar_reference(assets, rules, monkeypatch):
    """Missing bars, funding, a delisting, caps; side by side, in two lengths."""
    monkeypatch.setattr(walk, "FEW", 2)
    markets = [market_with_all_columns(seed, assets) for seed in range(4, 9)]
    short = markets[-1]
    markets[-1] = dataclasses.replace(short, segments=np.array([[0, short.segments[0, 1], 40]]))
    market = joined(markets)
    rates = Costs(0.001, 0.002, borrow_rate=0.1, short_rate=0.2)
    targets = {}
    for seed, (name, (_, first, end)) in enumerate(zip(market.symbols, market.segments, strict=True), 4):
        targets[name] = np.repeat(orders_of(seed, assets)[0][::8], 8, 0)[: end - first]
    books = simulate(market, targets, costs=rates, **rules)
    for one, (name, orders) in zip(markets, targets.items(), strict=True):
        cut = dataclasses.replace(one, symbols=(name,))
        expected = simulate(cut, orders, costs=rates, **rules)
        np.testing.assert_allclose(books[name].equity, expected.equity, rtol=1e-12)
        np.testing.assert_array_equal(books[name].fills["bar"], expected.fills["bar"])
        np.testing.assert_allclose(books[name].carry, expected.carry, rtol=1e-9, atol=1e-15)
        if one is not markets[-1]:
            assert_same_book(books[name], reference_of(cut, orders, rates, **rules), 1e-11)


def test_a_book_of_many_is_made_when_it_is_asked_for_and_once(several, monkeypatch):
    made = []
    events = walk._events
    monkeypatch.setattr(walk, "_events", lambda *given: made.append(1) or events(*given))
    books = simulate(several, dict.fromkeys("ABCD", 0.5))
    assert len(books) == 4
    assert "B" in books
    assert "Z" not in books
    assert all(equity[-1] > 0 for equity in books.equity.values())
    assert not made
    assert books["B"] is books["B"]
    assert len(made) == 1
    assert repr(books) == "Books(A, B, C, D)"
    with pytest.raises(KeyError, match="'Z'; there are A, B, C, D"):
        books["Z"]


def test_brackets_of_many_are_one_number_or_by_symbol_and_books_outlive_what_they_were_given(several):
    targets, fee = targets_of(several, "AB"), np.array([0.001])
    stops = {"A": 0.02}
    books = simulate(several, targets, costs=Costs(fee=fee), stop_loss=stops)
    alone = {
        "A": simulate(several, targets["A"], symbol="A", costs=Costs(fee=0.001), stop_loss=0.02),
        "B": simulate(several, targets["B"], symbol="B", costs=Costs(fee=0.001), stop_loss=np.inf),
    }
    fee[:], stops["A"], targets["A"][:] = 0.5, 0.9, 0.0
    again = pickle.loads(pickle.dumps(books))
    for name, book in alone.items():
        for other in (books[name], again[name]):
            np.testing.assert_array_equal(other.equity, book.equity)
            np.testing.assert_array_equal(other.fills["reason"], book.fills["reason"])
    assert "stop" in set(books["A"].fills["reason"])
    assert "stop" not in set(books["B"].fills["reason"])
    with pytest.raises(TypeError):
        books.equity["A"] = None


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"delay": 2},
        {"fill": "next_close"},
        {"fill": "close", "delay": 1},
        {"stop_loss": 0.03, "take_profit": 0.04},
        {"stop_loss": 0.03, "delay": 1, "fill": "next_close"},
    ],
)
def test_the_next_target_is_what_the_next_bar_of_a_longer_history_is_asked_for(rules):
    """Without costs and band its order leaves just that exposure, and where it is NaN there is none."""
    market = market_of(frame(5), symbol="X")
    ready, end = market.segments[0, 1:]
    targets = np.repeat(busy(7)[::6], 6)[
        : end - ready
    ]  # said six times, so that brackets have something to keep closed
    whole = simulate(market, targets, costs=FREE, **rules)
    kept = asked_for = 0
    for count in range(3, len(targets)):
        cut = dataclasses.replace(market, segments=np.array([[0, ready, ready + count]]))
        asked = simulate(cut, targets[:count], costs=FREE, **rules).next_target[0]
        made = whole.fills[whole.fills["bar"] == count]
        if len(made) and made["reason"][0] != "order":  # a bracket came first, and who could know
            continue
        if np.isnan(asked):
            assert not len(made)
            kept += np.isfinite(targets[count - rules.get("delay", 0) - (rules.get("fill") != "close")])
        elif len(made):
            asked_for += 1
            left = made["position"][0] * made["price"][0] / made["equity"][0]
            assert left == pytest.approx(np.clip(asked, -1, 1), abs=1e-9)
        else:  # flat already
            assert asked == 0
            assert whole.units[count - 1, 0] == 0
    assert asked_for > 10
    assert (kept > 5) == ("stop_loss" in rules)


def test_at_the_close_itself_nothing_is_left_to_be_done(market):
    assert np.isnan(simulate(market, 0.5, fill="close").next_target).all()
    assert simulate(market, 0.5).next_target == 0.5


def test_an_asset_of_a_portfolio_is_no_history(portfolio):
    with pytest.raises(ValueError, match=r"P1 is one asset of the account 'P0,P1,P2', which is one history; give tar"):
        simulate(portfolio.market, {"P1": 0.5})


@pytest.mark.parametrize(
    ("targets", "settings", "message"),
    [
        ({}, {}, "targets name no history; give targets by symbol, as in {'AAPL': 1.0}"),
        ({"Z": 1.0}, {}, "the market has 0 histories of 'Z'; it has A, B, C, D"),
        ({None: 1.0}, {}, "the market has 0 histories of None"),
        ({"A": 1.0}, {"symbol": "A"}, "symbol is of one history, and targets by symbol are of many; leave it out"),
        ({"A": 1.0}, {"start": 3}, "start is of one history"),
        ({"A": [1.0, 2.0]}, {}, r"targets have shape \(2,\) and the segment has"),
        ({"A": "x"}, {}, "targets must be numbers"),
        ({"A": 1.0, "B": [1.0, 2.0]}, {}, "B: targets have shape"),
        ({"A": 1.0}, {"stop_loss": [0.1, 0.2]}, "A: stop_loss of many histories is one number for all, or by symbol"),
        ({"A": 1.0}, {"stop_loss": {"A": 3.0}}, "A: stop_loss 3 must be below 1"),
        ({"A": 1.0}, {"stop_loss": {"B": 0.1}}, "stop_loss names 'B', and targets do not; they are of A"),
    ],
)
def test_targets_by_symbol_that_cannot_be_are_refused(several, targets, settings, message):
    with pytest.raises(ValueError, match=message):
        simulate(several, targets, **settings)


@pytest.mark.parametrize(
    "rules",
    [
        {"stop_loss": 0.04, "take_profit": 0.06},
        {"stop_loss": 0.02, "fill": "close"},
        {"max_leverage": 3.0, "maintenance_margin": 0.3},
        {"max_leverage": 3.0, "maintenance_margin": 0.3, "fill": "close", "rebalance": "on_change"},
    ],
)
def test_what_happened_is_the_same_stepped_at_once_as_in_the_walk(market, rules, monkeypatch, optimised):
    jax.clear_caches()  # of programs that other tests compiled as they do, not as users do
    module = "jaxtrader.evaluation.walk"
    agree, agreed = walk._agree, []
    monkeypatch.setattr(f"{module}._agree", lambda *walks: agreed.append(bool(agree(*walks))) or agreed[-1])
    targets = rules.get("max_leverage", 1.0) * busy()
    at_once = simulate(market, targets, costs=Costs.from_bps(2, 3), **rules)
    monkeypatch.setattr(f"{module}._agree", lambda *walks: False)
    walked = simulate(market, targets, costs=Costs.from_bps(2, 3), **rules)
    assert agreed == [True]
    np.testing.assert_allclose(at_once.equity, walked.equity, rtol=1e-12)
    fills = at_once.fills, walked.fills
    assert len(fills[0]) == len(fills[1]) > 20
    assert len(set(fills[0]["reason"])) > 1
    assert len(at_once.trades) == len(walked.trades)
    closed = np.isin(fills[0]["reason"], ["stop", "take profit", "liquidation"])
    assert closed.any()
    assert (fills[0]["position"][closed] == 0).all()
    for name in fills[0].dtype.names:
        one, other = (x[name] for x in fills)
        check = (
            np.testing.assert_array_equal if one.dtype.kind != "f" else partial(np.testing.assert_allclose, rtol=1e-12)
        )
        check(one, other)


@pytest.mark.parametrize("bars", [30, 100])
def test_an_order_that_waits_longer_than_the_history_never_fills(bars):
    book = simulate(market_of(frame(bars=bars)), 1.0, delay=100)
    assert len(book.fills) == 0
    np.testing.assert_array_equal(book.equity, 1.0)
