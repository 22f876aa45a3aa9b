"""Aligned histories: the union calendar, missing bars, late listings and delistings, by hand and against a loop."""

import dataclasses
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from market.price_tables import cut, random_bars

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market
from jaxtrader.market.trailing import VOLATILITY_FLOOR

FEATURES = ("volatility_5", "log_return_3", "signal")
LOOKBACK = 6
DAYS = pd.date_range("2020-01-01", periods=60)


def history(name: str, days: pd.DatetimeIndex = DAYS) -> Bars:
    return random_bars(days, name)


WHOLE = history("WHOLE")
HOLES = history("HOLES", DAYS.delete([10, 11, 30]))
LATE = history("LATE", DAYS[25:])
GONE = history("GONE", DAYS[:40])


def universe(**changes) -> Market:
    return Market.from_bars([WHOLE, HOLES, LATE, GONE], FEATURES, align=True, **changes)


def test_align_by_hand():
    def bars(name, days, opens, closes):
        table = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes), "close": closes}
        return load_bars(pd.DataFrame(table | {"volume": 7.0}, index=pd.to_datetime(days)), symbol=name)

    a = bars("A", ["2024-01-01", "2024-01-02", "2024-01-04"], [10.0, 11.0, 12.0], [11.0, 10.0, 13.0])
    b = bars("B", ["2024-01-02", "2024-01-03"], [5.0, 6.0], [6.0, 8.0])
    market = Market.from_bars([a, b], ["log_return_1"], periods_per_year=252, align=True)
    assert market.symbols == ("A,B",)
    np.testing.assert_array_equal(market.times, pd.date_range("2024-01-01", periods=4).to_numpy())
    np.testing.assert_array_equal(market.segments, [[0, 0, 4]])
    np.testing.assert_array_equal(market.present, [[1, 0], [1, 1], [0, 1], [1, 0]])
    assert market.delisted is None, "one missing row at the end is no delisting"
    np.testing.assert_array_equal(market.open, [[10, 5], [11, 5], [10, 6], [12, 8]])
    np.testing.assert_array_equal(market.high, [[11, 5], [11, 6], [10, 8], [13, 8]])
    np.testing.assert_array_equal(market.low, [[10, 5], [10, 5], [10, 6], [12, 8]])
    np.testing.assert_array_equal(market.close, [[11, 5], [10, 6], [10, 8], [13, 8]])
    np.testing.assert_array_equal(market.volume, [[7, 0], [7, 7], [0, 7], [7, 0]])
    np.testing.assert_allclose(market.dt, [0, 1 / 365, 1 / 365, 1 / 365], rtol=1e-14)
    returns = np.log([[np.nan, np.nan], [10 / 11, np.nan], [10 / 11, 8 / 6], [13 / 10, 8 / 6]])
    np.testing.assert_allclose(market.features[..., 0], returns, rtol=1e-14)
    # A is known from row 1, B from row 2.
    np.testing.assert_array_equal(market.listed, [[0, 0], [1, 0], [1, 1], [1, 1]])
    assert market.ready.tolist() == [1]


def test_aligned_asset_equals_its_own_market_and_missing_rows_are_filled():
    market = universe()
    assert market.symbols == ("WHOLE,HOLES,LATE,GONE",)
    assert market.features.shape == (60, 4, 3)
    for a, bars in enumerate((WHOLE, HOLES, LATE, GONE)):
        alone = Market.from_bars(bars, FEATURES)
        own = -1
        for t, time in enumerate(DAYS.to_numpy()):
            real = own + 1 < len(bars) and bars.times[own + 1] == time
            own += real
            assert market.present[t, a] == real
            assert market.delisted[t, a] == (bars is GONE and t == 39 + 15)
            row = [getattr(market, name)[t, a] for name in ("open", "high", "low", "close", "volume")]
            if real:
                assert row == [getattr(bars, name)[own, 0] for name in ("open", "high", "low", "close", "volume")]
            elif own < 0:
                assert row == [bars.open[0, 0]] * 4 + [0]
            else:
                assert row == [bars.close[own, 0]] * 4 + [0]
            if own < 0:
                assert np.isnan(market.features[t, a]).all()
                assert market.volatility[t, a] == VOLATILITY_FLOOR
            else:
                np.testing.assert_array_equal(market.features[t, a], alone.features[own, 0])
                assert market.volatility[t, a] == alone.volatility[own, 0]
            gone = bars is GONE and t >= 39 + 15
            assert market.listed[t, a] == (own >= LOOKBACK - 1 and not gone)


