"""Training steps of Rejax's PPO: on jaxtrader's own market with dense windows, or on CartPole.

The market is TradingEnv behind the interface of Rejax's gymnax, its window and account flattened to one array, which
Rejax stores for every environment and step. So the environment's work is ours and the difference is the trainer's.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from rejax import PPO
from turns import Work, serve
from workload import random_market

from jaxtrader.envs.trading import Observation, TradingEnv


class Dense:
    """TradingEnv with flat observations and one `done`, as gymnax 0.0.9 had it."""

    def __init__(self, env: TradingEnv) -> None:
        self.env = env

    @property
    def default_params(self) -> Any:
        """The market and the costs."""
        return self.env.default_params

    def reset(self, key: Any, params: Any) -> tuple[Any, Any]:
        """Begin an episode."""
        obs, state = self.env.reset(key, params)
        return flat(obs), state

    def step(self, key: Any, state: Any, action: Any, params: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One bar with auto-reset."""
        obs, state, reward, terminated, truncated, _ = self.env.step(key, state, action, params)
        return flat(obs), state, reward, terminated | truncated, {}

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """One action a position."""
        return spaces.Discrete(self.env.num_actions)

    def observation_space(self, params: Any) -> spaces.Box:
        """The flat array's shape."""
        size = flat(jax.eval_shape(self.env.reset, jax.random.key(0), params)[0], jnp.zeros).shape
        return spaces.Box(-jnp.inf, jnp.inf, size)


def flat(obs: Observation, of: Any = None) -> Any:
    """Window, then account, as one array; with `of`, of arrays made from their shapes."""
    parts = [obs.window, obs.account] if of is None else [of(x.shape) for x in (obs.window, obs.account)]
    return jnp.concatenate([part.reshape(-1) for part in parts])


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """`updates` iterations of rollout and update: CartPole where no `bars` are given."""
    if "bars" in settings:
        env = TradingEnv(random_market(settings["bars"]), window=settings["window"])
        place = {"env": Dense(env), "env_params": env.default_params}
    else:
        place = {"env": "CartPole-v1"}
    envs, length, updates = settings["envs"], settings["length"], settings["updates"]
    algorithm = PPO.create(
        **place,
        num_envs=envs,
        num_steps=length,
        num_epochs=settings["epochs"],
        num_minibatches=settings["minibatches"],
        learning_rate=1e-3,
        max_grad_norm=0.5,
        agent_kwargs={"hidden_layer_sizes": settings["net"], "activation": "tanh"},
    )

    def iterate(state: Any) -> Any:
        return jax.lax.fori_loop(0, updates, lambda _, state: algorithm.train_iteration(state), state)

    state = jax.jit(algorithm.init_state)(jax.random.PRNGKey(0))
    began = time.perf_counter()
    compiled = jax.jit(iterate, donate_argnums=0).lower(state).compile()
    about = {"compile_seconds": time.perf_counter() - began}
    box = [state]

    def work() -> int:
        box[0] = jax.block_until_ready(compiled(box[0]))
        return updates * envs * length

    return work, about


if __name__ == "__main__":
    serve(prepare, "rejax", "gymnax", "jax", "flax")
