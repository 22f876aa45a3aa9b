"""What a policy file must hold: each damage is one sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxtrader import files
from jaxtrader.agents import state
from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.envs.state import EnvParams
from jaxtrader.envs.trading import TradingEnv


@pytest.fixture(scope="module")
def stored(env: TradingEnv, agent: PPOAgent, raw_params: EnvParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy file with a box of actions."""
    path = tmp_path_factory.mktemp("state") / "policy.pkl"
    continuous = dataclasses.replace(env, positions="continuous")
    fresh: PPOState = agent.prepare(agent.init(jax.random.key(0), continuous, raw_params), raw_params)[0]
    state.save(path, fresh, {})
    return path


def drop(*names: str) -> Callable[[dict[str, Any]], None]:
    def damage(content: dict[str, Any]) -> None:
        for name in names[:-1]:
            content = content[name]
        del content[names[-1]]

    return damage


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no actions": drop("actions"),
    "no bounds": drop("actions", "bounds"),
    "bounds of nothing": lambda c: c["actions"].update(bounds=None),
    "infinite bounds": lambda c: c["actions"].update(bounds=[np.float32([-np.inf]), np.float32([1])]),
    "bounds of two": lambda c: c["actions"].update(bounds=[np.float32([-1, -1]), np.float32([1, 1])]),
    "text as bounds": lambda c: c["actions"].update(bounds="wide"),
    "unknown kind": lambda c: c["actions"].update(kind="heap"),
    "another size": lambda c: c["actions"].update(size=2, shape=[2]),
    "discrete with bounds": lambda c: c["actions"].update(kind="discrete"),
    "a box of before its law was written down": drop("actions", "law"),
    "a box of another law": lambda c: c["actions"].update(law="squashed normal"),
    "no deviation": drop("params", "log_std"),
    "no head": drop("params", "policy"),
    "no params": drop("params"),
    "no network": drop("network"),
    "another network": lambda c: c["network"].update(depth=3),
    "another encoder": lambda c: c["network"].update(encoder="tcn"),
    "another kind of network": lambda c: c["network"].update(kind="portfolio"),
    "unknown kind of network": lambda c: c["network"].update(kind="graph"),
    "unknown encoder": lambda c: c["network"].update(encoder="lstm"),
    "unknown dtype": lambda c: c["network"].update(compute_dtype="int8"),
    "a kernel of another shape": lambda c: c["params"].update(first_bias=np.zeros(3, np.float32)),
    "half a normaliser": drop("normalizer", "std"),
    "no about": drop("about"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_policy_is_one_sentence(damage: str, stored: Path, tmp_path: Path) -> None:
    content = files.load(stored, "policy")
    DAMAGES[damage](content)
    files.save(tmp_path / "policy.pkl", "policy", content)
    with pytest.raises(
        files.FileError, match=r"is a policy of another version, or damaged \(.*\); train it again"
    ) as no:
        state.load(tmp_path / "policy.pkl")
    assert "\n" not in str(no.value)


def test_the_sound_one_is_read_and_a_number_that_is_none_is_named(stored: Path, tmp_path: Path) -> None:
    loaded, about = state.load(stored)
    assert about == {}
    assert loaded.network.actions.kind == "box"
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(loaded))
    content = files.load(stored, "policy")
    content["params"]["log_std"] = np.float32([np.nan])
    files.save(tmp_path / "policy.pkl", "policy", content)
    with pytest.raises(files.FileError, match="weights that are not finite"):
        state.load(tmp_path / "policy.pkl")


def test_a_file_of_before_there_were_portfolios_is_read(stored: Path, tmp_path: Path) -> None:
    content = files.load(stored, "policy")
    assert content["network"].pop("kind") == "single"
    files.save(tmp_path / "policy.pkl", "policy", content)
    assert state.load(tmp_path / "policy.pkl")[0].network == state.load(stored)[0].network


def test_a_portfolios_state_is_resized_to_any_number_of_assets(
    portfolio: TradingEnv, agent: PPOAgent, tmp_path: Path
) -> None:
    env = dataclasses.replace(portfolio, positions="continuous", max_leverage=1.5)
    fresh = jax.eval_shape(lambda p: agent.init(jax.random.key(0), env, p), env.default_params)
    weights = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), fresh.params)
    bounds = (np.full(3, -1.5, np.float32), np.full(3, 1.5, np.float32))
    state.save(tmp_path / "p", fresh.replace(params=weights, bounds=bounds), {})
    loaded, _ = state.load(tmp_path / "p")
    assert (loaded.network.actions.size, loaded.network.account) == (3, 4)
    five = loaded.of(5)
    assert five.network.actions.shape == (5,)
    np.testing.assert_array_equal(five.bounds, [[-1.5] * 5, [1.5] * 5])
    assert five.params is loaded.params
