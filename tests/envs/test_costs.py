"""Costs: units, limits, and one compilation whatever the rates."""

from __future__ import annotations

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.envs.costs import Costs
from jaxtrader.evaluation.simulate import simulate


def test_the_default_is_one_and_five_basis_points() -> None:
    assert Costs() == Costs(fee=0.0001, slippage=0.0005)
    default, given = Costs(), Costs.from_bps(2.5, 10)
    assert (Costs.from_bps().fee, Costs.from_bps().slippage) == (default.fee, default.slippage)
    assert math.isclose(given.fee, 0.00025)
    assert math.isclose(given.slippage, 0.001)


@pytest.mark.parametrize("rate", [-1e-9, 0.5, 5.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["fee", "slippage"])
def test_a_rate_outside_its_limits_is_refused(name: str, rate: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} .*outside \[0, 0\.5\)"):
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
    with pytest.raises(ValueError, match=r"fee \[0.1, \[0.2, 0.3\]\] must be a number, one number an asset, or None"):
        Costs(fee=[0.1, [0.2, 0.3]])


OUT_OF_RANGE = [
    ({"fixed_fee": -1.0}, r"fixed_fee -1 is outside \[0, inf\): it is an amount of currency for each fill"),
    ({"fixed_fee": math.inf}, r"fixed_fee inf is outside \[0, inf\)"),
    ({"cash_rate": -0.51}, r"cash_rate -0.51 is outside \[-0.5, 5\): it is a rate a year, 0.02 is two percent"),
    ({"borrow_rate": -0.01}, r"borrow_rate -0.01 is outside \[0, 5\)"),
    ({"short_rate": 5.0}, r"short_rate 5 is outside \[0, 5\)"),
    ({"impact": 10.0}, r"impact 10 is outside \[0, 10\): it is the factor Y of the square-root law, about 1"),
    ({"fee": [0.1, -0.2, 0.1]}, r"fee -0.2 is outside"),
    ({"fee": np.zeros((3, 1))}, r"fee has shape \(3, 1\); give a number, or one an asset"),
    ({"fee": "1bp"}, r"fee '1bp' must be a number, one number an asset, or None"),
    ({"impact": True}, r"impact True must be a number"),
]


@pytest.mark.parametrize(("rates", "message"), OUT_OF_RANGE)
def test_costs_out_of_range_are_refused_by_whoever_takes_them(rates, message, env, market) -> None:
    costs = Costs(**rates)
    for take in (
        costs.validate,
        lambda: dataclasses.replace(env, costs=costs, capital=1e5),
        lambda: simulate(market, 0.5, costs=costs, capital=1e5, symbol="S0"),
        lambda: Costs.between(costs, costs),
        lambda: simulate(market, {"S0": 0.5}, costs=costs, capital=1e5),
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
    assert dataclasses.replace(portfolio, costs=three, capital=1e5).costs is three
    words = f"{name} holds 2 numbers; give one, or one for each of the 3 assets"
    for costs in (two, Costs.between(two, two)):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(portfolio, costs=costs, capital=1e5)
    with pytest.raises(ValueError, match=words):
        simulate(portfolio.market, 0.3, costs=two, capital=1e5)
    words = f"{name} holds 3 numbers; give one, as the market has one asset"
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(env, costs=three, capital=1e5)
    with pytest.raises(ValueError, match=words):
        simulate(market, 0.3, costs=three, capital=1e5, symbol="S0")


@pytest.mark.parametrize("name", ["cash_rate", "borrow_rate"])
def test_the_rates_on_cash_are_no_rates_of_assets(name, portfolio) -> None:
    words = f"{name} holds 3 numbers; give one, as all assets share one cash account"
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(portfolio, costs=Costs(**{name: [0.1, 0.2, 0.3]}))


@pytest.mark.parametrize("name", ["fixed_fee", "impact"])
def test_costs_in_currency_need_a_capital(name, env, market) -> None:
    costs, words = Costs(**{name: 1.0}), f"{name} needs capital, the initial capital in the market's currency"
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(env, costs=costs)
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(env, costs=Costs.between(costs, costs))
    with pytest.raises(ValueError, match=words):
        simulate(market, 0.5, costs=costs, symbol="S0")


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (Costs(), Costs(impact=1.0), "only one of the two costs has impact; give both a number, or None"),
        (Costs(fee=0.2), Costs(fee=0.1), "fee is 0.2 in the low costs and 0.1 in the high ones"),
        (Costs(fee=[0.1, 0.2]), Costs(fee=[0.2, 0.1]), r"fee is \[0.1, 0.2\] in the low costs"),
        (Costs(fee=[0.1, 0.1]), Costs(fee=[0.2] * 3), "fee holds 2 numbers in the low costs and 3 in the high ones"),
        (Costs(), None, "Costs.between needs two Costs, not None"),
        (0.1, 0.2, "Costs.between needs two Costs, not 0.1"),
        (Costs(fee=math.nan), Costs(), "fee nan is outside"),
    ],
)
def test_a_range_of_costs_that_is_none_is_refused(low, high, message) -> None:
    with pytest.raises(ValueError, match=message):
        Costs.between(low, high)


def test_a_range_of_one_number_and_one_an_asset_is_a_range(portfolio) -> None:
    costs = Costs.between(Costs(fee=0.0), Costs(fee=[0.1, 0.2, 0.3]))
    drawn = dataclasses.replace(portfolio, costs=costs).costs.cast("float32").draw(jax.random.key(0), (500,))
    assert drawn.fee.shape == (500, 3)
    np.testing.assert_allclose(drawn.fee.max(0), [0.1, 0.2, 0.3], rtol=0.05)
    assert (np.asarray(drawn.fee) < np.float32([0.1, 0.2, 0.3])).all()


def test_a_book_has_one_set_of_costs(market) -> None:
    with pytest.raises(ValueError, match="one set of Costs, not a range of them; take its `middle`"):
        simulate(market, 0.5, costs=Costs.between(Costs(), Costs()), symbol="S0")
    with pytest.raises(ValueError, match=r"costs 0.001 must be Costs\(fee="):
        simulate(market, 0.5, costs=0.001, symbol="S0")


def test_volume_is_needed_where_it_is_used(env, market) -> None:
    blind = dataclasses.replace(market, adv=None)
    words = "needs a trustworthy volume, and the market has none; leave it out, or give bars with volume"
    for what, setting in (("impact", {"costs": Costs(impact=1.0)}), ("volume_cap", {"volume_cap": 0.1})):
        with pytest.raises(ValueError, match=f"{what} {words}"):
            dataclasses.replace(env, market=blind, capital=1e5, **setting)
        with pytest.raises(ValueError, match=f"{what} {words}"):
            simulate(blind, 0.5, capital=1e5, symbol="S0", **setting)
        with pytest.raises(ValueError, match=f"{what} {words}"):
            dataclasses.replace(env, capital=1e5, **setting).with_market(blind)
