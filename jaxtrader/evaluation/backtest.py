"""A policy on a market: `rollout_policy` carries an account over the bars, and `backtest` makes a result of that.

Each decision sees the account that earlier decisions made. The policy acts by its mode, from flat, without restarts.
Validation during training does the same in float32. A backtest keeps the money in float64.
"""

from __future__ import annotations

from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader.agents.policy import Policy, load_policy
from jaxtrader.envs.episode import EnvAccount, EnvParams, Holdings, Rows, Trajectory, rows_ahead, run
from jaxtrader.envs.observation import contexts_in_blocks
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.observed import Observed
from jaxtrader.evaluation.result import BacktestResult, combine
from jaxtrader.jax_settings import package_settings
from jaxtrader.ledger.bar import ledger_columns
from jaxtrader.ledger.costs import CostRange
from jaxtrader.market.lengths import round_length
from jaxtrader.market.market import Market


@package_settings()
def backtest(policy: Policy | str | PathLike[str], market: Market, **changes: Any) -> BacktestResult:
    """Trade an account by a policy over a market, by the rules that the policy was trained with.

    Args:
        policy: a `Policy` or the path of its file.
        market: bars with the features that the policy knows. Each of several segments has its own result, in
            `by_symbol`. The total is equal capital in each, never rebalanced.
        changes: `rules`, `costs`, `reward`, `stop_loss` or `take_profit` other than the policy's, as in
            `rules=policy.rules.replace(fill="next_close")`. The middle of a range of costs is charged. A `reward` is
            needed where the policy sees the state of a reward of the user's own.

    Raises:
        ValueError: the market has other features or fewer bars than a decision needs, or the policy chooses an action
            that its environment does not have.
    """
    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    env = policy.environment(market, **changes)
    check_tradable(env)
    trajectory = _exact_trajectory(policy, env)
    costs = env.costs.middle if isinstance(env.costs, CostRange) else env.costs
    columns, results = ledger_columns(market, costs, env.rules), {}
    for i, symbol in enumerate(market.symbols):
        rows = slice(int(market.first_decisions(env.window)[i]), int(market.segments[i, 2]))
        own = jax.tree.map(lambda x, i=i, n=rows.stop - rows.start: x[:n, i], trajectory)
        observed = Observed(market.features, rows.start, env.window, env.decision_every, own.decision)
        results[symbol] = BacktestResult.from_trajectory(
            own,
            {name: column[rows] for name, column in columns.items()},
            own.target,
            symbols=tuple(symbol.split(",")) if market.close.shape[1] > 1 else (symbol,),
            times=market.times[rows],
            periods_per_year=market.periods_of(symbol),
            tz=market.tz_of(symbol),
            costs=costs,
            rules=env.rules,
            observed=observed,
        )
    return next(iter(results.values())) if len(results) == 1 else combine(results, market.shared_periods_per_year)


def check_tradable(env: TradingEnv) -> None:
    """Raise ValueError where a symbol of the environment's market has too few bars for one decision and its fill."""
    short = env.symbols_without_room(1)
    if short:
        raise ValueError(
            f"{', '.join(short)}: fewer bars than a decision and its fill need, {env.bars_needed}; give more bars or "
            "leave the symbol out"
        )


def mean_reward(agent: Any, state: Any, params: EnvParams, *, env: TradingEnv) -> Float[Array, ""]:
    """Mean reward a bar over all segments. Training selects its best policy by it."""
    rewards, live = rollout_policy(
        agent, state, params, env=env, decisions=round_length(most_decisions(env)), rewards_only=True
    )
    return rewards.sum() / live.sum()


