"""Files and frames: separators, gzip, Parquet, yfinance, and what is no table or is damaged."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest
from market.price_tables import GOOD, HEADER, frame, write

from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError


def files_that_are_no_tables(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "blank.csv").write_text("\n \n")
    (tmp_path / "header.csv").write_text(HEADER)
    (tmp_path / "prose.csv").write_text("no table here\nat all\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "zip.csv").write_bytes(b"PK\x03\x04" + bytes(200))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"2024-01-02,10,12,9,11,\xe9\n")
    whole = gzip.compress((HEADER + "\n".join(GOOD * 400)).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.csv").write_text(HEADER + "\n".join(GOOD) + "\n2024-01-05,13,14")
    (tmp_path / "open quote.csv").write_text(HEADER + GOOD[0] + '\n"2024-01-03,11,13')
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "bare.csv").write_text("\n".join(GOOD))
    (tmp_path / "closes.csv").write_text("date,close\n2024-01-02,1\n")
    return {
        "missing.csv": "cannot be read .*check the path",
        "empty.csv": "is empty",
        "blank.csv": "is empty",
        "header.csv": "has a header but no bars",
        "prose.csv": "is not a table",
        "binary.csv": "is a binary file",
        "zip.csv": "is a binary file",
        "latin.csv": "UTF-8",
        "cut.csv.gz": "damaged or cut-off",
        "cut.csv": r"row 5: low is missing .*cut off\?",
        "open quote.csv": "regular table",
        "damaged.parquet": "is not a whole Parquet file",
        "bare.csv": "has no column for time and open .*first line of a file must be the names",
        "closes.csv": "has no column for open and high and low; it has date, close",
        "": "is a folder",
    }


def test_unreadable_files_are_rejected_in_one_sentence(tmp_path):
    for name, message in files_that_are_no_tables(tmp_path).items():
        with pytest.raises(DataError, match=message) as caught:
            load_bars(tmp_path / name)
        assert "\n" not in str(caught.value), name


@pytest.mark.parametrize("source", [[1, 2], 7, None, np.ones(3)])
def test_sources_of_other_types_are_rejected(source):
    with pytest.raises(DataError, match="not from a"):
        load_bars(source)


def test_empty_frames_and_dicts_are_rejected():
    with pytest.raises(DataError, match="is empty"):
        load_bars(frame()[:0])
    with pytest.raises(DataError, match="is empty"):
        load_bars({})


@pytest.mark.parametrize(("mark", "point"), [(";", ","), ("\t", "."), ("|", "."), (";", ".")])
def test_separators_and_decimal_commas(tmp_path, mark, point):
    rows = ["2024-01-02,10.25,12.5,9.5,11.5,100", "2024-01-03,11.25,13.5,10.5,12.125,200"]
    text = (HEADER + "\n".join(rows)).replace(",", mark).replace(".", point)
    (tmp_path / "a.csv").write_text(text, encoding="utf-8-sig")
    assert load_bars(tmp_path / "a.csv").close[:, 0].tolist() == [11.5, 12.125]


def test_yfinance_frames_and_files(tmp_path):
    wide = pd.concat({"AAPL": frame(), "MSFT": frame(4, start="2024-01-03")}, axis=1).swaplevel(axis=1)
    wide.columns = wide.columns.set_levels(wide.columns.levels[0].str.title(), level=0).set_names(["Price", "Ticker"])
    wide.index.name = "Date"
    wide.to_csv(tmp_path / "yf.csv")
    for source in (wide, tmp_path / "yf.csv"):
        apple, microsoft = load_bars(source)
        assert (apple.symbols, microsoft.symbols) == (("AAPL",), ("MSFT",))
        np.testing.assert_array_equal(apple.close[:, 0], frame().close)
        np.testing.assert_array_equal(microsoft.times, frame(4, start="2024-01-03").index.to_numpy("M8[ns]"))
    text = (tmp_path / "yf.csv").read_text().replace("105.0", "-105.0", 1)
    (tmp_path / "yf.csv").write_text(text)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "-105.0" in row)
    with pytest.raises(DataError, match=rf"row {line}:"):
        load_bars(tmp_path / "yf.csv", symbol="AAPL")


def test_gzip_and_parquet_equal_csv(tmp_path):
    path = write(tmp_path / "ACME.csv", GOOD)
    (tmp_path / "ACME.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    wanted = load_bars(path)
    pd.read_csv(path, parse_dates=["Date"]).set_index("Date").to_parquet(tmp_path / "ACME.parquet")
    for other in (tmp_path / "ACME.csv.gz", tmp_path / "ACME.parquet"):
        bars = load_bars(other)
        assert bars.symbols == ("ACME",)
        np.testing.assert_array_equal(bars.times, wanted.times)
        np.testing.assert_array_equal(bars.close, wanted.close)


def test_parquet_without_pyarrow_names_the_install_command(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=re.escape("pip install pyarrow")):
        load_bars(tmp_path / "a.parquet")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_file_gives_bars_or_one_sentence(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows = [f"2024-01-{day:02d},10.5,12,9,11,100" for day in range(1, 29)]
    whole, letters = (HEADER + "\n".join(rows)).encode(), b"019,;\t\"'-.:/\n\r aZ\x00\xff|$%eE+#"
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(damaged)))
            damaged[at : at + int(rng.integers(0, 30)) * int(rng.integers(2))] = letters[at % len(letters) :][:1]
        (tmp_path / "a.csv").write_bytes(damaged)
        message = ""
        try:
            bars = load_bars(tmp_path / "a.csv")
        except DataError as error:
            message = str(error)
        if message:
            assert message.endswith(".")
            assert "\n" not in message
        else:
            assert (np.diff(bars.times) > np.timedelta64(0)).all()
            assert (bars.low > 0).all()
