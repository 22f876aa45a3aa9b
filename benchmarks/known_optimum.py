"""How long does PPO take to find the best policy of markets where it is known, beside Stable-Baselines3's PPO?

Each part prints a table or two:
timed: the time to 99% of the optimum. Settings of ours and of SB3's run in turn on the same bars, costs and
    observations, each seed on a training path of its own. The clock stands while compiling and scoring. A policy is
    scored every 0.25 s of training. The time is that of the first of three scores in a row at 99% or more. Where
    training is over, the last score stays.
other: the score after a fixed number of steps, on signals, costs and persistences that nothing was tuned on.
idle: the share of bars with a position on a random walk, where the best is to do nothing. The settings were chosen on
    the first seven walks.
defaults: both again with `PPOAgent()` as it is.
memory: the score on a regime that nobody sees, where only the past returns tell of it: each encoder, by its window.
agents: the time to 99% with more and more accounts on each path, ours alone. It says how many may share a path before
    learning takes 10% longer. A window of 1 leaves them no work to save, so this is what sharing costs.
windows: the share of the optimum after so many steps with 1 and 2 accounts on a path, by an encoder over a window.
    There sharing saves work, and two are the default.
command: `jaxtrader train --synthetic` as a whole process with its defaults: seconds, and the share it ends with.

A score is the policy's share of the best policy's expected reward on a fresh path of 1,000,000 bars. SB3 trains in a
virtual environment of its own, which the first run installs.

    python benchmarks/known_optimum.py [--quick] [--seeds N] [--parts PART ...] [--markets WORDS]
        [--peers sb3] [--peer-python PEER=PYTHON]
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from machine import arguments, parsed, report
from peers.install import add_options, interpreters
from races import IN_A_ROW, SLICE, Case, Learner, Race, race_ours, race_peer

import jaxtrader as jt
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.market.datasets import AR1, HiddenRegime, OrnsteinUhlenbeck, RandomWalk
from jaxtrader.market.synthetic import PROCESSES
from jaxtrader.training.train_settings import NO_LIMIT

UNSEEN = 200  # the first of the seeds that are raced: nothing was tuned on them, nor raced before
AGENTS, AGENTS_SLICE, ALLOWED = (1, 2, 4, 8, 16), 0.05, 1.1  # scored more often: 10% must be seen
SECONDS, STEPS = (0.5, 1, 2, 4, 8, 16, 30), (50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000)
DISCRETE = (-1.0, 0.0, 1.0)

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
    Case("weights, R2 2%, persistence 0.8, 10 bp", AR1(0.02, 0.02, 0.8), "weights", 10),
    Case("weights, R2 0.5%, persistence 0.97, 3 bp", AR1(0.01, 0.005, 0.97), "weights", 3),
    # The one whose best position is seldom all or nothing. That it is learnt badly from a wide start was found on it.
    Case("(b) R2 0.25%, persistence 0.95, volatility 5%, 3 bp", AR1(0.05, 0.0025, 0.95), "continuous", 3),
)
IDLE = (
    Case("(c) volatility 2%, persistence 0.9, 5 bp", RandomWalk(0.02), DISCRETE, 5),
    Case("(c) volatility 2%, persistence 0.8, 10 bp", RandomWalk(0.02, persistence=0.8), DISCRETE, 10),
    Case("(c) volatility 2%, persistence 0.97, 3 bp", RandomWalk(0.02, persistence=0.97), DISCRETE, 3),
    Case("(c) volatility 1%, persistence 0.9, 5 bp", RandomWalk(0.01), DISCRETE, 5),
    # The net's width was chosen when one of 15 runs on these three had failed, the steps when one of all 35 had.
    Case("(c) volatility 3%, persistence 0.85, 4 bp", RandomWalk(0.03, persistence=0.85), DISCRETE, 4),
    Case("(c) volatility 1.5%, persistence 0.95, 8 bp", RandomWalk(0.015, persistence=0.95), DISCRETE, 8),
    Case("(c) volatility 1%, persistence 0.7, 3 bp", RandomWalk(0.01, persistence=0.7), DISCRETE, 3),
    # Nothing was chosen on these, though two had passed with half of the steps before those were doubled.
    Case("(c) volatility 2.5%, persistence 0.92, 6 bp", RandomWalk(0.025, persistence=0.92), DISCRETE, 6),
    Case("(c) volatility 1.2%, persistence 0.8, 4 bp", RandomWalk(0.012, persistence=0.8), DISCRETE, 4),
    Case("(c) volatility 4%, persistence 0.6, 2 bp", RandomWalk(0.04, persistence=0.6), DISCRETE, 2),
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """How ours is trained.

    Attributes:
        agent: of PPOAgent, what differs from its defaults.
        shape: environments, bars of each between two updates.
        steps: over which the rate falls to 0, if it does. Training ends there.
    """

    agent: dict[str, Any]
    shape: tuple[int, int]
    steps: int | None = None

    @property
    def updates(self) -> int:
        """In all."""
        return NO_LIMIT if self.steps is None else self.steps // math.prod(self.shape)

    def describe(self) -> str:
        """For the table's facts."""
        words = ", ".join(f"{k}={v!r}" for k, v in self.agent.items())
        envs, bars = self.shape
        steps = "" if self.steps is None else f", {self.steps:,} steps"
        return f"PPOAgent({words}), {envs} environments x {bars}{steps}"


