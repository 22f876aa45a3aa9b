"""Sharpe ratios of many paths at once: other accounts over the same bars, of one symbol or several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.market.clock import union


def total_sharpe(
    members: Sequence[BacktestResult], equities: Iterable[Float[np.ndarray, "path bar"]]
) -> Float[np.ndarray, " path"]:
    """Sharpe ratio of a bar, over cash, of equal capital in each member, path by path.

    It is that of `combine`: a member that has not begun counts as cash, and one that has ended stays at its last
    equity. Minus infinity where an account was lost, and 0 where nothing varies.

    Args:
        members: the results whose bars and cash returns the paths share.
        equities: for each member the equity of its paths at its bars, from 1. They are added one by one, so that a
            generator never holds those of all members.
    """
    times = union([member.times for member in members])
    total = cash_earned = np.zeros((1, len(times)))  # by cash on the members' equity
    for member, equity in zip(members, equities, strict=True):
        rows = np.searchsorted(times, member.times)
        total = total + _on_union(equity, rows, len(times))
        cash_earned = np.broadcast_to(cash_earned, total.shape).copy() if len(cash_earned) < len(total) else cash_earned
        cash_earned[:, rows] += _before(equity) * member.cash_returns
    total, cash_earned = total / len(members), cash_earned / len(members)
    before = _before(total)
    cash = np.divide(cash_earned, before, out=np.full(total.shape, np.nan), where=before > 0)
    excess = np.stack([metrics.bar_returns(path) for path in total]) - cash
    deviation = excess.std(axis=1, ddof=1)
    ratio = np.divide(excess.mean(axis=1), deviation, where=deviation > metrics.ROUNDING, out=np.zeros(len(total)))
    return np.where(np.isnan(deviation), -np.inf, ratio)


def _before(equity: Float[np.ndarray, "path bar"]) -> Float[np.ndarray, "path bar"]:
    return np.concatenate([np.ones((len(equity), 1)), equity[:, :-1]], axis=1)


def _on_union(equity: Float[np.ndarray, "path bar"], rows: np.ndarray, count: int) -> Float[np.ndarray, "path time"]:
    """Equity at each time of a longer calendar: the capital before the first bar, then the last known equity."""
    last = np.zeros(count, int)
    last[rows] = np.arange(1, len(rows) + 1)
    return np.concatenate([np.ones((len(equity), 1)), equity], axis=1)[:, np.maximum.accumulate(last)]
