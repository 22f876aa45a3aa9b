"""The page and the table of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtrader.evaluation.comparison import Comparison
from jaxtrader.report.content import Report, TextTable, cells, line_charts, number


def comparison_table(found: Comparison) -> TextTable:
    """A row for each, the first in bold."""
    rows = []
    for name, figures in found.metrics.items():
        lead = found.leads.get(name)
        over_first = ["", ""] if lead is None else [number(lead.value), f"{number(lead.low)} to {number(lead.high)}"]
        returned, ratio, *others = cells(figures, ("total return", "Sharpe", "max drawdown", "exposure", "turnover"))
        rows.append([name, returned, ratio, *over_first, *others])
    columns = ["", "return", "Sharpe", "over first", "95%", "max drawdown", "exposure", "turnover"]
    unit = "a year" if found.spans_a_year else "the period"
    note = (
        f"All figures are of the {len(found.times):,} bars that all have. Sharpe ratios are over cash. They and the "
        f"turnover are of {unit}. Over first: the Sharpe ratio less that of the first run, with the interval of the "
        "paired difference."
    )
    return TextTable("Runs", columns, rows, note, frozenset({0}))


def settings_table(settings: Mapping[str, Mapping[str, str]]) -> TextTable | None:
    """The settings that differ among runs. None where none does."""
    names = dict.fromkeys(name for own in settings.values() for name in own)
    rows = [[name, *(own.get(name, "") for own in settings.values())] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return TextTable("Settings that differ", ["", *settings], rows) if rows else None


def comparison_report(found: Comparison, settings: Mapping[str, Mapping[str, str]], about: str = "") -> Report:
    """Arrange a comparison as a report.

    Args:
        found: the comparison.
        settings: names and values of each run, by its name.
        about: one line on the data.
    """
    first = found.results[found.first]
    differing: Sequence[TextTable] = [table] if (table := settings_table(settings)) is not None else []
    return Report(
        title=" beside ".join(found.results),
        about=about,
        verdict=found.sentences,
        results=[comparison_table(found)],
        further=differing,
        curves=line_charts(
            found.times, found.equity, found.excess_returns, tz=first.tz, periods_per_year=first.periods_per_year
        ),
        settings={},
    )
