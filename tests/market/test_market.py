"""Market and MarketArrays: concatenated histories, splits without look-ahead, periods per year, first decisions."""

import dataclasses
from datetime import UTC, date, datetime

import jax
import numpy as np
import pandas as pd
import pytest
from market.price_tables import cut, frame, random_bars

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.datasets import load_bundled, load_currencies
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, column, distance_to_mean, gap, resampled, volatility
from jaxtrader.market.market import Market, MarketArrays

FEATURES = ("volatility_5", "log_return_3", "drawdown_6", "gap")


def history(name: str, start: str, bars: int, freq: str = "D") -> Bars:
    return random_bars(pd.date_range(start, periods=bars, freq=freq), name)


LONG, SHORT = history("LONG", "2020-01-01", 100), history("SHORT", "2020-02-20", 40)


def both() -> Market:
    return Market.from_bars([LONG, SHORT], FEATURES)


def test_histories_are_concatenated_and_independent():
    market = both()
    assert market.symbols == ("LONG", "SHORT")
    np.testing.assert_array_equal(market.segments, [[0, 0, 100], [100, 100, 140]])
    for name in ("times", "open", "high", "low", "close", "volume"):
        wanted = np.concatenate([getattr(LONG, name), getattr(SHORT, name)])
        np.testing.assert_array_equal(getattr(market, name), wanted)
    alone = Market.from_bars(SHORT, FEATURES)
    np.testing.assert_array_equal(market.features[100:], alone.features)
    np.testing.assert_array_equal(market.volatility[100:], alone.volatility)
    np.testing.assert_array_equal(market.dt[100:], alone.dt)
    assert market.features.shape == (140, 1, 4)
    assert market.feature_names == FEATURES
    assert market.lookback == 6
    with pytest.raises(ValueError, match="read-only"):
        market.close[0] = 1


def test_dt_is_act_365_and_zero_at_a_history_start():
    times = pd.DatetimeIndex(np.array(["2024-01-05", "2024-01-08", "2024-01-08T00:01"], "M8[ns]"))
    bars = load_bars(pd.DataFrame({name: 1.0 for name in ("open", "high", "low", "close")}, index=times))
    market = Market.from_bars(bars, ["log_return_1"], periods_per_year=252)
    np.testing.assert_allclose(market.dt, [0, 3 / 365, 1 / (365 * 24 * 60)], rtol=1e-14)
    assert both().dt[100] == 0


def test_volatility_against_pandas_and_no_look_ahead():
    market = Market.from_bars(LONG, FEATURES)
    wanted = np.log(pd.Series(LONG.close[:, 0])).diff().rolling(20, min_periods=2).std(ddof=1)
    np.testing.assert_allclose(market.volatility[2:, 0], wanted[2:], rtol=1e-10)
    np.testing.assert_array_equal(market.volatility[:2, 0], 1e-6)
    for t in (0, 1, 5, 19, 20, 21, 60):
        alone = Market.from_bars(
            cut(LONG, 0, t + 1), [Feature("one", 1, lambda b: np.ones(b.close.shape))], periods_per_year=365
        )
        assert alone.volatility[t].tobytes() == market.volatility[t].tobytes()


def test_volatility_floor():
    flat = pd.DataFrame({name: 3.0 for name in ("o", "h", "l", "c")}, index=pd.date_range("2020", periods=30))
    assert (Market.from_bars(load_bars(flat), [volatility(5)]).volatility == 1e-6).all()


def test_ready_and_first_decisions():
    market = both()
    # volatility_5 and drawdown_6 look back over 6 bars: row 5 of a history is the first with all features.
    np.testing.assert_array_equal(market.ready, [5, 105])
    test = market.split("2020-03-01")[1]
    np.testing.assert_array_equal(test.ready, [5, 105])
    for part, window, rows in (
        (market, 1, [5, 105]),
        (market, 4, [8, 108]),
        (test, 4, [60, 110]),
        (test, 70, [74, 174]),
    ):
        np.testing.assert_array_equal(part.first_decisions(window), rows)
        on_device = jax.jit(MarketArrays.first_decisions, static_argnums=1)(part.arrays(), window)
        assert on_device.dtype == np.int32
        np.testing.assert_array_equal(on_device, rows)
    for part in (market, market.arrays()):
        with pytest.raises(DataError, match=r"window=0` .*at least 1"):
            part.first_decisions(0)


