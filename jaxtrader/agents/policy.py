"""A trained policy read from its file: a decision from a window and an account, without any market data.

Backtests and, later, live trading are built on it. What it was trained on and how its market must be prepared stand in
`about`; nothing here learns.
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
from jaxtrader.agents.portfolio import PortfolioActorCritic
from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.envs import costs, rewards
from jaxtrader.envs.positions import Positions
from jaxtrader.envs.rules import RULE_NAMES
from jaxtrader.envs.state import ACCOUNT_FEATURES, TRADABLE
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.market.market import Market

# What a backtest may set otherwise. The leverage is the policy's own: its actions and observations are in its units.
CHANGES = ("costs", "reward", "stop_loss", "take_profit", *(name for name in RULE_NAMES if name != "max_leverage"))
FLAT = (0.0, 0.0, 0.0, 1.0)  # ACCOUNT_FEATURES of an account that never traded


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """An agent, its state, and what the file says about them. `act` decides; `environment` rebuilds the setting.

    A policy of a portfolio decides on any number of assets, whichever it was trained on (`symbols`).
    """

    agent: PPOAgent
    state: PPOState
    about: dict[str, Any]

    @property
    def window(self) -> int:
        """Bars that a decision sees."""
        return int(self.about["env"]["window"])

    @property
    def positions(self) -> Positions:
        """The target exposures it chooses from, or "continuous" or "weights"."""
        positions = self.about["env"]["positions"]
        return cast(Positions, positions if isinstance(positions, str) else tuple(positions))

    @property
    def portfolio(self) -> bool:
        """Whether it divides one account between assets; else it trades one."""
        return isinstance(self.state.network, PortfolioActorCritic)

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it was trained on: one name a history, those of a portfolio's assets joined by commas."""
        return tuple(self.about.get("symbols", ()))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features of a window, in order."""
        return tuple(self.about["features"]["names"])

    @property
    def account_names(self) -> tuple[str, ...]:
        """Names of the numbers of an account that a decision sees, in order; see `TradingEnv.account_names`."""
        return ACCOUNT_FEATURES + rewards.observed_in(self.about["env"]["reward"])

    @property
    def bars_needed(self) -> int:
        """Bars of history from which one window's features can be computed: window - 1 + the longest look-back."""
        return self.window - 1 + int(self.about["features"]["lookback"])

    def act(self, window: ArrayLike, account: ArrayLike | Sequence[float] | None = None) -> float | np.ndarray:
        """The target exposure for the bar after the window, by the mode; of a portfolio one an asset, `[A]`.

        Args:
            window: raw features `[window, feature]` in the order of `features`, oldest first; the last row is the bar
                just closed. Of a portfolio `[window, A, feature]`, of any number of assets, NaN where an asset was not
                yet listed; the last row only of those that cannot be traded.
            account: the numbers of `account_names`: exposure, last target, unrealised return in 20-bar moves, bars
                since the last fill / 20 (at most 1), see `TradingEnv.account_features`; then what the policy was shown
                of its reward's state, if anything. A live trader keeps that state: it is `reward.begin((), dtype)` at
                first, `reward(move, state)[1]` after each bar, and `reward.observe(state)` is what to give, with
                `reward` as in training. The default is an account that never traded. Of a portfolio a row an asset,
                of these numbers or with one more, 1 or 0: whether it can be traded now. 0 gives NaN, hold.

        Raises:
            ValueError: where a shape is wrong or a number is not finite.
        """
        bars = self._window(window)
        assets = bars.shape[1]
        seen = self._account(account, assets)
        listed = np.all(seen[:, len(self.account_names) :] > 0.5, axis=-1)  # of no numbers: all
        known = np.isfinite(bars) | (self.portfolio & np.isnan(bars))
        known[-1] &= np.isfinite(bars[-1]) | ~listed[:, None]
        if not (known.all() and np.isfinite(seen).all()):
            raise ValueError("the window or the account holds a value that is not finite; give complete bars")
        state = self.state_for(assets)
        action = np.asarray(_decide(self.agent, state, jnp.asarray(bars)[None], jnp.asarray(seen)[None])[0])
        positions = self.positions
        if isinstance(positions, tuple):
            return positions[int(action)]
        if not self.portfolio:
            return float(action[0])
        return np.where(listed, action, np.nan)

    def state_for(self, assets: int) -> PPOState:
        """The state with which `agent` decides on so many assets."""
        return self.state.of(assets) if self.portfolio else self.state

    def _window(self, window: ArrayLike) -> Float[np.ndarray, "bar asset feature"]:
        """A raw window, checked, with the axis of assets where there is one only."""
        bars = _numbers(window, "the window is no table of numbers; give one row a bar, one column a feature")
        wanted = (self.window, len(self.features))
        if self.portfolio:
            right, says = bars.ndim == 3 and bars.shape[1] > 0 and (bars.shape[0], bars.shape[2]) == wanted, "assets, "
        else:
            right, says = bars.shape == wanted, ""
        if not right:
            raise ValueError(
                f"the window has shape {bars.shape}, the policy needs ({self.window}, {says}{len(self.features)}): the "
                f"last {self.window} bars of {', '.join(self.features)}, computed from at least {self.bars_needed} bars"
            )
        return bars if self.portfolio else bars[:, None]

    def _account(self, account: ArrayLike | Sequence[float] | None, assets: int) -> Float[np.ndarray, "asset feature"]:
        """Account features, checked, a row an asset."""
        if account is None:
            return np.tile(np.asarray(self._untraded(), np.float32), (assets, 1))
        names, count = ", ".join(self.account_names), len(self.account_names)
        seen = _numbers(account, f"the account is no row of numbers; give {names}")
        if not self.portfolio and seen.shape != (count,):
            raise ValueError(f"the account has shape {seen.shape}, the policy needs {names}")
        if self.portfolio and seen.shape not in [(assets, count), (assets, count + 1)]:
            raise ValueError(
                f"the account has shape {seen.shape}, the policy needs ({assets}, {count}), a row an asset of the "
                f"window: {names}; or one number more, {TRADABLE} (1 or 0)"
            )
        return seen.reshape(assets, -1)

    def environment(self, market: Market, **changes: Any) -> TradingEnv:
        """The TradingEnv it was trained in, over another market, with other costs or rules where `changes` says so.

        Raises ValueError where the features differ, or a change is not one of CHANGES.
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
        assets = market.close.shape[1]
        if assets > 1 and not self.portfolio:
            raise ValueError(
                f"the policy trades one asset an account, the market has {assets} in one history; give the symbols as "
                "separate histories, or train on a market of several assets"
            )
        setting: dict[str, Any] = dict(self.about["env"])
        setting["costs"] = costs.from_dict(setting["costs"])
        setting["positions"] = self.positions
        return TradingEnv(market, **setting | changes | {"reward": self._reward(changes.get("reward"))})

    def _reward(self, other: Any = None) -> Any:
        """The reward it was trained for, or another that shows the same of its state."""
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
        """The numbers of an account that never traded."""
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

    Raises files.FileError where it is none, or does not tell its environment and features.
    """
    agent = PPOAgent()
    path = Path(path) / "policy.pkl" if Path(path).is_dir() else path
    state, about = agent.load_model(path)
    missing = [part for part in ("env", "features") if part not in about]
    if missing:
        raise files.FileError(
            f"{path} does not say its {' and '.join(missing)}: it was not trained on a TradingEnv; "
            "use PPOAgent().load_model(path)"
        )
    policy = Policy(agent, state, about)
    positions, actions = policy.positions, state.network.actions
    kind = {"continuous": "box", "weights": "simplex"}.get(str(positions), "discrete")
    if actions.kind != kind or (isinstance(positions, tuple) and actions.size != len(positions)):
        raise files.FileError(
            f"{path} is damaged: its network has {actions.size} actions of kind {actions.kind}, its environment the "
            f"positions {positions}; train it again"
        )
    return policy


def _numbers(given: ArrayLike | Sequence[float], fault: str) -> np.ndarray:
    try:
        return np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(fault) from error


@jax.jit
def _decide(agent: PPOAgent, state: PPOState, window: jax.Array, account: jax.Array) -> jax.Array:
    """The mode for raw windows `[batch, window, asset, feature]`."""
    known = jnp.isfinite(window).all(-1, keepdims=True)
    if state.normalizer is not None:
        window = state.normalizer(window)
    if isinstance(state.network, PortfolioActorCritic):
        window = jnp.where(known, window, 0)  # as `normalize` does on a tape
    context = agent.encode(state, window)[..., 0, :]
    return agent.act(state, context, account, jax.random.key(0), deterministic=True)[0]
