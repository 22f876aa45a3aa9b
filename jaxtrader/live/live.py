"""`Live`: a policy that decides bar by bar, with the account that its decisions made.

A decision sees its account, so a backtest of the bars so far is no live decision: its account depends on where the
history starts. `Live` keeps the account, and decides what a backtest from the last bar of its history decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.envs.episode import EnvAccount
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import on_cpu, package_settings
from jaxtrader.ledger import costs as cost_rates
from jaxtrader.ledger.account import REASONS, exposure
from jaxtrader.ledger.rules import BRACKETS, Rules
from jaxtrader.live import live_schema, schedule
from jaxtrader.live.decision import Decision, Numbers, told
from jaxtrader.live.live_account import BY_SYMBOL, exposures_of, filled, opened
from jaxtrader.live.live_schema import KIND, VERSION, LiveFile
from jaxtrader.live.recent import PRICES, RecentBars, bar_at, up_to
from jaxtrader.live.rows import MarketRows
from jaxtrader.live.schedule import Schedule, moment, nanoseconds_of
from jaxtrader.live.step import Carried, Opinion, advance
from jaxtrader.market.bar_checks import format_duration
from jaxtrader.market.bars import Bars
from jaxtrader.market.calendar import find_calendar
from jaxtrader.market.clock import union
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, resolve
from jaxtrader.market.sessions import session_ends
from jaxtrader.market.splits import nanoseconds
from jaxtrader.schema import SchemaError

CHANGED = BRACKETS  # settings of a backtest's changes, beside rules and costs
FILLS = ("assumed", "reported")
COMPARED, SAME = 20, 0.05  # bars whose prices are compared, and by how much their factors may differ


class Live:
    """A policy with its account. `Policy.live` makes one, and `Policy.resume_live` goes on with a saved one.

    Attributes:
        policy: decides.
        fills: "assumed" or "reported", see `Policy.live`.
        decision: the decision in force. With `decision_every` above 1 it stays so for as many bars.
    """

    decision: Decision

    def __init__(
        self, policy: Policy, env: TradingEnv, fills: str, rows: MarketRows, usual: Schedule, carried: Carried
    ) -> None:
        self.policy, self.fills = policy, fills
        self._env, self._rows, self._schedule, self._carried = env, rows, usual, carried
        self._age = 0  # bars since the decision in force
        self._every_bar = dataclasses.replace(env, decision_every=1)  # the program moves by one bar
        positions = policy.members[0].positions
        self._positions: tuple[float, ...] = positions if isinstance(positions, tuple) else ()
        with on_cpu(), package_settings():
            acting = policy.acting_agent, policy.state_for(len(rows.symbols))
            self._agent, self._state = jax.tree.map(_on_default_device, acting)
        with on_cpu(), package_settings(x64=True):
            self._costs = env.costs.cast("float64")

    # --- begin and go on ---

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
            raise ValueError(f"fills {fills!r} is unknown; use {' or '.join(FILLS)}")
        rows, market, env = MarketRows.of(policy, _histories(history), _specs(policy, features), changes)
        env = dataclasses.replace(env, market=rows.stand_in(policy.features))
        exposures = exposures_of(env, account, rows.symbols)
        with on_cpu(), package_settings(x64=True):
            carried = opened(env, rows.column("close"), exposures, rows.names)
        live = cls(policy, env, fills, rows, Schedule.of(market.times, market.tz), carried)
        live._accept(*live._advanced(rows, moves=False), decides=True)
        return live

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
        (stored, described), specs = live_schema.read(path), _specs(policy, features)
        if [each.name for each in specs] != stored.features:
            raise ValueError(
                f"{path} is the state of a policy with the features {', '.join(stored.features)}, and this one has "
                f"{', '.join(each.name for each in specs)}; resume with the policy that it was saved with"
            )
        try:
            rows, usual = MarketRows.from_plain(stored.rows, specs), Schedule(**vars(stored.schedule))
            env = cls._environment(policy, path, rows, described, reward)
            with on_cpu(), package_settings(x64=True):
                carried = _carried(env, rows, stored)
        except (SchemaError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise live_schema.damaged(path, error) from error
        if history is not None:
            rows, usual, carried = _renewed(policy, path, rows, usual, carried, _histories(history), specs, env)
        live = cls(policy, env, stored.fills, rows, usual, carried)
        shares = stored.decision.probabilities
        told: dict[str, Any] = {"time": moment(stored.decision.time)}
        told |= {"probabilities": None if shares is None else dict(shares)}
        live.decision = Decision(**vars(stored.decision) | told)
        live._age = stored.age
        return live

    @staticmethod
    def _environment(policy: Policy, path: Any, rows: MarketRows, stored: dict[str, Any], reward: Any) -> TradingEnv:
        """The environment of a stored state, over a stand-in for its market."""
        changes = {name: stored.get(name) for name in CHANGED}
        changes |= {"rules": Rules(**stored["rules"]), "costs": cost_rates.from_dict(stored["costs"])}
        changes |= {} if reward is None else {"reward": reward}
        env = policy.environment(rows.stand_in(policy.features), **changes)
        other = [name for name, value in env.to_dict().items() if value != stored.get(name)]
        if other or (len(rows.symbols) > 1) != policy.portfolio:
            name = other[0] if other else "number of assets"
            raise ValueError(
                f"{path} is the state of a policy with another {name}; resume with the policy that it was saved with, "
                "or begin anew with policy.live(history)"
            )
        return env

    def save(self, path: str | PathLike[str]) -> None:
        """Write the account and the last bars to a small file, from which `Policy.resume_live` goes on.

        Reading it runs no code of the file, as with policy files. Raises files.FileError where it cannot be written.
        """
        shares, (account, tradable) = self.decision.probabilities, (self._carried.account, self._carried.tradable)
        decision: dict[str, Any] = vars(self.decision) | {"time": nanoseconds_of(self.decision.time)}
        decision["probabilities"] = None if shares is None else [list(pair) for pair in shares.items()]
        content = {
            "version": VERSION,
            "env": self._env.to_dict(),
            "features": [each.name for each in self._rows.recent[0].features],
            "fills": self.fills,
            "rows": self._rows.to_plain(),
            "schedule": schedule.to_plain(self._schedule),
            "age": self._age,
            "account": [np.asarray(x) for x in jax.tree.leaves(account)],
            "action": np.asarray(self._carried.action),
            "tradable": None if tradable is None else np.asarray(tradable),
            "decision": decision,
        }
        files.save(path, KIND, content)

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
            open, high, low, close, volume: on the scale of the history. An adjusted history needs adjusted prices.
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
            time: their close, see `on_bar`.
            bars: by symbol, (open, high, low, close, volume), or a mapping of these names and of `columns`, `funding`
                and `price_factor`. A symbol that is not named has no bar at this time.
            session_end, after_gap, after_jump: see `on_bar`.

        Raises:
            ValueError: as for `on_bar`, or a symbol is unknown, or there is no bar at all.
        """
        at, given = self._moment(time), self._by_symbol(bars)
        run = self._schedule.check(self.time, at, ", ".join(self.symbols), after_gap)
        rows = self._rows.after(at, given, session_end, None if after_jump else self._schedule.longest)
        account, opinion = self._advanced(rows, moves=True)
        # Nothing can go wrong from here on.
        rows.keep(given)
        self._rows, self._schedule.run = rows, run
        decides = self._age + 1 >= self._env.decision_every
        self._age = 0 if decides else self._age + 1
        self._accept(account, opinion, decides=decides)
        return self.decision

    def catch_up(self, history: Bars | Sequence[Bars], *, after_jump: bool = False) -> list[Decision]:
        """Take in the bars of a history that closed after the last one, and return the decision in force at each.

        Where the history has the last bar, what is missing between its bars is taken for a gap. Raises ValueError as
        `on_bar` does. The bars before the one that is refused are then taken in. For `after_jump` see `on_bar`.
        """
        histories, decisions = _histories(history), []
        times = union([bars.times for bars in histories])
        calendar = find_calendar(times, self.tz) if len(times) > 1 else None
        ends = session_ends(times, calendar, self.tz)
        first = int(np.searchsorted(times, self.time, side="right"))
        known = first > 0 and times[first - 1] == self.time
        for i in range(first, len(times)):
            given = {}
            for bars in histories:
                at = int(np.searchsorted(bars.times, times[i]))
                if at < len(bars) and bars.times[at] == times[i]:
                    given[bars.symbols[0]] = bar_at(bars, at)
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
            reason: "order", or what closed the position, such as "stop" or "take profit". The policy does not open a
                position again that one of these two closed, until its target has left that side.

        Raises:
            ValueError: the fills of this account are assumed, the symbol or the reason is unknown, or a number is not
                finite.
        """
        if self.fills != "reported":
            raise ValueError("this account assumes its fills; begin it with policy.live(history, fills='reported')")
        if symbol is None and len(self.symbols) == 1:
            symbol = self.symbols[0]
        if symbol not in self.symbols:
            raise ValueError(f"symbol {symbol!r} is none of the account's, {', '.join(self.symbols)}; name one of them")
        if reason not in REASONS:
            raise ValueError(f"reason {reason!r} is unknown; use one of {', '.join(REASONS)}")
        if not (math.isfinite(units) and 0 < price < math.inf and math.isfinite(fee)):
            raise ValueError(f"the fill has units {units}, price {price} and fee {fee}; give finite numbers")
        capital, at = self._env.rules.currency_per_unit, self.symbols.index(symbol)
        with on_cpu(), package_settings(x64=True):
            self._carried = self._carried.replace(
                account=filled(self._carried.account, at, units / capital, price, fee / capital, reason)
            )

    # --- the account ---

    @property
    def symbols(self) -> tuple[str, ...]:
        """The assets."""
        return self._rows.symbols

    @property
    def tz(self) -> str | None:
        """The zone of the wall clock of the history. None is UTC."""
        return self._rows.tz

    @property
    def time(self) -> np.datetime64:
        """The close of the last bar, UTC."""
        return self._rows.time

    @property
    def due(self) -> np.datetime64:
        """When the next bar should close, by the times of the history."""
        return self._schedule.due(self.time)

    @property
    def spacing(self) -> np.timedelta64:
        """The usual time between two bars."""
        return np.timedelta64(self._schedule.bar, "ns")

    @property
    def equity(self) -> float:
        """The value of the account at the last close, in units of the initial capital."""
        account = self._carried.account
        return float(np.asarray(account.cash) + (np.asarray(account.units) * self._rows.column("close")).sum())

    @property
    def cash(self) -> float:
        """In units of the initial capital. Below 0 it is borrowed."""
        return float(self._carried.account.cash)

    @property
    def units(self) -> Numbers:
        """Signed holdings, in units of the initial capital. A portfolio has them by symbol."""
        return self._numbers(np.asarray(self._carried.account.units))

    @property
    def exposure(self) -> Numbers:
        """Signed position value / equity at the last close. A portfolio has it by symbol."""
        with on_cpu(), package_settings(x64=True):
            close = jnp.asarray(self._rows.column("close"))
            return self._numbers(np.asarray(exposure(self._carried.account, close)))

    @property
    def ruined(self) -> bool:
        """Whether the account is ruined. It then stays as it is."""
        return bool(self._carried.account.ruined)

    def __repr__(self) -> str:
        return (
            f"Live({', '.join(self.symbols)}: {self._schedule.shown(self.time)} {self.tz or 'UTC'}, equity "
            f"{self.equity:.4g}, exposure {told(self.exposure)}, target {told(self.decision.target)})"
        )

    # --- inside ---

    def _advanced(self, rows: MarketRows, moves: bool) -> tuple[EnvAccount, Opinion]:
        """The account at the newest row, and the decision there."""
        with on_cpu(), package_settings(x64=True):
            account, opinion = advance(
                self._every_bar,
                rows.names,
                self.fills == "reported",
                self._agent,
                self._state,
                self._costs,
                self._carried,
                rows.columns,
                rows.window,
                np.bool_(moves),
            )
        if opinion.invalid:
            raise ValueError(
                "the policy chose an action that its environment does not have; the policy file is damaged"
            )
        return account, opinion

    def _accept(self, account: EnvAccount, opinion: Opinion, decides: bool) -> None:
        """Go on with the account, and with the opinion where a decision is due."""
        if not decides:
            self._carried = self._carried.replace(account=account)
            return
        self._carried = Carried(account, opinion.action, opinion.tradable)
        shares, positions = opinion.probabilities, self._positions
        self.decision = Decision(
            target=self._numbers(np.asarray(opinion.target)),
            probabilities=None if shares is None else dict(zip(positions, map(float, np.asarray(shares)), strict=True)),
            value=float(opinion.value),
            exposure=self._numbers(np.asarray(opinion.exposure)),
            time=self.time,
        )

    def _numbers(self, numbers: np.ndarray) -> Numbers:
        """One number, or one by symbol."""
        if len(self.symbols) == 1:
            return float(numbers[0])
        return dict(zip(self.symbols, numbers.tolist(), strict=True))

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
        return {symbol: _by_name(bar, symbol) for symbol, bar in bars.items()}


def _on_default_device(leaf: Any) -> Any:
    """A leaf of an agent or its state as an array. A random key stays what it is."""
    is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if is_key else jnp.asarray(np.asarray(leaf))


def _by_name(bar: Any, symbol: str) -> Mapping[str, Any]:
    """One bar of `on_bars` as a mapping."""
    if isinstance(bar, Mapping):
        return bar
    names = (*PRICES, "volume")
    numbers = tuple(bar) if isinstance(bar, Sequence | np.ndarray) and not isinstance(bar, str) else ()
    if len(numbers) != len(names):
        raise ValueError(f"the bar of {symbol} is {bar!r:.60}; give ({', '.join(names)})")
    return dict(zip(names, numbers, strict=True))


def _histories(history: Bars | Sequence[Bars]) -> tuple[Bars, ...]:
    if isinstance(history, Bars):
        return (history,)
    histories = history if isinstance(history, list | tuple) else [history]
    wrong = [type(each).__name__ for each in histories if not isinstance(each, Bars)]
    if wrong or not histories:
        given = f"a {wrong[0]}" if wrong else "empty"
        raise ValueError(f"the history is {given}; give the Bars of jt.load_bars(...), or a list of them")
    return tuple(histories)


def _specs(policy: Policy, features: Sequence[str | Feature] | None) -> tuple[Feature, ...]:
    return tuple(map(resolve, policy.features if features is None else features))


def _carried(env: TradingEnv, rows: MarketRows, stored: LiveFile) -> Carried:
    """The account and the action of a state file. Raises SchemaError where they are of other rules."""
    fresh = opened(env, rows.column("close"), np.zeros(len(rows.symbols)), rows.names)
    leaves, structure = jax.tree.flatten(fresh)
    given = [*stored.account, stored.action, *([] if stored.tradable is None else [stored.tradable])]
    kinds = [[(np.shape(x), getattr(x, "dtype", np.dtype("O")).kind) for x in each] for each in (given, leaves)]
    if kinds[0] != kinds[1]:
        raise SchemaError("its account is one of other rules")
    return structure.unflatten([jnp.asarray(x, y.dtype) for x, y in zip(given, leaves, strict=True)])


def _differ(before: RecentBars, now: RecentBars) -> bool:
    """Whether the last bars are of other prices, which no adjustment of the past, one factor for all, explains."""
    old, new = before.bars, now.bars
    _, at, to = np.intersect1d(old.times, new.times, return_indices=True)
    factors = np.log(old.close[at, 0] / new.close[to, 0])[-COMPARED:]
    return bool(np.ptp(factors) > SAME)


def _renewed(
    policy: Policy,
    path: Any,
    rows: MarketRows,
    usual: Schedule,
    carried: Carried,
    histories: tuple[Bars, ...],
    specs: tuple[Feature, ...],
    env: TradingEnv,
) -> tuple[MarketRows, Schedule, Carried]:
    """The state with the rows of another history up to the same bar, whose past prices may have been adjusted."""
    shown = usual.shown(rows.time)
    symbols = tuple(bars.symbols[0] for bars in histories)
    if symbols != rows.symbols:
        raise ValueError(
            f"{path} is the state of {', '.join(rows.symbols)}, and the history is of {', '.join(symbols)}"
        )
    cut = tuple(up_to(bars, rows.time) for bars in histories)
    if max(bars.times[-1] for bars in cut if len(bars)) != rows.time:
        raise ValueError(f"{path} has its last bar at {shown}, and the history has none then; give one that has")
    settings = {name: getattr(env, name) for name in ("rules", "costs", "reward", *CHANGED)}
    renewed, market, _ = MarketRows.of(policy, cut, specs, settings)
    of_new = Schedule.of(market.times, market.tz)
    if of_new.bar != usual.bar:
        spacings = [format_duration(np.timedelta64(each.bar, "ns")) for each in (usual, of_new)]
        raise ValueError(
            f"{path} is the state of bars one every {spacings[0]}, and the history has one every {spacings[1]}"
        )
    if renewed.names != rows.names:
        raise ValueError(f"{path} is the state of a history with other columns; begin anew with policy.live(history)")
    if any(_differ(each, other) for each, other in zip(rows.recent, renewed.recent, strict=True)):
        raise ValueError(f"{path} is the state of other prices than those of the history; begin anew with policy.live")
    ratio = rows.column("close") / renewed.column("close")
    ratio = np.where(np.abs(ratio - 1) < 1e-9, 1.0, ratio)
    account = carried.account
    with on_cpu(), package_settings(x64=True):
        best = None if account.best is None else account.best / ratio
        account = account.replace(units=account.units * ratio, entry=account.entry / ratio, best=best)
    return renewed, dataclasses.replace(of_new, run=usual.run), carried.replace(account=account)
