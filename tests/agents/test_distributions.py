"""Categorical against SciPy, at ordinary and at extreme logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxtrader.agents.distributions import Categorical

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 4, 3)).astype(np.float32)


def test_log_prob_and_entropy_equal_scipy() -> None:
    log_p = scipy.special.log_softmax(np.float64(LOGITS), axis=-1)
    policy = Categorical(jnp.asarray(LOGITS))
    action = np.random.default_rng(1).integers(0, 3, (5, 4))
    np.testing.assert_allclose(policy.log_probs(), log_p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        policy.log_prob(jnp.asarray(action)),
        np.take_along_axis(log_p, action[..., None], -1)[..., 0],
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(policy.entropy(), scipy.stats.entropy(np.exp(log_p), axis=-1), rtol=1e-5)


def test_the_gradient_of_log_prob_is_one_hot_minus_probabilities() -> None:
    gradient = jax.grad(lambda x: Categorical(x).log_prob(jnp.asarray(2)))(jnp.asarray(LOGITS[0, 0]))
    np.testing.assert_allclose(gradient, np.eye(3)[2] - scipy.special.softmax(LOGITS[0, 0]), atol=1e-6)


def test_frequencies_of_samples_follow_the_probabilities() -> None:
    logits = np.array([0.3, -1.0, 1.2, 0.0], np.float32)
    draws = Categorical(jnp.broadcast_to(jnp.asarray(logits), (20_000, 4))).sample(jax.random.key(7))
    assert draws.shape == (20_000,)
    assert draws.dtype == jnp.int32
    counts = np.bincount(draws, minlength=4)
    assert scipy.stats.chisquare(counts, 20_000 * scipy.special.softmax(np.float64(logits))).pvalue > 0.001


@pytest.mark.parametrize("impossible", [0, 1, 2])
def test_an_impossible_action_is_never_drawn(impossible: int) -> None:
    logits = np.zeros(3, np.float32)
    logits[impossible] = -1e4
    draws = Categorical(jnp.broadcast_to(jnp.asarray(logits), (20_000, 3))).sample(jax.random.key(8))
    assert np.bincount(draws, minlength=3)[impossible] == 0
    assert np.bincount(draws, minlength=3).min(where=np.arange(3) != impossible, initial=20_000) > 9_000


@pytest.mark.parametrize("largest", [0.0, 1 - 2.0**-23])
def test_not_even_at_the_ends_of_the_uniform_draw(monkeypatch: pytest.MonkeyPatch, largest: float) -> None:
    """Cumulated float32 probabilities may end below the largest uniform number: seen in 8% of rows with 9 actions."""
    logits = np.random.default_rng(0).normal(size=(2000, 9)).astype(np.float32)
    logits[:, [0, -1]] = -1e4
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, largest, dtype))
    draws = np.asarray(Categorical(jnp.asarray(logits)).sample(jax.random.key(0)))
    assert draws.min() >= 1
    assert draws.max() <= 7


def test_mode_is_the_likeliest_and_the_first_of_a_tie() -> None:
    np.testing.assert_array_equal(Categorical(jnp.asarray(LOGITS)).mode(), LOGITS.argmax(-1))
    assert int(Categorical(jnp.asarray([1.0, 3.0, 3.0])).mode()) == 1


@pytest.mark.parametrize("logits", [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]])
def test_extreme_logits_give_no_nan_nor_do_their_gradients(logits: list[float]) -> None:
    def total(x: jax.Array) -> jax.Array:
        policy = Categorical(x)
        return policy.log_prob(jnp.arange(3)).sum() + policy.entropy().sum()

    x = jnp.broadcast_to(jnp.asarray(logits), (3, 3))
    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(
        Categorical(x).entropy(), scipy.stats.entropy(scipy.special.softmax(np.float64(x), -1), axis=-1), atol=1e-6
    )
