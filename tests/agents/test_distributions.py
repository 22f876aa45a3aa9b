"""Distributions against SciPy and brute force, at ordinary and at extreme parameters."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from jaxtrader.agents.distributions import Categorical, CensoredNormal, SimplexNormal

# Compiled as a whole: one by one, each of their operations would be a program of its own.
log_prob = jax.jit(lambda policy, action: policy.log_prob(action))
entropy = jax.jit(lambda policy: policy.entropy())
mode = jax.jit(lambda policy: policy.mode())
sample = jax.jit(lambda policy, key: policy.sample(key))

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 4, 3)).astype(np.float32)


def test_log_prob_and_entropy_equal_scipy() -> None:
    log_p = scipy.special.log_softmax(np.float64(LOGITS), axis=-1)
    policy = Categorical(jnp.asarray(LOGITS))
    action = np.random.default_rng(1).integers(0, 3, (5, 4))
    np.testing.assert_allclose(jax.jit(Categorical.log_probs)(policy), log_p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        log_prob(policy, action),
        np.take_along_axis(log_p, action[..., None], -1)[..., 0],
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(entropy(policy), scipy.stats.entropy(np.exp(log_p), axis=-1), rtol=1e-5)


def test_the_gradient_of_log_prob_is_one_hot_minus_probabilities() -> None:
    gradient = jax.jit(jax.grad(lambda x: Categorical(x).log_prob(jnp.asarray(2))))(LOGITS[0, 0])
    np.testing.assert_allclose(gradient, np.eye(3)[2] - scipy.special.softmax(LOGITS[0, 0]), atol=1e-6)


def test_frequencies_of_samples_follow_the_probabilities() -> None:
    logits = np.array([0.3, -1.0, 1.2, 0.0], np.float32)
    draws = sample(Categorical(np.broadcast_to(logits, (20_000, 4))), jax.random.key(7))
    assert draws.shape == (20_000,)
    assert draws.dtype == jnp.int32
    counts = np.bincount(draws, minlength=4)
    assert scipy.stats.chisquare(counts, 20_000 * scipy.special.softmax(np.float64(logits))).pvalue > 0.001


@pytest.mark.parametrize("impossible", [0, 1, 2])
def test_an_impossible_action_is_never_drawn(impossible: int) -> None:
    logits = np.zeros(3, np.float32)
    logits[impossible] = -1e4
    draws = sample(Categorical(np.broadcast_to(logits, (20_000, 3))), jax.random.key(8))
    assert np.bincount(draws, minlength=3)[impossible] == 0
    assert np.bincount(draws, minlength=3).min(where=np.arange(3) != impossible, initial=20_000) > 9_000


@pytest.mark.parametrize("largest", [0.0, 1 - 2.0**-23])
def test_not_even_at_the_ends_of_the_uniform_draw(monkeypatch: pytest.MonkeyPatch, largest: float) -> None:
    """Cumulated float32 probabilities may end below the largest uniform number: seen in 8% of rows with 9 actions."""
    logits = np.random.default_rng(0).normal(size=(2000, 9)).astype(np.float32)
    logits[:, [0, -1]] = -1e4
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, largest, dtype))
    draws = np.asarray(jax.jit(Categorical(logits).sample)(jax.random.key(0)))
    assert draws.min() >= 1
    assert draws.max() <= 7


def test_mode_is_the_likeliest_and_the_first_of_a_tie() -> None:
    np.testing.assert_array_equal(mode(Categorical(LOGITS)), LOGITS.argmax(-1))
    assert int(mode(Categorical(np.float32([1.0, 3.0, 3.0])))) == 1


@pytest.mark.parametrize("logits", [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]])
def test_extreme_logits_give_no_nan_nor_do_their_gradients(logits: list[float]) -> None:
    x = np.tile(np.float32(logits), (3, 1))
    value, gradient = total_of_logits(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(
        entropy(Categorical(x)), scipy.stats.entropy(scipy.special.softmax(np.float64(x), -1), axis=-1), atol=1e-6
    )


@jax.jit
@jax.value_and_grad
def total_of_logits(x: jax.Array) -> jax.Array:
    policy = Categorical(x)
    return policy.log_prob(jnp.arange(3)).sum() + policy.entropy().sum()


# --- a normal variable, censored at the bounds ---

BOXES = [(-1.0, 1.0), (0.0, 1.0), (-2.0, 2.0), (100.0, 101.0), (-3.0, 40.0)]


def censored(mean: object, std: object, low: object, high: object, dtype: type = np.float64) -> CensoredNormal:
    """One or several dimensions, in float64 unless told otherwise (under `jax.enable_x64`)."""
    mean, std, low, high = (np.atleast_1d(np.asarray(x, dtype)) for x in (mean, std, low, high))
    return CensoredNormal(mean, np.log(std), low, high)


def in_units(mean: float, std: float, low: float, high: float) -> scipy.stats.rv_continuous:
    """SciPy's normal variable in the units of the action, before it is censored."""
    return scipy.stats.norm((low + high) / 2 + mean * (high - low) / 2, std * (high - low) / 2)


