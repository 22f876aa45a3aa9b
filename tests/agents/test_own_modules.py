"""Flax modules of the user's own, as encoder and as the whole network: shapes, learning, files, and what is refused."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import about, init
from probes import BY_BOTH, Tabular

import jaxtrader as jt
from jaxtrader import files
from jaxtrader.agents import own_modules
from jaxtrader.agents.action_spec import ActionSpec
from jaxtrader.agents.own_modules import OwnActorCritic, OwnEncoder, OwnPortfolio, own
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.cli import main, own_code
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts
from jaxtrader.training.trainer import Trainer


def drawn(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial weights by NumPy. Those of Flax are some twenty programs a layer where nothing is compiled as a whole."""
    return jnp.asarray(np.random.default_rng(shape).normal(0, shape[0] ** -0.5, shape), dtype)


dense = partial(nn.Dense, kernel_init=drawn)


class Both(nn.Module):
    """The whole network."""

    width: int = 8
    layers: tuple[int, ...] = (4,)
    actions: int = 3

    @nn.compact
    def __call__(self, window: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        assert window.ndim == 3
        assert account.ndim == 2
        x = nn.tanh(dense(self.width)(jnp.concatenate([window[:, -1], window.mean(1), account], -1)))
        for width in self.layers:
            x = nn.tanh(dense(width)(x))
        return dense(self.actions)(x), dense(1)(x)[:, 0]


class Assets(nn.Module):
    """The whole network of a portfolio, with weights that are shared between assets."""

    width: int = 8

    @nn.compact
    def __call__(self, window: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        each = jnp.concatenate([jnp.moveaxis(window, 1, 2).reshape(*account.shape[:2], -1), account], -1)
        each, tradable = nn.tanh(dense(self.width)(each)), account[..., -1:]
        mean = (each * tradable).sum(1) / jnp.maximum(tradable.sum(1), 1)
        return dense(1)(each - mean[:, None])[..., 0], dense(1)(mean)[:, 0]


class Joint(nn.Module):
    """The whole network of a portfolio, with weights of each asset."""

    @nn.compact
    def __call__(self, window: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.concatenate([x.reshape(len(x), -1) for x in (window, account)], -1)
        return dense(account.shape[1])(x), dense(1)(x)[:, 0]


class Changed(nn.Module):
    """What became of a class after a training."""

    width: int = 8
    layers: tuple[int, ...] = (4,)
    actions: int = 3

    @nn.compact
    def __call__(self, window: jax.Array, account: jax.Array | None = None) -> jax.Array:
        return dense(7)(window[..., -1, :])


class Faulty(nn.Module):
    """The whole network, with a fault."""

    fault: str

    @nn.compact
    def __call__(self, window: jax.Array, account: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = window.reshape(len(window), -1)
        if self.fault == "norm":
            x = nn.BatchNorm(use_running_average=True)(x)
        if self.fault == "dropout":
            x = nn.Dropout(0.5, deterministic=False)(x)
        if self.fault == "rows":
            x = x - x.mean(0)
        if self.fault == "error":
            raise RuntimeError("no\nluck")
        if self.fault == "weights":
            return x[:, :3], x[:, 0]
        dtype = jnp.bfloat16 if self.fault == "bfloat16" else jnp.float32
        x = dense(4, param_dtype=dtype)(x)
        if self.fault == "whole":
            x = x.astype(int)
        if self.fault == "nan":
            x = jnp.log(x)
        return (x[:, :3], x[:, 3]) if self.fault != "list" else [x[:, :3], x[:, 3]]  # pyrefly: ignore[bad-return]


class Recurrent(nn.Module):
    """An encoder of windows, by a cell of Flax, whose state must keep its type."""

    width: int = 8

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        cell = nn.SimpleCell(self.width, kernel_init=drawn, recurrent_kernel_init=drawn)
        return nn.RNN(cell)(bars)[..., -1, :]


class Chunked(nn.Module):
    """An encoder that sees the last bar of each window of 4, and is called on whole chunks."""

    reads_chunks = True

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        return dense(5)(bars[..., 3:, :])


class Peeking(nn.Module):
    """Sees the whole chunk, and so the future."""

    reads_chunks = True

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        return dense(5)(bars[..., 3:, :] - bars.mean(-2, keepdims=True))


class Flat(nn.Module):
    """Loses the axis of decisions."""

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        return dense(1)(bars.reshape(bars.shape[0], -1))[:, 0]


class Noisy(nn.Module):
    """An encoder with dropout."""

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        return nn.Dropout(0.5, deterministic=False)(dense(2)(bars[..., -1, :]))


@pytest.fixture
def another_process() -> Iterator[None]:
    """What was given in this process is forgotten for a while."""
    before = dict(own_modules._GIVEN)
    own_modules._GIVEN.clear()
    yield
    own_modules._GIVEN.update(before)


def trained(env: TradingEnv, agent: PPOAgent, folder: Path) -> jt.TrainResult:
    """After two updates."""
    return Trainer(env, agent, num_envs=8, rollout_length=16, total_steps=256, run_dir=folder, progress=False).train()


def test_a_chunk_with_many_accounts_is_the_module_window_by_window() -> None:
    network = OwnActorCritic(4, 3, 2, ActionSpec("discrete", 3), module=own(Both()))
    weights = network.fresh(jax.random.key(0))
    rng = np.random.default_rng(0)
    chunk = rng.normal(size=(2, 9, 1, 3)).astype(np.float32)
    account = rng.normal(size=(2, 6, 5, 1, 2)).astype(np.float32)  # 6 decisions, 5 accounts
    outputs, value = jax.jit(partial(decided, network))(weights, chunk, account)
    assert outputs.shape == (2, 6, 5, 3)
    alone = jax.jit(Both().apply)
    for path, t, a in ((0, 0, 0), (1, 5, 4), (1, 2, 3)):
        one, worth = alone({"params": weights["own"]}, chunk[path, t : t + 4, 0][None], account[path, t, a])
        np.testing.assert_allclose(outputs[path, t, a], one[0], atol=1e-6)
        np.testing.assert_allclose(value[path, t, a], worth[0], atol=1e-6)


def test_a_module_is_checked_while_a_training_is_traced_and_once(env: TradingEnv) -> None:
    sound, peeking = (PPOAgent(hidden=(8,), encoder=module) for module in (Chunked(), Peeking()))
    OwnEncoder._check.cache_clear()
    shapes = jax.eval_shape(lambda key: sound.init(key, env, env.default_params), jax.random.key(0))
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(shapes))
    sound.check_env(env)
    assert OwnEncoder._check.cache_info().misses == 1
    with pytest.raises(ValueError, match="outside of the window"):
        jax.eval_shape(lambda key: peeking.init(key, env, env.default_params), jax.random.key(0))


def decided(network: OwnActorCritic, weights: Any, chunk: Any, account: Any) -> Any:
    """The outputs and values of all accounts `[path, decision, account, ...]` over one chunk a path."""
    contexts = network.apply({"params": weights}, chunk, method="encode")
    return network.apply({"params": weights}, contexts[:, :, None], account, method="head")


def test_a_portfolio_is_the_module_window_by_window_and_says_what_can_be_traded() -> None:
    network, rng = OwnPortfolio(4, 2, 3, ActionSpec("simplex", 3, (3,)), module=own(Assets())), np.random.default_rng(0)
    weights = network.fresh(jax.random.key(0))
    chunk, account = rng.normal(size=(2, 9, 3, 2)), rng.normal(size=(2, 6, 5, 3, 3))  # 6 decisions, 5 accounts
    tradable = rng.random((2, 6, 5, 3, 1)) > 0.3
    seen = np.concatenate([account, tradable], -1)
    chunk, account, seen = (np.float32(x) for x in (chunk, account, seen))
    decide, alone = jax.jit(partial(decided, network)), jax.jit(Assets().apply)
    outputs, value = decide(weights, chunk, seen)
    always, _ = decide(weights, chunk, account)
    assert outputs.shape == (2, 6, 5, 3)
    for path, t, a in ((0, 0, 0), (1, 5, 4), (1, 2, 3)):
        window = chunk[path, t : t + 4][None]
        one, worth = alone({"params": weights["own"]}, window, seen[path, t, a][None])
        np.testing.assert_allclose(outputs[path, t, a], one[0], atol=1e-6)
        np.testing.assert_allclose(value[path, t, a], worth[0], atol=1e-6)
        ones = np.concatenate([account[path, t, a], np.ones((3, 1), np.float32)], -1)[None]
        one, _ = alone({"params": weights["own"]}, window, ones)
        np.testing.assert_allclose(always[path, t, a], one[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["weights", "continuous"])
def test_a_portfolio_trains_and_its_file_decides_on_any_number_of_assets_where_weights_are_shared(
    positions: Any, portfolio: TradingEnv, make_portfolio: Any, tmp_path: Path, another_process: None
) -> None:
    env = dataclasses.replace(portfolio, positions=positions)
    module = Assets() if positions == "weights" else Joint()
    agent = PPOAgent(num_epochs=1, num_minibatches=2, network=module)
    result = trained(env, agent, tmp_path / "run")
    assert np.isfinite(result.history[-1]["grad_norm"])
    expected = backtest(result.policy, env.market)
    own_modules._GIVEN.clear()
    policy = load_policy(result.policy_path, type(module))
    np.testing.assert_array_equal(backtest(policy, env.market).targets, expected.targets)
    window, four = env.market.features[20:24], make_portfolio(4)
    assert policy.act(window).shape == (3,)
    if positions == "weights":
        turned = policy.act(window[:, ::-1])
        np.testing.assert_allclose(turned[::-1], policy.act(window), atol=1e-6)
        assert backtest(policy, four).targets.shape[1] == 4
        return
    with pytest.raises(ValueError, match="Joint has weights for the number of assets of its training, and there are 4"):
        backtest(policy, four)
    size = {"num_envs": 8, "rollout_length": 16, "total_steps": 256, "init_from": result.policy_path}
    Trainer(env, agent, **size)
    other = TradingEnv(four, positions=positions, window=4)
    with pytest.raises(ValueError, match="Joint has weights for the number of assets"):
        Trainer(other, agent, **size)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"network": Both(6, (5,))},
        {"encoder": Chunked()},
    ],
)
def test_it_trains_is_saved_and_comes_back_with_its_class_alone(
    settings: dict[str, Any], env: TradingEnv, tmp_path: Path, another_process: None
) -> None:
    agent = PPOAgent(hidden=(8,), num_epochs=1, num_minibatches=2, **settings)
    result = trained(env, agent, tmp_path / "run")
    (module,) = settings.values()
    expected = backtest(load_policy(tmp_path / "run"), env.market)
    own_modules._GIVEN.clear()
    name = type(module).__name__
    with pytest.raises(files.FileError, match=rf"its network is a {name}.*load_policy\(path, {name}\)"):
        load_policy(tmp_path / "run")
    with pytest.raises(files.FileError, match=f"its network is a {name}.*and no Flat"):
        load_policy(tmp_path / "run", Flat)
    with pytest.raises(files.FileError, match=f"its weights do not fit this {name}; give the class"):
        load_policy(tmp_path / "run", type(name, (Changed,), {}))
    policy = load_policy(tmp_path / "run", type(module))
    assert policy.agent == result_agent(agent, policy.agent)
    np.testing.assert_array_equal(backtest(policy, env.market).targets, expected.targets)
    stored = files.load(result.policy_path, "policy")["about"]["agent"]
    (kind,) = settings
    assert stored[kind] == {"name": name, "settings": own(module).settings}


@pytest.mark.slow
def test_an_encoder_of_single_windows_learns_and_decides_from_its_file(
    env: TradingEnv, raw_params: Any, tmp_path: Path
) -> None:
    """An update on market paths is traced alone. What else a training does is the same for each encoder."""
    agent = PPOAgent(hidden=(8,), num_epochs=1, num_minibatches=2, encoder=Recurrent(6))
    rollouts, key = MarketRollouts(env, 16, 8, 1), jax.random.key(0)
    state, params = agent.prepare(init(agent, key, env, raw_params), raw_params)

    def update(state: Any) -> Any:
        _, rollout, _ = rollouts.collect(rollouts.begin(key, params), agent, state, params, key)
        return agent.learn(state, rollout, params, key)[0]

    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(update, state), state)
    agent.save_model(tmp_path / "policy.pkl", state, about(env))
    policy = load_policy(tmp_path / "policy.pkl", Recurrent)
    window = env.market.features[20:24, 0]
    assert policy.act(window) in env.positions


