"""A `Market`: histories of one or more symbols end to end with raw features, on the host; its `Tape` is on the device.

Splits share the columns and move only the borders of the segments. No account, no cost and no action is known here.
"""

import dataclasses
from collections.abc import Sequence
from datetime import date, datetime
from functools import cached_property

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrader.market.bars import Bars, DataError
from jaxtrader.market.features import DEFAULT, Feature, resolve
from jaxtrader.market.layout import (
    Columns,
    alignment_notes,
    check_alignable,
    columns_of,
    end_to_end,
    side_by_side,
    volume_notes,
)
from jaxtrader.market.splits import cut_segments

SNAPS = (12, 52, 252, 365, *(8760 * k for k in (1, 2, 4, 12, 60)))
SNAP_TOLERANCE = 0.02
PRICE_RANGE = (1e-15, 1e15)
OPTIONAL = ("present", "delisted", "listed", "funding", "price_factor", "adv", "session_end")


class Tape(flax.struct.PyTreeNode):
    """The market on the device, a pytree that travels as a jit argument; histories lie end to end on the time axis.

    Attributes:
        open: [T, A], as are high, low and close, in the units of the file.
        high: [T, A].
        low: [T, A].
        close: [T, A].
        features: [T, A, F] raw; 0 in the warm-up, which `ready` keeps out of every window.
        volatility: [T, A], deviation of the last 20 one-bar log returns.
        dt: [T] years (ACT/365) since the close before; 0 at a history's first bar.
        segments: [S, 3] (history_start, first_decision, end exclusive), rows of the tape.
        ready: [S] first row of each segment's history from which an asset's features are known: see `Market.ready`.
        present: [T, A], as are those below; None, and not on the device, where `Market` has None.
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


@dataclasses.dataclass(frozen=True, eq=False)
class Market:
    """Histories end to end, float64, with segments that say where decisions may be made.

    Attributes:
        times: [T] datetime64[ns], UTC, the close of each bar; increasing within a history.
        open: [T, A], as are high, low, close and volume.
        high: [T, A].
        low: [T, A].
        close: [T, A].
        volume: [T, A].
        features: [T, A, F] raw, NaN in the warm-up; at a missing row those of the asset's last bar.
        volatility: [T, A] deviation (ddof=1) of the last 20 log returns, of what there is before; at least 1e-6.
        dt: [T] years (ACT/365) between closes, 0 at each history's first bar.
        segments: [S, 3] int64 (history_start, first_decision, end exclusive), rows of the arrays above.
        symbols: one name a segment; the names of a history of several assets are joined by commas.
        feature_names: F names.
        lookback: bars the longest feature needs.
        periods_per_year: for annualising.
        source: file names.
        notes: what loading found, one sentence each.
        present: [T, A] bool, a bar of the asset stands at this row. A missing row holds its last close as open, high,
            low and close, and volume 0; before the first bar its first open. None where no row is missing.
        delisted: [T, A] bool, the last bar of an asset whose data end more than 5 rows before its history's; else it
            is held at its last close. None where there is none.
        listed: [T, A] bool, the asset can be decided on: from the bar with which all its features are known to its
            last, or to the end where it is not delisted. None where that is every asset at every row from `ready` on.
        funding: [T, A] share of the position's value at the close before that longs pay to shorts over the bar that
            ends at this row; 0 where none is due and at missing rows. None where no file has a funding column.
        price_factor: [T, A] adjusted / raw price, 1 for a file without an adjusted close; None where no file has one.
        adv: [T, A] average traded value a bar in currency, the mean of raw volume times raw close over the last 20 bars
            up to and including this row, of what there is before; at least 1e-6. None where the volume of a symbol is
            not trusted: it is 0 in more than 1% of the bars, or the same in all.
        session_end: [T] bool, the last bar of a trading session: see `sessions.session_ends`. None for bars of a day or
            longer, and for markets that are open around the clock.
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
        """Lay one history or several end to end and compute their features, each from its own bars only.

        Args:
            bars: what `load_bars` returned.
            features: names or `Feature`s; default `features.DEFAULT`.
            periods_per_year: overrides the measured number.
            align: make one history of all assets, on the union of their calendars, for one account that trades them
                all; else each symbol is a history of its own. What is missing then: `present`, `delisted`, `listed`.

        Raises:
            DataError: a history is too short for the features, a symbol or feature comes twice, a feature is not
                finite after its warm-up, or the bars to be aligned have other lengths or no times in common.
        """
        histories = (bars,) if isinstance(bars, Bars) else tuple(bars)
        if not histories or not all(isinstance(history, Bars) for history in histories):
            raise DataError(
                "A Market is made from the Bars that load_bars returns, or from a sequence of them; give at least one."
            )
        chosen = tuple(resolve(spec) for spec in _listed(features))
        names = tuple(",".join(history.symbols) for history in histories)
        _refuse_twice("symbol", names)
        _refuse_twice("feature", [feature.name for feature in chosen])
        if align:
            check_alignable(histories)
        if len({history.close.shape[1] for history in histories}) > 1:
            raise DataError("The histories hold different numbers of symbols a bar; give Bars of one symbol each.")
        _refuse_short(histories, chosen)
        _refuse_beyond_float32(histories)
        notes = [f"{name}: {note}" for name, history in zip(names, histories, strict=True) for note in history.notes]
        notes += volume_notes(names, histories)
        parts = [columns_of(history, chosen) for history in histories]
        _refuse_unknown(names, chosen, parts)
        if align:
            tz = next((history.tz for history in histories if history.tz), None)
            columns, notes = side_by_side(parts, tz), notes + alignment_notes(names, parts)
            names, calendars = (",".join(names),), [columns["times"]]
        else:
            columns, calendars = end_to_end(parts), [history.times for history in histories]
        return cls(
            **_frozen(columns),
            symbols=names,
            feature_names=tuple(feature.name for feature in chosen),
            lookback=max(feature.on(history).lookback for feature in chosen for history in histories),
            periods_per_year=_periods_per_year(names, calendars, periods_per_year),
            source=", ".join(dict.fromkeys(history.source for history in histories)),
            notes=tuple(notes),
        )

    def split(self, *parts: float | str | date | datetime | np.datetime64, embargo: int = 0) -> tuple["Market", ...]:
        """Cut the time axis, at the same dates for all symbols, into markets that share these columns.

        Args:
            parts: fractions (above 0, summing to at most 1) of the union calendar of all symbols, one a part; or k
                increasing dates (UTC where they carry no offset), for k + 1 parts: a bar at or after a date belongs to
                the later part.
            embargo: bars of each symbol taken off the end of the first part.

        Returns:
            One Market a part. Its windows may look back to history_start; a symbol without bars in it is left out.

        Raises:
            DataError: fractions or dates that cannot be, or a part without a bar.
        """
        return tuple(
            dataclasses.replace(self, segments=segments, symbols=tuple(self.symbols[i] for i in kept))
            for segments, kept in cut_segments(self.times, self.segments, parts, embargo)
        )

    @cached_property
    def ready(self) -> np.ndarray:
        """[S] first row of each segment's history from which the features are finite of every asset that has begun.

        An asset begins with its features: until it is `listed` it is masked, and does not keep the others waiting. So
        among assets of unequal beginnings `ready` is the first row at which any of them is listed.
        """
        rows = []
        for start, _, end in self.segments:
            if self.listed is not None:
                rows.append(start + int(np.argmax(self.listed[start:end].any(axis=1))))
                continue
            holes = np.flatnonzero(~np.isfinite(self.features[start:end]).all(axis=(1, 2)))
            rows.append(start + (holes[-1] + 1 if holes.size else 0))
        return np.array(rows, np.int64)

    def first_cursors(self, window: int) -> np.ndarray:
        """[S] first row of each segment where a policy with that window of bars can decide (>= end: nowhere)."""
        if window < 1:
            raise DataError(f"window={window} is not possible; a decision sees at least 1 bar.")
        return np.maximum(self.segments[:, 1], self.ready + window - 1)

    def tape(self, dtype: str = "float32") -> Tape:
        """The columns on the device in `dtype`; "float64" only where the caller has switched x64 on."""
        wanted = np.dtype(dtype)
        if wanted not in (np.dtype("float32"), np.dtype("float64")):
            raise ValueError(f"tape(dtype='{wanted}') is not offered; use 'float32' or 'float64'.")
        if jax.dtypes.canonicalize_dtype(wanted) != wanted:
            raise ValueError(
                "tape('float64') would be cut to float32 here; call it inside `with jax.enable_x64(True):`."
            )
        fields = ("open", "high", "low", "close", "volatility", "dt")
        present = {name: getattr(self, name) for name in OPTIONAL if getattr(self, name) is not None}
        return Tape(
            **{name: jnp.asarray(values, None if values.dtype == bool else wanted) for name, values in present.items()},
            **{name: jnp.asarray(getattr(self, name), wanted) for name in fields},
            features=jnp.asarray(np.nan_to_num(self.features, nan=0.0), wanted),
            segments=jnp.asarray(self.segments, jnp.int32),
            ready=jnp.asarray(self.ready, jnp.int32),
        )

    def describe(self) -> str:
        """One line for the terminal: symbols, tradable bars and their dates (UTC), periods a year, features."""
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


