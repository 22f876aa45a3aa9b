"""A synthetic market whose environment says, at each step, what the best policy would have expected.

So an agent of any library can be scored: the share of the known optimum is in `info`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from jaxtrader.envs.episode import EnvAccount, EnvParams, EnvState, market_at, rows_ahead, select
from jaxtrader.envs.observation import Observation
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.optimum import Optimum, TabularPolicy
from jaxtrader.ledger import ledger
from jaxtrader.ledger.bar import Bar


class ScoredParams(struct.PyTreeNode):
    """The parameters of a `ScoredEnv`.

    Attributes:
        own: the parameters of the TradingEnv. Its features may be scaled.
        policy: the best policy.
        known: the state of the process at each bar, `[T]`. In most processes it is the signal.
        returns: the simple returns of the next bar in each of k outcomes, `[T, k]`.
        weights: the probabilities of the outcomes, `[T, k]`.
    """

    own: EnvParams
    policy: TabularPolicy
    known: Float[Array, " time"]
    returns: Float[Array, "time k"]
    weights: Float[Array, "time k"]

    @property
    def arrays(self) -> Any:
        """The market's arrays."""
        return self.own.arrays


class ScoredState(struct.PyTreeNode):
    """The state of an episode.

    Attributes:
        own: the state of the TradingEnv.
        best, flat: the accounts of the best policy, and of one that sells what the episode began with.
        earned: the expected log returns so far, of the agent, the best policy and the flat one.
    """

    own: EnvState
    best: EnvAccount
    flat: EnvAccount
    earned: Float[Array, "3"]


@dataclass(frozen=True, eq=False)
class ScoredEnv:
    """A TradingEnv over a synthetic market with the score of the episode in `info`.

    The best policy, and one that holds nothing, trade beside the agent: over the same bars, from the same account. Each
    bar counts with its expected return, given the position and what can be known. So the score has no noise of prices.

    `info` has `expected_reward`, `best_expected_reward` and `flat_expected_reward` of the step, and `optimum_share` of
    the episode so far: (agent - flat) / (best - flat). It is missing while the best is not above the flat one. One
    episode is short: take the ratio of sums over many.

    Attributes:
        trading_env: the environment.
    """

    trading_env: TradingEnv
    optimum: Optimum = field(repr=False)

    name = "ScoredEnv"

    def __hash__(self) -> int:
        return hash(self.trading_env)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScoredEnv) and self.trading_env == other.trading_env

    @property
    def default_params(self) -> ScoredParams:
        """The market and the best policy on the device."""
        market, process = self.trading_env.market, self.optimum.process
        known = np.nan_to_num(process.states(market))
        weights, returns = process.returns(known)
        weights = np.broadcast_to(weights, returns.shape)
        known, returns, weights = (jnp.asarray(x, jnp.float32) for x in (known, returns, weights))
        return ScoredParams(self.trading_env.default_params, self.optimum.policy, known, returns, weights)

    def action_space(self, params: ScoredParams | None = None) -> Any:
        """Return the action space of the TradingEnv."""
        return self.trading_env.action_space()

    def observation_space(self, params: ScoredParams) -> Any:
        """Return the observation space of the TradingEnv."""
        return self.trading_env.observation_space(params.own)

    def reset(self, key: PRNGKeyArray, params: ScoredParams) -> tuple[Observation, ScoredState]:
        """Begin an episode."""
        seen, state = self.trading_env.reset(key, params.own)
        return seen, _begun(state)

    def step(
        self, key: PRNGKeyArray, state: ScoredState, action: Array, params: ScoredParams
    ) -> tuple[Observation, ScoredState, Array, Array, Array, dict[str, Any]]:
        """Take one decision with auto-reset."""
        env, own = self.trading_env, state.own
        row = jax.tree.map(lambda x: x[0], rows_ahead(env, params.own, own.cursor, 1))
        place = market_at(env, params.own, own.cursor)
        best_seen = env.account_features(state.best, place["price"], place["volatility"])
        best_action, _ = params.policy.act(None, params.known[own.cursor][None], best_seen, key)
        idle = jnp.zeros((env.assets,)) if isinstance(env.positions, str) else env.positions.index(0.0)
        accounts = {"": own.account, "best_": state.best, "flat_": state.flat}
        actions = {"": action, "best_": best_action, "flat_": jnp.asarray(idle)}
        expected = {
            f"{name}expected_reward": self._expected(accounts[name], actions[name], place["price"], own.cursor, params)
            for name in accounts
        }
        earned = state.earned + jnp.stack(list(expected.values()))
        possible = earned[1] - earned[2]
        share = jnp.where(possible > 1e-9, (earned[0] - earned[2]) / possible, jnp.nan)
        best, flat = (
            env.advance(accounts[name], actions[name], row.bars, params.own, row.tradable)[0]
            for name in ("best_", "flat_")
        )
        seen, after, reward, terminated, truncated, info = env.step(key, own, action, params.own)
        going_on = ScoredState(after, best, flat, earned)
        state = select(terminated | truncated, _begun(after), going_on)
        return seen, state, reward, terminated, truncated, {**info, **expected, "optimum_share": share}

    def _expected(
        self, account: EnvAccount, action: Array, price: Array, cursor: Array, params: ScoredParams
    ) -> Float[Array, ""]:
        """Return the expected log return of a decision: its order's cost, and the mean over the next bar's outcomes.

        open[t+1] = close[t], so the order's cost is that of a bar in which no price moves.
        """
        still = Bar(price, price, price, price, price)
        after, *_ = self.trading_env.advance(account, action, still, params.own)
        exposure = ledger.exposure(after, price)[0]
        outcomes = jnp.log1p(exposure * params.returns[cursor])
        return jnp.log(after.equity / account.equity) + outcomes @ params.weights[cursor]


def _begun(state: EnvState) -> ScoredState:
    """Return the state at the beginning of an episode."""
    return ScoredState(state, state.account, state.account, jnp.zeros(3))
