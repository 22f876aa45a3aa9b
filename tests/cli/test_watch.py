"""`jaxtrader watch`: what it shows of a run, and how it ends."""

import dataclasses
import shutil
import threading

import pytest
from trainers import Recording, called_back

from jaxtrader.cli import main
from jaxtrader.cli import watch_command as watched
from jaxtrader.training.run_folder import is_written, only_writer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run that was trained to its end, `whole`, and one that was stopped, `stopped`."""
    folder = tmp_path_factory.mktemp("watch")
    trainer = called_back(folder / "whole")
    trainer.train()
    dataclasses.replace(trainer, run_dir=folder / "stopped", callbacks=(Recording(stop_at=2),)).train()
    return folder


@pytest.fixture
def stopped(runs, tmp_path):
    """A copy of the run that was stopped, which a test may change."""
    return shutil.copytree(runs / "stopped", tmp_path / "run")


def test_a_trained_run_is_shown_to_its_end(runs, capsys):
    assert main(["watch", str(runs / "whole")]) == 0
    out = capsys.readouterr().out
    assert "100%" in out
    assert "400/400 steps" in out
    assert "trained" in out


def test_a_run_that_stopped_is_told_how_it_goes_on(runs, capsys):
    assert main(["watch", str(runs / "stopped")]) == 0
    out = capsys.readouterr().out
    assert "160/400 steps" in out
    assert "train(resume=True)" in out


def test_it_follows_what_is_written_meanwhile(stopped, capsys, monkeypatch):
    monkeypatch.setattr(watched, "SECONDS", 0.01)
    run, written, ended = stopped, threading.Event(), threading.Event()
    whole = (run / "metrics.jsonl").read_text().splitlines(keepends=True)

    def train():
        with only_writer(run):
            written.set()
            with open(run / "metrics.jsonl", "a") as log:
                log.write(whole[-1].replace('"steps": 160', '"steps": 400')[:-5])
                log.flush()
                ended.wait(1)  # a line of which a part is written
                log.write(whole[-1][-5:])

    thread = threading.Thread(target=train)
    thread.start()
    written.wait(5)
    assert is_written(run)
    ended.set()
    assert main(["watch", str(run)]) == 0
    thread.join()
    assert "400/400 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "said"),
    [(lambda folder: None, "holds no run"), (lambda folder: (folder / "metrics.jsonl").touch(), "config.json")],
)
def test_a_folder_without_a_run_is_refused(tmp_path, capsys, make, said):
    make(tmp_path)
    assert main(["watch", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_log_is_one_sentence(stopped, capsys):
    (stopped / "metrics.jsonl").write_text("[1,2]\n")
    assert main(["watch", str(stopped)]) == 2
    assert "metrics.jsonl is damaged: line 1 is no record" in " ".join(capsys.readouterr().err.split())
