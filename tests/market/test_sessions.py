"""Session ends: stocks, half days, lunch breaks, currencies that close for the weekend, coins that never close."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from market.price_tables import random_bars

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bars import load_bars
from jaxtrader.market.calendar import find_calendar
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market
from jaxtrader.market.sessions import session_ends as ends_of

NEW_YORK = "America/New_York"


def session_ends(times: np.ndarray, tz: str | None) -> np.ndarray | None:
    return ends_of(times, find_calendar(times, tz), tz)


def stocks(first: str, last: str, minutes: int = 30, half_days: tuple[str, ...] = ()) -> pd.DatetimeIndex:
    """Closes of New York bars, 9:30 to 16:00 and to 13:00 on half days, as UTC."""
    days = []
    for day in pd.bdate_range(first, last):
        end = "13:00" if str(day.date()) in half_days else "16:00"
        opened = pd.Timestamp(f"{day.date()} 09:30") + pd.Timedelta(minutes=minutes)
        days.append(pd.date_range(opened, f"{day.date()} {end}", freq=f"{minutes}min", tz=NEW_YORK))
    return pd.DatetimeIndex(np.concatenate([d.tz_convert("UTC").tz_localize(None) for d in days]))


def test_session_end_of_stocks_and_half_days():
    # From March to December, so over the clock changes of March and November.
    times = stocks("2019-02-25", "2019-12-06", half_days=("2019-07-03", "2019-11-29"))
    local = times.tz_localize("UTC").tz_convert(NEW_YORK)
    ends = session_ends(times.to_numpy(), NEW_YORK)
    wanted = pd.Series(local.strftime("%Y-%m-%d")).duplicated(keep="last").to_numpy()
    np.testing.assert_array_equal(ends, ~wanted)
    assert set(local[ends].strftime("%H:%M")) == {"16:00", "13:00"}


def test_session_end_is_not_a_lunch_break_or_utc_midnight():
    days = pd.bdate_range("2024-01-01", "2024-01-31")
    sydney = [pd.date_range(f"{day.date()} 23:30", periods=12, freq="30min") for day in days]
    times = pd.DatetimeIndex(np.concatenate(sydney))
    ends = session_ends(times.to_numpy(), None)
    assert set(times[ends].strftime("%H:%M")) == {"05:00"}
    assert ends.sum() == 23
    halves = []
    for day in days:
        halves += [pd.date_range(f"{day.date()} 01:45", f"{day.date()} 04:00", freq="15min")]
        halves += [pd.date_range(f"{day.date()} 05:15", f"{day.date()} 08:00", freq="15min")]
    hong_kong = pd.DatetimeIndex(np.concatenate(halves))
    assert set(hong_kong[session_ends(hong_kong.to_numpy(), "Asia/Hong_Kong")].strftime("%H:%M")) == {"08:00"}


def test_session_end_of_currencies_is_the_weekend():
    hours = pd.date_range("2024-01-07 23:00", "2024-03-15 22:00", freq="h")  # Sunday 22:00 to Friday 22:00 UTC
    week = (hours.day_of_week * 24 + hours.hour).to_numpy()
    times = hours[(week <= 4 * 24 + 22) | (week >= 6 * 24 + 23)]
    ends = session_ends(times.to_numpy(), None)
    assert set(times[ends].strftime("%a %H:%M")) == {"Fri 22:00"}
    assert ends.sum() == 10


@pytest.mark.parametrize("bars_of", ["always", "outages", "thin", "serviced", "daily", "weekly"])
def test_session_end_is_none_without_sessions(bars_of):
    always = pd.date_range("2024-01-01", periods=3000, freq="30min")
    times = {
        "always": always,
        "outages": always.delete([*range(100, 120), *range(700, 760), *range(2000, 2012)]),
        "thin": always[np.random.default_rng(0).uniform(size=3000) > 0.3].delete(range(700, 720)),
        "serviced": always[(always.day_of_week != 2) | (always.hour >= 5)],  # shut for five hours a week
        "daily": pd.bdate_range("2024-01-01", periods=300),
        "weekly": pd.date_range("2024-01-01", periods=60, freq="7D"),
    }[bars_of]
    assert session_ends(times.to_numpy(), None) is None
    assert Market.from_bars(random_bars(times), ["log_return_1"]).session_end is None


def test_session_end_of_the_last_bar():
    times = stocks("2024-01-02", "2024-01-19").to_numpy()
    for k in range(1, 14):
        ends = session_ends(times[:-k], NEW_YORK)
        assert ends[-1] == (k == 13)
        np.testing.assert_array_equal(ends[:-1], session_ends(times, NEW_YORK)[: -k - 1])


def test_session_end_does_not_read_prices():
    times = stocks("2024-01-02", "2024-01-19")
    one, two = (Market.from_bars(random_bars(times, seed=seed), ["log_return_1"]) for seed in (0, 1))
    np.testing.assert_array_equal(one.session_end, two.session_end)
    assert one.session_end.sum() == 14


def test_session_end_of_several_histories():
    times, coins = stocks("2024-01-02", "2024-01-12"), pd.date_range("2024-01-02", periods=200, freq="30min")
    both = Market.from_bars([random_bars(times, "STOCK"), random_bars(coins, "COIN")], ["log_return_1"])
    np.testing.assert_array_equal(both.session_end, [*session_ends(times.to_numpy(), None), *[False] * 200])
    with pytest.raises(ValueError, match="COIN"):
        TradingEnv(both, rules=Rules(flat_at_session_end=True))
    arrays = both.arrays()
    assert arrays.session_end.dtype == bool
    np.testing.assert_array_equal(arrays.session_end, both.session_end)
    holes = times.delete([5, 12, 30])  # row 12 is a day's last
    joined = Market.from_bars([random_bars(times, "A"), random_bars(holes, "B")], ["log_return_1"], align=True)
    np.testing.assert_array_equal(joined.session_end, session_ends(times.to_numpy(), None))


def test_session_end_uses_the_time_zone_of_loading():
    wall = stocks("2024-01-02", "2024-01-19").tz_localize("UTC").tz_convert(NEW_YORK).tz_localize(None)
    table = pd.DataFrame({name: 1.0 for name in ("open", "high", "low", "close")}, index=wall)
    loaded = load_bars(table, tz=NEW_YORK)
    assert loaded.tz == NEW_YORK
    assert load_bars(table).tz is None
    assert Market.from_bars(loaded, ["log_return_1"]).session_end.sum() == 14
    with pytest.raises(DataError, match=r"tz='Mars/Olympus'` .*America/New_York"):
        Market.from_bars(dataclasses.replace(loaded, tz="Mars/Olympus"), ["log_return_1"])
