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

from jaxtrader.agents.protocol import MarketActor

States = tuple[Any, ...]


class Ensemble(struct.PyTreeNode, MarketActor):
    """Acts with the mean exposure, or the mean weights, of its members. Its state is a tuple of theirs.

    The mean of positions such as 0 and 1 is any exposure between them. So an ensemble acts in the same environment with
    `positions="continuous"`. Members of weights are averaged as weights.

    Attributes:
        member: the agent with which each member acts, a PPOAgent or one of the user's own.
        positions: target exposures of the members' discrete actions. None: their actions are exposures or weights.
    """

    member: Any
    positions: tuple[float, ...] | None = struct.field(pytree_node=False, default=None)

    def prepare(self, state: States, env_params: Any) -> tuple[States, Any]:
        """Normalise the features as the first member does. All members were trained on the same bars."""
        return state, self.member.prepare(state[0], env_params)[1]

    def encode(self, state: States, chunk: Float[Array, "*b bars assets features"]) -> Any:
        """Return the contexts of all members, `[*b, decisions, member, ...]`."""
        return jax.vmap(self.member.encode, in_axes=(0, None), out_axes=chunk.ndim - 2)(_stacked(state), chunk)

    def act(
        self,
        state: States,
        context: Any,
        account: Float[Array, "*b A K"],
        key: PRNGKeyArray,
        deterministic: bool = False,
    ) -> tuple[Float[Array, "*b A"], dict[str, Array]]:
        """Return the means of the members' targets, and of their values and probabilities where they have any."""

        def member(state: Any, context: Any) -> tuple[Array, dict[str, Array]]:
            return self.member.act(state, context, account, key, deterministic)

        actions, about = jax.vmap(member, in_axes=(0, account.ndim - 2))(_stacked(state), context)
        if self.positions is not None:
            actions = jnp.asarray(self.positions, jnp.float32)[actions][..., None]
        return actions.mean(0), {name: about[name].mean(0) for name in ("value", "probabilities") if name in about}


def _stacked(states: States) -> Any:
    """One state with a leading axis of members. Inside jit, so that a change of the number alone compiles anew."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
