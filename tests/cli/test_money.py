"""Leverage, brackets, rates, portfolios and other rewards from the command line: trained, tested, and refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import tomllib
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from cli.tiny_runs import SMALL, prices, refused
from ledger.reference import STOP, TAKE, Settings, result

import jaxtrader as jt
from jaxtrader.cli import inputs, main, phrases, train_command
from jaxtrader.cli.command_settings import MarketSettings, RewardSettings
from jaxtrader.cli.flags import parse
from jaxtrader.cli.settings import of, resolved
from jaxtrader.market.delistings import DELISTED_AFTER

SHORT = [*SMALL, "--total-steps", "500"]
NAMES = ("UP", "DN", "X", "Y")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of four symbols of unequal length, all ending on one day."""
    folder = tmp_path_factory.mktemp("money")
    frames = []
    for i, name in enumerate(NAMES):
        volume = np.random.default_rng(i).uniform(1e4, 1e5, 300).round()
        frames.append(prices(seed=i).assign(Volume=volume, Ticker=name)[40 * i :])
    pd.concat(frames).to_csv(folder / "four.csv", index=False)
    return folder


def said(*words) -> str:
    """What a command that succeeds prints, on one line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([str(word) for word in words]) == 0
    return " ".join(out.getvalue().split())


def settings_of(*argv: str) -> dict[str, Any]:
    """All settings of a command, as its words ask for them."""
    asked = parse(argv)
    assert asked is not None
    return resolved(asked.command, asked.values)


def sentence_of(out):
    """What a command says of the result, without the comparison with training."""
    return out.split("result ")[1].split(" luck ")[0].split(" The Sharpe ratio of training")[0]


def percent(share):
    """A return as the result tells it."""
    return f"{share:+.1%}" if abs(share) >= 0.01 else f"{share:+.2%}"


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_an_account_on_credit_with_brackets_is_trained_and_tested(folder, tmp_path):
    run = tmp_path / "run"
    money = (
        "--leverage 2 --positions continuous --stop-loss 0.03 --take-profit 0.1 --borrow-rate 0.06 --decision-every 2"
    )
    data = ["--data", folder / "four.csv", "--symbols", "UP", *SHORT]
    out = said("train", *data, *money.split(), "--no-must-beat-holding", "--run-dir", run)
    rules = "borrow rate 0.06; max leverage 2; maintenance margin 0.25; no fee on shorts; "
    rules += "stop-loss 0.03; take-profit 0.1"
    assert rules in out
    assert "positions any exposure from -2 to 2, every 2 bars" in out
    policy = jt.load_policy(run)
    env = policy.about["env"]
    assert (policy.rules.max_leverage, env["stop_loss"], env["decision_every"]) == (2.0, 0.03, 2)
    assert -2 < policy.act([[0.01, 0.02]]) < 2
    again = said("backtest", run, "--save", tmp_path / "saved")
    assert sentence_of(again) in out
    frame = pd.read_csv(tmp_path / "saved" / "equity.csv")
    assert f"made {percent(frame['equity'].iloc[-1] - 1)}" in sentence_of(out)
    # A policy that has made up its mind: debt, stops and take-profits by the scalar reference, at the file's prices.
    weights = {**policy.state.params, "policy": jax.tree.map(lambda w: 300 * w, policy.state.params["policy"])}
    policy.agent.save_model(tmp_path / "bold.pkl", policy.state.replace(params=weights), policy.about)
    tight = ["--stop-loss", "0.01", "--take-profit", "0.02"]
    shown = said("backtest", tmp_path / "bold.pkl", *tight, "--save", tmp_path / "bold")
    frame = pd.read_csv(tmp_path / "bold" / "equity.csv")
    days = len(frame)
    bars = pd.read_csv(folder / "four.csv").query("Ticker == 'UP'")[-days:]
    opens, highs, lows, closes = (bars[[name]].to_numpy().tolist() for name in ("Open", "High", "Low", "Close"))
    columns = {"high": highs, "low": lows, "dt": [1 / 365] * days}
    columns |= {"stop_loss": [[0.01]] * days, "take_profit": [[0.02]] * days}
    settings = Settings(fee=1e-4, slippage=5e-4, rebalance_band=0.05, max_leverage=2.0, borrow_rate=0.06)
    expected = result(opens, closes, frame[["target"]].to_numpy().tolist(), settings, **columns)
    np.testing.assert_allclose(frame["equity"], expected["equity"], rtol=1e-10)
    np.testing.assert_allclose(frame["financing"], expected["financing"], atol=1e-13)
    assert {STOP, TAKE} <= set(expected["reasons"])
    assert frame["exposure"].abs().max() > 1.5
    assert f"{frame['financing'].sum():+.2%} of the initial capital" in shown
    dear = said("backtest", run, "--borrow-rate", "0.5", *tight)
    assert "borrow rate 0.5; max leverage 2; maintenance margin 0.25; no fee on shorts; stop-loss 0.01" in dear


@pytest.mark.slow
def test_a_portfolio_is_trained_and_tested_as_one_account(folder, tmp_path):
    run = tmp_path / "run"
    data = ["--data", folder / "four.csv", *SHORT]
    out = said("train", *data, "--portfolio", "--capital", "100000", "--lot", "1", "--fixed-fee", "2", "--run-dir", run)
    assert "positions any weight from 0 to 1, the rest is cash, of each of 4 assets" in out
    assert jt.load_policy(run).portfolio
    again = said("backtest", run, "--save", tmp_path / "saved")
    # The same test part, judged by the command that trained and by the one that tests.
    assert sentence_of(again) in out
    frame = pd.read_csv(tmp_path / "saved" / "equity.csv")
    weights = frame[[f"exposure {name}" for name in NAMES]]
    assert (weights.sum(axis=1) <= 1 + 1e-9).all()
    assert weights.iloc[-1].min() > 0
    equity = reference(folder / "four.csv", frame)
    np.testing.assert_allclose(frame["equity"], equity, rtol=1e-10)
    assert f"the policy made {percent(equity[-1] - 1)}" in out
    policy = jt.load_policy(run)
    market = jt.Market.from_bars(jt.load_bars(folder / "four.csv"), features=policy.features, align=True)
    _, _, test = market.split(*(np.datetime64(cut) for cut in policy.about["command"]["cuts"]))
    np.testing.assert_allclose(frame["equity"], jt.backtest(policy, test).equity, rtol=1e-14)  # read from text


def reference(file, frame) -> np.ndarray:
    """The equity of the targets in a saved result by the scalar reference, at the prices in the user's file."""
    bars, days = pd.read_csv(file), len(frame)
    opens, closes = (
        bars.pivot(index="Date", columns="Ticker", values=name)[list(NAMES)].to_numpy()[-days:].tolist()
        for name in ("Open", "Close")
    )
    settings = Settings(fee=1e-4, slippage=5e-4, rebalance_band=0.05, capital=1e5, lot=1.0, fixed_fee=2.0)
    return np.array(result(opens, closes, frame[[f"target {name}" for name in NAMES]].to_numpy(), settings)["equity"])


