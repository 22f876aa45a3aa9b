"""A TOML file of settings: how `--config` reads one, and how a run writes the one that repeats it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict

from jaxtrader.cli import value_types, waiting
from jaxtrader.cli.command_settings import HostSettings
from jaxtrader.cli.settings import COMMANDS, BadInput, BadSetting, key, key_of
from jaxtrader.nearest import hint
from jaxtrader.run_files import CONFIG_TOML

EITHER = {"num_episodes": "total_steps", "total_steps": "num_episodes"}  # the one, typed, replaces the other of a file
TABLES = (*dict.fromkeys(flags.group for command in COMMANDS.values() for flags in command.flags), "sweep")
SETTINGS = {name for command in COMMANDS.values() for name in command.fields}.difference(TABLES)
HOSTS = tuple(field.name for field in fields(HostSettings))
NOT_REPEATED = ("config", "resume", "run_dir", "dry_run", "quiet", *HOSTS)  # what the file of a run leaves out


@dataclass(frozen=True)
class FileSettings:
    """Settings that a file gives, as messages name them.

    Attributes:
        path: The file.
        given: The name of each setting in the file and its value there, by its key.
    """

    path: str
    given: Mapping[str, tuple[str, Any]]

    @classmethod
    def of(cls, path: Path, settings: Mapping[str, Any]) -> FileSettings:
        """All settings of a file, which `flat` returned."""
        return cls(str(path), {key_of(name): (name, value) for name, value in settings.items()})


class Reader:
    """Gives each argument that was not typed its value in the file of `--config`, or of the run of `--resume`.

    Attributes:
        found: The settings that the file gave. None where there is no file.
    """

    found: FileSettings | None = None

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Read the file. cyclopts calls this after parsing.

        Tables are headings: a setting means the same in each, and outside. Raises BadInput where the file cannot be
        read.
        """
        typed = {argument.field_info.name: argument.tokens for argument in arguments if argument.tokens}
        if (read := _read(commands[0], typed)) is None:
            return
        path, settings = read
        # Under the command's name: at the top cyclopts would leave out `data`, the name of another command.
        values_of(commands[0], settings, str(path))(app, commands, arguments)
        untyped = {name: value for name, value in settings.items() if key_of(name) not in typed}
        self.found = FileSettings.of(path, untyped)
        if "network" in untyped:
            tell_code(untyped["network"], path)


def _read(command: str, typed: Mapping[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The file that was typed, and its settings. None where none was typed. `typed` are words by the keys of flags."""
    if "resume" in typed:
        flag, path = "--resume", _config_of(Path(typed["resume"][-1].value), typed)
    elif "config" in typed:
        flag, path = "--config", Path(typed["config"][0].value)
        path = path / CONFIG_TOML if path.is_dir() else path
    else:
        return None
    tables = read_tables(path, f"{flag} {path}")
    if "sweep" in tables:
        raise BadInput(f"{path} has a table [sweep], so it is a file of `jaxtrader sweep {path}`")
    settings = flat(tables, path)
    for name in ("config", "resume"):
        if name in settings:
            raise BadInput(f"{path}: {name} names another file of settings, which is not read; type --{name}")
    needed = [key(field.name) for field in COMMANDS[command].fields.values() if field.default is MISSING]
    for name in settings:
        if key_of(name) in needed:
            raise BadInput(f"{path}: {name} is not read from a file; type it after jaxtrader {command}")
    return path, {name: value for name, value in settings.items() if EITHER.get(key_of(name)) not in typed}


def values_of(command: str, settings: Mapping[str, Any], source: str) -> Dict:
    """The settings of a file, for cyclopts. Raises BadSetting where a value has another type than its setting."""
    value_types.check(command, settings, source)
    return Dict({command: dict(settings)}, source=source)


def tell_code(network: Any, path: Path) -> None:
    """Say that Python code is run because a file of settings, which may be a stranger's, names it."""
    waiting.say(f"{path} names the network {network}: running its Python file")


def read_tables(path: Path, named: str) -> dict[str, Any]:
    """Read a TOML file. Raises BadInput where it cannot be read. `named` is the name of the file in the message."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{named} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise BadInput(f"{named} is not TOML: {error}") from error


def flat(tables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings of all tables together.

    Raises BadSetting where there is no such table, or where a setting stands twice, is a table, or has the name of a
    flag that says no.
    """
    settings: dict[str, Any] = {}
    names: dict[str, str] = {}  # as they are written, by their keys
    for table, content in tables.items():
        if isinstance(content, list) and any(isinstance(item, dict) for item in content):
            raise BadSetting(f"{path}: [[{table}]] is a list of tables; write [{table}]")
        is_heading = isinstance(content, dict) and key_of(table) not in SETTINGS
        if is_heading and table not in TABLES:
            raise BadSetting(
                f"{path}: [{table}] is no table of settings; the tables are {', '.join(TABLES)}{hint(table, TABLES)}"
            )
        for name, value in (content if is_heading else {table: content}).items():
            if name.startswith(("no_", "no-")):  # cyclopts would read no_adjust = true as adjust = true
                raise BadSetting(f"{path}: {name} is the name of a flag; write {name[3:]} = false")
            if isinstance(value, dict):
                raise BadSetting(f"{path}: {name} is a table; a setting is a value or a list")
            if (other := names.setdefault(key_of(name), name)) in settings:
                way = "" if other == name else f", once as {other}"
                raise BadSetting(f"{path}: {name} stands twice{way}; leave one of them out")
            settings[name] = value
    return settings


def _config_of(run: Path, typed: Mapping[str, Any]) -> Path:
    """The settings of a run that is to be resumed."""
    for name in ("config", "run_dir", "init_from", "dry_run", "refit"):
        if name in typed:
            raise BadInput(
                f"--resume {run} takes the run's own settings and folder: leave out {typed[name][0].keyword}"
            )
    if not run.is_dir():
        raise BadInput(f"--resume {run} is not the folder of a run; check the path")
    if not (run / CONFIG_TOML).is_file():
        raise BadInput(
            f"--resume {run} has no {CONFIG_TOML}, so `jaxtrader train` did not begin it; resume it from Python, with "
            "Trainer(...).train(resume=True)"
        )
    return run / CONFIG_TOML


def write(folder: Path, command: str, values: Mapping[str, Any]) -> None:
    """Write the settings of a run into its folder."""
    from jaxtrader import files  # loads NumPy

    files.write_text(folder / CONFIG_TOML, text(command, values))


def text(command: str, values: Mapping[str, Any]) -> str:
    """The file that repeats a run. What is None is left out, as TOML has no word for it, and "none" in a list."""
    import tomli_w

    tables: dict[str, dict[str, Any]] = {}
    for flags in COMMANDS[command].flags:
        for name in (key(field.name) for field in flags.fields):
            if values[name] is not None and name not in NOT_REPEATED:
                tables.setdefault(flags.group, {})[name] = _spelt(values[name])
    first = f"# All settings of this run. Repeat it: jaxtrader {command} --config {CONFIG_TOML}\n\n"
    # A path or a name keeps its characters, but none of them as such does anything to whoever reads the file.
    return first + re.sub(r"[^\n -~]", _escaped, tomli_w.dumps(tables))


def _escaped(letter: re.Match[str]) -> str:
    return letter[0] if letter[0].isprintable() else f"\\U{ord(letter[0]):08x}"


def _spelt(value: Any) -> Any:
    """A value as TOML takes it."""
    return ["none" if each is None else each for each in value] if isinstance(value, tuple | list) else value
