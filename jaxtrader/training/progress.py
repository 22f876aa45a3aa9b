"""The display of a training run: a live bar with the last figures on a terminal, plain lines elsewhere.

It shows records and decides nothing. The Trainer makes the records, and `metrics_log.py` writes them to a file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

import rich.progress
from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from jaxtrader import terminal
from jaxtrader.training.metrics_log import COUNTS

# The figures that are shown, in this order, and their labels. A figure that a record lacks is left out.
FIGURES = {
    "episode_return": "return",
    "reward_per_bar": "reward/bar",
    "exposure": "exposure",
    "entropy": "entropy",
    "policy_loss": "policy loss",
    "value_loss": "value loss",
    "approx_kl": "KL",
    "updates": "updates",
    "optimum_share": "of optimum",
    "valid_time_in_market": "in market",
    "valid_reward_per_bar": "valid/bar",
    "valid_best": "best",
    "steps": "steps",
    "episodes": "episodes",
}
SUMS = (*COUNTS, "steps_per_second")  # figures that are shown for all seeds together
PERCENTAGES = ("optimum_share", "valid_time_in_market")
VALIDATION = ("valid_reward_per_bar", "valid_best", *PERCENTAGES)  # shown until the next validation
FIGURE_WIDTH = 8  # characters, as in -1.2e-05


class Progress:
    """Shows the progress of a training run: a bar, the speed, the time left and the last figures.

    On a terminal the display redraws itself in place and restores the terminal at its end, also after an exception.
    Elsewhere (a pipe, a file, a notebook, a dumb terminal) it writes plain lines without control codes. There is one at
    the first update, then at most one every `PLAIN_SECONDS`, and one for the last update.
    """

    PLAIN_SECONDS = 5.0

    def __init__(
        self,
        total: int,
        unit: Literal["steps", "episodes"] = "steps",
        console: Console | None = None,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Make a display.

        Args:
            total: number of steps or episodes of the run.
            unit: what `total` and `update` count.
            console: where to show it. The default is standard output.
            enabled: False shows nothing, and `print` prints nothing.
            clock: returns the time in seconds.
        """
        if total < 1:
            raise ValueError(f"total is {total}; it must be at least 1")
        self.unit, self.enabled, self._clock = unit, enabled, clock
        self._console = console or terminal.console()
        self._display = _Display(self._console, clock)
        self._task = self._display.add_task("", total=total, unit=unit, steps_per_second=None)
        self._live = enabled and self._console.is_terminal and not self._console.is_dumb_terminal
        self._printed_at = -math.inf
        self._line_is_due = False

    def __enter__(self) -> Progress:
        if self._live:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Show the last figures and restore the terminal."""
        if self._live:
            self._display.stop()
        elif self._line_is_due:
            self._print_line()

    def update(self, done: int, record: Mapping[str, Any]) -> None:
        """Show a record.

        Args:
            done: number of steps or episodes that are finished in all.
            record: the figures. Any of them may be missing or not a number.
        """
        numbers = {key: number for key, value in record.items() if (number := _number(value)) is not None}
        before = self._display.record or {}
        record = {key: before[key] for key in VALIDATION if key in before} | numbers
        self._display.record = {key: value for key, value in record.items() if key != self.unit}
        self._display.update(self._task, completed=done, steps_per_second=numbers.get("steps_per_second"))
        if self._live:
            return
        self._line_is_due = True
        now = self._clock()
        if self._display.tasks[0].finished or now - self._printed_at >= self.PLAIN_SECONDS:
            self._print_line()
            self._printed_at = now

    def wait(self, what: str) -> None:
        """Show what a user waits for before the first record. On a terminal the seconds are counted."""
        self._display.waiting = (what, self._clock())
        if not self._live:
            self.print(f"{what} ...")

    def print(self, text: str) -> None:
        """Write a line of text above the bar."""
        if self.enabled:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print_line(self) -> None:
        self._line_is_due = False
        self.print(_line(self._display.tasks[0], self._display.record or {}))


class MemberProgress:
    """The display of one of several trainings side by side, with the methods of `Progress`. All share one display.

    It shows what all have done, and the means of their figures.

    Args:
        progress: The shared display.
        seed: The seed of this training.
        said: The texts that were shown. All trainings share it.
        latest: The last count and record of each seed. All trainings share it.
    """

    def __init__(
        self, progress: Progress, seed: int, said: set[str], latest: dict[int, tuple[int, Mapping[str, Any]]]
    ) -> None:
        self._progress, self._seed, self._said, self._latest = progress, seed, said, latest

    def wait(self, what: str) -> None:
        """Show what a user waits for before the first record, once for all trainings."""
        self._once(what, self._progress.wait)

    def print(self, text: str) -> None:
        """Write a text once for all trainings. A text that names an update belongs to this training alone."""
        self._once(f"seed {self._seed}: {text}" if "update" in text else text, self._progress.print)

    def _once(self, text: str, show: Callable[[str], None]) -> None:
        if text not in self._said:
            self._said.add(text)
            show(text)

    def update(self, done: int, record: Mapping[str, Any]) -> None:
        """Show the figures of all trainings together after a record of this one."""
        self._latest[self._seed] = (done, record)
        records = [each for _, each in self._latest.values()]
        shown: dict[str, Any] = {}
        for name in record:
            known = [each[name] for each in records if isinstance(each.get(name), int | float)]
            if known:
                shown[name] = sum(known) if name in SUMS else sum(known) / len(known)
        self._progress.update(sum(each for each, _ in self._latest.values()), shown)


def member_progress(progress: Progress, seeds: Iterable[int]) -> list[MemberProgress]:
    """Return a display for each of several trainings, all on the one given."""
    said: set[str] = set()
    latest: dict[int, tuple[int, Mapping[str, Any]]] = {}
    return [MemberProgress(progress, seed, said, latest) for seed in seeds]


class _TextColumn(ProgressColumn):
    """A column whose text is a function of the task."""

    def __init__(self, text: Callable[[Task], str]):
        self.text = text
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(self.text(task))


class _Display(rich.progress.Progress):
    """Rich's progress bar with the figures of the last record below it."""

    def __init__(self, console: Console, clock: Callable[[], float]):
        self.record: dict[str, float] | None = None
        self.clock = clock
        self.waiting = ("compiling the first weights and accounts", clock())  # before the first record, since when
        # Rich estimates the time left from the first update on, so that the compilation before it does not count.
        super().__init__(
            console=console, get_time=clock, speed_estimate_period=math.inf, refresh_per_second=4, expand=True
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.record is None:
            what, since = self.waiting
            yield Text(f"{what} ... {self.clock() - since:.0f} s", style="dim")
            return
        width = self.console.width
        left = ("left", TimeRemainingColumn(compact=True))
        wide = (_TextColumn(_speed), "elapsed", TimeElapsedColumn()) if width >= 72 else ()
        self.columns = (_TextColumn(_percent), BarColumn(None), _TextColumn(_amount), *wide, *left)
        yield self.make_tasks_table(self.tasks)
        yield _table(_figures(self.record), width)


def _table(figures: list[tuple[str, str, str]], width: int) -> Table:
    """Return the figures in rows of four, or of fewer where `width` has no room for four."""
    in_a_row = 4 if width >= 80 else max(1, (width + 2) // 22)
    table = Table.grid()
    for _ in range(in_a_row):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", min_width=FIGURE_WIDTH, no_wrap=True)
        table.add_column(no_wrap=True)  # the gap between two pairs
    for start in range(0, len(figures), in_a_row):
        row = figures[start : start + in_a_row]
        table.add_row(*[cell for label, text, style in row for cell in (f"{label} ", Text(text, style), "  ")][:-1])
    return table


def _line(task: Task, record: Mapping[str, float]) -> str:
    """Return the bar's texts and the figures in one plain line."""
    left = f"left {TimeRemainingColumn(compact=True).render(task)}"
    head = (_percent(task), _amount(task), _speed(task), f"elapsed {TimeElapsedColumn().render(task)}", left)
    return "  ".join([*(text for text in head if text), *(f"{label} {text}" for label, text, _ in _figures(record))])


def _figures(record: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return label, text and style of each figure in the record."""
    figures = []
    for key, label in FIGURES.items():
        value = record.get(key)
        if value is None or (key in PERCENTAGES and math.isnan(value)):
            continue
        is_best = key == "valid_reward_per_bar" and value >= record.get("valid_best", math.inf)
        figures.append((label, _figure(key, value), "bold green" if is_best else "bold"))
    return figures


def _figure(key: str, value: float) -> str:
    if key in COUNTS:
        return _count(value)
    if key in PERCENTAGES:
        return f"{value:.1%}"
    if not math.isfinite(value):  # such as the return before an episode has ended
        return "-"
    text = f"{value:.3g}"
    return text if len(text) <= FIGURE_WIDTH else f"{value:.1e}"


def _number(value: Any) -> float | None:
    """Return a number as a float and None for anything else, so that no value can end a training."""
    try:
        return None if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _percent(task: Task) -> str:
    return f"{math.floor(task.percentage):>3}%"  # rounded down, so that 100% means finished


def _amount(task: Task) -> str:
    return f"{_count(task.completed)}/{_count(task.total or 0)} {task.fields['unit']}"


def _speed(task: Task) -> str:
    speed = task.fields["steps_per_second"]
    return "" if speed is None else f"{_count(speed)} steps/s"


def _count(number: float) -> str:
    """Return a count in about three digits: 950, 1.2k, 118k, 1.2M, 12.3B."""
    if not math.isfinite(number):
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.0f}{letter}" if abs(scaled) >= 99.95 else f"{scaled:.1f}{letter}"
    return f"{number:.0f}"
