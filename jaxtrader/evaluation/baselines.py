"""What a policy's book is held against: the same bars and costs, without a decision and without brackets.

Buy and hold says what the market gave. Buy and hold at the policy's mean exposure says what its amount of risk
alone gave, and is the fairer of the two. Both have what a patient holder has: they pay the book's costs and interest,
fill where and as late as it does, in its lots and within its leverage and margin. They are not sold at the end of a
session, not cut to a share of the volume, and not dropped for their size. They rebalance by the band alone, whatever
the book does. Nothing is learnt, tuned or tested here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

import numpy as np

from jaxtrader.envs.rules import RuleArgs
from jaxtrader.evaluation.book import Book, combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.market import Market
from jaxtrader.market.trailing import VALUE_FLOOR

BUY_AND_HOLD = "buy and hold"
EXPOSURE_MATCHED = "buy and hold at mean exposure"
HARDLY = 0.01  # of the turnover of a book


def beside(market: Market, book: Book) -> dict[str, Book]:
    """The baselines of a book, by name, over its bars and by its rules and costs.

    Args:
        market: the market that the book was run on, with the same segments.
        book: of one symbol, or combined: then each symbol has its own baseline, matched to its own mean exposure, and
            they are combined like the book.

    Raises:
        ValueError: the market lacks a symbol or the bars of the book.
    """
    return {BUY_AND_HOLD: _each(market, book, buy_and_hold), EXPOSURE_MATCHED: _each(market, book, exposure_matched)}


def buy_and_hold(market: Market, book: Book) -> Book:
    """All the capital, in equal parts where there are several assets, ordered at bar 0 of a book and held.

    An asset that is listed later is ordered at its first bar, for an equal part of the cash that is left for it and
    those still to come. Where the bar of the fill is missing (or nothing is known yet to size its impact by), the order
    is given again until it fills. Nothing is bought on credit. No band: a part of 1/30 is bought, too.
    """
    begun = np.ones(book.targets.shape, bool)
    if market.present is not None:
        begun = np.logical_or.accumulate(market.present[_rows(market, book)])
    can = begun & _filled(market, book)
    first = np.where(can.any(0), can.argmax(0), -1)
    targets = np.full(can.shape, np.nan)
    most = min(book.rules.max_leverage, 1.0)
    hold = lambda: _like(market, book, targets, rebalance_band=0.0, max_leverage=most, maintenance_margin=None)  # noqa: E731
    left, wait = len(first), book.rules.delay + (book.rules.fill != "close")
    for row in np.unique(first[first >= 0]):
        taken = 0.0 if left == len(first) else float(hold().exposure[row].sum())
        taken += sum(targets[first[i], i] for i in np.flatnonzero((first >= 0) & (first < row) & (first + wait > row)))
        targets[row, first == row] = max(most - taken, 0.0) / left
        left -= int((first == row).sum())
    return hold()


def exposure_matched(market: Market, book: Book) -> Book:
    """The mean exposure of a book (of one segment), asked for at every bar, and rebalanced by the same band.

    A mean smaller than the band is never bought, as the policy itself could not have bought it.
    """
    targets = np.where(_filled(market, book), book.exposure.mean(0), np.nan)
    return _like(market, book, targets, rebalance="always")


def break_even(book: Book, matched: Book) -> float:
    """The break-even cost (money rule 1), in basis points of the traded value.

    So much more could each trade cost, of the book and of what it is matched with, before its lead is gone: the excess
    of log return over the excess of turnover. Below 0 the book is behind, and costs would have to be lower by so much.
    It is of first order, as the account shrinks by the cost of what it trades: right to about half the cost of one
    trade (1% where turning over all of the account costs 2%).

    Args:
        book: the policy's.
        matched: its `exposure_matched`, combined like it.

    Returns:
        NaN where the book trades less than what it is matched with, or more by less than HARDLY of its own turnover
        (a lead over so little is no price of a trade), or one of the two has nothing left.
    """
    traded = float(book.turnover.sum() - matched.turnover.sum())
    last = [one.equity[-1] / one.initial for one in (book, matched)]
    if min(last) <= 0 or traded <= HARDLY * float(book.turnover.sum()):
        return math.nan
    return 1e4 * math.log(last[0] / last[1]) / traded


def _filled(market: Market, book: Book) -> np.ndarray:
    """Whether an order of each row of a book can fill where it is due, `[bar, A]`.

    It needs a real bar of its asset and, where impact is charged, a traded value known before, to size by. An order
    after which the book ends is not known to fail.
    """
    filled, rows, wait = np.ones(book.targets.shape, bool), _rows(market, book), book.rules.delay
    if market.present is not None:
        due = market.present[rows][wait + (book.rules.fill != "close") :]
        filled[: len(due)] = due
    if book.costs.has("impact"):
        assert market.adv is not None  # `simulate` asked for it
        known = market.adv[rows][wait:] > VALUE_FLOOR
        filled[: len(known)] &= known
    return filled


def _each(market: Market, book: Book, baseline: Callable[[Market, Book], Book]) -> Book:
    if not book.by_symbol:
        return baseline(market, book)
    return combine({symbol: baseline(market, one) for symbol, one in book.by_symbol.items()}, book.periods_per_year)


def _like(market: Market, book: Book, targets: np.ndarray, **changes: Unpack[RuleArgs]) -> Book:
    """Targets through `simulate` on the bars and costs of a book, and those of its rules that bind a holder."""
    symbol, start = ",".join(book.symbols), _rows(market, book).start
    rules = book.rules.args
    rules.update({"flat_at_session_end": False, "volume_cap": None, "min_trade": None})
    rules.update(changes)
    return simulate(market, targets, costs=book.costs, start=start, symbol=symbol, **rules)


def _rows(market: Market, book: Book) -> slice:
    """The rows of the market that a book was run on."""
    symbol = ",".join(book.symbols)
    if symbol not in market.symbols:
        raise ValueError(
            f"the book is of {symbol}, and the market has {', '.join(market.symbols)}; give the book's market"
        )
    history, _, end = (int(row) for row in market.segments[market.symbols.index(symbol)])
    start = history + int(np.searchsorted(market.times[history:end], book.times[0]))
    if not np.array_equal(market.times[start:end], book.times):
        raise ValueError(
            f"the book of {symbol} has {len(book)} bars from {book.times[0]} to {book.times[-1]}, which are not the "
            "market's up to its end; give the market (and the split of it) that the book was run on"
        )
    return slice(start, end)
