"""The agent's scales: of market features, fitted once on the training bars; of ordinary observations and of value
targets, running."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float

from jaxtrader import devices
from jaxtrader.market.market import Tape

CLIP = 5.0  # normalised features are bounded here: one wild print must not saturate the first layer
OBSERVATION_CLIP = 10.0


class Normalizer(struct.PyTreeNode):
    """Mean and deviation of each market feature over the training bars, `[feature]`."""

    mean: Float[Array, "F"]
    std: Float[Array, "F"]

    def __call__(self, features: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        """Standardised and bounded features."""
        return jnp.clip((features - self.mean) / self.std, -CLIP, CLIP)


class RunningNormalizer(struct.PyTreeNode):
    """Mean and variance of all observations so far, of an ordinary environment; the identity before the first.

    Batches are merged as in Chan, Golub and LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115, with the
    variance instead of the sum of squares, and batches taken relative to the mean so far: safe in float32 where the
    mean is far larger than the deviation. Beyond 2^24 batches the count stands still, and the others nearly.
    """

    mean: Float[Array, "*obs"]
    variance: Float[Array, "*obs"]
    count: Float[Array, ""]

    @classmethod
    def fresh(cls, shape: tuple[int, ...]) -> RunningNormalizer:
        """Of observations of this shape, before the first."""
        return cls(jnp.zeros(shape), jnp.ones(shape), jnp.zeros(()))

    def __call__(self, observations: Float[Array, "*b *obs"]) -> Float[Array, "*b *obs"]:
        """Standardised and bounded observations."""
        std = jnp.sqrt(self.variance)
        std = jnp.where(std > 1e-6 * jnp.maximum(jnp.abs(self.mean), 1), std, 1)  # a constant says nothing
        scaled = jnp.clip((observations - self.mean) / std, -OBSERVATION_CLIP, OBSERVATION_CLIP)
        return jnp.where(self.count > 0, scaled, observations)

    def update(self, observations: Float[Array, "*b *obs"]) -> RunningNormalizer:
        """The moments of what was seen so far and of a further batch together."""
        batch = observations.astype(jnp.float32).reshape(-1, *self.mean.shape)
        near = devices.mean(batch[0])
        offset = batch - jnp.where(self.count > 0, self.mean, near)
        shift = devices.mean(offset.mean(0))
        spread = devices.mean(((offset - shift) ** 2).mean(0))
        new = len(batch) * devices.count()
        count = self.count + new
        share = new / count
        first = self.count == 0
        mean = jnp.where(first, near + shift, self.mean + share * shift)
        variance = self.variance + share * (spread - self.variance) + share * (1 - share) * shift**2
        return RunningNormalizer(mean, jnp.where(first, spread, variance), count)


class ValueScale(struct.PyTreeNode):
    """Running mean and deviation of the value targets: the critic works in their units.

    Log returns a bar are 1e-4 to 1e-2, far below what a fresh critic puts out: unscaled, its noise drowns them for as
    long as it takes to unlearn it. Value normalisation as in Yu et al. 2022, https://arxiv.org/abs/2103.01955.
    Moving averages of decay DECAY with their weight, so that the first update already counts fully; before it V is 0.
    """

    mean: Float[Array, ""]
    square: Float[Array, ""]
    weight: Float[Array, ""]

    DECAY = 0.9

    def update(self, target: Array) -> ValueScale:
        """The averages after another rollout's targets."""
        blend = lambda old, new: self.DECAY * old + (1 - self.DECAY) * new  # noqa: E731
        mean, square = devices.mean((target.mean(), (target**2).mean()))
        return ValueScale(blend(self.mean, mean), blend(self.square, square), blend(self.weight, 1.0))

    def moments(self) -> tuple[Array, Array]:
        """Mean and deviation, (0, 0) before the first update."""
        weight = jnp.where(self.weight > 0, self.weight, 1)
        mean = self.mean / weight
        variance = jnp.maximum(self.square / weight - mean**2, 0)
        return mean, jnp.where(self.weight > 0, jnp.maximum(jnp.sqrt(variance), 1e-6), 0)


def normalize(normalizer: Normalizer | RunningNormalizer, tape: Tape) -> Tape:
    """The tape with standardised features, 0 where an asset is not listed: in a window that is the mean."""
    features = normalizer(tape.features)
    if tape.listed is not None:
        features = jnp.where(tape.listed[..., None], features, 0)
    return tape.replace(features=features)


def fit_normalizer(tape: Tape) -> Normalizer:
    """Mean and deviation of each feature, in float64, over all bars of the tape's segments whose features are known.

    Of several assets, over all of them together while they are listed.
    """
    features = np.asarray(tape.features, np.float64)
    known = np.ones(features.shape[:2], bool) if tape.listed is None else np.asarray(tape.listed)
    starts = np.maximum(np.asarray(tape.segments)[:, 0], np.asarray(tape.ready))
    ends = np.asarray(tape.segments)[:, 2]
    rows = np.concatenate([features[a:b][known[a:b]] for a, b in zip(starts, ends, strict=True)])
    std = rows.std(0)
    # A constant feature carries nothing: centred, it is 0 whatever it is divided by.
    std = np.where(std > 1e-12 * np.maximum(np.abs(rows.mean(0)), 1), std, 1)
    return Normalizer(mean=jnp.asarray(rows.mean(0), jnp.float32), std=jnp.asarray(std, jnp.float32))
