"""`Live`: a policy that decides bar by bar, with the account that its decisions made.

A decision sees its account, so a backtest of the bars so far is no live decision: its account depends on where the
history starts. `Live` keeps the account, and decides what a backtest from the last bar of its history decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrader.agents.policy import Policy, check_chosen
from jaxtrader.envs.episode import Holdings
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import on_cpu, package_settings
from jaxtrader.ledger.account import REASONS, exposure
from jaxtrader.live.decision import Decision, Numbers, exposure_text
from jaxtrader.live.live_account import BY_SYMBOL, exposures_of, filled, opened
from jaxtrader.live.live_state import LiveState
from jaxtrader.live.recent import OPTIONAL, bar_at
from jaxtrader.live.rows import MarketRows
from jaxtrader.live.schedule import Schedule, moment
from jaxtrader.live.step import StepState, advance
from jaxtrader.market.bar_checks import PRICES
from jaxtrader.market.bars import Bars, histories_of
from jaxtrader.market.calendar import find_calendar
from jaxtrader.market.clock import union
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, resolve
from jaxtrader.market.sessions import session_ends
from jaxtrader.market.shared_rows import row_times
from jaxtrader.market.splits import nanoseconds
from jaxtrader.nearest import hint
from jaxtrader.setting_checks import check_flag, is_number, setting

FILLS = ("assumed", "reported")
BAR_KEYS = (*PRICES, "volume", "columns", *OPTIONAL, "time")  # of a mapping that is a bar


class Live:
    """A policy with its account. `Policy.live` makes one, and `Policy.resume_live` goes on with a saved one.

    Attributes:
        policy: decides.
        fills: "assumed" or "reported", see `Policy.live`.
    """

    _live_state: LiveState  # all that changes from bar to bar

    def __init__(self, policy: Policy, env: TradingEnv, fills: str) -> None:
        self.policy, self.fills, self._env = policy, fills, env
        self._every_bar = dataclasses.replace(env, decision_every=1)  # the program moves by one bar
        with on_cpu(), package_settings():
            acting = policy.acting_agent, policy.state_for(env.assets)
            self._agent, self._state = jax.tree.map(_on_default_device, acting)
        with on_cpu(), package_settings(x64=True):
            self._costs = env.costs.cast("float64")

    # --- begin, save and go on ---

    @classmethod
    def begin(
        cls,
        policy: Policy,
        history: Bars | Sequence[Bars],
        account: float | Mapping[str, float] | None,
        fills: str,
        features: Sequence[str | Feature] | None,
        changes: dict[str, Any],
    ) -> Live:
        """See `Policy.live`."""
        if fills not in FILLS:
            raise ValueError(f"{setting('fills', fills)} is unknown; use {' or '.join(FILLS)}")
        rows, market, env = MarketRows.of(policy, histories_of(history), _specs(policy, features), changes)
        env = dataclasses.replace(env, market=rows.stand_in(policy.features))
        step = opened(env, rows.column("close"), exposures_of(env, account, rows.symbols), rows.names)
        live = cls(policy, env, fills)
        live._live_state = LiveState(
            rows, Schedule.of(market.times, market.tz), *live._decided(rows, step, moves=False)
        )
        return live

    def save(self, path: str | PathLike[str]) -> None:
        """Write the account and the last bars to a small file, from which `Policy.resume_live` goes on.

        Reading it runs no code of the file, as with policy files. Raises files.FileError where it cannot be written.
        """
        self._live_state.save(path, self._env, self.fills)

    @classmethod
    def resume(
        cls,
        policy: Policy,
        path: str | PathLike[str],
        history: Bars | Sequence[Bars] | None,
        features: Sequence[str | Feature] | None,
        reward: Any,
    ) -> Live:
        """See `Policy.resume_live`."""
        specs = _specs(policy, features)
        state, env, fills = LiveState.read(path, policy, specs, reward)
        if history is not None:
            state = state.with_history(path, policy, histories_of(history), specs, env)
        live = cls(policy, env, fills)
        live._live_state = state
        return live

    # --- bars and fills ---

    def on_bar(
        self,
        time: Any,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        *,
        columns: Mapping[str, float] | None = None,
        funding: float = 0.0,
        price_factor: float | None = None,
        session_end: bool | None = None,
        after_gap: bool = False,
        after_jump: bool = False,
    ) -> Decision:
        """Take in a bar that has just closed, and return the decision in force.

        The account is carried from the close before to this one, then the policy decides. A bar that is refused
        changes nothing.

        Args:
            time: the close of the bar. Without an offset it is of the wall clock of the history, and a datetime64 is
                UTC.
            open, high, low, close, volume: numbers on the scale of the history. An adjusted history needs adjusted
                prices.
            columns: further columns of the bars, where features or costs read them.
            funding: see `Bars.funding`.
            price_factor: see `Bars.price_factor`. None is that of the bar before.
            session_end: whether the bar is the last of a trading session. None: it is at the time of day at which most
                sessions of the history end, so say True where a session ends early.
            after_gap: accept bars that are missing before this one.
            after_jump: accept an open that looks like one on another scale, see `market.share_splits.scale_jump`.

        Raises:
            ValueError: the bar is out of order, came already, breaks a rule of bars, or has another spacing than the
                history. Nights, weekends, and gaps such as the history has are expected. Or its prices seem to be on
                another scale, as after a split. Crashes and rises with the volume or the range of news are taken.
        """
        if len(self.symbols) > 1:
            raise ValueError(f"the policy trades {len(self.symbols)} assets; call on_bars(time, {{symbol: bar}})")
        bar = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
        bar |= {"columns": columns, "funding": funding, "price_factor": price_factor}
        given = {self.symbols[0]: bar}
        return self.on_bars(time, given, session_end=session_end, after_gap=after_gap, after_jump=after_jump)

    def on_bars(
        self,
        time: Any,
        bars: Mapping[str, Mapping[str, Any] | Sequence[float]],
        *,
        session_end: bool | None = None,
        after_gap: bool = False,
        after_jump: bool = False,
    ) -> Decision:
        """Take in the bars of a portfolio that have just closed, and return the decision in force.

        Args:
            time: the time of their close, see `on_bar`.
            bars: for each symbol, (open, high, low, close, volume), or a mapping of these names and of `columns`,
                `funding` and `price_factor`. Of daily bars that share a row it may have its own close, `time`, which is
                written as that of `on_bar`. A symbol that is not named has no bar at this time.
            session_end, after_gap, after_jump: see `on_bar`.

        Raises:
            ValueError: as for `on_bar`, or a symbol or a name of a mapping is unknown, or there is no bar at all.
        """
        check_flag("after_gap", after_gap)
        check_flag("after_jump", after_jump)
        if session_end is not None:
            session_end = session_end.item() if isinstance(session_end, np.bool_) else session_end  # of a table
            check_flag("session_end", session_end)
        before, at, given = self._live_state, self._moment(time), self._by_symbol(bars)
        run = before.schedule.check(self.time, at, ", ".join(self.symbols), after_gap)
        rows = before.rows.after(at, given, session_end, None if after_jump else before.schedule.longest)
        step, decision = self._decided(rows, before.step, moves=True)
        # Nothing can go wrong from here on.
        rows.keep(given)
        age = before.age + 1
        if age < self._env.decision_every:  # the decision before stays in force
            step, decision = before.step.replace(account=step.account), before.decision
        else:
            age = 0
        self._live_state = LiveState(rows, dataclasses.replace(before.schedule, run=run), step, decision, age)
        return decision

    def catch_up(self, history: Bars | Sequence[Bars], *, after_jump: bool = False) -> list[Decision]:
        """Take in the bars of a history that closed after the last one, and return the decision in force at each.

        Where the history has the last bar, what is missing between its bars is taken for a gap. Raises ValueError as
        `on_bar` does. The bars before the one that is refused are then taken in. For `after_jump` see `on_bar`. The
        rows of a portfolio are those of a market of this history, so give as many bars as to `Policy.live`.
        """
        check_flag("after_jump", after_jump)
        histories, decisions = histories_of(history), []
        rows = row_times(histories)[0] if self.policy.portfolio else [bars.times for bars in histories]
        times, taken = union(rows), self.time
        calendar = find_calendar(times, self.tz) if len(times) > 1 else None
        ends = session_ends(times, calendar, self.tz)
        first = int(np.searchsorted(times, self.time, side="right"))
        known = first > 0 and bool(times[first - 1] == self.time)
        for i in range(first, len(times)):
            given = {}
            for bars, own in zip(histories, rows, strict=True):
                at = int(np.searchsorted(own, times[i]))
                if at < len(bars) and own[at] == times[i] and bars.times[at] > taken:
                    given[bars.symbols[0]] = bar_at(bars, at) | {"time": bars.times[at]}
            ended = None if ends is None or i + 1 == len(times) else bool(ends[i])
            accepted = {"after_gap": known or i > first, "after_jump": after_jump}
            decisions.append(self.on_bars(times[i], given, session_end=ended, **accepted))
        return decisions

    def on_fill(
        self, units: float, price: float, fee: float = 0.0, *, symbol: str | None = None, reason: str = "order"
    ) -> None:
        """Book a fill of the user's own account, where `fills="reported"`.

        Call it before the bar in which it happened is given to `on_bar`. An order that was not filled needs no call.

        Args:
            units: signed units that were traded, of an account with `Rules.capital` in shares, otherwise in units of
                the initial capital.
            price: what was paid or received for one, slippage included, on the scale of the bars.
            fee: paid for it, in currency or units of the initial capital.
            symbol: the asset of a portfolio.
            reason: "order", or what closed the position, such as "liquidation". The policy does not open a position
                again that a "stop", a "take profit" or a "trailing stop" closed, until its target has left that side.

        Raises:
            ValueError: the fills of this account are assumed, the symbol or the reason is unknown, or a number is not
                finite.
        """
        if self.fills != "reported":
            raise ValueError("this account assumes its fills; begin it with `policy.live(history, fills='reported')`")
        if symbol is None and len(self.symbols) == 1:
            symbol = self.symbols[0]
        if symbol not in self.symbols:
            raise ValueError(
                f"{setting('symbol', symbol)} is none of the account's, {', '.join(self.symbols)}; name one of them"
            )
        if reason not in REASONS:
            raise ValueError(f"{setting('reason', reason)} is unknown; use one of {', '.join(REASONS)}")
        finite = all(is_number(x) and math.isfinite(x) for x in (units, price, fee))
        if not (finite and price > 0):
            raise ValueError(
                f"the fill has units {units!r:.20}, price {price!r:.20} and fee {fee!r:.20}; give finite numbers, and "
                "a price above 0"
            )
        capital, at = self._env.rules.currency_per_unit, self.symbols.index(symbol)
        account = filled(self._live_state.step.account, at, units / capital, price, fee / capital, reason)
        self._live_state = dataclasses.replace(self._live_state, step=self._live_state.step.replace(account=account))

    # --- the decision and the account ---

    @property
    def decision(self) -> Decision:
        """The decision in force. With `decision_every` above 1 it stays so for as many bars."""
        return self._live_state.decision

    @property
    def symbols(self) -> tuple[str, ...]:
        """The assets."""
        return self._live_state.rows.symbols

    @property
    def tz(self) -> str | None:
        """The zone of the wall clock of the history. None is UTC."""
        return self._live_state.rows.tz

    @property
    def time(self) -> np.datetime64:
        """The close of the last bar, UTC."""
        return self._live_state.rows.time

    @property
    def next_bar_time(self) -> np.datetime64:
        """When the next bar should close, by the times of the history."""
        return self._live_state.schedule.next_bar_time(self.time)

    @property
    def spacing(self) -> np.timedelta64:
        """The usual time between two bars."""
        return np.timedelta64(self._live_state.schedule.bar, "ns")

    @property
    def equity(self) -> float:
        """The value of the account at the last close, in units of the initial capital."""
        account = self._live_state.step.account
        return float(Holdings.of(account).value(self._live_state.rows.column("close")))

    @property
    def cash(self) -> float:
        """In units of the initial capital. Below 0 it is borrowed."""
        return float(self._live_state.step.account.cash)

    @property
    def units(self) -> Numbers:
        """Signed holdings, in units of the initial capital. A portfolio has them by symbol."""
        return _one_or_by_symbol(self._live_state.step.account.units, self.symbols)

    @property
    def exposure(self) -> Numbers:
        """Signed position value / equity at the last close. A portfolio has it by symbol."""
        with on_cpu(), package_settings(x64=True):
            close = jnp.asarray(self._live_state.rows.column("close"))
            return _one_or_by_symbol(exposure(self._live_state.step.account, close), self.symbols)

    @property
    def ruined(self) -> bool:
        """Whether the account is ruined. It then stays as it is."""
        return bool(self._live_state.step.account.ruined)

    def __repr__(self) -> str:
        return (
            f"Live({', '.join(self.symbols)}: {self._live_state.schedule.shown(self.time)} {self.tz or 'UTC'}, equity "
            f"{self.equity:.4g}, exposure {exposure_text(self.exposure)}, target {exposure_text(self.decision.target)})"
        )

    # --- inside ---

    def _decided(self, rows: MarketRows, step: StepState, moves: bool) -> tuple[StepState, Decision]:
        """The account at the newest row and the action that the policy takes there, and that as a decision."""
        with on_cpu(), package_settings(x64=True):
            account, chosen = advance(
                self._every_bar,
                rows.names,
                self.fills == "reported",
                self._agent,
                self._state,
                self._costs,
                step,
                rows.columns,
                rows.window,
                np.bool_(moves),
            )
        check_chosen(chosen.invalid)
        shares, positions = chosen.probabilities, cast("tuple[float, ...]", self.policy.members[0].positions)
        decision = Decision(
            target=_one_or_by_symbol(chosen.target, rows.symbols),
            probabilities=None if shares is None else dict(zip(positions, map(float, np.asarray(shares)), strict=True)),
            value=float(chosen.value),
            exposure=_one_or_by_symbol(chosen.exposure, rows.symbols),
            time=rows.time,
        )
        return StepState(account, chosen.action, chosen.tradable), decision

    def _moment(self, time: Any) -> np.datetime64:
        if isinstance(time, np.datetime64) and not np.isnat(time):
            return time.astype("datetime64[ns]")
        try:
            return moment(nanoseconds(time, self.tz))
        except DataError:
            raise ValueError(f"{time!r} is no time of a bar; write it as '2011-01-03 15:30'") from None

    def _by_symbol(self, bars: Any) -> dict[str, Mapping[str, Any]]:
        """The bars as mappings by symbol."""
        if not isinstance(bars, Mapping) or not bars:
            raise ValueError(f"there are no bars; {BY_SYMBOL % self.symbols[0]}")
        unknown = [symbol for symbol in bars if symbol not in self.symbols]
        if unknown:
            raise ValueError(f"symbol {unknown[0]!r} is none of {', '.join(self.symbols)}; leave it out")
        named = {symbol: _by_name(bar, symbol) for symbol, bar in bars.items()}
        return {
            symbol: bar if bar.get("time") is None else {**bar, "time": self._moment(bar["time"])}
            for symbol, bar in named.items()
        }


def _one_or_by_symbol(numbers: Any, symbols: tuple[str, ...]) -> Numbers:
    """One number, or one by symbol."""
    numbers = np.asarray(numbers).tolist()
    return numbers[0] if len(symbols) == 1 else dict(zip(symbols, numbers, strict=True))


def _on_default_device(leaf: Any) -> Any:
    """A leaf of an agent or its state as an array. A random key stays what it is."""
    is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else jnp.asarray(np.asarray(leaf))


def _by_name(bar: Any, symbol: str) -> Mapping[str, Any]:
    """One bar of `on_bars` as a mapping."""
    if isinstance(bar, Mapping):
        unknown = [str(key) for key in bar if key not in BAR_KEYS]
        if unknown:
            meant = hint(unknown[0], BAR_KEYS) or "; give a further column of the bars in `columns`"
            raise ValueError(f"the bar of {symbol} has {unknown[0]!r}, and a bar has {', '.join(BAR_KEYS)}{meant}")
        return bar
    names = (*PRICES, "volume")
    numbers = tuple(bar) if isinstance(bar, Sequence | np.ndarray) and not isinstance(bar, str) else ()
    if len(numbers) != len(names):
        raise ValueError(f"the bar of {symbol} is {bar!r:.60}; give ({', '.join(names)})")
    return dict(zip(names, numbers, strict=True))


def _specs(policy: Policy, features: Sequence[str | Feature] | None) -> tuple[Feature, ...]:
    return tuple(map(resolve, policy.features if features is None else features))
