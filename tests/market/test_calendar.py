"""Calendars found from timestamps: the same bars a year, sessions and delistings as the generator of the times had."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market.price_tables import random_bars

from jaxtrader.market.calendar import find_calendar, gap_note, total_periods_per_year
from jaxtrader.market.market import Market
from jaxtrader.market.sessions import session_ends

MINUTE = np.timedelta64(1, "m")
WEEKS = {"Mon-Fri": "1111100", "Sun-Thu": "1111001", "Sat-Wed": "1110011"}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A market that was drawn, with what must be found in its times.

    Attributes:
        times: [T] datetime64[ns], UTC.
        tz: zone of its wall clock.
        periods: bars in a year.
        ends: [T] bool, the last bar of each session. None for a market without sessions.
    """

    times: np.ndarray
    tz: str
    periods: float
    ends: np.ndarray | None


def to_utc(wall: np.ndarray, tz: str) -> np.ndarray:
    local = pd.DatetimeIndex(wall).tz_localize(tz, ambiguous=False, nonexistent="shift_forward")
    return local.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")


def session_days(rng: np.random.Generator, weekmask: str, length: int, holidays: float) -> np.ndarray:
    """Days of sessions in `length` days, with so many holidays a year, and holes of weeks in long files."""
    first = np.datetime64("2015-01-01") + int(rng.integers(0, 1500))
    days = np.arange(first, first + length)
    open_ = days[np.is_busday(days, weekmask=weekmask)]
    shut = rng.choice(len(open_), min(round(holidays * length / 365), len(open_) // 3), replace=False)
    open_ = np.delete(open_, shut)
    if length > 150:
        for _ in range(rng.integers(0, 3)):
            start = first + int(rng.integers(20, length - 20))
            open_ = open_[(open_ < start) | (open_ > start + int(rng.integers(14, length // 4)))]
    return open_


def draw_exchange(rng: np.random.Generator, length: int, bar: int) -> Drawn:
    """Sessions of 4 to 10 hours, by day or over midnight, some with a lunch break, and some half days."""
    tz = str(rng.choice(["America/New_York", "Europe/London", "Asia/Tokyo", "Asia/Kolkata", "Australia/Sydney"]))
    weekmask = WEEKS[str(rng.choice(list(WEEKS)))]
    days = session_days(rng, weekmask, length, 9)
    bars = int(rng.integers(240, 600)) // bar
    opens = int(rng.integers(0, 48)) * 30
    session = opens + bar * np.arange(1, bars + 1)
    if rng.random() < 0.3 and bars >= 4:
        session[bars // 2 :] += 60
    rows = [session[: len(session) // 2] if rng.random() < 0.02 and len(days) > 20 else session for _ in days]
    rows[0] = rows[0][rng.integers(0, bars) if len(days) > 3 else 0 :]
    wall = np.concatenate([day.astype("M8[m]") + each for day, each in zip(days, rows, strict=True)])
    ends = np.zeros(len(wall), bool)
    ends[np.cumsum([len(each) for each in rows]) - 1] = True
    times = to_utc(wall, tz)
    kept = np.append(np.diff(times) > np.timedelta64(0), True)  # two may be one where clocks go forward
    return Drawn(times[kept], tz, 252 * bars, ends[kept])


def draw_currencies(rng: np.random.Generator, length: int, bar: int) -> Drawn:
    """Five days and nights a week, from 17:00 on Sunday to 17:00 on Friday in New York."""
    days = session_days(rng, WEEKS["Mon-Fri"], max(length, 9), 1)
    session = np.arange(bar, 24 * 60 + 1, bar) - 7 * 60
    wall = (days.astype("M8[m]")[:, None] + session).ravel()
    times = np.unique(to_utc(wall, "America/New_York"))
    ends = np.append(np.diff(times) - bar * MINUTE >= np.timedelta64(24, "h"), False)
    return Drawn(times, "America/New_York", 260 * 24 * 60 / bar, ends)


def draw_coin(rng: np.random.Generator, length: int, bar: int) -> Drawn:
    """Every day and night, in short files too, with holes of hours to months."""
    first = np.datetime64("2020-01-01T00:00") + int(rng.integers(0, 10_000)) * bar * MINUTE
    times = (first + np.arange(length * 24 * 60 // bar) * bar * MINUTE).astype("datetime64[ns]")
    for _ in range(rng.integers(0, 4) if length > 20 else 0):
        start = int(rng.integers(10, len(times) - 5))
        times = np.delete(times, slice(start, start + int(rng.integers(1, len(times) // 8))))
    return Drawn(times, str(rng.choice(["UTC", "Asia/Tokyo", "America/New_York"])), 365 * 24 * 60 / bar, None)


def draw_days(rng: np.random.Generator, length: int, bar: int) -> Drawn:
    """Daily bars of an exchange, stamped with a close or with dates alone, with holes of weeks in long files."""
    del bar
    tz = str(rng.choice(["America/New_York", "Europe/London", "Asia/Tokyo", "Asia/Kolkata", "Australia/Sydney"]))
    days = session_days(rng, WEEKS[str(rng.choice(list(WEEKS)))], length, 9)
    close = int(rng.choice([0, 16 * 60, 15 * 60 + 30]))
    return Drawn(to_utc(days.astype("M8[m]") + close, tz), tz, 252, None)


MARKETS = {"exchange": draw_exchange, "currencies": draw_currencies, "coin": draw_coin, "days": draw_days}


@pytest.mark.parametrize("kind", MARKETS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_calendar_that_was_drawn_is_found(kind, seed):
    rng = np.random.default_rng(seed)
    length = int(rng.choice([5, 9, 21, 60, 200, 450, 900]))
    bar = int(rng.choice([1, 5, 15, 30, 60] if length < 100 else [30, 60]))
    drawn = MARKETS[kind](rng, length, bar)
    calendar = find_calendar(drawn.times, drawn.tz)
    few = 61 if kind == "days" else 10
    assert calendar.doubt is None or length < few, "a file of a few days may be in doubt, and may be wrong then"
    if calendar.doubt is None:
        # Holidays and half days are drawn too.
        assert calendar.periods_per_year == pytest.approx(drawn.periods, rel=0.02)
    ends = session_ends(drawn.times, calendar, drawn.tz)
    if drawn.ends is None:
        assert ends is None
    elif drawn.ends[:-1].any():
        np.testing.assert_array_equal(ends[:-1], drawn.ends[:-1])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_history_is_delisted_beside_one_that_never_closes(seed):
    rng = np.random.default_rng(seed)
    kind, length = str(rng.choice(["exchange", "currencies"])), int(rng.choice([9, 60, 200]))
    times = MARKETS[kind](rng, length, 60).times
    coin = np.arange(times[0], times[-1] + np.timedelta64(9, "D"), 60 * MINUTE)
    since = coin - times[np.searchsorted(times, coin, side="right") - 1]
    coin = coin[since < np.timedelta64(10, "D")]  # a hole of weeks is in both
    end = coin[rng.integers(100, len(coin))]
    for some in ((coin, times), (coin[coin <= end], times[times <= end])):
        parts = [random_bars(pd.DatetimeIndex(each), name) for name, each in zip("AB", some, strict=True)]
        market = Market.from_bars(parts, ["gap"], align=True)
        assert market.delisted is None
        assert not any("delisted, at" in note for note in market.notes)


def sessions(days: pd.DatetimeIndex, opens: str = "09:30", bars: int = 390, step: str = "1min") -> np.ndarray:
    """Closes of the bars of each session."""
    starts = days + pd.Timedelta(f"{opens}:00")
    return (
        (starts.to_numpy()[:, None] + np.arange(1, bars + 1) * pd.Timedelta(step).to_numpy()).ravel().astype("M8[ns]")
    )


YEARS = pd.bdate_range("2015-01-05", periods=1300).delete(np.arange(20, 1300, 29))
SUNDAY_TO_THURSDAY = pd.bdate_range("2024-01-07", periods=40, freq="C", weekmask="Sun Mon Tue Wed Thu")
RNG = np.random.default_rng(0)
SOME = RNG.random(390 * 60) < 0.6
WEEK = pd.bdate_range("2024-03-04", periods=5)
FULL_DAY = 24 * 60


@pytest.mark.parametrize(
    ("times", "wanted", "doubt"),
    [
        (sessions(WEEK[:1]), 390 * 252, "whole week"),
        (sessions(WEEK), 390 * 252, "whole week"),
        (sessions(YEARS[:21]), 390 * 252, None),
        (sessions(YEARS, "10:30", 7, "1h"), 7 * 252, None),
        (sessions(YEARS, "13:30", 2, "3h"), 2 * 252, None),
        (sessions(SUNDAY_TO_THURSDAY, "09:59", 445), 445 * 252, None),
        (sessions(YEARS[:40], "21:00", 330), 330 * 252, None),  # over midnight
        (sessions(YEARS[:3])[200:-250], 390 * 252, "whole week"),  # cut off at both ends
        (sessions(YEARS[:60])[SOME], 390 * 252 * SOME.mean(), None),
        (np.concatenate([sessions(YEARS[:30]), sessions(YEARS[130:160])]), 390 * 252, None),
        (sessions(YEARS[:40], bars=120), 120 * 252, "2:00:00"),  # a part of a session
        (sessions(YEARS, "13:00", 3, "1h"), 3 * 252, "3:00:00"),
        (sessions(WEEK[:1], bars=24), 24 * 252, "whole week"),
        (sessions(YEARS[:40], bars=240), 240 * 252, None),
        (np.asarray(WEEK, "M8[ns]"), 252, "whole week"),
        (np.asarray(pd.bdate_range("2024-03-04", periods=60), "M8[ns]"), 252, "260"),
        (np.asarray(pd.bdate_range("2020-01-01", "2022-12-31"), "M8[ns]"), 260, None),
        (np.asarray(YEARS, "M8[ns]"), 252, None),
        (np.asarray(pd.date_range("2024-03-03", periods=20).delete([6, 13]), "M8[ns]"), 312, None),  # with Sundays
        (np.asarray(YEARS[RNG.random(len(YEARS)) < 0.5], "M8[ns]"), 126, None),
        (np.asarray(pd.date_range("2024-03-04 07:00", periods=60, freq="h"), "M8[ns]"), 8760, "whole week"),
        (np.asarray(pd.date_range("2024-03-04", periods=1000, freq="min"), "M8[ns]"), 60 * 8760, "whole week"),
        (np.asarray(pd.date_range("2020-01-31", periods=8, freq="ME"), "M8[ns]"), 12, None),
        (np.asarray(pd.date_range("2020-01-31", periods=8, freq="BQE"), "M8[ns]"), 4, None),
        (np.asarray(pd.date_range("2020-01-31", periods=8, freq="28D"), "M8[ns]"), 365.25 / 28, None),
        (np.asarray(pd.date_range("2020-01-31", periods=80, freq="2D"), "M8[ns]"), 365.25 / 2, None),
    ],
)
def test_periods_per_year_by_hand(times, wanted, doubt):
    calendar = find_calendar(times, None)
    assert calendar.periods_per_year == pytest.approx(
        wanted, rel=0.03 if wanted in (126, 390 * 252 * SOME.mean()) else 0
    )
    assert (calendar.doubt is None) == (doubt is None)
    assert doubt is None or (doubt in calendar.doubt and "`periods_per_year`" in calendar.doubt)


def test_the_end_of_a_session_beyond_a_weekend_shows_that_nothing_trades_there():
    # Metals trade for 23 hours. One bar of Monday is too few for a session, and still no bar is of the weekend.
    friday = pd.date_range("2024-03-01 01:00", "2024-03-01 23:00", freq="h")
    calendar = find_calendar(np.asarray(friday.append(pd.DatetimeIndex(["2024-03-04 01:00"])), "M8[ns]"), None)
    assert (calendar.sessions_per_year, calendar.doubt) == (260, None)


def test_a_coin_with_holes_has_the_days_of_most_of_its_days():
    # Two of three Tuesdays are cut short, so that the usual Tuesday is no whole day.
    hours = pd.date_range("2024-01-01 01:00", "2024-01-22", freq="h")
    kept = hours[
        ~((hours >= "2024-01-02 10:00") & (hours < "2024-01-03"))
        & ~((hours >= "2024-01-09") & (hours < "2024-01-09 15:00"))
    ]
    assert find_calendar(np.asarray(kept, "M8[ns]"), None).periods_per_year == 8760


@pytest.mark.parametrize("days", [1, 5])
def test_a_night_session_is_a_part_of_the_day_that_follows(days):
    # Metals in Shanghai: 21:00 to 2:30, then 9:00 to 15:00 with two breaks.
    hours = (("21:00", 22), ("33:00", 5), ("34:30", 4), ("37:30", 6))
    times = np.sort(np.concatenate([sessions(WEEK[:days], opens, bars, "15min") for opens, bars in hours]))
    calendar = find_calendar(times, None)
    assert (calendar.sessions_per_year, calendar.bars_per_session) == (252, 37)
    assert "252 sessions of 37 bars" in calendar.doubt


def test_a_long_part_of_a_coins_day_with_missing_bars_is_no_session():
    minutes = pd.date_range("2024-03-04", periods=1050, freq="min").delete([200, 500, 800])
    assert find_calendar(np.asarray(minutes, "M8[ns]"), None).sessions_per_year == 365


def test_a_part_of_a_session_is_said_by_its_own_length():
    doubt = find_calendar(sessions(YEARS[:40], "10:05", 28), None).doubt
    assert "The bars of a day cover 0:28:00" in doubt


def test_a_day_a_month_and_years_of_one_source_are_the_same():
    times = sessions(YEARS, "09:30", 13, "30min")
    for days in (1, 5, 21, 63, 250, len(YEARS)):
        assert find_calendar(times[: 13 * days], None).periods_per_year == 13 * 252


def test_the_total_of_several_is_measured_on_their_union():
    coin, stock = (np.asarray(pd.date_range("2015-01-05", periods=1800), "M8[ns]"), np.asarray(YEARS, "M8[ns]"))
    assert total_periods_per_year([coin, stock], [365, 252], None) == 365
    assert total_periods_per_year([stock, stock[100:]], [252, 252], None) == 252
    close = stock + np.timedelta64(21, "h")
    for days in (40, len(stock)):
        both = total_periods_per_year([coin[: days * 7 // 5], close[:days]], [365, 252], None)
        # Weeks do not divide a year.
        assert both == pytest.approx(365 + 365 * 5 / 7, rel=0.01)
    evening = stock + np.timedelta64(20, "h")
    assert total_periods_per_year([stock, evening], [252, 252], None) == 504


@pytest.mark.parametrize("tz", ["America/New_York", "Asia/Tokyo", "Asia/Jerusalem"])
def test_nights_weekends_and_lunch_breaks_are_no_gaps(tz):
    days = SUNDAY_TO_THURSDAY if tz == "Asia/Jerusalem" else WEEK.union(WEEK + pd.Timedelta(7, "D"))
    lunch = sessions(days, "09:30", 120), sessions(days, "12:30", 150)
    for wall in (np.asarray(days, "M8[ns]"), np.sort(np.concatenate(lunch))):
        times = to_utc(wall, tz)
        assert gap_note(times, tz) is None
    assert "2 gaps beyond nights" in gap_note(np.delete(times, [50, 51, 180]), tz)
    noted = gap_note(np.delete(times, [50, 51]), tz)
    assert f"after {days[0].date()} 10:20:00" in noted


@pytest.mark.parametrize(("freq", "periods"), [("h", 8760), ("15min", 35_040)])
def test_a_day_of_25_hours_makes_no_longer_session(freq, periods):
    times = pd.date_range("2024-11-01", "2024-11-04 23:45", freq=freq, tz="America/New_York")
    found = find_calendar(times.tz_convert("UTC").tz_localize(None).to_numpy().astype("M8[ns]"), "America/New_York")
    assert found.periods_per_year == periods
