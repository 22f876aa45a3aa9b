"""The ledger as a program: many costs at once are each alone, and what is off is not in it."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger.markets import BY_FILL, all_costs, full_market, orders_of
from rule_settings import run_settings

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger import ledger
from jaxtrader.ledger.account import Brackets
from jaxtrader.ledger.bar import bar_between, ledger_columns, take_rows
from jaxtrader.ledger.costs import LIMITS, Costs
from jaxtrader.ledger.rules import Rules

# --- costs are a leaf of the program: one run for all of them --- #


def swept(count, assets=1):
    """Costs whose every rate has `count` values, and the same one by one."""
    rng = np.random.default_rng(3)
    base = all_costs(assets)
    on = [name for name in LIMITS if base.has(name)]
    scale = {name: rng.uniform(0.2, 2, (count, *np.shape(getattr(base, name)))) for name in on}
    rates = {name: np.asarray(getattr(base, name)) * scale[name] for name in on}
    return Costs(**rates), [Costs(**{name: rate[k] for name, rate in rates.items()}) for k in range(count)]


@pytest.mark.slow
def test_many_costs_in_one_run_of_the_ledger_give_the_result_of_each():
    """All costs and rules, three assets: `ledger.step` over a batch of `Costs` beside `simulate` with each alone."""
    assets, settings = BY_FILL["next_open"]
    market, (targets, brackets), (batch, alone) = full_market(5, assets), orders_of(5, assets), swept(4, assets)
    rules = Rules(**settings)

    @jax.jit
    def walk(found, targets, brackets, costs):
        def move(account, row):
            now, then, target, bracket = row
            bar = bar_between(now, then, rules)
            account, _ = ledger.step(account, target, bar, costs, rules, Brackets(**bracket))
            return account, account.equity

        moves = ({k: x[:-1] for k, x in found.items()}, {k: x[1:] for k, x in found.items()})
        held = {"brackets": True, "trailing": True, "financing": True}
        flat = ledger.open_account(jnp.zeros(assets), found["close"][0], rules, **held)
        rows = (*moves, targets[:-1], {k: x[:-1] for k, x in brackets.items()})
        return jax.lax.scan(move, flat, rows)[1]

    with jax.enable_x64(True):
        found = {k: jnp.asarray(x) for k, x in ledger_columns(market, batch, rules, brackets=True).items()}
        given = jnp.asarray(targets), {k: jnp.asarray(x) for k, x in brackets.items()}
        equity = jax.vmap(walk, (None, None, None, 0))(found, *given, batch.cast("float64"))
    results = [simulate(market, targets, costs=costs, **brackets, **run_settings(settings)) for costs in alone]
    for row, result in zip(np.asarray(equity), results, strict=True):
        # 1e-11: XLA orders the sums of a batch otherwise, over 64 bars.
        np.testing.assert_allclose(row, result.equity[1:], rtol=1e-11)
    assert len({round(result.equity[-1], 6) for result in results}) == 4


OUT = {"fixed_fee": None, "impact": None, "min_fee": None}


def test_many_costs_in_one_step_of_the_environment_pay_what_each_pays(make_market):
    """Fee, slippage and all interest, over five decisions, in float32."""
    env = TradingEnv(
        make_market(), window=2, episode_length=16, rules=Rules(rebalance_band=0.0), costs=all_costs(1, **OUT)
    )
    (batch, alone) = swept(3)
    params, key = env.default_params, jax.random.key(0)
    _, state = jax.jit(env.reset)(key, params)
    across = params.replace(arrays=None, costs=0)  # the axis of every rate. The arrays have none.

    @jax.jit
    def steps(params):
        def move(state, action):
            _, state, reward, *_, info = env.step(key, state, action, params)
            return state, (reward, info["cost"])

        return jax.lax.scan(move, state, np.array([0, 2, 1, 2, 0]))[1]

    def charged(costs):
        return params.replace(costs=costs.replace(**OUT).cast("float32"))

    together = jax.vmap(steps, (across,))(charged(batch))
    for k, costs in enumerate(alone):
        one = steps(charged(costs))
        for many, single in zip(together, one, strict=True):
            # Some roundings of float32, 6e-8 each.
            np.testing.assert_allclose(many[k], single, rtol=2e-6, atol=5e-7)
    assert len(np.unique(np.asarray(together[1][:, 0]))) == 3


# --- what is off is not in it --- #

PLAIN = {"rebalance_band": 0.0}, {"fee": 1e-3, "slippage": 1e-3}
IN_CURRENCY = {"capital": 1e5}
FINANCED = {"account.interest_residual", "bar.years", "bar.years_inside", "events.financing"}
WATCHED = {"bar.high", "bar.low", "events.gap_exits"}
# Each rule and cost that can be off: how it is switched on, and what an account, a bar and its events hold for it.
ADDED = {
    "fixed_fee": (IN_CURRENCY, {"fixed_fee": 1.0}, set()),
    "impact": (IN_CURRENCY, {"impact": 1.0}, {"bar.volatility", "bar.adv", "bar.fillable"}),
    "share_fee": ({}, {"share_fee": 0.01}, {"bar.factor"}),
    "min_fee": (IN_CURRENCY, {"min_fee": 1.0}, set()),
    "max_fee": ({}, {"max_fee": 0.01}, set()),
    "dividends": ({"dividends": "paid"}, {}, {"bar.dividend", "events.financing"}),
    "cash_rate": ({}, {"cash_rate": 0.1}, FINANCED),
    "borrow_rate": ({}, {"borrow_rate": 0.1}, FINANCED),
    "short_rate": ({}, {"short_rate": 0.1}, FINANCED),
    "rebalance_band": ({"rebalance_band": 0.05}, {}, set()),
    "rebalance": ({"rebalance": "on_change"}, {}, {"account.unfilled"}),
    "delay": ({"delay": 1}, {}, {"account.pending"}),
    "maintenance_margin": ({"maintenance_margin": 0.2}, {}, WATCHED | {"events.intrabar_exits"}),
    "lot": ({**IN_CURRENCY, "lot": 1.0}, {}, {"bar.factor"}),
    "min_trade": ({**IN_CURRENCY, "min_trade": 9.0}, {}, set()),
    "tick": ({"tick": 0.25}, {}, {"bar.factor"}),
    "volume_cap": ({**IN_CURRENCY, "volume_cap": 0.1}, {}, {"bar.adv"}),
    "flat_at_session_end": ({"flat_at_session_end": True}, {}, {"bar.session_end"}),
    "brackets": ({"brackets": True}, {}, WATCHED | {"events.intrabar_exits", "account.stopped"}),
}
# The same words for what is off, and settings that without another mean nothing.
OFF = {
    "the defaults": {},
    "a capital, and nothing in currency": IN_CURRENCY,
    "a margin of 0": {"maintenance_margin": 0.0},
    "a loss at a last bar, where there is none": {"delist_return": -0.5},
}
LEVERS = (1.0, None), (2.0, 0.0), (2.0, None)  # max_leverage and maintenance_margin
MARKET = full_market(0, 1)  # with every column
PAID = {"paid": np.full((len(MARKET.times), 1), 0.5)}
BARE = dataclasses.replace(
    MARKET, columns=PAID, present=None, delisted=None, funding=None
)  # what is read wherever it is there
UNREAD = dataclasses.replace(BARE, price_factor=None, adv=None, session_end=None)
MOVED = ("broadcast_in_dim", "convert_element_type", "copy", "reshape", "squeeze", "jit", "pjit")  # no arithmetic


@functools.cache
def traced(market, rules, costs):
    """The program of a step, its equations, what goes in and comes out, and what of that no equation reads."""
    settings = {**PLAIN[0], **dict(rules)}
    has_brackets = settings.pop("brackets", False)
    rules, costs = Rules(**settings), Costs(**{**PLAIN[1], **dict(costs)})
    found = ledger_columns(market, costs, rules, brackets=has_brackets)
    financed = costs.has_financing or "funding" in found
    brackets = Brackets(stop_loss=jnp.full(1, 0.1)) if has_brackets else None
    close = jnp.asarray(market.close[0], jnp.float32)
    account = ledger.open_account(jnp.zeros(1), close, rules, brackets=has_brackets, financing=financed)
    bar = bar_between(take_rows(found, 0), take_rows(found, 1), rules)
    given = account, jnp.zeros(1), bar, costs.cast("float32"), brackets
    jaxpr, out = jax.make_jaxpr(lambda *args: ledger.step(*args[:-1], rules, args[-1]), return_shape=True)(*given)
    held = {"account": account, "bar": bar, "events": out[1]}
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(held)]
    inputs = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(given)]
    read = {id(x) for equation in jaxpr.jaxpr.eqns for x in equation.invars}
    unread = {name for name, var in zip(inputs, jaxpr.jaxpr.invars, strict=True) if id(var) not in read}
    return jaxpr, work(jaxpr.jaxpr), {f"{tree.key}.{leaf.name}" for tree, leaf, *_ in paths}, unread


def work(jaxpr):
    """Equations that compute something, those of inner programs included."""
    inner = [each for e in jaxpr.eqns for each in e.params.values() if hasattr(each, "jaxpr")]
    return sum(e.primitive.name not in MOVED for e in jaxpr.eqns) + sum(work(each.jaxpr) for each in inner)


def step_of(market=BARE, rules=(), costs=()):
    return traced(market, tuple(dict(rules).items()), tuple(dict(costs).items()))


def test_a_plain_step_holds_three_prices_and_seven_numbers_and_gives_two_fills():
    program, _, held, unread = step_of()
    assert " _:" not in str(program), "something is computed that nothing takes"
    account = {"cash", "units", "entry", "target", "bars_since_fill", "equity", "ruined"}
    expected = {f"account.{name}" for name in account} | {f"bar.{name}" for name in ("prev_close", "open", "close")}
    assert held == expected | {"events.order", "events.closing"}
    assert unread == {"[0].equity", "[2].prev_close"}  # of a fill at the next open: financing reads them, and rewards


@pytest.mark.parametrize("name", OFF)
def test_a_rule_that_is_off_leaves_the_program_as_it_is_to_the_letter(name):
    program, *rest = step_of()
    for market in (BARE, UNREAD):
        other, *others = step_of(market, OFF[name])
        assert str(other) == str(program)
        assert others == rest


@pytest.mark.parametrize("name", ADDED)
def test_a_rule_that_is_on_adds_work_and_holds_what_it_reads(name):
    rules, costs, own = ADDED[name]
    (_, less, held, _), (_, more, holds, unread) = step_of(), step_of(BARE, rules, costs)
    assert more > less
    assert holds - held == own
    assert not held - holds
    assert unread <= {"[0].equity", "[2].prev_close"}


@pytest.mark.quick(6)
@pytest.mark.parametrize("name", ADDED)
def test_a_rule_that_is_off_where_all_others_are_on_adds_no_work_and_holds_nothing(name):
    def together(parts):
        rules, costs, owns = zip(*parts, strict=True)
        merged = [dict(pair for part in each for pair in part.items()) for each in (rules, costs)]
        return step_of(BARE, *merged), set().union(*owns)

    (_, more, all_of_it, _), every = together(ADDED.values())
    (_, less, held, _), others = together([part for other, part in ADDED.items() if other != name])
    assert more > less
    assert all_of_it - held == every - others
    assert not held - all_of_it


def test_leverage_brings_a_margin_unless_that_is_0():
    plain, free, watched = (step_of(BARE, {"max_leverage": x, "maintenance_margin": m}) for x, m in LEVERS)
    assert free[2] == plain[2]
    assert free[1] < plain[1]  # there is no cut to cash
    assert watched[2] - free[2] == WATCHED | {"events.intrabar_exits"}
    assert watched[1] > free[1]


@pytest.mark.parametrize("name", ["fee", "slippage"])
def test_a_cost_that_is_absent_adds_no_work(name):
    (program, less, *_), (charged, more, *_) = step_of(BARE, (), {name: None}), step_of()
    assert less < more
    assert " sign " not in str(program)  # of the side on which slippage stands, which only the fee on it asks for
    assert " sign " in str(charged)


@pytest.mark.parametrize(("name", "own"), [("present", {"fillable"}), ("delisted", set()), ("funding", set())])
def test_a_column_that_a_market_does_not_have_is_not_traced(name, own):
    _, more, holds, _ = step_of(dataclasses.replace(BARE, **{name: getattr(MARKET, name)}))
    _, less, held, _ = step_of()
    with_it = {"funding": {"account.interest_residual", "events.financing"}, "present": {"events.gap_exits"}}
    assert more > less
    assert holds - held == {f"bar.{column}" for column in {name} | own} | with_it.get(name, set())
