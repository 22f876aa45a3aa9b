"""How many environment steps a second does PPO train end to end, and how many bytes does a transition take?

Random-walk bars with random features: speed does not depend on what they hold. One update is a rollout of every
environment, advantages, and 4 epochs of 4 minibatches; the training chunk is the Trainer's own, timed around
`block_until_ready` after a warm-up; compilation stands in its own column.

    python benchmarks/ppo_steps.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from machine import report, seconds

import jaxtrader as jt
from jaxtrader.training.chunk import NO_LIMIT, Carry, run_chunk
from jaxtrader.training.rollout import LaneRollouts, bytes_per_transition


def random_market(bars: int, features: int) -> jt.Market:
    """One history of a random walk with standard normal features."""
    rng = np.random.default_rng(0)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    open_ = np.concatenate([close[:1], close[:-1]])
    prices = {
        "open": open_,
        "high": np.maximum(open_, close),
        "low": np.minimum(open_, close),
        "close": close,
        "volume": 1.0,
    }
    names = [f"f{i}" for i in range(features)]
    frame = pd.DataFrame({**prices, **{name: rng.normal(size=bars) for name in names}})
    frame.index = pd.date_range("2000-01-01", periods=bars, freq="h", tz="UTC")
    return jt.Market.from_bars(jt.load_bars(frame), features=names)


def measure(market: jt.Market, window: int, agents: int, shared: bool, envs: int, length: int, repeats: int) -> list:
    """One row: settings, steps/s, compile seconds, bytes."""
    env = jt.TradingEnv(market, window=window)
    agent = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), jt.PPOAgent(hidden=(64, 64), shared=shared))
    rollouts = LaneRollouts(env, length, envs // agents, agents)
    params = env.default_params
    state, params = agent.prepare(agent.init(jax.random.key(0), env, params), params)
    zero = jnp.zeros((), jnp.int32)
    lanes = rollouts.begin(jax.random.key(1), params)
    carry = jax.tree.map(jnp.copy, Carry(state, lanes, jax.random.key(2), zero, zero, jnp.ones((), bool)))
    limits = {"updates": jnp.asarray(NO_LIMIT, jnp.int32), "episodes": jnp.asarray(NO_LIMIT, jnp.int32)}
    count = jnp.asarray(2, jnp.int32)
    _, rollout, _ = jax.eval_shape(
        lambda ls, s: rollouts.collect(ls, agent, s, params, jax.random.key(0)), lanes, state
    )

    began = time.perf_counter()
    compiled = run_chunk.lower(carry, agent, params, limits, count, rollouts=rollouts).compile()
    compile_seconds = time.perf_counter() - began
    box = [carry]

    def chunk() -> None:
        box[0], _ = compiled(box[0], agent, params, limits, count)
        jax.block_until_ready(box[0])

    chunk()
    rates = [2 * envs * length / s for s in seconds(chunk, repeats)]
    assert int(box[0].updates) == 2 * (repeats + 1), "an update was rejected: its speed means nothing"
    torsos = "one" if shared else "two"
    spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
    return [window, agents, torsos, statistics.median(rates), spread, compile_seconds, bytes_per_transition(rollout)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes: only shows that the script runs")
    quick = parser.parse_args().quick
    envs, length, repeats = (64, 16, 2) if quick else (1024, 64, 5)
    market = random_market(2_000 if quick else 100_000, features=8)
    cases = (
        [(32, 1, False)] if quick else [(32, 1, False), (32, 1, True), (32, 16, False), (128, 1, False), (1, 1, False)]
    )
    rows = [measure(market, *case, envs, length, repeats) for case in cases]
    columns = ["window", "agents a lane", "torsos", "steps/s", "min - max", "compile s", "bytes a transition"]
    facts = {"work": f"{envs} environments x {length} bars, 8 features, MLP 2x64, 4 epochs x 4 minibatches, float32"}
    report("ppo_steps" + ("_quick" if quick else ""), columns, rows, facts)


if __name__ == "__main__":
    main()
