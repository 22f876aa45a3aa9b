"""The file of looks: what counts as the same bars and the same policy, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from evaluation.priced_markets import busy, market_of, random_bars

from jaxtrader.evaluation import looks
from jaxtrader.evaluation.simulate import simulate
from jaxtrader.files import FileError


@pytest.fixture(scope="module")
def market():
    return market_of(random_bars(), symbol="X")


@pytest.fixture(scope="module")
def look(market):
    return looks.look_at(market, simulate(market, busy()), b"policy", "runs/x-0001")


def test_a_look_is_known_by_its_bars(market, look):
    other = looks.look_at(market, simulate(market, 1.0), b"other", "runs/x-0002")
    assert other.bars == look.bars
    assert other.policy != look.policy
    moved = market_of(random_bars(1), symbol="X")
    assert looks.look_at(moved, simulate(moved, busy()), b"policy", "").bars != look.bars
    renamed = market_of(random_bars(), symbol="Y")
    assert looks.look_at(renamed, simulate(renamed, busy()), b"policy", "").bars != look.bars


def test_the_file_keeps_every_look_and_gives_those_at_the_same_bars(look, tmp_path: Path):
    folder = tmp_path / "runs"
    assert looks.record(folder, look) == [look]
    looks.record(folder, dataclasses.replace(look, bars="others"))
    assert looks.record(folder, look) == [look, look]
    assert len(looks.read(folder / looks.NAME)) == 3


def test_the_same_policy_twice_is_one_trial(look):
    ratios = [0.1, 0.2, 0.9]
    tried = [dataclasses.replace(look, policy=str(i), sharpe=ratio) for i, ratio in enumerate(ratios)]
    found = looks.trials([*tried, tried[0]], bars=100, elsewhere=5)
    assert found == looks.Trials(looks=4, count=8, variance=pytest.approx(np.var(ratios, ddof=1)))
    assert looks.trials(tried[:1], bars=100) == looks.Trials(looks=1, count=1, variance=0.01)


def test_an_account_without_a_ratio_is_a_trial_too(market):
    flat = looks.look_at(market, simulate(market, 0.0), b"flat", "")
    assert flat.sharpe is None
    assert looks.trials([flat], bars=50).count == 1


def test_a_line_that_a_killed_process_left_is_passed_over(look, tmp_path: Path):
    looks.record(tmp_path, look)
    with (tmp_path / looks.NAME).open("a") as file:
        file.write('{"bars": "half a li')
    assert looks.read(tmp_path / looks.NAME) == [look]
    assert looks.record(tmp_path, look) == [look, look]


@pytest.mark.parametrize(
    "line", ["{}", "[1]", "time,open", '{"bars": 1, "policy": "", "sharpe": 0.1, "run": "", "time": ""}']
)
def test_a_file_of_another_program_is_refused_and_kept(line, look, tmp_path: Path):
    path = tmp_path / looks.NAME
    path.write_text(f"{line}\n")
    with pytest.raises(FileError, match="line 1"):
        looks.record(tmp_path, look)
    assert path.read_text() == f"{line}\n"


def test_a_negative_number_of_trials_is_refused(look):
    with pytest.raises(ValueError, match="-1"):
        looks.trials([look], bars=10, elsewhere=-1)


def test_few_tries_of_one_idea_vary_at_least_as_chance_does(look):
    alike = [dataclasses.replace(look, policy=str(i), sharpe=0.1 + i / 1e4) for i in range(3)]
    assert looks.trials(alike, bars=50).variance == 1 / 50
