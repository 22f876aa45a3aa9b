"""Several results side by side, over the bars that all of them have, each against the first."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.verdict import Lead, lead_of
from jaxtrader.market import clock

if TYPE_CHECKING:
    import pandas as pd

FIGURES = ("total_return", "sharpe", "sharpe_error", "max_drawdown", "mean_exposure", "turnover")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` returns. All figures are of the common bars.

    Attributes:
        results: the results by name, in the order that was given.
        times: the times of the common bars.
    """

    results: Mapping[str, BacktestResult]
    times: np.ndarray

    @property
    def first(self) -> str:
        """The name of the result that the others are compared with."""
        return next(iter(self.results))

    @property
    def spans_a_year(self) -> bool:
        """Whether the common bars span 365 days or more."""
        return clock.spans_a_year(self.times)

    @cached_property
    def equity(self) -> dict[str, Float[np.ndarray, " bar"]]:
        """Each equity, from 1 before the first common bar. Returns of bars in between are left out."""
        return {name: np.cumprod(1 + one.returns[self._rows(one)]) for name, one in self.results.items()}

    @cached_property
    def excess_returns(self) -> dict[str, Float[np.ndarray, " bar"]]:
        """Each return of a bar over cash."""
        return {name: one.excess_returns[self._rows(one)] for name, one in self.results.items()}

    @cached_property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The figures of `metrics.compute` of each. `sharpe` and `turnover` are of the period below a year."""
        found = {}
        for name, one in self.results.items():
            rows = self._rows(one)
            columns = self.equity[name], one.intrabar_exposure[rows], one.turnover[rows], one.costs_paid[rows]
            cash, is_long = one.cash_returns[rows], self.spans_a_year
            figures = metrics.compute(*columns, one.periods_per_year, cash=cash, spans_a_year=is_long)
            found[name] = metrics.reported(figures, is_long)
        return found

    @cached_property
    def leads(self) -> dict[str, Lead]:
        """The Sharpe ratio of each less that of the first, with the interval of the paired difference."""
        first = self.results[self.first]
        scale = math.sqrt(first.periods_per_year if self.spans_a_year else len(self.times))
        others = [name for name in self.results if name != self.first]
        return {name: lead_of(self.excess_returns[name], self.excess_returns[self.first], scale) for name in others}

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the comparison says, one sentence for each but the first."""
        return tuple(_sentence(name, lead, self.first, len(self.times)) for name, lead in self.leads.items())

    def to_frame(self) -> pd.DataFrame:
        """One row for each: figures, and the Sharpe difference to the first with its 95% interval."""
        import pandas as pd

        rows = {}
        for name, figures in self.metrics.items():
            lead = self.leads.get(name, Lead(math.nan, math.nan, math.nan, math.nan))
            bounds = {"sharpe_difference": lead.value, "low": lead.low, "high": lead.high}
            rows[name] = {each: figures[each] for each in FIGURES} | bounds
        return pd.DataFrame(rows).T

    def _repr_html_(self) -> str:
        """The table, as notebooks show it."""
        return self.to_frame().to_html()

    def __repr__(self) -> str:
        return "\n".join((self.to_frame().to_string(float_format="{:.3g}".format), *self.sentences))

    def _rows(self, result: BacktestResult) -> Int[np.ndarray, " bar"]:
        return np.searchsorted(result.times, self.times)


def compare(results: Mapping[str, BacktestResult]) -> Comparison:
    """Compare several results over the bars that all of them have.

    `compare({"old": one, "new": other})` says what `other` has over `one`. To choose among results of a test by this is
    to try them all on it.

    Raises:
        ValueError: there are fewer than two, or they have fewer than two bars in common.
    """
    if len(results) < 2:
        raise ValueError(f"{len(results)} result{'s' * (len(results) != 1)} cannot be compared; give two at least")
    times = functools.reduce(np.intersect1d, [result.times for result in results.values()])
    if len(times) < 2:
        spans = ", ".join(f"{name} {' to '.join(result.days)}" for name, result in results.items())
        raise ValueError(f"the results have {len(times)} bars in common ({spans}); give results of the same bars")
    return Comparison(dict(results), times)


def _sentence(name: str, lead: Lead, first: str, bars: int) -> str:
    if math.isnan(lead.low) or not lead.error > 0:
        return f"{name} cannot be told from {first} on {bars:,} bars: their returns are the same, or vary too little."
    if lead.is_sure:
        return f"{name} was {'better' if lead.value > 0 else 'worse'} than {first} on {bars:,} bars: {lead.figures}."
    return f"{name} is not distinguishable from {first} on {bars:,} bars: {lead.figures}. {lead.power}."
