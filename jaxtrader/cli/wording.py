"""Says in flags what messages of the API say in Python: `--leverage 2` for "max_leverage 2.0" or "max_leverage=2.0".

Messages of the API name a setting as its field, before its value or with an underscore. So the one mapping of fields to
flags, `settings.flag`, is enough to translate them.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import re
import shlex
from collections.abc import Generator
from typing import Any

from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli.command_settings import RewardSettings, Source
from jaxtrader.cli.config_file import FileSettings
from jaxtrader.cli.settings import A_BP, BPS, COMMANDS, BadInput, BadSetting, Failed, flag, key, spelt
from jaxtrader.cli.value_types import choices_of, kinds, toml
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.ledger.rules import Rules
from jaxtrader.training.train_settings import TrainSettings

NAMES = sorted({field.name for command in COMMANDS.values() for field in command.fields.values()})
# Settings whose values are told after their names, as in "window 250". Other names, as `start`, are common words.
TOLD = {
    field.name
    for cls in (Source, RewardSettings, CostRates, Rules, EnvSettings, PPOSettings, TrainSettings)
    for field in dataclasses.fields(cls)
} | {"patience", "folds", "embargo"}

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
# A tuple has a comma. Other words in brackets are no value.
_MANY = r"\([^()]*,[^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}"
_VALUE = rf"(?:'[^']*'|{_MANY}|{_NUMBER}|[+-]?(?:nan|inf)\b|None\b|True\b|False\b)"
_ALONE = r"(?<![\w\-'\"/.`=])(?<!\w\()"  # not part of another word, a flag, a path, a quotation or a call
_NAMED = re.compile(rf"{_ALONE}({'|'.join(NAMES)})(?:=({_VALUE})?| ({_VALUE}))")
_NEEDS = re.compile(rf"{_ALONE}({'|'.join(NAMES)}) needs ({'|'.join(NAMES)})\b")
_CALL = re.compile(rf"\b[A-Z]\w*\(((?:{'|'.join(NAMES)})={_VALUE})\)")
_UNDERSCORED = re.compile(rf"{_ALONE}({'|'.join(name for name in NAMES if '_' in name)})(?!['\"=]|\w|\.\w)")
_TWICE = re.compile(r"(--[\w-]+[^()]*?) \(\1\)")
_RANGE = re.compile(rf"(is outside [\[(])({_NUMBER}), ({_NUMBER})([\])])(?:: [^;]*)?")
_SEPARATE, _ALIGN = re.compile(r"load separate histories without align\b"), re.compile(r"\balign=True\b")
_REBATES = re.compile(r"a rate that is named in Costs\.rebates may be below 0")  # a setting of Python alone


@functools.lru_cache(maxsize=1024)  # thousands of symbols share their notes
def in_flags(message: str) -> str:
    """Return a message of the API in the words of the command line: flags, and values as they are typed."""
    message = _REBATES.sub("only the Costs of Python can allow it below 0", _CALL.sub(r"\1", message))
    message = _ALIGN.sub("--portfolio", _SEPARATE.sub("leave --portfolio out", message))
    found = _NAMED.match(message)
    if found and found[1] in BPS:
        message = _RANGE.sub(_range_in_bps, message, count=1)
    message = _NAMED.sub(_named, message)
    message = _NEEDS.sub(lambda pair: f"{flag(pair[1])} needs {flag(pair[2])}", message)
    message = _UNDERSCORED.sub(lambda name: flag(name[1]), message)
    message = re.sub(r"\bNone\b", "none", message)
    return _TWICE.sub(r"\1", message)


@contextlib.contextmanager
def as_given(file: FileSettings | None) -> Generator[None]:
    """Have the sentence of an error name settings as they were given: as flags, or as a file has them."""
    try:
        yield
    except BadSetting:
        raise
    except (BadInput, Failed) as error:
        sentence = in_flags(" ".join(str(error).split()).removesuffix("."))
        words = sentence if file is None else in_keys(sentence, file)
        raise type(error)(sentence if file is None or words == sentence else f"{file.path}: {words}") from error


def in_keys(sentence: str, file: FileSettings) -> str:
    """A sentence in flags with the settings that a file gave as the file has them, as `leverage = 2`.

    Commands in backquotes stay, since they are typed.
    """
    parts = sentence.split("`")
    for name, (written, value) in file.given.items():
        command, field = next((each, one.fields[name]) for each, one in COMMANDS.items() if name in one.fields)
        typed = spelt(value)
        told = "|".join(re.escape(one) for one in dict.fromkeys((typed, shlex.quote(typed))) if one)
        others = "|".join([_NUMBER, *choices_of(kinds(command)[name])])
        flags = f"{flag(field.name)}|--no-{key(name).replace('_', '-')}"
        pattern = rf"(?<![\w-])({flags})(?: (?:({told})|({others}))(?=[\s,;:)]|$))?(?![\w-]| [A-Z]{{2}})"
        parts[::2] = [re.sub(pattern, functools.partial(_as_written, written, value), part) for part in parts[::2]]
    return "`".join(parts)


def _as_written(written: str, value: Any, found: re.Match[str]) -> str:
    """A key of a file, with the value that the sentence gives to its flag."""
    if found[1].startswith("--no-"):
        return f"{written} = false"
    if found[2] is not None:
        return f"{written} = {toml(value)}"
    if found[3] is None:
        return written
    return f"{written} = {found[3] if re.fullmatch(_NUMBER, found[3]) else toml(found[3])}"


def _named(found: re.Match[str]) -> str:
    """A flag and its value."""
    name, value = found[1], found[2] or found[3]
    if found[3] and name not in TOLD:
        return found[0]
    if value is None:
        return flag(name)
    if value in ("True", "False"):
        return flag(name) if value == "True" else f"--no-{flag(name)[2:]}"
    return f"{flag(name)} {_typed(name, value)}"


def _typed(name: str, value: str) -> str:
    """A value of Python as it is typed."""
    read: Any = None
    if value != "None":
        try:
            read = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            read = value  # nan, or no literal
    if name in BPS and isinstance(read, int | float):
        read = float(f"{read / A_BP:.12g}")
    if name in BPS and isinstance(read, str):
        return read
    return shlex.quote(spelt(read)) if isinstance(read, str | tuple | list | dict) else spelt(read)


def _range_in_bps(found: re.Match[str]) -> str:
    low, high = (f"{float(found[part]) / A_BP:.12g}" for part in (2, 3))
    return f"{found[1]}{low}, {high}{found[4]}: it is in basis points of the traded value"
