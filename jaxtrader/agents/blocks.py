"""How many market paths a network works through at once.

All paths at once would need memory in proportion to their number. Blocks of paths bound the memory, and on a CPU a
block's activations stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxtrader.agents.networks import ActorCritic

# Bytes of activations in one block, roughly. On a CPU that is what a core's cache holds.
CPU_BLOCK_BYTES, BLOCK_BYTES = 2**21, 2**30
# Each block adds its gradient to the sum, which reads and writes all weights. A block with this many times as many
# activations as weights makes the cost of that small.
ACTIVATIONS_PER_WEIGHT = 24


def block_count(paths: int, activations: int, weights: int = 0) -> int:
    """Return the number of equal blocks that the paths are divided into.

    It is the smallest divisor of the number of paths whose blocks keep to the limit. Where that is more than four times
    the number needed, as for a prime number of paths, it is the largest divisor below.

    Args:
        paths: number of paths.
        activations: float32 numbers that the network keeps for one path.
        weights: float32 numbers in the gradient that is summed over the blocks. 0 where there is none.
    """
    limit = CPU_BLOCK_BYTES if jax.default_backend() == "cpu" else BLOCK_BYTES
    limit = max(limit, ACTIVATIONS_PER_WEIGHT * weights * 4)
    needed = min(paths, max(1, -(-paths * activations * 4 // limit)))
    divisors = [n for n in range(1, paths + 1) if paths % n == 0]
    count = next(n for n in divisors if n >= needed)
    return count if count <= 4 * needed else max(n for n in divisors if n < needed)


def map_blocks(function: Callable[[Any], Any], paths: Any, count: int) -> Any:
    """Apply a function to `count` equal blocks of paths, one after the other. Leaves begin with the axis of paths."""
    if count == 1:
        return function(paths)
    results = jax.lax.map(function, split_blocks(paths, count))
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), results)


def split_blocks(paths: Any, count: int) -> Any:
    """Return the same leaves with a leading axis of blocks."""
    return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), paths)


def encoder_activations(network: ActorCritic, chunk: tuple[int, ...]) -> int:
    """Return how many numbers the encoder keeps for one path's chunk of shape `[..., bars, assets, features]`."""
    count = network.make_encoder().activation_count(network.features, chunk[-3] - network.window + 1)
    return math.prod(chunk[:-3]) * count
