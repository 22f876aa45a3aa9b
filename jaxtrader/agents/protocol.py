"""What a Trainer asks of an agent, and what it gives to the agent.

`Agent` and `MarketAgent` are base classes. A learner subclasses one of them and overrides what it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any

from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from jaxtrader.agents.encoders import windows_of
from jaxtrader.agents.normalization import standardized
from jaxtrader.agents.own_agent_file import write_own
from jaxtrader.envs.observation import Observation, chunks
from jaxtrader.envs.protocols import Environment
from jaxtrader.setting_checks import setting


class Rollout(struct.PyTreeNode):
    """The experience of one rollout of `time` steps, in `num_envs = paths * accounts` environments.

    On market paths the bars stay in the market arrays, and the rollout keeps only where each path stands in them:
    `chunks` looks them up. An ordinary environment is a path with one account. All floats are float32.

    On market paths T, P, C, A and K are the sizes of time, path, account, asset and account feature.

    Attributes:
        cursor: row of the market arrays at each path's first decision. None for ordinary environments.
        observations: what the agent saw, `[time, path, ...]`. None on market paths.
        account: account features of each decision. None for ordinary environments.
        action: index of a discrete action. A continuous action has further axes.
        log_prob: log probability, or log density, of the action when it was drawn.
        value: V of the state before each step.
        next_value: V of the state after each step, before any reset. It means nothing where the step terminated.
        reward: reward of each step.
        terminated: whether the episode ended with the step by ruin, or by the ordinary environment's own rule.
        truncated: whether the episode ended with the step by its time limit, or where the data end. On market paths
            that is at the last step only. Both may be set.
        next_observations: what the agent saw after each step, before any reset, shaped as `observations`. None where
            the agent does not ask for it (`Agent.needs_next`), and on market paths.
        next_account: account features after each step, before any reset, shaped as `account`. None where the agent does
            not ask for it, and for ordinary environments. After ruin it is that of the account that begins anew.

    Example:
        >>> def one_step_advantage(rollout: jt.Rollout, gamma: float = 0.99):
        ...     going_on = 1 - rollout.terminated
        ...     return rollout.reward + gamma * going_on * rollout.next_value - rollout.value
    """

    cursor: Int[Array, " path"] | None
    observations: Any
    account: Float[Array, "time path account assets K"] | None
    action: Int[Array, "time path account"] | Float[Array, "time path account ..."]
    log_prob: Float[Array, "time path account"]
    value: Float[Array, "time path account"]
    next_value: Float[Array, "time path account"]
    reward: Float[Array, "time path account"]
    terminated: Bool[Array, "time path account"]
    truncated: Bool[Array, "time path account"]
    next_observations: Any = None
    next_account: Float[Array, "time path account assets K"] | None = None

    def chunks(self, params: Any, window: int, every: int = 1) -> Float[Array, "path *decisions bars A F"]:
        """Return the bars that an encoder reads for all decisions and the one after the last, on market paths.

        Args:
            params: the environment's prepared parameters, as `learn` gets them.
            window: bars that a decision sees.
            every: bars between two decisions. With 1 a path's decisions share one chunk of `window + time` bars.
                Otherwise each of `time + 1` decisions has a window of its own.
        """
        if self.cursor is None:
            raise ValueError("a rollout of an ordinary environment has no bars, but observations")
        return chunks(params.arrays, self.cursor, window, len(self.reward) + 1, every)


class Agent(ABC):
    """A learner for any environment.

    The Trainer jits a whole chunk of training. So `init`, `anneal`, `select_action` and `learn` must be pure, and the
    agent itself must be a pytree: it is an argument of the jitted function. The other methods run on the host.

    Attributes:
        several_devices: whether `learn` works on several devices. It then sees the paths of one device, and takes
            gradients, metrics and all else as means over all devices, by `jaxtrader.devices.mean`. Its key is the same
            on all devices: draws for single paths take their keys from `jaxtrader.devices.shard_keys`.
        needs_next: whether rollouts keep what follows each step, as off-policy learners need it: `next_observations`
            and `next_account` of a `Rollout`. It costs memory.
        num_minibatches: the number of paths on each device must be a multiple of this. So many consecutive paths are a
            shard, which has random numbers of its own.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import struct
        >>> @struct.dataclass
        ... class First(jt.Agent):
        ...     def init(self, key, env, params):
        ...         return {"updates": jnp.zeros((), jnp.int32)}
        ...
        ...     def select_action(self, state, obs, key, deterministic=False):
        ...         return jnp.zeros(obs.shape[:1], jnp.int32), {}
        ...
        ...     def learn(self, state, rollout, params, key):
        ...         return {"updates": state["updates"] + 1}, {"reward": rollout.reward.mean()}
        >>> First().init(None, None, None)["updates"].dtype
        dtype('int32')
    """

    several_devices: bool = False
    needs_next: bool = False
    num_minibatches: int = 1

    # --- before training, on the host ---

    def validate(self) -> Any:
        """Raise ValueError where a setting is wrong. The default accepts all."""
        return self

    def check_env(self, env: Environment) -> None:
        """Raise ValueError where the agent cannot act in the environment. The default accepts all."""
        return None

    @abstractmethod
    def init(self, key: PRNGKeyArray, env: Any, params: Any) -> Any:
        """Return a fresh state: parameters, optimiser, counters.

        It is a pytree of arrays in dicts, lists, tuples and flax dataclasses. What is not an array is a static field of
        a dataclass (`struct.field(pytree_node=False)`). A field `normalizer=None` is filled by `prepare`.

        Args:
            key: draws the random weights.
            env: the environment. Of a TradingEnv `window`, `num_actions`, `assets` and `account_names` say the shapes.
            params: the environment's parameters.
        """

    def prepare(self, state: Any, env_params: Any) -> tuple[Any, Any]:
        """Fit normalisation where the state has none yet, and apply it to the environment's parameters.

        The Trainer calls it once for training and once for validation. By default a state with a field `normalizer` has
        the moments of the training bars there. All that the agent sees of a market is scaled by them.
        """
        return standardized(state, env_params)

    def start_from(self, state: Any, earlier: Any, keep_scale: bool) -> Any:
        """Return a fresh state with what an earlier policy has learnt.

        Args:
            state: the state that `init` returned.
            earlier: the state of the earlier policy.
            keep_scale: whether the earlier normalisation of features is kept. Otherwise `prepare` fits it anew.

        Raises ValueError where the earlier policy does not fit. The default takes none.
        """
        raise ValueError(f"{type(self).__name__} cannot start from an earlier policy; leave out `init_from`")

    # --- each update ---

    def halve_rate(self, state: Any) -> tuple[Agent, Any]:
        """Return an agent and a state that learn at half the rate. They must be of the same shapes and types.

        Raises ValueError where the agent has no rate, which is the default.
        """
        raise ValueError(f"{type(self).__name__} has no rate to halve; use `on_divergence='stop'`")

    def anneal(self, state: Any, progress: Float[Array, ""]) -> Any:
        """Return the state with its schedules at `progress`, the finished share of training. The default has none."""
        return state

    @abstractmethod
    def select_action(
        self, state: Any, obs: Any, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Return an action for each observation, with its `log_prob` and `value` where the agent has them.

        Args:
            state: the state of the agent.
            obs: `[b, ...]`, as the environment shows them. In a TradingEnv an `Observation` of `window` `[b, W, A, F]`
                and `account` `[b, A, K]`, both float32. `jnp.asarray(obs)` is flat, `[b, W * A * F + A * K]`.
            key: draws whatever is random.
            deterministic: whether nothing is drawn, as in validations and backtests.

        Returns:
            The actions: int32 `[b]` of discrete ones, float32 `[b, ...]` of others. And a dict, which may have
            `log_prob` and `value`, float32 `[b]`. What it does not have is 0 in the rollout. Where nothing is drawn,
            `value`, and `probabilities` `[b, n]` of discrete actions, are what an explanation shows of it.

        In training it is called for one shard of the environments at a time, under `jax.vmap`.
        """

    @abstractmethod
    def learn(self, state: Any, rollout: Rollout, params: Any, key: PRNGKeyArray) -> tuple[Any, dict[str, Array]]:
        """Return the state after learning from a rollout, and scalar metrics.

        Args:
            state: the state that acted. What is returned has its structure, shapes and dtypes.
            rollout: what `state` experienced.
            params: the environment's prepared parameters.
            key: draws whatever is random.

        An update is rejected where a metric or a float of the state is not finite.
        """

    # --- on disk ---

    def acting_part(self, state: Any) -> Any:
        """Return the state without what only learning needs, such as that of the optimiser. The default is all of it.

        It has the same type, with None in the place of what is left out. `save_model` writes it.
        """
        return state

    def save_model(self, path: str | PathLike[str], state: Any, about: dict[str, Any]) -> None:
        """Write a policy file with the state, and with `about`, plain data. `load_policy(path, agent=...)` reads it."""
        write_own(path, self, [state], about)


