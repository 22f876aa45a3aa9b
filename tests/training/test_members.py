"""Several seeds as one training: each member is the training of its seed, and the policy is their mean."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial

import chex
import numpy as np
import pytest
from trainers import STEPS, CountEnv, FakeAgent, validated_trainer

from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.files import FileError
from jaxtrader.training.callbacks import Callback
from jaxtrader.training.trainer import Trainer


@pytest.fixture(scope="module")
def make(env, agent, market):
    return partial(validated_trainer, env=env, agent=agent, valid=market, total_steps=3 * STEPS)


@pytest.fixture(scope="module")
def trained(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("members") / "run", seed=4, seeds=2).train()


def test_each_member_is_the_training_of_its_seed(trained, make, tmp_path):
    alone = make(tmp_path / "alone", seed=5).train()
    chex.assert_trees_all_equal(trained.members[1].state, alone.state)
    assert (trained.run_dir / "seed-5" / "policy.pkl").read_bytes() == (alone.run_dir / "policy.pkl").read_bytes()
    assert [record["seed"] for record in trained.history] == [4, 4, 5, 5]
    assert trained.steps == 2 * alone.steps


def test_the_policy_is_the_ensemble_of_the_best_of_each_seed(trained, market):
    policy = load_policy(trained.policy_path)
    members = [load_policy(result.policy_path) for result in trained.members]
    assert policy.about["seeds"] == [4, 5]
    with pytest.raises(ValueError, match="the state is that of 2 seeds"):
        backtest(trained.agent, market, state=trained.state, env=trained.env)
    window = market.features[20:24, 0]
    assert policy.act(window) == pytest.approx(np.mean([member.act(window) for member in members]))


def test_a_run_that_was_stopped_between_two_seeds_is_resumed(trained, make, tmp_path):
    # What a process leaves that was killed after its first member: that member, and no ensemble.
    make(tmp_path / "run" / "seed-4", seed=4).train()
    resumed = make(tmp_path / "run", seed=4, seeds=2).train(resume=True)
    assert resumed.policy_path.read_bytes() == trained.policy_path.read_bytes()
    with pytest.raises(FileExistsError, match="holds a run"):
        make(tmp_path / "run", seed=4, seeds=2).train()


@pytest.mark.parametrize(("seed", "seeds"), [(4, 1), (5, 2), (3, 2)])
def test_a_seed_of_a_run_is_not_left_out_where_it_is_resumed(trained, make, seed, seeds):
    before = {path: path.read_bytes() for path in trained.run_dir.rglob("*") if path.is_file()}
    trainer = make(trained.run_dir, seed=seed, seeds=seeds)
    for attempt in (trainer.check_resume, lambda: trainer.train(resume=True)):
        with pytest.raises(ValueError, match=rf"it has the seeds 4, 5, and this training is of seed {seed}"):
            attempt()
    with pytest.raises(ValueError, match="it is a training of one seed, and this training is of seed 4, 5"):
        make(trained.run_dir / "seed-4", seed=4, seeds=2).check_resume()
    assert {path: path.read_bytes() for path in trained.run_dir.rglob("*") if path.is_file()} == before


class StopLate(Callback):
    """Asks to stop when the first seed's training has just been finished."""

    def on_end(self, result):
        if result.run_dir.name == "seed-4":
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_comes_when_a_seed_is_finished_stops_the_next(trained, make, tmp_path):
    stopped = make(tmp_path / "run", seed=4, seeds=2, callbacks=[StopLate()]).train()
    assert stopped.interrupted
    assert [member.updates for member in stopped.members] == [3, 2]
    resumed = make(tmp_path / "run", seed=4, seeds=2).train(resume=True)
    assert resumed.policy_path.read_bytes() == trained.policy_path.read_bytes()


def test_each_member_starts_from_its_own_earlier_policy(trained, make, tmp_path):
    warm = make(tmp_path / "warm", seed=4, seeds=2, init_from=trained.policy_path).train()
    alone = make(tmp_path / "alone", seed=5, init_from=trained.members[1].policy_path).train()
    chex.assert_trees_all_equal(warm.members[1].state.params, alone.state.params)
    with pytest.raises(ValueError, match="ensemble of 2"):
        make(tmp_path / "three", seeds=3, init_from=trained.policy_path)


@pytest.mark.parametrize("refit", [False, True])
def test_seeds_that_had_not_begun_start_from_the_policy_that_the_run_keeps(trained, make, tmp_path, refit):
    """The run was stopped between its seeds, and the earlier one is gone. Whoever resumes it does not name that."""
    earlier = tmp_path / "earlier"
    shutil.copytree(trained.run_dir, earlier)
    start = {"seed": 4, "seeds": 2, "init_from": earlier, "refit_normalizer": refit}
    warm = make(tmp_path / "warm", **start).train()
    stopped = make(tmp_path / "run", **start, callbacks=[StopLate()]).train()
    assert stopped.interrupted
    run = stopped.run_dir
    shutil.rmtree(earlier)
    shutil.rmtree(run / "seed-5")
    kept = (run / "start.pkl").read_bytes()
    (run / "start.pkl").write_bytes(b"?")
    for attempt in (make(run, seed=4, seeds=2).check_resume, lambda: make(run, seed=4, seeds=2).train(resume=True)):
        with pytest.raises(FileError, match=r"start\.pkl"):
            attempt()
    (run / "start.pkl").write_bytes(kept)
    resumed = make(run, seed=4, seeds=2).train(resume=True)
    for mine, theirs in zip(resumed.members, warm.members, strict=True):
        assert mine.policy_path.read_bytes() == theirs.policy_path.read_bytes()
    assert resumed.policy_path.read_bytes() == warm.policy_path.read_bytes()
    with pytest.raises(ValueError, match="ensemble of 2, not of `seeds=3`"):
        make(run, seed=4, seeds=3).train(resume=True)
    (run / "start.pkl").write_bytes(b"?")  # which no seed needs any more
    assert make(run, seed=4, seeds=2).train(resume=True).updates == 6


def test_a_warm_start_is_kept_where_a_run_is_killed_before_its_first_checkpoint(trained, make, tmp_path):
    earlier = trained.members[0].policy
    warm = make(tmp_path / "warm", init_from=earlier).train()
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").touch()
    shutil.copy(warm.run_dir / "start.pkl", run)
    resumed = make(run).train(resume=True)
    assert resumed.policy_path.read_bytes() == warm.policy_path.read_bytes()

    other = tmp_path / "other"  # another training takes the folder, and starts from nothing
    other.mkdir()
    (other / "metrics.jsonl").touch()
    shutil.copy(warm.run_dir / "start.pkl", other)
    fresh = make(other).train()
    assert not (other / "start.pkl").exists()
    assert fresh.policy_path.read_bytes() != warm.policy_path.read_bytes()


def test_policies_without_a_mean_are_refused_before_training(env, make, tmp_path):
    stops = TradingEnv(env.market, positions=(-1, 0, 1), window=4, episode_length=16, stop_loss=(0.1, 0.2, 0.1))
    with pytest.raises(ValueError, match="stop_loss"):
        make(tmp_path / "stops", env=stops, seeds=2)
    with pytest.raises(ValueError, match="seeds=2`"):
        Trainer(CountEnv(), FakeAgent(), total_steps=10, seeds=2)
    with pytest.raises(ValueError, match="seeds=0`"):
        make(tmp_path / "none", seeds=0)
