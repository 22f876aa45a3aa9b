"""Flat means flat: session ends and last bars under every fill, in whole books, with missing bars."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_books import BARS, market_of, orders_of
from ledger_fills import assert_same_book, reference_of

from jaxtrader.envs.costs import Costs
from jaxtrader.evaluation.book import Book
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.market.market import Market

COSTS = Costs(fee=0.001, slippage=0.002)
every_fill = pytest.mark.parametrize(
    ("fill", "assets"), [(fill, assets) for fill in ("next_open", "next_close", "close") for assets in (1, 3)]
)


def book_of(seed: int, assets: int, fill: str) -> tuple[Book, Market, np.ndarray]:
    """A book that is flat at each session's end, its market and its targets."""
    market, targets = dataclasses.replace(market_of(seed, assets), funding=None), orders_of(seed, assets)[0]
    return simulate(market, targets, costs=COSTS, fill=fill, flat_at_session_end=True), market, targets


@every_fill
def test_a_book_with_sessions_missing_and_last_bars_matches_the_scalar_reference(fill: str, assets: int) -> None:
    dropped = 0
    for seed in range(4):
        book, market, targets = book_of(seed, assets, fill)
        expected = reference_of(market, targets, COSTS, fill=fill, flat_at_session_end=True)
        assert_same_book(book, expected, 1e-12)
        dropped += book.dropped
    assert dropped > 10


@every_fill
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_nothing_is_held_after_a_sessions_end_whatever_bars_are_missing(fill: str, assets: int, seed: int) -> None:
    book, market, _ = book_of(seed, assets, fill)
    ends = market.session_end
    assert (book.units[ends] == 0).all()
    late = ~market.present[book.fills["bar"], [book.symbols.index(name) for name in book.fills["symbol"]]]
    np.testing.assert_array_equal(book.fills["reason"][late], "session end")
    assert ends.any()
    assert (book.units[~ends] != 0).any()


def test_an_order_at_the_close_that_ends_a_session_or_an_asset_is_given_up_and_counted() -> None:
    """One asset that always wants to be held, at a close of 50: sessions end at bars 10 and 20, the asset at 30."""
    rows = np.arange(BARS)[:, None]
    still = {name: np.full((BARS, 1), 50.0) for name in ("open", "high", "low", "close")}
    flags = {"session_end": np.isin(rows[:, 0], [10, 20]), "delisted": rows == 30, "present": rows <= 30}
    market = dataclasses.replace(market_of(0, 1), funding=None, **still, **flags)
    book = simulate(market, 1.0, costs=Costs(fee=0.0, slippage=0.0), fill="close", flat_at_session_end=True)
    held = ~np.isin(rows, [10, 20]) & (rows < 30)
    np.testing.assert_array_equal(book.units, held / 50)
    assert book.fills["bar"].tolist() == [0, 10, 11, 20, 21, 30]
    # Bars 10, 20, 30, and each after the last: there is nothing to fill in.
    assert book.dropped == 2 + BARS - 30
