"""The bundled stocks against data/PROVENANCE.md, and the default features on them."""

import csv
import gzip
import hashlib

import numpy as np
import pytest

from jaxtrader.market.bars import Bars
from jaxtrader.market.datasets import STOCKS, load_bundled
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
    assert np.exp(falls[worst]) - 1 == pytest.approx(-0.52, abs=0.005)


def test_provenance_states_the_checksum_of_the_file():
    text = (STOCKS.parent / "PROVENANCE.md").read_text()
    assert hashlib.sha256(STOCKS.read_bytes()).hexdigest() in text


def test_market_of_the_bundled_stocks():
    market = Market.from_bars(load_bundled())
    assert market.periods_per_year == 252
    assert len(market.times) == 3 * 3270 + 2148
    assert market.lookback == 253
    # log_return_252 needs 252 bars before: row 252 of each history is its first ready one.
    np.testing.assert_array_equal(market.ready - market.segments[:, 0], [252] * 4)
