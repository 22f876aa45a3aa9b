"""The encoder "attention": causal and local transformer blocks that share the window."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.layers import Linear, spans

HEAD_WIDTH = 16  # of attention: small, so that several heads can look at different bars
DEPTH = 2  # with fewer layers none could read what another found
MIN_QUERY_BLOCK = 16  # decisions that attend together: fewer make matrix products too small to be fast
ROTARY_BASE = 10_000.0


class Attention(nn.Module):
    """Pre-norm transformer blocks, causal and local, with rotary positions (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        window: bars that an output depends on. The layers share it evenly.
        width: width of the residual stream, a multiple of HEAD_WIDTH.
        depth: layers. None: DEPTH.
    """

    window: int
    width: int
    depth: int | None

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.depth or DEPTH

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision."""
        return self.width

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return roughly how many numbers it keeps for its backward pass, for one path of so many decisions."""
        total, heads, bars = 0, self.width // HEAD_WIDTH, self.window + decisions - 1
        for span in spans(self.window, self.layers):
            bars -= span - 1
            count, block = _query_blocks(bars, span)
            total += 10 * (bars + span - 1) * self.width + 3 * count * block * (block + span - 1) * heads
        return total

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the last layer's output. Each layer computes only the bars that the next one reads."""
        x = bars.reshape(-1, *bars.shape[-2:])
        # A norm keeps directions only. Without a bias a single feature would keep its sign and lose its size.
        bias_init = nn.initializers.normal(self.width**-0.5)
        x = Linear(self.width, 2**0.5, bias_init=bias_init, name="embed")(x)
        for i, span in enumerate(spans(self.window, self.layers)):
            x = self._block(x, span, f"layer_{i}")
        x = nn.LayerNorm(dtype=x.dtype, name="norm")(x)
        return x.reshape(*bars.shape[:-2], *x.shape[1:])

    def _block(self, x: Float[Array, "n bars width"], span: int, name: str) -> Float[Array, "n later width"]:
        normed = nn.LayerNorm(dtype=x.dtype, name=f"{name}_norm")(x)
        query = Linear(self.width, name=f"{name}_query")(normed[:, span - 1 :])
        key, value = jnp.split(Linear(2 * self.width, name=f"{name}_key_value")(normed), 2, -1)
        query, key, value = (y.reshape(*y.shape[:2], -1, HEAD_WIDTH) for y in (query, key, value))
        attended = attend(rotate(query, span - 1), rotate(key, 0), value)
        x = x[:, span - 1 :] + Linear(self.width, name=f"{name}_out")(attended.reshape(*attended.shape[:2], -1))
        normed = nn.LayerNorm(dtype=x.dtype, name=f"{name}_mlp_norm")(x)
        inner = jnp.tanh(Linear(2 * self.width, 2**0.5, name=f"{name}_mlp_in")(normed))
        return x + Linear(self.width, name=f"{name}_mlp_out")(inner)


def attend(
    query: Float[Array, "n later heads d"], key: Float[Array, "n bars heads d"], value: Float[Array, "n bars heads d"]
) -> Float[Array, "n later heads d"]:
    """Return the softmax attention of each query to the `bars - later + 1` bars that end at its own.

    Queries attend in blocks. A block needs only the keys of its own bars and of a span before them. So the work grows
    with bars times span, and not with the square of the bars.
    """
    later, span = query.shape[1], key.shape[1] - query.shape[1] + 1
    count, block = _query_blocks(later, span)
    padding = ((0, 0), (0, count * block - later), (0, 0), (0, 0))
    key, value = (
        jnp.stack([x[:, i * block : (i + 1) * block + span - 1] for i in range(count)], 1)
        for x in (jnp.pad(key, padding), jnp.pad(value, padding))
    )
    query = jnp.pad(query, padding).reshape(-1, count, block, *query.shape[2:])
    scores = jnp.einsum("ncqhd,nckhd->nchqk", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    offset = np.arange(block + span - 1) - np.arange(block)[:, None]
    scores = jnp.where((offset >= 0) & (offset < span), scores, -jnp.inf)
    # This softmax divides after the sum over keys, when there are fewer numbers to divide.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    attended = jnp.einsum("nchqk,nckhd->nchqd", weights.astype(value.dtype), value)
    attended = (attended / weights.sum(-1, keepdims=True)).astype(value.dtype)
    return jnp.moveaxis(attended, 3, 2).reshape(-1, count * block, *value.shape[3:])[:, :later]


def _query_blocks(later: int, span: int) -> tuple[int, int]:
    """Return the number of blocks of queries, and the queries in each. The last block is padded."""
    count = max(1, round(later / max(span, MIN_QUERY_BLOCK)))
    return count, -(-later // count)


def rotate(x: Float[Array, "n bars heads d"], first: int) -> Float[Array, "n bars heads d"]:
    """Apply the rotary positions `first`, first + 1, ... The product of two results depends on their distance alone."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(first, first + x.shape[1]), ROTARY_BASE ** (-np.arange(half) / half))[:, None]
    sin, cos = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)
