"""Encoders: the part of a network that reads bars, before it knows any account. They give one vector for each decision.

An encoder takes chunks of bars and answers for every bar that ends a whole window, from the bars of that window alone.
The reach of its layers adds up to the window exactly. So one call over a chunk gives the same numbers as its windows
one by one, and does the work that they share only once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

HEAD_WIDTH = 16  # of attention: small, so that several heads can look at different bars
MIN_QUERY_BLOCK = 16  # decisions that attend together: fewer make matrix products too small to be fast
ROTARY_BASE = 10_000.0


class Encoder(nn.Module):
    """What a network asks of its encoder.

    Attributes:
        window: bars that an output depends on.
        width: channels.
        depth: layers. None: as many as the kind usually has.
    """

    window: int
    width: int
    depth: int | None = None

    USUAL_DEPTH = 1

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.depth or self.USUAL_DEPTH

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision, from `inputs` numbers of each bar."""
        return self.width

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return roughly how many numbers it keeps for its backward pass, for one path of so many decisions."""
        raise NotImplementedError

    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the outputs `[*b, bars - window + 1, output_width]` for chunks of bars."""
        raise NotImplementedError


class Windows(Encoder):
    """The windows themselves, flattened: the input of an MLP. It has neither width nor depth."""

    USUAL_DEPTH = 0

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return the numbers of a window."""
        return self.window * inputs

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return the numbers of all windows, which the next layer keeps."""
        return decisions * self.window * inputs

    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions outputs"]:
        """Return each decision's bars side by side, oldest first."""
        if self.window == 1:
            return bars
        windows = windows_of(bars, self.window)
        return windows.reshape(*windows.shape[:-2], -1)


class TCN(Encoder):
    """Dilated causal convolutions with residuals (Bai et al. 2018, https://arxiv.org/abs/1803.01271).

    It usually has as many layers as kernels of two bars need. Fewer layers have longer kernels.
    """

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(kernels(self.window, self.depth))

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return the numbers that all taps of all layers keep."""
        taps = sum(len(offsets) + 2 for offsets in kernels(self.window, self.depth))
        return (self.window + decisions - 1) * self.width * taps

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


class Attention(Encoder):
    """Pre-norm transformer blocks, causal and local, with rotary positions (Su et al. 2021, arXiv:2104.09864).

    The layers share the window evenly. The width is that of the residual stream, a multiple of HEAD_WIDTH.
    """

    USUAL_DEPTH = 2  # with fewer layers none could read what another found

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return the numbers of the layers, and of the products of queries and keys."""
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


class GRU(Encoder):
    """Gated recurrent units over each window (Cho et al. 2014, https://arxiv.org/abs/1406.1078).

    The state begins anew at the first bar of each window, so that no bar before it is seen. Each window is read bar by
    bar, so that a decision costs a window's work. With r and z the gates of a bar,
    h = (1 - z) tanh(W x + b + r (U h + c)) + z h.
    """

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return the numbers of gates and states of each window."""
        return decisions * self.window * 10 * self.width * self.layers

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the state of the last layer after each window."""
        # What the first layer takes from a bar is computed once a bar, and not once a window.
        taken = windows_of(Linear(3 * self.width, name="layer_0_in")(bars), self.window)
        batch = taken.shape[:-2]
        taken = jnp.moveaxis(taken.reshape(-1, *taken.shape[-2:]), 1, 0)  # time first, for the scan
        states = self._recur(0, taken)
        for i in range(1, self.layers):
            states = self._recur(i, Linear(3 * self.width, name=f"layer_{i}_in")(states))
        return states[-1].reshape(*batch, self.width)

    def _recur(self, i: int, taken: Float[Array, "time n gates"]) -> Float[Array, "time n width"]:
        """Return the states of layer i after each bar, from what it takes from the bars."""
        kernel = self.param(f"layer_{i}_kernel", _gate_kernels, (self.width, 3 * self.width)).astype(taken.dtype)
        bias = self.param(f"layer_{i}_bias", nn.initializers.zeros, (self.width,)).astype(taken.dtype)

        def step(state: Array, taken: Array) -> tuple[Array, Array]:
            (reset_in, keep_in, new_in), (reset_h, keep_h, new_h) = (
                jnp.split(x, 3, -1) for x in (taken, state @ kernel)
            )
            reset, keep = nn.sigmoid(reset_in + reset_h), nn.sigmoid(keep_in + keep_h)
            state = (1 - keep) * jnp.tanh(new_in + reset * (new_h + bias)) + keep * state
            return state, state

        return jax.lax.scan(step, jnp.zeros((taken.shape[1], self.width), taken.dtype), taken)[1]


