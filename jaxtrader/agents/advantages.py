"""Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438), time-major."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader import devices


def gae(
    reward: Float[Array, "time *b"],
    value: Float[Array, "time *b"],
    next_value: Float[Array, "time *b"],
    terminated: Bool[Array, "time *b"],
    done: Bool[Array, "time *b"],
    gamma: Float[Array, ""] | float,
    lam: Float[Array, ""] | float,
) -> tuple[Float[Array, "time *b"], Float[Array, "time *b"]]:
    """Advantages and value targets (advantage + value).

    delta = r + gamma V(next) [not terminated] - V;  A = delta + gamma lam A(next) [not done].

    Args:
        reward: of each step.
        value: V of the state before the step.
        next_value: V of the state after the step and before any reset; ignored where terminated. A truncated step is so
            bootstrapped with its final observation.
        terminated: the episode ended for good (ruin): no value after it.
        done: terminated or truncated: the trace is cut, since the next row belongs to another episode.
        gamma: discount a step.
        lam: decay of the trace.
    """
    delta = reward + gamma * jnp.where(terminated, 0, next_value) - value
    decay = gamma * lam * (1 - done)

    def back(carry: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        step_delta, step_decay = row
        carry = step_delta + step_decay * carry
        return carry, carry

    _, advantage = jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=8)
    return advantage, advantage + value


def less_explained(advantage: Float[Array, "time *b"], known: Float[Array, "time *b"]) -> Float[Array, "time *b"]:
    """The advantage less what a number that is not the actions' doing explains of it: least squares on all devices.

    A control variate: the mean stays, the variance falls by the squared correlation.
    """
    known = known - devices.mean(known.mean())
    together, spread = devices.mean(((advantage * known).mean(), (known**2).mean()))
    return advantage - together / jnp.where(spread > 0, spread, 1) * known
