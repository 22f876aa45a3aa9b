"""A Flax module of the user's own as the whole network: from a window and an account to outputs and a value."""

from __future__ import annotations

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.layers import windows_of
from jaxtrader.agents.networks import ActorCritic
from jaxtrader.agents.own_encoder import Own, operations


class OwnActorCritic(ActorCritic):
    """An actor and a critic that are one module of the user's own.

    The module is called as `module(window, account)` and returns `(outputs, value)`:

    - `window`: `[n, window, features]` float32, normalised, oldest bar first. In an ordinary environment it is the
      observation, with a window of 1.
    - `account`: `[n, K]` float32, in the order of `TradingEnv.account_names`. K is 0 in an ordinary environment.
    - `outputs`: `[n, actions]`: logits of positions, or the mean of continuous positions.
    - `value`: `[n]`.

    The windows of a path are copied for each of its accounts. An encoder of one's own does not need that.

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

    def encode(self, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions context"]:
        """Return the windows that end at bars window-1, window, ... of each chunk, each as one row of numbers."""
        windows = windows_of(chunk.reshape(*chunk.shape[:-2], -1), self.window)
        return windows.reshape(*windows.shape[:-2], -1)

    def head(
        self, context: Float[Array, "*b context"], account: Float[Array, "*c assets K"] | None
    ) -> tuple[Float[Array, "*c actions"], Float[Array, "*c"]]:
        """Return the policy's outputs and the value. The context broadcasts against the account's leading axes."""
        seen = jnp.zeros((*context.shape[:-1], 0)) if account is None else account.reshape(*account.shape[:-2], -1)
        batch = jnp.broadcast_shapes(context.shape[:-1], seen.shape[:-1])
        windows = jnp.broadcast_to(context, (*batch, context.shape[-1]))
        seen = jnp.broadcast_to(seen, (*batch, seen.shape[-1]))
        outputs, value = self.own(windows.reshape(-1, self.window, self.features), seen.reshape(-1, seen.shape[-1]))
        return outputs.reshape(*batch, self.outputs), value.reshape(batch)

    @nn.nowrap
    def head_activations(self, decisions: int) -> int:
        """Return how many numbers the module's operations give for so many decisions."""
        return decisions * operations(self._of_user, self._inputs(1))

    @nn.nowrap
    def _inputs(self, count: int) -> tuple[Array, Array]:
        return jnp.zeros((count, self.window, self.features)), jnp.zeros((count, self.account))

    @nn.nowrap
    def check(self) -> None:
        """Raise ValueError where the module does not give outputs and values of these shapes, or none that are finite.

        It is called once, on random windows and weights.
        """
        with jax.ensure_compile_time_eval():  # also where a training is being traced
            self._check()

    @nn.nowrap
    def _check(self) -> None:
        assert self.module is not None
        name, rng = self.module.name, np.random.default_rng(0)
        inputs = tuple(jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in self._inputs(3))
        wanted = f"(outputs [n, {self.outputs}], value [n])"
        try:
            given: Any = self._of_user.init_with_output(jax.random.key(0), *inputs)[0]
        except (TypeError, ValueError, IndexError, flax.errors.FlaxError) as error:
            raise ValueError(
                f"{name} cannot be called with a window [n, {self.window}, {self.features}] and an account "
                f"[n, {self.account}]: {error}"
            ) from error
        shapes = (
            [getattr(x, "shape", None) for x in given] if isinstance(given, tuple) else [getattr(given, "shape", 0)]
        )
        if shapes != [(3, self.outputs), (3,)]:
            raise ValueError(f"{name} gives the shapes {shapes} for 3 decisions; it must return {wanted}")
        if not all(np.isfinite(x).all() for x in given):
            raise ValueError(f"{name} gives numbers that are not finite for random bars")
