"""The policy file: what it holds, how it is written, and how it is read.

Only acting needs a policy file, so it has no optimiser. `PolicyFile` is the schema. `files.save` writes it as plain
containers and arrays, with a checksum, and reading it runs no code of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxtrader import files
from jaxtrader.agents import encoders
from jaxtrader.agents.action_spec import ActionSpec, Bounds, check_bounds
from jaxtrader.agents.networks import COMPUTE_DTYPES, ActorCritic
from jaxtrader.agents.normalization import Normalizer, RunningNormalizer, ValueScale
from jaxtrader.agents.portfolio import PortfolioActorCritic
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.ledger.rules import Rules

AGENT = "PPOAgent"
ENSEMBLE = "Ensemble"
VERSION = 3
NETWORKS: dict[str, type[ActorCritic]] = {"single": ActorCritic, "portfolio": PortfolioActorCritic}
NETWORK_FIELDS = (
    *("window", "features", "account", "hidden"),
    *("encoder", "encoder_width", "encoder_depth", "compute_dtype"),
)
DISTRIBUTION_NAMES = {"discrete": "categorical", "box": "censored normal", "simplex": "logistic normal"}


@dataclass(frozen=True)
class PolicyFile:
    """What a policy file holds.

    Attributes:
        agent: AGENT.
        version: VERSION of this schema. Files of before it was written down are of version 1.
        network: `kind`, a name in NETWORKS, and NETWORK_FIELDS of `ActorCritic`.
        actions: `kind`, `size` and `shape` of `ActionSpec`, `distribution`, the name of what its outputs stand for, and
            `bounds`, two arrays for a box and None for other kinds.
        obs_ndim: as in `PPOState`.
        params: the weights as nested dicts of arrays.
        normalizer: the fields of `Normalizer` or `RunningNormalizer`. None where there is neither.
        value_scale: the fields of `ValueScale`, in whose units the critic works. None: a file of before version 3.
        about: what the policy was trained on, plain data. A policy of a TradingEnv has `env` (`TradingEnv.to_dict`) and
            `features` (their `names`, and the `lookback` in bars). The Trainer adds its settings and the data's dates.
    """

    agent: str
    version: int
    network: dict[str, Any]
    actions: dict[str, Any]
    obs_ndim: int
    params: dict[str, Any]
    normalizer: dict[str, Any] | None
    value_scale: dict[str, Any] | None
    about: dict[str, Any]


def write_policy(path: str | PathLike[str], state: PPOState, about: dict[str, Any]) -> None:
    """Write what acting needs of a state, and `about`, to a policy file."""
    files.save(path, "policy", vars(_content(state, about)))


def write_ensemble(path: str | PathLike[str], states: tuple[PPOState, ...], about: dict[str, Any]) -> None:
    """Write what acting needs of the members' states, and `about`, to a policy file.

    The file holds a `PolicyFile` for each member, whose own `about` is empty.
    """
    members = [vars(_content(state, {})) for state in states]
    files.save(path, "policy", {"agent": ENSEMBLE, "version": VERSION, "members": members, "about": about})


def _content(state: PPOState, about: dict[str, Any]) -> PolicyFile:
    network, actions = state.network, state.network.actions
    return PolicyFile(
        agent=AGENT,
        version=VERSION,
        network={
            "kind": next(kind for kind, network_type in NETWORKS.items() if network_type is type(network)),
            **{name: getattr(network, name) for name in NETWORK_FIELDS},
            "hidden": list(network.hidden),
        },
        actions={
            "kind": actions.kind,
            "size": actions.size,
            "shape": list(actions.shape),
            "distribution": DISTRIBUTION_NAMES[actions.kind],
            "bounds": None if state.bounds is None else list(state.bounds),
        },
        obs_ndim=state.obs_ndim,
        params=serialization.to_state_dict(state.params),
        normalizer=None if state.normalizer is None else serialization.to_state_dict(state.normalizer),
        value_scale=serialization.to_state_dict(state.value_scale),
        about=about,
    )


def read_policy(path: str | PathLike[str]) -> tuple[PPOState, dict[str, Any]]:
    """Return a state to act with, and `about`.

    Raises files.FileError where the file is not a sound policy of PPOAgent. An ensemble is none.
    """
    states, about = read_members(path)
    if len(states) > 1:
        raise files.FileError(f"{path} holds an ensemble of {len(states)} policies; read it by load_policy(path)")
    return states[0], about


def read_members(path: str | PathLike[str]) -> tuple[tuple[PPOState, ...], dict[str, Any]]:
    """Return a state to act with for each member, and `about`. A policy that is no ensemble has one member.

    Raises files.FileError where the file is not a sound policy of PPOAgent, or an ensemble of them.
    """
    stored = files.load(path, "policy")
    if not isinstance(stored, dict) or stored.get("agent") not in (AGENT, ENSEMBLE):
        raise files.FileError(f"{path} holds no {AGENT} policy; give the policy.pkl that `jaxtrader train` wrote")
    version = stored.get("version", 1)
    if isinstance(version, int) and version > VERSION:
        raise files.FileError(
            f"{path} has policy version {version}, and this jaxtrader reads up to {VERSION}; install a newer jaxtrader"
        )
    try:
        stored = _from_version_1(stored) if version == 1 else stored
        members = stored["members"] if stored["agent"] == ENSEMBLE else [stored]
        states = tuple(_state(PolicyFile(**_from_version_2(member))) for member in members)
        if not states or any(_static(state) != _static(states[0]) for state in states):
            raise ValueError(f"{len(states)} members, whose networks must be the same")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise files.FileError(
            f"{path} is a policy of another version, or damaged ({error!r}); train it again"
        ) from error
    if not all(np.isfinite(x).all() for state in states for x in jax.tree.leaves(_numbers(state))):
        raise files.FileError(
            f"{path} holds weights that are not finite, so its decisions mean nothing; train it again"
        )
    return states, stored["about"]


def _numbers(state: PPOState) -> Any:
    """What a decision is computed from."""
    return state.params, state.normalizer, state.value_scale


def _static(state: PPOState) -> Any:
    """What members of an ensemble share: their arrays can then be stacked."""
    return jax.tree.structure(state), _shapes(jax.tree.leaves(state))


def _from_version_1(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file of before the version was written down, as version 2 had it.

    Those files named the distribution "law", had the settings `activation` and `shared` of the network, and held the
    rules of the environment as its own fields. Boxes of before "law" had a squashed normal.
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
    """Return the content as VERSION has it. Files of before did not hold the scale of the values."""
    return {**stored, "version": VERSION, "value_scale": None} if stored["version"] == 2 else stored


def _state(content: PolicyFile) -> PPOState:
    """Return the state that a file describes. Any error means that a part is missing or that parts do not fit."""
    if content.version != VERSION or not isinstance(content.about, dict):
        raise ValueError(f"version {content.version!r}, about {type(content.about).__name__}")
    actions, bounds = _actions(content.actions)
    network = _network(content.network, actions)
    # Leaves must be JAX arrays: NumPy arrays would become constants of the compiled program.
    params: dict[str, Any] = jax.tree.map(jnp.asarray, content.params)
    expected = jax.eval_shape(network.fresh, jax.random.key(0))
    if _shapes(params) != _shapes(expected):
        raise ValueError("weights of another network")
    normalizer = content.normalizer
    if normalizer is not None:
        normalizer_type = RunningNormalizer if "count" in normalizer else Normalizer
        normalizer = normalizer_type(**{name: jnp.asarray(x) for name, x in normalizer.items()})
    return PPOState(
        params=params,
        opt_state=None,
        learning_rate=jnp.zeros((), jnp.float32),
        value_scale=_value_scale(content.value_scale),
        normalizer=normalizer,
        network=network,
        obs_ndim=content.obs_ndim,
        bounds=bounds,
    )


def _value_scale(stored: dict[str, Any] | None) -> ValueScale:
    if stored is None:
        return ValueScale.fresh()
    scale = ValueScale(**{name: jnp.asarray(x) for name, x in stored.items()})
    if _shapes(scale) != _shapes(ValueScale.fresh()):
        raise ValueError("a scale of values that is no number")
    return scale


def _actions(stored: dict[str, Any]) -> tuple[ActionSpec, Bounds | None]:
    kind, bounds = stored["kind"], stored["bounds"]
    actions = ActionSpec(kind, stored["size"], tuple(stored["shape"]))
    if stored["distribution"] != DISTRIBUTION_NAMES[kind]:
        raise ValueError(f"its actions are of a {stored['distribution']}, no longer known")
    if (bounds is not None) != (kind == "box"):
        raise ValueError("a box of actions has bounds, other actions have none")
    if bounds is None:
        return actions, None
    low, high = (jnp.asarray(x) for x in bounds)
    check_bounds((low, high))
    if not low.shape == high.shape == (actions.size,):
        raise ValueError(f"bounds of {actions.size} actions")
    return actions, (low, high)


def _network(stored: dict[str, Any], actions: ActionSpec) -> ActorCritic:
    fields = {name: stored[name] for name in stored if name != "kind"}
    if set(fields) != set(NETWORK_FIELDS):
        raise ValueError(f"a network of {', '.join(sorted(fields))}")
    fields["hidden"] = tuple(fields["hidden"])
    network = NETWORKS[stored["kind"]](actions=actions, **fields)
    if network.encoder not in get_args(encoders.Kind) or network.compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(f"an encoder {network.encoder!r} in {network.compute_dtype!r}")
    return network


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)
