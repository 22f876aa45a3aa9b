"""Rollouts: how experience is collected, as pure functions inside the jitted training chunk.

`LaneRollouts` moves accounts along contiguous bars that are known in advance: one encoder call per rollout, then a scan
of the head and the ledger. `EnvRollouts` scans `env.step` of any gymnax-shaped environment. Both give the same
`Rollout`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from jaxtrader import devices
from jaxtrader.agents.protocol import Rollout
from jaxtrader.envs import bars, ledger
from jaxtrader.envs.ledger import Account, Bar
from jaxtrader.envs.state import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.envs.windows import contexts

Stats = dict[str, Array]


class Lanes(struct.PyTreeNode):
    """Where each lane stands on the tape, and the accounts on it.

    `partial` marks a lane whose first episode began at a staggered age: it counts in no episode metric.
    `episode_return` is the sum of rewards of the episode so far.
    """

    cursor: Int[Array, "lane"]
    end: Int[Array, "lane"]
    age: Int[Array, "lane"]
    partial: Bool[Array, "lane"]
    account: Account
    episode_return: Float[Array, "lane agent"]


@dataclass(frozen=True)
class LaneRollouts:
    """Rollouts of a TradingEnv by lane (design: the market is exogenous). Static configuration.

    Args:
        env: the environment; only its `advance`, its observation of the account and its starts are used.
        length: decisions a rollout; its bars must divide the episode length.
        lanes: market paths side by side.
        agents: accounts on each lane.
    """

    env: TradingEnv
    length: int
    lanes: int
    agents: int

    @property
    def bars(self) -> int:
        """Bars a rollout."""
        return self.length * self.env.decision_every

    def part(self, count: int) -> LaneRollouts:
        """What each of so many devices collects."""
        return replace(self, lanes=self.lanes // count)

    def begin(self, key: PRNGKeyArray, params: EnvParams) -> Lanes:
        """Lanes at random starts, with ages staggered so that their episodes do not end all at once."""
        phases = self.env.episode_length // self.bars
        age = (jnp.arange(self.lanes, dtype=jnp.int32) % phases) * self.bars
        place, exposure = jax.random.split(key)
        cursor, end = self.env.draw_starts(place, params, self.length, (self.lanes,))
        price = params.tape.close[cursor][:, None]
        holdable = _of_all_agents(self.env.holdable(params, cursor))
        account = self.env.open_accounts(exposure, price, params, (self.lanes, self.agents), holdable)
        return Lanes(cursor, end, age, age > 0, account, jnp.zeros((self.lanes, self.agents)))

    def collect(
        self, lanes: Lanes, agent: Any, state: Any, params: EnvParams, key: PRNGKeyArray
    ) -> tuple[Lanes, Rollout, Stats]:
        """One rollout of every lane: the lanes ready for the next one, the experience, and sums for the log."""
        env, steps = self.env, self.length
        acting, last, redraw = jax.random.split(key, 3)
        encode = partial(agent.encode, state)
        made = contexts(encode, params.tape, lanes.cursor, env.window, steps + 1, env.decision_every)
        made = jnp.moveaxis(made, 1, 0)[:, :, None]
        moves, price, volatility = _bars(env, params, lanes.cursor, steps)
        rows = jnp.arange(steps + 1)[:, None] * env.decision_every + lanes.cursor
        listed = _of_all_agents(env.tradable(params, rows))
        listed_now = None if listed is None else listed[:-1]

        def step(account: Account, row: Any) -> tuple[Account, Any]:
            context, step_key, bars, price, now, listed = row
            seen = env.account_features(account, price, now, listed)
            action, extras = agent.act(state, context, seen, step_key)
            exposure = ledger.exposure(account, price)
            account, reward, terminated, info = env.hold(account, action, bars, params, listed)
            kept = {
                "account": seen,
                "action": action,
                "log_prob": extras.get("log_prob", jnp.zeros_like(reward)),
                "value": extras.get("value", jnp.zeros_like(reward)),
                "reward": reward,
                "terminated": terminated,
            }
            counts = {
                "reward_per_bar": reward.mean() / env.decision_every,
                "exposure": exposure.sum(-1).mean(),
                "gross_exposure": jnp.abs(exposure).sum(-1).mean(),
                "turnover_per_bar": info["turnover"].mean() / env.decision_every,
                "cost_per_bar": info["cost"].mean() / env.decision_every,
                "ruins": terminated.sum(),
                "invalid_actions": info["invalid_action"].sum(),
            }
            return env.restart(account, terminated), (kept, counts)

        keys = jax.random.split(acting, steps)
        rows = (made[:-1], keys, moves, price[:-1], volatility[:-1], listed_now)
        account, (kept, counts) = jax.lax.scan(step, lanes.account, rows)

        # The state before any reset bootstraps the rollout; where the last step was ruin, gae ignores it.
        seen = env.account_features(account, price[-1], volatility[-1], None if listed is None else listed[-1])
        _, extras = agent.act(state, made[-1], seen, last)
        final = extras.get("value", jnp.zeros_like(kept["value"][0]))
        rollout = Rollout(
            cursor=lanes.cursor,
            observations=None,
            next_value=jnp.concatenate([kept["value"][1:], final[None]]),
            truncated=jnp.zeros_like(kept["terminated"]),
            **kept,
        )
        lanes = lanes.replace(
            cursor=lanes.cursor + self.bars,
            age=lanes.age + self.bars,
            account=account,
            episode_return=lanes.episode_return + kept["reward"].sum(0),
        )
        summed = ("ruins", "invalid_actions")
        sums = {name: x.sum() for name, x in counts.items() if name in summed}
        means = {name: x.mean() for name, x in counts.items() if name not in summed}
        lanes, episodes = self._turn_over(lanes, params, redraw)
        return lanes, rollout, {**devices.total({**sums, **episodes}), **devices.mean(means)}

    def _turn_over(self, lanes: Lanes, params: EnvParams, key: PRNGKeyArray) -> tuple[Lanes, Stats]:
        """Start a new episode on every lane that is at its time limit or has too few bars left for another rollout."""
        over = (lanes.age >= self.env.episode_length) | (lanes.cursor + self.bars + self.env.delay >= lanes.end)
        counted = (over & ~lanes.partial)[:, None]
        stats = {
            "episodes": counted.sum() * self.agents,
            "episode_returns": jnp.where(counted, lanes.episode_return, 0).sum(),
        }
        fresh = self.begin(key, params)
        fresh = fresh.replace(age=jnp.zeros_like(fresh.age), partial=jnp.zeros_like(fresh.partial))

        def pick(new: Array, old: Array) -> Array:
            return jnp.where(over.reshape(over.shape + (1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(pick, fresh, lanes), stats


def _bars(
    env: TradingEnv, params: EnvParams, cursor: Int[Array, "lane"], steps: int
) -> tuple[Bar, Float[Array, "time lane 1 A"], Float[Array, "time lane 1 A"]]:
    """The bars of `steps` decisions after each cursor, as `env.hold` takes them; close and volatility at each decision.

    Time-major; of the latter two there is one more.
    """
    every = env.decision_every
    rows = jnp.arange(steps * every + 1)[:, None] + cursor
    found = bars.take(bars.columns(params.tape, params.costs, env.rules), rows)
    found = {name: column[:, :, None] for name, column in found.items()}
    now, then = ({name: x[part] for name, x in found.items()} for part in (slice(-1), slice(1, None)))
    moves = bars.between(now, then, env.rules)
    if every > 1:
        moves = jax.tree.map(lambda x: x.reshape(steps, every, *x.shape[1:]), moves)
    return moves, found["close"][::every], params.tape.volatility[rows[::every]][:, :, None]


def _of_all_agents(assets: Bool[Array, "*b A"] | None) -> Bool[Array, "*b 1 A"] | None:
    """A mask of assets, the same for all agents of a lane; None stays None."""
    return None if assets is None else assets[..., None, :]


class Envs(struct.PyTreeNode):
    """Parallel ordinary environments: their states, what was last seen, the sum of rewards of the episode so far."""

    state: Any
    obs: Any
    episode_return: Float[Array, "env"]


@dataclass(frozen=True)
class EnvRollouts:
    """Rollouts of any environment in gymnax 1.0's shape, with auto-reset inside its `step`. Static configuration."""

    env: Any
    length: int
    num_envs: int

    def part(self, count: int) -> EnvRollouts:
        """What each of so many devices collects."""
        return replace(self, num_envs=self.num_envs // count)

    def begin(self, key: PRNGKeyArray, params: Any) -> Envs:
        """All environments reset."""
        obs, state = jax.vmap(self.env.reset, (0, None))(jax.random.split(key, self.num_envs), params)
        return Envs(state, obs, jnp.zeros(self.num_envs))

    def collect(
        self, envs: Envs, agent: Any, state: Any, params: Any, key: PRNGKeyArray
    ) -> tuple[Envs, Rollout, Stats]:
        """One rollout of every environment: the environments, the experience, and sums for the log."""
        env_step = jax.vmap(self.env.step, (0, 0, 0, None))
        nothing = jnp.zeros(self.num_envs)

        def step(envs: Envs, step_key: PRNGKeyArray) -> tuple[Envs, Any]:
            act_key, env_key, final_key = jax.random.split(step_key, 3)
            action, extras = agent.select_action(state, envs.obs, act_key)
            keys = jax.random.split(env_key, self.num_envs)
            obs, env_state, reward, terminated, truncated, info = env_step(keys, envs.state, action, params)
            # A time limit is no end: V of the final observation follows. It is rarely needed, hence the cond.
            limit = truncated & ~terminated
            final_value = jax.lax.cond(
                limit.any(),
                lambda: agent.select_action(state, info["final_observation"], final_key)[1].get("value", nothing),
                lambda: nothing,
            )
            returns = envs.episode_return + reward
            done = terminated | truncated
            kept = {
                "observations": envs.obs,
                "action": action,
                "log_prob": extras.get("log_prob", nothing),
                "value": extras.get("value", nothing),
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
            }
            stats = {
                "episodes": done.sum(),
                "episode_returns": jnp.where(done, returns, 0).sum(),
            }
            return Envs(env_state, obs, jnp.where(done, 0, returns)), (kept, final_value, stats)

        acting, last = jax.random.split(key)
        envs, (kept, final_value, stats) = jax.lax.scan(step, envs, jax.random.split(acting, self.length))
        _, extras = agent.select_action(state, envs.obs, last)
        following = jnp.concatenate([kept["value"][1:], extras.get("value", nothing)[None]])
        limit = kept["truncated"] & ~kept["terminated"]
        kept["next_value"] = jnp.where(limit, final_value, following)
        observations = kept.pop("observations")
        # Ordinary environments are lanes with one agent each.
        kept = {name: x[:, :, None] for name, x in kept.items()}
        rollout = Rollout(cursor=None, account=None, observations=observations, **kept)
        stats = devices.total({name: x.sum() for name, x in stats.items()})
        return envs, rollout, {**stats, "reward_per_bar": devices.mean(rollout.reward.mean())}


def bytes_per_transition(rollout: Rollout) -> int:
    """Bytes kept per agent and step over all arrays with a time axis, with advantages and value targets (float32)."""
    steps = rollout.reward.size
    timed = rollout.replace(cursor=None)
    return round(sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(timed)) / steps) + 2 * 4
