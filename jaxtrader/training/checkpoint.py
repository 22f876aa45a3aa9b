"""Run folders and checkpoints: where a run's files go, and the state from which a run could go on."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any

import jax
from flax import serialization

from jaxtrader import files


def make_run_dir(run_dir: str | PathLike[str] | None, name: str) -> Path:
    """Create and return the folder of a run: the one asked for, else the next free `runs/NAME-0001`.

    Raises FileExistsError where the folder asked for holds files already, OSError where it cannot be made.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if path.is_file():
            raise FileExistsError(f"{path} is a file: give another run folder")
        if path.exists() and any(path.iterdir()):
            raise FileExistsError(f"{path} is not empty: give another run folder, or move this one away")
        _make(path, exist_ok=True)
        return path
    number = 1
    while True:
        path = Path("runs") / f"{name}-{number:04d}"
        try:
            _make(path, exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path


def _make(path: Path, exist_ok: bool) -> None:
    """Make a folder; any fault but its being there already comes as one sentence."""
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"the run folder {path} cannot be made ({reason}); give another, where you may write") from error


def save(path: Path, carry: Any, updates: int, metrics_bytes: int, best: float | None) -> None:
    """Write all that training carries from one update to the next, and what it ran on.

    Args:
        path: the file.
        carry: agent state (parameters, optimiser, normaliser), environments, key and counters.
        updates: finished updates.
        metrics_bytes: length of metrics.jsonl at this point.
        best: the score of policy.pkl on validation, None without one.
    """
    device = jax.devices()[0]
    files.save(
        path,
        "checkpoint",
        {
            "carry": serialization.to_state_dict(carry),
            "updates": updates,
            "metrics_bytes": metrics_bytes,
            "best": best,
            "jax": jax.__version__,
            "device": device.device_kind,
            "cpus": os.cpu_count(),
            "devices": len(jax.tree.leaves(carry)[0].devices()),
        },
    )
