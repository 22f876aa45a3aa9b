"""Price tables for the tests of the market: small sound ones, and random walks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.market import Market

HEADER = "Date,Open,High,Low,Close,Volume\n"
GOOD = ["2024-01-02,10,12,9,11,100", "2024-01-03,11,13,10,12,200", "2024-01-04,12,14,11,13,300"]


def frame(bars: int = 6, freq: str = "D", start: str = "2024-01-01") -> pd.DataFrame:
    """A sound frame. Open, high, low and close differ, so that a mix-up shows."""
    close = 100.0 + np.arange(bars)
    columns = {
        "open": close - 0.5,
        "high": close + 2,
        "low": close - 3,
        "close": close,
        "volume": np.arange(bars) * 10.0,
    }
    return pd.DataFrame(columns, index=pd.date_range(start, periods=bars, freq=freq))


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    """Write a CSV file and return its path."""
    path.write_text(header + "\n".join(rows) + "\n")
    return path


def ns(*texts: str) -> np.ndarray:
    """Times as datetime64[ns]."""
    return np.array(texts, "datetime64[ns]")


def random_bars(times: pd.DatetimeIndex, symbol: str = "asset", seed: int = 0, deviation: float = 0.02) -> Bars:
    """A random walk with distinct open, high, low and close, and a column "signal", drawn by symbol and seed."""
    rng = np.random.default_rng([seed, *symbol.encode()])
    n = len(times)
    close = 50 * np.exp(np.cumsum(rng.normal(0, deviation, n)))
    open_ = close * np.exp(rng.normal(0, deviation / 4, n))
    columns = {
        "open": open_,
        "high": np.maximum(open_, close) * np.exp(rng.exponential(deviation / 2, n)),
        "low": np.minimum(open_, close) * np.exp(-rng.exponential(deviation / 2, n)),
        "close": close,
        "volume": rng.lognormal(5, 1, n),
        "signal": rng.normal(size=n),
    }
    return load_bars(pd.DataFrame(columns, index=times), symbol=symbol)


def market_of(*tables: pd.DataFrame, **settings: Any) -> Market:
    """A market of tables, whose symbols are S0, S1 and so on, with one feature."""
    return Market.from_bars(
        [load_bars(table, symbol=f"S{i}") for i, table in enumerate(tables)], ["log_return_1"], **settings
    )


def cut(bars: Bars, start: int, end: int) -> Bars:
    """Copies of the bars start to end - 1, without the others."""
    names = ("times", "open", "high", "low", "close", "volume")
    fields = {name: getattr(bars, name)[start:end].copy() for name in names}
    return dataclasses.replace(bars, **fields, columns={name: v[start:end].copy() for name, v in bars.columns.items()})
