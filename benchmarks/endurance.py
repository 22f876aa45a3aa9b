"""Does the process stay flat in memory, open files and compilations, over a long training and over many backtests?

The small PPO of `kills.py` trains in 10,000 chunks of one update, with a record of each, and a validation and a
checkpoint every 50. At each tenth of the run the process is looked at. What grows by design is `TrainResult.history`,
which holds all records. The last column is its size.

Then a history grows by one bar 1,000 times, as one does that gets a bar a day. Each length has a backtest
of a policy, one of targets, a validation, and a decision at its last bar. Lengths are rounded up to 512 bars, so only a
new round length compiles, once for its rows and once for its decisions.

    python benchmarks/endurance.py [--quick] [--parts PART ...] [--chunks N] [--lengths N]
"""

from __future__ import annotations

import gc
import itertools
import os
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
from kills import tiny_trainer
from live_bars import walk
from machine import arguments, parsed, report, resident

import jaxtrader as jt
from jaxtrader.evaluation.backtest import mean_reward
from jaxtrader.jax_settings import package_settings
from jaxtrader.market.lengths import round_length

COLUMNS = ("chunks", "resident, MiB", "open files", "programs compiled", "seconds", "records, MiB")
LOOKS = {False: 10, True: 4}  # by --quick
COMPILED = "/jax/core/compile/backend_compile_duration"
FIRST = 200  # bars of the first history that grows


class Process:
    """What this process holds, and how many programs it has compiled since this was made."""

    def __init__(self) -> None:
        self.compiled = 0
        self.began = time.perf_counter()
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, *_: Any, **__: Any) -> None:
        self.compiled += event == COMPILED

    def look(self) -> list[Any]:
        """Resident MiB, open files, programs and seconds."""
        gc.collect()
        files = len(os.listdir("/proc/self/fd")) - 1  # one is of the listing
        return [resident(), files, self.compiled, time.perf_counter() - self.began]


class Look(jt.Callback):
    """Looks at the process at each tenth of a training."""

    def __init__(self, every: int) -> None:
        self.every, self.chunks, self.records, self.process = every, 0, 0, Process()
        self.rows: list[list[Any]] = []

    def on_chunk(self, record: Any) -> None:
        """Add a row where it is time."""
        self.chunks += 1
        self.records += sys.getsizeof(dict(record)) + sum(map(sys.getsizeof, record.values()))
        if self.chunks % self.every:
            return
        self.rows.append([self.chunks, *self.process.look(), self.records / 2**20])
        print(*self.rows[-1], flush=True)


def growth(rows: list[list[Any]], held: list[float]) -> float:
    """KiB a step of the first column."""
    return float(np.polyfit([row[0] for row in rows], held, 1)[0] * 1024)


def training(chunks: int, *, quick: bool) -> bool:
    """Print the table of a training. Return whether files and compilations are flat."""
    between = chunks // LOOKS[quick]
    look, every = Look(between), min(50, between)
    with tempfile.TemporaryDirectory() as folder:
        trainer = tiny_trainer(f"{folder}/run", chunks, updates_per_chunk=1, eval_every=every, callbacks=[look])
        trainer.train()
    first, *_, last = rows = look.rows[1:] if len(look.rows) > 2 else look.rows
    facts = {
        "work": f"PPO of {chunks:,} chunks of one update, a validation and a checkpoint every {every}",
        "memory apart from the records": f"{growth(rows, [row[1] - row[5] for row in rows]):+.3f} KiB a chunk from the "
        "second look on",
        "open files": f"{first[2]} at the second look, {last[2]} at the last",
        "programs": f"{last[3] - first[3]} compiled since the second look",
    }
    report("endurance", COLUMNS, look.rows, facts, quick)
    return first[2:4] == last[2:4]


def growing(lengths: int, *, quick: bool) -> bool:
    """Print the table of a history that grows. Return whether files are flat, and only new round lengths compile."""
    rows, compiling, round_lengths, table = [], [], set(), walk("A", FIRST + lengths, "D")
    with tempfile.TemporaryDirectory() as folder:
        policy = jt.load_policy(tiny_trainer(f"{folder}/run", 2).train().policy_path)
    process = Process()
    for i in range(lengths):
        before = process.compiled
        bars = jt.load_bars(table[: FIRST + i], symbol="A")
        assert isinstance(bars, jt.Bars)
        market = jt.Market.from_bars(bars, features=["log_return_1"])
        jt.backtest(policy, market)
        jt.simulate(market, np.resize([0.0, 1.0], len(market.times)))
        with package_settings():
            env = policy.environment(market)
            params, state = env.rounded_params(), policy.state_for(1)
            agent = policy.acting_agent
            float(mean_reward(agent, state, agent.prepare(state, params)[1], env=env))
        policy.live(bars)
        round_lengths.add(round_length(len(bars)))
        compiling += [len(bars)] if process.compiled > before else []
        if not (i + 1) % (lengths // LOOKS[quick]):
            rows.append([i + 1, *process.look()])
            print(*rows[-1], flush=True)
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if a[3] == b[3]]
    steady = 1024 * sum(b[1] - a[1] for a, b in pairs) / sum(b[0] - a[0] for a, b in pairs)
    facts = {
        "work": f"a history of {FIRST:,} bars and up to {lengths:,} more: a backtest, a simulation, a validation and a "
        "decision at each length",
        "memory": f"{steady:+.3f} KiB a length between two looks without a compilation",
        "lengths that compiled": f"{', '.join(map(str, compiling))}: those of {len(round_lengths)} round lengths, by "
        "rows and by decisions",
    }
    report("endurance_growing", ("lengths", *COLUMNS[1:5]), rows, facts, quick)
    return rows[1][2] == rows[-1][2] and len(compiling) <= 2 * len(round_lengths)


def main() -> None:
    """Print the tables. The exit code is 1 where files or compilations are not flat."""
    parser = arguments(__doc__, "8 chunks and 4 lengths: only shows that it runs")
    parser.add_argument("--parts", nargs="+", choices=("training", "growing"), default=("training", "growing"))
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--lengths", type=int, default=1_000)
    given = parsed(parser)
    flat = []
    if "growing" in given.parts:
        flat.append(growing(4 if given.quick else given.lengths, quick=given.quick))
    if "training" in given.parts:
        flat.append(training(8 if given.quick else given.chunks, quick=given.quick))
    if not all(flat):
        sys.exit(1)


if __name__ == "__main__":
    main()
