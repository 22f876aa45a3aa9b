"""A training in a folder of its own, and the dry run that estimates how long it would take."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from rich.console import Console

import jaxtrader as jt
from jaxtrader import files, hosts
from jaxtrader.cli import config_file, distributed, inputs, phrases
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import INTERRUPTED, OK, BadInput, spelt
from jaxtrader.evaluation import tables
from jaxtrader.run_files import RESULT
from jaxtrader.training import interrupt
from jaxtrader.training.run_folder import make_run_dir, only_writer, resume_command

TIMED_UPDATES = 2  # a chunk of the dry run's measurement


def train_in_folder(
    trainer: jt.Trainer, values: Values, name: str, console: Console, tell: Callable[[jt.TrainResult], None]
) -> int:
    """Train in a new folder, or go on in that of a run, and return the exit code.

    The folder has the settings of the run from the beginning. Of several processes the first one writes it.

    Args:
        trainer: The trainer of the run.
        values: The settings of the run.
        name: The name of a new folder, before its number.
        console: The console that shows the speed.
        tell: The function that tests the policy, and prints and writes the result.
    """
    resume = values["resume"] is not None
    if hosts.is_first():
        with inputs.checked():
            if resume:
                trainer.check_resume()
            else:
                trainer.run_dir = make_run_dir(values["run_dir"], name)
            folder = Path(trainer.run_dir or "")
            with only_writer(folder):
                config_file.write(folder, "train", values)
        if values["distributed"]:
            distributed.name_folder(folder)
    try:
        with interrupt.ending_the_process():
            result = trainer.train(resume=True) if resume else trainer.train()
    except hosts.UnlikeError as error:
        raise BadInput(str(error)) from error
    if not values["quiet"]:
        console.print(phrases.speed(result))
        console.print()
    if hosts.is_first():
        with saved_in(result.run_dir):
            tell(result)
    return INTERRUPTED if result.interrupted else OK


@contextlib.contextmanager
def saved_in(folder: Path) -> Generator[None]:
    """Say how to go on where Ctrl-C or another signal ends what follows a training."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"the training is saved in {folder}; go on with: {resume_command(folder)}", file=sys.stderr)
        raise


def write_record(record: dict[str, Any], folder: str | Path) -> None:
    """Write what was printed of a run, as JSON."""
    files.write_text(Path(folder) / RESULT, json.dumps(record, indent=2, allow_nan=False) + "\n")


def next_step(result: jt.TrainResult, otherwise: str) -> str:
    """The command to type next: the one that resumes a training that was interrupted."""
    return resume_command(result.run_dir) if result.interrupted else otherwise


def dry_run(values: Values, trainer: jt.Trainer, console: Console) -> int:
    """Print all settings, and an estimate from a few updates that are timed in a folder that is deleted."""
    tables.print_facts(console, [("config", ", ".join(f"{key}={spelt(value)}" for key, value in values.items()))])
    every = min(TIMED_UPDATES, trainer.eval_every)
    with tempfile.TemporaryDirectory() as folder:
        short = dataclasses.replace(
            trainer,
            seeds=1,
            must_beat_holding=False,
            num_episodes=None,
            total_steps=3 * every * trainer.steps_per_update,
            updates_per_chunk=every,
            eval_every=every,
            run_dir=folder,
            progress=False,
            callbacks=(),
        )
        result = short.train()
    if result.interrupted:
        return INTERRUPTED
    seconds = [record["seconds"] for record in result.history]
    an_update = (seconds[-1] - seconds[0]) / (result.updates - every)
    steps = trainer.total_steps or (trainer.num_episodes or 0) * inputs.trained(trainer)[0].episode_length
    updates = math.ceil(steps / trainer.steps_per_update)
    # All seeds share what the first one compiles.
    total = phrases.span(seconds[0] + max(trainer.seeds * updates - every, 0) * an_update)
    of_seeds = f" for each of {trainer.seeds} seeds" if trainer.seeds > 1 else ""
    estimate = (
        f"Training would take about {total}: {seconds[0]:.0f} s to compile and do the first {every} updates, "
        f"{updates:,} in all{of_seeds} at {1000 * an_update:,.0f} ms. This is an estimate: {result.updates} updates "
        f"were timed now, with a validation every {every}; other load changes it. Nothing was written."
    )
    tables.print_facts(console, [("estimate", estimate)])
    return OK
