"""The actions of an environment, as an agent sees them, and the distribution that a network's outputs stand for.

The spec is static, so that it can say how a network's output is read. Only the bounds of a box are data, since an
environment may derive them from its parameters. What an action does is the environment's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.agents.distributions import Categorical, CensoredNormal, Distribution, SimplexNormal
from jaxtrader.envs.protocols import BoxSpace, DiscreteSpace
from jaxtrader.envs.trading import TradingEnv

Kind = Literal["discrete", "box", "simplex"]
Bounds = tuple[Float[Array, " n"], Float[Array, " n"]]

# Limit of the mean of a simplex's x. At the limit 1e-4 of the portfolio is elsewhere: there is nothing to gain beyond
# it, and no way to come back.
MEAN_LIMIT = 10.0
MEAN_GAIN = 2.0  # of a simplex's outputs, since its means have a long way to go
# Deviations by which the mean of a box may lie outside a bound. At 2 deviations 2% of the draws are inside, and their
# rewards lead back. With a fixed limit a mean that left while the deviation was wide did not return when it was narrow.
MAX_DEVIATIONS_OUTSIDE = 2.0
LOG_STD_LIMIT = 4.0
MAX_ROUNDING = 1e-4  # of a box's range: float32 may round its actions by that much


@dataclass(frozen=True)
class ActionSpec:
    """The actions of an environment.

    Attributes:
        kind: "discrete" is one of `size` actions. "box" is `size` numbers within bounds. "simplex" is `size` weights
            from 0 that sum to at most 1.
        size: number of the network's outputs.
        shape: shape of one action. () for a number.
    """

    kind: Kind
    size: int
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.size < 1:
            raise ValueError(f"actions of kind {self.kind!r} and size {self.size} are unknown")
        if self.kind != "discrete" and math.prod(self.shape) != self.size:
            raise ValueError(f"actions of shape {self.shape} are not {self.size} numbers")

    @property
    def continuous(self) -> bool:
        """Whether actions have densities and a standard deviation, instead of probabilities."""
        return self.kind != "discrete"

    def distribution(
        self,
        outputs: Float[Array, "*b n"],
        log_std: Array | None,
        bounds: Bounds | None,
        action_mask: Bool[Array, "*b n"] | None = None,
    ) -> Distribution:
        """Return the distribution that a network's outputs stand for.

        Mean and deviation are softly bounded. No gradient could bring back a policy whose mean is far outside the
        bounds, and log densities would overflow there.

        Args:
            outputs: logits or means.
            log_std: one logarithm of a standard deviation for all dimensions, as a parameter. None where actions are
                discrete.
            bounds: lower and upper bounds of a box. None for other kinds.
            action_mask: see distributions.py.
        """
        if log_std is None:
            return Categorical(outputs)
        log_std = jnp.broadcast_to(_soft_limit(log_std, LOG_STD_LIMIT), (self.size,))
        if bounds is None:
            return SimplexNormal(_soft_limit(MEAN_GAIN * outputs, MEAN_LIMIT), log_std, action_mask)
        return CensoredNormal(_near_the_box(outputs, log_std), log_std, *bounds, action_mask)

    def to_env(self, action: Array) -> Array:
        """Return a distribution's draw as the environment takes it, `[*b, *shape]`."""
        return action.reshape(*action.shape[:-1], *self.shape) if self.continuous else action

    def from_env(self, action: Array) -> Array:
        """Return the inverse of `to_env`."""
        if not self.continuous:
            return action
        return action.reshape(*action.shape[: action.ndim - len(self.shape)], self.size)

    def for_assets(self, assets: int) -> ActionSpec:
        """Return the same kind of actions for so many assets, with one number for each."""
        return ActionSpec(self.kind, assets, (assets,))


def action_spec_of(env: Any, params: Any) -> tuple[ActionSpec, Bounds | None]:
    """Return the actions of an environment, and the bounds where they are a box.

    Raises ValueError where actions are neither discrete nor within finite bounds.
    """
    if isinstance(env, TradingEnv):
        count = env.num_actions
        if isinstance(env.positions, tuple):
            return ActionSpec("discrete", count), None
        if env.positions == "weights":
            return ActionSpec("simplex", count, (count,)), None
        limit = jnp.full(count, env.rules.max_leverage)
        return ActionSpec("box", count, (count,)), (-limit, limit)
    space = env.action_space(params)
    if isinstance(space, DiscreteSpace):
        return ActionSpec("discrete", space.n), None
    if not isinstance(space, BoxSpace):
        raise ValueError(f"PPOAgent needs discrete actions or a Box, {env.name} has a {type(space).__name__}")
    shape = tuple(space.shape)
    low, high = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape).reshape(-1) for x in (space.low, space.high))
    check_bounds((low, high))
    return ActionSpec("box", math.prod(shape), shape), (low, high)


def check_bounds(bounds: Bounds | None) -> None:
    """Raise ValueError where a box has no finite bounds. Traced bounds have no values yet, so they pass."""
    if bounds is None or any(isinstance(x, jax.core.Tracer) for x in bounds):
        return
    low, high = (np.asarray(x, np.float32) for x in bounds)
    with np.errstate(over="ignore", invalid="ignore"):
        bad = ~(np.isfinite(high - low) & (high > low))
        coarse = np.spacing(np.maximum(np.abs(low), np.abs(high))) > MAX_ROUNDING * (high - low)
    if bad.any():
        i = int(np.argmax(bad))
        raise ValueError(
            f"PPOAgent needs actions within finite bounds, not [{low[i]:g}, {high[i]:g}]; wrap the environment so that "
            "its Box has a finite low below a finite high"
        )
    if coarse.any():
        i = int(np.argmax(coarse))
        raise ValueError(
            f"PPOAgent cannot tell the actions within [{low[i]:.8g}, {high[i]:.8g}] apart in float32; wrap the "
            "environment so that its Box is nearer to 0"
        )


def log_std_parameter(log_std: Float[Array, ""] | float) -> Float[Array, ""]:
    """Return the parameter that `ActionSpec.distribution` reads as this logarithm of a standard deviation.

    The logarithm must be below LOG_STD_LIMIT.
    """
    return LOG_STD_LIMIT * jnp.arctanh(log_std / LOG_STD_LIMIT)


def _near_the_box(x: Float[Array, "*b n"], log_std: Float[Array, " n"]) -> Float[Array, "*b n"]:
    """Return x within [-1, 1]. Outside it is drawn in to less than MAX_DEVIATIONS_OUTSIDE beyond the bound.

    The slope falls as 1 / distance^2 there.
    """
    room = MAX_DEVIATIONS_OUTSIDE * jax.lax.stop_gradient(jnp.exp(log_std))
    excess = jnp.maximum(jnp.abs(x) - 1, 0)
    return jnp.clip(x, -1, 1) + jnp.sign(x) * room * excess / (room + excess)


def _soft_limit(x: Array, limit: float) -> Array:
    """Return about x where it is small, within +-limit everywhere, with a gradient that never quite vanishes."""
    return limit * jnp.tanh(x / limit)
