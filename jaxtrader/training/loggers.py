"""Loggers: callbacks that write records to TensorBoard, Weights & Biases, MLflow, or any object with `log`.

The packages are extras, and each is imported when its logger is made. The horizontal axis is environment steps.
"""

from __future__ import annotations

import math
import numbers
import secrets
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jaxtrader import files
from jaxtrader.training.callbacks import Logger, Record, TrainingRun
from jaxtrader.training.run_config import flat

if TYPE_CHECKING:
    from jaxtrader.training.train_result import TrainResult

MAX_PARAMETER = 500  # characters of a setting's value in MLflow, whose servers differ in what they take


class HasLog(Protocol):
    """What `Log` writes to, such as a run of Weights & Biases."""

    def log(self, data: dict[str, float], step: int) -> Any:
        """Log figures at a step."""


class _FigureLogger(Logger):
    """Logs the figures of each record. `_log` and `_end` say where."""

    def on_chunk(self, record: Record) -> None:
        """Log the figures of a record."""
        self._log(figures(record), int(record["steps"]))

    def on_end(self, result: TrainResult) -> None:
        """End the log."""
        self._end("KILLED" if result.interrupted else "FINISHED")

    def on_failure(self, error: BaseException) -> None:
        """End the log."""
        self._end("FAILED")

    def _log(self, numbers: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _end(self, status: str) -> None:
        """End the log with a status of MLflow's, unless it has ended already."""


class Log(_FigureLogger):
    """Gives the figures of each record to an object with `log(figures, step=steps)`.

    Args:
        target: the object, or a module such as `wandb` after `wandb.init`.

    Raises:
        ValueError: the target has no `log`.

    Example:
        >>> class Printed:
        ...     def log(self, figures, step):
        ...         print(step, figures["loss"])
        >>> callbacks = [jt.loggers.Log(Printed())]  # of a Trainer
    """

    def __init__(self, target: HasLog):
        if not callable(getattr(target, "log", None)):
            raise ValueError(f"{type(target).__name__} has no method log(figures, step=...); give an object that has")
        self.target = target

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self.target.log(numbers, step=step)


class TensorBoard(_FigureLogger):
    """Writes the figures of each record as scalars for TensorBoard.

    A run that is resumed replaces the scalars of the steps that it does again.

    Args:
        log_dir: the folder, which gets one folder a run. By default it is `tensorboard` in the run's own folder.

    Raises:
        ImportError: the package tensorboardX is not installed.

    Example:
        >>> callbacks = [jt.loggers.TensorBoard("logs")]  # of a Trainer; `tensorboard --logdir logs` shows them
    """

    def __init__(self, log_dir: str | PathLike[str] | None = None):
        self._package = _extra("tensorboardX", "tensorboard")
        self.log_dir = log_dir
        self._writer: Any = None

    def on_start(self, run: TrainingRun) -> None:
        """Begin to log, or go on."""
        self._end("KILLED")  # after a divergence, the earlier writer is still open
        folder = run.run_dir / "tensorboard" if self.log_dir is None else Path(self.log_dir) / run.label
        purge_step = run.steps + 1 if folder.exists() else None
        # Files are named by the second. A run that is resumed within the same second would overwrite its first file.
        suffix = f".{run.steps:015d}"
        self._writer = self._package.SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=suffix)

    def _log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def _end(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class WandB(_FigureLogger):
    """Logs each record to a run of Weights & Biases. A run that is resumed goes on in the same one.

    Args:
        init: arguments of `wandb.init`, such as `project="trading"`. `name`, `config`, `id` and `dir` have defaults.

    Raises:
        ImportError: the package wandb is not installed.

    Example:
        >>> callbacks = [jt.loggers.WandB(project="trading", mode="offline")]  # of a Trainer
    """

    def __init__(self, **init: Any):
        self._package = _extra("wandb", "wandb")
        self.init = init
        self._run: Any = None

    def on_start(self, run: TrainingRun) -> None:
        """Begin to log, or go on."""
        if self._run is not None:
            return  # it goes on after a divergence
        identity = _remembered(run.run_dir / "wandb.txt", partial(secrets.token_hex, 4))
        defaults = {"name": run.label, "config": dict(run.config), "id": identity, "dir": str(run.run_dir)}
        self._run = self._package.init(**{**defaults, "resume": "allow", **self.init})

    def _log(self, numbers: dict[str, float], step: int) -> None:
        self._run.log(numbers, step=step)

    def _end(self, status: str) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=0 if status == "FINISHED" else 1)


class MLflow(_FigureLogger):
    """Logs settings and records to a run of MLflow. A run that is resumed goes on in the same one.

    Args:
        experiment: the name of the experiment, which is made where there is none.
        tracking_uri: where MLflow keeps its runs, as in `MlflowClient`.

    Raises:
        ImportError: the package mlflow (or mlflow-skinny) is not installed.

    Example:
        >>> callbacks = [jt.loggers.MLflow("trading", tracking_uri="mlruns")]  # of a Trainer
    """

    def __init__(self, experiment: str = "jaxtrader", tracking_uri: str | None = None):
        self._package = _extra("mlflow", "mlflow")
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self._client: Any = None
        self._run = ""

    def on_start(self, run: TrainingRun) -> None:
        """Begin to log, or go on."""
        if self._client is not None:
            return  # it goes on after a divergence
        self._client = self._package.MlflowClient(tracking_uri=self.tracking_uri)
        path = run.run_dir / "mlflow.txt"
        is_new = not path.exists()
        self._run = _remembered(path, lambda: self._begin(run))
        if is_new:
            for name, value in flat(run.config).items():
                self._client.log_param(self._run, name, str(value)[:MAX_PARAMETER])
        else:
            self._client.update_run(self._run, status="RUNNING")

    def _begin(self, run: TrainingRun) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        return self._client.create_run(experiment, run_name=run.label).info.run_id

    def _log(self, numbers: dict[str, float], step: int) -> None:
        now, entity = int(1000 * time.time()), self._package.entities.Metric
        metrics = [entity(name, x, now, step) for name, x in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def _end(self, status: str) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.set_terminated(self._run, status=status)


def figures(record: Record) -> dict[str, float]:
    """Return the numbers of a record that are finite."""
    found = {name: float(x) for name, x in record.items() if isinstance(x, numbers.Real) and name != "steps"}
    return {name: x for name, x in found.items() if math.isfinite(x)}


def _extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f'{module} is not installed; run: pip install "jaxtrader[{extra}]"') from error


def _remembered(path: Path, make: Callable[[], str]) -> str:
    """Return the text of a file. Where there is no file, make the text and write it."""
    if path.is_file():
        return path.read_text().strip()
    text = make()
    files.write_text(path, text + "\n")
    return text
