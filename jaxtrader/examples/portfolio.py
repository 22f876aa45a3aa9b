"""One account over several stocks: weights that sum to at most 1, and the rest in cash.

python -m jaxtrader.examples.portfolio [--quick]
"""

from __future__ import annotations

import numpy as np

import jaxtrader as jt
from jaxtrader.examples.running import hidden, run, show, size


def main(quick: bool = False) -> None:
    """Train weights of four stocks, and print how they were divided beside equal weights."""
    market = jt.Market.from_bars(jt.load_bundled(), align=True)
    train, valid, test = market.split("2008-01-01", "2011-01-01")
    env = jt.TradingEnv(train, positions="weights", window=4, episode_length=64)
    trained = jt.Trainer(env, jt.PPOAgent(hidden=hidden(quick)), valid=valid, **size(quick)).train()
    result = jt.backtest(trained.policy, test)
    equal = jt.backtest(np.full((len(result.equity), 4), 0.25), test, env=env)
    show(test, {"policy": result, "equal weights": equal})
    weights = result.exposure.mean(0)
    print("mean weights: " + ", ".join(f"{s} {w:.2f}" for s, w in zip(result.symbols, weights, strict=True)))


if __name__ == "__main__":
    run(main)
