"""The data of `TradingEnv`: what its transitions read, an episode under way, what a decision sees."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, Int

from jaxtrader.envs.account import Account
from jaxtrader.envs.costs import CostRange, Costs
from jaxtrader.market.market import Tape

ACCOUNT_FEATURES = ("exposure", "last target", "unrealised return", "bars since the last fill")
TRADABLE = "tradable"  # the last account feature of a portfolio whose assets are not all listed at every bar: 1 or 0


class EnvParams(struct.PyTreeNode):
    """What the environment's transitions read: a jit argument. Shapes are static, values are traced."""

    tape: Tape
    costs: Costs | CostRange

    @property
    def carries(self) -> bool:
        """Whether holding costs or earns something."""
        return self.costs.carries or self.tape.funding is not None


class EnvState(struct.PyTreeNode):
    """One episode under way: the account, its place on the tape, and its age in bars.

    `end` is the row after the last bar of the episode's segment.
    """

    account: Account
    cursor: Int[Array, "*b"]
    end: Int[Array, "*b"]
    time: Int[Array, "*b"]


class Trader(Account):
    """An account with more to its episode than the ledger knows.

    Attributes:
        memory: what the reward keeps from bar to bar, see `rewards.MoveReward`; None where it keeps nothing.
        terms: the costs drawn for the episode, `[*b, 1]` or `[*b, A]`; None where all episodes have the same.
    """

    memory: Any = None
    terms: Costs | None = None


class Observation(struct.PyTreeNode):
    """What a decision may see: the window of features up to the cursor, and the account (`env.account_names`)."""

    window: Float[Array, "*b W A F"]
    account: Float[Array, "*b A K"]


def terms_of(account: Account, params: EnvParams) -> Costs:
    """What an account is charged: its own costs, or everyone's; of a range that it was not drawn from, the middle."""
    terms = getattr(account, "terms", None)
    if terms is None:
        return params.costs.middle if isinstance(params.costs, CostRange) else params.costs
    return terms


def select(condition: Array, yes: Any, no: Any) -> Any:
    """Per-leaf `where`, with `condition` broadcast over the trailing axes of each leaf."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(jnp.reshape(condition, condition.shape + (1,) * (jnp.ndim(b) - condition.ndim)), a, b)

    return cast(Any, jax.tree.map(pick, yes, no))
