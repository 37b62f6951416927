"""The subject of the checks, its tables, and the words in which a check fails."""

import warnings

import numpy as np
import pytest
import torch
from contract import ToyClassifier
from toys import QuickClassifier

from robustmm.testing.subject import (
    Subject,
    applies_if,
    must_raise,
    must_warn,
    needs,
    require,
    require_equal,
    table,
)

# Tables -----------------------------------------------------------------------------


def test_a_third_has_no_image_and_a_third_no_text():
    X, y = table(12, n_classes=3, columns=("photo", "caption"))
    assert list(X) == ["photo", "caption"]
    assert X["photo"].isna().tolist() == [True, False, False] * 4
    assert X["caption"].isna().tolist() == [False, True, False] * 4
    assert len(set(y)) == 3
    assert X.index[:2].tolist() == ["row0", "row1"]


def test_tables_are_equal_and_not_shared():
    (X, y), (again, labels) = table(6), table(6)
    assert X["text"].equals(again["text"])
    assert y.tolist() == labels.tolist()
    X.iloc[2, 1], y[0] = "changed", "changed"
    assert again.iloc[2, 1] != "changed"
    assert "changed" not in labels


# A subject --------------------------------------------------------------------------


def test_parameters_are_asked_of_the_constructor():
    subject = Subject(QuickClassifier())
    assert subject.has("batch_size", "verbose")
    assert not subject.has("batch_size", "warmup")
    assert subject.given(warmup=1.0, batch_size=3) == {"batch_size": 3}


def test_a_fresh_one_is_a_clone_with_a_seed():
    subject = Subject(QuickClassifier(batch_size=5, random_state=None))
    fresh = subject.fresh(batch_size=3)
    assert (fresh.batch_size, fresh.random_state) == (3, 0)
    assert (subject.estimator.batch_size, subject.estimator.random_state) == (5, None)
    assert Subject(QuickClassifier(random_state=7)).fresh().random_state == 7
    assert subject.fresh(random_state=4).random_state == 4


def test_a_classifier_without_a_seed_gets_none():
    class Seedless(ToyClassifier):
        def __init__(self, backbone="robustmm/tiny-clip"):
            super().__init__(backbone)

    assert "random_state" not in Subject(Seedless()).fresh().get_params()


def test_it_is_fitted_once_and_the_estimator_is_left_alone():
    fits = []

    class Counting(QuickClassifier):
        def fit(self, X, y, sample_weight=None):
            fits.append(sample_weight is None)
            return super().fit(X, y, sample_weight)

    subject = Subject(Counting())
    assert subject.fitted is subject.fitted
    assert subject.observed is subject.observed
    assert fits == [True, False]
    assert not hasattr(subject.estimator, "classes_")


def test_what_a_fit_does_is_seen_from_outside(capsys):
    class Busy(QuickClassifier):
        def fit(self, X, y, sample_weight=None):
            print("busy")  # noqa: T201
            torch.rand(1)
            X.iloc[0, 1] = "seen"
            if sample_weight is not None:
                sample_weight[0] = 5
            super().fit(X, y)
            return "nothing"

    subject = Subject(Busy())
    seen = subject.observed
    assert seen.output == "busy\n"
    assert seen.returned == "nothing"
    assert seen.X.iloc[0, 1] == "seen"
    assert seen.weights[0] == 5
    assert "net_" in vars(seen.estimator)
    assert "net_" not in seen.before
    assert not torch.equal(*seen.torch_state)
    assert (seen.numpy_state[0] == seen.numpy_state[1]).all()
    assert subject.table()[0].iloc[0, 1] != "seen"


def test_checks_say_for_whom_they_are():
    @needs("batch_size", "warmup")
    def check_both(subject):
        pass

    @applies_if(lambda subject: subject.estimator.batch_size > 5)
    def check_large(subject):
        pass

    subject = Subject(QuickClassifier(batch_size=8))
    assert not check_both.applies(subject)
    assert check_large.applies(subject)


# Failing ----------------------------------------------------------------------------


def test_a_rule_is_raised_where_it_is_broken():
    require(1, "one must be true")
    with pytest.raises(AssertionError, match=r"^zero must be true$"):
        require(0, "zero must be true")


def test_arrays_are_equal_exactly_unless_a_tolerance_is_given():
    require_equal([1.0, np.nan], [1.0, np.nan], "same")
    require_equal([1.0], [1.0 + 1e-7], "close", atol=1e-6)
    for values, atol in (([1.0 + 1e-7], 0.0), ([1.0 + 1e-5], 1e-6), ([1.0] * 3, 0.0)):
        with pytest.raises(AssertionError, match="Both must agree: "):
            require_equal(values, [1.0, 1.0], "Both must agree", atol=atol)
    # A tolerance is absolute: large numbers may not differ by more.
    with pytest.raises(AssertionError):
        require_equal([1e6], [1e6 + 1], "far", atol=1e-6)


def test_an_error_must_be_of_the_kind_and_say_the_words():
    with must_raise(ValueError, "b.*d", "rule"):
        raise ValueError("a b\nc d")
    with must_raise((KeyError, ValueError), "", "rule"):
        raise KeyError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("y"), r"^rule\. The message must match 'x', got ValueError"),
        (TypeError("x"), "^rule, got TypeError: x"),
        (None, "^rule, but nothing was raised"),
    ],
)
def test_another_error_or_none_is_a_failure(error, message):
    def fail():
        if error is not None:
            raise error

    rule = must_raise(ValueError, "x", "rule")
    with pytest.raises(AssertionError, match=message), rule:
        fail()


def test_ctrl_c_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt), must_raise(ValueError, "", "rule"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_warning_must_come_exactly_once(times):
    def warn():
        for _ in range(times):
            warnings.warn("3 rows are empty", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    if times == 1:
        with must_warn("rule", "are empty", "else"):
            warn()
        return
    message = r"rule\. One warning must match 'are empty', got \["
    with pytest.raises(AssertionError, match=message), must_warn("rule", "are empty"):
        warn()


def test_an_error_inside_is_raised_and_no_warning_is_missed():
    with pytest.raises(KeyError), must_warn("rule", "never comes"):
        raise KeyError
