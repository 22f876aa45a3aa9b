"""Our environments as those of Gymnasium: one by one, or many in one compiled call.

Both kinds step through `env.step`, so rewards and accounts are those of our own trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.agents.gymnasium_form import GymnasiumForm
from jaxtrader.agents.normalization import CLIP, Normalizer
from jaxtrader.bridges.scored import ScoredEnv
from jaxtrader.envs import actions
from jaxtrader.envs.observation import ACCOUNT_FEATURES, BOUND, Observation
from jaxtrader.envs.protocols import BoxSpace, DiscreteSpace, check_environment
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import package_settings
from jaxtrader.setting_checks import check_whole, setting


def to_gymnasium(
    env: Any,
    num_envs: int | None = None,
    *,
    params: Any = None,
    normalize: bool | Any = True,
    observation: str = "flat",
) -> GymnasiumEnv | GymnasiumVectorEnv:
    """Return an environment as `gymnasium.Env`, or many of them as one `gymnasium.vector.VectorEnv`.

    Each `reset` begins at a random bar. Ruin terminates, and the time limit or the end of the data truncates. A single
    environment is then reset by its user. The vector resets by itself, in the same step (`AutoresetMode.SAME_STEP`):
    the last observation is in `info["final_obs"]`.

    Actions are those of `env.action_space`. Weights that sum to more than 1 are divided by their sum.

    Args:
        env: a TradingEnv, or any environment in gymnax 1.0's shape.
        num_envs: the number of environments in one compiled call. None: a single one.
        params: the parameters of the environment. None: `env.default_params`.
        normalize: whether features are standardised with the moments of the environment's own market. For another
            market, such as that of the test, give the `form.normalizer` of the environment of the training.
        observation: "flat" shows the window and then the account as one array. "dict" shows `window` `[W, A, F]` and
            `account` `[A, K]`. Any other environment than a TradingEnv shows its own observations.

    Raises:
        ValueError: an argument is unknown, or the environment's actions are neither discrete nor a box.

    Example:
        >>> import jaxtrader as jt
        >>> market = jt.Market.from_bars(jt.load_bundled("IBM"))
        >>> env = jt.to_gymnasium(jt.TradingEnv(market, positions=(0, 1), window=8))
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(1)
        >>> print(env.action_space, observation.shape, terminated)
        Discrete(2) (60,) False
    """
    if observation not in ("flat", "dict"):
        raise ValueError(f"{setting('observation', observation)} is unknown; use flat or dict")
    if num_envs is not None:
        check_whole("num_envs", num_envs)
    check_environment(env)
    if not isinstance(normalize, bool | Normalizer):
        raise ValueError(
            f"{setting('normalize', normalize)} must be True, False, or the `form.normalizer` of another environment"
        )
    with package_settings():
        adapted = _Adapted(env, params, normalize, observation == "dict")
    return GymnasiumEnv(adapted) if num_envs is None else GymnasiumVectorEnv(adapted, num_envs)


class GymnasiumEnv(gymnasium.Env):
    """One of our environments as `gymnasium.Env`, see `to_gymnasium`.

    Attributes:
        trading_env: the TradingEnv. None where the environment is another.
        form: how observations and actions look, which `jt.backtest(model, market, env=...)` reads.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  Gymnasium's own annotation

    def __init__(self, adapted: _Adapted) -> None:
        self._adapted, self._over = adapted, False
        self._state: Any = None
        self.trading_env, self.form = adapted.trading_env, adapted.form
        self.observation_space, self.action_space = adapted.observation_space, adapted.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode at a random bar. There are no `options`."""
        super().reset(seed=seed)
        _check_options(options)
        key = jax.random.key(int(self.np_random.integers(2**32)))
        seen, self._state = self._adapted.begin(key)
        self._over = False
        return self._adapted.observation(seen), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one decision. Raises RuntimeError where the episode is over, or has not begun."""
        if self._state is None or self._over:
            raise RuntimeError("the episode is over or has not begun; call reset() first")
        self._state, out = self._adapted.advance(self._state, self._adapted.action(np.asarray(action)[None])[0])
        _, final, reward, terminated, truncated, info = jax.device_get(out)
        self._over = bool(terminated | truncated)
        known = {name: x for name, x in info.items() if np.ndim(x) or not np.isnan(x)}
        info = {name: x if np.ndim(x) else x.item() for name, x in known.items()}
        return self._adapted.observation(final), float(reward), bool(terminated), bool(truncated), info


