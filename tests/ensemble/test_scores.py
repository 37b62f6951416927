"""Scores of known predictions: all scorers, weights, patterns, and no score at all."""

import numpy as np
import pandas as pd
import pytest

from robustmm.data.targets import encode_targets
from robustmm.ensemble.scores import HeldOut, mean_average_precision

LOGITS = np.log([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
Y = np.array(["n", "n", "y", "y"])


def held(scoring=None, weights=None, y=Y):
    X = pd.DataFrame({"text": ["a", "b", "c", "d"]})
    return HeldOut(X, encode_targets(y), weights, scoring)


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [
        (None, 0.5),
        ("accuracy", 0.5),
        ("roc_auc", 0.75),
        ("neg_log_loss", np.log([0.9, 0.4, 0.8, 0.3]).mean()),
        (lambda clf, X, y: float((X["text"] == "a").sum() + len(y)), 5.0),
    ],
)
def test_any_scorer_of_scikit_learn_works(scoring, expected):
    assert held(scoring).score(LOGITS) == pytest.approx(expected)


def test_weights_count_where_a_metric_takes_them():
    weights = np.array([1.0, 0.0, 1.0, 0.0])
    assert held(weights=weights).score(LOGITS) == 1.0
    plain = held(lambda clf, X, y: 0.25, weights)
    assert plain.score(LOGITS) == 0.25


def test_a_score_that_is_not_defined_is_nan_without_a_word():
    both = held("roc_auc")
    assert np.isnan(both.score(LOGITS, np.array([0, 1])))
    found = both.by_pattern(LOGITS, np.array(["complete"] * 3 + ["text_missing"]))
    assert found["complete"] == 1.0
    assert np.isnan(found["text_missing"])
    assert np.isnan(found["image_missing"])


def test_ties_are_broken_by_the_loss():
    surer = LOGITS * 2
    score, loss = held().key(LOGITS)
    assert held().key(surer)[0] == score
    assert held().key(surer)[1] != loss


def test_an_ensemble_is_chosen_by_loss_unless_there_is_a_scoring():
    assert held().gain(LOGITS) == (-held().loss(LOGITS),)
    Y = pd.DataFrame({"a": [1, 0, 1, 0], "b": [0, 1, 1, 0]})
    assert held(y=Y).gain(LOGITS) == held(y=Y).key(LOGITS)
    assert held("accuracy").gain(LOGITS) == held("accuracy").key(LOGITS)


def test_several_labels_are_ranked_over_those_that_occur():
    Y = pd.DataFrame({"a": [1, 0, 1, 0], "never": 0})
    logits = np.array([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert held(y=Y).score(logits) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(mean_average_precision(None, None, np.zeros((2, 2))))


def test_calibration_error_is_that_of_the_probabilities():
    sure = np.log(np.array([[0.999, 0.001]] * 4))
    assert held().calibration_error(sure) == pytest.approx(0.499)
