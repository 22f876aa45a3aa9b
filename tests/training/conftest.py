"""Fixtures that several tests of the training share."""

from __future__ import annotations

import pytest
from market_paths import ACCOUNTS, LENGTH, PATHS

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.training.rollout import MarketRollouts


@pytest.fixture(scope="session")
def rollouts(env: TradingEnv) -> MarketRollouts:
    """Rollouts of 8 bars on 6 market paths, with 2 accounts on each."""
    return MarketRollouts(env, LENGTH, PATHS, ACCOUNTS)
