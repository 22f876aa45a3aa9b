"""The policy file: what it must hold, with one sentence for each damage, and files of before it had a version."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from policies import about, fresh
from resealed import damaged, refusals

from jaxtrader import files
from jaxtrader.agents.normalization import ValueScale
from jaxtrader.agents.policy_file import VERSION, write_policy
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.rules import Rules

LEVERAGE_1_5 = Rules(max_leverage=1.5, fill="next_close")


@pytest.fixture(scope="module")
def trained_in(env: TradingEnv) -> TradingEnv:
    """An environment with a box of actions, and rules that are not the defaults."""
    return dataclasses.replace(env, positions="continuous", rules=LEVERAGE_1_5)


@pytest.fixture(scope="module")
def stored(trained_in: TradingEnv, agent: PPOAgent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy file of that environment."""
    path = tmp_path_factory.mktemp("policy_file") / "policy.pkl"
    write_policy(path, fresh(agent, trained_in), about(trained_in))
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
    "no distribution": drop("actions", "distribution"),
    "another distribution": lambda c: c["actions"].update(distribution="squashed normal"),
    "no deviation": drop("params", "log_std"),
    "no head": drop("params", "policy"),
    "no params": drop("params"),
    "no network": drop("network"),
    "no width": drop("network", "encoder_width"),
    "another network": lambda c: c["network"].update(depth=3),
    "another encoder": lambda c: c["network"].update(encoder="tcn"),
    "another kind of network": lambda c: c["network"].update(kind="portfolio"),
    "unknown kind of network": lambda c: c["network"].update(kind="graph"),
    "unknown encoder": lambda c: c["network"].update(encoder="lstm"),
    "unknown dtype": lambda c: c["network"].update(compute_dtype="int8"),
    "a kernel of another shape": lambda c: c["params"].update(first_bias=np.zeros(3, np.float32)),
    "half a normaliser": drop("normalizer", "std"),
    "no scale of values": drop("value_scale"),
    "half a scale of values": drop("value_scale", "weight"),
    "two scales of values": lambda c: c["value_scale"].update(mean=np.zeros(2, np.float32)),
    "a scale of values that is None": lambda c: c.update(value_scale=None),
    "a million layers": lambda c: c["network"].update(encoder="gru", encoder_depth=10**6),
    "more layers than arrays": lambda c: c["network"].update(encoder="attention", encoder_depth=64),
    "a million hidden layers": lambda c: c["network"].update(hidden=[1] * 10**5),
    "a hidden layer of any width": lambda c: c["network"].update(hidden=[2**40]),
    "a window of any length": lambda c: c["network"].update(encoder="tcn", encoder_depth=1, window=2**60),
    "features of any number": lambda c: c["network"].update(features=2**60),
    "a shape of many sides": lambda c: c["actions"].update(shape=[2**62] * 10_000),
    "weights of float64": lambda c: c["params"].update(log_std=np.zeros(1)),
    "weights that are text": lambda c: c["params"].update(log_std="wide"),
    "a deviation of 0": lambda c: c["normalizer"].update(std=0 * c["normalizer"]["std"]),
    "a scale of other features": lambda c: c["normalizer"].update(mean=np.float32([0]), std=np.float32([1])),
    "no scale of features": lambda c: c.update(normalizer=None),
    "no features": drop("about", "features"),
    "features of another number": lambda c: c["about"]["features"].update(names=["one"]),
    "another window": lambda c: c["about"]["env"].update(window=1),
    "an environment that is None": lambda c: c["about"].update(env=None),
    "an unknown rule": lambda c: c["about"]["env"]["rules"].update(stop=1),
    "a rule out of range": lambda c: c["about"]["env"]["rules"].update(delay=10**9),
    "bounds of another leverage": lambda c: c["about"]["env"]["rules"].update(max_leverage=1.2),
    "a fee that is a dict": lambda c: c["about"]["env"]["costs"].update(fee={}),
    "a fee of no assets": lambda c: c["about"]["env"]["costs"].update(fee=[]),
    "an unknown reward": lambda c: c["about"]["env"].update(reward={"name": "Profit"}),
    "a reward that sees more": lambda c: c["about"]["env"]["reward"].update(custom=True, observed=["luck"]),
    "a setting that no reward has": lambda c: c["about"]["env"]["reward"].update(risk_aversion=1.0),
    "symbols that are numbers": lambda c: c["about"].update(symbols=[1]),
    "no about": drop("about"),
    "text as about": lambda c: c.update(about="a text"),
    "a further part": lambda c: c.update(optimizer={}),
    "text as version": lambda c: c.update(version="new"),
    "version 0": lambda c: c.update(version=0),
    "of version 1, with a box of before its distribution was written down": lambda c: as_version_1(c)["actions"].pop(
        "law"
    ),
    "of version 1, with another distribution": lambda c: as_version_1(c)["actions"].update(law="squashed normal"),
    "of version 1, with another activation": lambda c: as_version_1(c)["network"].update(activation="relu"),
    "of version 1, with hidden layers shared": lambda c: as_version_1(c)["network"].update(shared=True),
}


