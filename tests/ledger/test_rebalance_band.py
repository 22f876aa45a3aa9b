"""`rebalance_band`: no trade smaller than this share of equity, except to go flat (money rule 3)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from ledger.worked_bars import NO_COSTS, PRICES, near, one_bar

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import hold
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.account import dust
from jaxtrader.ledger.rules import Rules, default_band


def test_inside_the_band_nothing_trades_but_a_target_of_zero_ignores_it():
    held = {"units": 0.5 / 110, "cash": 0.5, "costs": NO_COSTS, "rebalance_band": 0.05}
    assert not one_bar(0.54, PRICES, **held)[1].units.any()
    assert one_bar(0.56, PRICES, **held)[1].units[0] == near(0.06 / 110)
    little = {**held, "units": 0.02 / 110, "cash": 0.98}
    assert not one_bar(0.03, PRICES, **little)[1].units.any()
    account, fill, _ = one_bar(0.0, PRICES, **little)
    assert fill.units[0] == -0.02 / 110
    assert account.units[0] == 0.0


def test_the_default_band_is_five_percent_or_half_an_equal_weight():
    bands = {assets: default_band(assets) for assets in (1, 2, 10, 20, 80, 500)}
    assert bands == {1: 0.05, 2: 0.05, 10: 0.05, 20: 0.025, 80: 0.00625, 500: 0.001}
    assert Rules().with_band(0.02).rebalance_band == 0.02
    assert [Rules(rebalance_band=band).with_band(0.02).rebalance_band for band in (0.0, 0.3)] == [0.0, 0.3]


def test_a_band_of_none_is_that_of_an_environment_and_none_for_given_targets(market):
    given = np.resize([0.5, 0.52, 0.48], market.segments[0, 2] - market.segments[0, 1])
    plain, ruled = (simulate(market, given, symbol="S0", **rules) for rules in ({}, {"rules": Rules()}))
    np.testing.assert_array_equal(plain.fills, ruled.fills)
    assert plain.rules == ruled.rules == Rules(rebalance_band=0.0)
    env = TradingEnv(market, positions="continuous")
    assert env.rules.rebalance_band == TradingEnv(market, rules=env.rules).rules.rebalance_band == 0.05
    assert TradingEnv(market, rules=Rules(rebalance_band=0.0)).rules.rebalance_band == 0.0
    kept = simulate(market, given, symbol="S0", rules=env.rules)
    assert 0 < len(kept.fills) < len(plain.fills) / 2


def test_a_backtest_and_its_targets_trade_by_the_same_band(market):
    result = backtest(lambda seen: 0.5 + 0.03 * np.sign(seen.window[-1, 0, 0]), market, window=1).by_symbol["S0"]
    assert result.rules.rebalance_band == 0.05
    start = int(market.first_decisions(1)[0])
    again = simulate(market, result.targets, costs=result.costs, rules=result.rules, symbol="S0", start=start)
    np.testing.assert_allclose(again.equity, result.equity, rtol=1e-12)
    held = hold(market, result, result.targets)
    np.testing.assert_allclose(held.equity, result.equity, rtol=1e-12)
    free = simulate(market, result.targets, costs=result.costs, symbol="S0", start=start)
    assert len(free.fills) > len(result.fills)


def test_a_policy_file_says_that_the_band_follows_the_number_of_assets(portfolio):
    assert portfolio.rules.rebalance_band == default_band(portfolio.assets)
    assert portfolio.to_dict()["rules"]["rebalance_band"] is None
    other = dataclasses.replace(portfolio, rules=portfolio.rules.replace(rebalance_band=0.01))
    assert other.to_dict()["rules"]["rebalance_band"] == 0.01


def test_equal_weights_of_many_assets_are_bought_by_default():
    # An equal weight is 1/80 = 0.0125. A target of 0.006 is below the band of 0.00625, and one of 0.0065 is above it.
    targets = np.r_[np.full(78, 1 / 80), 0.006, 0.0065]
    units = one_bar(targets, PRICES, units=[0.0] * 80, costs=NO_COSTS, rebalance_band=default_band(80))[1].units
    np.testing.assert_allclose(units[:78], 1 / 80 / 110, rtol=1e-12)
    assert units[78] == 0
    assert units[79] == near(0.0065 / 110)


def test_dust_is_no_trade():
    # At 110 and E = 1, 0.5 / 110 units are the target, and 1e-13 of it is rounding, 1e-11 is an order.
    held = 0.5 / 110
    assert not one_bar(0.5, PRICES, units=held * (1 + 1e-13), cash=0.5, costs=NO_COSTS)[1].units.any()
    assert one_bar(0.5, PRICES, units=held * (1 + 1e-11), cash=0.5, costs=NO_COSTS)[1].units[0] < 0
    assert (dust(jnp.float32), dust(jnp.float64)) == (1e-6, 1e-12)
