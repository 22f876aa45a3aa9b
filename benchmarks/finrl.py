"""FinRL's StockTradingEnv under Stable-Baselines3's PPO, and ours: the same 30 stocks, costs, network and steps.

The stocks are drawn: a common factor and noise of their own, without any signal, so no policy can be better than luck.
Both trainers see the same features of each stock, and train on the same bars with the same number of environments,
epochs and minibatches. Both trade the same later bars by their modes. What differs is FinRL's or ours by nature. It
buys and sells up to 100 shares a stock and day at the close that it saw. We trade to weights at the next open.

    python benchmarks/finrl.py [--quick] [--seeds N] [--peer-python finrl=PYTHON]

It prints steps/s, the minutes of a training, and what 1 became on the test, beside equal weights.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import arguments, parsed, report
from peers.install import add_options, interpreters
from workload import candles, opens_of

import jaxtrader as jt

STOCKS, DAYS, TEST_DAYS = 30, 3000, 500
COST = 0.001  # FinRL's own default
FEATURES = ("log_return_1", "log_return_5", "log_return_20", "volatility_20")
PPO = {"epochs": 4, "minibatches": 4, "net": [64, 64]}


def market(seed: int) -> jt.Market:
    """Daily bars of the stocks under one account."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(3e-4, 0.01, (DAYS, 1))
    close = rng.uniform(20, 200, STOCKS) * np.exp(np.cumsum(factor + rng.normal(0, 0.015, (DAYS, STOCKS)), 0))
    tables = {f"S{i:02d}": candles(opens_of(each), each, freq="B") for i, each in enumerate(close.T)}
    return jt.Market.from_bars(jt.load_bars(tables), features=FEATURES, align=True)


def ours(train: jt.Market, test: jt.Market, steps: int, envs: int, length: int, seed: int) -> dict[str, Any]:
    """Figures of our training: without what is compiled in its first update."""
    env = jt.TradingEnv(train, positions="weights", window=1, costs=jt.Costs(COST, None))
    agent = jt.PPOAgent(hidden=tuple(PPO["net"]), num_epochs=PPO["epochs"], num_minibatches=PPO["minibatches"])
    size = {"num_envs": envs, "rollout_length": length, "progress": False, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        first = jt.Trainer(env, agent, run_dir=f"{folder}/first", total_steps=envs * length, **size).train()
        compiling = time.perf_counter() - began
        began = time.perf_counter()
        result = jt.Trainer(env, agent, run_dir=f"{folder}/run", total_steps=steps, **size).train()
        seconds = time.perf_counter() - began
        became = float(jt.backtest(jt.load_policy(result.policy_path), test).equity[-1])
    return {"steps": result.steps, "seconds": seconds, "first": compiling, "became": became, "updates": first.updates}


def theirs(python: str, train: jt.Market, test: jt.Market, settings: dict[str, Any]) -> dict[str, Any]:
    """Figures of FinRL's, from a process of its own."""
    start, cut = int(train.first_decisions(1)[0]), int(test.segments[0, 1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "market.npz")
        np.savez(path, close=test.close[start:], features=test.features[start:], cut=cut - start)
        words = [
            python,
            Path(__file__).parent / "peers" / "finrl_ppo.py",
            json.dumps({**settings, "market": str(path)}),
        ]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(f"FinRL's training failed: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = arguments(__doc__, "tiny sizes, no peer: only shows that the script runs")
    parser.add_argument("--seeds", type=int, default=3)
    add_options(parser, "finrl")
    given = parsed(parser)
    python = None if given.quick else interpreters(given).get("finrl")
    seeds, steps, envs, length = (1, 256, 8, 16) if given.quick else (given.seeds, 65_536, 16, 128)
    columns = ["trainer", "steps/s", "minutes", "1 became, least", "median", "most"]
    found: dict[str, list[dict[str, Any]]] = {"jaxtrader": [], "FinRL and SB3": []}
    held, versions = [], {}
    for seed in range(seeds):
        train, test = market(seed).split(1 - TEST_DAYS / DAYS, TEST_DAYS / DAYS)
        equal = np.full((TEST_DAYS, STOCKS), 1 / STOCKS)
        held.append(float(jt.simulate(test, equal, costs=jt.Costs(COST, None)).equity[-1]))
        found["jaxtrader"].append(ours(train, test, steps, envs, length, seed))
        if python is not None:
            settings = {**PPO, "steps": steps, "envs": envs, "length": length, "cost": COST, "seed": seed}
            peer = theirs(python, train, test, {**settings, "threads": os.cpu_count() or 1})
            versions = peer["versions"]
            found["FinRL and SB3"].append(peer)
        print({name: each[-1] for name, each in found.items() if each}, flush=True)
    rows = []
    for name, each in found.items():
        if each:
            speed = statistics.median(one["steps"] / one["seconds"] for one in each)
            rows.append([name, speed, statistics.median(one["seconds"] for one in each) / 60, *spread(each)])
    rows.append(["equal weights, every day", "-", "-", *spread([{"became": x} for x in held])])
    facts = {
        "work": f"{STOCKS} drawn stocks, {steps:,} steps in {envs} environments x {length}, {seeds} seeds",
        **versions,
    }
    facts["first"] = f"our first training compiles: {statistics.median(x['first'] for x in found['jaxtrader']):.1f} s"
    report("finrl", columns, rows, facts, given.quick)


def spread(each: list[dict[str, Any]]) -> list[float]:
    """The least, the median and the most of what 1 became."""
    became = [one["became"] for one in each]
    return [min(became), statistics.median(became), max(became)]


if __name__ == "__main__":
    main()
