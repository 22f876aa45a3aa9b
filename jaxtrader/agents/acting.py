"""Lets a plain `Agent` act on market paths, as backtests and validations ask for it."""

from __future__ import annotations

from typing import Any

from flax import struct
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.agents.layers import windows_of
from jaxtrader.agents.protocol import Agent, MarketActor
from jaxtrader.envs.observation import Observation


class WindowActor(struct.PyTreeNode, MarketActor):
    """Acts as an agent that has no encoder of its own: each decision is `select_action` on its whole window.

    Attributes:
        agent: the agent.
        window: bars that a decision sees.
    """

    agent: Any
    window: int = struct.field(pytree_node=False)

    def prepare(self, state: Any, env_params: Any) -> tuple[Any, Any]:
        """Return what the agent prepares."""
        return self.agent.prepare(state, env_params)

    def encode(self, state: Any, chunk: Float[Array, "*b bars A F"]) -> Float[Array, "*b decisions W A F"]:
        """Return the windows of all decisions."""
        flat = chunk.reshape(*chunk.shape[:-2], -1)
        windows = windows_of(flat, self.window)
        return windows.reshape(*windows.shape[:-1], *chunk.shape[-2:])

    def act(
        self, state: Any, context: Array, account: Array, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Return the agent's actions."""
        return self.agent.select_action(state, Observation(context, account), key, deterministic)


def actor_of(agent: Agent | MarketActor, window: int) -> MarketActor:
    """Return the agent where it acts on market paths by itself, and otherwise a `WindowActor` around it."""
    return agent if isinstance(agent, MarketActor) else WindowActor(agent, window)
