"""Costs: units, limits, and one compilation whatever the rates."""

from __future__ import annotations

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import BY_FILL, full_market, orders_of
from market.price_tables import random_bars
from rule_settings import run_settings

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.bar import check_market
from jaxtrader.ledger.cost_rates import BPS
from jaxtrader.ledger.costs import Costs, from_dict
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

IN_CURRENCY = Rules(rebalance_band=0.0, capital=1e5)


def test_the_default_is_one_and_five_basis_points() -> None:
    assert Costs() == Costs(fee=0.0001, slippage=0.0005)
    default, given = Costs(), Costs.from_bps(2.5, 10)
    assert (Costs.from_bps().fee, Costs.from_bps().slippage) == (default.fee, default.slippage)
    assert math.isclose(given.fee, 0.00025)
    assert math.isclose(given.slippage, 0.001)


def test_basis_points_are_of_numbers_and_of_no_column() -> None:
    """All rates that the command line takes in basis points are in basis points here too."""
    for name in BPS:
        for bps in (2.5, [1, 2], np.float32(2.5)):
            np.testing.assert_allclose(getattr(Costs.from_bps(**{name: bps}), name), np.asarray(bps) * 1e-4)
        assert getattr(Costs.from_bps(**{name: None}), name) is None
        with pytest.raises(ValueError, match=rf"`{name}='spread'` names a column .*`Costs\({name}='spread'\)`"):
            Costs.from_bps(**{name: "spread"})
    assert Costs.from_bps(max_fee=0.01, short_rate="lending") == Costs(1e-4, 5e-4, max_fee=0.01, short_rate="lending")
    assert Costs(slippage="spread").columns == {"slippage": "spread"}


@pytest.mark.parametrize("rate", [-1e-9, 0.5, 5.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["fee", "slippage"])
def test_a_rate_outside_its_limits_is_refused(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}=.*`{name}=0\.0` .*`{name}=0\.5`"):
        Costs(**{name: rate}).validate()


@pytest.mark.parametrize("costs", [Costs(), Costs(0.0, 0.0), Costs(None, None), Costs(0.49, None)])
def test_rates_within_the_limits_pass(costs: Costs) -> None:
    assert costs.validate() is costs


def test_cast_makes_strong_arrays_so_that_other_rates_compile_nothing() -> None:
    @jax.jit
    @chex.assert_max_traces(n=1)
    def total(costs: Costs) -> jax.Array:
        return costs.fee + costs.slippage

    chex.clear_trace_counter()
    for costs in (Costs(), Costs(0, 0.1), Costs(jnp.float32(0.2), 0.0)):
        cast = costs.cast("float32")
        assert cast.fee.dtype == jnp.float32
        assert not cast.fee.weak_type
        assert math.isclose(total(cast), float(costs.fee) + float(costs.slippage), rel_tol=1e-6)


def test_an_absent_cost_stays_absent() -> None:
    cast = Costs(fee=None, slippage=0.0).cast("float32")
    assert cast.fee is None
    assert len(jax.tree.leaves(cast)) == 1


# --- what cannot be, in one sentence ---


def test_numbers_of_unequal_depth_are_no_rates() -> None:
    with pytest.raises(ValueError, match=r"fee=\[0.1, \[0.2, 0.3\]\]` .*one number an asset"):
        Costs(fee=[0.1, [0.2, 0.3]])


OUT_OF_RANGE = [
    ({"fixed_fee": -1.0}, r"fixed_fee=-1.0` .*at least `fixed_fee=0.0` and finite"),
    ({"fixed_fee": math.inf}, r"fixed_fee=inf` .*at least `fixed_fee=0.0` and finite"),
    ({"cash_rate": -0.51}, r"cash_rate=-0.51` .*`cash_rate=-0.5` .*`cash_rate=5.0`"),
    ({"borrow_rate": -0.01}, r"borrow_rate=-0.01` .*`borrow_rate=0.0` .*`borrow_rate=5.0`"),
    ({"short_rate": 5.0}, r"short_rate=5.0` .*`short_rate=0.0` .*`short_rate=5.0`"),
    ({"impact": 10.0}, r"impact=10.0` .*`impact=0.0` .*`impact=10.0`"),
    ({"fee": [0.1, -0.2, 0.1]}, r"fee=-0.2` .*`fee=0.0` .*`fee=0.5`"),
    ({"fee": np.zeros((3, 1))}, r"fee.*\(3, 1\).* one an asset"),
    ({"impact": True}, r"impact=True` .*number"),
]


@pytest.mark.parametrize(("rates", "message"), OUT_OF_RANGE, ids=[next(iter(rates)) for rates, _ in OUT_OF_RANGE])
def test_costs_out_of_range_are_refused_by_whoever_takes_them(rates, message, env, market) -> None:
    costs = Costs(**rates)
    for take in (
        costs.validate,
        lambda: dataclasses.replace(env, costs=costs, rules=IN_CURRENCY),
        lambda: simulate(market, 0.5, costs=costs, rules=IN_CURRENCY, symbol="S0"),
        lambda: Costs.between(costs, costs),
        lambda: simulate(market, {"S0": 0.5}, costs=costs, rules=IN_CURRENCY),
    ):
        with pytest.raises(ValueError, match=message):
            take()


def test_a_list_of_rates_is_one_an_asset_and_charged_so(portfolio) -> None:
    targets = np.tile([0.2, 0.2, 0.1], (len(portfolio.market.close), 1))
    for rates in ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3), np.array([0.1, 0.2, 0.3])):
        costs = Costs(fee=rates)
        assert dataclasses.replace(portfolio, costs=costs).to_dict()["costs"]["fee"] == [0.1, 0.2, 0.3]
        assert costs.cast("float32").fee.shape == (3,)
        first = simulate(portfolio.market, targets, costs=costs).fills[:3]
        np.testing.assert_allclose(first["fee"] / (first["units"] * first["price"] * (1 + 5e-4)), [0.1, 0.2, 0.3])


