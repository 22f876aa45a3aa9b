"""What an action asks for: from the actions of an agent to target exposures, for each kind of `TradingEnv.positions`.

A tuple of exposures gives discrete actions, indices into it, for one asset. "continuous" gives an exposure in
[-max_leverage, max_leverage] per asset; "weights" gives long-only weights that sum to at most 1, whatever the leverage,
with the remainder in cash. What the ledger makes of a target, gross exposure included, is not decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.envs import draws

Range = Literal["continuous", "weights"]
Positions = tuple[float, ...] | Range

Bracket = float | tuple[float | None, ...] | None

TOLERANCE = 1e-6  # the share by which an action may exceed its range: what rounding in float32 adds to a sum


def checked(positions: Any, assets: int = 1, max_leverage: float = 1.0) -> Positions:
    """The positions as they are stored. Raises ValueError where they are none, or not for so many assets."""
    if isinstance(positions, str):
        if positions not in get_args(Range):
            raise ValueError(
                f"positions {positions!r} is unknown; use 'continuous', 'weights' or exposures such as (-1, 0, 1)"
            )
        return cast(Range, positions)
    positions = tuple(positions) if isinstance(positions, Iterable) else positions
    if not isinstance(positions, tuple) or not all(isinstance(p, Real) for p in positions):
        raise ValueError(
            f"positions {positions!r} must be a tuple of exposures such as (-1, 0, 1), 'continuous' or 'weights'"
        )
    exposures = tuple(float(p) for p in positions)
    if len(set(exposures)) < 2 or len(set(exposures)) != len(exposures):
        raise ValueError(f"positions {exposures} must hold at least two exposures, none twice")
    beyond = [p for p in exposures if not abs(p) <= max_leverage]
    if beyond:
        raise ValueError(
            f"position {beyond[0]:g} is outside [-{max_leverage:g}, {max_leverage:g}]: an exposure is position value / "
            "equity, at most max_leverage"
        )
    if assets > 1:
        raise ValueError(
            f"positions {exposures} are of one asset and the market has {assets} in one history; use 'weights' or "
            "'continuous', or give the symbols as separate histories"
        )
    return exposures


def space(positions: Positions, assets: int, max_leverage: float = 1.0) -> Any:
    """gymnax's space of the actions: Discrete, or a Box `[A]`."""
    from gymnax.environments import spaces  # 4 s to import: only where it is used

    if isinstance(positions, tuple):
        return spaces.Discrete(len(positions))
    return spaces.Box(*((-max_leverage, max_leverage) if positions == "continuous" else (0.0, 1.0)), (assets,))


def targets(
    positions: Positions,
    action: Array,
    assets: int,
    dtype: DTypeLike,
    max_leverage: float = 1.0,
    tradable: Bool[Array, "*b A"] | None = None,
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"]]:
    """The target exposures that actions ask for, and whether they are none; then all targets are NaN (hold the units).

    Args:
        positions: their kind.
        action: indices `[*b]`, or exposures or weights `[*b, A]`.
        assets: A.
        dtype: of the targets.
        max_leverage: the bound of one asset's exposure; weights have their own.
        tradable: assets that may be ordered; the target of another is NaN, whatever is asked. None: all.
    """
    if isinstance(positions, tuple):
        invalid = (action < 0) | (action >= len(positions))
        chosen = _choose(positions, action, dtype)
        target = jnp.broadcast_to(chosen[..., None], (*action.shape, assets))
    elif positions == "continuous":
        invalid = ~(jnp.abs(action) <= max_leverage * (1 + TOLERANCE)).all(-1)  # written so that NaN is invalid
        target = jnp.clip(action.astype(dtype), -max_leverage, max_leverage)
    else:
        invalid = ~((action >= -TOLERANCE).all(-1) & (action.sum(-1) <= 1 + TOLERANCE))
        target = jnp.maximum(action.astype(dtype), 0)
        target = target / jnp.maximum(target.sum(-1, keepdims=True), 1)
    held = invalid[..., None] if tradable is None else invalid[..., None] | ~tradable
    return jnp.where(held, jnp.nan, target), invalid


def draw(
    positions: Positions,
    key: PRNGKeyArray,
    batch: tuple[int, ...],
    assets: int,
    dtype: DTypeLike,
    max_leverage: float = 1.0,
    holdable: Bool[Array, "*b A"] | None = None,
) -> Float[Array, "*b A"]:
    """Random exposures, uniform over what can be asked for, 0 where an asset is not to be held (None: all can be).

    Gross exposure is at most `max_leverage`, and at most 1 for weights.
    """
    shape = (*batch, assets)
    if isinstance(positions, tuple):
        drawn = draws.integers(key, batch, len(positions), draws.EXPOSURE)
        exposure = jnp.broadcast_to(_choose(positions, drawn, dtype)[..., None], shape)
        return exposure if holdable is None else jnp.where(holdable, exposure, 0)
    if positions == "continuous":
        exposure = jax.random.uniform(key, shape, dtype, -max_leverage, max_leverage)
        exposure = exposure if holdable is None else jnp.where(holdable, exposure, 0)
        gross = jnp.abs(exposure).sum(-1, keepdims=True)
        return exposure * max_leverage / jnp.maximum(gross, max_leverage)
    parts = jax.random.exponential(key, (*batch, assets + 1), dtype)  # over their sum: uniform on the simplex
    weights = parts[..., :-1] if holdable is None else jnp.where(holdable, parts[..., :-1], 0)
    return min(1.0, max_leverage) * weights / (weights.sum(-1, keepdims=True) + parts[..., -1:])


def checked_bracket(name: str, given: Any, positions: Positions) -> Bracket:
    """A stop-loss or take-profit as it is stored. Raises ValueError where it is none."""
    if given is None:
        return None
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given.item()
    if isinstance(given, Iterable) and not isinstance(given, str):
        given = tuple(given)
        if not isinstance(positions, tuple) or len(given) != len(positions):
            raise ValueError(f"{name} {given} must be one fraction, or one for each of a tuple of positions")
        if all(x is None for x in given):
            return None
        fractions = [x for x in given if x is not None]
    else:
        fractions = [given]
    limit = 1 if name == "stop_loss" else math.inf  # no price falls by more: 3 was meant as 3%
    for x in fractions:
        if isinstance(x, bool) or not isinstance(x, Real) or not 0 < float(x) < math.inf:
            raise ValueError(f"{name} {x!r} must be above 0: it is a fraction of the entry price, 0.03 is 3%")
        if float(x) >= limit:
            raise ValueError(f"{name} {x!r} must be below 1: it is a fraction of the entry price, 0.03 is 3%")
    if not isinstance(given, tuple):
        return float(given)
    return tuple(None if x is None else float(x) for x in given)


def bracket(given: Bracket, action: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "*b A"] | None:
    """The stop-losses or take-profits of actions as fractions, infinite where there is none; None: none at all."""
    if given is None:
        return None
    if not isinstance(given, tuple):
        return jnp.full(shape, given, dtype)
    chosen = _choose([math.inf if x is None else x for x in given], action, dtype)
    return jnp.broadcast_to(chosen[..., None], (*action.shape, shape[-1]))


def _choose(numbers: Sequence[float], index: Array, dtype: DTypeLike) -> Array:
    """One of a few numbers for each index, the nearest for one outside; selects, which fuse where a gather does not."""
    chosen = jnp.full(index.shape, numbers[0], dtype)
    for i, number in enumerate(numbers[1:], 1):
        chosen = jnp.where(index >= i, number, chosen)
    return chosen
