"""Check 2: no feature knows more of the next return than a feature can.

This check finds leaks in columns that were computed elsewhere, which check 1 cannot compute again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxtrader.checks.check import Check
from jaxtrader.checks.returns import fill_to_fill
from jaxtrader.ledger.rules import FillTime
from jaxtrader.market.bars import Bars
from jaxtrader.market.features import Feature
from jaxtrader.market.market import Market

MAX_R2 = 0.005  # share of the variance of ranks that is certain
CERTAIN = 3.0  # standard errors that are taken off a correlation before it is judged
LATER_RETURNS = 5  # a leak may skip the next return and know one of so many after it


@dataclass(frozen=True)
class RankCorrelation:
    """The rank correlation of a feature with a fill-to-fill return.

    Attributes:
        feature: name of the feature.
        rho: Spearman's coefficient.
        t: its t statistic, clustered by time stamp.
        ahead: number of bars between the next return and this one.
    """

    feature: str
    rho: float
    t: float
    ahead: int = 0

    @property
    def certain(self) -> float:
        """|rho| less `CERTAIN` of its standard errors. It is below 0 where rho may be 0."""
        return abs(self.rho) * (1 - CERTAIN / abs(self.t)) if self.t else 0.0

    @property
    def certain_r2(self) -> float:
        """The share of the variance of ranks that is explained for certain."""
        return max(self.certain, 0.0) ** 2

    @property
    def target(self) -> str:
        """The return, in words."""
        if not self.ahead:
            return "the next return"
        return f"the return {self.ahead} bar{'s' * (self.ahead > 1)} after the next"


def plausible(
    bars: Bars | Sequence[Bars], features: Sequence[str | Feature] | None = None, fill: FillTime = "next_open"
) -> Check:
    """Correlate the ranks of every feature with the return that a decision on it earns, from fill to fill.

    Ranks are taken within each symbol and pooled over symbols (Spearman's correlation). The t statistic is clustered by
    time stamp, since symbols move together. It is the sum over bars of the products, divided by the root of the sum of
    their squares. |rho| / |t| is the standard error of the correlation.

    The check judges the size of the effect and its t together. It takes 3 standard errors off the correlation and
    fails where the square of the rest is above 0.5% of the ranks' variance. A t that grows with the number of bars is
    thus no fault as long as the effect is small. Nor is a large correlation on few bars. In monthly returns an R2 of
    0.5% is already worth trading (Campbell and Thompson 2008, https://doi.org/10.1093/rfs/hhm055). So more than that
    for certain, in one bar, is no discovery.

    Each of the `LATER_RETURNS` after the next one is checked too, since a column may know a later return. The figure is
    that of the worst column.

    Slow features lean against what follows in any short history. On 250 bars the default features failed in none of
    1,000 random walks. `run` refuses fewer.

    Args:
        bars: one history or several.
        features: names or `Feature`s. The default is `features.DEFAULT`.
        fill: where decisions fill, see `Rules`.

    Example:
        >>> jt.checks.plausible(jt.load_bundled("IBM"), ["volatility_20", "gap"]).passed
        True
    """
    market = Market.from_bars(bars, features=features)
    found = [one for ahead in range(LATER_RETURNS + 1) for one in rank_correlations(market, fill, ahead)]
    # Where nothing is wrong, the next return is what is told of.
    worst = max((one for one in found if one.certain_r2 > MAX_R2 or not one.ahead), key=lambda one: one.certain)
    return Check(
        name="plausible",
        passed=worst.certain_r2 <= MAX_R2,
        figure=worst.certain_r2,
        limit=MAX_R2,
        measure=f"certain R2 of {worst.feature} with {worst.target}",
        text=(
            f"{worst.feature} is the column that says most of {worst.target}, fill to fill: rank correlation "
            f"{worst.rho:+.3f}, R2 {worst.rho**2:.2%}, t {worst.t:+.1f}, "
            f"and an R2 of {worst.certain_r2:.2%} is certain to {CERTAIN:g} standard errors"
        ),
        meaning=(
            "a column knows the return that a decision on it earns better than any known signal does: look how it was "
            "computed and when it was known; a shift by one bar too few is the usual cause"
        ),
    )


def rank_correlations(market: Market, fill: FillTime, ahead: int = 0) -> list[RankCorrelation]:
    """Return the rank correlation of each feature with the return of a decision `ahead` bars later.

    It is taken over all bars of the market's segments on which features and fills are known.
    """
    moves = fill_to_fill(market, fill, ahead)
    times, products = [], []
    for ready, (start, _, end) in zip(market.ready, market.segments, strict=True):
        for asset in range(market.close.shape[1]):
            rows = np.arange(max(start, ready), end)
            known = np.isfinite(moves[rows, asset])
            for mask in (market.present, market.listed):  # bars that were filled in are left out
                known &= True if mask is None else mask[rows, asset]
            rows = rows[known]
            times.append(market.times[rows])
            products.append(_rank_scores(market.features[rows, asset]) * _rank_scores(moves[rows, asset, None]))
    stamps, cluster = np.unique(np.concatenate(times), return_inverse=True)
    pooled = np.concatenate(products)
    correlations = []
    for name, column in zip(market.feature_names, pooled.T, strict=True):
        sums = np.bincount(cluster, column, len(stamps))
        size = float(np.sqrt((sums**2).sum()))
        t = float(sums.sum()) / size if size > 0 else 0.0
        correlations.append(RankCorrelation(name, float(column.mean()), t, ahead))
    return correlations


def _rank_scores(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """Return the ranks of each column, scaled to mean 0 and deviation 1. Ties share their mean rank.

    A constant column gives 0.
    """
    import pandas as pd

    ranks = pd.DataFrame(values).rank().to_numpy()
    spread = ranks.std(0)
    return (ranks - ranks.mean(0)) / np.where(spread > 0, spread, 1)
