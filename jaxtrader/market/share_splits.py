"""Finds the jumps of prices that look like share splits for which the prices were not adjusted.

A split and a crash look alike in the price alone. A jump is taken for a split by three properties. It is close to a
ratio of small whole numbers, as measured by the usual moves of that time. It is calm: a crash comes with a volume and a
range far above the usual, and a split does not. And it stands out from the other jumps of the history.

A split may fall on a busy day, whose volume is high because the price moves between open and close as well. So where a
jump equals a ratio within the usual moves of a night, only the volume beyond such a move speaks against a split. That
volume grows with the size of a move is by Karpoff 1987, https://doi.org/10.2307/2330874. The price of this rule: a
crash at night that equals a ratio by chance is named more often, if the price moves far on its day, too.

Measured on 80 raw daily histories of the S&P 500 in 2000 to 2012, without the rule for busy days: it names 50 of 57
changes by splits and spin-offs. Of all other jumps it names 5 wrong records, a crash and a rise. In cuts of 26
bars it names 53 of the 57, and 3 of 87 crashes and rises of 17% and more. A split of 3 for 2 that was put on a day of a
move of 5% to 8% is named in 67%. On other days it is named in 82%. Of random walks over 10 years with a tail of the
third power, which have no other sign of news, 1% to 3% have a jump that is named.

`scale_jump` asks the same of a bar that has just closed, by the 21 bars before it, for any factor from 1.4 on. In the
same histories, 70 opens are so far from the last close. It names 49 of 51 splits. Of the other 19 it names 2 splits
that the adjusted closes do not know and a wrong record, and no crash or rise. Of days that were put on a scale of 1/2
it names 98%, of 1/3, 1/10, 10 or 100 99%, and of 2/3 91%. At the first bar of a session of minutes (SPY of 2017 to
2019), whose volume is always high, these are 94%, 98% and 46%.
"""

import dataclasses
import heapq
import math
from collections.abc import Mapping

import numpy as np

from jaxtrader.market.bar_checks import format_time, spacing
from jaxtrader.market.clock import DAY
from jaxtrader.market.trailing import volume_fault

# new : old shares from 6:5 to 100:1, as they are usual, by the log of the price ratio
MANY_FOR_ONE = (*range(2, 11), 12, 15, 16, 18, 20, 25, 30, 35, 40, 45, 50, 60, 70, 75, 80, 90, 100)
MANY_FOR_FEW = [(new, old) for old in (2, 3, 4) for new in range(old + 1, 11) if math.gcd(new, old) == 1]
RATIOS = [(math.log(new / old), new, old) for new, old in [(new, 1) for new in MANY_FOR_ONE] + MANY_FOR_FEW + [(6, 5)]]
SMALLEST_REVERSE = 1.5  # rises of less are takeovers, and hardly ever a reverse split
SMALLEST = 0.17  # in log price. It is a little below 6:5.
NEARBY = 60  # sessions on either side, whose moves are the usual ones
TOLERANCE = (3.5, 0.06, 0.1)  # in usual moves, with a lower limit for days on which the market moves, and an upper one
PROMINENCE = 8.0  # in usual moves between a close and the next open
EVIDENCE = (60, 1000)  # how many of the largest jumps are looked at: these, and further ones that may be splits
BEFORE = 20  # sessions, by which volume and range are usual
# The largest activity of a calm jump. From 2:1 on it is this times the ratio squared. News that halve a price or more
# come with far more activity than that, and are rarer the larger the jump is.
CALM = 3.0
NEWS = 5.0  # activity from which on jumps are taken to be news
EXACT = 2.0  # usual moves of a night, within which a jump equals a ratio
EITHER = 2 * math.log(20)  # in usual moves squared: the next ratio is named, too, unless it is 20 times less likely
ISOLATION = 3.0
LEAST_FACTOR = 1.4  # of a jump that `scale_jump` names. Smaller ones are hardly told from news.
NOTHING = 1e-100  # a volume or a range that is no scale for others


@dataclasses.dataclass(frozen=True)
class Split:
    """A jump that looks like a split of `old` shares into `new` ones.

    Attributes:
        row: the first bar after it.
        new: shares after it.
        old: shares before it.
        ratio: open[row] / close[row - 1].
        or_else: the shares (new, old) of the ratio that is nearly as close, or None.
        exact: whether the ratio is met within the usual moves of a night.
    """

    row: int
    new: int
    old: int
    ratio: float
    or_else: tuple[int, int] | None = None
    exact: bool = False

    def __str__(self) -> str:
        other = "" if self.or_else is None else f" or {self.or_else[0]}-for-{self.or_else[1]}"
        return f"{self.new}-for-{self.old}{other} {'reverse ' * (self.new < self.old)}split"


