"""The policy network: an encoder of the window, and MLP heads of actor and critic that also see the account.

`encode` sees the market alone, so one call serves every account of a path and every bar of a chunk. `head` is the work
that is left for each account and step. The first layer of the heads is split by the rows of its matrix. The market's
part is in the context, and `head` adds the account's part. With the encoder "mlp" this is a plain MLP over (window,
account). Portfolios have their own network, see portfolio.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.agents import encoders
from jaxtrader.agents.action_spec import ActionSpec
from jaxtrader.agents.attention import HEAD_WIDTH
from jaxtrader.agents.layers import matmul
from jaxtrader.agents.own_encoder import Own, own
from jaxtrader.printable import shown

COMPUTE_DTYPES = ("float32", "bfloat16")
MAX_LAYERS, MAX_WIDTH = 64, 2**16  # of hidden layers and of encoders, far beyond what learns
HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = 2**0.5, 0.01, 1.0  # of the orthogonal initialisation


class ActorCritic(nn.Module):
    """An actor and a critic: two tanh MLPs over the account and the encoder's output for the window.

    Attributes:
        window: bars in a window. 1 for ordinary environments.
        features: inputs of one bar.
        account: inputs from the account. 0 for ordinary environments.
        actions: what the policy's outputs stand for. Continuous actions also have a parameter `log_std`.
        hidden: widths of the hidden layers.
        encoder, encoder_width, encoder_depth: see encoders.py. "mlp" has neither width nor depth.
        compute_dtype: number format of the encoder and the hidden layers. Weights, contexts, the account's part of the
            first layer, outputs and values are float32.
    """

    window: int
    features: int
    account: int
    actions: ActionSpec
    hidden: tuple[int, ...] = (64, 64)
    encoder: encoders.Kind | Own = "mlp"
    encoder_width: int = 32
    encoder_depth: int | None = None
    compute_dtype: str = "float32"

    def setup(self) -> None:
        """Declare the layers. Their kernels are orthogonal at first."""
        self.trunk = self.make_encoder()
        self.encoded = self.trunk.output_width(self.features)
        inputs, width = self.encoded + self.account, self.hidden[0]

        def first_kernel(key: Array, shape: tuple[int, int]) -> Array:
            orthogonal = nn.initializers.orthogonal(HIDDEN_GAIN)
            return jnp.concatenate([orthogonal(k, (inputs, width)) for k in jax.random.split(key)], -1)

        # One matrix for both MLPs: the actor's columns, then the critic's.
        self.first_kernel = self.param("first_kernel", first_kernel, (inputs, 2 * width))
        self.first_bias = self.param("first_bias", nn.initializers.zeros, (2 * width,))
        # The later layers of the actor, and of the critic.
        self.torsos = [[self._dense(width) for width in self.hidden[1:]] for _ in range(2)]
        self.policy = nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(POLICY_GAIN))
        self.critic = nn.Dense(1, kernel_init=nn.initializers.orthogonal(VALUE_GAIN))
        if self.actions.continuous:
            self.log_std = self.param("log_std", nn.initializers.zeros, (self.outputs,))

    @nn.nowrap
    def make_encoder(self) -> encoders.Encoder:
        """Return the encoder, apart from any weights."""
        return encoders.make_encoder(self.encoder, self.window, self.encoder_width, self.encoder_depth)

    @nn.nowrap
    def _dense(self, width: int) -> nn.Dense:
        return nn.Dense(width, dtype=self.compute_dtype, kernel_init=nn.initializers.orthogonal(HIDDEN_GAIN))

    @property
    def outputs(self) -> int:
        """The numbers of the policy's last layer."""
        return self.actions.size

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Return the contexts of the windows that end at bars window-1, window, ... of each chunk."""
        bars = chunk.reshape(*chunk.shape[:-2], -1).astype(self.compute_dtype)
        return (
            matmul(self.trunk(bars), self.first_kernel[: self.encoded]).astype(self.first_bias.dtype) + self.first_bias
        )

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c actions"], Float[Array, "*c"]]:
        """Return the policy's outputs (logits or means) and the value.

        The context broadcasts against the account's leading axes.
        """
        hidden = context
        if account is not None:
            flat = account.reshape(*account.shape[:-2], -1)
            hidden = hidden + matmul(flat, self.first_kernel[self.encoded :])
        batch = hidden.shape[:-1]
        hidden = jnp.tanh(hidden).reshape(-1, hidden.shape[-1])  # see `matmul`
        actor, critic = jnp.split(hidden, 2, -1)
        for layer in self.torsos[0]:
            actor = jnp.tanh(layer(actor))
        for layer in self.torsos[1]:
            critic = jnp.tanh(layer(critic))
        return self.policy(actor).reshape(*batch, -1), self.critic(critic).reshape(batch)

    def __call__(self, chunk: Any, account: Any) -> tuple[Array, Array]:
        """Return outputs and values of every decision of a chunk. Flax traces this to initialise the weights."""
        return self.head(self.encode(chunk), account)

    @nn.nowrap
    def head_activations(self, decisions: int) -> int:
        """Return how many numbers the hidden layers of actor and critic keep for so many decisions."""
        return 2 * decisions * sum(self.hidden)

    @nn.nowrap
    def tradable(self, account: Array | None) -> Bool[Array, "*c assets"] | None:
        """Return a mask of the assets whose actions count. None: all count."""
        return None

    @property
    def initial_assets(self) -> int:
        """The number of assets on which the weights are made. They are shared between assets."""
        return 1

    @nn.nowrap
    def constant(self, weights: Mapping[str, Any], outputs: Float[Array, " n"]) -> dict[str, Any]:
        """Return the weights with a last layer that gives the same outputs for all that it sees."""
        kernel = jnp.zeros_like(weights["policy"]["kernel"])
        return {**weights, "policy": {"kernel": kernel, "bias": outputs.astype(kernel.dtype)}}

    @nn.nowrap
    def fresh(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Return initial weights, in float32."""
        chunk = jnp.zeros((1, self.window, self.initial_assets, self.features))
        account = jnp.zeros((1, 1, self.initial_assets, self.account)) if self.account else None
        return cast(dict[str, Any], self.init(key, chunk, account))["params"]


