"""No order takes gross exposure above the limit, or further above it, whatever else cuts, drops or keeps orders."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtrader.envs import ledger
from jaxtrader.envs.account import Bar
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rules import Rules

LANES, ASSETS = 256, 3
ALL = {"capital": 1e5, "lot": 5.0, "min_trade": 500.0, "volume_cap": 0.2, "rebalance_band": 0.05}
RULES = {
    "all": Rules(max_leverage=3.0, **ALL),
    "all, on change": Rules(max_leverage=3.0, rebalance="on_change", **ALL),
    "a band": Rules(max_leverage=2.0, rebalance_band=0.1),
    "without debt": Rules(**ALL),
}
execute = jax.jit(ledger.execute, static_argnames="rules")


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_gross_value_after_an_order_is_within_the_leverage_or_no_more_than_before(name: str, seed: int) -> None:
    rules, rng, shape = RULES[name], np.random.default_rng(seed), (LANES, ASSETS)
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
    assert (gross <= np.maximum(limit, before) + paid + 1e-11).all()
    raised, traded = gross > before + 1e-9, np.asarray(fill.units) != 0
    assert (raised & (np.abs(gross - limit) < 1e-9)).any() or rules.lot is not None  # it bound
    assert raised.any()
    assert (traded.sum(-1) > 1).any()
