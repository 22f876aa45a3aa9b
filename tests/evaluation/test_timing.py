"""The timing test: rotations are traded by the ledger, skill is found, and targets without skill are not."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import BARS, busy, daily, market_of, market_of_one, random_table

from jaxtrader.evaluation import timing
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate, simulate_paths
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules

PRICEY = Costs(fee=0.001, slippage=0.002)
timing_test = partial(timing.timing_test, rotations=49)  # one number of paths, and so one program

market = market_of_one


@pytest.mark.quick(1)
@pytest.mark.parametrize("brackets", [{}, {"stop_loss": 0.02, "take_profit": 0.05}], ids=["plain", "brackets"])
def test_each_of_many_paths_has_the_equity_that_it_has_alone(market, brackets):
    paths = np.stack([busy(seed) for seed in range(5)])
    rules = Rules(rebalance_band=0.0, max_leverage=1.5 if brackets else 1.0)  # the margin is watched beside brackets
    together = simulate_paths(market, paths, costs=PRICEY, rules=rules, **brackets)
    alone = [simulate(market, path, costs=PRICEY, rules=rules, **brackets).equity for path in paths]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_paths_of_several_assets_have_the_equity_that_they_have_alone(monkeypatch):
    market = market_of({"A": random_table(1), "B": random_table(2)}, align=True)
    paths = np.stack([np.stack([busy(seed), busy(seed + 9)], axis=1) / 2 for seed in range(5)])
    # Blocks of two paths, so that the last block is not full.
    monkeypatch.setattr("jaxtrader.evaluation.simulate.NUMBERS_AT_ONCE", 2 * 4 * 512)
    together = simulate_paths(market, paths, costs=PRICEY)
    np.testing.assert_allclose(together, [simulate(market, path, costs=PRICEY).equity for path in paths], rtol=1e-12)


def test_targets_that_know_the_next_bar_beat_all_rotations(market):
    rises = np.append(market.close[2:, 0] > market.open[1:-1, 0], [False, False])  # filled at the next open
    found = timing_test(market, simulate(market, np.where(rises, 1.0, 0.0)))
    assert found.p == 1 / 50
    assert found.sharpe > found.rotated.max()


def test_targets_without_knowledge_are_as_good_as_their_rotations():
    """Under the null p is uniform. The mean of 40 of them has an error of 0.29 / sqrt(40)."""
    ps = []
    for seed in range(40):
        market = market_of(random_table(seed), symbol="X")
        result = simulate(market, np.repeat(np.random.default_rng(seed).integers(0, 2, BARS // 4), 4).astype(float))
        ps.append(timing_test(market, result, seed=seed).p)
    assert np.mean(ps) == pytest.approx(0.5, abs=3 * 0.29 / np.sqrt(40))


def test_a_rotation_is_the_result_of_the_rolled_targets(market):
    result = simulate(market, busy(), costs=PRICEY)
    found = timing_test(market, result, seed=5)
    shares = np.random.default_rng(5).random(3)
    in_force = pd.Series(busy()).ffill().fillna(0.0).to_numpy()  # NaN holds
    for share, ratio in zip(shares, found.rotated[:3], strict=True):
        rolled = simulate(market, np.roll(in_force, 1 + int(share * (BARS - 1))), costs=PRICEY)
        returns = rolled.returns
        assert ratio == pytest.approx(returns.mean() / returns.std(ddof=1), rel=1e-9)


def test_rotations_of_long_data_are_traded_in_blocks(monkeypatch, market):
    result = simulate(market, busy(), costs=PRICEY)
    whole = timing_test(market, result, seed=5)
    monkeypatch.setattr("jaxtrader.evaluation.timing.NUMBERS_AT_ONCE", 5 * BARS)  # two blocks, of 5 and 4 paths
    blocks = timing.timing_test(market, result, rotations=8, seed=5)
    assert blocks.sharpe == whole.sharpe
    assert blocks.p == (1 + (blocks.rotated >= blocks.sharpe).sum()) / 9
    np.testing.assert_allclose(blocks.rotated, whole.rotated[:8], rtol=1e-12)


def test_members_of_a_combined_result_are_rotated_by_the_same_share():
    market = market_of({"A": random_table(1), "B": random_table(2, bars=80)})
    parts = {"A": simulate(market, busy(1), symbol="A"), "B": simulate(market, busy(2, 80), symbol="B")}
    total = combine(parts)
    found = timing_test(market, total, seed=1)
    assert found.sharpe == pytest.approx(total.returns.mean() / total.returns.std(ddof=1), rel=1e-9)


def test_an_account_that_is_always_flat_has_no_timing(market):
    assert timing_test(market, simulate(market, 0.0)).p == 1


def test_too_few_bars_to_rotate_are_refused():
    market = market_of(daily([1.0, 1.0]), symbol="X")
    with pytest.raises(ValueError, match="2 bars"):
        timing_test(market, simulate(market, 1.0))


def test_a_target_that_is_held_by_nan_rotates_as_the_same_held(market):
    once = np.full(BARS, np.nan)
    once[0] = 1.0
    assert timing_test(market, simulate(market, once)).p == 1
