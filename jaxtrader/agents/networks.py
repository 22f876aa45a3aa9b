"""The policy network: an encoder of the window, and MLP heads of actor and critic that also see the account.

`encode` sees the market alone, so one call serves every account of a path and every bar of a chunk. `head` is the work
that is left for each account and step. The first layer of the heads is split by the rows of its matrix. The market's
part is in the context, and `head` adds the account's part. With the encoder "mlp" this is a plain MLP over (window,
account).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.agents import encoders, ppo_settings
from jaxtrader.agents.action_spec import ActionSpec
from jaxtrader.agents.encoders import HEAD_WIDTH, matmul
from jaxtrader.printable import shown
from jaxtrader.setting_checks import check_whole, is_whole, setting

if TYPE_CHECKING:
    from jaxtrader.agents.own_modules import Own, OwnEncoder
    from jaxtrader.agents.policy_schema import NetworkPart

COMPUTE_DTYPES = get_args(ppo_settings.ComputeDtype)
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
        encoder, encoder_width, encoder_depth: see encoders.py. "mlp" and modules of the user's own have neither width
            nor depth.
        compute_dtype: number format of the encoder and the hidden layers. Weights, contexts, the account's part of the
            first layer, outputs and values are float32.
    """

    window: int
    features: int
    account: int
    actions: ActionSpec
    hidden: tuple[int, ...] = (64, 64)
    encoder: ppo_settings.Encoder | Own = "mlp"
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
    def make_encoder(self) -> encoders.Encoder | OwnEncoder:
        """Return the encoder, apart from any weights."""
        if not isinstance(self.encoder, str):
            return self.encoder.reading(self.window)
        return encoders.KINDS[self.encoder](self.window, self.encoder_width, self.encoder_depth)

    @nn.nowrap
    def check(self) -> None:
        """Raise ValueError where a module of the user's own does not fit. It is called once, on random numbers."""
        if not isinstance(self.encoder, str):
            self.encoder.reading(self.window).check(self.features)

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
        return {**weights, "policy": {"kernel": kernel, "bias": jnp.asarray(outputs, kernel.dtype)}}

    @nn.nowrap
    def fresh(self, key: PRNGKeyArray) -> dict[str, Any]:
        """Return initial weights, in float32."""
        chunk = jnp.zeros((1, self.window, self.initial_assets, self.features))
        account = jnp.zeros((1, 1, self.initial_assets, self.account)) if self.account else None
        return cast(dict[str, Any], self.init(key, chunk, account))["params"]


