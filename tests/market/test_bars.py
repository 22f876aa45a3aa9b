"""`load_bars`: the checks of rows, the names of columns, adjusted closes, tables of several symbols, and notes."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import GOOD, HEADER, frame, ns, write

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market


def test_csv_gives_float64_columns_and_utc_nanoseconds(tmp_path):
    bars = load_bars(write(tmp_path / "ACME.csv", GOOD))
    assert isinstance(bars, Bars)
    assert bars.symbols == ("ACME",)
    assert bars.source == "ACME.csv"
    assert bars.times.dtype == np.dtype("datetime64[ns]")
    np.testing.assert_array_equal(bars.times, ns("2024-01-02", "2024-01-03", "2024-01-04"))
    for name, first in [("open", 10), ("high", 12), ("low", 9), ("close", 11), ("volume", 100)]:
        values = getattr(bars, name)
        assert values.shape == (3, 1)
        assert values.dtype == np.float64
        assert values[0, 0] == first
        with pytest.raises(ValueError, match="read-only"):
            values[0, 0] = 1
    assert bars.columns == {}
    assert load_bars(tmp_path / "ACME.csv", symbol="X").symbols == ("X",)


@pytest.mark.parametrize("given", ["no", 1, None])
def test_a_flag_is_true_or_false(given):
    """Words and numbers have a truth too, which is not what they say."""
    with pytest.raises(ValueError, match=r"adjust.*must be True or False"):
        load_bars(frame(3), adjust=given)
    bars = load_bars(frame(3), symbol="X")
    with pytest.raises(ValueError, match=r"align.*must be True or False"):
        Market.from_bars(bars, ["log_return_1"], 252, align=given)
    for flag in (True, False):
        assert len(load_bars(frame(3), adjust=flag)) == 3
        assert Market.from_bars(bars, ["log_return_1"], 252, align=flag).symbols == ("X",)


def test_csv_numbers_are_read_exactly(tmp_path):
    values = [repr(float(v)) for v in np.random.default_rng(0).uniform(1, 2, 50)]
    days = pd.date_range("2024-01-01", periods=50).strftime("%Y-%m-%d")
    rows = [f"{day},{v},{v},{v},{v},1" for day, v in zip(days, values, strict=True)]
    np.testing.assert_array_equal(load_bars(write(tmp_path / "a.csv", rows)).close[:, 0], [float(v) for v in values])


BROKEN = {
    "high": (
        "2024-01-03,11,11.5,10,12,200",
        r"row 3: high is 11.5, .*12.*repair='clip'",
    ),
    "low": ("2024-01-03,11,13,11.5,12,200", r"row 3: low is 11.5, .*11.*`repair='clip'`"),
    "high below low": ("2024-01-03,11,9,13,12,200", r"row 3: high is 9, .*repair='clip'"),
    "zero": ("2024-01-03,0,13,0,12,200", r"row 3: open is 0, .*above 0; correct or remove"),
    "negative": ("2024-01-03,11,13,-1,12,200", r"row 3: low is -1, .*above 0"),
    "nan": ("2024-01-03,11,13,10,NaN,200", r"row 3: close is missing \(NaN\), .*above 0"),
    "infinite": ("2024-01-03,11,inf,10,12,200", r"row 3: high is inf, .*finite"),
    "text": ("2024-01-03,11,13,10,12x,200", r"row 3: Close is '12x', .*not a number"),
    "no volume": ("2024-01-03,11,13,10,12,", r"row 3: volume is missing, .*repair='clip'"),
    "negative volume": ("2024-01-03,11,13,10,12,-5", r"row 3: volume is -5, .*0 or more"),
    "tiny price": ("2024-01-03,11,13,1e-16,12,200", r"row 3: low is 1e-16, outside 1e-15 to 1e\+15.*another unit"),
    "huge price": ("2024-01-03,11,1e16,10,12,200", r"row 3: high is 1e\+16, outside 1e-15 to 1e\+15"),
    "volume beyond float32": ("2024-01-03,11,13,10,12,1e39", r"row 3: volume is 1e\+39, .*3.4e\+38"),
    "infinite volume": ("2024-01-03,11,13,10,12,inf", r"row 3: volume is inf, .*0 or more"),
    "same time": ("2024-01-02,11,13,10,12,200", r"row 3: the time 2024-01-02 .*remove one"),
    "unsorted": ("2024-01-01,11,13,10,12,200", r"row 3: the time 2024-01-01 .*2024-01-02 .*sort"),
    "no time": (",11,13,10,12,200", r"row 3: the time .*correct or remove"),
    "bad time": ("soon,11,13,10,12,200", r"row 3: 'soon' .*write ISO"),
    "impossible date": ("2024-02-30,11,13,10,12,200", r"row 3: '2024-02-30' .*write ISO"),
    "cell too many": ("2024-01-03,11,13,10,12,200,7,8", r"row 3: 8 values, .*6"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_row_is_rejected_with_its_number_and_value(tmp_path, case):
    row, message = BROKEN[case]
    path = write(tmp_path / "acme.csv", [GOOD[0], row, GOOD[2]])
    with pytest.raises(DataError, match=rf"^acme\.csv, {message}") as caught:
        load_bars(path)
    assert not str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    if case in ("zero", "negative", "nan", "infinite", "unsorted", "same time"):
        with pytest.raises(DataError, match="row 3"):
            load_bars(path, repair="clip")


@pytest.mark.parametrize("repair", [None, "clip", "adjust"])
def test_float_dust_in_high_and_low_is_widened_silently(repair):
    table = frame(6)
    table["high"], table["low"] = table[["open", "close"]].max(axis=1), table[["open", "close"]].min(axis=1)
    dust = table.assign(high=table.high * (1 - 1e-10), low=table.low * (1 + 1e-10))
    bars = load_bars(dust, repair=repair)
    np.testing.assert_array_equal(bars.high[:, 0], table.high)
    np.testing.assert_array_equal(bars.low[:, 0], table.low)
    assert bars.notes == ()


def test_an_adjusted_volume_is_named_and_the_traded_value_keeps_the_shares_of_its_day():
    table = frame()
    raw = table.assign(volume=np.arange(100, 100 + len(table)), adjVolume=np.arange(100, 100 + len(table)) * 2.0)
    bars = load_bars(raw)
    assert bars.volume[:, 0].tolist() == raw["volume"].tolist()
    assert any("'adjVolume' is a column and not the volume" in note for note in bars.notes)
    same = load_bars(raw.assign(adjVolume=raw["volume"]))
    assert not any("adjVolume" in note for note in same.notes)


def test_the_message_never_shows_one_number_twice(tmp_path):
    for value in ("11.999", "11.999999", "11.99999997"):
        path = write(tmp_path / "a.csv", [GOOD[0], f"2024-01-03,11,{value},10,12,200", GOOD[2]])
        with pytest.raises(DataError, match=rf"high is {value}, .*= 12[.0]*;"):
            load_bars(path)


def test_row_number_counts_blank_lines_and_a_preamble(tmp_path):
    rows = [GOOD[0], "", GOOD[1], "2024-01-04,12,14,11,-13,300"]
    with pytest.raises(DataError, match="row 5: close is -13"):
        load_bars(write(tmp_path / "a.csv", rows))
    with pytest.raises(DataError, match="row 6: close is -13"):
        load_bars(write(tmp_path / "b.csv", rows, "https://www.example.com\n" + HEADER))
    bad = frame()
    bad.iloc[2, 3] = np.nan
    with pytest.raises(DataError, match=r"DataFrame, row 2 \(counted from 0\): close is missing"):
        load_bars(bad)


def test_number_of_further_bad_rows_is_given(tmp_path):
    rows = [GOOD[0], "2024-01-03,11,11,10,12,1", "2024-01-04,11,11,10,12,1", "2024-01-05,11,11,10,12,1"]
    with pytest.raises(DataError, match="2 more rows"):
        load_bars(write(tmp_path / "a.csv", rows))


def test_the_newest_bar_first_is_reversed_with_a_note(tmp_path):
    for rows in (GOOD, GOOD[:2]):
        bars = load_bars(write(tmp_path / "a.csv", rows[::-1]))
        assert bars.close[:, 0].tolist() == [11, 12, 13][: len(rows)]
        assert (np.diff(bars.times) > np.timedelta64(0)).all()
        (note,) = bars.notes
        assert "reversed" in note
    with pytest.raises(DataError, match=r"row 2: close is -13"):  # rows keep their numbers
        load_bars(write(tmp_path / "a.csv", ["2024-01-04,12,14,11,-13,300", *GOOD[:2][::-1]]))


def test_a_repeated_time_in_a_reversed_file_is_named(tmp_path):
    days = [f"2024-01-{day:02d},10,12,9,11,1" for day in range(20, 0, -1)]
    with pytest.raises(DataError, match="the time 2024-01-15 repeats"):
        load_bars(write(tmp_path / "a.csv", [*days[:6], days[5], *days[6:]]))


def test_each_symbol_of_a_table_is_reversed_by_itself(tmp_path):
    rows = [f"A,{row}" for row in GOOD[::-1]] + [f"B,{row}" for row in GOOD]
    one, other = load_bars(write(tmp_path / "a.csv", rows, "symbol," + HEADER))
    assert one.close.tolist() == other.close.tolist()
    assert [sum("reversed" in note for note in bars.notes) for bars in (one, other)] == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "left"}, "label='left'` .*open or close"),
        ({"repair": "fill"}, "repair='fill'` .*clip.*drop"),
        ({"symbol": "A", "symbols": ["A"]}, "symbol='A'` .*give one"),
        ({"tz": "Mars"}, "tz='Mars'` .*America/New_York"),
    ],
)
def test_unknown_options_are_rejected(options, message):
    with pytest.raises(DataError, match=message):
        load_bars(frame(), **options)


@pytest.mark.parametrize(
    "names",
    [
        "date,open,high,low,close,volume",
        "TIMESTAMP,OPEN,HIGH,LOW,CLOSE,VOL",
        "Open time,Open,High,Low,Close,Volume",
        "ts,o,h,l,c,v",
        "time,Open,High,Low,Last,Volume",
        "datetime,Open Price,High_Price,LOW PRICE,Price,Volume",
        ",open,high,low,close,volume",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<TICKVOL>",
        "Date,BTC.open,BTC.high,BTC.low,BTC.close,BTC.volume",
        "Date,BTC_open,BTC_high,BTC_low,BTC_close,volume",
        "Date,BTC-USD Open,BTC-USD High,BTC-USD Low,BTC-USD Close,BTC-USD Volume",
        "Date,Open_AAPL,High_AAPL,Low_AAPL,Close_AAPL,Volume_AAPL",
    ],
)
def test_column_names_of_data_vendors(tmp_path, names):
    bars = load_bars(write(tmp_path / "a.csv", GOOD, names + "\n"))
    got = [getattr(bars, name)[1, 0] for name in ("open", "high", "low", "close", "volume")]
    assert got == [11, 13, 10, 12, 200]
    assert bars.times[1] == np.datetime64("2024-01-03")
    assert bars.columns == {}


def test_shared_column_prefix_names_the_symbol_and_two_are_rejected(tmp_path):
    btc = frame().add_prefix("BTC-USD ")
    assert load_bars(btc).symbols == ("BTC-USD",)
    with pytest.raises(DataError, match=r"\(BTC-USD, ETH\); give a dict"):
        load_bars(btc.join(frame().add_prefix("ETH_")))


def test_label_open_adds_the_regular_spacing():
    table = frame(8, "h").drop(pd.Timestamp("2024-01-01 03:00"))
    np.testing.assert_array_equal(
        load_bars(table, label="open").times, table.index.to_numpy("M8[ns]") + np.timedelta64(1, "h")
    )
    with pytest.raises(DataError, match=r"one bar, .*`label='close'`"):
        load_bars(table[:1], label="open")
    noted = load_bars(table.reset_index(names="Open time"))
    assert any("label='open'" in note for note in noted.notes)


def test_repair_clip_sets_the_envelope_and_counts(tmp_path):
    rows = ["2024-01-02,10,9,9.5,11,100", "2024-01-03,11,13,10,12,", "2024-01-04,12,14,13.5,13,300"]
    bars = load_bars(write(tmp_path / "a.csv", rows), repair="clip")
    # By hand: row 1 max(10, 9, 9.5, 11) = 11 and min = 9. Row 3 low = min(12, 14, 13.5, 13) = 12.
    assert bars.high[:, 0].tolist() == [11, 13, 14]
    assert bars.low[:, 0].tolist() == [9, 10, 12]
    assert bars.volume[:, 0].tolist() == [100, 0, 300]
    assert any("high in 1 bars" in note and "low in 2" in note and "0 in 1" in note for note in bars.notes)
    assert load_bars(write(tmp_path / "b.csv", GOOD), repair="clip").notes == ()


def broken(count=3, total=100):
    """A sound frame, and a copy of it whose first rows have no prices, but for the very first row."""
    table = frame(total)
    spoilt = table.copy()
    spoilt.iloc[1 : 1 + count, :4] = np.nan
    return table, spoilt


def test_repair_drop_leaves_out_rows_without_prices_and_says_which():
    table, spoilt = broken()
    spoilt.iloc[10, 1] = 1.0
    spoilt.iloc[20, 4] = -1.0
    bars = load_bars(spoilt, repair="drop")
    kept = table.drop(table.index[[1, 2, 3, 10, 20]])
    np.testing.assert_array_equal(bars.times, kept.index.to_numpy("M8[ns]"))
    np.testing.assert_array_equal(bars.close[:, 0], kept["close"])
    note = next(note for note in bars.notes if "repair='drop'" in note)
    assert "5 of 100 rows" in note
    assert "3 with a missing or impossible price (2024-01-02, 2024-01-03, 2024-01-04)" in note
    assert "1 with an open or close outside of low to high (2024-01-11)" in note
    assert "1 with a missing or impossible volume (2024-01-21)" in note


def test_repair_drop_leaves_a_sound_table_as_it_is():
    table, _ = broken()
    bars = load_bars(table, repair="drop")
    np.testing.assert_array_equal(bars.close[:, 0], table["close"])
    assert bars.notes == ()


@pytest.mark.parametrize(("count", "total"), [(6, 100), (2, 20), (1, 1)])
def test_repair_drop_refuses_where_many_rows_would_go(count, total):
    _, spoilt = broken(count, total + 1)
    spoilt = spoilt.iloc[1:]
    with pytest.raises(DataError, match=rf"row 0 .*price, and {count} of {total} rows .*at most 5%.*misread"):
        load_bars(spoilt, repair="drop")
    assert len(load_bars(broken(1, 10)[1], repair="drop")) == 9  # one row may always go


def test_the_refusal_of_a_broken_row_names_the_way_out():
    for column, value in (("close", np.nan), ("high", 1.0), ("volume", -5.0), ("volume", np.nan), ("close", 0.0)):
        table = frame(60)
        table.loc[table.index[7], column] = value
        with pytest.raises(DataError, match=r"row 7 .*`repair='drop'`"):
            load_bars(table)
        assert len(load_bars(table, repair="drop")) == 59


def test_repair_drop_keeps_what_is_due_in_a_row():
    _, spoilt = broken(1)
    for column, value in (("dividends", 0.5), ("stock splits", 2.0), ("funding", 0.001)):
        due = spoilt.assign(**{column: 0.0})
        due.loc[due.index[50], column] = value
        assert len(load_bars(due, repair="drop")) == 99
        due.loc[due.index[1], column] = value
        with pytest.raises(DataError, match=rf"row 1 .*'{column}' is {value:g} .*lost; correct the row"):
            load_bars(due, repair="drop")


def test_repair_drop_looks_at_the_adjusted_close_too(tmp_path):
    table = frame(60).assign(**{"Adj Close": frame(60)["close"] / 2})
    table.iloc[5, 5] = np.nan
    with pytest.raises(DataError, match=r"row 5 .*Adj Close is missing .*`repair='drop'`"):
        load_bars(table)
    bars = load_bars(table, repair="drop")
    np.testing.assert_array_equal(bars.close[:, 0], table["close"].drop(table.index[5]) / 2)


def test_repair_drop_never_drops_prices_of_two_adjustments():
    table = frame(1000)
    table.iloc[100:106, 3] *= 2  # close alone
    table.iloc[3, 0] = np.nan
    with pytest.raises(DataError, match=r"row 100 .*adjustment"):
        load_bars(table, repair="drop")


def test_repair_drop_counts_each_symbol_by_itself_and_keeps_the_numbers_of_rows(tmp_path):
    rows = [f"{symbol},{time:%Y-%m-%d},10,12,9,11,1" for symbol in "AB" for time in pd.date_range("2024", periods=30)]
    rows[40] = rows[40].replace(",11,", ",,")
    one, other = load_bars(write(tmp_path / "a.csv", rows, "symbol," + HEADER), repair="drop")
    assert (len(one), len(other)) == (30, 29)
    assert one.notes == ()
    rows[45] = rows[44]
    with pytest.raises(DataError, match=r"a\.csv, row 47: the time 2024-01-15 repeats"):
        load_bars(write(tmp_path / "a.csv", rows, "symbol," + HEADER), repair="drop")


def test_repair_drop_keeps_the_file_of_each_row(tmp_path):
    for month in ("01", "02"):
        rows = [f"2024-{month}-{day:02d},10,12,9,11,1" for day in range(1, 29)]
        rows[3] = rows[3].replace(",11,", f",{'' if month == '01' else '11'},")
        write(tmp_path / f"X-2024-{month}.csv", [*rows, rows[-1]] if month == "02" else rows)
    with pytest.raises(DataError, match=r"X-2024-02\.csv, row 30: the time 2024-02-28 repeats"):
        load_bars(tmp_path, repair="drop")


def test_adjusted_close_scales_prices_and_is_noted(tmp_path):
    header = "Date,Open,High,Low,Close,Adj Close,Volume\n"
    path = write(tmp_path / "a.csv", ["2024-01-02,20,24,18,22,11,100", "2024-01-03,11,13,10,12,12,200"], header)
    bars = load_bars(path)
    assert [getattr(bars, name)[0, 0] for name in ("open", "high", "low", "close", "volume")] == [10, 12, 9, 11, 100]
    assert "multiplied by 'Adj Close' / close" in bars.notes[0]
    assert "`adjust=False`" in bars.notes[0]
    assert not any("unadjusted splits" in note for note in bars.notes)
    raw = load_bars(path, adjust=False)
    assert raw.open[0, 0] == 20
    assert any("'Adj Close' was not applied" in note for note in raw.notes)
    assert any("2-for-1 split" in note for note in raw.notes)
    assert bars.columns == {} == raw.columns
    with pytest.raises(DataError, match="row 2: Adj Close is -1"):
        load_bars(write(tmp_path / "a.csv", ["2024-01-02,20,24,18,22,-1,100"], header))


def test_adjusted_close_keeps_the_order_of_prices_exactly():
    rng = np.random.default_rng(1)
    close = rng.uniform(10, 200, 2000)
    table = pd.DataFrame({"open": close, "high": close, "low": close, "close": close, "volume": 1.0})
    table = table.assign(adj_close=close * rng.uniform(0.01, 1, 2000)).set_axis(pd.date_range("2000", periods=2000))
    bars = load_bars(table)
    assert (bars.high == bars.close).all()
    assert (bars.low == bars.open).all()
    np.testing.assert_allclose(bars.close[:, 0], table.adj_close, rtol=1e-15)


@pytest.mark.parametrize(
    ("factor", "name"),
    [(1 / 2, "2-for-1 split"), (2 / 3, "3-for-2 split"), (1 / 7, "7-for-1 split"), (10, "1-for-10 reverse split")],
)
def test_share_split_is_noted_with_its_date(factor, name):
    table = frame()
    table.iloc[3:, :4] *= factor
    (note,) = load_bars(table).notes
    assert name in note
    assert "2024-01-04" in note


def test_a_jump_between_two_ratios_is_no_split():
    table = frame()
    table.iloc[3:, :4] /= 13.4
    assert load_bars(table).notes == ()


@pytest.mark.parametrize("value", [1e39, -1e39, np.inf])
@pytest.mark.parametrize("bars", [3, 30])
def test_a_number_beyond_float32_in_any_further_column_is_refused(bars, value):
    values = np.linspace(0, 1, bars)
    values[-1] = value
    with pytest.raises(DataError, match=rf"row {bars - 1} .*'mood' is .*leave it empty"):
        load_bars(frame(bars).assign(before=np.nan, mood=values))
    values[-1] = 3.4e38
    assert load_bars(frame(bars).assign(mood=values)).columns["mood"][-1, 0] == 3.4e38


def test_gaps_are_counted_and_never_filled():
    table = frame(50, "30min").drop(pd.date_range("2024-01-01 05:00", periods=3, freq="30min"))
    table = table.drop(pd.Timestamp("2024-01-01 20:00"))
    bars = load_bars(table)
    assert len(bars) == 46
    (note,) = bars.notes
    assert note.startswith("2 gaps")
    assert "the largest is 2:00:00, after 2024-01-01 04:30:00" in note


def test_gaps_do_not_include_nights_weekends_and_holidays():
    days = pd.bdate_range("2024-01-01", periods=60)
    assert load_bars(frame(60).set_axis(days)).notes == ()
    assert load_bars(frame(59).set_axis(days.drop(days[10]))).notes == ()
    (note,) = load_bars(frame(55).set_axis(days.delete(range(20, 25)))).notes
    assert note.startswith("1 gap beyond nights")
    assert "10 days" in note


def test_further_numeric_columns_keep_their_names():
    table = frame().assign(Sentiment=np.linspace(-1, 1, 6), flag=[True, False] * 3, text="x")
    bars = load_bars(table)
    assert set(bars.columns) == {"Sentiment", "flag"}
    np.testing.assert_array_equal(bars.columns["Sentiment"], np.linspace(-1, 1, 6)[:, None])
    assert any("left out: text" in note for note in bars.notes)


def test_missing_volume_column_is_zero_and_noted():
    bars = load_bars(frame().drop(columns="volume"))
    assert (bars.volume == 0).all()
    assert any("no volume column" in note for note in bars.notes)


def long_file(tmp_path):
    rows = [f"{name},{row}" for name in ("B", "0700") for row in GOOD]
    return write(tmp_path / "long.csv", [rows[0], rows[3], *rows[1:3], *rows[4:]], "Ticker," + HEADER)


def test_symbol_column_gives_a_tuple_or_the_chosen_symbols(tmp_path):
    path = long_file(tmp_path)
    both = load_bars(path)
    assert [bars.symbols for bars in both] == [("B",), ("0700",)]
    assert [len(bars) for bars in both] == [3, 3]
    assert load_bars(path, symbol="0700").symbols == ("0700",)
    assert [bars.symbols[0] for bars in load_bars(path, symbols=["0700", "B"])] == ["0700", "B"]
    assert isinstance(load_bars(path, symbols=["B"]), tuple)
    with pytest.raises(DataError, match=r"'X'; .*B, 0700"):
        load_bars(path, symbol="X")
    with pytest.raises(DataError, match=r"'B', 'B'.* once"):
        load_bars(path, symbols=["B", "B"])
    one = write(tmp_path / "one.csv", [f"ACME,{row}" for row in GOOD], "symbol," + HEADER)
    assert load_bars(one).symbols == ("ACME",)


def test_symbol_column_keeps_the_row_numbers_of_the_file(tmp_path):
    rows = [f"A,{GOOD[0]}", f"B,{GOOD[0]}", "A,2024-01-03,11,13,10,12,1", "B,2024-01-03,11,13,10,-12,1"]
    path = write(tmp_path / "long.csv", rows, "symbol," + HEADER)
    with pytest.raises(DataError, match=r"long\.csv, row 5: close is -12"):
        load_bars(path)
    assert load_bars(path, symbol="A").symbols == ("A",)


def test_dict_of_frames_and_paths_gives_a_tuple(tmp_path):
    source = {"A": frame(), "B": write(tmp_path / "b.csv", GOOD), "0700": long_file(tmp_path)}
    loaded = load_bars(source)
    assert [bars.symbols[0] for bars in loaded] == ["A", "B", "0700"]
    assert load_bars(source, symbol="B").source == "b.csv"
    assert isinstance(load_bars({"A": frame()}), tuple)
    with pytest.raises(DataError, match=r"'C'; .*A, B, 0700"):
        load_bars(source, symbol="C")
    bad = frame()
    bad.iloc[0, 0] = -1
    with pytest.raises(DataError, match="DataFrame 'A', row 0"):
        load_bars({"A": bad})


@pytest.mark.parametrize("value", [True, 1j, pd.Timedelta(1), pd.Timestamp("2020")])
def test_prices_that_are_not_numbers_are_rejected(value):
    with pytest.raises(DataError, match=r"column open .*correct or rename"):
        load_bars(frame().assign(open=value), repair="clip")


def test_missing_columns_are_listed():
    with pytest.raises(DataError, match=r"open and high and low; .* close, volume: "):
        load_bars(frame()[["close", "volume"]])


def test_loading_does_not_change_the_frame():
    table = frame()
    before = table.copy(deep=True)
    load_bars(table, repair="clip", label="open")
    pd.testing.assert_frame_equal(table, before)


def test_importing_bars_imports_neither_jax_nor_pandas():
    import subprocess
    import sys

    code = "import sys, jaxtrader.market.bars; print([m for m in ('jax', 'pandas') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
