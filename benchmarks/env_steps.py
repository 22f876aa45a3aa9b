"""How many steps a second do environments make with random actions, beside those of others?

Ours runs two ways. `step` is gymnax's way: every observation is written out. Paths are the way of training: windows
stay on the market's arrays, and only the account is stepped and observed. Peers run in processes of their own on the
same bars, in turn with ours, each by its own money rules. gym-trading-env gets the first 2,000 bars, as the time of its
resets grows with its frame.

    python benchmarks/env_steps.py [--quick] [--peers gym,torchtrade] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from machine import arguments, parsed, report, spread
from peers.install import add_options, interpreters
from peers.turns import Peer, in_turn, ratio
from workload import random_market, save_bars

import jaxtrader as jt
from jaxtrader.training.rollout import MarketRollouts
from jaxtrader.training.update import begin_rollouts, copy_arrays

WINDOW, EPISODE, LENGTH = 32, 256, 64
STEP, PATHS = "jaxtrader, step", "jaxtrader, paths"


@dataclass(frozen=True)
class Size:
    """Bars, environments side by side, steps of all of them a repetition at most (and of one), repetitions."""

    bars: int = 100_000
    envs: tuple[int, ...] = (1, 64, 4096, 65_536)
    steps: int = 2_000_000
    each: int = 8_192
    repeats: int = 5


FULL, QUICK = Size(), Size(2_000, (64,), 4_096, 64, 2)


# --- ours ---


def drawn(key: Any, shape: tuple[int, ...], actions: int) -> Any:
    """Random actions, a byte of the generator each."""
    return (jax.random.bits(key, shape, jnp.uint8) % actions).astype(jnp.int32)


@partial(jax.jit, static_argnames=("env", "length"), donate_argnums=0)
def walk(carry: Any, key: Any, params: Any, *, env: jt.TradingEnv, length: int) -> Any:
    """`length` steps of every environment. Observations are carried, so that they are written."""
    envs = len(carry[1].time)

    def step(carry: Any, step_key: Any) -> tuple[Any, Any]:
        act, rest = jax.random.split(step_key)
        action = drawn(act, (envs,), env.num_actions)
        keys = jax.random.split(rest, envs)
        obs, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(keys, carry[1], action, params)
        return (obs, state), reward.mean()

    return jax.lax.scan(step, carry, jax.random.split(key, length))


@dataclass(frozen=True)
class RandomAgent:
    """Takes one of so many actions at random and sees nothing: its `encode` leaves the windows where they are."""

    actions: int
    needs_next = False

    def encode(self, state: Any, chunk: Any) -> Any:
        """A context of nothing for each decision."""
        return jnp.zeros((chunk.shape[0], chunk.shape[1] - WINDOW + 1, 0))

    def act(self, state: Any, context: Any, account: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        """Uniform actions."""
        return drawn(key, account.shape[:-2], self.actions), {}


@partial(jax.jit, static_argnames=("rollouts", "count"), donate_argnums=0)
def paths(carry: Any, key: Any, params: Any, *, rollouts: MarketRollouts, count: int) -> Any:
    """`count` rollouts of the trainer's own, account features and rewards kept as training keeps them."""

    agent = RandomAgent(rollouts.env.num_actions)

    def collect(carry: Any, rollout_key: Any) -> tuple[Any, Any]:
        carry, rollout, _ = rollouts.collect(carry, agent, None, params, rollout_key)
        return carry, (rollout.account.mean(), rollout.reward.mean())

    return jax.lax.scan(collect, carry, jax.random.split(key, count))


class Ours:
    """One of the two ways, compiled. Each call is a repetition. `processor` is as a Peer's."""

    def __init__(self, kind: str, env: jt.TradingEnv, params: Any, envs: int, steps: int) -> None:
        key = jax.random.key(0)
        count = max(1, steps // (envs * LENGTH))
        began = time.perf_counter()
        if kind == STEP:
            carry = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(key, envs), params)
            lowered = walk.lower(carry, key, params, env=env, length=count * LENGTH)
        else:
            rollouts = MarketRollouts(env, LENGTH, envs, 1)
            carry = begin_rollouts(key, params, rollouts=rollouts)
            lowered = paths.lower(carry, key, params, rollouts=rollouts, count=count)
        self.compiled = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        self.carry, self.key, self.steps = copy_arrays(carry), key, count * LENGTH * envs
        self.params = params
        self.processor: list[float] = []
        self()
        self.processor.clear()

    def __call__(self) -> float:
        """Environment steps a second."""
        self.key, use = jax.random.split(self.key)
        jax.block_until_ready(use)
        began, worked = time.perf_counter(), time.process_time()
        self.carry, out = self.compiled(self.carry, use, self.params)
        jax.block_until_ready((self.carry, out))
        rate = self.steps / (time.perf_counter() - began)
        self.processor.append((time.process_time() - worked) / self.steps)
        return rate


