"""How many environment steps a second does PPO train end to end, and how many bytes does a transition take?

Bars are a random walk with random features, as speed does not depend on what they hold. One update is a rollout of
every environment, advantages, and 4 epochs of 4 minibatches. The training chunk is the Trainer's own, timed around
`block_until_ready` after a warm-up. Compilation has a column of its own. Each part prints a table:
alone: ours over windows, networks, accounts a path and devices. For accelerators with other batches and precisions.
scaling: ours from 1024 environments, window 32 and width 64, one of them moved at a time.
dense: tcn and attention on paths, beside the same network on stored windows. Both are our own code, in turn.
memory: bytes a transition against the window, of bars left in place and of windows stored one by one. `stored` counts
    the arrays of a rollout, advantages and targets included. `working` is all that XLA sets aside for one training
    chunk beyond its arguments. Nothing is run: shapes and the compiled program say it.
peers: Stable-Baselines3 and SBX on gym-trading-env, and Rejax on our market with dense windows and on CartPole. Peers
    train in processes of their own, in turn with ours.
Two devices are the halves of a CPU (`Trainer(devices=2)`), or two accelerators where there are as many.

    python benchmarks/ppo_steps.py [--quick] [--parts PART ...] [--peers gym,sbx,rejax] [--peer-python PEER=PYTHON]
        [--envs N] [--compute-dtype bfloat16] [--matmul-precision default]
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from machine import arguments, parsed, report, spread
from peers.install import add_options, interpreters
from peers.turns import Peer, in_turn, ratio
from workload import FEATURES, QUICK, Dense, Training, WindowAgent, control_task, random_market, save_bars

import jaxtrader as jt
from jaxtrader import devices
from jaxtrader.agents.networks import COMPUTE_DTYPES
from jaxtrader.agents.ppo import PRECISIONS
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts, bytes_per_transition

PARTS = ("alone", "scaling", "dense", "memory", "peers")


@dataclass(frozen=True)
class Case:
    """A training: `envs` environments of `agents` accounts a path, over `length` bars, and the network."""

    window: int = 32
    agents: int = 1
    hidden: tuple[int, ...] = (64, 64)
    encoder: str = "mlp"
    compute_dtype: str = "float32"
    matmul_precision: str = "highest"
    devices: int = 1
    envs: int = 1024
    length: int = 64

    @property
    def network(self) -> str:
        """Its name in the table."""
        heads = f"{len(self.hidden)}x{self.hidden[0]}"
        return f"MLP {heads}" if self.encoder == "mlp" else f"{self.encoder}, then {heads}"

    def agent(self, kind: type[jt.PPOAgent] = jt.PPOAgent) -> jt.PPOAgent:
        """PPO with this network."""
        same = ("hidden", "encoder", "compute_dtype", "matmul_precision")
        return kind(**{name: getattr(self, name) for name in same})

    def rollouts(self, env: jt.TradingEnv) -> MarketRollouts:
        """Of all its environments, by path."""
        paths = self.envs // self.agents
        return MarketRollouts(env, self.length, paths, self.agents, paths // self.agent().num_minibatches)

    def training(self, market: jt.Market, **how: Any) -> Training:
        """Our chunk on a market, by path."""
        env = jt.TradingEnv(market, window=self.window)
        mesh = devices.make_mesh(self.devices)
        return Training(env, env.default_params, self.agent(), self.rollouts(env), mesh=mesh, **how)

    def dense(self, market: jt.Market) -> Training:
        """The same with every window stored and read by itself."""
        env = jt.TradingEnv(market, window=self.window)
        rollouts = EnvRollouts(env, self.length, self.envs)
        return Training(env, env.default_params, self.agent(WindowAgent), rollouts)


TINY = Case(QUICK["window"], envs=QUICK["envs"], length=QUICK["length"])
CASES = (
    Case(),
    Case(agents=16),
    Case(1),
    Case(128),
    Case(128, agents=16),
    Case(512),
    Case(hidden=(256, 256, 256)),
    Case(128, hidden=(256, 256, 256)),
    Case(encoder="tcn"),
    Case(128, encoder="tcn"),
    Case(128, agents=16, encoder="tcn"),
    Case(512, encoder="tcn"),
    Case(encoder="attention"),
    Case(128, encoder="attention"),
    Case(128, agents=16, encoder="attention"),
    Case(512, encoder="attention"),
    Case(devices=2),
    Case(1, devices=2),
    Case(1, hidden=(32, 32)),
    Case(1, hidden=(32, 32), devices=2),
    Case(128, devices=2),
    Case(hidden=(256, 256, 256), devices=2),
    Case(encoder="tcn", devices=2),
    Case(encoder="attention", devices=2),
)
SCALES = (
    Case(),
    *(Case(envs=envs) for envs in (64, 256, 4096)),
    *(Case(window) for window in (1, 128, 512)),
    *(Case(hidden=(width, width)) for width in (16, 128, 256)),
)
# Fewer steps: on stored windows the others' would take most of a minute an update. In a longer rollout, more of a
# path's bars are decided on.
DENSE = tuple(
    Case(64, encoder=encoder, envs=envs, length=length)
    for encoder, (envs, length) in itertools.product(("tcn", "attention"), ((256, 64), (128, 128)))
)
WINDOWS = tuple(Case(window) for window in (1, 32, 128, 512))
PEER_CASES = (Case(), Case(128), Case(512), Case(hidden=(256, 256, 256)))
# What of ours runs beside the peers too. `known_optimum.py --parts agents` says what sharing paths costs in learning.
OTHERWISE: dict[str, dict[str, int]] = {
    "2 devices": {"devices": 2},
    "2 accounts a path": {"agents": 2},
    "16 accounts a path": {"agents": 16},
    "2 devices, 2 accounts a path": {"devices": 2, "agents": 2},
}
SIZES = f"{FEATURES} features, 4 epochs x 4 minibatches"


def alone(name: str, market: jt.Market, cases: Sequence[Case], repeats: int, quick: bool) -> None:
    """A table of ours alone."""
    rows: list[list[Any]] = []
    for case in cases:
        if case.devices > jax.device_count():
            continue
        chunk = case.training(market)
        chunk()
        rates = [chunk() for _ in range(repeats)]
        place = [case.network, case.envs, case.window, case.agents, case.devices]
        kept = [chunk.compile_seconds, bytes_per_transition(chunk.rollout), chunk.working_bytes]
        rows.append([*place, statistics.median(rates), spread(rates), *kept])
    columns = ["network", "environments", "window", "accounts a path", "devices", "steps/s", "min - max", "compile s"]
    columns += ["stored, B", "working, B"]
    first = cases[0]
    work = (
        f"{first.length} bars, {SIZES}, {first.compute_dtype}, products {first.matmul_precision}; "
        "two torsos (actor and critic) or one; tcn and attention 32 wide; B: bytes a transition"
    )
    report(name, columns, rows, {"work": work}, quick)


def dense(market: jt.Market, cases: Sequence[Case], repeats: int, quick: bool) -> None:
    """Encoders on paths and on stored windows, in turn."""
    rows: list[list[Any]] = []
    for case in cases:
        ways = {"paths": case.training(market), "stored windows": case.dense(market)}
        for chunk in ways.values():
            chunk()
        found = in_turn(ways, repeats)
        for way, rates in found.items():
            place = [case.network, case.window, f"{case.envs} x {case.length}", way]
            kept = [ways[way].compile_seconds, bytes_per_transition(ways[way].rollout)]
            rows.append([*place, statistics.median(rates), spread(rates), *kept, f"{ratio(found['paths'], rates):.2f}"])
    columns = [
        "network",
        "window",
        "envs x bars",
        "way",
        "steps/s",
        "min - max",
        "compile s",
        "stored, B",
        "paths / it",
    ]
    report("ppo_steps_dense", columns, rows, {"work": f"{SIZES}, float32; 32 wide"}, quick)


def memory(market: jt.Market, cases: Sequence[Case], quick: bool) -> None:
    """Paths, and the same market and agent as an ordinary environment, whose observation is one flat array."""
    rows: list[list[Any]] = []
    for case in cases:
        env = jt.TradingEnv(market, window=case.window)
        flat = Dense(env)
        rollouts = EnvRollouts(flat, case.length, case.envs)
        chunks = {
            "paths": case.training(market, updates=1, shapes=True),
            "dense windows": Training(flat, env.default_params, case.agent(), rollouts, updates=1, shapes=True),
        }
        for name, chunk in chunks.items():
            kept = [bytes_per_transition(chunk.rollout), chunk.working_bytes, chunk.compile_seconds]
            rows.append([case.window, name, *kept])
    columns = ["window", "experience", "stored, B", "working, B", "compile s"]
    work = f"{cases[0].envs} environments x {cases[0].length} bars, {FEATURES} features, MLP 2x64, float32; B: bytes"
    report("ppo_steps_memory", columns, rows, {"work": f"{work} a transition"}, quick)


def cartpole(case: Case) -> Training:
    """Our chunk on gymnax's CartPole."""
    env, params = control_task("CartPole-v1")
    return Training(env, params, case.agent(), EnvRollouts(env, case.length, case.envs))


