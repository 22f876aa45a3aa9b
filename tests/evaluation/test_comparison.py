"""Several results side by side: over the bars that all have, each against the first."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation.accounts import account, returns

from jaxtrader.evaluation import verdict
from jaxtrader.evaluation.comparison import compare

ONE, OTHER = account(returns(1.0)), account(returns(0.8))


def test_results_of_the_same_bars_have_their_own_figures():
    found = compare({"one": ONE, "other": OTHER})
    for name, result in (("one", ONE), ("other", OTHER)):
        for figure in ("total_return", "sharpe", "max_drawdown", "mean_exposure", "turnover"):
            assert found.metrics[name][figure] == pytest.approx(result.metrics[figure], rel=1e-12)
    assert list(found.leads) == ["other"]
    assert found.leads["other"] == verdict.lead(OTHER, ONE)
    assert found.to_frame().loc["other", "sharpe_difference"] == pytest.approx(-0.2)
    assert "other is not distinguishable from one on 504 bars" in repr(found)
    assert "<table" in found._repr_html_()


def test_only_the_bars_that_all_have_are_compared():
    early, late = account(returns(1.0, 504)), account(returns(2.0, 300, seed=1))
    found = compare({"early": early, "late": late})
    assert len(found.times) == 300
    np.testing.assert_allclose(found.equity["early"][-1], early.equity[299])
    assert not found.spans_a_year
    ratio = verdict.sharpe(late).value
    assert found.metrics["late"]["sharpe"] == pytest.approx(ratio), "below a year it is of the period"


def test_a_sure_difference_is_better_or_worse():
    best, alike = account(returns(1.0, own=0.00005)), account(returns(0.5, own=0.00005))
    said = " ".join(compare({"alike": alike, "best": best}).sentences)
    assert "best was better than alike" in said
    assert "cannot be told" in " ".join(compare({"one": ONE, "same": ONE}).sentences)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="1 result cannot"):
        compare({"one": ONE})
    elsewhere = account(returns(1.0), days=1.1)
    with pytest.raises(ValueError, match="bars in common"):
        compare({"one": ONE, "elsewhere": elsewhere.__class__(**{**vars(elsewhere), "times": ONE.times + 1})})
