"""metrics.py against empyrical, pandas and hand-counted cases. NaN where a figure is undefined."""

import math
import warnings

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxtrader.evaluation import metrics
from jaxtrader.evaluation.metrics import compute

SHARPES = {"sharpe", "sharpe_error", "period_sharpe", "period_sharpe_error"}
RATIOS = {"volatility", "sortino", "value_at_risk", "expected_shortfall", "skew", "kurtosis", "positive_bars", *SHARPES}


def figures(equity, periods_per_year=252.0, **other):
    """`compute` with an idle account, unless told otherwise. Any warning is an error."""
    n = len(equity)
    idle = {"exposure": np.zeros((n, 1)), "turnover": np.zeros(n), "costs": np.zeros(n)} | other
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compute(np.asarray(equity, float), **idle, periods_per_year=periods_per_year)


def regime_switching_returns(seed: int, n: int, scale: float) -> np.ndarray:
    """Fat tails and calm and wild times, as in real bars."""
    rng = np.random.default_rng(seed)
    wild = np.cumsum(rng.random(n) < 0.01) % 2
    return np.clip(scale * (0.03 + (1 + 3 * wild) * rng.standard_t(3, n)), -0.6, 1.0)


SERIES = {
    "normal daily": (np.random.default_rng(0).normal(4e-4, 0.01, 2520), 252.0),
    "fat-tailed daily": (regime_switching_returns(1, 3000, 0.01), 252.0),
    "hourly, all week": (regime_switching_returns(2, 5000, 0.002), 8760.0),
    "minutes": (regime_switching_returns(3, 20_000, 2e-4), 98_280.0),
    "losing weekly": (np.random.default_rng(4).normal(-0.01, 0.03, 100), 52.0),
    "two bars": (np.array([0.02, -0.01]), 12.0),
    "mostly flat": (np.where(np.arange(500) % 7 == 0, regime_switching_returns(5, 500, 0.02), 0.0), 365.0),
}


class TestAgainstEmpyrical:
    @pytest.mark.parametrize("name", SERIES)
    def test_same_numbers(self, name):
        returns, periods = SERIES[name]
        ours = figures(np.cumprod(1 + returns), periods)
        theirs = {
            "total_return": empyrical.cum_returns_final(returns),
            "cagr": empyrical.annual_return(returns, annualization=periods),
            "volatility": empyrical.annual_volatility(returns, annualization=periods),
            "sharpe": empyrical.sharpe_ratio(returns, annualization=periods),
            "sortino": empyrical.sortino_ratio(returns, annualization=periods),
            "calmar": empyrical.calmar_ratio(returns, annualization=periods),
            "max_drawdown": empyrical.max_drawdown(returns),
            "value_at_risk": empyrical.value_at_risk(returns),
            "expected_shortfall": empyrical.conditional_value_at_risk(returns),
        }
        assert all(math.isfinite(value) for value in theirs.values())
        assert {key: ours[key] for key in theirs} == pytest.approx(theirs, rel=1e-10, abs=1e-12)

    def test_downside_deviation_and_levels(self):
        returns, periods = SERIES["fat-tailed daily"]
        assert metrics.downside_deviation(returns, periods) == pytest.approx(
            empyrical.downside_risk(returns, annualization=periods), rel=1e-12
        )
        for level in (0.0, 0.01, 0.1, 1.0):
            assert metrics.value_at_risk(returns, level) == pytest.approx(
                empyrical.value_at_risk(returns, level), rel=1e-12
            )
            assert metrics.expected_shortfall(returns, level) == pytest.approx(
                empyrical.conditional_value_at_risk(returns, level), rel=1e-12
            )


@pytest.mark.parametrize("rate", [2e-4, -1e-4])
def test_sharpe_and_sortino_are_over_cash_as_empyricals_are_over_a_risk_free_rate(rate):
    returns, periods = SERIES["fat-tailed daily"]
    got = figures(np.cumprod(1 + returns), periods, cash=np.full(len(returns), rate))
    assert got["sharpe"] == pytest.approx(empyrical.sharpe_ratio(returns, rate, annualization=periods), rel=1e-10)
    assert got["sortino"] == pytest.approx(empyrical.sortino_ratio(returns, rate, annualization=periods), rel=1e-10)
    assert got["cash_return"] == pytest.approx((1 + rate) ** len(returns) - 1, rel=1e-10)
    assert got["total_return"] == figures(np.cumprod(1 + returns), periods)["total_return"]


