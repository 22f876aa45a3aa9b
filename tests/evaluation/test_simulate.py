"""simulate: closed forms, the scalar reference of the money rules, what it refuses, and no look ahead."""

from __future__ import annotations

import dataclasses
import pickle
import sys

import numpy as np
import pytest
from evaluation.priced_markets import BARS, busy, daily, market_of, market_of_one, random_table
from ledger.against_reference import assert_same_result, reference_of
from ledger.markets import full_market, orders_of
from rule_settings import run_settings

from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.market import Market

NO_COSTS = Costs(fee=0.0, slippage=0.0)
PRICEY = Costs(fee=0.001, slippage=0.002)

market = market_of_one


def test_buy_and_hold_has_its_closed_form(market):
    fee, slippage = 0.001, 0.002
    result = simulate(market, 1.0, costs=Costs(fee=fee, slippage=slippage))
    expected = market.close[-1, 0] / market.open[1, 0] / (1 + slippage) / (1 + fee)
    assert result.equity[-1] == pytest.approx(expected, rel=1e-13)
    assert result.equity[0] == 1.0
    assert len(result.fills) == 1
    assert result.exposure[0, 0] == 0.0
    np.testing.assert_allclose(result.exposure[1:, 0], 1.0, rtol=1e-14)
    np.testing.assert_allclose(result.equity[1:], expected / market.close[-1, 0] * market.close[1:, 0], rtol=1e-13)


def test_a_round_trip_has_its_closed_form(market):
    # Long at open[11], flat at open[31]: each side loses fee and slippage.
    targets = np.where((np.arange(BARS) >= 10) & (np.arange(BARS) < 30), 1.0, 0.0)
    result = simulate(market, targets, costs=Costs(fee=0.001, slippage=0.002))
    gain = market.open[31, 0] / market.open[11, 0]
    assert result.equity[-1] == pytest.approx(gain * 0.998 * 0.999 / (1.002 * 1.001), rel=1e-13)
    assert (result.equity[:11] == 1.0).all()
    assert len(set(result.equity[31:])) == 1
    assert (result.units[31:] == 0).all()


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
def test_without_fills_equity_is_exactly_exactly_the_capital(market, fill):
    for targets in (0.0, np.nan):
        result = simulate(market, targets, rules=Rules(rebalance_band=0.0, fill=fill))
        assert (result.equity == 1.0).all()
        assert not len(result.fills)


def test_each_fill_is_where_it_says(market):
    targets = np.full(BARS, np.nan)
    targets[4] = 0.5
    for fill, bar, price in (
        ("next_open", 5, market.open[5, 0]),
        ("next_close", 5, market.close[5, 0]),
        ("close", 4, market.close[4, 0]),
    ):
        result = simulate(market, targets, rules=Rules(rebalance_band=0.0, fill=fill), costs=NO_COSTS)
        assert list(result.fills["bar"]) == [bar]
        assert result.fills["price"][0] == price
        assert result.equity[-1] == pytest.approx(0.5 + 0.5 * market.close[-1, 0] / price, rel=1e-13)


def test_bar_0_trades_only_at_its_own_close_and_the_last_target_never_fills_next(market):
    targets = np.full(BARS, np.nan)
    targets[0] = targets[-1] = -1.0
    costs = Costs(fee=0.01, slippage=0.0)
    assert simulate(market, targets, rules=Rules(rebalance_band=0.0, fill="close"), costs=costs).equity[
        0
    ] == pytest.approx(0.99, rel=1e-14)
    assert simulate(market, targets, rules=Rules(rebalance_band=0.0, fill="next_open"), costs=costs).equity[0] == 1.0
    last = np.full(BARS, np.nan)
    last[-1] = 1.0
    assert not len(simulate(market, last, rules=Rules(rebalance_band=0.0, fill="next_close")).fills)
    assert len(simulate(market, last, rules=Rules(rebalance_band=0.0, fill="close")).fills) == 1


