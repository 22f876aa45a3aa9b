"""Figures of the last 20 bars that the ledger and the account's features need; of what there is before the 20th.

Sums run over shifted slices, newest first, so that a row does not depend on what comes after it.
"""

import numpy as np

BARS = 20
VOLATILITY_FLOOR = 1e-6


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
