"""Says in one sentence what is wrong with the words of a command, or with a file of settings, and what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cyclopts

from jaxtrader.cli.settings import COMMANDS, key_of
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
    """What is wrong, and the nearest that is right."""
    error.verbose = False
    command = (error.command_chain or [""])[0]
    if isinstance(error, cyclopts.UnknownOptionError):
        if error.token.source != "cli":
            key = (error.token.keyword or "").strip("[]")
            return f"{error.token.source}: {key} is no setting{_meant(key, COMMANDS[command].fields, KEY_SYNONYMS)}"
        return _unknown_flag((error.token.keyword or error.token.value).partition("=")[0], command)
    if isinstance(error, cyclopts.UnknownCommandError) and error.unused_tokens:
        return _unknown_command(error.unused_tokens[0])
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        word, name = error.unused_tokens[0], " ".join(["jaxtrader", *(error.command_chain or ())])
        way = "give one file, or a folder or zip archive of several, and " if command == "data" else ""
        if command in COMMANDS and "--data" in COMMANDS[command].names:
            way = f"give a file as --data {word}, and "
        return f"{name} does not expect {word}; {way}see {name} --help"
    key = getattr(getattr(error, "token", None), "keyword", None) or ""
    return str(error).replace(key, key.strip("[]")) if key else str(error)  # cyclopts puts keys of files into brackets


def _unknown_flag(word: str, command: str) -> str:
    """What to say of a flag that the command does not have."""
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
    """What to say of a first word that is no command."""
    names = ", ".join(COMMANDS)
    if word.startswith("-"):
        meant = nearest(word, ("--help", "--version"))
        way = f"did you mean {meant}?" if meant else f"as in jaxtrader train {word}"
        return f"{word} stands where a command is expected ({names}), {way}"
    meant = _meant(word, [*COMMANDS, "--help", "--version"], COMMAND_SYNONYMS)
    return f"{word} is no command; the commands are {names}{meant}"


def _meant(word: str, names: Iterable[str], synonyms: Mapping[str, str] = NO_SYNONYMS) -> str:
    """The end of the sentence, which names the nearest."""
    name = nearest(word, names, synonyms)
    return "" if name is None else f"; did you mean {name}?"
