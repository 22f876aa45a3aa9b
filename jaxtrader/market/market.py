"""The market: `Market` holds price histories with their features on the host, `MarketArrays` the same on the device.

The parts of a split market share their arrays and differ only in their segments. Accounts, costs and actions are not
known here.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Literal, TypeVar

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrader.market.align import (
    Columns,
    align_histories,
    compute_columns,
    concatenate_histories,
    volume_notes,
)
from jaxtrader.market.bar_checks import PRICES
from jaxtrader.market.bars import Bars, histories_of
from jaxtrader.market.clock import common_zone, wall_clock
from jaxtrader.market.delistings import DELISTED_AFTER, days_without_bar
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import DEFAULT, Feature, resolve
from jaxtrader.market.lengths import pad_rows
from jaxtrader.market.periods import annualize
from jaxtrader.market.shared_rows import check_alignable
from jaxtrader.market.splits import cut_segments
from jaxtrader.setting_checks import check_flag, check_type, check_whole, setting

OPTIONAL_COLUMNS = ("present", "delisted", "listed", "bar_dt", "funding", "price_factor", "adv", "session_end")

MOST_SOURCES = 8  # names of files that `Market.source` lists

IntArray = TypeVar("IntArray", np.ndarray, Array)


class MarketArrays(flax.struct.PyTreeNode):
    """The market on the device, a pytree that is passed to jitted functions.

    Attributes:
        open: [T, A], like high, low and close in the currency of the file.
        high: [T, A].
        low: [T, A].
        close: [T, A].
        features: [T, A, F], not normalised. They are 0 in the warm-up, which `ready` keeps out of every window.
        volatility: [T, A] standard deviation of the last 20 one-bar log returns.
        dt: [T] years (ACT/365) since the previous close, 0 at the first bar of a history.
        segments: [S, 3] (history_start, start, end), see `Market`.
        ready: [S] see `Market.ready`.
        present: [T, A], like all below as in `Market`, and None if it is None there.
        delisted: [T, A].
        listed: [T, A].
        bar_dt: [T].
        funding: [T, A].
        price_factor: [T, A].
        adv: [T, A].
        session_end: [T].
        columns: those of `Market.columns` that were asked for. None: no column.
    """

    open: Float[Array, "time asset"]
    high: Float[Array, "time asset"]
    low: Float[Array, "time asset"]
    close: Float[Array, "time asset"]
    features: Float[Array, "time asset feature"]
    volatility: Float[Array, "time asset"]
    dt: Float[Array, " time"]
    segments: Int[Array, "segment 3"]
    ready: Int[Array, " segment"]
    present: Bool[Array, "time asset"] | None = None
    delisted: Bool[Array, "time asset"] | None = None
    listed: Bool[Array, "time asset"] | None = None
    bar_dt: Float[Array, " time"] | None = None
    funding: Float[Array, "time asset"] | None = None
    price_factor: Float[Array, "time asset"] | None = None
    adv: Float[Array, "time asset"] | None = None
    session_end: Bool[Array, " time"] | None = None
    columns: dict[str, Float[Array, "time asset"]] | None = None

    def first_decisions(self, window: int) -> Int[Array, " segment"]:
        """Return the first row of each segment at which a policy can decide, see the function `first_decisions`."""
        return first_decisions(self.segments, self.ready, window)


@dataclasses.dataclass(frozen=True, eq=False)
class Market:
    """One or more price histories, one after another on the time axis, with their features, in float64.

    T is the number of rows of all histories, A of assets in a history, F of features and S of segments. A segment is
    the part of one history in which a policy may decide. The arrays are read-only.

    Attributes:
        times: [T] datetime64[ns], UTC, the close of each bar. Increasing within a history.
        open: [T, A], like high, low and close in the currency of the file.
        high: [T, A].
        low: [T, A].
        close: [T, A].
        volume: [T, A].
        features: [T, A, F], not normalised. NaN in the warm-up. A row without a bar has those of the asset's last bar.
        volatility: [T, A] standard deviation (ddof=1) of the last 20 one-bar log returns, or of as many as there are.
            At least 1e-6.
        dt: [T] years (ACT/365) since the previous close, 0 at the first bar of a history.
        segments: [S, 3] int64 (history_start, start, end): the first row of the history, the first row at which this
            market may decide, and the row after the last. Windows may reach back to history_start.
        symbols: [S] names. A history of several assets joins theirs by commas.
        feature_names: [F] names.
        lookback: number of bars that the feature with the longest look-back needs.
        periods_per_year: number of bars in a year, for annualising. Of several histories it is that of the union of
            their times.
        source: names of the files, the first 8 of many.
        notes: what loading found, one sentence each.
        present: [T, A] bool, the asset has a bar at this row. At other rows its open, high, low and close are its last
            close (before its first bar its first open), and its volume is 0. None if no bar is missing.
        delisted: [T, A] bool, the first row at which an asset counts as delisted. It has had no bar for more than
            `delisted_after` while others had (money rule 9). None if there is no such row.
        listed: [T, A] bool, a policy can decide on the asset. That is from the first bar at which all its features are
            known, but not while it counts as delisted. None if all assets are listed at all rows from `ready` on.
        bar_dt: [T] years (ACT/365) from the open of the row's bars to their close: `dt`, or the usual spacing where
            that is shorter. None for bars of a day or longer, whose time from close to close counts as nights.
        funding: [T, A] fraction of the position's value at this close that longs pay to shorts there. It is 0 where
            none is paid and where no bar is. None if no file has a funding rate.
        price_factor: [T, A] adjusted / unadjusted price, 1 for a file without an adjusted close. None if no file has
            one.
        adv: [T, A] average traded value of a bar in currency. It is the mean of unadjusted close times volume over the
            last 20 bars, or as many as there are, including this one. At least 1e-6. None if the volume of a symbol is
            0 in more than 1% of its bars, or constant.
        session_end: [T] bool, the last bar of a trading session, see `sessions.session_ends`. None for bars of a day or
            longer, and for markets that trade around the clock.
        columns: further numeric columns of the bars by their names, [T, A] each, which costs may name. At a row without
            a bar they are those of the asset's last bar, and before its first those of its first. NaN where a history
            lacks the column.
        periods_by_symbol: number of bars in a year of each history, by its name in `symbols`. Empty stands for
            `periods_per_year` throughout.
        tz: zone of the exchange's wall clock, in which dates and tables are shown. None is UTC, also where histories
            differ.
        tz_by_symbol: the same of each history, by its name in `symbols`. Empty stands for `tz` throughout.
        delisted_after: days without a bar after which an asset of an aligned history counts as delisted. Infinite: it
            never does.

    Example:
        >>> market = jt.Market.from_bars(jt.load_bundled(("IBM", "MSFT")))
        >>> market.symbols
        ('IBM', 'MSFT')
        >>> train, valid, test = market.split("2008-01-01", "2011-01-01")
    """

    times: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    features: np.ndarray
    volatility: np.ndarray
    dt: np.ndarray
    segments: np.ndarray
    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    lookback: int
    periods_per_year: float
    source: str
    notes: tuple[str, ...]
    present: np.ndarray | None = None
    delisted: np.ndarray | None = None
    listed: np.ndarray | None = None
    bar_dt: np.ndarray | None = None
    funding: np.ndarray | None = None
    price_factor: np.ndarray | None = None
    adv: np.ndarray | None = None
    session_end: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    periods_by_symbol: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tz: str | None = None
    tz_by_symbol: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    delisted_after: float = DELISTED_AFTER

    @classmethod
    def from_bars(
        cls,
        bars: Bars | Sequence[Bars],
        features: Sequence[str | Feature] | None = None,
        periods_per_year: float | Mapping[str, float] | None = None,
        *,
        align: bool = False,
        min_bars: int = 1,
        delisted_after: float | timedelta | Literal["never"] = DELISTED_AFTER,
    ) -> "Market":
        """Compute the features of one or more histories, each from its own bars, and combine the histories.

        Args:
            bars: `Bars` of one or more symbols.
            features: names or `Feature`s. None is `features.DEFAULT`.
            periods_per_year: number of bars in a year, one for all or by symbol. What is not given is found from the
                times of each history (`calendar.py`).
            align: combine all symbols to one history on the union of their calendars, for an account that trades all of
                them. Bars of a day that close at different times of it share a row, at the latest close. Otherwise each
                symbol is a history of its own.
            min_bars: a symbol with fewer bars is left out, and so is one that is shorter than a look-back. `notes` name
                them.
            delisted_after: days, or a timedelta, without a bar after which an aligned asset counts as delisted, or
                "never". The wait must also be above three times the longest so far (money rule 9).

        Raises:
            DataError: all histories are too short, a symbol or feature comes twice, or a feature is not finite after
                its warm-up. Or histories to be aligned differ in their bar length, share no times, or have bars that
                begin before a bar of another has closed.
            ValueError: `align` is no flag, or `min_bars` no number of bars.
        """
        histories = histories_of(bars)
        check_flag("align", align)
        days = days_without_bar(delisted_after)
        if days != DELISTED_AFTER and not align:
            raise DataError(
                f"{setting('delisted_after', delisted_after)} is of the assets of one account; it needs `align=True`"
            )
        chosen = tuple(resolve(spec) for spec in _as_specs(features))
        names = tuple(",".join(history.symbols) for history in histories)
        _check_unique("symbol", names)
        _check_unique("feature", [feature.name for feature in chosen])
        histories, notes = long_enough(histories, chosen, min_bars)
        every, names = names, tuple(",".join(history.symbols) for history in histories)
        left_out = [name for name in every if name not in set(names)]
        if align:
            check_alignable(histories)
        if len({history.close.shape[1] for history in histories}) > 1:
            raise DataError("The histories hold different numbers of symbols; give Bars of one symbol each")
        notes += [f"{name}: {note}" for name, history in zip(names, histories, strict=True) for note in history.notes]
        notes += volume_notes(names, histories)
        parts = [compute_columns(history, chosen) for history in histories]
        _check_known(names, chosen, parts)
        tz = common_zone(history.tz for history in histories)
        if align:
            columns, calendar, found = align_histories(histories, parts, tz, days)
            notes += found
            names, times, calendars = (",".join(names),), [columns["times"]], [calendar]
        else:
            columns, times = concatenate_histories(parts), [history.times for history in histories]
            calendars = [history.calendar for history in histories]
        periods, total, doubts = annualize(names, left_out, calendars, times, periods_per_year, tz)
        notes += doubts
        return cls(
            **_made_read_only(columns),
            symbols=names,
            feature_names=tuple(feature.name for feature in chosen),
            lookback=max(feature.for_bars(history).lookback for feature in chosen for history in histories),
            periods_per_year=total,
            periods_by_symbol=periods,
            tz=tz,
            tz_by_symbol={} if align else {n: h.tz for n, h in zip(names, histories, strict=True)},
            source=_first_sources(list(dict.fromkeys(history.source for history in histories))),
            notes=tuple(notes),
            delisted_after=days,
        )

    def split(self, *parts: float | str | date | datetime | np.datetime64, embargo: int = 0) -> tuple["Market", ...]:
        """Cut the time axis into parts, at the same times for all symbols.

        Args:
            parts: k fractions of the union calendar for k parts, each above 0, with a sum of at most 1. Or k increasing
                dates for k + 1 parts: a bar at or after a date belongs to the later part. Dates without an offset are
                of the wall clock of `tz`, and datetime64 is UTC, as `times` are.
            embargo: number of bars of each symbol to drop from the end of the first part.

        Returns:
            One Market for each part, which shares the arrays of this one. Windows may reach back before the part. A
            symbol without bars in a part is left out of it.

        Raises:
            DataError: the fractions or dates are not valid, or a part has no bars.
            ValueError: `embargo` is no number of bars.
        """
        cut = cut_segments(self.times, self.segments, parts, embargo, self.tz)
        return tuple(self.keep(kept, segments) for segments, kept in cut)

    def keep(self, kept: Sequence[int] | np.ndarray, segments: np.ndarray | None = None) -> "Market":
        """Return the market of some of the segments, by their numbers. It shares the arrays of this one.

        `segments` [len(kept), 3] take the place of theirs.
        """
        segments = self.segments[kept] if segments is None else segments
        return dataclasses.replace(self, segments=segments, symbols=tuple(self.symbols[i] for i in kept))

    @cached_property
    def ready(self) -> np.ndarray:
        """[S] first row of each segment's history from which the features are known.

        In an aligned history this is the first row at which any asset is `listed`. The others are masked until then.
        """
        rows = []
        for history_start, _, end in self.segments:
            if self.listed is not None:
                rows.append(history_start + int(np.argmax(self.listed[history_start:end].any(axis=1))))
                continue
            unknown = np.flatnonzero(~np.isfinite(self.features[history_start:end]).all(axis=(1, 2)))
            rows.append(history_start + (unknown[-1] + 1 if unknown.size else 0))
        return np.array(rows, np.int64)

    def first_decisions(self, window: int) -> np.ndarray:
        """Return the first row of each segment at which a policy can decide, see the function `first_decisions`."""
        return first_decisions(self.segments, self.ready, window)

    def arrays(self, dtype: str = "float32", rows: int | None = None, columns: Sequence[str] = ()) -> MarketArrays:
        """Copy the market to the device.

        Args:
            dtype: "float32", or "float64" inside `jax.enable_x64(True)`.
            rows: T of the arrays, see `round_length`. Further rows repeat the last one, and belong to no segment. None
                adds none.
            columns: names of further columns to copy.

        Raises:
            ValueError: the dtype is another one, or JAX would cut float64 to float32.
        """
        wanted = np.dtype(dtype)
        if wanted not in (np.dtype("float32"), np.dtype("float64")):
            raise ValueError(f"`arrays(dtype='{wanted}')` is not supported; use float32 or float64")
        if jax.dtypes.canonicalize_dtype(wanted) != wanted:
            raise ValueError(
                "JAX would cut `arrays('float64')` to float32; call it inside `with jax.enable_x64(True):`"
            )
        names = (*PRICES, "volatility", "dt", *OPTIONAL_COLUMNS)
        kept = {name: getattr(self, name) for name in names} | {"features": np.nan_to_num(self.features, nan=0.0)}

        def on_device(column: np.ndarray) -> Array:
            column = column if rows is None else pad_rows(column, rows)
            # Copied by NumPy, since `jnp.asarray` compiles a program for each shape.
            return jax.device_put(np.array(column, bool if column.dtype == bool else wanted))

        return MarketArrays(
            **{name: on_device(column) for name, column in kept.items() if column is not None},
            segments=jax.device_put(np.array(self.segments, np.int32)),
            ready=jax.device_put(np.array(self.ready, np.int32)),
            columns={name: on_device(self.columns[name]) for name in columns} or None,
        )

    def describe(self) -> str:
        """Describe the market in one line: symbols, number and dates of the bars in its segments, periods, features."""
        names = self.symbols[0].split(",") if self.close.shape[1] > 1 and len(self.symbols) == 1 else self.symbols
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        shown += " side by side" if self.close.shape[1] > 1 else ""
        bars = int(np.sum(self.segments[:, 2] - self.segments[:, 1]))
        first, last = self.times[self.segments[:, 1]].min(), self.times[self.segments[:, 2] - 1].max()
        first, last = wall_clock(np.array([first, last]), self.tz).astype("datetime64[D]")
        return (
            f"{shown}: {bars:,} bars, {first} to {last}, {self.describe_periods()}, "
            f"{len(self.feature_names)} features (look-back {self.lookback})"
        )

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the times and closes in the segments. Other bars have another one, and other names have not.

        Closes are rounded to float32, so that digits lost in one export of the same bars do not matter.
        """
        digest = hashlib.sha256()
        for _, first, end in self.segments:
            digest.update(np.ascontiguousarray(self.times[first:end].astype("datetime64[ns]")).tobytes())
            digest.update(np.ascontiguousarray(self.close[first:end], np.float32).tobytes())
        return digest.hexdigest()[:16]

    def periods_of(self, symbol: str) -> float:
        """Return the number of bars in a year of one history, by its name in `symbols`."""
        return self.periods_by_symbol.get(symbol, self.periods_per_year)

    def tz_of(self, symbol: str) -> str | None:
        """Return the zone of one history, by its name in `symbols`."""
        return self.tz_by_symbol.get(symbol, self.tz)

    @property
    def shared_periods_per_year(self) -> float | None:
        """The number of bars in a year that all histories and their union share. None where they differ."""
        own = {self.periods_of(symbol) for symbol in self.symbols}
        return self.periods_per_year if own == {self.periods_per_year} else None

    def describe_periods(self) -> str:
        """Describe the number of bars in a year: "252 periods a year", or "252 to 365" where histories differ."""
        own = sorted({self.periods_of(symbol) for symbol in self.symbols})
        return " to ".join(f"{periods:,.6g}" for periods in dict.fromkeys((own[0], own[-1]))) + " periods a year"

    def __repr__(self) -> str:
        return f"Market({self.describe()})"