def against_peers(
    pythons: dict[str, str], market: jt.Market, bars: int, cases: Sequence[Case], repeats: int, quick: bool
) -> None:
    """Ours and the peers' in turn: the same network, epochs and minibatches."""
    first = cases[0]
    tasks = {f"our market, window {case.window}, {case.network}": case for case in cases}
    ours = {task: case.training(market) for task, case in tasks.items()}
    variants = {
        (task, words): f"{task}, {words}"
        for task in tasks
        for words, other in ({} if quick else OTHERWISE).items()
        if other.get("devices", 1) <= jax.device_count()
    }
    for (task, words), label in variants.items():
        ours[label] = replace(tasks[task], **OTHERWISE[words]).training(market)
    if "rejax" in pythons:
        ours["CartPole"] = cartpole(first)
    for chunk in ours.values():
        chunk()
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "bars.npz"
        save_bars(path, bars)
        peers = {
            name: (task, stack.enter_context(Peer(python, script, **settings)))
            for name, task, python, script, settings in _peers(pythons, tasks, path, bars)
        }
        # A ratio is of neighbours in time: the closest race, Rejax's, stands next to ours.
        runners: dict[str, Callable[[], float]] = {}
        for task in (*tasks, "CartPole"):
            names = [label for (of, _), label in variants.items() if of == task]
            names += [name for name, (of, _) in peers.items() if of == task]
            names.sort(key=lambda name: not name.startswith("Rejax"))  # then ours in other ways
            runners |= {name: ours[name] for name in (task,) if name in ours}
            runners |= {name: ours[name] if name in ours else peers[name][1].turn for name in names}
        found = in_turn(runners, repeats)
        for name, rates in found.items():
            task, peer = peers.get(name, (name, None))
            seconds = ours[name].compile_seconds if peer is None else peer.about.get("compile_seconds", "-")
            over = ["-", "-"]
            if peer is not None:
                each = sorted(a / b for a, b in zip(found[task], rates, strict=True))
                over = [f"{ratio(found[task], rates):.2f}", f"{each[0]:.2f} - {each[-1]:.2f}"]
            rows.append([name if peer else f"jaxtrader on {name}", statistics.median(rates), spread(rates)])
            rows[-1] += [seconds, *over]
        facts = {name: peer.versions for name, (_, peer) in peers.items()}
        for name, (task, _) in peers.items():
            for (of, words), label in variants.items():
                if of == task:
                    facts[f"{words} / {name}"] = f"{ratio(found[label], found[name]):.2f}"
    work = (
        f"MLP 2x64 for actor and critic each unless said, {SIZES}; {first.envs} environments x {first.length} steps, "
        f"Stable-Baselines3 and SBX {SMALL['envs']} x {SMALL['length']} on one thread unless said, so of smaller "
        "minibatches, beside ours of the first row"
    )
    columns = ["trainer", "steps/s", "min - max", "compile s", "ours / it", "of each turn"]
    report("ppo_steps_peers", columns, rows, {"work": work, **facts}, quick)


