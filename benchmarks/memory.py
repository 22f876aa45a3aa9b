"""How many bytes does a transition take against the window: bars left in place, beside windows stored one by one?

On market paths a rollout keeps cursors and the small arrays of the accounts. Dense is the same market and agent as an
ordinary environment: each observation is a flat window, stored for every environment and step. `stored` counts the
arrays of a rollout, advantages and targets included. `working` is all that XLA sets aside for one training chunk beyond
its arguments (`memory_analysis().temp_size_in_bytes`), per transition. Nothing is run: shapes and the compiled program
say it.

    python benchmarks/memory.py [--quick]
"""

from __future__ import annotations

import argparse
from typing import Any

from machine import parsed, report
from workload import FEATURES, QUICK, Dense, Training, random_market

import jaxtrader as jt
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts, bytes_per_transition

WINDOWS = (1, 32, 128, 512)


def measure(market: jt.Market, window: int, envs: int, length: int) -> list[list[Any]]:
    """Two rows: paths and dense windows."""
    env = jt.TradingEnv(market, window=window)
    dense = Dense(env)
    rollouts = {"paths": MarketRollouts(env, length, envs, 1), "dense windows": EnvRollouts(dense, length, envs)}
    chunks = {
        name: Training(kind.env, env.default_params, jt.PPOAgent(), kind, updates=1, shapes=True)
        for name, kind in rollouts.items()
    }
    rows = []
    for name, chunk in chunks.items():
        working = chunk.compiled.memory_analysis().temp_size_in_bytes
        stored = bytes_per_transition(chunk.rollout)
        rows.append([window, name, stored, round(working / chunk.steps), working / 2**20, chunk.compile_seconds])
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one window: only shows that the script runs")
    quick = parsed(parser).quick
    envs, length = (QUICK["envs"], QUICK["length"]) if quick else (1024, 64)
    windows = (QUICK["window"],) if quick else WINDOWS
    market = random_market(QUICK["bars"] if quick else 100_000)
    rows = [row for window in windows for row in measure(market, window, envs, length)]
    columns = ["window", "experience", "stored, B", "working, B", "working, MiB", "compile s"]
    work = f"{envs} environments x {length} bars, {FEATURES} features, MLP 2x64, float32; B: bytes a transition"
    report("memory" + ("_quick" if quick else ""), columns, rows, {"work": work})


if __name__ == "__main__":
    main()
