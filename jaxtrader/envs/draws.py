"""Random integers for one environment from its key, by an integer hash.

`TradingEnv.step` draws a new episode at every bar and discards nearly all of them, so a draw must cost next to nothing.
JAX's generator took half of the time of a step. Draws for a batch of accounts still use it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, PRNGKeyArray, UInt32

START_STREAM, EXPOSURE_STREAM = 0, 1


def integers(key: PRNGKeyArray, batch: tuple[int, ...], limit: int | Array, stream: int) -> Int[Array, "*b"]:
    """Draw uniform int32 integers from 0 to `limit` - 1. Where `batch` is (), the hash draws one.

    Hashed draws of one key are independent for each `stream`. JAX's generator ignores `stream`. The probability of each
    hashed integer is wrong by at most 2^-32.
    """
    if batch:
        return jax.random.randint(key, batch, 0, limit)
    return scale_to_limit(_hash(jax.random.key_data(key), stream), limit)


def scale_to_limit(word: UInt32[Array, "*b"], limit: int | Array) -> Int[Array, "*b"]:
    """Return floor(word * limit / 2^32), computed in pieces of 16 bits, since JAX has no 64-bit integers by default."""
    limit = jnp.asarray(limit).astype(jnp.uint32)
    low, high = word & 0xFFFF, word >> 16
    limit_low, limit_high = limit & 0xFFFF, limit >> 16
    cross, other = high * limit_low, low * limit_high
    carried = (low * limit_low >> 16) + (cross & 0xFFFF) + (other & 0xFFFF)
    return (high * limit_high + (cross >> 16) + (other >> 16) + (carried >> 16)).astype(jnp.int32)


def _hash(data: UInt32[Array, "*b words"], seed: int) -> UInt32[Array, "*b"]:
    """Hash words by MurmurHash3: https://github.com/aappleby/smhasher (public domain)."""
    state = jnp.uint32(seed)
    for i in range(data.shape[-1]):
        word = data[..., i] * jnp.uint32(0xCC9E2D51)
        state = state ^ (_rotate_left(word, 15) * jnp.uint32(0x1B873593))
        state = _rotate_left(state, 13) * jnp.uint32(5) + jnp.uint32(0xE6546B64)
    state = state ^ jnp.uint32(4 * data.shape[-1])
    state = (state ^ (state >> 16)) * jnp.uint32(0x85EBCA6B)
    state = (state ^ (state >> 13)) * jnp.uint32(0xC2B2AE35)
    return state ^ (state >> 16)


def _rotate_left(word: UInt32[Array, "*b"], bits: int) -> UInt32[Array, "*b"]:
    return (word << bits) | (word >> (32 - bits))
