"""Which settings of PPO pay? Each is changed alone, and the same tasks are trained again.

The tasks are markets whose optimum is known (the share not reached, in percent: less is better) and CartPole (mean
return of 100 episodes by the mode, after few steps: more is better). A setting that helps nowhere has no place in the
agent; one that helps on some task only is an option and not a default.

    python benchmarks/ablations.py [--quick] [--seeds N]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import gymnax
import jax
from gymnax_control import CASES, mean_return, train
from known_optimum import QUICK, TIMED, Learner, solved
from machine import report

import jaxtrader as jt

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "schedule constant": {"schedule": "constant"},
    "gamma 0.95": {"gamma": 0.95},
    "gae_lambda 0.7": {"gae_lambda": 0.7},
    "gamma 0.95, gae_lambda 0.7": {"gamma": 0.95, "gae_lambda": 0.7},
    "entropy_coef 0": {"entropy_coef": 0.0},
    "entropy_coef 0.01": {"entropy_coef": 0.01},
    "normalize_observations on": {"normalize_observations": True},
    "value_coef 0.25": {"value_coef": 0.25},
    "value_coef 1": {"value_coef": 1.0},
    "clip_range 0.1": {"clip_range": 0.1},
    "max_grad_norm 10": {"max_grad_norm": 10.0},
    "num_epochs 2": {"num_epochs": 2},
    "num_minibatches 16": {"num_minibatches": 16},
    "learning_rate 3e-3": {"learning_rate": 3e-3},
    "hidden 32, 32": {"hidden": (32, 32)},
    "activation relu": {"activation": "relu"},
    "shared torso": {"shared": True},
}
MARKET_STEPS, MARKET_SHAPE, CARTPOLE_STEPS = 1_000_000, (256, 64), 150_000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only shows that the script runs")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    seeds = range(1 if given.quick else given.seeds)
    # The quick sizes are known_optimum's.
    bars, shape = (QUICK.bars, QUICK.shape) if given.quick else (1_000_000, MARKET_SHAPE)
    updates = 1 if given.quick else MARKET_STEPS // math.prod(MARKET_SHAPE)
    markets = {case.label: solved(case, bars, min(bars, 200_000)) for case in TIMED[: 1 if given.quick else None]}
    cartpole = gymnax.make("CartPole-v1")
    rows = []
    for name, setting in list(SETTINGS.items())[: 1 if given.quick else None]:
        row: list[Any] = [name]
        spent = []
        for env, best in markets.values():
            missed = []
            for seed in seeds:
                learner = Learner(env, best, jt.PPOAgent(**setting), shape, updates, seed)
                began = time.process_time()
                learner.train(updates)
                spent.append(time.process_time() - began)
                missed.append(100 * (1 - learner.score()[0]))
            row.append(f"{statistics.median(missed):.2f} ({min(missed):.2f} - {max(missed):.2f})")
        returns = [_cartpole(*cartpole, seed, 4096 if given.quick else CARTPOLE_STEPS, setting) for seed in seeds]
        row.append(f"{statistics.median(returns):.0f} ({min(returns):.0f} - {max(returns):.0f})")
        steps = updates * math.prod(shape)
        rows.append([*row, f"{1e6 * statistics.median(spent) / steps:.2f}"])
        print(*rows[-1], sep=" | ", flush=True)
    columns = ["setting", *(f"% missed, {label}" for label in markets), "CartPole-v1 return", "us of processor a step"]
    facts = {
        "work": f"median (least - most) of {len(seeds)} seeds; markets {MARKET_SHAPE[0]} environments x "
        f"{MARKET_SHAPE[1]} bars, {MARKET_STEPS:,} steps; CartPole 16 x 128, {CARTPOLE_STEPS:,} steps"
    }
    report("ablations" + ("_quick" if given.quick else ""), columns, rows, facts)


def _cartpole(env: Any, params: Any, seed: int, steps: int, setting: dict[str, Any]) -> float:
    case = CASES["CartPole-v1"]
    result = train(env, params, case, seed, steps, **setting)
    key = jax.random.key(seed + 1000)
    return float(mean_return(result.agent, result.state, params, key, env=env, longest=case.longest))


if __name__ == "__main__":
    main()
