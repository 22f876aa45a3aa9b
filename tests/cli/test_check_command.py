"""The command around the checks: what it prints, its exit code, features from a Python file, and bad input.

The two checks that train nothing run through it here. tests/checks has the others.
"""

import numpy as np
import pandas as pd
import pytest
from cli.tiny_runs import refused

from jaxtrader import checks
from jaxtrader.checks import Check
from jaxtrader.cli import main
from jaxtrader.cli.check_command import named, sentence
from jaxtrader.cli.settings import BadInput
from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature

GOOD = Check(
    "oracle", True, 0.987, 0.5, "share of foresight", "told the future, it earns", "it is broken", is_minimum=True
)
BAD = Check("shuffled", False, 12.3, 3.0, "t on shuffled bars", "on shuffled bars it earns", "nothing can be believed")


@pytest.mark.parametrize(("done", "code"), [((GOOD,), 0), ((GOOD, BAD), 1)])
def test_a_line_a_check_and_the_exit_code(done, code, monkeypatch, capsys):
    def run(bars, features, settings, only, notify):
        assert [one.symbols for one in bars] == [("AAPL",)]
        assert only == checks.NAMES
        assert (settings.positions, settings.seed) == ((-0.5, 0.5), 3)
        notify("1/5 is this it?")
        return done

    monkeypatch.setattr(checks, "run", run)
    assert main(["check", "--symbols", "AAPL", "--positions", "-0.5,0.5", "--seed", "3"]) == code
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "check 1/5 is this it?\n" in out
    assert "oracle pass 0.987 at least 0.5 share of foresight" in rows
    assert "told the future, it earns.\n" in out
    assert ("shuffled FAIL 12.3 at most 3 t on shuffled bars" in rows) == bool(code)
    assert ("on shuffled bars it earns: nothing can be believed.\n" in out) == bool(code)
    assert sentence(done, 0.0)[:20] in out
    assert "\x1b" not in out


# --- the checks that train nothing ---

LEAKS = """
import numpy as np
import pandas as pd
import jaxtrader as jt

Feature = jt.features.Feature


def next_move(bars):
    return np.log(np.append(bars.close[1:], bars.close[-1:], axis=0) / bars.close)


def move(bars):
    return np.log(bars.close / np.append(bars.close[:1], bars.close[:-1], axis=0))


def deviations(bars):
    return (bars.close - bars.close.mean()) / bars.close.std()


def above_average(bars):
    return np.log(bars.close / pd.DataFrame(bars.close).ewm(span=50).mean().to_numpy())


ahead = Feature("ahead", 1, next_move)
standardized = Feature("standardized", 1, deviations)
short = Feature("short", 20, above_average)
honest = Feature("honest", 2, move)
"""


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A folder with mine.py and with 500 bars of a random walk.

    `peek` is what a decision at a row's close earns, and half of it noise. `late` is the same column two bars later.
    """
    folder, rng = tmp_path_factory.mktemp("walk"), np.random.default_rng(0)
    (folder / "mine.py").write_text(LEAKS)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, 500)))
    first = np.append(50, close[:-1]) * np.exp(rng.normal(0, 0.005, 500))
    prices = {"open": first, "high": np.maximum(first, close), "low": np.minimum(first, close), "close": close}
    earned = np.append(np.log(first[2:] / first[1:-1]), [0, 0])
    peek = earned + rng.normal(0, earned.std(), 500)
    columns = {"volume": 1.0, "peek": peek, "late": np.roll(peek, 2)}
    days = pd.date_range("2020-01-01", periods=500)
    pd.DataFrame({"time": days} | prices | columns).to_csv(folder / "prices.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("feature", "failed", "says"),
    [
        ("mine.py:ahead", "past_only, plausible", "from those up to row"),
        ("mine.py:standardized", "past_only", "from those up to row"),
        ("mine.py:short", "past_only", "from the last 20 bars, its look-back"),
        ("peek", "plausible", "peek is the column that says most"),
        ("mine.py:honest", "", ""),
        ("late", "", ""),
    ],
)
def test_a_planted_leak_is_an_exit_code_of_1_and_is_named(feature, failed, says, walk, monkeypatch, capsys):
    monkeypatch.chdir(walk)
    argv = ["check", "--data", "prices.csv", "--only", "past_only,plausible", "--features", f"log_return_5,{feature}"]
    assert main(argv) == (1 if failed else 0)
    out = " ".join(capsys.readouterr().out.split())
    assert says in out
    assert (f"checks failed ({failed})" in out) == bool(failed)
    assert (f"features at fault: {feature.removeprefix('mine.py:')}:" in out) == ("past_only" in failed)


def test_only_the_checks_that_are_asked_for_run_and_are_spoken_of(walk, capsys):
    assert main(["check", "--data", str(walk / "prices.csv"), "--only", "plausible", "--features", "late"]) == 0
    out = capsys.readouterr().out
    assert "check 1/1 does a feature know too much" in out
    assert "past_only" not in out
    result = " ".join(out.split("result", 1)[1].split())
    assert result.startswith("plausible passed in ")
    assert "4 more were not run" in result
    assert "learn" not in result


def test_the_bundled_stocks_with_the_default_features_know_nothing_early(capsys):
    """All that is checked without training. benchmarks/checks.py runs the command in full, over ten seeds."""
    assert main(["check", "--only", "past_only,plausible"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "past_only, plausible passed in " in out


def test_the_past_alone_can_be_checked_on_few_bars(capsys):
    argv = ["check", "--symbols", "FB", "--features", "log_return_5", "--only"]
    assert main([*argv, "past_only"]) == 0
    assert "past_only passed in" in capsys.readouterr().out
    # By chance R2 of one column in 200 bars is above 5% once in 500 times.
    assert main([*argv, "past_only,plausible"]) == 2
    assert "the checks need 256 and 128" in capsys.readouterr().err


# --- features from a file, bad input ---


@pytest.fixture
def own(tmp_path):
    def write(text):
        (tmp_path / "own.py").write_text(text)
        return tmp_path / "own.py"

    return write


def test_a_feature_comes_from_a_python_file(own):
    path = own("import jaxtrader as jt\nNINE = 9\nfast = jt.features.Feature('fast', 1, lambda b: b.close * 0)\n")
    found, builtin = named([f"{path}:fast", "log_return_20"])
    assert isinstance(found, Feature)
    assert (found.name, found.lookback) == ("fast", 1)
    assert builtin == "log_return_20"
    for name, says in (("slow", "own.py has no slow"), ("NINE", "has NINE of the type int")):
        with pytest.raises(BadInput, match=says):
            named([f"{path}:{name}"])


MODULE = """from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
import jaxtrader as jt
from beside_this_file import spans

