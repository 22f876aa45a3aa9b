"""A report as one HTML file. It holds its style, its script and its data, and asks nothing of any other place."""

from __future__ import annotations

import html
import json
from importlib import resources
from string import Template

from jaxtrader.printable import printable, printable_data
from jaxtrader.report.content import Report, TextTable

PARTS_IN_A_ROW = " Each part goes on where the one before it ended."


def page(report: Report) -> str:
    """Return the HTML of a report. All text of it is printable and escaped."""
    sections = [
        *map(_table, report.results),
        _chart("equity", "Equity", "Logarithmic scale." + PARTS_IN_A_ROW * _has_parts(report)),
        '<div class="pair">',
        _chart("drawdown", "Drawdown"),
        _chart("rolling", f"Sharpe ratio of the last {report.curves['rolling_bars']:,} bars")
        if report.curves["rolling"]
        else "",
        "</div>",
        _price(report),
        *map(_table, report.further),
        _importance(report),
        _chart("training", "Training: reward a bar on validation", "By steps of training.")
        if report.curves["training"]
        else "",
        _settings(report),
    ]
    return Template(_asset("page.html")).substitute(
        title=_text(report.title),
        about=_text(report.about),
        verdict="".join(f"<p>{_text(sentence)}</p>" for sentence in report.verdict),
        body="\n".join(filter(None, sections)),
        css=_asset("page.css"),
        # A script element ends at its first "</", whatever stands around it.
        data=json.dumps(printable_data(report.curves), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        library=_asset("lightweight-charts.js"),
        script=_asset("page.js"),
    )


def _text(text: str) -> str:
    """Return a text as HTML."""
    return html.escape(printable(text))


def _has_parts(report: Report) -> bool:
    """Whether the equity is of several parts, each from flat. The folds of a walk-forward are one account."""
    names = [part["name"] for part in report.curves["parts"]]
    return len(names) > 1 and not names[0].startswith("fold")


def _asset(name: str) -> str:
    return (resources.files("jaxtrader.report") / "assets" / name).read_text("utf-8")


def _chart(name: str, title: str, note: str = "") -> str:
    below = f'<p class="note">{_text(note)}</p>' if note else ""
    return (
        f'<section><h2>{_text(title)}</h2><div class="legend" id="{name}-legend"></div>'
        f'<div class="chart" id="{name}"></div>{below}</section>'
    )


def _price(report: Report) -> str:
    symbols = report.curves["symbols"]
    if not symbols:
        return ""
    names = "".join(f"<option>{_text(each['name'])}</option>" for each in symbols)
    picker = f' <select id="symbol" aria-label="Symbol">{names}</select>'
    return _chart("price", "Price, exposure and fills").replace("</h2>", f"{picker}</h2>", 1)


def _importance(report: Report) -> str:
    """A bar for each feature, with a line of one standard deviation to each side of its end."""
    if not report.importance:
        return ""
    ends = [end for _, mean, spread in report.importance for end in (mean - spread, mean + spread)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    scale = 100 / (high - low) if high > low else 0.0
    rows = []
    for name, mean, spread in report.importance:
        left, right = (scale * (end - low) for end in (min(mean, 0), max(mean, 0)))
        one, other, zero = (scale * (end - low) for end in (mean - spread, mean + spread, 0))
        rows.append(
            f'<tr><td>{_text(name)}</td><td class="bar"><svg viewBox="0 0 100 16" preserveAspectRatio="none" '
            f'role="img" aria-label="{mean:.3f}"><rect class="{"good" if mean >= 0 else "bad"}" x="{left:.3f}" y="3" '
            f'width="{right - left:.3f}" height="10"/><path d="M{one:.3f} 8H{other:.3f}"/>'
            f'<path class="zero" d="M{zero:.3f} 0V16"/></svg></td><td>{mean:+.2f} ± {spread:.2f}</td></tr>'
        )
    note = (
        "How much Sharpe ratio the policy loses on validation when one feature is rotated in time and all else stays: "
        "the mean of several rotations, in a walk-forward of all folds, and their standard deviation. Features that "
        "resemble each other share their importance. Below 0 the policy did better without the feature. A loss within "
        "its spread may be chance."
    )
    return (
        '<section><h2>Features</h2><table class="importance"><tbody>'
        f'{"".join(rows)}</tbody></table><p class="note">{note}</p></section>'
    )


def _table(table: TextTable) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in table.columns)
    rows = []
    for i, row in enumerate(table.rows):
        signs = [_sign(cell) if table.signed and j else "" for j, cell in enumerate(row)]
        cells = "".join(f"<td{sign}>{_text(cell)}</td>" for sign, cell in zip(signs, row, strict=True))
        rows.append(f'<tr class="strong">{cells}</tr>' if i in table.strong else f"<tr>{cells}</tr>")
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (
        f'<section><h2>{_text(table.title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}</section>"
    )


def _sign(cell: str) -> str:
    if not cell.strip("-0.%"):
        return ""
    return ' class="bad"' if cell.startswith("-") else ' class="good"'


def _settings(report: Report) -> str:
    if not report.settings:
        return ""
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in report.settings.items())
    return (
        "<section><details><summary>Settings and data</summary>"
        f'<table class="settings"><tbody>{rows}</tbody></table></details></section>'
    )
