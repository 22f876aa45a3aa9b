"""Action distributions of the policies, as functions of the network's output.

Ours, since distrax breaks with JAX releases. Nothing here knows what an action means, nor how a network is bounded.
Continuous ones are normal variables x, mapped into a bounded set; a rollout keeps the mapped action only, which is all
that `log_prob` reads.
Where not every dimension can be chosen (`free`), the others have no density: they count in no sum.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import log_ndtr
from jaxtyping import Bool, Float, Int, PRNGKeyArray

MOST_LATTICE = 16  # dimensions, see `_points`
NEVER = -1e9  # a score whose softmax is exactly 0, and whose gradient is 0 and not NaN


class Categorical(struct.PyTreeNode):
    """One of n actions, by unnormalised log probabilities `[*b, n]`."""

    logits: Float[Array, "*b n"]

    def log_probs(self) -> Float[Array, "*b n"]:
        """Normalised log probabilities of all actions."""
        return jax.nn.log_softmax(self.logits)

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*b"]:
        """A draw by inversion of the cumulated probabilities: one uniform number an action instead of n Gumbels."""
        cumulated = jnp.cumsum(jax.nn.softmax(self.logits), -1)
        uniform = jax.random.uniform(key, self.logits.shape[:-1], self.logits.dtype)
        # Rounding leaves the last sum a little off 1: unscaled, a last action of probability 0 could be drawn.
        bound = uniform[..., None] * cumulated[..., -1:]
        return (bound >= cumulated[..., :-1]).sum(-1).astype(jnp.int32)

    def mode(self) -> Int[Array, "*b"]:
        """The most likely action; ties go to the lowest index."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """Log probability of an action."""
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1])  # a gather's gradient is a scatter: slower
        return jnp.where(chosen, self.log_probs(), 0).sum(-1)

    def entropy(self) -> Float[Array, "*b"]:
        """Entropy in nats."""
        log_probs = self.log_probs()
        return -(jnp.exp(log_probs) * log_probs).sum(-1)


class CensoredNormal(struct.PyTreeNode):
    """low + (high - low) (1 + clip(x, -1, 1)) / 2 with x normal and independent in each of n dimensions.

    Tobin's censored normal (1958, https://doi.org/10.2307/1907382): each bound has a probability, and between them is a
    density. So a bound is an action like others, where a tanh would never reach it, and the mode may turn sharply
    there: the best positions often do. What the ratio of PPO compares is computed from the action alone, and an action
    at a bound is exactly that number, so acting and learning see the same. What is not `free` is in the middle.
    """

    mean: Float[Array, "*b n"]
    log_std: Float[Array, "n"]
    low: Float[Array, "n"]
    high: Float[Array, "n"]
    free: Bool[Array, "*b n"] | None = None

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b n"]:
        """A draw."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self._censor(self.mean + jnp.exp(self.log_std) * noise)

    def mode(self) -> Float[Array, "*b n"]:
        """The median: the mean of x, or the bound that it is beyond."""
        return self._censor(self.mean)

    def log_prob(self, action: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        """Of each number the log probability of its bound, or the log density between them; summed."""
        below, above = self._tails()
        half = (self.high - self.low) / 2
        x = (action - self.low) / half - 1
        between = _normal_log_prob(x, self.mean, self.log_std) - jnp.log(half)
        terms = jnp.where(action <= self.low, log_ndtr(below), jnp.where(action >= self.high, log_ndtr(above), between))
        return _sum(terms, self.free)

    def entropy(self) -> Float[Array, "*b"]:
        """Entropy in nats: of the bounds' probabilities, and differential between them; in closed form."""
        below, above = self._tails()
        log_below, log_above = log_ndtr(below), log_ndtr(above)
        at_low, at_high = jnp.exp(log_below), jnp.exp(log_above)
        # The mean of z^2 / 2 between the bounds, where z is x standardised, from -below to above.
        spread = (1 - at_low - at_high + below * _density(below) + above * _density(above)) / 2
        scale = self.log_std + 0.5 * math.log(2 * math.pi) + jnp.log((self.high - self.low) / 2)
        between = scale * (1 - at_low - at_high) + spread
        return _sum(between - at_low * log_below - at_high * log_above, self.free)

    def _tails(self) -> tuple[Float[Array, "*b n"], Float[Array, "*b n"]]:
        """Where the standard normal's distribution function is the probability of the lower and of the upper bound."""
        shrink = jnp.exp(-self.log_std)
        return (-1 - self.mean) * shrink, (self.mean - 1) * shrink

    def _censor(self, x: Array) -> Array:
        between = self.low + (self.high - self.low) * (1 + x) / 2
        action = jnp.where(x <= -1, self.low, jnp.where(x >= 1, self.high, jnp.clip(between, self.low, self.high)))
        return _as_stored(action if self.free is None else jnp.where(self.free, action, (self.low + self.high) / 2))


class SimplexNormal(struct.PyTreeNode):
    """n weights that sum to less than 1, the rest is cash: the softmax of (x_1 .. x_n, 0) with x normal, independent.

    The additive logistic-normal distribution (Aitchison and Shen 1980, https://doi.org/10.1093/biomet/67.2.261). Every
    weight is a multiple of 1 / GRID, and it and the cash are at least about EDGE: sums of such numbers are exact in
    float32 in any order, so acting and learning see the same cash, however small. A weight that is not `free` is 0.
    """

    mean: Float[Array, "*b n"]
    log_std: Float[Array, "n"]
    free: Bool[Array, "*b n"] | None = None

    EDGE = 2.0**-18
    GRID = 2.0**23

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b n"]:
        """A draw."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self._weights(self.mean + jnp.exp(self.log_std) * noise)

    def mode(self) -> Float[Array, "*b n"]:
        """What the mean of x becomes: of two weights' ratio, the median."""
        return self._weights(self.mean)

    def log_prob(self, action: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        """Log density of the weights: that of x = log(weight / cash), less log|dw/dx| = the sum of all logs."""
        logs = jnp.log(jnp.maximum(action, self.EDGE / 2))
        cash = jnp.log(jnp.maximum(1 - action.sum(-1), self.EDGE / 2))
        of_x = _normal_log_prob(logs - cash[..., None], self.mean, self.log_std)
        return _sum(of_x, self.free) - _sum(logs, self.free) - cash

    def entropy(self) -> Float[Array, "*b"]:
        """Differential entropy in nats: that of x plus the mean of the sum of all logs, by a fixed set of points.

        One asset: Gauss-Hermite, off by less than 1e-6 up to a deviation of 1 of x, 1e-3 at 2. More: 64 points, off by
        about 0.01 a weight at a deviation of 1 and 0.05 at 2, by twice that beyond MOST_LATTICE weights.
        """
        points, weights = _points(self.mean.shape[-1], self.mean.dtype)
        x = self.mean[..., None, :] + jnp.exp(self.log_std) * points
        count: int | Array = self.mean.shape[-1]
        if self.free is not None:
            x, count = jnp.where(self.free[..., None, :], x, NEVER), self.free.sum(-1)
        log_sum = jnp.logaddexp(jax.nn.logsumexp(x, -1), 0.0) @ weights
        return _sum(_normal_entropy(self.log_std) + self.mean, self.free) - (count + 1) * log_sum

    def _weights(self, x: Array) -> Array:
        x = x if self.free is None else jnp.where(self.free, x, NEVER)
        whole = jax.nn.softmax(jnp.concatenate([x, jnp.zeros_like(x[..., :1])], -1), -1)
        whole = jnp.maximum(whole, self.EDGE)
        if self.free is not None:
            whole = whole.at[..., :-1].set(jnp.where(self.free, whole[..., :-1], 0))
        whole = whole / whole.sum(-1, keepdims=True)
        return _as_stored(jnp.floor(whole[..., :-1] * self.GRID) / self.GRID)  # down: what is lost is cash


Distribution = Categorical | CensoredNormal | SimplexNormal


def _sum(terms: Float[Array, "*b n"], free: Bool[Array, "*b n"] | None) -> Float[Array, "*b"]:
    """The sum over the dimensions that can be chosen."""
    return (terms if free is None else jnp.where(free, terms, 0)).sum(-1)


def _as_stored(action: Array) -> Array:
    """The same numbers, behind a barrier: else XLA may compute them twice, and round the one that is used otherwise."""
    return jax.lax.optimization_barrier(action)


def _normal_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    return -0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def _normal_entropy(log_std: Array) -> Array:
    return log_std + 0.5 * math.log(2 * math.pi * math.e)


def _density(x: Array) -> Array:
    """Of the standard normal."""
    return jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _hermite(dtype: Any) -> tuple[Float[Array, "node"], Float[Array, "node"]]:
    """Nodes and weights of the mean under a standard normal, exact for polynomials up to degree 31."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    return jnp.asarray(nodes, dtype), jnp.asarray(weights / weights.sum(), dtype)


def _points(n: int, dtype: Any) -> tuple[Float[Array, "node n"], Float[Array, "node"]]:
    """Nodes and weights of the mean under n independent standard normals, all weights positive.

    Beyond one dimension a rank-1 lattice along the powers of the generalised golden ratio (Roberts 2018,
    https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences), with its mirror image, and
    stretched so that all second moments are exact: then it is right to the third order. Beyond MOST_LATTICE, where the
    lattice's neighbouring dimensions move together and 64 points cannot have all moments, random points with exact
    variances: what is asked for there, the log of a sum of many, hardly varies.
    """
    if n == 1:
        nodes, weights = _hermite(dtype)
        return nodes[:, None], weights
    if n > MOST_LATTICE:
        half = np.random.default_rng(0).standard_normal((32, n))
        nodes = np.concatenate([half, -half])
        return jnp.asarray(nodes / nodes.std(0), dtype), jnp.full(len(nodes), 1 / len(nodes), dtype)
    golden = 2.0
    for _ in range(64):
        golden = (1 + golden) ** (1 / (n + 1))
    uniform = (0.5 + np.outer(np.arange(32), golden ** -np.arange(1.0, n + 1))) % 1
    half = np.vectorize(NormalDist().inv_cdf)(np.clip(uniform, 1e-6, 1 - 1e-6))
    nodes = np.concatenate([half, -half])
    stretch = np.linalg.inv(np.linalg.cholesky(nodes.T @ nodes / len(nodes)))
    return jnp.asarray(nodes @ stretch.T, dtype), jnp.full(len(nodes), 1 / len(nodes), dtype)
