import math
from fractions import Fraction

import numpy as np
import pytest

from jaxtrader.setting_checks import check_flag, check_number, check_type, check_whole, is_number, is_whole


@pytest.mark.parametrize("value", [0, -3, 1.5, math.nan, math.inf, np.float32(2), np.int64(2), Fraction(1, 2)])
def test_real_numbers_of_python_and_numpy_are_numbers(value):
    assert is_number(value)
    check_number("lam", value)


@pytest.mark.parametrize("value", ["a", "1", None, True, np.bool_(True), [1.0], np.zeros(1), 1j])
def test_all_else_is_refused_by_the_name_of_the_setting(value):
    assert not is_number(value)
    with pytest.raises(ValueError, match=r"lam=.* must be a number"):
        check_number("lam", value)


@pytest.mark.parametrize("value", [1, 5, np.int32(3), np.uint8(2)])
def test_whole_numbers_within_their_limits_pass(value):
    assert is_whole(value)
    assert type(check_whole("window", value, most=5)) is int
    assert check_whole("window", value, most=5) == value


@pytest.mark.parametrize("value", [0, 6, -1, 2.0, 1.5, "2", None, True, np.float64(2), math.nan])
def test_a_number_that_is_not_whole_or_outside_its_limits_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"window=.* must be a whole number of bars, from 1 to 5"):
        check_whole("window", value, most=5, unit="bars")


def test_a_limit_that_is_not_given_does_not_count():
    check_whole("seed", 0, least=0)
    check_whole("steps", 10**30)
    with pytest.raises(ValueError, match=r"^`seed=-1` must be a whole number, at least 0$"):
        check_whole("seed", -1, least=0)


def test_a_float_without_a_fraction_is_told_as_the_integer_to_write():
    with pytest.raises(ValueError, match=r"total_steps=1000000.0` must be a whole number, at least 1; write 1000000$"):
        check_whole("total_steps", 1e6)


@pytest.mark.parametrize("value", [1, 0, "yes", None, np.zeros(1)])
def test_a_flag_is_true_or_false(value):
    check_flag("progress", True)
    check_flag("progress", False)
    with pytest.raises(ValueError, match=r"progress=.* must be True or False"):
        check_flag("progress", value)


def test_an_object_of_another_type_is_refused_with_both_types():
    check_type("walk_forward", 1.5, float, "give one")
    with pytest.raises(ValueError, match=r"^walk_forward needs a float, not an int; give one$"):
        check_type("walk_forward", 1, float, "give one")
    with pytest.raises(ValueError, match=r"^walk_forward needs an int, not the class int; give one$"):
        check_type("walk_forward", int, int, "give one")
