"""Stable-Baselines3 in our environments: its checker, its vectors, and what its PPO learns.

It needs the extra `sb3`, which brings torch. So these tests run where they are asked for: `python -m pytest -m sb3`.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import jaxtrader as jt
from jaxtrader.envs.trading import TradingEnv

pytestmark = pytest.mark.sb3

PROCESS = {"volatility": 0.02, "r2": 0.05, "persistence": 0.8}
SETTINGS = {"window": 1, "rules": jt.Rules(rebalance_band=0.0)}


@pytest.mark.parametrize("form", ["positions", "dict", "continuous", "weights", "trailing stop"])
def test_its_checker_finds_no_fault(form: str, env: TradingEnv, portfolio: TradingEnv) -> None:
    from stable_baselines3.common.env_checker import check_env

    settings: dict[str, Any] = {"continuous": {"positions": "continuous"}, "trailing stop": {"trailing_stop": 0.03}}
    own = portfolio if form == "weights" else jt.TradingEnv(env.market, **{"window": 4} | settings.get(form, {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        check_env(jt.to_gymnasium(own, observation="dict" if form == "dict" else "flat"))
    said = [str(each.message) for each in caught if each.category is UserWarning]
    # It would have images in a window of three axes, an array of two in one, and weights from -1 on.
    known = ("unconventional shape", "image", "recommend")
    assert [text for text in said if not any(word in text for word in known)] == []


def test_its_vector_resets_by_itself_and_tells_the_last_observation(env: TradingEnv) -> None:
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor

    from jaxtrader.bridges.sb3 import to_sb3

    vector = to_sb3(env, 4)
    assert isinstance(vector, VecEnv)
    vector.seed(3)
    first = vector.reset()
    returns = np.zeros(4)
    for number in range(env.episode_length):
        seen, rewards, over, infos = vector.step(np.full(4, 2))
        returns += rewards
        assert over.all() == (number + 1 == env.episode_length)
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"]
        assert info["terminal_observation"] in vector.observation_space
        assert (info["terminal_observation"] != seen[i]).any()
        assert info["episode"]["l"] == env.episode_length
        assert info["episode"]["r"] == pytest.approx(returns[i])
    vector.seed(3)
    np.testing.assert_array_equal(vector.reset(), first)
    assert VecMonitor(vector).reset().shape == first.shape
    with pytest.raises(NotImplementedError, match="make others with to_sb3"):
        vector.set_attr("window", 3)


def share_of_the_optimum(model: Any, steps: int = 128) -> float:
    """What a model's mode earns of the known optimum, over 256 episodes on bars of another seed."""
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


def test_its_ppo_learns_a_known_optimum_and_is_backtested() -> None:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

    from jaxtrader.bridges.sb3 import to_sb3

    torch.set_num_threads(1)
    process = jt.datasets.AR1(**PROCESS)
    vector = to_sb3(TradingEnv(process.market(100_000, seed=0), **SETTINGS), 256)
    size = {"n_steps": 16, "batch_size": 1024, "n_epochs": 4, "learning_rate": 1e-3, "gamma": 0.95}
    model = PPO("MlpPolicy", VecNormalize(vector, norm_obs=False, gamma=0.95), seed=0, device="cpu", **size)
    before = share_of_the_optimum(model)
    model.learn(100_000)
    # A sign of life costs nothing here: without training it is near 0, and a fault of the bridge leaves it there.
    assert share_of_the_optimum(model) > max(0.6, before + 0.3)
    # Without VecNormalize: at a time limit it adds the value of the last observation to the reward itself.
    PPO("MlpPolicy", to_sb3(vector.trading_env, 16), n_steps=512, batch_size=4096, n_epochs=1, device="cpu").learn(
        8_192
    )
    for wrapped in (VecNormalize(vector), VecFrameStack(vector, 2)):
        with pytest.raises(ValueError, match="shows other observations than the environment in it"):
            jt.backtest(model, process.market(2_000, seed=2), env=wrapped)
    result = jt.backtest(model, process.market(2_000, seed=2), env=vector)
    assert len(set(result.targets[:, 0])) > 1
    assert result.turnover.sum() > 1


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    importlib.import_module("jaxtrader.examples.stable_baselines3").main(quick=True)
    assert "buy and hold" in capsys.readouterr().out
