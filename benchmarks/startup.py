"""How long is it from the command to the first record of training, cold and warm, and how long to `--help`?

Every figure is of a whole process, timed from outside, all in turn. The training run is the default demo, stopped after
its first record, which is of its first chunk of updates. Cold is with an empty compilation cache. Warm is with what the
cold run left in it.

    python benchmarks/startup.py [--quick]
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import arguments, parsed, report, seconds

THEIRS = "import jax, flax.linen, optax, chex"
# Names are imported where they are first used. These bring all that training needs.
OURS = "from jaxtrader import Market, PPOAgent, Trainer, TradingEnv, backtest, simulate"
TINY = ("--num-envs", "8", "--num-minibatches", "1", "--rollout-length", "16", "--hidden", "4")


def run(*arguments: str) -> None:
    """Run this Python with arguments to its end."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def first_update(cache: str, *flags: str, save: bool = True) -> tuple[float, float]:
    """Seconds from `jaxtrader train` to its first line in metrics.jsonl, and those of all cores on it.

    It is ended then, with or without saving, which counts among the cores'.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / "metrics.jsonl"
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        environment["JAXTRADER_CACHE"] = cache
        began, used = time.perf_counter(), of_all_cores()
        command = [sys.executable, "-m", "jaxtrader", "train", "--seeds", "1", "--run-dir", str(log.parent), *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.02)
        took = time.perf_counter() - began
        process.send_signal(signal.SIGINT if save else signal.SIGKILL)
        expected = 130 if save else -signal.SIGKILL  # 130: interrupted and saved
        if process.wait() != expected:
            raise SystemExit(f"the training run ended with {process.returncode}, not with {expected}")
        return took, of_all_cores() - used


def of_all_cores() -> float:
    """Seconds that cores have spent on ended child processes. On a busy machine they tell more than the time."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def both(repeats: int) -> dict[str, list[tuple[float, float]]]:
    """First updates by name of the row, each pair with a cache of its own."""
    found: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for times in found.values():
                times.append(first_update(cache))
    return found


def main() -> None:
    quick = parsed(arguments(__doc__, "one run each, a tiny network and no cache")).quick
    cases = {
        "python -c 'import jaxtrader'": lambda: run("-c", "import jaxtrader"),
        f"python -c '{THEIRS}'": lambda: run("-c", THEIRS),
        f"python -c '{OURS}'": lambda: run("-c", OURS),
        "jaxtrader --help": lambda: run("-m", "jaxtrader", "--help"),
        "jaxtrader train --help": lambda: run("-m", "jaxtrader", "train", "--help"),
    }
    if not quick:
        for case in cases.values():
            case()  # fills the file cache and the bytecode cache
    turns = [{name: seconds(case, 1)[0] for name, case in cases.items()} for _ in range(1 if quick else 9)]
    rows = []
    for name in cases:
        times = [turn[name] for turn in turns]
        rows.append([name, statistics.median(times), min(times), max(times)])
    found = {"cold": [first_update("off", *TINY, save=False)]} if quick else both(3)
    for kind, pairs in found.items():
        for what, times in zip(("", ", of all cores"), zip(*pairs, strict=True), strict=True):
            row = f"jaxtrader train, to the first record ({kind}){what}"
            rows.append([row, statistics.median(times), min(times), max(times)])
    _, theirs, ours, *_ = cases
    above = statistics.median(turn[ours] - turn[theirs] for turn in turns)
    facts = {
        "work": "whole processes; the training is the demo's" + f", with {' '.join(TINY)}" * quick,
        "all of ours above jax + flax + optax + chex, s": f"{above:.2f}",
    }
    report("startup", ["what", "median s", "min s", "max s"], rows, facts, quick)


if __name__ == "__main__":
    main()
