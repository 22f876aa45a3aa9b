"""Results and a market for tests of the report, without any training."""

from __future__ import annotations

import numpy as np
from evaluation.priced_markets import busy, market_of, random_table

from jaxtrader.evaluation.baselines import baselines
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.ledger.costs import Costs

COSTS = Costs(fee=0.001, slippage=0.0005)
BARS = 500


def parts_and_markets(symbols=("A&B", "<C>")):
    """Two symbols, half of the bars to train and half to test, and targets that are long, short and flat."""
    whole = market_of({symbol: random_table(i, BARS) for i, symbol in enumerate(symbols, 1)})
    parts, markets = {}, {}
    for seed, (name, market) in enumerate(zip(("train", "test"), whole.split(0.5, 0.5), strict=True)):
        lengths = market.segments[:, 2] - market.segments[:, 1]
        targets = [np.clip(busy(seed + i, int(bars)), -1, 1) for i, bars in enumerate(lengths)]
        own = {
            symbol: simulate(market, one, symbol=symbol, costs=COSTS)
            for symbol, one in zip(market.symbols, targets, strict=True)
        }
        result = combine(own)
        parts[name], markets[name] = {POLICY: result, **baselines(market, result)}, market
    return parts, markets