def _listed(features: Sequence[str | Feature] | None) -> Sequence[str | Feature]:
    if features is None:
        return DEFAULT
    listed = (features,) if isinstance(features, (str, Feature)) else tuple(features)
    if not listed:
        raise DataError("features=() leaves nothing to see; give at least one, or None for the default ones.")
    return listed


def _refuse_twice(kind: str, names: Sequence[str]) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise DataError(f"The {kind} '{name}' comes twice; give each {kind} once.")


def _refuse_beyond_float32(histories: Sequence[Bars]) -> None:
    for history in histories:
        for name in ("low", "high"):
            prices = getattr(history, name)
            beyond = (prices < PRICE_RANGE[0]) | (prices > PRICE_RANGE[1])
            if beyond.any():
                row = int(np.argmax(beyond.any(1)))
                raise DataError(
                    f"The {name} of {', '.join(history.symbols)} ({history.source}) at bar {row} is "
                    f"{prices[row].max():g}, outside "
                    f"{PRICE_RANGE[0]:g} to {PRICE_RANGE[1]:g}: training is in float32; give prices in another unit."
                )


def _refuse_short(histories: Sequence[Bars], features: Sequence[Feature]) -> None:
    for history in sorted(histories, key=len):
        longest = max((feature.on(history) for feature in features), key=lambda feature: feature.lookback)
        if len(history) < longest.lookback:
            raise DataError(
                f"{','.join(history.symbols)} has {len(history)} bars, too few for {longest.name}, which looks back "
                f"over {longest.lookback}; leave the symbol out or choose features with a shorter look-back."
            )


