"""The loop of one training: it dispatches chunks of updates, logs on the host, validates, and saves.

The host dispatches chunk n, then fetches and logs chunk n-1, so that the device never waits for the log. `dispatch.py`
has what the device does, and `saving.py` what is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxtrader import devices, hosts
from jaxtrader.agents.policy import Policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.callbacks import CallbackList, TrainingRun
from jaxtrader.training.checkpoint import (
    MAX_HALVINGS,
    Checkpoint,
    checkpoint_to_go_back_to,
    warn_of_another_length,
    warn_of_another_machine,
)
from jaxtrader.training.dispatch import Chunk, ChunkReport, Copy, Request, Snapshot, Start, Steps
from jaxtrader.training.divergence import Rejected, advice, check_accepted, lower_rate_may_help, what_was_rejected
from jaxtrader.training.metrics_log import JsonlLogger
from jaxtrader.training.progress import MemberProgress, Progress
from jaxtrader.training.run_config import write_config
from jaxtrader.training.run_folder import resume_command
from jaxtrader.training.saving import Saver
from jaxtrader.training.train_result import TrainingDiverged, TrainResult
from jaxtrader.training.train_settings import NO_LIMIT
from jaxtrader.training.update import TrainState, begin_rollouts, init_agent
from jaxtrader.training.validation import Validation
from jaxtrader.training.warm_start import origin

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer

CHECKPOINT_SECONDS = 60.0  # between two checkpoints where no validation comes before


class TrainingLoop:
    """One call of `Trainer.train`, of one seed.

    Args:
        trainer: The settings of the training.
        run_dir: The folder of the run.
        log: The logger that writes the run's records.
        progress: The display in the terminal.
        stop: The event that asks the training to save and end.
        checkpoint: The checkpoint that the training goes on from. None begins a new training.
        seeds_at_once: The number of seeds that one program trains side by side.

    Attributes:
        agent: The learner, with float32 arrays as its settings.
        params: The parameters of the environment, prepared by the agent.
        limits, rollouts, mesh: The arguments of `run_chunk`.
        validation: The validation. None where there is none.
    """

    params: Any

    def __init__(
        self,
        trainer: Trainer,
        run_dir: Path,
        log: JsonlLogger,
        progress: Progress | MemberProgress,
        stop: threading.Event,
        checkpoint: Checkpoint | None = None,
        seeds_at_once: int = 1,
    ) -> None:
        self.trainer, self.run_dir, self.progress, self.stop = trainer, run_dir, progress, stop
        self.checkpoint = checkpoint
        self.agent: Any = trainer.agent_arrays
        self.limits, self.rollouts, self.mesh = trainer.limits, trainer.rollouts, devices.make_mesh(trainer.devices)
        self.validation: Validation | None = None
        self.callbacks = CallbackList(trainer.callbacks)
        self.saver = Saver(trainer, run_dir, log, seeds_at_once)
        self.snapshot_at = time.monotonic()
        self.agreed = self._wishes  # what all processes agree on

    def steps(self) -> Steps:
        """Train to the end, and tell the callbacks. It yields the requests that `dispatch.py` answers."""
        try:
            yield Start(self._begin())
            while True:
                try:
                    yield from self._train()
                except Rejected as rejected:
                    yield Start(self._after_rejection(rejected.reasons, (yield Copy(validate=False))))
                else:
                    break
            result = yield from self._finish()
        except BaseException as error:
            self.callbacks.fail(error)
            raise
        self.callbacks.end(result)
        if result.interrupted:
            self.progress.print(f"saved; go on with: {resume_command(self.run_dir)}")
        return result

    def _train(self) -> Generator[Request, Any, None]:
        """Train until the end or a signal, with one chunk on the device while the one before is logged.

        Several processes agree on when to stop and save: each chunk carries their wishes, which are known when it is
        fetched. A process alone does what it wishes at once.
        """
        recorder, end = self.saver.recorder, self.trainer.total_updates or NO_LIMIT
        self.callbacks.start(TrainingRun(self.run_dir, self.config, tuple(self.saver.history)))
        dispatched = recorder.updates
        pending: deque[tuple[ChunkReport, Callable[[], dict[str, bool]], Snapshot | None]] = deque()
        self.agreed = hosts.ask(self._wishes, self.mesh)
        finished = self._is_complete
        while not finished:
            count, is_eval = self._next_chunk(dispatched, end)
            compiles, began = recorder.compile_seconds is None, time.perf_counter()
            if compiles:
                self.progress.wait("compiling the training step, or loading it from an earlier run")
            report = yield Chunk(dispatched, count)
            if compiles:
                recorder.compile_seconds = time.perf_counter() - began
            dispatched += count
            asked = hosts.ask(self._wishes, self.mesh)
            snapshot = None
            if is_eval or self.agreed()["save"]:
                snapshot = yield Copy(is_eval)
                self.snapshot_at = time.monotonic()
            pending.append((report, asked, snapshot))
            finished = dispatched >= end or self.agreed()["stop"]
            while len(pending) > (0 if finished else 1):
                report, asked, snapshot = pending.popleft()
                self._fetch(report, snapshot)
                self.agreed = asked
                if self.agreed()["end"] and snapshot is not None:
                    # A run that is resumed from here stops here too, so the chunk on the device does not count.
                    yield Start(snapshot()[0])
                    return
                finished |= self._is_complete

    def _next_chunk(self, dispatched: int, end: int) -> tuple[int, bool]:
        """Return how many updates the next chunk has, and whether a validation follows it.

        Both lie at multiples of their lengths, also after a run was resumed.
        """
        since_eval = dispatched % self.trainer.eval_every
        until_eval = self.trainer.eval_every - since_eval
        until_chunk = self.trainer.updates_per_chunk - since_eval % self.trainer.updates_per_chunk
        count = min(until_chunk, until_eval, end - dispatched)
        return count, count == until_eval or dispatched + count == end

    def _fetch(self, report: ChunkReport, snapshot: Snapshot | None) -> None:
        """Wait for a chunk, log it and save its snapshot. Raises Rejected where its last update was rejected."""
        reported = report()
        record, is_best = self.saver.recorder.record(reported), False
        if record is not None:
            if snapshot is not None:
                is_best = self._choose(snapshot, record)
            self._write(record)
        check_accepted(reported["bad"])
        if snapshot is not None and record is not None:
            self.saver.save_checkpoint(snapshot()[0], is_best)

    def _choose(self, snapshot: Snapshot, record: dict[str, Any]) -> bool:
        """Add a validation's figures to the record, and save the policy where it is the best so far."""
        train_state, scores = snapshot()
        if self.validation is None or not scores:
            return False
        is_best = self.validation.choose(scores, record, self.saver.best)
        if is_best:
            self.saver.save_best(record, train_state.agent_state)
        elif not math.isfinite(record["valid_reward_per_bar"]):
            self.progress.print(
                f"note: the validation after update {record['updates']} is not finite and selects nothing"
            )
        return is_best

    def _write(self, record: dict[str, Any]) -> None:
        self.saver.write(record)
        self.callbacks.record(record)
        self.progress.update(record[self.trainer.unit], record)

    def _finish(self) -> Steps:
        """Validate at the end where the last record has no validation, and write the files of the end.

        An interrupted training is not validated: it may go on, and then be as if it had never stopped.
        """
        saver, recorder = self.saver, self.saver.recorder
        last = saver.history[-1] if saver.history else {"updates": 0, "steps": 0, "episodes": 0}
        validate = self._is_complete and self.validation is not None and "valid_reward_per_bar" not in last
        snapshot: Snapshot = yield Copy(validate)
        train_state, _ = snapshot()
        if validate:
            record = {**last, "seconds": recorder.seconds}
            is_best = self._choose(snapshot, record)
            self._write(record)
            saver.save_checkpoint(train_state, is_best)
        saver.save_end(train_state)
        return TrainResult(
            state=jax.tree.map(jnp.asarray, devices.to_first(train_state.agent_state, self.mesh)),
            agent=self.trainer.agent,
            env=self.trainer.env,
            history=saver.history,
            updates=recorder.updates,
            steps=recorder.steps,
            episodes=recorder.episodes,
            seconds=recorder.seconds,
            best=saver.best,
            run_dir=self.run_dir,
            interrupted=not self._is_complete,
        )

    @property
    def _is_complete(self) -> bool:
        """Whether all updates or episodes are finished, or a callback asked to stop."""
        updates, episodes = self.trainer.total_updates, self.trainer.num_episodes
        return (
            self.agreed()["end"]
            or (updates is not None and self.saver.recorder.updates >= updates)
            or (episodes is not None and self.saver.recorder.episodes >= episodes)
        )

    def _wishes(self) -> dict[str, bool]:
        """Return what this process wishes: to stop after a signal, to save when it is time, to end for a callback."""
        is_due = time.monotonic() - self.snapshot_at >= CHECKPOINT_SECONDS
        return {"stop": self.stop.is_set(), "save": is_due and hosts.is_first(), "end": self.callbacks.stops}

    def _begin(self) -> TrainState:
        """Make or restore the first train state, the prepared parameters and the validation."""
        trainer, checkpoint, saver = self.trainer, self.checkpoint, self.saver
        earlier = trainer.earlier if checkpoint is None else None
        raw_params = trainer.raw_params
        train_state, self.params = first_state(trainer, self.agent, raw_params, earlier)
        self.template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), train_state)
        if checkpoint is None:
            saver.log.cut(0)
            saver.initial = None if earlier is None else origin(earlier)
        else:
            warn_of_another_machine(checkpoint, trainer.devices, saver.seeds_at_once)
            train_state = self._restore(checkpoint)
            warn_of_another_length(checkpoint, trainer, self.agent, train_state.agent_state)
            _, self.params = self.agent.prepare(train_state.agent_state, raw_params)  # with the scales of the run
        if trainer.valid is not None:
            assert isinstance(trainer.env, TradingEnv)
            self.validation = Validation.prepare(trainer.valid, trainer.env, self.agent, train_state.agent_state)
        if isinstance(trainer.env, TradingEnv) and (short := trainer.env.symbols_without_room(trainer.rollout_length)):
            self.progress.print(
                f"note: {', '.join(short)}: too few bars for a rollout of {trainer.rollout_length}; not trained on"
            )
        self.config = write_config(self.run_dir, trainer, saver.about)
        if trainer.on_divergence == "halve":
            saver.save_checkpoint(train_state)  # to which the first divergence goes back
        return train_state

    def _restore(self, checkpoint: Checkpoint) -> TrainState:
        """Go back to a checkpoint, and return its train state. A learning rate that was halved since stays halved."""
        halvings = checkpoint.halvings - self.saver.halvings
        train_state = self.saver.restore(checkpoint, self.template)
        for _ in range(halvings):
            self.agent, _ = self.agent.halve_rate(train_state.agent_state)
        self.snapshot_at = time.monotonic()
        return train_state

    def _after_rejection(self, reasons: list[str], snapshot: Snapshot) -> TrainState:
        """Go back to the last validation with half the learning rate, or save and raise TrainingDiverged."""
        trainer, saver = self.trainer, self.saver
        message = what_was_rejected(reasons, saver.recorder.updates + 1, trainer.env)
        if trainer.on_divergence == "stop" or saver.halvings >= MAX_HALVINGS or not lower_rate_may_help(reasons):
            # The state is the one before the rejected update. A training that goes on from it may try again.
            train_state, _ = snapshot()
            saver.save_end(train_state.replace(healthy=jnp.ones((), bool)))
            untrained = ". No update was made: the saved policy is untrained" if not saver.recorder.updates else ""
            raise TrainingDiverged(
                f"{message}. The state before it is saved in {self.run_dir}{untrained}. "
                f"{advice(reasons, saver.halvings, trainer.env)}."
            )
        self.progress.print(f"note: {message}")
        checkpoint = checkpoint_to_go_back_to(self.run_dir)
        if checkpoint is None:  # the run began with "stop", or the file is damaged
            checkpoint = trainer.newest_checkpoint(self.run_dir, set_aside=True)
            self.progress.print("note: no checkpoint of a validation is there to go back to, so it is the newest")
        assert checkpoint is not None  # the first is written before the first update
        train_state = self._restore(replace(checkpoint, seconds=saver.recorder.seconds))
        self.agent, agent_state = self.agent.halve_rate(train_state.agent_state)
        for _ in range(saver.halvings - checkpoint.halvings):  # the run went back to this checkpoint before
            _, agent_state = self.agent.halve_rate(agent_state)
        saver.halvings += 1
        train_state = train_state.replace(agent_state=agent_state)
        saver.save_checkpoint(train_state, went_back=True)
        self.progress.print(
            f"note: back to update {checkpoint.updates}, with the learning rate halved ({saver.halvings} of at most "
            f"{MAX_HALVINGS} times)"
        )
        return train_state


def first_state(trainer: Trainer, agent: Any, raw_params: Any, earlier: Policy | None) -> tuple[TrainState, Any]:
    """Make a training's first train state, and the parameters of its environment as the agent prepares them.

    Args:
        trainer: The settings of the training.
        agent: The agent, as `Trainer.agent_arrays` gives it.
        raw_params: The parameters of the environment, as `Trainer.raw_params` gives them.
        earlier: the policy to start from. None: from new weights.
    """
    init_key, begin_key, key = jax.random.split(jax.random.key(trainer.seed), 3)
    agent_state = init_agent(agent, init_key, raw_params, env=trainer.env)
    if earlier is not None:
        agent_state = agent.start_from(agent_state, earlier.state, keep_scale=not trainer.refit_normalizer)
    agent_state, params = agent.prepare(agent_state, raw_params)
    env_states = begin_rollouts(begin_key, params, rollouts=trainer.rollouts)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(agent_state, env_states, key, zero, zero, jnp.ones((), bool)), params
