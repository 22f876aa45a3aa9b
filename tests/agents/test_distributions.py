"""Distributions against SciPy and brute force, at ordinary and at extreme parameters."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from jaxtrader.agents.distributions import Categorical, CensoredNormal, SimplexNormal

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


# --- a normal variable, censored at the bounds ---

BOXES = [(-1.0, 1.0), (0.0, 1.0), (-2.0, 2.0), (100.0, 101.0), (-3.0, 40.0)]


def censored(mean: object, std: object, low: object, high: object, dtype: type = np.float64) -> CensoredNormal:
    """One or several dimensions, in float64 unless told otherwise (under `jax.enable_x64`)."""
    mean, std, low, high = (np.atleast_1d(np.asarray(x, dtype)) for x in (mean, std, low, high))
    return CensoredNormal(*(jnp.asarray(x) for x in (mean, np.log(std), low, high)))


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
        got = censored(mean, std, low, high).log_prob(jnp.asarray(y[:, None]))
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
        np.testing.assert_allclose(censored(mean, std, low, high).entropy(), expected, rtol=1e-7, atol=1e-9)


def test_entropy_and_log_prob_add_up_over_dimensions() -> None:
    with jax.enable_x64(True):
        both = censored([0.3, -1.0], [0.5, 0.9], [-1, 0], [1, 3])
        parts = censored(0.3, 0.5, -1, 1), censored(-1.0, 0.9, 0, 3)
        y = [0.25, 0.0]
        np.testing.assert_allclose(both.entropy(), sum(float(p.entropy()) for p in parts))
        alone = sum(float(p.log_prob(jnp.asarray([v]))) for p, v in zip(parts, y, strict=True))
        np.testing.assert_allclose(both.log_prob(jnp.asarray(y)), alone)


@pytest.mark.parametrize(("low", "high"), BOXES)
def test_censored_samples_follow_the_normal_law_and_end_at_the_bounds(low: float, high: float) -> None:
    mean, std, many = 0.4, 0.7, 20_000
    policy = censored(np.full((many, 1), mean), std, low, high, np.float32)
    y = np.float64(jax.jit(policy.sample)(jax.random.key(3)))[:, 0]
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
    got = censored(mean, 0.3, low, high, np.float32).mode()[:, 0]
    np.testing.assert_allclose(got, np.clip(in_units(np.float64(mean[:, 0]), 0.3, low, high).median(), low, high), 1e-6)
    assert float(got[0]) == low
    assert float(got[-1]) == high


def test_the_gradient_of_a_bounds_log_prob_leads_on_beyond_it() -> None:
    """Rewarded at the bound, the mean is led out past it with the tail's hazard rate, against SciPy's."""
    for mean, std in ((0.2, 0.5), (1.0, 0.3), (2.9, 0.05), (-3.0, 0.1)):
        policy = censored(mean, std, -2, 2, np.float32)
        slope = jax.grad(lambda m, policy=policy: policy.replace(mean=m).log_prob(policy.high))(policy.mean)
        z = (mean - 1) / std
        hazard = np.exp(scipy.stats.norm.logpdf(z) - scipy.stats.norm.logcdf(z)) / std
        np.testing.assert_allclose(slope, [hazard], rtol=1e-4, atol=1e-30)


# --- weights on a simplex ---


def logistic(mean: object, std: object, dtype: type = np.float64) -> SimplexNormal:
    mean, std = (np.atleast_1d(np.asarray(x, dtype)) for x in (mean, std))
    return SimplexNormal(jnp.asarray(mean), jnp.asarray(np.log(std)))


def test_a_simplex_log_prob_is_the_change_of_variables() -> None:
    mean, std = np.array([0.3, -1.0, 0.5]), np.array([0.5, 1.0, 0.8])
    w = np.random.default_rng(0).dirichlet(np.ones(4), 50)[:, :3]
    cash = 1 - w.sum(-1, keepdims=True)
    # dx_i/dw_j of x_i = log(w_i / cash), without the identity that its determinant is 1 / the product of all.
    slopes = np.eye(3) / w[:, None, :] + 1 / cash[:, :, None]
    expected = scipy.stats.norm.logpdf(np.log(w / cash), mean, std).sum(-1) + np.linalg.slogdet(slopes)[1]
    with jax.enable_x64(True):
        np.testing.assert_allclose(logistic(mean, std).log_prob(jnp.asarray(w)), expected, rtol=1e-9)


def test_a_simplex_density_integrates_to_1_and_its_entropy_is_its_own() -> None:
    node, weight = np.polynomial.legendre.leggauss(400)
    node, weight = (node + 1) / 2, weight / 2
    first, share = np.meshgrid(node, node, indexing="ij")
    w = np.stack([first, (1 - first) * share], -1)
    area = np.outer(weight, weight) * (1 - first)
    with jax.enable_x64(True):
        policy = logistic([0.4, -0.3], [0.6, 0.5])
        log_p = np.asarray(policy.log_prob(jnp.asarray(w)))
        np.testing.assert_allclose((np.exp(log_p) * area).sum(), 1, atol=1e-6)
        np.testing.assert_allclose(policy.entropy(), -(np.exp(log_p) * log_p * area).sum(), atol=5e-3)


@pytest.mark.parametrize(
    ("assets", "std", "error"),
    [(1, 0.5, 1e-6), (1, 1.0, 1e-6), (1, 2.0, 1e-3), (2, 0.5, 0.02), (2, 1.0, 0.03), (3, 1.0, 0.04), (3, 2.0, 0.2)],
)
def test_the_simplex_entropy_is_as_exact_as_it_says(assets: int, std: float, error: float) -> None:
    """Against a tensor product of 60 Gauss-Hermite nodes a dimension."""
    node, weight = np.polynomial.hermite_e.hermegauss(60)
    grid = np.stack(np.meshgrid(*[node] * assets, indexing="ij"), -1).reshape(-1, assets)
    mass = np.prod(np.meshgrid(*[weight / weight.sum()] * assets, indexing="ij"), 0).ravel()
    for seed in range(4):
        mean = np.random.default_rng(seed).normal(0, 1.5, assets)
        x = mean + std * grid
        logs = np.concatenate([x, np.zeros_like(x[:, :1])], 1)
        logs -= scipy.special.logsumexp(logs, axis=1, keepdims=True)
        exact = assets * scipy.stats.norm(0, std).entropy() + mass @ logs.sum(1)
        with jax.enable_x64(True):
            got = float(logistic(mean, np.full(assets, std)).entropy())
        assert abs(got - exact) < error


@pytest.mark.parametrize("assets", [1, 4])
def test_simplex_samples_follow_the_normal_law_and_leave_cash(assets: int) -> None:
    mean, std = np.linspace(-0.5, 0.8, assets), np.linspace(0.5, 1.1, assets)
    policy = logistic(np.tile(mean, (20_000, 1)), std, np.float32)
    w = np.float64(jax.jit(policy.sample)(jax.random.key(4)))
    cash = 1 - w.sum(1, keepdims=True)
    assert w.min() > 0
    assert cash.min() > 0
    x = np.log(w / cash)
    for i in range(assets):
        assert scipy.stats.kstest(x[:, i], "norm", (mean[i], std[i])).pvalue > 0.001
    share = np.exp(np.append(mean, 0))
    np.testing.assert_allclose(policy.mode()[0], (share / share.sum())[:-1], rtol=1e-5)


def test_the_cash_of_simplex_samples_is_the_same_in_any_order_of_the_sum() -> None:
    policy = logistic(np.full((5_000, 7), 4.0), np.full(7, 3.0), np.float32)
    w = np.asarray(policy.sample(jax.random.key(5)))
    exact = 1 - np.float64(w).sum(1)
    for order in (range(7), range(6, -1, -1), (3, 1, 6, 0, 5, 2, 4)):
        total = np.zeros(len(w), np.float32)
        for i in order:
            total = total + w[:, i]
        np.testing.assert_array_equal(np.float32(1) - total, exact)
    assert exact.min() > 1e-6


# --- both, at their edges ---


@pytest.mark.parametrize("mean", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize("log_std", [-4.0, 0.0, 4.0])
def test_saturated_actions_have_finite_log_probs_and_gradients(mean: float, log_std: float) -> None:
    span = jnp.asarray([-2.0, 0.0]), jnp.asarray([2.0, 1.0])
    makers = {
        "box": lambda m, s: CensoredNormal(m, s, *span),
        "simplex": lambda m, s: SimplexNormal(2 * m, s),
    }
    edges = {"box": [[-2.0, 0.0], [2.0, 1.0]], "simplex": [[0.0, 0.0], [1.0, 0.0]]}
    for name, make in makers.items():
        where = jnp.full((400, 2), mean), jnp.full(2, log_std)
        drawn = make(*where).sample(jax.random.key(6)).at[:2].set(jnp.asarray(edges[name]))

        def total(m: jax.Array, s: jax.Array, make=make, drawn=drawn) -> jax.Array:
            return make(m, s).log_prob(drawn).mean() + make(m, s).entropy().mean()

        value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(*where)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)
        assert max(float(np.abs(g).max()) for g in gradients) < 2e6


@pytest.mark.parametrize("mean", [0.3, 4.5])
def test_log_prob_is_the_same_number_in_another_program(mean: float) -> None:
    """What acting computes beside the draw, and what the loss computes from the stored action: to 1e-5 of the ratio."""
    shape, log_std = (64, 32, 3), jnp.full(3, -0.5)
    means = mean + 0.3 * jax.random.normal(jax.random.key(1), shape)
    low, high = jnp.asarray([-2.0, 0.0, 100.0]), jnp.asarray([2.0, 1.0, 101.0])
    for make in (lambda m: CensoredNormal(m, log_std, low, high), lambda m: SimplexNormal(2 * m, log_std)):

        @jax.jit
        def act(m: jax.Array, key: jax.Array, make=make) -> tuple:
            action = make(m).sample(key)
            return action, make(m).log_prob(action)

        action, log_prob = act(means, jax.random.key(2))
        later = jax.jit(lambda m, a, make=make: make(m).log_prob(a))(
            means.swapaxes(0, 1).reshape(-1, 3), action.swapaxes(0, 1).reshape(-1, 3)
        )
        ratio = np.exp(np.float64(later.reshape(32, 64)) - np.float64(log_prob).T)
        assert np.abs(ratio - 1).max() < 1e-5


# --- where not every dimension can be chosen ---


@pytest.mark.parametrize("kind", ["box", "simplex"])
def test_what_the_action_mask_leaves_out_is_as_if_it_were_not_there(kind: str) -> None:
    """Density, entropy and mode are those of the distribution of the others. The action is 0 outside the mask."""
    mean = np.random.default_rng(0).normal(0, 0.8, (6, 4)).astype(np.float32)
    mask = np.array([[1, 0, 1, 1]] * 3 + [[1, 1, 1, 1]] * 3, bool)
    log_std = jnp.full(4, -0.3)

    def make(mean: np.ndarray, mask: np.ndarray | None = None) -> CensoredNormal | SimplexNormal:
        wide = log_std[: mean.shape[-1]]
        if kind == "simplex":
            return SimplexNormal(jnp.asarray(mean), wide, mask)
        return CensoredNormal(jnp.asarray(mean), wide, -2 * jnp.ones_like(wide), 2 * jnp.ones_like(wide), mask)

    masked, few, all_ = make(mean, jnp.asarray(mask)), make(mean[:3, [0, 2, 3]]), make(mean[3:])
    drawn = np.asarray(jax.jit(masked.sample)(jax.random.key(0)))
    for action in (drawn, np.asarray(masked.mode())):
        np.testing.assert_array_equal(action != 0, mask)
        np.testing.assert_allclose(masked.log_prob(action)[:3], few.log_prob(action[:3, [0, 2, 3]]), rtol=1e-5)
        np.testing.assert_allclose(masked.log_prob(action)[3:], all_.log_prob(action[3:]), rtol=1e-6)
    np.testing.assert_allclose(masked.mode()[:3, [0, 2, 3]], few.mode(), rtol=1e-5)
    # The simplex's points for three and for four dimensions differ, each off by about 0.01 a weight.
    np.testing.assert_allclose(masked.entropy()[:3], few.entropy(), atol=0.05 if kind == "simplex" else 1e-5)
    np.testing.assert_allclose(masked.entropy()[3:], all_.entropy(), rtol=1e-6)


@pytest.mark.parametrize("kind", ["box", "simplex"])
def test_with_an_empty_action_mask_all_is_cash_without_nan(kind: str) -> None:
    none = jnp.zeros((2, 3), bool)

    def total(mean: jax.Array, log_std: jax.Array) -> tuple[jax.Array, jax.Array]:
        span = (-jnp.ones(3), jnp.ones(3))
        policy = SimplexNormal(mean, log_std, none) if kind == "simplex" else CensoredNormal(mean, log_std, *span, none)
        action = policy.sample(jax.random.key(0))
        return (policy.log_prob(action) + policy.entropy()).sum(), action

    (value, action), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(jnp.full((2, 3), 8.0), jnp.full(3, 2.0))
    np.testing.assert_array_equal(action, 0)
    assert abs(float(value)) < 1e-6
    for slope in slopes:
        np.testing.assert_array_equal(slope, 0)


def test_weights_outside_the_action_mask_leave_sums_exact() -> None:
    mask = jnp.asarray(np.random.default_rng(0).random((5_000, 7)) < 0.5)
    policy = SimplexNormal(jnp.full((5_000, 7), -9.0), jnp.full(7, 3.0), mask)
    w = np.asarray(policy.sample(jax.random.key(5)))
    np.testing.assert_array_equal(w > 0, mask)  # however small a weight was drawn
    np.testing.assert_array_equal(np.float32(1) - w.sum(1, dtype=np.float32), 1 - np.float64(w).sum(1))


@pytest.mark.parametrize(
    ("assets", "std", "error"), [(16, 1.0, 0.01), (40, 0.5, 0.01), (40, 1.0, 0.03), (100, 1.0, 0.03)]
)
def test_the_entropy_of_many_weights_is_as_exact_as_it_says(assets: int, std: float, error: float) -> None:
    """A weight, against 80,000 antithetic random points (themselves off by less than 0.001)."""
    mean = np.random.default_rng(1).normal(0, 1.5, assets)
    half = std * np.random.default_rng(9).standard_normal((40_000, assets))
    x = np.concatenate([mean + half, mean - half])
    log_sum = scipy.special.logsumexp(np.hstack([x, np.zeros((len(x), 1))]), axis=1).mean()
    exact = assets * scipy.stats.norm(0, std).entropy() + mean.sum() - (assets + 1) * log_sum
    assert abs(float(logistic(mean, np.full(assets, std), np.float32).entropy()) - exact) < error * assets