@pytest.mark.parametrize("periods", [252.0, 525_600.0])
def test_an_account_that_earns_what_cash_does_has_no_ratio(periods):
    cash = np.random.default_rng(0).choice([1, 3], 5_000) * 0.05 / 365
    got = figures(np.cumprod(1 + cash), periods, cash=cash)
    assert undefined(got) == {*SHARPES, "sortino", "calmar"}


@pytest.mark.parametrize("name", ["normal daily", "fat-tailed daily", "mostly flat"])
def test_moments_are_those_of_pandas(name):
    returns = SERIES[name][0]
    assert metrics.skew(returns) == pytest.approx(pd.Series(returns).skew(), rel=1e-10)
    assert metrics.kurtosis(returns) == pytest.approx(pd.Series(returns).kurt(), rel=1e-10)
    assert metrics.kurtosis(returns[:4]) == pytest.approx(pd.Series(returns[:4]).kurt(), rel=1e-10)


class TestByHand:
    def test_a_loss_on_the_first_bar_counts(self):
        got = figures([0.8, 0.9], periods_per_year=2)
        assert got["max_drawdown"] == pytest.approx(-0.2)
        assert got["worst_bar"] == pytest.approx(-0.2)
        assert got["best_bar"] == pytest.approx(0.125)
        assert got["cagr"] == pytest.approx(-0.1)  # two bars are one year
        assert got["positive_bars"] == 0.5
        assert got["final_equity"] == 0.9

    def test_drawdowns(self):
        equity = np.array([1.0, 1.2, 1.1, 1.2, 0.9, 1.0, 1.1, 1.3, 1.2])
        np.testing.assert_allclose(
            metrics.drawdowns(equity), [0, 0, 1.1 / 1.2 - 1, 0, -0.25, 1 / 1.2 - 1, 1.1 / 1.2 - 1, 0, 1.2 / 1.3 - 1]
        )
        assert metrics.max_drawdown(equity) == pytest.approx(-0.25)
        assert metrics.longest_drawdown(equity) == 3
        assert metrics.longest_drawdown(equity[:6]) == 2  # unfinished
        assert metrics.longest_drawdown(np.array([0.9, 0.8, 0.9])) == 3
        assert metrics.longest_drawdown(np.array([1.0, 1.0, 1.1])) == 0

    def test_activity(self):
        got = figures(
            [1.0, 1.0, 1.0, 1.0],
            periods_per_year=8,
            exposure=np.array([[0.0, 0.0], [0.5, -0.5], [0.25, 0.0], [-1.0, -0.5]]),
            turnover=np.array([0.0, 1.0, 0.75, 1.75]),
            costs=np.array([0.0, 0.001, 0.002, 0.0]),
        )
        assert got["time_in_market"] == 0.75
        assert got["mean_exposure"] == (0 + 0 + 0.25 - 1.5) / 4
        assert got["mean_gross_exposure"] == (0 + 1 + 0.25 + 1.5) / 4
        assert got["turnover"] == 3.5 * 2  # four bars are half a year
        assert got["period_turnover"] == 3.5
        assert got["costs"] == pytest.approx(0.003)
        assert got["bars"] == 4
        assert got["periods_per_year"] == 8

    def test_a_part_of_a_year_has_no_growth_a_year(self):
        equity = np.cumprod(1 + SERIES["normal daily"][0][:100])
        whole, part = figures(equity), figures(equity, spans_a_year=False)
        assert undefined(part) == {"cagr", "calmar"}
        assert {name: whole[name] for name in part if name not in ("cagr", "calmar")} == {
            name: value for name, value in part.items() if name not in ("cagr", "calmar")
        }
        assert part["period_sharpe"] == pytest.approx(part["sharpe"] * math.sqrt(100 / 252), rel=1e-12)
        assert part["period_sharpe_error"] == pytest.approx(part["sharpe_error"] * math.sqrt(100 / 252), rel=1e-12)

    def test_values_are_python_floats(self):
        for name, value in figures([1.0, 1.1, 1.05]).items():
            assert type(value) is float, name


def undefined(got) -> set[str]:
    return {name for name, value in got.items() if math.isnan(value)}


