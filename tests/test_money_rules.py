"""Every money rule that a docstring cites is a heading of the ledger's README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxtrader"
RULES = PACKAGE / "ledger" / "README.md"
LEAST = 15  # fewer rules than are cited today: the pattern below no longer finds them

ONE = r"\d+[a-z]?(?:-\d+[a-z]?)?"
CITATION = re.compile(rf"money\s+rules?\s+({ONE}(?:(?:,\s+and|,|\s+and)\s+{ONE})*)", re.IGNORECASE)
CROSS_REFERENCE = re.compile(rf"(?<!money )rules?\s+({ONE}(?:(?:,\s+and|,|\s+and|\s+to)\s+{ONE})*)")
STEP = re.compile(rf"money\s+rule\s+({ONE}),\s+step\s+(\d+),\s+(?:the\s+)?(\w+(?:\s\w+)?)[).]")
MENTION = re.compile(r"money\s*(?:\.md|\s+rules?\s*\d)", re.IGNORECASE)


def headings(text: str) -> set[str]:
    """The numbers of the rules that a text defines: "2" and "2c" of `### 2. ...` and `#### 2c. ...`."""
    return set(re.findall(r"^#{3,4} (\d+[a-z]?)\. ", text, re.MULTILINE))


def cited(citation: str) -> list[str]:
    """The rules of one citation: "2b-2d, 7 and 8" is 2b, 2c, 2d, 7, 8."""
    rules = []
    for part in re.findall(ONE, citation):
        first, _, last = part.partition("-")
        if not last:
            rules.append(first)
        elif first.isdigit():
            rules += [str(number) for number in range(int(first), int(last) + 1)]
        else:
            number = first[:-1]
            assert last[:-1] == number, f"{part} goes from one rule's events to another's"
            rules += [f"{number}{chr(letter)}" for letter in range(ord(first[-1]), ord(last[-1]) + 1)]
    return rules


def citations() -> list[tuple[str, str]]:
    """File and rule of each citation in the package's modules."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for match in CITATION.finditer(path.read_text()):
            found += [(str(path.relative_to(ROOT)), rule) for rule in cited(match[1])]
    return found


def test_every_cited_money_rule_is_a_heading_of_the_ledgers_readme() -> None:
    known, found = headings(RULES.read_text()), citations()
    assert [(path, rule) for path, rule in found if rule not in known] == []
    assert len(found) >= LEAST


def steps(text: str, rule: str) -> dict[str, str]:
    """The numbered steps of a rule by number, each with its name, which is bold."""
    section = re.split(rf"^#{{3,4}} {rule}\. ", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#{3,4} ", section, flags=re.MULTILINE)[0]
    found = re.findall(r"^(\d+)\. \*\*(.+?)[.,]?\*\*", section, re.MULTILINE)
    return {number: name.lower().removeprefix("the ") for number, name in found}


def test_every_cited_step_has_the_number_and_the_name_that_the_rule_gives_it() -> None:
    text, found = RULES.read_text(), 0
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.read_text()
        cited_steps = STEP.findall(module)
        assert len(cited_steps) == len(re.findall(r"money\s+rule\s+\w+,\s+step", module)), path
        for rule, number, name in cited_steps:
            assert steps(text, rule)[number] == name, (path, rule, number, name)
        found += len(cited_steps)
    assert found
    assert steps(text, "5")["3"] == "volume cap"


def test_every_mention_of_a_money_rule_has_the_form_of_a_citation() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        assert len(MENTION.findall(text)) == len(CITATION.findall(text)), path


def test_the_rules_refer_to_rules_that_exist() -> None:
    text = RULES.read_text()
    found = [rule for match in CROSS_REFERENCE.finditer(text) for rule in cited(match[1])]
    assert set(found) <= headings(text)
    assert found


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("(money rule 5)", ["5"]),
        ("(money rules 3, 5, 8)", ["3", "5", "8"]),
        ("(money\n    rules 2b-2d, 7 and 10)", ["2b", "2c", "2d", "7", "10"]),
        ("Money rules 3-5.", ["3", "4", "5"]),
    ],
)
def test_citations_are_read_whatever_their_form(text: str, rules: list[str]) -> None:
    (match,) = CITATION.finditer(text)
    assert cited(match[1]) == rules


def test_a_rule_that_does_not_exist_is_none_of_the_headings() -> None:
    assert {"1", "2", "2a", "2g", "4a", "11", "12"} <= headings(RULES.read_text())
    assert not {"0", "2h", "99"} & headings(RULES.read_text())
