"""Timestamps: the formats that are read and rejected, time zones and clock changes."""

import datetime
import io
import itertools

import dateutil.tz
import numpy as np
import pandas as pd
import pytest
from market.price_tables import frame, ns, write

from jaxtrader.market import clock
from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.times import parse_times

STAMPS = {
    "iso": ["2024-03-04 09:30:00", "2024-03-04 09:31:00"],
    "iso T Z": ["2024-03-04T09:30:00Z", "2024-03-04T09:31:00Z"],
    "offset": ["2024-03-04 04:30:00-05:00", "2024-03-04 04:31:00-05:00"],
    "mixed offsets": ["2024-03-04 04:30:00-05:00", "2024-03-04 11:31:00+0200"],
    "slashes": ["2024/03/04 09:30", "2024/03/04 09:31"],
    "dots": ["2024.03.04 09:30", "2024.03.04 09:31"],
    "unpadded": ["2024/3/4 09:30", "2024/3/4 09:31"],
    "month name": ["04 Mar 2024 09:30", "04 Mar 2024 09:31"],
    "named month": ["Mar 04, 2024 09:30", "Mar 04, 2024 09:31"],
    "whole month": ["4 March 2024 09:30:00", "4 March 2024 09:31:00"],
    "short year": ["04-Mar-24 09:30", "04-Mar-24 09:31"],
    "no separators": ["04MAR2024 09:30", "04MAR2024 09:31"],
    "weekday": ["Mon, 04 Mar 2024 09:30:00", "Mon, 04 Mar 2024 09:31:00"],
    "am": ["2024-03-04 9:30 AM", "2024-03-04 9:31 am"],
    "month first am": ["03/04/2024 09:30:00 AM", "03/04/2024 09:31:00 AM", "12/31/2024 12:00:00 AM"],
    "compact": ["20240304 093000", "20240304 093100"],
    "GMT offset": [
        "04.03.2024 17:30:00.000 GMT+0800",
        "04.03.2024 17:31:00.000 GMT+0800",
        "31.12.2024 00:00:00 GMT+0800",
    ],
    "zone": ["2024-03-04 04:30:00 EST", "2024-03-04 04:31:00 EST"],
    "zone after am": ["03/04/2024 04:30 AM EST", "03/04/2024 04:31 AM EST", "12/31/2024 12:00 AM EST"],
    "place": ["20240304 04:30:00 US/Eastern", "20240304 04:31:00 US/Eastern"],
    "short month first": ["03/04/24 09:30", "03/04/24 09:31", "12/31/24 12:00"],
    "short day first": ["04.03.24 09:30", "04.03.24 09:31", "31.12.24 12:00"],
    "short year first": ["24-03-04 09:30", "24-03-04 09:31", "24-12-31 12:00"],
    "Chinese": ["2024年3月4日 09:30", "2024年3月4日 09:31"],
    "ms, then us": ["1709544600000", "1709544660000000"],
    "digits": ["202403040930", "202403040931"],
    "long digits": ["20240304093000", "20240304093100"],
    "s": ["1709544600", "1709544660"],
    "float s": ["1709544600.0", "1709544660.0"],
    "ms": ["1709544600000", "1709544660000"],
    "us": ["1709544600000000", "1709544660000000"],
    "ns": ["1709544600000000000", "1709544660000000000"],
}


