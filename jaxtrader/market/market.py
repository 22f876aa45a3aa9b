"""The market: `Market` holds price histories with their features on the host, `MarketArrays` the same on the device.

The parts of a split market share their arrays and differ only in their segments. Accounts, costs and actions are not
known here.
"""

import dataclasses
from collections.abc import Sequence
from datetime import date, datetime
from functools import cached_property
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrader.market.align import (
    Columns,
    align_histories,
    alignment_notes,
    check_alignable,
    compute_columns,
    concatenate_histories,
    volume_notes,
)
from jaxtrader.market.bars import Bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import DEFAULT, Feature, resolve
from jaxtrader.market.splits import cut_segments

USUAL_PERIODS_PER_YEAR = (12, 52, 252, 365, *(8760 * k for k in (1, 2, 4, 12, 60)))
USUAL_PERIODS_TOLERANCE = 0.02
PRICE_LIMITS = (1e-15, 1e15)  # float32 keeps its precision, and products of prices stay finite
OPTIONAL_COLUMNS = ("present", "delisted", "listed", "funding", "price_factor", "adv", "session_end")

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
        funding: [T, A].
        price_factor: [T, A].
        adv: [T, A].
        session_end: [T].
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
    funding: Float[Array, "time asset"] | None = None
    price_factor: Float[Array, "time asset"] | None = None
    adv: Float[Array, "time asset"] | None = None
    session_end: Bool[Array, " time"] | None = None

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
        periods_per_year: number of bars in a year, for annualising.
        source: names of the files.
        notes: what loading found, one sentence each.
        present: [T, A] bool, the asset has a bar at this row. At other rows its open, high, low and close are its last
            close (before its first bar its first open), and its volume is 0. None if no bar is missing.
        delisted: [T, A] bool, the last bar of an asset whose data end more than 5 rows before the history. An asset
            whose data end later than that is kept at its last close. None if no asset is delisted.
        listed: [T, A] bool, a policy can decide on the asset: from the first bar at which all its features are known
            to its last, or to the end if it is not delisted. None if all assets are listed at all rows from `ready` on.
        funding: [T, A] fraction of the position's value at the previous close that longs pay to shorts over the bar
            that ends at this row. It is 0 where none is paid and where no bar is. None if no file has a funding rate.
        price_factor: [T, A] adjusted / unadjusted price, 1 for a file without an adjusted close. None if no file has
            one.
        adv: [T, A] average traded value of a bar in currency: the mean of unadjusted close times volume over the last
            20 bars, or as many as there are, including this one. At least 1e-6. None if the volume of a symbol is 0 in
            more than 1% of its bars, or constant.
        session_end: [T] bool, the last bar of a trading session, see `sessions.session_ends`. None for bars of a day or
            longer, and for markets that trade around the clock.
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
    funding: np.ndarray | None = None
    price_factor: np.ndarray | None = None
    adv: np.ndarray | None = None
    session_end: np.ndarray | None = None

    @classmethod
    def from_bars(
        cls,
        bars: Bars | Sequence[Bars],
        features: Sequence[str | Feature] | None = None,
        periods_per_year: float | None = None,
        *,
        align: bool = False,
    ) -> "Market":
        """Compute the features of one or more histories, each from its own bars, and combine the histories.

        Args:
            bars: `Bars` of one or more symbols.
            features: names or `Feature`s. None is `features.DEFAULT`.
            periods_per_year: number of bars in a year. None measures it.
            align: combine all symbols to one history on the union of their calendars, for an account that trades all of
                them. Otherwise each symbol is a history of its own.

        Raises:
            DataError: a history is shorter than a look-back, a symbol or feature comes twice, a feature is not finite
                after its warm-up, or histories to be aligned differ in their bar length or share no times.
        """
        histories = (bars,) if isinstance(bars, Bars) else tuple(bars)
        if not histories or not all(isinstance(history, Bars) for history in histories):
            raise DataError(
                "A Market is made from the Bars that load_bars returns, or from a sequence of them; give at least one."
            )
        chosen = tuple(resolve(spec) for spec in _as_specs(features))
        names = tuple(",".join(history.symbols) for history in histories)
        _check_unique("symbol", names)
        _check_unique("feature", [feature.name for feature in chosen])
        if align:
            check_alignable(histories)
        if len({history.close.shape[1] for history in histories}) > 1:
            raise DataError("The histories hold different numbers of symbols; give Bars of one symbol each.")
        _check_lengths(histories, chosen)
        _check_price_limits(histories)
        notes = [f"{name}: {note}" for name, history in zip(names, histories, strict=True) for note in history.notes]
        notes += volume_notes(names, histories)
        parts = [compute_columns(history, chosen) for history in histories]
        _check_known(names, chosen, parts)
        if align:
            tz = next((history.tz for history in histories if history.tz), None)
            columns, notes = align_histories(parts, tz), notes + alignment_notes(names, parts)
            names, calendars = (",".join(names),), [columns["times"]]
        else:
            columns, calendars = concatenate_histories(parts), [history.times for history in histories]
        return cls(
            **_read_only(columns),
            symbols=names,
            feature_names=tuple(feature.name for feature in chosen),
            lookback=max(feature.for_bars(history).lookback for feature in chosen for history in histories),
            periods_per_year=_periods_per_year(names, calendars, periods_per_year),
            source=", ".join(dict.fromkeys(history.source for history in histories)),
            notes=tuple(notes),
        )

    def split(self, *parts: float | str | date | datetime | np.datetime64, embargo: int = 0) -> tuple["Market", ...]:
        """Cut the time axis into parts, at the same times for all symbols.

        Args:
            parts: k fractions of the union calendar for k parts, each above 0, with a sum of at most 1. Or k increasing
                dates for k + 1 parts: a bar at or after a date belongs to the later part. Dates without an offset are
                UTC.
            embargo: number of bars of each symbol to drop from the end of the first part.

        Returns:
            One Market for each part, which shares the arrays of this one. Windows may reach back before the part. A
            symbol without bars in a part is left out of it.

        Raises:
            DataError: the fractions, dates or embargo are not valid, or a part has no bars.
        """
        return tuple(
            dataclasses.replace(self, segments=segments, symbols=tuple(self.symbols[i] for i in kept))
            for segments, kept in cut_segments(self.times, self.segments, parts, embargo)
        )

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

    def arrays(self, dtype: str = "float32") -> MarketArrays:
        """Copy the market to the device.

        Args:
            dtype: "float32", or "float64" inside `jax.enable_x64(True)`.

        Raises:
            ValueError: the dtype is another one, or JAX would cut float64 to float32.
        """
        wanted = np.dtype(dtype)
        if wanted not in (np.dtype("float32"), np.dtype("float64")):
            raise ValueError(f"arrays(dtype='{wanted}') is not supported; use 'float32' or 'float64'.")
        if jax.dtypes.canonicalize_dtype(wanted) != wanted:
            raise ValueError("JAX would cut arrays('float64') to float32; call it inside `with jax.enable_x64(True):`.")
        required = ("open", "high", "low", "close", "volatility", "dt")
        optional = {name: getattr(self, name) for name in OPTIONAL_COLUMNS if getattr(self, name) is not None}
        return MarketArrays(
            **{
                name: jnp.asarray(values, None if values.dtype == bool else wanted) for name, values in optional.items()
            },
            **{name: jnp.asarray(getattr(self, name), wanted) for name in required},
            features=jnp.asarray(np.nan_to_num(self.features, nan=0.0), wanted),
            segments=jnp.asarray(self.segments, jnp.int32),
            ready=jnp.asarray(self.ready, jnp.int32),
        )

    def describe(self) -> str:
        """Describe the market in one line: symbols, number and dates of the bars in its segments, periods, features."""
        names = self.symbols[0].split(",") if self.close.shape[1] > 1 and len(self.symbols) == 1 else self.symbols
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        shown += " side by side" if self.close.shape[1] > 1 else ""
        bars = int(np.sum(self.segments[:, 2] - self.segments[:, 1]))
        first = self.times[self.segments[:, 1]].min().astype("datetime64[D]")
        last = self.times[self.segments[:, 2] - 1].max().astype("datetime64[D]")
        return (
            f"{shown}: {bars:,} bars, {first} to {last}, {self.periods_per_year:,.6g} periods a year, "
            f"{len(self.feature_names)} features (look-back {self.lookback})"
        )

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
        raise DataError(f"window={window} is not valid; a decision sees at least 1 bar.")
    return segments[:, 1].clip(min=ready + window - 1)


