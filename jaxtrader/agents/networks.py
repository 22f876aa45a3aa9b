"""The policy network: an encoder over the window, made once per bar, and heads that add the account.

`encode` sees only the market, so one call serves every agent of a lane and every bar of a chunk; `head` is what is left
to do per account and step. Together they are the field's plain MLP over (window, account): the first layer is split, by
rows of its matrix, into the part that the market drives and the part that the account drives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.actions import Actions

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "gelu": nn.gelu,
    "swish": nn.swish,
}
# Of a continuous action before it is squashed: wide, since narrower ones learnt less (see MEAN_GAIN in actions.py).
INITIAL_LOG_STD = 1.0


class MLPActorCritic(nn.Module):
    """An actor and a critic, MLPs over the concatenated window and account.

    Attributes:
        window: bars in a window (1 for ordinary environments).
        features: inputs a bar, assets times features.
        account: inputs from the account (0 for ordinary environments).
        actions: what the policy's outputs stand for; continuous ones have a parameter `log_std` too.
        hidden: widths of the hidden layers; the first is the encoder's.
        activation: a name in ACTIVATIONS.
        shared: one torso for actor and critic instead of two.
    """

    window: int
    features: int
    account: int
    actions: Actions
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    shared: bool = False

    def setup(self) -> None:
        """Declare the layers. Orthogonal, gain sqrt 2 in the torso, 0.01 for the policy, 1 for the value."""
        torsos = 1 if self.shared else 2
        inputs = self.window * self.features + self.account
        wide = self.hidden[0]

        def first(key: Array, shape: tuple[int, int]) -> Array:
            make = nn.initializers.orthogonal(2**0.5)
            return jnp.concatenate([make(k, (inputs, wide)) for k in jax.random.split(key, torsos)], -1)

        self.first_kernel = self.param("first_kernel", first, (inputs, torsos * wide))
        self.first_bias = self.param("first_bias", nn.initializers.zeros, (torsos * wide,))
        dense = lambda width: nn.Dense(width, kernel_init=nn.initializers.orthogonal(2**0.5))  # noqa: E731
        self.torsos = [[dense(width) for width in self.hidden[1:]] for _ in range(torsos)]
        self.policy = nn.Dense(self.actions.size, kernel_init=nn.initializers.orthogonal(0.01))
        self.critic = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))
        if self.actions.continuous:
            self.log_std = self.param("log_std", nn.initializers.constant(INITIAL_LOG_STD), (self.actions.size,))

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Contexts of the windows that end at bars window-1, window, ... of each chunk (a causal VALID convolution).

        As shifted slices and one matrix product: XLA:CPU's gradient of a convolution is far slower.
        """
        bars = chunk.reshape(*chunk.shape[:-2], -1)
        decisions = bars.shape[-2] - self.window + 1
        shifted = [bars[..., i : i + decisions, :] for i in range(self.window)]
        windows = shifted[0] if self.window == 1 else jnp.concatenate(shifted, -1)
        return _matmul(windows, self.first_kernel[: self.window * self.features]) + self.first_bias

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c actions"], Float[Array, "*c"]]:
        """The policy's outputs (logits or means) and value. `context` broadcasts against the account's leading axes."""
        hidden = context
        if account is not None:
            flat = account.reshape(*account.shape[:-2], -1)
            hidden = hidden + _matmul(flat, self.first_kernel[self.window * self.features :])
        activate = ACTIVATIONS[self.activation]
        batch = hidden.shape[:-1]
        hidden = activate(hidden).reshape(-1, hidden.shape[-1])  # see `_matmul`
        parts = jnp.split(hidden, len(self.torsos), -1)
        outputs = []
        for part, layers in zip(parts, self.torsos, strict=True):
            for layer in layers:
                part = activate(layer(part))
            outputs.append(part)
        return self.policy(outputs[0]).reshape(*batch, -1), self.critic(outputs[-1]).reshape(batch)

    def __call__(self, chunk: Any, account: Any) -> tuple[Array, Array]:
        """Outputs and values for every decision of a chunk: what `init` traces."""
        return self.head(self.encode(chunk), account)


def _matmul(x: Float[Array, "*b in"], kernel: Float[Array, "in out"]) -> Float[Array, "*b out"]:
    """x @ kernel over flattened leading axes.

    With several of them XLA:CPU contracts the kernel's gradient over more than one axis, outside its fast matrix
    product: the gradient of a two-layer head was four times slower.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)