def test_late_listing_does_not_delay_ready():
    market = universe()
    assert market.ready.tolist() == [LOOKBACK - 1]
    assert market.first_decisions(4).tolist() == [LOOKBACK + 2]
    assert np.isfinite(market.features[market.ready[0] :][market.listed[market.ready[0] :]]).all()
    assert not market.listed[25 : 25 + LOOKBACK - 1, 2].any()
    assert market.listed[25 + LOOKBACK - 1 :, 2].all()


def test_column_warm_up_delays_listed_of_its_own_asset_only():
    signal = HOLES.columns["signal"].copy()
    signal[:20] = np.nan
    warm = dataclasses.replace(HOLES, columns={"signal": signal})
    market = Market.from_bars([WHOLE, warm], FEATURES, align=True)
    assert market.ready.tolist() == [5]
    # The first known bar of HOLES is its 20th, which is row 22: days 10 and 11 are missing.
    np.testing.assert_array_equal(market.listed[:, 1], np.arange(60) >= 22)
    never = dataclasses.replace(HOLES, columns={"signal": signal * np.nan})
    with pytest.raises(DataError, match=r"HOLES .* signal; leave"):
        Market.from_bars([WHOLE, never], FEATURES, align=True)


def test_present_delisted_and_listed_are_none_without_missing_bars():
    market = Market.from_bars([WHOLE, history("OTHER")], FEATURES, align=True)
    assert market.present is market.delisted is market.listed is None
    arrays = market.arrays()
    assert arrays.present is arrays.delisted is arrays.listed is None
    assert market.ready.tolist() == [LOOKBACK - 1]
    assert market.notes == ()
    holes = Market.from_bars([WHOLE, HOLES], FEATURES, align=True)
    assert holes.present is not None
    assert holes.delisted is None
    assert holes.listed is None
    separate = Market.from_bars([WHOLE, HOLES], FEATURES)
    assert separate.present is separate.delisted is separate.listed is None


def test_arrays_hold_the_masks_and_no_nan():
    market = universe()
    arrays = market.arrays()
    for name in ("present", "delisted", "listed"):
        mask = getattr(arrays, name)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, getattr(market, name))
    assert np.isfinite(arrays.features).all()
    assert (np.asarray(arrays.features)[:25, 2] == 0).all()


def test_asset_order_is_the_order_given():
    one, other = universe(), Market.from_bars([GONE, LATE, HOLES, WHOLE], FEATURES, align=True)
    assert other.symbols == ("GONE,LATE,HOLES,WHOLE",)
    for name in ("close", "volume", "features", "volatility", "present", "delisted", "listed"):
        np.testing.assert_array_equal(getattr(one, name)[:, ::-1], getattr(other, name))


def test_describe_of_an_aligned_history():
    assert universe().describe().startswith("WHOLE, HOLES, LATE, GONE side by side: 60 bars, 2020-01-01 to 2020-02-29")
    five = Market.from_bars([history(name) for name in "ABCDE"], FEATURES, align=True)
    assert five.describe().startswith("A, B, C, D and 1 more side by side: 60 bars")


def test_split_of_an_aligned_history_cuts_the_union_calendar():
    train, test = universe().split("2020-02-10")
    np.testing.assert_array_equal(train.segments, [[0, 0, 40]])
    np.testing.assert_array_equal(test.segments, [[0, 40, 60]])
    assert train.symbols == test.symbols == ("WHOLE,HOLES,LATE,GONE",)
    assert train.present is test.present
    assert train.ready.tolist() == test.ready.tolist() == [5]


def changed(bars: Bars, after: np.datetime64) -> Bars:
    """The same with other prices, volumes and signals from `after` on."""
    late = bars.times >= after
    rng = np.random.default_rng(9)
    factor = np.where(late, rng.uniform(0.5, 2, len(bars)), 1.0)[:, None]
    fields = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close", "volume")}
    return dataclasses.replace(bars, **fields, columns={"signal": bars.columns["signal"] * factor})


