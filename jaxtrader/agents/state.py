"""What PPO learns and remembers, and how a policy file holds the part of it that acting needs."""

from __future__ import annotations

from os import PathLike
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, struct
from jax import Array
from jaxtyping import Float

from jaxtrader import files
from jaxtrader.agents.actions import Actions, Bounds, check_bounds
from jaxtrader.agents.encoders import Kind
from jaxtrader.agents.networks import COMPUTE_DTYPES, ActorCritic
from jaxtrader.agents.normalization import Normalizer, RunningNormalizer, ValueScale
from jaxtrader.agents.portfolio import PortfolioActorCritic

LAW = {"discrete": "categorical", "box": "censored normal", "simplex": "logistic normal"}  # of actions, by their kind
NETWORKS: dict[str, type[ActorCritic]] = {"single": ActorCritic, "portfolio": PortfolioActorCritic}


class PPOState(struct.PyTreeNode):
    """What PPO learns and remembers.

    `learning_rate` is the rate in force; `normalizer` is of market features, None until `prepare` fits it, or of an
    ordinary environment's observations, None where they are not normalised; `bounds` are those of a box of actions;
    `network` is static: it says how `params` are read. `obs_ndim` is the number of axes of one ordinary observation;
    `every` is the number of bars between two decisions on a lane.
    """

    params: Any
    opt_state: Any
    learning_rate: Float[Array, ""]
    value_scale: ValueScale
    normalizer: Normalizer | RunningNormalizer | None
    network: ActorCritic = struct.field(pytree_node=False)
    obs_ndim: int = struct.field(pytree_node=False, default=1)
    bounds: Bounds | None = None
    every: int = struct.field(pytree_node=False, default=1)

    def of(self, assets: int) -> PPOState:
        """The same policy over so many assets: a portfolio's network shares its weights, so any number will do."""
        bounds = self.bounds
        if bounds is not None:
            low, high = (jnp.broadcast_to(x[:1], (assets,)) for x in bounds)
            bounds = (low, high)
        network = self.network.clone(actions=self.network.actions.of(assets))
        return self.replace(network=network, bounds=bounds)


def save(path: str | PathLike[str], state: PPOState, about: dict[str, Any]) -> None:
    """Write parameters, network, actions, normalisation and `about` (environment and features) to a policy file."""
    net, actions = state.network, state.network.actions
    files.save(
        path,
        "policy",
        {
            "agent": "PPOAgent",
            "network": {
                "kind": next(kind for kind, make in NETWORKS.items() if make is type(net)),
                "window": net.window,
                "features": net.features,
                "account": net.account,
                "hidden": list(net.hidden),
                "activation": net.activation,
                "shared": net.shared,
                "encoder": net.encoder,
                "encoder_width": net.encoder_width,
                "encoder_depth": net.encoder_depth,
                "compute_dtype": net.compute_dtype,
            },
            "actions": {
                "kind": actions.kind,
                "size": actions.size,
                "shape": list(actions.shape),
                "law": LAW[actions.kind],
                "bounds": None if state.bounds is None else list(state.bounds),
            },
            "obs_ndim": state.obs_ndim,
            "params": serialization.to_state_dict(state.params),
            "normalizer": None if state.normalizer is None else serialization.to_state_dict(state.normalizer),
            "about": about,
        },
    )


def load(path: str | PathLike[str]) -> tuple[PPOState, dict[str, Any]]:
    """A state to act with, and `about`. Raises files.FileError where the file is not a sound policy of PPOAgent."""
    stored = files.load(path, "policy")
    if not isinstance(stored, dict) or stored.get("agent") != "PPOAgent":
        raise files.FileError(f"{path} holds no PPOAgent policy; give the policy.pkl that `jaxtrader train` wrote")
    try:
        state, about = _read(stored)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise files.FileError(
            f"{path} is a policy of another version, or damaged ({error!r}); train it again"
        ) from error
    numbers = jax.tree.leaves((state.params, state.normalizer))
    if not all(np.isfinite(x).all() for x in numbers):
        raise files.FileError(
            f"{path} holds weights that are not finite, so its decisions mean nothing; train it again"
        )
    return state, about


def _read(stored: dict[str, Any]) -> tuple[PPOState, dict[str, Any]]:
    """The state in what was stored; any error where a part is missing or parts do not fit together."""
    spec: dict[str, Any] = dict(stored["actions"])
    bounds, law = spec.pop("bounds"), spec.pop("law", "squashed normal")  # boxes before laws were written down
    if spec["kind"] == "box" and law != LAW["box"]:
        raise ValueError(f"its actions are of a {law}, no longer known")
    actions = Actions(**spec | {"shape": tuple(spec["shape"])})
    if (bounds is not None) != (actions.kind == "box"):
        raise ValueError("a box of actions has bounds, others have none")
    if bounds is not None:
        low, high = (jnp.asarray(x) for x in bounds)
        bounds = (low, high)
        check_bounds(bounds)
        if not low.shape == high.shape == (actions.size,):
            raise ValueError(f"bounds of {actions.size} actions")
    net: dict[str, Any] = dict(stored["network"])
    make = NETWORKS[net.pop("kind", "single")]  # files of before there were portfolios do not say
    network = make(**net | {"hidden": tuple(net["hidden"]), "actions": actions})
    if network.encoder not in get_args(Kind) or network.compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(f"an encoder {network.encoder!r} in {network.compute_dtype!r}")
    # jnp arrays: NumPy leaves would become constants of the compiled program.
    params: dict[str, Any] = jax.tree.map(jnp.asarray, stored["params"])
    expected = jax.eval_shape(network.fresh, jax.random.key(0))
    if jax.tree.map(lambda x: (x.shape, x.dtype), params) != jax.tree.map(lambda x: (x.shape, x.dtype), expected):
        raise ValueError("weights of another network")
    normalizer = stored["normalizer"]
    if normalizer is not None:
        kind = RunningNormalizer if "count" in normalizer else Normalizer
        normalizer = kind(**{name: jnp.asarray(x) for name, x in normalizer.items()})
    state = PPOState(
        params=params,
        opt_state=None,
        learning_rate=jnp.zeros((), jnp.float32),
        value_scale=ValueScale(*jnp.zeros((3,), jnp.float32)),
        normalizer=normalizer,
        network=network,
        obs_ndim=stored["obs_ndim"],
        bounds=bounds,
    )
    return state, stored["about"]
