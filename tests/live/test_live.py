"""Live decisions: those of a backtest, one by one, after a restart too. Bars that do not fit change nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from live.accounts_compared import HISTORY, NEW_YORK, check_equal, loud, minutes
from market.price_tables import cut, random_bars

from jaxtrader import files
from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble, load_policy, save_policy
from jaxtrader.agents.ppo import PPOAgent
from jaxtrader.envs import rewards
from jaxtrader.envs.trading import TradingEnv
from jaxtrader.evaluation.backtest import backtest
from jaxtrader.evaluation.result import BacktestResult
from jaxtrader.examples.dqn import DQN
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.live.live import Live
from jaxtrader.live.recent import FREE_ROWS, PRICES, RecentBars, newest_rows, up_to
from jaxtrader.live.schedule import Schedule
from jaxtrader.live.step import advance
from jaxtrader.market.bars import Bars
from jaxtrader.market.errors import DataError
from jaxtrader.market.features import Feature, resolve
from jaxtrader.market.market import Market

RULES = Rules(delay=1, max_leverage=1.5)
COSTS = Costs(fee=2e-4, slippage=3e-4, borrow_rate=0.5, cash_rate=0.2)
STOPS = {"stop_loss": (0.02, None, None, 0.03), "take_profit": 0.03}
TRAIL = (None, 0.04, 0.04, None)


BETWEEN = {"rules": Rules(), "positions": (-1, 0, 1), "decision_every": 3, "episode_length": 255, "stop_loss": 0.03}


def days() -> pd.DatetimeIndex:
    """Working days without some holidays, and a hole of a week."""
    times = pd.bdate_range("2023-01-02", periods=330)
    return times[~times.isin(times[[20, 90, 91, 200]]) & ~((times > times[240]) & (times < times[246]))]


def hours() -> pd.DatetimeIndex:
    """Hours of a market that never closes, without some of them."""
    times = pd.date_range("2024-03-01", periods=340, freq="h")
    return times[np.random.default_rng(3).random(340) > 0.03]


FREQUENCIES: dict[str, Any] = {
    "daily": (days, None, ["log_return_3", "volatility_9", "1w:log_return_2", "day_of_week_sin", "signal"]),
    "hourly": (hours, None, ["drawdown_8", "distance_to_mean_5", "4h:price_range_3", "time_of_day_cos", "gap"]),
    "minutes": (
        minutes,
        NEW_YORK,
        ["volume_ratio_7", "5min:log_return_2", f"time_of_day_sin@{NEW_YORK}", "price_range_6", "gap"],
    ),
}


# A backtest encodes chunks of bars, and a live account one window. Recurrent ones begin anew at its first bar.
ENCODERS = {"daily": "lru", "hourly": "gru", "minutes": "mlp"}
SEEDS = {"daily": 1, "hourly": 2, "minutes": 1}  # of weights under which all rules act


def bars_of(frequency: str) -> Bars:
    make, tz, _ = FREQUENCIES[frequency]
    return dataclasses.replace(random_bars(make(), "X", deviation=0.015), tz=tz)


def policy_on(bars: Bars, features: list[Any], seed: int = 1, encoder: Any = "mlp", **settings: Any) -> Policy:
    settings = {"positions": (-1, 0, 0.5, 1.5), "window": 4, "rules": RULES, "costs": COSTS, **STOPS} | settings
    agent = PPOAgent(hidden=(8, 8), encoder=encoder, encoder_width=8)
    return loud(TradingEnv(Market.from_bars(bars, features), **settings), seed, agent)


def backtested(policy: Policy, bars: Bars, at: int = HISTORY, features: Any = None) -> BacktestResult:
    """A backtest whose first decision is at a bar."""
    market = Market.from_bars(bars, features or policy.features)
    return backtest(policy, market.split(bars.times[at])[1])


def values(bars: Bars, i: int) -> dict[str, Any]:
    """A bar as `on_bar` takes it."""
    names = ("open", "high", "low", "close", "volume")
    columns = {name: column[i, 0] for name, column in bars.columns.items()}
    return {"time": bars.times[i], "columns": columns} | {name: getattr(bars, name)[i, 0] for name in names}


@pytest.fixture(scope="module")
def hourly() -> tuple[Policy, Bars]:
    bars = bars_of("hourly")
    return policy_on(bars, ["signal", "gap"], seed=2, trailing_stop=TRAIL), bars


def give(live: Live, bars: Bars, i: int) -> bool:
    """Give a bar, and say whether it needed `after_gap`."""
    with contextlib.suppress(ValueError):
        live.on_bar(**values(bars, i))
        return False
    live.on_bar(**values(bars, i), after_gap=True)
    return True


@pytest.mark.quick(1)
@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_live_decisions_are_those_of_the_backtest_over_a_restart(frequency: str, tmp_path):
    bars = bars_of(frequency)
    trails = {"trailing_stop": TRAIL} if frequency == "minutes" else {}
    policy = policy_on(bars, FREQUENCIES[frequency][2], SEEDS[frequency], ENCODERS[frequency], **trails)
    result = backtested(policy, bars)
    live = policy.live(cut(bars, 0, HISTORY + 1))
    check_equal(live, result, 0)
    compiled, refused = advance._cache_size(), 0
    for i in range(1, len(result)):
        refused += give(live, bars, HISTORY + i)
        check_equal(live, result, i)
        if i in (30, 60):
            live.save(tmp_path / "live")
            again = policy.resume_live(tmp_path / "live", history=bars if i == 60 else None)
            assert again.decision == live.decision
            live = again
    assert advance._cache_size() == compiled, "nothing is compiled for a bar"
    assert refused <= 2, "nights, weekends, holidays, summer time and usual gaps are expected"
    reasons = {"stop", "take profit", "order", *(["trailing stop"] if trails else [])}
    assert reasons <= set(result.fills["reason"]), "rules that never act would prove little"
    assert len(set(result.targets[:, 0])) > 2


def test_a_row_has_the_numbers_of_the_whole_history_to_the_bit():
    for frequency, (_, _, features) in FREQUENCIES.items():
        bars = bars_of(frequency)
        more = [*features, "day_of_week_cos", "volatility_20", "distance_to_mean_60", "volume_ratio_30", "log_return_1"]
        market = Market.from_bars(bars, list(dict.fromkeys(more)))
        start = HISTORY
        recent = RecentBars(cut(bars, 0, start), tuple(map(resolve, market.feature_names)), has_adv=True)
        for i in range(start, len(bars)):
            given = values(bars, i)
            recent.offer(given.pop("time"), given)
            (row,) = newest_rows([recent], offered=True)
            recent.keep()
            np.testing.assert_array_equal(row.features, market.features[i, 0], err_msg=frequency)
            assert row.columns["volatility"] == market.volatility[i, 0]
            assert row.columns["adv"] == market.adv[i, 0]
        assert len(recent.bars) <= recent.kept + FREE_ROWS, "old bars are forgotten"


@pytest.mark.slow
def test_an_ensemble_and_decisions_between_are_those_of_the_backtest():
    bars = bars_of("daily")
    policy = ensemble([policy_on(bars, ["signal", "gap"], seed, **BETWEEN) for seed in (1, 2, 3)])
    result = backtested(policy, bars)
    live = policy.live(cut(bars, 0, HISTORY + 1))
    times = []
    for i in range(1, 40):
        give(live, bars, HISTORY + i)
        check_equal(live, result, i)
        times.append(live.decision.time)
    assert times == [result.times[i - i % 3] for i in range(1, 40)]
    told = policy.explain(result, 39)
    assert live.decision.value == pytest.approx(told.value, rel=1e-4)
    for position, share in told.probabilities.items():
        assert live.decision.probabilities[position] == pytest.approx(share, rel=1e-4)


@pytest.mark.slow
def test_a_reward_whose_state_is_seen_and_money_within_sessions():
    bars = bars_of("minutes")
    rules = Rules(flat_at_session_end=True)
    settings = {"rules": rules, "positions": "continuous", "reward": rewards.drawdown_penalized(1.0), "costs": Costs()}
    # Weights whose positions are not stopped before either session ends.
    policy = policy_on(bars, ["signal", "gap"], seed=3, stop_loss=0.03, take_profit=None, **settings)
    result = backtested(policy, bars, at=200)
    live = policy.live(cut(bars, 0, 201))
    for i in range(1, len(result)):
        ends = str(bars.times[200 + i])[5:16] == "11-05T15:30"  # half past ten in New York, an early end
        live.on_bar(**values(bars, 200 + i), session_end=np.True_ if ends else None, after_gap=True)
        np.testing.assert_allclose(live.decision.target, result.targets[i, 0], atol=1e-6)
        np.testing.assert_allclose(live.equity, result.equity[i], rtol=1e-6)
    assert (result.fills["reason"] == "session end").sum() == 2


@pytest.mark.slow
def test_reported_fills_make_the_account_of_the_backtest_that_had_them(hourly):
    policy, bars = hourly
    changes = {"rules": RULES.replace(capital=5_000.0, delay=0), "costs": Costs()}
    result = backtest(policy, Market.from_bars(bars, policy.features).split(bars.times[HISTORY])[1], **changes)
    live = policy.live(cut(bars, 0, HISTORY + 1), fills="reported", **changes)
    for i in range(1, len(result)):
        for fill in result.fills[result.fills["bar"] == i]:
            slip = fill["slippage"] / fill["units"]
            reason = str(fill["reason"])
            live.on_fill(fill["units"] * 5_000, fill["price"] + slip, fill["fee"] * 5_000, reason=reason)
        give(live, bars, HISTORY + i)
        check_equal(live, result, i)
    assert {"stop", "take profit", "trailing stop"} <= set(result.fills["reason"])

    for given, match in (
        ({"units": 1.0, "price": 0.0}, "finite"),
        ({"units": float("nan"), "price": 50.0}, "finite"),
        ({"units": "ten", "price": 50.0}, "'ten'.*finite"),
        ({"units": 1.0, "price": 50.0, "fee": None}, "None.*finite"),
        ({"units": 1.0, "price": 50.0, "symbol": "Y"}, "'Y'.*X"),
        ({"units": 1.0, "price": 50.0, "reason": "whim"}, "'whim'.*take profit"),
    ):
        with pytest.raises(ValueError, match=match):
            live.on_fill(**given)
    check_equal(live, result, len(result) - 1)
    with pytest.raises(ValueError, match="fills='reported'"):
        policy.live(cut(bars, 0, HISTORY + 1)).on_fill(1.0, 50.0)
    with pytest.raises(ValueError, match=r"'guessed'.*reported"):
        policy.live(bars, fills="guessed")


def test_bars_that_do_not_follow_are_refused_and_change_nothing(hourly, tmp_path):
    policy, bars = hourly
    live = policy.live(cut(bars, 0, HISTORY + 1))
    give(live, bars, HISTORY + 1)
    hour, good = np.timedelta64(1, "h"), values(bars, HISTORY + 2)
    now = live.time
    live.save(tmp_path / "before")
    for change, match in (
        ({"time": now}, "came already"),
        ({"time": now - hour}, "older than the last one"),
        ({"time": now + np.timedelta64(1, "m")}, "0:01:00 after the last one, and the history has one every 1:00:00"),
        ({"time": now + 24 * hour}, "1 day after .* 23 bars are missing.*after_gap=True"),
        ({"time": "tomorrow"}, "'tomorrow' is no time"),
        (
            {"time": now + hour, "high": 1.0},
            r"high is 1, .*at least max\(open, close\) = [\d.]+; correct it, or leave",
        ),
        (
            {"time": now + hour, "close": float("nan")},
            r"close is missing .* above 0; correct it, or leave",
        ),
        ({"time": now + hour, "close": None}, "no number for close"),
        ({"time": now + hour, "volume": -1.0}, r"volume is -1.*; correct it, or leave this bar out$"),
        ({"time": now + hour, "volume": np.nan}, r"volume is missing.*; correct it, or leave this bar out$"),
        ({"time": now + hour, "high": 1e16}, r"the range for float32; correct it, or leave this bar out$"),
        ({"time": now + hour, "columns": {}}, "feature signal of X has no finite value.*columns"),
        ({"time": now + hour, "columns": {"mood": 1.0}}, "'mood'.*signal"),
        ({"time": now + hour, "columns": 5}, "columns 5; give a mapping"),
        ({"time": now + hour, "columns": ()}, r"columns \(\); give a mapping"),
        ({"time": now + hour, "columns": {"signal": "up"}}, "signal 'up', which is no number"),
        ({"time": now + hour, "funding": 1e-4}, "funding 0.0001, and the history has none"),
        ({"time": now + hour, "price_factor": 0.5}, "price_factor 0.5, and the history has none"),
        (on_scale(good, 0.5) | {"time": now + hour}, "a 2-for-1 split.*price_factor.*resume_live.*after_jump=True"),
        (on_scale(good, 100) | {"time": now + hour}, "a 1-for-100 reverse split"),
        (on_scale(good, 1.83) | {"time": now + hour}, r"opens at 1\.\d+ times the last close"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            live.on_bar(**good | change)
        assert len(str(caught.value).splitlines()) == 1
    for bar, match in (
        ((1.0, 2.0), r"give \(open, high, low, close, volume\)"),
        (3.0, "the bar of X is 3"),
        ("up", "'up'"),
    ):
        with pytest.raises(ValueError, match=match):
            live.on_bars(now + hour, {"X": bar})
    named = {name: value for name, value in good.items() if name != "time"}
    for change, match in (
        ({"fundng": 0.01}, "bar of X has 'fundng', and a bar has open, .*; did you mean funding"),
        ({"signal": 0.5}, "'signal'.*; give a further column of the bars in `columns`"),
        ({3: 0.5}, "bar of X has '3'"),
        ({"time": "tomorrow"}, "'tomorrow' is no time"),
        ({"time": np.datetime64("NaT")}, "NaT.* is no time"),
        ({"time": now}, "X has the time .*after 2024-.* no later than"),
        ({"time": now + 2 * hour}, "X has the time .*after 2024-.* no later than"),
    ):
        with pytest.raises(ValueError, match=match):
            live.on_bars(now + hour, {"X": named | change})
    for name in ("after_gap", "after_jump", "session_end"):
        for given in ("no", 1, 0.0):
            with pytest.raises(ValueError, match=rf"{name}.*must be True or False"):
                live.on_bar(**good | {"time": now + hour, name: given})
    with pytest.raises(ValueError, match=r"after_gap.*must be True or False"):
        live.on_bar(**good | {"time": now + hour}, after_gap=None)
    with pytest.raises(ValueError, match=r"after_jump.*must be True or False"):
        live.catch_up(bars, after_jump="no")
    live.save(tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    live.on_bar(**good | {"time": now + hour})
    assert live.time == now + hour


def on_scale(bar: dict[str, Any], factor: float) -> dict[str, Any]:
    """A bar with prices so many times as high."""
    return bar | {name: factor * bar[name] for name in ("open", "high", "low", "close")}


def test_a_jump_that_is_accepted_or_has_the_volume_and_range_of_news_is_taken(hourly):
    policy, bars = hourly
    halved = on_scale(values(bars, HISTORY + 1), 0.5)
    news = halved | {"volume": 30 * halved["volume"], "high": 1.1 * halved["high"], "low": 0.9 * halved["low"]}
    by_day = values(bars, HISTORY + 1) | {name: halved[name] for name in ("low", "close")}
    for bar, accepted in ((halved, True), (news, False), (by_day, False)):
        live = policy.live(cut(bars, 0, HISTORY + 1), account=1.0)
        live.on_bar(**bar, after_gap=True, after_jump=accepted)
        assert (live.equity < 0.6) == (bar is not by_day), "a stop-loss saves nothing from a gap"


def with_more(bars: Bars) -> Bars:
    """The bars with the two columns that a history may have or not."""
    more = {"funding": np.full_like(bars.close, 1e-5), "price_factor": np.ones_like(bars.close)}
    return dataclasses.replace(bars, **more)


def test_a_price_factor_that_tells_a_split_leaves_the_prices_on_the_scale_of_the_history(hourly):
    policy, bars = hourly
    bars = with_more(bars)
    live, good = policy.live(up_to(bars, bars.times[HISTORY])), values(bars, HISTORY + 1)
    for factor in (None, 1.0, 0.5):
        with pytest.raises(ValueError, match="2-for-1 split"):
            live.on_bar(**on_scale(good, 0.5), price_factor=factor, after_gap=True)
    assert live.on_bar(**good, price_factor=2.0, after_gap=True).time == bars.times[HISTORY + 1]
    again = values(bars, HISTORY + 2)
    with pytest.raises(ValueError, match="another scale"):
        live.catch_up(dataclasses.replace(bars, **{name: getattr(bars, name) / 2 for name in PRICES}))
    assert live.catch_up(bars)[0].time == again["time"]


def test_funding_and_price_factor_are_numbers_where_the_history_has_them(hourly):
    policy, bars = hourly
    bars = with_more(bars)
    live, good = policy.live(up_to(bars, bars.times[HISTORY])), values(bars, HISTORY + 1)
    for name, wrong, match in (
        ("funding", "a", "'a', which is no number"),
        ("funding", np.nan, "funding nan; give a finite number"),
        ("price_factor", 0.0, "price_factor 0; give a finite number above 0"),
        ("price_factor", np.inf, "price_factor inf; give"),
    ):
        with pytest.raises(ValueError, match=match):
            live.on_bar(**good | {name: wrong}, after_gap=True)
    assert live.on_bar(**good, after_gap=True).time == bars.times[HISTORY + 1]


def test_a_time_is_text_a_datetime_or_utc(hourly):
    policy, bars = hourly
    bars = dataclasses.replace(bars, tz="Asia/Tokyo")
    moment = bars.times[HISTORY] + np.timedelta64(1, "h")
    local = pd.Timestamp(moment, tz="UTC").tz_convert("Asia/Tokyo")
    for time in (moment, local, local.tz_localize(None).isoformat(), local.tz_localize(None).to_pydatetime()):
        live = policy.live(cut(bars, 0, HISTORY + 1))
        live.on_bar(**values(bars, HISTORY + 1) | {"time": time})
        assert live.time == moment


def test_a_bar_of_a_mapping_may_have_its_own_time_within_the_row(hourly):
    policy, bars = hourly
    bar = values(bars, HISTORY + 1)
    time, half_an_hour = bar.pop("time"), np.timedelta64(30, "m")
    for own in (None, time, time - half_an_hour, str(time - half_an_hour)):
        live = policy.live(cut(bars, 0, HISTORY + 1))
        live.on_bars(time, {"X": bar | {"time": own, "funding": None, "price_factor": None}}, after_gap=True)
        assert live.time == time


def test_bars_of_another_spacing_are_refused_where_single_gaps_are_usual():
    """Each step of two hours is one that the history has. Several in a row are none."""
    times = pd.date_range("2024-03-01", periods=200, freq="h")
    bars = random_bars(times[np.arange(200) % 20 != 7], "X")
    schedule, hour = Schedule.of(bars.times, None), np.timedelta64(1, "h")
    assert (schedule.missing, schedule.long_run) == (1, 1)
    last = bars.times[-1]
    schedule.run = schedule.check(last, last + 2 * hour, "X")
    with pytest.raises(ValueError, match="missing 2 times in a row"):
        schedule.check(last + 2 * hour, last + 4 * hour, "X")
    assert schedule.check(last + 2 * hour, last + 3 * hour, "X") == 0


def test_a_session_is_followed_by_the_next_one_and_daily_bars_are_none_of_it():
    times = pd.bdate_range("2024-01-02", "2024-03-29", tz=NEW_YORK)
    hours = [day + pd.Timedelta(hours=h) for day in times for h in (10.5, 11.5, 12.5, 13.5, 14.5, 15.5, 16)]
    utc = pd.DatetimeIndex(hours).tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    schedule = Schedule.of(utc, NEW_YORK)
    close = utc[-1]  # Thursday before Easter, 16:00 in New York, where summer time began on March 10th

    def at(text: str) -> np.datetime64:
        return pd.Timestamp(text, tz=NEW_YORK).tz_convert("UTC").tz_localize(None).to_datetime64()

    assert close == at("2024-03-29 16:00")
    assert at("2024-04-01 10:00") <= schedule.next_bar_time(close) <= at("2024-04-01 10:30")
    assert schedule.check(close, at("2024-04-01 10:30"), "X") == 0
    for late, match in (("2024-04-01 11:30", "1 bar is missing"), ("2024-04-01 16:00", "bars are missing")):
        with pytest.raises(ValueError, match=match):
            schedule.check(close, at(late), "X")
    schedule.run = schedule.check(at("2024-04-01 15:30"), at("2024-04-01 16:00"), "X")
    with pytest.raises(ValueError, match=r"0:30:00 after .* spacing"):
        schedule.check(at("2024-04-01 16:00"), at("2024-04-01 16:30"), "X")


def test_a_history_that_is_too_short_is_refused(hourly):
    policy, bars = hourly
    with pytest.raises(ValueError, match="4 bars, and a decision needs 5: 4 in its window, and 1 before it"):
        policy.live(cut(bars, 0, 4))
    assert policy.live(cut(bars, 0, 5)).decision.time == bars.times[4]
    for history, given in (
        (pd.DataFrame(), "a DataFrame"),
        ([], "the list is empty"),
        ("prices.csv", "a str"),
        (None, "a NoneType"),
    ):
        with pytest.raises(ValueError, match=f"Bars are needed, and {given}.*; give what"):
            policy.live(history)
        with pytest.raises(ValueError, match=f"Bars are needed, and {given}.*; give what"):
            policy.live(bars).catch_up(history)
    with pytest.raises(ValueError, match="bars of one"):
        policy.live([bars, dataclasses.replace(bars, symbols=("Y",))])


def test_a_feature_that_reads_further_back_than_it_says_is_refused():
    def smooth(bars: Bars) -> np.ndarray:
        return pd.DataFrame(np.log(bars.close)).diff().ewm(alpha=0.05).mean().to_numpy()

    bars = bars_of("hourly")
    wrong = [Feature("smooth", 5, lambda b: np.where(np.arange(len(b))[:, None] < 4, np.nan, smooth(b))), "gap"]
    policy = policy_on(bars, wrong)
    with pytest.raises(DataError, match="smooth"):
        policy.live(bars)
    with pytest.raises(ValueError, match=r"smooth of X .* reads further back"):
        policy.live(bars, features=wrong)
    body = [Feature("body", 1, lambda b: np.log(b.close / b.open)), "gap"]
    policy = policy_on(bars, body, trailing_stop=TRAIL)
    live = policy.live(cut(bars, 0, HISTORY + 1), features=body)
    live.on_bar(**values(bars, HISTORY + 1))
    check_equal(live, backtested(policy, bars, features=body), 1)


def test_an_account_begins_with_what_it_holds(hourly):
    policy, bars = hourly
    history = cut(bars, 0, HISTORY + 1)
    live = policy.live(history, account=0.5)
    assert (live.exposure, live.equity, live.decision.exposure) == (0.5, 1.0, 0.5)
    assert live.units == pytest.approx(0.5 / bars.close[HISTORY, 0])
    assert policy.live(history, account={"X": 0.5}).decision == live.decision
    for account, match in (
        (50, "0.5 is one half"),
        ({"Y": 1}, "'Y'.*X"),
        ("much", "no exposure"),
        (np.nan, "exposure"),
    ):
        with pytest.raises(ValueError, match=match):
            policy.live(history, account=account)


def test_a_state_of_another_policy_or_a_damaged_one_is_refused(hourly, tmp_path):
    policy, bars = hourly

    def about(part: str, **changes: Any) -> Policy:
        return dataclasses.replace(policy, about=policy.about | {part: policy.about[part] | changes})

    policy.live(cut(bars, 0, HISTORY + 1)).save(tmp_path / "live")
    save_policy(tmp_path / "policy.pkl", policy)
    assert load_policy(tmp_path / "policy.pkl").resume_live(tmp_path / "live").time == bars.times[HISTORY]
    with pytest.raises(ValueError, match="another window"):
        about("env", window=5).resume_live(tmp_path / "live")
    with pytest.raises(ValueError, match=r"features signal, gap.*this one has gap"):
        about("features", names=["gap"]).resume_live(tmp_path / "live")
    with pytest.raises(files.FileError, match="'policy' file, not a 'live' file"):
        policy.resume_live(tmp_path / "policy.pkl")
    stored = files.load(tmp_path / "live", "live")
    rows, schedule = stored["rows"], stored["schedule"]
    recent = rows["recent"][0]
    for change, match in (
        ({"account": []}, "its account is one of other rules"),
        ({"account": ["x", *stored["account"][1:]]}, "its account is one of other rules"),
        ({"version": 9}, "a newer jaxtrader"),
        ({"version": "1"}, "version is '1', and must be 1"),
        ({"rows": {}}, "rows.symbols is missing"),
        ({"rows": rows | {"window": rows["window"][..., 1:]}}, r"rows.window has the shape \(4, 1, 1\)"),
        ({"rows": rows | {"names": rows["names"][1:]}}, "rows.names has no open"),
        ({"rows": rows | {"recent": [recent | {"close": recent["close"][1:]}]}}, r"rows.recent\[0\], 3 has the shape"),
        ({"rows": rows | {"recent": [recent | {"times": recent["times"][::-1]}]}}, "times do not increase"),
        ({"schedule": schedule | {"bar": 0}}, "schedule.bar is 0"),
        ({"schedule": schedule | {"longest": 0}}, "schedule.longest is 0"),
        ({"schedule": schedule | {"open_slots": schedule["open_slots"][1:]}}, "schedule.open_slots has 335 parts"),
        ({"age": -1}, "age is -1"),
        ({"decision": stored["decision"] | {"target": "all"}}, "decision.target is 'all'"),
        ({"env": stored["env"] | {"window": 0}}, "window=0` must be a whole number"),
        ({"further": 1}, "further is a field that is not known"),
    ):
        files.save(tmp_path / "damaged", "live", stored | change)
        with pytest.raises(files.FileError, match=f"{match}.*begin anew"):
            policy.resume_live(tmp_path / "damaged")


@pytest.mark.slow
def test_an_agent_of_ones_own_decides_live():
    bars = bars_of("hourly")
    agent, env = DQN(hidden=(8,)), TradingEnv(Market.from_bars(bars, ["signal", "gap"]), window=4, stop_loss=0.02)
    params = env.default_params
    state, _ = agent.prepare(agent.init(jax.random.key(3), env, params), params)
    about = {"env": env.to_dict(), "features": {"names": ["signal", "gap"], "lookback": 2}}
    policy = Policy(agent, state, about)
    result = backtested(policy, bars)
    live = policy.live(cut(bars, 0, HISTORY + 1))
    for i in range(1, 60):
        give(live, bars, HISTORY + i)
        check_equal(live, result, i)
    assert live.decision.probabilities is None
    assert live.decision.to_dict()["value"] is None
    assert len(set(result.targets[:60, 0])) > 1


def test_past_prices_that_were_adjusted_anew_change_the_units_and_not_the_account(hourly, tmp_path):
    policy, bars = hourly
    live = policy.live(cut(bars, 0, HISTORY + 1), account=0.5)
    give(live, bars, HISTORY + 1)
    live.save(tmp_path / "live")
    prices = {name: getattr(bars, name) * 0.25 for name in ("open", "high", "low", "close")}
    adjusted = dataclasses.replace(bars, **prices)
    again = policy.resume_live(tmp_path / "live", history=adjusted)
    assert (again.equity, again.exposure) == pytest.approx((live.equity, live.exposure))
    assert again.units == pytest.approx(4 * live.units)
    # What a trailing stop is measured from. Left as it was, it would close a long at the next bar.
    assert float(again._live_state.step.account.best[0]) == pytest.approx(
        0.25 * float(live._live_state.step.account.best[0])
    )
    for i in range(2, 12):
        give(live, bars, HISTORY + i)
        give(again, adjusted, HISTORY + i)
        assert (again.decision.target, again.equity) == pytest.approx((live.decision.target, live.equity))
    for history, match in (
        (cut(bars, 0, HISTORY), "the history has none then"),
        (cut(bars, HISTORY + 2, HISTORY + 90), "the history has none then"),
        (dataclasses.replace(bars, symbols=("Y",)), "the history is of Y"),
    ):
        with pytest.raises(ValueError, match=match):
            policy.resume_live(tmp_path / "live", history=history)


def test_a_decision_is_plain_data_for_a_script(hourly):
    policy, bars = hourly
    decision = policy.live(cut(bars, 0, HISTORY + 1)).decision
    plain = json.loads(json.dumps(decision.to_dict(), allow_nan=False))
    assert plain["time"] == f"{bars.times[HISTORY].astype('datetime64[s]')}Z"
    assert plain["target"] == decision.target
    assert plain["probabilities"]["0.5"] == decision.probabilities[0.5]
    assert dataclasses.replace(decision, target=float("nan")).to_dict()["target"] is None


def test_a_decision_is_printed_as_a_person_reads_it_and_keeps_its_values(hourly):
    policy, bars = hourly
    live = policy.live(cut(bars, 0, HISTORY + 1), account=1 / 3)
    decision = dataclasses.replace(
        live.decision, target=2 / 3, probabilities={-1.0: 0.123456, 0.5: 0.876544}, value=1 / 7
    )
    time = str(decision.time)[:19].replace("T", " ")
    wanted = "exposure 0.3333, target 0.6667, probabilities 0.1235 of -1, 0.8765 of 0.5, value 0.1429"
    assert str(decision) == f"Decision({time} UTC, {wanted})"
    assert (decision.exposure, decision.target) == (live.exposure, 2 / 3)
    assert "exposure 0.3333" in str(live)
    portfolio = dataclasses.replace(decision, target={"A": np.nan, "B": -1e-17}, probabilities=None)
    assert "target A as it is, B 0, value" in str(portfolio)
