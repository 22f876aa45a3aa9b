"""The command from its arguments to its exit code."""

import gzip
import json
import os
import re
import shutil
import signal
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli.tiny_runs import FEATURES, SMALL, pair, prices, refused

import jaxtrader as jt
from jaxtrader import cli
from jaxtrader.cli import commands, inputs, main, phrases, settings, train_command
from jaxtrader.cli.command_settings import Source, TrainData
from jaxtrader.cli.settings import BadInput
from jaxtrader.market.splits import cut_segments
from jaxtrader.run_files import CHECKPOINTS
from jaxtrader.training.metrics_log import JsonlLogger

# --- train ---


def test_a_cache_that_cannot_be_written_is_told_once(capsys):
    commands._warn_of_cache.cache_clear()
    for name in ("jit_a", "jit_b"):
        commands._show_warning(f"Error writing persistent compilation cache entry for '{name}': OSError: no room")
    commands._show_warning("another\none")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "make room in the cache's folder" in lines[0]
    assert lines[1] == "jaxtrader: warning: another one"


def test_a_run_leaves_its_files_and_says_where(tiny):
    folder, out = tiny
    run = folder / "runs" / "two-0001"
    names = {
        "policy.pkl",
        "trained.pkl",
        "last.pkl",
        *CHECKPOINTS,
        "config.toml",
        "config.json",
        "metrics.jsonl",
        "result.json",
    }
    names |= {"report.html", "report.png", "equity.csv", "trades.csv", "fills.csv"}
    assert {path.name for path in run.iterdir()} == names
    assert out.splitlines()[-1] == f"next     jaxtrader backtest {Path('runs/two-0001')}"
    assert "\x1b" not in out
    # Of a random walk nothing is known that pays, so the policy holds, and says so.
    said = " ".join(out.split())
    assert re.search(
        r"policy it holds -?\d\.\d\d, since what was trained was not shown to be better than its mean exp", said
    )
    assert "The policy is holding at its mean exposure" in said


def test_the_first_lines_say_data_dates_costs_and_fill(tiny):
    _, out = tiny
    lines = out.splitlines()
    # 70/15/15 of 300 days from 2020-01-01: cuts at rows 210 and 255, two symbols
    assert lines[0] == "data        two.csv: UP, DN, 2020-01-01 to 2020-10-26, 600 bars, 365 periods a year"
    assert lines[1] == "train       2020-01-01 to 2020-07-28, 420 bars"
    assert lines[2] == "validation  2020-07-29 to 2020-09-11, 90 bars"
    assert lines[3] == "test        2020-09-12 to 2020-10-26, 90 bars"
    assert lines[4].startswith("costs       fee 1 bp, slippage 5 bp; fills at the next bar's open; no trade below 0.05")


@pytest.mark.parametrize(
    ("settings", "window", "expected"),
    [
        ({}, 1, "the window of 1 bar as it is, then MLP 64 x 64, tanh, one each for actor and critic"),
        (
            {"encoder": "tcn", "hidden": (8,)},
            32,
            "tcn over 32 bars, 32 wide, 5 layers, then MLP 8, tanh, one each for actor and critic",
        ),
        (
            {
                "encoder": "attention",
                "encoder_width": 16,
                "encoder_depth": 1,
                "hidden": (8,),
                "compute_dtype": "bfloat16",
            },
            8,
            (
                "attention over 8 bars, 16 wide, 1 layer, then MLP 8, tanh, one each for actor and critic; "
                "computed in bfloat16"
            ),
        ),
    ],
)
def test_the_plan_names_the_network(settings, window, expected):
    assert phrases.network(jt.PPOAgent(**settings), window) == expected


def test_the_plan_is_printed_with_its_network(tiny):
    _, out = tiny
    assert re.search(r"^network +the window of \d+ bars? as it is, then MLP", out, re.M)


def test_the_result_stands_after_a_table_of_all_parts(tiny):
    _, out = tiny
    titles = out.index("─ train ─")
    assert out.index("─ validation ─") > titles
    for row in ("UP", "DN", "all 2"):
        assert len(re.findall(rf"^{row} ", out[titles:], re.M)) == 2
    table = out[titles : out.index("\nverdict ")]
    assert table.count(" mean exposure ") == 4  # thrice in the results, for the total in the activity
    assert re.search(r"^result   On the test part \(2020-09-12 to 2020-10-26, 44 days, unseen", out, re.M)


