"""A trained policy: it decides from a window of bars and an account, without any market data.

Backtests use it, and so can live trading. Nothing here learns. The file format is in policy_file.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxtrader.agents.ensemble import Ensemble
from jaxtrader.agents.explanation import AGREES, Explanation, MemberDecision
from jaxtrader.agents.networks import PortfolioActorCritic
from jaxtrader.agents.normalization import Normalized
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.ppo_state import PPOState
from jaxtrader.agents.protocol import MarketActor, actor_of
from jaxtrader.envs import rewards
from jaxtrader.envs.actions import Positions
from jaxtrader.envs.observation import TRADABLE, account_names
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import package_settings
from jaxtrader.ledger import costs
from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.ledger.rules import BRACKETS, Rules, check_rules
from jaxtrader.market.delistings import DELISTED_AFTER
from jaxtrader.market.market import Market, check_market_type
from jaxtrader.setting_checks import setting, with_article

if TYPE_CHECKING:
    from jaxtrader.agents.export import Exported, Format
    from jaxtrader.evaluation.result import BacktestResult
    from jaxtrader.live.live import Live
    from jaxtrader.market.bars import Bars
    from jaxtrader.market.features import Feature

CHANGES = ("rules", "costs", "reward", *BRACKETS)  # settings that a backtest may change
FLAT = (0.0, 0.0, 0.0, 1.0)  # ACCOUNT_FEATURES of an account that never traded


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy. A policy of a portfolio decides on any number of assets, whatever it was trained on.

    A policy of another environment than a `TradingEnv` has `act` alone. Its other properties raise ValueError.

    Attributes:
        agent: the agent that was trained, or the `Ensemble` of several.
        state: the agent's state. An ensemble has a tuple of its members' states.
        about: what the policy file says of its training, see `PolicyFile`.
    """

    agent: MarketActor
    state: Any
    about: dict[str, Any]

    def __repr__(self) -> str:
        if not (self.trades or self.is_own):
            network = first_state(self.state).network
            return f"Policy({network.features} observed numbers, {network.actions!r})"
        if not self.trades:
            return f"Policy of {type(self.agent).__name__}"
        seen = f"window {self.window}, features {', '.join(self.features)}"
        return f"Policy(positions {self.positions}, {seen}, trained on {', '.join(self.symbols) or 'unnamed bars'})"

    @property
    def trades(self) -> bool:
        """Whether it was trained in a `TradingEnv`."""
        return "env" in self.about

    def _trained_in(self, part: str) -> dict[str, Any]:
        """Return what the file says of the TradingEnv (`env`) or of its `features`."""
        if not self.trades:
            raise ValueError(
                "the policy was not trained in a TradingEnv, so it has no bars, positions or costs; it can "
                "act(observation)"
            )
        return self.about[part]

    @property
    def acting_agent(self) -> MarketActor:
        """The agent without what matters to learning only. So policies of many agents share compiled programs.

        An agent of the user's own is itself, or the `WindowActor` around it.
        """
        if isinstance(self.agent, Ensemble):
            return Ensemble(self.members[0].acting_agent, self.agent.positions)
        if isinstance(self.agent, PPOAgent):
            return PPOAgent(matmul_precision=self.agent.matmul_precision)
        return actor_of(self.agent, self.window) if self.trades else self.agent

    @property
    def is_own(self) -> bool:
        """Whether the agent, or that of each member, is of the user's own, and not of this package."""
        return not isinstance(self.members[0].agent, PPOAgent)

    @property
    def members(self) -> tuple[Policy, ...]:
        """The policies of an ensemble. Another policy is its only member."""
        if not isinstance(self.agent, Ensemble):
            return (self,)
        assert isinstance(self.state, tuple)
        member = self.agent.member
        return tuple(Policy(member, state, self.about) for state in self.state)

    @property
    def window(self) -> int:
        """The number of bars that a decision sees."""
        return int(self._trained_in("env")["window"])

    @property
    def positions(self) -> Positions:
        """The target exposures that it chooses from, or "continuous" or "weights".

        An ensemble whose members choose from exposures is "continuous", since it trades their mean.
        """
        positions = self._trained_in("env")["positions"]
        if isinstance(self.agent, Ensemble) and self.agent.positions is not None:
            return "continuous"
        return cast(Positions, positions if isinstance(positions, str) else tuple(positions))

    @property
    def portfolio(self) -> bool:
        """Whether it divides one account between assets. Otherwise it trades one asset."""
        if self.is_own:
            return self.assets > 1
        return isinstance(first_state(self.state).network, PortfolioActorCritic)

    @property
    def assets(self) -> int:
        """The assets of one account in training."""
        return len(self.symbols[0].split(",")) if self.symbols else 1

    @property
    def symbols(self) -> tuple[str, ...]:
        """What it was trained on: one name for each history. The assets of a portfolio are joined by commas."""
        return tuple(self.about.get("symbols", ()))

    @property
    def holds_because(self) -> str | None:
        """Why it holds one exposure instead of what was trained. None where it trades."""
        return self.about.get("holds_because")

    @property
    def features(self) -> tuple[str, ...]:
        """The names of a window's features, in order."""
        return tuple(self._trained_in("features")["names"])

    @property
    def account_names(self) -> tuple[str, ...]:
        """The names of the account features that a decision sees, in order, see `TradingEnv.account_names`."""
        env = self._trained_in("env")
        return account_names(self._sees_best_price, rewards.observed_in(env["reward"]))

    @property
    def _sees_best_price(self) -> bool:
        return bool(self._trained_in("env").get("sees_best_price"))

    @property
    def rules(self) -> Rules:
        """The rules that it was trained under. A band of None is that of an environment, see `Rules`."""
        return Rules(**self._trained_in("env")["rules"])

    @property
    def costs(self) -> Costs | CostRange:
        """The costs that it was trained with."""
        return costs.from_dict(self._trained_in("env")["costs"])

    @property
    def bars_needed(self) -> int:
        """The bars of history that one window's features need: window - 1 + the longest look-back."""
        return self.window - 1 + int(self._trained_in("features")["lookback"])

    @property
    def delisted_after(self) -> float:
        """`Market.delisted_after` of its training."""
        return self._trained_in("features").get("delisted_after", DELISTED_AFTER) if self.portfolio else DELISTED_AFTER

    @package_settings()
    def act(self, window: ArrayLike, account: ArrayLike | Sequence[float] | None = None) -> float | np.ndarray:
        """Return the target exposure for the bar after the window, by the policy's mode. For a portfolio: one an asset.

        A policy of another environment than a TradingEnv takes an observation, without its batch axes, and returns an
        action of that environment.

        Args:
            window: raw features `[window, feature]`, in the order of `features`, oldest first. The last row is the bar
                that has just closed. A portfolio's window is `[window, A, feature]`, of any number of assets. It is NaN
                where an asset was not listed yet, and in the last row of assets that cannot be traded now.
            account: the numbers of `account_names`, see `TradingEnv.account_features`. They are the exposure, the last
                target, the unrealised return in 20-bar moves, and the bars since the last fill / 20 (at most 1). With
                a trailing stop the return from the best price in 20-bar moves follows, and then what the reward shows
                of its state. For a portfolio: one row for each asset, which may have one more number, 1 or 0, for
                whether the asset can be traded now. The result is NaN (hold) where it is 0. The default is an account
                that never traded. A live trader keeps the reward's state itself: it begins as
                `reward.begin((), dtype)`, becomes `reward(move, state)[1]` after each bar, and shows
                `reward.observe(state)`.

        Raises:
            ValueError: where a shape is wrong or a number is not finite.
        """
        if not self.trades:
            return self._act_on(window)
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
        chosen, _ = _decide(self.acting_agent, state, jnp.asarray(bars)[None], jnp.asarray(features)[None])
        action = np.asarray(chosen[0])
        positions = self.positions
        if isinstance(positions, tuple):
            return positions[int(action)]
        if not self.portfolio:
            return float(action[0])
        return np.where(tradable, action, np.nan)

    @package_settings()
    def explain(self, result: BacktestResult, at: Any, symbol: str | None = None) -> Explanation:
        """Return one decision of a backtest: what it saw, the probabilities and the value, of each member too.

        Print it for a small table. The order of a decision is filled in a later bar, by default the next one.

        Args:
            result: `backtest(policy, market)`.
            at: the bar: its number in the result, or a time. Of a day, such as "2012-03-05", it is the last bar. A time
                between two bars is that of the bar before. Where decisions are `decision_every` bars apart, it is the
                last decision up to that bar.
            symbol: which account of a combined result.

        Raises:
            ValueError: there is no such bar or symbol, the result is not of a policy, or of another policy.
        """
        if not hasattr(result, "seen"):  # BacktestResult stands in a folder that this one does not import
            raise ValueError(
                f"explain needs a BacktestResult, not {with_article(type(result))}; give that of "
                "`backtest(policy, market)`"
            )
        seen = result.seen(at, symbol)
        given = (seen.window, seen.account) if self.portfolio else (seen.window[:, 0], seen.account[0])
        chosen = self.act(*given)
        if not np.allclose(chosen, seen.target, atol=AGREES, equal_nan=True) and np.isfinite(seen.target).any():
            raise ValueError(
                f"the result has the target {seen.target} at bar {seen.bar}, and the policy chooses {chosen}; give the "
                "result of a backtest of this policy"
            )
        bars, account = jnp.asarray(seen.window), jnp.asarray(seen.account)[None]
        seeds = self.about.get("seeds", ())
        seeds = seeds if len(seeds) == len(self.members) else range(len(self.members))
        members = {}
        for seed, one in zip(seeds, self.members, strict=True):
            action, about = _decide(one.acting_agent, one.state_for(len(seen.symbols)), bars[None], account)
            members[f"seed {seed}"] = MemberDecision.of(action, about, one.positions)
        bars = normalized(self.state_for(len(seen.symbols)), bars)
        return Explanation(seen, members, self.features, np.asarray(bars), self.account_names)

    def live(
        self,
        history: Bars | Sequence[Bars],
        account: float | Mapping[str, float] | None = None,
        *,
        fills: Literal["assumed", "reported"] = "assumed",
        features: Sequence[str | Feature] | None = None,
        **changes: Any,
    ) -> Live:
        """Begin to decide bar by bar, at the last bar of a history, with an account that is kept.

        `live.decision` is the decision at that bar, and `live.on_bar(...)` returns the next ones. They are those of
        `backtest(policy, market)` whose first decision is at that bar, up to the rounding of float32.

        Args:
            history: bars of one asset, or a sequence with the bars of each asset of a portfolio. At least `bars_needed`
                are necessary. More are better, because they show the usual times of bars.
            account: the exposure that it holds, signed position value / equity, or one by symbol. None is flat.
            fills: "assumed" trades the account by the rules, as a backtest does: a paper account. "reported" books what
                `live.on_fill` says, and interest and funding.
            features: own `Feature` objects among the policy's features, in order. Names suffice for built-in ones.
            changes: settings other than the policy's, as in `backtest`.

        Raises:
            ValueError: the history is too short, or does not fit the policy.
        """
        from jaxtrader.live.live import Live

        return Live.begin(self, history, account, fills, features, changes)

    def resume_live(
        self,
        path: str | PathLike[str],
        *,
        history: Bars | Sequence[Bars] | None = None,
        features: Sequence[str | Feature] | None = None,
        reward: Any = None,
    ) -> Live:
        """Go on with what `Live.save` wrote.

        Args:
            path: the file.
            history: bars that take the place of those in the file, up to its last one. Give them where past prices were
                adjusted anew: the account then holds as many units as are worth the same.
            features: see `live`.
            reward: the reward of the user's own, where decisions see its state.

        Raises:
            FileError: the file is not one of a live account, or is damaged.
            ValueError: it was saved with another policy.
        """
        from jaxtrader.live.live import Live

        return Live.resume(self, path, history, features, reward)

    def _act_on(self, observation: ArrayLike) -> float | np.ndarray:
        """Return the action of a policy of an ordinary environment."""
        seen = _numbers(observation, "the observation is no array of numbers")
        if not self.is_own:
            features, ndim = self.state.network.features, self.state.obs_ndim
            if seen.ndim != ndim or seen.size != features or not np.isfinite(seen).all():
                raise ValueError(
                    f"the observation has shape {seen.shape}, the policy needs {features} finite numbers in {ndim} "
                    "dimensions, as its environment shows them"
                )
        action = _select(self.acting_agent, self.state, jnp.asarray(seen)[None])[0]
        return int(action) if action.ndim == 0 else np.asarray(action)

    def export(self, path: str | PathLike[str], to: Format = "onnx", assets: int | None = None) -> Exported:
        """Write it as one function for other programs, and return what that takes and gives.

        See `jaxtrader.agents.export.export`.
        """
        from jaxtrader.agents.export import export

        return export(self, path, to, assets)

    def state_for(self, assets: int) -> PPOState | tuple[PPOState, ...]:
        """Return the state with which `agent` decides on so many assets."""
        if not self.portfolio or self.is_own:
            return self.state
        if isinstance(self.state, tuple):
            return tuple(state.for_assets(assets) for state in self.state)
        return self.state.for_assets(assets)

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
            return np.tile(np.asarray(self.untraded(), np.float32), (assets, 1))
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
        check_market_type(market, "a policy")
        wrong = [name for name in changes if name not in CHANGES]
        if wrong:
            raise ValueError(
                f"{setting(wrong[0])} belongs to the policy and cannot be changed; change one of {', '.join(CHANGES)}"
            )
        if tuple(market.feature_names) != self.features:
            raise ValueError(
                f"the policy was trained on the features {', '.join(self.features)}, the market has "
                f"{', '.join(market.feature_names)}; build it with "
                f"`Market.from_bars(bars, features={list(self.features)})`"
            )
        rules = changes.get("rules", self.rules)
        check_rules(rules)
        if rules.max_leverage != self.rules.max_leverage:
            raise ValueError(
                f"{setting('max_leverage', rules.max_leverage)} cannot replace "
                f"{setting('max_leverage', self.rules.max_leverage)}, in units of which the policy acts; use "
                "`policy.rules.replace(...)`"
            )
        assets = market.close.shape[1]
        if assets > 1 and not self.portfolio:
            raise ValueError(
                f"the policy trades one asset an account, the market has {assets} in one history; give the symbols as "
                "separate histories, or train on a market of several assets"
            )
        if self.is_own and assets != self.assets:
            raise ValueError(
                f"the policy of {type(self.members[0].agent).__name__} trades {self.assets} assets, and the market has "
                f"{assets}; give the same number"
            )
        settings: dict[str, Any] = dict(self._trained_in("env"))
        settings |= {"positions": self.positions, "rules": self.rules, "costs": self.costs}
        settings |= {"sees_best_price": self._sees_best_price}  # as it was trained, whatever stop it trades with now
        settings |= changes | {"reward": self._reward(changes.get("reward"))}
        if isinstance(self.agent, Ensemble) and min(self.agent.positions or (-1.0,)) >= 0:
            # The mean of long positions is long, so the margin of an environment with shorts does not concern it.
            settings["rules"] = rules.replace(maintenance_margin=rules.margin)
        return TradingEnv(market, **settings)

    def _reward(self, other: Any = None) -> Any:
        """Return the reward that it was trained for, or the other one where that shows the same of its state."""
        stored = self._trained_in("env")["reward"]
        if other is None:
            return rewards.from_dict(stored)
        shown, wanted = rewards.observed(other), rewards.observed_in(stored)
        if shown != wanted:
            raise ValueError(
                f"decisions see {', '.join(wanted) or 'nothing'} of the state of the reward {stored['name']}, and of "
                f"{other!r} {', '.join(shown) or 'nothing'}; give the reward that the policy was trained for"
            )
        return other

    def untraded(self) -> tuple[float, ...]:
        """Return the account features of an account that never traded, in the order of `account_names`.

        Raises ValueError where they show the state of a reward of the user's own, which the file does not hold.
        """
        stored = self._trained_in("env")["reward"]
        names = rewards.observed_in(stored)
        flat = (*FLAT, 0.0) if self._sees_best_price else FLAT
        if not names:
            return flat
        if stored.get("custom"):
            raise ValueError(
                f"the policy sees the {', '.join(names)} of its reward {stored['name']}, which the file does not hold; "
                f"give the account: {', '.join(self.account_names)}"
            )
        reward = self._reward()
        return (*flat, *np.asarray(reward.observe(reward.begin((), jnp.float32))).tolist())