def _as_specs(features: Sequence[str | Feature] | None) -> Sequence[str | Feature]:
    if features is None:
        return DEFAULT
    specs = (features,) if isinstance(features, (str, Feature)) else tuple(features)
    if not specs:
        raise DataError("features=() is empty; give at least one feature, or None for the default ones.")
    return specs


def _check_unique(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise DataError(f"The {kind} '{name}' comes twice; give each {kind} once.")


def _check_price_limits(histories: Sequence[Bars]) -> None:
    for history in histories:
        for name in ("low", "high"):
            prices = getattr(history, name)
            beyond = (prices < PRICE_LIMITS[0]) | (prices > PRICE_LIMITS[1])
            if beyond.any():
                row = int(np.argmax(beyond.any(1)))
                raise DataError(
                    f"The {name} of {', '.join(history.symbols)} ({history.source}) at bar {row} is "
                    f"{prices[row].max():g}, outside "
                    f"{PRICE_LIMITS[0]:g} to {PRICE_LIMITS[1]:g}, the range for float32; give prices in another unit."
                )


def _check_lengths(histories: Sequence[Bars], features: Sequence[Feature]) -> None:
    for history in sorted(histories, key=len):
        longest = max((feature.for_bars(history) for feature in features), key=lambda feature: feature.lookback)
        if len(history) < longest.lookback:
            raise DataError(
                f"{','.join(history.symbols)} has {len(history)} bars, too few for {longest.name}, which needs "
                f"{longest.lookback}; leave the symbol out or choose features with a shorter look-back."
            )


def _check_known(names: Sequence[str], features: Sequence[Feature], parts: Sequence[Columns]) -> None:
    for name, part in zip(names, parts, strict=True):
        empty = np.isnan(part["features"][-1]).any(axis=0)
        if empty.any():
            feature = features[int(np.argmax(empty))].name
            raise DataError(f"{name} has no bar with a value of {feature}; leave the feature or the symbol out.")


def _read_only(columns: Columns) -> Columns:
    """Make the arrays read-only, because the parts of a split share them."""
    for values in columns.values():
        if values is not None:
            values.flags.writeable = False
    return columns


def _periods_per_year(names: Sequence[str], calendars: Sequence[np.ndarray], given: float | None) -> float:
    """Return the given number, or the median over histories of (bars - 1) / (days / 365.25).

    A median within 2% of a usual number, such as 252, becomes that number.
    """
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise DataError(f"periods_per_year={given} is not valid; it must be a finite number above 0.")
        return float(given)
    measured = []
    for name, times in zip(names, calendars, strict=True):
        if len(times) < 2:
            raise DataError(
                f"{name} has one bar, so periods_per_year cannot be measured; give more bars, or periods_per_year."
            )
        days = (times[-1] - times[0]) / np.timedelta64(1, "D")
        measured.append((len(times) - 1) / (days / 365.25))
    median = float(np.median(measured))
    nearest = min(USUAL_PERIODS_PER_YEAR, key=lambda usual: abs(median / usual - 1))
    return float(nearest) if abs(median / nearest - 1) <= USUAL_PERIODS_TOLERANCE else median
