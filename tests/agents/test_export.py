"""Exported policies: ONNX Runtime and JAX's own reader decide as the policy itself, for any number of decisions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from policies import fresh, policy_of, with_noise

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.cli import main
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.examples.own_network import Small

DECISIONS = 12
NEAR = 1e-5


def drawn(agent: PPOAgent, env: TradingEnv, seed: int = 1) -> Policy:
    """A policy whose actions differ from bar to bar."""
    state = with_noise(fresh(agent, env, seed), seed, 0.4)
    return policy_of(agent, state.replace(value_scale=state.value_scale.update(jnp.asarray([-1.0, 0.0, 1.0]))), env)


def seen(policy: Policy, env: TradingEnv) -> tuple[np.ndarray, np.ndarray]:
    """Windows and accounts of some decisions, as the exported function takes them."""
    windows = np.stack([env.market.features[t - policy.window : t] for t in range(20, 20 + DECISIONS)])
    accounts = np.random.default_rng(2).normal(
        0, 0.3, (*windows.shape[:1], windows.shape[2], len(policy.account_names))
    )
    if not policy.portfolio:
        return windows[:, :, 0].astype(np.float32), accounts[:, 0].astype(np.float32)
    accounts = np.concatenate([accounts, np.ones((*accounts.shape[:2], 1))], -1)
    accounts[3, 1, -1] = 0  # an asset that cannot be traded now
    return windows.astype(np.float32), accounts.astype(np.float32)


def by_onnx(path: Path, window: np.ndarray, account: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    return session.run(None, {"window": window, "account": account})


def by_stablehlo(path: Path, window: np.ndarray, account: np.ndarray) -> list[np.ndarray]:
    called = jax.export.deserialize(bytearray(path.read_bytes()))
    assert called.platforms == ("cpu", "cuda", "tpu")
    return [np.asarray(x) for x in called.call(window, account)]


READERS = {"onnx": by_onnx, "stablehlo": by_stablehlo}


def check(policy: Policy, env: TradingEnv, path: Path, to: Any) -> list[np.ndarray]:
    """The outputs of the exported file, whose targets must be the policy's own."""
    policy.export(path, to)
    window, account = seen(policy, env)
    outputs = READERS[to](path, window, account)
    expected = np.stack([policy.act(*each) for each in zip(window, account, strict=True)])
    held = np.isnan(expected)  # the policy itself says NaN, which is "hold", of what cannot be traded
    np.testing.assert_allclose(outputs[0][~held], expected[~held], atol=NEAR)
    assert np.ptp(outputs[1]) > 0.01, "a constant policy would prove nothing"
    for one, some in zip(READERS[to](path, window[:1], account[:1]), outputs, strict=True):
        np.testing.assert_allclose(one, some[:1], atol=NEAR)
    return outputs


def test_stablehlo_of_positions_has_their_probabilities(agent: PPOAgent, env: TradingEnv, tmp_path: Path) -> None:
    policy = drawn(agent, env)
    target, value, probabilities = check(policy, env, tmp_path / "p", "stablehlo")
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(policy.positions)[probabilities.argmax(1)], target)
    assert len(set(target)) > 1
    window, account = (jnp.asarray(x) for x in seen(policy, env))
    obs = Observation(policy.state.normalized(window[:, :, None]), account[:, None])
    _, about = jax.jit(lambda obs: agent.select_action(policy.state, obs, jax.random.key(0), True))(obs)
    np.testing.assert_allclose(value, about["value"], atol=NEAR)
    described = json.loads((tmp_path / "p.json").read_text())
    assert described["inputs"] == {"window": ["batch", 4, 3], "account": ["batch", 4]}
    assert described["features"] == list(policy.features)
    assert described["positions"] == [-1, 0, 1]
    assert described["flat"] == [0, 0, 0, 1]


