"""Thresholds per label: tuned on rows that were left out, for any score of labels."""

import pickle

import numpy as np
import pandas as pd
import pytest
from contract import frame_with_holes
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import f1_score, get_scorer, make_scorer
from sklearn.model_selection import GridSearchCV, KFold

from robustmm import LinearProbeClassifier, TunedThresholdsClassifier

X, _ = frame_with_holes()
PROBE = LinearProbeClassifier("robustmm/tiny-clip")
N = len(X)
Y = pd.DataFrame(
    {
        "drama": np.arange(N) % 2,
        "war": (np.arange(N) % 5 == 0).astype(int),
        "rare": (np.arange(N) == 3).astype(int),
        "never": 0,
    },
    index=X.index,
)


class Given(ClassifierMixin, BaseEstimator):
    """Has the probabilities of each row in the row."""

    def fit(self, X, y, sample_weight=None):
        self.weights_ = sample_weight
        self.classes_ = np.arange(np.shape(y)[1])
        return self

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        return (self.predict_proba(X) > 0.5).astype(int)


PROBA = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.05, 0.95]] * 3)
LABELS = np.array([[0, 1], [1, 0], [1, 0], [0, 1]] * 3)


def test_the_threshold_is_where_the_score_is_best():
    clf = TunedThresholdsClassifier(Given(), cv=3).fit(PROBA, LABELS)
    np.testing.assert_allclose(clf.thresholds_, [0.15, 0.85])
    np.testing.assert_array_equal(clf.predict(PROBA), LABELS)
    np.testing.assert_array_equal(clf.predict_proba(PROBA), PROBA)
    np.testing.assert_allclose(clf.best_scores_, 1)
    assert clf.best_score_ == clf.score(PROBA, LABELS) == 1
    assert not hasattr(clf, "decision_function")


@pytest.mark.parametrize("scoring", ["f1_micro", "f1_samples", "accuracy"])
def test_scores_that_mix_labels(scoring):
    clf = TunedThresholdsClassifier(Given(), cv=3, scoring=scoring).fit(PROBA, LABELS)
    np.testing.assert_array_equal(clf.predict(PROBA), LABELS)
    np.testing.assert_allclose(clf.best_scores_, clf.best_score_)


@pytest.mark.parametrize("y", [Y, Y.to_numpy(), Y.to_numpy().tolist(), Y.astype(bool)])
def test_tuned_is_better_than_one_half_on_the_rows_left_out(y):
    clf = TunedThresholdsClassifier(PROBE, cv=KFold(3), thresholds=20).fit(X, y)
    proba = np.empty(Y.shape)
    for rows, others in KFold(3).split(X):
        fold = clone(PROBE).fit(X.iloc[rows], Y.iloc[rows])
        proba[others] = fold.predict_proba(X.iloc[others])
    half = f1_score(Y, proba > 0.5, average="macro", zero_division=0)
    tuned = f1_score(Y, proba >= clf.thresholds_, average="macro", zero_division=0)
    assert tuned > half
    np.testing.assert_allclose(clf.best_score_, tuned)
    np.testing.assert_allclose(clf.best_scores_.mean(), tuned)
    assert clf.thresholds_[3] == 0.5
    assert clf.predict(X).shape == Y.shape


def test_names_and_columns_are_the_classifier_s():
    clf = TunedThresholdsClassifier(PROBE, cv=2, random_state=0).fit(X, Y)
    assert list(clf.classes_) == ["drama", "war", "rare", "never"]
    assert list(clf.feature_names_in_) == ["image", "text"]


def test_scikit_learn_s_lists_of_probabilities():
    numbers = np.random.default_rng(0).normal(size=(N, 3))
    forest = RandomForestClassifier(5, random_state=0)
    clf = TunedThresholdsClassifier(forest, cv=3).fit(numbers, Y)
    assert clf.predict_proba(numbers).shape == Y.shape
    assert not clf.predict(numbers)[:, 3].any()