@pytest.mark.parametrize("kind", STAMPS)
def test_time_formats(tmp_path, kind):
    rows = [f'"{stamp}",10,12,9,11,100' for stamp in STAMPS[kind]]
    bars = load_bars(write(tmp_path / "a.csv", rows))
    np.testing.assert_array_equal(bars.times[:2], ns("2024-03-04T09:30", "2024-03-04T09:31"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_resolution_become_nanoseconds(unit):
    table = frame()
    table.index = table.index.as_unit(unit)
    for one in (table, table.tz_localize("UTC"), table.rename_axis("when").reset_index(names="Date")):
        np.testing.assert_array_equal(load_bars(one).times, pd.date_range("2024-01-01", periods=6).to_numpy("M8[ns]"))


def test_date_and_time_columns_are_joined(tmp_path):
    for number, (day, hour) in enumerate([("2024.03.04", "09:30:00"), ("20240304", "093000"), ("2024-03-04", "0930")]):
        rows = [f"{day},{hour},10,12,9,11,100"]
        bars = load_bars(write(tmp_path / f"{number}.csv", rows, "date,time,open,high,low,close,volume\n"))
        np.testing.assert_array_equal(bars.times, ns("2024-03-04T09:30"))


def test_day_first_dates_must_be_unambiguous(tmp_path):
    def times(*stamps):
        return load_bars(write(tmp_path / "a.csv", [f"{stamp},10,12,9,11,1" for stamp in stamps])).times

    np.testing.assert_array_equal(times("12/01/2024", "13/01/2024"), ns("2024-01-12", "2024-01-13"))
    np.testing.assert_array_equal(times("01/12/2024", "01/13/2024"), ns("2024-01-12", "2024-01-13"))
    np.testing.assert_array_equal(
        times("31.01.2024 15:30", "01.02.2024 15:30"), ns("2024-01-31T15:30", "2024-02-01T15:30")
    )
    np.testing.assert_array_equal(times("12/31/99", "01/03/00"), ns("1999-12-31", "2000-01-03"))
    for one, other, why in (
        ("01/02/2024", "02/02/2024", "either order"),
        ("01/02/24", "02/02/24", "either order"),
        ("23-01-22", "24-01-23", "begin or end with its year"),
    ):
        with pytest.raises(DataError, match=rf"'{one}' .*{why}.*YYYY-MM-DD"):
            times(one, other)


def test_names_of_zones_behind_the_stamps(tmp_path):
    def load(*stamps):
        return load_bars(write(tmp_path / "a.csv", [f"{stamp},10,12,9,11,1" for stamp in stamps]))

    spring = load("2024-03-08 09:30:00 EST", "2024-03-11 09:30:00 EDT")
    np.testing.assert_array_equal(spring.times, ns("2024-03-08T14:30", "2024-03-11T13:30"))
    assert spring.tz == "America/New_York"
    place = load("20240308 09:30:00 America/New_York", "20240311 09:30:00 America/New_York")
    np.testing.assert_array_equal(place.times, spring.times)
    assert place.tz == "America/New_York"
    with pytest.raises(DataError, match=r"row 3: .*'CST', which names several zones.*`tz`"):
        load("2024-03-08 09:30:00 EST", "2024-03-08 09:30:00 CST")


def test_numbers_that_are_not_times_and_mixed_units_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"number 0 .*use ISO"):
        load_bars(write(tmp_path / "a.csv", ["0,10,12,9,11,1", "1,10,12,9,11,1"]))
    rows = ["1709544600,10,12,9,11,1", "1709544540000,10,12,9,11,1", "1709544700,10,12,9,11,1"]
    with pytest.raises(DataError, match=r"row 3: .*1709544540000 .*1709544600.* one unit"):
        load_bars(write(tmp_path / "a.csv", rows))
    mixed = ["2024-01-02 10:00:00,10,12,9,11,1", "2024-01-02 11:00:00Z,10,12,9,11,1"]
    with pytest.raises(DataError, match=r"row 3: .*`tz`"):
        load_bars(write(tmp_path / "a.csv", mixed))


def test_a_stamped_offset_is_a_moment_that_tz_does_not_move(tmp_path):
    wanted, ny = ns("2019-01-02T14:30", "2019-07-02T14:30"), "America/New_York"
    aware = pd.DataFrame({"t": wanted, "o": 10, "h": 12, "l": 9, "c": 11, "v": 1})
    aware = aware.assign(t=aware["t"].dt.tz_localize("UTC").dt.tz_convert("Etc/GMT+5")).set_index("t")
    files = {
        "offset": ["2019-01-02 09:30:00-05:00", "2019-07-02 09:30:00-05:00"],
        "utc": ["2019-01-02T14:30:00Z", "2019-07-02 14:30:00+00:00"],
        "epoch": ["1546439400", "1562077800"],
        "some": ["2019-01-02 09:30:00-05:00", "2019-07-02 10:30:00"],  # New York is UTC-4 in July
    }
    sources = {
        name: write(tmp_path / f"{name}.csv", [f"{t},10,12,9,11,1" for t in stamps]) for name, stamps in files.items()
    }
    for source in (*sources.values(), aware):
        bars = load_bars(source, tz=ny)
        np.testing.assert_array_equal(bars.times, wanted)
        assert bars.tz == ny


def test_the_zone_of_the_times_is_kept(tmp_path):
    def zone(stamps):
        return load_bars(write(tmp_path / "a.csv", [f"{stamp},10,12,9,11,1" for stamp in stamps])).tz

    assert zone(["2019-01-02 09:30:00", "2019-07-02 09:30:00"]) is None
    assert zone(["2019-01-02 09:30:00Z", "2019-07-02 09:30:00+00:00"]) is None
    assert zone(["2019-01-02 09:30:00-05:00", "2019-07-02 09:30:00-04:00"]) == "America/New_York"
    assert zone(["2019-01-02 09:30:00+01:00", "2019-07-02 09:30:00+0200"]) == "Europe/Berlin"
    assert zone(["2019-01-02 09:30:00 GMT+0100", "2019-07-02 09:30:00 GMT+0200"]) == "Europe/Berlin"
    assert zone(["2019-01-02 09:30:00+05:30", "2019-07-02 09:30:00+05:30"]) == "UTC+05:30"
    assert zone(["2019-01-02 09:30:00+05:30", "2019-07-02 09:30:00-09:00"]) is None
    for tz in (
        "Asia/Tokyo",
        "UTC-03:30",
        datetime.timezone(datetime.timedelta(hours=-7)),
        dateutil.tz.gettz("Asia/Tokyo"),
    ):
        bars = load_bars(frame().tz_localize(tz))
        local = clock.wall_clock(bars.times, bars.tz)
        np.testing.assert_array_equal(local, frame().index.to_numpy("M8[ns]"))


def test_files_of_one_symbol_share_the_zone_of_all_their_offsets(tmp_path):
    for month, offset in (("01", "-05:00"), ("07", "-04:00")):
        rows = [f"2024-{month}-0{day} 09:30:00{offset},10,12,9,11,1" for day in (1, 2)]
        write(tmp_path / f"SPY-2024-{month}.csv", rows)
    bars = load_bars(tmp_path)
    assert bars.tz == "America/New_York"
    assert [str(time)[5:16] for time in bars.times[[0, -1]]] == ["01-01T14:30", "07-02T13:30"]


def test_a_table_of_one_time_has_no_hour_that_comes_twice(tmp_path):
    rows = ["2024-01-02,A,10,12,9,11,1"] * 2
    with pytest.raises(DataError, match=r"row 3: .*2024-01-02 repeats the time"):
        load_bars(write(tmp_path / "a.csv", rows, "date,tic,open,high,low,close,volume\n"))


def test_hours_that_two_symbols_share_are_no_hour_that_comes_twice(tmp_path):
    for column in ("symbol", "name"):
        header, hours = f"time,{column},open,high,low,close,volume\n", ["00:00", "01:00", "02:00", "03:00", "04:00"]
        rows = [row for pair in zip(berlin(hours, "A"), berlin(hours, "B"), strict=True) for row in pair]
        assert [len(bars) for bars in load_bars(write(tmp_path / "a.csv", rows, header))] == [5, 5]


def test_a_date_on_which_clocks_change_at_midnight_begins_with_its_first_moment():
    days = frame(start="2017-10-12", bars=8)  # in Sao Paulo 2017-10-15 began at 1:00
    bars = load_bars(days, tz="America/Sao_Paulo")
    assert str(bars.times[3])[:16] == "2017-10-15T03:00"
    assert (np.diff(bars.times) > np.timedelta64(22, "h")).all()
    local = clock.wall_clock(bars.times, bars.tz).astype("datetime64[D]")
    np.testing.assert_array_equal(local, days.index.to_numpy().astype("datetime64[D]"))


def berlin(hours, history="A"):
    """Rows of a CSV file with a symbol, on the night of 2023-10-29, when 3:00 in Berlin was 2:00 again."""
    return [f"2023-10-29 {hour}:00,{history},10,12,9,11,1" for hour in hours]


@pytest.mark.parametrize("order", [1, -1])
def test_an_hour_that_comes_twice_is_told_by_the_order_of_the_rows(tmp_path, order):
    hours, header = (
        ["00:00", "01:30", "02:00", "02:30", "02:00", "02:30", "03:00"],
        "time,symbol,open,high,low,close,volume\n",
    )
    one, two = berlin(hours), berlin(hours[2:], "B")
    moments = ns("2023-10-28T22:00", *(f"2023-10-{t}" for t in ("28T23:30", "29T00:00", "29T00:30", "29T01:00")))
    moments = np.append(moments, ns("2023-10-29T01:30", "2023-10-29T02:00"))
    by_time = [row for pair in itertools.zip_longest(one, [None] * 2 + two) for row in pair if row]
    for rows in (one + two, by_time):
        table = pd.read_csv(io.StringIO(header + "\n".join(rows)))
        if order < 0:
            table = table.iloc[::-1]
        codes = pd.factorize(table["symbol"])[0]
        utc, _ = parse_times(table["time"].reset_index(drop=True), "Europe/Berlin", str, histories=codes)
        a = (table["symbol"] == "A").to_numpy()
        np.testing.assert_array_equal(utc[a][::order], moments)
        np.testing.assert_array_equal(utc[~a][::order], moments[2:])
    with pytest.raises(DataError, match=r"row 4: .*02:00:00 .*clocks go back.*`tz`"):
        load_bars(
            write(tmp_path / "a.csv", [row.replace(",A", "") for row in berlin(["01:00", "02:00", "02:00", "03:00"])])
        )
    with pytest.raises(DataError, match=r"row 3: .*02:00:00 happens twice in Europe/Berlin"):
        load_bars(
            write(tmp_path / "a.csv", [row.replace(",A", "") for row in berlin(["01:00", "02:00", "03:00"])]),
            tz="Europe/Berlin",
        )
    by_wall_clock = berlin(["01:30", "02:00", "02:00", "02:30", "02:30", "03:00"])  # which of the two is not known
    with pytest.raises(DataError, match=r"row 4: .*02:00:00 .*clocks go back"):
        load_bars(write(tmp_path / "a.csv", [row.replace(",A", "") for row in by_wall_clock]))
    double = ["2024-01-02,10,12,9,11,1", "2024-01-03,10,12,9,11,1", "2024-01-03,10,12,9,11,1"]
    with pytest.raises(DataError, match="2024-01-03 repeats"):
        load_bars(write(tmp_path / "a.csv", double))


@pytest.mark.parametrize(
    ("stamp", "fault"), [("2024-03-10 02:30:00", "does not exist"), ("2024-11-03 01:30:00", "happens twice")]
)
def test_wall_clock_time_at_a_clock_change_is_rejected(tmp_path, stamp, fault):
    path = write(tmp_path / "a.csv", ["2024-01-02 10:00:00,10,12,9,11,1", f"{stamp},10,12,9,11,1"])
    with pytest.raises(DataError, match=f"row 3: .*{stamp} {fault} in America/New_York.*leave `tz` out"):
        load_bars(path, tz="America/New_York")
    assert load_bars(path).times[1] == np.datetime64(stamp)


def test_a_fraction_of_a_second_since_1970_is_kept(tmp_path):
    path = write(tmp_path / "a.csv", ["1709544600.25,10,12,9,11,1", "1709544600.5,10,12,9,11,1"])
    np.testing.assert_array_equal(load_bars(path).times, ns("2024-03-04T09:30:00.25", "2024-03-04T09:30:00.5"))


def test_dates_in_may_first_do_not_set_a_format(tmp_path):
    rows = [f"{day},10,12,9,11,1" for day in ("31 May 2019", "30 Apr 2019", "07 Sep 2018")]
    times = load_bars(write(tmp_path / "a.csv", rows)).times
    np.testing.assert_array_equal(times, ns("2018-09-07", "2019-04-30", "2019-05-31"))


@pytest.mark.parametrize(("clock", "hour"), [("12-AM", 0), ("07-AM", 7), ("12-PM", 12), ("11-PM", 23)])
def test_hours_of_twelve(tmp_path, clock, hour):
    times = load_bars(write(tmp_path / "a.csv", [f"2020-09-19 {clock},10,12,9,11,1"])).times
    np.testing.assert_array_equal(times, ns(f"2020-09-19T{hour:02d}"))


@pytest.mark.parametrize(
    "stamp",
    [
        "9.5",
        "20150101.5",
        "inf",
        "-1",
        "1e30",
        "30 Foo 2019",
        "31 Apr 2019",
        "13:00 PM",
        "2020-01-01 25:00",
        "Feb 30, 2020",
    ],
)
def test_what_is_no_time_is_refused_with_its_value(tmp_path, stamp):
    with pytest.raises(DataError, match="row 2") as caught:
        load_bars(write(tmp_path / "a.csv", [f'"{stamp}",10,12,9,11,1', "2024-01-03,10,12,9,11,1"]))
    assert stamp in str(caught.value)
    with pytest.raises(DataError, match="row 2"):
        load_bars(write(tmp_path / "a.csv", [f'"{stamp}",10,12,9,11,1', f'"{stamp}",10,12,9,11,1']))


@pytest.mark.parametrize("day", ["9.5", "20150101.5", "inf"])
def test_a_date_beside_a_clock_must_be_whole(tmp_path, day):
    header = "date,time,open,high,low,close,volume\n"
    with pytest.raises(DataError, match="row 2"):
        load_bars(write(tmp_path / "a.csv", [f"{day},0930,10,12,9,11,1", f"{day},0931,10,12,9,11,1"], header))


def test_another_column_gives_the_times_where_the_first_cannot_be_read(tmp_path):
    header = "Date,Open time,open,high,low,close,volume\n"
    rows = ["week one,1709544600,10,12,9,11,1", "week two,1709544660,10,12,9,11,1"]
    bars = load_bars(write(tmp_path / "a.csv", rows, header))
    np.testing.assert_array_equal(bars.times, ns("2024-03-04T09:30", "2024-03-04T09:31"))
    assert any("'Open time'" in note and "'Date'" in note for note in bars.notes)
    # A single wrong date is named instead.
    with pytest.raises(DataError, match="row 3: 'soon'"):
        load_bars(
            write(tmp_path / "a.csv", ["2024-01-01,1709544600,10,12,9,11,1", "soon,1709544660,10,12,9,11,1"], header)
        )


@pytest.mark.parametrize("tz", ["", " ", "../x", "/etc/passwd"])
def test_what_is_no_zone_is_refused(tz):
    with pytest.raises(DataError, match="not a known time zone"):
        load_bars(frame(), tz=tz)