SMALL = {"envs": 8, "length": 256}  # gym-trading-env steps one environment at a time
# Trainer, what differs: more environments at once, and torch's other choice.
STACKS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("gym", "Stable-Baselines3", "", {}),
    ("gym", "Stable-Baselines3", ", 2 threads", {"threads": 2}),
    ("gym", "Stable-Baselines3", ", 64 x 32", {"envs": 64, "length": 32}),
    ("gym", "Stable-Baselines3", ", 64 x 256", {"envs": 64}),
    ("gym", "Stable-Baselines3", ", 64 x 256, 2 threads", {"envs": 64, "threads": 2}),
    ("sbx", "SBX", "", {}),
    ("sbx", "SBX", ", 64 x 256", {"envs": 64}),
)


def _peers(
    pythons: dict[str, str], tasks: dict[str, Case], path: Path, bars: int
) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    """Each peer's name, our task that it is beside, interpreter, script and settings."""
    first = next(iter(tasks))
    shared = {"epochs": 4, "minibatches": 4, "updates": 2}
    found: list[tuple[str, str, str, str, dict[str, Any]]] = []
    stack = {**shared, **SMALL, "net": [64, 64], "market": str(path), "episode": 256, "window": tasks[first].window}
    for peer, name, label, other in STACKS:
        if peer in pythons:
            settings = {**stack, "trainer": name, "threads": 1, **other}
            found.append((f"{name} on gym-trading-env{label}", first, pythons[peer], "sb3_ppo_steps.py", settings))
    if "rejax" in pythons:
        for task, case in tasks.items():
            place = {**shared, "net": list(case.hidden), "envs": case.envs, "length": case.length}
            settings = {**place, "window": case.window, "bars": bars}
            found.append((f"Rejax on {task}, dense", task, pythons["rejax"], "rejax_ppo_steps.py", settings))
        place |= {"net": [64, 64]}
        found.append(("Rejax on CartPole", "CartPole", pythons["rejax"], "rejax_ppo_steps.py", place))
    return found


