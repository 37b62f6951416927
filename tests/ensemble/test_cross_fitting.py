"""Folds, routes and shapes that cross-fitted estimators share."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from robustmm.ensemble.cross_fitting import (
    cross_fit,
    split_rows,
)
from robustmm.evaluation.calibration import one_column_per_label

LABELS = np.array([0, 0, 0, 0, 1, 1])


def test_a_number_of_folds_keeps_the_shares_of_the_classes():
    for rows, others in split_rows(2, True, 0, LABELS, {}):
        assert LABELS[others].tolist().count(1) == 1
        assert sorted([*rows, *others]) == list(range(6))


def test_indicators_are_divided_without_classes():
    table = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    assert len(split_rows(None, False, 7, np.tile(table, (2, 1)), {})) == 5


@pytest.mark.parametrize("cv", [[([0, 1, 2, 3, 4, 5], [0])], [([0], range(6))] * 2])
def test_each_row_is_read_once(cv):
    with pytest.raises(ValueError, match=r"exactly one fold, got [02] for row"):
        split_rows(cv, True, None, LABELS, {})


def test_parameters_are_divided_like_the_rows():
    X = np.arange(6.0)[:, None]
    folds = split_rows(KFold(3), True, None, LABELS, {})
    weights = {"sample_weight": np.array([1, 0, 1, 1, 1, 1.0])}
    parts = cross_fit(
        LogisticRegression(), X, LABELS, folds[:1], lambda e, X: e.coef_, weights, None
    )
    expected = LogisticRegression().fit(X[2:], LABELS[2:]).coef_
    np.testing.assert_allclose(parts[0], expected)


def test_lists_of_two_probabilities_per_label_become_a_table():
    parts = [np.array([[0.1, 0.9], [0.6, 0.4]]), np.ones((2, 1)), np.ones((2, 1))]
    found = one_column_per_label(parts, [np.array([0, 1]), np.array([0]), [1]])
    np.testing.assert_array_equal(found, [[0.9, 0, 1], [0.4, 0, 1]])
