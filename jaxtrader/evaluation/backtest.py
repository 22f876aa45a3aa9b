"""A policy on a market: `follow` walks it through the bars, `backtest` turns its targets into a `Book` by the ledger.

The walk is closed loop (a decision sees the account that earlier ones made), by the mode, from flat, without restarts.
Validation during training uses the same walk in float32; a backtest keeps the ledger in float64.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float

from jaxtrader.agents.policy import Policy, load_policy
from jaxtrader.envs import bars
from jaxtrader.envs.account import Account, Brackets
from jaxtrader.envs.costs import CostRange
from jaxtrader.envs.state import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.book import Book, combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.market import Market

BLOCK = 8192  # decisions encoded at once: a window-wide layer must not unfold 300k windows in memory


class Walk(struct.PyTreeNode):
    """A policy's way through segments side by side, padded to the longest.

    Attributes:
        target: the exposures asked for at each bar's close.
        reward: of the bar that followed; 0 where there was none and after ruin.
        steps: True where a bar followed.
        invalid: True where the action was not one of the environment's.
        brackets: that went with the targets; None where the environment has none.
    """

    target: Float[Array, "time segment asset"]
    reward: Float[Array, "time segment"]
    steps: Bool[Array, "time segment"]
    invalid: Bool[Array, "time segment"]
    brackets: Brackets | None = None


@partial(jax.jit, static_argnames=("env", "length"))
def follow(agent: Any, state: Any, params: EnvParams, *, env: TradingEnv, length: int) -> Walk:
    """Walk a policy through every segment of prepared params, from each one's first decision, `length` bars at most."""
    tape = params.tape
    found = bars.columns(tape, params.costs, env.rules)
    first = jnp.maximum(tape.segments[:, 1], tape.ready + env.window - 1)
    last = tape.segments[:, 2] - 1
    every = env.decision_every
    contexts = _encode_all(agent, state, params, first, last, env, -(-length // every))

    def step(carry: tuple[Any, Any, Any], offset: Array) -> tuple[tuple[Any, Any, Any], Walk]:
        account, *held = carry
        now = jnp.minimum(first + offset, last)
        then = jnp.minimum(now + 1, last)
        bar = bars.between(bars.take(found, now), bars.take(found, then), env.rules)
        listed = env.tradable(params, now)
        seen = env.account_features(account, bar.prev_close, tape.volatility[now], listed)
        context = contexts[offset // every]
        action, _ = agent.act(state, context, seen, jax.random.key(0), deterministic=True)
        if every > 1:
            action, listed = jax.tree.map(partial(jnp.where, offset % every == 0), (action, listed), tuple(held))
        moved, reward, _, info = env.advance(account, action, bar, params, listed)
        steps = first + offset < last
        live = steps & ~account.ruined
        brackets = env.brackets(action, account.units.shape, account.cash.dtype)
        path = Walk(info["target"], jnp.where(live, reward, 0), steps, info["invalid_action"] & steps, brackets)
        kept = jax.tree.map(lambda new, old: jnp.where(_over(steps, new), new, old), moved, account)
        return (kept if env.capital else _rescale(kept), action, listed), path

    flat = env.open_account(jnp.zeros_like(tape.close[first]), tape.close[first], carries=params.carries)
    seen = env.account_features(flat, tape.close[first], tape.volatility[first], env.tradable(params, first))
    action = jax.eval_shape(lambda: agent.act(state, contexts[0], seen, jax.random.key(0), deterministic=True)[0])
    start = (flat, jnp.zeros(action.shape, action.dtype), env.tradable(params, first))
    _, path = jax.lax.scan(step, start, jnp.arange(length))
    return path


def mean_reward(agent: Any, state: Any, params: EnvParams, *, env: TradingEnv, length: int) -> Array:
    """Mean reward a bar over all segments: what training selects its best policy by."""
    path = follow(agent, state, params, env=env, length=length)
    return path.reward.sum() / path.steps.sum()


def longest_walk(env: TradingEnv) -> int:
    """Bars from the first decision to the end in the market's longest segment: `length` for `follow`."""
    return int((env.market.segments[:, 2] - env.market.first_cursors(env.window)).max())


def backtest(policy: Policy | str | PathLike[str], market: Market, **changes: Any) -> Book:
    """The book of a policy on a market, by the rules it was trained with.

    Args:
        policy: a `Policy` or the path of its file.
        market: bars with the features that the policy knows. Several segments give a book each, in `book.by_symbol`;
            the total is equal capital in each, never rebalanced.
        changes: other rules or costs than the policy file's, see `policy.CHANGES`. Of costs that were drawn between two
            others, the middle is charged. A `reward` is needed where the policy sees the state of one of your own.

    Raises:
        ValueError: where the market's features differ, or its bars are fewer than a decision needs.
    """
    policy = policy if isinstance(policy, Policy) else load_policy(policy)
    env = policy.environment(market, **changes)
    check_tradable(env)
    first = market.first_cursors(env.window)
    walk = policy_walk(policy, env)
    costs = env.costs.middle if isinstance(env.costs, CostRange) else env.costs
    given = {} if walk.brackets is None else vars(walk.brackets)
    books = {}
    for i, symbol in enumerate(market.symbols):
        start, end = int(first[i]), int(market.segments[i, 2])
        one = dataclasses.replace(market, segments=market.segments[i : i + 1], symbols=(symbol,))
        books[symbol] = simulate(
            one,
            walk.target[: end - start, i],
            costs=costs,
            start=start,
            **{name: x[: end - start, i] for name, x in given.items() if x is not None},
            **env.rules.args,
        )
    return next(iter(books.values())) if len(books) == 1 else combine(books)


def check_tradable(env: TradingEnv) -> None:
    """Raise ValueError where a symbol of the environment's market has too few bars for one decision and its fill."""
    short = env.symbols_without_room(1)
    if short:
        raise ValueError(
            f"{', '.join(short)}: fewer bars than a decision and its fill need ({env.bars_needed}); give more bars or "
            "leave the symbol out"
        )


def policy_walk(policy: Policy, env: TradingEnv) -> Walk:
    """A policy's way through the environment's market on the host, the account in float64."""
    state = policy.state_for(env.market.close.shape[1])
    _, prepared = policy.agent.prepare(state, env.default_params)
    with jax.enable_x64(True):
        exact = env.params("float64")
        # Money in float64; the network sees the float32 features that it was trained on.
        params = exact.replace(tape=exact.tape.replace(features=prepared.tape.features))
        path = follow(policy.agent, state, params, env=env, length=longest_walk(env))
        if bool(path.invalid.any()):
            raise ValueError(
                "the policy chose an action that its environment does not have; the policy file is damaged"
            )
        return jax.tree.map(np.asarray, path)


def _encode_all(
    agent: Any, state: Any, params: EnvParams, first: Array, last: Array, env: TradingEnv, decisions: int
) -> Float[Array, "decision segment context"]:
    """Contexts of that many decisions from `first` on, in blocks; rows past a segment's last bar repeat it."""
    block, window, every = min(BLOCK, decisions), env.window, env.decision_every

    def encode(start: Array) -> Array:
        if every == 1:
            offsets = jnp.arange(block + window - 1) - window + 1 + start
            rows = jnp.minimum(first[:, None] + offsets, last[:, None])
            return jnp.moveaxis(agent.encode(state, params.tape.features[rows]), 1, 0)
        offsets = (start + jnp.arange(block)[:, None]) * every + jnp.arange(window) - window + 1
        rows = jnp.minimum(first[:, None, None] + offsets, last[:, None, None])
        return jnp.moveaxis(agent.encode(state, params.tape.features[rows])[..., 0, :], 1, 0)

    blocks = jax.lax.map(encode, jnp.arange(0, decisions, block))
    return blocks.reshape(-1, *blocks.shape[2:])[:decisions]


def _rescale(account: Account) -> Account:
    """Divide an account that has grown beyond 2^60 by 2^30, exactly.

    float32 would overflow on a long path with a strong edge. Rewards and observations do not change by a common
    factor, and ruin is 2^36 away.
    """
    factor = jnp.where(account.equity > 2.0**60, 2.0**-30, 1.0).astype(account.equity.dtype)
    return account.replace(
        cash=account.cash * factor,
        units=account.units * factor[..., None],
        equity=account.equity * factor,
        owed=None if account.owed is None else account.owed * factor,
    )


def _over(flags: Array, leaf: Array) -> Array:
    """Flags `[segment]` shaped to broadcast over a leaf `[segment, ...]`."""
    return flags.reshape(flags.shape + (1,) * (leaf.ndim - flags.ndim))
