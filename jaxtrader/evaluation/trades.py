"""From fills to trades: a trade runs from flat, or a change of sign, to flat (money rule 1). NumPy only.

A fill through zero ends one trade and begins the next, and its costs are shared by the units of each part. Open trades
are valued at the last close. The profits of all trades and the financing add up to what the account gained. Interest
and funding belong to the account, not to a trade.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def trades_of(
    fills: np.ndarray, symbols: tuple[str, ...], times: np.ndarray, last: Float[np.ndarray, " A"]
) -> np.ndarray:
    """The trades of an account.

    Args:
        fills: `BacktestResult.fills`, from flat.
        symbols: of the assets.
        times: of the bars, `[N]`.
        last: the last close of each asset, at which open trades are valued, free of cost.

    Returns:
        One record a trade, in order of entry: `symbol`, `side` (1 long, -1 short), `entry_time`, `exit_time` (NaT while
        open), `entry_price` and `exit_price` (averages over all its entries and exits by units, before costs; NaN where
        nothing was sold yet), `units` (all that was entered), `costs`, `pnl` (after costs, before financing, in units
        of the initial capital), `return` (pnl / value entered), `bars` (from the first fill to the last, or to the end)
        and `open`.
    """
    if len(symbols) == 1:
        return _of_asset(fills, times, last[0])
    tables = [_of_asset(fills[fills["symbol"] == symbol], times, last[a]) for a, symbol in enumerate(symbols)]
    trades = np.concatenate(tables)
    return trades[np.argsort(trades["entry_time"], kind="stable")]


def _of_asset(fills: np.ndarray, times: np.ndarray, last: float) -> np.ndarray:
    """The trades of one asset."""
    after = fills["position"]
    before = np.concatenate([[0.0], after[:-1]])[: len(after)]
    flip = before * after < 0
    new = (before == 0) | flip
    grew = np.abs(after) - np.abs(before)
    entered = np.where(new, np.abs(after), np.maximum(grew, 0))
    left = np.where(flip, np.abs(before), np.maximum(-grew, 0))
    cost = (fills["fee"] + fills["slippage"]) / (entered + left)
    # A fill enters trade `into` and leaves trade `out`. They differ only where it goes through zero.
    into = np.cumsum(new) - 1
    out = into - flip
    count = int(new.sum())

    def total(trade: np.ndarray, amount: np.ndarray) -> np.ndarray:
        return np.bincount(trade, amount, count)[:count]

    units, exited = total(into, entered), total(out, left)
    bought, sold = total(into, entered * fills["price"]), total(out, left * fills["price"])
    ends = flip | (after == 0)
    end = np.full(count, len(times) - 1)
    end[out[ends]] = fills["bar"][ends]
    still = np.ones(count, bool)
    still[out[ends]] = False

    trades = np.zeros(count, _record(fills.dtype["symbol"]))
    trades["symbol"] = fills["symbol"][new]
    trades["side"] = np.sign(after[new])
    trades["entry_time"] = fills["time"][new]
    trades["exit_time"] = np.where(still, np.datetime64("NaT"), times[end])
    trades["entry_price"] = bought / units
    trades["exit_price"] = np.divide(sold, exited, out=np.full(count, np.nan), where=exited > 0)
    trades["units"] = units
    trades["costs"] = total(into, entered * cost) + total(out, left * cost)
    remaining = np.where(still, np.abs(after[-1]) if count else 0.0, 0.0)
    trades["pnl"] = trades["side"] * (sold + remaining * last - bought) - trades["costs"]
    trades["return"] = trades["pnl"] / bought
    trades["bars"] = end - fills["bar"][new]
    trades["open"] = still
    return trades


def _record(symbol: np.dtype) -> np.dtype:
    numbers = [(name, "f8") for name in ("entry_price", "exit_price", "units", "costs", "pnl", "return")]
    times = [("entry_time", "M8[ns]"), ("exit_time", "M8[ns]")]
    return np.dtype([("symbol", symbol), ("side", "i8"), *times, *numbers, ("bars", "i8"), ("open", "?")])