@pytest.mark.parametrize(
    ("flags", "says", "made"),
    [
        ("--reward over_benchmark", "log return less that of equal shares of all assets", jt.rewards.over_benchmark()),
        (
            "--reward drawdown_penalized",
            "less the increase of drawdown, risk aversion 1",
            jt.rewards.drawdown_penalized(1.0),
        ),
        (
            "--reward drawdown_penalized --risk-aversion 3",
            "drawdown, risk aversion 3",
            jt.rewards.drawdown_penalized(3.0),
        ),
        ("--reward differential_sharpe", "differential Sharpe ratio", jt.rewards.differential_sharpe()),
        ("--reward differential_downside", "differential downside deviation ratio", jt.rewards.differential_downside()),
        ("--reward log_return", "log return", jt.rewards.log_return()),
        ("--synthetic ar1", "log return", jt.rewards.log_return()),
        ("--synthetic ar1 --reward risk_penalized", "log return, risk aversion 5", jt.rewards.risk_penalized(5.0)),
        ("--risk-aversion 0", "log return, risk aversion 0", jt.rewards.risk_penalized(0.0)),
        ("--risk-aversion 2", "log return, risk aversion 2", jt.rewards.risk_penalized(2.0)),
        ("", "log return, risk aversion 5", jt.rewards.risk_penalized(5.0)),
    ],
)
def test_rewards_are_named_in_the_plan_and_paid(flags, says, made):
    wanted = RewardSettings(**of(RewardSettings, settings_of("train", *flags.split())))
    assert says in phrases.reward(wanted)
    assert inputs.reward(wanted) == made


