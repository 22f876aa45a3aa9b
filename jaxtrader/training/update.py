"""A chunk of training: rollouts and updates in one jitted loop, on one device or several.

The Trainer dispatches chunks and reads their reports. Nothing in this module waits for the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Int, PRNGKeyArray

from jaxtrader import compilation, devices
from jaxtrader.agents.protocol import Agent
from jaxtrader.devices import REPLICATED, SHARDED
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts

DEVICES_DIFFER = "parameters, which differ between the devices"  # a reason for which an update is rejected


class TrainState(struct.PyTreeNode):
    """All that one update hands to the next, on the device.

    Attributes:
        agent_state: parameters, optimizer and scales of the agent.
        env_states: the environments, as `rollouts.begin` returned them.
        key: the random key of the next update.
        updates, episodes: the numbers of finished updates and episodes.
        healthy: False after a rejected update. The state then stays as it was before that update.
    """

    agent_state: Any
    env_states: Any
    key: PRNGKeyArray
    updates: Int[Array, ""]
    episodes: Int[Array, ""]
    healthy: Bool[Array, ""]


# The environments are divided between the devices. Everything else is the same on all of them.
SPECS: dict[str, Any] = {
    name: SHARDED if name == "env_states" else REPLICATED for name in TrainState.__dataclass_fields__
}


class Named(struct.PyTreeNode, Mapping[str, Any]):
    """Numbers by name, in one array. An array for each number would cost an operation and a kernel each."""

    numbers: Array
    names: tuple[str, ...] = struct.field(pytree_node=False)

    def __getitem__(self, name: str) -> Any:
        return self.numbers[self.names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@partial(compilation.Jitted, cpu_options=compilation.RUNS_ONCE, static_argnames=("env",))
def init_agent(agent: Agent, key: PRNGKeyArray, params: Any, *, env: Any) -> Any:
    """Return `agent.init(key, env, params)`. Outside jit each of its small operations would be compiled."""
    return agent.init(key, env, params)


@partial(compilation.Jitted, cpu_options=compilation.RUNS_ONCE, static_argnames=("rollouts",))
def begin_rollouts(key: PRNGKeyArray, params: Any, *, rollouts: MarketRollouts | EnvRollouts) -> Any:
    """Return `rollouts.begin(key, params)`, under jit."""
    return rollouts.begin(key, params)


@jax.jit
def copy_arrays(tree: Any) -> Any:
    """Copy all arrays of a tree to new buffers, which outlive a donation of the old ones.

    One program copies them all. Copied one by one, each shape would be compiled.
    """
    return jax.tree.map(jnp.copy, tree)


def place_train_state(train_state: TrainState, mesh: Mesh | None) -> TrainState:
    """Copy a train state to where `run_chunk` reads it: each device has its own environments.

    `run_chunk` donates its buffers, and a buffer that two arrays share cannot be donated.
    """
    parts = {name: devices.place(getattr(train_state, name), mesh, spec) for name, spec in SPECS.items()}
    return copy_arrays(TrainState(**parts))


@partial(
    compilation.Jitted,
    cpu_options=compilation.LEVEL_1,
    static_argnames=("rollouts", "mesh", "params_axis"),
    donate_argnums=0,
)
def run_chunk(
    train_state: TrainState,
    agent: Agent,
    params: Any,
    limits: dict[str, Array],
    count: Int[Array, "*member"],
    *,
    rollouts: MarketRollouts | EnvRollouts,
    mesh: Mesh | None = None,
    params_axis: int | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Run `count` updates, or fewer where a limit is reached or an update is rejected.

    An update is rejected where a number is not finite, an action is invalid, or the devices' parameters differ. The
    chunk then ends with the state before that update.

    Where `count` has an axis, several trainings go side by side on one device. Train states, agents and what is
    returned are then stacked. A training that has made its updates keeps its state while the others go on.

    Args:
        train_state: the train state, whose buffers are donated.
        agent: the learner, with float32 arrays as its settings.
        params: parameters of the environment, prepared by the agent.
        limits: "updates" and "episodes" at which training ends.
        count: number of updates, of one training or of each.
        rollouts: the rollouts of one training, on all devices together.
        mesh: the devices. Each collects and learns from its own paths, and gradients are means over all devices.
        params_axis: 0 where several trainings have parameters of their own, stacked. None where all share them.

    Returns:
        The new train state, and a report. It has "updates" and "episodes" so far, "sums" of the metrics over the
        chunk's updates, and "bad", which says of each reason for a rejection whether it occurred.
    """
    run = partial(_run_updates, rollouts)
    if count.ndim:
        run = jax.vmap(run, (0, 0, params_axis, None, 0))
    elif mesh is not None:
        specs = TrainState(**SPECS)
        in_specs = (specs, REPLICATED, REPLICATED, REPLICATED, REPLICATED)
        run = devices.run_on_all(partial(_run_updates, rollouts.part(mesh.size)), mesh, in_specs, (specs, REPLICATED))
    return run(train_state, agent, params, limits, count)


