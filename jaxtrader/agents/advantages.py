"""Advantages: generalised advantage estimation, and the control variate that takes the market's part out of them.

Most of the noise of an advantage is what the market did, whatever the agent chose. Without the control variate the
noise of the policy gradient grows as the deviation of the actions falls.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader import devices
from jaxtrader.agents.blocks import block_count, encoder_activations, map_blocks
from jaxtrader.agents.protocol import Rollout
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.observation import contexts

if TYPE_CHECKING:
    from jaxtrader.agents.ppo import PPOAgent
    from jaxtrader.agents.ppo_state import PPOState

MIN_GROWTH = 0.1  # of equity in one decision: a larger loss counts as this one, so that the logarithm exists


def gae(
    reward: Float[Array, " time *b"],
    value: Float[Array, " time *b"],
    next_value: Float[Array, " time *b"],
    terminated: Bool[Array, " time *b"],
    done: Bool[Array, " time *b"],
    gamma: Float[Array, ""] | float,
    lam: Float[Array, ""] | float,
) -> tuple[Float[Array, " time *b"], Float[Array, " time *b"]]:
    """Return advantages and value targets (advantage + value), time-major.

    This is the estimator of Schulman et al. 2016, https://arxiv.org/abs/1506.02438:
    A = delta + gamma lam A(next) [not done], where delta = r + gamma V(next) [not terminated] - V.

    Args:
        reward: reward of each step.
        value: V of the state before the step.
        next_value: V of the state after the step and before any reset. A truncated step is bootstrapped with it. It is
            ignored where the step terminated.
        terminated: whether the episode ended by ruin or by a rule of the environment, so that no value follows.
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


def market_control_variate(
    agent: PPOAgent, state: PPOState, rollout: Rollout, params: EnvParams
) -> Float[Array, "time path account"]:
    """Return what the market did to each advantage: the discounted log returns of a reference position.

    The reference position is the mode of the policy at each bar, for the mean account of the rollout, within the
    leverage. Actions do not move the bars. So an advantage less a multiple of this number has the same gradient in
    expectation, and less noise. It is an input-dependent baseline (Mao et al. 2019, https://arxiv.org/abs/1807.02264).
    The sum goes on over the bars after a ruin, though the advantage does not: where an account is ruined depends on
    its actions, and a baseline must not.
    The mean account and the multiple come from the same rollout, which biases the gradient by about one part in the
    number of its steps.
    """
    assert rollout.cursor is not None
    assert rollout.account is not None
    network, arrays, every = state.network, params.arrays, state.decision_every
    decisions, paths, _, assets, _ = rollout.account.shape
    mean_account = devices.mean(rollout.account.mean((0, 1, 2)))[..., : network.account]
    # The feature after the account's own numbers says which assets are tradable (`PortfolioActorCritic.tradable`).
    # It belongs to the market, so the reference position reads it as it was.
    tradable = jnp.moveaxis(rollout.account[:, :, :1, :, network.account :], 1, 0)

    def reference_position(block: tuple[Array, Array]) -> Float[Array, "path time A"]:
        cursor, tradable = block
        context = contexts(partial(agent.encode, state), arrays, cursor, network.window, decisions, every)
        own = jnp.broadcast_to(mean_account, (*tradable.shape[:-1], mean_account.shape[-1]))
        account = jnp.concatenate([own, tradable], -1)
        action, _ = agent.act(state, context[:, :, None], account, jax.random.key(0), deterministic=True)
        return action[:, :, 0]

    chunk = (network.window + decisions - 1, *arrays.features.shape[1:])
    activations = encoder_activations(network, chunk) + network.head_activations(decisions * assets)
    position = map_blocks(reference_position, (rollout.cursor, tradable), block_count(paths, activations))
    if state.bounds is not None:  # the ledger caps gross exposure too
        position /= jnp.maximum(jnp.abs(position).sum(-1, keepdims=True) / state.bounds[1], 1)
    close = arrays.close[rollout.cursor[:, None] + jnp.arange(decisions + 1) * every]
    growth = 1 + (position * (close[:, 1:] / close[:, :-1] - 1)).sum(-1)
    log_return = jnp.broadcast_to(jnp.log(jnp.maximum(growth, MIN_GROWTH)).T[..., None], rollout.reward.shape)
    zero, never = jnp.zeros_like(log_return), jnp.zeros(log_return.shape, bool)
    return gae(log_return, zero, zero, never, never, agent.gamma, agent.gae_lambda)[0]


def regress_out(advantage: Float[Array, " time *b"], known: Float[Array, " time *b"]) -> Float[Array, " time *b"]:
    """Return the advantage less the part that `known` explains, by least squares over all devices.

    The mean stays, and the variance falls by the squared correlation.
    """
    known = known - devices.mean(known.mean())
    covariance, variance = devices.mean(((advantage * known).mean(), (known**2).mean()))
    return advantage - covariance / jnp.where(variance > 0, variance, 1) * known


def explained_variance(target: Float[Array, "*b"], value: Float[Array, "*b"]) -> Float[Array, ""]:
    """Return the share of the targets' variance, over all devices, that the values explain. 1 is all of it."""
    _, variance = devices.moments(target)
    _, unexplained = devices.moments(target - value)
    return 1 - unexplained / jnp.where(variance > 0, variance, 1)
