"""What tests of paths share: an agent that plays given actions, and jitted rollouts and steps of many accounts."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from jaxtrader.envs.episode import EnvParams, EnvState
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.rollout import MarketPaths, MarketRollouts

LENGTH, PATHS, ACCOUNTS = 8, 6, 2


@struct.dataclass
class Replay:
    """Plays given actions `[time, path, agent]`: the context of a decision is its row of them. Value: the exposure."""

    actions: Array
    needs_next = False

    def encode(self, state: None, chunk: Array) -> Array:
        rows = jnp.moveaxis(jnp.concatenate([self.actions, jnp.zeros_like(self.actions[:1])]), 0, 1)
        return rows if chunk.ndim == 4 else rows[:, :, None]  # window by window where decisions are bars apart

    def act(self, state: None, context: Array, account: Array, key: Array, deterministic: bool = False) -> tuple:
        return context[:, 0], {"value": account[..., 0, 0], "log_prob": jnp.zeros(account.shape[:2])}


@partial(jax.jit, static_argnums=0)
def collect(rollouts: MarketRollouts, paths: MarketPaths, agent, state, params: EnvParams, key: Array) -> tuple:
    return rollouts.collect(paths, agent, state, params, key)


@partial(jax.jit, static_argnums=0)
def step(env: TradingEnv, key: Array, state: EnvState, action: Array, params: EnvParams) -> tuple:
    """One step of each account on its own. After ruin it opens again on its path, which `TradingEnv.step` would leave.

    Returns the state, reward, terminated, truncated and info.
    """

    def one(key: Array, state: EnvState, action: Array) -> tuple:
        _, state, reward, terminated, info = env.step_env(key, state, action, params)
        state = state.replace(account=env.restart(state.account, terminated))
        return state, reward, terminated, env.is_truncated(state, params), info

    return jax.vmap(jax.vmap(one))(jax.random.split(key, (PATHS, ACCOUNTS)), state, action)


@partial(jax.jit, static_argnums=0)
def observe(env: TradingEnv, state: EnvState, params: EnvParams) -> Observation:
    return jax.vmap(jax.vmap(lambda s: env.observe(None, s, None, params)))(state)
