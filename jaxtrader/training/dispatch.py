"""Who computes what a training asks for: a program of its own, or one program for several trainings side by side.

A training is a generator. It yields a `Chunk` or a `Copy`, and is sent what that gives. So its log, its checkpoints and
its best policy are made by the same code, alone and in a block.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxtrader.training.progress import Progress
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts
from jaxtrader.training.update import TrainState, copy_arrays, run_block
from jaxtrader.training.validation import Validation

FOR_TRAINING = 0.8  # of a device's free memory. Validation, and what the compiler does not count, have the rest.
SUMS = ("updates", "steps", "episodes", "steps_per_second")  # figures that are shown for all seeds together

Report = Callable[[], dict[str, Any]]
"""Waits for a chunk, and returns its report as numbers of the host."""


@dataclass(frozen=True)
class Chunk:
    """Asks for `count` updates after `done` others. The answer is a `Report`."""

    done: int
    count: int


@dataclass(frozen=True)
class Copy:
    """Asks for a `Snapshot` of the state after all chunks, with its scores where `validate` is true."""

    validate: bool


class Snapshot(Protocol):
    """A copy of a train state, and its scores where it is validated. Both may still be computed."""

    @property
    def train_state(self) -> TrainState:
        """The copy."""
        ...

    @property
    def scores(self) -> Mapping[str, Any]:
        """The figures of `Validation.score`."""
        ...


Steps = Generator[Chunk | Copy, Any, Any]


class Place(Protocol):
    """Where the train state of a training is, among those of so many `slots` that one program trains."""

    @property
    def slots(self) -> int:
        """Their number."""
        ...

    def get(self) -> TrainState:
        """Return it."""
        ...

    def set(self, state: TrainState) -> None:
        """Let the training go on from another one."""
        ...


class Training(Protocol):
    """What a block needs of a training.

    Attributes:
        place: of its train state.
        inputs: agent, parameters of the environment, and limits, as `run_chunk` takes them.
        rollouts: how experience is collected.
        validation: None where nothing is validated.
    """

    place: Place
    inputs: tuple[Any, Any, dict[str, Array]]
    rollouts: MarketRollouts | EnvRollouts
    validation: Validation | None

    def share(self, other: Any) -> None:
        """Take another training's parameters, which have the same numbers, so that they are in memory once."""
        ...

    def dispatch(self, count: int) -> Report:
        """Answer a `Chunk`."""
        ...

    def snapshot(self, validate: bool) -> Snapshot:
        """Answer a `Copy`."""
        ...


class Own:
    """The place of a training that is alone."""

    state: TrainState
    slots = 1

    def get(self) -> TrainState:
        """Return the state."""
        return self.state

    def set(self, state: TrainState) -> None:
        """Replace the state."""
        self.state = state


def run_alone(training: Training, steps: Steps) -> Any:
    """Run a training by a program of its own, and return its result."""
    answer: Any = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as done:
            return done.value
        try:
            if isinstance(request, Chunk):
                answer = training.dispatch(request.count)
            else:
                answer = training.snapshot(request.validate)
        except BaseException as error:  # such as no memory, or a second Ctrl-C: the training tells its callbacks
            steps.throw(error)
            raise


class Member:
    """One training of a block, and its place there.

    Attributes:
        training, steps: the training.
        slot: its index in the stacked arrays.
        request: what it waits for. None at its end.
        result: what it returned.
        error: what ended it instead.
        has_begun: whether it has its inputs.
    """

    def __init__(self, block: Block, slot: int, training: Training, steps: Steps) -> None:
        self.training, self.steps, self.slot = training, steps, slot
        self.request: Chunk | Copy | None = None
        self.result: Any = None
        self.error: Exception | None = None
        self.has_begun = False
        self.given: TrainState | None = None  # which is not in the stacked arrays yet
        self._block = block
        training.place = self

    @property
    def slots(self) -> int:
        """Of its block."""
        return self._block.slots

    def get(self) -> TrainState:
        """Return its state."""
        return _take(self._block.stacked, self.slot) if self.given is None else self.given

    def set(self, state: TrainState) -> None:
        """Replace its state. Leaves become JAX arrays."""
        self.given = jax.tree.map(jnp.asarray, state)

    def advance(self, answer: Any) -> None:
        """Answer its request, and run it to the next one. An error ends it."""
        self.request = None
        try:
            self.request = self.steps.send(answer)
            self.has_begun = True
        except StopIteration as done:
            self.result, self.has_begun = done.value, True
        except Exception as error:
            self.error = error