def _gate_kernels(key: PRNGKeyArray, shape: tuple[int, int]) -> Array:
    """Orthogonal matrices side by side, one for each gate."""
    width = shape[0]
    orthogonal = nn.initializers.orthogonal()
    return jnp.concatenate([orthogonal(k, (width, width)) for k in jax.random.split(key, shape[1] // width)], -1)


class LRU(Encoder):
    """Linear recurrences with gates, whose sums over a window are made by doubling.

    Each layer is a diagonal linear recurrence (Orvieto et al. 2023, https://arxiv.org/abs/2303.06349), here with real
    eigenvalues: h[t] = a h[t-1] + sqrt(1 - a^2) B x[t], summed over the span of its layer. The layers share the window
    evenly. A gated layer of the sum is added to the layer's input.
    """

    USUAL_DEPTH = 2  # so that the second layer reads what the first one remembers

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return the numbers of all doublings, and of the gated layers."""
        kept = sum(span.bit_length() // 2 + 6 for span in spans(self.window, self.layers))
        return (decisions + self.window - 1) * self.width * kept

    @nn.compact
    def __call__(self, bars: Float[Array, "*b bars inputs"]) -> Float[Array, "*b decisions width"]:
        """Return the last layer's output. Each layer computes only the bars that the next one reads."""
        x = Linear(self.width, 2**0.5, name="embed")(bars)
        for i, span in enumerate(spans(self.window, self.layers)):
            rate = self.param(f"layer_{i}_rate", _rates, (self.width,), span)
            decay = jnp.exp(-jnp.exp(rate))
            kernel = self.param(f"layer_{i}_kernel", nn.initializers.orthogonal(), (self.width, self.width))
            driven = matmul(x, kernel).astype(jnp.float32) * jnp.sqrt(1 - decay**2)
            state = windowed_recurrence(driven, decay, span).astype(x.dtype)
            value, gate = jnp.split(Linear(2 * self.width, name=f"layer_{i}_out")(state), 2, -1)
            x = x[..., span - 1 :, :] + value * nn.sigmoid(gate)
        return jnp.tanh(x)


def _rates(key: PRNGKeyArray, shape: tuple[int, ...], span: int) -> Array:
    """The logarithms of rates of decay whose times lie between one bar and the span, evenly by their logarithm."""
    times = jnp.exp(jax.random.uniform(key, shape) * np.log(max(span, 2)))
    return -jnp.log(times)


def windowed_recurrence(
    x: Float[Array, "*b bars width"], decay: Float[Array, " width"], span: int
) -> Float[Array, "*b later width"]:
    """Return the sums over k < span of decay^k x[t-k], for each bar t that has so many bars.

    Sums over 1, 2, 4, ... bars are made by doubling, and those of the span's binary digits are joined. So no bar
    outside of a window enters its sum, not even by rounding, and a window alone gives what it gives in a chunk.
    """
    total, joined, block, size = None, 0, x, 1
    while size <= span:
        if span & size:
            later = block if total is None else total[..., size:, :]
            earlier = 0 if total is None else decay**joined * block[..., : block.shape[-2] - joined, :]
            total, joined = later + earlier, joined + size
        block = block[..., size:, :] + decay**size * block[..., :-size, :]
        size *= 2
    assert total is not None
    return total


KINDS: dict[str, type[Encoder]] = {"mlp": Windows, "tcn": TCN, "attention": Attention, "gru": GRU, "lru": LRU}


# --- what several of them are made of ---


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


def spans(window: int, depth: int) -> list[int]:
    """Return how many bars each layer reads, its own included, of a shared window. 1 + sum(span - 1) = window."""
    ends = [(window - 1) * i // depth for i in range(depth + 1)]
    return [1 + end - start for start, end in pairwise(ends)]


def windows_of(bars: Float[Array, "*b bars inputs"], window: int) -> Float[Array, "*b decisions window inputs"]:
    """Return the windows that end at bars window-1, window, ... of each chunk, oldest bar first."""
    if bars.shape[-2] == window:  # one decision
        return bars[..., None, :, :]
    # Slices are copied as they lie in memory. Shifted bars, joined, were a quarter slower, and a window of 512 took
    # 10 s to compile.
    starts = jnp.arange(bars.shape[-2] - window + 1)
    take = lambda start: jax.lax.dynamic_slice_in_dim(bars, start, window, -2)  # noqa: E731
    return jax.vmap(take, out_axes=-3)(starts)


def matmul(x: Float[Array, "*b in"], kernel: Float[Array, "in out"]) -> Float[Array, "*b out"]:
    """Return x @ kernel, over flattened leading axes and in the dtype of x.

    With several leading axes XLA:CPU contracts the kernel's gradient over all of them, outside its fast matrix product.
    That made the gradient of a two-layer head four times slower.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)
