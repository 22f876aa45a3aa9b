"""The network of a portfolio against NumPy in float64, and what sharing all weights must mean."""

from __future__ import annotations

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policies import orthogonal_by_numpy

from jaxtrader.agents import ppo_settings
from jaxtrader.agents.action_spec import ActionSpec
from jaxtrader.agents.networks import PortfolioActorCritic

WINDOW, ASSETS, FEATURES, K = 4, 3, 2, 4
Network = PortfolioActorCritic


@cache
def make(kind: str = "simplex", assets: int = ASSETS, **changes) -> tuple[Network, dict]:
    """A network and weights that are all of a size, so that a lost one shows. No initialisation is compiled."""
    actions = ActionSpec(kind, assets, (assets,))
    network = Network(WINDOW, FEATURES, K, actions, **{"hidden": (8, 6), "encoder_width": 16, **changes})
    rng, shapes = np.random.default_rng(5), jax.eval_shape(network.fresh, jax.random.key(1))
    return network, jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(x.dtype), shapes)


@partial(jax.jit, static_argnums=0)
def encode(network: Network, weights: dict, chunk: jax.Array) -> jax.Array:
    return network.apply({"params": weights}, chunk, method="encode")


@partial(jax.jit, static_argnums=0)
def head(network: Network, weights: dict, context: jax.Array, account: jax.Array) -> tuple:
    return network.apply({"params": weights}, context, account, method="head")


def decide(network: Network, weights: dict, window: np.ndarray, account: np.ndarray) -> tuple:
    return head(network, weights, encode(network, weights, window)[:, 0], account)