# --- the tables ---


def scalar_peers(python: str, market: Path, stack: ExitStack, steps: int) -> dict[str, Peer]:
    """The peers that step one environment at a time."""
    shared = {"market": str(market), "window": WINDOW, "episode": EPISODE, "steps": steps}
    names = ("gym-trading-env", "gym-anytrading")
    return {name: stack.enter_context(Peer(python, "gym_steps.py", env=name, **shared)) for name in names}


def vector_peers(python: str, market: Path, stack: ExitStack, envs: int, size: Size) -> dict[str, Peer]:
    """TorchTrade's vectorised environment on one thread and on two: which is faster depends on the batch."""
    steps = max(4, min(500, size.steps // 4 // envs))
    shared = {"market": str(market), "window": WINDOW, "episode": EPISODE, "steps": steps, "envs": envs}
    return {
        f"TorchTrade, vectorised, {threads} thread{'s' * (threads > 1)}": stack.enter_context(
            Peer(python, "torchtrade_steps.py", threads=threads, **shared)
        )
        for threads in (1, 2)
    }


def measure(size: Size, pythons: dict[str, str]) -> tuple[list[list[Any]], dict[str, str]]:
    """A row for each environment and number of them, and what to say below."""
    env = jt.TradingEnv(random_market(size.bars), window=WINDOW, episode_length=EPISODE)
    params = env.default_params
    rows: list[list[Any]] = []
    facts: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        market = Path(folder) / "bars.npz"
        save_bars(market, size.bars)
        scalar = scalar_peers(pythons["gym"], market, stack, 20_000) if "gym" in pythons else {}
        for envs in size.envs:
            ours = {kind: Ours(kind, env, params, envs, min(size.steps, size.each * envs)) for kind in (STEP, PATHS)}
            peers, count = dict(scalar), dict.fromkeys(scalar, 1)
            for peer in scalar.values():
                peer.processor.clear()
            with ExitStack() as inner:
                if "torchtrade" in pythons:
                    peers |= vector_peers(pythons["torchtrade"], market, inner, envs, size)
                runners: dict[str, Callable[[], float]] = {**ours, **{name: peer.turn for name, peer in peers.items()}}
                found = in_turn(runners, size.repeats)
            for name, rates in found.items():
                compiled = f"{ours[name].compile_seconds:.1f}" if name in ours else "-"
                over = [f"{ratio(found[kind], rates):.1f}" if name in peers else "-" for kind in (STEP, PATHS)]
                spent = 1e9 * statistics.median({**ours, **peers}[name].processor)
                rows.append([name, envs, count.get(name, envs), statistics.median(rates), spread(rates), spent])
                rows[-1] += [compiled, *over]
            facts |= {name: f"{peer.versions}; observation {peer.about['observation']}" for name, peer in peers.items()}
            print(f"{envs} environments done", flush=True)
    return rows, facts


def main() -> None:
    parser = arguments(__doc__, "tiny sizes, no peer: only shows that the script runs")
    add_options(parser, "gym", "torchtrade")
    given = parsed(parser)
    size = QUICK if given.quick else FULL
    rows, facts = measure(size, {} if given.quick else interpreters(given))
    columns = ["environment", "ours", "its own", "steps/s", "min - max", "ns of processor", "compile s"]
    columns += ["step / it", "paths / it"]
    work = f"{size.bars:,} bars, {WINDOW} bars x 8 features a window, episodes of {EPISODE}, random actions, float32"
    note = "environments side by side, ours and the row's own; peers of one are run again beside each of our batches"
    note += "; ns of processor: of all cores together, a step"
    report("env_steps", columns, rows, {"work": work, "ours, its own": note, **facts}, given.quick)


if __name__ == "__main__":
    main()
