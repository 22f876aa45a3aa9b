"""Policies from files and to files, and the ensemble of several. policy_file.py has the format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from jaxtrader import files
from jaxtrader.agents.ensemble import Ensemble
from jaxtrader.agents.networks import ActorCritic
from jaxtrader.agents.own_agent_file import is_own, parsed_own, restored, write_own
from jaxtrader.agents.own_modules import Own, OwnActorCritic
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_file import read_members, static_parts, write_policy
from jaxtrader.agents.policy_schema import MAX_MEMBERS, OwnAgentFile
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.agents.protocol import Agent
from jaxtrader.envs.protocols import Environment
from jaxtrader.jax_settings import package_settings
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.market.market import Market
from jaxtrader.run_files import POLICY
from jaxtrader.schema import parse
from jaxtrader.setting_checks import setting


@package_settings()
def load_policy(
    path: str | PathLike[str],
    network: Any = None,
    *,
    agent: Agent | None = None,
    env: Environment | None = None,
    env_params: Any = None,
) -> Policy:
    """Read a policy file, or the policy.pkl of a run folder.

    Args:
        path: the file or the folder.
        network: the class of a network or encoder of the user's own, or a module of it. The file holds its name and its
            settings, and no code. It need not be given again in the process that trained with it.
        agent: the agent of the user's own that was trained. The file has its weights and the name of its class, and no
            code is loaded for it.
        env: the environment of an agent of the user's own, where that is no TradingEnv.
        env_params: the parameters of `env`. None: its `default_params`.

    Raises:
        FileError: it is not a sound policy, or its network is the user's own and was not given.
        ValueError: it is of the user's own agent, which was not given, or `path` is no path.

    Example:
        >>> env = jt.TradingEnv(jt.Market.from_bars(jt.load_bundled("IBM")), positions=(0, 1), window=2)
        >>> size = {"num_envs": 8, "rollout_length": 16, "total_steps": 256, "progress": False}
        >>> _ = jt.Trainer(env, jt.PPOAgent(hidden=(8,), num_minibatches=2), run_dir="runs/one", **size).train()
        >>> policy = jt.load_policy("runs/one")
        >>> policy.positions, policy.window
        ((0.0, 1.0), 2)
    """
    if not isinstance(path, str | PathLike):
        raise ValueError(f"{setting('path', path)} must be the path of a policy file or a run folder")
    path = Path(path) / POLICY if Path(path).is_dir() else path
    stored = files.load(path, "policy")
    if is_own(stored):
        return _of_own_agent(path, parsed_own(path, stored), agent, env, env_params)
    if agent is not None:
        raise ValueError(f"{path} holds a policy of PPOAgent; leave out `agent`")
    states, about = read_members(path, stored, network)
    try:
        agent = _agent(about.get("agent", {}), states[0].network)
    except (TypeError, ValueError) as error:
        raise files.FileError(f"{path} is damaged: its agent cannot be made ({error}); train it again") from error
    return _joined(path, [Policy(agent, state, about) for state in states])


def _joined(path: Any, members: list[Policy]) -> Policy:
    """Return the policy of the members of a file."""
    if len(members) == 1:
        return members[0]
    if not members[0].trades:
        raise files.FileError(f"{path} is damaged: an ensemble of no TradingEnv; train it again")
    try:
        return ensemble(members)
    except ValueError as error:
        raise files.FileError(f"{path} is damaged: {error}; train it again") from error


def load_trained(path: str | PathLike[str], agent: Agent, env: Environment) -> Policy:
    """Return the policy that a training of this agent in this environment has written."""
    return load_policy(path) if isinstance(agent, PPOAgent) else load_policy(path, agent=agent, env=env)


def _of_own_agent(path: Any, stored: OwnAgentFile, agent: Any, env: Any, env_params: Any) -> Policy:
    """Return the policy of an agent of the user's own, from the content of its file."""
    policy = Policy(agent, None, stored.about)
    if env is None and policy.trades:
        described = stored.about["env"]
        if (seen := described["reward"].get("observed")) and agent is not None:
            raise ValueError(
                f"{path}: decisions see the {', '.join(seen)} of a reward of your own; give the TradingEnv of the "
                "training as `env`"
            )
        try:
            bars = policy.window + described["decision_every"] + policy.rules.delay + 1
            env = policy.environment(_placeholder_market(policy.features, policy.assets, bars))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise files.FileError(f"{path} is damaged: it does not say its environment ({error!r})") from error
    if env is None and agent is not None:
        raise ValueError(f"{path} holds a policy of {stored.name} for an environment of your own; give it as `env`")
    params = env.default_params if env is not None and env_params is None else env_params
    states = restored(path, stored, agent, env, params)
    return _joined(path, [dataclasses.replace(policy, state=state) for state in states])


def _placeholder_market(features: tuple[str, ...], assets: int, bars: int) -> Market:
    """Return a market without content, from which an agent's `init` learns its shapes."""
    prices = np.ones((bars, assets))
    return Market(
        times=np.datetime64("2000-01-01", "ns") + np.arange(bars) * np.timedelta64(1, "D"),
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


def ensemble(members: Sequence[Policy]) -> Policy:
    """Return the policy that trades the mean of several policies' targets. It says of its training what the first says.

    Raises ValueError where the members do not see and decide the same, or where a bracket belongs to single positions,
    of which there is no mean.
    """
    members = [each for policy in members for each in policy.members]
    first = members[0]
    settings = first.about["env"]
    for each in members[1:]:
        if each.about["env"] != settings or each.features != first.features:
            raise ValueError(
                f"the members were trained in different environments ({each.about['env']} and {settings}); average "
                "policies of one environment"
            )
        if static_parts(each.state) != static_parts(first.state):
            raise ValueError("the members have different networks; average policies of one network")
    for name in BRACKETS:
        if isinstance(settings.get(name), (list, tuple)):  # an older file has fewer brackets
            each = setting(name, tuple(settings[name]))
            raise ValueError(f"{each} is one for each position; an ensemble needs one number for all")
    positions = first.positions if isinstance(first.positions, tuple) else None
    return Policy(Ensemble(first.agent, positions), tuple(each.state for each in members), first.about)


def save_policy(path: str | PathLike[str], policy: Policy) -> None:
    """Write a policy, or an ensemble, to a policy file.

    Raises files.FileError where it has more than MAX_MEMBERS, or the file cannot be written.
    """
    members = len(policy.members)
    if members > MAX_MEMBERS:
        raise files.FileError(f"{path} would hold {members} members, and a file holds {MAX_MEMBERS}; save fewer")
    if policy.is_own:
        agent = policy.members[0].agent
        assert isinstance(agent, Agent)
        write_own(path, agent, [each.state for each in policy.members], policy.about)
    else:
        write_policy(path, policy.state, policy.about)


def _agent(stored: dict[str, Any], network: ActorCritic) -> PPOAgent:
    """Return the agent of these settings, which the Trainer wrote. Older files have no settings, and give the defaults.

    Modules of the user's own are those of the network.
    """
    hints = get_type_hints(PPOSettings)
    settings = {name: parse(stored[name], hint, f"agent.{name}") for name, hint in hints.items() if name in stored}
    if isinstance(network.encoder, Own):
        settings["encoder"] = network.encoder.module
    if isinstance(network, OwnActorCritic) and network.module is not None:
        settings["network"] = network.module.module
    return PPOAgent(**settings).validate()
