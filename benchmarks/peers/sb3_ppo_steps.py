"""Training steps of Stable-Baselines3's PPO on gym-trading-env: what a user of both has today."""

from __future__ import annotations

from typing import Any

import torch
from gym_steps import bars_of, trading_env
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from turns import Work, serve


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """Some iterations of rollout and update on the bars in `market`: MLP of `net` for actor and critic each."""
    torch.set_num_threads(settings["threads"])
    frame = bars_of(settings["market"])
    make = lambda: trading_env(frame, settings["window"], settings["episode"])  # noqa: E731
    envs, length = settings["envs"], settings["length"]
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([make] * envs),
        n_steps=length,
        batch_size=envs * length // settings["minibatches"],
        n_epochs=settings["epochs"],
        policy_kwargs={"net_arch": settings["net"], "activation_fn": torch.nn.Tanh},
        device="cpu",
    )

    def work() -> int:
        steps = settings["updates"] * envs * length
        model.learn(steps)
        return steps

    return work, {}


if __name__ == "__main__":
    serve(prepare, "stable-baselines3", "torch", "gym-trading-env", "gymnasium")
