"""`rebalance_band`: no trade smaller than this share of equity, except to go flat (money rule 3)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from ledger.worked_bars import FREE, PRICES, near, one_bar

from jaxtrader.ledger.account import dust
from jaxtrader.ledger.rules import Rules


def test_inside_the_band_nothing_trades_but_a_target_of_zero_ignores_it():
    held = {"units": 0.5 / 110, "cash": 0.5, "costs": FREE, "rebalance_band": 0.05}
    assert not one_bar(0.54, PRICES, **held)[1].units.any()
    assert one_bar(0.56, PRICES, **held)[1].units[0] == near(0.06 / 110)
    little = {**held, "units": 0.02 / 110, "cash": 0.98}
    assert not one_bar(0.03, PRICES, **little)[1].units.any()
    account, fill, _ = one_bar(0.0, PRICES, **little)
    assert fill.units[0] == -0.02 / 110
    assert account.units[0] == 0.0


def test_the_default_band_is_five_percent_or_half_an_equal_weight():
    bands = {assets: Rules().band(assets) for assets in (1, 2, 10, 20, 80, 500)}
    assert bands == {1: 0.05, 2: 0.05, 10: 0.05, 20: 0.025, 80: 0.00625, 500: 0.001}
    assert Rules(rebalance_band=0.0).band(80) == 0
    assert Rules(rebalance_band=0.3).band(80) == 0.3


def test_equal_weights_of_many_assets_are_bought_by_default():
    # An equal weight is 1/80 = 0.0125. A target of 0.006 is below the band of 0.00625, and one of 0.0065 is above it.
    targets = np.r_[np.full(78, 1 / 80), 0.006, 0.0065]
    units = one_bar(targets, PRICES, units=[0.0] * 80, costs=FREE, rebalance_band=None)[1].units
    np.testing.assert_allclose(units[:78], 1 / 80 / 110, rtol=1e-12)
    assert units[78] == 0
    assert units[79] == near(0.0065 / 110)


def test_dust_is_no_trade():
    # At 110 and E = 1, 0.5 / 110 units are the target, and 1e-13 of it is rounding, 1e-11 is an order.
    held = 0.5 / 110
    assert not one_bar(0.5, PRICES, units=held * (1 + 1e-13), cash=0.5, costs=FREE)[1].units.any()
    assert one_bar(0.5, PRICES, units=held * (1 + 1e-11), cash=0.5, costs=FREE)[1].units[0] < 0
    assert (dust(jnp.float32), dust(jnp.float64)) == (1e-6, 1e-12)
