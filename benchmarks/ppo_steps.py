"""How many environment steps a second does PPO train end to end, and how many bytes does a transition take?

Bars are a random walk with random features, as speed does not depend on what they hold. One update is a rollout of
every environment, advantages, and 4 epochs of 4 minibatches. The training chunk is the Trainer's own, timed around
`block_until_ready` after a warm-up. Compilation has a column of its own. Each part prints a table:
alone: ours over windows, networks, accounts a path and devices. For accelerators with other batches and precisions.
dense: tcn and attention on paths, beside the same network on stored windows. Both are our own code, in turn.
beside: Stable-Baselines3 and SBX on gym-trading-env, and Rejax on our market with dense windows and on CartPole. Peers
    train in processes of their own, in turn with ours.
Two devices are the halves of a CPU (`Trainer(devices=2)`), or two accelerators where there are as many.

    python benchmarks/ppo_steps.py [--quick] [--parts alone,dense,beside] [--peers gym,sbx,rejax]
        [--peer-python PEER=PYTHON] [--envs N] [--compute-dtype bfloat16] [--matmul-precision default]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from env_steps import save_bars
from machine import parsed, report
from peers.install import add_options, interpreters
from peers.turns import Peer, in_turn, ratio
from workload import FEATURES, QUICK, Training, WindowAgent, random_market

import jaxtrader as jt
from jaxtrader import devices
from jaxtrader.agents.networks import COMPUTE_DTYPES
from jaxtrader.agents.ppo import PRECISIONS
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts, bytes_per_transition

WINDOW, HIDDEN = 32, (64, 64)
PARTS = ("alone", "dense", "beside")


@dataclass(frozen=True)
class Case:
    """A row of the first table."""

    window: int = WINDOW
    agents: int = 1
    hidden: tuple[int, ...] = HIDDEN
    encoder: str = "mlp"
    compute_dtype: str = "float32"
    matmul_precision: str = "highest"
    devices: int = 1

    @property
    def network(self) -> str:
        """Its name in the table."""
        heads = f"{len(self.hidden)}x{self.hidden[0]}"
        return f"MLP {heads}" if self.encoder == "mlp" else f"{self.encoder}, then {heads}"

    @property
    def label(self) -> str:
        """Its network, where that is not the usual one."""
        return "" if self.hidden == HIDDEN else f", {len(self.hidden)}x{self.hidden[0]}"

    def agent(self, kind: type[jt.PPOAgent] = jt.PPOAgent) -> jt.PPOAgent:
        """PPO with this network."""
        same = ("hidden", "encoder", "compute_dtype", "matmul_precision")
        return kind(**{name: getattr(self, name) for name in same})

    def training(self, market: jt.Market, envs: int, length: int) -> Training:
        """Our chunk on a market, by path."""
        env = jt.TradingEnv(market, window=self.window)
        paths = envs // self.agents
        rollouts = MarketRollouts(env, length, paths, self.agents, paths // self.agent().num_minibatches)
        return Training(env, env.default_params, self.agent(), rollouts, mesh=devices.make_mesh(self.devices))

    def dense(self, market: jt.Market, envs: int, length: int) -> Training:
        """The same with every window stored and read by itself."""
        env = jt.TradingEnv(market, window=self.window)
        return Training(env, env.default_params, self.agent(WindowAgent), EnvRollouts(env, length, envs))


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
DENSE = (Case(64, encoder="tcn"), Case(64, encoder="attention"))
BESIDE = (Case(), Case(128), Case(512), Case(hidden=(256, 256, 256)))
# What of ours runs beside the peers too. `known_optimum.py --parts agents` says what sharing paths costs in learning.
OTHERWISE: dict[str, dict[str, int]] = {
    "2 devices": {"devices": 2},
    "2 accounts a path": {"agents": 2},
    "16 accounts a path": {"agents": 16},
    "2 devices, 2 accounts a path": {"devices": 2, "agents": 2},
}


def cartpole(envs: int, length: int) -> Training:
    """Our chunk on gymnax's CartPole."""
    import gymnax  # some seconds: only where it is used

    env, params = gymnax.make("CartPole-v1")
    return Training(env, params, Case().agent(), EnvRollouts(env, length, envs))


