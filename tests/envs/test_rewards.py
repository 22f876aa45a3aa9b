"""Rewards against NumPy, at the floor, and as data, and those of a whole move against plain loops over random paths."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.envs import rewards
from jaxtrader.envs.rewards import Move, MoveReward
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.account import EQUITY_FLOOR, Account, open_account
from jaxtrader.ledger.bar import Bar

MOVES = (
    rewards.over_benchmark(),
    rewards.drawdown_penalized(2.0),
    rewards.differential_sharpe(0.05, 0.02),
    rewards.differential_downside(0.1, 0.01),
)

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
    assert math.isclose(paid.sum(), math.log(EQUITY_FLOOR), rel_tol=1e-5)
    assert paid.max() <= 0


@pytest.mark.parametrize("reward", [rewards.log_return(), rewards.risk_penalized(5.0)])
@pytest.mark.parametrize("after", [0.0, -3.0, 1e-9])
def test_ruin_pays_a_finite_bad_reward(reward: rewards.Reward, after: float) -> None:
    paid = float(reward(np.float32(0.5), np.float32(after)))
    assert math.isfinite(paid)
    assert paid <= math.log(2e-4) + 1e-4


def test_risk_penalized_charges_half_lambda_r_squared() -> None:
    simple = AFTER.astype(np.float64) / BEFORE - 1
    expected = np.log(1 + simple) - 3.5 * simple**2
    np.testing.assert_allclose(rewards.risk_penalized(7)(BEFORE, AFTER), expected, rtol=1e-4, atol=1e-6)


def test_risk_penalized_with_lambda_0_is_the_log_return() -> None:
    np.testing.assert_allclose(
        rewards.risk_penalized(0.0)(BEFORE, AFTER), rewards.log_return()(BEFORE, AFTER), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("lam", [-0.1, math.nan, math.inf])
def test_a_lambda_that_cannot_be_is_refused(lam: float) -> None:
    with pytest.raises(ValueError, match=r"risk_aversion=.* must be at least 0"):
        rewards.risk_penalized(lam)


@pytest.mark.parametrize("reward", [rewards.log_return(), rewards.risk_penalized(2.5), *MOVES])
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


def test_a_reward_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the reward Omega is unknown; known are LogReturn, .*DifferentialRatio"):
        rewards.from_dict({"name": "Omega", "risk_aversion": 1.0})


# --- rewards of a whole move ---


opened = jax.jit(open_account)


def accounts(equity: np.ndarray, ruined: np.ndarray | None = None, assets: int = 1) -> Account:
    """Flat accounts of these equities."""
    shape, dtype = (*equity.shape, assets), equity.dtype
    flat = opened(np.zeros(shape, dtype), np.ones(shape, dtype))
    dead = np.zeros(equity.shape, bool) if ruined is None else ruined
    return flat.replace(equity=jnp.asarray(equity), cash=jnp.asarray(equity), ruined=dead)


@partial(jax.jit, static_argnums=0)
def paid(reward: MoveReward, moves: tuple, start: object) -> tuple:
    def step(state, row):
        earned, state = reward(Move(*row), state)
        return state, (earned, state)

    return jax.lax.scan(step, start, moves)[1]


def along(reward: MoveReward, equity: np.ndarray, close: np.ndarray | None = None, dtype: str = "float64") -> tuple:
    """Rewards `[time, path]` and the states after each bar, of accounts with equity `[time + 1, path]`."""
    close = np.ones((*equity.shape, 1)) if close is None else close
    equity, close = equity.astype(dtype), close.astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        bars = Bar(*(jnp.asarray(x) for x in (close[:-1], close[:-1], close[1:])))
        rows = (accounts(equity[:-1]), accounts(equity[1:]), bars)
        earned, states = paid(reward, rows, reward.begin(equity.shape[1:], dtype))
        assert earned.dtype == jnp.dtype(dtype)
        return np.asarray(earned), jax.tree.map(np.asarray, states)


def paths(bars: int = 400, count: int = 8, seed: int = 0) -> np.ndarray:
    """Equity `[time, path]` from 1 on: deviations from 0.1% to 5% a bar, with and without edge, with rests."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, np.geomspace(0.001, 0.05, count), (bars, count)) + np.linspace(-0.002, 0.002, count)
    steps *= rng.random((bars // 20, count)).repeat(20, 0) < 0.8  # every fifth stretch of 20 bars is spent flat
    return np.exp(np.concatenate([np.zeros((1, count)), steps]).cumsum(0))


def moody_saffell(equity: np.ndarray, eta: float, volatility: float, downside: bool) -> tuple[np.ndarray, np.ndarray]:
    """D of one path as the paper writes it, with B + (volatility / 10)^2 for B in it, and A, B after each bar."""
    extra = (0.1 * volatility) ** 2
    a, b, out, moments = 0.0, volatility**2, [], []
    for before, after in pairwise(equity.tolist()):
        r = after / before - 1
        held = b + extra
        if not downside:
            da, db = r - a, r * r - b
            d = (held * da - 0.5 * a * db) / (held - a * a) ** 1.5
        elif r > 0:  # in the paper (r - A / 2) / DD, from (r - A) / DD + A DD^2 / (2 DD^3)
            d = (r - a) / held**0.5 + 0.5 * a * b / held**1.5
        else:
            d = (held * (r - a) - 0.5 * a * (r * r - b)) / held**1.5
        loss = min(r, 0.0) ** 2 if downside else r * r
        a, b = a + eta * (r - a), b + eta * (loss - b)
        out.append(d)
        moments.append((a, b))
    return np.array(out), np.array(moments)


def ratio(a: np.ndarray, b: np.ndarray, volatility: float, downside: bool) -> np.ndarray:
    return a / np.sqrt(b - (0 if downside else a * a) + (0.1 * volatility) ** 2)


@pytest.mark.parametrize("downside", [False, True])
@pytest.mark.parametrize(("eta", "volatility"), [(0.05, 0.02), (0.1, 0.01)])
def test_the_differential_ratios_are_those_of_the_paper(eta: float, volatility: float, downside: bool) -> None:
    make = rewards.differential_downside if downside else rewards.differential_sharpe
    equity = paths()
    earned, (mean, second) = along(make(eta, volatility), equity)
    for path in range(equity.shape[1]):
        expected, moments = moody_saffell(equity[:, path], eta, volatility, downside)
        np.testing.assert_allclose(earned[:, path], expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.stack([mean[:, path], second[:, path]], -1), moments, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("downside", [False, True])
def test_they_are_the_derivative_of_the_moving_ratio_by_eta(downside: bool) -> None:
    """Central differences of A / sqrt(V) after the bar, around a newest weight of 0."""
    make = rewards.differential_downside if downside else rewards.differential_sharpe
    equity = paths(seed=1)
    earned, moments = along(make(0.1, 0.01), equity)
    a, b = (x[:-1] for x in moments)
    r = (equity[1:] / equity[:-1] - 1)[1:]
    square = np.minimum(r, 0) ** 2 if downside else r * r
    h = 1e-6
    up, down = (ratio(a + k * (r - a), b + k * (square - b), 0.01, downside) for k in (h, -h))
    np.testing.assert_allclose(earned[1:], (up - down) / (2 * h), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("downside", [False, True])
def test_eta_times_their_sum_is_the_growth_of_the_ratio(downside: bool) -> None:
    make = rewards.differential_downside if downside else rewards.differential_sharpe
    eta, equity = 1e-4, paths(bars=2000, seed=2)
    earned, (mean, second) = along(make(eta, 0.01), equity)
    grown = ratio(mean[-1], second[-1], 0.01, downside)  # from 0
    assert np.abs(grown).max() > 0.005
    np.testing.assert_allclose(eta * earned.sum(0), grown, rtol=0.02, atol=1e-5)


def test_the_first_two_bars_of_the_differential_sharpe_by_hand() -> None:
    """A = 0, B = 1e-4, and 1e-6 is added. Bar 1: r 0.02, D = 0.02 / sqrt(1.01e-4). A' = 0.002, B' = 1.3e-4.

    Bar 2: r -0.01, dA = -0.012, dB = -3e-5, D = (1.31e-4 x -0.012 + 0.001 x 3e-5) / (1.27e-4)^1.5.
    """
    earned, (mean, second) = along(rewards.differential_sharpe(0.1, 0.01), np.array([[1.0], [1.02], [1.02 * 0.99]]))
    np.testing.assert_allclose(earned[:, 0], [1.9900744, -1.0774106], rtol=1e-5)
    np.testing.assert_allclose(mean[:, 0], [0.002, 0.0008], rtol=1e-9)
    np.testing.assert_allclose(second[:, 0], [1.3e-4, 1.27e-4], rtol=1e-9)


@pytest.mark.parametrize("make", [rewards.differential_sharpe, rewards.differential_downside])
def test_after_a_long_rest_the_differential_ratios_stay_in_scale(make) -> None:
    """The moments decay to 0 in 5,000 flat bars. Then a return of one usual deviation must not be paid without end."""
    equity = np.concatenate([np.ones(5001), [1.01]])[:, None]
    earned, _ = along(make(0.02, 0.01), equity, dtype="float32")
    np.testing.assert_array_equal(earned[:-1], 0)
    np.testing.assert_allclose(earned[-1], 10.0, rtol=1e-4)  # 0.01 over the floor 0.001


@pytest.mark.parametrize("make", [rewards.differential_sharpe, rewards.differential_downside])
def test_ruin_never_pays_also_where_more_variance_would_raise_the_ratio(make) -> None:
    reward = make(0.1, 0.01)
    state = (jnp.float32(-0.01), jnp.float32(2e-4))
    still = Bar(*(jnp.ones(1) for _ in range(3)))
    half = partial(accounts, np.float32(0.5))
    alive, _ = reward(Move(half(), accounts(np.float32(0.005)), still), state)
    dead, _ = reward(Move(half(), accounts(np.float32(0.005), np.True_), still), state)
    variance = 2e-4 - (0 if make is rewards.differential_downside else 1e-4) + 1e-6
    assert alive > 0, "the formula itself pays for the crash"
    np.testing.assert_allclose(dead, (-0.99 + 0.01) / math.sqrt(variance), rtol=1e-4)


def test_the_drawdown_is_that_of_a_running_peak_and_the_sum_tells_the_last_one() -> None:
    equity, lam, gamma = paths(seed=3), 2.0, 0.97
    earned, drawdown = along(rewards.drawdown_penalized(lam), equity)
    for path in range(equity.shape[1]):
        peak, last, expected, depths = 1.0, 0.0, [], []
        for before, after in pairwise(equity[:, path].tolist()):
            peak = max(peak, after)
            depth = math.log(peak / after)
            expected.append(math.log(after / before) - lam * (depth - last))
            depths.append(depth)
            last = depth
        np.testing.assert_allclose(earned[:, path], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(drawdown[:, path], depths, rtol=1e-9, atol=1e-12)
        assert max(depths) > 0.01
    np.testing.assert_allclose(earned.sum(0), np.log(equity[-1]) - lam * drawdown[-1], atol=1e-11)
    # Discounted, the drawdown itself is charged: lam (1 - gamma) a bar.
    weight = gamma ** np.arange(len(earned))[:, None]
    charged = np.log(equity[1:] / equity[:-1]) - lam * (1 - gamma) * drawdown
    last = lam * gamma ** len(earned) * drawdown[-1]
    np.testing.assert_allclose((weight * earned).sum(0), (weight * charged).sum(0) - last, atol=1e-11)


def test_a_drawdown_and_its_recovery_by_hand() -> None:
    """1, 0.8, 0.9, 1.2 with lambda 2: the loss counts three times, so does the way back, and gains above once."""
    earned, drawdown = along(rewards.drawdown_penalized(2.0), np.array([[1.0], [0.8], [0.9], [1.2]]))
    back, above = math.log(1 / 0.9), math.log(1.2)
    np.testing.assert_allclose(earned[:, 0], [3 * math.log(0.8), 3 * math.log(0.9 / 0.8), 3 * back + above])
    np.testing.assert_allclose(drawdown[:, 0], [math.log(1 / 0.8), math.log(1 / 0.9), 0], atol=1e-12)
    seen = rewards.drawdown_penalized(2.0).observe(jnp.asarray(drawdown[:, 0]))
    np.testing.assert_allclose(seen, [[0.2], [0.1], [0.0]], atol=1e-6)


def test_drawdown_penalized_with_lambda_0_is_the_log_return() -> None:
    equity = paths(seed=4)
    earned, _ = along(rewards.drawdown_penalized(0.0), equity)
    np.testing.assert_allclose(earned, np.log(equity[1:] / equity[:-1]), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("assets", [1, 3])
def test_over_benchmark_takes_off_equal_shares_of_the_assets(assets: int) -> None:
    equity = paths(seed=5)
    rng = np.random.default_rng(6)
    close = 50 * np.exp(rng.normal(0, 0.02, (*equity.shape, assets)).cumsum(0))
    close[100:120, :, -1] = close[99, :, -1]  # missing bars hold their last close
    earned, state = along(rewards.over_benchmark(), equity, close)
    assert state is None
    held = np.zeros(equity.shape[1])
    for path in range(equity.shape[1]):
        for t in range(len(equity) - 1):
            growth = sum(close[t + 1, path, i] / close[t, path, i] for i in range(assets)) / assets
            expected = math.log(equity[t + 1, path] / equity[t, path]) - math.log(growth)
            held[path] += math.log(growth)
            assert math.isclose(earned[t, path], expected, rel_tol=1e-9, abs_tol=1e-12)
    np.testing.assert_allclose(earned.sum(0), np.log(equity[-1]) - held, atol=1e-10)
    if assets == 1:  # buy-and-hold of the asset
        np.testing.assert_allclose(held, np.log(close[-1] / close[0])[:, 0], atol=1e-10)


@pytest.mark.parametrize("reward", MOVES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rewards_of_moves_stay_finite_and_bounded_through_ruin_and_beyond(reward: MoveReward, dtype: str) -> None:
    equity = np.array([1.0, 1.5, 40.0, 0.3, 1e-9, -3.0, -3.0, 0.0, 0.0, 2e-5, 1e6, 1e6, 1e-6, -1e5, 1.0])[:, None]
    earned, states = along(reward, equity, dtype=dtype)
    assert np.isfinite(earned).all()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states))
    if reward.observed:
        seen = np.asarray(reward.observe(states))
        assert seen.shape == (len(earned), 1, len(reward.observed))
        assert np.abs(seen).max() <= 3


@pytest.mark.parametrize("reward", MOVES)
def test_a_state_has_the_shape_and_dtype_asked_for_and_float32_follows_float64(reward: MoveReward) -> None:
    for x in jax.tree.leaves(reward.begin((3, 2), jnp.float32)):
        assert (x.shape, x.dtype, x.weak_type) == ((3, 2), jnp.float32, False)
    equity = paths(seed=7)
    exact, _ = along(reward, equity)
    rough, _ = along(reward, equity, dtype="float32")
    # Equity is rounded to 6e-8, so its return over a deviation of at least 0.001 to some 1e-4.
    np.testing.assert_allclose(rough, exact, rtol=1e-3, atol=1e-3)


def test_a_move_tells_the_exposure_it_leaves() -> None:
    price, close = np.float32([[10.0, 4.0]]), np.float32([[11.0, 4.0]])
    account = jax.tree.map(np.asarray, opened(np.float32([[0.5, -0.25]]), price))
    after = account.replace(equity=account.cash + (account.units * close).sum(-1))
    told = jax.jit(lambda *move: [getattr(Move(*move), name) for name in ("exposure", "simple_return", "benchmark")])
    exposure, simple_return, benchmark = told(account, after, Bar(price, close, close))
    np.testing.assert_allclose(exposure, [[0.55 / 1.05, -0.25 / 1.05]], rtol=1e-6)
    np.testing.assert_allclose(simple_return, [0.05], rtol=1e-6)
    np.testing.assert_allclose(benchmark, [math.log(1.05)], rtol=1e-5)
    gone = after.replace(equity=np.zeros(1, np.float32), units=np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(told(account, gone, Bar(price, close, close))[0], 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rewards.drawdown_penalized(-1.0), r"risk_aversion=-1.0` must be at least 0 .*drawdown_penalized"),
        (lambda: rewards.drawdown_penalized(math.nan), r"risk_aversion=nan` must be"),
        (lambda: rewards.risk_penalized("a"), r"risk_aversion='a'` must be a number"),
        (lambda: rewards.drawdown_penalized(None), r"risk_aversion=None` must be a number"),
        (lambda: rewards.differential_sharpe("a"), r"eta='a'` must be a number"),
        (lambda: rewards.differential_downside(0.1, True), r"volatility=True` must be a number"),
        (lambda: rewards.differential_sharpe(0.0), r"differential_sharpe\(eta=0.0\)` is outside \(0, 1\)"),
        (lambda: rewards.differential_sharpe(1.0), r"differential_sharpe\(eta=1.0\)"),
        (lambda: rewards.differential_downside(math.nan), r"differential_downside\(eta=nan\)"),
        (lambda: rewards.differential_sharpe(0.1, 0.0), r"volatility=0.0\)` must be finite and above 0"),
        (lambda: rewards.differential_downside(0.1, math.inf), r"volatility=inf\)` must be finite"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda: 0, "must take the equities before and after a bar"),
        (lambda before, after: float(after), "as arrays of JAX, and fails on them"),
        (lambda before, after: (before, after), "fails on them"),
        (lambda before, after: after[:, None] - before, r"makes an array of shape \(2, 2\)"),
        (rewards.differential_sharpe, "must take the equities"),
        (rewards.log_return, r"is the class LogReturn; give an object: `LogReturn\(\)`"),
    ],
)
def test_a_function_that_makes_no_rewards_is_refused(env: TradingEnv, reward: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(env, reward=reward)


@pytest.mark.parametrize("reward", [lambda before, after: after / before - 1, lambda before, after: 0.0, jnp.subtract])
def test_a_function_of_two_equities_is_a_reward(env: TradingEnv, reward: Any) -> None:
    assert dataclasses.replace(env, reward=reward).reward is reward
