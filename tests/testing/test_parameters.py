"""Checks of the constructor find what is wrong with it."""

import copy

import numpy as np
import pytest
from broken import Broken, assert_found, checks_in
from toys import QuickClassifier

from robustmm import MAPClassifier
from robustmm.testing import parameters
from robustmm.testing.subject import Subject

BROKEN = Broken()


@BROKEN.by("check_constructor_has_defaults")
class NeedsAnArgument(QuickClassifier):
    def __init__(self, backbone, *, max_epochs=1):
        super().__init__(backbone, max_epochs=max_epochs)


@BROKEN.by("check_constructor_only_assigns")
class ReplacesAnArgument(QuickClassifier):
    def __init__(self, backbone="robustmm/tiny-clip", *, net_params=None):
        super().__init__(backbone, net_params=net_params or {})


@BROKEN.by("check_clone")
class ClonesItself(QuickClassifier):
    def __sklearn_clone__(self):
        return copy.copy(self)


@BROKEN.by("check_fit_leaves_parameters_alone")
class SetsSomethingPublic(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        self.n_rows = len(X)
        return super().fit(X, y, sample_weight)


@BROKEN.by("check_bad_parameters_are_named")
class ChecksNothing(QuickClassifier):
    def _check_parameters(self):
        pass


@BROKEN.by("check_numbers_must_be_finite")
class TakesAnyRate(QuickClassifier):
    def _check_parameters(self):
        if np.isfinite(self.lr):
            super()._check_parameters()


@BROKEN.by("check_parameters_are_documented")
class MisspellsAParameter(MAPClassifier):
    """Declares one again, but for a letter.

    Parameters
    ----------
    max_epoch : int
        Passes over the rows.
    """

    max_epoch: int = 3


def test_an_undocumented_parameter_is_found():
    class Undocumented(MAPClassifier):
        """Adds one without a word."""

        width: int = 3

    estimator = Undocumented("robustmm/tiny-vilt")
    with pytest.raises(AssertionError, match=r"not \['width'\]"):
        parameters.check_parameters_are_documented(Subject(estimator))


def test_every_check_has_something_to_find():
    assert checks_in(parameters) == set(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_finds_what_is_broken(name):
    assert_found(name, BROKEN[name])


class TakesAnything(QuickClassifier):
    def __init__(self, backbone="robustmm/tiny-clip", **options):
        super().__init__(backbone)


class Validates(QuickClassifier):
    def __init__(self, backbone="robustmm/tiny-clip", *, batch_size=8):
        if not batch_size > 0:
            raise ValueError("batch_size must be positive")
        super().__init__(backbone, batch_size=batch_size)


class SetsAFittedAttribute(QuickClassifier):
    def __init__(self, backbone="robustmm/tiny-clip"):
        super().__init__(backbone)
        self.classes_ = None


class NamesNoValue(QuickClassifier):
    def _check_parameters(self):
        try:
            super()._check_parameters()
        except ValueError as error:
            name = str(error).split()[0]
            raise ValueError(f"{name} is wrong.") from error


class ReturnsNothing(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)


class ChangesAParameter(QuickClassifier):
    def fit(self, X, y, sample_weight=None):
        self.batch_size = 4
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    ("cls", "check", "rule"),
    [
        (TakesAnything, "constructor_has_defaults", r"named .* got \['options'\]"),
        (Validates, "constructor_only_assigns", "must not validate, leave that to fit"),
        (SetsAFittedAttribute, "constructor_only_assigns", r"\['classes_'\]"),
        (NamesNoValue, "bad_parameters_are_named", "message must match .*, got Value"),
        (ReturnsNothing, "fit_leaves_parameters_alone", "must return the estimator"),
        (ChangesAParameter, "fit_leaves_parameters_alone", r"\['batch_size'\]"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_rule_that_is_broken_is_said(cls, check, rule):
    function = getattr(parameters, f"check_{check}")
    with pytest.raises(AssertionError, match=rule):
        function(Subject(cls()))


def test_only_parameters_that_are_taken_are_set_out_of_range():
    tried = []

    class Remembers(QuickClassifier):
        def set_params(self, **params):
            tried.extend(params)
            return super().set_params(**params)

    parameters.check_bad_parameters_are_named(Subject(Remembers()))
    taken = Remembers().get_params()
    assert set(tried) == {name for name in parameters.OUT_OF_RANGE if name in taken}
    assert "warmup" not in tried


def test_every_value_out_of_range_is_refused_by_a_classifier_that_takes_it():
    for name, value in parameters.OUT_OF_RANGE.items():
        classifier = QuickClassifier()
        setattr(classifier, name, value)
        with pytest.raises((ValueError, TypeError), match=name):
            classifier.fit(*Subject(classifier).table(6))
