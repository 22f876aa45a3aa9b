"""`cash_rate`, `borrow_rate`, `short_rate` and `funding`: what holding earns and pays (money rule 6)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger.markets import BARS, BASE, RATES, full_market
from ledger.paths import few, seeds
from ledger.worked_bars import DAY, DEBT, LONG, NAN, SHORT, TWO, bar, worked
from rule_settings import env_settings, run_settings

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.market.bars import load_bars
from jaxtrader.market.market import Market

CASES = [
    {
        "name": "a weekend earns the cash_rate of three nights, and interest accumulates",
        "settings": {"cash_rate": 0.0365},
        "bars": [bar(NAN, dt=3 * DAY), bar(NAN, dt=DAY)],
        # 0.0365 x 3 / 365 = 0.0003, then 0.0001 on 1.0003
        "fills": [],
        "financing": [0.0003, 0.00010003],
        "cash": 1.00040003,
        "units": [0.0],
        "equity": 1.00040003,
    },
    {
        "name": "debt pays the borrow_rate, and the position is sized after that",
        "start": DEBT,
        "settings": {"cash_rate": 0.365, "borrow_rate": 0.0365, "max_leverage": 2.0},
        "bars": [bar(1.0, 100.0, dt=DAY)],
        # 0.0001 x 1 on the debt, nothing on the cash there is not. E = 0.9999: d = 0.009999 - 0.02
        "fills": [(0, 0, -0.010001, 100.0, "order")],
        "financing": [-0.0001],
        "cash": 0.0,
        "units": [0.009999],
        "equity": 0.9999,
    },
    {
        "name": "a short earns the cash_rate on cash beyond its value and pays the short_rate, by the close before",
        "start": SHORT,
        "settings": {"cash_rate": 0.0365, "short_rate": 0.073},
        "bars": [bar(NAN, 160.0, 140.0, prev_close=150.0, dt=DAY)],
        # Short value 1.5: 0.0001 x (2 - 1.5) - 0.0002 x 1.5 = 0.00005 - 0.0003
        "fills": [],
        "financing": [-0.00025],
        "cash": 1.99975,
        "units": [-0.01],
        "equity": 0.59975,
    },
    {
        "name": "no cash_rate where the short is worth more than the cash",
        "start": {"cash": 1.0, "units": [-0.01, 0.01], "entry": TWO},
        "settings": {"cash_rate": 0.0365},
        "bars": [bar([NAN, NAN], TWO, prev_close=[120.0, 100.0], dt=DAY)],
        "fills": [],
        "financing": [0.0],
        "cash": 1.0,
        "units": [-0.01, 0.01],
        "equity": 1.0,
    },
    {
        "name": "funding above 0: longs pay, shorts receive, on the value at the close where it is due",
        "start": {"cash": 1.0, "units": [0.01, -0.005], "entry": TWO},
        "bars": [bar([NAN, NAN], TWO, [110.0, 80.0], prev_close=[90.0, 90.0], funding=[0.001, 0.002])],
        # -0.001 x 1.1 + 0.002 x 0.4
        "fills": [],
        "financing": [-0.0003],
        "cash": 0.9997,
        "units": [0.01, -0.005],
        "equity": 1.6997,
    },
    {
        "name": "funding is paid by who holds at its time: a flip at the open before it gets what longs pay",
        "start": LONG,
        "bars": [bar(-1.0, 100.0, funding=0.01)],
        # 0.02 units sold at 100, the short of 1.0 receives 0.01
        "fills": [(0, 0, -0.02, 100.0, "order")],
        "financing": [0.01],
        "cash": 2.01,
        "units": [-0.01],
        "equity": 1.01,
    },
    {
        "name": "funding comes before an order at its own close, and before what the session's end closes",
        "start": LONG,
        "settings": {"fill": "next_close", "flat_at_session_end": True},
        "bars": [
            bar(-1.0, 100.0, funding=0.01),  # the long pays 0.01, E = 0.99: sold 0.0199 at 100
            bar(NAN, 100.0, 110.0, funding=0.01, session_end=True),  # the short of 1.089 gets 0.01089
        ],
        "fills": [(0, 0, -0.0199, 100.0, "order"), (1, 0, 0.0099, 110.0, "session end")],
        "financing": [-0.01, 0.01089],
        "cash": 0.90189,  # 1.98 + 0.01089 - 1.089
        "units": [0.0],
        "equity": 0.90189,
    },
    {
        "name": "what a stop has closed inside the bar pays no funding at its close",
        "start": LONG,
        "bars": [bar(NAN, 100.0, 90.0, low=80.0, stop_loss=0.1, funding=0.01)],
        "fills": [(0, 0, -0.01, 90.0, "stop")],
        "financing": [0.0],
        "cash": 0.9,
        "units": [0.0],
        "equity": 0.9,
    },
    {
        "name": "bars of less than a day: the night is paid by who held over it, the bar by who holds in it",
        "start": SHORT,
        "settings": {"cash_rate": 0.0365, "short_rate": 0.073},
        "bars": [bar(0.0, 80.0, 90.0, prev_close=100.0, dt=5 * DAY, bar_dt=DAY)],
        # Four days of 0.0001 x (2 - 1) - 0.0002 x 1 = -0.0004. Bought back for 0.8: cash 1.1996 earns 0.00011996.
        "fills": [(0, 0, 0.01, 80.0, "order")],
        "financing": [-0.00028004],
        "cash": 1.19971996,
        "units": [0.0],
        "equity": 1.19971996,
    },
    {
        "name": "a debt made at the open of an hourly bar pays for that bar, at the prices of the open",
        "settings": {"max_leverage": 3.0, "maintenance_margin": 0.0, "borrow_rate": 0.0365, "short_rate": 0.073},
        "bars": [bar([1.5, -0.5], TWO, [90.0, 90.0], dt=DAY, bar_dt=DAY)],
        # Cash 0 after both fills. 0.0001 x (0.5 - 0) on the debt, 0.0002 x 0.5 on the short.
        "fills": [(0, 0, 0.015, 100.0, "order"), (0, 1, -0.005, 100.0, "order")],
        "financing": [-0.00015],
        "cash": -0.00015,
        "units": [0.015, -0.005],
        "equity": 0.89985,
    },
    {
        "name": "longs bought from the proceeds of shorts are on credit: the proceeds are collateral",
        "start": {"cash": 0.5, "units": [0.02, -0.015], "entry": TWO},
        "settings": {"max_leverage": 4.0, "borrow_rate": 0.0365, "cash_rate": 0.0365},
        "bars": [bar([NAN, NAN], TWO, dt=DAY)],
        # 0.0001 x (1.5 - 0.5): the long of 2.0 is half on credit
        "fills": [],
        "financing": [-0.0001],
        "cash": 0.4999,
        "units": [0.02, -0.015],
        "equity": 0.9999,
    },
    {
        "name": "fill at the close: the order comes first, and financing is on the new position",
        "settings": {"fill": "close", "short_rate": 0.0365},
        "bars": [bar(-1.0, 95.0, 90.0, dt=DAY)],
        # Sold at 100: cash 2, then 0.0001 x 1. At 90: 1.9999 - 0.9
        "fills": [(0, 0, -0.01, 100.0, "order")],
        "financing": [-0.0001],
        "cash": 1.9999,
        "units": [-0.01],
        "equity": 1.0999,
    },
    {
        "name": "fill at the open: financing is on what was held before",
        "settings": {"cash_rate": 0.0365, "short_rate": 0.0365},
        "bars": [bar(-1.0, 100.0, 90.0, dt=DAY)],
        # 0.0001 on cash, E = 1.0001: -0.010001 units, cash 2.0002. Then 2.0002 - 0.90009
        "fills": [(0, 0, -0.010001, 100.0, "order")],
        "financing": [0.0001],
        "cash": 2.0002,
        "units": [-0.010001],
        "equity": 1.10011,
    },
]


test_financing_as_worked_by_hand = worked(CASES)


@pytest.mark.parametrize("target", [[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, -1.5, -1.5, 0, 2, 2]])
def test_where_the_open_is_the_close_before_both_fills_are_the_same_money(target):
    """Bars of 8 hours around the clock: an order at close[t] and one at open[t+1] are the same trade."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, 8)))
    table = pd.DataFrame(
        {"close": close, "open": np.append(100.0, close[:-1])}, pd.date_range("2024-01-01 08:00", periods=8, freq="8h")
    )
    table = table.assign(
        high=table.max(axis=1), low=table.min(axis=1), funding=[0.01, 0, -0.02, 0, 0.03, 0, 0.01, 0.02]
    )
    market = Market.from_bars(load_bars(table), ["funding"])
    costs = Costs(fee=0.0, slippage=0.0, **RATES)
    rules = {"max_leverage": 3.0, "maintenance_margin": 0.0, "rebalance": "on_change"}
    one, other = (
        simulate(market, target, costs=costs, **run_settings({**rules, "fill": f})) for f in ("close", "next_open")
    )
    # 1e-13: a sum of 8 bars in another order.
    np.testing.assert_allclose(one.financing, other.financing, rtol=0, atol=1e-13)
    np.testing.assert_allclose(one.equity, other.equity, rtol=1e-13)
    assert (one.financing[3:] != 0).all()


