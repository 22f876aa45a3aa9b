"""The file of evaluations: what counts as the same bars and the same policy, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation.priced_markets import busy, daily, market_of, market_of_one, random_table

from jaxtrader.evaluation import evaluation_log as log
from jaxtrader.evaluation.combined import combine
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.files import FileError

market = market_of_one


@pytest.fixture(scope="module")
def evaluation(market):
    return log.evaluation_of(market, simulate(market, busy()), b"policy", "runs/x-0001")


def test_an_evaluation_is_known_by_its_bars(market, evaluation):
    other = log.evaluation_of(market, simulate(market, 1.0), b"other", "runs/x-0002")
    assert other.bars == evaluation.bars
    assert other.policy != evaluation.policy
    moved = market_of(random_table(1), symbol="X")
    assert log.evaluation_of(moved, simulate(moved, busy()), b"policy", "").bars != evaluation.bars
    renamed = market_of(random_table(), symbol="Y")
    assert log.evaluation_of(renamed, simulate(renamed, busy()), b"policy", "").bars != evaluation.bars


def test_evaluations_of_the_same_bars_under_other_names_and_of_a_part_of_them_count(tmp_path: Path):
    bars = {name: random_table(seed, 400) for seed, name in enumerate("ABCD")}
    whole = market_of(bars)
    results = simulate(whole, dict.fromkeys(bars, 1.0))

    def evaluation(market, result, policy):
        return log.record(tmp_path, log.evaluation_of(market, result, policy, ""))

    assert len(evaluation(whole, combine(dict(results)), b"all")) == 1
    alone = market_of(bars["A"], symbol="renamed")
    assert len(evaluation(alone, simulate(alone, 1.0), b"one of four")) == 2
    early, late = alone.split(0.7, 0.3)
    assert len(evaluation(late, simulate(late, 1.0), b"the last third")) == 3
    tail = late.split(0.5, 0.5)[1]
    assert len(evaluation(tail, simulate(tail, 1.0), b"the last sixth")) == 4
    found = evaluation(early, simulate(early, 1.0), b"the years before")
    assert [one.policy for one in found] == [_digest(name) for name in (b"all", b"one of four", b"the years before")]
    assert log.trials(found, bars=10).overlapping == 2
    other = market_of(random_table(9, 400), symbol="A")
    assert len(evaluation(other, simulate(other, 1.0), b"other bars of the same name and days")) == 1
    again = evaluation(alone, simulate(alone, 0.5), b"again")
    assert again[-1].sample == "", "the file has the sample once"
    assert log.read(tmp_path / log.NAME)[-1] == again[-1]


def test_bars_are_known_again_beside_others_in_one_account(tmp_path: Path):
    """Aligned, an asset has rows without a bar."""
    bars = {"A": random_table(0, 200), "B": random_table(1, 200).drop(random_table(1, 200).index[50:60])}
    alone, both = market_of(bars["B"], symbol="B"), market_of(bars, align=True)
    log.record(tmp_path, log.evaluation_of(alone, simulate(alone, 1.0), b"one", ""))
    assert len(log.record(tmp_path, log.evaluation_of(both, simulate(both, [[0.5, 0.5]] * 200), b"both", ""))) == 2


def test_prices_that_stand_still_have_no_fingerprint(tmp_path: Path):
    still = {name: daily([price] * 50) for name, price in (("A", 1.0), ("B", 1.0))}
    for name, frame in still.items():
        market = market_of(frame, symbol=name)
        found = log.record(tmp_path, log.evaluation_of(market, simulate(market, 1.0), b"x", ""))
        assert (len(found), found[0].windows) == (1, 0)


def _with_wicks(seed: int, bars: int = 1200) -> pd.DataFrame:
    """A random walk of which each bar has twenty steps."""
    prices = 50 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.005, (bars, 20))).reshape(bars, 20))
    frame = daily(prices[:, 0], prices[:, -1])
    return frame.assign(high=prices.max(1), low=prices.min(1))


def _adjusted(frame: pd.DataFrame, every: int, split: float, digits: int) -> pd.DataFrame:
    """As a vendor adjusts all prices before each dividend and before a split at bar 900, and rounds them."""
    factor = np.ones(len(frame))
    for row in range(40, len(frame), every):
        factor[:row] *= 1 - 0.006
    factor[:900] /= split
    prices = frame.columns.drop("volume")
    return frame.assign(**(frame[prices] * factor[:, None]).round(digits))


@pytest.mark.parametrize("bars", [random_table, _with_wicks])
@pytest.mark.parametrize(("every", "split", "digits"), [(63, 1, 2), (63, 1, 4), (4, 1, 3), (21, 20, 3), (21, 0.1, 2)])
def test_prices_that_were_adjusted_anew_are_the_same_bars(bars, every, split, digits, tmp_path: Path):
    """Each dividend scales all prices before it, a split more so, and files round them. Either file may come first."""
    frames = [frame.round(2) for frame in (bars(3, 1200), bars(4, 1200))]
    anew = [_adjusted(frame, every, split, digits) for frame in frames]
    for way, files in enumerate(([frames[0], frames[1], anew[0]], [anew[0], anew[1], frames[0]])):
        for i, (file, evaluations) in enumerate(zip(files, (1, 1, 2), strict=True)):
            market = market_of(file, symbol="X")
            evaluation = log.evaluation_of(market, simulate(market, 1.0), bytes([i]), "")
            found = log.record(tmp_path / str(way), evaluation)
            assert len(found) == evaluations
        assert log.trials(found, 1200).overlapping == 1


def test_a_dividend_does_not_change_the_marks_of_bars_with_a_range():
    """All but those of the few eight bars that have too few shapes, whose marks are of the prices."""
    frame = _with_wicks(1)
    one, other = (
        log._fingerprints(market_of(each, symbol="X"), slice(0, 1200)) for each in (frame, _adjusted(frame, 3, 4, 15))
    )
    assert np.isin(one, other).mean() > 0.95


def test_bars_that_only_resemble_each_other_are_others(tmp_path: Path):
    """Companies of one market move together: nine tenths of their variance is common here."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.01, 3000)
    for i in range(6):
        close = 50 * np.exp(np.cumsum(common + rng.normal(0, 0.0033, 3000)))
        market = market_of(daily(close.tolist()), symbol=f"S{i}")
        assert len(log.record(tmp_path, log.evaluation_of(market, simulate(market, 1.0), b"x", ""))) == 1


