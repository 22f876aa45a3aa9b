"""Walk-forward folds: the rows are those of skfolio and purgedcv, parts never overlap, and bad lengths are refused."""

from __future__ import annotations

import numpy as np
import pytest
from market.price_tables import frame, market_of

from jaxtrader.market.bars import load_bars
from jaxtrader.market.folds import Fold, walk_forward_folds
from jaxtrader.market.market import Market


def rows(fold: Fold) -> tuple[int, ...]:
    """First and last row of training with validation, and of the test."""
    learnt = [part for part in (fold.train, fold.valid) if part is not None]
    first, last, test = learnt[0].segments[0], learnt[-1].segments[0], fold.test.segments[0]
    return int(first[1]), int(last[2]) - 1, int(test[1]), int(test[2]) - 1


HUNDRED = market_of(frame(100, start="2024-01-01"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # skfolio 1.12.2: WalkForward(train_size=40, test_size=15, reduce_test=True). purgedcv 0.1.11: the same rows by
        # WalkForwardSplit(4, 15, window="sliding", train_size=40).
        (
            {"train": 40, "test": 15},
            [(0, 39, 40, 54), (15, 54, 55, 69), (30, 69, 70, 84), (45, 84, 85, 99)],
        ),
        # skfolio: expand_train=True, purged_size=3. Its train_size=40 ends where the purge of these 43 bars begins.
        (
            {"train": 43, "test": 15, "anchored": True, "embargo": 3},
            [(0, 39, 43, 57), (0, 54, 58, 72), (0, 69, 73, 87), (0, 84, 88, 99)],
        ),
    ],
    ids=["rolling", "anchored"],
)
def test_the_rows_are_those_of_skfolio_and_purgedcv(settings, expected):
    assert [rows(fold) for fold in walk_forward_folds(HUNDRED, valid=0, **settings)] == expected


def test_a_number_of_folds_divides_the_second_half_into_tests():
    found = [rows(fold) for fold in walk_forward_folds(HUNDRED, 4, anchored=True)]
    assert [test for *_, test, _ in found] == [50, 63, 76, 88]
    assert found[-1][-1] == 99
    assert len(walk_forward_folds(HUNDRED)) == 5


def test_durations_are_of_the_calendar():
    market = market_of(frame(800, start="2020-01-31"))
    found = walk_forward_folds(market, train="1y", test="1mo")
    # The first test begins a year after the first bar. The later ones count months from there.
    begins = [str(fold.test.times[fold.test.segments[0, 1]])[:10] for fold in found[:3]]
    assert begins == ["2021-01-31", "2021-02-28", "2021-03-31"]
    assert all(str(fold.train.times[fold.train.segments[0, 1]])[:7] for fold in found)
    assert str(found[2].train.times[found[2].train.segments[0, 1]])[:10] == "2020-03-31"


def test_tests_begin_at_the_dates_that_are_given():
    found = walk_forward_folds(HUNDRED, test=["2024-02-20", "2024-03-20"], train=30)
    assert [rows(fold) for fold in found] == [(20, 49, 50, 78), (49, 78, 79, 99)]


def test_validation_is_the_end_of_the_training():
    (fold,) = walk_forward_folds(HUNDRED, 1, valid=0.2, embargo=2)
    assert fold.valid is not None
    assert fold.train.segments[0].tolist() == [0, 0, 38]
    assert fold.valid.segments[0].tolist() == [0, 40, 48]
    assert fold.test.segments[0].tolist() == [0, 50, 100]


def test_all_symbols_are_cut_at_the_same_times_and_share_their_arrays():
    market = market_of(frame(100, start="2024-01-01"), frame(29, start="2024-02-01"))
    found = walk_forward_folds(market, 3, train="40d", valid=0)
    for fold in found:
        assert fold.test.features is market.features
        learnt = fold.train.times[fold.train.segments[:, 2] - 1].max()
        assert learnt < fold.test.times[fold.test.segments[:, 1]].min()
    assert [fold.test.symbols for fold in found] == [("S0", "S1"), ("S0",), ("S0",)]


@pytest.mark.parametrize(
    ("settings", "offence"),
    [
        ({"train": 0}, "train=0"),
        ({"train": 2.5}, "train=2.5"),
        ({"train": True}, "train=True"),
        ({"test": 2.5}, "or the dates at which the tests begin"),
        ({"train": "soon"}, "soon"),
        ({"train": "0d"}, "0d"),
        ({"train": "900y"}, "900y"),
        ({"train": 200, "test": 10}, "200"),
        ({"train": 95, "folds": 6}, "leaves 5 bars to test on, and 6 folds need one each"),
        ({"train": "99y"}, "train='99y'` leaves no bar"),
        ({"folds": 2, "test": 5}, "leave one out"),
        ({"valid": 1.0}, "valid=1"),
        ({"train": 10, "test": 10, "embargo": 10}, "training of fold 1"),
        ({"test": ["2024-03-01", "2024-02-01"]}, "in order"),
        ({"test": ["2023-01-01"], "train": 10}, "training of fold 1"),
        ({"test": "2mo", "train": "20y"}, "no bar"),
    ],
)
def test_what_gives_no_folds_is_refused(settings, offence):
    with pytest.raises(ValueError, match=offence):
        walk_forward_folds(HUNDRED, **settings)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[("folds", value) for value in (0, 2.7, True, "3")],
        *[("valid", value) for value in ("a", True)],
        *[("embargo", value) for value in (-1, 1.5, "1", True)],
        ("anchored", "no"),
    ],
)
def test_a_setting_of_a_wrong_type_is_refused_by_name(name, wrong):
    with pytest.raises(ValueError, match=f"`{name}={wrong!r}` must be"):
        walk_forward_folds(HUNDRED, **{name: wrong})


def test_numbers_of_numpy_are_numbers():
    settings = {"train": np.int64(40), "test": np.int32(15), "valid": np.float32(0.2), "embargo": np.int8(1)}
    plain = {name: value.item() for name, value in settings.items()}
    assert [rows(fold) for fold in walk_forward_folds(HUNDRED, **settings)] == [
        rows(fold) for fold in walk_forward_folds(HUNDRED, **plain)
    ]
    assert len(walk_forward_folds(HUNDRED, np.int64(3))) == 3


def test_bars_that_are_no_market_are_refused():
    with pytest.raises(ValueError, match="needs a Market, not a DataFrame; make one"):
        walk_forward_folds(frame(100), 2)


def test_dates_and_durations_are_of_the_wall_clock_of_the_market():
    days = frame(300, start="2023-12-01")
    for zone in ("Asia/Tokyo", "America/New_York"):  # at the end of March, clocks of New York have gone forward
        market = Market.from_bars(load_bars(days, tz=zone), features=["log_return_1"])
        by_date = walk_forward_folds(market, test=["2024-04-01"], valid=0)
        by_length = walk_forward_folds(market, train="4mo", test="6mo", valid=0)
        for fold in (by_date[0], by_length[0]):
            assert rows(fold)[2] == days.index.get_loc("2024-04-01")
