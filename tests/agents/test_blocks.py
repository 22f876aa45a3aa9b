"""Blocks of paths: how many there are, and that a function mapped over blocks gives the same numbers."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.agents import blocks


@pytest.mark.parametrize(
    ("paths", "activations", "count"),
    [
        (256, 0, 1),
        (256, 2048, 1),
        (256, 2049, 2),
        (256, 2**14, 8),
        (250, 4096, 2),
        (250, 6000, 5),
        (7, 2**22, 7),
        (257, 2**14, 1),
    ],
)
def test_block_count_keeps_to_the_limit_and_divides_the_paths(paths: int, activations: int, count: int) -> None:
    # 2 MiB hold 2^19 numbers: 256 paths of 2048.
    assert blocks.block_count(paths, activations) == count
    assert blocks.block_count(paths, activations, 2**19 // blocks.ACTIVATIONS_PER_WEIGHT) == count
    # Where the weights are many, a block has ACTIVATIONS_PER_WEIGHT times as many activations.
    assert blocks.block_count(256, 2**14, 1 + 2**20 // blocks.ACTIVATIONS_PER_WEIGHT) == 4


@pytest.mark.parametrize("count", [1, 2, 6])
def test_map_blocks_gives_the_paths_in_order(count: int) -> None:
    paths = (jnp.arange(6), jnp.arange(18.0).reshape(6, 3))
    found = blocks.map_blocks(lambda block: block[0][:, None] * block[1], paths, count)
    np.testing.assert_array_equal(found, np.arange(6)[:, None] * np.arange(18.0).reshape(6, 3))


def test_map_blocks_takes_leaves_of_no_numbers() -> None:
    """One asset has no mask of tradable assets: that leaf has an axis of length 0, whatever the number of blocks."""
    paths = jnp.arange(12.0).reshape(6, 2), jnp.zeros((6, 3, 0))
    doubled, empty = blocks.map_blocks(lambda part: (part[0] * 2, part[1]), paths, 3)
    np.testing.assert_array_equal(doubled, paths[0] * 2)
    assert empty.shape == (6, 3, 0)
