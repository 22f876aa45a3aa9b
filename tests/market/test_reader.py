"""Files and frames: headers, encodings, archives, folders, yfinance, and what is no table or is damaged."""

import bz2
import gzip
import json
import lzma
import os
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from market.price_tables import GOOD, HEADER, frame, write

from jaxtrader.market import sources
from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError


def files_that_are_no_tables(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "blank.csv").write_text("\n \n")
    (tmp_path / "header.csv").write_text(HEADER)
    (tmp_path / "prose.csv").write_text("no table here\nat all\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "russian.csv").write_bytes("дата;открытие;максимум;минимум;закрытие\n".encode("cp1251"))
    (tmp_path / "zip.csv").write_bytes(b"PK\x03\x04" + bytes(200))
    with zipfile.ZipFile(tmp_path / "nameless.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), "x")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"2024-01-02,10,12,9,11,\xe9\n")
    whole = gzip.compress((HEADER + "\n".join(GOOD * 400)).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.csv").write_text(HEADER + "\n".join(GOOD) + "\n2024-01-05,13,14")
    (tmp_path / "open quote.csv").write_text(HEADER + GOOD[0] + '\n"2024-01-03,11,13')
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "bare.csv").write_text("\n".join(row + ",7" for row in GOOD))
    (tmp_path / "closes.csv").write_text("date,close\n2024-01-02,1\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "short names.csv").write_text(HEADER + "\n".join(row + ",1,2" for row in GOOD))
    (tmp_path / "twice.csv").write_text(HEADER.replace("Volume", "Close") + "\n".join(GOOD))
    (tmp_path / "alike.csv").write_text(HEADER.replace("Volume", "CLOSE") + "\n".join(GOOD))
    return {
        "missing.csv": "cannot be read .*check the path",
        "empty.csv": "is empty",
        "blank.csv": "is empty",
        "header.csv": "has a header but no bars",
        "prose.csv": "is not a table",
        "binary.csv": "is a binary file",
        "russian.csv": "is text in an unknown encoding.*CSV in UTF-8",
        "zip.csv": "damaged or cut-off zip archive",
        "nameless.zip": "damaged or cut-off zip archive",
        "latin.csv": "row 2: Volume is 'é', which is not a number",
        "cut.csv.gz": "damaged or cut-off",
        "cut.csv": r"row 5: low is missing .*cut off\?",
        "open quote.csv": "regular table",
        "damaged.parquet": "is not a whole Parquet file",
        "bare.csv": "has no header.*first line of a file must be the names",
        "closes.csv": "has no column for open and high and low; it has date, close",
        "folder": "is a folder without price files",
        "short names.csv": "the header has 6 names .*8 values stand in a row",
        "twice.csv": "two columns named 'Close'",
        "alike.csv": "two columns named 'Close' and 'CLOSE'",
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
            assert not message.endswith(".")
            assert "\n" not in message
        else:
            assert (np.diff(bars.times) > np.timedelta64(0)).all()
            assert (bars.low > 0).all()


# --- headers ---


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "A line of prose, with a comma\n" + HEADER,
        "# exported\n\n" + HEADER,
        '"Date","Open","High","Low","Close","Volume"\n',
        "Date , Open, High , Low, Close, Volume\n",
        "Date,Open,High,Low,Close,Volume,\n",
    ],
)
def test_the_header_is_found(tmp_path, header):
    bars = load_bars(write(tmp_path / "a.csv", GOOD, header))
    assert bars.close[:, 0].tolist() == [11, 12, 13]
    assert bars.volume[:, 0].tolist() == [100, 200, 300]


def test_quoted_commas_do_not_separate(tmp_path):
    rows = ['"Jan 02, 2024","1,000.0","1,200.0","900.5","1,100.0","3,400"', '"Jan 03, 2024",1001,1201,901,1101,5']
    bars = load_bars(write(tmp_path / "a.csv", rows))
    assert bars.close[:, 0].tolist() == [1100, 1101]
    assert bars.volume[:, 0].tolist() == [3400, 5]


def test_a_header_too_short_for_rows_of_a_known_format_says_so(tmp_path):
    row = "1730419200000,2,3,1,2,9,1730422799999,9,1,4,3,0"
    path = write(tmp_path / "a.csv", [row, row.replace("17304", "17305")], "time,open,high,low,close,volume\n")
    with pytest.raises(DataError, match=r"6 names .*12 values.*leave the header out.*Binance klines"):
        load_bars(path)


def test_a_wide_header_is_read(tmp_path):
    names = [f"feature_{i}" for i in range(5000)]  # some 60 kB
    rows = [",".join([row, *["1.5"] * len(names)]) for row in GOOD]
    bars = load_bars(write(tmp_path / "a.csv", rows, HEADER.strip() + "," + ",".join(names) + "\n"))
    assert bars.close[:, 0].tolist() == [11, 12, 13]
    assert list(bars.columns) == names


def yfinance(tickers, by_ticker):
    fields = ["Open", "High", "Low", "Close", "Volume"]
    columns = {(field, ticker): frame()[field.lower()] + i for i, ticker in enumerate(tickers) for field in fields}
    wide = pd.DataFrame(columns).rename_axis("Date").rename_axis(["Price", "Ticker"], axis=1)
    return wide.swaplevel(axis=1).sort_index(axis=1) if by_ticker else wide


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("by_ticker", [False, True], ids=["by field", "by ticker"])
@pytest.mark.parametrize("tickers", [["AAPL"], ["AAPL", "BRK.B"]], ids=["one", "two"])
def test_every_shape_of_yfinance(tmp_path, tickers, by_ticker, named):
    wide = yfinance(tickers, by_ticker)
    wide.columns.names = wide.columns.names if named else [None, None]
    flat = wide.reset_index()
    wide.to_csv(tmp_path / "a.csv")
    flat.to_csv(tmp_path / "b.csv", index=False)
    flat.to_csv(tmp_path / "c.csv")
    flat.to_parquet(tmp_path / "d.parquet")
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv", "d.parquet")]
    two_lines = [pd.read_csv(files[0], header=[0, 1], index_col=column) for column in (0, None)]
    for source in (wide, flat, *files, pd.read_csv(files[0]), pd.read_csv(files[1]), *two_lines):
        loaded = load_bars(source, symbols=tickers)
        for i, bars in enumerate(loaded):
            assert bars.format.startswith("yfinance")
            np.testing.assert_array_equal(bars.close[:, 0], frame().close + i)
            np.testing.assert_array_equal(bars.times, frame().index.to_numpy("M8[ns]"))


def test_a_blank_row_of_tickers_is_one_symbol(tmp_path):
    rows = [row.replace("2024-01-0", "0").replace(",", "-01-2024,", 1) for row in GOOD]
    header = "Price,Open,High,Low,Close,Volume\nTicker,,,,,\nDate,,,,,\n"
    rows.append("13-01-2024,12,14,11,13,300")
    path = write(tmp_path / "ACME.csv", rows, header)
    assert load_bars(path).symbols == ("ACME",)
    assert load_bars(path).times[0] == np.datetime64("2024-01-02")


def test_tickers_without_a_value_are_refused(tmp_path):
    empty = yfinance(["A", "B"], by_ticker=False) * np.nan
    empty.to_csv(tmp_path / "a.csv")
    for source in (empty, tmp_path / "a.csv"):
        with pytest.raises(DataError, match="no bars"):
            load_bars(source)


def test_lines_of_prose_behind_the_last_bar_are_left_out_with_a_note(tmp_path):
    for prose in ('"Downloaded from Example.com as of 01-05-2024, 05:00pm"', "数据来源:通达信", "Totals,,,,,"):
        bars = load_bars(write(tmp_path / "a.csv", [*GOOD, prose, "", "All prices in dollars"]))
        assert bars.close[:, 0].tolist() == [11, 12, 13]
        assert any(note.startswith("The text behind the last bar was left out: ") for note in bars.notes)
    for cut in ("2024-01-05", '"May 5, 2024"', "Fri"):  # what may be a bar is never left out
        with pytest.raises(DataError, match="row 5: "):
            load_bars(write(tmp_path / "a.csv", [*GOOD, cut]))
    with pytest.raises(DataError, match=r"row 2: .*'prose' is not a readable time"):
        load_bars(write(tmp_path / "a.csv", ["prose", *GOOD]))


def test_an_index_of_dates_of_python_holds_the_times():
    bars = load_bars(frame().set_axis(frame().index.date, axis=0))
    np.testing.assert_array_equal(bars.times, frame().index.to_numpy("M8[ns]"))


def test_a_text_index_is_named_as_that():
    with pytest.raises(DataError, match=r"index .* is text such as '2024-01-01'.*pd\.to_datetime"):
        load_bars(frame().set_axis(frame().index.astype(str), axis=0))
    assert load_bars(frame().set_axis(frame().index.astype(str), axis=0).rename_axis("Date")).symbols == ("asset",)


def test_a_header_that_pandas_misread_is_named_as_that(tmp_path):
    (tmp_path / "a.csv").write_text("written by us\nDate,Open,High,Low,Close,Volume\n" + "\n".join(GOOD))
    with pytest.raises(DataError, match=r"index .* has 5 levels without names.*path of the file"):
        load_bars(pd.read_csv(tmp_path / "a.csv"))
    assert len(load_bars(tmp_path / "a.csv")) == len(GOOD)


# --- encodings ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk"])
def test_text_of_other_encodings_is_read(tmp_path, encoding):
    rows = [row.replace(",", ",浦发银行,", 1) for row in GOOD]
    text = "\n".join(["日期,代码,开盘价,最高价,最低价,收盘价,成交量", *rows])
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    bars = load_bars(tmp_path / "a.csv")
    assert bars.symbols == ("浦发银行",)
    assert bars.close[:, 0].tolist() == [11, 12, 13]
    assert any("read as" in note for note in bars.notes) == (not encoding.startswith("utf-8"))


JAPANESE = ("日付,始値,高値,安値,終値,出来高", "トヨタ自動車の株価です", "トヨタ自動車", "Shift-JIS")
TAIWANESE = "日期,開盤價,最高價,最低價,收盤價,成交股數"
KOREAN = ("날짜,시가,고가,저가,종가,거래량", "삼성전자 주식회사 시세표", "삼성전자우", "CP949")


@pytest.mark.parametrize(("names", "prose", "symbol", "encoding"), [JAPANESE, KOREAN])
def test_japanese_and_korean_text_is_told_by_names_or_by_script(tmp_path, names, prose, symbol, encoding):
    for name, lines in {
        "names": [names, *GOOD],
        "prose": [prose, HEADER.strip(), *GOOD],
        "symbol": ["symbol," + HEADER.strip(), *(f"{symbol},{row}" for row in GOOD)],
    }.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        bars = load_bars(path)
        assert bars.symbols == (symbol if name == "symbol" else name,)
        assert bars.close[:, 0].tolist() == [11, 12, 13]
        assert f"The text was read as {encoding}." in bars.notes


def test_big5_is_told_by_the_names_of_columns(tmp_path):
    (tmp_path / "a.csv").write_bytes("\n".join([TAIWANESE, *GOOD]).encode("cp950"))
    bars = load_bars(tmp_path / "a.csv")
    assert bars.close[:, 0].tolist() == [11, 12, 13]
    assert "The text was read as Big5." in bars.notes


@pytest.mark.parametrize("far", [0, 3000])
def test_western_text_is_read_also_where_it_comes_late(tmp_path, far):
    days = pd.date_range("2000-01-01", periods=far + 2).strftime("%Y-%m-%d")
    rows = [f"{day},{name},1,2,1,2,5" for name in ("Acme", "Société Générale") for day in days]
    (tmp_path / "a.csv").write_bytes(("date,symbol,open,high,low,close,volume\n" + "\n".join(rows)).encode("cp1252"))
    assert [bars.symbols[0] for bars in load_bars(tmp_path / "a.csv")] == ["Acme", "Société Générale"]


# --- other kinds of files ---

NAMES = HEADER.strip().split(",")
RECORDS = [
    {name: cell if name == "Date" else float(cell) for name, cell in zip(NAMES, row.split(","), strict=True)}
    for row in GOOD
]
NUMBERED = {name: f"{i}. {name.lower()}" for i, name in enumerate(NAMES)}
DAILY = {row["Date"]: {NUMBERED[name]: str(row[name]) for name in NAMES[1:]} for row in RECORDS}
HOURS = [1730419200000 + 3600000 * i for i in range(3)]
KLINES = [
    [hour, "10", "14", "9", str(11 + i), "5", hour + 3599999, "1", 2, "1", "1", "0"] for i, hour in enumerate(HOURS)
]


@pytest.mark.parametrize(
    "content",
    [
        RECORDS,
        {"ticker": "A", "results": RECORDS},
        {"Meta Data": {"1. Information": "Daily"}, "Time Series (Daily)": DAILY},
        KLINES,
        {name: [row[name] for row in RECORDS] for name in RECORDS[0]},
        {name: {row["Date"]: row[name] for row in RECORDS} for name in list(RECORDS[0])[1:]},
        "\n".join(map(json.dumps, RECORDS)),
    ],
    ids=["records", "nested", "by time", "klines", "columns", "columns by time", "lines"],
)
def test_json_is_named_and_the_line_in_the_message_converts_it(tmp_path, monkeypatch, content):
    (tmp_path / "a.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=r"is JSON, not CSV; convert it with: pd\.") as caught:
        load_bars(tmp_path / "a.json")
    line = str(caught.value).partition("convert it with: ")[2].removesuffix(".")
    monkeypatch.chdir(tmp_path)
    exec(line, {"pd": pd, "json": json})
    assert load_bars(tmp_path / "a.csv").close[:, 0].tolist() == [11, 12, 13]


def test_the_line_that_converts_a_file_leaves_it_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "A.CSV").write_text(json.dumps(RECORDS))
    with pytest.raises(DataError, match=r"\.to_csv\('A_table\.csv'") as caught:
        load_bars(tmp_path / "A.CSV")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("convert it with: ")[2].removesuffix("."), {"pd": pd, "json": json})
    assert json.loads((tmp_path / "A.CSV").read_text()) == RECORDS
    assert len(load_bars(tmp_path / "A_table.csv")) == 3


@pytest.mark.parametrize(
    ("start", "kind", "line"),
    [
        (b"<!DOCTYPE html>\n<html><body><table></table></body></html>", "HTML", "pd.read_html"),
        (b"<html>\n<head>", "HTML", "pd.read_html"),
        (b"<?xml version='1.0'?>\n<rows/>", "XML", "pd.read_xml"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "Excel", "pd.read_excel"),
        (b"ARROW1" + bytes(100), "Feather", "pd.read_feather"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "pd.read_hdf"),
        (b"%PDF-1.4\n", "PDF", "export"),
    ],
)
def test_files_of_other_kinds_are_named_with_the_line_that_converts_them(tmp_path, start, kind, line):
    (tmp_path / "a.csv").write_bytes(start)
    with pytest.raises(DataError, match=f"is an? .*{kind}|is {kind}") as caught:
        load_bars(tmp_path / "a.csv")
    assert line in str(caught.value)


def test_an_excel_file_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DataError, match=r"Excel .*pd\.read_excel\(.*a\.xlsx'\)\.to_csv\('a\.csv'"):
        load_bars(tmp_path / "a.xlsx")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"is a pipe .*save its text"):
        load_bars(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="path is empty"):
        load_bars("")


