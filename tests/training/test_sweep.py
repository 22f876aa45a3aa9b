"""A sweep: what can be swept, how all are scored alike, and the table, the best and the returns. Nothing is trained."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation.accounts import account, returns

from jaxtrader.envs.rewards import log_return, risk_penalized
from jaxtrader.evaluation.overfitting import backtest_overfitting, deflated_sharpe
from jaxtrader.evaluation.verdict import sharpe
from jaxtrader.files import FileError
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.training.configurations import plan_sweep, scored_alike
from jaxtrader.training.sweep import ConfigurationResult, Sweep, sweep
from jaxtrader.training.train_result import TrainingDiverged
from jaxtrader.training.trainer import Trainer

SETTINGS = {"num_envs": 8, "rollout_length": 8, "total_steps": 128}


def configuration(i, ratios, bars=504, **changes):
    """A configuration whose seeds had these Sharpe ratios. Its policy has that of the first seed."""
    seeds = tuple(account(returns(ratio, bars, seed=10 * i + k)) for k, ratio in enumerate(ratios))
    return ConfigurationResult(f"config-{i}", {"gamma": i / 10}, Path(f"config-{i}"), seeds, seeds[0], **changes)


def test_every_choice_has_an_environment_and_an_agent_of_its_own(env, agent, market):
    lists = {"fee": [0.0, 0.002], "gamma": np.array([0.9, 0.99]), "window": range(4, 6), "max_leverage": [1.0]}
    plan = plan_sweep(env, agent, market, None, {**lists, **SETTINGS, "hidden": (4,), "reward": [log_return()]})
    assert len(plan.configurations) == 8
    for each, (fee, gamma, window) in zip(
        plan.configurations,
        [(fee, gamma, window) for fee in (0.0, 0.002) for gamma in (0.9, 0.99) for window in (4, 5)],
        strict=True,
    ):
        trainer = each.trainer
        assert (trainer.env.costs.fee, trainer.agent.gamma, trainer.env.window) == (fee, gamma, window)
        assert (trainer.agent.hidden, trainer.total_steps) == ((4,), 128)
        assert each.settings == {
            **{"fee": fee, "gamma": gamma, "window": window, "max_leverage": 1.0},
            "reward": log_return(),
        }


def test_costs_and_facts_of_the_market_are_the_same_for_all_scores(env, agent, market):
    settings = {"fee": [0.0, 0.3], "fill": ["close", "next_open"], "rebalance_band": [0.1]}
    for each in plan_sweep(env, agent, market, None, {**SETTINGS, **settings}).configurations:
        assert each.changes["costs"] is env.costs
        assert each.changes["rules"] == env.rules.replace(rebalance_band=0.1)
    assert scored_alike(Rules(max_leverage=2.0), Rules(), Costs(), ["max_leverage", "gamma"]) == {}
    own = scored_alike(Rules(max_leverage=2.0, delay=3), Rules(), Costs(), ["rules"])["rules"]
    assert own == Rules(max_leverage=2.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "nothing to sweep"),
        ({"gama": [0.9]}, "gama` .*did you mean gamma"),
        ({"gamma": []}, "`gamma` is an empty list"),
        ({"gamma": [1, 1.0]}, "`gamma` has 1.0 twice"),
        ({"gamma": [0.9, 2.0]}, "`gamma=2.*outside"),
        ({"gamma": [None]}, "gamma=None`"),
        ({"seeds": [1, 2]}, "`seeds` cannot be swept"),
        ({"positions": [0, 1]}, "positions=0`"),
        ({"lot": [100.0]}, "`lot=100.*: `lot` needs `capital`"),
        ({"fee": [0.1], "costs": Costs.between(Costs(), Costs())}, "range of costs"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_written(env, agent, market, tmp_path, settings, says):
    with pytest.raises(ValueError, match=says):
        sweep(env, agent, market, run_dir=tmp_path / "run", **SETTINGS, **settings)
    assert not (tmp_path / "run").exists()


def test_a_sweep_needs_bars_to_choose_on_and_one_to_resume(env, agent, tmp_path, market):
    with pytest.raises(ValueError, match="valid"):
        sweep(env, agent, None, run_dir=tmp_path / "run", gamma=[0.9], **SETTINGS)
    with pytest.raises(FileNotFoundError, match="run"):
        sweep(env, agent, market, run_dir=tmp_path / "run", resume=True, gamma=[0.9], **SETTINGS)


def test_score_and_spread_are_mean_and_deviation_over_the_seeds():
    one = configuration(1, [0.5, 1.0, 1.2])
    ratios = [sharpe(result).value for result in one.seeds]
    assert ratios == pytest.approx([0.5, 1.0, 1.2], abs=1e-6)
    assert one.score == pytest.approx(2.7 / 3)
    assert one.spread == pytest.approx(math.sqrt((0.4**2 + 0.1**2 + 0.3**2) / 2))
    assert math.isnan(configuration(2, [0.5]).spread)
    flat = dataclasses.replace(one, seeds=(account(np.zeros(504)), one.seeds[1]))
    assert flat.score == pytest.approx(0.5), "an account that holds nothing is cash, whose ratio is 0"


def test_the_best_is_chosen_by_validation_alone():
    best_on_test = dataclasses.replace(configuration(1, [0.2, 0.4]), test=account(returns(3.0, 504)))
    best = dataclasses.replace(configuration(2, [0.8, 0.9]), test=account(returns(-1.0, 504)))
    failed = ConfigurationResult("config-3", {"gamma": 0.3}, Path("config-3"), failed="update 1 was rejected")
    found = Sweep((best_on_test, best, failed), Path("runs"))
    assert found.best is best
    table = found.to_frame()
    assert list(table.index) == ["config-1", "config-2", "config-3"]
    assert list(table["gamma"]) == [0.1, 0.2, 0.3]
    assert table.loc["config-2", "valid_sharpe"] == pytest.approx(0.85)
    assert table.loc["config-2", "test_policy_sharpe"] == pytest.approx(-1.0)
    assert "rejected" in table.loc["config-3", "failed"]
    assert "config-2" in repr(found)
    with pytest.raises(ValueError, match="no configuration"):
        _ = Sweep((failed,), Path("runs")).best


def test_the_ratio_of_the_best_is_deflated_for_all_that_were_tried():
    several = [configuration(i, [0.5 * i]) for i in range(4)]
    found = Sweep(tuple(several), Path("runs"))
    ratios = np.array([0.0, 0.5, 1.0, 1.5]) / math.sqrt(252)
    expected = deflated_sharpe(several[3].valid.excess_returns, 4, max(ratios.var(ddof=1), 1 / 504))
    assert found.deflated_sharpe == pytest.approx(expected, abs=1e-9)
    assert f"deflated for 4 tries: {expected:.2f}" in repr(found)
    assert Sweep(tuple(several[3:]), Path("runs")).deflated_sharpe > expected, "of one try nothing is taken off"


def test_overfitting_is_of_the_returns_on_the_bars_that_all_have():
    several = [configuration(i, [0.1 * i]) for i in range(8)]
    several.append(configuration(9, [0.5], bars=500))  # four bars fewer
    found = Sweep(tuple(several), Path("runs"))
    assert found.returns.shape == (500, 9)
    for column, one in zip(found.returns.T, several, strict=True):
        np.testing.assert_array_equal(column, one.valid.excess_returns[:500])
    assert found.overfitting.probability == backtest_overfitting(found.returns)
    few = Sweep(tuple(several[:3]), Path("runs"))
    assert str(few.overfitting) == "not computed: 3 configurations"
    short = Sweep(tuple(configuration(i, [0.1 * i], bars=20) for i in range(8)), Path("runs"))
    assert str(short.overfitting) == "not computed: 20 bars"


def test_rewards_are_told_apart_by_their_values(env, agent, market):
    plan = plan_sweep(env, agent, market, None, {**SETTINGS, "reward": [risk_penalized(1.0), risk_penalized(2.0)]})
    assert [each.trainer.env.reward for each in plan.configurations] == [risk_penalized(1.0), risk_penalized(2.0)]


def diverge(trainer, resume=False):
    raise TrainingDiverged(f"update 1 of gamma {trainer.agent.gamma} was rejected")


def test_a_configuration_that_diverges_is_a_row_and_is_not_trained_again(env, agent, market, tmp_path, monkeypatch):
    lists = {"gamma": [0.9, 0.8], **SETTINGS}
    monkeypatch.setattr(Trainer, "train", diverge)
    found = sweep(env, agent, market, run_dir=tmp_path / "run", **lists)
    assert [one.failed for one in found.configurations] == [f"update 1 of gamma {x} was rejected" for x in (0.9, 0.8)]
    assert np.isnan(found.to_frame()["valid_sharpe"]).all()
    monkeypatch.setattr(Trainer, "train", None)  # calling it would fail
    again = sweep(env, agent, market, run_dir=tmp_path / "run", resume=True, **lists)
    assert [one.failed for one in again.configurations] == [one.failed for one in found.configurations]
    record = json.loads((tmp_path / "run" / "sweep.json").read_text())
    assert record["swept"] == {"gamma": [0.9, 0.8]}
    assert [row["gamma"] for row in record["rows"]] == [0.9, 0.8]


def test_other_settings_beside_an_old_sweep_are_refused_by_name(env, agent, market, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train", diverge)
    folder = tmp_path / "run"
    sweep(env, agent, market, run_dir=folder, gamma=[0.9, 0.8], fee=[0.0], **SETTINGS)
    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    for changed, says in (
        ({"gamma": [0.9, 0.7], "fee": [0.0]}, r"gamma` was \[0.9, 0.8\] .* is \[0.9, 0.7\]"),
        ({"gamma": [0.9, 0.8]}, r"fee` was \[0.0\] .* is not there"),
        ({"fee": [0.0], "gamma": [0.9, 0.8]}, "order `gamma`, `fee`"),
        ({"gamma": [0.9, 0.8], "fee": [0.0], "total_steps": 256}, "total_steps` was 128 .* is 256"),
    ):
        with pytest.raises(ValueError, match=says):
            sweep(env, agent, market, run_dir=folder, resume=True, **{**SETTINGS, **changed})
    with pytest.raises(FileExistsError, match="run"):
        sweep(env, agent, market, run_dir=folder, gamma=[0.9, 0.8], fee=[0.0], **SETTINGS)
    assert {path.name: path.read_bytes() for path in folder.glob("*.json")} == before
    for damage in ("{", "[]", '{"swept": {}, "fixed": {}, "finished": {"config-1": 3}}'):
        (folder / "sweep.json").write_text(damage)
        with pytest.raises(FileError, match=r"sweep\.json is damaged"):
            sweep(env, agent, market, run_dir=folder, resume=True, gamma=[0.9, 0.8], fee=[0.0], **SETTINGS)
