"""Steps of TorchTrade's vectorised environment with random actions, reset where an episode ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torchtrade.envs.offline.vectorized_sequential import (
    VectorizedSequentialTradingEnv,
    VectorizedSequentialTradingEnvConfig,
)
from turns import Work, serve


def prepare(settings: dict[str, Any]) -> tuple[Work, dict[str, Any]]:
    """`steps` steps of `envs` environments on the bars in `market`: spot, flat or long, fee 6 bp."""
    with np.load(settings["market"]) as stored:
        frame = pd.DataFrame({name: stored[name] for name in stored.files})
    frame.insert(0, "timestamp", pd.date_range("2000-01-01", periods=len(frame), freq="h"))
    features = [name for name in frame if name.startswith("f")]

    def with_features(bars: pd.DataFrame) -> pd.DataFrame:
        return bars.rename(columns={name: f"features_{name}" for name in features}).reset_index()

    env = VectorizedSequentialTradingEnv(
        frame,
        VectorizedSequentialTradingEnvConfig(
            num_envs=settings["envs"],
            window_sizes=settings["window"],
            max_traj_length=settings["episode"],
            transaction_fee=6e-4,
            action_levels=[0.0, 1.0],
        ),
        with_features,
    )
    torch.set_num_threads(settings["threads"])
    box = [env.reset()]

    def work() -> int:
        with torch.no_grad():
            for _ in range(settings["steps"]):
                box[0]["action"] = torch.randint(0, 2, (settings["envs"],))
                _, box[0] = env.step_and_maybe_reset(box[0])
        return settings["steps"] * settings["envs"]

    shapes = {key: list(value.shape[1:]) for key, value in box[0].items() if "market" in key}
    return work, {"observation": str(shapes)}


if __name__ == "__main__":
    serve(prepare, "torchtrade", "torchrl", "tensordict", "torch")
