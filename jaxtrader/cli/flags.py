"""How the dataclasses of `settings.py` become flags: names, types, defaults and help are read from their fields.

cyclopts parses the words and finds what is wrong with them. This module gives it the flags of each command.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import cyclopts
from cyclopts import App, Group, Parameter, Token

from jaxtrader import __version__
from jaxtrader.cli import config_file, settings, value_types, word_errors
from jaxtrader.cli.config_file import FileSettings
from jaxtrader.cli.settings import COMMANDS, BadInput, BadSetting, Flags
from jaxtrader.cli.value_types import help_texts, kinds, members_of

SUMMARY = (
    "Train reinforcement-learning trading agents on price data, with costs, and look at them honestly. "
    "`jaxtrader train` alone needs nothing: it trains on stocks that come with the package."
)
GROUPS = ("data", "market", "folds", "money", "environment", "learning", "run")


class Given(NamedTuple):
    """A command, the settings that were given to it, and those of them that a file gave."""

    command: str
    values: dict[str, Any]
    file: FileSettings | None


def parse(argv: Sequence[str]) -> Given | None:
    """Read the words of a command line. Returns None where help or the version was asked for, and printed.

    Raises BadInput where there is no such command, flag or setting, or where a value cannot be read.
    """
    typed = {word.partition("=")[0] for word in argv}
    for field, short in settings.SHORT_FLAGS.items():
        if typed >= {short, long := "--" + field.replace("_", "-")}:  # cyclopts would take the last of them
            raise BadInput(f"{short} and {long} are one setting; leave one of them out")
    app = _app(tuple(name for name in COMMANDS if name in argv), everything="--help-all" in argv)
    app.config = reader = config_file.Reader()
    function, bound = _bound(app, ["--help" if word == "--help-all" else word for word in argv])
    if function.__name__ in COMMANDS:
        return Given(function.__name__, dict(bound.arguments), reader.found)
    function(*bound.args, **bound.kwargs)  # prints help or the version
    return None


def read_settings(name: str, tables: Sequence[Mapping[str, Any]], source: str) -> list[dict[str, Any]]:
    """Read tables of settings of a file. Returns the values that each gives to a command, as `parse` does.

    Raises BadInput where a key is no setting of the command, or a value cannot be read.
    """
    app, found = _app((name,)), []
    for table in tables:
        app.config = config_file.values_of(name, table, source)
        found.append(dict(_bound(app, [name])[1].arguments))
    return found


def _bound(app: App, words: Sequence[str]) -> tuple[Callable[..., Any], inspect.BoundArguments]:
    try:
        function, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        source = getattr(getattr(error, "token", None), "source", "cli")
        raise (BadInput if source == "cli" else BadSetting)(word_errors.sentence(error)) from None
    return function, bound


@functools.cache
def _app(names: tuple[str, ...], everything: bool = True) -> App:
    """The command line, with the flags of the named commands. The function of each has its name."""
    app = App(
        name="jaxtrader",
        help=SUMMARY,
        help_format="plaintext",
        version=f"jaxtrader {__version__}",
        version_flags=("--version", "-V"),
    )
    for place, (name, command) in enumerate(COMMANDS.items()):
        function = _function(name, everything) if name in names else lambda: None
        function.__name__, function.__doc__ = name, command.summary
        needed = [key.upper() for key, field in command.fields.items() if field.default is dataclasses.MISSING]
        hidden = 0 if everything or command.first is None else len(command.fields) - len(command.first)
        app.command(
            function,
            name=name,
            sort_key=place,
            usage=" ".join(["Usage: jaxtrader", name, *needed, "[FLAGS]"]),
            help_epilogue=f"{hidden} more flags: jaxtrader {name} --help-all" if hidden else None,
        )
    return app


def _function(name: str, everything: bool) -> Callable[..., None]:
    """A function with the flags of a command as its parameters, for cyclopts to read."""

    def function(**values: Any) -> None:
        pass

    parameters = []
    for flags in COMMANDS[name].flags:
        parameters += [_parameter(name, flags, field, everything) for field in flags.fields]
    signature = inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))
    setattr(function, "__signature__", signature)  # noqa: B010
    return function


def _parameter(name: str, flags: Flags, field: dataclasses.Field[Any], everything: bool) -> inspect.Parameter:
    """A field as a parameter: keyword-only, or positional where it has no default."""
    key, first = settings.key(field.name), COMMANDS[name].first
    kind = kinds(name)[key]
    default, shown = settings.default(name, field)
    flag, needed = "--" + key.replace("_", "-"), field.default is dataclasses.MISSING
    members = members_of(kind)
    is_list, has_choices = (any(get_origin(member) is origin for member in members) for origin in (tuple, Literal))
    # cyclopts reads neither commas nor 2e6.
    is_numeric = not needed and (is_list or not {int, float}.isdisjoint(members))
    is_ours = is_numeric or has_choices
    about = Parameter(
        name=None if needed else tuple(dict.fromkeys((settings.flag(field.name), flag))),
        negative=None if bool in members and default is not False else (),
        group=Group(flags.group.capitalize(), sort_key=GROUPS.index(flags.group)),
        help=_help(name, flags.settings, field.name),
        metavar=kind.__metadata__[0] if get_origin(kind) is Annotated else _metavar(kind) if is_numeric else None,
        show=everything or first is None or field.name in first,
        show_default=(lambda _: shown) if shown and bool not in members else False,
        converter=(lambda _, tokens: _value(name, key, tokens)) if is_ours else None,
        n_tokens=1 if is_ours else None,
        json_list=False,
        allow_leading_hyphen=is_numeric,
        allow_repeating=True,
    )
    if needed:
        which = inspect.Parameter.VAR_POSITIONAL if is_list else inspect.Parameter.POSITIONAL_ONLY
        return inspect.Parameter(key, which, annotation=Annotated[str, about])
    # Of `Any`, cyclopts takes the type of the default, which may be of one number where a list of them is right too.
    hint = (
        tuple[Any, ...] | Any
        if is_numeric and is_list
        else Any
        if is_numeric
        else functools.reduce(operator.or_, members)
    )
    return inspect.Parameter(
        key, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[hint, about]
    )


def _help(name: str, cls: type, field: str) -> str:
    """The help of a field, which names other settings as they are typed."""
    keys, text = COMMANDS[name].fields, help_texts(cls)[field]
    text = re.sub(r"\w+_\w+", lambda word: settings.flag(word[0]) if word[0] in keys else word[0], text)
    return text + " It is in basis points." * (field in settings.BPS)


def _metavar(kind: Any) -> str:
    """Return the word for a value in help, such as FLOATS|continuous|weights."""
    names: list[str] = []
    for member in members_of(kind):
        if get_origin(member) is Literal:
            names += get_args(member)
        elif get_origin(member) is tuple:
            item = get_args(member)[0]
            names.append(_metavar(item) + "S" * (get_origin(item) is not Literal))
        elif member is not types.NoneType:
            names.append(member.__name__.upper())
    return "|".join(names)


def _value(command: str, name: str, tokens: Sequence[Token]) -> Any:
    """The value of a setting: of the items of a list in a file, or of the last word, where a flag is typed twice."""
    token = tokens[-1]
    text = token.value if token.source == "cli" else ",".join(token.value for token in tokens)
    try:
        return value_types.read(kinds(command)[name], text)
    except ValueError:  # that of a file has been checked
        raise BadInput(word_errors.wrong_value(command, name, token.keyword or "", text)) from None
