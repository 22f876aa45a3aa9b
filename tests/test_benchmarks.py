"""Every benchmark runs with --quick and writes a sound table, so that none rots. No figure here means anything."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
# Script, further arguments, the files that it writes with the number of rows in each, and the column of speeds.
CASES = [
    ("env_steps", [], {"env_steps_quick": 4}, "steps/s"),
    ("ppo_steps", [], {"ppo_steps_quick": 1}, "steps/s"),
    ("backtest", [], {"backtest_quick": 3}, "bars/s"),
    ("memory", [], {"memory_quick": 2}, "stored, B"),
    ("limits", [], {"limits_quick": 3}, "ms"),
    ("scaling", [], {"scaling_quick": 1}, "steps/s"),
    ("gymnax_control", ["CartPole-v1"], {"gymnax_control_quick": 1}, "steps"),
    ("known_optimum", ["--parts", "idle"], {"known_optimum_idle_quick": 1}, "seconds"),
]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Where the scripts write; their modules are loaded anew, since one of them reads the place at import."""
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "machine", raising=False)
    return tmp_path


@pytest.mark.parametrize(("script", "arguments", "tables", "speed"), CASES, ids=[case[0] for case in CASES])
def test_a_quick_run_writes_its_table(results, monkeypatch, script, arguments, tables, speed):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--quick", *arguments])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    written = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    assert {name: len(data["rows"]) for name, data in written.items()} == tables
    for data in written.values():
        assert {"date", "cpu", "cores", "jax", "jaxtrader"} <= data["machine"].keys()
        assert data["facts"]["work"]
        assert all(row[speed] > 0 for row in data["rows"])


def test_every_script_is_run_here():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts - {case[0] for case in CASES} == {"machine", "workload", "startup"}  # startup: 20 s of processes
