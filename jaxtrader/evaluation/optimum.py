"""The best policy on a synthetic market, by dynamic programming on the environment's own ledger, and scores against it.

`solve` finds it; `Optimum.share` says how much of its expected reward an agent gets, on a path that it was not trained
on. Only markets whose law is known can be scored so (`market/synthetic.py`).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float, Int

from jaxtrader.envs import ledger
from jaxtrader.envs.costs import CostRange, Costs
from jaxtrader.envs.ledger import Account, Bar
from jaxtrader.envs.rewards import LogReturn
from jaxtrader.envs.rules import Rules
from jaxtrader.envs.state import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.envs.windows import window_chunks
from jaxtrader.market.market import Market
from jaxtrader.market.synthetic import Process

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SIGNALS = np.linspace(-4.5, 4.5, 121)  # in deviations: beyond is less than 1 bar in 100,000
EXPOSURE_STEP = 0.02
MARGIN = 0.2  # how far a position drifts beyond the exposures that can be ordered
STRETCH = 500  # bars that a scored account lives: a path is walked in many stretches side by side
BLOCK = 50  # decisions encoded at once


class TabledPolicy(struct.PyTreeNode):
    """A policy read off a table: the action with the highest value at the nearest known signals and exposures.

    It has the two methods of an agent that acting needs, so it walks through a market as any agent does.

    Attributes:
        values: of each action, at each signal and each exposure held.
        signals, exposures: where.
        actions: what each column of `values` stands for.
    """

    values: Float[Array, "signal exposure action"]
    signals: Float[Array, "signal"]
    exposures: Float[Array, "exposure"]
    actions: Array

    def encode(self, state: Any, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b bars 1"]:
        """The signal of each bar."""
        return chunk[..., 0, :1]

    def act(
        self, state: Any, context: Array, account: Float[Array, "*c assets K"], key: Any, deterministic: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """The best action, between the grid's points by bilinear interpolation of the values."""
        signal, exposure = jnp.broadcast_arrays(context[..., 0], account[..., 0, 0])
        i, f = _place(self.signals, signal)
        j, g = _place(self.exposures, exposure)
        f, g = f[..., None], g[..., None]
        low = (1 - g) * self.values[i, j] + g * self.values[i, j + 1]
        high = (1 - g) * self.values[i + 1, j] + g * self.values[i + 1, j + 1]
        return self.actions[jnp.argmax((1 - f) * low + f * high, -1)], {}


class Course(struct.PyTreeNode):
    """Where an agent is scored: stretches of a path side by side, and what may follow each of its bars.

    Attributes:
        starts: the tape row of each stretch's first decision.
        returns: the next bar's simple return in each of k outcomes, at every row.
        weights: their probabilities.
    """

    starts: Int[Array, "stretch"]
    returns: Float[Array, "time k"]
    weights: Float[Array, "k"]


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """The best that can be had from a process by an environment's rules, and a fresh path of it to be judged on.

    Attributes:
        process: the law of the market.
        env: the environment, over the fresh path.
        course: the fresh path, as it is walked.
        policy: the best one.
        gain: its expected reward a bar in the long run, as the dynamic program has it.
        reward_per_bar: the same on this path.
        flat_reward_per_bar: of doing nothing, likewise.
        held: share of this path's bars on which the best policy holds a position.
    """

    process: Process
    env: TradingEnv
    course: Course
    policy: TabledPolicy
    gain: float
    reward_per_bar: float
    flat_reward_per_bar: float
    held: float

    @property
    def market(self) -> Market:
        """The fresh path."""
        return self.env.market

    def on_path(self, bars: int, seed: int) -> Optimum:
        """The same policy, to be compared with on another path."""
        return _scored(self.process, self.env, self.policy, self.gain, bars, seed)

    def describe(self) -> str:
        """One line for config and policy files."""
        return f"the optimum of {self.process!r} on a fresh path of {len(self.market.times):,} bars"

    def check(self, env: TradingEnv) -> None:
        """Raise ValueError where an environment has other rules, costs or positions than the optimum was found for."""
        same = dataclasses.replace(env, episode_length=self.env.episode_length, random_start=self.env.random_start)
        if same != self.env or same.to_dict() != self.env.to_dict():
            raise ValueError(
                "the optimum was found for another environment; solve it again: optimum.solve(process, env)"
            )

    def walk(self, agent: Any, state: Any, params: EnvParams) -> tuple[Array, Array]:
        """An agent's expected reward a bar on the path, and the share of bars on which it holds a position.

        Args:
            agent, state: decide, by the mode.
            params: of `env`, prepared by the agent.
        """
        return walk(agent, state, params, self.course, env=self.env)

    def share(self, reward_per_bar: float) -> float:
        """(policy - flat) / (best - flat) of expected rewards a bar; NaN where nothing is better than flat."""
        best = self.reward_per_bar - self.flat_reward_per_bar
        return (reward_per_bar - self.flat_reward_per_bar) / best if best > 1e-9 else float("nan")