class PortfolioActorCritic(ActorCritic):
    """A score for each asset from its window, its account and the mean over assets, and one value from means.

    This is the form of deep sets (Zaheer et al. 2017, https://arxiv.org/abs/1703.06114). All weights are shared between
    the assets. So a permutation of the assets permutes the actions, and the number of assets may change. Assets that
    cannot be traded at a bar are left out of every mean.

    The first hidden layer is each asset's own. The next layer of the actor sees it and its mean over assets, and the
    critic sees the mean alone. Weights of a portfolio are the softmax of the assets' scores and of a score for cash.
    Only differences count there, so the head returns each score less that of cash.

    Attributes:
        features: inputs of one bar and asset.
        account: inputs from one asset's account. A further account feature is not an input: it marks tradable assets.
        actions: one number for each asset. `log_std` is one number for all.
    """

    def setup(self) -> None:
        """Declare the layers of `ActorCritic`, the actor's layer for the mean, and the score of cash."""
        super().setup()
        deep = len(self.hidden) > 1
        self.others = nn.Dense(
            self.hidden[1] if deep else 1,
            use_bias=False,
            dtype=self.compute_dtype if deep else None,
            kernel_init=nn.initializers.orthogonal(HIDDEN_GAIN if deep else POLICY_GAIN),
        )
        if self.actions.kind == "simplex":
            self.cash = nn.Dense(1, kernel_init=nn.initializers.orthogonal(POLICY_GAIN))

    @property
    def outputs(self) -> int:
        """One score, of any asset."""
        return 1

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Return contexts as `ActorCritic.encode` does, with those of all assets side by side."""
        each = super().encode(jnp.moveaxis(chunk, -2, -3)[..., None, :])
        context = jnp.moveaxis(each, -3, -2)
        return context.reshape(*context.shape[:-2], -1)

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c assets"], Float[Array, "*c"]]:
        """Return the means of the assets' actions, and the value.

        The context broadcasts against the account's leading axes.
        """
        assert account is not None
        assets, tradable = account.shape[-2], self.tradable(account)
        context = context.reshape(*context.shape[:-1], assets, -1)
        hidden = context + matmul(account[..., : self.account], self.first_kernel[self.encoded :])
        batch = hidden.shape[:-2]
        hidden = jnp.tanh(hidden).reshape(-1, hidden.shape[-1])  # rows of (account, asset), see `matmul`
        mask = None if tradable is None else jnp.broadcast_to(tradable, (*batch, assets)).reshape(-1, assets)
        actor, critic = jnp.split(hidden, 2, -1)

        others = _to_each(self.others(_mean(actor, assets, mask)), assets)
        if self.torsos[0]:
            first, *later = self.torsos[0]
            actor = jnp.tanh(first(actor) + others)
            for layer in later:
                actor = jnp.tanh(layer(actor))
            scores = self.policy(actor)
        else:
            scores = self.policy(actor) + others
        scores = scores.reshape(-1, assets)
        if self.actions.kind == "simplex":
            scores = scores - self.cash(_mean(actor, assets, mask))

        critic = _mean(critic, assets, mask)
        for layer in self.torsos[1]:
            critic = jnp.tanh(layer(critic))
        return scores.reshape(*batch, assets), self.critic(critic).reshape(batch)

    @nn.nowrap
    def tradable(self, account: Array | None) -> Bool[Array, "*c assets"] | None:
        """Return the account feature that follows the inputs, as a mask. None where there is none: all count."""
        assert account is not None
        return None if account.shape[-1] == self.account else account[..., self.account] > 0.5

    @nn.nowrap
    def constant(self, weights: Mapping[str, Any], outputs: Float[Array, " 1"]) -> dict[str, Any]:
        """Return the weights with last layers that give each asset the same output, and cash the score 0."""
        last = ("others", "cash") if len(self.hidden) == 1 else ("cash",)
        nothing = {name: jax.tree.map(jnp.zeros_like, weights[name]) for name in last if name in weights}
        return super().constant(weights, outputs) | nothing


def _mean(
    rows: Float[Array, "n*assets width"], assets: int, mask: Bool[Array, "n assets"] | None
) -> Float[Array, "n width"]:
    """Return the float32 mean over the assets in the mask. It is 0 where the mask is empty."""
    each = rows.reshape(-1, assets, rows.shape[-1]).astype(jnp.float32)
    if mask is None:
        return each.mean(1)
    share = mask / jnp.maximum(mask.sum(-1, keepdims=True), 1)
    return (each * share[..., None]).sum(1)


def _to_each(x: Float[Array, "n width"], assets: int) -> Float[Array, "n*assets width"]:
    """Return the same row for every asset."""
    return jnp.broadcast_to(x[:, None], (x.shape[0], assets, x.shape[-1])).reshape(-1, x.shape[-1])


def check_layers(settings: ppo_settings.PPOSettings | NetworkPart) -> None:
    """Raise ValueError, in the words of PPOAgent, where its settings, or those of a policy file, make no network."""
    hidden, encoder, width, depth = settings.hidden, settings.encoder, settings.encoder_width, settings.encoder_depth
    if not isinstance(hidden, tuple):  # static fields need a hash, which a list does not have
        raise ValueError(f"{setting('hidden', hidden)} must be a tuple of widths such as (64, 64)")
    if not 1 <= len(hidden) <= MAX_LAYERS or not all(is_whole(each) and 1 <= each <= MAX_WIDTH for each in hidden):
        raise ValueError(
            f"{setting('hidden', hidden)} needs at least one layer and at most {MAX_LAYERS}, each at least 1 wide and "
            f"at most {MAX_WIDTH:,}"
        )
    if isinstance(encoder, str) and encoder not in encoders.KINDS:
        raise ValueError(f"{setting('encoder', shown(encoder))} is unknown; use one of {', '.join(encoders.KINDS)}")
    unit = HEAD_WIDTH if encoder == "attention" else 1
    check_whole("encoder_width", width, 1, MAX_WIDTH)
    if width % unit:
        raise ValueError(f"{setting('encoder_width', width)} must be a multiple of {unit} for attention")
    if depth is not None:
        check_whole("encoder_depth", depth, 1, MAX_LAYERS)
    if settings.compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(
            f"{setting('compute_dtype', shown(settings.compute_dtype))} is unknown; use float32 or bfloat16"
        )
