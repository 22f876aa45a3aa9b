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
from jaxtrader.ledger.account import REASONS, STOP, TAKE, exposure
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.ledger.settlement import settle
from jaxtrader.live import schedule
from jaxtrader.live.recent import OPTIONAL, PRICES, RecentBars, Row
from jaxtrader.live.schedule import Schedule
from jaxtrader.live.step import COLUMN, NEWEST, Carried, Opinion, advance
from jaxtrader.market.align import YEAR, Silence
from jaxtrader.market.bar_checks import spacing
from jaxtrader.market.bars import Bars
from jaxtrader.market.clock import time_of_day, wall_clock
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, resolve
from jaxtrader.market.market import OPTIONAL_COLUMNS, Market
from jaxtrader.market.splits import nanoseconds

KIND = "live"
VERSION = 1
CHANGED = ("rules", "costs", "stop_loss", "take_profit")  # settings of a backtest's changes that a state file holds
FILLS = ("assumed", "reported")
BY_SYMBOL = "give a mapping by symbol, such as {%r: ...}"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a policy wants at the close of a bar. A portfolio has a mapping by symbol instead of a number.

    Attributes:
        target: the exposure, signed position value / equity, that the next order should reach. NaN holds the units.
        probabilities: of each position, of an ensemble the mean over its members. None: it does not choose among
            positions.
        value: what it expects: the discounted sum of the rewards that follow.
        exposure: what the account holds at this close.
        time: the close, UTC.
    """

    target: float | dict[str, float]
    probabilities: dict[float, float] | None
    value: float
    exposure: float | dict[str, float]
    time: np.datetime64

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as JSON takes it: a target that holds is None, and probabilities have text as keys."""

        def plain(number: float | dict[str, float]) -> Any:
            if isinstance(number, dict):
                return {symbol: plain(each) for symbol, each in number.items()}
            return number if math.isfinite(number) else None

        shares = self.probabilities
        return {
            "time": f"{self.time.astype('datetime64[s]')}Z",
            "exposure": plain(self.exposure),
            "target": plain(self.target),
            "probabilities": None if shares is None else {f"{position:g}": share for position, share in shares.items()},
            "value": plain(self.value),
        }


@dataclasses.dataclass(frozen=True)
class _Row:
    """The newest row of the market, as arrays over assets.

    Attributes:
        time: the close.
        columns: [column, A] in the order of `Live._names`.
        features: [A, F], NaN where an asset is not listed.
        silence: of a portfolio.
        own: the assets' own rows.
    """

    time: np.datetime64
    columns: np.ndarray
    features: np.ndarray
    silence: Silence | None
    own: tuple[Row, ...]


