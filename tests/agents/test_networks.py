"""The split first layer against the plain MLP over (window, account), in NumPy."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import orthogonal_by_numpy

from jaxtrader.agents.action_spec import ActionSpec
from jaxtrader.agents.networks import ActorCritic

WINDOW, ASSETS, FEATURES, K, ACTIONS = 4, 2, 3, 4, 3


@cache
def make(**changes) -> tuple[ActorCritic, dict]:
    network = ActorCritic(
        WINDOW, ASSETS * FEATURES, ASSETS * K, ActionSpec("discrete", ACTIONS), **{"hidden": (8, 6), **changes}
    )
    chunk, account = np.zeros((1, WINDOW, ASSETS, FEATURES), np.float32), np.zeros((1, 1, ASSETS, K), np.float32)
    with orthogonal_by_numpy():
        return network, jax.jit(network.init)(jax.random.key(1), chunk, account)


@partial(jax.jit, static_argnums=0)
def encode(network: ActorCritic, variables: dict, chunk: jax.Array) -> jax.Array:
    return network.apply(variables, chunk, method="encode")


@partial(jax.jit, static_argnums=0)
def head(network: ActorCritic, variables: dict, context: jax.Array, account: jax.Array | None) -> tuple:
    return network.apply(variables, context, account, method="head")


def jittered(variables: dict) -> dict:
    """Biases and the policy's kernel away from 0, so that a lost one shows."""
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.3, x.shape).astype(np.float32), variables)


def test_encode_of_a_chunk_equals_encode_of_each_window() -> None:
    network, variables = make()
    chunk = np.random.default_rng(0).normal(size=(5, 11, ASSETS, FEATURES)).astype(np.float32)
    whole = encode(network, variables, chunk)
    assert whole.shape == (5, 11 - WINDOW + 1, 16)
    for t in range(11 - WINDOW + 1):
        one = encode(network, variables, chunk[:, t : t + WINDOW])
        np.testing.assert_allclose(whole[:, t], one[:, 0], rtol=1e-5, atol=1e-6)


def test_encode_is_causal_bit_for_bit() -> None:
    network, variables = make()
    chunk = np.random.default_rng(0).normal(size=(1, 11, ASSETS, FEATURES)).astype(np.float32)
    changed = chunk.copy()
    changed[:, 7:] = 1e6
    before, after = (encode(network, variables, x) for x in (chunk, changed))
    np.testing.assert_array_equal(before[:, : 7 - WINDOW + 1], after[:, : 7 - WINDOW + 1])
    assert not np.allclose(before[:, 7 - WINDOW + 1], after[:, 7 - WINDOW + 1])


@pytest.mark.parametrize("hidden", [(8, 6, 5), (8,)])
def test_head_after_encode_is_the_plain_mlp_on_the_concatenation(hidden: tuple[int, ...]) -> None:
    network, variables = make(hidden=hidden)
    variables = jittered(variables)
    rng = np.random.default_rng(2)
    window = rng.normal(size=(7, WINDOW, ASSETS, FEATURES)).astype(np.float32)
    account = rng.normal(size=(7, ASSETS, K)).astype(np.float32)
    logits, value = head(network, variables, encode(network, variables, window)[:, 0], account)

    weights = jax.tree.map(np.float64, variables["params"])
    inputs = np.concatenate([window.reshape(7, -1), account.reshape(7, -1)], axis=1).astype(np.float64)
    first = inputs @ weights["first_kernel"] + weights["first_bias"]
    outputs = []
    for torso in range(2):
        layer = np.tanh(first[:, torso * 8 : (torso + 1) * 8])
        for i in range(len(hidden) - 1):
            dense = weights[f"torsos_{torso}_{i}"]
            layer = np.tanh(layer @ dense["kernel"] + dense["bias"])
        outputs.append(layer)
    expected_logits = outputs[0] @ weights["policy"]["kernel"] + weights["policy"]["bias"]
    expected_value = (outputs[-1] @ weights["critic"]["kernel"] + weights["critic"]["bias"])[:, 0]
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, expected_value, rtol=1e-4, atol=1e-5)