@pytest.mark.parametrize(("low", "high"), BOXES)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.5, 0.3), (2.0, 0.8), (0.9, 0.02)])
def test_a_censored_log_prob_is_a_density_between_the_bounds_and_a_probability_at_them(
    low: float, high: float, mean: float, std: float
) -> None:
    law, y = in_units(mean, std, low, high), np.linspace(low, high, 43)
    expected = law.logpdf(y)
    expected[[0, -1]] = law.logcdf(low), law.logsf(high)
    with jax.enable_x64(True):
        got = log_prob(censored(mean, std, low, high), y[:, None])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mean", [-2.5, -1.0, -0.3, 0.0, 1.5])
@pytest.mark.parametrize("std", [0.02, 0.3, 1.0, 10.0])
def test_the_censored_entropy_is_its_own(mean: float, std: float) -> None:
    low, high = -2.0, 5.0
    law = in_units(mean, std, low, high)
    ends = np.array([law.cdf(low), law.sf(high)])
    inside = np.clip(law.mean() + law.std() * np.linspace(-9, 9, 19), low, high)  # so that no peak is overlooked
    expected = scipy.special.entr(ends).sum() + sum(
        scipy.integrate.quad(lambda y: scipy.special.entr(law.pdf(y)), *part, epsabs=1e-12)[0]
        for part in itertools.pairwise(inside)
    )
    with jax.enable_x64(True):
        np.testing.assert_allclose(entropy(censored(mean, std, low, high)), expected, rtol=1e-7, atol=1e-9)


def test_entropy_and_log_prob_add_up_over_dimensions() -> None:
    with jax.enable_x64(True):
        both = censored([0.3, -1.0], [0.5, 0.9], [-1, 0], [1, 3])
        parts = censored(0.3, 0.5, -1, 1), censored(-1.0, 0.9, 0, 3)
        y = np.array([0.25, 0.0])
        np.testing.assert_allclose(entropy(both), sum(float(entropy(p)) for p in parts))
        alone = sum(float(log_prob(p, v)) for p, v in zip(parts, y[:, None], strict=True))
        np.testing.assert_allclose(log_prob(both, y), alone)


@pytest.mark.parametrize(("low", "high"), BOXES)
def test_censored_samples_follow_the_normal_law_and_end_at_the_bounds(low: float, high: float) -> None:
    mean, std, many = 0.4, 0.7, 20_000
    policy = censored(np.full((many, 1), mean), std, low, high, np.float32)
    y = np.float64(sample(policy, jax.random.key(3)))[:, 0]
    law = in_units(mean, std, low, high)
    assert (y.min(), y.max()) == (low, high)
    for found, chance in ((y == low, law.cdf(low)), (y == high, law.sf(high))):
        assert scipy.stats.binomtest(int(found.sum()), many, chance).pvalue > 0.001
    between = y[(y > low) & (y < high)]
    ends = law.cdf(low), law.cdf(high)
    assert scipy.stats.kstest((law.cdf(between) - ends[0]) / (ends[1] - ends[0]), "uniform").pvalue > 0.001


@pytest.mark.parametrize(("low", "high"), BOXES)
def test_the_censored_mode_is_the_median(low: float, high: float) -> None:
    mean = np.float32([[-3.0], [-1.0], [-0.999], [-0.2], [0.0], [0.7], [1.0], [2.5]])
    got = np.asarray(mode(censored(mean, 0.3, low, high, np.float32)))[:, 0]
    np.testing.assert_allclose(got, np.clip(in_units(np.float64(mean[:, 0]), 0.3, low, high).median(), low, high), 1e-6)
    assert float(got[0]) == low
    assert float(got[-1]) == high


slope_at_the_upper_bound = jax.jit(jax.grad(lambda policy: policy.log_prob(policy.high)))


