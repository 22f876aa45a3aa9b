"""The agent's scales: of market features, of ordinary observations, and of value targets.

Market features are scaled by moments of the training bars, which are fitted once. The other two scales are running.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float

from jaxtrader import devices
from jaxtrader.envs.episode import EnvParams
from jaxtrader.market.market import MarketArrays

CLIP = 5.0  # bound of normalised features: one wild price must not saturate the first layer
OBSERVATION_CLIP = 10.0


class Normalizer(struct.PyTreeNode):
    """Mean and standard deviation of each market feature over the training bars, `[feature]`."""

    mean: Float[Array, " F"]
    std: Float[Array, " F"]

    def __call__(self, features: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        """Return standardised and clipped features."""
        return jnp.clip((features - self.mean) / self.std, -CLIP, CLIP)


class RunningNormalizer(struct.PyTreeNode):
    """Mean and variance of all observations of an ordinary environment so far.

    Batches are merged as in Chan, Golub and LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115. The variance
    stands in for the sum of squares, and each batch is taken relative to the mean so far. So float32 is safe where the
    mean is far larger than the deviation. Beyond 2^24 the count no longer grows, and the moments hardly move.
    """

    mean: Float[Array, "*obs"]
    variance: Float[Array, "*obs"]
    count: Float[Array, ""]

    @classmethod
    def fresh(cls, shape: tuple[int, ...]) -> RunningNormalizer:
        """Return the normaliser before the first observation of this shape."""
        return cls(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()))

    def __call__(self, observations: Float[Array, "*b *obs"]) -> Float[Array, "*b *obs"]:
        """Return standardised and clipped observations. Before the first update they stay as they are."""
        std = jnp.sqrt(self.variance)
        std = jnp.where(std > 1e-6 * jnp.maximum(jnp.abs(self.mean), 1), std, 1)  # a constant is only centred
        scaled = jnp.clip((observations - self.mean) / std, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        return jnp.where(self.count > 0, scaled, observations)

    def update(self, observations: Float[Array, "*b *obs"]) -> RunningNormalizer:
        """Return the moments of all observations so far and of a further batch."""
        batch = observations.astype(jnp.float32).reshape(-1, *self.mean.shape)
        first_row = devices.mean(batch[0])
        offset = batch - jnp.where(self.count > 0, self.mean, first_row)
        shift = devices.mean(offset.mean(0))
        batch_variance = devices.mean(((offset - shift) ** 2).mean(0))
        new = len(batch) * devices.count()
        count = self.count + new
        share = new / count
        first = self.count == 0
        mean = jnp.where(first, first_row + shift, self.mean + share * shift)
        variance = self.variance + share * (batch_variance - self.variance) + share * (1 - share) * shift**2
        return RunningNormalizer(mean, jnp.where(first, batch_variance, variance), count)


class ValueScale(struct.PyTreeNode):
    """Running mean and deviation of the value targets. The critic works in these units.

    Log returns of a bar are 1e-4 to 1e-2, far below the output of a fresh critic, whose noise would drown them. This is
    the value normalisation of Yu et al. 2022, https://arxiv.org/abs/2103.01955. The moving averages decay by DECAY and
    keep the sum of their weights, so the first update counts fully. Before it every value is 0.

    Attributes:
        mean: weighted sum of the targets' means.
        square: weighted sum of the targets' mean squares.
        weight: sum of the weights.
    """

    mean: Float[Array, ""]
    square: Float[Array, ""]
    weight: Float[Array, ""]

    DECAY = 0.9

    @classmethod
    def fresh(cls) -> ValueScale:
        """Return the scale before the first update."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(3)))

    def update(self, target: Array) -> ValueScale:
        """Return the averages after another rollout's targets."""
        blend = lambda old, new: self.DECAY * old + (1 - self.DECAY) * new  # noqa: E731
        mean, square = devices.mean((target.mean(), (target**2).mean()))
        return ValueScale(blend(self.mean, mean), blend(self.square, square), blend(self.weight, 1.0))

    def moments(self) -> tuple[Array, Array]:
        """Return mean and deviation. Both are 0 before the first update."""
        weight = jnp.where(self.weight > 0, self.weight, 1)
        mean = self.mean / weight
        variance = jnp.maximum(self.square / weight - mean**2, 0)
        return mean, jnp.where(self.weight > 0, jnp.maximum(jnp.sqrt(variance), 1e-6), 0)


@runtime_checkable
class Normalized(Protocol):
    """A state of an agent with a scale of the market's features, None before it is fitted."""

    normalizer: Any
    replace: Any


@jax.jit  # one program instead of one for each operation
def normalize(normalizer: Normalizer | RunningNormalizer, arrays: MarketArrays) -> MarketArrays:
    """Return the arrays with standardised features. Where an asset is not listed they are 0, which is the mean."""
    features = normalizer(arrays.features)
    if arrays.listed is not None:
        features = jnp.where(arrays.listed[..., None], features, 0)
    return arrays.replace(features=features)


def standardized(state: Any, env_params: Any) -> tuple[Any, Any]:
    """Return the state with its `normalizer` fitted where it has none yet, and the parameters with scaled features.

    It is what `Agent.prepare` does on the host, before anything is traced. A state without the field `normalizer`, and
    the parameters of another environment than a TradingEnv, stay as they are.
    """
    if not (isinstance(state, Normalized) and isinstance(env_params, EnvParams)):
        return state, env_params
    if state.normalizer is None:
        state = state.replace(normalizer=fit_normalizer(env_params.arrays))
    return state, env_params.replace(arrays=normalize(state.normalizer, env_params.arrays))


def fit_normalizer(arrays: MarketArrays) -> Normalizer:
    """Return mean and deviation of each feature, in float64, over all bars of the segments whose features are known.

    Several assets share the moments, over the bars at which they are listed.
    """
    features = np.asarray(arrays.features, np.float64)
    listed = np.ones(features.shape[:2], bool) if arrays.listed is None else np.asarray(arrays.listed)
    starts = np.maximum(np.asarray(arrays.segments)[:, 0], np.asarray(arrays.ready))
    ends = np.asarray(arrays.segments)[:, 2]
    rows = np.concatenate([features[a:b][listed[a:b]] for a, b in zip(starts, ends, strict=True)])
    std = rows.std(0)
    # A constant feature carries no information. Centred, it is 0 whatever it is divided by.
    std = np.where(std > 1e-12 * np.maximum(np.abs(rows.mean(0)), 1), std, 1)
    return Normalizer(*(jax.device_put(np.float32(x)) for x in (rows.mean(0), std)))
