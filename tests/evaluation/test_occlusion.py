"""The parts of a row, and the copies of it that lack one."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from robustmm.data.frame import read_rows
from robustmm.evaluation._occlusion import (
    PLACEHOLDER,
    OneRow,
    cover,
    grid_regions,
    leave_out,
    text_words,
)

# Words and regions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, []),
        ("one", ["one"]),
        ("  a cat,\n two\tdogs ", ["a", "cat,", "two", "dogs"]),
        ("雪 が降る", ["雪", "が降る"]),
    ],
)
def test_words_are_what_stands_between_blanks(text, words):
    found = text_words(text, 200)
    assert found["word"].tolist() == words
    for word, start, stop in found.itertuples(index=False):
        assert text[start:stop] == word


def test_neighbouring_words_of_a_long_text_go_together():
    text = " ".join(map(str, range(10)))
    found = text_words(text, 4)
    assert found["word"].tolist() == ["0 1 2", "3 4 5", "6 7 8", "9"]
    assert len(text_words(text, 1)) == 1


def test_no_text_is_left_blank():
    text = "  a cat\nand a dog "
    left = [leave_out(text, *span) for span in text_words(text, 9).to_numpy()[:, 1:]]
    assert left[0] == "cat\nand a dog"
    assert left[1] == "a and a dog"
    assert left[-1] == "a cat\nand a"
    assert leave_out(" cat ", 1, 4) == PLACEHOLDER
    assert PLACEHOLDER.strip()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 4), (50, 50)])
def test_regions_are_a_picture_without_gaps_or_overlaps(shape):
    image = Image.new("RGB", (11, 7))
    regions = grid_regions(image, shape)
    assert len(regions) == min(shape[0], 7) * min(shape[1], 11)
    seen = np.zeros((7, 11), dtype=int)
    for _, _, left, top, right, bottom in regions.to_numpy():
        assert right > left
        assert bottom > top
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()


def test_covering_leaves_the_picture_and_the_rest():
    image = Image.new("RGB", (4, 2), "white")
    covered = np.asarray(cover(image, (1, 0, 3, 1), (9, 8, 7)))
    assert (np.asarray(image) == 255).all()
    assert covered[0, 1:3].tolist() == [[9, 8, 7]] * 2
    assert (covered == 255).all(axis=2).sum() == 6


# Tables -----------------------------------------------------------------------------


def one_row(X):
    return OneRow(X, read_rows(X), "image", "text")


PICTURE = Image.new("RGB", (2, 2))
OTHER = Image.new("RGB", (2, 2), "red")


@pytest.mark.parametrize(
    "row",
    [
        {"image": PICTURE, "text": "a", "price": 3.5},
        pd.Series({"image": PICTURE, "text": "a", "price": 3.5}, name="x"),
        [{"image": PICTURE, "text": "a", "price": 3.5}],
        pd.DataFrame({"price": [3.5], "text": ["a"], "image": [PICTURE]}, index=["x"]),
    ],
    ids=["dict", "series", "records", "frame"],
)
def test_other_columns_are_repeated_with_their_types(row):
    found = one_row(row).table([(PICTURE, "a"), (None, "b"), (OTHER, None)])
    assert found["image"].tolist() == [PICTURE, None, OTHER]
    assert found["text"].tolist()[:2] == ["a", "b"]
    assert found["text"].isna().tolist() == [False, False, True]
    assert found["price"].tolist() == [3.5] * 3
    assert found["price"].dtype == float
    assert found.index.tolist() == [0, 1, 2]


def test_an_array_stays_one():
    array = np.array([[PICTURE, "a"]], dtype=object)
    found = one_row(array).table([(OTHER, "b")])
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [[OTHER, "b"]]


def test_a_column_of_texts_stays_one():
    X = pd.DataFrame({"image": [PICTURE], "text": ["a"]}).astype({"text": "string"})
    found = one_row(X).table([(PICTURE, "b"), (PICTURE, None)])
    assert found["text"].dtype == "string"
    assert found["text"].isna().tolist() == [False, True]


@pytest.mark.parametrize("null", [None, np.nan, pd.NA, "  "])
def test_a_missing_cell_stays_the_null_that_it_was(null):
    X = pd.DataFrame({"image": [PICTURE], "text": [null]}, dtype=object)
    found = one_row(X).table([(OTHER, None), (PICTURE, None)])
    assert all(cell is null for cell in found["text"])


def test_one_copy_without_a_cell_lacks_it():
    # Large photographs make tables of one row.
    row = one_row({"image": PICTURE, "text": "a"})
    assert row.removable == ["image", "text"]
    assert row.table([(None, "a")])["image"].tolist() == [None]
    assert row.table([(PICTURE, None)])["text"].isna().tolist() == [True]


def test_only_of_two_can_one_be_taken_away():
    assert one_row({"image": None, "text": "a"}).removable == []
    assert one_row({"image": PICTURE, "text": ""}).removable == []


def test_broken_unicode_is_text_as_well():
    row = {"image": PICTURE, "text": "a \ud800 cat"}
    assert text_words(row["text"], 9)["word"].tolist() == ["a", "\ud800", "cat"]
    for X in (row, pd.Series(row, dtype=object), [row]):
        assert one_row(X).table([(PICTURE, "b \ud800")])["text"][0] == "b \ud800"
