"""Callbacks: when they are called, how they end a training, and what they must not do to it."""

import numpy as np
import pytest
from trainers import STEPS, CountEnv, FakeAgent, Recording, path_trainer
from trainers import called_back as trainer

import jaxtrader as jt
from jaxtrader import files
from jaxtrader.training.callbacks import TrainingRun
from jaxtrader.training.train_result import TrainingDiverged


def run_of(scores):
    return TrainingRun("run", {}, [{"steps": i, "valid_reward_per_bar": score} for i, score in enumerate(scores)])


def test_callbacks_are_told_of_each_event(tmp_path):
    recording = Recording()
    trainer(tmp_path / "run", recording, total_steps=240).train()
    assert recording.told == [("start", 0), ("chunk", 2), ("chunk", 4), ("chunk", 6), ("end", 6)]


def test_a_callback_ends_the_training_as_if_it_were_complete(tmp_path):
    result = trainer(tmp_path / "run", Recording(stop_at=4)).train()
    assert not result.interrupted
    assert result.updates == 6  # the chunk that was on the device is finished
    assert files.load(result.run_dir / "last.pkl", "fake")["updates"] == 6


def test_a_comparison_with_numbers_of_numpy_ends_the_training(tmp_path):
    class Enough(jt.Callback):
        def on_chunk(self, record):
            return np.float32(record["updates"]) >= 4

    assert trainer(tmp_path / "run", Enough()).train().updates == 6


def test_callbacks_are_a_list(tmp_path):
    with pytest.raises(ValueError, match=r"callbacks is one EarlyStopping; give a list of callbacks"):
        jt.Trainer(CountEnv(), FakeAgent(), run_dir=tmp_path, callbacks=jt.EarlyStopping(3))


def test_a_resumed_run_tells_its_history(tmp_path):
    trainer(tmp_path / "run", Recording(stop_at=2)).train()
    again = Recording()
    trainer(tmp_path / "run", again).train(resume=True)
    assert again.told[0] == ("start", 2)
    assert again.told[-1] == ("end", 10)


def test_an_error_of_a_callback_is_raised_when_all_is_saved(tmp_path):
    class Broken(jt.Callback):
        def on_chunk(self, record):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError) as caught:
        trainer(tmp_path / "run", Broken()).train()
    assert "Broken.on_chunk" in caught.value.__notes__[0]
    assert files.load(tmp_path / "run" / "last.pkl", "fake")["updates"] == 4
    assert trainer(tmp_path / "run").train(resume=True).updates == 10


def test_a_callback_cannot_change_a_record(tmp_path):
    class Changing(jt.Callback):
        def on_chunk(self, record):
            record["steps"] = 0

    with pytest.raises(TypeError):
        trainer(tmp_path / "run", Changing()).train()


def test_a_failed_training_is_told(tmp_path):
    recording = Recording()
    with pytest.raises(TrainingDiverged):
        trainer(tmp_path / "run", recording, agent=FakeAgent(nan_at=3)).train()
    assert recording.told[-1] == ("failure", TrainingDiverged)


def test_early_stopping_counts_validations_without_a_better_one():
    stopping = jt.EarlyStopping(patience=2, min_delta=0.5)
    scores = [1.0, 1.4, 1.6, 2.0, float("nan")]  # better than 1 by more than 0.5 at 1.6 alone
    stops = [stopping.on_validation({"valid_reward_per_bar": score}) for score in scores]
    assert stops == [False] * 4 + [True]
    for count in range(len(scores) + 1):  # what it knows of a history is what it knew when that was made
        assert jt.EarlyStopping(2, 0.5).on_start(run_of(scores[:count])) == (count == len(scores))


@pytest.mark.parametrize(
    "settings",
    [{"patience": x} for x in (0, 2.5, "3", True)] + [{"min_delta": x} for x in (-1.0, float("nan"), "0.1")],
)
def test_early_stopping_refuses_settings_without_a_meaning(settings):
    with pytest.raises(ValueError, match="must be"):
        jt.EarlyStopping(**settings)


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        (jt.EarlyStopping, r"EarlyStopping\(\)"),
        (print, "jt.Callback"),
        (type("L", (), {"log": print})(), "loggers.Log"),
    ],
)
def test_what_is_no_callback_is_refused(tmp_path, given, way_out):
    with pytest.raises(ValueError, match=way_out):
        trainer(tmp_path / "run", given)


def test_early_stopping_ends_with_the_validated_policy_also_when_resumed(env, agent, market, tmp_path):
    still = agent.replace(learning_rate=1e-30)  # so that no validation is better than the first

    def run(name, patience):
        settings = {"valid": market, "total_steps": 8 * STEPS, "updates_per_chunk": 1, "eval_every": 2}
        callbacks = [jt.EarlyStopping(patience)]
        return path_trainer(env, still, tmp_path / name, callbacks=callbacks, **settings)

    whole = run("whole", 2).train()
    assert whole.updates == 6
    assert whole.history[-1]["updates"] == 6
    assert not whole.interrupted
    assert run("parts", 1).train().updates == 4
    resumed = run("parts", 2).train(resume=True)
    assert resumed.updates == 6
    again = run("parts", 2).train(resume=True)
    assert again.updates == 6
    names = ("updates", "entropy", "valid_reward_per_bar")
    assert [[line.get(name) for name in names] for line in again.history] == [
        [line.get(name) for name in names] for line in whole.history
    ]


def test_early_stopping_without_a_validation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="valid"):
        trainer(tmp_path / "run", jt.EarlyStopping())
