"""What rows may lose: how many, in which rows, and which choices are refused."""

import numpy as np
import pytest

from robustmm.evaluation._draws import (
    availability,
    availability_table,
    holes,
    holes_or_none,
    training_holes,
)
from robustmm.missingness import missing_table


def counts(codes):
    """Rows that are complete, without text, without image."""
    return np.bincount(codes, minlength=3).tolist()


# Rates and scenarios ----------------------------------------------------------------


def test_a_draw_is_the_missing_table_of_its_seed():
    draw = holes(0.7, "both")
    expected = missing_table(40, 0.7, "both", random_state=3)
    np.testing.assert_array_equal(draw(40, random_state=3, groups=None), expected)
    assert counts(draw(40, random_state=3)) == [12, 14, 14]


@pytest.mark.parametrize(
    ("rate", "scenario", "message"),
    [
        (1.1, "both", r"\[0, 1\], got 1.1"),
        (0.5, "complete", "got 'complete'"),
        (0.5, "audio", "got 'audio'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_it_is_drawn(rate, scenario, message):
    with pytest.raises(ValueError, match=message):
        holes(rate, scenario)


def test_complete_takes_nothing_away():
    assert holes_or_none(0.7, "complete") is None
    assert counts(holes_or_none(0.5, "image")(10, random_state=0)) == [5, 0, 5]
    with pytest.raises(ValueError, match=r"'both', 'complete'.* got 'none'"):
        holes_or_none(0.7, "none")
    with pytest.raises(ValueError, match=r"\[0, 1\], got 2"):
        holes_or_none(2, "complete")


# Training rows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_rate", "train_scenario", "key"),
    [
        ("same", None, (0.3, "text")),
        ("same", "image", (0.3, "image")),
        (0.6, None, (0.6, "text")),
        (0.0, "both", (0.0, "both")),
    ],
)
def test_training_rows_lose_as_much_or_what_is_said(train_rate, train_scenario, key):
    found, draw = training_holes(0.3, "text", train_rate, train_scenario)
    assert found == key
    expected = missing_table(20, *key, random_state=1)
    np.testing.assert_array_equal(draw(20, random_state=1), expected)


def test_curves_share_the_fit_on_rows_that_lose_nothing_or_the_same():
    assert training_holes(0.3, "text", None, None) == ((), None)
    keys = [training_holes(rate, "text", 0.5, "both")[0] for rate in (0.1, 0.9)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("train_rate", "train_scenario", "message"),
    [
        (None, "text", "train_scenario needs a train_rate, got train_rate=None"),
        ("all", None, r'None, "same" or a number in \[0, 1\], got \'all\''),
        (1.5, None, r"\[0, 1\], got 1.5"),
        (0.5, "audio", "got 'audio'"),
    ],
)
def test_training_rows_that_cannot_be_drawn(train_rate, train_scenario, message):
    with pytest.raises(ValueError, match=message):
        training_holes(0.3, "text", train_rate, train_scenario)


# Availability -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        (1.0, 1.0, [20, 0, 0]),
        (0.0, 1.0, [0, 0, 20]),
        (1.0, 0.0, [0, 20, 0]),
        (0.65, 0.65, [6, 7, 7]),
        (0.5, 0.5, [0, 10, 10]),
        (0.97, 1.0, [20, 0, 0]),  # less than a row
    ],
)
def test_the_shares_are_exact_and_no_row_loses_both(image, text, expected):
    assert counts(availability_table(20, image, text, random_state=0)) == expected


@pytest.mark.parametrize("share", [0.65, 0.7, 0.9, 0.35])
def test_no_row_is_lost_to_rounding(share):
    for n in (100, 1000):
        lost = counts(availability_table(n, share, 1.0, random_state=0))[2]
        assert lost == round(n * (1 - share))


def test_a_seed_gives_the_same_table_again():
    first, again, other = (availability_table(50, 0.7, 0.7, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_group_loses_the_same_and_shares_are_of_groups():
    groups = np.repeat(list("abcdefghij"), 3)
    codes = availability_table(30, 0.8, 0.7, random_state=0, groups=groups)
    assert counts(codes) == [15, 9, 6]
    assert all(len(set(codes[groups == group])) == 1 for group in set(groups))


def test_no_rows_no_codes():
    assert availability_table(0, 0.5, 0.5).shape == (0,)
    assert availability_table(0, 0.5, 0.5, groups=[]).shape == (0,)


@pytest.mark.parametrize("pair", [(0.7, 0.8), [1, 0], np.array([0.5, 0.5])])
def test_a_pair_is_a_draw(pair):
    codes = availability("availability", pair)(20, random_state=0, groups=None)
    assert (codes != 2).mean() == pytest.approx(pair[0])
    assert (codes != 1).mean() == pytest.approx(pair[1])


@pytest.mark.parametrize("pair", ["ab", 1.0, None, (1.0,), (1, 1, 1), {0: 1, 1: 1}])
def test_what_is_no_pair_is_refused(pair):
    with pytest.raises(ValueError, match=r"train must be \(image, text\), two shares"):
        availability("train", pair)


def test_shares_must_leave_every_row_something():
    with pytest.raises(ValueError, match=r"at least 1, got \(0.4, 0.5\)"):
        availability("availability", (0.4, 0.5))
    # 0.35 + 0.65 falls short of 1 by a rounding error at most.
    availability("availability", (0.1 + 0.25, 0.65))
    with pytest.raises(ValueError, match=r"share of images must be .* got -0.1"):
        availability("availability", (-0.1, 1.0))


def test_shares_of_three_modalities():
    three = ("image", "text", "audio")
    draw = availability("availability", (0.8, 0.7, 0.6), three)
    # Powers of two from the last to the first.
    assert np.bincount(draw(20)).tolist() == [2, 8, 6, 0, 4]
    with pytest.raises(ValueError, match=r"3 shares .* sum to at least 2"):
        availability("availability", (0.6, 0.6, 0.6), three)
