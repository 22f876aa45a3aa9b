"""Policies that succeed one another in time, as those of a walk-forward do, traded as one account.

Each policy decides on the bars of its own test. One account trades all targets, and its positions stay open from one
test to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxtrader.agents.policy import Policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.combined import one_account
from jaxtrader.evaluation.importance import Importance, permutation_importance
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.ledger.rules import BRACKETS, Rules
from jaxtrader.market.market import Market


@dataclass(frozen=True, eq=False)
class Succession:
    """Policies, each with the bars that it trades.

    Attributes:
        policies: the policies in the order of time. They were trained under the same rules and costs.
        tests: the bars of each. They are parts of one market, share its arrays, and do not overlap.
        valids: the bars on which each was chosen, which no policy was trained on. None where there are none.
    """

    policies: tuple[Policy, ...]
    tests: tuple[Market, ...]
    valids: tuple[Market | None, ...] = ()

    @cached_property
    def market(self) -> Market:
        """The bars of all tests: of each symbol from the begin of its first test to the end of its last one."""
        spans: dict[str, list[np.ndarray]] = {}
        for test in self.tests:
            for symbol, segment in zip(test.symbols, test.segments, strict=True):
                spans.setdefault(symbol, []).append(segment)
        segments = [[rows[0][0], rows[0][1], rows[-1][2]] for rows in spans.values()]
        return dataclasses.replace(self.tests[0], segments=np.array(segments), symbols=tuple(spans))

    @property
    def members(self) -> tuple[Succession, ...]:
        """One succession for each member of the policies, which are ensembles of as many."""
        members = zip(*(policy.members for policy in self.policies), strict=True)
        return tuple(Succession(each, self.tests, self.valids) for each in members)

    @property
    def about(self) -> dict[str, Any]:
        """What the first policy says of its training."""
        return self.policies[0].about

    @property
    def holds_because(self) -> str | None:
        """Which folds hold one exposure instead of what was trained, and why. None where all trade."""
        held = [str(i) for i, policy in enumerate(self.policies, 1) if policy.holds_because is not None]
        if not held:
            return None
        folds = f"fold {held[0]} holds" if len(held) == 1 else f"folds {', '.join(held)} hold"
        return f"{folds} one exposure, since what was trained was not shown to be better on validation"

    @property
    def rules(self) -> Rules:
        """The rules that all were trained under."""
        return self.policies[0].rules

    @property
    def costs(self) -> Costs | CostRange:
        """The costs that all were trained with."""
        return self.policies[0].costs

    def environment(self, market: Market, **changes: Any) -> TradingEnv:
        """The environment of the policies over a market, see `Policy.environment`."""
        return self.policies[0].environment(market, **changes)

    def backtest(self, market: Market, **changes: Any) -> BacktestResult:
        """Trade all tests by one account. Arguments and errors are those of `backtest`.

        Args:
            market: `market`, or the same rows with other columns.
            changes: the changes of `backtest`.
        """
        return joined(self.environment(market, **changes), self.each(market, **changes))

    def each(self, market: Market, **changes: Any) -> list[BacktestResult]:
        """The result of each policy on its own test, from flat. Arguments are those of `Succession.backtest`."""
        tests = [dataclasses.replace(test, columns=market.columns) for test in self.tests]
        return [backtest(policy, test, **changes) for policy, test in zip(self.policies, tests, strict=True)]

    def importance(self, **settings: Any) -> Importance | None:
        """What each feature is worth to the policies, each on the bars on which it was chosen. None without such bars.

        Args:
            settings: arguments of `permutation_importance`.
        """
        valids = [valid for valid in self.valids if valid is not None]
        if not valids or len(valids) < len(self.policies):
            return None
        pairs = zip(self.policies, valids, strict=True)
        return Importance.of([permutation_importance(policy, valid, **settings) for policy, valid in pairs])


def joined(env: TradingEnv, results: Sequence[BacktestResult]) -> BacktestResult:
    """One account for each symbol that trades the targets of several results in a row, by the rules of `env`.

    Each target was decided from the account of its own result, which began flat. The money is that of these targets.

    Args:
        env: over a market that has all their bars. It may have more at both ends.
        results: the results in the order of time.
    """
    market = env.market
    brackets = {name: getattr(env, name) for name in BRACKETS}
    members = {}
    for i, symbol in enumerate(market.symbols):
        tested = [result.accounts[symbol] for result in results if symbol in result.accounts]
        if not tested:
            continue
        history, _, end = (int(row) for row in market.segments[i])
        times = market.times[history:end]
        starts = np.searchsorted(times, [one.times[0] for one in tested])
        stop = int(starts[-1]) + len(tested[-1])
        targets = np.full((stop - starts[0], market.close.shape[1]), np.nan)
        for start, one in zip(starts - starts[0], tested, strict=True):
            targets[start : start + len(one)] = one.targets
        segments = market.segments[i : i + 1].copy()
        segments[0, 2] = history + stop
        own = dataclasses.replace(market, segments=segments, symbols=(symbol,))
        start = history + int(starts[0])
        members[symbol] = simulate(own, targets, costs=env.costs.middle, rules=env.rules, start=start, **brackets)
    return one_account(members, market)
