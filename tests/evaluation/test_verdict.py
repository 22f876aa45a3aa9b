"""What is said of a result: the figures, and words that the error of the paired difference decides."""

import math
import re
import statistics

import numpy as np
import pytest
from evaluation.accounts import account, returns

from jaxtrader.evaluation import verdict
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.evaluation_log import Trials
from jaxtrader.evaluation.overfitting import deflated_sharpe
from jaxtrader.evaluation.timing import TimingTest
from jaxtrader.evaluation.verdict import POLICY

MONTHS = 120  # bars of a day: less than a year


def part(policy, holder, matched):
    return {POLICY: policy, BUY_AND_HOLD: holder, EXPOSURE_MATCHED: matched}


def of_ratios(policy=1.0, holder=0.8, matched=0.9, bars=504, own=0.002, **options):
    ratios = (policy, holder, matched)
    return part(*(account(returns(ratio, bars, own=own), **options) for ratio in ratios))


def test_the_figures_are_told_with_the_total_beside_the_annual_return():
    test = of_ratios()
    text = verdict.sentence({"train": of_ratios(1.75), "test": test})
    assert text.startswith("On the test part (2011-01-03 to 2012-05-20, 1.4 years, unseen in training and selection)")
    for result, ratio in zip(test.values(), ("1.00", "0.80", "0.90"), strict=True):
        total, a_year = (f"{100 * result.metrics[name]:+.1f}%" for name in ("total_return", "cagr"))
        assert f"made {total} ({a_year} a year, Sharpe ratio {ratio}" in text
    # Lo 2002: sqrt((1 + 1^2 / (2 * 252)) / 2 years of 252 bars) = 0.7078, and nearly so for these returns
    assert "Sharpe ratio 1.00 with a standard error of 0.7" in text
    assert "mean exposure of 0.50" in text
    assert text.endswith("In training the Sharpe ratio was 1.75, 0.75 more than here.")


@pytest.mark.parametrize(
    ("policy", "matched", "own", "word"),
    [
        (1.0, 0.9, 0.002, "no different from"),
        (0.9, 1.0, 0.002, "no different from"),
        (1.0, 0.9, 0.00005, "better than"),
        (0.9, 1.0, 0.00005, "worse than"),
        (4.0, 0.5, 0.002, "better than"),
    ],
)
def test_the_error_of_the_paired_difference_decides_the_word(policy, matched, own, word):
    """A lead of 0.1 is sure where two accounts hardly differ, and chance where they do: the ratios say nothing."""
    test = of_ratios(policy, 0.7, matched, own=own)
    lead = verdict.lead(test[POLICY], test[EXPOSURE_MATCHED])
    assert lead.value == pytest.approx(policy - matched)
    assert (lead.low > 0 or lead.high < 0) == (word != "no different from")
    text = verdict.sentence({"test": test})
    figures = f"({lead.value:+.2f}, error {lead.error:.2f}, 95% interval {lead.low:.2f} to {lead.high:.2f})"
    assert f"By Sharpe ratio the policy is {word} holding that exposure {figures}" in text
    assert len(re.findall("better|worse|no different|behind|ahead", text)) == 1


def test_less_than_a_year_is_not_annualised():
    test = of_ratios(bars=MONTHS)
    text = verdict.sentence({"train": of_ratios(1.75), "test": test})
    assert "a year" not in text
    ratio = 1.0 * math.sqrt(MONTHS / 252)
    assert verdict.sharpe(test[POLICY]).value == pytest.approx(ratio)
    assert verdict.sharpe(test[POLICY]).error == pytest.approx(1, abs=0.05)  # of a whole period, it is always about 1
    assert f"(Sharpe ratio {ratio:.2f} of the period with a standard error of" in text
    assert "3.9 months" in text
    assert f"{100 * test[POLICY].metrics['total_return']:+.1f}%" in text
    # The ratio of training, over as many bars.
    assert f"would make {1.75 * math.sqrt(MONTHS / 252):.2f} over such a period" in text
    assert "training the Sharpe" not in verdict.sentence({"train": test, "test": of_ratios()})


@pytest.mark.parametrize(("bars", "annual"), [(365, False), (366, True)])
def test_a_year_is_365_days_of_calendar_time(bars, annual):
    result = account(returns(1.0, bars))
    assert result.spans_a_year is annual
    assert math.isnan(result.metrics["cagr"]) is not annual
    assert result.sharpe_scale == pytest.approx(math.sqrt(252 if annual else bars))


def test_minutes_of_one_session_are_of_a_day():
    minutes = of_ratios(bars=390, days=1 / 1440, periods_per_year=98_280)
    text = verdict.sentence({"prices.csv": minutes})
    assert text.startswith("On prices.csv (2011-01-03 to 2011-01-03, 1 day)")
    assert "a year" not in text


def test_better_than_in_training_is_likely_the_period():
    text = verdict.sentence({"train": of_ratios(0.3), "test": of_ratios(1.0)})
    assert (
        "training the Sharpe ratio was 0.30: the policy is better than in training, which is likely the period" in text
    )
    assert "-0.70" not in text


def test_a_policy_that_equals_holding_is_said_once():
    held = account(returns(0.8), held=1.0)
    text = verdict.sentence({"test": part(held, held, account(returns(0.8), held=0.998))})
    assert "equals buy-and-hold" in text
    assert text.count(f"{100 * held.metrics['total_return']:+.1f}%") == 1
    assert text.count("0.80") == 1
    assert "mean exposure" not in text
    half = account(returns(0.9))
    assert "equals holding the policy's mean exposure" in verdict.sentence({"test": part(half, held, half)})


