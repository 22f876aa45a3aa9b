"""The READMEs: their Python blocks run, the commands in them have the flags that they name, and they stay short."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from jaxtrader.cli import main

ROOT = Path(__file__).parents[1]
TOP = ROOT / "README.md"
PACKAGE = ROOT / "jaxtrader" / "README.md"
FOLDERS = sorted((ROOT / "jaxtrader").glob("*/README.md"))
# Words, as `wc -w` counts them. The money rules take the room that they need.
LIMITS = {TOP: 900, ROOT / "benchmarks" / "README.md": 2500}
LIMITS |= {PACKAGE: 400} | {path: 400 for path in FOLDERS if path.parent.name != "ledger"}
TEST_COMMAND = "<!-- the test command -->\n```bash\npip install"

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?%?")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# The examples of these train a policy, solve for the best one, or compile a program for each money rule. The rules have
# further bars worked out by hand, which are quick: see tests/ledger/test_worked_bars.py.
LONG = {TOP} | {ROOT / "jaxtrader" / folder / "README.md" for folder in ("training", "evaluation", "live", "ledger")}
EXAMPLES = [pytest.param(path, marks=[pytest.mark.slow] if path in LONG else []) for path in (TOP, *FOLDERS)]


@pytest.mark.parametrize("readme", EXAMPLES, ids=name)
def test_the_python_blocks_of_a_readme_run_one_after_the_other(
    readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one namespace, in an empty folder. A block of text behind a block of Python is what that prints last."""
    monkeypatch.chdir(tmp_path)
    text, space, printed = readme.read_text(), {"__name__": "readme"}, ""
    for block in BLOCK.finditer(text):
        language, body = block.groups()
        if language == "text":
            wanted = shape(body)
            assert shape(printed)[-len(wanted) :] == wanted
        if language != "python":
            continue
        above = "\n" * text.count("\n", 0, block.start(2))  # so that a traceback shows the README's own line
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(above + body, readme, "exec"), space)
        printed = out.getvalue()


def shape(printed: str) -> list[str]:
    """What was printed, word by word, without its numbers: those differ a little from machine to machine."""
    return NUMBER.sub("#", printed).split()


@pytest.mark.parametrize("readme", LIMITS, ids=name)
def test_a_readme_is_short(readme: Path) -> None:
    assert len(readme.read_text().split()) <= LIMITS[readme]


NAMES = {path.parent.name for path in FOLDERS}
IMPORTS = re.compile(r"\b[Ii]mports(?:\*\* are)? (?=[a-z`])(.+?)\.\s", re.DOTALL)


def imported(path: Path) -> set[str]:
    """The folders of the package that a module imports when it runs."""
    found = set()
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    parts = [each.split(".") for each in found]
    return {part[1] for part in parts if part[0] == "jaxtrader" and part[1:]} & NAMES


@pytest.mark.parametrize("readme", [path for path in FOLDERS if path.parent.name != "examples"], ids=name)
def test_a_readme_names_the_folders_that_its_folder_imports(readme: Path) -> None:
    """Modules of the package's root are for all folders."""
    folder = readme.parent
    sentence = IMPORTS.search(BLOCK.sub("", readme.read_text()))
    assert sentence, "no sentence of the form 'It imports market, ledger and envs.'"
    named = set(re.findall(r"\w+", sentence[1])) & NAMES
    if sentence[1].startswith("all but"):
        named = NAMES - named - {folder.name}
    assert set().union(*map(imported, folder.rglob("*.py"))) - {folder.name} == named


def test_what_all_folders_may_import_imports_none_of_them() -> None:
    package = ROOT / "jaxtrader"
    root = set(package.glob("*.py")) - {package / "__init__.py", package / "__main__.py"}
    assert {path.name: imported(path) for path in root if imported(path)} == {}


@pytest.mark.parametrize("readme", [TOP, *FOLDERS], ids=name)
def test_the_commands_of_a_readme_exist_and_have_the_flags_they_are_shown_with(readme: Path) -> None:
    blocks = [body for language, body in BLOCK.findall(readme.read_text()) if language == "bash"]
    lines = [line for body in blocks for line in re.split(r"\n|&&", body.replace("\\\n", " "))]
    for line in lines:
        command, *words = shlex.split(line, comments=True) or [""]
        if command == "jaxtrader":
            parse_only(words)


def parse_only(argv: list[str]) -> None:
    """Check a command line against the help of its command, without running it."""
    command = argv[:1] if argv and not argv[0].startswith("-") else []
    for each in command:
        assert re.search(rf"^\W*{re.escape(each)}\b", help_of(), re.MULTILINE), f"jaxtrader has no command {each}"
    known = set(re.findall(r"--[a-z][a-z-]*", help_of(*command)))
    flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
    assert flags <= known, f"jaxtrader {' '.join(command)} has no {', '.join(sorted(flags - known))}"


@cache
def help_of(*command: str) -> str:
    """All of a command's help: behind `--help-all` where there is such a flag."""
    for flag in ("--help-all", "--help"):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            code = main([*command, flag])
        if code == 0:
            break
    return out.getvalue()


def test_the_command_that_runs_the_tests_stands_behind_its_marker() -> None:
    """Whoever checks a commit in a new environment reads the command there."""
    assert TEST_COMMAND in TOP.read_text()


def test_a_flag_that_does_not_exist_is_found() -> None:
    parse_only(["train", "--data", "prices.csv"])
    with pytest.raises(AssertionError, match="--no-such-flag"):
        parse_only(["train", "--no-such-flag", "1"])
    with pytest.raises(AssertionError, match="no-such-command"):
        parse_only(["no-such-command"])


@pytest.mark.parametrize("readme", [TOP, PACKAGE, *FOLDERS], ids=name)
def test_the_modules_that_a_readme_names_exist(readme: Path) -> None:
    existing = {path.name for folder in ("jaxtrader", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")}
    named = set(re.findall(r"(?<![\w.:*])(\w+\.py)\b", BLOCK.sub("", readme.read_text())))
    assert named - existing - {"backtesting.py"} == set()  # a library


def test_the_readme_of_the_package_names_each_folder_and_each_module_of_its_root() -> None:
    named = re.findall(r"^\| (?:\[(\w+)\]|`(\w+\.py)`)", PACKAGE.read_text(), re.MULTILINE)
    existing = {path.parent.name for path in FOLDERS} | {path.name for path in PACKAGE.parent.glob("*.py")}
    assert sorted(folder or module for folder, module in named) == sorted(existing)
