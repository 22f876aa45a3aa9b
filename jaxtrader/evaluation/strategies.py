"""Simple strategies that a policy should be measured against: equal weight, volatility target, momentum and cash.

They decide at the same bars as a result, from earlier bars alone, and trade by its rules and costs. Holding is in
`baselines.py`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxtrader.evaluation.baselines import fillable, hold, of_each_symbol, rows_of
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.market.market import Market

EQUAL_WEIGHT = "equal weight"
VOLATILITY_TARGET = "volatility target"
MOMENTUM = "12-month momentum"
CASH = "cash"


def strategies(market: Market, result: BacktestResult) -> dict[str, BacktestResult]:
    """The strategies beside a result, by name, over its bars and by its rules and costs.

    Equal weight is for accounts of several assets: with one asset it is buy and hold.

    Args:
        market: the market that the result was run on, with the same segments.
        result: the result of one symbol, or a combined one. Then each symbol has its own strategies, and these are
            combined like the result.

    Raises:
        ValueError: the market lacks a symbol or the bars of the result.
    """
    functions = {VOLATILITY_TARGET: volatility_target, MOMENTUM: momentum, CASH: cash}
    if market.close.shape[1] > 1:
        functions = {EQUAL_WEIGHT: equal_weight, **functions}
    return {name: of_each_symbol(strategy, market, result) for name, strategy in functions.items()}


def equal_weight(market: Market, result: BacktestResult) -> BacktestResult:
    """Ask for an equal part of all capital in each asset that can be traded, and rebalance by the result's band."""
    return _trade(market, result, np.ones(result.targets.shape))


def volatility_target(market: Market, result: BacktestResult) -> BacktestResult:
    """Hold less when prices move more: typical volatility / volatility of the last 20 bars, at most 1.

    The typical volatility is the median over the bars before the result, or over its first 20 bars where there are none
    before. Source: Moreira and Muir (2017), with the ratio of deviations instead of variances, and no credit.
    """
    rows = rows_of(market, result)
    symbol = market.symbols.index(result.name)
    history = int(market.segments[symbol, 0])
    before = market.volatility[history : rows.start] if rows.start > history else market.volatility[rows][:20]
    with np.errstate(all="ignore"):
        typical = np.nanmedian(np.where(before > 0, before, np.nan), axis=0)
        share = np.minimum(typical / market.volatility[rows], 1.0)
    return _trade(market, result, np.where(np.isfinite(share), share, 0.0))


def momentum(market: Market, result: BacktestResult) -> BacktestResult:
    """Hold an asset while its return over the last year is above 0, and cash otherwise.

    Before a year of bars is known it is flat. Source: Moskowitz, Ooi and Pedersen (2012), long only and not scaled by
    volatility.
    """
    rows = rows_of(market, result)
    symbol = market.symbols.index(result.name)
    close = market.close[int(market.segments[symbol, 0]) : rows.stop]
    year = max(round(result.periods_per_year), 1)
    rises = np.zeros(close.shape)
    rises[year:] = close[year:] > close[:-year]
    return _trade(market, result, rises[len(close) - len(result) :])


def cash(market: Market, result: BacktestResult) -> BacktestResult:
    """Hold nothing. What cash earns is the `cash_rate` of the costs."""
    return hold(market, result, np.zeros(result.targets.shape))


def _trade(market: Market, result: BacktestResult, shares: Float[np.ndarray, "bar A"]) -> BacktestResult:
    """Trade shares of an equal part of the capital for each asset that can be traded."""
    possible = fillable(market, result)
    parts = np.maximum(possible.sum(axis=1, keepdims=True), 1)
    capital = result.rules.exposure_without_credit
    return hold(market, result, np.where(possible, capital * shares / parts, np.nan), rebalance="always")
