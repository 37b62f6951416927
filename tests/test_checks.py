"""Checks of parameters: which numbers, names and folders pass, and what is said."""

import math
from numbers import Integral, Real

import numpy as np
import pytest

from robustmm.checks import check_number


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(3), np.int64(2), 1e308])
def test_finite_numbers_of_any_type_pass(value):
    check_number("lr", value, Real, 0)


@pytest.mark.parametrize(
    ("value", "options", "interval"),
    [
        (math.inf, {}, r"\[0, inf\)"),
        (math.inf, {"open": "low"}, r"\(0, inf\)"),
        (np.float32("inf"), {}, r"\[0, inf\)"),
        (math.nan, {}, r"\[0, inf\)"),
        (-math.inf, {}, r"\[0, inf\)"),
        (math.inf, {"high": 1}, r"\[0, 1\]"),
        (math.nan, {"high": 1, "open": "both"}, r"\(0, 1\)"),
        (math.nan, {"finite": False}, r"\[0, inf\]"),
        (-0.5, {"finite": False, "open": "low"}, r"\(0, inf\]"),
    ],
)
def test_other_numbers_are_refused_with_the_rule_and_the_value(
    value, options, interval
):
    with pytest.raises(ValueError, match=rf"^lr must be in {interval}, got .+\.$"):
        check_number("lr", value, Real, 0, **options)


def test_infinity_passes_where_it_means_something():
    check_number("C", math.inf, Real, 0, open="low", finite=False)


@pytest.mark.parametrize("value", [True, "1", None, 1.5])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match="rank must be an integer, got"):
        check_number("rank", value, Integral, 1)