class Live:
    """A policy with its account. `Policy.live` makes one, and `Policy.resume_live` goes on with a saved one.

    Attributes:
        policy: decides.
        symbols: of the assets.
        decision: the decision in force. With `decision_every` above 1 it stays so for as many bars.
        fills: "assumed" or "reported", see `Policy.live`.
    """

    def __init__(self, policy: Policy, env: TradingEnv, fills: str, kept: dict[str, Any]) -> None:
        self.policy, self.fills, self._env = policy, fills, env
        self._every_bar = dataclasses.replace(env, decision_every=1)  # the program moves by one bar
        self.symbols: tuple[str, ...] = kept["symbols"]
        self._tz: str | None = kept["tz"]
        self._names: tuple[str, ...] = kept["names"]
        self._recent: tuple[RecentBars, ...] = kept["recent"]
        self._schedule: Schedule = kept["schedule"]
        self._silence: Silence | None = kept["silence"]
        self._length: int | None = kept["length"]
        self._usual_close: int | None = kept["usual_close"]
        self._columns: np.ndarray = kept["columns"]
        self._window: np.ndarray = kept["window"]
        self._rows: tuple[Row, ...] = kept["rows"]
        self._missed: np.ndarray = kept["missed"]
        self._time: np.datetime64 = kept["time"]
        self._age: int = kept["age"]  # bars since the decision in force
        self._carried: Carried = kept["carried"]
        with on_cpu(), package_settings():
            acting = policy.acting_agent, policy.state_for(len(self.symbols))
            self._agent, self._state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), acting)
        with on_cpu(), package_settings(x64=True):
            self._costs = env.costs.cast("float64")
        positions = policy.members[0].positions
        self._positions: tuple[float, ...] = positions if isinstance(positions, tuple) else ()
        self.decision: Decision = kept["decision"]

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
        histories = (history,) if isinstance(history, Bars) else tuple(history)
        specs = tuple(map(resolve, policy.features if features is None else features))
        market = Market.from_bars(histories, specs, align=policy.portfolio)
        _check_assets(policy, histories, market)
        env = policy.environment(market, **changes)
        first, rows = int(market.first_decisions(env.window)[0]), len(market.times)
        if first >= rows:
            raise ValueError(
                f"the history has {rows:,} bars, and a decision needs {first + 1:,}: {market.lookback} for the "
                f"features, and {env.window} in its window; give more bars"
            )
        symbols = tuple(bars.symbols[0] for bars in histories)
        recent = tuple(RecentBars(bars, specs, market.adv is not None) for bars in histories)
        own = tuple(each.newest() for each in recent)
        _check_lookbacks(market, own, histories)
        present = np.ones((rows, len(symbols)), bool) if market.present is None else market.present
        own = tuple(row if here else row.without_bar() for row, here in zip(own, present[-1], strict=True))
        names = _column_names(market, env, policy.portfolio)
        ends = np.zeros(rows, bool) if market.session_end is None else market.session_end
        row = np.arange(rows)[:, None]
        latest = [np.max(np.where(mask[:-1], row[:-1], -1), 0, initial=-1) for mask in (ends[:, None], present)]
        newest = _market_columns(market, names)
        kept: dict[str, Any] = {
            "symbols": symbols,
            "tz": market.tz,
            "names": names,
            "recent": recent,
            "schedule": Schedule.of(market.times, market.tz),
            "silence": Silence.after(market.times, present) if policy.portfolio else None,
            "length": None if market.bar_dt is None else _ns(spacing(market.times)),
            "usual_close": None if not ends[:-1].any() else schedule.usual_close(market.times, ends, market.tz),
            "columns": np.stack([newest] * (NEWEST + 1)),
            "window": _listed_features(market, env.window),
            "rows": own,
            "missed": np.broadcast_to(latest[0] > latest[1], (len(symbols),)),
            "time": market.times[-1],
            "age": 0,
        }
        env = dataclasses.replace(env, market=_stand_in(market, env))
        with on_cpu(), package_settings(x64=True):
            kept["carried"] = _opened(env, newest[names.index("close")], _exposures(env, account, symbols), names)
        live = cls(policy, env, fills, kept | {"decision": None})
        live._accept(*live._advanced(live._columns, live._window, moves=False), decides=True)
        return live

    @classmethod
    def resume(
        cls, policy: Policy, path: str | PathLike[str], features: Sequence[str | Feature] | None, reward: Any
    ) -> Live:
        """See `Policy.resume_live`."""
        stored = files.load(path, KIND)
        if not isinstance(stored, dict) or stored.get("version") != VERSION:
            raise files.FileError(f"{path} is the state of another jaxtrader; begin anew with policy.live(history)")
        specs = tuple(map(resolve, policy.features if features is None else features))
        if [each.name for each in specs] != stored["features"]:
            raise ValueError(
                f"{path} is the state of a policy with the features {', '.join(stored['features'])}, and this one has "
                f"{', '.join(each.name for each in specs)}; resume with the policy that it was saved with"
            )
        try:
            return cls._restored(policy, path, specs, reward, stored)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise files.FileError(f"{path} is damaged ({error!r}); begin anew with policy.live(history)") from error

    @classmethod
    def _restored(
        cls, policy: Policy, path: Any, specs: tuple[Feature, ...], reward: Any, stored: dict[str, Any]
    ) -> Live:
        symbols, names, settings = tuple(stored["symbols"]), tuple(stored["names"]), stored["env"]
        columns, window = stored["columns"], stored["window"]
        changes = {name: settings[name] for name in CHANGED}
        changes |= {"rules": Rules(**settings["rules"]), "costs": cost_rates.from_dict(settings["costs"])}
        changes |= {} if reward is None else {"reward": reward}
        market = _stored_market(policy, symbols, names, columns, stored["time"])
        env = policy.environment(market, **changes)
        other = [name for name, value in env.to_dict().items() if value != settings[name]]
        if other or window.shape[0] != env.window or (len(symbols) > 1) != policy.portfolio:
            name = other[0] if other else "window"
            raise ValueError(
                f"{path} is the state of a policy with another {name}, {settings[name]}; resume with the policy that "
                "it was saved with, or begin anew with policy.live(history)"
            )
        recent = tuple(
            RecentBars(_bars(each, symbol), specs, "adv" in names, each["bars_per_frame"])
            for each, symbol in zip(stored["recent"], symbols, strict=True)
        )
        rows = tuple(each.newest() for each in recent)
        if "present" in names:
            here = columns[NEWEST, names.index("present")] != 0
            rows = tuple(row if is_here else row.without_bar() for row, is_here in zip(rows, here, strict=True))
        with on_cpu(), package_settings(x64=True):
            fresh = _opened(env, columns[NEWEST, names.index("close")], np.zeros(len(symbols)), names)
            leaves, structure = jax.tree.flatten(fresh.account)
            given = stored["account"]
            if [np.shape(x) for x in given] != [x.shape for x in leaves]:
                raise KeyError("an account of other rules")
            account = structure.unflatten([jnp.asarray(x, y.dtype) for x, y in zip(given, leaves, strict=True)])
            tradable = None if stored["tradable"] is None else jnp.asarray(stored["tradable"])
            carried = Carried(account, jnp.asarray(stored["action"]), tradable)
        silence = stored["silence"]
        kept = {
            "symbols": symbols,
            "tz": stored["tz"],
            "names": names,
            "recent": recent,
            "schedule": Schedule(**stored["schedule"]),
            "silence": None if silence is None else Silence(**silence),
            "length": stored["length"],
            "usual_close": stored["usual_close"],
            "columns": columns,
            "window": window,
            "rows": rows,
            "missed": stored["missed"],
            "time": _moment(stored["time"]),
            "age": stored["age"],
            "carried": carried,
            "decision": _decision(stored["decision"]),
        }
        return cls(policy, env, stored["fills"], kept)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the account and the last bars to a small file, from which `Policy.resume_live` goes on.

        Reading it runs no code of the file, as with policy files. Raises files.FileError where it cannot be written.
        """
        recent = []
        for each in self._recent:
            bars = each.bars
            arrays = {name: getattr(bars, name) for name in (*PRICES, "volume", *OPTIONAL)}
            arrays |= {"times": bars.times.astype("datetime64[ns]").astype(np.int64), "tz": bars.tz}
            recent.append(arrays | {"columns": dict(bars.columns), "bars_per_frame": each.bars_per_frame})
        shares = self.decision.probabilities
        decision: dict[str, Any] = vars(self.decision) | {"time": _ns_of(self.decision.time)}
        decision["probabilities"] = None if shares is None else [list(pair) for pair in shares.items()]
        account, tradable = self._carried.account, self._carried.tradable
        content = {
            "version": VERSION,
            "env": self._env.to_dict(),
            "features": [each.name for each in self._recent[0].features],
            "fills": self.fills,
            "symbols": list(self.symbols),
            "tz": self._tz,
            "names": list(self._names),
            "recent": recent,
            "schedule": schedule.to_plain(self._schedule),
            "silence": None if self._silence is None else dataclasses.asdict(self._silence),
            "length": self._length,
            "usual_close": self._usual_close,
            "columns": self._columns,
            "window": self._window,
            "missed": np.asarray(self._missed),
            "time": _ns_of(self._time),
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

        Raises:
            ValueError: the bar is out of order, came already, has another spacing than the history (nights, weekends,
                and gaps such as the history has are expected), or breaks a rule of bars.
        """
        if len(self.symbols) > 1:
            raise ValueError(f"the policy trades {len(self.symbols)} assets; call on_bars(time, {{symbol: bar}})")
        bar = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
        bar |= {"columns": columns, "funding": funding, "price_factor": price_factor}
        return self.on_bars(time, {self.symbols[0]: bar}, session_end=session_end, after_gap=after_gap)

    def on_bars(
        self,
        time: Any,
        bars: Mapping[str, Mapping[str, Any] | Sequence[float]],
        *,
        session_end: bool | None = None,
        after_gap: bool = False,
    ) -> Decision:
        """Take in the bars of a portfolio that have just closed, and return the decision in force.

        Args:
            time: their close, see `on_bar`.
            bars: by symbol, (open, high, low, close, volume), or a mapping of these names and of `columns`, `funding`
                and `price_factor`. A symbol that is not named has no bar at this time.
            session_end, after_gap: see `on_bar`.

        Raises:
            ValueError: as for `on_bar`, or a symbol is unknown, or there is no bar at all.
        """
        moment = self._moment(time)
        run = self._schedule.check(self._time, moment, ", ".join(self.symbols), after_gap)
        row = self._row(moment, self._by_symbol(bars), session_end)
        before = self._columns[NEWEST].copy()
        if "present" in self._names:
            at, missed = self._names.index("present"), self._missed
            before[at] = ~missed
            if "session_end" in self._names:
                before[self._names.index("session_end")] = 1.0
        columns = np.stack([before, self._columns[NEWEST], row.columns])
        window = np.concatenate([self._window[1:], row.features[None].astype(np.float32)])
        account, opinion = self._advanced(columns, window, moves=True)
        decides = self._age + 1 >= self._env.decision_every
        # Nothing can go wrong from here on.
        for each, symbol in zip(self._recent, self.symbols, strict=True):
            if symbol in bars:
                each.keep()
        if "present" in self._names:
            last = dict(zip(self._names, self._columns[NEWEST], strict=True))
            ended = last["session_end"] != 0 if "session_end" in last else np.zeros(len(self.symbols), bool)
            self._missed = np.where(last["present"] != 0, False, self._missed | ended)
        self._columns, self._window, self._rows, self._silence = columns, window, row.own, row.silence
        self._time, self._schedule.run = moment, run
        self._age = 0 if decides else self._age + 1
        self._accept(account, opinion, decides=decides)
        return self.decision

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
                account=_filled(self._carried.account, at, units / capital, price, fee / capital, reason, self._env)
            )

    # --- the account ---

    @property
    def time(self) -> np.datetime64:
        """The close of the last bar, UTC."""
        return self._time

    @property
    def due(self) -> np.datetime64:
        """When the next bar should close, by the times of the history."""
        return self._schedule.due(self._time)

    @property
    def equity(self) -> float:
        """The value of the account at the last close, in units of the initial capital."""
        close = self._columns[NEWEST, self._names.index("close")]
        return float(np.asarray(self._carried.account.cash) + (np.asarray(self._carried.account.units) * close).sum())

    @property
    def cash(self) -> float:
        """In units of the initial capital. Below 0 it is borrowed."""
        return float(self._carried.account.cash)

    @property
    def units(self) -> float | dict[str, float]:
        """Signed holdings, in units of the initial capital. A portfolio has them by symbol."""
        return self._numbers(np.asarray(self._carried.account.units))

    @property
    def exposure(self) -> float | dict[str, float]:
        """Signed position value / equity at the last close. A portfolio has it by symbol."""
        close = self._columns[NEWEST, self._names.index("close")]
        with on_cpu(), package_settings(x64=True):
            return self._numbers(np.asarray(exposure(self._carried.account, close)))

    @property
    def ruined(self) -> bool:
        """Whether the account is ruined. It then stays as it is."""
        return bool(self._carried.account.ruined)

    def __repr__(self) -> str:
        return (
            f"Live({', '.join(self.symbols)}: {self._schedule.shown(self._time)} {self._tz or 'UTC'}, equity "
            f"{self.equity:.4g}, exposure {self.exposure}, target {self.decision.target})"
        )

    # --- inside ---

    def _advanced(self, columns: np.ndarray, window: np.ndarray, moves: bool) -> tuple[EnvAccount, Opinion]:
        with on_cpu(), package_settings(x64=True):
            account, opinion = advance(
                self._every_bar,
                self._names,
                self.fills == "reported",
                self._agent,
                self._state,
                self._costs,
                self._carried,
                columns,
                window,
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
            time=self._time,
        )

    def _numbers(self, numbers: np.ndarray) -> float | dict[str, float]:
        """One number, or one by symbol."""
        if len(self.symbols) == 1:
            return float(numbers[0])
        return dict(zip(self.symbols, numbers.tolist(), strict=True))

    def _moment(self, time: Any) -> np.datetime64:
        if isinstance(time, np.datetime64) and not np.isnat(time):
            return time.astype("datetime64[ns]")
        try:
            return _moment(nanoseconds(time, self._tz))
        except DataError:
            raise ValueError(f"{time!r} is no time of a bar; write it as '2011-01-03 15:30'") from None

    def _by_symbol(self, bars: Any) -> dict[str, Mapping[str, Any]]:
        """The bars as mappings by symbol."""
        if not isinstance(bars, Mapping) or not bars:
            raise ValueError(f"there are no bars; {BY_SYMBOL % self.symbols[0]}")
        unknown = [symbol for symbol in bars if symbol not in self.symbols]
        if unknown:
            raise ValueError(f"symbol {unknown[0]!r} is none of {', '.join(self.symbols)}; leave it out")
        names = (*PRICES, "volume")
        return {s: b if isinstance(b, Mapping) else dict(zip(names, b, strict=False)) for s, b in bars.items()}

    def _row(self, time: np.datetime64, bars: dict[str, Mapping[str, Any]], session_end: bool | None) -> _Row:
        """The newest row, computed from a bar of each asset that has one."""
        own = tuple(
            recent.candidate(time, bars[symbol]) if symbol in bars else before.without_bar()
            for symbol, recent, before in zip(self.symbols, self._recent, self._rows, strict=True)
        )
        present = np.array([symbol in bars for symbol in self.symbols])
        years = (time - self._time) / YEAR
        values: dict[str, Any] = {name: [row.prices[name] for row in own] for name in PRICES}
        for name in ("volatility", "adv", "funding", "price_factor"):
            values[name] = [getattr(row, name) for row in own]
        values |= {"dt": years, "session_end": self._ends_session(time, session_end)}
        values["bar_dt"] = 0.0 if self._length is None else min(years, np.timedelta64(self._length, "ns") / YEAR)
        features, silence = np.stack([row.features for row in own]), None
        if self._silence is not None:
            silence = self._silence.add(_ns_of(time), present)
            gone = silence.gone
            features = np.where(gone[:, None], np.nan, features)
            values |= {"present": present, "listed": ~gone, "delisted": gone & ~self._silence.gone}
        columns = np.empty((len(self._names), len(own)))
        for i, name in enumerate(self._names):
            is_further = name.startswith(COLUMN)
            columns[i] = [row.columns[name.removeprefix(COLUMN)] for row in own] if is_further else values[name]
        if np.isnan(columns).any():
            name = self._names[int(np.argmax(np.isnan(columns).any(1)))].removeprefix(COLUMN)
            raise ValueError(
                f"the bar at {self._schedule.shown(time)} has no number for {name!r}; give columns={{...}}"
            )
        return _Row(time, columns, features, silence, own)

    def _ends_session(self, time: np.datetime64, given: bool | None) -> bool:
        if given is not None or self._usual_close is None:
            return bool(given)
        return _ns(time_of_day(wall_clock(np.array([time]), self._tz))[0]) == self._usual_close


