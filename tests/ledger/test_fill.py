"""`fill`: where a decision at close[t] fills, and what it does to cash, units and entry (money rules 2 and 4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from ledger.paths import path
from ledger.worked_bars import PRICES, near, one_bar

from jaxtrader.ledger import ledger


def test_next_open_fills_at_the_open():
    # 0.5 of 1.0 bought at 110: cash 1 - 0.5 * 1.0302 = 0.4849. At 121 the 0.5 is worth 0.55.
    account, fill, closing = one_bar(0.5, PRICES)
    assert account.cash == near(0.4849)
    assert account.units[0] == near(0.5 / 110)
    assert account.equity == near(1.0349)
    assert account.entry[0] == 110
    assert account.bars_since_fill[0] == 0
    assert account.target[0] == 0.5
    assert (fill.price[0], fill.equity) == (110, 1.0)
    assert fill.slippage[0] == near(0.01)  # 2% of 0.5
    assert fill.fee[0] == near(0.0051)  # 1% of 0.51
    assert not closing.units.any()


def test_next_close_fills_at_the_close():
    # Bought at 121 and marked there: only the costs are gone, 0.5 * 0.0302.
    account, fill, _ = one_bar(0.5, PRICES, fill="next_close")
    assert fill.price[0] == 121
    assert account.equity == near(1 - 0.0151)


def test_close_fills_at_the_close_of_the_decision():
    # Bought at 100: 0.4849 in cash, and 0.5 * 1.21 = 0.605.
    account, fill, _ = one_bar(0.5, PRICES, fill="close")
    assert fill.price[0] == 100
    assert account.equity == near(1.0899)


def test_a_target_of_zero_leaves_exactly_no_units():
    # 0.005 units sold at 110: 0.5 + 0.55 * 0.9702 = 1.03361, whatever the close does.
    account, fill, _ = one_bar(0.0, PRICES, units=0.005, cash=0.5)
    assert account.units[0] == 0.0
    assert account.entry[0] == 0.0
    assert account.cash == near(1.03361)
    assert account.equity == near(1.03361)
    assert fill.units[0] == -0.005


def test_a_short_sale_brings_cash_and_owes_units():
    # 0.5 sold at 110 brings 0.4851. At 121 the debt is 0.55: 1.4851 - 0.55.
    account, _, _ = one_bar(-0.5, PRICES)
    assert account.cash == near(1.4851)
    assert account.equity == near(0.9351)
    assert account.entry[0] == 110


def test_a_flip_from_long_to_short_is_one_sale():
    # E = 0.5 + 0.55 = 1.05. From +0.55 to -0.525 sells 1.075, brings 1.075 * 0.9702 = 1.042965. The debt is 0.5775.
    account, fill, _ = one_bar(-0.5, PRICES, units=0.005, cash=0.5)
    assert account.cash == near(1.542965)
    assert account.units[0] == near(-0.525 / 110)
    assert account.equity == near(0.965465)
    assert account.entry[0] == 110
    assert fill.equity == near(1.05)


def test_entry_is_the_average_of_adds_and_survives_a_partial_exit():
    # 0.005 at 100. At 200 E = 1.5, 80% is 0.006 units: 0.001 more, average (0.5 + 0.2) / 0.006. At 100 E = 0.3 + 0.6 =
    # 0.9, 50% is 0.0045 units: 0.0015 less. Then flat.
    closes = np.array([100.0, 100, 200, 100, 100])[:, None]
    account, _, _ = path(closes, closes[1:], np.array([0.5, 0.8, 0.5, 0.0])[:, None])
    # 1e-14: the rounding of a few operations.
    np.testing.assert_allclose(account.units[:, 0], [0.005, 0.006, 0.0045, 0], rtol=1e-14)
    np.testing.assert_allclose(account.entry[:, 0], [100, 0.7 / 0.006, 0.7 / 0.006, 0], rtol=1e-14)


def test_open_account_holds_the_exposure_at_no_cost():
    with jax.enable_x64(True):
        prices = jnp.array([10.0, 20.0])
        account = ledger.open_account(jnp.array([0.25, -0.5]), prices)
        assert account.cash == near(1.25)
        # 1e-14: the rounding of a few operations.
        np.testing.assert_allclose(account.units, [0.025, -0.025], rtol=1e-14)
        assert ledger.value(account, prices) == near(1.0)
        np.testing.assert_allclose(ledger.exposure(account, prices), [0.25, -0.5], rtol=1e-14)
