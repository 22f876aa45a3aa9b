"""The bundled stocks and currencies against data/PROVENANCE.md, and the default features on them."""

import csv
import gzip
import hashlib

import numpy as np
import pytest

from jaxtrader.market.bars import Bars
from jaxtrader.market.datasets import CURRENCIES, PAIRS, STOCKS, load_bundled, load_currencies
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market


def test_load_bundled_default_symbols_lengths_and_dates():
    loaded = load_bundled()
    assert [bars.symbols[0] for bars in loaded] == ["AAPL", "IBM", "MSFT", "GOOG"]
    assert [len(bars) for bars in loaded] == [3270, 3270, 3270, 2148]
    assert [str(bars.times[0])[:10] for bars in loaded] == ["2000-03-01"] * 3 + ["2004-08-19"]
    assert {str(bars.times[-1])[:10] for bars in loaded} == {"2013-03-01"}


def test_load_bundled_one_symbol_and_unknown_symbol():
    facebook = load_bundled("FB")
    assert isinstance(facebook, Bars)
    assert len(facebook) == 196
    assert [bars.symbols[0] for bars in load_bundled(("FB", "IBM"))] == ["FB", "IBM"]
    with pytest.raises(DataError, match=r"'TSLA'; .*AAPL, FB, GOOG, IBM, MSFT"):
        load_bundled("TSLA")


def test_load_bundled_prices_are_adjusted():
    with gzip.open(STOCKS, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["Ticker"] == "AAPL"]
    apple = load_bundled("AAPL")
    factor = np.array([float(row["Adj Close"]) / float(row["Close"]) for row in rows])
    for name in ("Open", "High", "Low", "Close"):
        wanted = np.array([float(row[name]) for row in rows]) * factor
        np.testing.assert_allclose(getattr(apple, name.lower())[:, 0], wanted, rtol=1e-14)
    np.testing.assert_array_equal(apple.volume[:, 0], [float(row["Volume"]) for row in rows])
    falls = np.diff(np.log(apple.close[:, 0]))
    worst = int(np.argmin(falls))
    assert str(apple.times[worst + 1])[:10] == "2000-09-29"
    # The fall is known in two digits.
    assert np.exp(falls[worst]) - 1 == pytest.approx(-0.52, abs=0.005)


@pytest.mark.parametrize("path", [STOCKS, CURRENCIES], ids=["stocks", "currencies"])
def test_provenance_states_the_checksum_of_the_file(path):
    text = (path.parent / "PROVENANCE.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text


def test_load_currencies_has_one_price_a_day():
    loaded = load_currencies()
    assert [bars.symbols[0] for bars in loaded] == list(PAIRS)
    with gzip.open(CURRENCIES, "rt") as file:
        rows = list(csv.DictReader(file))
    for bars in loaded:
        assert [str(time)[:10] for time in bars.times] == [row["Date"] for row in rows]
        for name in ("open", "high", "low", "close"):
            np.testing.assert_array_equal(getattr(bars, name)[:, 0], [float(row[bars.symbols[0]]) for row in rows])
    franc = load_currencies("EURCHF")
    assert isinstance(franc, Bars)
    worst = int(np.argmin(np.diff(np.log(franc.close[:, 0]))))
    assert str(franc.times[worst + 1])[:10] == "2015-01-15"
    with pytest.raises(DataError, match="'EURSEK' is not among the currencies; there are EURUSD, "):
        load_currencies(("EURUSD", "EURSEK"))


def test_market_of_the_currencies():
    market = Market.from_bars(load_currencies())
    assert market.symbols == PAIRS
    assert np.isfinite(market.features[market.segments[0, 0] + 252 :]).mean() > 0.8
    assert 250 < market.periods_per_year < 260


def test_market_of_the_bundled_stocks():
    market = Market.from_bars(load_bundled())
    assert market.periods_per_year == 252
    assert len(market.times) == 3 * 3270 + 2148
    assert market.lookback == 253
    # log_return_252 needs 252 bars before: row 252 of each history is its first ready one.
    np.testing.assert_array_equal(market.ready - market.segments[:, 0], [252] * 4)