def test_the_gradient_of_a_bounds_log_prob_leads_on_beyond_it() -> None:
    """Rewarded at the bound, the mean is led out past it with the tail's hazard rate, against SciPy's."""
    for mean, std in ((0.2, 0.5), (1.0, 0.3), (2.9, 0.05), (-3.0, 0.1)):
        slope = slope_at_the_upper_bound(censored(mean, std, -2, 2, np.float32)).mean
        z = (mean - 1) / std
        hazard = np.exp(scipy.stats.norm.logpdf(z) - scipy.stats.norm.logcdf(z)) / std
        np.testing.assert_allclose(slope, [hazard], rtol=1e-4, atol=1e-30)


# --- weights on a simplex ---


def logistic(mean: object, std: object, dtype: type = np.float64) -> SimplexNormal:
    mean, std = (np.atleast_1d(np.asarray(x, dtype)) for x in (mean, std))
    return SimplexNormal(mean, np.log(std))


def test_a_simplex_log_prob_is_the_change_of_variables() -> None:
    mean, std = np.array([0.3, -1.0, 0.5]), np.array([0.5, 1.0, 0.8])
    w = np.random.default_rng(0).dirichlet(np.ones(4), 50)[:, :3]
    cash = 1 - w.sum(-1, keepdims=True)
    # dx_i/dw_j of x_i = log(w_i / cash), without the identity that its determinant is 1 / the product of all.
    slopes = np.eye(3) / w[:, None, :] + 1 / cash[:, :, None]
    expected = scipy.stats.norm.logpdf(np.log(w / cash), mean, std).sum(-1) + np.linalg.slogdet(slopes)[1]
    with jax.enable_x64(True):
        np.testing.assert_allclose(log_prob(logistic(mean, std), w), expected, rtol=1e-9)


def test_a_simplex_density_integrates_to_1_and_its_entropy_is_its_own() -> None:
    node, weight = np.polynomial.legendre.leggauss(400)
    node, weight = (node + 1) / 2, weight / 2
    first, share = np.meshgrid(node, node, indexing="ij")
    w = np.stack([first, (1 - first) * share], -1)
    area = np.outer(weight, weight) * (1 - first)
    with jax.enable_x64(True):
        policy = logistic([0.4, -0.3], [0.6, 0.5])
        log_p = np.asarray(log_prob(policy, w))
        np.testing.assert_allclose((np.exp(log_p) * area).sum(), 1, atol=1e-6)
        # The entropy's own quadrature errs by 1e-3 here, and by 0.01 a weight at a deviation of 1, as it says.
        np.testing.assert_allclose(entropy(policy), -(np.exp(log_p) * log_p * area).sum(), atol=2e-3)


@pytest.mark.parametrize(
    ("assets", "std", "error"),
    [(1, 0.5, 1e-6), (1, 1.0, 1e-6), (1, 2.0, 1e-3), (2, 0.5, 0.02), (2, 1.0, 0.03), (3, 1.0, 0.04), (3, 2.0, 0.2)],
)
def test_the_simplex_entropy_is_as_exact_as_it_says(assets: int, std: float, error: float) -> None:
    """Against a tensor product of 60 Gauss-Hermite nodes a dimension, of three dimensions 30."""
    node, weight = np.polynomial.hermite_e.hermegauss(60 if assets < 3 else 30)
    grid = np.stack(np.meshgrid(*[node] * assets, indexing="ij"), -1).reshape(-1, assets)
    mass = np.prod(np.meshgrid(*[weight / weight.sum()] * assets, indexing="ij"), 0).ravel()
    for seed in range(4):
        mean = np.random.default_rng(seed).normal(0, 1.5, assets)
        x = mean + std * grid
        logs = np.concatenate([x, np.zeros_like(x[:, :1])], 1)
        logs -= scipy.special.logsumexp(logs, axis=1, keepdims=True)
        exact = assets * scipy.stats.norm(0, std).entropy() + mass @ logs.sum(1)
        with jax.enable_x64(True):
            got = float(entropy(logistic(mean, np.full(assets, std))))
        assert abs(got - exact) < error


