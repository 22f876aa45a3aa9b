"""Random paths for the ledger, and `ledger.step` along them: what the tests of the ledger share."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrader.envs import ledger
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.ledger import Bar, Rules

NAN = float("nan")
FREE = Costs(fee=0.0, slippage=0.0)
PRICEY = Costs(fee=0.01, slippage=0.02)


@partial(jax.jit, static_argnames="rules")
def run(closes, opens, targets, costs, rules):
    """Accounts, fills and closings of a path: closes [N+1, *b, A], opens and targets [N, *b, A]."""

    def move(account, row):
        account, events = ledger.step(account, row[0], row[1], costs, rules)
        return account, (account, events.order, events.closing)

    start = ledger.open_account(jnp.zeros_like(targets[0]), closes[0])
    return jax.lax.scan(move, start, (targets, Bar(closes[:-1], opens, closes[1:])))[1]


def path(closes, opens, targets, costs=FREE, dtype="float64", **rules):
    """`run` on host arrays; returns NumPy pytrees."""
    rules = Rules(**{"rebalance_band": 0.0, **rules})
    with jax.enable_x64(dtype == "float64"):
        arrays = [jnp.asarray(np.asarray(column, dtype)) for column in (closes, opens, targets)]
        return jax.tree.map(np.asarray, run(*arrays, costs.cast(dtype), rules))


def walk(seed, bars, lanes, assets, volatility=0.03):
    """Closes [bars + 1, lanes, assets] and opens [bars, lanes, assets] of a random walk with gaps."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, volatility, (2, bars, lanes, assets))
    closes = 50 * np.exp(np.vstack([np.zeros((1, lanes, assets)), np.cumsum(steps.sum(0), 0)]))
    return closes, closes[:-1] * np.exp(steps[0])


def busy(seed, bars, lanes, assets, low=-1.3, high=1.3):
    """Targets that go long, short, flat, beyond the limit, repeat themselves, and hold."""
    rng = np.random.default_rng(seed + 1000)
    shape = (bars, lanes, assets)
    targets = rng.uniform(low, high, shape)
    kind = rng.integers(0, 10, shape)
    targets = np.where(kind == 0, 0.0, np.where(kind == 1, NAN, np.where(kind == 2, 1.0, targets)))
    for t in range(1, bars):
        targets[t] = np.where(kind[t] >= 8, targets[t - 1], targets[t])
    return targets
