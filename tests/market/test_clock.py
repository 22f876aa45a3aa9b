"""Time of day and day of week on the clock of a zone, against the standard library and by hand."""

import dataclasses
import math
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.clock import wall_clock
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import compute_features, day_of_week, resolve, time_of_day
from jaxtrader.market.market import Market

NAMES = ("time_of_day_sin", "time_of_day_cos", "day_of_week_sin", "day_of_week_cos")


def bars(times: pd.DatetimeIndex, tz: str | None = None) -> Bars:
    table = pd.DataFrame({name: 1.0 for name in ("open", "high", "low", "close")}, index=times)
    return dataclasses.replace(load_bars(table), tz=tz)


HOURS = pd.date_range("2024-03-04 00:30", periods=24 * 14, freq="h")


@pytest.mark.parametrize("tz", [None, "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_clock_features_against_the_standard_library(tz):
    # From 4 to 17 March 2024: New York puts its clocks on, on the 10th.
    values = compute_features(bars(HOURS, tz), [resolve(name) for name in NAMES])[:, 0]
    for row, time in zip(values, HOURS, strict=True):
        local = time.tz_localize("UTC").to_pydatetime().astimezone(ZoneInfo(tz or "UTC"))
        day = (local.hour * 3600 + local.minute * 60 + local.second) / 86400
        week = local.weekday() / 7
        wanted = [f(2 * math.pi * share) for share in (day, week) for f in (math.sin, math.cos)]
        np.testing.assert_allclose(row, wanted, rtol=0, atol=1e-12)


def test_clock_features_by_hand():
    table = bars(pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 06:00", "2024-01-01 12:00", "2024-01-07 18:00"]))
    np.testing.assert_allclose(time_of_day("sin").compute(table)[:, 0], [0, 1, 0, -1], atol=1e-12)
    np.testing.assert_allclose(time_of_day("cos").compute(table)[:, 0], [1, 0, -1, 0], atol=1e-12)
    monday, sunday = 0.0, 2 * math.pi * 6 / 7
    np.testing.assert_allclose(day_of_week("sin").compute(table)[[0, 3], 0], np.sin([monday, sunday]), atol=1e-12)


def test_time_zone_in_the_feature_name_overrides_that_of_the_bars():
    in_utc, in_tokyo = bars(HOURS), bars(HOURS, "Asia/Tokyo")
    named = resolve("time_of_day_sin@Asia/Tokyo")
    assert named.name == time_of_day("sin", "Asia/Tokyo").name == "time_of_day_sin@Asia/Tokyo"
    assert named.lookback == 1
    np.testing.assert_array_equal(named.compute(in_utc), time_of_day("sin").compute(in_tokyo))
    np.testing.assert_array_equal(named.compute(bars(HOURS, "America/New_York")), named.compute(in_utc))
    assert (named.compute(in_utc) != time_of_day("sin").compute(in_utc)).any()
    np.testing.assert_array_equal(resolve("day_of_week_cos@Asia/Tokyo").compute(in_utc)[:, 0], _weekday(9))


def _weekday(hours: int) -> np.ndarray:
    return np.cos(2 * np.pi * (HOURS + pd.Timedelta(hours=hours)).day_of_week.to_numpy() / 7)


def test_clock_features_have_no_look_ahead_and_look_back_1():
    table = bars(HOURS, "America/New_York")
    whole = compute_features(table, [resolve(name) for name in NAMES])
    for t in (0, 1, 7, 8, 100, 335):
        for first in (0, t):
            cut = bars(HOURS[first : t + 1], "America/New_York")
            assert compute_features(cut, [resolve(n) for n in NAMES])[-1].tobytes() == whole[t].tobytes()


def test_time_of_day_of_daily_bars_is_constant_and_accepted():
    market = Market.from_bars(bars(pd.bdate_range("2024-01-01", periods=50)), NAMES)
    assert market.ready.tolist() == [0]
    assert np.ptp(market.features[:, 0, :2], axis=0).tolist() == [0, 0]
    assert len(np.unique(market.features[:, 0, 2])) == 5


def test_unknown_time_zone_and_wave_are_rejected():
    with pytest.raises(DataError, match=r"tz='Mars/Olympus'` .*America/New_York"):
        resolve("time_of_day_sin@Mars/Olympus")
    with pytest.raises(DataError, match=r"time_of_day\('tan'\) .*'sin' or 'cos'"):
        time_of_day("tan")
    with pytest.raises(DataError, match="tz='nowhere'"):
        wall_clock(HOURS.to_numpy(), "nowhere")