@pytest.mark.parametrize("assets", [1, 4])
def test_simplex_samples_follow_the_normal_law_and_leave_cash(assets: int) -> None:
    mean, std = np.linspace(-0.5, 0.8, assets), np.linspace(0.5, 1.1, assets)
    policy = logistic(np.tile(mean, (20_000, 1)), std, np.float32)
    w = np.float64(sample(policy, jax.random.key(4)))
    cash = 1 - w.sum(1, keepdims=True)
    assert w.min() > 0
    assert cash.min() > 0
    x = np.log(w / cash)
    for i in range(assets):
        assert scipy.stats.kstest(x[:, i], "norm", (mean[i], std[i])).pvalue > 0.001
    share = np.exp(np.append(mean, 0))
    np.testing.assert_allclose(np.asarray(mode(policy))[0], (share / share.sum())[:-1], rtol=1e-5)


def test_the_cash_of_simplex_samples_is_the_same_in_any_order_of_the_sum() -> None:
    policy = logistic(np.full((5_000, 7), 4.0), np.full(7, 3.0), np.float32)
    w = np.asarray(sample(policy, jax.random.key(5)))
    exact = 1 - np.float64(w).sum(1)
    for order in (range(7), range(6, -1, -1), (3, 1, 6, 0, 5, 2, 4)):
        total = np.zeros(len(w), np.float32)
        for i in order:
            total = total + w[:, i]
        np.testing.assert_array_equal(np.float32(1) - total, exact)
    assert exact.min() > 1e-6


# --- both, at their edges ---


SPAN = np.float32([-2.0, 0.0]), np.float32([2.0, 1.0])


@partial(jax.jit, static_argnums=0)
def drawn_and_slopes(kind: str, mean: jax.Array, log_std: jax.Array) -> tuple:
    """Of draws and of the edges: the mean log_prob and entropy, and their gradient."""

    def make(m: jax.Array, s: jax.Array) -> CensoredNormal | SimplexNormal:
        return CensoredNormal(m, s, *SPAN) if kind == "box" else SimplexNormal(2 * m, s)

    edges = jnp.asarray({"box": [[-2.0, 0.0], [2.0, 1.0]], "simplex": [[0.0, 0.0], [1.0, 0.0]]}[kind])
    drawn = make(mean, log_std).sample(jax.random.key(6)).at[:2].set(edges)

    def total(m: jax.Array, s: jax.Array) -> jax.Array:
        return make(m, s).log_prob(drawn).mean() + make(m, s).entropy().mean()

    return jax.value_and_grad(total, (0, 1))(mean, log_std)


