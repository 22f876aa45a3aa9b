"""Python files that the user names: `--network FILE.py:CLASS`, and the features of `jaxtrader check`."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import flax.linen as nn

import jaxtrader as jt
from jaxtrader.agents.own_modules import own
from jaxtrader.agents.ppo_settings import Encoder, PPOSettings
from jaxtrader.cli.settings import BadInput, of
from jaxtrader.nearest import nearest
from jaxtrader.setting_checks import setting


def load_module(named: str) -> nn.Module:
    """Run a file, and return the Flax module that it names: an object, or one of a class made without settings.

    Policy files that name its class find it from now on. Raises BadInput where there is none.
    """
    file, _, name = named.rpartition(":")
    typed = setting("network", named)
    if not file or not name.isidentifier():
        known = get_args(Encoder)
        close = nearest(named, known)
        near = f"jaxtrader's own are `encoder` {'|'.join(known)}"
        if close:
            near = f"did you mean {setting('encoder', close)}?"
        raise BadInput(f"{typed} must be a file and the name of a Flax module in it, as in mine.py:MyNetwork; {near}")
    code = run_file(file, typed)
    found = getattr(code, name, None)
    if found is None:
        is_module = lambda x: isinstance(x, nn.Module) or (inspect.isclass(x) and issubclass(x, nn.Module))  # noqa: E731
        names = [key for key, value in vars(code).items() if is_module(value)]
        close = nearest(name, names)
        raise BadInput(f"{typed}: {file} has no {name}" + (f"; did you mean {close}?" if close else ""))
    try:
        module = found() if inspect.isclass(found) else found
    except TypeError as error:
        raise BadInput(f"{typed}: {error}; give each field of the class a default") from error
    try:
        return own(module).module
    except ValueError as error:
        raise BadInput(f"{typed}: {error}") from error


def run_file(file: str, typed: str) -> ModuleType:
    """Run a Python file of the user's. Raises BadInput where it cannot be run. `typed` is the setting that names it."""
    path = Path(file)
    if not path.is_file() or path.suffix != ".py":
        raise BadInput(f"{typed}: {file} is no Python file; check the path")
    try:
        return _run(path.resolve(), path.stat().st_mtime_ns)
    except Exception as error:  # whatever the user's code raises
        raise BadInput(f"{typed}: {file} does not run ({type(error).__name__}: {error})") from error


@functools.cache
def _run(path: Path, changed: int) -> ModuleType:
    """Run a file, once where it has not changed: the plans of a sweep have one class, and share compiled programs.

    As with `python FILE`, it may import what is beside it.
    """
    name = f"own_code_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    code = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec.loader.exec_module(code)
    return code


def backtest_command(folder: Path, values: Mapping[str, Any]) -> str:
    """The command that trades a run's test again. The code of its network is named again, since no file gives it."""
    named = [] if values.get("network") is None else ["--network", values["network"]]
    return shlex.join(["jaxtrader", "backtest", str(folder), *named])


def agent(values: Mapping[str, Any]) -> jt.PPOAgent:
    """PPO with the settings of a command. A module that takes bars alone is an encoder."""
    settings: dict[str, Any] = of(PPOSettings, values)
    if isinstance(settings.get("network"), str):
        module = load_module(settings.pop("network"))
        takes = inspect.signature(type(module).__call__).parameters.values()
        needed = [one for one in takes if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
        settings["encoder" if len(needed) == 2 else "network"] = module  # with `self`
    return jt.PPOAgent(**settings)
