"""Walk-forward: each fold learns from earlier bars alone, and the stitched result is one account over all tests."""

from __future__ import annotations

import dataclasses

import chex
import numpy as np
import pytest

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.files import FileError
from jaxtrader.ledger.costs import Costs
from jaxtrader.market.folds import walk_forward_folds
from jaxtrader.training.run_folder import only_writer
from jaxtrader.training.trainer import Trainer
from jaxtrader.training.walk_forward import walk_forward

# The program of these is that of the other tests' trainings.
SETTINGS = {"num_envs": 8, "accounts_per_path": 2, "rollout_length": 8, "total_steps": 128, "progress": False}


@pytest.fixture(scope="module")
def folds(env):
    """In both parts for validation are two symbols, and in the last test is one."""
    return walk_forward_folds(env.market, 2, valid=0.5)


@pytest.fixture(scope="module")
def found(env, agent, folds, tmp_path_factory):
    return walk_forward(env, agent, folds, run_dir=tmp_path_factory.mktemp("walk") / "run", **SETTINGS)


def test_each_fold_is_a_training_on_its_own_parts(found, env, agent, folds, tmp_path):
    fold = folds[1]
    alone = Trainer(
        env.with_market(fold.train), agent, valid=fold.valid, run_dir=tmp_path / "alone", **SETTINGS
    ).train()
    assert found.folds[1].training.policy_path.read_bytes() == alone.policy_path.read_bytes()


def test_the_stitched_result_has_the_targets_of_all_tests_and_one_account(found, env):
    market = env.market
    for (history, _, end), (symbol, whole) in zip(market.segments, found.result.by_symbol.items(), strict=True):
        by_symbol = [one.result.by_symbol or {one.result.symbols[0]: one.result} for one in found.folds]
        parts = [results[symbol] for results in by_symbol if symbol in results]
        np.testing.assert_array_equal(whole.targets, np.concatenate([part.targets for part in parts]))
        np.testing.assert_array_equal(whole.times, np.concatenate([part.times for part in parts]))
        start = history + int(np.searchsorted(market.times[history:end], whole.times[0]))
        alone = simulate(market, whole.targets, costs=env.costs, rules=env.rules, symbol=symbol, start=start)
        np.testing.assert_array_equal(whole.equity, alone.equity)


def test_bars_of_a_test_change_no_policy_that_trades_it(found, env, agent, folds, tmp_path):
    market = env.market
    in_last_test = market.times >= market.times[folds[1].test.segments[0, 1]]
    changed = dataclasses.replace(market, features=np.where(in_last_test[:, None, None], 9.0, market.features))
    own = walk_forward_folds(changed, 2, valid=0.5)
    other = walk_forward(env.with_market(changed), agent, own, run_dir=tmp_path / "run", **SETTINGS)
    for one, two in zip(found.folds, other.folds, strict=True):
        chex.assert_trees_all_equal(one.policy.state.params, two.policy.state.params)
        chex.assert_trees_all_equal(one.policy.state.normalizer, two.policy.state.normalizer)
    np.testing.assert_array_equal(found.folds[0].result.equity, other.folds[0].result.equity)
    assert not np.array_equal(found.folds[1].result.targets, other.folds[1].result.targets)


def test_a_walk_that_was_stopped_goes_on(found, env, agent, folds, tmp_path):
    walk_forward(env, agent, folds[:1], run_dir=tmp_path / "run", **SETTINGS)
    resumed = walk_forward(env, agent, folds, run_dir=tmp_path / "run", resume=True, **SETTINGS)
    np.testing.assert_array_equal(resumed.result.equity, found.result.equity)


def test_a_walk_that_cannot_go_on_is_refused_by_name(found, env, agent, folds, tmp_path):
    with pytest.raises(ValueError, match="`resume` needs the folder"):
        walk_forward(env, agent, folds, resume=True, **SETTINGS)
    with pytest.raises(FileNotFoundError, match="there is no run"):
        walk_forward(env, agent, folds, run_dir=tmp_path / "none", resume=True, **SETTINGS)
    with pytest.raises(ValueError, match=r"fold 1: .*seed` was 0 and is 1"):
        walk_forward(env, agent, folds, run_dir=found.run_dir, resume=True, seed=1, **SETTINGS)
    with pytest.raises(ValueError, match=r"began with `refit='fresh'`, not `refit='warm'`; give what the walk had"):
        walk_forward(env, agent, folds, refit="warm", run_dir=found.run_dir, resume=True, **SETTINGS)
    with only_writer(found.run_dir), pytest.raises(FileError, match="in use"):
        walk_forward(env, agent, folds, run_dir=found.run_dir, resume=True, **SETTINGS)


def test_a_warm_fold_starts_from_the_policy_before(found, env, agent, folds, tmp_path):
    warm = walk_forward(env, agent, folds, refit="warm", run_dir=tmp_path / "run", **SETTINGS)
    first, second = (one.training.policy_path for one in warm.folds)
    assert first.read_bytes() == found.folds[0].training.policy_path.read_bytes()
    assert second.read_bytes() != found.folds[1].training.policy_path.read_bytes()


def test_the_table_has_a_row_for_each_fold_and_one_for_all(found):
    table = found.to_frame()
    assert list(table.index) == ["fold 1", "fold 2", "all"]
    assert table.loc["all", "first"] == table.loc["fold 1", "first"]


def test_the_policies_of_all_folds_trade_the_tests_again(found):
    policies = found.policies
    again = policies.backtest(policies.market)
    assert again.symbols == found.result.symbols
    np.testing.assert_array_equal(again.equity, found.result.equity)
    for alone, fold in zip(policies.each(policies.market), found.folds, strict=True):
        np.testing.assert_array_equal(alone.equity, fold.result.equity)
    (member,) = policies.members  # of one seed
    np.testing.assert_array_equal(member.backtest(policies.market).equity, again.equity)
    free = policies.backtest(policies.market, costs=Costs(fee=0.0, slippage=0.0))
    assert free.costs_paid.sum() == 0
    assert again.costs_paid.sum() > 0


def test_a_walk_shows_itself_in_a_notebook(found):
    shown = found._repr_html_()
    assert "data:image/png;base64," in shown
    assert "fold 2" in shown
    assert found.plot().axes[0].get_ylabel() == "equity"


def test_what_cannot_be_walked_is_refused_before_anything_is_trained(env, agent, folds, tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(ValueError, match="refit='cold'`"):
        walk_forward(env, agent, folds, refit="cold", run_dir=run_dir, **SETTINGS)
    short = walk_forward_folds(env.market, train=4, test=60, valid=0)
    with pytest.raises(ValueError, match="fold 1"):
        walk_forward(env, agent, short, run_dir=run_dir, **SETTINGS)
    for wrong in (2.5, "5", True, folds[0]):
        with pytest.raises(ValueError, match=r"`folds=.* must be a whole number, at least 1"):
            walk_forward(env, agent, wrong, run_dir=run_dir, **SETTINGS)
    with pytest.raises(ValueError, match="walk_forward needs a Fold, not a Market"):
        walk_forward(env, agent, [env.market], run_dir=run_dir, **SETTINGS)
    with pytest.raises(ValueError, match="walk_forward needs a TradingEnv, not a Market"):
        walk_forward(env.market, agent, folds, run_dir=run_dir, **SETTINGS)
    with pytest.raises(ValueError, match="needs an Agent, not an int"):
        walk_forward(env, 5, folds, run_dir=run_dir, **SETTINGS)
    with pytest.raises(ValueError, match="no folds"):
        walk_forward(env, agent, (), run_dir=run_dir, **SETTINGS)
    assert not run_dir.exists()
