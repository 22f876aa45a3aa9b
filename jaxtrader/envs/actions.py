"""The actions of an agent as target exposures, for each form of `TradingEnv.positions`.

A tuple of exposures gives discrete actions, which are indices into it, for one asset. "continuous" gives an exposure in
[-max_leverage, max_leverage] for each asset. "weights" gives long-only weights that sum to at most 1 at any leverage.
The ledger decides how a target fills, and caps gross exposure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, PRNGKeyArray

from jaxtrader.envs import draws
from jaxtrader.envs.env_settings import BracketFractions, ContinuousPositions, Positions
from jaxtrader.ledger.account import without_dust
from jaxtrader.ledger.rules import check_bracket
from jaxtrader.setting_checks import is_number, setting

TOLERANCE = 1e-6  # share by which an action may exceed its range, for the rounding of float32 sums


def validate_positions(positions: Any, assets: int, max_leverage: float) -> Positions:
    """Return positions as `TradingEnv` stores them: a tuple of floats, "continuous" or "weights".

    Raises ValueError where they have another form, exceed max_leverage, or are discrete for several assets.
    """
    if isinstance(positions, str):
        if positions not in get_args(ContinuousPositions):
            raise ValueError(
                f"{setting('positions', positions)} is unknown; use continuous, weights, or exposures as in "
                "`positions=(-1, 0, 1)`"
            )
        return cast(ContinuousPositions, positions)
    positions = tuple(positions) if isinstance(positions, Iterable) else positions
    if not isinstance(positions, tuple) or not all(map(is_number, positions)):
        raise ValueError(
            f"{setting('positions', positions)} must be exposures as in `positions=(-1, 0, 1)`, continuous or weights"
        )
    exposures = tuple(float(p) for p in positions)
    if len(set(exposures)) < 2 or len(set(exposures)) != len(exposures):
        raise ValueError(f"{setting('positions', exposures)} must hold at least two exposures, none twice")
    for p in exposures:
        if not abs(p) <= max_leverage:
            raise ValueError(
                f"{setting('positions', exposures)} must be within [-{max_leverage:g}, {max_leverage:g}], and {p:g} is "
                "not: an exposure is position value / equity, at most `max_leverage`"
            )
    if assets > 1:
        raise ValueError(
            f"{setting('positions', exposures)} is of one asset and the market has {assets} in one history; use "
            "`positions='weights'` or `positions='continuous'`, or load separate histories without `align`"
        )
    return exposures


def may_be_short(positions: Positions) -> bool:
    """Return whether an action may ask for a short position."""
    return positions == "continuous" or (isinstance(positions, tuple) and min(positions) < 0)


def bounds(positions: ContinuousPositions, max_leverage: float) -> tuple[float, float]:
    """Return the least and the greatest exposure or weight that an action may give one asset."""
    return (-max_leverage, max_leverage) if positions == "continuous" else (0.0, 1.0)


def targets(
    positions: Positions,
    action: Array,
    assets: int,
    dtype: DTypeLike,
    max_leverage: float,
    tradable: Bool[Array, "*b A"] | None = None,
) -> tuple[Float[Array, "*b A"], Bool[Array, "*b"]]:
    """Return the target exposures of actions, and whether the actions are invalid. NaN holds the units.

    Actions are indices `[*b]`, or exposures or weights `[*b, A]`. One that is out of range or not finite is invalid.
    All its targets are NaN. So is the target of an asset that is not `tradable`, where None means that all are.
    """
    if isinstance(positions, tuple):
        invalid = (action < 0) | (action >= len(positions))
        chosen = _choose(positions, action, dtype)
        target = jnp.broadcast_to(chosen[..., None], (*action.shape, assets))
    elif positions == "continuous":
        invalid = ~(jnp.abs(action) <= max_leverage * (1 + TOLERANCE)).all(-1)  # NaN compares false, so it is invalid
        target = jnp.clip(action.astype(dtype), -max_leverage, max_leverage)
    else:
        invalid = ~((action >= -TOLERANCE).all(-1) & (action.sum(-1) <= 1 + TOLERANCE))
        target = jnp.maximum(action.astype(dtype), 0)
        target = target / jnp.maximum(target.sum(-1, keepdims=True), 1)
    hold = invalid[..., None] if tradable is None else invalid[..., None] | ~tradable
    return jnp.where(hold, jnp.nan, without_dust(target)), invalid


def draw(
    positions: Positions,
    key: PRNGKeyArray,
    batch: tuple[int, ...],
    assets: int,
    dtype: DTypeLike,
    max_leverage: float,
    holdable: Bool[Array, "*b A"] | None = None,
) -> Float[Array, "*b A"]:
    """Draw exposures `[*batch, A]`, uniformly over the targets that actions can ask for.

    An asset that is not `holdable` gets 0. Gross exposure is at most `max_leverage`, and at most 1 for weights.
    """
    shape = (*batch, assets)

    def only_holdable(exposure: Array) -> Array:
        return exposure if holdable is None else jnp.where(holdable, exposure, 0)

    if isinstance(positions, tuple):
        drawn = draws.integers(key, batch, len(positions), draws.EXPOSURE_STREAM)
        return only_holdable(jnp.broadcast_to(_choose(positions, drawn, dtype)[..., None], shape))
    if positions == "continuous":
        exposure = only_holdable(jax.random.uniform(key, shape, dtype, -max_leverage, max_leverage))
        gross = jnp.abs(exposure).sum(-1, keepdims=True)
        return exposure * max_leverage / jnp.maximum(gross, max_leverage)
    # Exponential numbers divided by their sum are uniform on the simplex.
    parts = jax.random.exponential(key, (*batch, assets + 1), dtype)
    weights = only_holdable(parts[..., :-1])
    return min(1.0, max_leverage) * weights / (weights.sum(-1, keepdims=True) + parts[..., -1:])


def validate_bracket(name: str, given: Any, positions: Positions) -> BracketFractions:
    """Return a bracket as `TradingEnv` stores it: None, a float, or one for each position.

    Raises ValueError where a fraction is out of range, or there are not as many fractions as positions.
    """
    if given is None:
        return None
    if isinstance(given, np.ndarray) and given.ndim == 0:
        given = given.item()
    if isinstance(given, Iterable) and not isinstance(given, str):
        given = tuple(given)
        if not isinstance(positions, tuple) or len(given) != len(positions):
            raise ValueError(f"{setting(name, given)} must be one fraction, or one for each of the positions")
    fractions = given if isinstance(given, tuple) else (given,)
    for x in fractions:
        if x is not None:
            check_bracket(name, x)
    fractions = tuple(None if x is None or math.isinf(x) else float(x) for x in fractions)
    if set(fractions) == {None}:
        return None
    return fractions if isinstance(given, tuple) else fractions[0]


def bracket_fractions(
    given: BracketFractions, action: Array, shape: tuple[int, ...], dtype: DTypeLike
) -> Float[Array, "*b A"] | None:
    """Return one of the brackets of actions as fractions, infinite where an action has none.

    They broadcast to `shape` `[*b, A]`. None: no position has any.
    """
    if given is None:
        return None
    if not isinstance(given, tuple):
        return jnp.full(shape, given, dtype)
    chosen = _choose([math.inf if x is None else x for x in given], action, dtype)
    return jnp.broadcast_to(chosen[..., None], (*action.shape, shape[-1]))


def _choose(numbers: Sequence[float], index: Array, dtype: DTypeLike) -> Array:
    """Return the number at each index, clipped to the range. It selects, since XLA fuses selects but not a gather."""
    chosen = jnp.full(index.shape, numbers[0], dtype)
    for i, number in enumerate(numbers[1:], 1):
        chosen = jnp.where(index >= i, number, chosen)
    return chosen
