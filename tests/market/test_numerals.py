"""Numbers in text: thousands, decimal commas, currencies and scales. A mark with two readings is refused."""

import pandas as pd
import pytest
from market.price_tables import frame

from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError


def table(volumes, price="{}.5", mark=";"):
    """A text table of one price for each volume. The price rises, so that it has several lengths."""
    rows = [
        mark.join([f"2024-01-{day + 1:02d}", *[price.format(10 + day)] * 4, volume])
        for day, volume in enumerate(volumes)
    ]
    return "\n".join([mark.join(["date", "open", "high", "low", "close", "volume"]), *rows])


def read(tmp_path, text, **options):
    (tmp_path / "a.csv").write_text(text)
    return load_bars(tmp_path / "a.csv", **options)


def test_points_group_a_volume_beside_prices_with_decimal_points(tmp_path):
    for mark in "\t;,":
        bars = read(tmp_path, table(["765.591", "1.765.591", "12"], mark=mark))
        assert bars.volume[:, 0].tolist() == [765591, 1765591, 12]
        assert bars.close[:, 0].tolist() == [10.5, 11.5, 12.5]
    # Nothing shows what the point of whole prices is, and a comma is a decimal one beside them.
    with pytest.raises(DataError, match="decimal comma"):
        read(tmp_path, table(["765.591", "1.765.591,5"]))


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1,234,567", 1234567),
        ("12,34,567", 1234567),  # lakh
        ("1,234.5", 1234.5),
        ("$1,234.50", 1234.5),
        ("55.20K", 55200),
        ("1.27M", 1.27e6),
        ("2.5bn", 2.5e9),
        ("1.2万", 12000),
        ("1 234.5", 1234.5),
        ("1'234.5", 1234.5),
        ("₹12.5", 12.5),
        ("EUR 12.5", 12.5),
        ("12.5 USD", 12.5),
        ("1.5e3", 1500),
        ("N/A", None),
    ],
)
def test_a_number_is_read_as_it_is_written(tmp_path, written, number):
    text = table([written, "7"], mark=";")
    if number is None:
        with pytest.raises(DataError, match="row 2: volume is missing"):
            read(tmp_path, text)
    else:
        assert read(tmp_path, text).volume[:, 0].tolist() == [number, 7]


@pytest.mark.parametrize("dash", ["-", "--", "—"])
def test_a_dash_reports_no_volume_and_is_noted(tmp_path, dash):
    bars = read(tmp_path, table([dash, "7", dash]))
    assert bars.volume[:, 0].tolist() == [0, 7, 0]
    assert "'volume' is a dash in 2 bars, which reports no volume, so it is 0 there." in bars.notes
    for none in (dash, "-1"):
        bars = read(tmp_path, table([none] * 3))
        assert bars.volume[:, 0].tolist() == [0, 0, 0]
        assert [note for note in bars.notes if "volume" in note] == ["'volume' is missing in every bar; volume is 0."]
    with pytest.raises(DataError, match="row 2: volume is -1"):
        read(tmp_path, table(["-1", "7"]))
    with pytest.raises(DataError, match="row 2: close is missing"):
        read(tmp_path, table(["7", "8"]).replace(";10.5;7", f";{dash};7"))


def test_decimal_commas_with_points_between_thousands(tmp_path):
    text = table(["1.234.567", "1.234"], price="1.0{},5")
    bars = read(tmp_path, text)
    assert bars.volume[:, 0].tolist() == [1234567, 1234]
    assert bars.close[:, 0].tolist() == [1010.5, 1011.5]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize(
    ("volumes", "price"),
    [
        (["988", "1,002"], "{}"),  # whole numbers beside it
        (["988", "1,002"], "{}.5"),  # points are decimals elsewhere
        (["765,591", "37,067"], "{}.029999"),
        (["988", "1,002"], "{},5"),  # decimal commas elsewhere would make it 1.002
        (["988", "1.002"], "{},5"),
    ],
)
def test_a_mark_that_may_be_decimal_or_between_thousands_is_refused_with_both_readings(tmp_path, mark, volumes, price):
    value = volumes[0] if len(volumes[0]) > 3 else volumes[1]
    readings = value.replace(",", "").replace(".", ""), value.replace(",", ".")
    with pytest.raises(DataError) as caught:
        read(tmp_path, table(volumes, price, mark))
    message = str(caught.value)
    assert all(part in message for part in (f"'{value}'", *readings, "`decimal=','`", "`decimal='.'`"))


