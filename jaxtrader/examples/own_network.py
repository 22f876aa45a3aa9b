"""A network of your own: Flax modules as the encoder of the window, and as the whole network.

python -m jaxtrader.examples.own_network [--quick]
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

import jaxtrader as jt
from jaxtrader.examples.running import hidden, run, show, size


class Patches(nn.Module):
    """An encoder: it maps windows `[*b, window, features]` to `[*b, width]`, here by products over patches of bars."""

    width: int = 16
    patch: int = 2

    @nn.compact
    def __call__(self, bars: Array) -> Array:
        """Return the mean of the patches' hidden layers."""
        patches = bars.reshape(*bars.shape[:-2], -1, self.patch * bars.shape[-1])
        return nn.gelu(nn.Dense(self.width)(patches)).mean(-2)


class Small(nn.Module):
    """The whole network: from windows `[n, window, features]` and accounts `[n, K]` to outputs and values."""

    positions: int = 2
    width: int = 16

    @nn.compact
    def __call__(self, window: Array, account: Array) -> tuple[Array, Array]:
        """Return the logits of the positions, and the value."""
        seen = nn.LayerNorm()(jnp.concatenate([window[:, -1], window.mean(1), account], -1))
        x = nn.gelu(nn.Dense(self.width)(seen))
        return nn.Dense(self.positions)(x), nn.Dense(1)(x)[:, 0]


def main(quick: bool = False) -> None:
    """Train both, read the second from its file, and trade the same test."""
    market = jt.Market.from_bars(jt.load_bundled(("IBM",)))
    train, valid, test = market.split(0.6, 0.15, 0.25)
    env = jt.TradingEnv(train, positions=(0, 1), window=4, episode_length=64)
    agents = {"encoder": jt.PPOAgent(hidden=hidden(quick), encoder=Patches()), "whole": jt.PPOAgent(network=Small())}
    results = {}
    for name, agent in agents.items():
        trained = jt.Trainer(env, agent, valid=valid, **size(quick)).train()
        # The file names the class and holds no code. Another process gives the class: load_policy(path, Small).
        policy = jt.load_policy(trained.policy_path, type(agent.network or agent.encoder))
        results[name] = jt.backtest(policy, test)
    show(test, results)


if __name__ == "__main__":
    run(main)
