"""Trainer: the outer loop. It dispatches jitted chunks of updates, logs on the host, validates, and saves.

The host dispatches chunk n (chunk.py), then fetches and logs chunk n-1, so that the device never waits for the log. The
Trainer knows nothing of PPO: any agent with the protocol's methods will do, and any environment in gymnax 1.0's
shape. A TradingEnv (or what has its methods) is rolled out by lane and validated.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrader import compilation, devices, files
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import check_tradable, longest_walk, mean_reward
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.market.market import Market
from jaxtrader.training import checkpoint
from jaxtrader.training.chunk import DIFFER, NO_LIMIT, Carry, begin_rollouts, copied, init_state, placed, run_chunk
from jaxtrader.training.interrupt import stop_on_interrupt
from jaxtrader.training.loggers import JsonlLogger, Progress
from jaxtrader.training.rollout import EnvRollouts, LaneRollouts

MEASURED_SECONDS = 0.5  # a speed is of that long at least


class TrainingDiverged(RuntimeError):
    """Something became NaN or infinite; the message says what. The last good state has been saved."""


@dataclass(frozen=True, eq=False)
class TrainResult:
    """What `Trainer.train` gives back.

    Attributes:
        state: the agent's last state. agent, env: as trained.
        history: the records of metrics.jsonl.
        updates, steps, episodes: how far it came. seconds: of training, compilation and validation included.
        best: the record of the best validation, None without one.
        run_dir: the folder with policy.pkl, last.pkl, checkpoint.pkl, config.json and metrics.jsonl.
        interrupted: True where Ctrl-C ended it early.
    """

    state: Any
    agent: Any
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
        """The policy file: best on validation, or the last without validation."""
        return self.run_dir / "policy.pkl"


@dataclass(eq=False)
class Trainer:
    """Trains an agent in an environment for a number of episodes or steps, and saves it.

    Args:
        env: a TradingEnv (rollouts by lane), or any environment in gymnax 1.0's shape.
        agent: a PPOAgent, or anything with the `Agent` protocol.
        valid: a Market to select the best policy on, or the Optimum of a synthetic one, against which each policy is
            then scored; without it the last policy is kept.
        env_params: parameters of an ordinary environment; default `env.default_params`.
        num_envs: parallel environments = lanes * agents_per_lane.
        agents_per_lane: accounts that share a lane's bars and so the encoder's work.
        rollout_length: steps of each environment between two updates; on lanes it divides the episode length.
        num_episodes, total_steps: where to stop, one of them: episodes or steps summed over all environments.
        updates_per_chunk: updates between two log records; the device does not wait for the host in between.
        eval_every: updates between two validations (and checkpoints); there is always one at the end.
        devices: of JAX's default backend, to train on: each has its part of the environments, and gradients are means
            over all; it draws other numbers than one does. `jax.config.update("jax_num_cpu_devices", 2)`, before JAX is
            first used, makes two of a CPU, on which most networks train faster. Validation stays on the first.
        seed: of everything.
        run_dir: a new or empty folder; default the next free `runs/NAME-0001`.
        about: further plain data for config.json and the policy file.
        progress: show progress in the terminal.

    Raises:
        ValueError: where settings do not fit together.
    """

    env: Any
    agent: Any
    valid: Market | Optimum | None = None
    _: KW_ONLY
    env_params: Any = None
    num_envs: int = 256
    agents_per_lane: int = 1
    rollout_length: int = 64
    num_episodes: int | None = None
    total_steps: int | None = None
    updates_per_chunk: int = 4
    eval_every: int = 20
    devices: int = 1
    seed: int = 0
    run_dir: str | PathLike[str] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("num_envs", "agents_per_lane", "rollout_length", "updates_per_chunk", "eval_every", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if (self.num_episodes is None) == (self.total_steps is None):
            raise ValueError("give one of num_episodes and total_steps: where to stop")
        limit = self.num_episodes if self.total_steps is None else self.total_steps
        if limit is None or limit < 1:
            raise ValueError(f"the number of episodes or steps is {limit}; it must be at least 1")
        if self.num_episodes is not None and self.num_episodes > NO_LIMIT:
            raise ValueError(f"num_episodes {self.num_episodes} is more than {NO_LIMIT}; give total_steps instead")
        if self.total_updates is not None and self.total_updates > NO_LIMIT:
            raise ValueError(f"total_steps {self.total_steps} is more than {NO_LIMIT} updates; give fewer")
        if hasattr(self.agent, "validate"):
            self.agent.validate()
        if hasattr(self.agent, "check_env"):
            self.agent.check_env(self.env)
        lanes, rest = divmod(self.num_envs, self.agents_per_lane)
        if rest:
            raise ValueError(f"agents_per_lane {self.agents_per_lane} does not divide num_envs {self.num_envs}")
        self._check_parts(lanes)
        if hasattr(self.env, "check_room"):
            self.env.check_room(self.rollout_length if self._by_lane else 1)
        if self._by_lane:
            self._check_lanes()
        elif self.agents_per_lane > 1:
            raise ValueError(
                "agents_per_lane needs a TradingEnv and an agent with encode and act: others have no lanes"
            )
        elif self.valid is not None:
            raise ValueError(
                "valid needs a TradingEnv and an agent with encode and act: others have no market to validate on"
            )

    def _check_parts(self, lanes: int) -> None:
        if self.devices > 1 and not getattr(self.agent, "several_devices", False):
            raise ValueError(f"{type(self.agent).__name__} learns on one device; leave devices at 1")
        if lanes % self.devices:
            raise ValueError(f"devices {self.devices} does not divide the {lanes} lanes (num_envs / agents_per_lane)")
        parts = getattr(self.agent, "num_minibatches", 1)
        if lanes // self.devices % parts:
            of_each = f" of each of {self.devices} devices" * (self.devices > 1)
            raise ValueError(
                f"num_minibatches {parts} does not divide the {lanes // self.devices} lanes (num_envs / "
                f"agents_per_lane){of_each}: a minibatch is whole lanes"
            )
        devices.mesh(self.devices)

    def _check_lanes(self) -> None:
        length, episode = self.rollout_length, self.env.episode_length // self.env.decision_every
        if episode % length:
            fits = [d for d in range(1, episode + 1) if episode % d == 0]
            near = sorted(sorted(fits, key=lambda d: abs(d - length))[:2])
            every = self.env.decision_every
            whole = f"episode_length {episode}" if every == 1 else f"the {episode} decisions of an episode"
            raise ValueError(f"rollout_length {length} does not divide {whole}; use {' or '.join(map(str, near))}")
        if isinstance(self.valid, Optimum):
            self.valid.check(self.env)
        elif self.valid is not None:
            check_tradable(self.env.with_market(self.valid))

    @property
    def _by_lane(self) -> bool:
        return all(hasattr(self.env, name) for name in ("advance", "account_features")) and all(
            hasattr(self.agent, name) for name in ("encode", "act")
        )

    @property
    def rollouts(self) -> LaneRollouts | EnvRollouts:
        """How experience is collected here."""
        if self._by_lane:
            return LaneRollouts(
                self.env, self.rollout_length, self.num_envs // self.agents_per_lane, self.agents_per_lane
            )
        return EnvRollouts(self.env, self.rollout_length, self.num_envs)

    @property
    def steps_per_update(self) -> int:
        """Environment steps in one rollout of all environments."""
        return self.num_envs * self.rollout_length

    @property
    def total_updates(self) -> int | None:
        """Updates that `total_steps` asks for, rounded up; None where episodes are counted."""
        return None if self.total_steps is None else math.ceil(self.total_steps / self.steps_per_update)

    def train(self) -> TrainResult:
        """Train to the end, or to Ctrl-C (which saves and returns; a second one breaks off).

        Raises:
            TrainingDiverged: where something went NaN or infinite, after saving the last good state.
            FileExistsError: where run_dir is not empty.
        """
        compilation.keep_programs()
        run_dir = checkpoint.make_run_dir(self.run_dir, getattr(self.env, "name", type(self.env).__name__).lower())
        with (
            JsonlLogger(run_dir / "metrics.jsonl") as log,
            self._progress() as shown,
            stop_on_interrupt(shown.print) as stop,
        ):
            try:
                return _Run(self, run_dir, log, shown, stop).train()
            except KeyboardInterrupt:
                files_there = ", ".join(sorted(path.name for path in run_dir.glob("*.pkl"))) or "nothing yet"
                shown.print(f"left at once; saved in {run_dir} before: {files_there}")
                raise

    def _progress(self) -> Progress:
        if self.num_episodes is not None:
            return Progress(self.num_episodes, "episodes", enabled=self.progress)
        assert self.total_updates is not None
        return Progress(self.total_updates * self.steps_per_update, "steps", enabled=self.progress)


class _Run:
    """One call of `train`: the loop's own state."""

    def __init__(
        self, trainer: Trainer, run_dir: Path, log: JsonlLogger, shown: Progress, stop: threading.Event
    ) -> None:
        self.trainer, self.run_dir, self.log, self.shown, self.stop = trainer, run_dir, log, shown, stop
        self.rollouts, self.mesh = trainer.rollouts, devices.mesh(trainer.devices)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.updates = self.episodes = 0
        self.began = time.perf_counter()
        self.marks: deque[tuple[int, float]] = deque(maxlen=10)  # (steps, time) of the last records: the speed's window
        self.compile_seconds: float | None = None

    def train(self) -> TrainResult:
        trainer = self.trainer
        # Floats become strong float32 once: a Python float and a float32 would be two traces.
        self.agent = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, float) else x, trainer.agent)
        carry, params, self.valid_params = self._begin()
        if isinstance(trainer.env, TradingEnv) and (short := trainer.env.symbols_without_room(trainer.rollout_length)):
            self.shown.print(
                f"note: {', '.join(short)}: too few bars for a rollout of {trainer.rollout_length}; not trained on"
            )
        files.write_text(self.run_dir / "config.json", json.dumps(self._config(), indent=2, default=str) + "\n")
        everywhere = partial(devices.placed, mesh=self.mesh, spec=devices.SHARED)
        limits = {
            "updates": jnp.asarray(trainer.total_updates or NO_LIMIT, jnp.int32),
            "episodes": jnp.asarray(trainer.num_episodes or NO_LIMIT, jnp.int32),
        }
        agent, params, limits = everywhere((self.agent, params, limits))
        planned, end = 0, trainer.total_updates or NO_LIMIT
        pending: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        finished = False
        try:
            while not finished:
                to_eval = trainer.eval_every - planned % trainer.eval_every
                count = min(trainer.updates_per_chunk, to_eval, end - planned)
                dispatched = time.perf_counter()
                planned += count
                carry, report = run_chunk(
                    carry,
                    agent,
                    params,
                    limits,
                    everywhere(jnp.asarray(count, jnp.int32)),
                    rollouts=self.rollouts,
                    mesh=self.mesh,
                )
                if self.compile_seconds is None:
                    self.compile_seconds = time.perf_counter() - dispatched
                # The next dispatch donates the carry: what is to outlive it is copied before.
                pending.append((report, self._evaluate(carry) if count == to_eval or planned == end else None))
                finished = planned >= end or self.stop.is_set()
                while len(pending) > (0 if finished else 1):
                    finished |= self._fetch(*pending.pop(0))
        except TrainingDiverged:
            # The carry is as it was before the rejected update; a run that goes on from it may try again.
            self._save_end(carry.replace(healthy=jnp.ones((), bool)))
            raise
        return self._finish(carry)

    def _begin(self) -> tuple[Carry, Any, Any]:
        """Fresh state, prepared parameters of training and validation."""
        trainer = self.trainer
        init, begin, rest = jax.random.split(jax.random.key(trainer.seed), 3)
        params = trainer.env.default_params if trainer.env_params is None else trainer.env_params
        state = init_state(self.agent, init, params, env=trainer.env)
        prepare = getattr(self.agent, "prepare", lambda state, params: (state, params))
        state, params = prepare(state, params)
        valid = None
        if trainer.valid is not None:
            self.valid_env = trainer.env.with_market(
                trainer.valid.market if isinstance(trainer.valid, Optimum) else trainer.valid
            )
            _, valid = prepare(state, self.valid_env.default_params)
        zero = jnp.zeros((), jnp.int32)
        envs = begin_rollouts(begin, params, rollouts=self.rollouts)
        carry = Carry(state, envs, rest, zero, zero, jnp.ones((), bool))
        return placed(carry, self.mesh), params, valid

    def _evaluate(self, carry: Carry) -> dict[str, Any]:
        """Enqueue a copy of the state and, with a validation market, its score."""
        kept: dict[str, Any] = {"carry": copied(carry)}
        valid, env = self.trainer.valid, getattr(self, "valid_env", None)
        state = devices.on_first(kept["carry"].agent, self.mesh)
        if isinstance(valid, Optimum):
            score, held = valid.walk(self.agent, state, self.valid_params)
            kept |= {"valid_reward_per_bar": score, "valid_held": held}
        elif env is not None:
            score = mean_reward(self.agent, state, self.valid_params, env=env, length=longest_walk(env))
            kept["valid_reward_per_bar"] = score
        if self.mesh is not None:
            # A CPU's devices share its threads. Were the next chunk's half on one device to wait for this behind the
            # other's, which waits for it, XLA would end the process after 40 seconds.
            jax.block_until_ready(kept)
        return kept

    def _fetch(self, report: dict[str, Any], kept: dict[str, Any] | None) -> bool:
        """Wait for a chunk, log it, save what it left to save; True where training is over."""
        report = jax.device_get(report)
        done, updates = int(report["updates"]) - self.updates, int(report["updates"])
        self.updates, self.episodes = updates, int(report["episodes"])
        if done:
            record = self._record(report, done)
            if kept is not None and "valid_reward_per_bar" in kept:
                self._select(kept, record)
            self._write(record)
        bad = [name for name in ("action", "reward", *report["bad"]) if report["bad"][name]]
        if bad:
            data = bad[0] in ("action", "reward")  # causes come first: everything after them is spoilt too
            advice = "Look at the prices and features" if data else "Try a lower learning_rate or max_grad_norm"
            if bad == [DIFFER]:
                advice = "The agent's learn must take what it learns as means over them: jaxtrader.devices.mean"
            raise TrainingDiverged(
                f"update {updates + 1} was rejected: not finite or not valid in {', '.join(dict.fromkeys(bad))}. "
                f"The state before it is saved in {self.run_dir}. {advice}"
            )
        if kept is not None and done:
            self._save_checkpoint(kept["carry"])
        trainer = self.trainer
        if trainer.num_episodes is not None:
            return self.episodes >= trainer.num_episodes
        return False

    def _record(self, report: dict[str, Any], done: int) -> dict[str, Any]:
        now, steps = time.perf_counter(), self.updates * self.trainer.steps_per_update
        sums = {name: float(x) for name, x in report["sums"].items()}
        episodes, returns = sums.pop("episodes"), sums.pop("episode_returns")
        record: dict[str, Any] = {
            "updates": self.updates,
            "steps": steps,
            "episodes": self.episodes,
            "seconds": now - self.began,
            "steps_per_second": self._speed(steps, now),
            "episode_return": returns / episodes if episodes else math.nan,
        }
        if self.history:
            self.marks.append((steps, now))
        else:  # the first chunk's time holds compilation, which is no speed
            record["compile_seconds"] = self.compile_seconds
        return {**record, **{name: x / done for name, x in sums.items()}}

    def _speed(self, steps: int, now: float) -> float:
        """Steps a second since the oldest mark; NaN where that is no time yet: a chunk may have been fetched late."""
        since, began = self.marks[0] if self.marks else (steps, now)
        return (steps - since) / (now - began) if now - began >= MEASURED_SECONDS else math.nan

    def _select(self, kept: dict[str, Any], record: dict[str, Any]) -> None:
        """Keep the policy if it is the best so far; ties go to the earlier."""
        score = float(kept["valid_reward_per_bar"])
        record["valid_reward_per_bar"] = score
        if isinstance(self.trainer.valid, Optimum):
            record |= {"optimum_share": self.trainer.valid.share(score), "valid_held": float(kept["valid_held"])}
        if math.isfinite(score) and (self.best is None or score > self.best["valid_reward_per_bar"]):
            self.best = record
            self._save_policy("policy.pkl", kept["carry"].agent, score)
        if not math.isfinite(score):
            self.shown.print(f"note: the validation after update {self.updates} is not finite and selects nothing")
        if self.best is not None:
            record["valid_best"] = self.best["valid_reward_per_bar"]

    def _write(self, record: dict[str, Any]) -> None:
        self.history.append(record)
        self.log.write(record)
        done = record["episodes"] if self.trainer.num_episodes is not None else record["steps"]
        self.shown.update(done, record)

    def _finish(self, carry: Carry) -> TrainResult:
        """The last validation, if it is still due, and the files of the end."""
        due = not self.history or (self.trainer.valid is not None and "valid_reward_per_bar" not in self.history[-1])
        if due and self.valid_params is not None:
            # The figures of the last chunk again, now with the validation of its end.
            last = self.history[-1] if self.history else {"updates": 0, "steps": 0, "episodes": 0}
            record = {**last, "seconds": time.perf_counter() - self.began}
            self._select(self._evaluate(carry), record)
            self._write(record)
        self._save_end(carry)
        return TrainResult(
            state=devices.on_first(carry.agent, self.mesh),
            agent=self.trainer.agent,
            env=self.trainer.env,
            history=self.history,
            updates=self.updates,
            steps=self.updates * self.trainer.steps_per_update,
            episodes=self.episodes,
            seconds=time.perf_counter() - self.began,
            best=self.best,
            run_dir=self.run_dir,
            interrupted=self.stop.is_set(),
        )

    def _save_end(self, carry: Carry) -> None:
        """The files of the end, good or bad: last.pkl, a checkpoint, and policy.pkl where no validation chose one."""
        self._save_policy("last.pkl", carry.agent, None)
        if self.best is None:
            self._save_policy("policy.pkl", carry.agent, None)
        self._save_checkpoint(carry)

    def _save_policy(self, name: str, state: Any, score: float | None) -> None:
        about = {**self._about(), "updates": self.updates, "valid_reward_per_bar": score}
        self.agent.save_model(self.run_dir / name, state, about)

    def _save_checkpoint(self, carry: Carry) -> None:
        best = None if self.best is None else self.best["valid_reward_per_bar"]
        checkpoint.save(self.run_dir / "checkpoint.pkl", carry, self.updates, self.log.path.stat().st_size, best)

    def _about(self) -> dict[str, Any]:
        """What a policy file says of itself: environment, features, data, training."""
        trainer, env = self.trainer, self.trainer.env
        about: dict[str, Any] = dict(trainer.about)
        if isinstance(env, TradingEnv):
            about["env"] = env.to_dict()
            about["agent"] = _plain(trainer.agent)
            about["training"] = self._settings()
            about["symbols"] = list(env.market.symbols)
            about["features"] = {"names": list(env.market.feature_names), "lookback": env.market.lookback}
            about["data"] = {"train": env.market.describe()}
            if trainer.valid is not None:
                about["data"]["valid"] = trainer.valid.describe()
        return about

    def _settings(self) -> dict[str, Any]:
        names = ("num_envs", "agents_per_lane", "rollout_length", "num_episodes", "total_steps", "updates_per_chunk")
        return {name: getattr(self.trainer, name) for name in (*names, "eval_every", "devices", "seed")}

    def _config(self) -> dict[str, Any]:
        return {"training": self._settings(), "agent": _plain(self.trainer.agent), **self._about()}


def _plain(agent: Any) -> dict[str, Any]:
    """An agent's settings as plain data; {} where it is no dataclass."""
    if not is_dataclass(agent):
        return {"name": type(agent).__name__}
    settings = {f.name: getattr(agent, f.name) for f in fields(agent)}
    plain = {k: float(np.asarray(v)) if isinstance(v, jax.Array | np.ndarray) else v for k, v in settings.items()}
    return {"name": type(agent).__name__, **plain}
