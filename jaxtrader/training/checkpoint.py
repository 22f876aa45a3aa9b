"""Checkpoints: all that decides how a training goes on, in files of which one is whole at any time."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxtrader import files
from jaxtrader.files import FileError
from jaxtrader.printable import shown
from jaxtrader.run_files import BACK, BEST, METRICS, NEWEST, PREVIOUS
from jaxtrader.schema import Array, Count, Natural, Range, SchemaError, misfit, parse
from jaxtrader.setting_checks import setting
from jaxtrader.training.identity import differences, machine
from jaxtrader.training.metrics_log import begins_with
from jaxtrader.training.update import TrainState

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer

KIND = "checkpoint"
VERSION = 2  # the version of the schema. Files of version 1 have the same fields but no version.
MAX_HALVINGS = 10  # how often the learning rate is halved after divergence
DAMAGED = ".damaged"  # the suffix of a file that was set aside


@dataclass(frozen=True)
class BestRecord:
    """The figures that are read from the record of the best validation. It has further ones of the agent."""

    FURTHER: ClassVar[bool] = True

    updates: Natural
    valid_reward_per_bar: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that decides how a training goes on. The file has these fields and its VERSION.

    Attributes:
        train_state: parameters, optimizer, normalisation, environments, random key and counters. It is a `TrainState`,
            or the same as nested dicts where it was read from a file.
        updates, episodes: the numbers of finished updates and episodes.
        seconds: time of training so far.
        metrics_bytes: length of the metrics file.
        metrics_sum: SHA-256 sum of those bytes.
        best: the record of the best validation. None where there is none.
        policy: the bytes of policy.pkl. None where no policy was chosen.
        halvings: how often the learning rate was halved after divergence.
        initial: how the policy describes itself that the training started from. None for fresh weights.
        settings: the settings and data of the run, as `identity` gives them.
        devices: number of devices.
        jax, device, cpus: the version of JAX, the kind of device and the number of cores, as `identity.machine` gives
            them.
        seeds_at_once: the number of seeds that one program trained side by side. Older files lack it.
        goal: the number of updates, or of episodes, at which training was to end. Older files lack it.
    """

    train_state: dict[str, Any] | TrainState
    updates: Natural
    episodes: Natural
    seconds: Annotated[float, Range(0, math.inf)]
    metrics_bytes: Natural
    metrics_sum: str
    best: dict[str, Any] | None
    policy: Annotated[np.ndarray, Array("uint8", 1)] | None
    halvings: Annotated[int, Range(0, MAX_HALVINGS)]
    initial: dict[str, Any] | None
    settings: dict[str, str]
    devices: Count
    jax: str
    device: str
    cpus: Count
    goal: Natural | None = None
    seeds_at_once: Count | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, is_best: bool, goes_back: bool = False) -> None:
    """Write a checkpoint, and keep the one before it.

    Args:
        folder: The folder of the run.
        checkpoint: The checkpoint. Its train state may be a `TrainState`.
        is_best: Whether its policy is the best so far. The checkpoint is then also kept until a better one comes.
        goes_back: Whether a divergence goes back to it. The checkpoint is then also kept until the next such one.

    Raises:
        FileError: a file cannot be written. The ones before it are still whole.
    """
    state = serialization.to_state_dict(checkpoint.train_state)
    content = vars(checkpoint) | {"version": VERSION, "train_state": state}
    data = files.encoded(KIND, content)
    if goes_back:  # first: a run that goes on from the newest must find the one that belongs to it
        files.write_bytes(folder / BACK, data)
    files.write_bytes(folder / NEWEST, data, keep=folder / PREVIOUS)
    if is_best:
        files.write_bytes(folder / BEST, data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises FileError where the file is missing, damaged, or of a newer version."""
    tree = files.load(path, KIND)
    version = tree.pop("version", 1) if isinstance(tree, dict) else 1
    if type(version) is int and version > VERSION:
        raise FileError(
            f"{path} has checkpoint version {version}, and this jaxtrader reads up to {VERSION}; install a newer "
            "jaxtrader"
        )
    try:
        if type(version) is not int or version < 1:
            raise SchemaError(f"its version is {shown(version)}")
        checkpoint: Checkpoint = parse(tree, Checkpoint)
        if checkpoint.best is not None:
            parse(checkpoint.best, BestRecord, "best")
        for name in ("updates", "episodes"):  # where one is missing, `restore` says so
            count, of_state = getattr(checkpoint, name), cast(dict[str, Any], checkpoint.train_state).get(name)
            if isinstance(of_state, np.ndarray) and of_state.shape == () and of_state != count:
                raise SchemaError(f"{name} is {count}, and its train state has {shown(of_state)}")
    except SchemaError as error:
        raise FileError(f"{path} is damaged ({error}); use an earlier one") from error
    return checkpoint


def find_checkpoint(folder: Path, settings: Mapping[str, str], set_aside: bool) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint from which a run can go on, and what was wrong with newer ones.

    A checkpoint fits a log that begins with the bytes that the log had then. Where no checkpoint fits the log, the
    newest is returned, and its log begins anew: a training is worth more than its log.

    Args:
        folder: The folder of the run.
        settings: the settings and data of the training, as `identity` gives them.
        set_aside: whether damaged files are renamed or copied, so that none takes the place of a whole one.

    Returns:
        The checkpoint, None where the run has none, and one sentence for each file that cannot be used.

    Raises:
        ValueError: the run had other settings or data.
        FileError: there are checkpoints, and none can be read. The message names the newest.
    """
    log = folder / METRICS

    def accept(path: Path, checkpoint: Checkpoint) -> None:
        check_settings(checkpoint, settings, folder)
        if not begins_with(log, checkpoint.metrics_bytes, checkpoint.metrics_sum):
            raise FileError(f"{log} does not begin with the {checkpoint.metrics_bytes:,} bytes of {path.name}")

    try:
        return _newest(folder, accept, set_aside)
    except FileError:
        pass
    checkpoint, notes = _newest(folder, lambda _, found: check_settings(found, settings, folder), set_aside)
    assert checkpoint is not None
    if set_aside and log.exists() and log.stat().st_size:
        files.write_bytes(log.with_name(log.name + DAMAGED), log.read_bytes())
    notes.append(f"{log} is damaged; its records begin anew, and the old file becomes {log.name}{DAMAGED}")
    return dataclasses.replace(checkpoint, metrics_bytes=0, metrics_sum=""), notes


def checkpoint_to_go_back_to(folder: Path) -> Checkpoint | None:
    """Return the checkpoint that a divergence goes back to.

    None where a run has none, or where it is damaged or does not fit the log.
    """
    try:
        checkpoint = read_checkpoint(folder / BACK)
        return checkpoint if begins_with(folder / METRICS, checkpoint.metrics_bytes, checkpoint.metrics_sum) else None
    except FileError:
        return None


def _newest(
    folder: Path, accept: Callable[[Path, Checkpoint], None], set_aside: bool
) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that is whole and that `accept` does not refuse by a FileError, see above."""
    errors: list[FileError] = []
    damaged: list[Path] = []
    for path in (folder / name for name in (NEWEST, PREVIOUS, BACK, BEST)):
        if not path.exists():
            continue
        try:
            damaged.append(path)
            checkpoint = read_checkpoint(path)
            damaged.pop()
            accept(path, checkpoint)
        except FileError as error:
            errors.append(error)
            continue
        for bad in damaged if set_aside else ():
            _set_aside(bad)
        return checkpoint, [f"{error}; going back to the checkpoint before it" for error in errors]
    if errors:
        raise errors[0]
    return None, []


def _set_aside(path: Path) -> None:
    try:
        path.replace(path.with_name(path.name + DAMAGED))
    except OSError as error:
        raise FileError(f"cannot rename {path}, which is damaged: {error.strerror or error}; move it away") from error


def check_settings(checkpoint: Checkpoint, settings: Mapping[str, str], folder: Path) -> None:
    """Raise ValueError where a training has other settings or data than the run that it would continue."""
    changed = differences(checkpoint.settings, settings)
    if changed:
        raise ValueError(
            f"the run {folder} cannot be continued: {'; '.join(changed)}; give what the run had, or begin another run"
        )


def restore(path: Path, checkpoint: Checkpoint, template: TrainState) -> TrainState:
    """Return a checkpoint's train state as a `TrainState` of the same structure as `template`.

    Raises FileError where an array is missing, or has another shape or type.
    """
    if (difference := misfit(checkpoint.train_state, serialization.to_state_dict(template))) is not None:
        raise FileError(f"{path} does not fit the training: its train_state{difference}")
    try:
        state = serialization.from_state_dict(template, cast(dict[str, Any], checkpoint.train_state))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{path} does not fit the training: {shown(error, 200)}") from error
    # Leaves must be JAX arrays: a program is traced anew for NumPy arrays.
    return jax.tree.map(jnp.asarray, state)


def warn_of_another_machine(checkpoint: Checkpoint, devices: int, seeds_at_once: int) -> None:
    """Warn where a run continues on another machine or number of devices, or with other seeds at once."""
    names = {"jax": "JAX", "device": "the device", "cpus": "the number of cores"}
    here = {**machine(), "devices": devices, "seeds_at_once": seeds_at_once}
    changes = ((names.get(name) or setting(name), getattr(checkpoint, name), now) for name, now in here.items())
    changed = [f"{name} was {before} and is {now}" for name, before, now in changes if before not in (now, None)]
    if changed:
        warnings.warn(f"{', '.join(changed)}: the results may differ in their last digits", stacklevel=4)


def warn_of_another_length(checkpoint: Checkpoint, trainer: Trainer, agent: Any, agent_state: Any) -> None:
    """Warn where a schedule of the agent jumps, because the training has another length than before."""
    if checkpoint.goal is None or checkpoint.goal == trainer.goal:
        return
    done = checkpoint.updates if trainer.unit == "steps" else checkpoint.episodes
    shares = [min(done / max(goal, 1), 1.0) for goal in (checkpoint.goal, trainer.goal)]
    scheduled = [agent.anneal(agent_state, jnp.float32(share)) for share in shares]
    pairs = zip(*map(jax.tree.leaves, scheduled), strict=True)
    if not all(np.array_equal(one, other, equal_nan=True) for one, other in pairs):
        name = "total_steps" if trainer.unit == "steps" else "num_episodes"
        warnings.warn(
            f"{setting(name)} is another one than before: schedules of the agent, such as the learning rate's, run "
            f"over the new length, and go on at {shares[1]:.0%} of it instead of {shares[0]:.0%}",
            stacklevel=4,
        )