def test_bars_with_a_large_tick_are_known_by_their_prices(tmp_path: Path):
    """Eight closes of few levels have one shape in many places."""
    rng = np.random.default_rng(1)
    walks = [begin + np.cumsum(rng.integers(-1, 2, 3000)) for begin in (500, 900)]
    for i, (walk, evaluations) in enumerate(((walks[0], 1), (walks[1], 1), (walks[0][1000:], 2))):
        market = market_of(daily((0.01 * walk).tolist()), symbol="X")
        evaluation = log.evaluation_of(market, simulate(market, 1.0), bytes([i]), "")
        assert len(log.record(tmp_path, evaluation)) == evaluations


def _digest(policy: bytes) -> str:
    return hashlib.sha256(policy).hexdigest()[:24]


def test_the_file_keeps_every_evaluation_and_gives_those_of_the_same_bars(evaluation, tmp_path: Path):
    folder = tmp_path / "runs"
    assert log.record(folder, evaluation) == [evaluation]
    log.record(folder, dataclasses.replace(evaluation, bars="others", sample=""))
    assert log.record(folder, evaluation) == [evaluation, evaluation]
    assert len(log.read(folder / log.NAME)) == 3


def test_the_same_policy_twice_is_one_trial(evaluation):
    ratios = [0.1, 0.2, 0.9]
    tried = [dataclasses.replace(evaluation, policy=str(i), sharpe=ratio) for i, ratio in enumerate(ratios)]
    found = log.trials([*tried, tried[0]], bars=100, elsewhere=5)
    assert found == log.Trials(evaluations=4, count=8, variance=pytest.approx(np.var(ratios, ddof=1)))
    assert log.trials(tried[:1], bars=100) == log.Trials(evaluations=1, count=1, variance=0.01)


def test_an_account_without_a_ratio_is_a_trial_too(market):
    flat = log.evaluation_of(market, simulate(market, 0.0), b"flat", "")
    assert flat.sharpe is None
    assert log.trials([flat], bars=50).count == 1


def test_a_line_that_a_killed_process_left_is_passed_over(evaluation, tmp_path: Path):
    log.record(tmp_path, evaluation)
    with (tmp_path / log.NAME).open("a") as file:
        file.write('{"bars": "half a li')
    assert log.read(tmp_path / log.NAME) == [evaluation]
    assert log.record(tmp_path, evaluation) == [evaluation, evaluation]


@pytest.mark.parametrize(
    "line", ["{}", "[1]", "time,open", '{"bars": 1, "policy": "", "sharpe": 0.1, "run": "", "time": ""}']
)
def test_a_file_of_another_program_is_refused_and_kept(line, evaluation, tmp_path: Path):
    path = tmp_path / log.NAME
    path.write_text(f"{line}\n")
    with pytest.raises(FileError, match="line 1"):
        log.record(tmp_path, evaluation)
    assert path.read_text() == f"{line}\n"


def test_a_negative_number_of_trials_is_refused(evaluation):
    with pytest.raises(ValueError, match="-1"):
        log.trials([evaluation], bars=10, elsewhere=-1)


def test_few_tries_of_one_idea_vary_at_least_as_chance_does(evaluation):
    alike = [dataclasses.replace(evaluation, policy=str(i), sharpe=0.1 + i / 1e4) for i in range(3)]
    assert log.trials(alike, bars=50).variance == 1 / 50
