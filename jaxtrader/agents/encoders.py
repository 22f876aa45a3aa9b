"""Encoders: the part of a network that reads bars, before it knows any account. They give one vector for each decision.

An encoder takes chunks of bars and answers for every bar that ends a whole window, from the bars of that window alone.
The reach of its layers adds up to the window exactly. So one call over a chunk gives the same numbers as its windows
one by one, and does the work that they share only once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

Kind = Literal["mlp", "tcn", "attention"]

HEAD_WIDTH = 16  # of attention: small, so that several heads can look at different bars
ATTENTION_DEPTH = 2  # with fewer layers none could read what another found
MIN_QUERY_BLOCK = 16  # decisions that attend together: fewer make matrix products too small to be fast
ROTARY_BASE = 10_000.0


def make_encoder(kind: Kind, window: int, width: int, depth: int | None) -> Windows | TCN | Attention:
    """Return the encoder of that name: `[*b, bars, inputs] -> [*b, bars - window + 1, output_width]`."""
    if kind == "mlp":
        return Windows(window)
    return TCN(window, width, depth) if kind == "tcn" else Attention(window, width, depth)


def output_width(kind: Kind, window: int, inputs: int, width: int) -> int:
    """Return how many numbers an encoder gives for a decision, from `inputs` numbers of each bar."""
    return window * inputs if kind == "mlp" else width


def layers(kind: Kind, window: int, depth: int | None) -> Sequence[Any]:
    """Return the bars that each layer of "tcn" or "attention" reads."""
    return kernels(window, depth) if kind == "tcn" else spans(window, depth)


def activation_count(kind: Kind, window: int, inputs: int, width: int, depth: int | None, decisions: int) -> int:
    """Return roughly how many numbers an encoder keeps for its backward pass, for one path of so many decisions."""
    bars = window + decisions - 1
    if kind == "mlp":
        return decisions * window * inputs
    if kind == "tcn":
        return bars * width * sum(len(offsets) + 2 for offsets in kernels(window, depth))
    total, heads = 0, width // HEAD_WIDTH
    for span in spans(window, depth):
        bars -= span - 1
        count, block = _query_blocks(bars, span)
        total += 10 * (bars + span - 1) * width + 3 * count * block * (block + span - 1) * heads
    return total


class Windows(nn.Module):
    """The windows themselves, flattened: the input of an MLP."""

    window: int

    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions outputs"]:
        """Return each decision's bars side by side, oldest first."""
        if self.window == 1:
            return bars
        # Slices are copied as they lie in memory. Shifted bars, joined, were a quarter slower, and a window of 512 took
        # 10 s to compile.
        starts = jnp.arange(bars.shape[-2] - self.window + 1)
        take = lambda start: jax.lax.dynamic_slice_in_dim(bars, start, self.window, -2)  # noqa: E731
        return jax.vmap(take, out_axes=-3)(starts).reshape(*bars.shape[:-2], len(starts), -1)


class TCN(nn.Module):
    """Dilated causal convolutions with residuals (Bai et al. 2018, https://arxiv.org/abs/1803.01271).

    Attributes:
        window: bars that an output depends on.
        width: channels.
        depth: layers. None: as many as kernels of two bars need. Fewer layers have longer kernels.
    """

    window: int
    width: int
    depth: int | None

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the last layer's output. Each layer adds its convolution to its input."""
        x = Linear(self.width, 2**0.5, name="embed")(bars)
        for i, offsets in enumerate(kernels(self.window, self.depth)):
            x = x[..., offsets[-1] :, :] + jnp.tanh(Convolution(self.width, offsets, name=f"layer_{i}")(x))
        return x


class Convolution(nn.Module):
    """A causal convolution over the bars at these offsets before each bar that has them all.

    Every bar is multiplied with all taps in one product, and the parts are shifted and added. The gradient of a
    convolution is far slower in XLA:CPU, and that of shifted bars side by side took a quarter longer.
    """

    width: int
    offsets: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*b bars in"]) -> Float[Array, "*b later width"]:
        """Return the sum over taps of x[t - offset] @ its kernel, plus the bias."""
        taps, reach, bars = len(self.offsets), self.offsets[-1], x.shape[-2]
        kernel = self.param("kernel", nn.initializers.orthogonal(), (x.shape[-1], taps * self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        parts = jnp.split(matmul(x, kernel), taps, -1)
        shifted = [part[..., reach - o : bars - o, :] for part, o in zip(parts, self.offsets, strict=True)]
        return sum(shifted[1:], shifted[0]) + bias.astype(x.dtype)


class Attention(nn.Module):
    """Pre-norm transformer blocks, causal and local, with rotary positions (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        window: bars that an output depends on. The layers share it evenly.
        width: width of the residual stream, a multiple of HEAD_WIDTH.
        depth: layers. None: ATTENTION_DEPTH.
    """

    window: int
    width: int
    depth: int | None

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the last layer's output. Each layer computes only the bars that the next one reads."""
        x = bars.reshape(-1, *bars.shape[-2:])
        # A norm keeps directions only. Without a bias a single feature would keep its sign and lose its size.
        bias_init = nn.initializers.normal(self.width**-0.5)
        x = Linear(self.width, 2**0.5, bias_init=bias_init, name="embed")(x)
        for i, span in enumerate(spans(self.window, self.depth)):
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


class Linear(nn.Module):
    """A dense layer over rows (see `matmul`), in the dtype of its input. Its weights are float32."""

    width: int
    gain: float = 1.0
    bias_init: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*b in"]) -> Float[Array, "*b width"]:
        """Return x @ kernel + bias. The kernel is orthogonal at first."""
        kernel = self.param("kernel", nn.initializers.orthogonal(self.gain), (x.shape[-1], self.width))
        return matmul(x, kernel) + self.param("bias", self.bias_init, (self.width,)).astype(x.dtype)


def kernels(window: int, depth: int | None) -> list[tuple[int, ...]]:
    """Return the offsets that each convolution reads, back from its last bar: (0, 1), (0, 2), (0, 4) for window 8.

    All kernels have the smallest size that reaches the window in `depth` layers. Each is dilated by the reach of the
    layers before it. The last kernels are shortened so that they end at the window. No bar of the window is left out.
    """
    depth = depth or max(1, (window - 1).bit_length())
    size = 2
    while size**depth < window:
        size += 1
    offsets, reached = [], 1
    for _ in range(depth):
        reach = min((size - 1) * reached, window - reached)
        steps = min(size - 1, reach)
        offsets.append((0, *(i * reach // steps for i in range(1, steps + 1))))
        reached += reach
    return offsets


def spans(window: int, depth: int | None) -> list[int]:
    """Return how many bars each layer of attention reads, its own included. 1 + sum(span - 1) = window."""
    depth = depth or ATTENTION_DEPTH
    ends = [(window - 1) * i // depth for i in range(depth + 1)]
    return [1 + end - start for start, end in pairwise(ends)]


def attend(
    query: Float[Array, "n later heads d"], key: Float[Array, "n bars heads d"], value: Float[Array, "n bars heads d"]
) -> Float[Array, "n later heads d"]:
    """Return the softmax attention of each query to the `bars - later + 1` bars that end at its own.

    Queries attend in blocks. A block needs only the keys of its own bars and of a span before them, so the work grows
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


def matmul(x: Float[Array, "*b in"], kernel: Float[Array, "in out"]) -> Float[Array, "*b out"]:
    """Return x @ kernel, over flattened leading axes and in the dtype of x.

    With several leading axes XLA:CPU contracts the kernel's gradient over all of them, outside its fast matrix product.
    That made the gradient of a two-layer head four times slower.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)