class Block:
    """Trainings of one shape that differ in their numbers, run side by side as one program.

    Each has a slot of the stacked arrays. A slot whose training waits or is over makes no updates. Those that are
    behind, such as after a divergence, catch up first, so that all are validated at once.

    Args:
        trainings: each with its generator.
        slots: of the stacked arrays. Slots without a training let blocks of several sizes share one program.
        stop: is set where all shall save and end.
    """

    stacked: TrainState

    def __init__(self, trainings: Sequence[tuple[Training, Steps]], slots: int, stop: threading.Event) -> None:
        self.members = [Member(self, i, *each) for i, each in enumerate(trainings)]
        self.slots, self.stop = slots, stop
        self._begun = False
        self._shared = True  # whether all have the same parameters of the environment
        self._agents: tuple[list[Any], Any] = ([], None)  # those of the members, and stacked

    def run(self) -> list[Any]:
        """Return the results of all trainings.

        Where one fails, the others save and end, as after a signal. Then its error is raised.
        """
        try:
            for member in self.members:
                self._advance(member, None)
                self._share_params(member)
            while self._live:
                if asking := [(m, m.request) for m in self.members if isinstance(m.request, Copy)]:
                    self._copy(asking)
                else:
                    self._run_chunk([(m, m.request) for m in self.members if isinstance(m.request, Chunk)])
        except BaseException as error:  # such as a second Ctrl-C
            for member in self._live:
                with contextlib.suppress(BaseException):
                    member.steps.throw(error)
            raise
        for member in self.members:
            if member.error is not None:
                raise member.error
        return [member.result for member in self.members]

    @property
    def _live(self) -> list[Member]:
        return [member for member in self.members if member.request is not None]

    def _advance(self, member: Member, answer: Any) -> None:
        member.advance(answer)
        if member.error is not None:
            self.stop.set()

    def _share_params(self, member: Member) -> None:
        """Let a member that has begun use the first one's parameters, where they are the same."""
        first = self._begun_trainings()[0] if member.error is None else member.training
        if first is member.training:
            return
        if bool(_equal(first.inputs[1], member.training.inputs[1])):
            member.training.share(first)
        else:
            self._shared = False

    def _run_chunk(self, asking: Sequence[tuple[Member, Chunk]]) -> None:
        """Answer the chunks of those that are behind, or of all where they shall end."""
        if not self.stop.is_set():
            behind = min(chunk.done for _, chunk in asking)
            asking = [(member, chunk) for member, chunk in asking if chunk.done == behind]
        counts = np.zeros(self.slots, np.int32)
        for member, chunk in asking:
            counts[member.slot] = chunk.count
        self._gather()
        first = asking[0][0].training
        self.stacked, reports = run_block(
            self.stacked,
            self._all_agents(),
            self._params(lambda training: training.inputs[1]),
            first.inputs[2],
            jnp.asarray(counts),
            rollouts=first.rollouts,
            shared=self._shared,
        )
        fetched = _Fetched(reports)
        for member, _ in asking:
            self._advance(member, partial(fetched.of, member.slot))

    def _copy(self, asking: Sequence[tuple[Member, Copy]]) -> None:
        """Answer all copies that are asked for. One program scores the policies of all slots."""
        self._gather()
        copied, scores = copy_arrays(self.stacked), {}
        first = asking[0][0].training
        validation = first.validation
        if validation is not None and any(copy.validate for _, copy in asking):
            params = self._params(lambda training: training.validation.params)
            agent = first.inputs[0]
            scores = validation.score_all(agent, copied.agent_state, params, shared=self._shared)
        states, figures = _Fetched(copied), _Fetched(scores)
        for member, copy in asking:
            self._advance(member, _Slot(states, figures if copy.validate else _Fetched({}), member.slot))

    # --- the stacked arrays ---

    def _gather(self) -> None:
        """Put the states that members have set into the stacked arrays."""
        if not self._begun:
            states = [member.given for member in self.members]
            known = next(state for state in reversed(states) if state is not None)
            self.stacked = _stack(self._filled([known if state is None else state for state in states]))
            self._begun = True
        else:
            for member in self._live:
                if member.given is not None:
                    self.stacked = _put(self.stacked, member.given, member.slot)
        for member in self._live:
            member.given = None

    def _filled(self, each: list[Any]) -> tuple[Any, ...]:
        """One for each slot. Slots without a training have the last one's."""
        return (*each, *each[-1:] * (self.slots - len(each)))

    def _all_agents(self) -> Any:
        """The agents, stacked anew where one has changed, as by half its learning rate."""
        agents = [training.inputs[0] for training in self._begun_trainings()]
        before, stacked = self._agents
        if len(before) != len(agents) or any(a is not b for a, b in zip(before, agents, strict=True)):
            stacked = _stack(self._filled(agents))
        self._agents = (agents, stacked)
        return stacked

    def _params(self, of: Callable[[Any], Any]) -> Any:
        """The parameters that all share, or all of them stacked."""
        trainings = self._begun_trainings()
        return of(trainings[0]) if self._shared else _stack(self._filled([of(one) for one in trainings]))

    def _begun_trainings(self) -> list[Training]:
        """The trainings, with the first of them in the place of those that failed before they began."""
        first = next(member.training for member in self.members if member.has_begun)
        return [member.training if member.has_begun else first for member in self.members]


