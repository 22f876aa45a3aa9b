"""Callbacks: what a user's code does on the host while a training runs, such as to log it or to stop it early."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrader.setting_checks import check_number, check_whole, setting

if TYPE_CHECKING:
    from jaxtrader.training.train_result import TrainResult

Record = Mapping[str, Any]


@dataclass(frozen=True)
class TrainingRun:
    """A training that begins or goes on.

    Attributes:
        run_dir: the folder of the run.
        config: the content of the run's config.json.
        history: the records so far. A new run has none.
    """

    run_dir: Path
    config: Mapping[str, Any]
    history: Sequence[Record]

    @property
    def label(self) -> str:
        """The name of the folder. A run of several seeds adds that of its own: "stocks-0001-seed-2"."""
        name = self.run_dir.name
        return f"{self.run_dir.absolute().parent.name}-{name}" if name.startswith("seed-") else name

    @property
    def steps(self) -> int:
        """Environment steps of the records so far."""
        return int(self.history[-1]["steps"]) if self.history else 0


class Callback:
    """Methods that a training calls on the host while it runs. Override those that you need.

    A method that returns True ends the training as if it were complete: policy and checkpoint are saved. After a
    validation the training ends with the policy that was validated. Else the chunk on the device is finished first.

    With several seeds each member begins and ends by itself. An exception of a callback also ends the training. It is
    raised when everything is saved.

    Example:
        >>> class StopAtGoal(jt.Callback):
        ...     def on_validation(self, record):
        ...         return record["valid_reward_per_bar"] > 0.001
    """

    def on_start(self, run: TrainingRun) -> bool | None:
        """The training begins, is resumed, or went back to a checkpoint after a divergence.

        What the callback remembers must follow from `run.history`, so that a resumed run equals one that never stopped.
        """

    def on_chunk(self, record: Record) -> bool | None:
        """A chunk of updates is finished. `record` is the line of metrics.jsonl, and can't be changed."""

    def on_validation(self, record: Record) -> bool | None:
        """A policy was validated. `record` is that of its chunk, with `valid_reward_per_bar` and `valid_best`."""

    def on_end(self, result: TrainResult) -> None:
        """The training is over, and everything is saved."""

    def on_failure(self, error: BaseException) -> None:
        """The training failed, such as by TrainingDiverged. What could be saved is saved."""


class EarlyStopping(Callback):
    """Ends a training whose validation does not get better. The best policy is kept in any case.

    Args:
        patience: the number of validations in a row that may be no better than the best before them.
        min_delta: the smallest gain in reward a bar that counts as better.

    Raises:
        ValueError: patience is less than 1, or min_delta is negative.

    Example:
        >>> jt.EarlyStopping(patience=5, min_delta=1e-6).patience
        5
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.0):
        check_whole("patience", patience, unit="validations")
        check_number("min_delta", min_delta)
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"{setting('min_delta', min_delta)} must be a finite number of at least 0")
        self.patience, self.min_delta = patience, min_delta
        self._best, self._waited = -math.inf, 0

    def on_start(self, run: TrainingRun) -> bool:
        """Count the validations so far."""
        self._best, self._waited = -math.inf, 0
        for record in run.history:
            if "valid_reward_per_bar" in record:
                self.on_validation(record)
        return self._waited >= self.patience

    def on_validation(self, record: Record) -> bool:
        """Count a validation."""
        score = record["valid_reward_per_bar"]
        if score > self._best + self.min_delta:  # false for NaN, which is no better
            self._best, self._waited = score, 0
        else:
            self._waited += 1
        return self._waited >= self.patience


class Logger(Callback):
    """A callback that writes records elsewhere. Where that fails, training goes on without it, and warns."""


class CallbackList:
    """The callbacks of one training.

    Args:
        callbacks: called in this order.

    Attributes:
        stops: whether one of them asked to end the training.
        error: the first exception of one that is no `Logger`.
    """

    def __init__(self, callbacks: Sequence[Callback]):
        self._callbacks = list(callbacks)
        self.stops = False
        self.error: Exception | None = None

    def start(self, run: TrainingRun) -> None:
        """Tell all that the training begins or goes on."""
        self.stops = self.error is not None
        self._call("on_start", run)

    def record(self, record: dict[str, Any]) -> None:
        """Tell all of a record, and of its validation where it has one."""
        shown = MappingProxyType(record)
        self._call("on_chunk", shown)
        if "valid_reward_per_bar" in record:
            self._call("on_validation", shown)

    def end(self, result: TrainResult) -> None:
        """Tell all of the result, and raise the first exception of one of them."""
        self._call("on_end", result)
        if self.error is not None:
            raise self.error

    def fail(self, error: BaseException) -> None:
        """Tell all that the training failed."""
        self._call("on_failure", error)

    def _call(self, event: str, subject: Any) -> None:
        for callback in list(self._callbacks):
            try:
                answer = getattr(callback, event)(subject)
                # A comparison with a number of NumPy's gives a bool of its own.
                self.stops |= isinstance(answer, bool | np.bool_) and bool(answer)
            except Exception as error:
                name = type(callback).__name__
                self._callbacks.remove(callback)
                if isinstance(callback, Logger):
                    warnings.warn(f"{name} failed and logs no more ({error!r}); the training goes on", stacklevel=4)
                    continue
                error.add_note(f"raised in {name}.{event}; the training is saved")
                self.error, self.stops = self.error or error, True


def check_callbacks(callbacks: Sequence[Any], has_validation: bool) -> None:
    """Raise ValueError where one of them is no Callback, or waits for validations in vain."""
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ValueError(f"callbacks is one {type(callbacks).__name__}; give a list of callbacks")
    for callback in callbacks:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise ValueError(f"callback {callback.__name__} is a class; give an object: {callback.__name__}()")
        if not isinstance(callback, Callback):
            has_log = callable(getattr(callback, "log", None))
            way_out = "wrap it: jt.loggers.Log(it)" if has_log else "derive it from jt.Callback"
            raise ValueError(f"callback {type(callback).__name__} is no Callback; {way_out}")
        if isinstance(callback, EarlyStopping) and not has_validation:
            raise ValueError(
                "EarlyStopping (`patience`) needs validations, of which there are none; give `valid`, or leave it out"
            )
