"""Rewards of your own: a function of the equity, and one with a state that the agent sees.

python -m jaxtrader.examples.own_reward [--quick]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

import jaxtrader as jt
from jaxtrader.examples.running import hidden, run, show, size


def losses_count_twice(before: Array, after: Array) -> Array:
    """Return the log return of a bar, twice where it is a loss."""
    gain = jnp.log(after / before)
    return jnp.where(gain < 0, 2 * gain, gain)


@dataclass(frozen=True)
class LosingStreak(jt.rewards.MoveReward):
    """Log return less a fee that grows with the number of losing bars in a row.

    Attributes:
        fee: the fee for each bar of the streak, in log return.
    """

    fee: float = 1e-4

    observed: ClassVar[tuple[str, ...]] = ("losing bars",)

    def begin(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return no streak, for each account."""
        return jnp.zeros(shape, dtype)

    def __call__(self, move: jt.rewards.Move, state: Array) -> tuple[Array, Array]:
        """Return the reward of a bar, and the streak after it."""
        gain = jnp.log(move.after.equity / move.before.equity)
        streak = jnp.where(gain < 0, jnp.minimum(state + 1, 10), 0)
        return gain - self.fee * streak, streak

    def observe(self, state: Array) -> Array:
        """Return the streak as a share of its most."""
        return state[..., None] / 10


def main(quick: bool = False) -> None:
    """Train for two rewards, and trade the same test by each policy."""
    market = jt.Market.from_bars(jt.load_bundled(("IBM",)))
    train, valid, test = market.split(0.6, 0.15, 0.25)
    rewards = {"twice": losses_count_twice, "streak": LosingStreak()}
    results = {}
    for name, reward in rewards.items():
        env = jt.TradingEnv(train, positions=(0, 1), window=4, episode_length=64, reward=reward)
        trained = jt.Trainer(env, jt.PPOAgent(hidden=hidden(quick)), valid=valid, **size(quick)).train()
        # A file holds no code, so a reward whose state decisions see is given again.
        again = {"reward": reward} if name == "streak" else {}
        results[name] = jt.backtest(trained.policy, test, **again)
    show(test, results)
    print("Where the gains of a stock are not twice its losses, the first holds nothing.")


if __name__ == "__main__":
    run(main)
