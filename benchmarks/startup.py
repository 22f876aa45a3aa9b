"""How long from the command to the first update, cold, and how long does `--help` take?

Every figure is a whole process, timed from outside; the training run is the default demo, stopped after its first
record.

    python benchmarks/startup.py [--quick]
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import report, seconds


def run(*arguments: str) -> None:
    """Run this Python with arguments to its end."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def first_update() -> float:
    """Seconds from `jaxtrader train` to its first line in metrics.jsonl."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / "metrics.jsonl"
        began = time.perf_counter()
        command = [sys.executable, "-m", "jaxtrader", "train", "--run-dir", str(log.parent)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.02)
        took = time.perf_counter() - began
        process.send_signal(signal.SIGINT)
        if process.wait() != 130:
            raise SystemExit(f"the training run ended with {process.returncode}, not with 130 (interrupted and saved)")
        return took


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one run each")
    repeats = 1 if parser.parse_args().quick else 5
    cases = {
        "python -c 'import jaxtrader'": lambda: run("-c", "import jaxtrader"),
        "jaxtrader --help": lambda: run("-m", "jaxtrader", "--help"),
        "jaxtrader train --help": lambda: run("-m", "jaxtrader", "train", "--help"),
    }
    rows = []
    for name, case in cases.items():
        case()  # fills the file cache and the bytecode cache
        times = seconds(case, repeats)
        rows.append([name, statistics.median(times), min(times), max(times)])
    times = [first_update() for _ in range(1 if repeats == 1 else 3)]
    rows.append(["jaxtrader train, to the first record (cold)", statistics.median(times), min(times), max(times)])
    report("startup", ["what", "median s", "min s", "max s"], rows, {})


if __name__ == "__main__":
    main()