@few
@given(seeds, st.sampled_from([0.4, 1.0, 1.8, 2.5, -0.5, -1.5]))
def test_interest_adds_up_over_the_holding_period(seed, exposure):
    """One order, then held: debt and credit grow by (1 + rate x years) a bar. A short pays for its value each bar."""
    market = dataclasses.replace(full_market(seed, 1, 0.002), present=None, delisted=None, funding=None)
    rules = {"max_leverage": 3.0, "maintenance_margin": 0.0}
    costs = Costs(fee=0.0, slippage=0.0, **RATES)
    result = simulate(market, np.where(np.arange(BARS) == 3, exposure, np.nan), costs=costs, **run_settings(rules))
    inside, close = market.bar_dt, market.close[:, 0]
    nights, cash, units = market.dt - inside, 1.0, 0.0

    def interest(price, years):
        short = max(0.0, -units * price)
        earned = RATES["cash_rate"] * max(0.0, cash - short)
        return years * (earned - RATES["borrow_rate"] * max(0.0, short - cash) - RATES["short_rate"] * short)

    for t in range(1, BARS):
        cash += interest(close[t - 1], nights[t])
        if t == 4:
            before = cash
            units = exposure * cash / market.open[4, 0]
            cash -= units * market.open[4, 0]
        cash += interest(market.open[t, 0], inside[t])
    # 1e-12: the rounding of 64 bars. The sum below subtracts nearly equal numbers.
    assert result.equity[-1] == pytest.approx(cash + units * close[-1], rel=1e-12)
    if exposure > 1:
        debt = (exposure - 1) * before * (1 + RATES["borrow_rate"] * inside[4])
        grown = debt * (np.prod((1 + RATES["borrow_rate"] * nights[5:]) * (1 + RATES["borrow_rate"] * inside[5:])) - 1)
        assert result.financing[5:].sum() == pytest.approx(-grown, rel=1e-10)


