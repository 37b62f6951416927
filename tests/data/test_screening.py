"""Bad images and empty rows: named by label, raised or blanked, warned of once."""

import warnings

import pytest

from robustmm.data import Rows
from robustmm.data.screening import (
    missing_report,
    report_bad_images,
    report_damage,
    warn,
    warn_of_empty_rows,
    without_images,
)

ROWS = Rows(
    ["a.png", b"", None, "b.png", None],
    ["a cat", "a dog", "a cow", None, None],
    ["first", ("movie", 7), 2, 2, "none"],
)
BAD = {3: "no such file", 1: "it is empty"}


def said(call, *args):
    """What a call returns, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*args)
    return result, [str(warning.message) for warning in caught]


def test_all_bad_images_are_one_error():
    with pytest.raises(ValueError, match="2 image cells cannot be read") as error:
        report_bad_images(ROWS, BAD, "raise")
    assert str(error.value) == (
        "2 image cells cannot be read: row ('movie', 7): it is empty; row 2: no such "
        'file. Pass on_bad_image="missing" to treat them as missing.'
    )


def test_or_one_warning():
    _, messages = said(report_bad_images, ROWS, BAD, "missing")
    assert messages == [
        "2 image cells cannot be read, taken as missing: row ('movie', 7): it is "
        "empty; row 2: no such file"
    ]


@pytest.mark.parametrize("action", ["raise", "missing"])
def test_no_bad_image_is_not_reported(action):
    assert said(report_bad_images, ROWS, {}, action) == (None, [])


def test_at_most_ten_are_named():
    rows = Rows([b""] * 13, [None] * 13, list(range(13)))
    _, (message,) = said(report_bad_images, rows, dict.fromkeys(range(13), "x"), "")
    assert message.count("row") == 10
    assert message.endswith("(and 3 more)")


def test_bad_images_are_blanked_in_a_copy():
    blanked = without_images(ROWS, BAD)
    assert blanked.images == ["a.png", None, None, None, None]
    assert (blanked.texts, blanked.index) == (ROWS.texts, ROWS.index)
    assert ROWS.images[1] == b""
    assert without_images(ROWS, {}) is ROWS


def test_the_report_counts_patterns_and_names_rows():
    assert missing_report(without_images(ROWS, BAD), BAD) == {
        "complete": 1,
        "text_missing": 0,
        "image_missing": 2,
        "both_missing": 2,
        "bad_images": {("movie", 7): "it is empty", 2: "no such file"},
    }


def test_damage_is_added_to_the_report():
    before = missing_report(
        without_images(ROWS, {1: "it is empty"}), {1: "it is empty"}
    )
    rows = without_images(ROWS, {1: "it is empty"})
    report, (message,) = said(report_damage, rows, {3: "no such file"}, before)
    what = "1 image cells were damaged while training, taken as missing"
    assert message == f"{what}: row 2: no such file"
    assert report == missing_report(without_images(ROWS, BAD), BAD)
    assert before["bad_images"] == {("movie", 7): "it is empty"}
    assert said(report_damage, rows, {}, before) == (before, [])


def test_empty_rows_are_warned_of():
    empty, (message,) = said(warn_of_empty_rows, ROWS)
    assert empty.tolist() == [False, False, False, False, True]
    assert message.startswith("1 of 5 rows have neither image nor text: their predict")
    _, (message,) = said(warn_of_empty_rows, ROWS, True)
    assert "they count in the class prior and train nothing else" in message
    full, messages = said(warn_of_empty_rows, ROWS.take([0, 3]))
    assert (full.tolist(), messages) == ([False, False], [])


def test_a_fit_needs_a_row_with_something():
    nothing = ROWS.take([4, 4])
    with pytest.raises(ValueError, match=r"At least one row must .*got 2 rows"):
        warn_of_empty_rows(nothing, fitting=True)
    empty, _ = said(warn_of_empty_rows, nothing)
    assert empty.all()


def test_a_warning_points_at_the_callers_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("look here")
        warn_of_empty_rows(ROWS)
    assert {warning.filename for warning in caught} == {__file__}
    assert {warning.category for warning in caught} == {UserWarning}
