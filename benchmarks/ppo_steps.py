"""How many environment steps a second does PPO train end to end, how many bytes does a transition take, beside others?

Random-walk bars with random features: speed does not depend on what they hold. One update is a rollout of every
environment, advantages, and 4 epochs of 4 minibatches; the training chunk is the Trainer's own, timed around
`block_until_ready` after a warm-up; compilation stands in its own column. Peers train in processes of their own, in
turn with ours: Stable-Baselines3 on gym-trading-env, and Rejax on our market with dense windows and on CartPole.

    python benchmarks/ppo_steps.py [--quick] [--peers gym,rejax] [--peer-python PEER=PYTHON] [--parts alone,beside]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from env_steps import save_bars
from machine import report
from peers.install import add_options, interpreters
from peers.turns import Peer, in_turn, ratio
from workload import FEATURES, Training, random_market

import jaxtrader as jt
from jaxtrader.training.rollout import EnvRollouts, LaneRollouts, bytes_per_transition

WINDOW, HIDDEN = 32, (64, 64)
CASES = [(32, 1, False), (32, 1, True), (32, 16, False), (128, 1, False), (1, 1, False)]


def training(market: jt.Market, window: int, agents: int, shared: bool, envs: int, length: int) -> Training:
    """Our chunk on a market."""
    env = jt.TradingEnv(market, window=window)
    agent = jt.PPOAgent(hidden=HIDDEN, shared=shared)
    return Training(env, env.default_params, agent, LaneRollouts(env, length, envs // agents, agents))


def cartpole(envs: int, length: int) -> Training:
    """Our chunk on gymnax's CartPole."""
    import gymnax  # some seconds: only where it is used

    env, params = gymnax.make("CartPole-v1")
    return Training(env, params, jt.PPOAgent(hidden=HIDDEN), EnvRollouts(env, length, envs))


def alone(market: jt.Market, envs: int, length: int, repeats: int, quick: bool) -> None:
    """Our own table, over windows, agents a lane and torsos."""
    rows: list[list[Any]] = []
    for window, agents, shared in CASES[:1] if quick else CASES:
        chunk = training(market, window, agents, shared, envs, length)
        chunk()
        rates = [chunk() for _ in range(repeats)]
        spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
        speed, bytes_kept = statistics.median(rates), bytes_per_transition(chunk.rollout)
        torsos = "one" if shared else "two"
        rows.append([window, agents, torsos, speed, spread, chunk.compile_seconds, bytes_kept])
    columns = ["window", "agents a lane", "torsos", "steps/s", "min - max", "compile s", "bytes a transition"]
    work = f"{envs} environments x {length} bars, {FEATURES} features, MLP 2x64, 4 epochs x 4 minibatches, float32"
    report("ppo_steps" + ("_quick" if quick else ""), columns, rows, {"work": work})


def beside(pythons: dict[str, str], bars: int, envs: int, length: int, repeats: int) -> None:
    """Ours and the peers' in turn: the same network, epochs and minibatches."""
    shared = {"window": WINDOW, "net": list(HIDDEN), "epochs": 4, "minibatches": 4, "updates": 2}
    ours = {
        "market": training(random_market(bars), WINDOW, 1, False, envs, length),
        "CartPole": cartpole(envs, length),
    }
    for chunk in ours.values():
        chunk()
    rows: list[list[Any]] = []
    facts: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        peers: dict[str, tuple[str, Peer]] = {}
        if "gym" in pythons:
            path = Path(folder) / "bars.npz"
            save_bars(path, bars)
            place = {"market": str(path), "episode": 256, "envs": 8, "length": 256, "threads": 1}
            peer = stack.enter_context(Peer(pythons["gym"], "sb3_ppo_steps.py", **shared, **place))
            peers["Stable-Baselines3 on gym-trading-env"] = "market", peer
        if "rejax" in pythons:
            place = {"envs": envs, "length": length}
            peer = stack.enter_context(Peer(pythons["rejax"], "rejax_ppo_steps.py", **shared, **place, bars=bars))
            peers["Rejax on our market, dense windows"] = "market", peer
            peer = stack.enter_context(Peer(pythons["rejax"], "rejax_ppo_steps.py", **shared, **place))
            peers["Rejax on CartPole"] = "CartPole", peer
        found = in_turn({**ours, **{name: peer.turn for name, (_, peer) in peers.items()}}, repeats)
        for name, rates in found.items():
            task, peer = peers.get(name, (name, None))
            seconds = ours[name].compile_seconds if peer is None else peer.about.get("compile_seconds", "-")
            over = "-" if peer is None else f"{ratio(found[task], rates):.2f}"
            label = name if peer else f"jaxtrader on {'our market' if name == 'market' else name}"
            rows.append([label, statistics.median(rates), f"{min(rates):,.0f} - {max(rates):,.0f}", seconds, over])
        facts = {name: ", ".join(f"{k} {v}" for k, v in p.about["versions"].items()) for name, (_, p) in peers.items()}
    work = (
        f"MLP 2x64 for actor and critic each, 4 epochs x 4 minibatches; {envs} environments x {length} steps, "
        f"Stable-Baselines3 8 x 256; window of {WINDOW} bars x {FEATURES} features"
    )
    columns = ["trainer", "steps/s", "min - max", "compile s", "ours / it"]
    report("ppo_steps_beside", columns, rows, {"work": work, **facts})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes, no peer: only shows that the script runs")
    parser.add_argument("--parts", default="alone,beside", help="which tables, with commas")
    add_options(parser, "gym", "rejax")
    given = parser.parse_args()
    envs, length, repeats, bars = (64, 16, 2, 2_000) if given.quick else (1024, 64, 5, 100_000)
    parts = given.parts.split(",")
    if "alone" in parts:
        alone(random_market(bars), envs, length, repeats, given.quick)
    if "beside" in parts and not given.quick:
        beside(interpreters(given), bars, envs, length, repeats)


if __name__ == "__main__":
    main()
