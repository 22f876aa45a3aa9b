"""Training steps of Stable-Baselines3's PPO, or of SBX's (the same in JAX), on gym-trading-env."""

from __future__ import annotations

import sys
from typing import Any

import torch
from gym_steps import bars_of, trading_env
from stable_baselines3.common.vec_env import DummyVecEnv
from turns import Work, serve


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """Some iterations of rollout and update on the bars in `market`: MLP of `net` for actor and critic each."""
    torch.set_num_threads(settings["threads"])
    if settings["trainer"] == "SBX":
        import flax.linen as nn
        from sbx import PPO

        tanh = nn.tanh
    else:
        from stable_baselines3 import PPO

        tanh = torch.nn.Tanh
    frame = bars_of(settings["market"])
    make = lambda: trading_env(frame, settings["window"], settings["episode"])  # noqa: E731
    envs, length = settings["envs"], settings["length"]
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([make] * envs),
        n_steps=length,
        batch_size=envs * length // settings["minibatches"],
        n_epochs=settings["epochs"],
        policy_kwargs={"net_arch": settings["net"], "activation_fn": tanh},
        device="cpu",
    )

    begun = False

    def work() -> int:
        nonlocal begun
        steps = settings["updates"] * envs * length
        model.learn(steps, reset_num_timesteps=not begun)  # else all environments begin anew, which takes them long
        begun = True
        return steps

    return work, {}


if __name__ == "__main__":
    jax_too = ("sbx-rl", "jax") if '"SBX"' in sys.argv[1] else ()
    serve(prepare, "stable-baselines3", *jax_too, "torch", "gym-trading-env", "gymnasium")
