"""The loop that carries accounts over bars, the rows that it reads, and where an episode starts and ends.

Rollouts, validations, backtests, `simulate` and the optimum's score call `run`. A policy in Python calls `run_decision`
from a loop of its own. The caller's `decide` chooses the action, and its `move` trades it over a bar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from jaxtrader.envs import draws
from jaxtrader.ledger.account import Account, Brackets, Events, value
from jaxtrader.ledger.bar import Bar, bar_between, ledger_columns, take_rows
from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.market.market import MarketArrays

if TYPE_CHECKING:
    from jaxtrader.envs.trading import TradingEnv

Tree = TypeVar("Tree")


class EnvParams(struct.PyTreeNode):
    """The market and the costs, as the argument of jitted functions.

    Attributes:
        arrays: the market on the device.
        costs: the costs, or the range from which each episode draws its own.
    """

    arrays: MarketArrays
    costs: Costs | CostRange

    @property
    def has_financing(self) -> bool:
        """Whether interest or funding is charged."""
        return self.costs.has_financing or self.arrays.funding is not None


class EnvAccount(Account):
    """An account of the ledger with the state of its episode.

    Attributes:
        reward_state: state of the reward, see `rewards.MoveReward`. None: the reward has no state.
        costs: costs drawn for the episode, `[*b, 1]` or `[*b, A]`. None: all episodes have the same costs.
    """

    reward_state: Any = None
    costs: Costs | None = None

    def effective_costs(self, params: EnvParams) -> Costs:
        """Return the costs of the episode, or those of `params` if it has none. Of a range it is the middle."""
        return params.costs.middle if self.costs is None else self.costs


class EnvState(struct.PyTreeNode):
    """The state of an environment within an episode.

    Attributes:
        account: the account at close[cursor].
        cursor: row of the bar that has just closed.
        end: row after the last bar of the episode's segment.
        time: age of the episode in bars.
    """

    account: EnvAccount
    cursor: Int[Array, "*b"]
    end: Int[Array, "*b"]
    time: Int[Array, "*b"]


class Rows(struct.PyTreeNode):
    """What the loop reads at each decision. The leading axes are decision, then those of the accounts.

    Attributes:
        bars: the bars from one close to the next. Several bars to a decision add a bar axis after the decision axis.
        inputs: what `decide` reads in addition, such as contexts and keys, or targets.
        price: close at the decision.
        volatility: standard deviation of one-bar log returns up to the decision.
        tradable: assets that can be ordered, see `TradingEnv.tradable`. None: all.
        live: whether each bar exists. An account does not change where it does not. None: all exist.
    """

    bars: Bar | None = None
    inputs: Any = None
    price: Any = None
    volatility: Any = None
    tradable: Bool[Array, "decision *b A"] | None = None
    live: Bool[Array, " decision *b"] | None = None

    def for_accounts(self) -> Rows:
        """Return the rows with an axis, before that of assets, for accounts that share a market path."""
        assert self.live is None, "accounts that share a market path need bars that all exist"
        return jax.tree.map(lambda x: x[..., None, :], self)


class Holdings(struct.PyTreeNode):
    """The part of an `Account` that results need, after all fills up to a close. The fields are the account's."""

    cash: Float[Array, "*b"]
    units: Float[Array, "*b A"]
    ruined: Bool[Array, "*b"]
    stopped: Int[Array, "*b A"] | None = None

    @classmethod
    def of(cls, account: Account) -> Holdings:
        """Return the holdings of an account."""
        return cls(account.cash, account.units, account.ruined, account.stopped)

    def value(self, close: Float[np.ndarray, "*b A"]) -> Float[np.ndarray, "*b"]:
        """Return the equity at these prices in float64, on the host."""
        price: Any = np.asarray(close, np.float64)
        return np.asarray(value(jax.tree.map(np.asarray, self), price))


class Trajectory(struct.PyTreeNode):
    """The record of accounts over bars. The leading axes are decision, bar where a decision has several, accounts.

    Attributes:
        account: the accounts at close[t], after all fills up to then.
        target: the exposures asked for at close[t]. NaN holds the units.
        events: what happened from close[t] to close[t+1], the order's fill at close[t] included.
        brackets: those decided with the target. None: no brackets.
        reward: reward from close[t] to close[t+1]. None: there is no reward.
        terminated: whether the account is ruined at close[t+1].
        invalid: whether the action was invalid, so that the units were held.
        figures: turnover, costs and flags of the bar, see `TradingEnv.advance`.
        decision: the extras of `decide`.
    """

    account: Any
    target: Float[Array, "*b A"] | None
    events: Events | None
    brackets: Brackets | None = None
    reward: Float[Array, "*b"] | None = None
    terminated: Bool[Array, "*b"] | None = None
    invalid: Bool[Array, "*b"] | None = None
    figures: dict[str, Array] | None = None
    decision: Any = None


DecideFn = Callable[[Any, Rows], tuple[Any, Any]]
MoveFn = Callable[[Any, Any, Bar, Any], tuple[Any, Trajectory]]
FinishFn = Callable[[Any, Trajectory, Rows], tuple[Any, Any]]


