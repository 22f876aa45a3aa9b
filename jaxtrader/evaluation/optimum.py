"""The best policy on a synthetic market, by dynamic programming on the environment's own ledger.

`solve` finds it. `Optimum.share` says how much of its expected reward an agent gets, on a path that the agent was not
trained on. Only markets with a known distribution can be scored so (`market/synthetic.py`).
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

from jaxtrader.envs.episode import EnvAccount, EnvParams, Rows, Trajectory, run
from jaxtrader.envs.observation import chunks
from jaxtrader.envs.rewards import LogReturn
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.jax_settings import package_settings
from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.ledger.rules import SHORT_MARGIN, Rules
from jaxtrader.market.market import Market
from jaxtrader.market.synthetic import Process
from jaxtrader.setting_checks import check_type, setting

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SIGNALS = np.linspace(-4.5, 4.5, 121)  # in standard deviations. Less than 1 bar in 100,000 lies beyond.
EXPOSURE_STEP = 0.02
TOLERANCE = 1e-9  # the error of the gain at which the iteration ends
MARGIN = 0.2  # how far the grid goes beyond the exposures that can be ordered, since positions drift
SEGMENT_BARS = 500  # the length of a segment. A path is scored in many of them side by side.
BLOCK = 50  # decisions encoded at once


class TabularPolicy(struct.PyTreeNode):
    """A policy from a table of values: it takes the action with the highest interpolated value.

    It has the two methods of an agent that acting needs, so that it runs where an agent does. As features it reads the
    states of the process, see `known_states`.

    Attributes:
        values: the value of each action, at each state and each exposure before it.
        signals, exposures: the grid. Its signals are the states.
        actions: the actions, as the environment takes them.
    """

    values: Float[Array, "signal exposure action"]
    signals: Float[Array, " signal"]
    exposures: Float[Array, " exposure"]
    actions: Array

    def encode(self, state: Any, chunk: Float[Array, "*b bars assets features"]) -> Float[Array, "*b bars 1"]:
        """The state at each bar."""
        return chunk[..., 0, :1]

    def act(
        self, state: Any, context: Array, account: Float[Array, "*c assets K"], key: Any, deterministic: bool = True
    ) -> tuple[Array, dict[str, Array]]:
        """The action of the highest value, by bilinear interpolation between the points of the grid."""
        signal, exposure = jnp.broadcast_arrays(context[..., 0], account[..., 0, 0])
        i, f = _locate(self.signals, signal, jnp)
        j, g = _locate(self.exposures, exposure, jnp)
        f, g = f[..., None], g[..., None]
        low = (1 - g) * self.values[i, j] + g * self.values[i, j + 1]
        high = (1 - g) * self.values[i + 1, j] + g * self.values[i + 1, j + 1]
        return self.actions[jnp.argmax((1 - f) * low + f * high, -1)], {}


class ScoringPath(struct.PyTreeNode):
    """A path on which agents are scored: its segments, and the distribution of the return after each of its bars.

    Attributes:
        starts: the row of each segment's first decision in the market's arrays.
        returns: the next bar's simple return in each of k outcomes, at every row.
        weights: the probabilities of the outcomes, at every row or the same at all.
    """

    starts: Int[Array, " segment"]
    returns: Float[Array, "time k"]
    weights: Float[Array, "time k"] | Float[Array, " k"]


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """The best policy on a process under an environment's rules, and a fresh path of the process to score agents on.

    Attributes:
        process: the process that makes the market.
        env: the environment, over the fresh path.
        path: the fresh path, as agents are scored on it.
        policy: the best policy.
        gain: its expected reward a bar in the long run, by the dynamic program.
        reward_per_bar: its expected reward a bar on this path.
        flat_reward_per_bar: the expected reward a bar of doing nothing on this path.
        time_in_market: share of this path's bars on which the best policy has a position.
    """

    process: Process
    env: TradingEnv
    path: ScoringPath
    policy: TabularPolicy
    gain: float
    reward_per_bar: float
    flat_reward_per_bar: float
    time_in_market: float

    @property
    def market(self) -> Market:
        """The fresh path."""
        return self.env.market

    @package_settings()
    def on_path(self, bars: int, seed: int) -> Optimum:
        """The same optimum with another path to score on."""
        return _scored(self.process, self.env, self.policy, self.gain, bars, seed)

    def describe(self) -> str:
        """One line for config and policy files."""
        return f"the optimum of {self.process!r} on a fresh path of {len(self.market.times):,} bars"

    def check(self, env: TradingEnv) -> None:
        """Raise ValueError where an environment has other settings than the one that the optimum was found for."""
        same = dataclasses.replace(env, episode_length=self.env.episode_length, random_start=self.env.random_start)
        if same != self.env or same.to_dict() != self.env.to_dict():
            raise ValueError(
                "the optimum was found for another environment; solve it again: `optimum.solve(process, env)`"
            )

    @package_settings()
    def score(self, agent: Any, state: Any, params: EnvParams) -> tuple[Array, Array]:
        """An agent's expected reward a bar on the path, and the share of bars on which it has a position.

        Args:
            agent: the agent, which decides by its mode.
            state: the agent's state.
            params: the parameters of `env`, prepared by the agent.
        """
        return score(agent, state, params, self.path, env=self.env)

    def share(self, reward_per_bar: float) -> float:
        """(policy - flat) / (best - flat) of expected rewards a bar. NaN where nothing is better than flat."""
        best = self.reward_per_bar - self.flat_reward_per_bar
        return (reward_per_bar - self.flat_reward_per_bar) / best if best > 1e-9 else float("nan")


@package_settings()
def solve(process: Process, env: TradingEnv, bars: int = 1_000_000, seed: int = 1_000_003) -> Optimum:
    """The policy of highest expected reward a bar, by relative value iteration (Puterman 1994, 8.5.5).

    The state is that of the process, mostly the signal, and the exposure, on a grid. The reward is the environment's
    log return after costs. Its expectation over the next bar is by Gauss-Hermite quadrature. What an order does is
    computed by `env.advance`.

    Args:
        process: the process that makes the market.
        env: the environment whose rules, costs and positions count. Its market is ignored.
        bars: the length of the fresh path for scores.
        seed: the seed of that path. Training paths must have another.

    Raises:
        ValueError: there is no position of 0 to choose, or the reward is not the log return. Or fills are not at the
            next open, or rules or costs give the ledger a state beyond the exposure.

    Example:
        >>> process = jt.datasets.AR1()
        >>> rules = jt.Rules(rebalance_band=0)
        >>> env = jt.TradingEnv(process.market(2000, 0), positions=(-1, 0, 1), window=1, rules=rules)
        >>> best = jt.optimum.solve(process, env, bars=20_000)
        >>> 0 < best.gain < 1e-3, best.share(best.reward_per_bar)
        (True, 1.0)
    """
    check_type("solve", process, Process, "make one with `datasets.AR1()`")
    check_type("solve", env, TradingEnv, "make one with `TradingEnv(market)`")
    if not isinstance(env.reward, LogReturn):
        raise ValueError(f"the optimum is known for the reward log_return(), not {env.reward!r}")
    if env.rules.fill in ("next_close", "limit") or env.rules.rebalance != "always":
        raise ValueError(
            f"the optimum is known for `fill='next_open'` and `rebalance='always'`, not "
            f"{setting('fill', env.rules.fill)} and {setting('rebalance', env.rules.rebalance)}"
        )
    rules, costs = env.rules, env.costs
    plain = Rules(rules.fill, rules.rebalance_band, rules.rebalance, rules.ruin_level)
    if rules.margin <= SHORT_MARGIN:  # the exposures of the grid are far from it
        plain = plain.replace(maintenance_margin=rules.maintenance_margin)
    two_rates = not isinstance(costs, CostRange) and not costs.columns and costs == Costs(costs.fee, costs.slippage)
    if env.decision_every > 1 or rules != plain or env.has_brackets or not two_rates:
        raise ValueError(
            "the optimum is known for one fee and one slippage, a decision at every bar, and no leverage, brackets, "
            "lots, delays or limits; leave them out"
        )
    if not isinstance(env.positions, str) and 0 not in env.positions:
        raise ValueError(f"a score is relative to doing nothing; add 0 to {setting('positions', env.positions)}")
    actions, grid = _actions(env), _exposures(env)
    values, gain = _iterate(process, grid, *_orders(env, actions, grid))
    tables = (jnp.asarray(x, jnp.float32) for x in (values, SIGNALS, grid))
    policy = TabularPolicy(*tables, actions=jnp.asarray(actions))
    return _scored(process, env, policy, gain, bars, seed)


def _scored(process: Process, env: TradingEnv, policy: TabularPolicy, gain: float, bars: int, seed: int) -> Optimum:
    """The optimum, with the scores of the best policy and of doing nothing on a path."""
    env = env.with_market(process.market(bars, seed))
    weights, returns = process.returns(process.states(env.market))
    path = ScoringPath(
        jnp.asarray(_segment_starts(env)), jnp.asarray(returns, jnp.float32), jnp.asarray(weights, jnp.float32)
    )
    known = known_states(process, env)
    params = known.default_params
    best, invested = score(policy, None, params, path, env=known)
    idle = policy.replace(values=jnp.zeros_like(policy.values).at[..., _idle(env, np.asarray(policy.actions))].set(1))
    flat, _ = score(idle, None, params, path, env=known)
    return Optimum(process, env, path, policy, gain, float(best), float(flat), float(invested))


def known_states(process: Process, env: TradingEnv) -> TradingEnv:
    """The same environment, which shows the state of the process in place of the signal, as the best policy needs."""
    market = env.market
    seen = dataclasses.replace(market, features=process.states(market)[:, None, None].astype(market.features.dtype))
    return dataclasses.replace(env, window=1).with_market(seen)


@partial(jax.jit, static_argnames="env")
def score(agent: Any, state: Any, params: EnvParams, path: ScoringPath, *, env: TradingEnv) -> tuple[Array, Array]:
    """Expected reward a bar and share of bars with a position, over segments of SEGMENT_BARS bars that begin flat.

    Each bar counts with its expected return given the signal and the position, not with its own. So the noise of prices
    is out of the score. An account is scaled to 1 at every bar, so that nothing compounds over a million bars. That
    changes no decision and no log return.
    """
    arrays = params.arrays

    def decide(account: EnvAccount, row: Rows) -> tuple[Array, Array]:
        context, _ = row.inputs
        assert row.price is not None
        assert row.volatility is not None
        seen = env.account_features(account, row.price, row.volatility)
        return agent.act(state, context, seen, jax.random.key(0), deterministic=True)[0], account.equity

    def finish(account: EnvAccount, trajectory: Trajectory, row: Rows) -> tuple[EnvAccount, Any]:
        _, now = row.inputs
        assert row.price is not None
        exposure = ledger.exposure(account, row.price)[..., 0]
        outcomes = jnp.log1p(exposure[:, None] * path.returns[now])
        weights = path.weights if path.weights.ndim == 1 else path.weights[now]
        expected = jnp.log(account.equity / trajectory.decision) + (outcomes * weights).sum(-1)
        return _scaled(account, arrays.close[now + 1]), (expected, jnp.abs(exposure) > 1e-3)

    def block(account: EnvAccount, offset: Array) -> tuple[EnvAccount, Any]:
        first = path.starts + offset
        contexts = agent.encode(state, chunks(arrays, first, env.window, BLOCK))
        now = first + jnp.arange(BLOCK)[:, None]
        price = arrays.close[now]
        # open[t+1] = close[t], so a bar that does not move shows what the order alone does.
        still = Bar(price, price, price, price, price)
        rows = Rows(still, (jnp.moveaxis(contexts, 1, 0), now), price, arrays.volatility[now])
        return run(decide, env.move_function(params), account, rows, finish=finish)

    price = arrays.close[path.starts]
    flat = env.open_account(jnp.zeros_like(price), price)
    _, (expected, invested) = jax.lax.scan(block, flat, jnp.arange(0, SEGMENT_BARS, BLOCK))
    return expected.mean(), invested.mean()


def _scaled(account: EnvAccount, price: Float[Array, "*b A"]) -> EnvAccount:
    """An account marked at a price and divided by its equity."""
    equity = ledger.value(account, price)
    return account.replace(
        cash=account.cash / equity, units=account.units / equity[..., None], equity=jnp.ones_like(equity)
    )


def _segment_starts(env: TradingEnv) -> np.ndarray:
    """Rows at which segments of SEGMENT_BARS decisions begin, one after another in each history."""
    first, (_, _, end) = env.market.first_decisions(env.window), env.market.segments.T
    starts = [np.arange(a, b - SEGMENT_BARS, SEGMENT_BARS) for a, b in zip(first, end, strict=True)]
    if not sum(map(len, starts)):
        raise ValueError(
            f"a path of {len(env.market.times)} bars is too short for a score with {setting('window', env.window)}; "
            f"give more than {env.window + SEGMENT_BARS}, or a smaller window"
        )
    return np.concatenate(starts).astype(np.int32)


def _actions(env: TradingEnv) -> np.ndarray:
    """The actions of the dynamic program, as `env.advance` takes them: indices, or exposures on a grid."""
    if isinstance(env.positions, str):
        least = -1.0 if env.positions == "continuous" else 0.0
        return np.arange(least, 1 + 1e-9, EXPOSURE_STEP).astype(np.float32)[:, None]
    return np.arange(env.num_actions, dtype=np.int32)


def _exposures(env: TradingEnv) -> np.ndarray:
    """The grid of exposures: even steps, and every position, where values have their kinks."""
    steps = np.arange(-1 - MARGIN, 1 + MARGIN + 1e-9, EXPOSURE_STEP).round(9)
    return np.unique([*steps, *(() if isinstance(env.positions, str) else env.positions)])


def _idle(env: TradingEnv, actions: np.ndarray) -> int:
    """The action closest to holding nothing."""
    exposures = actions[:, 0] if isinstance(env.positions, str) else np.asarray(env.positions)
    return int(np.argmin(np.abs(exposures)))


def _orders(env: TradingEnv, actions: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each order costs as a log return, and the exposure after it, from each exposure before it `[w, n]`."""
    with package_settings(x64=True):
        before = np.repeat(np.asarray(grid, np.float64)[:, None], len(actions), 1)[..., None]
        asked = np.broadcast_to(actions, (len(grid), *actions.shape))
        equity, exposure = _ordered(before, asked, env.params("float64"), env=env)
        return np.log(equity), np.asarray(exposure)