class _Fetched:
    """Stacked arrays, fetched to the host when the first member reads its slot."""

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    @cached_property
    def _on_host(self) -> Any:
        # Random keys have no form on the host, and stay.
        leaves, structure = jax.tree.flatten(self._tree)
        fetched = iter(jax.device_get([leaf for leaf in leaves if not _is_key(leaf)]))
        return structure.unflatten([leaf if _is_key(leaf) else next(fetched) for leaf in leaves])

    def of(self, slot: int) -> Any:
        """Return the numbers of a slot."""
        return jax.tree.map(lambda x: x[slot], self._on_host)


class _Slot:
    """The `Snapshot` of a member: its slot of what was copied and scored."""

    def __init__(self, states: _Fetched, scores: _Fetched, slot: int) -> None:
        self._states, self._scores, self._slot = states, scores, slot

    @cached_property
    def train_state(self) -> TrainState:
        """The copy, as arrays of the host."""
        return self._states.of(self._slot)

    @cached_property
    def scores(self) -> dict[str, Any]:
        """The figures."""
        return self._scores.of(self._slot)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@jax.jit
def _stack(trees: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, donate_argnums=0)
def _put(stacked: Any, tree: Any, slot: Array) -> Any:
    return jax.tree.map(lambda all_slots, leaf: all_slots.at[slot].set(leaf), stacked, tree)


@jax.jit
def _take(stacked: Any, slot: Array) -> Any:
    return jax.tree.map(lambda x: x[slot], stacked)


@jax.jit
def _equal(one: Any, other: Any) -> Array:
    """Whether two trees of the same shapes have the same numbers."""
    same = jax.tree.map(lambda a, b: jnp.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.inexact)), one, other)
    return jnp.stack(jax.tree.leaves(same)).all()


# --- how many fit ---


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


def bytes_of_block(
    slots: int, state: Any, agent: Any, params: Any, limits: Any, rollouts: MarketRollouts | EnvRollouts
) -> int:
    """Return the bytes that a block's program takes beside the parameters of the environment. It is compiled.

    The compiled program is the one that `Block` runs, and is not compiled again.
    """
    stacked = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype), tree)  # noqa: E731
    counts = jax.ShapeDtypeStruct((slots,), jnp.int32)
    program = run_block.lower(stacked(state), stacked(agent), params, limits, counts, rollouts=rollouts, shared=True)
    needed = program.compile().memory_analysis()
    if needed is None:  # this backend does not tell. Where memory is too small, the error names seeds_at_once
        return 0
    return needed.temp_size_in_bytes + 2 * needed.output_size_in_bytes  # the state, and its copy for the host


# --- progress ---


class SharedProgress:
    """One display for all trainings of a block: what all have done, and the means of their figures."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._latest: dict[int, tuple[int, Mapping[str, Any]]] = {}
        self._said: set[str] = set()

    def of(self, seed: int) -> Share:
        """The display of one of the trainings."""
        return Share(self, seed)

    def say_once(self, text: str, say: Callable[[str], None]) -> None:
        """Say what several trainings say, once."""
        if text not in self._said:
            self._said.add(text)
            say(text)

    def wait(self, what: str) -> None:
        """See `Progress.wait`."""
        self.say_once(what, self._progress.wait)

    def print(self, text: str) -> None:
        """See `Progress.print`."""
        self.say_once(text, self._progress.print)

    def update(self, seed: int, done: int, record: Mapping[str, Any]) -> None:
        """Show the figures of all after a record of one training."""
        self._latest[seed] = (done, record)
        records = [each for _, each in self._latest.values()]
        shown: dict[str, Any] = {}
        for name in record:
            known = [each[name] for each in records if isinstance(each.get(name), int | float)]
            if known:
                shown[name] = sum(known) if name in SUMS else sum(known) / len(known)
        self._progress.update(sum(each for each, _ in self._latest.values()), shown)


class Share:
    """What one training of a block shows. It is a `Progress` to the training."""

    def __init__(self, shared: SharedProgress, seed: int) -> None:
        self.wait = shared.wait
        self._shared, self._seed = shared, seed

    def print(self, text: str) -> None:
        """Say something of all trainings, once, or of one of them: what happened to an update is its own."""
        self._shared.print(f"seed {self._seed}: {text}" if "update" in text else text)

    def update(self, done: int, record: Mapping[str, Any]) -> None:
        """See `Progress.update`."""
        self._shared.update(self._seed, done, record)
