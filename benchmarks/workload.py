"""The work that is timed: random bars, and the Trainer's own training chunk over them or over another environment.

Speed does not depend on what the bars hold, so they are a random walk with standard normal features.
"""

from __future__ import annotations

import math
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

import jaxtrader as jt
from jaxtrader import devices
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.training.train_settings import NO_LIMIT
from jaxtrader.training.update import TrainState, begin_rollouts, init_agent, place_train_state, run_chunk

FEATURES = 8
QUICK = {"envs": 16, "length": 16, "window": 4, "bars": 2_000}  # the same everywhere: tests compile it once


def candles(open_: np.ndarray, close: np.ndarray, freq: str = "h", **columns: Any) -> pd.DataFrame:
    """A table of bars that never leave their open and close, and further columns."""
    prices = {"open": open_, "high": np.maximum(open_, close), "low": np.minimum(open_, close), "close": close}
    index = pd.date_range("2000-01-03", periods=len(close), freq=freq, tz="UTC")
    return pd.DataFrame({**prices, "volume": 1.0, **columns}, index)


def opens_of(close: np.ndarray) -> np.ndarray:
    """The close before, along the first axis."""
    return np.concatenate([close[:1], close[:-1]])


def random_frame(bars: int, features: int = FEATURES, seed: int = 0) -> pd.DataFrame:
    """Hourly bars of a random walk and columns `f0`, `f1`, ..."""
    rng = np.random.default_rng(seed)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, bars)))
    return candles(opens_of(close), close, **{f"f{i}": rng.normal(size=bars) for i in range(features)})


def save_bars(path: Path, bars: int) -> None:
    """Write the columns of `random_market(bars)` as .npz, for the peers."""
    frame = random_frame(bars)
    np.savez(path, **{name: frame[name].to_numpy() for name in frame})


def random_market(bars: int, features: int = FEATURES) -> jt.Market:
    """One history of `random_frame`."""
    frame = random_frame(bars, features)
    return jt.Market.from_bars(jt.load_bars(frame), features=[f"f{i}" for i in range(features)])


@cache
def control_task(name: str) -> tuple[Any, Any]:
    """One of gymnax's environments and its parameters. Another instance would compile anew."""
    import gymnax  # some seconds: only where it is used

    return gymnax.make(name)


class Dense:
    """TradingEnv as an ordinary environment: its observation is one flat array, the window and then the account."""

    def __init__(self, env: jt.TradingEnv) -> None:
        self.env, self.num_actions = env, env.num_actions

    @property
    def default_params(self) -> Any:
        """The market and the costs."""
        return self.env.default_params

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        """Begin an episode."""
        obs, state = self.env.reset(key, params)
        return self.flat(obs), state

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, Any, Any, Any, Any, dict[str, Any]]:
        """One bar with auto-reset."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        final = self.flat(info["final_observation"])
        return self.flat(obs), state, reward, terminated, truncated, {"final_observation": final}

    def action_space(self, params: Any = None) -> Any:
        """One action a position."""
        return self.env.action_space(params)

    def observation_space(self, params: Any) -> Any:
        """The flat array's Box."""
        from gymnax.environments import spaces

        parts = self.env.observation_space(params).spaces.values()
        return spaces.Box(-jnp.inf, jnp.inf, (sum(math.prod(part.shape) for part in parts),))

    def flat(self, obs: Any) -> Any:
        """Window, then account."""
        return jnp.concatenate([obs.window.reshape(-1), obs.account.reshape(-1)])


class WindowAgent(jt.PPOAgent):
    """PPO on a TradingEnv that is stepped as an ordinary environment: the encoder reads every stored window by itself.

    The same network, weights and numbers as on paths. What it lacks is that neighbouring windows share their bars.
    """

    def _decision_inputs(self, state: PPOState, batch: dict[str, Any], params: Any) -> tuple[Any, Any]:
        seen = batch["observations"]
        return seen.window, seen.account[:, :, None]


def begin(
    env: Any, params: Any, agent: jt.PPOAgent, rollouts: Any, seed: int = 0, shapes: bool = False, mesh: Any = None
) -> tuple[TrainState, jt.PPOAgent, Any]:
    """A training that is about to begin, as `run_chunk` takes it: its state, the agent and the prepared parameters.

    With `shapes` the state is no numbers, only their shapes: enough to compile, and nothing else is compiled then.
    """
    make: Any = jax.eval_shape if shapes else lambda function, *arguments: function(*arguments)
    agent = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), agent.validate())
    init, start, rest = jax.random.split(jax.random.key(seed), 3)
    state, params = agent.prepare(make(partial(init_agent, env=env), agent, init, params), params)
    envs, zero = make(partial(begin_rollouts, rollouts=rollouts), start, params), jnp.zeros((), jnp.int32)
    train_state = TrainState(state, envs, rest, zero, zero, jnp.ones((), bool))
    train_state = make(partial(place_train_state, mesh=mesh), train_state)
    return train_state, agent, params if shapes else devices.place(params, mesh, devices.REPLICATED)


class Training:
    """A training chunk of `updates` updates, compiled and not yet run. Each call runs it once more (not of `shapes`).

    Attributes:
        steps: environment steps a call.
        compiled: the executable, for its cost and memory analysis.
        trace_seconds, compile_seconds: what lowering took, and lowering and compiling together.
        rollout: shapes and dtypes of one rollout.
    """

    def __init__(
        self,
        env: Any,
        params: Any,
        agent: jt.PPOAgent,
        rollouts: Any,
        updates: int = 2,
        shapes: bool = False,
        mesh: Any = None,
    ) -> None:
        train_state, agent, params = begin(env, params, agent, rollouts, shapes=shapes, mesh=mesh)
        limits = {name: jnp.asarray(NO_LIMIT, jnp.int32) for name in ("updates", "episodes")}
        count = jnp.asarray(updates, jnp.int32)
        collect = lambda envs, state: rollouts.collect(envs, agent, state, params, jax.random.key(0))  # noqa: E731
        if mesh is not None:
            agent, limits, count = devices.place((agent, limits, count), mesh, devices.REPLICATED)
        self.devices = 1 if mesh is None else mesh.size
        self.rollout = jax.eval_shape(collect, train_state.env_states, train_state.agent_state)[1]
        self.steps = updates * self.rollout.reward.size
        began = time.perf_counter()
        lowered = run_chunk.lower(train_state, agent, params, limits, count, rollouts=rollouts, mesh=mesh)
        self.trace_seconds = time.perf_counter() - began
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        self.train_state, self.constants = train_state, (agent, params, limits, count)
        self.updates, self.calls = updates, 0

    @property
    def working_bytes(self) -> int:
        """What XLA sets aside beyond the arguments, for each transition of a rollout."""
        of_each_device = self.compiled.memory_analysis().temp_size_in_bytes
        return round(self.devices * of_each_device / self.rollout.reward.size)

    def __call__(self) -> float:
        """Environment steps a second of one chunk."""
        began = time.perf_counter()
        self.train_state, _ = self.compiled(self.train_state, *self.constants)
        jax.block_until_ready(self.train_state)
        seconds = time.perf_counter() - began
        self.calls += 1
        assert int(self.train_state.updates) == self.updates * self.calls, (
            "an update was rejected: its speed means nothing"
        )
        return self.steps / seconds
