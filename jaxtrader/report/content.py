"""What a report shows, as plain data: curves thinned to what a screen resolves, and tables of text.

The numbers come from the results. Nothing is traded or estimated here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxtrader.evaluation import metrics, statistics, tables
from jaxtrader.evaluation.baselines import rows_of
from jaxtrader.evaluation.figure import joined_equity
from jaxtrader.evaluation.importance import Importance
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.evaluation.verdict import POLICY, Part
from jaxtrader.market.clock import MONTHS, wall_clock
from jaxtrader.market.market import Market
from jaxtrader.run_files import SCORE

MAX_POINTS = 2500  # of a curve, twice what the widest chart resolves
MAX_PRICES = 12  # symbols whose price is shown
MAX_MARKS = 400  # fills that are marked on a price


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: stands above it.
        columns: headings.
        rows: cells as text, the first of each row is its name.
        note: stands below it.
        strong: numbers of rows that are shown in bold.
        signed: whether cells are coloured by their sign.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    strong: frozenset[int] = frozenset()
    signed: bool = False


@dataclass(frozen=True)
class Report:
    """All that a report shows.

    Attributes:
        title: the heading.
        about: one line on data and dates.
        verdict: sentences, the most important first.
        results: tables of results, which stand before the charts.
        further: tables that stand after them: seeds, folds, costs.
        curves: data of the charts, see `_curves`.
        importance: what each feature is worth, the most important first: its name, the mean loss and its spread.
        settings: names and values of the run.
        frames: tables to be written as CSV, by the name of the file.
    """

    title: str
    about: str
    verdict: Sequence[str]
    results: Sequence[TextTable]
    further: Sequence[TextTable]
    curves: Mapping[str, Any]
    settings: Mapping[str, str]
    importance: Sequence[tuple[str, float, float]] = ()
    frames: Mapping[str, Any] = field(default_factory=dict)


def make_report(
    parts: Mapping[str, Part],
    markets: Mapping[str, Market],
    *,
    title: str,
    verdict: Sequence[str],
    further: Sequence[TextTable] = (),
    training: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    settings: Mapping[str, str] | None = None,
    importance: Importance | None = None,
    folds: Sequence[np.datetime64] = (),
) -> Report:
    """Arrange results as a report.

    Args:
        parts: the policy's and the baselines' results by name, by the name of their part, in the order of time. The
            last part is the one that is judged.
        markets: the markets of the parts, by the same names.
        title: the heading.
        verdict: sentences, the most important first.
        further: more tables, such as those of seeds, folds and costs.
        training: the records of metrics.jsonl, by the name of the seed.
        settings: names and values of the run.
        importance: what each feature is worth.
        folds: the first bar of each test of a walk-forward, whose charts shade every other one.
    """
    last = list(parts)[-1]
    judged = parts[last][POLICY]
    market = markets[last]
    return Report(
        title=title,
        about=f"{market.source}: {market.describe()}",
        verdict=verdict,
        results=[_result_table(parts)],
        further=[*filter(None, [_months(judged)]), *further],
        curves=_curves(parts, market, training or {}, folds),
        settings=settings or {},
        importance=[] if importance is None else list(importance.to_frame().itertuples(name=None)),
        frames={
            "equity": judged.to_frame(),
            "trades": judged.to_frame("trades"),
            "fills": judged.to_frame("fills"),
        },
    )


# --- tables ---


def _result_table(parts: Mapping[str, Part]) -> TextTable:
    annual = all(part[POLICY].spans_a_year for part in parts.values())
    columns = ["total return", *["a year"] * annual, "Sharpe", "error"]
    columns += ["max drawdown", "exposure", "turnover", "costs"]
    named = [(name, label, result) for name, part in parts.items() for label, result in part.items()]
    rows = [
        [f"{name}: {label}" if label == POLICY else label, *cells(result.reported_metrics, columns)]
        for name, label, result in named
    ]
    strong = frozenset(i for i, (_, label, _) in enumerate(named) if label == POLICY)
    note = "Sharpe ratios are of returns over cash" + (
        ", of a year. Turnover is of a year."
        if annual
        else ", and turnover, are of each part as a whole where it is shorter than a year."
    )
    note += " Costs are a share of the initial capital. All figures are after costs."
    last = list(parts)[-1]
    if (orders := tables.orders_line(parts[last][POLICY])) is not None:
        note += f" {last}, {POLICY}: {orders}."
    return TextTable("Results", ["", *columns], rows, note, strong)


def _months(result: BacktestResult) -> TextTable | None:
    """Return of each month and year. None below two months."""
    times = wall_clock(result.times, result.tz).astype("datetime64[M]")
    months = np.unique(times)
    if len(months) < 2:
        return None
    last = np.searchsorted(times, months, side="right") - 1
    equity = np.concatenate([[1.0], result.equity[last]])
    returns = {str(month): value for month, value in zip(months, equity[1:] / equity[:-1] - 1, strict=True)}
    rows = []
    for year in sorted({name[:4] for name in returns}):
        own = [returns.get(f"{year}-{month:02d}") for month in range(1, 13)]
        whole = math.prod(1 + value for value in own if value is not None) - 1
        rows.append([year, *("" if value is None else percent(value) for value in own), percent(whole)])
    return TextTable("Months", ["", *MONTHS, "year"], rows, "Return of the policy in each month.", signed=True)


def percent(value: float, digits: int = 1) -> str:
    """A share as text. A dash where it is undefined."""
    return f"{round(value, digits + 2) + 0.0:.{digits}%}" if math.isfinite(value) else "-"


def number(value: float) -> str:
    """A ratio as text. A dash where it is undefined."""
    return f"{value:.2f}" if math.isfinite(value) else "-"


CELLS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "total return": ("total_return", percent),
    "a year": ("cagr", percent),
    "Sharpe": ("sharpe", number),
    "error": ("sharpe_error", number),
    "max drawdown": ("max_drawdown", percent),
    "exposure": ("mean_exposure", number),
    "turnover": ("turnover", number),
    "costs": ("costs", partial(percent, digits=2)),
}
"""Of each column of a table, the figure that it shows, and how."""


def cells(figures: Mapping[str, float], columns: Iterable[str]) -> list[str]:
    """The cells of some columns of CELLS, of the figures of a result."""
    return [form(figures[metric]) for metric, form in (CELLS[column] for column in columns)]


# --- curves ---


def line_charts(
    times: np.ndarray,
    equity: Mapping[str, Float[np.ndarray, " bar"]],
    excess: Mapping[str, Float[np.ndarray, " bar"]],
    *,
    tz: str | None,
    periods_per_year: float,
) -> dict[str, Any]:
    """The data of the charts of equity, drawdown and rolling Sharpe ratio, and no other chart's.

    Args:
        times: the times of the bars. In the charts they are those of `_seconds`.
        equity: the equity of each account, by name.
        excess: returns over cash of those whose drawdown and rolling ratio are shown.
        tz: the zone of the times that are shown.
        periods_per_year: bars in a year.
    """
    kept, window = _thinned(len(times)), _rolling_window(len(times), periods_per_year)
    rolling = {label: _rolling_sharpe(returns, window) for label, returns in excess.items()} if window else {}
    scale = math.sqrt(periods_per_year)
    spacing = np.median(np.diff(times).astype("timedelta64[s]").astype(float)) if len(times) > 1 else 86_400
    return {
        "intraday": bool(spacing < 80_000),
        "times": _seconds(times[kept], tz),
        "parts": [],
        "equity": {label: _plain(curve[kept]) for label, curve in equity.items()},
        "drawdown": {label: _plain(metrics.drawdowns(equity[label])[kept]) for label in excess},
        "rolling": {label: _plain(scale * curve[kept]) for label, curve in rolling.items()},
        "rolling_bars": window,
        "symbols": [],
        "training": [],
    }


def _curves(
    parts: Mapping[str, Part],
    market: Market,
    training: Mapping[str, Sequence[Mapping[str, Any]]],
    folds: Sequence[np.datetime64],
) -> dict[str, Any]:
    """The data of the charts. Each part goes on at the equity at which the one before it ended."""
    labels = list(next(iter(parts.values())))
    times = np.concatenate([part[POLICY].times for part in parts.values()])
    equity = {label: joined_equity([part[label].equity for part in parts.values()]) for label in labels}
    excess = {label: np.concatenate([part[label].excess_returns for part in parts.values()]) for label in labels[:2]}
    kept = _thinned(len(times))
    bounds = np.cumsum([0, *(len(part[POLICY]) for part in parts.values())])
    names = list(parts)
    if len(folds):
        bounds = np.append(np.searchsorted(times, folds), len(times))
        names = [f"fold {i}" for i in range(1, len(folds) + 1)]
    judged = parts[list(parts)[-1]][POLICY]
    return {
        **line_charts(times, equity, excess, tz=judged.tz, periods_per_year=judged.periods_per_year),
        "parts": [
            {
                "name": name,
                "from": int(np.searchsorted(kept, bounds[i])),
                "to": int(np.searchsorted(kept, bounds[i + 1]) - 1),
            }
            for i, name in enumerate(names)
        ],
        "symbols": _prices(judged, market),
        "training": [curve for name, records in training.items() if (curve := _training(name, records))],
    }


def _rolling_window(bars: int, periods_per_year: float) -> int:
    """Half a year of bars, or a quarter of all where that is less. 0 where it would be too few for a ratio."""
    window = min(round(periods_per_year / 2), bars // 4)
    return window if window >= 20 else 0


def _rolling_sharpe(returns: np.ndarray, window: int) -> np.ndarray:
    """Sharpe ratio of a bar over the last `window` bars, NaN before and where returns do not vary."""
    import pandas as pd

    views = pd.Series(returns).rolling(window)
    deviation = views.std()
    return (views.mean() / deviation.where(deviation > statistics.ROUNDING)).to_numpy()


def _prices(result: BacktestResult, market: Market) -> list[dict[str, Any]]:
    """Close, exposure and fills of each asset of the part that is judged."""
    found = []
    for member in list(result.accounts.values())[:MAX_PRICES]:
        kept = _thinned(len(member))
        times, close = _seconds(member.times[kept], result.tz), market.close[rows_of(market, member)]
        for i, symbol in enumerate(member.symbols[: MAX_PRICES - len(found)]):
            fills = member.fills[member.fills["symbol"] == symbol]
            if len(fills) > MAX_MARKS:
                fills = fills[:0]
            at = np.minimum(np.searchsorted(kept, fills["bar"]), len(kept) - 1)
            found.append(
                {
                    "name": symbol,
                    "times": times,
                    "close": _plain(close[kept, i]),
                    "exposure": _plain(member.exposure[kept, i]),
                    "fills": [
                        [times[row], 1 if units > 0 else -1] for row, units in zip(at, fills["units"], strict=True)
                    ],
                }
            )
    return found


def _training(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The score on validation by steps."""
    scored = [record for record in records if SCORE in record]
    scored = [record for i, record in enumerate(scored) if i == 0 or record["steps"] > scored[i - 1]["steps"]]
    if len(scored) < 2:
        return None
    score = np.array([record[SCORE] for record in scored], float)
    return {"name": name, "steps": [int(record["steps"]) for record in scored], "score": _plain(score)}


def _thinned(bars: int) -> np.ndarray:
    """At most MAX_POINTS rows, evenly spaced, the first and the last included."""
    if bars <= MAX_POINTS:
        return np.arange(bars)
    return np.unique(np.linspace(0, bars - 1, MAX_POINTS).round().astype(int))


def _seconds(times: np.ndarray, tz: str | None) -> list[int]:
    """Seconds since 1970 as a clock in `tz` shows them, which the charts show unchanged.

    They always increase, as a chart needs it. In an hour that comes twice, later bars are a second apart.
    """
    local = wall_clock(times, tz).astype("datetime64[s]").astype(np.int64)
    rows = np.arange(len(local))
    return (np.maximum.accumulate(local - rows) + rows).tolist()


def _plain(values: np.ndarray) -> list[float | None]:
    """Numbers of five digits, None where they are not finite."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]
