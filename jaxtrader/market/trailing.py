"""Figures of the last 20 bars that the ledger and the account's features need; of what there is before the 20th bar.

Sums run over shifted slices, newest first, so that a row does not depend on what comes after it.
"""

import numpy as np

BARS = 20
VOLATILITY_FLOOR = 1e-6
VALUE_FLOOR = 1e-6  # in currency: an order of nothing is then no share of it, and not 0 / 0
SILENT_SHARE = 0.01  # of the bars at most may have no volume


def volatility(close: np.ndarray) -> np.ndarray:
    """[T, A] deviation (ddof=1) of the last 20 log returns of `close` [T, A]; floored, also where none is known."""
    returns = np.log(close[1:] / close[:-1])
    count = np.minimum(np.arange(len(close)), BARS)[:, None]
    shifts = range(min(BARS, len(returns)))
    total = np.zeros(close.shape)
    for k in shifts:
        total[1 + k :] += returns[: len(returns) - k]
    mean = total / np.maximum(count, 1)
    squares = np.zeros(close.shape)
    for k in shifts:
        squares[1 + k :] += (returns[: len(returns) - k] - mean[1 + k :]) ** 2
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    return np.maximum(deviation, VOLATILITY_FLOOR)


def distrust(volume: np.ndarray) -> str | None:
    """Why `volume` [T, A] is not to be trusted, or None: 0 in more than 1% of the bars, or the same in all of them."""
    silent, bars = int((volume == 0).any(axis=1).sum()), len(volume)
    if (volume == volume[0]).all():
        return f"Volume is {volume[0, 0]:g} in every bar"
    return f"Volume is 0 in {silent:,} of {bars:,} bars" if silent > SILENT_SHARE * bars else None


def traded_value(close: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """[T, A] mean of raw close times raw volume [T, A] over the last 20 bars, the row's own included; floored."""
    value = close * volume
    total = np.zeros(value.shape)
    for k in range(min(BARS, len(value))):
        total[k:] += value[: len(value) - k]
    count = np.minimum(np.arange(len(value)) + 1, BARS)[:, None]
    return np.maximum(total / count, VALUE_FLOOR)
