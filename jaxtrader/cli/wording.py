"""Says in the words of a command what messages of the API say in Python.

Messages name a setting in backquotes: `max_leverage` or `max_leverage=2.0`. That becomes `--leverage 2`, or
`leverage = 2` where a file gave the setting. All else in a message stays, other code in backquotes too.
"""

from __future__ import annotations

import ast
import contextlib
import re
import shlex
from collections.abc import Generator
from typing import Any

from jaxtrader.cli.config_file import FileSettings
from jaxtrader.cli.settings import A_BP, BPS, COMMANDS, BadInput, BadSetting, Failed, flag, key, spelt
from jaxtrader.cli.value_types import toml

OF_THE_API = {"align": "portfolio", "account": "position"}  # names that the API has for settings of a command
FIELDS = [(name, field.name) for command in COMMANDS.values() for name, field in command.fields.items()]
NAMES = {name for names in FIELDS for name in names}.union(OF_THE_API)

_SETTING = re.compile(rf"`({'|'.join(NAMES)})(?:=([^`]+))?`")


def translated(message: str, file: FileSettings | None = None) -> str:
    """Return a message with its settings as they are typed, or as they stand in the file that gave them."""
    given = {} if file is None else file.given

    def words(found: re.Match[str]) -> str:
        name, code = OF_THE_API.get(found[1], found[1]), found[2]
        written, own = given.get(key(name), (None, None))
        if code is None:
            return written or flag(name)
        try:
            value = _value(name, code)
        except (ValueError, SyntaxError):  # no plain value, such as nan, or one that was cut
            return f"{written} = {toml(own)}" if written else f"{flag(name)} {code}"
        if written:
            return f"{written} = {toml(value)}"
        if isinstance(value, bool):
            return flag(name) if value else f"--no-{flag(name)[2:]}"
        return f"{flag(name)} {shlex.quote(spelt(value))}"

    return _SETTING.sub(words, message)


@contextlib.contextmanager
def as_given(file: FileSettings | None) -> Generator[None]:
    """Have the sentence of an error name settings as they were given: as flags, or as a file has them."""
    try:
        yield
    except BadSetting:
        raise
    except (BadInput, Failed) as error:
        sentence = " ".join(str(error).split())
        words = translated(sentence, file)
        where = "" if file is None or words == translated(sentence) else f"{file.path}: "
        raise type(error)(f"{where}{words}") from error


def _value(name: str, code: str) -> Any:
    """A value of the API as the command takes it. Raises ValueError or SyntaxError where the code is no plain value."""
    value = ast.literal_eval(code)
    if isinstance(value, dict):
        return spelt(value)
    return float(f"{value / A_BP:.12g}") if name in BPS and isinstance(value, int | float) else value
