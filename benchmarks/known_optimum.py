"""How long does PPO take to find the best policy of markets where it is known, beside Stable-Baselines3's PPO?

Four parts, each a table:
1. time to 99% of the optimum, ours and SB3's in turn on the same bars, costs and observations, on the markets that the
   defaults were tuned on. The training clock stands while compiling and while a policy is scored; it is scored every
   0.25 s of training, and the time is that of the first of three scores in a row at 99% or more.
2. the score after a fixed number of steps, on signals, costs and persistences that nothing was tuned on.
3. a random walk, where the best is to do nothing: the share of bars on which the policy holds a position.
4. agents: time to 99% again, ours alone, with more and more accounts on each lane: how many may share a lane's bars
   before learning takes 10% longer. A window of 1 leaves them no work to save, so this is what sharing costs.

A score is the policy's share of the best policy's expected reward on a fresh path of 1,000,000 bars. SB3 trains in an
environment of its own, which the first run installs.

    python benchmarks/known_optimum.py [--quick] [--seeds N] [--parts timed,other,idle,agents]
        [--peers sb3] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from machine import report
from peers.install import add_options, interpreters
from workload import begin

import jaxtrader as jt
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.market.datasets import AR1, OrnsteinUhlenbeck, RandomWalk
from jaxtrader.market.synthetic import Process
from jaxtrader.training.chunk import NO_LIMIT, init_state, run_chunk
from jaxtrader.training.rollout import LaneRollouts

LEVEL, IN_A_ROW, SLICE = 0.99, 3, 0.25
AGENTS, AGENTS_SLICE, ALLOWED = (1, 2, 4, 8, 16), 0.05, 1.1  # scored more often: 10% must be seen
DISCRETE = (-1.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A market and how it is traded."""

    label: str
    process: Process
    positions: Any
    cost_bps: float = 5.0

    def environment(self, bars: int) -> jt.TradingEnv:
        """Over a training path of its own."""
        return jt.TradingEnv(
            self.process.market(bars, seed=0),
            positions=self.positions,
            window=1,
            costs=jt.Costs.from_bps(fee=1.0, slippage=self.cost_bps - 1.0),
            rebalance_band=0.0,
        )


TIMED = (
    Case("(a) AR(1) signal, positions -1/0/1", AR1(), DISCRETE),
    Case("(b) AR(1) signal, continuous", AR1(), "continuous"),
    Case("(d) mean reversion, positions -1/0/1", OrnsteinUhlenbeck(), DISCRETE),
)
OTHER = (
    Case("(a) R2 2%, persistence 0.8, 10 bp", AR1(0.02, 0.02, 0.8), DISCRETE, 10),
    Case("(a) R2 0.5%, persistence 0.97, 3 bp", AR1(0.01, 0.005, 0.97), DISCRETE, 3),
    Case("(b) R2 2%, persistence 0.8, 10 bp", AR1(0.02, 0.02, 0.8), "continuous", 10),
    Case("(b) R2 0.5%, persistence 0.97, 3 bp", AR1(0.01, 0.005, 0.97), "continuous", 3),
    Case("(d) persistence 0.9, volatility 2%, 10 bp", OrnsteinUhlenbeck(0.02, 0.9), DISCRETE, 10),
    Case("(d) persistence 0.98, volatility 1%, 3 bp", OrnsteinUhlenbeck(0.01, 0.98), DISCRETE, 3),
)
IDLE = (
    Case("(c) volatility 2%, persistence 0.9, 5 bp", RandomWalk(0.02), DISCRETE, 5),
    Case("(c) volatility 2%, persistence 0.8, 10 bp", RandomWalk(0.02, persistence=0.8), DISCRETE, 10),
    Case("(c) volatility 2%, persistence 0.97, 3 bp", RandomWalk(0.02, persistence=0.97), DISCRETE, 3),
    Case("(c) volatility 1%, persistence 0.9, 5 bp", RandomWalk(0.01), DISCRETE, 5),
)