# --- the account at the beginning, and its fills ---


def _opened(env: TradingEnv, close: np.ndarray, exposures: np.ndarray, names: tuple[str, ...]) -> Carried:
    """An account that holds these exposures, with a decision that holds. In float64."""
    financing = env.costs.has_financing or "funding" in names
    account = env.open_account(jnp.asarray(exposures), jnp.asarray(close), financing=financing)
    discrete = isinstance(env.positions, tuple)
    action = jnp.zeros((), jnp.int32) if discrete else jnp.zeros((len(close),), jnp.float32)
    return Carried(account, action, jnp.ones(len(close), bool) if "present" in names else None)


def _filled(account: Any, at: int, units: float, price: float, fee: float, reason: str, env: TradingEnv) -> Any:
    """The account after a fill of one asset."""
    chosen = jnp.arange(account.units.shape[-1]) == at
    order, number = jnp.where(chosen, units, 0.0), REASONS.index(reason)
    prices = jnp.where(chosen, price, 1.0)
    free: Any = Costs(fee=None, slippage=None)
    bar: Any = None  # which only impact reads
    after, _ = settle(account, order, prices, account.equity, bar, free, env.rules, number)
    after = after.replace(
        cash=after.cash - fee,
        # The next bar counts one more, and the fill is of that bar.
        bars_since_fill=jnp.where(order != 0, -1, after.bars_since_fill),
    )
    if after.stopped is not None and number in (STOP, TAKE):
        side = jnp.sign(-order).astype(jnp.int8)
        after = after.replace(stopped=jnp.where(chosen & (order != 0), side, after.stopped).astype(jnp.int8))
    return after


