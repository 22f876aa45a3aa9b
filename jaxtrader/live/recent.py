"""The last bars of one asset, from which the features and the ledger's columns of its newest bar are computed.

A row is computed from as many bars as it needs, by the functions that compute a whole market. All of them add in a
fixed order, so that the numbers are those of the whole history to the last bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrader.live.step import COLUMN
from jaxtrader.market import features
from jaxtrader.market.bar_checks import LARGEST, PRICE_LIMITS, PRICES, check_bars, spacing, widen_dust
from jaxtrader.market.bars import Bars
from jaxtrader.market.clock import DAY, HOUR
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, ResampledFeature
from jaxtrader.market.resample import max_bars_per_frame
from jaxtrader.market.share_splits import LEAST_FACTOR, scale_jump
from jaxtrader.market.trailing import BARS, last_volatility, traded_value

OPTIONAL = ("funding", "price_factor")
ONE_BAR = "correct it, or leave this bar out"  # what can be done about a bar that breaks a rule
FREE_ROWS = 512  # rows that are written before the buffer is moved back to its beginning


class OtherScale(DataError):
    """A bar seems to be on another scale than the history. `fault` says so without the ways out of the API."""

    def __init__(self, opening: str) -> None:
        self.fault = f"{opening}: its prices seem to be on another scale than the history"
        super().__init__(
            f"{self.fault}; give them on that scale (where they are adjusted, with their `price_factor`), or go on "
            "from an adjusted history with `resume_live(path, history=...)`, or say `after_jump=True` if the price did "
            "jump"
        )


@dataclasses.dataclass(frozen=True)
class Row:
    """What one asset adds to a market's newest row.

    Attributes:
        features: [F].
        columns: what the ledger reads, by the names that `step.arrays` takes: prices, volatility, adv (NaN where the
            market has none), funding, price_factor, and further columns of the bars.
    """

    features: np.ndarray
    columns: dict[str, float]

    def without_bar(self) -> Row:
        """Return the row of an asset that has no bar: all is as before, at the last close."""
        unchanged = dict.fromkeys(PRICES, self.columns["close"]) | {"funding": 0.0}
        return dataclasses.replace(self, columns=self.columns | unchanged)


class RecentBars:
    """The last bars of one asset.

    Args:
        history: the bars so far.
        features: the features of which each row has a value.
        has_adv: whether the market has a traded value.
        bars_per_frame: the most bars in a frame of each resampled feature, by its name. None finds them in `history`.
    """

    def __init__(
        self,
        history: Bars,
        features: Sequence[Feature],
        has_adv: bool,
        bars_per_frame: Mapping[str, int] | None = None,
    ) -> None:
        self.symbol = history.symbols[0]
        self.features = tuple(features)
        self.bars_per_frame = (
            {each.name: _most_bars(each, history) for each in features if isinstance(each, ResampledFeature)}
            if bars_per_frame is None
            else dict(bars_per_frame)
        )
        self.has_adv = has_adv
        self.lookbacks = [self._lookback(each) for each in features]
        self.kept = max(BARS + 1, *self.lookbacks)
        self._template = dataclasses.replace(history, notes=(), source=history.source or "live")
        fields = {name: getattr(history, name) for name in ("times", *PRICES, "volume", *OPTIONAL)}
        fields |= {f"{COLUMN}{name}": values for name, values in history.columns.items()}
        rows = min(len(history), self.kept)
        self.rows = rows
        self._buffers: dict[str, np.ndarray] = {}
        for name, values in fields.items():
            if values is not None:
                buffer = np.zeros((self.kept + FREE_ROWS, *values.shape[1:]), values.dtype)
                buffer[:rows] = values[len(history) - rows :]
                self._buffers[name] = buffer
        # Of resampled features: the last complete frame and the value there, committed and of the candidate.
        self._frames: dict[str, tuple[int, float]] = {}
        self._candidate: dict[str, tuple[int, float]] = {}

    @property
    def bars(self) -> Bars:
        """The bars that are kept. They are views, and stay what they are until the next bar."""
        return self.tail(self.rows, self.rows)

    def offer(
        self,
        time: np.datetime64,
        bar: Mapping[str, Any],
        longest_pause: int | None = None,
        row_time: np.datetime64 | None = None,
    ) -> None:
        """Write down a bar that may follow the last one, for `newest_rows`. `keep` adds it.

        Args:
            time: the close of the bar.
            bar: open, high, low, close and volume, and where the history has them, funding, price_factor and `columns`.
            longest_pause: the longest time between two bars of the history, ns. None takes a bar on any scale.
            row_time: the latest close of the bars that share the row. None: `time`.

        Raises:
            DataError: the bar breaks a rule of bars, closes outside its row, or seems to be on another scale than the
                bars before it.
        """
        self._candidate = {}
        last, latest = self._buffers["times"][self.rows - 1], time if row_time is None else row_time
        if not last < time <= latest:
            raise DataError(
                f"The bar of {self.symbol} has the time {_shown(time)}; give its close, which is after {_shown(last)} "
                f"and no later than {_shown(latest)}"
            )
        numbers = self._checked(time, bar)
        if self.rows == self.kept + FREE_ROWS:
            for buffer in self._buffers.values():
                buffer[: self.kept] = buffer[self.rows - self.kept : self.rows]
            self.rows = self.kept
        for name, buffer in self._buffers.items():
            buffer[self.rows] = time if name == "times" else numbers[name]
        if longest_pause is not None:
            self._check_scale(time, longest_pause)

    def keep(self) -> None:
        """Add the bar that was offered."""
        self.rows += 1
        self._frames |= self._candidate

    def _check_scale(self, time: np.datetime64, longest_pause: int) -> None:
        """Raise DataError where the bar that was written down seems to be on another scale than the bars before it."""
        ratio = float(self._buffers["open"][self.rows, 0]) / float(self._buffers["close"][self.rows - 1, 0])
        if 1 / LEAST_FACTOR < ratio < LEAST_FACTOR:  # nearly always, so that a bar costs no more
            return
        rows = slice(max(self.rows - BARS - 1, 0), self.rows + 1)
        prices = {name: self._buffers[name][rows, 0] for name in (*PRICES, "volume")}
        pause = (time - self._buffers["times"][self.rows - 1]) / np.timedelta64(longest_pause, "ns")
        if jump := scale_jump(prices, pause):
            raise OtherScale(f"The bar of {self.symbol} at {_shown(time)} {jump}")

    def _checked(self, time: np.datetime64, bar: Mapping[str, Any]) -> dict[str, float]:
        """The numbers of a bar by the names of the buffers."""
        given = {}
        for name in (*PRICES, "volume"):
            try:
                given[name] = float(bar[name])
            except (KeyError, TypeError, ValueError):
                raise DataError(
                    f"The bar of {self.symbol} at {_shown(time)} has no number for {name}; give open, high, low, close "
                    "and volume"
                ) from None
        open_, high, low, close, volume = given.values()
        lowest, highest = PRICE_LIMITS
        sound = lowest <= low <= min(open_, close) and max(open_, close) <= high <= highest
        if not (sound and 0 <= volume <= LARGEST / max(close, 1.0)):
            arrays = widen_dust({name: np.array([x]) for name, x in given.items()})
            check_bars(arrays, lambda _: f"The bar of {self.symbol} at {_shown(time)}", ONE_BAR)
            given = {name: float(x[0]) for name, x in arrays.items()}
        columns = {} if bar.get("columns") is None else bar["columns"]
        if not isinstance(columns, Mapping):
            raise DataError(
                f"The bar of {self.symbol} at {_shown(time)} has the columns {columns!r:.60}; give a mapping, such as "
                "{'signal': 0.5}"
            )
        further = [name.removeprefix(COLUMN) for name in self._buffers if name.startswith(COLUMN)]
        unknown = [name for name in columns if name not in further]
        if unknown:
            known = ", ".join(further) or "none"
            raise DataError(
                f"The bar of {self.symbol} at {_shown(time)} has the column {unknown[0]!r}, and the further columns of "
                f"the history are {known}; leave it out"
            )
        given |= {f"{COLUMN}{name}": self._as_float(columns.get(name, np.nan), name, time) for name in further}
        return given | {name: self._optional(bar.get(name), name, time) for name in OPTIONAL}

    def _optional(self, given: Any, name: str, time: np.datetime64) -> float:
        """The funding or the price factor of a bar, whose history may have none."""
        neutral = 0.0 if name == "funding" else 1.0
        if name not in self._buffers:
            if given is not None and given != neutral:
                raise DataError(
                    f"The bar of {self.symbol} at {_shown(time)} has the {name} {given!r:.20}, and the history has "
                    "none; leave it out, or begin with a history that has it"
                )
            return neutral
        if given is None:
            return 0.0 if name == "funding" else float(self._buffers[name][self.rows - 1, 0])
        number = self._as_float(given, name, time)
        if not np.isfinite(number) or (name == "price_factor" and number <= 0):
            wanted = "a finite number" + " above 0" * (name == "price_factor")
            raise DataError(f"The bar of {self.symbol} at {_shown(time)} has the {name} {number:g}; give {wanted}")
        return number

    def _as_float(self, given: Any, name: str, time: np.datetime64) -> float:
        try:
            return float(given)
        except (TypeError, ValueError):
            raise DataError(
                f"The bar of {self.symbol} at {_shown(time)} has the {name} {given!r:.20}, which is no number"
            ) from None

    def _lookback(self, feature: Feature) -> int:
        if isinstance(feature, ResampledFeature):  # as `ResampledFeature.for_bars`, with room for the longest frame
            return (feature.lookback + 1) * self.bars_per_frame[feature.name] + 1
        return feature.lookback

    def values(self, feature: Feature, lookback: int, end: int) -> float:
        """Return a feature's value at the last of the first `end` rows of the buffers."""
        if isinstance(feature, ResampledFeature):
            return self._resampled(feature, lookback, end)
        computed = np.asarray(feature.compute(self.tail(lookback, end)), np.float64)
        return float(computed[-1, 0]) if computed.ndim == 2 else np.nan

    def unknown(self, end: int, feature: Feature) -> DataError:
        """Return the error that says that a feature has no value at the last of the first `end` rows."""
        shown = _shown(self._buffers["times"][end - 1])
        return DataError(
            f"The feature {feature.name} of {self.symbol} has no finite value at {shown}; give a complete bar, with "
            "its further columns as columns={...}"
        )

    def row(self, end: int, features: np.ndarray, volatility: float, adv: float) -> Row:
        """Return the last of the first `end` rows of the buffers, with what was computed for it."""
        columns = {"volatility": volatility, "adv": adv, "funding": 0.0, "price_factor": 1.0}
        return Row(features, columns | {name: float(self._buffers[name][end - 1, 0]) for name in self.names})

    def _resampled(self, feature: ResampledFeature, lookback: int, end: int) -> float:
        """The value at the last complete frame, which is computed once a frame."""
        known = self._frames.get(feature.name)
        complete = int(feature.frame.frame_numbers(self.tail(1, end))[1][0])
        if known is not None and complete <= known[0]:
            return known[1]
        computed = np.asarray(feature.compute(self.tail(lookback, end)), np.float64)
        value = float(computed[-1, 0])
        self._candidate[feature.name] = (complete, value)
        return value

    @property
    def names(self) -> list[str]:
        """What is kept of a bar, apart from its time. COLUMN begins the names of further columns."""
        return [name for name in self._buffers if name != "times"]

    def last(self, name: str, rows: int, end: int) -> np.ndarray:
        """Return one of `names` of the last of the first `end` rows of the buffers, without a copy."""
        return self._buffers[name][end - rows : end]

    def tail(self, rows: int, end: int) -> Bars:
        """Return the last of the first `end` rows of the buffers, without a copy."""
        part, views = slice(max(end - rows, 0), end), {}
        for name, buffer in self._buffers.items():
            view = views[name] = buffer[part]
            view.flags.writeable = False
        return _bars_of(self._template, views)


