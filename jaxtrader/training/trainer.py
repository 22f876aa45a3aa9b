"""Trainer: it dispatches jitted chunks of updates, logs on the host, validates, and saves.

The host dispatches chunk n, then fetches and logs chunk n-1, so that the device never waits for the log. The Trainer
takes any `Agent` and any environment in gymnax 1.0's shape. With a TradingEnv and a `MarketAgent` it rolls out many
accounts on market paths, and it can validate.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxtrader import compilation, devices, files
from jaxtrader.agents.protocol import Agent, MarketAgent
from jaxtrader.envs.protocols import Environment
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.market.market import Market
from jaxtrader.training.checkpoint import make_run_dir, save_checkpoint
from jaxtrader.training.interrupt import stop_on_interrupt
from jaxtrader.training.metrics_log import JsonlLogger
from jaxtrader.training.progress import Progress
from jaxtrader.training.records import Recorder
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts
from jaxtrader.training.run_config import describe, run_config
from jaxtrader.training.train_settings import NO_LIMIT, TrainSettings
from jaxtrader.training.update import (
    DEVICES_DIFFER,
    TrainState,
    begin_rollouts,
    copy_arrays,
    init_agent,
    place_train_state,
    run_chunk,
)
from jaxtrader.training.validation import Validation, check_validation


class TrainingDiverged(RuntimeError):
    """A number became NaN or infinite, or an action was invalid. The message names it. The last good state is saved."""


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `Trainer.train` returns.

    Attributes:
        state: the agent's last state.
        agent, env: as trained.
        history: the records of metrics.jsonl.
        updates, steps, episodes: how many are finished.
        seconds: duration of the training, compilation and validation included.
        best: the record of the best validation. None without validation.
        run_dir: the folder with policy.pkl, last.pkl, checkpoint.pkl, config.json and metrics.jsonl.
        interrupted: True where Ctrl-C ended the training.
    """

    state: Any
    agent: Agent
    env: Any
    history: list[dict[str, Any]]
    updates: int
    steps: int
    episodes: int
    seconds: float
    best: dict[str, Any] | None
    run_dir: Path
    interrupted: bool

    @property
    def policy_path(self) -> Path:
        """The file of the best policy on validation. Without validation it holds the last policy."""
        return self.run_dir / "policy.pkl"


