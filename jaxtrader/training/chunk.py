"""A chunk of training: rollouts and updates in one jitted loop on one device or several, and the guard against NaN.

The Trainer dispatches it and knows what is in its reports; nothing here touches the host.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Int, PRNGKeyArray

from jaxtrader import devices
from jaxtrader.devices import SHARED, SPLIT
from jaxtrader.training.rollout import EnvRollouts, LaneRollouts

DIFFER = "parameters, which differ between the devices"
NO_LIMIT = 2**31 - 1  # updates and episodes are counted in int32 on the device


class Carry(struct.PyTreeNode):
    """What one chunk hands to the next, on the device: agent state, environments, key and counters.

    `healthy` turns False with the first rejected update; every later one is then a no-op.
    """

    agent: Any
    envs: Any
    key: PRNGKeyArray
    updates: Int[Array, ""]
    episodes: Int[Array, ""]
    healthy: Bool[Array, ""]


@partial(jax.jit, static_argnames=("env",))
def init_state(agent: Any, key: PRNGKeyArray, params: Any, *, env: Any) -> Any:
    """`agent.init` under jit: eager, its small operations would each be compiled."""
    return agent.init(key, env, params)


@partial(jax.jit, static_argnames=("rollouts",))
def begin_rollouts(key: PRNGKeyArray, params: Any, *, rollouts: LaneRollouts | EnvRollouts) -> Any:
    """`rollouts.begin` under jit."""
    return rollouts.begin(key, params)


@jax.jit
def copied(tree: Any) -> Any:
    """The same in buffers of its own, which outlive a donation. One program: leaf by leaf, each shape is compiled."""
    return jax.tree.map(jnp.copy, tree)


# What of a carry each device has a part of.
PLACES: dict[str, Any] = {name: SPLIT if name == "envs" else SHARED for name in Carry.__dataclass_fields__}


def placed(carry: Carry, mesh: Mesh | None) -> Carry:
    """A carry as `run_chunk` takes it, in buffers of its own: the lanes divided between the devices.

    A buffer that two leaves share, or that the parameters hold too, could not be donated.
    """
    parts = {name: devices.placed(getattr(carry, name), mesh, spec) for name, spec in PLACES.items()}
    return copied(Carry(**parts))


@partial(jax.jit, static_argnames=("rollouts", "mesh"), donate_argnums=0)
def run_chunk(
    carry: Carry,
    agent: Any,
    params: Any,
    limits: dict[str, Array],
    count: Array,
    *,
    rollouts: LaneRollouts | EnvRollouts,
    mesh: Mesh | None = None,
) -> tuple[Carry, dict[str, Any]]:
    """`count` updates, fewer where a limit is reached or one is rejected: the new carry, and sums for the log.

    An update whose numbers are not finite, or whose actions are invalid, is not taken and ends the chunk; `bad` says
    why. With a mesh (devices.py) each of its devices collects its own lanes and learns from them, and all gradients are
    means over all of them: `rollouts` says what all have together.
    """
    run = partial(_updates, rollouts)
    if mesh is not None:
        places = Carry(**PLACES)
        given = (places, SHARED, SHARED, SHARED, SHARED)
        run = devices.on_all(partial(_updates, rollouts.part(mesh.size)), mesh, given, (places, SHARED))
    return run(carry, agent, params, limits, count)


def _updates(
    rollouts: LaneRollouts | EnvRollouts, carry: Carry, agent: Any, params: Any, limits: dict[str, Array], count: Array
) -> tuple[Carry, dict[str, Any]]:
    """See `run_chunk`: on one device, or what each of several does."""

    def update(carry: Carry) -> tuple[Carry, dict[str, Array], dict[str, Array]]:
        key, collect, learn = jax.random.split(carry.key, 3)
        state = carry.agent
        if hasattr(agent, "anneal"):
            share = jnp.maximum(carry.updates / limits["updates"], carry.episodes / limits["episodes"])
            state = agent.anneal(state, share)
        envs, rollout, stats = rollouts.collect(carry.envs, agent, state, params, devices.own(collect))
        state, metrics = agent.learn(state, rollout, params, devices.own(learn))
        bad = {name: ~jnp.isfinite(x) for name, x in metrics.items()}
        bad["reward"] = ~jnp.isfinite(rollout.reward).all()
        bad["action"] = stats.get("invalid_actions", jnp.zeros((), jnp.int32)) > 0
        bad["parameters"] = ~_all_finite(state)
        bad[DIFFER] = ~devices.same(_floats(state))
        # What one device finds ends the chunk on all: else one would wait for the others for ever.
        bad = {name: found > 0 for name, found in devices.total(jax.tree.map(jnp.int32, bad)).items()}
        taken = ~jnp.stack(list(bad.values())).any()
        episodes = carry.episodes + stats["episodes"].astype(jnp.int32)
        moved = Carry(state, envs, key, carry.updates + 1, episodes, taken)
        moved = jax.tree.map(lambda new, old: jnp.where(taken, new, old), moved, carry).replace(healthy=taken)
        logs = {name: jnp.where(taken, x, 0).astype(jnp.float32) for name, x in {**stats, **metrics}.items()}
        return moved, logs, bad

    def body(loop: tuple[Array, Carry, Any, Any]) -> tuple[Array, Carry, Any, Any]:
        done, carry, sums, _ = loop
        carry, logs, bad = update(carry)
        return done + 1, carry, jax.tree.map(jnp.add, sums, logs), bad

    def go_on(loop: tuple[Array, Carry, Any, Any]) -> Array:
        done, carry, _, _ = loop
        within = (carry.updates < limits["updates"]) & (carry.episodes < limits["episodes"])
        return (done < count) & within & carry.healthy

    _, logs, bad = jax.eval_shape(update, carry)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (logs, bad))
    _, carry, sums, bad = jax.lax.while_loop(go_on, body, (jnp.zeros((), count.dtype), carry, *empty))
    return carry, {"updates": carry.updates, "episodes": carry.episodes, "sums": sums, "bad": bad}


def _floats(tree: Any) -> list[Array]:
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.asarray([jnp.isfinite(x).all() for x in _floats(tree)]))
