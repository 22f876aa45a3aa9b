"""`jaxtrader watch`: what it shows of a run, and how it ends."""

import threading

import pytest
from trainers import Recording, called_back

from jaxtrader.cli import main
from jaxtrader.cli import watch_command as watched
from jaxtrader.training.run_folder import is_written, only_writer


def test_a_trained_run_is_shown_to_its_end(tmp_path, capsys):
    called_back(tmp_path / "run").train()
    assert main(["watch", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "100%" in out
    assert "400/400 steps" in out
    assert "trained" in out


def test_a_run_that_stopped_is_told_how_it_goes_on(tmp_path, capsys):
    called_back(tmp_path / "run", Recording(stop_at=2)).train()
    assert main(["watch", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "160/400 steps" in out
    assert "train(resume=True)" in out


def test_it_follows_what_is_written_meanwhile(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(watched, "SECONDS", 0.01)
    run, written, ended = tmp_path / "run", threading.Event(), threading.Event()
    called_back(run, Recording(stop_at=2)).train()
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


def test_a_damaged_log_is_one_sentence(tmp_path, capsys):
    run = tmp_path / "run"
    called_back(run, Recording(stop_at=2)).train()
    (run / "metrics.jsonl").write_text("[1,2]\n")
    assert main(["watch", str(run)]) == 2
    assert "metrics.jsonl is damaged: line 1 is no record" in " ".join(capsys.readouterr().err.split())
