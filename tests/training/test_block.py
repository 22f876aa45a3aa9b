"""Several seeds as one program: each is the training of its seed, whatever happens to the others."""

import json
import os
import shutil
import signal
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainers import STEPS, Recording, validated_trainer, without_keys

from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.run_files import CHECKPOINTS
from jaxtrader.training import block as block_module
from jaxtrader.training.callbacks import EarlyStopping
from jaxtrader.training.checkpoint import read_checkpoint
from jaxtrader.training.metrics_log import JsonlLogger
from jaxtrader.training.progress import Progress, member_progress
from jaxtrader.training.records import TIME_FIELDS
from jaxtrader.training.seeds_at_once import bytes_of_block, even, slots_that_fit
from jaxtrader.training.train_result import TrainingDiverged
from jaxtrader.training.training_loop import first_state

SEED = 4
# A product of a whole block sums in another order than that of one training, and twelve gradient steps carry that on.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def make(env, agent, market):
    settings = {"total_steps": 6 * STEPS, "seed": SEED, "seeds": 2, "seeds_at_once": 2}
    return partial(validated_trainer, env=env, agent=agent, valid=market, **settings)


@pytest.fixture(scope="module")
def block(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("block") / "run", seeds=3).train()


def records(result):
    return [{name: x for name, x in record.items() if name not in TIME_FIELDS} for record in result.history]


def assert_same_run(one, other):
    """The same bits in all that decides, and in the logs."""
    assert records(one) == records(other)
    for mine, theirs in zip(one.members, other.members, strict=True):
        chex.assert_trees_all_equal(mine.state, theirs.state)
        for name in ("policy.pkl", "last.pkl"):
            assert (mine.run_dir / name).read_bytes() == (theirs.run_dir / name).read_bytes()
    assert one.policy_path.read_bytes() == other.policy_path.read_bytes()


@pytest.mark.slow
def test_members_of_blocks_are_the_trainings_of_their_seeds(block, make, tmp_path):
    alone = make(tmp_path / "run", seeds=3, seeds_at_once=1).train()
    assert [len(member.history) for member in block.members] == [len(member.history) for member in alone.members]
    for mine, theirs in zip(records(block), records(alone), strict=True):
        assert mine.keys() == theirs.keys()
        # float32 rounds a batch of members in another order, and training carries it on.
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4, nan_ok=True)
        assert [mine[name] for name in ("seed", "updates", "steps", "episodes")] == [
            theirs[name] for name in ("seed", "updates", "steps", "episodes")
        ]
    for mine, theirs in zip(block.members, alone.members, strict=True):
        chex.assert_trees_all_close(mine.state, theirs.state, **CLOSE)
        assert mine.best["updates"] == theirs.best["updates"]
        saved = [load_policy(result.policy_path) for result in (mine, theirs)]
        chex.assert_trees_all_close(*(policy.state.params for policy in saved), **CLOSE)
        assert saved[0].about["updates"] == saved[1].about["updates"]
        states = [read_checkpoint(result.run_dir / CHECKPOINTS[0]).train_state for result in (mine, theirs)]
        chex.assert_trees_all_close(*(jax.tree.map(without_keys, state) for state in states), **CLOSE)
        lines = [(result.run_dir / "metrics.jsonl").read_text().splitlines() for result in (mine, theirs)]
        assert [json.loads(line).keys() for line in lines[0]] == [json.loads(line).keys() for line in lines[1]]
    assert load_policy(block.policy_path).about["seeds"] == [4, 5, 6]
    one, other, third = (member.seconds for member in block.members)
    assert block.seconds == pytest.approx(max(one, other) + third), "the two of a block share their seconds"
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(block.members[0].state))


@pytest.fixture
def stopped(make, tmp_path, monkeypatch):
    """A block of two that Ctrl-C ended after its first records."""
    write, written = JsonlLogger.write, []

    def then_stop(log, record):
        write(log, record)
        written.append(record)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlLogger, "write", then_stop)
        result = make(tmp_path / "run").train()
    assert result.interrupted
    assert all(0 < member.updates < 6 and member.interrupted for member in result.members)
    assert len(load_policy(result.policy_path).members) == 2
    return result


@pytest.mark.slow
def test_a_block_that_was_stopped_is_resumed_to_the_same_bits(stopped, make, tmp_path):
    whole = make(tmp_path / "whole").train()
    assert_same_run(make(stopped.run_dir).train(resume=True), whole)
    again = make(stopped.run_dir).train(resume=True)
    assert again.updates == whole.updates, "all were complete"


def test_another_number_of_seeds_at_once_is_warned_of(stopped, make, tmp_path, recwarn):
    folders = [shutil.copytree(stopped.run_dir, tmp_path / name) for name in ("same", "other")]
    make(folders[0]).train(resume=True)
    assert not [each for each in recwarn if "seeds_at_once" in str(each.message)]
    said = r"`seeds_at_once` was 2 and is 1: the results may differ in their last digits"
    with pytest.warns(UserWarning, match=said):
        make(folders[1], seeds_at_once=1).train(resume=True)


def test_members_that_are_at_different_updates_meet_again(stopped, make, tmp_path):
    folder = stopped.members[0].run_dir
    shutil.rmtree(folder)  # this one begins anew, and the other goes on
    assert_same_run(make(stopped.run_dir).train(resume=True), make(tmp_path / "whole").train())