@pytest.mark.parametrize("volatility", [0.02, 0.6])
@pytest.mark.parametrize(
    "rules",
    [
        {"fill": "next_open"},
        {"fill": "next_close"},
        {"fill": "close"},
        {"rebalance_band": 0.05},
        {"rebalance": "on_change"},
    ],
)
def test_simulate_matches_the_scalar_reference(rules, volatility):
    market = market_of(random_table(5, volatility=volatility), symbol="X")
    result = simulate(market, busy(5), costs=PRICEY, **run_settings(rules))
    assert_same_result(result, reference_of(market, busy(5)[:, None], PRICEY, **rules), 1e-12)
    assert (result.ruined_at is not None) == (volatility > 0.1)


def test_a_rebalance_band_met_to_the_last_digit_is_booked_as_it_was_traded():
    """Targets on the very edge of the band: whichever side rounding takes, the fills must explain the equity."""
    market = market_of(random_table(9, volatility=0.01), symbol="X")
    targets = np.where(np.arange(BARS) % 2, 0.05, 0.0)
    result = simulate(market, targets, costs=NO_COSTS, rules=Rules(rebalance_band=0.05))
    np.testing.assert_allclose(
        np.cumsum(np.bincount(result.fills["bar"], result.fills["units"], BARS)), result.units[:, 0]
    )
    paid = np.bincount(result.fills["bar"], result.fills["units"] * result.fills["price"], BARS)
    np.testing.assert_allclose(1 - np.cumsum(paid) + result.units[:, 0] * market.close[:, 0], result.equity, rtol=1e-12)
    assert len(result.fills) > 50


def test_simulate_has_no_look_ahead(market):
    targets, t = busy(1), 60
    data, other = random_table(), random_table(77)
    data.iloc[t + 1 :] = other.iloc[t + 1 :]
    changed = market_of(data, symbol="X")
    assert (changed.close[t + 1 :] != market.close[t + 1 :]).all()
    later = np.where(np.arange(BARS) > t, -targets, targets)
    for fill in ("next_open", "next_close", "close"):
        before, after = (
            simulate(market, targets, rules=Rules(rebalance_band=0.0, fill=fill)),
            simulate(changed, later, rules=Rules(rebalance_band=0.0, fill=fill)),
        )
        np.testing.assert_array_equal(after.equity[: t + 1], before.equity[: t + 1])
        np.testing.assert_array_equal(after.units[: t + 1], before.units[: t + 1])
        assert after.equity[-1] != before.equity[-1]


def test_float32_is_close_and_float64_is_exact_without_a_global_switch(market):
    exact, rough = simulate(market, busy(2)), simulate(market, busy(2), dtype="float32")
    np.testing.assert_allclose(rough.equity, exact.equity, rtol=1e-4)
    assert exact.equity.dtype == rough.equity.dtype == np.float64
    assert not np.array_equal(exact.equity, rough.equity)


def test_one_of_several_histories_and_a_later_start():
    market = market_of({"A": random_table(1, 80), "B": random_table(2)})
    with pytest.raises(ValueError, match=r"2 histories \(A, B\).*symbol='A'"):
        simulate(market, 1.0)
    with pytest.raises(ValueError, match=r"'C'.* A, B"):
        simulate(market, 1.0, symbol="C")
    alone = market_of(random_table(2), symbol="B")
    targets = busy(3)
    both = simulate(market, targets, symbol="B")
    np.testing.assert_array_equal(both.equity, simulate(alone, targets).equity)
    assert both.symbols == ("B",)
    late = simulate(market, 1.0, symbol="B", start=80 + 60, costs=NO_COSTS)
    assert len(late) == 60
    assert late.equity[-1] == pytest.approx(alone.close[-1, 0] / alone.open[61, 0], rel=1e-13)
    with pytest.raises(ValueError, match=r"start=79` .* 80 to 199"):
        simulate(market, 1.0, symbol="B", start=79)


