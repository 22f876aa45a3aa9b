"""What a Trainer asks of an agent, and what it hands to it: the `Agent` protocol and the `Rollout`."""

from __future__ import annotations

from os import PathLike
from typing import Any, Protocol

from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray


class Rollout(struct.PyTreeNode):
    """What `num_envs = lanes * agents` environments lived through in one rollout of `time` steps.

    On lanes the bars stay on the tape and only the cursors are kept (`observations` is None); for ordinary environments
    `observations` holds what the agents saw, `account` and `cursor` are None, and agents is 1.

    Attributes:
        cursor: the tape row of each lane's first decision.
        observations: `[time, lane, ...]`, ordinary environments only.
        account: account features of each decision.
        action: what was done: indices, or with further axes, continuous ones; `log_prob` its log probability then.
        value: V of the state before each step.
        next_value: V of the state after it, before any reset; arbitrary where terminated.
        reward: of each step.
        terminated: ruin, or the ordinary environment's own end.
        truncated: an end by time limit.
    """

    cursor: Int[Array, "lane"] | None
    observations: Any
    account: Float[Array, "time lane agent assets K"] | None
    action: Int[Array, "time lane agent"] | Float[Array, "time lane agent ..."]
    log_prob: Float[Array, "time lane agent"]
    value: Float[Array, "time lane agent"]
    next_value: Float[Array, "time lane agent"]
    reward: Float[Array, "time lane agent"]
    terminated: Bool[Array, "time lane agent"]
    truncated: Bool[Array, "time lane agent"]


class Agent(Protocol):
    """A learner. All methods but the last two are pure, so that a whole training chunk is one jitted function.

    The agent itself is a pytree and travels as a jit argument. `encode` and `act` are needed only on lanes, that is
    where the environment has `advance`; elsewhere `select_action` is enough. Optional:
    `prepare(state, env_params) -> (state, env_params)`, called once on the host before anything is traced, to fit and
    apply normalisation; `anneal(state, progress) -> state`, called before each update with the finished share; and
    `validate()` and `check_env(env)`, which raise ValueError where settings are wrong or do not fit the environment;
    `several_devices = True`, where `learn`, which sees the lanes of one device, takes gradients, metrics and all else
    as means over all of them (`jaxtrader.devices.mean`); no other method may do so.
    """

    def init(self, key: PRNGKeyArray, env: Any, params: Any) -> Any:
        """A fresh state: parameters, optimiser, counters."""
        ...

    def encode(self, state: Any, chunk: Float[Array, "*b bars assets features"]) -> Any:
        """Contexts of the decisions in a chunk of bars: `[*b, decisions, ...]`."""
        ...

    def act(
        self, state: Any, context: Any, account: Any, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """An action, and its `log_prob` and `value`."""
        ...

    def select_action(
        self, state: Any, obs: Any, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """`act` after `encode` of the one window that the observation holds."""
        ...

    def learn(self, state: Any, rollout: Rollout, params: Any, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        """Improve on a rollout; scalar metrics."""
        ...

    def save_model(self, path: str | PathLike[str], state: Any, about: dict[str, Any]) -> None:
        """Write what a decision needs to a file."""
        ...

    def load_model(self, path: str | PathLike[str]) -> tuple[Any, dict[str, Any]]:
        """Read what `save_model` wrote: the state for acting, and `about`."""
        ...