# The fastest of some 40 settings tried for each; a setting that helped one was tried for the other too.
TIMED_AGENT = {"schedule": "constant", "gamma": 0.95, "gae_lambda": 0.7, "num_epochs": 2, "entropy_coef": 0.0}
SHAPE = (1024, 16)  # environments, bars of each between two updates
_PEER = {"n_envs": 256, "n_steps": 16, "batch_size": 1024, "learning_rate": 1e-3, "gamma": 0.95}
PEERS = {  # two, since neither is the faster one everywhere
    "Stable-Baselines3, as ours": {**_PEER, "n_epochs": 2, "gae_lambda": 0.7},
    "Stable-Baselines3, its own": {**_PEER, "n_epochs": 4, "gae_lambda": 0.95},
}
# The same, with the rate decayed to 0 and the default bonus for entropy.
SCORED_AGENT = {"gamma": 0.95, "gae_lambda": 0.7, "num_epochs": 2}
# What a position costs on a random walk adds up slowly: it takes the long horizon of the defaults to see it.
IDLE_AGENT: dict[str, Any] = {"gae_lambda": 0.99, "num_epochs": 2, "entropy_coef": 0.03}
IDLE_SHAPE = (256, 64)
SCORED_STEPS = 8_192_000


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of it all."""

    bars: int = 1_000_000
    scored_bars: int = 2_000_000  # to train on in parts 2 and 3: so many that data is not the limit
    score_bars: int = 1_000_000
    seeds: int = 5
    limit: float = 30.0
    steps: int = SCORED_STEPS
    shape: tuple[int, int] = SHAPE
    idle_shape: tuple[int, int] = IDLE_SHAPE
    cases: int = 10  # of each part, at most
    agents: tuple[int, ...] = AGENTS
    timed_agent: dict[str, Any] = dataclasses.field(default_factory=lambda: TIMED_AGENT)
    scored_agent: dict[str, Any] = dataclasses.field(default_factory=lambda: SCORED_AGENT)
    suffix: str = ""


FULL = Size()
# One agent in all parts, which is then compiled once.
QUICK = Size(2_000, 2_000, 2_000, 1, 0.1, 256, (16, 16), (16, 16), 1, (1,), {}, {}, "_quick")


# --- ours ---


class Learner:
    """Our PPO on one case and seed: trains by chunks of the Trainer's own, and scores itself."""

    def __init__(
        self,
        env: jt.TradingEnv,
        best: Optimum,
        agent: jt.PPOAgent,
        shape: tuple[int, int],
        updates: int,
        seed: int,
        agents: int = 1,
    ) -> None:
        self.best = best
        envs, length = shape
        self.rollouts = LaneRollouts(env, length, envs // agents, agents)
        self.carry, self.agent, self.params = begin(env, env.default_params, agent, self.rollouts, seed)
        _, self.scored_on = self.agent.prepare(self.carry.agent, best.env.default_params)
        self.limits = {"updates": jnp.asarray(updates, jnp.int32), "episodes": jnp.asarray(NO_LIMIT, jnp.int32)}
        began = time.perf_counter()
        kept = jax.tree.map(jnp.copy, self.carry)
        self.train(0)
        self.compile_seconds = time.perf_counter() - began
        self.carry = kept

    def train(self, updates: int) -> float:
        """Some updates; the seconds that they took."""
        began = time.perf_counter()
        count = jnp.asarray(updates, jnp.int32)
        self.carry, _ = run_chunk(self.carry, self.agent, self.params, self.limits, count, rollouts=self.rollouts)
        jax.block_until_ready(self.carry)
        return time.perf_counter() - began

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return int(self.carry.updates) * self.rollouts.lanes * self.rollouts.agents * self.rollouts.length

    def score(self) -> tuple[float, float]:
        """Share of the optimum, and of bars with a position."""
        reward, held = self.best.walk(self.agent, self.carry.agent, self.scored_on)
        return self.best.share(float(reward)), float(held)


@dataclasses.dataclass
class Race:
    """The scores of one training, and when they were had."""

    compile_seconds: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    steps: list[int] = dataclasses.field(default_factory=list)
    shares: list[float] = dataclasses.field(default_factory=list)

    def add(self, seconds: float, steps: int, share: float) -> bool:
        """Note a score; True where the race is over."""
        self.seconds.append(seconds)
        self.steps.append(steps)
        self.shares.append(share)
        return self.won

    @property
    def won(self) -> bool:
        """True where three scores in a row were at the level."""
        return len(self.shares) >= IN_A_ROW and min(self.shares[-IN_A_ROW:]) >= LEVEL

    @property
    def time(self) -> float:
        """Seconds to the first of the three; infinite where they were not had."""
        return self.seconds[-IN_A_ROW] if self.won else math.inf


def race_ours(
    env: jt.TradingEnv, best: Optimum, seed: int, size: Size, agents: int = 1, portion: float = SLICE
) -> Race:
    """Train until the level, or the size's limit, with a score after each `portion` of seconds."""
    learner = Learner(env, best, jt.PPOAgent(**size.timed_agent), size.shape, NO_LIMIT, seed, agents)
    race, clock, updates = Race(learner.compile_seconds), 0.0, 1
    while clock < size.limit:
        spent = 0.0
        while spent < portion:
            took = learner.train(updates)
            spent += took
            updates = max(1, round(updates * portion / took / 2))  # some dispatches a slice, each no trifle
        clock += spent
        if race.add(clock, learner.steps, learner.score()[0]):
            break
    return race


# --- SB3 ---


class PeerPolicy(struct.PyTreeNode):
    """The actor that a peer has learnt, as something that acts: tanh layers over the feature and the account."""

    layers: list[tuple[jax.Array, jax.Array]]
    continuous: bool = struct.field(pytree_node=False)

    def encode(self, state: Any, chunk: jax.Array) -> jax.Array:
        """The features as they are."""
        return chunk[..., 0, :]

    def act(
        self, state: Any, context: jax.Array, account: jax.Array, key: Any, deterministic: bool = True
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The mode: the highest logit, or the mean, bounded as SB3 bounds it."""
        x = jnp.concatenate([context, account[..., 0, :]], -1)
        for kernel, bias in self.layers[:-1]:
            x = jnp.tanh(x @ kernel + bias)
        kernel, bias = self.layers[-1]
        x = x @ kernel + bias
        return (jnp.clip(x, -1, 1) if self.continuous else jnp.argmax(x, -1)), {}


def race_peer(
    python: str, settings: dict[str, Any], env: jt.TradingEnv, best: Optimum, seed: int, limit: float
) -> Race:
    """The same with Stable-Baselines3, in a process of its own that waits while it is scored."""
    agent = jt.PPOAgent()
    state = init_state(agent, jax.random.key(0), env.default_params, env=env)
    state, params = agent.prepare(state, env.default_params)
    _, scored_on = agent.prepare(state, best.env.default_params)
    race, continuous = Race(math.nan), isinstance(env.positions, str)
    with tempfile.TemporaryDirectory() as folder:
        market, config = Path(folder) / "market.npz", Path(folder) / "config.json"
        columns = {name: getattr(env.market, name)[:, 0] for name in ("open", "close", "volatility")}
        features = np.asarray(params.tape.features)[:, 0]
        np.savez(market, **columns, features=features, segments=env.market.segments)
        terms = {"positions": env.positions, "fee": env.costs.fee, "slippage": env.costs.slippage}
        terms |= {"rebalance_band": env.rebalance_band, "episode_length": env.episode_length}
        config.write_text(json.dumps({**settings, **terms, "seed": seed, "slice_seconds": SLICE}))
        script = Path(__file__).parent / "peers" / "sb3_market.py"
        command = [python, str(script), str(market), str(config), str(Path(folder) / "weights")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line)
                with np.load(said["file"]) as stored:
                    count = sum(name.startswith("kernel") for name in stored)
                    layers = [
                        (jnp.asarray(stored[f"kernel_{i}"]), jnp.asarray(stored[f"bias_{i}"])) for i in range(count)
                    ]
                reward, _ = best.walk(PeerPolicy(layers, continuous), None, scored_on)
                over = race.add(said["seconds"], said["steps"], best.share(float(reward)))
                over |= said["seconds"] >= limit
                process.stdin.write("stop\n" if over else "go\n")
                process.stdin.flush()
        if process.returncode:
            raise SystemExit(f"the peer's training ended with {process.returncode}")
    return race


# --- the tables ---


def solved(case: Case, train_bars: int, score_bars: int) -> tuple[jt.TradingEnv, Optimum]:
    """The environment of a case, and its optimum."""
    env = case.environment(train_bars)
    return env, solve(case.process, env, bars=score_bars)


def timed(size: Size, python: str | None) -> None:
    """Part 1."""
    columns = ["market", "trainer", "s to 99%", "min - max", "steps to 99%", "steps/s", "compile s", "best score"]
    rows, ratios = [], {}
    for case in TIMED[: size.cases]:
        env, best = solved(case, size.bars, size.score_bars)
        peers = {} if python is None else PEERS
        races: dict[str, list[Race]] = {name: [] for name in ("jaxtrader", *peers)}
        for seed in range(size.seeds):
            races["jaxtrader"].append(race_ours(env, best, seed, size))
            for name, settings in peers.items():
                assert python is not None
                races[name].append(race_peer(python, settings, env, best, seed, size.limit))
            said = ", ".join(f"{name} {_seconds(runs[-1].time)}" for name, runs in races.items())
            print(f"{case.label}, seed {seed}, seconds: {said}", flush=True)
        rows += [[case.label, name, *_summary(runs)] for name, runs in races.items()]
        if peers:
            ours, *theirs = (statistics.median(race.time for race in runs) for runs in races.values())
            ratios[f"{case.label}: times as fast as the faster of them"] = f"{min(theirs) / ours:.2f}"
    facts = {
        "work": f"{size.seeds} seeds, MLP 2x64 for actor and critic, scored every {SLICE} s of training on "
        f"{size.score_bars:,} fresh bars; medians; never: not within {size.limit:g} s",
        "jaxtrader": f"PPOAgent({', '.join(f'{k}={v!r}' for k, v in size.timed_agent.items())}), "
        f"{size.shape[0]} environments x {size.shape[1]}",
        **(
            {name: ", ".join(f"{k} {v}" for k, v in settings.items()) for name, settings in PEERS.items()}
            if python
            else {}
        ),
        **ratios,
    }
    report("known_optimum_timed" + size.suffix, columns, rows, facts)


def _summary(races: list[Race]) -> list[Any]:
    times = [race.time for race in races]
    won = [race.steps[-IN_A_ROW] if race.won else math.inf for race in races]
    speed = statistics.median(race.steps[-1] / race.seconds[-1] for race in races)
    spread = f"{_seconds(min(times))} - {_seconds(max(times))}"
    compiled = races[0].compile_seconds
    return [
        _seconds(statistics.median(times)),
        spread,
        _count(statistics.median(won)),
        f"{speed:,.0f}",
        "-" if math.isnan(compiled) else f"{compiled:.1f}",
        f"{statistics.median(max(race.shares) for race in races):.4f}",
    ]


def _seconds(x: float) -> str:
    return f"{x:.2f}" if math.isfinite(x) else "never"


def _count(x: float) -> str:
    return f"{x:,.0f}" if math.isfinite(x) else "never"


def shared_lanes(size: Size) -> None:
    """Part 4."""
    rows: list[list[Any]] = []
    fit: dict[str, str] = {}
    for case in (TIMED[0], TIMED[2])[: size.cases]:
        env, best = solved(case, size.bars, size.score_bars)
        races: dict[int, list[Race]] = {agents: [] for agents in size.agents}
        for seed in range(size.seeds):
            for agents, runs in races.items():
                runs.append(race_ours(env, best, seed, size, agents, AGENTS_SLICE))
        times = {agents: statistics.median(race.time for race in runs) for agents, runs in races.items()}
        for agents, runs in races.items():
            rows.append([case.label, agents, f"{times[agents] / times[1]:.2f}" if math.isfinite(times[1]) else "-"])
            rows[-1] += _summary(runs)
        print(case.label, times, flush=True)
        fit[f"{case.label}: most agents a lane within 10% of one's time"] = str(most_within(times))
    facts = {"work": f"{size.seeds} seeds, {size.shape[0]} environments x {size.shape[1]} in all, window 1; medians"}
    columns = [
        "market",
        "agents a lane",
        "time / one's",
        "s to 99%",
        "min - max",
        "steps to 99%",
        "steps/s",
        "compile s",
    ]
    report("known_optimum_agents" + size.suffix, [*columns, "best score"], rows, {**facts, **fit})


def most_within(times: dict[int, float]) -> int:
    """The largest number of agents a lane up to which no time is above ALLOWED times one agent's."""
    most = 1
    for agents in sorted(times):
        if not (math.isfinite(times[agents]) and times[agents] <= ALLOWED * times[1]):
            break
        most = agents
    return most


def scored(
    name: str,
    cases: tuple[Case, ...],
    size: Size,
    settings: dict[str, Any],
    shape: tuple[int, int],
    measure: Callable[[tuple[float, float]], float],
) -> None:
    """Parts 2 and 3: a figure after a fixed number of steps with the rate decayed to 0, each seed."""
    figure = "score" if name == "other" else "share of bars in position"
    rows = []
    for case in cases[: size.cases]:
        env, best = solved(case, size.scored_bars, size.score_bars)
        figures, seconds = [], []
        updates = size.steps // math.prod(shape)
        for seed in range(size.seeds):
            learner = Learner(env, best, jt.PPOAgent(**settings), shape, updates, seed)
            seconds.append(learner.train(updates))
            figures.append(measure(learner.score()))
            print(f"{case.label}, seed {seed}: {figures[-1]:.4f} after {seconds[-1]:.1f} s", flush=True)
        rows.append(
            [case.label, *(f"{f(figures):.4f}" for f in (min, statistics.median, max)), statistics.median(seconds)]
        )
    agent = ", ".join(f"{k}={v!r}" for k, v in settings.items())
    work = f"{size.seeds} seeds, PPOAgent({agent}), {shape[0]} environments x {shape[1]}"
    facts = {"work": f"{work}, {size.steps:,} steps"}
    columns = ["market", f"least {figure}", "median", "most", "seconds"]
    report(f"known_optimum_{name}{size.suffix}", columns, rows, facts)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no peer: only shows that the script runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", default=None, help="which tables, with commas; default timed,other,idle,agents")
    add_options(parser, "sb3")
    given = parser.parse_args()
    size = QUICK if given.quick else dataclasses.replace(FULL, seeds=given.seeds)
    # A quick run compiles each function of this file once.
    parts = (given.parts or ("timed,other" if given.quick else "timed,other,idle,agents")).split(",")
    if "timed" in parts:
        timed(size, None if given.quick else interpreters(given).get("sb3"))
    if "other" in parts:
        scored("other", OTHER, size, size.scored_agent, size.shape, lambda score: score[0])
    if "idle" in parts:
        scored("idle", IDLE, size, IDLE_AGENT, size.idle_shape, lambda score: score[1])
    if "agents" in parts:
        shared_lanes(size)


if __name__ == "__main__":
    main()
