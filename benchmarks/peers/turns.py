"""Turns: a peer measures in a process and an environment of its own, one repetition at a time at the parent's word.

A peer's script calls `serve`. A benchmark opens a `Peer` and runs it and ours in turn, so that both meet the same load
and a ratio is of neighbours in time. Standard library only: both environments import it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Work = Callable[[], int]


def serve(prepare: Callable[[dict[str, Any]], tuple[Work, dict[str, Any]]], *packages: str) -> None:
    """The peer's side: prepare, warm up, then one timed repetition for each line on standard input.

    Args:
        prepare: from the settings in `argv[1]` (JSON) the work, which returns the steps done and blocks until they are,
            and what to say about it.
        packages: whose versions are told.
    """
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    began = time.perf_counter()
    work, about = prepare(json.loads(sys.argv[1]))
    work()
    versions = {name: version(name) for name in packages}
    answer = {"versions": versions, "start_seconds": time.perf_counter() - began, **about}
    while True:
        os.write(answers, (json.dumps(answer) + "\n").encode())
        if not sys.stdin.readline():
            return
        began, worked = time.perf_counter(), time.process_time()
        steps = work()
        rate, spent = steps / (time.perf_counter() - began), time.process_time() - worked
        answer = {"rate": rate, "processor": spent / steps}


class Peer:
    """The parent's side. A context manager: the process ends with the block.

    Attributes:
        about: what the peer said once it was warm, with its `versions`.
        processor: of each repetition so far, seconds of processor time a step, over all cores.
    """

    def __init__(self, python: str, script: str, **settings: Any) -> None:
        command = [python, str(HERE / script), json.dumps(settings)]
        # The peers that run on our market import jaxtrader from this checkout.
        paths = [str(HERE.parent.parent), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment.pop("JAX_PLATFORMS", None)  # theirs is the processor's JAX, whatever ours computes on
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.processor: list[float] = []
        self.about = self._answer()

    def turn(self) -> float:
        """Steps a second of one repetition."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.processor.append(answer["processor"])
        return answer["rate"]

    @property
    def versions(self) -> str:
        """Of its packages, in one line."""
        return ", ".join(f"{name} {version}" for name, version in self.about["versions"].items())

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended with {self.process.wait()} before it was done")
        return json.loads(line)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its input, which ends it


def in_turn(runners: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Rates of each runner, `repeats` times one after the other."""
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, run in runners.items():
            rates[name].append(run())
    return rates


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over the turns of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