def newest_rows(recents: Sequence[RecentBars], offered: bool) -> list[Row]:
    """Return the row of each asset's last bar, or of the bar that was offered to each.

    The features of this package are computed for all assets at once. The numbers are the same to the bit.

    Raises:
        DataError: a feature has no finite value there.
    """
    ends = [each.rows + offered for each in recents]
    specs, lookbacks = recents[0].features, recents[0].lookbacks
    whole, found = _joined_tails(recents, ends), np.empty((len(recents), len(specs)))
    for i, (feature, lookback) in enumerate(zip(specs, lookbacks, strict=True)):
        if whole is not None and lookback <= len(whole) and _is_ours(feature):
            found[:, i] = feature.compute(whole.cut(-lookback, None))[-1]
        else:
            found[:, i] = [
                each.values(feature, each.lookbacks[i], end) for each, end in zip(recents, ends, strict=True)
            ]
    if not np.isfinite(found).all():
        a = int(np.argmin(np.isfinite(found).all(1)))
        raise recents[a].unknown(ends[a], specs[int(np.argmin(np.isfinite(found[a])))])
    tails = [each.tail(BARS + 1, end) for each, end in zip(recents, ends, strict=True)] if whole is None else [whole]
    deviations = np.concatenate([last_volatility(bars.close) for bars in tails])
    adv = np.full(len(recents), np.nan)
    if recents[0].has_adv:
        lasts = [bars.cut(-BARS - 1, None) for bars in tails]
        adv = np.concatenate([traded_value(last.close, last.volume, last.price_factor)[-1] for last in lasts])
    numbers = zip(recents, ends, found, deviations.tolist(), adv.tolist(), strict=True)
    return [each.row(end, own, deviation, value) for each, end, own, deviation, value in numbers]


