"""progress.py: the display shows the same figures on a terminal, in a pipe and after a crash."""

import io
import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxtrader.training import progress
from jaxtrader.training.progress import FIGURES, Progress

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
    """The text without control codes. Each time it was drawn over stands below the time before."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue().replace("\r", "\n"))


def run(console: Console, total: int = 3_000_000, unit="steps", done: int = 1_234_567, record=RECORD) -> None:
    """A run up to `done`: 10 seconds to compile and for the first update, then 23 seconds."""
    clock = Clock()
    with Progress(total, unit, console, clock=clock) as progress:
        clock.now += 10
        progress.update(1000, {})
        clock.now += 23
        progress.update(done, record)


def text_of(progress: Progress) -> str:
    """What stands in place of the bar before the first record."""
    return str(next(iter(progress._display.get_renderables())))


class TestOnATerminal:
    @pytest.mark.parametrize("width", [80, 120])
    def test_everything_is_shown_in_four_lines(self, width):
        console = terminal(width)
        run(console)
        head, *figures = screen(console).rstrip().splitlines()[-4:]
        assert head.startswith(" 41%")
        # 23 s x (3 - 1.234567) / (1.234567 - 0.001) = 32.9
        assert head.endswith("1.2M/3.0M steps 118k steps/s elapsed 0:00:33 left 00:33")
        assert "━━━━━━━" in head
        assert [re.split(r"\s{1,}(?=-?[0-9])|(?<=[0-9kM])\s+", line.strip()) for line in figures] == [
            ["return", "0.0123", "reward/bar", "1.23e-05", "exposure", "-0.351", "entropy", "1.02"],
            ["policy loss", "-2.1e-04", "value loss", "0.0312", "KL", "0.00812", "updates", "1.2k"],
            ["valid/bar", "1.2e-05", "best", "1.4e-05", "episodes", "4.8k"],
        ]

    @pytest.mark.parametrize("width", [20, 30, 41, 50, 62, 77, 78, 80, 100, 120, 200])
    @pytest.mark.parametrize(("total", "unit"), [(3_000_000, "steps"), (10_000, "episodes")])
    def test_no_width_wraps_a_line_and_readable_ones_cut_nothing(self, width, total, unit):
        console = terminal(width)
        wide = dict.fromkeys([*FIGURES, *RECORD], -1.2345e-5) | {"steps_per_second": 118e6, "updates": 123_456}
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

    def test_the_share_of_a_known_optimum_is_shown(self):
        console = terminal(80)
        run(console, record=RECORD | {"optimum_share": 0.98654, "valid_time_in_market": 0.6})
        row = screen(console).rstrip().splitlines()[-2]
        assert row.split()[:6] == ["of", "optimum", "98.7%", "in", "market", "60.0%"]

    def test_episodes_count_the_bar_and_steps_move_below(self):
        console = terminal(80)
        run(console, 10_000, "episodes", done=4823)
        text = screen(console)
        assert "48%" in text
        assert "4.8k/10.0k episodes" in text
        assert re.search(r"steps +1\.2M", text)

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
        clock = Clock()
        with Progress(100, console=console, clock=clock) as progress:
            assert "compiling the first weights" in text_of(progress)
            clock.now += 2
            progress.wait("compiling the training step")
            clock.now += 7
            assert text_of(progress) == "compiling the training step ... 7 s"
        assert "compiling the training step ... 7 s" in screen(console)

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
                progress._display.refresh()
        assert "11%" in screen(console)


class TestInAPipe:
    def test_what_is_awaited_is_a_line(self):
        console = pipe()
        with Progress(100, console=console) as progress:
            progress.wait("compiling the training step")
        assert screen(console) == "compiling the training step ...\n"

    def test_what_is_not_known_yet_is_a_dash(self):
        console = pipe()
        with Progress(100, console=console) as progress:
            progress.update(10, {"steps_per_second": math.nan, "episode_return": math.nan, "reward_per_bar": 0.5})
        assert console.file.getvalue() == (
            " 10%  10/100 steps  - steps/s  elapsed 0:00:00  left --:--  return -  reward/bar 0.5\n"
        )

    def test_one_line_with_everything_and_no_control_code(self):
        console = pipe()
        run(console)
        first, last = console.file.getvalue().splitlines()
        assert first == "  0%  1.0k/3.0M steps  elapsed 0:00:10  left --:--"
        assert last == (
            " 41%  1.2M/3.0M steps  118k steps/s  elapsed 0:00:33  left 00:33  return 0.0123  reward/bar 1.23e-05  "
            "exposure -0.351  entropy 1.02  policy loss -2.1e-04  value loss 0.0312  KL 0.00812  updates 1.2k  "
            "valid/bar 1.2e-05  best 1.4e-05  episodes 4.8k"
        )

    def test_the_share_of_the_optimum_stays_until_the_next_one(self):
        """Most records have none: a policy is scored every now and then. Where flat is best there is no share."""
        console, clock = pipe(), Clock()
        scores = [
            {"optimum_share": 0.5, "valid_time_in_market": 0.9},
            {},
            {"optimum_share": -0.021, "valid_time_in_market": 0.0},
            {},
        ]
        with Progress(1000, console=console, clock=clock) as progress:
            for done, record in enumerate([*scores, {"optimum_share": math.nan, "valid_time_in_market": 1.0}]):
                progress.update(done, record)
                clock.now += 6
        assert [re.split(r"left \S+", line)[1] for line in console.file.getvalue().splitlines()] == [
            "  of optimum 50.0%  in market 90.0%",
            "  of optimum 50.0%  in market 90.0%",
            "  of optimum -2.1%  in market 0.0%",
            "  of optimum -2.1%  in market 0.0%",
            "  in market 100.0%",
        ]

    def test_first_last_and_every_five_seconds(self):
        console, clock = pipe(), Clock()
        with Progress(1000, console=console, clock=clock) as progress:
            for done in range(0, 198):  # ten updates a second
                progress.update(done, {})
                clock.now += 0.1
        shown = [int(re.search(r"(\d+)/1.0k", line)[1]) for line in console.file.getvalue().splitlines()]
        assert shown[0] == 0
        assert shown[-1] == 197
        # Drawn every 5 seconds by a clock of 0.1 s.
        assert np.allclose(np.diff(shown[:-1]), 50, atol=1)
        assert len(shown) == 5

    def test_the_end_is_shown_once(self):
        console, clock = pipe(), Clock()
        with Progress(100, console=console, clock=clock) as progress:
            progress.update(50, {})
            clock.now += 1
            progress.update(130, {})  # a run ends at the first boundary past its total
            first, last = console.file.getvalue().splitlines()
            assert first.startswith(" 50%  50/100 steps")
            assert last == "100%  130/100 steps  elapsed 0:00:01  left 00:00"
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
        first, last = console.file.getvalue().splitlines()
        assert first.startswith("  1%  1/100 steps")
        assert last == "  2%  2/100 steps  elapsed 0:00:01  left 01:38"

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
        assert console.file.getvalue().splitlines()[-1] == " 95%  950/1.0k steps  elapsed 0:00:10  left 00:10"

    @pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}, {"COLUMNS": "40"}])
    def test_a_real_pipe_stays_free_of_control_codes(self, variables):
        code = """
            from jaxtrader.training.progress import Progress
            with Progress(100) as progress:
                progress.update(10, {"entropy": 1.0})
                progress.print("saved")
                progress.update(100, {"entropy": 0.5})
        """
        environment = os.environ | {"PYTHONPATH": str(Path(progress.__file__).parents[2])} | variables
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert b"\x1b" not in done.stdout
        first, saved, last = done.stdout.decode().splitlines()
        assert first == " 10%  10/100 steps  elapsed 0:00:00  left --:--  entropy 1"
        assert saved == "saved"
        assert last == "100%  100/100 steps  elapsed 0:00:00  left 00:00  entropy 0.5"
        assert done.stderr == b""

    def test_a_dumb_terminal_is_no_terminal(self):
        console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "dumb"})
        run(console)
        assert "\x1b" not in console.file.getvalue()
        assert " 41%  1.2M/3.0M steps" in console.file.getvalue()


@pytest.mark.parametrize("console", [terminal(80), pipe()])
def test_disabled_is_silent(console):
    with Progress(100, console=console, enabled=False) as progress:
        progress.update(50, RECORD)
        progress.print("text")
    assert console.file.getvalue() == ""


def test_user_errors():
    with pytest.raises(ValueError, match="total is 0"):
        Progress(0)


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
    assert progress._count(number) == text