def test_a_split_starts_at_its_first_bar(market):
    test = market.split(0.5, 0.5)[1]
    result = simulate(test, 1.0, costs=NO_COSTS)
    assert len(result) == 60
    assert result.times[0] == market.times[60]
    assert result.equity[-1] == pytest.approx(market.close[-1, 0] / market.open[61, 0], rel=1e-13)


def test_user_mistakes_are_one_clear_sentence(market):
    for targets, words in (
        (np.zeros(7), rf"shape \(7,\).*{BARS} bars.*give \({BARS},\)"),
        (np.zeros((BARS, 2)), rf"shape \({BARS}, 2\)"),
        (np.where(np.arange(BARS) == 9, np.inf, 0), r"`targets\[9\]` is \[inf\]"),
        ("long", "must be numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            simulate(market, targets)
    with pytest.raises(ValueError, match="float16"):
        simulate(market, 1.0, dtype="float16")
    with pytest.raises(ValueError, match="fill='open'` is unknown"):
        simulate(market, 1.0, rules=Rules(rebalance_band=0.0, fill="open"))
    with pytest.raises(ValueError, match=r"fee=5\.0` must be at least"):
        simulate(market, 1.0, costs=Costs(fee=5))


def test_several_assets_match_the_scalar_reference():
    frames = [random_table(seed) for seed in (21, 22, 23)]
    market = market_of(dict(zip("XYZ", frames, strict=True)), align=True)
    targets = np.stack([busy(seed) for seed in (31, 32, 33)], 1)
    result = simulate(market, targets, costs=PRICEY)
    assert_same_result(result, reference_of(market, targets, PRICEY), 1e-12)
    assert result.symbols == ("X", "Y", "Z")
    assert result.trades["pnl"].sum() == pytest.approx(result.equity[-1] - 1, abs=1e-12)


def retried(result, fill):
    """How many orders on change, each said for eight bars, were filled in part in later bars."""
    orders = result.fills[result.fills["reason"] == "order"]
    return (orders["bar"] % 8 != (fill == "next_open")).sum()


def test_orders_with_rebalance_on_change_that_could_not_fill_are_tried_again_in_a_result_too():
    market = dataclasses.replace(full_market(4, 3), funding=None)
    targets = np.repeat(orders_of(4, 3)[0][::8], 8, 0)  # each is said eight times
    rules = {"fill": "close", "rebalance": "on_change", "volume_cap": 0.2, "capital": 1e5}
    result = simulate(market, targets, costs=PRICEY, **run_settings(rules))
    assert_same_result(result, reference_of(market, targets, PRICEY, **rules), 1e-12)
    assert retried(result, "close") >= 3


LENGTHS = {"A": 120, "B": 70, "C": 119, "D": 20}


@pytest.fixture(scope="module")
def several():
    return market_of({name: random_table(seed, bars) for seed, (name, bars) in enumerate(LENGTHS.items())})


def targets_of(market, names):
    bars = {name: int(end - first) for name, (_, first, end) in zip(market.symbols, market.segments, strict=True)}
    return {name: busy(seed, bars[name]) for seed, name in enumerate(names)}


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"fill": "close", "rebalance": "on_change", "min_trade": 500.0, "capital": 1e4},
        {
            "fill": "next_close",
            "delay": 2,
            "costs": Costs(0.001, 0.002, borrow_rate=0.1, short_rate=0.2, fixed_fee=3.0),
            "capital": 1e4,
        },
        {"stop_loss": 0.04, "take_profit": 0.06},
        {"dtype": "float32"},
    ],
)
def test_many_histories_at_once_are_each_one_s_own_result(several, rules):
    rules = {"costs": PRICEY, **rules}
    targets = targets_of(several, "CADB")
    results = simulate(several, targets, **run_settings(rules))
    assert list(results) == list("CADB")
    exact = rules.get("dtype") != "float32"
    for name, result in results.items():
        alone = simulate(several, targets[name], symbol=name, **run_settings(rules))
        np.testing.assert_array_equal(results.equity[name], result.equity)
        np.testing.assert_allclose(result.equity, alone.equity, rtol=1e-13 if exact else 1e-5)
        assert len(result.fills) == len(alone.fills) > 3
        for column in ("bar", "reason", "symbol", "time"):
            np.testing.assert_array_equal(result.fills[column], alone.fills[column])
        for column in ("units", "price", "fee", "slippage", "equity", "position"):
            np.testing.assert_allclose(
                result.fills[column], alone.fills[column], rtol=1e-11 if exact else 1e-3, atol=1e-13 if exact else 1e-6
            )
        assert result.metrics["sharpe"] == pytest.approx(alone.metrics["sharpe"], rel=1e-9 if exact else 1e-3)
    total = combine(results)
    assert total.equity[-1] == pytest.approx(np.mean([equity[-1] for equity in results.equity.values()]), rel=1e-12)


