"""Trainer: the settings of a training, their checks, and its run folder. training_loop.py trains.

The Trainer takes any `Agent` and any environment in gymnax 1.0's shape. With a TradingEnv and a `MarketAgent` it rolls
out many accounts on market paths, and it can validate.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxtrader import compilation, devices, hosts
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_trained
from jaxtrader.agents.protocol import Agent, MarketAgent, check_paths
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.protocols import Environment, check_environment
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.files import FileError, encoded
from jaxtrader.jax_settings import package_settings, without_64_bits
from jaxtrader.market.market import Market
from jaxtrader.run_files import METRICS, START
from jaxtrader.setting_checks import check_flag, check_type, setting
from jaxtrader.training.callbacks import Callback, check_callbacks
from jaxtrader.training.checkpoint import Checkpoint, find_checkpoint
from jaxtrader.training.dispatch import run_alone
from jaxtrader.training.hold_if_unproven import check_must_beat_holding, hold_if_unproven, trained_path
from jaxtrader.training.identity import Identity, check_alike, identity
from jaxtrader.training.interrupt import stop_on_signals
from jaxtrader.training.members import check_members, check_members_to_resume, check_seeds, train_members
from jaxtrader.training.metrics_log import JsonlLogger
from jaxtrader.training.progress import MemberProgress, Progress
from jaxtrader.training.rollout import EnvRollouts, MarketRollouts
from jaxtrader.training.run_folder import (
    contents,
    find_run,
    holds_nothing,
    make_run_dir,
    only_writer,
    refuse_full,
    resume_command,
)
from jaxtrader.training.train_result import TrainResult
from jaxtrader.training.train_settings import NO_LIMIT, TrainSettings
from jaxtrader.training.training_loop import TrainingLoop
from jaxtrader.training.validation import check_validation
from jaxtrader.training.warm_start import check_earlier, keep_start, with_start

FOLDER = "folder"  # the key of the run folder's path among the files that process 0 shares


@dataclass(eq=False)
class Trainer(TrainSettings):
    """Trains an agent in an environment for a number of episodes or steps, and saves it.

    The settings of `TrainSettings` (size, length, devices, seed, folder) are further keyword arguments.

    Args:
        env: a TradingEnv, or any environment in gymnax 1.0's shape.
        agent: a PPOAgent, or any `Agent`.
        valid: the data that choose the best policy: a Market, or the Optimum of a synthetic market. The Optimum
            also gives each policy's share of the optimum. Without `valid` the last policy is kept.
        env_params: parameters of an ordinary environment. None: `env.default_params`.
        about: further plain data for config.json and the policy file.
        progress: show progress in the terminal.
        init_from: an earlier policy, or its file or run folder, whose weights and normalisation training starts from.
            Where the earlier run holds instead, training starts from its trained.pkl. The new run keeps a copy.
            The environment must have the same features, positions and largest leverage, and the agent the same network.
        callbacks: called on the host at the start, after chunks and validations, and at the end. See `Callback`,
            `EarlyStopping` and `loggers`.

    Raises:
        ValueError: an argument has the wrong type, settings do not fit together, or the earlier policy does not fit
            them.
        FileError: the earlier policy's file is not sound.

    Example:
        >>> market = jt.Market.from_bars(jt.load_bundled("IBM"))
        >>> train, valid, test = market.split("2008-01-01", "2011-01-01")
        >>> env = jt.TradingEnv(train, positions=(0, 1), window=2)
        >>> agent = jt.PPOAgent(hidden=(8,), num_minibatches=2)
        >>> size = {"num_envs": 8, "rollout_length": 16, "total_steps": 256}  # two updates, to see that it runs
        >>> jt.Trainer(env, agent, valid=valid, run_dir="runs/demo", progress=False, **size).train()
        TrainResult(2 updates, best of validation after 2, 256 steps, ... runs/demo)
    """

    env: Environment
    agent: Agent
    valid: Market | Optimum | None = None
    _: KW_ONLY
    env_params: Any = None
    about: dict[str, Any] = field(default_factory=dict)
    progress: bool = True
    init_from: Policy | str | PathLike[str] | None = None
    callbacks: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        check_type("Trainer", self.agent, Agent, "derive it from `jaxtrader.Agent`")
        check_environment(self.env)
        check_callbacks(self.callbacks, self.valid is not None)
        self.agent.validate()
        self.validate_settings()
        check_flag("progress", self.progress)
        _check_about(self.about)
        if isinstance(self.env, TradingEnv) and self.env_params is not None:
            check_type("Trainer", self.env_params, EnvParams, "make `env_params` with `env.params()`")
        if self.accounts_per_path is None:
            self.accounts_per_path = self._usual_accounts()
        self.agent.check_env(self.env)
        self._check_devices()
        if isinstance(self.env, TradingEnv):
            self.env.check_room(self.rollout_length if self.on_market_paths else 1)
        if self.on_market_paths:
            self._check_market()
        elif self.num_paths < self.num_envs:
            raise ValueError("`accounts_per_path` needs a TradingEnv and a MarketAgent: others have no market paths")
        elif self.valid is not None:
            if not isinstance(self.env, TradingEnv):
                raise ValueError("`valid` needs a TradingEnv: others have no market to validate on")
            check_validation(self.valid, self.env)
        if self.on_divergence == "halve" and type(self.agent).halve_rate is Agent.halve_rate:
            raise ValueError(f"{type(self.agent).__name__} has no rate to halve; use `on_divergence='stop'`")
        if self.earlier is not None:
            check_earlier(self.earlier, self.env, self.agent, self.seeds)
        elif self.refit_normalizer:
            raise ValueError("`refit_normalizer` needs an earlier policy; give `init_from`, or leave it out")
        if self.seeds > 1:
            check_members(self)
        if self.must_beat_holding:
            check_must_beat_holding(self)

    @cached_property
    def earlier(self) -> Policy | None:
        """The policy that training starts from."""
        given = self.init_from
        if given is None or isinstance(given, Policy):
            return given
        if not isinstance(given, str | PathLike):
            raise ValueError(f"{setting('init_from', given)} must be a policy, or the path of its file or run folder")
        path = trained_path(Path(given)) if Path(given).is_dir() else given
        return load_trained(path, self.agent, self.env)

    def _usual_accounts(self) -> int:
        """Return the number of accounts on a path where accounts_per_path is None.

        Two share the work of a window, and learn as fast. The number must not depend on the devices, which may change
        when a run is resumed. So it is 2 only where the paths are enough for eight devices.
        """
        shares = self.on_market_paths and cast(TradingEnv, self.env).window > 1
        return 2 if shares and self.num_envs % (2 * 8 * self.agent.num_minibatches) == 0 else 1

    def _check_devices(self) -> None:
        if self.devices > 1 and not self.agent.several_devices:
            raise ValueError(f"{type(self.agent).__name__} learns on one device; use `devices=1`")
        check_paths(self.num_paths, self.agent.num_minibatches, self.devices)
        devices.make_mesh(self.devices)

    def _check_market(self) -> None:
        env, length = self.env, self.rollout_length
        assert isinstance(env, TradingEnv)
        decisions = env.episode_length // env.decision_every
        if decisions % length:
            divisors = [d for d in range(1, decisions + 1) if decisions % d == 0]
            nearest = sorted(sorted(divisors, key=lambda d: abs(d - length))[:2])
            episode = setting("episode_length", decisions)
            if env.decision_every > 1:
                episode = f"the {decisions} decisions of an episode"
            way_out = " or ".join(map(str, nearest))
            raise ValueError(f"{setting('rollout_length', length)} does not divide {episode}; use {way_out}")
        if self.valid is not None:
            check_validation(self.valid, env)

    @property
    def on_market_paths(self) -> bool:
        """Whether accounts share market paths, whose bars are encoded once. Else each environment is stepped alone."""
        return isinstance(self.env, TradingEnv) and isinstance(self.agent, MarketAgent)

    @property
    def rollouts(self) -> MarketRollouts | EnvRollouts:
        """The rollouts that collect the experience."""
        shards = self.num_paths // self.agent.num_minibatches
        if self.on_market_paths:
            assert isinstance(self.env, TradingEnv)
            return MarketRollouts(
                self.env, self.rollout_length, self.num_paths, self.num_envs // self.num_paths, shards, self.unroll
            )
        return EnvRollouts(self.env, self.rollout_length, self.num_envs, shards, self.unroll)

    @package_settings()
    def train(self, resume: bool = False) -> TrainResult:
        """Train until the end, or until a signal, which saves and returns.

        The signals are Ctrl-C, SIGTERM, SIGHUP and SIGUSR1. A second one raises KeyboardInterrupt.

        Where JAX runs in several processes, all of them must call this with the same settings and `devices` as many as
        they all have. Process 0 alone logs, calls the callbacks and writes. What the others return names its folder.
        All end two chunks after a callback asks for it.

        Args:
            resume: continue the run in `run_dir` from its last checkpoint, or from its beginning where it has none.
                Only the settings in `identity.MAY_CHANGE`, such as `total_steps` and `devices`, may be others. The
                results are those of a training that never stopped, bit for bit, on the same version of JAX, kind and
                number of devices, and number of cores.

        Raises:
            TrainingDiverged: a number became NaN or infinite. The last good state is saved before.
            FileExistsError: run_dir is not empty.
            FileNotFoundError: there is no run to resume.
            FileError: another training writes to run_dir, a file cannot be written, or no checkpoint can be read.
            ValueError: the run to resume had other settings or data, or another process has.
        """
        compilation.enable_cache()
        return self.train_here(resume) if hosts.count() == 1 else self._train_with_others(resume)

    def _train_with_others(self, resume: bool) -> TrainResult:
        """Train in several processes. All but process 0 work in a folder that is deleted, and show nothing."""
        hosts.meet()
        check_alike(self, self.identity, None if self.earlier is None else self.earlier.state, resume)
        if hosts.is_first():
            run_dir = self.open_folder(resume)
            hosts.share({FOLDER: str(run_dir).encode(), **(contents(run_dir) if resume else {})})
            return replace(self, run_dir=run_dir).train_here(resume)
        copies = hosts.share({})
        run_dir = Path(copies.pop(FOLDER).decode())
        with hosts.scratch_folder() as folder:
            for path, content in copies.items():
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(content)
            result = replace(self, run_dir=folder, progress=False, callbacks=()).train_here(resume)
        return _moved(result, folder, run_dir)

    def train_here(self, resume: bool) -> TrainResult:
        """Do the work of `train` in this process and its own folder."""
        if self.seeds > 1:
            return train_members(self, resume)
        with (
            self.make_progress() as progress,
            stop_on_signals(progress.print, progress.close) as stop,
            self.begin(resume, progress, stop) as training,
        ):
            result = run_alone(training)
            if self.must_beat_holding and not result.interrupted:
                progress.wait("comparing with holding")
                result = replace(result, proof=hold_if_unproven(self, result))
            if stop.is_set() and not result.interrupted:
                progress.print("the signal came at the end: this training is complete")
            return result

    def open_folder(self, resume: bool) -> Path:
        """Return the folder of the run to resume, or a new one."""
        if resume:
            return find_run(self.run_dir)
        return make_run_dir(self.run_dir, self.env.name.lower())

    @contextmanager
    def begin(
        self, resume: bool, progress: Progress | MemberProgress, stop: threading.Event, seeds_at_once: int = 1
    ) -> Generator[TrainingLoop]:
        """Lock the run folder, and yield a training of one seed. The other arguments are those of `TrainingLoop`."""
        run_dir = self.open_folder(resume)
        with only_writer(run_dir):
            if not (resume or holds_nothing(run_dir)):  # another training has begun here in the meantime
                refuse_full(run_dir)
            checkpoint = self.newest_checkpoint(run_dir, set_aside=True) if resume else None
            if resume and checkpoint is None:
                progress.print(f"{run_dir} has no checkpoint yet; its training begins anew")
            started = with_start(self, run_dir) if resume else self
            if checkpoint is None:
                keep_start(started, run_dir)
            with JsonlLogger(run_dir / METRICS) as log:
                try:
                    yield TrainingLoop(started, run_dir, log, progress, stop, checkpoint, seeds_at_once)
                except KeyboardInterrupt:
                    saved = ", ".join(sorted({path.name for path in run_dir.glob("*.pkl")} - {START})) or "nothing yet"
                    going_on = f"go on with: {resume_command(run_dir)}"
                    progress.print(f"left at once; saved in {run_dir} before: {saved}; {going_on}")
                    raise

    @property
    def raw_params(self) -> Any:
        """Parameters of the environment, as the agent's `prepare` takes them."""
        return self.env.default_params if self.env_params is None else without_64_bits(self.env_params)

    @property
    def limits(self) -> dict[str, Array]:
        """Updates and episodes at which training ends, as `run_chunk` takes them."""
        return {
            "updates": jnp.asarray(self.total_updates or NO_LIMIT, jnp.int32),
            "episodes": jnp.asarray(self.num_episodes or NO_LIMIT, jnp.int32),
        }

    @property
    def agent_arrays(self) -> Any:
        """The agent with float32 arrays in the place of floats, which would be traced as another program."""
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if isinstance(x, float) else x, self.agent)

    def check_resume(self) -> None:
        """Raise what `train(resume=True)` would raise for the run in `run_dir`. Nothing is written."""
        if self.seeds > 1:
            check_members_to_resume(self)
            return
        with warnings.catch_warnings(action="ignore"):  # they come again where it is resumed
            run_dir = find_run(self.run_dir)
            self.newest_checkpoint(run_dir, set_aside=False)
            with_start(self, run_dir)

    @cached_property
    def identity(self) -> Identity:
        """What a run must have in common with another one to continue it."""
        return identity(self)

    def newest_checkpoint(self, run_dir: Path, set_aside: bool) -> Checkpoint | None:
        """Return the checkpoint from which a run goes on, and warn of those that are damaged. None: it has none."""
        check_seeds(self, run_dir)
        checkpoint, notes = find_checkpoint(run_dir, self.identity, set_aside)
        for text in notes:
            warnings.warn(text, stacklevel=4)
        if checkpoint is None:
            return None
        if self.total_updates is not None and self.total_updates < checkpoint.updates:
            done = checkpoint.updates * self.steps_per_update
            raise ValueError(
                f"{setting('total_steps', self.total_steps)} is less than the {done} that the run has done; give more"
            )
        return checkpoint

    @property
    def goal(self) -> int:
        """The number of updates at which training ends, or of episodes where it is counted in them."""
        goal = self.total_updates if self.num_episodes is None else self.num_episodes
        assert goal is not None
        return goal

    def make_progress(self, seeds: int = 1) -> Progress:
        """Return a display for so many seeds."""
        per_goal = self.steps_per_update if self.unit == "steps" else 1
        return Progress(seeds * self.goal * per_goal, self.unit, enabled=self.progress)


def _check_about(about: Any) -> None:
    """Raise ValueError where the policy files cannot hold these data, before anything is trained."""
    if not isinstance(about, dict):
        raise ValueError(f"{setting('about', about)} must be a dict of plain data")
    try:
        encoded("about", about)
    except FileError as error:
        raise ValueError(f"`about` must be plain data: {error}") from error


def _moved(result: TrainResult, folder: Path, run_dir: Path) -> TrainResult:
    """Return a result that names the folder in which process 0 has written."""
    place = run_dir / result.run_dir.relative_to(folder)
    return replace(result, run_dir=place, members=tuple(_moved(member, folder, run_dir) for member in result.members))
