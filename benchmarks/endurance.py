"""Does a training of 10,000 chunks stay flat in memory, open files and compilations?

The small PPO of `kills.py` trains in chunks of one update, with a record of each, and a validation and a checkpoint
every 50. At each tenth of the run the process is looked at. What grows by design is `TrainResult.history`, which holds
all records. The last column is its size.

    python benchmarks/endurance.py [--quick] [--chunks N]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from kills import tiny_trainer
from machine import parsed, report

import jaxtrader as jt

COLUMNS = ("chunks", "resident, MiB", "open files", "programs compiled", "seconds", "records, MiB")
LOOKS = 10
COMPILED = "/jax/core/compile/backend_compile_duration"


class Look(jt.Callback):
    """Looks at the process at each tenth of a training."""

    def __init__(self, every: int) -> None:
        self.every, self.chunks, self.compiled, self.records = every, 0, 0, 0
        self.rows: list[list[Any]] = []
        self.began = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, *_: Any, **__: Any) -> None:
        self.compiled += event == COMPILED

    def on_chunk(self, record: Any) -> None:
        """Add a row where it is time."""
        self.chunks += 1
        self.records += sys.getsizeof(dict(record)) + sum(map(sys.getsizeof, record.values()))
        if self.chunks % self.every:
            return
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        files = len(os.listdir("/proc/self/fd")) - 1  # one is of the listing
        seconds = time.perf_counter() - self.began
        self.rows.append([self.chunks, resident / 2**20, files, self.compiled, seconds, self.records / 2**20])
        print(*self.rows[-1], flush=True)


def main() -> None:
    """Print the table. The exit code is 1 where files or compilations are not flat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 chunks: only shows that the script runs")
    parser.add_argument("--chunks", type=int, default=10_000)
    given = parsed(parser)
    chunks = 100 if given.quick else given.chunks
    look, every = Look(chunks // LOOKS), min(50, chunks // LOOKS)
    with tempfile.TemporaryDirectory() as folder:
        trainer = tiny_trainer(f"{folder}/run", chunks, updates_per_chunk=1, eval_every=every, callbacks=[look])
        trainer.train()
    first, *_, last = rows = look.rows[1:] if len(look.rows) > 2 else look.rows
    growth = np.polyfit([row[0] for row in rows], [row[1] - row[5] for row in rows], 1)[0] * 1024
    facts = {
        "work": f"PPO of {chunks:,} chunks of one update, a validation and a checkpoint every {every}",
        "memory apart from the records": f"{growth:+.3f} KiB a chunk from the second look on",
        "open files": f"{first[2]} at the second look, {last[2]} at the last",
        "programs": f"{last[3] - first[3]} compiled since the second look",
    }
    report("endurance" + "_quick" * given.quick, COLUMNS, look.rows, facts)
    if first[2] != last[2] or first[3] != last[3]:
        sys.exit(1)


if __name__ == "__main__":
    main()
