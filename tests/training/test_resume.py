"""A training that is resumed against one that never stopped: the same bits, wherever it was ended."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from resealed import damaged, refusals
from trainers import STEPS, CountEnv, FakeAgent, validated_trainer, without_keys

import jaxtrader as jt
from jaxtrader import files
from jaxtrader.agents.policy_loading import load_policy
from jaxtrader.files import FileError
from jaxtrader.run_files import CHECKPOINTS
from jaxtrader.training import checkpoint, dispatch, metrics_log, saving, training_loop, update
from jaxtrader.training.checkpoint import read_checkpoint, restore
from jaxtrader.training.identity import differences
from jaxtrader.training.records import TIME_FIELDS
from jaxtrader.training.run_folder import only_writer, resume_command
from jaxtrader.training.train_result import TrainingDiverged
from jaxtrader.training.trainer import Trainer

NEWEST, PREVIOUS, BEST = CHECKPOINTS


class Killed(BaseException):
    """The process is dead: it writes no more."""


@pytest.fixture(scope="session")
def make(env, agent, market):
    """`make(run_dir)`: a trainer of 7 updates, with its market."""
    return partial(validated_trainer, env=env, agent=agent, valid=market, total_steps=7 * STEPS)


@pytest.fixture(scope="session")
def whole(make, tmp_path_factory):
    """The training that never stopped."""
    return make(tmp_path_factory.mktemp("whole") / "run").train()


def records(run_dir):
    """The lines of metrics.jsonl, without times."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIME_FIELDS} for line in lines]


def assert_same_run(one, other):
    """All that two runs leave is the same, to the last bit."""
    assert records(one.run_dir) == records(other.run_dir)
    for name in ("policy.pkl", "last.pkl", "config.json"):
        assert (one.run_dir / name).read_bytes() == (other.run_dir / name).read_bytes(), name
    chex.assert_trees_all_equal(one.state, other.state)
    saved = [read_checkpoint(result.run_dir / NEWEST) for result in (one, other)]
    chex.assert_trees_all_equal(*(jax.tree.map(without_keys, checkpoint.train_state) for checkpoint in saved))
    assert saved[0].metrics_bytes == (one.run_dir / "metrics.jsonl").stat().st_size
    assert not files.temporaries(one.run_dir)
    shorn = [{k: v for k, v in r.best.items() if k not in TIME_FIELDS} for r in (one, other)]
    assert shorn[0] == shorn[1]
    assert len(one.history) == len(other.history)