def test_what_is_printed_is_kept_with_the_run(tiny, own_test):
    folder, out = tiny
    record = json.loads((folder / "runs/two-0001/result.json").read_text())
    assert list(record["parts"]) == ["train", "validation", "test"]
    assert list(record["parts"]["test"]["symbols"]) == ["UP", "DN"]
    figures = record["parts"]["test"]["total"]["policy"]
    result = jt.backtest(folder / "runs/two-0001/policy.pkl", own_test)
    assert figures["total_return"] == pytest.approx(result.metrics["total_return"], rel=1e-12)
    assert figures["sharpe"] is None, "45 days are not annualised"
    told = " ".join(out[out.index("─ train ─") :].split())
    assert record["result"] in told
    features = jt.load_policy(folder / "runs/two-0001").features
    assert set(record["importance"]) == set(features)
    assert all(set(each) == {"importance", "spread"} for each in record["importance"].values())


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_several_seeds_are_one_policy_with_a_folder_each(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--total-steps", "300", "--seeds", "2", "--seed", "7", "--run-dir", str(run), "--no-must-beat-holding"]
    assert main(["train", "--data", str(tiny[0] / "two.csv"), *SMALL, *flags]) == 0
    out = capsys.readouterr().out
    assert "single seeds were" in out
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"seed-7", "seed-8"}
    assert jt.load_policy(run).about["seeds"] == [7, 8]
    assert "<h2>Seeds</h2>" in (run / "report.html").read_text()
    # Again: one more look, and no more policies. The report is written anew.
    assert main(["report", str(run)]) == 0
    assert "evaluation 2 of these bars, with 1 policy" in " ".join(capsys.readouterr().out.split())
    assert main(["train", "--resume", str(run), "--quiet"]) == 0, "a finished run has nothing left to do"


def test_what_has_no_report_is_one_sentence(tmp_path, capsys):
    assert "no folder" in refused(capsys, ["report", tmp_path / "nowhere"])
    assert "policy.pkl" in refused(capsys, ["report", tmp_path])


