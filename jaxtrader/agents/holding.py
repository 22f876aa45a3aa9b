"""The policy that holds one exposure, whatever it sees: a trained network whose last layer is a constant."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxtrader.agents.action_spec import MEAN_GAIN, MEAN_LIMIT
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.envs.actions import Positions

# What the chosen position's logit has over the others. Which one is chosen is certain, and a training that starts from
# here still tries the others.
CHOSEN = 1.0
NEARLY = 0.999  # of the range of a weight's score, whose ends are at infinity


def holding(policy: Policy, exposure: float) -> tuple[Policy, float]:
    """Return a policy of the same kind that wants the same exposure at every bar, and the exposure that it wants.

    A member of an ensemble that chooses from positions takes the nearest one, and the members after it make up for the
    rest. So three members with 0 and 0.5 hold one sixth, one third or half. The nearest of them is returned. A
    portfolio holds equal parts.

    Args:
        policy: a policy of PPOAgent that was trained in a TradingEnv.
        exposure: position value / equity, of all assets together.

    Raises:
        ValueError: its network is a module of the user's own.
    """
    states: list[PPOState] = []
    members = policy.members
    left = exposure * len(members)
    for i, member in enumerate(members):
        outputs, reached = _outputs(member.state, member.positions, left / (len(members) - i))
        states.append(member.state.replace(params=member.state.network.constant(member.state.params, outputs)))
        left -= reached
    state = tuple(states) if isinstance(policy.state, tuple) else states[0]
    return dataclasses.replace(policy, state=state), exposure - left / len(members)


def _outputs(state: PPOState, positions: Positions, exposure: float) -> tuple[Any, float]:
    """The network's outputs that mean an exposure, or the nearest that there is, and that exposure."""
    assets = state.network.actions.size
    if isinstance(positions, tuple):
        nearest = int(np.argmin(np.abs(np.asarray(positions) - exposure)))
        return CHOSEN * np.eye(len(positions), dtype=np.float32)[nearest], positions[nearest]
    if state.bounds is not None:
        low, high = (float(bound[0]) for bound in state.bounds)
        each = min(max(exposure / assets, low), high)
        return jnp.asarray([2 * (each - low) / (high - low) - 1]), each * assets
    score = math.copysign(math.inf, exposure - 0.5)
    if 0 < exposure < 1:
        score = math.log(exposure / (1 - exposure) / assets)
    score = min(max(score / MEAN_LIMIT, -NEARLY), NEARLY)
    odds = assets * math.exp(MEAN_LIMIT * score)
    return jnp.asarray([MEAN_LIMIT * math.atanh(score) / MEAN_GAIN]), odds / (1 + odds)