def test_no_look_ahead_when_later_bars_change():
    when = DAYS.to_numpy()[35]
    one = universe()
    two = Market.from_bars([changed(b, when) for b in (WHOLE, HOLES, LATE, GONE)], FEATURES, align=True)
    names = ("open", "high", "low", "close", "volume", "features", "volatility", "present", "delisted", "listed", "dt")
    for name in names:
        assert getattr(one, name)[:35].tobytes() == getattr(two, name)[:35].tobytes(), name
    assert one.features[35:].tobytes() != two.features[35:].tobytes()


@pytest.mark.parametrize("rows", [35, 41, 54, 55, 59])
def test_no_look_ahead_when_bars_are_appended(rows):
    def early(bars: Bars) -> Bars:
        return cut(bars, 0, int(np.searchsorted(bars.times, DAYS.to_numpy()[rows])))

    one, two = universe(), Market.from_bars([early(bars) for bars in (WHOLE, HOLES, LATE, GONE)], FEATURES, align=True)
    assert len(two.times) == rows
    for name in ("open", "high", "low", "close", "volume", "features", "volatility", "present", "listed", "dt"):
        assert getattr(one, name)[:rows].tobytes() == getattr(two, name).tobytes(), name
    delisted = np.zeros((rows, 4), bool) if two.delisted is None else two.delisted
    np.testing.assert_array_equal(one.delisted[:rows], delisted)


def test_impact_of_a_late_listing_uses_adv_from_its_first_bar_on():
    """A late listing can be ordered from the close of its first bar on, where its adv is known."""
    market, capital = universe(), 1e4
    result = simulate(
        market,
        np.full((60, 4), 0.25),
        costs=Costs(fee=None, slippage=None, impact=1.0),
        rules=Rules(rebalance_band=0.0, capital=capital),
    )
    for symbol, name, first in ((0, "WHOLE", 1), (2, "LATE", 26)):
        fills = result.fills[result.fills["symbol"] == name]
        assert fills["bar"][0] == first
        for fill in fills[fills["bar"] > first + 2][:5]:
            now = fill["bar"] - 1
            value = abs(fill["units"]) * fill["price"]
            share = value * capital / market.adv[now, symbol]
            rate = market.volatility[now, symbol] * np.sqrt(share)
            assert fill["slippage"] == pytest.approx(value * rate, rel=1e-9)
        assert fills["slippage"][0] < 1e-4 * abs(fills["units"] * fills["price"])[0], "no return is known yet"


def test_alignment_notes_name_missing_bars():
    gaps, hole, late, gone = universe().notes
    for note, parts in (
        (gaps, ("HOLES", "2 gaps")),
        (hole, ("HOLES", "3 of the 60")),
        (late, ("LATE", "2020-01-26", "25 bars")),
        (gone, ("GONE", "2020-02-09", "2020-02-24", "delisted")),
    ):
        assert all(part in note for part in parts), note


# A delisting at a loss, as in two tests.
AT_A_LOSS: dict[str, Any] = {
    "costs": Costs(fee=1e-3, slippage=5e-4),
    "rules": Rules(rebalance_band=0.0, delist_return=-0.9),
}


@pytest.mark.parametrize(("missing", "gone"), [(1, False), (14, False), (15, True)])
def test_delisted_after_more_than_two_weeks_without_a_bar(missing, gone):
    """A thinly traded asset that has no bar at the last rows can still be traded, and is not closed at a loss."""
    thin = history("THIN", DAYS[: 60 - missing])
    market = Market.from_bars([WHOLE, thin], FEATURES, align=True)
    last = 59 - missing
    np.testing.assert_array_equal(market.present[:, 1], np.arange(60) <= last)
    sold = simulate(market, np.full((60, 2), 0.5), **AT_A_LOSS)
    end = "closed at that close, as delisted, at 2020-02-29" if gone else f"{missing} bar"
    for part in ("THIN", f"{DAYS[last]:%Y-%m-%d}", end):
        assert part in market.notes[-1]
    assert sold.units[58, 1] > 0
    if gone:
        np.testing.assert_array_equal(market.delisted, np.stack([np.zeros(60), np.arange(60) == 59], 1))
        np.testing.assert_array_equal(market.listed[:, 1], (np.arange(60) >= LOOKBACK - 1) & (np.arange(60) < 59))
        assert sold.fills["reason"].tolist().count("delisted") == 1
        assert sold.units[-1, 1] == 0
    else:
        assert market.delisted is market.listed is None
        assert "delisted" not in sold.fills["reason"]
        assert sold.units[-1, 1] > 0