@pytest.mark.parametrize("name", ["fee", "slippage", "fixed_fee", "short_rate", "impact"])
def test_costs_by_asset_are_one_for_each(name, env, market, portfolio) -> None:
    three, two = Costs(**{name: [0.1, 0.2, 0.3]}), Costs(**{name: [0.1, 0.2]})
    assert dataclasses.replace(portfolio, costs=three, rules=IN_CURRENCY).costs is three
    words = f"`{name}` .*2 .*3 assets"
    for costs in (two, Costs.between(two, two)):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(portfolio, costs=costs, rules=IN_CURRENCY)
    with pytest.raises(ValueError, match=words):
        simulate(portfolio.market, 0.3, costs=two, rules=IN_CURRENCY)
    words = f"`{name}` .*3 .*one asset"
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(env, costs=three, rules=IN_CURRENCY)
    with pytest.raises(ValueError, match=words):
        simulate(market, 0.3, costs=three, rules=IN_CURRENCY, symbol="S0")


@pytest.mark.parametrize("name", ["cash_rate", "borrow_rate"])
def test_the_rates_on_cash_are_no_rates_of_assets(name, portfolio) -> None:
    words = f"`{name}` .*3 .*give one"
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(portfolio, costs=Costs(**{name: [0.1, 0.2, 0.3]}))


@pytest.mark.parametrize("name", ["fixed_fee", "impact"])
def test_costs_in_currency_need_a_capital(name, env, market) -> None:
    costs, words = Costs(**{name: 1.0}), f"`{name}` needs `capital`"
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(env, costs=costs)
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(env, costs=Costs.between(costs, costs))
    with pytest.raises(ValueError, match=words):
        simulate(market, 0.5, costs=costs, symbol="S0")


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (Costs(), Costs(impact=1.0), "impact.* give both a number, or None"),
        (Costs(fee=0.2), Costs(fee=0.1), "fee` .*0.2 .*0.1"),
        (Costs(fee=[0.1, 0.2]), Costs(fee=[0.2, 0.1]), r"fee` .*\[0.1, 0.2\] .*\[0.2, 0.1\]"),
        (Costs(fee=[0.1, 0.1]), Costs(fee=[0.2] * 3), "fee` .*2 .*3 .*one for each asset"),
        (Costs(), None, "two Costs, not None"),
        (0.1, 0.2, "two Costs, not 0.1"),
        (Costs(fee=math.nan), Costs(), "fee=nan` "),
    ],
)
def test_a_range_of_costs_that_is_none_is_refused(low, high, message) -> None:
    with pytest.raises(ValueError, match=message):
        Costs.between(low, high)


