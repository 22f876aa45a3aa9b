"""Encoders: what a network makes of the bars before it knows any account, one vector a decision.

Each takes chunks of bars and answers for every bar that ends a whole window, from the bars of that window alone: the
spans of its layers add up to it exactly, 1 + sum(span - 1) = window. So one call over a chunk gives the numbers that
its windows give one by one, and does the work that they share only once.
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

HEAD_WIDTH = 16  # of attention; small, so that several heads can look at different bars
ATTENTION_DEPTH = 2  # the least with which a layer reads what another found
SMALLEST_BLOCK = 16  # decisions that attend together: fewer leave matrix products too small to be fast
ROTARY_BASE = 10_000.0
# Of activations at once, roughly (see `blocks`): on a CPU what a core's cache holds, elsewhere a part of the memory.
CPU_BLOCK_BYTES, BLOCK_BYTES = 2**21, 2**30
# A gradient is summed over blocks, each of which writes all weights' part: so many times as large a block hides that.
BLOCK_PER_WEIGHTS = 24


def encoder(
    kind: Kind, window: int, width: int, depth: int | None, activate: Callable[[Array], Array]
) -> Windows | TCN | Attention:
    """The encoder of that name; `[*b, bars, inputs] -> [*b, bars - window + 1, outputs]` (see `outputs`)."""
    if kind == "mlp":
        return Windows(window)
    return TCN(window, width, depth, activate) if kind == "tcn" else Attention(window, width, depth, activate)


def outputs(kind: Kind, window: int, inputs: int, width: int) -> int:
    """Numbers that an encoder gives a decision, from `inputs` numbers a bar."""
    return window * inputs if kind == "mlp" else width


def blocks(lanes: int, floats: int, weights: int = 0) -> int:
    """Equal parts of lanes to work through one after the other, where each lane holds so many float32 numbers.

    So the peak of memory is a share of all lanes', and a part stays in the cache. As many parts as the limit above asks
    for, or the next number that divides the lanes; the one before, if that would be many more, as of a prime number.

    Args:
        lanes, floats: in all, and of each.
        weights: float32 numbers of the gradient that is summed over the parts; 0 where there is none.
    """
    limit = CPU_BLOCK_BYTES if jax.default_backend() == "cpu" else BLOCK_BYTES
    limit = max(limit, BLOCK_PER_WEIGHTS * weights * 4)
    count = min(lanes, max(1, -(-lanes * floats * 4 // limit)))
    parts = [n for n in range(1, lanes + 1) if lanes % n == 0]
    above = next(n for n in parts if n >= count)
    return above if above <= 4 * count else max(n for n in parts if n < count)


def held(kind: Kind, window: int, inputs: int, width: int, depth: int | None, decisions: int) -> int:
    """Numbers that a lane of so many decisions holds in an encoder's backward pass, roughly."""
    bars = window + decisions - 1
    if kind == "mlp":
        return decisions * window * inputs
    if kind == "tcn":
        return bars * width * sum(len(back) + 2 for back in kernels(window, depth))
    total, heads = 0, width // HEAD_WIDTH
    for span in spans(window, depth):
        bars -= span - 1
        count, block = _parts(bars, span)
        total += 10 * (bars + span - 1) * width + 3 * count * block * (block + span - 1) * heads
    return total


class Windows(nn.Module):
    """The windows themselves, flattened: what an MLP begins with."""

    window: int

    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions outputs"]:
        """Each decision's bars side by side, oldest first."""
        if self.window == 1:
            return bars
        # Slices are copied as they lie; shifted bars, joined, were a quarter slower, and 512 took 10 s to compile.
        starts = jnp.arange(bars.shape[-2] - self.window + 1)
        take = lambda start: jax.lax.dynamic_slice_in_dim(bars, start, self.window, -2)  # noqa: E731
        return jax.vmap(take, out_axes=-3)(starts).reshape(*bars.shape[:-2], len(starts), -1)


