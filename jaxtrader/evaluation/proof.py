"""Whether trading beats holding on bars that a policy was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtrader.agents.policy import Policy
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import exposure_matched, of_each_symbol
from jaxtrader.evaluation.verdict import Lead, lead
from jaxtrader.market.market import Market


@dataclass(frozen=True)
class Proof:
    """What some bars say of a policy.

    Attributes:
        exposure: its mean exposure on them, as a mean over symbols.
        lead: its Sharpe ratio less that of holding its mean exposure at the same costs, of each symbol.
    """

    exposure: float
    lead: Lead

    @property
    def is_better(self) -> bool:
        """Whether it did better than holding: the 95% interval lies above 0."""
        return self.lead.low > 0  # NaN is not

    def __str__(self) -> str:
        return f"Sharpe difference {self.lead}"


def prove(policy: Policy, market: Market) -> Proof:
    """Backtest a policy, and compare it with holding its own mean exposure.

    Raises ValueError where the market does not fit the policy.
    """
    result = backtest(policy, market)
    matched = of_each_symbol(exposure_matched, market, result)
    return Proof(float(result.metrics["mean_exposure"]), lead(result, matched))