def split_note(times: np.ndarray, prices: Mapping[str, np.ndarray]) -> str | None:
    """Name the jumps that look like splits, or return None. The arguments are those of `find_splits`."""
    found = find_splits(times, prices)
    if not found:
        return None
    listed = ", ".join(
        f"{format_time(times[split.row])} (open/last close {split.ratio:.3f}, a {split})" for split in found[:3]
    )
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"These jumps look like unadjusted splits: {listed}{more}; use adjusted prices, or add an adjusted close."


def find_splits(times: np.ndarray, prices: Mapping[str, np.ndarray]) -> list[Split]:
    """Find jumps that look like unadjusted splits.

    The usual size of a jump or a move is its median / 0.6745, the standard deviation of a normal distribution with this
    median. The activity of a bar is its volume times its range (log high / low), each relative to its median of the 20
    sessions before. More shares after a split are allowed for.

    On an exchange, large jumps come with a high activity. Where they do, every calm jump that fits a ratio is a split,
    unless a larger calm jump fits none. Elsewhere volume says nothing. There the splits must be the largest jumps of
    the history, and three times as large as the next one. The tails of returns follow a third power (Gopikrishnan et
    al. 1998, https://doi.org/10.1007/s100510050292), by which one largest value in 27 is.

    Args:
        times: [T] closes, datetime64[ns], increasing.
        prices: open, high, low, close and volume, [T] each.

    Returns:
        The splits from the first to the last.
    """
    if not _is_large(prices["open"][1:] / prices["close"][:-1]).any():  # in most histories
        return []
    rows = _first_bars(times)
    ratio = prices["open"][rows] / prices["close"][rows - 1]
    if not _is_large(ratio).any():
        return []
    jumps = _Jumps(rows, np.log(ratio), prices)
    size = np.abs(jumps.gaps)
    least, most = EVIDENCE
    count = min(max(least, int((size >= SMALLEST).sum())), most, len(size))
    largest = np.argpartition(-size, count - 1)[:count]
    largest = largest[np.argsort(-size[largest], kind="stable")].tolist()
    activity, at_least, unexplained = (
        dict(zip(largest, values, strict=True)) for values in jumps.activity(np.array(largest))
    )
    fits = {i: split for i in largest if size[i] >= SMALLEST and (split := jumps.fit(i)) is not None}
    news = {i: activity[i] if i not in fits else (unexplained if fits[i].exact else at_least)[i] for i in largest}
    calm = [i for i in largest if news[i] <= _most_activity(size[i])]
    others = [activity[i] for i in largest if i not in fits or i not in calm][:BEFORE]
    if len(others) >= BEFORE // 2 and np.median(others) >= NEWS:
        unfit = max((size[i] for i in calm if i not in fits), default=0.0)
        found = [i for i in calm if i in fits and size[i] >= unfit]
    else:
        found = []
        for place, i in enumerate(calm):
            if i not in fits:
                break
            following = size[calm[place + 1]] if place + 1 < len(calm) else 0.0
            if size[i] >= ISOLATION * following:
                found = calm[: place + 1]
    return sorted((fits[i] for i in found), key=lambda split: split.row)


def scale_jump(prices: Mapping[str, np.ndarray], pause: float = 1.0) -> str | None:
    """Say how the last bar opens as on another scale than the bars before it, or return None.

    That is so after a split, where a raw price follows adjusted ones, and where cents follow dollars. The jump is calm,
    as in `find_splits`, and three times as large as any move of the bars before. It need not be close to a ratio of
    shares. Where volume says nothing, the bar's range alone must be calm.

    Args:
        prices: open, high, low, close and volume, [T] each, T >= 2.
        pause: the time since the bar before, in longest pauses of the history. Where it is above 1, prices may have
            moved further by its root.

    Example:
        >>> prices = {name: np.array([100.0, 101.0, 99.0, 49.8]) for name in ("open", "high", "low", "close")}
        >>> scale_jump(prices | {"volume": np.array([5.0, 6.0, 5.0, 11.0])})
        'opens at 0.503 times the last close, as after a 2-for-1 split'
    """
    open_, close = prices["open"], prices["close"]
    size = abs(math.log(open_[-1] / close[-2]))
    if size < math.log(LEAST_FACTOR):
        return None
    gaps = np.log(open_[1:] / close[:-1])
    moves = np.abs([*gaps[:-1], *np.diff(np.log(close[:-1]))])
    if size < ISOLATION * moves.max(initial=0.0) * math.sqrt(max(pause, 1.0)):
        return None
    jumps, last = _Jumps(np.arange(1, len(close)), gaps, prices), len(gaps) - 1
    no_volume = volume_fault(prices["volume"][:-1, None]) is not None
    if jumps.activity(np.array([last]))[1][0] > (CALM if no_volume else _most_activity(size)):
        return None
    split = jumps.fit(last)
    return f"opens at {math.exp(gaps[last]):.3g} times the last close" + (f", as after a {split}" if split else "")


