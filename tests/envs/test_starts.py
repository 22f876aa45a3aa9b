"""Where episodes begin: nothing is held that the bar of the start has just closed, or that cannot be traded there."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from ledger.markets import full_market

from jaxtrader.envs.trading import TradingEnv
from jaxtrader.ledger.rules import Rules
from jaxtrader.training.rollout import MarketRollouts


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("assets", "positions", "flat"),
    [
        (1, (-1.0, 1.0), True),
        (1, "continuous", True),
        (3, "continuous", True),
        (3, "weights", True),
        (3, "weights", False),
    ],
)
def test_an_episode_begins_with_nothing_that_its_bar_has_closed(assets, positions, flat):
    market = full_market(3, assets)
    env = TradingEnv(
        market,
        positions=positions,
        window=1,
        episode_length=4,
        rules=Rules(flat_at_session_end=flat, rebalance_band=0.0),
    )
    params = env.default_params

    @jax.jit
    def begun(key):
        alone = jax.vmap(lambda k: env.reset(k, params)[1])(jax.random.split(key, 500))
        paths = MarketRollouts(env, 4, 500, 1).begin(key, params)
        return (alone.cursor, alone.account.units), (paths.cursor, paths.account.units[:, 0])

    for cursor, units in begun(jax.random.key(0)):
        row, held = np.asarray(cursor), np.asarray(units) != 0
        ended = np.broadcast_to(market.session_end[row, None] & flat, held.shape)
        gone = market.delisted[row]
        absent = ~market.present[row] & (assets > 1)  # one asset is held through a bar that is missing
        assert ended.any() == flat
        assert not held[ended | gone | absent].any()
        assert held[~(ended | gone | absent)].all()
    assert market.delisted.any() or assets == 1
