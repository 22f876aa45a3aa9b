"""Random walks as bars, with two columns of their own, and masks of the bars that are missing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxtrader.envs.episode import EnvParams
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.market import MarketArrays

FEATURES = ("log_return_1", "signal", "noise")


def walk(symbol: str, bars: int, seed: int) -> Bars:
    """A daily random walk with two columns of its own: `signal` (known up front) and `noise` (mean 3, deviation 2)."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, bars)))
    open_ = close * np.exp(rng.normal(0, 0.005, bars))
    frame = pd.DataFrame(
        {
            "time": pd.date_range("2020-01-01", periods=bars, freq="D"),
            "open": open_,
            "high": np.maximum(open_, close) * 1.01,
            "low": np.minimum(open_, close) * 0.99,
            "close": close,
            "volume": rng.uniform(1e5, 1e6, bars),
            "signal": rng.normal(0, 1, bars),
            "noise": rng.normal(3, 2, bars),
        }
    )
    loaded = load_bars(frame, symbol=symbol)
    assert isinstance(loaded, Bars)
    return loaded


def masked(params: EnvParams, seed: int = 0) -> EnvParams:
    """The same parameters with a mask: each asset has no bar at a quarter of them, in stretches of 3."""
    bars, assets = params.arrays.close.shape
    present = np.repeat(np.random.default_rng(seed).random((bars // 3 + 1, assets)) > 0.25, 3, 0)[:bars]
    arrays = Masked(**dict(vars(params.arrays)) | {"present": jnp.asarray(present)})
    return params.replace(arrays=arrays)


class Masked(MarketArrays):
    """Arrays of a market with a mask."""

    present: jax.Array
