"""One bar of one account as a compiled program: the move from close to close, then the next decision.

It calls what a backtest calls: `episode.rows_ahead`, `TradingEnv.move` and `account_features`, and the agent's `encode`
and `act`. The money is float64.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from jaxtrader.agents.policy import decide
from jaxtrader.envs import actions, episode
from jaxtrader.envs.episode import EnvAccount, EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar
from jaxtrader.ledger.costs import CostRange, Costs
from jaxtrader.ledger.exits import best_price
from jaxtrader.ledger.orders import last_target, lift_blocks
from jaxtrader.market.market import MarketArrays

# The rows of the columns: what came before (see `arrays`), the last bar, and the newest one.
BEFORE, LAST, NEWEST = range(3)
FLAGS = ("present", "delisted", "listed", "session_end")
SHARED = ("dt", "bar_dt", "session_end")  # columns without an axis of assets
COLUMN = "column "  # begins the names of further columns of the bars


class StepState(struct.PyTreeNode):
    """The account and the decision in force, which the program of a bar takes and returns.

    Attributes:
        account: the account at the last close.
        action: the action of the decision in force.
        tradable: the assets that could be ordered at that decision. None: all.
    """

    account: EnvAccount
    action: Array
    tradable: Bool[Array, " A"] | None


class DecisionArrays(struct.PyTreeNode):
    """A decision at the newest close as the program of a bar returns it. `Live` makes a `Decision` of it.

    Attributes:
        action, tradable: see `StepState`.
        target: exposures asked for. NaN holds.
        invalid: whether the environment has no such action.
        probabilities: the probability of each position, of an ensemble the mean over its members. None: it does not
            choose among positions.
        value: the discounted sum of rewards that is expected.
        exposure: what the account holds.
    """

    action: Array
    tradable: Bool[Array, " A"] | None
    target: Float[Array, " A"]
    invalid: Bool[Array, ""]
    probabilities: Float[Array, " positions"] | None
    value: Float[Array, ""]
    exposure: Float[Array, " A"]


@partial(jax.jit, static_argnames=("env", "names", "reported"))
def advance(
    env: TradingEnv,
    names: tuple[str, ...],
    reported: bool,
    agent: Any,
    state: Any,
    costs: Costs | CostRange,
    step_state: StepState,
    columns: Float[Array, "3 column A"],
    window: Float[Array, "W A F"],
    moves: Bool[Array, ""],
) -> tuple[EnvAccount, DecisionArrays]:
    """Carry the account from the last close to the newest, and decide there.

    Args:
        env: the environment.
        names: the names of the columns.
        reported: whether the user reports the fills. The account then trades nothing by itself.
        agent: the agent, whose mode is the decision.
        state: the state of the agent.
        costs: the costs of the environment, in float64.
        step_state: the account at the last close, and the decision in force.
        columns: the columns of the rows BEFORE, LAST and NEWEST.
        window: raw features up to the newest bar, NaN where an asset is not listed.
        moves: False decides at the newest close for the account as it is.
    """
    params = EnvParams(arrays(columns, names), costs)
    bar = jax.tree.map(lambda x: x[0], episode.rows_ahead(env, params, jnp.asarray(LAST), 1).bars)
    move = _hold if reported else _trade
    after = episode.select(moves, move(env, params, step_state, bar), step_state.account)
    return after, _decide(env, params, agent, state, after, window)


def arrays(columns: Float[Array, "3 column A"], names: tuple[str, ...]) -> MarketArrays:
    """Return the columns as the arrays of a market of three rows.

    The row BEFORE only says which assets had no bar at the last session's end and none since. It is a session's end,
    and those assets are not present there (see `ledger.bar.late_bars`).
    """
    fields: dict[str, Any] = {name: columns[:, i] for i, name in enumerate(names)}
    fields |= {name: fields[name] != 0 for name in FLAGS if name in fields}
    fields |= {name: fields[name][:, 0] for name in SHARED if name in fields}
    further = {name: fields.pop(name) for name in names if name.startswith(COLUMN)}
    nothing = jnp.zeros((1,), jnp.int32)
    return MarketArrays(
        **fields,
        features=jnp.zeros((3, columns.shape[-1], 0)),
        segments=jnp.zeros((1, 3), jnp.int32),
        ready=nothing,
        columns={name.removeprefix(COLUMN): column for name, column in further.items()} or None,
    )


def _trade(env: TradingEnv, params: EnvParams, step_state: StepState, bar: Bar) -> EnvAccount:
    """The account at the newest close, by the rules of the environment."""
    return env.move(step_state.account, step_state.action, bar, params, step_state.tradable)[0]


def _hold(env: TradingEnv, params: EnvParams, step_state: StepState, bar: Bar) -> EnvAccount:
    """The account at the newest close, where only interest and funding are booked, and what the target changes."""
    before, dtype = step_state.account, step_state.account.cash.dtype
    target, _ = actions.targets(
        env.positions, step_state.action, before.units.shape[-1], dtype, env.rules.max_leverage, step_state.tradable
    )
    account, delayed = ledger.pop_delayed_target(before, target, env.rules)
    account = lift_blocks(account, delayed)
    account = account.replace(target=last_target(account, delayed))
    rules = env.rules.replace(maintenance_margin=0.0, flat_at_session_end=False, ruin_level=0.0, volume_cap=None)
    bar = bar.replace(present=None, delisted=None, late=None)
    after, _ = ledger.move(account, None, bar, before.effective_costs(params), rules)
    if after.best is not None:
        after = after.replace(best=best_price(after, bar))
    return env.rewarded(before, after, bar)[0]


def _decide(
    env: TradingEnv, params: EnvParams, agent: Any, state: Any, account: EnvAccount, window: Float[Array, "W A F"]
) -> DecisionArrays:
    """The decision at the newest close, by the policy's mode."""
    known = episode.market_at(env, params, jnp.asarray(NEWEST))
    seen = env.account_features(account, **known)[None]
    action, about = decide(agent, state, window[None], seen)
    dtype, leverage = account.cash.dtype, env.rules.max_leverage
    target, invalid = actions.targets(env.positions, action[0], env.assets, dtype, leverage, known["tradable"])
    return DecisionArrays(
        # One type, whatever the agent computes in, so that the next bar is the same program.
        action=action[0].astype(action_type(env)),
        tradable=known["tradable"],
        target=target,
        invalid=invalid,
        probabilities=about["probabilities"][0] if "probabilities" in about else None,
        value=about["value"][0] if "value" in about else jnp.asarray(jnp.nan),
        exposure=ledger.exposure(account, known["price"]),
    )


def action_type(env: TradingEnv) -> DTypeLike:
    """Return the type of a carried action."""
    return jnp.int32 if isinstance(env.positions, tuple) else jnp.float64