def result_agent(agent: PPOAgent, like: PPOAgent) -> PPOAgent:
    """The agent with its rates as plain numbers, as a file gives them back."""
    assert isinstance(like, PPOAgent)
    return agent.replace(**{name: getattr(like, name) for name in ("learning_rate", "max_grad_norm")})


@pytest.mark.slow
def test_it_learns_the_sign_of_a_signal(optimized: None, tmp_path: Path) -> None:
    """On an AR(1) signal that explains half of each return, without costs: hold its sign."""
    process = jt.datasets.AR1(0.02, 0.5, 0.5)
    env = TradingEnv(process.market(4000, 1), positions=(-1, 0, 1), window=2, costs=jt.Costs(None, None))
    agent = PPOAgent(network=Both(16), gamma=0.5, learning_rate=3e-3, num_epochs=2)
    settings = {"num_envs": 64, "rollout_length": 32, "total_steps": 100_000, "progress": False}
    Trainer(env, agent, run_dir=tmp_path / "run", **settings).train()
    test = process.market(2000, 2)
    result = backtest(load_policy(tmp_path / "run"), test)
    targets = result.targets[:-1, 0]
    signal = test.features[np.isin(test.times, result.times), 0, 0][: len(targets)]
    clear = np.abs(signal) > 0.5
    assert (targets[clear] == np.sign(signal[clear])).mean() > 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": Peeking()}, "Peeking encodes a chunk differently.*sees bars outside of the window"),
        ({"encoder": Flat()}, "Flat cannot encode bars"),
        ({"network": Both(actions=4)}, r"Both gives the shapes \[\(3, 4\), \(3,\)\].*must return \(outputs \[n, 3\]"),
        ({"network": Recurrent()}, "Recurrent cannot be called with a window"),
        ({"network": Faulty("norm")}, "Faulty keeps batch_stats beside its weights, as BatchNorm does"),
        ({"network": Faulty("dropout")}, "Faulty draws random numbers, as Dropout does"),
        ({"network": Faulty("rows")}, "Faulty gives another result for a decision beside other decisions"),
        ({"network": Faulty("error")}, r"Faulty cannot be called with a window \[n, 4, 3\] and .* \[n, 4\]: no luck$"),
        ({"network": Faulty("weights")}, "Faulty has no weights"),
        ({"network": Faulty("bfloat16")}, "Faulty has weights of bfloat16; leave `param_dtype` at float32"),
        ({"network": Faulty("whole")}, "Faulty gives numbers of int32"),
        ({"network": Faulty("nan")}, "Faulty gives numbers that are not finite"),
        ({"network": Faulty("list")}, "Faulty gives the shapes"),
        ({"encoder": Noisy()}, "Noisy draws random numbers"),
        ({"network": Both(), "encoder": "tcn"}, "reads the window itself; leave out `encoder`"),
        ({"network": "mine.py:Both"}, "must be a Flax module, not its name"),
    ],
)
def test_a_module_that_does_not_fit_is_one_sentence(settings: dict[str, Any], message: str, env: TradingEnv) -> None:
    with pytest.raises(ValueError, match=message):
        PPOAgent(**settings).validate().check_env(env)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Both, "is a class; give a module, as `Both"),
        (jnp.tanh, "no Flax linen module"),
        (Both(layers=[4]), "use tuples"),
    ],
)
def test_what_is_no_module_is_one_sentence(module: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOAgent(network=module).validate()


CODE = """
print("mine.py runs")

import flax.linen as nn
import jax.numpy as jnp

class Mine(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, bars):
        return nn.Dense(self.width)(bars[..., -1, :])

class Needy(nn.Module):
    width: int
"""


@pytest.mark.slow
def test_it_learns_from_observations_of_an_ordinary_environment(tmp_path: Path) -> None:
    """An update is traced alone: its arithmetic is that of any network."""
    env, key = Tabular(), jax.random.key(0)
    agent = PPOAgent(num_epochs=1, num_minibatches=2, network=Both(actions=2))
    rollouts = EnvRollouts(env, 8, 8)

    def update(state: Any) -> Any:
        _, rollout, _ = rollouts.collect(rollouts.begin(key, BY_BOTH), agent, state, BY_BOTH, key)
        return agent.learn(state, rollout, BY_BOTH, key)[0]

    state = jax.jit(lambda key: agent.init(key, env, BY_BOTH))(key)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(update, state), state)
    agent.save_model(tmp_path / "policy.pkl", state, {"name": "Tabular"})
    assert load_policy(tmp_path / "policy.pkl", Both).act([1.0]) in (0, 1)