def _is_ours(feature: Feature) -> bool:
    """Whether a feature is of this package, and of several assets at once. An own one may count on one asset."""
    return feature.compute.__module__ == features.__name__ and not isinstance(feature, ResampledFeature)


def _joined_tails(recents: Sequence[RecentBars], ends: Sequence[int]) -> Bars | None:
    """The last rows of all assets, each asset's own, as bars [T, A]. None for one asset, or where columns differ."""
    names = recents[0].names
    if len(recents) == 1 or any(each.names != names for each in recents):
        return None
    rows = min(*(each.kept for each in recents), *ends)
    first = recents[0].tail(rows, ends[0])
    joined: dict[str, Any] = {
        name: np.concatenate([each.last(name, rows, end) for each, end in zip(recents, ends, strict=True)], axis=1)
        for name in names
    }
    return _bars_of(first, joined)


def _bars_of(template: Bars, arrays: dict[str, Any]) -> Bars:
    """Bars with these arrays by the names of `RecentBars.names`, and all else of a template."""
    columns = {name.removeprefix(COLUMN): arrays.pop(name) for name in list(arrays) if name.startswith(COLUMN)}
    return dataclasses.replace(template, columns=columns, **arrays)


def up_to(bars: Bars, time: np.datetime64) -> Bars:
    """Return the bars that closed at a time or before."""
    return bars.cut(None, int(np.searchsorted(bars.times, time, side="right")))


def bar_at(bars: Bars, i: int) -> dict[str, Any]:
    """Return bar i as `Live.on_bars` takes it."""
    arrays = {name: getattr(bars, name) for name in (*PRICES, "volume", *OPTIONAL)}
    bar: dict[str, Any] = {name: None if values is None else float(values[i, 0]) for name, values in arrays.items()}
    return bar | {"columns": {name: float(values[i, 0]) for name, values in bars.columns.items()}}


def _most_bars(feature: ResampledFeature, history: Bars) -> int:
    """The most bars that a frame can hold: what the history shows, or what its spacing makes possible."""
    seen = max_bars_per_frame(feature.frame, history)
    longest = feature.frame.length + (HOUR if feature.frame.length >= DAY else 0 * HOUR)  # where clocks are set back
    return max(seen, int(np.ceil(longest / spacing(history.times)))) if len(history) > 1 else seen


def _shown(time: np.datetime64) -> str:
    return str(time)[:19].replace("T", " ")