@pytest.mark.quick(1)
@pytest.mark.parametrize("exposure", [0.0, 0.5, 1.8])
def test_interest_of_minutes_is_not_lost_in_float32(exposure):
    """Two percent a year are 4e-8 a minute: added to 1 one by one, they would be nothing, or twice as much."""
    times = BASE.times[0] + np.arange(20_000) * np.timedelta64(1, "m")
    columns = dict.fromkeys(("open", "high", "low", "close"), np.full((20_000, 1), 50.0))
    years = np.concatenate([[0.0], np.full(19_999, 1 / 365 / 1440)])
    zeros = {"features": np.zeros((20_000, 1, 1)), "volatility": np.full((20_000, 1), 0.01)}
    market = dataclasses.replace(
        BASE, times=times, dt=years, segments=np.array([[0, 0, 20_000]]), volume=columns["open"], **columns, **zeros
    )
    costs = Costs(fee=0.0, slippage=0.0, cash_rate=0.02, borrow_rate=0.02)
    targets = np.where(np.arange(20_000) == 0, exposure, np.nan)
    rules = {"max_leverage": 2.0, "maintenance_margin": 0.0}
    rough, exact = (
        simulate(market, targets, costs=costs, dtype=kind, **run_settings(rules)) for kind in ("float32", "float64")
    )
    expected = exposure + (1 - exposure) * (1 + 0.02 / 365 / 1440) ** 19_999  # but for the first bar, flat
    # The closed form leaves out the first bar, 4e-8 of a position. float32 rounds an equity near 1 by 6e-8, and twice.
    assert exact.equity[-1] == pytest.approx(expected, abs=1e-7)
    np.testing.assert_allclose(rough.equity, exact.equity, rtol=0, atol=1.5e-7)
    # Training's own steps, from an account that it opened.
    env = TradingEnv(market, window=1, positions="continuous", random_start=False, costs=costs, **env_settings(rules))
    params = env.default_params
    state = jax.jit(env.reset)(jax.random.key(0), params)[1]
    state = state.replace(cursor=jnp.asarray(0), time=jnp.asarray(-20_000))

    def move(state, action):
        _, state, *_ = env.step_env(jax.random.key(0), state, action, params)
        return state, state.account.equity

    equity = jax.jit(lambda s, a: jax.lax.scan(move, s, a)[1])(state, jnp.full((19_999, 1), exposure, jnp.float32))
    np.testing.assert_allclose(equity, exact.equity[1:], rtol=0, atol=3e-7)
