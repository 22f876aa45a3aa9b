"""The description of a run in config.json and in its policy files: settings, environment, features and data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np

from jaxtrader import files
from jaxtrader.agents.own_modules import Own, own
from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.run_files import CONFIG_JSON
from jaxtrader.training.train_settings import TrainSettings

if TYPE_CHECKING:
    from jaxtrader.training.trainer import Trainer


def write_config(run_dir: Path, trainer: Trainer, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write config.json in a run's folder, which says how to repeat the run, and return its content."""
    config = {"training": _training(trainer), "agent": plain_agent(trainer.agent), **about}
    files.write_text(run_dir / CONFIG_JSON, json.dumps(config, indent=2, default=str) + "\n")
    return config


def describe(trainer: Trainer, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a training in a policy file, as plain data.

    An environment that is no TradingEnv is not described.

    Args:
        trainer: The trainer of the training.
        about: Further plain data.
    """
    env, valid = trainer.env, trainer.valid
    described = {**about, "agent": plain_agent(trainer.agent), "training": _training(trainer)}
    if isinstance(env, TradingEnv):
        described |= {
            "env": env.to_dict(),
            "symbols": list(env.market.symbols),
            "features": {
                "names": list(env.market.feature_names),
                "lookback": env.market.lookback,
                "delisted_after": env.market.delisted_after,
            },
            "data": {"train": env.market.describe(), "fingerprint": env.market.fingerprint},
        }
        if valid is not None:
            described["data"]["valid"] = valid.describe()
    return described


def _training(settings: TrainSettings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(TrainSettings) if field.name != "run_dir"}


def plain_agent(agent: Agent) -> dict[str, Any]:
    """Return an agent's settings as plain data: its fields where it is a dataclass, else its name alone.

    A Flax module of the user's own becomes the name of its class with those fields that are plain data.
    """
    if not is_dataclass(agent):
        return {"name": type(agent).__name__}
    settings = {field.name: getattr(agent, field.name) for field in fields(agent)}
    return {"name": type(agent).__name__, **{name: _plain(value) for name, value in settings.items()}}


def _plain(value: Any) -> Any:
    """Return a setting as plain data. Another object becomes its text."""
    if isinstance(value, nn.Module | Own):
        return own(value).plain
    if isinstance(value, jax.Array | np.ndarray):
        return float(value) if np.ndim(value) == 0 else np.asarray(value).tolist()
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings within settings by names such as "agent.gamma"."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
