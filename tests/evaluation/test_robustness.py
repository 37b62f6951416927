"""Curves, matrices and grids on estimators whose scores can be worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from contract import ToyClassifier
from evaluation_cases import HALVES, Reader, count_holes, labelled_cells, words
from joblib import parallel_config

from robustmm import availability_grid, cross_scenario_matrix, missing_rate_curve
from robustmm.datasets import make_scenes

HOLES = {
    f"{rows} {column}": count_holes(column, rows)
    for rows in ("train", "test")
    for column in ("image", "text")
}


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(60, n_classes=2, random_state=0)


def test_a_reader_of_texts_loses_what_the_rate_takes():
    X, y = labelled_cells()
    curve = missing_rate_curve(
        Reader(uses=["text"]),
        X,
        y,
        rates=[0.0, 0.3, 0.7, 1.0],
        scenario=["text", "image", "both"],
        cv=HALVES,
        random_state=0,
    )
    assert list(curve) == ["scenario", "rate", "fold", "score"]
    scores = curve.set_index(["scenario", "rate"])["score"]
    assert scores["text"].round(9).tolist() == [1.0, 0.7, 0.3, 0.0]
    assert scores["image"].tolist() == [1.0] * 4
    # Of 6, 14 and 20 affected rows, 3, 7 and 10 lose the text.
    assert scores["both"].round(9).tolist() == [1.0, 0.85, 0.65, 0.5]


def test_training_rows_stay_as_they_are_and_are_fitted_once():
    X, y = labelled_cells()
    X.loc[:4, "image"] = None
    fits = []

    class Counting(Reader):
        def fit(self, X, y):
            fits.append(len(X))
            return super().fit(X, y)

    curve = missing_rate_curve(
        Counting(), X, y, rates=[0.5, 1.0], scenario="text", cv=HALVES, scoring=HOLES
    )
    assert fits == [20]
    assert curve["train image"].tolist() == [5, 5]
    assert curve["train text"].tolist() == [0, 0]
    assert curve["test text"].tolist() == [10, 20]


@pytest.mark.parametrize(
    ("train", "images", "texts"),
    [
        ({"train_rate": "same"}, [0, 0], [10, 20]),
        ({"train_rate": 0.2}, [0, 0], [4, 4]),
        ({"train_rate": 0.4, "train_scenario": "image"}, [8, 8], [0, 0]),
        ({"train_rate": "same", "train_scenario": "both"}, [5, 10], [5, 10]),
    ],
)
def test_training_rows_can_miss_something_too(train, images, texts):
    X, y = labelled_cells()
    curve = missing_rate_curve(
        Reader(),
        X,
        y,
        rates=[0.5, 1.0],
        scenario="text",
        cv=HALVES,
        scoring=HOLES,
        **train,
    )
    assert curve["train image"].tolist() == images
    assert curve["train text"].tolist() == texts
    assert curve["test text"].tolist() == [10, 20]


def test_a_higher_rate_adds_to_a_lower_one_and_seeds_repeat():
    X, y = labelled_cells()
    lost = []

    def keep(fitted, X, y):
        lost.append(set(X.index[X["text"].isna()]))
        return 0.0

    def curve(seed):
        lost.clear()
        missing_rate_curve(
            Reader(),
            X,
            y,
            rates=[0.2, 0.6],
            scenario="text",
            cv=HALVES,
            scoring=keep,
            random_state=seed,
        )
        return lost[:]

    first = curve(0)
    assert first[0] < first[1]
    assert first == curve(0)
    assert first != curve(1)


def test_two_jobs_give_the_same_numbers():
    X, y = labelled_cells()
    arguments = {"rates": [0.3], "scenario": "both", "cv": 3, "random_state": 0}
    one = missing_rate_curve(Reader(uses=["image"]), X, y, **arguments)
    with parallel_config("threading"):
        two = missing_rate_curve(Reader(uses=["image"]), X, y, n_jobs=2, **arguments)
    pd.testing.assert_frame_equal(one, two)
    assert one["fold"].tolist() == [0, 1, 2]


def test_groups_share_holes_and_sides():
    X, y = labelled_cells()
    groups = np.repeat(np.arange(10), 4)
    sides = []

    def keep(fitted, X, y):
        sides.append((set(fitted.seen_.index // 4), set(X.index // 4)))
        holes = X["text"].isna().groupby(X.index // 4)
        assert holes.nunique().eq(1).all()
        return holes.any().sum()

    curve = missing_rate_curve(
        Reader(),
        X,
        y,
        rates=[0.5],
        scenario="text",
        cv=5,
        scoring=keep,
        groups=groups,
    )
    assert curve["score"].tolist() == [1] * 5  # of two groups in each fold
    assert all(not train & test for train, test in sides)
    assert len(sides) == 5


def test_cross_scenario_matrix_trains_and_tests_on_every_pair():
    X, y = labelled_cells()
    names = ["text", "image", "both", "complete"]
    arguments = {"rate": 0.7, "scenarios": names, "cv": HALVES, "random_state": 0}
    for rows in ("train", "test"):
        for column in ("image", "text"):
            matrix = cross_scenario_matrix(
                Reader(), X, y, scoring=HOLES[f"{rows} {column}"], **arguments
            )
            expected = [14 * (name == column) + 7 * (name == "both") for name in names]
            counted = np.tile(expected, (4, 1))
            counted = counted.T if rows == "train" else counted
            np.testing.assert_array_equal(matrix, counted)
    assert (matrix.index.name, matrix.columns.name) == ("trained on", "tested on")
    assert list(matrix.index) == list(matrix.columns) == names


def test_training_and_test_rows_may_miss_at_two_rates():
    X, y = labelled_cells()
    options = {"rate": 0.7, "test_rate": 0.3, "cv": HALVES, "random_state": 0}
    for rows, expected in (("train", 14), ("test", 6)):
        matrix = cross_scenario_matrix(
            Reader(), X, y, scoring=HOLES[f"{rows} text"], **options
        )
        assert matrix.loc["text", "text"] == expected
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got 1.5"):
        cross_scenario_matrix(Reader(), X, y, test_rate=1.5)


def test_cross_scenario_matrix_is_the_mean_over_folds():
    X, y = labelled_cells()
    X.loc[:19, "image"] = None
    matrix, folds = cross_scenario_matrix(
        Reader(uses=["image"]), X, y, cv=4, return_folds=True, random_state=0
    )
    assert len(folds) == 4 * 9
    means = folds.groupby(["trained on", "tested on"])["score"].mean()
    for (trained, tested), mean in means.items():
        assert matrix.loc[trained, tested] == pytest.approx(mean)
    # Half of the rows have no image, so the others cannot lose their only text.
    assert matrix.loc["image", "text"] == pytest.approx(0.5)


def test_a_pipeline_on_words_runs_everywhere(scenes):
    X, y = scenes
    curve = missing_rate_curve(words(), X, y, [0.0, 1.0], "text", cv=3)
    means = curve.groupby("rate")["score"].mean()
    assert means[0.0] > 0.8 > 0.6 > means[1.0]
    matrix = cross_scenario_matrix(words(), X, y, rate=0.9, cv=3, random_state=0)
    assert matrix.loc["image", "image"] > matrix.loc["image", "text"] + 0.2
    grid = availability_grid(words(), X, y, availability=[(0, 1), (1, 0)], cv=3)
    means = grid.groupby("text")["score"].mean()
    assert means[1.0] > means[0.0] + 0.2


def test_one_of_our_classifiers_runs_everywhere(scenes):
    X, y = scenes
    clf = ToyClassifier("robustmm/tiny-clip", random_state=0)
    halves = [(np.arange(20), np.arange(20, 30))]
    shared = {"cv": halves, "random_state": 0}
    curve = missing_rate_curve(clf, X, y, rates=[0.0, 0.7], **shared)
    assert curve["score"].between(0, 1).all()
    matrix = cross_scenario_matrix(clf, X, y, scenarios=["text"], **shared)
    assert matrix.shape == (1, 1)
    grid = availability_grid(clf, X, y, availability=[(1, 0.3)], **shared)
    assert len(grid) == 1
    assert not hasattr(clf, "classes_")


def test_progress_is_shown_on_demand_only(capsys):
    X, y = labelled_cells()
    missing_rate_curve(Reader(), X, y, rates=[0.5], cv=HALVES)
    assert capsys.readouterr().err == ""
    missing_rate_curve(Reader(), X, y, rates=[0.5], cv=HALVES, verbose=1)
    assert "missing_rate_curve: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [-0.1, 1.5, "half"])
def test_a_rate_out_of_range_is_named(rate):
    X, y = labelled_cells()
    for call in (
        lambda: missing_rate_curve(Reader(), X, y, rates=[0.5, rate]),
        lambda: missing_rate_curve(Reader(), X, y, train_rate=rate),
        lambda: cross_scenario_matrix(Reader(), X, y, rate=rate),
    ):
        with pytest.raises(ValueError, match=rf"rate must be .*\[0, 1\], got {rate!r}"):
            call()


def test_unknown_scenarios_are_named():
    X, y = labelled_cells()
    rule = "scenario must be one of .*'text', 'image', 'both'.* got 'audio'"
    for call in (
        lambda: missing_rate_curve(Reader(), X, y, scenario=["text", "audio"]),
        lambda: cross_scenario_matrix(Reader(), X, y, scenarios=["audio"]),
        lambda: missing_rate_curve(
            Reader(), X, y, train_rate="same", train_scenario="audio"
        ),
    ):
        with pytest.raises(ValueError, match=rule):
            call()
    with pytest.raises(ValueError, match="train_scenario needs a train_rate"):
        missing_rate_curve(Reader(), X, y, train_scenario="text")
    with pytest.raises(ValueError, match="at least one rate and one scenario"):
        missing_rate_curve(Reader(), X, y, rates=[])


@pytest.mark.parametrize(
    "function", [missing_rate_curve, cross_scenario_matrix, availability_grid]
)
def test_frames_that_cannot_be_used_are_named(function):
    X, y = labelled_cells()
    with pytest.raises(ValueError, match="X must have a column 'text'"):
        function(Reader(), X.drop(columns="text"), y)
    with pytest.raises(ValueError, match="X must have a column 'picture'"):
        function(Reader(), X, y, image_column="picture")
    with pytest.raises(TypeError, match=r"X must be a DataFrame .* got ndarray"):
        function(Reader(), X.to_numpy(), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        function(Reader(), X, y[:-1])


def test_other_names_of_the_columns():
    X, y = labelled_cells()
    X = X.rename(columns={"text": "title", "image": "photo"})
    curve = missing_rate_curve(
        Reader(uses=["title"]),
        X,
        y,
        rates=[1.0],
        scenario="text",
        cv=HALVES,
        text_column="title",
        image_column="photo",
    )
    assert curve["score"].tolist() == [0.0]
