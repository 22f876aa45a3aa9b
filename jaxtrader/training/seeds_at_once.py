"""The number of seeds that one program trains side by side: as many as fit the device's memory, in even blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxtrader import hosts
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.training.callbacks import EarlyStopping
from jaxtrader.training.training_loop import first_state
from jaxtrader.training.update import TrainState, run_chunk

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer

FOR_TRAINING = 0.8  # share of a device's free memory. The rest is for validation, and for what XLA does not count.


def seeds_at_once(trainer: Trainer) -> int:
    """Return the number of seeds that one program trains side by side on the device at hand.

    An agent of the user's own may not work under `jax.vmap`. So it is 1 there, unless `seeds_at_once` says more.
    """
    if trainer.seeds_at_once is not None:
        return even(trainer.seeds, trainer.seeds_at_once)
    free = None if jax.default_backend() == "cpu" else free_bytes(jax.local_devices()[0])
    if free is None or hosts.count() > 1 or why_not_at_once(trainer) or type(trainer.agent) is not PPOAgent:
        return 1
    earlier = trainer.earlier.members[0] if trainer.earlier is not None else None
    first = first_state(trainer, trainer.agent_arrays, trainer.raw_params, earlier)
    return slots_that_fit(trainer.seeds, lambda slots: bytes_of_block(slots, trainer, *first), free)


def why_not_at_once(trainer: Trainer) -> str:
    """Return what this training lacks for several seeds as one program. It is empty where nothing is missing."""
    if trainer.devices > 1:
        return "one device"
    if not all(type(each) is EarlyStopping for each in trainer.callbacks):
        return "no callbacks but EarlyStopping, since others see one seed after another"
    return ""


def slots_that_fit(wanted: int, bytes_of: Callable[[int], int], limit: float) -> int:
    """Return the most slots, of equal blocks, whose program fits a device's memory. At least 1.

    Args:
        wanted: The number of members to train.
        bytes_of: A function that compiles the program with so many slots, and returns the bytes that it needs.
        limit: The bytes that are free.
    """
    slots = wanted
    while slots > 1 and (needed := bytes_of(slots)) > limit:
        fitting = max(1, min(slots - 1, int(slots * limit / needed)))
        slots = even(wanted, fitting)
    return slots


def even(wanted: int, most: int) -> int:
    """Return the number of slots, at most `most`, with which no block is much smaller than the others."""
    return -(-wanted // -(-wanted // most))


def free_bytes(device: jax.Device) -> float | None:
    """Return the bytes that a device has left for a program, less some for validation. None where it does not say."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return FOR_TRAINING * (stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def bytes_of_block(slots: int, trainer: Trainer, train_state: TrainState, params: Any) -> int:
    """Compile a block's program, and return the bytes that it takes beside the parameters of the environment.

    `Block` runs this program without compiling it again.
    """

    def stacked(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype), tree)

    program = run_chunk.lower(
        stacked(train_state),
        stacked(trainer.agent_arrays),
        params,
        trainer.limits,
        jax.ShapeDtypeStruct((slots,), jnp.int32),
        rollouts=trainer.rollouts,
        params_axis=None,
    )
    needed = program.compile().memory_analysis()
    if needed is None:  # this backend does not say. Where memory is too small, the error names seeds_at_once
        return 0
    return needed.temp_size_in_bytes + 2 * needed.output_size_in_bytes  # the state, and its copy for the host
