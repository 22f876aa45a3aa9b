"""Resampled features: against pandas' resample and merge_asof, with gaps, and no look-ahead into incomplete bars."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from market.price_tables import cut, random_bars

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import column, compute_features, log_return, resampled, resolve
from jaxtrader.market.market import Market


def walk(times: pd.DatetimeIndex, seed: int = 0, tz: str | None = None) -> Bars:
    return dataclasses.replace(random_bars(times, seed=seed, deviation=0.002), tz=tz)


def with_holes(times: pd.DatetimeIndex, share: float = 0.15, seed: int = 3) -> pd.DatetimeIndex:
    """Some bars left out, and a whole stretch."""
    kept = np.random.default_rng(seed).uniform(size=len(times)) > share
    kept[len(times) // 2 : len(times) // 2 + 37] = False
    return times[kept]


def sessions(opens: str, bars: int) -> pd.DatetimeIndex:
    """Half hours of 25 working days, over the end of March and its clock changes, the first closing `opens` after 0."""
    days = pd.bdate_range("2024-03-18", periods=25) + pd.Timedelta(opens)
    return pd.DatetimeIndex(np.concatenate([pd.date_range(day, periods=bars, freq="30min") for day in days]))


SESSIONS = sessions("14h", 14)
CALENDARS = {
    "minutes": pd.date_range("2024-01-01 10:37", periods=900, freq="min"),
    "holes": with_holes(pd.date_range("2024-01-01 10:37", periods=900, freq="min")),
    "half hours": pd.date_range("2024-01-01 03:30", periods=900, freq="30min"),
    "sessions": SESSIONS,
    "holes in sessions": with_holes(SESSIONS),
}


def reference(bars: Bars, frame: str, name: str, closed: str = "right") -> np.ndarray:
    """`name` on pandas' bars of a frame, the first left out as it may be cut off, joined where they are complete."""
    table = {n: getattr(bars, n)[:, 0] for n in ("open", "high", "low", "close", "volume")}
    table = pd.DataFrame(table | {"signal": bars.columns["signal"][:, 0]}, index=pd.DatetimeIndex(bars.times))
    monday = pd.Timestamp("1970-01-05")
    coarse = table.resample(frame.replace("d", "D"), closed=closed, label="right", origin=monday)
    first, last = coarse.first(), coarse.last()
    log_close = np.log(last.close.dropna())
    values = {
        "log_return_1": log_close.diff(),
        "log_return_3": log_close.diff(3),
        "volatility_4": log_close.diff().rolling(4).std(ddof=1),
        "price_range_2": np.log(coarse.high.max() / coarse.low.min()).dropna().rolling(2).mean(),
        "gap": np.log(first.open.dropna() / last.close.dropna().shift()),
        "volume_ratio_3": coarse.volume.sum()[first.open.notna()].pipe(lambda v: v / v.rolling(3).mean()),
        "signal": last.signal.dropna(),
    }[name]
    bound = {"log_return_1": 2, "log_return_3": 4, "volatility_4": 5, "price_range_2": 2, "gap": 2, "volume_ratio_3": 3}
    values = values.iloc[bound.get(name, 1) :]  # of the second bar at the earliest: the first counts for nothing
    rows = pd.merge_asof(
        pd.DataFrame({"time": table.index}), values.rename("value").rename_axis("time").reset_index(), on="time"
    )
    return rows.value.to_numpy()


INNER = ("log_return_1", "log_return_3", "volatility_4", "price_range_2", "gap", "volume_ratio_3", "signal")


@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize(
    ("calendar", "frame"),
    [("minutes", "5min"), ("minutes", "1h"), ("holes", "5min"), ("holes", "15min"), ("half hours", "1h"),
     ("half hours", "4h"), ("half hours", "1d"), ("sessions", "1h"), ("sessions", "1d"), ("holes in sessions", "2h")],
)  # fmt: skip
def test_resampled_against_pandas(calendar, frame, name):
    bars = walk(CALENDARS[calendar])
    feature = resampled(frame, name)
    assert feature.name == f"{frame}:{name}"
    values = feature.compute(bars)
    assert values.shape == (len(bars), 1)
    wanted = reference(bars, frame, name)
    assert np.isfinite(wanted).sum() > 100
    np.testing.assert_allclose(values[:, 0], wanted, rtol=0, atol=1e-12)