@partial(jax.jit, static_argnames="env")
def _ordered(before: Array, asked: Array, params: EnvParams, *, env: TradingEnv) -> tuple[Array, Array]:
    """Equity and exposure after orders on a bar that does not move, from exposures before them."""
    price = jnp.ones_like(before)
    account, *_ = env.advance(env.open_account(before, price), asked, Bar(price, price, price, price, price), params)
    return account.equity, ledger.exposure(account, price)[..., 0]


def _iterate(process: Process, grid: np.ndarray, cost: np.ndarray, exposure: np.ndarray) -> tuple[np.ndarray, float]:
    """Values `[signal, exposure, action]` up to a constant, and the gain a bar to TOLERANCE."""
    weights, returns, following = process.outcomes(SIGNALS)
    growth = 1 + grid[:, None, None] * returns  # [w, s, k]
    weights = np.broadcast_to(weights, returns.shape)
    reward = (np.log(growth) * weights).sum(-1).T  # [s, w]
    moved = grid[:, None, None] * (1 + returns) / growth
    transition = _transition(grid, weights, following, moved)
    j, g = _locate(grid, exposure)
    value = np.zeros((len(SIGNALS), len(grid)))
    for _ in range(20_000):
        later = reward + (transition @ value.ravel()).reshape(value.shape)
        values = cost + (1 - g) * later[:, j] + g * later[:, j + 1]
        new = values.max(-1)
        change = new - value
        if np.ptp(change) < TOLERANCE:
            return values, float(change.mean())
        value = new - new[len(SIGNALS) // 2, len(grid) // 2]
    raise AssertionError("relative value iteration did not converge: the signal is too persistent for its grid")


def _transition(grid: np.ndarray, weights: np.ndarray, following: np.ndarray, moved: np.ndarray) -> csr_array:
    """Probabilities from each (signal, exposure after the order) to those at the next decision, linear between points.

    Args:
        grid: the exposures of the grid, `[w]`.
        weights: the probabilities of the outcomes, `[s, k]`.
        following: the next state of each outcome, `[s, k]`.
        moved: the exposure after the next bar, `[w, s, k]`.
    """
    signals, exposures, count = len(SIGNALS), len(grid), weights.shape[-1]
    i, f = _locate(SIGNALS, np.broadcast_to(following[:, None], (signals, exposures, count)))
    j, g = _locate(grid, np.moveaxis(moved, 0, 1))
    rows = np.broadcast_to(np.arange(signals * exposures).reshape(signals, exposures, 1), i.shape)
    corners = [(0, 0, (1 - f) * (1 - g)), (1, 0, f * (1 - g)), (0, 1, (1 - f) * g), (1, 1, f * g)]
    data = np.stack([weights[:, None] * part for _, _, part in corners])
    columns = np.stack([(i + a) * exposures + j + b for a, b, _ in corners])
    size = signals * exposures
    where = (np.broadcast_to(rows, data.shape).ravel(), columns.ravel())
    from scipy.sparse import coo_array  # a tenth of a second to import, so only where it is used

    return coo_array((data.ravel(), where), (size, size)).tocsr()


def _locate(grid: Any, x: Any, xp: Any = np) -> tuple[Any, Any]:
    """The grid point at or below each x, and the share of the way to the next one. Both are clamped to the ends.

    `xp` is `numpy` or `jax.numpy`.
    """
    i = xp.clip(xp.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
    return i, xp.clip((x - grid[i]) / (grid[i + 1] - grid[i]), 0, 1)
