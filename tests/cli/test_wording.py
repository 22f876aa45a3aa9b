"""Messages of the API in the words of the command line, and the form of messages by which they are found.

A message names a setting in backquotes, as code. `jaxtrader.setting_checks.setting` writes it.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jaxtrader as jt
from jaxtrader.agents.ppo_settings import PPOSettings
from jaxtrader.cli.config_file import FileSettings
from jaxtrader.cli.settings import COMMANDS, BadInput, BadSetting, flag
from jaxtrader.cli.wording import as_given, translated
from jaxtrader.envs.env_settings import EnvSettings
from jaxtrader.ledger.cost_rates import CostRates
from jaxtrader.setting_checks import setting
from jaxtrader.training.train_settings import TrainSettings

PACKAGE = Path(jt.__file__).parent
BUILDS: dict[type, Callable[..., Any]] = {
    jt.Rules: jt.Rules,
    CostRates: lambda **given: jt.Costs(**given).validate(),
    PPOSettings: lambda **given: jt.PPOAgent(**given).validate(),
    TrainSettings: lambda **given: TrainSettings(**{"total_steps": 1} | given).validate_settings(),
    EnvSettings: EnvSettings,
}
WRONG = (-5, 1e9, (-1,), float("nan"))
NUMBER = re.compile(r"float|int|Rate")


def refusals() -> list[Any]:
    """A message for each setting with numbers that the API refuses, with the name of the setting."""
    found = []
    for cls, build in BUILDS.items():
        for field in dataclasses.fields(cls):
            if not NUMBER.search(str(field.type)):
                continue
            for wrong in WRONG if "int" not in str(field.type) else WRONG[:-1]:
                try:
                    build(**{field.name: wrong})
                except (ValueError, TypeError) as error:
                    if isinstance(error, ValueError):
                        found.append(pytest.param(field.name, str(error), id=f"{field.name}-{wrong}"))
    return found


REFUSALS = refusals()
SETTINGS = {field.name for command in COMMANDS.values() for field in command.fields.values()}
UNDERSCORED = "|".join(sorted(name for name in SETTINGS if "_" in name))
# A name with an underscore is no common word. Other names are settings where a value follows.
NAMED = re.compile(rf"(?<![\w./-])(?:(?:{UNDERSCORED})(?!\w)|(?:{'|'.join(SETTINGS)})=)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*(?![\w-]| FILE)")
SENTENCE_END = re.compile(r"[.?!] +[A-Z{]")
CALL = re.compile(r"[\w.]+\(.*\)")


def outside_backquotes(text: str) -> str:
    return " ".join(text.split("`")[::2])


def test_most_settings_are_refused_somewhere() -> None:
    assert len({param.values[0] for param in REFUSALS}) > 30


@pytest.mark.parametrize(("name", "message"), REFUSALS)
def test_what_the_api_refuses_is_named_by_its_flag(name: str, message: str) -> None:
    assert f"`{name}`" in message or f"`{name}=" in message
    assert not NAMED.search(outside_backquotes(message))
    text = translated(message)
    assert name not in SETTINGS or flag(name) in text
    assert not re.search(rf"`({'|'.join(SETTINGS)})[=`]|\bNone\b", text)


# --- the source ---


def is_in(node: ast.AST, kinds: tuple[type, ...], parents: dict[ast.AST, ast.AST]) -> bool:
    while node in parents:
        node = parents[node]
        if isinstance(node, kinds):
            return True
    return False


def texts(tree: ast.AST, only_raised: bool) -> Iterator[tuple[int, str]]:
    """Texts of several words in a module with their lines, but for docstrings. What is put into a text is `{}`."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if isinstance(parents[node], ast.Expr | ast.JoinedStr):
                continue
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        else:
            continue
        if " " in text and (not only_raised or is_in(node, (ast.Raise,), parents)):
            yield node.lineno, text


def faults(source: str, only_raised: bool = False) -> list[str]:
    """Texts that name a setting outside of backquotes, or a flag. A text that is a call as a whole is code."""
    return [
        f"{line}: {text}"
        for line, text in texts(ast.parse(source), only_raised)
        if not CALL.fullmatch(text)
        for words in [outside_backquotes(text)]
        if NAMED.search(words) or FLAG.search(words)
    ]


@pytest.mark.parametrize(
    ("line", "is_fault"),
    [
        ('raise ValueError(f"max_leverage {x} is outside (0, 1]")', True),
        ('raise DataError(f"{name}: " + f"window={x} must be less")', True),
        ("note = f\"{x} bars were left out; label='open' keeps them\"", True),
        ('raise ValueError("use fewer --num-envs")', True),
        ("raise ValueError(f\"{setting('max_leverage', x)} is outside (0, 1]\")", False),
        ("note = f\"{x} bars were left out; `label='open'` keeps them\"", False),
        ('return f"Trainer(..., run_dir={x!r}).train(resume=True)"', False),
        ('"""The num_envs of a training."""', False),
        ('raise BadInput(f"{run} does not say its data; give --data FILE")', False),
    ],
)
def test_a_text_that_names_a_setting_as_a_word_is_found(line: str, is_fault: bool) -> None:
    assert bool(faults(line)) == is_fault