def test_without_an_account_the_head_takes_the_context_alone() -> None:
    network = ActorCritic(1, 5, 0, ActionSpec("discrete", ACTIONS), hidden=(8,))
    weights = jax.eval_shape(network.fresh, jax.random.key(0))
    assert weights["first_kernel"].shape == (5, 16)
    logits, value = jax.eval_shape(partial(head, network), {"params": weights}, np.ones((6, 16), np.float32), None)
    assert logits.shape == (6, ACTIONS)
    assert value.shape == (6,)


def test_one_context_serves_all_accounts_of_a_path() -> None:
    network, variables = make()
    variables = jittered(variables)
    rng = np.random.default_rng(3)
    context = rng.normal(size=(5, 1, 16)).astype(np.float32)
    account = rng.normal(size=(5, 9, ASSETS, K)).astype(np.float32)
    logits, value = head(network, variables, context, account)
    assert logits.shape == (5, 9, ACTIONS)
    one, one_value = head(network, variables, context[2, 0], account[2, 4])
    np.testing.assert_allclose(logits[2, 4], one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value[2, 4], one_value, rtol=1e-5, atol=1e-6)


OLD = ActorCritic(3, 2, 4, ActionSpec("discrete", 3), hidden=(4, 4))


@pytest.fixture(scope="module")
def old_weights() -> dict:
    """As Flax draws them from a given key."""
    return jax.jit(OLD.fresh)(jax.random.key(7))


def test_initialisation_is_orthogonal_with_the_usual_gains(old_weights: dict) -> None:
    """Gain sqrt 2 per torso in the first layer and between, 0.01 for the policy, 1 for the value, biases 0."""
    weights = jax.tree.map(np.float64, old_weights)
    for torso in range(2):
        block = weights["first_kernel"][:, torso * 4 : (torso + 1) * 4]
        np.testing.assert_allclose(block.T @ block, 2 * np.eye(4), atol=1e-5)
        inner = weights[f"torsos_{torso}_0"]["kernel"]
        np.testing.assert_allclose(inner.T @ inner, 2 * np.eye(4), atol=1e-5)
    assert not np.allclose(weights["first_kernel"][:, :4], weights["first_kernel"][:, 4:])
    np.testing.assert_allclose(weights["policy"]["kernel"].T @ weights["policy"]["kernel"], 1e-4 * np.eye(3), atol=1e-8)
    np.testing.assert_allclose((weights["critic"]["kernel"] ** 2).sum(), 1, rtol=1e-5)
    biases = [weights["first_bias"], *(weights[n]["bias"] for n in ("torsos_0_0", "torsos_1_0", "policy", "critic"))]
    assert not any(bias.any() for bias in biases)


def test_a_fresh_policy_is_nearly_uniform() -> None:
    network, variables = make()
    window = np.random.default_rng(4).normal(size=(50, WINDOW, ASSETS, FEATURES)).astype(np.float32)
    account = np.zeros((50, ASSETS, K), np.float32)
    logits, _ = head(network, variables, encode(network, variables, window)[:, 0], account)
    assert 0 < np.abs(logits).max() < 0.05


def test_one_assets_network_is_what_it_was_before_there_were_portfolios(old_weights: dict) -> None:
    """Names, shapes and numbers of a given key, as stored then."""
    dense = lambda rows, columns: {"bias": (columns,), "kernel": (rows, columns)}  # noqa: E731
    assert jax.tree.map(jnp.shape, old_weights) == {
        "first_bias": (8,),
        "first_kernel": (10, 8),
        "torsos_0_0": dense(4, 4),
        "torsos_1_0": dense(4, 4),
        "policy": dense(4, 3),
        "critic": dense(4, 1),
    }
    rng = np.random.default_rng(0)
    window = rng.normal(size=(2, 3, 1, 2)).astype(np.float32)
    account = rng.normal(size=(2, 1, 1, 4)).astype(np.float32)
    logits, value = jax.jit(OLD.apply)({"params": old_weights}, window, account)
    kept = [[0.00277888, -0.01260156, -0.00577134], [0.00774403, 0.00414668, 0.00298628]]
    np.testing.assert_allclose(logits[:, 0], kept, rtol=1e-4)
    np.testing.assert_allclose(value[:, 0], [-0.7652424, -0.4789577], rtol=1e-4)
