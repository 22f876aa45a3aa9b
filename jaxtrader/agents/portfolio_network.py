"""The network of a portfolio: one encoder and one head for all assets, which know of each other by means over assets.

All weights are shared between the assets. So a permutation of the assets permutes the actions, and the number of assets
may change. Assets that cannot be traded at a bar are left out of every mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.agents.layers import matmul
from jaxtrader.agents.networks import HIDDEN_GAIN, POLICY_GAIN, ActorCritic


class PortfolioActorCritic(ActorCritic):
    """A score for each asset from its window, its account and the mean over assets, and one value from means.

    This is the form of deep sets (Zaheer et al. 2017, https://arxiv.org/abs/1703.06114). The first hidden layer is each
    asset's own. The next layer of the actor sees it and its mean over assets, and the critic sees the mean alone.
    Weights of a portfolio are the softmax of the assets' scores and of a score for cash. Only differences count there,
    so the head returns each score less that of cash.

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