def _exposures(env: TradingEnv, account: Any, symbols: tuple[str, ...]) -> np.ndarray:
    """The exposures with which the account begins."""
    if account is None:
        return np.zeros(len(symbols))
    if isinstance(account, Mapping):
        unknown = [symbol for symbol in account if symbol not in symbols]
        if unknown:
            raise ValueError(f"account names {unknown[0]!r}, and the symbols are {', '.join(symbols)}")
        given = [account.get(symbol, 0.0) for symbol in symbols]
    elif len(symbols) > 1:
        raise ValueError(f"account {account!r} is one number for {len(symbols)} assets; {BY_SYMBOL % symbols[0]}")
    else:
        given = [account]
    try:
        exposures = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"account {account!r} is no exposure; give a number such as 0.5, or one by symbol") from None
    most = 2 * env.rules.max_leverage
    if exposures.ndim != 1 or not np.abs(exposures).sum() <= most:
        raise ValueError(
            f"account {account!r} is no exposure: position value / equity, 0.5 is one half, at most {most:g} in all"
        )
    return exposures


# --- a market's newest row ---


def _check_assets(policy: Policy, histories: tuple[Bars, ...], market: Market) -> None:
    if policy.portfolio:
        short = {bars.symbols[0] for bars in histories} - set(",".join(market.symbols).split(","))
        if short:
            raise ValueError(f"{', '.join(sorted(short))}: too few bars; {'; '.join(market.notes)}")
        return
    if len(histories) > 1:
        names = ", ".join(bars.symbols[0] for bars in histories)
        raise ValueError(f"the policy trades one asset an account, and the history is of {names}; give the bars of one")


