"""Probe environments: tiny tasks whose values and best actions are known by hand, in gymnax 1.0's shape.

Each isolates one thing that a learner may get wrong (Rejax and Brax test themselves so). All tabular probes share one
environment class, whose tables are parameters, so that they share one compilation. Not an oracle of anything else.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from jaxtrader.market.bars import load_bars
from jaxtrader.market.market import Market

TWO_ACTIONS = SimpleNamespace(n=2, shape=(), dtype=jnp.int32)  # gymnax's Discrete(2), without its 4 s of import
NO_LIMIT = 10**6


class Tables(struct.PyTreeNode):
    """A decision process of two states and two actions, by tables.

    Attributes:
        reward: of each state and action.
        following: state after each state.
        terminal: True where an episode ends after the state.
        starts: episodes start in states 0 .. starts - 1, equally often.
        limit: steps after which an episode is truncated.
    """

    reward: Float[Array, "state action"]
    following: Int[Array, " state"]
    terminal: Bool[Array, " state"]
    starts: Int[Array, ""]
    limit: Int[Array, ""]


class Place(struct.PyTreeNode):
    """The state of a tabular episode and its age."""

    index: Int[Array, ""]
    time: Int[Array, ""]


class Tabular:
    """An environment that lives by `Tables`. State 0 is seen as -1, state 1 as 1."""

    name = "Tabular"

    def action_space(self, params: Tables) -> Any:
        return TWO_ACTIONS

    def reset(self, key: Array, params: Tables) -> tuple[Array, Place]:
        place = Place(jax.random.randint(key, (), 0, params.starts), jnp.zeros((), jnp.int32))
        return self.observe(place), place

    def observe(self, place: Place) -> Float[Array, "1"]:
        return jnp.where(place.index == 0, -1.0, 1.0)[None]

    def step(self, key: Array, place: Place, action: Array, params: Tables) -> tuple:
        moved = Place(params.following[place.index], place.time + 1)
        ends = params.terminal[place.index], moved.time >= params.limit
        return turn_over(self, key, params, moved, params.reward[place.index, action], *ends)


def turn_over(
    env: Any, key: Array, params: Any, moved: Any, reward: Array, terminated: Array, truncated: Array
) -> tuple:
    """What gymnax's `step` returns: with auto-reset, and the observation before it."""
    obs, fresh = env.reset(key, params)
    over = terminated | truncated
    state = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, moved)
    final = env.observe(moved)
    return jnp.where(over, obs, final), state, reward, terminated, truncated, {"final_observation": final}


def tables(
    reward: list[list[float]], following: list[int], terminal: list[bool], starts: int, limit: int = NO_LIMIT
) -> Tables:
    return Tables(
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(following, jnp.int32),
        jnp.asarray(terminal),
        jnp.asarray(starts, jnp.int32),
        jnp.asarray(limit, jnp.int32),
    )


ONE_STEP = {"following": [0, 1], "terminal": [True, True]}
CONSTANT = tables([[1, 1], [1, 1]], **ONE_STEP, starts=1)
BY_OBSERVATION = tables([[-1, -1], [1, 1]], **ONE_STEP, starts=2)
TWO_STEPS = tables([[0, 0], [1, 1]], following=[1, 1], terminal=[False, True], starts=1)
BY_ACTION = tables([[-1, 1], [-1, 1]], **ONE_STEP, starts=1)
BY_BOTH = tables([[1, -1], [-1, 1]], **ONE_STEP, starts=2)
# Nothing ever ends, and the next episode may be of the other sign: neither 0 nor its first observation is what follows.
TRUNCATED = tables([[-0.2, -0.2], [0.2, 0.2]], following=[0, 1], terminal=[False, False], starts=2, limit=5)


class Motion(struct.PyTreeNode):
    """A mass on a line."""

    position: Float[Array, ""]
    velocity: Float[Array, ""]
    time: Int[Array, ""]


class Fast:
    """Brax's `fast` environment: press on, and the reward, the position, grows. 128 steps of 0.02 s, 143.1 at most.

    Its parameter is the action that presses.
    """

    name = "Fast"

    def action_space(self, params: Int[Array, ""]) -> Any:
        return TWO_ACTIONS

    def reset(self, key: Array, params: Int[Array, ""]) -> tuple[Array, Motion]:
        start = Motion(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))
        return self.observe(start), start

    def observe(self, motion: Motion) -> Float[Array, "2"]:
        return jnp.stack([motion.position, motion.velocity])

    def step(self, key: Array, motion: Motion, action: Array, params: Int[Array, ""]) -> tuple:
        velocity = motion.velocity + 0.02 * (action == params)
        moved = Motion(motion.position + 0.02 * velocity, velocity, motion.time + 1)
        return turn_over(self, key, params, moved, moved.position, jnp.zeros((), bool), moved.time >= 128)


LOSS, GAIN = 0.98, 1.06


def patience(cycles: int, cost: float) -> tuple[Market, float]:
    """A market that pays only those who were in before a loss, and the most that long or flat can earn: a log return.

    A cycle begins with a bar with the signal and a bar that loses 2%. A gap up of 6% over night follows, which an order
    of the evening before is too late for. Then 3 to 6 bars fall back to where the cycle began.

    Args:
        cycles: how often.
        cost: slippage a fill.
    """
    rng = np.random.default_rng(0)
    opens, closes, signal = [100.0], [100.0], [0.0]
    for quiet in rng.integers(3, 7, cycles):
        back = (LOSS * GAIN) ** (-1 / quiet)
        moves = [(1, 1, 1), (1, LOSS, 0), (GAIN, 1, 0), *[(1, back, 0)] * quiet]
        for gap, move, flag in moves:
            opens.append(closes[-1] * gap)
            closes.append(opens[-1] * move)
            signal.append(float(flag))
    open_, close = np.array(opens), np.array(closes)
    times = pd.date_range("2020-01-01", periods=len(close), freq="D")
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    bars = load_bars(pd.DataFrame({"time": times, **prices, "volume": 1.0, "signal": signal}), symbol="P")
    earned = math.log(LOSS * GAIN * (1 - cost) / (1 + cost))
    return Market.from_bars(bars, features=["signal"]), earned * cycles


def echo(bars: int, lag: int, seed: int = 0) -> Market:
    """A market that moves by 1%, up or down as the sign of its signal `lag` bars before the decision was.

    The signal is white noise, so nothing but that one bar of a window says anything.
    """
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal(bars)
    moves = np.ones(bars)
    moves[lag + 1 :] += 0.01 * np.sign(signal[: -lag - 1])
    close = 100 * np.cumprod(moves)
    open_ = np.concatenate([close[:1], close[:-1]])
    times = pd.date_range("2020-01-01", periods=bars, freq="D")
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    loaded = load_bars(pd.DataFrame({"time": times, **prices, "volume": 1.0, "signal": signal}), symbol="E")
    return Market.from_bars(loaded, features=["signal"])