def test_a_range_of_one_number_and_one_an_asset_is_a_range(portfolio) -> None:
    costs = Costs.between(Costs(fee=0.0), Costs(fee=[0.1, 0.2, 0.3]))
    drawn = dataclasses.replace(portfolio, costs=costs).costs.cast("float32").draw(jax.random.key(0), (500,))
    assert drawn.fee.shape == (500, 3)
    # The largest of 500 uniform draws is within 5% of the bound but for a chance of 1e-11.
    np.testing.assert_allclose(drawn.fee.max(0), [0.1, 0.2, 0.3], rtol=0.05)
    assert (np.asarray(drawn.fee) < np.float32([0.1, 0.2, 0.3])).all()


def test_a_result_has_one_set_of_costs(market) -> None:
    with pytest.raises(ValueError, match="`middle`"):
        simulate(market, 0.5, costs=Costs.between(Costs(), Costs()), symbol="S0")
    with pytest.raises(ValueError, match=r"`costs=0.001` .*Costs\(fee="):
        simulate(market, 0.5, costs=0.001, symbol="S0")


# --- rates by time: a rate may name a column of the bars ---

RATE_COLUMNS = {"fee": "fees", "slippage": "spread", "short_rate": "lending", "borrow_rate": "debt"}


def with_columns(market, seed=0):
    """The market with a column for each of RATE_COLUMNS. Fees and lending are below 0 on some bars."""
    rng = np.random.default_rng(seed)
    shape = market.close.shape
    columns = {"fees": rng.uniform(-0.001, 0.002, shape), "spread": rng.uniform(0, 0.003, shape)}
    columns |= {
        "lending": rng.uniform(-0.5, 1, shape),
        "debt": rng.uniform(0, 1, (len(market.close), 1)) * np.ones(shape),
    }
    return dataclasses.replace(market, columns=columns)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["next_open", "close"])
def test_rates_by_time_are_those_of_the_bar_of_the_fill(name) -> None:
    assets, rules = BY_FILL[name]
    costs = Costs(**RATE_COLUMNS, fixed_fee=2.0, rebates=("fee", "short_rate"))
    for seed in range(3):
        market, (targets, brackets) = with_columns(full_market(seed, assets)), orders_of(seed, assets)
        result = simulate(market, targets, costs=costs, **brackets, **run_settings(rules))
        assert_same_result(result, reference_of(market, targets, costs, brackets, **rules))
        if name != "close":
            continue
        plain = {**rules, "maintenance_margin": 0.0}  # the fills are then worked out from the holdings
        market = dataclasses.replace(market, funding=None, bar_dt=None)
        result = simulate(market, targets, costs=costs, **run_settings(plain))
        assert_same_result(result, reference_of(market, targets, costs, **plain))


def test_an_environment_charges_the_rate_of_the_bar(env, market) -> None:
    named = dataclasses.replace(market, columns={"spread": np.linspace(0.001, 0.002, len(market.close))[:, None]})
    env = dataclasses.replace(env, market=named, costs=Costs(fee=None, slippage="spread"))
    params = env.default_params
    _, state = jax.jit(env.reset)(jax.random.key(0), params)
    account = jax.jit(env.open_account)(np.zeros(1, np.float32), params.arrays.close[40])
    state = state.replace(account=account, cursor=np.int32(40))
    *_, info = jax.jit(env.step_env)(jax.random.key(0), state, np.int32(2), params)
    np.testing.assert_allclose(info["cost"], named.columns["spread"][41, 0] * info["turnover"], rtol=1e-5)
    assert env.to_dict()["costs"]["slippage"] == "spread"
    assert from_dict(env.to_dict()["costs"]) == env.costs


