"""The settings of `Trainer`. It needs no JAX: the command line derives its flags and their help from here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from typing import Literal, get_args

from jaxtrader.setting_checks import check_flag, check_whole, setting

OnDivergence = Literal["stop", "halve"]
Refit = Literal["fresh", "warm"]  # of each fold of a walk-forward
NO_LIMIT = 2**31 - 1  # updates and episodes are counted in int32 on the device
NUM_SEEDS = 2**32  # JAX cuts a seed to 32 bits, so that a higher one would be the same as a lower one
REQUIRED = ("num_envs", "rollout_length", "unroll", "updates_per_chunk", "eval_every", "devices", "seeds")
AT_LEAST_1 = (*REQUIRED, "accounts_per_path", "num_episodes", "total_steps", "seeds_at_once")


@dataclass(kw_only=True)
class TrainSettings:
    """How long a training is, how wide, on what it runs, and where it is saved.

    A CPU is one device, unless `jax.config.update("jax_num_cpu_devices", 2)` splits it before JAX is first used. The
    command line does so by itself.

    Attributes:
        num_envs: The number of parallel accounts: market paths times accounts_per_path.
        accounts_per_path: The number of accounts on each market path. They share its bars and its encoding. By default
            it is 2 where the window is above 1 and num_envs is a multiple of 16 num_minibatches, and 1 elsewhere.
        rollout_length: The number of steps of each account between two updates. It divides the episode length.
        unroll: The number of steps that the compiled loop of a rollout does in one pass. More of them are fewer
            launches on an accelerator, take longer to compile, and may change the last digits.
        num_episodes: The number of episodes to train, summed over all accounts. It stands instead of total_steps.
        total_steps: The number of steps to train, summed over all accounts.
        updates_per_chunk: The number of updates between two log records. The device does not wait in between.
        eval_every: The number of updates between two validations. There is always one at the end.
        devices: The number of devices to train on. Each has a part of the accounts. The result does not depend on it,
            but for the order of sums. A CPU with two cores trains most networks faster as two devices, but compiles
            and validates as fast as one.
        seed: The seed of all random numbers.
        seeds: The number of trainings, with this seed and those after it. The policy trades the mean of their targets.
            Their spread shows how much is luck.
        seeds_at_once: The number of seeds that one program trains side by side. By default they are as many as fit the
            memory of a GPU or TPU. On a CPU it is 1, which is as fast there. The result does not depend on it, but for
            the order of sums. A resumed run warns where it is another one.
        must_beat_holding: Whether the policy must do better on validation than its own mean exposure held, by a 95%
            interval of the difference of their Sharpe ratios. Otherwise it holds its mean exposure so far, and
            trained.pkl keeps what was trained. Most of what is found in a few thousand noisy bars was luck.
        on_divergence: The answer to numbers that are no longer finite. "stop" ends training with the last good state
            saved. "halve" goes back to the last multiple of eval_every and goes on with half the learning rate, at most
            ten times.
        refit_normalizer: Whether features are scaled by the new training bars, where training starts from an earlier
            policy. Otherwise they keep the earlier policy's scale.
        run_dir: The folder for the results, new or empty. By default it is the next free runs/NAME-0001.
    """

    num_envs: int = 256
    accounts_per_path: int | None = None
    rollout_length: int = 64
    unroll: int = 1
    num_episodes: int | None = None
    total_steps: int | None = None
    updates_per_chunk: int = 4
    eval_every: int = 20
    devices: int = 1
    seed: int = 0
    seeds: int = 1
    seeds_at_once: int | None = None
    must_beat_holding: bool = False
    on_divergence: OnDivergence = "stop"
    refit_normalizer: bool = False
    run_dir: str | PathLike[str] | None = None

    def validate_settings(self) -> None:
        """Raise ValueError where a setting is out of range or does not fit another. Counts become ints of Python."""
        for name in ("total_steps", "num_episodes"):
            if isinstance(value := getattr(self, name), float) and value.is_integer():  # as people write 1e6
                setattr(self, name, int(value))
        for name in AT_LEAST_1:
            if (value := getattr(self, name)) is not None or name in REQUIRED:
                setattr(self, name, check_whole(name, value, most=NUM_SEEDS if name == "seeds" else None))
        self.seed = check_seed(self.seed, self.seeds)
        for name in ("must_beat_holding", "refit_normalizer"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.run_dir, str | PathLike | None):
            raise ValueError(f"{setting('run_dir', self.run_dir)} must be the path of a folder")
        if self.unroll > self.rollout_length:
            raise ValueError(
                f"{setting('unroll', self.unroll)} is more than {setting('rollout_length', self.rollout_length)}; give "
                "fewer"
            )
        if self.on_divergence not in get_args(OnDivergence):
            raise ValueError(f"{setting('on_divergence', self.on_divergence)} is unknown; use stop or halve")
        if (self.num_episodes is None) == (self.total_steps is None):
            raise ValueError("give one of `num_episodes` and `total_steps`: where to stop")
        if self.num_episodes is not None and self.num_episodes > NO_LIMIT:
            raise ValueError(
                f"{setting('num_episodes', self.num_episodes)} is more than {NO_LIMIT}; give `total_steps` instead"
            )
        if self.total_updates is not None and self.total_updates > NO_LIMIT:
            raise ValueError(f"{setting('total_steps', self.total_steps)} is more than {NO_LIMIT} updates; give fewer")
        if self.num_envs % (self.accounts_per_path or 1):
            raise ValueError(
                f"{setting('accounts_per_path', self.accounts_per_path)} does not divide "
                f"{setting('num_envs', self.num_envs)}; give a number that does"
            )

    @property
    def num_paths(self) -> int:
        """Market paths, each with `accounts_per_path` accounts. An ordinary environment counts as a path."""
        return self.num_envs // (self.accounts_per_path or 1)

    @property
    def steps_per_update(self) -> int:
        """Environment steps in one rollout of all environments."""
        return self.num_envs * self.rollout_length

    @property
    def total_updates(self) -> int | None:
        """Updates that `total_steps` asks for, rounded up. None where episodes are counted."""
        return None if self.total_steps is None else math.ceil(self.total_steps / self.steps_per_update)

    @property
    def unit(self) -> Literal["steps", "episodes"]:
        """What the length of the training is counted in."""
        return "steps" if self.num_episodes is None else "episodes"


def check_seed(seed: object, seeds: int = 1) -> int:
    """Return the first of so many seeds as an int. Raises ValueError where JAX would cut one of them."""
    return check_whole("seed", seed, least=0, most=NUM_SEEDS - seeds)