def test_resampled_by_hand():
    times = pd.DatetimeIndex(["09:50", "10:00", "10:10", "10:30", "11:00", "11:20", "12:10"], tz=None)
    times = pd.DatetimeIndex([pd.Timestamp(f"2024-01-02 {t.time()}") for t in times])
    close = np.array([1.0, 2, 3, 4, 5, 6, 7])
    bars = load_bars(pd.DataFrame(dict.fromkeys(("open", "high", "low", "close"), close), index=times))
    # Hours end at 10:00 (cut off, left out), 11:00 with close 5, 12:00 with close 6, told by the bar of 12:10.
    values = resampled("1h", log_return(1)).compute(bars)[:, 0]
    np.testing.assert_allclose(values, [*[np.nan] * 6, np.log(6 / 5)], rtol=1e-14)
    ranges = resampled("1h", "price_range_1").compute(bars)[:, 0]
    np.testing.assert_allclose(ranges, [*[np.nan] * 4, np.log(5 / 3), np.log(5 / 3), 0], rtol=1e-14)


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("spec", ["1h:volatility_4", "2h:gap", "4h:price_range_2", "1d:log_return_1"])
def test_resampled_has_no_look_ahead_and_lookback_is_enough(calendar, spec):
    if calendar in ("minutes", "holes") and spec.startswith(("1d", "4h")):
        spec = spec.replace("1d", "30min").replace("4h", "45min")
    bars = walk(CALENDARS[calendar])
    feature = resolve(spec).for_bars(bars)
    whole, k = feature.compute(bars), feature.lookback
    assert np.isfinite(whole[k - 1 :]).all()
    assert k < len(bars) - 20
    for t in [*range(0, len(bars), 11), len(bars) - 1]:
        assert feature.compute(cut(bars, 0, t + 1)).tobytes() == whole[: t + 1].tobytes()
        if t >= k - 1:
            suffix = cut(bars, t - k + 1, t + 1)
            assert feature.compute(suffix)[-1].tobytes() == whole[t].tobytes()
            # Nor does it matter that the look-back is counted anew from these bars alone.
            assert resolve(spec).compute(suffix)[-1].tobytes() == whole[t].tobytes()
            assert resolve(spec).for_bars(suffix).lookback <= k


@pytest.mark.parametrize("calendar", CALENDARS)
def test_incomplete_coarse_bar_is_no_look_ahead(calendar):
    bars = walk(CALENDARS[calendar])
    feature = resampled("1h", "price_range_2")
    whole = feature.compute(bars)
    rng = np.random.default_rng(1)
    moved = 0
    for t in rng.choice(np.arange(60, len(bars) - 130), 40, replace=False):
        begun = pd.Timestamp(bars.times[t]).floor("h")  # all after it belongs to an hour that is not over at t
        later = bars.times > begun.to_datetime64()
        changed = cut(bars, 0, len(bars))
        for name in ("open", "high", "low", "close", "volume"):
            getattr(changed, name)[later] *= rng.uniform(0.5, 2)
        changed.high[later] *= 1.5
        other = feature.compute(changed)
        assert other[t].tobytes() == whole[t].tobytes()
        assert other[: t + 1][~later[: t + 1]].tobytes() == whole[: t + 1][~later[: t + 1]].tobytes()
        moved += (other[-1] != whole[-1]).any()
    assert moved == 40


def test_complete_coarse_bar_is_used_at_once():
    bars = walk(CALENDARS["minutes"])
    feature = resampled("1h", "log_return_1")
    at = int(np.flatnonzero(bars.times == np.datetime64("2024-01-01T18:00"))[0])
    changed = cut(bars, 0, len(bars))
    changed.close[at] *= 1.01
    one, two = feature.compute(bars), feature.compute(changed)
    assert one[at - 1] == two[at - 1]
    np.testing.assert_allclose(two[at : at + 60] - one[at : at + 60], np.log(1.01), rtol=1e-9)


def test_days_and_weeks_of_the_time_zone():
    sydney = sessions("-1h", 12)
    bars = walk(sydney, tz="Australia/Sydney")
    local = dataclasses.replace(
        bars, tz=None, times=sydney.tz_localize("UTC").tz_convert(bars.tz).tz_localize(None).to_numpy()
    )
    for name in ("log_return_1", "price_range_2"):
        values = resampled("1d", name).compute(bars)
        np.testing.assert_allclose(values[:, 0], reference(local, "1D", name), rtol=0, atol=1e-12)
        unzoned = dataclasses.replace(bars, tz=None)
        assert not np.array_equal(values, resampled("1d", name).compute(unzoned), equal_nan=True)
        named = resolve(f"1d@Australia/Sydney:{name}")
        assert named.name == f"1d@Australia/Sydney:{name}"
        np.testing.assert_array_equal(named.compute(unzoned), values)
    weekly = resampled("1w", "log_return_1").compute(bars)[:, 0]
    np.testing.assert_allclose(weekly, reference(local, "7D", "log_return_1"), rtol=0, atol=1e-12)


