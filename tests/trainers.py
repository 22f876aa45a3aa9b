"""What tests of the Trainer share: an environment that counts, the smallest learner, and a trainer on paths."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
from flax import struct

from jaxtrader import files
from jaxtrader.agents.protocol import Agent
from jaxtrader.training.callbacks import Callback
from jaxtrader.training.trainer import Trainer


@struct.dataclass
class CountState:
    time: jax.Array


@dataclass(frozen=True)  # any two are equal, so that one program serves all tests
class CountEnv:
    """Episodes of exactly 5 steps, reward 1 each: truncated by time, never terminated."""

    name = "Count"
    default_params = None

    def action_space(self, params):
        raise NotImplementedError("no test asks for it")

    def reset(self, key, params):
        return jnp.zeros(1), CountState(jnp.zeros((), jnp.int32))

    def step(self, key, state, action, params):
        time = state.time + 1
        over = time >= 5
        obs = jnp.where(over, 0, time)[None].astype(jnp.float32)
        info = {"final_observation": time[None].astype(jnp.float32)}
        return obs, CountState(jnp.where(over, 0, time)), jnp.ones(()), jnp.zeros((), bool), over, info


@struct.dataclass
class FakeAgent(Agent):
    """The smallest learner: counts its updates, and breaks when told to."""

    nan_at: int = struct.field(pytree_node=False, default=-1)

    def init(self, key, env, params):
        return {"updates": jnp.zeros(()), "weight": jnp.ones(2)}

    def select_action(self, state, obs, key, deterministic=False):
        return jnp.zeros(obs.shape[:1], jnp.int32), {}

    def learn(self, state, rollout, params, key):
        chex.assert_shape(rollout.reward, (10, 4, 1))
        chex.assert_shape(rollout.observations, (10, 4, 1))
        chex.assert_shape(rollout.truncated, (10, 4, 1))
        weight = jnp.where(state["updates"] == self.nan_at, jnp.nan, 1.0)
        return {"updates": state["updates"] + 1, "weight": state["weight"] * weight}, {"loss": jnp.zeros(())}

    def save_model(self, path, state, about):
        files.save(path, "fake", {"updates": state["updates"], "about": about})


def path_trainer(env, agent, run_dir, **settings):
    settings = {"num_envs": 8, "accounts_per_path": 2, "rollout_length": env.episode_length // 2, "seed": 3, **settings}
    return Trainer(env, agent, progress=False, run_dir=run_dir, **settings)


STEPS = 8 * 8  # of an update of `validated_trainer`


def validated_trainer(run_dir, *, env, agent, **settings):
    """`path_trainer` with chunks of 2 updates, and validations after 3."""
    return path_trainer(env, agent, run_dir, **{"updates_per_chunk": 2, "eval_every": 3, **settings})


class Recording(Callback):
    """Remembers what it is told."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def on_start(self, run):
        self.told.append(("start", len(run.history)))

    def on_chunk(self, record):
        self.told.append(("chunk", record["updates"]))
        return record["updates"] == self.stop_at

    def on_end(self, result):
        self.told.append(("end", result.updates))

    def on_failure(self, error):
        self.told.append(("failure", type(error)))


def called_back(folder, *callbacks, agent=None, **settings):
    """A trainer of ten updates, two a chunk, with callbacks."""
    settings = {"total_steps": 400, "num_envs": 4, "rollout_length": 10, "updates_per_chunk": 2, **settings}
    agent = FakeAgent() if agent is None else agent
    return Trainer(CountEnv(), agent, progress=False, run_dir=folder, callbacks=callbacks, **settings)


def without_keys(leaf):
    """The array, or the numbers of a random key, which NumPy can compare."""
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