def solve(process: Process, env: TradingEnv, bars: int = 1_000_000, seed: int = 1_000_003) -> Optimum:
    """The policy of highest expected reward a bar, by relative value iteration (Puterman 1994, 8.5.5).

    The state is the signal and the exposure held, on a grid; the reward is the environment's expected log return after
    costs, its expectation over the next bar by Gauss-Hermite quadrature; what an order does is asked of `env.advance`.

    Args:
        process: the law of the market.
        env: whose rules, costs and positions count; its market is not looked at.
        bars: length of the fresh path for scores.
        seed: of that path; training paths must have another.

    Raises:
        ValueError: no position of 0 to choose, another reward than the log return, fills that are not at the close
            decided on, or a ledger whose state is more than the exposure.
    """
    if not isinstance(env.reward, LogReturn):
        raise ValueError(f"the optimum is known for the reward log_return(), not {env.reward!r}")
    if env.fill == "next_close" or env.rebalance != "always":
        raise ValueError(
            f"the optimum is known for fill='next_open' and rebalance='always', not {env.fill!r} and {env.rebalance!r}"
        )
    plain = Rules(env.fill, env.rebalance_band, env.rebalance, env.ruin_level)
    costs = env.costs
    two_rates = not isinstance(costs, CostRange) and costs == Costs(costs.fee, costs.slippage)
    if env.decision_every > 1 or env.rules != plain or not two_rates:
        raise ValueError(
            "the optimum is known for an account without leverage, brackets, lots, delays and limits, that decides at "
            "every bar and whose costs are one fee and one slippage"
        )
    if not isinstance(env.positions, str) and 0 not in env.positions:
        raise ValueError(f"a score is measured from doing nothing: add 0 to the positions {env.positions}")
    actions, grid = _actions(env), _exposures(env)
    values, gain = _iterate(process, grid, *_orders(env, actions, grid))
    tables = (jnp.asarray(x, jnp.float32) for x in (values, SIGNALS, grid))
    policy = TabledPolicy(*tables, actions=jnp.asarray(actions))
    return _scored(process, env, policy, gain, bars, seed)


def _scored(process: Process, env: TradingEnv, policy: TabledPolicy, gain: float, bars: int, seed: int) -> Optimum:
    """The best policy, and doing nothing, walked along a path."""
    env = env.with_market(process.market(bars, seed))
    weights, returns = process.returns(env.market.features[:, 0, 0])
    course = Course(jnp.asarray(_stretches(env)), jnp.asarray(returns, jnp.float32), jnp.asarray(weights, jnp.float32))
    params = env.default_params
    best, held = walk(policy, None, params, course, env=env)
    idle = policy.replace(values=jnp.zeros_like(policy.values).at[..., _idle(env, np.asarray(policy.actions))].set(1))
    flat, _ = walk(idle, None, params, course, env=env)
    return Optimum(process, env, course, policy, gain, float(best), float(flat), float(held))


