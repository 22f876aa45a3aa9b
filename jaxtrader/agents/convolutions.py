"""The encoder "tcn": dilated causal convolutions whose reach is the window."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.layers import Linear, matmul


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

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(kernels(self.window, self.depth))

    @nn.nowrap
    def output_width(self, inputs: int) -> int:
        """Return how many numbers it gives for a decision."""
        return self.width

    @nn.nowrap
    def activation_count(self, inputs: int, decisions: int) -> int:
        """Return roughly how many numbers it keeps for its backward pass, for one path of so many decisions."""
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
