"""`jaxtrader train --synthetic`: the score that it prints, what it refuses, and that a backtest of it says why not."""

import json
import re

import pytest
from cli.tiny_runs import TINY, refused

from jaxtrader.cli import main, synthetic_command


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_run_prints_its_share_of_the_optimum_and_saves(tmp_path, monkeypatch, capsys):
    for name in ("TRAIN_BARS", "VALID_BARS", "TEST_BARS"):
        monkeypatch.setattr(synthetic_command, name, 5_000)
    run = str(tmp_path / "run")
    flags = ["--devices", "2", "--total-steps", "500", "--run-dir", run]
    assert main(["train", "--synthetic", "ar1", *TINY, *flags]) == 0
    out = capsys.readouterr().out
    assert "500 steps in 8 environments on 2 devices" in out
    assert "best possible" in out
    assert "positions  -1, 0, 1" in out
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(record["optimum_share"] < 1 for record in records if "optimum_share" in record)
    assert "optimum_share" in records[-1]
    # On the line of progress, and again in the table at the end.
    last = f"{records[-1]['optimum_share']:.1%}"
    assert re.search(rf"^100%  512/512 steps .* of optimum {last}  in market", out, re.MULTILINE)
    assert re.search(r"^ +bp a bar +of optimum +in market$", out, re.MULTILINE)
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"{100 * record['rows']['policy']['share_of_optimum']:.1f}%" in out
    assert record["rows"]["best possible"]["share_of_optimum"] == 1
    assert record["result"] in " ".join(out.split())
    assert main(["backtest", run]) == 2
    assert "was trained on the synthetic market ar1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data prices.csv", "leave out --data"),
        ("--train-end 2007-12-31", "leave out --train-end"),
        ("--reward risk_penalized", "known for the reward log_return"),
        ("--fill next_close", "known for --fill next_open"),
    ],
)
def test_what_does_not_go_with_it_is_one_sentence(flags, message, capsys):
    assert message in refused(capsys, ["train", "--synthetic", "ar1", *flags.split()])