@pytest.mark.parametrize(
    ("rebates", "message"),
    [
        (("slippage",), "`rebates` names 'slippage', .*fee, borrow_rate, short_rate"),
        ("fee", r"rebates='fee'` must be a tuple of names, as in `rebates=\('fee',\)"),
        (None, "rebates=None` must be a tuple of names"),
    ],
)
def test_what_names_no_rebates_is_refused_at_once(rebates, message) -> None:
    with pytest.raises(ValueError, match=message):
        Costs(rebates=rebates)
    assert Costs(rebates=["fee"]).rebates == ("fee",)


def test_costs_may_hold_what_jax_makes_of_them() -> None:
    low, high = Costs(fee=0.001), Costs(fee=0.4)
    assert jax.tree.map(lambda a, b: a - b, low, high).fee < 0
    assert jax.eval_shape(lambda costs: costs, high.cast("float32")).fee.dtype == jnp.float32


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (Costs(fee="spred"), "fee='spred'` must be a further column of the bars, which are .*spread"),
        (Costs(fee="spread"), r"fee=-0.001` in the column 'spread' .*Costs\(rebates="),
        (Costs(fee=-0.001), r"fee=-0.001` .*Costs\(rebates="),
        (Costs(fee="holed"), "fee='holed'`: the column has no number at .*, a bar of S0; fill it in"),
        (Costs(fee=-0.6, rebates=("fee",)), r"fee=-0.6` .*`fee=-0.5` .*`fee=0.5`"),
    ],
)
def test_a_column_that_holds_no_rates_is_refused(costs, message, env, market) -> None:
    column = np.where(np.arange(len(market.close)) == 7, -0.001, 0.001)[:, None]
    named = dataclasses.replace(market, columns={"spread": column, "holed": np.where(column < 0, np.nan, column)})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(env, market=named, costs=costs)
    with pytest.raises(ValueError, match=message):
        simulate(named, 0.5, costs=costs, symbol="S0")


def test_a_range_of_costs_has_one_column_on_both_sides() -> None:
    both = Costs.between(Costs(fee="fees", slippage=0.0), Costs(fee="fees", slippage=0.1))
    assert both.middle.columns == {"fee": "fees"}
    assert both.cast("float32").draw(jax.random.key(0), (3,)).fee == "fees"
    with pytest.raises(ValueError, match=r"fee.*'fees'"):
        Costs.between(Costs(fee="fees"), Costs(fee=0.1))


def test_a_volume_that_is_not_trusted_is_named_with_its_reason() -> None:
    times = pd.date_range("2024-01-01", periods=60)
    good, thin = random_bars(times, "GOOD"), random_bars(times[5:], "THIN")
    thin = dataclasses.replace(thin, volume=np.where(np.arange(55) % 5 < 4, thin.volume.T, 0).T)
    market = Market.from_bars([good, thin], ["log_return_1"], align=True)
    with pytest.raises(ValueError, match="that of THIN is 0 in 11 of 55 bars; leave it out"):
        check_market(market, Costs(impact=1.0), IN_CURRENCY)
    with pytest.raises(ValueError, match="the history that the market is a part of has none"):
        check_market(market.split("2024-01-09")[0], Costs(impact=1.0), IN_CURRENCY)
    check_market(Market.from_bars(good, ["log_return_1"]), Costs(impact=1.0), IN_CURRENCY)


def test_volume_is_needed_where_it_is_used(env, market) -> None:
    blind = dataclasses.replace(market, adv=None, volume=np.full_like(market.volume, 1_000))
    for name, costs, rules in (
        ("impact", Costs(impact=1.0), IN_CURRENCY),
        ("volume_cap", Costs(), IN_CURRENCY.replace(volume_cap=0.1)),
    ):
        words = f"`{name}` .*, and that of S0 is 1000 in every bar; .*give bars with volume"
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(env, market=blind, costs=costs, rules=rules)
        with pytest.raises(ValueError, match=words):
            simulate(blind, 0.5, costs=costs, rules=rules, symbol="S0")
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(env, costs=costs, rules=rules).with_market(blind)
