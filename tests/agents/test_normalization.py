"""The running normaliser against NumPy over all data, and the market's where assets come and go. See test_ppo.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxtrader.agents.normalization import RunningNormalizer, fit_normalizer, normalize
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.market import Market

UPDATE = jax.jit(RunningNormalizer.update)
SCALE = jax.jit(RunningNormalizer.__call__)


def batches(seed: int = 0) -> list[np.ndarray]:
    """Batches of unequal size and drifting moments, `[time, env, 2, 3]`."""
    rng = np.random.default_rng(seed)
    sizes = [(1, 1), (4, 2), (16, 8), (3, 5)]
    return [rng.normal(i, 1 + i, (*size, 2, 3)).astype(np.float32) for i, size in enumerate(sizes)]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 0.0), (1.0, 1e4), (1e4, -1e6)])
def test_merged_batches_have_the_moments_of_all_data(scale: float, offset: float) -> None:
    normalizer = RunningNormalizer.fresh((2, 3))
    seen = []
    for batch in batches():
        batch = np.float32(scale * batch + offset)
        normalizer = UPDATE(normalizer, batch)
        seen.append(np.float64(batch).reshape(-1, 2, 3))
        everything = np.concatenate(seen)
        np.testing.assert_allclose(normalizer.mean, everything.mean(0), rtol=1e-6, atol=1e-5 * scale)
        # The variance is a difference of float32 sums, far from 0 in some cases.
        np.testing.assert_allclose(normalizer.variance, everything.var(0), rtol=1e-3, atol=1e-7 * scale**2)
    assert float(normalizer.count) == sum(len(s) for s in seen)


def test_many_batches_far_from_0_lose_nothing_in_float32() -> None:
    """Where the naive mean of squares less the squared mean would be 0 or negative."""
    rng = np.random.default_rng(1)
    data = (1e4 + rng.normal(0, 0.5, (500, 64, 1))).astype(np.float32)

    @jax.jit
    def merge(data: jax.Array) -> RunningNormalizer:
        return jax.lax.scan(lambda n, x: (n.update(x), None), RunningNormalizer.fresh((1,)), data)[0]

    normalizer = merge(jnp.asarray(data))
    np.testing.assert_allclose(normalizer.mean, np.float64(data).mean(), rtol=1e-6)
    # The data are float32 and far from 0, so their rounding alone is a part of the variance.
    np.testing.assert_allclose(normalizer.variance, np.float64(data).var(), rtol=1e-3)


def test_it_is_the_identity_before_the_first_observation_and_bounded_after() -> None:
    obs = np.float32([[3.0, -500.0, 1e6]])
    fresh = RunningNormalizer.fresh((3,))
    np.testing.assert_array_equal(SCALE(fresh, obs), obs)
    data = np.random.default_rng(2).normal([2, 0, 7], [3, 1, 0], (1000, 3)).astype(np.float32)
    normalizer = UPDATE(fresh, data)
    scaled = np.asarray(SCALE(normalizer, data))
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 0], atol=1e-5)
    np.testing.assert_array_equal(SCALE(normalizer, obs)[0, 1:], [-10, 10])


def test_a_constant_becomes_0() -> None:
    for constant in (0.0, 0.1, -1e6):
        data = np.full((50, 1), constant, np.float32)
        normalizer = UPDATE(UPDATE(RunningNormalizer.fresh((1,)), data), data)
        np.testing.assert_array_equal(SCALE(normalizer, data), 0)


def test_unlisted_assets_enter_no_moment_and_are_0() -> None:
    def bars(name: str, first: int, last: int) -> Bars:
        days = pd.date_range("2020-01-01", periods=50)[first:last]
        signal = np.random.default_rng([*name.encode()]).normal(5, 2, len(days))
        prices = {price: 1.0 for price in ("open", "high", "low", "close")}
        loaded = load_bars(pd.DataFrame(prices | {"signal": signal}, index=days), symbol=name)
        assert isinstance(loaded, Bars)
        return loaded

    assets = (bars("A", 0, 50), bars("B", 20, 50), bars("C", 0, 30))
    market = Market.from_bars(assets, ["signal"], align=True)
    train = market.split("2020-02-05")[0].arrays()  # rows 0 to 34
    normalizer = fit_normalizer(train)
    values = [asset.columns["signal"][:n] for asset, n in zip(assets, (35, 15, 30), strict=True)]
    # An asset that is silent for a few days is still listed, and shows its last bar.
    values = np.concatenate([*values, np.repeat(values[2][-1:], 5, axis=0)])
    np.testing.assert_allclose(normalizer.mean, values.mean(), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, values.std(), rtol=1e-6)
    features = np.asarray(normalize(normalizer, train).features)[..., 0]
    assert (features[:20, 1] == 0).all()
    assert (features[45:, 2] == 0).all(), "after 14 days of silence it is not listed any more"
    wanted = (assets[1].columns["signal"][:, 0] - values.mean()) / values.std()
    np.testing.assert_allclose(features[20:, 1], wanted, rtol=1e-5)