@partial(jax.jit, static_argnames="env")
def walk(agent: Any, state: Any, params: EnvParams, course: Course, *, env: TradingEnv) -> tuple[Array, Array]:
    """Expected reward a bar and share of bars with a position, over stretches of STRETCH bars that begin flat.

    Each bar counts with its expectation given the signal and what is held, not with what happened: the noise of prices
    cancels out of scores. An account is scaled back to 1 at every bar, which changes no decision and no log return; so
    nothing compounds over a million bars.
    """
    tape = params.tape

    def step(account: Account, row: Any) -> tuple[Account, Any]:
        context, now = row
        price = tape.close[now]
        seen = env.account_features(account, price, tape.volatility[now])
        action, _ = agent.act(state, context, seen, jax.random.key(0), deterministic=True)
        # open[t+1] = close[t]: a bar that does not move shows what the order alone does.
        traded, _, _, _ = env.advance(account, action, Bar(price, price, price), params)
        exposure = ledger.exposure(traded, price)[..., 0]
        outcomes = jnp.log1p(exposure[:, None] * course.returns[now])
        expected = jnp.log(traded.equity / account.equity) + outcomes @ course.weights
        return _scaled(traded, tape.close[now + 1]), (expected, jnp.abs(exposure) > 1e-3)

    def block(account: Account, offset: Array) -> tuple[Account, Any]:
        first = course.starts + offset
        contexts = agent.encode(state, window_chunks(tape, first, env.window, BLOCK))
        rows = first + jnp.arange(BLOCK)[:, None]
        return jax.lax.scan(step, account, (jnp.moveaxis(contexts, 1, 0), rows))

    price = tape.close[course.starts]
    flat = ledger.open_account(jnp.zeros_like(price), price)
    _, (expected, held) = jax.lax.scan(block, flat, jnp.arange(0, STRETCH, BLOCK))
    return expected.mean(), held.mean()


def _scaled(account: Account, price: Float[Array, "*b A"]) -> Account:
    """An account marked at a price and divided by its equity."""
    equity = ledger.value(account, price)
    return account.replace(
        cash=account.cash / equity, units=account.units / equity[..., None], equity=jnp.ones_like(equity)
    )


def _stretches(env: TradingEnv) -> np.ndarray:
    """Rows at which stretches of STRETCH decisions begin, one after another in each history."""
    first, (_, _, end) = env.market.first_cursors(env.window), env.market.segments.T
    starts = [np.arange(a, b - STRETCH, STRETCH) for a, b in zip(first, end, strict=True)]
    if not sum(map(len, starts)):
        raise ValueError(
            f"a path of {len(env.market.times)} bars is too short for a score with window {env.window}; "
            f"give more than {env.window + STRETCH}, or a smaller window"
        )
    return np.concatenate(starts).astype(np.int32)


def _actions(env: TradingEnv) -> np.ndarray:
    """What the dynamic program chooses from, as `env.advance` takes it: indices, or exposures on the grid."""
    if isinstance(env.positions, str):
        least = -1.0 if env.positions == "continuous" else 0.0
        return np.arange(least, 1 + 1e-9, EXPOSURE_STEP).astype(np.float32)[:, None]
    return np.arange(env.num_actions, dtype=np.int32)


def _exposures(env: TradingEnv) -> np.ndarray:
    """The exposures at which values are known: even steps, and every position, where values have their kinks."""
    steps = np.arange(-1 - MARGIN, 1 + MARGIN + 1e-9, EXPOSURE_STEP).round(9)
    return np.unique([*steps, *(() if isinstance(env.positions, str) else env.positions)])


