"""What a run was worth: figures of return, risk and activity of one equity curve, in NumPy and float64 on the host.

Every figure is one pure function of arrays, and `compute` gives them all. An undefined figure is NaN, never a warning,
an infinity or an exception: a ratio over no risk, a deviation of one bar, a return on capital that is gone.

`equity [N]` is marked at the close of each bar, in units of the capital, so 1 stands before bar 0 (money rule 10).
`returns [N]` are simple returns per bar, from `bar_returns`. `excess [N]` are these less what cash earned in the bar:
the Sharpe and the Sortino ratio are over cash. Losses are negative numbers: drawdown, value at risk and expected
shortfall. The conventions are those of empyrical. The tests compare each figure that it has.

A growth rate over less than a year is no forecast of a year, so `cagr` and `calmar` are NaN there. `volatility`,
`sharpe`, `sortino` and `turnover` keep their unit of a year at any length. For less than a year read `total_return` and
`period_sharpe`, as the printed table does.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrader.evaluation import statistics
from jaxtrader.evaluation.statistics import ROUNDING, PerBar, deviation
from jaxtrader.setting_checks import setting

PerBarAndAsset = Float[np.ndarray, "bar asset"]


def compute(
    equity: np.ndarray,
    exposure: np.ndarray,
    turnover: np.ndarray,
    costs: np.ndarray,
    periods_per_year: float,
    *,
    cash: np.ndarray | None = None,
    spans_a_year: bool = True,
) -> dict[str, float]:
    """Every figure of one result.

    Args:
        equity: [N] marked at the close of each bar.
        exposure: [N, A] position value / equity of what stood in each bar, signed.
        turnover: [N] sum over assets of |d| p / E of the fills of each bar, both sides.
        costs: [N] fees and slippage paid at each bar, in units of the capital.
        periods_per_year: bars in a year, as the market measured it.
        cash: [N] what cash earned in each bar, a fraction. None: nothing.
        spans_a_year: whether the bars span a year or more, so that a growth rate a year says something.

    Returns:
        Python floats by name. `bars` and `longest_drawdown` count bars, and `costs` is in units of the capital.
        `turnover` is per year, and `period_turnover` its sum. `periods_per_year` is the argument. `sharpe` and
        `sharpe_error` are of a year, `period_sharpe` and `period_sharpe_error` of all N bars: sqrt(N) times those of a
        bar. All else is a fraction or a ratio.

    Raises:
        ValueError: the lengths differ, there is no bar, an equity is not finite, or `periods_per_year` is no positive
            number.
    """
    equity, exposure, turnover, costs = (np.asarray(x, np.float64) for x in (equity, exposure, turnover, costs))
    cash = np.zeros(equity.shape) if cash is None else np.asarray(cash, np.float64)
    _check(equity, exposure, {"turnover": turnover, "costs": costs, "cash": cash})
    if not 0 < periods_per_year < np.inf:
        raise ValueError(f"{setting('periods_per_year', periods_per_year)} must be a number above 0")
    with np.errstate(all="ignore"):
        returns = bar_returns(equity)
        excess = returns - cash
        ratio = statistics.sharpe(excess)
        annual, period = ratio.scaled(np.sqrt(periods_per_year)), ratio.scaled(np.sqrt(equity.size))
        figures = {
            "bars": equity.size,
            "periods_per_year": periods_per_year,
            "final_equity": equity[-1],
            "total_return": total_return(equity),
            "cash_return": total_return(np.cumprod(1 + cash)),
            "cagr": cagr(equity, periods_per_year) if spans_a_year else np.nan,
            "volatility": volatility(returns, periods_per_year),
            "sharpe": annual.value,
            "sharpe_error": annual.error,
            "period_sharpe": period.value,
            "period_sharpe_error": period.error,
            "sortino": sortino(excess, periods_per_year),
            "calmar": calmar(equity, periods_per_year) if spans_a_year else np.nan,
            "max_drawdown": max_drawdown(equity),
            "longest_drawdown": longest_drawdown(equity),
            "value_at_risk": value_at_risk(returns),
            "expected_shortfall": expected_shortfall(returns),
            "best_bar": returns.max(),
            "worst_bar": returns.min(),
            "positive_bars": positive_bars(returns),
            "skew": skew(returns),
            "kurtosis": kurtosis(returns),
            "time_in_market": time_in_market(exposure),
            "mean_exposure": mean_exposure(exposure),
            "mean_gross_exposure": mean_gross_exposure(exposure),
            "turnover": turnover_per_year(turnover, periods_per_year),
            "period_turnover": turnover.sum(),
            "costs": costs.sum(),
        }
    return {name: _defined(value) for name, value in figures.items()}


def reported(figures: dict[str, float], spans_a_year: bool) -> dict[str, float]:
    """The figures of `compute`. Ratio, its error and turnover are of all bars where these are under a year."""
    if spans_a_year:
        return figures
    return figures | {name: figures[f"period_{name}"] for name in ("sharpe", "sharpe_error", "turnover")}


def _check(equity: np.ndarray, exposure: np.ndarray, per_bar: dict[str, np.ndarray]) -> None:
    if equity.ndim != 1 or equity.size == 0:
        raise ValueError(f"equity has shape {equity.shape}; metrics need [N] with at least one bar")
    if not np.isfinite(equity).all():
        t = int(np.argmin(np.isfinite(equity)))
        raise ValueError(f"equity[{t}] is {equity[t]}; it must be finite, so look at the fills and prices of that bar")
    if exposure.ndim != 2 or len(exposure) != equity.size:
        raise ValueError(f"exposure has shape {exposure.shape}; it must be [{equity.size}, assets], one row a bar")
    for name, array in per_bar.items():
        if array.shape != equity.shape:
            raise ValueError(f"{name} has shape {array.shape}; it must be {equity.shape}, one number a bar")


# Return


def bar_returns(equity: PerBar) -> PerBar:
    """Simple return of each bar, [N]: equity[t] / equity[t-1] - 1, with 1 before bar 0.

    NaN where the equity before was <= 0, as no return on it exists. Figures of all returns are then NaN too.
    """
    before = np.concatenate([[1.0], equity[:-1]])
    return equity / np.where(before > 0, before, np.nan) - 1


def total_return(equity: PerBar) -> float:
    """Return over all bars, a fraction: equity[-1] - 1."""
    return float(equity[-1] - 1)


def cagr(equity: PerBar, periods_per_year: float) -> float:
    """Compound annual growth rate, a fraction: equity[-1] ** (periods_per_year / N) - 1.

    -1 if the equity was ever <= 0, as what was borrowed to go on is not growth. Sources: CFA Institute GIPS,
    empyrical's `annual_return`.
    """
    if equity.min() <= 0:
        return -1.0
    with np.errstate(over="ignore"):  # one good minute, compounded over a year, is beyond float64
        growth = np.expm1(np.log(equity[-1]) * periods_per_year / equity.size)
    return _defined(growth)


# Risk


def volatility(returns: PerBar, periods_per_year: float) -> float:
    """Annual volatility, a fraction: the sample deviation (ddof = 1) of the returns * sqrt(periods_per_year)."""
    return deviation(returns) * float(np.sqrt(periods_per_year))


def downside_deviation(excess: PerBar, periods_per_year: float) -> float:
    """Annual downside deviation, a fraction: root mean square of min(r, 0) over **all** bars * sqrt(periods_per_year).

    0 where it is within rounding. Source: Sortino and Price (1994). The target is cash.
    """
    downside = float(np.sqrt(np.mean(np.minimum(excess, 0) ** 2)))
    return 0.0 if downside < ROUNDING else downside * float(np.sqrt(periods_per_year))


def drawdowns(equity: PerBar) -> PerBar:
    """Loss since the highest equity so far, that before bar 0 included, [N]: equity / peak - 1, so 0 at a new high."""
    return equity / np.maximum(np.maximum.accumulate(equity), 1.0) - 1


def max_drawdown(equity: PerBar) -> float:
    """The deepest drawdown, a fraction <= 0. It is below -1 where a loss went beyond the capital."""
    return float(drawdowns(equity).min())


def longest_drawdown(equity: PerBar) -> int:
    """The most bars in a row that closed below the highest equity before them. The last such run may be unfinished."""
    under = np.concatenate([[False], drawdowns(equity) < 0, [False]])
    starts, ends = np.flatnonzero(~under[:-1] & under[1:]), np.flatnonzero(under[:-1] & ~under[1:])
    return int(np.max(ends - starts, initial=0))


def value_at_risk(returns: PerBar, level: float = 0.05) -> float:
    """Historical value at risk of one bar, a signed return: the `level` quantile of the returns, interpolated.

    By default, 1 bar in 20 was worse. No normal distribution is assumed. Sources: historical simulation in Jorion,
    Value at Risk (2006), empyrical's `value_at_risk`.
    """
    return float(np.quantile(returns, level))


def expected_shortfall(returns: PerBar, level: float = 0.05) -> float:
    """Historical expected shortfall of one bar, a signed return: mean of the worst 1 + floor(level (N - 1)) bars.

    Source: Acerbi and Tasche (2002). The count is that of empyrical's `conditional_value_at_risk`.
    """
    # `np.partition` puts NaN last, where it would be overlooked.
    if np.isnan(returns).any():
        return np.nan
    count = 1 + int(level * (returns.size - 1))
    return float(np.partition(returns, count - 1)[:count].mean())


def positive_bars(returns: PerBar) -> float:
    """Share of all bars with a return above 0."""
    return float(np.mean(returns > 0)) if not np.isnan(returns).any() else np.nan


def skew(returns: PerBar) -> float:
    """Skewness of the returns, adjusted for the sample: G1 of Joanes and Gill (1998), as in pandas.

    NaN below 3 bars.
    """
    return _moment("skew", returns, bars=3)


def kurtosis(returns: PerBar) -> float:
    """Excess kurtosis (a normal has 0), adjusted for the sample: G2 of Joanes and Gill (1998), as in pandas.

    NaN below 4 bars.
    """
    return _moment("kurtosis", returns, bars=4)


def _moment(name: str, returns: PerBar, bars: int) -> float:
    """The adjusted moment of this name in SciPy. NaN below so many bars, and where the returns do not vary."""
    if returns.size < bars or not deviation(returns) > 0:
        return np.nan
    from scipy import stats  # a second to import, so only where it is used

    with warnings.catch_warnings(category=RuntimeWarning, action="ignore"):  # returns of one size up to rounding
        return _defined(getattr(stats, name)(returns, bias=False))


# Return for risk


def sortino(excess: PerBar, periods_per_year: float) -> float:
    """Annual Sortino ratio: mean return over cash * periods_per_year / `downside_deviation`.

    NaN where no bar earned less than cash. Source: Sortino and Price (1994). The target is cash.
    """
    return _ratio(float(excess.mean()) * periods_per_year, downside_deviation(excess, periods_per_year))


def calmar(equity: PerBar, periods_per_year: float) -> float:
    """Calmar ratio: `cagr` / |`max_drawdown`|, over all bars (Young, 1991, took 36 months). NaN without a drawdown."""
    return _ratio(cagr(equity, periods_per_year), -max_drawdown(equity))


# Activity


def time_in_market(exposure: PerBarAndAsset) -> float:
    """Share of bars in which a position in any asset stood."""
    return float(np.mean((np.abs(exposure) > 0).any(axis=1)))


def mean_exposure(exposure: PerBarAndAsset) -> float:
    """Mean over bars of the net exposure, the signed sum over assets, as a fraction of equity."""
    return float(exposure.sum(axis=1).mean())


def mean_gross_exposure(exposure: PerBarAndAsset) -> float:
    """Mean over bars of the gross exposure, the sum over assets of its size, as a fraction of equity."""
    return float(np.abs(exposure).sum(axis=1).mean())


def turnover_per_year(turnover: PerBar, periods_per_year: float) -> float:
    """Turnover in a year, both sides, in multiples of equity: the sum over bars / (N / periods_per_year)."""
    return float(turnover.sum() * periods_per_year / turnover.size)


# Where a figure is undefined


def _ratio(numerator: float, denominator: float) -> float:
    return _defined(numerator / denominator) if denominator > ROUNDING else np.nan


def _defined(value: Any) -> float:
    return float(value) if np.isfinite(value) else np.nan
