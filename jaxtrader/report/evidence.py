"""Gathers what a verdict and a report need.

That is a policy and its baselines on each part, single seeds, other costs and fills, the timing test, and the tries on
the same bars.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrader.agents.policy import Policy
from jaxtrader.evaluation import bootstrap, evaluation_log
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED, baselines
from jaxtrader.evaluation.evaluation_log import Trials
from jaxtrader.evaluation.importance import Importance, permutation_importance
from jaxtrader.evaluation.overfitting import Overfitting
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.strategies import CASH, strategies
from jaxtrader.evaluation.succession import Succession
from jaxtrader.evaluation.timing import TimingTest, timing_test
from jaxtrader.evaluation.verdict import POLICY, Part, lead, sharpe, verdict
from jaxtrader.files import FileError
from jaxtrader.ledger.costs import LIMITS, Costs
from jaxtrader.ledger.rules import BRACKETS
from jaxtrader.market.market import Market
from jaxtrader.report.content import TextTable, cells, number, percent

TRADING_COSTS = ("fee", "slippage", "fixed_fee", "impact", "share_fee", "min_fee", "max_fee", "maker_fee")
TIMES = (0, 1, 2, 5)  # multiples of the costs of trading
TIMES_OF_FILL = {
    "next_open": "filled at the next open",
    "next_close": "filled at the next close",
    "close": "filled at the close (optimistic)",
}
ROTATIONS = (200, 1000)  # of the timing test, at least and at most
ROTATED_BARS = 100_000_000
MIN_BARS = 3  # for the timing test
VALIDATION = "validation"  # the part on which the importance of features is measured
IMPORTANCE_BARS = 20_000  # of each history, at its end. More would take long and say the same.


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of a policy's results.

    Attributes:
        parts: the policy's and the baselines' results by name, by the name of their part. The last part is judged, and
            has the simple strategies too.
        markets: the markets of the parts.
        seeds: the result of each member of an ensemble on the last part.
        stress: the last part under other costs and fills, by what differs.
        timing: the test of timing on the last part. None where it has too few bars.
        trials: what was tried on the bars of the last part. None where no folder keeps count.
        uncounted: why the evaluation was not counted, where it should have been.
        importance: what each feature is worth on the validation part, or on those of all folds. None without one.
        overfitting: how far the choice among the configurations of a sweep can be trusted.
        folds: the results of each policy of a walk-forward on its own test, from flat.
        holds_because: why the policy holds instead of trading, where it did not beat holding on validation.
    """

    parts: Mapping[str, Part]
    markets: Mapping[str, Market]
    seeds: Mapping[str, BacktestResult]
    stress: Mapping[str, BacktestResult]
    timing: TimingTest | None
    trials: Trials | None
    uncounted: str | None = None
    importance: Importance | None = None
    overfitting: Overfitting | None = None
    folds: Mapping[str, Part] = dataclasses.field(default_factory=dict)
    holds_because: str | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict, the most important sentence first, and why the policy holds, where it does."""
        if self.holds_because is None:
            return self.judgment
        first, *further = self.judgment
        return (first, f"{self.holds_because[0].upper()}{self.holds_because[1:]}.", *further)

    @cached_property
    def judgment(self) -> tuple[str, ...]:
        """What the results say, the most important sentence first."""
        said = verdict(
            self.parts, trials=self.trials, seeds=self.seeds, timing=self.timing, overfitting=self.overfitting
        )
        return said if self.uncounted is None else (*said, f"This evaluation was not counted: {self.uncounted}.")

    @property
    def tables(self) -> list[TextTable]:
        """Tables of intervals, folds, seeds, and other costs and fills."""
        found = [*filter(None, [_interval_table(list(self.parts.values())[-1])])]
        if self.folds:
            found.append(fold_table(self.folds))
        if self.seeds:
            note = "The policy trades the mean of the targets of all seeds. None was chosen by this part."
            found.append(results_table("Seeds", self.seeds, note))
        if self.stress:
            note = (
                "The same policy on the same bars. Costs of trading are fees, slippage and impact, also where they are "
                "columns of the bars. Interest is not multiplied, and neither is a rebate. A rate stops at its limit, "
                "which is 50% for fees and slippage."
            )
            found.append(results_table("Other costs and fills", self.stress, note))
        return found


def traded(policy: Policy | Succession, market: Market, **changes: Any) -> BacktestResult:
    """The result of a policy, or of policies that succeed one another, on a market. `changes` are of `backtest`."""
    return policy.backtest(market, **changes) if isinstance(policy, Succession) else backtest(policy, market, **changes)


def judge(policy: Policy | Succession, market: Market, **changes: Any) -> dict[str, BacktestResult]:
    """The policy's result on a market, and its baselines, by name."""
    result = traded(policy, market, **changes)
    return {POLICY: result, **baselines(market, result)}


