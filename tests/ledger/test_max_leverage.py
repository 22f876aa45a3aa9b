"""`max_leverage`: the gross exposure that orders may reach (money rule 5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger.paths import few, path, seeds, step, walk
from ledger.worked_bars import NAN, NO_COSTS, PRICES, TWO, bar, near, one_bar, worked

from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

CASES = [
    {
        "name": "leverage 2 buys on credit, costs included, without a bound on cash",
        "settings": {"max_leverage": 2.0, "fee": 0.01},
        "bars": [bar(2.0)],
        # 1 - 2 - 0.02
        "fills": [(0, 0, 0.02, 100.0, "order")],
        "cash": -1.02,
        "units": [0.02],
        "equity": 0.98,
        "clipped": [],
    },
    {
        "name": "targets beyond the leverage are scaled by one factor, before costs",
        "settings": {"max_leverage": 2.0},
        "bars": [bar([3.0, -1.0], TWO)],
        # x 2 / 4
        "fills": [(0, 0, 0.015, 100.0, "order"), (0, 1, -0.005, 100.0, "order")],
        "cash": 0.0,
        "units": [0.015, -0.005],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "a sale cut by volume keeps its place in the leverage: what raises another is cut to what is left",
        "start": {"cash": -1.0, "units": [0.02, 0.0], "entry": [100.0, 0.0]},
        "settings": {"max_leverage": 2.0, "maintenance_margin": 0.0, "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar([0.0, 2.0], TWO, adv=[2000.0, 1e9])],
        # Of 2.0 only 0.2 are sold: 1.8 stay, 0.2 are left of L = 2
        "fills": [(0, 0, -0.002, 100.0, "order"), (0, 1, 0.002, 100.0, "order")],
        "cash": -1.0,
        "units": [0.018, 0.002],
        "equity": 1.0,
        "clipped": [0],
        "dropped": [],
    },
    {
        "name": "what raises positions is cut by one factor: an add, and a turn beyond flat; what lowers them is not",
        "start": {"cash": 0.0, "units": [0.012, 0.002, 0.002, -0.006], "entry": [100.0] * 4},
        "settings": {"max_leverage": 2.0, "maintenance_margin": 0.0, "volume_cap": 0.1, "capital": 1000.0},
        "bars": [bar([0.0, 0.8, -0.4, -0.4], [100.0] * 4, adv=[2000.0, 1e9, 1e9, 1e9])],
        # E = 1. 0.2 of 1.2 are sold: 1.0 stay, 0.2 of the second, none of the third, 0.4 of the fourth. 2 - 1.6 = 0.4
        # for 0.6 + 0.4: k = 0.4
        "fills": [
            (0, 0, -0.002, 100.0, "order"),
            (0, 1, 0.0024, 100.0, "order"),
            (0, 2, -0.0036, 100.0, "order"),
            (0, 3, 0.002, 100.0, "order"),
        ],
        "cash": 0.12,
        "units": [0.01, 0.0044, -0.0016, -0.004],
        "equity": 1.0,
        "clipped": [0],
    },
    {
        "name": "what has drifted and stays in the band uses up the leverage too",
        "start": {"cash": -1.0, "units": [0.0208, 0.0], "entry": [100.0, 0.0]},
        "settings": {"max_leverage": 2.0, "maintenance_margin": 0.0, "rebalance_band": 0.05},
        "bars": [bar([1.9, 0.1], TWO)],
        # E = 1.08, 2.16 at most. 1.9 x 1.08 = 2.052 is 0.028 away, less than 0.054. 0.08 are left of 0.108
        "fills": [(0, 1, 0.0008, 100.0, "order")],
        "cash": -1.08,
        "units": [0.0208, 0.0008],
        "equity": 1.08,
        "clipped": [0],
    },
    {
        "name": "an unchanged target that has drifted uses it up, and what would raise another is given up",
        "start": {"cash": -1.0, "units": [0.03, 0.0], "entry": [80.0, 0.0], "target": [1.0, 0.0]},
        "settings": {"max_leverage": 1.5, "maintenance_margin": 0.0, "rebalance": "on_change"},
        "bars": [bar([1.0, 0.4], TWO)],
        # E = 2, gross 3: all of 1.5 x 2
        "fills": [],
        "cash": -1.0,
        "units": [0.03, 0.0],
        "equity": 2.0,
        "clipped": [0],
        "dropped": [0],
    },
]


test_max_leverage_as_worked_by_hand = worked(CASES)


def test_a_target_beyond_the_limit_is_capped_and_counted():
    account, fill, _ = one_bar(1.5, PRICES, costs=NO_COSTS)
    assert fill.clipped
    assert account.units[0] == near(1 / 110)


def test_nan_holds_the_units_and_uses_up_the_leverage_first():
    # Two assets at 100: 0.006 held by NaN is 60% of 1.0, and 0.9 for the other is capped at 0.4 and counted.
    account, fill, _ = one_bar([NAN, 0.9], (100, 100, 100), units=[0.006, 0.0], cash=0.4, costs=NO_COSTS)
    # 1e-14: the rounding of a few operations.
    np.testing.assert_allclose(account.units, [0.006, 0.004], rtol=1e-14)
    assert fill.clipped


PATHS, ASSETS = 256, 3
ALL = {"capital": 1e5, "lot": 5.0, "min_trade": 500.0, "volume_cap": 0.2, "rebalance_band": 0.05}
RULES = {
    "all": Rules(max_leverage=3.0, **ALL),
    "all, on change": Rules(max_leverage=3.0, rebalance="on_change", **ALL),
    "a band": Rules(max_leverage=2.0, rebalance_band=0.1),
    "without debt": Rules(**ALL),
}


execute = jax.jit(ledger.execute, static_argnames="rules")


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", RULES)
@few
@given(seeds)
def test_gross_value_after_an_order_is_within_the_leverage_or_no_more_than_before(name: str, seed: int) -> None:
    rules, rng, shape = RULES[name], np.random.default_rng(seed), (PATHS, ASSETS)
    limit, price = rules.max_leverage, rng.uniform(1, 100, shape)
    held = rng.uniform(-1, 1, shape) * limit * rng.choice([0, 0.4, 0.8], shape)  # some of it drifted above the limit
    target = rng.uniform(-1, 1, shape) * limit * rng.choice([0, 0.3, 1], shape)
    with jax.enable_x64(True):
        flags = {"present": jnp.asarray(rng.random(shape) > 0.1)}
        columns = {"volatility": np.full(shape, 0.02), "adv": np.exp(rng.normal(13, 1.5, shape))}
        at = jnp.asarray(price)
        bar = Bar(at, at, at, **{name: jnp.asarray(x) for name, x in columns.items()}, **flags)
        account = ledger.open_account(jnp.asarray(held), at, rules)
        asked = jnp.asarray(np.where(rng.random(shape) < 0.2, held, target))
        asked = jnp.where(jnp.asarray(rng.random(shape) < 0.1), jnp.nan, asked)
        costs = Costs(fee=0.001, slippage=0.002).cast("float64")
        after, fill = execute(account, asked, at, bar, costs, rules)
    before, gross = (np.abs(np.asarray(each.units) * price).sum(-1) for each in (account, after))
    # Shorts are never cut: without debt, the costs that a buy to cover could not pay may stay above the limit.
    paid = np.asarray(fill.fee + fill.slippage).sum(-1) if limit <= 1 else 0
    # 1e-11: ten times the ledger's dust, which an order may leave.
    assert (gross <= np.maximum(limit, before) + paid + 1e-11).all()
    raised, traded = gross > before + 1e-9, np.asarray(fill.units) != 0
    assert (raised & (np.abs(gross - limit) < 1e-9)).any() or rules.lot is not None  # it bound
    assert raised.any()
    assert (traded.sum(-1) > 1).any()


@few
@given(seeds, st.floats(0.01, 1))
def test_a_leveraged_long_and_a_short_of_the_same_units_mirror_without_costs(seed, size):
    rng = np.random.default_rng(seed)
    rules = Rules(max_leverage=3.0, maintenance_margin=0.0, ruin_level=0.0, rebalance_band=0.0)
    with jax.enable_x64(True):
        prev = jnp.asarray(rng.uniform(40, 60, (PATHS, 3)))
        open_, close = (prev * jnp.asarray(np.exp(rng.normal(0, 0.02, (PATHS, 3)))) for _ in range(2))
        bar = Bar(prev, open_, close)
        target = jnp.asarray(size * rng.uniform(-1, 1, (PATHS, 3)))
        flat = ledger.open_account(jnp.zeros((PATHS, 3)), prev)
        free = Costs(fee=None, slippage=None)
        long, short = (step(flat, side * target, bar, free, rules)[0] for side in (1, -1))
        np.testing.assert_array_equal(short.units, -long.units)
        # Roundings of an equity near 1.
        np.testing.assert_allclose(short.equity - 1, 1 - long.equity, rtol=0, atol=1e-14)


@few
@given(seeds, st.floats(0.01, 1.0))
def test_long_and_short_mirror_in_one_step_without_costs(seed, weight):
    closes, opens = walk(seed, 1, 4, 3)
    targets = np.full((1, 4, 3), weight / 3)
    long, short = path(closes, opens, targets)[0], path(closes, opens, -targets)[0]
    np.testing.assert_array_equal(short.units, -long.units)
    # 1e-9: of a difference that is small against the equities it is of.
    np.testing.assert_allclose(short.equity - 1, 1 - long.equity, rtol=1e-9, atol=1e-14)