def first_decisions(segments: IntArray, ready: IntArray, window: int) -> IntArray:
    """Return the first row of each segment at which a policy can decide.

    That is the segment's start, or the first row whose whole window has known features if that is later.

    Args:
        segments: [S, 3] (history_start, start, end) of a `Market` or of `MarketArrays`.
        ready: [S] rows at which features are known.
        window: number of bars that a decision sees.

    Returns:
        [S] rows. A row at or after `end` means that the segment is too short for a decision.

    Raises:
        DataError: `window` is below 1.
    """
    if window < 1:
        raise DataError(f"{setting('window', window)} must be at least 1 bar")
    return segments[:, 1].clip(min=ready + window - 1)


def _as_specs(features: Sequence[str | Feature] | None) -> Sequence[str | Feature]:
    if features is None:
        return DEFAULT
    one = isinstance(features, str | Feature) or not isinstance(features, Iterable)
    specs = (features,) if one else tuple(features)
    if not specs:
        raise DataError("`features=()` is empty; give at least one feature, or leave it out for the default ones")
    return specs


def _check_unique(kind: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"The {kind} '{name}' comes twice; give each {kind} once")
        seen.add(name)


def check_min_bars(min_bars: int) -> None:
    """Raise ValueError where `min_bars` of `Market.from_bars` is no number of bars."""
    check_whole("min_bars", min_bars, unit="bars")


