"""No look-ahead: what comes later changes nothing of a result before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ledger.markets import BARS, BY_FILL, all_costs, full_market, orders_of, result_of
from rule_settings import run_settings

from jaxtrader.evaluation.simulate import simulate

COLUMNS = ("open", "high", "low", "close", "volatility", "dt", "present", "delisted", "funding", "price_factor")
COLUMNS += ("adv", "session_end")


@pytest.mark.parametrize("name", BY_FILL)
def test_no_look_ahead_what_comes_later_changes_nothing_before(name):
    """All columns, targets and brackets after bar t are others': everything up to it is the same to the last bit."""
    assets, rules = BY_FILL[name]
    traded = 0
    for seed in range(30):
        t = 5 + 2 * seed % (BARS - 7)
        later = np.arange(BARS) > t

        def mixed(mine, theirs, later=later):
            return np.where(later[:, None] if mine.ndim > 1 else later, theirs, mine)

        (before, market), other = result_of(name, seed), full_market(seed + 1, assets)
        (targets, brackets), (others, other_brackets) = orders_of(seed, assets), orders_of(seed + 1, assets)
        changed = dataclasses.replace(market, **{c: mixed(getattr(market, c), getattr(other, c)) for c in COLUMNS})
        brackets = {side: mixed(brackets[side], other_brackets[side]) for side in brackets}
        after = simulate(changed, mixed(targets, others), costs=all_costs(assets), **brackets, **run_settings(rules))
        for column in ("equity", "units", "exposure", "financing", "costs_paid", "turnover"):
            np.testing.assert_array_equal(getattr(after, column)[: t + 1], getattr(before, column)[: t + 1], column)
        known = [result.fills[result.fills["bar"] <= t] for result in (before, after)]
        np.testing.assert_array_equal(*known)
        traded += len(known[0])
    assert traded > 100
