"""Is the timing of a result better than chance? Its targets are rotated in time and traded again.

A rotated path has the same targets in the same order, begun elsewhere. Its exposure and turnover are those of the
result, up to one seam, and what it knew about the market is gone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxtrader.evaluation.baselines import rows_of
from jaxtrader.evaluation.path_totals import total_sharpe
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.simulate import NUMBERS_AT_ONCE, simulate_paths
from jaxtrader.ledger.orders import in_force
from jaxtrader.market.market import Market


class TimingTest(NamedTuple):
    """A permutation test of timing.

    Attributes:
        p: share of rotations that did as well as the result, itself counted: (1 + as good) / (1 + rotations).
        sharpe: the Sharpe ratio of a bar of the result.
        rotated: the Sharpe ratio of a bar of each rotation.
    """

    p: float
    sharpe: float
    rotated: Float[np.ndarray, " rotation"]


def timing_test(
    market: Market,
    result: BacktestResult,
    *,
    rotations: int = 1000,
    stop_loss: float | None = None,
    take_profit: float | None = None,
    trailing_stop: float | None = None,
    seed: int = 0,
) -> TimingTest:
    """Compare the Sharpe ratio of a result over cash with those of its targets, rotated in time by random offsets.

    The result's own targets are traded once more by the same function, so that both sides of the comparison have the
    same brackets. Each symbol of a combined result is rotated by the same share of its bars, and the capital is equal.

    Args:
        market: the market that the result was run on.
        result: the result of one symbol, or a combined one.
        rotations: the number of rotations.
        stop_loss, take_profit, trailing_stop: the brackets that the result traded under.
        seed: the seed of the offsets.

    Raises:
        ValueError: the market lacks a symbol or the bars of the result, or the result has fewer than 3 bars.
    """
    members = list(result.accounts.values())
    if min(len(member) for member in members) < 3:
        shortest = min(members, key=len)
        raise ValueError(f"{shortest.name}: {len(shortest)} bars are too few to rotate; give 3 at least")
    shares = np.concatenate([[0.0], np.random.default_rng(seed).random(rotations)])

    def rotated(member: BacktestResult, shares: np.ndarray) -> Float[np.ndarray, "path bar"]:
        bars = len(member)
        # Offset 0 is the result itself, so a rotation moves at least one bar.
        offsets = np.where(shares > 0, 1 + (shares * (bars - 1)).astype(int), 0)
        targets = in_force(member.targets)[(np.arange(bars) - offsets[:, None]) % bars]
        targets[offsets == 0] = member.targets
        return simulate_paths(
            market,
            targets,
            rules=member.rules,
            costs=member.costs,
            stop_loss=stop_loss,
            take_profit=take_profit,
            trailing_stop=trailing_stop,
            start=rows_of(market, member).start,
            symbol=member.name,
        )

    at_once = max(1, NUMBERS_AT_ONCE // max(len(result), *(member.targets.size for member in members)))
    blocks = (shares[begin : begin + at_once] for begin in range(0, len(shares), at_once))
    ratios = np.concatenate([total_sharpe(members, (rotated(each, block) for each in members)) for block in blocks])
    return TimingTest(float(np.mean(ratios >= ratios[0])), float(ratios[0]), ratios[1:])
