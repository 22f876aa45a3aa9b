"""What is printed of a result: cells against hand-written figures, the sentence against hand-computed ones."""

import io
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from jaxtrader.evaluation import tables
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED

NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?")
DAYS = np.datetime64("2011-01-03", "ns") + np.arange(504) * np.timedelta64(1, "D")


class BacktestResult(SimpleNamespace):
    def __len__(self):
        return len(self.times)


def result(sharpe=1.0, cagr=0.1, members=(), **figures):
    """A stand-in with the fields of a BacktestResult that are read; 504 bars are 2 years."""
    numbers = {"sharpe": sharpe, "cagr": cagr, "max_drawdown": -0.25, "mean_exposure": 0.5, "turnover": 3.0}
    return BacktestResult(
        metrics=numbers | {"costs": 0.0123, "total_return": -0.993} | figures,
        symbols=tuple(members) or ("A",),
        by_symbol={name: result(sharpe, cagr) for name in members},
        times=DAYS,
        periods_per_year=252.0,
        ruined_at=None,
    )


def part(policy=1.0, buy_and_hold=0.8, matched=0.9, members=(), **figures):
    ratios = {tables.POLICY: policy, BUY_AND_HOLD: buy_and_hold, EXPOSURE_MATCHED: matched}
    return {name: result(ratio, members=members, **figures) for name, ratio in ratios.items()}


def printed(renderable, width=100):
    out = io.StringIO()
    tables.console(out, width).print(renderable)
    return out.getvalue()


def test_a_row_holds_the_figures_of_each_part_side_by_side():
    lines = printed(tables.table({"train": part(2.0), "test": part(-0.333)}), 80).splitlines()
    assert lines[0] == " " * 14 + "  ────── train ───────  ─────── test ───────"
    assert lines[1].split() == ["return", "Sharpe", "max", "dd"] * 2
    assert lines[2] == "A             " + "   10.0%   2.00 -25.0%" + "   10.0%  -0.33 -25.0%"
    assert lines[3] == " buy and hold " + "   10.0%   0.80 -25.0%" * 2
    assert lines[4] == " same exposure" + "   10.0%   0.90 -25.0%" * 2
    assert "A             " + "    0.50   3.00  1.23%" * 2 in lines


def test_each_symbol_and_all_together_have_rows_and_a_missing_symbol_a_dash():
    text = printed(tables.table({"train": part(members=("A", "B")), "test": part(members=("A",))}))
    rows = {line.split()[0]: line for line in text.splitlines()[2:] if line and not line.startswith(" ")}
    assert rows["B"].split() == ["B", "0.50", "3.00", "1.23%", "-", "-", "-"]
    assert rows["all"].split()[:2] == ["all", "2"]