def check_paths(paths: int, num_minibatches: int, num_devices: int = 1) -> None:
    """Raise ValueError where devices, or the minibatches of each, cannot have equally many whole paths."""
    said = "paths (`num_envs` / `accounts_per_path`)"
    if paths % num_devices:
        raise ValueError(f"{setting('devices', num_devices)} does not divide the {paths} {said}")
    own = paths // num_devices
    if own % num_minibatches:
        of_each = f" of each of {num_devices} devices" if num_devices > 1 else ""
        raise ValueError(
            f"{setting('num_minibatches', num_minibatches)} does not divide the {own} {said}{of_each}: a minibatch is "
            "whole paths"
        )


class MarketActor(ABC):
    """What acts on market paths, where many accounts share the bars of one path.

    It encodes the bars of a path once, then acts for each account. All methods but `prepare` are pure.
    """

    @abstractmethod
    def prepare(self, state: Any, env_params: Any) -> tuple[Any, Any]:
        """Return the state, and the environment's parameters with normalised features."""

    @abstractmethod
    def encode(self, state: Any, chunk: Float[Array, "*b bars assets features"]) -> Any:
        """Return the contexts of all decisions in chunks of bars: `[*b, decisions, ...]`."""

    @abstractmethod
    def act(
        self, state: Any, context: Any, account: Any, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Return actions for contexts and account features, with their `log_prob` and `value` where there are any.

        In training it is called for one shard of the paths at a time, under `jax.vmap`.
        """


class MarketAgent(Agent, MarketActor):
    """A learner that also acts on market paths.

    Example:
        >>> isinstance(jt.PPOAgent(), jt.MarketAgent)
        True
    """


class WindowActor(struct.PyTreeNode, MarketActor):
    """Acts as an agent that has no encoder of its own: each decision is `select_action` on its whole window.

    Attributes:
        agent: the agent.
        window: bars that a decision sees.
    """

    agent: Any
    window: int = struct.field(pytree_node=False)

    def prepare(self, state: Any, env_params: Any) -> tuple[Any, Any]:
        """Return what the agent prepares."""
        return self.agent.prepare(state, env_params)

    def encode(self, state: Any, chunk: Float[Array, "*b bars A F"]) -> Float[Array, "*b decisions W A F"]:
        """Return the windows of all decisions."""
        flat = chunk.reshape(*chunk.shape[:-2], -1)
        windows = windows_of(flat, self.window)
        return windows.reshape(*windows.shape[:-1], *chunk.shape[-2:])

    def act(
        self, state: Any, context: Array, account: Array, key: PRNGKeyArray, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Return the agent's actions."""
        return self.agent.select_action(state, Observation(context, account), key, deterministic)


def actor_of(agent: Agent | MarketActor, window: int) -> MarketActor:
    """Return the agent where it acts on market paths by itself, and otherwise a `WindowActor` around it."""
    return agent if isinstance(agent, MarketActor) else WindowActor(agent, window)
