"""A live portfolio: its decisions are those of a backtest, with missing bars, an asset that leaves, and a restart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from agents.test_own_modules import Assets
from live.accounts_compared import HISTORY, NEW_YORK, check_equal, loud, minutes
from market.price_tables import random_bars

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble, load_policy, save_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.live.recent import PRICES, RecentBars, bar_at, newest_rows, up_to
from jaxtrader.market.bars import Bars
from jaxtrader.market.clock import union
from jaxtrader.market.delistings import DELISTED_AFTER, Silence, limit_of, silent_for_long
from jaxtrader.market.features import Feature, resolve
from jaxtrader.market.market import Market

SYMBOLS = ("A", "B", "C")
FEATURES = ["signal", "log_return_3"]
ROUNDED = 9e-6  # the most by which weights differ
SETTINGS: dict[str, Any] = {"positions": "weights", "rules": Rules(delay=1), "costs": Costs(cash_rate=0.1)}


def at(histories: Sequence[Bars], time: np.datetime64) -> dict[str, dict[str, Any]]:
    """The bars of a time, of the assets that have one."""
    found = {}
    for bars in histories:
        i = int(np.searchsorted(bars.times, time))
        if i < len(bars) and bars.times[i] == time:
            found[bars.symbols[0]] = bar_at(bars, i)
    return found


def three_histories() -> list[Bars]:
    """Three assets. B lacks bars here and there, and C has none for a while, so that it counts as delisted."""
    times = pd.bdate_range("2023-01-02", periods=260)
    kept = np.ones((3, 260), bool)
    kept[1] = np.random.default_rng(1).random(260) > 0.1
    kept[2, HISTORY + 20 : HISTORY + 40] = False
    return [random_bars(times[mask], symbol) for mask, symbol in zip(kept, SYMBOLS, strict=True)]


def portfolio_policy(
    histories: Sequence[Bars],
    seed: int = 1,
    agent: PPOAgent | None = None,
    delisted_after: float = DELISTED_AFTER,
    **settings: Any,
) -> Policy:
    market = Market.from_bars(histories, FEATURES, align=True, delisted_after=delisted_after)
    return loud(TradingEnv(market, window=4, **settings), seed, agent)


def followed(policy: Policy, histories: Sequence[Bars], first: int, path: Any = None, **given: Any) -> Any:
    """The result of a backtest from a bar on, to which the live account was equal at each bar."""
    market = Market.from_bars(histories, FEATURES, align=True, delisted_after=policy.delisted_after)
    result = backtest(policy, market.split(market.times[first])[1])
    live = policy.live([up_to(bars, market.times[first]) for bars in histories])
    check_equal(live, result, 0, ROUNDED)
    for i in range(1, len(result)):
        time = market.times[first + i]
        ends = None if market.session_end is None else bool(market.session_end[first + i])  # a half day is not known
        live.on_bars(time, at(histories, time), session_end=ends, **given)
        check_equal(live, result, i, ROUNDED)
        if path is not None and i % 25 == 0:
            live.save(path)
            live = policy.resume_live(path)
    return result


@pytest.mark.quick(1)
@pytest.mark.parametrize("agent", [None, PPOAgent(network=Assets())], ids=["ours", "own network"])
def test_a_portfolio_with_missing_bars_and_an_asset_that_leaves_and_returns(tmp_path, agent):
    histories = three_histories()
    policy = portfolio_policy(histories, agent=agent, **SETTINGS)
    result = followed(policy, histories, HISTORY, tmp_path / "live")
    assert (result.fills["reason"] == "delisted").any()
    assert np.isnan(result.targets[:, 1]).any(), "an asset without a bar is held"
    assert np.isfinite(result.targets[-1, 2]), "C is back"


@pytest.mark.quick(1)
@pytest.mark.parametrize(("delisted_after", "delistings"), [(9.5, 1), (40.0, 0), (math.inf, 0)])
def test_a_portfolio_counts_an_asset_as_delisted_as_its_training_did(tmp_path, delisted_after, delistings):
    histories = three_histories()
    policy = portfolio_policy(histories, delisted_after=delisted_after, **SETTINGS)
    save_policy(tmp_path / "policy.pkl", policy)
    result = followed(load_policy(tmp_path / "policy.pkl"), histories, HISTORY, tmp_path / "live")
    assert (result.fills["reason"] == "delisted").sum() == delistings
    assert math.isfinite(delisted_after) or np.isfinite(result.exposure).all()


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["23h59min", "12h"])
def test_an_account_catches_up_by_the_rows_of_its_backtest_where_clocks_differ(tmp_path, clock):
    """A coin whose days end late or at noon, beside a stock that closes at 21:00: a row a day, also live."""
    coin = random_bars(pd.date_range("2023-01-02", periods=300) + pd.Timedelta(clock), "COIN")
    stock = random_bars(pd.bdate_range("2023-01-02", periods=210) + pd.Timedelta("21h"), "STOCK")
    histories = [coin, stock]
    policy = portfolio_policy(histories, positions="weights", costs=Costs(cash_rate=0.1))
    market = Market.from_bars(histories, FEATURES, align=True)
    first = len(market.times) - 40
    result = backtest(policy, market.split(market.times[first])[1])
    live = policy.live([up_to(bars, market.times[first]) for bars in histories])
    for upto in (first + 1, first + 3, len(market.times) - 1):
        known = [up_to(bars, market.times[upto]) for bars in histories]
        live.catch_up(known)
        live.save(tmp_path / "live")
        live = policy.resume_live(tmp_path / "live", history=known)
        assert live.time == market.times[upto]
        check_equal(live, result, upto - first, ROUNDED)


@pytest.mark.slow
def test_an_ensemble_of_portfolios_within_sessions_where_an_asset_has_no_bar_at_the_end():
    times = minutes()
    ends = np.flatnonzero(np.diff(times) > np.timedelta64(1, "h"))
    kept = np.ones((3, len(times)), bool)
    kept[1, ends[:, None] - np.arange(2)] = False  # B has no bar at the session's end
    kept[2, ends[-1] : ends[-1] + 3] = False  # nor has C, and its next one is late
    histories = [
        dataclasses.replace(random_bars(times[mask], symbol), tz=NEW_YORK)
        for mask, symbol in zip(kept, SYMBOLS, strict=True)
    ]
    settings: dict[str, Any] = {"positions": "continuous", "rules": Rules(flat_at_session_end=True), "stop_loss": 0.02}
    policy = ensemble([portfolio_policy(histories, seed, **settings) for seed in (1, 2)])
    result = followed(policy, histories, int(ends[0]) + 5, after_gap=True)
    closed = result.fills[result.fills["reason"] == "session end"]
    late = closed[~np.isin(closed["time"], times[ends])]
    assert len(late), "what had no bar at a session's end is closed at its next bar"
    assert "stop" in result.fills["reason"]


@pytest.mark.parametrize("alike", [True, False])
def test_rows_of_several_assets_at_once_have_the_numbers_of_each_alone_to_the_bit(alike: bool):
    histories = three_histories()
    if not alike:  # each asset is then computed by itself
        histories[1] = dataclasses.replace(histories[1], funding=np.zeros(histories[1].close.shape))
    own = Feature("body", 1, lambda bars: np.log(bars.close / bars.open)[:, :1])
    names = ["signal", "log_return_3", "volatility_9", "drawdown_8", "distance_to_mean_5", "1w:log_return_2"]
    specs = (*map(resolve, names), own)
    market = Market.from_bars(histories, specs, align=True)
    recent = [RecentBars(up_to(bars, market.times[60]), specs, has_adv=True) for bars in histories]
    assert len({tuple(each.names) for each in recent}) == (1 if alike else 2)
    for time in market.times[61:]:
        bars = at(histories, time)
        offered = [each for each in recent if each.symbol in bars]
        for each in offered:
            each.offer(time, bars[each.symbol])
        row = int(np.searchsorted(market.times, time))
        for each, found in zip(offered, newest_rows(offered, offered=True), strict=True):
            a = SYMBOLS.index(each.symbol)
            np.testing.assert_array_equal(found.features, market.features[row, a])
            assert found.columns["volatility"] == market.volatility[row, a]
            assert found.columns["adv"] == market.adv[row, a]
            each.keep()


def test_what_a_portfolio_refuses():
    histories = three_histories()
    policy = portfolio_policy(histories, **SETTINGS)
    whole = union([bars.times for bars in histories])
    now, then = whole[HISTORY], whole[HISTORY + 1]
    parts = [up_to(bars, now) for bars in histories]
    live = policy.live(parts, {"A": 0.25, "B": 0.5})
    assert live.decision.exposure == pytest.approx({"A": 0.25, "B": 0.5, "C": 0.0})
    bars = at(histories, then)
    for given, match in (
        ({}, "no bars"),
        ({"Z": bars["A"]}, "'Z'.*A, B, C"),
        ({"A": (1.0, 2.0)}, r"of A is .*give \(open, high, low, close, volume\)"),
        ({"A": {"open": 1.0, "high": 2.0}}, "A .*no number for low"),
        (
            bars | {"B": bars["B"] | {name: 3 * bars["B"][name] for name in PRICES}},
            "of B at .*1-for-3 reverse split",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            live.on_bars(then, given)
    with pytest.raises(ValueError, match="on_bars"):
        live.on_bar(then, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="by symbol"):
        policy.live(parts, 0.5)
    with pytest.raises(ValueError, match="C: too few bars"):
        policy.live([*parts[:2], up_to(histories[2], histories[2].times[1])])
    live.on_bars(then, {symbol: bar for symbol, bar in bars.items() if symbol != "C"})
    assert np.isnan(live.decision.target["C"])


@pytest.mark.parametrize("limit", [limit_of(3), limit_of(14), limit_of(60)])
def test_silence_goes_on_row_by_row_as_over_the_whole(limit):
    rng = np.random.default_rng(0)
    days = np.cumsum(rng.choice([1, 1, 1, 2, 5, 40], 300)) + 19_000
    times = days.astype("datetime64[D]").astype("datetime64[ns]")
    present = rng.random((300, 4)) < np.array([1.0, 0.5, 0.1, 0.5])
    present[60:140, 2:] = False
    wanted = np.stack([silent_for_long(column, times, limit) for column in present.T], 1)
    silence = Silence.after(times[:50], present[:50], limit)
    np.testing.assert_array_equal(silence.gone, wanted[49])
    for i in range(50, 300):
        silence = silence.add(int(times[i].astype(np.int64)), present[i])
        np.testing.assert_array_equal(silence.gone, wanted[i], err_msg=str(i))
    assert wanted[50:].any(0).sum() >= 2