def test_column_warm_up_moves_ready():
    values = LONG.columns["signal"].copy()
    values[:30] = np.nan
    bars = dataclasses.replace(LONG, columns={"signal": values})
    assert Market.from_bars(bars, ["signal", "gap"]).ready.tolist() == [30]
    never = dataclasses.replace(LONG, columns={"signal": values * np.nan})
    with pytest.raises(DataError, match=r"LONG .* signal; leave"):
        Market.from_bars(never, ["gap", "signal"])


def test_split_by_date_cuts_all_symbols_at_once():
    market = both()
    train, test = market.split("2020-03-01")
    # 2020-03-01 is day 60 of LONG (31 + 29) and day 10 of SHORT. The bar at the date belongs to the later part.
    np.testing.assert_array_equal(train.segments, [[0, 0, 60], [100, 100, 110]])
    np.testing.assert_array_equal(test.segments, [[0, 60, 100], [100, 110, 140]])
    for part in (train, test):
        assert part.symbols == ("LONG", "SHORT")
        for name in ("times", "close", "features", "volatility", "dt"):
            assert getattr(part, name) is getattr(market, name)
        assert part.periods_per_year == market.periods_per_year
    same = datetime(2020, 2, 29, 19, tzinfo=None).isoformat() + "-05:00"
    for other in (date(2020, 3, 1), datetime(2020, 3, 1), datetime(2020, 3, 1, tzinfo=UTC), same, "2020-03"):
        np.testing.assert_array_equal(market.split(other)[0].segments, train.segments)
    for other in (np.datetime64("2020-03-01"), pd.Timestamp("2020-03-01", tz="UTC"), pd.Timestamp("2020-03-01")):
        np.testing.assert_array_equal(market.split(other)[0].segments, train.segments)


def test_split_by_fractions_of_the_union_calendar():
    market = both()
    train, valid, test = market.split(0.6, 0.2, 0.2)
    # The union calendar has 100 days: cuts before day 60 and day 80, which are days 10 and 30 of SHORT.
    np.testing.assert_array_equal(train.segments, [[0, 0, 60], [100, 100, 110]])
    np.testing.assert_array_equal(valid.segments, [[0, 60, 80], [100, 110, 130]])
    np.testing.assert_array_equal(test.segments, [[0, 80, 100], [100, 130, 140]])
    np.testing.assert_array_equal(market.split(0.6, 0.2)[1].segments, valid.segments)
    np.testing.assert_array_equal(market.split(1.0)[0].segments, market.segments)
    tenths = market.split(*[0.1] * 10)  # which add up to 0.9999999999999999
    assert sum(int(np.sum(part.segments[:, 2] - part.segments[:, 1])) for part in tenths) == 140


def test_split_leaves_out_symbols_without_bars():
    early, late = both().split("2020-02-01")
    assert early.symbols == ("LONG",)
    np.testing.assert_array_equal(early.segments, [[0, 0, 31]])
    assert late.symbols == ("LONG", "SHORT")
    np.testing.assert_array_equal(late.segments, [[0, 31, 100], [100, 100, 140]])


def test_split_of_a_split_keeps_history_start():
    _, late = both().split("2020-02-01")
    first, second = late.split(0.5, 0.5)
    # 69 days are left. The cut is after round(34.5) = 34 of them, 2020-03-06.
    np.testing.assert_array_equal(first.segments, [[0, 31, 65], [100, 100, 115]])
    np.testing.assert_array_equal(second.segments, [[0, 65, 100], [100, 115, 140]])


def test_embargo_shortens_the_first_part_only():
    train, valid, test = both().split(0.6, 0.2, 0.2, embargo=4)
    np.testing.assert_array_equal(train.segments, [[0, 0, 56], [100, 100, 106]])
    np.testing.assert_array_equal(valid.segments, [[0, 60, 80], [100, 110, 130]])
    np.testing.assert_array_equal(test.segments, [[0, 80, 100], [100, 130, 140]])
    assert both().split(0.6, 0.4, embargo=10)[0].symbols == ("LONG",)


