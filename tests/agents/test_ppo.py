"""PPO's loss and update against NumPy in float64, its schedules, its normalisation, and what it writes to disk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import policies
import pytest
from policies import initial, orthogonal_by_numpy

from jaxtrader import files
from jaxtrader.agents import blocks
from jaxtrader.agents.normalization import ValueScale, fit_normalizer
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.agents.protocol import Rollout
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.observation import Observation, chunks
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.market import Market
from jaxtrader.training.rollout import MarketRollouts

LENGTH, PATHS, ACCOUNTS = 8, 4, 2
KEY = jax.random.key(42)


@pytest.fixture(scope="module")
def scaled(state: PPOState) -> PPOState:
    """The fresh state after a first look at value targets, with a policy that is not uniform."""
    return policies.with_noise(state, 0, 0.2).replace(value_scale=ValueScale(*np.float32([0.02, 0.01, 0.5])))


@pytest.fixture(scope="module")
def rollout(env: TradingEnv, agent: PPOAgent, scaled: PPOState, params: EnvParams) -> Rollout:
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
    collect = jax.jit(lambda paths, agent, state, params, key: rollouts.collect(paths, agent, state, params, key)[1])
    return collect(jax.jit(rollouts.begin)(jax.random.key(1), params), agent, scaled, params, jax.random.key(2))


@jax.jit
def learn(agent: PPOAgent, state: PPOState, rollout: Rollout, params: EnvParams, key: jax.Array) -> tuple:
    return agent.learn(state, rollout, params, key)


@jax.jit
def slope_of_loss(agent: PPOAgent, weights: dict, state: PPOState, batch: dict, params: EnvParams) -> tuple:
    """The gradient of the loss by the weights, and its metrics: one program for all tests of it."""
    return jax.grad(agent._loss, has_aux=True)(weights, state, batch, params)


def path_major(x: object) -> np.ndarray:
    return np.moveaxis(np.asarray(x, np.float32), 1, 0)


chunks_of = jax.jit(lambda params, cursor: chunks(params.arrays, cursor, 4, LENGTH))


def batch_of(rollout: Rollout, seed: int = 3) -> dict:
    """A minibatch `[path, time, agent]` of all paths, with made-up advantages, targets and old log_prob."""
    rng = np.random.default_rng(seed)
    shape = (PATHS, LENGTH, ACCOUNTS)
    return {
        "cursor": np.asarray(rollout.cursor),
        "account": path_major(rollout.account),
        "action": np.moveaxis(np.asarray(rollout.action), 1, 0),
        "log_prob": path_major(rollout.log_prob) + rng.normal(0, 0.3, shape).astype(np.float32),
        "advantage": rng.normal(0, 1, shape).astype(np.float32),
        "target": rng.normal(0, 1, shape).astype(np.float32),
        "observations": None,
    }


def numpy_loss(agent: PPOAgent, weights: dict, batch: dict, chunk: np.ndarray) -> dict[str, float]:
    """The whole loss in float64, row by row: forward pass of the two tanh MLPs, clipped ratio, value error, entropy."""
    network = {k: v for k, v in jax.tree.map(np.float64, weights).items()}
    paths, steps, agents = batch["action"].shape
    terms = {name: [] for name in ("policy", "value", "entropy", "kl", "clipped")}
    for path in range(paths):
        for t in range(steps):
            for a in range(agents):
                at = (path, t, a)
                window = np.float64(chunk[path, t : t + 4]).ravel()
                first = np.concatenate([window, np.float64(batch["account"][at]).ravel()]) @ network["first_kernel"]
                first = np.tanh(first + network["first_bias"])
                outs = []
                for torso in range(2):
                    dense = network[f"torsos_{torso}_0"]
                    outs.append(np.tanh(first[torso * 8 : torso * 8 + 8] @ dense["kernel"] + dense["bias"]))
                logits = outs[0] @ network["policy"]["kernel"] + network["policy"]["bias"]
                value = float((outs[1] @ network["critic"]["kernel"] + network["critic"]["bias"])[0])
                log_p = logits - math.log(np.exp(logits).sum())
                log_ratio = log_p[batch["action"][at]] - float(batch["log_prob"][at])
                ratio, advantage = math.exp(log_ratio), float(batch["advantage"][at])
                bounded = min(max(ratio, 1 - agent.clip_range), 1 + agent.clip_range)
                error = (value - float(batch["target"][at])) ** 2
                terms["policy"].append(-min(ratio * advantage, bounded * advantage))
                terms["value"].append(0.5 * error)
                terms["entropy"].append(-(np.exp(log_p) * log_p).sum())
                terms["kl"].append(ratio - 1 - log_ratio)
                terms["clipped"].append(abs(ratio - 1) > agent.clip_range)
    means = {name: float(np.mean(values)) for name, values in terms.items()}
    means["loss"] = means["policy"] + agent.value_coef * means["value"] - agent.entropy_coef * means["entropy"]
    return means


def test_the_loss_and_its_gradient_equal_a_float64_reference(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    agent = agent.replace(entropy_coef=0.1)
    batch = batch_of(rollout)
    chunk = np.asarray(chunks_of(params, rollout.cursor))
    gradient, metrics = slope_of_loss(agent, scaled.params, scaled, batch, params)
    expected = numpy_loss(agent, scaled.params, batch, chunk)
    names = {
        "loss": "loss",
        "policy_loss": "policy",
        "value_loss": "value",
        "entropy": "entropy",
        "approx_kl": "kl",
        "clip_fraction": "clipped",
    }
    for ours, theirs in names.items():
        np.testing.assert_allclose(metrics[ours], expected[theirs], rtol=1e-4, atol=1e-5, err_msg=ours)
    assert 0.1 < expected["clipped"] < 0.9, "both branches of the clip must occur"

    rng = np.random.default_rng(6)
    for _ in range(3):  # along random directions, central differences of the reference
        direction = jax.tree.map(lambda x: rng.normal(0, 1, x.shape), scaled.params)
        size = 1e-6
        up, down = (
            numpy_loss(
                agent, jax.tree.map(lambda w, d, s=s: np.float64(w) + s * d, scaled.params, direction), batch, chunk
            )["loss"]
            for s in (size, -size)
        )
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (np.float64(g) * d).sum(), gradient, direction)))
        # The gradient is a float32 one, and the difference quotient has an error of its step squared.
        np.testing.assert_allclose(slope, (up - down) / (2 * size), rtol=1e-3, atol=1e-4)


def test_blocks_of_paths_change_no_number(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts, gradient and metrics are the same but for rounding where every path is a block of its own."""
    batch = batch_of(rollout)
    chunk = chunks_of(params, rollout.cursor)
    both = lambda w: (agent.encode(scaled.replace(params=w), chunk), agent._gradient(w, scaled, batch, params))  # noqa: E731
    contexts, gradient = jax.jit(both)(scaled.params)
    whole = jax.jit(lambda w: jax.grad(agent._loss, has_aux=True)(w, scaled, batch, params))(scaled.params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), gradient, whole)

    monkeypatch.setattr(blocks, "CPU_BLOCK_BYTES", 4)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4)
    blocked = jax.jit(lambda w: both(w))
    assert "scan" in str(jax.make_jaxpr(blocked)(scaled.params))
    contexts_too, gradient_too = blocked(scaled.params)
    np.testing.assert_allclose(contexts_too, contexts, rtol=1e-6, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), gradient_too, gradient)


