"""Which settings of PPO pay? Each setting is changed alone, and the same tasks are trained again.

Tasks are markets whose optimum is known, and CartPole, Pendulum and Acrobot. On markets the figure is the share of the
optimum that is missed, in percent. On classic control it is the mean return of 100 episodes by the mode after few
steps. A setting that helps nowhere has no place in the agent. One that helps on some tasks is an option and no default.

    python benchmarks/ablations.py [--quick] [--seeds N] [--settings NAME ...] [--tasks WORDS ...]
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

from gymnax_control import CASES, score, train
from known_optimum import OTHER, QUICK, TIMED
from machine import arguments, parsed, report
from races import Learner
from workload import control_task

import jaxtrader as jt
from jaxtrader.evaluation.optimum import solve

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "schedule constant": {"schedule": "constant"},
    "gamma 0.95": {"gamma": 0.95},
    "gae_lambda 0.7": {"gae_lambda": 0.7},
    "gamma 0.95, gae_lambda 0.7": {"gamma": 0.95, "gae_lambda": 0.7},
    "entropy_coef 0": {"entropy_coef": 0.0},
    "entropy_coef 0.01": {"entropy_coef": 0.01},
    "normalize_observations on": {"normalize_observations": True},
    "log_std_init 0, learnt": {"log_std_init": 0.0},
    "log_std_init 1, learnt": {"log_std_init": 1.0},
    "market_baseline off": {"market_baseline": False},
    "log_std_init 0, learnt, market_baseline off": {"log_std_init": 0.0, "market_baseline": False},
    "value_coef 0.25": {"value_coef": 0.25},
    "value_coef 1": {"value_coef": 1.0},
    "clip_range 0.1": {"clip_range": 0.1},
    "max_grad_norm 10": {"max_grad_norm": 10.0},
    "num_epochs 2": {"num_epochs": 2},
    "num_minibatches 16": {"num_minibatches": 16},
    "learning_rate 3e-3": {"learning_rate": 3e-3},
    "hidden 32, 32": {"hidden": (32, 32)},
}
MARKET_STEPS, MARKET_SHAPE = 1_000_000, (256, 64)
CONTROL_STEPS = {"CartPole-v1": 150_000, "Pendulum-v1": 150_000, "Acrobot-v1": 100_000}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="rows; default all")
    parser.add_argument("--tasks", nargs="+", default=[""], help="words of the tasks' names; default all")
    given = parsed(parser)
    few, seeds = (1 if given.quick else None), range(1 if given.quick else given.seeds)
    markets, chosen = (*TIMED, OTHER[-1]), lambda task: any(words in task for words in given.tasks)
    cases = [case for case in markets if chosen(case.label)][:few]
    control = {task: control_task(task) for task in [task for task in CONTROL_STEPS if chosen(task)][:few]}
    if not cases and not control:
        parser.error(f"no task {given.tasks!r}; there are {[*(case.label for case in markets), *CONTROL_STEPS]}")
    # The quick sizes are known_optimum's.
    bars, shape = (QUICK.bars, QUICK.shape) if given.quick else (1_000_000, MARKET_SHAPE)
    updates = 1 if given.quick else MARKET_STEPS // math.prod(MARKET_SHAPE)
    bests = [solve(case.process, case.environment(1_000), bars=min(bars, 200_000)) for case in cases]
    rows = []
    for name in given.settings[:few]:
        row: list[Any] = [name]
        setting = SETTINGS[name]
        spent = []
        for case, best in zip(cases, bests, strict=True):
            missed = []
            for seed in seeds:
                learner = Learner(case.environment(bars, seed), best, jt.PPOAgent(**setting), shape, updates, seed)
                began = time.process_time()
                learner.train(updates)
                spent.append(time.process_time() - began)
                missed.append(100 * (1 - learner.score()[0]))
            row.append(f"{statistics.median(missed):.2f} ({min(missed):.2f} - {max(missed):.2f})")
        for task, made in control.items():
            steps = 4096 if given.quick else CONTROL_STEPS[task]
            runs = [(train(*made, CASES[task], seed, steps, **setting), seed) for seed in seeds]
            returns = [score(result, *made, CASES[task], seed) for result, seed in runs]
            row.append(f"{statistics.median(returns):.0f} ({min(returns):.0f} - {max(returns):.0f})")
        steps = updates * math.prod(shape)
        rows.append([*row, f"{1e6 * statistics.median(spent) / steps:.2f}" if spent else "-"])
        print(*rows[-1], sep=" | ", flush=True)
    columns = ["setting", *(f"% missed, {case.label}" for case in cases), *control, "us of processor a step"]
    facts = {
        "work": f"median (least - most) of {len(seeds)} seeds; markets {MARKET_SHAPE[0]} environments x "
        f"{MARKET_SHAPE[1]} bars, {MARKET_STEPS:,} steps; "
        + ", ".join(f"{task} 16 x 128, {steps:,} steps" for task, steps in CONTROL_STEPS.items())
    }
    report("ablations", columns, rows, facts, given.quick)


if __name__ == "__main__":
    main()
