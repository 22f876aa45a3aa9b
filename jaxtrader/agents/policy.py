"""A trained policy: it decides from a window of bars and an account, without any market data.

Backtests use it, and so can live trading. Nothing here learns. The file format is in policy_file.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxtrader import files
from jaxtrader.agents.policy_file import read_policy
from jaxtrader.agents.portfolio import PortfolioActorCritic
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.envs import rewards
from jaxtrader.envs.actions import Positions
from jaxtrader.envs.observation import ACCOUNT_FEATURES, TRADABLE
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger import costs
from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

CHANGES = ("rules", "costs", "reward", "stop_loss", "take_profit")  # settings that a backtest may change
FLAT = (0.0, 0.0, 0.0, 1.0)  # ACCOUNT_FEATURES of an account that never traded


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy. A policy of a portfolio decides on any number of assets, whatever it was trained on.

    Attributes:
        agent: the agent with which it acts.
        state: the agent's state.
        about: what the policy file says of its training, see `PolicyFile`.
    """

    agent: PPOAgent
    state: PPOState
    about: dict[str, Any]

    @property
    def window(self) -> int:
        """The number of bars that a decision sees."""
        return int(self.about["env"]["window"])

    @property
    def positions(self) -> Positions:
        """The target exposures that it chooses from, or "continuous" or "weights"."""
        positions = self.about["env"]["positions"]
        return cast(Positions, positions if isinstance(positions, str) else tuple(positions))

    @property
    def portfolio(self) -> bool:
        """Whether it divides one account between assets. Otherwise it trades one asset."""
        return isinstance(self.state.network, PortfolioActorCritic)

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it was trained on: one name for each history. The assets of a portfolio are joined by commas."""
        return tuple(self.about.get("symbols", ()))

    @property
    def features(self) -> tuple[str, ...]:
        """The names of a window's features, in order."""
        return tuple(self.about["features"]["names"])

    @property
    def account_names(self) -> tuple[str, ...]:
        """The names of the account features that a decision sees, in order, see `TradingEnv.account_names`."""
        return ACCOUNT_FEATURES + rewards.observed_in(self.about["env"]["reward"])

    @property
    def rules(self) -> Rules:
        """The rules that it was trained under."""
        return Rules(**self.about["env"]["rules"])

    @property
    def costs(self) -> Costs | CostRange:
        """The costs that it was trained with."""
        return costs.from_dict(self.about["env"]["costs"])

    @property
    def bars_needed(self) -> int:
        """The bars of history that one window's features need: window - 1 + the longest look-back."""
        return self.window - 1 + int(self.about["features"]["lookback"])

    def act(self, window: ArrayLike, account: ArrayLike | Sequence[float] | None = None) -> float | np.ndarray:
        """Return the target exposure for the bar after the window, by the policy's mode. For a portfolio: one an asset.

        Args:
            window: raw features `[window, feature]`, in the order of `features`, oldest first. The last row is the bar
                that has just closed. A portfolio's window is `[window, A, feature]`, of any number of assets. It is NaN
                where an asset was not listed yet, and in the last row of assets that cannot be traded now.
            account: the numbers of `account_names`, see `TradingEnv.account_features`: exposure, last target,
                unrealised return in 20-bar moves, bars since the last fill / 20 (at most 1), then what the reward shows
                of its state. For a portfolio: one row for each asset, which may have one more number, 1 or 0, for
                whether the asset can be traded now. The result is NaN (hold) where it is 0. The default is an account
                that never traded. A live trader keeps the reward's state itself: it begins as
                `reward.begin((), dtype)`, becomes `reward(move, state)[1]` after each bar, and shows
                `reward.observe(state)`.

        Raises:
            ValueError: where a shape is wrong or a number is not finite.
        """
        bars = self._window(window)
        assets = bars.shape[1]
        features = self._account(account, assets)
        # Without the further number all assets are tradable: `np.all` of nothing is True.
        tradable = np.all(features[:, len(self.account_names) :] > 0.5, axis=-1)
        known = np.isfinite(bars) | (self.portfolio & np.isnan(bars))
        known[-1] &= np.isfinite(bars[-1]) | ~tradable[:, None]
        if not (known.all() and np.isfinite(features).all()):
            raise ValueError("the window or the account holds a value that is not finite; give complete bars")
        state = self.state_for(assets)
        action = np.asarray(_decide(self.agent, state, jnp.asarray(bars)[None], jnp.asarray(features)[None])[0])
        positions = self.positions
        if isinstance(positions, tuple):
            return positions[int(action)]
        if not self.portfolio:
            return float(action[0])
        return np.where(tradable, action, np.nan)

    def state_for(self, assets: int) -> PPOState:
        """Return the state with which `agent` decides on so many assets."""
        return self.state.for_assets(assets) if self.portfolio else self.state

    def _window(self, window: ArrayLike) -> Float[np.ndarray, "bar asset feature"]:
        """Return the raw window after its checks, always with an axis of assets."""
        bars = _numbers(
            window, "the window is no table of numbers; give one row for each bar and one column for each feature"
        )
        wanted = (self.window, len(self.features))
        if self.portfolio:
            fits = bars.ndim == 3 and bars.shape[1] > 0 and (bars.shape[0], bars.shape[2]) == wanted
        else:
            fits = bars.shape == wanted
        if not fits:
            raise ValueError(
                f"the window has shape {bars.shape}, the policy needs ({self.window}, "
                f"{'assets, ' * self.portfolio}{len(self.features)}): the "
                f"last {self.window} bars of {', '.join(self.features)}, computed from at least {self.bars_needed} bars"
            )
        return bars if self.portfolio else bars[:, None]

    def _account(self, account: ArrayLike | Sequence[float] | None, assets: int) -> Float[np.ndarray, "asset feature"]:
        """Return the account features after their checks, one row for each asset."""
        if account is None:
            return np.tile(np.asarray(self._untraded(), np.float32), (assets, 1))
        names, count = ", ".join(self.account_names), len(self.account_names)
        features = _numbers(account, f"the account is no row of numbers; give {names}")
        if not self.portfolio and features.shape != (count,):
            raise ValueError(f"the account has shape {features.shape}, the policy needs {names}")
        if self.portfolio and features.shape not in [(assets, count), (assets, count + 1)]:
            raise ValueError(
                f"the account has shape {features.shape}, the policy needs ({assets}, {count}), one row for each asset "
                f"of the window: {names}; or one number more, {TRADABLE} (1 or 0)"
            )
        return features.reshape(assets, -1)

    def environment(self, market: Market, **changes: Any) -> TradingEnv:
        """Return the TradingEnv that it was trained in, over another market. `changes` are settings among CHANGES.

        Raises ValueError where the market has other features, or a change is not among CHANGES.
        """
        if not isinstance(market, Market):
            raise ValueError(
                f"a policy trades a Market, not a {type(market).__name__}; make one with Market.from_bars(bars)"
            )
        wrong = [name for name in changes if name not in CHANGES]
        if wrong:
            raise ValueError(
                f"{wrong[0]} belongs to the policy and cannot be changed; change one of {', '.join(CHANGES)}"
            )
        if tuple(market.feature_names) != self.features:
            raise ValueError(
                f"the policy was trained on the features {', '.join(self.features)}, the market has "
                f"{', '.join(market.feature_names)}; build it with "
                f"Market.from_bars(bars, features={list(self.features)})"
            )
        rules = changes.get("rules", self.rules)
        if rules.max_leverage != self.rules.max_leverage:
            raise ValueError(
                f"max_leverage {rules.max_leverage:g} cannot be changed: the policy acts in units of its own, "
                f"{self.rules.max_leverage:g}; use policy.rules.replace(...)"
            )
        assets = market.close.shape[1]
        if assets > 1 and not self.portfolio:
            raise ValueError(
                f"the policy trades one asset an account, the market has {assets} in one history; give the symbols as "
                "separate histories, or train on a market of several assets"
            )
        settings: dict[str, Any] = dict(self.about["env"])
        settings |= {"positions": self.positions, "rules": self.rules, "costs": self.costs}
        return TradingEnv(market, **settings | changes | {"reward": self._reward(changes.get("reward"))})

    def _reward(self, other: Any = None) -> Any:
        """Return the reward that it was trained for, or the other one where that shows the same of its state."""
        stored = self.about["env"]["reward"]
        if other is None:
            return rewards.from_dict(stored)
        shown, wanted = rewards.observed(other), rewards.observed_in(stored)
        if shown != wanted:
            raise ValueError(
                f"decisions see {', '.join(wanted) or 'nothing'} of the state of the reward {stored['name']}, and of "
                f"{other!r} {', '.join(shown) or 'nothing'}; give the reward that the policy was trained for"
            )
        return other

    def _untraded(self) -> tuple[float, ...]:
        """Return the account features of an account that never traded."""
        stored = self.about["env"]["reward"]
        names = rewards.observed_in(stored)
        if not names:
            return FLAT
        if stored.get("custom"):
            raise ValueError(
                f"the policy sees the {', '.join(names)} of its reward {stored['name']}, which the file does not hold; "
                f"give the account: {', '.join(self.account_names)}"
            )
        reward = self._reward()
        return (*FLAT, *np.asarray(reward.observe(reward.begin((), jnp.float32))).tolist())


