"""`jaxtrader sweep`: what a sweep file may say, and a tiny sweep that is killed and goes on."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from cli.tiny_runs import FEATURES, Killed, prices

from jaxtrader.cli import main
from jaxtrader.training import saving, training_loop

TINY = f"""
data = "bars.csv"
features = "{FEATURES}"
total_steps = 500
seeds = 2

[learning]
num_envs = 8
rollout_length = 16
episode_length = 32
hidden = 8
num_minibatches = 2
num_epochs = 1
eval_every = 2
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a file of bars, in which the command is given."""
    monkeypatch.chdir(tmp_path)
    prices().to_csv("bars.csv", index=False)
    return tmp_path


def run(place, text, *flags):
    (place / "mine.toml").write_text(text)
    return main(["sweep", "mine.toml", "--quiet", *flags])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no table [sweep]"),
        ("sweep = 3", "no table [sweep]"),
        ("[sweep]", "nothing to sweep"),
        ("[sweep]\ngama = [0.9]", "did you mean gamma"),
        ("[sweep]\ngama = []", "did you mean gamma"),
        ("gama = 0.9\n[sweep]\ngamma = [0.9]", "did you mean gamma"),
        ("[sweep]\ngamma = []", "gamma is an empty list"),
        ("[sweep]\ngamma = 0.9", "write gamma = [0.9]"),
        ("[sweep.gamma]\nlow = 0.9", "gamma must be a list of values"),
        ('[sweep]\ngamma = ["high"]', '"high"'),
        ("[sweep]\ngamma = [0.9, 2]", "mine.toml: gamma = 2 is outside [0, 1]"),
        ("[sweep]\ngamma = [0.9, 0.9]", "gamma has 0.9 twice"),
        ("[sweep]\nleverage = [1]\nmax_leverage = [1]", "max_leverage stands twice"),
        ("leverage = 3\nmax_leverage = 2\n[sweep]\ngamma = [0.9]", "max_leverage stands twice"),
        (
            "gamma = 0.8\n[sweep]\ngamma = [0.9]",
            "mine.toml: gamma stands twice, once in [sweep]; leave one of them out",
        ),
        ("leverage = 3\n[sweep]\nmax_leverage = [1]", "leverage stands twice, once in [sweep]"),
        ("[monney]\nfee_bps = 3\n[sweep]\ngamma = [0.9]", "did you mean money?"),
        ('window = "32"\n[sweep]\ngamma = [0.9]', 'window = "32" must be a whole number; write 32'),
        ('[sweep]\ngamma = ["0.9"]', 'mine.toml [sweep]: gamma = "0.9" must be a number; write 0.9'),
        ('[sweep]\nrandom_start = [true, "no"]', 'random_start = "no" must be true or false'),
        ("[sweep]\ncommission = [1, 2]", "did you mean fee_bps?"),
        ("[sweep]\nseeds = [1, 2]", "seeds cannot be swept"),
        ('[sweep]\ntrain_end = ["2020-03-01"]', "mine.toml [sweep]: train_end cannot be swept"),
        ("[sweep]\nno_random_start = [true]", "write random_start = false"),
        ('run_dir = "here"\n[sweep]\ngamma = [0.9]', "give --run-dir"),
        ('synthetic = "ar1"\n[sweep]\ngamma = [0.9]', "synthetic"),
        ('data = "other.csv"\n[sweep]\ngamma = [0.9]', "other.csv cannot be read"),
        ("data = 'bars.csv'\nwindow = 500\n[sweep]\ngamma = [0.9]", "mine.toml, gamma = 0.9: too few bars"),
        ("leverage = 0\n[sweep]\ngamma = [0.9]", "mine.toml, gamma = 0.9: leverage = 0 is outside (0, 100]"),
        (
            "leverage = 2\n[sweep]\nmaintenance_margin = [0.6]",
            "mine.toml: maintenance_margin = 0.6 is outside [0",
        ),
        ("[sweep", "mine.toml is not TOML"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence_and_leaves_no_folder(place, capsys, text, says):
    assert run(place, text) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (place / "runs").exists()


def test_a_file_that_is_not_there_is_one_sentence(place, capsys):
    assert main(["sweep", "other.toml"]) == 2
    assert "other.toml cannot be read" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_sweep_that_was_killed_goes_on_and_trains_nothing_twice(place, monkeypatch, capsys):
    text = TINY + "[sweep]\nlearning_rate = [0.001, 0.01]\nfee_bps = [20]\n"
    assert run(place, text, "--run-dir", "whole") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "evaluation 2 of these bars, with 2 policies" in out, "a configuration is one try, however many seeds it has"
    assert "not computed: 2 configurations" in out
    assert "holding config-1, config-2: validation is of what was trained" in out
    assert len((place / "evaluations.jsonl").read_text().splitlines()) == 2
    page = (place / "whole" / "report.html").read_text()
    assert "<h2>Configurations</h2>" in page

    save = saving.Saver.save_checkpoint
    folders = []

    def save_or_die(saver, *args):
        folders.append(saver.run_dir.relative_to("runs/mine").as_posix())
        if folders[-1] == "config-2/seed-0" and saver.recorder.updates >= 4:
            raise Killed
        save(saver, *args)

    with monkeypatch.context() as patch:
        patch.setattr(saving.Saver, "save_checkpoint", save_or_die)
        with pytest.raises(Killed):
            run(place, text)
    assert (place / "runs/mine/config-2/config.toml").is_file(), "it is there from the beginning"
    assert list(json.loads((place / "runs/mine/sweep.json").read_text())["finished"]) == ["config-1"]
    assert run(place, text.replace("total_steps = 500", "total_steps = 600")) == 2
    assert "mine.toml: total_steps was 500" in capsys.readouterr().err
    folders.clear()
    with monkeypatch.context() as patch:
        patch.setattr(training_loop.TrainingLoop, "__init__", counted(training_loop.TrainingLoop.__init__, folders))
        assert run(place, text) == 0
    assert folders == ["config-2/seed-0", "config-2/seed-1"]
    for name in ("config-1/policy.pkl", "config-2/policy.pkl", "config-2/seed-0/last.pkl"):
        assert (place / "runs/mine" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    assert (place / "runs/mine/sweep.csv").read_text() == (place / "whole/sweep.csv").read_text()
    table = pd.read_csv(place / "whole/sweep.csv", index_col=0)
    assert list(table["learning_rate"]) == [0.001, 0.01]
    assert table["valid_spread"].notna().all()
    # A configuration is a run as any other.
    capsys.readouterr()
    assert main(["backtest", "runs/mine/config-2", "--no-report"]) == 0
    assert "with 2 policies" in " ".join(capsys.readouterr().out.split()), "its look is counted beside the sweep"


def counted(begin, folders):
    def init(loop, trainer, run_dir, *args):
        folders.append(run_dir.relative_to("runs/mine").as_posix())
        begin(loop, trainer, run_dir, *args)

    return init