@pytest.mark.parametrize("cores", [1, 3, 9])
def test_many_histories_are_the_same_on_any_number_of_cores(several, monkeypatch, cores):
    targets = targets_of(several, "CADB")
    expected = {name: simulate(several, own, symbol=name, costs=PRICEY).equity for name, own in targets.items()}
    monkeypatch.setattr("jaxtrader.compilation.cores", lambda: cores)
    results = simulate(several, targets, costs=PRICEY)
    assert list(results.equity) == list("CADB")
    for name, equity in expected.items():
        np.testing.assert_allclose(results.equity[name], equity, rtol=1e-13)


def joined(markets):
    """One market of the histories of several, each under a name of its own."""
    ends = np.cumsum([0, *(len(market.close) for market in markets)])
    columns = {}
    for field in dataclasses.fields(Market):
        parts = [getattr(market, field.name) for market in markets]
        if isinstance(parts[0], np.ndarray) and field.name != "segments":
            columns[field.name] = np.concatenate(parts)
    segments = np.concatenate([market.segments + end for market, end in zip(markets, ends, strict=False)])
    names = [",".join(f"{symbol}{i}" for symbol in m.symbols[0].split(",")) for i, m in enumerate(markets)]
    return dataclasses.replace(markets[0], symbols=tuple(names), segments=segments, **columns)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("assets", "rules"),
    [
        (1, {"volume_cap": 0.2, "lot": 1.0, "capital": 1e5, "max_leverage": 2.0}),
        (3, {"volume_cap": 0.2, "capital": 1e5, "rebalance": "on_change"}),  # orders that could not fill wait
    ],
)
def test_many_histories_with_all_columns_agree_with_the_scalar_reference(assets, rules):
    """Missing bars, funding, a delisting, caps, in two lengths."""
    markets = [full_market(seed, assets) for seed in range(4, 9)]
    short = markets[-1]
    markets[-1] = dataclasses.replace(short, segments=np.array([[0, short.segments[0, 1], 40]]))
    market = joined(markets)
    rates = Costs(0.001, 0.002, borrow_rate=0.1, short_rate=0.2)
    targets = {}
    for seed, (name, (_, first, end)) in enumerate(zip(market.symbols, market.segments, strict=True), 4):
        targets[name] = np.repeat(orders_of(seed, assets)[0][::8], 8, 0)[: end - first]
    results = simulate(market, targets, costs=rates, **run_settings(rules))
    for one, (name, orders) in zip(markets, targets.items(), strict=True):
        cut = dataclasses.replace(one, symbols=(name,))
        expected = simulate(cut, orders, costs=rates, **run_settings(rules))
        np.testing.assert_allclose(results[name].equity, expected.equity, rtol=1e-12)
        np.testing.assert_array_equal(results[name].fills["bar"], expected.fills["bar"])
        np.testing.assert_allclose(results[name].financing, expected.financing, rtol=1e-9, atol=1e-15)
        if one is not markets[-1]:
            assert_same_result(results[name], reference_of(cut, orders, rates, **rules), 1e-11)
            assert "rebalance" not in rules or retried(results[name], "next_open") >= 3


