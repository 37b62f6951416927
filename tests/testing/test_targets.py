"""Checks of labels and weights find what is done to them."""

import numpy as np
import pytest
from broken import Broken, assert_found, checks_in
from sklearn.utils import get_tags
from toys import QuickClassifier

from robustmm.data.targets import Targets
from robustmm.testing import targets
from robustmm.testing.battery import checks_for
from robustmm.testing.subject import Subject

BROKEN = Broken()


@BROKEN.by("check_bad_targets_are_refused")
class NeedsNoTarget(QuickClassifier):
    def fit(self, X, y=None, sample_weight=None):
        return self if y is None else super().fit(X, y, sample_weight)


@BROKEN.by("check_labels_come_back")
class PredictsStrings(QuickClassifier):
    def predict(self, X):
        return super().predict(X).astype(str)


@BROKEN.by("check_three_classes")
class ScoresTwoClasses(QuickClassifier):
    def decision_function(self, X):
        scores = super().decision_function(X)
        return scores[:, :2] if scores.ndim == 2 else scores


@BROKEN.by("check_multilabel")
class SetsNoLabel(QuickClassifier):
    def predict(self, X):
        predicted = super().predict(X)
        return np.zeros_like(predicted) if predicted.ndim == 2 else predicted


@BROKEN.by("check_weight_of_zero_is_removal")
class KnowsNoZero(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight) + 1.0
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_equal_weights_are_none")
class TurnsWeightedTables(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None and len(set(np.asarray(sample_weight))) == 1:
            X, y = X[::-1], y[::-1]
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_weights_change_the_model", "check_weight_on_nothing_is_refused")
class DropsWeights(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y)


@BROKEN.by("check_bad_weights_are_refused")
class TakesAnyWeights(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None:
            sample_weight = np.abs(np.nan_to_num(sample_weight))
        return super().fit(X, y, sample_weight)


class Unweighted(Targets):
    def weights(self, class_weight, sample_weight):
        return sample_weight


@BROKEN.by(
    "check_class_weight_changes_the_model", "check_bad_class_weights_are_refused"
)
class DropsClassWeights(QuickClassifier):
    def _encode(self, y, *args, **kwargs):
        return Unweighted(**vars(super()._encode(y, *args, **kwargs)))


def test_every_check_has_something_to_find():
    assert checks_in(targets) == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    assert_found(name, BROKEN[name])


class SaysSomethingElse(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        try:
            return super().fit(X, y, sample_weight)
        except ValueError as error:
            raise ValueError("no") from error


class MixesColumns(QuickClassifier):
    def _encode(self, y, *args, **kwargs):
        y = y[sorted(y)] if hasattr(y, "columns") else y
        return super()._encode(y, *args, **kwargs)


@pytest.mark.parametrize(
    ("cls", "check", "rule"),
    [
        (SaysSomethingElse, "bad_targets_are_refused", "refuse the labels None"),
        (SaysSomethingElse, "bad_weights_are_refused", "sample_weight=.* must match"),
        (MixesColumns, "multilabel", "columns of a table of indicators"),
    ],
)
def test_the_rule_that_is_broken_is_said(cls, check, rule):
    with pytest.raises(AssertionError, match=rule):
        getattr(targets, f"check_{check}")(Subject(cls()))


def test_a_classifier_of_single_labels_gets_no_indicators():
    class Single(QuickClassifier):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.classifier_tags.multi_label = False
            return tags

    assert not get_tags(Single()).classifier_tags.multi_label
    names = {repr(check) for check in checks_for(Single())}
    left_out = {repr(check) for check in checks_for(QuickClassifier())} - names
    assert left_out == {"check_multilabel"}


@pytest.mark.parametrize(("y", "message"), targets.BAD_TARGETS, ids=str)
def test_bad_targets_are_bad(y, message):
    X, _ = Subject(QuickClassifier()).table(6)
    with pytest.raises(ValueError, match=message):
        QuickClassifier().fit(X, y)
