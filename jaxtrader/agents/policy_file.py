"""The policy file: how it is written, and how it is read.

Only acting needs a policy file, so it has no optimiser. Its schema is in policy_schema.py. `files.save` writes it as
plain containers and arrays, with a checksum, and reading it runs no code of the file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable
from os import PathLike
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxtrader import files
from jaxtrader.agents.action_spec import ActionSpec, Bounds, check_bounds
from jaxtrader.agents.networks import ActorCritic, PortfolioActorCritic, check_layers
from jaxtrader.agents.normalization import Normalizer, RunningNormalizer, ValueScale
from jaxtrader.agents.own_modules import NotGiven, Own, OwnActorCritic, OwnPortfolio, named
from jaxtrader.agents.policy_schema import (
    AGENT,
    ENSEMBLE,
    VERSION,
    About,
    ActionsPart,
    EnsembleFile,
    EnvPart,
    MarketScalePart,
    NetworkPart,
    ObservationScalePart,
    OwnPart,
    PolicyFile,
    ScalePart,
)
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.envs import actions as env_actions
from jaxtrader.envs import rewards
from jaxtrader.envs.observation import account_names
from jaxtrader.ledger import costs
from jaxtrader.ledger.rules import BRACKETS, Rules
from jaxtrader.printable import printable_data, shown
from jaxtrader.schema import parse
from jaxtrader.setting_checks import setting

NETWORKS: dict[str, type[ActorCritic]] = {
    "single": ActorCritic,
    "portfolio": PortfolioActorCritic,
    "own": OwnActorCritic,
    "own portfolio": OwnPortfolio,
}
NETWORK_FIELDS = tuple(field.name for field in dataclasses.fields(NetworkPart) if field.name not in ("kind", "module"))
DISTRIBUTION_NAMES = {"discrete": "categorical", "box": "censored normal", "simplex": "logistic normal"}


def write_policy(path: str | PathLike[str], state: PPOState | tuple[PPOState, ...], about: dict[str, Any]) -> None:
    """Write what acting needs of a state, or of the states of an ensemble's members, and `about`, to a policy file."""
    content = (
        _content(state, about)
        if isinstance(state, PPOState)
        else {
            "agent": ENSEMBLE,
            "version": VERSION,
            "members": [_content(member, {}) for member in state],
            "about": about,
        }
    )
    files.save(path, "policy", content)


def _content(state: PPOState, about: dict[str, Any]) -> dict[str, Any]:
    """Return a state as `PolicyFile` describes it."""
    network, actions = state.network, state.network.actions
    module = network.module if isinstance(network, OwnActorCritic) else None
    return {
        "agent": AGENT,
        "version": VERSION,
        "network": {
            "kind": next(kind for kind, network_type in NETWORKS.items() if network_type is type(network)),
            **{name: getattr(network, name) for name in NETWORK_FIELDS},
            "hidden": list(network.hidden),
            "encoder": network.encoder if isinstance(network.encoder, str) else network.encoder.plain,
            **({} if module is None else {"module": module.plain}),
        },
        "actions": {
            "kind": actions.kind,
            "size": actions.size,
            "shape": list(actions.shape),
            "distribution": DISTRIBUTION_NAMES[actions.kind],
            "bounds": None if state.bounds is None else list(state.bounds),
        },
        "obs_ndim": state.obs_ndim,
        "params": serialization.to_state_dict(state.params),
        "normalizer": None if state.normalizer is None else serialization.to_state_dict(state.normalizer),
        "value_scale": serialization.to_state_dict(state.value_scale),
        "about": about,
    }