@pytest.mark.parametrize("kind", ["box", "simplex"])
@pytest.mark.parametrize("mean", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize("log_std", [-4.0, 0.0, 4.0])
def test_saturated_actions_have_finite_log_probs_and_gradients(kind: str, mean: float, log_std: float) -> None:
    value, gradients = drawn_and_slopes(kind, np.full((400, 2), mean, np.float32), np.full(2, log_std, np.float32))
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
    assert max(float(np.abs(g).max()) for g in gradients) < 2e6


BOX = np.full(3, -0.5, np.float32), np.float32([-2.0, 0.0, 100.0]), np.float32([2.0, 1.0, 101.0])
MAKERS = {"box": lambda m: CensoredNormal(m, *BOX), "simplex": lambda m: SimplexNormal(2 * m, BOX[0])}


@partial(jax.jit, static_argnums=0)
def act(kind: str, mean: jax.Array, key: jax.Array) -> tuple:
    policy = MAKERS[kind](mean)
    action = policy.sample(key)
    return action, policy.log_prob(action)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("mean", [0.3, 4.5])
def test_log_prob_is_the_same_number_in_another_program(kind: str, mean: float) -> None:
    """What acting computes beside the draw, and what the loss computes from the stored action: to 1e-5 of the ratio."""
    means = (mean + 0.3 * np.random.default_rng(1).normal(size=(64, 32, 3))).astype(np.float32)
    action, log_prob = (np.asarray(x) for x in act(kind, means, jax.random.key(2)))
    other_order = (x.swapaxes(0, 1).reshape(-1, 3) for x in (means, action))
    later = np.asarray(LOG_PROB_OF[kind](*other_order))
    ratio = np.exp(np.float64(later.reshape(32, 64)) - np.float64(log_prob).T)
    assert np.abs(ratio - 1).max() < 1e-5


LOG_PROB_OF = {kind: jax.jit(lambda m, a, make=make: make(m).log_prob(a)) for kind, make in MAKERS.items()}


# --- where not every dimension can be chosen ---


@jax.jit
def about(policy: CensoredNormal | SimplexNormal, actions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The log_prob of each of the actions `[n, ...]`, the mode and the entropy."""
    return jax.vmap(policy.log_prob)(actions), policy.mode(), policy.entropy()


@pytest.mark.parametrize("kind", ["box", "simplex"])
def test_what_the_action_mask_leaves_out_is_as_if_it_were_not_there(kind: str) -> None:
    """Density, entropy and mode are those of the distribution of the others. The action is 0 outside the mask."""
    mean = np.random.default_rng(0).normal(0, 0.8, (6, 4)).astype(np.float32)
    mask = np.array([[1, 0, 1, 1]] * 3 + [[1, 1, 1, 1]] * 3, bool)
    wide = np.full(4, 2, np.float32)

    def make(mean: np.ndarray, mask: np.ndarray | None = None) -> CensoredNormal | SimplexNormal:
        span = wide[: mean.shape[-1]]
        return (
            SimplexNormal(mean, -0.15 * span, mask)
            if kind == "simplex"
            else CensoredNormal(mean, -0.15 * span, -span, span, mask)
        )

    masked, few, all_ = make(mean, mask), make(mean[:3, [0, 2, 3]]), make(mean[3:])
    actions = np.stack([sample(masked, jax.random.key(0)), mode(masked)])
    density, modes, of_masked = map(np.asarray, about(masked, actions))
    of_few, of_all = about(few, actions[:, :3, [0, 2, 3]]), about(all_, actions[:, 3:])
    for action in actions:
        np.testing.assert_array_equal(action != 0, mask)
    np.testing.assert_allclose(density[:, :3], of_few[0], rtol=1e-5)
    np.testing.assert_allclose(density[:, 3:], of_all[0], rtol=1e-6)
    np.testing.assert_allclose(modes[:3, [0, 2, 3]], of_few[1], rtol=1e-5)
    # The simplex's points for three and for four dimensions differ, each off by about 0.01 a weight.
    np.testing.assert_allclose(of_masked[:3], of_few[2], atol=0.05 if kind == "simplex" else 1e-5)
    np.testing.assert_allclose(of_masked[3:], of_all[2], rtol=1e-6)


@pytest.mark.parametrize("kind", ["box", "simplex"])
def test_with_an_empty_action_mask_all_is_cash_without_nan(kind: str) -> None:
    none = np.zeros((2, 3), bool)

    def total(mean: jax.Array, log_std: jax.Array) -> tuple[jax.Array, jax.Array]:
        span = (-jnp.ones(3), jnp.ones(3))
        policy = SimplexNormal(mean, log_std, none) if kind == "simplex" else CensoredNormal(mean, log_std, *span, none)
        action = policy.sample(jax.random.key(0))
        return (policy.log_prob(action) + policy.entropy()).sum(), action

    given = np.full((2, 3), 8, np.float32), np.full(3, 2, np.float32)
    (value, action), slopes = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(*given)
    np.testing.assert_array_equal(action, 0)
    assert abs(float(value)) < 1e-6
    for slope in slopes:
        np.testing.assert_array_equal(slope, 0)


def test_weights_outside_the_action_mask_leave_sums_exact() -> None:
    mask = np.random.default_rng(0).random((5_000, 7)) < 0.5
    policy = SimplexNormal(np.full((5_000, 7), -9, np.float32), np.full(7, 3, np.float32), mask)
    w = np.asarray(sample(policy, jax.random.key(5)))
    np.testing.assert_array_equal(w > 0, mask)  # however small a weight was drawn
    np.testing.assert_array_equal(np.float32(1) - w.sum(1, dtype=np.float32), 1 - np.float64(w).sum(1))


@pytest.mark.parametrize(
    ("assets", "std", "error"), [(16, 1.0, 0.01), (40, 0.5, 0.01), (40, 1.0, 0.03), (100, 1.0, 0.03)]
)
def test_the_entropy_of_many_weights_is_as_exact_as_it_says(assets: int, std: float, error: float) -> None:
    """A weight, against 20,000 antithetic random points (themselves off by less than 0.002)."""
    mean = np.random.default_rng(1).normal(0, 1.5, assets)
    half = std * np.random.default_rng(9).standard_normal((10_000, assets))
    x = np.concatenate([mean + half, mean - half])
    log_sum = scipy.special.logsumexp(np.hstack([x, np.zeros((len(x), 1))]), axis=1).mean()
    exact = assets * scipy.stats.norm(0, std).entropy() + mean.sum() - (assets + 1) * log_sum
    assert abs(float(entropy(logistic(mean, np.full(assets, std), np.float32))) - exact) < error * assets