def gather(
    policy: Policy | Succession,
    markets: Mapping[str, Market],
    *,
    changes: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    identity: bytes = b"",
    run: str = "",
    trials_elsewhere: int = 0,
    report_step: Callable[[str], None] = lambda step: None,
) -> Evidence:
    """Backtest a policy on each part, and all that the verdict on the last part needs.

    Args:
        policy: the policy. Policies that succeed one another have one part, their own market.
        markets: the markets by the name of their part, in the order of time.
        changes: settings of `backtest` other than the policy's.
        folder: the folder of runs whose `evaluations.jsonl` counts the tries. None keeps no count.
        identity: what identifies the policy among the tries, such as the bytes of its file.
        run: where the policy came from, for people.
        trials_elsewhere: tries on the same bars that the folder does not know.
        report_step: is told what is being done.
    """
    changes = dict(changes or {})
    parts: dict[str, dict[str, BacktestResult]] = {}
    for name, market in markets.items():
        report_step(f"{name} part")
        parts[name] = judge(policy, market, **changes)
    last = list(markets)[-1]
    market, result = markets[last], parts[last][POLICY]
    parts[last] |= strategies(market, result)
    report_step("single seeds")
    seeds = _seeds(policy, market, changes)
    folds = {}
    if isinstance(policy, Succession):
        report_step("single folds")
        for i, (each, test) in enumerate(zip(policy.policies, policy.tests, strict=True), 1):
            folds[f"fold {i}"] = judge(each, test, **changes)
    report_step("other costs and fills")
    stress = _stress(policy, market, result, changes)
    report_step("timing")
    timing = _timing(policy, market, result, changes)
    trials = uncounted = None
    if folder is not None:
        try:
            seen = evaluation_log.record(folder, evaluation_log.evaluation_of(market, result, identity, run))
            trials = evaluation_log.trials(seen, len(result), trials_elsewhere)
        except FileError as error:  # which must not cost the result
            uncounted = str(error)
    importance = None
    if isinstance(policy, Succession) or VALIDATION in markets:
        report_step("features")
        settings = {"most_bars": IMPORTANCE_BARS, **changes}
        importance = (
            policy.importance(**settings)
            if isinstance(policy, Succession)
            else permutation_importance(policy, markets[VALIDATION], **settings)
        )
    return Evidence(
        parts,
        markets,
        seeds,
        stress,
        timing,
        trials,
        uncounted,
        importance,
        folds=folds,
        holds_because=policy.holds_because,
    )


def _seeds(policy: Policy | Succession, market: Market, changes: Mapping[str, Any]) -> dict[str, BacktestResult]:
    """The result of each member of an ensemble. None of a policy that holds: the mean of its constants is held."""
    policies = policy.policies if isinstance(policy, Succession) else (policy,)
    if len(policy.members) < 2 or all(each.holds_because is not None for each in policies):
        return {}
    names = policy.about.get("seeds", range(len(policy.members)))
    members = zip(names, policy.members, strict=True)
    return {f"seed {name}": traded(member, market, **changes) for name, member in members}


def _timing(
    policy: Policy | Succession,
    market: Market,
    result: BacktestResult,
    changes: Mapping[str, Any],
) -> TimingTest | None:
    """The test of timing. None of too few bars, or of brackets that belong to single positions."""
    env, lengths = policy.environment(market, **changes), [len(member) for member in result.accounts.values()]
    brackets: dict[str, Any] = {name: getattr(env, name) for name in BRACKETS}
    if min(lengths) < MIN_BARS or any(isinstance(value, tuple) for value in brackets.values()):
        return None
    return timing_test(market, result, rotations=rotations_of(sum(lengths)), **brackets)


