"""adv, price_factor and funding, against pandas and by hand. test_market.py tests the volatility."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from market.price_tables import market_of

from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.market import Market
from jaxtrader.market.trailing import VALUE_FLOOR

BARS = 150


def table(bars: int = BARS, seed: int = 0) -> pd.DataFrame:
    """Raw prices with a 4-for-1 split at bar 60, an adjusted close, and raw volume."""
    rng = np.random.default_rng(seed)
    adjusted = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, bars)))
    close = adjusted * np.where(np.arange(bars) < 60, 4.0, 1.0)
    columns = {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close, "adj_close": adjusted}
    columns["volume"] = rng.lognormal(10, 1, bars)
    return pd.DataFrame(columns, index=pd.date_range("2020-01-01", periods=bars))


def test_adv_is_the_mean_of_unadjusted_price_times_volume():
    frame = table()
    market = market_of(frame)
    wanted = (frame.close * frame.volume).rolling(20, min_periods=1).mean()
    np.testing.assert_allclose(market.adv[:, 0], wanted, rtol=1e-12)
    np.testing.assert_allclose(market.arrays().adv, market.adv, rtol=1e-6)
    np.testing.assert_allclose(market.price_factor[:, 0], frame.adj_close / frame.close, rtol=1e-14)
    np.testing.assert_allclose(market.arrays().price_factor, market.price_factor, rtol=1e-6)


def test_price_factor_is_none_without_an_adjusted_close():
    frame = table().drop(columns="adj_close")
    market = market_of(frame)
    assert market.price_factor is market.arrays().price_factor is None
    np.testing.assert_allclose(market.adv[:, 0], (frame.close * frame.volume).rolling(20, 1).mean(), rtol=1e-12)
    loaded = load_bars(table(), adjust=False)
    assert loaded.price_factor is None


def test_adv_and_price_factor_have_no_look_ahead():
    frame = table()
    whole = market_of(frame)
    for t in (0, 1, 18, 19, 20, 99):
        assert market_of(frame[: t + 2]).adv[: t + 1].tobytes() == whole.adv[: t + 1].tobytes()
    changed = frame.copy()
    changed.iloc[100:] *= 1.5
    other = market_of(changed)
    for name in ("adv", "price_factor", "volatility", "features"):
        assert getattr(whole, name)[:100].tobytes() == getattr(other, name)[:100].tobytes()
    assert (whole.adv[100:] != other.adv[100:]).all()


@pytest.mark.parametrize(
    ("volume", "trusted", "note"),
    [
        (np.arange(BARS) + 1.0, True, None),
        (np.where(np.arange(BARS) == 7, 0.0, 1.0 + np.arange(BARS)), True, None),
        (np.where(np.arange(BARS) % 50 == 7, 0.0, 1.0 + np.arange(BARS)), False, "Volume is 0 in 3 of 150 bars"),
        (np.full(BARS, 100.0), False, "Volume is 100 in every bar"),
        (np.zeros(BARS), False, "Volume is 0 in every bar"),
    ],
)
def test_adv_is_none_for_unreliable_volume(volume, trusted, note):
    market = market_of(table().assign(volume=volume))
    assert (market.adv is not None) == trusted
    assert (market.arrays().adv is not None) == trusted
    notes = [text for text in market.notes if "Volume" in text and "volume_ratio" not in text]
    assert len(notes) == (note is not None)
    if note:
        assert notes[0].startswith(f"S0: {note}")
        assert "no average traded value" in notes[0]


def test_adv_is_none_without_a_volume_column():
    market = market_of(table().drop(columns="volume"))
    assert market.adv is None
    assert len([text for text in market.notes if "olume" in text]) == 1


def test_adv_is_none_if_one_symbol_has_unreliable_volume():
    for settings in ({}, {"align": True}):
        assert market_of(table(), table(seed=1).assign(volume=5.0), **settings).adv is None


def test_adv_and_price_factor_of_aligned_histories():
    early, late = table(), table(seed=1)[40:].drop(pd.date_range("2020-03-01", periods=3))
    market = market_of(early, late, align=True)
    alone = market_of(late)
    assert (market.adv[:40, 1] == VALUE_FLOOR).all()
    np.testing.assert_array_equal(market.adv[40:60, 1], alone.adv[:20, 0])
    np.testing.assert_array_equal(market.adv[60:63, 1], alone.adv[19, 0])
    np.testing.assert_array_equal(market.adv[63:, 1], alone.adv[20:, 0])
    np.testing.assert_array_equal(market.price_factor[:41, 1], alone.price_factor[0, 0])
    np.testing.assert_array_equal(market.price_factor[60:63, 1], alone.price_factor[19, 0])
    mixed = market_of(early, late.drop(columns="adj_close"), align=True)
    assert (mixed.price_factor[:, 1] == 1).all()
    np.testing.assert_array_equal(mixed.price_factor[:, 0], market.price_factor[:, 0])


def test_adv_floor_after_20_bars_without_a_trade():
    volume = np.random.default_rng(0).uniform(1, 2, 3000)
    volume[1000:1025] = 0
    market = market_of(table(3000).assign(volume=volume))
    assert market.adv[1024, 0] == VALUE_FLOOR
    assert (market.adv > 0).all()


FUNDED = table().assign(fundingRate=np.where(np.arange(BARS) % 8 == 0, 1e-4, 0.0))


def test_funding_is_read_and_remains_a_column():
    bars = load_bars(FUNDED)
    np.testing.assert_array_equal(bars.funding[:, 0], FUNDED.fundingRate)
    assert set(bars.columns) == {"fundingRate"}
    market = Market.from_bars(bars, ["fundingRate"])
    np.testing.assert_array_equal(market.funding, bars.funding)
    np.testing.assert_array_equal(market.arrays().funding, bars.funding.astype(np.float32))
    assert market_of(table()).funding is market_of(table()).arrays().funding is None


def test_funding_is_due_at_the_time_of_its_row_in_the_file():
    """A time that marks the open of a bar is the close of the bar before."""
    bars = load_bars(FUNDED, label="open")
    np.testing.assert_array_equal(bars.funding[:-1, 0], FUNDED.fundingRate[1:])
    assert bars.funding[-1, 0] == 0
    np.testing.assert_array_equal(bars.columns["fundingRate"][:, 0], FUNDED.fundingRate)


def test_funding_is_0_for_symbols_without_it():
    for settings in ({}, {"align": True}):
        market = market_of(table(), FUNDED[24:].drop(FUNDED.index[49]), **settings)
        if settings:
            assert (market.funding[:, 0] == 0).all()
            # Neither before the first bar nor after bar 48, of which the missing row holds the prices, is any due.
            assert FUNDED.fundingRate.iloc[24] == FUNDED.fundingRate.iloc[48] > 0
            wanted = np.where(np.isin(np.arange(BARS), [*range(24), 49]), 0, FUNDED.fundingRate)
            np.testing.assert_array_equal(market.funding[:, 1], wanted)
        else:
            assert (market.funding[:BARS] == 0).all()


def test_missing_funding_is_0_and_percents_are_rejected():
    rare = FUNDED.fundingRate.where(FUNDED.fundingRate > 0)
    bars = load_bars(FUNDED.assign(fundingRate=rare))
    np.testing.assert_array_equal(bars.funding[:, 0], FUNDED.fundingRate)
    assert any("'fundingRate'" in note and f"{rare.isna().sum()} bars" in note for note in bars.notes)
    for bad, message in ((1.0, "divide percents by 100"), (-2.5, "divide percents by 100"), (np.inf, "infinite")):
        with pytest.raises(ValueError, match=rf"row 3 .*fundingRate.*{message}"):
            load_bars(FUNDED.assign(fundingRate=np.where(np.arange(BARS) == 3, bad, 0)))


def test_optional_fields_of_bars_default_to_none():
    loaded = load_bars(table())
    fields = {f.name: getattr(loaded, f.name) for f in dataclasses.fields(Bars) if f.default is dataclasses.MISSING}
    assert Bars(**fields).price_factor is None
