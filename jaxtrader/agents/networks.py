"""The policy network: an encoder over the window, made once per bar, and heads that add the account.

`encode` sees only the market, so one call serves every agent of a lane and every bar of a chunk; `head` is what is left
to do per account and step. The heads are MLPs over (what the encoder gives, account), whose first layer is split, by
rows of its matrix, into the part that the market drives and the part that the account drives. With the encoder "mlp",
which gives the window itself, that is the field's plain MLP over (window, account). Portfolios have a network of their
own, `portfolio.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.agents import encoders
from jaxtrader.agents.actions import Actions
from jaxtrader.agents.encoders import matmul

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
}
COMPUTE_DTYPES = ("float32", "bfloat16")


class ActorCritic(nn.Module):
    """An actor and a critic, MLPs over the concatenated account and what one encoder makes of the window.

    Attributes:
        window: bars in a window (1 for ordinary environments).
        features: inputs a bar.
        account: inputs from the account (0 for ordinary environments).
        actions: what the policy's outputs stand for; continuous ones have a parameter `log_std` too, learnt or led.
        hidden: widths of the hidden layers; the market's part of the first is in the context.
        activation: a name in ACTIVATIONS.
        shared: one torso for actor and critic instead of two.
        encoder, encoder_width, encoder_depth: see encoders.py; "mlp" has neither width nor depth.
        compute_dtype: of the encoder and the hidden layers. Weights, contexts, the account's part, outputs and values
            are float32.
    """

    window: int
    features: int
    account: int
    actions: Actions
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    shared: bool = False
    encoder: encoders.Kind = "mlp"
    encoder_width: int = 32
    encoder_depth: int | None = None
    compute_dtype: str = "float32"

    def setup(self) -> None:
        """Declare the layers. Orthogonal, gain sqrt 2 in the torso, 0.01 for the policy, 1 for the value."""
        torsos = 1 if self.shared else 2
        self.seen = encoders.outputs(self.encoder, self.window, self.features, self.encoder_width)
        inputs, wide = self.seen + self.account, self.hidden[0]

        def first(key: Array, shape: tuple[int, int]) -> Array:
            make = nn.initializers.orthogonal(2**0.5)
            return jnp.concatenate([make(k, (inputs, wide)) for k in jax.random.split(key, torsos)], -1)

        self.first_kernel = self.param("first_kernel", first, (inputs, torsos * wide))
        self.first_bias = self.param("first_bias", nn.initializers.zeros, (torsos * wide,))
        self.trunk = encoders.encoder(
            self.encoder, self.window, self.encoder_width, self.encoder_depth, ACTIVATIONS[self.activation]
        )
        dense = lambda width: nn.Dense(  # noqa: E731
            width, dtype=self.compute_dtype, kernel_init=nn.initializers.orthogonal(2**0.5)
        )
        self.torsos = [[dense(width) for width in self.hidden[1:]] for _ in range(torsos)]
        self.policy = nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(0.01))
        self.critic = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))
        if self.actions.continuous:
            self.log_std = self.param("log_std", nn.initializers.zeros, (self.outputs,))

    @property
    def outputs(self) -> int:
        """Numbers that the policy's last layer gives, and deviations that are learnt."""
        return self.actions.size

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Contexts of the windows that end at bars window-1, window, ... of each chunk."""
        bars = chunk.reshape(*chunk.shape[:-2], -1).astype(self.compute_dtype)
        return matmul(self.trunk(bars), self.first_kernel[: self.seen]).astype(jnp.float32) + self.first_bias

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c actions"], Float[Array, "*c"]]:
        """The policy's outputs (logits or means) and value. `context` broadcasts against the account's leading axes."""
        hidden = context
        if account is not None:
            flat = account.reshape(*account.shape[:-2], -1)
            hidden = hidden + matmul(flat, self.first_kernel[self.seen :])
        activate = ACTIVATIONS[self.activation]
        batch = hidden.shape[:-1]
        hidden = activate(hidden).reshape(-1, hidden.shape[-1])  # see `matmul`
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

    @nn.nowrap
    def tradable(self, account: Array | None) -> Bool[Array, "*c assets"] | None:
        """The assets whose actions count; None: all."""
        return None

    @nn.nowrap
    def fresh(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Initial weights, float32."""
        chunk = jnp.zeros((1, self.window, 1, self.features))
        account = jnp.zeros((1, 1, 1, self.account)) if self.account else None
        return cast(dict[str, Any], self.init(key, chunk, account))["params"]
