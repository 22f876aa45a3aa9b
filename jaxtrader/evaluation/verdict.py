"""What a result says, in words that do not oversell: against the baselines, chance, other tries and the training part.

Better or worse is decided by an interval of the paired difference of two Sharpe ratios, from a block bootstrap
(`bootstrap.py`). So both sentences on a difference, here and in a report, say the same.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxtrader.evaluation import bootstrap, statistics
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.evaluation_log import Trials
from jaxtrader.evaluation.overfitting import Overfitting, deflated_sharpe
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.statistics import Estimate
from jaxtrader.evaluation.timing import TimingTest

POLICY = "policy"
ENOUGH = 0.95  # the deflated probability from which a policy may be called better
POWER_QUANTILE = 0.8416  # the 0.8 quantile of the normal distribution
SAME = 1e-3  # Two accounts that never differ by more than this share of equity are one.

# What `lead` found, as long as both results live: a verdict, a table and a report ask for the same one.
_LEADS: weakref.WeakKeyDictionary[BacktestResult, weakref.WeakKeyDictionary[BacktestResult, Lead]] = (
    weakref.WeakKeyDictionary()
)

Part = Mapping[str, BacktestResult]
"""The policy's result first, then the baselines, by name."""


def sharpe(result: BacktestResult) -> Estimate:
    """The Sharpe ratio of a result with its standard error, of a year, or of the whole period below a year."""
    return statistics.sharpe(result.excess_returns).scaled(result.sharpe_scale)


@dataclass(frozen=True)
class Lead(Estimate):
    """A difference of two Sharpe ratios over the same bars, with its standard error and a 95% interval.

    Attributes:
        low, high: bounds of the interval. NaN: it is undefined.
    """

    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def detectable(self) -> float:
        """About the smallest true difference whose interval would exclude 0 in 80% of such histories.

        It is half of the interval, and 0.84 errors more: the power of a test of a normal estimate.
        """
        return (self.high - self.low) / 2 + POWER_QUANTILE * self.error

    @property
    def figures(self) -> str:
        """The difference and its interval in words."""
        return f"Sharpe difference {self.value:+.2f} (95%: {self.low:.2f} to {self.high:.2f})"

    @property
    def power(self) -> str:
        """What `detectable` is, in words."""
        return f"A true difference of {self.detectable:.2g} would be found 4 times in 5"

    def __str__(self) -> str:
        low, high = round(self.low, 2) + 0.0, round(self.high, 2) + 0.0
        return f"{round(self.value, 2) + 0.0:+.2f}, error {self.error:.2f}, 95% interval {low:.2f} to {high:.2f}"


def lead(result: BacktestResult, other: BacktestResult) -> Lead:
    """The Sharpe ratio of a result less that of another over the same bars, in the unit of `sharpe`.

    The error and the interval are of the paired difference. Where the other account does not vary it is cash, whose
    ratio counts as 0. Below `bootstrap.MIN_BARS` bars the interval is two errors of independent bars to each side.
    """
    known = _LEADS.setdefault(result, weakref.WeakKeyDictionary())
    if other not in known:
        known[other] = lead_of(result.excess_returns, other.excess_returns, result.sharpe_scale)
    return known[other]


def lead_of(own: Float[np.ndarray, " bar"], others: Float[np.ndarray, " bar"], scale: float) -> Lead:
    """`lead` of two series of returns over cash. `scale` turns a Sharpe ratio of a bar into the unit that is told."""
    is_cash = math.isnan(statistics.sharpe_ratio(others))
    varies = not math.isnan(statistics.sharpe_ratio(own)) and not (not is_cash and np.array_equal(own, others))
    estimate = statistics.sharpe(own) if is_cash else statistics.sharpe_difference(own, others)
    if varies and len(own) >= bootstrap.MIN_BARS and np.isfinite(own).all() and np.isfinite(others).all():
        found = bootstrap.sharpe_interval(own) if is_cash else bootstrap.sharpe_difference_interval(own, others)
        bounds = found.error, found.low, found.high
    else:
        away = statistics.SURE * estimate.error
        bounds = estimate.error, estimate.value - away, estimate.value + away
    return Lead(*(scale * number for number in (estimate.value, *bounds)))


