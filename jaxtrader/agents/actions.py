"""What an agent's actions are: their kind, number and shape, read from an environment, and the distribution over them.

Static, so that it can say how a network's output is read; only the bounds of a box are data, since an environment may
derive them from its parameters. What an action does is the environment's business.
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

Kind = Literal["discrete", "box", "simplex"]
Bounds = tuple[Float[Array, "n"], Float[Array, "n"]]

# Of weights' x: 1e-4 of all is left beyond. There is nothing to gain there, and no way to come back.
MEAN_LIMIT = 10.0
MEAN_GAIN = 2.0  # of weights' outputs, which have a long way to go
# Deviations by which a box's mean may be beyond a bound, at -1 or 1: 2% of the draws are within then, and tell of it.
# With a fixed limit of 3, one that went there while the deviation was wide did not come back when it was narrow.
BEYOND = 2.0
LOG_STD_LIMIT = 4.0
COARSE = 1e-4  # of a box's range: what float32 may round its actions to


@dataclass(frozen=True)
class Actions:
    """The actions of an environment.

    Attributes:
        kind: "discrete" (one of `size`), "box" (`size` numbers within bounds) or "simplex" (`size` weights, at least 0,
            that sum to at most 1).
        size: the network's outputs.
        shape: of one action; () for a number.
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
        """Whether there are densities instead of probabilities, and a deviation."""
        return self.kind != "discrete"

    def distribution(
        self,
        outputs: Float[Array, "*b n"],
        log_std: Array | None,
        bounds: Bounds | None,
        free: Bool[Array, "*b n"] | None = None,
    ) -> Distribution:
        """The distribution that a network's outputs stand for; mean and deviation are softly bounded.

        One deviation stands for all numbers. `free`: see distributions.py.

        A mean far outside the bounds would be a policy that no gradient can bring back, and log densities that
        overflow.
        """
        if log_std is None:
            return Categorical(outputs)
        log_std = jnp.broadcast_to(_bounded(log_std, LOG_STD_LIMIT), (self.size,))
        if bounds is None:
            return SimplexNormal(_bounded(MEAN_GAIN * outputs, MEAN_LIMIT), log_std, free)
        return CensoredNormal(_near_the_box(outputs, log_std), log_std, *bounds, free)

    def to_env(self, action: Array) -> Array:
        """Actions as the environment takes them, `[*b, *shape]`, from what a distribution drew."""
        return action.reshape(*action.shape[:-1], *self.shape) if self.continuous else action

    def of(self, assets: int) -> Actions:
        """The same for so many assets: one number for each."""
        return Actions(self.kind, assets, (assets,))

    def from_env(self, action: Array) -> Array:
        """The inverse of `to_env`."""
        if not self.continuous:
            return action
        return action.reshape(*action.shape[: action.ndim - len(self.shape)], self.size)


def actions_of(env: Any, params: Any) -> tuple[Actions, Bounds | None]:
    """The actions of an environment, and the bounds of a box.

    Raises ValueError where they are neither discrete nor within finite bounds.
    """
    if hasattr(env, "advance"):
        if isinstance(env.positions, tuple):
            return Actions("discrete", env.num_actions), None
        count, most = env.num_actions, env.max_leverage
        bounds = None if env.positions == "weights" else (jnp.full(count, -most), jnp.full(count, most))
        return Actions("box" if bounds else "simplex", count, (count,)), bounds
    space = env.action_space(params)
    if hasattr(space, "n"):
        return Actions("discrete", space.n), None
    if not all(hasattr(space, name) for name in ("low", "high", "shape")):
        raise ValueError(f"PPOAgent needs discrete actions or a Box, {env.name} has a {type(space).__name__}")
    shape = tuple(space.shape)
    low, high = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape).reshape(-1) for x in (space.low, space.high))
    check_bounds((low, high))
    return Actions("box", math.prod(shape), shape), (low, high)


def check_bounds(bounds: Bounds | None) -> None:
    """Raise ValueError where a box has no finite bounds; what is traced cannot be looked at and passes."""
    if bounds is None or any(isinstance(x, jax.core.Tracer) for x in bounds):
        return
    low, high = (np.asarray(x, np.float32) for x in bounds)
    with np.errstate(over="ignore", invalid="ignore"):
        bad = ~(np.isfinite(high - low) & (high > low))
        coarse = np.spacing(np.maximum(np.abs(low), np.abs(high))) > COARSE * (high - low)
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
    """The parameter that `Actions.distribution` reads as this logarithm of a deviation, below LOG_STD_LIMIT."""
    return LOG_STD_LIMIT * jnp.arctanh(log_std / LOG_STD_LIMIT)


def _near_the_box(x: Float[Array, "*b n"], log_std: Float[Array, "n"]) -> Float[Array, "*b n"]:
    """x within [-1, 1]; outside never as far as BEYOND deviations, with a slope that falls as 1 / distance^2."""
    room = BEYOND * jax.lax.stop_gradient(jnp.exp(log_std))
    over = jnp.maximum(jnp.abs(x) - 1, 0)
    return jnp.clip(x, -1, 1) + jnp.sign(x) * room * over / (room + over)


def _bounded(x: Array, limit: float) -> Array:
    """x where it is small, within +-limit everywhere, with a gradient that never quite vanishes."""
    return limit * jnp.tanh(x / limit)