def test_the_positions_nobody_asked_for_keep_within_the_leverage():
    def positions(*flags):
        return settings_of("train", "--leverage", *flags)["positions"]

    assert positions("0.5") == (0, 0.125, 0.25, 0.375, 0.5)
    assert positions("2") == (0, 0.25, 0.5, 0.75, 1)
    assert positions("0.5", "--positions", "0,1") == (0, 1)
    assert positions("0.3") == (0, 0.075, 0.15, 0.225, 0.3)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--leverage 0", "--leverage 0 is outside (0, 100]"),
        ("--leverage 2 --maintenance-margin 0.6", "--maintenance-margin 0.6 is outside [0, 0.5)"),
        ("--stop-loss -0.1", "--stop-loss -0.1 must be above 0"),
        ("--stop-loss 3", "--stop-loss 3 must be below 1: it is a fraction of the entry price, 0.03 is 3%"),
        ("--take-profit 3", "--take-profit 3 must be below 1: it is a fraction of the entry price, 0.03 is 3%"),
        ("--lot 1", "--lot needs --capital"),
        ("--impact 1", "--impact needs --capital"),
        ("--delay -1", "--delay -1 must be a whole number of bars"),
        (
            "--short-rate 9",
            "--short-rate 9 must be at least --short-rate 0 and below --short-rate 5: it is a rate a year",
        ),
        ("--flat-at-session-end", "--flat-at-session-end needs bars shorter than a day"),
        ("--portfolio --symbols UP", "a portfolio needs two symbols at least"),
        ("--portfolio --positions 0,1", "positions"),
        ("--portfolio --leverage 2", "--leverage 2 does nothing to weights, which sum to at most 1"),
        (
            "--capital 100 --min-trade 200",
            "--min-trade 200 is more than all that positions up to 1 of a capital of 100 can buy",
        ),
        ("--reward differential_sharpe --risk-aversion 3", "--risk-aversion 3 needs --reward risk_penalized or"),
        ("--decision-every 3", "use --episode-length 30 or --episode-length 33"),
        ("--synthetic ar1 --leverage 2 --positions continuous", "no leverage, brackets"),
    ],
)
def test_what_cannot_be_is_one_sentence(flags, says, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = flags.split()
    data = [] if "--synthetic" in words else ["--data", str(folder / "four.csv"), *SHORT]
    assert says in refused(capsys, ["train", *data, *words])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_an_asset_of_a_portfolio_counts_as_delisted_where_its_training_says(folder, tmp_path):
    """X has no bar for 13 days, which is more than 8."""
    table, run = pd.read_csv(folder / "four.csv"), tmp_path / "run"
    date = pd.to_datetime(table["Date"])
    silent = (table["Ticker"] == "X") & (date >= "2020-09-20") & (date < "2020-10-03")
    table[~silent].to_csv(tmp_path / "hole.csv", index=False)
    words = ["--data", tmp_path / "hole.csv", *SHORT, "--portfolio", "--delisted-after", "8"]
    said("train", *words, "--no-must-beat-holding", "--run-dir", run)
    assert tomllib.loads((run / "config.toml").read_text())["market"]["delisted_after"] == 8.0
    policy = jt.load_policy(run)
    bars = jt.load_bars(tmp_path / "hole.csv")
    market = jt.Market.from_bars(bars, features=policy.features, align=True, delisted_after=policy.delisted_after)
    equity = jt.backtest(policy, market.split("2020-09-10", "2020-10-10")[1]).equity
    ends = ["--start", "2020-09-10", "--end", "2020-10-09"]
    for saved, own in (("own", ["--part", "all"]), ("file", ["--data", tmp_path / "hole.csv"])):
        said("backtest", run, *own, *ends, "--save", tmp_path / saved)
        np.testing.assert_allclose(pd.read_csv(tmp_path / saved / "equity.csv")["equity"], equity, rtol=1e-14)
        reasons = set(pd.read_csv(tmp_path / saved / "fills.csv")["reason"])
        assert "delisted" in reasons
    assert main(["train", "--config", str(run / "config.toml"), "--dry-run"]) == 0


def test_the_days_of_a_delisting_need_a_portfolio(folder, capsys):
    data = ["--data", str(folder / "four.csv"), *SHORT, "--dry-run"]
    assert main(["train", *data, "--delisted-after", "30"]) == 2
    assert "--delisted-after 30 is of the assets of one account; it needs --portfolio" in capsys.readouterr().err
    assert main(["train", *data, "--portfolio", "--delisted-after", "0"]) == 2
    assert "--delisted-after 0 must be a number of days above 0" in capsys.readouterr().err
    assert MarketSettings().delisted_after == DELISTED_AFTER


def test_a_coin_at_midnight_beside_a_stock_needs_a_label_of_its_own(tmp_path, capsys, monkeypatch):
    """The stamps may be of the day that begins or ends. The message says what to type, and it works."""
    monkeypatch.setattr(train_command, "dry_run", lambda *_: 0)  # what is asked is whether a plan can be made
    rng, frames = np.random.default_rng(0), []
    for name, days in (
        ("BTC-USD=X", pd.date_range("2020-01-01", periods=500)),
        ("SPY", pd.bdate_range("2020", periods=357)),
    ):
        close = pd.Series(50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(days)))))
        stamps = days + pd.Timedelta("21h" if name == "SPY" else "0h")
        prices = {"Open": close, "High": close, "Low": close, "Close": close}
        frames.append(pd.DataFrame({"Ticker": name, "Date": stamps.strftime("%Y-%m-%d %H:%M"), **prices}))
    pd.concat(frames).to_csv(tmp_path / "two.csv", index=False)
    words = ["train", "--data", str(tmp_path / "two.csv"), *SMALL, "--portfolio", "--dry-run"]
    assert main(words) == 2
    told = capsys.readouterr().err
    way_out = re.search(r"--label (\S+)", told)
    assert way_out, told
    assert way_out[1] == "BTC-USD=X=open"
    assert "BTC-USD=X, SPY, 2020-01-02" in said(*words, "--label", way_out[1])
    assert main([*words, "--label", "BTC-USD=X=left"]) == 2
    assert main([*words, "--label", "BTC="]) == 2
    assert main([*words, "--label", "BTC=open"]) == 2
    assert "--label names 'BTC', which is not loaded" in capsys.readouterr().err