def verdict(
    parts: Mapping[str, Part],
    *,
    trials: Trials | None = None,
    seeds: Mapping[str, BacktestResult] | None = None,
    timing: TimingTest | None = None,
    overfitting: Overfitting | None = None,
) -> tuple[str, ...]:
    """What the last part can and cannot tell, as sentences, the most important first.

    "Better" needs an interval that excludes 0 against both forms of buy and hold, and a deflated probability above 0.95
    where trials are known.

    Args:
        parts: the results by name, by the name of their part.
        trials: what was tried on the same bars.
        seeds: the result of each seed's own policy on the last part.
        timing: the test of the targets' timing on the last part.
        overfitting: how far the choice of this policy among others, on validation, can be trusted.
    """
    part = list(parts.values())[-1]
    probability = None
    if trials is not None:
        probability = deflated_sharpe(part[POLICY].excess_returns, trials.count, trials.variance)
    said = [_headline(part, trials, probability), sentence(parts)]
    ratios = [sharpe(one).value for one in (seeds or {}).values()]
    if seeds and not np.allclose(ratios, ratios[:1], atol=SAME, equal_nan=True):  # else all of them hold
        said.append(f"The Sharpe ratios of the single seeds were {', '.join(map(_ratio, seeds.values()))}.")
    # Where it holds its mean exposure, or its targets never change, there is no timing to test.
    holds = _are_one(part[POLICY], part[EXPOSURE_MATCHED])
    if timing is not None and not holds and np.ptp([timing.sharpe, *timing.rotated]) > SAME:
        as_good = np.mean(timing.rotated >= timing.sharpe)
        said.append(
            f"Of {len(timing.rotated):,} rotations of its targets in time, {as_good:.0%} had as high a Sharpe ratio "
            f"(p = {timing.p:.3f})."
        )
    if trials is not None and probability is not None and not math.isnan(probability):
        policies = f"{trials.count} polic{'ies' if trials.count > 1 else 'y'}"
        others = f" ({trials.overlapping} of a part of them, of more, or under other names)" * (trials.overlapping > 0)
        said.append(
            f"This is evaluation {trials.evaluations} of these bars{others}, with {policies} in all. Deflated for that "
            f"many tries, the probability of a true Sharpe ratio above 0 is {probability:.2f}."
        )
    if overfitting is not None:
        said.append(_on_choice(overfitting))
    return tuple(said)


def _ratio(result: BacktestResult) -> str:
    """The Sharpe ratio, or why there is none."""
    ratio = sharpe(result).value
    if not math.isnan(ratio):
        return f"{ratio:.2f}"
    return "none (it was ruined)" if result.ruined_at is not None else "none (its returns do not vary)"


def _on_choice(found: Overfitting) -> str:
    """What a choice among configurations is worth."""
    if found.probability is None:
        return f"The probability of backtest overfitting was {found}."
    return (
        f"It was chosen on validation among {found.configurations} configurations. The probability of backtest "
        f"overfitting is {found}: that often the best on half of these bars was below the median on the other half."
    )


def _headline(part: Part, trials: Trials | None, probability: float | None) -> str:
    """One sentence: better, worse, or not distinguishable, and from what. It begins with what a reader may believe."""
    result, holder, matched = part[POLICY], part[BUY_AND_HOLD], part[EXPOSURE_MATCHED]
    bars = f"{len(result):,} bars"
    if result.ruined_at is not None:
        return f"The policy was ruined within {bars}."
    if _are_one(result, holder):
        return f"The policy is buy-and-hold on these {bars}."
    if not result.intrabar_exposure.any():
        return f"The policy held nothing on these {bars}."
    if _are_one(result, matched):
        return f"The policy is holding at its mean exposure on these {bars}."
    against, difference = "holding the mean exposure", lead(result, matched)
    if not matched.intrabar_exposure.any():
        against = "cash"
    if math.isnan(difference.value) or math.isnan(difference.low):
        return f"The policy cannot be told from {against} on {bars}: its returns vary too little."
    figures = difference.figures
    if not difference.is_sure:
        power = f"{difference.power}, and a smaller one less often"
        return f"Not distinguishable from {against} on {bars}: {figures}. {power}."
    if difference.value < 0:
        return f"Worse than {against} on {bars}: {figures}."
    over_holding = lead(result, holder)
    if over_holding.high < 0:
        return f"Worse than buy-and-hold on {bars}, and better than {against}: {figures}."
    if not over_holding.low > 0:
        return f"Not distinguishable from buy-and-hold on {bars}, and better than {against}: {figures}."
    if probability is not None and not probability > ENOUGH:
        tries = " after so many tries" if trials is not None and trials.count > 1 else ""
        return f"Not distinguishable from chance{tries} on {bars}, though ahead of holding: {figures}."
    return f"Better than buy-and-hold and than {against} on {bars}: {figures}."