def _idle(env: TradingEnv, actions: np.ndarray) -> int:
    """The action closest to holding nothing."""
    exposures = actions[:, 0] if isinstance(env.positions, str) else np.asarray(env.positions)
    return int(np.argmin(np.abs(exposures)))


def _orders(env: TradingEnv, actions: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each order costs as a log return, and the exposure that it leaves, from each exposure held `[w, n]`."""
    with jax.enable_x64(True):
        held = jnp.repeat(jnp.asarray(grid, jnp.float64)[:, None], len(actions), 1)[..., None]
        account = ledger.open_account(held, jnp.ones_like(held))
        asked = jnp.broadcast_to(jnp.asarray(actions), (len(grid), *actions.shape))
        still = jnp.ones_like(held)
        params = env.params("float64")
        account, _, _, _ = env.advance(account, asked, Bar(still, still, still), params)
        return np.log(account.equity), np.asarray(ledger.exposure(account, still)[..., 0])


def _iterate(
    process: Process, grid: np.ndarray, cost: np.ndarray, exposure: np.ndarray, tolerance: float = 1e-9
) -> tuple[np.ndarray, float]:
    """Values `[signal, exposure, action]` up to a constant, and the gain a bar, to `tolerance`."""
    weights, returns, following = process.outcomes(SIGNALS)
    growth = 1 + grid[:, None, None] * returns  # [w, s, k]
    reward = (np.log(growth) @ weights).T  # [s, w]
    moved = grid[:, None, None] * (1 + returns) / growth
    transition = _transition(grid, weights, following, moved)
    j, g = _place_on(grid, exposure)
    value = np.zeros((len(SIGNALS), len(grid)))
    for _ in range(20_000):
        later = reward + (transition @ value.ravel()).reshape(value.shape)
        values = cost + (1 - g) * later[:, j] + g * later[:, j + 1]
        new = values.max(-1)
        change = new - value
        if np.ptp(change) < tolerance:
            return values, float(change.mean())
        value = new - new[len(SIGNALS) // 2, len(grid) // 2]
    raise AssertionError("relative value iteration did not converge: the signal is too persistent for its grid")


def _transition(grid: np.ndarray, weights: np.ndarray, following: np.ndarray, moved: np.ndarray) -> csr_array:
    """Probabilities from each (signal, exposure after the order) to those at the next decision, linear between points.

    following `[s, k]`, moved `[w, s, k]`.
    """
    signals, exposures, count = len(SIGNALS), len(grid), len(weights)
    i, f = _place_on(SIGNALS, np.broadcast_to(following[:, None], (signals, exposures, count)))
    j, g = _place_on(grid, np.moveaxis(moved, 0, 1))
    rows = np.broadcast_to(np.arange(signals * exposures).reshape(signals, exposures, 1), i.shape)
    corners = [(0, 0, (1 - f) * (1 - g)), (1, 0, f * (1 - g)), (0, 1, (1 - f) * g), (1, 1, f * g)]
    data = np.stack([weights * part for _, _, part in corners])
    columns = np.stack([(i + a) * exposures + j + b for a, b, _ in corners])
    size = signals * exposures
    where = (np.broadcast_to(rows, data.shape).ravel(), columns.ravel())
    from scipy.sparse import coo_array  # a tenth of a second to import: only where it is used

    return coo_array((data.ravel(), where), (size, size)).tocsr()


def _place_on(grid: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid point at or below each x, and the share of the way to the next; clamped to the ends."""
    i = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
    return i, np.clip((x - grid[i]) / (grid[i + 1] - grid[i]), 0, 1)


def _place(grid: Float[Array, "n"], x: Float[Array, "*b"]) -> tuple[Int[Array, "*b"], Float[Array, "*b"]]:
    """`_place_on` in JAX."""
    i = jnp.clip(jnp.searchsorted(grid, x, side="right") - 1, 0, grid.shape[0] - 2)
    return i, jnp.clip((x - grid[i]) / (grid[i + 1] - grid[i]), 0, 1)
