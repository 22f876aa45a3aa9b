"""Text from files does nothing to whoever is shown it: in the terminal, in messages, in HTML and in CSV."""

from __future__ import annotations

import io
import json
import re
import tomllib
import warnings
from pathlib import Path

import pandas as pd
import pytest
from report.parts import parts_and_markets
from rich.text import Text

import jaxtrader as jt
from jaxtrader import terminal
from jaxtrader.cli import config_file, main
from jaxtrader.cli.settings import BAD_INPUT, OK, resolved
from jaxtrader.files import FileError
from jaxtrader.printable import as_csv, plain_cell, printable, printable_data, shown
from jaxtrader.report.content import make_report
from jaxtrader.report.page import page

CLEAR, TURN = "\x1b[2J\x1b[H", "\u202e"  # clears a terminal, writes what follows from right to left
NAME = f"a{CLEAR}{TURN}b\u2028\x9b1m"
ROWS = "".join(f"{name},2024-01-{day:02d},9,11,8,10,5,1\n" for name in (f"X{NAME}", "=1+1") for day in range(2, 9))
PRICES = f"symbol,date,open,high,low,close,volume,more{NAME}\n{ROWS}"


def test_only_what_can_be_seen_is_left() -> None:
    assert printable("grün 株 שלום") == "grün 株 שלום"
    assert printable(NAME).isprintable()
    assert printable(NAME).split() == ["a", "[2J", "[H", "b", "1m"]
    assert shown(f"{CLEAR}{'x' * 50}", 10) == "[2J [Hxxx..."
    assert printable(TURN) == ""
    assert printable_data({NAME: [NAME, (1, NAME)], "n": 1.5}) == {
        printable(NAME): [printable(NAME), (1, printable(NAME))],
        "n": 1.5,
    }


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1+1", "\r=1", " =1+1", "\x00=1"])
def test_a_formula_becomes_a_text(text: str) -> None:
    assert plain_cell(text).startswith("'")
    assert plain_cell(text).isprintable()


@pytest.mark.parametrize("cell", ["AAPL", "BRK-B", "^GSPC", "'=1", -1.5, None, True])
def test_other_cells_stay(cell: object) -> None:
    assert plain_cell(cell) is cell


def test_the_names_in_a_price_file_are_printable(tmp_path: Path) -> None:
    path = tmp_path / f"p{NAME}.csv"
    path.write_text(PRICES, encoding="utf-8")
    histories = jt.load_bars(path)
    assert isinstance(histories, tuple)
    assert [bars.symbols[0] for bars in histories] == [printable(f"X{NAME}"), "=1+1"]
    for bars in histories:
        texts = [repr(bars), bars.source, bars.format, *bars.columns, *bars.notes]
        assert all(text.isprintable() for text in texts)
        assert printable(f"more{NAME}") in bars.columns


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("10,5", f"{NAME},5"), "which is not a number"),
        (("2024-01-02", NAME), "is not a readable time"),
        (("=1+1", f"X{printable(NAME)}"), "differ in what cannot be seen"),
        (("volume", f"more{printable(NAME)}"), "two columns named"),
    ],
)
def test_a_refusal_is_printable(wrong: tuple[str, str], says: str, tmp_path: Path) -> None:
    path = tmp_path / f"p{NAME}.csv"
    path.write_text(PRICES.replace(*wrong), encoding="utf-8")
    with pytest.raises(jt.DataError, match=says) as no:
        jt.load_bars(path)
    assert str(no.value).isprintable()
    with pytest.raises(FileError) as other:
        jt.load_policy(tmp_path / NAME)
    assert str(other.value).isprintable()


def test_the_command_prints_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"p{NAME}.csv"
    path.write_text(PRICES, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codes = [main(["data", str(path)]), main(["data", str(tmp_path / NAME)]), main(["backtest", str(path)])]
    assert codes == [OK, BAD_INPUT, BAD_INPUT]
    told = capsys.readouterr()
    assert all(line.isprintable() for line in (told.out + told.err).split("\n"))


def test_a_config_file_keeps_the_characters_of_a_path_as_escapes() -> None:
    text = config_file.text("train", resolved("train", {"data": f"é{NAME}"}))
    assert all(line.isprintable() for line in text.split("\n"))
    assert config_file.flat(tomllib.loads(text), Path())["data"] == f"é{NAME}"


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_a_terminal_gets_the_controls_of_rich_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    out = terminal.console(stream)
    out.print(Text.assemble((NAME, "bold"), "\nsecond line"))
    out.print(NAME, markup=False)
    left = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert left != stream.getvalue(), "bold is kept"
    assert [line.strip() for line in left.split("\n")][1] == "second line"
    assert all(line.isprintable() for line in left.split("\n"))


def test_a_page_shows_no_control_characters() -> None:
    parts, markets = parts_and_markets((f"=1{NAME}", "B"))
    report = make_report(parts, markets, title=NAME, verdict=[NAME], settings={NAME: NAME})
    text = page(report)
    for character in ("\x1b", TURN, "\x9b"):
        assert character not in text
        assert json.dumps(character).strip('"') not in text
    for table in ("equity", "trades", "fills"):
        lines = as_csv(report.frames[table], index=table == "equity").split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(cell.startswith("=") for line in lines for cell in line.split(","))


def test_a_table_for_a_spreadsheet_holds_no_formulas() -> None:
    frame = pd.DataFrame({"symbol": ["=cmd|' /C calc'!A0", "A"], "profit": [-1.5, 2.0], "=more": ["-", None]})
    assert as_csv(frame, index=False).splitlines() == ["symbol,profit,'=more", "'=cmd|' /C calc'!A0,-1.5,'-", "A,2.0,"]
