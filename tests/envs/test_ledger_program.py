"""The ledger as a program: many costs at once are each alone, and what is off is not in it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_books import CASES, costs_of, market_of, orders_of

from jaxtrader.envs import bars, ledger
from jaxtrader.envs.account import Brackets
from jaxtrader.envs.costs import LIMITS, Costs
from jaxtrader.envs.rules import Rules
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate

# --- costs are a leaf of the program: one run for all of them --- #


def swept(count, assets=1):
    """Costs whose every rate has `count` values, and the same one by one."""
    rng = np.random.default_rng(3)
    base = costs_of(assets)
    scale = {name: rng.uniform(0.2, 2, (count, *np.shape(getattr(base, name)))) for name in LIMITS}
    rates = {name: np.asarray(getattr(base, name)) * scale[name] for name in LIMITS}
    return Costs(**rates), [Costs(**{name: rate[k] for name, rate in rates.items()}) for k in range(count)]


def test_many_costs_in_one_run_of_the_ledger_give_the_book_of_each():
    """All costs and rules, three assets: `ledger.step` over a batch of `Costs` beside `simulate` with each alone."""
    assets, settings = CASES["next_open"]
    market, (targets, brackets), (batch, alone) = market_of(5, assets), orders_of(5, assets), swept(4, assets)
    rules = Rules(**settings, stops=True)

    @jax.jit
    def walk(found, targets, brackets, costs):
        def move(account, row):
            now, then, target, bracket = row
            bar = bars.between(now, then, rules)
            account, _ = ledger.step(account, target, bar, costs, rules, Brackets(**bracket))
            return account, account.equity

        moves = ({k: x[:-1] for k, x in found.items()}, {k: x[1:] for k, x in found.items()})
        flat = ledger.open_account(jnp.zeros(assets), found["close"][0], rules, carries=True)
        rows = (*moves, targets[:-1], {k: x[:-1] for k, x in brackets.items()})
        return jax.lax.scan(move, flat, rows)[1]

    with jax.enable_x64(True):
        found = {k: jnp.asarray(x) for k, x in bars.columns(market, batch, rules).items()}
        given = jnp.asarray(targets), {k: jnp.asarray(x) for k, x in brackets.items()}
        equity = jax.vmap(walk, (None, None, None, 0))(found, *given, batch.cast("float64"))
    books = [simulate(market, targets, costs=costs, **brackets, **settings) for costs in alone]
    for row, book in zip(np.asarray(equity), books, strict=True):
        np.testing.assert_allclose(row, book.equity[1:], rtol=1e-11)
    assert len({round(book.equity[-1], 6) for book in books}) == 4


OUT = {"fixed_fee": None, "impact": None}


def test_many_costs_in_one_step_of_the_environment_pay_what_each_pays(make_market):
    """Fee, slippage and all interest, over five decisions, in float32."""
    env = TradingEnv(make_market(), window=2, episode_length=16, rebalance_band=0.0, costs=costs_of(1, **OUT))
    (batch, alone) = swept(3)
    params, key = env.default_params, jax.random.key(0)
    _, state = env.reset(key, params)
    across = params.replace(tape=None, costs=0)  # the axis of every rate; the tape has none

    @jax.jit
    def steps(params):
        def move(state, action):
            _, state, reward, *_, info = env.step(key, state, action, params)
            return state, (reward, info["cost"])

        return jax.lax.scan(move, state, jnp.asarray([0, 2, 1, 2, 0]))[1]

    def charged(costs):
        return params.replace(costs=costs.replace(**OUT).cast("float32"))

    together = jax.vmap(steps, (across,))(charged(batch))
    for k, costs in enumerate(alone):
        one = steps(charged(costs))
        for many, single in zip(together, one, strict=True):
            np.testing.assert_allclose(many[k], single, rtol=2e-6, atol=1e-7)
    assert len(np.unique(np.asarray(together[1][:, 0]))) == 3


# --- what is off is not in it --- #

PLAIN = Costs(fee=1e-3, slippage=1e-3)
IN_CURRENCY = {"capital": 1e5}
# A rule or cost, what it is beside, and what it adds: every one must make the program longer.
ADDED = {
    "fee": ({}, {"fee": 1e-3}, {}, {"fee": None}),
    "slippage": ({}, {"slippage": 1e-3}, {}, {"slippage": None}),
    "fixed fee": (IN_CURRENCY, {"fixed_fee": 1.0}, IN_CURRENCY, {}),
    "impact": (IN_CURRENCY, {"impact": 1.0}, IN_CURRENCY, {}),
    "cash rate": ({}, {"cash_rate": 0.1}, {}, {}),
    "borrow rate": ({}, {"borrow_rate": 0.1}, {}, {}),
    "short rate": ({}, {"short_rate": 0.1}, {}, {}),
    "band": ({"rebalance_band": 0.05}, {}, {}, {}),
    "on change": ({"rebalance": "on_change"}, {}, {}, {}),
    "delay": ({"delay": 1}, {}, {}, {}),
    "margin": ({"maintenance_margin": 0.2}, {}, {}, {}),
    "margin of leverage": ({"max_leverage": 2.0}, {}, {"max_leverage": 2.0, "maintenance_margin": 0.0}, {}),
    "lot": ({**IN_CURRENCY, "lot": 1.0}, {}, IN_CURRENCY, {}),
    "minimum trade": ({**IN_CURRENCY, "min_trade": 9.0}, {}, IN_CURRENCY, {}),
    "volume cap": ({**IN_CURRENCY, "volume_cap": 0.1}, {}, IN_CURRENCY, {}),
    "session end": ({"flat_at_session_end": True}, {}, {}, {}),
    "brackets": ({"stops": True}, {}, {}, {}),
}
MARKET = market_of(0, 1)  # with every column
BARE = dataclasses.replace(MARKET, present=None, delisted=None, funding=None)  # what is read wherever it is there


def program(market, costs, rules):
    """The program of a step, and the account that it begins with."""
    found = bars.columns(market, costs, rules)
    carries = costs.carries or "funding" in found
    brackets = Brackets(stop_loss=jnp.full(1, 0.1)) if rules.stops else None
    account = ledger.open_account(jnp.zeros(1), jnp.asarray(market.close[0], jnp.float32), rules, carries=carries)
    bar = bars.between(bars.take(found, 0), bars.take(found, 1), rules)
    jaxpr = jax.make_jaxpr(lambda *args: ledger.step(*args[:-1], rules, args[-1]))(
        account, jnp.zeros(1), bar, costs.cast("float32"), brackets
    )
    return jaxpr.jaxpr, account


def length(jaxpr):
    """Inputs and equations, those of inner programs included. Without slippage zeros are added: an input less."""
    inner = [each for e in jaxpr.eqns for each in e.params.values() if hasattr(each, "jaxpr")]
    return len(jaxpr.invars) + len(jaxpr.eqns) + sum(length(each.jaxpr) for each in inner)


def settings(rules, costs):
    return PLAIN.replace(**costs), Rules(**{"rebalance_band": 0.0, **rules})


def test_a_plain_step_reads_and_keeps_nothing_of_what_is_off():
    """Three prices, a target, two rates, and seven numbers of the account; nothing comes out of what cannot happen."""
    costs, rules = settings({}, {})
    assert set(bars.columns(BARE, costs, rules)) == {"open", "close"}
    jaxpr, account = program(BARE, costs, rules)
    assert (account.stopped, account.pending, account.owed) == (None, None, None)
    assert len(jax.tree.leaves(account)) == 7
    assert len(jaxpr.invars) == 3 + 1 + 2 + 7
    bar = bars.between(*(bars.take(bars.columns(BARE, costs, rules), t) for t in (0, 1)), rules)
    _, events = ledger.step(account, jnp.zeros(1), bar, costs, rules)
    assert (events.carry, events.jumped, events.inside) == (None, None, None)


@pytest.mark.parametrize("name", ADDED)
def test_a_rule_or_cost_that_is_off_is_not_traced(name):
    on_rules, on_costs, off_rules, off_costs = ADDED[name]
    on, _ = program(BARE, *settings(on_rules, on_costs))
    off, _ = program(BARE, *settings(off_rules, off_costs))
    assert length(off) < length(on)


@pytest.mark.parametrize("name", ["present", "delisted", "funding"])
def test_a_column_that_a_market_does_not_have_is_not_traced(name):
    costs, rules = settings({}, {})
    more = dataclasses.replace(BARE, **{name: getattr(MARKET, name)})
    assert length(program(BARE, costs, rules)[0]) < length(program(more, costs, rules)[0])
