"""Does PPO solve the classic control tasks, in how many steps and seconds, on every seed?

gymnax's environments train under the Trainer as a user would call it. The score is the mean return of 100 episodes by
the mode, once after training. Seconds are of whole training runs after one that compiled. Compilation has a column of
its own.

    python benchmarks/gymnax_control.py [--quick] [--seeds N] [--cases CASE ...]
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from machine import arguments, parsed, report
from workload import control_task

import jaxtrader as jt

EPISODES = 100


@dataclass(frozen=True)
class Case:
    """A task, the mean return that counts as solved, and the settings that reach it.

    Attributes:
        solved: the line to reach.
        longest: steps of the longest episode.
        total_steps: of training, over all environments.
        agent: what differs from the defaults of PPOAgent.
    """

    solved: float
    longest: int
    total_steps: int
    agent: dict[str, Any] = field(default_factory=dict)


LEARNS_RARELY: dict[str, Any] = {"gae_lambda": 0.98, "entropy_coef": 0.0}  # a reward that hardly ever differs
CASES = {
    "CartPole-v1": Case(475, 500, 500_000),
    "Acrobot-v1": Case(-100, 500, 500_000),
    "Pendulum-v1": Case(-250, 200, 300_000, {"gamma": 0.95, "num_epochs": 10, "num_minibatches": 16}),
    # Its velocity is a hundredth of its position: the task that asks for running normalisation, and without it.
    "MountainCar-v0, normalised": Case(-110, 200, 1_500_000, {**LEARNS_RARELY, "normalize_observations": True}),
    "MountainCar-v0": Case(-110, 200, 1_500_000, LEARNS_RARELY),
}


def train(env: Any, params: Any, case: Case, seed: int, total_steps: int, **agent: Any) -> jt.TrainResult:
    """One training run, its files thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = jt.Trainer(
            env,
            jt.PPOAgent(**{**case.agent, **agent}),
            env_params=params,
            num_envs=16,
            rollout_length=128,
            total_steps=total_steps,
            updates_per_chunk=32,
            eval_every=10**6,
            seed=seed,
            run_dir=f"{folder}/run",
            progress=False,
        )
        return trainer.train()


@partial(jax.jit, static_argnames=("env", "longest"))
def mean_return(agent: Any, state: Any, params: Any, key: Any, *, env: Any, longest: int) -> jax.Array:
    """The mean return of EPISODES episodes by the mode."""

    def step(carry: tuple, step_key: jax.Array) -> tuple:
        obs, place, alive, total = carry
        action, _ = agent.select_action(state, obs, step_key, deterministic=True)
        keys = jax.random.split(step_key, EPISODES)
        obs, place, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, place, action, params)
        return (obs, place, alive & ~terminated & ~truncated, total + reward * alive), None

    begin, rest = jax.random.split(key)
    obs, place = jax.vmap(env.reset, (0, None))(jax.random.split(begin, EPISODES), params)
    start = (obs, place, jnp.ones(EPISODES, bool), jnp.zeros(EPISODES))
    return jax.lax.scan(step, start, jax.random.split(rest, longest))[0][3].mean()


def score(result: jt.TrainResult, env: Any, params: Any, case: Case, seed: int) -> float:
    """The mean return of a trained policy, on episodes of a seed's own."""
    key = jax.random.key(seed + 1000)
    return float(mean_return(result.agent, result.state, params, key, env=env, longest=case.longest))


def measure(name: str, seeds: int, quick: bool) -> list[Any]:
    """One row: the task, its line, the scores of the seeds and how many reach it, steps, seconds, compile seconds."""
    case = CASES[name]
    env, params = control_task(name.split(",")[0])
    steps = 4096 if quick else case.total_steps
    compiled = train(env, params, case, 0, 1).history[0]["compile_seconds"]
    scores, times = [], []
    for seed in range(seeds):
        result = train(env, params, case, seed, steps)
        scores.append(score(result, env, params, case, seed))
        times.append(result.seconds)
    solved = sum(each >= case.solved for each in scores)
    lowest, middle = min(scores), statistics.median(scores)
    return [name, case.solved, middle, lowest, f"{solved} of {seeds}", result.steps, statistics.median(times), compiled]


def main() -> None:
    parser = arguments(__doc__, "one task, 4096 steps, one seed: only shows that it runs")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default all")
    parser.add_argument("--seeds", type=int, default=5)
    given = parsed(parser)
    seeds = 1 if given.quick else given.seeds
    names = given.cases or list(CASES)[: 1 if given.quick else None]
    rows = [measure(name, seeds, given.quick) for name in names]
    columns = ["task", "line", "median return", "lowest", "solved", "steps", "median s", "compile s"]
    facts = {"work": f"{EPISODES} episodes by the mode at the end of training; PPOAgent's defaults but for CASES"}
    report("gymnax_control", columns, rows, facts, given.quick)


if __name__ == "__main__":
    main()
