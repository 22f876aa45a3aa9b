"""Where a training run is written down and shown: a JSON line per record in a file, and a live display in the terminal.

Host side only: a record is a flat dict of scalars that have already left the device. Not for checkpoints (files.py),
and not for deciding what to log: the Trainer does that.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jaxtrader.files import FileError

__all__ = ["JsonlLogger", "Progress"]


class JsonlLogger:
    """Appends records to a file, one JSON object a line, each on its way to the disk before `write` returns.

    NaN and infinities become null, as JSON has no word for them. Use it as a context manager, or call `close`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            cut_off = _ends_inside_a_line(self.path)
            self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed in `close`
        except OSError as error:
            raise FileError(
                f"cannot write metrics to {str(path)!r}: {error.strerror or error}; choose another place"
            ) from error
        if cut_off:  # by a crash: without this, the first new record would be lost with the half one
            self._file.write("\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record: numbers (Python, NumPy or JAX), strings, None, or lists, dicts and arrays of them.

        Raises:
            ValueError: a value is something else (the error names its key), or the logger is closed.
        """
        if self._file.closed:
            raise ValueError(f"the log {str(self.path)!r} is closed; write before close()")
        plain = {key: _plain(value, key) for key, value in record.items()}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._file.close()

    def __enter__(self) -> JsonlLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ends_inside_a_line(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _plain(value: Any, name: str) -> Any:
    """`value` in the types that JSON knows."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(child, f"{name}.{key}") for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child, f"{name}[{i}]") for i, child in enumerate(value)]
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        array = np.asarray(value)
        # bfloat16 and its kin are of kind V to NumPy; complex, object and the like are not for a log.
        if array.dtype.kind not in "biu":
            array = array.astype(np.float64) if array.dtype.kind in "fV" and array.dtype.names is None else None
        if array is not None:
            return _plain(array.tolist(), name)
    raise ValueError(f"{name} is a {type(value).__name__}, which a log line does not hold; pass a number or a string")


# What the display shows of a record, by rows: the key and its label. What a record lacks is left out, and so is the
# unit of the bar; a share that does not exist is too.
_ROWS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("episode_return", "return"), ("reward_per_bar", "reward/bar"), ("exposure", "exposure"), ("entropy", "entropy")),
    (("policy_loss", "policy loss"), ("value_loss", "value loss"), ("approx_kl", "KL"), ("updates", "updates")),
    (
        ("valid_reward_per_bar", "valid/bar"),
        ("valid_best", "best"),
        ("steps", "steps"),
        ("episodes", "episodes"),
        ("seconds", "elapsed"),
    ),
    (("optimum_share", "of optimum"), ("valid_held", "in position")),
)
_LASTING = ("valid_reward_per_bar", "valid_best", "optimum_share", "valid_held")  # shown until the next validation
_SHARES = ("optimum_share", "valid_held")
_COUNTS = ("updates", "steps", "episodes")
_VALUE = 8  # characters of a figure at most, as in -1.2e-05: with its labels, a row is 78 wide


@dataclass(frozen=True)
class _Snapshot:
    """What was last reported; replaced as a whole, since the display reads it from its own thread."""

    done: int
    record: dict[str, float]
    left: float | None


