"""`jaxtrader decide`: its line, its account from call to call, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from live.test_live import HISTORY, backtested, bars_of, policy_on
from live.test_live_portfolio import portfolio_policy, three_histories
from market.price_tables import cut, random_bars

from jaxtrader.agents.policy import Policy
from jaxtrader.agents.policy_loading import ensemble, save_policy
from jaxtrader.cli import decide_command, main
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bars import Bars

HOUR = np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def hourly() -> tuple[Policy, Bars]:
    bars = bars_of("hourly")
    return policy_on(bars, ["signal", "gap"]), bars


@pytest.fixture
def run(tmp_path, hourly) -> Path:
    save_policy(tmp_path / "run" / "policy.pkl", hourly[0])
    return tmp_path / "run"


def table(*histories: Bars) -> pd.DataFrame:
    names = ("open", "high", "low", "close", "volume")
    frames = []
    for bars in histories:
        columns = {name: getattr(bars, name)[:, 0] for name in names} | {"signal": bars.columns["signal"][:, 0]}
        frames.append(pd.DataFrame({"time": bars.times, "symbol": bars.symbols[0], **columns}))
    return pd.concat(frames)


def write(path: Path, *histories: Bars) -> str:
    table(*histories).to_csv(path, index=False)
    return str(path)


def at(monkeypatch: pytest.MonkeyPatch, time: np.datetime64) -> None:
    monkeypatch.setattr(decide_command, "_now", lambda: time.astype("datetime64[ns]"))


def records(capsys: pytest.CaptureFixture, *argv: str) -> list[dict[str, Any]]:
    assert main(["decide", *argv, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_account_goes_on_from_call_to_call_as_in_a_backtest(run, hourly, tmp_path, monkeypatch, capsys):
    policy, bars = hourly
    result = backtested(policy, bars)
    for i in (0, 1, 2, 7, 40, 40):
        at(monkeypatch, bars.times[HISTORY + i] + 2 * HOUR)
        file = write(tmp_path / "prices.csv", cut(bars, 0, HISTORY + i + 1))
        (record,) = records(capsys, str(run), "--data", file)
        assert (record["bar"], record["age_seconds"]) == (f"{result.times[i].astype('datetime64[s]')}Z", 7200)
        assert record["target"] == result.targets[i, 0]
        assert record["exposure"] == pytest.approx(result.exposure[i, 0], abs=1e-9)
        assert record["equity"] == pytest.approx(result.equity[i], rel=1e-9)
    assert len(set(result.targets[:41, 0])) > 2


def test_the_line_for_a_person_says_when_the_bar_is_stale(run, hourly, tmp_path, monkeypatch, capsys):
    policy, bars = hourly
    history = cut(bars, 0, HISTORY + 1)
    file, now = write(tmp_path / "prices.csv", history), history.times[-1]
    decision = policy.live(history, 0.5).decision
    shown = str(now)[:16].replace("T", " ")
    told = f"{shown} hold 0.5 -> target {decision.target:g} (p {decision.probabilities[decision.target]:.2f}), "
    for hours, age, stale in ((1, "1 hour", False), (2, "2 hours", False), (50, "2.1 days", True)):
        at(monkeypatch, now + hours * HOUR)
        assert main(["decide", str(run), "--data", file, "--position", "0.5"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert out.startswith(f"{told}the bar is {age} old")
        assert ("stale" in out) == stale
        due = str(now + HOUR)[:16].replace("T", " ")
        assert (f"the next was due at {due}" in out) == stale


def test_a_policy_that_holds_has_no_probabilities(hourly, tmp_path, monkeypatch, capsys):
    policy, bars = hourly
    held = dataclasses.replace(policy, about={**policy.about, "holds_because": "it holds 0.5"})
    save_policy(tmp_path / "policy.pkl", held)
    history = cut(bars, 0, HISTORY + 1)
    at(monkeypatch, history.times[-1] + HOUR)
    assert main(["decide", str(tmp_path / "policy.pkl"), "--data", write(tmp_path / "prices.csv", history)]) == 0
    assert " (it holds), the bar is 1 hour old" in " ".join(capsys.readouterr().out.split())


def test_daily_bars_that_may_mislead_are_told(run, tmp_path, monkeypatch, capsys):
    """A bar that is dated today may not be over, and a split may have halved the prices."""
    history = cut(bars_of("daily"), 0, HISTORY + 1)
    arguments = [str(run), "--data", write(tmp_path / "prices.csv", history)]
    for hours, dated in ((10, True), (26, False)):
        at(monkeypatch, history.times[-1] + hours * HOUR)
        (record,) = records(capsys, *arguments)
        assert (record["dated_today"], record["notes"]) == (dated, [])
        assert main(["decide", *arguments]) == 0
        assert ("The last bar is dated today" in " ".join(capsys.readouterr().out.split())) == dated
    prices = table(history)
    prices.iloc[-1, 2:6] /= 2  # the last bar alone
    prices.to_csv(tmp_path / "raw.csv", index=False)
    (record,) = records(capsys, arguments[0], "--data", str(tmp_path / "raw.csv"), "--position", "0")
    (note,) = record["notes"]
    assert f"X: {str(history.times[-1])[:10]} looks like a 2-for-1 split" in note


def test_a_bar_that_is_not_over_is_left_out(run, hourly, tmp_path, monkeypatch, capsys):
    _, bars = hourly
    history = cut(bars, 0, HISTORY + 1)
    at(monkeypatch, history.times[-1] - np.timedelta64(15, "m"))
    assert main(["decide", str(run), "--data", write(tmp_path / "prices.csv", history)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(str(history.times[-2])[:16].replace("T", " "))
    assert "1 bar at the end is not over yet" in out


@pytest.mark.slow
def test_each_symbol_has_an_account_and_an_ensemble_tells_the_likely_positions(tmp_path, monkeypatch, capsys):
    bars = bars_of("hourly")
    policy = policy_on(bars, ["signal", "gap"], stop_loss=0.02)
    save_policy(tmp_path / "run" / "policy.pkl", ensemble([policy, policy]))
    history = cut(bars, 0, HISTORY + 1)
    short = dataclasses.replace(cut(bars, 0, 3), symbols=("Z",))
    file = write(tmp_path / "prices.csv", history, dataclasses.replace(history, symbols=("Y/1",)), short)
    at(monkeypatch, history.times[-1] + HOUR)
    arguments = ["decide", str(tmp_path / "run"), "--data", file]
    assert main([*arguments, "--position", "0.5,0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("X 2024")
    assert "hold 0.5 -> target" in lines[0]
    assert lines[1].startswith("Y/1 2024")
    assert " of " in lines[1]
    assert "Z: Left out" in lines[2]
    assert sorted(path.name for path in (tmp_path / "run" / "live").iterdir()) == ["X.live", "Y_1.live"]
    assert main([*arguments, "--position", "0.5"]) == 2
    assert "one for each of X, Y/1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_portfolio_has_one_account(tmp_path, monkeypatch, capsys):
    histories = three_histories()
    policy = portfolio_policy(histories, positions="weights", rules=Rules(delay=1), costs=Costs(cash_rate=0.1))
    save_policy(tmp_path / "policy.pkl", policy)
    file = write(tmp_path / "prices.csv", *histories)
    at(monkeypatch, histories[0].times[-1] + 20 * HOUR)
    (record,) = records(capsys, str(tmp_path / "policy.pkl"), "--data", file, "--position", "0.2,0.3,0")
    assert record["symbols"] == ["A", "B", "C"]
    assert record["exposure"] == pytest.approx({"A": 0.2, "B": 0.3, "C": 0.0})
    assert main(["decide", str(tmp_path), "--data", file]) == 0
    assert "hold A 0.2, B 0.3, C 0 -> target A " in " ".join(capsys.readouterr().out.split())


def test_a_row_of_a_portfolio_is_decided_when_it_is_over(tmp_path, monkeypatch, capsys):
    """The stock closes at 21:00, and the coin's day at 12:00 of the next day. Until then the row before is the last."""
    coin = random_bars(pd.date_range("2023-01-02", periods=201) + pd.Timedelta("12h"), "COIN")
    stock = random_bars(pd.bdate_range("2023-01-02", periods=142) + pd.Timedelta("21h"), "STOCK")
    policy = portfolio_policy([coin, stock], positions="weights", costs=Costs(cash_rate=0.1))
    save_policy(tmp_path / "policy.pkl", policy)
    file = write(tmp_path / "prices.csv", coin, stock)
    day = np.datetime64("2023-07-18T00:00", "ns")
    for hours, row, waits in ((13, 12, False), (22, 12, True), (35, 12, True), (37, 36, False)):
        at(monkeypatch, day + hours * HOUR)
        (record,) = records(capsys, str(tmp_path / "policy.pkl"), "--data", file)
        assert record["bar"] == f"{(day + row * HOUR).astype('datetime64[s]')}Z"
        assert any("STOCK: The last bar waits" in note for note in record["notes"]) == waits


