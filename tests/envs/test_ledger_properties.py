"""What any account must obey under all rules together, whatever the bars and the targets: properties, by hypothesis.

Whole books come from `simulate`, single moves from `ledger.step`. Properties of plain rules: `test_ledger_paths.py`; of
actions that are none: `test_trading_properties.py`.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_books import BARS, BASE, RATES, market_of

from jaxtrader.envs import ledger
from jaxtrader.envs.account import Bar, Brackets
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rules import Rules
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate

few = settings(max_examples=40, deadline=None, derandomize=True)  # the same in every run: a test of a commit
seeds = st.integers(0, 10_000)

# --- interest -----------------------------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from([0.4, 1.0, 1.8, 2.5, -0.5, -1.5]))
def test_interest_adds_up_over_the_holding_period(seed, exposure):
    """One order, then held: debt and credit grow by (1 + rate x years) a bar; a short pays for its value each bar."""
    market = dataclasses.replace(market_of(seed, 1, 0.002), present=None, delisted=None, funding=None)
    rules = {"max_leverage": 3.0, "maintenance_margin": 0.0}
    costs = Costs(fee=0.0, slippage=0.0, **RATES)
    book = simulate(market, np.where(np.arange(BARS) == 3, exposure, np.nan), costs=costs, **rules)
    years, close = market.dt, market.close[:, 0]
    cash = np.cumprod(1 + RATES["cash_rate"] * years[:5])[-1]  # idle until the open of bar 4
    units = exposure * cash / market.open[4, 0]
    cash -= units * market.open[4, 0]
    for t in range(5, BARS):
        short = max(0.0, -units * close[t - 1])
        earned = RATES["cash_rate"] * max(0.0, cash - short)
        cash += years[t] * (earned - RATES["borrow_rate"] * max(0.0, -cash) - RATES["short_rate"] * short)
    assert book.equity[-1] == pytest.approx(cash + units * close[-1], rel=1e-12)
    if exposure > 1:
        debt = (exposure - 1) * np.prod(1 + RATES["cash_rate"] * years[:5])
        grown = debt * (np.prod(1 + RATES["borrow_rate"] * years[5:]) - 1)
        assert book.carry[5:].sum() == pytest.approx(-grown, rel=1e-10)


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
    rough, exact = (simulate(market, targets, costs=costs, dtype=kind, **rules) for kind in ("float32", "float64"))
    expected = exposure + (1 - exposure) * (1 + 0.02 / 365 / 1440) ** 19_999  # but for the first bar, flat
    assert exact.equity[-1] == pytest.approx(expected, abs=1e-7)
    np.testing.assert_allclose(rough.equity, exact.equity, rtol=0, atol=1.5e-7)
    # Training's own steps, from an account that it opened.
    env = TradingEnv(market, window=1, positions="continuous", random_start=False, costs=costs, **rules)
    params = env.default_params
    state = jax.jit(env.reset)(jax.random.key(0), params)[1]
    state = state.replace(cursor=jnp.asarray(0), time=jnp.asarray(-20_000))

    def move(state, action):
        _, state, *_ = env.step_env(jax.random.key(0), state, action, params)
        return state, state.account.equity

    equity = jax.jit(lambda s, a: jax.lax.scan(move, s, a)[1])(state, jnp.full((19_999, 1), exposure, jnp.float32))
    np.testing.assert_allclose(equity, exact.equity[1:], rtol=0, atol=3e-7)


# --- costs --------------------------------------------------------------------------------------------------------

LANES = 128
UNBOUND = Rules(max_leverage=3.0, capital=1e5, lot=5.0, min_trade=500.0, volume_cap=0.2, rebalance_band=0.02)
BOUND = Rules(capital=1e5, rebalance_band=0.0)
MORE = {"fee": 0.05, "slippage": 0.05, "fixed_fee": 200.0, "impact": 1.0, "borrow_rate": 1.0, "short_rate": 1.0}
step = jax.jit(ledger.step, static_argnames="rules")
fill_at = jax.jit(ledger.execute, static_argnames="rules")


def state_of(rng, assets, rules, price):
    """Accounts worth about 1 at these prices, long, short and in debt."""
    account = ledger.open_account(jnp.asarray(rng.uniform(-1, 1, price.shape) * rules.max_leverage / assets), price)
    return account.replace(ruined=jnp.zeros(len(price), bool))


def dearer(name, low, more):
    """Two sets of costs that differ in one rate."""
    names = ("fee", "slippage", "fixed_fee", "impact", "borrow_rate", "short_rate", "cash_rate")
    rates = dict.fromkeys(names, low) | {"fixed_fee": 100 * low, "cash_rate": 0.0}
    return Costs(**rates).cast("float64"), Costs(**{**rates, name: rates[name] + more * MORE[name]}).cast("float64")


@pytest.mark.parametrize("name", ["fee", "slippage", "fixed_fee", "impact"])
@few
@given(seeds, st.floats(0, 0.05), st.floats(0, 1))
def test_a_higher_cost_never_leaves_more_after_that_fill(name, seed, low, more):
    """The same order, as it is sized before costs; where cash bounds it (leverage 1), for the costs by value.

    A fixed fee that cash cannot pay drops the buy, and a lot that it cannot pay is not bought: both may save costs.
    """
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        price = jnp.asarray(rng.uniform(1, 100, (LANES, 3)))
        bar = Bar(
            price,
            price,
            price,
            volatility=jnp.asarray(rng.uniform(0.01, 0.05, (LANES, 3))),
            adv=jnp.asarray(np.exp(rng.normal(13, 1, (LANES, 3)))),
        )
        target = jnp.asarray(np.where(rng.random((LANES, 3)) < 0.1, np.nan, rng.uniform(-1.5, 1.5, (LANES, 3))))
        for rules in (UNBOUND, BOUND)[: 1 if name == "fixed_fee" else 2]:
            start = state_of(rng, 3, rules, price)
            after = [fill_at(start, target, price, bar, costs, rules) for costs in dearer(name, low, more)]
            cheap, dear = (np.asarray(ledger.value(account, price)) for account, _ in after)
            assert (dear <= cheap + 1e-14).all()
            fills = [np.asarray(fill.units) for _, fill in after]
            assert np.any(fills[0] != 0)
            if rules is UNBOUND:
                np.testing.assert_array_equal(*fills)


@pytest.mark.parametrize("name", ["borrow_rate", "short_rate"])
@few
@given(seeds, st.floats(0, 1), st.floats(0.001, 1))
def test_a_higher_rate_never_leaves_more_after_that_bar(name, seed, low, more):
    rng = np.random.default_rng(seed)
    rules = Rules(max_leverage=3.0, maintenance_margin=0.0, ruin_level=0.0, capital=1e5)
    with jax.enable_x64(True):
        prev, close = (jnp.asarray(rng.uniform(50, 55, (LANES, 3))) for _ in range(2))
        numbers = {"volatility": jnp.full((LANES, 3), 0.02), "adv": jnp.full((LANES, 3), 1e6)}
        bar = Bar(prev, close, close, years=jnp.asarray(rng.uniform(0.001, 0.02, (LANES, 1))), **numbers)
        start = state_of(rng, 3, rules, prev)
        hold = jnp.full((LANES, 3), jnp.nan)
        cheap, dear = (step(start, hold, bar, costs, rules)[0].equity for costs in dearer(name, low, more))
        assert (dear <= cheap).all()
        pays = (start.cash < 0) if name == "borrow_rate" else (start.units < 0).any(-1)
        np.testing.assert_array_equal(np.asarray(dear < cheap), np.asarray(pays))


@partial(jax.jit, static_argnames="rules")
def path(closes, opens, targets, years, costs, rules):
    """Equity `[bar, lane]` along a path, with a volatility and a volume that stay."""
    steady = [jnp.full(closes[0].shape, x) for x in (0.02, 1e7)]

    def move(account, row):
        prev, open_, close, target, dt = row
        bar = Bar(prev, open_, close, years=dt, volatility=steady[0], adv=steady[1])
        account, _ = ledger.step(account, target, bar, costs, rules)
        return account, account.equity

    start = ledger.open_account(jnp.zeros_like(targets[0]), closes[0], rules)
    return jax.lax.scan(move, start, (closes[:-1], opens, closes[1:], targets, years))[1]


@pytest.mark.parametrize("leverage", [1.0, 2.0])
@few
@given(seeds, st.floats(0, 0.005), st.floats(0.01, 0.5))
def test_a_higher_cost_never_leaves_more_along_a_path(leverage, seed, low, more):
    """With band, lots, brackets, margin and ruin off: nothing happens in the one account and not in the other.

    Where cash bounds buys (leverage 1) for the costs by value alone. A fixed fee may drop a buy, and a dearer impact
    leaves more cash idle, since the cut is sized at the whole order's: both accounts are then of other positions. Debt
    there is none, so no borrow rate.
    """
    rng = np.random.default_rng(seed)
    rules = Rules(
        max_leverage=leverage, maintenance_margin=0.0, ruin_level=0.0, capital=1e5, rebalance_band=0.0, delay=1
    )
    steps = rng.normal(0, 0.01, (2, BARS, 8, 2))
    closes = 50 * np.exp(np.concatenate([np.zeros((1, 8, 2)), np.cumsum(steps.sum(0), 0)]))
    targets = rng.uniform(-1, 1, (BARS, 8, 2)) * leverage
    targets = np.where(rng.random(targets.shape) < 0.6, targets, np.where(rng.random(targets.shape) < 0.5, 0, np.nan))
    with jax.enable_x64(True):
        arrays = [closes, closes[:-1] * np.exp(steps[0]), targets, rng.uniform(0.001, 0.01, (BARS, 1, 1))]
        arrays = [jnp.asarray(x) for x in arrays]
        for name in MORE if leverage > 1 else ("fee", "slippage", "short_rate"):
            cheap, dear = (np.asarray(path(*arrays, costs, rules)) for costs in dearer(name, low, more))
            assert (cheap > 0.02).all(), "one was ruined: the property says nothing about that"
            assert (dear <= cheap + 1e-13).all(), name
            assert (dear[-1] < cheap[-1]).all(), name


# --- mirrors ------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.floats(0.01, 1))
def test_a_leveraged_long_and_a_short_of_the_same_units_mirror_without_costs(seed, size):
    rng = np.random.default_rng(seed)
    rules = Rules(max_leverage=3.0, maintenance_margin=0.0, ruin_level=0.0, rebalance_band=0.0)
    with jax.enable_x64(True):
        prev = jnp.asarray(rng.uniform(40, 60, (LANES, 3)))
        open_, close = (prev * jnp.asarray(np.exp(rng.normal(0, 0.02, (LANES, 3)))) for _ in range(2))
        bar = Bar(prev, open_, close)
        target = jnp.asarray(size * rng.uniform(-1, 1, (LANES, 3)))
        flat = ledger.open_account(jnp.zeros((LANES, 3)), prev)
        free = Costs(fee=None, slippage=None)
        long, short = (step(flat, side * target, bar, free, rules)[0] for side in (1, -1))
        np.testing.assert_array_equal(short.units, -long.units)
        np.testing.assert_allclose(short.equity - 1, 1 - long.equity, rtol=0, atol=1e-14)


@few
@given(seeds)
def test_brackets_of_a_short_are_those_of_a_long_in_the_mirror(seed):
    """Bars turned over about the entry price: what stops the one stops the other, at the mirrored price."""
    rng = np.random.default_rng(seed)
    rules = Rules(stops=True, ruin_level=0.0, rebalance_band=0.0)
    with jax.enable_x64(True):
        entry = rng.uniform(40, 60, (LANES, 3))
        open_, close = (entry * (1 + rng.uniform(-0.1, 0.1, entry.shape)) for _ in range(2))
        high = np.maximum(open_, close) + rng.uniform(0, 3, entry.shape)
        low = np.minimum(open_, close) - rng.uniform(0, 3, entry.shape)
        brackets = Brackets(*(jnp.asarray(rng.uniform(0.01, 0.15, entry.shape)) for _ in range(2)))
        free, hold = Costs(fee=None, slippage=None), jnp.full(entry.shape, jnp.nan)

        def after(side, *prices):
            # The entry is 1 in the units of each asset, so that the mirror of p is 2 - p.
            prev, *others = (jnp.asarray(p / entry) for p in prices)
            account = ledger.open_account(jnp.full(entry.shape, side * 0.3), prev, rules)
            return step(account, hold, Bar(prev, *others), free, rules, brackets)

        turned = [2 * entry - x for x in (open_, close, low, high)]
        long, events = after(1, entry, open_, close, high, low)
        short, mirrored = after(-1, entry, *turned)
        np.testing.assert_allclose(short.equity - 1, long.equity - 1, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(short.stopped, -long.stopped)
        for a, b in ((events.jumped, mirrored.jumped), (events.inside, mirrored.inside)):
            np.testing.assert_array_equal(a.reason, b.reason)
            assert {1, 2} <= set(np.asarray(a.reason).flat)