def test_clock_change_over_midnight_keeps_the_day():
    # Newfoundland, 29 October 2006: a minute after midnight it was 23:01 of the 28th again, for 59 minutes.
    bars = walk(pd.date_range("2006-10-26 12:00", "2006-10-31 12:00", freq="min"), tz="America/St_Johns")
    feature = resampled("1d", "price_range_1")
    midnight = int(np.flatnonzero(bars.times == np.datetime64("2006-10-29T02:30"))[0])
    day = slice(midnight - 1439, midnight + 1)
    wanted = np.log(bars.high[day].max() / bars.low[day].min())
    values = feature.compute(bars)[:, 0]
    assert values[midnight] == pytest.approx(wanted, rel=1e-12)
    assert values[midnight + 200] == values[midnight]
    changed = cut(bars, 0, len(bars))
    changed.high[midnight + 1 : midnight + 61] *= 2
    np.testing.assert_array_equal(feature.compute(changed)[: midnight + 201, 0], values[: midnight + 201])


def test_weeks_of_daily_bars_run_from_monday_to_sunday():
    bars = walk(pd.bdate_range("2020-01-01", periods=300))
    for name in ("log_return_3", "volume_ratio_3"):
        values = resampled("1w", name).compute(bars)[:, 0]
        np.testing.assert_allclose(values, reference(bars, "7D", name, closed="left"), rtol=0, atol=1e-12)
    feature = resampled("1w", "log_return_1").for_bars(bars)
    assert feature.lookback == 3 * 5 + 1
    for t in range(15, 300, 7):
        assert feature.compute(cut(bars, t - 15, t + 1))[-1] == feature.compute(bars)[t]


def test_lookback_of_a_market_with_several_frames():
    bars = walk(CALENDARS["half hours"])
    market = Market.from_bars(bars, ["log_return_1", "4h:volatility_4", "1d:gap", "4h:signal"])
    assert market.feature_names == ("log_return_1", "4h:volatility_4", "1d:gap", "4h:signal")
    assert market.lookback == 3 * 48 + 1
    assert market.ready[0] < market.lookback
    assert np.isfinite(market.features[market.ready[0] :]).all()
    np.testing.assert_array_equal(market.features[..., 1], resolve("4h:volatility_4").compute(bars))
    last = cut(bars, len(bars) - market.lookback, len(bars))
    live = Market.from_bars(last, market.feature_names)
    np.testing.assert_allclose(live.features[-1], market.features[-1], rtol=0, atol=1e-12)


def test_aligned_assets_are_resampled_from_their_own_bars():
    calendar = CALENDARS["half hours"]
    one, two = walk(calendar), dataclasses.replace(walk(with_holes(calendar), seed=1), symbols=("B",))
    market = Market.from_bars([one, two], ["4h:volatility_4"], align=True)
    alone = Market.from_bars(two, ["4h:volatility_4"])
    np.testing.assert_array_equal(market.features[market.present[:, 1], 1], alone.features[:, 0])


def test_column_warm_up_may_be_longer_than_the_frame():
    bars = walk(CALENDARS["half hours"])
    signal = bars.columns["signal"].copy()
    signal[:500] = np.nan
    warm = dataclasses.replace(bars, columns={"signal": signal})
    values = compute_features(warm, [resampled("4h", column("signal"))])
    assert np.isnan(values[:500]).all()
    assert np.isfinite(values[507:]).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("7h:gap", "'7h' .*divides a day"),
        ("0min:gap", "'0min' .*divides a day"),
        ("2d:gap", "'2d' .*'1d' or '1w'"),
        ("1h:4h:gap", "1h:4h:gap .*longer frame alone"),
        ("1h:volatility_1", r"volatility\(1\) .*at least 2"),
        ("1h:close", "'close' .*use a ratio"),
        ("1d@Mars/Olympus:gap", "'Mars/Olympus'.*America/New_York"),
    ],
)
def test_bad_frames_are_rejected(spec, message):
    with pytest.raises(DataError, match=message):
        resolve(spec)


def test_frame_must_be_longer_than_the_bars():
    bars = walk(CALENDARS["half hours"])
    for spec in ("30min:gap", "15min:gap"):
        with pytest.raises(DataError, match=f"{spec[:5]} .* asset, .*0:30:00; use a longer frame"):
            Market.from_bars(bars, [spec])
    with pytest.raises(DataError, match=r"asset has 900 bars, .* 1d:volatility_20, .* 1057; give more bars"):
        Market.from_bars(bars, ["1d:volatility_20"])