class Progress:
    """Live display of a training run: a bar, the speed, the time left, and the figures of the last record.

    On a terminal it redraws itself in place and is restored on the way out, exceptions included. Elsewhere (a pipe, a
    file, a notebook, a dumb terminal) it writes one plain line at the first update, then at most one every
    `PLAIN_SECONDS`, and the last, without any control code.
    """

    PLAIN_SECONDS = 5.0

    def __init__(
        self,
        total: int | None,
        unit: str = "steps",
        console: Console | None = None,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Make a display of `total` units of work (None: unknown).

        Args:
            total: how many `unit`s the run has.
            unit: what `update` counts, "steps" or "episodes".
            console: where to show it; standard output by default.
            enabled: False shows nothing at all, what `print` is given included.
            clock: seconds, for the time left.
        """
        if total is not None and total <= 0:
            raise ValueError(f"total is {total}; it must be positive, or None if it is not known")
        if unit not in ("steps", "episodes"):
            raise ValueError(f'unit is {unit!r}; it must be "steps" or "episodes"')
        self.total, self.unit, self.enabled, self._clock = total, unit, enabled, clock
        self._console = console or _standard_console()
        self._snapshot: _Snapshot | None = None
        self._first: tuple[float, int] | None = None  # when the first update came, and what was done by then
        self._shown: _Snapshot | None = None
        self._shown_at = -math.inf
        live = enabled and self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4) if live else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif self._snapshot is not self._shown:
            self._print_line()

    def update(self, done: int, record: Mapping[str, Any]) -> None:
        """Show that `done` units are done in all, and the figures of `record`, of which any may be missing."""
        now = self._clock()
        self._first = self._first or (now, done)
        before = self._snapshot.record if self._snapshot else {}
        numbers = {key: before[key] for key in _LASTING if key in before}
        numbers |= {key: number for key, value in record.items() if (number := _number(value)) is not None}
        self._snapshot = _Snapshot(done, numbers, self._time_left(now, done))
        finished = self.total is not None and done >= self.total
        if not self._live and (finished or now - self._shown_at >= self.PLAIN_SECONDS):
            self._print_line()
            self._shown_at = now

    def print(self, text: str) -> None:
        """Write a line of text above the bar."""
        if self.enabled:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _time_left(self, now: float, done: int) -> float | None:
        # Counted from the first update, which has the compilation and, after a resume, the earlier work behind it.
        began, done_before = self._first or (now, done)
        if self.total is None or now <= began or done <= done_before:
            return None
        return max(0, self.total - done) * (now - began) / (done - done_before)

    def _print_line(self) -> None:
        self._shown = self._snapshot
        if self.enabled and self._snapshot:
            self._console.print(
                _line(self._snapshot, self.total, self.unit), markup=False, highlight=False, soft_wrap=True
            )

    def _render(self) -> Group | Text:
        if self._snapshot is None:
            return Text("starting: compiling the training step, the first time takes a while", style="dim")
        head = _head(self._snapshot, self.total, self.unit, self._console.width)
        return Group(head, _table(self._snapshot, self.unit, self._console.width))


def _standard_console() -> Console:
    # Rich takes FORCE_COLOR for a terminal, also where the output goes to a file: there we want no control codes.
    is_terminal = bool(sys.stdout and sys.stdout.isatty())
    return Console(force_terminal=None if is_terminal else False)


def _head(shot: _Snapshot, total: int | None, unit: str, width: int) -> Table:
    """The line with the bar, in one row of `width` columns."""
    head = Table.grid(padding=(0, 2, 0, 0), expand=total is not None)
    cells: list[Any] = []
    if total is not None:
        head.add_column(justify="right", no_wrap=True)
        head.add_column(ratio=1)
        bar = ProgressBar(total, min(shot.done, total), complete_style="cyan", finished_style="green")
        cells += [Text(_percent(shot.done, total), style="bold"), bar]
    texts = [text for text in (_amount(shot, total, unit), _speed(shot), _left(shot)) if text]
    if width < 60:  # a bar of no length says nothing, the time left does
        texts = texts[:1] + texts[2:]
    for text in texts:
        head.add_column(justify="right", no_wrap=True)
        cells.append(Text(text))
    head.add_row(*cells)
    return head


def _table(shot: _Snapshot, unit: str, width: int) -> Table:
    """The figures in pairs of label and value, at places that do not move while the values change."""
    rows = [cells for row in _ROWS if (cells := _cells(shot, unit, row))]
    columns = 4 if width >= 78 else 3 if width >= 62 else 2 if width >= 41 else 1
    if columns < 4:
        cells = [cell for row in rows for cell in row]
        rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    table = Table.grid()
    for _ in range(columns):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", min_width=_VALUE + 1, no_wrap=True)
        table.add_column(min_width=2)
    for row in rows:
        table.add_row(*(part for label, value, style in row for part in (label, Text(value, style), "")))
    return table


def _line(shot: _Snapshot, total: int | None, unit: str) -> str:
    """All of it in one plain line."""
    parts = [f"{_percent(shot.done, total):>5}" if total is not None else "", _amount(shot, None, unit), _speed(shot)]
    parts += [f"{label} {value}" for row in _ROWS for label, value, _ in _cells(shot, unit, row)]
    return "  ".join(part for part in [*parts, _left(shot)] if part)


def _cells(shot: _Snapshot, unit: str, row: tuple[tuple[str, str], ...]) -> list[tuple[str, str, str]]:
    """(label, value, style) of each figure of one row that the record has."""
    cells = []
    for key, label in row:
        value = shot.record.get(key)
        if value is None or key == unit or (key in _SHARES and math.isnan(value)):
            continue
        best = key == "valid_reward_per_bar" and value >= shot.record.get("valid_best", math.inf)
        cells.append((label, _figure(key, value), "bold green" if best else "bold"))
    return cells


def _figure(key: str, value: float) -> str:
    if key == "seconds":
        return _duration(value)
    if key in _COUNTS:
        return _count(value)
    if key in _SHARES:
        return f"{value:.1%}"
    if not math.isfinite(value):  # a return before the first episode has ended, say
        return "-"
    text = f"{value:.3g}"
    return text if len(text) <= _VALUE else f"{value:.1e}"


def _number(value: Any) -> float | None:
    """A number as a float, anything else as None: a display never stops a training."""
    try:
        return None if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _percent(done: int, total: int) -> str:
    return f"{min(100, 100 * done // total)}%"  # rounded down: 100% means done


def _amount(shot: _Snapshot, total: int | None, unit: str) -> str:
    return f"{_count(shot.done)} {unit}" if total is None else f"{_count(shot.done)}/{_count(total)} {unit}"


def _speed(shot: _Snapshot) -> str:
    speed = shot.record.get("steps_per_second")
    return "" if speed is None else f"{_count(speed)} steps/s"


def _left(shot: _Snapshot) -> str:
    return "" if shot.left is None else f"left {_duration(shot.left)}"


def _count(number: float) -> str:
    """A count in three digits or so: 950, 1.2k, 118k, 1.2M, 12.3B."""
    if not math.isfinite(number):
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.0f}{letter}" if abs(scaled) >= 99.95 else f"{scaled:.1f}{letter}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    """0:32, 12:05, 1:02:03, 3d 04h."""
    if not math.isfinite(seconds):
        return "-"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02d}h"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
