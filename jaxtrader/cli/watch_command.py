"""`jaxtrader watch`: the progress of a run that another process trains, read from its files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from jaxtrader.cli import inputs
from jaxtrader.cli.inputs import Values
from jaxtrader.cli.settings import OK, BadInput
from jaxtrader.evaluation import tables
from jaxtrader.run_files import CONFIG_JSON, METRICS, POLICY, RESULT
from jaxtrader.training.metrics_log import check_log, records_of
from jaxtrader.training.progress import Progress
from jaxtrader.training.run_folder import is_run, is_written, member_folder, resume_command

SECONDS = 0.5  # between two looks


def watch(values: Values, console: Console) -> int:
    """`jaxtrader watch`. It ends when the run has ended or stands still. Nothing is written."""
    folder = Path(values["run"])
    with inputs.checked():
        if not is_run(folder):
            raise BadInput(f"{folder} holds no run; give the folder that `jaxtrader train` named")
    follower = _Follower(folder)
    with Progress(follower.total, follower.unit, console) as progress:
        while True:
            with inputs.checked():
                is_trained = is_written(folder)  # before the last look, so that no record is missed
                found = follower.look()
            for done, record in found:
                progress.update(done, record)
            if not is_trained:
                break
            time.sleep(SECONDS)
    tables.print_facts(console, [_ending(folder, follower)])
    return OK


def _ending(folder: Path, follower: _Follower) -> tuple[str, str]:
    if (folder / RESULT).is_file():
        return "finished", f"jaxtrader report {folder}"
    if follower.done >= follower.total:
        return "trained", str(folder / POLICY)
    return "stopped", f"go on with: {resume_command(folder)}"


class _Follower:
    """Reads what was added to the logs of a run and of its seeds.

    Attributes:
        total: steps or episodes of all seeds together.
        unit: which of both.
        done: how many are finished.
    """

    def __init__(self, folder: Path):
        training = self._config(folder)["training"]
        first, seeds = training["seed"], training["seeds"]
        places = [member_folder(folder, first + i) for i in range(seeds)] if seeds > 1 else [folder]
        self._logs = [place / METRICS for place in places]
        self.unit: Literal["steps", "episodes"] = "steps" if training["num_episodes"] is None else "episodes"
        steps = training["num_envs"] * training["rollout_length"]
        one = training["num_episodes"] or math.ceil(training["total_steps"] / steps) * steps
        self.total = one * len(self._logs)
        self._done = [0] * len(self._logs)
        self._read = [0] * len(self._logs)

    @staticmethod
    def _config(folder: Path) -> Mapping[str, Any]:
        try:
            return json.loads((folder / CONFIG_JSON).read_text())
        except FileNotFoundError:
            raise BadInput(f"{folder} has no {CONFIG_JSON} yet; its training just begins, so try again soon") from None
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder / CONFIG_JSON} cannot be read: {error}") from error

    @property
    def done(self) -> int:
        """Steps or episodes of all seeds together that are finished."""
        return sum(self._done)

    def look(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the records that were added since the last look, each with what was done by then."""
        found = []
        for i, path in enumerate(self._logs):
            check_log(path)
            if not path.exists():
                continue
            begin = self._read[i] if self._read[i] <= path.stat().st_size else 0  # it is cut where a run is resumed
            with open(path, "rb") as file:
                file.seek(begin)
                added = file.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._read[i] = begin + len(whole)
            for record in records_of(path, whole):
                self._done[i] = record[self.unit]
                found.append((self.done, record))
        return found
