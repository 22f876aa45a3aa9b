"""An agent of your own: deep Q-learning (`dqn.py`) trains on a market and on CartPole, is saved, read and backtested.

    python -m jaxtrader.examples.own_agent [--quick]

The market is synthetic, so the best policy is known, and the score is the share of it.
"""

from __future__ import annotations

import numpy as np

import jaxtrader as jt
from jaxtrader.examples.dqn import DQN
from jaxtrader.examples.running import hidden, run, show, size


def main(quick: bool = False) -> None:
    """Train a DQN on an AR(1) market, where it earns most of the optimum, and on CartPole."""
    process = jt.datasets.AR1(volatility=0.02, r2=0.05, persistence=0.8)
    market = process.market(5_000 if quick else 100_000, seed=0)
    env = jt.TradingEnv(market, positions=(-1, 0, 1), window=1, episode_length=64, rules=jt.Rules(rebalance_band=0.0))
    best = jt.optimum.solve(process, env, bars=2_000 if quick else 50_000)
    agent = DQN(gamma=0.9, hidden=hidden(quick))
    settings = size(quick, 100_000)
    if not quick:
        settings["num_envs"] = 64
    trained = jt.Trainer(env, agent, valid=best, **settings).train()
    print(f"share of the optimum: {trained.best['optimum_share']:.2f}" if trained.best else "not validated")

    policy = jt.load_policy(trained.policy_path, agent=agent)  # the file has the weights, and no code
    test = process.market(2_000, seed=1)
    show(test, {"policy": jt.backtest(policy, test)})
    assert policy.act([[0.5]]) in (-1, 0, 1)

    import gymnax

    cart_pole, params = gymnax.make("CartPole-v1")
    agent = DQN(gamma=0.99, hidden=hidden(quick))
    if not quick:
        settings["total_steps"] = 500_000
    trained = jt.Trainer(cart_pole, agent, env_params=params, **settings).train()
    ended = [record["episode_return"] for record in trained.history if np.isfinite(record["episode_return"])]
    print(f"return of an episode of CartPole: {ended[0]:.0f} at first, {ended[-1]:.0f} at the end")
    policy = jt.load_policy(trained.policy_path, agent=agent, env=cart_pole, env_params=params)
    print(f"a pole that leans to the right: push {('left', 'right')[int(policy.act([0, 0, 0.1, 0.1]))]}")


if __name__ == "__main__":
    run(main)
