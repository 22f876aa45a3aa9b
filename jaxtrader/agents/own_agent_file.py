"""Policy files of agents that are not of this package: the state as plain containers, and the name of the class.

Reading imports nothing that a file names. The user gives the agent, whose `init` says what the state must look like.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxtrader import files
from jaxtrader.agents.policy_schema import OWN, OWN_VERSION, About, OwnAgentFile
from jaxtrader.files import FileError
from jaxtrader.printable import printable_data, shown
from jaxtrader.schema import SchemaError, misfit, parse

if TYPE_CHECKING:
    from jaxtrader.agents.protocol import Agent


def write_own(path: str | PathLike[str], agent: Agent, states: Sequence[Any], about: dict[str, Any]) -> None:
    """Write an agent's states, of several seeds an ensemble's, and `about` to a policy file."""
    plain = [serialization.to_state_dict(agent.acting_part(state)) for state in states]
    states_part = {"state": plain[0]} if len(plain) == 1 else {"members": plain}
    content = {"agent": OWN, "version": OWN_VERSION, "name": type(agent).__name__, **states_part, "about": about}
    files.save(path, "policy", content)


def is_own(stored: Any) -> bool:
    """Whether the content of a policy file is what `write_own` wrote."""
    return isinstance(stored, dict) and type(stored.get("agent")) is str and stored["agent"] == OWN


def parsed_own(path: str | PathLike[str], stored: dict[str, Any]) -> OwnAgentFile:
    """Return the content of a file after its checks.

    Raises FileError where it does not fit its schema, or is of a newer version.
    """
    version = stored.get("version")
    if type(version) is int and version > OWN_VERSION:
        raise FileError(
            f"{path} has version {version} of an own agent's policy, and this jaxtrader reads {OWN_VERSION}; install "
            "a newer jaxtrader"
        )
    try:
        content: OwnAgentFile = parse(stored, OwnAgentFile)
        parse(content.about, About, "about")
        if ("env" in content.about) != ("features" in content.about):
            raise SchemaError("about has only one of env and features")
        if ("members" in stored) == ("state" in stored) or content.members == []:
            raise SchemaError("it has no state, or several")
    except (SchemaError, TypeError, ValueError) as error:
        raise FileError(f"{path} is damaged ({shown(error, 300)}); train it again") from error
    return dataclasses.replace(content, about=printable_data(content.about))


def restored(
    path: str | PathLike[str], stored: OwnAgentFile, agent: Agent | None, env: Any, env_params: Any
) -> tuple[Any, ...]:
    """Return the states of an agent from a file's content: one, or those of an ensemble's members.

    Args:
        path: the path of the file, for messages.
        stored: see `parsed_own`.
        agent: the agent that was trained.
        env: an environment whose shapes are those of its training.
        env_params: parameters of the environment.

    Raises:
        ValueError: there is no agent, or one of another class.
        FileError: the state is not one of this agent in this environment.
    """
    name = stored.name
    if agent is None:
        raise ValueError(f"{path} holds a policy of {name}, an agent of your own; give it, as `agent={name}(...)`")
    if type(agent).__name__ != name:
        raise ValueError(f"{path} holds a policy of {name}, not of {type(agent).__name__}; give `agent={name}(...)`")
    shapes = jax.eval_shape(lambda key: agent.init(key, env, env_params), jax.random.key(0))  # it compiles nothing
    zeros = jax.tree.map(lambda x: jax.lax.full(x.shape, 0, x.dtype), shapes)
    template = agent.acting_part(agent.prepare(zeros, env_params)[0])
    states = [stored.state] if stored.members is None else stored.members
    return tuple(_restored(path, state, agent, template) for state in states)


def _restored(path: str | PathLike[str], stored: Any, agent: Agent, template: Any) -> Any:
    """Return a state in the containers of another one. Raises FileError where it does not fit."""
    if (difference := misfit(stored, serialization.to_state_dict(template))) is not None:
        raise FileError(
            f"{path} does not fit {agent!r:.80}: its state{difference}; give the agent the settings with which it was "
            "trained"
        )
    state = jax.tree.map(jnp.asarray, serialization.from_state_dict(template, stored))
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)):
        raise FileError(f"{path} holds numbers that are not finite, so its decisions mean nothing; train it again")
    return state
