"""Layers that several encoders are made of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


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