def test_many_symbols_are_counted_not_listed():
    names = tuple(f"S{i}" for i in range(11))
    text = printed(tables.table({"test": part(members=names)}))
    assert "S7" in text
    assert "S8" not in text
    assert "3 more symbols are not shown" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_three_parts_fit_the_terminal_in_plain_text(width):
    big = part(12345.6, cagr=1e7, turnover=123456.0, members=("A", "AVERYLONGSYMBOLNAME"))
    text = printed(tables.table(dict.fromkeys(("train", "validation", "test"), big)), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("-25.0%") == 27, "no figure is shortened"
    assert "\x1b" not in text
    assert ">1e4%" in text


def test_a_narrow_terminal_cuts_parts_off_and_shortens_no_figure():
    lines = printed(tables.table(dict.fromkeys(("train", "validation", "test"), part())), 60).splitlines()
    assert lines[2] == "A             " + "   10.0%   1.00 -25.0%" * 2 + "  "


@pytest.mark.parametrize(
    ("share", "text"), [(0.0984, "9.8%"), (-1.0, "-100%"), (12.345, "1234%"), (float("nan"), "-"), (-200.0, "<-1e4%")]
)
def test_a_percentage_has_six_characters_at_most(share, text):
    assert tables._short(share, 1, "%") == text


def test_the_sentence_names_the_baselines_the_gap_and_the_noise():
    text = tables.sentence({"train": part(1.75), "test": part(1.0, 0.8, 0.9)})
    # Lo 2002: sqrt((1 + 1^2 / (2 * 252)) / 2 years) = 0.7078
    numbers = ["1.00", "0.80", "0.90", "0.50", "+0.10", "2.0 years", "0.71", "1.75", "0.75"]
    places = [text.index(number) for number in numbers]
    assert places == sorted(places)
    assert "the test part (2011-01-03 to 2012-05-20, unseen" in text
    assert text.count("+10.0% a year") == 3
    assert "better than holding that exposure" in text
    assert "may be chance" in text


def test_the_sentence_does_not_praise_a_policy_that_is_behind():
    text = tables.sentence({"test": part(0.5, 0.8, 0.9)})
    assert "worse than holding that exposure (-0.40)" in text
    assert "training Sharpe" not in text


def test_a_large_lead_is_still_one_history():
    text = tables.sentence({"prices.csv": part(5.0, 0.8, 0.9)})
    assert text.startswith("On prices.csv (2011")
    assert "unseen" not in text
    assert "may be chance" not in text
    assert "single history" in text


def test_the_sentence_says_ruin_and_idleness():
    ruined = part()
    ruined[tables.POLICY].ruined_at = 17
    assert "ruined at bar 17" in tables.sentence({"test": ruined})
    assert "99%" in tables.sentence({"test": ruined})
    assert "too little" in tables.sentence({"test": part(float("nan"))})


def test_a_mean_exposure_below_the_band_is_compared_with_cash():
    text = tables.sentence({"test": part(policy=0.5, matched=math.nan)})
    assert "better than cash" in text
    assert "too little" not in text


def test_trades_are_counted_by_hand():
    trades = np.array(
        [(0.1, 0.2, 10, False), (-0.05, -0.1, 20, False), (0.0, 0.0, 5, True)],
        [("pnl", "f8"), ("return", "f8"), ("bars", "i8"), ("open", "?")],
    )
    free = np.zeros(3)
    text = tables.trades_line(SimpleNamespace(trades=trades, fills=np.zeros(7), financing=free))
    assert NUMBER.findall(text) == ["2", "50%", "+5.00%", "15", "1", "7"]
    idle = SimpleNamespace(trades=trades[2:], fills=np.zeros(1), financing=free)
    assert NUMBER.findall(tables.trades_line(idle)) == ["0", "1", "1"]
    paid = SimpleNamespace(trades=trades[2:], fills=np.zeros(1), financing=np.array([-0.02, 0.005, 0]))
    assert NUMBER.findall(tables.trades_line(paid)) == ["0", "1", "1", "-1.50%"]


def test_orders_that_were_not_filled_as_asked_are_told():
    counts = {"clipped": 3, "dropped": 1200, "ignored_targets": 0}
    assert NUMBER.findall(tables.orders_line(SimpleNamespace(**counts))) == ["3", "1,200"]
    assert tables.orders_line(SimpleNamespace(**dict.fromkeys(counts, 0))) is None


@pytest.mark.parametrize(
    ("cost", "text"),
    [(1234.56, "1,234.6 bp of its value more"), (-0.44, "0.4 bp of its value less"), (math.nan, "none")],
)
def test_the_break_even_cost_in_words(cost, text):
    assert text in tables.break_even_line(cost)


def test_notes_with_one_text_share_a_line():
    notes = ["A: adjusted.", "A: 3 gaps: large.", "B: adjusted."]
    assert tables.grouped(notes) == ["A, B: adjusted.", "A: 3 gaps: large."]


def test_facts_wrap_under_their_beginning_and_keep_paths_whole():
    out = io.StringIO()
    path = "/a/very/long-path/that/must/be/copied/whole/policy.pkl"
    command = "jaxtrader train --data prices.csv --symbols A,B"
    rows = [("data", "one two three four five six seven eight"), ("to", path), ("next", command)]
    tables.print_facts(tables.console(out, 40), rows)
    lines = ["data  one two three four five six seven", "      eight", f"to    {path}", f"next  {command}"]
    assert out.getvalue().splitlines() == lines


def test_a_pipe_gets_a_hundred_columns_and_no_codes_even_if_colour_is_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    out = io.StringIO()
    console = tables.console(out)
    assert console.width == 100
    console.print(tables.table({"test": part()}))
    assert "\x1b" not in out.getvalue()
