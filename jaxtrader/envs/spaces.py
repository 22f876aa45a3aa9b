"""The spaces of a `TradingEnv`, as gymnax has them.

gymnax takes 4 s to import, so this module is loaded where a space is asked for.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from gymnax.environments.spaces import Box, Discrete
from jax import Array

from jaxtrader.envs import actions
from jaxtrader.envs.env_settings import Positions
from jaxtrader.envs.observation import BOUND


class ObservationSpace(Box):
    """The Box of the flat array that an `Observation` becomes, and the Boxes of its parts.

    Attributes:
        spaces: the Box of the `window` `[W, A, F]` and that of the `account` `[A, K]`, by name.
    """

    def __init__(self, window: tuple[int, int, int], account: tuple[int, int]) -> None:
        self.spaces = {"window": Box(-BOUND, BOUND, window), "account": Box(-BOUND, BOUND, account)}
        super().__init__(-BOUND, BOUND, (math.prod(window) + math.prod(account),))

    def contains(self, x: Any) -> Array:
        """Return whether an `Observation`, or its flat array, is within the bounds."""
        return super().contains(jnp.asarray(x))


def action_space(positions: Positions, assets: int, max_leverage: float) -> Discrete | Box:
    """Return the space of the actions: Discrete over the positions, or a Box `[A]` of exposures or weights."""
    if isinstance(positions, tuple):
        return Discrete(len(positions))
    return Box(*actions.bounds(positions, max_leverage), (assets,))
