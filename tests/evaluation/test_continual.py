"""Average performance and forgetting on matrices worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from contract import small
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from robustmm import (
    DeLoClassifier,
    average_performance,
    continual_matrix,
    forgetting,
)
from robustmm.datasets import make_scenes

NAN = float("nan")
# Task 0 gets better before it gets worse, so that the two definitions differ.
MATRIX = [
    [0.5, 0.9, 0.3, 0.2],
    [NAN, 0.8, 0.6, 0.7],
    [NAN, NAN, 0.4, 0.5],
    [NAN, NAN, NAN, 0.6],
]


class Growing(MultinomialNB):
    """Knows its classes from the start and learns them as they come."""

    def partial_fit(self, X, y):
        return super().partial_fit(X, y, classes=range(6))


class Sure(ClassifierMixin, BaseEstimator):
    """Says of every row that it has all labels seen so far."""

    def fit(self, X, y):
        return self.partial_fit(X, y)

    def partial_fit(self, X, y):
        self.classes_ = [*getattr(self, "classes_", []), *y.columns]
        return self

    def predict(self, X):
        return np.ones((len(X), len(self.classes_)), dtype=int)


def test_indicators_are_scored_among_all_that_were_learned():
    X = np.zeros((4, 1))
    first = pd.DataFrame({"war": [1, 1, 1, 0], "drama": 1})
    second = pd.DataFrame({"comedy": [1, 0, 0, 0], "war": [1, 1, 0, 0], "drama": 1})
    tasks = [(X, first, X, first), (X, second[["comedy"]], X, second)]
    matrix = continual_matrix(Sure(), tasks)
    np.testing.assert_allclose(matrix, [[0.75, 0.0], [NAN, 0.25]])


def one_hot_tasks():
    X, y = np.eye(6), np.arange(6)
    return [(X[i : i + 2], y[i : i + 2]) * 2 for i in (0, 2, 4)]


@pytest.mark.parametrize("kind", [list, np.array, pd.DataFrame])
def test_average_performance_is_the_mean_of_the_last_column(kind):
    expected = (0.2 + 0.7 + 0.5 + 0.6) / 4
    assert average_performance(kind(MATRIX)) == pytest.approx(expected)


def test_forgetting_from_the_best_score():
    expected = ((0.9 - 0.2) + (0.8 - 0.7) + (0.4 - 0.5)) / 3
    assert forgetting(MATRIX) == pytest.approx(expected)


def test_forgetting_from_the_diagonal():
    expected = ((0.5 - 0.2) + (0.8 - 0.7) + (0.4 - 0.5)) / 3
    assert forgetting(MATRIX, kind="diagonal") == pytest.approx(expected)


def test_scores_before_a_task_was_learned_do_not_count():
    full = np.array(MATRIX)
    full[np.isnan(full)] = 1.0
    for kind in ("max", "diagonal"):
        assert forgetting(full, kind) == pytest.approx(forgetting(MATRIX, kind))


def test_two_tasks_are_the_same_by_both_definitions():
    matrix = [[0.75, 0.25], [NAN, 1.0]]
    assert forgetting(matrix) == forgetting(matrix, "diagonal") == 0.5


def test_one_task_has_a_performance_but_no_forgetting():
    assert average_performance([[0.7]]) == 0.7
    with pytest.raises(ValueError, match="at least 2 tasks, got 1"):
        forgetting([[0.7]])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.1, 0.2]], r"must be square.*\(1, 2\)"),
        ([0.1, 0.2], r"must be square.*\(2,\)"),
        (np.zeros((0, 0)), r"must be square.*\(0, 0\)"),
        ([[0.1, NAN], [NAN, 0.2]], "no NaN on and above the diagonal"),
    ],
)
def test_bad_matrices(matrix, message):
    with pytest.raises(ValueError, match=message):
        average_performance(matrix)


def test_kind_is_one_of_two():
    with pytest.raises(ValueError, match="kind must be one of"):
        forgetting(MATRIX, kind="mean")


def test_matrix_has_a_column_per_task_learned():
    learner = Growing()
    matrix = continual_matrix(learner, one_hot_tasks(), names=["a", "b", "c"])
    assert list(matrix.index) == list(matrix.columns) == ["a", "b", "c"]
    assert (matrix.index.name, matrix.columns.name) == ("task", "after learning")
    values = matrix.to_numpy()
    assert (values[np.triu_indices(3)] == 1).all()
    assert np.isnan(values[np.tril_indices(3, -1)]).all()
    assert not hasattr(learner, "classes_")


def test_scoring_and_the_estimator_that_learned():
    calls = []

    def count(estimator, X, y):
        calls.append(y.tolist())
        return len(calls) / 10

    matrix, learner = continual_matrix(
        Growing(), one_hot_tasks(), scoring=count, return_estimator=True
    )
    assert calls == [[0, 1], [0, 1], [2, 3], [0, 1], [2, 3], [4, 5]]
    expected = [[0.1, 0.2, 0.4], [NAN, 0.3, 0.5], [NAN, NAN, 0.6]]
    np.testing.assert_array_equal(matrix, expected)
    assert learner.predict(np.eye(6)).tolist() == [0, 1, 2, 3, 4, 5]


def test_what_cannot_be_evaluated():
    with pytest.raises(TypeError, match=r"must have partial_fit.*LogisticRegression"):
        continual_matrix(LogisticRegression(), one_hot_tasks())
    with pytest.raises(ValueError, match="at least one task"):
        continual_matrix(Growing(), [])
    with pytest.raises(ValueError, match="got 3 tasks and 2 names"):
        continual_matrix(Growing(), one_hot_tasks(), names="ab")


def test_delo_among_all_classes_seen():
    X, y = make_scenes(120, n_classes=4, random_state=0)
    first = np.isin(y, np.unique(y)[:2])
    tasks = [
        (X[at][:12], y[at][:12], X[at][12:20], y[at][12:20]) for at in (first, ~first)
    ]
    matrix = continual_matrix(small(DeLoClassifier), tasks)
    assert matrix.shape == (2, 2)
    assert np.isnan(matrix.iloc[1, 0])
    assert 0 <= average_performance(matrix) <= 1