def read_members(
    path: str | PathLike[str], stored: Any, network: Any = None
) -> tuple[tuple[PPOState, ...], dict[str, Any]]:
    """Return a state to act with for each member, and `about`. A policy that is no ensemble has one member.

    Args:
        path: the path of the file, for messages.
        stored: its content, as `files.load` returned it.
        network: the class, or the module, of a network or encoder of the user's own. None: it was given before.

    Raises files.FileError where the file is not a sound policy of PPOAgent, or an ensemble of them.
    """
    agent = stored.get("agent") if isinstance(stored, dict) else None
    if not isinstance(agent, str) or agent not in (AGENT, ENSEMBLE):
        raise files.FileError(f"{path} holds no {AGENT} policy; give the policy.pkl that `jaxtrader train` wrote")
    version = stored.get("version", 1)
    if type(version) is int and version > VERSION:
        raise files.FileError(
            f"{path} has policy version {version}, and this jaxtrader reads up to {VERSION}; install a newer jaxtrader"
        )
    try:
        states, about = _members(stored, version, network)
    except NotGiven as error:
        raise files.FileError(f"{path}: {shown(str(error), 500)}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = f", of policy version {version}," if type(version) is int and version != VERSION else ""
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise files.FileError(f"{path}{kind} is damaged ({shown(reason, 300)}); train it again") from error
    if not all(np.isfinite(x).all() for state in states for x in jax.tree.leaves(_numbers(state))):
        raise files.FileError(
            f"{path} holds weights that are not finite, so its decisions mean nothing; train it again"
        )
    return states, about


def _members(stored: dict[str, Any], version: Any, given: Any) -> tuple[tuple[PPOState, ...], dict[str, Any]]:
    """Return the states that a file describes, and `about`. Any error means that it does not fit its schema."""
    if type(version) is not int or version < 1:
        raise ValueError(f"version is {version!r:.40}, and must be a whole number from 1 to {VERSION}")
    stored = _from_version_1(stored) if version == 1 else stored
    if stored["agent"] == ENSEMBLE:
        members = parse({**stored, "version": VERSION}, EnsembleFile).members
        if not members:
            raise ValueError("an ensemble of no members")
    else:
        members = [stored]
    states = tuple(_state(parse(_from_version_2(member), PolicyFile), given) for member in members)
    if any(static_parts(state) != static_parts(states[0]) for state in states):
        raise ValueError(f"{len(states)} members, whose networks must be the same")
    about = printable_data(stored["about"])  # the names of features are those of bars, which are printable too
    _check_about(about, states[0])
    return states, about


def _numbers(state: PPOState) -> Any:
    """What a decision is computed from."""
    return state.params, state.normalizer, state.value_scale


def static_parts(state: Any) -> Any:
    """What members of an ensemble share: their arrays can then be stacked."""
    return jax.tree.structure(state), _shapes(jax.tree.leaves(state))


def _from_version_1(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file of version 1, which has no version, as version 2 had it.

    Those files named the distribution "law", had the settings `activation` and `shared` of the network, and held the
    rules of the environment as its own fields. Boxes in files without a "law" have a squashed normal.
    """
    network, actions, about = dict(stored["network"]), dict(stored["actions"]), dict(stored["about"])
    for name, only in (("activation", "tanh"), ("shared", False)):
        if network.pop(name, only) != only:
            raise ValueError(f"its network has another {name} than {only!r}, no longer known")
    oldest = {
        "kind": "single",
        "encoder": "mlp",
        "encoder_width": 32,
        "encoder_depth": None,
        "compute_dtype": "float32",
    }
    actions["distribution"] = actions.pop("law", "squashed normal" if actions["kind"] == "box" else None)
    if actions["distribution"] is None:
        actions["distribution"] = DISTRIBUTION_NAMES[actions["kind"]]
    if "env" in about and "rules" not in about["env"]:
        env = dict(about["env"])
        rules = {name: env.pop(name) for name in Rules.__dataclass_fields__ if name in env}
        about["env"] = {**env, "rules": rules}
    return {**stored, "version": 2, "network": oldest | network, "actions": actions, "about": about}


def _from_version_2(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the content as VERSION has it. Files of version 2 do not hold the scale of the values."""
    if stored["version"] != 2:
        return stored
    fresh = {name: np.asarray(x) for name, x in vars(ValueScale.fresh()).items()}
    return {**stored, "version": VERSION, "value_scale": fresh}


def _state(content: PolicyFile, given: Any) -> PPOState:
    """Return the state that a file describes. Any error means that its parts do not fit."""
    actions, bounds = _actions(content.actions)
    network = _network(content.network, actions, content.params, given)
    normalizer = _normalizer(content.normalizer, network, content.obs_ndim)
    return PPOState(
        # Leaves must be JAX arrays: NumPy arrays would become constants of the compiled program.
        params=jax.tree.map(jnp.asarray, content.params),
        opt_state=None,
        learning_rate=jnp.zeros((), jnp.float32),
        value_scale=ValueScale(**_arrays(content.value_scale)),
        normalizer=normalizer,
        network=network,
        obs_ndim=content.obs_ndim,
        bounds=bounds,
    )


def _arrays(part: ScalePart | MarketScalePart | ObservationScalePart) -> dict[str, jax.Array]:
    return {name: jnp.asarray(x) for name, x in vars(part).items()}


def _actions(stored: ActionsPart) -> tuple[ActionSpec, Bounds | None]:
    kind, bounds = stored.kind, stored.bounds
    actions = ActionSpec(kind, stored.size, stored.shape)
    if stored.distribution != DISTRIBUTION_NAMES[kind]:
        raise ValueError(f"its actions are of a {shown(stored.distribution)}, no longer known")
    if (bounds is not None) != (kind == "box"):
        raise ValueError("a box of actions has bounds, other actions have none")
    if bounds is None:
        return actions, None
    low, high = (jnp.asarray(x) for x in bounds)
    if not low.shape == high.shape == (actions.size,):
        raise ValueError(f"bounds of shapes {low.shape} and {high.shape} of {actions.size} actions")
    check_bounds((low, high))
    return actions, (low, high)


def _network(stored: NetworkPart, actions: ActionSpec, params: dict[str, Any], given: Any) -> ActorCritic:
    """Return the network of these settings. Raises ValueError where the weights are another network's."""
    fields: dict[str, Any] = {name: getattr(stored, name) for name in NETWORK_FIELDS}
    if isinstance(stored.encoder, OwnPart):
        fields["encoder"] = named(stored.encoder.name, stored.encoder.settings, given)
    if issubclass(NETWORKS[stored.kind], OwnActorCritic) != (stored.module is not None):
        raise ValueError(f"a network of kind {stored.kind} and the module {stored.module}")
    check_layers(stored)
    weights = jax.tree.leaves(params)
    if not all(isinstance(x, np.ndarray) for x in weights):
        raise ValueError("weights that are no arrays")
    layers = max(len(stored.hidden), stored.encoder_depth or 0 if stored.encoder != "mlp" else 0)
    if stored.module is None and len(weights) < layers:
        raise ValueError(f"{len(weights)} arrays of weights, for more layers")  # before so many are built
    if stored.module is not None:
        fields["module"] = named(stored.module.name, stored.module.settings, given)
    network = NETWORKS[stored.kind](actions=actions, **fields)
    of_user = [x.name for x in (fields.get("module"), fields["encoder"]) if isinstance(x, Own)]
    try:
        fresh = _fresh_shapes(cast(Hashable, network))
    except ValueError:
        if not of_user:
            raise
        fresh = {}
    if _shapes(params) != _shapes(fresh):
        if of_user:
            raise NotGiven(f"its weights do not fit this {of_user[0]}; give the class as it was in the training")
        raise ValueError("weights of another network")
    return network


@functools.lru_cache(maxsize=8)
def _fresh_shapes(network: Any) -> dict[str, Any]:
    """Return the weights of a network without their numbers. The members of an ensemble share it.

    Raises ValueError where the network cannot be built.
    """
    try:
        return jax.eval_shape(network.fresh, jax.random.key(0))
    # What Flax and JAX raise for settings that make no network is not documented.
    except Exception as error:
        raise ValueError(f"a network that cannot be built: {error}") from error


def _normalizer(
    stored: MarketScalePart | ObservationScalePart | None, network: ActorCritic, obs_ndim: int
) -> Normalizer | RunningNormalizer | None:
    if stored is None:
        return None
    if isinstance(stored, MarketScalePart):
        if not stored.mean.shape == stored.std.shape == (network.features,):
            raise ValueError(f"normalizer of shape {stored.mean.shape} for {network.features} features")
        if not (stored.std > 0).all():
            raise ValueError("normalizer.std is not above 0")
        return Normalizer(**_arrays(stored))
    shape = stored.mean.shape
    if stored.variance.shape != shape or len(shape) != obs_ndim or math.prod(shape) != network.features:
        raise ValueError(f"normalizer of shape {shape} for {network.features} numbers in {obs_ndim} dimensions")
    return RunningNormalizer(**_arrays(stored))


def _check_about(stored: dict[str, Any], state: PPOState) -> None:
    """Raise ValueError where what a policy says of itself is of no such training, or does not fit its network."""
    about: About = parse(stored, About, "about")
    if "env" not in stored:
        return
    if "features" not in stored:
        raise ValueError("about.features is missing")
    actions, positions = state.network.actions, about.env.positions
    kind = {"continuous": "box", "weights": "simplex"}.get(str(positions), "discrete")
    if actions.kind != kind or (isinstance(positions, tuple) and actions.size != len(positions)):
        raise ValueError(
            f"its network has {actions.size} actions of kind {actions.kind}, its environment the positions {positions}"
        )
    if actions.shape != ((actions.size,) if actions.continuous else ()) or state.obs_ndim != 1:
        raise ValueError(f"actions of shape {actions.shape}, and observations of {state.obs_ndim} dimensions")
    if not isinstance(state.normalizer, Normalizer):
        raise ValueError("normalizer is not one of market features")
    _check_env(about.env, stored["env"], actions.size)
    limit = np.float32(about.env.rules.max_leverage)
    if state.bounds is not None and not (np.asarray(state.bounds) == [[-limit], [limit]]).all():
        raise ValueError(f"bounds of actions that are not those of {setting('max_leverage', limit)}")
    seen = account_names(bool(about.env.sees_best_price), rewards.observed_in(stored["env"]["reward"]))
    for name, said, network in (
        ("about.env.window", about.env.window, state.network.window),
        ("the number of about.features.names", len(about.features.names), state.network.features),
        ("the number of account features", len(seen), state.network.account),
    ):
        if said != network:
            raise ValueError(f"{name} is {said}, and its network has {network}")


def _check_env(env: EnvPart, stored: dict[str, Any], assets: int) -> None:
    """Raise ValueError where an environment has settings that `TradingEnv` refuses on any market."""
    # Positions that are exposures are of one asset, whose number of actions is another one.
    positions = env_actions.validate_positions(
        env.positions, assets if isinstance(env.positions, str) else 1, env.rules.max_leverage
    )
    for name in BRACKETS:
        env_actions.validate_bracket(name, getattr(env, name), positions)
    env.rules.check_costs(costs.from_dict(env.costs).validate())
    if not env.reward.custom:
        rewards.from_dict(stored["reward"])


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)