# Found by hand, on seeds that are not among the table's. The first is PPO with less of a trace and fewer epochs. The
# second takes one pass in small steps at a high rate, which must then decay. The peer has its twin, for as many steps
# and fewer, and all else that was fast for it. The nets are 2x32, half of the work of 2x64, and the peer has both. A
# continuous policy starts wide, ours and the peer's, and learns its deviation. That gets to 99% of (b) much faster than
# the default of either. What the mode of so wide a policy would earn says little of the noise, so our baseline is off.
NET = (32, 32)
_OURS = {"gamma": 0.95, "entropy_coef": 0.0, "log_std_init": 1.0, "market_baseline": False, "hidden": NET}
OURS = {
    "jaxtrader, 1024 x 16": Setting(
        {**_OURS, "schedule": "constant", "gae_lambda": 0.7, "num_epochs": 2},
        (1024, 16),
    ),
    "jaxtrader, 1024 x 16, decayed, 1 epoch": Setting(
        {**_OURS, "gae_lambda": 0.5, "num_epochs": 1, "num_minibatches": 8, "learning_rate": 2e-3},
        (1024, 16),
        2_000_000,
    ),
}
_PEER = {"n_steps": 16, "n_epochs": 2, "gamma": 0.95, "gae_lambda": 0.7, "log_std_init": 1.0, "net": list(NET)}
_PEER |= {"threads": 2}  # a second makes 1.15 - 1.22 times as many steps/s of the larger batches
_ONCE = {**_PEER, "n_envs": 512, "batch_size": 1024, "n_epochs": 1, "linear": True, "total_steps": 1_000_000}
_FAST = {**_ONCE, "gae_lambda": 0.5, "learning_rate": 2e-3}
_TWIN = {**_FAST, "n_envs": 1024, "batch_size": 2048, "total_steps": 2_000_000}
PEERS = {
    "SB3, 128 x 16": {**_PEER, "n_envs": 128, "batch_size": 512, "learning_rate": 1e-3},
    "SB3, 256 x 16, decayed": {
        **_PEER,
        "n_envs": 256,
        "batch_size": 1024,
        "learning_rate": 1e-3,
        "linear": True,
        "total_steps": 600_000,
    },
    "SB3, 512 x 16, decayed, 1 epoch": {**_ONCE, "gae_lambda": 0.3, "learning_rate": 1e-3},
    "SB3, 512 x 16, decayed, 1 epoch, 2e-3": _FAST,
    "SB3, 512 x 16, decayed, 1 epoch, 2e-3, 400k": {**_FAST, "total_steps": 400_000},
    "SB3, 512 x 16, decayed, 1 epoch, 2e-3, 2x64": {**_FAST, "net": [64, 64]},
    "SB3, 1024 x 16, decayed, 1 epoch, 2e-3": _TWIN,
    "SB3, 1024 x 16, decayed, 1 epoch, 2e-3, 1M": {**_TWIN, "total_steps": 1_000_000},
}
# With the rate decayed to 0 and the default bonus for entropy.
SCORED_AGENT = {"gamma": 0.95, "gae_lambda": 0.7, "num_epochs": 2}
SCORED_SHAPE = (1024, 16)
REGIME = HiddenRegime(volatility=0.004)
MEMORIES = (
    *(Case(f"(h) mlp, window {window}", REGIME, DISCRETE, window=window) for window in (1, 16, 64)),
    *(
        Case(f"(h) {encoder}, window 64", REGIME, DISCRETE, 5, 64, {"encoder": encoder, "encoder_width": 16})
        for encoder in ("tcn", "attention", "gru", "lru")
    ),
)
MEMORY_STEPS, MEMORY_SHAPE = 2_097_152, (256, 64)
WINDOW, WINDOWED_SHAPE = 16, (512, 32)
WINDOWED_MILESTONES = (262_144, 524_288, 999_424)  # in steps. The last is the end of the schedule.
# What a position costs on a random walk adds up slowly: it takes a long horizon to see it.
IDLE_AGENT: dict[str, Any] = {"gae_lambda": 0.99, "num_epochs": 2, "entropy_coef": 0.03, "hidden": NET}
IDLE_SHAPE = (512, 64)
SCORED_STEPS, IDLE_STEPS = 8_192_000, 16_384_000


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of it all."""

    quick: bool = False
    bars: int = 1_000_000
    scored_bars: int = 2_000_000  # to train on where nothing is timed: so many that data is not the limit
    score_bars: int = 1_000_000
    seeds: int = 5
    limit: float = 30.0
    steps: int = SCORED_STEPS
    shape: tuple[int, int] = SCORED_SHAPE
    cases: int = 10  # of each part, at most
    markets: str = ""  # what their labels must hold
    agents: tuple[int, ...] = AGENTS
    ours: dict[str, Setting] = dataclasses.field(default_factory=lambda: OURS)
    scored_agent: dict[str, Any] = dataclasses.field(default_factory=lambda: SCORED_AGENT)

    def of(self, cases: tuple[Case, ...]) -> tuple[Case, ...]:
        """Those that are asked for."""
        return tuple(case for case in cases if self.markets in case.label)[: self.cases]

    def optimum(self, case: Case) -> Optimum:
        """The best policy of a case, and the fresh path that policies are scored on."""
        return solve(case.process, case.environment(1_000), bars=self.score_bars)


PARTS = ("timed", "other", "idle", "defaults", "memory", "agents", "windows", "command")
# One agent in all parts, which is then compiled once.
QUICK = Size(
    quick=True,
    bars=2_000,
    scored_bars=2_000,
    score_bars=2_000,
    seeds=1,
    limit=0.1,
    steps=256,
    shape=(16, 16),
    cases=1,
    agents=(1,),
    ours={"jaxtrader": Setting({}, (16, 16))},
    scored_agent={},
)


# --- races ---

Way = Callable[[jt.TradingEnv, Optimum, int], Race]
"""A race on an environment to an optimum, of a seed."""


def raced(case: Case, ways: dict[Any, Way], best: Optimum, size: Size, first_seed: int) -> dict[Any, list[Race]]:
    """The races of each way in turn, seed by seed."""
    races: dict[Any, list[Race]] = {name: [] for name in ways}
    for seed in range(first_seed, first_seed + size.seeds):
        env = case.environment(size.bars, seed)
        for name, way in ways.items():
            races[name].append(way(env, best, seed))
        said = ", ".join(f"{name} {_seconds(runs[-1].time)}" for name, runs in races.items())
        print(f"{case.label}, seed {seed}, seconds: {said}", flush=True)
    return races


def ours(
    env: jt.TradingEnv,
    best: Optimum,
    seed: int,
    setting: Setting,
    limit: float,
    agents: int = 1,
    portion: float = SLICE,
) -> Race:
    """A race of ours."""
    learner = Learner(env, best, jt.PPOAgent(**setting.agent), setting.shape, setting.updates, seed, agents)
    return race_ours(learner, limit, portion)


def median_time(races: list[Race]) -> float:
    """Seconds."""
    return statistics.median(race.time for race in races)


def timed(size: Size, python: str | None) -> None:
    """The part of that name."""
    peers = {} if python is None else PEERS
    ways: dict[str, Way] = {
        name: partial(ours, setting=setting, limit=size.limit) for name, setting in size.ours.items()
    }
    ways |= {name: partial(race_peer, python, settings, limit=size.limit) for name, settings in peers.items()}
    found: dict[tuple[str, str], list[Race]] = {}
    ratios: dict[str, str] = {}
    for case in size.of(TIMED):
        races = raced(case, ways, size.optimum(case), size, UNSEEN)
        found |= {(case.label, name): runs for name, runs in races.items()}
        ratios |= _ratios(case, races, size) if peers else {}
    columns = ["market", "trainer", "s to 99%", "min - max", "steps to 99%", "steps/s", "compile s", "best score"]
    facts = {
        "work": f"{size.seeds} seeds, MLP 2x{NET[0]} for actor and critic unless said, scored every {SLICE} s of "
        f"training on {size.score_bars:,} fresh bars; medians; never: not within {size.limit:g} s",
        **{name: setting.describe() for name, setting in size.ours.items()},
        **{name: ", ".join(f"{k} {v}" for k, v in settings.items()) for name, settings in peers.items()},
        **ratios,
    }
    rows = [[*place, *_summary(runs)] for place, runs in found.items()]
    report("known_optimum_timed", columns, rows, facts, size.quick)
    for clock, milestones in (("seconds", SECONDS), ("steps", STEPS)):
        _curves(found, clock, milestones, size.quick)


def _ratios(case: Case, races: dict[str, list[Race]], size: Size) -> dict[str, str]:
    """How many times as fast ours are on a market as the peer's best setting."""
    median = {name: median_time(runs) for name, runs in races.items()}
    sure = {name: time for name, time in median.items() if all(race.won for race in races[name])}
    theirs, best_sure = (min((x[name] for name in PEERS if name in x), default=math.inf) for x in (median, sure))
    words = f"{case.label}: %s is so many times as fast as the peer's best"
    ratios = {words % name: _ratio(theirs, median[name]) for name in size.ours}
    ours_sure = min((sure[name] for name in size.ours if name in sure), default=math.inf)
    return ratios | {f"{case.label}: the same of the best that arrive on every seed": _ratio(best_sure, ours_sure)}


