"""What the terminal shows of books: a table of parts side by side, a line on trades, and one sober sentence.

The gap between training and test is the message, and so is what buy-and-hold would have given. Nothing is computed here
but differences of figures that the books already hold; nothing is written to files.
"""

from __future__ import annotations

import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.text import Text

if TYPE_CHECKING:
    from jaxtrader.evaluation.book import Book

    Part = Mapping[str, Book]
    """The policy's book first, then what stands beside it, by name."""

POLICY = "policy"
HELD = "buy and hold"
MATCHED = "buy and hold at mean exposure"
PLAIN_WIDTH = 100  # columns where the output is no terminal
MAX_SYMBOLS = 8  # more have no rows of their own: the table must stay readable
_LABEL, _CELL = 14, 6  # with three parts of three figures: 80 columns
_SHORT = {HELD: "buy and hold", MATCHED: "same exposure"}

LEGEND = (
    "return: compound, a year. max dd: largest drawdown. same exposure: buy-and-hold at the policy's mean exposure. "
    "expos.: mean position / equity. turn/y: traded value / equity, a year. costs: fees and slippage, share of the "
    "initial capital. All after costs."
)

Figure = tuple[str, Callable[["Book"], str]]


def console(file: TextIO | None = None, width: int | None = None) -> Console:
    """Where results are printed: plain text without control codes unless it is a terminal.

    Args:
        file: standard output by default.
        width: columns; by default the terminal's, or COLUMNS, or 100.
    """
    out = file or sys.stdout
    terminal = out.isatty()
    if width is None and not terminal and not os.environ.get("COLUMNS", "").isdigit():
        width = PLAIN_WIDTH
    # Rich takes FORCE_COLOR for a terminal, also where the output goes to a file.
    return Console(file=out, width=width, force_terminal=None if terminal else False, highlight=False, markup=False)


