"""The benchmarks run with --quick and write sound tables, so that none rots. No figure here means anything."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrader.envs.observation import Observation

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
# Script, the files that it writes with the number of rows in each, and a column of numbers above 0, where there is one.
CASES = [
    ("env_steps", {"env_steps_quick": 2}, "steps/s"),
    (
        "ppo_steps",
        {
            "ppo_steps_quick": 1,
            "ppo_steps_scaling_quick": 1,
            "ppo_steps_dense_quick": 2,
            "ppo_steps_memory_quick": 2,
            "ppo_steps_peers_quick": 1,
        },
        "steps/s",
    ),
    ("backtest_speed", {"backtest_speed_quick": 6}, "bars/s"),
    ("hardware_limits", {"hardware_limits_quick": 3}, "ms"),
    ("live_bars", {"live_bars_quick": 3}, "median ms"),
    ("stages", {"stages_quick": 1}, "gradients, %"),
    ("drift", {"drift_quick": 2}, "assets"),
    ("rules_cost", {"rules_cost_quick": 2}, "everything / plain"),
    ("parity", {"parity_quick": 4, "parity_interest_quick": 2}, "float32"),
    ("startup", {"startup_quick": 7}, "median s"),
    ("gymnax_control", {"gymnax_control_quick": 1}, "median return"),
    (
        "known_optimum",
        {
            f"known_optimum_{table}_quick": 1
            for table in ("timed", "by_seconds", "by_steps", "other", "memory", "agents", "windows")
        },
        None,
    ),
    ("accelerator", {"accelerator_quick": 13}, None),
    ("ablations", {"ablations_quick": 1}, None),
    ("finrl", {"finrl_quick": 2}, None),
    ("defaults", {"defaults_quick": 1}, None),
    ("checks", {"checks_quick": 10}, "seconds"),
    ("faults", {"faults_quick": 4}, "tries"),
    ("intervals", {"intervals_quick": 3, "verdicts_quick": 4}, None),
    ("kills", {"kills_quick": 2}, "same bits"),
    ("damage", {"damage_quick": 20}, "refused by name"),
    ("endurance", {"endurance_quick": 4, "endurance_growing_quick": 4}, "open files"),
]


PARTS_OF_ACCELERATOR = {"limits", "exact", "speed", "launches", "seeds"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Where the scripts write. Their modules are loaded anew, since one of them reads the place at import."""
    monkeypatch.setenv("BENCHMARK_RESULTS", str(tmp_path))
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "machine", raising=False)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("script", "tables", "column"), [pytest.param(*case, id=case[0]) for case in CASES])
def test_a_quick_run_writes_its_table(results, monkeypatch, script, tables, column):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--quick"])
    runpy.run_path(str(SCRIPTS / f"{script}.py"), run_name="__main__")
    written = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    assert {name: len(data["rows"]) for name, data in written.items()} == tables
    for data in written.values():
        assert {"date", "cpu", "cores", "jax", "jaxtrader"} <= data["machine"].keys()
        assert data["facts"]["work"]
        assert all(row[column] > 0 for row in data["rows"] if column in row)
    if script == "faults":
        assert not written["faults_quick"]["facts"]["faults"]
    if script == "accelerator":
        assert "NOT EXACT" not in written["accelerator_quick"]["facts"]
        assert {row["part"] for row in written["accelerator_quick"]["rows"]} == PARTS_OF_ACCELERATOR
    if script == "drift":  # README: 1e-6 within 1,000 bars, a float32 that lost more than roundings is far off
        assert all(float(row["up to 1,000 bars"]) < 1e-4 for row in written["drift_quick"]["rows"])


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["tcn", "attention"])
def test_stored_windows_are_the_same_work_as_paths(results, env, params, with_encoder, encoder):
    """What `ppo_steps.py --parts dense` compares has the same loss and gradient: the same network on the same bars."""
    from workload import WindowAgent

    agent, state = with_encoder(encoder=encoder)
    stored = WindowAgent(**{field.name: getattr(agent, field.name) for field in dataclasses.fields(agent)})
    paths, length, rng = 4, 8, np.random.default_rng(0)
    cursor = jnp.asarray([10, 40, 77, 120], jnp.int32)
    shape = (paths, length, 1)
    account = jnp.asarray(rng.normal(0, 0.3, (*shape, 1, len(env.account_names))), jnp.float32)
    batch = {
        "action": jnp.asarray(rng.integers(0, env.num_actions, shape), jnp.int32),
        **{name: jnp.asarray(rng.normal(-1, 0.3, shape), jnp.float32) for name in ("log_prob", "advantage", "target")},
        "cursor": cursor,
        "account": account,
        "observations": None,
    }
    rows = np.asarray(cursor)[:, None, None] + np.arange(length)[:, None] + np.arange(1 - env.window, 1)
    seen = Observation(params.arrays.features[rows], account[:, :, 0])
    one, other = (
        jax.jit(jax.value_and_grad(kind._loss, has_aux=True))(state.params, state, given, params)
        for kind, given in ((agent, batch), (stored, {**batch, "observations": seen}))
    )
    # float32, and sums in another order.
    np.testing.assert_allclose(one[0][0], other[0][0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one[1], other[1])
    assert float(jnp.abs(one[1]["trunk"]["embed"]["kernel"]).max()) > 1e-3


def test_a_device_that_is_not_there_is_refused_in_one_sentence(results, monkeypatch, capsys):
    before = jax.config.jax_platforms

    def none(*_):
        raise RuntimeError("Unable to initialize backend 'tpu'")

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # and as it was afterwards
    monkeypatch.setattr(sys, "argv", ["hardware_limits.py", "--quick", "--device", "tpu"])
    monkeypatch.setattr(jax, "devices", none)
    try:
        with pytest.raises(SystemExit):
            runpy.run_path(str(SCRIPTS / "hardware_limits.py"), run_name="__main__")
    finally:
        jax.config.update("jax_platforms", before)
    assert "--device tpu: JAX finds none here" in capsys.readouterr().err
    assert not list(results.iterdir())


PROGRAM = """HloModule jit_f

%inner (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[], f32[2]) parameter(0)
  %copy.1 = f32[2]{0} copy(%p)
  ROOT %t = (s32[], f32[2]) tuple(%copy.1)
}

%outer (q: (s32[], f32[2])) -> (s32[], f32[2]) {
  %q = (s32[], f32[2]) parameter(0)
  %fused = f32[2]{0} fusion(%q), kind=kLoop, calls=%inner
  %ynn_fusion.2 = f32[2]{0} fusion(%fused), kind=kCustom, calls=%inner
  %gemm = f32[2]{0} custom-call(%fused), custom_call_target="__cublas$gemm"
  ROOT %while.1 = (s32[], f32[2]) while(%q), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2] parameter(0)
  %called = f32[2]{0} call(%a), to_apply=%inner
  ROOT %while.2 = (s32[], f32[2]) while(%a), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"7"}}
}
"""


def test_launches_of_a_program_count_each_loop_as_often_as_it_runs(results):
    from hlo import Program

    program = Program(PROGRAM)
    assert program.loop(7) == {"fusions": 1, "products": 2, "copies": 5}
    assert program.launches() == {"fusions": 7, "products": 14, "copies": 36}
    with pytest.raises(ValueError, match="runs 6 times"):
        program.loop(6)


def test_a_part_that_may_not_end_in_time_is_skipped_with_a_line(results):
    from accelerator import Run, seeds

    run = Run("short", budget=10, quick=True)
    seeds(run)
    (row,) = json.loads((results / "short.json").read_text())["rows"]
    assert (row["part"], row["figure"]) == ("seeds", "skipped")


def test_every_script_is_run_here():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts == {"hlo", "machine", "races", "workload", *(case[0] for case in CASES)}
