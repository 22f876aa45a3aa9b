"""A policy on a market: `rollout_policy` carries an account over the bars, and `backtest` makes a result of that.

Each decision sees the account that earlier decisions made. The policy acts by its mode, from flat, without restarts.
Validation during training does the same in float32. A backtest keeps the money in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jaxtrader import compilation
from jaxtrader.agents.gymnasium_form import form_of, trading_env_of
from jaxtrader.agents.policy import Policy, check_chosen
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.agents.protocol import Agent, MarketActor, actor_of
from jaxtrader.envs.episode import EnvAccount, EnvParams, Holdings, Rows, Trajectory, rows_ahead, run
from jaxtrader.envs.observation import contexts_in_blocks
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.combined import one_account
from jaxtrader.evaluation.observed import Observed
from jaxtrader.evaluation.python_policy import Model, by_bar, host_trajectory, of_function, of_model, with_exposures
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.simulate_inputs import symbols_of
from jaxtrader.evaluation.target_table import backtest_table
from jaxtrader.jax_settings import package_settings
from jaxtrader.ledger.bar import ledger_columns
from jaxtrader.market.lengths import round_length
from jaxtrader.market.market import Market, check_market_type
from jaxtrader.setting_checks import setting


def backtest(policy: Any, market: Market, *, env: Any = None, state: Any = None, **changes: Any) -> BacktestResult:
    """Trade an account by a policy over a market.

    Args:
        policy: who decides, one of these:

            - a `Policy`, or the path of its file. It trades by the rules that it was trained with.
            - a function of an `Observation` (`window` `[W, A, F]` of raw features, `account` `[A, K]`). It returns the
              target exposure, or one an asset. NaN holds.
            - a model with `predict(observations)`, such as one of Stable-Baselines3. It needs `env`.
            - an `Agent` and its `state`, such as `agent` and `state` of a `TrainResult`. It needs `env`.
            - a table of targets, as `simulate` takes them. A Series or DataFrame of pandas is matched by its labels:
              the index are times of bars, and the columns symbols, also of several histories.
        market: bars with the features that the policy knows. Each of several segments has its own result, in
            `by_symbol`. The total is equal capital in each, never rebalanced.
        env: the environment in which the model was trained: a TradingEnv, or what `jt.to_gymnasium` made of
            one. Its settings hold, and the features are scaled by its own market. For a function or a table it gives
            the settings.
        state: the state of an agent.
        changes: for a `Policy` `rules`, `costs`, `reward` or brackets (`stop_loss`, `take_profit`, `trailing_stop`)
            other than its own, as in `rules=policy.rules.replace(fill="next_close")`. The middle of a range of costs is
            charged. A `reward` is needed where the policy sees the state of a reward of the user's own. For a table
            `rules`, `costs`, the brackets and `dtype`. For others, settings of a TradingEnv, such as `window=1`.

    Returns:
        The result.

    Raises:
        ValueError: the market has other features or fewer bars than a decision needs, or the policy chooses an action
            that its environment does not have. Of a table, what `simulate` refuses.

    Example:
        >>> import jaxtrader as jt
        >>> market = jt.Market.from_bars(jt.load_bundled("IBM"), features=["log_return_20"])
        >>> _, test = market.split("2012-01-01")
        >>> result = jt.backtest(lambda seen: float(seen.window[-1, 0, 0] > 0), test, window=1)
        >>> print(result.targets.min(), result.targets.max())
        0.0 1.0
    """
    check_market_type(market, "backtest")
    if isinstance(policy, str | PathLike):
        policy = load_policy(policy)
    if isinstance(policy, Policy):
        if env is not None or state is not None:
            raise ValueError("a Policy knows its environment and its state; leave out `env` and `state`")
        with package_settings():
            own = policy.environment(market, **changes)
            state = policy.state_for(own.assets)
            return _result(own, _exact_trajectory(policy.acting_agent, state, own))
    if not (isinstance(policy, Agent | MarketActor) or callable(policy) or isinstance(policy, Model)):
        return backtest_table(policy, market, env, changes)
    with package_settings():
        trained = None if env is None else trading_env_of(env)
        own = _environment(trained, market, changes)
        if isinstance(policy, Agent | MarketActor):
            return _of_agent(policy, state, own, trained is not None)
        if isinstance(policy, Model):
            if env is None:
                raise ValueError(
                    f"{type(policy).__name__} was trained on observations of an environment; give it, as in "
                    "`backtest(model, market, env=env)`"
                )
            form = form_of(env)
            decide = of_model(policy, form, own)
        else:
            form, own = None, with_exposures(own)
            decide = of_function(policy, own)
        with package_settings(x64=True):
            params = exact_params(own, (lambda raw: raw) if form is None else form.prepare)
        trajectory = host_trajectory(own, params, decide, most_decisions(own))
        return _result(own, trajectory)


def _of_agent(agent: Agent | MarketActor, state: Any, env: TradingEnv, has_env: bool) -> BacktestResult:
    if not has_env:
        raise ValueError(
            f"{type(agent).__name__} was trained in an environment; give it, as in "
            "`backtest(trained.agent, market, state=trained.state, env=trained.env)`"
        )
    if isinstance(agent, PPOAgent) and isinstance(state, tuple):
        raise ValueError(
            f"the state is that of {len(state)} seeds, of which each decides; give their policy, as in "
            "`backtest(trained.policy, market)`"
        )
    return _result(env, _exact_trajectory(actor_of(agent, env.window), state, env))


def _environment(trained: TradingEnv | None, market: Market, settings: dict[str, Any]) -> TradingEnv:
    """Return the environment of a backtest: that of the training, or a fresh one, with these settings."""
    known = [field.name for field in dataclasses.fields(TradingEnv) if field.name != "market"]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"{setting(unknown[0])} is no setting of a TradingEnv; those are {', '.join(known)}")
    if trained is None:
        return TradingEnv(market, **settings)
    # A policy sees what it saw in training, whatever stop it trades with now.
    seen: dict[str, Any] = {"sees_best_price": trained.shows_best_price}
    return dataclasses.replace(trained.with_market(market), **seen | settings)


def _result(env: TradingEnv, trajectory: Trajectory) -> BacktestResult:
    """Return the result of a trajectory through every segment of the environment's market."""
    market = env.market
    costs, results = env.costs.middle, {}
    columns = ledger_columns(market, costs, env.rules)
    for i, symbol in enumerate(market.symbols):
        rows = slice(int(market.first_decisions(env.window)[i]), int(market.segments[i, 2]))
        own = jax.tree.map(lambda x, i=i, n=rows.stop - rows.start: x[:n, i], trajectory)
        observed = Observed(market.features, rows.start, env.window, env.decision_every, own.decision)
        results[symbol] = BacktestResult.from_trajectory(
            own,
            {name: column[rows] for name, column in columns.items()},
            own.target,
            symbols=symbols_of(market, symbol),
            times=market.times[rows],
            periods_per_year=market.periods_of(symbol),
            tz=market.tz_of(symbol),
            costs=costs,
            rules=env.rules,
            observed=observed,
        )
    return one_account(results, market)


