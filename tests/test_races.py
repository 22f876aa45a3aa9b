"""The clock of a race to a known optimum: when it is over, and what its time is. No training here: scores are given.

Nor a peer: what stands for its Python follows a script, by the same lines and files as `peers/sb3_market.py`.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from turns import in_turn, ratio

from jaxtrader.evaluation.optimum import SEGMENT_BARS, solve
from jaxtrader.market.synthetic import AR1


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


@pytest.mark.parametrize(
    ("times", "most"),
    [
        ({1: 1.0, 2: 1.05, 4: 1.1, 8: 1.2, 16: 0.9}, 4),  # beyond the first that takes too long, none counts
        ({1: 1.0, 2: 1.2, 4: 1.0}, 1),
        ({1: 1.0, 2: 0.8, 4: math.inf}, 2),
        ({1: math.inf, 2: math.inf}, 1),
    ],
)
def test_how_many_agents_may_share_a_path_by_hand(races, times, most):
    assert importlib.import_module("known_optimum").most_within(times) == most


def test_runners_take_turns_and_a_ratio_is_the_median_of_neighbours():
    calls = []
    runners = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    assert in_turn(runners, 3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert calls == list("ababab")
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0  # of 2, 3 and 1, the medians' would be 4 / 3


PEER = """#!{python}
import json, sys
import numpy as np

_, script, market, config, folder = sys.argv
assert script.endswith("sb3_market.py")
settings, told = json.load(open(config)), []
inputs = np.load(market)["features"].shape[1] + settings["account"]
for i, (seconds, steps, favourite, over) in enumerate(settings["script"]):
    path = f"{{folder}}_{{i}}.npz"
    np.savez(path, kernel_0=np.zeros((inputs, 3), "f4"), bias_0=np.eye(3, dtype="f4")[favourite])
    print(json.dumps(dict(seconds=seconds, steps=steps, over=over, file=path)), flush=True)
    told.append(sys.stdin.readline().strip())
    if told[-1] == "stop":
        break
json.dump(dict(settings, told=told), open(settings["kept"], "w"))
"""
FLAT, LONG = 1, 2


@pytest.mark.slow
def test_a_peer_is_scored_by_what_it_writes_and_told_when_it_is_over(races, tmp_path):
    case = races.Case("", AR1(volatility=0.02, r2=0.05, persistence=0.8), (-1.0, 0.0, 1.0))
    env = case.environment(500, seed=3)
    best = solve(case.process, case.environment(500), bars=20_000)
    peer = tmp_path / "python"
    peer.write_text(PEER.format(python=sys.executable))
    peer.chmod(0o755)

    def raced(script: list[tuple]) -> tuple[Any, dict[str, Any]]:
        settings = {"account": len(env.account_names), "script": script, "kept": str(tmp_path / "kept.json")}
        race = races.race_peer(str(peer), settings, env, best, 7, 1.0)
        return race, json.loads((tmp_path / "kept.json").read_text())

    race, kept = raced([(0.3, 100, FLAT, False), (0.6, 200, LONG, False), (1.2, 300, FLAT, False), (2, 400, 0, False)])
    assert kept["told"] == ["go", "go", "stop"]  # the limit of a second
    assert (race.seconds, race.steps) == ([0.3, 0.6, 1.2], [100, 200, 300])
    assert race.time == math.inf
    # Always long, on all stretches of the path: what the signal lets expect, less the cost of one entry a stretch.
    rows = np.asarray(best.path.starts)[:, None] + np.arange(SEGMENT_BARS)
    held = (np.log1p(np.float64(best.path.returns[rows])) @ np.float64(best.path.weights)).mean()
    held += np.log(1 - 5e-4) / SEGMENT_BARS
    # What the sample of the path leaves of the expectation.
    assert race.shares == pytest.approx([0, held / best.reward_per_bar, 0], abs=1e-3)
    told = {"positions": [-1, 0, 1], "fee": 1e-4, "slippage": 4e-4, "rebalance_band": 0.0, "seed": 7}
    assert told.items() <= kept.items()

    race, kept = raced([(0.3, 100, FLAT, False), (0.6, 200, FLAT, True)])  # its schedule is over before the limit
    assert kept["told"] == ["go", "go"]
    assert race.shares == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert race.seconds == [0.3, 0.6, 0.6, 0.6]
