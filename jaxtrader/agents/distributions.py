"""Action distributions of the policies, as functions of the network's output.

Ours, since distrax breaks with JAX releases. Nothing here knows what an action means.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, Int, PRNGKeyArray


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
