"""On which row bars of assets with different clocks stand: no decision sees a later close, and none fills in the past.

Prices are often the hours from 2020 to the open of their bar, so that they show when they were made.
"""

import dataclasses
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from market.price_tables import cut
from market.test_align import DAYS, FEATURES, LATE, WHOLE, history

from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bars import Bars, load_bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.market import Market

HOURS = pd.date_range("2020-01-01 01:00", periods=400, freq="h")
ZONES = {"BVSP": "America/Sao_Paulo", "SPY": "America/New_York"}
PRICES = ("open", "high", "low", "close", "volume")


def table_of(bars: int) -> dict[str, np.ndarray]:
    return dict.fromkeys(PRICES, np.linspace(50, 60, bars))


def test_daily_bars_that_close_at_two_times_of_a_day_share_a_row():
    """A decision at the earlier close would buy the others at their open of that day, hours before it."""
    days = pd.bdate_range("2020-01-01", periods=60)
    early, late = days + pd.Timedelta("16h"), days + pd.Timedelta("16h30min")
    parts = [history(name, times) for name, times in zip("ABCD", (early, early, late, late), strict=True)]
    thin = history("THIN", early[[0, 1, 2, *range(10, 60, 9)]])
    market = Market.from_bars([*parts, thin], FEATURES[:1], align=True)
    np.testing.assert_array_equal(market.times, late.to_numpy())
    np.testing.assert_array_equal(market.close[:, 0], parts[0].close[:, 0])
    assert market.session_end is market.bar_dt is market.delisted is None
    assert market.periods_per_year == 252
    assert not any("past" in note for note in market.notes)


# Hours of the day at which the exchange's session begins and ends.
SESSIONS = {
    "America/New_York": (9.5, 16),
    "Asia/Shanghai": (9.5, 15),
    "Asia/Taipei": (9, 13.5),
    "Asia/Tokyo": (9, 15.5),
    "Australia/Sydney": (10, 16),
    "Europe/Berlin": (9, 17.5),
}


def timed(name: str, stamps: pd.DatetimeIndex, opens: pd.DatetimeIndex, label: Any = "close") -> Bars:
    hours = np.asarray((opens - pd.Timestamp("2020-01-01", tz="UTC")) / pd.Timedelta("1h"))
    return load_bars(pd.DataFrame(dict.fromkeys(PRICES, hours), stamps), symbol=name, label=label)


def coin_of(end: str, label: str, days: int = 364, name: str = "BTC") -> Bars:
    """Days that end so long after midnight UTC, stamped at their end or at their beginning."""
    begins = pd.date_range("2020-03-01", periods=days, tz="UTC") + pd.Timedelta(end)
    return timed(name, begins if label == "open" else begins + pd.Timedelta("1D"), begins, {name: label})


def stock_of(zone: str, days: int = 260) -> tuple[Bars, np.ndarray]:
    """Sessions of an exchange, and when they begin [n]."""
    dates = pd.bdate_range("2020-03-02", periods=days)
    opens, closes = ((dates + pd.Timedelta(hours=at)).tz_localize(zone).tz_convert("UTC") for at in SESSIONS[zone])
    return timed("STOCK", closes, opens), opens.tz_localize(None).to_numpy("M8[ns]")


