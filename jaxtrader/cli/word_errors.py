"""Says in one sentence what is wrong with the words of a command, or with a file of settings, and what was meant."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cyclopts

from jaxtrader.cli import value_types
from jaxtrader.cli.settings import COMMANDS, flag, key, key_of
from jaxtrader.nearest import NO_SYNONYMS, nearest

# Words for a flag that other programs use, in small letters without hyphens.
SYNONYMS = {
    word: name
    for name, words in {
        "--symbols": "ticker tickers asset assets",
        "--data": "file csv input prices path",
        "--tz": "timezone zone",
        "--fee-bps": "commission commissions cost costs fees",
        "--slippage-bps": "spread",
        "--run-dir": "output out outputdir outdir logdir folder",
        "--window": "lookback windowsize history",
        "--num-minibatches": "batchsize minibatches",
        "--total-steps": "timesteps totaltimesteps maxsteps numsteps",
        "--hidden": "layers hiddensizes netarch",
        "--take-profit": "tp",
        "--stop-loss": "sl",
        "--gamma": "discount",
        "--capital": "cash balance initialcapital",
        "--positions": "actions exposures action",
        "--devices": "gpus numdevices cores",
        "--entropy-coef": "entropy entcoef",
        "--leverage": "margin",
    }.items()
    for word in words.split()
}
KEY_SYNONYMS = {word: key_of(name.removeprefix("--")) for word, name in SYNONYMS.items()}  # in a file
COMMAND_SYNONYMS = {"test": "backtest", "evaluate": "backtest", "eval": "backtest", "fit": "train", "learn": "train"}
COMMAND_SYNONYMS |= {"info": "data", "describe": "data", "leaks": "check", "help": "--help", "version": "--version"}


def sentence(error: cyclopts.CycloptsError) -> str:
    """Return the sentence for an error of cyclopts: what is wrong, and the nearest that is right."""
    error.verbose = False
    command = (error.command_chain or [""])[0]
    if isinstance(error, cyclopts.UnknownOptionError):
        if error.token.source != "cli":
            name = (error.token.keyword or "").strip("[]")
            meant = _meant(name, COMMANDS[command].fields, KEY_SYNONYMS)
            return f"{error.token.source}: jaxtrader {command} has no setting {name}{meant}"
        return _unknown_flag((error.token.keyword or error.token.value).partition("=")[0], command)
    if isinstance(error, cyclopts.UnknownCommandError) and error.unused_tokens:
        return _unknown_command(error.unused_tokens[0])
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        return _unused_word(error.unused_tokens[0], command, error.root_input_tokens or ())
    if isinstance(error, cyclopts.CoercionError) and error.argument is not None and error.token is not None:
        return wrong_value(command, error.argument.field_info.name, error.token.keyword or "", error.token.value)
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None:
        return _no_value(command, error.argument.field_info.name, error.keyword)
    return " ".join(str(error).split()).removesuffix(".")


def wrong_value(command: str, name: str, typed: str, text: str) -> str:
    """Return the sentence for a typed value that cannot be read.

    Args:
        command: The command.
        name: The key of the setting.
        typed: The flag, as it was typed.
        text: The value.
    """
    if text.startswith("--"):
        return _no_value(command, name, typed)
    field = COMMANDS[command].fields[name].name
    way = value_types.way_out(value_types.kinds(command)[name], text, field)
    return f"{typed} {shlex.quote(text)} must be {value_types.taken(command, name)}{way}"


def _no_value(command: str, name: str, typed: str | None) -> str:
    """Return the sentence for a flag without a value, or for a command without the word that it needs."""
    if typed is None:
        settings = next(
            flags.settings for flags in COMMANDS[command].flags if name in {one.name for one in flags.fields}
        )
        what = value_types.help_texts(settings)[name].partition(". ")[0].removesuffix(".")
        return f"jaxtrader {command} needs {name.upper()}: {what[0].lower()}{what[1:]}"
    kind = value_types.kinds(command)[name]
    words = [word for word in getattr(kind, "__metadata__", ()) if word in ("FILE", "FOLDER")]
    return f"{typed} has no value; give " + (f"{typed} {words[0]}" if words else value_types.taken(command, name))


def _unused_word(word: str, command: str, words: Sequence[str]) -> str:
    """Return the sentence for a word that is no flag and no value of one."""
    name = f"jaxtrader {command}".rstrip()
    if command in COMMANDS and word in words:
        before = list(words[: words.index(word)])
        values = list(itertools.takewhile(lambda one: not one.startswith("--"), reversed(before)))[::-1]
        typed = before[-len(values) - 1] if len(values) < len(before) else ""
        fields = COMMANDS[command].fields.items()
        kind = next((value_types.kinds(command)[name] for name, field in fields if typed in _flags_of(field)), None)
        if bool in value_types.members_of(kind):
            return f"{typed} takes no value; leave {word} out"
        if values and value_types.items_of(kind):
            return f"{typed} takes a list with commas; write {typed} {','.join([*values, word])}"
    way = "give one file, or a folder or zip archive of several, and " if command == "data" else ""
    if command in COMMANDS and "--data" in COMMANDS[command].names:
        way = f"give a file as --data {word}, and "
    return f"{name} does not expect {word}; {way}see {name} --help"


def _flags_of(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    """Return all flags of a field."""
    name = "--" + key(field.name).replace("_", "-")
    return flag(field.name), name, f"--no-{name[2:]}"


def _unknown_flag(word: str, command: str) -> str:
    """Return the sentence for a flag that the command does not have."""
    flags = COMMANDS[command].names
    elsewhere = [name for name, other in COMMANDS.items() if word in other.names]
    text = f"jaxtrader {command} has no flag {word}"
    if (command, word) == ("data", "--data"):
        return f"{text}; give the file alone, as in jaxtrader data FILE"
    if elsewhere and f"{word}s" not in flags:  # --position of decide, for the --positions of train
        return f"{text}: it is of jaxtrader {' and '.join(elsewhere)}; see jaxtrader {command} --help-all"
    meant = _meant("--" + word.lstrip("-"), [*sorted(flags), "--help", "--help-all"], SYNONYMS)
    return text + (meant or f"; see jaxtrader {command} --help-all")


def _unknown_command(word: str) -> str:
    """Return the sentence for a first word that is no command."""
    names = ", ".join(COMMANDS)
    if word.startswith("-"):
        meant = nearest(word, ("--help", "--version"))
        way = f"did you mean {meant}?" if meant else f"as in jaxtrader train {word}"
        return f"{word} stands where a command is expected ({names}), {way}"
    meant = _meant(word, [*COMMANDS, "--help", "--version"], COMMAND_SYNONYMS)
    return f"{word} is no command; the commands are {names}{meant}"


def _meant(word: str, names: Iterable[str], synonyms: Mapping[str, str] = NO_SYNONYMS) -> str:
    """Return the end of the sentence, which names the nearest."""
    name = nearest(word, names, synonyms)
    return "" if name is None else f"; did you mean {name}?"
