"""Scores by pattern and importance of modalities, on rows that say their label."""

import numpy as np
import pandas as pd
import pytest
from contract import ToyClassifier
from evaluation_cases import Reader, labelled_cells, words
from PIL import Image

from robustmm import drop_modalities, modality_importance, score_by_pattern
from robustmm.datasets import make_scenes


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(60, n_classes=2, random_state=0)


@pytest.fixture(scope="module")
def toy(scenes):
    X, y = scenes
    return ToyClassifier("robustmm/tiny-clip", random_state=0).fit(X[:24], y[:24])


def test_observed_rows_are_sorted_by_what_they_miss():
    X, y = labelled_cells(10)
    X.loc[:2, "text"] = None
    X.loc[3:4, "image"] = None
    X.loc[5] = None
    X.loc[9, "text"] = "wrong"
    scores = score_by_pattern(Reader(uses=["text"]).fit(X, y), X, y)
    assert scores.index.name == "pattern"
    assert scores["n_rows"].to_dict() == {
        "complete": 4,
        "text_missing": 3,
        "image_missing": 2,
        "both_missing": 1,
        "all": 10,
    }
    assert scores["score"].tolist() == [0.75, 0.0, 1.0, 0.0, 0.5]


def test_a_pattern_without_rows_has_no_score():
    X, y = labelled_cells(4)
    scores = score_by_pattern(Reader().fit(X, y), X, y)
    assert scores["n_rows"].tolist() == [4, 0, 0, 0, 4]
    assert scores["score"].isna().tolist() == [False, True, True, True, False]


def test_blanked_rows_are_the_complete_ones_each_time():
    X, y = labelled_cells(10)
    X.loc[:3, "text"] = None
    scores = score_by_pattern(Reader(uses=["text"]).fit(X, y), X, y, rows="blanked")
    assert scores["n_rows"].to_dict() == {
        "complete": 6,
        "text_missing": 6,
        "image_missing": 6,
    }
    assert scores["score"].tolist() == [1.0, 0.0, 1.0]


def test_importance_of_the_only_column_that_is_read():
    X, y = labelled_cells()
    fitted = Reader(uses=["text"]).fit(X, y)
    table = modality_importance(fitted, X, y, n_repeats=20, random_state=0)
    assert table.index.tolist() == ["image", "text"]
    assert table.loc["image"].tolist() == [0.0, 0.0, 0.0]
    # A permuted text is right by chance in half of the rows; none is right if blank.
    assert table.loc["text", "permuted"] == pytest.approx(0.5, abs=0.1)
    assert 0 < table.loc["text", "permuted_sd"] < 0.2
    assert table.loc["text", "blanked"] == 1.0


def test_a_robust_reader_notices_blank_cells_but_not_wrong_ones():
    X, y = labelled_cells()
    table = modality_importance(Reader().fit(X, y), X, y, random_state=0)
    assert table.loc["text", "permuted"] > 0.3
    assert table["blanked"].tolist() == [0.0, 0.0]


def test_permutation_keeps_what_is_missing_where_it_is():
    X, y = labelled_cells()
    X.loc[:9, "text"] = None
    X.loc[35:, "image"] = None
    seen = []

    def keep(fitted, X, y):
        seen.append(X.copy())
        return 0.0

    before = X.copy()
    modality_importance(Reader().fit(X, y), X, y, scoring=keep, n_repeats=2)
    pd.testing.assert_frame_equal(X, before)
    first, *images, no_image = seen[:4]
    texts, no_text = seen[4:6], seen[6]
    for column, changed in (("image", images), ("text", texts)):
        for frame in changed:
            other = "text" if column == "image" else "image"
            pd.testing.assert_series_equal(frame[other], X[other])
            pd.testing.assert_series_equal(frame[column].isna(), X[column].isna())
            assert (frame[column] != X[column]).any()
            assert sorted(frame[column].dropna()) == sorted(X[column].dropna())
    pd.testing.assert_frame_equal(first, X)
    # Rows that have nothing else keep their cell.
    assert no_image["image"].notna().sum() == 10
    assert no_text["text"].notna().sum() == 5


def test_images_are_permuted_as_any_cell(scenes):
    X, y = scenes
    frames = []

    def keep(fitted, X, y):
        frames.append(X)
        return 0.0

    modality_importance(Reader(), X, y, scoring=keep, n_repeats=1, random_state=0)
    assert all(isinstance(cell, Image.Image) for cell in frames[1]["image"])
    assert {id(cell) for cell in frames[1]["image"]} == {id(i) for i in X["image"]}


def test_repeats_are_seeded():
    X, y = labelled_cells()
    fitted = Reader().fit(X, y)
    first, again, other = (
        modality_importance(fitted, X, y, random_state=seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)
    single = modality_importance(fitted, X, y, n_repeats=1)
    assert single["permuted_sd"].isna().all()


def test_a_pipeline_on_words_and_one_of_ours(scenes, toy):
    X, y = scenes
    fitted = words().fit(X[:40], y[:40])
    table = modality_importance(fitted, X[40:], y[40:], random_state=0)
    assert table.loc["image"].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["text", "permuted"] > 0.1
    holes = drop_modalities(X[40:], 0.6, "both", random_state=0)
    for clf in (fitted, toy):
        scores = score_by_pattern(clf, holes, y[40:], scoring="balanced_accuracy")
        assert scores["n_rows"].tolist() == [8, 6, 6, 0, 20]
        assert scores["score"].notna().sum() == 4
    ours = modality_importance(toy, X[40:], y[40:], n_repeats=2, random_state=0)
    assert np.isfinite(ours).all(axis=None)


def test_progress_is_shown_on_demand_only(capsys):
    X, y = labelled_cells(4)
    fitted = Reader().fit(X, y)
    modality_importance(fitted, X, y)
    assert capsys.readouterr().err == ""
    modality_importance(fitted, X, y, n_repeats=np.int64(3), verbose=1)
    assert "modality_importance: 100%" in capsys.readouterr().err


def test_what_cannot_be_evaluated_is_named():
    X, y = labelled_cells(4)
    fitted = Reader().fit(X, y)
    with pytest.raises(ValueError, match=r"rows must be one of .* got 'forced'"):
        score_by_pattern(fitted, X, y, rows="forced")
    with pytest.raises(ValueError, match="none among 4"):
        score_by_pattern(fitted, X.assign(text=None), y, rows="blanked")
    with pytest.raises(ValueError, match="X must have a column 'image'"):
        score_by_pattern(fitted, X.drop(columns="image"), y)
    with pytest.raises(ValueError, match=r"n_repeats must be in \[1, inf\), got 0"):
        modality_importance(fitted, X, y, n_repeats=0)
    with pytest.raises(ValueError, match="one metric here, got 2"):
        modality_importance(fitted, X, y, scoring=["accuracy", "f1_macro"])
