"""Large files are read in portions, and give what they give in one piece."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import write

from jaxtrader.market import times
from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError

ROWS = 140_000  # pandas reads 131,072 rows of six columns at once
MIXED = ["100"] * (ROWS - 6) + ["100.25"] * 6  # whole numbers first


@pytest.fixture(autouse=True)
def small_portions(monkeypatch):
    monkeypatch.setattr(times, "ROWS_AT_ONCE", 1 << 16)


@pytest.fixture(scope="module")
def stamps() -> pd.Index:
    return pd.date_range("2024-01-01", periods=ROWS, freq="min").strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture(scope="module")
def rows(stamps) -> list[str]:
    both = enumerate(zip(stamps, MIXED, strict=True))
    return [f"{stamp},{close},200,50,{close},{i}" for i, (stamp, close) in both]


def test_the_type_of_a_column_is_of_all_its_values(tmp_path, rows, stamps):
    bars = load_bars(write(tmp_path / "a.csv", rows))
    np.testing.assert_array_equal(bars.close[:, 0], [float(close) for close in MIXED])
    np.testing.assert_array_equal(bars.times, stamps.to_numpy().astype("M8[ns]"))
    np.testing.assert_array_equal(bars.volume[:, 0], np.arange(float(ROWS)))


def test_text_in_a_late_portion_is_read_as_it_is_written(tmp_path, rows, stamps):
    late = [f"{stamps[-2]},$110.25,200,50,$110.25,1", f"{stamps[-1]},111.25,200,50,111.25,2"]
    bars = load_bars(write(tmp_path / "a.csv", [*rows[:-2], *late]))
    np.testing.assert_array_equal(bars.close[-2:, 0], [110.25, 111.25])


def test_a_fault_in_a_late_portion_names_its_row(tmp_path, rows):
    with pytest.raises(DataError, match=rf"a\.csv, row {ROWS}: .*'soon'"):
        load_bars(write(tmp_path / "a.csv", [*rows[:-2], "soon,100,200,50,100,5", rows[-1]]))
    with pytest.raises(DataError, match=rf"a\.csv, row {ROWS + 1}: 8 values"):
        load_bars(write(tmp_path / "a.csv", [*rows[:-1], "2024-05-15,1,2,3,4,5,6,7"]))


def test_times_with_offsets_in_a_late_portion_are_no_times_without(tmp_path, rows, stamps):
    late = (f"{stamp}+01:00,100,200,50,100,5" for stamp in stamps[-2:])
    with pytest.raises(DataError, match="only some times carry an offset"):
        load_bars(write(tmp_path / "a.csv", [*rows[:-2], *late]))