def test_the_command_says_what_the_file_takes_and_gives(
    agent: PPOAgent, env: TradingEnv, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = drawn(agent, env)
    agent.save_model(tmp_path / "policy.pkl", policy.state, policy.about)
    assert main(["export", str(tmp_path), "--to", "stablehlo"]) == 0
    out = capsys.readouterr().out
    assert "[batch, 4, 3] of log_return_1, signal, noise" in out
    assert "[batch, 3] of -1, 0, 1" in out
    assert by_stablehlo(tmp_path / "policy.stablehlo", *seen(policy, env))[0].shape == (DECISIONS,)
    assert main(["export", str(tmp_path / "none")]) == 2
    assert main(["export", str(tmp_path), "--to", "torch"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["mlp", "tcn", "attention", "gru", "lru"])
def test_onnx_runtime_agrees_with_every_encoder(encoder: Any, env: TradingEnv, tmp_path: Path) -> None:
    agent = PPOAgent(hidden=(8,), encoder=encoder, encoder_width=16)
    before = [dict(vars(module)) for module in (jnp, jax.lax, jax.nn)]
    check(drawn(agent, env), env, tmp_path / "p.onnx", "onnx")
    assert [dict(vars(module)) for module in (jnp, jax.lax, jax.nn)] == before, "the converter has changed JAX"


@pytest.mark.slow
def test_onnx_runtime_agrees_with_an_ensemble_and_a_portfolio(
    agent: PPOAgent, env: TradingEnv, portfolio: TradingEnv, tmp_path: Path
) -> None:
    together = ensemble([drawn(agent, env, seed) for seed in (1, 2, 3)])
    check(together, env, tmp_path / "ensemble.onnx", "onnx")
    check(drawn(PPOAgent(hidden=(8,)), portfolio), portfolio, tmp_path / "portfolio.onnx", "onnx")


@pytest.mark.slow
def test_onnx_runtime_agrees_with_any_exposure_and_a_network_of_ones_own(env: TradingEnv, tmp_path: Path) -> None:
    exposures = dataclasses.replace(env, positions="continuous", trailing_stop=0.05)
    check(drawn(PPOAgent(hidden=(8,)), exposures), exposures, tmp_path / "exposures.onnx", "onnx")
    check(drawn(PPOAgent(network=Small(positions=3)), env), env, tmp_path / "own.onnx", "onnx")


class Waves(nn.Module):
    """An encoder with an operation that the converter writes wrongly."""

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        return jnp.fft.rfft(nn.Dense(4)(bars), axis=-2).real.sum(-2)


class Recurrent(nn.Module):
    """An encoder with an operation that the converter does not know."""

    @nn.compact
    def __call__(self, bars: jax.Array) -> jax.Array:
        return nn.RNN(nn.GRUCell(8))(bars)[..., -1, :]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [Waves(), Recurrent()], ids=["waves", "recurrent"])
def test_what_onnx_cannot_express_is_one_sentence_and_stablehlo_can(
    encoder: nn.Module, env: TradingEnv, tmp_path: Path
) -> None:
    policy = drawn(PPOAgent(hidden=(8,), encoder=encoder), env)
    with pytest.raises(ValueError, match=r"ONNX cannot express an operation .*; export to stablehlo") as caught:
        policy.export(tmp_path / "p.onnx")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())
    check(policy, env, tmp_path / "p", "stablehlo")


def test_a_policy_of_half_precision_is_not_for_onnx(env: TradingEnv, tmp_path: Path) -> None:
    policy = drawn(PPOAgent(hidden=(8,), compute_dtype="bfloat16"), env)
    with pytest.raises(
        ValueError, match=r"computes in bfloat16.*`to='stablehlo'`, or train with `compute_dtype='float32'`"
    ):
        policy.export(tmp_path / "p.onnx")
    check(policy, env, tmp_path / "p", "stablehlo")


def test_what_cannot_be_exported_is_one_sentence(
    agent: PPOAgent,
    env: TradingEnv,
    portfolio: TradingEnv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = drawn(agent, env)
    with pytest.raises(ValueError, match="'torch'` is unknown; use onnx or stablehlo"):
        policy.export(tmp_path / "p", "torch")  # pyrefly: ignore
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxtrader\[onnx\]'"):
        policy.export(tmp_path / "p")
    with pytest.raises(ValueError, match="only a policy that was trained in a TradingEnv"):
        Policy(agent, policy.state, {}).export(tmp_path / "p", "stablehlo")
    with pytest.raises(ValueError, match=r"assets=5` is of a portfolio.*leave it out"):
        policy.export(tmp_path / "p", "stablehlo", assets=5)
    several = drawn(PPOAgent(hidden=(8,)), portfolio)
    for wrong in (0, -1, 2.5, True, "many"):
        with pytest.raises(ValueError, match=f"assets={wrong!r}` must be a whole number, at least 1"):
            several.export(tmp_path / "p", "stablehlo", assets=wrong)  # pyrefly: ignore
    assert not list(tmp_path.iterdir())
