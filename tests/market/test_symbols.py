"""Tables of several symbols: which column names them, and two histories that were joined."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import frame

from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError


def long(column, names=("AAA", "BBB"), starts=("2024-01-01", "2024-01-01"), factor=1.0):
    """Histories one below the other, with a column that tells them apart. The second one's prices are scaled."""
    parts = []
    for i, (name, start) in enumerate(zip(names, starts, strict=True)):
        part = frame(start=start).rename_axis("date").reset_index()
        part[["open", "high", "low", "close"]] *= factor**i
        parts.append(part.assign(**{column: name}))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    "column",
    [
        *("symbol", "Ticker", "tic", "ts_code", "Name", "Stock", "code", "asset", "股票代码", "isin", "pair", "Index"),
        *("stock_id", "Stock Name", "SecuritiesCode", "tradingsymbol", "act_symbol", "合约代码", "Unnamed: 1"),
    ],
)
def test_a_symbol_column_by_its_name(tmp_path, column):
    table = long(column)
    table.to_csv(tmp_path / "a.csv", index=False)
    for source in (table, tmp_path / "a.csv", table.set_index([column, "date"])):
        assert [bars.symbols[0] for bars in load_bars(source)] == ["AAA", "BBB"]
    assert load_bars(table.iloc[:6]).symbols == ("AAA",)


def test_row_numbers_are_no_symbols(tmp_path):
    # Two tables were put one below the other without new numbers.
    second = frame(start="2024-02-01").reset_index(names="date")
    for name in ("index", "Unnamed: 1"):
        table = pd.concat([frame().reset_index(names="date"), second]).reset_index(names=name)
        assert len(load_bars(table)) == 12
        assert len(load_bars(table.assign(**{name: ["Q1"] * 6 + ["Q2"] * 6}))) == 12
    first, second = frame(freq="2h").reset_index(names="date"), frame(freq="2h", start="2024-01-01 01:00")
    table = pd.concat([first, second.reset_index(names="date")]).reset_index(names="index")
    with pytest.raises(DataError, match="earlier than"):
        load_bars(table)


def test_codes_keep_their_zeros(tmp_path):
    long("code", ("000001", "600000")).to_csv(tmp_path / "a.csv", index=False)
    assert [bars.symbols[0] for bars in load_bars(tmp_path / "a.csv")] == ["000001", "600000"]


def test_a_ticker_may_be_called_na(tmp_path):
    long("symbol", ("NA", "NAN")).to_csv(tmp_path / "a.csv", index=False)
    assert [bars.symbols[0] for bars in load_bars(tmp_path / "a.csv")] == ["NA", "NAN"]


def test_a_column_that_only_may_name_symbols_is_noted():
    assert any("'Name' holds the symbols" in note for note in load_bars(long("Name"))[0].notes)


def test_disjoint_histories_are_never_one():
    table = long("Name", starts=("2024-01-01", "2024-02-01"), factor=4.0)
    assert [len(bars) for bars in load_bars(table)] == [6, 6]


def test_a_code_that_changes_to_and_fro_within_one_history_is_a_feature():
    table = frame().assign(code=[1, 2, 1, 2, 1, 2])
    bars = load_bars(table)
    assert bars.columns["code"][:, 0].tolist() == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("column", ["exchange", "sector", "which"])
def test_text_that_changes_at_a_jump_of_the_price_is_refused(column):
    table = long(column, starts=("2024-01-01", "2024-02-01"), factor=4.0)
    with pytest.raises(DataError, match=rf"row 6 .*'{column}' changes from 'AAA' to 'BBB'.*105 to 398.*'symbol'"):
        load_bars(table)
    # A column that goes on through the jump, or changes without one, says nothing.
    assert len(load_bars(table.assign(**{column: "AAA"}))) == 12
    assert len(load_bars(long(column, starts=("2024-01-01", "2024-02-01")))) == 12
    assert len(load_bars(table.assign(**{column: ["AAA", "BBB"] * 6}))) == 12


@pytest.mark.parametrize("codes", [("000001", "600000"), (10001, 10002)])
@pytest.mark.parametrize("column", ["code", "permno", "secid"])
def test_codes_that_change_at_a_jump_of_the_price_are_refused(tmp_path, column, codes):
    table = long(column, codes, starts=("2024-01-01", "2024-02-01"), factor=4.0)
    table.to_csv(tmp_path / "a.csv", index=False)
    for source in (table, tmp_path / "a.csv"):
        with pytest.raises(DataError, match=rf"'{column}' changes from .*105 to 398.*'symbol'"):
            load_bars(source)


@pytest.mark.parametrize(
    ("column", "values", "factor"),
    [("id", (17, 23), 1 / 7.2), ("id", ("AAPL", "MSFT"), 1.12), ("sym_id", (10107, 14593), 1.3)],
)
def test_a_key_that_changes_at_a_jump_of_the_price_is_refused(column, values, factor):
    close = 100 + np.tile([0.0, 1.0], 30)  # moves by 1%
    close[30:] *= factor
    prices = {name: close for name in ("open", "high", "low", "close")}
    table = pd.DataFrame(prices, index=pd.bdate_range("2024-01-01", periods=60, name="date"))
    with pytest.raises(DataError, match=rf"'{column}' changes from '{values[0]}' to '{values[1]}'.*'symbol'"):
        load_bars(table.assign(**{column: np.repeat(np.array(values, object), 30)}))
    # A column of another name, a change at another place, and numbers of rows and of weeks say nothing.
    for name, other in (
        ("regime", np.repeat([17, 23], 30)),
        ("bid", np.repeat([17, 23], 30)),
        (column, np.repeat([17, 23], [28, 32])),
        ("row_id", np.arange(60)),
        ("week_id", np.arange(60) // 5),
    ):
        assert len(load_bars(table.assign(**{name: other}))) == 60, name


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_column_of_another_name_that_tells_histories_apart_is_named(interleaved):
    table = long("firm")
    table = table.sort_values("date", kind="stable") if interleaved else table
    with pytest.raises(DataError, match=r"'firm' holds 2 values, such as 'AAA' and 'BBB'.*'symbol'"):
        load_bars(table)


def test_repeated_rows_of_one_symbol_are_refused_and_not_split_by_another_column():
    table = pd.concat([frame().iloc[:3], frame().iloc[2:]]).rename_axis("date").reset_index()
    with pytest.raises(DataError, match="repeats the time"):
        load_bars(table.assign(name=["x", "y", "x", "x", "y", "x", "x"]))


def test_thousands_of_symbols_are_each_one_history():
    count = 3000
    table = pd.DataFrame(
        {
            "symbol": np.repeat([f"S{i}" for i in range(count)], 2),
            "date": np.tile(["2024-01-02", "2024-01-03"], count),
            **{name: np.arange(1.0, 2 * count + 1) for name in ("open", "high", "low", "close")},
        }
    )
    loaded = load_bars(table.sample(frac=1, random_state=0).sort_values("date", kind="stable"))
    assert {bars.symbols[0]: bars.close[:, 0].tolist() for bars in loaded} == {
        f"S{i}": [2 * i + 1, 2 * i + 2] for i in range(count)
    }
