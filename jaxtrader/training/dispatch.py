"""The requests of a training to its device, and the loop that answers one training. `block.py` answers several.

A training is a generator. It yields a `Start`, a `Chunk` or a `Copy`, and is sent the answer. So the same code makes
its log, its checkpoints and its best policy, alone and in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxtrader import devices
from jaxtrader.training.train_result import TrainResult
from jaxtrader.training.update import TrainState, copy_arrays, place_train_state, run_chunk

if TYPE_CHECKING:
    from jaxtrader.training.training_loop import TrainingLoop


@dataclass(frozen=True)
class Start:
    """Asks to go on from a train state, with the training's agent and parameters as they are now. No answer."""

    train_state: TrainState


@dataclass(frozen=True)
class Chunk:
    """Asks for `count` updates after `done` others. The answer is a `ChunkReport`."""

    done: int
    count: int


@dataclass(frozen=True)
class Copy:
    """Asks for a `Snapshot` of the state after all chunks, with its scores where `validate` is true."""

    validate: bool


ChunkReport = Callable[[], dict[str, Any]]
"""Waits for a chunk, and returns its report as numbers of the host."""

Snapshot = Callable[[], tuple[TrainState, dict[str, Any]]]
"""Returns a copy of the train state and the figures of `Validation.score`. Both may still be computed."""

Request = Start | Chunk | Copy
Steps = Generator[Request, Any, TrainResult]


def run_alone(training: TrainingLoop) -> TrainResult:
    """Run one training to its end, and return its result."""
    steps, mesh = training.steps(), training.mesh
    answer, train_state, inputs = None, None, ()
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as done:
            return done.value
        try:
            if isinstance(request, Start):
                inputs = (training.agent, training.params, training.limits)
                inputs = devices.place(inputs, mesh, devices.REPLICATED)
                train_state, answer = place_train_state(request.train_state, mesh), None
            elif isinstance(request, Chunk):
                count = devices.place(jnp.asarray(request.count, jnp.int32), mesh, devices.REPLICATED)
                train_state, report = run_chunk(train_state, *inputs, count, rollouts=training.rollouts, mesh=mesh)
                answer = partial(jax.device_get, report)
            else:
                answer = _snapshot(training, train_state, request.validate)
        except BaseException as error:  # out of memory, or a second Ctrl-C: the training tells its callbacks
            steps.throw(error)
            raise


def _snapshot(training: TrainingLoop, train_state: Any, validate: bool) -> Snapshot:
    """Copy the train state, whose buffers the next chunk takes over, and enqueue its validation."""
    mesh, scores = training.mesh, {}
    train_state = devices.readable(copy_arrays(train_state), mesh)
    if training.validation is not None and validate:
        scores = training.validation.score(training.agent, devices.to_first(train_state.agent_state, mesh))
    if mesh is not None:
        # The devices of a CPU share its threads. The next chunk's part on one device may take the thread that this
        # work needs. There it waits for the part on the other device, which waits for this work. XLA ends the
        # process after 40 seconds of that.
        jax.block_until_ready((train_state, scores))
    return lambda: (train_state, scores)
