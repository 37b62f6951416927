"""Metrics agree with hand-made cases, and one that does not fit the task is named."""

import numpy as np
import pandas as pd
import pytest
from evaluation_cases import Reader, labelled_cells
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from robustmm import missing_rate_curve, score_by_pattern
from robustmm.evaluation._scoring import score_name


class Told(ClassifierMixin, BaseEstimator):
    """Predicts what it is told."""

    def __init__(self, proba, classes=(0, 1)):
        self.proba = np.asarray(proba)
        self.classes = classes

    def fit(self, X=None, y=None):
        self.classes_ = np.array(self.classes)
        return self

    def predict_proba(self, X):
        return self.proba

    def predict(self, X):
        if len(self.classes) < self.proba.shape[1]:
            return (self.proba > 0.5).astype(int)
        return self.classes_[self.proba.argmax(axis=1)]


class ToldLabels(Told):
    """Predicts the indicators that it is told."""

    def predict(self, X):
        return (self.proba > 0.5).astype(int)


def score(fitted, y, scoring):
    rows = range(len(y))
    X = pd.DataFrame({"image": [f"{i}.png" for i in rows], "text": map(str, rows)})
    return score_by_pattern(fitted, X, y, scoring=scoring).loc["all", "score"]


def test_accuracy():
    proba = [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]
    told = Told(proba, ["ant", "bee", "cat"]).fit()
    assert score(told, ["ant", "bee", "cat", "bee"], None) == 0.75
    assert score(told, ["ant", "bee", "cat", "bee"], "accuracy") == 0.75


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    chance = np.array([0.9, 0.4, 0.6, 0.4, 0.2])
    told = Told(np.column_stack([1 - chance, chance])).fit()
    # Positives 0.9, 0.4; negatives 0.6, 0.4, 0.2: of six pairs, one is in the wrong
    # order and one is a tie.
    assert score(told, [1, 1, 0, 0, 0], "roc_auc") == pytest.approx(4.5 / 6)


def test_macro_f1_counts_an_absent_label_as_zero():
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    told = ToldLabels([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.6, 0], [0, 0, 0]]).fit()
    # First label: one hit, one miss, one false alarm; second: two hits, no error;
    # nobody has the third and nobody says so.
    expected = (2 / 4 + 1 + 0) / 3
    with pytest.warns(UndefinedMetricWarning):
        assert score(told, truth, "f1_macro") == pytest.approx(expected)
    quiet = make_scorer(f1_score, average="macro", zero_division=0)
    assert score(told, truth, quiet) == pytest.approx(expected)


def test_several_metrics_are_several_columns():
    X, y = labelled_cells(4)
    X.loc[0, "text"] = None
    fitted = Reader(uses=["text"]).fit(X, y)
    scores = score_by_pattern(
        fitted, X, y, scoring={"acc": "accuracy", "missed": lambda e, X, y: len(X)}
    )
    assert list(scores) == ["n_rows", "acc", "missed"]
    assert scores.loc["all"].tolist() == [4, 0.75, 4]
    two = missing_rate_curve(
        Reader(), X, y, rates=[0.0], cv=2, scoring=["accuracy", "balanced_accuracy"]
    )
    assert list(two)[3:] == ["accuracy", "balanced_accuracy"]


@pytest.mark.parametrize(
    ("y", "scoring", "task"),
    [
        (["a", "b", "c"] * 2, "roc_auc", "multiclass target of 3 classes"),
        ([0, 1, 2] * 2, "f1", "multiclass target of 3 classes"),
        ([0, 1] * 3, "r2", "binary target of 2 classes"),
        (["a", "b"] * 3, "neg_mean_squared_error", "binary target of 2 classes"),
        (np.eye(3)[[0, 1, 2] * 2], "f1", "multilabel-indicator target of 3 classes"),
        (np.eye(3)[[0, 1, 2] * 2], "balanced_accuracy", "multilabel-indicator"),
        (csr_array(np.eye(3)[[0, 1, 2] * 2]), "f1", "multilabel-indicator"),
        ([0, 1, 2] * 2, ["accuracy", "f1"], "multiclass target of 3 classes"),
        ([0, 1, 2] * 2, {"mine": make_scorer(f1_score)}, "multiclass"),
    ],
)
def test_a_metric_that_does_not_fit_the_task_is_named_before_any_fit(y, scoring, task):
    X, _ = labelled_cells(6)

    class Unfittable(Reader):
        def fit(self, X, y):
            raise AssertionError("no fit is needed to see that")

    with pytest.raises(ValueError, match=rf"must fit the task: .*{task}") as caught:
        missing_rate_curve(Unfittable(), X, y, cv=2, scoring=scoring)
    name = scoring if isinstance(scoring, str) else list(scoring)[-1]
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("y", "scoring"),
    [
        (["a", "b"] * 3, "roc_auc"),
        (["a", "b", "c"] * 2, "roc_auc_ovr"),
        ([0, 1] * 3, "f1"),
        ([0, 1] * 3, "average_precision"),
        (["a", "b", "c"] * 2, "neg_log_loss"),
        (np.eye(3)[[0, 1, 2] * 2], "f1_samples"),
        (np.eye(3)[[0, 1, 2] * 2], "roc_auc"),
        (np.eye(3, dtype=int)[[0, 1, 2] * 2], "average_precision"),
    ],
)
def test_a_metric_that_fits_is_let_through(y, scoring):
    from robustmm.evaluation._scoring import Scorer

    Scorer(Reader(), scoring, y)


def test_a_target_that_is_no_classification_is_named():
    X, _ = labelled_cells(4)
    with pytest.raises(ValueError, match="got a continuous target"):
        missing_rate_curve(Reader(), X, [0.1, 0.5, 0.7, 0.2])


def test_an_unknown_metric_is_named():
    X, y = labelled_cells(4)
    with pytest.raises(ValueError, match="'accurcy'"):
        missing_rate_curve(Reader(), X, y, scoring="accurcy")


# Names of scores --------------------------------------------------------------------


def share(fitted, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("scoring", "name"),
    [
        (None, "accuracy"),
        ("f1_macro", "f1 macro"),
        ("neg_log_loss", "negative log loss"),
        ("average_precision", "average precision"),
        (make_scorer(f1_score, average="macro"), "f1"),
        (share, "share"),
        (lambda fitted, X, y: 0.5, "score"),
    ],
)
def test_names_of_metrics(scoring, name):
    assert score_name(DummyClassifier(), scoring) == name
    assert score_name(make_pipeline(DummyClassifier()), scoring) == name


def test_the_name_of_what_an_estimator_scores_itself():
    y = np.zeros((4, 2))
    assert score_name(DummyClassifier(), None, y) == "subset accuracy"
    assert score_name(DummyClassifier(), None, y[:, :1]) == "accuracy"
    search = GridSearchCV(DummyClassifier(), {}, scoring="f1_macro")
    assert score_name(search) == score_name(make_pipeline(search)) == "f1 macro"
    assert score_name(GridSearchCV(DummyClassifier(), {})) == "accuracy"
    assert score_name(FunctionTransformer()) == "score"
