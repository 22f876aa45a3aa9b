"""Rejected updates, whose numbers are not finite or valid: what a user is told, and whether a lower rate may help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtrader.envs import rewards
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.checkpoint import MAX_HALVINGS
from jaxtrader.training.update import DEVICES_DIFFER


class Rejected(Exception):
    """The last update of a chunk was rejected.

    Attributes:
        reasons: what was not finite or not valid in it, the cause first.
    """

    def __init__(self, reasons: list[str]):
        super().__init__()
        self.reasons = reasons


def check_accepted(bad: Mapping[str, Any]) -> None:
    """Raise Rejected where a chunk's report has a reason for a rejection."""
    # Invalid actions and rewards come first: they spoil everything that is computed from them.
    reasons = [name for name in dict.fromkeys(("action", "reward", *bad)) if bad[name]]
    if reasons:
        raise Rejected(reasons)


def lower_rate_may_help(reasons: list[str]) -> bool:
    """Return whether half the learning rate may help. It mends no reward, and no parameters that differ by device."""
    return reasons[0] != "reward" and reasons != [DEVICES_DIFFER]


def what_was_rejected(reasons: list[str], update: int, env: Any) -> str:
    """Name an update and what was wrong with it."""
    reward = _own_reward(env)
    named = [f"reward (your own, {reward})" if name == "reward" and reward else name for name in reasons]
    return f"update {update} was rejected: not finite or not valid in {', '.join(named)}"


def advice(reasons: list[str], halvings: int, env: Any) -> str:
    """Return a sentence that says what the user should look at."""
    if reasons == [DEVICES_DIFFER]:
        return "The agent's learn must take what it learns as means over them: jaxtrader.devices.mean"
    if reasons[0] == "reward" and _own_reward(env):
        return "Look at where that reward divides, or takes a logarithm or a root"
    if reasons[0] in ("action", "reward"):
        return "Look at the prices and features"
    if halvings >= MAX_HALVINGS:
        return f"The learning rate was halved {halvings} times, so look at the prices and features"
    return "Try a lower `learning_rate` or `max_grad_norm`, or `on_divergence='halve'`"


def _own_reward(env: Any) -> str | None:
    """Return the name of a reward that the user wrote. None where it is one of this package's."""
    described = rewards.to_dict(env.reward) if isinstance(env, TradingEnv) else {}
    return described["name"] if described.get("custom") else None
