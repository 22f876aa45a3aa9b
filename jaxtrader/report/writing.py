"""Writes a report into a folder: the page, the figure, and the tables of the part that is judged."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrader import files
from jaxtrader.evaluation.figure import figure
from jaxtrader.evaluation.verdict import POLICY
from jaxtrader.printable import as_csv
from jaxtrader.report.content import TextTable, make_report
from jaxtrader.report.evidence import Evidence
from jaxtrader.report.page import page

PAGE, FIGURE = "report.html", "report.png"
DPI = 130


def write_report(
    folder: Path,
    evidence: Evidence,
    *,
    title: str,
    further: Sequence[TextTable] = (),
    training: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    settings: Mapping[str, str] | None = None,
) -> list[str]:
    """Write report.html, report.png, equity.csv, trades.csv and fills.csv, and return the names.

    Args:
        folder: the folder, which is made where there is none. Files of these names are replaced.
        evidence: what is shown.
        title: the heading.
        further: more tables, such as those of folds.
        training: the records of metrics.jsonl, by the name of the seed.
        settings: names and values of the run.

    Raises:
        FileError: a file cannot be written.
    """
    report = make_report(
        evidence.parts,
        evidence.markets,
        title=title,
        verdict=evidence.sentences,
        further=[*further, *evidence.tables],
        training=training,
        settings=settings,
        importance=evidence.importance,
        folds=[part[POLICY].times[0] for part in evidence.folds.values()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / PAGE, page(report))
    picture = io.BytesIO()
    figure(evidence.parts, f"{title}. {report.verdict[0]}").savefig(picture, dpi=DPI, format="png")
    files.write_bytes(folder / FIGURE, picture.getvalue())
    names = [PAGE, FIGURE]
    for name, frame in report.frames.items():
        names.append(f"{name}.csv")
        files.write_text(folder / names[-1], as_csv(frame, index=name == "equity"))
    return names
