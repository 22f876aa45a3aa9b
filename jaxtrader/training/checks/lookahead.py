"""Check 1: every feature function sees the bars up to its own row only, and no more of them than it declares.

Functions are tested by what they do, not read: they are computed again on parts of the bars. A column that was computed
elsewhere stands as it is in every part and passes by its making; checks 2 and 3 are for those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrader.market.bars import Bars
from jaxtrader.market.features import DEFAULT, Feature, resolve
from jaxtrader.training.checks.result import Check

SUFFIXES = 256  # random rows of each feature and symbol: the look-back alone is computed, which is cheap
BORDERS = 32  # pairs of rows, of each kind of border, that are looked at besides
PREFIXES = (6, 64)  # fewest and most; each computes half a history on average
PREFIX_BARS = 2_000_000  # that all prefixes of one feature and symbol hold together, about
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Difference:
    """A value that is another one when less is known: where it stands, from all bars, and from a part of them."""

    feature: str
    symbol: str
    row: int
    time: np.datetime64
    whole: float
    part: float
    known: str

    def __str__(self) -> str:
        when = str(self.time)[:16].replace("T", " ")
        return (
            f"{self.feature} of {self.symbol} at row {self.row} ({when}) is {self.whole:.9g} from all bars and "
            f"{self.part:.9g} from {self.known}"
        )


def past_only(bars: Bars | Sequence[Bars], features: Sequence[str | Feature] | None = None, *, seed: int = 0) -> Check:
    """Prefix and suffix tests of every feature function, on every symbol.

    Prefix: features(bars[:t+1])[:t+1] equals features(bars)[:t+1] bit for bit; a difference is a look into the future.
    Suffix: features(bars[t-K+1:t+1])[t] equals features(bars)[t] within 1e-6 of its size, or of the feature's deviation
    if that is more; a difference is a look-back longer than the declared K, and then a live policy, which has only the
    last bars, would see other numbers. t is the first row that can be known, the last, and random ones between; for
    suffixes also rows at both sides of borders, where joins and fillings go wrong: of years, months and days, and the
    widest holes in time. The figure counts feature and symbol pairs that differ somewhere; one is too many, as there is
    no chance in it.
    Normalisation is no part of it: its numbers are fitted on training bars and frozen.

    Args:
        bars: one history or several.
        features: names or `Feature`s; default `features.DEFAULT`.
        seed: of the random rows.
    """
    histories = (bars,) if isinstance(bars, Bars) else tuple(bars)
    chosen = [resolve(spec) for spec in (DEFAULT if features is None else features)]
    rng = np.random.default_rng(seed)
    pairs = [(feature, history) for feature in chosen for history in histories]
    found = [difference for pair in pairs if (difference := _difference(*pair, rng)) is not None]
    names = dict.fromkeys(difference.feature for difference in found)
    given = [feature.name for feature in chosen if feature.name in histories[0].columns]
    text = f"each feature is the same from the bars up to a row, and from its look-back, at {SUFFIXES} rows and borders"
    if given:
        text += f"; not of columns of the file ({', '.join(given)}), which stand as they are whatever they know"
    if found:
        text = f"{found[0]}; features at fault: {', '.join(names)}"
    return Check(
        name="past only",
        passed=not found,
        figure=float(len(found)),
        limit=0.0,
        measure=f"of {len(pairs)} (features x symbols) differ from parts of the bars",
        text=text,
        meaning=(
            "a feature knows the future, or looks back further than it declares: what is trained on it cannot be "
            "traded; compute it from bars up to t only, without statistics of the whole history, and declare its "
            "look-back"
        ),
    )


def _difference(feature: Feature, bars: Bars, rng: np.random.Generator) -> Difference | None:
    """The first value found that changes with what is known, None where there is none (or no row can be known)."""
    feature = feature.on(bars)
    if len(bars) < feature.lookback:
        return None
    whole = _compute(feature, bars)
    first, last = feature.lookback - 1, len(bars) - 1
    fewest, most = PREFIXES
    for t in _rows(first, last, min(max(PREFIX_BARS // len(bars), fewest), most), rng):
        part = _compute(feature, _cut(bars, 0, t + 1))
        same = (part == whole[: t + 1]) | (np.isnan(part) & np.isnan(whole[: t + 1]))
        if not same.all():
            row = int(np.argmin(same.all(1)))
            known = f"those up to row {t}"
            return _at(feature, bars, row, whole, float(part[row, 0]), known)
    spread = np.nanstd(whole) if np.isfinite(whole).any() else 0.0
    for t in sorted({*_rows(first, last, SUFFIXES, rng), *_at_borders(bars.times, first, rng)}, reverse=True):
        part = _compute(feature, _cut(bars, t - first, t + 1))[-1]
        bound = TOLERANCE * np.maximum(spread, np.abs(whole[t]))
        # Not `> bound`: a value missing on one side only is a difference too.
        same = (np.abs(part - whole[t]) <= bound) | (np.isnan(part) & np.isnan(whole[t]))
        if not same.all():
            known = f"the last {feature.lookback} bars, its look-back"
            return _at(feature, bars, t, whole, float(part[0]), known)
    return None


def _at(feature: Feature, bars: Bars, row: int, whole: np.ndarray, part: float, known: str) -> Difference:
    value = float(whole[row, 0])
    return Difference(feature.name, ",".join(bars.symbols), row, bars.times[row], value, part, known)


def _rows(first: int, last: int, count: int, rng: np.random.Generator) -> list[int]:
    """The first row, the last, and at most `count` between; the latest first, where a look-ahead shows soonest."""
    between = np.arange(first + 1, last)
    drawn = rng.choice(between, min(count, between.size), replace=False) if between.size else between
    return sorted({last, *(int(t) for t in drawn), first}, reverse=True)


def _at_borders(times: np.ndarray, first: int, rng: np.random.Generator) -> set[int]:
    """Rows before and after the ends of years, months and days, and the widest holes; at most BORDERS of each kind."""
    before = np.arange(first, len(times) - 1)
    waits = np.diff(times)[first:]
    kinds = [before[np.diff(times.astype(f"datetime64[{unit}]"))[first:] != 0] for unit in "YMD"]
    kinds = [rows for rows in kinds if 2 * rows.size <= before.size]  # of daily bars, every one ends a day
    chosen = [rng.choice(rows, min(BORDERS, rows.size), replace=False) for rows in kinds]
    chosen.append(before[np.argsort(-waits, kind="stable")[:BORDERS]])
    return {int(t) for rows in chosen for row in rows for t in (row, row + 1)}


def _compute(feature: Feature, bars: Bars) -> Float[np.ndarray, "time asset"]:
    return np.asarray(feature.compute(bars), np.float64).reshape(bars.close.shape)


def _cut(bars: Bars, start: int, end: int) -> Bars:
    """The bars of rows start..end-1 as if nothing else had been loaded."""
    cut: dict[str, Any] = {name: values[start:end] for name, values in vars(bars).items() if hasattr(values, "shape")}
    return dataclasses.replace(bars, **cut, columns={name: values[start:end] for name, values in bars.columns.items()})
