"""A close that is adjusted beside raw prices is named, scaled on request, and never clipped."""

import numpy as np
import pandas as pd
import pytest
from market.price_tables import frame
from market.test_share_splits import walk

from jaxtrader.market.bars import load_bars
from jaxtrader.market.errors import DataError

BARS = 500


def mixed(names: tuple[str, ...] = ("close",), bars: int = BARS) -> tuple[pd.DataFrame, np.ndarray]:
    """Prices of which `names` are adjusted for a dividend of 1.5% every 63 bars, and the factor."""
    table = pd.DataFrame(walk(2, bars, deviation=0.01, freedom=8.0), index=pd.bdate_range("2010-01-01", periods=bars))
    factor = 0.985 ** ((bars - 1 - np.arange(bars)) // 63)
    for name in names:
        table[name] *= factor
    return table, factor


@pytest.mark.parametrize("repair", [None, "clip"])
@pytest.mark.parametrize("names", [("close",), ("open",), ("open", "close")])
def test_prices_of_two_adjustments_are_refused_and_never_clipped(names, repair):
    with pytest.raises(DataError, match=r"DataFrame, row 0 .*adjustment.*`repair='adjust'`") as caught:
        load_bars(mixed(names)[0], repair=repair)
    assert "clip" not in str(caught.value)


def test_a_few_rows_before_a_split_are_named_and_single_errors_are_not():
    table, _ = mixed((), bars=1500)
    table.loc[table.index[:6], "close"] /= 2
    with pytest.raises(DataError, match="adjustment"):
        load_bars(table, repair="clip")
    table, _ = mixed((), bars=1500)
    table.loc[table.index[100:1500:200], "close"] /= 2
    with pytest.raises(DataError, match="`repair='clip'`"):
        load_bars(table)


def test_repair_adjust_scales_the_others_by_the_steady_ratio():
    table, factor = mixed()
    bars = load_bars(table, repair="adjust")
    np.testing.assert_array_equal(bars.close[:, 0], table.close)
    for name in ("open", "high", "low"):
        # The ratio is midway between the limits that the ranges of 63 bars leave to it, which lie that close.
        np.testing.assert_allclose(getattr(bars, name)[:, 0], table[name] * factor, rtol=1e-3)
    assert np.median(np.abs(bars.price_factor[:, 0] / factor - 1)) < 1e-3
    assert any("repair='adjust'" in note for note in bars.notes)


@pytest.mark.parametrize("names", [("open",), ("open", "close")])
def test_repair_adjust_brings_any_two_adjustments_together(names):
    table, factor = mixed(names)
    bars = load_bars(table, repair="adjust")
    np.testing.assert_array_equal(bars.close[:, 0], table.close)
    ratio = (
        {"open": bars.open[:, 0] / (table.open / factor)}
        if names == ("open",)
        else {name: getattr(bars, name)[:, 0] / (table[name] * factor) for name in ("high", "low")}
    )
    for values in ratio.values():
        np.testing.assert_allclose(values, 1.0, rtol=1e-3)  # as above


def test_a_ratio_that_is_not_steady_is_refused():
    table, _ = mixed()
    table["close"] *= np.random.default_rng(0).uniform(0.8, 0.9, BARS)
    with pytest.raises(DataError, match="all raw or all adjusted") as caught:
        load_bars(table, repair="adjust")
    assert "`repair='adjust'`" not in str(caught.value)


def test_sound_prices_are_left_as_they_are():
    bars = load_bars(frame(), repair="adjust")
    np.testing.assert_array_equal(bars.open[:, 0], frame().open)
    assert bars.notes == ()
    assert bars.price_factor is None
