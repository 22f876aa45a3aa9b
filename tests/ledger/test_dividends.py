"""`dividends`: cash at the open of the ex-date, for who held at the close before (money rule 6a)."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import BASE, BY_FILL, all_costs, full_market, orders_of
from ledger.worked_bars import LONG, NAN, SHORT, TWO, bar, worked
from rule_settings import run_settings

import jaxtrader as jt

CASES = [
    {
        "name": "a long gets the dividend though it sells at that open",
        "start": LONG,
        "settings": {"dividends": "Dividends"},
        "bars": [bar(0.0, 97.0, dividend=3.0)],
        "fills": [(0, 0, -0.01, 97.0, "order")],
        "financing": [0.03],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
    },
    {
        "name": "a short pays it before its margin is judged",
        "start": SHORT,
        "settings": {"dividends": "Dividends", "maintenance_margin": 0.25},
        "bars": [bar(NAN, 158.0, dividend=3.0)],
        # 2 - 0.03 - 1.58 is 0.39, below a quarter of 1.58. Without the dividend 0.42 is above it.
        "fills": [(0, 0, 0.01, 158.0, "liquidation")],
        "financing": [-0.03],
        "cash": 0.39,
        "units": [0.0],
        "equity": 0.39,
    },
    {
        "name": "who buys at that open gets none, and an asset gets its own",
        "start": {"cash": 0.5, "units": [0.005, 0.0], "entry": [100.0, 0.0]},
        "settings": {"dividends": "Dividends"},
        "bars": [bar([NAN, 0.2], TWO, prev_close=TWO, dividend=[2.0, 5.0])],
        # 0.01 for A makes equity 1.01
        "fills": [(0, 1, 0.00202, 100.0, "order")],
        "financing": [0.01],
        "cash": 0.51 - 0.202,
        "units": [0.005, 0.00202],
        "equity": 1.01,
    },
    {
        "name": "the level of a stop stays where it is",
        "start": LONG,
        "settings": {"dividends": "Dividends"},
        "bars": [bar(NAN, 94.0, dividend=6.0, stop_loss=0.05)],
        "fills": [(0, 0, -0.01, 94.0, "stop")],
        "financing": [0.06],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
    },
]


test_dividends_as_worked_by_hand = worked(CASES)


def paying(seed, assets):
    """A market of `full_market` whose raw prices fall by a dividend at every tenth bar."""
    market, rng = full_market(seed, assets), np.random.default_rng(seed)
    paid = np.where(rng.random(market.close.shape) < 0.1, rng.uniform(0.1, 2, market.close.shape), 0)
    return dataclasses.replace(market, columns={"paid": paid}, price_factor=None)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("name", "plain"), [("next_close", False), ("next_open", True), ("close", True)])
def test_every_fill_of_a_result_is_that_of_the_scalar_reference(name, plain):
    """Also where all bars are stepped at once from the holdings at each close: without brackets and margin.

    The other kinds are in test_against_reference.py.
    """
    assets, rules = BY_FILL[name]
    rules = {**rules, "dividends": "paid"} | ({"maintenance_margin": 0.0} if plain else {})
    for seed in range(12):
        market, (targets, brackets) = paying(seed, assets), orders_of(seed, assets)
        brackets = {} if plain else brackets
        market = dataclasses.replace(market, funding=None, bar_dt=None) if plain else market
        result = jt.simulate(market, targets, costs=all_costs(assets), **brackets, **run_settings(rules))
        assert_same_result(result, reference_of(market, targets, all_costs(assets), brackets, **rules))


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["next_open", "close"])
def test_the_position_financing_of_the_assets_and_trades_holds_every_dividend(name):
    """All that was earned is what trades made and carried: there is no interest on idle cash here."""
    assets, rules = BY_FILL[name]
    rules, paid = {**rules, "dividends": "paid", "maintenance_margin": 0.0}, 0
    costs = all_costs(assets, cash_rate=0.0, borrow_rate=0.0, short_rate=0.0)
    for seed in range(12):
        market, (targets, _) = paying(seed, assets), orders_of(seed, assets)
        market = dataclasses.replace(market, funding=None, bar_dt=None)
        result = jt.simulate(market, targets / 4, costs=costs, **run_settings(rules))
        np.testing.assert_allclose(result.position_financing.sum(1), result.financing, atol=1e-15)
        paid += (result.financing != 0).sum()
        earned = result.trades["pnl"].sum() + result.trades["financing"].sum()
        np.testing.assert_allclose(earned, result.equity[-1] - 1, rtol=1e-9)
    assert paid > 10


def test_raw_prices_with_dividends_grow_as_adjusted_ones_do():
    """Buy and hold at one open, with dividends put back by the order of each ex-date, against the adjusted close."""
    rng, bars = np.random.default_rng(0), len(BASE.times)
    paid = np.where(np.arange(bars) % 9 == 5, 1.5, 0.0)[:, None]
    growth = np.exp(rng.normal(0, 0.01, (bars, 1)))
    close, open_ = np.empty((bars, 1)), np.empty((bars, 1))
    last = 100.0
    for t in range(bars):
        open_[t] = last - paid[t]
        close[t] = last = (open_[t] * growth[t]).item()
    raw = dataclasses.replace(
        BASE,
        open=open_,
        close=close,
        high=np.maximum(open_, close),
        low=np.minimum(open_, close),
        columns={"paid": paid},
    )
    factor = np.ones((bars, 1))
    for t in range(bars - 2, -1, -1):
        factor[t] = factor[t + 1] * (1 - paid[t + 1] / close[t])
    prices = {name: getattr(raw, name) * factor for name in ("open", "high", "low", "close")}
    free = jt.Costs(fee=0.0, slippage=0.0)
    cash = jt.simulate(raw, 1.0, costs=free, rules=jt.Rules(rebalance_band=0.0, dividends="paid"))
    adjusted = jt.simulate(dataclasses.replace(raw, **prices), 1.0, costs=free)
    np.testing.assert_allclose(cash.equity, adjusted.equity, rtol=1e-12)


def test_an_environment_is_paid_as_the_reference_is():
    market = dataclasses.replace(BASE, columns={"paid": np.where(np.arange(len(BASE.times)) % 3 == 0, 1.0, 0)[:, None]})
    rules = jt.Rules(rebalance_band=0.0, dividends="paid")
    env = jt.TradingEnv(market, window=2, episode_length=16, random_start=False, rules=rules)
    params = env.default_params
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    step, first, equity, financing = jax.jit(env.step_env), int(state.cursor), [], []
    for _ in range(12):
        _, state, *_, info = step(jax.random.key(1), state, np.int32(2), params)
        equity.append(float(state.account.equity))
        financing.append(float(info["financing"]))
    targets = np.where(np.arange(len(market.close) - first) < 12, 1.0, np.nan)[:, None]
    expected = reference_of(market, targets, jt.Costs(), rows=slice(first, None), dividends="paid")
    np.testing.assert_allclose(equity, expected["equity"][1:13], rtol=1e-5)
    np.testing.assert_allclose(financing, expected["financing"][1:13], rtol=1e-5, atol=1e-8)
    assert max(financing) > 0.005


BROKEN = {
    "dividends='paid'` must be a further column of the bars, which are none": {"columns": {}},
    "these prices are adjusted; load them with `adjust=False`": {"price_factor": np.full(BASE.close.shape, 0.9)},
    "dividends='paid'`: the column is -1": {"columns": {"paid": np.full(BASE.close.shape, -1.0)}},
    "dividends='paid'`: the column is nan": {"columns": {"paid": np.full(BASE.close.shape, np.nan)}},
}


@pytest.mark.parametrize("words", BROKEN)
def test_dividends_that_cannot_be_paid_are_refused(words):
    market = dataclasses.replace(BASE, **{"columns": {"paid": np.zeros(BASE.close.shape)}, **BROKEN[words]})
    with pytest.raises(ValueError, match=words):
        jt.simulate(market, 1.0, rules=jt.Rules(dividends="paid"))


def test_a_column_must_have_a_name():
    with pytest.raises(ValueError, match="dividends=True` must name a column"):
        jt.Rules(dividends=True)
