"""Run folders, and checkpoints: the state from which a training could go on."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import jax
from flax import serialization

from jaxtrader import files
from jaxtrader.training.update import TrainState


def make_run_dir(run_dir: str | PathLike[str] | None, name: str) -> Path:
    """Create and return the folder of a run.

    Args:
        run_dir: the folder, new or empty. None takes the next free `runs/NAME-0001`.
        name: the NAME.

    Raises:
        FileExistsError: the folder holds files already, or is a file.
        OSError: the folder cannot be made.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if path.is_file():
            raise FileExistsError(f"{path} is a file: give another run folder")
        if path.exists() and any(path.iterdir()):
            raise FileExistsError(f"{path} is not empty: give another run folder, or move this one away")
        _make_folder(path, exist_ok=True)
        return path
    number = 1
    while True:
        path = Path("runs") / f"{name}-{number:04d}"
        try:
            _make_folder(path, exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path


def _make_folder(path: Path, exist_ok: bool) -> None:
    """Make a folder. Any error but FileExistsError becomes one sentence."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"the run folder {path} cannot be made ({reason}); give another, where you may write") from error


def save_checkpoint(
    path: Path, train_state: TrainState, updates: int, metrics_bytes: int, best_score: float | None
) -> None:
    """Write the train state, and on what it was computed.

    Args:
        path: the file.
        train_state: parameters, optimizer, normalisation, environments, random key and counters.
        updates: number of finished updates.
        metrics_bytes: length of metrics.jsonl at this point.
        best_score: the score of policy.pkl on validation. None without validation.
    """
    files.save(
        path,
        "checkpoint",
        {
            "train_state": serialization.to_state_dict(train_state),
            "updates": updates,
            "metrics_bytes": metrics_bytes,
            "best_score": best_score,
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "cpus": os.cpu_count(),
            "devices": len(train_state.updates.devices()),
        },
    )
