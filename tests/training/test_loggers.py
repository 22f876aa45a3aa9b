"""loggers.py: every line is JSON, and the display tells the same story on a terminal, in a pipe and in a crash."""

import io
import json
import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from rich.console import Console

from jaxtrader.training import loggers
from jaxtrader.training.loggers import JsonlLogger, Progress

RECORD = {
    "steps": 1_234_567,
    "steps_per_second": 118_234.5,
    "updates": 1205,
    "episodes": 4823,
    "episode_return": 0.0123,
    "reward_per_bar": 1.234e-5,
    "policy_loss": -0.000213,
    "value_loss": 0.0312,
    "approx_kl": 0.00812,
    "entropy": 1.0234,
    "exposure": -0.351,
    "valid_reward_per_bar": 1.2e-5,
    "valid_best": 1.4e-5,
    "seconds": 3723.4,
}
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def lines_of(path: Path) -> list:
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


class TestJsonlLogger:
    def test_all_kinds_of_values(self, tmp_path):
        record = {
            "python": [1, 2.5, True, None, "Zürich\n", (1, 2)],
            "nan": math.nan,
            "inf": [math.inf, -math.inf],
            "float64": np.float64(0.1),
            "float32": np.float32(0.5),
            "float32 nan": np.float32(np.nan),
            "int": np.int64(2**60),
            "bool": np.bool_(True),
            "bfloat16": ml_dtypes.bfloat16(1.5),
            "array": np.array([[1.0, np.nan], [np.inf, 2.0]]),
            "jax float": jnp.float32(0.25),
            "jax nan": jnp.float32(jnp.nan),
            "jax int": jnp.int32(7),
            "jax bool": jnp.array(False),
            "jax bfloat16": jnp.bfloat16(3.0),
            "jax array": jnp.arange(3),
            "nested": {"a": np.float32(2.0), "b": {"c": math.nan}},
        }
        with JsonlLogger(tmp_path / "metrics.jsonl") as log:
            log.write(record)
        (back,) = lines_of(tmp_path / "metrics.jsonl")
        assert back == {
            "python": [1, 2.5, True, None, "Zürich\n", [1, 2]],
            "nan": None,
            "inf": [None, None],
            "float64": 0.1,
            "float32": 0.5,
            "float32 nan": None,
            "int": 2**60,
            "bool": True,
            "bfloat16": 1.5,
            "array": [[1.0, None], [None, 2.0]],
            "jax float": 0.25,
            "jax nan": None,
            "jax int": 7,
            "jax bool": False,
            "jax bfloat16": 3.0,
            "jax array": [0, 1, 2],
            "nested": {"a": 2.0, "b": {"c": None}},
        }
        assert [type(back[key]) for key in ("int", "bool", "jax int", "jax bool")] == [int, bool, int, bool]

    def test_each_record_is_there_before_the_next(self, tmp_path):
        path = tmp_path / "new" / "folder" / "metrics.jsonl"
        log = JsonlLogger(path)
        for i in range(3):
            log.write({"i": i})
            assert [record["i"] for record in lines_of(path)] == list(range(i + 1))
        log.close()
        log.close()
        with JsonlLogger(path) as log:
            log.write({"i": 3})
        assert [record["i"] for record in lines_of(path)] == [0, 1, 2, 3]

    def test_a_line_cut_off_by_a_crash_spoils_no_other(self, tmp_path):
        path = tmp_path / "m"
        path.write_text('{"i": 0}\n{"i": 1, "los')
        with JsonlLogger(path) as log:
            log.write({"i": 2})
        assert path.read_text() == '{"i": 0}\n{"i": 1, "los\n{"i": 2}\n'

    @pytest.mark.parametrize(
        ("record", "says"),
        [
            ({"good": 1, "bad": {"deep": [object()]}}, r"bad\.deep\[0\] is a object"),
            ({"bad": {1, 2}}, "bad is a set"),
            ({"bad": np.complex64(1j)}, "bad is a complex64"),
            ({"bad": np.array([object()])}, "bad is a ndarray"),
        ],
    )
    def test_what_json_cannot_hold_is_named_and_leaves_the_file_whole(self, tmp_path, record, says):
        with JsonlLogger(tmp_path / "m") as log:
            with pytest.raises(ValueError, match=says):
                log.write(record)
            log.write({"i": 1})
        assert lines_of(tmp_path / "m") == [{"i": 1}]

    def test_closed_and_no_place(self, tmp_path):
        log = JsonlLogger(tmp_path / "m")
        log.close()
        with pytest.raises(ValueError, match="is closed"):
            log.write({})
        with pytest.raises(ValueError, match=r"cannot write metrics to .*choose another place"):
            JsonlLogger(tmp_path)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=24, color_system=None, _environ={})


