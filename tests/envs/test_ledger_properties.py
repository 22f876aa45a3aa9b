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
from ledger_books import BARS, BASE, CASES, FULL, RATES, book_of, costs_of, market_of, orders_of

from jaxtrader.envs import ledger
from jaxtrader.envs.account import REASONS, Bar, Brackets
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.rules import Rules
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.simulate import simulate

few = settings(max_examples=12, deadline=None, derandomize=True)  # the same in every run: a test of a commit
seeds = st.integers(0, 10_000)

# --- the book -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@few
@given(seeds, st.sampled_from([0.03, 0.2]))  # beyond, units of a price near 0 leave a rest in the sums below
def test_the_book_is_what_its_fills_and_its_carry_make_of_the_prices(name, seed, volatility):
    book, market = book_of(name, seed, volatility=volatility)
    assets, fills, asset = market.close.shape[1], book.fills, columns_of(book)
    paid = fills["units"] * fills["price"] + fills["fee"] + fills["slippage"]
    units = np.zeros((BARS, assets))
    np.add.at(units, (fills["bar"], asset), fills["units"])
    units = np.cumsum(units, 0)
    cash = 1 - np.cumsum(np.bincount(fills["bar"], paid, BARS)) + np.cumsum(book.carry)
    scale = np.abs(book.equity).max() + 1
    np.testing.assert_allclose(cash + (units * market.close).sum(1), book.equity, rtol=0, atol=1e-11 * scale)
    # Of a price that has fallen to nothing there were many: a sum rounds by the largest.
    np.testing.assert_allclose(units, book.units, rtol=0, atol=1e-13 * np.abs(fills["units"]).max(initial=1))
    # What was carried: rule 6, on what was held at the close before.
    before, worth = cash[:-1], units[:-1] * market.close[:-1]
    short, years = np.maximum(-worth, 0).sum(1), market.dt[1:]
    carry = RATES["cash_rate"] * years * np.maximum(0, before - short)
    carry -= RATES["borrow_rate"] * years * np.maximum(0, -before) + RATES["short_rate"] * years * short
    carry -= (market.funding[1:] * worth).sum(1)
    carry[BARS if book.ruined_at is None else book.ruined_at :] = 0
    np.testing.assert_allclose(book.carry[1:], carry, rtol=0, atol=1e-11 * scale)
    # What the fills cost: rule 4, by what was known when the order was sized.
    known = fills["bar"] - (name != "close")
    value, side = np.abs(fills["units"]) * fills["price"], np.sign(fills["units"])
    if name == "close":  # what a bracket, the margin or the end closes is still priced by the bar before
        known = np.where(fills["reason"] == "order", known, known - 1)
    impact = np.minimum(0.5 * market.volatility[known, asset] * np.sqrt(value * 1e5 / market.adv[known, asset]), 1)
    np.testing.assert_allclose(fills["slippage"], value * (0.002 + impact), rtol=1e-11, atol=1e-15)
    fee = np.broadcast_to(book.costs.fee, assets)[asset]
    np.testing.assert_allclose(fills["fee"], (value + side * fills["slippage"]) * fee + 2e-5, rtol=1e-11)


@pytest.mark.parametrize("name", CASES)
@few
@given(seeds, st.sampled_from([0.03, 0.6]))
def test_every_fill_keeps_the_rules_it_was_made_under(name, seed, volatility):
    book, market = book_of(name, seed, volatility=volatility)
    fills, rules, asset = book.fills, book.rules, columns_of(book)
    bar, price = fills["bar"], fills["price"]
    delisted, order = (fills["reason"] == reason for reason in ("delisted", "order"))
    low, high, close = (getattr(market, column)[bar, asset] for column in ("low", "high", "close"))
    np.testing.assert_allclose(price[delisted], 0.7 * close[delisted], rtol=1e-15)
    assert ((price >= low) & (price <= high))[~delisted].all()
    assert market.present[bar, asset][~np.isin(fills["reason"], ["ruin", "session end"])].all()
    at = market.open if rules.fill == "next_open" else market.close
    np.testing.assert_array_equal(price[order], at[bar, asset][order])
    assert (fills["position"][~order] == 0).all()
    assert (book.units[market.session_end] == 0).all() or not rules.flat_at_session_end
    # Whole lots of raw shares, none too small, none beyond the volume; a target of 0 sells what there is, if it can.
    known = bar - (rules.fill != "close")
    lots = np.abs(fills["units"]) * 1e5 * market.price_factor[bar, asset] / 5
    whole = np.abs(lots - np.round(lots)) < 1e-6 + 1e-14 * lots  # where a price has fallen to nothing they are many
    assert (whole | (fills["position"] == 0))[order].all()
    value = np.abs(fills["units"]) * price * 1e5
    assert (value[order] >= 500 * (1 - 1e-12)).all()
    assert (value <= 0.2 * market.adv[known, asset] * (1 + 1e-9))[order].all()


