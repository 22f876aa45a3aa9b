"""Races to a known optimum: our PPO and Stable-Baselines3's, trained in slices of time and scored between them.

A score is the policy's share of the best policy's expected reward on a fresh path. The training clock stands while
compiling and while a policy is scored.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from workload import begin

import jaxtrader as jt
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.market.synthetic import Process
from jaxtrader.training.rollout import MarketRollouts
from jaxtrader.training.train_settings import NO_LIMIT
from jaxtrader.training.update import copy_arrays, init_agent, run_chunk

LEVEL, IN_A_ROW, SLICE = 0.99, 3, 0.25


@dataclasses.dataclass(frozen=True)
class Case:
    """A market and how it is traded. `agent` is what PPOAgent's settings must be there."""

    label: str
    process: Process
    positions: Any
    cost_bps: float = 5.0
    window: int = 1
    agent: dict[str, Any] = dataclasses.field(default_factory=dict)

    def environment(self, bars: int, seed: int = 0) -> jt.TradingEnv:
        """Over the training path of a seed."""
        return jt.TradingEnv(
            self.process.market(bars, seed),
            positions=self.positions,
            window=self.window,
            costs=jt.Costs.from_bps(fee=1.0, slippage=self.cost_bps - 1.0),
            rules=jt.Rules(rebalance_band=0.0),
        )


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
        self.best, self.updates = best, updates
        envs, length = shape
        self.rollouts = MarketRollouts(env, length, envs // agents, agents)
        self.train_state, self.agent, self.params = begin(env, env.default_params, agent, self.rollouts, seed)
        _, self.scored_on = self.agent.prepare(self.train_state.agent_state, best.env.default_params)
        self.limits = {"updates": jnp.asarray(updates, jnp.int32), "episodes": jnp.asarray(NO_LIMIT, jnp.int32)}
        began = time.perf_counter()
        kept = copy_arrays(self.train_state)
        self.train(0)
        self.compile_seconds = time.perf_counter() - began
        self.train_state = kept

    def train(self, updates: int) -> float:
        """Make some updates, and return the seconds that they took."""
        began = time.perf_counter()
        count = jnp.asarray(updates, jnp.int32)
        self.train_state, _ = run_chunk(
            self.train_state, self.agent, self.params, self.limits, count, rollouts=self.rollouts
        )
        jax.block_until_ready(self.train_state)
        return time.perf_counter() - began

    @property
    def left(self) -> int:
        """Updates until the end of its schedule, where training is over."""
        return self.updates - int(self.train_state.updates)

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return int(self.train_state.updates) * self.rollouts.paths * self.rollouts.accounts * self.rollouts.length

    def score(self) -> tuple[float, float]:
        """Share of the optimum, and of bars with a position."""
        reward, time_in_market = self.best.score(self.agent, self.train_state.agent_state, self.scored_on)
        return self.best.share(float(reward)), float(time_in_market)


@dataclasses.dataclass
class Race:
    """The scores of one training, and when they were had."""

    compile_seconds: float
    seconds: list[float] = dataclasses.field(default_factory=list)
    steps: list[int] = dataclasses.field(default_factory=list)
    shares: list[float] = dataclasses.field(default_factory=list)

    def add(self, seconds: float, steps: int, share: float) -> bool:
        """Note a score, and return whether the race is over."""
        self.seconds.append(seconds)
        self.steps.append(steps)
        self.shares.append(share)
        return self.won

    def end(self) -> None:
        """Training is over, the last policy stays: further scores would be the same."""
        for _ in range(IN_A_ROW - 1):
            if not self.won:
                self.add(self.seconds[-1], self.steps[-1], self.shares[-1])

    @property
    def won(self) -> bool:
        """True where three scores in a row were at the level."""
        return len(self.shares) >= IN_A_ROW and min(self.shares[-IN_A_ROW:]) >= LEVEL

    @property
    def time(self) -> float:
        """Seconds to the first of the three, infinite where there were none."""
        return self.seconds[-IN_A_ROW] if self.won else math.inf

    def share_after(self, most: float, clock: str) -> float:
        """The last score within so many "seconds" or "steps". What won stays where it was, NaN before the first."""
        passed = sum(x <= most for x in getattr(self, clock))
        return self.shares[passed - 1] if passed else math.nan


def race_ours(learner: Learner, limit: float, portion: float = SLICE) -> Race:
    """Train until the level, the limit in seconds or the schedule's end, with a score after each `portion` of
    seconds."""
    race, clock, updates = Race(learner.compile_seconds), 0.0, 1
    while clock < limit and learner.left:
        spent = 0.0
        while spent < portion and learner.left:
            updates = min(updates, learner.left)
            took = learner.train(updates)
            spent += took
            updates = max(1, round(updates * portion / took / 2))  # some dispatches a slice, each no trifle
        clock += spent
        if race.add(clock, learner.steps, learner.score()[0]):
            return race
    if not learner.left and clock < limit:
        race.end()
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
    state = init_agent(agent, jax.random.key(0), env.default_params, env=env)
    state, params = agent.prepare(state, env.default_params)
    _, scored_on = agent.prepare(state, best.env.default_params)
    race, continuous = Race(math.nan), isinstance(env.positions, str)
    with tempfile.TemporaryDirectory() as folder:
        market, config = Path(folder) / "market.npz", Path(folder) / "config.json"
        columns = {name: getattr(env.market, name)[:, 0] for name in ("open", "close", "volatility")}
        features = np.asarray(params.arrays.features)[:, 0]
        np.savez(market, **columns, features=features, segments=env.market.segments)
        conditions = {"positions": env.positions, "fee": env.costs.fee, "slippage": env.costs.slippage}
        conditions |= {"rebalance_band": env.rules.rebalance_band, "episode_length": env.episode_length}
        config.write_text(json.dumps({**settings, **conditions, "seed": seed, "slice_seconds": SLICE}))
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
                reward, _ = best.score(PeerPolicy(layers, continuous), None, scored_on)
                over = race.add(said["seconds"], said["steps"], best.share(float(reward)))
                over |= said["seconds"] >= limit
                process.stdin.write("stop\n" if over else "go\n")
                process.stdin.flush()
                if said["over"] and not over:
                    race.end()
        if process.returncode:
            raise SystemExit(f"the peer's training ended with {process.returncode}")
    return race
