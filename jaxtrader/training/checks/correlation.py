"""Check 2: no feature knows more of the next return than a feature can.

Perturbing bars does not move a column that was computed elsewhere, so a leak in it must be seen in what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxtrader.envs.ledger import Fills
from jaxtrader.market.bars import Bars
from jaxtrader.market.features import Feature
from jaxtrader.market.market import Market
from jaxtrader.training.checks.result import Check
from jaxtrader.training.checks.returns import fill_to_fill

MOST_T = 8.0
MOST_SHARE = 0.05  # of the variance of ranks
AHEAD = 5  # bars: a leak may skip the next return and know one that comes later


@dataclass(frozen=True)
class RankCorrelation:
    """Of a feature with a fill-to-fill return: the coefficient and its t, clustered by time stamp.

    Attributes:
        feature: its name.
        rho, t: the figures.
        ahead: bars by which the return comes after the next one.
    """

    feature: str
    rho: float
    t: float
    ahead: int = 0

    @property
    def by_t(self) -> bool:
        """Whether t is nearer to its limit than R2 is; of later returns t alone counts, which no chance makes large."""
        return self.ahead > 0 or abs(self.t) / MOST_T >= self.rho**2 / MOST_SHARE

    @property
    def excess(self) -> float:
        """That figure as a share of its limit."""
        return abs(self.t) / MOST_T if self.by_t else self.rho**2 / MOST_SHARE

    @property
    def of(self) -> str:
        """The return, in words."""
        return (
            f"the return {self.ahead} bar{'s' * (self.ahead > 1)} after the next" if self.ahead else "the next return"
        )


def plausible(
    bars: Bars | Sequence[Bars], features: Sequence[str | Feature] | None = None, fill: Fills = "next_open"
) -> Check:
    """Rank correlation (Spearman) of every feature with the return that a decision on it earns, fill to fill.

    And with each of the AHEAD returns after that one, by t alone: a column may know the day after tomorrow.
    Ranks are taken within each symbol and pooled. t is clustered by time stamp (symbols move together, so that 100 of
    them are far from 100 times the evidence): the sum over bars of the products, over the root of the sum of their
    squares. Implausible is |t| > 8, or R2 > 5% of the ranks' variance. By chance a column reaches |t| = 8 once in 1e15;
    and 0.5% of the variance of monthly returns is already worth trading (Campbell and Thompson 2008,
    https://doi.org/10.1093/rfs/hhm055), so ten times that in a bar is no discovery. The figure is the worst column's,
    by whichever of the two is nearer to its limit. On very many bars |t| may be large for a true effect that is too
    small to trade: then look at R2.
    On too few to train on (`run` refuses them) R2 passes 5% by chance: in 250 bars of a random walk with the default
    features once in 70 walks, since slow features lean against what follows in any short history.

    Args:
        bars: one history or several.
        features: names or `Feature`s; default `features.DEFAULT`.
        fill: where decisions fill, see `Rules`.
    """
    market = Market.from_bars(bars, features=features)
    found = [one for ahead in range(AHEAD + 1) for one in rank_correlations(market, fill, ahead)]
    worst = max((one for one in found if one.excess > 1 or not one.ahead), key=lambda one: one.excess)
    return Check(
        name="plausible",
        passed=worst.excess <= 1,
        figure=abs(worst.t) if worst.by_t else worst.rho**2,
        limit=MOST_T if worst.by_t else MOST_SHARE,
        measure=f"{'|t|' if worst.by_t else 'R2'} of {worst.feature} with {worst.of}",
        text=(
            f"{worst.feature} is the column that says most of {worst.of}, fill to fill: rank correlation "
            f"{worst.rho:+.3f}, R2 {worst.rho**2:.2%}, t {worst.t:+.1f}"
        ),
        meaning=(
            "a column knows the return that a decision on it earns better than any known signal does: look how it was "
            "computed and when it was known; a shift by one bar too few is the usual cause"
        ),
    )


def rank_correlations(market: Market, fill: Fills, ahead: int = 0) -> list[RankCorrelation]:
    """One for each feature of the market, over all bars of its segments whose features and fills are known.

    The return is that of a decision `ahead` bars later.
    """
    moves = fill_to_fill(market, fill, ahead)
    times, products = [], []
    for ready, (start, _, end) in zip(market.ready, market.segments, strict=True):
        for asset in range(market.close.shape[1]):
            rows = np.arange(max(start, ready), end)
            known = np.isfinite(moves[rows, asset])
            for mask in (market.present, market.listed):  # a bar that was filled in says nothing
                known &= True if mask is None else mask[rows, asset]
            rows = rows[known]
            times.append(market.times[rows])
            products.append(_scores(market.features[rows, asset]) * _scores(moves[rows, asset, None]))
    stamps, at = np.unique(np.concatenate(times), return_inverse=True)
    pooled = np.concatenate(products)
    found = []
    for name, column in zip(market.feature_names, pooled.T, strict=True):
        clusters = np.bincount(at, column, len(stamps))
        size = float(np.sqrt((clusters**2).sum()))
        t = float(clusters.sum()) / size if size > 0 else 0.0
        found.append(RankCorrelation(name, float(column.mean()), t, ahead))
    return found


def _scores(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row column"]:
    """Ranks of each column (ties share their mean) with mean 0 and deviation 1; 0 where nothing varies."""
    import pandas as pd

    ranks = pd.DataFrame(values).rank().to_numpy()
    spread = ranks.std(0)
    return (ranks - ranks.mean(0)) / np.where(spread > 0, spread, 1)
