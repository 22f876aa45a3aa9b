"""What a resumed training must have in common with the run that it continues: settings, and the data's numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxtrader import compilation, hosts
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import setting
from jaxtrader.training.run_config import flat, plain_agent
from jaxtrader.training.train_settings import TrainSettings

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer

# A resumed run may have another length, folder, number of devices, answer to divergence and check at the end. The
# policy that it started from no longer matters.
MAY_CHANGE = (
    *("total_steps", "num_episodes", "run_dir", "devices", "seeds_at_once", "on_divergence", "refit_normalizer"),
    "must_beat_holding",
)
UNKNOWN_BEFORE = {"unroll": "1"}  # settings that earlier versions did not have, and what they did, as JSON

Identity = dict[str, str]
"""Names of settings and data, with their values as JSON."""


def identity(trainer: Trainer) -> Identity:
    """Return all that decides about the numbers of a training, but for its length."""
    env, valid = trainer.env, trainer.valid
    parts: dict[str, Any] = {
        field.name: getattr(trainer, field.name) for field in fields(TrainSettings) if field.name not in MAY_CHANGE
    }
    parts["until"] = trainer.unit
    parts |= {"agent" if name == "name" else name: value for name, value in plain_agent(trainer.agent).items()}
    if isinstance(env, TradingEnv):
        parts |= flat(env.to_dict(), "env.") | {"env.reward": repr(env.reward)}
        parts |= {f"training {name}": value for name, value in _market(env.market).items()}
    else:
        parts["env"] = env.name
        env_params = env.default_params if trainer.env_params is None else trainer.env_params
        leaves = jax.tree_util.tree_leaves_with_path(env_params)
        parts |= {f"env_params{jax.tree_util.keystr(path)}": _sum([leaf]) for path, leaf in leaves}
    if isinstance(valid, Optimum):
        parts["optimum"] = repr(valid.process)
    if valid is not None:
        market = valid.market if isinstance(valid, Optimum) else valid
        parts |= {f"validation {name}": value for name, value in _market(market).items()}
    return {name: as_json(value) for name, value in parts.items()}


def differences(
    before: Mapping[str, str],
    now: Mapping[str, str],
    may_change: Collection[str] = MAY_CHANGE,
    says: str = "{name} was {old} and is {new}",
) -> list[str]:
    """Return what differs between two identities, one phrase for each difference.

    Args:
        before, now: The two identities.
        may_change: The names that may differ.
        says: The phrase for one difference, with `{name}`, `{old}` and `{new}`.
    """
    found = []
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if old == new or name in may_change:
            continue
        # A rule, cost or setting that the earlier version did not have, and that is off now.
        if name not in before and new == UNKNOWN_BEFORE.get(name, "null"):
            continue
        if name.endswith(" bars"):
            found.append(f"the {name} have other numbers")
        else:
            named = name if " " in name else setting(name)
            found.append(says.format(name=named, old=_short(old), new=_short(new)))
    return found


def check_alike(settings: TrainSettings, trained: Identity, init_from: Any, resume: bool) -> None:
    """Raise `hosts.UnlikeError` in all processes where one of them would train something else than process 0.

    Args:
        settings: The settings of this process.
        trained: The identity of its training.
        init_from: The weights that the training starts from, or None.
        resume: Whether the training continues a run.
    """
    further = {name: getattr(settings, name) for name in MAY_CHANGE if name != "run_dir"} | {"resume": resume}
    further["init_from"] = None if init_from is None else _sum(jax.tree.leaves(init_from))
    mine = {**trained, **{name: as_json(value) for name, value in further.items()}}
    first, *others = map(json.loads, hosts.gather(json.dumps(mine).encode()))
    for i, theirs in enumerate(others, 1):
        says = f"{{name}} is {{old}} in process 0 and {{new}} in process {i}"
        if found := differences(first, theirs, (), says):
            raise hosts.UnlikeError(
                f"the processes do not train the same: {'; '.join(found)}; start all with the same settings and data"
            )


def machine() -> dict[str, Any]:
    """Return what else the bits of a training depend on, beside its settings and data."""
    return {"jax": jax.__version__, "device": jax.devices()[0].device_kind, "cpus": compilation.cores()}


def _market(market: Market) -> dict[str, Any]:
    """Describe a market by its names, and by a sum of all numbers in its segments.

    The environments remember rows, so the segments must lie at the same rows. Later bars may be added behind them.
    """
    rows = [slice(first, end) for first, _, end in market.segments]
    arrays = [getattr(market, field.name) for field in fields(market)]
    by_bar = [x for x in arrays if isinstance(x, np.ndarray) and len(x) == len(market.times)]
    return {
        "symbols": market.symbols,
        "features": market.feature_names,
        "bars": _sum([market.segments, *(x[part] for x in by_bar for part in rows)]),
    }


def _sum(arrays: list[Any]) -> str:
    total = hashlib.sha256()
    for array in arrays:
        if isinstance(array, jax.Array) and jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        array = np.asarray(array)
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()[:16]


def as_json(value: Any) -> str:
    """Return a value as JSON. Another object becomes its text, without its address in memory."""
    return json.dumps(value, default=lambda x: re.sub(r" at 0x[0-9a-f]+", "", repr(x)))


def _short(value: str | None) -> str:
    return "not there" if value is None else value if len(value) <= 60 else f"{value[:57]}..."
