"""How libraries of Gymnasium see a `TradingEnv`: its observations as arrays of NumPy, and the actions that they choose.

The environments of `jt.to_gymnasium` and `jt.backtest(model, ...)` share it, so a model is tested on what it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from jaxtrader.agents.normalization import Normalizer, fit_normalizer, normalize
from jaxtrader.envs import actions
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.trading import TradingEnv


@dataclass(frozen=True, eq=False)
class GymnasiumForm:
    """The form of observations and actions.

    Attributes:
        normalizer: scales the features, with the moments of the bars of training. None: the features are raw.
        as_dict: an observation is a dict of `window` `[W, A, F]` and `account` `[A, K]`. Otherwise it is one flat
            array, the window and then the account.
    """

    normalizer: Normalizer | None
    as_dict: bool = False

    @classmethod
    def of(cls, env: TradingEnv, as_dict: bool = False) -> GymnasiumForm:
        """Return the form whose scales are those of the environment's own market."""
        return cls(fit_normalizer(env.default_params.arrays), as_dict)

    def prepare(self, params: Any) -> Any:
        """Return the parameters of a TradingEnv, or of an environment around one, with scaled features."""
        if self.normalizer is None:
            return params
        if not isinstance(params, EnvParams):
            return params.replace(own=self.prepare(params.own))
        return params.replace(arrays=normalize(self.normalizer, params.arrays))

    def observation(
        self, window: Float[np.ndarray, "*b W A F"], account: Float[np.ndarray, "*b A K"]
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Return what a library sees of prepared windows and accounts, with the leading axes that they have."""
        if self.as_dict:
            return {"window": window, "account": account}
        parts = window.reshape(*window.shape[:-3], -1), account.reshape(*account.shape[:-2], -1)
        return np.concatenate(parts, -1)

    def action(self, env: TradingEnv, given: Any) -> np.ndarray:
        """Return a batch of chosen actions as the environment takes them.

        A box says nothing of a sum. So weights that sum to more than 1 are divided by their sum.

        Raises ValueError where an action is not of the environment's space.
        """
        chosen = np.asarray(given)
        if isinstance(env.positions, tuple):
            chosen = chosen.reshape(len(chosen)) if chosen.ndim else chosen
            if not np.issubdtype(chosen.dtype, np.integer) or not ((chosen >= 0) & (chosen < env.num_actions)).all():
                raise ValueError(
                    f"action {chosen.tolist()} is none of 0 to {env.num_actions - 1}, one for each position"
                )
            return chosen.astype(np.int32)
        chosen = chosen.astype(np.float32).reshape(-1, env.assets)
        if not np.isfinite(chosen).all():
            raise ValueError(f"action {chosen.tolist()} is not finite; the model has diverged")
        chosen = np.clip(chosen, *actions.bounds(env.positions, env.rules.max_leverage))
        if env.positions == "weights":
            chosen = chosen / np.maximum(chosen.sum(-1, keepdims=True), 1)
        return chosen


@runtime_checkable
class WithTradingEnv(Protocol):
    """What `jt.to_gymnasium` makes of an environment.

    Attributes:
        trading_env: the TradingEnv. None where the environment is another.
        form: the form in which it is seen.
    """

    trading_env: TradingEnv | None
    form: GymnasiumForm


def trading_env_of(env: Any) -> TradingEnv:
    """Return the TradingEnv, which is the argument itself or in what `jt.to_gymnasium` made of it, in any wrappers.

    Raises ValueError where there is none.
    """
    return env if isinstance(env, TradingEnv) else _inner(env)[0]


def form_of(env: Any) -> GymnasiumForm:
    """Return the form in which a model has seen an environment, of which `trading_env_of` returns the TradingEnv.

    Raises ValueError where a wrapper changes what is seen, or where there is no TradingEnv.
    """
    if isinstance(env, TradingEnv):
        return GymnasiumForm.of(env)
    _, inner = _inner(env)
    # What a wrapper makes of the observations is not known here. SB3's VecNormalize leaves their space as it was.
    shown, own = (getattr(each, "observation_space", None) for each in (env, inner))
    if getattr(env, "norm_obs", False) or shown != own:
        raise ValueError(
            f"{type(env).__name__} shows other observations than the environment in it, which are those of a backtest; "
            "train without it (features are scaled already), or give a function that decides"
        )
    return inner.form


def _inner(env: Any) -> tuple[TradingEnv, WithTradingEnv]:
    inner = getattr(env, "unwrapped", env)
    if not isinstance(inner, WithTradingEnv) or inner.trading_env is None:
        raise ValueError(
            f"env is a {type(env).__name__}; give the TradingEnv of the training, or what jt.to_gymnasium made of it"
        )
    return inner.trading_env, inner