class TestUndefined:
    def test_flat(self):
        got = figures([1.0] * 10)
        assert undefined(got) == {*SHARPES, "sortino", "calmar", "skew", "kurtosis"}
        assert got["volatility"] == got["max_drawdown"] == got["cagr"] == got["total_return"] == 0

    @pytest.mark.parametrize("rate", [0.001, 0.37, 1e-7])
    def test_constant_growth_is_no_sharpe_of_a_million(self, rate):
        got = figures((1 + rate) ** np.arange(1, 200))
        assert undefined(got) == {*SHARPES, "sortino", "calmar", "skew", "kurtosis"}
        assert got["cagr"] == pytest.approx((1 + rate) ** 252 - 1, rel=1e-6)

    def test_constant_loss_has_a_sortino(self):
        got = figures(0.999 ** np.arange(1, 200))
        assert undefined(got) == {*SHARPES, "skew", "kurtosis"}
        assert got["sortino"] == pytest.approx(-math.sqrt(252))

    def test_one_bar(self):
        got = figures([0.9])
        assert undefined(got) == {*SHARPES, "volatility", "skew", "kurtosis"}
        assert got["value_at_risk"] == got["expected_shortfall"] == pytest.approx(-0.1)
        assert undefined(figures([1.1])) == {*SHARPES, "volatility", "sortino", "calmar", "skew", "kurtosis"}

    def test_growth_beyond_float64(self):
        assert undefined(figures([10.0, 9.0], periods_per_year=525_600)) == {"cagr", "calmar", "skew", "kurtosis"}

    def test_returns_that_differ_in_their_last_digit_give_no_warning(self):
        assert figures(np.cumprod(1 + 1e3 * (1 + np.array([0, 1e-15, 2e-15, 0]))))["total_return"] > 1e12

    @pytest.mark.parametrize("last", [-0.02, 0.0])
    def test_ruin_and_bars_after_it(self, last):
        got = figures([1.0, 0.5, last, last, last])
        assert undefined(got) >= RATIOS
        assert undefined(got) <= {*RATIOS, "best_bar", "worst_bar"}
        assert got["cagr"] == -1
        assert got["total_return"] == got["max_drawdown"] == last - 1
        assert got["calmar"] == pytest.approx(-1 / (1 - last))
        assert got["final_equity"] == last

    def test_ruin_on_the_last_bar_has_all_its_returns(self):
        got = figures([1.0, 0.5, 0.9, -0.1])
        assert undefined(got) == set()
        assert got["worst_bar"] == pytest.approx(-1 / 0.9)
        assert got["cagr"] == -1

    @given(
        hnp.arrays(float, st.integers(1, 30), elements=st.floats(-10, 1e6)),
        st.sampled_from([1.0, 252.0, 525_600.0]),
    )
    @settings(max_examples=200, deadline=None)
    def test_never_infinite_never_a_warning(self, equity, periods):
        got = figures(equity, periods)
        assert not any(math.isinf(value) for value in got.values())
        assert got["max_drawdown"] <= 0 or math.isnan(got["max_drawdown"])
        if equity.min() <= 0:
            assert got["cagr"] == -1


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"equity": np.zeros(0)}, r"equity has shape \(0,\); metrics need \[N\] with at least one bar"),
            ({"equity": np.ones((3, 1))}, r"equity has shape \(3, 1\)"),
            ({"equity": np.array([1, np.nan, 1])}, r"equity\[1\] is nan"),
            ({"equity": np.array([1, 1, np.inf])}, r"equity\[2\] is inf"),
            ({"exposure": np.ones(3)}, r"exposure has shape \(3,\); it must be \[3, assets\]"),
            ({"exposure": np.ones((2, 1))}, "exposure has shape"),
            ({"turnover": np.ones(2)}, r"turnover has shape \(2,\)"),
            ({"costs": np.ones((3, 1))}, r"costs has shape \(3, 1\)"),
            ({"cash": np.ones(2)}, r"cash has shape \(2,\)"),
            ({"periods_per_year": 0.0}, r"periods_per_year=0\.0` must be a number above 0"),
            ({"periods_per_year": math.nan}, "periods_per_year=nan`"),
        ],
    )
    def test_one_clear_sentence(self, change, says):
        good = {
            "equity": np.ones(3),
            "exposure": np.zeros((3, 1)),
            "turnover": np.zeros(3),
            "costs": np.zeros(3),
            "periods_per_year": 252.0,
        }
        assert compute(**good)["bars"] == 3
        with pytest.raises(ValueError, match=says):
            compute(**(good | change))