def seen(assets: int = ASSETS, rows: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    window = rng.normal(size=(rows, WINDOW, assets, FEATURES)).astype(np.float32)
    return window, rng.normal(size=(rows, assets, K)).astype(np.float32)


def with_mask(account: np.ndarray, listed: np.ndarray) -> np.ndarray:
    return np.concatenate([account, np.float32(listed)[..., None]], -1)


def in_numpy(
    network: Network, weights: dict, window: np.ndarray, account: np.ndarray, listed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row by row and asset by asset: scores less that of cash, and the value."""
    w = jax.tree.map(np.float64, weights)
    dense = lambda x, layer: x @ layer["kernel"] + layer.get("bias", 0)  # noqa: E731
    wide = network.hidden[0]
    scores, values = np.zeros(account.shape[:2]), np.zeros(len(account))
    for n in range(len(account)):
        mean = lambda xs, n=n: sum(x for x, is_listed in zip(xs, listed[n], strict=True) if is_listed) / listed[n].sum()  # noqa: E731
        inputs = [np.concatenate([window[n, :, a].reshape(-1), account[n, a]]) for a in range(account.shape[1])]
        first = [np.tanh(np.float64(x) @ w["first_kernel"] + w["first_bias"]) for x in inputs]
        own = [x[:wide] for x in first]
        others = dense(mean(own), w["others"])
        inner = len(network.hidden) - 1
        for i in range(inner):
            own = [np.tanh(dense(x, w[f"torsos_0_{i}"]) + (others if i == 0 else 0)) for x in own]
        scores[n] = [(dense(x, w["policy"]) + (0 if inner else others))[0] for x in own]
        if network.actions.kind == "simplex":
            scores[n] -= dense(mean(own), w["cash"])
        value = mean([x[wide:] for x in first])
        for i in range(inner):
            value = np.tanh(dense(value, w[f"torsos_1_{i}"]))
        values[n] = dense(value, w["critic"])[0]
    return scores, values


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("kind", "hidden"), [("simplex", (8, 6, 5)), ("box", (8, 6)), ("simplex", (8,)), ("box", (8,))]
)
def test_head_after_encode_equals_numpy(kind: str, hidden: tuple[int, ...], masked: bool) -> None:
    network, weights = make(kind, hidden=hidden)
    window, account = seen()
    listed = np.ones(account.shape[:2], bool)
    if masked:
        listed[1, 0] = listed[2, :2] = listed[3, 2] = False
    scores, value = in_numpy(network, weights, window, account, listed)
    got, got_value = decide(network, weights, window, with_mask(account, listed) if masked else account)
    np.testing.assert_allclose(got, scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got_value, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "tcn", "attention"])
def test_a_chunk_equals_its_windows_and_an_asset_sees_only_its_own_bars(kind: ppo_settings.Encoder) -> None:
    network, weights = make(encoder=kind)
    chunk = np.random.default_rng(0).normal(size=(2, 11, ASSETS, FEATURES)).astype(np.float32)
    whole = encode(network, weights, chunk)
    assert whole.shape == (2, 11 - WINDOW + 1, ASSETS * 16)
    for t in range(11 - WINDOW + 1):
        one = encode(network, weights, chunk[:, t : t + WINDOW])
        np.testing.assert_allclose(whole[:, t], one[:, 0], rtol=1e-5, atol=1e-5)
    changed = chunk.copy()
    changed[:, :, 1] = 7.0
    moved = np.asarray(encode(network, weights, changed) != whole).reshape(2, -1, ASSETS, 16).any((0, 1, 3))
    np.testing.assert_array_equal(moved, [False, True, False])


@pytest.mark.parametrize("masked", [False, True])
def test_permuting_the_assets_permutes_the_scores_and_leaves_the_value(masked: bool) -> None:
    network, weights = make()
    window, account = seen()
    if masked:
        account = with_mask(account, np.random.default_rng(3).random(account.shape[:2]) < 0.6)
    scores, value = decide(network, weights, window, account)
    assert np.std(scores, 1).min() > 0.01, "equal scores would prove nothing"
    for order in ([2, 0, 1], [1, 0, 2]):
        turned, same = decide(network, weights, window[:, :, order], account[:, order])
        np.testing.assert_allclose(turned, scores[:, order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(same, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["simplex", "box"])
def test_an_asset_that_cannot_be_traded_is_as_if_it_were_not_there(kind: str) -> None:
    """And with all tradable the mask changes nothing. With none at all everything is finite."""
    network, weights = make(kind)
    window, account = seen(ASSETS + 1)
    listed = np.ones(account.shape[:2], bool)
    listed[:, 1] = False
    rest = [0, 2, 3]
    scores, value = decide(network, weights, window, with_mask(account, listed))
    fewer, same = decide(network, weights, window[:, :, rest], account[:, rest])
    np.testing.assert_allclose(scores[:, rest], fewer, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value, same, rtol=1e-5, atol=1e-6)
    every, _ = decide(network, weights, window, with_mask(account, np.ones_like(listed)))
    plain, _ = decide(network, weights, window, account)
    np.testing.assert_allclose(every, plain, rtol=1e-5, atol=1e-6)
    # Far above the rounding of float32.
    assert not np.allclose(every[:, rest], fewer, atol=1e-3)
    for out in decide(network, weights, window, with_mask(account, np.zeros_like(listed))):
        assert np.isfinite(out).all()


def test_an_asset_knows_of_the_others() -> None:
    network, weights = make()
    window, account = seen()
    # Not in place: a call that is still running may read the array itself.
    moved = window + np.float32(np.arange(ASSETS) == 2)[:, None]
    (scores, _), (after, _) = (decide(network, weights, x, account) for x in (window, moved))
    gap = lambda x: x[:, 0] - x[:, 1]  # noqa: E731  the score of cash moves both alike
    assert np.abs(gap(after) - gap(scores)).min() > 1e-4


def test_one_context_serves_all_accounts_of_a_path() -> None:
    network, weights = make()
    rng = np.random.default_rng(3)
    context = rng.normal(size=(5, 1, ASSETS * 16)).astype(np.float32)
    account = rng.normal(size=(5, 9, ASSETS, K)).astype(np.float32)
    scores, value = head(network, weights, context, account)
    assert scores.shape == (5, 9, ASSETS)
    one, one_value = head(network, weights, context[2, 0], account[2, 4])
    np.testing.assert_allclose(scores[2, 4], one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value[2, 4], one_value, rtol=1e-5, atol=1e-6)


def test_weights_do_not_grow_with_the_assets_and_a_fresh_policy_is_nearly_uniform() -> None:
    network, _ = make()
    with orthogonal_by_numpy():
        fresh = jax.jit(network.fresh)(jax.random.key(0))
    many, _ = make(assets=50)
    shapes = jax.eval_shape(many.fresh, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, fresh)
    assert fresh["log_std"].shape == (1,)
    scores, _ = decide(network, fresh, *seen())
    assert 0 < np.abs(scores).max() < 0.05


def test_bfloat16_is_near_float32_and_gives_float32() -> None:
    outs = []
    for dtype in ({}, {"compute_dtype": "bfloat16"}):
        for hidden in ((8, 6), (8,)):
            network, weights = make("simplex", hidden=hidden, **dtype)
            outs.append(decide(network, weights, *seen()))
    for full, half in zip(outs[:2], outs[2:], strict=True):
        for a, b in zip(full, half, strict=True):
            assert b.dtype == jnp.float32
            assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()
