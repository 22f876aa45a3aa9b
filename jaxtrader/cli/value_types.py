"""The values of settings: reads them from words, says what a setting takes, and checks the values of TOML files.

cyclopts reads the values of a file as if they were typed words, where "32" and 32 are the same. In a file they are not.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import inspect
import json
import math
import re
import types
from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxtrader.cli.command_settings import Day, Length
from jaxtrader.cli.settings import BPS, COMMANDS, BadSetting, key, key_of, spelt
from jaxtrader.nearest import nearest

ONE = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
SEVERAL = {int: ("whole numbers", (64, 64)), float: ("numbers", (0.02, 0.05)), str: ("names", ("A", "B"))}
OF_TEXT = {Day: "a date such as 2007-12-31", Length: "a length such as 500 or 2y"}
DATES = (datetime.date, datetime.datetime)
MOST_SHOWN = 60  # characters of a list in a message


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


def items_of(kind: Any) -> list[Any]:
    """The types of the items of the lists that an annotation allows."""
    lists = [member for member in members_of(kind) if get_origin(member) is tuple]
    return [item for member in lists for item in members_of(get_args(member)[0])]


def choices_of(kind: Any) -> list[str]:
    """The words that an annotation allows, alone or in a list."""
    types_of = [*members_of(kind), *items_of(kind)]
    return [choice for member in types_of if get_origin(member) is Literal for choice in get_args(member)]


def read(kind: Any, text: str) -> Any:
    """Read a value of the annotation: a list with commas between its items, a whole number such as 2e6, or another.

    Raises ValueError where the text is none.
    """
    for member in sorted(members_of(kind), key=lambda member: get_origin(member) is tuple):
        with contextlib.suppress(ValueError):
            return _read_as(member, text)
    raise ValueError(text)


def _read_as(member: Any, text: str) -> Any:
    if get_origin(member) is tuple:
        words = text.strip("()[] ").split(",")
        if not any(word.strip() for word in words):
            raise ValueError(text)
        return tuple(read(get_args(member)[0], word.strip()) for word in words if word.strip())
    if member is str:
        return text
    if member is float:
        return float(text)
    if member is int and float(text).is_integer():
        return int(text) if text.lstrip("+-").isdigit() else int(float(text))
    if member is types.NoneType and text.lower() in ("none", "null"):
        return None
    if get_origin(member) is Literal and text in get_args(member):
        return text
    raise ValueError(text)


def taken(command: str, name: str, in_file: bool = False) -> str:
    """Return what a setting takes, for the end of "must be", such as "whole numbers such as 64,64".

    Args:
        command: The command that has the setting.
        name: The key of the setting.
        in_file: Whether examples are written as in a TOML file, as [64, 64].
    """
    kind, field = kinds(command)[name], COMMANDS[command].fields[name]
    if (text := OF_TEXT.get(kind)) is not None:
        return text
    words, choices = [], []
    for member in members_of(kind):
        item = next(iter(items_of(member)), None)
        if get_origin(item) is Literal:
            words.append(f"one or more of {', '.join(get_args(item))}")
        elif item is not None:
            noun, example = SEVERAL[item]
            example = field.default if isinstance(field.default, tuple) else example
            words.append(f"{'several' if words else noun} such as {(toml if in_file else spelt)(example)}")
        elif get_origin(member) is Literal:
            choices += get_args(member)
        elif member is not types.NoneType:
            words.append(ONE[member])
    if choices:
        shown = [choice if choice.isidentifier() else f'"{choice}"' for choice in choices]
        words.append(choices[0] if len(choices) == 1 else f"one of {', '.join(shown)}")
    return " or ".join(words)


@functools.cache
def help_texts(cls: type) -> dict[str, str]:
    """Return the text of each field under "Attributes:" in the docstring of a dataclass."""
    _, _, attributes = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.+?)(?=^    \w|^\S|\Z)", attributes, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in entries}


def way_out(kind: Any, text: str, field: str) -> str:
    """Return a hint at what an unreadable value may have meant, for the end of a sentence. It may be empty."""
    types_of = [*members_of(kind), *items_of(kind)]
    if (meant := nearest(text, choices_of(kind))) is not None:
        return f"; did you mean {meant}?"
    share, number = re.fullmatch(r"([\d.]+) ?%", text), re.fullmatch(r"(\d[\d,_]*(?:\.\d+)?)([kmb]?)", text.lower())
    if float in types_of and share:
        from jaxtrader.ledger.costs import LIMITS  # which imports JAX, and is for few messages

        low, high, _ = LIMITS.get(field, (0.0, math.inf, ""))
        if not low <= float(share[1]) / 100 < high:
            return f", from {low:.0%} to below {high:.0%}"
        return f"; write {share[1]}% as {float(share[1]) * (100 if field in BPS else 0.01):g}"
    if int in types_of and number:
        written = re.sub(r"[,_]", "", number[1]) + {"k": "e3", "m": "e6", "b": "e9"}.get(number[2], "")
        return f"; write {written}" if written != number[0] and float(written).is_integer() else ""
    return ""


# --- values of a file ---


def check(command: str, settings: Mapping[str, Any], path: str) -> None:
    """Raise BadSetting where a value of a file is none that its setting takes. Keys that are no settings stay."""
    for name, value in settings.items():
        one = key_of(name)
        if one in kinds(command) and (way := _fault(command, one, value)) is not None:
            raise BadSetting(f"{path}: {name} = {toml(value)} must be {taken(command, one, in_file=True)}{way}")


def toml(value: Any) -> str:
    """Return a value as a TOML file has it. A long list is cut, and a path is not. None is the word that reads so."""
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(toml, value))}]"
        return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 4]} ..."
    value = spelt(value) if value is None else value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | str) else spelt(value)


def _fault(command: str, name: str, value: Any) -> str | None:
    """Return a hint at what to write instead of a value. It may be empty. None: the setting takes the value."""
    kind, field = kinds(command)[name], COMMANDS[command].fields[name]
    alone, items = members_of(kind), items_of(kind)
    if isinstance(value, list) and not (items and value):
        return ""
    for item in value if isinstance(value, list) else [value]:
        if (way := _other_type(kind, item, items if isinstance(value, list) else alone)) is not None:
            return way
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        if bool not in alone:
            read(kind, text)
    except ValueError:
        return way_out(kind, text, field.name)
    return None


def _other_type(kind: Any, value: Any, types_here: list[Any]) -> str | None:
    """Return a hint at what to write instead of a value or an item. None: its type is right."""
    numeric = not {int, float}.isdisjoint(types_here)
    of_text = str in [*members_of(kind), *items_of(kind)]
    if isinstance(value, bool) or bool in types_here:
        return None if isinstance(value, bool) and bool in types_here else ""
    if isinstance(value, str):
        # Text such as "64,64" is a list, and so is "64" where no number stands alone.
        with contextlib.suppress(ValueError):
            number = float(value)
            if numeric:
                return f"; write {int(number) if number.is_integer() else number}"
        return None
    if isinstance(value, int | float):
        return f'; write "{value}"' if of_text and kind is not Length else None
    if isinstance(value, DATES):
        return f'; write "{value}"' if of_text and kind is not Day else None if kind is Day else ""
    return ""
