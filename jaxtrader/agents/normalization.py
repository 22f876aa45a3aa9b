"""The agent's scales: of the market features, fitted once on the training bars, and of the value targets, running."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float

from jaxtrader.market.market import Tape

CLIP = 5.0  # normalised features are bounded here: one wild print must not saturate the first layer


class Normalizer(struct.PyTreeNode):
    """Mean and deviation of each market feature over the training bars, `[feature]`."""

    mean: Float[Array, "F"]
    std: Float[Array, "F"]

    def __call__(self, features: Float[Array, "*b F"]) -> Float[Array, "*b F"]:
        """Standardised and bounded features."""
        return jnp.clip((features - self.mean) / self.std, -CLIP, CLIP)


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
        return ValueScale(
            blend(self.mean, target.mean()), blend(self.square, (target**2).mean()), blend(self.weight, 1.0)
        )

    def moments(self) -> tuple[Array, Array]:
        """Mean and deviation, (0, 0) before the first update."""
        weight = jnp.where(self.weight > 0, self.weight, 1)
        mean = self.mean / weight
        variance = jnp.maximum(self.square / weight - mean**2, 0)
        return mean, jnp.where(self.weight > 0, jnp.maximum(jnp.sqrt(variance), 1e-6), 0)


def fit_normalizer(tape: Tape) -> Normalizer:
    """Mean and deviation of each feature, in float64, over all bars of the tape's segments whose features are known."""
    features = np.asarray(tape.features, np.float64)
    starts = np.maximum(np.asarray(tape.segments)[:, 0], np.asarray(tape.ready))
    ends = np.asarray(tape.segments)[:, 2]
    rows = np.concatenate([features[start:end] for start, end in zip(starts, ends, strict=True)])
    rows = rows.reshape(-1, features.shape[-1])
    std = rows.std(0)
    # A constant feature carries nothing: centred, it is 0 whatever it is divided by.
    std = np.where(std > 1e-12 * np.maximum(np.abs(rows.mean(0)), 1), std, 1)
    return Normalizer(mean=jnp.asarray(rows.mean(0), jnp.float32), std=jnp.asarray(std, jnp.float32))