def test_no_look_ahead_across_a_split():
    def changed(bars: Bars) -> Bars:
        after = bars.times >= np.datetime64("2020-03-01")
        rng = np.random.default_rng(9)
        new = {}
        for name in ("open", "high", "low", "close", "volume"):
            values = getattr(bars, name).copy()
            values[after] *= rng.uniform(0.5, 2, (after.sum(), 1))
            new[name] = values
        return dataclasses.replace(bars, **new)

    train = both().split("2020-03-01")[0]
    other = Market.from_bars([changed(LONG), changed(SHORT)], FEATURES).split("2020-03-01")[0]
    np.testing.assert_array_equal(train.segments, other.segments)
    np.testing.assert_array_equal(train.ready, other.ready)
    for start, _, end in train.segments:
        for name in ("times", "open", "high", "low", "close", "volume", "features", "volatility", "dt"):
            mine, theirs = getattr(train, name), getattr(other, name)
            assert mine[start:end].tobytes() == theirs[start:end].tobytes(), name
            if name in ("close", "features", "volatility"):
                assert mine[end:].tobytes() != theirs[end:].tobytes(), name


@pytest.mark.parametrize(
    ("parts", "embargo", "message"),
    [
        ((), 0, "fractions, .* or dates"),
        ((0.8, 0.3), 0, r"1\.1.* at most 1"),
        ((0.8, -0.1), 0, "-0.1 .*above 0"),
        ((float("nan"),), 0, "above 0"),
        ((2011,), 0, "2011 .*give a date"),
        (("2020-03-01", 0.5), 0, "2020-03-01.*fractions and dates"),
        (("2020-03-01", "2020-02-01"), 0, "2020-02-01 .*in order"),
        (("01/02/2020",), 0, "01/02/2020.* write it as"),
        ((True,), 0, "True .*write it as"),
        (("2030-01-01",), 0, "Part 2 .*2030-01-01.* 2020-01-01 to 2020-04-09, so move"),
        (("2019-01-01",), 0, "Part 1 .*2019-01-01.*move the cut"),
        ((0.001, 0.5), 0, r"100 bars are too few for parts of 0\.001, 0\.5"),
        ((0.1, 0.5), 10, "Part 1 .*embargo of 10 bars.*move"),
    ],
)
def test_bad_splits_are_rejected(parts, embargo, message):
    with pytest.raises(DataError, match=message):
        both().split(*parts, embargo=embargo)


@pytest.mark.parametrize("embargo", [-1, 1.5, True, "1"])
def test_an_embargo_is_a_whole_number_of_bars(embargo):
    with pytest.raises(ValueError, match=f"`embargo={embargo!r}` must be a whole number of bars, at least 0"):
        both().split(0.5, 0.5, embargo=embargo)


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        (pd.date_range("2015-01-01", periods=36, freq="MS"), 12),
        (pd.date_range("2015-01-01", periods=150, freq="7D"), 52),
        (pd.bdate_range("2015-01-01", periods=1500).delete(np.arange(20, 1500, 29)), 252),
        (pd.date_range("2015-01-01", periods=800), 365),
        (pd.date_range("2015-01-01", periods=2000, freq="h"), 8760),
        (pd.date_range("2015-01-01", periods=2000, freq="30min"), 8760 * 2),
        (pd.date_range("2015-01-01", periods=2000, freq="15min"), 8760 * 4),
        (pd.date_range("2015-01-01", periods=2000, freq="5min"), 8760 * 12),
        (pd.date_range("2015-01-01", periods=2000, freq="min"), 8760 * 60),
        (pd.date_range("2015-01-01", periods=2000, freq="4h"), 365 * 6),
    ],
)
def test_periods_per_year_is_found(times, wanted):
    bars = load_bars(pd.DataFrame({name: 1.0 for name in ("open", "high", "low", "close")}, index=times))
    assert Market.from_bars(bars, [gap()]).periods_per_year == pytest.approx(wanted, rel=1e-12)


