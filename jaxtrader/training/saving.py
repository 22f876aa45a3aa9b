"""What a training has so far, on the host, and the files that keep it: its log, its policies and its checkpoints."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader import files
from jaxtrader.run_files import LAST, NEWEST, POLICY
from jaxtrader.training.checkpoint import Checkpoint, restore, save_checkpoint
from jaxtrader.training.identity import machine
from jaxtrader.training.metrics_log import JsonlLogger
from jaxtrader.training.records import Recorder
from jaxtrader.training.run_config import describe
from jaxtrader.training.update import TrainState

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer


class Saver:
    """Keeps what a training of one seed has so far.

    Args:
        trainer: The settings of the training.
        run_dir: The folder of the run.
        log: The logger that writes the run's records.
        seeds_at_once: The number of seeds that one program trains side by side.

    Attributes:
        history: The records so far.
        recorder: The counts of updates, episodes and seconds.
        best: The record of the best validation. None where no policy has been chosen.
        halvings: How often the learning rate was halved.
        initial: How the policy describes itself that the training started from. None for fresh weights.
    """

    def __init__(self, trainer: Trainer, run_dir: Path, log: JsonlLogger, seeds_at_once: int) -> None:
        self.trainer, self.run_dir, self.log, self.seeds_at_once = trainer, run_dir, log, seeds_at_once
        self.history: list[dict[str, Any]] = []
        self.recorder = Recorder(trainer.steps_per_update)
        self.best: dict[str, Any] | None = None
        self.halvings = 0
        self.initial: dict[str, Any] | None = None
        self._policy: np.ndarray | None = None  # the bytes of policy.pkl where validation chose one
        self._saved: tuple[int, int] | None = None  # updates and length of the log at the last checkpoint

    @cached_property
    def about(self) -> dict[str, Any]:
        """The description of the training that the policy files hold."""
        trainer = self.trainer
        further = trainer.about if self.initial is None else {**trainer.about, "init_from": self.initial}
        return describe(trainer, further)

    def restore(self, checkpoint: Checkpoint, template: TrainState) -> TrainState:
        """Go back to a checkpoint: counts, log and best policy. Return its train state, structured as `template`."""
        train_state = restore(self.run_dir / NEWEST, checkpoint, template)
        self.history = self.log.cut(checkpoint.metrics_bytes)
        self.recorder.go_on_from(checkpoint.updates, checkpoint.episodes, checkpoint.seconds)
        self.halvings = max(self.halvings, checkpoint.halvings)
        self.best, self.initial, self._policy = checkpoint.best, checkpoint.initial, checkpoint.policy
        if self._policy is not None:
            files.write_bytes(self.run_dir / POLICY, self._policy.tobytes())
        is_on_disk = checkpoint.metrics_sum == self.log.digest()
        self._saved = (checkpoint.updates, checkpoint.metrics_bytes) if is_on_disk else None
        return train_state

    def save_best(self, record: dict[str, Any], agent_state: Any) -> None:
        """Save the policy that a validation has chosen, with its record."""
        self.best = record
        path = self._save_policy(POLICY, agent_state, record["valid_reward_per_bar"])
        # A custom agent may save elsewhere.
        self._policy = np.fromfile(path, np.uint8) if path.is_file() else None

    def write(self, record: dict[str, Any]) -> None:
        """Add a record to the log."""
        self.history.append(record)
        self.log.write(record)

    def save_end(self, train_state: TrainState) -> None:
        """Save last.pkl, a checkpoint, and policy.pkl where no validation chose one."""
        self._save_policy(LAST, train_state.agent_state, None)
        if self.best is None:
            self._save_policy(POLICY, train_state.agent_state, None)
        self.save_checkpoint(train_state)

    def save_checkpoint(self, train_state: TrainState, is_best: bool = False, went_back: bool = False) -> None:
        """Save the train state unless that has just been done. The log reaches the disk before it.

        A divergence goes back to a multiple of `eval_every`, also where there is no validation. Checkpoints that the
        clock or a signal asks for lie elsewhere, and no divergence goes back to them: a run that never stopped has
        none. Right after going back, the file to go back to stays as it is. A run that is killed then may have fewer
        halvings when it is resumed. Newer checkpoints no longer fit the log.
        """
        updates = self.recorder.updates
        now = (updates, self.log.size)
        if now == self._saved and not went_back:
            return
        self.log.sync()
        checkpoint = Checkpoint(
            train_state=train_state,
            updates=updates,
            episodes=self.recorder.episodes,
            seconds=self.recorder.seconds,
            metrics_bytes=self.log.size,
            metrics_sum=self.log.digest(),
            best=self.best,
            policy=self._policy,
            halvings=self.halvings,
            initial=self.initial,
            settings=self.trainer.identity,
            devices=self.trainer.devices,
            seeds_at_once=self.seeds_at_once,
            goal=self.trainer.goal,
            **machine(),
        )
        is_fixed = self.trainer.on_divergence == "halve" and updates % self.trainer.eval_every == 0
        save_checkpoint(self.run_dir, checkpoint, is_best, is_fixed and not went_back)
        self._saved = now

    def _save_policy(self, name: str, agent_state: Any, score: float | None) -> Path:
        about = {**self.about, "updates": self.recorder.updates, "valid_reward_per_bar": score}
        self.trainer.agent.save_model(self.run_dir / name, agent_state, about)
        return self.run_dir / name