def _refuse_unknown(names: Sequence[str], features: Sequence[Feature], parts: Sequence[Columns]) -> None:
    for name, part in zip(names, parts, strict=True):
        empty = np.isnan(part["features"][-1]).any(axis=0)
        if empty.any():
            feature = features[int(np.argmax(empty))].name
            raise DataError(f"{name} has no bar with a value of {feature}; leave the feature or the symbol out.")


def _frozen(columns: Columns) -> Columns:
    """The same, read-only: splits share these arrays."""
    for values in columns.values():
        if values is not None:
            values.flags.writeable = False
    return columns


def _periods_per_year(names: Sequence[str], calendars: Sequence[np.ndarray], given: float | None) -> float:
    """The given number, or the median over histories of (n - 1) / (days / 365.25), snapped to a usual one within 2%."""
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise DataError(f"periods_per_year={given} is not possible; it must be a finite number above 0.")
        return float(given)
    measured = []
    for name, times in zip(names, calendars, strict=True):
        if len(times) < 2:
            raise DataError(
                f"{name} has one bar, from which periods_per_year cannot be measured; give more bars or the number."
            )
        days = (times[-1] - times[0]) / np.timedelta64(1, "D")
        measured.append((len(times) - 1) / (days / 365.25))
    median = float(np.median(measured))
    nearest = min(SNAPS, key=lambda snap: abs(median / snap - 1))
    return float(nearest) if abs(median / nearest - 1) <= SNAP_TOLERANCE else median
