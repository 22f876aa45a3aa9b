"""One record a chunk: the figures of the log and the display, on the host."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

MIN_SPEED_SECONDS = 0.5
TIME_FIELDS = ("seconds", "steps_per_second", "compile_seconds")  # two equal runs differ in these alone


class SpeedMeter:
    """Measures steps a second over the last records."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, float]] = deque(maxlen=10)

    def add(self, steps: int, now: float) -> None:
        """Remember how many steps were done at a time in seconds."""
        self._samples.append((steps, now))

    def speed(self, steps: int, now: float) -> float:
        """Return steps a second since the oldest sample.

        NaN where that is less than `MIN_SPEED_SECONDS` ago: two chunks may have been fetched one after the other.
        """
        before, began = self._samples[0] if self._samples else (steps, now)
        return (steps - before) / (now - began) if now - began >= MIN_SPEED_SECONDS else math.nan


class Recorder:
    """Counts what is finished, and makes a record of each chunk's report.

    Args:
        steps_per_update: environment steps of an update.

    Attributes:
        updates, episodes: the numbers of finished updates and episodes.
        compile_seconds: the seconds that the first dispatch took, for the first record.
    """

    def __init__(self, steps_per_update: int):
        self.compile_seconds: float | None = None
        self._steps_per_update = steps_per_update
        self.go_on_from(0, 0, 0.0)

    def go_on_from(self, updates: int, episodes: int, seconds: float) -> None:
        """Continue the counts from these numbers, such as where a training is resumed."""
        self.updates, self.episodes = updates, episodes
        self._began = time.perf_counter() - seconds
        self._meter = SpeedMeter()

    @property
    def steps(self) -> int:
        """Finished environment steps."""
        return self.updates * self._steps_per_update

    @property
    def seconds(self) -> float:
        """Seconds of training with compilation and validation. Of a resumed run it includes the time before."""
        return time.perf_counter() - self._began

    def record(self, report: dict[str, Any]) -> dict[str, Any] | None:
        """Return the record of a chunk: counts, speed, and means over the chunk's updates. None without an update."""
        is_first, done = self.updates == 0, int(report["updates"]) - self.updates
        self.updates, self.episodes = int(report["updates"]), int(report["episodes"])
        if not done:
            return None
        now = time.perf_counter()
        sums = {name: float(x) for name, x in report["sums"].items()}
        episodes, returns = sums.pop("episodes"), sums.pop("episode_returns")
        record: dict[str, Any] = {
            "updates": self.updates,
            "steps": self.steps,
            "episodes": self.episodes,
            "seconds": now - self._began,
            "steps_per_second": self._meter.speed(self.steps, now),
            "episode_return": returns / episodes if episodes else math.nan,
        }
        if is_first:  # compilation took most of the first chunk's time, so the speed is not measured from it
            record["compile_seconds"] = self.compile_seconds
        else:
            self._meter.add(self.steps, now)
        return {**record, **{name: x / done for name, x in sums.items()}}
