"""Stable-Baselines3's PPO on a market, trained in slices of time at the word of a parent process.

    python benchmarks/peers/sb3_market.py market.npz config.json weights_folder

It runs in an environment of its own (stable-baselines3 and NumPy, without JAX and jaxtrader), which `install.py` makes.
`market.npz` is what `MarketData.load` reads. `config.json` may set any field of `Config` and of `Settings`. After each
slice of training it prints a line, `{"steps": ..., "seconds": ..., "over": ..., "file": ...}`, and waits for a line
`go` or `stop`. `over` says whether it was the last. Seconds are of rollouts and updates only: the clock stands while it
imports, warms up, writes weights and waits.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy_market import MarketData, NumpyMarket, Settings
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv


@dataclass(frozen=True)
class Config:
    """PPO's settings by SB3's names, and how to run. Defaults are the fastest learner found on an AR(1) market.

    Attributes:
        n_envs: accounts side by side. n_steps: bars of each between two updates.
        net: widths of the hidden tanh layers, the same for the separate actor and critic.
        reward_scale: log rewards are multiplied by this, about 1 / volatility a bar: else the critic's noise drowns
            them, since SB3 scales no value targets.
        slice_seconds: of training between two lines.
        total_steps: where training ends by itself. With `linear` the rate falls to 0 until there.
        threads: of torch, and 0 leaves its own choice. With nets this small a second gains a fifth.
    """

    n_envs: int = 256
    n_steps: int = 16
    batch_size: int = 1024
    n_epochs: int = 4
    learning_rate: float = 1e-3
    linear: bool = False
    gamma: float = 0.95
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    log_std_init: float = 0.0
    net: tuple[int, ...] = (64, 64)
    reward_scale: float = 100.0
    seed: int = 0
    slice_seconds: float = 0.25
    total_steps: int = 10**9
    threads: int = 1


def main() -> None:
    """Train until the parent says stop, or `total_steps`."""
    market_file, config_file, folder = map(Path, sys.argv[1:4])
    config, settings = read_config(json.loads(config_file.read_text()))
    data = MarketData.load(market_file)
    if config.threads:
        torch.set_num_threads(config.threads)
    make_model(config, settings, data).learn(3 * config.n_envs * config.n_steps)  # a throw-away: warms torch up
    folder.mkdir(parents=True, exist_ok=True)

    def report(model: PPO, seconds: float, over: bool) -> bool:
        path = folder / f"weights_{model.num_timesteps}.npz"
        np.savez(path, **weights(model))
        said = {"steps": model.num_timesteps, "seconds": seconds, "over": over, "file": str(path)}
        print(json.dumps(said), flush=True)
        return sys.stdin.readline().strip() == "go"

    make_model(config, settings, data).learn(config.total_steps, Slices(config.slice_seconds, report))


def read_config(given: dict[str, Any]) -> tuple[Config, Settings]:
    """The settings of PPO and of the account. Raises ValueError at a name that is neither's."""
    given = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
    names = [{f.name for f in fields(kind)} for kind in (Config, Settings)]
    if unknown := given.keys() - names[0] - names[1]:
        raise ValueError(f"{', '.join(sorted(unknown))}: no setting of Config or Settings")
    config, settings = ({k: v for k, v in given.items() if k in known} for known in names)
    return Config(**config), Settings(**settings)


def make_model(config: Config, settings: Settings, data: MarketData) -> PPO:
    """A fresh PPO over fresh accounts."""
    rate = config.learning_rate
    return PPO(
        "MlpPolicy",
        MarketVecEnv(NumpyMarket(data, settings, config.n_envs, config.seed), config.reward_scale),
        learning_rate=(lambda left: rate * max(left, 0.0)) if config.linear else rate,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={"net_arch": list(config.net), "activation_fn": torch.nn.Tanh, **log_std(config, settings)},
        seed=config.seed,
        device="cpu",
    )


def log_std(config: Config, settings: Settings) -> dict[str, float]:
    """The first log deviation of a continuous policy, as an argument of SB3's policy."""
    return {"log_std_init": config.log_std_init} if settings.positions == "continuous" else {}


class Slices(BaseCallback):
    """Keeps the training clock, and calls `report(model, seconds, over)` where a slice is full, and at the end."""

    def __init__(self, slice_seconds: float, report: Callable[[PPO, float, bool], bool]) -> None:
        super().__init__()
        self.slice_seconds, self.report = slice_seconds, report
        self.seconds = self.reported = 0.0
        self.going_on = True

    def _on_training_start(self) -> None:
        self.resumed = time.perf_counter()

    def _on_rollout_start(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self.resumed
        if self.seconds - self.reported >= self.slice_seconds:
            self.reported = self.seconds
            self.going_on = self.report(self.model, self.seconds, False)
            now = time.perf_counter()
        self.resumed = now

    def _on_step(self) -> bool:
        return self.going_on

    def _on_training_end(self) -> None:
        if self.going_on:
            self.seconds += time.perf_counter() - self.resumed
            self.report(self.model, self.seconds, True)


def weights(model: PPO) -> dict[str, np.ndarray]:
    """The actor: `kernel_i [in, out]` and `bias_i` of each layer, tanh between them. `log_std` if it is continuous."""
    policy = model.policy
    layers = [x for x in policy.mlp_extractor.policy_net if isinstance(x, torch.nn.Linear)] + [policy.action_net]
    out = {}
    for i, layer in enumerate(layers):
        out[f"kernel_{i}"] = layer.weight.detach().numpy().T.copy()
        out[f"bias_{i}"] = layer.bias.detach().numpy().copy()
    if hasattr(policy, "log_std"):
        out["log_std"] = policy.log_std.detach().numpy().copy()
    return out


class MarketVecEnv(VecEnv):
    """SB3's face of a NumpyMarket: all accounts in one call, and a dict of information only where an episode ended."""

    def __init__(self, market: NumpyMarket, reward_scale: float) -> None:
        self.market, self.reward_scale = market, reward_scale
        self.quiet: list[dict[str, Any]] = [{} for _ in range(market.num_envs)]
        positions = market.settings.positions
        continuous = positions == "continuous"
        action = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(len(positions))
        super().__init__(market.num_envs, spaces.Box(-np.inf, np.inf, (market.observation_size,), np.float32), action)

    def reset(self) -> np.ndarray:
        """New episodes everywhere."""
        return self.market.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One bar. SB3 bootstraps a time limit with `terminal_observation` where `TimeLimit.truncated` is set."""
        obs, reward, terminated, truncated, final = self.market.step(self.actions.reshape(-1))
        done = terminated | truncated
        infos = self.quiet
        if done.any():
            infos = list(infos)
            for i in np.flatnonzero(done):
                limit = bool(truncated[i] and not terminated[i])
                infos[i] = {"terminal_observation": final[i], "TimeLimit.truncated": limit}
        return obs, np.float32(reward * self.reward_scale), done, infos

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """One value for all: SB3 asks for `render_mode` only."""
        return [getattr(self.market, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: accounts are arrays, no objects."""
        raise NotImplementedError

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **keywords: Any) -> list[Any]:
        """Refused: accounts are arrays, no objects."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never."""
        return [False] * self.num_envs


if __name__ == "__main__":
    main()
