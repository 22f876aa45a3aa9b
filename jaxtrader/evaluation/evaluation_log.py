"""Counts how often bars have been evaluated. The best of many tries on the same bars is good by chance.

`evaluations.jsonl` beside the runs has one line for each evaluation, and is only ever appended to. Evaluations of the
same bars belong together, whatever the file and the symbols that the bars came from. So do evaluations of which one has
at least a twentieth of the other's bars, as those of fewer years or fewer symbols.

Fingerprints tell which bars are the same. A fingerprint is a digest of the shapes of eight bars in a row of one asset,
without their times. A bar's shape is the place of its open and its close between its low and its high, and how far
these two are apart, all in few levels. Prices of one bar change by one factor where they are adjusted for a dividend or
a split, so the shape stays. A bar of one price has that of the step from the close before, which a dividend moves at
its own bar alone. Where eight bars have few shapes, as with a large tick, the fingerprint is of the prices themselves.
A line keeps a random sample of the fingerprints. Bars of another length are other bars.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxtrader.evaluation import statistics
from jaxtrader.evaluation.baselines import rows_of
from jaxtrader.evaluation.overfitting import variance_of_trials
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.files import FileError
from jaxtrader.market.bar_checks import PRICES
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import setting

NAME = "evaluations.jsonl"
IN_A_ROW = 8  # bars of a fingerprint
SAMPLED, SAMPLED_OF_AN_ASSET = 512, 8  # the fingerprints that a line keeps: about so many, and so many of each asset
PLACES = (0.32, 0.68)  # borders of a price's place in its bar, away from thirds and halves, where few ticks would be
SIZES = 4  # classes of the size of a bar. Each is twice as large as the one before, and after the last they repeat.
ENOUGH_SHAPES = 5  # eight bars have a fingerprint where they have so many different shapes
HEX = 12  # digits of a fingerprint in the file
SHAPES = "bar shapes:"  # begins a sample. One that begins otherwise has fingerprints of another kind, and matches none.
SHARED = 0.05  # two evaluations are of the same bars where one shares this part of its bars with the other
BEGINS = b'{"bars": "'  # the first bytes of each line


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        bars: a digest of the symbols, times and closes that were evaluated.
        policy: a digest of what was evaluated. The same policy twice is one trial.
        sharpe: the Sharpe ratio of a bar, over cash. None where it is undefined.
        run: where it came from, for people.
        time: when it was evaluated, in UTC.
        windows: how many fingerprints the bars have.
        sample: some of these fingerprints, one after the other, behind SHAPES. It is empty where an earlier evaluation
            of the same bars has it.
        fingerprints: all of them, of an evaluation that is being made.
    """

    bars: str
    policy: str
    sharpe: float | None
    run: str
    time: str
    windows: int = 0
    sample: str = dataclasses.field(default="", compare=False)
    fingerprints: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def line(self) -> str:
        """The evaluation as the file has it."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "fingerprints"})


@dataclass(frozen=True)
class Trials:
    """What was tried on the same bars.

    Attributes:
        evaluations: the number of evaluations of these bars, the last one included.
        overlapping: the number of these that were of a part of the bars, of more bars, or of bars of other names.
        count: different policies among them, and those made elsewhere.
        variance: the variance of the Sharpe ratios of a bar over the policies, and at least that of chance, 1 / bars.
    """

    evaluations: int
    count: int
    variance: float
    overlapping: int = 0


def evaluation_of(market: Market, result: BacktestResult, policy: bytes, run: str) -> Evaluation:
    """Describe the evaluation of a policy.

    Args:
        market: the market that the result was run on.
        result: the result of one symbol, or a combined one.
        policy: the bytes that identify what was evaluated, such as those of a policy file.
        run: where it came from, for people.
    """
    bars, fingerprints = hashlib.sha256(), []
    for name, member in result.accounts.items():
        fingerprints += _fingerprints(market, rows_of(market, member))
        bars.update(name.encode())
        bars.update(np.ascontiguousarray(member.times.astype("datetime64[ns]")).tobytes())
        # In float32, as an export may lose the last digits of the same prices.
        bars.update(np.ascontiguousarray(market.close[rows_of(market, member)], np.float32).tobytes())
    ratio = statistics.sharpe_ratio(result.excess_returns)
    return Evaluation(
        bars=bars.hexdigest()[:24],
        policy=hashlib.sha256(policy).hexdigest()[:24],
        sharpe=ratio if math.isfinite(ratio) else None,
        run=run,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        windows=sum(map(len, fingerprints)),
        sample=_sample(fingerprints),
        fingerprints=np.concatenate([*fingerprints, np.zeros(0, np.uint64)]),
    )


def record(folder: Path, evaluation: Evaluation) -> list[Evaluation]:
    """Append an evaluation to the file in a folder of runs, and return all evaluations of its bars, the new one last.

    Evaluations of a part of the bars are among them, and evaluations of more bars.

    Raises:
        FileError: the file cannot be written, or holds something else.
    """
    path = folder / NAME
    earlier = read(path)
    sampled = {one.bars: one for one in earlier if one.sample.startswith(SHAPES)}
    if evaluation.bars in sampled:
        evaluation = dataclasses.replace(evaluation, sample="")
    same = {evaluation.bars, *(bars for bars, one in sampled.items() if _share(one, evaluation) >= SHARED)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One write at the end of the file, so that two processes do not mix their lines.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(handle).st_size
            is_cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, ("\n" * is_cut + evaluation.line + "\n").encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise FileError(
            f"cannot write {path}: {error.strerror or error}; choose a run folder where you may write"
        ) from error
    return [one for one in (*earlier, evaluation) if one.bars in same]


def read(path: Path) -> list[Evaluation]:
    """Return all evaluations of a file. A file that does not exist has none.

    Raises:
        FileError: it cannot be read, or a line is not an evaluation. The half line of a process that was killed while
            it wrote is passed over.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}; check your permission") from error
    found = []
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            evaluation = Evaluation(**json.loads(line))
            sharpe = evaluation.sharpe
            number = sharpe is None or (isinstance(sharpe, float) and math.isfinite(sharpe))
            texts = (evaluation.bars, evaluation.policy, evaluation.run, evaluation.time, evaluation.sample)
            if not number or not all(isinstance(x, str) for x in texts) or type(evaluation.windows) is not int:
                raise ValueError(line)
            _numbers(evaluation.sample)
        except (ValueError, TypeError, RecursionError) as error:
            if line.startswith(BEGINS) and not line.rstrip().endswith(b"}"):
                continue
            raise FileError(
                f"{path}, line {row} is no record of jaxtrader; another program wrote it, so move the file away"
            ) from error
        found.append(evaluation)
    return found


