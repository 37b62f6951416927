"""Greedy selection: the best mean on the way, and of fitted classifiers."""

import numpy as np
import pytest
from ensemble_cases import First, prior, texts
from sklearn.exceptions import NotFittedError

from robustmm import EnsembleSelection
from robustmm.ensemble.selection import select_greedily


def score_against(target):
    return lambda mean: (-float(np.abs(mean - target).sum()),)


def test_members_are_taken_again_until_the_mean_is_best():
    outputs = np.array([0.0, 1.0, 9.0]).reshape(3, 1, 1)
    counts = select_greedily(outputs, score_against(0.75), size=4)
    assert counts.tolist() == [1, 3, 0]


def test_the_best_on_the_way_is_returned_not_the_last():
    outputs = np.array([1.0, -5.0]).reshape(2, 1, 1)
    # A second step can only be the same member again, which is no better.
    assert select_greedily(outputs, score_against(1.0), size=9).tolist() == [1, 0]


def test_of_equals_the_first_is_taken():
    outputs = np.ones((3, 2, 2))
    assert select_greedily(outputs, lambda mean: (0.5,), 1).tolist() == [1, 0, 0]


def test_a_size_of_one_is_the_best_single_member():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(6, 20, 3))
    score = score_against(outputs[4] + 0.01)
    assert select_greedily(outputs, score, 1).argmax() == 4


def fitted(n=60):
    X, y = texts(2 * n)
    train, held = (X[:n], y[:n]), (X[n:], y[n:])
    pairs = [("first", First().fit(*train)), ("prior", prior().fit(*train))]
    return pairs, held


def test_the_better_of_fitted_classifiers_weighs_more():
    pairs, held = fitted()
    clf = EnsembleSelection(pairs).fit(*held)
    assert clf.weights_[0] > 0.5
    assert clf.weights_.sum() == pytest.approx(1)
    assert clf.score_ == pytest.approx(clf.score(*held))
    proba = clf.predict_proba(held[0])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    assert (clf.classes_[proba.argmax(axis=1)] == clf.predict(held[0])).all()


def test_weights_of_rows_move_the_choice():
    X, y = texts(60, wrong=0.0)
    a = First(strength=0.9).fit(X, y)
    b = First(strength=0.9).fit(X, np.roll(y, 1))  # the same, as it reads letters
    flipped = np.where(y == "a", "b", y)
    clf = EnsembleSelection([("a", a), ("b", b), ("prior", prior().fit(X, y))])
    clf.fit(X, flipped, sample_weight=np.where(y == "a", 0.0, 1.0))
    assert clf.score_ == 1.0


def test_what_cannot_be_combined_is_refused():
    X, y = texts()
    with pytest.raises(NotFittedError):
        EnsembleSelection([("first", First())]).fit(X, y)
    with pytest.raises(ValueError, match=r"estimators must be a list.*None"):
        EnsembleSelection().fit(X, y)
    pairs, held = fitted()
    with pytest.raises(ValueError, match=r"ensemble_size.*0"):
        EnsembleSelection(pairs, ensemble_size=0).fit(*held)
    with pytest.raises(NotFittedError):
        EnsembleSelection(pairs).predict(X)