@pytest.mark.parametrize("precision", ["highest", "default"])
def test_every_product_of_a_gradient_has_the_matmul_precision_asked_for(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams, precision: str
) -> None:
    asked, batch = agent.replace(matmul_precision=precision), batch_of(rollout)
    program = str(jax.make_jaxpr(lambda w: asked._gradient(w, scaled, batch, params))(scaled.params))
    products = program.count("dot_general[")
    assert products >= 12, "two torsos of two layers, forwards and backwards"
    full = program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") + program.count(
        "precision=Precision.HIGHEST"
    )
    assert full == (products if precision == "highest" else 0)


def test_the_peak_of_memory_does_not_grow_with_the_window(
    env: TradingEnv, agent: PPOAgent, raw_params: EnvParams
) -> None:
    """An encoded rollout and a gradient of 512 paths: shapes and the compiled programs only."""

    def peak(window: int) -> int:
        wide = dataclasses.replace(env, window=window)
        state = jax.eval_shape(lambda key: agent.init(key, wide, raw_params), KEY)
        shape = jax.ShapeDtypeStruct
        many = (512, 16, 1)
        batch = dict.fromkeys(("log_prob", "advantage", "target"), shape(many, jnp.float32))
        batch |= {"cursor": shape((512,), jnp.int32), "action": shape(many, jnp.int32), "observations": None}
        batch |= {"account": shape((*many, 1, 4), jnp.float32)}
        chunk = shape((512, window + 15, 1, 3), jnp.float32)
        step = jax.jit(lambda s, b, p: agent._gradient(s.params, s, b, p)).lower(state, batch, raw_params)
        seen = jax.jit(agent.encode).lower(state, chunk)
        return sum(part.compile().memory_analysis().temp_size_in_bytes for part in (step, seen))

    unfolded = 512 * 16 * 80 * 3 * 4
    # Over a window of 8: the slices of the arrays that hold the windows, and two blocks of them unfolded.
    assert peak(80) - peak(8) < unfolded / 2


