"""The trading environment: a market and an account as pure state transitions, with gymnax 1.0's interface.

`move` trades accounts over one bar, for rollouts and backtests alike. `step` adds the look-up of the bar and the reset.
A `TradingEnv` is static configuration. Jitted functions get the market as the argument `params`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from jaxtrader.envs import actions, episode, rewards
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.envs.episode import EnvAccount, EnvParams, EnvState, MoveFn, Rows, Trajectory
from jaxtrader.envs.observation import Observation, account_names
from jaxtrader.envs.rewards import LogReturn, MoveReward, Reward
from jaxtrader.ledger import ledger, settlement
from jaxtrader.ledger.account import MAX_BARS_SINCE_FILL, Account, Brackets
from jaxtrader.ledger.bar import Bar, check_capital, check_market
from jaxtrader.ledger.costs import CostRange, Costs, check_costs
from jaxtrader.ledger.rules import BRACKETS, Rules, check_rules, default_band
from jaxtrader.market.lengths import round_length
from jaxtrader.market.market import Market, check_market_type
from jaxtrader.setting_checks import setting


@dataclass(frozen=True)
class TradingEnv(EnvSettings):
    """An environment that trades the histories of a `Market`, with one account over all assets of a history.

    The settings of `EnvSettings` are further keyword arguments. Two environments compare equal, and so compile once, if
    they differ in their market or costs only.

    Args:
        market: the bars to trade, which stay on the host.
        rules: how orders fill. They get a rebalance band, and a maintenance margin where the positions may be short,
            unless these are given. So `env.rules` has those in force.
        costs: what trading and holding cost. They are not free by default. `Costs.between` draws them for each episode.
        reward: a pure, hashable function of the equity before and after a bar, or a `MoveReward`.
        sees_best_price: whether a decision sees the return from the best price of its position, from which a trailing
            stop is measured. None: where there is a trailing stop.

    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> market = jt.Market.from_bars(jt.load_bundled("IBM"))
        >>> env = jt.TradingEnv(market, positions=(0, 0.5, 1), window=16, rules=jt.Rules(fill="next_close"))
        >>> env.num_actions, env.account_names
        (3, ('exposure', 'last target', 'unrealised return', 'bars since the last fill'))
    """

    market: Market = field(compare=False, repr=False)
    rules: Rules = Rules()  # noqa: RUF009  frozen
    costs: Costs | CostRange = field(default_factory=Costs, compare=False)
    reward: Reward | MoveReward = field(default_factory=LogReturn)
    sees_best_price: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_market_type(self.market, "TradingEnv")
        check_costs(self.costs)
        check_rules(self.rules)
        if not isinstance(self.sees_best_price, bool | None):
            raise ValueError(f"{setting('sees_best_price', self.sees_best_price)} must be True, False or None")
        super().__post_init__()
        rewards.validate(self.reward)
        positions = actions.validate_positions(self.positions, self.assets, self.rules.max_leverage)
        object.__setattr__(self, "positions", positions)
        if actions.may_be_short(positions):
            object.__setattr__(self, "rules", self.rules.with_short_margin())
        for name in BRACKETS:
            object.__setattr__(self, name, actions.validate_bracket(name, getattr(self, name), positions))
        object.__setattr__(self, "rules", self.rules.with_band(default_band(self.assets)))
        band = self.rules.rebalance_band
        assert band is not None
        if positions == "weights" and band * self.assets >= 1:
            raise ValueError(
                f"{setting('rebalance_band', band)} is an equal weight of {self.assets} assets or more, so that equal "
                f"weights would never be bought; use a smaller one, such as {0.2 / self.assets:.1g}"
            )
        # None says the same. Equal environments share their programs.
        if self.sees_best_price == (self.trailing_stop is not None):
            object.__setattr__(self, "sees_best_price", None)
        self.rules.check_brackets(vars(self))
        self.costs.validate()
        check_market(self.market, self.costs, self.rules)

    # --- for trainers and agents ---

    @property
    def name(self) -> str:
        """The environment's name."""
        return "TradingEnv"

    @property
    def assets(self) -> int:
        """The number of assets under one account."""
        return self.market.close.shape[1]

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or of numbers in a continuous action."""
        return len(self.positions) if isinstance(self.positions, tuple) else self.assets

    @property
    def has_brackets(self) -> bool:
        """Whether any position has a stop-loss, a take-profit or a trailing stop, or its best price is seen."""
        return self.shows_best_price or any(getattr(self, name) is not None for name in BRACKETS)

    @property
    def shows_best_price(self) -> bool:
        """Whether a decision sees the return from the best price, see `sees_best_price`."""
        return self.trailing_stop is not None if self.sees_best_price is None else self.sees_best_price

    @property
    def account_names(self) -> tuple[str, ...]:
        """Names of the account features: ACCOUNT_FEATURES, BEST_PRICE, and the observed state of the reward."""
        return account_names(self.shows_best_price, rewards.observed(self.reward))

    @property
    def default_params(self) -> EnvParams:
        """The market on the device and the costs, in float32. Each call copies them, so keep the result."""
        return self.params("float32")

    def params(self, dtype: str = "float32", rows: int | None = None) -> EnvParams:
        """Return `default_params` in another dtype, or with more rows, see `Market.arrays`."""
        further = (*self.costs.columns.values(), *(() if self.rules.dividends is None else (self.rules.dividends,)))
        arrays = self.market.arrays(dtype, rows, further)
        return EnvParams(arrays=arrays, costs=self.costs.cast(dtype))

    def rounded_params(self, dtype: str = "float32") -> EnvParams:
        """Return the parameters with a round number of rows, so that a market that has grown compiles nothing."""
        return self.params(dtype, round_length(len(self.market.times)))

    def with_market(self, market: Market) -> TradingEnv:
        """Return the same environment over another market. Arrays of the same shapes compile nothing anew.

        Raises ValueError where it has other features, or another number of assets in a history.
        """
        check_market_type(market, "TradingEnv")
        if (assets := market.close.shape[1]) != self.assets:
            raise ValueError(f"the markets have {self.assets} and {assets} assets in one history; give the same number")
        if market.feature_names != self.market.feature_names:
            raise ValueError(
                f"the markets have different features: {', '.join(self.market.feature_names)} and "
                f"{', '.join(market.feature_names)}; build both with the same features, in the same order"
            )
        return dataclasses.replace(self, market=market)

    def action_space(self, params: EnvParams | None = None) -> Any:
        """Return gymnax's Discrete over the positions, or its Box `[A]` of exposures or weights."""
        from jaxtrader.envs import spaces  # imported here, since it takes 4 s

        return spaces.action_space(self.positions, self.assets, self.rules.max_leverage)

    def observation_space(self, params: EnvParams) -> Any:
        """Return gymnax's Box of an `Observation` as a flat array. Its `spaces` are those of window and account."""
        from jaxtrader.envs import spaces  # imported here, since it takes 4 s

        _, assets, features = params.arrays.features.shape
        seen = len(self.account_names) + (self.tradable(params, jnp.zeros((), jnp.int32)) is not None)
        return spaces.ObservationSpace((self.window, assets, features), (assets, seen))

    def bars_for(self, decisions: int) -> int:
        """Return how many bars it takes to make so many decisions and to fill their delayed orders."""
        return self.bars_to_trade(decisions, self.rules.delay)

    def check_room(self, decisions: int) -> None:
        """Raise ValueError unless a segment has bars for so many decisions, and the capital is enough for an order."""
        first, (_, _, end) = self.market.first_decisions(self.window), self.market.segments.T
        longest = int((end - first).max())
        needed = self.bars_for(decisions)
        if longest <= needed:
            raise ValueError(
                f"every history has too few bars: after {self.market.lookback - 1} for the features' look-back and "
                f"{self.window} for the window, {max(longest - 1, 0)} bars at most can be traded and {needed} are "
                "needed; use more bars, a shorter window or rollout, a smaller `decision_every`, or features with a "
                "shorter look-back"
            )
        exposure = max(map(abs, self.positions)) if isinstance(self.positions, tuple) else self.rules.max_leverage
        exposure = min(exposure, 1.0) if self.positions == "weights" else exposure
        check_capital(self.market, self.rules, exposure, first)

    @property
    def bars_needed(self) -> str:
        """The bars that the first decision and its fill need, in words."""
        return f"{self.market.lookback - 1 + self.window} of history + {self.bars_for(1)}"

    def symbols_without_room(self, decisions: int) -> tuple[str, ...]:
        """Return the symbols whose histories are too short for so many decisions, so that no episode starts there."""
        bars, needed = self.market.segments[:, 2] - self.market.first_decisions(self.window), self.bars_for(decisions)
        return tuple(symbol for symbol, count in zip(self.market.symbols, bars, strict=True) if count <= needed)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration without the market as plain data, for a policy file."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "market"}
        plain = {name: list(x) if isinstance(x, tuple) else x for name, x in fields.items()}
        rules = self.rules
        if rules.rebalance_band == default_band(self.assets):  # a portfolio of other assets gets that of their number
            rules = rules.replace(rebalance_band=None)
        parts = {"rules": rules.to_dict(), "costs": self.costs.to_dict(), "reward": rewards.to_dict(self.reward)}
        # Older files lack the key, and their policies do not see the best price.
        plain.pop("sees_best_price")
        return plain | parts | ({"sees_best_price": True} if self.shows_best_price else {})

    # --- accounts over bars ---

    def move(
        self,
        account: EnvAccount,
        action: Array,
        bar: Bar,
        params: EnvParams,
        tradable: Bool[Array, "*b A"] | None = None,
    ) -> tuple[EnvAccount, Trajectory]:
        """Trade accounts over one bar, from close[t] to close[t+1].

        Actions are indices into `positions` `[*b]`, or exposures or weights `[*b, A]`. An invalid action holds the
        units. Of `params` only the costs are read. `tradable` is the mask at close[t], see the method of that name.

        Returns the accounts, and the trajectory of the bar. Ruined accounts stay frozen until `restart`.
        """
        assets, dtype = account.units.shape[-1], account.cash.dtype
        target, invalid = actions.targets(self.positions, action, assets, dtype, self.rules.max_leverage, tradable)
        brackets, costs = self.brackets(action, account.units.shape, dtype), account.effective_costs(params)
        at_close, after, events = ledger.step_from_close(account, target, bar, costs, self.rules, brackets)
        assert events.order is not None
        figures = {
            "turnover": functools.reduce(jnp.add, [settlement.turnover(fill, account.equity) for fill in events.fills]),
            "cost": functools.reduce(jnp.add, [(fill.fee + fill.slippage).sum(-1) for fill in events.fills]),
            "financing": jnp.zeros_like(account.cash) if events.financing is None else events.financing,
            "fills": jnp.any(events.order.units != 0, -1),
            "clipped": events.order.clipped,
            "dropped": events.order.dropped,
        }
        if events.order.unmet is not None:
            figures["unmet"] = events.order.unmet
        after, reward = self.rewarded(account, after, bar)
        return after, Trajectory(at_close, target, events, brackets, reward, after.ruined, invalid, figures)

    def rewarded(self, before: EnvAccount, after: Account, bar: Bar) -> tuple[EnvAccount, Float[Array, "*b"]]:
        """Return accounts after a bar with the state of the reward, and the rewards of the bar."""
        if isinstance(self.reward, MoveReward):
            reward, state = self.reward(rewards.Move(before, after, bar), before.reward_state)
            after = after.replace(reward_state=state)
        else:
            reward = self.reward(before.equity, after.equity)
        return cast(EnvAccount, after), jnp.where(before.ruined, 0, reward)

    def move_function(self, params: EnvParams) -> MoveFn:
        """Return `move` in the form that `episode.run` takes."""
        return lambda account, action, bar, tradable: self.move(account, action, bar, params, tradable)

    def advance(
        self,
        account: EnvAccount,
        action: Array,
        bars: Bar,
        params: EnvParams,
        tradable: Bool[Array, "*b A"] | None = None,
    ) -> tuple[EnvAccount, Float[Array, "*b"], Bool[Array, "*b"], dict[str, Array]]:
        """Trade accounts over the bars up to the next decision. Several bars are on the first axis of `bars`.

        Returns the accounts at the next decision, the rewards, whether ruin ended the accounts, and `info`. It holds
        the `target` `[*b, A]`, and the sums `turnover`, `cost` and `financing` over the bars. The flags `fills`,
        `clipped`, `dropped` and `invalid_action` are set if they were set at any bar. With limit orders there is
        `unmet` too, for one that did not fill.
        """
        row = Rows(bars=bars, tradable=tradable)
        after, trajectory = episode.run_decision(self.move_function(params), account, action, row, self.decision_every)
        return after, *self.summarize(trajectory)

    def summarize(self, trajectory: Trajectory) -> tuple[Float[Array, "*b"], Bool[Array, "*b"], dict[str, Array]]:
        """Return the reward, whether the account is ruined, and `info` of one decision, from those of its bars."""
        assert trajectory.figures is not None
        info: Any = {**trajectory.figures, "invalid_action": trajectory.invalid, "reward": trajectory.reward}
        target: Any = trajectory.target
        terminated: Any = trajectory.terminated
        if self.decision_every > 1:
            info = {name: x.any(0) if x.dtype == bool else x.sum(0) for name, x in info.items()}
            target, terminated = target[0], terminated[-1]
        return info.pop("reward"), terminated, {**info, "target": target}

    def brackets(self, action: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Brackets | None:
        """Return the brackets of actions, broadcastable to `shape` `[*b, A]`. None: no position has any."""
        if not self.has_brackets:
            return None
        given = {name: getattr(self, name) for name in BRACKETS}
        if self.shows_best_price and self.trailing_stop is None:
            given["trailing_stop"] = math.inf  # the account keeps the best price, and no stop is ever met
        return Brackets(**{name: actions.bracket_fractions(x, action, shape, dtype) for name, x in given.items()})

    def open_account(
        self,
        exposure: Float[Array, "*b A"],
        price: Float[Array, "*b A"],
        costs: Costs | None = None,
        *,
        financing: bool = False,
    ) -> EnvAccount:
        """Open accounts with the state of the reward and the costs of the episode, see `ledger.open_account`."""
        trailing = self.trailing_stop is not None or self.shows_best_price
        optional = {"brackets": self.has_brackets, "trailing": trailing}
        account = ledger.open_account(exposure, price, self.rules, **optional, financing=financing)
        state = None
        if isinstance(self.reward, MoveReward):
            state = self.reward.begin(account.equity.shape, account.equity.dtype)
        return EnvAccount(**vars(account), reward_state=state, costs=costs)

    def restart(self, account: EnvAccount, ruined: Bool[Array, "*b"]) -> EnvAccount:
        """Open ruined accounts again where they are: flat, with the initial capital and the costs that they had.

        Rollouts use it on market paths, where the other accounts of a path are not ruined.
        """
        financing = account.interest_residual is not None
        nothing, price = jnp.zeros_like(account.units), jnp.ones_like(account.units)
        return episode.select(ruined, self.open_account(nothing, price, account.costs, financing=financing), account)

    def account_features(
        self,
        account: EnvAccount,
        price: Float[Array, "*b A"],
        volatility: Float[Array, "*b A"],
        tradable: Bool[Array, "*b A"] | None = None,
    ) -> Float[Array, "*b A K"]:
        """Return the features of an account that a decision sees, in the order of `account_names`, all bounded.

        Exposure and last target are in units of max_leverage where it is above 1. The return since entry has the sign
        of the position, and is in units of 20-bar volatility x sqrt(20). Bars since the last fill are a share of their
        maximum. The return from the best price is in the units of that since entry, and at most 0. The observed state
        of the reward is the same for all assets. TRADABLE is last, where it is given. The cursor, the age and the level
        of equity stay hidden, since an agent would learn the calendar from them.
        """
        full = self.rules.full_exposure

        def return_since(mark: Array) -> Array:
            gain = jnp.sign(account.units) * (price / jnp.where(mark > 0, mark, price) - 1)
            return gain / (volatility * math.sqrt(20))

        parts = (
            jnp.clip(ledger.exposure(account, price) / full, -2, 2),
            ledger.latest_target(account) / full,
            jnp.clip(return_since(account.entry), -5, 5),
            account.bars_since_fill / MAX_BARS_SINCE_FILL,
        )
        if self.shows_best_price:
            assert account.best is not None
            parts += (jnp.clip(return_since(account.best), -5, 0),)
        shape = jnp.broadcast_shapes(account.units.shape, price.shape)
        if rewards.observed(self.reward):
            seen = cast(MoveReward, self.reward).observe(account.reward_state)
            parts += tuple(seen[..., None, i] for i in range(seen.shape[-1]))
        parts = parts if tradable is None else (*parts, tradable)
        return jnp.stack([jnp.broadcast_to(p, shape).astype(jnp.float32) for p in parts], -1)

    def open_accounts(
        self,
        key: PRNGKeyArray,
        price: Float[Array, "*b A"],
        params: EnvParams,
        batch: tuple[int, ...] = (),
        holdable: Bool[Array, "*b A"] | None = None,
    ) -> EnvAccount:
        """Open accounts for a batch of episodes, at random exposures, or flat where `random_start` is off.

        They hold nothing of an asset that is not `holdable`. Where costs are a range, each account draws its own.
        """
        assets, dtype, leverage = price.shape[-1], price.dtype, self.rules.max_leverage
        exposure = jnp.zeros((*batch, assets), dtype)
        if self.random_start:
            exposure = actions.draw(self.positions, key, batch, assets, dtype, leverage, holdable)
            # The barrier makes XLA draw the exposure once, and not again for each field of the account.
            exposure = jax.lax.optimization_barrier(exposure)
        costs = params.costs.draw(jax.random.fold_in(key, 1), batch) if isinstance(params.costs, CostRange) else None
        return self.open_account(exposure, price, costs, financing=params.has_financing)

    def tradable(self, params: EnvParams, cursor: Int[Array, "*b"]) -> Bool[Array, "*b A"] | None:
        """Return which assets of a portfolio can be ordered at the cursor: those that are listed and have a bar there.

        Units of all others are held. None: all assets always can, or there is only one.
        """
        masks = [mask[cursor] for mask in (params.arrays.present, params.arrays.listed) if mask is not None]
        return functools.reduce(jnp.logical_and, masks) if masks and masks[0].shape[-1] > 1 else None

    def holdable(self, params: EnvParams, cursor: Int[Array, "*b"]) -> Bool[Array, "*b A"] | None:
        """Return which assets an episode may hold at its start: those tradable ones that the bar does not close.

        A bar closes an asset that is delisted, and all assets at a session's end if the rules say so. None: all.
        """
        masks = [mask for mask in (self.tradable(params, cursor),) if mask is not None]
        if params.arrays.delisted is not None:
            masks.append(~params.arrays.delisted[cursor])
        if self.rules.flat_at_session_end:
            assert params.arrays.session_end is not None  # see `check_market`
            masks.append(~params.arrays.session_end[cursor][..., None])
        return functools.reduce(jnp.logical_and, masks) if masks else None

    # --- gymnax 1.0 ---

    def reset(self, key: PRNGKeyArray, params: EnvParams | None = None) -> tuple[Observation, EnvState]:
        """Begin an episode at a random bar. Raises ValueError without params."""
        return self.reset_env(key, _require_params(params))

    def reset_env(self, key: PRNGKeyArray, params: EnvParams) -> tuple[Observation, EnvState]:
        """Begin an episode at a random bar, by gymnax's name for a reset with params."""
        cursor, end = jax.lax.optimization_barrier(episode.draw_starts(self, key, params))  # as in `open_accounts`
        holdable = self.holdable(params, cursor)
        account = self.open_accounts(key, params.arrays.close[cursor], params, holdable=holdable)
        state = EnvState(account=account, cursor=cursor, end=end, time=jnp.zeros((), jnp.int32))
        return self.observe(key, state, None, params), state

    def step(
        self, key: PRNGKeyArray, state: EnvState, action: Array, params: EnvParams | None = None
    ) -> tuple[Observation, EnvState, Array, Array, Array, dict[str, Any]]:
        """Take one decision with auto-reset, and return (obs, state, reward, terminated, truncated, info).

        An episode ends by ruin (`terminated`) or by `episode.is_truncated`. A new one then begins at a random bar, as
        `reset` begins it. `info["final_observation"]` is the observation before that.

        Raises ValueError without params.
        """
        params, action = _require_params(params), jnp.asarray(action)
        final, state, reward, terminated, info = self.step_env(key, state, action, params)
        truncated = self.is_truncated(state, params)
        _, fresh = self.reset_env(key, params)
        state = episode.select(terminated | truncated, fresh, state)
        obs = self.observe(key, state, action, params)  # after the selection, so that only one window is looked up
        info = {**info, "terminated": terminated, "truncated": truncated, "final_observation": final}
        return obs, state, reward, terminated, truncated, info

    def step_env(
        self, key: PRNGKeyArray, state: EnvState, action: Array, params: EnvParams
    ) -> tuple[Observation, EnvState, Array, Array, dict[str, Any]]:
        """Take one decision without reset, and return (obs, state, reward, terminated, info)."""
        row = jax.tree.map(lambda x: x[0], episode.rows_ahead(self, params, state.cursor, 1))
        account, reward, terminated, info = self.advance(state.account, action, row.bars, params, row.tradable)
        every = self.decision_every
        state = state.replace(account=account, cursor=state.cursor + every, time=state.time + every)
        return self.observe(key, state, action, params), state, reward, terminated, info

    def is_terminated(self, state: EnvState, params: EnvParams) -> Bool[Array, "*b"]:
        """Return whether the account is ruined."""
        return state.account.ruined

    def is_truncated(self, state: EnvState, params: EnvParams) -> Bool[Array, "*b"]:
        """Return whether the episode is truncated, see `episode.is_truncated`."""
        return episode.is_truncated(self, state.time, state.cursor, state.end)

    def observe(
        self, key: PRNGKeyArray | None, state: EnvState, action: Array | None, params: EnvParams
    ) -> Observation:
        """Return the window that ends at the cursor, and the account. `key` and `action` are not used."""
        start = state.cursor - self.window + 1
        window = jax.lax.dynamic_slice_in_dim(params.arrays.features, start, self.window)
        account = self.account_features(state.account, **episode.market_at(self, params, state.cursor))
        return Observation(window=window, account=account)


def _require_params(params: EnvParams | None) -> EnvParams:
    if params is None:
        raise ValueError(
            "TradingEnv.step and reset need params; call `env.default_params` once, keep the result, and pass it as "
            "`params=env.default_params`"
        )
    return params