def test_what_is_refused_is_one_sentence_and_the_account_stays(run, hourly, tmp_path, monkeypatch, capsys):
    _, bars = hourly
    at(monkeypatch, bars.times[HISTORY] + HOUR)
    file = write(tmp_path / "prices.csv", cut(bars, 0, HISTORY + 1))
    assert main(["decide", str(run), "--data", file]) == 0
    capsys.readouterr()
    kept = (run / "live" / "X.live").read_bytes()
    older = write(tmp_path / "older.csv", cut(bars, 0, HISTORY))
    daily_times = (bars.times[HISTORY] - np.arange(HISTORY + 1)[::-1] * 24 * HOUR).astype("datetime64[ns]")
    later = cut(bars, 0, HISTORY + 2)
    halved = np.where(np.arange(HISTORY + 2) == HISTORY + 1, 0.5, 1.0)[:, None]  # a split, and no adjusted prices
    prices = {name: getattr(later, name) * halved for name in ("open", "high", "low", "close")}
    split = write(tmp_path / "split.csv", dataclasses.replace(later, **prices))
    coarse = write(tmp_path / "daily.csv", dataclasses.replace(cut(bars, 0, HISTORY + 1), times=daily_times))
    other = dataclasses.replace(bars_of("hourly"), close=np.roll(bars.close, 5), high=bars.high * 9, low=bars.low / 9)
    for argv, match in (
        ([str(run)], "give --data FILE"),
        ([str(run), "--data", write(tmp_path / "other.csv", cut(other, 0, HISTORY + 1))], "other prices"),
        ([str(run), "--data", older], "the history has none then; give one that has; --position"),
        (
            [str(run), "--data", split],
            "a 2-for-1 split: its prices seem to be on another scale than the history; give adjusted prices, or",
        ),
        ([str(run), "--data", coarse], "one every 1:00:00, and the history has one every 1 day"),
        (
            [str(run), "--data", file, "--position", "50"],
            "--position of 50.0 is no exposure; give position value / equity",
        ),
        ([str(run), "--data", write(tmp_path / "few.csv", cut(bars, 0, 3))], "too few"),
        ([str(tmp_path / "none")], "none"),
    ):
        assert main(["decide", *argv]) == 2, argv
        err = capsys.readouterr().err
        assert match in err
        assert len(err.strip().splitlines()) == 1
    assert (run / "live" / "X.live").read_bytes() == kept
    renamed = write(tmp_path / "named.csv", dataclasses.replace(cut(bars, 0, HISTORY + 1), symbols=("W",)))
    assert main(["decide", str(run), "--data", renamed]) == 0
    assert "W: A new account begins. The run keeps those of X." in " ".join(capsys.readouterr().out.split())
