"""Training steps of Rejax's PPO: on jaxtrader's own market with dense windows, or on CartPole.

The market is TradingEnv behind the interface of Rejax's gymnax, its window and account flattened to one array, which
Rejax stores for every environment and step. The money is ours. Here the window is written out and stepped through
TradingEnv.step, where our trainer has paths. That is part of the difference.
"""

from __future__ import annotations

import time
from typing import Any

import jax
from rejax import PPO
from turns import Work, serve
from workload import Dense, random_market

from jaxtrader.envs.trading import TradingEnv


class Older(Dense):
    """With one `done`, as gymnax 0.0.9 had it."""

    def step(self, *arguments: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One bar with auto-reset."""
        obs, state, reward, terminated, truncated, _ = super().step(*arguments)
        return obs, state, reward, terminated | truncated, {}


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """`updates` iterations of rollout and update: CartPole where no `bars` are given."""
    if "bars" in settings:
        env = TradingEnv(random_market(settings["bars"]), window=settings["window"])
        place = {"env": Older(env), "env_params": env.default_params}
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
