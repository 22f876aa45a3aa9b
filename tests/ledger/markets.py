"""Markets with every column, targets and brackets of all kinds, and results under all rules: for tests of properties.

Each case has one shape, so that hypothesis does not compile anew. Nothing here is an oracle.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from random_walks import walk
from rule_settings import run_settings

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.market.features import log_return
from jaxtrader.market.market import Market

BARS = 64
RATES = {"cash_rate": 0.3, "borrow_rate": 1.0, "short_rate": 0.7}  # a year, and high, so that a few bars show it
COMMISSION = {"share_fee": 0.02, "min_fee": 1.0, "max_fee": 0.01}
FULL = {
    "max_leverage": 3.0,
    "maintenance_margin": 0.25,
    "rebalance_band": 0.02,
    "delay": 1,
    "capital": 1e5,
    "lot": 5.0,
    "min_trade": 500.0,
    "volume_cap": 0.2,
    "delist_return": -0.3,
    "multiplier": 1.5,
    "tick": 0.01,
}
# The three fills, each with all rules that fit it. The margin is watched inside the bar with one asset only.
BY_FILL = {
    "next_open": (3, {**FULL, "fill": "next_open"}),
    "next_close": (3, {**FULL, "fill": "next_close", "flat_at_session_end": True}),
    "close": (1, {**FULL, "fill": "close"}),
}
BASE = Market.from_bars(walk("X", BARS, 0), [log_return()])


def all_costs(assets, **more):
    """All costs. The fee is one an asset, where there are several."""
    fee = np.array([0.001, 0.0, 0.004])[:assets] if assets > 1 else 0.001
    return Costs(**{"fee": fee, "slippage": 0.002, "fixed_fee": 2.0, "impact": 0.5, **COMMISSION, **RATES, **more})


def full_market(seed, assets, volatility=0.03):
    """All columns that a market can have: leaps, gaps, missing bars, delistings, sessions, and rows of unequal
    length."""
    rng = np.random.default_rng(seed)
    shape = (BARS, assets)
    ends = np.where(rng.random(assets) < 0.5, rng.integers(20, BARS, assets), BARS)
    rows = np.arange(BARS)[:, None]
    present = ((rng.random(shape) > 0.1) | (rows == ends)) & (rows <= ends)
    present[0] = True
    steps = np.where(
        present, rng.normal(0, volatility, (2, *shape)) * np.where(rng.random((2, *shape)) < 0.05, 4, 1), 0
    )
    close = 50 * np.exp(np.cumsum(steps.sum(0), 0))
    open_ = np.concatenate([close[:1], close[:-1]]) * np.exp(steps[0])
    years = np.concatenate([[0.0], rng.integers(1, 5, BARS - 1) / 365])
    swing = np.where(present, np.abs(rng.normal(0, 0.5 * volatility, (2, *shape))), 0)
    return dataclasses.replace(
        BASE,
        symbols=(",".join("ABC"[:assets]),),
        open=open_,
        high=np.maximum(open_, close) * np.exp(swing[0]),
        low=np.minimum(open_, close) * np.exp(-swing[1]),
        close=close,
        volatility=rng.uniform(0.01, 0.05, shape),
        dt=years,
        bar_dt=np.minimum(years, 2 / 365),
        present=present,
        delisted=rows == ends,
        funding=np.where(present, rng.normal(0, 0.002, shape), 0),
        price_factor=rng.uniform(0.2, 1, shape),
        adv=np.exp(rng.normal(13, 1, shape)),
        session_end=(rng.random(BARS) < 0.1) | (np.arange(BARS) == 40),
    )


def orders_of(seed, assets, size=1.3):
    """Targets of all kinds, some beyond the leverage, and brackets of each kind for about half of them."""
    rng = np.random.default_rng(seed + 50_000)
    shape = (BARS, assets)
    targets = rng.uniform(-size, size, shape) * 3 / assets**0.5
    kind = rng.integers(0, 8, shape)
    targets = np.where(kind == 0, 0.0, np.where(kind == 1, np.nan, targets))
    for t in range(1, BARS):
        targets[t] = np.where(kind[t] >= 4, targets[t - 1], targets[t])
    brackets = np.where(rng.random((3, *shape)) < 0.5, np.inf, rng.uniform(0.02, 0.3, (3, *shape)))
    return targets, dict(zip(BRACKETS, brackets, strict=True))


def simulated(name, seed, market, **more):
    """A result of a case on another market, with other rules or costs."""
    assets, rules = BY_FILL[name]
    targets, brackets = orders_of(seed, assets)
    costs = more.pop("costs", all_costs(assets))
    return simulate(market, targets, costs=costs, **brackets, **run_settings({**rules, **more}))


@functools.cache
def result_of(name, seed, volatility=0.03):
    """A result of a case, and its market. Tests that look at the same share it."""
    market = full_market(seed, BY_FILL[name][0], volatility)
    return simulated(name, seed, market), market
