"""Rewards against NumPy, at the floor, and as data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxtrader.envs import rewards

BEFORE = np.array([1.0, 0.8, 1.7, 0.02], np.float32)
AFTER = np.array([1.01, 0.7, 1.7, 0.015], np.float32)


def test_log_return_is_the_log_of_the_ratio() -> None:
    expected = np.log(AFTER.astype(np.float64) / BEFORE)
    np.testing.assert_allclose(rewards.log_return()(BEFORE, AFTER), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("ruin_level", [0.01, 0.0])
def test_log_returns_add_up_to_the_log_of_the_final_mark_also_far_below_the_floor(ruin_level: float) -> None:
    """With ruin_level 0 an account may live below the floor: staying there must not pay."""
    equity = np.array([1.0, 0.5, 0.02, 5e-6, 6e-6, 5e-6, 4e-6], np.float32)
    equity = equity[: int((equity > ruin_level).sum()) + 1]
    paid = np.asarray(rewards.log_return()(equity[:-1], equity[1:]))
    assert math.isclose(paid.sum(), math.log(rewards.FLOOR), rel_tol=1e-5)
    assert paid.max() <= 0


@pytest.mark.parametrize("reward", [rewards.log_return(), rewards.risk_penalised(5.0)])
@pytest.mark.parametrize("after", [0.0, -3.0, 1e-9])
def test_ruin_pays_a_finite_bad_reward(reward: rewards.Reward, after: float) -> None:
    paid = float(reward(np.float32(0.5), np.float32(after)))
    assert math.isfinite(paid)
    assert paid <= math.log(2e-4) + 1e-4


def test_risk_penalised_charges_half_lambda_r_squared() -> None:
    simple = AFTER.astype(np.float64) / BEFORE - 1
    expected = np.log(1 + simple) - 3.5 * simple**2
    np.testing.assert_allclose(rewards.risk_penalised(7)(BEFORE, AFTER), expected, rtol=1e-4, atol=1e-6)


def test_risk_penalised_with_lambda_0_is_the_log_return() -> None:
    np.testing.assert_allclose(
        rewards.risk_penalised(0.0)(BEFORE, AFTER), rewards.log_return()(BEFORE, AFTER), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("lam", [-0.1, math.nan, math.inf])
def test_a_lambda_that_cannot_be_is_refused(lam: float) -> None:
    with pytest.raises(ValueError, match=r"risk_penalised\(lam="):
        rewards.risk_penalised(lam)


@pytest.mark.parametrize("reward", [rewards.log_return(), rewards.risk_penalised(2.5)])
def test_a_reward_survives_the_way_through_a_file(reward: rewards.Reward) -> None:
    back = rewards.from_dict(rewards.to_dict(reward))
    assert back == reward
    assert hash(back) == hash(reward)


def test_a_users_own_function_is_kept_by_name_only() -> None:
    def profit(before, after):
        return after - before

    stored = rewards.to_dict(profit)
    assert stored["custom"] is True
    assert "profit" in stored["name"]
    assert rewards.from_dict(stored) == rewards.log_return()