def test_an_evaluation_that_cannot_be_counted_is_told_and_costs_nothing(tiny, tmp_path, capsys):
    run, log = tmp_path / "one", tmp_path / "evaluations.jsonl"
    shutil.copytree(tiny[0] / "runs/two-0001", run)
    log.write_text("another,program\n")
    assert main(["backtest", str(run)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "This evaluation was not counted" in out
    assert "evaluations.jsonl, line 1" in out
    assert log.read_text() == "another,program\n"


def test_the_settings_are_kept_with_the_run(tiny):
    folder, _ = tiny
    config = json.loads((folder / "runs/two-0001/config.json").read_text())
    assert config["training"]["num_envs"] == 8
    command = config["command"]
    assert command["data"] == str((folder / "two.csv").resolve())
    assert [cut[:10] for cut in command["cuts"]] == ["2020-07-29", "2020-09-12"]
    assert config["env"]["reward"] == {"name": "RiskPenalized", "risk_aversion": 5.0}


def test_the_next_run_gets_the_next_number_and_quiet_prints_only_the_result(tiny, monkeypatch, capsys):
    folder, _ = tiny
    monkeypatch.chdir(folder)
    assert main(["train", "--data", "two.csv", *SMALL, "--num-episodes", "4", "--quiet", "--no-report"]) == 0
    assert (folder / "runs/two-0002/policy.pkl").is_file()
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert words == ["verdict", "result", "luck", "policy", "files", "next"]


def test_a_number_of_tries_below_0_is_refused_before_anything_is_done(tiny, tmp_path, capsys):
    folder = tiny[0]
    train = ["train", "--data", folder / "two.csv", *SMALL, "--run-dir", tmp_path / "run"]
    for argv in (train, ["backtest", folder / "runs/two-0001"], ["report", folder / "runs/two-0001"]):
        assert "--trials -1" in refused(capsys, [*argv, "--trials", "-1"])
    assert not (tmp_path / "run").exists()


def test_the_config_file_of_a_run_repeats_it(tiny, tmp_path, monkeypatch):
    """With the ends of the split, though it was made by shares: a file that has grown must not move them."""
    folder, new = tiny[0] / "runs/two-0001", tmp_path / "new"
    written = tomllib.loads((folder / "config.toml").read_text())
    assert written["data"]["data"] == str((tiny[0] / "two.csv").resolve())
    assert (written["market"]["train_end"], written["market"]["valid_end"]) == ("2020-07-28", "2020-09-11")
    # The training is looked at, and what follows it is left out.
    monkeypatch.setattr("jaxtrader.cli.reporting.evaluate", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    assert main(["train", "--config", str(folder / "config.toml"), "--quiet", "--run-dir", str(new)]) == 130
    before, again = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (folder, new)
    )
    assert [record["loss"] for record in before] == [record["loss"] for record in again]
    assert before[-1]["valid_best"] == again[-1]["valid_best"]
    assert (new / "config.toml").read_text() == (folder / "config.toml").read_text()


@pytest.mark.parametrize(
    "source", [Source(), Source(label="open"), Source(tz="America/New_York"), Source(label="open", tz="Asia/Tokyo")]
)
@pytest.mark.parametrize("freq", ["D", "7min"])
def test_the_ends_that_a_run_writes_split_as_its_shares_did(source, freq):
    stamps = pd.date_range("2020-01-01", periods=300, freq=freq).strftime("%Y-%m-%d %H:%M")
    bars = jt.load_bars(prices(300).assign(Date=stamps), symbol="X", tz=source.tz, label=source.label)
    market = jt.Market.from_bars(bars, features=["log_return_1"])
    parts = market.split(*inputs.cuts(TrainData(data="x"), source))
    ends = [inputs.last_moment(part, source) for part in parts[:2]]
    again = market.split(*inputs.cuts(TrainData(data="x", train_end=ends[0], valid_end=ends[1]), source))
    for part, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part.segments, other.segments)


def test_a_dry_run_prints_the_plan_and_writes_nothing(tiny, monkeypatch, tmp_path, capsys):
    folder, _ = tiny
    monkeypatch.chdir(tmp_path)
    argv = ["train", "--data", str(folder / "two.csv"), *SMALL, "--total-steps", "1e6", "--run-dir", "new", "--dry-run"]
    assert main(argv) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "train_end=2020-07-28, valid_end=2020-09-11" in out
    assert "symbols=UP,DN" in out
    assert "7,813 in all" in out  # 1e6 / (8 environments x 16 bars), rounded up
    assert re.search(r"would take about [\d.]+ (second|minute|hour)", out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("label", "tz", "bar", "part"),
    [
        ("close", None, "2020-07-01", 0),
        ("close", None, "2020-07-02", 1),
        ("open", None, "2020-07-02", 0),  # the stamp is moved to the close: this is the bar of the first
        ("close", "America/New_York", "2020-07-02T03:59", 0),
        ("close", "America/New_York", "2020-07-02T04:00", 1),
    ],
)
def test_the_last_day_belongs_to_its_part(label, tz, bar, part):
    data, source = TrainData(data="x", train_end="2020-07-01", valid_end="2020-09-01"), Source(label=label, tz=tz)
    times = np.array(["2020-06-01", bar, "2020-07-20", "2020-10-01"], "M8[ns]")
    market = jt.Market.from_bars(jt.load_bars(prices(300)), features=["log_return_1"])
    parts = cut_segments(times, np.array([[0, 0, 4]]), inputs.cuts(data, source), 0)
    assert parts[part][0][0][1] <= 1 < parts[part][0][0][2]
    assert len(market.split(*inputs.cuts(data, source))) == 3


def test_a_plan_of_weights_says_so(tiny, monkeypatch, capsys):
    """What is trained for numbers is any exposure, and the weights of a portfolio: both in test_money.py."""
    planned = []
    monkeypatch.setattr(train_command, "dry_run", lambda values, trainer, console: planned.append(trainer) or 0)
    flags = ["--positions", "weights", "--total-steps", "500", "--dry-run"]
    assert main(["train", "--data", str(tiny[0] / "two.csv"), *SMALL, *flags]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "positions any weight from 0 to 1, the rest is cash reward log return, risk aversion 5" in out
    assert planned[0].env.positions == "weights"


def test_training_that_diverges_fails_with_a_sentence(tiny, monkeypatch, tmp_path, capsys):
    def diverge(self):
        raise jt.TrainingDiverged("update 3 was rejected: not finite in value_loss")

    monkeypatch.setattr(jt.Trainer, "train", diverge)
    argv = ["train", "--data", tiny[0] / "two.csv", *SMALL, "--run-dir", tmp_path / "run"]
    assert "update 3 was rejected" in refused(capsys, argv, code=1)


def test_a_bug_is_not_sold_as_bad_input(tiny, monkeypatch, tmp_path):
    def stumble(self):
        raise ValueError("ours")

    monkeypatch.setattr(jt.Trainer, "train", stumble)
    with pytest.raises(ValueError, match="ours"):
        main(["train", "--data", str(tiny[0] / "two.csv"), *SMALL, "--run-dir", str(tmp_path / "run")])


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_interrupted_training_saves_and_exits_130(tiny, tmp_path, monkeypatch, capfd):
    """A signal to this process, once the first record is written."""
    run, write = tmp_path / "run", JsonlLogger.write

    def write_and_interrupt(log, record):
        write(log, record)
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(JsonlLogger, "write", write)

    monkeypatch.setattr(JsonlLogger, "write", write_and_interrupt)
    argv = ["train", "--data", str(tiny[0] / "two.csv"), *SMALL, "--total-steps", "1e5", "--run-dir", str(run)]
    assert main(argv) == 130
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    assert "stopping after this chunk and saving" in out
    assert "training was interrupted" in out
    assert jt.load_policy(run / "policy.pkl").features == tuple(FEATURES.split(","))


# --- bad input ---


def spoilt(column, value, row=100):
    frame = prices()
    frame.loc[row, column] = value
    return frame


BAD_FILES = {
    "NaN price": (spoilt("Close", np.nan), "row 102: close is missing"),
    "zero price": (spoilt("Low", 0.0), "low is 0"),
    "negative price": (spoilt("Open", -1.0), "open is -1"),
    "high below low": (spoilt("High", 1.0), "--repair clip"),
    "unsorted": (prices().sample(frac=1, random_state=0), "bars must run from old to new"),
    "few bars": (prices(30), "too few"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_bad_bars_are_one_sentence_and_leave_no_folder(fault, dry, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame, says = BAD_FILES[fault]
    frame.to_csv("bad.csv", index=False)
    assert says in refused(capsys, ["train", "--data", "bad.csv", *SMALL, *dry])
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize("command", ["train", "walk-forward"])
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--window=-1", "--window -1 must be a whole number of bars"),
        ("--seeds 0", "--seeds 0 must be a whole number"),
        ("--seed 4294967296", "--seed 4294967296 must be a whole number, from 0 to 4,294,967,29"),
        ("--positions 0", "must hold at least two exposures"),
        ("--fee-bps -1", "--fee-bps -1 must be"),
        ("--stop-loss 2", "--stop-loss 2 must be below 1"),
        ("--take-profit 2", "--take-profit 2 must be below 1"),
        ("--total-steps 5 --num-episodes 3", "one of --num-episodes and --total-steps"),
        ("--risk-aversion -1", "--risk-aversion -1 must be"),
        ("--learning-rate -1", "--learning-rate -1"),
        ("--lot 1", "--lot needs --capital"),
    ],
)
def test_settings_are_checked_before_the_bars_are_counted(command, flags, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prices(30).to_csv("few.csv", index=False)
    assert says in refused(capsys, [command, "--data", "few.csv", *flags.split()])
    assert [path.name for path in tmp_path.iterdir()] == ["few.csv"]


@pytest.mark.parametrize("command", [["train", "--data"], ["data"]])
def test_files_that_are_no_bars_are_one_sentence(command, tmp_path, capsys):
    whole = gzip.compress(prices().to_csv(index=False).encode())
    contents = {
        "empty.csv": (b"", "empty"),
        "binary.csv": (bytes(range(256)), "binary"),
        "cut.csv.gz": (whole[: len(whole) // 2], "cut-off"),
        "text.csv": (b"hello\nworld\n", "not a table"),
    }
    for name, (content, says) in contents.items():
        (tmp_path / name).write_bytes(content)
        assert says in refused(capsys, [*command, tmp_path / name])
    assert "cannot be read" in refused(capsys, [*command, tmp_path / "missing.csv"])
    (tmp_path / "folder").mkdir()
    assert "folder" in refused(capsys, [*command, tmp_path / "folder"])


def test_an_end_beyond_the_default_of_the_other_one_names_both(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, ["train", "--train-end", "2030-01-01"])
    assert "--valid-end 2010-12-31 (the default) is not after --train-end 2030-01-01" in said
    said = refused(capsys, ["train", "--valid-end", "1990-01-01"])
    assert "--valid-end 1990-01-01 is not after --train-end 2007-12-31 (the default)" in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            "--rollout-length 48 --episode-length 256",
            "--rollout-length 48 does not divide --episode-length 256; use 32 or 64",
        ),
        ("--window 250", "too few"),
        ("--positions 0,2", "--positions 0,2 must be within [-1, 1], and 2 is not"),
        ("--positions 1", "at least two exposures"),
        ("--portfolio --positions 0,1", "use --positions weights or --positions continuous, or load separate"),
        ("--decision-every 100000", "--decision-every 100000 does not divide --episode-length 32"),
        (
            "--decision-every 64 --episode-length 1024",
            "a smaller --decision-every, or a shorter --rollout-length",
        ),
        ("--network gruu", "did you mean --encoder gru?"),
        ("--network lst", "jaxtrader's own are --encoder mlp|tcn|attention|gru|lru"),
        ("--fee-bps 6000", "--fee-bps 6000 must be at least --fee-bps 0 and below --fee-bps 5000"),
        ("--slippage-bps nan", "--slippage-bps nan must be at least"),
        ("--risk-aversion -1", "--risk-aversion -1 must be"),
        ("--gamma 2", "--gamma 2 is outside [0, 1]"),
        ("--num-minibatches 3", "--num-minibatches 3 does not divide the 8 paths"),
        ("--num-envs 0", "--num-envs 0"),
        ("--hidden 0", "at least 1 wide"),
        ("--encoder tcn", "--window 1 shows one; use --window 32, or --encoder mlp"),
        ("--encoder attention --window 8 --encoder-width 24", "must be a multiple of 16 for attention"),
        ("--seed -1", "--seed -1 must be a whole number, from 0 to"),
        ("--patience 0", "--patience 0 must be a whole number of validations"),
        ("--from nowhere", "--from nowhere must be the folder of a run with a policy, or a policy file"),
        ("--total-steps 5 --num-episodes 5", "one of --num-episodes and --total-steps"),
        ("--symbols UP,XX", "no symbol 'XX'"),
        ("--symbols up", "did you mean UP?"),
        ("--features nonsense", "neither a built-in feature"),
        ("--features Log_Return_5", "did you mean log_return_5?"),
        ("--take-profit 3", "--take-profit 3 must be below 1"),
        ("--stop-loss 3", "--stop-loss 3 must be below 1"),
        ("--leverage 0", "--leverage 0 is outside"),
        ("--tz Mars/Base", "not a known time zone"),
        ("--train-end 2020-07-01", "--valid-end is missing"),
        ("--train-end soon --valid-end 2020-09-01", "--train-end soon is not a date"),
        ("--train-end 2020-09-01 --valid-end 2020-07-01", "not after --train-end"),
        ("--train-end 2020/07/01 --valid-end 2020-09-01", "write it as 2020-07-01"),
        ("--train-end 2019-07-01 --valid-end 2020-09-01", "--train-end 2019-07-01 and --valid-end 2020-09-01: Part 1"),
        ("--train-end 2020-07-01 --valid-end 2021-07-01", "runs from 2020-01-01 to 2020-10-26"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(flags, says, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, ["train", "--data", tiny[0] / "two.csv", *SMALL, *flags.split()])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("leverage = 1e9", "leverage = 1e+09 is outside (0, 100]"),
        ("max-leverage = 1e9", "max-leverage = 1e+09 is outside (0, 100]"),
        ("window = 0", "window = 0 must be"),
        ("window = 250", "too few bars: "),
        ("patience = 0", "patience = 0 must be a whole number of validations"),
        ("train_end = '2010-13-45'\nvalid_end = 2011-01-01", 'train_end = "2010-13-45" is not a date'),
        ("stop_loss = [0.1, 0.2, 0.3]\npositions = [0, 1]", "stop_loss = [0.1, 0.2, 0.3] "),
        ("positions = [-2, 2]", "positions = [-2, 2] must be within [-1, 1]"),
        ("fee_bps = 6000", "fee_bps = 6000 must be at least fee_bps = 0 and below fee_bps = 5000"),
        ("lot = 1", "lot needs --capital"),
        ("encoder = 'tcn'", 'encoder = "tcn" '),
        ("decision_every = 3", "decision_every = 3 does not divide --episode-length 32"),
        ("risk_aversion = 3\nreward = 'log_return'", "risk_aversion = 3 needs "),
        ("from = 'nowhere'", 'from = "nowhere" must be the folder of a run'),
        ("network = 'lst'", 'network = "lst" must be a file and the name'),
        ("seed = -1", "seed = -1 must be a whole number, from 0 to"),
    ],
)
def test_settings_of_a_file_that_cannot_be_are_named_as_in_the_file(text, says, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(text)
    words = ["--config", "run.toml", "--data", tiny[0] / "two.csv", *SMALL, "--total-steps", "500"]
    assert main([str(word) for word in ["train", *words]]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"jaxtrader: error: run.toml: {says}")
    keys = [one.partition(" =")[0].replace("_", "-") for one in text.splitlines()]
    assert not [key for key in keys if re.search(rf"--{key}\b", line)]
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_a_typed_flag_is_named_as_a_flag_where_the_file_has_it_too(tiny, tmp_path, capsys):
    (tmp_path / "run.toml").write_text("leverage = 2\nseed = 3")
    words = ["train", "--config", tmp_path / "run.toml", "--data", tiny[0] / "two.csv", *SMALL, "--leverage", "0"]
    assert refused(capsys, words).startswith("jaxtrader: error: --leverage 0 is outside")


def test_a_run_folder_with_files_is_refused_and_kept(tiny, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    argv = ["train", "--data", tiny[0] / "two.csv", *SMALL, "--run-dir", tmp_path]
    assert "is not empty: give another folder" in refused(capsys, argv)
    assert "is a file: give another run folder" in refused(capsys, [*argv[:-1], tmp_path / "notes.txt"])
    assert (tmp_path / "notes.txt").read_text() == "mine"


# --- backtest ---


@pytest.fixture(scope="session")
def own_test(tiny):
    """The test part of the tiny run's data, made with the API."""
    bars = jt.load_bars(tiny[0] / "two.csv")
    return jt.Market.from_bars(bars, features=FEATURES.split(",")).split(0.7, 0.15, 0.15)[2]


def test_a_run_is_tested_on_the_test_part_of_its_data(tiny, own_test, tmp_path, capsys):
    run = tiny[0] / "runs/two-0001"
    assert main(["backtest", str(run), "--save", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    result = jt.backtest(run / "policy.pkl", own_test)
    saved = pd.read_csv(tmp_path / "out/equity.csv", index_col="time")
    np.testing.assert_allclose(saved["equity"], result.equity, rtol=1e-14)
    assert len(pd.read_csv(tmp_path / "out/trades.csv")) == len(result.trades)
    assert "test ─" in out
    total, ratio = 100 * result.metrics["total_return"], result.metrics["period_sharpe"]
    assert re.search(rf"^all 2 +{total:.1f}% +{ratio:.2f} ", out, re.M)
    assert "trades  " in out
    assert re.search(r"^break-even  (none, as it|a trade could cost)", out, re.M)
    assert "is no test" not in out
    assert "is not empty" in refused(capsys, ["backtest", run, "--save", tmp_path / "out"])


@pytest.mark.slow
def test_other_costs_and_rules_change_the_result(tiny, own_test, tmp_path, capsys):
    run = tiny[0] / "runs/two-0001"
    flags = ["--fee-bps", "20", "--fill", "next_close", "--rebalance-band", "0", "--symbols", "UP"]
    assert main(["backtest", str(run / "policy.pkl"), *flags, "--save", str(tmp_path)]) == 0
    bars = jt.load_bars(tiny[0] / "two.csv", symbol="UP")
    market = jt.Market.from_bars(bars, features=FEATURES.split(",")).split("2020-07-29", "2020-09-12")[2]
    policy = jt.load_policy(run)
    rules = policy.rules.replace(fill="next_close", rebalance_band=0.0)
    result = jt.backtest(policy, market, rules=rules, costs=jt.Costs.from_bps(20, 5))
    np.testing.assert_allclose(pd.read_csv(tmp_path / "equity.csv")["equity"], result.equity, rtol=1e-14)
    assert "fee 20 bp, slippage 5 bp; fills at the next bar's close" in capsys.readouterr().out


def test_several_costs_have_a_row_each(tiny, own_test, tmp_path, capsys):
    run = tiny[0] / "runs/two-0001"
    flags = ["--fee-bps", "0,50", "--slippage-bps", "0"]
    assert main(["backtest", str(run), *flags, "--save", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    saved = json.loads((tmp_path / "out/result.json").read_text())
    assert list(saved["costs"]) == ["fee 0 bp", "fee 50 bp"]
    for fee in (0, 50):
        result = jt.backtest(run / "policy.pkl", own_test, costs=jt.Costs.from_bps(fee, 0))
        total, costs = (100 * result.metrics[name] for name in ("total_return", "costs"))
        assert re.search(rf"^fee {fee} bp +{total:.1f}% .* {costs:.2f}% ", out, re.M)
        assert saved["costs"][f"fee {fee} bp"]["total"]["policy"]["costs"] == pytest.approx(costs / 100)
    assert "what follows is with fee 50 bp" in " ".join(out.split())
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out/equity.csv")["equity"], result.equity, rtol=1e-14)
    page = (tmp_path / "out/report.html").read_text()
    assert "Several costs" in page
    assert "fee 0 bp" in page
    assert "--fee-bps 6000" in refused(capsys, ["backtest", run, "--fee-bps", "0,6000"])


def test_another_file_is_used_whole_and_older_dates_are_no_test(tiny, tmp_path, capsys):
    pair(seed=5).to_csv(tmp_path / "new.csv", index=False)
    run = str(tiny[0] / "runs/two-0001")
    assert main(["backtest", run, "--data", str(tmp_path / "new.csv")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "new.csv: UP, DN, 2020-01-01 to 2020-10-26, 600 bars" in out
    assert "used dates before 2020-09-12: what lies before it is no test" in out
    dates = ["--start", "2020-02-01", "--end", "2020-03-10"]
    assert main(["backtest", run, "--data", str(tmp_path / "new.csv"), *dates]) == 0
    assert "2020-02-01 to 2020-03-10, 78 bars" in " ".join(capsys.readouterr().out.split())


def test_the_other_parts_can_be_asked_for(tiny, capsys):
    run = str(tiny[0] / "runs/two-0001")
    assert main(["backtest", run, "--part", "valid"]) == 0
    assert "2020-07-29 to 2020-09-11, 90 bars" in capsys.readouterr().out


def test_what_cannot_be_tested_is_one_sentence(tiny, tmp_path, capsys):
    run, data = tiny[0] / "runs/two-0001", tiny[0] / "two.csv"
    (tmp_path / "theirs.pkl").write_bytes(b"\x80\x04K\x01.")
    damaged = bytearray((run / "policy.pkl").read_bytes())
    damaged[500] ^= 1
    (tmp_path / "damaged.pkl").write_bytes(damaged)
    prices(8).to_csv(tmp_path / "short.csv", index=False)
    for argv, says in (
        ([tmp_path / "theirs.pkl"], "not a jaxtrader file"),
        ([tmp_path / "damaged.pkl"], "damaged"),
        ([run / "checkpoint.pkl"], "checkpoint"),
        ([tmp_path / "nowhere"], "nowhere"),
        ([tmp_path], "policy.pkl"),
        ([run, "--data", tmp_path / "short.csv"], "too few"),
        ([run, "--data", data, "--part", "test"], "use --start and --end"),
        ([run, "--tz", "UTC"], "--tz UTC says how to read a file"),
        ([run, "--start", "2031-01-01"], "no bar is left by --start 2031-01-01"),
        ([run, "--fee-bps", "-1"], "--fee-bps -1 must be at least --fee-bps 0"),
        ([run, "--start", "2020-10-20", "--delay", "20"], "and its fill need 11 of history + 21"),
    ):
        assert says in refused(capsys, ["backtest", *argv])


def test_a_policy_of_the_api_needs_data_and_is_warned_of(tiny, own_test, tmp_path, capsys):
    policy = jt.load_policy(tiny[0] / "runs/two-0001/policy.pkl")
    about = {key: value for key, value in policy.about.items() if key != "command"}
    policy.agent.save_model(tmp_path / "policy.pkl", policy.state, about)
    assert "does not say its data; give --data FILE" in refused(capsys, ["backtest", tmp_path])
    assert main(["backtest", str(tmp_path), "--data", str(tiny[0] / "two.csv")]) == 0
    assert "does not say on which dates it was trained" in " ".join(capsys.readouterr().out.split())


# --- data ---


def test_data_says_what_is_in_a_file(tiny, tmp_path, capsys):
    frame = prices(400).assign(signal=0.5)
    frame.drop(index=range(100, 110)).to_csv(tmp_path / "X.csv", index=False)
    assert main(["data", str(tmp_path / "X.csv")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "X 390 bars, 2020-01-01 00:00 to 2021-02-03 00:00 UTC, every 1 day, 365 periods a year" in out
    assert "further numbers: signal" in out
    assert "1 gap " in out
    assert "warm up over 252 bars (log_return_252)" in out
    assert "problem too few bars: training needs 317 (about 453 in the file)" in out


def test_a_given_number_of_periods_per_year_settles_a_doubt(tiny, tmp_path, capsys):
    file = tmp_path / "X.csv"
    days = pd.bdate_range("2020-01-01", periods=30)
    prices(30).assign(Date=days).to_csv(file, index=False)
    assert main(["data", str(file)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "every 1 day, 252 periods a year" in out
    assert "--periods-per-year" in out
    assert main(["data", str(file), "--periods-per-year", "260"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "every 1 day, 260 periods a year" in out
    assert "settles" not in out
    train = ["train", "--data", str(tiny[0] / "two.csv"), *SMALL, "--dry-run"]
    assert main([*train, "--periods-per-year", "260"]) == 0
    assert "260 periods a year" in " ".join(capsys.readouterr().out.split())
    assert "--periods-per-year 0 must be a finite number" in refused(capsys, [*train, "--periods-per-year", "0"])
    assert "--min-bars -1 must be a whole number" in refused(capsys, ["data", file, "--min-bars", "-1"])


def test_data_says_which_format_a_file_has(tmp_path, capsys):
    rows = [f"17304{i}9200000,10,12,9,11,{i},17304{i}9200001,1,1,1,1,0" for i in range(9)]
    (tmp_path / "klines.csv").write_text("\n".join(rows))
    assert main(["data", str(tmp_path / "klines.csv")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "format Binance klines without a header: time 'open_time', open 'open'" in out
    assert "--label open" in out


def test_a_comma_with_two_readings_is_settled_by_decimal(tmp_path, capsys):
    rows = [f"2024-01-0{i};10,{i}01;10,{i}01;10,{i}01;10,{i}01;988" for i in range(1, 5)]
    (tmp_path / "a.csv").write_text("\n".join(["date;open;high;low;close;volume", *rows]))
    assert "--decimal ," in refused(capsys, ["data", tmp_path / "a.csv"])
    for mark in ",.":
        assert main(["data", str(tmp_path / "a.csv"), "--decimal", mark]) == 0
    assert "not a known time zone" in refused(capsys, ["data", tmp_path / "a.csv", "--decimal", ",", "--tz", ""])


def test_data_says_what_is_missing_for_the_default_features(tmp_path, capsys):
    pair(460).to_csv(tmp_path / "two.csv", index=False)
    assert main(["data", str(tmp_path / "two.csv"), "--symbols", "UP", "--tz", "UTC", "--no-adjust"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("two.csv --symbols UP --tz UTC --no-adjust\n")
    assert "DN" not in out
    assert "problem" not in out
    (tmp_path / "few.csv").write_text(prices(40).to_csv(index=False))
    assert main(["data", str(tmp_path / "few.csv")]) == 0
    assert "problem too few bars: training needs 317" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (60, "1 minute"),
        (5400, "1.5 hours"),
        (86400, "1 day"),
        (45, "45 seconds"),
        (0.5, "0.5 seconds"),
        (720, "12 minutes"),
    ],
)
def test_spans_are_in_their_largest_unit(seconds, text):
    assert phrases.span(seconds) == text


def test_bad_input_is_told_apart_by_its_type():
    with pytest.raises(BadInput, match="not a date"):
        inputs.moment_of("--start", "01/02/2020", Source(), after=False)
    assert (settings.OK, settings.FAILED, settings.BAD_INPUT, settings.INTERRUPTED) == (0, 1, 2, 130)


def test_ctrl_c_while_libraries_load_is_kept_for_later():
    """A library that swallows the signal, as C extensions do while they are imported, must not swallow the wish."""
    with pytest.raises(KeyboardInterrupt), cli._late_interrupt():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_next_command_can_be_pasted_whatever_the_file_is_called(tmp_path, capsys):
    path = tmp_path / "my prices.csv"
    prices(460).to_csv(path, index=False)
    assert main(["data", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"jaxtrader train --data '{path}'\n")
