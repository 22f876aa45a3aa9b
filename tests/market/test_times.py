"""Timestamps: the formats that are read and rejected, time zones and clock changes."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import frame, ns, write

from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError

STAMPS = {
    "iso": ["2024-03-04 09:30:00", "2024-03-04 09:31:00"],
    "iso T Z": ["2024-03-04T09:30:00Z", "2024-03-04T09:31:00Z"],
    "offset": ["2024-03-04 04:30:00-05:00", "2024-03-04 04:31:00-05:00"],
    "mixed offsets": ["2024-03-04 04:30:00-05:00", "2024-03-04 11:31:00+0200"],
    "slashes": ["2024/03/04 09:30", "2024/03/04 09:31"],
    "dots": ["2024.03.04 09:30", "2024.03.04 09:31"],
    "unpadded": ["2024/3/4 09:30", "2024/3/4 09:31"],
    "month name": ["04 Mar 2024 09:30", "04 Mar 2024 09:31"],
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
    rows = [f"{stamp},10,12,9,11,100" for stamp in STAMPS[kind]]
    bars = load_bars(write(tmp_path / "a.csv", rows))
    np.testing.assert_array_equal(bars.times, ns("2024-03-04T09:30", "2024-03-04T09:31"))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_resolution_become_nanoseconds(unit):
    table = frame()
    table.index = table.index.as_unit(unit)
    for one in (table, table.tz_localize("UTC"), table.rename_axis("when").reset_index(names="Date")):
        np.testing.assert_array_equal(load_bars(one).times, pd.date_range("2024-01-01", periods=6).to_numpy("M8[ns]"))


def test_date_and_time_columns_are_joined(tmp_path):
    for number, (day, clock) in enumerate([("2024.03.04", "09:30:00"), ("20240304", "093000"), ("2024-03-04", "0930")]):
        rows = [f"{day},{clock},10,12,9,11,100"]
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
    with pytest.raises(DataError, match=r"'01/02/2024' .*YYYY-MM-DD"):
        times("01/02/2024", "02/02/2024")


def test_numbers_that_are_not_times_and_mixed_units_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"number 0 .*use ISO"):
        load_bars(write(tmp_path / "a.csv", ["0,10,12,9,11,1", "1,10,12,9,11,1"]))
    with pytest.raises(DataError, match=r"row 3: .*1709544660000 .*1709544600.* one unit"):
        load_bars(write(tmp_path / "a.csv", ["1709544600,10,12,9,11,1", "1709544660000,10,12,9,11,1"]))
    with pytest.raises(DataError, match=r"1709544600 .*leave tz out"):
        load_bars(write(tmp_path / "a.csv", ["1709544600,10,12,9,11,1"]), tz="Europe/Berlin")
    mixed = ["2024-01-02 10:00:00,10,12,9,11,1", "2024-01-02 11:00:00Z,10,12,9,11,1"]
    with pytest.raises(DataError, match=r"row 3: .*tz="):
        load_bars(write(tmp_path / "a.csv", mixed))


def test_tz_reads_the_wall_clock_and_ignores_the_offset(tmp_path):
    # New York is UTC-5 in January and UTC-4 in July, whatever the stamp says.
    rows = ["2019-01-02 09:30:00-05:00,10,12,9,11,1", "2019-07-02 09:30:00-05:00,10,12,9,11,1"]
    path = write(tmp_path / "a.csv", rows)
    np.testing.assert_array_equal(load_bars(path).times, ns("2019-01-02T14:30", "2019-07-02T14:30"))
    wanted = ns("2019-01-02T14:30", "2019-07-02T13:30")
    np.testing.assert_array_equal(load_bars(path, tz="America/New_York").times, wanted)
    aware = pd.DataFrame({"t": ns("2019-01-02T14:30", "2019-07-02T14:30"), "o": 10, "h": 12, "l": 9, "c": 11, "v": 1})
    aware = aware.assign(t=aware["t"].dt.tz_localize("UTC").dt.tz_convert("Etc/GMT+5")).set_index("t")
    np.testing.assert_array_equal(load_bars(aware, tz="America/New_York").times, wanted)


@pytest.mark.parametrize(
    ("stamp", "fault"), [("2024-03-10 02:30:00", "does not exist"), ("2024-11-03 01:30:00", "happens twice")]
)
def test_wall_clock_time_at_a_clock_change_is_rejected(tmp_path, stamp, fault):
    path = write(tmp_path / "a.csv", ["2024-01-02 10:00:00,10,12,9,11,1", f"{stamp},10,12,9,11,1"])
    with pytest.raises(DataError, match=f"row 3: .*{stamp} {fault} in America/New_York.*leave tz out"):
        load_bars(path, tz="America/New_York")
    assert load_bars(path).times[1] == np.datetime64(stamp)