def alone(market: jt.Market, envs: int, length: int, repeats: int, quick: bool, precision: dict[str, str]) -> None:
    """Our own table, over windows, networks and accounts a path."""
    rows: list[list[Any]] = []
    # A quick run has one device in the other tables.
    cases = (Case(QUICK["window"], devices=min(2, jax.device_count())),) if quick else CASES
    for case in (case for case in cases if case.devices <= jax.device_count()):
        case = replace(case, **precision)
        chunk = case.training(market, envs, length)
        chunk()
        rates = [chunk() for _ in range(repeats)]
        bytes_kept = bytes_per_transition(chunk.rollout)
        of_each = chunk.compiled.memory_analysis().temp_size_in_bytes
        working = round(case.devices * of_each / chunk.rollout.reward.size)
        place = [case.network, case.window, case.agents, case.devices]
        rows.append([*place, statistics.median(rates), spread(rates), chunk.compile_seconds, bytes_kept, working])
    columns = ["network", "window", "accounts a path", "devices", "steps/s", "min - max", "compile s"]
    columns += ["stored, B", "working, B"]
    work = (
        f"{envs} environments x {length} bars, {FEATURES} features, 4 epochs x 4 minibatches, "
        f"{precision['compute_dtype']}, products {precision['matmul_precision']}; "
        "two torsos (actor and critic) or one; tcn and attention 32 wide; B: bytes a transition"
    )
    report("ppo_steps" + ("_quick" if quick else ""), columns, rows, {"work": work})


def dense(market: jt.Market, shapes: list[tuple[int, int]], repeats: int, quick: bool) -> None:
    """Encoders on paths and on stored windows, in turn. In a longer rollout, more of a path's bars are decided on."""
    rows: list[list[Any]] = []
    for case, (envs, length) in itertools.product((Case(QUICK["window"]),) if quick else DENSE, shapes):
        ways = {"paths": case.training(market, envs, length), "stored windows": case.dense(market, envs, length)}
        for chunk in ways.values():
            chunk()
        found = in_turn(ways, repeats)
        for name, rates in found.items():
            over = f"{ratio(found['paths'], rates):.2f}"
            stored = bytes_per_transition(ways[name].rollout)
            compiled = ways[name].compile_seconds
            place = [case.network, case.window, f"{envs} x {length}", name]
            rows.append([*place, statistics.median(rates), spread(rates), compiled, stored, over])
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
    work = f"{FEATURES} features, 4 epochs x 4 minibatches, float32; 32 wide"
    report("ppo_steps_dense" + ("_quick" if quick else ""), columns, rows, {"work": work})