def test_the_plan_says_each_assets_fee_and_where_debt_or_shorts_cost_nothing(make_portfolio, make_market):
    each = jt.TradingEnv(make_portfolio(2), positions="weights", costs=jt.Costs(fee=[1e-4, 2e-4], slippage=None))
    assert phrases.rules(each).startswith("fee 1/2 bp, slippage 0 bp; ")
    credit = jt.TradingEnv(make_market(), positions="continuous", rules=jt.Rules(max_leverage=2.0))
    assert "no interest on debt; no fee on shorts" in phrases.rules(credit)
    paid = dataclasses.replace(credit, costs=jt.Costs(borrow_rate=0.06, short_rate=0.01))
    assert "no interest" not in phrases.rules(paid)
    assert "no fee on shorts" not in phrases.rules(paid)
    assert "shorts" not in phrases.rules(jt.TradingEnv(make_market(), positions=(0.0, 0.5, 1.0)))
    assert "maintenance margin 0.25" in phrases.rules(jt.TradingEnv(make_market()))


def test_a_rate_in_a_column_is_named_and_a_rebate_is_warned_of(make_market) -> None:
    market = make_market((60,))
    named = dataclasses.replace(market, columns={"maker": np.full_like(market.close, -1e-4)})
    said = phrases.rules(jt.TradingEnv(named, costs=jt.Costs(fee="maker", rebates=("fee",))))
    assert said.startswith("fee of the column 'maker', slippage 5 bp; ")
    assert "WARNING: fee may be below 0" in said