def test_each_has_its_own_early_stopping(make, tmp_path):
    settings = {"total_steps": 12 * STEPS, "callbacks": (EarlyStopping(1),)}
    one, other = (make(tmp_path / str(n), seeds_at_once=n, **settings).train() for n in (1, 2))
    assert [member.updates for member in one.members] == [member.updates for member in other.members]
    assert len({member.updates for member in one.members}) == 2, "one stops before the other, or this shows nothing"
    assert not other.interrupted


def test_members_that_end_by_episodes_end_by_their_own(make, tmp_path):
    """Paths of other draws end at other updates. Each trains to its goal, and the others go on."""
    settings = {"total_steps": None, "num_episodes": 13, "seed": 3}
    one, other = (make(tmp_path / str(n), seeds_at_once=n, **settings).train() for n in (1, 2))
    counts = [[(member.updates, member.episodes) for member in result.members] for result in (one, other)]
    assert counts[0] == counts[1]
    assert all(episodes >= 13 for _, episodes in counts[0])


@pytest.mark.slow
def test_members_whose_features_have_other_scales_keep_their_own(block, make, monkeypatch, tmp_path):
    """As where each starts from a policy of other bars. The scales are then no longer shared, and neither is memory."""
    monkeypatch.setattr(block_module, "_equal", lambda one, other: np.zeros((), bool))
    own = make(tmp_path / "run").train()
    for mine, theirs in zip(own.members, block.members, strict=False):
        chex.assert_trees_all_close(mine.state, theirs.state, **CLOSE)
        assert mine.best["updates"] == theirs.best["updates"]


class Fragile(PPOAgent):
    """Its numbers are NaN above a learning rate, where its first weight is positive: with seed 6, and not with 5."""

    def learn(self, state, rollout, params, key):
        state, metrics = super().learn(state, rollout, params, key)
        broken = (state.params["first_kernel"].ravel()[0] > 0) & (state.learning_rate > 5e-4)
        return state.replace(params=jax.tree.map(lambda x: jnp.where(broken, jnp.nan, x), state.params)), metrics


@pytest.mark.slow
def test_a_member_that_diverges_goes_back_by_itself_or_ends_all(agent, make, tmp_path):
    fragile = Fragile(hidden=(8, 8), num_epochs=2, num_minibatches=2, learning_rate=1e-3, schedule="constant")
    settings = {"agent": fragile, "on_divergence": "halve", "seed": 5}
    one, other = (make(tmp_path / str(n), seeds_at_once=n, **settings).train() for n in (1, 2))
    rates = [[record["learning_rate"] for record in result.history] for result in (one, other)]
    assert rates[0] == pytest.approx(rates[1])
    assert rates[0] == pytest.approx([1e-3] * 4 + [5e-4] * 4), "one member halved its rate and one did not"
    for mine, theirs in zip(one.members, other.members, strict=True):
        chex.assert_trees_all_close(mine.state.params, theirs.state.params, **CLOSE)
    with pytest.raises(TrainingDiverged, match="parameters"):
        make(tmp_path / "stop", agent=fragile, seed=5).train()
    saved = [read_checkpoint(tmp_path / "stop" / f"seed-{seed}" / CHECKPOINTS[0]) for seed in (5, 6)]
    assert saved[0].updates > 0, "the other member saved what it had"
    assert saved[1].updates == 0


def test_what_does_not_go_as_one_program_is_refused_before_training(make, tmp_path):
    with pytest.raises(ValueError, match="seeds_at_once=2` needs no callbacks but EarlyStopping"):
        make(tmp_path / "callbacks", callbacks=(Recording(),))
    with pytest.raises(ValueError, match="seeds_at_once=2` needs one device"):
        make(tmp_path / "devices", devices=2)
    with pytest.raises(ValueError, match="seeds_at_once=0` must be a whole number, at least 1"):
        make(tmp_path / "none", seeds_at_once=0)


def test_a_block_has_as_many_slots_as_fit_and_blocks_are_even():
    asked = []

    def bytes_of(slots):
        asked.append(slots)
        return 100 + 10 * slots

    assert slots_that_fit(16, bytes_of, 300) == 16
    assert asked == [16]
    assert slots_that_fit(16, bytes_of, 190) == 8  # 9 fit, which would be blocks of 9 and 7
    assert slots_that_fit(16, bytes_of, 1) == 1
    assert [even(16, most) for most in (16, 10, 8, 3, 1)] == [16, 8, 8, 3, 1]


def test_the_bytes_of_a_block_are_those_of_its_program(make, tmp_path):
    trainer = make(tmp_path / "run", seed=SEED, seeds=1, seeds_at_once=None)
    train_state, params = first_state(trainer, trainer.agent_arrays, trainer.raw_params, None)
    state = sum(without_keys(leaf).nbytes for leaf in jax.tree.leaves(train_state))
    needed = bytes_of_block(2, trainer, train_state, params)
    assert needed > 2 * 2 * state, "two states, two copies of them, and what the program computes with"


def test_the_display_counts_all_members_and_shows_the_means_of_their_figures(capsys):
    progress = Progress(200, "steps")
    shown = member_progress(progress, [4, 5])
    for each, loss, speed in zip(shown, (1.0, 3.0), (10.0, np.nan), strict=True):
        each.wait("compiling")
        each.update(50, {"updates": 1, "steps": 50, "policy_loss": loss, "steps_per_second": speed})
    shown[1].print("note: IBM is short")
    shown[0].print("note: IBM is short")
    shown[0].print("note: update 3 was rejected")
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("compiling ...") == 1
    assert lines.count("note: IBM is short") == 1
    assert "seed 4: note: update 3 was rejected" in lines
    assert "100/200 steps" in lines[-1]
    assert "policy loss 2" in lines[-1]