def test_a_file_of_code_may_have_late_annotations_and_import_its_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_process: None
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "its_neighbour.py").write_text("WIDTH = 5\n")
    code = CODE.replace("width: int = 4", "width: int = WIDTH")
    path = tmp_path / "late.py"
    path.write_text(f"from __future__ import annotations\nfrom its_neighbour import WIDTH\n{code}")
    module = own_code.load_module(f"{path}:Mine")
    assert own(module).settings == {"width": 5}
    assert type(own_code.load_module(f"{path}:Mine")) is type(module), "it is run once"


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_the_command_line_takes_a_file_and_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], another_process: None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CODE)
    small = ["--num-envs", "8", "--rollout-length", "16", "--total-steps", "256", "--num-minibatches", "2"]
    small += ["--seeds", "1", "--symbols", "AAPL", "--window", "2", "--no-report", "--quiet", "--hidden", "8"]
    assert main(["train", "--network", "mine.py:Mine", "--run-dir", "run", *small]) == 0
    own_modules._GIVEN.clear()
    printed = capsys.readouterr().out
    assert printed.count("mine.py runs") == 1
    assert re.search(r"next +jaxtrader backtest run --network \S*mine.py:Mine", printed)
    assert main(["backtest", "run"]) == 2
    assert "its network is a Mine (width: 4)" in capsys.readouterr().err
    assert main(["export", "run", "--to", "stablehlo", "--network", "mine.py:Mine"]) == 0
    for named, says in (
        ("mine.py", "a file and the name of a Flax module"),
        ("none.py:Mine", "none.py is no Python file"),
        ("mine.py:Mien", "did you mean Mine?"),
        ("mine.py:Needy", "give each field of the class a default"),
    ):
        capsys.readouterr()
        assert main(["train", "--network", named, "--run-dir", "other", *small]) == 2
        assert says in capsys.readouterr().err
    assert not Path("other").exists()
