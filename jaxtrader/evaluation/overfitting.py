"""What remains of a Sharpe ratio after many trials: probabilistic and deflated Sharpe ratio, and the probability of
backtest overfitting. All are pure functions of arrays, in NumPy and float64.

`returns [N]` are simple returns a bar over cash, and Sharpe ratios are of one bar. None of these measures sees
autocorrelation. Intervals that do are in `bootstrap.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MIN_CONFIGURATIONS = 8  # below, ranks among so few say nothing
BLOCKS = 16  # of bars, as in the paper


@dataclass(frozen=True)
class Overfitting:
    """How far a choice among configurations can be trusted.

    Attributes:
        configurations: the number of configurations of which one was chosen.
        bars: the number of bars on which it was chosen.
        probability: the result of `backtest_overfitting`. None: there are too few bars or configurations for it.
    """

    configurations: int
    bars: int
    probability: float | None

    def __str__(self) -> str:
        if self.probability is not None:
            return f"{self.probability:.2f}"
        few = self.configurations < MIN_CONFIGURATIONS
        return f"not computed: {self.configurations} configurations" if few else f"not computed: {self.bars} bars"


def overfitting(returns: Float[np.ndarray, "bar configuration"]) -> Overfitting:
    """`backtest_overfitting` of all configurations, where they and their bars are enough for it."""
    bars, configurations = returns.shape
    enough = configurations >= MIN_CONFIGURATIONS and bars >= 2 * BLOCKS
    return Overfitting(configurations, bars, backtest_overfitting(returns) if enough else None)


def probabilistic_sharpe(returns: np.ndarray, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio of a bar exceeds a benchmark.

    It is the normal probability of (S - benchmark) sqrt(N - 1) / sqrt(1 - skew S + (kurtosis - 1) S^2 / 4). S is the
    mean over the deviation (ddof = 0), and the moments are adjusted for the sample. Source: Bailey and Lopez de Prado
    (2012), equation 7.

    Args:
        returns: [N] returns a bar, at least 4.
        benchmark: the Sharpe ratio of a bar to exceed.

    Returns:
        NaN where the returns do not vary or are fewer than 4.
    """
    from scipy import stats  # a second to import, so only where it is used

    returns = np.asarray(returns, np.float64)
    if returns.size < 4 or not np.ptp(returns) > 0:
        return math.nan
    ratio = returns.mean() / returns.std()
    skew, kurtosis = stats.skew(returns, bias=False), stats.kurtosis(returns, bias=False, fisher=False)
    variance = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2
    if not variance > 0:
        return math.nan
    return float(stats.norm.cdf((ratio - benchmark) * math.sqrt(returns.size - 1) / math.sqrt(variance)))


def expected_best_sharpe(trials: int, variance: float) -> float:
    """The Sharpe ratio of a bar that the best of so many trials without skill is expected to show.

    Source: Bailey and Lopez de Prado (2014): the expected maximum of `trials` normal draws of this variance.

    Args:
        trials: independent trials, at least 1. One trial has an expectation of 0.
        variance: the variance of the Sharpe ratios of a bar over the trials.
    """
    from scipy import stats

    if trials < 1 or not variance >= 0:
        raise ValueError(f"{trials} trials of variance {variance}; give at least 1 trial and a variance of at least 0")
    if trials == 1:
        return 0.0
    high, higher = stats.norm.ppf([1 - 1 / trials, 1 - 1 / (trials * math.e)])
    return float(math.sqrt(variance) * ((1 - np.euler_gamma) * high + np.euler_gamma * higher))


def variance_of_trials(ratios: Iterable[float], bars: int) -> float:
    """The variance of the trials' Sharpe ratios of a bar, and at least that of chance, 1 / bars.

    Tries of one idea resemble each other, and the spread of a few of them says too little of what chance does.

    Args:
        ratios: the Sharpe ratios of the trials. A NaN, of an account that does not vary, is left out.
        bars: how many each trial had.
    """
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    return max(float(np.var(known, ddof=1)) if len(known) > 1 else 0.0, 1 / bars)


def deflated_sharpe(returns: np.ndarray, trials: int, variance: float) -> float:
    """`probabilistic_sharpe` against `expected_best_sharpe`: the probability of skill after so many trials.

    Source: Bailey and Lopez de Prado (2014).

    Args:
        returns: [N] returns a bar of the trial that was chosen.
        trials: how many were tried, this one included.
        variance: the variance of the trials' Sharpe ratios of a bar.
    """
    return probabilistic_sharpe(returns, expected_best_sharpe(trials, variance))


def backtest_overfitting(returns: Float[np.ndarray, "bar configuration"], blocks: int = BLOCKS) -> float:
    """Probability that the configuration that is best in sample is in the lower half out of sample (CSCV).

    The bars are cut into equal blocks. Each half of the blocks is in sample once, and the other half is out of sample.
    The best Sharpe ratio in sample picks a configuration. The figure is the share of these splits in which that one
    ranks below the median out of sample.
    Source: Bailey, Borwein, Lopez de Prado and Zhu (2017).

    Args:
        returns: [N, K] returns a bar of K configurations over the same bars.
        blocks: an even number. Where it does not divide N, the first blocks have a bar more.

    Raises:
        ValueError: fewer than MIN_CONFIGURATIONS configurations, `blocks` odd or below 2, or fewer than 2 bars a block.
    """
    returns = np.asarray(returns, np.float64)
    if returns.ndim != 2 or returns.shape[1] < MIN_CONFIGURATIONS:
        shape = returns.shape[1] if returns.ndim == 2 else returns.shape
        raise ValueError(f"not computed: {shape} configurations; give at least {MIN_CONFIGURATIONS}")
    if blocks < 2 or blocks % 2 or len(returns) < 2 * blocks:
        raise ValueError(f"{len(returns)} bars in {blocks} blocks; give an even number and at least 2 bars a block")
    begins = [part[0] for part in np.array_split(np.arange(len(returns)), blocks)]
    # Sums of a half are sums over its blocks, so no split reads the bars again.
    moments = [np.add.reduceat(returns**power, begins) for power in (0, 1, 2)]
    halves = np.zeros((math.comb(blocks, blocks // 2), blocks))
    for row, chosen in enumerate(itertools.combinations(range(blocks), blocks // 2)):
        halves[row, chosen] = 1
    in_sample, out_of_sample = (_sharpe_of_sums(*(half @ sums for sums in moments)) for half in (halves, 1 - halves))
    chosen = np.take_along_axis(out_of_sample, in_sample.argmax(1)[:, None], axis=1)
    # The rank among K, with ties in the middle. Half of K + 1 is the median.
    rank = (out_of_sample < chosen).sum(1) + ((out_of_sample == chosen).sum(1) + 1) / 2
    return float(np.mean(rank < (returns.shape[1] + 1) / 2))


def _sharpe_of_sums(bars: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Mean over sample deviation (ddof = 1) from sums. 0 where the returns do not vary."""
    mean = total / bars
    variance = np.maximum(squares - bars * mean**2, 0) / (bars - 1)
    varies = variance > 1e-20 * np.maximum(squares, np.finfo(float).tiny)  # the rest is rounding of the difference
    return np.where(varies, mean / np.sqrt(np.where(varies, variance, 1)), 0.0)
