"""What a report holds: the figures of the results, thinned curves, and text that cannot become markup."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report.parts import parts_and_markets

from jaxtrader.evaluation.figure import figure
from jaxtrader.evaluation.importance import Importance
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.report import content
from jaxtrader.report.content import TextTable, make_report
from jaxtrader.report.page import page


@pytest.fixture(scope="module")
def both():
    return parts_and_markets()


@pytest.fixture(scope="module")
def report(both):
    parts, markets = both
    records = [{"steps": step, "valid_reward_per_bar": step * 1e-9} for step in (1, 2, 2, 3)]
    return make_report(
        parts,
        markets,
        title="a </script> title",
        verdict=["Not distinguishable <b>at all</b>.", "More."],
        further=[TextTable("Seeds", ["", "Sharpe"], [["seed 0", "0.10"]])],
        training={"seed 0": records},
        settings={"positions": "-1,0,1"},
    )


def test_the_equity_goes_on_from_part_to_part(both, report):
    parts, _ = both
    curve = report.curves["equity"][POLICY]
    whole = parts["train"][POLICY].equity[-1] * parts["test"][POLICY].equity[-1]
    assert curve[-1] == pytest.approx(whole, rel=1e-4)
    assert [part["name"] for part in report.curves["parts"]] == ["train", "test"]
    assert len(curve) == len(report.curves["times"])


def test_the_rolling_ratio_is_that_of_the_last_bars(both, report):
    parts, _ = both
    window = report.curves["rolling_bars"]
    last = parts["test"][POLICY].excess_returns[-window:]
    scale = np.sqrt(parts["train"][POLICY].periods_per_year)
    assert report.curves["rolling"][POLICY][-1] == pytest.approx(scale * last.mean() / last.std(ddof=1), rel=1e-4)


def test_months_multiply_to_the_return_of_their_year(both, report):
    parts, _ = both
    (months,) = [table for table in report.further if table.title == "Months"]
    result = parts["test"][POLICY]
    series = pd.Series(result.equity, pd.DatetimeIndex(result.times))
    monthly = series.resample("ME").last()
    expected = monthly.iloc[1] / monthly.iloc[0] - 1
    row = next(row for row in months.rows if row[0] == str(monthly.index[1].year))
    assert row[monthly.index[1].month] == content.percent(expected)


def test_long_curves_are_thinned_to_what_a_screen_resolves(both, monkeypatch):
    parts, markets = both
    monkeypatch.setattr(content, "MAX_POINTS", 50)
    curves = make_report(parts, markets, title="", verdict=[""]).curves
    assert len(curves["times"]) == 50
    assert curves["times"][-1] == int(parts["test"][POLICY].times[-1].astype("datetime64[s]").astype(int))
    fills = curves["symbols"][0]["fills"]
    assert {time for time, _ in fills} <= set(curves["symbols"][0]["times"])


def test_the_fills_are_those_of_all_symbols(both, report):
    parts, _ = both
    assert len(report.frames["fills"]) == sum(len(one.fills) for one in parts["test"][POLICY].by_symbol.values())


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_a_page_escapes_what_it_shows_and_asks_nothing_of_others(report):
    text = page(report)
    assert "<title>a &lt;/script&gt; title</title>" in text
    assert "&lt;b&gt;at all&lt;/b&gt;" in text
    assert "<option>A&amp;B</option><option>&lt;C&gt;</option>" in text
    tags = Tags()
    tags.feed(text)
    links = [value for tag, attrs in tags.found for name, value in attrs.items() if name in ("src", "href")]
    assert links == ["https://www.tradingview.com/"], "the licence asks for this link, and nothing is loaded"
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert data is not None
    assert json.loads(data[1])["symbols"][1]["name"] == "<C>"
    assert len(text) < 1_500_000


def test_results_shorter_than_a_year_are_not_annualised(both):
    parts, markets = both
    (table,) = make_report({"test": parts["test"]}, {"test": markets["test"]}, title="", verdict=[""]).results
    assert "a year" not in table.columns
    assert "shorter than a year" in table.note


def test_closings_beyond_the_volume_cap_are_told(both):
    parts, markets = both
    part = {**parts["test"], POLICY: dataclasses.replace(parts["test"][POLICY], beyond_cap=7654)}
    (table,) = make_report({"test": part}, {"test": markets["test"]}, title="", verdict=[""]).results
    assert "7,654 closed beyond the volume cap" in table.note


def test_features_are_bars_the_most_important_first(both):
    parts, markets = both
    found = Importance(("<one>", "two"), 0.5, np.array([[0.1, 0.3], [1.0, 3.0]]))
    report = make_report(parts, markets, title="", verdict=[""], importance=found)
    assert [name for name, _, _ in report.importance] == ["two", "<one>"]
    text = page(report)
    assert text.index("+2.00 ± 1.41") < text.index("+0.20 ± 0.14")
    assert "&lt;one&gt;" in text
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', text)]
    # Widths are written with some decimals.
    assert widths[0] / widths[1] == pytest.approx(10, rel=1e-3)
    assert "<h2>Features</h2>" not in page(make_report(parts, markets, title="", verdict=[""]))


def test_a_run_without_validations_has_no_curve(both):
    parts, markets = both
    report = make_report(parts, markets, title="", verdict=[""], training={"seed 0": [{"steps": 1}]})
    assert report.curves["training"] == []
    assert 'id="training"' not in page(report)


def test_the_figure_is_a_picture(both):
    parts, _ = both
    file = io.BytesIO()
    figure(parts, "title").savefig(file, dpi=40)
    assert file.getvalue().startswith(b"\x89PNG")


def test_a_result_shows_itself_in_a_notebook(both):
    parts, _ = both
    result = parts["test"][POLICY]
    assert [axis.get_ylabel() for axis in result.plot().axes] == ["equity", "drawdown %", "exposure %"]
    drawn = np.asarray(result.plot().axes[0].lines[0].get_ydata())
    np.testing.assert_allclose(drawn, result.equity)
    shown = result._repr_html_()
    assert "data:image/png;base64," in shown
    assert f"{result.metrics['max_drawdown']:.4g}" in shown
