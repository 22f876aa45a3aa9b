"""`rebalance_band`: no trade smaller than this share of equity, except to go flat (money rule 3)."""

from __future__ import annotations

import jax.numpy as jnp
from ledger.worked_bars import FREE, PRICES, near, one_bar

from jaxtrader.ledger.account import dust


def test_inside_the_band_nothing_trades_but_a_target_of_zero_ignores_it():
    held = {"units": 0.5 / 110, "cash": 0.5, "costs": FREE, "rebalance_band": 0.05}
    assert not one_bar(0.54, PRICES, **held)[1].units.any()
    assert one_bar(0.56, PRICES, **held)[1].units[0] == near(0.06 / 110)
    little = {**held, "units": 0.02 / 110, "cash": 0.98}
    assert not one_bar(0.03, PRICES, **little)[1].units.any()
    account, fill, _ = one_bar(0.0, PRICES, **little)
    assert fill.units[0] == -0.02 / 110
    assert account.units[0] == 0.0


def test_dust_is_no_trade():
    # At 110 and E = 1, 0.5 / 110 units are the target; 1e-13 of it is rounding, 1e-11 is an order.
    held = 0.5 / 110
    assert not one_bar(0.5, PRICES, units=held * (1 + 1e-13), cash=0.5, costs=FREE)[1].units.any()
    assert one_bar(0.5, PRICES, units=held * (1 + 1e-11), cash=0.5, costs=FREE)[1].units[0] < 0
    assert (dust(jnp.float32), dust(jnp.float64)) == (1e-6, 1e-12)
