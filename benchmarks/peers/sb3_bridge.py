"""Stable-Baselines3 on our own environments: its checker, and how much of a known optimum its PPO learns there.

    python benchmarks/peers/sb3_bridge.py [--steps 300000]

It needs jaxtrader with its extra `sb3`. It prints what the checker says of each form of the environment, the steps a
second, and the backtest of the model. It also prints the share of the optimum of an AR(1) market before and after
training. It ends with an error where the checker warns of a fault, or the model learns less than half of the optimum.
"""

from __future__ import annotations

import argparse
import time
import warnings

import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import VecNormalize

import jaxtrader as jt
from jaxtrader.bridges.sb3 import SB3VecEnv, to_sb3

PROCESS = {"volatility": 0.02, "r2": 0.05, "persistence": 0.8}
SETTINGS = {"window": 1, "rules": jt.Rules(rebalance_band=0.0)}


def check() -> None:
    """Run SB3's checker on each form of actions and observations."""
    single = jt.Market.from_bars(jt.load_bundled("IBM"))
    several = jt.Market.from_bars(jt.load_bundled(), align=True)
    forms = {
        "positions": jt.to_gymnasium(jt.TradingEnv(single)),
        "dict": jt.to_gymnasium(jt.TradingEnv(single, window=4), observation="dict"),
        "continuous": jt.to_gymnasium(jt.TradingEnv(single, positions="continuous")),
        "weights": jt.to_gymnasium(jt.TradingEnv(several, positions="weights")),
    }
    for name, env in forms.items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            check_env(env)
        # It would have images in a window of three axes, and the account in one.
        said = [str(each.message) for each in said if "unconventional shape" not in str(each.message)]
        said = [text for text in said if "image" not in text and "unclosed file" not in text]
        print(f"checker, {name}: {said or 'no warning'}")
        assert all("recommend" in text for text in said)  # weights are from 0 to 1


def share(model: PPO, steps: int = 128) -> float:
    """Return the share of the optimum that a model's mode earns, of sums over 256 episodes on bars of another seed."""
    vector = gymnasium.make_vec(
        "jaxtrader.gymnasium:jaxtrader/AR1-v0", num_envs=256, bars=100_000, data_seed=1, **PROCESS, **SETTINGS
    )
    seen, _ = vector.reset(seed=1)
    mine = best = 0.0
    for _ in range(steps):
        action, _ = model.predict(seen, deterministic=True)
        seen, *_, info = vector.step(action)
        flat = info["flat_expected_reward"].sum()
        mine += info["expected_reward"].sum() - flat
        best += info["best_expected_reward"].sum() - flat
    return mine / best


def main() -> None:
    """Check, train, score and backtest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300_000)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    check()
    process = jt.datasets.AR1(**PROCESS)
    env = jt.TradingEnv(process.market(100_000, seed=0), **SETTINGS)
    vector = to_sb3(env, 256)
    assert isinstance(vector, SB3VecEnv)
    scaled = VecNormalize(vector, norm_obs=False, gamma=0.95)
    model = PPO(
        "MlpPolicy",
        scaled,
        n_steps=16,
        batch_size=1024,
        n_epochs=4,
        learning_rate=1e-3,
        gamma=0.95,
        seed=0,
        device="cpu",
    )
    before, began = share(model), time.perf_counter()
    model.learn(steps)
    rate, after = model.num_timesteps / (time.perf_counter() - began), share(model)
    print(f"share of the optimum: {before:.2f} before, {after:.2f} after {model.num_timesteps:,} steps")
    print(f"{rate:,.0f} steps/s")
    result = jt.backtest(model, process.market(2_000, seed=2), env=vector)
    print(result)
    assert after > 0.5


if __name__ == "__main__":
    main()