def long_enough(
    histories: Sequence[Bars], features: Sequence[Feature], min_bars: int
) -> tuple[Sequence[Bars], list[str]]:
    """Return the histories with enough bars, and a note on each other one. Raise DataError if none is long enough."""
    check_min_bars(min_bars)
    kept, notes, reasons = [], [], []
    for history in histories:
        longest = max((feature.for_bars(history) for feature in features), key=lambda feature: feature.lookback)
        name, bars, needed = ",".join(history.symbols), len(history), max(min_bars, longest.lookback)
        is_lookback = longest.lookback == needed
        why = f"for {longest.name}, which needs {needed}" if is_lookback else f"for {setting('min_bars', needed)}"
        if bars >= needed:
            kept.append(history)
            continue
        reasons.append((bars, f"{name} has {bars} bars, too few {why}"))
        notes.append(f"{name}: Left out, because its {bars} bars are too few {why}.")
    if not kept:
        bars, reason = max(reasons)
        others = ", and no other symbol has more" if len(reasons) > 1 else ""
        raise DataError(f"{reason}{others}; give more bars, or choose features with a shorter look-back")
    return kept, notes


def check_market_type(market: object, user: str) -> None:
    """Raise ValueError where this is no Market. The text names the `user` of the market, such as "simulate"."""
    check_type(user, market, Market, "make one with `Market.from_bars(bars)`")


def _check_known(names: Sequence[str], features: Sequence[Feature], parts: Sequence[Columns]) -> None:
    for name, part in zip(names, parts, strict=True):
        empty = np.isnan(part["features"][-1]).any(axis=0)
        if empty.any():
            feature = features[int(np.argmax(empty))].name
            raise DataError(f"{name} has no bar with a value of {feature}; leave the feature or the symbol out")


def _first_sources(sources: Sequence[str]) -> str:
    more = f" and {len(sources) - MOST_SOURCES} more" if len(sources) > MOST_SOURCES else ""
    return ", ".join(sources[:MOST_SOURCES]) + more


def _made_read_only(columns: Columns) -> Columns:
    """Make the arrays read-only, because the parts of a split share them."""
    for values in [*columns.values(), *columns["columns"].values()]:
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    return columns
