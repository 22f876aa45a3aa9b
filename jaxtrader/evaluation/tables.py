"""What the terminal shows of results: a table of all parts, lines on trades and orders, and a sober summary.

The summary names the gap between training and test, and what the baselines would have given. This module computes
nothing but differences of figures that the results already hold. It writes no files.
"""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from jaxtrader.evaluation.baselines import BUY_AND_HOLD, EXPOSURE_MATCHED
from jaxtrader.evaluation.result import BacktestResult

POLICY = "policy"
LABELS = {BUY_AND_HOLD: " buy and hold", EXPOSURE_MATCHED: " same exposure"}
Figure = tuple[str, int, str]
"""A metric, its digits after the point, and "f" or "%"."""
RESULTS: dict[str, Figure] = {
    "return": ("cagr", 1, "%"),
    "Sharpe": ("sharpe", 2, "f"),
    "max dd": ("max_drawdown", 1, "%"),
}
ACTIVITY: dict[str, Figure] = {
    "expos.": ("mean_exposure", 2, "f"),
    "turn/y": ("turnover", 2, "f"),
    "costs": ("costs", 2, "%"),
}
PLAIN_WIDTH = 100  # columns where the output is no terminal
MAX_SYMBOLS = 8  # more have no rows of their own, so that the table stays readable
LABEL_WIDTH, FIGURE_WIDTH = 14, 6  # a label and three parts of three figures have 80 columns
LEGEND = (
    "return: compound, a year. max dd: largest drawdown. same exposure: buy-and-hold at the policy's mean exposure. "
    "expos.: mean position / equity. turn/y: traded value / equity, a year. costs: fees and slippage, share of the "
    "initial capital. All after costs."
)

Part = Mapping[str, BacktestResult]
"""The policy's result first, then the baselines, by name."""


def console(file: TextIO | None = None, width: int | None = None) -> Console:
    """Where results are printed. A file or a pipe gets plain text without control codes.

    Args:
        file: standard output by default.
        width: in columns. None takes the terminal's, or COLUMNS, or 100.
    """
    out = file or sys.stdout
    terminal = out.isatty()
    if width is None and not terminal and not os.environ.get("COLUMNS", "").isdigit():
        width = PLAIN_WIDTH
    # Rich takes FORCE_COLOR for a terminal, also where the output goes to a file.
    return Console(file=out, width=width, force_terminal=None if terminal else False, highlight=False, markup=False)


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
    """Notes of the form "SYMBOL: text", with the symbols that share a text on one line, in order of appearance."""
    symbols: dict[str, list[str]] = {}
    for note in notes:
        symbol, _, text = note.partition(": ")
        symbols.setdefault(text, []).append(symbol)
    return [f"{listed(names)}: {text}" for text, names in symbols.items()]