def first_state(state: PPOState | tuple[PPOState, ...]) -> PPOState:
    """The state, or that of an ensemble's first member."""
    return state[0] if isinstance(state, tuple) else state


def _numbers(given: ArrayLike | Sequence[float], message: str) -> np.ndarray:
    try:
        return np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(message) from error


@jax.jit
def _select(agent: Any, state: Any, observations: jax.Array) -> jax.Array:
    """Return the policy's mode for observations `[batch, ...]` of an ordinary environment."""
    return agent.select_action(state, observations, jax.random.key(0), deterministic=True)[0]


def decide(agent: Any, state: Any, window: jax.Array, account: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the mode for raw windows `[batch, window, asset, feature]`, and what the agent tells of it."""
    context = jax.tree.map(lambda x: x[:, 0], agent.encode(state, normalized(state, window)))
    return agent.act(state, context, account, jax.random.key(0), deterministic=True)


_decide = jax.jit(decide)


def check_chosen(invalid: Any) -> None:
    """Raise ValueError where a policy chose an action, by its flag or flags, that its environment does not have."""
    if np.any(invalid):
        raise ValueError("the policy chose an action that its environment does not have; the policy file is damaged")


def normalized(state: Any, window: jax.Array) -> jax.Array:
    """Return raw windows `[*b, window, asset, feature]` as the agent sees them, whose state or states these are."""
    first = first_state(state)
    if isinstance(first, PPOState):
        return first.normalized(window)
    known = jnp.isfinite(window).all(-1, keepdims=True)
    normalizer = first.normalizer if isinstance(first, Normalized) else None
    # As `normalize` does with market arrays: 0 where an asset is not listed.
    return window if normalizer is None else jnp.where(known, normalizer(window), 0)
