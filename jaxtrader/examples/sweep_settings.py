"""A sweep: each choice of some settings is trained, and the best is chosen on validation.

python -m jaxtrader.examples.sweep_settings [--quick]
"""

from __future__ import annotations

import jaxtrader as jt
from jaxtrader.examples.running import hidden, run, show, size


def main(quick: bool = False) -> None:
    """Sweep the discount, and test the best once."""
    market = jt.Market.from_bars(jt.load_bundled(("IBM",)))
    train, valid, test = market.split(0.6, 0.2, 0.2)
    env = jt.TradingEnv(train, positions=(0, 1), window=4, episode_length=64)
    agent = jt.PPOAgent(hidden=hidden(quick))
    gammas = [0.9, 0.99] if quick else [0.9, 0.95, 0.99]
    found = jt.sweep(env, agent, valid, gamma=gammas, **size(quick))
    columns = ["gamma", "valid_sharpe", "valid_mean_exposure", "valid_turnover"]  # a few of its figures
    print(found.to_frame()[columns].to_string(float_format="{:.2f}".format))
    print(f"the best: {dict(found.best.settings)}. Probability of overfitting, from 8 on: {found.overfitting}")
    show(test, {"policy": jt.backtest(found.best.policy, test)})


if __name__ == "__main__":
    run(main)
