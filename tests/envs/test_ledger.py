"""The ledger, bar by bar: numbers that were worked out by hand from the money rules stand in the comments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_paths import FREE, NAN, PRICEY, path

from jaxtrader.envs import ledger
from jaxtrader.envs.account import dust
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.ledger import Account, Bar, Rules

# Fee 1% and slippage 2% where there are costs: a buy pays 1.02 * 1.01 = 1.0302, a sale brings 0.98 * 0.99 = 0.9702.


def account_of(units, cash, entry=100.0, target=0.0):
    """One account with one asset (a number) or several (a list)."""
    units = jnp.atleast_1d(jnp.asarray(units, "float64"))
    return Account(
        cash=jnp.asarray(cash, "float64"),
        units=units,
        entry=jnp.where(units == 0, 0, entry),
        target=jnp.broadcast_to(jnp.asarray(target, "float64"), units.shape),
        held=jnp.full(units.shape, 3, jnp.int32),
        equity=jnp.asarray(1.0, "float64"),
        ruined=jnp.asarray(False),
    )


_step = jax.jit(ledger.step, static_argnames="rules")


def bar(target, prices, units=0.0, cash=1.0, costs=PRICEY, entry=100.0, last=0.0, **rules):
    """One step over prices (close[t], open[t+1], close[t+1]), each a number or one number per asset."""
    with jax.enable_x64(True):
        account = account_of(units, cash, entry, last)
        shape = account.units.shape
        at = [jnp.broadcast_to(jnp.asarray(price, "float64"), shape) for price in prices]
        order = jnp.broadcast_to(jnp.asarray(target, "float64"), shape)
        out = _step(account, order, Bar(*at), costs.cast("float64"), Rules(**{"rebalance_band": 0.0, **rules}))
        account, events = jax.tree.map(np.asarray, out)
        return account, events.order, events.closing


PRICES = (100.0, 110.0, 121.0)


def near(value):
    return pytest.approx(value, rel=1e-14, abs=1e-15)


def test_next_open_fills_at_the_open():
    # 0.5 of 1.0 bought at 110: cash 1 - 0.5 * 1.0302 = 0.4849; at 121 the 0.5 is worth 0.55.
    account, fill, closing = bar(0.5, PRICES)
    assert account.cash == near(0.4849)
    assert account.units[0] == near(0.5 / 110)
    assert account.equity == near(1.0349)
    assert account.entry[0] == 110
    assert account.held[0] == 0
    assert account.target[0] == 0.5
    assert (fill.price[0], fill.equity) == (110, 1.0)
    assert fill.slippage[0] == near(0.01)  # 2% of 0.5
    assert fill.fee[0] == near(0.0051)  # 1% of 0.51
    assert not closing.units.any()


def test_next_close_fills_at_the_close():
    # Bought at 121 and marked there: only the costs are gone, 0.5 * 0.0302.
    account, fill, _ = bar(0.5, PRICES, fill="next_close")
    assert fill.price[0] == 121
    assert account.equity == near(1 - 0.0151)


def test_close_fills_at_the_close_of_the_decision():
    # Bought at 100: 0.4849 in cash, and 0.5 * 1.21 = 0.605.
    account, fill, _ = bar(0.5, PRICES, fill="close")
    assert fill.price[0] == 100
    assert account.equity == near(1.0899)


def test_a_buy_is_cut_to_the_cash_and_leaves_exactly_none():
    # 1.0302 u = 1 of cash: u = 0.970685..., and that grows by 10% to the close.
    account, fill, _ = bar(1.0, PRICES)
    assert account.cash == 0.0
    assert account.units[0] == near(1 / 1.0302 / 110)
    assert account.equity == near(1.1 / 1.0302)
    assert not fill.clipped  # the cut is no larger than the costs of the trade
    # Fully invested, the same target again is no trade.
    account, fill, _ = bar(1.0, (121, 130, 140), units=account.units, cash=account.cash)
    assert fill.units[0] == 0.0
    assert account.held[0] == 4


def test_a_target_beyond_the_limit_is_capped_and_counted():
    account, fill, _ = bar(1.5, PRICES, costs=FREE)
    assert fill.clipped
    assert account.units[0] == near(1 / 110)


def test_cash_a_hair_below_zero_drops_nothing():
    # Fully invested and 1e-17 short of cash by rounding: the target is met, so there is no buy that could be dropped.
    account, fill, _ = bar(1.0, PRICES, units=0.01, cash=-1e-17, costs=FREE)
    assert not fill.units.any()
    assert not fill.dropped
    assert account.cash == -1e-17


def test_a_target_of_zero_leaves_exactly_no_units():
    # 0.005 units sold at 110: 0.5 + 0.55 * 0.9702 = 1.03361, whatever the close does.
    account, fill, _ = bar(0.0, PRICES, units=0.005, cash=0.5)
    assert account.units[0] == 0.0
    assert account.entry[0] == 0.0
    assert account.cash == near(1.03361)
    assert account.equity == near(1.03361)
    assert fill.units[0] == -0.005


def test_a_short_sale_brings_cash_and_owes_units():
    # 0.5 sold at 110 brings 0.4851; at 121 the debt is 0.55: 1.4851 - 0.55.
    account, _, _ = bar(-0.5, PRICES)
    assert account.cash == near(1.4851)
    assert account.equity == near(0.9351)
    assert account.entry[0] == 110


def test_a_flip_from_long_to_short_is_one_sale():
    # E = 0.5 + 0.55 = 1.05; from +0.55 to -0.525 sells 1.075, brings 1.075 * 0.9702 = 1.042965; the debt is 0.5775.
    account, fill, _ = bar(-0.5, PRICES, units=0.005, cash=0.5)
    assert account.cash == near(1.542965)
    assert account.units[0] == near(-0.525 / 110)
    assert account.equity == near(0.965465)
    assert account.entry[0] == 110
    assert fill.equity == near(1.05)


def test_entry_is_the_average_of_adds_and_survives_a_partial_exit():
    # 0.005 at 100; at 200 E = 1.5, 80% is 0.006 units: 0.001 more, average (0.5 + 0.2) / 0.006;
    # at 100 E = 0.3 + 0.6 = 0.9, 50% is 0.0045 units: 0.0015 less; then flat.
    closes = np.array([100.0, 100, 200, 100, 100])[:, None]
    account, _, _ = path(closes, closes[1:], np.array([0.5, 0.8, 0.5, 0.0])[:, None])
    np.testing.assert_allclose(account.units[:, 0], [0.005, 0.006, 0.0045, 0], rtol=1e-14)
    np.testing.assert_allclose(account.entry[:, 0], [100, 0.7 / 0.006, 0.7 / 0.006, 0], rtol=1e-14)


def test_ruin_at_an_open_gap_closes_everything_and_cancels_the_order():
    # Short 0.01 with 2.0 in cash; at 200 nothing is left. Buying back costs 2 * 1.0302 = 2.0604.
    account, fill, closing = bar(1.0, (100, 200, 100), units=-0.01, cash=2.0)
    assert account.ruined
    assert fill.units[0] == 0.01
    assert account.units[0] == 0.0
    assert account.equity == near(-0.0604)
    assert not closing.units.any()


def test_ruin_at_the_close_then_frozen():
    # 2 - 0.01 * 199.5 = 0.005 <= 0.01: bought back at 199.5, 1.995 * 1.0302 = 2.055249.
    closes = np.array([100.0, 100, 199.5, 50, 60])[:, None]
    opens = np.array([100.0, 150, 50, 60])[:, None]
    free_entry = path(closes[:3], opens[:2], np.array([-1.0, NAN])[:, None])[0]
    assert free_entry.units[0, 0] == -0.01
    assert free_entry.equity[1] == near(0.005)
    account, fill, closing = bar(NAN, (100, 150, 199.5), units=-0.01, cash=2.0)
    assert account.ruined
    assert not fill.units.any()
    assert closing.units[0] == 0.01
    assert closing.price[0] == 199.5
    assert account.equity == near(-0.055249)
    after, later, _ = path(closes, opens, np.array([-1.0, NAN, 1.0, -1.0])[:, None])
    np.testing.assert_array_equal(after.ruined, [False, True, True, True])
    np.testing.assert_allclose(after.equity, [1, 0.005, 0.005, 0.005], rtol=1e-12)
    assert not later.units[2:].any()


def test_dust_is_no_trade():
    # At 110 and E = 1, 0.5 / 110 units are the target; 1e-13 of it is rounding, 1e-11 is an order.
    held = 0.5 / 110
    assert not bar(0.5, PRICES, units=held * (1 + 1e-13), cash=0.5, costs=FREE)[1].units.any()
    assert bar(0.5, PRICES, units=held * (1 + 1e-11), cash=0.5, costs=FREE)[1].units[0] < 0
    assert (dust(jnp.float32), dust(jnp.float64)) == (1e-6, 1e-12)


def test_inside_the_band_nothing_trades_but_a_target_of_zero_ignores_it():
    held = {"units": 0.5 / 110, "cash": 0.5, "costs": FREE, "rebalance_band": 0.05}
    assert not bar(0.54, PRICES, **held)[1].units.any()
    assert bar(0.56, PRICES, **held)[1].units[0] == near(0.06 / 110)
    little = {**held, "units": 0.02 / 110, "cash": 0.98}
    assert not bar(0.03, PRICES, **little)[1].units.any()
    account, fill, _ = bar(0.0, PRICES, **little)
    assert fill.units[0] == -0.02 / 110
    assert account.units[0] == 0.0


def test_on_change_trades_only_when_the_target_changes():
    # 0.5 / 100 at 100; at 200 the unchanged 0.5 holds 0.005 units; 0.6 of 1.5 is 0.9 / 200; NaN does not forget 0.6.
    closes = np.array([100.0, 100, 200, 200, 300, 300])[:, None]
    targets = np.array([0.5, 0.5, 0.6, NAN, 0.6])[:, None]
    account, _, _ = path(closes, closes[1:], targets, rebalance="on_change")
    np.testing.assert_allclose(account.units[:, 0], [0.005, 0.005, 0.0045, 0.0045, 0.0045], rtol=1e-14)


def test_nan_holds_the_units_and_uses_up_the_leverage_first():
    # Two assets at 100: 0.006 held by NaN is 60% of 1.0; 0.9 for the other is capped at 0.4 and counted.
    account, fill, _ = bar([NAN, 0.9], (100, 100, 100), units=[0.006, 0.0], cash=0.4, costs=FREE)
    np.testing.assert_allclose(account.units, [0.006, 0.004], rtol=1e-14)
    assert fill.clipped


def test_all_buys_are_cut_by_one_factor():
    # 20% + 40% + 40% at a fee of 10% would cost 1.1: each is cut by 1 / 1.1.
    account, fill, _ = bar([0.2, 0.4, 0.4], (100, 100, 100), units=[0.0] * 3, costs=Costs(fee=0.1, slippage=0.0))
    np.testing.assert_allclose(account.units, np.array([0.002, 0.004, 0.004]) / 1.1, rtol=1e-14)
    assert account.cash == 0.0
    assert not fill.dropped


def test_sales_pay_for_buys_at_the_same_bar():
    # 1.0 in the first is sold free of cost and 0.7 bought in the second: no cut, 0.3 in cash.
    account, fill, _ = bar([0.0, 0.7], (100, 100, 100), units=[0.01, 0.0], cash=0.0, costs=FREE)
    np.testing.assert_allclose(account.units, [0.0, 0.007], rtol=1e-14)
    assert account.cash == near(0.3)
    assert not fill.clipped


def test_buys_without_cash_are_dropped_free_of_fee_and_counted():
    # No cash; two are 4% over their weight, inside the band, so nothing is sold; the third, 8% under, cannot be bought.
    units = [0.0034, 0.0034, 0.0032]
    account, fill, _ = bar([0.3, 0.3, 0.4], (100, 100, 100), units=units, cash=0.0, rebalance_band=0.05)
    assert fill.dropped
    assert account.cash == 0.0
    np.testing.assert_array_equal(account.units, units)
    assert not fill.fee.any()


def test_open_account_holds_the_exposure_at_no_cost():
    with jax.enable_x64(True):
        prices = jnp.array([10.0, 20.0])
        account = ledger.open_account(jnp.array([0.25, -0.5]), prices)
        assert account.cash == near(1.25)
        np.testing.assert_allclose(account.units, [0.025, -0.025], rtol=1e-14)
        assert ledger.value(account, prices) == near(1.0)
        np.testing.assert_allclose(ledger.exposure(account, prices), [0.25, -0.5], rtol=1e-14)


def test_bad_rules_are_refused():
    for wrong, words in (
        ({"fill": "open"}, "next_open"),
        ({"rebalance": "never"}, "on_change"),
        ({"rebalance_band": 1.0}, "share of equity"),
        ({"ruin_level": -0.1}, "initial capital"),
    ):
        with pytest.raises(ValueError, match=words):
            Rules(**wrong)
    with pytest.raises(ValueError, match="basis point"):
        Costs(fee=5.0).validate()


def test_a_ruined_account_is_frozen_to_the_bit():
    """Also what float32 could not book of its interest: from the first bar after ruin on, nothing is paid."""
    rates = Costs(fee=0.0, slippage=0.0, cash_rate=0.02, borrow_rate=0.02).cast("float32")
    number = lambda x: jnp.asarray([x], "float32")  # noqa: E731
    account = ledger.open_account(number(1.0), number(100.0), carries=True)
    account = account.replace(cash=jnp.float32(0.005), owed=jnp.float32(1e-4), units=number(1e-4))
    rules, minute = Rules(rebalance_band=0.0), number(1 / 365 / 1440)
    still = Bar(*[number(10.0)] * 3, years=minute)
    ruined, _ = _step(account, number(NAN), still, rates, rules)
    assert ruined.ruined
    assert ruined.units == 0
    ruined = ruined.replace(owed=jnp.float32(1e-4))  # as rounding may leave it
    after, events = _step(ruined, number(1.0), Bar(*[number(50.0)] * 3, years=minute), rates, rules)
    for name in ("cash", "units", "entry", "target", "equity", "ruined", "owed"):
        np.testing.assert_array_equal(getattr(after, name), getattr(ruined, name), name)
    assert events.carry == 0