def _ratio(theirs: float, ours: float) -> str:
    """How many times as fast, where both arrive."""
    return f"{theirs / ours:.2f}" if math.isfinite(theirs) and math.isfinite(ours) else "-"


def _curves(found: dict[tuple[str, str], list[Race]], clock: str, milestones: tuple[float, ...], quick: bool) -> None:
    """The median score within so many seconds or steps. A race that is over stays at its last score."""
    rows = []
    for place, runs in found.items():
        # Before its first score a race has none: it counts as the lowest.
        found_so_far = [[race.share_after(milestone, clock) for race in runs] for milestone in milestones]
        shares = [statistics.median(-math.inf if math.isnan(x) else x for x in shares) for shares in found_so_far]
        rows.append([*place, *(f"{share:.3f}" if math.isfinite(share) else "-" for share in shares)])
    columns = ["market", "trainer", *(f"{milestone:,} {clock}" for milestone in milestones)]
    work = f"share of the optimum within so many {clock} of training, median of seeds"
    report(f"known_optimum_by_{clock}", columns, rows, {"work": work}, quick)


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


def shared_paths(size: Size) -> None:
    """The part "agents"."""
    rows: list[list[Any]] = []
    fit: dict[str, str] = {}
    setting = next(iter(size.ours.values()))
    ways = {
        agents: partial(ours, setting=setting, limit=size.limit, agents=agents, portion=AGENTS_SLICE)
        for agents in size.agents
    }
    for case in size.of((TIMED[0], TIMED[2])):
        races = raced(case, ways, size.optimum(case), size, 0)
        times = {agents: median_time(runs) for agents, runs in races.items()}
        for agents, runs in races.items():
            over = f"{times[agents] / times[1]:.2f}" if math.isfinite(times[1]) else "-"
            rows.append([case.label, agents, over, *_summary(runs)])
        fit[f"{case.label}: most accounts a path within 10% of one's time"] = str(most_within(times))
    columns = ["market", "accounts a path", "time / one's", "s to 99%", "min - max", "steps to 99%", "steps/s"]
    facts = {"work": f"{size.seeds} seeds, {setting.describe()} in all, window 1; medians", **fit}
    report("known_optimum_agents", [*columns, "compile s", "best score"], rows, facts, size.quick)