def run(
    decide: DecideFn,
    move: MoveFn,
    account: Any,
    rows: Rows,
    *,
    finish: FinishFn | None = None,
    every: int = 1,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """Carry accounts over bars, one decision after another.

    Args:
        decide: `(account, row) -> (action, extras)`. The extras come back as `Trajectory.decision`.
        move: `(account, action, bar, tradable) -> (account, Trajectory)` over one bar, such as
            `TradingEnv.move_function`.
        account: the accounts at the first decision.
        rows: what each decision reads.
        finish: `(account, trajectory, row) -> (account, output)` after each decision. It may restart accounts, and
            chooses the output. None: the output is the whole trajectory.
        every: bars between two decisions.
        unroll: decisions in one pass of the compiled loop.

    Returns:
        The accounts after the last bar, and the outputs stacked over decisions. XLA drops what no output needs.
    """

    def step(account: Any, row: Rows) -> tuple[Any, Any]:
        action, extras = decide(account, row)
        account, trajectory = run_decision(move, account, action, row, every)
        trajectory = trajectory.replace(decision=extras)
        return (account, trajectory) if finish is None else finish(account, trajectory, row)

    return jax.lax.scan(step, account, rows, unroll=unroll)


def run_decision(move: MoveFn, account: Any, action: Any, row: Rows, every: int = 1) -> tuple[Any, Trajectory]:
    """Carry accounts over the bars of one decision. With several bars, the trajectory has an axis of bars."""

    def move_if_live(account: Any, bar: tuple[Any, Any]) -> tuple[Any, Trajectory]:
        prices, live = bar
        after, trajectory = move(account, action, prices, row.tradable)
        if live is None:
            return after, trajectory
        if trajectory.reward is not None:
            trajectory = trajectory.replace(
                reward=jnp.where(live, trajectory.reward, 0), invalid=trajectory.invalid & live
            )
        return select(live, after, account), trajectory

    if every == 1:
        return move_if_live(account, (row.bars, row.live))
    return jax.lax.scan(move_if_live, account, (row.bars, row.live))


def rows_ahead(
    env: TradingEnv, params: EnvParams, cursor: Int[Array, "*b"], decisions: int, last: Int[Array, "*b"] | None = None
) -> Rows:
    """Return the rows of `decisions` decisions, the first at `cursor`.

    `last` is the last row of each path's segment. Rows beyond it repeat it and are not live. None: all rows exist.
    """
    every, arrays = env.decision_every, params.arrays
    offsets = jnp.arange(decisions * every + 1).reshape(-1, *(1,) * jnp.ndim(cursor))
    index = cursor + offsets
    live = None if last is None else index[:-1] < last
    if last is not None:
        index = jnp.minimum(index, last)
    columns = ledger_columns(arrays, params.costs, env.rules, brackets=env.has_brackets)
    now, then = take_rows(columns, index[:-1]), take_rows(columns, index[1:])
    bars = bar_between(now, then, env.rules)
    if every > 1:
        bars, live = jax.tree.map(lambda x: x.reshape(decisions, every, *x.shape[1:]), (bars, live))
    return Rows(bars=bars, live=live, **market_at(env, params, index[:-1:every]))


def market_at(env: TradingEnv, params: EnvParams, cursor: Int[Array, "*b"]) -> dict[str, Any]:
    """Return the fields of `Rows` that a decision knows of the market at its bar, apart from the window."""
    price, volatility = params.arrays.close[cursor], params.arrays.volatility[cursor]
    return {"price": price, "volatility": volatility, "tradable": env.tradable(params, cursor)}


# --- where an episode begins and ends ---


def is_truncated(
    env: TradingEnv, age: Int[Array, "*b"], cursor: Int[Array, "*b"], end: Int[Array, "*b"], decisions: int = 1
) -> Bool[Array, "*b"]:
    """Return whether an episode is truncated: at its time limit, or where its segment has too few bars left.

    The next `decisions` orders must fill inside the segment after any delay, and then be valued at a close.
    """
    return (age >= env.episode_length) | (cursor + env.bars_for(decisions) >= end)


def draw_starts(
    env: TradingEnv, key: PRNGKeyArray, params: EnvParams, decisions: int = 1, batch: tuple[int, ...] = ()
) -> tuple[Int[Array, "*b"], Int[Array, "*b"]]:
    """Draw random cursors, uniformly over all bars with room for `decisions` decisions, and the ends of their segments.

    Long segments are drawn more often. Bars near either end of a segment lie in fewer episodes than other bars.
    """
    first, end = params.arrays.first_decisions(env.window), params.arrays.segments[:, 2]
    counts = jnp.maximum(end - env.bars_for(decisions) - first, 0)
    total = jnp.cumsum(counts)
    drawn = draws.integers(key, batch, total[-1], draws.START_STREAM)
    segment = jnp.searchsorted(total, drawn, side="right")
    offset = drawn - (total - counts)[segment]
    return first[segment] + offset, end[segment]


def select(condition: Array, yes: Tree, no: Tree) -> Tree:
    """Select leaf by leaf, with `condition` broadcast over the trailing axes of each leaf."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(jnp.reshape(condition, condition.shape + (1,) * (jnp.ndim(b) - condition.ndim)), a, b)

    return jax.tree.map(pick, yes, no)
