"""From actions to target exposures: ranges, faults and random draws, for one asset and several."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxtrader.envs import actions, spaces
from jaxtrader.envs.env_settings import Positions
from jaxtrader.ledger.rules import BRACKETS

NAN, INF = np.nan, np.inf


targets = jax.jit(actions.targets, static_argnums=(0, 2, 3, 4))
draw = jax.jit(actions.draw, static_argnums=(0, 2, 3, 4, 5))


def asked(
    kind: Positions, action: object, assets: int, max_leverage: float = 1.0, **more
) -> tuple[np.ndarray, np.ndarray]:
    action = np.asarray(action)
    action = action.astype(np.int32 if action.dtype == int else np.float32)
    target, invalid = targets(kind, action, assets, jnp.float32, max_leverage, **more)
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
def test_draws_for_one_asset_are_uniform(kind: Positions, low: float) -> None:
    drawn = draw(kind, jax.random.key(0), (5_000,), 1, jnp.float32, 1.0)
    assert drawn.shape == (5_000, 1)
    assert drawn.dtype == jnp.float32
    assert scipy.stats.kstest(np.asarray(drawn)[:, 0], "uniform", (low, 1 - low)).pvalue > 0.001


def test_draws_for_several_assets_keep_within_the_limit() -> None:
    """Uniform on the simplex: each weight is Beta(1, A). Exposures: never more than 1 in all."""
    weights = np.asarray(draw("weights", jax.random.key(1), (5_000,), 3, jnp.float32, 1.0))
    assert weights.min() >= 0
    for i in range(3):
        assert scipy.stats.kstest(weights[:, i], "beta", (1, 3)).pvalue > 0.001
    exposure = np.asarray(draw("continuous", jax.random.key(1), (5_000,), 3, jnp.float32, 1.0))
    assert np.abs(exposure).sum(1).max() <= 1 + 1e-6
    assert exposure.min() < -0.5


@pytest.mark.parametrize(("kind", "low"), [("continuous", -1), ("weights", 0)])
def test_the_space_of_several_assets_is_a_box(kind: Positions, low: float) -> None:
    box = spaces.action_space(kind, 3, 1.0)
    assert (float(box.low), float(box.high), box.shape) == (low, 1, (3,))


@pytest.mark.parametrize(
    ("action", "expected"), [([2.5, -2.5], [2.5, -2.5]), ([2.5 + 2e-6, 0.0], [2.5, 0]), ([2.501, 0.0], None)]
)
def test_exposures_reach_as_far_as_the_leverage(action: list[float], expected: list[float] | None) -> None:
    target, invalid = asked("continuous", action, 2, max_leverage=2.5)
    assert invalid == (expected is None)
    np.testing.assert_array_equal(target, np.float32([NAN, NAN] if expected is None else expected))


def test_weights_sum_to_at_most_1_whatever_the_leverage() -> None:
    _, invalid = asked("weights", [[0.5, 0.5], [0.8, 0.8]], 2, max_leverage=2.0)
    np.testing.assert_array_equal(invalid, [False, True])
    box = spaces.action_space("weights", 3, 2.0)
    assert (float(box.low), float(box.high)) == (0, 1)


def test_the_leverage_bounds_positions_space_and_draws() -> None:
    assert actions.validate_positions((-2, 0, 1.5), 1, 2.0) == (-2, 0, 1.5)
    with pytest.raises(ValueError, match=r"must be within \[-1.5, 1.5\], and 2 is not: .* at most `max_leverage`"):
        actions.validate_positions((0, 2), 1, 1.5)
    box = spaces.action_space("continuous", 3, 2.0)
    assert (float(box.low), float(box.high), box.shape) == (-2, 2, (3,))
    drawn = draw("continuous", jax.random.key(0), (5_000,), 1, jnp.float32, 2.0)
    assert scipy.stats.kstest(np.asarray(drawn)[:, 0], "uniform", (-2, 4)).pvalue > 0.001
    gross = np.abs(draw("continuous", jax.random.key(0), (5_000,), 3, jnp.float32, 2.0)).sum(1)
    assert 1.9 < gross.max() <= 2 + 1e-6


def test_positions_of_one_asset_are_none_for_several() -> None:
    with pytest.raises(ValueError, match=r"positions=\(-1.0, 1.0\)` is of one asset and the market has 4.*'weights'"):
        actions.validate_positions((-1, 1), 4, 1.0)
    assert actions.validate_positions("weights", 4, 1.0) == "weights"


@pytest.mark.parametrize("name", BRACKETS)
def test_a_bracket_is_a_fraction_and_infinity_is_none(name: str) -> None:
    def valid(given: Any) -> Any:
        return actions.validate_bracket(name, given, (-1.0, 0.0, 1.0))

    assert valid(None) is valid(INF) is valid((None, INF, np.float32(INF))) is None
    assert valid(np.float32(0.25)) == valid(np.array(0.25)) == 0.25
    assert valid([0.1, None, INF]) == (0.1, None, None)
    for wrong in ("5%", True):
        with pytest.raises(ValueError, match=f"`{name}={wrong!r}` must be a number"):
            valid(wrong)
    for wrong in (0, -0.1, NAN, -INF):
        with pytest.raises(ValueError, match=f"`{name}={wrong}` must be above 0: it is a fraction of"):
            valid((0.1, wrong, None))
    if name == "take_profit":
        assert valid(3) == 3
        return
    with pytest.raises(ValueError, match=f"`{name}=3` must be below 1: it is a fraction of"):
        valid(3)


@pytest.mark.parametrize("kind", ["continuous", "weights"])
def test_what_cannot_be_traded_is_held_whatever_is_asked_and_drawn_flat(kind: Positions) -> None:
    listed = np.array([[True, False, True], [True, True, True], [False, False, False]])
    target, invalid = asked(kind, [[0.2, 0.0, 0.3]] * 3, 3, tradable=listed)
    np.testing.assert_array_equal(target, np.float32([[0.2, NAN, 0.3], [0.2, 0, 0.3], [NAN] * 3]))
    assert not invalid.any()
    target, invalid = asked(kind, [[0.2, NAN, 0.3]], 3, tradable=listed[:1])
    assert invalid.all(), "an action that is none is a fault of the policy, also where it is not needed"
    drawn = np.asarray(draw(kind, jax.random.key(2), (4_000, 3), 3, jnp.float32, 1.0, holdable=listed))
    assert (drawn != 0).any(0).tolist() == listed.tolist()
    assert np.abs(drawn).sum(-1).max() <= 1 + 1e-6
    if kind == "weights":  # uniform on the simplex of the two that are listed
        assert scipy.stats.kstest(drawn[:, 0, 2], "beta", (1, 2)).pvalue > 0.001