def trials(evaluations: Sequence[Evaluation], bars: int, elsewhere: int = 0) -> Trials:
    """Count the policies that were tried on the same bars.

    Args:
        evaluations: all evaluations of these bars, the last one of all of them.
        bars: how many there are.
        elsewhere: trials that this file does not know of.

    Raises:
        ValueError: `elsewhere` is below 0.
    """
    if elsewhere < 0:
        raise ValueError(f"{setting('trials', elsewhere)} must be 0 or more")
    ratios = {evaluation.policy: evaluation.sharpe for evaluation in evaluations}
    variance = variance_of_trials([ratio for ratio in ratios.values() if ratio is not None], bars)
    others = sum(evaluation.bars != evaluations[-1].bars for evaluation in evaluations)
    return Trials(len(evaluations), len(ratios) + elsewhere, variance, others)


def _fingerprints(market: Market, rows: slice) -> list[np.ndarray]:
    """The fingerprints of each asset over some rows of a market, as different numbers of 48 bits."""
    found = []
    for asset in range(market.close.shape[1]):
        own = np.arange(rows.start, rows.stop)
        if market.present is not None:
            own = own[market.present[own, asset]]
        if len(own) < IN_A_ROW:
            continue
        prices = np.stack([getattr(market, name)[own, asset] for name in PRICES])
        shapes = _shapes(prices).astype(np.uint64)
        seen = np.bitwise_or.reduce(_in_a_row(np.uint64(1) << shapes))
        # The prices are in float32, as an export may lose the last digits of the same prices.
        bits = prices.astype(np.float32).view(np.uint32).astype(np.uint64)
        exact = _mixed(_mixed(bits[3] << np.uint64(32) | bits[1]) + bits[2])
        fingerprints = np.where(np.bitwise_count(seen) >= ENOUGH_SHAPES, _rolled(_mixed(shapes)), _rolled(exact))
        moves = np.ptp(_in_a_row(prices[3]), axis=0) > 0  # prices that stand still have no fingerprint
        found.append(np.unique(_mixed(fingerprints[moves]) >> np.uint64(64 - 4 * HEX)))
    return found


def _shapes(prices: Float[np.ndarray, "price bar"]) -> Int[np.ndarray, " bar"]:
    """The shape of each bar as a number below 64. `prices` are open, high, low and close."""
    first, high, low, last = prices
    first = np.where(high > low, first, np.append(last[:1], last[:-1]))
    high, low = np.maximum(high, first), np.minimum(low, first)
    # A bar that stands still has no size, and its place is the lowest.
    size = np.maximum(np.log(high / low), np.finfo(float).tiny)
    place = (np.stack([first, last]) - low) / np.where(high > low, high - low, 1)
    opened, closed = np.digitize(place, PLACES)
    return (len(PLACES) + 1) * SIZES * opened + SIZES * closed + np.floor(np.log2(size)).astype(int) % SIZES


def _rolled(numbers: np.ndarray) -> np.ndarray:
    """One number for each eight bars in a row."""
    rolled = np.uint64(0)
    for part in _in_a_row(numbers):
        rolled = part + rolled * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(rolled)


def _in_a_row(column: np.ndarray) -> list[np.ndarray]:
    """The first, second and so on of each eight bars in a row."""
    count = len(column) - IN_A_ROW + 1
    return [column[place : place + count] for place in range(IN_A_ROW)]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits, scattered. Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)


def _sample(fingerprints: Sequence[np.ndarray]) -> str:
    """The lowest fingerprints of each asset, which are as good as drawn by chance, as text."""
    most = max(SAMPLED_OF_AN_ASSET, SAMPLED // max(len(fingerprints), 1))
    sample = "".join(f"{fingerprint:0{HEX}x}" for own in fingerprints for fingerprint in own[:most].tolist())
    return SHAPES + sample if sample else ""


def _numbers(sample: str) -> np.ndarray:
    """The fingerprints of a sample, of whatever kind. Raises ValueError where it is none."""
    sample = sample.rpartition(":")[2]
    if len(sample) % HEX:
        raise ValueError(f"{len(sample)} digits are not fingerprints of {HEX} digits each")
    return np.array([int(sample[i : i + HEX], 16) for i in range(0, len(sample), HEX)], np.uint64)


def _share(earlier: Evaluation, evaluation: Evaluation) -> float:
    """The share of the bars of one evaluation that the other has too, the larger of the two. It is an estimate."""
    sample = _numbers(earlier.sample)
    if evaluation.fingerprints is None or not len(evaluation.fingerprints) or not len(sample):
        return 0.0
    found = np.isin(sample, evaluation.fingerprints)
    if found.sum() < min(2, len(sample)):
        return 0.0
    return float(found.mean() * max(1.0, earlier.windows / len(evaluation.fingerprints)))
