"""Every public name has an example in its docstring, and what the examples say is so."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import jaxtrader as jt

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = [name for name in jt.__all__ if callable(getattr(jt, name))]
# Names of public modules that a user calls. Three checks train agents, which takes too long for an example.
LONG = {"delayed", "oracle", "shuffled"}
MEMBERS = {
    "checks": " ".join(sorted({name for name in jt.checks.__all__ if callable(getattr(jt.checks, name))} - LONG)),
    "features": "Feature resolve resampled log_return volatility price_range drawdown distance_to_mean volume_ratio "
    "gap time_of_day day_of_week column",
    "rewards": "MoveReward log_return risk_penalized over_benchmark drawdown_penalized differential_sharpe "
    "differential_downside",
    "loggers": "Log TensorBoard WandB MLflow",
    "datasets": "load_bundled AR1 HiddenRegime OrnsteinUhlenbeck RandomWalk",
    "optimum": "solve",
}
OPTIONAL = ("jaxtrader.bridges.sb3", "jaxtrader.examples.stable_baselines3")  # of an extra that the tests do not have


def modules() -> list[str]:
    """Names of the modules that have an example, without importing them."""
    root = Path(jt.__file__).parent
    found = {each.name: each.ispkg for each in pkgutil.walk_packages([str(root)], "jaxtrader.")}
    sources = {
        name: root.joinpath(*name.split(".")[1:], "__init__.py" if is_package else "").with_suffix(".py")
        for name, is_package in found.items()
        if name not in OPTIONAL
    }
    return [name for name, path in sources.items() if ">>>" in path.read_text()]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(jt, name)) or "")


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in MEMBERS for name in MEMBERS[module].split()])
def test_a_name_of_a_public_module_has_an_example(module: str, name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(getattr(jt, module), name)) or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", modules())
def test_the_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"jt": jt}, optionflags=FLAGS)
    assert found.attempted > 0
    assert found.failed == 0
