"""Action distributions of the policies, as functions of the network's output.

Continuous actions are normal variables x, mapped into a bounded set. A rollout keeps the mapped action only, and
`log_prob` reads nothing else. An `action_mask` marks the dimensions that can be chosen. The other dimensions have no
density and count in no sum. The distributions are ours, since distrax breaks with JAX releases.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.scipy.special import log_ndtr
from jaxtyping import Bool, Float, Int, PRNGKeyArray

NORMAL_POINTS = 64  # of the quadrature in several dimensions, a power of 2
MAX_EXACT_DIMENSIONS = 16  # see `_normal_quadrature`
MASKED_LOGIT = -1e9  # its softmax is exactly 0, and so is its gradient, which is not NaN


class Categorical(struct.PyTreeNode):
    """One of n actions, given by unnormalised log probabilities."""

    logits: Float[Array, "*b n"]

    def log_probs(self) -> Float[Array, "*b n"]:
        """Return the normalised log probabilities of all actions."""
        return jax.nn.log_softmax(self.logits)

    def sample(self, key: PRNGKeyArray) -> Int[Array, "*b"]:
        """Draw an action by inversion of the cumulated probabilities: one uniform number instead of n Gumbels."""
        cumulated = jnp.cumsum(jax.nn.softmax(self.logits), -1)
        uniform = jax.random.uniform(key, self.logits.shape[:-1], self.logits.dtype)
        # Rounding leaves the last sum a little off 1. Unscaled, a last action of probability 0 could be drawn.
        bound = uniform[..., None] * cumulated[..., -1:]
        return (bound >= cumulated[..., :-1]).sum(-1).astype(jnp.int32)

    def mode(self) -> Int[Array, "*b"]:
        """Return the most likely action. Ties go to the lowest index."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """Return the log probability of an action."""
        chosen = action[..., None] == jnp.arange(
            self.logits.shape[-1]
        )  # the gradient of a gather is a scatter, which is slower
        return jnp.where(chosen, self.log_probs(), 0).sum(-1)

    def entropy(self) -> Float[Array, "*b"]:
        """Return the entropy in nats."""
        log_probs = self.log_probs()
        return -(jnp.exp(log_probs) * log_probs).sum(-1)

    def describe(self) -> dict[str, Float[Array, "*b n"]]:
        """Return the probability of each action, by the name that explanations have for it."""
        return {"probabilities": jnp.exp(self.log_probs())}


class _Normal(struct.PyTreeNode):
    """What the two mapped normal variables share. x has independent dimensions."""

    mean: Float[Array, "*b n"]
    log_std: Float[Array, " n"]

    def sample(self, key: PRNGKeyArray) -> Float[Array, "*b n"]:
        """Draw an action."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self._mapped(self.mean + jnp.exp(self.log_std) * noise)

    def mode(self) -> Float[Array, "*b n"]:
        """Return the action of the mean of x. That is the median of an exposure, or of the ratio of two weights."""
        return self._mapped(self.mean)

    def describe(self) -> dict[str, Float[Array, "*b n"]]:
        """Return the standard deviations of x, by the name that explanations have for it."""
        return {"deviation": jnp.broadcast_to(jnp.exp(self.log_std), self.mean.shape)}

    def _mapped(self, x: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        raise NotImplementedError


class CensoredNormal(_Normal):
    """low + (high - low) (1 + clip(x, -1, 1)) / 2, with x normal and independent in each of n dimensions.

    This is Tobin's censored normal (1958, https://doi.org/10.2307/1907382). Each bound has a probability, and between
    the bounds is a density. So a bound is an action like others, which a tanh would never reach. The mode may turn
    sharply there, as the best positions often do. An action at a bound is exactly that number, so acting and learning
    compute the same log probability. Dimensions outside the action mask are in the middle of their range.
    """

    low: Float[Array, " n"]
    high: Float[Array, " n"]
    action_mask: Bool[Array, "*b n"] | None = None

    def log_prob(self, action: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        """Return the sum over dimensions of a bound's log probability, or of the log density between the bounds."""
        below, above = self._tails()
        half = (self.high - self.low) / 2
        x = (action - self.low) / half - 1
        between = _normal_log_prob(x, self.mean, self.log_std) - jnp.log(half)
        terms = jnp.where(action <= self.low, log_ndtr(below), jnp.where(action >= self.high, log_ndtr(above), between))
        return _masked_sum(terms, self.action_mask)

    def entropy(self) -> Float[Array, "*b"]:
        """Return the entropy in nats, in closed form. It is differential between the bounds."""
        below, above = self._tails()
        log_below, log_above = log_ndtr(below), log_ndtr(above)
        at_low, at_high = jnp.exp(log_below), jnp.exp(log_above)
        # The mean of z^2 / 2 between the bounds, where z is the standardised x.
        spread = (1 - at_low - at_high + below * _density(below) + above * _density(above)) / 2
        scale = self.log_std + 0.5 * math.log(2 * math.pi) + jnp.log((self.high - self.low) / 2)
        between = scale * (1 - at_low - at_high) + spread
        return _masked_sum(between - at_low * log_below - at_high * log_above, self.action_mask)

    def _tails(self) -> tuple[Float[Array, "*b n"], Float[Array, "*b n"]]:
        """Return the points where the standard normal's CDF is the probability of the lower and of the upper bound."""
        shrink = jnp.exp(-self.log_std)
        return (-1 - self.mean) * shrink, (self.mean - 1) * shrink

    def _mapped(self, x: Array) -> Array:
        between = self.low + (self.high - self.low) * (1 + x) / 2
        action = jnp.where(x <= -1, self.low, jnp.where(x >= 1, self.high, jnp.clip(between, self.low, self.high)))
        if self.action_mask is not None:
            action = jnp.where(self.action_mask, action, (self.low + self.high) / 2)
        return _as_stored(action)


class SimplexNormal(_Normal):
    """n weights that sum to less than 1, with the rest in cash: the softmax of (x_1 .. x_n, 0) with x normal.

    The x are independent. This is the additive logistic-normal distribution (Aitchison and Shen 1980,
    https://doi.org/10.1093/biomet/67.2.261). Every weight is a multiple of 1 / GRID, and weights and cash are at least
    about EDGE. Sums of such numbers are exact in float32 in any order, so acting and learning see the same cash,
    however small. Weights outside the action mask are 0.
    """

    action_mask: Bool[Array, "*b n"] | None = None

    EDGE = 2.0**-18
    GRID = 2.0**23

    def log_prob(self, action: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        """Return the log density: that of x = log(weight / cash), less log|dw/dx|, the sum of all shares' logs."""
        logs = jnp.log(jnp.maximum(action, self.EDGE / 2))
        cash = jnp.log(jnp.maximum(1 - action.sum(-1), self.EDGE / 2))
        of_x = _normal_log_prob(logs - cash[..., None], self.mean, self.log_std)
        return _masked_sum(of_x, self.action_mask) - _masked_sum(logs, self.action_mask) - cash

    def entropy(self) -> Float[Array, "*b"]:
        """Return the differential entropy in nats: that of x, plus the mean of the sum of the logs of all shares.

        The mean is a quadrature. For one weight its error is below 1e-6 up to a standard deviation of 1 of x, and below
        1e-3 at 2. For several it is about 0.01 a weight at a standard deviation of 1, and 0.05 at 2. Beyond
        MAX_EXACT_DIMENSIONS weights it is up to twice that.
        """
        points, weights = _normal_quadrature(self.mean.shape[-1], self.mean.dtype)
        x = self.mean[..., None, :] + jnp.exp(self.log_std) * points
        count: int | Array = self.mean.shape[-1]
        if self.action_mask is not None:
            x, count = jnp.where(self.action_mask[..., None, :], x, MASKED_LOGIT), self.action_mask.sum(-1)
        log_sum = jnp.logaddexp(jax.nn.logsumexp(x, -1), 0.0) @ weights
        return _masked_sum(_normal_entropy(self.log_std) + self.mean, self.action_mask) - (count + 1) * log_sum

    def _mapped(self, x: Array) -> Array:
        mask = self.action_mask
        x = x if mask is None else jnp.where(mask, x, MASKED_LOGIT)
        shares = jax.nn.softmax(jnp.concatenate([x, jnp.zeros_like(x[..., :1])], -1), -1)
        shares = jnp.maximum(shares, self.EDGE)
        if mask is not None:
            shares = shares.at[..., :-1].set(jnp.where(mask, shares[..., :-1], 0))
        shares = shares / shares.sum(-1, keepdims=True)
        return _as_stored(jnp.floor(shares[..., :-1] * self.GRID) / self.GRID)  # rounded down: the rest is cash


Distribution = Categorical | CensoredNormal | SimplexNormal


def _masked_sum(terms: Float[Array, "*b n"], mask: Bool[Array, "*b n"] | None) -> Float[Array, "*b"]:
    """Return the sum over the dimensions in the mask."""
    return (terms if mask is None else jnp.where(mask, terms, 0)).sum(-1)


def _as_stored(action: Array) -> Array:
    """Return the same numbers behind a barrier, since XLA may otherwise compute them twice with different rounding."""
    return jax.lax.optimization_barrier(action)


def _normal_log_prob(x: Array, mean: Array, log_std: Array) -> Array:
    return -0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)


def _normal_entropy(log_std: Array) -> Array:
    return log_std + 0.5 * math.log(2 * math.pi * math.e)


def _density(x: Array) -> Array:
    """Return the density of the standard normal."""
    return jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _normal_quadrature(n: int, dtype: Any) -> tuple[Float[Array, "node n"], Float[Array, " node"]]:
    """Return nodes and weights of the mean under n independent standard normals. All weights are positive.

    One dimension has Gauss-Hermite nodes, which are exact for polynomials up to degree 31. Several dimensions have
    scrambled Sobol points with their mirror images, stretched so that all second moments are exact. The rule is then
    exact to the third order. Beyond MAX_EXACT_DIMENSIONS so few points cannot have all moments, and only the variances
    are exact.
    """
    if n == 1:
        nodes, weights = np.polynomial.hermite_e.hermegauss(16)
        return jnp.asarray(nodes, dtype)[:, None], jnp.asarray(weights / weights.sum(), dtype)
    from scipy.stats import qmc  # pyrefly: ignore[untyped-import]  2 s to import, so only where it is used

    sobol = qmc.Sobol(n, rng=np.random.default_rng(0))
    half = qmc.MultivariateNormalQMC(np.zeros(n), engine=sobol).random(NORMAL_POINTS // 2)
    nodes = np.concatenate([half, -half])
    if n > MAX_EXACT_DIMENSIONS:
        nodes /= nodes.std(0)
    else:
        nodes = nodes @ np.linalg.inv(np.linalg.cholesky(nodes.T @ nodes / len(nodes))).T
    return jnp.asarray(nodes, dtype), jnp.full(len(nodes), 1 / len(nodes), dtype)
