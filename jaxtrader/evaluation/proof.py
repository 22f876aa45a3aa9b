"""Whether trading beats holding on bars that a policy was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from jaxtrader.agents.policy import Policy
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import exposure_matched, of_each_symbol
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.verdict import Lead, lead
from jaxtrader.market.market import Market


@dataclass(frozen=True)
class Proof:
    """What a policy's validation says of its trading.

    Attributes:
        exposure: its mean exposure over all bars of training and validation, of all symbols.
        lead: on validation, its Sharpe ratio less that of holding its mean exposure there at the same costs.
        constant_exposure: what the policy asks for that replaces it, the nearest to `exposure` that it can. None where
            none replaces it.
    """

    exposure: float
    lead: Lead
    constant_exposure: float | None = None

    @property
    def is_better(self) -> bool:
        """Whether it did better than holding: the 95% interval lies above 0."""
        return self.lead.low > 0  # NaN is not

    def __str__(self) -> str:
        against = f"its mean exposure held on validation (Sharpe difference {self.lead})"
        if self.is_better:
            return f"it trades, since it did better than {against}"
        if self.constant_exposure is None:
            return f"it was not shown to be better than {against}"
        seen = self.lead.detectable
        unseen = f"; a lead below about {seen:.2g} is mostly not found there" if math.isfinite(seen) else ""
        holds = f"it holds {round(self.constant_exposure, 2) + 0.0:.2f}"
        return f"{holds}, since what was trained was not shown to be better than {against}{unseen}"


def prove(policy: Policy, valid: Market, train: Market | None = None) -> Proof:
    """Backtest a policy, and compare it with holding its own mean exposure.

    Args:
        policy: the policy that is to be better than holding.
        valid: the bars on which the two are compared.
        train: earlier bars. The mean exposure is of these too, but of no symbol that has too few.

    Raises:
        ValueError: a market does not fit the policy.
    """
    result = backtest(policy, valid)
    matched = of_each_symbol(exposure_matched, valid, result)
    results = [result]
    if train is not None:
        short = policy.environment(train).symbols_without_room(1)
        kept = [i for i, symbol in enumerate(train.symbols) if symbol not in short]
        results.append(backtest(policy, train.keep(kept)))
    return Proof(_mean_exposure(results), lead(result, matched))


def _mean_exposure(results: list[BacktestResult]) -> float:
    """Mean over the bars of all symbols of the net exposure. A symbol that is not there yet does not count as cash."""
    members = [member for result in results for member in result.accounts.values()]
    return float(np.concatenate([member.intrabar_exposure.sum(axis=1) for member in members]).mean())