def sentence(parts: Mapping[str, Part]) -> str:
    """What the last part says.

    Args:
        parts: the results by name, by the name of their part ("train", "validation", "test").
    """
    name, part = list(parts.items())[-1]
    result, holder, matched = part[POLICY], part[BUY_AND_HOLD], part[EXPOSURE_MATCHED]
    said = [f"{_place(name, result)} the policy"]
    if result.ruined_at is not None:
        lost = -result.metrics["total_return"]
        return f"{said[0]} was ruined at bar {result.ruined_at}. It lost {lost:.0%} of its capital."
    if not result.intrabar_exposure.any():
        said[0] += f" held nothing: it {_made(result)}. Buy-and-hold {_made(holder)}."
    elif _are_one(result, holder):
        said[0] += f" held throughout and equals buy-and-hold: it {_made(result, error=True)}."
    else:
        said[0] += f" {_made(result, error=True)}. Buy-and-hold {_made(holder)}."
        said.append(_against_exposure(result, matched))
    trained = parts["train"][POLICY] if name != "train" and "train" in parts else None
    if trained is not None:
        said.append(_against_training(result, trained))
    return " ".join(filter(None, said))


def _place(name: str, result: BacktestResult) -> str:
    """The part, its dates and its length."""
    first, last = result.days
    where = f"the {name} part" if name in ("train", "validation", "test") else name
    unseen = ", unseen in training and selection" if name == "test" else ""
    return f"On {where} ({first} to {last}, {_span(result)}{unseen})"


def _span(result: BacktestResult) -> str:
    if result.spans_a_year:
        return f"{max(result.years, 1):.1f} years"
    days = 365.25 * result.years
    return f"{12 * result.years:.1f} months" if days >= 60 else f"{max(days, 1):.0f} day{'s' * (days >= 1.5)}"


def _are_one(result: BacktestResult, other: BacktestResult) -> bool:
    return np.allclose(result.equity, other.equity, rtol=SAME, atol=0)


def _made(result: BacktestResult, error: bool = False) -> str:
    """The total return, beside it the annual one from a year on, and the Sharpe ratio."""
    ratio = sharpe(result)
    if result.ruined_at is not None:
        return f"was ruined at bar {result.ruined_at}"
    a_year = f"{_percent(result.metrics['cagr'])} a year" if result.spans_a_year else ""
    ratio_text = "" if math.isnan(ratio.value) else f"Sharpe ratio {ratio.value:.2f}"
    if ratio_text and not result.spans_a_year:
        ratio_text += " of the period"
    if ratio_text and error:
        ratio_text += f" with a standard error of {ratio.error:.2f}"
    more = ", ".join(filter(None, (a_year, ratio_text)))
    return f"made {_percent(result.metrics['total_return'])}" + (f" ({more})" if more else "")


def _percent(share: float) -> str:
    return f"{share:+.1%}" if abs(share) >= 0.01 else f"{share:+.2%}"


def _against_exposure(result: BacktestResult, matched: BacktestResult) -> str:
    """Whether the policy did better than holding its own mean exposure."""
    mean = f"the policy's mean exposure of {result.metrics['mean_exposure']:.2f}"
    if _are_one(result, matched):
        return f"The policy equals holding {mean}."
    if math.isnan(sharpe(result).value):
        return f"Holding {mean} {_made(matched)}. The policy's returns vary too little for a Sharpe ratio."
    if not matched.intrabar_exposure.any():  # long and short in turn: a mean exposure below the band is never bought
        other = f"cash, since {mean} is below the smallest trade of the band"
        return f"By Sharpe ratio the policy is {_compared(lead(result, matched), other)}."
    text = f"Holding {mean} {_made(matched)}."
    difference = lead(result, matched)
    if math.isnan(difference.value):
        return text
    return f"{text} By Sharpe ratio the policy is {_compared(difference, 'holding that exposure')}."


def _compared(difference: Lead, other: str) -> str:
    """Better, worse or no different, by the interval of the difference."""
    if not difference.is_sure:
        return f"no different from {other} ({difference})"
    word = "better" if difference.value > 0 else "worse"
    return f"{word} than {other} ({difference}), on a single history"


def _against_training(result: BacktestResult, trained: BacktestResult) -> str:
    """How far the Sharpe ratio is from that of training, in the unit of the result.

    Nothing where that would take a training of less than a year to a year.
    """
    ratio = sharpe(result).value
    if result.spans_a_year and not trained.spans_a_year:
        return ""
    before = statistics.sharpe_ratio(trained.excess_returns)
    if result.spans_a_year:
        before *= math.sqrt(trained.periods_per_year)
        told = f"In training the Sharpe ratio was {before:.2f}"
    else:
        # Of a year in training, of the period here: a ratio of the same strength over as many bars can be compared.
        share = len(result) / result.periods_per_year
        before *= math.sqrt(share * trained.periods_per_year)
        told = f"The Sharpe ratio of training would make {before:.2f} over such a period"
    if math.isnan(ratio) or math.isnan(before):
        return ""
    if ratio > before:
        return f"{told}: the policy is better than in training, which is likely the period."
    return f"{told}, {before - ratio:.2f} more than here."
