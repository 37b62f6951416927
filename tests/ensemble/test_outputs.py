"""What classifiers of any kind say, in one form."""

import numpy as np
import pytest
from ensemble_cases import First, texts
from scipy.special import expit
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import LinearSVC

from robustmm.ensemble.outputs import Predicted, combine, log_outputs, row_losses


def test_columns_are_put_in_order_and_an_unknown_class_is_nearly_impossible():
    X, y = texts(30)
    seen = First().fit(X[y != "b"], y[y != "b"])
    outputs = log_outputs(seen, X, np.array(["a", "b", "c"]), False)
    assert np.isfinite(outputs).all()
    np.testing.assert_allclose(np.exp(outputs).sum(axis=1), 1)
    assert (np.exp(outputs[:, 1]) < 1e-4).all()
    np.testing.assert_allclose(
        np.exp(outputs[:, [0, 2]]), seen.predict_proba(X), atol=1e-3
    )


def test_a_forest_of_several_labels_with_one_that_never_varies():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 2)), rng.integers(0, 2, (40, 3))
    Y[:, 1], Y[:, 2] = 0, 1
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    proba = expit(log_outputs(forest, X, np.arange(3), True))
    np.testing.assert_allclose(proba[:, 0], forest.predict_proba(X)[0][:, 1], atol=1e-3)
    assert proba[:, 1].max() < 1e-3
    assert proba[:, 2].min() > 0.999


def test_a_member_must_have_finite_probabilities():
    X = np.zeros((4, 1))
    svm = LinearSVC().fit(np.arange(4.0)[:, None], [0, 0, 1, 1])
    with pytest.raises(TypeError, match="LinearSVC has none"):
        log_outputs(svm, X, np.array([0, 1]), False)

    class Broken(First):
        def predict_proba(self, X):
            return np.full((len(X), 2), np.nan)

    broken = Broken()
    broken.classes_ = np.array([0, 1])
    with pytest.raises(ValueError, match="Broken must be finite"):
        log_outputs(broken, X, np.array([0, 1]), False)


def test_the_mean_is_that_of_logarithms_and_normalised():
    one, other = np.log([[0.8, 0.2]]), np.log([[0.2, 0.8]])
    mean = combine(np.stack([one, other]), np.array([3, 1]), False)
    odds = np.exp(mean[0, 0] - mean[0, 1])
    assert odds == pytest.approx(4 ** (3 / 4 - 1 / 4))
    assert np.exp(mean).sum() == pytest.approx(1)
    both = combine(np.stack([one, other]), np.array([1, 1]), True)
    np.testing.assert_allclose(both, (one + other) / 2)


def test_losses_are_those_of_the_labels():
    logits = np.log([[0.25, 0.75]])
    assert row_losses(logits, np.array([1]))[0] == pytest.approx(-np.log(0.75))
    several = row_losses(np.array([[0.0, 2.0]]), np.array([[1, 0]]))
    assert several[0] == pytest.approx((np.log(2) + np.log1p(np.exp(2))) / 2)


def test_known_answers_agree_with_one_another():
    logits = np.array([[1.0, -1.0], [0.0, 3.0]])
    two = Predicted(logits, np.array(["x", "y"]))
    assert two.predict(None).tolist() == ["x", "y"]
    assert two.decision_function(None).tolist() == [-2.0, 3.0]
    assert (two.predict_proba(None).argmax(axis=1) == [0, 1]).all()
    several = Predicted(logits, np.arange(2), True)
    assert several.predict(None).tolist() == [[1, 0], [0, 1]]
