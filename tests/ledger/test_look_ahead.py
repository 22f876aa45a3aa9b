"""No look-ahead: what comes later changes nothing of a result before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger.markets import BARS, BY_FILL, all_costs, market_of, orders_of
from ledger.paths import few, seeds
from rule_settings import run_settings

from jaxtrader.evaluation.simulate import simulate


@pytest.mark.parametrize("name", BY_FILL)
@few
@given(seeds, st.integers(5, BARS - 2))
def test_no_look_ahead_what_comes_later_changes_nothing_before(name, seed, t):
    """All columns, targets and brackets after bar t are others': everything up to it is the same to the last bit."""
    assets, rules = BY_FILL[name]
    (targets, brackets), (others, other_brackets) = orders_of(seed, assets), orders_of(seed + 1, assets)
    market, other = market_of(seed, assets), market_of(seed + 1, assets)
    later = np.arange(BARS) > t

    def mixed(mine, theirs):
        return np.where(later[:, None] if mine.ndim > 1 else later, theirs, mine)

    columns = ("open", "high", "low", "close", "volatility", "dt", "present", "delisted", "funding", "price_factor")
    columns += ("adv", "session_end")
    changed = dataclasses.replace(market, **{c: mixed(getattr(market, c), getattr(other, c)) for c in columns})
    before = simulate(market, targets, costs=all_costs(assets), **brackets, **run_settings(rules))
    brackets = {side: mixed(brackets[side], other_brackets[side]) for side in brackets}
    after = simulate(changed, mixed(targets, others), costs=all_costs(assets), **brackets, **run_settings(rules))
    for column in ("equity", "units", "exposure", "financing", "costs_paid", "turnover"):
        np.testing.assert_array_equal(getattr(after, column)[: t + 1], getattr(before, column)[: t + 1], column)
    known = [result.fills[result.fills["bar"] <= t] for result in (before, after)]
    np.testing.assert_array_equal(*known)
