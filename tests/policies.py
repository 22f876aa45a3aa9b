"""Policies that were never trained: random weights, whose decisions differ from bar to bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.update import init_agent


def about(env: TradingEnv) -> dict[str, Any]:
    """What a policy file says about the environment of its training."""
    market = env.market
    features = {
        "names": list(market.feature_names),
        "lookback": market.lookback,
        "delisted_after": market.delisted_after,
    }
    return {"env": env.to_dict(), "features": features, "symbols": list(market.symbols)}


def with_noise(state: PPOState, seed: int = 1, deviation: float = 0.5) -> PPOState:
    """The state with normal noise on its weights."""
    rng = np.random.default_rng(seed)
    weights = jax.tree.map(lambda x: x + rng.normal(0, deviation, x.shape).astype(np.float32), state.params)
    return state.replace(params=weights)


def loud(state: PPOState, factor: float = 500) -> PPOState:
    """The state with its logits scaled up, so that decisions change often and every action occurs."""
    head = state.params["policy"]
    return state.replace(params={**state.params, "policy": head | {"kernel": head["kernel"] * factor}})


def with_random_weights(agent: PPOAgent, env: TradingEnv, seed: int = 1, deviation: float = 0.5) -> PPOState:
    """A state that knows the environment's normalisation, with normal weights by NumPy: it compiles nothing.

    Decisions differ from bar to bar, which those of `initial` hardly do: its last layer begins near 0.
    """
    rng, params = np.random.default_rng(seed), env.default_params
    shapes = jax.eval_shape(lambda key: agent.init(key, env, params), jax.random.key(0))
    state = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    weights = jax.tree.map(lambda x: rng.normal(0, deviation, x.shape).astype(x.dtype), state.params)
    return agent.prepare(state.replace(params=weights, bounds=agent._network(env, params)[1]), params)[0]


def init(agent: PPOAgent, key: jax.Array, env: Any, params: Any) -> PPOState:
    """`agent.init` by the program of a training: uncompiled, each of its operations is a program of its own."""
    arrays = jax.tree.map(lambda x: np.float32(x) if isinstance(x, float) else x, agent)
    return init_agent(arrays, key, params, env=env)


@partial(jax.jit, static_argnums=(1, 3))
def _initial(agent: PPOAgent, env: Any, params: Any, seed: int) -> PPOState:
    return agent.init(jax.random.key(seed), env, params)


@contextmanager
def orthogonal_by_numpy(seed: int = 0) -> Iterator[None]:
    """Flax's orthogonal weights are those of NumPy: it compiles a decomposition for each layer."""
    rng = np.random.default_rng(seed)

    def orthogonal(gain: float = 1.0) -> Callable[..., jax.Array]:
        def draw(key: Any, shape: tuple[int, int], dtype: Any = np.float32) -> jax.Array:
            q, r = np.linalg.qr(rng.normal(size=sorted(shape, reverse=True)))
            q *= gain * np.sign(np.diagonal(r))
            return jnp.asarray(q if shape[0] >= shape[1] else q.T, dtype)

        return draw

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.initializers, "orthogonal", orthogonal)
        yield


def initial(agent: PPOAgent, env: Any, params: Any = None, seed: int = 0) -> PPOState:
    """What `agent.init` returns, with orthogonal weights by NumPy."""
    with orthogonal_by_numpy(seed):
        return _initial(agent, env, params, seed)


def fresh(agent: PPOAgent, env: TradingEnv, seed: int = 0) -> PPOState:
    """An initial state that knows the environment's normalisation."""
    params = env.default_params
    return agent.prepare(initial(agent, env, params, seed), params)[0]


def policy_of(agent: Any, state: Any, env: TradingEnv) -> Policy:
    """A policy of a state, as its file has it."""
    return Policy(agent, state.replace(opt_state=None), about(env))