def print_facts(out: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print labelled lines; a long text wraps under its own beginning, but never inside a word, path or file name.

    The text of "next" is a command, there to be copied: it stays on one line.
    """
    rows = list(rows)
    indent = max(len(label) for label, _ in rows) + 2
    for label, text in rows:
        room = max(out.width - indent, 20)
        lines = [text]
        if label != "next":
            lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
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
    """Parts side by side: for each symbol, and all together, the policy and what stands beside it.

    Args:
        parts: by name ("train", "validation", "test"), the books by name; the first is the policy's.

    Returns:
        Two blocks of lines and a legend, 80 columns wide for three parts.
    """
    results: tuple[Figure, ...] = (("return", _return), ("Sharpe", _sharpe), ("max dd", _drawdown))
    activity: tuple[Figure, ...] = (("expos.", _exposure), ("turn/y", _turnover), ("costs", _costs))
    owners = _owners(parts)
    shown = [*owners[:MAX_SYMBOLS], None] if len(owners) > 1 else owners
    hidden = len(owners) - min(len(owners), MAX_SYMBOLS)
    lines = [_titles(parts), _headings(parts, results)]
    for owner in shown:
        lines += _rows(parts, owner, len(owners), results)
    lines += [Text(), _headings(parts, activity)]
    for owner in shown:
        # What stands beside trades next to nothing: once is enough.
        lines += _rows(parts, owner, len(owners), activity)[: None if owner == shown[-1] else 1]
    if hidden:
        lines += [Text(f"{hidden} more symbols are not shown; book.by_symbol of jaxtrader.backtest has them")]
    return Group(*lines, Text(), Text(LEGEND, style="dim"))


def sentence(parts: Mapping[str, Part]) -> str:
    """The result in one sentence that does not oversell: of the last part, against the baselines, and the training gap.

    The standard error of an annual Sharpe ratio S over y years is sqrt((1 + S^2 / 2p) / y) with p periods a year, for
    independent returns (Lo 2002, https://doi.org/10.2469/faj.v58.n4.2453). It is named so that nobody reads noise as
    skill, though the two ratios compared move together and their difference varies less than that.
    """
    name, part = list(parts.items())[-1]
    book, held, matched = part[POLICY], part[HELD], part[MATCHED]
    first, last = (str(time.astype("datetime64[D]")) for time in (book.times[0], book.times[-1]))
    where = f"the {name} part" if name in ("train", "validation", "test") else name
    text = f"On {where} ({first} to {last}{', unseen in training and selection' if name == 'test' else ''}) the policy "
    if book.ruined_at is not None:
        return f"{text}was ruined at bar {book.ruined_at}: it lost {-book.metrics['total_return']:.0%} of its capital."
    exposure = book.metrics["mean_exposure"]
    text += (
        f"made {_a_year(book)}; buy-and-hold made {_a_year(held)}, and at the policy's mean exposure of {exposure:.2f} "
        f"{_a_year(matched)}"
    )
    ratio, other = book.metrics["sharpe"], matched.metrics["sharpe"]
    if math.isnan(ratio):
        return f"{text}: it held too little for a Sharpe ratio."
    if math.isnan(other):  # long and short in turn: a mean exposure below the band is never bought
        against, other = "cash, since its mean exposure is below the band of the smallest trade", 0.0
    else:
        against = "holding that exposure"
    ahead = ratio - other
    years = len(book) / book.periods_per_year
    error = math.sqrt((1 + ratio**2 / (2 * book.periods_per_year)) / years)
    verdict = "no different from" if abs(ahead) < 0.005 else "better than" if ahead > 0 else "worse than"
    text += f": by Sharpe {verdict} {against} ({ahead:+.2f})"
    text += f"; one standard error of a Sharpe ratio over {_years(years)} is {error:.2f}, "
    text += "so this may be chance" if abs(ahead) < 2 * error else "and it is a single history"
    trained = parts["train"][POLICY].metrics["sharpe"] if name != "train" and "train" in parts else math.nan
    if not math.isnan(trained):
        text += f"; the gap to its training Sharpe of {trained:.2f} is {trained - ratio:.2f}"
    return text + "."


def trades_line(book: Book) -> str:
    """Number, share won, mean return, length of the closed trades; the open ones and fills counted; carry beside."""
    trades = book.trades
    closed = trades[~trades["open"]]
    opened = f"{len(trades) - len(closed):,} still open, {len(book.fills):,} fills"
    if (carry := float(book.carry.sum())) != 0:
        opened += f"; interest and funding, of no single trade, {carry:+.2%} of the initial capital"
    if not len(closed):
        return f"none closed; {opened}"
    won, gained, bars = (closed["pnl"] > 0).mean(), closed["return"].mean(), closed["bars"].mean()
    figures = f"{won:.0%} with a profit, {gained:+.2%} after costs in {bars:.0f} bars on average"
    return f"{len(closed):,} closed, {figures}; {opened}"


def orders_line(book: Book) -> str | None:
    """On how many bars orders were not what was asked for, and why; None where there were none."""
    counts = (
        (book.clipped, "cut to what leverage, volume or cash allow"),
        (book.dropped, "given up: no cash, too small, or no bar to fill in"),
        (book.ignored_targets, "ignored after ruin"),
    )
    parts = [f"{count:,} {why}" for count, why in counts if count]
    return f"bars on which orders were not filled as asked: {'; '.join(parts)}" if parts else None


def break_even_line(cost: float) -> str:
    """The break-even cost of a policy, in basis points of the traded value (NaN: there is none), in words."""
    beside = "buy-and-hold at the same exposure"
    if math.isnan(cost):
        return f"none, as it trades hardly more than {beside}, or less"
    if cost < 0:
        return f"none, as it is behind {beside}: a trade would have to cost {-cost:,.1f} bp of its value less"
    return f"a trade could cost {cost:,.1f} bp of its value more before the lead over {beside} is gone"


def _owners(parts: Mapping[str, Part]) -> list[str | None]:
    """Symbols over all parts, in order; one symbol's book may stand for itself."""
    names: dict[str | None, None] = {}
    for part in parts.values():
        names |= dict.fromkeys(_members(part[POLICY]))
    return list(names)


def _members(book: Book) -> Mapping[str, Book]:
    return book.by_symbol or {",".join(book.symbols): book}


def _rows(parts: Mapping[str, Part], owner: str | None, members: int, figures: Sequence[Figure]) -> list[Text]:
    """The policy's line of a symbol (None: of all together), and one for each book beside it."""
    heading = f"all {members}" if owner is None else owner
    lines = []
    for kind in next(iter(parts.values())):
        cells = []
        for part in parts.values():
            book = part[kind] if owner is None else _members(part[kind]).get(owner)
            cells.append([figure(book) if book is not None else "-" for _, figure in figures])
        label = heading if kind == POLICY else " " + _SHORT.get(kind, kind)
        lines.append(_line(label, cells, "bold" if kind == POLICY else "dim"))
    return lines


def _titles(parts: Mapping[str, Part]) -> Text:
    width = 3 * _CELL + 2
    titles = [_cut(f" {name} ", width).center(width, "─") for name in parts]
    return Text(" " * _LABEL + "".join(f"  {title}" for title in titles), style="bold", no_wrap=True)


def _headings(parts: Mapping[str, Part], figures: Sequence[Figure]) -> Text:
    return _line("", [[name for name, _ in figures] for _ in parts], "dim")


def _line(label: str, cells: Sequence[Sequence[str]], style: str) -> Text:
    groups = ["  " + " ".join(f"{cell:>{_CELL}}" for cell in group) for group in cells]
    return Text(f"{_cut(label, _LABEL):<{_LABEL}}" + "".join(groups), style=style, no_wrap=True)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _return(book: Book) -> str:
    return "ruined" if book.ruined_at is not None else _percent(book.metrics["cagr"])


def _sharpe(book: Book) -> str:
    return _number(book.metrics["sharpe"])


def _drawdown(book: Book) -> str:
    return _percent(book.metrics["max_drawdown"])


def _exposure(book: Book) -> str:
    return _number(book.metrics["mean_exposure"])


def _turnover(book: Book) -> str:
    return _number(book.metrics["turnover"])


def _costs(book: Book) -> str:
    return _percent(book.metrics["costs"], 2)


def _percent(share: float, digits: int = 1) -> str:
    """A share as percent in six characters."""
    if math.isnan(share):
        return "-"
    for precision in range(digits, -1, -1):
        text = f"{100 * share:.{precision}f}%"
        if len(text) <= _CELL:
            return text
    return ">1e4%" if share > 0 else "<-1e4%"


def _number(value: float) -> str:
    """A number in six characters."""
    if math.isnan(value):
        return "-"
    for text in (f"{value:.2f}", f"{value:.1f}", f"{value:.0f}"):
        if len(text) <= _CELL:
            return text
    return f"{value:.0e}"


def _a_year(book: Book) -> str:
    if book.ruined_at is not None:
        return "ruin"
    return f"{book.metrics['cagr']:+.1%} a year (Sharpe {_number(book.metrics['sharpe'])})"


def _years(years: float) -> str:
    return f"{years:.1f} years" if years >= 1 else f"{12 * years:.1f} months"
