"""The optimum against closed forms, a linear program and the ledger itself; scores against hand-computed agents."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from jaxtrader.envs import rewards
from jaxtrader.envs.costs import Costs
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import optimum
from jaxtrader.evaluation.backtest import follow
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.synthetic import AR1, OrnsteinUhlenbeck, Process, RandomWalk

COSTS = Costs(fee=1e-4, slippage=4e-4)
BARS = 100_000


def environment(process: Process, **settings: object) -> TradingEnv:
    settings = {"positions": (-1, 0, 1), "window": 1, "rebalance_band": 0.0, "costs": COSTS, **settings}
    return TradingEnv(process.market(1000, seed=9), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ar1() -> Optimum:
    process = AR1()
    return solve(process, environment(process), bars=BARS)


def act(best: Optimum, signal: float, held: float) -> float:
    """The exposure that the best policy asks for."""
    account = jnp.asarray([[held, 0, 0, 1]], jnp.float32)
    action, _ = best.policy.act(None, jnp.asarray([signal], jnp.float32), account, None)
    return best.env.positions[int(action)]


def test_without_costs_it_is_the_best_bet_of_each_bar() -> None:
    """Kelly: argmax of E log(1 + w r), whatever is held; the gain is its integral over the signal."""
    process = AR1(volatility=0.05, r2=0.002, persistence=0.9)
    positions = (-1, -0.5, 0, 0.5, 1)
    best = solve(process, environment(process, positions=positions, costs=Costs(None, None)), bars=BARS)

    signals, noise = np.linspace(-4, 4, 81), np.linspace(-8, 8, 801)
    returns = 0.05 * (math.sqrt(0.002) * signals[:, None, None] + math.sqrt(0.998) * noise)
    growth = np.log1p(np.asarray(positions)[:, None] * returns) * scipy.stats.norm.pdf(noise)
    table = np.trapezoid(growth, noise)
    gain = np.trapezoid(table.max(1) * scipy.stats.norm.pdf(signals), signals)
    assert best.gain == pytest.approx(gain, rel=0.01)
    for s, row in zip(signals, table, strict=True):
        if np.diff(np.sort(row))[-1] > 2e-6:  # else a tie
            for held in (-1.0, 0.0, 0.4):
                assert act(best, s, held) == positions[row.argmax()], (s, held)


def linear_program(process: AR1, cost: float, points: int = 61) -> float:
    """The gain of the same problem in another discretisation, by another algorithm.

    Signals in bins with transition probabilities from the normal distribution (Tauchen 1986), the position instead of
    the exposure as state, costs of a switch in closed form, and the primal linear program of an average-reward
    Markov decision process (Puterman 1994, 8.8) over the frequencies of (signal, position, action).
    """
    signals = np.linspace(-4, 4, points)
    edges = np.concatenate([[-np.inf], (signals[1:] + signals[:-1]) / 2, [np.inf]])
    a = process.persistence
    move = np.diff(scipy.stats.norm.cdf((edges[None] - a * signals[:, None]) / math.sqrt(1 - a**2)), axis=1)
    positions = np.array([-1.0, 0.0, 1.0])
    mean = process.volatility * math.sqrt(process.r2) * signals
    variance = process.volatility**2 * (1 - process.r2)
    # log(1 + w r) to second order around the mean, and a switch's |d| cost; a short is rebalanced by 2 E|r| a bar.
    hold = np.log1p(positions * mean[:, None]) - 0.5 * positions**2 * variance
    drift = np.where(positions < 0, 2 * cost * process.volatility * math.sqrt(2 / math.pi), 0)
    reward = hold[:, None, :] - cost * np.abs(positions[None, None] - positions[None, :, None]) - drift
    frequencies = points * 9
    equal = np.zeros((points * 3 + 1, frequencies))
    for s in range(points):
        for p in range(3):
            for n in range(3):
                column = (s * 3 + p) * 3 + n
                equal[s * 3 + p, column] += 1
                equal[np.arange(points) * 3 + n, column] -= move[s]
                equal[-1, column] = 1
    target = np.zeros(points * 3 + 1)
    target[-1] = 1
    solution = scipy.optimize.linprog(-reward.ravel(), A_eq=equal, b_eq=target, method="highs")
    assert solution.success
    return -solution.fun


@pytest.mark.parametrize("process", [AR1(), AR1(0.02, 0.02, 0.8)], ids=["tuning", "other"])
def test_the_gain_equals_a_linear_program(process: AR1, ar1: Optimum) -> None:
    best = ar1 if process == ar1.process else solve(process, environment(process), bars=BARS)
    assert best.gain == pytest.approx(linear_program(process, 5e-4), rel=0.01)
    assert best.reward_per_bar == pytest.approx(best.gain, rel=0.03)  # on a path, from flat every 500 bars


@pytest.mark.parametrize("process", [AR1(), OrnsteinUhlenbeck()], ids=lambda p: p.name)
def test_the_walk_is_what_the_ledger_pays(process: AR1, ar1: Optimum) -> None:
    """The best policy's targets through `simulate`: what it earned, less the luck of the bars, is the score."""
    best = ar1 if process == ar1.process else solve(process, environment(process), bars=BARS)
    params = best.env.default_params
    path = follow(best.policy, None, params, env=best.env, length=BARS)
    book = simulate(best.market, np.asarray(path.target)[:, 0], costs=COSTS)
    weights, returns = process.returns(best.market.features[:, 0, 0])
    held = book.exposure[:, 0]
    # Under next_open the order of t fills at open[t+1] = close[t]: exposure after it, drifted over bar t+1.
    move = best.market.close[1:, 0] / best.market.close[:-1, 0] - 1
    carried = held[1:] / (1 + move * (1 - held[1:]))
    luck = np.log1p(carried * move) - np.log1p(carried[:, None] * returns[:-1]) @ weights
    earned = math.log(book.equity[-1]) - luck.sum()
    assert earned / (BARS - 1) == pytest.approx(best.reward_per_bar, rel=0.02)
    assert abs(luck.mean()) < 4 * luck.std() / math.sqrt(BARS)


