"""Windows of features on the tape: where lanes stand, and what an encoder makes of it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxtrader.market.market import Tape


def window_chunks(tape: Tape, cursor: Int[Array, "lane"], window: int, decisions: int) -> Float[Array, "lane bars A F"]:
    """The features of `decisions` decisions in a row on each lane: rows cursor-window+1 .. cursor+decisions-1."""
    bars = window + decisions - 1
    return jax.vmap(lambda c: jax.lax.dynamic_slice_in_dim(tape.features, c - window + 1, bars))(cursor)


def chunks(
    tape: Tape, cursor: Int[Array, "lane"], window: int, decisions: int, every: int = 1
) -> Float[Array, "lane *decisions bars A F"]:
    """What an encoder takes for `decisions` decisions on each lane, the first at its cursor, `every` bars apart.

    At every bar they share one chunk. Further apart each window stands by itself, which costs no more where they do not
    overlap.
    """
    if every == 1:
        return window_chunks(tape, cursor, window, decisions)
    rows = cursor[:, None, None] + jnp.arange(decisions)[:, None] * every + jnp.arange(window) - window + 1
    return tape.features[rows]


def contexts(
    encode: Callable[[Float[Array, "*b bars A F"]], Array],
    tape: Tape,
    cursor: Int[Array, "lane"],
    window: int,
    decisions: int,
    every: int = 1,
) -> Float[Array, "lane decisions ..."]:
    """What an encoder makes of the windows of those decisions."""
    made = encode(chunks(tape, cursor, window, decisions, every))
    return made if every == 1 else made[:, :, 0]
