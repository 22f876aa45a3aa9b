"""Columns of dividends and splits: used where the prices show them, and named where they do not."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import frame
from market.test_share_splits import walk

from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError


def ex_dividend() -> pd.DataFrame:
    """Three days at 100, and three at 95 after a dividend of 5."""
    price = np.array([100.0, 100, 100, 95, 95, 95])
    columns = {"open": price, "high": price + 0.5, "low": price - 0.5, "close": price, "volume": 1e3 + np.arange(6)}
    return pd.DataFrame(columns, index=pd.bdate_range("2024-01-01", periods=6))


def test_a_dividend_that_raw_prices_show_adjusts_them():
    bars = load_bars(ex_dividend().assign(Dividends=[0, 0, 0, 5.0, 0, 0]))
    # By hand: the prices before it are multiplied by 1 - 5 / 100.
    np.testing.assert_allclose(bars.close[:, 0], 95.0, rtol=1e-15)
    np.testing.assert_allclose(bars.high[:3, 0], 100.5 * 0.95, rtol=1e-15)
    np.testing.assert_array_equal(bars.price_factor[:, 0], [0.95, 0.95, 0.95, 1, 1, 1])
    assert bars.volume[0, 0] == 1e3
    assert any("'Dividends' was used" in note for note in bars.notes)
    raw = load_bars(ex_dividend().assign(Dividends=[0, 0, 0, 5.0, 0, 0]), adjust=False)
    assert raw.close[0, 0] == 100
    assert raw.price_factor is None
    assert any("'Dividends' was not applied" in note for note in raw.notes)


def test_an_adjusted_close_goes_before_a_column_of_dividends():
    table = ex_dividend().assign(**{"Dividends": [0, 0, 0, 5.0, 0, 0], "Adj Close": 95.0})
    bars = load_bars(table)
    np.testing.assert_allclose(bars.close[:, 0], 95.0, rtol=1e-15)
    assert any("'Adj Close'" in note for note in bars.notes)


@pytest.mark.parametrize("name", ["Stock Splits", "split coefficient", "8. split coefficient", "splitFactor"])
def test_a_listed_split_adjusts_prices_that_jump_by_it(name):
    table = frame(6)
    table.iloc[3:, :4] /= 2
    bars = load_bars(table.assign(**{name: [0, 0, 0, 2.0, 0, 0]}))
    np.testing.assert_array_equal(bars.close[:, 0], [50.0, 50.5, 51.0, 51.5, 52.0, 52.5])
    np.testing.assert_array_equal(bars.price_factor[:, 0], [0.5, 0.5, 0.5, 1, 1, 1])
    assert any(f"'{name}' was used" in note for note in bars.notes)
    assert not any("look like" in note for note in bars.notes)


def test_a_listed_split_that_prices_do_not_show_is_adjusted_already():
    bars = load_bars(frame(6).assign(**{"Stock Splits": [1, 1, 1, 2.0, 1, 1]}))
    np.testing.assert_array_equal(bars.close[:, 0], frame(6).close)
    assert any("'Stock Splits' was not used" in note for note in bars.notes)


def test_splits_at_which_volume_may_jump_are_named():
    days, shares = pd.bdate_range("2024-01-01", periods=60), np.where(np.arange(60) < 30, 1.0, 4.0)
    table = pd.DataFrame({name: 100 / shares for name in ("open", "high", "low", "close")}, index=days)
    for split in ({"Stock Splits": np.where(np.arange(60) == 30, 4.0, 0)}, {"Adj Close": np.full(60, 25.0)}):
        raw = load_bars(table.assign(volume=1e4 * shares, **split))
        assert any("volume_ratio may jump at 1 split, the first at 2024-02-12" in note for note in raw.notes)
    for other in (quarterly(raw=True), table.assign(volume=0, **split), table.assign(volume=1e4)):
        assert not any("volume_ratio" in note for note in load_bars(other).notes)


def quarterly(raw: bool) -> pd.DataFrame:
    """Ten years of a stock that pays 2% each quarter."""
    table = pd.DataFrame(walk(1, 2500, deviation=0.01, freedom=8.0), index=pd.bdate_range("2010-01-01", periods=2500))
    pays = np.arange(2500) % 63 == 62
    if raw:
        factor = np.cumprod(np.where(pays, 0.98, 1.0))
        table[["open", "high", "low", "close"]] *= factor[:, None]
    last = table.close.shift(fill_value=0).to_numpy()
    return table.assign(Dividends=np.where(pays, 0.02 * last, 0.0))


def test_dividends_of_years_are_used_where_prices_drop_and_only_there():
    raw, adjusted = load_bars(quarterly(raw=True)), load_bars(quarterly(raw=False))
    whole = walk(1, 2500, deviation=0.01, freedom=8.0)["close"]
    np.testing.assert_allclose(raw.close[:, 0] / raw.close[-1, 0], whole / whole[-1], rtol=1e-12)
    np.testing.assert_array_equal(adjusted.close[:, 0], whole)
    assert any("'Dividends' was not used: the prices do not drop" in note for note in adjusted.notes)


def test_dividends_that_are_lost_in_the_moves_are_named_and_not_used():
    table = quarterly(raw=False).iloc[-100:]
    table["Dividends"] /= 20
    bars = load_bars(table)
    np.testing.assert_array_equal(bars.close[:, 0], table.close)
    assert any("'Dividends' was not used" in note and "too few to tell" in note for note in bars.notes)


def test_a_column_without_events_is_a_column_like_any_other():
    assert load_bars(frame(6).assign(Dividends=0.0)).notes == ()
    yields = load_bars(frame(6).assign(Dividends=0.1))
    assert yields.notes == ()
    assert "Dividends" in yields.columns


@pytest.mark.parametrize(("name", "value"), [("Dividends", -1.0), ("Stock Splits", np.inf)])
def test_an_impossible_event_is_rejected(name, value):
    with pytest.raises(DataError, match=rf"row 3 .*{name}'? is {value:g}"):
        load_bars(frame(6).assign(**{name: [0, 0, 0, value, 0, 0]}))
