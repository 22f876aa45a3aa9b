"""Walk-forward: train anew in each fold, test on the bars that follow, and join the tests to one account.

python -m jaxtrader.examples.walk_forward_folds [--quick]
"""

from __future__ import annotations

import jaxtrader as jt
from jaxtrader.examples.running import hidden, run, size


def main(quick: bool = False) -> None:
    """Train in each of some folds, and print the test of each."""
    market = jt.Market.from_bars(jt.load_bundled(("IBM",)))
    env = jt.TradingEnv(market, positions=(0, 1), window=4, episode_length=64)
    agent = jt.PPOAgent(hidden=hidden(quick))
    found = jt.walk_forward(env, agent, 2 if quick else 5, **size(quick))
    columns = ["first", "last", "sharpe", "max_drawdown", "mean_exposure"]
    frame = found.to_frame()[columns]
    days = {name: frame[name].map("{:%Y-%m-%d}".format) for name in ("first", "last")}
    print(frame.assign(**days).to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    run(main)
