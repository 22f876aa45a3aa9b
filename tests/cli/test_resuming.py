"""`jaxtrader train --resume` and `--from`."""

import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from cli.tiny_runs import SMALL, Killed, pair, refused

import jaxtrader as jt
from jaxtrader.cli import main
from jaxtrader.training import saving
from jaxtrader.training.hold_if_unproven import trained_path

SHORT = [*SMALL, "--total-steps", "500", "--quiet"]


@pytest.fixture(scope="session")
def whole(tiny):
    """A run that never stopped."""
    return tiny[0] / "runs/two-0001"


@pytest.fixture(scope="session")
def data(tiny):
    """What it was trained on."""
    return str(tiny[0] / "two.csv")


def train_until_killed(data, run, monkeypatch, *flags):
    """Begin the same run elsewhere, and kill it before its second validation is saved."""
    save = saving.Saver.save_checkpoint

    def save_or_die(saver, *args):
        if saver.recorder.updates >= 4:
            raise Killed
        save(saver, *args)

    with monkeypatch.context() as patch:
        patch.setattr(saving.Saver, "save_checkpoint", save_or_die)
        with pytest.raises(Killed):
            main(["train", "--data", data, *SHORT, "--run-dir", str(run), *flags])


@pytest.mark.slow
def test_a_killed_run_is_resumed_by_its_folder_alone(whole, data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train_until_killed(data, run, monkeypatch)
    assert (run / "config.toml").read_text() == (whole / "config.toml").read_text(), "it is there from the beginning"
    assert main(["train", "--resume", str(run)]) == 0
    for name in ("policy.pkl", "last.pkl", "config.toml", "config.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name


def fail_once(monkeypatch, folder, file, error):
    """Raise an error at the first write of a file of this name below a folder."""
    ahead = [error]

    def failing(function, name_of):
        def call(*args, **kwargs):
            name = name_of(*args)
            if ahead and name is not None and folder in Path(name).parents and Path(name).name == file:
                raise ahead.pop()
            return function(*args, **kwargs)

        return call

    def opened(path, flags, *_, **__):
        return path if flags & (os.O_WRONLY | os.O_RDWR) else None

    monkeypatch.setattr(os, "open", failing(os.open, opened))
    monkeypatch.setattr(os, "replace", failing(os.replace, lambda _, target: target))
    monkeypatch.setattr(os, "fsync", failing(os.fsync, lambda handle: os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(Path, "mkdir", failing(Path.mkdir, lambda path, *_: path))


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="names of open files are Linux's")
def test_each_kind_of_write_may_fail_once(whole, data, tmp_path, monkeypatch, capsys):
    """A full disk, a folder without permission, a disk that is read only: one sentence, and nothing is lost."""
    argv = ["train", "--data", data, *SHORT, "--run-dir"]
    kinds = ("run", "config.toml", "metrics.jsonl", "checkpoint.pkl", "evaluations.jsonl", "report.html")
    for i, name in enumerate(kinds):
        parent = tmp_path / str(i)
        error = OSError(*((28, "No space left on device"), (13, "Permission denied"), (30, "Read-only"))[i % 3])
        capsys.readouterr()
        with monkeypatch.context() as patch:
            fail_once(patch, parent, name, error)
            code = main([*argv, str(parent / "run")])
        told = capsys.readouterr()
        # A count of the tries that cannot be kept is told with the result, and costs nothing.
        last = " ".join(told.out.split()) if name == "evaluations.jsonl" else told.err.splitlines()[-1]
        assert (code != 0) == (name != "evaluations.jsonl"), name
        assert re.search(rf"cannot .*{error.strerror}.*; ", last), (name, last)
        assert str(parent) in last, (name, last)
        assert not list(parent.rglob("*.tmp"))
        again = ["train", "--resume", str(parent / "run")] if (parent / "run" / "config.toml").exists() else None
        assert main(again or [*argv, str(parent / "run")]) == 0, name
        for file in ("policy.pkl", "last.pkl", "config.toml", "config.json", "trades.csv"):
            assert (parent / "run" / file).read_bytes() == (whole / file).read_bytes(), (name, file)


def test_what_resuming_refuses_is_one_sentence_and_changes_nothing(whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for flags, says in (
        (["--learning-rate", "0.01"], "--learning-rate was 0.001 and is 0.01"),
        (["--fee-bps", "3"], "env.costs.fee` was 0.0001 and is 0.0003"),
        (["--seed", "1"], "--seed was 0 and is 1"),
        (["--total-steps", "100"], "--total-steps 100 is less than"),
        (["--run-dir", tmp_path / "other"], "leave out --run-dir"),
        (["--config", run / "config.toml"], "leave out --config"),
        (["--dry-run"], "leave out --dry-run"),
        (["--from", run], "leave out --from"),
    ):
        assert says in refused(capsys, ["train", "--resume", run, *flags])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert "is not the folder of a run" in refused(capsys, ["train", "--resume", tmp_path / "none"])
    assert "did not begin it; resume it from Python" in refused(capsys, ["train", "--resume", tmp_path])
    assert f"--resume {run}" in refused(capsys, ["train", "--run-dir", run])


def test_what_ends_the_evaluation_says_how_to_go_on(whole, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    monkeypatch.setattr("jaxtrader.cli.reporting.evaluate", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert main(["train", "--resume", str(run)]) == 130
    told = f"the training is saved in {run}; go on with: jaxtrader train --resume {run}"
    assert capsys.readouterr().err.splitlines() == [told, "jaxtrader: interrupted"]


@pytest.mark.slow
def test_a_run_starts_from_an_earlier_one(whole, tmp_path, capsys):
    run, again = tmp_path / "run", tmp_path / "again"
    newer = tmp_path / "newer.csv"
    pair(seed=2, first_day="2021-01-01").to_csv(newer, index=False)
    # So slowly that the policy stays as it was.
    argv = ["train", "--data", str(newer), *SHORT, "--no-report", "--learning-rate", "1e-12"]
    assert main([*argv, "--from", str(whole), "--run-dir", str(run)]) == 0
    earlier, policy = (jt.load_policy(trained_path(each)) for each in (whole, run))
    window = np.zeros((1, 2))
    np.testing.assert_array_equal(policy.state.normalizer.mean, earlier.state.normalizer.mean)
    assert policy.act(window) == earlier.act(window)
    assert policy.about["init_from"]["updates"] == earlier.about["updates"]
    assert main(["train", "--config", str(run), "--refit-normalizer", "--quiet", "--run-dir", str(again)]) == 0
    assert not np.array_equal(jt.load_policy(trained_path(again)).state.normalizer.mean, earlier.state.normalizer.mean)

    # Killed before its first checkpoint, and the earlier run is gone.
    killed, gone = tmp_path / "killed", tmp_path / "gone"
    killed.mkdir()
    (killed / "metrics.jsonl").touch()
    (killed / "config.toml").write_text((again / "config.toml").read_text().replace(str(whole), str(gone)))
    assert f'config.toml: init_from = "{gone}" must be the folder of a run' in refused(
        capsys, ["train", "--resume", killed]
    )
    shutil.copy(again / "start.pkl", killed)
    assert main(["train", "--quiet", "--resume", str(killed)]) == 0
    resumed, begun = (jt.load_policy(trained_path(each)) for each in (killed, again))
    np.testing.assert_array_equal(resumed.state.normalizer.mean, begun.state.normalizer.mean)
    assert resumed.act(window) == begun.act(window)
    assert str(gone) in (killed / "config.toml").read_text()

    for flags, says in (
        (["--features", "log_return_5,gap"], "features log_return_5, volatility_10, and this training has"),
        (["--hidden", "4"], "--hidden is (4,), and the policy has (8,)"),
        (["--positions", "0,1"], "--positions 0,0.25,0.5,0.75,1, and this training has --positions 0,1"),
        (["--from", tmp_path / "none"], "must be the folder of a run with a policy"),
    ):
        assert says in refused(capsys, [*argv, "--from", whole, *flags])
    assert "--refit-normalizer needs an earlier policy" in refused(capsys, [*argv, "--refit-normalizer"])