def check_layers(hidden: Any, encoder: Any, encoder_width: Any, encoder_depth: Any, compute_dtype: Any) -> None:
    """Raise ValueError, in the words of PPOAgent, where these settings make no network.

    Raises TypeError where the encoder is of another kind than a name, and no Flax module.
    """
    if not isinstance(hidden, tuple):  # static fields need a hash, which a list does not have
        raise ValueError(f"PPOAgent(hidden={hidden!r}) must be a tuple of widths such as (64, 64)")
    if not 1 <= len(hidden) <= MAX_LAYERS or not all(_is_count(width, MAX_WIDTH) for width in hidden):
        raise ValueError(
            f"PPOAgent(hidden={shown(hidden)}) needs at least one layer and at most {MAX_LAYERS}, each at least 1 wide "
            f"and at most {MAX_WIDTH:,}"
        )
    kinds = get_args(encoders.Kind)
    if isinstance(encoder, str) and encoder not in kinds:
        raise ValueError(f"PPOAgent(encoder={shown(encoder)!r}) is unknown; use one of {', '.join(kinds)}")
    if not isinstance(encoder, str):
        own(encoder)
    unit = HEAD_WIDTH if encoder == "attention" else 1
    if not _is_count(encoder_width, MAX_WIDTH) or encoder_width % unit:
        raise ValueError(
            f"PPOAgent(encoder_width={encoder_width}) must be a whole number, at least 1 and at most {MAX_WIDTH:,}"
            + f"; of attention a multiple of {unit}" * (unit > 1)
        )
    if encoder_depth is not None and not _is_count(encoder_depth, MAX_LAYERS):
        raise ValueError(
            f"PPOAgent(encoder_depth={encoder_depth}) must be None or a whole number, at least 1 and at most "
            f"{MAX_LAYERS}"
        )
    if compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(f"PPOAgent(compute_dtype={shown(compute_dtype)!r}) is unknown; use 'float32' or 'bfloat16'")


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= most