def beside(pythons: dict[str, str], bars: int, envs: int, length: int, repeats: int, quick: bool) -> None:
    """Ours and the peers' in turn: the same network, epochs and minibatches."""
    market = random_market(bars)
    cases = (Case(QUICK["window"]),) if quick else BESIDE
    tasks = {f"our market, window {case.window}{case.label}": case for case in cases}
    ours = {task: case.training(market, envs, length) for task, case in tasks.items()}
    first = next(iter(ours))
    variants = {
        (task, words): f"{task}, {words}"
        for task in tasks
        for words, other in ({} if quick else OTHERWISE).items()
        if other.get("devices", 1) <= jax.device_count()
    }
    for (task, words), label in variants.items():
        ours[label] = replace(tasks[task], **OTHERWISE[words]).training(market, envs, length)
    if "rejax" in pythons:
        ours["CartPole"] = cartpole(envs, length)
    for chunk in ours.values():
        chunk()
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "bars.npz"
        save_bars(path, bars)
        peers = {
            name: (task, stack.enter_context(Peer(python, script, **settings)))
            for name, task, python, script, settings in _peers(pythons, tasks, first, path, bars, envs, length)
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
        facts = {name: ", ".join(f"{k} {v}" for k, v in p.about["versions"].items()) for name, (_, p) in peers.items()}
        for name, (task, _) in peers.items():
            for (of, words), label in variants.items():
                if of == task:
                    facts[f"{words} / {name}"] = f"{ratio(found[label], found[name]):.2f}"
    work = (
        f"MLP 2x64 for actor and critic each unless said, 4 epochs x 4 minibatches; {envs} environments x {length} "
        f"steps, Stable-Baselines3 and SBX {SMALL['envs']} x {SMALL['length']} on one thread unless said, so of "
        f"smaller minibatches, beside ours of the first row; {FEATURES} features a bar"
    )
    columns = ["trainer", "steps/s", "min - max", "compile s", "ours / it", "of each turn"]
    report("ppo_steps_beside" + ("_quick" if quick else ""), columns, rows, {"work": work, **facts})


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
    pythons: dict[str, str], tasks: dict[str, Case], first: str, path: Path, bars: int, envs: int, length: int
) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    """Each peer's name, our task that it is beside, interpreter, script and settings."""
    shared = {"net": list(HIDDEN), "epochs": 4, "minibatches": 4, "updates": 2}
    found: list[tuple[str, str, str, str, dict[str, Any]]] = []
    stack = {**shared, **SMALL, "window": tasks[first].window, "market": str(path), "episode": 256}
    for peer, name, label, other in STACKS:
        if peer in pythons:
            settings = {**stack, "trainer": name, "threads": 1, **other}
            found.append((f"{name} on gym-trading-env{label}", first, pythons[peer], "sb3_ppo_steps.py", settings))
    if "rejax" in pythons:
        place = {**shared, "envs": envs, "length": length}
        for task, case in tasks.items():
            settings = {**place, "net": list(case.hidden), "window": case.window, "bars": bars}
            found.append((f"Rejax on {task}, dense", task, pythons["rejax"], "rejax_ppo_steps.py", settings))
        found.append(("Rejax on CartPole", "CartPole", pythons["rejax"], "rejax_ppo_steps.py", place))
    return found


def spread(rates: list[float]) -> str:
    """The least and the most."""
    return f"{min(rates):,.0f} - {max(rates):,.0f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes, peers only if named: shows that it runs")
    parser.add_argument("--parts", default=None, help="which tables, with commas; default alone,dense,beside")
    first = parser.add_argument_group("the first table")
    first.add_argument("--envs", type=int, help="environments side by side, a multiple of 64; default 1024")
    first.add_argument("--compute-dtype", choices=COMPUTE_DTYPES, default="float32", help="default float32")
    first.add_argument("--matmul-precision", choices=PRECISIONS, default="highest", help="default highest")
    add_options(parser, "gym", "sbx", "rejax")
    devices.split_cpu(2)
    given = parsed(parser)
    if given.envs is not None and (given.envs < 64 or given.envs % 64):
        parser.error(f"--envs {given.envs} is no multiple of 64: 16 accounts a path, paths in 4 minibatches")
    envs, length, bars = (QUICK[name] for name in ("envs", "length", "bars")) if given.quick else (1024, 64, 100_000)
    repeats = 2 if given.quick else 5
    parts = (given.parts or ",".join(PARTS)).split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if "alone" in parts:
        precision = {"compute_dtype": given.compute_dtype, "matmul_precision": given.matmul_precision}
        alone(random_market(bars), given.envs or envs, length, repeats, given.quick, precision)
    if "dense" in parts:
        # Fewer steps: on stored windows the others' would take most of a minute an update.
        shapes = [(envs, length)] if given.quick else [(envs // 4, length), (envs // 8, 2 * length)]
        dense(random_market(bars), shapes, min(repeats, 3), given.quick)
    if "beside" in parts:
        # A quick run installs no peer, and runs beside those that are named.
        pythons = {} if given.quick and not given.peer_python else interpreters(given)
        beside(pythons, bars, envs, length, repeats, given.quick)


if __name__ == "__main__":
    main()
