"""`limit_offset` and `maker_fee`: limit orders that rest for one bar, with a fee of their own (money rule 12)."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import BARS, BASE, FULL, all_costs, full_market, orders_of
from ledger.worked_bars import LONG, NAN, SHORT, TWO, bar, worked
from rule_settings import run_settings

import jaxtrader as jt

LIMIT = {"fill": "limit", "limit_offset": 0.01}

CASES = [
    {
        "name": "a buy fills at its limit, pays the maker's fee and no slippage",
        "settings": {**LIMIT, "fee": 0.01, "maker_fee": 0.001, "slippage": 0.02},
        "bars": [bar(0.5, 100.0, 101.0, low=98.0, high=102.0)],
        # 0.005 units, sized at the close of 100: 0.495 and a fee of 0.000495
        "fills": [(0, 0, 0.005, 99.0, "order")],
        "fees": 0.000495,
        "slippage": 0.0,
        "cash": 1 - 0.495 - 0.000495,
        "units": [0.005],
        "equity": 1 - 0.495495 + 0.505,
        "unmet": [],
    },
    {
        "name": "a low at the limit is enough, and one above it fills nothing and is counted",
        "settings": LIMIT,
        "bars": [bar(0.5, 100.0, low=99.01), bar(0.5, 100.0, low=99.0)],
        "fills": [(1, 0, 0.005, 99.0, "order")],
        "cash": 0.505,
        "units": [0.005],
        "equity": 1.005,
        "unmet": [0],
    },
    {
        "name": "where the bar opens beyond the limit the order takes the open, as taker, and never pays its limit",
        "settings": {**LIMIT, "fee": 0.01, "maker_fee": 0.0, "slippage": 0.02},
        "bars": [bar(0.5, 98.0)],
        # 98 x 1.02 = 99.96 is above the limit of 99: slippage is 1 x 0.005
        "fills": [(0, 0, 0.005, 98.0, "order")],
        "fees": 0.00495,
        "slippage": 0.005,
        "cash": 1 - 0.495 - 0.00495,
        "units": [0.005],
        "equity": 1 - 0.495 - 0.00495 + 0.49,
    },
    {
        "name": "a sale rests above the close, and its stop below comes first",
        "start": LONG,
        "settings": LIMIT,
        "bars": [bar(0.0, 100.0, low=94.0, high=103.0, stop_loss=0.05)],
        "fills": [(0, 0, -0.01, 95.0, "stop")],
        "cash": 0.95,
        "units": [0.0],
        "equity": 0.95,
        "unmet": [],
    },
    {
        "name": "a buy that adds above the stop fills first, and the stop of the new entry closes both",
        "start": {"cash": 0.5, "units": [0.005], "entry": [100.0]},
        "settings": LIMIT,
        "bars": [bar(1.0, 100.0, low=94.0, stop_loss=0.05)],
        # 0.005 more at 99: entry 99.5, stop 94.525
        "fills": [(0, 0, 0.005, 99.0, "order"), (0, 0, -0.01, 94.525, "stop")],
        "cash": 0.005 + 0.94525,
        "units": [0.0],
        "equity": 0.95025,
    },
    {
        "name": "a buy that adds below the stop is cancelled by it",
        "start": {"cash": 0.5, "units": [0.005], "entry": [100.0]},
        "settings": {"fill": "limit", "limit_offset": 0.1},
        "bars": [bar(1.0, 100.0, low=80.0, stop_loss=0.05)],
        "fills": [(0, 0, -0.005, 95.0, "stop")],
        "cash": 0.975,
        "units": [0.0],
        "equity": 0.975,
    },
    {
        "name": "what a short covers at its limit the margin no longer watches",
        "start": SHORT,
        "settings": {**LIMIT, "maintenance_margin": 0.25},
        "bars": [bar(0.0, 100.0, low=98.0, high=120.0)],
        "fills": [(0, 0, 0.01, 99.0, "order")],
        "cash": 1.01,
        "units": [0.0],
        "equity": 1.01,
    },
    {
        "name": "what a sale brings in the bar is no cash of a buy in it",
        "start": {"cash": 0.0, "units": [0.01, 0.0], "entry": [100.0, 0.0]},
        "settings": LIMIT,
        "bars": [
            bar([0.0, 1.0], TWO, prev_close=TWO, low=[98.0, 98.0], high=[102.0, 102.0]),
            bar([0.0, 1.0], TWO, prev_close=TWO, low=[98.0, 98.0], high=[102.0, 102.0]),
        ],
        # 101 for A. A bar later that is 1.01 of equity: B is sized at 100 and costs 99.
        "fills": [(0, 0, -0.01, 101.0, "order"), (1, 1, 0.0101, 99.0, "order")],
        "cash": 1.01 - 0.0101 * 99,
        "units": [0.0, 0.0101],
        "equity": 1.01 + 0.0101,
        "dropped": [0],
    },
    {
        "name": "a limit is on the tick that prices reach last",
        "settings": {**LIMIT, "tick": 0.4},
        "bars": [bar(0.5, 100.0, low=98.7)],
        # 99 is 247.5 ticks: 98.8, which the first low of 98.7 meets
        "fills": [(0, 0, 0.005, 98.8, "order")],
        "cash": 1 - 0.494,
        "units": [0.005],
        "equity": 1.006,
    },
    {
        "name": "a bar that is missing fills nothing",
        "settings": LIMIT,
        "bars": [bar(0.5, 100.0, present=[False])],
        "fills": [],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
        "unmet": [0],
    },
    {
        "name": "without a price there is a target to hold",
        "settings": LIMIT,
        "bars": [bar(NAN, 100.0, low=90.0)],
        "fills": [],
        "cash": 1.0,
        "units": [0.0],
        "equity": 1.0,
        "unmet": [],
    },
]


test_limits_as_worked_by_hand = worked(CASES)


RULES = {**FULL, "fill": "limit", "limit_offset": 0.01}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("assets", "rules"),
    [
        (1, {**RULES, "delay": 0}),
        (3, {**RULES, "rebalance": "on_change", "flat_at_session_end": True}),
    ],
)
def test_every_fill_of_a_result_is_that_of_the_scalar_reference(assets, rules):
    costs, unmet, fees = all_costs(assets, maker_fee=0.0002), 0, 0
    for seed in range(16):
        market, (targets, brackets) = full_market(seed, assets), orders_of(seed, assets)
        brackets = {"stop_loss": brackets["stop_loss"]}
        result = jt.simulate(market, targets, costs=costs, **brackets, **run_settings(rules))
        assert_same_result(result, reference_of(market, targets, costs, brackets, **rules))
        parts = result.fills["fee"].sum() + result.fills["slippage"].sum()
        np.testing.assert_allclose(result.costs_paid.sum(), parts)
        unmet, fees = unmet + result.unmet, fees + (result.fills["slippage"] == 0).sum()
    assert unmet > 50
    assert fees > 50


def test_an_environment_trades_as_the_reference_does_and_counts_what_was_not_met():
    market = BASE
    costs = jt.Costs(fee=1e-3, slippage=5e-4, maker_fee=2e-4)
    env = jt.TradingEnv(
        market,
        window=2,
        episode_length=16,
        random_start=False,
        costs=costs,
        stop_loss=0.05,
        rules=jt.Rules(fill="limit", limit_offset=0.002, rebalance_band=0.0),
    )
    params = env.default_params
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    step, first, actions = jax.jit(env.step_env), int(state.cursor), np.arange(12) * 7 % 3
    equity, unmet = [], 0
    for action in actions:
        _, state, *_, info = step(jax.random.key(1), state, action, params)
        equity.append(float(state.account.equity))
        unmet += int(info["unmet"])
    targets = np.full(len(market.close) - first, np.nan)
    targets[: len(actions)] = np.array([-1.0, 0.0, 1.0])[actions]
    rows, stops = slice(first, None), {"stop_loss": np.full((len(targets), 1), 0.05)}
    expected = reference_of(market, targets[:, None], costs, stops, rows, fill="limit", limit_offset=0.002)
    np.testing.assert_allclose(equity, expected["equity"][1 : len(equity) + 1], rtol=1e-5)
    assert unmet == len(expected["unmet"]) > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rules": {"limit_offset": 0.01}}, "`limit_offset` needs `fill='limit'`"),
        ({"rules": {"fill": "limit", "limit_offset": 0.5}}, "limit_offset=0.5` is outside"),
        ({"costs": {"maker_fee": 0.001}}, "`maker_fee` is of limit orders, not of `fill='next_open'`"),
        ({"rules": {"fill": "limit"}, "take_profit": 0.1}, "whether a limit order or `take_profit` came first"),
    ],
)
def test_what_makes_no_sense_with_limits_is_refused(settings, words):
    market, more = BASE, {"take_profit": settings["take_profit"]} if "take_profit" in settings else {}
    with pytest.raises(ValueError, match=words):
        jt.simulate(
            market,
            1.0,
            costs=jt.Costs(**settings.get("costs", {})),
            **more,
            rules=jt.Rules(**settings.get("rules", {})),
        )
    with pytest.raises(ValueError, match=words):
        jt.TradingEnv(
            market, costs=jt.Costs(**settings.get("costs", {})), **more, rules=jt.Rules(**settings.get("rules", {}))
        )


def test_bars_that_come_later_do_not_change_what_was_placed():
    """Sized at the close: the prices of the next bar decide whether an order fills, and not how large it is."""
    market, targets = full_market(3, 1), orders_of(3, 1)[0]
    rules = jt.Rules(fill="limit", limit_offset=0.001, rebalance_band=0.0)
    result = jt.simulate(market, targets, rules=rules)
    equity = result.equity
    for fill in result.fills[result.fills["reason"] == "order"]:
        t = fill["bar"]
        held, target = result.units[t - 1, 0], np.clip(targets[t - 1, 0], -1, 1)
        if fill["units"] < 0:  # a buy may be cut to the cash that is there
            np.testing.assert_allclose(fill["units"], target * equity[t - 1] / market.close[t - 1, 0] - held, rtol=1e-9)
    assert (result.fills["units"] < 0).sum() > 3
    assert len(equity) == BARS
