"""A Flax module of the user's own as the whole network: from a window and an account to outputs and a value."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.layers import windows_of
from jaxtrader.agents.networks import ActorCritic
from jaxtrader.agents.own_encoder import SAME, Own, called, check_numbers, fresh_weights, operations
from jaxtrader.agents.portfolio_network import PortfolioActorCritic

ROWS = ((0, 1, 2), (0, 3, 1))  # of four decisions: twice three, in which two have other neighbours


class OwnActorCritic(ActorCritic):
    """An actor and a critic that are one module of the user's own.

    The module is called as `module(window, account)` and returns `(outputs, value)`, each row from its own inputs:

    - `window`: `[n, window, features]` float32, normalised, oldest bar first. In an ordinary environment it is the
      observation, with a window of 1.
    - `account`: `[n, K]` float32, in the order of `TradingEnv.account_names`. K is 0 in an ordinary environment.
    - `outputs`: `[n, actions]`: logits of positions, or the mean of continuous positions.
    - `value`: `[n]`.

    A portfolio has an axis of assets, see `OwnPortfolio`. The windows of a path are copied for each of its accounts. An
    encoder of one's own does not need that. All that is kept of the module is its weights, in float32.

    Attributes:
        module: the holder of the user's module. The settings of layers and encoders mean nothing beside it.
    """

    module: Own | None = None

    @property
    def _of_user(self) -> nn.Module:
        assert self.module is not None
        return self.module.module

    def setup(self) -> None:
        """Declare the module, and the deviation of continuous actions."""
        self.own = self._of_user.clone()
        if self.actions.continuous:
            self.log_std = self.param("log_std", nn.initializers.zeros, (self.outputs,))

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of one decision's window, and of its account."""
        return (self.window, self.features), (self.account,)

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Return the windows that end at bars window-1, window, ... of each chunk, each as one row of numbers."""
        windows = windows_of(chunk.reshape(*chunk.shape[:-2], -1), self.window)
        return windows.reshape(*windows.shape[:-2], -1)

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c actions"], Float[Array, "*c"]]:
        """Return the policy's outputs and the value. The context broadcasts against the account's leading axes."""
        seen = jnp.zeros((*context.shape[:-1], 0), jnp.float32) if account is None else self.account_row(account)
        batch = jnp.broadcast_shapes(context.shape[:-1], seen.shape[:-1])
        inputs = [
            jnp.broadcast_to(x, (*batch, x.shape[-1])).reshape(math.prod(batch), *axes)  # an axis may be of length 0
            for x, axes in zip((context, seen), self.axes, strict=True)
        ]
        outputs, value = (x.astype(jnp.float32) for x in self.own(*inputs))
        return outputs.reshape(*batch, self.actions.size), value.reshape(batch)

    @nn.nowrap
    def account_row(self, account: Float[Array, "*c assets K"]) -> Float[Array, "*c row"]:
        """Return the numbers of an account as one row."""
        return account.reshape(*account.shape[:-2], -1)

    @nn.nowrap
    def constant(self, weights: Any, outputs: Array) -> Any:
        """Raise ValueError: nobody knows the module's last layer."""
        raise ValueError("a network of one's own cannot be made to hold, since its last layer is unknown")

    @nn.nowrap
    def head_activations(self, decisions: int) -> int:
        """Return how many numbers the module's inputs and operations have for so many decisions."""
        inputs = self._inputs(1)
        return decisions * (operations(self._of_user, inputs) + sum(x.size for x in inputs))

    @nn.nowrap
    def _inputs(self, count: int) -> tuple[Array, ...]:
        return tuple(jnp.zeros((count, *axes), jnp.float32) for axes in self.axes)

    @nn.nowrap
    def check(self) -> None:
        """Raise ValueError where the module does not give outputs and values of these shapes, or none that are finite.

        Also where a row of them depends on other rows, which are other bars, or the module needs more than weights. It
        is called twice, on random windows and weights.
        """
        with jax.ensure_compile_time_eval():  # also where a training is being traced
            self._check()

    @nn.nowrap
    def _check(self) -> None:
        assert self.module is not None
        name, rng = self.module.name, np.random.default_rng(0)
        every = [jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in self._inputs(4)]
        first, second = ([x[jnp.array(rows)] for x in every] for rows in ROWS)
        window, account = (", ".join(map(str, ("n", *axes))) for axes in self.axes)
        attempt = f"be called with a window [{window}] and an account [{account}]"
        weights = fresh_weights(self._of_user, attempt, *(x[:1] for x in first))
        if not jax.tree.leaves(weights):
            raise ValueError(f"{name} has no weights, so it cannot learn; give it layers")
        given, again = (called(self._of_user, attempt, weights, *inputs) for inputs in (first, second))
        parts = given if isinstance(given, tuple) else (given,)
        shapes = [getattr(x, "shape", None) for x in parts]
        if not isinstance(given, tuple) or shapes != [(3, self.actions.size), (3,)]:
            wanted = f"(outputs [n, {self.actions.size}], value [n])"
            raise ValueError(f"{name} gives the shapes {shapes} for 3 decisions; it must return {wanted}")
        for one, other in zip(given, again, strict=True):
            check_numbers(name, one)
            difference = float(jnp.abs(one[jnp.array([0, 1])] - other[jnp.array([0, 2])]).max())
            if difference > SAME * (1 + float(jnp.abs(one).max())):
                raise ValueError(
                    f"{name} gives another result for a decision beside other decisions (by {difference:.2g}), and "
                    "those may be of later bars; let each row depend on its own window and account alone"
                )


class OwnPortfolio(OwnActorCritic, PortfolioActorCritic):
    """An actor and a critic of several assets under one account, that are one module of the user's own.

    It is called as in `OwnActorCritic`, with an axis of assets:

    - `window`: `[n, window, assets, features]` float32, normalised, and 0 where an asset is not listed.
    - `account`: `[n, assets, K + 1]` float32. The last number is 1 where the asset can be traded now, and otherwise 0.
    - `outputs`: `[n, assets]`: of weights the scores, where cash has the score 0, or the means of exposures.
    - `value`: `[n]`.

    What is put out for an asset that cannot be traded does not count. Where the shapes of the weights do not depend on
    the number of assets, the policy decides on any number of them. `log_std` is one number for all assets.
    """

    @property
    def axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The axes of one decision's window, and of its account."""
        assets = self.actions.size
        return (self.window, assets, self.features), (assets, self.account + 1)

    @nn.nowrap
    def account_row(self, account: Float[Array, "*c assets K"]) -> Float[Array, "*c row"]:
        """Return the numbers of all assets as one row. Where all can always be traded, the account does not say so."""
        if account.shape[-1] == self.account:
            account = jnp.concatenate([account, jnp.ones_like(account[..., :1])], -1)
        return super().account_row(account)

    @property
    def initial_assets(self) -> int:
        """The weights may depend on the number of assets."""
        return self.actions.size

    @nn.nowrap
    def check_weights(self, weights: Any) -> None:
        """Raise ValueError where these weights, of another number of assets, are none of this network."""
        assert self.module is not None
        shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)  # noqa: E731
        try:
            fits = shapes(jax.eval_shape(self.fresh, jax.random.key(0))) == shapes(weights)
        except Exception:  # what the user's module raises is not known
            fits = False
        if not fits:
            raise ValueError(
                f"{self.module.name} has weights for the number of assets of its training, and there are "
                f"{self.actions.size}; give as many as in its training, or share the weights between assets"
            )
