"""What agents and trainers ask of any environment. These are protocols, so an environment needs no base class.

`TradingEnv` has more than this. Code that needs its market asks `isinstance(env, TradingEnv)`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from jax import Array
from jax.typing import ArrayLike
from jaxtyping import PRNGKeyArray


class Environment(Protocol):
    """An environment in gymnax 1.0's shape. Its methods are pure functions, and `params` is an argument of each."""

    @property
    def name(self) -> str:
        """The environment's name, for messages and run folders."""
        ...

    @property
    def default_params(self) -> Any:
        """The parameters that a Trainer uses when it is given none."""
        ...

    def reset(self, key: PRNGKeyArray, params: Any) -> tuple[Any, Any]:
        """Begin an episode: observation, state."""
        ...

    def step(
        self, key: PRNGKeyArray, state: Any, action: Array, params: Any
    ) -> tuple[Any, Any, Array, Array, Array, dict[str, Any]]:
        """One step with auto-reset: observation, state, reward, terminated, truncated, info.

        `info["final_observation"]` is the observation before any reset.
        """
        ...

    def action_space(self, params: Any) -> Any:
        """A `DiscreteSpace` or a `BoxSpace`."""
        ...


def check_environment(env: Any) -> None:
    """Raise ValueError where an object does not have what `Environment` asks for.

    The attributes are asked for one by one. gymnax's wrappers pass on those of what they wrap, and from Python 3.12 on
    `isinstance` with a protocol does not see them. `default_params` is left out, since each look copies a market.
    """
    for name in ("name", "reset", "step", "action_space"):
        if not hasattr(env, name):
            raise ValueError(
                f"a {type(env).__name__} is no environment: it has no {name}; give a jt.TradingEnv(market)"
            )


@runtime_checkable
class DiscreteSpace(Protocol):
    """The actions 0 .. n - 1."""

    n: int


@runtime_checkable
class BoxSpace(Protocol):
    """Actions of this shape between two bounds, which broadcast to the shape."""

    low: ArrayLike
    high: ArrayLike
    shape: tuple[int, ...]
