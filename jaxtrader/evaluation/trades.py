"""From fills to trades: a trade runs from flat, or a change of sign, to flat (money rule 1). NumPy only.

A fill through zero ends one trade and begins the next, and its costs are shared by the units of each part. Open trades
are valued at the last close. The profits of all trades and the financing add up to what the account gained. A
trade's `financing` is what its position cost or brought. The interest on idle cash belongs to no trade.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

OF_CLOSED = ("win_rate", "profit_factor", "mean_trade_bars", "mean_trade_days")


def trades_of(
    fills: np.ndarray,
    symbols: tuple[str, ...],
    times: np.ndarray,
    last: Float[np.ndarray, " A"],
    financing: Float[np.ndarray, "bar A"],
    financing_after_open: Float[np.ndarray, "bar A"],
) -> np.ndarray:
    """The trades of an account.

    Args:
        fills: `BacktestResult.fills`, from flat.
        symbols: the symbols of the assets.
        times: the times of the bars, `[N]`.
        last: the last close of each asset, at which open trades are valued, free of cost.
        financing: the financing of each bar and asset, see `BacktestResult.position_financing`.
        financing_after_open: the part of it that belongs to what stood after the orders at each bar's open.

    Returns:
        One record a trade, in order of entry. `side` is 1 for a long and -1 for a short. `exit_time` is NaT while the
        trade is `open`. `entry_price` and `exit_price` are averages over all its entries and exits by units, before
        costs, and NaN where nothing was sold yet. `units` is all that was entered. `costs`, `pnl` and `financing`
        are in units of the initial capital. `pnl` is after costs and before financing, and `return` is pnl / value
        entered. `bars` counts from the first fill to the last, or to the end. `financing` is funding, dividends, the
        fee on shorts and the interest on debt while it was held, below 0 where it was paid.
    """
    if len(symbols) == 1:
        return _of_asset(fills, times, last[0], financing[:, 0], financing_after_open[:, 0])
    own = [fills[fills["symbol"] == symbol] for symbol in symbols]
    tables = [
        _of_asset(each, times, last[a], financing[:, a], financing_after_open[:, a]) for a, each in enumerate(own)
    ]
    trades = np.concatenate(tables)
    return trades[np.argsort(trades["entry_time"], kind="stable")]


def figures(trades: np.ndarray) -> dict[str, float]:
    """How many trades there were, and how the closed ones went.

    Args:
        trades: the records of `trades_of`.

    Returns:
        `num_trades` counts open trades too. All else is of closed ones, and NaN without any. `win_rate` is the share
        with a profit, and `profit_factor` is profits / losses, NaN without a loss. Both are after costs of trading and
        holding. `mean_trade_bars` and `mean_trade_days` are from the first fill to the last, in bars and in calendar
        time.
    """
    closed = trades[~trades["open"]]
    if not len(closed):
        return {"num_trades": float(len(trades))} | dict.fromkeys(OF_CLOSED, math.nan)
    earned = closed["pnl"] + closed["financing"]
    won, lost = earned[earned > 0].sum(), -earned[earned < 0].sum()
    days = (closed["exit_time"] - closed["entry_time"]) / np.timedelta64(1, "D")
    values = np.mean(earned > 0), won / lost if lost else math.nan, np.mean(closed["bars"]), np.mean(days)
    return {"num_trades": float(len(trades))} | {name: float(x) for name, x in zip(OF_CLOSED, values, strict=True)}


def _of_asset(
    fills: np.ndarray,
    times: np.ndarray,
    last: float,
    financing: Float[np.ndarray, " bar"],
    financing_after_open: Float[np.ndarray, " bar"],
) -> np.ndarray:
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
    if count and (financing.any() or financing_after_open.any()):
        trades["financing"] = _financing_of_trades(fills["bar"][new], end, financing, financing_after_open)
    return trades


def _financing_of_trades(
    entered: np.ndarray,
    left: np.ndarray,
    financing: Float[np.ndarray, " bar"],
    after_open: Float[np.ndarray, " bar"],
) -> np.ndarray:
    """The holding cost of each trade, by the bars of its entry and exit.

    What was due after the orders at a bar's open belongs to the trade that was entered there, else to the one that was
    held before. All else belongs to the trade that was held before, else to the one that was entered in the bar.
    """
    bars = np.flatnonzero((financing != 0) | (after_open != 0))
    before = np.maximum(np.searchsorted(entered, bars, side="left") - 1, 0)
    latest = np.maximum(np.searchsorted(entered, bars, side="right") - 1, 0)
    open_before = (entered[before] < bars) & (bars <= left[before])
    trade = np.where(open_before, before, latest)
    charged = np.bincount(trade, (financing - after_open)[bars], len(entered))
    return charged + np.bincount(latest, after_open[bars], len(entered))


def _record(symbol: np.dtype) -> np.dtype:
    numbers = [(name, "f8") for name in ("entry_price", "exit_price", "units", "costs", "pnl", "return")]
    times = [("entry_time", "M8[ns]"), ("exit_time", "M8[ns]")]
    return np.dtype(
        [("symbol", symbol), ("side", "i8"), *times, *numbers, ("bars", "i8"), ("open", "?"), ("financing", "f8")]
    )