def test_prices_that_are_all_of_three_decimals_are_refused_and_decimal_settles_them(tmp_path):
    text = table(["100", "200"], price="1,0{}")
    with pytest.raises(DataError, match=r"'1,010'.* 1010 .* 1\.010 "):
        read(tmp_path, text)
    assert read(tmp_path, text, decimal=",").close[:, 0].tolist() == [1.01, 1.011]
    assert read(tmp_path, text, decimal=".").close[:, 0].tolist() == [1010, 1011]


def test_decimal_settles_a_volume(tmp_path):
    text = table(["765,591", "37,067"], price="{}.029999")
    assert read(tmp_path, text, decimal=".").volume[:, 0].tolist() == [765591, 37067]
    with pytest.raises(DataError, match=r"'10\.029999'.*decimal=','"):
        read(tmp_path, text, decimal=",")
    with pytest.raises(DataError, match=r"decimal='x'` .*'\.'` or `decimal=','"):
        read(tmp_path, text, decimal="x")


def test_a_value_of_another_column_settles_thousands(tmp_path):
    bars = read(tmp_path, table(["765,591", "37,067"], price="1,0{}.25"))
    assert bars.volume[:, 0].tolist() == [765591, 37067]
    assert bars.close[:, 0].tolist() == [1010.25, 1011.25]


@pytest.mark.parametrize(
    ("volumes", "price"), [(["1,234,567", "5"], "{},5"), (["12,5", "5"], "1,0{}.25"), (["5", "12,34"], "1,0{}.25")]
)
def test_decimal_commas_and_commas_between_thousands_in_one_table_are_refused(tmp_path, volumes, price):
    with pytest.raises(DataError, match=r"with a decimal comma, but .* between thousands"):
        read(tmp_path, table(volumes, price))


@pytest.mark.parametrize("volume", ["1,23,4", "1.2.3", "12x", "1,,234", "0x10", "1_000", "--5", "5-", "1.234,5.6"])
def test_what_is_no_number_is_refused_with_its_value(tmp_path, volume):
    with pytest.raises(DataError, match=r"row 2: volume is '") as caught:
        read(tmp_path, table([volume, "7"]))
    assert volume in str(caught.value)


def test_a_frame_of_text_is_read_like_a_file():
    text = frame().map(lambda value: f"{1000 * value:,.2f}")
    assert load_bars(text).close[:, 0].tolist() == (1000 * frame().close).tolist()
    whole = frame().map(lambda value: f"{1000 + value:,.0f}")
    with pytest.raises(DataError, match="`decimal="):
        load_bars(whole)


def test_further_columns_with_two_readings_are_left_out_and_named():
    table = frame().assign(mood="1,002", turnover="1,234.5")
    bars = load_bars(table)
    assert set(bars.columns) == {"mood", "turnover"}  # the turnover settles the mood
    bars = load_bars(table.drop(columns="turnover"))
    assert bars.columns == {}
    assert any("mood" in note for note in bars.notes)


def test_prices_as_text_keep_their_last_bit():
    table = frame().assign(close=["100.1", "100.2", "100.30000000000001", "99.99999999999999", "100", "1e2"])
    table[["open", "high", "low"]] = table[["close"]].astype(float).to_numpy().repeat(3, axis=1)
    assert load_bars(table).close[:, 0].tolist() == table.close.astype(float).tolist()
    assert pd.api.types.is_string_dtype(table.close)


GROUPED = ["5.560", "5.600", "5.540", "5.580", "5.570"]
THREE = ["988", "1.002", "995"]


def prices(values, volumes, mark=",", quote=""):
    """A text table whose open, high, low and close are one value in each row."""
    cells = [[f"2024-01-{day + 1:02d}", *[value] * 4, volumes[day]] for day, value in enumerate(values)]
    rows = [["date", "open", "high", "low", "close", "volume"], *cells]
    return "\n".join(mark.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)