def load_policy(path: str | PathLike[str]) -> Policy:
    """Read a policy file, or the policy.pkl of a run folder.

    Raises files.FileError where it is not a sound policy that was trained on a TradingEnv.
    """
    path = Path(path) / "policy.pkl" if Path(path).is_dir() else path
    state, about = read_policy(path)
    missing = [part for part in ("env", "features") if part not in about]
    if missing:
        raise files.FileError(
            f"{path} does not say its {' and '.join(missing)}: it was not trained on a TradingEnv; "
            "use PPOAgent().load_model(path)"
        )
    policy = Policy(PPOAgent(), state, about)
    positions, actions = policy.positions, state.network.actions
    kind = {"continuous": "box", "weights": "simplex"}.get(str(positions), "discrete")
    if actions.kind != kind or (isinstance(positions, tuple) and actions.size != len(positions)):
        raise files.FileError(
            f"{path} is damaged: its network has {actions.size} actions of kind {actions.kind}, its environment the "
            f"positions {positions}; train it again"
        )
    return policy


def _numbers(given: ArrayLike | Sequence[float], message: str) -> np.ndarray:
    try:
        return np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error


@jax.jit
def _decide(agent: PPOAgent, state: PPOState, window: jax.Array, account: jax.Array) -> jax.Array:
    """Return the policy's mode for raw windows `[batch, window, asset, feature]`."""
    known = jnp.isfinite(window).all(-1, keepdims=True)
    if state.normalizer is not None:
        window = state.normalizer(window)
    if isinstance(state.network, PortfolioActorCritic):
        window = jnp.where(known, window, 0)  # as `normalize` does with market arrays
    context = agent.encode(state, window)[..., 0, :]
    return agent.act(state, context, account, jax.random.key(0), deterministic=True)[0]