def rotations_of(bars: int) -> int:
    """Return the number of rotations that a timing test of so many bars trades.

    From 100,000 bars on a test trades ROTATED_BARS in all, and from 500,000 bars on the least of ROTATIONS. With 200
    the smallest p is 1 / 201, and a p of 0.05 has a standard error of 0.015.
    """
    least, most = ROTATIONS
    return min(max(ROTATED_BARS // bars, least), most)


def _stress(
    policy: Policy | Succession, market: Market, result: BacktestResult, changes: Mapping[str, Any]
) -> dict[str, BacktestResult]:
    """The policy's results at multiples of the costs of trading, and at other times of the fill."""
    costs = changes.get("costs", policy.costs).middle
    rules = changes.get("rules", policy.rules)
    found = {}
    for times in TIMES:
        name = "no costs of trading" if times == 0 else f"{times} times the costs of trading"
        if times == 1:
            found["as trained"] = result
            continue
        other, dearer = multiplied(costs, market, times)
        found[name] = traded(policy, dearer, **{**changes, "costs": other})
    for fill, name in TIMES_OF_FILL.items():
        if fill != rules.fill:
            # Without a limit there is neither a distance of it nor a maker.
            other = {"rules": rules.replace(fill=fill, limit_offset=None), "costs": costs.replace(maker_fee=None)}
            found[name] = traded(policy, market, **{**changes, **other})
    return found


def multiplied(costs: Costs, market: Market, times: float) -> tuple[Costs, Market]:
    """Costs whose rates of trading are so many times as high, and a market with the columns that they name.

    A multiplied column has a name of its own, since a feature or another rate may read the column as it is. A rebate, a
    rate below 0, is not multiplied, as more of it would be no stress. At 0 times it is gone too. Rates stop below their
    limits.
    """
    rates, columns = {}, {}
    for name in TRADING_COSTS:
        rate = getattr(costs, name)
        if name in costs.columns:
            rates[name] = f"multiplied {name}"  # the same for all multiples, which share a program then
            columns[rates[name]] = _times(name, market.columns[costs.columns[name]], times)
        elif rate is not None:
            rates[name] = _times(name, np.asarray(rate), times)
    return costs.replace(**rates), dataclasses.replace(market, columns={**market.columns, **columns})


def _times(name: str, rate: np.ndarray, times: float) -> np.ndarray:
    most = np.nextafter(LIMITS[name][1], 0)
    return np.minimum(np.where(rate < 0, min(times, 1), times) * rate, most)


def _interval_table(part: Part) -> TextTable | None:
    """The 95% intervals of the policy's return, of its ratio, and of its lead over each baseline. None if undefined."""
    result = part[POLICY]
    returns = result.excess_returns
    if len(returns) < bootstrap.MIN_BARS or not np.isfinite(returns).all() or math.isnan(sharpe(result).value):
        return None
    mean, ratio = bootstrap.mean_interval(returns), bootstrap.sharpe_interval(returns)
    bars, unit = (result.periods_per_year, " a year") if result.spans_a_year else (len(result), "")
    returned = [bars * each for each in (mean.estimate, mean.low, mean.high)]
    ratios = [sharpe(result).value, *(result.sharpe_scale * each for each in (ratio.low, ratio.high))]
    rows = [[f"mean return over cash{unit}", *map(percent, returned), ""], ["Sharpe ratio", *map(number, ratios), ""]]
    for name, other in part.items():
        found = lead(result, other) if name not in (POLICY, CASH) else None
        if found is not None and not math.isnan(found.value):
            numbers = (found.value, found.low, found.high, found.detectable)
            rows.append([f"Sharpe over {name}", *map(number, numbers)])
    block = f"{mean.block:.3g} bar{'s' * (mean.block > 1)}"
    note = (
        f"95% intervals by a stationary block bootstrap, with blocks of {block} on average for the return, as its "
        "autocorrelation asks for. Differences are paired, bar by bar. Detectable is the true difference that would be "
        "found 4 times in 5."
    )
    return TextTable("What the bars can tell", ["", "estimate", "low", "high", "detectable"], rows, note)


def fold_table(folds: Mapping[str, Part]) -> TextTable:
    """A row for each fold of a walk-forward: its policy on its own test, beside holding."""
    rows = []
    for name, part in folds.items():
        result, holder, matched = part[POLICY], part[BUY_AND_HOLD], part[EXPOSURE_MATCHED]
        returned, ratio, *activity = _cells(result, ("total return", "Sharpe", "exposure", "turnover", "costs"))
        held, *ratios = (
            *cells(holder.reported_metrics, ("total return", "Sharpe")),
            *cells(matched.reported_metrics, ("Sharpe",)),
        )
        rows.append([f"{name}, from {result.days[0]}", returned, held, ratio, *ratios, *activity])
    columns = ["", "return", "holding", "Sharpe", "holding", "mean exposure", "exposure", "turnover", "costs"]
    note = (
        "The policy of each fold on its own test, from flat, beside buy and hold and the same at its mean exposure. "
        "Sharpe ratios and turnover of less than a year are of the period."
    )
    return TextTable("Folds", columns, rows, note)


def results_table(title: str, results: Mapping[str, BacktestResult], note: str) -> TextTable:
    """A table of the report with one result in each row, by its name."""
    columns = ["total return", "Sharpe", "max drawdown", "exposure", "turnover", "costs"]
    return TextTable(title, ["", *columns], [[name, *_cells(one, columns)] for name, one in results.items()], note)


def _cells(result: BacktestResult, columns: Sequence[str]) -> list[str]:
    """The cells of some columns, the first of which says so where the account was ruined."""
    shown = cells(result.reported_metrics, columns)
    return shown if result.ruined_at is None else ["ruined", *shown[1:]]