def as_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """The same content as a file had it before the version was written down. It changes the content in place."""
    del content["version"], content["value_scale"]
    content["network"] |= {"activation": "tanh", "shared": False}
    content["actions"]["law"] = content["actions"].pop("distribution")
    env = content["about"]["env"]
    env |= env.pop("rules")
    return content


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_policy_file_is_one_sentence(damage: str, stored: Path, tmp_path: Path) -> None:
    content = files.load(stored, "policy")
    DAMAGES[damage](content)
    files.save(tmp_path / "policy.pkl", "policy", content)
    with pytest.raises(files.FileError, match=r"policy\.pkl.* damaged \(.*\); train it again") as no:
        load_policy(tmp_path / "policy.pkl")
    assert "\n" not in str(no.value)


def test_a_policy_file_damaged_anywhere_is_refused_by_name(stored: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.pkl"
    for data in damaged(stored.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(files.FileError, match=rf"{path}' is (damaged or incomplete|not a jaxtrader file)"):
            load_policy(path)


@pytest.mark.parametrize("count", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_a_file_with_one_field_changed_is_refused_or_can_be_used(
    count: int, stored: Path, trained_in: TradingEnv, tmp_path: Path
) -> None:
    def use(path: Path) -> None:
        policy = load_policy(path)
        assert repr(policy)
        if policy.trades:
            assert all((policy.costs, policy.rules, policy.account_names, policy.bars_needed))
            with contextlib.suppress(ValueError):  # which the market lacks: features, or a column of costs
                policy.environment(trained_in.market)

    messages = refusals(tmp_path / "policy.pkl", "policy", files.load(stored, "policy"), count, use)
    assert len(messages) > count / 3
    assert all(len(message) < 500 and message.isprintable() for message in messages)


def test_a_sound_policy_file_is_read_and_weights_that_are_not_finite_are_refused(stored: Path, tmp_path: Path) -> None:
    policy = load_policy(stored)
    loaded = policy.state
    assert set(policy.about) == {"env", "features", "symbols"}
    assert loaded.network.actions.kind == "box"
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(loaded))
    content = files.load(stored, "policy")
    content["params"]["log_std"] = np.float32([np.nan])
    files.save(tmp_path / "policy.pkl", "policy", content)
    with pytest.raises(files.FileError, match="not finite"):
        load_policy(tmp_path / "policy.pkl")


def test_what_a_policy_says_of_itself_is_printable(stored: Path, tmp_path: Path) -> None:
    content = files.load(stored, "policy")
    odd = "A\x1b[2J\u202e"
    content["about"] |= {"symbols": [odd], "data": {odd: odd}, "command": {"data": odd}}
    content["about"]["features"]["names"][0] += odd
    content["about"]["env"]["reward"] = {"name": odd, "custom": True}
    files.save(tmp_path / "policy.pkl", "policy", content)
    policy = load_policy(tmp_path / "policy.pkl")
    assert repr(policy).isprintable()
    assert str(policy.about).isprintable()
    assert policy.about["command"]["data"] == policy.symbols[0] == "A [2J"


def test_a_policy_file_of_a_newer_version_asks_for_a_newer_jaxtrader(stored: Path, tmp_path: Path) -> None:
    content = files.load(stored, "policy") | {"version": VERSION + 1}
    files.save(tmp_path / "policy.pkl", "policy", content)
    with pytest.raises(files.FileError, match=rf"version {VERSION + 1}.*install a newer jaxtrader"):
        load_policy(tmp_path / "policy.pkl")


def test_a_policy_file_of_version_1_gives_the_same_policy(stored: Path, trained_in: TradingEnv, tmp_path: Path) -> None:
    """Its rules were fields of the environment, and its network had an activation."""
    content = as_version_1(files.load(stored, "policy"))
    assert content["about"]["env"]["fill"] == "next_close"
    files.save(tmp_path / "policy.pkl", "policy", content)
    old, new = load_policy(tmp_path / "policy.pkl"), load_policy(stored)
    assert old.rules == new.rules == LEVERAGE_1_5
    assert old.about == new.about
    assert old.state.network == new.state.network
    jax.tree.map(np.testing.assert_array_equal, old.state, new.state)
    assert old.environment(trained_in.market) == trained_in


def test_a_policy_file_of_version_2_has_no_scale_of_its_values(stored: Path, tmp_path: Path) -> None:
    content = files.load(stored, "policy") | {"version": 2}
    del content["value_scale"]
    files.save(tmp_path / "policy.pkl", "policy", content)
    old, new = load_policy(tmp_path / "policy.pkl").state, load_policy(stored).state
    assert not old.value_scale.weight
    jax.tree.map(np.testing.assert_array_equal, old.params, new.params)


def test_a_policy_file_keeps_the_scale_of_its_values(stored: Path, tmp_path: Path) -> None:
    policy = load_policy(stored)
    learnt = policy.state.replace(value_scale=policy.state.value_scale.update(np.float32([1.0, 2.0])))
    write_policy(tmp_path / "policy.pkl", learnt, policy.about)
    assert load_policy(tmp_path / "policy.pkl").state.value_scale == learnt.value_scale


def test_a_policy_file_of_before_there_were_portfolios_and_encoders_is_read(stored: Path, tmp_path: Path) -> None:
    content = as_version_1(files.load(stored, "policy"))
    for name in ("kind", "encoder", "encoder_width", "encoder_depth", "compute_dtype"):
        del content["network"][name]
    files.save(tmp_path / "policy.pkl", "policy", content)
    assert load_policy(tmp_path / "policy.pkl").state.network == load_policy(stored).state.network


def test_the_state_of_a_portfolio_is_resized_to_any_number_of_assets(
    portfolio: TradingEnv, agent: PPOAgent, tmp_path: Path
) -> None:
    env = dataclasses.replace(portfolio, positions="continuous", rules=LEVERAGE_1_5)
    fresh = jax.eval_shape(lambda p: agent.init(jax.random.key(0), env, p), env.default_params)
    weights = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), fresh.params)
    bounds = (np.full(3, -1.5, np.float32), np.full(3, 1.5, np.float32))
    scale = ValueScale(*np.ones(3, np.float32))
    write_policy(tmp_path / "p", fresh.replace(params=weights, bounds=bounds, value_scale=scale), {})
    loaded = load_policy(tmp_path / "p").state
    assert (loaded.network.actions.size, loaded.network.account) == (3, 4)
    five = loaded.for_assets(5)
    assert five.network.actions.shape == (5,)
    np.testing.assert_array_equal(five.bounds, [[-1.5] * 5, [1.5] * 5])
    assert five.params is loaded.params