def listed(names: Sequence[str], most: int = MAX_SYMBOLS) -> str:
    """Names with commas, the first `most` and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def table(parts: Mapping[str, Part]) -> Group:
    """The policy and its baselines, for each symbol and all together, with the parts side by side.

    Args:
        parts: the results by name, by the name of their part ("train", "validation", "test").

    Returns:
        Two blocks of rows and a legend, 80 columns wide for three parts.
    """
    names = list(next(iter(parts.values())))
    symbols = list(dict.fromkeys(symbol for part in parts.values() for symbol in _by_symbol(part[POLICY])))
    shown: list[str | None] = [*symbols[:MAX_SYMBOLS], None] if len(symbols) > 1 else [*symbols]  # None: all together
    rows = [(symbol, name) for symbol in shown for name in names]
    # Baselines trade next to nothing: once is enough.
    active = [(symbol, name) for symbol, name in rows if name == POLICY or symbol == shown[-1]]

    # On a narrow terminal the last parts are cut off, and no figure is shortened.
    widths = [LABEL_WIDTH, *[3 * FIGURE_WIDTH + 2] * len(parts)]
    grid = Table.grid(*(Column(min_width=width) for width in widths), padding=(0, 2, 0, 0))
    grid.add_row("", *(Rule(Text(name, "bold"), style="bold") for name in parts))
    for some, figures in ((rows, RESULTS), (active, ACTIVITY)):
        grid.add_row(_labels(some, len(symbols)), *(_figures(part, some, figures) for part in parts.values()))
        grid.add_row()
    hidden, notes = len(symbols) - MAX_SYMBOLS, []
    if hidden > 0:
        notes = [f"{hidden} more symbols are not shown; result.by_symbol of jaxtrader.backtest has them\n"]
    return Group(grid, *notes, Text(LEGEND, style="dim"))


def sentence(parts: Mapping[str, Part]) -> str:
    """What the last part says, in words that do not oversell: against the baselines, chance and the training part.

    The standard error of an annual Sharpe ratio S over y years is sqrt((1 + S^2 / 2p) / y) with p periods a year, for
    independent returns (Lo 2002, https://doi.org/10.2469/faj.v58.n4.2453). It is named so that nobody takes noise for
    skill. The difference of the two ratios varies less than that, because they move together.
    """
    name, part = list(parts.items())[-1]
    result, matched = part[POLICY], part[EXPOSURE_MATCHED]
    first, last = (str(time.astype("datetime64[D]")) for time in (result.times[0], result.times[-1]))
    where = f"the {name} part" if name in ("train", "validation", "test") else name
    unseen = ", unseen in training and selection" if name == "test" else ""
    text = f"On {where} ({first} to {last}{unseen}) the policy "
    if result.ruined_at is not None:
        lost = -result.metrics["total_return"]
        return f"{text}was ruined at bar {result.ruined_at}. It lost {lost:.0%} of its capital."
    text += (
        f"made {_a_year(result)}. Buy-and-hold made {_a_year(part[BUY_AND_HOLD])}, and {_a_year(matched)} at the "
        f"policy's mean exposure of {result.metrics['mean_exposure']:.2f}. "
    )
    ratio, other = result.metrics["sharpe"], matched.metrics["sharpe"]
    if math.isnan(ratio):
        return f"{text}The policy held too little for a Sharpe ratio."
    against = "holding that exposure"
    if math.isnan(other):  # long and short in turn: a mean exposure below the band is never bought
        against, other = "cash, since its mean exposure is below the band of the smallest trade", 0.0
    lead, years = ratio - other, len(result) / result.periods_per_year
    error = math.sqrt((1 + ratio**2 / (2 * result.periods_per_year)) / years)
    verdict = "no different from" if abs(lead) < 0.005 else "better than" if lead > 0 else "worse than"
    span = f"{years:.1f} years" if years >= 1 else f"{12 * years:.1f} months"
    text += (
        f"By Sharpe the policy is {verdict} {against} ({lead:+.2f}). One standard error of a Sharpe ratio over {span} "
        f"is {error:.2f}, {'so this may be chance' if abs(lead) < 2 * error else 'and this is a single history'}."
    )
    trained = parts["train"][POLICY].metrics["sharpe"] if name != "train" and "train" in parts else math.nan
    if not math.isnan(trained):
        text += f" The gap to the training Sharpe of {trained:.2f} is {trained - ratio:.2f}."
    return text


def trades_line(result: BacktestResult) -> str:
    """The number, profit and length of closed trades, how many are open, the fills, and the financing."""
    closed = result.trades[~result.trades["open"]]
    text = f"{len(closed):,} closed"
    if len(closed):
        won, gained, bars = (closed["pnl"] > 0).mean(), closed["return"].mean(), closed["bars"].mean()
        text += f" ({won:.0%} with a profit, on average {gained:+.2%} after costs in {bars:.0f} bars)"
    text += f", {len(result.trades) - len(closed):,} still open, {len(result.fills):,} fills"
    if (financing := float(result.financing.sum())) != 0:
        text += f". Interest and funding, which belong to no trade, came to {financing:+.2%} of the initial capital"
    return text


def orders_line(result: BacktestResult) -> str | None:
    """On how many bars orders did not fill as asked, and why. None where all did."""
    counts = (
        (result.clipped, "cut to what leverage, volume or cash allow"),
        (result.dropped, "given up for lack of cash, size or a bar"),
        (result.ignored_targets, "ignored after ruin"),
    )
    parts = [f"{count:,} {why}" for count, why in counts if count]
    return f"bars on which orders were not filled as asked: {', '.join(parts)}" if parts else None


def break_even_line(cost: float) -> str:
    """The break-even cost of a policy in words. It is in basis points of the traded value, NaN where there is none."""
    holding = "buy-and-hold at the same exposure"
    if math.isnan(cost):
        return f"none, as it trades hardly more than {holding}, or less"
    if cost < 0:
        return f"none, as it is behind {holding}: a trade would have to cost {-cost:,.1f} bp of its value less"
    return f"a trade could cost {cost:,.1f} bp of its value more before the lead over {holding} is gone"


def _by_symbol(result: BacktestResult) -> Mapping[str, BacktestResult]:
    return result.by_symbol or {",".join(result.symbols): result}


def _labels(rows: Iterable[tuple[str | None, str]], members: int) -> Table:
    block = _block(Column("", width=LABEL_WIDTH, no_wrap=True))
    for symbol, name in rows:
        policy = f"all {members}" if symbol is None else symbol
        block.add_row(policy if name == POLICY else LABELS.get(name, f" {name}"), style=_style(name))
    return block


def _figures(part: Part, rows: Iterable[tuple[str | None, str]], figures: Mapping[str, Figure]) -> Table:
    """The figures of one part, a row for each symbol (None: all together) and name of a result."""
    block = _block(*(Column(heading, width=FIGURE_WIDTH, justify="right", no_wrap=True) for heading in figures))
    for symbol, name in rows:
        result = part[name] if symbol is None else _by_symbol(part[name]).get(symbol)
        block.add_row(*(_cell(result, *figure) for figure in figures.values()), style=_style(name))
    return block


def _block(*columns: Column) -> Table:
    return Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def _style(name: str) -> str:
    return "bold" if name == POLICY else "dim"


def _cell(result: BacktestResult | None, metric: str, digits: int, kind: str) -> str:
    if result is None:
        return "-"
    if metric == "cagr" and result.ruined_at is not None:
        return "ruined"
    return _short(result.metrics[metric], digits, kind)


def _short(value: float, digits: int = 2, kind: str = "f") -> str:
    """A number or a percentage in FIGURE_WIDTH characters, with as many of its digits as fit."""
    if math.isnan(value):
        return "-"
    for precision in range(digits, -1, -1):
        if len(text := f"{value:.{precision}{kind}}") <= FIGURE_WIDTH:
            return text
    return f"{value:.0e}" if kind == "f" else ">1e4%" if value > 0 else "<-1e4%"


def _a_year(result: BacktestResult) -> str:
    if result.ruined_at is not None:
        return "ruin"
    return f"{result.metrics['cagr']:+.1%} a year (Sharpe {_short(result.metrics['sharpe'])})"