def modules() -> list[str]:
    found = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]
    return [name for name in found if not name.startswith("examples/")]


@pytest.mark.parametrize("module", modules())
def test_texts_name_settings_in_backquotes(module: str) -> None:
    """The command line prints flags too. What it raises may be about a setting of a file, but for --resume."""
    is_command = module.startswith("cli/")
    found = faults((PACKAGE / module).read_text(encoding="utf-8"), only_raised=is_command)
    assert not [fault for fault in found if not is_command or "--resume" not in fault]


@pytest.mark.parametrize("module", modules())
def test_an_error_has_a_full_stop_where_it_has_several_sentences(module: str) -> None:
    for line, text in texts(ast.parse((PACKAGE / module).read_text(encoding="utf-8")), only_raised=True):
        is_whole = text[0] not in " ,;" and text[-1] not in " ,:"  # not one of several parts
        assert not is_whole or text.endswith(".") == bool(SENTENCE_END.search(text)), f"{line}: {text}"


# --- the words of a command ---


@pytest.mark.parametrize(
    ("message", "text", "of_file"),
    [
        ("`max_leverage=2.0` is outside (0, 1]", "--leverage 2 is outside (0, 1]", "leverage = 2 is outside (0, 1]"),
        ("`fee=-0.0001` is below `fee=0.0`", "--fee-bps -1 is below --fee-bps 0", "fee_bps = -1 is below fee_bps = 0"),
        ("`hidden=(8, 8)` is odd", "--hidden 8,8 is odd", "hidden = [8, 8] is odd"),
        (
            "use `window=32`, or `encoder='mlp'`",
            "use --window 32, or --encoder mlp",
            'use window = 32, or encoder = "mlp"',
        ),
        ("`adjust=False` keeps them", "--no-adjust keeps them", "adjust = false keeps them"),
        ("use `anchored=True`", "use --anchored", "use anchored = true"),
        ("name the zone with `tz`", "name the zone with --tz", "name the zone with tz"),
        ("`align=True` needs bars", "--portfolio needs bars", "portfolio = true needs bars"),
        ("leave out `align`", "leave out --portfolio", "leave out portfolio"),
        ("`encoder_depth=None` is it", "--encoder-depth none is it", 'encoder_depth = "none" is it'),
        ("`tz=''` is unknown", "--tz '' is unknown", 'tz = "" is unknown'),
        ("`label={'A': 'open', 'B': 'close'}`", "--label A=open,B=close", 'label = "A=open,B=close"'),
        ("`gamma=nan` is none", "--gamma nan is none", "gamma = 7 is none"),
        ("`hidden=(1, 2, 3...`", "--hidden (1, 2, 3...", "hidden = 7"),
    ],
)
def test_a_setting_is_named_as_it_was_given(message: str, text: str, of_file: str) -> None:
    assert translated(message) == text
    keys = ("fee_bps", "hidden", "window", "encoder", "adjust", "anchored", "tz", "portfolio", "encoder_depth", "label")
    assert (
        translated(message, FileSettings.of(Path("a.toml"), dict.fromkeys(("leverage", "gamma", *keys), 7))) == of_file
    )


@pytest.mark.parametrize(
    "message",
    [
        "--seed -1 is outside 0 to 9",
        "runs/max_leverage/policy.pkl cannot be read",
        "the column 'num_envs' is missing",
        "it ends 5 bars before the start 7",
        "give a window of bars",
        "make one with `Market.from_bars(bars, features=['gap'])`",
        "`jaxtrader train --resume runs/seed` goes on",
        "go on from Python with `train(resume=True)`",
    ],
)
def test_what_is_no_setting_stays(message: str) -> None:
    assert translated(message) == message


def test_an_error_names_the_file_where_it_gave_the_setting() -> None:
    file = FileSettings.of(Path("a.toml"), {"leverage": 2})
    for given, said in (
        (BadInput("`max_leverage=2.0` is odd"), "a.toml: leverage = 2 is odd"),
        (BadInput("`window=2` is odd"), "--window 2 is odd"),
        (BadSetting("b.toml: leverage = 3 is odd"), "b.toml: leverage = 3 is odd"),
    ):
        with pytest.raises(BadInput) as caught, as_given(file):
            raise given
        assert str(caught.value) == said


def test_a_setting_is_written_as_python() -> None:
    from numpy import float32, int64, zeros

    assert setting("window") == "`window`"
    assert setting("gamma", float32(0.9)) == "`gamma=0.9`"
    assert setting("window", int64(3)) == "`window=3`"
    assert setting("tz", "UTC") == "`tz='UTC'`"
    assert setting("hidden", tuple(range(100))).endswith("...`")
    assert "\n" not in setting("targets", zeros((9, 2)))
    path = "runs/" + "a" * 200
    assert setting("init_from", path) == f"`init_from={path!r}`"
