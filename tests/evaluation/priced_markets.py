"""Markets from prices that a test draws or gives, and targets for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jaxtrader.market.bars import load_bars
from jaxtrader.market.features import log_return
from jaxtrader.market.market import Market

BARS = 120


def daily(opens: Sequence[float], closes: Sequence[float] | None = None, begin: str = "2020-01-01") -> pd.DataFrame:
    """A bar a day. Without closes, each bar has one price. The volume is 1, 2, 3 and so on."""
    opens = np.asarray(opens, float)
    closes = opens if closes is None else np.asarray(closes, float)
    prices = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes), "close": closes}
    times = pd.date_range(begin, periods=len(opens), freq="D")
    return pd.DataFrame(prices | {"volume": np.arange(len(opens)) + 1.0}, index=times)


def random_table(seed: int = 0, bars: int = BARS, volatility: float = 0.03) -> pd.DataFrame:
    """A random walk a day, whose opens are not the closes before them."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, volatility, bars)))
    return daily(close * np.exp(rng.normal(0, volatility, bars)), close)


def market_of(source: Any, symbol: str | None = None, **options: Any) -> Market:
    """A market of a table, or of tables by symbol, with one feature."""
    return Market.from_bars(load_bars(source, symbol=symbol), [log_return()], **options)


@pytest.fixture(scope="module")
def market_of_one() -> Market:
    """A random walk of the symbol X. A module names it: `market = market_of_one`."""
    return market_of(random_table(), symbol="X")


def busy(seed: int = 0, bars: int = BARS) -> np.ndarray:
    """Random targets: long, short, flat, and NaN, which holds."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1.2, 1.2, bars)
    return np.where(rng.random(bars) < 0.2, np.nan, np.where(rng.random(bars) < 0.2, 0.0, targets))