def most_decisions(env: TradingEnv) -> int:
    """The number of decisions in the market's longest segment."""
    bars = int((env.market.segments[:, 2] - env.market.first_decisions(env.window)).max())
    return -(-bars // env.decision_every)


@partial(jax.jit, static_argnames=("env", "decisions", "rewards_only"))
def rollout_policy(
    agent: Any, state: Any, params: EnvParams, *, env: TradingEnv, decisions: int, rewards_only: bool = False
) -> Any:
    """Carry an account through every segment, all side by side, from each segment's first decision.

    Args:
        agent, state: they decide, by the mode.
        params: of `env`, prepared by the agent.
        env: the environment.
        decisions: how many. A segment with fewer of them waits at its last bar.
        rewards_only: keep the rewards alone, and scale down accounts that have grown much.

    Returns:
        A `Trajectory` with the leading axes bar and segment. Its `decision` is what each decision saw of its account,
        with the leading axes decision and segment. With `rewards_only`, the rewards and whether their bars
        exist, each `[decision, *bar, segment]`, with a bar axis where a decision has several bars.
    """
    first, last, every = params.arrays.first_decisions(env.window), params.arrays.segments[:, 2] - 1, env.decision_every
    encode = partial(agent.encode, state)
    contexts = contexts_in_blocks(encode, params.arrays, first, last, env.window, decisions, every)
    rows = rows_ahead(env, params, first, decisions, last).replace(inputs=contexts)

    def decide(account: EnvAccount, row: Rows) -> tuple[Array, Any]:
        assert row.price is not None
        assert row.volatility is not None
        seen = env.account_features(account, row.price, row.volatility, row.tradable)
        return agent.act(state, row.inputs, seen, jax.random.key(0), deterministic=True)[0], seen

    def finish(account: EnvAccount, trajectory: Trajectory, row: Rows) -> tuple[EnvAccount, Any]:
        if rewards_only:
            return account if env.rules.capital else _rescaled(account), trajectory.reward
        assert isinstance(trajectory.account, EnvAccount)
        return account, trajectory.replace(account=Holdings.of(trajectory.account), brackets=None, figures=None)

    price = params.arrays.close[first]
    flat = env.open_account(jnp.zeros_like(price), price, financing=params.has_financing)
    _, kept = run(decide, env.move_function(params), flat, rows, finish=finish, every=every)
    if rewards_only:
        return kept, rows.live
    if every == 1:
        return kept
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept.replace(decision=None)).replace(
        decision=kept.decision
    )


def _exact_trajectory(policy: Policy, env: TradingEnv) -> Trajectory:
    """A policy's trajectory through the environment's market, on the host, with the money in float64."""
    with package_settings(x64=True):
        agent, state, params = exact_inputs(policy, env)
        trajectory = rollout_policy(agent, state, params, env=env, decisions=round_length(most_decisions(env)))
        if bool(trajectory.invalid.any()):
            raise ValueError(
                "the policy chose an action that its environment does not have; the policy file is damaged"
            )
        return jax.tree.map(np.asarray, trajectory)


def exact_inputs(policy: Policy, env: TradingEnv) -> tuple[Any, Any, EnvParams]:
    """Return what `rollout_policy` needs to keep the money in float64: agent, state and parameters.

    The network sees the float32 features that it was trained on. Call it, and use the parameters, inside
    `package_settings(x64=True)`.
    """
    state, agent = policy.state_for(env.market.close.shape[1]), policy.acting_agent
    with package_settings():
        _, prepared = agent.prepare(state, env.rounded_params())
    exact = env.rounded_params("float64")
    return agent, state, exact.replace(arrays=exact.arrays.replace(features=prepared.arrays.features))


def _rescaled(account: EnvAccount) -> EnvAccount:
    """Divide an account that has grown beyond 2^60 by 2^30, exactly.

    float32 would overflow on a long path with a strong edge. A common factor changes no reward and no observation, and
    ruin is a factor of 2^36 away.
    """
    factor = jnp.where(account.equity > 2.0**60, 2.0**-30, 1.0).astype(account.equity.dtype)
    residual = account.interest_residual
    return account.replace(
        cash=account.cash * factor,
        units=account.units * factor[..., None],
        equity=account.equity * factor,
        interest_residual=None if residual is None else residual * factor,
    )
