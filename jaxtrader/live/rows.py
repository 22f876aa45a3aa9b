"""The newest rows of a market, kept as bars come in: what the program of a step reads, and what is needed for the next.

They are the rows that a market of all bars would have. Accounts are not known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrader.agents.policy import Policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.live.live_schema import BarsPart, RowsPart
from jaxtrader.live.recent import OPTIONAL, RecentBars, Row, newest_rows
from jaxtrader.live.schedule import moment, nanoseconds_of, usual_close
from jaxtrader.live.step import COLUMN, FLAGS, NEWEST, SHARED
from jaxtrader.market.align import YEAR
from jaxtrader.market.bar_checks import PRICES, spacing
from jaxtrader.market.bars import Bars
from jaxtrader.market.clock import time_of_day, wall_clock
from jaxtrader.market.delistings import Silence, limit_of
from jaxtrader.market.features import Feature
from jaxtrader.market.market import OPTIONAL_COLUMNS, Market

MASKS = ("present", "delisted", "listed")  # of a portfolio


@dataclasses.dataclass(frozen=True)
class MarketRows:
    """The newest rows of a market. `after` returns those after one more time.

    Attributes:
        symbols: the symbols of the assets.
        tz: zone of the wall clock. None is UTC.
        names: the names of the columns.
        recent: the last bars of each asset.
        own: the newest row of each asset.
        columns: [3, column, A], see `step.arrays`.
        window: [W, A, F] raw features up to the newest row in float32, NaN where an asset is not listed.
        missed: [A] assets that had no bar at the last session's end before the newest row, and none since.
        silence: how long each asset of a portfolio has had no bar. None: one asset.
        time: close of the newest row.
        length: ns, the usual length of a bar. None for bars of a day or longer.
        usual_close: ns of the day at which most sessions end. None: there are none.
    """

    symbols: tuple[str, ...]
    tz: str | None
    names: tuple[str, ...]
    recent: tuple[RecentBars, ...]
    own: tuple[Row, ...]
    columns: np.ndarray
    window: np.ndarray
    missed: np.ndarray
    silence: Silence | None
    time: np.datetime64
    length: int | None
    usual_close: int | None

    @classmethod
    def of(
        cls, policy: Policy, histories: tuple[Bars, ...], specs: tuple[Feature, ...], changes: dict[str, Any]
    ) -> tuple[MarketRows, Market, TradingEnv]:
        """Return the rows at the end of histories, their market, and the policy's environment over it.

        Raises ValueError where a history is too short, or does not fit the policy.
        """
        market = Market.from_bars(histories, specs, align=policy.portfolio, delisted_after=policy.delisted_after)
        _check_assets(policy, histories, market)
        env = policy.environment(market, **changes)
        first, count = int(market.first_decisions(env.window)[0]), len(market.times)
        if first >= count:
            raise ValueError(
                f"the history has {count:,} bars, and a decision needs {first + 1:,}: {env.window:,} in its window, "
                f"and {first + 1 - env.window:,} before it for the features; give more bars"
            )
        recent = tuple(RecentBars(bars, specs, market.adv is not None) for bars in histories)
        own = tuple(newest_rows(recent, offered=False))
        _check_lookbacks(market, own, histories)
        present = np.ones((count, len(histories)), bool) if market.present is None else market.present
        names, ends = _column_names(market, env, policy.portfolio), market.session_end
        ends = np.zeros(count, bool) if ends is None else ends
        last_end, last_bar = (_last_before(mask, count - 1) for mask in (ends[:, None], present))
        limit = limit_of(market.delisted_after)
        rows = cls(
            symbols=tuple(bars.symbols[0] for bars in histories),
            tz=market.tz,
            names=names,
            recent=recent,
            own=tuple(row if has_bar else row.without_bar() for row, has_bar in zip(own, present[-1], strict=True)),
            columns=np.stack([_market_columns(market, names)] * (NEWEST + 1)),
            window=_listed_features(market, env.window),
            missed=np.broadcast_to(last_end > last_bar, (len(histories),)),
            silence=Silence.after(market.times, present, limit) if policy.portfolio else None,
            time=market.times[-1],
            length=None if market.bar_dt is None else nanoseconds_of(spacing(market.times)),
            usual_close=usual_close(market.times, ends, market.tz) if ends[:-1].any() else None,
        )
        return rows, market, env

    def column(self, name: str) -> np.ndarray:
        """Return a column [A] of the newest row."""
        return self.columns[NEWEST, self.names.index(name)]

    def after(
        self,
        time: np.datetime64,
        bars: Mapping[str, Mapping[str, Any]],
        session_end: bool | None,
        longest_pause: int | None,
    ) -> MarketRows:
        """Return the rows after bars that closed at `time`, by symbol. `keep` adds them to the recent bars.

        Raises ValueError where a bar is refused, see `RecentBars.offer`, or lacks a number that is needed.
        """
        offered = [each for each, symbol in zip(self.recent, self.symbols, strict=True) if symbol in bars]
        for each in offered:
            own_time = bars[each.symbol].get("time")
            each.offer(time if own_time is None else own_time, bars[each.symbol], longest_pause, row_time=time)
        rows = {each.symbol: row for each, row in zip(offered, newest_rows(offered, offered=True), strict=True)}
        own = tuple(
            rows[symbol] if symbol in rows else before.without_bar()
            for symbol, before in zip(self.symbols, self.own, strict=True)
        )
        present = np.array([symbol in bars for symbol in self.symbols])
        silence = None if self.silence is None else self.silence.add(nanoseconds_of(time), present)
        features = np.stack([row.features for row in own])
        if silence is not None:
            features = np.where(silence.gone[:, None], np.nan, features)
        newest = self._newest_row(time, own, present, silence, session_end)
        before, missed = self._row_before()
        return dataclasses.replace(
            self,
            own=own,
            columns=np.stack([before, self.columns[NEWEST], newest]),
            window=np.concatenate([self.window[1:], features[None].astype(np.float32)]),
            missed=missed,
            silence=silence,
            time=time,
        )

    def _newest_row(
        self,
        time: np.datetime64,
        own: tuple[Row, ...],
        present: np.ndarray,
        silence: Silence | None,
        session_end: bool | None,
    ) -> np.ndarray:
        """The columns [column, A] of a newest row. Raises ValueError where a number is missing."""
        years = (time - self.time) / YEAR
        shared: dict[str, Any] = {"dt": years, "session_end": self._ends_session(time, session_end)}
        shared["bar_dt"] = 0.0 if self.length is None else min(years, np.timedelta64(self.length, "ns") / YEAR)
        if silence is not None and self.silence is not None:
            shared |= {"present": present, "listed": ~silence.gone, "delisted": silence.gone & ~self.silence.gone}
        newest = np.empty((len(self.names), len(own)))
        for i, name in enumerate(self.names):
            newest[i] = shared[name] if name in shared else [row.columns[name] for row in own]
        if np.isnan(newest).any():
            name = self.names[int(np.argmax(np.isnan(newest).any(1)))].removeprefix(COLUMN)
            raise ValueError(f"the bars at {time} have no number for {name!r}; give columns={{{name!r}: ...}}")
        return newest

    def _row_before(self) -> tuple[np.ndarray, np.ndarray]:
        """The row BEFORE of the next step, see `step.arrays`, and `missed` after it."""
        before, last = self.columns[NEWEST].copy(), dict(zip(self.names, self.columns[NEWEST], strict=True))
        missed = self.missed
        if "present" in last:
            before[self.names.index("present")] = ~missed
            ended = last.get("session_end", np.zeros(len(missed))) != 0
            missed = np.where(last["present"] != 0, False, missed | ended)
        if "session_end" in last:
            before[self.names.index("session_end")] = 1.0
        return before, missed

    def keep(self, bars: Mapping[str, Any]) -> None:
        """Add the bars that `after` was given to the recent ones."""
        for recent, symbol in zip(self.recent, self.symbols, strict=True):
            if symbol in bars:
                recent.keep()

    def _ends_session(self, time: np.datetime64, given: bool | None) -> bool:
        if given is not None or self.usual_close is None:
            return bool(given)
        return nanoseconds_of(time_of_day(wall_clock(np.array([time]), self.tz))[0]) == self.usual_close

    # --- on disk ---

    def to_plain(self) -> dict[str, Any]:
        """Return the rows as plain data and arrays."""
        recent = []
        for each in self.recent:
            bars = each.bars
            arrays = {name: getattr(bars, name) for name in (*PRICES, "volume", *OPTIONAL)}
            arrays |= {"times": bars.times.astype("datetime64[ns]").astype(np.int64), "tz": bars.tz}
            recent.append(arrays | {"columns": dict(bars.columns), "bars_per_frame": each.bars_per_frame})
        same = ("tz", "columns", "window", "length", "usual_close")
        return {
            **{name: getattr(self, name) for name in same},
            "symbols": list(self.symbols),
            "names": list(self.names),
            "recent": recent,
            "missed": np.array(self.missed),
            "silence": None if self.silence is None else dataclasses.asdict(self.silence),
            "time": nanoseconds_of(self.time),
        }

    @classmethod
    def from_plain(cls, stored: RowsPart, specs: Sequence[Feature]) -> MarketRows:
        """Return the rows that `to_plain` described."""
        names, silence = stored.names, stored.silence
        recent = tuple(
            RecentBars(_stored_bars(each, symbol), specs, "adv" in names, each.bars_per_frame)
            for each, symbol in zip(stored.recent, stored.symbols, strict=True)
        )
        own = tuple(newest_rows(recent, offered=False))
        if "present" in names:
            have_bars = stored.columns[NEWEST, names.index("present")] != 0
            own = tuple(row if has_bar else row.without_bar() for row, has_bar in zip(own, have_bars, strict=True))
        changed: dict[str, Any] = {"recent": recent, "time": moment(stored.time)}
        changed["silence"] = None if silence is None else Silence(**vars(silence))
        return cls(own=own, **vars(stored) | changed)

    def stand_in(self, features: tuple[str, ...]) -> Market:
        """Return a market of the newest row alone.

        An environment needs a market, and the program of a step reads rows of its own.
        """
        values: dict[str, Any] = dict(zip(self.names, self.columns[NEWEST][:, None], strict=True))
        further = {name.removeprefix(COLUMN): values.pop(name) for name in self.names if name.startswith(COLUMN)}
        values |= {name: values[name] != 0 for name in FLAGS if name in values}
        values |= {name: values[name][:, 0] for name in SHARED if name in values}
        if "session_end" in values:
            values["session_end"] = np.ones(1, bool)  # else it would seem to have no sessions
        return Market(
            **values,
            columns=further,
            times=np.array([self.time]),
            volume=np.zeros((1, len(self.symbols))),
            features=np.zeros((1, len(self.symbols), len(features))),
            segments=np.array([[0, 0, 1]], np.int64),
            symbols=(",".join(self.symbols),),
            feature_names=features,
            lookback=1,
            periods_per_year=1.0,
            source="live",
            notes=(),
            tz=self.tz,
        )


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
    optional = [name for name in OPTIONAL_COLUMNS if name not in MASKS and getattr(market, name) is not None]
    further = dict.fromkeys(env.costs.columns.values())
    further |= {} if env.rules.dividends is None else {env.rules.dividends: None}
    return (
        *(*PRICES, "volatility", "dt", *(MASKS if portfolio else ()), *optional),
        *(f"{COLUMN}{name}" for name in further),
    )


def _last_before(mask: np.ndarray, row: int) -> np.ndarray:
    """The last row before `row` at which each column of a mask [T, A] is true, -1 where there is no such row."""
    return np.max(np.where(mask[:row], np.arange(row)[:, None], -1), 0, initial=-1)


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


def _stored_bars(stored: BarsPart, symbol: str) -> Bars:
    fields = vars(stored) | {"times": stored.times.astype("datetime64[ns]")}
    del fields["bars_per_frame"]
    return Bars(symbols=(symbol,), source="state", notes=(), **fields)