def test_a_result_of_many_is_made_when_it_is_asked_for_and_once(several, monkeypatch):
    made = []
    module = "jaxtrader.evaluation.simulate"
    events = sys.modules[module]._events
    monkeypatch.setattr(f"{module}._events", lambda *given: made.append(1) or events(*given))
    results = simulate(several, dict.fromkeys("ABCD", 0.5))
    assert len(results) == 4
    assert "B" in results
    assert "Z" not in results
    assert all(equity[-1] > 0 for equity in results.equity.values())
    assert not made
    assert results["B"] is results["B"]
    assert len(made) == 1
    assert repr(results) == "BacktestResults(A, B, C, D)"
    with pytest.raises(KeyError, match=r"'Z'.* A, B, C, D"):
        results["Z"]


def test_results_of_several_keep_a_stop_loss_by_symbol_when_the_caller_changes_the_inputs(several):
    """Each symbol's result is that of `simulate` on it alone, whatever the given arrays and mappings hold later."""
    targets, fee = targets_of(several, "AB"), np.array(0.001)
    stops = {"A": 0.02}
    results = simulate(several, targets, costs=Costs(fee=fee), stop_loss=stops, take_profit=np.inf)
    alone = {
        name: simulate(several, targets[name], symbol=name, costs=Costs(fee=0.001), stop_loss=stop, take_profit=np.inf)
        for name, stop in (("A", 0.02), ("B", np.inf))
    }
    fee[...], stops["A"], targets["A"][:] = 0.5, 0.9, 0.0
    again = pickle.loads(pickle.dumps(results))
    for name, result in alone.items():
        for other in (results[name], again[name]):
            np.testing.assert_array_equal(other.equity, result.equity)
            np.testing.assert_array_equal(other.fills["reason"], result.fills["reason"])
    assert "stop" in set(results["A"].fills["reason"])
    assert "stop" not in set(results["B"].fills["reason"])
    with pytest.raises(TypeError):
        results.equity["A"] = None


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"delay": 2},
        {"fill": "close", "delay": 1},
        {"stop_loss": 0.03, "take_profit": 0.04},
        {"stop_loss": 0.03, "delay": 1, "fill": "next_close"},
    ],
)
def test_the_next_target_is_what_the_next_bar_of_a_longer_history_is_asked_for(rules):
    """Without costs and band its order leaves just that exposure, and where it is NaN there is none."""
    market = market_of(random_table(5), symbol="X")
    ready, end = market.segments[0, 1:]
    targets = np.repeat(busy(7)[::6], 6)[
        : end - ready
    ]  # said six times, so that brackets have something to keep closed
    whole = simulate(market, targets, costs=NO_COSTS, **run_settings(rules))
    kept = asked_for = 0
    for count in range(3, len(targets), 1 if "stop_loss" in rules else 5):  # a step coprime to six
        cut = dataclasses.replace(market, segments=np.array([[0, ready, ready + count]]))
        asked = simulate(cut, targets[:count], costs=NO_COSTS, **run_settings(rules)).next_target[0]
        made = whole.fills[whole.fills["bar"] == count]
        if len(made) and made["reason"][0] != "order":  # a bracket came first, and who could know
            continue
        if np.isnan(asked):
            assert not len(made)
            kept += np.isfinite(targets[count - rules.get("delay", 0) - (rules.get("fill") != "close")])
        elif len(made):
            asked_for += 1
            left = made["position"][0] * made["price"][0] / made["equity"][0]
            assert left == pytest.approx(np.clip(asked, -1, 1), abs=1e-9)
        else:  # flat already
            assert asked == 0
            assert whole.units[count - 1, 0] == 0
    assert asked_for > 10
    assert (kept > 5) == ("stop_loss" in rules)


def test_next_target_is_nan_where_orders_fill_at_the_close(market):
    assert np.isnan(simulate(market, 0.5, rules=Rules(rebalance_band=0.0, fill="close")).next_target).all()
    assert simulate(market, 0.5).next_target == 0.5


