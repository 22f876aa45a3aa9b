"""The benchmarks run with --quick and write sound tables, so that none rots. No figure here means anything."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
# Script, the files that it writes with the number of rows in each, and a column of numbers above 0.
CASES = [
    ("env_steps", {"env_steps_quick": 2}, "steps/s"),
    ("ppo_steps", {"ppo_steps_quick": 1}, "steps/s"),
    ("backtest", {"backtest_quick": 3}, "bars/s"),
    ("memory", {"memory_quick": 2}, "stored, B"),
    ("limits", {"limits_quick": 3}, "ms"),
    ("scaling", {"scaling_quick": 1}, "steps/s"),
    ("parity", {"parity_quick": 4}, "float32"),
    ("money", {"money_quick": 2}, "ours"),
]
# 15 s and more of one core each, even with --quick.
TOO_SLOW = {"startup", "gymnax_control", "known_optimum", "ablations"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Where the scripts write; their modules are loaded anew, since one of them reads the place at import."""
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "machine", raising=False)
    return tmp_path


@pytest.mark.parametrize(("script", "tables", "column"), CASES, ids=[case[0] for case in CASES])
def test_a_quick_run_writes_its_table(results, monkeypatch, script, tables, column):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--quick"])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    written = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    assert {name: len(data["rows"]) for name, data in written.items()} == tables
    for data in written.values():
        assert {"date", "cpu", "cores", "jax", "jaxtrader"} <= data["machine"].keys()
        assert data["facts"]["work"]
        assert all(row[column] > 0 for row in data["rows"])


def test_every_script_is_run_here_or_known_to_be_too_slow():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts == {"machine", "workload", *TOO_SLOW, *(case[0] for case in CASES)}
