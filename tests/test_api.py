"""The public names, that they load lazily, and that the command's defaults are the API's."""

import ast
import importlib
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import jaxtrader as jt

ROOT = Path(jt.__file__).parents[1]


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import jaxtrader; dir(jaxtrader)")
    assert "jaxtrader" in loaded
    assert not loaded & {"jax", "pandas", "numpy", "gymnax", "flax", "rich", "cyclopts"}


def test_a_name_loads_its_home_and_no_more():
    loaded = loaded_after("import jaxtrader; jaxtrader.load_bundled")
    assert "numpy" in loaded
    assert not loaded & {"jax", "gymnax"}


def test_the_names_of_training_load_neither_plots_nor_gymnax():
    loaded = loaded_after("from jaxtrader import Market, PPOAgent, Trainer, TradingEnv, backtest, simulate")
    assert "flax" in loaded
    assert not loaded & {"pandas", "gymnax", "gymnasium", "matplotlib", "scipy"}


@pytest.mark.parametrize("name", jt.__all__)
def test_every_public_name_is_there(name):
    assert name in dir(jt)
    value = getattr(jt, name)
    assert getattr(value, "__name__", name).rpartition(".")[2] == name or name == "__version__"


@pytest.mark.parametrize("name", [name for name, home in jt._HOMES.items() if ":" not in home])
def test_a_public_module_can_be_imported_and_is_the_one_with_that_name(name):
    module = importlib.import_module(f"jaxtrader.{name}")
    assert module is getattr(jt, name)
    assert module is importlib.import_module(module.__name__)
    assert module.__spec__.name == module.__name__


def test_a_public_module_is_imported_before_its_name_is_asked_for():
    loaded = loaded_after("import jaxtrader.rewards as one; from jaxtrader.rewards import log_return; import jaxtrader")
    assert "jax" in loaded


def test_the_names_of_the_story_are_public():
    story = {"load_bars", "load_bundled", "Bars", "Market", "TradingEnv", "Costs", "PPOAgent", "Trainer", "TrainResult"}
    story |= {
        "backtest",
        "simulate",
        "BacktestResult",
        "load_policy",
        "features",
        "checks",
        "rewards",
        "FileError",
        "DataError",
    }
    assert story <= set(jt.__all__)
    assert set(jt.__all__) - {"__version__"} == set(jt._HOMES)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'Tradr'; it has .*Trainer"):
        _ = jt.Tradr


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jt.__version__ == project["version"]


def test_no_two_modules_have_one_name() -> None:
    """So that a name, in a listing or in an import, says which module it is."""
    files = [path for folder in ("jaxtrader", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    names = Counter(path.name for path in files if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_classes_have_one_name() -> None:
    """So that a name, in a docstring or in an error, says which class it is. Nested classes do not count."""
    parsed = [ast.parse(path.read_text()) for path in (ROOT / "jaxtrader").rglob("*.py")]
    names = Counter(node.name for module in parsed for node in module.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []
