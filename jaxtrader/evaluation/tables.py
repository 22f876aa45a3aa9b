"""What the terminal shows of results: a table of all parts, and lines on trades and orders.

This module computes nothing: the results hold the figures, and `verdict.py` judges them. It writes no files. `record`
gives the table as plain data.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from jaxtrader import terminal
from jaxtrader.evaluation import verdict
from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.result import ORDERS, BacktestResult
from jaxtrader.evaluation.statistics import ROUNDING
from jaxtrader.evaluation.trades import figures
from jaxtrader.evaluation.verdict import POLICY, Part
from jaxtrader.ledger.account import DELISTED, REASONS

LABELS = {BUY_AND_HOLD: " buy and hold", EXPOSURE_MATCHED: " mean exposure"}


class Figure(NamedTuple):
    """A column of the table.

    Attributes:
        heading: two lines, what it is and its unit.
        metric: a name in `BacktestResult.metrics`.
        digits: after the point.
        kind: "f" or "%".
        tells_ruin: whether the column says so where the account was ruined.
    """

    heading: str
    metric: str
    digits: int
    kind: str
    tells_ruin: bool = False


TOTAL, DRAWDOWN = Figure("return\ntotal", "total_return", 1, "%"), Figure("\nmax dd", "max_drawdown", 1, "%")
RETURNS = (TOTAL, Figure("return\na year", "cagr", 1, "%", True), Figure("Sharpe\na year", "sharpe", 2, "f"), DRAWDOWN)
PERIOD_RETURNS = (
    TOTAL,
    Figure("Sharpe\nperiod", "period_sharpe", 2, "f", True),
    Figure("error\nperiod", "period_sharpe_error", 2, "f"),
    DRAWDOWN,
)
EXPOSURE = Figure("expos.\nmean", "mean_exposure", 2, "f")
TIME_IN_MARKET = Figure("in\nmarket", "time_in_market", 0, "%")
COSTS = Figure("costs\ntotal", "costs", 2, "%")
ACTIVITY = (EXPOSURE, TIME_IN_MARKET, Figure("turns\na year", "turnover", 2, "f"), COSTS)
PERIOD_ACTIVITY = (EXPOSURE, TIME_IN_MARKET, Figure("turns\nperiod", "period_turnover", 2, "f"), COSTS)
ANNUAL = ("cagr", "calmar", "sharpe", "sharpe_error", "sortino")  # not shown for results of less than a year
MAX_ALIKE = 3  # the most notes that differ only in their numbers
MAX_SYMBOLS = 8  # the most symbols that have rows of their own, so that the table stays readable
LABEL_WIDTH, FIGURE_WIDTH = 14, 6
PART_WIDTH = 4 * FIGURE_WIDTH + 3  # a label and three parts of four figures have 98 columns


def console(file: TextIO | None = None, width: int | None = None) -> Console:
    """Where results are printed. A file or a pipe gets plain text without control codes.

    Args:
        file: standard output by default.
        width: in columns. None takes the terminal's, or COLUMNS, or 100.
    """
    return terminal.console(file, width, highlight=False, markup=False)


def print_facts(out: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print labelled lines. A long text wraps under its own beginning, but never inside a word, path or file name.

    The text of "next" is a command to be copied, so it stays on one line.
    """
    rows = list(rows)
    indent = max(len(label) for label, _ in rows) + 2
    for label, text in rows:
        width = max(out.width - indent, 20)
        lines = [text]
        if label != "next":
            lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        out.print(Text.assemble((f"{label:<{indent}}", "dim"), "".join(lines[:1])), soft_wrap=True)
        for line in lines[1:]:
            out.print(Text(" " * indent + line), soft_wrap=True)


