"""Which types of values the settings of a command take, and whether those of a TOML file are of them.

cyclopts reads the values of a file as if they were typed words, where "32" and 32 are the same. In a file they are not.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import types
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from jaxtrader.cli.command_settings import Day, Length
from jaxtrader.cli.settings import COMMANDS, BadSetting, key, key_of

TYPES = {
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    datetime.date: "a date",
    datetime.datetime: "a date",
    datetime.time: "a time",
    list: "a list",
    dict: "a table",
}
ALSO = {Day: "a date", Length: "a number"}  # what stands for text of these kinds


@functools.cache
def kinds(command: str) -> dict[str, Any]:
    """The annotations of all settings of a command, by their keys."""
    found: dict[str, Any] = {}
    for flags in COMMANDS[command].flags:
        hints = get_type_hints(flags.settings, include_extras=True)
        for field in flags.fields:
            kind = hints[field.name]
            if flags.several:
                kind = Union[kind, tuple[float | None, ...]]  # noqa: UP007  it may be `Any`
            found[key(field.name)] = kind
    return found


def members_of(kind: Any) -> list[Any]:
    """The types of which an annotation allows values that can be typed. Paths are text, and of `Any` it is None."""
    if get_origin(kind) is Annotated:
        return members_of(get_args(kind)[0])
    if get_origin(kind) not in (Union, types.UnionType):
        return [] if get_origin(kind) is PathLike else [types.NoneType if kind is Any else kind]
    return [member for one in get_args(kind) for member in members_of(one)]


def check(command: str, settings: Mapping[str, Any], source: str) -> None:
    """Raise BadSetting where a value of a file could be read, but is of another type than its setting.

    What cannot be read at all, and keys that are no settings, cyclopts finds.
    """
    found = kinds(command)
    for name, value in settings.items():
        if (kind := found.get(key_of(name))) is None:
            continue
        for item in value if isinstance(value, list) else [value]:
            if (right := _right(kind, item, isinstance(value, list))) is not None:
                raise BadSetting(f"{source}: {name} takes {right}")


def _right(kind: Any, value: Any, is_item: bool) -> str | None:
    """What a setting takes instead of a value, or of an item of a list. None where the type is right."""
    alone = members_of(kind)
    listed = [item for member in alone if get_origin(member) is tuple for item in members_of(get_args(member)[0])]
    taken, given = listed if is_item and listed else alone, TYPES[type(value)]
    said = f"and {json.dumps(value) if isinstance(value, str | bool) else value} is {given}"
    if bool in taken and given != "a boolean":
        return f"true or false, {said}"
    # Text such as "64,64" is a list, and so is "64" where no number stands alone.
    if given == "text" and not {int, float}.isdisjoint(taken):
        with contextlib.suppress(ValueError):
            number = float(value)
            return f"a number, {said}; write {int(number) if number.is_integer() else number}"
    if str in [*alone, *listed] and given not in ("text", ALSO.get(kind)):
        way = f'; write "{value}"' if given in ("a number", "a date") else ""
        return f"text, {said}{way}"
    return None
