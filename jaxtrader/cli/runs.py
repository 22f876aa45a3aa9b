"""A training in a folder of its own, and the dry run that estimates how long it would take."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

from rich.console import Console

import jaxtrader as jt
from jaxtrader.cli import config_file, inputs, phrases
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import INTERRUPTED, OK, spelt
from jaxtrader.evaluation import tables
from jaxtrader.training.checkpoint import make_run_dir

TIMED_UPDATES = 2  # a chunk of the dry run's measurement


def train_in_folder(trainer: jt.Trainer, values: Values, name: str, console: Console) -> jt.TrainResult:
    """Train in a new folder, and leave the settings there that repeat the run, also where training breaks off."""
    with inputs.checked():
        folder = trainer.run_dir = make_run_dir(values["run_dir"], name)
    try:
        result = trainer.train()
    finally:  # and not before: the trainer wants an empty folder
        config_file.write(Path(folder), "train", values)
    if not values["quiet"]:
        console.print(phrases.speed(result))
        console.print()
    return result


def dry_run(values: Values, trainer: jt.Trainer, console: Console) -> int:
    """Print all settings, and an estimate from a few updates that are timed in a folder that is deleted."""
    tables.print_facts(console, [("config", ", ".join(f"{key}={spelt(value)}" for key, value in values.items()))])
    every = min(TIMED_UPDATES, trainer.eval_every)
    with tempfile.TemporaryDirectory() as folder:
        short = dataclasses.replace(
            trainer,
            num_episodes=None,
            total_steps=3 * every * trainer.steps_per_update,
            updates_per_chunk=every,
            eval_every=every,
            run_dir=folder,
            progress=False,
        )
        result = short.train()
    if result.interrupted:
        return INTERRUPTED
    seconds = [record["seconds"] for record in result.history]
    an_update = (seconds[-1] - seconds[0]) / (result.updates - every)
    steps = trainer.total_steps or (trainer.num_episodes or 0) * inputs.trained(trainer)[0].episode_length
    updates = math.ceil(steps / trainer.steps_per_update)
    total = phrases.span(seconds[0] + max(updates - every, 0) * an_update)
    estimate = (
        f"Training would take about {total}: {seconds[0]:.0f} s to compile and do the first {every} updates, "
        f"{updates:,} in all at {1000 * an_update:,.0f} ms. This is an estimate: {result.updates} updates were timed "
        f"now, with a validation every {every}; other load changes it. Nothing was written."
    )
    tables.print_facts(console, [("estimate", estimate)])
    return OK