@dataclass(eq=False)
class Trainer(TrainSettings):
    """Trains an agent in an environment for a number of episodes or steps, and saves it.

    The settings of `TrainSettings` (size, length, devices, seed, folder) are further keyword arguments.

    Args:
        env: a TradingEnv, or any environment in gymnax 1.0's shape.
        agent: a PPOAgent, or any `Agent`.
        valid: what the best policy is chosen on: a Market, or the Optimum of a synthetic market, which also gives each
            policy's share of the optimum. Without it the last policy is kept.
        env_params: parameters of an ordinary environment. The default is `env.default_params`.
        about: further plain data for config.json and the policy file.
        progress: show progress in the terminal.

    Raises:
        TypeError: the agent is no `Agent`.
        ValueError: settings do not fit together.
    """

    env: Environment
    agent: Agent
    valid: Market | Optimum | None = None
    _: KW_ONLY
    env_params: Any = None
    about: dict[str, Any] = field(default_factory=dict)
    progress: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.agent, Agent):
            raise TypeError(f"{type(self.agent).__name__} is no Agent; derive it from jaxtrader.agents.protocol.Agent")
        self.validate_settings()
        self.agent.validate()
        self.agent.check_env(self.env)
        self._check_devices()
        if isinstance(self.env, TradingEnv):
            self.env.check_room(self.rollout_length if self.on_market_paths else 1)
        if self.on_market_paths:
            self._check_market()
        elif self.accounts_per_path > 1:
            raise ValueError("accounts_per_path needs a TradingEnv and a MarketAgent: others have no market paths")
        elif self.valid is not None:
            raise ValueError("valid needs a TradingEnv and a MarketAgent: others have no market to validate on")

    def _check_devices(self) -> None:
        if self.devices > 1 and not self.agent.several_devices:
            raise ValueError(f"{type(self.agent).__name__} learns on one device; leave devices at 1")
        paths, minibatches = self.num_paths // self.devices, self.agent.num_minibatches
        if paths % minibatches:
            per_device = f" of each of {self.devices} devices" if self.devices > 1 else ""
            raise ValueError(
                f"num_minibatches {minibatches} does not divide the {paths} paths (num_envs / accounts_per_path)"
                f"{per_device}: a minibatch is whole paths"
            )
        devices.make_mesh(self.devices)

    def _check_market(self) -> None:
        env, length = self.env, self.rollout_length
        assert isinstance(env, TradingEnv)
        decisions = env.episode_length // env.decision_every
        if decisions % length:
            divisors = [d for d in range(1, decisions + 1) if decisions % d == 0]
            nearest = sorted(sorted(divisors, key=lambda d: abs(d - length))[:2])
            episode = (
                f"episode_length {decisions}" if env.decision_every == 1 else f"the {decisions} decisions of an episode"
            )
            raise ValueError(f"rollout_length {length} does not divide {episode}; use {' or '.join(map(str, nearest))}")
        if self.valid is not None:
            check_validation(self.valid, env)

    @property
    def on_market_paths(self) -> bool:
        """Whether accounts share market paths, whose bars are encoded once. Else each environment is stepped alone."""
        return isinstance(self.env, TradingEnv) and isinstance(self.agent, MarketAgent)

    @property
    def rollouts(self) -> MarketRollouts | EnvRollouts:
        """How experience is collected."""
        if self.on_market_paths:
            assert isinstance(self.env, TradingEnv)
            return MarketRollouts(self.env, self.rollout_length, self.num_paths, self.accounts_per_path)
        return EnvRollouts(self.env, self.rollout_length, self.num_envs)

    def train(self) -> TrainResult:
        """Train until the end, or until Ctrl-C, which saves and returns. A second Ctrl-C raises KeyboardInterrupt.

        Raises:
            TrainingDiverged: a number became NaN or infinite. The last good state is saved before.
            FileExistsError: run_dir is not empty.
        """
        compilation.enable_cache()
        name = getattr(self.env, "name", type(self.env).__name__)
        run_dir = make_run_dir(self.run_dir, name.lower())
        with (
            JsonlLogger(run_dir / "metrics.jsonl") as log,
            self._make_progress() as progress,
            stop_on_interrupt(progress.print) as stop,
        ):
            try:
                return _TrainingLoop(self, run_dir, log, progress, stop).run()
            except KeyboardInterrupt:
                saved = ", ".join(sorted(path.name for path in run_dir.glob("*.pkl"))) or "nothing yet"
                progress.print(f"left at once; saved in {run_dir} before: {saved}")
                raise

    def _make_progress(self) -> Progress:
        if self.num_episodes is not None:
            return Progress(self.num_episodes, "episodes", enabled=self.progress)
        assert self.total_updates is not None
        return Progress(self.total_updates * self.steps_per_update, "steps", enabled=self.progress)


@dataclass(frozen=True)
class _Snapshot:
    """A copy of the train state, and its scores on validation, which may still be computed."""

    train_state: TrainState
    scores: dict[str, Array]


