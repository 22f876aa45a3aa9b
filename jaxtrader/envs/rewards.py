"""What the agent is paid for a bar: a pure, hashable function of the two marks around it.

A reward is static configuration of the environment. The equity after ruin may be negative, so every reward works on
the floored values: rewards stay finite (money rule 7), and an account that lives on below the floor is paid 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array

FLOOR = 1e-4  # of the initial capital; log(FLOOR) is the worst that a bar can pay


class Reward(Protocol):
    """`reward(before, after)`: equity at the mark of this bar and of the next, any shape, to a reward of that shape."""

    def __call__(self, before: Array, after: Array) -> Array:
        """The reward of moving from one mark to the next."""
        ...


@dataclass(frozen=True)
class LogReturn:
    """The log return between the marks: rewards add up to the log of the final mark, or of FLOOR if that is more."""

    def __call__(self, before: Array, after: Array) -> Array:
        """The log return between the marks."""
        return jnp.log(jnp.maximum(after, FLOOR) / jnp.maximum(before, FLOOR))


@dataclass(frozen=True)
class RiskPenalised:
    """log return - (lam / 2) r^2, r = after / before - 1: log utility with an extra price on variance.

    The second-order expansion of power utility with relative risk aversion 1 + lam (Merton 1969): E log(1 + r) already
    charges variance / 2, this adds lam / 2 more.
    """

    lam: float = 5.0

    def __call__(self, before: Array, after: Array) -> Array:
        """The penalised log return between the marks."""
        simple = jnp.maximum(after, FLOOR) / jnp.maximum(before, FLOOR) - 1
        return jnp.log1p(simple) - 0.5 * self.lam * simple**2


def log_return() -> Reward:
    """The log return between the marks (the default)."""
    return LogReturn()


def risk_penalised(lam: float) -> Reward:
    """Log return - (lam / 2) r^2, with r the simple return between the marks. Raises ValueError where lam < 0."""
    if not 0 <= lam < math.inf:
        raise ValueError(f"risk_penalised(lam={lam}) must have a finite lam >= 0: below, it would pay for risk")
    return RiskPenalised(float(lam))


def to_dict(reward: Reward) -> dict[str, Any]:
    """A reward as plain data for config and policy files; a user's own function by its name."""
    if isinstance(reward, LogReturn | RiskPenalised):
        return {"name": type(reward).__name__, **asdict(reward)}
    return {"name": getattr(reward, "__qualname__", type(reward).__name__), "custom": True}


def from_dict(stored: dict[str, Any]) -> Reward:
    """The reward that `to_dict` described.

    A user's own function is not stored: log return stands in, since to act needs no reward.
    """
    if stored.get("custom"):
        return LogReturn()
    fields = dict(stored)
    return _BY_NAME[fields.pop("name")](**fields)


_BY_NAME: dict[str, Any] = {"LogReturn": LogReturn, "RiskPenalised": RiskPenalised}
