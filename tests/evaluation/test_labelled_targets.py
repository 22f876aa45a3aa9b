"""Targets and brackets with the labels of pandas are matched by them, in `simulate` as in `backtest`.

The oracle is `simulate` of the same numbers as arrays, in the order of the market.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import BARS, busy, daily, market_of, random_table

from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.simulate import simulate, simulate_paths
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

PAIR = {"A": random_table(1), "B": random_table(2)}
TIMES = pd.date_range("2020-01-01", periods=BARS)


@pytest.fixture(scope="module")
def market() -> Market:
    return market_of(random_table(), symbol="X")


@pytest.fixture(scope="module")
def pair() -> Market:
    """Two assets under one account."""
    return market_of(PAIR, align=True)


@pytest.fixture(scope="module")
def several() -> Market:
    """Two histories."""
    return market_of(PAIR)


def assert_same(one: Any, other: Any) -> None:
    np.testing.assert_array_equal(one.targets, other.targets)
    np.testing.assert_allclose(one.equity, other.equity, rtol=1e-12)
    assert len(one.fills) == len(other.fills) > 0


@pytest.mark.parametrize("trade", [simulate, lambda market, table: backtest(table, market)])
def test_columns_and_rows_are_matched_by_their_labels(market: Market, pair: Market, trade: Any) -> None:
    swapped = pd.DataFrame({"B": busy(2) / 2, "A": busy(1) / 2}, TIMES)
    assert_same(trade(pair, swapped), simulate(pair, np.stack([busy(1), busy(2)], axis=1) / 2))
    assert_same(trade(pair, swapped[["B"]]), simulate(pair, np.stack([np.full(BARS, np.nan), busy(2) / 2], axis=1)))
    descending = pd.Series(busy(3), TIMES)[::-1]
    assert_same(trade(market, descending), simulate(market, busy(3)))
    assert_same(trade(market, descending.to_frame("X")), simulate(market, busy(3)))
    sparse, held = pd.Series(busy(3), TIMES)[::7], np.where(np.arange(BARS) % 7, np.nan, busy(3))
    assert_same(trade(market, sparse), simulate(market, held))


def test_a_mapping_takes_labels_and_arrays(several: Market) -> None:
    table = pd.DataFrame({"B": busy(2), "A": busy(1)}, TIMES)[::-1]
    labelled = simulate(several, {"A": table["A"], "B": busy(2)})
    for name, seed in (("A", 1), ("B", 2)):
        assert_same(labelled[name], simulate(several, busy(seed), symbol=name))
        assert_same(simulate(several, table[name], symbol=name), labelled[name])
    assert list(backtest(table, several).by_symbol) == ["A", "B"]
    with pytest.raises(ValueError, match=r"B: the table `targets` has no row from 2020-01-01"):
        simulate(several, {"A": 1.0, "B": pd.Series(1.0, TIMES - pd.Timedelta("999D"))})


def test_brackets_are_matched_by_their_labels(market: Market, several: Market) -> None:
    levels = np.where(np.arange(BARS) < 60, 0.02, np.nan)
    stops = pd.Series(levels, TIMES)[:60].sample(frac=1, random_state=0)  # in any order, and none from bar 60 on
    expected = simulate(market, 1.0, stop_loss=levels)
    assert "stop" in set(expected.fills["reason"])
    assert_same(simulate(market, 1.0, stop_loss=stops), expected)
    assert_same(backtest(pd.Series(1.0, TIMES), market, stop_loss=stops), expected)
    of_mapping = simulate(several, {"A": 1.0}, take_profit={"A": stops})["A"]
    assert_same(of_mapping, simulate(several, 1.0, symbol="A", take_profit=levels))
    with pytest.raises(ValueError, match="index of `stop_loss` must be the times of bars"):
        simulate(market, 1.0, stop_loss=pd.Series(levels))
    with pytest.raises(ValueError, match=r"stop_loss.* must be a number"):
        simulate(market, 1.0, stop_loss=pd.Series("x", TIMES))


def test_times_are_those_of_the_market_s_wall_clock_or_have_an_offset() -> None:
    bars = random_table()
    market = market_of(bars.tz_localize("America/New_York"), symbol="X")
    expected = simulate(market, busy())
    here = pd.Series(busy(), bars.index)
    there = here.tz_localize("America/New_York").tz_convert("Asia/Tokyo")
    for targets in (here, there, here.set_axis(bars.index.astype(str)), here.set_axis(bars.index.date)):
        assert_same(simulate(market, targets), expected)
    with pytest.raises(ValueError, match=r"X has no bar at 2020-01-01 05:00:00.*result.to_frame\(\).index"):
        simulate(market, here.set_axis(pd.DatetimeIndex(market.times)))
    named = simulate(market, pd.Series(busy(), expected.to_frame().index))
    assert_same(named, expected)
    with pytest.raises(ValueError, match="the clocks of America/New_York show twice or never; give times with an off"):
        simulate(market, pd.Series([1.0, 0.0], pd.DatetimeIndex(["2020-01-02 00:00", "2020-03-08 02:30"])))


def test_rows_outside_of_the_traded_bars_do_not_count(market: Market) -> None:
    late = simulate(market, pd.Series(busy(), TIMES), start=60)
    assert_same(late, simulate(market, busy()[60:], start=60))
    _, test = market.split(0.5, 0.5)
    assert_same(simulate(test, pd.Series(busy(), TIMES)), simulate(test, busy()[60:]))


WRONG: dict[str, tuple[Any, str]] = {
    "row numbers": (pd.Series(np.ones(BARS)), r"must be the times of bars, not \[0\]; .*`targets.to_numpy\(\)`"),
    "numbers as objects": (pd.Series(1.0, pd.Index([*range(BARS)], dtype=object)), "must be the times of bars"),
    "numbers": (pd.Series(1.0, np.arange(BARS) + 0.5), "must be the times of bars"),
    "periods": (pd.Series(1.0, TIMES.to_period()), "must be the times of bars"),
    "no rows": (pd.Series([], pd.DatetimeIndex([]), dtype=float), "has no row from 2020-01-01"),
    "a row without a time": (pd.Series(1.0, [*TIMES[:-1], pd.NaT]), "must be the times of bars"),
    "another year": (pd.Series(1.0, TIMES - pd.Timedelta("7305D")), "has no row from 2020-01-01"),
    "no bar": (pd.Series(1.0, TIMES + pd.Timedelta("1h")), "X has no bar at 2020-01-01 01:00"),
    "twice": (pd.Series(1.0, [*TIMES, TIMES[3]]), "two rows at 2020-01-04"),
    "another symbol": (pd.DataFrame({"Y": 1.0}, TIMES), "a column 'Y'; .* X"),
    "two columns": (pd.DataFrame(np.ones((BARS, 2)), TIMES, ["X", "X"]), "two columns 'X'"),
    "texts": (pd.Series("1", TIMES), "must be numbers"),
    "dates": (pd.Series(TIMES, TIMES), "must be numbers"),
    "infinite": (pd.Series(np.inf, TIMES), r"targets\[0\]` is \[inf\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_do_not_fit_are_refused_by_simulate_and_backtest(market: Market, case: str) -> None:
    table, message = WRONG[case]
    for trade in (simulate, lambda market, table: backtest(table, market)):
        with pytest.raises(ValueError, match=message):
            trade(market, table)


def test_a_series_of_several_assets_is_refused(pair: Market) -> None:
    for trade in (simulate, lambda market, table: backtest(table, market)):
        with pytest.raises(ValueError, match="has no symbols and the market has A, B; give a column for each"):
            trade(pair, pd.Series(0.5, TIMES))


@pytest.mark.parametrize(
    "targets",
    [
        np.full(BARS, "1"),
        ["1"] * BARS,
        TIMES,
        np.arange(BARS).astype("m8[D]"),
        np.arange(BARS) * 1j,
        [[1.0], [1.0, 2.0]],
        np.array(["1.0", *[1.0] * (BARS - 1)], object),
        None,
    ],
    ids=["texts", "list of texts", "dates", "durations", "complex", "ragged", "a text among objects", "None"],
)
def test_what_is_no_number_is_no_target(market: Market, targets: Any) -> None:
    with pytest.raises(ValueError, match="`targets` must be numbers"):
        simulate(market, targets)


def test_masked_targets_hold(market: Market) -> None:
    masked = np.ma.masked_array(busy(3), np.arange(BARS) % 2 == 1)
    assert_same(simulate(market, masked), simulate(market, np.where(np.arange(BARS) % 2, np.nan, busy(3))))
    assert not len(simulate(market, np.ma.masked_all(BARS)).fills)


def test_a_shifted_signal_of_true_and_false_is_1_and_0(market: Market) -> None:
    rises = pd.Series(np.random.default_rng(0).random(BARS) > 0.5, TIMES)
    expected = simulate(market, np.append(np.nan, rises[:-1].astype(float)))
    assert rises.shift(1).dtype == object
    assert_same(simulate(market, rises.shift(1)), expected)
    assert_same(simulate(market, rises.shift(1).to_numpy()), expected)
    assert_same(simulate(market, pd.Series(rises, dtype="boolean").shift(1)), expected)


def test_labels_of_other_libraries_are_refused(market: Market) -> None:
    class Table(SimpleNamespace):
        def __array__(self, *_: Any, **__: Any) -> np.ndarray:
            return np.ones((BARS, 1))

    for labels in ({"columns": ["X"]}, {"coords": {"time": TIMES}}):
        with pytest.raises(ValueError, match=r"Table, whose labels are not read; give a DataFrame of pandas, or"):
            simulate(market, Table(**labels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"market": daily([1.0, 2.0])}, "simulate needs a Market, not a DataFrame"),
        ({"rules": None}, "`rules.* must be .?Rules"),
        ({"rules": {}}, "`rules.* must be .?Rules"),
        ({"costs": 0.001}, "`costs.* must be .?Costs"),
        ({"costs": None}, "`costs.* must be .?Costs"),
    ],
)
def test_one_path_and_many_check_their_arguments_alike(market: Market, settings: Any, message: str) -> None:
    for trade, targets in ((simulate, np.ones(BARS)), (simulate_paths, np.ones((2, BARS)))):
        with pytest.raises(ValueError, match=message):
            trade(**{"market": market, "targets": targets} | settings)


def test_numbers_of_one_an_asset_with_labels_are_refused(pair: Market) -> None:
    """They would be taken by position, whatever their labels say."""
    each = pd.Series({"B": 0.01, "A": 0.02})
    for refused in (
        lambda: simulate(pair, np.full((BARS, 2), 0.5), costs=Costs(fee=each)),
        lambda: Costs.from_bps(slippage=each),
        lambda: Rules(multiplier=each),
        lambda: Rules(tick=each),
        lambda: backtest(lambda seen: each, pair, positions="weights", window=1),
        lambda: simulate_paths(pair, pd.DataFrame(np.ones((2, BARS)))),
    ):
        with pytest.raises(ValueError, match=r"is a Series, whose labels are not read; give `.*\.to_numpy\(\)`|\[path"):
            refused()
    as_array = simulate(pair, np.full((BARS, 2), 0.5), costs=Costs(fee=each[["A", "B"]].to_numpy(), slippage=0.0))
    assert as_array.fills["fee"][0] == pytest.approx(0.02 * as_array.fills["units"][0] * as_array.fills["price"][0])
    assert as_array.fills["symbol"][0] == "A"


@pytest.mark.parametrize("targets", [1.0, np.ones(BARS), "ab", [], np.ones((0, BARS)), None])
def test_paths_that_are_none_are_refused(market: Market, targets: Any) -> None:
    with pytest.raises(ValueError, match=r"`targets` must be numbers \[path, bar\]"):
        simulate_paths(market, targets)
    with pytest.raises(ValueError, match=r"have shape \(3,\)"):
        simulate_paths(market, np.ones((2, 3)))
