"""Volatility and average traded value of the last 20 bars, which the ledger and the account features use.

A row with fewer bars before it uses those that exist. Each sum adds shifted slices, newest bar first, so that later
bars cannot change a row even in its last bit.
"""

from collections.abc import Callable

import numpy as np

BARS = 20
BLOCK = 1 << 14  # numbers of a column that are worked on at a time
VOLATILITY_FLOOR = 1e-6
VALUE_FLOOR = 1e-6  # in currency. It keeps the share of an order of 0 from being 0 / 0.
MAX_ZERO_VOLUME_SHARE = 0.01


def volatility(close: np.ndarray) -> np.ndarray:
    """Return the standard deviation (ddof=1) of the last 20 one-bar log returns.

    Args:
        close: [T, A] close prices.

    Returns:
        [T, A], at least VOLATILITY_FLOOR.
    """
    return _by_blocks(_volatility, close)


def _volatility(close: np.ndarray) -> np.ndarray:
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


def last_volatility(close: np.ndarray) -> np.ndarray:
    """Return the last row [A] of `volatility` of closes [T, A]."""
    if len(close) <= BARS:
        return volatility(close)[-1]
    close = close[-BARS - 1 :]
    newest_first = np.log(close[1:] / close[:-1])[::-1]  # the order in which `_volatility` adds
    mean = np.add.accumulate(newest_first)[-1] / BARS
    squares = np.add.accumulate((newest_first - mean) ** 2)[-1]
    return np.maximum(np.sqrt(squares / (BARS - 1)), VOLATILITY_FLOOR)


def traded_value(close: np.ndarray, volume: np.ndarray, price_factor: np.ndarray | None) -> np.ndarray:
    """Return the average traded value of the last 20 bars.

    Args:
        close: [T, A] closes.
        volume: [T, A] raw volume.
        price_factor: [T, A] of adjusted / raw price. None: the closes are raw.

    Returns:
        [T, A] mean of raw close times volume, including the row's own bar, in currency, at least VALUE_FLOOR.
    """
    return _by_blocks(_traded_value, close if price_factor is None else close / price_factor, volume)


def _traded_value(raw: np.ndarray, volume: np.ndarray) -> np.ndarray:
    value = raw * volume
    total = np.zeros(value.shape)
    for k in range(min(BARS, len(value))):
        total[k:] += value[: len(value) - k]
    count = np.minimum(np.arange(len(value)) + 1, BARS)[:, None]
    return np.maximum(total / count, VALUE_FLOOR)


def _by_blocks(function: Callable[..., np.ndarray], *columns: np.ndarray) -> np.ndarray:
    """Apply a function of the last BARS + 1 rows to columns [T, A], in blocks of rows that fit into the cache."""
    first = columns[0]
    out = np.empty(first.shape)
    block = max(BLOCK // first.shape[1], BARS)
    for start in range(0, len(first), block):
        before = max(start - BARS, 0)
        part = function(*(column[before : start + block] for column in columns))
        out[start : start + block] = part[start - before :]
    return out


def volume_fault(volume: np.ndarray) -> str | None:
    """Return what is wrong with `volume` [T, A]: it is constant, or 0 in more than 1% of the bars. None: nothing."""
    if (volume == volume[0]).all():
        return f"is {volume[0, 0]:g} in every bar"
    zero, bars = int((volume == 0).any(axis=1).sum()), len(volume)
    return f"is 0 in {zero:,} of {bars:,} bars" if zero > MAX_ZERO_VOLUME_SHARE * bars else None
