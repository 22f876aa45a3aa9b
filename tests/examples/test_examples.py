"""The examples run in their small form, each in an empty folder, and print what they promise.

What they share (the environment, the network, the size) compiles once.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import runpy
import sys
from pathlib import Path

import pytest

import jaxtrader as jt
import jaxtrader.examples

# What each prints, beside its table.
PRINTS = {
    "own_network": ("encoder", "whole", "buy and hold"),
    "own_agent": ("share of the optimum: ", "push "),
    "own_data": ("mood", "policy", "buy and hold"),
    "own_reward": ("twice", "streak", "buy and hold"),
    "portfolio": ("equal weights", "mean weights: AAPL "),
    "sweep_settings": ("config-2", "the best: {'gamma': "),
    "walk_forward_folds": ("fold 2", "all"),
}
HELPERS = {"running", "dqn"}
ELSEWHERE = {"stable_baselines3", "live_paper"}  # in tests/bridges and tests/live
ROOT = Path(jaxtrader.examples.__path__[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    importlib.import_module(f"jaxtrader.examples.{name}").main(quick=True)
    printed = capsys.readouterr().out
    for text in PRINTS[name]:
        assert text in printed


def test_every_example_is_tested() -> None:
    there = {module.name for module in pkgutil.iter_modules(jaxtrader.examples.__path__)}
    assert there - HELPERS - ELSEWHERE <= set(PRINTS)
    assert set(PRINTS) <= there


def test_an_example_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(SystemExit, match=r'pip install "jaxtrader\[sb3\]"'):
        importlib.import_module("jaxtrader.examples.stable_baselines3").main(quick=True)


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a notebook runs them, without Jupyter: what ends a cell is shown by its repr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook, space = json.loads((ROOT / "first_steps.ipynb").read_text()), {"__name__": "notebook"}
    assert notebook["nbformat"] == 4
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        code = ast.parse("".join(cell["source"]))
        last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
        exec(compile(code, f"cell {number}", "exec"), space)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), space)
            assert shown is None or repr(shown)
            if shown is not None and hasattr(shown, "_repr_html_"):
                assert "<t" in shown._repr_html_()
    assert "decided" in capsys.readouterr().out


def test_the_names_of_the_table_exist() -> None:
    """What coming_from.md says of ours: public names, arguments of Costs and Rules, settings."""
    text = (ROOT / "coming_from.md").read_text()
    for name in re.findall(r"jt\.([A-Za-z_]+)", text):
        assert name in jt.__all__, name
    for kind in (jt.Costs, jt.Rules):
        known = inspect.signature(kind).parameters
        for given in re.findall(rf"{kind.__name__}\(([^)]*)\)", text):
            for name in re.findall(r"(\w+)=", given):
                assert name in known, f"{kind.__name__}({name}=)"
    settings = {**inspect.signature(jt.Trainer).parameters, **inspect.signature(jt.PPOAgent).parameters}
    for name in ("num_envs", "rollout_length", "num_epochs", "num_minibatches", "clip_range", "gae_lambda", "gamma"):
        assert name in settings
        assert name in text
    for name in (
        "max_grad_norm",
        "entropy_coef",
        "value_coef",
        "hidden",
        "schedule",
        "normalize_observations",
        "valid",
    ):
        assert name in settings
        assert name in text


def test_an_example_has_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["own_data", "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(ROOT / "own_data.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "--quick" in shown
    assert "--data" in shown
