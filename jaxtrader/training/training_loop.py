"""The loop of one training: it dispatches chunks of updates, logs on the host, validates, and saves.

The host dispatches chunk n, then fetches and logs chunk n-1, so that the device never waits for the log.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxtrader import devices, files, hosts
from jaxtrader.envs import rewards
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.callbacks import CallbackList, TrainingRun
from jaxtrader.training.checkpoint import (
    MAX_HALVINGS,
    Checkpoint,
    checkpoint_to_go_back_to,
    restore,
    save_checkpoint,
)
from jaxtrader.training.dispatch import Chunk, Copy, Own, Place, Report, Share, Snapshot, Steps
from jaxtrader.training.identity import machine
from jaxtrader.training.metrics_log import JsonlLogger
from jaxtrader.training.progress import Progress
from jaxtrader.training.records import Recorder
from jaxtrader.training.run_config import describe, write_config
from jaxtrader.training.run_folder import NEWEST, resume_command
from jaxtrader.training.train_result import TrainingDiverged, TrainResult
from jaxtrader.training.train_settings import NO_LIMIT
from jaxtrader.training.update import (
    DEVICES_DIFFER,
    TrainState,
    copy_arrays,
    place_train_state,
    run_chunk,
)
from jaxtrader.training.validation import Validation
from jaxtrader.training.warm_start import origin

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer

CHECKPOINT_SECONDS = 60.0  # between two checkpoints where no validation comes before


@dataclass(frozen=True)
class _Snapshot:
    """A copy of the train state, and its scores where it is validated, which may still be computed."""

    train_state: TrainState
    scores: dict[str, Array]


@dataclass(frozen=True)
class Fresh:
    """What a training begins with.

    Attributes:
        train_state: the first one.
        params: parameters of the environment, prepared by the agent.
        raw: the same before that.
    """

    train_state: TrainState
    params: Any
    raw: Any


class _Rejected(Exception):
    """An update was rejected.

    Attributes:
        reasons: what was not finite or not valid in it, the cause first.
    """

    def __init__(self, reasons: list[str]):
        super().__init__()
        self.reasons = reasons


class TrainingLoop:
    """One call of `Trainer.train`, of one seed.

    Attributes:
        place: of the train state, see `train_state`.
        inputs: see `dispatch.Training`.
        policy: the content of policy.pkl where validation chose one.
        halvings: how often the learning rate was halved.
        initial: what the policy says of itself that training started from.
    """

    inputs: tuple[Any, Any, dict[str, Array]]

    def __init__(
        self, trainer: Trainer, run_dir: Path, log: JsonlLogger, progress: Progress | Share, stop: threading.Event
    ) -> None:
        self.place: Place = Own()
        self.trainer, self.run_dir, self.log, self.progress, self.stop = trainer, run_dir, log, progress, stop
        self.callbacks = CallbackList(trainer.callbacks)
        self.recorder = Recorder(trainer.steps_per_update)
        self.rollouts, self.mesh = trainer.rollouts, devices.make_mesh(trainer.devices)
        self.replicate = partial(devices.place, mesh=self.mesh, spec=devices.REPLICATED)
        self.history: list[dict[str, Any]] = []
        self.validation: Validation | None = None
        self.policy: np.ndarray | None = None
        self.halvings = 0
        self.initial: dict[str, Any] | None = None
        self.saved: tuple[int, int] | None = None  # updates and length of the log at the last checkpoint
        self.snapshot_at = time.monotonic()
        self.agreed = self._wishes
        self.agent: Any = trainer.agent_arrays

    @property
    def train_state(self) -> TrainState:
        """On the device, after all chunks that were dispatched."""
        return self.place.get()

    @train_state.setter
    def train_state(self, state: TrainState) -> None:
        self.place.set(state)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the policy files say of the training."""
        trainer = self.trainer
        further = trainer.about if self.initial is None else {**trainer.about, "init_from": self.initial}
        return describe(trainer, trainer.env, trainer.agent, trainer.valid, further)

    @property
    def best_score(self) -> float | None:
        """The best validation's score, None where nothing has been chosen."""
        best = None if self.validation is None else self.validation.best
        return None if best is None else best["valid_reward_per_bar"]

    def steps(self, checkpoint: Checkpoint | None) -> Steps:
        """Train from a checkpoint, or from the beginning, and tell the callbacks of the end.

        Yields what `dispatch.py` answers, and returns the result.
        """
        try:
            result = yield from self._run(checkpoint)
        except BaseException as error:
            self.callbacks.fail(error)
            raise
        self.callbacks.end(result)
        if result.interrupted:
            self.progress.print(f"saved; {resume_hint(self.run_dir)}")
        return result

    def share(self, other: TrainingLoop) -> None:
        """See `dispatch.Training`."""
        agent, _, limits = self.inputs
        self.params, self.inputs = other.params, (agent, other.inputs[1], limits)
        if self.validation is not None and other.validation is not None:
            self.validation.params = other.validation.params

    def dispatch(self, count: int) -> Report:
        """Dispatch a chunk of `count` updates, as a program of its own."""
        agent, params, limits = self.inputs
        self.train_state, report = run_chunk(
            self.train_state,
            agent,
            params,
            limits,
            self.replicate(jnp.asarray(count, jnp.int32)),
            rollouts=self.rollouts,
            mesh=self.mesh,
        )
        return partial(jax.device_get, report)

    def _run(self, checkpoint: Checkpoint | None) -> Generator[Chunk | Copy, Any, TrainResult]:
        trainer = self.trainer
        self._begin(checkpoint)
        if isinstance(trainer.env, TradingEnv) and (short := trainer.env.symbols_without_room(trainer.rollout_length)):
            self.progress.print(
                f"note: {', '.join(short)}: too few bars for a rollout of {trainer.rollout_length}; not trained on"
            )
        config = write_config(self.run_dir, trainer, trainer.agent, self.about)
        if trainer.on_divergence == "halve":
            self._save_checkpoint(self.train_state)  # to which the first divergence goes back
        while True:
            self.callbacks.start(TrainingRun(self.run_dir, config, tuple(self.history)))
            try:
                yield from self._train()
            except _Rejected as rejected:
                self._after_rejection(rejected.reasons)
            else:
                return (yield from self._finish())

    @property
    def _is_complete(self) -> bool:
        """Whether all updates or episodes are finished, or a callback asked to stop."""
        updates, episodes = self.trainer.total_updates, self.trainer.num_episodes
        return (
            self.agreed["end"]
            or (updates is not None and self.recorder.updates >= updates)
            or (episodes is not None and self.recorder.episodes >= episodes)
        )

    def _train(self) -> Steps:
        """Train until the end or a signal, with one chunk on the device while the one before is logged.

        Chunks and validations lie at multiples of their lengths, also after a run was resumed. Several processes agree
        on when to stop and save: each chunk carries their wishes, which are known when it is fetched.
        """
        trainer = self.trainer
        self.inputs = self.replicate((self.agent, self.params, trainer.limits))
        dispatched, end = self.recorder.updates, trainer.total_updates or NO_LIMIT
        pending: deque[tuple[Report, dict[str, Any], Snapshot | None]] = deque()
        self.agreed = hosts.answer(hosts.ask(self._wishes, self.mesh))
        finished = self._is_complete
        while not finished:
            since_eval = dispatched % trainer.eval_every
            until_eval = trainer.eval_every - since_eval
            until_chunk = trainer.updates_per_chunk - since_eval % trainer.updates_per_chunk
            count = min(until_chunk, until_eval, end - dispatched)
            began = time.perf_counter()
            if self.recorder.compile_seconds is None:
                self.progress.wait("compiling the training step, or loading it from an earlier run")
            report = yield Chunk(dispatched, count)
            dispatched += count
            if self.recorder.compile_seconds is None:
                self.recorder.compile_seconds = time.perf_counter() - began
            is_eval = count == until_eval or dispatched == end
            asked = hosts.ask(self._wishes, self.mesh)
            self._agree(None)
            takes = is_eval or self.agreed["save"]
            pending.append((report, asked, (yield Copy(is_eval)) if takes else None))
            if takes:
                self.snapshot_at = time.monotonic()
            finished = dispatched >= end or self.agreed["stop"]
            while len(pending) > (0 if finished else 1):
                report, asked, snapshot = pending.popleft()
                self._fetch(report, snapshot)
                self._agree(asked)
                if self.agreed["end"] and snapshot is not None:
                    # A run that is resumed from here stops here too, so the chunk on the device does not count.
                    self.train_state = snapshot.train_state
                    return
                finished |= self._is_complete

    @property
    def _wishes(self) -> dict[str, bool]:
        """What this process wishes: to stop by a signal, to save by the time, and to end by a callback."""
        is_due = time.monotonic() - self.snapshot_at >= CHECKPOINT_SECONDS
        return {"stop": self.stop.is_set(), "save": is_due and hosts.is_first(), "end": self.callbacks.stops}

    def _agree(self, asked: dict[str, Any] | None) -> None:
        """Do what all processes have agreed on when they were asked. A process alone does what it wishes at once."""
        if hosts.count() == 1:
            self.agreed = self._wishes
        elif asked is not None:
            self.agreed = hosts.answer(asked)

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        """Make the first train state, the prepared parameters and the validation, or restore them."""
        trainer = self.trainer
        earlier = trainer.earlier if checkpoint is None else None
        fresh = trainer.fresh(self.agent, earlier)
        train_state, self.params = fresh.train_state, fresh.params
        if earlier is not None:
            self.initial = origin(earlier)
        self.template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), train_state)
        if checkpoint is not None:
            self._warn_of_another_machine(checkpoint)
            train_state = self._restore(checkpoint)
            self._warn_of_another_length(checkpoint, train_state)
            _, self.params = self.agent.prepare(train_state.agent_state, fresh.raw)  # with the scales of the run
        if trainer.valid is not None:
            assert isinstance(trainer.env, TradingEnv)
            self.validation = Validation.prepare(trainer.valid, trainer.env, self.agent, train_state.agent_state)
            self.validation.best = None if checkpoint is None else checkpoint.best
        if checkpoint is None:
            self.log.cut(0)
        self.train_state = place_train_state(train_state, self.mesh)

    def _restore(self, checkpoint: Checkpoint) -> TrainState:
        """Go back to a checkpoint: counts, log, best policy and learning rate. Return its train state."""
        train_state = restore(self.run_dir / NEWEST, checkpoint, self.template)
        self.history = self.log.cut(checkpoint.metrics_bytes)
        compile_seconds = self.recorder.compile_seconds
        self.recorder = Recorder(
            self.trainer.steps_per_update, checkpoint.updates, checkpoint.episodes, checkpoint.seconds
        )
        self.recorder.compile_seconds = compile_seconds
        for _ in range(checkpoint.halvings - self.halvings):
            self.agent, _ = self.agent.halve_rate(train_state.agent_state)
        self.halvings = max(self.halvings, checkpoint.halvings)
        self.policy, self.initial = checkpoint.policy, checkpoint.initial
        if self.policy is not None:
            files.write_bytes(self.run_dir / "policy.pkl", self.policy.tobytes())
        is_on_disk = checkpoint.metrics_sum == self.log.digest()
        self.saved = (checkpoint.updates, checkpoint.metrics_bytes) if is_on_disk else None
        self.snapshot_at = time.monotonic()
        return train_state

    def _warn_of_another_machine(self, checkpoint: Checkpoint) -> None:
        names = {"jax": "JAX", "device": "the device", "cpus": "the number of cores"}
        here = {**machine(), "devices": self.trainer.devices, "seeds_at_once": self.place.slots}
        changes = ((names.get(name, name), getattr(checkpoint, name), now) for name, now in here.items())
        changed = [f"{name} was {before} and is {now}" for name, before, now in changes if before not in (now, None)]
        if changed:
            warnings.warn(f"{', '.join(changed)}: the results may differ in their last digits", stacklevel=4)

    def _warn_of_another_length(self, checkpoint: Checkpoint, train_state: TrainState) -> None:
        """Warn where a schedule of the agent is elsewhere than it was, because the training has another length."""
        before, now = checkpoint.goal, self.trainer.goal
        if before is None or before == now:
            return
        done = checkpoint.updates if self.trainer.num_episodes is None else checkpoint.episodes
        shares = [min(done / max(goal, 1), 1.0) for goal in (before, now)]
        scheduled = [self.agent.anneal(train_state.agent_state, jnp.float32(share)) for share in shares]
        pairs = zip(*map(jax.tree.leaves, scheduled), strict=True)
        if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
            name = "total_steps" if self.trainer.num_episodes is None else "num_episodes"
            warnings.warn(
                f"{name} is another one than before: schedules of the agent, such as the learning rate's, run over the "
                f"new length, and go on at {shares[1]:.0%} of it instead of {shares[0]:.0%}",
                stacklevel=4,
            )

    def _after_rejection(self, reasons: list[str]) -> None:
        """Go back to the last validation with half the learning rate, or save and raise TrainingDiverged."""
        message = self._what_was_rejected(reasons)
        # A lower rate mends no bars, no reward, and no learner that is not made for several devices.
        may_help = reasons[0] != "reward" and reasons != [DEVICES_DIFFER] and self.halvings < MAX_HALVINGS
        if self.trainer.on_divergence == "stop" or not may_help:
            # The state is the one before the rejected update. A training that goes on from it may try again.
            self.train_state = self.train_state.replace(healthy=jnp.ones((), bool))
            self._save_end()
            untrained = ". No update was made: the saved policy is untrained" if not self.recorder.updates else ""
            raise TrainingDiverged(
                f"{message}. The state before it is saved in {self.run_dir}{untrained}. {self._advice(reasons)}"
            )
        self.progress.print(f"note: {message}")
        checkpoint = checkpoint_to_go_back_to(self.run_dir)
        if checkpoint is None:  # of a run that began with "stop", or whose file was damaged
            checkpoint = self.trainer.newest_checkpoint(self.run_dir, set_aside=True)
            self.progress.print("note: no checkpoint of a validation is there to go back to, so it is the newest")
        assert checkpoint is not None  # the first is written before the first update
        train_state = self._restore(replace(checkpoint, seconds=self.recorder.seconds))
        if self.validation is not None:
            self.validation.best = checkpoint.best
        self.agent, agent_state = self.agent.halve_rate(train_state.agent_state)
        for _ in range(self.halvings - checkpoint.halvings):  # of earlier steps back to the same checkpoint
            _, agent_state = self.agent.halve_rate(agent_state)
        self.halvings += 1
        self.train_state = place_train_state(train_state.replace(agent_state=agent_state), self.mesh)
        self.saved = None  # newer checkpoints no longer fit the log
        self._save_checkpoint(self.train_state, goes_back=False)
        self.progress.print(
            f"note: back to update {checkpoint.updates}, with the learning rate halved ({self.halvings} of at most "
            f"{MAX_HALVINGS} times)"
        )

    def _what_was_rejected(self, reasons: list[str]) -> str:
        own = self._own_reward
        named = [f"reward (your own, {own})" if name == "reward" and own else name for name in reasons]
        return f"update {self.recorder.updates + 1} was rejected: not finite or not valid in {', '.join(named)}"

    @property
    def _own_reward(self) -> str | None:
        """The name of a reward that is not this package's."""
        env = self.trainer.env
        described = rewards.to_dict(env.reward) if isinstance(env, TradingEnv) else {}
        return described["name"] if described.get("custom") else None

    def _advice(self, reasons: list[str]) -> str:
        """What to look at after a divergence."""
        if reasons == [DEVICES_DIFFER]:
            return "The agent's learn must take what it learns as means over them: jaxtrader.devices.mean"
        if reasons[0] == "reward" and self._own_reward:
            return "Look at where that reward divides, or takes a logarithm or a root"
        if reasons[0] in ("action", "reward"):
            return "Look at the prices and features"
        if self.halvings >= MAX_HALVINGS:
            return f"The learning rate was halved {self.halvings} times, so look at the prices and features"
        return "Try a lower learning_rate or max_grad_norm, or on_divergence='halve'"

    def snapshot(self, validate: bool) -> _Snapshot:
        """Copy the train state, whose buffers the next chunk takes over, and enqueue its validation."""
        train_state, scores = devices.readable(copy_arrays(self.train_state), self.mesh), {}
        if self.validation is not None and validate:
            scores = self.validation.score(self.agent, devices.to_first(train_state.agent_state, self.mesh))
        if self.mesh is not None:
            # The devices of a CPU share its threads. The next chunk's part on one device may take the thread that this
            # work needs. There it waits for the part on the other device, which waits for this work. XLA ends the
            # process after 40 seconds of that.
            jax.block_until_ready((train_state, scores))
        return _Snapshot(train_state, scores)

    def _fetch(self, wait: Report, snapshot: Snapshot | None) -> None:
        """Wait for a chunk, log it and save its snapshot. Raises _Rejected where its last update was rejected."""
        report = wait()
        record, is_best = self.recorder.record(report), False
        if record is not None:
            if snapshot is not None:
                is_best = self._choose(snapshot, record)
            self._write(record)
        # Invalid actions and rewards come first: they spoil everything that is computed from them.
        reasons = [name for name in dict.fromkeys(("action", "reward", *report["bad"])) if report["bad"][name]]
        if reasons:
            raise _Rejected(reasons)
        if snapshot is not None and record is not None:
            self._save_checkpoint(snapshot.train_state, is_best)

    def _choose(self, snapshot: Snapshot, record: dict[str, Any]) -> bool:
        """Add the validation's figures to the record, and save the policy where it is the best so far."""
        if self.validation is None or not snapshot.scores:
            return False
        is_best = self.validation.choose(snapshot.scores, record)
        if is_best:
            path = self._save_policy("policy.pkl", snapshot.train_state)
            # A custom agent may save elsewhere.
            self.policy = np.fromfile(path, np.uint8) if path.is_file() else None
        elif not math.isfinite(record["valid_reward_per_bar"]):
            self.progress.print(
                f"note: the validation after update {self.recorder.updates} is not finite and selects nothing"
            )
        return is_best

    def _write(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.log.write(record)
        self.callbacks.record(record)
        self.progress.update(record["steps" if self.trainer.num_episodes is None else "episodes"], record)

    def _finish(self) -> Generator[Chunk | Copy, Any, TrainResult]:
        """Validate at the end where the last record has no validation, and write the files of the end.

        An interrupted training is not validated: it may go on, and then be as if it had never stopped.
        """
        last = self.history[-1] if self.history else {"updates": 0, "steps": 0, "episodes": 0}
        if self._is_complete and self.validation is not None and "valid_reward_per_bar" not in last:
            record = {**last, "seconds": self.recorder.seconds}
            is_best = self._choose((yield Copy(validate=True)), record)
            self._write(record)
            self._save_checkpoint(self.train_state, is_best)
        self._save_end()
        return TrainResult(
            state=devices.to_first(self.train_state.agent_state, self.mesh),
            agent=self.trainer.agent,
            env=self.trainer.env,
            history=self.history,
            updates=self.recorder.updates,
            steps=self.recorder.steps,
            episodes=self.recorder.episodes,
            seconds=self.recorder.seconds,
            best=None if self.validation is None else self.validation.best,
            run_dir=self.run_dir,
            interrupted=not self._is_complete,
        )

    def _save_end(self) -> None:
        """Save last.pkl, a checkpoint, and policy.pkl where no validation chose one."""
        self._save_policy("last.pkl", self.train_state, chosen=False)
        if self.best_score is None:
            self._save_policy("policy.pkl", self.train_state)
        self._save_checkpoint(self.train_state)

    def _save_policy(self, name: str, train_state: TrainState, chosen: bool = True) -> Path:
        score = self.best_score if chosen else None
        about = {**self.about, "updates": self.recorder.updates, "valid_reward_per_bar": score}
        self.trainer.agent.save_model(self.run_dir / name, train_state.agent_state, about)
        return self.run_dir / name

    def _save_checkpoint(self, train_state: TrainState, is_best: bool = False, goes_back: bool = True) -> None:
        """Save the train state unless that has just been done. The log reaches the disk before it.

        A divergence goes back to updates at which there is a validation, also where there is no market for one. The
        clock and signals save at others, at which a run that never stopped saves nothing. Where it has just gone back
        (`goes_back=False`), that file stays: after a kill the run may go on from before, with fewer halvings.
        """
        now = (self.recorder.updates, self.log.size)
        if now == self.saved:
            return
        self.log.sync()
        checkpoint = Checkpoint(
            train_state=devices.readable(train_state, self.mesh),
            updates=self.recorder.updates,
            episodes=self.recorder.episodes,
            seconds=self.recorder.seconds,
            metrics_bytes=self.log.size,
            metrics_sum=self.log.digest(),
            best=None if self.validation is None else self.validation.best,
            policy=self.policy,
            halvings=self.halvings,
            initial=self.initial,
            settings=self.trainer.identity,
            devices=self.trainer.devices,
            seeds_at_once=self.place.slots,
            goal=self.trainer.goal,
            **machine(),
        )
        goes_back &= self.trainer.on_divergence == "halve" and self.recorder.updates % self.trainer.eval_every == 0
        save_checkpoint(self.run_dir, checkpoint, is_best, goes_back)
        self.saved = now


def resume_hint(run_dir: Path) -> str:
    """Return how a training goes on."""
    return f"go on with: {resume_command(run_dir)}"
