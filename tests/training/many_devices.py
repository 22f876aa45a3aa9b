"""Trains on one device and on eight and prints how far apart the results are, for test_devices.py.

It needs a process of its own, in which XLA splits the CPU into eight devices. It prints one JSON object: the largest
relative difference of a number of the raw gradient, the largest difference of a parameter, and that of the episodes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import jax
import numpy as np
import optax

import jaxtrader as jt
from jaxtrader.training.train_result import TrainResult

UPDATES = 20
NO_CLIP = {"max_grad_norm": 1e9, "hidden": (8,), "num_epochs": 2, "num_minibatches": 2}


def train(env: Any, agent: jt.PPOAgent, devices: int, updates: int, **size: int) -> TrainResult:
    size = {"num_envs": 32, "rollout_length": 8, **size}
    steps = updates * size["num_envs"] * size["rollout_length"]
    with tempfile.TemporaryDirectory() as folder:
        return jt.Trainer(
            env, agent, total_steps=steps, devices=devices, updates_per_chunk=10, run_dir=folder, progress=False, **size
        ).train()


def numbers(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def apart(env: Any, agent: jt.PPOAgent, **size: int) -> dict[str, float]:
    """Adam's first moment after one update is the sum of its raw gradients, weighted: nothing is clipped."""
    runs = [[train(env, agent, devices, updates, **size) for updates in (1, UPDATES)] for devices in (1, 8)]
    one, eight = (numbers(optax.tree.get(first.state.opt_state, "mu")) for first, _ in runs)
    scale = float(np.abs(one).max())
    assert scale > 1e-6
    (begun, alone), (_, together) = ([numbers(run.state.params) for run in pair] for pair in runs)
    assert np.abs(alone - begun).max() > 1e-3, "it must have learnt something"
    return {
        "gradient": float(np.abs(one - eight).max()) / scale,
        "parameters": float(np.abs(alone - together).max()),
        "episodes": abs(runs[0][1].episodes - runs[1][1].episodes),
    }


if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    market = jt.Market.from_bars(jt.load_bundled()).split(0.3, 0.3)[0]
    env = jt.TradingEnv(market, window=4, episode_length=16, positions="continuous")
    json.dump(apart(env, jt.PPOAgent(**NO_CLIP), accounts_per_path=2), sys.stdout)
