"""Evaluations find the columns that the estimators read, wherever these are."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from evaluation_cases import HALVES, Reader, labelled_cells, words
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from robustmm import (
    AvailabilityRadarDisplay,
    CrossScenarioDisplay,
    EmbeddingDisplay,
    LinearProbeClassifier,
    MissingRateCurveDisplay,
    availability_grid,
    compare_methods,
    cross_scenario_matrix,
    embedding_coordinates,
    missing_rate_curve,
    modality_importance,
    score_by_pattern,
)
from robustmm.datasets import make_scenes
from robustmm.evaluation._columns import Columns, columns_of

NAMES = {"image": "poster", "text": "plot"}


class Named(Reader):
    """A reader that says which columns it reads."""

    def __init__(self, image_column="poster", text_column="plot", blank_image="bad"):
        self.image_column = image_column
        self.text_column = text_column
        self.blank_image = blank_image

    @property
    def uses(self):
        return self.text_column, self.image_column


def posters():
    X, y = labelled_cells()
    return X.rename(columns=NAMES), y


KEEP = FunctionTransformer()
INSIDE = {
    "itself": Named(),
    "a pipeline": make_pipeline(KEEP, Named()),
    "a search": GridSearchCV(Named(), {"blank_image": ["bad"]}),
    "a search over a pipeline": GridSearchCV(make_pipeline(KEEP, Named()), {}),
    "a pipeline with a search": make_pipeline(KEEP, GridSearchCV(Named(), {})),
    "calibrated": CalibratedClassifierCV(Named()),
    "a vote": VotingClassifier([("a", Named()), ("b", Named())]),
}


@pytest.mark.parametrize("estimator", INSIDE.values(), ids=INSIDE)
def test_wherever_it_is(estimator):
    assert columns_of([estimator]) == Columns("poster", "plot", "bad")


def test_the_best_of_a_search():
    X, y = posters()
    X = X.assign(empty="none")
    grid = {"text_column": ["empty", "plot"], "image_column": ["empty"]}
    search = GridSearchCV(Named(), grid, cv=HALVES, scoring="accuracy").fit(X, y)
    assert columns_of([search]) == Columns("empty", "plot", "bad")


def test_the_last_step_prevails_and_names_that_are_given():
    model = make_pipeline(Named("first", "second"), Named())
    assert columns_of([model]).names == ("poster", "plot")
    assert columns_of([model], "given").names == ("given", "plot")


@pytest.mark.parametrize("silent", [DummyClassifier(), words(), object(), Named])
def test_who_says_nothing_reads_image_and_text(silent):
    assert columns_of([silent]) == Columns("image", "text", "bad")


def test_those_who_differ_are_an_error():
    pair = [Named(), Named("photo")]
    with pytest.raises(ValueError, match=r"image_column must be .*'poster', 'photo'"):
        columns_of(pair)
    with pytest.raises(ValueError, match="image_column must be the same"):
        columns_of([VotingClassifier([("a", pair[0]), ("b", pair[1])])])
    assert columns_of(pair, "poster").names == ("poster", "plot")


# ---------------------------------------------------------------------- each function


def test_every_evaluation_reads_them():
    X, y = posters()
    clf = make_pipeline(KEEP, Named()).fit(X, y)
    options = {"cv": HALVES, "random_state": 0}
    assert score_by_pattern(clf, X, y, rows="blanked")["score"].tolist() == [1.0] * 3
    fall = modality_importance(clf, X, y, n_repeats=1, random_state=0)
    assert fall["blanked"].tolist() == [0.0, 0.0]
    assert missing_rate_curve(clf, X, y, [0.5], **options)["score"].tolist() == [1.0]
    assert (cross_scenario_matrix(clf, X, y, **options) == 1).all(axis=None)
    assert (availability_grid(clf, X, y, **options)["score"] == 1).all()
    table = compare_methods({"a": clf, "prior": DummyClassifier()}, X, y, rate=0.5)
    assert table.loc["a", "score_mean"] == 1


def test_every_display_reads_them():
    X, y = posters()
    for display in (MissingRateCurveDisplay, CrossScenarioDisplay):
        assert display.from_estimator(Named(), X, y, cv=HALVES).ax_
    assert AvailabilityRadarDisplay.from_estimator(Named(), X, y, cv=HALVES).ax_
    X, y = make_scenes(12, n_classes=2, random_state=0)
    clf = LinearProbeClassifier("robustmm/tiny-clip", image_column="poster")
    X = X.rename(columns={"image": "poster"})
    search = GridSearchCV(clf, {}, cv=2).fit(X, y)
    assert len(embedding_coordinates(search, X)) == 12
    assert EmbeddingDisplay.from_estimator(search, X, y).ax_


# --------------------------------------------------------------------- blanks, tables


def test_a_blank_image_is_what_the_estimator_takes_it_for():
    X, y = labelled_cells(8)
    X.loc[:3, "image"] = ""
    clf = Named("image", "text", "missing").fit(X, y)
    scores = score_by_pattern(clf, X, y)
    assert scores["n_rows"].to_dict()["image_missing"] == 4
    assert (
        score_by_pattern(Named("image", "text").fit(X, y), X, y)["n_rows"].iloc[0] == 8
    )
    # No row loses its text where that is all it has.
    blanked = missing_rate_curve(
        clf, X, y, [1.0], "text", cv=[(np.arange(8), np.arange(8))]
    )
    assert blanked["score"].tolist() == [1.0]


@pytest.mark.parametrize("convert", [pl.from_pandas, lambda X: X.to_dict("records")])
def test_tables_of_other_kinds(convert):
    X, y = posters()
    clf = Named().fit(X, y)
    table = convert(X)
    assert score_by_pattern(clf, table, y)["score"]["all"] == 1
    assert len(missing_rate_curve(clf, table, y, [0.5], cv=HALVES)) == 1


def test_the_name_of_a_column_is_no_label():
    X, y = posters()
    X["label"] = y
    with pytest.raises(ValueError, match=r"pass the column, y=df\['label'\]"):
        score_by_pattern(Named().fit(X, y), X, "label")


def test_a_column_that_is_not_there_is_named():
    X, y = posters()
    with pytest.raises(ValueError, match=r"must have a column 'image'.*\['poster'"):
        missing_rate_curve(DummyClassifier(), X, y)


class Listening(Named):
    """A reader of sounds and videos."""

    def __init__(self, modalities=("audio", "video"), audio_column="sound"):
        super().__init__()
        self.modalities = modalities
        self.audio_column = audio_column


@pytest.mark.parametrize("modalities", [("audio", "video"), ["audio", "video"]])
def test_other_modalities_have_columns_of_their_own(modalities):
    columns = columns_of([make_pipeline(KEEP, Listening(modalities))])
    assert columns.by_modality == {"audio": "sound", "video": "video"}
    frame = pd.DataFrame({"sound": ["a.wav", None], "video": [None, "b.mp4"]})
    expected = ["video_missing", "audio_missing"]
    assert columns.rows(frame).patterns.tolist() == expected
