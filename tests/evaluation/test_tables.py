"""What is printed of a result: cells against hand-written figures, and the same figures as plain data."""

import dataclasses
import io
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation.accounts import account, returns

from jaxtrader.evaluation import tables
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.combined import combine
from jaxtrader.ledger.rules import Rules

NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*%?")
LEVELS = {tables.POLICY: 1.0, BUY_AND_HOLD: 0.8, EXPOSURE_MATCHED: 0.9}  # Sharpe ratios of a year


def part(bars=504, **options):
    """504 bars are two years of trading, 120 less than one."""
    return {name: account(returns(level, bars), **options) for name, level in LEVELS.items()}


def printed(parts, width=100):
    out = io.StringIO()
    tables.console(out, width).print(tables.ResultTable(parts))
    return out.getvalue()


def cells(result, *columns):
    """Figures as a reader would write them."""
    return [
        f"{100 * result.metrics[name]:.{d}f}%" if kind == "%" else f"{result.metrics[name]:.{d}f}"
        for name, d, kind in columns
    ]


def test_a_row_holds_the_figures_of_each_part_side_by_side():
    parts = {"train": part(), "test": part(120)}
    lines = printed(parts).splitlines()
    assert re.findall(r"\w+", lines[0]) == ["train", "test"]
    assert lines[1].split() == ["return", "return", "Sharpe", "return", "Sharpe", "error"]
    assert lines[2].split() == ["total", *["a", "year"] * 2, "max", "dd", "total", *["period"] * 2, "max", "dd"]
    of_year = [("total_return", 1, "%"), ("cagr", 1, "%"), ("sharpe", 2, "f"), ("max_drawdown", 1, "%")]
    of_period = [of_year[0], ("period_sharpe", 2, "f"), ("period_sharpe_error", 2, "f"), of_year[3]]
    for line, name, label in zip(lines[3:6], LEVELS, ("A", " buy and hold", " mean exposure"), strict=True):
        assert line.startswith(label)
        shown = line.removeprefix(label).split()
        assert shown == cells(parts["train"][name], *of_year) + cells(parts["test"][name], *of_period)
    assert [float(line[29:35]) for line in lines[3:6]] == [1.0, 0.8, 0.9]
    activity = lines[lines[0:].index(next(line for line in lines if "turns" in line)) + 2]
    assert activity.split() == ["A", *["0.50", "100%"], "2.52", "5.04%", *["0.50", "100%"], "1.20", "1.20%"]


def test_less_than_a_year_is_nowhere_annualised():
    text = printed({"test": part(120)})
    assert "a year" not in text.replace("Less than a year is not annualised", "")
    assert f" {(120 / 252) ** 0.5:.2f} " in text.splitlines()[3]
    assert "Less than a year is not annualised" in text


def test_a_symbol_that_is_listed_late_has_no_annual_figure_in_a_part_of_years():
    late = account(returns(1.0, 120), symbol="B")
    both = {name: account(returns(level), members=("A", "B")) for name, level in LEVELS.items()}
    for result in both.values():
        result.by_symbol["B"] = late
    row = next(line for line in printed({"test": both}).splitlines() if line.startswith("B "))
    assert row.split() == [
        "B",
        *cells(late, ("total_return", 1, "%")),
        "-",
        "-",
        *cells(late, ("max_drawdown", 1, "%")),
    ]


def test_the_convention_and_the_errors_are_printed():
    text = " ".join(printed({"train": part(cash_rate=0.05), "test": part(cash_rate=0.05)}).split())
    assert "returns over cash, which earns 5% a year (ACT/365)" in text
    error = part(cash_rate=0.05)[tables.POLICY].metrics["sharpe_error"]
    assert f"a standard error of {error:.2f} in train, {error:.2f} in test" in text
    assert "cash, which earns nothing here" in " ".join(printed({"test": part()}).split())