class TCN(nn.Module):
    """Dilated causal convolutions with residuals (Bai et al. 2018, https://arxiv.org/abs/1803.01271).

    Attributes:
        window: bars that an output depends on.
        width: channels.
        depth: layers; None for as many as kernels of two bars need. Fewer have longer kernels.
        activate: the nonlinearity.
    """

    window: int
    width: int
    depth: int | None
    activate: Callable[[Array], Array]

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Each layer adds what its kernel makes of some bars to the last of them."""
        x = Linear(self.width, 2**0.5, name="embed")(bars)
        for i, back in enumerate(kernels(self.window, self.depth)):
            x = x[..., back[-1] :, :] + self.activate(Convolution(self.width, back, name=f"layer_{i}")(x))
        return x


class Convolution(nn.Module):
    """A causal VALID convolution over the bars `back` from each one that has them all.

    One product of every bar with all taps, whose parts are shifted and added: XLA:CPU's gradient of a convolution is
    far slower, and that of shifted bars side by side took a quarter longer.
    """

    width: int
    back: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "*b bars in"]) -> Float[Array, "*b later width"]:
        """Sum over taps of x[t - back] @ its kernel, and the bias."""
        taps, reach, bars = len(self.back), self.back[-1], x.shape[-2]
        kernel = self.param("kernel", nn.initializers.orthogonal(), (x.shape[-1], taps * self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        parts = jnp.split(matmul(x, kernel), taps, -1)
        shifted = [part[..., reach - o : bars - o, :] for part, o in zip(parts, self.back, strict=True)]
        return sum(shifted[1:], shifted[0]) + bias.astype(x.dtype)


class Attention(nn.Module):
    """Pre-norm transformer blocks, causal and local, with rotary positions (Su et al. 2021, arXiv:2104.09864).

    Attributes:
        window: bars that an output depends on; the layers share it evenly.
        width: of the residual stream, a multiple of HEAD_WIDTH.
        depth: layers; None for ATTENTION_DEPTH.
        activate: the nonlinearity of the blocks' MLPs, which are twice as wide.
    """

    window: int
    width: int
    depth: int | None
    activate: Callable[[Array], Array]

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Every layer asks only for the bars that the next one needs."""
        x = bars.reshape(-1, *bars.shape[-2:])
        # A norm keeps directions only. Were there no bias, a single feature would keep its sign and lose its size.
        spread = nn.initializers.normal(self.width**-0.5)
        x = Linear(self.width, 2**0.5, bias_init=spread, name="embed")(x)
        for i, span in enumerate(spans(self.window, self.depth)):
            x = self._block(x, span, f"layer_{i}")
        x = nn.LayerNorm(dtype=x.dtype, name="norm")(x)
        return x.reshape(*bars.shape[:-2], *x.shape[1:])

    def _block(self, x: Float[Array, "n bars width"], span: int, name: str) -> Float[Array, "n later width"]:
        normed = nn.LayerNorm(dtype=x.dtype, name=f"{name}_norm")(x)
        query = Linear(self.width, name=f"{name}_query")(normed[:, span - 1 :])
        key, value = jnp.split(Linear(2 * self.width, name=f"{name}_key_value")(normed), 2, -1)
        query, key, value = (y.reshape(*y.shape[:2], -1, HEAD_WIDTH) for y in (query, key, value))
        seen = attend(rotate(query, span - 1), rotate(key, 0), value)
        x = x[:, span - 1 :] + Linear(self.width, name=f"{name}_out")(seen.reshape(*seen.shape[:2], -1))
        normed = nn.LayerNorm(dtype=x.dtype, name=f"{name}_mlp_norm")(x)
        inner = self.activate(Linear(2 * self.width, 2**0.5, name=f"{name}_mlp_in")(normed))
        return x + Linear(self.width, name=f"{name}_mlp_out")(inner)


class Linear(nn.Module):
    """A dense layer over rows (see `matmul`) in the dtype of its input; its weights are float32."""

    width: int
    gain: float = 1.0
    bias_init: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*b in"]) -> Float[Array, "*b width"]:
        """x @ kernel + bias, the kernel orthogonal at first."""
        kernel = self.param("kernel", nn.initializers.orthogonal(self.gain), (x.shape[-1], self.width))
        return matmul(x, kernel) + self.param("bias", self.bias_init, (self.width,)).astype(x.dtype)


