"""validation.py: which policy is the best, and what is written into its record."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from jaxtrader.agents.ppo import PPOAgent, PPOState
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import mean_reward
from jaxtrader.evaluation.optimum import Optimum
from jaxtrader.market.market import Market
from jaxtrader.training.validation import Validation, check_validation


def chosen(validation: Validation, *scores: float) -> list[dict[str, Any]]:
    """The records of the policies that were the best when they came."""
    found: list[dict[str, Any]] = []
    for i, score in enumerate(scores):
        record: dict[str, Any] = {"updates": i}
        if validation.choose({"valid_reward_per_bar": np.float32(score)}, record, found[-1] if found else None):
            found.append(record)
    return found


def test_the_highest_score_is_the_best_and_ties_go_to_the_earlier(env: TradingEnv) -> None:
    validation = Validation(env.market, env, env.default_params)
    first, best = chosen(validation, 1, 3, 3, 2)
    assert first["updates"] == 0
    assert best == {"updates": 1, "valid_reward_per_bar": 3, "valid_best": 3}


def test_a_score_that_is_not_finite_chooses_nothing(env: TradingEnv) -> None:
    validation = Validation(env.market, env, env.default_params)
    assert chosen(validation, math.nan, math.inf) == []
    (best,) = chosen(validation, math.nan, -1, math.nan)
    assert best["updates"] == 1


def test_the_share_of_an_optimum_stands_in_the_record(env: TradingEnv) -> None:
    optimum = object.__new__(Optimum)
    for name, value in {"reward_per_bar": 3.0, "flat_reward_per_bar": 1.0}.items():
        object.__setattr__(optimum, name, value)
    record: dict[str, Any] = {}
    scores = {"valid_reward_per_bar": np.float32(2), "valid_time_in_market": np.float32(0.25)}
    assert Validation(optimum, env, env.default_params).choose(scores, record, None)
    assert (record["optimum_share"], record["valid_time_in_market"]) == (0.5, 0.25)


def test_the_score_on_a_market_is_the_mean_reward_of_its_own_bars(
    env: TradingEnv, agent: PPOAgent, state: PPOState, make_market: Any
) -> None:
    other = make_market(seed=5)
    validation = Validation.prepare(other, env, agent, state)
    assert validation.env.market is other
    score = validation.score(agent, state)["valid_reward_per_bar"]
    fresh = env.with_market(other)
    _, params = agent.prepare(state, fresh.default_params)
    assert score == mean_reward(agent, state, params, env=fresh)


def test_data_that_cannot_be_traded_is_refused(env: TradingEnv, market: Market) -> None:
    short = dataclasses.replace(market, segments=np.array([[0, 0, 150], [150, 150, 153]]))
    with pytest.raises(ValueError, match="S1: fewer bars"):
        check_validation(short, env)
    check_validation(market, env)
