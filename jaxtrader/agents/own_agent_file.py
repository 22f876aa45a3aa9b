"""Policy files of agents that are not of this package: the state as plain containers, and the name of the class.

Reading imports nothing that a file names. The user gives the agent, whose `init` says what the state must look like.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxtrader import files
from jaxtrader.files import FileError
from jaxtrader.market.market import Market
from jaxtrader.schema import misfit

if TYPE_CHECKING:
    from jaxtrader.agents.protocol import Agent

OWN = "OwnAgent"
VERSION = 1


def write_own(path: str | PathLike[str], agent: Agent, state: Any, about: dict[str, Any]) -> None:
    """Write an agent's state and `about` to a policy file."""
    content = {"agent": OWN, "version": VERSION, "name": type(agent).__name__}
    files.save(
        path, "policy", {**content, "state": serialization.to_state_dict(agent.acting_part(state)), "about": about}
    )


def read_own(path: str | PathLike[str]) -> dict[str, Any] | None:
    """Return the content of a file that `write_own` wrote, and None where it is the file of a PPOAgent.

    Raises FileError where the file is damaged, or of a newer version.
    """
    stored = files.load(path, "policy")
    if not isinstance(stored, dict) or not isinstance(name := stored.get("agent"), str) or name != OWN:
        return None
    if type(stored.get("version")) is not int or stored["version"] != VERSION:
        raise FileError(
            f"{path} has version {stored.get('version')!r:.20} of an own agent's policy, and this jaxtrader reads "
            f"{VERSION}; install a newer jaxtrader"
        )
    types = {"agent": str, "version": int, "name": str, "state": dict, "about": dict}
    if stored.keys() != types.keys() or not all(type(stored[name]) is kind for name, kind in types.items()):
        raise FileError(f"{path} is damaged: it does not hold {', '.join(types)}; train it again")
    return stored


def restored(path: str | PathLike[str], stored: dict[str, Any], agent: Agent | None, env: Any, env_params: Any) -> Any:
    """Return an agent's state from a file's content.

    Args:
        path: of the file, for messages.
        stored: see `read_own`.
        agent: the agent that was trained.
        env: its environment, with the same shapes.
        env_params: parameters of the environment.

    Raises:
        ValueError: there is no agent, or one of another class.
        FileError: the state is not one of this agent in this environment.
    """
    name = stored["name"]
    if agent is None:
        raise ValueError(f"{path} holds a policy of {name}, which is code of its user; give it: agent={name}(...)")
    if type(agent).__name__ != name:
        raise ValueError(f"{path} holds a policy of {name}, not of {type(agent).__name__}; give agent={name}(...)")
    template, _ = agent.prepare(jax.jit(lambda key: agent.init(key, env, env_params))(jax.random.key(0)), env_params)
    template = agent.acting_part(template)
    if (difference := misfit(stored["state"], serialization.to_state_dict(template))) is not None:
        raise FileError(
            f"{path} does not fit {agent!r:.80}: its state{difference}; give the agent the settings with which it was "
            "trained"
        )
    state = jax.tree.map(jnp.asarray, serialization.from_state_dict(template, stored["state"]))
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)):
        raise FileError(f"{path} holds numbers that are not finite, so its decisions mean nothing; train it again")
    return state


def placeholder_market(features: tuple[str, ...], assets: int, bars: int) -> Market:
    """Return a market without content, from which an agent's `init` learns its shapes."""
    prices, dates = (
        np.ones((bars, assets)),
        np.datetime64("2000-01-01", "ns") + np.arange(bars) * np.timedelta64(1, "D"),
    )
    return Market(
        times=dates,
        open=prices,
        high=prices,
        low=prices,
        close=prices,
        volume=prices,
        features=np.zeros((bars, assets, len(features))),
        volatility=prices,
        dt=np.full(bars, 1 / 365),
        segments=np.array([[0, 0, bars]]),
        symbols=(",".join(f"A{i}" for i in range(assets)),),
        feature_names=features,
        lookback=1,
        periods_per_year=365.0,
        source="nothing",
        notes=(),
    )