def _most_activity(size: float) -> float:
    """The largest activity of a calm jump of this size."""
    return CALM * (math.exp(2 * size) if size >= math.log(1.9) else 1)


def _is_large(ratio: np.ndarray) -> np.ndarray:
    return (ratio > math.exp(SMALLEST)) | (ratio < math.exp(-SMALLEST))


def _first_bars(times: np.ndarray) -> np.ndarray:
    """Return the rows at which trading resumes, because splits happen while it rests. Without any, all but one."""
    rows = np.arange(1, len(times))
    if len(times) < 3 or (bar := spacing(times)) >= DAY:
        return rows
    resumed = rows[np.diff(times) > bar]
    return resumed if len(resumed) else rows


@dataclasses.dataclass(frozen=True, eq=False)
class _Jumps:
    """The jumps [n] from the last close to the open of the bars at `rows`.

    Attributes:
        rows: [n] positions of the bars.
        gaps: [n] log(open / last close).
        prices: open, high, low, close and volume, [T] each.
    """

    rows: np.ndarray
    gaps: np.ndarray
    prices: Mapping[str, np.ndarray]

    def fit(self, i: int) -> Split | None:
        """Return the split that jump `i` is close to, or None."""
        size = abs(self.gaps[i])
        near = slice(max(i - NEARBY, 0), i + NEARBY + 1)
        usual_gap = _usual(np.delete(self.gaps[near], i - near.start))
        moves = np.diff(np.log(self.prices["close"][self.rows[near] - 1]))
        # A move between two closes that contains the jump is the one after its place.
        usual_move = _usual(np.delete(moves, np.s_[i - near.start : i - near.start + 1]))
        factor, lowest, highest = TOLERANCE
        tolerance = min(max(factor * max(usual_gap, usual_move), lowest, size / 8), highest, max(size / 6, lowest))
        (log_ratio, many, few), (next_ratio, *next_shares) = heapq.nsmallest(2, RATIOS, lambda one: abs(one[0] - size))
        error = abs(log_ratio - size)
        if error > tolerance or size < PROMINENCE * usual_gap:
            return None
        up = self.gaps[i] > 0
        if up and many / few < SMALLEST_REVERSE:
            return None
        shares = [(many, few)]
        if (next_ratio - size) ** 2 - error**2 < EITHER * usual_gap**2 and not (
            up and next_ratio < math.log(SMALLEST_REVERSE)
        ):
            shares.append((next_shares[0], next_shares[1]))
        (new, old), *others = [(few, many) if up else (many, few) for many, few in shares]
        return Split(
            row=int(self.rows[i]),
            new=new,
            old=old,
            ratio=math.exp(self.gaps[i]),
            or_else=others[0] if others else None,
            exact=bool(error <= EXACT * usual_gap),
        )

    def activity(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the volume times the range of the bars after the jumps `places` [n], relative to the usual before.

        The second one leaves out of the range what the bar's move from open to close has above the usual. On a day of a
        large market move, the range is wide in one direction. The third one is the second one over the size of that
        move relative to the usual, by which volume is higher as well.
        """
        rows, before = self.rows[places], places[:, None] - np.arange(1, BEFORE + 1)
        known = before >= 0
        earlier = self.rows[np.maximum(before, 0)]
        high, low, volume = (self.prices[name] for name in ("high", "low", "volume"))
        surge = _relative(volume[rows], np.where(known, volume[earlier], np.nan))
        surge /= np.maximum(np.minimum(np.exp(-self.gaps[places]), surge), 1.0)
        spread = np.where(known, np.log(high[earlier] / low[earlier]), np.nan)
        move = np.abs(np.log(self.prices["close"] / self.prices["open"]))
        usual = np.median(move)
        further = np.maximum(move[rows] - usual, 0)
        own = np.log(high[rows] / low[rows])
        beyond = surge * _relative(own - further, spread)
        busy = 1 + further / usual if usual > NOTHING else np.ones(len(rows))
        return surge * _relative(own, spread), beyond, beyond / busy


def _usual(changes: np.ndarray) -> float:
    return float(np.median(np.abs(changes))) / 0.6745 if len(changes) else 0.0


def _relative(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return values [n] / median of the known others [n, k], or 1 where one of the two is 0, or there are none."""
    # The median of the known ones: the unknown ones are last in order.
    others = np.sort(others, axis=1)
    known = np.isfinite(others).sum(axis=1)
    middle = np.stack(
        [np.maximum((known - 1) // 2, 0), np.maximum(known // 2, 0).clip(max=others.shape[1] - 1)], axis=1
    )
    usual = np.take_along_axis(others, middle, axis=1).mean(axis=1)
    sound = (usual > NOTHING) & (values > 0)
    return np.where(sound, values / np.where(sound, usual, 1.0), 1.0)
