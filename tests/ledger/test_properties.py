"""What any account must obey, whatever the prices and the targets: properties, by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from ledger.paths import busy, few, path, seeds, walk
from ledger.worked_bars import PRICEY

BARS = 40


def rebuilt(closes, account, fill, closing):
    """Equity from the fills alone: what was paid and received, and the sum of the units at the close."""
    paid = sum((each.units * each.price + each.fee + each.slippage).sum(-1) for each in (fill, closing))
    units = np.cumsum(fill.units + closing.units, 0)
    return 1 - np.cumsum(paid, 0) + (units * closes[1:]).sum(-1)


@few
@given(seeds)
def test_equity_is_what_the_fills_paid_and_what_is_left(seed):
    closes, opens = walk(seed, BARS, 4, 3, volatility=0.1)
    account, fill, closing = path(closes, opens, busy(seed, BARS, 4, 3), PRICEY)
    # Sums over 40 bars, of numbers that may cancel.
    np.testing.assert_allclose(rebuilt(closes, account, fill, closing), account.equity, rtol=1e-11, atol=1e-12)
    # The price of a fill is the open of its bar, and slippage and fee are those of rule 4.
    np.testing.assert_array_equal(fill.price, opens)
    np.testing.assert_allclose(fill.slippage, 0.02 * np.abs(fill.units) * opens, rtol=1e-13)
    traded = np.abs(fill.units) * opens * (1 + 0.02 * np.sign(fill.units))
    np.testing.assert_allclose(fill.fee, 0.01 * traded, rtol=1e-13)


@few
@given(seeds)
def test_flat_stays_flat(seed):
    closes, opens = walk(seed, BARS, 4, 3, volatility=0.1)
    account, fill, _ = path(closes, opens, np.zeros((BARS, 4, 3)), PRICEY)
    assert (account.equity == 1.0).all()
    assert not fill.units.any()


@few
@given(seeds, st.sampled_from([2.0**-20, 8.0, 2.0**30]) | st.floats(1e-6, 1e6))
def test_the_scale_of_prices_does_not_matter(seed, scale):
    """Random targets are no edges, and a target met before is none by the ledger's dust, 1e-12 of equity."""
    closes, opens = walk(seed, BARS, 4, 3, volatility=0.1)
    targets = busy(seed, BARS, 4, 3)
    plain = path(closes, opens, targets, PRICEY)[0]
    scaled = path(closes * scale, opens * scale, targets, PRICEY)[0]
    # The scale is no power of two: every product rounds otherwise.
    np.testing.assert_allclose(scaled.equity, plain.equity, rtol=1e-12, atol=1e-13)


@few
@given(seeds, st.floats(0.3, 3.0))
def test_valid_bars_never_give_nan(seed, wild):
    """Targets of any size, prices that leap: the account stays a number, in float32 too."""
    closes, opens = walk(seed, BARS, 4, 3, volatility=wild)
    targets = busy(seed, BARS, 4, 3) * 10.0 ** np.random.default_rng(seed).integers(-8, 8, (BARS, 4, 3))
    account, fill, closing = path(closes, opens, targets, PRICEY, dtype="float32")
    for tree in (account, fill, closing):
        for name, leaf in vars(tree).items():
            if name != "target" and leaf is not None:
                assert np.isfinite(leaf).all(), name