def test_each_symbol_and_all_together_have_rows_and_a_missing_symbol_a_dash():
    text = printed({"train": part(members=("A", "B")), "test": part(members=("A",))})
    rows = {line.split()[0]: line for line in text.splitlines()[3:] if line and not line.startswith(" ")}
    assert rows["B"].split() == ["B", "0.50", "100%", "2.52", "5.04%", "-", "-", "-", "-"]
    assert rows["all"].split()[:2] == ["all", "2"]


def test_many_symbols_are_counted_not_listed():
    names = tuple(f"S{i}" for i in range(11))
    text = printed({"test": part(members=names)})
    assert "S7" in text
    assert "S8" not in text
    assert "3 more symbols are not shown" in text


@pytest.mark.parametrize(("width", "beside"), [(50, 1), (80, 2), (100, 3), (120, 3)])
def test_parts_that_do_not_fit_beside_each_other_stand_below_each_other(width, beside):
    """In plain text, and no figure is shortened."""
    big = {
        name: account(
            np.full(504, 0.08) + returns(9.0, scale=0.05), members=("A", "AVERYLONGSYMBOLNAME"), turnover=999.0
        )
        for name in LEVELS
    }
    text = printed(dict.fromkeys(("train", "validation", "test"), big), width)
    assert max(map(len, text.splitlines())) <= width
    assert len(re.findall("[─ ](?:train|validation|test) ─", text)) == 3
    assert len(re.findall(r"total  ?a year", text.splitlines()[2])) == beside
    assert text.count(" ".join(cells(big[tables.POLICY], ("max_drawdown", 1, "%")))) == 27
    assert "\x1b" not in text
    assert ">1e4%" in text


def test_a_ruined_account_is_called_so():
    ruined = {name: account(np.full(504, -0.01), ruined_at=460) for name in LEVELS}
    assert printed({"test": ruined}).splitlines()[3].split()[:3] == ["A", "-99.4%", "ruined"]


def test_the_record_is_the_table_as_plain_data():
    parts = {"train": part(members=("A", "B"), cash_rate=0.05), "test": part(120)}
    record = json.loads(json.dumps(tables.record(parts), allow_nan=False))
    train, test = record["parts"]["train"], record["parts"]["test"]
    assert list(train["symbols"]) == ["A", "B"]
    assert list(train["total"]) == list(train["symbols"]["B"]) == list(LEVELS)
    assert train["total"][BUY_AND_HOLD]["sharpe"] == pytest.approx(0.8 - 0.05 / 365 / 0.01 * 252**0.5)
    assert (train["spans_a_year"], train["cash_rate"]) == (True, 0.05)
    assert train["sharpe_lead_over_same_exposure"] == pytest.approx(0.1)
    assert (test["spans_a_year"], test["cash_rate"]) == (False, None)
    assert (test["first"], test["last"]) == ("2011-01-03T00:00:00Z", "2011-05-02T00:00:00Z")
    own = test["symbols"]["A"]["policy"]
    assert own["total_return"] == parts["test"][tables.POLICY].metrics["total_return"]
    assert own["period_sharpe"] == pytest.approx((120 / 252) ** 0.5)
    assert [own[name] for name in ("cagr", "sharpe", "sortino", "calmar", "win_rate")] == [None] * 5
    assert record["result"].startswith("On the test part (2011-01-03 to 2011-05-02")


@pytest.mark.parametrize(
    ("share", "text"), [(0.0984, "9.8%"), (-1.0, "-100%"), (12.345, "1234%"), (float("nan"), "-"), (-200.0, "<-1e4%")]
)
def test_a_percentage_has_six_characters_at_most(share, text):
    assert tables._short(share, 1, "%") == text