with Path(__file__).with_suffix(".runs").open("a") as log:
    log.write("run ")

@dataclass
class Lag:
    bars: int

slow, fast = (jt.features.Feature(f"lag_{x.bars}", x.bars, lambda b: b.close) for x in (Lag(spans[0]), Lag(spans[1])))
"""


def test_a_file_is_run_once_and_as_python_would_run_it(own, tmp_path):
    """Annotations that dataclasses look up, and a module beside it."""
    (tmp_path / "beside_this_file.py").write_text("spans = (20, 5)\n")
    found = named([f"{own(MODULE)}:{name}" for name in ("slow", "fast")])
    assert [one.name for one in found] == ["lag_20", "lag_5"]
    assert (tmp_path / "own.runs").read_text() == "run "


@pytest.mark.parametrize(
    ("text", "says"),
    [("import nowhere_at_all", "ModuleNotFoundError: No module named"), ("def x(:", "SyntaxError"), ("1 / 0", "ZeroD")],
)
def test_a_file_that_cannot_be_run_is_one_sentence(text, says, own):
    with pytest.raises(BadInput, match=says):
        named([f"{own(text)}:x"])
    with pytest.raises(BadInput, match="no Python file"):
        named(["no/such/file.py:x"])


def test_a_fault_in_a_function_names_the_feature(own):
    path = own("import jaxtrader as jt\nbad = jt.features.Feature('bad', 1, lambda b: b.columns['mood'])\n")
    (found,) = named([f"{path}:bad"])
    days = pd.date_range("2020-01-01", periods=9)
    bars = load_bars(pd.DataFrame({n: 1.0 for n in ("open", "high", "low", "close", "volume")}, index=days), symbol="W")
    with pytest.raises(DataError, match="The feature bad fails on 9 bars of W: KeyError: 'mood'"):
        found.compute(bars)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--positions 0,2", "--positions 0,2 must be within [-1, 1], and 2 is not"),
        ("--fee-bps -1", "--fee-bps -1 must be at least --fee-bps 0"),
        ("--seed -1", "--seed -1 must be a whole number, from 0 to"),
        (
            "--only oracles,plausible",
            "--only oracles,plausible must be one or more of past_only, plausible, one_bar_late, oracle,",
        ),
        ("--only ,", "--only , must be one or more of past_only"),
        ("--features mood", "neither a built-in feature"),
        ("--features mood.py:x", "mood.py is no Python file"),
        ("--data nowhere.csv", "cannot be read"),
        ("--symbols FB --features log_return_5", "has 132 bars to train on and 59 to judge on"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(flags, says, capsys):
    assert says in refused(capsys, ["check", *flags.split()])
