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
OPTIONAL = ("jaxtrader.bridges.sb3", "jaxtrader.examples.stable_baselines3")  # of an extra that the tests do not have


def modules() -> list[str]:
    """Names of the modules that have an example, without importing them."""
    root = Path(jt.__file__).parent
    named = [found.name for found in pkgutil.walk_packages([str(root)], "jaxtrader.") if not found.ispkg]
    sources = {name: root.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in named if name not in OPTIONAL}
    return [name for name, path in sources.items() if ">>>" in path.read_text()]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(jt, name)) or "")


@pytest.mark.parametrize("name", modules())
def test_the_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"jt": jt}, optionflags=FLAGS)
    assert found.attempted > 0
    assert found.failed == 0