def most_within(times: dict[int, float]) -> int:
    """The largest number of accounts a path up to which no time is above ALLOWED times that of one account."""
    most = 1
    for agents in sorted(times):
        if not (math.isfinite(times[agents]) and times[agents] <= ALLOWED * times[1]):
            break
        most = agents
    return most


# --- scores after so many steps ---


def scored(name: str, cases: tuple[Case, ...], size: Size, settings: dict[str, Any]) -> None:
    """A figure after a fixed number of steps with the rate decayed to 0, each seed."""
    rows, updates = [], size.steps // math.prod(size.shape)
    for case in size.of(cases):
        best, figures, seconds = size.optimum(case), [], []
        idle = isinstance(case.process, RandomWalk)
        for seed in range(size.seeds):
            env, agent = case.environment(size.scored_bars, seed), jt.PPOAgent(**settings, **case.agent)
            learner = Learner(env, best, agent, size.shape, updates, seed)
            seconds.append(learner.train(updates))
            figures.append(learner.score()[idle])
            print(f"{case.label}, seed {seed}: {figures[-1]:.4f} after {seconds[-1]:.1f} s", flush=True)
        spread = (f"{f(figures):.4f}" for f in (min, statistics.median, max))
        rows.append([case.label, "bars in market" if idle else "score", *spread, statistics.median(seconds)])
    agent, shape = ", ".join(f"{k}={v!r}" for k, v in settings.items()), "{} environments x {}".format(*size.shape)
    columns = ["market", "share of the optimum, or of bars", "least", "median", "most", "seconds"]
    work = f"{size.seeds} seeds, PPOAgent({agent}), {shape}, {size.steps:,} steps"
    report(f"known_optimum_{name}", columns, rows, {"work": work}, size.quick)


def shared_windows(size: Size, milestones: Sequence[int], window: int, agent: dict[str, Any]) -> None:
    """The part "windows". A fixed number of steps, since a machine may be busy with other work."""
    rows: list[list[Any]] = []
    updates = [milestone // math.prod(size.shape) for milestone in milestones]
    for case in size.of((TIMED[0], TIMED[2])):
        windowed = dataclasses.replace(case, window=window)
        best = size.optimum(windowed)
        for agents in size.agents[:2]:
            shares: list[list[float]] = [[] for _ in milestones]
            seconds = []
            for seed in range(size.seeds):
                env = windowed.environment(size.bars, seed)
                learner = Learner(env, best, jt.PPOAgent(**agent), size.shape, updates[-1], seed, agents)
                took = 0.0
                for until, found in zip(updates, shares, strict=True):
                    took += learner.train(until - updates[-1] + learner.left)
                    found.append(learner.score()[0])
                seconds.append(took)
            means = [f"{statistics.mean(found):.4f}" for found in shares]
            speed = f"{milestones[-1] / statistics.median(seconds):,.0f}"
            rows.append([case.label, agents, *means, f"{min(shares[-1]):.4f}", speed])
            print(*rows[-1], flush=True)
    columns = [
        "market",
        "accounts a path",
        *(f"{milestone:,} steps" for milestone in milestones),
        "least at the end",
        "steps/s",
    ]
    shape = "{} environments x {}".format(*size.shape)
    work = f"mean share over {size.seeds} seeds, PPOAgent({agent}), window {window}, {shape}"
    report("known_optimum_windows", columns, rows, {"work": work}, size.quick)


def command() -> None:
    """`jaxtrader train --synthetic` as a newcomer runs it, with nothing compiled before."""
    rows = []
    for market in PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            words = ["train", "--synthetic", market, "--run-dir", f"{folder}/run", "--quiet"]
            began = time.perf_counter()
            environment = {**os.environ, "JAXTRADER_CACHE": "off"}
            subprocess.run([sys.executable, "-m", "jaxtrader", *words], check=True, env=environment)
            took = time.perf_counter() - began
            records = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        last = records[-1]
        share = f"{last['optimum_share']:.4f}" if "optimum_share" in last else "-"
        rows.append([" ".join(("jaxtrader", *words[:3])), took, last["steps"], share, last["valid_time_in_market"]])
    columns = ["command", "seconds", "steps", "share of the optimum", "bars in market"]
    work = "whole processes without a compilation cache, seed 0"
    report("known_optimum_command", columns, rows, {"work": work}, quick=False)


def main() -> None:
    parser = arguments(__doc__, "tiny sizes, no peer: only shows that the script runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--markets", default="", metavar="WORDS", help='only those whose label holds it, as "(b)"')
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="which tables; default all")
    add_options(parser, "sb3")
    given = parsed(parser)
    quick, every = given.quick, TIMED + OTHER + IDLE + MEMORIES
    if not any(given.markets in case.label for case in every):
        parser.error(f"no market's label holds {given.markets!r}; there are {', '.join(c.label for c in every)}")
    size = dataclasses.replace(QUICK if quick else Size(seeds=given.seeds), markets=given.markets)
    # A quick run compiles each function of this file once.
    parts = given.parts or (("timed", "other", "memory", "agents", "windows") if quick else PARTS)
    if "timed" in parts:
        timed(size, None if quick else interpreters(given).get("sb3"))
    if "other" in parts:
        scored("other", OTHER, size, size.scored_agent)
    wide = dataclasses.replace(size, shape=IDLE_SHAPE)
    if "idle" in parts:
        scored("idle", IDLE, dataclasses.replace(wide, steps=IDLE_STEPS), IDLE_AGENT)
    if "defaults" in parts:
        scored("defaults", OTHER + IDLE, wide, {})
    if "memory" in parts:
        long = dataclasses.replace(size, scored_bars=size.bars, steps=MEMORY_STEPS, shape=MEMORY_SHAPE)
        scored("memory", MEMORIES, size if quick else long, size.scored_agent)
    if "agents" in parts:
        shared_paths(size)
    if "windows" in parts and quick:
        shared_windows(size, [size.steps], 1, {})  # which the other parts compile too
    elif "windows" in parts:
        encoder = {"encoder": "tcn"}
        shared_windows(dataclasses.replace(size, shape=WINDOWED_SHAPE), WINDOWED_MILESTONES, WINDOW, encoder)
    if "command" in parts:
        command()


if __name__ == "__main__":
    main()