class GymnasiumVectorEnv(VectorEnv):
    """Many of our environments as one `VectorEnv`, see `to_gymnasium`. All step in one compiled call.

    Attributes:
        trading_env: the TradingEnv. None where the environment is another.
        form: how observations and actions look, which `jt.backtest(model, market, env=...)` reads.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, adapted: _Adapted, num_envs: int) -> None:
        self._adapted, self.num_envs = adapted, num_envs
        self._state: Any = None
        self.trading_env, self.form = adapted.trading_env, adapted.form
        self.single_observation_space, self.single_action_space = adapted.observation_space, adapted.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment. There are no `options`."""
        super().reset(seed=seed)
        _check_options(options)
        key = jax.random.key(int(self.np_random.integers(2**32)))
        seen, self._state = self._adapted.begin(key, self.num_envs)
        return self._adapted.observation(seen), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one decision in every environment, and begin a new episode where one is over.

        `info` has the figures of the decision for all environments. Where episodes are over it also has `final_obs`, an
        array of objects that are None for the others, and `final_info`.
        """
        if self._state is None:
            raise RuntimeError("the episodes have not begun; call reset() first")
        actions = np.asarray(actions)
        count = len(actions) if actions.ndim else 1
        if count != self.num_envs or not actions.ndim:
            raise ValueError(f"{count} actions for {self.num_envs} environments; give one for each")
        self._state, out = self._adapted.advance(self._state, self._adapted.action(actions), self.num_envs)
        seen, final, reward, terminated, truncated, figures = jax.device_get(out)
        # JAX's own arrays cannot be written to, and Stable-Baselines3 adds to rewards in place.
        reward, terminated, truncated = (np.array(x) for x in (reward, terminated, truncated))
        over, everywhere = terminated | truncated, np.ones(self.num_envs, bool)
        info = _with_masks(figures, everywhere)
        if over.any():
            last = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(over):
                last[i] = self._adapted.observation(jax.tree.map(lambda x, i=i: x[i], final))
            info |= {
                "final_obs": last,
                "_final_obs": over,
                "final_info": _with_masks(figures, over),
                "_final_info": over,
            }
        return self._adapted.observation(seen), reward, terminated, truncated, info


def _with_masks(figures: dict[str, np.ndarray], known: np.ndarray) -> dict[str, Any]:
    """Return figures as the `info` of a vector has them: each with a mask of the environments that have the figure."""
    masks = {f"_{name}": known & ~np.isnan(x) if x.ndim == 1 else known for name, x in figures.items()}
    return {**figures, **masks}


def _check_options(options: dict[str, Any] | None) -> None:
    if options:
        raise ValueError(f"reset has no option {next(iter(options))!r}; there are none")


class _Adapted:
    """An environment with its parameters, its spaces, and its compiled steps."""

    def __init__(self, env: Any, params: Any, normalize: bool | Any, as_dict: bool) -> None:
        self.env = env
        inner = env.trading_env if isinstance(env, ScoredEnv) else env
        self.trading_env = inner if isinstance(inner, TradingEnv) else None
        params = env.default_params if params is None else params
        self.form = GymnasiumForm(None, as_dict)
        if self.trading_env is not None:
            if normalize is True:
                self.form = GymnasiumForm.of(self.trading_env, as_dict)
            elif normalize is not False:
                self.form = GymnasiumForm(normalize, as_dict)
            params = self.form.prepare(params)
        elif as_dict:
            raise ValueError(f"`observation='dict'` is of a TradingEnv; {env.name} shows its own, so leave it out")
        self.params = params
        self.action_space = _action_space(env, params)
        self.observation_space = self._observation_space()

    @package_settings()
    def begin(self, key: PRNGKeyArray, count: int | None = None) -> tuple[Any, Any]:
        """Return first observations, and the state for `advance`."""
        return _begin(key, self.params, env=self.env, count=count)

    @package_settings()
    def advance(self, state: Any, action: np.ndarray, count: int | None = None) -> tuple[Any, Any]:
        """Return the state for the next `advance`, and (obs, final obs, reward, terminated, truncated, info)."""
        return _advance(state, action, self.params, env=self.env, count=count)

    def action(self, given: np.ndarray) -> np.ndarray:
        """Return a batch of actions as the environment takes them."""
        return given if self.trading_env is None else self.form.action(self.trading_env, given)

    def observation(self, seen: Any) -> Any:
        """Return observations as a library sees them."""
        if isinstance(seen, Observation):
            return self.form.observation(np.asarray(seen.window), np.asarray(seen.account))
        return jax.tree.map(np.asarray, seen)

    def _observation_space(self) -> gymnasium.Space:
        seen, _ = jax.eval_shape(self.env.reset, jax.random.key(0), self.params)
        if self.trading_env is None:
            return _space(self.env.observation_space(self.params))
        window, account = seen.window.shape, seen.account.shape
        most = np.full(account, BOUND, np.float32)
        bounded = len(ACCOUNT_FEATURES) + self.trading_env.shows_best_price
        most[:, :bounded] = CLIP  # see `TradingEnv.account_features`
        widest = np.full(window, BOUND if self.form.normalizer is None else CLIP, np.float32)
        shown: Any = self.form.observation(widest, most)
        if self.form.as_dict:
            return gymnasium.spaces.Dict({name: gymnasium.spaces.Box(-x, x) for name, x in shown.items()})
        return gymnasium.spaces.Box(-shown, shown)


@partial(jax.jit, static_argnames=("env", "count"))
def _begin(key: PRNGKeyArray, params: Any, *, env: Any, count: int | None) -> tuple[Any, Any]:
    """Return the first observations of one environment or of `count` of them, and the key and the states."""
    key, own = jax.random.split(key)
    if count is None:
        seen, state = env.reset(own, params)
    else:
        seen, state = jax.vmap(env.reset, (0, None))(jax.random.split(own, count), params)
    return seen, (key, state)


@partial(jax.jit, static_argnames=("env", "count"))
def _advance(
    key_and_state: tuple[PRNGKeyArray, Any], action: Array, params: Any, *, env: Any, count: int | None
) -> tuple[Any, tuple[Any, Any, Float[Array, "*b"], Array, Array, dict[str, Array]]]:
    """Take a step with auto-reset in one environment, or in `count` of them."""
    key, state = key_and_state
    key, own = jax.random.split(key)
    step: Callable[..., Any] = env.step
    if count is not None:
        step, own = jax.vmap(env.step, (0, 0, 0, None)), jax.random.split(own, count)
    seen, state, reward, terminated, truncated, info = step(own, state, action, params)
    info = {name: x for name, x in info.items() if name not in ("terminated", "truncated")}
    final = info.pop("final_observation")
    return (key, state), (seen, final, reward, terminated, truncated, info)


def _action_space(env: Any, params: Any) -> gymnasium.Space:
    if isinstance(env, ScoredEnv):
        return _action_space(env.trading_env, params)
    if isinstance(env, TradingEnv):  # without gymnax, which takes 4 s to import
        if isinstance(env.positions, tuple):
            return gymnasium.spaces.Discrete(env.num_actions)
        bounds = actions.bounds(env.positions, env.rules.max_leverage)
        return gymnasium.spaces.Box(*bounds, (env.assets,), np.float32)
    return _space(env.action_space(params))


def _space(space: Any) -> gymnasium.Space:
    """Return one of gymnax's spaces as Gymnasium's."""
    if isinstance(space, DiscreteSpace):
        return gymnasium.spaces.Discrete(int(space.n))
    if not isinstance(space, BoxSpace):
        raise ValueError(f"a {type(space).__name__} is neither discrete nor a box; wrap the environment so that it is")
    low, high = (np.broadcast_to(np.asarray(x, np.float64), space.shape) for x in (space.low, space.high))
    dtype = np.dtype(getattr(space, "dtype", np.float32))
    low, high = (cast(Any, np.clip(x, -BOUND, BOUND)).astype(dtype) for x in (low, high))
    return gymnasium.spaces.Box(low, high, dtype=cast(Any, dtype.type))
