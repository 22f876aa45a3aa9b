"""A policy that does not beat holding on validation holds: what is compared, what is written, and what is refused."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import chex
import numpy as np
import pytest
from trainers import STEPS, CountEnv, FakeAgent, validated_trainer

import jaxtrader as jt
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.baselines import exposure_matched, of_each_symbol
from jaxtrader.evaluation.proof import prove
from jaxtrader.evaluation.succession import Succession
from jaxtrader.evaluation.verdict import lead
from jaxtrader.report.evidence import gather
from jaxtrader.training import hold_if_unproven
from jaxtrader.training.trainer import Trainer


@pytest.fixture(scope="module")
def make(env, agent, market):
    settings = {"total_steps": 3 * STEPS, "must_beat_holding": True}
    return partial(validated_trainer, env=env, agent=agent, valid=market, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_what_was_trained_on_a_random_walk_holds(seeds, make, market, tmp_path):
    result = make(tmp_path / "run", seeds=seeds).train()
    trained = load_policy(result.run_dir / "trained.pkl")
    own = dataclasses.replace(make(tmp_path / "own", seeds=seeds), must_beat_holding=False).train()
    assert own.proof is None
    chex.assert_trees_all_equal(trained.state, own.policy.state)

    there = backtest(trained, market)
    # The bars of validation are those of training here, of two symbols.
    exposures = [one.intrabar_exposure for one in there.by_symbol.values()]
    assert result.proof.exposure == pytest.approx(np.concatenate(exposures).mean(), rel=1e-9)
    assert result.proof.lead == lead(there, of_each_symbol(exposure_matched, market, there))
    assert not result.proof.is_better
    held = backtest(result.policy, market)
    targets = np.concatenate([one.targets for one in held.by_symbol.values()])
    assert np.ptp(targets) < 1e-6
    assert abs(targets[0, 0] - result.proof.exposure) <= 0.5 / seeds + 1e-6, "positions are -1, 0 and 1"
    assert result.proof.constant_exposure == pytest.approx(targets[0, 0], abs=1e-6)
    assert str(result.proof).startswith(
        f"it holds {targets[0, 0] + 0.0:.2f}, since what was trained was not shown to be better than"
    )


def test_what_beats_holding_trades(make, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    found = prove(lambda seen: 0.0, make(tmp_path / "run").valid)
    better = dataclasses.replace(found, lead=dataclasses.replace(found.lead, low=0.1))
    monkeypatch.setattr(hold_if_unproven, "prove", lambda *_: better)
    result = make(tmp_path / "run").train()
    own = dataclasses.replace(make(tmp_path / "own"), must_beat_holding=False).train()
    chex.assert_trees_all_equal(result.policy.state, own.policy.state)
    assert not (result.run_dir / "trained.pkl").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`total_steps` is another one")
def test_a_run_that_held_goes_on_from_what_was_trained(make, market, tmp_path):
    make(tmp_path / "run").train()
    longer = make(tmp_path / "run", total_steps=6 * STEPS).train(resume=True)
    assert longer.updates == 6
    trained, held = (load_policy(longer.run_dir / name) for name in ("trained.pkl", "policy.pkl"))
    assert dataclasses.replace(longer.proof, constant_exposure=None) == prove(trained, market, market)
    assert np.any(trained.state.params["policy"]["kernel"])
    assert not np.any(held.state.params["policy"]["kernel"])
    # Another training starts from what was trained, and the files say why this one holds.
    again = dataclasses.replace(make(tmp_path / "next"), init_from=longer.run_dir)
    chex.assert_trees_all_equal(again.earlier.state, trained.state)
    assert held.about["holds_because"] == str(longer.proof)
    assert "holds_because" not in trained.about
    why = gather(held, {"test": market}).sentences[1]
    assert why == f"I{held.about['holds_because'][1:]}."
    first = Succession((held, trained), (market, market))
    assert first.holds_because.startswith("fold 1 holds one exposure, since what was trained was not shown")
    assert Succession((trained, trained), (market, market)).holds_because is None


@pytest.mark.slow
def test_knowing_the_next_bar_beats_holding_and_a_constant_does_not():
    market = jt.Market.from_bars(jt.load_bundled("IBM"), features=["log_return_1"]).split(0.06, 0.94)[0]
    following = np.concatenate([market.features[1:], np.zeros((1, 1, 1))])
    known = dataclasses.replace(market, features=following)
    assert prove(_if_up, known).is_better
    assert not prove(_if_up, market).is_better
    assert not prove(lambda seen: 0.5, market).is_better


def _if_up(seen: Any) -> float:
    return float(seen.window[-1, 0, 0] > 0)


def test_what_cannot_hold_is_refused_before_training(make, env, agent, tmp_path):
    with pytest.raises(ValueError, match="`must_beat_holding` needs a Market as validation"):
        make(tmp_path / "run", valid=None)
    with pytest.raises(ValueError, match="`must_beat_holding` needs a TradingEnv"):
        Trainer(CountEnv(), FakeAgent(), total_steps=10, must_beat_holding=True)
    assert not list(tmp_path.iterdir())