@pytest.mark.parametrize(("at", "zone"), list(enumerate(SESSIONS)))
@pytest.mark.parametrize("minutes", [-1, *range(0, 1440, 60)])
def test_no_order_fills_in_the_past_and_a_coin_is_refused_only_where_its_day_ends_in_a_session(at, zone, minutes):
    """Each end of the day has both labels, in every other zone."""
    label = ("open", "close")[(at + minutes // 60) % 2]
    coin, (stock, begins) = coin_of(f"{minutes}min", label), stock_of(zone)
    # How long ago the coin's day ended at each close of the stock.
    ago = (stock.times - coin.times[0] - np.timedelta64(1, "ns")) % np.timedelta64(1, "D")
    try:
        market = Market.from_bars([coin, stock], ["gap"], align=True)
    except DataError as error:
        assert "of STOCK begin before the row before them" in str(error)  # noqa: PT017
        assert np.mean(ago < stock.times - begins) > 0.05
        return
    rows, present = market.times, market.present
    opens = np.datetime64("2020-01-01", "ns") + (market.open * 3.6e12).astype("m8[ns]")
    early = float((rows[:-1, None] - opens[1:])[present[1:]].max() / np.timedelta64(1, "m"))
    assert early < 0.1 or any("STOCK: Its bars close" in note for note in market.notes), early
    assert (rows[present[:, 0]] >= coin.times).all()
    assert (rows[present[:, 1]] >= stock.times).all()
    assert len(rows) <= 365, "one row a day"
    assert present.sum(0).tolist() == [len(coin), len(stock)]


@pytest.mark.parametrize(("end", "row"), [("12h", 36), ("1h", 25), ("0h", 24)])
def test_rows_and_fills_of_a_coin_beside_a_stock_by_hand(end, row):
    """Monday's bar of the stock, 14:30 to 21:00, stands on the row on which the coin's day ends.

    In hours since Monday began: the row is at 36 for days to noon. The coin's order of that row fills at 36, where its
    next day opens, and the stock's at Tuesday's open, 38.5.
    """
    market = Market.from_bars([coin_of(end, "close", 10), stock_of("America/New_York", 6)[0]], ["gap"], align=True)
    monday = np.datetime64("2020-03-02", "ns")
    began = (monday - np.datetime64("2020-01-01", "ns")) / np.timedelta64(1, "h")
    at = int(np.searchsorted(market.times, monday + np.timedelta64(row, "h")))
    assert market.times[at] == monday + np.timedelta64(row, "h")
    np.testing.assert_allclose(market.close[at] - began, [row - 24, 14.5])
    targets = np.full((len(market.times), 2), np.nan)
    targets[at] = 0.4
    fills = simulate(market, targets, costs=Costs(fee=0, slippage=0), rules=Rules(rebalance_band=0)).fills
    assert fills["symbol"].tolist() == ["BTC", "STOCK"]
    np.testing.assert_allclose(fills["price"] - began, [row, 38.5])


@pytest.mark.parametrize("end", ["12h", "1h", "-1min"])
def test_later_bars_change_no_row_before_them(end):
    coin, (stock, _) = coin_of(end, "close", 60), stock_of("America/New_York", 40)
    whole = Market.from_bars([coin, stock], ["gap"], align=True)
    for rows in range(30, 50):
        time = whole.times[rows]
        early = [cut(bars, 0, int(np.searchsorted(bars.times, time, side="right"))) for bars in (coin, stock)]
        market = Market.from_bars(early, ["gap"], align=True)
        np.testing.assert_array_equal(market.times[: rows + 1], whole.times[: rows + 1])
        for name in ("open", "close", "present", "features"):
            np.testing.assert_array_equal(getattr(market, name)[: rows + 1], getattr(whole, name)[: rows + 1])


@pytest.mark.parametrize(
    ("labels", "unsaid"),
    [({}, "BTC"), ({"BTC": "open"}, "STOCK"), ({"BTC": "close"}, "STOCK"), ({"STOCK": "close"}, "BTC")],
)
def test_stamps_at_midnight_of_which_nothing_is_known_are_refused_beside_others(labels, unsaid):
    """A date does not tell whether its bar had closed when the coin's day ended. The message says what to type."""
    midnights, zone = pd.date_range("2020-03-02", periods=40), pd.Timedelta("21h" if not labels else "0h")
    tables = {"BTC": pd.DataFrame(table_of(40), midnights), "STOCK": pd.DataFrame(table_of(40), midnights + zone)[:33]}

    def market(labels: dict[str, str]) -> Market:
        return Market.from_bars(load_bars(tables, label=labels), ["gap"], align=True)

    way_out = f"label={ {unsaid: 'open'} }"
    with pytest.raises(DataError, match=re.escape(way_out)) as error:
        market(labels)
    assert way_out in str(error.value)
    tables["STOCK"] = tables["STOCK"][tables["STOCK"].index.day_of_week < 5]
    assert market(labels | {unsaid: "open"}).present.any(0).all()


@pytest.mark.parametrize(
    "label", ["close", "open", {"BTC": "open", "STOCK": "open"}, {"BTC": "close", "STOCK": "close"}]
)
def test_dates_of_all_assets_share_their_rows_whatever_they_mark(label):
    midnights = pd.date_range("2020-03-02", periods=40)
    tables = {"BTC": pd.DataFrame(table_of(40), midnights), "STOCK": pd.DataFrame(table_of(40), midnights)}
    tables["STOCK"] = tables["STOCK"][midnights.day_of_week < 5]
    market = Market.from_bars(load_bars(tables, label=label), ["gap"], align=True)
    np.testing.assert_array_equal(market.present[:, 1], midnights.day_of_week < 5)


def test_days_of_two_assets_that_trade_at_all_hours_must_end_together():
    pair = [coin_of("0h", "open"), coin_of("12h", "open", name="ETH")]
    with pytest.raises(DataError, match=r"begin before .* Give days that end together"):
        Market.from_bars(pair, ["gap"], align=True)
    together = [pair[0], coin_of("0h", "close", name="ETH")]
    assert Market.from_bars(together, ["gap"], align=True).present is None


def test_days_whose_open_is_stamped_are_known_to_begin_there():
    """Currencies of five days, from 22:00, have begun two hours before the coin's day ends."""
    begins = pd.date_range("2020-03-01", periods=364, tz="UTC") + pd.Timedelta("22h")
    begins = begins[~begins.day_of_week.isin((4, 5))]
    with pytest.raises(DataError, match="of EUR begin before"):
        Market.from_bars([coin_of("0h", "open"), timed("EUR", begins, begins, "open")], ["gap"], align=True)


@pytest.mark.parametrize(("gap", "notes"), [(0.02, 1), (0.5, 0)])
def test_bars_that_open_at_the_close_before_may_have_begun_before_their_row(gap, notes):
    """Currencies of five days to 22:00 whose closes are stamped. Only their opens tell that they trade all day."""
    closes = pd.date_range("2020-03-01", periods=364, tz="UTC") + pd.Timedelta("22h")
    closes = closes[~closes.day_of_week.isin((5, 6))]
    walk = np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.005 * np.tile([gap, 1], len(closes)))))
    prices = {"open": walk[::2], "close": walk[1::2]}
    prices |= {"high": np.maximum(*prices.values()), "low": np.minimum(*prices.values()), "volume": walk[::2]}
    euro = load_bars(pd.DataFrame(prices, closes), symbol="EUR", label="close")
    market = Market.from_bars([coin_of("0h", "open"), euro], ["gap"], align=True)
    past = [note for note in market.notes if note.startswith("EUR: Its opens are the closes before them")]
    assert ["2:00:00 later" in note for note in past] == [True] * notes
    beside_stock = Market.from_bars([stock_of("America/New_York")[0], euro], ["gap"], align=True)
    assert not any("past" in note for note in beside_stock.notes)


