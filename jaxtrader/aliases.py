"""Lets the modules among the public names be imported: `import jaxtrader.rewards` is the module `jaxtrader.rewards`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType


class Aliases:  # of `importlib.abc` it has the methods, not the classes, whose module loads `typing`
    """Finds modules under a second name. Under both names it is one module, which keeps its own name."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self.homes = homes  # full names, by their aliases
        self.specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an alias, and None for any other name."""
        if fullname not in self.homes:
            return None
        return ModuleSpec(fullname, self)  # pyrefly: ignore[bad-argument-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that has the name."""
        module = import_module(self.homes[spec.name])
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec again, which importing it by an alias has replaced."""
        assert module.__spec__ is not None
        module.__spec__ = self.specs.pop(module.__spec__.name)


def install(homes: Mapping[str, str]) -> None:
    """Let these aliases be imported. No other finder knows them, so it does not matter who is asked first."""
    sys.meta_path.append(Aliases(homes))  # pyrefly: ignore[bad-argument-type]
