"""How does PPO's speed change with the number of environments, the window and the width of the network?

One setting is moved at a time from 1024 environments, window 32 and width 64. The chunk is the Trainer's own.

    python benchmarks/scaling.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from machine import parsed, report
from workload import FEATURES, QUICK, Training, random_market

import jaxtrader as jt
from jaxtrader.training.rollout import MarketRollouts

BASE = {"environments": 1024, "window": 32, "width": 64}
MOVES = {"environments": (64, 256, 4096), "window": (1, 128, 512), "width": (16, 128, 256)}
LENGTH = 64


def measure(market: jt.Market, setting: dict[str, int], length: int, repeats: int) -> list[Any]:
    """One row: the setting, steps/s, compile seconds."""
    envs, window, width = setting.values()
    env = jt.TradingEnv(market, window=window)
    agent = jt.PPOAgent(hidden=(width, width))
    chunk = Training(env, env.default_params, agent, MarketRollouts(env, length, envs, 1), updates=1)
    chunk()
    rates = [chunk() for _ in range(repeats)]
    spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
    return [*setting.values(), statistics.median(rates), spread, chunk.compile_seconds]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one tiny setting: only shows that the script runs")
    quick = parsed(parser).quick
    moved = [{**BASE, name: value} for name, values in MOVES.items() for value in values]
    tiny = {"environments": QUICK["envs"], "window": QUICK["window"], "width": 64}
    market = random_market(QUICK["bars"] if quick else 100_000)
    length, repeats = (QUICK["length"], 2) if quick else (LENGTH, 5)
    rows = [measure(market, setting, length, repeats) for setting in ([tiny] if quick else [BASE, *moved])]
    work = f"{length} bars a rollout, {FEATURES} features, two layers, two torsos, 4 epochs x 4 minibatches, float32"
    columns = [*BASE, "steps/s", "min - max", "compile s"]
    report("scaling" + ("_quick" if quick else ""), columns, rows, {"work": work})


if __name__ == "__main__":
    main()