def layers(kind: Kind, window: int, depth: int | None) -> Sequence[Any]:
    """The layers of an encoder that has them: the reach of each."""
    return kernels(window, depth) if kind == "tcn" else spans(window, depth)


def kernels(window: int, depth: int | None) -> list[tuple[int, ...]]:
    """The bars that each convolution reads, counted back from its last, in order: (0, 1), (0, 2), (0, 4) for window 8.

    With the smallest kernel that reaches the window in `depth` layers, each dilated by what the layers before it see.
    The last to have anything left to reach is shortened to end at the window; no bar of the window is left out.
    """
    depth = depth or max(1, (window - 1).bit_length())
    size = 2
    while size**depth < window:
        size += 1
    layers, seen = [], 1
    for _ in range(depth):
        reach = min((size - 1) * seen, window - seen)
        steps = min(size - 1, reach)
        layers.append((0, *(i * reach // steps for i in range(1, steps + 1))))
        seen += reach
    return layers


def spans(window: int, depth: int | None) -> list[int]:
    """The bars that each layer of attention looks at, its own included; 1 + sum(span - 1) = window."""
    depth = depth or ATTENTION_DEPTH
    ends = [(window - 1) * i // depth for i in range(depth + 1)]
    return [1 + end - start for start, end in pairwise(ends)]


def attend(
    query: Float[Array, "n later heads d"], key: Float[Array, "n bars heads d"], value: Float[Array, "n bars heads d"]
) -> Float[Array, "n later heads d"]:
    """Softmax attention of each query to the `bars - later + 1` bars that end at its own.

    In blocks of queries: a block needs only the keys of its own bars and of a span before them, so that the work grows
    with bars times span and not with the square of the bars.
    """
    later, span = query.shape[1], key.shape[1] - query.shape[1] + 1
    count, block = _parts(later, span)
    rest = ((0, 0), (0, count * block - later), (0, 0), (0, 0))
    key, value = (
        jnp.stack([x[:, i * block : (i + 1) * block + span - 1] for i in range(count)], 1)
        for x in (jnp.pad(key, rest), jnp.pad(value, rest))
    )
    query = jnp.pad(query, rest).reshape(-1, count, block, *query.shape[2:])
    scores = jnp.einsum("ncqhd,nckhd->nchqk", query, key).astype(jnp.float32) * query.shape[-1] ** -0.5
    offset = np.arange(block + span - 1) - np.arange(block)[:, None]
    scores = jnp.where((offset >= 0) & (offset < span), scores, -jnp.inf)
    # A softmax that divides last, when there are fewer numbers to divide.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    seen = jnp.einsum("nchqk,nckhd->nchqd", weights.astype(value.dtype), value)
    seen = (seen / weights.sum(-1, keepdims=True)).astype(value.dtype)
    return jnp.moveaxis(seen, 3, 2).reshape(-1, count * block, *value.shape[3:])[:, :later]


def _parts(later: int, span: int) -> tuple[int, int]:
    """Blocks of queries that attend together, and the queries of one; the last is filled up."""
    count = max(1, round(later / max(span, SMALLEST_BLOCK)))
    return count, -(-later // count)


def rotate(x: Float[Array, "n bars heads d"], first: int) -> Float[Array, "n bars heads d"]:
    """Rotary positions `first`, first + 1, ...: then a product of two depends on their distance alone."""
    half = x.shape[-1] // 2
    angles = np.outer(np.arange(first, first + x.shape[1]), ROTARY_BASE ** (-np.arange(half) / half))[:, None]
    sin, cos = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1).astype(x.dtype)


def matmul(x: Float[Array, "*b in"], kernel: Float[Array, "in out"]) -> Float[Array, "*b out"]:
    """x @ kernel over flattened leading axes, in the dtype of x.

    With several of them XLA:CPU contracts the kernel's gradient over more than one axis, outside its fast matrix
    product: the gradient of a two-layer head was four times slower.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)
