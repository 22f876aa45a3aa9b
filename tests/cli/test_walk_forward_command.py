"""`jaxtrader walk-forward`: folds from flags, one result of all tests, a resumed walk, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from cli.tiny_runs import SMALL, pair, refused

from jaxtrader.cli import finished, main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tiny):
    return tiny[0] / "two.csv"


@pytest.fixture(scope="module")
def walked(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    flags = ["--total-steps", "200", "--eval-every", "1", "--folds", "2", "--run-dir", str(folder / "run"), "--quiet"]
    assert main(["walk-forward", "--data", str(data), *SMALL, *flags]) == 0
    return folder


def test_the_tests_are_one_result_with_a_report(walked):
    run = walked / "run"
    record = json.loads((run / "result.json").read_text())
    assert list(record["parts"]) == ["all tests"]
    # Half of 300 days from 2020-01-01 is trained on first. The tests reach the last bar.
    assert record["parts"]["all tests"]["first"].startswith("2020-05-30")
    assert record["parts"]["all tests"]["last"].startswith("2020-10-26")
    assert (run / "fold-1/policy.pkl").is_file()
    assert (run / "fold-2/policy.pkl").is_file()
    page = (run / "report.html").read_text()
    assert "<h2>Folds</h2>" in page
    assert "12-month momentum" in page
    assert "<h2>Features</h2>" in page
    assert len(record["importance"]) == 2, "of both features, on the validations of both folds"


def test_a_walk_is_resumed_with_its_own_settings(walked, capsys):
    before = (walked / "run/fold-2/policy.pkl").read_bytes()
    assert main(["walk-forward", "--resume", str(walked / "run")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "fold 2, from 2020-08-13" in out
    assert "evaluation 2 of these bars, with 1 policy" in out
    assert (walked / "run/fold-2/policy.pkl").read_bytes() == before


def test_a_walk_with_other_settings_is_refused_and_keeps_its_own(walked, capsys):
    run = walked / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for flags, says in (
        (["--fee-bps", "7"], "fold 1: the run"),
        (["--folds", "3"], "the training bars have other numbers"),
        (["--refit", "warm"], "leave out --refit"),
    ):
        assert says in refused(capsys, ["walk-forward", "--resume", run, *flags])
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_reading_a_walk_runs_no_code_that_its_files_name_and_needs_no_logger(walked, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = tmp_path / "run"
    shutil.copytree(walked / "run", run)
    code = tmp_path / "code.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = run / "config.toml"
    path.write_text(f'network = "{code}:Mine"\nlog_to = "wandb"\n{path.read_text()}')
    found = finished.read(run, {})
    assert found.settings["network"] == f"{code}:Mine"
    assert not (tmp_path / "ran").exists()


def test_its_report_is_written_anew_with_seeds_folds_and_costs(walked, capsys):
    run = walked / "run"
    before = json.loads((run / "result.json").read_text())
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "all tests" in " ".join(capsys.readouterr().out.split())
    after = json.loads((run / "result.json").read_text())
    assert after["parts"] == before["parts"]
    assert list(after["folds"]) == ["fold 1", "fold 2"]
    assert after["trials"]["evaluations"] == before["trials"]["evaluations"] + 1
    page = (run / "report.html").read_text()
    for heading in ("Folds", "Other costs and fills", "Training: reward a bar on validation"):
        assert f"<h2>{heading}</h2>" in page
    assert '"name":"fold 2"' in page, "every other fold is shaded"


def test_its_tests_are_traded_again_at_other_costs(walked, capsys):
    run = walked / "run"
    free = ["--fee-bps", "0", "--slippage-bps", "0", "--no-report", "--save", str(walked / "free")]
    assert main(["backtest", str(run), *free]) == 0
    assert "all tests" in capsys.readouterr().out
    free, paid = (json.loads((folder / "result.json").read_text()) for folder in (walked / "free", run))
    figures = [record["parts"]["all tests"]["total"]["policy"] for record in (free, paid)]
    assert figures[0]["costs"] == 0 < figures[1]["costs"]
    assert figures[0]["num_fills"] > 0
    said = refused(capsys, ["backtest", run, "--start", "2020-12-01"])
    assert "leave out --start" in said
    assert "fold-2" in said


def test_one_policy_of_it_knows_its_own_data(walked, capsys):
    fold = walked / "run/fold-2"
    record = json.loads((walked / "run/result.json").read_text())["folds"]["fold 2"]
    assert main(["backtest", str(fold), "--no-report", "--save", str(walked / "alone")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no test" not in out
    alone = json.loads((walked / "alone/result.json").read_text())["parts"]["test"]
    assert alone["first"] == record["first"]
    assert alone["total"]["policy"] == pytest.approx(record["total"]["policy"])
    assert main(["backtest", str(fold / "policy.pkl"), "--part", "valid", "--no-report"]) == 0
    assert "Training and selection used dates before 2020-08-13" in " ".join(capsys.readouterr().out.split())
    assert "give --data FILE" in refused(capsys, ["backtest", fold, "--symbols", "X"])
    assert "have the parts" in refused(capsys, ["backtest", fold, "--part", "all"])
    assert main(["report", str(fold)]) == 0
    assert list(json.loads((fold / "result.json").read_text())["parts"]) == ["train", "validation", "test"]


def test_runs_are_compared_on_the_bars_that_all_have(tiny, walked, tmp_path, capsys):
    shutil.copytree(tiny[0] / "runs/two-0001", tmp_path / "one")
    assert main(["compare", str(tmp_path / "one"), str(walked / "run")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "45, 2020-09-12 to 2020-10-26" in out, "the test of the training lies in those of the walk"
    assert "run is not distinguishable from one" in out
    assert "folds" in out, "a setting that differs"
    page = (tmp_path / "comparison.html").read_text()
    assert "<h2>Settings that differ</h2>" in page
    assert "<title>one beside run</title>" in page


def test_what_cannot_be_compared_is_one_sentence(walked, tmp_path, capsys):
    run = walked / "run"
    assert "needs the folders of two runs or more, and none was given" in refused(capsys, ["compare"])
    assert f"needs the folders of two runs or more, and {run} alone was given" in refused(capsys, ["compare", run])
    assert "twice" in refused(capsys, ["compare", run, run])
    assert "holds no run" in refused(capsys, ["compare", run, tmp_path])


def test_a_walk_without_its_data_or_its_policies_is_refused_and_kept(walked, data, tmp_path, capsys):
    run = tmp_path / "moved"
    shutil.copytree(walked / "run", run)
    assert main(["backtest", str(run)]) == 0, "a run may be moved"
    capsys.readouterr()
    renamed = tmp_path / "renamed.csv"
    shutil.copy(data, renamed)
    assert main(["report", str(run), "--data", str(renamed)]) == 0, "the data may be moved and renamed"
    capsys.readouterr()
    kept = (run / "report.html").read_bytes()
    other = tmp_path / "other.csv"
    pair(seed=9).to_csv(other, index=False)
    assert f"is not the data of {run}" in refused(capsys, ["report", run, "--data", other])
    assert "gone.csv" in refused(capsys, ["report", run, "--data", tmp_path / "gone.csv"])
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("max_leverage = 1.0", "max_leverage = 200"))
    said = refused(capsys, ["report", run, "--data", data])
    assert f"{run / 'config.toml'}: max_leverage = 200 is outside" in said
    (run / "config.toml").write_text(config)
    (run / "fold-2/policy.pkl").unlink()
    assert "unfinished" in refused(capsys, ["backtest", run / "fold-2"])
    assert f"walk-forward --resume {run}" in refused(capsys, ["report", run, "--data", data])
    assert (run / "report.html").read_bytes() == kept


def test_what_cannot_be_walked_is_one_sentence_and_leaves_no_folder(data, tmp_path, capsys):
    for flags, says in (
        (["--folds", "0"], "folds"),
        (["--train", "soon"], "soon"),
        (["--train", "399", "--folds", "3"], "--train 399 leaves no bar to test on"),
        (["--train", "99y"], "--train 99y leaves no bar to test on"),
        (["--train", "298", "--folds", "3"], "leaves 2 bars to test on, and 3 folds need one each; give fewer --folds"),
        (["--embargo", "-1"], "embargo"),
        (["--valid", "1"], "valid"),
    ):
        argv = ["walk-forward", "--data", data, *SMALL, *flags, "--run-dir", tmp_path / "run"]
        assert says in refused(capsys, argv)
        assert not (tmp_path / "run").exists()