def test_a_frozen_classifier_is_not_fitted_again():
    fitted = clone(PROBE).fit(X, Y)
    clf = TunedThresholdsClassifier(FrozenEstimator(fitted), cv=2).fit(X, Y)
    assert clf.estimator_.estimator is fitted
    best = max(
        f1_score(Y["war"], fitted.predict_proba(X)[:, 1] >= t)
        for t in np.linspace(0, 1, 200)
    )
    assert clf.best_scores_[1] >= best


def test_decision_functions_have_their_threshold_around_zero():
    clf = TunedThresholdsClassifier(
        PROBE, cv=2, response_method="decision_function", random_state=0
    ).fit(X, Y)
    assert clf.thresholds_[3] == 0
    np.testing.assert_array_equal(
        clf.predict(X), clf.decision_function(X) >= clf.thresholds_
    )


@pytest.mark.slow
def test_clone_search_and_pickle():
    clf = TunedThresholdsClassifier(PROBE, cv=2, random_state=0)
    grid = {"estimator__C": [0.1, 1.0], "thresholds": [[0.3, 0.4], 10]}
    search = GridSearchCV(clf, grid, cv=2, scoring="f1_micro").fit(X, Y)
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))
    assert not hasattr(clone(search.best_estimator_), "thresholds_")


def test_weights_go_to_fit_and_routed_to_the_scorer():
    weights = np.where(np.arange(12) % 4 == 1, 0.0, 1.0)
    clf = TunedThresholdsClassifier(Given(), cv=3)
    clf.fit(PROBA, LABELS, sample_weight=weights)
    assert list(clf.estimator_.weights_) == list(weights)
    unweighted = clf.thresholds_
    with config_context(enable_metadata_routing=True):
        scorer = get_scorer("f1_macro").set_score_request(sample_weight=True)
        asking = Given().set_fit_request(sample_weight=False)
        clf = TunedThresholdsClassifier(asking, cv=3, scoring=scorer)
        clf.fit(PROBA, LABELS, sample_weight=weights)
    assert clf.estimator_.weights_ is None
    # The rows at 0.2 and 0.8 count no more.
    assert unweighted[0] < 0.2 < clf.thresholds_[0]


def only_true(y, predicted):
    return -np.abs(y - predicted).sum()


def test_any_scorer_will_do():
    scorer = make_scorer(only_true)
    clf = TunedThresholdsClassifier(Given(), cv=3, scoring=scorer).fit(PROBA, LABELS)
    assert clf.best_score_ == 0


@pytest.mark.parametrize(
    ("y", "rule"),
    [
        (np.arange(N) % 2, "got a binary target.*TunedThresholdClassifierCV"),
        (np.arange(N) % 3, "got a multiclass target.*most probable"),
        (np.array(["a", "b"])[np.arange(N) % 2], "got a binary target"),
    ],
)
def test_other_targets_are_told_where_to_go(y, rule):
    with pytest.raises(ValueError, match=rule):
        TunedThresholdsClassifier(PROBE).fit(X, y)


@pytest.mark.parametrize(
    ("options", "error", "rule"),
    [
        ({"scoring": "roc_auc"}, ValueError, "score of predicted labels"),
        ({"thresholds": 0}, ValueError, r"thresholds must be in \[1"),
        ({"thresholds": [0.1, np.nan]}, ValueError, "array of finite numbers"),
        ({"thresholds": None}, ValueError, "a count or an array"),
        ({"response_method": "predict"}, ValueError, "response_method must be one of"),
        ({"cv": [([0, 1], [2])]}, ValueError, "exactly one fold"),
    ],
)
def test_what_is_refused(options, error, rule):
    clf = TunedThresholdsClassifier(Given(), **options)
    with pytest.raises(error, match=rule):
        clf.fit(PROBA, LABELS)
    assert not hasattr(clf, "thresholds_")
