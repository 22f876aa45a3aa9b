"""How many seeds one program trains side by side on the device at hand: as many as fit its memory, in even blocks."""

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

FOR_TRAINING = 0.8  # of a device's free memory. Validation, and what the compiler does not count, have the rest.


def seeds_at_once(trainer: Trainer) -> int:
    """How many seeds one program trains side by side, on the device at hand.

    An agent of the user's own may hold what `jax.vmap` cannot take, so it is asked for.
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
    """What several seeds as one program need, and this training has not. Empty where it has all."""
    if trainer.devices > 1:
        return "one device"
    if not all(type(each) is EarlyStopping for each in trainer.callbacks):
        return "no callbacks but EarlyStopping, since others see one seed after another"
    return ""


def slots_that_fit(wanted: int, bytes_of: Callable[[int], int], limit: float) -> int:
    """Return the most slots, of equal blocks, whose program fits a device's memory. At least 1.

    Args:
        wanted: members to train.
        bytes_of: what the program of so many slots needs. It is compiled for that.
        limit: bytes.
    """
    slots = wanted
    while slots > 1 and (needed := bytes_of(slots)) > limit:
        fitting = max(1, min(slots - 1, int(slots * limit / needed)))
        slots = even(wanted, fitting)
    return slots


def even(wanted: int, most: int) -> int:
    """Return the slots of blocks of at most `most`, such that no block is much smaller than the others."""
    return -(-wanted // -(-wanted // most))


def free_bytes(device: jax.Device) -> float | None:
    """Return what a device has left for programs, less some for validation. None where it does not tell."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return FOR_TRAINING * (stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def bytes_of_block(slots: int, trainer: Trainer, train_state: TrainState, params: Any) -> int:
    """Return the bytes that a block's program takes beside the parameters of the environment. It is compiled.

    The compiled program is the one that `Block` runs, and is not compiled again.
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
    if needed is None:  # this backend does not tell. Where memory is too small, the error names seeds_at_once
        return 0
    return needed.temp_size_in_bytes + 2 * needed.output_size_in_bytes  # the state, and its copy for the host