def test_trades_are_counted_by_hand():
    """Two are closed, 10 and 20 bars long. Holding turns the first's profit of 0.1 into a loss, and 0.3 stays."""
    day = np.timedelta64(1, "D")
    begin = np.datetime64("2020-01-01", "ns")
    rows = [
        (0.1, -0.15, 0.2, 10, False, begin, begin + 10 * day),
        (0.3, 0.0, -0.1, 20, False, begin, begin + 20 * day),
        (0.0, 0.0, 0.0, 5, True, begin, np.datetime64("NaT")),
    ]
    names = [("pnl", "f8"), ("financing", "f8"), ("return", "f8"), ("bars", "i8"), ("open", "?")]
    trades = np.array(rows, [*names, ("entry_time", "M8[ns]"), ("exit_time", "M8[ns]")])

    def line(trades, financing=0.0, position_financing=0.0):
        amounts = {
            "financing": np.array([financing, 0.0]),
            "position_financing": np.array([[position_financing], [0.0]]),
        }
        return NUMBER.findall(
            tables.trades_line(SimpleNamespace(trades=trades, fills=np.zeros(7), rules=Rules(), **amounts))
        )

    assert line(trades) == ["2", "50%", "6.00", "+5.00%", "15", "1", "7"]
    assert line(trades[2:]) == ["0", "1", "7"]
    assert line(trades[2:], -0.015) == ["0", "1", "7", "-1.50%"]
    assert line(trades[2:], 0.01, -0.02) == ["0", "1", "7", "+1.00%", "-2.00%"]


def test_orders_that_were_not_filled_as_asked_are_told():
    counts = {"clipped": 3, "dropped": 1200, "ignored_targets": 0, "beyond_cap": 7, "unmet": 0}
    fills = np.array([("A", "order"), ("B", "delisted"), ("A", "delisted"), ("A", "order")], "U8, U8")
    fills.dtype.names = ("symbol", "reason")
    assert NUMBER.findall(tables.orders_line(SimpleNamespace(**counts, fills=fills[:1]))) == ["3", "1,200", "7"]
    none = dict.fromkeys(counts, 0)
    assert tables.orders_line(SimpleNamespace(**none, fills=fills[:1])) is None
    assert NUMBER.findall(tables.orders_line(SimpleNamespace(**none, fills=fills[:3]))) == ["2"]
    assert NUMBER.findall(tables.orders_line(SimpleNamespace(**none, fills=fills))) == ["2", "1"]


def test_a_total_and_its_record_keep_how_often_orders_were_not_filled_as_asked():
    members = {name: dataclasses.replace(account(returns(0.5)), clipped=2, beyond_cap=3) for name in "AB"}
    orders = tables.record({"test": dict.fromkeys(LEVELS, combine(members))})["parts"]["test"]["orders"]
    assert orders == {"clipped": 4, "dropped": 0, "ignored_targets": 0, "beyond_cap": 6, "unmet": 0}


@pytest.mark.parametrize(
    ("cost", "text"),
    [(1234.56, "1,234.6 bp of its value more"), (-0.44, "0.4 bp of its value less"), (math.nan, "none")],
)
def test_the_break_even_cost_in_words(cost, text):
    assert text in tables.break_even_line(cost)


def test_notes_with_one_text_share_a_line():
    notes = ["A: adjusted.", "A: 3 gaps: large.", "B: adjusted."]
    assert tables.grouped(notes) == ["A, B: adjusted.", "A: 3 gaps: large."]


def test_what_many_symbols_have_in_common_is_one_note_with_a_count():
    ends = [f"S{i}: The last bar is at 2016-02-{i:02d}, {i} bar{'s' * (i > 1)} before the last." for i in range(1, 29)]
    first = "S1, S2, S3 and 25 more (28 symbols, each with numbers of its own): "
    assert tables.grouped(["A: adjusted.", *ends]) == ["A: adjusted.", first + ends[0].partition(": ")[2]]
    assert tables.grouped(ends[:3]) == ends[:3]


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
    console.print(tables.ResultTable({"test": part()}))
    assert "\x1b" not in out.getvalue()
