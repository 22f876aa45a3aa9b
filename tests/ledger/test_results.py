"""Whole results under all rules together: beside the scalar reference fill by fill, and what any of them must obey."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import BARS, BY_FILL, FULL, RATES, all_costs, full_market, orders_of, result_of, simulated
from rule_settings import run_settings

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.account import MAY_WAIT, REASONS

RANDOM = [(seed, (0.03, 0.2, 0.6)[seed % 3]) for seed in range(24)]  # seeds and volatilities of the shared results


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", BY_FILL)
def test_every_fill_under_all_rules_is_that_of_the_scalar_reference(name):
    """Bar, asset, units, price, fee, slippage, reason, with brackets, margin, lots, impact, missing and last bars."""
    assets, rules = BY_FILL[name]
    for seed, volatility in RANDOM:
        (targets, brackets), (result, market) = orders_of(seed, assets), result_of(name, seed, volatility)
        assert_same_result(result, reference_of(market, targets, all_costs(assets), brackets, **rules))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", BY_FILL)
def test_the_random_results_contain_every_reason(name):
    """Else the agreement and the properties say less than they seem to."""
    results = [result_of(name, *case)[0] for case in RANDOM]
    reasons = Counter(str(reason) for result in results for reason in result.fills["reason"])
    # Where the margin is watched, ruin finds something left to close on missing bars at most.
    assert {*REASONS} - {*reasons} - {"ruin"} == (set() if name == "next_close" else {"session end"})
    assert reasons["trailing stop"] > 5
    assert reasons["order"] > 100
    assert sum(result.ruined_at is not None for result in results) > 3
    assert sum(result.clipped for result in results) > 10
    assert sum(result.dropped for result in results) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["next_open", "close"])
def test_every_fill_without_brackets_and_margin_is_that_of_the_scalar_reference(name):
    """What happened is worked out otherwise then: from what the walk left, all bars at once. Ruin is met, and debt."""
    assets, rules = BY_FILL[name]
    rules = {**rules, "maintenance_margin": 0.0}
    reasons = Counter()
    for seed, volatility in RANDOM:
        market, targets = full_market(seed, assets, volatility), orders_of(seed, assets)[0]
        market = dataclasses.replace(market, funding=None, bar_dt=None)  # which are on what is held inside the bar
        result = simulate(market, targets, costs=all_costs(assets), **run_settings(rules))
        assert_same_result(result, reference_of(market, targets, all_costs(assets), **rules))
        reasons.update(result.fills["reason"].tolist())
    assert set(reasons) == {"order", "delisted", "ruin"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["next_close", "next_open", "close"])
def test_every_fill_on_change_is_that_of_the_scalar_reference(name):
    """Under all rules. What volume or a missing bar kept from its target is tried again, the rest is left to move."""
    assets, rules = BY_FILL[name]
    rules = {**rules, "rebalance": "on_change"}
    orders = {"always": 0, "on_change": 0}
    for seed, volatility in RANDOM[:18]:
        (targets, brackets), (always, market) = orders_of(seed, assets), result_of(name, seed, volatility)
        result = simulated(name, seed, market, rebalance="on_change")
        assert_same_result(result, reference_of(market, targets, all_costs(assets), brackets, **rules))
        orders["on_change"] += (result.fills["reason"] == "order").sum()
        orders["always"] += (always.fills["reason"] == "order").sum()
    assert 50 < orders["on_change"] < orders["always"]


@pytest.mark.parametrize("name", BY_FILL)
@pytest.mark.parametrize("volatility", [0.03, 0.2])  # beyond, units of a price near 0 leave a rest in the sums below
def test_the_result_is_what_its_fills_and_its_position_financing_make_of_the_prices(name, volatility):
    for seed in range(12):
        # All time is between the bars.
        market = dataclasses.replace(full_market(seed, BY_FILL[name][0], volatility), bar_dt=np.zeros(BARS))
        assert_made_of_fills_and_financing(name, simulated(name, seed, market), market)


def assert_made_of_fills_and_financing(name, result, market):
    assets, fills, asset = market.close.shape[1], result.fills, columns_of(result)
    paid = fills["units"] * fills["price"] + fills["fee"] + fills["slippage"]
    units = np.zeros((BARS, assets))
    np.add.at(units, (fills["bar"], asset), fills["units"])
    units = np.cumsum(units, 0)
    cash = 1 - np.cumsum(np.bincount(fills["bar"], paid, BARS)) + np.cumsum(result.financing)
    scale = np.abs(result.equity).max() + 1
    # Sums over 64 bars and all fills round by the largest of them.
    np.testing.assert_allclose(cash + (units * market.close).sum(1), result.equity, rtol=0, atol=1e-11 * scale)
    # Of a price that has fallen to nothing there were many: a sum rounds by the largest.
    np.testing.assert_allclose(units, result.units, rtol=0, atol=1e-13 * np.abs(fills["units"]).max(initial=1))
    # What was carried: rule 6, interest on what was held at the close before, funding on what was held up to the close.
    before, worth = cash[:-1], units[:-1] * market.close[:-1]
    short, years = np.maximum(-worth, 0).sum(1), market.dt[1:]
    financing = RATES["cash_rate"] * years * np.maximum(0, before - short)
    financing -= RATES["borrow_rate"] * years * np.maximum(0, short - before) + RATES["short_rate"] * years * short
    final = (fills["reason"] == "delisted") | (name != "next_open") & (fills["reason"] == "order")
    at_close = fills["price"] == market.close[fills["bar"], asset]
    final |= (fills["forced"] | (fills["reason"] == "session end")) & at_close
    until = units.copy()
    np.subtract.at(until, (fills["bar"][final], asset[final]), fills["units"][final])
    financing -= (market.funding * until * market.close).sum(1)[1:]
    financing[BARS if result.ruined_at is None else result.ruined_at :] = 0
    np.testing.assert_allclose(result.financing[1:], financing, rtol=0, atol=1e-11 * scale)
    # What the fills cost: rule 4, by what was known when the order was sized.
    known = fills["bar"] - (name != "close")
    value, side = np.abs(fills["units"]) * fills["price"], np.sign(fills["units"])
    if name == "close":  # what a bracket, the margin or the end closes is still priced by the bar before
        known = np.where(fills["reason"] == "order", known, known - 1)
    impact = np.minimum(0.5 * market.volatility[known, asset] * np.sqrt(value * 1e5 / market.adv[known, asset]), 1)
    ticks = fills["price"] * (1 + side * (0.002 + impact)) / (0.01 * market.price_factor[fills["bar"], asset])
    paid = np.where(side > 0, np.ceil(ticks), np.floor(ticks)) * (0.01 * market.price_factor[fills["bar"], asset])
    # 1e-11: `units` is a difference of two holdings, which may be small against both.
    once = fills["reason"] != "ruin"  # that may be two fills in one, since the volume cap has cut a liquidation
    np.testing.assert_allclose(
        fills["slippage"][once], (np.abs(paid / fills["price"] - 1) * value)[once], rtol=1e-9, atol=1e-14
    )
    paid = value + side * fills["slippage"]
    shares = np.abs(fills["units"]) * market.price_factor[fills["bar"], asset] / 1.5
    fee = paid * np.broadcast_to(result.costs.fee, assets)[asset] + 0.02 * shares
    fee = np.minimum(np.maximum(fee, 1e-5), 0.01 * paid) + 2e-5
    np.testing.assert_allclose(fills["fee"][once], fee[once], rtol=1e-11)


@pytest.mark.parametrize("name", BY_FILL)
def test_every_fill_keeps_the_rules_it_was_made_under(name):
    for case in RANDOM:
        assert_keeps_the_rules(name, *result_of(name, *case))


def assert_keeps_the_rules(name, result, market):
    fills, rules, asset = result.fills, result.rules, columns_of(result)
    bar, price = fills["bar"], fills["price"]
    delisted, order = (fills["reason"] == reason for reason in ("delisted", "order"))
    low, high, close = (getattr(market, column)[bar, asset] for column in ("low", "high", "close"))
    np.testing.assert_allclose(price[delisted], 0.7 * close[delisted], rtol=1e-15)
    assert ((price >= low) & (price <= high))[~delisted].all()
    assert market.present[bar, asset].all()
    at = market.open if rules.fill == "next_open" else market.close
    np.testing.assert_array_equal(price[order], at[bar, asset][order])
    assert (result.units[market.session_end[:, None] & market.present] == 0).all() or not rules.flat_at_session_end
    # Whole lots of raw shares, none too small, none beyond the volume. A target of 0 sells what there is, if it can.
    known = bar - (rules.fill != "close")
    lots = np.abs(fills["units"]) * 1e5 * market.price_factor[bar, asset] / (5 * 1.5)
    whole = np.abs(lots - np.round(lots)) < 1e-6 + 1e-14 * lots  # where a price has fallen to nothing they are many
    assert (whole | (fills["position"] == 0))[order].all()
    value = np.abs(fills["units"]) * price * 1e5
    assert (value[order] >= 500 * (1 - 1e-12)).all()
    cap, waits = 0.2 * market.adv[known, asset], np.isin(fills["reason"], [REASONS[reason] for reason in MAY_WAIT])
    assert (value <= cap * (1 + 1e-9))[order].all()
    if name != "close":  # where the cap of an exit is that of the bar before its order's
        assert (value <= cap * (1 + 1e-9))[waits].all()
        assert ((fills["position"] == 0) | (value >= cap * (1 - 1e-9)))[waits].all()
    assert (fills["position"][~order & ~waits] == 0).all()


def columns_of(result):
    """The column of each fill."""
    return np.array([result.symbols.index(symbol) for symbol in result.fills["symbol"]], int)


@pytest.mark.parametrize("name", ["next_open", "next_close"])
def test_the_order_of_the_assets_does_not_matter(name):
    columns = ("open", "high", "low", "close", "volatility", "present", "delisted", "funding", "price_factor", "adv")
    for seed, order in enumerate([*itertools.permutations(range(3))][1:] * 3):
        result, market = result_of(name, seed)
        (targets, brackets), order = orders_of(seed, 3), [*order]
        turned = dataclasses.replace(market, **{name: getattr(market, name)[:, order] for name in columns})
        brackets = {side: x[:, order] for side, x in brackets.items()}
        costs = all_costs(3, fee=all_costs(3).fee[order])
        other = simulate(turned, targets[:, order], costs=costs, **brackets, **run_settings(BY_FILL[name][1]))
        # Sums over the assets round otherwise in another order, and leverage enlarges that.
        np.testing.assert_allclose(other.equity, result.equity, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(other.units, result.units[:, order], rtol=1e-9, atol=1e-11)
        assert (other.clipped, other.dropped, other.ruined_at) == (result.clipped, result.dropped, result.ruined_at)


def results_in_two_units(seed, scale):
    """A result without lots, ticks and impact, and the same with the prices of each asset multiplied by a factor."""
    rules = {k: v for k, v in FULL.items() if k not in ("lot", "multiplier", "tick", "volume_cap", "delay")}
    (targets, brackets), market = orders_of(seed, 3), full_market(seed, 3)
    prices = {name: getattr(market, name) * scale for name in ("open", "high", "low", "close")}
    markets = market, dataclasses.replace(market, **prices)
    return [
        simulate(each, targets, costs=all_costs(3, impact=None, share_fee=None), **brackets, **run_settings(rules))
        for each in markets
    ]


@pytest.mark.parametrize("seed", range(12))
def test_the_scale_of_prices_does_not_matter_without_lots_and_impact(seed):
    """Each asset in a unit of its own, a power of two: no rounding differs, so neither does a bit of the equity."""
    scale = 2.0 ** np.random.default_rng(seed).integers(-20, 21, 3)
    result, scaled = results_in_two_units(seed, scale)
    np.testing.assert_array_equal(scaled.equity, result.equity)
    np.testing.assert_array_equal(scaled.units * scale, result.units)
    np.testing.assert_array_equal(scaled.fills["reason"], result.fills["reason"])


@pytest.mark.parametrize("seed", range(12))
def test_any_scale_of_prices_leaves_the_result_but_for_roundings(seed):
    """Targets and prices are drawn from ranges, so none is within 1e-12 of a band, level or limit by chance.

    The rules themselves may put an order on an edge (a target met before, gross exposure at the leverage). There the
    ledger has a tolerance, its dust of 1e-12: a thousand times these roundings.
    """
    scale = 10 ** np.random.default_rng(seed).uniform(-6, 6, 3)
    result, scaled = results_in_two_units(seed, scale)
    np.testing.assert_allclose(scaled.equity, result.equity, rtol=1e-12)
    np.testing.assert_allclose(scaled.units * scale, result.units, rtol=1e-12, atol=1e-14)
    for name in ("bar", "symbol", "reason", "forced"):
        np.testing.assert_array_equal(scaled.fills[name], result.fills[name])
    assert (scaled.clipped, scaled.dropped, scaled.ruined_at) == (result.clipped, result.dropped, result.ruined_at)


@pytest.mark.parametrize("power", [-20, -1, 7, 20])
def test_an_adjustment_of_prices_does_not_matter_whatever_is_on(power):
    """Lots are of raw shares and volume is of currency: neither changes when the adjusted price does."""
    names = ("open", "high", "low", "close", "price_factor")
    for seed in range(3):
        result, market = result_of("next_open", seed)
        scaled = dataclasses.replace(market, **{name: getattr(market, name) * 2.0**power for name in names})
        np.testing.assert_array_equal(simulated("next_open", seed, scaled).equity, result.equity)


@pytest.mark.parametrize("name", BY_FILL)
@pytest.mark.parametrize("target", [0.0, np.nan])
def test_flat_stays_flat_but_for_interest(name, target):
    assets, rules = BY_FILL[name]
    for seed in range(6):
        market, (_, brackets) = full_market(seed, assets), orders_of(seed, assets)
        result = simulate(market, target, costs=all_costs(assets), **brackets, **run_settings(rules))
        assert not len(result.fills)
        # Products of 64 numbers.
        grown = (1 + 0.3 * (market.dt - market.bar_dt)) * (1 + 0.3 * market.bar_dt)
        np.testing.assert_allclose(result.equity, np.cumprod(grown), rtol=1e-13)