def test_no_other_threshold_earns_more(ar1: Optimum) -> None:
    params = ar1.env.default_params
    assert ar1.share(ar1.reward_per_bar) == 1
    for action in range(3):
        for bias in (-6e-4, 6e-4):
            other = ar1.policy.replace(values=ar1.policy.values.at[..., action].add(bias))
            reward, _ = ar1.walk(other, None, params)
            assert ar1.share(float(reward)) < 0.998


def test_holding_and_doing_nothing_score_as_computed_by_hand(ar1: Optimum) -> None:
    params, values = ar1.env.default_params, jnp.zeros_like(ar1.policy.values)
    reward, held = ar1.walk(ar1.policy.replace(values=values.at[..., 2].set(1)), None, params)
    weights, returns = ar1.process.returns(ar1.market.features[:, 0, 0])
    rows = np.asarray(ar1.course.starts)[:, None] + np.arange(optimum.STRETCH)
    bought = -math.log((1 + 4e-4) * (1 + 1e-4))  # all the cash, once a stretch
    expected = (np.log1p(returns[rows]) @ weights).mean() + bought / optimum.STRETCH
    assert float(reward) == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert float(held) == 1
    assert ar1.flat_reward_per_bar == 0
    assert ar1.share(0.0) == 0


def test_on_a_random_walk_the_best_is_to_be_flat() -> None:
    process = RandomWalk()
    best = solve(process, environment(process), bars=10_000)
    assert (best.gain, best.reward_per_bar, best.held) == (pytest.approx(0, abs=1e-9), 0, 0)
    assert math.isnan(best.share(0.0))


def test_what_is_held_is_kept_longer_than_it_would_be_bought(ar1: Optimum) -> None:
    """Costs make a zone of inaction: between two signals each position is kept."""
    assert [act(ar1, 0.0, held) for held in (-1.0, 1.0)] == [-1, 1]
    assert [act(ar1, s, 1.0) for s in (-2.0, 2.0)] == [-1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": rewards.risk_penalised(2.0)}, "known for the reward log_return"),
        ({"fill": "next_close"}, "known for fill='next_open'"),
        ({"rebalance": "on_change"}, "rebalance='always'"),
        ({"positions": (0.5, 1.0)}, "add 0 to the positions"),
    ],
)
def test_what_it_cannot_solve_it_refuses(settings: dict, message: str) -> None:
    process = AR1()
    with pytest.raises(ValueError, match=message):
        solve(process, environment(process, **settings), bars=BARS)


def test_a_path_too_short_and_another_environment_are_refused(ar1: Optimum) -> None:
    process = AR1()
    with pytest.raises(ValueError, match="too short for a score"):
        solve(process, environment(process), bars=400)
    same = dataclasses.replace(environment(process), episode_length=64)
    ar1.check(same)
    for other in ({"costs": Costs(fee=0.01)}, {"positions": (0, 1)}, {"rebalance_band": 0.1}):
        with pytest.raises(ValueError, match="solve it again"):
            ar1.check(environment(process, **other))