@pytest.mark.parametrize(
    ("text", "value", "readings"),
    [
        (prices(GROUPED, ["52520516"] * 5, ";"), "5.560", ("5560", "5.560")),
        (prices(GROUPED, ["52520516"] * 5, "\t"), "5.560", ("5560", "5.560")),
        (prices(GROUPED, ["120"] * 5, ",", '"'), "5.560", ("5560", "5.560")),
        (prices(THREE, ["120"] * 3), "1.002", ("1002", "1.002")),  # 988 and then 1002, in any layout
        (prices(["12.5", "13.5", "12.25"], ["765.591", "573.338", "60.120"]), "765.591", ("765591", "765.591")),
        (prices(["12.5", "13.5", "12.25"], ["988", "1.002", "995"]), "1.002", ("1002", "1.002")),
        (prices(["12.5", "13.5", "12.25"], ["100.000", "5.000", "200.000"]), "100.000", ("100000", "100.000")),
    ],
)
def test_points_that_may_stand_between_thousands_are_refused_with_both_readings(tmp_path, text, value, readings):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert all(part in str(caught.value) for part in (f"'{value}'", *readings, "`decimal=','`", "`decimal='.'`"))


def test_decimal_settles_points(tmp_path):
    text = prices(GROUPED, ["120"] * 5, ";")
    assert read(tmp_path, text, decimal=".").close[:2, 0].tolist() == [5.56, 5.6]
    assert read(tmp_path, text, decimal=",").close[:2, 0].tolist() == [5560, 5600]


@pytest.mark.parametrize(
    ("values", "volumes"),
    [
        (["1.105", "1.203", "1.21"], ["5", "6", "7"]),  # two decimals: no thousands
        (["0.954", "1.002", "1.010"], ["5", "6", "7"]),
        (["999.500", "1000.250", "1001.125"], ["5", "6", "7"]),
        (["10", "10.125", "9.875"], ["5", "6", "7"]),  # 10125 beside 10 is no price
        (["5.560", "5.600", "5.540"], ["1.5", "2.25", "7.125"]),  # points are decimals in another column
        (["1.5", "1.6", "1.7"], ["0.125", "7.250", "3.375"]),
        (["1.5", "1.6", "1.7"], ["1250.125", "7.250", "3.375"]),
    ],
)
@pytest.mark.parametrize("mark", [",", ";"])
def test_points_of_decimals_need_no_word(tmp_path, values, volumes, mark):
    bars = read(tmp_path, prices(values, volumes, mark))
    assert bars.close[:, 0].tolist() == [float(value) for value in values]
    assert bars.volume[:, 0].tolist() == [float(volume) for volume in volumes]
    assert not any("decimal" in note for note in bars.notes)


def test_prices_of_three_decimals_between_plain_commas_are_read_with_a_note(tmp_path):
    bars = read(tmp_path, prices(["110.234", "110.301", "110.290"], ["1200", "900", "700"]))
    assert bars.close[:, 0].tolist() == [110.234, 110.301, 110.29]
    assert any("'110.234'" in note and "110234" in note and "`decimal=','`" in note for note in bars.notes)


def test_points_behind_the_first_rows_are_looked_at(tmp_path):
    rows = 100  # more than the rows from which the layout is found
    days = pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d")
    volumes = ["988"] * (rows - 1) + ["1.002"]
    text = "\n".join(
        ["date,open,high,low,close,volume", *(f"{d},1.5,1.5,1.5,1.5,{v}" for d, v in zip(days, volumes, strict=True))]
    )
    with pytest.raises(DataError, match=r"row 101: volume is '1\.002'.*`decimal="):
        read(tmp_path, text)
    assert read(tmp_path, text.replace("1.002", "1.02")).volume[-1, 0] == 1.02


def test_a_program_that_never_groups_thousands_is_not_asked(tmp_path):
    text = (
        "2024.03.01,01:00,110.234,110.301,110.200,110.290,5.125\n2024.03.01,02:00,110.290,110.310,110.210,110.250,7.250"
    )
    bars = read(tmp_path, text)
    assert bars.close[:, 0].tolist() == [110.29, 110.25]
    assert not any("`decimal=" in note for note in bars.notes)
