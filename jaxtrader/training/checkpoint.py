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

    Raises FileExistsError where the folder asked for holds files already.
    """
    if run_dir is not None:
        path = Path(run_dir)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(f"{path} is not empty: give another run folder, or move this one away")
        path.mkdir(parents=True, exist_ok=True)
        return path
    number = 1
    while True:
        path = Path("runs") / f"{name}-{number:04d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def save(path: Path, carry: Any, updates: int, metrics_bytes: int) -> None:
    """Write all that training carries from one update to the next, and what it ran on.

    Args:
        path: the file.
        carry: agent state (parameters, optimiser, normaliser), environments, key and counters.
        updates: finished updates.
        metrics_bytes: length of metrics.jsonl at this point.
    """
    device = jax.devices()[0]
    files.save(
        path,
        "checkpoint",
        {
            "carry": serialization.to_state_dict(carry),
            "updates": updates,
            "metrics_bytes": metrics_bytes,
            "jax": jax.__version__,
            "device": device.device_kind,
            "cpus": os.cpu_count(),
        },
    )