def _check_lookbacks(market: Market, rows: tuple[Row, ...], histories: tuple[Bars, ...]) -> None:
    """Raise ValueError where a feature of the last bars alone is another number than that of the whole history."""
    for a, row in enumerate(rows):
        whole = np.asarray(market.features[-1, a], np.float32)
        known = np.isfinite(whole)
        differ = known & (row.features.astype(np.float32) != whole)
        if differ.any():
            i = int(np.argmax(differ))
            raise ValueError(
                f"the feature {market.feature_names[i]} of {histories[a].symbols[0]} is {row.features[i]:.9g} from its "
                f"last bars and {whole[i]:.9g} from all: it reads further back than its look-back says; give the "
                "Feature its true lookback"
            )


def _column_names(market: Market, env: TradingEnv, portfolio: bool) -> tuple[str, ...]:
    """The columns of a row, in their order."""
    masks = ("present", "delisted", "listed")
    optional = [name for name in OPTIONAL_COLUMNS if name not in masks and getattr(market, name) is not None]
    further = dict.fromkeys(env.costs.columns.values())
    return (
        *(*PRICES, "volatility", "dt", *(masks if portfolio else ()), *optional),
        *(f"{COLUMN}{name}" for name in further),
    )


def _market_columns(market: Market, names: tuple[str, ...]) -> np.ndarray:
    """The last row of a market, [column, A]."""
    assets, default = market.close.shape[1], {"present": True, "delisted": False, "listed": True}
    out = np.empty((len(names), assets))
    for i, name in enumerate(names):
        column = market.columns[name.removeprefix(COLUMN)] if name.startswith(COLUMN) else getattr(market, name)
        out[i] = default[name] if column is None else column[-1]
    return out


