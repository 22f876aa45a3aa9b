"""Several trainings side by side as one program: each is a generator of requests, see `dispatch.py`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxtrader.training.dispatch import Chunk, Copy, Request, Snapshot, Start
from jaxtrader.training.train_result import TrainResult
from jaxtrader.training.training_loop import TrainingLoop
from jaxtrader.training.update import TrainState, copy_arrays, run_chunk


class Member:
    """One training of a block.

    Attributes:
        training: The training.
        slot: Its index in the stacked arrays.
        request: The request that waits for an answer. None before the training begins and after it ends.
        result: The result of the training. None until it ends, and where an error ended it.
        error: The error that ended the training. None where there was none.
    """

    def __init__(self, training: TrainingLoop, slot: int) -> None:
        self.training, self.slot = training, slot
        self.steps = training.steps()
        self.request: Request | None = None
        self.result: TrainResult | None = None
        self.error: Exception | None = None

    def advance(self, answer: Any) -> None:
        """Answer the member's request, and run the training up to the next request. An error ends the training."""
        self.request = None
        try:
            self.request = self.steps.send(answer)
        except StopIteration as done:
            self.result = done.value
        except Exception as error:
            self.error = error


class Block:
    """Trainings of one shape that differ in their numbers, run side by side as one program.

    Each has a slot of the stacked arrays. A slot whose training waits or is over makes no updates. Those that are
    behind, such as after a divergence, catch up first, so that all are validated at once.

    Args:
        trainings: The trainings of the block.
        slots: The number of slots of the stacked arrays. Empty slots let blocks of several sizes share one program.
        stop: The event that asks all trainings to save and end.
    """

    def __init__(self, trainings: Sequence[TrainingLoop], slots: int, stop: threading.Event) -> None:
        self.members = [Member(training, slot) for slot, training in enumerate(trainings)]
        self.slots, self.stop = slots, stop
        self._stacked: Any = None  # the train states of all slots
        self._started: dict[int, TrainingLoop] = {}  # by slot
        self._given: dict[int, TrainState] = {}  # states by slot that are not in the stacked arrays yet
        self._params_axis: int | None = None  # None while all have the same parameters of the environment

    def run(self) -> list[TrainResult]:
        """Return the results of all trainings.

        Where one fails, the others save and end, as after a signal. Then its error is raised.
        """
        try:
            for member in self.members:
                self._advance(member, None)
            while live := self._live:
                if copying := [(m, m.request) for m in live if isinstance(m.request, Copy)]:
                    self._copy(copying)
                else:
                    self._run_chunk([(m, m.request) for m in live if isinstance(m.request, Chunk)])
        except BaseException as error:  # such as a second Ctrl-C
            for member in self._live:
                with contextlib.suppress(BaseException):
                    member.steps.throw(error)
            raise
        for member in self.members:
            if member.error is not None:
                raise member.error
        return [member.result for member in self.members if member.result is not None]

    @property
    def _live(self) -> list[Member]:
        return [member for member in self.members if member.request is not None]

    def _advance(self, member: Member, answer: Any) -> None:
        """Answer a member's request. Where the next one is a `Start`, that is answered too."""
        member.advance(answer)
        while isinstance(member.request, Start):
            self._given[member.slot] = jax.tree.map(jnp.asarray, member.request.train_state)
            self._started[member.slot] = member.training
            self._share_params(member.training)
            member.advance(None)
        if member.error is not None:
            self.stop.set()

    def _share_params(self, training: TrainingLoop) -> None:
        """Let a training use the first one's parameters where they are the same, so that they are in memory once."""
        first = next(iter(self._started.values()))
        if training.params is first.params:
            return
        if not bool(_equal(first.params, training.params)):
            self._params_axis = 0
            return
        training.params = first.params
        if training.validation is not None and first.validation is not None:
            training.validation.params = first.validation.params

    def _run_chunk(self, asking: Sequence[tuple[Member, Chunk]]) -> None:
        """Answer the chunks of those that are behind, or of all where `stop` is set."""
        if not self.stop.is_set():
            behind = min(chunk.done for _, chunk in asking)
            asking = [(member, chunk) for member, chunk in asking if chunk.done == behind]
        counts = np.zeros(self.slots, np.int32)
        for member, chunk in asking:
            counts[member.slot] = chunk.count
        self._gather()
        first = asking[0][0].training
        self._stacked, reports = run_chunk(
            self._stacked,
            self._stack({slot: training.agent for slot, training in self._started.items()}),
            self._params(lambda training: training.params),
            first.limits,
            jnp.asarray(counts),
            rollouts=first.rollouts,
            params_axis=self._params_axis,
        )
        fetched = _Fetched(reports)
        for member, _ in asking:
            self._advance(member, partial(fetched.of, member.slot))

    def _copy(self, asking: Sequence[tuple[Member, Copy]]) -> None:
        """Answer all copies that are asked for. One program scores the policies of all slots."""
        self._gather()
        copied, scores = copy_arrays(self._stacked), {}
        first = asking[0][0].training
        if first.validation is not None and any(copy.validate for _, copy in asking):
            params = self._params(lambda training: training.validation.params)
            scores = first.validation.score_all(first.agent, copied.agent_state, params, self._params_axis)
        fetched = _Fetched((copied, scores))
        for member, copy in asking:
            self._advance(member, _snapshot(fetched, member.slot, copy.validate))

    def _gather(self) -> None:
        """Put the states from which members start into the stacked arrays."""
        given, self._given = self._given, {}
        if self._stacked is None:
            self._stacked = self._stack(given)
            return
        for slot, state in given.items():
            self._stacked = _put(self._stacked, state, slot)

    def _stack(self, by_slot: dict[int, Any]) -> Any:
        """Return one tree for each slot, stacked. A slot without a tree gets a copy of the first one."""
        first = next(iter(by_slot.values()))
        return _stack(tuple(by_slot.get(slot, first) for slot in range(self.slots)))

    def _params(self, of: Callable[[Any], Any]) -> Any:
        """Return the parameters that all trainings share, or those of all slots, stacked."""
        by_slot = {slot: of(training) for slot, training in self._started.items()}
        return next(iter(by_slot.values())) if self._params_axis is None else self._stack(by_slot)


class _Fetched:
    """Stacked arrays, fetched to the host when the first member reads its slot."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    @cached_property
    def _on_host(self) -> Any:
        # Random keys have no form on the host, so they stay on the device.
        leaves, structure = jax.tree.flatten(self._tree)
        fetched = iter(jax.device_get([leaf for leaf in leaves if not _is_key(leaf)]))
        return structure.unflatten([leaf if _is_key(leaf) else next(fetched) for leaf in leaves])

    def of(self, slot: int) -> Any:
        """Return the numbers of a slot."""
        return jax.tree.map(lambda x: x[slot], self._on_host)


def _snapshot(fetched: _Fetched, slot: int, validated: bool) -> Snapshot:
    def read() -> tuple[TrainState, dict[str, Any]]:
        train_state, scores = fetched.of(slot)
        return train_state, scores if validated else {}

    return read


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@jax.jit
def _stack(trees: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, donate_argnums=0)
def _put(stacked: Any, tree: Any, slot: Array) -> Any:
    return jax.tree.map(lambda all_slots, leaf: all_slots.at[slot].set(leaf), stacked, tree)


@jax.jit
def _equal(one: Any, other: Any) -> Array:
    """Whether two trees of the same shapes have the same numbers."""
    equal = jax.tree.map(lambda a, b: jnp.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.inexact)), one, other)
    return jnp.stack(jax.tree.leaves(equal)).all()
