"""A higher `fee`, `slippage`, `fixed_fee`, `impact`, `borrow_rate` or `short_rate` never leaves more."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger.markets import BARS
from ledger.paths import busy, few, path, seeds, step, walk

from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules


@few
@given(seeds, st.floats(0, 0.05), st.floats(0, 0.05))
def test_a_higher_fee_never_leaves_more_after_one_fill(seed, low, more):
    closes, opens = walk(seed, 1, 4, 3)
    targets = busy(seed, 1, 4, 3)
    targets[..., :] = np.clip(np.nan_to_num(targets), -1, 1)
    at = opens[-1:]  # marked at the price of the fill: what is gone is cost alone
    cheap = path(np.concatenate([closes[:1], at]), opens, targets, Costs(fee=low, slippage=0.0))[0]
    dear = path(np.concatenate([closes[:1], at]), opens, targets, Costs(fee=low + more, slippage=0.0))[0]
    # A rounding of an equity near 1.
    assert (dear.equity <= cheap.equity + 1e-15).all()


PATHS = 128
UNBOUND = Rules(max_leverage=3.0, capital=1e5, lot=5.0, min_trade=500.0, volume_cap=0.2, rebalance_band=0.02)
BOUND = Rules(capital=1e5, rebalance_band=0.0)
MORE = {"fee": 0.05, "slippage": 0.05, "fixed_fee": 200.0, "impact": 1.0, "borrow_rate": 1.0, "short_rate": 1.0}
COMMISSION = {"share_fee": 1.0, "min_fee": 200.0, "max_fee": 0.05}


fill_at = jax.jit(ledger.execute, static_argnames="rules")


def state_of(rng, assets, rules, price):
    """Accounts worth about 1 at these prices, long, short and in debt."""
    account = ledger.open_account(jnp.asarray(rng.uniform(-1, 1, price.shape) * rules.max_leverage / assets), price)
    return account.replace(ruined=jnp.zeros(len(price), bool))


def dearer(name, low, more):
    """Two sets of costs that differ in one rate."""
    names = ("fee", "slippage", "fixed_fee", "impact", "borrow_rate", "short_rate", "cash_rate")
    rates = dict.fromkeys(names, low) | {"fixed_fee": 100 * low, "cash_rate": 0.0}
    if name in COMMISSION:
        rates |= {"share_fee": low, "min_fee": 1000 * low, "max_fee": low}
    raised = {**rates, name: rates[name] + more * (MORE | COMMISSION)[name]}
    return Costs(**rates).cast("float64"), Costs(**raised).cast("float64")


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", ["fee", "slippage", "fixed_fee", "impact", *COMMISSION])
@few
@given(seeds, st.floats(0, 0.05), st.floats(0, 1))
def test_a_higher_cost_never_leaves_more_after_that_fill(name, seed, low, more):
    """The same order, as it is sized before costs. Where cash bounds it (leverage 1), this is of the costs by value.

    A fixed fee that cash cannot pay drops the buy, and a lot that it cannot pay is not bought: both may save costs.
    """
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        price = jnp.asarray(rng.uniform(1, 100, (PATHS, 3)))
        bar = Bar(
            price,
            price,
            price,
            volatility=jnp.asarray(rng.uniform(0.01, 0.05, (PATHS, 3))),
            adv=jnp.asarray(np.exp(rng.normal(13, 1, (PATHS, 3)))),
        )
        target = jnp.asarray(np.where(rng.random((PATHS, 3)) < 0.1, np.nan, rng.uniform(-1.5, 1.5, (PATHS, 3))))
        for rules in (UNBOUND, BOUND)[: 1 if name in ("fixed_fee", *COMMISSION) else 2]:
            start = state_of(rng, 3, rules, price)
            after = [fill_at(start, target, price, bar, costs, rules) for costs in dearer(name, low, more)]
            cheap, dear = (np.asarray(ledger.value(account, price)) for account, _ in after)
            # Roundings of an equity near 1.
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
        prev, close = (jnp.asarray(rng.uniform(50, 55, (PATHS, 3))) for _ in range(2))
        numbers = {"volatility": jnp.full((PATHS, 3), 0.02), "adv": jnp.full((PATHS, 3), 1e6)}
        bar = Bar(prev, close, close, years=jnp.asarray(rng.uniform(0.001, 0.02, (PATHS, 1))), **numbers)
        start = state_of(rng, 3, rules, prev)
        hold = jnp.full((PATHS, 3), jnp.nan)
        cheap, dear = (step(start, hold, bar, costs, rules)[0].equity for costs in dearer(name, low, more))
        assert (dear <= cheap).all()
        short = jnp.maximum(-start.units * prev, 0).sum(-1)
        pays = (start.cash < short) if name == "borrow_rate" else short > 0
        np.testing.assert_array_equal(np.asarray(dear < cheap), np.asarray(pays))


@partial(jax.jit, static_argnames="rules")
def equity_along(closes, opens, targets, years, costs, rules):
    """Equity `[bar, path]` along paths, with a volatility and a volume that stay."""
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
    leaves more cash idle, since the cut is sized at the whole order's. Both accounts are then of other positions. Debt
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
            cheap, dear = (np.asarray(equity_along(*arrays, costs, rules)) for costs in dearer(name, low, more))
            assert (cheap > 0.02).all(), "one was ruined: the property says nothing about that"
            # Roundings that add up over 64 bars.
            assert (dear <= cheap + 1e-13).all(), name
            assert (dear[-1] < cheap[-1]).all(), name
