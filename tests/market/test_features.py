"""Features: against pandas and by hand, no look-ahead bit for bit, exact look-backs, scale-free."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest
from market.price_tables import cut, random_bars

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import (
    DEFAULT,
    Feature,
    column,
    compute_features,
    distance_to_mean,
    drawdown,
    gap,
    log_return,
    price_range,
    resolve,
    volatility,
    volume_ratio,
)

ALL = (
    log_return(),
    log_return(3),
    log_return(7),
    volatility(2),
    volatility(9),
    price_range(6),
    drawdown(8),
    distance_to_mean(5),
    volume_ratio(4),
    gap(),
    column("signal"),
)
BARS = 61


def walk(bars: int = BARS) -> Bars:
    """A random walk of daily bars, some of them without volume."""
    drawn = random_bars(pd.date_range("2020-01-01", periods=bars))
    traded = np.random.default_rng(0).uniform(size=(bars, 1)) > 0.2
    return dataclasses.replace(drawn, volume=drawn.volume * traded)


def series(bars: Bars, name: str) -> pd.Series:
    return pd.Series(getattr(bars, name)[:, 0])


@pytest.mark.parametrize("feature", [*ALL, *DEFAULT], ids=lambda feature: feature.name)
def test_no_look_ahead_and_lookback_is_enough(feature):
    bars = walk(320)
    whole = feature.compute(bars)
    k = feature.lookback
    assert whole.shape == (320, 1)
    assert np.isnan(whole[: k - 1]).all()
    assert np.isfinite(whole[k - 1 :]).all()
    for t in [*range(k - 1, k + 12), 300, 319]:
        if t < 320:
            assert feature.compute(cut(bars, 0, t + 1))[t].tobytes() == whole[t].tobytes()
            np.testing.assert_allclose(feature.compute(cut(bars, t - k + 1, t + 1))[-1], whole[t], rtol=0, atol=1e-6)


@pytest.mark.parametrize("feature", ALL, ids=lambda feature: feature.name)
def test_lookback_is_exact(feature):
    """Every bar before t-lookback+1 and after t may change. Bar t-lookback+1 itself matters."""
    bars, t, k = walk(), 40, feature.lookback
    changed = cut(bars, 0, BARS)
    for values in (changed.open, changed.high, changed.low, changed.close, changed.volume, changed.columns["signal"]):
        values[: t - k + 1] *= 1.7
        values[t + 1 :] *= 0.3
    assert feature.compute(changed)[t] == feature.compute(bars)[t]
    oldest = cut(bars, 0, BARS)
    for values in (oldest.open, oldest.high, oldest.low, oldest.close, oldest.volume, oldest.columns["signal"]):
        values[t - k + 1] = values[t - k + 1] * 5 + 1
    assert feature.compute(oldest)[t] != feature.compute(bars)[t]


@pytest.mark.parametrize("feature", ALL[:-1], ids=lambda feature: feature.name)
def test_features_are_scale_free(feature):
    bars = walk()
    scaled = dataclasses.replace(
        bars, open=bars.open * 9, high=bars.high * 9, low=bars.low * 9, close=bars.close * 9, volume=bars.volume * 7
    )
    np.testing.assert_allclose(feature.compute(scaled), feature.compute(bars), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lookback", [0, -5, True, 1.5, "3", None])
def test_a_look_back_is_a_number_of_bars(lookback):
    with pytest.raises(ValueError, match=r"lookback.*must be a whole number of bars, at least 1"):
        Feature("own", lookback, np.ones_like)
    with pytest.raises(ValueError, match=r"lookback.*must be a whole number of bars"):
        dataclasses.replace(resolve("1w:log_return_2"), lookback=lookback)


def test_a_feature_has_a_name_and_a_function():
    for name in ("", None, 3):
        with pytest.raises(ValueError, match="has the name"):
            Feature(name, 1, np.ones_like)
    with pytest.raises(ValueError, match="own computes 'mean'; give a function"):
        Feature("own", 1, "mean")
    assert type(Feature("own", np.int64(3), np.ones_like).lookback) is int


@pytest.mark.parametrize("feature", ALL, ids=lambda feature: feature.name)
def test_history_shorter_than_the_lookback_is_nan(feature):
    short = cut(walk(), 0, feature.lookback - 1)
    assert np.isnan(feature.compute(short)).all()
    assert feature.compute(short).shape == (feature.lookback - 1, 1)


def test_features_against_pandas():
    bars = walk()
    close, log_close = series(bars, "close"), np.log(series(bars, "close"))
    volume = series(bars, "volume")
    wanted = {
        log_return(): log_close.diff(),
        log_return(3): log_close.diff(3),
        log_return(7): log_close.diff(7),
        volatility(9): log_close.diff().rolling(9).std(ddof=1),
        price_range(6): np.log(series(bars, "high") / series(bars, "low")).rolling(6).mean(),
        drawdown(8): np.log(close / series(bars, "high").rolling(8).max()),
        distance_to_mean(5): np.log(close / close.rolling(5).mean()),
        volume_ratio(4): volume / volume.rolling(4).mean(),
        gap(): np.log(series(bars, "open") / close.shift()),
    }
    for feature, values in wanted.items():
        np.testing.assert_allclose(feature.compute(bars)[:, 0], values, rtol=0, atol=1e-12, err_msg=feature.name)


def test_features_by_hand():
    columns = {"open": [10, 12, 9], "high": [20, 12, 9], "low": [10, 6, 8], "close": [10, 6, 9], "volume": [0, 0, 30]}
    bars = load_bars(pd.DataFrame(columns, index=pd.date_range("2020", periods=3)))
    assert drawdown(2).compute(bars)[1, 0] == pytest.approx(math.log(6 / 20))
    assert drawdown(2).compute(bars)[2, 0] == pytest.approx(math.log(9 / 12))
    assert gap().compute(bars)[2, 0] == pytest.approx(math.log(9 / 6))
    assert volume_ratio(2).compute(bars)[1:, 0].tolist() == [1, 2]
    a, b = math.log(0.6), math.log(1.5)
    assert volatility(2).compute(bars)[2, 0] == pytest.approx(math.sqrt((a - b) ** 2 / 2))


def test_features_of_constant_prices_are_zero():
    flat = {name: np.full(30, 7.3) for name in ("open", "high", "low", "close")}
    bars = load_bars(pd.DataFrame(flat, index=pd.date_range("2020", periods=30)))
    for feature in (volatility(20), log_return(5), drawdown(20), price_range(20), distance_to_mean(20)):
        np.testing.assert_allclose(feature.compute(bars)[feature.lookback - 1 :], 0, atol=1e-15)


def test_resolve_is_the_inverse_of_the_name():
    for feature in (*ALL, *DEFAULT):
        again = resolve(feature.name)
        assert (again.name, again.lookback) == (feature.name, feature.lookback)
        bars = walk(300)
        np.testing.assert_array_equal(again.compute(bars), feature.compute(bars))
    own = Feature("own", 1, lambda bars: bars.close)
    assert resolve(own) is own
    assert [feature.name for feature in DEFAULT] == [
        "volatility_20",
        "volatility_60",
        "price_range_20",
        "log_return_20",
        "log_return_252",
        "drawdown_252",
        "distance_to_mean_200",
    ]
    assert max(feature.lookback for feature in DEFAULT) == 253


@pytest.mark.parametrize("name", ["open", "High", "LOW", "close", "Adj Close"])
def test_price_levels_are_rejected_as_features(name):
    with pytest.raises(DataError, match=f"'{name}' .*use a ratio"):
        resolve(name)


def test_bad_features_are_rejected():
    with pytest.raises(DataError, match=r"'volume' .*use volume_ratio_20"):
        resolve("volume")
    with pytest.raises(DataError, match=r"7 .*give a Feature"):
        resolve(7)
    with pytest.raises(DataError, match=r"'volatility_20' .*rename"):
        column("volatility_20")
    for make, bars in ((volatility, 1), (log_return, 0), (drawdown, -3), (price_range, 2.5), (log_return, True)):
        with pytest.raises(DataError, match=rf"{re.escape(repr(bars))}.*integer of at least"):
            make(bars)
    with pytest.raises(DataError, match=r"volatility\(1\) .*at least 2"):
        resolve("volatility_1")
    with pytest.raises(DataError, match=r"'mood' .*volatility_20.* signal; correct the name"):
        column("mood").compute(walk())


def test_compute_features_keeps_the_order_and_checks_the_shape():
    bars = walk()
    stacked = compute_features(bars, ALL)
    assert stacked.shape == (BARS, 1, len(ALL))
    for i, feature in enumerate(ALL):
        np.testing.assert_array_equal(stacked[..., i], feature.compute(bars))
    with pytest.raises(DataError, match=r"flat .*\(61,\).*\(61, 1\)"):
        compute_features(bars, [Feature("flat", 1, lambda b: b.close[:, 0])])


def test_column_may_begin_with_nan_only():
    def with_signal(**changes):
        bars = walk()
        values = bars.columns["signal"].copy()
        for row, value in changes.items():
            values[int(row[1:])] = value
        return dataclasses.replace(bars, columns={"signal": values})

    warm = compute_features(with_signal(r0=np.nan, r1=np.nan), [column("signal")])
    assert np.isnan(warm[:2]).all()
    assert np.isfinite(warm[2:]).all()
    with pytest.raises(DataError, match=r"signal of asset .*NaN.* bar 30 \(2020-01-31 00:00:00\).*leave"):
        compute_features(with_signal(r30=np.nan), [column("signal")])
    for row in ("r0", "r30"):
        with pytest.raises(DataError, match=f"infinite at bar {row[1:]} "):
            compute_features(with_signal(**{row: np.inf}), [column("signal")])
        for value in (1e39, -1e39, np.nextafter(3.4028234663852886e38, np.inf)):
            with pytest.raises(DataError, match=f"beyond the largest number of float32.* at bar {row[1:]} "):
                compute_features(with_signal(**{row: value}), [column("signal")])
    assert compute_features(with_signal(r30=3.4e38), [column("signal")])[30] == 3.4e38


def test_custom_feature_must_be_finite_after_its_lookback():
    late = Feature("late", 3, lambda b: np.where(np.arange(len(b))[:, None] < 5, np.nan, 1.0))
    with pytest.raises(DataError, match=r"late .*NaN.* bar 2 "):
        compute_features(walk(), [late])


def test_feature_that_float32_cannot_represent_is_rejected():
    frame = pd.DataFrame({name: np.full(50, 2.0) for name in ("open", "high", "low", "close", "volume")})
    frame["stamp"] = 1.7e9 + np.random.default_rng(0).normal(0, 10, 50)
    frame.index = pd.date_range("2020-01-01", periods=50, tz="UTC")
    with pytest.raises(DataError, match=r"stamp .*1.7e\+09.*float32.*subtract"):
        compute_features(load_bars(frame), [resolve("stamp")])
