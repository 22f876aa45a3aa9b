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
from jaxtrader.evaluation.combined import combine

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
# Training rounds as the machine does, and a rounding may choose another policy. The table of README.md is that of AVX2
# and AVX-512. With SSE4.2 the policy's growth is 14% smaller, its Sharpe ratio 11%, and its drawdown 6% larger. A
# quarter of each number is allowed, which never changes a sign. All other numbers are exact to the printed digit.
TRAINED = re.compile(r"(policy|buy and hold at mean exposure) ")
BAND = 0.25


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
            check_printed(printed, body)
        if language != "python":
            continue
        above = "\n" * text.count("\n", 0, block.start(2))  # so that a traceback shows the README's own line
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(above + body, readme, "exec"), space)
        printed = out.getvalue()


def check_printed(printed: str, wanted: str) -> None:
    """The last lines that were printed are those of the README: the words, and the numbers within their tolerance."""
    rows = wanted.splitlines()
    for line, row in zip(printed.splitlines()[-len(rows) :], rows, strict=True):
        assert NUMBER.sub("#", line).split() == NUMBER.sub("#", row).split()
        tolerance = BAND if TRAINED.match(row) else 0
        assert numbers(line) == pytest.approx(numbers(row), rel=tolerance, abs=0), row


def numbers(line: str) -> list[float]:
    return [float(found.rstrip("%.,").replace(",", "")) for found in NUMBER.findall(line)]


TABLE = "              sharpe  cagr\npolicy          0.76  0.08\nbuy and hold    0.71  0.12\n"


def test_the_row_of_buy_and_hold_needs_no_training() -> None:
    """It is exact here too, where the whole example is slow. A held exposure stands for the policy."""
    example, table = (body for _, body in BLOCK.findall(TOP.read_text())[1:3])
    before, after = re.split(r"^env = .*?^result = .*?$", example, flags=re.MULTILINE | re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(before, space := {})
        space["result"] = combine(space["jt"].simulate(space["test"], dict.fromkeys(space["test"].symbols, 1.0)))
        exec(after, space)
    found, wanted = (re.search(r"^buy and hold  .*", text, re.MULTILINE)[0] for text in (out.getvalue(), table))
    assert numbers(found) == numbers(wanted)


@pytest.mark.parametrize("given", ["0.76", "0.58", "0.94"])
def test_a_trained_row_may_differ_as_machines_do(given: str) -> None:
    check_printed("above\n" + TABLE.replace("0.76", given), TABLE)


@pytest.mark.parametrize(
    ("number", "given"), [("0.76", "0.56"), ("0.76", "0.96"), ("0.08", "-0.08"), ("0.76", "nan"), ("0.71", "0.70")]
)
def test_numbers_that_are_not_those_of_a_table_are_found(number: str, given: str) -> None:
    with pytest.raises(AssertionError):
        check_printed(TABLE.replace(number, given), TABLE)


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