def test_a_label_of_a_symbol_that_is_not_loaded_is_refused():
    table = pd.DataFrame(table_of(40), pd.date_range("2020-03-02", periods=40))
    with pytest.raises(DataError, match=r"names 'BTX', .* BTC"):
        load_bars({"BTC": table}, label={"BTX": "open"})
    with pytest.raises(DataError, match="label='left'"):
        load_bars({"BTC": table}, label={"BTC": "left"})


def test_dates_of_two_zones_share_a_row_where_clocks_change_at_midnight():
    days = pd.date_range("2018-10-01", periods=60)
    dated = [load_bars(pd.DataFrame(table_of(60), days), symbol=name, tz=tz) for name, tz in ZONES.items()]
    market = Market.from_bars(dated, FEATURES[:1], align=True)
    assert market.close.shape == (60, 2)
    assert market.present is None


def test_dates_of_several_zones_share_a_row():
    tokyo, new_york = (
        dataclasses.replace(history(name, DAYS - pd.Timedelta(f"{hours}h")), tz=tz)
        for name, hours, tz in (("N225", 9, "Asia/Tokyo"), ("SPY", -5, "America/New_York"))
    )
    market = Market.from_bars([tokyo, new_york], FEATURES[:1], align=True)
    np.testing.assert_array_equal(market.times, new_york.times)
    np.testing.assert_array_equal(market.close, np.hstack([tokyo.close, new_york.close]))


def test_exchanges_that_trade_one_after_another_are_aligned():
    hours = [DAYS + pd.Timedelta(f"{minutes}m") for minutes in (60, 120, 180, 870, 930, 990)]
    early, late = hours[0].union(hours[1]).union(hours[2]), hours[3].union(hours[4]).union(hours[5])
    market = Market.from_bars([history("N225", early), history("SPY", late)], FEATURES[:1], align=True)
    assert market.close.shape == (360, 2)
    assert not any("begin" in note for note in market.notes)


def test_a_few_bars_that_begin_early_are_a_note():
    week = pd.date_range("2020-01-03", periods=60, freq="W-FRI")
    thursday = week.delete(30).union([week[30] - pd.Timedelta("1D")])
    market = Market.from_bars([history("A", week), history("B", thursday)], FEATURES[:1], align=True)
    (note,) = (note for note in market.notes if "begin" in note)
    assert note.startswith("A: 1 of its bars begin before the row before them")


def test_an_asset_that_seldom_trades_is_aligned():
    seldom = np.sort(np.random.default_rng(0).choice(len(HOURS), len(HOURS) // 20, replace=False))
    market = Market.from_bars([history("A", HOURS), history("THIN", HOURS[seldom])], FEATURES[:1], align=True)
    assert market.present.sum(axis=0).tolist() == [len(HOURS), len(seldom)]


TWO = dataclasses.replace(WHOLE, symbols=("X", "Y"), close=np.hstack([WHOLE.close, WHOLE.close]))


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        ([WHOLE, WHOLE], "'WHOLE' .* once"),
        ([WHOLE, TWO], "X,Y .* one symbol each"),
        ([WHOLE, dataclasses.replace(LATE, symbols=("A,B",))], "'A,B' .* rename"),
        ([WHOLE, history("NOON", DAYS + pd.Timedelta("12h"))], "WHOLE are at midnight"),
        ([history("OLD", DAYS[:30]), history("NEW", DAYS[30:])], "OLD .* leave it out"),
        ([history("COIN", HOURS), history("HALF", HOURS + pd.Timedelta("30min"))], "COIN begin before .*`label`"),
        ([history("ONE", HOURS), history("TWO", HOURS[::2])], "TWO begin before .* past"),
        ([WHOLE, history("HOURLY", HOURS)], "HOURLY .* 1:00:00 and WHOLE .* 1 day; .* resample"),
        ([history("TINY", DAYS[:4]), history("BRIEF", DAYS[:5])], "BRIEF has 5 bars, .* volatility_5"),
        ([WHOLE, dataclasses.replace(LATE, times=LATE.times[::-1])], "LATE .* sort"),
    ],
)
def test_bars_that_cannot_be_aligned_are_rejected(bars, message):
    with pytest.raises(DataError, match=message):
        Market.from_bars(bars, FEATURES, align=True)
