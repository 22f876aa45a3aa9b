"""Check 1: every feature function uses the bars up to its own row only, and no more of them than it declares.

The check computes each function again on parts of the bars and compares. A column that was computed elsewhere is the
same in every part and always passes. Checks 2 and 3 are for those columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxtrader.checks.check import Check
from jaxtrader.market.bars import Bars, histories_of
from jaxtrader.market.features import DEFAULT, Feature, resolve

NUM_SUFFIXES = 256  # random rows of each feature and symbol. Each computes its look-back alone, which is cheap.
MAX_BORDERS = 32  # pairs of rows of each kind of border, in addition
MIN_PREFIXES, MAX_PREFIXES = 6, 64  # each computes half a history on average
PREFIX_BARS = 2_000_000  # about the sum of the lengths of all prefixes of one feature and symbol
TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Difference:
    """A feature's value that changes when fewer bars are known.

    Attributes:
        feature, symbol, row, time: where it stands.
        whole: the value from all bars.
        part: the value from a part of the bars.
        known: which part that is, in words.
    """

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
    """Test every feature function on every symbol by prefixes and suffixes of the bars.

    Prefix test: features(bars[:t+1])[:t+1] equals features(bars)[:t+1] bit for bit. A difference is a look into the
    future. Suffix test, with the declared look-back K: features(bars[t-K+1:t+1])[t] equals features(bars)[t] within
    1e-6 of its size, or of the feature's deviation if that is larger. A difference is a look-back longer than K. A live
    policy, which has only the last bars, would then see other numbers.

    The rows t are the first that can be known, the last, and random ones between. Suffixes also end at both sides of
    borders, where joins and fillings go wrong: the ends of years, months and days, and the widest gaps in time. The
    figure counts the pairs of feature and symbol that differ somewhere. One is too many, since chance plays no part.
    Normalisation is not tested: it is fitted on training bars and frozen.

    Args:
        bars: one history or several.
        features: names or `Feature`s. The default is `features.DEFAULT`.
        seed: seed of the random rows.

    Example:
        >>> jt.checks.past_only(jt.load_bundled("IBM"), ["volatility_20", "gap"]).passed
        True
    """
    histories = histories_of(bars)
    chosen = [resolve(spec) for spec in (DEFAULT if features is None else features)]
    rng = np.random.default_rng(seed)
    pairs = [(feature, history) for feature in chosen for history in histories]
    found = [difference for pair in pairs if (difference := _difference(*pair, rng)) is not None]
    names = dict.fromkeys(difference.feature for difference in found)
    given = [feature.name for feature in chosen if feature.name in histories[0].columns]
    text = f"each feature is the same from the bars up to a row, and its look-back, at {NUM_SUFFIXES} rows and borders"
    if given:
        text += f"; not of columns of the file ({', '.join(given)}), which stand as they are whatever they know"
    if found:
        text = f"{found[0]}; features at fault: {', '.join(names)}"
    return Check(
        name="past_only",
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
    """Return the first value that changes with the known bars. None where there is none, or no row can be known."""
    feature = feature.for_bars(bars)
    if len(bars) < feature.lookback:
        return None
    whole = _compute(feature, bars)
    first, last = feature.lookback - 1, len(bars) - 1
    count = min(max(PREFIX_BARS // len(bars), MIN_PREFIXES), MAX_PREFIXES)
    for t in _rows(first, last, count, rng):
        part = _compute(feature, bars.cut(0, t + 1))
        same = (part == whole[: t + 1]) | (np.isnan(part) & np.isnan(whole[: t + 1]))
        if not same.all():
            row = int(np.argmin(same.all(1)))
            known = f"those up to row {t}"
            return _difference_at(feature, bars, row, whole, float(part[row, 0]), known)
    spread = np.nanstd(whole) if np.isfinite(whole).any() else 0.0
    for t in sorted({*_rows(first, last, NUM_SUFFIXES, rng), *_border_rows(bars.times, first, rng)}, reverse=True):
        part = _compute(feature, bars.cut(t - first, t + 1))[-1]
        bound = TOLERANCE * np.maximum(spread, np.abs(whole[t]))
        # A value that is NaN on one side only is a difference too, so this does not ask whether it is `> bound`.
        same = (np.abs(part - whole[t]) <= bound) | (np.isnan(part) & np.isnan(whole[t]))
        if not same.all():
            known = f"the last {feature.lookback} bars, its look-back"
            return _difference_at(feature, bars, t, whole, float(part[0]), known)
    return None


def _difference_at(feature: Feature, bars: Bars, row: int, whole: np.ndarray, part: float, known: str) -> Difference:
    value = float(whole[row, 0])
    return Difference(feature.name, ",".join(bars.symbols), row, bars.times[row], value, part, known)


def _rows(first: int, last: int, count: int, rng: np.random.Generator) -> list[int]:
    """Return the first row, the last, and at most `count` between. The latest come first: they show a leak soonest."""
    between = np.arange(first + 1, last)
    drawn = rng.choice(between, min(count, between.size), replace=False) if between.size else between
    return sorted({last, *(int(t) for t in drawn), first}, reverse=True)


def _border_rows(times: np.ndarray, first: int, rng: np.random.Generator) -> set[int]:
    """Return rows before and after the ends of years, months and days, and the widest gaps in time.

    At most `MAX_BORDERS` pairs of each kind.
    """
    before = np.arange(first, len(times) - 1)
    gaps = np.diff(times)[first:]
    kinds = [before[np.diff(times.astype(f"datetime64[{unit}]"))[first:] != 0] for unit in "YMD"]
    kinds = [rows for rows in kinds if 2 * rows.size <= before.size]  # every daily bar ends a day
    chosen = [rng.choice(rows, min(MAX_BORDERS, rows.size), replace=False) for rows in kinds]
    chosen.append(before[np.argsort(-gaps, kind="stable")[:MAX_BORDERS]])
    return {int(t) for rows in chosen for row in rows for t in (row, row + 1)}


def _compute(feature: Feature, bars: Bars) -> Float[np.ndarray, "time asset"]:
    return np.asarray(feature.compute(bars), np.float64).reshape(bars.close.shape)
