"""TradingEnv: the market of a `Market` and the account of `ledger.py` as pure state transitions, in gymnax 1.0's shape.

`advance` moves accounts over one bar that the caller looked up; `step` is `advance` plus that look-up and auto-reset.
Lanes (training/rollout.py) and backtests call the same `advance`. The environment object is static configuration: it
hashes and compares by it, and the market data travel as the argument `params`, never as an attribute of a traced self.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from jaxtrader.envs import bars, draws, fills, ledger, rewards
from jaxtrader.envs import positions as actions
from jaxtrader.envs.account import Account, Bar, Brackets
from jaxtrader.envs.costs import CostRange, Costs
from jaxtrader.envs.positions import Bracket, Positions
from jaxtrader.envs.rewards import LogReturn, Move, MoveReward, Reward
from jaxtrader.envs.rules import RULE_NAMES, Rules
from jaxtrader.envs.state import ACCOUNT_FEATURES, EnvParams, EnvState, Observation, Trader, select, terms_of
from jaxtrader.market.market import Market


@dataclass(frozen=True)
class TradingEnv:
    """An environment that trades a `Market`, many histories in turn: one asset of each, or A assets with one account.

    Args:
        market: the bars to train on. Kept on the host; only `default_params` and the checks read it.
        positions: the target exposures that the discrete actions stand for, within max_leverage, of one asset; or
            "continuous" for an exposure anywhere in [-max_leverage, max_leverage] per asset, or "weights" for long-only
            weights that sum to at most 1, with the remainder in cash.
        window: bars that a decision sees, ending at the cursor.
        episode_length: bars after which an episode is truncated.
        costs: what trading and holding cost. Not free by default. `Costs.between` draws them anew for each episode.
        reward: a pure, hashable function of two marks, or a `MoveReward`; see `jaxtrader.rewards`.
        stop_loss: fraction (below 1) of the entry price against a position at which it is closed within the bar; one
            for all, or with discrete positions one (or None) for each of them.
        take_profit: likewise in its favour.
        fill, rebalance_band, rebalance, ruin_level, max_leverage, maintenance_margin, delay, capital, lot, min_trade,
            volume_cap, delist_return, flat_at_session_end: the rules of the ledger, see `Rules`.
        decision_every: bars between two decisions; what one asks for is asked for again at each bar until the next. A
            step of the environment is a decision.
        random_start: episodes start at a random exposure (so that every state of the account is seen), else flat; flat
            too in what the bar of the start closes: at a session's end, if that is a rule, and at an asset's last bar.

    Raises:
        ValueError: where a setting is out of range.
    """

    market: Market = field(compare=False, repr=False)
    positions: Positions = (-1.0, 0.0, 1.0)
    window: int = 32
    episode_length: int = 256
    costs: Costs | CostRange = field(default_factory=Costs, compare=False)
    reward: Reward | MoveReward = field(default_factory=LogReturn)
    fill: ledger.Fills = "next_open"
    rebalance_band: float = 0.05
    rebalance: ledger.Rebalance = "always"
    ruin_level: float = 0.01
    max_leverage: float = 1.0
    maintenance_margin: float | None = None
    delay: int = 0
    capital: float | None = None
    lot: float | None = None
    min_trade: float | None = None
    volume_cap: float | None = None
    delist_return: float = 0.0
    flat_at_session_end: bool = False
    decision_every: int = 1
    stop_loss: Bracket = None
    take_profit: Bracket = None
    random_start: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.market, Market):
            raise ValueError(
                f"TradingEnv needs a Market, not a {type(self.market).__name__}; make one with Market.from_bars(bars)"
            )
        if not isinstance(self.costs, Costs | CostRange):
            raise ValueError(f"costs {self.costs!r} must be Costs(fee=..., slippage=...)")
        rewards.checked(self.reward)
        rules = self.rules  # which checks its own
        object.__setattr__(
            self, "positions", actions.checked(self.positions, self.market.close.shape[1], self.max_leverage)
        )
        for name in ("window", "episode_length", "decision_every"):
            count = getattr(self, name)
            if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
                raise ValueError(f"{name} {count} must be a whole number of bars, at least 1")
        if not isinstance(self.random_start, bool):
            raise ValueError(f"random_start {self.random_start!r} must be True or False")
        if self.episode_length % self.decision_every:
            raise ValueError(
                f"decision_every {self.decision_every} does not divide episode_length {self.episode_length}; both are "
                "in bars"
            )
        for name in ("stop_loss", "take_profit"):
            object.__setattr__(self, name, actions.checked_bracket(name, getattr(self, name), self.positions))
        assets = self.market.close.shape[1]
        if self.positions == "weights" and self.rebalance_band * assets >= 1:
            raise ValueError(
                f"rebalance_band {self.rebalance_band:g} is an equal weight of {assets} assets or more, so that equal "
                f"weights would never be bought; use a smaller one, such as {0.2 / assets:.1g}"
            )
        self.costs.validate()
        bars.check(self.market, self.costs, rules)

    # --- what the trainer and the agent ask ---

    @property
    def name(self) -> str:
        """The environment's name."""
        return "TradingEnv"

    @property
    def num_actions(self) -> int:
        """The number of discrete actions, or the numbers in a continuous one: one an asset."""
        return len(self.positions) if isinstance(self.positions, tuple) else self.market.close.shape[1]

    @property
    def rules(self) -> Rules:
        """The ledger's rules."""
        stops = self.stop_loss is not None or self.take_profit is not None
        return Rules(**{name: getattr(self, name) for name in RULE_NAMES}, stops=stops)

    @property
    def account_names(self) -> tuple[str, ...]:
        """What an account's features are: ACCOUNT_FEATURES, and what the agent sees of its reward's state."""
        return ACCOUNT_FEATURES + rewards.observed(self.reward)

    @property
    def default_params(self) -> EnvParams:
        """The market on the device and the costs, in float32. Built anew at each call: keep what you get."""
        return self.params("float32")

    def params(self, dtype: str = "float32") -> EnvParams:
        """`default_params` in the given dtype ("float64" needs JAX's x64 mode)."""
        return EnvParams(tape=self.market.tape(dtype), costs=self.costs.cast(dtype))

    def with_market(self, market: Market) -> TradingEnv:
        """The same environment over other bars; it compares equal, so nothing compiles anew for the same shapes.

        Raises ValueError where the other market has other features, which a network would read in the wrong places, or
        another number of assets in a history.
        """
        if not isinstance(market, Market):
            raise ValueError(f"an environment needs a Market, not a {type(market).__name__}")
        assets = self.market.close.shape[1]
        if market.close.shape[1] != assets:
            raise ValueError(
                f"the markets have {assets} and {market.close.shape[1]} assets in one history; give the same number"
            )
        if market.feature_names != self.market.feature_names:
            raise ValueError(
                f"the markets have different features: {', '.join(self.market.feature_names)} and "
                f"{', '.join(market.feature_names)}; build both with the same features, in the same order"
            )
        return dataclasses.replace(self, market=market)

    def action_space(self, params: EnvParams | None = None) -> Any:
        """gymnax's Discrete over the positions, or its Box `[A]` of exposures or weights."""
        return actions.space(self.positions, self.market.close.shape[1], self.max_leverage)

    def observation_space(self, params: EnvParams) -> Any:
        """gymnax's Dict of the window and the account."""
        from gymnax.environments import spaces  # 4 s to import: only where it is used

        _, assets, features = params.tape.features.shape
        bound = float(jnp.finfo(jnp.float32).max)
        seen = len(self.account_names) + (self.tradable(params, jnp.zeros((), jnp.int32)) is not None)
        return spaces.Dict(
            {
                "window": spaces.Box(-bound, bound, (self.window, assets, features)),
                "account": spaces.Box(-bound, bound, (assets, seen)),
            }
        )

    def check_room(self, room: int) -> None:
        """Raise ValueError unless some segment has a window, the look-back, bars for `room` decisions and the delay.

        Also where the capital is too small for any order (`bars.check_size`): training would be in vain.
        """
        first, (_, _, end) = self.market.first_cursors(self.window), self.market.segments.T
        longest = int((end - first).max())
        room = room * self.decision_every + self.delay
        if longest <= room:
            raise ValueError(
                f"every history has too few bars: after {self.market.lookback - 1} for the features' look-back and "
                f"{self.window} for the window, {max(longest - 1, 0)} bars at most can be traded and {room} are "
                "needed; use more bars, a shorter window or rollout, or features with a shorter look-back"
            )
        asked = max(map(abs, self.positions)) if isinstance(self.positions, tuple) else self.max_leverage
        exposure = min(asked, 1.0) if self.positions == "weights" else asked
        bars.check_size(self.market, self.rules, exposure, first)

    @property
    def bars_needed(self) -> str:
        """How many bars the first decision and its fill take, in words."""
        return f"{self.market.lookback - 1 + self.window} of history + {self.decision_every + self.delay}"

    def symbols_without_room(self, room: int) -> tuple[str, ...]:
        """Symbols whose histories are too short for `room` decisions: no start is ever drawn in them."""
        spare = self.market.segments[:, 2] - self.market.first_cursors(self.window) - self.delay
        room *= self.decision_every
        return tuple(symbol for symbol, left in zip(self.market.symbols, spare, strict=True) if left <= room)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data, costs included and market left out: what a policy file stores."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "market"}
        plain = {name: list(x) if isinstance(x, tuple) else x for name, x in fields.items()}
        return {**plain, "costs": self.costs.to_dict(), "reward": rewards.to_dict(self.reward)}

    # --- one account over one bar ---

    def advance(
        self,
        account: Account,
        action: Array,
        bar: Bar,
        params: EnvParams,
        tradable: Bool[Array, "*b A"] | None = None,
    ) -> tuple[Account, Float[Array, "*b"], Bool[Array, "*b"], dict[str, Array]]:
        """Trade and mark accounts over one bar.

        Args:
            account: the accounts at close[t].
            action: index into `positions`, `[*b]`, or exposures or weights, `[*b, asset]`. One that is out of range or
                not finite holds the units and sets `info["invalid_action"]`.
            bar: the prices of the move, `[*b, asset]`.
            params: for its costs; the tape is not read.
            tradable: see the method of that name, at close[t]; the units of other assets are held.

        Returns:
            The accounts at close[t+1], the rewards, whether ruin ended them (they are frozen: see `restart`), and
            `info` with the `target` `[*b, asset]`, `turnover` and `cost` of all that was traded, whether the order
            `fills`, and the flags `clipped`, `dropped`, `invalid_action`.
        """
        before, assets = account, account.units.shape[-1]
        target, invalid = actions.targets(
            self.positions, action, assets, account.cash.dtype, self.max_leverage, tradable
        )
        brackets = self.brackets(action, account.units.shape, account.cash.dtype)
        account, events = ledger.step(account, target, bar, terms_of(account, params), self.rules, brackets)
        order = events.order
        assert order is not None
        info = {
            "target": target,
            "turnover": _total(fills.turnover(fill, before.equity) for fill in events.fills),
            "cost": _total((fill.fee + fill.slippage).sum(-1) for fill in events.fills),
            "carry": jnp.zeros_like(account.cash) if events.carry is None else events.carry,
            "fills": jnp.any(order.units != 0, -1),
            "clipped": order.clipped,
            "dropped": order.dropped,
            "invalid_action": invalid,
        }
        account, reward = self._pay(before, account, bar)
        return account, reward, account.ruined, info

    def hold(
        self,
        account: Account,
        action: Array,
        moves: Bar,
        params: EnvParams,
        tradable: Bool[Array, "*b A"] | None = None,
    ) -> tuple[Account, Float[Array, "*b"], Bool[Array, "*b"], dict[str, Array]]:
        """`advance` over all bars up to the next decision; those of `moves` lie on a first axis where they are several.

        Rewards, turnover and costs are sums over the bars; a flag is set where it was at one of them. After ruin
        nothing more is paid.
        """
        if self.decision_every == 1:
            return self.advance(account, action, moves, params, tradable)

        def bar(account: Account, move: Bar) -> tuple[Account, Any]:
            gone = account.ruined
            account, reward, _, info = self.advance(account, action, move, params, tradable)
            return account, (jnp.where(gone, 0, reward), info)

        account, (reward, infos) = jax.lax.scan(bar, account, moves)
        info = {name: x.any(0) if x.dtype == bool else x.sum(0) for name, x in infos.items() if name != "target"}
        return account, reward.sum(0), account.ruined, {**info, "target": infos["target"][0]}

    def _pay(self, before: Account, after: Account, bar: Bar) -> tuple[Account, Float[Array, "*b"]]:
        """The reward of a move, and the account with the reward's state after it."""
        if not isinstance(self.reward, MoveReward):
            return after, self.reward(before.equity, after.equity)
        reward, memory = self.reward(Move(before, after, bar), getattr(before, "memory", None))
        return after if memory is None else cast(Trader, after).replace(memory=memory), reward

    def open_account(
        self,
        exposure: Float[Array, "*b A"],
        price: Float[Array, "*b A"],
        terms: Costs | None = None,
        *,
        carries: bool = False,
    ) -> Account:
        """`ledger.open_account`, as a `Trader` where the reward keeps a state or the episode has costs of its own."""
        account = ledger.open_account(exposure, price, self.rules, carries=carries)
        memory = None
        if isinstance(self.reward, MoveReward):
            memory = self.reward.begin(account.equity.shape, account.equity.dtype)
        return account if memory is None and terms is None else Trader(**vars(account), memory=memory, terms=terms)

    def brackets(self, action: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Brackets | None:
        """The stop-losses and take-profits that go with actions, broadcastable to `shape` `[*b, A]`; None: none."""
        if not self.rules.stops:
            return None
        stop, take = (actions.bracket(given, action, shape, dtype) for given in (self.stop_loss, self.take_profit))
        return Brackets(stop, take)

    def restart(self, account: Account, ruined: Bool[Array, "*b"]) -> Account:
        """Ruined accounts begin again: flat, with the initial capital, at the costs of their episode."""
        terms, carries = getattr(account, "terms", None), account.owed is not None
        flat = self.open_account(jnp.zeros_like(account.units), jnp.ones_like(account.units), terms, carries=carries)
        return select(ruined, flat, account)

    def account_features(
        self,
        account: Account,
        price: Float[Array, "*b A"],
        volatility: Float[Array, "*b A"],
        tradable: Bool[Array, "*b A"] | None = None,
    ) -> Float[Array, "*b A K"]:
        """What a decision may know of the account, in the order of `account_names`, all bounded.

        Exposure and last target, in units of max_leverage where that is above 1; the return since entry in units of a
        20-bar move (20-bar volatility times sqrt 20, sign of the position); bars since the last fill over their cap;
        then, the same for all assets, what the reward shows of its state; then TRADABLE, where it is given. Never the
        cursor, the age or the level of equity: the agent would learn the calendar, and a live account has none of them.
        """
        gain = jnp.sign(account.units) * (price / jnp.where(account.entry > 0, account.entry, price) - 1)
        full = max(self.max_leverage, 1)
        parts = (
            jnp.clip(ledger.exposure(account, price) / full, -2, 2),
            ledger.last_decided(account) / full,
            jnp.clip(gain / (volatility * math.sqrt(20)), -5, 5),
            account.held / ledger.HELD_CAP,
        )
        shape = jnp.broadcast_shapes(account.units.shape, price.shape)
        if rewards.observed(self.reward):
            seen = cast(MoveReward, self.reward).observe(cast(Trader, account).memory)
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
    ) -> Account:
        """New accounts for `batch` episodes: at a random position each, or flat where `random_start` is off.

        They hold nothing of an asset that is not `holdable`. Where costs are a range, each account gets its own.
        """
        exposure = jnp.zeros((*batch, price.shape[-1]), price.dtype)
        if self.random_start:
            exposure = actions.draw(
                self.positions, key, batch, price.shape[-1], price.dtype, self.max_leverage, holdable
            )
            exposure = jax.lax.optimization_barrier(exposure)  # else XLA draws it again for each field of the account
        terms = params.costs.draw(jax.random.fold_in(key, 1), batch) if isinstance(params.costs, CostRange) else None
        return self.open_account(exposure, price, terms, carries=params.carries)

    # --- where on the tape ---

    def draw_starts(
        self, key: PRNGKeyArray, params: EnvParams, room: int = 1, batch: tuple[int, ...] = ()
    ) -> tuple[Int[Array, "*b"], Int[Array, "*b"]]:
        """Random cursors, and the ends of their segments: uniform over all bars that have room for `room` decisions.

        Segments so weigh by their length. What is uniform is the start: a bar within `room` of either end of its
        history lies in fewer of these stretches, so it is visited less often than one in the middle.
        """
        first = self._first_cursors(params)
        end = params.tape.segments[:, 2]
        counts = jnp.maximum(end - room * self.decision_every - self.delay - first, 0)
        total = jnp.cumsum(counts)
        drawn = draws.integers(key, batch, total[-1], draws.PLACE)
        segment = jnp.searchsorted(total, drawn, side="right")
        offset = drawn - (total - counts)[segment]
        return first[segment] + offset, end[segment]

    def bars_after(self, cursor: Int[Array, "*b"], params: EnvParams) -> Bar:
        """The bars from close[cursor] to the next decision's, as `hold` takes them."""
        found = bars.columns(params.tape, params.costs, self.rules)
        if self.decision_every > 1:
            cursor = cursor + jnp.arange(self.decision_every).reshape(-1, *(1,) * jnp.ndim(cursor))
        return bars.between(bars.take(found, cursor), bars.take(found, cursor + 1), self.rules)

    def tradable(self, params: EnvParams, cursor: Int[Array, "*b"]) -> Bool[Array, "*b A"] | None:
        """Which assets of a portfolio can be decided on at the cursor: listed, and with a bar there.

        The others (not yet or no longer listed, or without a bar just now) are held as they are and not ordered. None
        where all always can, and for one asset.
        """
        masks = [mask[cursor] for mask in (params.tape.present, params.tape.listed) if mask is not None]
        return functools.reduce(jnp.logical_and, masks) if masks and masks[0].shape[-1] > 1 else None

    def holdable(self, params: EnvParams, cursor: Int[Array, "*b"]) -> Bool[Array, "*b A"] | None:
        """Which assets an episode may begin with at the cursor: the tradable ones that its bar does not close.

        After its last bar an asset is never sold, and at a session's end all is flat where that is a rule. None: all.
        """
        masks = [mask for mask in (self.tradable(params, cursor),) if mask is not None]
        if params.tape.delisted is not None:
            masks.append(~params.tape.delisted[cursor])
        if self.flat_at_session_end:
            assert params.tape.session_end is not None  # see `bars.check`
            masks.append(~params.tape.session_end[cursor][..., None])
        return functools.reduce(jnp.logical_and, masks) if masks else None

    def _first_cursors(self, params: EnvParams) -> Int[Array, "S"]:
        return jnp.maximum(params.tape.segments[:, 1], params.tape.ready + self.window - 1)

    # --- gymnax 1.0 ---

    def reset(self, key: PRNGKeyArray, params: EnvParams | None = None) -> tuple[Observation, EnvState]:
        """Begin an episode at a random bar. Raises ValueError without params."""
        return self.reset_env(key, _required(params))

    def step(
        self, key: PRNGKeyArray, state: EnvState, action: Array, params: EnvParams | None = None
    ) -> tuple[Observation, EnvState, Array, Array, Array, dict[str, Any]]:
        """One decision with auto-reset: (obs, state, reward, terminated, truncated, info).

        `info["final_observation"]` is the observation before any restart. After ruin (terminated) the account begins
        anew, flat, at the next bar, while cursor and age go on; at the time limit or the segment's end (truncated) a
        new episode starts.
        Raises ValueError without params.
        """
        params = _required(params)
        final, state, reward, terminated, info = self.step_env(key, state, action, params)
        truncated = self.is_truncated(state, params)
        going_on = state.replace(account=self.restart(state.account, terminated))
        _, fresh = self.reset_env(key, params)
        state = select(truncated, fresh, going_on)
        obs = self.observe(key, state, action, params)  # of one state or the other: one look-up of a window, not two
        info = {**info, "terminated": terminated, "truncated": truncated, "final_observation": final}
        return obs, state, reward, terminated, truncated, info

    def reset_env(self, key: PRNGKeyArray, params: EnvParams) -> tuple[Observation, EnvState]:
        """Begin an episode at a random bar."""
        cursor, end = jax.lax.optimization_barrier(self.draw_starts(key, params))  # likewise drawn once
        holdable = self.holdable(params, cursor)
        account = self.open_accounts(key, params.tape.close[cursor], params, holdable=holdable)
        state = EnvState(account=account, cursor=cursor, end=end, time=jnp.zeros((), jnp.int32))
        return self.observe(key, state, None, params), state

    def step_env(
        self, key: PRNGKeyArray, state: EnvState, action: Array, params: EnvParams
    ) -> tuple[Observation, EnvState, Array, Array, dict[str, Any]]:
        """One decision without reset: (obs, state, reward, terminated, info)."""
        moves = self.bars_after(state.cursor, params)
        listed = self.tradable(params, state.cursor)
        account, reward, terminated, info = self.hold(state.account, action, moves, params, listed)
        passed = self.decision_every
        state = state.replace(account=account, cursor=state.cursor + passed, time=state.time + passed)
        return self.observe(key, state, action, params), state, reward, terminated, info

    def observe(
        self, key: PRNGKeyArray | None, state: EnvState, action: Array | None, params: EnvParams
    ) -> Observation:
        """The window that ends at the cursor, and the account. `key` and `action` are not used."""
        tape = params.tape
        start = state.cursor - self.window + 1
        window = jax.lax.dynamic_slice_in_dim(tape.features, start, self.window)
        listed = self.tradable(params, state.cursor)
        account = self.account_features(state.account, tape.close[state.cursor], tape.volatility[state.cursor], listed)
        return Observation(window=window, account=account)

    def is_truncated(self, state: EnvState, params: EnvParams) -> Bool[Array, "*b"]:
        """True at the time limit, and where the next decision could not fill and be marked inside the segment."""
        return (state.time >= self.episode_length) | (state.cursor + self.decision_every + self.delay >= state.end)


def _required(params: EnvParams | None) -> EnvParams:
    if params is None:
        raise ValueError(
            "TradingEnv.step and reset need params: pass params=env.default_params, kept from one call (as a default "
            "it would be baked into the compiled program)"
        )
    return params


def _total(parts: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, parts)
