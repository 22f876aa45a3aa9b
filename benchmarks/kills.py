"""Does a training that is ended at random moments come to the same bits as one that never stopped?

A small PPO writes a checkpoint, a policy and log lines every few milliseconds. Its process is ended at a random moment,
with SIGKILL or SIGTERM, and another resumes the run, until it is finished. Then its log (without times), its policies
and its last checkpoint are compared with those of a run that was left alone. One moment in four lies anywhere in the
life of the process, with its imports. The others lie in training.

    python benchmarks/kills.py [--quick] [--ends N] [--seed N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine import arguments, parsed, report

UPDATES = {False: 240, True: 40}  # of a whole run, by --quick
STEPS = 4 * 8  # of an update
COLUMNS = ["signal", "processes ended", "ended in training", "runs", "same bits", "unlike or refused"]


def tiny_trainer(folder: str, updates: int, **settings: Any) -> Any:
    """A trainer of a small PPO on a random walk, with a chunk every 2 updates and a validation every 3."""
    import numpy as np
    import pandas as pd

    import jaxtrader as jt

    rng = np.random.default_rng(0)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, 200)))
    prices = {"time": pd.date_range("2020-01-01", periods=200), "open": close, "high": close, "low": close}
    bars = jt.load_bars(pd.DataFrame({**prices, "close": close, "volume": 1.0}), symbol="A")
    assert isinstance(bars, jt.Bars)
    train, valid = jt.Market.from_bars(bars, features=["log_return_1"]).split(0.7, 0.3)
    settings = {"updates_per_chunk": 2, "eval_every": 3, **settings}
    return jt.Trainer(
        jt.TradingEnv(train, window=2, episode_length=16),
        jt.PPOAgent(hidden=(8,), num_epochs=1, num_minibatches=1),
        valid=valid,
        num_envs=4,
        rollout_length=8,
        total_steps=updates * STEPS,
        run_dir=folder,
        progress=False,
        **settings,
    )


def train(folder: str, updates: int) -> None:
    """Train in a folder, or go on there. The process of this is what is ended."""
    trainer = tiny_trainer(folder, updates)
    print("training", flush=True)
    trainer.train(resume=True)


def start(folder: Path, updates: int, cache: str) -> subprocess.Popen[str]:
    """Start a process that trains in a folder."""
    command = [sys.executable, __file__, "--train", str(folder), "--updates", str(updates)]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"JAXTRADER_CACHE": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def result(folder: Path) -> dict[str, str]:
    """What must be equal: the log without times, the policies, the train state, and that nothing is left over."""
    from jaxtrader import files
    from jaxtrader.training.records import TIME_FIELDS

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    log = [{key: value for key, value in line.items() if key not in TIME_FIELDS} for line in lines]
    state = files.load(folder / "checkpoint.pkl", "checkpoint")["train_state"]
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("policy.pkl", "last.pkl")}
    found |= {"log": json.dumps(log), "state": hashlib.sha256(files.encoded("state", state)).hexdigest()}
    return found | {"unfinished files": str(len(files.temporaries(folder)))}


def whole_run(folder: Path, updates: int, cache: str) -> tuple[dict[str, str], float, float]:
    """The result of a run that was left alone, and the seconds of its process before and in training."""
    folder.mkdir()
    began = time.perf_counter()
    child = start(folder, updates, cache)
    assert child.stdout is not None
    child.stdout.readline()
    loaded = time.perf_counter()
    _, errors = child.communicate()
    if child.returncode:
        raise SystemExit(f"the training ended with {child.returncode}: {errors}")
    return result(folder), loaded - began, time.perf_counter() - loaded


class Race:
    """Runs that are ended again and again.

    Attributes:
        ended: how many processes were ended, by the moment.
        same: how many runs came to the same bits.
        unlike: what was wrong with the others.
    """

    def __init__(self, number: signal.Signals, cache: str, updates: int, rng: random.Random):
        self.number, self.cache, self.updates, self.rng = number, cache, updates, rng
        self.ended: Counter[str] = Counter()
        self.same = 0
        self.unlike: list[str] = []

    def run(self, folder: Path, wanted: dict[str, str], loading: float, training: float) -> None:
        """Bring one run to its end, and compare it."""
        folder.mkdir()
        longest, reached = training, -1
        while True:
            # A machine that has become busier must not end all processes before they save anything.
            saved = saved_bytes(folder)
            longest, reached = (longest if saved > reached else 1.2 * longest), saved
            child = start(folder, self.updates, self.cache)
            assert child.stdout is not None
            anywhere = self.rng.random() < 0.25
            if not anywhere:
                child.stdout.readline()
            try:
                child.wait(self.rng.uniform(0, loading + longest if anywhere else longest))
            except subprocess.TimeoutExpired:
                self.ended["anywhere" if anywhere else "in training"] += 1
                child.send_signal(self.number)
            _, errors = child.communicate()
            stopped = child.returncode == -self.number
            if child.returncode and not stopped:
                self.unlike.append(f"{folder.name}: {errors.strip().splitlines()[-1:]}")
                return
            if not stopped and finished(folder, self.updates):
                break
        found = result(folder)
        different = [name for name in wanted if found[name] != wanted[name]]
        self.same += not different
        if different:
            self.unlike.append(f"{folder.name}: {', '.join(different)}")

    def row(self) -> list[Any]:
        """The row of the table."""
        runs = self.same + len(self.unlike)
        return [self.number.name, self.ended.total(), self.ended["in training"], runs, self.same, len(self.unlike)]


def saved_bytes(folder: Path) -> int:
    """The length of a run's log, which grows as the training does."""
    log = folder / "metrics.jsonl"
    return log.stat().st_size if log.exists() else 0


def finished(folder: Path, updates: int) -> bool:
    """Whether a run that was not ended by force has come to its end: a stop that is asked for also ends it well."""
    from jaxtrader.training.checkpoint import read_checkpoint

    return read_checkpoint(folder / "checkpoint.pkl").updates >= updates


def main() -> None:
    """Print the table. The exit code is 1 where a run was unlike or refused."""
    parser = arguments(__doc__, "two ends of each kind: only shows that the script runs")
    parser.add_argument("--ends", type=int, default=100, help="processes to end with each signal")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--signals", default="SIGKILL,SIGTERM", help="by which the processes are ended")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--updates", type=int, help=argparse.SUPPRESS)
    given = parsed(parser)
    if given.train:
        train(given.train, given.updates)
        return
    ends, updates = 2 if given.quick else given.ends, UPDATES[given.quick]
    rng, races = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as parent:
        folder, cache = Path(parent), str(Path(parent) / "cache")
        whole_run(folder / "cold", updates, cache)  # fills the cache of programs
        wanted, loading, training = whole_run(folder / "whole", updates, cache)
        for number in map(signal.Signals.__getitem__, given.signals.split(",")):
            race = Race(number, cache, updates, rng)
            while race.ended.total() < ends:
                race.run(folder / f"{number.name}-{race.same + len(race.unlike)}", wanted, loading, training)
                told = zip(COLUMNS, race.row(), strict=True)
                print(", ".join(f"{name}: {value}" for name, value in told), flush=True)
            races.append(race)
    facts = {
        "work": f"PPO of {updates} updates in chunks of 2, a validation and its checkpoint every 3",
        "a process, s": f"{loading:.1f} to load, {training:.1f} to train",
        "seed": given.seed,
        "unlike": [text for race in races for text in race.unlike] or "none",
    }
    report("kills", COLUMNS, [race.row() for race in races], facts, given.quick)
    if any(race.unlike for race in races):
        sys.exit(1)


if __name__ == "__main__":
    main()
