"""The benchmarks run with --quick and write sound tables, so that none rots. No figure here means anything."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import jax
import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
# Script, the files that it writes with the number of rows in each, and a column of numbers above 0, if it has one.
CASES = [
    ("env_steps", {"env_steps_quick": 2}, "steps/s"),
    ("ppo_steps", {"ppo_steps_quick": 1, "ppo_steps_dense_quick": 2}, "steps/s"),
    ("backtest", {"backtest_quick": 4}, "bars/s"),
    ("memory", {"memory_quick": 2}, "stored, B"),
    ("limits", {"limits_quick": 3}, "ms"),
    ("scaling", {"scaling_quick": 1}, "steps/s"),
    ("drift", {"drift_quick": 2}, "assets"),
    ("rules", {"rules_quick": 2}, "everything / plain"),
    ("parity", {"parity_quick": 4}, "float32"),
    ("startup", {"startup_quick": 6}, "median s"),
    ("gymnax_control", {"gymnax_control_quick": 1}, "median return"),
    (
        "known_optimum",
        {f"known_optimum_{table}_quick": 1 for table in ("timed", "by_seconds", "by_steps", "other")},
        None,
    ),
    ("ablations", {"ablations_quick": 1}, None),
    ("money", {"money_quick": 2}, "ours"),
    ("checks", {"checks_quick": 9}, "seconds"),
]


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
        assert all(row[column] > 0 for row in data["rows"] if column)


def test_a_device_that_is_not_there_is_refused_in_one_sentence(results, monkeypatch, capsys):
    before = jax.config.jax_platforms

    def none(*_):
        raise RuntimeError("Unable to initialize backend 'tpu'")

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # and as it was afterwards
    monkeypatch.setattr(sys, "argv", ["limits.py", "--quick", "--device", "tpu"])
    monkeypatch.setattr(jax, "devices", none)
    try:
        with pytest.raises(SystemExit):
            runpy.run_path(str(SCRIPTS / "limits.py"), run_name="__main__")
    finally:
        jax.config.update("jax_platforms", before)
    assert "--device tpu: JAX finds none here" in capsys.readouterr().err
    assert not list(results.iterdir())


def test_every_script_is_run_here():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts == {"machine", "races", "workload", *(case[0] for case in CASES)}
