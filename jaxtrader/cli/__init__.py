"""The `jaxtrader` command: train a policy, backtest it, look at a data file, check it: thin over the public API.

The flags are the dataclasses of `config.py`; what the commands do is in `commands.py`, which loads JAX and pandas only
when one runs, so that help is instant.
Exit codes: 0 done, 1 failed (or a check did), 2 bad input, 130 interrupted (and saved, where there was something to
save).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import tyro

from jaxtrader import __version__
from jaxtrader.cli.config import BAD_INPUT, COMMANDS, FAILED, INTERRUPTED, OK, BadInput, Config, Failed

DESCRIPTION = (
    "Train reinforcement-learning trading agents on price data, with costs, and look at them honestly. "
    "`jaxtrader train` alone needs nothing: it trains on stocks that come with it. `--version` prints the version."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `argv` is without the program's name."""
    try:
        config = parse(list(sys.argv[1:] if argv is None else argv))
        if config is None:
            return OK
        with _late_interrupt():
            from jaxtrader.cli import commands  # JAX and pandas, from here on
        return commands.run(config)
    except (BadInput, Failed) as error:
        print(f"jaxtrader: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, BadInput) else FAILED
    except KeyboardInterrupt:
        print("jaxtrader: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `jaxtrader ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextlib.contextmanager
def _late_interrupt() -> Iterator[None]:
    """Ctrl-C waits until the block is done: in the middle of loading a library it is swallowed there, or crashes it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def parse(argv: list[str]) -> Config | None:
    """The configuration that the arguments ask for; None where help or the version was asked for, and printed.

    Raises:
        BadInput: an unknown command or flag, or a value that is none.
    """
    if argv in (["--version"], ["-V"]):
        print(f"jaxtrader {__version__}")
        return None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                dict[str, Callable[..., Config]](COMMANDS),
                prog="jaxtrader",
                description=DESCRIPTION,
                args=_joined(argv or ["--help"]),
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_registry(),
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise BadInput(_one_line(said.getvalue())) from None


def _joined(argv: list[str]) -> list[str]:
    """`--positions -1,0,1` as `--positions=-1,0,1`: a list that begins with a minus is no flag."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-[.\d]", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _one_line(box: str) -> str:
    """tyro's complaint, framed in lines (or in hyphens where the output is no UTF-8), as one sentence."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    sections: list[list[str]] = [[]]
    for line in text.splitlines():
        inside = line.strip("│ ")
        if re.fullmatch(r"[─-]{4,}", inside):
            sections.append([])
        elif inside and line[0] not in "╭╰":
            sections[-1].append(inside)
    if "╭" not in text:  # the title has a section of its own, not a place in the frame
        sections = sections[1:] or sections
    fault, further = (" ".join(line for part in parts for line in part) for parts in (sections[:1], sections[1:]))
    fault = fault.rstrip(".")
    # The flag that tyro thinks was meant, or the commands there are.
    meant = re.search(r"[Pp]erhaps you meant:? (--[a-z-]+)", further)
    choices = re.search(r"Available subcommands: ([a-z, ]+?)(?: For|$)", further)
    if meant and meant[1] not in fault.split():
        fault += f"; did you mean {meant[1]}?"
    elif choices:
        fault += f"; the commands are {choices[1]}"
    return f"{fault} (see jaxtrader --help)"


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How words become values: lists with commas or a word instead, whole numbers such as 2e6, no None to type."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        kind, optional, words_instead = _parts(info.type)
        many = typing.get_origin(kind) is tuple
        one = typing.get_args(kind)[0] if many else kind
        choices = typing.get_args(one) if typing.get_origin(one) is Literal else None
        if choices is None and one not in _READERS:
            return None
        read, name = (str, "{" + ",".join(choices) + "}") if choices else _READERS[one]
        name += ",..." if many and not choices else ""

        def value(words: list[str]) -> Any:
            if not many:
                return read(words[0])
            return words[0] if words[0] in words_instead else tuple(map(number, filter(None, words[0].split(","))))

        def number(word: str) -> Any:
            try:
                return read(word)
            except ValueError as error:
                way_out = f"; give numbers, or {' or '.join(words_instead)} alone" if words_instead else ""
                raise ValueError(f"{error}{way_out}") from None

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="|".join([name, *words_instead]),
            instance_from_str=value,
            is_instance=lambda _: True,
            str_from_instance=lambda x: ["none" if x is None and optional else _spelt(x)],
            choices=choices,
        )

    return registry


def _parts(kind: Any) -> tuple[Any, bool, tuple[str, ...]]:
    """The kind of value of an annotation, whether None may stand for it, and the words that may stand for a list."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False, ()
    kinds = [one for one in typing.get_args(kind) if one is not types.NoneType]
    optional, lists = len(kinds) < len(typing.get_args(kind)), [k for k in kinds if typing.get_origin(k) is tuple]
    if len(kinds) == 2 and lists:
        other = kinds[1 - kinds.index(lists[0])]
        return lists[0], optional, typing.get_args(other)
    return (kinds[0] if len(kinds) == 1 else None), optional, ()


def _spelt(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_spelt, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whole(word: str) -> int:
    with contextlib.suppress(ValueError):
        return int(word)
    number = _real(word)
    if not number.is_integer():
        raise ValueError(f"{word!r} is not a whole number")
    return int(number)


def _real(word: str) -> float:
    with contextlib.suppress(ValueError):
        return float(word)
    raise ValueError(f"{word!r} is not a number")


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {str: (str, "TEXT"), int: (_whole, "N"), float: (_real, "X")}
