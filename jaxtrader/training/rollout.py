"""Rollouts collect experience, as pure functions inside the jitted training chunk.

`MarketRollouts` moves accounts along market paths, whose bars are known in advance. It encodes them in one call and
then carries the accounts with `episode.run`. `EnvRollouts` scans `env.step` of any environment in gymnax's shape. Both
give the same `Rollout`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray, Shaped

from jaxtrader import devices
from jaxtrader.agents.protocol import Rollout
from jaxtrader.envs.episode import (
    EnvAccount,
    EnvParams,
    Rows,
    Trajectory,
    draw_starts,
    is_truncated,
    market_at,
    rows_ahead,
    run,
    select,
)
from jaxtrader.envs.observation import contexts
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger import ledger

Stats = dict[str, Array]
# The figures of a rollout of market paths in the log: means over all its decisions, and counts.
MEANS = ("reward_per_bar", "exposure", "gross_exposure", "turnover_per_bar", "cost_per_bar")
COUNTS = ("ruins", "invalid_actions")


class MarketPaths(struct.PyTreeNode):
    """The market paths of a training, each with its accounts.

    Attributes:
        cursor: row of the bar that has just closed.
        end: row after the last bar of the path's segment.
        age: bars since the path began here.
        partial: marks a path that began at a staggered age. Until it starts anew, its episodes do not count.
        account: the accounts on each path.
        episode_return: sum of rewards of each account's episode so far.
    """

    cursor: Int[Array, " path"]
    end: Int[Array, " path"]
    age: Int[Array, " path"]
    partial: Bool[Array, " path"]
    account: EnvAccount
    episode_return: Float[Array, "path account"]


@dataclass(frozen=True)
class MarketRollouts:
    """Rollouts of a TradingEnv along market paths. Static configuration.

    No account moves the market, so accounts on one path share its bars and their encoding.

    Args:
        env: the environment.
        length: decisions in a rollout. Their bars must divide the episode length.
        paths: number of market paths.
        accounts: number of accounts on each path.
        shards: number of equal shards of paths, each with random numbers of its own. See `devices.shard_keys`.
        unroll: decisions in one pass of the compiled loop.
    """

    env: TradingEnv
    length: int
    paths: int
    accounts: int
    shards: int = 1
    unroll: int = 1

    @property
    def bars(self) -> int:
        """Bars in a rollout."""
        return self.length * self.env.decision_every

    def part(self, count: int) -> MarketRollouts:
        """Return the rollouts that each of `count` devices collects."""
        return replace(self, paths=self.paths // count, shards=self.shards // count)

    def begin(self, key: PRNGKeyArray, params: EnvParams) -> MarketPaths:
        """Start paths at random bars. Their ages are staggered, so that episodes do not all end at once."""
        phases = self.env.episode_length // self.bars
        age = (jnp.arange(self.paths, dtype=jnp.int32) % phases) * self.bars
        return self._start(key, params, age)

    def _start(self, key: PRNGKeyArray, params: EnvParams, age: Int[Array, " path"]) -> MarketPaths:
        """Start a path at a random bar for each age."""
        place, exposure = jax.random.split(key)
        cursor, end = draw_starts(self.env, place, params, self.length, age.shape)
        price = params.arrays.close[cursor][:, None]
        holdable = _for_all_accounts(self.env.holdable(params, cursor))
        shape = (len(age), self.accounts)
        account = self.env.open_accounts(exposure, price, params, shape, holdable)
        return MarketPaths(cursor, end, age, age > 0, account, jnp.zeros(shape))

    def collect(
        self, paths: MarketPaths, agent: Any, state: Any, params: EnvParams, key: PRNGKeyArray
    ) -> tuple[MarketPaths, Rollout, Stats]:
        """Collect one rollout of every path: the paths for the next rollout, the experience, and sums for the log."""
        env, steps = self.env, self.length
        acting, last, redraw = jax.random.split(key, 3)
        shard_keys = partial(devices.shard_keys, shards=self.shards)
        act = lambda key, context, seen: agent.act(state, context, seen, key)  # noqa: E731
        encode = partial(agent.encode, state)
        made = contexts(encode, params.arrays, paths.cursor, env.window, steps + 1, env.decision_every)
        made = jnp.moveaxis(made, 1, 0)[:, :, None]
        rows = rows_ahead(env, params, paths.cursor, steps).for_accounts()
        rows = rows.replace(inputs=(made[:-1], jax.vmap(shard_keys)(jax.random.split(acting, steps))))

        def decide(account: EnvAccount, row: Rows) -> tuple[Array, dict[str, Array]]:
            context, keys = row.inputs
            seen = env.account_features(account, row.price, row.volatility, row.tradable)
            action, extras = devices.map_shards(act, keys, context, seen)
            nothing = jnp.zeros_like(account.cash)
            noted = {name: extras.get(name, nothing) for name in ("log_prob", "value")}
            return action, {**noted, "account": seen, "action": action, "exposure": ledger.exposure(account, row.price)}

        account, (kept, sums) = run(
            decide,
            env.move_function(params),
            paths.account,
            rows,
            finish=self._finish,
            every=env.decision_every,
            unroll=self.unroll,
        )
        # The state before any reset bootstraps the rollout. GAE ignores it where the last step was ruin.
        final = Rows(inputs=None, **market_at(env, params, paths.cursor + self.bars)).for_accounts()
        _, noted = decide(account, final.replace(inputs=(made[-1], shard_keys(last))))
        after = paths.replace(cursor=paths.cursor + self.bars, age=paths.age + self.bars, account=account)
        over = is_truncated(env, after.age, after.cursor, after.end, steps)
        rollout = Rollout(
            cursor=paths.cursor,
            observations=None,
            next_account=jnp.concatenate([kept["account"][1:], noted["account"][None]]) if agent.needs_next else None,
            next_value=jnp.concatenate([kept["value"][1:], noted["value"][None]]),
            truncated=jnp.zeros_like(kept["terminated"]).at[-1].set(over[:, None]),
            **kept,
        )
        ended = rollout.terminated | rollout.truncated
        going_on, episodes = count_episodes(rollout.reward, ended, paths.episode_return, ~paths.partial[:, None])
        after = self._turn_over(after.replace(episode_return=going_on), over, params, shard_keys(redraw))
        sums = sums.sum(0)
        means = devices.mean(sums[: len(MEANS)] / (steps * self.paths * self.accounts))
        stats = devices.total(dict(zip(COUNTS, sums[len(MEANS) :], strict=True)) | episodes)
        return after, rollout, {**stats, **dict(zip(MEANS, means, strict=True))}

    def _finish(self, account: EnvAccount, trajectory: Trajectory, row: Rows) -> tuple[EnvAccount, Any]:
        """Return the account for the next decision, the experience of this one, and sums for the log."""
        env = self.env
        reward, terminated, info = env.summarize(trajectory)
        kept = {**trajectory.decision, "reward": reward, "terminated": terminated}
        exposure = kept.pop("exposure")
        figures = (
            reward / env.decision_every,
            exposure.sum(-1),
            jnp.abs(exposure).sum(-1),
            info["turnover"] / env.decision_every,
            info["cost"] / env.decision_every,
            terminated,
            info["invalid_action"],
        )
        # One sum of one array, instead of a sum and a kernel of each.
        sums = jnp.stack([x.astype(reward.dtype) for x in figures]).sum((1, 2))
        return env.restart(account, terminated), (kept, sums)

    def _turn_over(
        self, paths: MarketPaths, over: Bool[Array, " path"], params: EnvParams, keys: Shaped[PRNGKeyArray, " shard"]
    ) -> MarketPaths:
        """Start every path anew that is at its time limit or has too few bars left for another rollout."""
        fresh = devices.map_shards(lambda key, age: self._start(key, params, age), keys, jnp.zeros_like(paths.age))
        return select(over, fresh, paths)


def count_episodes(
    reward: Float[Array, " time *b"],
    ended: Bool[Array, " time *b"],
    before: Float[Array, "*b"],
    counts: Bool[Array, "*b"] | bool = True,
) -> tuple[Float[Array, "*b"], Stats]:
    """Count the episodes that end in a rollout, and add up what they earned.

    An episode ends where it is terminated or truncated, and the next step belongs to another one.

    Args:
        reward: The reward of each step.
        ended: Whether a step is the last one of its episode.
        before: The sum of rewards, before the rollout, of the episode that is going on.
        counts: Whether the episodes of an environment count.

    Returns:
        The sum of rewards so far of each episode that goes on, and for the log the number of `episodes` that ended and
        the sum of their `episode_returns`.
    """
    time = jnp.arange(len(ended)).reshape(-1, *(1,) * (ended.ndim - 1))
    last = jnp.where(ended, time, -1).max(0)
    finished = jnp.where(last >= 0, before, 0) + jnp.where(time <= last, reward, 0).sum(0)
    going_on = jnp.where(last >= 0, 0, before) + jnp.where(time > last, reward, 0).sum(0)
    return going_on, {"episodes": (ended & counts).sum(), "episode_returns": jnp.where(counts, finished, 0).sum()}


def _for_all_accounts(assets: Bool[Array, "*b A"] | None) -> Bool[Array, "*b 1 A"] | None:
    """Give a mask of assets an axis for the accounts of a path. None stays None."""
    return None if assets is None else assets[..., None, :]


class Envs(struct.PyTreeNode):
    """Parallel ordinary environments: states, last observations, and sums of rewards of the episodes so far."""

    state: Any
    obs: Any
    episode_return: Float[Array, " env"]


@dataclass(frozen=True)
class EnvRollouts:
    """Rollouts of any environment in gymnax 1.0's shape, whose `step` resets itself. Static configuration.

    Args:
        env: the environment.
        length: steps in a rollout.
        num_envs: number of environments.
        shards: number of equal shards of environments, each with random numbers of its own.
        unroll: steps in one pass of the compiled loop.
    """

    env: Any
    length: int
    num_envs: int
    shards: int = 1
    unroll: int = 1

    def part(self, count: int) -> EnvRollouts:
        """Return the rollouts that each of `count` devices collects."""
        return replace(self, num_envs=self.num_envs // count, shards=self.shards // count)

    def begin(self, key: PRNGKeyArray, params: Any) -> Envs:
        """Reset all environments."""
        obs, state = jax.vmap(self.env.reset, (0, None))(jax.random.split(key, self.num_envs), params)
        return Envs(state, obs, jnp.zeros(self.num_envs))

    def collect(
        self, envs: Envs, agent: Any, state: Any, params: Any, key: PRNGKeyArray
    ) -> tuple[Envs, Rollout, Stats]:
        """Collect one rollout of every environment: the environments, the experience, and sums for the log."""
        env_step = jax.vmap(self.env.step, (0, 0, 0, None))
        nothing = jnp.zeros(self.num_envs)
        shard_keys = partial(devices.shard_keys, shards=self.shards)
        act = partial(devices.map_shards, lambda key, obs: agent.select_action(state, obs, key))
        split = lambda key, envs: jax.random.split(key, len(envs))  # noqa: E731

        def step(envs: Envs, step_key: PRNGKeyArray) -> tuple[Envs, Any]:
            acting, stepping, ending = map(shard_keys, jax.random.split(step_key, 3))
            action, extras = act(acting, envs.obs)
            keys = devices.map_shards(split, stepping, nothing)
            obs, env_state, reward, terminated, truncated, info = env_step(keys, envs.state, action, params)
            # After a time limit the value of the final observation follows. `cond` skips it where no limit is met.
            limit = truncated & ~terminated
            final_value = jax.lax.cond(
                limit.any(),
                lambda: act(ending, info["final_observation"])[1].get("value", nothing),
                lambda: nothing,
            )
            following = {"next_observations": info["final_observation"]} if agent.needs_next else {}
            kept = {
                **following,
                "observations": envs.obs,
                "action": action,
                "log_prob": extras.get("log_prob", nothing),
                "value": extras.get("value", nothing),
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
            }
            return envs.replace(state=env_state, obs=obs), (kept, final_value)

        acting, last = jax.random.split(key)
        keys = jax.random.split(acting, self.length)
        envs, (kept, final_value) = jax.lax.scan(step, envs, keys, unroll=self.unroll)
        _, extras = act(shard_keys(last), envs.obs)
        following = jnp.concatenate([kept["value"][1:], extras.get("value", nothing)[None]])
        limit = kept["truncated"] & ~kept["terminated"]
        kept["next_value"] = jnp.where(limit, final_value, following)
        ended = kept["terminated"] | kept["truncated"]
        going_on, stats = count_episodes(kept["reward"], ended, envs.episode_return)
        seen = {name: kept.pop(name) for name in ("observations", "next_observations") if name in kept}
        # An ordinary environment is a path with one account.
        kept = {name: x[:, :, None] for name, x in kept.items()}
        rollout = Rollout(cursor=None, account=None, **seen, **kept)
        stats = {**devices.total(stats), "reward_per_bar": devices.mean(rollout.reward.mean())}
        return envs.replace(episode_return=going_on), rollout, stats


def bytes_per_transition(rollout: Rollout) -> int:
    """Bytes kept for each account and step: all arrays with a time axis, advantages and value targets included."""
    steps = rollout.reward.size
    timed = rollout.replace(cursor=None)
    return round(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(timed)) / steps) + 2 * 4
