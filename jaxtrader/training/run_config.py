"""What config.json and the policy files say about their run: settings, environment, features and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import numpy as np

from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.market.market import Market
from jaxtrader.training.train_settings import TrainSettings


def run_config(settings: TrainSettings, agent: Agent, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json: how to repeat the run."""
    return {"training": _training(settings), "agent": plain_agent(agent), **about}


def describe(
    settings: TrainSettings, env: Any, agent: Agent, valid: Market | Optimum | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a policy file says about its training, as plain data.

    Args:
        settings: of the training.
        env: the environment. Of others than a TradingEnv nothing is said.
        agent: the learner.
        valid: what the policy was chosen on.
        about: further plain data.
    """
    described = {**about, "agent": plain_agent(agent), "training": _training(settings)}
    if isinstance(env, TradingEnv):
        described |= {
            "env": env.to_dict(),
            "symbols": list(env.market.symbols),
            "features": {"names": list(env.market.feature_names), "lookback": env.market.lookback},
            "data": {"train": env.market.describe()},
        }
        if valid is not None:
            described["data"]["valid"] = valid.describe()
    return described


def _training(settings: TrainSettings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(TrainSettings) if field.name != "run_dir"}


def plain_agent(agent: Agent) -> dict[str, Any]:
    """Return an agent's settings as plain data: its fields where it is a dataclass, else its name alone."""
    if not is_dataclass(agent):
        return {"name": type(agent).__name__}
    settings = {field.name: getattr(agent, field.name) for field in fields(agent)}
    plain = {k: float(np.asarray(v)) if isinstance(v, jax.Array | np.ndarray) else v for k, v in settings.items()}
    return {"name": type(agent).__name__, **plain}
