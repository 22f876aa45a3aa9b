"""The command around the checks: what it prints, its exit code, features from a Python file, and bad input.

The checks themselves, and the command with them, run in tests/training/checks.
"""

import pandas as pd
import pytest

from jaxtrader.cli import main
from jaxtrader.cli.check import feature, sentence
from jaxtrader.cli.config import BadInput
from jaxtrader.market.bars import load_bars
from jaxtrader.market.checks import DataError
from jaxtrader.market.features import Feature
from jaxtrader.training import checks
from jaxtrader.training.checks import Check

GOOD = Check("oracle", True, 0.987, 0.5, "share of foresight", "told the future, it earns", "it is broken", least=True)
BAD = Check("shuffled", False, 12.3, 3.0, "t on shuffled bars", "on shuffled bars it earns", "nothing can be believed")


@pytest.mark.parametrize(("done", "code"), [((GOOD,), 0), ((GOOD, BAD), 1)])
def test_a_line_a_check_and_the_exit_code(done, code, monkeypatch, capsys):
    def run(bars, features, setting, say):
        assert [one.symbols for one in bars] == [("AAPL",)]
        assert (setting.positions, setting.seed) == ((-0.5, 0.5), 3)
        say("1/5 is this it?")
        return done

    monkeypatch.setattr(checks, "run", run)
    assert main(["check", "--symbols", "AAPL", "--positions", "-0.5,0.5", "--seed", "3"]) == code
    out = capsys.readouterr().out
    assert "check 1/5 is this it?\n" in out
    assert "oracle        pass     0.987  at least 0.5 share of foresight\n" in out
    assert "told the future, it earns.\n" in out
    assert ("shuffled      FAIL      12.3  at most 3    t on shuffled bars\n" in out) == bool(code)
    assert ("on shuffled bars it earns: nothing can be believed.\n" in out) == bool(code)
    assert sentence(done, 0.0)[:20] in out
    assert "\x1b" not in out


@pytest.fixture
def own(tmp_path):
    def write(text):
        (tmp_path / "own.py").write_text(text)
        return tmp_path / "own.py"

    return write


def test_a_feature_comes_from_a_python_file(own):
    path = own("import jaxtrader as jt\nNINE = 9\nfast = jt.features.Feature('fast', 1, lambda b: b.close * 0)\n")
    found = feature(f"{path}:fast")
    assert isinstance(found, Feature)
    assert (found.name, found.lookback) == ("fast", 1)
    assert feature("momentum_20") == "momentum_20"
    for name, says in (("slow", "has no such name"), ("NINE", "holds a int there")):
        with pytest.raises(BadInput, match=says):
            feature(f"{path}:{name}")


@pytest.mark.parametrize(
    ("text", "says"),
    [("import nowhere_at_all", "ModuleNotFoundError: No module named"), ("def x(:", "SyntaxError"), ("1 / 0", "ZeroD")],
)
def test_a_file_that_cannot_be_run_is_one_sentence(text, says, own):
    with pytest.raises(BadInput, match=says):
        feature(f"{own(text)}:x")
    with pytest.raises(BadInput, match="FileNotFoundError"):
        feature("no/such/file.py:x")


def test_a_fault_in_a_function_names_the_feature(own):
    path = own("import jaxtrader as jt\nbad = jt.features.Feature('bad', 1, lambda b: b.columns['mood'])\n")
    found = feature(f"{path}:bad")
    days = pd.date_range("2020-01-01", periods=9)
    bars = load_bars(pd.DataFrame({n: 1.0 for n in ("open", "high", "low", "close", "volume")}, index=days), symbol="W")
    with pytest.raises(DataError, match="The feature bad fails on 9 bars of W: KeyError: 'mood'"):
        found.compute(bars)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--positions 0,2", "position 2 is outside [-1, 1]"),
        ("--fee-bps -1", "outside [0, 0.5)"),
        ("--seed -1", "--seed -1 is outside"),
        ("--features mood", "neither a built-in feature"),
        ("--features mood.py:x", "mood.py cannot be run"),
        ("--data nowhere.csv", "cannot be read"),
        ("--symbols FB --features momentum_5", "has 132 bars to train on and 59 to judge on"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(flags, says, capsys):
    assert main(["check", *flags.split()]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]
