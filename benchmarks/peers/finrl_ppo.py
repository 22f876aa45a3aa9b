"""FinRL's StockTradingEnv under Stable-Baselines3's PPO: trained on some stocks, and traded on later bars.

It reads one JSON from its argument: `market`, an .npz of `close` [T, A], `features` [T, A, F] and the row `cut` at
which the test begins, and the settings. It prints one JSON: steps, seconds, and what 1 became on the test.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

CASH, SHARES = 1_000_000, 100  # FinRL's own tutorials begin with so much, and trade so many shares at most
SCALE = 1e-4  # of rewards, also theirs


def environment() -> Any:
    """FinRL's class, from its file: its package imports brokers and downloaders."""
    (main,) = [file for file in importlib.metadata.files("finrl") or () if str(file) == "finrl/main.py"]
    root = Path(str(main.locate())).parent
    spec = importlib.util.spec_from_file_location("finrl_env", root / "meta/env_stock_trading/env_stocktrading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StockTradingEnv


def table(close: np.ndarray, features: np.ndarray) -> pd.DataFrame:
    """The bars in FinRL's long form: one row a day and stock, under the number of the day."""
    days, stocks = close.shape
    columns = {f"f{i}": features[:, :, i].ravel() for i in range(features.shape[2])}
    frame = pd.DataFrame(
        {"tic": np.tile([f"S{i:02d}" for i in range(stocks)], days), "close": close.ravel(), **columns}
    )
    frame["date"] = np.repeat(pd.bdate_range("2000-01-03", periods=days).strftime("%Y-%m-%d"), stocks)
    frame.index = np.repeat(np.arange(days), stocks)
    return frame


def main() -> None:
    """Train, trade the test, and print the figures."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    stored = np.load(settings["market"])
    close, features, cut = stored["close"], stored["features"], int(stored["cut"])
    stocks, names = close.shape[1], [f"f{i}" for i in range(features.shape[2])]
    trading_env = environment()

    def make(start: int, end: int) -> Any:
        return trading_env(
            df=table(close[start:end], features[start:end]),
            stock_dim=stocks,
            hmax=SHARES,
            initial_amount=CASH,
            num_stock_shares=[0] * stocks,
            buy_cost_pct=[settings["cost"]] * stocks,
            sell_cost_pct=[settings["cost"]] * stocks,
            reward_scaling=SCALE,
            state_space=1 + (2 + len(names)) * stocks,
            action_space=stocks,
            tech_indicator_list=names,
            print_verbosity=10**9,
        )

    model = PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: make(0, cut)] * settings["envs"]),
        n_steps=settings["length"],
        batch_size=settings["envs"] * settings["length"] // settings["minibatches"],
        n_epochs=settings["epochs"],
        policy_kwargs={"net_arch": settings["net"], "activation_fn": torch.nn.Tanh},
        seed=settings["seed"],
        device="cpu",
    )
    began = time.perf_counter()
    model.learn(settings["steps"])
    seconds = time.perf_counter() - began
    test = make(cut, len(close))
    seen, _ = test.reset()
    ended = False
    while not ended:
        action, _ = model.predict(np.asarray(seen, np.float32), deterministic=True)
        seen, _, ended, _, _ = test.step(action)
    became = float(test.asset_memory[-1] / CASH)
    versions = {name: importlib.metadata.version(name) for name in ("finrl", "stable-baselines3", "torch")}
    print(json.dumps({"steps": model.num_timesteps, "seconds": seconds, "became": became, "versions": versions}))


if __name__ == "__main__":
    main()
