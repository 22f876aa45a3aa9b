"""Recurrent encoders. Each decision's state begins anew at the first bar of its window, which is the burn-in.

So a chunk, a single step and a live decision agree, and no bar before the window is seen.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.agents.layers import Linear, matmul, spans, windows_of

GRU_DEPTH = 1
LRU_DEPTH = 2  # so that the second layer reads what the first one remembers


class GRU(nn.Module):
    """Gated recurrent units over each window (Cho et al. 2014, https://arxiv.org/abs/1406.1078).

    Each window is read bar by bar, so that a decision costs a window's work. With r and z the gates of a bar,
    h = (1 - z) tanh(W x + b + r (U h + c)) + z h.

    Attributes:
        window: bars that an output depends on.
        width: units of each layer.
        depth: layers. None: GRU_DEPTH.
    """

    window: int
    width: int
    depth: int | None

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.depth or GRU_DEPTH

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision."""
        return self.width

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return roughly how many numbers it keeps for its backward pass, for one path of so many decisions."""
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


class LRU(nn.Module):
    """Linear recurrences with gates, whose sums over a window are made by doubling.

    Each layer is a diagonal linear recurrence (Orvieto et al. 2023, https://arxiv.org/abs/2303.06349), here with real
    eigenvalues: h[t] = a h[t-1] + sqrt(1 - a^2) B x[t], summed over the span of its layer. A gated layer of it is added
    to the layer's input.

    Attributes:
        window: bars that an output depends on. The layers share it evenly.
        width: channels.
        depth: layers. None: LRU_DEPTH.
    """

    window: int
    width: int
    depth: int | None

    @property
    def layers(self) -> int:
        """The number of layers."""
        return self.depth or LRU_DEPTH

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision."""
        return self.width

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return roughly how many numbers it keeps for its backward pass, for one path of so many decisions."""
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