def test_periods_per_year_given_or_in_doubt():
    bars = random_bars(pd.bdate_range("2018-01-01", periods=30))
    found, given = Market.from_bars(bars, [gap()]), Market.from_bars(bars, [gap()], periods_per_year=260)
    assert found.periods_per_year == 252
    assert any("periods_per_year" in note and "260" in note for note in found.notes)
    assert given.periods_per_year == given.periods_of("asset") == 260
    assert given.notes == ()
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(DataError, match=f"periods_per_year={bad}` .*above 0"):
            Market.from_bars(bars, [gap()], periods_per_year=bad)


def test_each_history_has_its_own_periods_per_year_and_all_have_that_of_their_union():
    stock = random_bars(pd.bdate_range("2020-01-01", periods=400).delete([20, 50, 90, 130, 170, 210]), "STOCK")
    market = Market.from_bars(
        [history("COIN", "2020-01-01", 560), stock, history("W", "2020-01-01", 80, "7D")], FEATURES
    )
    assert [market.periods_of(symbol) for symbol in market.symbols] == [365, 252, 52]
    assert market.periods_per_year == 365
    assert "52 to 365 periods a year" in market.describe()
    stocks = Market.from_bars([stock, dataclasses.replace(stock, symbols=("OTHER",))], FEATURES)
    assert stocks.periods_per_year == 252
    given = Market.from_bars([stock, history("COIN", "2020-01-01", 560)], FEATURES, {"COIN": 366})
    assert (given.periods_of("STOCK"), given.periods_of("COIN"), given.periods_per_year) == (252, 366, 365)
    with pytest.raises(DataError, match=r"'BTC', .* STOCK"):
        Market.from_bars(stock, FEATURES, {"BTC": 366})
    late = market.split("2020-06-01")[1]
    assert late.periods_of("STOCK") == 252


def test_arrays_hold_the_columns_on_the_device():
    market = both()
    arrays = market.arrays()
    assert isinstance(arrays, MarketArrays)
    for name in ("open", "high", "low", "close", "volatility", "dt"):
        values = getattr(arrays, name)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, getattr(market, name).astype(np.float32))
    known = ~np.isnan(market.features)
    np.testing.assert_array_equal(np.asarray(arrays.features)[known], market.features[known].astype(np.float32))
    assert (np.asarray(arrays.features)[~known] == 0).all()
    assert arrays.segments.dtype == arrays.ready.dtype == np.int32
    np.testing.assert_array_equal(arrays.segments, market.segments)
    np.testing.assert_array_equal(arrays.ready, market.ready)
    assert len(jax.tree.leaves(arrays)) == 10  # nine, and the traded value that this volume allows
    assert jax.jit(lambda t: t.close.sum())(arrays) == pytest.approx(market.close.sum(), rel=1e-5)


def test_arrays_in_float64_only_inside_x64():
    market = both()
    with pytest.raises(ValueError, match="enable_x64"):
        market.arrays("float64")
    with jax.enable_x64(True):
        arrays = market.arrays("float64")
        assert arrays.close.dtype == np.float64
        np.testing.assert_array_equal(arrays.close, market.close)
        assert market.arrays().close.dtype == np.float32
    with pytest.raises(ValueError, match="use float32 or float64"):
        market.arrays("float16")


@pytest.mark.parametrize(
    ("bars", "features", "message"),
    [
        ([], None, "Bars are needed"),
        ([LONG, 3], None, "Bars are needed"),
        (LONG, (), "features=.* at least one"),
        ([LONG, LONG], FEATURES, "symbol 'LONG' .*once"),
        (LONG, ["gap", gap()], "feature 'gap' .*once"),
        ([SHORT, LONG], None, "LONG has 100 bars, .* log_return_252, .* 253, and no other symbol .*; give more bars"),
        (LONG, None, "LONG has 100 bars, .* log_return_252, .* 253; give more bars"),
        (LONG, ["mood"], "'mood' .*correct the name"),
        (history("ONE", "2020", 1), [column("signal")], "ONE .*one bar.*give"),
    ],
)
def test_bad_markets_are_rejected(bars, features, message):
    with pytest.raises(DataError, match=message):
        Market.from_bars(bars, features)