def test_the_next_target_sells_what_the_volume_cap_has_left_of_a_stop():
    """A target of the stopped sign, or NaN, sells it. One of the other sign is an order of its own."""
    closes = np.append(np.full(25, 100.0), 90.0)  # below the stop at 95
    market = market_of(daily(np.full(26, 100.0), closes), symbol="X")
    rules = Rules(volume_cap=0.5, capital=2500.0)  # 8 shares a bar of the 25 that are held
    for last, asked in ((1.0, 0.0), (np.nan, 0.0), (-0.5, -0.5), (0.0, 0.0)):
        result = simulate(market, np.append(np.ones(25), last), costs=NO_COSTS, rules=rules, stop_loss=0.05)
        assert result.fills["reason"][-1] == "stop"
        assert result.units[-1, 0] > 0
        assert result.next_target[0] == asked


def test_an_asset_of_a_portfolio_is_no_history(portfolio):
    with pytest.raises(ValueError, match=r"P1 .*'P0,P1,P2'; give targets \[N, A\]"):
        simulate(portfolio.market, {"P1": 0.5})


@pytest.mark.parametrize(
    ("targets", "settings", "message"),
    [
        ({}, {}, "as in `{'AAPL': 1.0}`"),
        ({"Z": 1.0}, {}, "'Z'.* A, B, C, D"),
        ({None: 1.0}, {}, "None.* A, B, C, D"),
        ({"A": 1.0}, {"symbol": "A"}, "leave `symbol` out"),
        ({"A": 1.0}, {"start": 3}, "leave `start` out"),
        ({"A": [1.0, 2.0]}, {}, r"A: .*\(2,\).*give \(120,\)"),
        ({"A": "x"}, {}, "A: `targets` must be numbers"),
        ({"A": 1.0, "B": [1.0, 2.0]}, {}, r"B: .*\(2,\).*give \(70,\)"),
        ({"A": 1.0}, {"stop_loss": [0.1, 0.2]}, "A: `stop_loss` .*one number for all, or a mapping by symbol"),
        ({"A": 1.0}, {"stop_loss": {"A": 3.0}}, "A: `stop_loss=3.0` must be below 1"),
        ({"A": 1.0}, {"stop_loss": {"B": 0.1}}, "`stop_loss` .*'B'.* A"),
    ],
)
def test_targets_by_symbol_that_cannot_be_are_refused(several, targets, settings, message):
    with pytest.raises(ValueError, match=message):
        simulate(several, targets, **run_settings(settings))


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"fill": "close", "rebalance": "on_change"}, marks=pytest.mark.slow),
        pytest.param({"fill": "next_close", "delay": 2, "rebalance_band": 0.05}, marks=pytest.mark.slow),
        {"ruin_level": 0.9, "lot": 10.0, "capital": 1e4},
    ],
)
def test_fills_stepped_again_from_holdings_are_those_of_the_pass(market, rules, monkeypatch, optimized):
    """Under plain rules a pass keeps holdings alone. Its events are then those that a pass with events keeps."""
    # Rules that no other test has: what others compiled is not optimised.
    rules = {"ruin_level": 0.012} | rules
    again = simulate(market, busy(), costs=Costs.from_bps(2, 3), **run_settings(rules))
    monkeypatch.setattr("jaxtrader.evaluation.simulate._holdings_suffice", lambda history: False)
    passed = simulate(market, busy(), costs=Costs.from_bps(2, 3), **run_settings(rules))
    np.testing.assert_allclose(again.equity, passed.equity, rtol=1e-12)  # two programs round differently
    fills = again.fills, passed.fills
    assert len(fills[0]) == len(fills[1]) > 3
    for name in fills[0].dtype.names:
        one, other = (x[name] for x in fills)
        if one.dtype.kind != "f":
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert (again.clipped, again.dropped) == (passed.clipped, passed.dropped)


@pytest.mark.parametrize("bars", [30, 100])
def test_an_order_with_a_delay_beyond_the_history_never_fills(bars):
    result = simulate(market_of(random_table(bars=bars)), 1.0, rules=Rules(rebalance_band=0.0, delay=100))
    assert len(result.fills) == 0
    np.testing.assert_array_equal(result.equity, 1.0)