def test_the_ratio_of_the_first_minibatch_is_1(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    batch = {**batch_of(rollout), "log_prob": path_major(rollout.log_prob)}
    tight = agent.replace(clip_range=1e-5, entropy_coef=0.1)  # then clip_fraction counts |ratio - 1| > 1e-5
    _, metrics = slope_of_loss(tight, scaled.params, scaled, batch, params)
    assert float(metrics["clip_fraction"]) == 0
    assert abs(float(metrics["approx_kl"])) < 1e-6


def test_approx_kl_keeps_its_digits_where_the_ratio_is_nearly_1(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    """A float32 ratio near 1 is off by 6e-8, and `ratio - 1 - log(ratio)` would be off as much."""
    agent = agent.replace(entropy_coef=0.1)
    batch = {**batch_of(rollout), "log_prob": path_major(rollout.log_prob)}
    for shift in (0.0, 1e-4, 1e-3):
        shifted = {**batch, "log_prob": batch["log_prob"] - np.float32(shift)}
        _, metrics = slope_of_loss(agent, scaled.params, scaled, shifted, params)
        # The log probabilities themselves are rounded to about 2e-7.
        np.testing.assert_allclose(metrics["approx_kl"], shift**2 / 2, rtol=1e-2, atol=1e-12)


def test_one_epoch_of_one_minibatch_is_an_adam_step_clipped_at_max_grad_norm(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    """Against Adam by hand: at its first step the direction is g / (|g| + eps), g after the clip of the global norm."""
    agent = agent.replace(entropy_coef=0.1)
    once = agent.replace(num_epochs=1, num_minibatches=1, learning_rate=0.01, max_grad_norm=0.05)
    start = scaled.replace(learning_rate=np.float32(0.01))
    after, metrics = learn(once, start, rollout, params, KEY)

    reward, value, following = (np.float64(x) for x in (rollout.reward, rollout.value, rollout.next_value))
    over = np.asarray(rollout.terminated)
    advantage = np.zeros((LENGTH + 1, PATHS, ACCOUNTS))
    for t in reversed(range(LENGTH)):
        delta = reward[t] + 0.99 * following[t] * ~over[t] - value[t]
        advantage[t] = delta + 0.99 * 0.95 * advantage[t + 1] * ~over[t]
    advantage = advantage[:-1]
    target = advantage + value
    mean = (0.9 * 0.02 + 0.1 * target.mean()) / (0.9 * 0.5 + 0.1)
    std = math.sqrt((0.9 * 0.01 + 0.1 * (target**2).mean()) / (0.9 * 0.5 + 0.1) - mean**2)
    batch = {
        **batch_of(rollout),
        "log_prob": path_major(rollout.log_prob),
        "target": path_major((target - mean) / std),
        "advantage": path_major((advantage - advantage.mean()) / advantage.std()),
    }
    moments = jax.jit(ValueScale.moments)
    np.testing.assert_allclose(moments(after.value_scale), (mean, std), rtol=1e-4)
    spread = 1 - (target - value).var() / target.var()
    np.testing.assert_allclose(metrics["explained_variance"], spread, rtol=1e-4)
    gradient, _ = slope_of_loss(agent, scaled.params, scaled, batch, params)
    norm = math.sqrt(sum(float((np.float64(g) ** 2).sum()) for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    assert norm > 0.05, "the clip must bind"
    trees = jax.tree.map(np.float64, (start.params, after.params, gradient))
    for old, new, g in zip(*map(jax.tree.leaves, trees), strict=True):
        clipped = g * 0.05 / norm
        step = -0.01 * clipped / (np.abs(clipped) + 1e-5)
        sure = np.abs(clipped) > 1e-5  # below, the sign of a float32 gradient's rounding decides
        np.testing.assert_allclose((new - old)[sure], step[sure], rtol=1e-4)


def test_a_minibatch_is_a_set_of_whole_paths_and_an_epoch_sees_each_once(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def record(self, state, learned, batch, params):
        jax.debug.callback(lambda c, a: seen.append((np.asarray(c), np.asarray(a))), batch["cursor"], batch["action"])
        return learned, {"approx_kl": jnp.float32(0)}

    monkeypatch.setattr(PPOAgent, "_gradient_step", record)
    distinct = rollout.replace(cursor=jnp.asarray([10, 11, 12, 13], jnp.int32))
    jax.jit(lambda *given: agent.replace(num_epochs=3).learn(*given))(scaled, distinct, params, KEY)
    jax.effects_barrier()
    assert len(seen) == 6
    orders = []
    for epoch in range(3):
        cursors = np.concatenate([c for c, _ in seen[2 * epoch : 2 * epoch + 2]])
        orders.append(tuple(cursors.tolist()))
        assert sorted(cursors) == [10, 11, 12, 13]
    assert len(set(orders)) > 1, "paths are shuffled anew"
    for cursors, actions in seen:
        assert actions.shape == (2, LENGTH, ACCOUNTS)
        for cursor, action in zip(cursors, actions, strict=True):
            np.testing.assert_array_equal(action, rollout.action[:, cursor - 10])


def test_num_minibatches_must_divide_the_paths(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    with pytest.raises(ValueError, match="num_minibatches=3` does not divide the 4 paths"):
        agent.replace(num_minibatches=3).learn(scaled, rollout, params, KEY)


def test_the_same_key_gives_the_same_bits_and_another_key_others(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    first, again, other = (learn(agent, scaled, rollout, params, k)[0] for k in (KEY, KEY, jax.random.key(5)))
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    kernel = "first_kernel"
    assert not np.array_equal(first.params[kernel], other.params[kernel])
    assert not np.array_equal(first.params[kernel], scaled.params[kernel])


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_as_users_compile_it_the_first_ratio_is_1_and_the_same_key_gives_the_same_bits(
    env: TradingEnv, agent: PPOAgent, state: PPOState, params: EnvParams
) -> None:
    """Of a policy that has made up its mind: where all actions are as likely, no ratio could go wrong."""
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
    jit = partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})  # see conftest.py
    louder = {**state.params, "policy": jax.tree.map(lambda w: 200 * w, state.params["policy"])}
    state = state.replace(params=louder)

    @jit
    def update(state: PPOState, params: EnvParams, key: jax.Array) -> tuple[Rollout, Any]:
        paths = rollouts.begin(key, params)
        _, rollout, _ = rollouts.collect(paths, agent, state, params, key)
        return rollout, agent.learn(state, rollout, params, key)[0].params

    found, again, other = (update(state, params, key) for key in (KEY, KEY, jax.random.key(5)))
    tight = agent.replace(clip_range=1e-5)  # then clip_fraction counts |ratio - 1| > 1e-5
    batch = {**batch_of(found[0]), "log_prob": jnp.moveaxis(found[0].log_prob, 1, 0)}
    _, first = jit(lambda w: tight._loss(w, state, batch, params))(state.params)
    assert found[0].log_prob.min() < -2
    assert found[0].log_prob.max() > -0.3
    assert float(first["clip_fraction"]) == 0
    assert abs(float(first["approx_kl"])) < 1e-6
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(found[1]["first_kernel"], other[1]["first_kernel"])


def test_two_seeds_begin_differently(
    env: TradingEnv, agent: PPOAgent, raw_params: EnvParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each layer has a key of its own. What it draws by that key is Flax's, and slow to compile."""

    def by_key(gain: float) -> Callable[..., jax.Array]:
        return lambda key, shape, dtype=jnp.float32: jnp.full(shape, gain * jax.random.key_data(key).sum(), dtype)

    monkeypatch.setattr(nn.initializers, "orthogonal", by_key)
    begin = jax.jit(jax.vmap(lambda key: agent.init(key, env, raw_params).params))
    for weights in jax.tree.leaves(begin(jax.random.split(KEY))):
        assert weights.ndim == 2 or not np.array_equal(*np.asarray(weights)), "all but biases, which are 0"


def test_learning_rate_and_clip_range_can_be_swept_by_vmap(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams
) -> None:
    """It is traced under `vmap`, and both are arguments of the compiled program."""
    rates = np.float32([1e-4, 1e-2])

    def member(rate: jax.Array, clip: jax.Array) -> jax.Array:
        mine = agent.replace(learning_rate=rate, clip_range=clip)
        start = scaled.replace(learning_rate=mine.learning_rate)
        return mine.learn(start, rollout, params, KEY)[0].params["first_kernel"]

    first = np.asarray(scaled.params["first_kernel"])
    assert jax.eval_shape(jax.vmap(member), rates, rates).shape == (2, *first.shape)
    after = [learn(agent, scaled.replace(learning_rate=rate), rollout, params, KEY)[0] for rate in rates]
    moved = [np.abs(np.asarray(each.params["first_kernel"]) - first).max() for each in after]
    assert moved[1] > 20 * moved[0]


# --- schedules ---


def test_the_linear_schedule_of_the_learning_rate_falls_to_0(agent: PPOAgent, state: PPOState) -> None:
    for progress, left in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (1.5, 0.0)):
        rate = agent.anneal(state, jnp.float32(progress)).learning_rate
        np.testing.assert_allclose(rate, 1e-3 * left, rtol=1e-6)
    assert agent.replace(schedule="constant").anneal(state, jnp.float32(0.5)) is state


@pytest.mark.slow
def test_the_deviation_is_scheduled_from_log_std_init_to_log_std_final_and_not_learnt(agent: PPOAgent) -> None:
    fresh = initial(agent, wrapped(-2.0, 2.0, (2,)))
    update = jax.jit(lambda agent, state: agent.learn(state, bandit(agent, state, KEY), None, KEY)[0])
    bounds = (-2 * jnp.ones(2), 2 * jnp.ones(2))
    for progress, log_std in ((0.0, 0.0), (0.5, -0.875), (1.0, -1.75), (1.5, -1.75)):
        scheduled = agent.anneal(fresh, jnp.float32(progress))
        policy = scheduled.network.actions.distribution(jnp.zeros((1, 2)), scheduled.params["log_std"], bounds)
        np.testing.assert_allclose(policy.log_std, [log_std] * 2, rtol=1e-6)
    np.testing.assert_array_equal(fresh.params["log_std"], agent.anneal(fresh, jnp.float32(0)).params["log_std"])
    for given, moves in ((agent.replace(log_std_final=-1.0), False), (agent.replace(log_std_init=-0.2), True)):
        after = update(given, fresh)
        assert np.array_equal(after.params["log_std"], fresh.params["log_std"]) != moves
        kept = given.replace(schedule="constant").anneal(after, jnp.float32(0.9))
        assert np.array_equal(kept.params["log_std"], after.params["log_std"]) == moves


# --- settings ---


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"learning_rate": -1e-3}, r"learning_rate=-0.001` is outside \[0, 1\]"),
        ({"learning_rate": math.nan}, "learning_rate=nan"),
        ({"gamma": None}, "gamma=None"),
        ({"gamma": "x"}, r"gamma='x'` must be a number$"),
        ({"gamma": True}, r"gamma=True` must be a number"),
        ({"clip_range": (0.1, 0.2)}, r"clip_range=\(0.1, 0.2\)` must be a number"),
        ({"entropy_coef": "high"}, r"entropy_coef='high'` must be a number"),
        ({"gamma": 1.01}, r"gamma=1.01` is outside"),
        ({"gae_lambda": -0.1}, "gae_lambda=-0.1"),
        ({"clip_range": -0.2}, "clip_range=-0.2"),
        ({"entropy_coef": -1}, "entropy_coef=-1"),
        ({"value_coef": 101}, "value_coef=101"),
        ({"max_grad_norm": -0.5}, "max_grad_norm=-0.5"),
        ({"num_epochs": 0}, "num_epochs=0` must be"),
        ({"num_minibatches": 0}, "num_minibatches=0` must be"),
        ({"num_epochs": True}, "num_epochs=True` must be"),
        ({"num_minibatches": "4"}, "num_minibatches='4'` must be"),
        ({"market_baseline": "no"}, "market_baseline='no'"),
        ({"normalize_observations": 1}, "normalize_observations=1"),
        ({"num_epochs": 1.5}, "num_epochs=1.5` must be"),
        ({"schedule": "cosine"}, "use constant or linear"),
        ({"hidden": ()}, "at least one layer"),
        ({"hidden": (8, 0)}, "at least 1 wide"),
        ({"hidden": [8, 8]}, "must be a tuple"),
        ({"encoder": "lstm"}, "use one of mlp, tcn, attention, gru, lru"),
        ({"encoder": "tcn", "encoder_width": 0}, r"encoder_width=0` must be a whole number, from 1 to 65,536$"),
        (
            {"encoder": "attention", "encoder_width": 24},
            r"encoder_width=24` must be a multiple of 16 for attention",
        ),
        ({"encoder_depth": 0}, r"encoder_depth=0` must be a whole number, from 1 to"),
        ({"compute_dtype": "float16"}, "use float32 or bfloat16"),
        ({"matmul_precision": "low"}, "is unknown; use default, high, highest"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOAgent(**setting).validate()


def test_settings_at_their_limits_pass() -> None:
    agent = PPOAgent(learning_rate=1.0, gamma=1, gae_lambda=0.0, max_grad_norm=math.inf, entropy_coef=None)
    assert agent.validate() is agent
    agent.replace(gamma=jnp.float32(0.5), learning_rate=np.float32(0.5), num_epochs=np.int64(2)).validate()
    assert hash(jax.tree.structure(agent)) == hash(jax.tree.structure(agent.replace(gamma=0.5)))


# --- encoders ---


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "dtype"), [("tcn", "bfloat16"), ("attention", "float32")])
def test_encoders_on_paths_learn_from_what_acted_and_keep_float32(
    encoder: str, dtype: str, with_encoder: Callable[..., tuple], env: TradingEnv, params: EnvParams
) -> None:
    """One gradient step: its metrics are of the weights that acted, so every ratio is 1."""
    agent, state = with_encoder(encoder=encoder, compute_dtype=dtype, num_epochs=1, num_minibatches=1)
    tight = agent.replace(clip_range=1e-5)  # then clip_fraction counts |ratio - 1| > 1e-5
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)

    @jax.jit
    def update(state: PPOState, params: EnvParams) -> tuple[Rollout, PPOState, dict]:
        paths = rollouts.begin(jax.random.key(1), params)
        _, rollout, _ = rollouts.collect(paths, tight, state, params, jax.random.key(2))
        return rollout, *tight.learn(state, rollout, params, KEY)

    rollout, after, metrics = update(state, params)
    assert float(jnp.std(rollout.log_prob)) > 0.1
    assert abs(float(metrics["approx_kl"])) < (1e-6 if dtype == "float32" else 1e-3)
    assert dtype == "bfloat16" or float(metrics["clip_fraction"]) == 0
    arrays = jax.tree.leaves((after.params, rollout.log_prob, rollout.value, rollout.reward, rollout.account))
    assert {x.dtype for x in arrays} == {np.dtype("float32")}
    assert not np.array_equal(after.params["trunk"]["embed"]["kernel"], state.params["trunk"]["embed"]["kernel"])


def test_an_encoder_needs_a_window(env: TradingEnv, agent: PPOAgent) -> None:
    tcn = agent.replace(encoder="tcn")
    with pytest.raises(ValueError, match=r"encoder='tcn'` .*`window=1` shows one"):
        tcn.check_env(dataclasses.replace(env, window=1))
    with pytest.raises(ValueError, match=r"Box shows one observation.*window=32"):
        tcn.init(KEY, Box((3,), 2), None)
    tcn.check_env(env)


# --- normalisation ---


def test_the_normaliser_is_numpys_mean_and_deviation_of_the_segments(market: Market, raw_params: EnvParams) -> None:
    known = np.concatenate([market.features[1:150, 0], market.features[151:240, 0]]).astype(np.float32)
    normalizer = fit_normalizer(raw_params.arrays)
    np.testing.assert_allclose(normalizer.mean, np.float64(known).mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(normalizer.std, np.float64(known).std(0), rtol=1e-6)


def test_prepare_standardises_and_bounds_the_arrays(
    prepared: tuple[PPOState, EnvParams], raw_params: EnvParams
) -> None:
    state, params = prepared
    raw = np.float64(raw_params.arrays.features)
    known = np.concatenate([raw[1:150], raw[151:]])
    expected = np.clip((raw - known.mean((0, 1))) / known.std((0, 1)), -5, 5)
    np.testing.assert_allclose(params.arrays.features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(params.arrays.close, raw_params.arrays.close)
    wild = np.asarray(state.normalizer(np.float32([[1e9, -1e9, 3.0]])))
    np.testing.assert_array_equal(wild[0, :2], [5, -5])


def test_prepare_fits_on_the_training_segments_only(
    agent: PPOAgent, state: PPOState, market: Market, env: TradingEnv
) -> None:
    train, test = market.split(0.5, 0.5)
    fresh = state.replace(normalizer=None)
    changed = market.features.copy()
    for start, first, end in test.segments:
        assert start < first < end
        changed[first:end] = 1e6
    other = dataclasses.replace(train, features=changed)
    first, second = (agent.prepare(fresh, env.with_market(m).default_params)[0].normalizer for m in (train, other))
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.std, second.std)
    # Once fitted, the stored numbers are applied to another market.
    kept, params = agent.prepare(fresh.replace(normalizer=first), env.with_market(test).default_params)
    assert kept.normalizer is first
    rows = market.features[test.segments[0, 1] : 150, 0]
    expected = np.clip((rows - np.float64(first.mean)) / np.float64(first.std), -5, 5)
    np.testing.assert_allclose(params.arrays.features[test.segments[0, 1] : 150, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_constant_feature_becomes_0(raw_params: EnvParams, constant: float) -> None:
    features = np.array(raw_params.arrays.features)
    features[..., 1] = constant
    normalizer = fit_normalizer(raw_params.arrays.replace(features=features))
    np.testing.assert_array_equal(jax.jit(type(normalizer).__call__)(normalizer, features)[..., 1], 0)
    assert float(normalizer.std[1]) == 1


def test_prepare_leaves_ordinary_environments_alone(agent: PPOAgent, state: PPOState) -> None:
    fresh, params = state.replace(normalizer=None), {"max_steps": 3}
    assert agent.prepare(fresh, params) == (fresh, params)


def test_the_value_scale_counts_its_first_update_fully_and_is_0_before() -> None:
    fresh, moments = ValueScale(*np.zeros(3, np.float32)), jax.jit(ValueScale.moments)
    update = jax.jit(ValueScale.update)
    np.testing.assert_array_equal(moments(fresh), (0, 0))
    first = np.random.default_rng(0).normal(3, 2, 500).astype(np.float32)
    second = np.random.default_rng(1).normal(-1, 1, 500).astype(np.float32)
    once = update(fresh, first)
    np.testing.assert_allclose(moments(once), (first.mean(), first.std()), rtol=1e-5)
    mean, square = ((0.9 * f(first) + f(second)) / 1.9 for f in (np.mean, lambda x: np.mean(np.float64(x) ** 2)))
    expected = (mean, math.sqrt(square - mean**2))
    np.testing.assert_allclose(moments(update(once, second)), expected, rtol=1e-5)


def test_a_fresh_agent_values_everything_at_0(rollout: Rollout, agent: PPOAgent, state: PPOState) -> None:
    context = np.ones((3, 16), np.float32)
    _, extras = jax.jit(lambda account: agent.act(state, context, account, KEY))(rollout.account[0, :3, 0])
    np.testing.assert_array_equal(extras["value"], 0)


# --- on disk ---


def test_a_saved_model_acts_the_same_bit_for_bit(
    agent: PPOAgent, scaled: PPOState, rollout: Rollout, params: EnvParams, tmp_path: Path
) -> None:
    path = tmp_path / "policy.pkl"
    agent.save_model(path, scaled, {"note": "a test"})
    policy = load_policy(path)
    loaded = policy.state
    assert policy.about == {"note": "a test"}
    accounts = rollout.account[3, :3, 0]

    @jax.jit
    def act(state: PPOState) -> tuple[jax.Array, dict]:
        windows = chunks(params.arrays, np.array([20, 60, 200]), 4, 1)
        return agent.select_action(state, Observation(windows, accounts), KEY)

    (action, extras), (same, same_extras) = act(scaled.replace(opt_state=None)), act(loaded)
    np.testing.assert_array_equal(action, same)
    np.testing.assert_array_equal(extras["log_prob"], same_extras["log_prob"])
    np.testing.assert_array_equal(loaded.normalizer.mean, scaled.normalizer.mean)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(loaded))
    assert loaded.network == scaled.network


def test_a_file_of_another_kind_is_refused(agent: PPOAgent, tmp_path: Path) -> None:
    path = tmp_path / "policy.pkl"
    files.save(path, "policy", {"agent": "Oracle"})
    with pytest.raises(files.FileError, match="holds no PPOAgent policy"):
        load_policy(path)


# --- ordinary environments ---


class Box:
    """What PPOAgent asks of an ordinary environment: its observation's shape and its action space."""

    name = "Box"

    def __init__(self, shape: tuple[int, ...], actions: int | None) -> None:
        self.shape, self.actions = shape, actions

    def reset(self, key: jax.Array, params: None) -> tuple:
        return (jnp.zeros(self.shape) if self.shape != ("dict",) else {"a": jnp.zeros(2)}), None

    def action_space(self, params: None) -> object:
        return type("Discrete", (), {} if self.actions is None else {"n": self.actions})()


@pytest.mark.parametrize("shape", [(5,), (3, 2), ()])
def test_observations_of_any_shape_are_flattened_after_the_way_through_a_file_too(
    agent: PPOAgent, shape: tuple[int, ...], tmp_path: Path
) -> None:
    agent.save_model(tmp_path / "p", initial(agent, Box(shape, 4)), {})
    state = load_policy(tmp_path / "p").state
    obs = np.random.default_rng(0).normal(size=(7, *shape)).astype(np.float32)
    select = jax.jit(lambda obs: agent.select_action(state, obs, KEY, deterministic=True))
    action, extras = select(obs)
    assert action.shape == extras["log_prob"].shape == extras["value"].shape == (7,)
    one, _ = select(obs[2])
    assert one.shape == ()
    assert int(one) == np.asarray(action)[2]


def test_actions_that_are_not_discrete_are_refused(agent: PPOAgent) -> None:
    with pytest.raises(ValueError, match="PPOAgent needs discrete actions or a Box, Box has a"):
        agent.init(KEY, Box((3,), None), None)


def test_observations_that_are_no_array_are_refused(agent: PPOAgent) -> None:
    with pytest.raises(ValueError, match="PPOAgent needs an array as observation, Box has"):
        agent.init(KEY, Box(("dict",), 3), None)


def test_learn_on_an_ordinary_rollout_improves_the_rewarded_action(agent: PPOAgent) -> None:
    """A bandit that pays for action 2 alone: a few updates make it likely, from any of 8 paths."""
    agent = agent.replace(learning_rate=0.02, entropy_coef=0.0, num_epochs=4)
    state = initial(agent, Box((2,), 3))
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(LENGTH, 8, 2)).astype(np.float32)
    no = np.zeros((LENGTH, 8, 1), bool)

    @jax.jit
    def update(state: PPOState, key: jax.Array) -> PPOState:
        action, extras = agent.select_action(state, obs, key)
        action, log_prob, value = (x[..., None] for x in (action, extras["log_prob"], extras["value"]))
        reward = (action == 2).astype(jnp.float32)
        rollout = Rollout(None, obs, None, action, log_prob, value, value, reward, ~no, no)
        return agent.learn(state, rollout, None, key)[0]

    for i in range(8):
        state = update(state, jax.random.key(i))
    action, extras = jax.jit(lambda s: agent.select_action(s, obs, KEY, deterministic=True))(state)
    assert (np.asarray(action) == 2).all()
    # Each step ends its episode: targets are rewards, V is between 0 and 1 and near what is now usual, 1.
    assert 0.3 < float(extras["value"].mean()) < 1.2


# --- continuous actions ---


def wrapped(low: float, high: float, shape: tuple[int, ...]) -> Box:
    """An ordinary environment with observations `[3]` and a Box of actions."""
    env = Box((3,), None)
    env.action_space = lambda params: SimpleNamespace(low=low, high=high, shape=shape)
    return env


def loud(state: PPOState, seed: int = 0) -> PPOState:
    """A policy that is not near its start: some of its actions are at the ends of their range."""
    return policies.loud(policies.with_noise(state, seed, 0.3), factor=10)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["continuous", "weights"])
def test_on_paths_the_ratio_of_the_first_minibatch_is_1_for_continuous_actions_too(
    positions: str, env: TradingEnv, agent: PPOAgent, raw_params: EnvParams
) -> None:
    env, agent = dataclasses.replace(env, positions=positions), agent.replace(log_std_init=-1.75)
    state, params = agent.prepare(initial(agent, env, raw_params), raw_params)
    state = loud(state)
    rollouts = MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
    collect = jax.jit(lambda paths, state, params, key: rollouts.collect(paths, agent, state, params, key)[1:])
    rollout, stats = collect(rollouts.begin(jax.random.key(1), params), state, params, jax.random.key(2))
    assert rollout.action.shape == (LENGTH, PATHS, ACCOUNTS, 1)
    assert int(stats["invalid_actions"]) == 0
    share = np.asarray(rollout.action if positions == "weights" else (1 + rollout.action) / 2)
    assert min(share.min(), 1 - share.max()) < 1e-3, "saturated actions must occur"
    batch = {**batch_of(rollout), "log_prob": jnp.moveaxis(rollout.log_prob, 1, 0)}
    tight = agent.replace(clip_range=1e-5)  # then clip_fraction counts |ratio - 1| > 1e-5
    _, metrics = jax.jit(lambda w: tight._loss(w, state, batch, params))(state.params)
    assert float(metrics["clip_fraction"]) == 0
    after, metrics = learn(agent, state, rollout, params, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((after.params, metrics)))
    assert not np.array_equal(after.params["log_std"], state.params["log_std"])


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_box_of_actions_is_drawn_within_its_bounds_after_the_way_through_a_file_too(
    agent: PPOAgent, shape: tuple[int, ...], tmp_path: Path
) -> None:
    fresh = loud(initial(agent, wrapped(-2.0, 5.0, shape))).replace(opt_state=None)
    agent.save_model(tmp_path / "p", fresh, {})
    state = load_policy(tmp_path / "p").state
    obs = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    select = jax.jit(lambda state, obs: agent.select_action(state, obs, KEY))
    action, extras = select(state, obs)
    assert action.shape == (500, *shape)
    assert extras["log_prob"].shape == (500,)
    assert float(action.min()) == -2
    assert float(action.max()) == 5
    np.testing.assert_array_equal(select(fresh, obs)[0], action)
    assert jax.eval_shape(select, state, obs[0])[0].shape == shape
    np.testing.assert_array_equal(state.bounds, fresh.bounds)


def test_an_unbounded_box_is_refused_even_where_init_cannot_see_it(agent: PPOAgent) -> None:
    with pytest.raises(ValueError, match=r"PPOAgent needs actions within finite bounds, not \[-inf, inf\]"):
        agent.init(KEY, wrapped(-math.inf, math.inf, (2,)), None)
    env = wrapped(0.0, 1.0, (1,))
    env.action_space = lambda params: SimpleNamespace(low=-params, high=params, shape=(1,))
    with orthogonal_by_numpy():
        state = jax.jit(lambda params: agent.init(KEY, env, params))(jnp.inf)
    with pytest.raises(ValueError, match="finite bounds"):
        agent.prepare(state, jnp.inf)


SEEN = np.random.default_rng(0).normal(5, 3, (LENGTH, 8, 3)).astype(np.float32)


def bandit(agent: PPOAgent, state: PPOState, key: jax.Array) -> Rollout:
    """A rollout on a box that pays -(action - 1)^2, in episodes of one step."""
    action, extras = agent.select_action(state, SEEN, key)
    action = action.reshape(LENGTH, 8, 1, -1)
    reward = -((action - 1) ** 2).sum(-1)
    log_prob, value = (extras[name][..., None] for name in ("log_prob", "value"))
    no = jnp.zeros_like(reward, bool)
    return Rollout(None, SEEN, None, action, log_prob, value, value, reward, ~no, no)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_learn_moves_a_continuous_action_to_where_it_is_rewarded(agent: PPOAgent, normalize: bool) -> None:
    """A bandit that pays -(action - 1)^2 on [-2, 2]: the mode goes to 1, the deviation shrinks."""
    agent = agent.replace(
        learning_rate=0.02, log_std_init=-0.5, entropy_coef=0.0, num_epochs=4, normalize_observations=normalize
    )
    state = first = initial(agent, wrapped(-2.0, 2.0, (1,)))
    update = jax.jit(lambda state, key: agent.learn(state, bandit(agent, state, key), None, key)[0])
    for i in range(25):
        state = update(state, jax.random.key(i))
    action, _ = jax.jit(lambda s: agent.select_action(s, SEEN, KEY, deterministic=True))(state)
    assert abs(float(action.mean()) - 1) < 0.3
    assert float(state.params["log_std"][0]) < float(first.params["log_std"][0]) - 0.2


# --- running normalisation ---


def test_observations_are_normalised_by_the_moments_before_the_update_and_merged_after_it(agent: PPOAgent) -> None:
    agent = agent.replace(normalize_observations=True)
    rng = np.random.default_rng(0)
    obs = [rng.normal(50, 20, (LENGTH, 8, 3)).astype(np.float32) for _ in range(3)]
    state = initial(agent, wrapped(-2.0, 2.0, (2,)))
    no = jnp.zeros((LENGTH, 8, 1), bool)
    tight = agent.replace(clip_range=1e-5, learning_rate=0.0)  # nothing moves: clip_fraction counts |ratio - 1| > 1e-5

    @jax.jit
    def update(state: PPOState, obs: jax.Array) -> tuple[PPOState, dict]:
        action, extras = agent.select_action(state, obs, KEY)
        log_prob, value = (extras[name][..., None] for name in ("log_prob", "value"))
        reward = action.sum(-1)[..., None]
        rollout = Rollout(None, obs, None, action[:, :, None], log_prob, value, value, reward, ~no, no)
        return tight.learn(state.replace(learning_rate=jnp.float32(0)), rollout, None, KEY)

    for i, batch in enumerate(obs):
        state, metrics = update(state, batch)
        assert float(metrics["clip_fraction"]) == 0
        seen = np.concatenate(np.float64(obs[: i + 1])).reshape(-1, 3)
        np.testing.assert_allclose(state.normalizer.mean, seen.mean(0), rtol=1e-5)
        np.testing.assert_allclose(state.normalizer.variance, seen.var(0), rtol=1e-4)


def test_a_saved_model_normalises_as_it_did(agent: PPOAgent, tmp_path: Path) -> None:
    agent = agent.replace(normalize_observations=True)
    state = loud(initial(agent, Box((2, 3), 4))).replace(opt_state=None)
    data = np.random.default_rng(1).normal(9, 4, (40, 2, 3)).astype(np.float32)
    state = state.replace(normalizer=jax.jit(type(state.normalizer).update)(state.normalizer, data))
    agent.save_model(tmp_path / "p", state, {})
    loaded = load_policy(tmp_path / "p").state
    select = jax.jit(lambda s: agent.select_action(s, data, KEY))
    (action, extras), (same, same_extras) = select(state), select(loaded)
    np.testing.assert_array_equal(action, same)
    np.testing.assert_array_equal(extras["log_prob"], same_extras["log_prob"])
    assert not np.array_equal(extras["log_prob"], select(state.replace(normalizer=None))[1]["log_prob"])


def test_the_market_keeps_its_own_normaliser(env: TradingEnv, agent: PPOAgent, raw_params: EnvParams) -> None:
    agent = agent.replace(normalize_observations=True)
    state, _ = agent.prepare(initial(agent, env, raw_params), raw_params)
    assert type(state.normalizer).__name__ == "Normalizer"
