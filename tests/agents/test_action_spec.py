"""What the actions of an environment are, and the distribution that a network's outputs stand for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.agents.action_spec import ActionSpec, action_spec_of, check_bounds
from jaxtrader.agents.distributions import Categorical, CensoredNormal, SimplexNormal
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.rules import Rules

KEY = jax.random.key(0)


def box(low: object, high: object, shape: tuple[int, ...]) -> SimpleNamespace:
    space = SimpleNamespace(low=low, high=high, shape=shape)
    return SimpleNamespace(name="Toy", action_space=lambda params: space)


def test_a_trading_environment_says_what_its_actions_are(env: TradingEnv) -> None:
    assert action_spec_of(env, None) == (ActionSpec("discrete", 3), None)
    actions, bounds = action_spec_of(dataclasses.replace(env, positions="continuous"), None)
    assert actions == ActionSpec("box", 1, (1,))
    np.testing.assert_array_equal(bounds, [[-1], [1]])
    assert action_spec_of(dataclasses.replace(env, positions="weights"), None) == (ActionSpec("simplex", 1, (1,)), None)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 3)])
def test_a_box_of_any_shape_is_flattened_and_given_back(shape: tuple[int, ...]) -> None:
    actions, bounds = action_spec_of(box(-2.0, 3.0, shape), None)
    size = int(np.prod(shape))
    assert actions == ActionSpec("box", size, shape)
    np.testing.assert_array_equal(bounds, [[-2] * size, [3] * size])
    outputs = np.zeros((5, 4, size), np.float32), np.zeros(size, np.float32)
    sample = jax.eval_shape(lambda *given: actions.distribution(*given).sample(KEY), *outputs, bounds)
    drawn = np.random.default_rng(0).uniform(-2, 3, sample.shape)
    taken = actions.to_env(drawn)
    assert taken.shape == (5, 4, *shape)
    np.testing.assert_array_equal(actions.from_env(taken), drawn)


def test_bounds_may_differ_by_dimension_and_come_from_traced_parameters() -> None:
    space = box(np.array([-1.0, 0.0]), np.array([1.0, 7.0]), (2,))
    np.testing.assert_array_equal(action_spec_of(space, None)[1], [[-1, 0], [1, 7]])
    scaled = SimpleNamespace(name="Toy", action_space=lambda p: SimpleNamespace(low=-p, high=p, shape=(1,)))
    low, high = jax.jit(lambda p: action_spec_of(scaled, p)[1])(2.5)
    assert (float(low[0]), float(high[0])) == (-2.5, 2.5)
    low, high = jax.jit(lambda p: action_spec_of(scaled, p)[1])(jnp.inf)
    with pytest.raises(ValueError, match=r"finite bounds, not \[-inf, inf\]"):
        check_bounds((low, high))


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-np.inf, np.inf, r"\[-inf, inf\]"),
        (np.array([0.0, -1.0]), np.array([1.0, np.inf]), r"\[-1, inf\]"),
        (-3e38, 3e38, r"\[-3e\+38, 3e\+38\]"),
        (1.0, 1.0, r"\[1, 1\]"),
        (0.0, np.nan, r"\[0, nan\]"),
    ],
)
def test_a_box_without_finite_bounds_is_refused(low: object, high: object, says: str) -> None:
    with pytest.raises(ValueError, match=f"PPOAgent needs actions within finite bounds, not {says}; wrap the env"):
        action_spec_of(box(low, high, (2,)), None)


def test_a_box_whose_actions_float32_cannot_tell_apart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot tell the actions within \[1000000, 1000001\] apart in float32; wrap"):
        action_spec_of(box(1e6, 1e6 + 1, (2,)), None)
    action_spec_of(box(100.0, 101.0, (2,)), None)


@pytest.mark.parametrize("wrong", [("heap", 3, ()), ("discrete", 0, ()), ("box", 3, (2,))])
def test_actions_that_cannot_be_are_refused(wrong: tuple) -> None:
    with pytest.raises(ValueError, match="actions of"):
        ActionSpec(*wrong)


def test_outputs_become_the_distribution_of_their_kind_softly_bounded() -> None:
    outputs = np.float32([[0.01, -1e6]])
    assert isinstance(ActionSpec("discrete", 2).distribution(outputs, None, None), Categorical)
    bounds = (np.zeros(2, np.float32), np.ones(2, np.float32))
    numbers = jax.jit(ActionSpec("box", 2, (2,)).distribution)(outputs, np.float32([-0.5, 1e6]), bounds)
    assert isinstance(numbers, CensoredNormal)
    # The bounds are soft: they move a number well within them a little.
    np.testing.assert_allclose(numbers.log_std, [-0.5, 4], rtol=1e-2)
    np.testing.assert_allclose(numbers.mean, [[0.01, -1 - 2 * np.exp(numbers.log_std[1])]], rtol=1e-3)
    weights = jax.jit(ActionSpec("simplex", 2, (2,)).distribution)(outputs, np.zeros(2, np.float32), None)
    assert isinstance(weights, SimplexNormal)
    np.testing.assert_allclose(weights.mean, [[0.02, -10]], rtol=1e-4)


@jax.jit
def law(x: jax.Array, log_std: jax.Array) -> CensoredNormal:
    return ActionSpec("box", 1, (1,)).distribution(x, log_std, (jnp.full(1, -3.0), jnp.full(1, 3.0)))


@jax.jit
def slopes(x: jax.Array, log_std: jax.Array) -> jax.Array:
    """Of the mean by the output, and of the log_prob of 2.9."""
    mean, at = (lambda x: law(x, log_std).mean.sum()), (lambda x: law(x, log_std).log_prob(jnp.full(1, 2.9)))
    return jnp.stack([jax.vmap(jax.grad(each))(x)[:, 0] for each in (mean, at)])


far_draws = jax.jit(lambda x, log_std: law(x, log_std).sample(KEY))


@pytest.mark.parametrize("log_std", [0.5, -1.75, -3.0])
def test_a_mean_is_itself_within_the_box_and_never_out_of_reach_of_its_draws(log_std: float) -> None:
    """One deviation beyond by an excess of two, smooth at the bound. From far out the draws still lead back."""
    log_std = np.full(1, log_std, np.float32)
    std = float(np.exp(np.asarray(law(np.zeros((7, 1), np.float32), log_std).log_std)[0]))
    given = np.float32([[-1 - 2 * std], [-1.0], [-0.4], [0.0], [1.0], [1 + 2 * std], [1e9]])
    np.testing.assert_allclose(
        np.asarray(law(given, log_std).mean)[:, 0], [-1 - std, -1, -0.4, 0, 1, 1 + std, 1 + 2 * std], 1e-5
    )
    of_mean, of_log_prob = np.asarray(slopes(np.float32([[0.999], [1.001], [1 + 2 * std], [3.0]]), log_std))
    # A thousandth beyond the bound the slope has left 1 by 0.013 where the deviation is least.
    np.testing.assert_allclose(of_mean[:3], [1, 1, 0.25], atol=0.02)
    drawn = np.asarray(far_draws(np.full((20_000, 1), 100, np.float32), log_std))
    assert 0.018 < (drawn < 3).mean() < 0.03
    assert of_log_prob[3] < -1e-3, "a mean far out must find back"


def test_a_portfolio_has_a_number_an_asset_within_the_leverage(portfolio: TradingEnv) -> None:
    assert action_spec_of(portfolio, None) == (ActionSpec("simplex", 3, (3,)), None)
    levered = dataclasses.replace(portfolio, positions="continuous", rules=Rules(max_leverage=2.0))
    actions, bounds = action_spec_of(levered, None)
    assert actions == ActionSpec("box", 3, (3,))
    np.testing.assert_array_equal(bounds, [[-2] * 3, [2] * 3])
    assert actions.for_assets(5) == ActionSpec("box", 5, (5,))


def test_one_deviation_stands_for_all_and_the_action_mask_is_passed_on() -> None:
    mask, ones = np.array([[True, False, True]]), np.ones(3, np.float32)
    for kind, bounds in (("simplex", None), ("box", (-ones, ones))):
        make = jax.jit(ActionSpec(kind, 3, (3,)).distribution)
        policy = make(ones[None], np.float32([0.5]), bounds, mask)
        assert policy.log_std.shape == (3,)
        np.testing.assert_array_equal(np.asarray(jax.jit(lambda policy: policy.mode())(policy)) != 0, mask)
