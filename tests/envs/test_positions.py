"""From actions to target exposures: ranges, faults and random draws, for one asset and several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxtrader.envs import positions

NAN, INF = np.nan, np.inf


def asked(kind: positions.Positions, action: object, assets: int) -> tuple[np.ndarray, np.ndarray]:
    target, invalid = positions.targets(kind, jnp.asarray(action), assets, jnp.float32)
    return np.asarray(target), np.asarray(invalid)


def test_an_index_asks_for_its_exposure() -> None:
    target, invalid = asked((-1.0, 0.0, 0.25), [0, 2, 1, -1, 3], 1)
    np.testing.assert_array_equal(target[:, 0], np.float32([-1, 0.25, 0, NAN, NAN]))
    np.testing.assert_array_equal(invalid, [False, False, False, True, True])


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ([0.3, -0.7], [0.3, -0.7]),
        ([1.0, -1.0], [1, -1]),  # the ledger scales what is too much together
        ([1 + 5e-7, 0.0], [1, 0]),
        ([1.001, 0.0], None),
        ([0.0, -1.001], None),
        ([NAN, 0.0], None),
        ([0.0, INF], None),
    ],
)
def test_an_exposure_is_taken_within_its_range(action: list[float], expected: list[float] | None) -> None:
    target, invalid = asked("continuous", [action], 2)
    assert invalid[0] == (expected is None)
    np.testing.assert_array_equal(target[0], np.float32([NAN, NAN] if expected is None else expected))


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ([0.3, 0.5], [0.3, 0.5]),
        ([0.0, 1.0], [0, 1]),
        ([-5e-7, 0.5], [0, 0.5]),
        ([0.5, 0.5000005], [0.5, 0.5]),
        ([0.6, 0.401], None),
        ([-0.001, 0.5], None),
        ([NAN, 0.5], None),
        ([-INF, 0.5], None),
        ([INF, -INF], None),
    ],
)
def test_weights_are_long_only_and_sum_to_at_most_1(action: list[float], expected: list[float] | None) -> None:
    target, invalid = asked("weights", [action], 2)
    assert invalid[0] == (expected is None)
    np.testing.assert_allclose(target[0], [NAN, NAN] if expected is None else expected, atol=3e-7)
    assert not target[0].sum() > 1


def test_a_fault_in_one_account_is_no_fault_in_another() -> None:
    target, invalid = asked("continuous", [[[0.5], [2.0]], [[NAN], [-1.0]]], 1)
    np.testing.assert_array_equal(invalid, [[False, True], [True, False]])
    np.testing.assert_array_equal(target[..., 0], [[0.5, NAN], [NAN, -1]])


@pytest.mark.parametrize(("kind", "low"), [("continuous", -1), ("weights", 0)])
def test_draws_for_one_asset_are_uniform(kind: positions.Positions, low: float) -> None:
    drawn = positions.draw(kind, jax.random.key(0), (5_000,), 1, jnp.float32)
    assert drawn.shape == (5_000, 1)
    assert drawn.dtype == jnp.float32
    assert scipy.stats.kstest(np.asarray(drawn)[:, 0], "uniform", (low, 1 - low)).pvalue > 0.001


def test_draws_for_several_assets_keep_within_the_limit() -> None:
    """Uniform on the simplex: each weight is Beta(1, A). Exposures: never more than 1 in all."""
    weights = np.asarray(positions.draw("weights", jax.random.key(1), (5_000,), 3, jnp.float32))
    assert weights.min() >= 0
    for i in range(3):
        assert scipy.stats.kstest(weights[:, i], "beta", (1, 3)).pvalue > 0.001
    exposure = np.asarray(positions.draw("continuous", jax.random.key(1), (5_000,), 3, jnp.float32))
    assert np.abs(exposure).sum(1).max() <= 1 + 1e-6
    assert exposure.min() < -0.5


@pytest.mark.parametrize(("kind", "low"), [("continuous", -1), ("weights", 0)])
def test_the_space_of_several_assets_is_a_box(kind: positions.Positions, low: float) -> None:
    box = positions.space(kind, 3)
    assert (float(box.low), float(box.high), box.shape) == (low, 1, (3,))