def check_room(env: TradingEnv) -> None:
    """Raise ValueError where a symbol of the environment's market has too few bars for one decision and its fill."""
    short = env.symbols_without_room(1)
    if short:
        raise ValueError(
            f"{', '.join(short)}: fewer bars than a decision and its fill need, {env.bars_needed}; give more bars or "
            "leave the symbol out"
        )


def with_room(env: TradingEnv, name: str) -> Market:
    """The environment's market without the symbols that have no room for a decision. Messages call it `name`.

    Raises ValueError where no symbol is left.
    """
    market, short = env.market, env.symbols_without_room(1)
    if not short:
        return market
    kept = [i for i, symbol in enumerate(market.symbols) if symbol not in short]
    if not kept:
        raise ValueError(
            f"{name} has no symbol with bars enough: a decision and its fill need {env.bars_needed}; give it more "
            "bars, a shorter window or delay, or features with a shorter look-back"
        )
    return market.keep(kept)


def mean_reward(agent: Any, state: Any, params: EnvParams, *, env: TradingEnv) -> Float[Array, ""]:
    """Mean reward a bar over all segments. Training selects its best policy by it."""
    rewards, live = rollout_policy(
        agent, state, params, env=env, decisions=round_length(most_decisions(env)), rewards_only=True
    )
    return _mean(rewards, live)


@partial(compilation.Jitted, cpu_options=compilation.RUNS_ONCE)
def _mean(rewards: Array, live: Array) -> Float[Array, ""]:
    return rewards.sum() / live.sum()


def most_decisions(env: TradingEnv) -> int:
    """The number of decisions in the market's longest segment."""
    bars = int((env.market.segments[:, 2] - env.market.first_decisions(env.window)).max())
    return -(-bars // env.decision_every)


@partial(
    compilation.Jitted,
    cpu_options=compilation.SHORT_TO_COMPILE,
    static_argnames=("env", "decisions", "rewards_only"),
)
def rollout_policy(
    agent: Any, state: Any, params: EnvParams, *, env: TradingEnv, decisions: int, rewards_only: bool = False
) -> Any:
    """Carry an account through every segment, all side by side, from each segment's first decision.

    Args:
        agent: the agent, which decides by its mode.
        state: the agent's state.
        params: the parameters of `env`, prepared by the agent.
        env: the environment.
        decisions: the number of decisions. A segment with fewer of them waits at its last bar.
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
    return by_bar(kept, every)


def _exact_trajectory(agent: MarketActor, state: Any, env: TradingEnv) -> Trajectory:
    """A policy's trajectory through the environment's market, on the host, with the money in float64."""
    with package_settings(x64=True):
        params = prepared_exactly(agent, state, env)
        trajectory = rollout_policy(agent, state, params, env=env, decisions=round_length(most_decisions(env)))
        trajectory = jax.tree.map(np.asarray, trajectory)
        check_chosen(trajectory.invalid)
        return trajectory


def prepared_exactly(agent: MarketActor, state: Any, env: TradingEnv) -> EnvParams:
    """`exact_params` with the features as an agent prepares them."""
    return exact_params(env, lambda raw: agent.prepare(state, raw)[1])


def exact_params(env: TradingEnv, prepare: Callable[[EnvParams], EnvParams]) -> EnvParams:
    """Return the environment's parameters in float64, with the float32 features that `prepare` gives.

    Call it, and use the parameters, inside `package_settings(x64=True)`. Raises ValueError where a symbol has too few
    bars.
    """
    check_room(env)
    with package_settings():
        prepared = prepare(env.rounded_params())
    exact = env.rounded_params("float64")
    return exact.replace(arrays=exact.arrays.replace(features=prepared.arrays.features))


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
