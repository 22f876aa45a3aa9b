"""Baselines: closed forms, the bars and rules of their result, and each symbol's own. Break-even costs by hand."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import daily, market_of, random_table
from rule_settings import run_settings

from jaxtrader.evaluation.baselines import (
    BUY_AND_HOLD,
    EXPOSURE_MATCHED,
    baselines,
    break_even,
    buy_and_hold,
    exposure_matched,
)
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.evaluation.timing import TimingTest
from jaxtrader.evaluation.verdict import lead, verdict
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

COSTS, NO_COSTS = Costs(fee=0.001, slippage=0.002), Costs(fee=0.0, slippage=0.0)


@pytest.fixture(scope="module")
def market():
    return market_of({"A": random_table(1, 100), "B": random_table(2, 90)})


def targets(seed, bars):
    return np.random.default_rng(seed).choice([-0.5, 0.0, 1.0], bars)


@pytest.mark.parametrize("function", [baselines, buy_and_hold, exposure_matched])
def test_a_market_and_a_result_in_each_other_s_place_are_refused(market, function):
    result = simulate(market, 1.0, symbol="A")
    with pytest.raises(ValueError, match="a baseline needs a Market, not a BacktestResult"):
        function(result, market)
    with pytest.raises(ValueError, match="a baseline needs a BacktestResult, not a Market"):
        function(market, market)


def test_baselines_of_one_symbol_are_over_the_bars_of_its_result(market):
    start = 120  # row 20 of B, which lies on rows 100..189
    result = simulate(market, targets(3, 70), symbol="B", start=start, costs=COSTS, rules=Rules(rebalance_band=0.05))
    found = baselines(market, result)
    assert list(found) == [BUY_AND_HOLD, EXPOSURE_MATCHED]
    for baseline in found.values():
        np.testing.assert_array_equal(baseline.times, result.times)
        assert baseline.costs == result.costs
        assert baseline.symbols == ("B",)
    expected = market.close[-1, 0] / market.open[start + 1, 0] / 1.002 / 1.001
    assert found[BUY_AND_HOLD].equity[-1] == pytest.approx(expected, rel=1e-13)
    mean = result.exposure.mean()
    matched = found[EXPOSURE_MATCHED]
    assert matched.rules == result.rules
    np.testing.assert_array_equal(matched.targets, np.full((70, 1), mean))
    np.testing.assert_array_equal(
        matched.equity,
        simulate(market, mean, symbol="B", start=start, costs=COSTS, rules=Rules(rebalance_band=0.05)).equity,
    )
    # The band keeps it near its target, so its exposure is about the mean exposure of the result.
    assert matched.exposure[1:].mean() == pytest.approx(mean, abs=0.05)
    assert len(matched.fills) < 20


@pytest.mark.parametrize("fill", ["close", "next_close"])
def test_buy_and_hold_has_the_fill_of_its_result(market, fill):
    result = simulate(
        market,
        targets(3, 90),
        symbol="B",
        rules=Rules(rebalance_band=0.0, fill=fill),
        costs=NO_COSTS,
    )
    bought = market.close[100 if fill == "close" else 101, 0]
    assert buy_and_hold(market, result).equity[-1] == pytest.approx(market.close[-1, 0] / bought, rel=1e-13)


def test_exposure_matched_of_a_flat_result_is_cash(market):
    flat = simulate(market, 0.0, symbol="A", costs=COSTS)
    assert (exposure_matched(market, flat).equity == 1.0).all()
    assert not (buy_and_hold(market, flat).equity == 1.0).all()


def test_exposure_matched_of_a_combined_result_is_of_each_symbol(market):
    results = {
        "A": simulate(market, targets(4, 100), symbol="A", costs=COSTS),
        "B": simulate(market, -targets(5, 90), symbol="B", costs=COSTS),
    }
    total = combine(results)
    found = baselines(market, total)
    assert list(found) == [BUY_AND_HOLD, EXPOSURE_MATCHED]
    for baseline in found.values():
        np.testing.assert_array_equal(baseline.times, total.times)
        assert set(baseline.by_symbol) == {"A", "B"}
    for symbol, result in results.items():
        one = found[EXPOSURE_MATCHED].by_symbol[symbol]
        assert one.targets[0, 0] == result.exposure.mean()
    # Half of each at its own first open. B ends ten days before A and stays there.
    a, b = (market.close[end, 0] / market.open[start, 0] / 1.002 / 1.001 for start, end in ((1, 99), (101, 189)))
    assert found[BUY_AND_HOLD].equity[-1] == pytest.approx((a + b) / 2, rel=1e-13)


def test_a_result_of_another_market_is_refused(market):
    result = simulate(market, 0.0, symbol="A")
    other = market_of(random_table(1, 100), symbol="Z")
    with pytest.raises(ValueError, match=r"A.* Z.*give the result's market"):
        baselines(other, result)
    train, _ = market.split(0.5, 0.5)
    with pytest.raises(ValueError, match="give the market, or the part of it"):
        baselines(train, result)


@pytest.mark.parametrize("seed", [1, 5])
def test_buy_and_hold_buys_assets_when_they_are_listed_for_what_was_kept_for_them(seed):
    """A third in A at once, B and C after 30 and 60 bars, at the opens after their first. No costs, nothing on credit.

    An order is a share of equity, decided at a close: at the next open it buys for that share of equity there.
    """
    a, b, c = random_table(seed, 100), random_table(2, 100).iloc[30:], random_table(3, 100).iloc[60:]
    market = market_of({"A": a, "B": b, "C": c}, align=True)
    rules = Rules(rebalance_band=0.0, max_leverage=2.0)  # as at 1.0: a holder takes no credit
    result = simulate(market, np.zeros((100, 3)), costs=NO_COSTS, rules=rules)
    holder = buy_and_hold(market, result)
    frames, cash, units, equity = (a, b, c), 1.0, [0.0, 0.0, 0.0], np.ones(100)
    worth = lambda column, t: sum(u * f[column].iloc[t - 100 + len(f)] for u, f in zip(units, frames, strict=True) if u)  # noqa: E731
    for t in range(1, 100):
        for i, listed in enumerate((0, 30, 60)):
            if t == listed + 1:
                share = cash / (cash + worth("close", t - 1)) / (3 - i)
                spent = min(share * (cash + worth("open", t)), cash)
                units[i], cash = spent / frames[i]["open"].iloc[t - listed], cash - spent
        equity[t] = cash + worth("close", t)
    np.testing.assert_allclose(holder.equity, equity, rtol=1e-12)
    assert holder.fills["bar"].tolist() == [1, 31, 61]
    assert (holder.exposure.sum(1) < 1 + 1e-12).all()


def test_buy_and_hold_counts_an_order_that_waits_for_its_delay_as_one_that_has_its_part_already():
    """A is ordered at bar 0 and filled at bar 4, B ordered at bar 2: half each, as if A had been bought."""
    a, b = random_table(1, 20), random_table(2, 20).iloc[2:]
    market = market_of({"A": a, "B": b}, align=True)
    result = simulate(market, np.zeros((20, 2)), costs=NO_COSTS, rules=Rules(rebalance_band=0.0, delay=3))
    holder = buy_and_hold(market, result)
    assert (holder.targets[0, 0], holder.targets[2, 1]) == (0.5, 0.5)
    assert holder.fills["bar"].tolist() == [4, 6]


def test_buy_and_hold_under_impact_is_ordered_as_soon_as_there_is_a_volume_to_size_by():
    """No volume on two days of 300: an order decided on the first would be dropped, and the holder stay in cash."""
    bars = random_table(1, 300)
    bars.iloc[:2, bars.columns.get_loc("volume")] = 0.0
    market = market_of(bars, symbol="A")
    costs = Costs(fee=0.0, slippage=0.0, impact=0.1)
    result = simulate(market, 0.0, costs=costs, rules=Rules(rebalance_band=0.0, capital=1.0))
    holder = buy_and_hold(market, result)
    assert holder.fills["bar"].tolist() == [3]
    assert holder.dropped == 0


def test_buy_and_hold_is_not_flat_at_session_end():
    """Ten days of four hours, 100 to 139 and a result that is flat every night: bought at the second bar, at 101."""
    days = pd.bdate_range("2024-01-01", periods=10)
    times = pd.DatetimeIndex(np.concatenate([pd.date_range(f"{d.date()} 14:00", periods=4, freq="h") for d in days]))
    prices = np.arange(100.0, 140)
    columns = dict.fromkeys(("open", "high", "low", "close"), prices) | {"volume": 1.0}
    market = market_of(pd.DataFrame(columns, index=times), symbol="X")
    result = simulate(market, 0.5, costs=COSTS, rules=Rules(flat_at_session_end=True, rebalance_band=0.05))
    assert (result.units[market.session_end] == 0).all()
    holder = buy_and_hold(market, result)
    assert holder.equity[-1] == pytest.approx(139 / 101 / 1.002 / 1.001, rel=1e-13)
    assert len(holder.fills) == 1
    assert holder.rules == dataclasses.replace(result.rules, flat_at_session_end=False, rebalance_band=0.0)
    matched = exposure_matched(market, result)
    mean = result.intrabar_exposure.mean()
    # The exposure drifts with the price inside a day.
    assert mean == pytest.approx(0.5 * 39 / 40, abs=0.01), "a day's last bar was held too, up to its close"
    assert (matched.units[1:] > 0).all()
    # The matched account drifts by up to its band of 0.05 before it trades.
    assert matched.exposure[1:].mean() == pytest.approx(mean, abs=0.05)


def test_buy_and_hold_is_bound_by_no_volume_cap_min_trade_or_band():
    """500 for each of two, where a bar trades some 100: bought at 11, whole, as at any size. Then 15 / 11."""
    market = market_of({name: daily(range(10, 16)) for name in "AB"}, align=True)
    rules = {"capital": 1_000.0, "volume_cap": 0.5, "min_trade": 2_000.0, "rebalance_band": 0.6}
    result = simulate(market, 0.0, costs=NO_COSTS, **run_settings(rules))
    holder = buy_and_hold(market, result)
    assert holder.equity[-1] == pytest.approx(15 / 11, rel=1e-13), "half is within the band, and still bought"


@pytest.mark.parametrize("rebalance", ["always", "on_change"])
def test_buy_and_hold_that_would_meet_a_missing_bar_is_given_until_it_is_filled(rebalance):
    """B is listed on day 2, and has no bar on days 4 and 5 (an order with a delay of a bar would fill on day 4).

    A: half at day 2's open, 12: 0.5 / 12 units. B: all that is left, 0.5, at day 6's open, which is 8.
    """
    a, b = daily(range(10, 20), [10, *[12] * 9]), daily([1, 1, 4, 5, 0, 0, 8, 9, 9, 9], [1, 1, 4, 5, 0, 0, 8, 8, 8, 16])
    market = market_of({"A": a, "B": b.iloc[[2, 3, 6, 7, 8, 9]]}, align=True)
    rules = {"delay": 1, "rebalance": rebalance}
    result = simulate(market, np.zeros((10, 2)), costs=NO_COSTS, **run_settings(rules))
    holder = buy_and_hold(market, result)
    assert holder.fills["bar"].tolist() == [2, 6]
    assert holder.fills["symbol"].tolist() == ["A", "B"]
    np.testing.assert_allclose(holder.units[-1], [0.5 / 12, 0.5 / 8], rtol=1e-13)
    assert holder.equity[-1] == pytest.approx(0.5 + 1.0, rel=1e-13)
    matched = exposure_matched(market, simulate(market, 0.5, costs=NO_COSTS, **run_settings(rules)))
    assert set(matched.fills["symbol"]) == {"A", "B"}
    assert matched.dropped == 0


def test_exposure_matched_rebalances_though_the_result_trades_on_change_only(market):
    changes = simulate(
        market,
        np.where(np.arange(90) < 50, 0.5, 0.3),
        symbol="B",
        rules=Rules(rebalance_band=0.0, rebalance="on_change"),
        costs=COSTS,
    )
    mean = changes.exposure.mean()
    again = simulate(market, mean, symbol="B", costs=COSTS)
    np.testing.assert_array_equal(exposure_matched(market, changes).equity, again.equity)
    assert len(again.fills) > 1


def test_an_account_that_holds_one_target_is_its_own_match():
    """Though the price rises and takes the exposure with it, within the band, so that its mean is above the target."""
    rising = market_of(daily(np.linspace(100, 110, 60)), symbol="X")
    rules = Rules(rebalance_band=0.05)
    result = simulate(rising, 0.5, costs=COSTS, rules=rules)
    assert result.intrabar_exposure[1:].mean() > 0.51
    np.testing.assert_array_equal(exposure_matched(rising, result).equity, result.equity)
    # A stop ends it, and then its mean is what counts.
    falling = market_of(daily(np.linspace(110, 80, 60)), symbol="X")
    levels = {"stop_loss": 0.1, "take_profit": np.inf}
    stopped = simulate(falling, 0.5, costs=COSTS, **levels)
    matched = exposure_matched(falling, stopped)
    assert matched.targets[0, 0] == stopped.intrabar_exposure.mean() < 0.3


def portfolio_of(absent, steps=120, volatility=0.002, seed=1):
    """A and B, of which B has bars on these rows only."""
    a, b = (random_table(seed + i, steps, volatility) for i in range(2))
    return market_of({"A": a, "B": b.drop(b.index[absent])}, align=True)


@pytest.mark.quick(5)
@pytest.mark.parametrize(
    ("absent", "delay"),
    [(slice(60, None), 0), (slice(0, 60), 0), (slice(40, 70), 0), (slice(40, 44), 0), (slice(60, None), 2)],
)
@pytest.mark.parametrize("target", [[0.5, 0.5], [0.6, 0.2], [0.5, -0.4]])
def test_one_target_is_its_own_match_though_an_asset_leaves_or_comes(absent, target, delay):
    """Also where the target is NaN at the rows at which the asset has no bar, or is not listed."""
    market = portfolio_of(absent)
    rules = Rules(rebalance_band=0.02, delay=delay)
    can = market.present & (True if market.listed is None else market.listed)
    for targets in (np.tile(target, (120, 1)), np.where(can, target, np.nan)):
        result = simulate(market, targets, costs=COSTS, rules=rules)
        np.testing.assert_array_equal(exposure_matched(market, result).equity, result.equity)


@pytest.mark.parametrize("cash", [0.0, 0.1])
def test_one_proportion_among_what_can_be_ordered_is_its_own_match(cash):
    """Parts of 2 in A and 1 in B, and some in cash. Of A alone it is 2 parts, and the same cash."""
    market = portfolio_of(slice(60, None))
    parts = np.where(market.present & (True if market.listed is None else market.listed), [2.0, 1.0], np.nan)
    targets = parts / (np.nansum(parts, 1, keepdims=True) + cash)
    result = simulate(market, targets, costs=COSTS, rules=Rules(rebalance_band=0.02))
    np.testing.assert_array_equal(exposure_matched(market, result).equity, result.equity)
    said = verdict(
        {"test": {"policy": result, **baselines(market, result)}}, timing=TimingTest(0.3, 0.1, np.arange(9.0))
    )
    assert said[0].startswith("The policy is holding at its mean exposure")
    assert not any("rotations" in one for one in said)


def _moved(targets, seed=3):
    """Targets that differ a little from bar to bar, so that they are no one target."""
    return targets * np.random.default_rng(seed).uniform(0.9, 1.1, (120, 1))


@pytest.mark.parametrize("target", [[0.5, 0.3], [0.5, -0.4]])
def test_the_matched_weights_do_not_know_which_asset_leaves(target):
    """B falls by 3% a bar and is delisted half way. The matched account asks for about what the result asked for."""
    a, b = random_table(1, 120, 0.002), random_table(2, 60, 0.002)
    market = market_of({"A": a, "B": b * np.r_[np.ones(50), 0.97 ** np.arange(1, 11)][:, None]}, align=True)
    result = simulate(market, _moved(np.tile(target, (120, 1))), costs=COSTS, rules=Rules(rebalance_band=0.02))
    matched = exposure_matched(market, result)
    # The result drifts within its band of 0.02 between trades.
    np.testing.assert_allclose(matched.targets[1], target, rtol=0.05)
    assert matched.intrabar_exposure.sum(1).mean() == pytest.approx(result.intrabar_exposure.sum(1).mean(), abs=0.01)


def test_what_goes_to_the_others_when_an_asset_leaves_is_matched_so():
    """Equal parts of what is there: half of each, then all in A. The matched account does the same."""
    market = portfolio_of(slice(60, None))
    wanted = np.where(np.arange(120)[:, None] < 60, [0.5, 0.5], [1.0, np.nan])
    result = simulate(market, _moved(wanted * 0.9), costs=COSTS, rules=Rules(rebalance_band=0.02))
    matched = exposure_matched(market, result)
    # The targets move by up to a tenth from bar to bar, and the levels are one product of bars and assets.
    np.testing.assert_allclose(matched.targets[1], [0.45, 0.45], atol=0.03)
    assert matched.targets[100, 0] == pytest.approx(0.9, abs=0.05)
    assert matched.intrabar_exposure.sum(1).mean() == pytest.approx(result.intrabar_exposure.sum(1).mean(), abs=0.02)


def test_with_every_bar_the_levels_are_the_means_of_what_stood():
    """The rule for missing bars is the general one: where none is missing, it gives the plain means."""
    market = market_of({"A": random_table(1), "B": random_table(2)}, align=True)
    result = simulate(market, np.random.default_rng(0).uniform(-0.4, 0.5, (120, 2)), costs=COSTS)
    assert market.present is None
    complete = dataclasses.replace(market, present=np.ones((120, 2), bool))
    means = exposure_matched(market, result)
    np.testing.assert_allclose(exposure_matched(complete, result).targets, means.targets, rtol=1e-12)
    # The first target meets a mean over bars that drift.
    np.testing.assert_allclose(means.targets[0], result.intrabar_exposure.mean(0), atol=0.01)


def test_what_stood_is_divided_as_it_was_bought_by_hand():
    """Half in A and a quarter in B at 10 each. A doubles and B stands: 1 of 1.5 is in A, and 1/6 in B.

    Of that gross exposure, 7/6, two thirds were bought in A and a third in B.
    """
    market = market_of({"A": daily([10, 10, 20, 20]), "B": daily([10] * 4)}, align=True)
    targets = np.array([[0.5, 0.25], [np.nan] * 2, [np.nan] * 2, [np.nan] * 2])
    result = simulate(market, targets, costs=NO_COSTS)
    np.testing.assert_allclose(result.intrabar_exposure[:, 0], [0, 0.5, 2 / 3, 2 / 3])
    np.testing.assert_allclose(result.intrabar_exposure[:, 1], [0, 0.25, 1 / 6, 1 / 6])
    gross = (0.75 + 5 / 6 + 5 / 6) / 4
    np.testing.assert_allclose(exposure_matched(market, result).targets[0], [2 / 3 * gross, 1 / 3 * gross])


def _judged(market, targets):
    """Its lead over its own mean exposure held, and the first sentence of its verdict."""
    known = {"costs": Costs(fee=1e-4, slippage=1e-4), "rules": Rules()}
    result, cash = simulate(market, targets, **known), simulate(market, 0.0, **known)
    found = {BUY_AND_HOLD: cash, EXPOSURE_MATCHED: exposure_matched(market, result)}  # a holder would be compiled
    return lead(result, found[EXPOSURE_MATCHED]), verdict({"test": {"policy": result, **found}})[0]


def _with_a_loser(seed, bars=700):
    """Four assets, of which the last falls to two fifths in 40 bars and is delisted half way."""
    frames = {name: random_table(100 * seed + i, bars, 0.012) for i, name in enumerate("ABCD")}
    fall = np.r_[np.ones(bars // 2 - 40), np.linspace(1, 0.4, 40)]
    frames["D"] = frames["D"].iloc[: bars // 2] * fall[:, None]
    return market_of(frames, align=True)


@pytest.mark.parametrize("nothing", [np.nan, 0.0])
def test_constant_weights_are_their_own_match_whatever_is_asked_of_what_is_gone(nothing):
    market = _with_a_loser(1)
    targets = np.where(market.present & market.listed, 0.225, nothing)
    difference, said = _judged(market, targets)
    assert difference.value == 0
    assert said.startswith("The policy is holding at its mean exposure")


def test_nearly_constant_weights_are_no_worse_for_what_prices_made_of_them_later():
    """Weights that move by a thousandth. What is held drifts in the band, from the loser to the others."""
    leads, said = [], []
    for seed in range(10, 20):
        market = _with_a_loser(seed)
        moved = 0.225 * np.random.default_rng(seed).normal(1, 1e-3, market.present.shape)
        difference, sentence = _judged(market, moved)
        leads.append(difference.value)
        said.append(sentence)
    assert abs(np.mean(leads)) < 0.02
    assert not any(sentence.startswith("Worse") for sentence in said)


def account(last, turnover):
    return SimpleNamespace(equity=np.array([1.0, last]), turnover=np.array(turnover))


def test_break_even_by_hand():
    """A lead of log(1.21 / 1.1) over 4 - 0.5 of turnover more. Behind, it is below 0, and where there is none, NaN."""
    one, other = account(1.21, [1.0, 3.0]), account(1.1, [0.5, 0.0])
    assert break_even(one, other) == pytest.approx(1e4 * math.log(1.1) / 3.5, rel=1e-13)
    assert break_even(account(1.0, [1.0, 3.0]), other) == pytest.approx(-1e4 * math.log(1.1) / 3.5, rel=1e-13)
    assert break_even(account(1.21, [0.5, 0.01]), other) == pytest.approx(1e4 * math.log(1.1) / 0.01, rel=1e-13)
    for undefined in (
        account(1.21, [0.5, 0.0]),
        account(1.21, [0.5, 0.004]),
        account(1.21, [0.1, 0.1]),
        account(-0.1, [1.0, 3.0]),
    ):
        assert math.isnan(break_even(undefined, other))


def test_at_the_break_even_cost_the_lead_over_exposure_matched_is_gone(market):
    """What the ledger says where every fill costs so much more: nothing is left of a lead, and half at half of it."""

    def lead(result, extra):
        dear = {"costs": Costs(fee=0.001, slippage=0.002 + extra), "rules": result.rules}
        parts = result.by_symbol or {result.symbols[0]: result}
        results = {name: simulate(market, one.targets, symbol=name, **dear) for name, one in parts.items()}
        matched = {name: simulate(market, one.exposure.mean(), symbol=name, **dear) for name, one in parts.items()}
        ends = [np.mean([one.equity[-1] for one in each.values()]) for each in (results, matched)]
        return math.log(ends[0] / ends[1])

    def well_informed(symbol, bars, seed):
        """A few days that are known beforehand, else noise."""
        rows = slice(0, 100) if symbol == "A" else slice(100, 190)
        rise = np.append(np.diff(np.log(market.open[rows, 0])), 0)
        known = np.sign(np.append(rise[1:], 0)) * 0.5
        wanted = np.where(np.random.default_rng(seed).random(bars) < 0.5, known, targets(seed, bars) / 2)
        return simulate(market, wanted, symbol=symbol, costs=COSTS, rules=Rules(rebalance_band=0.05))

    one = well_informed("A", 100, 7)
    total = combine({"A": one, "B": well_informed("B", 90, 8)})
    for result in (one, total):
        matched = baselines(market, result)[EXPOSURE_MATCHED]
        extra = break_even(result, matched) / 1e4
        now = math.log(result.equity[-1] / matched.equity[-1])
        assert now == pytest.approx(lead(result, 0.0), rel=1e-12)
        assert now > 0.1
        assert abs(lead(result, extra)) < 0.01 * now
        # Log equity is nearly linear in the cost.
        assert lead(result, extra / 2) == pytest.approx(now / 2, rel=0.01)
