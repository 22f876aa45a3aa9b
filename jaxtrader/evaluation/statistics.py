"""Sharpe ratios of a bar, their standard errors, and the standard error of the difference of two. NumPy only.

All functions read returns over cash, `[N]`, one a bar, and answer in units of one bar. `BacktestResult.sharpe_scale`
turns a ratio and its error into those of a year, or of the whole period where that is shorter than a year.

The errors follow from the influence of each bar on the ratio. With z = (r - mean) / deviation and S the ratio, it is
z - S (z^2 - 1) / 2. The standard error is the deviation of the influences over sqrt(N), for independent bars of any
distribution. This is the formula of Mertens (2002), which with normal returns is that of Lo (2002,
https://doi.org/10.2469/faj.v58.n4.2453). For the difference of two ratios over the same bars, the influences are
subtracted bar by bar, so that what moves both cancels. This is the delta method of Ledoit and Wolf (2008,
https://doi.org/10.1016/j.jempfin.2008.03.002). With normal returns it is that of Jobson and Korkie (1981) as corrected
by Memmel (2003). Returns that follow on each other (autocorrelation) are not accounted for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PerBar = Float[np.ndarray, " bar"]

# A return is a ratio of two equities less 1, so its rounding error is some units of 2.2e-16 whatever its size. A
# deviation below ROUNDING is that error, and a Sharpe ratio over it would be a large number about nothing.
ROUNDING = 1e-14

SURE = 2.0  # standard errors. A difference beyond them happens by chance about once in 20.


@dataclass(frozen=True)
class Estimate:
    """A number that was estimated from N bars.

    Attributes:
        value: the estimate. NaN: it is undefined.
        error: its standard error. NaN: it is undefined.
    """

    value: float
    error: float

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate in another unit."""
        return Estimate(factor * self.value, factor * self.error)


def deviation(returns: PerBar) -> float:
    """Return the sample deviation (ddof = 1) of the returns, 0 where it is within rounding, NaN of one bar."""
    if returns.size < 2:
        return math.nan
    found = float(returns.std(ddof=1))
    return 0.0 if found < ROUNDING else found


def sharpe_ratio(excess: PerBar) -> float:
    """Return the Sharpe ratio of a bar: mean / sample deviation (ddof = 1) of the returns over cash.

    NaN where they do not vary. Source: Sharpe (1994, https://doi.org/10.3905/jpm.1994.409501).
    """
    spread = deviation(excess)
    return float(excess.mean()) / spread if spread > 0 else math.nan


def sharpe(excess: PerBar) -> Estimate:
    """Return the Sharpe ratio of a bar and its standard error (Mertens 2002)."""
    return Estimate(sharpe_ratio(excess), _standard_error(_influences(excess)))


def sharpe_difference(excess: PerBar, other: PerBar) -> Estimate:
    """Return the Sharpe ratio of a bar less that of another account over the same bars, and its standard error.

    The error is of the paired difference (Ledoit and Wolf 2008, for independent bars). NaN where one of the two
    returns does not vary.

    Raises:
        ValueError: the two have different lengths.
    """
    if excess.shape != other.shape:
        raise ValueError(f"returns of {excess.size} and of {other.size} bars are no pairs; give those of the same bars")
    error = _standard_error(_influences(excess) - _influences(other))
    return Estimate(sharpe_ratio(excess) - sharpe_ratio(other), error)


def _influences(excess: PerBar) -> PerBar:
    """The influence of each bar on the Sharpe ratio, [N]. NaN where the returns do not vary."""
    ratio = sharpe_ratio(excess)
    if math.isnan(ratio):
        return np.full(excess.shape, np.nan)
    scores = (excess - excess.mean()) / excess.std()
    return scores - ratio / 2 * (scores**2 - 1)


def _standard_error(influences: PerBar) -> float:
    return float(influences.std() / math.sqrt(influences.size))