def main() -> None:
    parser = arguments(__doc__, "tiny shapes, peers only if named: shows that it runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which tables; default all")
    first = parser.add_argument_group("the first table")
    first.add_argument("--envs", type=int, help="environments side by side, a multiple of 64; default 1024")
    first.add_argument("--compute-dtype", choices=COMPUTE_DTYPES, default="float32", help="default float32")
    first.add_argument("--matmul-precision", choices=PRECISIONS, default="highest", help="default highest")
    add_options(parser, "gym", "sbx", "rejax")
    devices.split_cpu(2)
    given = parsed(parser)
    if given.envs is not None and (given.envs < 64 or given.envs % 64):
        parser.error(f"--envs {given.envs} is no multiple of 64: 16 accounts a path, paths in 4 minibatches")
    quick, tiny, repeats = given.quick, (TINY,), 2 if given.quick else 5
    bars = QUICK["bars"] if quick else 100_000
    market = random_market(bars)
    if "alone" in given.parts:
        asked: dict[str, Any] = {"compute_dtype": given.compute_dtype, "matmul_precision": given.matmul_precision}
        asked |= {} if given.envs is None else {"envs": given.envs}
        # A quick run has one device in the other tables.
        cases = (replace(TINY, devices=min(2, jax.device_count())),) if quick else CASES
        alone("ppo_steps", market, [replace(case, **asked) for case in cases], repeats, quick)
    if "scaling" in given.parts:
        alone("ppo_steps_scaling", market, tiny if quick else SCALES, repeats, quick)
    if "dense" in given.parts:
        dense(market, tiny if quick else DENSE, min(repeats, 3), quick)
    if "memory" in given.parts:
        memory(market, tiny if quick else WINDOWS, quick)
    if "peers" in given.parts:
        # A quick run installs no peer, and runs beside those that are named.
        pythons = {} if quick and not given.peer_python else interpreters(given)
        against_peers(pythons, market, bars, tiny if quick else PEER_CASES, repeats, quick)


if __name__ == "__main__":
    main()
