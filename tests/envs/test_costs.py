"""Costs: units, limits, and one compilation whatever the rates."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxtrader.envs.costs import Costs


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
