"""Availability grids on estimators whose scores can be worked out by hand."""

import numpy as np
import pytest
from evaluation_cases import HALVES, Reader, count_holes, labelled_cells

from robustmm import availability_grid

HOLES = {
    f"{rows} {column}": count_holes(column, rows)
    for rows in ("train", "test")
    for column in ("image", "text")
}


def test_availability_grid_gives_the_shares_of_the_test_rows():
    X, y = labelled_cells()
    pairs = [(1.0, 0.3), (0.65, 0.65), (0.3, 1.0), (0.0, 1.0), (0.5, 0.8), (1, 1)]
    grid = availability_grid(
        Reader(), X, y, availability=pairs, cv=HALVES, scoring=HOLES, random_state=0
    )
    assert list(zip(grid["image"], grid["text"], strict=True)) == pairs
    assert grid["test image"].tolist() == [0, 7, 14, 20, 10, 0]
    assert grid["test text"].tolist() == [14, 7, 0, 0, 4, 0]
    assert not grid[["train image", "train text"]].any(axis=None)


@pytest.mark.parametrize(
    ("train", "images", "texts"),
    [("same", [0, 14], [14, 0]), ((0.65, 0.65), [7, 7], [7, 7])],
)
def test_availability_of_the_training_rows(train, images, texts):
    X, y = labelled_cells()
    grid = availability_grid(
        Reader(),
        X,
        y,
        availability=[(1.0, 0.3), (0.3, 1.0)],
        train_availability=train,
        cv=HALVES,
        scoring=HOLES,
    )
    assert grid["train image"].tolist() == images
    assert grid["train text"].tolist() == texts


def test_availability_grid_shares_the_holes_of_a_group():
    X, y = labelled_cells()
    grid = availability_grid(
        Reader(),
        X,
        y,
        availability=[(0.5, 0.5)],
        cv=2,
        groups=np.repeat(np.arange(10), 4),
        scoring=HOLES,
    )
    # Five groups of four rows in a fold: two lose the image, two the text.
    assert grid["test image"].tolist() == [8, 8]
    assert grid["test text"].tolist() == [8, 8]


@pytest.mark.parametrize("pair", [(0.3, 0.3), (0.5,), "same", 0.7, (0.2, 0.7, 0.1)])
def test_availability_that_leaves_rows_empty_is_refused(pair):
    X, y = labelled_cells()
    with pytest.raises(ValueError, match=r"two shares in \[0, 1\] .* got"):
        availability_grid(Reader(), X, y, availability=[pair])


def test_other_wrong_availability_is_named():
    X, y = labelled_cells()
    with pytest.raises(ValueError, match=r"share of texts must be in .* got 1.2"):
        availability_grid(Reader(), X, y, availability=[(0.5, 1.2)])
    with pytest.raises(ValueError, match="train_availability must be one of"):
        availability_grid(Reader(), X, y, train_availability="all")