def delisted(*calendars: pd.DatetimeIndex) -> list[tuple[str, str]]:
    """The (history, time) of each delisting in an aligned market."""
    parts = [random_bars(times, "ABC"[i]) for i, times in enumerate(calendars)]
    market = Market.from_bars(parts, ["gap"], align=True)
    if market.delisted is None:
        return []
    return [("ABC"[a], str(market.times[t])[:16]) for t, a in zip(*np.nonzero(market.delisted), strict=True)]


@pytest.mark.parametrize(
    ("delisted_after", "row"),
    [(14, 54), (3, 43), (timedelta(days=9, hours=12), 49), (0.5, 43), (19, 59), (20, None), ("never", None)],
)
def test_days_without_a_bar_after_which_an_asset_is_delisted(delisted_after, row):
    """The last bar of GONE is at row 39, and its longest wait is a day, of which three must pass."""
    market = universe(delisted_after=delisted_after)
    gone = np.zeros((60, 4), bool)
    if row is not None:
        gone[row, 3] = True
        assert any("GONE" in note and str(DAYS[row])[:10] in note for note in market.notes)
    np.testing.assert_array_equal(np.zeros((60, 4)) if market.delisted is None else market.delisted, gone)
    np.testing.assert_array_equal(market.listed[:, 3], (np.arange(60) >= LOOKBACK - 1) & (np.arange(60) < (row or 60)))
    assert universe(delisted_after=market.delisted_after).fingerprint == market.fingerprint
    assert market.split(0.5, 0.5)[1].delisted_after == market.delisted_after


@pytest.mark.parametrize("delisted_after", [0, -1, np.nan, True, None, "14", "none"])
def test_no_days_to_be_delisted_after_are_refused(delisted_after):
    with pytest.raises(DataError, match=r"delisted_after=.*'never'"):
        universe(delisted_after=delisted_after)
    with pytest.raises(DataError, match=r"delisted_after=30` .*`align=True`"):
        Market.from_bars([WHOLE, HOLES], FEATURES, delisted_after=30)


COIN = pd.date_range("2024-01-01", "2024-06-01", freq="h")
EXCHANGE = COIN[(COIN.day_of_week < 5) & (COIN.hour >= 15) & (COIN.hour <= 21)]


def test_an_exchange_that_is_shut_is_not_delisted():
    for end in ("2024-03-15 03:00", "2024-03-17 12:00", "2024-03-18 00:00"):
        assert delisted(*(times[times <= pd.Timestamp(end)] for times in (COIN, EXCHANGE))) == []
    holidays = (EXCHANGE >= "2024-02-09") & (EXCHANGE < "2024-02-19")
    assert delisted(COIN, EXCHANGE[~holidays]) == []
    hours = np.arange(len(COIN))
    seldom = COIN[(hours % 240 < 2) & (hours < 2800)]  # every ten days, so it may wait for thirty
    assert delisted(COIN[:3300], seldom) == []


def test_a_silent_asset_is_delisted_once_and_listed_again_with_its_next_bar():
    hole = (EXCHANGE >= "2024-03-01") & (EXCHANGE < "2024-04-15")
    assert delisted(COIN, EXCHANGE[~hole]) == [("B", "2024-03-14T22:00")]
    assert delisted(COIN, EXCHANGE[EXCHANGE < "2024-03-01"]) == [("B", "2024-03-14T22:00")]
    market = Market.from_bars([random_bars(COIN, "A"), random_bars(EXCHANGE[~hole], "B")], ["gap"], align=True)
    again = np.searchsorted(market.times, np.datetime64("2024-04-15T15:00"))
    assert market.listed[again - 1 : again + 1, 1].tolist() == [False, True]
    assert any("bars again from 2024-04-15 15:00:00" in note for note in market.notes)


def test_a_hole_in_all_histories_delists_none():
    hole = (COIN >= "2024-03-01") & (COIN < "2024-04-13")  # a Saturday: the coin is back two days before the exchange
    open_ = ~np.isin(EXCHANGE, COIN[hole])
    assert delisted(COIN[~hole], EXCHANGE[open_]) == []


def test_long_bars_are_delisted_after_three_of_them():
    months = pd.date_range("2020-01-31", periods=24, freq="ME")
    assert delisted(months, months.delete([1, 9, 10])) == []
    assert delisted(months, months[:10]) == [("B", str(months[13])[:10] + "T00:00")]