def _listed_features(market: Market, window: int) -> np.ndarray:
    """The last window of raw features in float32, NaN where an asset is not listed."""
    features = market.features[-window:].astype(np.float32)
    return features if market.listed is None else np.where(market.listed[-window:, :, None], features, np.nan)


def _stand_in(market: Market, env: TradingEnv) -> Market:
    """A market of one row: an environment needs one, and the program reads rows of its own."""
    arrays = {field.name: getattr(market, field.name) for field in dataclasses.fields(Market)}
    cut: dict[str, Any] = {name: array[-1:] for name, array in arrays.items() if isinstance(array, np.ndarray)}
    if market.session_end is not None:
        cut["session_end"] = np.ones(1, bool)
    kept = set(env.costs.columns.values())
    columns = {name: column[-1:] for name, column in market.columns.items() if name in kept}
    cut |= {"columns": columns, "segments": np.array([[0, 0, 1]], np.int64)}
    return dataclasses.replace(market, **cut)


def _stored_market(
    policy: Policy, symbols: tuple[str, ...], names: tuple[str, ...], columns: np.ndarray, time: int
) -> Market:
    """The market of one row of a state file, see `_stand_in`."""
    values = dict(zip(names, columns[NEWEST][:, None], strict=True))
    further = {name.removeprefix(COLUMN): values.pop(name) for name in names if name.startswith(COLUMN)}
    for name in ("present", "delisted", "listed"):
        if name in values:
            values[name] = values[name] != 0
    for name in ("dt", "bar_dt"):
        if name in values:
            values[name] = values[name][:, 0]
    if "session_end" in values:
        values["session_end"] = np.ones(1, bool)
    assets = len(symbols)
    return Market(
        **values,
        columns=further,
        times=np.array([_moment(time)]),
        volume=np.zeros((1, assets)),
        features=np.zeros((1, assets, len(policy.features))),
        segments=np.array([[0, 0, 1]], np.int64),
        symbols=(",".join(symbols),),
        feature_names=policy.features,
        lookback=1,
        periods_per_year=1.0,
        source="state",
        notes=(),
    )


def _bars(stored: dict[str, Any], symbol: str) -> Bars:
    times = stored["times"].astype("datetime64[ns]")
    arrays = {name: stored[name] for name in (*PRICES, "volume", *OPTIONAL)}
    columns = stored["columns"]
    return Bars(symbols=(symbol,), times=times, columns=columns, source="state", notes=(), tz=stored["tz"], **arrays)


def _decision(stored: dict[str, Any]) -> Decision:
    shares = stored["probabilities"]
    shares = None if shares is None else dict(map(tuple, shares))
    return Decision(**stored | {"time": _moment(stored["time"]), "probabilities": shares})


def _moment(ns: int) -> np.datetime64:
    return np.datetime64(int(ns), "ns")


def _ns(duration: np.timedelta64) -> int:
    return int(duration.astype("timedelta64[ns]").astype(np.int64))


def _ns_of(time: np.datetime64) -> int:
    return int(time.astype("datetime64[ns]").astype(np.int64))
