"""The optimum against closed forms, linear programs, its neighbours and the ledger, and scores against agents by
hand."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.stats
from rule_settings import env_settings

from jaxtrader.envs import rewards
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import optimum
from jaxtrader.evaluation.backtest import rollout_policy
from jaxtrader.evaluation.optimum import Optimum, solve
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.market.synthetic import AR1, HiddenRegime, OrnsteinUhlenbeck, Process, RandomWalk

COSTS = Costs(fee=1e-4, slippage=4e-4)
BARS = 100_000
DISCRETE = (-1, 0, 1)
# The best exposure of "(b)" is nearly always a bound of it. That of "(b) between", 1 / volatility x sqrt(r2) = 1 a
# deviation of the signal, nearly never is.
CASES: dict[str, tuple[AR1 | OrnsteinUhlenbeck | HiddenRegime, Any, float]] = {
    "(a)": (AR1(), DISCRETE, 5e-4),
    "(a) other": (AR1(0.02, 0.02, 0.8), DISCRETE, 5e-4),
    "(b)": (AR1(), "continuous", 5e-4),
    "(b) between": (AR1(0.02, 4e-4, 0.9), "continuous", 8e-5),
    "(d)": (OrnsteinUhlenbeck(), DISCRETE, 5e-4),
    "(h)": (HiddenRegime(volatility=0.004), DISCRETE, 5e-4),
}


def environment(process: Process, **settings: object) -> TradingEnv:
    settings = {"positions": DISCRETE, "window": 1, "rebalance_band": 0.0, "costs": COSTS, **settings}
    return TradingEnv(process.market(1000, seed=9), **env_settings(settings))  # type: ignore[arg-type]


def solve_anew(case: str) -> Optimum:
    process, positions, cost = CASES[case]
    costs = Costs(fee=0.2 * cost, slippage=0.8 * cost)
    return solve(process, environment(process, positions=positions, costs=costs), bars=BARS)


solved = functools.cache(solve_anew)


@pytest.fixture
def ar1() -> Optimum:
    return solved("(a)")


decide = jax.jit(optimum.TabularPolicy.act)


def act(best: Optimum, signals: Any, exposures: Any) -> np.ndarray:
    """The exposures that the best policy asks for, at each signal and exposure."""
    signals, exposures = (x.astype(np.float32) for x in np.broadcast_arrays(signals, exposures))
    action, _ = decide(best.policy, None, signals[..., None], exposures[..., None, None], None)
    return np.asarray(best.env.positions)[action]


@pytest.mark.slow
def test_without_costs_it_is_the_best_bet_of_each_bar() -> None:
    """Kelly: argmax of E log(1 + w r), from any exposure. The gain is its integral over the signal."""
    process = AR1(volatility=0.05, r2=0.002, persistence=0.9)
    positions = (-1, -0.5, 0, 0.5, 1)
    best = solve(process, environment(process, positions=positions, costs=Costs(None, None)), bars=BARS)

    signals, noise = np.linspace(-4, 4, 81), np.linspace(-8, 8, 801)
    returns = 0.05 * (math.sqrt(0.002) * signals[:, None, None] + math.sqrt(0.998) * noise)
    growth = np.log1p(np.asarray(positions)[:, None] * returns) * scipy.stats.norm.pdf(noise)
    table = np.trapezoid(growth, noise)
    gain = np.trapezoid(table.max(1) * scipy.stats.norm.pdf(signals), signals)
    # Both are integrals over a grid, see below.
    assert best.gain == pytest.approx(gain, rel=0.01)
    clear = np.diff(np.sort(table))[:, -1] > 2e-6  # else a tie
    expected = np.asarray(positions)[table.argmax(1)]
    for exposure in (-1.0, 0.0, 0.4):
        np.testing.assert_array_equal(act(best, signals, exposure)[clear], expected[clear], err_msg=str(exposure))


def binned(process: Process, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns and their probabilities `[state, n]`, and the probabilities between bins of states."""
    edges = np.concatenate([[-np.inf], (signals[1:] + signals[:-1]) / 2, [np.inf]])
    noise = np.linspace(-8, 8, 801)
    width = noise[1] - noise[0]
    density = np.broadcast_to(scipy.stats.norm.pdf(noise) * width, (len(signals), len(noise)))
    if isinstance(process, HiddenRegime):
        most = math.log(1 / process.switching - 1)
        up = 1 / (1 + np.exp(-signals[:, None] * most / 4.5))
        high, low = (scipy.stats.norm.pdf(noise - mean) * width for mean in (process.drift, -process.drift))
        density = up * high + (1 - up) * low
        after = process.switching + (1 - 2 * process.switching) * up * high / density
        following = np.log(after / (1 - after)) / most * 4.5
        found = np.digitize(following, edges[1:-1])
        move = np.stack([np.bincount(*row, len(signals)) for row in zip(found, density, strict=True)])
        return np.broadcast_to(process.volatility * noise, density.shape), density, move / move.sum(1, keepdims=True)
    assert isinstance(process, AR1 | OrnsteinUhlenbeck)
    a = process.persistence
    move = np.diff(scipy.stats.norm.cdf((edges[None] - a * signals[:, None]) / math.sqrt(1 - a**2)), axis=1)
    if isinstance(process, AR1):
        returns = process.volatility * (math.sqrt(process.r2) * signals[:, None] + math.sqrt(1 - process.r2) * noise)
    else:
        deviation = process.volatility / math.sqrt(1 - a**2)
        returns = np.exp(process.volatility * noise - (1 - a) * deviation * signals[:, None]) - 1
    return returns, density, move