def pipe() -> Console:
    return Console(file=io.StringIO(), width=80, _environ={})


def screen(console: Console) -> str:
    """The text without control codes; each time it was drawn over stands below the time before."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue().replace("\r", "\n"))


def run(
    console: Console, total: int | None = 3_000_000, unit="steps", done: int = 1_234_567, record=RECORD
) -> Progress:
    """23 seconds of a run up to `done`."""
    clock = Clock()
    with Progress(total, unit, console, clock=clock) as progress:
        progress.update(0, {})
        clock.now += 23
        progress.update(done, record)
    return progress


class TestOnATerminal:
    @pytest.mark.parametrize("width", [80, 120])
    def test_everything_is_shown_in_four_lines(self, width):
        console = terminal(width)
        run(console)
        head, *figures = screen(console).rstrip().splitlines()[-4:]
        assert head.startswith("41%")
        assert head.endswith("1.2M/3.0M steps  118k steps/s  left 0:32")  # 23 s x (3 - 1.234567) / 1.234567 = 32.9
        assert "━━━━━━━━━━" in head
        assert [re.split(r"\s{1,}(?=-?[0-9])|(?<=[0-9kM])\s+", line.strip()) for line in figures] == [
            ["return", "0.0123", "reward/bar", "1.23e-05", "exposure", "-0.351", "entropy", "1.02"],
            ["policy loss", "-2.1e-04", "value loss", "0.0312", "KL", "0.00812", "updates", "1.2k"],
            ["valid/bar", "1.2e-05", "best", "1.4e-05", "episodes", "4.8k", "elapsed", "1:02:03"],
        ]

    @pytest.mark.parametrize("width", [20, 30, 41, 50, 62, 77, 78, 80, 100, 120, 200])
    @pytest.mark.parametrize(("total", "unit"), [(3_000_000, "steps"), (10_000, "episodes"), (None, "steps")])
    def test_no_width_wraps_a_line_and_readable_ones_cut_nothing(self, width, total, unit):
        console = terminal(width)
        wide = dict.fromkeys(RECORD, -1.2345e-5) | {"steps_per_second": 118e6, "updates": 123_456, "seconds": 80_000}
        run(console, total, unit, done=4823, record=wide)
        text = screen(console)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        if width >= 50:
            assert "…" not in text
            assert "-1.2e-05" in text

    def test_missing_figures_are_left_out(self):
        console = terminal(80)
        run(console, record={"entropy": 0.5, "policy_loss": "none", "other": 3, "value_loss": None})
        text = screen(console)
        assert "entropy" in text
        assert not re.search("loss|KL|valid|best|steps/s|other", text)

    def test_the_share_of_a_known_optimum_has_a_row_of_its_own(self):
        console = terminal(80)
        run(console, record=RECORD | {"optimum_share": 0.98654, "valid_held": 0.6})
        *_, last = screen(console).rstrip().splitlines()
        assert last.split("  ")[0] == "of optimum"
        assert last.split() == ["of", "optimum", "98.7%", "in", "position", "60.0%"]

    def test_episodes_count_the_bar_and_steps_move_below(self):
        console = terminal(80)
        run(console, 10_000, "episodes", done=4823)
        text = screen(console)
        assert "48%" in text
        assert "4.8k/10.0k episodes" in text
        assert re.search(r"steps +1\.2M", text)

    def test_unknown_total(self):
        console = terminal(80)
        run(console, None)
        assert "1.2M steps  118k steps/s" in screen(console)
        assert "%" not in screen(console)
        assert "left" not in screen(console)

    def test_best_validation_stands_out(self):
        console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard", _environ={})
        run(console, record={"valid_reward_per_bar": 2e-5, "valid_best": 2e-5})
        assert re.search(r"\x1b\[1;32m +2e-05", console.file.getvalue())
        console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard", _environ={})
        run(console, record={"valid_reward_per_bar": 1e-5, "valid_best": 2e-5})
        assert re.search(r"\x1b\[1m +1e-05", console.file.getvalue())

    def test_print_stands_above_the_bar_as_it_is(self):
        console = terminal(80)
        with Progress(100, console=console) as progress:
            progress.update(10, {})
            progress.print("saved [policy] to run/policy")
        text = screen(console)
        assert "saved [policy] to run/policy" in text
        assert text.rindex("saved") < text.rindex("10%")

    def test_before_the_first_update_it_says_what_it_waits_for(self):
        console = terminal(80)
        with Progress(100, console=console):
            pass
        assert "compiling" in screen(console)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_the_terminal_is_restored_whatever_happens(self, error):
        console = terminal(80)
        stdout, stderr = sys.stdout, sys.stderr

        def train():
            with Progress(100, console=console) as progress:
                assert sys.stdout is not stdout  # prints of others go above the bar
                progress.update(50, RECORD)
                raise error

        with pytest.raises(error):
            train()
        output = console.file.getvalue()
        assert output.count(HIDE_CURSOR) == 1
        assert output.rindex(SHOW_CURSOR) > output.rindex(HIDE_CURSOR)
        assert (sys.stdout, sys.stderr) == (stdout, stderr)
        assert "50%" in output

    def test_hostile_values_do_not_stop_a_training(self):
        console = terminal(80)
        values = [
            math.nan,
            math.inf,
            -math.inf,
            1e300,
            -1e-300,
            "x",
            None,
            [1],
            object(),
            np.float32(1),
            jnp.ones(()),
            10**400,
        ]
        clock = Clock()
        with Progress(100, console=console, clock=clock) as progress:
            for i, value in enumerate(values):
                clock.now += 1
                progress.update(i, dict.fromkeys(RECORD, value))
                progress._live.refresh()
        assert "11%" in screen(console)


class TestInAPipe:
    def test_what_is_not_known_yet_is_a_dash(self):
        console = pipe()
        with Progress(100, console=console) as progress:
            progress.update(10, {"steps_per_second": math.nan, "episode_return": math.nan, "reward_per_bar": 0.5})
        assert console.file.getvalue() == "  10%  10 steps  - steps/s  return -  reward/bar 0.5\n"

    def test_one_line_with_everything_and_no_control_code(self):
        console = pipe()
        run(console)
        first, last = console.file.getvalue().splitlines()
        assert first == "   0%  0 steps"
        assert last == (
            "  41%  1.2M steps  118k steps/s  return 0.0123  reward/bar 1.23e-05  exposure -0.351  entropy 1.02  "
            "policy loss -2.1e-04  value loss 0.0312  KL 0.00812  updates 1.2k  valid/bar 1.2e-05  best 1.4e-05  "
            "episodes 4.8k  elapsed 1:02:03  left 0:32"
        )

    def test_the_share_of_the_optimum_stays_until_the_next_one(self):
        """Most records have none: a policy is scored every now and then. Where flat is best there is no share."""
        console, clock = pipe(), Clock()
        scores = [{"optimum_share": 0.5, "valid_held": 0.9}, {}, {"optimum_share": -0.021, "valid_held": 0.0}, {}]
        with Progress(1000, console=console, clock=clock) as progress:
            for done, record in enumerate([*scores, {"optimum_share": math.nan, "valid_held": 1.0}]):
                progress.update(done, record)
                clock.now += 6
        assert [re.sub(r" *left.*", "", line.split("steps")[1]) for line in console.file.getvalue().splitlines()] == [
            "  of optimum 50.0%  in position 90.0%",
            "  of optimum 50.0%  in position 90.0%",
            "  of optimum -2.1%  in position 0.0%",
            "  of optimum -2.1%  in position 0.0%",
            "  in position 100.0%",
        ]

    def test_first_last_and_every_five_seconds(self):
        console, clock = pipe(), Clock()
        with Progress(1000, console=console, clock=clock) as progress:
            for done in range(0, 198):  # ten updates a second
                progress.update(done, {})
                clock.now += 0.1
        shown = [int(line.split("%")[1].split()[0]) for line in console.file.getvalue().splitlines()]
        assert shown[0] == 0
        assert shown[-1] == 197
        assert np.allclose(np.diff(shown[:-1]), 50, atol=1)
        assert len(shown) == 5

    def test_the_end_is_shown_once(self):
        console, clock = pipe(), Clock()
        with Progress(100, console=console, clock=clock) as progress:
            progress.update(50, {})
            clock.now += 1
            progress.update(130, {})  # a run ends at the first boundary past its total
            assert console.file.getvalue() == "  50%  50 steps\n 100%  130 steps  left 0:00\n"
        assert console.file.getvalue().count("\n") == 2

    def test_an_exception_shows_how_far_it_came(self):
        console, clock = pipe(), Clock()

        def train():
            with Progress(100, console=console, clock=clock) as progress:
                progress.update(1, {})
                clock.now += 1
                progress.update(2, {})
                raise RuntimeError

        with pytest.raises(RuntimeError):
            train()
        assert console.file.getvalue().splitlines() == ["   1%  1 steps", "   2%  2 steps  left 1:38"]

    def test_print_and_no_update(self):
        console = pipe()
        with Progress(100, console=console) as progress:
            progress.print("a [b] " + "c" * 200)
        assert console.file.getvalue() == "a [b] " + "c" * 200 + "\n"

    def test_time_left_counts_from_where_a_resumed_run_began(self):
        console, clock = pipe(), Clock()
        with Progress(1000, console=console, clock=clock) as progress:
            progress.update(900, {})
            clock.now += 10
            progress.update(950, {})
        assert console.file.getvalue().splitlines()[-1] == "  95%  950 steps  left 0:10"

    @pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"COLUMNS": "40"}])
    def test_a_real_pipe_stays_free_of_control_codes(self, variables):
        code = """
            from jaxtrader.training.loggers import Progress
            with Progress(100) as progress:
                progress.update(10, {"entropy": 1.0})
                progress.print("saved")
                progress.update(100, {"entropy": 0.5})
        """
        environment = os.environ | {"PYTHONPATH": str(Path(loggers.__file__).parents[2])} | variables
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert b"\x1b" not in done.stdout
        assert done.stdout.split(b"\n")[:2] == [b"  10%  10 steps  entropy 1", b"saved"]
        assert done.stdout.split(b"\n")[2].startswith(b" 100%  100 steps  entropy 0.5")
        assert done.stderr == b""

    def test_a_dumb_terminal_is_no_terminal(self):
        console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "dumb"})
        run(console)
        assert "\x1b" not in console.file.getvalue()
        assert "  41%  1.2M steps" in console.file.getvalue()


@pytest.mark.parametrize("console", [terminal(80), pipe()])
def test_disabled_is_silent(console):
    with Progress(100, console=console, enabled=False) as progress:
        progress.update(50, RECORD)
        progress.print("text")
    assert console.file.getvalue() == ""


def test_user_errors():
    with pytest.raises(ValueError, match="total is 0; it must be positive"):
        Progress(0)
    with pytest.raises(ValueError, match="unit is 'bars'"):
        Progress(1, "bars")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (7.4, "7"), (950, "950"), (999.6, "1.0k"), (1234, "1.2k"), (99_940, "99.9k"), (99_960, "100k")),
        *(
            (118_234, "118k"),
            (999_400, "999k"),
            (999_600, "1.0M"),
            (12.34e9, "12.3B"),
            (5e15, "5000T"),
            (math.nan, "-"),
        ),
    ],
)
def test_counts(number, text):
    assert loggers._count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (32.9, "0:32"), (725, "12:05"), (3723, "1:02:03"), (172_799, "47:59:59"), (273_600, "3d 04h")],
)
def test_durations(seconds, text):
    assert loggers._duration(seconds) == text
