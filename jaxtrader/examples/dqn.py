"""Deep Q-learning as an agent of one's own: it trains under `jt.Trainer`, in a TradingEnv and in any other environment.

The targets are r + gamma max Q(next), where Q is the network at the start of the update (Mnih et al. 2015,
https://doi.org/10.1038/nature14236). Many environments side by side take the place of a replay buffer, and layer
normalisation keeps it stable (Gallici et al. 2024, https://arxiv.org/abs/2407.04811).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

import jaxtrader as jt


class QNetwork(nn.Module):
    """The value of each action."""

    actions: int
    hidden: tuple[int, ...]

    def of(self, weights: Any, seen: Array) -> Array:
        """Return Q `[b, actions]` with these weights."""
        values = self.apply(weights, seen)
        assert isinstance(values, Array)
        return values

    @nn.compact
    def __call__(self, seen: Array) -> Array:
        """Return Q `[b, actions]` of flat observations `[b, n]`."""
        for width in self.hidden:
            seen = nn.relu(nn.LayerNorm()(nn.Dense(width)(seen)))
        return nn.Dense(self.actions)(seen)


class DQNState(struct.PyTreeNode):
    """What it learns and remembers. `prepare` fills the `normalizer` of a market's features."""

    params: Any
    opt_state: Any
    epsilon: Array
    reward_square: Array  # mean over the rewards so far: a log return of 1e-3 becomes about 1
    updates: Array
    normalizer: Any
    network: QNetwork = struct.field(pytree_node=False)


@struct.dataclass
class DQN(jt.Agent):
    """Deep Q-learning. Its settings are arrays or static fields, since it is an argument of a compiled function."""

    learning_rate: float = 1e-3
    gamma: float = 0.95
    last_epsilon: float = 0.05
    hidden: tuple[int, ...] = struct.field(pytree_node=False, default=(64, 64))
    epochs: int = struct.field(pytree_node=False, default=2)
    batches: int = struct.field(pytree_node=False, default=8)

    needs_next = True  # rollouts keep what follows each step

    def init(self, key: Array, env: Any, params: Any) -> DQNState:
        """Return random weights for the environment's observations and actions."""
        seen, _ = env.reset(key, params)
        network = QNetwork(env.action_space(params).n, self.hidden)
        weights = network.init(key, jnp.asarray(seen)[None])
        zero = jnp.zeros(())
        return DQNState(weights, self.optimizer().init(weights), zero + 1, zero, zero, None, network)

    def optimizer(self) -> optax.GradientTransformation:
        """Return the optimiser. The rate is applied in `learn`, since it may be traced."""
        return optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())

    def anneal(self, state: DQNState, progress: Array) -> DQNState:
        """Return the state with less exploration. It falls over the first half of the training."""
        return state.replace(epsilon=jnp.maximum(self.last_epsilon, 1 - 2 * progress))

    def select_action(
        self, state: DQNState, obs: Any, key: Array, deterministic: bool = False
    ) -> tuple[Array, dict[str, Array]]:
        """Return the best action, or a random one in `epsilon` of the cases."""
        values = state.network.of(state.params, jnp.asarray(obs))
        best = jnp.argmax(values, -1)
        if deterministic:
            return best, {}
        which, explore = jax.random.split(key)
        drawn = jax.random.randint(which, best.shape, 0, values.shape[-1])
        return jnp.where(jax.random.uniform(explore, best.shape) < state.epsilon, drawn, best), {}

    def acting_part(self, state: DQNState) -> DQNState:
        """Return what a policy file holds: the state without that of the optimiser."""
        return state.replace(opt_state=None)

    def learn(self, state: DQNState, rollout: jt.Rollout, params: Any, key: Array) -> tuple[DQNState, dict[str, Array]]:
        """Return the state after some epochs of gradient steps on the rollout's transitions."""
        flat = lambda seen: jnp.asarray(seen).reshape(rollout.reward.size, -1)  # noqa: E731
        count = state.updates + 1
        square = state.reward_square + (jnp.mean(rollout.reward**2) - state.reward_square) / count
        reward = rollout.reward.reshape(-1) / jnp.sqrt(jnp.maximum(square, 1e-12))
        after = state.network.of(state.params, flat(rollout.next_observations)).max(-1)
        target = reward + self.gamma * jnp.where(rollout.terminated.reshape(-1), 0, after)
        data = flat(rollout.observations), rollout.action.reshape(-1), target

        def loss(weights: Any, seen: Array, action: Array, target: Array) -> Array:
            values = state.network.of(weights, seen)
            chosen = jnp.take_along_axis(values, action[:, None], -1)[:, 0]
            return optax.huber_loss(chosen, target).mean()

        def step(learned: tuple[Any, Any], rows: Array) -> tuple[tuple[Any, Any], Array]:
            weights, opt_state = learned
            error, gradient = jax.value_and_grad(loss)(weights, *(x[rows] for x in data))
            direction, opt_state = self.optimizer().update(gradient, opt_state)
            step = jax.tree.map(lambda x: -self.learning_rate * x, direction)
            return (optax.apply_updates(weights, step), opt_state), error

        orders = jax.vmap(lambda k: jax.random.permutation(k, len(target)))(jax.random.split(key, self.epochs))
        rows = orders.reshape(self.epochs * self.batches, -1)
        (weights, opt_state), errors = jax.lax.scan(step, (state.params, state.opt_state), rows)
        state = state.replace(params=weights, opt_state=opt_state, reward_square=square, updates=count)
        return state, {"loss": errors.mean(), "q": after.mean()}
