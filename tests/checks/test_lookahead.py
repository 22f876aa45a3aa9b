"""Check 1 on planted faults, one of each kind, and on features that have none."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from market.price_tables import random_bars

from jaxtrader.checks import past_only
from jaxtrader.market.features import DEFAULT, Feature, log_return, resolve


def walk(bars=400, seed=0, name="W"):
    return random_bars(pd.date_range("2020-01-01", periods=bars), name, seed)


def rolling(values, bars, **settings):
    return pd.DataFrame(values).rolling(bars, **settings)


def smoothed(bars):
    """The mean of two bars before, the bar, and two after it."""
    return np.log(bars.close / rolling(bars.close, 5, center=True, min_periods=1).mean().to_numpy())


def standardized(bars):
    """Momentum in deviations of the whole history."""
    values = log_return(20).compute(bars)
    return (values - np.nanmean(values)) / np.nanstd(values)


def mondays(bars):
    """The past, but for the bar after every Monday's."""
    values = log_return(5).compute(bars)
    peek = pd.DatetimeIndex(bars.times[:-1]).day_of_week == 0
    values[:-1][peek] = np.log(bars.close[1:] / bars.close[:-1])[peek]
    return values


def year_ends(bars):
    """The past, but that the last bar of a year is filled from the next one's first."""
    values = log_return(5).compute(bars)
    ends = np.flatnonzero(np.diff(pd.DatetimeIndex(bars.times).year))
    values[ends] = values[ends + 1]
    return values


FAULTS = {
    "centred": (Feature("centred", 5, smoothed), "those up to row"),
    "standardized": (Feature("standardized", 21, standardized), "those up to row"),
    "mondays": (Feature("mondays", 6, mondays), "those up to row"),
    "short": (Feature("short", 10, log_return(20).compute), "the last 10 bars, its look-back"),
    "endless": (
        Feature("endless", 20, lambda b: b.close / pd.DataFrame(b.close).ewm(span=50).mean().to_numpy()),
        "the last 20 bars, its look-back",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_and_is_named(fault):
    feature, known = FAULTS[fault]
    bars = (walk(name="UP"), walk(seed=1, name="DN"))
    check = past_only(bars, [*DEFAULT[:2], feature])
    assert not check.passed
    assert check.figure == 2 > check.limit == 0
    assert known in check.text
    assert check.text.endswith(f"features at fault: {fault}")
    named = re.match(rf"{fault} of UP at row (\d+) \((\d{{4}}-\d\d-\d\d) 00:00\) is (\S+) from all bars", check.text)
    row = int(named[1])
    assert named[2] == str(bars[0].times[row])[:10]
    assert float(named[3]) == pytest.approx(feature.compute(bars[0])[row, 0], rel=1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_rows_at_the_ends_of_years_and_after_holes_are_always_looked_at(seed):
    bars = walk(5_000)
    fault = Feature("year ends", 6, year_ends)
    assert not past_only(bars, [fault], seed=seed).passed
    times = bars.times + np.where(np.arange(5_000) > 3_210, np.timedelta64(60, "D"), np.timedelta64(0, "D"))
    late = dataclasses.replace(bars, times=times)

    def across(bars):
        values = log_return(5).compute(bars)
        hole = np.flatnonzero(np.diff(bars.times) > np.timedelta64(9, "D"))
        values[hole] = values[hole + 1]
        return values

    assert not past_only(late, [Feature("across", 6, across)], seed=seed).passed


def test_features_of_the_past_pass():
    # Running sums drift with what came before, by far less than the tolerance of the suffix test.
    drifting = Feature("drifting", 10, lambda b: np.log(b.close / rolling(b.close, 10).mean().to_numpy()))
    mixed = [*DEFAULT, *map(resolve, ("gap", "volume_ratio_20", "log_return_1")), drifting]
    check = past_only((walk(), walk(seed=1, name="B")), mixed)
    assert check.passed
    assert check.figure == 0
    assert "of 22" in check.measure


def test_a_history_as_short_as_the_lookback_is_no_fault():
    for bars in (20, 21, 22, 23):
        assert past_only(walk(bars), [log_return(20)]).passed


def test_small_features_are_held_to_their_own_size():
    """A look-back of 59 for 60 moves a minute's volatility by less than 1e-6, and is wrong all the same."""
    bars = walk()
    calm = dataclasses.replace(bars, close=50 * (bars.close / 50) ** 1e-3)
    volatility = resolve("volatility_60")
    # The mean over those that are there, so that it is known with fewer.
    mean = Feature("mean", 60, lambda b: rolling(volatility_of(b), 61, min_periods=1).mean().to_numpy())
    assert past_only(calm, [volatility]).passed
    assert not past_only(calm, [mean]).passed


def volatility_of(bars):
    return np.abs(np.diff(np.log(bars.close), axis=0, prepend=np.log(bars.close[:1])))


def test_a_column_of_the_file_is_said_to_pass_by_its_making():
    check = past_only(walk(), ["log_return_5", "signal"])
    assert check.passed
    assert "not of columns of the file (signal)" in check.text


def test_frames_and_clocks_pass_and_a_frame_joined_where_it_begins_fails():
    hours = pd.DatetimeIndex(walk(600).times[0] + np.arange(1, 601) * np.timedelta64(30, "m"))
    bars = dataclasses.replace(walk(600), times=hours.to_numpy(), price_factor=np.ones((600, 1)))
    check = past_only(bars, ["4h:volatility_4", "1d:gap", "time_of_day_sin"])
    assert check.passed, check.text

    def begun(b):
        """The range of four hours as it will be, from their first half hour on."""
        table = pd.DataFrame({"high": b.high[:, 0], "low": b.low[:, 0]})
        hours = table.groupby(pd.DatetimeIndex(b.times).ceil("4h"))
        return np.log(hours.high.transform("max") / hours.low.transform("min")).to_numpy()[:, None]

    assert not past_only(bars, [Feature("begun", 8, begun)]).passed
