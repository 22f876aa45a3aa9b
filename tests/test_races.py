"""The clock of a race to a known optimum: when it is over, and what its time is. No training here: scores are given."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def races(monkeypatch) -> Any:
    """benchmarks/races.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return importlib.import_module("races")


class Scripted:
    """A learner whose scores are known, that takes 0.125 s an update and has so many."""

    compile_seconds = 0.0

    def __init__(self, shares: list[float], updates: int) -> None:
        self.shares, self.left, self.steps, self.scored = shares, updates, 0, 0

    def train(self, updates: int) -> float:
        self.left -= updates
        self.steps += 100 * updates
        return 0.125 * updates

    def score(self) -> tuple[float, float]:
        self.scored += 1
        return self.shares[self.scored - 1], 1.0


@pytest.mark.parametrize(
    ("shares", "updates", "limit", "seconds", "steps"),
    [
        ([0.5, 0.99, 0.98, 0.99, 0.995, 0.99], 10**6, 30.0, 1.0, 800),
        ([0.5, 0.6, 0.7, 0.8], 10**6, 1.0, math.inf, 0),  # the limit
        ([0.5, 0.991, 0.992, 0.993], 8, 30.0, 0.5, 400),  # won at the schedule's last score
        ([0.5, 0.98, 0.992, 0.993], 8, 30.0, 0.75, 600),  # over: the last score stays, and is the third
        ([0.5, 0.98, 0.98, 0.993], 8, 30.0, 1.0, 800),
        ([0.5, 0.999, 0.999, 0.98], 8, 30.0, math.inf, 0),
    ],
)
def test_a_race_is_won_at_the_first_of_three_scores_in_a_row(races, shares, updates, limit, seconds, steps):
    learner = Scripted(shares, updates)
    race = races.race_ours(learner, limit)
    assert learner.scored == len(shares)
    assert race.time == seconds
    assert race.won == math.isfinite(seconds)
    if race.won:
        assert race.steps[-3] == steps


def test_a_curve_stays_where_the_race_ended(races):
    race = races.race_ours(Scripted([0.5, 0.6, 0.7, 0.8], 10**6), 1.0)
    assert math.isnan(race.share_after(0.2, "seconds"))
    assert race.share_after(0.5, "seconds") == race.share_after(400, "steps") == 0.6
    assert race.share_after(30, "seconds") == race.share_after(10**9, "steps") == 0.8
