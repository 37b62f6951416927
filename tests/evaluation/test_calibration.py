"""Expected calibration error: worked out by hand, per pattern, and of any form."""

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import LinearSVC

from robustmm import expected_calibration_error, score_by_pattern
from robustmm.evaluation.calibration import one_column_per_label


def test_bins_are_weighted_by_their_rows():
    # Confidence .9 and half right; .6 and all right.
    proba = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    y = [0, 0, 1, 1, 1, 1]
    expected = (4 * abs(0.5 - 0.9) + 2 * abs(1.0 - 0.6)) / 6
    assert expected_calibration_error(y, proba) == pytest.approx(expected)


def test_weights_are_rows_that_stand_several_times():
    proba = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    y, weights = np.array([0, 1, 1]), np.array([3, 1, 2])
    repeated = expected_calibration_error(y.repeat(weights), proba.repeat(weights, 0))
    found = expected_calibration_error(y, proba, sample_weight=weights)
    assert found == pytest.approx(repeated)


def test_one_bin_compares_means():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 50)
    y = rng.integers(0, 3, 50)
    right = (proba.argmax(axis=1) == y).mean()
    found = expected_calibration_error(y, proba, n_bins=1)
    assert found == pytest.approx(abs(right - proba.max(axis=1).mean()))


def test_bins_of_equal_mass_split_what_equal_width_lumps():
    proba = np.array([[0.91, 0.09]] * 10 + [[0.98, 0.02]] * 10)
    y = [0] * 10 + [0] * 9 + [1]
    lumped = expected_calibration_error(y, proba, n_bins=2)
    split = expected_calibration_error(y, proba, n_bins=2, strategy="quantile")
    assert lumped == pytest.approx(abs(0.95 - 0.945))
    assert split == pytest.approx(0.5 * 0.09 + 0.5 * 0.08)


def test_probabilities_drawn_from_are_calibrated_and_sharpened_ones_are_not():
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(int)
    assert expected_calibration_error(y, np.stack([1 - p, p], axis=1)) < 0.02
    sharp = p**4 / (p**4 + (1 - p) ** 4)
    assert expected_calibration_error(y, np.stack([1 - sharp, sharp], axis=1)) > 0.1


def test_indicators_are_predictions_each():
    proba = np.array([[0.9, 0.1], [0.9, 0.1]])
    Y = np.array([[1, 0], [0, 0]])
    found = expected_calibration_error(Y, proba)
    assert found == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)


def test_zero_and_one_have_bins_of_their_own():
    assert expected_calibration_error([0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0.0
    assert expected_calibration_error(np.zeros((2, 2)), np.zeros((2, 2))) == 0.0


@pytest.mark.parametrize(
    ("y", "proba", "options", "message"),
    [
        ([0, 1], [[0.5, 0.5]] * 3, {}, "inconsistent"),
        ([0, 1, 2], [[0.5, 0.5]] * 3, {}, "each of the 3 classes, got 2"),
        ([[0, 1, 1]], [[0.5, 0.5]], {}, "shape of the indicators"),
        ([0, 1], [[1.5, -0.5]] * 2, {}, r"in \[0, 1\]"),
        ([0, 1], [[0.5, 0.5]] * 2, {"n_bins": 0}, "n_bins"),
        ([0, 1], [[0.5, 0.5]] * 2, {"strategy": "mass"}, "strategy"),
    ],
)
def test_what_cannot_be_used_is_refused(y, proba, options, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(y, proba, **options)


def frame(n=12):
    X = pd.DataFrame({"image": ["a.png"] * n, "text": ["a"] * n}, dtype=object)
    X.loc[: n // 3 - 1, "text"] = None
    return X, np.tile([0, 0, 1], n // 3)


def test_score_by_pattern_has_a_column_of_it_where_it_is_asked_for():
    X, y = frame()
    dummy = DummyClassifier(strategy="constant", constant=0).fit(X, y)
    assert "expected_calibration_error" not in score_by_pattern(dummy, X, y)
    scores = score_by_pattern(dummy, X, y, calibration=True)
    column = scores["expected_calibration_error"]
    # It is sure, and wrong in a third of all rows; of the first four in one.
    assert column["all"] == pytest.approx(1 / 3)
    assert column["text_missing"] == pytest.approx(1 / 4)
    assert np.isnan(column["image_missing"])


def test_score_by_pattern_of_several_labels_and_of_no_probabilities():
    X, y = frame()
    Y = np.stack([y, 1 - y, np.zeros_like(y)], axis=1)
    dummy = DummyClassifier(strategy="prior").fit(X, Y)
    found = score_by_pattern(dummy, X, Y, calibration=True)
    assert found.loc["all", "expected_calibration_error"] == pytest.approx(0.0)
    svm = LinearSVC().fit(np.eye(2), [0, 1])
    with pytest.raises(ValueError, match=r"predict_proba, got LinearSVC"):
        score_by_pattern(svm, X, y, calibration=True)


def test_a_matrix_per_label_becomes_one():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 2)), np.tile([[1, 0, 1], [0, 0, 1]], (10, 1))
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    found = one_column_per_label(forest.predict_proba(X), forest.classes_)
    assert found.shape == (20, 3)
    assert (found[:, 1] == 0).all()
    assert (found[:, 2] == 1).all()