def linear_program(process: Process, exposures: np.ndarray, cost: float, points: int) -> float:
    """The gain of the same problem in another discretisation, by another algorithm.

    States are in bins with transition probabilities by integration (Tauchen 1986), and an exposure stays where it was
    put. This is the primal linear program of an average-reward Markov decision process (Puterman 1994, 8.8). It is over
    the frequencies at each (signal, exposure) of living through a bar, of buying up to the next exposure and of selling
    down to the last. Costs in proportion are those of a chain of small orders.
    """
    signals, count = np.linspace(-4.5, 4.5, points), len(exposures)
    returns, density, move = binned(process, signals)
    live = (np.log1p(exposures[:, None] * returns[:, None]) * density[:, None]).sum(-1)
    # A bar takes a short of -1 to -1 - 2r. Beyond the bound it is bought back, and discrete positions trade either way.
    drift = 2 * cost * (np.abs(returns) * density).sum(-1) * (1.0 if count == 3 else 0.5)
    live -= np.where(exposures == -1, drift[:, None], 0)
    order = np.tile(-cost * np.diff(exposures), points)
    buy = scipy.sparse.diags_array([1.0, -1.0], offsets=[0, -1], shape=(count, count - 1))
    buy = scipy.sparse.kron(scipy.sparse.eye_array(points), buy)
    stay = scipy.sparse.kron(np.eye(points) - move.T, scipy.sparse.eye_array(count))
    whole = np.repeat([1.0, 0.0], [live.size, 2 * order.size])[None]
    solution = scipy.optimize.linprog(
        -np.concatenate([live.ravel(), order, order]),
        A_eq=scipy.sparse.vstack([scipy.sparse.hstack([stay, buy, -buy]), whole]).tocsr(),
        b_eq=np.repeat([0.0, 1.0], [live.size, 1]),
        method="highs",
    )
    assert solution.success
    return -solution.fun


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gain_equals_a_linear_program(case: str) -> None:
    """To 1%: bins of width h add h^2 / 12 to the variance of a signal's step, exposures d apart lose (vol. d)^2 / 24.

    The former is 0.1% to 1% of a step's, and half of that of the gain. The latter is half the variance of an exposure
    that is off by up to d / 2. It is 0.4% of the gain of "(b) between", and none of what is best at a bound.
    """
    process, positions, cost = CASES[case]
    exposures, points = (np.linspace(-1, 1, 11), 61) if positions == "continuous" else (np.array(positions, float), 121)
    best = solved(case)
    assert best.gain == pytest.approx(linear_program(process, exposures, cost, points), rel=0.01)
    assert best.reward_per_bar == pytest.approx(best.gain, rel=0.03)  # on a path, from flat every 500 bars