def disturb(monkeypatch, at, error, once=False):
    """Raise an error at the write of this number (each sync, rename and half a log line), and at all later ones.

    Return a function that says how many writes there were.
    """
    count = 0

    def fails():
        nonlocal count
        count += 1
        return count == at if once else count >= at

    def failing(function):
        def call(*args):
            if fails():
                raise error
            return function(*args)

        return call

    class HalfALine:
        """A file that takes the first half of a line, and then nothing."""

        def __init__(self, file):
            self.file, self.fails = file, False

        def write(self, line):
            if self.fails or fails():
                if self.fails:
                    raise error
                self.fails = True
                return self.file.write(line[: len(line) // 2])
            return self.file.write(line)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def opened(log, path):
        init(log, path)
        log._file = HalfALine(log._file)

    init = metrics_log.JsonlLogger.__init__
    monkeypatch.setattr(metrics_log.JsonlLogger, "__init__", opened)
    monkeypatch.setattr(files.os, "fsync", failing(os.fsync))
    monkeypatch.setattr(files.os, "replace", failing(os.replace))
    return lambda: count


@pytest.fixture(scope="session")
def writes(make, tmp_path_factory):
    """The number of writes of a whole run."""
    with pytest.MonkeyPatch.context() as patch:
        count = disturb(patch, 10**9, Killed())
        make(tmp_path_factory.mktemp("writes") / "run").train()
        return count()


def programs():
    return update.run_chunk._cache_size(), update.begin_rollouts._cache_size(), update.init_agent._cache_size()


def test_a_run_that_is_killed_at_any_write_resumes_to_the_same_bits(make, whole, writes, tmp_path, monkeypatch):
    for event in np.random.default_rng(0).choice(writes, 8, replace=False) + 1:
        run = tmp_path / str(event)
        with monkeypatch.context() as patch:
            disturb(patch, event, Killed())
            with pytest.raises(Killed):
                make(run).train()
        (run / ".0123456789ab.tmp").write_bytes(b"left by the killed process")
        before = programs()
        assert_same_run(make(run).train(resume=True), whole)
        assert programs() == before, "resuming compiles nothing of its own"


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_resumes_to_the_same_bits(make, whole, writes, tmp_path, monkeypatch):
    for event in range(1, writes + 4, 3):  # of each kind: a sync, a rename, half a line of the log
        with monkeypatch.context() as patch:
            disturb(patch, event, Killed())
            try:
                result = make(tmp_path / "run").train(resume=event > 1)
            except Killed:
                continue
        assert event > 10, "a few kills would prove little"
        assert_same_run(result, whole)
        return
    raise AssertionError("it never came to its end")


def test_a_write_that_fails_is_named_and_costs_nothing(make, whole, writes, tmp_path, monkeypatch):
    for event in np.random.default_rng(1).choice(writes, 8, replace=False) + 1:
        run = tmp_path / str(event)
        with monkeypatch.context() as patch:
            disturb(patch, event, OSError(28, "No space left on device"), once=True)
            with pytest.raises(FileError, match=rf"cannot write.*{run}/.*No space left on device.*make room there"):
                make(run).train()
        assert not files.temporaries(run)
        assert_same_run(make(run).train(resume=True), whole)


def test_a_run_that_was_stopped_is_not_validated_once_more_and_resumes_to_the_same_bits(
    make, whole, tmp_path, monkeypatch
):
    def interrupted(*args, **kwargs):
        if next(chunks) == 2:  # the second chunk ends at the first validation, the third does not
            os.kill(os.getpid(), signal.SIGTERM)
        return update.run_chunk(*args, **kwargs)

    chunks = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "run_chunk", interrupted)
        result = make(tmp_path / "run").train()
    assert result.interrupted
    assert [record["updates"] for record in records(tmp_path / "run")] == [2, 3, 5]
    assert "valid_reward_per_bar" not in records(tmp_path / "run")[-1]
    resumed = make(tmp_path / "run").train(resume=True)
    assert not resumed.interrupted
    assert_same_run(resumed, whole)


def test_a_finished_run_stays_as_it_is(make, whole):
    before = {path.name: path.read_bytes() for path in whole.run_dir.iterdir()}
    again = make(whole.run_dir).train(resume=True)
    assert {path.name: path.read_bytes() for path in whole.run_dir.iterdir()} == before
    assert (again.updates, again.interrupted) == (7, False)
    assert_same_run(again, whole)
    with pytest.raises(ValueError, match=r"total_steps=128` is less than the 448 .*give more"):
        make(whole.run_dir, total_steps=2 * STEPS).train(resume=True)


@struct.dataclass
class Drawing(FakeAgent):
    """Adds a random number at each update."""

    def learn(self, state, rollout, params, key):
        return {"updates": state["updates"] + 1, "weight": state["weight"] + jax.random.uniform(key)}, {}


def test_a_run_may_become_longer(tmp_path, recwarn):
    def trainer(name, updates):
        settings = {"num_envs": 4, "rollout_length": 10, "updates_per_chunk": 2, "eval_every": 4, "progress": False}
        return Trainer(CountEnv(), Drawing(), total_steps=40 * updates, run_dir=tmp_path / name, **settings)

    whole = trainer("whole", 11).train()
    trainer("run", 4).train()
    longer = trainer("run", 11).train(resume=True)
    chex.assert_trees_all_equal(longer.state, whole.state)
    assert records(longer.run_dir) == records(whole.run_dir)
    # The chunk that the end cut short is a record of its own, and the later ones lie where they would have lain.
    trainer("odd", 5).train()
    odd = trainer("odd", 11).train(resume=True)
    chex.assert_trees_all_equal(odd.state, whole.state)
    assert [record["updates"] for record in odd.history] == [2, 4, 5, 6, 8, 10, 11]
    assert not [one for one in recwarn if "schedules" in str(one.message)], "this agent has none"


def test_a_longer_run_stretches_its_schedules_and_says_so(make, whole, agent, tmp_path):
    """The rate goes on as if the run had had the new length: at 3 of 7 updates instead of at its end."""
    assert agent.schedule == "linear"
    make(tmp_path / "run", total_steps=3 * STEPS).train()
    with pytest.warns(UserWarning, match=r"total_steps` is another one.*go on at 43% of it instead of 100%"):
        longer = make(tmp_path / "run").train(resume=True)
    rates, wanted = ({one["updates"]: one["learning_rate"] for one in run.history} for run in (longer, whole))
    later = [updates for updates in rates if updates > 3]
    assert [rates[updates] for updates in later] == [wanted[updates] for updates in later]
    assert rates[3] == pytest.approx(agent.learning_rate / 3)
    assert rates[later[0]] > rates[3]


@pytest.mark.parametrize("name", ["learning_rate", "seed", "num_envs", "hidden", "costs", "bars", "validation"])
def test_settings_and_data_that_would_break_the_bits_are_refused_by_name(make, whole, env, agent, market, name):
    close = market.close.copy()
    close[20] *= 1.01
    other = dataclasses.replace(market, close=close)
    changed, says = {
        "learning_rate": ({"agent": agent.replace(learning_rate=0.002)}, r"learning_rate` was 0\.001 and is 0\.002"),
        "seed": ({"seed": 4}, "seed` was 3 and is 4"),
        "num_envs": ({"num_envs": 16}, "num_envs` was 8 and is 16"),
        "hidden": ({"agent": agent.replace(hidden=(4, 4))}, r"hidden` was \[8, 8\] and is \[4, 4\]"),
        "costs": ({"env": dataclasses.replace(env, costs=env.costs.replace(fee=0.002))}, r"costs\.fee` was .* 0\.002"),
        "bars": ({"env": env.with_market(other)}, "the training bars have other numbers"),
        "validation": ({"valid": other}, "the validation bars have other numbers"),
    }[name]
    before = {path.name: path.read_bytes() for path in whole.run_dir.iterdir()}
    trainer = make(whole.run_dir, **changed)
    for attempt in (trainer.check_resume, lambda: trainer.train(resume=True)):
        with pytest.raises(ValueError, match=says):
            attempt()
    assert {path.name: path.read_bytes() for path in whole.run_dir.iterdir()} == before


def test_a_setting_of_a_later_version_may_have_what_earlier_ones_did(make, whole):
    before = {name: value for name, value in make(whole.run_dir).identity.items() if name != "unroll"}
    assert differences(before, make(whole.run_dir).identity) == []
    assert differences(before, make(whole.run_dir, unroll=2).identity) == ["`unroll` was not there and is 2"]


@pytest.mark.parametrize(
    ("top", "run", "resumes"),
    [
        ("config.toml", "", "jaxtrader train --resume {}"),
        ("config.toml", "seed-3", "jaxtrader train --resume {}"),
        ("config.toml", "fold-2/seed-3", "jaxtrader walk-forward --resume {}"),
        ("sweep.json", "config-2/seed-3", "the same jaxtrader sweep"),
        (None, "seed-3", "Trainer(..., run_dir='{}').train(resume=True)"),
        (None, "fold-2", "jaxtrader.walk_forward(..., run_dir='{}', resume=True)"),
        (None, "other", "Trainer(..., run_dir='{}/other').train(resume=True)"),
    ],
)
def test_a_part_of_a_run_is_resumed_by_what_resumes_all_of_it(top, run, resumes, tmp_path):
    place = tmp_path / run
    place.mkdir(parents=True, exist_ok=True)
    for folder in (tmp_path, *place.parents[: run.count("/")]):
        (folder / "metrics.jsonl").touch()
    if top:
        (tmp_path / top).touch()
    if top == "sweep.json":
        (tmp_path / "config-2" / "config.toml").touch()
    assert resume_command(place) == resumes.format(tmp_path)


def test_bars_that_were_added_behind_the_training_change_nothing(make, whole, env, market, tmp_path):
    train, _ = market.split(0.6, 0.4)
    first = make(tmp_path / "run", env=env.with_market(train), total_steps=3 * STEPS).train()
    grown = dataclasses.replace(train, close=np.where(np.arange(len(train.times))[:, None] == 149, 9, train.close))
    make(first.run_dir, env=env.with_market(grown), total_steps=3 * STEPS).check_resume()


def test_another_machine_is_warned_of(make, whole, monkeypatch):
    monkeypatch.setattr(checkpoint, "machine", lambda: {"jax": "9.9", "device": "cpu", "cpus": 999})
    with pytest.warns(UserWarning, match=r"JAX was .* and is 9\.9, the number of cores was .* and is 999"):
        make(whole.run_dir).train(resume=True)


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def stopped(make, tmp_path, monkeypatch):
    """A run that was killed behind its last record, with a checkpoint at update 6 of 7."""
    save = saving.Saver.save_checkpoint

    def save_or_die(saver, *args):
        if saver.recorder.updates == 7:
            raise Killed
        save(saver, *args)

    with monkeypatch.context() as patch:
        patch.setattr(saving.Saver, "save_checkpoint", save_or_die)
        with pytest.raises(Killed):
            make(tmp_path / "run").train()
    return tmp_path / "run"


@pytest.fixture(scope="session")
def stopped_tree(make, tmp_path_factory):
    """The content of a checkpoint at update 6."""
    run = tmp_path_factory.mktemp("tree") / "run"
    make(run, total_steps=6 * STEPS).train()
    return files.load(run / NEWEST, "checkpoint")


@pytest.fixture(scope="session")
def template(make, whole):
    """What a checkpoint is restored to."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "restore", lambda *given: seen.append(given[2]) or restore(*given))
        make(whole.run_dir).train(resume=True)
    return seen[0]


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(make, whole, stopped):
    assert [read_checkpoint(stopped / name).updates for name in (NEWEST, PREVIOUS)] == [6, 3]
    damage(stopped / NEWEST)
    with pytest.warns(UserWarning, match=rf"{NEWEST}' is damaged.*going back to the checkpoint before it"):
        resumed = make(stopped).train(resume=True)
    assert (stopped / f"{NEWEST}.damaged").exists()
    assert_same_run(resumed, whole)


def test_a_checkpoint_damaged_anywhere_is_refused_by_name(stopped):
    path = stopped / NEWEST
    for data in damaged(path.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(FileError, match=rf"{path}' is (damaged or incomplete|not a jaxtrader file)"):
            read_checkpoint(path)


def test_a_run_whose_newest_checkpoint_is_cut_goes_on_from_the_one_before(make, whole, stopped):
    path = stopped / NEWEST
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.warns(UserWarning, match=r"is damaged or incomplete.*going back"):
        resumed = make(stopped).train(resume=True)
    assert_same_run(resumed, whole)


def test_where_all_checkpoints_are_damaged_the_newest_is_named(make, stopped):
    for name in CHECKPOINTS:
        damage(stopped / name)
    with pytest.raises(FileError, match=r"checkpoint\.pkl' is damaged"):
        make(stopped).train(resume=True)
    assert all((stopped / name).exists() for name in CHECKPOINTS), "nothing is set aside where nothing can go on"


@pytest.mark.parametrize("lost", [False, True])
def test_a_log_that_is_no_longer_the_runs_costs_the_records_and_not_the_training(make, whole, stopped, lost):
    log = stopped / "metrics.jsonl"
    log.write_text("") if not lost else log.unlink()
    with pytest.warns(UserWarning, match=r"metrics\.jsonl is damaged; its records begin anew"):
        resumed = make(stopped).train(resume=True)
    chex.assert_trees_all_equal(resumed.state, whole.state)
    assert records(stopped) == records(whole.run_dir)[-1:]


def reseal(path, **fields):
    files.save(path, "checkpoint", files.load(path, "checkpoint") | fields)


@pytest.mark.parametrize("size", [2**62, 10])
def test_a_log_of_another_size_than_a_checkpoint_says_is_named_and_the_one_before_goes_on(make, whole, stopped, size):
    log = (stopped / "metrics.jsonl").read_bytes()
    reseal(stopped / NEWEST, metrics_bytes=size, metrics_sum=hashlib.sha256(log[:size]).hexdigest())
    with pytest.warns(UserWarning, match=r"metrics\.jsonl (is damaged|does not begin).*going back to the checkpoint"):
        resumed = make(stopped).train(resume=True)
    assert_same_run(resumed, whole)


def test_a_log_of_no_records_under_its_own_sum_costs_the_records_and_not_the_training(make, whole, stopped):
    log = b"[1,2]\n"
    (stopped / "metrics.jsonl").write_bytes(log)
    for name in CHECKPOINTS:
        reseal(stopped / name, metrics_bytes=len(log), metrics_sum=hashlib.sha256(log).hexdigest())
    with pytest.warns(UserWarning, match=r"metrics\.jsonl is damaged; its records begin anew"):
        resumed = make(stopped).train(resume=True)
    chex.assert_trees_all_equal(resumed.state, whole.state)
    assert (stopped / "metrics.jsonl.damaged").read_bytes().startswith(log)


def test_the_best_policy_travels_in_the_checkpoint(make, whole, stopped):
    (stopped / "policy.pkl").unlink()
    assert_same_run(make(stopped).train(resume=True), whole)


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ({"new_field": 1}, "new_field is a field that is not known"),
        ({"version": 3}, "version 3, and this jaxtrader reads up to 2; install a newer jaxtrader"),
        ({"version": "new"}, "its version is new"),
        ({"updates": "6"}, "updates is '6', and must be a whole number"),
        ({"updates": -6}, "updates is -6"),
        ({"updates": 5}, "updates is 5, and its train state has 6"),
        ({"episodes": 2**62}, "episodes is 4611686018427387904, and its train state has"),
        ({"seconds": float("nan")}, "seconds is nan, and must be a number from 0"),
        ({"halvings": 2**62}, "halvings is 4611686018427387904, and must be a whole number from 0 to 10"),
        ({"policy": np.zeros((2, 2))}, "policy is an array of float64"),
        ({"best": {"updates": 1}}, "best.valid_reward_per_bar is missing"),
        ({"settings": {"seed": 3}}, "settings.seed is 3, and must be a text"),
        ({"train_state": []}, r"train_state is \[\]"),
        (None, "the file is None"),
    ],
)
def test_a_forged_checkpoint_is_refused(stopped_tree, tmp_path, forged, says):
    tree = stopped_tree if forged is None else stopped_tree | forged
    files.save(tmp_path / "forged.pkl", "checkpoint", None if forged is None else tree)
    with pytest.raises(FileError, match=rf"forged.pkl (is damaged|has checkpoint) .*{says}"):
        read_checkpoint(tmp_path / "forged.pkl")


def test_a_checkpoint_of_before_it_had_a_version_is_read(stopped_tree, tmp_path):
    assert stopped_tree["version"] == 2
    files.save(tmp_path / "old.pkl", "checkpoint", {k: x for k, x in stopped_tree.items() if k != "version"})
    assert read_checkpoint(tmp_path / "old.pkl").updates == 6


def test_a_checkpoint_of_another_training_is_refused(make, stopped, stopped_tree):
    weights = stopped_tree["train_state"]["agent_state"]["params"]
    layer = next(iter(weights))
    for name in CHECKPOINTS:
        forged = stopped_tree | {"train_state": {"agent_state": {"params": {layer: {}}}}}
        files.save(stopped / name, "checkpoint", forged)
    with pytest.raises(FileError, match=r"does not fit the training: its train_state\['agent_state'\]"):
        make(stopped).train(resume=True)


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_a_checkpoint_with_one_field_changed_is_refused_or_restored(template, stopped_tree, tmp_path, count):
    def use(path):
        restore(path, read_checkpoint(path), template)

    messages = refusals(tmp_path / "checkpoint.pkl", "checkpoint", stopped_tree, count, use)
    assert len(messages) > count / 2
    assert all(len(message) < 500 and message.isprintable() for message in messages)


def test_one_writer_a_folder_by_a_lock_that_ends_with_its_process(make, stopped):
    code = """
        import sys, time
        from pathlib import Path
        from jaxtrader.training.run_folder import only_writer
        with only_writer(Path(sys.argv[1])):
            print("locked", flush=True)
            time.sleep(60)
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    child = subprocess.Popen([sys.executable, "-c", code, str(stopped)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(FileError, match=r"run is in use: another training writes to it"):
        make(stopped).train(resume=True)
    child.kill()
    child.wait()
    with only_writer(stopped):
        pass


def test_a_folder_without_a_run_is_refused_and_one_that_never_saved_begins(make, tmp_path):
    with pytest.raises(ValueError, match="give `run_dir`"):
        make(None).train(resume=True)
    with pytest.raises(FileNotFoundError, match="there is no run"):
        make(tmp_path / "none").train(resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileNotFoundError, match="holds no run to resume"):
        make(tmp_path).train(resume=True)
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").touch()  # as a process leaves it that is killed while it compiles
    (run / ".0123456789ab.tmp").touch()
    assert make(run, total_steps=1).train().updates == 1
    with pytest.raises(FileExistsError, match=r"is not empty.*train\(resume=True\)"):
        make(run, total_steps=1).train()


def test_checkpoints_come_by_time_where_no_validation_does(tmp_path, monkeypatch):
    trainer = Trainer(
        CountEnv(),
        FakeAgent(),
        num_envs=4,
        rollout_length=10,
        total_steps=400,
        updates_per_chunk=1,
        eval_every=1000,
        run_dir=tmp_path / "run",
        progress=False,
    )
    saved = []
    monkeypatch.setattr(saving, "save_checkpoint", lambda folder, found, *_: saved.append(found.updates))
    trainer.train()
    assert saved == [10]
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    saved.clear()
    dataclasses.replace(trainer, run_dir=tmp_path / "other").train()
    assert saved == list(range(1, 11))


def test_the_last_two_checkpoints_and_the_best_are_kept(make, tmp_path, monkeypatch):
    scores = iter([1.0, 3.0, 2.0, 0.0, 0.0])
    monkeypatch.setattr("jaxtrader.training.validation.mean_reward", lambda *a, **k: jnp.asarray(next(scores)))
    make(tmp_path / "run", eval_every=2, total_steps=10 * STEPS).train()
    assert [read_checkpoint(tmp_path / "run" / name).updates for name in CHECKPOINTS] == [10, 8, 4]
    assert load_policy(tmp_path / "run").about["updates"] == 4


def test_episodes_resume_too(make, tmp_path, monkeypatch):
    settings = {"total_steps": None, "num_episodes": 40, "valid": None}
    whole = make(tmp_path / "whole", **settings).train()
    with monkeypatch.context() as patch:
        disturb(patch, 20, Killed())
        with pytest.raises(Killed):
            make(tmp_path / "run", **settings).train()
    resumed = make(tmp_path / "run", **settings).train(resume=True)
    assert records(resumed.run_dir) == records(whole.run_dir)
    chex.assert_trees_all_equal(resumed.state, whole.state)
    with pytest.raises(ValueError, match='until` was "episodes" and is "steps"'):
        make(tmp_path / "run", valid=None).train(resume=True)


@struct.dataclass
class Steep(Drawing):
    """Its weight grows by the rate at each update, and is no longer finite beyond a bound."""

    rate: float = 8.0
    bound: float = struct.field(pytree_node=False, default=20.25)

    def halve_rate(self, state):
        return self.replace(rate=self.rate * 0.5), state

    def learn(self, state, rollout, params, key):
        weight = state["weight"] + self.rate
        weight = jnp.where(weight > self.bound, jnp.nan, weight)
        return {"updates": state["updates"] + 1, "weight": weight}, {"rate": self.rate}


def steep(run_dir, updates, agent=None, **settings):
    settings = {"num_envs": 4, "rollout_length": 10, "updates_per_chunk": 1, "eval_every": 2, **settings}
    settings = {"progress": False, "on_divergence": "halve", "total_steps": 40 * updates, **settings}
    return Trainer(CountEnv(), Steep() if agent is None else agent, run_dir=run_dir, **settings)


class Stop(jt.Callback):
    """Sends the signal that ends a training at a chunk of this number."""

    def __init__(self, at):
        self.at, self.count = at, 0

    def on_chunk(self, record):
        self.count += 1
        if self.count == self.at:
            signal.raise_signal(signal.SIGTERM)


def test_divergence_goes_back_to_the_last_checkpoint_with_half_the_rate(tmp_path, capsys):
    # Weights from 1: 9, 17 (saved), 25 is too much. Back to 17: 21 is too much, then 19, 21, back to 17, by 1: 18, 19
    # (saved), 20, 21, and from 19 by 1/2: 19.5, 20.
    result = steep(tmp_path / "run", 6, progress=True).train()
    np.testing.assert_array_equal(result.state["weight"], [20, 20])
    rates = [record["rate"] for record in result.history]
    assert rates == [8, 8, 1, 1, 0.5, 0.5]
    assert [record["updates"] for record in result.history] == [1, 2, 3, 4, 5, 6]
    said = capsys.readouterr().out
    assert said.count("was rejected: not finite or not valid in parameters") == 4
    assert "back to update 4, with the learning rate halved (4 of at most 10 times)" in " ".join(said.split())
    longer = steep(tmp_path / "run", 7).train(resume=True)  # with the rate that was found, and from there half of it
    np.testing.assert_array_equal(longer.state["weight"], [20.25, 20.25])
    assert [record["rate"] for record in longer.history] == [*rates, 0.25]


@pytest.fixture(scope="session")
def diverged(tmp_path_factory):
    """A run whose divergences go back to its start, and to update 3."""
    return steep(tmp_path_factory.mktemp("diverged") / "run", 7, eval_every=3).train()


@pytest.mark.parametrize("at", [2, 4, 6, 8])
def test_a_run_that_diverges_goes_back_to_the_same_update_after_a_stop(diverged, tmp_path, at):
    stop = Stop(at)
    stopped = steep(tmp_path / "run", 7, eval_every=3, callbacks=[stop]).train()
    resumed = steep(tmp_path / "run", 7, eval_every=3).train(resume=True) if stopped.interrupted else stopped
    assert stop.count >= at
    chex.assert_trees_all_equal(resumed.state, diverged.state)
    assert records(resumed.run_dir) == records(diverged.run_dir)


def test_checkpoints_of_the_clock_change_no_divergence(diverged, tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    result = steep(tmp_path / "run", 7, eval_every=3).train()
    assert records(result.run_dir) == records(diverged.run_dir)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*going back to the checkpoint before it")
def test_a_run_that_diverges_and_is_killed_at_any_write_ends_the_same(diverged, tmp_path, monkeypatch):
    at, is_over = 1, False
    while not is_over:
        run = tmp_path / str(at)
        with monkeypatch.context() as patch:
            patch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
            disturb(patch, at, Killed())
            try:
                steep(run, 7, eval_every=3).train()
                is_over = True
            except Killed:
                pass
        result = steep(run, 7, eval_every=3).train(resume=True)
        assert records(run) == records(diverged.run_dir), at
        chex.assert_trees_all_equal(result.state, diverged.state)
        at += 6  # the run makes more than 60 writes
    assert at > 60


def test_divergence_that_half_rates_do_not_mend_ends_training(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"update 1 was rejected.*untrained.*halved 10 times"):
        steep(tmp_path / "run", 6, Steep(bound=0.0)).train()
    assert read_checkpoint(tmp_path / "run" / NEWEST).updates == 0
    with pytest.raises(ValueError, match="FakeAgent has no rate to halve"):
        steep(None, 1, FakeAgent())
    with pytest.raises(ValueError, match="on_divergence='go'` is unknown"):
        steep(None, 1, on_divergence="go")


def test_ppo_halves_the_rate_in_force_and_of_its_schedule(agent, whole):
    state = whole.state
    half, slower = agent.halve_rate(state.replace(learning_rate=jnp.float32(0.5)))
    assert (half.learning_rate, slower.learning_rate) == (agent.learning_rate / 2, 0.25)
    assert jax.tree.structure(slower) == jax.tree.structure(state)