class _TrainingLoop:
    """One call of `Trainer.train`."""

    def __init__(
        self, trainer: Trainer, run_dir: Path, log: JsonlLogger, progress: Progress, stop: threading.Event
    ) -> None:
        self.trainer, self.run_dir, self.log, self.progress, self.stop = trainer, run_dir, log, progress, stop
        self.recorder = Recorder(trainer.steps_per_update)
        self.rollouts, self.mesh = trainer.rollouts, devices.make_mesh(trainer.devices)
        self.history: list[dict[str, Any]] = []
        self.validation: Validation | None = None
        # Python floats become float32 arrays. Otherwise a float and an array would be traced as two programs.
        self.agent: Any = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, float) else x, trainer.agent
        )

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the policy files say of the training."""
        trainer = self.trainer
        return describe(trainer, trainer.env, trainer.agent, trainer.valid, trainer.about)

    @property
    def best_score(self) -> float | None:
        """The best validation's score, None where nothing has been chosen."""
        best = None if self.validation is None else self.validation.best
        return None if best is None else best["valid_reward_per_bar"]

    def run(self) -> TrainResult:
        """Train, with one chunk on the device while the one before is logged."""
        trainer = self.trainer
        train_state, params = self._begin()
        if isinstance(trainer.env, TradingEnv) and (short := trainer.env.symbols_without_room(trainer.rollout_length)):
            self.progress.print(
                f"note: {', '.join(short)}: too few bars for a rollout of {trainer.rollout_length}; not trained on"
            )
        config = run_config(trainer, trainer.agent, self.about)
        files.write_text(self.run_dir / "config.json", json.dumps(config, indent=2, default=str) + "\n")
        replicate = partial(devices.place, mesh=self.mesh, spec=devices.REPLICATED)
        limits = {
            "updates": jnp.asarray(trainer.total_updates or NO_LIMIT, jnp.int32),
            "episodes": jnp.asarray(trainer.num_episodes or NO_LIMIT, jnp.int32),
        }
        agent, params, limits = replicate((self.agent, params, limits))
        dispatched, end = 0, trainer.total_updates or NO_LIMIT
        pending: deque[tuple[dict[str, Any], _Snapshot | None]] = deque()
        finished = False
        try:
            while not finished:
                until_eval = trainer.eval_every - dispatched % trainer.eval_every
                count = min(trainer.updates_per_chunk, until_eval, end - dispatched)
                dispatched += count
                began = time.perf_counter()
                train_state, report = run_chunk(
                    train_state,
                    agent,
                    params,
                    limits,
                    replicate(jnp.asarray(count, jnp.int32)),
                    rollouts=self.rollouts,
                    mesh=self.mesh,
                )
                if self.recorder.compile_seconds is None:
                    self.recorder.compile_seconds = time.perf_counter() - began
                is_eval = count == until_eval or dispatched == end
                pending.append((report, self._snapshot(train_state) if is_eval else None))
                finished = dispatched >= end or self.stop.is_set()
                while len(pending) > (0 if finished else 1):
                    finished |= self._fetch(*pending.popleft())
        except TrainingDiverged:
            # The state is the one before the rejected update. A training that goes on from it may try again.
            self._save_end(train_state.replace(healthy=jnp.ones((), bool)))
            raise
        return self._finish(train_state)

    def _begin(self) -> tuple[TrainState, Any]:
        """Return the first train state and the prepared parameters, and prepare the validation."""
        trainer = self.trainer
        init_key, begin_key, key = jax.random.split(jax.random.key(trainer.seed), 3)
        params = trainer.env.default_params if trainer.env_params is None else trainer.env_params
        agent_state = init_agent(self.agent, init_key, params, env=trainer.env)
        agent_state, params = self.agent.prepare(agent_state, params)
        if trainer.valid is not None:
            assert isinstance(trainer.env, TradingEnv)
            self.validation = Validation.prepare(trainer.valid, trainer.env, self.agent, agent_state)
        zero = jnp.zeros((), jnp.int32)
        env_states = begin_rollouts(begin_key, params, rollouts=self.rollouts)
        train_state = TrainState(agent_state, env_states, key, zero, zero, jnp.ones((), bool))
        return place_train_state(train_state, self.mesh), params

    def _snapshot(self, train_state: TrainState) -> _Snapshot:
        """Copy the train state, whose buffers the next chunk takes over, and enqueue its validation."""
        train_state, scores = copy_arrays(train_state), {}
        if self.validation is not None:
            scores = self.validation.score(self.agent, devices.to_first(train_state.agent_state, self.mesh))
        if self.mesh is not None:
            # The devices of a CPU share its threads. The next chunk's part on one device may take the thread that this
            # work needs, and wait there for the part on the other device, which waits for this work. XLA ends the
            # process after 40 seconds of that.
            jax.block_until_ready((train_state, scores))
        return _Snapshot(train_state, scores)

    def _fetch(self, report: dict[str, Any], snapshot: _Snapshot | None) -> bool:
        """Wait for a chunk, log it and save its snapshot. Return whether enough episodes are finished."""
        report = jax.device_get(report)
        record = self.recorder.record(report)
        if record is not None:
            if snapshot is not None:
                self._choose(snapshot, record)
            self._write(record)
        self._check_health(report["bad"])
        if snapshot is not None and record is not None:
            self._save_checkpoint(snapshot.train_state)
        episodes = self.trainer.num_episodes
        return episodes is not None and self.recorder.episodes >= episodes

    def _check_health(self, bad: dict[str, Any]) -> None:
        """Raise TrainingDiverged where the last update was rejected."""
        # Invalid actions and rewards come first: they spoil everything that is computed from them.
        reasons = [name for name in dict.fromkeys(("action", "reward", *bad)) if bad[name]]
        if not reasons:
            return
        if reasons == [DEVICES_DIFFER]:
            advice = "The agent's learn must take what it learns as means over them: jaxtrader.devices.mean"
        elif reasons[0] in ("action", "reward"):
            advice = "Look at the prices and features"
        else:
            advice = "Try a lower learning_rate or max_grad_norm"
        raise TrainingDiverged(
            f"update {self.recorder.updates + 1} was rejected: not finite or not valid in {', '.join(reasons)}. "
            f"The state before it is saved in {self.run_dir}. {advice}"
        )

    def _choose(self, snapshot: _Snapshot, record: dict[str, Any]) -> None:
        """Add the validation's figures to the record, and save the policy where it is the best so far."""
        if self.validation is None:
            return
        if self.validation.choose(snapshot.scores, record):
            self._save_policy("policy.pkl", snapshot.train_state)
        elif not math.isfinite(record["valid_reward_per_bar"]):
            self.progress.print(
                f"note: the validation after update {self.recorder.updates} is not finite and selects nothing"
            )

    def _write(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.log.write(record)
        self.progress.update(record["steps" if self.trainer.num_episodes is None else "episodes"], record)

    def _finish(self, train_state: TrainState) -> TrainResult:
        """Validate where the last record has no validation, and write the files of the end."""
        last = self.history[-1] if self.history else {"updates": 0, "steps": 0, "episodes": 0}
        if self.validation is not None and "valid_reward_per_bar" not in last:
            record = {**last, "seconds": self.recorder.seconds}
            self._choose(self._snapshot(train_state), record)
            self._write(record)
        self._save_end(train_state)
        return TrainResult(
            state=devices.to_first(train_state.agent_state, self.mesh),
            agent=self.trainer.agent,
            env=self.trainer.env,
            history=self.history,
            updates=self.recorder.updates,
            steps=self.recorder.steps,
            episodes=self.recorder.episodes,
            seconds=self.recorder.seconds,
            best=None if self.validation is None else self.validation.best,
            run_dir=self.run_dir,
            interrupted=self.stop.is_set(),
        )

    def _save_end(self, train_state: TrainState) -> None:
        """Save last.pkl, a checkpoint, and policy.pkl where no validation chose one."""
        self._save_policy("last.pkl", train_state, chosen=False)
        if self.best_score is None:
            self._save_policy("policy.pkl", train_state)
        self._save_checkpoint(train_state)

    def _save_policy(self, name: str, train_state: TrainState, chosen: bool = True) -> None:
        score = self.best_score if chosen else None
        about = {**self.about, "updates": self.recorder.updates, "valid_reward_per_bar": score}
        self.trainer.agent.save_model(self.run_dir / name, train_state.agent_state, about)

    def _save_checkpoint(self, train_state: TrainState) -> None:
        metrics_bytes = self.log.path.stat().st_size
        path = self.run_dir / "checkpoint.pkl"
        save_checkpoint(path, train_state, self.recorder.updates, metrics_bytes, self.best_score)
