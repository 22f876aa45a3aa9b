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
from unittest.mock import create_autospec

import numpy as np
import pytest
from market.price_tables import frame
from policies import policy_of, with_random_weights

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
    notebook, space, ends = json.loads((ROOT / "first_steps.ipynb").read_text()), {"__name__": "notebook"}, []
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
            ends.append(shown)
    market, trained, result, ratios, printed, ratio = ends
    assert repr(market).startswith("Market(IBM: 3,270 bars, 2000-03-01 to 2013-03-01, 252 periods a year")
    assert repr(trained).startswith("TrainResult(20 updates, ")
    assert re.fullmatch(
        r"BacktestResult\(IBM: 543 bars 2011-01-03\.\.2013-03-01, 1 became .+ in \d+ trades\)", repr(result)
    )
    assert [word in result._repr_html_() for word in ("<img ", "<table", "sharpe")] == [True, True, True]
    assert list(ratios) == ["policy", "buy and hold", "buy and hold at mean exposure"]
    assert (ratios["policy"], ratios["buy and hold"]) == (round(result.metrics["sharpe"], 2), 0.95)
    assert printed is None
    assert re.match(r"decided +IBM, at the close of bar 100, 2011-05-26", capsys.readouterr().out)
    assert len(space["figure"].axes) > 1
    assert ratio == pytest.approx(0.2191648)  # of the rule, which nothing trained


class Model:
    """Stands for a model of Stable-Baselines3."""

    def predict(self, observations: np.ndarray) -> list[int]:
        return [1] * len(observations)


# In the right column of coming_from.md: words of the other library, of files and of the shell.
NOT_OURS = {"n_envs", "n_steps", "batch_size", "terminated", "truncated", "params", "policy.pkl", "jaxtrader report"}
NOT_RUN = {"jaxtrader.bridges.sb3.to_sb3(env)"}  # see tests/bridges/test_sb3.py


@pytest.mark.slow
def test_the_code_that_others_are_given_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of coming_from.md in our words, but nothing is trained. A setting is given to what has it."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(jt.Trainer, "train", lambda trainer: None)
    monkeypatch.setattr(jt, "walk_forward", create_autospec(jt.walk_forward))
    df = frame(2000, "B", "2005-01-03").assign(signal=np.arange(2000.0) % 7)
    bars, own = jt.load_bars({"A": df, "B": 2 * df}), jt.features.Feature("own", 1, lambda bars: np.log(bars.close))
    market, agent = jt.Market.from_bars(bars[0], features=["signal"]), jt.PPOAgent(hidden=(8,))
    env = jt.TradingEnv(market, positions=(0, 1), window=1)
    policy, model = policy_of(agent, with_random_weights(agent, env), env), Model()
    window, account, table = market.features[9:10, 0], np.zeros(4), df.signal > 3
    targets, result = table.to_numpy(), jt.simulate(market, 1.0)
    several = jt.Market.from_bars(bars, align=True)
    space = {"jt": jt, **locals()}
    takers = (
        lambda **given: jt.TradingEnv(several if given.get("positions") == "weights" else market, **given),
        lambda **given: jt.Trainer(env, agent, **{"total_steps": 10_000, "valid": market} | given),
        lambda **given: agent.replace(**given).validate(),
    )
    settings = [inspect.signature(kind).parameters for kind in (jt.TradingEnv, jt.Trainer, jt.PPOAgent)]
    seen = []
    for line in (ROOT / "coming_from.md").read_text().splitlines():
        for code in re.findall(r"`([^`]+)`", line.rsplit("|", 2)[-2] if line.startswith("|") else line):
            name, equals, value = re.fullmatch(r"(?:(\w+)(=|$))?(.*)", code).groups()
            if code in NOT_OURS | NOT_RUN:
                continue
            seen.append(code)
            if name is None:
                eval(code, space)
                continue
            take = next(take for take, known in zip(takers, settings, strict=True) if name in known)
            if value:
                take(**{name: eval(value, space)})
    assert len(seen) > 60


def test_an_example_has_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["own_data", "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(ROOT / "own_data.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "--quick" in shown
    assert "--data" in shown
