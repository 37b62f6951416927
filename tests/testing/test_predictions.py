"""Checks of what comes out find what does not agree."""

import numpy as np
import pytest
import torch
from broken import Broken, assert_found, checks_in
from toys import N_FEATURES, QuickClassifier

from robustmm.testing import predictions
from robustmm.testing.subject import Subject

BROKEN = Broken()


@BROKEN.by("check_unfitted_says_so")
class PredictsUnfitted(QuickClassifier):
    def predict(self, X):
        return super().predict(X) if hasattr(self, "net_") else np.zeros(len(X))


@BROKEN.by("check_predictions_agree")
class PredictsTheWorst(QuickClassifier):
    def _to_labels(self, logits):
        return super()._to_labels(-logits)


@BROKEN.by("check_rows_are_predicted_one_by_one")
class CentresScores(QuickClassifier):
    def decision_function(self, X):
        scores = super().decision_function(X)
        return scores - scores.mean()


@BROKEN.by("check_predicting_is_repeatable")
class CountsPredictions(QuickClassifier):
    def predict(self, X):
        self.n_predicted_ = getattr(self, "n_predicted_", 0) + len(X)
        return super().predict(X)


@BROKEN.by("check_features_have_names")
class NamesOneFeature(QuickClassifier):
    def get_feature_names_out(self, input_features=None):
        return np.array(["feature"], dtype=object)


@BROKEN.by("check_heads_compute_in_float32")
class RoundsScores(QuickClassifier):
    def _build_module(self, backbone, n_outputs):
        module = super()._build_module(backbone, n_outputs)
        module.head = torch.nn.Linear(N_FEATURES, n_outputs)
        return module


@BROKEN.by("check_outputs_must_be_finite")
class PredictsWhatIsNotFinite(QuickClassifier):
    def predict(self, X):
        try:
            return super().predict(X)
        except ValueError:
            return self.classes_[np.zeros(len(X), dtype=int)]


def test_every_check_has_something_to_find():
    assert checks_in(predictions) == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    assert_found(name, BROKEN[name])


class FallsWithTheProbability(QuickClassifier):
    def decision_function(self, X):
        return -super().decision_function(X)


class ScoresPairs(QuickClassifier):
    def decision_function(self, X):
        return np.stack([super().decision_function(X)] * 2, axis=1)


class SumsToTwo(QuickClassifier):
    def predict_proba(self, X):
        return 2 * super().predict_proba(X)


class ScoresItself(QuickClassifier):
    def score(self, X, y):
        return 1.0


class PredictsByOrder(QuickClassifier):
    def decision_function(self, X):
        return super().decision_function(X) + np.arange(len(X))


class TransformsFlat(QuickClassifier):
    def transform(self, X):
        return super().transform(X).ravel()


@pytest.mark.parametrize(
    ("cls", "check", "rule"),
    [
        (FallsWithTheProbability, "predictions_agree", "must rise with the second"),
        (ScoresPairs, "predictions_agree", r"be \(n,\) for two classes, got \(18, 2\)"),
        (SumsToTwo, "predictions_agree", "rows must sum to one"),
        (ScoresItself, "predictions_agree", "must be the accuracy"),
        (PredictsByOrder, "rows_are_predicted_one_by_one", "The order of rows must"),
        (CentresScores, "rows_are_predicted_one_by_one", "Row 0 alone must be"),
        (TransformsFlat, "features_have_names", r"must return an array \(n, d\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_rule_that_is_broken_is_said(cls, check, rule):
    with pytest.raises(AssertionError, match=rule):
        getattr(predictions, f"check_{check}")(Subject(cls()))
