"""Your own bars: a file with a column of its own, and a feature of your own.

    python -m jaxtrader.examples.own_data [--data prices.csv] [--quick]

Without `--data` it writes a file first: a bundled stock, with a column `mood` that is noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import jaxtrader as jt
from jaxtrader.examples.running import hidden, run, show, size


def above_mean(bars: int = 20) -> jt.features.Feature:
    """Return log(close / mean of the last closes), which sees `bars` bars and none to come."""

    def compute(data: jt.Bars) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(data.close, bars, axis=0)
        mean = np.full(data.close.shape, np.nan)  # NaN where there are too few bars
        mean[bars - 1 :] = windows.mean(-1)
        return np.log(data.close / mean)

    return jt.features.Feature(f"above_mean_{bars}", bars, compute)


def write_example(path: Path) -> None:
    """Write a file as a vendor would."""
    import pandas as pd

    bars = jt.load_bundled("IBM")
    assert isinstance(bars, jt.Bars)
    columns = {name: getattr(bars, name)[:, 0] for name in ("open", "high", "low", "close", "volume")}
    columns["mood"] = np.random.default_rng(0).normal(size=len(bars.times))
    pd.DataFrame({"time": bars.times} | columns).to_csv(path, index=False)


def main(quick: bool = False, data: str | None = None) -> None:
    """Train on a file of bars, and test on its last quarter."""
    path = Path(data or "prices.csv")
    if data is None:
        write_example(path)
    bars = jt.load_bars(path)
    assert isinstance(bars, jt.Bars)  # one file, one symbol
    own = [name for name in ("mood",) if name in bars.columns]  # what else the file has can be a feature too
    market = jt.Market.from_bars(bars, features=["log_return_1", "volatility_20", above_mean(20), *own])
    print(market, "with", ", ".join(market.feature_names))
    train, valid, test = market.split(0.6, 0.15, 0.25)
    env = jt.TradingEnv(train, positions=(0, 1), window=4, episode_length=64)
    trained = jt.Trainer(env, jt.PPOAgent(hidden=hidden(quick)), valid=valid, **size(quick)).train()
    show(test, {"policy": jt.backtest(trained.policy, test)})


if __name__ == "__main__":
    run(main, data="a file of bars: CSV, Parquet and others")
