"""Training that starts from an earlier policy: the check that it fits, and the copy that the run keeps.

With the copy, a run can be resumed where the earlier run has changed since, or is gone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import load_trained, save_policy
from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.files import FileError
from jaxtrader.jax_settings import package_settings
from jaxtrader.run_files import START
from jaxtrader.setting_checks import setting
from jaxtrader.training.run_folder import needs_start

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer

REFIT = "refit_normalizer"  # the key of the copy's `about` that says whether features are scaled anew


@package_settings()
def check_earlier(policy: Policy, env: Any, agent: Agent, seeds: int) -> None:
    """Raise ValueError where a training cannot start from an earlier policy. The message names what differs.

    Of an ensemble, each seed starts from its own member.
    """
    if not isinstance(env, TradingEnv):
        raise ValueError("`init_from` needs a TradingEnv; leave it out")
    members = policy.members
    if len(members) not in (1, seeds):
        raise ValueError(
            f"the policy is an ensemble of {len(members)}, not of {setting('seeds', seeds)}; give as many seeds, or "
            "one of its members"
        )
    policy = members[0]
    needed = {
        "features": (policy.features, env.market.feature_names),
        "positions": (policy.positions, env.positions),
        "account features": (policy.account_names, env.account_names),
        "max_leverage": (policy.rules.max_leverage, env.rules.max_leverage),
    }
    for name, pair in needed.items():
        if pair[0] != pair[1]:
            are_names = name.endswith("features")
            before, now = (", ".join(map(str, np.ravel(x))) if are_names else setting(name, x) for x in pair)
            of_names = f"the {name} " * are_names
            raise ValueError(
                f"the policy was trained with {of_names}{before}, and this training has {now}; give what the policy "
                "has, or leave out `init_from`"
            )
    fresh = jax.eval_shape(lambda key: agent.init(key, env, env.default_params), jax.random.key(0))
    agent.start_from(fresh, policy.state, keep_scale=True)


def origin(policy: Policy) -> dict[str, Any]:
    """Return what a policy says of itself, for the files of a training that starts from it."""
    return {name: policy.about[name] for name in ("updates", "symbols", "data", "training") if name in policy.about}


def keep_start(trainer: Trainer, run_dir: Path) -> None:
    """Keep a copy of the policy that a training starts from in its folder. Without one, nothing is left there."""
    path = run_dir / START
    if trainer.earlier is None:
        path.unlink(missing_ok=True)  # left by a run that was killed before its first record
    else:
        earlier = trainer.earlier
        save_policy(path, replace(earlier, about={**earlier.about, REFIT: trainer.refit_normalizer}))


def with_start(trainer: Trainer, run_dir: Path) -> Trainer:
    """Return the trainer of a run that is resumed, with the policy that the run began with, as its folder has it.

    Raises FileError or ValueError where the copy is damaged or does not fit, and a seed without a checkpoint needs it.
    """
    path = run_dir / START
    if not path.is_file():
        return trainer
    try:
        start = load_trained(path, trainer.agent, trainer.env)
        return replace(trainer, init_from=start, refit_normalizer=bool(start.about.get(REFIT)))
    except (FileError, ValueError):
        if needs_start(run_dir, range(trainer.seed, trainer.seed + trainer.seeds)):
            raise
        return trainer
