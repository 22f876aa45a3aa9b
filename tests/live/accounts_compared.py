"""What tests of live accounts share: a policy whose decisions differ, minutes, and the comparison with a backtest."""

from __future__ import annotations

import numpy as np
import pandas as pd
from policies import policy_of, with_random_weights

from jaxtrader.agents.normalization import ValueScale
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.live.live import Live

HISTORY = 150  # bars before the first decision
NEW_YORK = "America/New_York"


def minutes() -> pd.DatetimeIndex:
    """Minutes of three short sessions in New York, over the end of summer time, with a hole and a half day."""
    days = [
        pd.date_range(f"2024-{day} 09:31", f"2024-{day} {end}", freq="min", tz=NEW_YORK)
        for day, end in (("11-01", "11:00"), ("11-04", "11:00"), ("11-05", "10:30"), ("11-06", "11:00"))
    ]
    times = pd.DatetimeIndex(np.concatenate([day.tz_convert("UTC").tz_localize(None).to_numpy() for day in days]))
    hole = np.isin(np.arange(len(times)), [40, 41, 200, 201, 202])
    return times[~hole]


def loud(env: TradingEnv, seed: int = 1, agent: PPOAgent | None = None) -> Policy:
    """A policy with drawn weights, whose decisions differ from bar to bar."""
    agent = agent or PPOAgent(hidden=(8, 8))
    scale = ValueScale(*(np.float32(x) for x in (0.02, 0.05, 0.1)))
    return policy_of(agent, with_random_weights(agent, env, seed).replace(value_scale=scale), env)


def check_equal(live: Live, result: BacktestResult, i: int, within: float = 0.0) -> None:
    """The account and the targets at bar i of a result are those of the live account.

    The weights of a portfolio may be rounded otherwise, by `within` at most, and so may all that follows from them.
    """
    target, exposure = (x.values() if isinstance(x, dict) else [x] for x in (live.decision.target, live.exposure))
    np.testing.assert_allclose(list(target), result.targets[i], rtol=1e-6, atol=within)
    np.testing.assert_allclose(live.equity, result.equity[i], rtol=max(within, 1e-9))
    np.testing.assert_allclose(list(exposure), result.exposure[i], rtol=1e-9, atol=max(within, 1e-12))
    assert live.time == result.times[i]