def test_describe_names_symbols_bars_and_dates():
    market = both()
    assert repr(market) == f"Market({market.describe()})"
    assert market.describe().startswith(
        "LONG, SHORT: 140 bars, 2020-01-01 to 2020-04-09, 365 periods a year, 4 features"
    )
    assert "50 bars, 2020-03-01 to" not in market.describe()
    assert market.split("2020-03-01")[1].describe().startswith("LONG, SHORT: 70 bars, 2020-03-01 to 2020-04-09")
    many = Market.from_bars([history(f"S{i}", "2020", 20) for i in range(6)], FEATURES)
    assert many.describe().startswith("S0, S1, S2, S3 and 2 more: 120 bars")


@pytest.mark.parametrize("align", [False, True])
def test_a_symbol_that_is_too_short_is_left_out_with_a_note(align):
    market = Market.from_bars([LONG, SHORT], ["gap", distance_to_mean(60)], align=align)
    alone = Market.from_bars([LONG], ["gap", distance_to_mean(60)], align=align)
    assert market.symbols == ("LONG",)
    np.testing.assert_array_equal(market.features, alone.features)
    assert [note for note in market.notes if "SHORT" in note] == [
        "SHORT: Left out, because its 40 bars are too few for distance_to_mean_60, which needs 60."
    ]
    kept = Market.from_bars([LONG, SHORT], ["gap"], align=align, min_bars=41)
    assert kept.symbols == ("LONG",)
    assert any("SHORT" in note and "`min_bars=" in note for note in kept.notes)
    assert "SHORT" in Market.from_bars([LONG, SHORT], ["gap"], align=align, min_bars=40).symbols[-1]
    with pytest.raises(ValueError, match="min_bars=0"):
        Market.from_bars([LONG, SHORT], ["gap"], align=align, min_bars=0)


def test_the_first_of_many_sources_are_listed():
    many = [dataclasses.replace(history(f"S{i}", "2020", 20), source=f"S{i}.csv") for i in range(10)]
    assert Market.from_bars(many, ["gap"]).source == ", ".join(f"S{i}.csv" for i in range(8)) + " and 2 more"


def test_notes_name_the_symbol():
    bars = dataclasses.replace(SHORT, notes=("A gap.",))
    assert Market.from_bars([LONG, bars], FEATURES).notes == ("SHORT: A gap.",)


@pytest.mark.parametrize("given", ["x", True, 1j, [252], {"LONG": "y"}, {"LONG": None}, float("nan"), float("inf"), 0])
def test_bars_in_a_year_are_a_number_above_0(given):
    with pytest.raises(DataError, match=r"`periods_per_year=.*must be a finite number above 0"):
        Market.from_bars(LONG, ["gap"], given)
    for number in (252, 252.0, np.float32(252), {"LONG": np.int64(252)}):
        assert Market.from_bars(LONG, ["gap"], number).periods_per_year == 252


def test_what_is_of_another_type_is_refused_by_name():
    for bars in (5, None, "x", [5]):
        with pytest.raises(DataError, match="Bars are needed"):
            Market.from_bars(bars, ["gap"])
    for features in (5, True, [5]):
        with pytest.raises(DataError, match="is not a feature; give a Feature, or a name"):
            Market.from_bars(LONG, features)
    with pytest.raises(DataError, match="5 is not the name of a column"):
        column(5)
    with pytest.raises(DataError, match="frame '5' is not supported"):
        resampled(5, "gap")
    for embargo in ("x", None, True, 1.5, -1):
        with pytest.raises(ValueError, match=r"`embargo=.*must be a whole number of bars"):
            both().split(0.5, 0.5, embargo=embargo)
    for symbol in (5, True, ["LONG"]):
        with pytest.raises(DataError, match=r"`symbol=.*must be the name of a symbol"):
            load_bars(frame(), symbol=symbol)
    for load in (load_bundled, load_currencies, lambda names: load_bars({"X": frame()}, symbols=names)):
        for symbols in (5, [5], [None]):
            with pytest.raises(DataError, match=r"`symbols=.*must be names of symbols"):
                load(symbols)
    assert load_bars({5: frame()}, symbol="5").symbols == ("5",)
