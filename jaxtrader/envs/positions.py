"""What an action asks for: from the actions of an agent to target exposures, for each kind of `TradingEnv.positions`.

A tuple of exposures gives discrete actions, indices into it. "continuous" gives an exposure in [-1, 1] per asset,
"weights" long-only weights with the remainder in cash. What the ledger makes of a target is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.envs.ledger import MAX_LEVERAGE

Range = Literal["continuous", "weights"]
Positions = tuple[float, ...] | Range

TOLERANCE = 1e-6  # how far beyond its range an action may lie: what rounding in float32 adds to a sum


def checked(positions: Any) -> Positions:
    """The positions as they are stored. Raises ValueError where they are none."""
    if isinstance(positions, str):
        if positions not in get_args(Range):
            raise ValueError(
                f"positions {positions!r} is unknown; use 'continuous', 'weights' or exposures such as (-1, 0, 1)"
            )
        return cast(Range, positions)
    if not isinstance(positions, Iterable):
        raise ValueError(
            f"positions {positions!r} must be a tuple of exposures such as (-1, 0, 1), 'continuous' or 'weights'"
        )
    exposures = tuple(float(p) for p in positions)
    if len(set(exposures)) < 2 or len(set(exposures)) != len(exposures):
        raise ValueError(f"positions {exposures} must hold at least two exposures, none twice")
    beyond = [p for p in exposures if not abs(p) <= MAX_LEVERAGE]
    if beyond:
        raise ValueError(
            f"position {beyond[0]:g} is outside [-1, 1]: an exposure is position value / equity, unlevered"
        )
    return exposures


def space(positions: Positions, assets: int) -> Any:
    """gymnax's space of the actions: Discrete, or a Box `[A]`."""
    from gymnax.environments import spaces  # 4 s to import: only where it is used

    if isinstance(positions, tuple):
        return spaces.Discrete(len(positions))
    return spaces.Box(-MAX_LEVERAGE if positions == "continuous" else 0.0, MAX_LEVERAGE, (assets,))


def targets(
    positions: Positions, action: Array, assets: int, dtype: DTypeLike
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"]]:
    """The target exposures that actions ask for, and whether they are none; then all targets are NaN (hold the units).

    Args:
        positions: their kind.
        action: indices `[*b]`, or exposures or weights `[*b, A]`.
        assets: A.
        dtype: of the targets.
    """
    if isinstance(positions, tuple):
        invalid = (action < 0) | (action >= len(positions))
        chosen = jnp.asarray(positions, dtype)[jnp.clip(action, 0, len(positions) - 1)]
        target = jnp.broadcast_to(chosen[..., None], (*action.shape, assets))
    elif positions == "continuous":
        invalid = ~(jnp.abs(action) <= MAX_LEVERAGE + TOLERANCE).all(-1)  # written so that NaN is invalid
        target = jnp.clip(action.astype(dtype), -MAX_LEVERAGE, MAX_LEVERAGE)
    else:
        invalid = ~((action >= -TOLERANCE).all(-1) & (action.sum(-1) <= MAX_LEVERAGE + TOLERANCE))
        target = jnp.maximum(action.astype(dtype), 0)
        target = target / jnp.maximum(target.sum(-1, keepdims=True), MAX_LEVERAGE)
    return jnp.where(invalid[..., None], jnp.nan, target), invalid


def draw(
    positions: Positions, key: PRNGKeyArray, batch: tuple[int, ...], assets: int, dtype: DTypeLike
) -> Float[Array, "*b A"]:
    """Random exposures, uniform over what can be asked for; gross exposure is at most MAX_LEVERAGE."""
    shape = (*batch, assets)
    if isinstance(positions, tuple):
        drawn = jax.random.randint(key, batch, 0, len(positions))
        return jnp.broadcast_to(jnp.asarray(positions, dtype)[drawn][..., None], shape)
    if positions == "continuous":
        exposure = jax.random.uniform(key, shape, dtype, -MAX_LEVERAGE, MAX_LEVERAGE)
        return exposure / jnp.maximum(jnp.abs(exposure).sum(-1, keepdims=True), MAX_LEVERAGE)
    parts = jax.random.exponential(key, (*batch, assets + 1), dtype)  # over their sum: uniform on the simplex
    return MAX_LEVERAGE * parts[..., :-1] / parts.sum(-1, keepdims=True)
