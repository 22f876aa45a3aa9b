"""Ensemble: several policies of one kind trade the mean of their targets.

A policy that was trained with one seed is one draw of many. The mean of several depends less on luck. No member is
chosen by what it earned.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.agents.protocol import MarketActor

States = tuple[PPOState, ...]


class Ensemble(struct.PyTreeNode, MarketActor):
    """Acts with the mean exposure, or the mean weights, of its members. Its state is a tuple of theirs.

    The mean of positions such as 0 and 1 is any exposure between them. So an ensemble acts in the same environment with
    `positions="continuous"`. Members of weights are averaged as weights.

    Attributes:
        member: the agent with which each member acts.
        positions: target exposures of the members' discrete actions. None: their actions are exposures or weights.
    """

    member: PPOAgent
    positions: tuple[float, ...] | None = struct.field(pytree_node=False, default=None)

    def prepare(self, state: States, env_params: Any) -> tuple[States, Any]:
        """Normalise the features as the first member does. All members were trained on the same bars."""
        return state, self.member.prepare(state[0], env_params)[1]

    def encode(self, state: States, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b decisions W"]:
        """Return the contexts of all members, one after the other on the last axis."""
        contexts = jax.vmap(self.member.encode, in_axes=(0, None), out_axes=-2)(_stacked(state), chunk)
        return contexts.reshape(*contexts.shape[:-2], -1)

    def act(
        self,
        state: States,
        context: Float[Array, "*b W"],
        account: Array,
        key: PRNGKeyArray,
        deterministic: bool = False,
    ) -> tuple[Float[Array, "*b A"], dict[str, Array]]:
        """Return the mean of the members' targets, and the mean of their values. There is no `log_prob`."""

        def member(state: PPOState, context: Array) -> tuple[Array, dict[str, Array]]:
            return self.member.act(state, context, account, key, deterministic)

        contexts = context.reshape(*context.shape[:-1], len(state), -1)
        actions, about = jax.vmap(member, in_axes=(0, -2))(_stacked(state), contexts)
        if self.positions is not None:
            actions = jnp.asarray(self.positions, jnp.float32)[actions][..., None]
        return actions.mean(0), {"value": about["value"].mean(0)}


def _stacked(states: States) -> PPOState:
    """One state with a leading axis of members. Inside jit, so that a change of the number alone compiles anew."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
