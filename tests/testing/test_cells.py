"""Checks of cells find what is read wrongly; the cells they feed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from broken import Broken, assert_found, checks_in
from PIL import Image
from toys import QuickClassifier

from robustmm.data import decode_image
from robustmm.testing import cells
from robustmm.testing.battery import checks_for

BROKEN = Broken()


class ReadsOtherwise(QuickClassifier):
    """Changes the table before it is read."""

    def _check_X(self, X, reset):
        rows = super()._check_X(X, reset)
        return super()._check_X(self._change(X.copy(), reset), reset) if rows else rows


def spelled(cell):
    return "missing" if cell is pd.NA else cell


@BROKEN.by("check_any_null_with_any_cell")
class ReadsNullsInPredict(ReadsOtherwise):
    def _change(self, X, reset):
        return X if reset else X.assign(text=X["text"].map(spelled))


@BROKEN.by("check_fit_takes_any_null")
class ReadsNullsInFit(ReadsOtherwise):
    def _change(self, X, reset):
        return X.assign(text=X["text"].map(spelled)) if reset else X


@BROKEN.by("check_text_of_any_dtype")
class ReadsCodes(ReadsOtherwise):
    def _change(self, X, reset):
        text = X["text"]
        if text.dtype != "category":
            return X
        return X.assign(text=text.cat.codes.astype(str))


@BROKEN.by("check_a_whole_column_may_be_missing")
class NeedsAnImage(ReadsOtherwise):
    def _change(self, X, reset):
        if X["image"].isna().all():
            raise ValueError("no images")
        return X


@BROKEN.by("check_array_is_read_by_position")
class LosesTextsOfArrays(ReadsOtherwise):
    def _change(self, X, reset):
        if isinstance(X, np.ndarray):
            X[:, 1] = "text"
        return X


@BROKEN.by("check_other_columns_are_ignored")
class ReadsThePrice(ReadsOtherwise):
    def _change(self, X, reset):
        return X.assign(text=X["price"].astype(str)) if "price" in X else X


@BROKEN.by("check_two_columns_suffice")
class WantsTheColumnsOfFit(QuickClassifier):
    def _check_X(self, X, reset):
        if reset:
            self.seen_ = list(X) if isinstance(X, pd.DataFrame) else []
        elif isinstance(X, pd.DataFrame) and list(X) != self.seen_:
            raise ValueError("no column may be lacking, got ['robustmm_other']")
        return super()._check_X(X, reset)


@BROKEN.by("check_records_are_read_like_a_table")
class ReadsNoRecords(QuickClassifier):
    def _check_X(self, X, reset):
        rows = super()._check_X(X, reset)
        if isinstance(X, list):
            rows.texts[:] = ["text"] * len(rows)
        return rows


@BROKEN.by("check_wrong_columns_are_named")
class TakesAnyColumns(QuickClassifier):
    def _check_X(self, X, reset):
        if isinstance(X, pd.DataFrame):
            X = X.set_axis(["image", "text"], axis=1)
        return super()._check_X(X, reset)


@BROKEN.by("check_empty_table_is_refused")
class PredictsNothing(QuickClassifier):
    def predict(self, X):
        return super().predict(X) if len(X) else np.array([])


@BROKEN.by("check_rows_without_any_modality_get_the_prior")
class GuessesEvenly(QuickClassifier):
    def _log_odds(self, X):
        return self._evaluate(X)[0]


@BROKEN.by("check_no_modality_at_all_is_an_error")
class FitsNothing(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        nothing = isinstance(X, pd.DataFrame) and X.isna().all(axis=None)
        return self if nothing else super().fit(X, y, sample_weight)


@BROKEN.by("check_bad_images_are_listed_by_row")
class DropsBadImages(ReadsOtherwise):
    def _change(self, X, reset):
        return X.assign(image=X["image"].map(lambda c: None if c == b"x" else c))

    def _screen(self, rows, backbone):
        mode, self.on_bad_image = self.on_bad_image, "missing"
        rows = super()._screen(rows, backbone)
        self.on_bad_image = mode
        return rows


@BROKEN.by("check_inputs_are_not_changed")
class WritesIntoTheTable(QuickClassifier):
    def predict(self, X):
        X.iloc[0, 1] = "seen"
        return super().predict(X)


def test_every_check_has_something_to_find():
    assert checks_in(cells) == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    assert_found(name, BROKEN[name])


# What the checks feed ---------------------------------------------------------------


def test_pictures_are_noise_of_their_seed():
    picture = cells.noise_image(3, size=(5, 7))
    assert (picture.mode, picture.size) == ("RGB", (7, 5))
    assert np.array_equal(picture, cells.noise_image(3, size=(5, 7)))
    assert not np.array_equal(picture, cells.noise_image(4, size=(5, 7)))


@pytest.mark.parametrize("kind", cells.CELLS)
def test_a_picture_has_the_same_pixels_as_a_cell_of_any_kind(kind, tmp_path):
    picture = cells.noise_image(size=(6, 4))
    cell = cells.as_cell(picture, kind, tmp_path)
    np.testing.assert_array_equal(np.asarray(decode_image(cell)), np.asarray(picture))
    types = {
        "PIL image": Image.Image,
        "array": np.ndarray,
        "bytes": bytes,
        "dict": dict,
    }
    assert isinstance(cell, types.get(kind, str if kind in ("str", "base64") else Path))


def test_files_do_not_overwrite_each_other(tmp_path):
    pictures = [cells.noise_image(i) for i in range(3)]
    paths = [cells.as_cell(picture, "str", tmp_path) for picture in pictures]
    assert len(set(paths)) == 3
    assert np.array_equal(Image.open(paths[0]), pictures[0])


def test_nulls_are_what_pandas_takes_as_missing():
    assert all(pd.isna(null) for null in cells.NULLS.values())
    assert len({id(null) for null in cells.NULLS.values()}) == len(cells.NULLS)


# Columns ----------------------------------------------------------------------------


class Renamed(QuickClassifier):
    """Reads other columns than the default ones."""

    def __init__(self, *, image_column="photo", text_column="caption"):
        super().__init__()
        self.image_column = image_column
        self.text_column = text_column


def test_columns_may_have_other_names():
    estimator = Renamed()
    checked = [
        c for c in checks_for(estimator) if c.function.__module__ == cells.__name__
    ]
    assert len(checked) > 9
    for check in checked:
        check(estimator)