# --- archives and folders ---


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files_are_read(tmp_path, suffix, pack):
    path = tmp_path / f"ACME.csv.{suffix}"
    path.write_bytes(pack((HEADER + "\n".join(GOOD)).encode()))
    assert load_bars(path).symbols == ("ACME",)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or cut-off"):
        load_bars(path)


def test_a_folder_and_a_zip_archive_give_each_file_as_a_symbol(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("AAPL", "BRK.B"):
        write(tmp_path / "in" / f"{name}.csv", GOOD)
    (tmp_path / "in" / "README.md").write_text("no table")
    (tmp_path / "in" / "ReadMe.txt").write_text("no table")
    frame().to_parquet(tmp_path / "in" / "MSFT.parquet")
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.write(path, f"stocks/{path.name}")
        archive.writestr("__MACOSX/stocks/._AAPL.csv", "x")
    for source in (tmp_path / "in", tmp_path / "all.zip"):
        loaded = load_bars(source)
        assert [bars.symbols[0] for bars in loaded] == ["AAPL", "BRK.B", "MSFT"]
        assert any("README.md, ReadMe.txt" in note for note in loaded[0].notes)
        assert load_bars(source, symbol="BRK.B").symbols == ("BRK.B",)
        with pytest.raises(DataError, match=r"'X'; it holds AAPL, BRK\.B, MSFT"):
            load_bars(source, symbol="X")


def test_files_of_months_are_one_history(tmp_path):
    for month in (3, 1, 2):
        rows = [f"2024-{month:02d}-{day:02d},10,12,1,{day},100" for day in (1, 2)]
        write(tmp_path / f"BTCUSDT-1d-2024-{month:02d}.csv", rows)
    bars = load_bars(tmp_path)
    assert bars.symbols == ("BTCUSDT-1d",)
    assert bars.close[:, 0].tolist() == [1, 2, 1, 2, 1, 2]
    assert str(bars.times[-1]).startswith("2024-03-02")
    write(tmp_path / "BTCUSDT-1d-2024-02.csv", ["2024-02-01,10,12,9,11,100", "2024-02-02,10,12,9,-11,100"])
    with pytest.raises(DataError, match=r"BTCUSDT-1d-2024-02\.csv, row 3: close is -11"):
        load_bars(tmp_path)


def test_what_unpacks_to_too_much_is_stopped_at_a_stated_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "UNPACKED_BYTES", 1 << 20)
    text = HEADER + (GOOD[0] + "\n") * 100_000
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    pd.DataFrame({name: np.ones(50_000) for name in "ohlcv"}).to_parquet(tmp_path / "a.parquet")
    frame().assign(note="x" * 300_000).to_parquet(tmp_path / "text.parquet")  # one text, in each of the rows
    frame().assign(ticks=[[1.0] * 50_000] * 6).to_parquet(tmp_path / "lists.parquet")
    text = pd.read_parquet(tmp_path / "text.parquet")
    text.astype({"note": "category"}).to_parquet(tmp_path / "category.parquet")
    text.assign(note=text["note"].str.encode("ascii")).to_parquet(tmp_path / "bytes.parquet")
    tables = [f"{name}.parquet" for name in ("a", "text", "category", "bytes", "lists")]
    for name in ("a.csv.gz", "a.zip", *tables):
        with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
            load_bars(tmp_path / name)


def test_columns_of_one_name_in_parquet_are_refused(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table([[1.0], [2.0]], names=["close", "close"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns named 'close'"):
        load_bars(tmp_path / "a.parquet")


@pytest.mark.parametrize("place", range(7))
def test_a_long_cell_is_cut_in_the_message(tmp_path, place):
    long = "x" * 200_000
    cells = ["A", *GOOD[1].split(",")]
    cells[place] = long
    rows = [f"A,{GOOD[0]}", ",".join(cells), f"A,{GOOD[2]}"]
    path = write(tmp_path / "a.csv", rows, "symbol," + HEADER)
    if place:
        with pytest.raises(DataError, match=r"xxx\.\.\.") as caught:
            load_bars(path)
        assert len(str(caught.value)) < 300
    else:
        with pytest.raises(DataError, match="no symbol 'B'") as caught:
            load_bars(path, symbol="B")
        assert len(str(caught.value)) < 300
