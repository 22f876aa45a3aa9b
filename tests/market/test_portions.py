"""Large files are read in portions, and give what they give in one piece."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import write

from jaxtrader.market import delimited, times
from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError

DAYS = pd.bdate_range("2024-01-01", periods=12).strftime("%Y-%m-%d")
MIXED = [f"{100 + i}" if i < 6 else f"{100 + i}.25" for i in range(12)]  # whole numbers first


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    monkeypatch.setattr(delimited, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(times, "ROWS_AT_ONCE", 4)


def rows(closes: list[str], stamps: list[str] | pd.Index = DAYS) -> list[str]:
    return [f"{stamp},{close},200,50,{close},{i}" for i, (stamp, close) in enumerate(zip(stamps, closes, strict=True))]


def test_the_type_of_a_column_is_of_all_its_values(tmp_path):
    bars = load_bars(write(tmp_path / "a.csv", rows(MIXED)))
    np.testing.assert_array_equal(bars.close[:, 0], [float(close) for close in MIXED])
    np.testing.assert_array_equal(bars.times, DAYS.to_numpy().astype("M8[ns]"))
    np.testing.assert_array_equal(bars.volume[:, 0], np.arange(12.0))


def test_text_in_a_late_portion_is_read_as_it_is_written(tmp_path):
    closes = [*MIXED[:10], "$110.25", "111.25"]
    np.testing.assert_array_equal(load_bars(write(tmp_path / "a.csv", rows(closes))).close[-2:, 0], [110.25, 111.25])


def test_a_fault_in_a_late_portion_names_its_row(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv, row 11: .*'soon'"):
        load_bars(write(tmp_path / "a.csv", rows(MIXED, [*DAYS[:9], "soon", *DAYS[10:]])))
    with pytest.raises(DataError, match=r"a\.csv, row 12: 8 values"):
        load_bars(write(tmp_path / "a.csv", [*rows(MIXED)[:10], "2024-01-15,1,2,3,4,5,6,7"]))


def test_times_with_offsets_in_a_late_portion_are_no_times_without(tmp_path):
    stamps = [f"{day} 10:00:00" for day in DAYS]
    with pytest.raises(DataError, match="only some times carry an offset"):
        load_bars(write(tmp_path / "a.csv", rows(MIXED, [*stamps[:10], *(f"{stamp}+01:00" for stamp in stamps[10:])])))