def _run_updates(
    rollouts: MarketRollouts | EnvRollouts,
    train_state: TrainState,
    agent: Agent,
    params: Any,
    limits: dict[str, Array],
    count: Array,
) -> tuple[TrainState, dict[str, Any]]:
    """Do the work of `run_chunk` on one device."""

    # Jitted, it is traced once: for the shapes of what it logs, and again in the loop. Inlined, it adds nothing there.
    @partial(jax.jit, inline=True)
    def update(train_state: TrainState) -> tuple[TrainState, Array, Array]:
        nonlocal logged, tested
        key, rollout_key, learn_key = jax.random.split(train_state.key, 3)
        progress = jnp.maximum(train_state.updates / limits["updates"], train_state.episodes / limits["episodes"])
        agent_state = agent.anneal(train_state.agent_state, progress)
        env_states, rollout, stats = rollouts.collect(train_state.env_states, agent, agent_state, params, rollout_key)
        agent_state, metrics = agent.learn(agent_state, rollout, params, learn_key)
        logs = {name: x.astype(jnp.float32) for name, x in {**metrics, **stats}.items()}
        further = {
            "reward": ~_all_finite(rollout.reward),
            "action": stats.get("invalid_actions", jnp.zeros((), jnp.int32)) > 0,
            "parameters": ~_all_finite(agent_state),
            DEVICES_DIFFER: ~devices.all_equal(_floats(agent_state)),
        }
        logged, tested = tuple(logs), (*metrics, *further)
        log = jnp.stack(list(logs.values()))
        bad = jnp.concatenate([~jnp.isfinite(log[: len(metrics)]), jnp.stack(list(further.values()))])
        # All devices end the chunk together. A device that went on alone would wait for the others for ever.
        bad = devices.total(bad.astype(jnp.int32)) > 0
        accepted = ~bad.any()
        episodes = train_state.episodes + stats["episodes"].astype(jnp.int32)
        after = TrainState(agent_state, env_states, key, train_state.updates + 1, episodes, accepted)
        rejected = (train_state.replace(healthy=accepted), jnp.zeros_like(log))
        # A choice number by number would repeat the tests above in the kernel of each array, and compile twice as long.
        after, log = jax.lax.cond(accepted, lambda: (after, log), lambda: rejected)
        return after, log, bad

    def body(loop: tuple[Array, TrainState, Array, Array]) -> tuple[Array, TrainState, Array, Array]:
        done, train_state, sums, _ = loop
        train_state, log, bad = update(train_state)
        return done + 1, train_state, sums + log, bad

    def goes_on(loop: tuple[Array, TrainState, Array, Array]) -> Array:
        done, train_state, _, _ = loop
        within = (train_state.updates < limits["updates"]) & (train_state.episodes < limits["episodes"])
        return (done < count) & within & train_state.healthy

    # The names of the figures that an update logs, and of those that it tests. Each kind is one array of numbers.
    logged, tested = (), ()
    _, log, bad = jax.eval_shape(update, train_state)
    start = (jnp.zeros((), count.dtype), train_state, jnp.zeros(log.shape), jnp.zeros(bad.shape, bool))
    _, train_state, sums, bad = jax.lax.while_loop(goes_on, body, start)
    return train_state, {
        "updates": train_state.updates,
        "episodes": train_state.episodes,
        "sums": Named(sums, logged),
        "bad": Named(bad, tested),
    }


def _floats(tree: Any) -> list[Array]:
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]


def _all_finite(tree: Any) -> Array:
    # One test of all numbers compiles faster than a test of each array.
    floats = [jnp.ravel(x).astype(jnp.float32) for x in _floats(tree)]
    return jnp.isfinite(jnp.concatenate(floats)).all() if floats else jnp.ones((), bool)  # rewards may be integers
