"""Draws by hash: the hash against published values, the arithmetic against Python's integers, and chi-square tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxtrader.envs import draws

COUNT = 100_000
KEYS = {
    "split": lambda: jax.random.split(jax.random.key(0), COUNT),
    "seeds in a row": lambda: jax.vmap(jax.random.key)(jnp.arange(COUNT)),
    "raw": lambda: jnp.stack([jnp.zeros(COUNT, jnp.uint32), jnp.arange(COUNT, dtype=jnp.uint32) << 12], -1),
}


@pytest.mark.parametrize(
    ("words", "seed", "expected"),
    [
        # From smhasher's own tests and Wikipedia's: words are little-endian bytes.
        ([], 0, 0),
        ([], 1, 0x514E28B7),
        ([], 0xFFFFFFFF, 0x81F16F39),
        ([0xFFFFFFFF], 0, 0x76293B50),
        ([0x87654321], 0, 0xF55B516B),
        ([0x87654321], 0x5082EDEE, 0x2362F9DE),
        ([0x61616161], 0x9747B28C, 0x5A97808A),
        ([0x64636261], 0x9747B28C, 0xF0478627),
        ([0x74736574], 0, 0xBA6BD213),  # "test"
    ],
)
def test_the_hash_is_murmur3(words: list[int], seed: int, expected: int) -> None:
    assert int(draws._hash(jnp.asarray(words, jnp.uint32), seed)) == expected


def test_below_is_the_high_half_of_the_product() -> None:
    rng = np.random.default_rng(0)
    words = np.concatenate([rng.integers(0, 2**32, 500), [0, 1, 2**16, 2**31, 2**32 - 1]])
    for limit in (1, 2, 3, 65_535, 65_536, 1_000_003, 2**31 - 1):
        found = draws.scale_to_limit(jnp.asarray(words, jnp.uint32), limit)
        assert found.tolist() == [int(word) * limit >> 32 for word in words]


@pytest.mark.parametrize("keys", KEYS)
def test_draws_of_neighbouring_keys_are_uniform_and_independent(keys: str) -> None:
    """A place of 40 and an exposure of 5 from each key, and the place drawn from the key after it."""

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return draws.integers(key, (), 40, draws.START_STREAM), draws.integers(key, (), 5, draws.EXPOSURE_STREAM)

    place, exposure = (np.asarray(x) for x in draw(KEYS[keys]()))
    joint = np.histogram2d(place, exposure, (40, 5))[0]
    assert scipy.stats.chisquare(joint.ravel()).pvalue > 1e-3
    following = np.histogram2d(place[:-1], place[1:], (40, 40))[0]
    assert scipy.stats.chisquare(following.ravel()).pvalue > 1e-3


def test_every_bit_of_a_key_moves_half_of_the_bits_of_each_stream() -> None:
    """Over 512 keys each of 64 bits is turned: 0.5 of the output's bits turn too, within five deviations."""
    rng = np.random.default_rng(1)
    data = rng.integers(0, 2**32, (512, 2), dtype=np.uint32)
    streams = (draws.START_STREAM, draws.EXPOSURE_STREAM)
    words = jax.jit(lambda data: jnp.stack([draws._hash(data, s) for s in streams], -1))
    before = np.asarray(words(data))
    for bit in range(64):
        turned = data.copy()
        turned[:, bit // 32] ^= np.uint32(1 << bit % 32)
        share = np.unpackbits((before ^ np.asarray(words(turned))).view(np.uint8)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(512 * 64)


def test_typed_and_raw_keys_draw_the_same_and_every_kind_of_key_will_do() -> None:
    typed, raw, other = jax.random.key(7), jax.random.PRNGKey(7), jax.random.key(7, impl="rbg")
    drawn = [int(draws.integers(key, (), 2**30, draws.START_STREAM)) for key in (typed, raw, other)]
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[0]


def test_a_batch_is_the_generators() -> None:
    key = jax.random.key(3)
    drawn = draws.integers(key, (50,), 9, draws.EXPOSURE_STREAM)
    np.testing.assert_array_equal(drawn, jax.random.randint(key, (50,), 0, 9))