def grouped(notes: Sequence[str]) -> list[str]:
    """Notes of the form "SYMBOL: text", with the symbols that share a text on one line, in order of appearance.

    More than MAX_ALIKE texts that differ only in their numbers become one line too, with the first of the texts.
    """
    kinds: dict[str, dict[str, list[str]]] = {}
    for note in notes:
        symbol, _, text = note.partition(": ")
        kind = re.sub(r"(\d[\d,.:-]*\d|\d)( \w+?s?\b)?", lambda found: "#" + (found[2] or "").removesuffix("s"), text)
        kinds.setdefault(kind, {}).setdefault(text, []).append(symbol)
    lines = []
    for texts in kinds.values():
        if len(texts) <= MAX_ALIKE:
            lines += [f"{listed(names)}: {text}" for text, names in texts.items()]
            continue
        names = [name for members in texts.values() for name in members]
        lines.append(
            f"{listed(names, MAX_ALIKE)} ({len(names)} symbols, each with numbers of its own): {next(iter(texts))}"
        )
    return lines


def listed(names: Sequence[str], most: int = MAX_SYMBOLS) -> str:
    """Names with commas, the first `most` and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class ResultTable:
    """The policy and its baselines, for each symbol and all together, with the parts side by side.

    It prints two blocks of rows, returns and activity, and a legend. Parts that do not fit beside each other stand
    below each other, so that no figure is shortened or cut off.

    Args:
        parts: the results by name, by the name of their part ("train", "validation", "test").
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print as many parts side by side as the width allows, and at least one."""
        side_by_side = max((options.max_width - LABEL_WIDTH) // (PART_WIDTH + 1), 1)
        names = list(self.parts)
        for first in range(0, len(names), side_by_side):
            yield self._side_by_side({name: self.parts[name] for name in names[first : first + side_by_side]})
        hidden = len(self._symbols()) - MAX_SYMBOLS
        if hidden > 0:
            yield f"{hidden} more symbols are not shown; result.by_symbol of jaxtrader.backtest has them\n"
        yield Text(legend(self.parts), style="dim")

    def _symbols(self) -> list[str]:
        return list(dict.fromkeys(symbol for part in self.parts.values() for symbol in part[POLICY].accounts))

    def _side_by_side(self, parts: Mapping[str, Part]) -> Table:
        names, symbols = list(next(iter(parts.values()))), self._symbols()
        shown: list[str | None] = [*symbols[:MAX_SYMBOLS], None] if len(symbols) > 1 else [*symbols]  # None: together
        rows = [(symbol, name) for symbol in shown for name in names]
        # Baselines trade next to nothing: once is enough.
        active = [(symbol, name) for symbol, name in rows if name == POLICY or symbol == shown[-1]]
        widths = [LABEL_WIDTH, *[PART_WIDTH] * len(parts)]
        grid = Table.grid(*(Column(width=width) for width in widths), padding=(0, 1, 0, 0))
        grid.add_row("", *(Rule(Text(name, "bold"), style="bold") for name in parts))
        for some, of_year, of_period in ((rows, RETURNS, PERIOD_RETURNS), (active, ACTIVITY, PERIOD_ACTIVITY)):
            blocks = (
                _figures(part, some, of_year if part[POLICY].spans_a_year else of_period) for part in parts.values()
            )
            grid.add_row(_labels(some, len(symbols)), *blocks)
            grid.add_row()
        return grid


def rows_table(parts: Mapping[str, Part]) -> Table:
    """A row for each of several results of one policy over the same bars, such as those at several costs.

    Args:
        parts: the results by name, by the label of their row.
    """
    is_long = all(part[POLICY].spans_a_year for part in parts.values())
    columns = (*RETURNS, *ACTIVITY) if is_long else (*PERIOD_RETURNS, *PERIOD_ACTIVITY)
    holding = TOTAL._replace(heading="hold\ntotal")
    label = Column("\n", width=max(LABEL_WIDTH, *map(len, parts)), no_wrap=True)
    figures = [Column(each.heading, width=FIGURE_WIDTH, justify="right", no_wrap=True) for each in (*columns, holding)]
    block = _block(label, *figures)
    for name, part in parts.items():
        cells = [*(_cell(part[POLICY], column) for column in columns), _cell(part[BUY_AND_HOLD], holding)]
        block.add_row(name, *cells)
    return block


def legend(parts: Mapping[str, Part]) -> str:
    """What the figures of the table are, and by which convention."""
    said = ["return: compound, after all costs"]
    results = [part[POLICY] for part in parts.values()]
    said.append(f"Sharpe: mean / deviation of the returns over cash, which earns {_cash_words(results)}")
    errors = {name: verdict.sharpe(part[POLICY]).error for name, part in parts.items() if part[POLICY].spans_a_year}
    told = ", ".join(f"{error:.2f} in {name}" for name, error in errors.items() if not math.isnan(error))
    said += [f"The policy's annual ratio has a standard error of {told}"] if told else []
    if len(errors) < len(parts):
        said.append("Less than a year is not annualised: its Sharpe ratio is of the period, with its standard error")
    said += [
        "max dd: largest drawdown",
        "mean exposure: buy-and-hold at the policy's mean exposure",
        "expos.: position / equity",
        "in market: share of bars with a position",
        "turns: traded value / equity",
        "costs: fees and slippage, share of the initial capital",
    ]
    return ". ".join(said) + "."


def _cash_words(results: Sequence[BacktestResult]) -> str:
    """What cash earns in the parts of one policy, in words."""
    column = results[0].costs.columns.get("cash_rate")
    rates = [rate for result in results if (rate := _cash_rate(result)) is not None]
    if not rates:
        return "nothing here"
    if column is None:
        return f"{100 * rates[0]:.3g}% a year (ACT/365)"
    low, high = (f"{100 * rate:.3g}%" for rate in (min(rates), max(rates)))
    means = low if low == high else f"{low} to {high}"
    return f"the rate of the column {column!r}, on average {means} a year (ACT/365)"


def _cash_rate(result: BacktestResult) -> float | None:
    """What cash earns a year, ACT/365. Of a rate in a column this is the mean over the time of the result."""
    if "cash_rate" not in result.costs.columns:
        rate = result.costs.cash_rate
        return None if rate is None else float(np.ravel(rate)[0])
    members = result.accounts.values()
    days = sum(float((member.times[-1] - member.times[0]) / np.timedelta64(1, "D")) for member in members)
    return 365 * sum(float(member.cash_returns.sum()) for member in members) / days if days else math.nan


def record(parts: Mapping[str, Part]) -> dict[str, Any]:
    """What the table holds as plain data: by part, then the total or a symbol, then the policy or a baseline.

    The figures are those of `BacktestResult.metrics`. None stands for what is undefined, and for the annual returns and
    ratios of a result of less than a year. `orders` counts the policy's bars on which orders were not filled as asked,
    or closings were beyond the volume cap. `result` is the sentence that is printed.
    """
    return {
        "parts": {name: part_record(part) for name, part in parts.items()},
        "result": verdict.sentence(parts),
    }


def part_record(part: Part) -> dict[str, Any]:
    """One part as `record` has it."""
    result, matched = part[POLICY], part[EXPOSURE_MATCHED]
    lead = verdict.lead(result, matched)
    return {
        "first": f"{np.datetime_as_string(result.times[0], unit='s')}Z",
        "last": f"{np.datetime_as_string(result.times[-1], unit='s')}Z",
        "spans_a_year": result.spans_a_year,
        "cash_rate": None if (rate := _cash_rate(result)) is None else _finite(rate),
        "sharpe_lead_over_same_exposure": _finite(lead.value),
        "sharpe_lead_error": _finite(lead.error),
        "orders": {name: getattr(result, name) for name in ORDERS},
        "total": {name: _plain(one) for name, one in part.items()},
        "symbols": {
            symbol: {name: _plain(one.accounts[symbol]) for name, one in part.items()} for symbol in result.accounts
        },
    }


def _plain(result: BacktestResult) -> dict[str, float | None]:
    hidden = () if result.spans_a_year else ANNUAL
    return {name: None if name in hidden else _finite(value) for name, value in result.metrics.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def trades_line(result: BacktestResult) -> str:
    """The number, profit and length of closed trades, how many are open, the fills, and the financing."""
    closed, trades = result.trades[~result.trades["open"]], figures(result.trades)
    text = f"{len(closed):,} closed"
    if len(closed):
        gained, factor = closed["return"].mean(), trades["profit_factor"]
        gain = "" if math.isnan(factor) else f", profit factor {factor:.2f}"
        text += (
            f" ({trades['win_rate']:.0%} with a profit after costs of trading and holding{gain}, on average "
            f"{gained:+.2%} before holding costs in {trades['mean_trade_bars']:.3g} bars)"
        )
    text += f", {len(result.trades) - len(closed):,} still open, {len(result.fills):,} fills"
    if (financing := float(result.financing.sum())) != 0:
        what = "Interest and funding" if result.rules.dividends is None else "Interest, funding and dividends"
        text += f". {what} came to {financing:+.2%} of the initial capital"
        if abs(paid := float(result.position_financing.sum())) > ROUNDING:
            text += f", of which {paid:+.2%} was for holding positions"
    return text


def orders_line(result: BacktestResult) -> str | None:
    """On how many bars orders did not fill as asked and why, and what a delisting closed. None where there is none."""
    counts = (
        (result.clipped, "cut to what leverage, volume or cash allow"),
        (result.dropped, "given up for lack of cash, size or a bar"),
        (result.ignored_targets, "ignored after ruin"),
        (result.beyond_cap, "closed beyond the volume cap, as they could not wait"),
        (result.unmet, "not filled at their limit"),
    )
    parts = [f"{count:,} {why}" for count, why in counts if count]
    said = [f"bars on which orders were not filled as asked: {', '.join(parts)}"] if parts else []
    return ". ".join([*said, *_delistings(result.fills)]) or None


def _delistings(fills: np.ndarray) -> list[str]:
    """How many positions were closed as delisted, and in how many of their assets the account trades again."""
    closed = np.flatnonzero(fills["reason"] == REASONS[DELISTED])
    if not closed.size:
        return []
    again = sum(bool((fills["symbol"][at + 1 :] == fills["symbol"][at]).any()) for at in closed)
    returned = f", and {again:,} of these assets traded again later" if again else ""
    return [f"positions closed as delisted, for lack of bars: {closed.size:,}{returned}"]


def break_even_line(cost: float) -> str:
    """The break-even cost of a policy in words. It is in basis points of the traded value, NaN where there is none."""
    holding = "buy-and-hold at mean exposure"
    if math.isnan(cost):
        return f"none, as it trades hardly more than {holding}, or less"
    if cost < 0:
        return f"none, as it earned less than {holding}: a trade would have to cost {-cost:,.1f} bp of its value less"
    return f"a trade could cost {cost:,.1f} bp of its value more before the lead in return over {holding} is gone"


def _labels(rows: Iterable[tuple[str | None, str]], members: int) -> Table:
    block = _block(Column("\n", width=LABEL_WIDTH, no_wrap=True))
    for symbol, name in rows:
        policy = f"all {members}" if symbol is None else symbol
        block.add_row(policy if name == POLICY else LABELS.get(name, f" {name}"), style=_style(name))
    return block


def _figures(part: Part, rows: Iterable[tuple[str | None, str]], columns: Sequence[Figure]) -> Table:
    """The figures of one part, a row for each symbol (None: all together) and name of a result."""
    block = _block(*(Column(each.heading, width=FIGURE_WIDTH, justify="right", no_wrap=True) for each in columns))
    for symbol, name in rows:
        result = part[name] if symbol is None else part[name].accounts.get(symbol)
        block.add_row(*(_cell(result, column) for column in columns), style=_style(name))
    return block


def _block(*columns: Column) -> Table:
    return Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def _style(name: str) -> str:
    return "bold" if name == POLICY else "dim"


def _cell(result: BacktestResult | None, column: Figure) -> str:
    if result is None:
        return "-"
    if column.tells_ruin and result.ruined_at is not None:
        return "ruined"
    if column.metric in ANNUAL and not result.spans_a_year:  # a late listing in a part of years
        return "-"
    return _short(result.metrics[column.metric], column.digits, column.kind)


def _short(value: float, digits: int = 2, kind: str = "f") -> str:
    """A number or a percentage in FIGURE_WIDTH characters, with as many of its digits as fit."""
    if math.isnan(value):
        return "-"
    for precision in range(digits, -1, -1):
        if len(text := f"{value:.{precision}{kind}}") <= FIGURE_WIDTH:
            return text
    return f"{value:.0e}" if kind == "f" else ">1e4%" if value > 0 else "<-1e4%"
