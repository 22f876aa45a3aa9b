"""`jaxtrader walk-forward`: folds from flags, one result of all tests, a resumed walk, and what it refuses."""

from __future__ import annotations

import json

import pytest
from cli.test_commands import SMALL, prices, refused

from jaxtrader.cli import main


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    prices(400).to_csv(folder / "one.csv", index=False)
    flags = ["--total-steps", "200", "--folds", "2", "--run-dir", str(folder / "run"), "--quiet"]
    assert main(["walk-forward", "--data", str(folder / "one.csv"), *SMALL, *flags]) == 0
    return folder


def test_the_tests_are_one_result_with_a_report(walked):
    run = walked / "run"
    record = json.loads((run / "result.json").read_text())
    assert list(record["parts"]) == ["all tests"]
    # Half of 400 days from 2020-01-01 is trained on first. The tests reach the last bar.
    assert record["parts"]["all tests"]["first"].startswith("2020-07-19")
    assert record["parts"]["all tests"]["last"].startswith("2021-02-03")
    assert (run / "fold-1/policy.pkl").is_file()
    assert (run / "fold-2/policy.pkl").is_file()
    page = (run / "report.html").read_text()
    assert "<h2>Folds</h2>" in page
    assert "12-month momentum" in page


def test_a_walk_is_resumed_with_its_own_settings(walked, capsys):
    before = (walked / "run/fold-2/policy.pkl").read_bytes()
    assert main(["walk-forward", "--resume", str(walked / "run")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "fold 2, 2020-10-" in out
    assert "look 2 at these bars, with 1 policy" in out
    assert (walked / "run/fold-2/policy.pkl").read_bytes() == before


def test_what_cannot_be_walked_is_one_sentence_and_leaves_no_folder(walked, tmp_path, capsys):
    for flags, says in (
        (["--folds", "0"], "folds"),
        (["--train", "soon"], "soon"),
        (["--train", "399", "--folds", "3"], "folds"),
        (["--embargo", "-1"], "embargo"),
        (["--valid", "1"], "valid"),
    ):
        argv = ["walk-forward", "--data", walked / "one.csv", *SMALL, *flags, "--run-dir", tmp_path / "run"]
        assert says in refused(capsys, argv)
        assert not (tmp_path / "run").exists()
