"""Results with given returns, for what reads results and needs no ledger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

NUMBERS = [(column, "f8") for column in ("units", "price", "fee", "slippage", "equity", "position")]
FILL = np.dtype([("bar", "i8"), ("time", "M8[ns]"), ("symbol", "U9"), *NUMBERS, ("reason", "U9"), ("forced", "?")])


def account(
    returns: np.ndarray,
    *,
    held: float = 0.5,
    symbol: str = "A",
    members: Sequence[str] = (),
    cash_rate: float | None = None,
    days: float = 1.0,
    periods_per_year: float = 252.0,
    ruined_at: int | None = None,
    turnover: float = 0.01,
    costs_paid: float = 1e-4,
) -> BacktestResult:
    """An account that earned these returns, a bar every so many days from 2011-01-03, and never traded a fill."""
    returns = np.asarray(returns, float)
    bars = len(returns)
    own = dict(held=held, cash_rate=cash_rate, days=days, periods_per_year=periods_per_year, ruined_at=ruined_at)
    times = np.datetime64("2011-01-03", "ns") + (np.arange(bars) * days * 86_400e9).astype("m8[ns]")
    column = np.full((bars, 1), held)
    return BacktestResult(
        symbols=tuple(members) or (symbol,),
        times=times,
        equity=np.cumprod(1 + returns),
        exposure=column,
        intrabar_exposure=column,
        units=column,
        targets=column,
        turnover=np.full(bars, turnover),
        costs_paid=np.full(bars, costs_paid),
        financing=np.zeros(bars),
        position_financing=np.zeros((bars, 1)),
        position_financing_after_open=np.zeros((bars, 1)),
        cash_returns=np.full(bars, (cash_rate or 0.0) * days / 365),
        fills=np.empty(0, FILL),
        last_price=np.ones(1),
        next_target=np.full(1, np.nan),
        ruined_at=ruined_at,
        ignored_targets=0,
        clipped=0,
        dropped=0,
        beyond_cap=0,
        periods_per_year=periods_per_year,
        costs=Costs(cash_rate=cash_rate),
        rules=Rules(),
        by_symbol={name: account(returns, symbol=name, **own) for name in members},
    )


def returns(sharpe: float, bars: int = 504, seed: int = 0, own: float = 0.002, scale: float = 0.01) -> np.ndarray:
    """Returns whose Sharpe ratio of a year of 252 bars is exactly this.

    Accounts with one seed move together, apart from `own`: their own part of the deviation.
    """
    common = np.random.default_rng(seed).normal(0, scale, bars)
    drawn = common + np.random.default_rng(seed + 1000 + round(100 * sharpe)).normal(0, own, bars)
    standard = (drawn - drawn.mean()) / drawn.std(ddof=1)
    return scale * (standard + sharpe / np.sqrt(252))
