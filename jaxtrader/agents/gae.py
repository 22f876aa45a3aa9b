"""Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438), time-major."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader import devices


def gae(
    reward: Float[Array, " time *b"],
    value: Float[Array, " time *b"],
    next_value: Float[Array, " time *b"],
    terminated: Bool[Array, " time *b"],
    done: Bool[Array, " time *b"],
    gamma: Float[Array, ""] | float,
    lam: Float[Array, ""] | float,
) -> tuple[Float[Array, " time *b"], Float[Array, " time *b"]]:
    """Return advantages and value targets (advantage + value).

    A = delta + gamma lam A(next) [not done], where delta = r + gamma V(next) [not terminated] - V.

    Args:
        reward: reward of each step.
        value: V of the state before the step.
        next_value: V of the state after the step and before any reset. A truncated step is bootstrapped with it. It is
            ignored where the step terminated.
        terminated: whether the episode ended for good (ruin), so that no value follows.
        done: terminated or truncated. The trace ends there, since the next row belongs to another episode.
        gamma: discount of a step.
        lam: decay of the trace in a step.
    """
    delta = reward + gamma * jnp.where(terminated, 0, next_value) - value
    decay = gamma * lam * (1 - done)

    def backward(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        step_delta, step_decay = row
        advantage = step_delta + step_decay * later
        return advantage, advantage

    _, advantage = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=8)
    return advantage, advantage + value


def explained_variance(target: Float[Array, "*b"], value: Float[Array, "*b"]) -> Float[Array, ""]:
    """Return the share of the targets' variance, over all devices, that the values explain. 1 is all of it."""
    _, variance = devices.moments(target)
    _, unexplained = devices.moments(target - value)
    return 1 - unexplained / jnp.where(variance > 0, variance, 1)