@pytest.mark.slow
@pytest.mark.parametrize("case", ["(a)", "(b)", "(d)"])
def test_a_grid_of_half_as_many_points_moves_the_line_by_less_than_a_thousandth(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score of 0.99 must not depend on how fine the program is. Scores go by what its policy earns on the path.

    Half the step of a grid errs by a quarter as much. So what the line moves by is three times its error, and what the
    gain moves by three times that of the gain. The gain is interpolated, which adds to it. On (b), whose signal is
    (a)'s, only the exposures are coarser.
    """
    fine = solved(case)
    if case == "(b)":
        monkeypatch.setattr(optimum, "EXPOSURE_STEP", 2 * optimum.EXPOSURE_STEP)
    else:
        monkeypatch.setattr(optimum, "SIGNALS", np.linspace(-4.5, 4.5, 61))
    coarse = solve_anew(case)
    assert coarse.policy.values.size < 0.6 * fine.policy.values.size
    more = 1.0004 if case == "(b)" else 1.0  # fewer exposures to choose from
    assert 0.97 * coarse.gain < fine.gain < more * coarse.gain
    # The line moves by 0.7e-4 to 3e-4.
    assert fine.reward_per_bar == pytest.approx(coarse.reward_per_bar, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["(a)", "(b)", "(d)", "(h)"])
def test_the_score_is_what_the_ledger_pays(case: str) -> None:
    """The best policy's targets through `simulate`: what it earned, less the luck of the bars, is the score."""
    best = solved(case)
    with jax.enable_x64(True):  # an account that grows so long is beyond float32
        known = optimum.known_states(best.process, best.env)
        params = known.params("float64")
        path = jax.tree.map(np.asarray, rollout_policy(best.policy, None, params, env=known, decisions=BARS))
    result = simulate(best.market, np.asarray(path.target)[:, 0], costs=COSTS)
    weights, returns = best.process.returns(best.process.states(best.market))
    exposure = result.exposure[:, 0]
    # Under next_open the order of t fills at open[t+1] = close[t]: exposure after it, drifted over bar t+1.
    move = best.market.close[1:, 0] / best.market.close[:-1, 0] - 1
    ordered = exposure[1:] / (1 + move * (1 - exposure[1:]))
    expected = (np.log1p(ordered[:, None] * returns[:-1]) * np.broadcast_to(weights, returns.shape)[:-1]).sum(-1)
    luck = np.log1p(ordered * move) - expected
    earned = math.log(result.equity[-1]) - luck.sum()
    # The grid of the optimum, and the noise of the signals in these bars.
    assert earned / (BARS - 1) == pytest.approx(best.reward_per_bar, rel=0.02)
    assert abs(luck.mean()) < 4 * luck.std() / math.sqrt(BARS)


# What is added to the value of each order, in costs: for its size, for the exposure asked for and for its amount.
NEIGHBOURS = {"wider": (-0.5, 0, 0), "narrower": (0.5, 0, 0), "longer": (0, 1, 0), "shorter": (0, -1, 0)}
NEIGHBOURS |= {"bolder": (0, 0, 1), "shyer": (0, 0, -1)}


SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in ("(b) between", "(d)")]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["(a)", *SLOW])
def test_no_neighbour_earns_more(case: str) -> None:
    """The same policy with all thresholds moved, on the same path: near the best, and below it."""
    best, cost = solved(case), CASES[case][2]
    policy, positions = jax.tree.map(np.asarray, best.policy), best.env.positions
    asked = policy.actions[:, 0] if isinstance(positions, str) else np.asarray(positions)[policy.actions]
    assert best.share(best.reward_per_bar) == 1
    for name, (size, tilt, amount) in NEIGHBOURS.items():
        bias = size * np.abs(asked - policy.exposures[:, None]) + tilt * asked + amount * np.abs(asked)
        moved = policy.replace(values=policy.values + np.float32(cost) * bias.astype(np.float32))
        reward, _ = best.score(moved, None, best.env.default_params)
        assert 0.9 < best.share(float(reward)) < 0.9995, name


def test_holding_and_doing_nothing_score_as_computed_by_hand(ar1: Optimum) -> None:
    params, values = ar1.env.default_params, np.zeros(ar1.policy.values.shape, np.float32)
    values[..., 2] = 1
    reward, time_in_market = ar1.score(ar1.policy.replace(values=values), None, params)
    weights, returns = ar1.process.returns(ar1.market.features[:, 0, 0])
    rows = np.asarray(ar1.path.starts)[:, None] + np.arange(optimum.SEGMENT_BARS)
    bought = -math.log((1 + 4e-4) * (1 + 1e-4))  # all the cash, once a segment
    expected = (np.log1p(returns[rows]) @ weights).mean() + bought / optimum.SEGMENT_BARS
    assert float(reward) == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert float(time_in_market) == 1
    assert ar1.flat_reward_per_bar == 0
    assert ar1.share(0.0) == 0


@pytest.mark.slow
def test_on_a_random_walk_the_best_is_to_be_flat() -> None:
    process = RandomWalk()
    best = solve(process, environment(process), bars=10_000)
    assert (best.gain, best.reward_per_bar, best.time_in_market) == (pytest.approx(0, abs=1e-9), 0, 0)
    assert math.isnan(best.share(0.0))


def test_costs_make_a_zone_of_inaction(ar1: Optimum) -> None:
    """Between two signals each position is kept."""
    assert act(ar1, 0.0, [-1.0, 1.0]).tolist() == [-1, 1]
    assert act(ar1, [-2.0, 2.0], 1.0).tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": rewards.risk_penalized(2.0)}, "log_return"),
        ({"fill": "next_close"}, "fill='next_open'"),
        ({"rebalance": "on_change"}, "rebalance='always'"),
        ({"positions": (0.5, 1.0)}, "add 0 to `positions="),
    ],
)
def test_what_it_cannot_solve_it_refuses(settings: dict, message: str) -> None:
    process = AR1()
    with pytest.raises(ValueError, match=message):
        solve(process, environment(process, **settings), bars=BARS)


def test_things_of_another_type_are_refused() -> None:
    process = AR1()
    env = environment(process)
    with pytest.raises(ValueError, match="solve needs a Process, not a Market"):
        solve(env.market, env)
    with pytest.raises(ValueError, match="solve needs a TradingEnv, not a Market"):
        solve(process, env.market)


def test_a_path_too_short_and_another_environment_are_refused(ar1: Optimum) -> None:
    process = AR1()
    with pytest.raises(ValueError, match="too short for a score"):
        solve(process, environment(process), bars=400)
    same = dataclasses.replace(environment(process), episode_length=64)
    ar1.check(same)
    for other in ({"costs": Costs(fee=0.01)}, {"positions": (0, 1)}, {"rebalance_band": 0.1}):
        with pytest.raises(ValueError, match="solve it again"):
            ar1.check(environment(process, **other))
