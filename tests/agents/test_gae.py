"""GAE against a plain NumPy loop and a closed form."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxtrader.agents.advantages import gae

GAE = jax.jit(gae)
TIME, BATCH = 13, 6


def by_episode(reward, value, next_value, terminated, done, gamma, lam):
    """A_t = sum over k of (gamma lam)^k delta_{t+k}, up to the end of t's own episode, in one environment."""
    advantage = np.zeros(len(reward))
    for t in range(len(reward)):
        weight = 1.0
        for k in range(t, len(reward)):
            future = 0.0 if terminated[k] else gamma * next_value[k]
            advantage[t] += weight * (reward[k] + future - value[k])
            if done[k]:
                break
            weight *= gamma * lam
    return advantage


def flags(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    terminated, truncated = np.zeros((2, TIME, BATCH), bool)
    if kind in ("terminated", "mixed"):
        terminated = rng.random((TIME, BATCH)) < 0.2
    if kind in ("truncated", "mixed"):
        truncated = rng.random((TIME, BATCH)) < 0.3
    if kind == "both at once":
        terminated[5] = truncated[5] = True
    if kind == "all truncated":
        truncated[:] = True
    if kind == "last terminated":
        terminated[-1] = True
    return terminated, truncated


@pytest.mark.parametrize(
    "kind", ["none", "terminated", "truncated", "mixed", "both at once", "all truncated", "last terminated"]
)
def test_equals_the_sum_over_the_rest_of_the_episode(kind: str) -> None:
    rng = np.random.default_rng(1)
    reward, value, next_value = rng.normal(size=(3, TIME, BATCH)).astype(np.float32)
    terminated, truncated = flags(kind, rng)
    done = terminated | truncated
    advantage, target = GAE(reward, value, next_value, terminated, done, 0.97, 0.9)
    columns = (np.float64(x) for x in (reward, value, next_value))
    expected = np.stack(
        [
            by_episode(r, v, n, terminated[:, i], done[:, i], 0.97, 0.9)
            for i, (r, v, n) in enumerate(zip(*(c.T for c in columns), strict=True))
        ],
        axis=1,
    )
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(target, expected + value, rtol=1e-5, atol=1e-5)


def test_what_follows_a_termination_is_never_read() -> None:
    rng = np.random.default_rng(2)
    reward, value, next_value = rng.normal(size=(3, TIME, BATCH)).astype(np.float32)
    terminated = rng.random((TIME, BATCH)) < 0.3
    garbage = np.where(terminated, np.float32(np.nan), next_value)
    clean, _ = GAE(reward, value, next_value, terminated, terminated, 0.99, 0.95)
    same, _ = GAE(reward, value, garbage, terminated, terminated, 0.99, 0.95)
    np.testing.assert_array_equal(clean, same)
    assert np.isfinite(same).all()


def test_the_value_of_a_constant_reward_is_a_fixed_point_under_truncation() -> None:
    """V = r / (1 - gamma) solves V = r + gamma V: all advantages are 0 wherever a time limit falls."""
    reward = np.full((TIME, BATCH), 0.5, np.float32)
    value = reward / np.float32(1 - 0.9)
    done = np.random.default_rng(3).random((TIME, BATCH)) < 0.4
    advantage, target = GAE(reward, value, value, np.zeros_like(done), done, 0.9, 0.95)
    # Values of 5 cancel with a rounding of 2.4e-7, and up to 1 / (1 - 0.9 * 0.95) = 6.9 of these add up.
    np.testing.assert_allclose(advantage, 0, atol=2e-6)
    np.testing.assert_allclose(target, 5, rtol=1e-6)


def test_lambda_0_is_one_step_and_lambda_1_is_the_return() -> None:
    rng = np.random.default_rng(4)
    reward, value = rng.normal(size=(2, TIME, BATCH)).astype(np.float32)
    next_value = np.concatenate([value[1:], rng.normal(size=(1, BATCH)).astype(np.float32)])
    never = np.zeros((TIME, BATCH), bool)
    _, one_step = GAE(reward, value, next_value, never, never, 0.9, 0.0)
    np.testing.assert_allclose(one_step, reward + 0.9 * next_value, rtol=1e-5, atol=1e-6)
    _, whole = GAE(reward, value, next_value, never, never, 0.9, 1.0)
    powers = 0.9 ** np.arange(TIME)
    first = (powers[:, None] * reward).sum(0) + 0.9**TIME * next_value[-1]
    np.testing.assert_allclose(whole[0], first, rtol=1e-5, atol=1e-5)