def test_the_random_books_contain_every_reason():
    """Else the properties above would say less than they seem to."""
    for name in CASES:
        books = [book_of(name, seed, volatility=x)[0] for seed in range(15) for x in (0.03, 0.6)]
        missing = set(REASONS) - {str(reason) for book in books for reason in book.fills["reason"]}
        # Where the margin is watched, ruin finds something left to close on missing bars at most.
        assert missing - {"ruin"} == (set() if name == "next_close" else {"session end"}), name
        assert sum(book.ruined_at is not None for book in books) > 3
        assert sum(book.clipped for book in books) > 10
        assert sum(book.dropped for book in books) > 10


def columns_of(book):
    """The column of each fill."""
    return np.array([book.symbols.index(symbol) for symbol in book.fills["symbol"]], int)


@pytest.mark.parametrize("name", CASES)
@few
@given(seeds, st.integers(5, BARS - 2))
def test_what_comes_later_changes_nothing_before(name, seed, t):
    """All columns, targets and brackets after bar t are others': everything up to it is the same to the last bit."""
    assets, rules = CASES[name]
    (targets, brackets), (others, other_brackets) = orders_of(seed, assets), orders_of(seed + 1, assets)
    market, other = market_of(seed, assets), market_of(seed + 1, assets)
    later = np.arange(BARS) > t

    def mixed(mine, theirs):
        return np.where(later[:, None] if mine.ndim > 1 else later, theirs, mine)

    columns = ("open", "high", "low", "close", "volatility", "dt", "present", "delisted", "funding", "price_factor")
    columns += ("adv", "session_end")
    changed = dataclasses.replace(market, **{c: mixed(getattr(market, c), getattr(other, c)) for c in columns})
    before = simulate(market, targets, costs=costs_of(assets), **brackets, **rules)
    brackets = {side: mixed(brackets[side], other_brackets[side]) for side in brackets}
    after = simulate(changed, mixed(targets, others), costs=costs_of(assets), **brackets, **rules)
    for column in ("equity", "units", "exposure", "carry", "costs_paid", "turnover"):
        np.testing.assert_array_equal(getattr(after, column)[: t + 1], getattr(before, column)[: t + 1], column)
    known = [book.fills[book.fills["bar"] <= t] for book in (before, after)]
    np.testing.assert_array_equal(*known)


@few
@given(seeds, st.permutations([0, 1, 2]))
def test_the_order_of_the_assets_does_not_matter(seed, order):
    rules, (targets, brackets), market = CASES["next_open"][1], orders_of(seed, 3), market_of(seed, 3)
    book = simulate(market, targets, costs=costs_of(3), **brackets, **rules)
    columns = ("open", "high", "low", "close", "volatility", "present", "delisted", "funding", "price_factor", "adv")
    turned = dataclasses.replace(market, **{name: getattr(market, name)[:, order] for name in columns})
    costs = costs_of(3, fee=costs_of(3).fee[list(order)])
    brackets = {name: x[:, order] for name, x in brackets.items()}
    other = simulate(turned, targets[:, order], costs=costs, **brackets, **rules)
    np.testing.assert_allclose(other.equity, book.equity, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(other.units, book.units[:, order], rtol=1e-9, atol=1e-11)
    assert (other.clipped, other.dropped, other.ruined_at) == (book.clipped, book.dropped, book.ruined_at)


@few
@given(seeds, st.lists(st.integers(-20, 20), min_size=3, max_size=3))
def test_the_scale_of_prices_does_not_matter_without_lots_and_impact(seed, powers):
    """Each asset in a unit of its own, a power of two: no rounding differs, so neither does a bit of the equity."""
    scale = 2.0 ** np.array(powers)
    rules = {k: v for k, v in FULL.items() if k not in ("lot", "volume_cap", "delay")}
    (targets, brackets), market = orders_of(seed, 3), market_of(seed, 3)
    costs = costs_of(3, impact=None)
    prices = {name: getattr(market, name) * scale for name in ("open", "high", "low", "close")}
    book = simulate(market, targets, costs=costs, **brackets, **rules)
    scaled = simulate(dataclasses.replace(market, **prices), targets, costs=costs, **brackets, **rules)
    np.testing.assert_array_equal(scaled.equity, book.equity)
    np.testing.assert_array_equal(scaled.units * scale, book.units)
    np.testing.assert_array_equal(scaled.fills["reason"], book.fills["reason"])


@few
@given(seeds, st.integers(-20, 20))
def test_an_adjustment_of_prices_does_not_matter_whatever_is_on(seed, power):
    """Lots are of raw shares and volume is of currency: neither changes when the adjusted price does."""
    scale = 2.0**power
    book, market = book_of("next_open", seed)
    names = ("open", "high", "low", "close", "price_factor")
    scaled = dataclasses.replace(market, **{name: getattr(market, name) * scale for name in names})
    np.testing.assert_array_equal(book_of("next_open", seed, scaled)[0].equity, book.equity)


# --- interest -----------------------------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from([0.0, np.nan]))
def test_flat_stays_flat_but_for_interest(seed, target):
    for name, (assets, rules) in CASES.items():
        market, (_, brackets) = market_of(seed, assets), orders_of(seed, assets)
        book = simulate(market, target, costs=costs_of(assets), **brackets, **rules)
        assert not len(book.fills), name
        np.testing.assert_allclose(book.equity, np.cumprod(1 + 0.3 * market.dt), rtol=1e-13)


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
    """With band, lots, brackets, margin and ruin off: nothing happens in the one account and not in the other."""
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
