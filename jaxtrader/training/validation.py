"""The choice of the best policy: a score on held-out data, and the best score so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array

from jaxtrader import compilation
from jaxtrader.agents.protocol import Agent, actor_of
from jaxtrader.envs.episode import EnvParams
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation import optimum
from jaxtrader.evaluation.backtest import check_room, mean_reward
from jaxtrader.evaluation.optimum import Optimum, ScoringPath
from jaxtrader.market.market import Market
from jaxtrader.setting_checks import setting


def check_validation(data: Market | Optimum, env: TradingEnv) -> None:
    """Raise ValueError where policies of the environment cannot be scored on the data."""
    if not isinstance(data, Market | Optimum):
        raise ValueError(
            f"{setting('valid', data)} must be a Market, or the Optimum of a synthetic market, and is of the type "
            f"{type(data).__name__}"
        )
    if isinstance(data, Optimum):
        data.check(env)
    else:
        check_room(env.with_market(data))


@dataclass(eq=False)
class Validation:
    """Scores policies, and says which is the best.

    The score is the mean reward a bar, with the policy's most likely action. On a Market it is the reward of the
    market's own bars. Against the Optimum of a synthetic market it is the expected reward on the optimum's fresh path.

    Attributes:
        data: the market, or the optimum.
        env: the environment of training, on the validation market.
        params: the parameters of `env`, prepared by the agent.
    """

    data: Market | Optimum
    env: TradingEnv
    params: EnvParams

    @classmethod
    def prepare(cls, data: Market | Optimum, env: TradingEnv, agent: Agent, agent_state: Any) -> Validation:
        """Return a validation of policies that were trained in `env`, with the normalisation of `agent_state`."""
        env = env.with_market(data.market if isinstance(data, Optimum) else data)
        _, params = agent.prepare(agent_state, env.rounded_params())
        return cls(data, env, params)

    def score(self, agent: Agent, agent_state: Any) -> dict[str, Array]:
        """Return the figures of a policy. They are enqueued on the device, and the host does not wait for them."""
        path, env = self._scored_on
        return _score(actor_of(agent, self.env.window), agent_state, self.params, path, env=env)

    def score_all(
        self, agent: Agent, agent_states: Any, params: EnvParams, params_axis: int | None = None
    ) -> dict[str, Array]:
        """Return the figures of several policies, stacked as their states are. One program computes them all.

        Args:
            agent: The agent that all the states belong to.
            agent_states: The states of the policies, stacked.
            params: The `params` of one validation for all policies, or those of several, stacked.
            params_axis: 0 where `params` are stacked. None where all policies share them.
        """
        path, env = self._scored_on
        return _score_all(
            actor_of(agent, self.env.window), agent_states, params, path, env=env, params_axis=params_axis
        )

    @property
    def _scored_on(self) -> tuple[ScoringPath | None, TradingEnv]:
        """The path to score on and its environment. The path is None where the data are a market."""
        return (self.data.path, self.data.env) if isinstance(self.data, Optimum) else (None, self.env)

    def choose(self, scores: Mapping[str, Any], record: dict[str, Any], best: Mapping[str, Any] | None) -> bool:
        """Add the figures of a policy to its record, and return whether the policy is the best so far.

        Of equal policies the earlier is the best. A score that is not finite chooses nothing.

        Args:
            scores: The figures of the policy.
            record: The record that the figures are added to.
            best: The record of the best policy so far. None before the first finite score.
        """
        record |= {name: float(value) for name, value in scores.items()}
        score = record["valid_reward_per_bar"]
        if isinstance(self.data, Optimum):
            record["optimum_share"] = self.data.share(score)
        is_best = math.isfinite(score) and (best is None or score > best["valid_reward_per_bar"])
        leading = record if is_best else best
        if leading is not None:
            record["valid_best"] = leading["valid_reward_per_bar"]
        return is_best


def _score(
    actor: Any, agent_state: Any, params: EnvParams, path: ScoringPath | None, *, env: TradingEnv
) -> dict[str, Array]:
    """Return the figures of one policy on the bars of `env`, or on the path of an optimum."""
    if path is None:
        return {"valid_reward_per_bar": mean_reward(actor, agent_state, params, env=env)}
    reward, time_in_market = optimum.score(actor, agent_state, params, path, env=env)
    return {"valid_reward_per_bar": reward, "valid_time_in_market": time_in_market}


@partial(compilation.Jitted, cpu_options=compilation.SHORT_TO_COMPILE, static_argnames=("env", "params_axis"))
def _score_all(
    actor: Any,
    agent_states: Any,
    params: EnvParams,
    path: ScoringPath | None,
    *,
    env: TradingEnv,
    params_axis: int | None,
) -> dict[str, Array]:
    each = lambda state, params: _score(actor, state, params, path, env=env)  # noqa: E731
    return jax.vmap(each, (0, params_axis))(agent_states, params)
