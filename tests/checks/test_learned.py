"""Checks 3 to 5 on planted faults, one of each kind, on honest bars, and through the command.

All trainings here have the same shapes and settings as the command's default, so the training step compiles once.
"""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from jaxtrader import checks
from jaxtrader.checks import CheckSettings, delayed, oracle, past_only, plausible, run, shuffled
from jaxtrader.checks.holdout import HoldoutResult, _mean_by_time, t_statistic
from jaxtrader.checks.learned import delay_features, excess_on_shared_bars, shuffle_bars
from jaxtrader.cli import main
from jaxtrader.ledger.costs import Costs
from jaxtrader.ledger.rules import Rules
from jaxtrader.market.bar_checks import DataError, check_bars
from jaxtrader.market.bars import load_bars
from jaxtrader.market.features import Feature
from jaxtrader.market.market import Market
from jaxtrader.training import update

# Each training takes a quarter of the time then.
pytestmark = pytest.mark.usefixtures("optimized")

BARS = 1000
SETTINGS = CheckSettings(total_steps=120_000)


def next_moves(bars):
    moves = np.zeros(bars.close.shape)
    moves[:-2] = np.log(bars.open[2:] / bars.open[1:-1])
    return moves


def walk(bars=BARS, seed=0, name="W", deviation=0.02):
    """A random walk with a column of noise, and one that knows the next fill-to-fill return in part."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(rng.normal(0, deviation, bars)))
    first = close * np.exp(rng.normal(0, deviation / 4, bars))
    prices = {"open": first, "high": np.maximum(first, close) * 1.001, "low": np.minimum(first, close) * 0.999}
    frame = pd.DataFrame(prices | {"close": close, "volume": rng.uniform(1, 9, bars)})
    frame["noise"] = rng.normal(size=bars)
    frame.index = pd.date_range("2020-01-01", periods=bars)
    loaded = load_bars(frame, symbol=name)
    moves = next_moves(loaded)
    leak = moves / moves.std() + rng.normal(size=moves.shape)
    return dataclasses.replace(loaded, columns={**loaded.columns, "leak": leak})


@pytest.fixture(scope="module")
def bars():
    return walk()


HONEST = ["log_return_5", "volatility_10", "noise"]
LEAKING = ["log_return_5", "volatility_10", "leak"]
LOOKING_AHEAD = ["log_return_5", "volatility_10", Feature("ahead", 1, next_moves)]


# --- planted faults ---


@pytest.mark.slow
def test_a_precomputed_leak_is_gone_one_bar_later(bars):
    check = delayed(bars, LEAKING, SETTINGS)
    assert not check.passed
    assert check.figure > 2 * check.limit


@pytest.mark.slow
def test_a_function_that_looks_ahead_gets_rich_on_shuffled_bars(bars):
    check = shuffled(bars, LOOKING_AHEAD, SETTINGS)
    assert not check.passed
    assert check.figure > 5 * check.limit


@pytest.mark.slow
def test_a_learner_that_does_not_learn_fails_with_the_future_told(bars):
    still = dataclasses.replace(SETTINGS, agent=SETTINGS.agent.replace(learning_rate=1e-9))
    check = oracle(bars, HONEST, still)
    assert not check.passed
    assert check.figure < 0.75 * check.limit  # by chance an untrained network follows any of its inputs a little


# --- honest bars ---


@pytest.mark.slow
def test_honest_bars_pass_all_five_with_one_compilation(bars):
    oracle(bars, HONEST, dataclasses.replace(SETTINGS, total_steps=1_000))  # whatever ran before this test
    before = update.run_chunk._cache_size()
    said = []
    done = run(bars, HONEST, SETTINGS, notify=said.append)
    assert update.run_chunk._cache_size() == before
    assert [check.name for check in done] == ["past_only", "plausible", "one_bar_late", "oracle", "shuffled"]
    assert all(check.passed for check in done), [check.text for check in done if not check.passed]
    assert [line[:3] for line in said] == ["1/5", "2/5", "3/5", "4/5", "5/5"]


def test_the_first_two_run_alone_and_in_their_order(bars):
    done = run(bars, ["log_return_5", "leak"], only=("plausible", "past_only"))
    assert [(check.name, check.passed) for check in done] == [("past_only", True), ("plausible", False)]
    for only in (("oracles",), ()):
        with pytest.raises(
            ValueError, match=rf"only={re.escape(repr(only))}` names no check to run; the checks are past"
        ):
            run(bars, ["log_return_5"], only=only)
    for only in ("past_only", 5, None):
        with pytest.raises(
            ValueError, match=rf"only={only!r}` must be a list of names, such as `only=\['past_only'\]`"
        ):
            run(bars, ["log_return_5"], only=only)


@pytest.mark.parametrize("check", [run, past_only, plausible, delayed, oracle, shuffled])
def test_what_are_no_bars_is_refused(bars, check):
    market = Market.from_bars(bars, features=["log_return_5"])
    for wrong in (market, [market], None, bars.close):
        with pytest.raises(DataError, match=r"Bars are needed, and an? .* is given; give what `load_bars` returns"):
            check(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed=-1` must be a whole number, from 0 to 4,294,967,295"),
        ({"seed": 1.5}, "seed=1.5` must be a whole number"),
        ({"holdout": "x"}, "holdout='x'` must be a number"),
        ({"holdout": 1}, "holdout=1` must be between 0 and 1"),
        ({"rollout_length": "x"}, "rollout_length='x'` must be a whole number"),
        ({"costs": 5}, "needs a Costs, not an int"),
        ({"rules": 5}, "rules=5` must be `Rules"),
    ],
)
def test_settings_of_a_wrong_type_or_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        CheckSettings(**settings)


def test_settings_are_check_settings(bars):
    with pytest.raises(ValueError, match="needs a CheckSettings, not an int"):
        run(bars, ["log_return_5"], 5, only=["past_only"])


def signalling(memory):
    """A market whose returns follow, a little, a column that is known at the close before, and remembers itself."""
    rng = np.random.default_rng(7)
    signal, moves = np.zeros(BARS), rng.normal(0, 0.02, BARS)
    for t in range(1, BARS):
        signal[t] = memory * signal[t - 1] + np.sqrt(1 - memory**2) * rng.normal()
    moves[1:] += 0.008 * signal[:-1]
    close = 50 * np.exp(np.cumsum(moves))
    bars = walk()
    first = np.concatenate([[50.0], close[:-1]])  # no gaps: the move from close to close is that from fill to fill
    prices = {"open": first, "high": np.maximum(first, close), "low": np.minimum(first, close), "close": close}
    columns = {"signal": signal[:, None]}
    return dataclasses.replace(bars, **{name: x[:, None] for name, x in prices.items()}, columns=columns)


@pytest.mark.slow
def test_a_slow_signal_survives_a_bar_of_delay_and_one_that_fades_within_it_does_not():
    features = ["log_return_5", "volatility_10", "signal"]
    slow, fast = (delayed(signalling(memory), features, SETTINGS) for memory in (0.9, 0.0))
    earned = [float(re.search(r"a bar \(t (\S+)\)", check.text)[1]) for check in (slow, fast)]
    assert min(earned) > slow.limit
    assert (slow.passed, slow.figure) == (True, 0)
    assert not fast.passed


@pytest.mark.slow
def test_costs_that_nothing_could_pay_hide_no_leak(bars):
    dear = dataclasses.replace(SETTINGS, costs=Costs(fee=0.01, slippage=0.01))
    assert not delayed(bars, LEAKING, dear).passed
    assert oracle(bars, HONEST, dear).passed


@pytest.mark.slow
def test_the_command_says_which_check_failed_and_exits_1(bars, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = dataclasses.make_dataclass(
        "Short", [("total_steps", int, SETTINGS.total_steps)], bases=(CheckSettings,), frozen=True
    )
    monkeypatch.setattr(checks, "CheckSettings", short)
    columns = {name: getattr(bars, name)[:, 0] for name in ("open", "high", "low", "close", "volume")}
    frame = pd.DataFrame({"time": bars.times} | columns | {k: v[:, 0] for k, v in bars.columns.items()})
    frame.to_csv("prices.csv", index=False)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nimport jaxtrader as jt\n"
        "noise = jt.features.Feature('own', 1, lambda bars: bars.columns['noise'])\n"
        "moves = lambda bars: np.log(bars.open[2:] / bars.open[1:-1])\n"
        "ahead = jt.features.Feature('ahead', 1, lambda b: np.append(moves(b), [[0], [0]], axis=0))\n"
    )
    argv = ["check", "--data", "prices.csv", "--features"]
    assert main(["check", "--only", "plausible,past_only", *argv[1:], "log_return_5,volatility_10,mine.py:noise"]) == 0
    assert "past_only, plausible passed in " in " ".join(capsys.readouterr().out.split())
    assert main([*argv, ",".join(LEAKING)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "2 of 5 checks failed (plausible, one_bar_late)" in out, "the shuffle looks for no column"
    argv[1:1] = ["--only", "shuffled,past_only"]
    assert main([*argv, "log_return_5,volatility_10,mine.py:ahead"]) == 1
    assert "2 of 2 checks failed (past_only, shuffled)" in " ".join(capsys.readouterr().out.split())
    assert {path.name for path in tmp_path.iterdir()} <= {"prices.csv", "mine.py", "__pycache__"}


# --- their parts ---


def test_shuffled_bars_keep_their_shapes_and_lose_their_order(bars):
    mixed = shuffle_bars(bars, np.random.default_rng(0))
    check_bars({n: getattr(mixed, n)[:, 0] for n in ("open", "high", "low", "close", "volume")}, str)
    np.testing.assert_array_equal(mixed.times, bars.times)
    assert mixed.close[0] == bars.close[0]
    assert mixed.close[-1] == pytest.approx(bars.close[-1])
    # Which bar came where is told by its volume, which is its own.
    order = np.argsort(bars.volume[:, 0])[np.argsort(np.argsort(mixed.volume[:, 0]))]
    assert not np.array_equal(order, np.arange(BARS))
    np.testing.assert_array_equal(mixed.volume, bars.volume[order])
    for name in ("noise", "leak"):
        np.testing.assert_array_equal(mixed.columns[name], bars.columns[name][order])
    for name in ("open", "high", "low", "close"):
        moved = np.log(getattr(mixed, name)[1:] / mixed.close[:-1])
        own = np.log(getattr(bars, name)[order[1:]] / bars.close[order[1:] - 1])
        np.testing.assert_allclose(moved, own, rtol=0, atol=1e-12)


def test_bars_on_which_a_column_warms_up_stay_in_front(bars):
    def from_row(row):
        values = bars.columns["noise"].copy()
        values[:row] = np.nan
        return values

    columns = {
        "signal": from_row(40),
        "torn": np.where(np.arange(BARS)[:, None] % 7, 1.0, np.nan),
        "none": from_row(BARS),
    }
    mixed = shuffle_bars(dataclasses.replace(bars, columns=columns), np.random.default_rng(0))
    np.testing.assert_array_equal(mixed.close[:40], bars.close[:40])
    assert not np.isclose(mixed.close[40:-1], bars.close[40:-1]).all()
    assert mixed.close[-1] == pytest.approx(bars.close[-1])
    assert Market.from_bars(mixed, features=["signal"]).ready[0] == 40


def test_delay_features_stays_within_each_history():
    market = Market.from_bars((walk(30), walk(20, seed=1, name="B")), features=["log_return_5", "noise"])
    late = delay_features(market)
    np.testing.assert_array_equal(late.features[1:30], market.features[:29])
    np.testing.assert_array_equal(late.features[31:], market.features[30:49])
    assert np.isnan(late.features[[0, 30]]).all()
    np.testing.assert_array_equal(late.ready, market.ready + 1)


def test_two_results_are_compared_on_the_bars_that_both_have():
    """A history that is listed within the judged bars starts a bar later when its features do."""
    late = walk(140, seed=1, name="B")
    late = dataclasses.replace(late, times=late.times + np.timedelta64(860 * 24 + 12, "h"))
    market = Market.from_bars((walk(), late), features=["log_return_5"])
    judged = [SETTINGS.split(one)[1] for one in (market, delay_features(market))]
    bars = [[part.segments[i, 2] - part.first_decisions(1)[i] for i in range(2)] for part in judged]
    assert bars[0][0] == bars[1][0]
    assert bars[0][1] == bars[1][1] + 1
    one, two = (np.array(x, "datetime64[D]") for x in (["2020-01-01", "2020-01-02", "2020-01-03"], ["2020-01-02"]))
    results = [
        HoldoutResult(np.arange(1.0, 1 + len(times)), times, 0.0, judged[0], Costs(), Rules()) for times in (one, two)
    ]
    assert [x.tolist() for x in excess_on_shared_bars(*results)] == [[2.0], [1.0]]


def test_statistics_by_hand():
    values = np.array([1.0, 2.0, 4.0])
    # mean 7/3, squares of the differences (16 + 1 + 25) / 9, over 2: deviation sqrt(7/3)
    assert t_statistic(values) == pytest.approx((7 / 3) / np.sqrt(7 / 3) * np.sqrt(3))
    assert t_statistic(np.zeros(5)) == 0
    times = [np.array([1, 2, 3]), np.array([2, 3, 4])]
    every, means = _mean_by_time(times, [np.array([1.0, 2, 3]), np.array([4.0, 5, 6])])
    np.testing.assert_array_equal(every, [1, 2, 3, 4])
    np.testing.assert_array_equal(means, [1, 3, 4, 6])


def test_costs_are_at_most_a_tenth_of_the_mean_move():
    market = Market.from_bars(walk(), features=["noise"])
    assert CheckSettings().affordable_costs(market) == Costs(fee=1e-4, slippage=5e-4)
    calm = CheckSettings().affordable_costs(Market.from_bars(walk(deviation=0.0005), features=["noise"]))
    # sd of the move between opens: sqrt(1 + 2 / 16) deviations. Its mean size is sqrt(2 / pi) of that
    expected = 0.1 * 0.0005 * np.sqrt(1.125 * 2 / np.pi)
    assert calm.fee + calm.slippage == pytest.approx(expected, rel=0.1)
    assert calm.slippage == pytest.approx(5 * calm.fee)
    assert CheckSettings(costs=Costs(fee=None, slippage=0.0)).affordable_costs(market) == Costs(fee=0.0, slippage=0.0)


def test_all_other_costs_of_the_user_are_charged_as_they_are():
    market = Market.from_bars(walk(deviation=0.0005), features=["noise"])
    kept = {"cash_rate": 0.02, "borrow_rate": 0.05, "short_rate": 0.03, "min_fee": 1.0, "rebates": ("short_rate",)}
    costs = CheckSettings(costs=Costs(fee=1e-3, slippage=3e-3, maker_fee=2e-3, **kept)).affordable_costs(market)
    assert costs.to_dict() == Costs(fee=costs.fee, slippage=costs.slippage, maker_fee=costs.maker_fee, **kept).to_dict()
    assert costs.fee < 1e-4
    assert [costs.slippage / costs.fee, costs.maker_fee / costs.fee] == pytest.approx([3, 2])


@pytest.mark.parametrize("fee", [-1e-4, -2e-4])
def test_a_rebate_stays_a_rebate(fee):
    given = Costs(fee=fee, slippage=1e-4, rebates=("fee",))
    assert CheckSettings(costs=given).affordable_costs(Market.from_bars(walk(), features=["noise"])) == given


def test_too_few_bars_are_one_sentence():
    for check in (delayed, oracle, shuffled, run):
        with pytest.raises(
            DataError, match=r"has 205 bars to train on and 90 to judge on; the checks need 256 and 128"
        ):
            check(walk(300), ["log_return_5"])
    assert run(walk(300), ["log_return_5"], only=["past_only"])[0].passed
    with pytest.raises(ValueError, match=r"must be within \[-1, 1\], and 2 is not"):
        run(walk(), HONEST, CheckSettings(positions=(0.0, 2.0)))
