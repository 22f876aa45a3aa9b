"""What PPO learns and remembers between updates."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.action_spec import Bounds
from jaxtrader.agents.networks import ActorCritic, PortfolioActorCritic
from jaxtrader.agents.normalization import Normalizer, RunningNormalizer, ValueScale
from jaxtrader.agents.own_modules import OwnPortfolio


class PPOState(struct.PyTreeNode):
    """The state of PPO. `network`, `obs_ndim` and `decision_every` are static.

    Attributes:
        params: the network's weights, and `log_std` of continuous actions.
        opt_state: Adam's moments. None in a state that was read from a policy file.
        learning_rate: the rate in force.
        value_scale: the units of the critic.
        normalizer: scales market features, and is None until `PPOAgent.prepare` fits it. Otherwise it scales ordinary
            observations, and is None where they are not normalised.
        network: the network whose weights `params` are.
        obs_ndim: number of axes of one ordinary observation.
        bounds: bounds of a box of actions. None for other actions.
        decision_every: bars between two decisions on a market path.
    """

    params: Any
    opt_state: Any
    learning_rate: Float[Array, ""]
    value_scale: ValueScale
    normalizer: Normalizer | RunningNormalizer | None
    network: ActorCritic = struct.field(pytree_node=False)
    obs_ndim: int = struct.field(pytree_node=False, default=1)
    bounds: Bounds | None = None
    decision_every: int = struct.field(pytree_node=False, default=1)

    def for_assets(self, assets: int) -> PPOState:
        """Return the same policy over so many assets. Only a portfolio's network takes another number.

        Raises ValueError where that is a module of the user's own, whose weights are for another number.
        """
        if assets == self.network.actions.size:
            return self
        bounds = self.bounds
        if bounds is not None:
            low, high = (jnp.broadcast_to(x[:1], (assets,)) for x in bounds)
            bounds = (low, high)
        network = self.network.clone(actions=self.network.actions.for_assets(assets))
        if isinstance(network, OwnPortfolio):
            network.check_weights(self.params)
        return self.replace(network=network, bounds=bounds)

    def normalized(self, window: Float[Array, "*b bar A F"]) -> Float[Array, "*b bar A F"]:
        """Return raw features as the network sees them: as `normalize` gives them for the arrays of a whole market."""
        known = jnp.isfinite(window).all(-1, keepdims=True)
        if self.normalizer is not None:
            window = self.normalizer(window)
        return jnp.where(known, window, 0) if isinstance(self.network, PortfolioActorCritic) else window
