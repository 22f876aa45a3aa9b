"""The network of a portfolio: one encoder and one head for every asset, which know of each other by means over assets.

All weights are shared, so permuting the assets permutes the actions, and any number of assets will do. Assets that
cannot be traded at a bar are left out of every mean. The interface is `ActorCritic`'s: contexts once per bar, and a
head per account.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.agents.encoders import matmul
from jaxtrader.agents.networks import ACTIVATIONS, ActorCritic


class PortfolioActorCritic(ActorCritic):
    """A score an asset from (its window, its account, the mean over assets), and a value from means (deep sets).

    The form of Zaheer et al. 2017 (https://arxiv.org/abs/1703.06114): the first hidden layer is each asset's own; the
    actor's next one sees it and its mean over assets, the critic only the mean. Weights in a portfolio are the softmax
    of the scores and of one for cash, which is read from the mean of the actor's last layer; since only differences
    count there, what the head gives is each score less that of cash.

    Attributes:
        features: inputs a bar and asset.
        account: inputs from one asset's account; a further one is no input but says which assets are tradable.
        actions: one an asset. `log_std` is one number for all.
    """

    def setup(self) -> None:
        """Those of `ActorCritic`, the actor's look at the mean, and the score of cash."""
        super().setup()
        gain, width = (2**0.5, self.hidden[1]) if len(self.hidden) > 1 else (0.01, 1)
        dtype = self.compute_dtype if len(self.hidden) > 1 else None
        self.others = nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=nn.initializers.orthogonal(gain))
        if self.actions.kind == "simplex":
            self.cash = nn.Dense(1, kernel_init=nn.initializers.orthogonal(0.01))

    @property
    def outputs(self) -> int:
        """One score, of whichever asset."""
        return 1

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Contexts of all assets, side by side, of the windows that end at bars window-1, window, ... of each chunk."""
        each = super().encode(jnp.moveaxis(chunk, -2, -3)[..., None, :])
        context = jnp.moveaxis(each, -3, -2)
        return context.reshape(*context.shape[:-2], -1)

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c assets"], Float[Array, "*c"]]:
        """The means of the assets' actions, and the value. `context` broadcasts against the account's leading axes."""
        assert account is not None
        assets, activate = account.shape[-2], ACTIVATIONS[self.activation]
        tradable = self.tradable(account)
        context = context.reshape(*context.shape[:-1], assets, -1)
        hidden = context + matmul(account[..., : self.account], self.first_kernel[self.seen :])
        batch = hidden.shape[:-2]
        hidden = activate(hidden).reshape(-1, hidden.shape[-1])  # rows of (account, asset), see `matmul`
        listed = None if tradable is None else jnp.broadcast_to(tradable, (*batch, assets)).reshape(-1, assets)
        own, *critics = jnp.split(hidden, len(self.torsos), -1)
        shared = _to_each(self.others(_mean(own, assets, listed)), assets)
        if self.torsos[0]:
            first, *later = self.torsos[0]
            last = activate(first(own) + shared)
            for layer in later:
                last = activate(layer(last))
            scores = self.policy(last)
        else:
            last, scores = own, self.policy(own) + shared
        scores = scores.reshape(-1, assets)
        if self.actions.kind == "simplex":
            scores = scores - self.cash(_mean(last, assets, listed))

        seen = _mean(critics[0] if critics else last, assets, listed)
        for layer in self.torsos[1] if critics else ():
            seen = activate(layer(seen))
        return scores.reshape(*batch, assets), self.critic(seen).reshape(batch)

    @nn.nowrap
    def tradable(self, account: Array | None) -> Bool[Array, "*c assets"] | None:
        """The assets whose actions count, by the feature that follows the inputs; None where there is none: all."""
        assert account is not None
        return None if account.shape[-1] == self.account else account[..., self.account] > 0.5


def _mean(
    rows: Float[Array, "n*assets width"], assets: int, listed: Bool[Array, "n assets"] | None
) -> Float[Array, "n width"]:
    """The mean over the assets that are listed, 0 where none is; in float32."""
    each = rows.reshape(-1, assets, rows.shape[-1]).astype(jnp.float32)
    if listed is None:
        return each.mean(1)
    share = listed / jnp.maximum(listed.sum(-1, keepdims=True), 1)
    return (each * share[..., None]).sum(1)


def _to_each(x: Float[Array, "n width"], assets: int) -> Float[Array, "n*assets width"]:
    """The same row for every asset."""
    return jnp.broadcast_to(x[:, None], (len(x), assets, x.shape[-1])).reshape(-1, x.shape[-1])
