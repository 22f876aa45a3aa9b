"""Random draws of one environment, made from its key by an integer hash.

`TradingEnv.step` draws a new episode at every bar and keeps one in some hundred, so a draw must cost next to nothing:
each call of JAX's generator is a loop of its own on a CPU, and the seven of a reset took half of a step. Draws for many
accounts at once, on lanes, are the generator's, and so is all that is no start: actions, shuffles, weights.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, PRNGKeyArray, UInt32

PLACE, EXPOSURE = 0, 1  # streams of a key


def integers(key: PRNGKeyArray, batch: tuple[int, ...], limit: int | Array, stream: int) -> Int[Array, "*b"]:
    """Uniform integers from 0 to below `limit`, int32; where `batch` is (), one by hash.

    Streams of one key are independent by hash; the generator's batches of one key are not. Of 2^32 words some numbers
    get one more than others: the bias is below limit / 2^32.
    """
    if batch:
        return jax.random.randint(key, batch, 0, limit)
    return below(_hash(jax.random.key_data(key), stream), limit)


def below(word: UInt32[Array, "*b"], limit: int | Array) -> Int[Array, "*b"]:
    """floor(word * limit / 2^32), in pieces of 16 bits: no 64-bit integers, and no division, which has no SIMD form."""
    limit = jnp.asarray(limit).astype(jnp.uint32)
    low, high = word & 0xFFFF, word >> 16
    limit_low, limit_high = limit & 0xFFFF, limit >> 16
    cross, other = high * limit_low, low * limit_high
    carried = (low * limit_low >> 16) + (cross & 0xFFFF) + (other & 0xFFFF)
    return (high * limit_high + (cross >> 16) + (other >> 16) + (carried >> 16)).astype(jnp.int32)


def _hash(data: UInt32[Array, "*b words"], seed: int) -> UInt32[Array, "*b"]:
    """MurmurHash3 of the words, with its seed: https://github.com/aappleby/smhasher (public domain)."""
    state = jnp.uint32(seed)
    for i in range(data.shape[-1]):
        word = data[..., i] * jnp.uint32(0xCC9E2D51)
        state = state ^ (_rotated(word, 15) * jnp.uint32(0x1B873593))
        state = _rotated(state, 13) * jnp.uint32(5) + jnp.uint32(0xE6546B64)
    state = state ^ jnp.uint32(4 * data.shape[-1])
    state = (state ^ (state >> 16)) * jnp.uint32(0x85EBCA6B)
    state = (state ^ (state >> 13)) * jnp.uint32(0xC2B2AE35)
    return state ^ (state >> 16)


def _rotated(word: UInt32[Array, "*b"], bits: int) -> UInt32[Array, "*b"]:
    return (word << bits) | (word >> (32 - bits))