@pytest.mark.parametrize("seed", range(3))
def test_a_row_is_judged_by_the_rows_up_to_it(seed):
    """Histories with holes of their own and common ones, short waits and long: every prefix gives the same masks."""
    rng = np.random.default_rng(seed)
    days = np.where(rng.random(90) < 0.05, rng.integers(60, 120, 90), rng.integers(1, 4, 90))
    days[:5] = 1
    times = pd.Timestamp("2015-01-01") + pd.to_timedelta(np.cumsum(days), unit="D")
    present = rng.random((90, 2)) < 0.8
    for start in rng.integers(10, 80, 2):
        present[start : start + 25, 1] = False
    present[:, 0] |= ~present[:, 1]
    present[:5] = True

    def masks(rows: int) -> tuple[np.ndarray, ...]:
        parts = [random_bars(times[:rows][present[:rows, a]], "AB"[a]) for a in range(2)]
        market = Market.from_bars(parts, ["gap"], align=True)
        delisted = np.zeros((rows, 2), bool) if market.delisted is None else market.delisted
        return delisted, np.ones((rows, 2), bool) if market.listed is None else market.listed

    whole = masks(90)
    assert whole[0].any(), "or this proves nothing"
    for rows in range(10, 90, 9):
        for early, all_ in zip(masks(rows), whole, strict=True):
            np.testing.assert_array_equal(early[1:], all_[1:rows])  # no gap is known at row 0


def test_a_longer_file_leaves_the_result_of_a_shorter_one_as_it_was():
    begin, end = "2024-01-22", "2024-02-11T12:00"  # 492 hours: all results then share the programs of a test above
    coin = COIN[(begin <= COIN) & (end > COIN)]
    exchange = EXCHANGE[(begin <= EXCHANGE) & (EXCHANGE < "2024-01-27")]
    whole = [random_bars(coin, "COIN"), random_bars(exchange, "SPY")]

    def result(end: str):
        parts = [cut(bars, 0, int(np.searchsorted(bars.times, np.datetime64(end)))) for bars in whole]
        market = Market.from_bars(parts, ["gap"], align=True)
        return simulate(market, np.full((len(market.times), 2), 0.4), **AT_A_LOSS)

    long = result(end)
    delistings = long.fills[long.fills["reason"] == "delisted"]
    np.testing.assert_array_equal(delistings["time"], np.array(["2024-02-09T22:00"], "M8[ns]"))
    for end in ("2024-01-27T12:00", "2024-02-09T21:00", "2024-02-10T12:00"):
        short = result(end)
        np.testing.assert_array_equal(short.equity, long.equity[: len(short)])
        np.testing.assert_array_equal(short.units, long.units[: len(short)])


def test_union_calendar_gives_dt_and_periods_per_year():
    odd, even = DAYS[[0, 1, *range(2, 60, 2)]], DAYS[[0, *range(1, 60, 2)]]
    market = Market.from_bars([history("ODD", odd), history("EVEN", even)], FEATURES, align=True)
    assert len(market.times) == 60
    assert market.periods_per_year == 365
    np.testing.assert_allclose(market.dt[1:], 1 / 365, rtol=1e-14)


def test_a_bar_of_less_than_a_day_has_its_own_time_and_a_night_has_the_rest():
    hour = 1 / 365 / 24
    times = pd.date_range("2024-01-02 04:00", periods=9, freq="h").append(pd.DatetimeIndex(["2024-01-03 10:00"]))
    both = [history("A", times), history("B", times[1:])]
    for market in (Market.from_bars(both[0], FEATURES), Market.from_bars(both, FEATURES, align=True)):
        np.testing.assert_allclose(market.bar_dt, [0] + [hour] * 9, rtol=1e-14)
        np.testing.assert_allclose(market.dt, [0] + [hour] * 8 + [22 * hour], rtol=1e-14)
    assert Market.from_bars(WHOLE, FEATURES).bar_dt is None
    mixed = Market.from_bars([WHOLE, both[0]], FEATURES)
    np.testing.assert_array_equal(mixed.bar_dt[: len(WHOLE)], 0)


def test_aligning_one_asset_changes_nothing():
    one, two = Market.from_bars(WHOLE, FEATURES, align=True), Market.from_bars(WHOLE, FEATURES)
    assert one.symbols == two.symbols == ("WHOLE",)
    for name in ("times", "close", "features", "volatility", "dt", "segments"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