def test_a_ratio_is_over_cash():
    """At 5% a year, returns of 5% a year with noise have a ratio of about 0."""
    earned = returns(0.0) + 0.05 / 365
    result = account(earned, cash_rate=0.05)
    assert verdict.sharpe(result).value == pytest.approx(0, abs=1e-12)
    assert verdict.lead(result, account(returns(0.0), cash_rate=0.05)).value == pytest.approx(
        0.05 / 365 / 0.01 * 252**0.5
    )


def test_a_mean_exposure_below_the_band_is_compared_with_cash():
    test = part(account(returns(0.5)), account(returns(0.8)), account(np.zeros(504), held=0.0))
    text = verdict.sentence({"test": test})
    assert "no different from cash" in text
    assert verdict.lead(test[POLICY], test[EXPOSURE_MATCHED]).value == verdict.sharpe(test[POLICY]).value


def test_ruin_and_idleness_are_said():
    falling = np.full(504, -0.01)
    ruined = account(falling, ruined_at=460)
    text = verdict.sentence({"test": part(ruined, account(returns(0.8)), account(returns(0.9)))})
    assert "ruined at bar 460" in text
    assert "99%" in text
    idle = part(account(np.zeros(504), held=0.0), account(returns(0.8)), account(np.zeros(504), held=0.0))
    assert "held nothing" in verdict.sentence({"test": idle})
    still = idle | {BUY_AND_HOLD: account(np.zeros(504), held=1.0)}
    assert "held nothing" in verdict.sentence({"test": still})
    both = part(account(returns(1.0)), account(returns(0.8)), ruined)
    assert "was ruined at bar 460" in verdict.sentence({"test": both})


def headline(test, **known):
    return verdict.verdict({"test": test}, **known)[0]


def test_better_needs_both_forms_of_holding_and_few_enough_tries():
    better = of_ratios(3.0, 0.5, 0.5, own=0.0005)
    assert headline(better).startswith("Better than buy-and-hold and than holding the mean exposure on 504 bars")
    few, many = (Trials(evaluations=3, count=count, variance=0.01) for count in (2, 10_000))
    assert headline(better, trials=few).startswith("Better than buy-and-hold")
    assert headline(better, trials=many).startswith("Not distinguishable from chance after so many tries")
    holds_better = part(account(returns(3.0, own=0.0005)), account(returns(3.0, seed=1)), account(returns(0.5)))
    assert headline(holds_better).startswith("Not distinguishable from buy-and-hold on 504 bars, and better than")


def test_what_cannot_be_told_is_said_with_the_difference_that_could_have_been_seen():
    test = of_ratios()
    found = verdict.lead(test[POLICY], test[EXPOSURE_MATCHED])
    text = headline(test)
    assert text.startswith("Not distinguishable from holding the mean exposure on 504 bars: Sharpe difference +0.10")
    assert f"{found.low:.2f} to {found.high:.2f}" in text
    half = (found.high - found.low) / 2
    assert (
        f"A true difference of {half + statistics.NormalDist().inv_cdf(0.8) * found.error:.2g} would be found" in text
    )


def test_a_detectable_difference_is_found_4_times_in_5():
    """A lead that is known, drawn 400 times. The band is three binomial errors."""
    found, rng = 0, np.random.default_rng(0)
    lead = verdict.lead(*(account(rng.normal(0, 0.01, 504)) for _ in range(2))).detectable
    for _ in range(400):
        own, other = rng.normal(0, 1, (2, 504))
        ratio = lead / 252**0.5
        found += abs(own.mean() / own.std() + ratio - other.mean() / other.std()) > 1.96 * (2 / 504) ** 0.5
    assert found / 400 == pytest.approx(0.8, abs=3 * 0.02)


def test_seeds_looks_and_timing_are_told_where_they_are_known():
    test = of_ratios()
    seeds = {
        "seed 0": account(returns(0.8)),
        "seed 1": account(returns(1.3)),
        "seed 2": account(np.zeros(504), held=0.0),
    }
    trials = Trials(evaluations=7, count=5, variance=0.001)
    timing = TimingTest(p=0.25, sharpe=0.1, rotated=np.array([0.0, 0.05, 0.2]))
    text = " ".join(verdict.verdict({"test": test}, seeds=seeds, trials=trials, timing=timing))
    assert "single seeds were 0.80, 1.30, none (its returns do not vary)." in text
    assert "evaluation 7 of these bars, with 5 policies" in text
    assert f"is {deflated_sharpe(test[POLICY].excess_returns, 5, 0.001):.2f}" in text
    assert "Of 3 rotations" in text
    assert "33%" in text
    assert "p = 0.250" in text
    trials = Trials(evaluations=7, count=5, variance=0.001, overlapping=2)
    some = " ".join(verdict.verdict({"test": test}, trials=trials))
    assert "evaluation 7 of these bars (2 of a part of them, of more, or under other names), with 5 policies" in some


@pytest.mark.slow
def test_a_random_walk_is_not_distinguishable_from_holding():
    """Policies that are in and out by chance: 95% of 30 such verdicts, less three binomial errors."""
    said = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        market = rng.normal(0, 0.01, 500)
        held = np.repeat(rng.integers(0, 2, 50), 10)
        accounts = (account(each) for each in (market * held, market, market * held.mean()))
        said += "istinguishable from" in headline(part(*accounts))
    assert said >= 30 * 0.95 - 3 * (30 * 0.05 * 0.95) ** 0.5


def test_better_than_the_same_exposure_may_be_worse_than_holding():
    test = part(account(returns(1.0, bars=2000)), account(returns(3.0, bars=2000)), account(returns(-2.0, bars=2000)))
    assert headline(test).startswith("Worse than buy-and-hold on 2,000 bars, and better than")
    half = account(returns(0.9))
    assert headline(part(half, account(returns(0.8)), half)).startswith("The policy is holding at its mean exposure")
